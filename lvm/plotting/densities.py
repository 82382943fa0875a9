"""The density of a mixture: a curve for one column, contours for each pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvm.marginals import is_elliptical, joint_densities, marginal_covariances, marginal_densities
from lvm.plotting.canvas import COLOURS, INK, sized, some_rows, swatch, tidy, write_note
from lvm.plotting.panels import (
    Columns,
    density_grid,
    draw_histogram,
    draw_panels,
    labels_of,
    read_cells,
    write_legend,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

MASSES = (0.99, 0.95, 0.75, 0.5, 0.25)
SHADES = ("#E3EDF6", "#BFD7EA", "#8DB9DA", "#5592C3", "#2A6CA8")
DRAWS = 20_000  # from the mixture: shares of them within a region are right to half a percent
GRID_POINTS = 160  # per axis, besides those at the components
MAX_GRID = 400


def plot_density(
    estimator: Any,
    X: ArrayLike,
    *,
    columns: Columns = None,
    max_columns: int = 4,
    figure: Figure | None = None,
) -> Figure:
    """Draw the density of a Gaussian or Student t mixture over its data.

    One column is drawn as a curve over a histogram and a rug; two as regions of highest density, the smallest ones
    that hold 25%, 50%, 75%, 95% and 99% of the mass; more as all pairs, each by its marginal density.

    Parameters
    ----------
    estimator : estimator
        A fitted `GaussianMixture` or `StudentTMixture`.
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
        If the estimator is no Gaussian or Student t mixture.
    ValueError
        If a column is unknown.

    References
    ----------
    Hyndman (1996), "Computing and graphing highest density regions", The American Statistician 50.
    """
    cells, shown = read_cells("plot_density", estimator, X, columns, max_columns)
    if not is_elliptical(estimator):
        raise TypeError(f"plot_density expects a Gaussian or Student t mixture, got {type(estimator).__name__}.")
    labels = labels_of(estimator, shown)
    if len(shown) == 1:
        return _curve(estimator, cells[:, 0], shown[0], labels[0], figure)
    drawn = cells[some_rows(len(cells))]
    draws, _ = estimator._model().sample(estimator._get_params(), DRAWS, np.random.RandomState(0))

    def draw_pair(ax: Axes, a: int, b: int) -> None:
        present = cells[~np.isnan(cells[:, a] + cells[:, b])]
        if len(present) == 0:
            return
        _draw_regions(ax, estimator, present[:, [a, b]], [shown[a], shown[b]], draws)
        alpha = max(0.08, min(0.5, 200 / len(drawn)))
        ax.scatter(drawn[:, a], drawn[:, b], s=4, color=INK, alpha=alpha, linewidths=0, rasterized=True, zorder=3)

    def draw_one(ax: Axes, a: int) -> None:
        _draw_curve(ax, estimator, cells[:, a], shown[a])

    figure, only = draw_panels(figure, labels, draw_pair, draw_one)
    handles = [
        swatch(f"{mass:.0%} of the mass", color=shade, marker="s", markersize=11, linestyle="")
        for mass, shade in zip(MASSES[::-1], SHADES[::-1], strict=True)
    ]
    write_legend(figure, only, [*handles, swatch("row", color=INK, marker="o", markersize=3, linestyle="")])
    write_note(figure, cells, estimator.n_features_in_)
    return figure


def _curve(estimator: Any, x: Array, column: int, label: str, figure: Figure | None) -> Figure:
    figure = sized(figure, 6.4, 4.2)
    ax = figure.subplots()
    _draw_curve(ax, estimator, x, column, legend=True)
    ticks = x[some_rows(len(x))]
    alpha = 0.5 if len(ticks) <= 500 else 0.1
    ax.scatter(
        ticks, np.full(len(ticks), -0.03), s=30, marker="|", color=INK, alpha=alpha, linewidths=0.8, rasterized=True,
        transform=ax.get_xaxis_transform(), clip_on=False,
    )  # fmt: skip
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="x", length=0, pad=12)
    ax.set_xlabel(label)
    ax.set_ylabel("density")
    ax.legend()
    tidy(ax)
    write_note(figure, x[:, None], 1)
    return figure


def _draw_curve(ax: Axes, estimator: Any, x: Array, column: int, legend: bool = False) -> None:
    x = x[~np.isnan(x)]
    if len(x) == 0:
        return
    draw_histogram(ax, x, "data" if legend else None)
    grid = density_grid(estimator, x, column)
    density = estimator.weights_ @ marginal_densities(estimator, column, grid)
    ax.plot(grid, density, color=COLOURS[0], linewidth=1.8, label="mixture" if legend else None)


def _draw_regions(ax: Axes, estimator: Any, cells: Array, pair: list[int], draws: Array) -> None:
    """Fill the regions of highest density in two columns, as far as they or the cells (n, 2) reach."""
    at_draws = estimator.weights_ @ joint_densities(estimator, pair, draws[:, pair])
    levels = np.unique(np.quantile(at_draws, [1 - mass for mass in MASSES]))
    reach = np.concatenate([cells, np.quantile(draws[:, pair], [0.002, 0.998], axis=0)])
    x, y = (_axis(estimator, reach[:, place], column) for place, column in enumerate(pair))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    density = (estimator.weights_ @ joint_densities(estimator, pair, points)).reshape(len(y), len(x))
    top = max(float(density.max()), float(at_draws.max())) * (1 + 1e-9)
    levels = levels[levels < top]
    ax.contourf(x, y, density, levels=[*levels, top], colors=SHADES[-len(levels) :], zorder=1)
    ax.contour(x, y, density, levels=levels, colors="white", linewidths=0.6, zorder=2)


def _axis(estimator: Any, x: Array, column: int) -> Array:
    """Return the grid of an axis: evenly over the values x and a margin, and closer at narrow components."""
    margin = 0.06 * (np.ptp(x) or 1.0)
    even = np.linspace(x.min() - margin, x.max() + margin, GRID_POINTS)
    deviations = np.sqrt(marginal_covariances(estimator, [column])[:, 0, 0])
    narrow = np.flatnonzero(deviations < 4 * (even[1] - even[0]))
    each = np.linspace(-3, 3, max(3, min(31, (MAX_GRID - GRID_POINTS) // max(1, len(narrow)))))
    near = (estimator.means_[narrow, column, None] + deviations[narrow, None] * each).ravel()
    near = near[(near >= even[0]) & (near <= even[-1])]
    return np.unique(np.concatenate([even, near[: MAX_GRID - GRID_POINTS]]))
