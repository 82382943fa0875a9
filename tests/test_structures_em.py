"""EM with the fourteen covariance structures: monotone, in any units, and clear errors where there is no maximum."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from structures import ALIGNED, Array, Cost, each, each_new, family, fitted, matrices, mstep, partition

import lvm
from lvm.em import rounding
from lvm.estimators.gaussian import FOURTEEN
from lvm.protocol import DegenerateError

NAN = np.nan


# ----- EM -----------------------------------------------------------------------------------------------------


def data_sets(faithful: Array, iris: Array) -> dict[str, tuple[Array, int]]:
    rng = np.random.RandomState(4)
    return {
        "faithful": (faithful, 3),
        "iris": (iris, 4),
        "no groups": (rng.normal(size=(150, 3)), 4),
        "d = 6": (np.concatenate([rng.normal(size=(120, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(80, 6))]), 2),
    }


@pytest.mark.parametrize("reg_covar", [0.0, 0.05])
@each_new
def test_objective_never_falls(name: str, reg_covar: float, faithful: Array, iris: Array) -> None:
    for which, (X, K) in data_sets(faithful, iris).items():
        labels = np.random.RandomState(1).randint(0, K, len(X))
        mixture = lvm.GaussianMixture(
            K, covariance_type=name, init_params=labels, reg_covar=reg_covar, tol=0.0, max_iter=200
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            trace = mixture.fit(X).objective_trace_
        assert len(trace) == 201, which
        assert np.diff(trace).min() >= -rounding(lvm.Rows(X)) * max(len(X), np.abs(trace).max()), which
        assert trace[-1] > trace[0] + 1, which


@each_new
def test_objective_never_falls_where_cells_are_missing(name: str, iris: Array) -> None:
    X = iris.copy()
    X[np.random.RandomState(0).uniform(size=X.shape) < 0.3] = NAN
    labels = np.random.RandomState(1).randint(0, 3, len(X))
    mixture = lvm.GaussianMixture(3, covariance_type=name, init_params=labels, tol=0.0, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        trace = mixture.fit(X).objective_trace_
    assert np.diff(trace).min() >= -rounding(lvm.Rows(X)) * max(len(X), np.abs(trace).max())
    assert trace[-1] > trace[0] + 10


@pytest.mark.parametrize("scale", [1e-100, 1e-3, 1e100])
@each_new
def test_scale_changes_nothing_but_units(name: str, scale: float, iris: Array) -> None:
    one, two = fitted(name, iris), fitted(name, scale * iris)
    # Twenty iterations carry rounding along.
    assert_allclose(two.covariances_ / scale / scale, one.covariances_, rtol=1e-7, atol=1e-9)
    assert_allclose(two.loglik_ + iris.size * np.log(scale), one.loglik_, rtol=1e-10)


@pytest.mark.parametrize("name", ["EII", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV"])
def test_rotations_change_nothing_but_axes(name: str, iris: Array) -> None:
    """Also where axes are searched for, as a search continues from those of the last iteration."""
    turn = np.linalg.qr(np.random.RandomState(2).normal(size=(4, 4)))[0]
    one = fitted(name, iris)
    start = matrices(one.covariances_, 3, 4)
    given = one.covariances_ if name == "EII" else turn.T @ start @ turn
    arguments = {"weights_init": one.weights_, "means_init": one.means_ @ turn, "covariances_init": given}
    two = fitted(name, iris @ turn, None, **arguments)
    longer = fitted(name, iris, max_iter=40)
    assert_allclose(two.loglik_, longer.loglik_, rtol=1e-9)


@pytest.mark.parametrize("name", ["EEI", "VEI", "EVI", "VEE", "EVV"])
def test_units_of_single_columns_change_nothing_else(name: str, iris: Array) -> None:
    units = np.array([1.0, 1e3, 1e-2, 30.0])
    one, two = fitted(name, iris), fitted(name, iris * units)
    assert_allclose(two.loglik_ + len(iris) * np.log(units).sum(), one.loglik_, rtol=1e-9)


def test_one_feature_has_two_structures(faithful: Array) -> None:
    X, labels = faithful[:, :1], (faithful[:, 0] > 3).astype(int)
    ends = {}
    for name in FOURTEEN:
        mixture = lvm.GaussianMixture(2, covariance_type=name, init_params=labels, reg_covar=0.0).fit(X)
        assert mixture.n_parameters() == (4 if name[0] == "E" else 5)
        ends[name] = mixture.loglik_
    for name, end in ends.items():
        assert_allclose(end, ends["EII" if name[0] == "E" else "VII"], rtol=1e-12)
    assert ends["EII"] < ends["VII"] - 1


def test_one_component_has_four_structures(iris: Array) -> None:
    """Spherical, diagonal and full; which letters are equal says nothing. Of the last, EEV and others too."""
    ends = {name: lvm.GaussianMixture(1, covariance_type=name, reg_covar=0.0).fit(iris).loglik_ for name in FOURTEEN}
    for name, end in ends.items():
        same = "VII" if name[1] == "I" else "VVI" if name[2] == "I" else "VVV"
        assert_allclose(end, ends[same], rtol=1e-12)


COUNTS = {
    "EII": lambda K, d: 1,
    "VII": lambda K, d: K,
    "EEI": lambda K, d: d,
    "VEI": lambda K, d: K + d - 1,
    "EVI": lambda K, d: 1 + K * (d - 1),
    "VVI": lambda K, d: K * d,
    "EEE": lambda K, d: d * (d + 1) // 2,
    "VEE": lambda K, d: K + d - 1 + d * (d - 1) // 2,
    "EVE": lambda K, d: 1 + K * (d - 1) + d * (d - 1) // 2,
    "VVE": lambda K, d: K + K * (d - 1) + d * (d - 1) // 2,
    "EEV": lambda K, d: d + K * d * (d - 1) // 2,
    "VEV": lambda K, d: K + d - 1 + K * d * (d - 1) // 2,
    "EVV": lambda K, d: 1 + K * (d - 1) + K * d * (d - 1) // 2,
    "VVV": lambda K, d: K * d * (d + 1) // 2,
}


@each
def test_parameters_are_counted_as_by_mclust(name: str) -> None:
    for K, d in product((1, 2, 5), (1, 2, 7)):
        chosen = family(name)
        params = chosen.start(np.random.RandomState(0).normal(size=(20, d)), np.ones(20), K)
        assert chosen.n_parameters(params) == K * d + COUNTS[name](K, d)
        held = np.ones(1 if name == "EEE" else K, np.bool_)
        assert family(name, held={"covariances": held}).n_parameters(params) == K * d
        assert family(name, held={"means": np.ones(K, np.bool_)}).n_parameters(params) == COUNTS[name](K, d)


# ----- dead components, held values, starts -------------------------------------------------------------------


@each_new
def test_dead_components_stay_and_do_not_count(name: str) -> None:
    X, resp = partition(2, 3)
    three = mstep(name, X, np.vstack([resp[:1], resp[1:], resp[1:]]))
    alone = mstep(name, X, resp, type(three)(*(array[:2] for array in three)))
    found = mstep(name, X, np.vstack([resp, np.zeros((1, len(X)))]), three)
    for one, two, old in zip(found, alone, three, strict=True):
        assert_allclose(one[:2], two, rtol=1e-9, atol=1e-12)
        if name not in ("EII", "EEI"):
            assert_array_equal(one[2], old[2])
    if name in ("EII", "EEI"):  # nothing of the covariances is the component's own
        assert_array_equal(found.covariances[2], found.covariances[0])
        assert_array_equal(found.means[2], three.means[2])


@each_new
def test_held_means(name: str) -> None:
    K, d = 2, 3
    X, resp = partition(K, d)
    old = family(name).start(X, np.ones(len(X)), K)
    held = np.array([True, False])
    found = mstep(name, X, resp, old, held={"means": held})
    assert_array_equal(found.means[0], old.means[0])
    free = mstep(name, X, resp, old)
    assert_allclose(found.means[1], free.means[1], rtol=1e-12)
    # The covariances are about the held mean.
    cost = Cost(found.means, X, resp)
    reached, end = (cost(matrices(each.covariances, K, d)) for each in (found, free))
    assert reached < end - 1e-3


@each_new
def test_held_covariances_are_all_or_none(name: str, iris: Array) -> None:
    with pytest.raises(ValueError, match=rf"need covariance_type 'VVV', 'VVI' or 'VII', got '{name}', .*fix all"):
        family(name, held={"covariances": np.array([True, False])})
    given = fitted(name, iris)
    partly = np.array(given.covariances_)
    partly[1] = NAN
    with pytest.raises(ValueError, match=rf"fixed covariances of some components .* got '{name}'"):
        lvm.GaussianMixture(3, covariance_type=name, fixed={"covariances": partly}).fit(iris)
    whole = lvm.GaussianMixture(3, covariance_type=name, fixed={"covariances": given.covariances_}, random_state=0)
    whole.fit(iris)
    assert_array_equal(whole.covariances_, given.covariances_)
    assert whole.n_parameters() == 2 + 12


@each_new
def test_starts_have_the_structure(name: str, iris: Array) -> None:
    one = fitted(name, iris)
    arguments = {"weights_init": one.weights_, "means_init": one.means_}
    for given in ({"covariances_init": one.covariances_}, {"precisions_init": one.precisions_}):
        two = fitted(name, iris, None, **arguments, **given)
        assert_allclose(two.objective_trace_[0], one.loglik_, rtol=1e-9)
    wrong = np.array(one.covariances_)
    if wrong.ndim == 3:  # another orientation, shape and volume
        wrong[0] += 0.3 * np.diag(np.arange(1.0, 5.0)) + 0.1
    else:
        wrong[0] *= np.linspace(1, 2, wrong[0].size) if wrong.ndim == 2 else 2.0
        wrong[0] *= 1.1
    with pytest.raises(ValueError, match=f"do not share what covariance_type='{name}' says"):
        fitted(name, iris, None, **arguments, covariances_init=wrong)


# ----- what is degenerate -------------------------------------------------------------------------------------

POINTS = np.random.RandomState(3).normal(size=(60, 3))
SINGULAR = {
    "constant column": np.column_stack([POINTS, np.full(60, 2.0)]),
    "collinear": np.column_stack([POINTS, POINTS @ [1.0, 2.0, 3.0]]),
    "more columns than rows": np.random.RandomState(3).normal(size=(6, 9)),
    "all the same": np.repeat(POINTS[:1], 60, axis=0),
    "duplicates": np.repeat(POINTS[:3], 20, axis=0),
}


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
@pytest.mark.parametrize("which", SINGULAR)
@each
def test_singular_covariances_are_refused(name: str, which: str, scale: float) -> None:
    """As by the four of scikit-learn, whatever is singular; what is not in this structure is fitted."""
    X = scale * SINGULAR[which]
    labels = np.arange(len(X)) % 2 if which != "duplicates" else np.arange(len(X)) // 20 % 2
    mixture = lvm.GaussianMixture(2, covariance_type=name, reg_covar=0.0, init_params=labels)
    axis_aligned_fits = name in ALIGNED and which in ("collinear", "more columns than rows")
    if (which == "constant column" and name in ("EII", "VII")) or axis_aligned_fits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            assert np.isfinite(mixture.set_params(max_iter=2, tol=0.0).fit(X).loglik_)
        return
    if which == "duplicates":
        if name in ("EII", "EEI"):
            pytest.skip("three points in two components: one component has a variance, which all share")
        with pytest.raises(ValueError, match=r"singular to rounding|collapse|distinct"):
            mixture.fit(X)
        return
    with pytest.raises(ValueError, match=r"is singular to rounding: its points coincide or lie in a subspace|distinct"):
        mixture.fit(X)


@each_new
def test_the_collapsed_component_is_named(name: str) -> None:
    """Component 1 owns copies of one point; structures whose components share volume and shape stand it."""
    X = np.concatenate([POINTS, np.repeat(POINTS[:1], 20, axis=0)])
    resp = np.repeat(np.eye(2), [60, 20], axis=1)
    first = mstep(name, X, resp, reg_covar=1e-9)  # finds the means; squares about others are rounded
    if name in ("EII", "EEI", "EEV"):
        assert np.isfinite(mstep(name, X, resp, first).covariances).all()
        return
    with pytest.raises(DegenerateError, match=r"the covariance of component [01] is singular to rounding"):
        mstep(name, X, resp, first)
    regularised = mstep(name, X, resp, reg_covar=0.01)
    assert np.isfinite(regularised.covariances).all()


def test_a_flat_component_may_share_eigenvalues() -> None:
    """Component 1 lies in a plane, which EEV stands: the eigenvalues are those of the others too."""
    X = np.concatenate([POINTS, POINTS[:20] * [1.0, 1.0, 0.0]])
    resp = np.repeat(np.eye(2), [60, 20], axis=1)
    values = np.linalg.eigvalsh(mstep("EEV", X, resp).covariances)
    assert_allclose(values[0], values[1], rtol=1e-10)
    with pytest.raises(DegenerateError, match="component 1 is singular"):
        mstep("EVV", X, resp, mstep("EVV", X, resp, reg_covar=1e-9))
