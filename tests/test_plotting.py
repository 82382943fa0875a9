"""What the pictures show: ellipses, lines, labels and marks, by count and place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

import lvm
from lvm.marginals import marginal_covariances, separating_columns
from lvm.plotting import COLOURS, MAX_POINTS, plot_mixture, plot_selection

RNG = np.random.default_rng(8)
NAMES = ["length [cm]", "width", "depth", "age", "noise"]


@pytest.fixture(autouse=True, scope="module")
def no_window() -> Iterator[None]:
    with mpl.rc_context({"figure.max_open_warning": 0}):
        pyplot.switch_backend("agg")
        yield


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


def frame(d: int, n: int = 120) -> pd.DataFrame:
    shift = np.where(np.arange(n) < n // 2, 0.0, 6.0)[:, None]
    noise = np.arange(d) == 4
    return pd.DataFrame(RNG.normal(size=(n, d)) + np.where(noise, 0.0, shift), columns=NAMES[:d])


def fitted(d: int, **arguments: Any) -> tuple[Any, pd.DataFrame]:
    X = frame(d)
    return lvm.GaussianMixture(2, random_state=0, **arguments).fit(X), X


def ellipses(ax: Any) -> list[Ellipse]:
    return [patch for patch in ax.patches if isinstance(patch, Ellipse)]


def visible(figure: Figure) -> list[Any]:
    return [ax for ax in figure.axes if ax.get_visible()]


def legend_of(owner: Any) -> list[str]:
    return [text.get_text() for text in owner.get_texts()]


# ----- selections -------------------------------------------------------------------------------------------------


def test_selection_has_a_line_per_covariance_and_a_mark() -> None:
    _, X = fitted(2)
    kinds = ["full", "tied"]
    found = lvm.select(lvm.GaussianMixture(random_state=0), X, n_components=[3, 1, 2], covariance_type=kinds)
    ax = plot_selection(found)
    *lines, mark = ax.lines
    assert [line.get_label() for line in lines] == kinds
    for kind, line in zip(kinds, lines, strict=True):
        bics = {c.arguments["n_components"]: c.bic for c in found.table if c.arguments["covariance_type"] == kind}
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == [bics[k] for k in (1, 2, 3)]
    best = min(found.table, key=lambda c: c.bic)
    assert mark.get_xydata().tolist() == [[best.arguments["n_components"], best.bic]]
    assert ax.get_ylabel() == "BIC (lower is better)"
    assert ax.get_xlabel() == "number of components K"
    assert ax.get_xticks().tolist() == [1, 2, 3]
    assert ax.get_legend().get_title().get_text() == "covariance_type"
    assert legend_of(ax.get_legend()) == ["full", "tied", f"best: K = 2 ({best.bic:.6g})"]


def test_selection_in_given_axes_with_a_failed_fit() -> None:
    X = np.array([[0.0], [1.0], [5.0], [6.0]])
    found = lvm.select(lvm.GaussianMixture(random_state=0), X, n_components=[1, 2, 9], criterion="aic")
    ax = Figure().subplots()
    assert plot_selection(found, ax) is ax
    line, _ = ax.lines
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True]
    assert ax.get_ylabel().startswith("AIC")


# ----- Gaussian mixtures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_ellipses_are_those_of_the_covariances(kind: str) -> None:
    estimator, X = fitted(2, covariance_type=kind)
    figure = plot_mixture(estimator, X)
    (ax,) = visible(figure)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length [cm]", "width")
    patches = ellipses(ax)
    assert len(patches) == 4
    covariances = marginal_covariances(estimator, [0, 1])
    for k in range(2):
        one, two = patches[2 * k : 2 * k + 2]
        np.testing.assert_allclose(one.get_center(), estimator.means_[k])
        np.testing.assert_allclose([two.width, two.height], [2 * one.width, 2 * one.height])
        # Points on the ellipse of one standard deviation lie at a Mahalanobis distance of 1.
        outline = one.get_transform().transform(one.get_path().vertices[:8])
        points = ax.transData.inverted().transform(outline) - estimator.means_[k]
        distance = np.einsum("ni,ij,nj->n", points, np.linalg.inv(covariances[k]), points)
        np.testing.assert_allclose(distance[::3], 1.0, rtol=1e-6)  # every third vertex of a Bezier path lies on it


def test_points_are_coloured_by_component() -> None:
    estimator, X = fitted(2)
    (ax,) = visible(plot_mixture(estimator, X))
    clouds = [c for c in ax.collections if isinstance(c, PathCollection)]
    component = estimator.predict(X)
    for k, cloud in enumerate(clouds):
        np.testing.assert_allclose(cloud.get_offsets(), X.to_numpy()[component == k])
        assert mpl.colors.to_hex(cloud.get_facecolor()[0]).upper() == COLOURS[k]
    assert [text.get_text() for text in ax.texts] == ["0", "1"]
    figure = ax.figure
    assert legend_of(figure.legends[0]) == [
        "component 0 (50%)",
        "component 1 (50%)",
        "1 standard deviation",
        "2 standard deviations",
    ]


def test_pairs() -> None:
    estimator, X = fitted(3)
    figure = plot_mixture(estimator, X)
    axes = visible(figure)
    assert len(axes) == 6
    assert [len(ellipses(ax)) for ax in axes] == [0, 4, 0, 4, 4, 0]
    assert [ax.get_xlabel() for ax in axes[-3:]] == NAMES[:3]
    assert [ax.get_ylabel() for ax in axes] == ["", "width", "", "depth", "", ""]


def test_wide_data_show_the_columns_that_separate() -> None:
    estimator, X = fitted(5)
    assert separating_columns(estimator, 4) == [0, 1, 2, 3]  # the fifth is noise
    figure = plot_mixture(estimator, X)
    assert [ax.get_xlabel() for ax in visible(figure)[-4:]] == NAMES[:4]
    assert figure.get_supxlabel() == "shown: 4 of 5 columns"
    chosen = plot_mixture(estimator, X, columns=["noise", 1])
    (ax,) = visible(chosen)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("noise", "width")


def test_many_rows_are_thinned() -> None:
    X = RNG.normal(size=(MAX_POINTS + 1, 2))
    figure = plot_mixture(lvm.GaussianMixture(1).fit(X), X)
    (ax,) = visible(figure)
    assert len(ax.collections[0].get_offsets()) == MAX_POINTS
    assert figure.get_supxlabel() == "shown: 5,000 of 5,001 rows"
    assert ax.get_xlabel() == "column 0"


def test_one_column_has_densities() -> None:
    estimator, X = fitted(1)
    (ax,) = visible(plot_mixture(estimator, X))
    mixture, *components = ax.lines
    assert legend_of(ax.get_legend()) == ["data", "mixture", "component 0 (50%)", "component 1 (50%)"]
    grid = mixture.get_xdata()
    np.testing.assert_allclose(mixture.get_ydata(), np.exp(estimator.score_samples(pd.DataFrame({NAMES[0]: grid}))))
    np.testing.assert_allclose(mixture.get_ydata(), sum(line.get_ydata() for line in components))
    assert ax.get_xlabel() == "length [cm]"
    # The histogram is a density: its area is 1.
    assert sum(bar.get_width() * bar.get_height() for bar in ax.patches) == pytest.approx(1)


def test_a_constant_column() -> None:
    X = np.column_stack([np.repeat([1.0, 5.0], 30), np.ones(60)])
    estimator = lvm.GaussianMixture(2, random_state=0, reg_covar=0.01).fit(X)
    (ax,) = visible(plot_mixture(estimator, X, columns=[1]))
    assert len(ax.lines) == 3


def test_many_components_have_a_short_legend() -> None:
    X = np.concatenate([RNG.normal(5 * k, 1, size=(10, 2)) for k in range(15)])
    estimator = lvm.GaussianMixture(15, covariance_type="spherical", random_state=0).fit(X)
    figure = plot_mixture(estimator, X)
    assert "and 3 more" in legend_of(figure.legends[0])
    assert len(ellipses(visible(figure)[0])) == 30


# ----- probabilities ----------------------------------------------------------------------------------------------


def test_heat_map_of_bernoulli() -> None:
    X = pd.DataFrame((RNG.random((80, 3)) < 0.5).astype(int), columns=["fever", "cough", "rash"])
    estimator = lvm.BernoulliMixture(2, alpha=2, random_state=0).fit(X)
    figure = plot_mixture(estimator, X)
    ax, bar = figure.axes
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), estimator.probabilities_)
    assert image.get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["fever", "cough", "rash"]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        f"{k} ({estimator.weights_[k]:.0%})" for k in range(2)
    ]
    assert [text.get_text() for text in ax.texts] == [f"{p:.2f}" for p in estimator.probabilities_.ravel()]
    assert bar.get_ylabel() == "probability"


def test_heat_map_of_wide_counts() -> None:
    X = RNG.poisson(2.0, size=(60, 90))
    estimator = lvm.MultinomialMixture(3, random_state=0).fit(X)
    ax = plot_mixture(estimator, X).axes[0]
    assert len(ax.texts) == 0
    assert ax.images[0].get_clim()[1] == estimator.probabilities_.max()
    assert len(ax.get_xticks()) == 30  # every third: no more than 40 names fit
    narrow = plot_mixture(estimator, X, columns=[5, 7]).axes[0]
    np.testing.assert_array_equal(narrow.images[0].get_array(), estimator.probabilities_[:, [5, 7]])


# ----- what is refused --------------------------------------------------------------------------------------------


def test_refusals() -> None:
    estimator, X = fitted(2)
    with pytest.raises(ValueError, match=r"no column 'height'; the estimator was fitted on length \[cm\], width"):
        plot_mixture(estimator, X, columns=["height"])
    with pytest.raises(ValueError, match="no column 2; the estimator was fitted on 2 columns"):
        plot_mixture(estimator, X, columns=[2])
    with pytest.raises(ValueError, match="columns is empty"):
        plot_mixture(estimator, X, columns=[])
    with pytest.raises(ValueError, match="3 features"):
        plot_mixture(lvm.GaussianMixture(2, random_state=0).fit(X.to_numpy()), np.zeros((4, 3)))
    from sklearn.linear_model import LinearRegression

    with pytest.raises(TypeError, match="plot_mixture expects a fitted mixture, got LinearRegression"):
        plot_mixture(LinearRegression().fit(X, X.iloc[:, 0]), X)
    assert pyplot.get_fignums() == []


def test_given_figures_need_no_pyplot_and_the_import_no_matplotlib() -> None:
    code = (
        "import sys, numpy as np, lvm, lvm.plotting as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from matplotlib.figure import Figure\n"
        "X = np.arange(8.0).reshape(4, 2)\n"
        "p.plot_mixture(lvm.GaussianMixture(1).fit(X), X, figure=Figure())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
