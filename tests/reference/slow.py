"""Slow, obvious references: densities by scipy.stats, everything else as the textbook writes it.

Nothing here imports the library. Log densities are (K, n), like the library's; covariances always (K, d, d).
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

GAUSSIAN = ("full", "tied", "diag", "spherical")


# ----- densities ----------------------------------------------------------------------------------------------


def expand_covariances(kind: str, covariances: Array, K: int, d: int) -> Array:
    """Return covariance matrices (K, d, d) from the shape that scikit-learn gives to each structure."""
    if kind == "full":
        return np.array(covariances)
    if kind == "tied":
        return np.array([covariances] * K).reshape(K, d, d)
    if kind == "diag":
        return np.array([np.diag(row) for row in covariances])
    return np.array([value * np.eye(d) for value in covariances])


def gaussian_log_density(X: Array, means: Array, covariances: Array) -> Array:
    columns = [stats.multivariate_normal(m, c).logpdf(X) for m, c in zip(means, covariances, strict=True)]
    return np.array(columns).reshape(len(means), len(X))


def whitened_log_density(X: Array, means: Array, factor: Array) -> tuple[Array, Array]:
    """Return log densities under one inverse Cholesky factor (d, d), and L (x - mean), shape (K, n, d).

    Unlike scipy's, which come from eigenvalues, they lose no digits to the condition of the covariance.
    """
    z = np.array([(X - mean) @ factor.T for mean in means])
    log_norm = np.log(np.diag(factor)).sum() - 0.5 * len(factor) * np.log(2 * np.pi)
    return log_norm - 0.5 * (z**2).sum(axis=-1), z


def bernoulli_log_density(X: Array, probabilities: Array) -> Array:
    return np.array([stats.bernoulli.logpmf(X.astype(int), row).sum(axis=1) for row in probabilities])


def multinomial_log_density(X: Array, probabilities: Array) -> Array:
    counts = X.astype(int)
    return np.array([stats.multinomial.logpmf(counts, counts.sum(axis=1), row) for row in probabilities])


# ----- E-step -------------------------------------------------------------------------------------------------


class Posterior(NamedTuple):
    """Weighted responsibilities (K, n), each row's log-likelihood (n,), their weighted sum, the weighted penalty."""

    resp: Array
    row_loglik: Array
    loglik: float
    penalty: float


def posterior(
    log_density: Array,
    weights: Array,
    sample_weight: Array | None = None,
    labels: Labels | None = None,
    log_penalty: Array | None = None,
) -> Posterior:
    """Bayes' rule by logsumexp; a penalty multiplies each component's density by exp(log_penalty)."""
    K, n = log_density.shape
    sample_weight = np.ones(n) if sample_weight is None else sample_weight
    log_penalty = np.zeros(K) if log_penalty is None else log_penalty
    with np.errstate(divide="ignore"):
        joint = log_density + np.log(weights)[:, None]
    if labels is not None:
        for i, label in enumerate(labels):
            if label >= 0:
                joint[np.arange(K) != label, i] = -np.inf
    plain = logsumexp(joint, axis=0)
    penalised = logsumexp(joint + log_penalty[:, None], axis=0)
    used = sample_weight > 0
    resp = np.zeros((K, n))
    possible = np.isfinite(penalised)
    resp[:, possible] = np.exp(joint + log_penalty[:, None] - penalised)[:, possible] * sample_weight[possible]
    loglik = float(np.sum(sample_weight[used] * plain[used]))
    penalty = float(np.sum(sample_weight[used] * (penalised[used] - plain[used]))) if log_penalty.any() else 0.0
    return Posterior(resp, plain, loglik, penalty)


def moments(X: Array, resp: Array, centres: Array) -> tuple[Array, Array, Array]:
    """Return sums of r, r z and r z z' with z = x - centre: (K,), (K, d), (K, d, d)."""
    K, d = centres.shape
    counts, first, second = np.zeros(K), np.zeros((K, d)), np.zeros((K, d, d))
    for k in range(K):
        z = X - centres[k]
        counts[k] = resp[k].sum()
        first[k] = (resp[k][:, None] * z).sum(axis=0)
        second[k] = (resp[k][:, None] * z).T @ z
    return counts, first, second


# ----- M-step -------------------------------------------------------------------------------------------------


def gaussian_mstep(kind: str, X: Array, resp: Array, reg_covar: float = 0.0) -> tuple[Array, Array]:
    """Return means (K, d) and covariances (K, d, d): two passes, the second about the new means."""
    K, d = len(resp), X.shape[1]
    counts = resp.sum(axis=1)
    # About the first row, so that an offset of the data costs the reference no digits either.
    means = np.array([X[0] + r @ (X - X[0]) / r.sum() for r in resp])
    scatter = moments(X, resp, means)[2]
    if kind == "tied":
        scatter = np.repeat(scatter.sum(axis=0)[None] / counts.sum(), K, axis=0)
    else:
        scatter = scatter / counts[:, None, None]
    if kind == "diag":
        scatter = np.array([np.diag(np.diag(s)) for s in scatter])
    if kind == "spherical":
        scatter = np.array([np.eye(d) * np.trace(s) / d for s in scatter])
    return means, scatter + reg_covar * np.eye(d)


def bernoulli_mstep(X: Array, resp: Array, alpha: float = 1.0) -> Array:
    return (resp @ X + alpha - 1) / (resp.sum(axis=1)[:, None] + 2 * (alpha - 1))


def multinomial_mstep(X: Array, resp: Array, alpha: float = 1.0) -> Array:
    events = resp @ X + alpha - 1
    return events / events.sum(axis=1, keepdims=True)


# ----- exhaustive enumeration ---------------------------------------------------------------------------------


def enumerate_assignments(
    log_density: Array, weights: Array, labels: Labels | None = None
) -> tuple[float, Array, Array]:
    """Sum over all K**n assignments of rows to components.

    Returns log p(X), the posterior probability of each assignment, and the assignments (K**n, n): no row is
    treated apart from the others, so nothing is shared with the usual E-step.
    """
    K, n = log_density.shape
    assignments = np.array(list(product(range(K), repeat=n)))
    joint = np.zeros(len(assignments))
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    for a, assignment in enumerate(assignments):
        for i, k in enumerate(assignment):
            allowed = labels is None or labels[i] < 0 or labels[i] == k
            joint[a] += log_weights[k] + log_density[k, i] if allowed else -np.inf
    total = float(logsumexp(joint))
    return total, np.exp(joint - total), assignments
