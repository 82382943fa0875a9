"""Pictures of fits, by matplotlib: the criterion of a selection, and a mixture over its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from lvm.marginals import feature_names, marginal_covariances, separating_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lvm.selection import Selection

Array = NDArray[np.float64]

# Okabe & Ito (2008), "Color universal design", with grey for the yellow and black, hard to see or to tell from axes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
INK = "#333333"
LINES: dict[int, dict[str, Any]] = {
    1: {"linewidth": 1.6, "linestyle": "-"},
    2: {"linewidth": 1.1, "linestyle": "--"},
}  # by standard deviations

MAX_POINTS = 5000
MAX_NAMED_TICKS = 40
MAX_WRITTEN_CELLS = 150
MAX_LEGEND = 12
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
        ax = _sized(None, 6.4, 4.2).subplots()
    lines: dict[str, list[tuple[int, float]]] = {}
    best: tuple[int, float] | None = None
    for candidate in selection.table:
        others = {name: value for name, value in candidate.arguments.items() if name != "n_components"}
        point = (int(candidate.arguments["n_components"]), float(getattr(candidate, selection.criterion)))
        lines.setdefault(", ".join(str(value) for value in others.values()), []).append(point)
        if candidate.estimator is selection.best:
            best = point
    for index, (label, points) in enumerate(lines.items()):
        x, y = zip(*sorted(points), strict=True)
        colour, marker = _style(index)
        ax.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.6, label=label or None)
    if best is not None:
        ring = f"best: K = {best[0]} ({best[1]:.6g})"
        ax.plot(*best, "o", markersize=15, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.6, label=ring)
    ax.set_xticks(_thinned(sorted({x for points in lines.values() for x, _ in points}), 20))
    ax.set_xlabel("number of components K")
    ax.set_ylabel(CRITERION_LABELS[selection.criterion])
    ax.legend(title=", ".join(name for name in selection.table[0].arguments if name != "n_components") or None)
    _tidy(ax)
    return ax


def plot_mixture(
    estimator: Any,
    X: ArrayLike,
    *,
    columns: Sequence[int | str] | None = None,
    max_columns: int = 4,
    figure: Figure | None = None,
) -> Figure:
    """Draw a fitted mixture over its data.

    A Gaussian mixture is drawn as a histogram with the component densities (one column), a scatter plot with
    ellipses at one and two standard deviations (two), or all pairs of columns (more). A Bernoulli or multinomial
    mixture is drawn as a heat map of its probabilities.

    Parameters
    ----------
    estimator : estimator
        A fitted mixture.
    X : array-like of shape (n, d)
        Data; of more than 5,000 rows a random 5,000 are drawn as points. Heat maps do not show them.
    columns : sequence of int or str, optional
        Columns to draw, by number or name; by default those that separate the components most, or all for a
        heat map.
    max_columns : int
        Most columns in a plot of pairs, unless `columns` says which.
    figure : matplotlib Figure, optional
        An empty figure to draw in, whose size is set to suit; a new one by default.

    Returns
    -------
    matplotlib Figure
        The figure drawn in.

    Raises
    ------
    TypeError
        If the estimator is no mixture that this function knows.
    ValueError
        If a column is unknown, or X does not have the columns that the estimator was fitted on.
    """
    check_is_fitted(estimator)
    names = feature_names(estimator)
    if hasattr(estimator, "probabilities_"):
        shown = list(range(len(names))) if columns is None else _column_numbers(columns, names)
        return _heat_map(estimator, shown, names, figure)
    if not hasattr(estimator, "means_"):
        raise TypeError(f"plot_mixture expects a fitted mixture, got {type(estimator).__name__}.")
    shown = separating_columns(estimator, max_columns) if columns is None else _column_numbers(columns, names)
    component = estimator.predict(X)
    data = np.asarray(X, np.float64)[:, shown]
    labels = [names[column] for column in shown]
    if len(shown) == 1:
        return _histogram(estimator, data[:, 0], shown[0], labels[0], figure)
    return _pairs(estimator, data, component, shown, labels, figure)


# ----- the kinds of picture ---------------------------------------------------------------------------------------


def _histogram(estimator: Any, x: Array, column: int, label: str, figure: Figure | None) -> Figure:
    figure = _sized(figure, 6.4, 4.2)
    ax = figure.subplots()
    _draw_densities(ax, estimator, x, column, legend=True)
    ax.set_xlabel(label)
    ax.set_ylabel("density")
    ax.legend()
    _tidy(ax)
    return figure


def _pairs(
    estimator: Any,
    data: Array,
    component: NDArray[np.int64],
    shown: list[int],
    labels: list[str],
    figure: Figure | None,
) -> Figure:
    """Scatter one pair of columns, or a triangle of all pairs with the densities of each on the diagonal."""
    m, d = len(shown), int(estimator.n_features_in_)
    single = m == 2
    figure = _sized(figure, *((7.6, 5.0) if single else (2.4 * m, 2.3 * m)))
    rng = np.random.RandomState(0)
    n = len(data)
    drawn = np.arange(n) if n <= MAX_POINTS else rng.choice(n, MAX_POINTS, replace=False)
    covariances = marginal_covariances(estimator, shown)
    grid = figure.subplots(1 if single else m, 1 if single else m, squeeze=False, sharex=False if single else "col")
    for i in range(m):
        for j in range(m):
            if single and (i, j) != (1, 0):
                continue
            ax = grid[0, 0] if single else grid[i, j]
            if j > i:
                ax.set_visible(False)
                continue
            if i == j:
                _draw_densities(ax, estimator, data[:, i], shown[i])
                ax.set_yticks([])
                ax.spines["left"].set_visible(False)
            else:
                _draw_scatter(ax, estimator, data[drawn], component[drawn], shown, covariances, (j, i))
            _tidy(ax)
            if i == m - 1:
                ax.set_xlabel(labels[j])
            else:
                ax.tick_params(labelbottom=False)
            if j == 0 and i > 0:
                ax.set_ylabel(labels[i])
            elif j > 0:
                ax.tick_params(labelleft=False)
    _legend(figure, grid[0, 0] if single else None, estimator)
    notes = []
    if m < d:
        notes.append(f"{m} of {d} columns")
    if len(drawn) < n:
        notes.append(f"{len(drawn):,} of {n:,} rows")
    if notes:
        figure.supxlabel("shown: " + ", ".join(notes), fontsize="small", color=INK)
    return figure


def _draw_scatter(
    ax: Axes,
    estimator: Any,
    data: Array,
    component: NDArray[np.int64],
    shown: list[int],
    covariances: Array,
    pair: tuple[int, int],
) -> None:
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import withStroke

    a, b = pair
    alpha = 0.7 if len(data) <= 500 else 0.4 if len(data) <= 2000 else 0.2
    halo = [withStroke(linewidth=2.6, foreground="white")]
    for k in range(len(estimator.weights_)):
        colour, marker = _style(k)
        rows = component == k
        ax.scatter(
            data[rows, a], data[rows, b], s=14, marker=marker, color=colour, alpha=alpha, linewidths=0, rasterized=True
        )
    for k, mean in enumerate(estimator.means_[:, shown]):
        dark = _darkened(_style(k)[0])
        variances, axes = np.linalg.eigh(covariances[k][np.ix_(pair, pair)])
        width, height = 2 * np.sqrt(np.maximum(variances, 0))
        angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
        for scale, line in LINES.items():
            ellipse = Ellipse((mean[a], mean[b]), scale * width, scale * height, angle=angle, fill=False, zorder=3)
            ellipse.set(edgecolor=dark, path_effects=halo, **line)
            ax.add_patch(ellipse)
        box = {"boxstyle": "round,pad=0.15,rounding_size=0.6", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        centre: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small", "weight": "bold"}
        ax.text(mean[a], mean[b], str(k), color=dark, bbox=box, zorder=5, **centre)
    ax.autoscale_view()


def _draw_densities(ax: Axes, estimator: Any, x: Array, column: int, legend: bool = False) -> None:
    """Draw a histogram of x, the weighted density of each component, and their sum."""
    names = ("data", "mixture") if legend else (None, None)
    ax.hist(x, bins=_bins(x), density=True, color="#D9D9D9", edgecolor="white", linewidth=0.5, label=names[0])
    means = estimator.means_[:, column]
    deviations = np.sqrt(marginal_covariances(estimator, [column])[:, 0, 0])
    margin = 0.05 * (np.ptp(x) or 1.0)
    grid = np.linspace(x.min() - margin, x.max() + margin, 400)
    # Each component gets points of its own, lest a narrow one fall between those of the grid.
    near = (means[:, None] + deviations[:, None] * np.linspace(-4, 4, 81)).ravel()
    grid = np.unique(np.concatenate([grid, near[(near >= grid[0]) & (near <= grid[-1])]]))
    z = (grid - means[:, None]) / deviations[:, None]
    densities = estimator.weights_[:, None] * np.exp(-0.5 * z**2) / (deviations[:, None] * np.sqrt(2 * np.pi))
    ax.plot(grid, densities.sum(axis=0), color=INK, linewidth=1.2, linestyle=":", label=names[1])
    for k, density in enumerate(densities):
        label = f"component {k} ({estimator.weights_[k]:.0%})" if legend else None
        ax.plot(grid, density, color=_style(k)[0], linewidth=1.8, label=label)


def _heat_map(estimator: Any, shown: list[int], names: list[str], figure: Figure | None) -> Figure:
    probabilities = estimator.probabilities_[:, shown]
    K, m = probabilities.shape
    # An entry of a multinomial row is small where there are many: the scale ends at the largest.
    top = 1.0 if type(estimator).__name__ == "BernoulliMixture" else float(probabilities.max())
    written = K * m <= MAX_WRITTEN_CELLS and m <= 20
    width = min(14.0, max(5.0, 2.2 + m * (0.62 if written else 0.22)))
    figure = _sized(figure, width, min(9.0, 1.9 + 0.45 * K))
    ax = figure.subplots()
    image = ax.imshow(probabilities, aspect="auto", cmap="cividis", vmin=0.0, vmax=top, interpolation="nearest")
    if written:
        for k in range(K):
            for j in range(m):
                colour = "white" if probabilities[k, j] < 0.55 * top else "black"
                ax.text(j, k, f"{probabilities[k, j]:.2f}", ha="center", va="center", color=colour, fontsize="small")
    ax.set_yticks(range(K), [f"{k} ({estimator.weights_[k]:.0%})" for k in range(K)])
    ax.set_ylabel("component (weight)")
    ticks = _thinned(list(range(m)), MAX_NAMED_TICKS)
    labels = [names[shown[j]] for j in ticks]
    upright = max(map(len, labels)) * len(labels) > 12 * width
    ax.set_xticks(ticks, labels, rotation=90 if upright else 0, fontsize="small")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="probability", pad=0.02)
    return figure


# ----- what they share --------------------------------------------------------------------------------------------


def _sized(figure: Figure | None, width: float, height: float) -> Figure:
    """Return a new figure, or the one given, of a size in inches."""
    if figure is None:
        try:
            from matplotlib import pyplot
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("plots need matplotlib: pip install 'lvm[plot]'", name=error.name) from error
        return pyplot.figure(figsize=(width, height), layout="constrained")
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained")
    return figure


def _style(index: int) -> tuple[str, str]:
    """Return the colour and marker of component `index`; markers tell apart those that share a colour."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _darkened(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(0.7 * part for part in to_rgb(colour))


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize="small")


def _legend(figure: Figure, ax: Axes | None, estimator: Any) -> None:
    """Explain colours and ellipses: beside the only axes, or in the empty half of a triangle."""
    from matplotlib.lines import Line2D

    handles = []
    for k, weight in enumerate(estimator.weights_[:MAX_LEGEND]):
        colour, marker = _style(k)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", label=f"component {k} ({weight:.0%})"))
    if len(estimator.weights_) > MAX_LEGEND:
        more = len(estimator.weights_) - MAX_LEGEND
        handles.append(Line2D([], [], linestyle="", label=f"and {more} more"))
    for scale, line in LINES.items():
        label = f"{scale} standard deviation{'s' if scale > 1 else ''}"
        handles.append(Line2D([], [], color=INK, label=label, **line))
    if ax is None:
        figure.legend(handles=handles, loc="upper right", frameon=False)
    else:
        figure.legend(handles=handles, loc="outside right upper", frameon=False)


def _bins(x: Array) -> int:
    """Return a number of bins by Freedman & Diaconis (1981), within 10 to 60."""
    spread = np.subtract(*np.percentile(x, [75, 25]))
    if spread <= 0:
        return 10
    return int(np.clip(np.ceil(np.ptp(x) * len(x) ** (1 / 3) / (2 * spread)), 10, 60))


def _thinned(ticks: list[int], most: int) -> list[int]:
    return ticks[:: -(-len(ticks) // most)]


def _column_numbers(columns: Sequence[int | str], names: list[str]) -> list[int]:
    numbers = []
    for column in columns:
        if isinstance(column, str):
            if column not in names:
                raise ValueError(f"there is no column {column!r}; the estimator was fitted on {', '.join(names)}.")
            column = names.index(column)
        if not 0 <= column < len(names):
            raise ValueError(f"there is no column {column}; the estimator was fitted on {len(names)} columns.")
        numbers.append(int(column))
    if not numbers:
        raise ValueError("columns is empty; name at least one column.")
    return numbers
