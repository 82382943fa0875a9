"""Gaussian log densities and moments with axis-aligned covariances, strip by strip: scale and square."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper
from lvm.kernels.strips import LOG_2PI, STRIP, Scratch

# Features from which on a strip of them, transposed, costs more than it saves: it is far beyond the L1 cache.
WIDE = 64  # for densities
VERY_WIDE = 128  # for sums, whose running values then are more than a strip's


class Scaled(NamedTuple):
    """Components as strips of one dtype see them; d is padded with zeros to e, a multiple of 4.

    Attributes
    ----------
    near : ndarray of shape (K, e)
        Means, rounded to the dtype.
    offsets : ndarray of shape (K, e)
        scale * (near - mean): what the rounding of the means lacks, after scaling.
    scales : ndarray of shape (K, e)
        Inverse standard deviations.
    log_norms : ndarray of shape (K,), float64
        Log densities at the means.
    """

    near: Array
    offsets: Array
    scales: Array
    log_norms: Array


@helper
def scaled_components(X: Any, means: Array, inverse_scales: Array) -> Scaled:
    """Return components with means and inverse standard deviations (K, d) in the dtype of X."""
    K, d = means.shape
    e = (d + 3) // 4 * 4
    near, offsets, scales = np.zeros((K, e), X.dtype), np.zeros((K, e), X.dtype), np.zeros((K, e), X.dtype)
    log_norms = np.full(K, -0.5 * d * LOG_2PI)
    for k in range(K):
        for i in range(d):
            near[k, i] = means[k, i]
            offsets[k, i] = (near[k, i] - means[k, i]) * inverse_scales[k, i]
            scales[k, i] = inverse_scales[k, i]
            log_norms[k] += np.log(inverse_scales[k, i])
    return Scaled(near, offsets, scales, log_norms)


def add_scaled_density(
    strip: Array, m: int, components: Scaled, k: int, depth: int, scratch: Scratch, row: Array
) -> None:
    """Add the log densities under component k, see `densities.add_log_density`."""
    mu, scale, offset, norms = components.near, components.scales, components.offsets, scratch.norms
    for p in range(m):
        norms[p] = 0.0
    # Four features at a time: one store serves them all.
    for i in range(0, depth, 4):
        m0, m1, m2, m3 = mu[k, i], mu[k, i + 1], mu[k, i + 2], mu[k, i + 3]
        s0, s1, s2, s3 = scale[k, i], scale[k, i + 1], scale[k, i + 2], scale[k, i + 3]
        o0, o1, o2, o3 = offset[k, i], offset[k, i + 1], offset[k, i + 2], offset[k, i + 3]
        for p in range(m):
            z0, z1 = (strip[i, p] - m0) * s0 + o0, (strip[i + 1, p] - m1) * s1 + o1
            z2, z3 = (strip[i + 2, p] - m2) * s2 + o2, (strip[i + 3, p] - m3) * s3 + o3
            norms[p] += z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3
    log_norm = components.log_norms[k]
    for p in range(m):
        row[p] += log_norm - 0.5 * norms[p]


@helper
def _squared_norms(a: Array, b: Array, c: Array, d: Array, components: Scaled, k: int) -> tuple[Any, Any, Any, Any]:
    """Return the squared distances of four rows from component k: a load of its parameters serves them all."""
    mu, scale, offset = components.near[k], components.scales[k], components.offsets[k]
    n0 = n1 = n2 = n3 = a.dtype.type(0)
    for i in range(len(a)):
        za, zb = (a[i] - mu[i]) * scale[i] + offset[i], (b[i] - mu[i]) * scale[i] + offset[i]
        zc, zd = (c[i] - mu[i]) * scale[i] + offset[i], (d[i] - mu[i]) * scale[i] + offset[i]
        n0 += za * za
        n1 += zb * zb
        n2 += zc * zc
        n3 += zd * zd
    return n0, n1, n2, n3


@helper
def add_wide_densities(X: Array, components: Scaled, out: Array) -> None:
    """Add the log densities of X (n, d) to out (K, n), along the rows, without a strip: for WIDE rows and wider."""
    n, K = X.shape[0], out.shape[0]
    zero, norms = X.dtype.type(0), np.empty((K + 1, STRIP + 3), X.dtype)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        for p in range(0, m, 4):
            # Four rows by two components: ten loads serve eight squares. Beyond the end, the last is taken again.
            i, last = start + p, start + m - 1
            a, b, c, d = X[i], X[min(i + 1, last)], X[min(i + 2, last)], X[min(i + 3, last)]
            for k in range(0, K, 2):
                other = min(k + 1, K - 1)
                m0, s0, o0 = components.near[k], components.scales[k], components.offsets[k]
                m1, s1, o1 = components.near[other], components.scales[other], components.offsets[other]
                a0 = b0 = c0 = d0 = a1 = b1 = c1 = d1 = zero
                for j in range(len(a)):
                    za, zb = (a[j] - m0[j]) * s0[j] + o0[j], (b[j] - m0[j]) * s0[j] + o0[j]
                    zc, zd = (c[j] - m0[j]) * s0[j] + o0[j], (d[j] - m0[j]) * s0[j] + o0[j]
                    a0 += za * za
                    b0 += zb * zb
                    c0 += zc * zc
                    d0 += zd * zd
                    za, zb = (a[j] - m1[j]) * s1[j] + o1[j], (b[j] - m1[j]) * s1[j] + o1[j]
                    zc, zd = (c[j] - m1[j]) * s1[j] + o1[j], (d[j] - m1[j]) * s1[j] + o1[j]
                    a1 += za * za
                    b1 += zb * zb
                    c1 += zc * zc
                    d1 += zd * zd
                norms[k, p], norms[k, p + 1], norms[k, p + 2], norms[k, p + 3] = a0, b0, c0, d0
                norms[k + 1, p], norms[k + 1, p + 1], norms[k + 1, p + 2], norms[k + 1, p + 3] = a1, b1, c1, d1
        for k in range(K):
            row, log_norm = out[k, start : start + m], components.log_norms[k]
            for p in range(m):
                row[p] += log_norm - 0.5 * norms[k, p]


def add_scaled_rows(
    X: Array,
    rows: NDArray[np.int64],
    components: Scaled,
    k: int,
    strip: Array,  # noqa: ARG001 - for the structures that work on strips
    scratch: Scratch,
    values: Array,
) -> None:
    """Add the log densities of some rows, see `densities.add_densities_of_rows`: along the rows, without a strip."""
    norms, last = scratch.norms, len(rows) - 1
    for p in range(0, len(rows), 4):
        a, b = X[rows[p]], X[rows[min(p + 1, last)]]
        c, d = X[rows[min(p + 2, last)]], X[rows[min(p + 3, last)]]
        norms[p], norms[p + 1], norms[p + 2], norms[p + 3] = _squared_norms(a, b, c, d, components, k)
    for p in range(len(rows)):
        values[p] += components.log_norms[k] - 0.5 * norms[p]


@helper
def _add_sums_of_eight(rows: Any, r: Array, near: Array, first: Array, second: Array) -> None:
    """Add the sums of r z and r z**2 to first, second (>= d,), for z eight rows (d,) about near (>= d,)."""
    a, b, c, d, e, f, g, h = rows
    ra, rb, rc, rd, re, rf, rg, rh = r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]
    # A load and a store of the sums serve eight rows.
    for i in range(len(a)):
        za, zb, zc, zd = a[i] - near[i], b[i] - near[i], c[i] - near[i], d[i] - near[i]
        ze, zf, zg, zh = e[i] - near[i], f[i] - near[i], g[i] - near[i], h[i] - near[i]
        wa, wb, wc, wd, we, wf, wg, wh = ra * za, rb * zb, rc * zc, rd * zd, re * ze, rf * zf, rg * zg, rh * zh
        first[i] += ((wa + wb) + (wc + wd)) + ((we + wf) + (wg + wh))
        second[i] += ((wa * za + wb * zb) + (wc * zc + wd * zd)) + ((we * ze + wf * zf) + (wg * zg + wh * zh))


@helper
def _add_sums_of_one(x: Array, weight: Any, near: Array, first: Array, second: Array) -> None:
    for i in range(len(x)):
        z = x[i] - near[i]
        first[i] += weight * z
        second[i] += weight * z * z


@helper
def add_sums_of_rows(X: Array, rows: NDArray[np.int64], r: Array, near: Array, first: Array, second: Array) -> None:
    """Add the sums of r z and r z**2 to first, second (e,), for z some rows (m,) of X (n, d) about near (e,)."""
    weight, one, two = np.empty(8, near.dtype), np.empty(len(near), near.dtype), np.empty(len(near), near.dtype)
    for start in range(0, len(rows), STRIP):
        stop = min(start + STRIP, len(rows))
        whole = stop - (stop - start) % 8
        one[:], two[:] = 0.0, 0.0
        for p in range(start, whole, 8):
            for q in range(8):
                weight[q] = r[p + q]
            a, b, c, d = X[rows[p]], X[rows[p + 1]], X[rows[p + 2]], X[rows[p + 3]]
            e, f, g, h = X[rows[p + 4]], X[rows[p + 5]], X[rows[p + 6]], X[rows[p + 7]]
            _add_sums_of_eight((a, b, c, d, e, f, g, h), weight, near, one, two)
        for p in range(whole, stop):
            _add_sums_of_one(X[rows[p]], near.dtype.type(r[p]), near, one, two)
        # In float32, a sum over all rows would lose digits.
        first += one
        second += two


@helper
def add_very_wide_sums(X: Array, resp: Array, near: Array, count: Array, first: Array, second: Array) -> None:
    """Add the sums of r, r z and r z**2 to count (K,), first and second (K, e), for z rows of X (n, d) about near.

    Along the rows, without a strip: for VERY_WIDE rows and wider.
    """
    K = near.shape[0]
    one, two, total = np.empty(near.shape, X.dtype), np.empty(near.shape, X.dtype), np.empty(K, X.dtype)
    for start in range(0, X.shape[0], STRIP):
        stop = min(start + STRIP, X.shape[0])
        whole = stop - (stop - start) % 8
        one[:], two[:], total[:] = 0.0, 0.0, 0.0
        for p in range(start, whole, 8):
            rows = (X[p], X[p + 1], X[p + 2], X[p + 3], X[p + 4], X[p + 5], X[p + 6], X[p + 7])
            for k in range(K):
                r = resp[k, p : p + 8]
                weight = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
                if weight > 0.0:
                    total[k] += weight
                    _add_sums_of_eight(rows, r, near[k], one[k], two[k])
        for p in range(whole, stop):
            for k in range(K):
                total[k] += resp[k, p]
                _add_sums_of_one(X[p], resp[k, p], near[k], one[k], two[k])
        count += total  # strip by strip, as above
        first += one
        second += two


@helper
def add_strip_sums(strip: Array, r: Array, near: Array, k: int, first: Array, second: Array) -> None:
    """Add the sums of r z and r z**2 to first, second (K, e), for z the points of strip (e, m) about near (K, e)."""
    zero = strip.dtype.type(0)
    # Four features at a time: eight running sums in registers, and each r serves them all.
    for i in range(0, near.shape[1], 4):
        m0, m1, m2, m3 = near[k, i], near[k, i + 1], near[k, i + 2], near[k, i + 3]
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
        for p in range(r.shape[0]):
            z0, z1, z2, z3 = strip[i, p] - m0, strip[i + 1, p] - m1, strip[i + 2, p] - m2, strip[i + 3, p] - m3
            r0, r1, r2, r3 = r[p] * z0, r[p] * z1, r[p] * z2, r[p] * z3
            a0 += r0
            a1 += r1
            a2 += r2
            a3 += r3
            b0 += r0 * z0
            b1 += r1 * z1
            b2 += r2 * z2
            b3 += r3 * z3
        first[k, i] += a0
        first[k, i + 1] += a1
        first[k, i + 2] += a2
        first[k, i + 3] += a3
        second[k, i] += b0
        second[k, i + 1] += b1
        second[k, i + 2] += b2
        second[k, i + 3] += b3


@helper
def add_moved_sums(
    means: Array, near: Array, count: Array, one: Array, two: Array, first: Array, second: Array
) -> None:
    """Add sums one, two (K, e) about near, of so many counts (K,), to first and second (K, d) about the means."""
    for k in range(means.shape[0]):
        for i in range(means.shape[1]):
            rest = means[k, i] - near[k, i]
            first[k, i] += one[k, i] - count[k] * rest
            second[k, i] += two[k, i] - 2.0 * rest * one[k, i] + count[k] * rest * rest
