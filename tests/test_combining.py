"""Combining components by entropy against its definition, and how uncertain each row's component is."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

import lvm
from lvm.combining import bend

Array = NDArray[np.float64]


class Known(BaseEstimator):
    """A stand-in for a fitted mixture, whose responsibilities are the rows themselves."""

    def fit(self) -> None:
        pass

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, X: Any) -> Array:
        return np.array(X, np.float64)


def responsibilities(n: int, K: int, seed: int = 0, sharpness: float = 0.3) -> Array:
    return np.random.default_rng(seed).dirichlet(np.full(K, sharpness), size=n)


def entropy(proba: Array, groups: list[set[int]], weight: Array) -> float:
    """-sum_i w_i sum_g t_ig log t_ig, term by term."""
    total = 0.0
    for row, w in zip(proba, weight, strict=True):
        for group in groups:
            t = sum(row[k] for k in group)
            total -= w * t * np.log(t) if t > 0 else 0.0
    return total


def by_definition(proba: Array, weight: Array) -> tuple[list[list[set[int]]], list[float]]:
    """The partitions and entropies from K groups to 1: at each step all pairs are tried."""
    groups = [{k} for k in range(proba.shape[1])]
    partitions, entropies = [groups], [entropy(proba, groups, weight)]
    while len(groups) > 1:
        tried = []
        for a, b in combinations(range(len(groups)), 2):
            rest = [group for place, group in enumerate(groups) if place not in (a, b)]
            tried.append([*rest, groups[a] | groups[b]])
        groups = min(tried, key=lambda partition: entropy(proba, partition, weight))
        partitions.append(groups)
        entropies.append(entropy(proba, groups, weight))
    return partitions[::-1], entropies[::-1]


def partition(labels: Array) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == g).tolist()) for g in np.unique(labels)}


# ----- the hierarchy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 2, 3, 6])
@pytest.mark.parametrize("weighted", [False, True])
def test_hierarchy_is_the_definition(K: int, weighted: bool) -> None:
    for seed in range(3):
        proba = responsibilities(40, K, seed)
        weight = np.random.default_rng(seed).random(40) if weighted else np.ones(40)
        found = lvm.combine(Known(), proba, weight if weighted else None)
        partitions, entropies = by_definition(proba, weight)
        # One group's probabilities sum to 1 but for rounding.
        np.testing.assert_allclose(found.entropies, entropies, rtol=1e-9, atol=1e-12)
        for labels, groups in zip(found.labels, partitions, strict=True):
            assert partition(labels) == {frozenset(group) for group in groups}
            # Clusters are numbered by their first components.
            _, first = np.unique(labels, return_index=True)
            assert first.tolist() == sorted(first.tolist())


def test_one_cluster_has_no_entropy_and_more_have_no_less() -> None:
    proba = responsibilities(300, 9)
    found = lvm.combine(Known(), proba)
    assert found.entropies[0] == 0.0
    assert np.all(np.diff(found.entropies) >= 0)
    assert found.labels[0].tolist() == [0] * 9
    assert found.labels[-1].tolist() == list(range(9))
    # Each clustering combines two clusters of the next, and no component leaves its own.
    for fewer, more in zip(found.labels[:-1], found.labels[1:], strict=True):
        assert len({(a, b) for a, b in zip(fewer, more, strict=True)}) == more.max() + 1


def test_order_of_components_and_of_rows_does_not_matter() -> None:
    proba = responsibilities(200, 6, seed=4)
    order = np.array([3, 1, 5, 0, 2, 4])
    plain, mixed = lvm.combine(Known(), proba), lvm.combine(Known(), proba[::-1, order])
    np.testing.assert_allclose(mixed.entropies, plain.entropies, rtol=1e-12, atol=1e-13)
    assert mixed.n_clusters == plain.n_clusters
    for labels, others in zip(plain.labels, mixed.labels, strict=True):
        assert partition(labels[order]) == partition(others)


def test_weights_repeat_rows() -> None:
    proba = responsibilities(60, 5, seed=2)
    weight = np.random.default_rng(2).integers(0, 4, size=60)
    weighted, repeated = lvm.combine(Known(), proba, weight), lvm.combine(Known(), np.repeat(proba, weight, axis=0))
    np.testing.assert_allclose(weighted.entropies, repeated.entropies, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(weighted.labels, repeated.labels)


def test_a_bent_cluster_takes_the_components_that_overlap() -> None:
    """Two components share a cross, a third lies far off: the two are combined first, at nearly all the entropy."""
    rng = np.random.default_rng(0)
    arms = np.concatenate([rng.normal(size=(300, 2)) * [4, 0.4], rng.normal(size=(300, 2)) * [0.4, 4]])
    X = np.concatenate([arms, rng.normal(size=(200, 2)) + 20])
    centres = [[0.0, 0.0], [0.0, 0.0], [20.0, 20.0]]
    covariances = [np.diag([16, 0.2]), np.diag([0.2, 16]), np.eye(2)]
    mixture = lvm.GaussianMixture(3, means_init=centres, covariances_init=covariances, weights_init=[0.4, 0.4, 0.2])
    found = lvm.combine(mixture.fit(X), X)
    assert found.n_clusters == 2
    assert found.clusters().tolist() == [0, 0, 1]
    assert found.predict(X).tolist() == [0] * 600 + [1] * 200
    assert found.entropies[1] < 1e-6 < 50 < found.entropies[2]


def test_predictions() -> None:
    X = lvm.datasets.load_faithful().data
    mixture = lvm.GaussianMixture(4, random_state=0).fit(X)
    found = lvm.combine(mixture, X)
    proba = mixture.predict_proba(X)
    for number in range(1, 5):
        merged = found.predict_proba(X, number)
        assert merged.shape == (272, number)
        for g in range(number):
            np.testing.assert_allclose(merged[:, g], proba[:, found.clusters(number) == g].sum(axis=1), atol=1e-15)
        np.testing.assert_array_equal(found.predict(X, number), merged.argmax(axis=1))
    np.testing.assert_array_equal(found.predict(X, 4), mixture.predict(X))
    np.testing.assert_array_equal(found.predict(X), found.predict(X, found.n_clusters))


def test_any_mixture() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson([[2.0, 9.0]] * 40 + [[9.0, 2.0]] * 40)
    exposure = np.repeat([1.0, 2.0], 40)
    mixture = lvm.PoissonMixture(3, random_state=0, tol=1e-3).fit(counts, exposure=exposure)
    found = lvm.combine(mixture, counts, exposure=exposure)
    proba = mixture.predict_proba(counts, exposure)
    np.testing.assert_allclose(found.entropies[-1], entropy(proba, [{0}, {1}, {2}], np.ones(80)), rtol=1e-10)
    np.testing.assert_array_equal(found.predict(counts, 3, exposure=exposure), mixture.predict(counts, exposure))
    assert found.predict(counts, 1).tolist() == [0] * 80


# ----- the hint ---------------------------------------------------------------------------------------------------


def test_bend_is_the_best_of_all_pairs_of_lines() -> None:
    assert bend(np.array([0.0, 1.0, 2.0, 3.0, 13.0, 23.0]))[0] == 4
    for seed in range(5):
        y = np.cumsum(np.random.default_rng(seed).exponential(size=8))
        x = np.arange(1.0, 9)
        fits = {}
        for c in range(2, 8):
            parts = (slice(0, c), slice(c - 1, 8))
            fits[c] = [np.polynomial.Polynomial.fit(x[p], y[p], 1).convert().coef for p in parts]
        cost = {
            c: sum(
                np.square(y[p] - a - b * x[p]).sum()
                for p, (a, b) in zip((slice(0, c), slice(c - 1, 8)), lines, strict=True)
            )
            for c, lines in fits.items()
        }
        number, lines = bend(y)
        assert number == min(cost, key=lambda c: cost[c])
        np.testing.assert_allclose(np.array(lines)[:, ::-1], fits[number], rtol=1e-8, atol=1e-10)


def test_bend_of_few() -> None:
    assert bend(np.zeros(1)) == (1, [])
    assert bend(np.array([0.0, 3.0])) == (2, [])
    assert bend(np.array([0.0, 3.0, 4.0]))[0] == 2


def test_table() -> None:
    proba = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    lines = str(lvm.combine(Known(), proba)).splitlines()
    assert lines[0].split() == ["clusters", "entropy", "components", "of", "each"]
    assert lines[2].split() == ["2", "0.0000", "0,1", "|", "2", "<-", "bend"]
    assert lines[3].split() == ["3", f"{2 * np.log(2):.4f}", "0", "|", "1", "|", "2"]


def test_refusals() -> None:
    proba = responsibilities(10, 3)
    with pytest.raises(TypeError, match="combine expects a fitted mixture, got ndarray"):
        lvm.combine(proba, proba)
    with pytest.raises(ValueError, match=r"sample_weight\.shape == \(3,\), expected \(10,\)"):
        lvm.combine(Known(), proba, [1, 2, 3])
    found = lvm.combine(Known(), proba)
    with pytest.raises(ValueError, match="n_clusters=4 exceeds the 3 components"):
        found.predict(proba, 4)
    with pytest.raises(ValueError, match="n_clusters must be an integer >= 1, got 0"):
        found.clusters(0)
    with pytest.raises(NotFittedError):
        lvm.combine(lvm.GaussianMixture(2), proba)


# ----- uncertainty ------------------------------------------------------------------------------------------------


def test_uncertainty() -> None:
    X = lvm.datasets.load_faithful().data
    mixture = lvm.GaussianMixture(3, random_state=0).fit(X)
    proba = mixture.predict_proba(X)
    found = mixture.uncertainty(X)
    np.testing.assert_allclose(found, 1 - proba.max(axis=1), atol=1e-15)
    assert found.min() >= 0
    assert found.max() <= 2 / 3
    np.testing.assert_array_equal(lvm.GaussianMixture(1).fit(X).uncertainty(X), np.zeros(272))


def test_small_uncertainties_keep_their_digits() -> None:
    mixture = lvm.GaussianMixture(2, means_init=[[0.0], [10.0]], covariances_init=np.ones((2, 1, 1)), max_iter=0, tol=0)
    mixture.weights_init = [0.5, 0.5]
    mixture.fit([[0.0], [10.0]])
    np.testing.assert_allclose(mixture.uncertainty([[0.0]]), np.exp(-50), rtol=1e-12)


def test_uncertainty_with_exposure() -> None:
    counts = np.random.default_rng(0).poisson([[2.0], [9.0]] * 20)
    exposure = np.repeat([1.0, 2.0], 20)
    mixture = lvm.PoissonMixture(2, random_state=0).fit(counts, exposure=exposure)
    found = mixture.uncertainty(counts, exposure=exposure)
    np.testing.assert_allclose(found, 1 - mixture.predict_proba(counts, exposure).max(axis=1), atol=1e-15)
    assert np.abs(found - mixture.uncertainty(counts)).max() > 0.01
