"""Categorical components: latent class analysis, with missing cells."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from conformance import each_check
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import dirichlet, multinomial

import lvm
from lvm._jit import canonical
from lvm.families import Categorical
from lvm.families.categorical import CategoricalParams
from lvm.kernels.cells import CodedRows
from lvm.models.mixture import MixtureParams


def random_params(family: Categorical, K: int, seed: int = 0) -> CategoricalParams:
    rng = np.random.RandomState(seed)
    return family.params(np.concatenate([rng.dirichlet(np.ones(c), K) for c in family.n_categories], axis=1))


def random_rows(family: Categorical, n: int, missing: float = 0.0, seed: int = 1) -> Any:
    """Return codes (n, d) drawn from two components, some of them -1."""
    rng = np.random.RandomState(seed)
    params = random_params(family, 2, seed)
    X = np.concatenate([family.sample(params, k, (n + k) // 2, rng) for k in range(2)])
    return np.where(rng.uniform(size=X.shape) < missing, -1, X)


def log_densities(family: Categorical, params: CategoricalParams, X: Any) -> Any:
    out = np.zeros((len(params.probabilities), len(X)))
    family.log_density(family.canonical(X), params, out)
    return out


def columns(family: Categorical, p: Any) -> list[Any]:
    """Return the probabilities of each column."""
    return np.split(p, np.cumsum(family.n_categories)[:-1], axis=-1)


# ----- density ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "K", "n_categories"), [(1, 1, [1]), (1, 1, [2]), (1, 3, [3, 1]), (300, 9, [2, 5, 3]), (20, 2, [400])]
)
def test_density_is_that_of_scipy(n: int, K: int, n_categories: list[int]) -> None:
    family = Categorical(n_categories)
    params, X = random_params(family, K), random_rows(family, n)
    desired = np.zeros((K, n))
    for k in range(K):
        for j, p in enumerate(columns(family, params.probabilities[k])):
            desired[k] += [multinomial.logpmf(np.eye(len(p))[x], 1, p / p.sum()) for x in X[:, j]]
    # scipy takes 1 less the others for the last probability, which loses digits where it is small.
    assert_allclose(log_densities(family, params, X), desired, rtol=1e-10, atol=1e-12)


def test_density_sums_to_one_over_the_table() -> None:
    family = Categorical([2, 3, 1, 4])
    table = np.array(list(product(range(2), range(3), range(1), range(4))))
    assert len(table) == 24
    assert_allclose(np.exp(log_densities(family, random_params(family, 5), table)).sum(axis=1), 1.0, rtol=1e-14)


def test_missing_cells_sum_over_their_completions() -> None:
    family = Categorical([2, 3, 4])
    params = random_params(family, 3)
    for row in product([-1, 0, 1], [-1, 0, 2], [-1, 3]):
        completions = list(
            product(*([x] if x >= 0 else range(c) for x, c in zip(row, family.n_categories, strict=True)))
        )
        desired = logsumexp(log_densities(family, params, completions), axis=1)
        assert_allclose(log_densities(family, params, [row])[:, 0], desired, rtol=1e-13, atol=1e-14, err_msg=str(row))


def test_impossible_categories_and_tiny_probabilities() -> None:
    family = Categorical([2, 3])
    p = [[0.0, 1.0, 1e-300, 0.0, 1.0], [1.0, 0.0, 0.0, 5e-324, 1.0]]
    actual = log_densities(family, family.params(np.array(p)), [[0, 0], [1, 0], [0, 1], [1, 2], [-1, -1], [0, -1]])
    desired = [
        [-np.inf, np.log(1e-300), -np.inf, 0.0, 0.0, -np.inf],
        [-np.inf, -np.inf, np.log(5e-324), -np.inf, 0.0, 0.0],
    ]
    assert_allclose(actual, desired, rtol=1e-15)


# ----- statistics and M-step ------------------------------------------------------------------------------------


def expected_objective(family: Categorical, probabilities: Any, resp: Any, X: Any) -> float:
    """Return the expected log-likelihood plus log prior, one cell at a time."""
    total = 0.0
    for k, p in enumerate(probabilities):
        for j, block in enumerate(columns(family, p)):
            total += (family.alpha - 1) * np.log(block).sum()
            total += sum(resp[k, i] * np.log(block[x]) for i, x in enumerate(X[:, j]) if x >= 0)
    return float(total)


def one_step(family: Categorical, X: Any, resp: Any, params: CategoricalParams) -> CategoricalParams:
    stats = family.zero_stats(params)
    family.accumulate(family.canonical(X), np.ascontiguousarray(resp), params, stats)
    return family.mstep(stats, params)


@pytest.mark.parametrize("alpha", [1.0, 1.7])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_mstep_counts_weighted_categories(alpha: float, missing: float) -> None:
    family = Categorical([3, 2, 1], alpha)
    X = random_rows(family, 90, missing)
    resp = np.random.RandomState(2).dirichlet([1.0, 2.0, 0.5], len(X)).T * (np.arange(len(X)) % 3)
    actual = one_step(family, X, resp, random_params(family, 3)).probabilities
    desired = []
    for j, c in enumerate(family.n_categories):
        counts = np.array([[resp[k, X[:, j] == x].sum() for x in range(c)] for k in range(3)]) + alpha - 1
        desired.append(counts / counts.sum(axis=1, keepdims=True))
    assert_allclose(actual, np.concatenate(desired, axis=1), rtol=1e-13)


@pytest.mark.parametrize("alpha", [1.0, 2.5])
def test_mstep_is_the_maximiser(alpha: float) -> None:
    """Neither a general optimiser nor a small step from its result leads higher."""
    family = Categorical([3, 2], alpha)
    X = random_rows(family, 60, 0.2)
    resp = np.random.RandomState(3).dirichlet([1.0, 1.0], len(X)).T
    found = one_step(family, X, resp, random_params(family, 2)).probabilities
    best = expected_objective(family, found, resp, X)

    def lower(vector: Any) -> float:
        blocks = columns(family, vector.reshape(found.shape))
        return -expected_objective(family, np.concatenate([softmax(b, axis=1) for b in blocks], axis=1), resp, X)

    # BFGS ends where the gradient is below 1e-5: 1e-10 below the maximum, as the curvature is of the order of 1.
    assert -minimize(lower, np.zeros(found.size)).fun == pytest.approx(best, abs=1e-8)
    logarithms = np.log(found)
    rng = np.random.RandomState(4)
    for _ in range(20):
        assert -lower(logarithms + 1e-3 * rng.normal(size=found.shape)) < best


@pytest.mark.parametrize("alpha", [1.0, 1.5])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_objective_never_falls(alpha: float, missing: float) -> None:
    family = Categorical([4, 2, 3, 1], alpha)
    X = random_rows(family, 400, missing)
    model = lvm.Mixture(family)
    start = MixtureParams(np.full(3, 1 / 3), random_params(family, 3, seed=9))
    trace = lvm.fit_em(model, lvm.Rows(X), start, tol=0.0, max_iter=60).objective_trace
    assert trace[-1] > trace[0] + 1
    assert np.diff(trace).min() > -1e-10  # rounding of a sum of 400 terms, of the order of 1e3 in all


def test_a_component_without_observations_keeps_its_probabilities() -> None:
    """Of a column where it saw none; where it has no weight at all, of every column."""
    family = Categorical([3, 2])
    params = random_params(family, 3)
    X = np.array([[0, -1], [2, -1], [0, -1], [1, 0]])
    resp = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    new = one_step(family, X, resp, params).probabilities
    assert_allclose(new[0, :3], [2 / 3, 0, 1 / 3], rtol=1e-15)
    assert_array_equal(new[0, 3:], params.probabilities[0, 3:])
    assert_array_equal(new[1], params.probabilities[1])
    assert_array_equal(new[2], [0, 1, 0, 1, 0])


def test_held_components() -> None:
    family = Categorical([3, 2, 1], held={"probabilities": np.array([True, False])})
    params, X = random_params(family, 2), random_rows(family, 50)
    new = one_step(family, X, np.random.RandomState(5).uniform(size=(2, 50)), params)
    assert_array_equal(new.probabilities[0], params.probabilities[0])
    assert_array_equal(new.log_cells[0], params.log_cells[0])
    assert np.abs(new.probabilities[1] - params.probabilities[1])[:5].min() > 0.001
    assert family.n_parameters(params) == 2 + 1
    assert Categorical([3, 2, 1]).n_parameters(params) == 2 * (2 + 1)


def test_log_prior_is_that_of_scipy() -> None:
    """Up to a constant: of two parameters, the difference is that of the Dirichlet densities."""
    family = Categorical([3, 1, 2], alpha=2.5)
    values = [random_params(family, 2, seed) for seed in (0, 1)]

    def density(params: CategoricalParams) -> float:
        blocks = [block for p in params.probabilities for block in columns(family, p) if len(block) > 1]
        return sum(float(dirichlet.logpdf(block / block.sum(), np.full(len(block), 2.5))) for block in blocks)

    difference = family.log_prior(values[0]) - family.log_prior(values[1])
    assert difference == pytest.approx(density(values[0]) - density(values[1]), rel=1e-12)
    assert Categorical([3, 1, 2]).log_prior(values[0]) == 0.0


# ----- rows, coordinates, draws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.float32, np.float64])
def test_codes_of_any_type(dtype: Any) -> None:
    X = np.asfortranarray(np.array([[0, 2], [-1, 1], [1, -1]], dtype))
    before = X.copy()
    rows = Categorical([2, 3]).canonical(X)
    assert_array_equal(rows.codes, [[0, 2], [-1, 1], [1, -1]])
    assert rows.codes.dtype == np.int32
    assert rows.codes.flags.c_contiguous
    assert not rows.codes.flags.writeable
    assert_array_equal(X, before)
    assert Categorical([2, 3]).canonical(rows) is rows


def test_nan_and_bool() -> None:
    family = Categorical([2, 3])
    assert_array_equal(family.canonical([[np.nan, 2.0], [-1.0, np.nan]]).codes, [[-1, 2], [-1, -1]])
    assert_array_equal(family.canonical(np.array([[True, False]])).codes, [[1, 0]])
    codes = canonical(np.array([[0, 1]]), np.int32)
    assert np.shares_memory(family.canonical(codes).codes, codes)


@pytest.mark.parametrize("value", [3, -2, 1.5, np.inf, -np.inf, 2.0**40])
def test_other_values_are_refused(value: float) -> None:
    X = np.zeros((20_000, 2))
    X[17_000, 1] = value
    X[17_001, 1] = -5
    X[3, 0] = np.nan
    rule = r"X must hold codes of categories, 0 to 2 for the 3 of this column, or -1 or NaN where missing"
    with pytest.raises(ValueError, match=rf"{rule}; got {float(value)} at row 17000, column 1\.".replace("+", r"\+")):
        Categorical([2, 3]).canonical(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 3)), r"X has 3 columns, but n_categories is given for 2\."),
        (np.zeros(4), r"X must have two dimensions, rows and features; got shape \(4,\)"),
        (np.array([["a", "b"]]), r"codes of categories as numbers, got dtype <U1; encode it first"),
    ],
)
def test_other_rows_are_refused(X: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Categorical([2, 3]).canonical(X)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([[0.5, 0.5, 0.2, 0.8]], r"a row per component and 5 columns, one per category; got shape \(1, 4\)\."),
        ([0.5, 0.5, 0.2, 0.3, 0.5], r"got shape \(5,\)\."),
        (
            [[0.5, 0.5, 1, 0, 0], [0.5, 0.5, 0.7, -0.2, 0.5]],
            r"\[0, 1\], got -0.2 in component 1, category 1 of column 1",
        ),
        ([[1.5, -0.5, 1, 0, 0]], r"within \[0, 1\], got 1.5 in component 0, category 0 of column 0\."),
        ([[np.nan, 0.5, 1, 0, 0]], r"got nan in component 0, category 0 of column 0\."),
        ([[0.5, 0.5, 1, 0, 0], [0.5, 0.5, 0.25, 0.5, 0]], r"component 1 in column 1 sum to 0.75, not 1\."),
    ],
)
def test_other_probabilities_are_refused(p: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Categorical([2, 3]).params(np.array(p))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_categories": []}, r"n_categories must be a list of integers >= 1, got \[\]\."),
        ({"n_categories": 3}, r"n_categories must be a list of integers >= 1, got 3\."),
        ({"n_categories": [2, 0]}, r"n_categories\[1\] must be an integer >= 1, got 0\."),
        ({"n_categories": [2.5]}, r"n_categories\[0\] must be an integer >= 1, got 2.5\."),
        ({"n_categories": [2], "alpha": 0.5}, r"alpha must be a finite number >= 1, got 0.5\."),
    ],
)
def test_other_arguments_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Categorical(**arguments)


def test_parameters_of_another_table_are_refused() -> None:
    """Kernels do not look."""
    family, rows = Categorical([2, 3]), CodedRows(canonical([[0, 0]], np.int32))
    with pytest.raises(ValueError, match=r"parameters have 4 categories in all, but n_categories sums to 5\."):
        family.log_density(rows, random_params(Categorical([2, 2]), 2), np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"there are 3 mixing weights, but parameters of 2 components"):
        family.log_density(rows, random_params(family, 2), np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"X has 1 features, but the parameters have 2"):
        family.log_density(CodedRows(canonical([[0]], np.int32)), random_params(family, 2), np.zeros((2, 1)))


def test_representation_and_start() -> None:
    family = Categorical(np.array([2, 3]), alpha=2)  # type: ignore[arg-type]  # an array serves as well
    assert repr(family) == "Categorical(n_categories=[2, 3], alpha=2)"
    params = family.start(family.canonical([[0, 0]]), np.ones(1), 2)
    assert_array_equal(params.probabilities, [[1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3]] * 2)


def test_given_probabilities_are_kept_as_they_are() -> None:
    p = np.array([[0.3333333, 0.6666666, 1.0]])
    params = Categorical([2, 1]).params(p)
    assert_array_equal(params.probabilities, p)
    assert_allclose(params.log_cells, [[0.0, *np.log(p[0, :2]), 0.0, 0.0]], rtol=1e-15)
    assert not np.shares_memory(params.probabilities, p)


def test_coordinates() -> None:
    family = Categorical([3, 1, 2])
    params = random_params(family, 2)
    vector = family.to_vector(params, params)
    assert_allclose(family.from_vector(vector, params).probabilities, params.probabilities, rtol=1e-15)
    vector[:3] = [-0.5, 0.5, 0.5]
    vector[4:6] = [-1.0, -2.0]
    inside = family.from_vector(vector, params).probabilities
    assert_allclose([p.sum(axis=1) for p in columns(family, inside)], 1.0, rtol=1e-15)
    assert (inside > 0).all()
    assert inside[0, 0] < 1e-9
    assert_allclose(inside[0, 4:], 0.5)
    assert_allclose(inside[1], params.probabilities[1], rtol=1e-15)


def test_missing_cells_are_filled_by_the_most_probable_category() -> None:
    family = Categorical([2, 3, 2])
    params = random_params(family, 3)
    X = random_rows(family, 40, 0.4).astype(float)
    resp = np.random.RandomState(6).dirichlet(np.ones(3), 40).T
    out = np.where(X < 0, np.nan, X)
    given = out.copy()
    family.fill(family.canonical(X), resp, params, out)
    assert np.isnan(given).sum() > 20
    for (i, j), value in np.ndenumerate(given):
        posterior = resp[:, i] @ columns(family, params.probabilities)[j]
        assert out[i, j] == (np.argmax(posterior) if np.isnan(value) else value)


def test_draws_are_possible_and_follow_the_probabilities() -> None:
    family = Categorical([3, 1, 2])
    params = family.params(np.array([[0.5, 0.0, 0.5, 1.0, 0.2, 0.8]]))
    X = family.sample(params, 0, 20_000, np.random.RandomState(7))
    assert X.shape == (20_000, 3)
    assert X.dtype == np.int64
    shares = [np.bincount(X[:, j], minlength=c) / len(X) for j, c in enumerate(family.n_categories)]
    # Five standard deviations of a share of 1/2.
    assert_allclose(np.concatenate(shares), params.probabilities[0], atol=5 * 0.5 / np.sqrt(20_000))
    assert shares[0][1] == 0
    assert abs(np.corrcoef(X[:, 0], X[:, 2])[0, 1]) < 5 / np.sqrt(20_000)


# ----- conformance ------------------------------------------------------------------------------------------------


def conformance_case(family: Categorical, missing: float, weighted: bool = False) -> tuple[Any, Any, Any]:
    rng = np.random.RandomState(8)
    p = np.array(
        [[0.7, 0.3, 0.2, 0.3, 0.5, 1.0, 0.1, 0.2, 0.3, 0.4], [0.2, 0.8, 0.6, 0.3, 0.1, 1.0, 0.4, 0.3, 0.2, 0.1]]
    )
    params = family.params(p)
    X = np.concatenate([family.sample(params, k, 150, rng) for k in range(2)])
    X = np.where(rng.uniform(size=X.shape) < missing, -1, X)
    if missing:
        X[7] = -1
    weight = rng.uniform(0.2, 2.0, len(X)) if weighted else None
    start = family.params(0.5 * p + 0.5 * p[::-1] + 0.3 * (p - p[::-1]))
    return lvm.Mixture(family), MixtureParams(np.array([0.4, 0.6]), start), lvm.Rows(X, weight)


MODELS = {
    "plain": conformance_case(Categorical([2, 3, 1, 4]), 0.0),
    "with prior": conformance_case(Categorical([2, 3, 1, 4], alpha=1.5), 0.0, weighted=True),
    "missing": conformance_case(Categorical([2, 3, 1, 4]), 0.1, weighted=True),
    "missing with prior": conformance_case(Categorical([2, 3, 1, 4], alpha=1.5), 0.3),
}


@each_check(MODELS)
def test_conformance(check: Any) -> None:
    check()


def test_a_row_without_any_cell_tells_nothing() -> None:
    family = Categorical([2, 3])
    model, params = lvm.Mixture(family), MixtureParams(np.array([0.3, 0.7]), random_params(family, 2))
    rows = lvm.Rows(np.full((1, 2), np.nan))
    assert_allclose(model.loglik(rows, params), 0.0, atol=1e-15)
    assert_allclose(model.responsibilities(rows, params), [[0.3, 0.7]], rtol=1e-15)
