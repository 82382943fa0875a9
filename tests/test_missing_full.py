"""Missing cells of Gaussian components with full covariances: maximum likelihood of what is observed.

The slow reference works row by row with the textbook's formulas (Little & Rubin, 2002, section 11.2). Both solve
systems whose condition is below 1e4, so that they agree to about 1e-11 of the largest term.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from conformance import each_check
from missing_cells import NAN, with_holes
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import dblquad, quad
from scipy.stats import multivariate_normal

import lvm
from lvm.execution import Execution
from lvm.families import FullGaussian, TiedGaussian
from lvm.kernels.patterns import PatternedRows, patterned_rows
from lvm.models.mixture import MixtureParams
from lvm.protocol import slice_rows

FAMILIES = {"full": FullGaussian, "tied": TiedGaussian}
families = pytest.mark.parametrize("name", FAMILIES)
shapes = pytest.mark.parametrize(
    ("n", "d", "K"), [(1, 1, 1), (1, 4, 2), (7, 2, 3), (300, 1, 2), (300, 5, 9), (600, 9, 2)]
)


def data(n: int = 300, d: int = 3, seed: int = 0) -> Any:
    """Return complete correlated rows of two groups."""
    rng = np.random.RandomState(seed)
    return rng.normal(size=(n, d)) @ (np.eye(d) + 0.5) * np.linspace(1, 2, d) + 3 * rng.randint(0, 2, (n, 1)) + 5.0


def parameters(name: str, K: int, d: int, seed: int = 1) -> Any:
    rng = np.random.RandomState(seed)
    factors = rng.normal(size=(K if name == "full" else 1, d, d)) + 2 * np.eye(d)
    covariances = factors @ np.swapaxes(factors, 1, 2) + 0.1 * np.eye(d)
    return FAMILIES[name]().params(rng.normal(size=(K, d)) + 6.0, covariances)


def densities(family: Any, X: Any, params: Any) -> Any:
    out = np.zeros((len(params.means), len(X)))
    family.log_density(family.canonical(X), params, out)
    return out


def conditional(x: Any, mean: Any, covariance: Any) -> tuple[Any, Any]:
    """Return the mean and the covariance of a row given what is observed of it, (d,) and (d, d)."""
    missing = np.isnan(x)
    seen = ~missing
    regression = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, missing)]).T
    completed, spread = x.copy(), np.zeros_like(covariance)
    completed[missing] = mean[missing] + regression @ (x - mean)[seen]
    spread[np.ix_(missing, missing)] = (
        covariance[np.ix_(missing, missing)] - regression @ covariance[np.ix_(seen, missing)]
    )
    return completed, spread


def slow(X: Any, resp: Any, params: Any) -> tuple[Any, ...]:
    """Return log densities, counts, first and second moments (K, d, d), and filled rows, row by row."""
    (n, d), K = X.shape, len(params.means)
    density, first, second, filled = np.zeros((K, n)), np.zeros((K, d)), np.zeros((K, d, d)), np.zeros((n, d))
    for k, mean in enumerate(params.means):
        covariance = params.covariances[min(k, len(params.covariances) - 1)]
        for i, x in enumerate(X):
            seen = ~np.isnan(x)
            if seen.any():
                density[k, i] = multivariate_normal.logpdf(x[seen], mean[seen], covariance[np.ix_(seen, seen)])
            completed, spread = conditional(x, mean, covariance)
            z = completed - mean
            first[k] += resp[k, i] * z
            second[k] += resp[k, i] * (np.outer(z, z) + spread)
            filled[i] += resp[k, i] * completed
    return density, resp.sum(axis=1), first, second, filled


def responsibilities(n: int, K: int, seed: int = 2) -> Any:
    """Return responsibilities (K, n), most of them 0 in every other component."""
    rng = np.random.RandomState(seed)
    resp = rng.uniform(size=(K, n))
    resp[1::2] *= rng.uniform(size=resp[1::2].shape) < 0.2
    resp[0, -1] += 0.5
    return np.ascontiguousarray(resp / resp.sum(axis=0))


def agree(found: Any, expected: Any) -> None:
    assert_allclose(found, expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max(initial=1.0))


# ----- rows -----------------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_keep_their_patterns(name: str, dtype: Any) -> None:
    X = with_holes(data(), 0.4).astype(dtype)
    family = FAMILIES[name](dtype=dtype)
    rows = family.canonical(X)
    assert isinstance(rows, PatternedRows)
    assert rows.X.dtype == np.float64
    assert_array_equal(rows.X, X)
    assert len(rows.features) == len(np.unique(np.isnan(X), axis=0)) == 8
    for part in (rows, rows[10:200], rows.take(np.array([5, 0, 1, 5]))):
        assert part.features is rows.features
        for x, q in zip(part.X, part.pattern, strict=True):
            assert_array_equal(part.features[q, : part.n_missing[q]], np.flatnonzero(np.isnan(x)))
            assert_array_equal(part.features[q, part.n_missing[q] :], np.flatnonzero(~np.isnan(x)))
    assert_array_equal(rows.take(np.array([5, 0, 1, 5])).X, X[[5, 0, 1, 5]])
    assert family.canonical(rows) is rows
    assert isinstance(family.canonical(data().astype(dtype)), np.ndarray)


@pytest.mark.parametrize("d", [1, 16, 17, 40, 130])
def test_patterns_of_many_features(d: int) -> None:
    X = with_holes(np.zeros((50, d)), 0.5)
    X[40:] = X[:10]
    rows = patterned_rows(X)
    _, expected = np.unique(np.isnan(X), axis=0, return_inverse=True)
    same = np.equal.outer(rows.pattern, rows.pattern)
    assert_array_equal(same, np.equal.outer(expected.ravel(), expected.ravel()))


@families
def test_infinities_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Input X contains infinity at row 1, column 0"):
        FAMILIES[name]().canonical([[0.0, NAN], [np.inf, 1.0]])


@families
def test_start_takes_observed_cells(name: str) -> None:
    X, weight = with_holes(data(), 0.4), np.random.RandomState(0).uniform(size=300)
    params = FAMILIES[name](reg_covar=0.25).start(X, weight, 2)
    w = weight[:, None] * ~np.isnan(X)
    mean = np.nansum(w * X, axis=0) / w.sum(axis=0)
    variance = np.nansum(w * (X - mean) ** 2, axis=0) / w.sum(axis=0)
    assert_allclose(params.means, [mean, mean], rtol=1e-13)
    for covariance in params.covariances:
        assert_allclose(covariance, np.diag(variance + 0.25), rtol=1e-13)


@families
def test_empty_columns_are_named(name: str) -> None:
    X = data()
    X[:, 1] = NAN
    with pytest.raises(ValueError, match="column 1 of X has no observed value"):
        FAMILIES[name]().start(X, np.ones(len(X)), 2)


# ----- densities, statistics and fillings --------------------------------------------------------------------------


@families
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
@shapes
def test_against_the_slow_reference(name: str, n: int, d: int, K: int, share: float) -> None:
    X, family, params = with_holes(data(n, d), share), FAMILIES[name](), parameters(name, K, d)
    if n == 1:
        X[0, 0] = NAN
    resp = responsibilities(n, K)
    density, counts, first, second, filled = slow(X, resp, params)
    rows = family.canonical(X)
    agree(densities(family, X, params), density)
    assert_array_equal(densities(family, X, params)[:, np.isnan(X).all(axis=1)], 0.0)
    stats = family.zero_stats(params)
    family.accumulate(rows, resp, params, stats)
    agree(stats.counts, counts)
    agree(stats.first, first)
    agree(np.tril(stats.second), np.tril(second if name == "full" else second.sum(axis=0, keepdims=True)))
    out = X.copy()
    family.fill(rows, resp, params, out)
    agree(out, np.where(np.isnan(X), filled, X))


@families
@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (0.0, 1e-150), (0.0, 1e150)])
def test_far_from_one(name: str, offset: float, scale: float) -> None:
    """A shift or a change of units moves the densities by a constant; a shift rounds each cell to 1e-8."""
    X, family, params = with_holes(data(), 0.4), FAMILIES[name](), parameters(name, 2, 3)
    moved = family.params(params.means * scale + offset, params.covariances * scale**2)
    X = (X * scale + offset - offset) / scale
    n_observed = (~np.isnan(X)).sum(axis=1)
    found = densities(family, X * scale + offset, moved) + n_observed * np.log(scale)
    assert_allclose(found, densities(family, X, params), rtol=1e-6 if offset else 1e-11)


@families
def test_complete_rows_in_this_form(name: str) -> None:
    X, family, params = data(700, 6), FAMILIES[name](), parameters(name, 3, 6)
    resp, rows = responsibilities(700, 3), patterned_rows(X)
    out = np.zeros((3, 700))
    family.log_density(rows, params, out)
    assert_allclose(out, densities(family, X, params), rtol=1e-12)
    stats, ordinary = family.zero_stats(params), family.zero_stats(params)
    family.accumulate(rows, resp, params, stats)
    family.accumulate(family.canonical(X), resp, params, ordinary)
    for one, other in zip(stats, ordinary, strict=True):
        one, other = (np.tril(each) if each.ndim == 3 else each for each in (one, other))
        assert_allclose(one, other, rtol=1e-12, atol=1e-12 * np.abs(other).max())


@families
def test_density_is_an_integral(name: str) -> None:
    family, params = FAMILIES[name](), parameters(name, 2, 3)

    def joint(*x: float) -> Any:
        return np.exp(densities(family, np.array([x]), params)[:, 0])

    one = np.exp(densities(family, np.array([[5.0, NAN, 6.5]]), params)[:, 0])
    two = np.exp(densities(family, np.array([[NAN, 7.0, NAN]]), params)[:, 0])
    for k in range(2):
        assert_allclose(one[k], quad(lambda x, k=k: joint(5.0, x, 6.5)[k], -30, 40)[0], rtol=1e-7)
        integral = dblquad(lambda y, x, k=k: joint(x, 7.0, y)[k], -25, 35, -25, 35, epsabs=1e-9, epsrel=1e-7)[0]
        assert_allclose(two[k], integral, rtol=1e-5)


@families
def test_nearly_collinear_features(name: str) -> None:
    """Where the condition is about 1e10, densities keep five digits, whichever way features are eliminated."""
    covariance = np.array([[1.0, 1.0, 0.3], [1.0, 1.0 + 1e-10, 0.3], [0.3, 0.3, 2.0]])
    params = FAMILIES[name]().params(np.zeros((1, 3)), covariance[None])
    X = np.array([[1.0, NAN, 0.5], [NAN, 1.0, 0.5], [1.0, 1.0 + 1e-5, NAN], [1.0, NAN, NAN], [NAN, NAN, 1.0]])
    expected = [
        multivariate_normal.logpdf([1.0, 0.5], cov=covariance[np.ix_([0, 2], [0, 2])]),
        multivariate_normal.logpdf([1.0, 0.5], cov=covariance[np.ix_([1, 2], [1, 2])]),
        # x_1 - x_0 is 1e-5 times a standard normal variable that is independent of x_0.
        multivariate_normal.logpdf(1.0) + multivariate_normal.logpdf(1.0) - np.log(1e-5),
        multivariate_normal.logpdf(1.0),
        multivariate_normal.logpdf(1.0, cov=2.0),
    ]
    assert_allclose(densities(FAMILIES[name](), X, params)[0], expected, rtol=1e-5)


# ----- EM -------------------------------------------------------------------------------------------------------------


def case(name: str, weighted: bool, **arguments: Any) -> tuple[Any, Any, Any]:
    X = with_holes(data(220), 0.25)
    rng = np.random.RandomState(1)
    weight = rng.uniform(0.2, 2.0, len(X)) if weighted else None
    labels = np.where(np.arange(len(X)) % 7 == 0, rng.randint(0, 2, len(X)), -1) if weighted else None
    model = lvm.Mixture(FAMILIES[name](**arguments))
    params = parameters(name, 2, 3)
    return model, MixtureParams(np.array([0.4, 0.6]), params), lvm.Rows(X, weight, labels)


MODELS = {
    "full": case("full", weighted=False),
    "full regularised": case("full", weighted=True, reg_covar=0.3),
    "tied": case("tied", weighted=True),
    "tied regularised": case("tied", weighted=False, reg_covar=0.3),
}


@each_check(MODELS)
def test_conformance(check: Any) -> None:
    check()


@families
@pytest.mark.parametrize("reg_covar", [0.0, 0.5, 50.0])
def test_objective_climbs(name: str, reg_covar: float) -> None:
    """With 40 % of the cells missing, and a penalty that may exceed every variance."""
    model = lvm.Mixture(FAMILIES[name](reg_covar=reg_covar))
    params = MixtureParams(np.array([0.5, 0.5]), parameters(name, 2, 4))
    trace = lvm.fit_em(model, lvm.Rows(with_holes(data(200, 4), 0.4)), params, tol=0, max_iter=60).objective_trace
    assert np.diff(trace).min() > -1e-11 * abs(trace[0])
    assert trace[-1] - trace[0] > 10


@families
def test_stationary_point_of_the_penalised_likelihood(name: str) -> None:
    """At the end of EM no change of a parameter raises loglik + penalty, with the penalty of whole rows."""
    reg = 0.5
    family = FAMILIES[name](reg_covar=reg)
    X = with_holes(data(120, 2), 0.4)
    model = lvm.Mixture(family)
    start = MixtureParams(np.ones(1), parameters(name, 1, 2))
    end = lvm.fit_em(model, lvm.Rows(X), start, tol=1e-14, max_iter=5000).params.components

    def objective(params: Any) -> float:
        penalty = reg / 2 * len(X) * np.trace(np.linalg.inv(params.covariances[0]))
        return float(densities(family, X, params).sum() - penalty)

    rng = np.random.RandomState(0)
    best = objective(end)
    for _ in range(30):
        step = rng.normal(size=(2, 2)) * 1e-3
        other = family.params(end.means + rng.normal(size=2) * 1e-3, end.covariances + step + step.T)
        assert objective(other) < best


@families
def test_parts_add_up_and_threads_agree(name: str) -> None:
    X = with_holes(data(40_000, 4), 0.3)
    model = lvm.Mixture(FAMILIES[name]())
    params = MixtureParams(np.full(3, 1 / 3), parameters(name, 3, 4))
    rows = model.canonical(lvm.Rows(X))
    found = []
    for n_jobs in (1, 2):
        with Execution(model, rows, n_jobs=n_jobs) as execution:
            found.append(execution.estep_stats(params))
    assert pickle.dumps(found[0]) == pickle.dumps(found[1])
    whole = model.estep_stats(rows, params)
    parts = [model.estep_stats(slice_rows(rows, part), params) for part in (slice(0, 9), slice(9, 40_000))]
    alone = [model.estep_stats(lvm.Rows(X[part]), params) for part in (slice(0, 9), slice(9, 40_000))]
    for one, two in (parts, alone):
        assert_allclose(one.loglik + two.loglik, whole.loglik, rtol=1e-12)
        assert_allclose(
            one.components.second + two.components.second,
            whole.components.second,
            atol=1e-11 * np.abs(whole.components.second).max(),
        )


def test_rows_survive_threads_and_pickling() -> None:
    family, params = FullGaussian(), parameters("full", 2, 3)
    rows = family.canonical(with_holes(data(), 0.4))
    again = pickle.loads(pickle.dumps(rows))
    expected = densities(family, rows.X, params)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda part: densities(family, part, params), [rows, again] * 4):
            assert_array_equal(found, expected)


@families
def test_held_means_and_covariances(name: str) -> None:
    """What is held stays, and the rest is the maximum given it."""
    X = with_holes(data(), 0.3)
    params = MixtureParams(np.array([0.4, 0.6]), parameters(name, 2, 3))
    means = np.array([True, False])
    model = lvm.Mixture(FAMILIES[name](held={"means": means}))
    result = lvm.fit_em(model, lvm.Rows(X), params, tol=0, max_iter=20)
    assert_array_equal(result.params.components.means[0], params.components.means[0])
    assert np.abs(result.params.components.means[1] - params.components.means[1]).min() > 0.01
    assert np.diff(result.objective_trace).min() > -1e-9


# ----- draws ----------------------------------------------------------------------------------------------------------


@families
def test_draws_have_the_conditional_moments(name: str) -> None:
    """Mean and covariance of 40,000 draws of one row lie within five standard errors."""
    n, x = 40_000, np.array([5.0, NAN, 6.5, NAN])
    family, params = FAMILIES[name](), parameters(name, 2, 4)
    X = np.repeat(x[None], n, axis=0)
    resp = np.repeat([[0.3], [0.7]], n, axis=1)
    out = X.copy()
    family.draw_missing(family.canonical(X), resp, params, np.random.RandomState(0), out)
    assert_array_equal(out[:, [0, 2]], X[:, [0, 2]])
    each = [conditional(x, params.means[k], params.covariances[min(k, len(params.covariances) - 1)]) for k in range(2)]
    mean = 0.3 * each[0][0] + 0.7 * each[1][0]
    spread = sum(
        share * (cov + np.outer(centre - mean, centre - mean))
        for share, (centre, cov) in zip((0.3, 0.7), each, strict=True)
    )
    z = out - mean
    errors = np.sqrt(np.diag(spread) / n)
    assert np.all(np.abs(z.mean(axis=0)) <= 5 * errors + 1e-12)
    products = z[:, [1, 1, 3]] * z[:, [1, 3, 3]]
    expected = spread[[1, 1, 3], [1, 3, 3]]
    assert np.all(np.abs(products.mean(axis=0) - expected) <= 5 * products.std(axis=0) / np.sqrt(n))
    assert np.all(np.abs(each[0][0] - each[1][0])[[1, 3]] > 20 * errors[[1, 3]])  # the draws could tell them apart


def test_draws_leave_complete_rows() -> None:
    family, params = FullGaussian(), parameters("full", 2, 3)
    X = data()
    out = X.copy()
    family.draw_missing(family.canonical(X), responsibilities(300, 2), params, np.random.RandomState(0), out)
    assert_array_equal(out, X)
