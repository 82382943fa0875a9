"""A bound on the ratio of eigenvalues: exact M-steps, and no spurious maxima."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.base import clone

import lvm
from lvm.families import (
    BoundedDiagGaussian,
    BoundedFullGaussian,
    BoundedSphericalGaussian,
    DiagGaussian,
    EIIGaussian,
    FullGaussian,
    SphericalGaussian,
)
from lvm.families.conjugate_prior import NormalInverseWishart
from lvm.families.gaussian_bounded import truncated
from lvm.models.mixture import MixtureParams
from lvm.testing import model_checks

Array = NDArray[np.float64]
BOUNDED = {"full": BoundedFullGaussian, "diag": BoundedDiagGaussian, "spherical": BoundedSphericalGaussian}
FREE = {"full": FullGaussian, "diag": DiagGaussian, "spherical": SphericalGaussian}
each_type = pytest.mark.parametrize("kind", BOUNDED)


def blobs(seed: int = 0, n: int = 50) -> Array:
    rng = np.random.RandomState(seed)
    return np.concatenate([rng.randn(n, 2) * [0.2, 3.0], rng.randn(n, 2) @ [[2.0, 1.5], [0.0, 0.3]] + [4.0, 1.0]])


def eigenvalues(params: Any) -> Array:
    if params.covariances.ndim == 3:
        return np.linalg.eigvalsh(params.covariances)
    return np.asarray(params[2] ** -2.0)


def stepped(family: Any, X: Array, resp: Array) -> Any:
    """Return the M-step's parameters under responsibilities (K, n)."""
    old = family.start(family.canonical(X), np.ones(len(X)), len(resp))
    stats = family.zero_stats(old)
    family.accumulate(family.canonical(X), resp, old, stats)
    return family.mstep(stats, old)


# ----- the truncation ---------------------------------------------------------------------------------------------


def cost(variances: Array, values: Array, weights: Array) -> float:
    return float((weights * (np.log(variances) + values / variances)).sum())


@pytest.mark.parametrize("ratio", [1.0, 1.3, 4.0, 50.0])
@pytest.mark.parametrize("seed", range(8))
def test_truncation_is_the_best_floor(ratio: float, seed: int) -> None:
    """On a fine grid of floors none is better; ties, zeros and equal values are among the inputs."""
    rng = np.random.RandomState(seed)
    values = rng.gamma(0.3, 1.0, (rng.randint(1, 5), 3))
    values[rng.random_sample(values.shape) < 0.2] = 0.0
    values[0, :2] = values.max()
    weights = rng.gamma(1.0, 1.0, values.shape)
    found = truncated(values, weights, ratio)
    assert found.max() <= ratio * found.min() * (1 + 1e-12)
    floors = np.exp(np.linspace(-12, np.log(values.max()), 5000))
    assert (
        cost(found, values, weights)
        <= min(cost(np.clip(values, m, ratio * m), values, weights) for m in floors) + 1e-10
    )


def test_truncation_against_a_general_optimiser() -> None:
    """All variances at once, free within the bound: SLSQP finds nothing better, and the same place."""
    rng = np.random.RandomState(3)
    ratio = 3.0
    for _ in range(5):
        values, weights = rng.gamma(0.5, 1.0, 5) + 0.01, rng.gamma(2.0, 1.0, 5)

        def objective(u: Array, values: Array = values, weights: Array = weights) -> float:
            return cost(np.exp(u[:5]), values, weights)

        bounds = [
            {"type": "ineq", "fun": lambda u, j=j, sign=sign: sign * (u[j] - u[5]) + (np.log(ratio) if sign < 0 else 0)}
            for j in range(5)
            for sign in (1, -1)
        ]
        best = minimize(
            objective, np.zeros(6), method="SLSQP", constraints=bounds, options={"ftol": 1e-14, "maxiter": 500}
        )
        found = truncated(values, weights, ratio)
        assert best.success
        assert_allclose(cost(found, values, weights), best.fun, rtol=1e-8)
        assert_allclose(found, np.exp(best.x[:5]), rtol=1e-3)  # flat there: the square root of the optimiser's 1e-8


def test_values_within_the_bound_stay() -> None:
    values = np.array([[1.0, 2.0], [3.9, 1.5]])
    assert truncated(values, np.ones((2, 2)), 4.0) is values


# ----- the M-step -------------------------------------------------------------------------------------------------


def test_m_step_of_matrices_against_a_general_optimiser() -> None:
    """Two 2 x 2 matrices, their eigenvalues within the bound by construction and their axes free."""
    X = blobs()
    resp = np.random.RandomState(1).dirichlet([1.0, 1.0], len(X)).T.copy()
    ratio = 1.8
    params = stepped(BoundedFullGaussian(ratio), X, resp)
    counts, means = resp.sum(axis=1), params.means
    scatters = (
        np.array([(resp[k][:, None] * (X - means[k])).T @ (X - means[k]) for k in range(2)]) / counts[:, None, None]
    )

    def value(matrices: Array) -> float:
        return float(
            sum(
                c * (np.linalg.slogdet(m)[1] + np.trace(np.linalg.solve(m, s)))
                for c, m, s in zip(counts, matrices, scatters, strict=True)
            )
        )

    def matrices_of(u: Array) -> Array:
        values = np.exp(u[0] + np.log(ratio) / (1 + np.exp(-u[1:5]))).reshape(2, 2)
        turns = np.array([[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in u[5:]])
        return np.asarray((turns * values[:, None]) @ np.swapaxes(turns, 1, 2))

    rng = np.random.RandomState(0)
    ends = [minimize(lambda u: value(matrices_of(u)), rng.randn(7), options={"gtol": 1e-9}).fun for _ in range(12)]
    assert_allclose(
        value(params.covariances), min(ends), rtol=1e-6
    )  # the optimiser nears the bound without reaching it
    assert value(params.covariances) <= min(ends) + 1e-9
    assert_allclose(eigenvalues(params).max() / eigenvalues(params).min(), ratio, rtol=1e-10)


@each_type
def test_ratio_of_one_is_one_variance(kind: str) -> None:
    X = blobs()
    resp = np.random.RandomState(1).dirichlet([1.0, 1.0], len(X)).T.copy()
    equal = stepped(EIIGaussian(), X, resp)
    bounded = stepped(BOUNDED[kind](1.0), X, resp)
    assert_allclose(eigenvalues(bounded), eigenvalues(equal), rtol=1e-10)
    assert_allclose(bounded.means, equal.means, rtol=1e-12)


@each_type
def test_wide_bound_changes_nothing(kind: str) -> None:
    X = blobs()
    resp = np.random.RandomState(1).dirichlet([1.0, 1.0], len(X)).T.copy()
    free, bounded = stepped(FREE[kind](0.1), X, resp), stepped(BOUNDED[kind](1e9, 0.1), X, resp)
    assert_allclose(bounded.covariances, free.covariances, rtol=1e-12)
    assert BOUNDED[kind](1e9).n_parameters(bounded) == FREE[kind]().n_parameters(free)


@each_type
@pytest.mark.parametrize("case", ["plain", "regularised", "missing", "prior"])
def test_every_iteration_raises_the_objective(kind: str, case: str) -> None:
    X = blobs(2)
    if case == "missing":
        X[np.random.RandomState(5).random_sample(X.shape) < 0.2] = np.nan
    prior = NormalInverseWishart([2.0, 0.5], 1.0, 0.5) if case == "prior" else None
    family = BOUNDED[kind](1.5, 0.1 if case == "regularised" else 0.0, prior=prior)
    model = lvm.Mixture(family)
    rows = model.canonical(lvm.Rows(X))
    unit = {"full": np.repeat(np.eye(2)[None], 2, axis=0), "diag": np.ones((2, 2)), "spherical": np.ones(2)}[kind]
    start = family.params(np.array([[0.0, -1.0], [3.0, 1.0]]), 2.0 * unit)
    result = lvm.fit_em(model, rows, MixtureParams(np.array([0.5, 0.5]), start), tol=0, max_iter=15)
    assert result.n_iter == 15
    assert np.diff(result.objective_trace).min() > -1e-9  # rounding of some hundreds
    found = eigenvalues(result.params.components)
    assert_allclose(found.max() / found.min(), 1.5, rtol=1e-10)  # the bound is at work


def conformance(kind: str) -> list[Any]:
    family, means = BOUNDED[kind](1.5, 0.05), np.array([[0.0, -0.5], [3.0, 1.0]])
    unit = {"full": np.repeat(np.eye(2)[None], 2, axis=0), "diag": np.ones((2, 2)), "spherical": np.ones(2)}[kind]
    checks = model_checks(family, family.params(means, unit), blobs())
    # At the bound parameters move in fewer directions than n_parameters says, which is that of the structure.
    return [pytest.param(check, id=f"{kind}-{check}") for check in checks if str(check) != "parameters_are_counted"]


@pytest.mark.parametrize("check", [check for kind in BOUNDED for check in conformance(kind)])
def test_conformance(check: Any) -> None:
    check()


def test_anderson_stays_within_the_bound() -> None:
    for kind in BOUNDED:
        fitted = lvm.GaussianMixture(
            2, covariance_type=kind, max_eigenvalue_ratio=3.0, acceleration="anderson", random_state=0
        ).fit(blobs())
        found = eigenvalues(fitted._get_components())
        assert found.max() <= 3.0 * found.min() * (1 + 1e-8)
        assert np.diff(fitted.objective_trace_).min() > -1e-9


# ----- spurious maxima --------------------------------------------------------------------------------------------


def test_avoids_the_spurious_maximum() -> None:
    """Two points that nearly coincide draw a component, more likely than the clusters are; not with the bound."""
    rng = np.random.RandomState(4)
    X = np.concatenate([rng.randn(60, 2), rng.randn(60, 2) + np.array([3.5, 0.0]), [[2.0, 4.0], [2.0, 4.0 + 1e-5]]])
    pair, clusters = np.repeat([0, 1], [120, 2]), np.repeat([0, 1], [60, 62])

    def fit(start: Any, ratio: float | None) -> Any:
        settings = {"covariance_type": "spherical", "reg_covar": 0.0, "init_params": start}
        return lvm.GaussianMixture(2, max_eigenvalue_ratio=ratio, **settings).fit(X)

    spurious, good = fit(pair, None), fit(clusters, None)
    assert spurious.weights_.min() < 0.02
    assert spurious.loglik_ > good.loglik_ + 10
    assert fit(pair, 5.0).loglik_ < good.loglik_ - 5
    assert_allclose(fit(clusters, 5.0).loglik_, good.loglik_, rtol=1e-9)  # within the bound anyway


def test_bound_alone_keeps_coincident_points_from_collapse() -> None:
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.randn(30, 2), np.repeat([[9.0, 9.0]], 5, axis=0)])
    labels = np.repeat([0, 1], [30, 5])
    for kind in BOUNDED:
        settings = {"covariance_type": kind, "reg_covar": 0.0, "init_params": labels}
        with pytest.raises(ValueError, match="ill-defined empirical covariance"):
            lvm.GaussianMixture(2, **settings).fit(X)
        fitted = lvm.GaussianMixture(2, max_eigenvalue_ratio=20.0, **settings).fit(X)
        assert_array_equal(fitted.predict(X), labels)
        found = eigenvalues(fitted._get_components())
        assert_allclose(found.max() / found.min(), 20.0, rtol=1e-8)


# ----- the estimator ----------------------------------------------------------------------------------------------


def test_save_load_clone_and_select(tmp_path: Path) -> None:
    X = blobs()
    fitted = lvm.GaussianMixture(2, max_eigenvalue_ratio=4.0, random_state=0).fit(X)
    lvm.save(fitted, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    assert loaded.max_eigenvalue_ratio == clone(fitted).max_eigenvalue_ratio == 4.0
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    found = lvm.select(fitted, X, n_components=[1, 2], max_eigenvalue_ratio=[2.0, 50.0])
    assert len(found.table) == 4
    logliks = {(c.arguments["n_components"], c.arguments["max_eigenvalue_ratio"]): c.loglik for c in found.table}
    assert logliks[2, 2.0] < logliks[2, 50.0]


def test_given_covariances_must_keep_the_bound() -> None:
    X = blobs()
    start = {"means_init": X[[0, 99]], "covariances_init": np.array([np.diag([1.0, 9.0]), np.eye(2)])}
    with pytest.raises(
        ValueError, match="eigenvalues further apart than max_eigenvalue_ratio=4; give others, or raise it"
    ):
        lvm.GaussianMixture(2, max_eigenvalue_ratio=4.0, **start).fit(X)
    lvm.GaussianMixture(2, max_eigenvalue_ratio=9.0, **start).fit(X)


@pytest.mark.parametrize("ratio", [0.5, np.inf, np.nan, "2", -1])
def test_refuses_bounds_that_are_none(ratio: Any) -> None:
    with pytest.raises(ValueError, match=r"max_eigenvalue_ratio must be None or a finite number >= 1, got"):
        lvm.GaussianMixture(2, max_eigenvalue_ratio=ratio).fit(blobs())


def test_refuses_other_structures() -> None:
    with pytest.raises(ValueError, match="needs covariance_type 'full', 'diag' or 'spherical', got 'VEV'"):
        lvm.GaussianMixture(2, covariance_type="VEV", max_eigenvalue_ratio=4.0).fit(blobs())
    with pytest.raises(ValueError, match=r"max_eigenvalue_ratio must be finite and >= 1, got 0\.5"):
        BoundedDiagGaussian(0.5)


def test_refuses_partly_held_covariances() -> None:
    fixed = {"covariances": [np.eye(2), np.full((2, 2), np.nan)]}
    with pytest.raises(ValueError, match="fix all of them or none"):
        lvm.GaussianMixture(2, max_eigenvalue_ratio=4.0, fixed=fixed).fit(blobs())
