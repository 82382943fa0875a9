"""Starts: methods, explicit parameters, restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import AgglomerativeClustering

import lvm
from lvm import initialize
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
    mixture = lvm.GaussianMixture(3, random_state=0).fit(X, sample_weight=weight, labels=labels)
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
    turns = ["hierarchical", *initialize.MIXED, *initialize.MIXED]
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
