"""Posterior of the component, and its normaliser: the shared middle of every mixture's E-step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper, kernel
from lvm._masks import any_above
from lvm._vectors import ZERO, lanes, load, load_one, spread, store
from lvm.kernels.elementary import exp, exp_above, log
from lvm.kernels.strips import STRIP

# A responsibility below 4e-18, the exponential of this, of the largest adds no digit to any sum, and may be taken for
# 0, so that moments can leave the row out.
NEGLIGIBLE = -40.0


@helper
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


@helper
def _keep_labelled(resp: Array, labels: NDArray[np.int64]) -> None:
    """Make every component but the known one impossible, for resp (K, m) and labels (m,), -1 for unknown."""
    for p in range(labels.shape[0]):
        if labels[p] >= 0:
            for k in range(resp.shape[0]):
                if k != labels[p]:
                    resp[k, p] = -np.inf


@helper
def _exponentiate(resp: Array, k: int, start: int, m: int, top: Array, smallest: float, total: Array) -> None:
    """Turn m values of resp[k] from start on into exp(value - top), 0 up to exp(smallest), and add them to total."""
    at, end = np.uint64(k * resp.shape[1] + start), np.uint64(m)
    whole = end - end % lanes(resp)
    for p in range(ZERO, whole, lanes(resp)):
        difference, y = load(resp, at + p) - load(top, p), spread(0.0, resp)
        if any_above(difference, smallest):  # with components far apart, seldom
            y = exp_above(difference, smallest)
            store(load(total, p) + y, total, p)
        store(y, resp, at + p)
    for p in range(whole, end):
        difference = load_one(resp, at + p) - top[p]
        y = exp(difference) if difference > smallest else 0.0
        resp[k, start + p] = y
        total[p] += y


@helper
def _mark_irregular(top: Array, weight: Array, row_loglik: Array, start: int, impossible: int) -> int:
    """Write -inf or NaN to row_loglik (m,) where top is not finite, else 0, and make top 0 there.

    Returns the first such row of positive weight, counted from start, unless one was found before.
    """
    for p in range(weight.shape[0]):
        row_loglik[p] = 0.0
        if not (top[p] > -np.inf and top[p] < np.inf):
            if impossible < 0 and weight[p] > 0.0:
                impossible = start + p
            row_loglik[p] = -np.inf if top[p] == -np.inf else np.nan
            top[p] = 0.0
    return impossible


@kernel
def keep_allowed(resp: Array, allowed: NDArray[np.uint8]) -> None:
    """Write -inf to the log densities resp (K, n) of components that a row does not allow, by allowed (n, K)."""
    for p in range(resp.shape[1]):
        for k in range(resp.shape[0]):
            if allowed[p, k] == 0:
                resp[k, p] = -np.inf


@kernel
def responsibilities(
    resp: Array,
    log_weights: Array,
    log_penalty: Array,
    weight: Array,
    labels: NDArray[np.int64],
    counts: Array,
    row_loglik: Array,
    smallest: float,
) -> tuple[float, float, int]:
    """Turn resp (K, n) from log densities into weighted responsibilities, in place.

    Adds log_weights + log_penalty (K,), keeps the labelled component of a row with labels (n,) >= 0, makes 0 what
    is below the largest of the row by more than -smallest in its logarithm, and multiplies by weight (n,). Adds the
    totals to counts (K,) and writes each row's log-likelihood to row_loglik (n,). Returns the weighted
    log-likelihood, the weighted penalty, and the first row without a finite one (-1: none). With penalties a_k <= 0,
    row_loglik is log sum_k pi_k p_k and the penalty is log sum_k pi_k p_k exp(a_k) less that.
    """
    K, n = resp.shape
    top = np.empty(STRIP)
    total = np.empty(STRIP)
    relief = np.empty(STRIP)
    largest = 0.0
    for k in range(K):
        largest = max(largest, -log_penalty[k])
    # Up to here the sum without penalties follows from the responsibilities that are not 0: 38 is -log(eps) and more.
    careful = largest > -smallest - 38.0
    loglik = 0.0
    penalty = 0.0
    impossible: Any = np.int64(-1)  # a literal would be another type, and another signature of the helper

    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        row_weight = weight[start : start + m]
        out = row_loglik[start : start + m]
        known = np.int64(-1)
        for p in range(m):
            top[p] = -np.inf
            total[p] = 0.0
            known = max(known, labels[start + p])
        if known >= 0:
            _keep_labelled(resp[:, start : start + m], labels[start : start + m])
        if careful:
            for p in range(m):
                relief[p] = _log_sum(resp[:, start + p], log_weights)
        for k in range(K):
            row = resp[k, start : start + m]
            offset = log_weights[k] + log_penalty[k]
            for p in range(m):
                row[p] += offset
                top[p] = max(top[p], row[p])
        lowest, highest = np.inf, -np.inf
        for p in range(m):
            lowest = min(lowest, top[p])
            highest = max(highest, top[p])
        ordinary = lowest > -np.inf and highest < np.inf
        if not ordinary:
            impossible = _mark_irregular(top, row_weight, out, start, impossible)
        for k in range(K):
            _exponentiate(resp, k, start, m, top, smallest, total)
        if ordinary:
            for p in range(m):
                out[p] = top[p] + log(total[p])
                total[p] = row_weight[p] / total[p]
        else:
            for p in range(m):
                regular = out[p] == 0.0
                out[p] = top[p] + log(total[p]) if regular else out[p]
                total[p] = row_weight[p] / total[p] if regular else 0.0
        for k in range(K):
            row = resp[k, start : start + m]
            count = 0.0
            for p in range(m):
                row[p] *= total[p]
                count += row[p]
            counts[k] += count
        if careful:
            for p in range(m):
                if row_weight[p] > 0.0:
                    penalty += row_weight[p] * (out[p] - relief[p])
                out[p] = relief[p]
        elif largest > 0.0:
            for p in range(m):
                relief[p] = 0.0
            for k in range(K):
                factor = math.exp(-log_penalty[k] - largest)
                for p in range(m):
                    relief[p] += factor * resp[k, start + p]
            for p in range(m):
                counted = relief[p] > 0.0  # neither weight 0 nor impossible
                lift = log(relief[p] / row_weight[p] if counted else 1.0) + (largest if counted else 0.0)
                out[p] += lift
                penalty -= row_weight[p] * lift
        for p in range(m):
            loglik += row_weight[p] * out[p] if row_weight[p] > 0.0 else 0.0
    return loglik, penalty, impossible
