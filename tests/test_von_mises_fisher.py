"""Von Mises-Fisher components: density on the sphere, M-step, sampler, and what they refuse."""

from __future__ import annotations

from math import lgamma
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, vonmises, vonmises_fisher

import lvm
from lvm.families import VonMisesFisher
from lvm.models.mixture import MixtureParams
from lvm.protocol import DegenerateError
from lvm.testing import model_checks

DIRECTIONS = np.array([[0.6, 0.8, 0.0], [0.0, 0.6, -0.8]])
CONCENTRATIONS = np.array([4.0, 9.0])
WEIGHTS = np.array([0.4, 0.6])


def unit_rows(n: int, d: int, seed: int = 0) -> Any:
    X = np.random.RandomState(seed).standard_normal((n, d))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def draw(n: int = 400, seed: int = 0) -> Any:
    rng = np.random.RandomState(seed)
    family = VonMisesFisher()
    params = family.params(DIRECTIONS, CONCENTRATIONS)
    return np.concatenate([family.sample(params, k, n // 2, rng) for k in (0, 1)])[rng.permutation(n)]


def log_density(family: Any, X: Any, params: Any) -> Any:
    out = np.zeros((len(params[0]), len(X)))
    family.log_density(family.canonical(X), params, out)
    return out


def statistics(family: Any, X: Any, resp: Any, params: Any) -> Any:
    stats = family.zero_stats(params)
    family.accumulate(family.canonical(X), np.ascontiguousarray(resp), params, stats)
    return stats


HELD_DIRECTIONS = {"directions": np.array([True, False])}
HELD_CONCENTRATIONS = {"concentrations": np.array([False, True])}
CASES = {
    "plain": VonMisesFisher(),
    "held": VonMisesFisher(held={**HELD_DIRECTIONS, **HELD_CONCENTRATIONS}),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, family in CASES.items()
        for check in model_checks(
            lvm.Mixture(family), MixtureParams(WEIGHTS, family.params(DIRECTIONS, CONCENTRATIONS / 2)), lvm.Rows(draw())
        )
    ],
)
def test_conformance(check: Any) -> None:
    check()


# ----- the density ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "K"), [(1, 2, 1), (300, 3, 2), (515, 50, 9), (20, 257, 3)])
def test_density_against_scipy(n: int, d: int, K: int) -> None:
    X, directions = unit_rows(n, d), unit_rows(K, d, 1)
    concentrations = np.linspace(0.5, 3.0, K) * d
    expected = [vonmises_fisher(m, c).logpdf(X) for m, c in zip(directions, concentrations, strict=True)]
    family = VonMisesFisher()
    # Terms as large as the concentrations cancel in scipy.
    found = log_density(family, X, family.params(directions, concentrations))
    assert_allclose(found, np.reshape(expected, (K, n)), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("concentration", [0.0, 1e-8, 0.3, 5.0, 800.0, 1e6])
@pytest.mark.parametrize("d", [2, 3, 4, 100, 1000])
def test_density_integrates_to_one(d: int, concentration: float) -> None:
    """Over the angle to the mean direction: spheres of one dimension less, of radius sin(angle), by Gauss's rule."""
    family = VonMisesFisher()
    params = family.params(np.eye(1, d), np.array([concentration]))
    log_area = np.log(2) + (d - 1) / 2 * np.log(np.pi) - lgamma((d - 1) / 2)
    # Twelve standard deviations on either side of the likeliest angle, where (d - 2) cos = c sin**2.
    t = 2 * concentration / max(d - 2 + np.hypot(d - 2, 2 * concentration), 1e-300)
    width = 12 / np.sqrt(0.1 + concentration * t + (d - 2) / max(1 - t * t, 1e-300))
    low, high = max(np.arccos(t) - width, 0.0), min(np.arccos(t) + width, np.pi)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angle = (low + high) / 2 + (high - low) / 2 * nodes
    X = np.zeros((400, d))
    X[:, 0], X[:, 1] = np.cos(angle), np.sin(angle)
    log_values = log_density(family, X, params)[0] + (d - 2) * np.log(np.sin(angle)) + log_area
    # Cosines rounded to 1e-16, times the concentration.
    assert_allclose((high - low) / 2 * weights @ np.exp(log_values), 1.0, rtol=1e-11 + 1e-15 * concentration)


def test_high_concentrations_keep_their_digits() -> None:
    """At 1e12, points 1e-6 off: c (1 - cos) by the angle, which scipy's c x' m - log I cannot hold to 1e-4."""
    angle = np.array([0.0, 1e-7, 1e-6, 3e-6])
    X = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(4)])
    family = VonMisesFisher()
    found = log_density(family, X, family.params(np.eye(1, 3), np.array([1e12])))[0]
    # d = 3: log of c / (2 pi (1 - exp(-2 c))). Rounding X to 1e-16 moves 1e-6 by 1e-10 of itself.
    assert_allclose(found, np.log(1e12 / (2 * np.pi)) - 1e12 * 2 * np.sin(angle / 2) ** 2, atol=1e-8)


@pytest.mark.parametrize("d", [3, 50])
def test_both_ways_of_computing_agree(d: int) -> None:
    """From products below SHARP, and from differences where another component is above it."""
    family = VonMisesFisher()
    directions = unit_rows(3, d, 1)
    X = np.concatenate([unit_rows(300, d), family.sample(family.params(directions[:1], [9e3]), 0, 300, _rng())])
    resp = _rng().dirichlet(np.ones(3), 600).T
    low = family.params(directions, np.array([9e3, 20.0, 0.0]))
    high = family.params(directions, np.array([9e3, 20.0, 2e4]))
    # c x' m of up to 9e3 rounds by 1e-12.
    assert_allclose(log_density(family, X, low)[:2], log_density(family, X, high)[:2], rtol=1e-14, atol=2e-11)
    for a, b in zip(statistics(family, X, resp, low), statistics(family, X, resp, high), strict=True):
        assert_allclose(a, b, atol=1e-11)


def _rng() -> np.random.RandomState:
    return np.random.RandomState(0)


def test_uniform_density() -> None:
    family = VonMisesFisher()
    found = log_density(family, unit_rows(9, 3), family.params(DIRECTIONS, np.zeros(2)))
    assert_allclose(found, -np.log(4 * np.pi), rtol=1e-14)


# ----- statistics and M-step --------------------------------------------------------------------------------------


def test_statistics_and_mstep_against_numpy() -> None:
    X = draw(702)
    resp = np.random.RandomState(2).dirichlet(np.ones(2), 702).T * np.linspace(0.0, 2.0, 702)
    family = VonMisesFisher()
    params = family.params(DIRECTIONS, CONCENTRATIONS)
    stats = statistics(family, X, resp, params)
    assert_allclose(stats.counts, resp.sum(axis=1), rtol=1e-12)
    assert_allclose(stats.first, resp @ X - resp.sum(axis=1)[:, None] * DIRECTIONS, atol=1e-11)
    distances = np.array([np.sum((X - m) ** 2, axis=1) for m in DIRECTIONS])
    assert_allclose(stats.second, np.sum(resp * distances, axis=1), rtol=1e-12)
    new = family.mstep(stats, params)
    mean = resp @ X / resp.sum(axis=1)[:, None]
    length = np.linalg.norm(mean, axis=1)
    assert_allclose(new.directions, mean / length[:, None], atol=1e-13)
    # d = 3: A = coth(c) - 1 / c.
    assert_allclose(1 / np.tanh(new.concentrations) - 1 / new.concentrations, length, rtol=1e-12)


@pytest.mark.parametrize("bound", [None, 3.0])
@pytest.mark.parametrize("held", [{}, HELD_DIRECTIONS, HELD_CONCENTRATIONS, {**HELD_DIRECTIONS, **HELD_CONCENTRATIONS}])
def test_mstep_is_a_maximiser(held: Any, bound: float | None) -> None:
    """Given what is held, and under the bound: no other direction or concentration is likelier."""
    X = draw(300)
    resp = np.random.RandomState(3).dirichlet(np.ones(2), 300).T
    resp[0] *= X[:, 0] > -0.2
    family = VonMisesFisher(bound, held)
    start = family.params(DIRECTIONS, np.array([2.0, 1.5]))
    new = family.mstep(statistics(family, X, resp, start), start)

    def objective(directions: Any, concentrations: Any) -> float:
        return float(np.sum(resp * log_density(family, X, family.params(directions, concentrations))))

    top = objective(new.directions, new.concentrations)
    assert top > objective(start.directions, start.concentrations)
    rng = np.random.RandomState(4)
    for k in range(2):
        if "directions" in held and held["directions"][k]:
            assert_array_equal(new.directions[k], start.directions[k])
        else:
            for _ in range(10):
                other = new.directions.copy()
                other[k] += 0.01 * rng.standard_normal(3)
                other[k] /= np.linalg.norm(other[k])
                assert objective(other, new.concentrations) < top
        if "concentrations" in held and held["concentrations"][k]:
            assert new.concentrations[k] == start.concentrations[k]
            continue
        for factor in (0.99, 1.01):
            concentrations = new.concentrations.copy()
            concentrations[k] *= factor
            assert objective(new.directions, concentrations) < top or concentrations[k] > (bound or np.inf)
    assert family.n_parameters(start) == 6 - 2 * ("directions" in held) - ("concentrations" in held)


def test_a_mean_against_the_held_direction_is_uniform() -> None:
    family = VonMisesFisher(held={"directions": np.array([True])})
    params = family.params(np.array([[0.0, 0.0, 1.0]]), np.ones(1))
    X = np.array([[0.0, 0.6, -0.8], [0.0, -0.6, -0.8]])
    assert family.mstep(statistics(family, X, np.ones((1, 2)), params), params).concentrations[0] == 0.0


def test_balanced_rows_are_uniform_and_keep_the_direction() -> None:
    family = VonMisesFisher()
    X = np.concatenate([np.eye(3), -np.eye(3)])
    params = family.params(np.array([[0.0, 0.0, 1.0]]), np.ones(1))
    new = family.mstep(statistics(family, X, np.ones((1, 6)), params), params)
    assert_array_equal(new.directions, params.directions)
    assert new.concentrations[0] == 0.0
    assert family.start(family.canonical(X), np.ones(6), 2).directions.shape == (2, 3)


@pytest.mark.parametrize("concentration", [1e-3, 1.0, 1e3, 1e6, 1e10, 1e20])
@pytest.mark.parametrize("d", [2, 3, 40])
def test_concentrations_are_recovered(d: int, concentration: float) -> None:
    """From a far start, at the resolution that n = 20,000 rows allow, at any concentration."""
    rng = np.random.RandomState(5)
    n = 20_000
    family = VonMisesFisher()
    truth = family.params(unit_rows(1, d), np.array([concentration]))
    X = family.sample(truth, 0, n, rng)
    start = MixtureParams(np.ones(1), family.params(unit_rows(1, d, 7), np.ones(1)))
    end = lvm.fit_em(lvm.Mixture(family), lvm.Rows(X), start, tol=0.0, max_iter=4).params.components
    if concentration >= 1.0:
        # 1 - A has mean (d - 1) / 2c, and a standard error of sqrt(2 / (d - 1) n) of itself, or less.
        assert abs(end.concentrations[0] / concentration - 1) < 6 * np.sqrt(d / n) * max(1.0, d / concentration)
    else:
        assert end.concentrations[0] < 6 * d / np.sqrt(n)
    angle = np.linalg.norm(end.directions - truth.directions)
    if concentration >= 1.0:
        length = concentration / (d + concentration)  # a lower bound of A, Amos (1974)
        assert angle < 6 * np.sqrt(d / (n * length * concentration)) + 1e-14


def test_digits_of_the_concentration() -> None:
    """Four points 1e-7 about a pole: 1 - R by hand is 5e-15, of which 1 - |sum x| / n would keep one digit."""
    h = 1e-7
    X = np.array([[h, 0.0], [-h, 0.0], [0.0, h], [0.0, -h]])
    X = np.column_stack([X, np.sqrt(1 - h * h) * np.ones(4)])
    family = VonMisesFisher()
    params = family.params(np.array([[0.0, 0.0, 1.0]]), np.array([2e4]))
    new = family.mstep(statistics(family, X, np.ones((1, 4)), params), params)
    # d = 3: 1 - A = 1 / c, and 1 - R = 1 - sqrt(1 - h**2) = h**2 / 2; X is rounded to 1e-16 beside it, squared.
    assert_allclose(new.concentrations, [2 / h**2], rtol=1e-9)


def test_coinciding_points_are_degenerate() -> None:
    x = np.array([0.6, 0.64, 0.48])
    X = np.concatenate([np.tile(x, (5, 1)), draw(50)])
    family = VonMisesFisher()
    start = family.params(np.array([x, [0.0, 0.6, -0.8]]), np.array([1e9, 2.0]))
    resp = np.zeros((2, 55))
    resp[0, :5] = resp[1, 5:] = 1.0
    with pytest.raises(DegenerateError, match="the concentration of component 0 is infinite: its points coincide"):
        family.mstep(statistics(family, X, resp, start), start)
    bounded = VonMisesFisher(max_concentration=1e4)
    assert bounded.mstep(statistics(bounded, X, resp, start), start).concentrations[0] == 1e4
    # From a far direction, 1 - R of 0 is lost in rounding: one more iteration finds it.
    far = MixtureParams(np.ones(1), family.params(np.array([[0.0, 0.6, -0.8]]), np.ones(1)))
    result = lvm.fit_em(lvm.Mixture(family), lvm.Rows(X[:5]), far, max_iter=50)
    assert result.status is lvm.Status.DEGENERATE
    repeated = family.start(family.canonical(X[:5]), np.ones(5), 2)
    assert_allclose(repeated.directions, np.tile(x, (2, 1)), atol=1e-15)


def test_dead_components_keep_their_parameters() -> None:
    X = draw(50)
    resp = np.zeros((2, 50))
    resp[0] = 1.0
    family = VonMisesFisher()
    params = family.params(DIRECTIONS, CONCENTRATIONS)
    new = family.mstep(statistics(family, X, resp, params), params)
    assert_array_equal(new.directions[1], DIRECTIONS[1])
    assert new.concentrations[1] == CONCENTRATIONS[1]
    assert new.log_peaks[1] == params.log_peaks[1]


# ----- sampling, coordinates, refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize("concentration", [0.0, 0.5, 20.0, 1e5])
@pytest.mark.parametrize("d", [2, 3, 100])
def test_sampler_has_the_density_of_the_cosine(d: int, concentration: float) -> None:
    """Kolmogorov-Smirnov of 1 - cos against quadrature, at level 1e-4; 10 % off fails where that tells."""
    family = VonMisesFisher()
    params = family.params(unit_rows(1, d), np.array([concentration]))
    X = family.sample(params, 0, 20_000, np.random.RandomState(0))
    assert_allclose(np.linalg.norm(X, axis=1), 1.0, rtol=1e-15, atol=4e-16)
    gap = np.sum((X - params.directions) ** 2, axis=1) / 2
    angle = np.linspace(0.0, np.pi, 400_001) * (1.0 if concentration < 1000 else 0.1)

    def distribution(c: float) -> Any:
        with np.errstate(divide="ignore"):
            log_sine = (d - 2) * np.log(np.maximum(np.sin(angle), 0.0)) if d > 2 else 0.0
        values = np.exp(log_sine - 2 * c * np.sin(angle / 2) ** 2 - np.max(log_sine - 2 * c * np.sin(angle / 2) ** 2))
        cumulated = np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2)])
        return lambda g: np.interp(2 * np.arcsin(np.sqrt(g / 2)), angle, cumulated / cumulated[-1])

    assert kstest(gap, distribution(concentration)).pvalue > 1e-4
    if concentration >= 20.0:
        assert kstest(gap, distribution(1.1 * concentration)).pvalue < 1e-4


def test_sampler_on_the_circle_and_about_its_direction() -> None:
    family = VonMisesFisher()
    X = family.sample(family.params([[0.6, 0.8]], [3.0]), 0, 20_000, np.random.RandomState(1))
    angles = np.arctan2(X[:, 1], X[:, 0]) - np.arctan2(0.8, 0.6)
    assert kstest((angles + np.pi) % (2 * np.pi) - np.pi, vonmises(3.0).cdf).pvalue > 1e-4
    X = family.sample(family.params(DIRECTIONS, CONCENTRATIONS), 1, 20_000, np.random.RandomState(1))
    azimuth = np.arctan2(X[:, 0], X @ np.array([0.0, 0.8, 0.6]))  # about the direction, all angles are alike
    assert kstest(azimuth, "uniform", args=(-np.pi, 2 * np.pi)).pvalue > 1e-4


def test_coordinates_invert() -> None:
    family = VonMisesFisher()
    params = family.params(DIRECTIONS, np.array([0.0, 1e6]))
    back = family.from_vector(family.to_vector(params, params), params)
    assert_allclose(back.directions, DIRECTIONS, rtol=1e-15)
    assert_allclose(back.concentrations, [0.0, 1e6], rtol=1e-13)
    vector = np.concatenate([3 * DIRECTIONS.ravel(), [-1.0, 2.0]])
    beyond = VonMisesFisher(max_concentration=5.0).from_vector(vector, params)
    assert_allclose(beyond.directions, DIRECTIONS, rtol=1e-15)
    assert_array_equal(beyond.concentrations, [0.0, 5.0])


def test_rows_of_nearly_unit_length_are_divided_by_it() -> None:
    family = VonMisesFisher()
    X = draw(20)
    assert family.canonical(X).base is X or family.canonical(X) is X
    rounded = family.canonical(X.astype(np.float32))
    assert_allclose(np.linalg.norm(rounded, axis=1), 1.0, rtol=4e-16)
    assert_allclose(rounded, X, atol=1e-7)
    again = family.canonical(rounded)
    assert again is rounded


def test_refusals() -> None:
    family = VonMisesFisher()
    X = draw(20)
    X[7] *= 1.01
    with pytest.raises(ValueError, match=r"rows of X must have length 1, got length 1\.01 in row 7; .*normalize"):
        family.canonical(X)
    X[7] = 0.0
    with pytest.raises(ValueError, match="got length 0 in row 7"):
        family.canonical(X)
    X[7, 1] = np.nan
    message = r"NaN at row 7, column 1; .*families whose features are independent given the component accept missing"
    with pytest.raises(ValueError, match=message):
        family.canonical(X)
    X[7, 1] = np.inf
    with pytest.raises(ValueError, match="infinity at row 7, column 1"):
        family.canonical(X)
    with pytest.raises(ValueError, match="X must have 2 columns or more to hold directions, got 1"):
        family.canonical(np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"directions must have length 1, got length 2 in component 1\."):
        family.params([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0])
    for bad in (-1.0, np.nan, np.inf):
        message = rf"concentrations must be finite and >= 0, got {bad:g} in component 0\."
        with pytest.raises(ValueError, match=message):
            family.params([[1.0, 0.0]], [bad])
    with pytest.raises(ValueError, match="max_concentration must be a finite number >= 0, got -2"):
        VonMisesFisher(max_concentration=-2)
    assert repr(VonMisesFisher(2)) == "VonMisesFisher(max_concentration=2)"


def test_objective_rises_under_a_bound() -> None:
    family = VonMisesFisher(max_concentration=5.0)
    start = MixtureParams(WEIGHTS, family.params(DIRECTIONS[:, ::-1].copy(), np.ones(2)))
    end = lvm.fit_em(lvm.Mixture(family), lvm.Rows(draw()), start, tol=0.0, max_iter=60)
    trace = np.array(end.objective_trace)
    assert np.min(np.diff(trace)) > -1e-12 * np.abs(trace).max()
    assert trace[-1] > trace[0] + 1
    assert end.params.components.concentrations.max() == 5.0
