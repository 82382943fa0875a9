"""The fourteen covariance structures through the estimator, pictures, selection and the command line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from command_line import ran
from numpy.testing import assert_allclose, assert_array_equal
from structures import ALIGNED, NEW, Array, each, each_new, family, fitted, matrices

import lvm
from lvm import cli_families
from lvm.estimators.gaussian import FOURTEEN, SAME, STRUCTURES
from lvm.marginals import marginal_covariances
from lvm.plotting import plot_mixture, plot_selection

NAN = np.nan
POINTS = np.random.RandomState(3).normal(size=(60, 3))


# ----- estimator, pictures, selection, command line -----------------------------------------------------------


def test_scikit_learns_names_are_the_same_structures(iris: Array) -> None:
    for name, same in SAME.items():
        assert STRUCTURES[name] is FOURTEEN[same]
        one, two = fitted(name, iris), fitted(same, iris)
        assert one.loglik_ == two.loglik_
        assert_array_equal(one.covariances_, two.covariances_)


@each
def test_shapes_and_precisions(name: str, iris: Array) -> None:
    mixture = fitted(name, iris)
    shape = {"EII": (3,), "VII": (3,), "EEE": (4, 4)}.get(name, (3, 4) if name in ALIGNED else (3, 4, 4))
    assert mixture.covariances_.shape == mixture.precisions_.shape == mixture.precisions_cholesky_.shape == shape
    product = mixture.covariances_ * mixture.precisions_
    if len(shape) != len(set(shape)) or name == "VVV":
        product = mixture.covariances_ @ mixture.precisions_
        assert_allclose(product, np.broadcast_to(np.eye(4), shape), atol=1e-8)
    else:
        assert_allclose(product, 1.0, rtol=1e-12)


@each
def test_saved_models_and_pictures(name: str, iris: Array, tmp_path: Any) -> None:
    mixture = fitted(name, iris)
    lvm.save(mixture, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    assert loaded.covariance_type == name
    assert_array_equal(loaded.predict_proba(iris), mixture.predict_proba(iris))
    covariances = marginal_covariances(mixture, [0, 2])
    K = matrices(mixture.covariances_[None] if name == "EEE" else mixture.covariances_, 3, 4)
    assert_allclose(covariances, K[:, [0, 2]][:, :, [0, 2]], rtol=1e-14)
    from matplotlib.figure import Figure

    assert plot_mixture(mixture, iris, figure=Figure()).axes


def test_as_many_components_as_columns(iris: Array) -> None:
    """The shape (4, 4) says nothing: EEE shares a matrix, VVI has variances."""
    for name in ("EEE", "VVI", "VEI"):
        mixture = lvm.GaussianMixture(4, covariance_type=name, random_state=0).fit(iris)
        assert mixture.covariances_.shape == (4, 4)
        covariances = marginal_covariances(mixture, range(4))
        assert np.any(covariances[0] != np.diag(np.diag(covariances[0]))) == (name == "EEE")


@each_new
def test_acceleration_ends_where_em_does(name: str, faithful: Array) -> None:
    labels = (faithful[:, 0] > 3).astype(int)
    settings: dict[str, Any] = {"covariance_type": name, "init_params": labels, "tol": 1e-13, "max_iter": 5000}
    plain = lvm.GaussianMixture(2, **settings).fit(faithful)
    fast = lvm.GaussianMixture(2, acceleration="anderson", **settings).fit(faithful)
    assert_allclose(fast.loglik_, plain.loglik_, rtol=1e-10)
    chosen, components = family(name), fast._get_components()
    again = chosen.from_vector(chosen.to_vector(components, components), components)
    for one, two in zip(again, components, strict=True):
        assert_allclose(one, two, rtol=1e-7, atol=1e-9)
    further = chosen.to_vector(components, components)
    further = further + 0.1 * np.random.RandomState(0).normal(size=len(further))
    beyond = chosen.from_vector(further, components).covariances
    if name not in ALIGNED:  # of the aligned ones, combinations of steps keep what is linear in logarithms
        assert_allclose(chosen.nearest(beyond), beyond, rtol=1e-6, atol=1e-8 * np.abs(beyond).max())


@pytest.mark.parametrize("name", ["VEI", "VEE", "EVV"])
def test_acceleration_stays_within_the_structure(name: str, faithful: Array) -> None:
    labels = np.arange(len(faithful)) % 3
    fast = lvm.GaussianMixture(
        3, covariance_type=name, init_params=labels, acceleration="anderson", tol=1e-10, max_iter=5000
    ).fit(faithful)
    found = fast.covariances_
    assert_allclose(family(name).nearest(found), found, rtol=1e-6, atol=1e-9)


def test_single_precision(iris: Array) -> None:
    for name in NEW:
        one, two = fitted(name, iris, max_iter=5), fitted(name, iris.astype(np.float32), max_iter=5)
        assert two.means_.dtype == np.float64
        assert_allclose(two.loglik_, one.loglik_, rtol=1e-4)


def test_all_structures_are_tried(iris: Array) -> None:
    """mclust chooses VEV with two components for iris, BIC 561.7285 with its sign turned."""
    mixture = lvm.GaussianMixture(reg_covar=0.0, random_state=0)
    found = lvm.select(mixture, iris, covariance_type="all", n_components=[1, 2, 3])
    assert [c.arguments["covariance_type"] for c in found.table] == list(FOURTEEN) * 3
    assert (found.best.covariance_type, found.best.n_components) == ("VEV", 2)
    assert found.best.bic(iris) == pytest.approx(561.7285, abs=5e-4)
    ax = plot_selection(found)
    *lines, mark = ax.lines
    assert [line.get_label() for line in lines] == list(FOURTEEN)
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == len({(colour, dashes) for colour, dashes, _ in looks}) == 14
    assert mark.get_label() == "best: VEV, K = 2 (561.728)"
    assert ax.get_legend().get_bbox_to_anchor() is not None
    low, high = ax.get_ylim()
    values = np.array([c.bic for c in found.table])
    assert low < values.min()
    hidden = int((values > high).sum())
    assert 0 < hidden <= 0.4 * len(values)
    assert [text.get_text() for text in ax.texts] == [f"not shown: {hidden} of 42 fits, above"]
    with pytest.raises(ValueError, match=r"covariance_type must be one of .*got 'every'"):
        lvm.select(mixture, iris, covariance_type="every")


def test_failed_structures_are_recorded() -> None:
    X = np.column_stack([POINTS, POINTS @ [1.0, 2.0, 3.0]])
    mixture = lvm.GaussianMixture(2, reg_covar=0.0, random_state=0, max_iter=5, tol=0.0)
    found = lvm.select(mixture, X, covariance_type="all", n_components=2)
    failed = {c.arguments["covariance_type"] for c in found.table if c.estimator is None}
    assert failed == set(FOURTEEN) - set(ALIGNED)
    assert all("singular to rounding" in c.status for c in found.table if c.estimator is None)
    assert found.best.covariance_type in ALIGNED


@pytest.mark.usefixtures("folder")
def test_command_line() -> None:
    assert tuple(FOURTEEN) == cli_families.STRUCTURES
    assert set(STRUCTURES) == set(cli_families.COVARIANCES)
    printed = ran("fit", "data.csv", "-k", "2", "--covariance", "EEV,VVV", "--out", "out")
    assert "EEV" in printed
    printed = ran("fit", "data.csv", "-k", "2", "--covariance", "all")
    assert all(name in printed for name in FOURTEEN)
    assert "spherical" not in printed
