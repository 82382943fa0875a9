"""What the pictures of clusters, uncertainty, density and entropy show: points, sizes, regions, by count and place."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.collections import PathCollection
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy.stats import multivariate_normal
from sklearn.linear_model import LinearRegression

import lvm
from lvm.plotting import COLOURS, MAX_POINTS, plot_classification, plot_density, plot_entropy, plot_uncertainty
from lvm.plotting.densities import MASSES

NAMES = ["length", "width", "depth", "age", "noise", "more"]
ALL = [plot_classification, plot_uncertainty, plot_density]


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    with mpl.rc_context({"figure.max_open_warning": 0}):
        pyplot.switch_backend("agg")
        yield
        pyplot.close("all")


def frame(d: int, n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(d)
    shift = np.where(np.arange(n) < n // 2, 0.0, 2.5)[:, None] * (np.arange(d) < 4)
    return pd.DataFrame(rng.normal(size=(n, d)) + shift, columns=NAMES[:d])


def fitted(d: int, n: int = 120, **arguments: Any) -> tuple[Any, pd.DataFrame]:
    X = frame(d, n)
    return lvm.GaussianMixture(2, random_state=0, tol=1e-3, **arguments).fit(X), X


def visible(figure: Figure) -> list[Any]:
    return [ax for ax in figure.axes if ax.get_visible()]


def clouds(ax: Any) -> list[PathCollection]:
    return [c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets())]


def legend_of(owner: Any) -> list[str]:
    return [text.get_text() for text in owner.get_texts()]


def colour_of(cloud: PathCollection) -> str:
    return mpl.colors.to_hex(cloud.get_facecolor()[0]).upper()


def drawn(figure: Figure) -> None:
    """Lay the figure out and draw it: what fails there fails here."""
    figure.savefig(io.BytesIO(), format="png", dpi=30)


# ----- layouts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", ALL)
@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_layouts(plot: Any, d: int) -> None:
    estimator, X = fitted(d)
    figure = plot(estimator, X)
    axes = visible(figure)
    if d == 1:
        assert axes[-1].get_xlabel() == "length"
    elif d == 2:
        (ax,) = axes
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("length", "width")
    else:
        m = min(d, 4)
        assert len(axes) == m * (m + 1) // 2
        assert [ax.get_xlabel() for ax in axes[-m:]] == NAMES[:m]
        assert figure.get_supxlabel() == ("shown: 4 of 6 columns" if d == 6 else "")
    drawn(figure)


@pytest.mark.parametrize("plot", ALL)
def test_columns_and_given_figures(plot: Any) -> None:
    estimator, X = fitted(5)
    figure = Figure()
    assert plot(estimator, X, columns=["noise", 1], figure=figure) is figure
    (ax,) = visible(figure)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("noise", "width")
    assert pyplot.get_fignums() == []
    with pytest.raises(ValueError, match="no column 'height'"):
        plot(estimator, X, columns=["height"])
    with pytest.raises(TypeError, match=f"{plot.__name__} expects a fitted mixture, got LinearRegression"):
        plot(LinearRegression().fit(X, X.iloc[:, 0]), X)


@pytest.mark.parametrize("plot", [*ALL, lvm.plotting.plot_mixture])
def test_rows_with_holes_are_left_out_of_their_panels_only(plot: Any) -> None:
    estimator, X = fitted(3, covariance_type="diag")
    X.iloc[[3, 7, 11], 1] = np.nan
    X.iloc[20, 2] = np.nan
    figure = plot(estimator, X)
    axes = visible(figure)
    counts = [
        sum(np.isfinite(cloud.get_offsets().filled(np.nan)).all(axis=1).sum() for cloud in clouds(ax)) for ax in axes
    ]
    assert [counts[place] for place in (1, 3, 4)] == [117, 119, 116]
    assert figure.get_supxlabel() == "4 rows with missing cells left out of the panels of those"
    drawn(figure)
    everything = X.copy()
    everything["width"] = np.nan
    drawn(plot(estimator, everything))


@pytest.mark.parametrize("plot", ALL)
def test_many_rows_are_thinned(plot: Any) -> None:
    X = np.random.default_rng(0).normal(size=(MAX_POINTS + 1, 2))
    figure = plot(lvm.GaussianMixture(1).fit(X), X)
    (ax,) = visible(figure)
    assert sum(len(cloud.get_offsets()) for cloud in clouds(ax)) == MAX_POINTS
    assert figure.get_supxlabel() == "shown: 5,000 of 5,001 rows"


# ----- classification ---------------------------------------------------------------------------------------------


def test_classification_colours_rows() -> None:
    estimator, X = fitted(2)
    figure = plot_classification(estimator, X)
    (ax,) = visible(figure)
    component = estimator.predict(X)
    for k, cloud in enumerate(clouds(ax)):
        np.testing.assert_allclose(cloud.get_offsets(), X.to_numpy()[component == k])
        assert colour_of(cloud) == COLOURS[k]
    assert len([patch for patch in ax.patches if isinstance(patch, Ellipse)]) == 4
    shares = [f"component {k} ({np.mean(component == k):.0%})" for k in range(2)]
    assert legend_of(figure.legends[0]) == [*shares, "1 standard deviation", "2 standard deviations"]


def test_classification_by_clusters() -> None:
    X = frame(2)
    estimator = lvm.GaussianMixture(4, random_state=0, tol=1e-3).fit(X)
    combination = lvm.combine(estimator, X)
    clusters = combination.clusters(2)
    figure = plot_classification(estimator, X, clusters=clusters)
    (ax,) = visible(figure)
    expected = combination.predict(X, 2)
    for g, cloud in enumerate(clouds(ax)):
        np.testing.assert_allclose(cloud.get_offsets(), X.to_numpy()[expected == g])
    ellipses = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    colours = [mpl.colors.to_hex(patch.get_edgecolor()) for patch in ellipses[::2]]
    assert [colours[k] == colours[0] for k in range(4)] == (clusters == clusters[0]).tolist()
    assert legend_of(figure.legends[0])[0].startswith("cluster 0 (")
    for wrong in ([0, 1], [0, 1, 0, -1], [0.0, 1.0, 0.0, 1.0]):
        with pytest.raises(ValueError, match="clusters must be 4 integers >= 0, one for each component"):
            plot_classification(estimator, X, clusters=wrong)


def test_classification_of_one_column() -> None:
    estimator, X = fitted(1)
    top, bottom = visible(plot_classification(estimator, X))
    assert sum(bar.get_height() for bar in top.patches) == 120
    component = estimator.predict(X)
    strips = clouds(bottom)
    for k, strip in enumerate(strips):
        np.testing.assert_allclose(strip.get_offsets()[:, 0], X["length"][component == k])
        assert set(strip.get_offsets()[:, 1]) == {k}


def test_mixtures_without_ellipses() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.poisson([2, 9, 4], size=(40, 3)), rng.poisson([8, 3, 4], size=(40, 3))])
    estimator = lvm.PoissonMixture(2, random_state=0, tol=1e-3).fit(X)
    figure = plot_classification(estimator, X)
    assert not [patch for ax in visible(figure) for patch in ax.patches if isinstance(patch, Ellipse)]
    assert len(legend_of(figure.legends[0])) == 2
    drawn(plot_uncertainty(estimator, X))
    with pytest.raises(TypeError, match="plot_density expects a Gaussian or Student t mixture, got PoissonMixture"):
        plot_density(estimator, X)
    with pytest.raises(TypeError, match="plot_classification draws columns of numbers"):
        plot_classification(estimator, np.array([["a", "b", "c"]]))


# ----- uncertainty ------------------------------------------------------------------------------------------------


def test_uncertain_rows_are_larger() -> None:
    estimator, X = fitted(2)
    figure = plot_uncertainty(estimator, X)
    (ax,) = visible(figure)
    uncertainty = 1 - estimator.predict_proba(X).max(axis=1)
    low, high = np.quantile(uncertainty, [0.75, 0.95])
    rows = X.to_numpy()
    sizes = sorted({float(cloud.get_sizes()[0]) for cloud in clouds(ax)})
    assert len(sizes) == 3
    for size, chosen in zip(
        sizes, (uncertainty <= low, (uncertainty > low) & (uncertainty <= high), uncertainty > high), strict=True
    ):
        found = np.concatenate([c.get_offsets() for c in clouds(ax) if c.get_sizes()[0] == size])
        np.testing.assert_allclose(np.sort(found[:, 0]), np.sort(rows[chosen, 0]))
    texts = legend_of(figure.legends[0])
    assert texts[-4:] == [
        "uncertainty (share of rows)",
        f"up to {low:.2g} (75%)",
        f"up to {high:.2g} (20%)",
        f"up to {uncertainty.max():.2g} (5%)",
    ]


def test_uncertainty_of_one_column_is_its_height() -> None:
    estimator, X = fitted(1)
    (ax,) = visible(plot_uncertainty(estimator, X))
    found = np.concatenate([cloud.get_offsets() for cloud in clouds(ax)])
    expected = np.column_stack([X["length"], estimator.uncertainty(X)])
    order = np.argsort(expected[:, 0])
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], expected[order], atol=1e-12)
    assert ax.get_ylabel() == "uncertainty"


def test_certain_rows_and_one_component() -> None:
    X = frame(2)
    drawn(plot_uncertainty(lvm.GaussianMixture(1).fit(X), X))


# ----- density ----------------------------------------------------------------------------------------------------


def test_regions_hold_their_mass() -> None:
    """The levels are the normal density at the quantiles of the chi-squared distribution with 2 degrees of freedom."""
    X = frame(2, 60)
    estimator = lvm.GaussianMixture(1).fit(X)
    (ax,) = visible(plot_density(estimator, X))
    filled, lines = (c for c in ax.collections if isinstance(c, QuadContourSet))
    assert filled.filled
    peak = multivariate_normal(estimator.means_[0], estimator.covariances_[0]).pdf(estimator.means_[0])
    # The mass within the Mahalanobis radius r is 1 - exp(-r^2 / 2), where the density is the peak's times 1 less that.
    np.testing.assert_allclose(lines.levels / peak, 1 - np.array(MASSES), atol=0.02)
    assert filled.levels[-1] == pytest.approx(peak, rel=0.01)


def test_regions_show_narrow_components() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, size=(100, 2)), rng.normal([5.003, 5.003], 1e-3, size=(100, 2))])
    estimator = lvm.GaussianMixture(2, random_state=0, reg_covar=1e-9).fit(X)
    (ax,) = visible(plot_density(estimator, X))
    filled, _ = (c for c in ax.collections if isinstance(c, QuadContourSet))
    narrow = int(np.argmax(estimator.means_[:, 0]))
    peak = np.exp(estimator.score_samples(estimator.means_[[narrow]]))[0]
    assert filled.zmax > 0.9 * peak
    drawn(ax.figure)


@pytest.mark.parametrize("kind", ["gaussian", "student"])
def test_curve_of_one_column(kind: str) -> None:
    X = frame(1)
    maker = lvm.GaussianMixture if kind == "gaussian" else lvm.StudentTMixture
    estimator = maker(2, random_state=0, tol=1e-3).fit(X)
    figure = plot_density(estimator, X)
    (ax,) = visible(figure)
    (curve,) = ax.lines
    rows = pd.DataFrame({"length": curve.get_xdata()})
    np.testing.assert_allclose(curve.get_ydata(), np.exp(estimator.score_samples(rows)), rtol=1e-9)
    assert sum(bar.get_width() * bar.get_height() for bar in ax.patches) == pytest.approx(1)
    (rug,) = clouds(ax)
    np.testing.assert_allclose(rug.get_offsets()[:, 0], X["length"])
    assert legend_of(ax.get_legend()) == ["data", "mixture"]


def test_density_leaves_the_generator_alone() -> None:
    X = frame(2)
    estimator = lvm.GaussianMixture(1, random_state=np.random.RandomState(1)).fit(X)
    before = estimator.random_state.get_state()[2]
    plot_density(estimator, X)
    assert estimator.random_state.get_state()[2] == before


# ----- entropy ----------------------------------------------------------------------------------------------------


def test_entropies_and_the_bend() -> None:
    X = frame(2)
    found = lvm.combine(lvm.GaussianMixture(5, random_state=0, tol=1e-3).fit(X), X)
    ax = plot_entropy(found)
    left, right, points, ring = ax.lines
    np.testing.assert_allclose(points.get_xydata(), np.column_stack([range(1, 6), found.entropies]))
    assert ring.get_xydata().tolist() == [[found.n_clusters, found.entropies[found.n_clusters - 1]]]
    assert left.get_xdata().tolist() == [1, found.n_clusters]
    assert right.get_xdata().tolist() == [found.n_clusters, 5]
    slope, intercept = (
        np.polynomial.Polynomial.fit(range(found.n_clusters, 6), found.entropies[found.n_clusters - 1 :], 1)
        .convert()
        .coef[::-1]
    )
    np.testing.assert_allclose(right.get_ydata(), intercept + slope * np.array([found.n_clusters, 5]))
    assert legend_of(ax.get_legend()) == ["best two lines", "entropy", f"bend: {found.n_clusters} clusters"]
    assert ax.get_xlabel() == "number of clusters"


def test_entropies_of_two_components() -> None:
    X = frame(2)
    ax = Figure().subplots()
    assert plot_entropy(lvm.combine(lvm.GaussianMixture(2, random_state=0).fit(X), X), ax) is ax
    assert len(ax.lines) == 1
