"""Negative binomial components: densities up to the Poisson limit, and an M-step that climbs by a bound."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize
from scipy.special import psi

import lvm
from lvm.families import NegativeBinomial, Poisson
from lvm.families.counts import ExposedRows
from lvm.models.mixture import MixtureParams
from lvm.protocol import IncompleteRows
from lvm.testing import model_checks

Array = NDArray[np.float64]
MEANS = np.array([[2.0, 9.0], [8.0, 3.0]])
SIZES = np.array([[1.5, 6.0], [3.0, 0.8]])
FAMILY = NegativeBinomial()


def counts(n: int = 300, seed: int = 0, missing: float = 0.0) -> Array:
    rng = np.random.RandomState(seed)
    z = rng.randint(0, 2, n)
    X = rng.negative_binomial(SIZES[z], SIZES[z] / (SIZES[z] + MEANS[z])).astype(np.float64)
    X[rng.random_sample(X.shape) < missing] = np.nan
    return X


def density(means: Any, sizes: Any, X: Any) -> Array:
    params = FAMILY.params(np.array(means, np.float64), np.array(sizes, np.float64))
    out = np.zeros((len(params.means), len(X)))
    FAMILY.log_density(FAMILY.canonical(X), params, out)
    return out


def reference(means: Any, sizes: Any, X: Array) -> Array:
    """Return log densities (K, n) by scipy, without the missing cells."""
    pairs = zip(np.asarray(means), np.asarray(sizes), strict=True)
    return np.array([np.nansum(stats.nbinom.logpmf(X, r, r / (r + mean)), axis=1) for mean, r in pairs])


# ----- density ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("d", [1, 2])
def test_density_is_scipys(d: int, missing: float) -> None:
    X = counts(missing=missing)[:, :d]
    assert_allclose(density(MEANS[:, :d], SIZES[:, :d], X), reference(MEANS[:, :d], SIZES[:, :d], X), rtol=1e-11)


@pytest.mark.parametrize(
    ("mean", "size", "x"),
    [(3.0, 2.0, 5.0), (1e-8, 0.5, 1.0), (50.0, 1e-5, 0.0), (50.0, 1e-5, 7.0), (200.0, 7.9, 1500.0), (0.0, 2.0, 0.0)],
)
def test_density_of_one_count(mean: float, size: float, x: float) -> None:
    """To 1e-9: scipy takes p, and 1 - p keeps so many digits where the mean is small."""
    assert_allclose(density([[mean]], [[size]], np.array([[x]])), reference([[mean]], [[size]], [[x]]), rtol=1e-9)


def test_poisson_limit() -> None:
    """At the largest size it is Poisson's but for (mean - (x - mean)**2) / (2 size) and smaller terms."""
    X = np.arange(40.0)[:, None]
    mean = 11.0
    found = density([[mean]], [[1e8]], X)[0]
    expected = stats.poisson.logpmf(X[:, 0], mean) + ((X[:, 0] - mean) ** 2 - X[:, 0]) / 2e8
    assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_impossible_counts_and_rows_without_observations() -> None:
    X = np.array([[0.0, 3.0], [1.0, 3.0], [np.nan, np.nan]])
    found = density([[0.0, 2.0]], [[1.0, 2.0]], X)[0]
    assert_allclose(found[0], stats.nbinom.logpmf(3, 2, 0.5), rtol=1e-13)
    assert found[1] == -np.inf
    assert found[2] == 0.0


def test_rows_and_parameters_are_checked() -> None:
    assert isinstance(FAMILY.canonical(counts(missing=0.1)), IncompleteRows)
    with pytest.raises(ValueError, match=r"X must be counts >= 0 \(Negative values in data\); got -2 at row 1, col"):
        FAMILY.canonical(np.array([[0], [-2]]))
    with pytest.raises(ValueError, match=r"X must be whole counts; got 0\.5 at row 0, column 1"):
        FAMILY.canonical(np.array([[0, 0.5]]))
    with pytest.raises(TypeError, match="NegativeBinomial takes no exposures, got ExposedRows; give the counts alone"):
        FAMILY.canonical(ExposedRows(counts(), np.ones(300)))
    with pytest.raises(ValueError, match="means must be finite and >= 0, got -1 in component 1, feature 0"):
        FAMILY.params([[1.0], [-1.0]], [[1.0], [1.0]])
    for size in (0.0, 1e-7, 1e9, np.nan):
        words = re.escape(f"sizes must be between 1e-6 and 1e8, got {size:g} in component 0, feature 0.")
        with pytest.raises(ValueError, match=words):
            FAMILY.params([[1.0]], [[size]])
    with pytest.raises(ValueError, match=r"means have shape \(2, 1\), but sizes \(1, 1\); expected the same"):
        FAMILY.params([[1.0], [1.0]], [[1.0]])


# ----- M-step -------------------------------------------------------------------------------------------------------


def expected(X: Array, resp: Array, means: Array, sizes: Array) -> Array:
    """Return the expected log-likelihood of each component and feature, (K, d)."""
    logs = stats.nbinom.logpmf(X, sizes[:, None], (sizes / (sizes + means))[:, None])
    return np.einsum("kn,knd->kd", resp, np.where(np.isnan(X), 0.0, logs))


def bound(X: Array, resp: Array, means: Array, sizes: Array, at: Array) -> Array:
    """Return what the M-step maximises, (K, d): the tangent in log r at `at` in place of the gamma functions."""
    seen = ~np.isnan(X)
    slopes = np.einsum("kn,knd->kd", resp, np.where(seen, at[:, None] * (psi(X + at[:, None]) - psi(at)[:, None]), 0))
    weight, sums = resp @ seen, resp @ np.nan_to_num(X)
    return (
        slopes * np.log(sizes)
        + weight * sizes * np.log(sizes)
        + sums * np.log(means)
        - (weight * sizes + sums) * np.log(sizes + means)
    )


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("held", [(), ("means",), ("sizes",)])
def test_mstep_maximises_the_bound_and_raises_the_likelihood(held: tuple[str, ...], missing: float) -> None:
    """Given what is held in component 0; in each component and feature, from starts on either side."""
    X = counts(missing=missing)
    family = NegativeBinomial({name: np.array([True, False]) for name in held})
    resp = np.random.RandomState(2).dirichlet([1.0, 1.0], len(X)).T.copy()
    rng = np.random.RandomState(3)
    for start_size in (1e-4, 0.5, 4.0, 300.0, 1e6):
        start = family.params(MEANS * 1.4, np.full((2, 2), start_size))
        statistics = family.zero_stats(start)
        family.accumulate(family.canonical(X), resp, start, statistics)
        found = family.mstep(statistics, start)
        for name in ("means", "sizes"):
            stays = getattr(found, name)[0] == getattr(start, name)[0]
            assert np.all(stays == (name in held))
        before, after = (expected(X, resp, p.means, p.sizes) for p in (start, found))
        assert np.all(after >= before - 1e-10 * np.abs(before))
        best = bound(X, resp, found.means, found.sizes, start.sizes)
        for scale in (1e-3, 0.1, 2.0):
            means, sizes = (value * np.exp(scale * rng.randn(2, 2)) for value in (found.means, found.sizes))
            means[0] = found.means[0] if "means" in held else means[0]
            sizes[0] = found.sizes[0] if "sizes" in held else sizes[0]
            sizes = np.clip(sizes, 1e-6, 1e8)
            assert np.all(bound(X, resp, means, sizes, start.sizes) <= best + 1e-11 * np.abs(best))
        assert best.sum() > bound(X, resp, MEANS * 1.5, start.sizes, start.sizes).sum()


def test_held_means_far_from_the_data() -> None:
    """Where the derivative of the bound is not monotone, the one maximum is found all the same."""
    X, resp = counts(), np.ones((2, 300))
    family = NegativeBinomial({"means": np.array([True, True])})
    grid = np.exp(np.linspace(np.log(1e-6), np.log(1e8), 2001))
    for factor in (0.05, 30.0):
        for size in (0.01, 2.0, 1e4):
            start = family.params(MEANS * factor, np.full((2, 2), size))
            statistics = family.zero_stats(start)
            family.accumulate(family.canonical(X), resp, start, statistics)
            best = bound(X, resp, start.means, family.mstep(statistics, start).sizes, start.sizes)
            values = [bound(X, resp, start.means, np.full((2, 2), r), start.sizes) for r in grid]
            assert np.all(best >= np.max(values, axis=0) - 1e-9 * np.abs(best))


def test_dead_components_and_unknown_columns_stay() -> None:
    X = counts()
    X[:, 1] = np.nan
    start = FAMILY.params(MEANS, SIZES)
    statistics = FAMILY.zero_stats(start)
    FAMILY.accumulate(FAMILY.canonical(X), np.outer([1.0, 0.0], np.ones(300)), start, statistics)
    found = FAMILY.mstep(statistics, start)
    assert_allclose(found.means[0, 0], X[:, 0].mean())
    assert found.sizes[0, 0] != SIZES[0, 0]
    for new, old in ((found.means, MEANS), (found.sizes, SIZES)):
        assert_array_equal(new[1], old[1])
        assert_array_equal(new[0, 1], old[0, 1])


def test_counts_of_zero_alone() -> None:
    """The mean becomes 0; the size, which no longer matters, stays."""
    start = FAMILY.params([[2.0]], [[3.0]])
    statistics = FAMILY.zero_stats(start)
    FAMILY.accumulate(FAMILY.canonical(np.zeros((10, 1))), np.ones((1, 10)), start, statistics)
    found = FAMILY.mstep(statistics, start)
    assert found.means[0, 0] == 0.0
    assert_allclose(found.sizes, 3.0, rtol=1e-15)  # exp(log 3)


def test_start_is_by_the_method_of_moments() -> None:
    X, weight = counts(40_000, missing=0.2), np.random.RandomState(1).uniform(0.2, 2.0, 40_000)
    start = FAMILY.start(FAMILY.canonical(X), weight, 2)
    seen = weight[:, None] * ~np.isnan(X)
    mean = np.nansum(seen * X, axis=0) / seen.sum(axis=0)
    variance = np.nansum(seen * (X - mean) ** 2, axis=0) / seen.sum(axis=0)
    assert_allclose(start.means, [mean] * 2, rtol=1e-12)
    assert_allclose(start.sizes, [mean**2 / (variance - mean)] * 2, rtol=1e-10)
    edges = np.array([[1.0, 0.0], [1.0, 400.0], [1.0, 0.0]])
    assert_allclose(FAMILY.start(edges, np.ones(3), 1).sizes[0], [100.0, 0.5], rtol=0.01)


def test_coordinates_come_back() -> None:
    family = NegativeBinomial({"sizes": np.array([True, False])})
    params = family.params(MEANS, SIZES)
    vector = family.to_vector(params, params)
    assert_allclose(vector[:4], (MEANS / MEANS.mean(axis=0)).ravel())
    back = family.from_vector(vector, params)
    assert_allclose(back.means, MEANS, rtol=1e-15)
    assert_allclose(back.sizes, SIZES, rtol=1e-15)
    assert_array_equal(back.sizes[0], SIZES[0])
    far = family.from_vector(np.array([-1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 700.0, -700.0]), params)
    assert_allclose(far.means[0, 0], 1e-10 * MEANS[:, 0].mean())
    assert_array_equal(far.sizes[1], [1e8, 1e-6])
    assert family.n_parameters(params) == 6
    assert repr(family) == "NegativeBinomial()"


def test_fill_writes_posterior_means() -> None:
    X = counts(missing=0.3)
    model = lvm.Mixture(FAMILY)
    params = MixtureParams(np.array([0.3, 0.7]), FAMILY.params(MEANS, SIZES))
    out = X.copy()
    model.impute(model.canonical(lvm.Rows(X)), params, out)
    joint = np.log([[0.3], [0.7]]) + reference(MEANS, SIZES, X)
    resp = np.exp(joint - np.logaddexp(*joint))
    assert_allclose(out, np.where(np.isnan(X), resp.T @ MEANS, X), rtol=1e-9)


# ----- fits ---------------------------------------------------------------------------------------------------------

CASES = {
    "plain": (NegativeBinomial(), counts()),
    "missing": (NegativeBinomial(), counts(missing=0.15)),
    "means held": (NegativeBinomial({"means": np.array([True, False])}), counts()),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, (family, X) in CASES.items()
        for check in model_checks(
            lvm.Mixture(family), MixtureParams(np.array([0.4, 0.6]), family.params(MEANS, SIZES * 1.3)), lvm.Rows(X)
        )
    ],
)
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("size", [0.01, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("name", CASES)
def test_objective_never_falls(name: str, size: float) -> None:
    family, X = CASES[name]
    start = MixtureParams(np.array([0.4, 0.6]), family.params(MEANS * [[3.0], [0.1]], np.full((2, 2), size)))
    trace = lvm.fit_em(lvm.Mixture(family), lvm.Rows(X), start, tol=0.0, max_iter=100).objective_trace
    assert np.diff(trace).min() > -1e-9  # rounding of sums of some 1,000
    assert trace[-1] > trace[0] + 1


@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_no_optimiser_finds_better(missing: float) -> None:
    """From the end of EM, BFGS on the log-likelihood by scipy gains nothing; from before, it does."""
    X = counts(missing=missing)
    model = lvm.Mixture(FAMILY)
    start = MixtureParams(np.array([0.5, 0.5]), FAMILY.params(MEANS * 1.5, np.full((2, 2), 2.0)))
    end = lvm.fit_em(model, lvm.Rows(X), start, tol=1e-14, max_iter=20_000)
    assert end.converged

    def minus_loglik(vector: Array) -> float:
        weight = 1 / (1 + np.exp(-vector[0]))
        means, sizes = np.exp(vector[1:5]).reshape(2, 2), np.exp(vector[5:]).reshape(2, 2)
        return -float(np.logaddexp(*(np.log([[weight], [1 - weight]]) + reference(means, sizes, X))).sum())

    def gain(params: Any) -> float:
        p, (w, v) = params.components, params.weights
        vector = np.concatenate([[np.log(w / v)], np.log(p.means).ravel(), np.log(p.sizes).ravel()])
        return minus_loglik(vector) - float(minimize(minus_loglik, vector, method="BFGS").fun)

    assert gain(end.params) < 1e-6
    early = lvm.fit_em(model, lvm.Rows(X), start, tol=0.0, max_iter=3)
    assert gain(early.params) > 1e-3


def test_acceleration_reaches_the_same_optimum() -> None:
    X = counts(2000)
    model = lvm.Mixture(FAMILY)
    start = MixtureParams(np.array([0.5, 0.5]), FAMILY.params(MEANS * 1.5, np.full((2, 2), 2.0)))
    plain = lvm.fit_em(model, lvm.Rows(X), start, tol=1e-12, max_iter=20_000)
    fast = lvm.fit_anderson(model, lvm.Rows(X), start, tol=1e-12)
    assert abs(fast.loglik - plain.loglik) < 1e-6
    assert 2 * fast.n_iter < plain.n_iter


def test_counts_without_excess_end_as_poisson() -> None:
    """Counts that vary less than Poisson's drive the size to its bound, and the log-likelihood to that of Poisson."""
    X = np.random.RandomState(0).binomial(10, 0.5, (500, 1)).astype(np.float64)
    model = lvm.Mixture(FAMILY)
    start = MixtureParams(np.ones(1), FAMILY.params([[3.0]], [[5.0]]))
    end = lvm.fit_em(model, lvm.Rows(X), start, tol=0.0, max_iter=300)
    assert end.params.components.sizes[0, 0] > 1e7
    poisson = stats.poisson.logpmf(X, X.mean()).sum()
    assert_allclose(end.loglik, poisson + ((X - X.mean()) ** 2 - X).sum() / 2e8, rtol=0, atol=1e-7)
    limit = lvm.fit_em(lvm.Mixture(Poisson()), X, MixtureParams(np.ones(1), Poisson().params([[3.0]])), tol=1e-12)
    assert_allclose(limit.loglik, poisson, rtol=1e-13)


def test_draws_follow_the_density_at_the_bounds() -> None:
    """At sizes where 1 - p keeps no digits: mean and variance within five standard errors, against Poisson's."""
    params = FAMILY.params([[7.0, 2.0]], [[1e8, 0.05]])
    X = FAMILY.sample(params, 0, 40_000, np.random.RandomState(0))
    assert X.dtype == np.int64
    assert abs(X[:, 0].mean() - 7) < 5 * np.sqrt(7 / 40_000)
    assert abs(X[:, 0].var() - 7) < 5 * np.sqrt((7 + 2 * 49) / 40_000)
    assert abs(X[:, 1].mean() - 2) < 5 * np.sqrt((2 + 4 / 0.05) / 40_000)
    assert abs((X[:, 1] == 0).mean() - (0.05 / 2.05) ** 0.05) < 5 * 0.5 / 200
