"""Exponential components: density, M-step, prior, missing cells, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import expon

import lvm
from lvm.families import Exponential
from lvm.models.mixture import MixtureParams
from lvm.protocol import DegenerateError, IncompleteRows
from lvm.testing import model_checks

SCALES = np.array([[1.0, 5.0, 0.2], [4.0, 1.0, 2.0]])
WEIGHTS = np.array([0.4, 0.6])


def draw(n: int = 300, share_missing: float = 0.0, seed: int = 0) -> Any:
    rng = np.random.RandomState(seed)
    X = rng.exponential(SCALES[rng.randint(2, size=n)])
    X[rng.random_sample(X.shape) < share_missing] = np.nan
    return X


def log_density(family: Any, X: Any, params: Any) -> Any:
    rows = family.canonical(X)
    out = np.zeros((len(params[0]), len(rows)))
    family.log_density(rows, params, out)
    return out


def statistics(family: Any, X: Any, resp: Any, params: Any) -> Any:
    stats = family.zero_stats(params)
    family.accumulate(family.canonical(X), np.ascontiguousarray(resp), params, stats)
    return stats


def brute_density(X: Any, scales: Any) -> Any:
    """Sum the log densities of the observed cells, by scipy."""
    return np.array([np.nansum(expon.logpdf(X, scale=row), axis=1) for row in scales])


CASES = {
    "plain": (Exponential(), draw()),
    "prior": (Exponential(rates_prior=(2.5, 1.5)), draw()),
    "missing": (Exponential(), draw(share_missing=0.2)),
    "missing and prior": (Exponential(rates_prior=(1.5, 0.3)), draw(share_missing=0.2)),
    "held": (Exponential(held={"scales": np.array([True, False])}), draw()),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, (family, X) in CASES.items()
        for check in model_checks(
            lvm.Mixture(family), MixtureParams(WEIGHTS, family.params(SCALES * [[1.2], [0.9]])), lvm.Rows(X)
        )
    ],
)
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3), (300, 2, 3), (515, 9, 17)])
@pytest.mark.parametrize("unit", [1e-150, 1.0, 1e150])
def test_density_against_scipy(shape: tuple[int, int, int], unit: float) -> None:
    n, K, d = shape
    rng = np.random.RandomState(1)
    X, scales = rng.exponential(unit, (n, d)), rng.uniform(0.2, 5.0, (K, d)) * unit
    X[0, 0] = 0.0
    family = Exponential()
    expected = brute_density(X, scales)
    # Sums of d terms in another order.
    assert_allclose(log_density(family, X, family.params(scales)), expected, rtol=1e-13, atol=1e-11)
    X[rng.random_sample(X.shape) < 0.3] = np.nan
    X[0] = np.nan
    incomplete = log_density(family, X, family.params(scales))
    assert_allclose(incomplete, brute_density(X, scales), rtol=1e-13, atol=1e-11)
    assert_array_equal(incomplete[:, 0], 0.0)


def test_a_far_value_is_impossible_rather_than_nan() -> None:
    family = Exponential()
    params = family.params(np.array([[1e-300], [1.0]]))
    for X in (np.array([[1e300], [0.0]]), np.array([[1e300], [0.0], [np.nan]])):
        found = log_density(family, X, params)
        assert found[0, 0] == -np.inf
        assert found[1, 0] == -1e300
        assert_allclose(found[0, 1], 300 * np.log(10))


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_statistics_and_mstep_against_numpy(share_missing: float) -> None:
    X = draw(700, share_missing)
    resp = np.random.RandomState(2).dirichlet(np.ones(2), 700).T * np.linspace(0.0, 2.0, 700)
    family = Exponential(rates_prior=(3.0, 2.0))
    params = family.params(SCALES)
    stats = statistics(family, X, resp, params)
    weight, sums = resp @ ~np.isnan(X), resp @ np.nan_to_num(X)
    assert_allclose(stats.counts[:, None] + stats.observed, weight, rtol=1e-12)
    assert_allclose(stats.sums, sums, rtol=1e-12)
    assert_allclose(family.mstep(stats, params).scales, (sums + 2.0) / (weight + 2.0), rtol=1e-12)
    assert_allclose(Exponential().mstep(stats, params).scales, sums / weight, rtol=1e-12)


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
@pytest.mark.parametrize("prior", [None, (2.0, 3.0)])
def test_mstep_is_a_maximiser(prior: Any, share_missing: float) -> None:
    X = draw(200, share_missing)
    resp = np.random.RandomState(3).dirichlet(np.ones(2), 200).T
    family = Exponential(prior)
    start = family.params(SCALES)

    def objective(scales: Any) -> float:
        params = family.params(scales)
        return float(np.sum(resp * brute_density(X, scales))) + family.log_prior(params)

    best = family.mstep(statistics(family, X, resp, start), start).scales
    top = objective(best)
    for k, j in np.ndindex(best.shape):
        for factor in (0.99, 1.01):
            other = best.copy()
            other[k, j] *= factor
            assert objective(other) < top


def test_prior_is_that_of_the_rates() -> None:
    """Up to a constant, the log density of Gamma(a, rate b) at 1 / scale."""
    from scipy.stats import gamma

    family = Exponential(rates_prior=(2.5, 1.5))
    one, two = family.params(SCALES), family.params(3 * SCALES)
    expected = [gamma.logpdf(1 / p.scales, 2.5, scale=1 / 1.5).sum() for p in (one, two)]
    assert_allclose(family.log_prior(one) - family.log_prior(two), expected[0] - expected[1], rtol=1e-12)
    assert Exponential().log_prior(one) == 0.0


def test_held_scales_stay() -> None:
    X = draw()
    family = Exponential(held={"scales": np.array([False, True])})
    params = family.params(SCALES)
    stats = statistics(family, X, np.full((2, len(X)), 0.5), params)
    new = family.mstep(stats, params)
    assert_array_equal(new.scales[1], SCALES[1])
    assert_allclose(new.scales[0], X.mean(axis=0), rtol=1e-12)
    assert family.n_parameters(params) == 3
    assert Exponential().n_parameters(params) == 6


def test_dead_components_and_unseen_features_keep_their_scales() -> None:
    X = draw(50)
    X[:, 1] = np.nan
    resp = np.zeros((2, 50))
    resp[0] = 1.0
    family = Exponential()
    params = family.params(SCALES)
    new = family.mstep(statistics(family, X, resp, params), params).scales
    assert_array_equal(new[1], SCALES[1])
    assert new[0, 1] == SCALES[0, 1]
    assert_allclose(new[0, [0, 2]], np.nanmean(X[:, [0, 2]], axis=0), rtol=1e-12)


def test_zeros_alone_are_degenerate() -> None:
    X = np.array([[1.0, 0.0], [2.0, 0.0]])
    family = Exponential()
    params = family.start(family.canonical(X), np.ones(2), 1)
    stats = statistics(family, X, np.ones((1, 2)), params)
    with pytest.raises(DegenerateError, match="the scale of component 0, feature 1 is 0: so is X in all of its rows"):
        family.mstep(stats, params)
    assert_allclose(Exponential((1.0, 0.5)).mstep(stats, params).scales, [[1.75, 0.25]])


def test_start_has_the_means() -> None:
    X, weight = draw(40, 0.2), np.linspace(0.0, 1.0, 40)
    X[:, 2] = np.nan
    params = Exponential().start(Exponential().canonical(X), weight, 3)
    seen = ~np.isnan(X[:, :2])
    means = (weight @ np.nan_to_num(X[:, :2])) / (weight @ seen)
    assert_allclose(params.scales, np.tile([*means, 1.0], (3, 1)), rtol=1e-12)


def test_fill_writes_posterior_means() -> None:
    X = draw(30, 0.3)
    resp = np.random.RandomState(0).dirichlet(np.ones(2), 30).T.copy()
    family = Exponential()
    out = X.copy()
    family.fill(family.canonical(X), resp, family.params(SCALES), out)
    missing = np.isnan(X)
    assert_array_equal(out[~missing], X[~missing])
    assert_allclose(out[missing], (resp.T @ SCALES)[missing], rtol=1e-14)


def test_coordinates_invert_and_have_no_unit() -> None:
    family = Exponential()
    origin, params = family.params(SCALES), family.params(SCALES**2)
    vector = family.to_vector(params, origin)
    assert_allclose(family.from_vector(vector, origin).scales, params.scales, rtol=1e-14)
    other = family.to_vector(family.params(1e6 * params.scales), family.params(1e6 * SCALES))
    assert_allclose(other, vector, atol=1e-14)


def test_canonical_keeps_complete_rows_dense() -> None:
    family = Exponential()
    assert isinstance(family.canonical(draw(20)), np.ndarray)
    rows = family.canonical(draw(20, 0.5))
    assert isinstance(rows, IncompleteRows)
    assert family.canonical(rows) is rows


def test_refusals() -> None:
    family = Exponential()
    X = draw(20, 0.1)
    X[7, 1] = -0.5
    with pytest.raises(ValueError, match=r"X must be >= 0 for exponential components; got -0\.5 at row 7, column 1\."):
        family.canonical(X)
    X[7, 1] = np.inf
    with pytest.raises(ValueError, match="Input X contains infinity at row 7, column 1"):
        family.canonical(X)
    with pytest.raises(ValueError, match="two dimensions"):
        family.canonical(np.ones(3))
    for bad in (0.0, -1.0, np.nan, np.inf):
        message = rf"scales must be finite and > 0, got {bad:g} in component 1, feature 2\."
        with pytest.raises(ValueError, match=message):
            family.params(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, bad]]))
    with pytest.raises(ValueError, match=r"the shape in rates_prior must be a finite number >= 1, got 0\.5"):
        Exponential((0.5, 1.0))
    with pytest.raises(ValueError, match="the rate in rates_prior must be a finite number >= 0, got -1"):
        Exponential((1.0, -1))
    with pytest.raises(ValueError, match=r"rates_prior must be a pair \(shape, rate\) or None, got 2"):
        Exponential(2)  # type: ignore[arg-type]  # on purpose
    assert repr(Exponential((2, 1))) == "Exponential(rates_prior=(2.0, 1.0))"
