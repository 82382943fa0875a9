"""Weighted moments of whole columns, about their own mean."""

from __future__ import annotations

from lvm._jit import Array, kernel


@kernel
def column_moments(X: Array, weight: Array, mean: Array, variance: Array) -> None:
    """Write the weighted mean and variance of X (n, d) under weight (n,) to mean, variance (d,).

    The sums run about the first row that counts, then the variance about the mean: an offset costs no digits.
    """
    n, d = X.shape
    total = 0.0
    first = 0
    while first < n - 1 and weight[first] == 0.0:
        first += 1
    for j in range(d):
        mean[j] = 0.0
        variance[j] = 0.0
    for i in range(n):
        if weight[i] == 0.0:
            continue  # as good as absent, whatever its values
        total += weight[i]
        for j in range(d):
            mean[j] += weight[i] * (X[i, j] - X[first, j])
    for j in range(d):
        mean[j] = X[first, j] + mean[j] / total
    for i in range(n):
        if weight[i] == 0.0:
            continue
        for j in range(d):
            variance[j] += weight[i] * (X[i, j] - mean[j]) ** 2
    for j in range(d):
        variance[j] /= total


@kernel
def sums_of_squares(factors: Array, out: Array) -> None:
    """Write the sum of squares of factors[min(k, C - 1)], for factors (C, d, e), to out (K,)."""
    for k in range(out.shape[0]):
        c = min(k, factors.shape[0] - 1)
        total = 0.0
        for i in range(factors.shape[1]):
            for j in range(factors.shape[2]):
                total += factors[c, i, j] ** 2
        out[k] = total
