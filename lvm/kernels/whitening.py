"""Gaussian log densities under full covariance, strip by strip: whiten and square."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lvm._jit import Array, helper
from lvm.kernels.strips import STRIP, WIDTH

LOG_2PI = 1.8378770664093453


class Whitened(NamedTuple):
    """Components as strips of one dtype see them; d is padded with zeros to e, a multiple of 4.

    Attributes
    ----------
    near : ndarray of shape (K, d)
        Means, rounded to the dtype.
    offsets : ndarray of shape (K, e)
        -L (mean - near): what the rounding of the means lacks, after whitening.
    factors : ndarray of shape (C, e, e)
        Inverse Cholesky factors L, lower; C is K or 1.
    log_norms : ndarray of shape (K,), float64
        Log densities at the means.
    """

    near: Array
    offsets: Array
    factors: Array
    log_norms: Array


class Scratch(NamedTuple):
    """Room for a centred strip (e, WIDTH), four whitened rows (4, WIDTH) and squared norms (STRIP,)."""

    centred: Array
    whitened: Array
    norms: Array


@helper
def whitened_components(X: Any, means: Array, factors: Array) -> Whitened:
    """Return components with means (K, d) and factors (C, d, d) in the dtype of X."""
    K, d = means.shape
    e = (d + 3) // 4 * 4
    near = means.astype(X.dtype)
    padded = np.zeros((factors.shape[0], e, e), X.dtype)
    offsets = np.zeros((K, e), X.dtype)
    log_norms = np.full(K, -0.5 * d * LOG_2PI)
    for c in range(factors.shape[0]):
        for i in range(d):
            for j in range(i + 1):
                padded[c, i, j] = factors[c, i, j]
    for k in range(K):
        c = min(k, factors.shape[0] - 1)
        for i in range(d):
            log_norms[k] += np.log(factors[c, i, i])
            rest = 0.0
            for j in range(i + 1):
                rest -= factors[c, i, j] * (means[k, j] - near[k, j])
            offsets[k, i] = rest
    return Whitened(near, offsets, padded, log_norms)


@helper
def norms_scratch(X: Any, d: int) -> Scratch:
    """Return room for `add_log_density`, in the dtype of X."""
    e = (d + 3) // 4 * 4
    return Scratch(np.zeros((e, WIDTH), X.dtype), np.empty((4, WIDTH), X.dtype), np.empty(STRIP, X.dtype))


@helper
def add_log_density(strip: Array, m: int, components: Whitened, k: int, scratch: Scratch, row: Array) -> None:
    """Add the log densities of m points in strip (>= d, WIDTH) under component k to row (m,)."""
    z, norms = scratch.centred, scratch.norms
    for i in range(components.near.shape[1]):
        mean = components.near[k, i]
        for p in range(m):
            z[i, p] = strip[i, p] - mean
    c = min(k, components.factors.shape[0] - 1)
    squared_norms(components.factors[c], components.offsets[k], z, m, scratch.whitened, norms)
    log_norm = components.log_norms[k]
    for p in range(m):
        row[p] += log_norm - 0.5 * norms[p]


@helper
def squared_norms(L: Array, offset: Array, z: Array, m: int, y: Array, norms: Array) -> None:
    """Write |L z + offset|**2 of m points z (d, m) to norms (m,), for lower triangular L; d is a multiple of 4."""
    for p in range(m):
        norms[p] = 0.0
    for j in range(0, L.shape[0], 4):
        o0, o1, o2, o3 = offset[j], offset[j + 1], offset[j + 2], offset[j + 3]
        for p in range(m):
            y[0, p] = o0
            y[1, p] = o1
            y[2, p] = o2
            y[3, p] = o3
        # Four rows of y = L z at a time, four columns of L each: a store serves four multiply-adds.
        for i in range(0, j, 4):
            a0, a1, a2, a3 = L[j, i], L[j, i + 1], L[j, i + 2], L[j, i + 3]
            b0, b1, b2, b3 = L[j + 1, i], L[j + 1, i + 1], L[j + 1, i + 2], L[j + 1, i + 3]
            c0, c1, c2, c3 = L[j + 2, i], L[j + 2, i + 1], L[j + 2, i + 2], L[j + 2, i + 3]
            d0, d1, d2, d3 = L[j + 3, i], L[j + 3, i + 1], L[j + 3, i + 2], L[j + 3, i + 3]
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
        for p in range(m):
            t, u, v, w = z[j, p], z[j + 1, p], z[j + 2, p], z[j + 3, p]
            y0 = y[0, p] + a0 * t
            y1 = y[1, p] + b0 * t + b1 * u
            y2 = y[2, p] + c0 * t + c1 * u + c2 * v
            y3 = y[3, p] + d0 * t + d1 * u + d2 * v + d3 * w
            norms[p] += y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
