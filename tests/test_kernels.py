"""Every compiled kernel equals its slow reference on awkward inputs.

Tolerances: a sum of n terms in another order differs by at most a few n eps of the sum of their sizes, 1e-13 for the
longest here; log densities add a few digits for the factorisation of a covariance of condition 1e2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference import slow
from reference.cases import CASES, GAUSSIANS, PROBABILITIES, Case
from scipy import sparse

from lvm._jit import canonical
from lvm.kernels.elementary import UNDERFLOW
from lvm.kernels.moments import column_moments
from lvm.kernels.responsibilities import NEGLIGIBLE, responsibilities
from lvm.kernels.strips import load_strip
from lvm.kernels.triangular import inverse_cholesky
from lvm.protocol import DegenerateError

Array = NDArray[np.float64]

# n around the strips of 256 rows, d around the unrolled steps of 4, and the smallest of everything.
SHAPES = [(1, 1, 1), (1, 3, 2), (2, 1, 3), (255, 2, 4), (256, 3, 5), (257, 2, 6), (513, 3, 7), (30, 2, 8), (40, 3, 9)]
SHAPES += [(5, 1, d) for d in range(1, 10)]
PLACES = [(0.0, 1.0), (1e8, 1.0), (0.0, 1e150), (0.0, 1e-150)]  # offset, scale


def sum_close(actual: Any, desired: Any, size: Any) -> None:
    """Compare sums with a tolerance relative to the sum of the sizes of their terms."""
    assert_allclose(actual, desired, rtol=0, atol=1e-13 * float(np.max(size)) + 1e-320)


def random_resp(rng: np.random.RandomState, K: int, n: int) -> Array:
    """Return weighted responsibilities, with rows of weight 0 and with zeros."""
    resp = rng.dirichlet(np.full(K, 0.5), n).T * rng.randint(0, 4, n)
    resp[:, 0] = 1 / K
    return np.ascontiguousarray(resp)


def log_density(case: Case, X: Array, params: Any) -> Array:
    """Return what the family adds to an array that is not empty."""
    family, start = case.family(), 0.5
    out = np.full((len(params[0]), len(X)), start)
    family.log_density(family.canonical(case.rows(X)), params, out)
    return out - start


def stats_of(case: Case, X: Array, resp: Array, params: Any, times: int = 1) -> Any:
    """Return the statistics of X, added several times to the same arrays."""
    family = case.family()
    stats = family.zero_stats(params)
    for _ in range(times):
        family.accumulate(family.canonical(case.rows(X)), resp, params, stats)
    return stats


# ----- families -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "K", "d"), SHAPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_log_density(case: Case, n: int, K: int, d: int) -> None:
    rng = np.random.RandomState(n + d)
    X, params = case.data(rng, n, d), case.random_params(rng, K, d)
    assert_allclose(log_density(case, X, params), case.slow_log_density(X, params), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("offset", "scale"), PLACES)
@pytest.mark.parametrize("case", GAUSSIANS, ids=str)
def test_gaussian_log_density_of_far_and_scaled_data(case: Case, offset: float, scale: float) -> None:
    rng = np.random.RandomState(0)
    base = case.random_params(rng, 2, 5)
    X = case.data(rng, 257, 5) * scale + offset
    params = case.family().params(base.means * scale + offset, base.covariances * scale**2)
    assert_allclose(log_density(case, X, params), case.slow_log_density(X, params), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(("n", "K", "d"), SHAPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_accumulate(case: Case, n: int, K: int, d: int) -> None:
    rng = np.random.RandomState(n + d)
    X, params, resp = case.data(rng, n, d), case.random_params(rng, K, d), random_resp(rng, K, n)
    stats = stats_of(case, X, resp, params, times=2)
    resp *= 2
    assert_allclose(stats.counts, resp.sum(axis=1), rtol=1e-13)
    if not case.is_gaussian:
        assert_allclose(stats[1], resp @ X, rtol=1e-13)
        return
    _, first, second = slow.moments(X, resp, params.means)
    size = np.max(np.abs(X[None] - params.means[:, None])) * resp.sum()
    sum_close(stats.first, first, size)
    if stats.second.ndim == 2:
        sum_close(stats.second, np.diagonal(second, axis1=1, axis2=2), size**2)
    else:
        second = second.sum(axis=0, keepdims=True) if case.kind == "tied" else second
        lower = np.tril_indices(d)
        sum_close(stats.second[:, *lower], second[:, *lower], size**2)


@pytest.mark.parametrize("penalty", [0.0, 0.5])
@pytest.mark.parametrize(("n", "K", "d"), [(257, 2, 1), (257, 3, 4), (513, 2, 7), (60, 1, 9)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_mstep(case: Case, n: int, K: int, d: int, penalty: float) -> None:
    rng = np.random.RandomState(n)
    X, params, resp = case.data(rng, n, d), case.random_params(rng, K, d), random_resp(rng, K, n)
    new = case.family(penalty).mstep(stats_of(case, X, resp, params), params)
    for actual, desired in zip(case.plain(new), case.slow_mstep(X, resp, penalty), strict=True):
        assert_allclose(actual, desired, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("offset", "scale"), PLACES)
@pytest.mark.parametrize("case", GAUSSIANS, ids=str)
def test_gaussian_mstep_of_far_and_scaled_data(case: Case, offset: float, scale: float) -> None:
    """An offset of 1e8 standard deviations costs the covariances no digits beyond those of the data."""
    rng = np.random.RandomState(3)
    X = case.data(rng, 300, 3) * scale + offset
    resp = random_resp(rng, 2, 300)
    base = case.random_params(rng, 2, 3)
    params = case.family().params(base.means * scale + offset, base.covariances * scale**2)
    means, covariances = case.plain(case.family().mstep(stats_of(case, X, resp, params), params))
    slow_means, slow_covariances = case.slow_mstep(X, resp)
    assert_allclose(means, slow_means, rtol=4e-16, atol=1e-12 * scale)
    assert_allclose(covariances, slow_covariances, rtol=1e-11, atol=1e-12 * scale**2)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e8])
@pytest.mark.parametrize("case", GAUSSIANS, ids=str)
def test_gaussian_mstep_of_constant_data(case: Case, value: float) -> None:
    """Equal rows have no maximum likelihood covariance; reg_covar alone is left of a regularised one."""
    X, resp = np.full((50, 3), value), np.full((2, 50), 0.5)
    params = case.family().start(X + np.arange(50)[:, None] % 7, np.ones(50), 2)
    stats = stats_of(case, X, resp, params)
    # Once more about the new mean, as a fit would: the rounding of the first centre is gone.
    centred = case.family(0.25).mstep(stats, params)
    stats = stats_of(case, X, resp, centred)
    with pytest.raises(DegenerateError, match="singular to rounding"):
        case.family().mstep(stats, centred)
    again = case.plain(case.family(0.25).mstep(stats, centred))
    assert_allclose(again[0], value, rtol=1e-15)
    assert_allclose(again[1], np.repeat(0.25 * np.eye(3)[None], 2, axis=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dead_component_keeps_its_parameters(case: Case) -> None:
    rng = np.random.RandomState(5)
    X, params = case.data(rng, 60, 3), case.random_params(rng, 2, 3)
    resp = np.vstack([np.ones(60), np.zeros(60)])
    new, old = (case.plain(p) for p in (case.family().mstep(stats_of(case, X, resp, params), params), params))
    for after, before in zip(new, old, strict=True):
        assert np.all(np.isfinite(after))
        if case.kind != "tied" or after is new[0]:
            assert_array_equal(after[1], before[1])
    desired = case.slow_mstep(X, resp[:1])
    for after, value in zip(new, desired, strict=True):
        assert_allclose(after[0], value[0], rtol=1e-11, atol=1e-12)


# ----- probabilities of 0 and 1, sparse rows, large counts ----------------------------------------------------


@pytest.mark.parametrize("is_sparse", [False, True])
def test_bernoulli_certain_features(is_sparse: bool) -> None:
    """All combinations of p in {0, 1, 0.3} and x in {0, 1}: impossible rows are -inf, certain cells cost nothing."""
    p = np.array(np.meshgrid([0.0, 1.0, 0.3], [0.0, 1.0, 0.3], [0.0, 1.0, 0.3])).reshape(3, -1).T
    X = np.array(np.meshgrid([0.0, 1.0], [0.0, 1.0], [0.0, 1.0])).reshape(3, -1).T
    case = Case("bernoulli", is_sparse)
    params = case.family().params(p)
    desired = case.slow_log_density(X, params)
    assert np.isneginf(desired).any()
    assert (desired == 0).any()
    assert_allclose(log_density(case, X, params), desired, rtol=1e-14)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_multinomial_impossible_cells(is_sparse: bool) -> None:
    case = Case("multinomial", is_sparse)
    params = case.family().params(np.array([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.5, 0.25, 0.25]]))
    X = np.array([[1.0, 2, 0], [0, 0, 1], [3, 0, 0], [0, 0, 0], [2, 1, 4]])
    desired = case.slow_log_density(X, params)
    assert np.isneginf(desired).sum() == 5
    assert_allclose(log_density(case, X, params), desired, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("largest", [1, 2, 1022, 1023, 1024, 1025, 5000, 10**6])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_multinomial_large_counts(is_sparse: bool, largest: int) -> None:
    """Counts on both sides of the end of the table of log factorials."""
    case = Case("multinomial", is_sparse)
    params = case.family().params(np.array([[0.2, 0.3, 0.5]]))
    X = np.array([[largest, 0.0, 0.0], [0.0, largest, 1.0], [largest, largest, largest]])
    # The terms, x log x in size, nearly cancel: each is good to 1e-15 of that.
    size = 3 * largest * np.log(3 * largest + 1)
    assert_allclose(log_density(case, X, params), case.slow_log_density(X, params), rtol=0, atol=4e-15 * size + 1e-14)


@pytest.mark.parametrize("case", [c for c in PROBABILITIES if c.is_sparse], ids=str)
def test_untidy_csr(case: Case) -> None:
    """Stored zeros, unsorted columns, empty rows, no entry at all: as the dense rows, and the input is untouched."""
    data, indices = np.array([1.0, 0.0, 1.0, 1.0]), np.array([3, 1, 0, 2])
    untidy = sparse.csr_matrix((data, indices, np.array([0, 0, 3, 3, 4])), shape=(4, 4))
    before = untidy.copy()
    rng = np.random.RandomState(0)
    params, resp = case.random_params(rng, 2, 4), random_resp(rng, 2, 4)
    for matrix in (untidy, sparse.csr_matrix((4, 4)), untidy.tocsc(), sparse.csr_array(untidy), untidy.tocoo()):
        family, dense, out = case.family(), Case(case.kind), np.zeros((2, 4))
        rows = family.canonical(matrix)
        family.log_density(rows, params, out)
        assert_allclose(out, log_density(dense, matrix.toarray(), params), rtol=1e-13)
        stats = family.zero_stats(params)
        family.accumulate(rows, resp, params, stats)
        for actual, desired in zip(stats, stats_of(dense, matrix.toarray(), resp, params), strict=True):
            assert_allclose(actual, desired, rtol=1e-14)
    for name in ("data", "indices", "indptr"):
        assert_array_equal(getattr(untidy, name), getattr(before, name))


def test_duplicate_csr_counts_add() -> None:
    """Two entries of one cell are one count of their sum, as in scipy."""
    matrix = sparse.csr_matrix((np.array([2.0, 3.0, 1.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    case = Case("multinomial", is_sparse=True)
    params, out = case.family().params(np.array([[0.4, 0.6]])), np.zeros((1, 2))
    case.family().log_density(case.family().canonical(matrix), params, out)
    assert_allclose(out, case.slow_log_density(np.array([[0.0, 5.0], [1.0, 0.0]]), params), rtol=1e-13)


# ----- responsibilities ---------------------------------------------------------------------------------------


def run_responsibilities(
    density: Array,
    weights: Array,
    weight: Array,
    labels: NDArray[np.int64],
    penalty: Array,
    smallest: float = UNDERFLOW,
) -> tuple[slow.Posterior, int, Array]:
    K, n = density.shape
    resp, counts, rows = density.copy(), np.full(K, 10.0), np.empty(n)
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    known = canonical(labels, np.int64)
    found = responsibilities(resp, log_weights, penalty, canonical(weight), known, counts, rows, smallest)
    return slow.Posterior(resp, rows, *found[:2]), found[2], counts - 10.0


@pytest.mark.parametrize("penalised", [False, True])
@pytest.mark.parametrize("spread", [1.0, 50.0, 1e4])
@pytest.mark.parametrize(("n", "K"), [(1, 1), (1, 4), (255, 1), (256, 2), (257, 3), (513, 5)])
def test_responsibilities(n: int, K: int, spread: float, penalised: bool) -> None:
    """Impossible components, rows of weight 0, labels, and weights of 0, for densities from near to far apart."""
    rng = np.random.RandomState(n + K)
    density = spread * rng.normal(size=(K, n)) - 1000
    density[rng.uniform(size=(K, n)) < 0.2] = -np.inf
    density[0] = np.where(np.isneginf(density).all(axis=0), -3.0, density[0])
    weight = rng.choice([0.0, 0.5, 1.0, 3.0], n)
    weight[0] = 1.0
    labels = np.where(rng.uniform(size=n) < 0.3, rng.randint(0, K, n), -1)
    labels[np.isneginf(density[labels, np.arange(n)])] = -1
    weights = rng.dirichlet(np.ones(K))
    if K > 2:
        weights = np.append(weights[:-2], [weights[-2] + weights[-1], 0.0])
        labels[labels == K - 1] = -1
        density[0, np.isneginf(density[:-1]).all(axis=0)] = 0.0
    penalty = -rng.uniform(0, 3, K) if penalised else np.zeros(K)
    desired = slow.posterior(density, weights, weight, labels, penalty)
    actual, impossible, counts = run_responsibilities(density, weights, weight, labels, penalty)
    assert impossible == -1
    # A log density of size 1e4 is itself good to 1e-12, and so is its exp.
    # A log density of size 1e4 is itself good to 1e-12, and so is its exp.
    assert_allclose(actual.resp, desired.resp, rtol=1e-11, atol=1e-300)
    assert_allclose(actual.loglik, desired.loglik, rtol=1e-13, atol=1e-12)
    assert_allclose(actual.penalty, desired.penalty, rtol=1e-11, atol=1e-11)
    assert_allclose(counts, desired.resp.sum(axis=1), rtol=1e-11, atol=1e-12)
    used = weight > 0
    assert_allclose(actual.row_loglik[used], desired.row_loglik[used], rtol=1e-13, atol=1e-12)


def test_negligible_responsibilities_become_zero_and_change_no_sum() -> None:
    density = np.array([[0.0, 0.0, 0.0, -50.0], [-39.0, -39.9, -40.1, 0.0], [-1.0, -800.0, -60.0, -40.2]])
    arguments = (density, np.ones(3) / 3, np.array([1.0, 2.0, 0.5, 1.0]), np.full(4, -1), np.array([0.0, 0.0, -3.0]))
    exact, _, exact_counts = run_responsibilities(*arguments)
    pruned, _, counts = run_responsibilities(*arguments, smallest=NEGLIGIBLE)
    assert_array_equal(pruned.resp == 0, [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 1, 1]])
    assert_allclose(pruned.resp, exact.resp, rtol=1e-15, atol=np.exp(-40))
    assert_allclose(counts, exact_counts, rtol=1e-15)
    assert_allclose((pruned.loglik, pruned.penalty), (exact.loglik, exact.penalty), rtol=1e-15)


@pytest.mark.parametrize("at", [0, 255, 256, 400])
def test_responsibilities_name_the_first_impossible_row(at: int) -> None:
    density = np.zeros((2, 401))
    density[:, at:] = -np.inf
    none = np.full(401, -1)
    actual, impossible, _ = run_responsibilities(density, np.ones(2) / 2, np.ones(401), none, np.zeros(2))
    assert impossible == at
    assert np.all(np.isneginf(actual.row_loglik[at:]))
    assert_array_equal(actual.resp[:, at:], 0.0)


def test_responsibilities_of_an_impossible_label() -> None:
    """A label on a component that cannot have made the row is impossible, whatever the others say."""
    density = np.array([[0.0, 0.0], [0.0, -np.inf]])
    labels = np.array([-1, 1])
    assert run_responsibilities(density, np.ones(2) / 2, np.ones(2), labels, np.zeros(2))[1] == 1


def test_impossible_rows_of_weight_zero_do_not_count() -> None:
    density = np.array([[-np.inf, -1.0, -2.0]])
    weight, none = np.array([0.0, 1.0, 2.0]), np.full(3, -1)
    actual, impossible, counts = run_responsibilities(density, np.ones(1), weight, none, np.zeros(1))
    assert impossible == -1
    assert actual.loglik == -5.0
    assert_array_equal(counts, [3.0])


@pytest.mark.parametrize("far", [10.0, 300.0, 690.0, 1e4])
def test_penalty_and_loglik_separate(far: float) -> None:
    """The log-likelihood is that without the penalty, however hard the penalty hits the likeliest component."""
    density, penalty = np.array([[0.0, 1.0], [-5.0, -4.0]]), np.array([-far, 0.0])
    weights, weight, none = np.array([0.3, 0.7]), np.array([1.0, 2.0]), np.full(2, -1)
    desired = slow.posterior(density, weights, weight, none, penalty)
    actual, _, _ = run_responsibilities(density, weights, weight, none, penalty)
    assert_allclose(actual.loglik, desired.loglik, rtol=1e-11)
    assert_allclose(actual.penalty, desired.penalty, rtol=1e-11)
    assert_allclose(actual.row_loglik, desired.row_loglik, rtol=1e-11)


# ----- shared kernels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e150, 1e-150])
@pytest.mark.parametrize("d", range(1, 10))
def test_inverse_cholesky(d: int, scale: float) -> None:
    rng = np.random.RandomState(d)
    root = rng.normal(size=(d, d))
    matrix = root @ root.T + 0.1 * np.eye(d)
    lower = np.linalg.cholesky(matrix)
    given = np.tril(matrix * scale**2) + np.triu(np.full((d, d), np.nan), 1)  # the upper half is not read
    inverse = np.full((d, d), np.nan)
    share = inverse_cholesky(given, inverse)
    assert_allclose(inverse * scale, np.linalg.inv(lower), rtol=1e-10, atol=1e-11)
    assert_array_equal(np.triu(inverse, 1), 0.0)
    assert share == pytest.approx(np.min(np.diag(lower) ** 2 / np.diag(matrix)), rel=1e-11)


SINGULAR: list[Any] = [[[value]] for value in (0.0, -1.0, np.nan, np.inf)]
SINGULAR += [[[a, b], [b, c]] for a, b, c in [(4, 2, 1), (1, 2, 1), (1, 0, 0), (0, 0, 1), (1, np.nan, np.nan)]]
SINGULAR += [[[1, 0, 1], [0, 1, 1], [1, 1, 2]]]


@pytest.mark.parametrize("matrix", SINGULAR)
def test_inverse_cholesky_of_singular_matrices(matrix: Any) -> None:
    """Not positive definite: a share of 0 and no exception, also for NaN and infinity."""
    array = np.array(matrix, np.float64)
    assert inverse_cholesky(array, np.empty_like(array)) == 0.0


@pytest.mark.parametrize(("offset", "scale"), PLACES)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 3), (500, 4)])
def test_column_moments(n: int, d: int, offset: float, scale: float) -> None:
    rng = np.random.RandomState(n)
    X = rng.normal(size=(n, d)) * scale + offset
    weight = rng.choice([0.0, 0.5, 2.0], n)
    weight[-1] = 1.0
    mean, variance = np.empty(d), np.empty(d)
    column_moments(canonical(X), canonical(weight), mean, variance)
    centre = X[-1] + np.average(X - X[-1], axis=0, weights=weight)
    assert_allclose(mean, centre, rtol=4e-16, atol=1e-13 * scale)
    assert_allclose(variance, np.average((X - centre) ** 2, axis=0, weights=weight), rtol=1e-12, atol=1e-14 * scale**2)


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_load_strip(dtype: type) -> None:
    X = canonical(np.arange(24).reshape(8, 3), dtype)
    strip = np.full((4, 10), -1.0)
    load_strip(X, 2, 5, strip)
    assert_array_equal(strip[:3, :5], X[2:7].T)
    assert_array_equal(strip[3], -1.0)
    assert_array_equal(strip[:, 5:], -1.0)
