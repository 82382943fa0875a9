"""Mixtures of factor analysers: the family and its kernels, and the estimator, against independent routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm
from lvm.families import FactorGaussian
from lvm.models.mixture import MixtureParams
from lvm.protocol import DegenerateError
from lvm.testing import model_checks

AWKWARD = [(1, 1, 1, 1), (1, 2, 3, 2), (300, 3, 7, 2), (513, 2, 4, 3), (33, 1, 9, 5), (257, 2, 70, 1), (40, 2, 3, 5)]


def case(n: int, K: int, d: int, q: int, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.RandomState(seed)
    family = FactorGaussian(q)
    params = family.params(rng.randn(K, d), rng.randn(K, d, q), rng.rand(K, d) + 0.1)
    return family, params, family.canonical(2 * rng.randn(n, d))


def covariances(params: Any) -> Any:
    d = params.means.shape[1]
    return params.loadings @ np.swapaxes(params.loadings, 1, 2) + params.noise_variances[:, :, None] * np.eye(d)


@pytest.mark.parametrize("sizes", AWKWARD)
def test_density(sizes: tuple[int, int, int, int]) -> None:
    family, params, X = case(*sizes)
    out = np.ones((sizes[1], sizes[0]))
    family.log_density(X, params, out)
    for row, mean, covariance in zip(out, params.means, covariances(params), strict=True):
        assert_allclose(row - 1, multivariate_normal(mean, covariance).logpdf(X), rtol=1e-11)


@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (0.0, 1e150), (0.0, 1e-150)])
def test_density_of_extreme_units(offset: float, scale: float) -> None:
    family, params, X = case(50, 2, 5, 2)
    # Rounding of rows at the offset, in units of the smallest noise deviation, times the largest derivative.
    slack = 1e-9 + 100 * np.finfo(float).eps * abs(offset) / scale
    moved = family.params(
        params.means * scale + offset, params.loadings * scale, params.noise_variances * scale * scale
    )
    out, expected = np.zeros((2, 50)), np.zeros((2, 50))
    family.log_density(X, params, expected)
    family.log_density(family.canonical(X * scale + offset), moved, out)
    assert_allclose(out + 5 * np.log(scale), expected, rtol=slack, atol=1e3 * slack)


@pytest.mark.parametrize("sizes", AWKWARD)
def test_accumulate_and_mstep(sizes: tuple[int, int, int, int]) -> None:
    """The M-step is the one of Ghahramani and Hinton, from moments (d, d) about the new mean."""
    n, K, _, q = sizes
    family, params, X = case(*sizes)
    family = FactorGaussian(q, 0.05)
    resp = np.random.RandomState(1).rand(K, n) + 0.01
    resp[:, ::3] *= np.arange(K)[:, None] == 0
    resp[0] += 0.01
    stats = family.zero_stats(params)
    family.accumulate(X, resp, params, stats)
    new = family.mstep(stats, params)
    for k in range(K):
        total = resp[k].sum()
        if total == 0:
            assert_array_equal(new.loadings[k], params.loadings[k])
            continue
        mean = resp[k] @ X / total
        S = (resp[k] * (X - mean).T) @ (X - mean) / total
        L, noise = params.loadings[k], params.noise_variances[k]
        beta = L.T @ np.linalg.inv(L @ L.T + np.diag(noise))
        second = np.eye(q) - beta @ L + beta @ S @ beta.T
        loadings = S @ beta.T @ np.linalg.inv(second)
        assert_allclose(new.means[k], mean, rtol=1e-9, atol=1e-12)
        assert_allclose(new.loadings[k], loadings, rtol=1e-8, atol=1e-9)
        expected = np.maximum(np.diag(S - loadings @ beta @ S), 0.05)
        assert_allclose(new.noise_variances[k], expected, rtol=1e-8, atol=1e-10)


def clusters(n: int = 300) -> Any:
    family, params, _ = case(1, 2, 4, 1, seed=5)
    rng = np.random.RandomState(0)
    params = family.params(params.means * [[2], [-1]], params.loadings, params.noise_variances + 0.3)
    rows = np.concatenate([family.sample(params, k, n // 2, rng) for k in range(2)])
    return MixtureParams(np.array([0.5, 0.5]), params), rows


MASKS = {
    "plain": {},
    "held means": {"means": np.array([True, False])},
    "held loadings": {"loadings": np.array([False, True])},
    "held noise": {"noise_variances": np.array([True, False])},
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, held in MASKS.items()
        for check in model_checks(lvm.Mixture(FactorGaussian(1, 1e-3, held)), *clusters())
    ],
)
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("name", list(MASKS)[1:])
def test_what_is_held_stays(name: str) -> None:
    params, X = clusters()
    held = MASKS[name]
    model, free = lvm.Mixture(FactorGaussian(1, 1e-3, held)), lvm.Mixture(FactorGaussian(1, 1e-3))
    fit = lvm.fit_em(model, X, params, max_iter=30)
    ((parameter, mask),) = held.items()
    now, before = (getattr(of.components, parameter) for of in (fit.params, params))
    assert_array_equal(now[mask], before[mask])
    assert not np.allclose(now[~mask], before[~mask])
    assert free.n_parameters(params) == 1 + 2 * (4 + 4 + 4)
    assert model.n_parameters(params) == free.n_parameters(params) - 4


def test_anderson_reaches_what_em_does() -> None:
    params, X = clusters()
    model = lvm.Mixture(FactorGaussian(1, 1e-3))
    slow = lvm.fit_em(model, X, params, tol=1e-12, max_iter=20_000)
    quick = lvm.fit_anderson(model, X, params, tol=1e-12, max_iter=20_000)
    assert quick.loglik == pytest.approx(slow.loglik, abs=1e-6)
    assert quick.n_iter < slow.n_iter


def test_one_component_is_factor_analysis() -> None:
    rng = np.random.RandomState(0)
    X = rng.randn(500, 2) @ rng.randn(2, 8) + rng.randn(500, 8)
    mixture = lvm.MixtureOfFactorAnalyzers(1, n_factors=2, tol=1e-12, max_iter=20_000).fit(X)
    single = lvm.FactorAnalysis(2, tol=1e-12).fit(X)
    assert mixture.loglik_ == pytest.approx(single.loglik_, abs=1e-6)
    assert_allclose(mixture.covariances_[0], single.get_covariance(), atol=1e-4)
    assert mixture.n_parameters() == single.n_parameters()
    assert_allclose(mixture.score_samples(X), single.score_samples(X), atol=1e-3)


def test_planted_clusters_are_found() -> None:
    rng = np.random.RandomState(3)
    n, d, K, q = 1500, 40, 3, 2
    means, loadings = rng.randn(K, d), rng.randn(K, d, q)
    labels = rng.randint(0, K, n)
    X = means[labels] + (loadings[labels] @ rng.randn(n, q, 1))[:, :, 0] + 0.7 * rng.randn(n, d)
    model = lvm.MixtureOfFactorAnalyzers(K, n_factors=q, random_state=0).fit(X)
    assert adjusted_rand_score(labels, model.predict(X)) > 0.99
    order = [int(np.argmin(np.square(model.means_ - mean).sum(axis=1))) for mean in means]
    expected = loadings @ np.swapaxes(loadings, 1, 2) + 0.49 * np.eye(d)
    # 500 rows per component: standard errors of covariances are near sqrt(2 / 500) of 2.5, the mean of |error| less.
    assert np.abs(model.covariances_[order] - expected).mean() < 0.15
    assert model.n_parameters() == K - 1 + K * (2 * d + d * q - q * (q - 1) // 2)
    scores = model.factor_scores(X)
    k = int(model.predict(X[:1])[0])
    gain = model.loadings_[k].T @ np.linalg.inv(model.covariances_[k])
    assert_allclose(scores[0, k], gain @ (X[0] - model.means_[k]), rtol=1e-8)
    diagonal = model.loadings_[k].T / model.noise_variances_[k] @ model.loadings_[k]
    assert abs(diagonal[0, 1]) < 1e-9 * diagonal[0, 0]
    assert diagonal[0, 0] > diagonal[1, 1]


def test_saved_models_are_the_same(tmp_path: Path) -> None:
    X = clusters()[1]
    model = lvm.MixtureOfFactorAnalyzers(2, random_state=0, max_iter=5, tol=0.0).fit(X)
    lvm.save(model, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


# Thirty random rows of three columns have components without noise in a column: EM creeps there.
@pytest.mark.filterwarnings("ignore:Best performing initialization")
@parametrize_with_checks([lvm.MixtureOfFactorAnalyzers(1, random_state=0)])
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_factors": 4}, "n_factors=4 must be less than n_features = 4"),
        ({"n_factors": 0}, "n_factors must be an integer >= 1, got 0"),
        ({"min_noise_variance": 2.0}, "is a share of the variance and must be < 1, got 2.0"),
        ({"noise_variances_init": np.zeros((2, 4))}, "'noise_variances' should be positive, but got 0.0"),
        ({"loadings_init": np.zeros((2, 4, 2))}, r"'loadings' should have the shape of \(2, 4, 1\)"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.MixtureOfFactorAnalyzers(2, **arguments).fit(clusters()[1])


def test_gaussian_mixtures_say_where_factors_are() -> None:
    with pytest.raises(ValueError, match=r"covariance_type='factor' is .* MixtureOfFactorAnalyzers"):
        lvm.GaussianMixture(2, covariance_type="factor").fit(clusters()[1])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("means", np.inf, "means must be finite, got inf in component 1, feature 2"),
        ("noise_variances", 0.0, "noise_variances must be finite and > 0, got 0.0 in component 1, feature 2"),
        ("loadings", np.nan, "loadings must be finite, got nan in component 1, feature 2"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float, message: str) -> None:
    family, params, _ = case(1, 2, 4, 2)
    arrays = dict(zip(family.parameters, (array.copy() for array in params[:3]), strict=True))
    arrays[name][1, 2] = value
    with pytest.raises(ValueError, match=message):
        family.params(**arrays)
    with pytest.raises(ValueError, match=r"loadings should have the shape \(2, 4, 3\), got \(2, 4, 2\)"):
        FactorGaussian(3).params(*params[:3])


def test_noise_that_vanishes_is_degenerate() -> None:
    """Rows that coincide leave no noise: refused without a floor, and at the floor with one."""
    _, params, _ = case(1, 1, 3, 1)
    X, bounded, free = np.ones((5, 3)), lvm.Mixture(FactorGaussian(1, 0.01)), lvm.Mixture(FactorGaussian(1))
    start = MixtureParams(np.ones(1), params)
    fit = lvm.fit_em(bounded, X, start, max_iter=500)
    assert_allclose(fit.params.components.noise_variances[0], 0.01)
    fit = lvm.fit_em(free, X, start, max_iter=500)
    assert fit.status is lvm.Status.DEGENERATE
    stats = free.estep_stats(lvm.Rows(X), fit.params)
    with pytest.raises(DegenerateError, match=r"the noise variance of feature \d in component 0 is 0 to rounding"):
        free.mstep(stats, fit.params)
