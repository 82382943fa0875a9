"""Properties that hold for every family, on data drawn by hypothesis.

Statistics are sums over rows: taken in another order they differ by about n eps of the sum of the sizes of their
terms, 1e-13 here. Responsibilities inherit the error of log densities, so sums of them are good to 1e-11.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference.cases import CASES, GAUSSIANS, PROBABILITIES, Case, slow_iteration
from sklearn.exceptions import ConvergenceWarning

from lvm import Rows, Status, fit_em
from lvm.execution import add_stats
from lvm.models.mixture import MixtureParams
from lvm.protocol import leaves

Array = NDArray[np.float64]

SEEDS = st.integers(0, 2**31 - 1)
every_case = pytest.mark.parametrize("case", CASES, ids=str)


class Problem:
    """Random rows, weights, labels and parameters of one case."""

    def __init__(self, case: Case, seed: int, n: int | None = None) -> None:
        rng = np.random.RandomState(seed)
        self.rng, self.case = rng, case
        n = rng.randint(1, 60) if n is None else n
        self.K, self.d = rng.randint(1, 5), rng.randint(1, 7)
        self.X = case.data(rng, n, self.d)
        self.weight = rng.randint(0, 4, n).astype(float)
        self.weight[0] = 1.0
        self.labels = np.where(rng.uniform(size=n) < 0.3, rng.randint(0, self.K, n), -1)
        self.params = case.random_mixture(rng, self.K, self.d)
        self.penalty = float(rng.choice([0.0, 0.3]))
        self.mixture = case.mixture(self.penalty)

    def stats(self, rows: Any = slice(None), weight: Array | None = None, params: Any = None) -> Any:
        weight = self.weight if weight is None else weight
        part = Rows(self.case.rows(self.X[rows]), weight[rows], self.labels[rows])
        return self.mixture.estep_stats(self.mixture.canonical(part), self.params if params is None else params)


def assert_same_stats(actual: Any, desired: Any, rtol: float = 1e-11) -> None:
    for a, b in zip(leaves(actual), leaves(desired), strict=True):
        assert_allclose(a, b, rtol=rtol, atol=rtol * max(1.0, float(np.max(np.abs(b)))))


def quiet_fit(estimator: Any, X: Any, **rows: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of iterations is meant
        return estimator.fit(X, **rows)


# ----- statistics ---------------------------------------------------------------------------------------------


@every_case
@given(seed=SEEDS)
def test_estep_and_mstep_equal_the_slow_iteration(case: Case, seed: int) -> None:
    problem = Problem(case, seed, n=80)
    problem.labels[:] = np.where(problem.labels >= 0, problem.labels, -1)
    desired = slow_iteration(case, problem.X, problem.params, problem.weight, problem.labels, problem.penalty)
    stats = problem.stats()
    assert_allclose(problem.mixture.objective(stats, problem.params), desired[0], rtol=1e-11, atol=1e-10)
    if problem.d * 4 > np.min(stats.counts):
        return  # too few rows for a covariance: the M-step rightly refuses
    new = problem.mixture.mstep(stats, problem.params)
    assert_allclose(new.weights, desired[1], rtol=1e-11)
    for actual, value in zip(case.plain(new.components), desired[2], strict=True):
        assert_allclose(actual, value, rtol=1e-9, atol=1e-9)


@every_case
@given(seed=SEEDS, cuts=st.lists(st.floats(0, 1), max_size=4))
def test_statistics_add_up_over_row_splits(case: Case, seed: int, cuts: list[float]) -> None:
    problem = Problem(case, seed)
    n = len(problem.X)
    edges = sorted({0, n, *(round(cut * n) for cut in cuts)})
    total = None
    for start, stop in pairwise(edges):
        part = problem.stats(slice(start, stop))
        total = part if total is None else add_stats(total, part)
    assert_same_stats(total, problem.stats())


@every_case
@given(seed=SEEDS)
def test_row_order_does_not_matter(case: Case, seed: int) -> None:
    problem = Problem(case, seed)
    assert_same_stats(problem.stats(problem.rng.permutation(len(problem.X))), problem.stats())


@every_case
@given(seed=SEEDS)
def test_integer_weights_equal_repeated_rows(case: Case, seed: int) -> None:
    problem = Problem(case, seed)
    repeated = np.repeat(np.arange(len(problem.X)), problem.weight.astype(int))
    assert_same_stats(problem.stats(repeated, np.ones(len(problem.X))), problem.stats())


@every_case
@given(seed=SEEDS)
def test_components_can_be_renamed(case: Case, seed: int) -> None:
    """Permuted components and labels give permuted statistics and the same log-likelihood."""
    problem = Problem(case, seed)
    order = problem.rng.permutation(problem.K)
    inverse = np.argsort(order)
    weights, components = problem.params
    shared = [len(field) != problem.K for field in components]
    renamed = [field if one else field[order] for field, one in zip(components, shared, strict=True)]
    # Probabilities are kept in Fortran order: one signature per kernel.
    kept = [np.asarray(new, order="F" if old.flags.f_contiguous else "C") for new, old in zip(renamed, components)]  # noqa: B905
    before = problem.stats()
    problem.labels = np.where(problem.labels >= 0, inverse[problem.labels], -1)
    after = problem.stats(params=MixtureParams(weights[order], type(components)(*kept)))
    moved = type(before.components)(*(f if len(f) != problem.K else f[order] for f in before.components))
    assert_same_stats(after, before._replace(counts=before.counts[order], components=moved))


# ----- fits ---------------------------------------------------------------------------------------------------


STRANGERS = [(case, far) for case in GAUSSIANS for far in (1e3, 1e100, 1e200)] + [(case, 1.0) for case in PROBABILITIES]


@pytest.mark.parametrize(("case", "far"), STRANGERS, ids=str)
def test_weight_zero_is_as_good_as_absent(case: Case, far: float) -> None:
    """Rows of weight 0 change no fit and no criterion, even where the mixture cannot produce them.

    1e200 is no invention: such values stand for "missing" in old files, and their squares overflow.
    """
    rng = np.random.RandomState(0)
    X = case.data(rng, 60, 3)
    stranger = np.full((1, 3), far)
    if not case.is_gaussian:  # a cell that is empty in all other rows
        X[:, 2] = 0.0
        stranger = np.array([[0.0, 0.0, far]])
    both, weight = np.vstack([X, stranger]), np.append(np.ones(60), 0.0)
    start = rng.dirichlet(np.ones(2), 61)
    without = quiet_fit(case.estimator(2, init_params=start[:60], max_iter=10, tol=0.0), case.rows(X))
    fitted = quiet_fit(
        case.estimator(2, init_params=start, max_iter=10, tol=0.0), case.rows(both), sample_weight=weight
    )
    assert_allclose(fitted.objective_trace_, without.objective_trace_, rtol=1e-12)
    rows = case.rows(both)
    assert_allclose(fitted.score(rows, sample_weight=weight), without.score(case.rows(X)), rtol=1e-12)
    for criterion in ("bic", "aic", "icl"):
        got = getattr(fitted, criterion)(rows, sample_weight=weight)
        assert_allclose(got, getattr(without, criterion)(case.rows(X)), rtol=1e-12)


@pytest.mark.parametrize("case", GAUSSIANS, ids=str)
@given(seed=SEEDS, shift=st.floats(-1e4, 1e4), exponent=st.integers(-490, 490))
def test_shift_and_scale_equivariance(case: Case, seed: int, shift: float, exponent: int) -> None:
    """Data a x + b give means a m + b, covariances a^2 S and a log-likelihood lower by n d log a.

    a is a power of 2, so that nothing is rounded; b is at most 1e4 standard deviations, which rounds x + b by 1e-12.
    """
    rng = np.random.RandomState(seed)
    n, d, a = 80, int(rng.randint(1, 4)), 2.0**exponent
    X = case.data(rng, n, d)
    labels = rng.randint(0, 2, n)
    fits = [
        quiet_fit(case.estimator(2, init_params=labels, tol=0.0, max_iter=5), data) for data in (X, (X + shift) * a)
    ]
    plain, moved = fits
    assert_allclose(moved.weights_, plain.weights_, rtol=1e-8)
    assert_allclose(moved.means_, (plain.means_ + shift) * a, rtol=1e-12, atol=1e-8 * a)
    assert_allclose(moved.covariances_, plain.covariances_ * a**2, rtol=1e-8, atol=1e-8 * a**2)
    assert_allclose(moved.objective_trace_ + n * d * np.log(a), plain.objective_trace_, rtol=1e-9)


@pytest.mark.parametrize("factor", [2.0**-498, 2.0**-40, 2.0**40, 2.0**498])
@every_case
def test_scale_of_weights_does_not_matter(case: Case, factor: float) -> None:
    """Weights times 1e-150 to 1e150 give the same path, and a log-likelihood times as much."""
    rng = np.random.RandomState(0)
    X, weight, start = case.rows(case.data(rng, 80, 3)), rng.uniform(0, 2, 80), rng.dirichlet(np.ones(2), 80)
    arguments: dict[str, Any] = {"init_params": start, "tol": 0.0, "max_iter": 5}
    plain, scaled = (quiet_fit(case.estimator(2, **arguments), X, sample_weight=weight * f) for f in (1.0, factor))
    assert_allclose(scaled.weights_, plain.weights_, rtol=1e-12)
    assert_allclose(scaled.objective_trace_, plain.objective_trace_ * factor, rtol=1e-12)


def assert_monotone(trace: Array, weight: float) -> None:
    """No step falls by more than rounding: about n eps of the sum of the sizes of the rows' terms."""
    assert np.all(np.diff(trace) > -1e-12 * max(weight, float(np.abs(trace).max())))


@every_case
@given(seed=SEEDS)
def test_objective_never_falls(case: Case, seed: int) -> None:
    """From random starts, with penalties and priors, row weights and labels, at every step."""
    problem = Problem(case, seed, n=100)
    rows = Rows(case.rows(problem.X), problem.weight, problem.labels)
    result = fit_em(problem.mixture, rows, problem.params, tol=0.0, max_iter=40)
    assert result.status in (Status.MAX_ITER, Status.DEGENERATE)
    assert len(result.objective_trace) == result.n_iter + 1
    assert_monotone(result.objective_trace, problem.weight.sum())


ANY_COUNTS = arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(1, 4)), elements=st.sampled_from([0, 1]))


@pytest.mark.parametrize("case", PROBABILITIES, ids=str)
@given(X=ANY_COUNTS, seed=SEEDS, penalty=st.sampled_from([0.0, 1e-3, 1.0]))
def test_objective_never_falls_on_tiny_tables(case: Case, X: Array, seed: int, penalty: float) -> None:
    """Tables with equal rows and columns, constant columns, empty rows: probabilities of 0 and 1 on the way."""
    resp = np.random.RandomState(seed).dirichlet(np.ones(2), len(X))
    fitted = quiet_fit(case.estimator(2, penalty, init_params=resp, tol=0.0, max_iter=30), case.rows(X))
    assert fitted.status_ is Status.MAX_ITER
    assert_monotone(fitted.objective_trace_, len(X))
    assert np.isfinite(fitted.probabilities_).all()
    assert_allclose(fitted.loglik_, fitted.score_samples(case.rows(X)).sum(), rtol=1e-12, atol=1e-12)


@every_case
@given(seed=SEEDS)
def test_reported_loglik_belongs_to_the_parameters(case: Case, seed: int) -> None:
    problem = Problem(case, seed, n=60)
    estimator = case.estimator(2, 0.3, init_params="random", random_state=seed, tol=0.0, max_iter=4)
    fitted = quiet_fit(estimator, case.rows(problem.X))
    assert_allclose(fitted.loglik_, fitted.score_samples(case.rows(problem.X)).sum(), rtol=1e-12, atol=1e-12)
    assert_allclose(fitted.predict_proba(case.rows(problem.X)).sum(axis=1), 1.0, rtol=1e-13)


@pytest.mark.parametrize("reg_covar", [1e-8, 1e-6, 1e-3])
def test_reported_loglik_of_a_start_far_below_reg_covar(reg_covar: float) -> None:
    """`loglik_` is not penalised, even where a start is so narrow that the penalty rules a component out."""
    X = np.random.RandomState(0).normal(size=(40, 1))
    X[:20] *= 1e-5
    start = {"weights_init": [0.5, 0.5], "means_init": [[0.0], [0.0]], "covariances_init": [[[1e-10]], [[1.0]]]}
    fitted = Case("full").estimator(2, reg_covar, max_iter=0, **start).fit(X)
    assert_allclose(fitted.loglik_, fitted.score_samples(X).sum(), rtol=1e-11)


# ----- threads ------------------------------------------------------------------------------------------------


def outcome(fitted: Any) -> list[Array]:
    names = ("weights_", "means_", "covariances_", "probabilities_", "objective_trace_")
    return [getattr(fitted, name) for name in names if hasattr(fitted, name)]


@pytest.fixture(scope="module", params=CASES, ids=str)
def large(request: pytest.FixtureRequest) -> tuple[Case, Any, Array]:
    """12,000 rows, five chunks; with a penalty, so that all code paths run."""
    case, rng = request.param, np.random.RandomState(0)
    return case, case.rows(case.data(rng, 12_000, 5)), rng.dirichlet(np.ones(3), 12_000)


def fit_large(large: tuple[Case, Any, Array], n_jobs: int | None) -> list[Array]:
    case, X, resp = large
    estimator = case.estimator(3, 0.01, init_params=resp, tol=0.0, max_iter=8, n_jobs=n_jobs)
    weight = np.arange(12_000) % 5 + 0.1
    return outcome(estimator.fit(X, sample_weight=weight))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_bitwise_equal_for_any_number_of_threads(large: tuple[Case, Any, Array]) -> None:
    first, *others = (fit_large(large, n_jobs) for n_jobs in (1, 2, 3, None))
    assert len(first) >= 3
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_eight_threads_fit_at_once(large: tuple[Case, Any, Array]) -> None:
    alone = fit_large(large, 1)
    with ThreadPoolExecutor(8) as pool:
        for together in pool.map(lambda _: fit_large(large, 2), range(8)):
            for a, b in zip(alone, together, strict=True):
                assert_array_equal(a, b)
