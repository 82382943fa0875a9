"""Slow references of the products of rows with tables of components: one entry at a time, nothing vectorised.

Nothing here imports the library. Tables and sums are (d, K), responsibilities and products (K, n).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def products(X: Array, table: Array, base: Array, offset: Array) -> Array:
    """Return base_k + offset_i + sum_j x_ij t_jk, where 0 times -inf is 0."""
    (n, d), K = X.shape, table.shape[1]
    out = np.empty((K, n))
    for k in range(K):
        for i in range(n):
            value = base[k] + offset[i]
            for j in range(d):
                if np.isfinite(table[j, k]):
                    value += X[i, j] * table[j, k]
                elif X[i, j] > 0:
                    value = -np.inf
            out[k, i] = value
    return out


def sums_of_patterns(X: Array, log_zero: Array, log_one: Array) -> Array:
    """Return the sum over features of log_one_jk where x_ij is 1, and of log_zero_jk where it is 0, (K, n)."""
    (n, d), K = X.shape, log_one.shape[1]
    out = np.zeros((K, n))
    for k in range(K):
        for i in range(n):
            for j in range(d):
                out[k, i] += log_one[j, k] if X[i, j] else log_zero[j, k]
    return out


def weighted_sums(X: Array, resp: Array) -> tuple[Array, Array]:
    """Return sum_i r_ki, (K,), and sum_i r_ki x_ij, (d, K)."""
    (n, d), K = X.shape, len(resp)
    counts, sums = np.zeros(K), np.zeros((d, K))
    for i in range(n):
        for k in range(K):
            counts[k] += resp[k, i]
            for j in range(d):
                sums[j, k] += resp[k, i] * X[i, j]
    return counts, sums


def in_groups(table: Array, size: int = 8) -> Array:
    """Return a table (d, K) as (G, d, size): lane c of group g is component g * size + c, or the last one."""
    d, K = table.shape
    out = np.zeros((-(-K // size), d, size))
    for j in range(d):
        for k in range(len(out) * size):
            out[k // size, j, k % size] = table[j, min(k, K - 1)]
    return out
