"""Pictures that help to choose a number: of components by a criterion, of clusters by entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lvm.combining import bend
from lvm.plotting.canvas import COLOURS, INK, Array, sized, style, thinned, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lvm.combining import Combination
    from lvm.selection import Selection

MAX_INSIDE = 6  # lines; the legend of more stands beside the axes
SHOWN, SHOWN_REACH = 0.6, 2.0  # of more lines: the share of fits that is surely shown, and the axis in units of theirs
CRITERION_LABELS = {
    "bic": "BIC (lower is better)",
    "aic": "AIC (lower is better)",
    "icl": "ICL (lower is better)",
    "heldout": "held-out log-likelihood per row (higher is better)",
}


def plot_selection(selection: Selection, ax: Axes | None = None) -> Axes:
    """Draw the criterion of a selection against the number of components, and mark the best fit.

    Parameters
    ----------
    selection : Selection
        What `lvm.select` returned. There is one line per combination of the arguments besides `n_components`;
        fits that failed leave gaps.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        The axes drawn in.
    """
    if ax is None:
        many = len(selection.table) > MAX_INSIDE * len({c.arguments["n_components"] for c in selection.table})
        ax = sized(None, *((8.4, 5.4) if many else (6.4, 4.2))).subplots()
    lines: dict[str, list[tuple[int, float]]] = {}
    best: tuple[int, float] | None = None
    name_of_best = ""
    for candidate in selection.table:
        others = {name: value for name, value in candidate.arguments.items() if name != "n_components"}
        point = (int(candidate.arguments["n_components"]), float(getattr(candidate, selection.criterion)))
        name = ", ".join(str(value) for value in others.values())
        lines.setdefault(name, []).append(point)
        if candidate.estimator is selection.best:
            best, name_of_best = point, f"{name}, "
    is_crowded = len(lines) > MAX_INSIDE
    for index, (label, points) in enumerate(lines.items()):
        x, y = zip(*sorted(points), strict=True)
        colour, marker = style(index)
        # Where colours come round again, lines are dashed and marks hollow.
        again: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"} if index // len(COLOURS) % 2 else {}
        ax.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.6, label=label or None, **again)
    if best is not None:
        ring = f"best: {name_of_best if is_crowded else ''}K = {best[0]} ({best[1]:.6g})"
        ax.plot(*best, "o", markersize=15, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.6, label=ring)
    ax.set_xticks(thinned(sorted({x for points in lines.values() for x, _ in points}), 20))
    ax.set_xlabel("number of components K")
    ax.set_ylabel(CRITERION_LABELS[selection.criterion])
    title = ", ".join(name for name in selection.table[0].arguments if name != "n_components") or None
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0.0}
    ax.legend(title=title, frameon=not is_crowded, **(beside if is_crowded else {}))
    if is_crowded:
        _show_the_best(ax, np.array([y for points in lines.values() for _, y in points]), selection.criterion)
    tidy(ax)
    return ax


def _show_the_best(ax: Axes, values: Array, criterion: str) -> None:
    """End the axis of values behind the better ones, where the others would press these together; say what is left out.

    The better ones are a share `SHOWN` of all, and they take up half of the axis or more.
    """
    sign = -1 if criterion == "heldout" else 1
    costs = sign * values[np.isfinite(values)]
    best = costs.min()
    reach = SHOWN_REACH * (np.quantile(costs, SHOWN) - best)
    hidden = int((costs - best > reach).sum())
    if reach > 0 and hidden:
        ax.set_ylim(*sorted((sign * (best - 0.05 * reach), sign * (best + reach))))
        side: dict[str, Any] = {"y": 0.99, "va": "top"} if sign > 0 else {"y": 0.01, "va": "bottom"}
        text = f"not shown: {hidden} of {len(costs)} fits, {'above' if sign > 0 else 'below'}"
        ax.text(0.99, s=text, ha="right", transform=ax.transAxes, fontsize="small", color=INK, **side)


def plot_entropy(combination: Combination, ax: Axes | None = None) -> Axes:
    """Draw the entropy of a combination against the number of clusters, with the two lines that bend at the hint.

    Parameters
    ----------
    combination : Combination
        What `lvm.combine` returned.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        The axes drawn in.
    """
    if ax is None:
        ax = sized(None, 6.4, 4.2).subplots()
    entropies = combination.entropies
    K = len(entropies)
    number, lines = bend(entropies)
    for (slope, intercept), (left, right) in zip(lines, ((1, number), (number, K)), strict=False):
        ends = np.array([left, right])
        label = "best two lines" if left == 1 else None
        ax.plot(ends, intercept + slope * ends, color=COLOURS[1], linewidth=1.4, linestyle="--", label=label)
    ax.plot(range(1, K + 1), entropies, "o", color=COLOURS[0], markersize=6, label="entropy")
    if lines:
        ring = f"bend: {number} clusters"
        mark: dict[str, Any] = {
            "markersize": 15,
            "markerfacecolor": "none",
            "markeredgecolor": INK,
            "markeredgewidth": 1.6,
        }
        ax.plot(number, entropies[number - 1], "o", linestyle="", label=ring, **mark)
    ax.set_xticks(thinned(list(range(1, K + 1)), 20))
    ax.set_xlabel("number of clusters")
    ax.set_ylabel("entropy of the assignment (nats)")
    ax.legend(loc="upper left")
    tidy(ax)
    return ax
