"""Combine the components of a mixture into clusters: a cluster that is not of the family's shape takes several."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from lvm import _checks

Array = NDArray[np.float64]


class Combination(NamedTuple):
    """Outcome of `combine`: a hierarchy of clusterings, from a cluster per component to one for all.

    Attributes
    ----------
    mixture : estimator
        The fitted mixture of K components.
    labels : ndarray of shape (K, K)
        Row g - 1 has the cluster of each component where there are g clusters, which are numbered by their first
        component.
    entropies : ndarray of shape (K,)
        Entropy of the soft assignment of the rows to g clusters at position g - 1, in nats, summed over rows.
    n_clusters : int
        Number of clusters at which the entropies bend: a hint. It is never 1 nor K, unless K <= 2, where it is K.
    """

    mixture: Any
    labels: NDArray[np.int64]
    entropies: Array
    n_clusters: int

    def clusters(self, n_clusters: int | None = None) -> NDArray[np.int64]:
        """Return the cluster of each component, shape (K,).

        Parameters
        ----------
        n_clusters : int, optional
            From 1 to K; by default the one that the entropies hint at.
        """
        number = self.n_clusters if n_clusters is None else _checks.integer("n_clusters", n_clusters, 1)
        if number > len(self.labels):
            raise ValueError(
                f"n_clusters={number} exceeds the {len(self.labels)} components; components are not split."
            )
        labels: NDArray[np.int64] = self.labels[number - 1]
        return labels

    def predict_proba(self, X: ArrayLike, n_clusters: int | None = None, **arguments: Any) -> Array:
        """Return the posterior probability of each cluster for each row, shape (n, n_clusters).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        n_clusters : int, optional
            From 1 to K; by default the one that the entropies hint at.
        **arguments : any
            What else the mixture's `predict_proba` takes, such as exposures.
        """
        return merged(np.asarray(self.mixture.predict_proba(X, **arguments)), self.clusters(n_clusters))

    def predict(self, X: ArrayLike, n_clusters: int | None = None, **arguments: Any) -> NDArray[np.int64]:
        """Return the most probable cluster of each row, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        n_clusters : int, optional
            From 1 to K; by default the one that the entropies hint at.
        **arguments : any
            What else the mixture's `predict_proba` takes, such as exposures.
        """
        return np.asarray(self.predict_proba(X, n_clusters, **arguments).argmax(axis=1), np.int64)

    def __str__(self) -> str:
        lines = ["clusters     entropy  components of each"]
        for number, (labels, entropy) in enumerate(zip(self.labels, self.entropies, strict=True), start=1):
            members = [",".join(map(str, np.flatnonzero(labels == g))) for g in range(number)]
            hint = "  <- bend" if number == self.n_clusters else ""
            lines.append(f"{number:8d}  {entropy:10.4f}  {' | '.join(members)}{hint}")
        return "\n".join(lines)


def combine(mixture: Any, X: ArrayLike, sample_weight: ArrayLike | None = None, **arguments: Any) -> Combination:
    """Combine the components of a fitted mixture into ever fewer clusters, by entropy.

    Starting from a cluster per component, the two clusters are combined whose union lowers the entropy
    -sum_i w_i sum_g t_ig log t_ig most, t_ig the posterior probability of cluster g for row i. The density stays that
    of the mixture.

    Parameters
    ----------
    mixture : estimator
        A fitted mixture, of any kind.
    X : array-like of shape (n, d)
        Observations.
    sample_weight : array-like of shape (n,), optional
        Row weights w.
    **arguments : any
        What else the mixture's `predict_proba` takes, such as exposures.

    Returns
    -------
    Combination
        The clusters for every number of them, their entropies, and a hint at how many there are.

    Raises
    ------
    TypeError
        If the mixture has no `predict_proba`.

    References
    ----------
    Baudry, Raftery, Celeux, Lo & Gottardo (2010), "Combining mixture components for clustering", Journal of
    Computational and Graphical Statistics 19. The bend is where two straight lines that share a point fit the
    entropies best, as there.

    Examples
    --------
    >>> import lvm
    >>> X = lvm.datasets.load_faithful().data
    >>> combination = lvm.combine(lvm.GaussianMixture(4, random_state=0).fit(X), X)
    >>> combination.n_clusters
    2
    >>> float(combination.entropies[0])
    0.0
    """
    if not hasattr(mixture, "predict_proba"):
        raise TypeError(f"combine expects a fitted mixture, got {type(mixture).__name__}.")
    check_is_fitted(mixture)
    proba = np.asarray(mixture.predict_proba(X, **arguments), np.float64)
    n, K = proba.shape
    weight = _checks.sample_weight(sample_weight, n)
    columns = np.ascontiguousarray(proba.T)
    parts = np.array([_negentropy(column, weight) for column in columns])  # of every cluster that is left
    gains = np.full((K, K), -np.inf)
    for g in range(K - 1):
        gains[g, g + 1 :] = _gains(columns[g], parts[g], columns[g + 1 :], parts[g + 1 :], weight)
    label = np.arange(K)
    labels, entropies = np.empty((K, K), np.int64), np.empty(K)
    for number in range(K, 0, -1):
        labels[number - 1] = label
        entropies[number - 1] = 0.0 if number == 1 else max(0.0, -float(parts.sum()))
        if number == 1:
            break
        a, b = np.unravel_index(int(gains.argmax()), gains.shape)
        columns[a] += columns[b]
        parts[a] = _negentropy(columns[a], weight)
        columns, parts = np.delete(columns, b, axis=0), np.delete(parts, b)
        gains = np.delete(np.delete(gains, b, axis=0), b, axis=1)
        label = np.where(label == b, a, label - (label > b))
        others = np.arange(number - 1) != a
        new = _gains(columns[a], parts[a], columns[others], parts[others], weight)
        gains[:a, a], gains[a, a + 1 :] = new[:a], new[a:]
    return Combination(mixture, labels, entropies, bend(entropies)[0])


def merged(proba: Array, clusters: NDArray[np.int64]) -> Array:
    """Return the probabilities of clusters (n, G) from those of components (n, K) and the cluster of each (K,)."""
    return np.asarray(proba @ np.eye(int(clusters.max()) + 1)[clusters])


def _negentropy(column: Array, weight: Array | None) -> float:
    """Return sum_i w_i t_i log t_i of a cluster's probabilities t (n,)."""
    terms = column * np.log(np.maximum(column, np.finfo(np.float64).tiny))
    return float((terms if weight is None else weight * terms).sum())


def _gains(column: Array, part: float, others: Array, parts: Array, weight: Array | None) -> Array:
    """Return by how much uniting a cluster (n,) with each of others (m, n) would lower the entropy, shape (m,)."""
    unions = np.array([_negentropy(column + other, weight) for other in others])
    return unions - part - parts


def bend(entropies: Array) -> tuple[int, list[tuple[float, float]]]:
    """Return where two lines that share a point fit entropies of 1, 2, ... clusters best, and their coefficients.

    Parameters
    ----------
    entropies : ndarray of shape (K,)
        Entropies by number of clusters.

    Returns
    -------
    n_clusters : int
        The number of clusters at the shared point; K where K <= 2, and there are no lines.
    lines : list of tuple
        Slope and intercept left and right of it.
    """
    K = len(entropies)
    x = np.arange(1.0, K + 1)
    best, found = np.inf, (K, list[tuple[float, float]]())
    for c in range(2, K):
        lines, total = [], 0.0
        for part in (slice(0, c), slice(c - 1, K)):
            dx, dy = x[part] - x[part].mean(), entropies[part] - entropies[part].mean()
            slope = float(dx @ dy / (dx @ dx))
            lines.append((slope, float(entropies[part].mean() - slope * x[part].mean())))
            total += float(np.square(dy - slope * dx).sum())
        if total < best:
            best, found = total, (c, lines)
    return found
