"""Starting parameters: seeds, assignments, and the M-steps that turn them into parameters."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.collapse import group, hash_rows
from lvm.execution import add_stats
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, map_fields

METHODS = ("kmeans", "k-means++", "random", "random_from_data")

# More rows than this improve a start no further, but would cost time and memory that grow with n.
MAX_START_ROWS = 50_000


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


def assign(
    features: Any,
    n_components: int,
    method: str,
    rng: np.random.RandomState,
    weight: Array | None = None,
    labels: NDArray[np.int64] | None = None,
    centres: Array | None = None,
) -> NDArray[Any]:
    """Assign rows to components, as a start.

    Parameters
    ----------
    features : array or sparse matrix of shape (n, d)
        Rows in a space where Euclidean distance makes sense.
    n_components : int
        Number of components.
    method : {"kmeans", "k-means++", "random", "random_from_data"}
        k-means; the nearest of seeds spread by k-means++; random responsibilities; the nearest of random rows.
    rng : RandomState
        Source of randomness.
    weight : ndarray of shape (n,), optional
        Row weights.
    labels : ndarray of shape (n,), optional
        Known components, -1 where unknown. Labelled components start at the mean of their rows.
    centres : ndarray of shape (K, d), optional
        Known centres: rows go to the nearest.

    Returns
    -------
    ndarray of shape (n,) or (n, K)
        Labels, or responsibilities for "random".

    References
    ----------
    Arthur & Vassilvitskii (2007), "k-means++: the advantages of careful seeding".
    """
    n = features.shape[0]
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
    elif method == "kmeans":
        seeds: Any = "k-means++" if labels is None else _seeds(features, n_components, method, rng, weight, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
            clusters = KMeans(n_components, init=seeds, n_init=1, random_state=rng)
            assigned = clusters.fit(features, sample_weight=weight).labels_
    else:
        assigned = pairwise_distances_argmin(features, _seeds(features, n_components, method, rng, weight, labels))
    assigned = np.asarray(assigned, np.int64)
    return assigned if labels is None else np.where(labels >= 0, labels, assigned)


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
    if method == "random_from_data":
        share = None if weight is None else weight / weight.sum()
        if share is not None and np.count_nonzero(share) < n_components:
            share = None
        seeds = features[rng.choice(features.shape[0], n_components, replace=False, p=share)]
    else:
        seeds, _ = kmeans_plusplus(features, n_components, sample_weight=weight, random_state=rng)
    seeds = np.array(seeds.toarray() if sparse.issparse(seeds) else seeds, np.float64)
    if labels is not None:
        for k in np.unique(labels[labels >= 0]):
            seeds[k] = np.asarray(features[np.flatnonzero(labels == k)].mean(axis=0)).ravel()
    return seeds
