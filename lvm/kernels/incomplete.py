"""Gaussian log densities and moments of rows with holes, with axis-aligned covariances: a missing cell has no factor.

Cells are NaN where missing. Choices between two numbers become masks of vector instructions, where branches would not.
"""

from __future__ import annotations

import numpy as np

from lvm._jit import Array, helper, kernel
from lvm.kernels.strips import LOG_2PI, STRIP, load_strip, zero_strip


@helper
def load_incomplete_strip(X: Array, start: int, m: int, filling: float, strip: Array, seen: Array) -> None:
    """Copy m rows of X (n, d) to strip (>= d, WIDTH), transposed, `filling` where missing; seen is 1, or 0 there."""
    load_strip(X, start, m, strip)
    for j in range(X.shape[1]):
        values, flags = strip[j], seen[j]
        for p in range(m):
            known = values[p] == values[p]
            flags[p] = 1.0 if known else 0.0
            values[p] = values[p] if known else filling


@helper
def _padded(array: Array) -> Array:
    """Return an array (K, d) with columns of zeros behind it, up to a multiple of 4."""
    K, d = array.shape
    padded = np.zeros((K, (d + 3) // 4 * 4))
    for k in range(K):
        for i in range(d):
            padded[k, i] = array[k, i]
    return padded


@kernel
def add_observed_densities(X: Array, means: Array, inverse_scales: Array, out: Array) -> None:
    """Add the log densities of the observed cells of X (n, d) to out (K, n)."""
    (n, d), K = X.shape, out.shape[0]
    mu, scale = _padded(means), _padded(inverse_scales)
    e = mu.shape[1]
    heights = np.zeros((K, e))
    for k in range(K):
        for i in range(d):
            heights[k, i] = np.log(inverse_scales[k, i]) - 0.5 * LOG_2PI
    strip = zero_strip(e, X)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(K):
            row = out[k, start : start + m]
            for i in range(0, e, 4):  # as `scaling.add_scaled_density`
                m0, m1, m2, m3 = mu[k, i], mu[k, i + 1], mu[k, i + 2], mu[k, i + 3]
                s0, s1, s2, s3 = scale[k, i], scale[k, i + 1], scale[k, i + 2], scale[k, i + 3]
                h0, h1, h2, h3 = heights[k, i], heights[k, i + 1], heights[k, i + 2], heights[k, i + 3]
                for p in range(m):
                    z0, z1 = (strip[i, p] - m0) * s0, (strip[i + 1, p] - m1) * s1
                    z2, z3 = (strip[i + 2, p] - m2) * s2, (strip[i + 3, p] - m3) * s3
                    a = h0 - 0.5 * z0 * z0 if z0 == z0 else 0.0
                    b = h1 - 0.5 * z1 * z1 if z1 == z1 else 0.0
                    a += h2 - 0.5 * z2 * z2 if z2 == z2 else 0.0
                    b += h3 - 0.5 * z3 * z3 if z3 == z3 else 0.0
                    row[p] += a + b


@kernel
def add_observed_moments(
    X: Array, resp: Array, means: Array, first: Array, second: Array, observed: Array, rows: Array
) -> None:
    """Add the sums of r z, r z**2, r over observed cells z of X - mean to (K, d) each, and of r, resp, to rows (K,)."""
    (n, d), K = X.shape, resp.shape[0]
    near = _padded(means)
    e = near.shape[1]
    strip, one, two, seen = zero_strip(e, X), np.zeros((K, e)), np.zeros((K, e)), np.zeros((K, e))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(K):
            r, total = resp[k, start : start + m], 0.0
            for p in range(m):
                total += r[p]
            rows[k] += total
            for i in range(0, e if total > 0.0 else 0, 2):
                m0, m1 = near[k, i], near[k, i + 1]
                a0 = a1 = b0 = b1 = c0 = c1 = 0.0
                for p in range(m):
                    z0, z1 = strip[i, p] - m0, strip[i + 1, p] - m1
                    r0, r1 = r[p] if z0 == z0 else 0.0, r[p] if z1 == z1 else 0.0
                    z0, z1 = z0 if z0 == z0 else 0.0, z1 if z1 == z1 else 0.0
                    c0 += r0
                    c1 += r1
                    r0 *= z0
                    r1 *= z1
                    a0 += r0
                    a1 += r1
                    b0 += r0 * z0
                    b1 += r1 * z1
                one[k, i] += a0
                one[k, i + 1] += a1
                two[k, i] += b0
                two[k, i + 1] += b1
                seen[k, i] += c0
                seen[k, i + 1] += c1
    first += one[:, :d]
    second += two[:, :d]
    observed += seen[:, :d]


@kernel
def observed_column_moments(X: Array, weight: Array, total: Array, mean: Array, variance: Array) -> None:
    """Write the weight (n,), mean and variance of the observed cells of each column of X (n, d), see `column_moments`.

    Where that weight is 0, mean and variance are too.
    """
    n, d = X.shape
    shift = np.zeros(d)
    total[:] = 0.0
    mean[:] = 0.0
    variance[:] = 0.0
    for i in range(n):
        if weight[i] == 0.0:
            continue
        for j in range(d):
            if X[i, j] == X[i, j]:
                shift[j] = X[i, j] if total[j] == 0.0 else shift[j]
                total[j] += weight[i]
                mean[j] += weight[i] * (X[i, j] - shift[j])
    for j in range(d):
        mean[j] = shift[j] + mean[j] / total[j] if total[j] > 0.0 else 0.0
    for i in range(n):
        for j in range(d):
            z = X[i, j] - mean[j]
            variance[j] += weight[i] * z * z if z == z else 0.0
    for j in range(d):
        variance[j] /= total[j] if total[j] > 0.0 else 1.0
