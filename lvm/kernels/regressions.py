"""Regressions of several components at once, strip by strip: linear predictors, log densities, moments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper, kernel
from lvm.kernels.elementary import exp, log
from lvm.kernels.moments import add_products
from lvm.kernels.strips import LOG_2PI, STRIP, load_strip, zero_strip

# A Poisson mean beyond exp(600) makes every count impossible in float64, and its square sums still do not overflow.
LARGEST_LOG_MEAN = 600.0


@helper
def padded_coefficients(coefficients: Array, width: int) -> Array:
    """Return coefficients (C, p) as (C, width), zeros after the first p."""
    padded = np.zeros((coefficients.shape[0], width))
    for k in range(coefficients.shape[0]):
        for j in range(coefficients.shape[1]):
            padded[k, j] = coefficients[k, j]
    return padded


@helper
def predict_strip(strip: Array, m: int, coefficients: Array, out: Array) -> None:
    """Write the sums of coefficients (e,) times the features of m points in strip (e, WIDTH) to out (>= m,).

    e is a multiple of 4: one store serves four features.
    """
    for j in range(0, coefficients.shape[0], 4):
        b0, b1, b2, b3 = coefficients[j], coefficients[j + 1], coefficients[j + 2], coefficients[j + 3]
        if j == 0:
            for p in range(m):
                out[p] = b0 * strip[0, p] + b1 * strip[1, p] + b2 * strip[2, p] + b3 * strip[3, p]
        else:
            for p in range(m):
                out[p] += b0 * strip[j, p] + b1 * strip[j + 1, p] + b2 * strip[j + 2, p] + b3 * strip[j + 3, p]


@kernel
def add_gaussian_densities(X: Array, y: Array, coefficients: Array, scales: Array, out: Array) -> None:
    """Add log N(y; X b_k, scales_k**2) to out (K, n), for X (n, p), y (n,), coefficients (K, p), scales (K,)."""
    n, d = X.shape
    e = (d + 3) // 4 * 4
    strip, padded, fitted = zero_strip(e, X), padded_coefficients(coefficients, e), np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        response = y[start : start + m]
        for k in range(out.shape[0]):
            predict_strip(strip, m, padded[k], fitted)
            row, precision, norm = out[k, start : start + m], 1.0 / scales[k], -0.5 * LOG_2PI - np.log(scales[k])
            for p in range(m):
                z = (response[p] - fitted[p]) * precision
                row[p] += norm - 0.5 * z * z


@kernel
def add_residual_moments(X: Array, y: Array, resp: Array, coefficients: Array, moments: Array) -> None:
    """Add the sums of r_k u u' with u = (x, y - x'b_k) to the lower halves of moments (K, p + 1, p + 1).

    X is (n, p), y (n,), resp (K, n), coefficients (K, p).
    """
    n, d = X.shape
    e = (d + 4) // 4 * 4
    # The residuals are feature d of the strip: the coefficients, 0 there, may be multiplied with the last ones.
    strip, scaled = zero_strip(e, X), zero_strip(d + 1, X)
    padded, fitted = padded_coefficients(coefficients, e), np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip[:d])
        response, residual = y[start : start + m], strip[d]
        for k in range(resp.shape[0]):
            r, total = resp[k, start : start + m], 0.0
            for p in range(m):
                total += r[p]
            if not total > 0.0:
                continue
            predict_strip(strip, m, padded[k], fitted)
            for p in range(m):
                residual[p] = response[p] - fitted[p]
            for i in range(d + 1):
                feature, row = strip[i], scaled[i]
                for p in range(m):
                    row[p] = r[p] * feature[p]
            add_products(scaled, strip, m, moments[k])


@helper
def _write_mean_and_variance(eta: Array, size: Array, poisson: bool, mean: Array, variance: Array) -> None:
    """Write the mean and variance of counts with linear predictors eta (>= m,) and sizes (m,) to mean, variance."""
    m = size.shape[0]
    if poisson:
        for p in range(m):
            mean[p] = size[p] * exp(min(eta[p], LARGEST_LOG_MEAN))
            variance[p] = mean[p]
    else:
        for p in range(m):
            small = exp(-abs(eta[p]))
            rest = 1.0 / (1.0 + small)
            mean[p] = size[p] * (rest if eta[p] > 0.0 else small * rest)
            variance[p] = size[p] * small * rest * rest


@kernel
def add_count_densities(
    X: Array, y: Array, size: Array, constants: Array, coefficients: Array, poisson: bool, out: Array
) -> None:
    """Add constants + y eta_k - size b(eta_k), with eta_k = X b_k, to out (K, n).

    X is (n, p), y, size and constants (n,), coefficients (K, p). b is exp for Poisson counts of exposures `size`, and
    log(1 + exp) for binomial counts of so many trials.
    """
    n, d = X.shape
    e = (d + 3) // 4 * 4
    strip, padded, eta = zero_strip(e, X), padded_coefficients(coefficients, e), np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        count, times, constant = y[start : start + m], size[start : start + m], constants[start : start + m]
        for k in range(out.shape[0]):
            predict_strip(strip, m, padded[k], eta)
            row = out[k, start : start + m]
            if poisson:
                for p in range(m):
                    value = constant[p] + count[p] * eta[p] - times[p] * exp(min(eta[p], LARGEST_LOG_MEAN))
                    row[p] += value if eta[p] <= LARGEST_LOG_MEAN else -np.inf
            else:
                for p in range(m):
                    softplus = max(eta[p], 0.0) + log(1.0 + exp(-abs(eta[p])))
                    row[p] += constant[p] + count[p] * eta[p] - times[p] * softplus


@kernel
def add_count_derivatives(
    X: Array,
    y: Array,
    size: Array,
    resp: Array,
    coefficients: Array,
    poisson: bool,
    gradient: Array,
    hessian: Array,
) -> None:
    """Add the sums of r_k x (y - mean) to gradient (K, p), and of r_k x x' variance to hessian (K, p, p), lower half.

    X is (n, p), y and size (n,), resp (K, n), coefficients (K, p).
    """
    n, d = X.shape
    e = (d + 3) // 4 * 4
    strip, scaled, padded = zero_strip(e, X), zero_strip(d, X), padded_coefficients(coefficients, e)
    eta, mean, variance = np.empty(STRIP), np.empty(STRIP), np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        count, times = y[start : start + m], size[start : start + m]
        for k in range(resp.shape[0]):
            r, total = resp[k, start : start + m], 0.0
            for p in range(m):
                total += r[p]
            if not total > 0.0:
                continue
            predict_strip(strip, m, padded[k], eta)
            _write_mean_and_variance(eta, times, poisson, mean, variance)
            for p in range(m):
                mean[p] = r[p] * (count[p] - mean[p])
                variance[p] *= r[p]
            add_derivatives(strip, m, mean, variance, scaled, gradient[k], hessian[k])


@helper
def add_derivatives(
    strip: Array, m: int, first: Array, second: Array, scaled: Array, gradient: Array, hessian: Array
) -> None:
    """Add the sums of first (m,) times x to gradient (p,), and of second (m,) times x x' to hessian (p, p), lower.

    x are m points of strip (>= p, WIDTH); scaled is scratch (p, WIDTH).
    """
    for i in range(gradient.shape[0]):
        feature, row, total = strip[i], scaled[i], 0.0
        for p in range(m):
            total += first[p] * feature[p]
            row[p] = second[p] * feature[p]
        gradient[i] += total
    add_products(scaled, strip, m, hessian)


@kernel
def add_group_sums(density: Array, indptr: NDArray[np.int64], out: Array) -> None:
    """Add the sums of density (K, n) over groups of rows to out (K, G); indptr (G + 1,) counts from its first."""
    for k in range(out.shape[0]):
        for g in range(out.shape[1]):
            rows: Any = density[k, indptr[g] - indptr[0] : indptr[g + 1] - indptr[0]]
            total = 0.0
            for p in range(rows.shape[0]):
                total += rows[p]
            out[k, g] += total


@kernel
def spread_over_groups(resp: Array, indptr: NDArray[np.int64], out: Array) -> None:
    """Write resp (K, G) to each row of its group, out (K, n); indptr (G + 1,) counts from its first."""
    for k in range(resp.shape[0]):
        for g in range(resp.shape[1]):
            out[k, indptr[g] - indptr[0] : indptr[g + 1] - indptr[0]] = resp[k, g]
