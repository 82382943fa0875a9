"""Rows sorted by their likeliest component give the same sums as rows as they lie, from fewer densities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from test_estep import equal

import lvm
from lvm.execution import Execution
from lvm.families import FullGaussian
from lvm.kernels import passes
from lvm.kernels.estep import run_estep
from lvm.kernels.guesses import BLOCK, pays, sort_by_guess
from lvm.kernels.panels import POINTS, padded
from lvm.kernels.passes import MIN_PAIRS, MIN_SORTED_COMPONENTS, TRIAL
from lvm.kernels.responsibilities import NEGLIGIBLE
from lvm.kernels.workspace import ROWS, USED
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, ZeroDensityError, leaves

Array = NDArray[np.float64]
both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def problem(n: int, d: int, K: int, apart: float, dtype: Any = np.float64) -> tuple[Any, MixtureParams, Array]:
    """Return a family, parameters near the truth, and rows (n, d) of components so many standard deviations apart."""
    rng = np.random.default_rng(d)
    means = apart * rng.standard_normal((K, d))
    roots = np.eye(d) + 0.3 * rng.standard_normal((K, d, d)) / np.sqrt(d)
    component = rng.integers(K, size=n)
    X = means[component] + np.einsum("nij,nj->ni", roots[component], rng.standard_normal((n, d)))
    family = FullGaussian(dtype=dtype)
    components = family.params(means + 0.1 * rng.standard_normal((K, d)), roots @ roots.swapaxes(1, 2))
    return family, MixtureParams(rng.dirichlet(np.full(K, 5.0)), components), X


@pytest.fixture
def sorted_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that fills with the lengths of the blocks of rows that are sorted."""
    lengths: list[int] = []

    def sort(rows: Any, *others: Any) -> None:
        lengths.append(len(rows))
        sort_by_guess(rows, *others)

    monkeypatch.setattr(passes, "sort_by_guess", sort)
    return lengths


def both(family: Any, rows: Rows, params: MixtureParams, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Return the statistics of rows as they may be sorted, and of rows as they lie."""
    rows = Mixture(family).canonical(rows)
    free = Mixture(family).estep_stats(rows, params)
    monkeypatch.setattr(passes, "MIN_PAIRS", np.inf)
    return free, Mixture(family).estep_stats(rows, params)


@pytest.mark.parametrize("d", [2, 3, 8, 17])
@pytest.mark.parametrize("K", [8, 11, 40])
def test_statistics(d: int, K: int, sorted_blocks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """In several blocks, the last a short one, with weights, some 0."""
    family, params, X = problem(10_000, d, K, 160.0 / d)
    weight = np.random.default_rng(1).integers(0, 3, 10_000).astype(float)
    monkeypatch.setattr(passes, "BLOCK", 4096)
    free, as_they_lie = both(family, Rows(X, weight), params, monkeypatch)
    assert sorted_blocks == [4096, 4096, 10_000 - 2 * POINTS - 2 * 4096]
    equal(free, as_they_lie)


def test_penalties(sorted_blocks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    family, params, X = problem(10_000, 5, 12, 20.0)
    family.reg_covar = 0.1
    free, as_they_lie = both(family, Rows(X), params, monkeypatch)
    assert sorted_blocks
    assert free.penalty < 0
    equal(free, as_they_lie)


def test_float32(sorted_blocks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    family, params, X = problem(10_000, 9, 12, 20.0, np.float32)
    free, as_they_lie = both(family, Rows(X), params, monkeypatch)
    assert sorted_blocks
    equal(free, as_they_lie, 1e-6)


def test_components_of_weight_zero(sorted_blocks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose likeliest component weighs nothing look at the others, however far those are."""
    family, params, X = problem(6000, 4, 12, 20.0)
    weights = np.r_[0.0, np.full(11, 1 / 11)]
    free, as_they_lie = both(family, Rows(X), params._replace(weights=weights), monkeypatch)
    assert sorted_blocks
    assert free.counts[0] == 0.0
    equal(free, as_they_lie)


@both_dtypes
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_rows_that_repeat_the_mean(
    weight: float, d: int, dtype: Any, sorted_blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At distance 0 from one component, the next one still counts."""
    K, n = 12, 8000
    rng = np.random.default_rng(0)
    means = 60.0 * np.arange(K)[:, None] * np.ones(d)
    means[1] = means[0]
    means[1, 0] += 1.0
    covariances = np.repeat(np.eye(d)[None], K, axis=0)
    covariances[0] *= 1e-4 if weight else 1.0
    component = rng.integers(K, size=n)
    X = means[component] + rng.standard_normal((n, d)) * (component > 0)[:, None]
    family = FullGaussian(dtype=dtype)
    weights = np.r_[weight, np.full(K - 1, (1 - weight) / (K - 1))]
    params = MixtureParams(weights, family.params(means, covariances))
    free, as_they_lie = both(family, Rows(X.astype(dtype)), params, monkeypatch)
    assert sorted_blocks
    equal(free, as_they_lie, 1e-12 if dtype is np.float64 else 1e-6)


def test_far_rows(sorted_blocks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess may be wrong by any amount: where few rows lie between components or beyond, or fit none."""
    family, params, X = problem(6000, 4, 12, 20.0)
    X[1000:3000:7] *= np.random.default_rng(0).uniform(0, 30, (len(X[1000:3000:7]), 1))
    covariances = params.components.covariances.copy()
    covariances[:3] *= 16.0
    params = params._replace(components=family.params(params.components.means, covariances))
    free, as_they_lie = both(family, Rows(X), params, monkeypatch)
    assert sorted_blocks
    equal(free, as_they_lie)


def test_the_first_impossible_row_is_named() -> None:
    family, params, X = problem(8000, 4, 12, 20.0)
    X[[7000, 5555, 5556]] = 1e200
    with pytest.raises(ZeroDensityError) as caught:
        Mixture(family).estep_stats(Rows(X), params)
    assert caught.value.row == 5555


def test_rows_are_not_sorted_where_components_overlap(sorted_blocks: list[int]) -> None:
    family, params, X = problem(8000, 4, 12, 1.0)
    Mixture(family).estep_stats(Rows(X), params)
    assert sorted_blocks == []


def test_sorting_ends_where_it_does_not_pay(sorted_blocks: list[int]) -> None:
    """Rows that are told apart at first, and not later."""
    family, params, X = problem(20_000, 8, 12, 20.0)
    wide = params.components._replace(
        covariances=params.components.covariances * 900, inverse_cholesky=params.components.inverse_cholesky / 30
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "run_estep", run_hopeful)
        patch.setattr(passes, "BLOCK", 4096)
        begun = Mixture(family).estep_stats(Rows(X), params._replace(components=wide))
    assert len(sorted_blocks) == 1
    equal(begun, Mixture(family).estep_stats(Rows(X), params._replace(components=wide)))


def run_hopeful(*given: Any) -> Any:
    """Run an E-step whose trial ends early, with few responsibilities, whatever it finds."""
    X, params, posterior, resp, space, stats, steps, trial = given
    if trial:
        rows, weight = X[:trial], posterior.weight[:trial]
        done = run_estep(rows, params, posterior._replace(weight=weight), resp, space, stats, steps, 0)
        space.values.strip.tally[[ROWS, USED]] = trial, 0
        return done
    return run_estep(*given)


@pytest.mark.parametrize(("n", "K"), [(MIN_PAIRS // 12 - 1, 12), (8000, MIN_SORTED_COMPONENTS - 1)])
def test_small_problems_are_not_tried(n: int, K: int, sorted_blocks: list[int]) -> None:
    family, params, X = problem(n, 4, K, 20.0)
    Mixture(family).estep_stats(Rows(X), params)
    assert sorted_blocks == []


def test_labels_leave_rows_as_they_lie(sorted_blocks: list[int]) -> None:
    family, params, X = problem(8000, 4, 12, 20.0)
    labels = np.full(8000, -1)
    model = Mixture(family)
    equal(model.estep_stats(Rows(X, None, labels), params), model.estep_stats(Rows(X), params))
    assert len(sorted_blocks) == 1


def test_what_pays() -> None:
    """Never where all densities are left, always where few are of many features."""
    assert not any(pays(1.0, d) for d in (1, 2, 8, 16, 64, 256))
    assert all(pays(0.1, d) for d in (4, 8, 16, 64, 256))


@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_change_no_bit(n_threads: int) -> None:
    family, params, X = problem(60_000, 8, 12, 20.0)
    model = Mixture(family)
    rows = model.canonical(Rows(X))
    with Execution(model, rows, 1) as one, Execution(model, rows, n_threads) as more:
        for ours, theirs in zip(leaves(one.estep_stats(params)), leaves(more.estep_stats(params)), strict=True):
            assert_array_equal(ours, theirs)


def test_estimators_fit_as_without() -> None:
    _, params, X = problem(9000, 4, 12, 20.0)

    def fit() -> Any:
        start = {"means_init": params.components.means, "weights_init": params.weights}
        return lvm.GaussianMixture(12, max_iter=5, tol=0, n_jobs=1, **start).fit(X)

    free = fit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "MIN_PAIRS", np.inf)
        as_they_lie = fit()
    assert_allclose(free.objective_trace_, as_they_lie.objective_trace_, rtol=1e-12)
    assert_allclose(free.means_, as_they_lie.means_, atol=1e-11)


# ----- parts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def guesses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Return a list that fills with rooms and guesses as blocks of rows are sorted: all but the first rows."""
    made: list[tuple[Any, Any]] = []

    def sort(rows: Any, space: Any) -> None:
        sort_by_guess(rows, space)
        _, room, guess = space.values
        made.append(tuple(type(each)(*map(np.copy, each)) for each in (room._replace(weighted=0), guess)))

    monkeypatch.setattr(passes, "sort_by_guess", sort)
    monkeypatch.setattr(passes, "run_estep", run_hopeful)
    monkeypatch.setattr(passes, "MIN_PAIRS", 0)
    return made


@pytest.mark.parametrize("d", [1, 2, 5, 8])
@pytest.mark.parametrize("K", [8, 9])
def test_tangents_bound_log_densities(K: int, d: int, guesses: list[tuple[Any, Any]]) -> None:
    """heights + tangents . (x - mean_k) is at least the logarithm of weight times density, and it at the mean of k."""
    family, params, X = problem(400, d, K, 3.0)
    Mixture(family).estep_stats(Rows(X), params)
    ((_, guess),) = guesses
    tangents = guess.tangents.swapaxes(-1, -2).reshape(K, -1, padded(d))[:, :K, :d]
    values, at_means = log_joint(params, X), log_joint(params, params.components.means)
    for k in range(K):
        others = np.arange(K) != k
        bounds = guess.heights[k, :K] + (X - params.components.means[k]) @ tangents[k].T
        assert np.all((bounds >= values - 1e-9 * np.abs(values))[:, others])
        assert_allclose(guess.heights[k, :K][others], at_means[k, others], rtol=1e-12)
        assert np.all(guess.heights[k, K:] == guess.heights[k, k])
        assert guess.heights[k, k] == -np.inf


@pytest.mark.parametrize("apart", [3.0, 20.0])
def test_within_reach_others_are_out_of_the_question(apart: float, guesses: list[tuple[Any, Any]]) -> None:
    K, d = 11, 3
    family, params, X = problem(3000, d, K, apart)
    Mixture(family).estep_stats(Rows(X), params)
    reaches = guesses[0][1].reaches
    means, _, factors = params.components
    values, n_within = log_joint(params, X), 0
    for k in range(K):
        distances = np.square((X - means[k]) @ factors[k].T).sum(axis=1)
        for j in np.flatnonzero(np.arange(K) != k):
            within = distances < reaches[k, j // 4]
            n_within += within.sum()
            assert np.all(values[within, j] < values[within, k] + NEGLIGIBLE)
    assert n_within > (100 if apart > 10 else -1)


def log_joint(params: MixtureParams, X: Array) -> Array:
    """Return the logarithms of weight times density (n, K)."""
    means, _, factors = params.components
    white = np.einsum("jab,njb->nja", factors, X[:, None] - means)
    log_norms = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1) - 0.5 * X.shape[1] * np.log(2 * np.pi)
    return np.asarray(np.log(params.weights) + log_norms - 0.5 * np.square(white).sum(axis=2))


@both_dtypes
@pytest.mark.parametrize(("n", "d", "K"), [(1, 1, 8), (300, 3, 9), (BLOCK, 6, 17)])
def test_rows_in_order(n: int, d: int, K: int, dtype: Any, guesses: list[tuple[Any, Any]]) -> None:
    """By component, and by position within one; the winner is that of linear discriminant analysis."""
    family, params, X = problem(TRIAL + n, d, K, 30.0, dtype)
    Mixture(family).estep_stats(Rows(X.astype(dtype)), params)
    ((_, guess),) = guesses
    means, covariance = params.components.means, params.components.covariances.mean(axis=0)
    delta = X[TRIAL:, None] - means
    best = np.einsum("nki,ij,nkj->nk", delta, np.linalg.inv(covariance), delta).argmin(axis=1)
    winners, order = guess.winners[:n].astype(int), guess.order[:n].astype(int)
    assert np.mean(winners != best) <= (0.0 if dtype is np.float64 else 0.01)
    assert_array_equal(order, np.argsort(winners, kind="stable"))


def test_each_estep_has_a_guess_of_its_own(guesses: list[tuple[Any, Any]]) -> None:
    """Even where the arrays of parameters are the same, with other values."""
    family, params, X = problem(2000, 3, 9, 20.0)
    model = Mixture(family)
    model.estep_stats(Rows(X), params)
    params.components.means[:] *= 1.5
    changed = model.estep_stats(Rows(X), params)
    assert not np.array_equal(guesses[0][1].heights, guesses[1][1].heights)
    equal(changed, model.stepwise_stats(Rows(X), params))


def test_a_singular_mean_covariance_serves_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise np.linalg.LinAlgError

    family, params, X = problem(6000, 4, 12, 20.0)
    monkeypatch.setattr(np.linalg, "solve", fails)
    equal(*both(family, Rows(X), params, monkeypatch))
