"""Gaussian log densities under full covariance, strip by strip: whiten and square."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lvm._jit import Array, helper
from lvm.kernels.strips import LOG_2PI, Scratch


class Whitened(NamedTuple):
    """Components as strips of one dtype see them; d is padded with zeros to e, a multiple of 4.

    Attributes
    ----------
    near : ndarray of shape (K, d)
        Means, rounded to the dtype.
    offsets : ndarray of shape (K, e)
        -L (mean - near): what the rounding of the means lacks, after whitening.
    factors : ndarray of shape (K, e, e)
        Inverse Cholesky factors L, lower.
    log_norms : ndarray of shape (K,), float64
        Log densities at the means.
    """

    near: Array
    offsets: Array
    factors: Array
    log_norms: Array


@helper
def whitened_components(X: Any, means: Array, factors: Array) -> Whitened:
    """Return components with means (K, d) and inverse Cholesky factors (K, d, d) in the dtype of X."""
    K, d = means.shape
    e = (d + 3) // 4 * 4
    near = means.astype(X.dtype)
    padded = np.zeros((K, e, e), X.dtype)
    offsets = np.zeros((K, e), X.dtype)
    log_norms = np.full(K, -0.5 * d * LOG_2PI)
    for k in range(K):
        for i in range(d):
            log_norms[k] += np.log(factors[k, i, i])
            rest = 0.0
            for j in range(i + 1):
                padded[k, i, j] = factors[k, i, j]
                rest -= factors[k, i, j] * (means[k, j] - near[k, j])
            offsets[k, i] = rest
    return Whitened(near, offsets, padded, log_norms)


def add_whitened_density(
    strip: Array, m: int, components: Whitened, k: int, depth: int, scratch: Scratch, row: Array
) -> None:
    """Add the log densities under component k, see `densities.add_log_density`."""
    z, norms = scratch.centred, scratch.norms
    for i in range(min(depth, components.near.shape[1])):
        mean = components.near[k, i]
        for p in range(m):
            z[i, p] = strip[i, p] - mean
    squared_norms(components.factors[k], components.offsets[k], depth, z, m, scratch.whitened, norms)
    log_norm = components.log_norms[k]
    for p in range(m):
        row[p] += log_norm - 0.5 * norms[p]


@helper
def squared_norms(L: Array, offset: Array, depth: int, z: Array, m: int, y: Array, norms: Array) -> None:
    """Write the norm squared of the first rows of L z + offset to norms (m,), for m points z (e, m).

    L is lower triangular; depth, the number of rows, is a multiple of 4.
    """
    for j in range(0, depth, 4):
        o0, o1, o2, o3 = offset[j], offset[j + 1], offset[j + 2], offset[j + 3]
        # Four rows of y = L z at a time, four columns of L each: a store serves four multiply-adds.
        for i in range(0, j, 4):
            a0, a1, a2, a3 = L[j, i], L[j, i + 1], L[j, i + 2], L[j, i + 3]
            b0, b1, b2, b3 = L[j + 1, i], L[j + 1, i + 1], L[j + 1, i + 2], L[j + 1, i + 3]
            c0, c1, c2, c3 = L[j + 2, i], L[j + 2, i + 1], L[j + 2, i + 2], L[j + 2, i + 3]
            d0, d1, d2, d3 = L[j + 3, i], L[j + 3, i + 1], L[j + 3, i + 2], L[j + 3, i + 3]
            if i == 0:  # written, not added to: there is nothing to load
                for p in range(m):
                    t, u, v, w = z[0, p], z[1, p], z[2, p], z[3, p]
                    y[0, p] = o0 + a0 * t + a1 * u + a2 * v + a3 * w
                    y[1, p] = o1 + b0 * t + b1 * u + b2 * v + b3 * w
                    y[2, p] = o2 + c0 * t + c1 * u + c2 * v + c3 * w
                    y[3, p] = o3 + d0 * t + d1 * u + d2 * v + d3 * w
            else:
                for p in range(m):
                    t, u, v, w = z[i, p], z[i + 1, p], z[i + 2, p], z[i + 3, p]
                    y[0, p] += a0 * t + a1 * u + a2 * v + a3 * w
                    y[1, p] += b0 * t + b1 * u + b2 * v + b3 * w
                    y[2, p] += c0 * t + c1 * u + c2 * v + c3 * w
                    y[3, p] += d0 * t + d1 * u + d2 * v + d3 * w
        # The triangle on the diagonal completes the four rows: they are squared without being stored.
        a0 = L[j, j]
        b0, b1 = L[j + 1, j], L[j + 1, j + 1]
        c0, c1, c2 = L[j + 2, j], L[j + 2, j + 1], L[j + 2, j + 2]
        d0, d1, d2, d3 = L[j + 3, j], L[j + 3, j + 1], L[j + 3, j + 2], L[j + 3, j + 3]
        if j == 0:
            for p in range(m):
                t, u, v, w = z[0, p], z[1, p], z[2, p], z[3, p]
                y0 = o0 + a0 * t
                y1 = o1 + b0 * t + b1 * u
                y2 = o2 + c0 * t + c1 * u + c2 * v
                y3 = o3 + d0 * t + d1 * u + d2 * v + d3 * w
                norms[p] = y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
        else:
            for p in range(m):
                t, u, v, w = z[j, p], z[j + 1, p], z[j + 2, p], z[j + 3, p]
                y0 = y[0, p] + a0 * t
                y1 = y[1, p] + b0 * t + b1 * u
                y2 = y[2, p] + c0 * t + c1 * u + c2 * v
                y3 = y[3, p] + d0 * t + d1 * u + d2 * v + d3 * w
                norms[p] += y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
