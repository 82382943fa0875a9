"""The lower bound that EM raises: with a divergence added, it is the log-likelihood, for any responsibilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from lvm.models.chain_walk import chain_posterior
from lvm.protocol import Rows, ZeroDensityError

Array = NDArray[np.float64]
ROUNDING = 1e-6  # of responsibilities that should sum to 1


class Decomposition(NamedTuple):
    """The two parts of a log-likelihood, in nats: loglik = elbo + kl.

    Attributes
    ----------
    loglik : float
        Log-likelihood of the rows, which depends on the parameters alone.
    elbo : float
        Lower bound by the responsibilities q: the expectation of log p(x, z) - log q(z) under q.
    kl : float
        Kullback-Leibler divergence from q to the posterior of the components, >= 0.
    """

    loglik: float
    elbo: float
    kl: float


def decompose(model: Any, rows: Any, params: Any, responsibilities: ArrayLike) -> Decomposition:
    """Split the log-likelihood of rows into a lower bound and a divergence, by any responsibilities.

    The E-step makes the divergence 0, the M-step raises the bound.

    Parameters
    ----------
    model : LatentModel
        Of a discrete latent variable: it offers `joint_log_density(rows, params)`, log p(x_i, z_i = k) of shape (n, K),
        as `lvm.Mixture` does; or, as hidden Markov models do, `chain_log_density(rows, params)`.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        The data; an array X stands for `Rows(X)`.
    params : NamedTuple
        Parameters of the model.
    responsibilities : array-like of shape (n, K)
        A distribution over the components for each row: >= 0, and each row sums to 1. Of a hidden Markov model, a
        distribution over the paths, as probabilities [t, i, j] of state j at observation t after i, shape (n, K, K);
        the first observation of a sequence has the same for all i.

    Returns
    -------
    Decomposition
        Log-likelihood, bound and divergence, weighted by `rows.weight`. Responsibility where a row is impossible makes
        the bound -inf and the divergence inf.

    Raises
    ------
    TypeError
        If the model has neither, as where the latent variable is continuous.
    ValueError
        If the responsibilities have the wrong shape, are negative or do not sum to 1, or if a row has density 0.

    References
    ----------
    Neal & Hinton (1998), "A view of the EM algorithm that justifies incremental, sparse, and other variants". Bishop
    (2006), "Pattern Recognition and Machine Learning", equations 9.70 to 9.72.

    Examples
    --------
    >>> import lvm, numpy as np
    >>> X = np.array([[1, 1], [0, 1], [0, 0]])
    >>> family = lvm.families.Bernoulli()
    >>> params = lvm.MixtureParams(np.full(2, 0.5), family.params(probabilities=[[0.9, 0.6], [0.2, 0.3]]))
    >>> loglik, elbo, kl = lvm.decompose(lvm.Mixture(family), X, params, np.full((3, 2), 0.5))
    >>> bool(elbo < loglik), bool(np.isclose(elbo + kl, loglik))
    (True, True)
    """
    joint, q, weight = _prepared(model, rows, params, responsibilities)
    posterior, row_loglik = chain_posterior(joint) if joint.ndim == 3 else _posterior(joint)
    impossible = np.flatnonzero(~np.isfinite(row_loglik) & (weight > 0))
    if len(impossible):
        raise ZeroDensityError(int(impossible[0]))
    divergence = np.maximum(_expected_log_ratio(q, posterior), 0.0)  # below is rounding
    loglik, kl = _weighted_sum(weight, row_loglik), _weighted_sum(weight, divergence)
    return Decomposition(loglik, -_weighted_sum(weight, _expected_log_ratio(q, joint)), kl)


def elbo(model: Any, rows: Any, params: Any, responsibilities: ArrayLike) -> float:
    """Return the lower bound of the log-likelihood by any responsibilities: the evidence lower bound, in nats.

    Parameters
    ----------
    model : LatentModel
        Of a discrete latent variable, see `decompose`.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        The data; an array X stands for `Rows(X)`.
    params : NamedTuple
        Parameters of the model.
    responsibilities : array-like of shape (n, K)
        A distribution over the components for each row: >= 0, and each row sums to 1; or over paths, see `decompose`.

    Returns
    -------
    float
        The expectation of log p(x, z) - log q(z) under q, summed over rows; -inf where q allows what is impossible.
    """
    joint, q, weight = _prepared(model, rows, params, responsibilities)
    return -_weighted_sum(weight, _expected_log_ratio(q, joint))


def _prepared(model: Any, rows: Any, params: Any, responsibilities: ArrayLike) -> tuple[Array, Array, Array]:
    """Return the log joint density, (n, K) or of a chain (n, K, K), the responsibilities likewise, and weights (n,)."""
    if not (isinstance(rows, tuple) and hasattr(rows, "_fields")):
        rows = Rows(rows if hasattr(rows, "shape") else np.asarray(rows))
    if callable(getattr(model, "joint_log_density", None)):
        joint, weight = np.asarray(model.joint_log_density(rows, params)), getattr(rows, "weight", None)
        weight = np.ones(len(joint)) if weight is None else np.asarray(weight, np.float64)
    elif callable(getattr(model, "chain_log_density", None)):
        joint, weight = model.chain_log_density(rows, params)
    else:
        raise TypeError(
            f"{type(model).__name__} must implement joint_log_density(rows, params), of shape (n, K): responsibilities "
            "are probabilities of the K values that the latent variable of a row can take."
        )
    q = np.asarray(responsibilities, np.float64)
    if q.shape != joint.shape:
        meaning = (
            "one column per component" if joint.ndim == 2 else "from each state before [t, i] to each now [t, i, j]"
        )
        raise ValueError(f"responsibilities have shape {q.shape}, expected {joint.shape}: {meaning}.")
    bad = np.argwhere(~((q >= 0).all(axis=-1) & (np.abs(q.sum(axis=-1) - 1) < ROUNDING)))
    if len(bad):
        where = f"row {bad[0][0]}" + (f", state {bad[0][1]}" if joint.ndim == 3 else "")
        raise ValueError(f"responsibilities must be >= 0 and sum to 1 in each row; got {q[tuple(bad[0])]} in {where}.")
    return joint, q, weight


def _posterior(joint: Array) -> tuple[Array, Array]:
    """Return the log posterior (n, K), -inf where all is impossible, and the log-likelihoods (n,)."""
    row_loglik = logsumexp(joint, axis=1)
    return joint - np.where(np.isfinite(row_loglik), row_loglik, 0.0)[:, None], row_loglik


def _expected_log_ratio(q: Array, log_density: Array) -> Array:
    """Return sum_k q (log q - log_density) of each row (n,), where 0 log 0 = 0; inf where q > 0 and a density is 0.

    Of a chain, it is the expectation of that over the state before.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(q > 0, q * (np.log(q) - log_density), 0.0).sum(axis=-1)
        if q.ndim == 3:
            before = _before(q)
            terms = np.where(before > 0, before * terms, 0.0).sum(axis=1)
    return np.asarray(terms)


def _before(q: Array) -> Array:
    """Return the distribution of the state before each observation (n, K); any before the first, which has one q."""
    before = np.full(q.shape[:2], 1 / q.shape[1])
    for t in range(1, len(q)):
        before[t] = before[t - 1] @ q[t - 1]
    return before


def _weighted_sum(weight: Array, values: Array) -> float:
    """Return the sum of weight times value (n,); rows without weight do not count, infinite or not."""
    counted = weight > 0
    return float(weight[counted] @ values[counted])
