"""The model behind mixtures of regressions and of experts: densities, M-steps, monotone steps, the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from expert_cases import KINDS, case, log_densities
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logsumexp
from scipy.special import softmax as scipy_softmax

from lvm._jit import canonical
from lvm.em import fit_em
from lvm.kernels import regressions, softmax
from lvm.models.expert_rows import ExpertsRows, RegressionRows
from lvm.models.experts import ExpertsParams, GatedExperts
from lvm.models.gates import ConstantGate, ConstantGateParams, SoftmaxGate, SoftmaxGateParams
from lvm.models.gaussian_experts import GaussianExperts, GaussianExpertsParams
from lvm.models.newton import ascent_steps, column_bounds, contrasts, largest_change, solve_symmetric
from lvm.promises import ORDER
from lvm.protocol import DegenerateError, ZeroDensityError, map_fields, slice_rows
from lvm.result import Status
from lvm.testing import model_checks

CASES = {
    f"{kind}{' gated' if gated else ''}{' grouped' if grouped else ''}{' prior' if alpha else ''}": (
        kind,
        gated,
        grouped,
        alpha,
    )
    for kind in KINDS
    for gated, grouped, alpha in ((False, False, 0.0), (True, False, 0.5), (True, True, 0.0), (False, True, 0.5))
}
each_case = pytest.mark.parametrize("which", CASES)


def moved(params: Any, scale: float, rng: np.random.RandomState) -> Any:
    """Return parameters whose coefficients are random, of that scale."""
    coefficients = scale * rng.randn(*params.experts.coefficients.shape)
    if coefficients.ndim == 3:
        coefficients -= coefficients.mean(axis=1, keepdims=True)
    params = params._replace(experts=params.experts._replace(coefficients=coefficients))
    if isinstance(params.gate, SoftmaxGateParams):
        gate = scale * rng.randn(*params.gate.coefficients.shape)
        params = params._replace(gate=SoftmaxGateParams(gate - gate.mean(axis=0)))
    return params


# ----- the contract -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, arguments in CASES.items()
        for check in model_checks(*case(*arguments))
    ],
)
def test_conformance(check: Any) -> None:
    check()


@each_case
def test_loglik_and_responsibilities_are_those_of_scipy(which: str) -> None:
    """Also far from the optimum, where elementary functions of kernels are at their limits."""
    kind, gated, grouped, alpha = CASES[which]
    model, params, rows = case(kind, gated, grouped, alpha)
    for scale in (None, 1.0, 30.0):
        if scale is not None:
            params = moved(params, scale, np.random.RandomState(1))
        joint = log_densities(kind, params, rows.data)
        expected = logsumexp(joint, axis=1)
        # scipy's own densities of extreme counts carry 1e-10, and log sums over thousands lose as many digits
        assert_allclose(model.loglik(rows, params), expected, rtol=1e-9, atol=1e-9)
        resp = model.responsibilities(rows, params)
        assert_allclose(resp, np.exp(joint - expected[:, None]), atol=1e-8 * max(1.0, np.abs(joint).max() * 1e-4))
        assert_allclose(model.estep_stats(rows, params).loglik, expected.sum(), rtol=1e-9)


@each_case
def test_statistics_hold_derivatives(which: str) -> None:
    """The gradient that drives the M-step is that of the log-likelihood (Fisher's identity), by differences."""
    kind, gated, grouped, alpha = CASES[which]
    model, params, rows = case(kind, gated, grouped, alpha)
    stats = model.estep_stats(rows, params)
    step = 1e-5
    if kind == "gaussian":
        moments = stats.experts.moments
        gradient = moments[:, -1, :-1] / params.experts.scales[:, None] ** 2
    else:
        gradient = stats.experts.gradient
    slopes = np.empty_like(gradient)
    for place in np.ndindex(*gradient.shape):
        ends = []
        for sign in (1, -1):
            coefficients = params.experts.coefficients.copy()
            coefficients[place] += sign * step
            ends.append(model.loglik(rows, params._replace(experts=params.experts._replace(coefficients=coefficients))))
        slopes[place] = (ends[0] - ends[1]).sum() / (2 * step)
    # a central difference of a function of size 500: 500 * eps / step = 1e-8, and step**2 times the third derivative
    assert_allclose(gradient, slopes, atol=2e-6 * np.abs(gradient).max())
    if gated:
        for place in np.ndindex(*stats.gate.gradient.shape):
            ends = []
            for sign in (1, -1):
                coefficients = params.gate.coefficients.copy()
                coefficients[place] += sign * step
                ends.append(model.loglik(rows, params._replace(gate=SoftmaxGateParams(coefficients))).sum())
            assert abs(stats.gate.gradient[place] - (ends[0] - ends[1]) / (2 * step)) < 1e-5


def softmax_hessian(X: Any, weight: Any, p: Any) -> Any:
    """Return sum_i w_i (diag(p_i) - p_i p_i') x x', shape (C, C, q, q), one row after the other."""
    total = np.zeros((p.shape[1], p.shape[1], X.shape[1], X.shape[1]))
    for x, w, each in zip(X, weight, p, strict=True):
        total += w * np.multiply.outer(np.diag(each) - np.outer(each, each), np.outer(x, x))
    return total


@pytest.mark.parametrize(("n", "p", "K"), [(1, 1, 1), (1, 2, 3), (255, 3, 2), (257, 8, 4), (520, 9, 3), (513, 4, 5)])
def test_kernels_are_the_slow_reference(n: int, p: int, K: int) -> None:
    """Moments and derivatives, with rows and whole components of weight 0, on strips that are not full."""
    rng = np.random.RandomState(n)
    X = canonical(np.column_stack([np.ones(n), rng.randn(n, p - 1)]))
    resp = rng.dirichlet(np.ones(K), n).T * (rng.rand(n) < 0.8)
    if K > 2:
        resp[1] = 0.0
    resp = np.ascontiguousarray(resp)
    b = rng.randn(K, p)
    y, size = canonical(rng.poisson(2.0, n)), canonical(rng.uniform(0.5, 2.0, n))
    eta = b @ X.T

    moments = np.zeros((K, p + 1, p + 1))
    regressions.add_residual_moments(X, y, resp, b, moments)
    for k in range(K):
        joint = np.column_stack([X, y - eta[k]])
        assert_allclose(np.tril(moments[k]), np.tril((joint * resp[k][:, None]).T @ joint), rtol=1e-10, atol=1e-10)

    for poisson in (True, False):
        gradient, hessian = np.zeros((K, p)), np.zeros((K, p, p))
        regressions.add_count_derivatives(X, y, size, resp, b, poisson, gradient, hessian)
        mean = size * (np.exp(eta) if poisson else expit(eta))
        variance = mean if poisson else mean * (1 - expit(eta))
        assert_allclose(gradient, (resp * (y - mean)) @ X, rtol=1e-10, atol=1e-9)
        for k in range(K):
            expected = (X * (resp[k] * variance[k])[:, None]).T @ X
            assert_allclose(np.tril(hessian[k]), np.tril(expected), rtol=1e-10, atol=1e-9)

    gradient, hessian = np.zeros((K - 1, p)), np.zeros((K - 1, K - 1, p, p))
    softmax.add_gate_derivatives(X, resp, b, gradient, hessian)
    probabilities, weight = scipy_softmax(eta.T, axis=1), resp.sum(axis=0)
    assert_allclose(gradient, ((resp - weight * probabilities.T) @ X)[:-1], rtol=1e-10, atol=1e-9)
    expected = softmax_hessian(X, weight, probabilities)
    for c in range(K - 1):
        for d in range(c + 1):
            assert_allclose(np.tril(hessian[c, d]), np.tril(expected[c, d]), rtol=1e-10, atol=1e-9)

    labels, coefficients = canonical(rng.randint(0, 3, n)), rng.randn(K, 3, p)
    gradient, hessian = np.zeros((K, 2, p)), np.zeros((K, 2, 2, p, p))
    softmax.add_label_derivatives(X, labels, resp, coefficients, gradient, hessian)
    for k in range(K):
        probabilities = scipy_softmax(X @ coefficients[k].T, axis=1)
        errors = resp[k][:, None] * (np.eye(3)[labels.astype(int)] - probabilities)
        assert_allclose(gradient[k], (errors.T @ X)[:-1], rtol=1e-10, atol=1e-9)
        expected = softmax_hessian(X, resp[k], probabilities)
        for c, d in ((0, 0), (1, 0), (1, 1)):
            assert_allclose(np.tril(hessian[k, c, d]), np.tril(expected[c, d]), rtol=1e-10, atol=1e-9)


def test_units_are_never_split() -> None:
    """Slices and picks of grouped rows are those of whole groups, of any lengths."""
    n, indptr = 10, np.array([0, 1, 4, 4, 7, 10])
    z = canonical(np.arange(10.0).reshape(5, 2))
    data = RegressionRows(canonical(np.arange(20.0).reshape(n, 2)), canonical(np.arange(10.0)), gate=z, indptr=indptr)
    assert len(data) == 5
    part = data[1:4]
    assert_array_equal(part.observations().response, np.arange(1.0, 7.0))
    assert_array_equal(part.gate, z[1:4])
    picked = data.take(np.array([4, 0, 1]))
    assert_array_equal(picked.observations().response, [7, 8, 9, 0, 1, 2, 3])
    assert_array_equal(picked.indptr, [0, 3, 4, 7])
    assert_array_equal(picked[1:].observations().design[:, 0], [0, 2, 4, 6])


def test_many_small_blocks_are_one_large_one() -> None:
    """Statistics of rows that fill several blocks and strips add up, with groups and without."""
    for grouped in (False, True):
        model, params, rows = case("poisson", gated=True, grouped=grouped, n=30_000)
        whole = model.estep_stats(rows, params)
        half = len(rows.data) // 3
        parts = [model.estep_stats(slice_rows(rows, part), params) for part in (slice(0, half), slice(half, None))]
        together = map_fields(np.add, *parts)
        # sums of 30,000 terms in another order
        for a, b in zip(map_fields(np.ravel, whole.experts), map_fields(np.ravel, together.experts), strict=True):
            assert_allclose(a, b, rtol=ORDER, atol=1e-9 * np.abs(a).max())
        assert_allclose(whole.loglik, logsumexp(log_densities("poisson", params, rows.data), axis=1).sum(), rtol=1e-10)


# ----- steps ------------------------------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_objective_never_falls(which: str, scale: float) -> None:
    """From coefficients however far away, by no more than rounding; ends may be local or degenerate."""
    model, params, rows = case(*CASES[which])
    for seed in range(3):
        start = moved(params, scale, np.random.RandomState(seed))
        result = fit_em(model, rows, start, tol=0.0, max_iter=40)
        trace = result.objective_trace
        assert result.status in (Status.MAX_ITER, Status.DEGENERATE)
        # terms of up to |objective| each, summed with a few roundings
        assert np.all(np.diff(trace) >= -1e-13 * np.maximum(len(rows.data.design), np.abs(trace[1:])))


@pytest.mark.parametrize("kind", ["poisson", "binomial"])
@pytest.mark.parametrize("factor", [1.0, 1e4, 1e9])
def test_huge_counts(kind: str, factor: float) -> None:
    model, params, rows = case(kind, gated=False, grouped=False)
    data = rows.data
    big = RegressionRows(
        data.design, canonical(data.response * factor), canonical(data.size * factor), canonical(np.zeros(len(data)))
    )
    start = params._replace(experts=params.experts._replace(coefficients=params.experts.coefficients * 3))
    result = fit_em(model, ExpertsRows(big), start, tol=1e-10, max_iter=500)
    trace = result.objective_trace
    assert result.converged
    assert np.all(np.diff(trace) >= -1e-13 * np.abs(trace[1:]))


def test_step_keeps_its_bound() -> None:
    """The guaranteed gain h ((1 + c) log(1 + c) - c) / c**2 is reached by Poisson, logistic and softmax likelihoods."""
    rng = np.random.RandomState(0)
    for scale in (0.1, 1.0, 10.0, 100.0):
        X = np.column_stack([np.ones(50), rng.randn(50, 3)])
        bounds = column_bounds(X)
        b = scale * rng.randn(4) / 4
        y = rng.poisson(2.0, 50)

        def poisson(b: Any, X: Any = X, y: Any = y) -> float:
            return float(np.sum(y * (X @ b) - np.exp(X @ b)))

        def logistic(b: Any, X: Any = X, y: Any = y) -> float:
            return float(np.sum((y > 1) * (X @ b) - np.logaddexp(0, X @ b)))

        mean = np.exp(X @ b)
        odds = 1 / (1 + np.exp(-X @ b))
        for function, residual, variance, two_sided in (
            (poisson, y - mean, mean, False),
            (logistic, (y > 1) - odds, odds * (1 - odds), True),
        ):
            g, H = X.T @ residual, (X * variance[:, None]).T @ X
            delta = np.linalg.solve(H, g)
            c = float(largest_change(delta, bounds))
            if two_sided:
                c = max(c, float(largest_change(-delta, bounds)))
            assert c >= max(0.0, (X @ delta).max()) - 1e-12 * c
            step = ascent_steps(g[None], H[None], lambda _, c=c: np.array([c]))[0]
            gain = function(b + step) - function(b)
            promised = float(g @ delta) * (((1 + c) * np.log1p(c) - c) / c**2 if c > 0 else 0.5)
            # differences of sums of size |function|
            assert gain >= promised - 1e-12 * abs(function(b))
            assert promised > 0


def test_newton_needs_the_damping() -> None:
    """The negative control: a plain Newton step lowers a Poisson likelihood from coefficients too small."""
    X = np.column_stack([np.ones(20), np.linspace(-1, 1, 20)])
    y, b = np.full(20, 5.0), np.array([-4.0, 0.0])
    mean = np.exp(X @ b)
    g, H = X.T @ (y - mean), (X * mean[:, None]).T @ X

    def loglik(b: Any) -> float:
        with np.errstate(over="ignore"):
            return float(np.sum(y * (X @ b) - np.exp(X @ b)))

    assert loglik(b + np.linalg.solve(H, g)) < loglik(b)
    step = ascent_steps(g[None], H[None], lambda d: largest_change(d, column_bounds(X)))[0]
    assert loglik(b + step) > loglik(b)


def test_contrasts_and_singular_solutions() -> None:
    basis = contrasts(4)
    assert_allclose(basis.T @ basis, np.eye(3), atol=1e-15)
    assert_allclose(basis.sum(axis=0), 0, atol=1e-15)
    A = np.array([[[2.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    solved = solve_symmetric(A, np.array([[3.0, 2.0], [2.0, 2.0], [1.0, 1.0]]))
    assert_allclose(solved, [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], atol=1e-14)
    with pytest.raises(DegenerateError, match="derivatives overflow"):
        ascent_steps(np.array([[np.inf]]), np.ones((1, 1, 1)), lambda d: d[:, 0])


@pytest.mark.parametrize("alpha", [0.0, 0.7])
@pytest.mark.parametrize("equal", [False, True])
def test_gaussian_mstep_is_the_maximiser(alpha: float, equal: bool) -> None:
    """No perturbation of the M-step's parameters has a larger expected log-likelihood plus log prior."""
    model, params, rows = case("gaussian", gated=False, grouped=False)
    experts = GaussianExperts(alpha, (3.0, 0.5), equal)
    model = GatedExperts(experts, ConstantGate())
    if equal:
        params = params._replace(experts=params.experts._replace(scales=np.full(2, 1.3)))
    resp = model.responsibilities(rows, params)

    def expected(p: Any) -> float:
        joint = log_densities("gaussian", ExpertsParams(ConstantGateParams(np.ones(2)), p), rows.data)
        return float(np.sum(resp * joint)) + experts.log_prior(p)

    best = experts.mstep(model.estep_stats(rows, params).experts, params.experts)
    top = expected(best)
    rng = np.random.RandomState(0)
    for _ in range(50):
        scales = best.scales * np.exp(0.01 * (rng.randn() if equal else rng.randn(2)))
        other = GaussianExpertsParams(best.coefficients + 0.01 * rng.randn(2, 3), scales)
        assert expected(other) < top


def test_dead_component_keeps_its_parameters() -> None:
    for kind in KINDS:
        model, params, rows = case(kind, gated=False, grouped=False)
        start = params._replace(gate=ConstantGateParams(np.array([1.0, 0.0])))
        result = fit_em(model, rows, start, tol=0.0, max_iter=3)
        assert result.status is Status.MAX_ITER
        assert_array_equal(result.params.experts.coefficients[1], params.experts.coefficients[1])


def test_exact_fit_is_degenerate() -> None:
    """A component that fits its rows exactly has no maximum, without a prior on the scale."""
    model, params, rows = case("gaussian", gated=False, grouped=False)
    exact = RegressionRows(rows.data.design, canonical(rows.data.design @ [1.0, 2.0, 3.0]))
    stats = model.assigned_stats(ExpertsRows(exact), np.zeros(len(exact), np.int64), params)
    after = model.experts.mstep(stats.experts, params.experts)  # from afar: what is left may be rounding
    stats = model.assigned_stats(ExpertsRows(exact), np.zeros(len(exact), np.int64), params._replace(experts=after))
    with pytest.raises(DegenerateError, match=r"residuals of component 0 are all 0.*set scales_prior"):
        model.experts.mstep(stats.experts, after)
    kept = GaussianExperts(scales_prior=(1.0, 0.1)).mstep(stats.experts, after)
    assert_allclose(kept.scales[0], 0.1 / np.sqrt(len(exact) + 1), rtol=1e-6)


def test_impossible_rows_are_named() -> None:
    model, params, rows = case("poisson", gated=False, grouped=False)
    coefficients = np.zeros((2, 3))
    coefficients[:, 1] = 400.0
    row = int(np.argmax(rows.data.design[:, 1] * 400 > 600))
    with pytest.raises(ZeroDensityError, match=f"row {row} has density 0"):
        model.estep_stats(rows, params._replace(experts=params.experts._replace(coefficients=coefficients)))


def test_gate_of_one_component_is_certain() -> None:
    z = canonical(np.column_stack([np.ones(5), np.arange(5.0)]))
    gate = SoftmaxGate(column_bounds(z))
    params = gate.start(np.ones(1))
    assert gate.mstep(gate.zero_stats(params), params) is params
    assert_array_equal(gate.probabilities(z, params), np.ones((5, 1)))
