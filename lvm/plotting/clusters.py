"""The rows by the component that each most probably belongs to, and how uncertain that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvm.combining import merged
from lvm.marginals import is_elliptical
from lvm.plotting.canvas import (
    INK,
    bar_style,
    darkened,
    n_bins,
    opacity,
    sized,
    some_rows,
    style,
    swatch,
    tidy,
    write_note,
)
from lvm.plotting.panels import (
    Columns,
    component_handles,
    draw_components,
    draw_ellipses,
    draw_panels,
    ellipse_handles,
    labels_of,
    read_cells,
    write_legend,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

QUANTILES = (0.75, 0.95)  # of the uncertainties, where points become larger and darker, as in mclust
SIZES = (9.0, 26.0, 60.0)


def plot_classification(
    estimator: Any,
    X: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    columns: Columns = None,
    max_columns: int = 4,
    figure: Figure | None = None,
) -> Figure:
    """Draw the rows in the colour of the component that each most probably belongs to.

    One column is drawn as a histogram over a strip of ticks for each component, two as a scatter plot, more as all
    pairs, with histograms on the diagonal. Gaussian and Student t components have ellipses at one and two standard
    deviations, or scales.

    Parameters
    ----------
    estimator : estimator
        A fitted mixture.
    X : array-like of shape (n, d)
        Data; of more than 5,000 rows a random 5,000 are drawn as points. A row with a missing cell has no place in the
        panels of that column.
    clusters : array-like of shape (K,), optional
        A cluster of each component, from 0, to colour by instead, such as `lvm.combine(estimator, X).clusters()`.
    columns : int, str or sequence of those, optional
        Columns to draw, by number or name; by default those that separate the components most.
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
        If the estimator is no mixture, or a column does not hold numbers.
    ValueError
        If a column is unknown, clusters are not one for each component, or X does not have the columns that the
        estimator was fitted on.
    """
    cells, shown = read_cells("plot_classification", estimator, X, columns, max_columns)
    proba, of_component = np.asarray(estimator.predict_proba(X)), None
    what = "component"
    if clusters is not None:
        of_component = _checked_clusters(clusters, proba.shape[1])
        proba, what = merged(proba, of_component), "cluster"
    group, labels = proba.argmax(axis=1), labels_of(estimator, shown)
    shares = np.bincount(group, minlength=proba.shape[1]) / len(group)
    handles = component_handles(shares, what)
    if len(shown) == 1:
        return _strips(cells[:, 0], group, labels[0], handles, figure)
    drawn = some_rows(len(cells))
    points = cells[drawn], group[drawn]

    def draw_pair(ax: Axes, a: int, b: int) -> None:
        draw_components(ax, *points, (a, b))
        if is_elliptical(estimator):
            draw_ellipses(ax, estimator, (shown[a], shown[b]), of_component, labelled=False)

    def draw_one(ax: Axes, a: int) -> None:
        _stacked(ax, cells[:, a], group)

    figure, only = draw_panels(figure, labels, draw_pair, draw_one)
    write_legend(figure, only, handles + (ellipse_handles(estimator) if is_elliptical(estimator) else []))
    write_note(figure, cells, estimator.n_features_in_)
    return figure


def plot_uncertainty(
    estimator: Any,
    X: ArrayLike,
    *,
    columns: Columns = None,
    max_columns: int = 4,
    figure: Figure | None = None,
) -> Figure:
    """Draw the rows larger and darker the less certain their component is.

    The uncertainty of a row is the probability that it belongs to another component than the most probable one, see
    the mixture's `uncertainty`. Points change at its 75% and 95% quantiles. One column is drawn against the
    uncertainty itself, as are the columns on the diagonal of a plot of pairs.

    Parameters
    ----------
    estimator : estimator
        A fitted mixture.
    X : array-like of shape (n, d)
        Data; of more than 5,000 rows a random 5,000 are drawn. A row with a missing cell has no place in the panels of
        that column.
    columns : int, str or sequence of those, optional
        Columns to draw, by number or name; by default those that separate the components most.
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
        If the estimator is no mixture, or a column does not hold numbers.
    ValueError
        If a column is unknown, or X does not have the columns that the estimator was fitted on.

    References
    ----------
    Fraley & Raftery (2002), "Model-based clustering, discriminant analysis, and density estimation", JASA 97.
    """
    cells, shown = read_cells("plot_uncertainty", estimator, X, columns, max_columns)
    proba, labels = np.asarray(estimator.predict_proba(X)), labels_of(estimator, shown)
    uncertainty = 1 - proba.max(axis=1)
    limits = np.quantile(uncertainty, QUANTILES)
    drawn = some_rows(len(cells))
    level = np.searchsorted(limits, uncertainty[drawn], side="left")
    component, y = proba.argmax(axis=1)[drawn], uncertainty[drawn]
    scale = 1.0 if len(shown) <= 2 else 0.6  # panels of pairs are small
    most = float(max(uncertainty.max(), 0.02))

    def draw_pair(ax: Axes, a: int, b: int) -> None:
        _draw_levels(ax, cells[drawn, a], cells[drawn, b], component, level, scale)

    def draw_one(ax: Axes, a: int) -> None:
        _draw_levels(ax, cells[drawn, a], y, component, level, scale)
        ax.set_ylim(-0.04 * most, 1.06 * most)

    handles = component_handles(estimator.weights_) + _level_handles(limits, float(uncertainty.max()))
    if len(shown) == 1:
        figure, only = sized(figure, 7.6, 4.2), None
        only = figure.subplots()
        draw_one(only, 0)
        only.set_xlabel(labels[0])
        only.set_ylabel("uncertainty")
        tidy(only)
    else:
        figure, only = draw_panels(figure, labels, draw_pair, draw_one, share_scale=True)
        if only is None:
            figure.axes[0].set_ylabel("uncertainty")
    write_legend(figure, only, handles)
    write_note(figure, cells, estimator.n_features_in_)
    return figure


def _checked_clusters(clusters: ArrayLike, n_components: int) -> NDArray[np.int64]:
    array = np.asarray(clusters)
    if array.shape != (n_components,) or array.dtype.kind not in "iu" or array.min() < 0:
        raise ValueError(f"clusters must be {n_components} integers >= 0, one for each component, got {clusters!r}.")
    return array.astype(np.int64)


def _stacked(ax: Axes, x: Array, group: NDArray[np.int64]) -> None:
    """Draw the values x (n,) as a histogram whose bars are divided among the groups."""
    present = ~np.isnan(x)
    if not present.any():
        return
    groups = range(int(group.max()) + 1)
    parts, colours = [x[present & (group == k)] for k in groups], [style(k)[0] for k in groups]
    bins = n_bins(x[present])
    ax.hist(parts, bins=bins, stacked=True, color=colours, **bar_style(bins))


def _strips(x: Array, group: NDArray[np.int64], label: str, handles: list[Any], figure: Figure | None) -> Figure:
    """Draw a histogram over a strip of ticks for each group."""
    n_groups = int(group.max()) + 1
    height = min(4.0, 0.22 * n_groups + 0.3)
    figure = sized(figure, 7.6, 3.4 + height)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, height])
    _stacked(top, x, group)
    drawn = some_rows(len(x))
    shown, alpha = x[drawn], max(0.1, opacity(len(drawn)))
    for k in range(n_groups):
        ticks = shown[group[drawn] == k]
        bottom.scatter(ticks, np.full(len(ticks), k), s=50, marker="|", color=style(k)[0], alpha=alpha, rasterized=True)
    bottom.set_ylim(n_groups - 0.4, -0.6)
    bottom.set_yticks([])
    bottom.set_xlabel(label)
    top.set_ylabel("rows")
    for ax in (top, bottom):
        tidy(ax)
    bottom.spines["left"].set_visible(False)
    write_legend(figure, top, handles)
    write_note(figure, x[:, None], 1)
    return figure


def _draw_levels(
    ax: Axes, x: Array, y: Array, component: NDArray[np.int64], level: NDArray[np.intp], scale: float
) -> None:
    """Scatter y against x, the certain rows pale and small below the uncertain ones."""
    present = ~np.isnan(x + y)
    opacities = (0.5 * opacity(len(x)), opacity(len(x)), 0.85 if len(x) <= 2000 else 0.6)
    for step, size in enumerate(SIZES):
        size *= scale * min(1.0, max(0.25, np.sqrt(400 / max(1, len(x)))))
        for k in range(int(component.max(initial=0)) + 1):
            rows = present & (component == k) & (level == step)
            colour, marker = style(k)
            edge: Any = darkened(colour) if step == 2 else "none"
            face = {"facecolors": colour, "edgecolors": edge, "linewidths": 0.05 * size**0.5 if step == 2 else 0}
            ax.scatter(
                x[rows], y[rows], s=size, marker=marker, alpha=opacities[step], zorder=2 + step, rasterized=True, **face
            )


def _level_handles(limits: Array, most: float) -> list[Any]:
    """Return a legend's entries for the three sizes of points."""
    texts = (
        f"up to {limits[0]:.2g} ({QUANTILES[0]:.0%})",
        f"up to {limits[1]:.2g} ({QUANTILES[1] - QUANTILES[0]:.0%})",
        f"up to {most:.2g} ({1 - QUANTILES[1]:.0%})",
    )
    shades = (0.35, 0.6, 0.9)
    return [swatch("uncertainty (share of rows)", linestyle="")] + [
        swatch(text, color=INK, marker="o", linestyle="", markersize=np.sqrt(size), alpha=shade, markeredgewidth=0)
        for text, size, shade in zip(texts, SIZES, shades, strict=True)
    ]
