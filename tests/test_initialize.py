"""Starts: methods, explicit parameters, restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import load_iris

import lvm
from lvm import initialize
from lvm.em import fit_em
from lvm.estimators import progress
from lvm.protocol import Rows
from lvm.restarts import best_of
from lvm.result import EMResult, Status

RNG = np.random.RandomState(0)
CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
TRUTH = np.repeat([0, 1, 2], 80)
X = CENTRES[TRUTH] + RNG.randn(240, 2)


def same_partition(a: Any, b: Any) -> bool:
    """Whether two labellings agree up to the names of the components, except for a few rows."""
    table = np.array([[np.sum((a == i) & (b == j)) for j in range(3)] for i in range(3)])
    return bool(table.max(axis=1).sum() >= len(a) - 5 and len(set(table.argmax(axis=1))) == 3)


@pytest.mark.parametrize("method", initialize.METHODS)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_method_finds_clear_groups(method: str, weighted: bool) -> None:
    weight = RNG.uniform(0.5, 2.0, len(X)) if weighted else None
    mixture = lvm.GaussianMixture(3, init_params=method, n_init=10, random_state=0).fit(X, sample_weight=weight)
    assert same_partition(mixture.predict(X), TRUTH)


def test_explicit_labels_and_responsibilities() -> None:
    by_labels = lvm.GaussianMixture(3, init_params=TRUTH, tol=0, max_iter=0, reg_covar=0).fit(X)
    by_resp = lvm.GaussianMixture(3, init_params=np.eye(3)[TRUTH], tol=0, max_iter=0, reg_covar=0).fit(X)
    for k in range(3):
        group = X[k == TRUTH]
        np.testing.assert_allclose(by_labels.means_[k], group.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(by_labels.covariances_[k], np.cov(group.T, bias=True), rtol=1e-12)
    np.testing.assert_allclose(by_labels.weights_, 1 / 3)
    assert by_resp.loglik_ == by_labels.loglik_
    unknown = np.where(np.arange(240) % 4 == 0, TRUTH, -1)
    assert same_partition(lvm.GaussianMixture(3, init_params=unknown).fit(X).predict(X), TRUTH)


def test_all_parameters_given_run_no_clustering(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a start was computed although all parameters are given")

    monkeypatch.setattr(initialize, "assign", refuse)
    monkeypatch.setattr(initialize, "from_assignment", refuse)
    given = {"weights_init": np.full(3, 1 / 3), "means_init": CENTRES}
    covariances = np.repeat(np.eye(2)[None] * 2, 3, axis=0)
    one = lvm.GaussianMixture(3, **given, covariances_init=covariances).fit(X)
    two = lvm.GaussianMixture(3, **given, precisions_init=covariances / 4).fit(X)
    assert one.loglik_ == two.loglik_
    items = (X > 1).astype(int)
    start = {"weights_init": [0.5, 0.5], "probabilities_init": [[0.2, 0.8], [0.6, 0.3]]}
    assert np.isfinite(lvm.BernoulliMixture(2, **start).fit(items).loglik_)


def test_every_fitted_parameter_can_be_a_start() -> None:
    first = lvm.GaussianMixture(3, random_state=0).fit(X)
    again = lvm.GaussianMixture(
        3, weights_init=first.weights_, means_init=first.means_, covariances_init=first.covariances_
    ).fit(X)
    assert again.n_iter_ == 1
    assert again.loglik_ == pytest.approx(first.loglik_, abs=1e-3)


def test_given_means_keep_their_order() -> None:
    order = [2, 0, 1]
    mixture = lvm.GaussianMixture(3, means_init=CENTRES[order]).fit(X)
    np.testing.assert_allclose(mixture.means_, CENTRES[order], atol=0.5)


def test_labelled_rows_name_the_components() -> None:
    for order in ([0, 1, 2], [2, 0, 1]):
        labels = np.full(240, -1)
        labels[[5, 6, 85, 86, 165, 166]] = np.repeat(order, 2)
        for method in initialize.METHODS:
            mixture = lvm.GaussianMixture(3, init_params=method, n_init=5, random_state=0).fit(X, labels=labels)
            np.testing.assert_allclose(mixture.means_[order], CENTRES, atol=0.6)


def test_restarts_keep_every_loglik_and_the_best_wins() -> None:
    noise = RNG.randn(150, 3)
    mixture = lvm.GaussianMixture(4, n_init=8, init_params="random", random_state=3).fit(noise)
    assert mixture.restarts_.shape == (8,)
    assert len(np.unique(mixture.restarts_.round(3))) > 1
    assert mixture.loglik_ == mixture.restarts_.max()
    assert mixture.n_iter_ == len(mixture.objective_trace_) - 1
    assert np.all(np.diff(mixture.objective_trace_) > -1e-9)


def test_a_seed_fixes_the_fit_and_a_generator_moves_on() -> None:
    fits = [lvm.GaussianMixture(3, init_params="random", random_state=7).fit(X).means_ for _ in range(2)]
    assert np.array_equal(*fits)
    rng = np.random.RandomState(7)
    moved = [lvm.GaussianMixture(3, init_params="random", max_iter=0, random_state=rng).fit(X).means_ for _ in range(2)]
    assert not np.array_equal(*moved)


def test_large_data_start_from_a_subsample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialize, "MAX_START_ROWS", 100)
    seen: list[int] = []
    assign = initialize.assign
    monkeypatch.setattr(
        initialize, "assign", lambda features, *a, **k: (seen.append(len(features)), assign(features, *a, **k))[1]
    )
    weight, labels = RNG.uniform(0.5, 1.0, 240), np.where(np.arange(240) % 5 == 0, TRUTH, -1)
    mixture = lvm.GaussianMixture(3, n_init=1, random_state=0).fit(X, sample_weight=weight, labels=labels)
    assert seen == [100]
    assert same_partition(mixture.predict(X), TRUTH)


def test_collapsed_start_ignores_order_and_container_and_weights_are_repetitions() -> None:
    rows = RNG.randint(0, 2, (60, 5))
    times = RNG.randint(0, 4, 60)
    shuffled = RNG.permutation(60)
    reference = lvm.BernoulliMixture(2, random_state=0).fit(np.repeat(rows, times, axis=0))
    for other, weight in (
        (rows, times),
        (rows[shuffled], times[shuffled]),
        (sparse.csr_matrix(rows), times),
        (rows.astype(bool), times),
        (rows.astype(np.float32), times),
    ):
        mixture = lvm.BernoulliMixture(2, random_state=0).fit(other, sample_weight=weight)
        np.testing.assert_allclose(mixture.probabilities_, reference.probabilities_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_a_value_that_the_subsample_lacks_is_not_impossible(monkeypatch: pytest.MonkeyPatch, container: Any) -> None:
    monkeypatch.setattr(initialize, "MAX_START_ROWS", 100)
    items = (np.random.RandomState(0).rand(2000, 6) < 0.3).astype(np.uint8)
    items[:, 5] = 0
    items[[3, 1234], 5] = 1
    for estimator in (lvm.BernoulliMixture(3, random_state=1), lvm.MultinomialMixture(3, random_state=1)):
        mixture = estimator.set_params(n_init=4).fit(container(items))
        assert np.isfinite(mixture.loglik_)
        assert mixture.weights_ @ mixture.probabilities_[:, 5] > 0


def test_hierarchical_starts_are_wards_clusters_of_scaled_columns() -> None:
    scaled = X * [1.0, 1e3]
    labels = initialize.assign(scaled, 3, "hierarchical", np.random.RandomState(0))
    expected = AgglomerativeClustering(3).fit(X / X.std(axis=0)).labels_
    np.testing.assert_array_equal(labels, expected)
    again = initialize.assign(scaled, 3, "hierarchical", np.random.RandomState(1))
    np.testing.assert_array_equal(again, labels)  # nothing is random
    other = initialize.assign(scaled, 3, "hierarchical", np.random.RandomState(0), index=1)  # of half of the rows
    assert same_partition(other, TRUTH)
    assert np.any(np.sort(np.bincount(other)) != np.sort(np.bincount(labels))) or np.any(other != labels)


def test_hierarchical_starts_of_many_rows_cluster_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialize, "MAX_CLUSTERED_ROWS", 60)
    weight = np.where(np.arange(len(X)) % 3 == 0, 0.0, 1.0)
    seen = []
    fit = AgglomerativeClustering.fit
    monkeypatch.setattr(AgglomerativeClustering, "fit", lambda self, rows: (seen.append(len(rows)), fit(self, rows))[1])
    labels = initialize.assign(X, 3, "hierarchical", np.random.RandomState(0), weight)
    assert seen == [60]
    assert same_partition(labels, TRUTH)
    sparse_labels = initialize.assign(sparse.csr_matrix(X), 3, "hierarchical", np.random.RandomState(0))
    assert same_partition(sparse_labels, TRUTH)


def test_sphered_clusters_do_not_depend_on_the_basis() -> None:
    turned = (X @ [[5.0, 1.0], [-2.0, 0.3]]) + 7.0
    flat = np.column_stack([turned, turned.sum(axis=1), np.ones(len(X))])  # collinear and constant columns add nothing
    partitions = [initialize.assign(rows, 3, "sphered", np.random.RandomState(0)) for rows in (X, turned, flat)]
    for labels in partitions:
        assert same_partition(labels, TRUTH)
    assert initialize._sphered(flat, None).shape == (len(X), 2)
    np.testing.assert_allclose(np.cov(initialize._sphered(turned, None).T, bias=True), np.eye(2), atol=1e-12)


def test_mixed_starts_take_the_methods_in_turn() -> None:
    turns = [*initialize.MIXED, *initialize.MIXED]
    for index, method in enumerate(turns):
        mixed = initialize.assign(X, 3, "mixed", np.random.RandomState(0), index=index)
        np.testing.assert_array_equal(mixed, initialize.assign(X, 3, method, np.random.RandomState(0)))
    fit = lvm.GaussianMixture(3, init_params="mixed", n_init=7, random_state=0).fit(X)
    assert fit.restarts_.shape == (7,)
    assert lvm.GaussianMixture(3, init_params="mixed", n_init=7, random_state=0).fit(X).loglik_ == fit.loglik_


def test_of_several_starts_the_highest_objective_wins_not_the_highest_log_likelihood() -> None:
    def ending(loglik: float, objective: float) -> EMResult:
        return EMResult(None, loglik, np.array([-100.0, objective]), 1, Status.CONVERGED)

    ends = {"likely": ending(-10.0, -60.0), "probable": ending(-20.0, -30.0)}
    best, logliks = best_of(list(ends), lambda start, _: ends[start], 100)
    assert best is ends["probable"]
    np.testing.assert_array_equal(logliks, [-10.0, -20.0])


# ----- the default of Gaussian mixtures: a race of mixed starts ---------------------------------------------------

# The highest optima in which no component is spurious, of thousands of starts: notebooks/gaussian_starts.ipynb.
BEST_KNOWN = [
    ("faithful", 2, "full", -1130.264),
    ("faithful", 3, "tied", -1126.326),
    ("iris", 2, "full", -214.3547),
    ("iris", 3, "full", -180.1857),
    ("iris", 3, "tied", -256.3547),
]


@pytest.mark.parametrize(("name", "K", "structure", "best"), BEST_KNOWN)
@pytest.mark.parametrize("seed", range(4))
def test_the_default_finds_the_best_known_optimum(name: str, K: int, structure: str, best: float, seed: int) -> None:
    rows = load_iris().data if name == "iris" else lvm.datasets.load_faithful().data
    mixture = lvm.GaussianMixture(K, covariance_type=structure, random_state=seed).fit(rows)
    assert mixture.restarts_.shape == (3 * K,)
    assert mixture.loglik_ == pytest.approx(best, abs=2e-4 * len(mixture.predict(rows)))  # both within tol of it


def test_one_start_is_k_means_and_a_given_start_is_one() -> None:
    one = lvm.GaussianMixture(3, n_init=1, random_state=0).fit(X)
    assert one.loglik_ == lvm.GaussianMixture(3, n_init=1, init_params="kmeans", random_state=0).fit(X).loglik_
    covariances = np.repeat(np.eye(2)[None], 3, axis=0)
    for given in (
        {"means_init": CENTRES},
        {"weights_init": [0.2, 0.3, 0.5]},
        {"precisions_init": covariances},
        {"covariances_init": covariances},
        {"init_params": TRUTH},
        {"fixed": {"means": CENTRES}},
    ):
        fits = [lvm.GaussianMixture(3, n_init=n_init, random_state=0, **given).fit(X) for n_init in ("auto", 1)]
        assert fits[0].restarts_.shape == (1,)
        np.testing.assert_array_equal(fits[0].means_, fits[1].means_)
    assert lvm.GaussianMixture(1).fit(X).restarts_.shape == (1,)  # all starts would be the same
    assert lvm.GaussianMixture(20).fit(X).restarts_.shape == (initialize.MAX_STARTS,)
    again = one.set_params(n_init="auto", warm_start=True).fit(X)
    assert again.restarts_.shape == (1,)
    for wrong in ("many", 0, 1.5):
        with pytest.raises(ValueError, match=f"n_init must be .*{wrong}"):
            lvm.GaussianMixture(2, n_init=wrong).fit(X)


def test_starts_for_many_rows_race_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[int, int]] = []

    def counted(model: Any, rows: Any, start: Any, **settings: Any) -> EMResult:
        result = fit_em(model, rows, start, **settings)
        runs.append((len(rows.X), result.n_iter))
        return result

    monkeypatch.setitem(progress.FITS, None, counted)
    whole = lvm.GaussianMixture(3, random_state=0).fit(X)
    assert {n for n, _ in runs} == {240}
    monkeypatch.setattr(initialize, "MAX_RACE_ROWS", 120)
    runs.clear()
    weight = np.where(np.arange(240) % 40 == 0, 0.0, 1.0)
    labels = np.where(np.arange(240) % 80 == 1, TRUTH, -1)
    for settings in ({}, {"sample_weight": weight}, {"labels": labels}):
        runs.clear()
        mixture = lvm.GaussianMixture(3, random_state=0).fit(X, **settings)
        assert {n for n, _ in runs[:-1]} == {120}
        assert runs[-1] == (240, mixture.n_iter_)
        assert len(mixture.objective_trace_) == mixture.n_iter_ + 1
        assert mixture.restarts_.shape == (9,)
        assert np.any(mixture.restarts_ == mixture.loglik_)
        assert np.all(mixture.restarts_ < 0.8 * mixture.loglik_)  # those of half of the rows, doubled
    assert mixture.predict(X)[labels >= 0].tolist() == [0, 1, 2]
    assert lvm.GaussianMixture(3, random_state=0).fit(X).loglik_ == pytest.approx(whole.loglik_, abs=2e-4 * 240)
    runs.clear()
    lvm.BernoulliMixture(2, n_init=3, random_state=0).fit((X > 1).astype(int))  # a value may be missing in a sample
    assert 120 not in {n for n, _ in runs}


def test_the_sample_of_a_race_keeps_labelled_rows_and_leaves_out_those_without_weight() -> None:
    n, rng = 60_000, np.random.RandomState(0)
    rows, weight = np.zeros((n, 2)), np.where(np.arange(n) % 2 == 0, 0.0, 1.0)
    labels = np.where(np.arange(n) % 101 == 0, 1, -1)
    mask = np.where(labels[:, None] == [0, 1], 1, (labels < 0)[:, None]).astype(np.uint8)
    assert initialize.race_sample(Rows(rows[:10_000]), 2, rng) is None
    for known in (None, labels, mask):
        sample = initialize.race_sample(Rows(rows, weight, known), 2, rng)
        assert sample is not None
        assert len(sample) == initialize.MAX_RACE_ROWS == len(set(sample.tolist()))
        assert np.all(np.diff(sample) > 0)
        assert np.all(weight[sample] == 1)
        in_sample = np.isin(np.flatnonzero((labels >= 0) & (weight > 0)), sample)
        assert in_sample.all() == (known is not None)
    few = initialize.race_sample(Rows(rows, (np.arange(n) < 50).astype(float)), 2, rng)
    np.testing.assert_array_equal(few, np.arange(50))
    wide = initialize.race_sample(Rows(np.zeros((n, 50))), 10, rng)
    assert wide is not None
    assert len(wide) == 10 * 50 * 53  # twice the parameters of ten means and covariances


def test_spurious_optima_rank_last() -> None:
    def ending(loglik: float) -> EMResult:
        return EMResult(loglik, loglik, np.array([-100.0, loglik]), 1, Status.CONVERGED)

    def best(ends: list[float], spurious: set[float]) -> float:
        found, _ = best_of(ends, lambda start, _: ending(start), 100, spurious.__contains__)
        assert found is not None
        return found.loglik

    ends = [-30.0, -10.0, -20.0, -40.0]
    assert best(ends, set()) == -10.0
    assert best(ends, {-10.0}) == -20.0
    assert best(ends, {-10.0, -20.0, -30.0}) == -40.0
    assert best(ends, set(ends)) == -10.0  # where there is no other


def test_a_start_that_ends_in_a_spurious_optimum_is_passed_over() -> None:
    iris = load_iris().data
    rare = lvm.GaussianMixture(3, init_params="random_from_data", n_init=12)
    unguarded = lvm.GaussianMixture(3, init_params="random_from_data", n_init=12)
    unguarded._is_spurious = lambda X, weight: None  # type: ignore[method-assign]
    found = {"guarded": 0, "unguarded": 0}
    for seed in range(8):
        for name, mixture in (("guarded", rare), ("unguarded", unguarded)):
            found[name] += bool(mixture.set_params(random_state=seed).fit(iris).shrinkage(iris).suspicions())
    assert found["guarded"] < found["unguarded"]
