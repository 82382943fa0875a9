"""Gaussian log densities and moments where few factors make up the covariance, strip by strip: no matrix (d, d).

A component has the covariance L L' + Psi, with q columns in L and Psi diagonal. With z the row about the mean in units
of the square roots of Psi, and A the loadings L in these,

z' (A A' + I)^-1 z = z'z - |G z|^2,    G = C^-1 A',    C C' = M = I + A'A

(Woodbury's identity), and the posterior mean of the factors is y = M^-1 A' z.
"""

from __future__ import annotations

import numpy as np

from lvm._jit import Array, helper, kernel
from lvm._vectors import load_eight, store, zero_eight
from lvm.kernels.strips import STRIP, WIDTH, count_active, gather_strip, list_active, load_strip, zero_strip

GROUP = 32  # points whose products with two rows are summed in registers: four vectors of eight each


@helper
def _scale_strip(strip: Array, mean: Array, inverse_scale: Array, z: Array) -> None:
    """Write the points of strip (d, WIDTH) about mean (d,) times inverse_scale (d,) to z (d, WIDTH)."""
    for j in range(len(mean)):
        source, row, at, scale = strip[j], z[j], mean[j], inverse_scale[j]
        for p in range(STRIP):
            row[p] = (source[p] - at) * scale


@helper
def _project(rows: Array, z: Array, m: int, out: Array) -> None:
    """Write rows (e, d) @ z (d, WIDTH) to the first m points of out (e, WIDTH), and to some behind; e is even."""
    length, step, d = np.uint64(WIDTH), np.uint64(8), np.uint64(rows.shape[1])
    for c in range(0, rows.shape[0], 2):
        one, two, first = rows[c], rows[c + 1], np.uint64(c) * length
        for start in range(0, m, GROUP):
            a0, a1, a2, a3 = zero_eight(), zero_eight(), zero_eight(), zero_eight()
            b0, b1, b2, b3 = zero_eight(), zero_eight(), zero_eight(), zero_eight()
            for j in range(d):
                at = j * length + np.uint64(start)
                t, u = load_eight(z, at), load_eight(z, at + step)
                v, w = load_eight(z, at + step + step), load_eight(z, at + step + step + step)
                a0, a1 = a0 + t * one[j], a1 + u * one[j]
                a2, a3 = a2 + v * one[j], a3 + w * one[j]
                b0, b1 = b0 + t * two[j], b1 + u * two[j]
                b2, b3 = b2 + v * two[j], b3 + w * two[j]
            at = first + np.uint64(start)
            store(a0, out, at)
            store(a1, out, at + step)
            store(a2, out, at + step + step)
            store(a3, out, at + step + step + step)
            at += length
            store(b0, out, at)
            store(b1, out, at + step)
            store(b2, out, at + step + step)
            store(b3, out, at + step + step + step)


@kernel
def add_factor_densities(
    X: Array, means: Array, inverse_scales: Array, whitening: Array, log_norms: Array, out: Array
) -> None:
    """Add the log densities of X (n, d) to out (K, n), for whitening G (K, e, d) and log densities at the means (K,).

    e is even: q, or q + 1 with a last row of zeros.
    """
    n, d = X.shape
    e = whitening.shape[1]
    strip, z, y = zero_strip(d, X), zero_strip(d, X), zero_strip(e, X)
    norms = zero_strip(np.int64(1), X)[0]  # not a literal: another type, and another signature
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(out.shape[0]):
            _scale_strip(strip, means[k], inverse_scales[k], z)
            _project(whitening[k], z, m, y)
            for p in range(STRIP):
                norms[p] = 0.0
            for j in range(d):
                row = z[j]
                for p in range(STRIP):
                    norms[p] += row[p] * row[p]
            for c in range(e):
                row = y[c]
                for p in range(STRIP):
                    norms[p] -= row[p] * row[p]
            densities, log_norm = out[k, start : start + m], log_norms[k]
            for p in range(m):
                densities[p] += log_norm - 0.5 * max(norms[p], 0.0)


@helper
def _add_products(rows: Array, z: Array, m: int, products: Array) -> None:
    """Add rows (e, WIDTH) @ z (d, WIDTH)', over m points, to products (e, d); e is even."""
    d = z.shape[0]
    for c in range(0, rows.shape[0], 2):
        one, two = rows[c], rows[c + 1]
        for j in range(0, d - 3, 4):
            u, v, w, x = z[j], z[j + 1], z[j + 2], z[j + 3]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
            for p in range(m):
                a0 += one[p] * u[p]
                a1 += one[p] * v[p]
                a2 += one[p] * w[p]
                a3 += one[p] * x[p]
                b0 += two[p] * u[p]
                b1 += two[p] * v[p]
                b2 += two[p] * w[p]
                b3 += two[p] * x[p]
            products[c, j] += a0
            products[c, j + 1] += a1
            products[c, j + 2] += a2
            products[c, j + 3] += a3
            products[c + 1, j] += b0
            products[c + 1, j + 1] += b1
            products[c + 1, j + 2] += b2
            products[c + 1, j + 3] += b3
        for j in range(d - d % 4, d):
            u = z[j]
            a0 = b0 = 0.0
            for p in range(m):
                a0 += one[p] * u[p]
                b0 += two[p] * u[p]
            products[c, j] += a0
            products[c + 1, j] += b0


@kernel
def add_factor_moments(
    X: Array,
    resp: Array,
    means: Array,
    inverse_scales: Array,
    posterior: Array,
    counts: Array,
    square: Array,
    products: Array,
) -> None:
    """Add the sums of r z**2 to square (K, d), and of r z and r y z' to products (K, 1 + q, d), for resp r (K, n).

    The posterior means y of the factors are posterior (K, e, d) @ z, e even. Only rows with r > 0 are looked at.
    """
    n, d = X.shape
    q = products.shape[1] - 1
    e = 1 + q + (1 + q) % 2
    strip, z, y, weighted = zero_strip(d, X), zero_strip(d, X), zero_strip(posterior.shape[1], X), zero_strip(e, X)
    active = np.empty(n, np.int64)
    for k in range(resp.shape[0]):
        n_active = count_active(resp[k], counts[k : k + 1])
        if n_active == 0:
            continue
        list_active(resp[k], active)
        sums, squares = np.zeros((e, d)), square[k]
        for start in range(0, n_active, STRIP):
            m = min(STRIP, n_active - start)
            rows = active[start : start + m]
            gather_strip(X, rows, strip)
            _scale_strip(strip, means[k], inverse_scales[k], z)
            _project(posterior[k], z, m, y)
            r = weighted[0]
            for p in range(m):
                r[p] = resp[k, rows[p]]
            for c in range(q):
                mean, row = y[c], weighted[c + 1]
                for p in range(m):
                    row[p] = r[p] * mean[p]
            _add_products(weighted, z, m, sums)
            for j in range(d):
                row, total = z[j], 0.0
                for p in range(m):
                    total += r[p] * row[p] * row[p]
                squares[j] += total
        for c in range(1 + q):
            for j in range(d):
                products[k, c, j] += sums[c, j]


@kernel
def maximise_noise(precision: Array, moments: Array, floor: Array, noise: Array) -> None:
    """Replace noise variances (d,), one after the other, by those that maximise the likelihood given all else.

    With P the inverse of the covariance, precision (d, d), and T = P S P, moments (d, d), the best change of noise
    variance j is (T_jj / P_jj - 1) / P_jj, within the floor (d,); P and T follow by rank-one updates, in place (Zhao,
    Yu & Jiang, 2008, "ML estimation for factor analysis: EM or non-EM?", Statistics and Computing 18, section 3).
    """
    d = len(noise)
    p, t = np.empty(d), np.empty(d)
    for j in range(d):
        for i in range(d):
            p[i], t[i] = precision[i, j], moments[i, j]
        height, moment = p[j], t[j]
        if not (height > 0.0 and moment > 0.0):
            continue
        change = max((moment / height - 1.0) / height, floor[j] - noise[j])
        noise[j] += change
        share = change / (1.0 + change * height)
        for i in range(d):
            of_p, of_t = share * p[i], share * (t[i] - share * moment * p[i])
            row, other = precision[i], moments[i]
            for h in range(d):
                other[h] -= of_p * t[h] + of_t * p[h]
                row[h] -= of_p * p[h]
