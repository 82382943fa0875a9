"""Panels of a plot of pairs: their layout, legend, points, histograms, ellipses and densities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from lvm.marginals import (
    column_numbers,
    feature_names,
    is_elliptical,
    marginal_covariances,
    marginal_densities,
    separating_columns,
)
from lvm.plotting.canvas import INK, PALE, bar_style, darkened, n_bins, opacity, sized, style, swatch, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Columns = int | str | Sequence[int | str] | None

LINES: dict[int, dict[str, Any]] = {
    1: {"linewidth": 1.6, "linestyle": "-"},
    2: {"linewidth": 1.1, "linestyle": "--"},
}  # by standard deviations
MAX_LEGEND = 12


def choose_columns(estimator: Any, columns: Columns, max_columns: int) -> list[int]:
    """Return the columns asked for, else those that separate the components, else the first."""
    if columns is not None:
        return column_numbers(estimator, columns)
    if is_elliptical(estimator):
        return separating_columns(estimator, max_columns)
    return list(range(min(max_columns, estimator.n_features_in_)))


def read_cells(
    caller: str, estimator: Any, X: ArrayLike, columns: Columns, max_columns: int
) -> tuple[Array, list[int]]:
    """Return the cells (n, m) to draw, NaN where missing, and the numbers of their columns."""
    check_is_fitted(estimator)
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(f"{caller} expects a fitted mixture, got {type(estimator).__name__}.")
    shown = choose_columns(estimator, columns, max_columns)
    cells = X.iloc[:, shown] if hasattr(X, "iloc") else np.asarray(X)[:, shown]
    try:
        return np.asarray(cells, np.float64), shown
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{caller} draws columns of numbers, but one is not: {error}; name others in columns."
        ) from None


def labels_of(estimator: Any, shown: Sequence[int]) -> list[str]:
    """Return the labels of axes."""
    names = feature_names(estimator)
    return [names[column] for column in shown]


def draw_panels(
    figure: Figure | None,
    labels: list[str],
    draw_pair: Callable[[Axes, int, int], None],
    draw_one: Callable[[Axes, int], None],
    share_scale: bool = False,
) -> tuple[Figure, Axes | None]:
    """Draw one panel for a pair of columns, or a triangle of all pairs with each column alone on the diagonal.

    Parameters
    ----------
    figure : matplotlib Figure, optional
        Where to draw.
    labels : list of str
        Names of the columns, at least two.
    draw_pair : callable
        `draw_pair(ax, a, b)` draws column a across and b upwards.
    draw_one : callable
        `draw_one(ax, a)` draws a column alone; the scale upwards is its own.
    share_scale : bool
        Whether the diagonal's scale is one for all, and worth its ticks.

    Returns
    -------
    figure : matplotlib Figure
        The figure drawn in.
    ax : matplotlib Axes or None
        The only panel, None where there are more.
    """
    from matplotlib.ticker import MaxNLocator

    m = len(labels)
    single = m == 2
    figure = sized(figure, *((7.6, 5.0) if single else (2.4 * m, 2.3 * m)))
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
                draw_one(ax, i)
            else:
                draw_pair(ax, j, i)
            tidy(ax)
            if not single:
                ax.xaxis.set_major_locator(MaxNLocator(4))
                ax.yaxis.set_major_locator(MaxNLocator(4))
            if i == j and not share_scale:
                ax.set_yticks([])
                ax.spines["left"].set_visible(False)
            if i == m - 1:
                ax.set_xlabel(labels[j])
            else:
                ax.tick_params(labelbottom=False)
            if j == 0 and i > 0:
                ax.set_ylabel(labels[i])
            elif j > 0 and not (i == j and share_scale):
                ax.tick_params(labelleft=False)
    return figure, grid[0, 0] if single else None


def write_legend(figure: Figure, ax: Axes | None, handles: list[Any]) -> None:
    """Explain colours and lines: beside the only panel, or in the empty half of a triangle."""
    figure.legend(handles=handles, loc="upper right" if ax is None else "outside right upper", frameon=False)


def component_handles(shares: Array, what: str = "component") -> list[Any]:
    """Return a legend's entries for components, or clusters, with their shares (K,)."""
    handles = []
    for k, share in enumerate(shares[:MAX_LEGEND]):
        colour, marker = style(k)
        handles.append(swatch(f"{what} {k} ({share:.0%})", color=colour, marker=marker, linestyle=""))
    if len(shares) > MAX_LEGEND:
        handles.append(swatch(f"and {len(shares) - MAX_LEGEND} more", linestyle=""))
    return handles


def ellipse_handles(estimator: Any) -> list[Any]:
    """Return a legend's entries for ellipses."""
    unit = "scale" if hasattr(estimator, "scatters_") else "standard deviation"
    return [swatch(f"{n} {unit}{'s' if n > 1 else ''}", color=INK, **line) for n, line in LINES.items()]


def draw_components(ax: Axes, cells: Array, component: NDArray[np.int64], pair: tuple[int, int]) -> None:
    """Scatter two columns of cells (n, m) in the colours of the rows' components (n,)."""
    a, b = pair
    alpha = opacity(len(cells))
    for k in range(int(component.max(initial=0)) + 1):
        colour, marker = style(k)
        rows = (component == k) & ~np.isnan(cells[:, a] + cells[:, b])
        ax.scatter(
            cells[rows, a],
            cells[rows, b],
            s=14,
            marker=marker,
            color=colour,
            alpha=alpha,
            linewidths=0,
            rasterized=True,
        )


def draw_ellipses(
    ax: Axes, estimator: Any, columns: tuple[int, int], colours: NDArray[np.int64] | None = None, labelled: bool = True
) -> None:
    """Draw each component's ellipses in two columns, in the colours of the indices given."""
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.6, foreground="white")]
    covariances = marginal_covariances(estimator, columns)
    for k, mean in enumerate(estimator.means_[:, list(columns)]):
        dark = darkened(style(k if colours is None else int(colours[k]))[0])
        variances, axes = np.linalg.eigh(covariances[k])
        width, height = 2 * np.sqrt(np.maximum(variances, 0))
        angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
        for scale, line in LINES.items():
            ellipse = Ellipse((mean[0], mean[1]), scale * width, scale * height, angle=angle, fill=False, zorder=3)
            ellipse.set(edgecolor=dark, path_effects=halo, **line)
            ax.add_patch(ellipse)
        if labelled:
            box = {"boxstyle": "round,pad=0.15,rounding_size=0.6", "facecolor": "white", "edgecolor": "none"}
            centre: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small", "weight": "bold"}
            ax.text(mean[0], mean[1], str(k), color=dark, bbox={**box, "alpha": 0.85}, zorder=5, **centre)
    ax.autoscale_view()


def density_grid(estimator: Any, x: Array, column: int) -> Array:
    """Return points across the values x of a column, more of them at each component, lest a narrow one fall between."""
    margin = 0.05 * (np.ptp(x) or 1.0)
    grid = np.linspace(x.min() - margin, x.max() + margin, 400)
    means = estimator.means_[:, column]
    deviations = np.sqrt(marginal_covariances(estimator, [column])[:, 0, 0])
    near = (means[:, None] + deviations[:, None] * np.linspace(-4, 4, 81)).ravel()
    return np.unique(np.concatenate([grid, near[(near >= grid[0]) & (near <= grid[-1])]]))


def draw_histogram(ax: Axes, x: Array, label: str | None = None) -> None:
    """Draw the values x as a histogram of area 1."""
    bins = n_bins(x)
    ax.hist(x, bins=bins, density=True, color=PALE, label=label, **bar_style(bins))


def draw_densities(ax: Axes, estimator: Any, x: Array, column: int, legend: bool = False) -> None:
    """Draw a histogram of x, the weighted density of each component, and their sum."""
    x = x[~np.isnan(x)]
    if len(x) == 0:
        return
    draw_histogram(ax, x, "data" if legend else None)
    grid = density_grid(estimator, x, column)
    densities = estimator.weights_[:, None] * marginal_densities(estimator, column, grid)
    mixture = "mixture" if legend else None
    ax.plot(grid, densities.sum(axis=0), color=INK, linewidth=1.2, linestyle=":", label=mixture)
    for k, density in enumerate(densities):
        label = f"component {k} ({estimator.weights_[k]:.0%})" if legend else None
        ax.plot(grid, density, color=style(k)[0], linewidth=1.8, label=label)
