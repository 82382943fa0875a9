"""Student t components: density, statistics, the lower bound that the M-step climbs, and what a family offers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance import each_check
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference.student_t import (
    KINDS,
    bound_of_terms,
    component,
    distances,
    expected_loglik,
    heavy_rows,
    lower_bound,
    matrices,
    peel_mclachlan,
    problem,
    random_params,
    slow_stats,
)
from scipy.stats import multivariate_t

from lvm.families import DiagGaussian, DiagStudentT, FullGaussian, FullStudentT
from lvm.kernels.degrees_of_freedom import LEAST, MOST, best_degrees_of_freedom
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import DegenerateError, Rows, leaves

Array = NDArray[np.float64]
BOTH = (FullStudentT, DiagStudentT)


def densities(family: Any, X: Array, params: Any) -> Array:
    out = np.zeros((len(params.means), len(X)))
    family.log_density(family.canonical(X), params, out)
    return out


def mstep(family: Any, X: Array, resp: Array, params: Any) -> Any:
    found = family.zero_stats(params)
    family.accumulate(family.canonical(X), resp, params, found)
    return family.mstep(found, params)


# ----- density ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nu", [0.3, 1.0, 4.0, 30.0, 1000.0])
@pytest.mark.parametrize("d", [1, 2, 5, 20])
@pytest.mark.parametrize("family", BOTH)
def test_density(family: Any, d: int, nu: float) -> None:
    params = random_params(family(), 3, d, seed=d, nu=nu)
    X = np.random.RandomState(1).standard_normal((300, d)) * np.geomspace(1e-3, 1e8, 300)[:, None]
    expected = [multivariate_t(m, s, df=nu).logpdf(X) for m, s in zip(params[0], matrices(params[1]), strict=True)]
    # scipy's eigenvalues lose digits to the condition of the scatter, some 1e4 for d = 20.
    assert_allclose(densities(family(), X, params), expected, rtol=1e-11, atol=1e-10)
    assert_array_equal(densities(family(), X[:1], params), densities(family(), X, params)[:, :1])


@pytest.mark.parametrize(("family", "gaussian"), [(FullStudentT, FullGaussian), (DiagStudentT, DiagGaussian)])
def test_many_degrees_of_freedom_are_gaussian(family: Any, gaussian: Any) -> None:
    X = heavy_rows()
    errors = []
    for nu in (1e3, 1e6, 1e9, 1e12):
        params = random_params(family(), 2, 3, seed=0, nu=nu)
        normal = np.zeros((2, len(X)))
        gaussian().log_density(X, gaussian().params(params.means, params.scatters), normal)
        errors.append(np.abs(densities(family(), X, params) - normal)[:, np.abs(X).max(axis=1) < 3].max())
    assert_allclose(errors[1] / errors[0], 1e-3, rtol=0.05)  # the difference falls as 1 / nu
    assert_allclose(errors[2] / errors[0], 1e-6, rtol=0.05)
    assert errors[3] < 1e-8 * errors[0]


def test_a_row_beyond_the_square_root_of_the_largest_number_is_impossible() -> None:
    params = random_params(FullStudentT(), 1, 2, seed=0)
    assert densities(FullStudentT(), np.full((1, 2), 1e200), params) == -np.inf
    stats = FullStudentT().zero_stats(params)
    FullStudentT().accumulate(np.full((300, 2), 1e200), np.zeros((1, 300)), params, stats)
    assert all(np.all(leaf == 0) for leaf in leaves(stats))


# ----- statistics and M-step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 2), (600, 5), (300, 8)])
@pytest.mark.parametrize("family", BOTH)
def test_statistics(family: Any, n: int, d: int) -> None:
    X = heavy_rows(n=n, d=d)[:n]
    params = random_params(family(), 3, d, seed=2)
    resp = np.random.RandomState(0).dirichlet(np.ones(3), n).T.copy()
    resp[1, : n // 2] = 0.0
    found = family().zero_stats(params)
    family().accumulate(family().canonical(X), resp, params, found)
    for one, two in zip(found, slow_stats(X, resp, params), strict=True):
        one = np.tril(one) if one.ndim == 3 else one
        assert_allclose(one, np.tril(two) if two.ndim == 3 else two, rtol=1e-10, atol=1e-10 * np.abs(two).max())


@pytest.mark.parametrize("reg_covar", [0.0, 0.3])
@pytest.mark.parametrize("structure", BOTH)
def test_means_and_scatters_are_those_of_peel_and_mclachlan(structure: Any, reg_covar: float) -> None:
    family = structure(reg_covar=reg_covar)
    X, params = heavy_rows(), random_params(family, 2, 3, seed=3)
    resp = np.random.RandomState(0).dirichlet(np.ones(2), len(X)).T.copy()
    new = mstep(family, X, resp, params)
    for k in range(2):
        mean, scatter = peel_mclachlan(X, resp[k], component(params, k))
        scatter += reg_covar * np.eye(3)
        assert_allclose(new.means[k], mean, rtol=1e-11)
        assert_allclose(new.scatters[k], scatter if structure is FullStudentT else np.diag(scatter), rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_one_and_the_mstep_climbs_to_its_top(seed: int) -> None:
    """It touches at the old parameters and lies below elsewhere; no single parameter of the M-step can be improved."""
    rng = np.random.RandomState(seed)
    X, params = heavy_rows(seed=seed), random_params(FullStudentT(), 2, 3, seed=seed)
    resp = rng.dirichlet(np.ones(2), len(X)).T.copy()
    new = mstep(FullStudentT(), X, resp, params)
    for k in range(2):
        r, old = resp[k], component(params, k)
        assert_allclose(lower_bound(X, r, old, old), expected_loglik(X, r, *old), rtol=1e-12)
        for other in range(20):
            at = component(random_params(FullStudentT(), 1, 3, seed=100 + other), 0)
            assert lower_bound(X, r, old, at) <= expected_loglik(X, r, *at) * (1 - 1e-12)
        mean, scatter, nu = component(new, k)
        half_way = lower_bound(X, r, old, (mean, scatter, old[2]))
        top = lower_bound(X, r, old, (mean, scatter, nu))
        assert lower_bound(X, r, old, old) < half_way < top <= expected_loglik(X, r, mean, scatter, nu)
        for _ in range(10):
            factor = np.eye(3) + 1e-3 * rng.standard_normal((3, 3))
            moved = mean + 1e-3 * rng.standard_normal(3), factor @ scatter @ factor.T, old[2]
            assert lower_bound(X, r, old, moved) < half_way
        for factor in (0.5, 0.99, 0.9999, 1.0001, 1.01, 2.0):
            assert lower_bound(X, r, old, (mean, scatter, factor * nu)) < top


@pytest.mark.parametrize("seed", range(5))
def test_common_degrees_of_freedom_maximise_the_sum(seed: int) -> None:
    family = FullStudentT("common")
    X, params = heavy_rows(seed=seed), random_params(family, 2, 3, seed=seed, nu=5.0)
    resp = np.random.RandomState(seed).dirichlet(np.ones(2), len(X)).T.copy()
    new = mstep(family, X, resp, params)
    assert new.degrees_of_freedom[0] == new.degrees_of_freedom[1] != 5

    def total(nu: float) -> float:
        ends = [(new.means[k], new.scatters[k], nu) for k in range(2)]
        return sum(lower_bound(X, resp[k], component(params, k), ends[k]) for k in range(2))

    top = total(new.degrees_of_freedom[0])
    assert all(total(factor * new.degrees_of_freedom[0]) < top for factor in (0.5, 0.999, 1.001, 2.0))


def test_degrees_of_freedom_never_lower_the_bound() -> None:
    """Also where it has valleys, and where the old value lies out of bounds."""
    rng = np.random.RandomState(0)
    moved = at_bound = 0
    for _ in range(2000):
        d, nu = int(rng.choice([1, 2, 8, 100])), float(np.exp(rng.uniform(np.log(0.02), np.log(5000))))
        p = rng.chisquare(d, 5) / nu * np.exp(rng.standard_t(2, 5))
        r = rng.uniform(0, 2, 5)
        w = r / (1 + p)
        terms = np.array([[r.sum(), w.sum(), r @ np.log1p(p), w @ p * nu * np.exp(rng.uniform(-2, 0.5)), nu]])
        best = best_degrees_of_freedom(terms, d, LEAST, MOST)
        assert min(LEAST, nu) <= best <= max(MOST, nu)
        old, new, near = bound_of_terms(terms[0], d, np.array([nu, best, 0.5 * (nu + best)]))
        # gammaln and the sum for 1 / nu lose some nu * eps.
        slack = 1e-11 * terms[0, 0] * (1 + d)
        assert new >= old - slack
        moved += bool(new > max(old, near) - slack and best != nu)
        at_bound += best in (LEAST, MOST)
    assert moved > 1500
    assert at_bound > 50


def test_degrees_of_freedom_stay_where_the_next_maximum_is_lower() -> None:
    """Found among a million random terms: the search steps over a narrow maximum and a valley to a lower one."""
    nu = 0.14748188297123166
    terms = np.array([[6.246198458184963, 2.935927513875317e-4, 66.08598985333529, 7.06302210108639e-3, nu]])
    here, beyond = bound_of_terms(terms[0], 1000, np.array([nu, 706.5747114]))
    assert beyond < here - 10
    assert best_degrees_of_freedom(terms, 1000, LEAST, MOST) == nu


@pytest.mark.parametrize(("least", "expected"), [(LEAST, "inside"), (6.0, "bound")])
def test_degrees_of_freedom_against_a_grid(least: float, expected: str) -> None:
    X = heavy_rows()[:300]
    old = (np.zeros(3), np.eye(3), 8.0)
    p = distances(X, *old[:2]) / 8
    w = 1 / (1 + p)
    terms = np.array([[300.0, w.sum(), np.log1p(p).sum(), w @ p * 8, 8.0]])
    grid = np.geomspace(least, MOST, 200_001)
    best = best_degrees_of_freedom(terms, 3, least, MOST)
    assert_allclose(best, grid[np.argmax(bound_of_terms(terms[0], 3, grid))], rtol=1e-4)
    assert (best == least) == (expected == "bound")


def test_held_scatter_about_held_mean() -> None:
    """The other parameters are those given the held ones: a scatter about the held mean."""
    X, r = heavy_rows(), np.ones((1, 450))
    family = FullStudentT(held={"means": np.ones(1, np.bool_)})
    params = random_params(family, 1, 3, seed=5)
    new = mstep(family, X, r, params)
    mean, scatter, nu = component(params, 0)
    u = (nu + 3) / (nu + distances(X, mean, scatter))
    assert_allclose(new.scatters[0], (u[:, None] * (X - mean)).T @ (X - mean) / len(X), rtol=1e-11)


@pytest.mark.parametrize("kind", ["separate", "common"])
@pytest.mark.parametrize("structure", BOTH)
def test_a_dead_component_keeps_its_parameters(structure: Any, kind: str) -> None:
    family = structure(kind)
    X, params = heavy_rows(), random_params(structure(), 2, 3, seed=0, nu=5.0)
    resp = np.ones((2, len(X)))
    resp[1] = 1e-20
    new = mstep(family, X, resp, params)
    assert_array_equal(new.means[1], params.means[1])
    assert_array_equal(new.scatters[1], params.scatters[1])
    assert_array_equal(new.inverse_factors[1], params.inverse_factors[1])
    assert new.degrees_of_freedom[0] != 5
    assert new.degrees_of_freedom[1] == (5 if kind == "separate" else new.degrees_of_freedom[0])


@pytest.mark.parametrize("structure", BOTH)
def test_a_singular_scatter_is_named(structure: Any) -> None:
    X = np.column_stack([heavy_rows(d=2), np.full(450, 7.0)])
    model = Mixture(structure())
    start = MixtureParams(np.full(2, 0.5), structure().start(X, np.ones(450), 2))
    with pytest.raises(DegenerateError, match="covariance of component 0 is singular to rounding"):
        model.mstep(model.estep_stats(Rows(X), start), start)
    regular = structure(reg_covar=0.1)
    new = mstep(regular, X, np.full((2, 450), 0.5), start.components)
    assert_allclose(matrices(new.scatters)[:, 2, 2], 0.1)


# ----- what a family offers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("structure", BOTH)
def test_vectors_return(structure: Any, kind: dict[str, Any]) -> None:
    family = structure(**kind)
    fixed = family.degrees_of_freedom
    params = random_params(family, 2, 3, seed=0, nu={"separate": None, "common": 7.0}.get(fixed, fixed))
    origin = random_params(family, 2, 3, seed=1, nu=20.0 if isinstance(fixed, str) else fixed)
    old = {name: getattr(params, name).copy() for name in family.parameters}
    origin = family.params(
        **{
            name: np.where(family._is_free(name, 2).reshape(2, *(1,) * (a.ndim - 1)), getattr(origin, name), a)
            for name, a in old.items()
        }
    )
    back = family.from_vector(family.to_vector(params, origin), origin)
    for one, two in zip(leaves(back), leaves(params), strict=True):
        assert_allclose(one, two, rtol=1e-11, atol=1e-12)
    for name, mask in family.held.items():
        assert_array_equal(getattr(back, name)[mask], old[name][mask])


def test_coordinates_out_of_bounds() -> None:
    family = FullStudentT()
    origin = random_params(family, 2, 2, seed=0)
    vector = family.to_vector(origin, origin)
    vector[-2:] = [-50.0, 1e4]
    assert_allclose(family.from_vector(vector, origin).degrees_of_freedom, [LEAST, MOST])


def test_representation() -> None:
    assert repr(FullStudentT()) == "FullStudentT(degrees_of_freedom='separate', reg_covar=0)"
    assert repr(DiagStudentT(4, 0.5)) == "DiagStudentT(degrees_of_freedom=4.0, reg_covar=0.5)"


@pytest.mark.parametrize("given", ["Common", 0, -1.0, np.inf, np.nan, True, None])
def test_degrees_of_freedom_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="'separate', 'common' or a finite number > 0, got") as refused:
        FullStudentT(given)
    assert repr(given) in str(refused.value)


@pytest.mark.parametrize(
    ("family", "changed", "message"),
    [
        (FullStudentT(), {"means": [[0, np.nan], [0, 0]]}, "means must be finite, got nan in component 0, feature 1"),
        (FullStudentT(), {"degrees_of_freedom": [1, 0]}, "must be finite and > 0, got 0.0 in component 1"),
        (FullStudentT("common"), {"degrees_of_freedom": [5, 6]}, "the same in all components, got 5.0 .* 6.0 in 1"),
        (FullStudentT(4), {"degrees_of_freedom": [4, 6]}, "are fixed at 4.0, got 4.0 in component 0 and 6.0 in 1"),
        (FullStudentT(), {"scatters": [np.eye(2), np.diag([1, -1])]}, "scatter 1 is not symmetric, positive definite"),
        (FullStudentT(), {"scatters": [[[1, 0.5], [0, 1]], np.eye(2)]}, "scatter 0 is not symmetric, positive"),
        (FullStudentT(), {"scatters": [np.eye(2), np.full((2, 2), np.nan)]}, "scatter 1 is not"),
        (DiagStudentT(), {"scatters": [[1, 2], [0, 1]]}, "finite and > 0, got 0.0 in component 1, feature 0"),
    ],
)
def test_parameters_are_refused(family: Any, changed: dict[str, Any], message: str) -> None:
    scatters = np.ones((2, 2)) if isinstance(family, DiagStudentT) else np.stack([np.eye(2)] * 2)
    arrays = {"means": np.zeros((2, 2)), "scatters": scatters, "degrees_of_freedom": np.full(2, 4.0)}
    family.params(**arrays)
    with pytest.raises(ValueError, match=message):
        family.params(**{**arrays, **{name: np.array(value, np.float64) for name, value in changed.items()}})


def test_missing_cells_are_refused_with_a_way_out() -> None:
    X = np.ones((3, 2))
    X[1, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN at row 1, column 1.*independent given the component"):
        FullStudentT().canonical(X)
    X[1, 1] = np.inf
    with pytest.raises(ValueError, match="infinity at row 1, column 1") as refused:
        FullStudentT().canonical(X)
    assert "independent" not in str(refused.value)


def test_reg_covar_is_refused() -> None:
    with pytest.raises(ValueError, match="reg_covar must be a finite number >= 0, got -1"):
        DiagStudentT(reg_covar=-1)


MODELS = {
    "full": problem(FullStudentT()),
    "full common": problem(FullStudentT("common")),
    "full fixed": problem(FullStudentT(3.0)),
    "full regularised": problem(FullStudentT(reg_covar=0.1)),
    "diag": problem(DiagStudentT()),
    "diag common, regularised": problem(DiagStudentT("common", reg_covar=0.1)),
    "diag fixed": problem(DiagStudentT(3.0)),
}


@each_check(MODELS)
def test_conformance(check: Any) -> None:
    check()
