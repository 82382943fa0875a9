"""What becomes of components that collapse or die, by policy; and how they are seen."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import ran
from sklearn.exceptions import ConvergenceWarning

import lvm
from lvm import degeneracy
from lvm.models.mixture import MixtureParams
from lvm.protocol import DegenerateError, leaves

RNG = np.random.RandomState(0)
TWO = np.concatenate([RNG.randn(60, 2), RNG.randn(50, 2) + 4.0])
REPEATED = np.concatenate([TWO, np.full((5, 2), 9.0)])  # k-means makes the five equal rows a cluster
DIRECTIONS = RNG.randn(40, 3)
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
SINGULAR = r"component \d is singular to rounding.*lower n_components"


def gaussian(structure: str) -> Callable[..., Any]:
    one_start = {"covariance_type": structure, "reg_covar": 0, "init_params": "kmeans", "n_init": 1}
    return lambda K, **arguments: lvm.GaussianMixture(K, **{**one_start, **arguments})


def student(K: int, **arguments: Any) -> Any:
    return lvm.StudentTMixture(K, reg_covar=0, **arguments)


def mixed(K: int, **arguments: Any) -> Any:
    return lvm.MixedMixture([("a", "gaussian", [0]), ("b", "poisson", [1])], K, reg_covar=0, **arguments)


class Case(NamedTuple):
    """Data on which a k-means start degenerates, and the number of components that each policy leaves; 0 for none."""

    make: Callable[..., Any]
    X: Any
    K: int
    left: Mapping[str, int]
    message: str


FAR = np.concatenate([TWO, [[1e8, 1e8]]])
CONSTANT, COLLINEAR = np.column_stack([TWO, np.ones(110)]), np.column_stack([TWO, 2 * TWO[:, 0]])
UNLIKE = np.column_stack([TWO * [1.0, 1e5], 2 * TWO[:, 0]])  # collinear, and of scales for which 1e-6 is no floor
CASES = {
    **{
        f"equal rows, {name}": Case(gaussian(name), REPEATED, 3, {"restart": 3, "drop": 2, "floor": 3}, SINGULAR)
        for name in ("full", "diag", "spherical", "VEV")
    },
    "equal rows, float32": Case(
        gaussian("full"), REPEATED.astype(np.float32), 3, {"restart": 3, "drop": 2, "floor": 3}, SINGULAR
    ),
    "equal rows, Student t": Case(student, REPEATED, 3, {"restart": 3, "drop": 2, "floor": 3}, SINGULAR),
    **{
        f"constant column, {name}": Case(gaussian(name), CONSTANT, 2, {"restart": 0, "drop": 0, "floor": 2}, "singular")
        for name in ("full", "tied", "diag", "EEI", "VEV")
    },
    "collinear columns": Case(gaussian("full"), COLLINEAR, 2, {"restart": 0, "drop": 0, "floor": 2}, SINGULAR),
    "collinear columns of unlike scales": Case(
        gaussian("full"), UNLIKE, 2, {"restart": 0, "drop": 0, "floor": 2}, SINGULAR
    ),
    "more features than rows": Case(
        gaussian("full"), RNG.randn(5, 20), 2, {"restart": 0, "drop": 0, "floor": 2}, SINGULAR
    ),
    **{
        f"one row far away, {name}": Case(gaussian(name), FAR, 3, {"restart": 0, "drop": 3, "floor": 3}, SINGULAR)
        for name in ("full", "diag", "spherical")  # the row far away is alone in one of two components too
    },
    "as many components as rows": Case(
        gaussian("spherical"), TWO[:6], 6, {"restart": 0, "drop": 2, "floor": 6}, SINGULAR
    ),
    "gamma, equal values": Case(
        lvm.GammaMixture,
        np.concatenate([np.full((20, 1), 3.0), RNG.gamma(5, 2, (50, 1)) + 10]),
        2,
        {"restart": 0, "drop": 1, "floor": 0},
        r"the shape of component \d, feature 0 is infinite.*lower n_components",
    ),
    "exponential, zeros": Case(
        lvm.ExponentialMixture,
        np.concatenate([np.zeros((20, 1)), RNG.exponential(5, (50, 1)) + 10]),
        2,
        {"restart": 0, "drop": 1, "floor": 0},
        r"the scale of component \d, feature 0 is 0.*lower n_components",
    ),
    "directions, equal rows": Case(
        lvm.VonMisesFisherMixture,
        np.concatenate([DIRECTIONS, np.repeat([[0.0, 0.0, 1.0]], 20, axis=0)]),
        3,
        {"floor": 3},
        r"the concentration of component \d is infinite.*set max_concentration",
    ),
    "mixed, equal values": Case(
        mixed,
        np.column_stack([np.r_[np.ones(20), RNG.randn(30) + 5], np.r_[np.full(20, 3), RNG.poisson(30, 30)]]),
        2,
        {"drop": 1, "floor": 2},
        SINGULAR,
    ),
}


def assert_sane(mixture: Any, X: Any) -> None:
    """Everything fitted is finite, the objective never fell, and the trace is that of the parameters."""
    arrays = [value for name, value in vars(mixture).items() if name.endswith("_") and name != "restarts_"]
    for array in arrays:
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            assert np.isfinite(array).all()
    assert mixture.weights_.sum() == pytest.approx(1.0, abs=1e-12)
    trace = mixture.objective_trace_
    rounding = 4e-6 if X.dtype == np.float32 else 1e-12
    assert np.all(np.diff(trace) >= -rounding * max(len(X), abs(trace[-1])))
    assert len(trace) == mixture.n_iter_ + 1
    assert mixture.converged_
    assert mixture.loglik_ == pytest.approx(mixture.score_samples(X).sum(), rel=1e-5 if rounding > 1e-9 else 1e-9)
    np.testing.assert_allclose(mixture.predict_proba(X).sum(axis=1), 1.0, rtol=1e-12)
    assert np.isfinite(mixture.bic(X))


@pytest.mark.parametrize(("name", "policy"), [(name, policy) for name, case in CASES.items() for policy in case.left])
def test_each_policy_does_what_it_says(name: str, policy: str) -> None:
    make, X, K, left, message = CASES[name]
    mixture = make(K, on_degenerate=policy, random_state=0)
    if not left[policy]:
        with pytest.raises(ValueError, match=message):
            mixture.fit(X)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mixture.fit(X)
    assert_sane(mixture, X)
    assert len(mixture.weights_) == left[policy]
    assert mixture.dropped_ == K - left[policy]
    said = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    if policy == "restart":
        assert mixture.restarts_[0] == -np.inf
        assert 1 < len(mixture.restarts_) <= 1 + degeneracy.MAX_RESTARTS
        assert mixture.degeneracy_ == ""
        assert said == []
    else:
        assert said == [f"on_degenerate={policy!r}: {mixture.degeneracy_}"]
        verb = "was kept" if "far away" in name else "was dropped"
        assert (verb if policy == "drop" else "the fit was done anew with") in mixture.degeneracy_
        assert mixture.degeneracy_.count("was dropped") == mixture.dropped_


@pytest.mark.parametrize("name", CASES)
def test_raise_raises_at_the_first_start(name: str) -> None:
    make, X, K, _, message = CASES[name]
    with pytest.raises(ValueError, match=message):
        make(K, on_degenerate="raise", random_state=0).fit(X)
    if name.startswith("equal rows"):  # others of ten starts do not degenerate
        assert np.isfinite(make(K, random_state=0, n_init=10, init_params="random_from_data").fit(X).loglik_)


def test_the_default_is_restart_and_costs_nothing_where_nothing_degenerates() -> None:
    fits = [
        lvm.GaussianMixture(2, on_degenerate=policy, random_state=3, n_init=1).fit(TWO)
        for policy in degeneracy.POLICIES
    ]
    assert lvm.GaussianMixture().on_degenerate == "restart"
    for fit in fits:
        assert fit.loglik_ == fits[0].loglik_
        assert (fit.dropped_, fit.degeneracy_, len(fit.restarts_)) == (0, "", 1)


def test_floor_of_shared_covariances_is_the_reg_covar_that_it_names() -> None:
    with pytest.warns(ConvergenceWarning, match="floor"):
        floored = gaussian("VEV")(3, on_degenerate="floor", random_state=0).fit(REPEATED)
    reg = degeneracy.FLOORS[0] * REPEATED.var(axis=0).min()
    assert f"reg_covar={reg:g}" in floored.degeneracy_
    same = gaussian("VEV")(3, reg_covar=reg, random_state=0).fit(REPEATED)
    assert floored.objective_trace_[-1] == pytest.approx(same.objective_trace_[-1], rel=1e-10)
    # The seeds of k-means differ, and so may the order of the components.
    np.testing.assert_allclose(np.sort(floored.means_, axis=0), np.sort(same.means_, axis=0), rtol=1e-6)


@pytest.mark.parametrize("structure", ["full", "diag", "spherical"])
@pytest.mark.parametrize("policy", ["floor", "drop"])
def test_a_floor_leaves_healthy_components_as_they_are(structure: str, policy: str) -> None:
    """Two groups beside a row at 1e8, or five equal ones, are what they are without them."""
    clean = gaussian(structure)(2, random_state=0, tol=1e-12).fit(TWO)
    for X in (FAR, np.concatenate([TWO, np.full((5, 2), 1e8)])):
        with pytest.warns(ConvergenceWarning, match=f"on_degenerate='{policy}'"):
            found = gaussian(structure)(3, random_state=0, tol=1e-12, on_degenerate=policy).fit(X)
        near = np.argsort(found.means_[:, 0])[:2]
        order = np.argsort(clean.means_[:, 0])
        np.testing.assert_allclose(found.means_[near], clean.means_[order], atol=1e-5)
        np.testing.assert_allclose(found.covariances_[near], clean.covariances_[order], atol=1e-5)
        assert found.loglik_ == found.objective_trace_[-1]  # no penalty


def test_drop_goes_on_to_an_optimum_of_fewer_components() -> None:
    with pytest.warns(ConvergenceWarning, match="component 0 of 3 was dropped"):
        dropped = gaussian("full")(3, on_degenerate="drop", random_state=0).fit(REPEATED)
    again = lvm.GaussianMixture(
        2, reg_covar=0, means_init=dropped.means_, covariances_init=dropped.covariances_, weights_init=dropped.weights_
    ).fit(REPEATED)
    assert again.n_iter_ <= 1
    assert again.loglik_ == pytest.approx(dropped.loglik_, abs=1e-7 * len(REPEATED))  # less than tol per row


def test_dead_components_are_dropped_without_a_loss() -> None:
    X = np.array([["a", "b"], ["b", "a"]] * 10)
    whole = lvm.CategoricalMixture(4, random_state=0).fit(X)
    assert np.sum(whole.weights_ == 0) == 2  # that the case is one
    with pytest.warns(ConvergenceWarning, match="component 2 of 4 was dropped: no row belongs to it"):
        fewer = lvm.CategoricalMixture(4, on_degenerate="drop", random_state=0).fit(X)
    assert (fewer.dropped_, len(fewer.weights_)) == (2, 2)
    assert fewer.loglik_ == pytest.approx(whole.loglik_, rel=1e-12)
    zeros = lvm.PoissonMixture(3, on_degenerate="drop", random_state=0)
    zeros.fit(np.concatenate([np.zeros((20, 2), int), RNG.poisson(9, (40, 2))]))
    assert np.isfinite(zeros.loglik_)


def test_dropping_and_numbers_that_the_user_knows_do_not_go_together() -> None:
    message = "on_degenerate='drop' numbers the components anew"
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(2, on_degenerate="drop").fit(TWO, labels=np.repeat([0, -1], 55))
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(2, on_degenerate="drop", fixed={"weights": [0.5, np.nan]}).fit(TWO)
    with pytest.raises(ValueError, match=r"on_degenerate must be one of .*got 'ignore'"):
        lvm.GaussianMixture(2, on_degenerate="ignore").fit(TWO)


def test_saved_and_loaded_with_fewer_components(tmp_path: Any) -> None:
    with pytest.warns(ConvergenceWarning, match="dropped"):
        mixture = gaussian("full")(3, on_degenerate="drop", random_state=0).fit(REPEATED)
    lvm.save(mixture, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    np.testing.assert_array_equal(loaded.predict_proba(REPEATED), mixture.predict_proba(REPEATED))
    assert (loaded.dropped_, loaded.degeneracy_) == (1, mixture.degeneracy_)


def test_without_a_component_all_arrays_follow() -> None:
    family = lvm.families.FullGaussian()
    params = MixtureParams(np.array([0.2, 0.3, 0.5]), family.params(RNG.randn(3, 2), np.repeat(np.eye(2)[None], 3, 0)))
    fewer = degeneracy.without(params, 1)
    np.testing.assert_allclose(fewer.weights, [2 / 7, 5 / 7], rtol=1e-15)
    for new, old in zip(leaves(fewer.components), leaves(params.components), strict=True):
        np.testing.assert_array_equal(new, old[[0, 2]])
    shared = lvm.families.TiedGaussian().params(RNG.randn(3, 2), np.eye(2)[None])
    assert degeneracy.without(MixtureParams(params.weights, shared), 0).components.covariances.shape == (1, 2, 2)


def test_errors_name_the_component() -> None:
    assert DegenerateError("text").component is None
    assert DegenerateError("text", 2).component == 2
    model = lvm.Mixture(lvm.families.FullGaussian())
    start = model.family.params(np.array([[0.0, 0.0], [9.0, 9.0]]), np.repeat(np.eye(2)[None], 2, axis=0) * 1e-3)
    rows = model.canonical(lvm.Rows(np.concatenate([TWO[:60] * 0.01, np.full((5, 2), 9.0)])))
    found = degeneracy.reason(model, rows, MixtureParams(np.array([0.5, 0.5]), start))
    assert found.component == 1


def test_shrinkage_is_that_of_the_fit() -> None:
    X = np.concatenate([TWO, np.full((5, 2), 9.0)])
    labels = np.r_[np.zeros(60, int), np.ones(50, int), np.full(5, 2)]
    mixture = lvm.GaussianMixture(3, init_params=labels).fit(X)
    seen = mixture.shrinkage(X)
    np.testing.assert_allclose(seen.rows, mixture.weights_ * len(X), rtol=1e-4)
    for k, covariance in enumerate(mixture.covariances_):
        eigenvalues = np.linalg.eigvalsh(covariance / np.outer(X.std(axis=0), X.std(axis=0)))
        assert seen.smallest[k] == pytest.approx(eigenvalues[0], rel=1e-6)
        assert seen.condition[k] == pytest.approx(eigenvalues[1] / eigenvalues[0], rel=1e-6)
    (line,) = seen.suspicions()
    assert line.startswith("component 2 has shrunk: 5.0 rows of weight")
    assert lvm.GaussianMixture(2, random_state=0).fit(TWO).shrinkage(TWO).suspicions() == []


@pytest.mark.parametrize("structure", ["full", "tied", "diag", "spherical", "VEV", "EEI"])
def test_shrinkage_for_every_shape_weights_and_missing_cells(structure: str) -> None:
    mixture = lvm.GaussianMixture(2, covariance_type=structure, random_state=0).fit(TWO)
    weight = np.r_[np.full(60, 2.0), np.ones(50)]
    seen = mixture.shrinkage(TWO, weight)
    repeated = mixture.shrinkage(np.repeat(TWO, weight.astype(int), axis=0))
    for one, other in zip(seen, repeated, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    holes = TWO.copy()
    holes[::7, 1] = np.nan
    assert np.isfinite(mixture.shrinkage(holes).smallest).all()


def test_the_command_line_prints_what_has_shrunk(tmp_path: Any) -> None:
    path = tmp_path / "points.csv"
    np.savetxt(path, REPEATED, delimiter=",", header="a,b", comments="")
    assert re.search(r"component \d has shrunk: 5\.0 rows", ran("fit", path, "-k", 3, "--n-init", 1, "--seed", 0))
    assert "has shrunk" not in ran("fit", path, "-k", 3, "--seed", 0)  # another start finds groups
    np.savetxt(path, TWO, delimiter=",", header="a,b", comments="")
    assert "has shrunk" not in ran("fit", path, "-k", 2, "--seed", 1)
