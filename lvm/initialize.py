"""Starting parameters: seeds, assignments, and the M-steps that turn them into parameters."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn import config_context
from sklearn.cluster import AgglomerativeClustering, KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin
from sklearn.metrics.pairwise import euclidean_distances
from threadpoolctl import ThreadpoolController

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.collapse import group, hash_rows
from lvm.execution import add_stats
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, map_fields

METHODS = ("kmeans", "k-means++", "random", "random_from_data", "hierarchical", "mixed")
# What the starts of "mixed" are in turn. No method finds every optimum: see notebooks/gaussian_starts.ipynb.
MIXED = ("kmeans", "sphered", "k-means++", "random_from_data")

# Hierarchical clustering takes time and memory that grow with the square of the rows.
MAX_CLUSTERED_ROWS = 2_000

# More rows than this improve a start no further, but would cost time and memory that grow with n.
MAX_START_ROWS = 50_000

# Several starts race on no more rows than this, and the winner goes on on all: many starts for little more than one.
MAX_RACE_ROWS = 10_000

MAX_STARTS = 24  # of n_init="auto"

# Directions with less than this share of the largest variance are rounding, as those of collinear columns.
FLAT = 1e-10

# Share of the weight that a start on a subsample gives to all rows, in every component alike.
SMOOTHING = 0.01


def from_assignment(
    model: Mixture[Any], rows: Rows, assignment: NDArray[Any], n_components: int, everything: Rows | None = None
) -> MixtureParams:
    """Return the M-step's parameters for given labels (n,) or responsibilities (n, K).

    The statistics are taken twice: about the mean of the data, then about the means so found, so that
    clusters far apart lose no digits of their covariances.

    Parameters
    ----------
    model : Mixture
        Whose family's `start` gives the first centre.
    rows : Rows
        The rows assigned.
    assignment : ndarray of shape (n,) or (n, K)
        Their components, -1 for equal responsibilities; or their responsibilities.
    n_components : int
        Number of components.
    everything : Rows, optional
        All rows, where `rows` are a subsample: each component gets a small share of them all, so that a value
        that the subsample lacks is not impossible.

    Raises
    ------
    DegenerateError
        If a component so assigned has no density.
    """
    rows = model.canonical(rows)
    weight = canonical(np.ones(len(rows.X))) if rows.weight is None else rows.weight
    params = MixtureParams(np.full(n_components, 1 / n_components), model.family.start(rows.X, weight, n_components))
    for _ in range(2):
        stats = model.assigned_stats(rows, assignment, params)
        if everything is not None:
            unknown = np.broadcast_to(np.int64(-1), len(everything.X))
            share = SMOOTHING * len(rows.X) / len(everything.X)
            pooled = model.assigned_stats(everything, unknown, params)
            stats = add_stats(stats, map_fields(lambda field, share=share: share * field, pooled))
        params = model.mstep(stats, params)
    return params


def subsample(rows: Rows, rng: np.random.RandomState) -> NDArray[np.int64] | None:
    """Return the sorted rows on which a start is computed; None means all of them."""
    n = rows.X.shape[0]
    if n <= MAX_START_ROWS:
        return None
    return np.asarray(np.sort(rng.choice(n, MAX_START_ROWS, replace=False)), np.int64)


def n_starts(n_components: int) -> int:
    """Return how many starts `n_init="auto"` makes: local optima multiply with components, one has only one."""
    return 1 if n_components == 1 else min(3 * n_components, MAX_STARTS)


def race_sample(rows: Rows, n_components: int, rng: np.random.RandomState) -> NDArray[np.int64] | None:
    """Return the sorted rows on which several starts race; None means all of them.

    There are at least twice as many as full covariances have parameters. Rows without weight are left out; those whose
    component is known are in, where they are few.

    Parameters
    ----------
    rows : Rows
        Canonical rows.
    n_components : int
        Number of components.
    rng : RandomState
        Source of randomness.
    """
    n, d = rows.X.shape
    size = max(MAX_RACE_ROWS, n_components * d * (d + 3))
    if n <= size:
        return None
    index = np.arange(n) if rows.weight is None else np.flatnonzero(rows.weight)
    if len(index) <= size:
        return index
    known = np.empty(0, np.int64)
    if rows.labels is not None:
        known = np.flatnonzero(rows.labels[index] >= 0 if rows.labels.ndim == 1 else ~rows.labels[index].all(axis=1))
        known = known[: len(known) if 2 * len(known) <= size else 0]
    others = rng.choice(np.delete(index, known), size - len(known), replace=False)
    return np.asarray(np.sort(np.concatenate([index[known], others])), np.int64)


def filled(X: Any) -> Any:
    """Return X (n, d) with column means in place of missing cells: for starts alone, never for the likelihood."""
    if sparse.issparse(X) or getattr(X, "dtype", np.dtype(object)).kind != "f" or not np.isnan(X).any():
        return X
    return np.where(np.isnan(X), np.nanmean(X, axis=0), X)


def assign(
    features: Any,
    n_components: int,
    method: str,
    rng: np.random.RandomState,
    weight: Array | None = None,
    labels: NDArray[Any] | None = None,
    centres: Array | None = None,
    index: int = 0,
) -> NDArray[Any]:
    """Assign rows to components, as a start.

    Parameters
    ----------
    features : array or sparse matrix of shape (n, d)
        Rows in a space where Euclidean distance makes sense.
    n_components : int
        Number of components.
    method : {"kmeans", "k-means++", "random", "random_from_data", "hierarchical", "mixed"}
        k-means; the nearest of seeds spread by k-means++; random responsibilities; the nearest of random rows; Ward's
        hierarchical clustering; or in turn k-means, k-means in sphered space, k-means++ and random rows.
    rng : RandomState
        Source of randomness.
    weight : ndarray of shape (n,), optional
        Row weights.
    labels : ndarray of shape (n,) or (n, K), optional
        Known components, -1 where unknown; or a mask of those that a row may belong to. Components with labelled rows
        start at the mean of those.
    centres : ndarray of shape (K, d), optional
        Known centres: rows go to the nearest.
    index : int
        Number of the start: of "mixed", what it is; of "hierarchical", whether it is of all rows (0) or a random half.

    Returns
    -------
    ndarray of shape (n,) or (n, K)
        Labels, or responsibilities for "random".

    References
    ----------
    Arthur & Vassilvitskii (2007), "k-means++: the advantages of careful seeding". Ward (1963), "Hierarchical grouping
    to optimize an objective function", JASA 58.
    """
    if method == "mixed":
        method = MIXED[index % len(MIXED)]
    # The rows are finite; and threads that wait for each other take longer than few rows do.
    quick = _openmp().limit(limits=1 if features.shape[0] <= MAX_RACE_ROWS else None)
    with config_context(assume_finite=True, skip_parameter_validation=True), quick:
        return _assign(features, n_components, method, rng, weight, labels, centres, index)


def _assign(
    features: Any,
    n_components: int,
    method: str,
    rng: np.random.RandomState,
    weight: Array | None,
    labels: NDArray[Any] | None,
    centres: Array | None,
    index: int,
) -> NDArray[Any]:
    """Return the assignment of rows to components by a method that is no mixture of others."""
    n = features.shape[0]
    if labels is not None and labels.ndim == 2:
        single = np.where(labels.sum(axis=1) == 1, labels.argmax(axis=1), -1)
        free = _assign(features, n_components, method, rng, weight, single, centres, index)
        resp = labels * (free if free.ndim == 2 else np.equal.outer(free, np.arange(n_components)))
        resp = np.where(resp.any(axis=1, keepdims=True), resp, labels)
        return np.asarray(resp / resp.sum(axis=1, keepdims=True))
    if method == "random":
        resp = rng.uniform(size=(n, n_components))
        resp /= resp.sum(axis=1, keepdims=True)
        if labels is not None:
            known = labels >= 0
            resp[known] = np.equal.outer(labels[known], np.arange(n_components))
        return resp
    if n < n_components:  # distinct rows: each has a component, the others stay empty
        return np.arange(n)
    if centres is not None:
        assigned = pairwise_distances_argmin(features, centres)
    elif method == "hierarchical" and labels is None:
        assigned = _hierarchical(_standardised(features), n_components, rng, weight, index)
    elif method in ("kmeans", "hierarchical", "sphered"):
        features = _sphered(features, weight) if method == "sphered" else features
        seeds: Any = "k-means++" if labels is None else _seeds(features, n_components, method, rng, weight, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
            clusters = KMeans(n_components, init=seeds, n_init=1, random_state=rng)
            assigned = clusters.fit(features, sample_weight=weight).labels_
    else:
        assigned = pairwise_distances_argmin(features, _seeds(features, n_components, method, rng, weight, labels))
    assigned = np.asarray(assigned, np.int64)
    return assigned if labels is None else np.where(labels >= 0, labels, assigned)


@cache
def _openmp() -> Any:
    """Return what limits the threads of scikit-learn's kernels."""
    return ThreadpoolController().select(user_api="openmp")


def collapse(features: Any, weight: Array | None) -> tuple[Any, Array, NDArray[np.int64]]:
    """Return the distinct rows in an order of their own, their total weights, and where each row went.

    A start on these is the same for weighted rows as for repeated ones, and for any order of the rows.
    """
    matrix = sparse.csr_matrix(features)  # for dense rows too, so that both start alike
    n = matrix.shape[0]
    rows = Rows(_checks.sparse_rows(matrix, with_data=True))
    groups = group(rows, np.arange(n), hash_rows(rows))
    first, inverse, _ = (np.arange(n), np.arange(n), None) if groups is None else groups
    totals = np.bincount(inverse, weights=np.ones(n) if weight is None else weight)
    kept = totals > 0  # rows of weight 0 count as absent
    place = np.where(kept, np.cumsum(kept) - 1, 0)
    return matrix[first[kept]], np.asarray(totals[kept], np.float64), np.asarray(place[inverse], np.int64)


def _seeds(
    features: Any,
    n_components: int,
    method: str,
    rng: np.random.RandomState,
    weight: Array | None,
    labels: NDArray[np.int64] | None,
) -> Array:
    """Return K rows as seeds; a component with labelled rows gets their mean instead."""
    known = {} if labels is None else {k: _mean_of(features, labels == k) for k in np.unique(labels[labels >= 0])}
    share = None if weight is None else weight / weight.sum()
    if share is not None and np.count_nonzero(share) < n_components:
        share = None
    if method == "random_from_data":
        seeds = _dense(features[rng.choice(features.shape[0], n_components, replace=False, p=share)])
    elif not known:
        return _dense(kmeans_plusplus(features, n_components, sample_weight=weight, random_state=rng)[0])
    else:
        return _seeds_beside(features, n_components, known, share, rng)
    for k, mean in known.items():
        seeds[k] = mean
    return seeds


def _seeds_beside(
    features: Any, n_components: int, known: dict[int, Array], share: Array | None, rng: np.random.RandomState
) -> Array:
    """Return the known seeds, and rows drawn one by one with the square of their distance to the nearest seed."""
    seeds = np.empty((n_components, features.shape[1]))
    nearest = np.full(features.shape[0], np.inf)
    for k, mean in known.items():
        seeds[k] = mean
        nearest = np.minimum(nearest, euclidean_distances(features, mean[None], squared=True)[:, 0])
    for k in sorted(set(range(n_components)) - set(known)):
        chance = nearest if share is None else nearest * share
        total = chance.sum()
        seeds[k] = _dense(features[[rng.choice(len(chance), p=chance / total if total > 0 else share)]])[0]
        nearest = np.minimum(nearest, euclidean_distances(features, seeds[[k]], squared=True)[:, 0])
    return seeds


def _hierarchical(
    features: Any, n_components: int, rng: np.random.RandomState, weight: Array | None, index: int
) -> NDArray[Any]:
    """Return the clusters of a sample of the rows by Ward's method; other rows go to the nearest centroid."""
    n = features.shape[0]
    counted = np.arange(n) if weight is None else np.flatnonzero(weight)
    counted = counted if len(counted) >= n_components else np.arange(n)
    size = min(MAX_CLUSTERED_ROWS, len(counted) if index == 0 else max(n_components, len(counted) // 2))
    sample = counted if size == len(counted) else np.sort(rng.choice(counted, size, replace=False))
    rows = _dense(features[sample])
    clusters = AgglomerativeClustering(n_components).fit(rows).labels_ if len(rows) > 1 else np.zeros(1, np.int64)
    if len(sample) == n:
        return np.asarray(clusters)
    centroids = np.stack([rows[clusters == k].mean(axis=0) for k in range(n_components)])
    assigned = np.asarray(pairwise_distances_argmin(features, centroids))
    assigned[sample] = clusters
    return assigned


def _standardised(features: Any) -> Any:
    """Return dense features (n, d) with variances 1; indicators and others that are sparse have a scale in common."""
    if sparse.issparse(features):
        return features
    deviations = np.std(features, axis=0, dtype=np.float64)
    return features / np.where(deviations > 0, deviations, 1.0)


def _sphered(features: Any, weight: Array | None) -> Any:
    """Return the scores of dense features (n, d) on their principal components, with variances 1; sparse ones as is.

    The scaled SVD of Scrucca & Raftery (2015), "Improved initialisation of model-based clustering using Gaussian
    hierarchical partitions". Directions without spread are left out.
    """
    if sparse.issparse(features):
        return features
    scaled = _standardised(features)
    centred = scaled - np.average(scaled, axis=0, weights=weight)
    variances, axes = np.linalg.eigh(np.cov(centred.T, bias=True, aweights=weight).reshape(centred.shape[1], -1))
    kept = variances > FLAT * variances[-1]
    return centred @ (axes[:, kept] / np.sqrt(variances[kept])) if kept.any() else features


def _mean_of(features: Any, rows: NDArray[np.bool_]) -> Array:
    return np.asarray(features[np.flatnonzero(rows)].mean(axis=0), np.float64).ravel()


def _dense(rows: Any) -> Array:
    return np.array(rows.toarray() if sparse.issparse(rows) else rows, np.float64)
