"""Gamma components: density, M-step, what is held, missing cells, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import digamma
from scipy.stats import gamma

import lvm
from lvm.families import Exponential, Gamma
from lvm.families.gamma import invert_digamma, log_minus_digamma, solve_shapes
from lvm.models.mixture import MixtureParams
from lvm.protocol import DegenerateError, IncompleteRows
from lvm.testing import model_checks

SHAPES = np.array([[2.0, 9.0, 0.7], [6.0, 3.0, 4.0]])
SCALES = np.array([[1.0, 0.5, 3.0], [2.0, 4.0, 0.5]])
WEIGHTS = np.array([0.4, 0.6])


def draw(n: int = 400, share_missing: float = 0.0, seed: int = 0) -> Any:
    rng = np.random.RandomState(seed)
    label = rng.randint(2, size=n)
    X = rng.gamma(SHAPES[label], SCALES[label])
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


def brute_density(X: Any, shapes: Any, scales: Any) -> Any:
    """Sum the log densities of the observed cells, by scipy."""
    pairs = zip(shapes, scales, strict=True)
    return np.array([np.nansum(gamma.logpdf(X, shape, scale=scale), axis=1) for shape, scale in pairs])


HELD_SHAPES = {"shapes": np.array([True, False])}
HELD_SCALES = {"scales": np.array([False, True])}
CASES = {
    "plain": (Gamma(), draw()),
    "missing": (Gamma(), draw(share_missing=0.2)),
    "held": (Gamma({**HELD_SHAPES, **HELD_SCALES}), draw()),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, (family, X) in CASES.items()
        for check in model_checks(
            lvm.Mixture(family), MixtureParams(WEIGHTS, family.params(SHAPES * [[1.1], [0.9]], SCALES)), lvm.Rows(X)
        )
    ],
)
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3), (300, 2, 3), (515, 9, 5)])
@pytest.mark.parametrize("unit", [1e-150, 1.0, 1e150])
def test_density_against_scipy(shape: tuple[int, int, int], unit: float) -> None:
    n, K, d = shape
    rng = np.random.RandomState(1)
    shapes, scales = rng.uniform(0.3, 30.0, (K, d)), rng.uniform(0.2, 5.0, (K, d)) * unit
    shapes[0, 0] = 2000.0  # on the other side of SHARP
    X = rng.gamma(2.0, unit, (n, d))
    family = Gamma()
    params = family.params(shapes, scales)
    # scipy's terms are as large as shape * log(scale): 30 * 350, or 2000 * 350; its rounding of those.
    assert_allclose(log_density(family, X, params), brute_density(X, shapes, scales), rtol=1e-11, atol=1e-9)
    X[rng.random_sample(X.shape) < 0.3] = np.nan
    X[0] = np.nan
    incomplete = log_density(family, X, params)
    assert_allclose(incomplete, brute_density(X, shapes, scales), rtol=1e-11, atol=1e-9)
    assert_array_equal(incomplete[:, 0], 0.0)


@pytest.mark.parametrize(
    ("x", "shape", "scale", "expected"),
    [
        # mpmath with 60 digits.
        (1.0, 1.0, 1.0, -1.0),
        (1e-300, 0.01, 1.0, 679.26829274118954628),
        (1e300, 2.0, 1e299, -696.17035771222561389),
        (1000.5, 1e6, 1e-3, -1.0443968405317326511),
        (1.00001, 1e8, 1e-8, 8.2863918713212150086),
        (0.25, 1e8, 1e-8, -63629426.434292864395),
        (3e-308, 2000.0, 1.0, -1428686.0185586966885),
        (1e-5, 0.5, 1e5, -0.57236494302470012797),
        (999.9, 999.0, 1.0, -4.3737049966925719331),
        (1001.5, 1001.0, 1.0, -4.3740233822904049702),
    ],
)
def test_density_against_many_digits(x: float, shape: float, scale: float, expected: float) -> None:
    """To 1e-11 at any shape, where scipy has lost up to 8 digits: below SHARP, 1e3 * log x is rounded."""
    family = Gamma()
    params = family.params(np.array([[shape]]), np.array([[scale]]))
    for X in (np.array([[x]]), np.array([[x], [np.nan]])):
        assert_allclose(log_density(family, X, params)[0, 0], expected, rtol=1e-14, atol=1e-11)


def test_shape_one_is_exponential() -> None:
    X = draw()
    one, other = Gamma(), Exponential()
    expected = log_density(other, X, other.params(SCALES))
    assert_allclose(log_density(one, X, one.params(np.ones((2, 3)), SCALES)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(0.5772156649015328606, 1.0), (0.27036284546147814671, 2.0), (5.0083340e-4, None), (1e-15, 5e14), (1e-9, None)],
)
def test_shapes_solve_their_equation(gap: float, expected: float | None) -> None:
    """log 1 - digamma(1) is Euler's constant, log 2 - digamma(2) that + log 2 - 1; large a: 1 / (2 gap)."""
    (shape,) = solve_shapes(np.array([gap]))
    assert_allclose(log_minus_digamma(np.array([shape])), gap, rtol=2e-14)
    if expected is not None:
        assert_allclose(shape, expected, rtol=1e-13)


def test_each_step_of_the_shape_is_likelier() -> None:
    """Also when stopped early: from the first approximation, no step lowers the likelihood, or leaves the solution."""
    gaps = np.logspace(-12, 2.5, 500)
    best = solve_shapes(gaps)
    errors = np.array([np.abs(solve_shapes(gaps, steps) / best - 1) for steps in range(8)])
    assert errors[0].max() < 0.015
    assert errors[1].max() < 1e-5
    assert errors[3:].max() < 1e-13
    # Concave: nearer on either side by a factor of 10 is likelier.
    assert np.all((errors[1:] <= 0.1 * errors[:-1]) | (errors[1:] < 1e-13))


def test_inverse_of_digamma() -> None:
    values = np.concatenate([np.linspace(-1e4, -3, 50), np.linspace(-3, 20, 100)])
    found = invert_digamma(values)
    assert_allclose(digamma(found), values, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
@pytest.mark.parametrize("held", [{}, HELD_SHAPES, HELD_SCALES, {**HELD_SHAPES, **HELD_SCALES}])
def test_mstep_is_a_maximiser(held: Any, share_missing: float) -> None:
    """Given what is held: no change of a free parameter is likelier."""
    X = draw(300, share_missing)
    resp = np.random.RandomState(3).dirichlet(np.ones(2), 300).T
    family = Gamma(held)
    start = family.params(SHAPES, SCALES)
    new = family.mstep(statistics(family, X, resp, start), start)
    best = {"shapes": new.shapes, "scales": new.scales}

    def objective(values: Any) -> float:
        return float(np.sum(resp * brute_density(X, values["shapes"], values["scales"])))

    top = objective(best)
    assert top > objective({"shapes": SHAPES, "scales": SCALES})
    for name, old in (("shapes", SHAPES), ("scales", SCALES)):
        for k, j in np.ndindex(SHAPES.shape):
            if name in held and held[name][k]:
                assert best[name][k, j] == old[k, j]
                continue
            for factor in (0.999, 1.001):
                other = {key: value.copy() for key, value in best.items()}
                other[name][k, j] *= factor
                assert objective(other) < top
    assert family.n_parameters(start) == 12 - 3 * len(held)


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
@pytest.mark.parametrize("centre", [1.0, 1e3, 1e-3])
def test_statistics_against_numpy(centre: float, share_missing: float) -> None:
    """About any centre, on both sides of SHARP: the same maximum."""
    X = draw(700, share_missing)
    resp = np.random.RandomState(2).dirichlet(np.ones(2), 700).T * np.linspace(0.0, 2.0, 700)
    family = Gamma()
    weight = resp @ ~np.isnan(X)
    mean = resp @ np.nan_to_num(X) / weight
    logs = resp @ np.nan_to_num(np.log(X)) / weight
    shapes = solve_shapes(np.log(mean) - logs)
    for shape in (1.0, 1e4):
        params = family.params(np.full_like(SHAPES, shape), mean * centre / shape)
        stats = statistics(family, X, resp, params)
        assert_allclose(stats.counts[:, None] + stats.observed, weight, rtol=1e-12)
        new = family.mstep(stats, params)
        # Sums about a centre 1e3 times too small are 1e3 times as large as their difference.
        assert_allclose(new.means, mean, rtol=1e-12)
        assert_allclose(new.shapes, shapes, rtol=1e-10)


def test_narrow_components_keep_their_digits() -> None:
    """Values within 1e-4 of 1000, of shape near 1e8; the variance as numpy has it about the mean."""
    rng = np.random.RandomState(0)
    X = 1000 * (1 + 1e-4 * rng.standard_normal((5000, 1)))
    end = lvm.fit_em(
        lvm.Mixture(Gamma()), lvm.Rows(X), MixtureParams(np.ones(1), Gamma().params([[2.0]], [[100.0]])), tol=1e-12
    )
    assert end.converged
    u = X / X.mean() - 1
    gap = np.mean(u**2 / 2 - u**3 / 3 + u**4 / 4)  # - mean log(1 + u), as mean u = 0
    assert_allclose(end.params.components.shapes, 1 / (2 * gap) + 1 / 6, rtol=1e-9)


@pytest.mark.parametrize("share_missing", [0.0, 0.2])
def test_objective_rises_with_narrow_and_wide_components(share_missing: float) -> None:
    rng = np.random.RandomState(4)
    X = np.concatenate([rng.gamma(0.2, 5.0, (200, 2)) + 1e-12, rng.gamma(1e5, 1e-4, (200, 2))])
    X[rng.random_sample(X.shape) < share_missing] = np.nan
    family = Gamma()
    start = MixtureParams(np.full(2, 0.5), family.params([[1.0, 1.0], [5.0, 5.0]], [[1.0, 1.0], [2.0, 2.0]]))
    trace = lvm.fit_em(lvm.Mixture(family), lvm.Rows(X), start, tol=0.0, max_iter=40).objective_trace
    assert np.min(np.diff(trace)) > -1e-10 * np.abs(trace).max()
    assert trace[-1] > trace[0] + 100


def test_equal_values_are_degenerate() -> None:
    X = np.column_stack([np.random.RandomState(0).gamma(2.0, 1.0, 50), np.full(50, 0.3)])
    family = Gamma()
    rows = family.canonical(X)
    start = MixtureParams(np.ones(1), family.start(rows, np.ones(50), 1))
    result = lvm.fit_em(lvm.Mixture(family), lvm.Rows(X), start, max_iter=50)
    assert result.status is lvm.Status.DEGENERATE
    params = family.params([[2.0, 5e3]], [[1.0, 0.3 / 5e3]])
    with pytest.raises(DegenerateError, match="the shape of component 0, feature 1 is infinite: X is the same"):
        family.mstep(statistics(family, X, np.ones((1, 50)), params), params)
    held = Gamma({"shapes": np.array([True])})
    assert_allclose(held.mstep(statistics(held, X, np.ones((1, 50)), params), params).scales[0, 1], 0.3 / 5e3)


def test_dead_components_and_unseen_features_keep_their_parameters() -> None:
    X = draw(50)
    X[:, 1] = np.nan
    resp = np.zeros((2, 50))
    resp[0] = 1.0
    family = Gamma()
    params = family.params(SHAPES, SCALES)
    new = family.mstep(statistics(family, X, resp, params), params)
    for name, old in (("shapes", SHAPES), ("scales", SCALES)):
        assert_array_equal(getattr(new, name)[1], old[1])
        assert getattr(new, name)[0, 1] == old[0, 1]
        assert getattr(new, name)[0, 0] != old[0, 0]


def test_start_fits_the_columns() -> None:
    """To scipy's maximum likelihood, of which the start is the closed form and Newton's steps."""
    X = draw(500)
    params = Gamma().start(Gamma().canonical(X), np.ones(500), 2)
    for j in range(3):
        shape, _, scale = gamma.fit(X[:, j], floc=0)
        # scipy stops at a relative 1e-8 or so.
        assert_allclose(params.shapes[:, j], shape, rtol=1e-6)
        assert_allclose(params.scales[:, j], scale, rtol=1e-6)


def test_fill_writes_posterior_means() -> None:
    X = draw(30, 0.3)
    resp = np.random.RandomState(0).dirichlet(np.ones(2), 30).T.copy()
    family = Gamma()
    out = X.copy()
    family.fill(family.canonical(X), resp, family.params(SHAPES, SCALES), out)
    missing = np.isnan(X)
    assert_array_equal(out[~missing], X[~missing])
    assert_allclose(out[missing], (resp.T @ (SHAPES * SCALES))[missing], rtol=1e-14)


def test_coordinates_invert_and_have_no_unit() -> None:
    family = Gamma()
    origin, params = family.params(SHAPES, SCALES), family.params(SHAPES**2, SCALES**2)
    vector = family.to_vector(params, origin)
    back = family.from_vector(vector, origin)
    assert_allclose(back.shapes, params.shapes, rtol=1e-14)
    assert_allclose(back.scales, params.scales, rtol=1e-14)
    other = family.to_vector(family.params(SHAPES**2, 1e6 * SCALES**2), family.params(SHAPES, 1e6 * SCALES))
    assert_allclose(other, vector, atol=1e-13)


def test_refusals() -> None:
    family = Gamma()
    X = draw(20, 0.1)
    assert isinstance(family.canonical(X), IncompleteRows)
    for bad in (0.0, -1.5, 1e-310):
        X[7, 1] = bad
        with pytest.raises(ValueError, match=rf"X must be > 0 for gamma .* 2\.23e-308; got {bad} at row 7, column 1\."):
            family.canonical(X)
    with pytest.raises(ValueError, match=r"shapes must be finite and > 0, got -1 in component 0, feature 1\."):
        family.params([[1.0, -1.0]], [[1.0, 1.0]])
    with pytest.raises(ValueError, match=r"scales must be finite and > 0, got nan in component 0, feature 0\."):
        family.params([[1.0, 1.0]], [[np.nan, 1.0]])
    with pytest.raises(ValueError, match=r"shapes \* scales must be finite and > 0, got inf in component 0, feature 0"):
        family.params([[1e200]], [[1e200]])
    with pytest.raises(ValueError, match=r"shapes and scales must have one shape, got \(1, 2\) and \(1, 1\)"):
        family.params([[1.0, 1.0]], [[1.0]])
