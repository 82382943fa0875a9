"""Posterior of the component, and its normaliser: the shared middle of every mixture's E-step."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, kernel
from lvm.kernels.exponential import exp_inplace
from lvm.kernels.strips import STRIP


@kernel
def _log_sum(log_density: Array, log_weights: Array) -> float:
    """Return log sum_k exp(log_density + log_weights), each (K,)."""
    top = -np.inf
    for k in range(log_density.shape[0]):
        top = max(top, log_density[k] + log_weights[k])
    if not (top > -np.inf and top < np.inf):
        return top
    total = 0.0
    for k in range(log_density.shape[0]):
        total += math.exp(log_density[k] + log_weights[k] - top)
    return top + math.log(total)


@kernel
def responsibilities(
    resp: Array,
    log_weights: Array,
    log_penalty: Array,
    weight: Array,
    labels: NDArray[np.int64],
    counts: Array,
    row_loglik: Array,
) -> tuple[float, float, int]:
    """Turn resp (K, n) from log densities into weighted responsibilities, in place.

    Adds log_weights + log_penalty (K,), keeps the labelled component of a row with labels (n,) >= 0,
    multiplies by weight (n,), adds the totals to counts (K,), writes each row's log-likelihood to
    row_loglik (n,). Returns the weighted log-likelihood, the weighted penalty, and the first
    row without a finite one (-1: none). With penalties a_k <= 0, row_loglik is log sum_k pi_k p_k and the
    penalty is log sum_k pi_k p_k exp(a_k) less that.
    """
    K, n = resp.shape
    top = np.empty(STRIP)
    total = np.empty(STRIP)
    relief = np.empty(STRIP)
    scratch = np.empty(STRIP)
    offset = np.empty(K)
    penalised = False
    for k in range(K):
        offset[k] = log_weights[k] + log_penalty[k]
        penalised = penalised or log_penalty[k] != 0.0
    largest = np.max(-log_penalty)
    # Up to here the sum without penalties follows from the responsibilities, whose smallest are exp(-708).
    careful = largest > 600.0
    loglik = 0.0
    penalty = 0.0
    impossible = -1

    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        for p in range(m):
            label = labels[start + p]
            if label >= 0:
                for k in range(K):
                    if k != label:
                        resp[k, start + p] = -np.inf
        if careful:
            for p in range(m):
                relief[p] = _log_sum(resp[:, start + p], log_weights)
        for p in range(m):
            top[p] = -np.inf
        for k in range(K):
            row = resp[k, start : start + m]
            for p in range(m):
                row[p] += offset[k]
                top[p] = max(top[p], row[p])
        for p in range(m):
            total[p] = 0.0
            if not (top[p] > -np.inf and top[p] < np.inf):
                if impossible < 0 and weight[start + p] > 0.0:
                    impossible = start + p
                row_loglik[start + p] = -np.inf if top[p] == -np.inf else np.nan
                top[p] = 0.0
        for k in range(K):
            row = resp[k, start : start + m]
            for p in range(m):
                row[p] -= top[p]
            exp_inplace(row, scratch)
            for p in range(m):
                total[p] += row[p]
        for p in range(m):
            if total[p] > 0.0 and total[p] < np.inf:
                row_loglik[start + p] = top[p] + math.log(total[p])
                total[p] = weight[start + p] / total[p]
            else:
                total[p] = 0.0
        for k in range(K):
            row = resp[k, start : start + m]
            count = 0.0
            for p in range(m):
                row[p] = row[p] * total[p]
                count += row[p]
            counts[k] += count
        if careful:
            for p in range(m):
                if weight[start + p] > 0.0:
                    penalty += weight[start + p] * (row_loglik[start + p] - relief[p])
                row_loglik[start + p] = relief[p]
        elif penalised:
            for p in range(m):
                relief[p] = 0.0
            for k in range(K):
                factor = math.exp(-log_penalty[k] - largest)
                for p in range(m):
                    relief[p] += factor * resp[k, start + p]
            for p in range(m):
                w = weight[start + p]
                if relief[p] > 0.0:
                    lift = math.log(relief[p] / w) + largest
                    row_loglik[start + p] += lift
                    penalty -= w * lift
        for p in range(m):
            if weight[start + p] > 0.0:
                loglik += weight[start + p] * row_loglik[start + p]
    return loglik, penalty, impossible
