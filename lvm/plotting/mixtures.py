"""A mixture over its data: ellipses and densities of its components, or a heat map of its probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from lvm.marginals import column_numbers, feature_names, is_elliptical
from lvm.plotting.canvas import sized, some_rows, thinned, tidy, write_note
from lvm.plotting.panels import (
    Columns,
    component_handles,
    draw_components,
    draw_densities,
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

MAX_NAMED_TICKS = 40
MAX_WRITTEN_CELLS = 150


def plot_mixture(
    estimator: Any,
    X: ArrayLike,
    *,
    columns: Columns = None,
    max_columns: int = 4,
    figure: Figure | None = None,
) -> Figure:
    """Draw a fitted mixture over its data.

    A Gaussian mixture is drawn as a histogram with the component densities (one column), a scatter plot with
    ellipses at one and two standard deviations (two), or all pairs of columns (more). A Bernoulli,
    categorical or multinomial mixture is drawn as a heat map of its probabilities.

    Parameters
    ----------
    estimator : estimator
        A fitted mixture.
    X : array-like of shape (n, d)
        Data; of more than 5,000 rows a random 5,000 are drawn as points. Heat maps do not show them. A row with a
        missing cell has no place in the panels of that column.
    columns : int, str or sequence of those, optional
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
    if hasattr(estimator, "probabilities_"):
        shown = list(range(estimator.n_features_in_)) if columns is None else column_numbers(estimator, columns)
        return _heat_map(estimator, shown, feature_names(estimator), figure)
    if not is_elliptical(estimator):
        raise TypeError(f"plot_mixture expects a fitted mixture, got {type(estimator).__name__}.")
    component = estimator.predict(X)
    cells, shown = read_cells("plot_mixture", estimator, X, columns, max_columns)
    labels = labels_of(estimator, shown)
    if len(shown) == 1:
        return _histogram(estimator, cells[:, 0], shown[0], labels[0], figure)
    drawn = some_rows(len(cells))
    points = cells[drawn], component[drawn]

    def draw_pair(ax: Axes, a: int, b: int) -> None:
        draw_components(ax, *points, (a, b))
        draw_ellipses(ax, estimator, (shown[a], shown[b]))

    def draw_one(ax: Axes, a: int) -> None:
        draw_densities(ax, estimator, cells[:, a], shown[a])

    figure, only = draw_panels(figure, labels, draw_pair, draw_one)
    write_legend(figure, only, component_handles(estimator.weights_) + ellipse_handles(estimator))
    write_note(figure, cells, estimator.n_features_in_)
    return figure


def _histogram(estimator: Any, x: Array, column: int, label: str, figure: Figure | None) -> Figure:
    figure = sized(figure, 6.4, 4.2)
    ax = figure.subplots()
    draw_densities(ax, estimator, x, column, legend=True)
    ax.set_xlabel(label)
    ax.set_ylabel("density")
    ax.legend()
    tidy(ax)
    return figure


def _heat_map(estimator: Any, shown: list[int], names: list[str], figure: Figure | None) -> Figure:
    if isinstance(estimator.probabilities_, list):
        probabilities = np.concatenate([estimator.probabilities_[j] for j in shown], axis=1)
        names = [f"{names[j]} = {category}" for j in shown for category in estimator.categories_[j].tolist()]
        shown = list(range(len(names)))
    else:
        probabilities = estimator.probabilities_[:, shown]
    K, m = probabilities.shape
    # An entry of a multinomial row is small where there are many: the scale ends at the largest.
    top = float(probabilities.max()) if type(estimator).__name__ == "MultinomialMixture" else 1.0
    written = K * m <= MAX_WRITTEN_CELLS and m <= 20
    width = min(14.0, max(5.0, 2.2 + m * (0.62 if written else 0.22)))
    figure = sized(figure, width, min(9.0, 1.9 + 0.45 * K))
    ax = figure.subplots()
    image = ax.imshow(probabilities, aspect="auto", cmap="cividis", vmin=0.0, vmax=top, interpolation="nearest")
    if written:
        for k in range(K):
            for j in range(m):
                colour = "white" if probabilities[k, j] < 0.55 * top else "black"
                ax.text(j, k, f"{probabilities[k, j]:.2f}", ha="center", va="center", color=colour, fontsize="small")
    ax.set_yticks(range(K), [f"{k} ({estimator.weights_[k]:.0%})" for k in range(K)])
    ax.set_ylabel("component (weight)")
    ticks = thinned(list(range(m)), MAX_NAMED_TICKS)
    labels = [names[shown[j]] for j in ticks]
    upright = max(map(len, labels)) * len(labels) > 12 * width
    ax.set_xticks(ticks, labels, rotation=90 if upright else 0, fontsize="small")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, label="probability", pad=0.02)
    return figure
