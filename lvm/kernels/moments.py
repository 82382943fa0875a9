"""Weighted moments of whole columns, about their own mean."""

from __future__ import annotations

from lvm._jit import Array, helper, kernel, part_of_kernel


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


@helper
def add_products(left: Array, right: Array, m: int, products: Array) -> None:
    """Add the products of rows of left and right (d, WIDTH), over m points, to the lower half of products (d, d)."""
    d = products.shape[0]
    zero = right.dtype.type(0)
    # Four rows times two columns: eight running sums in registers, no store, and six loads serve eight
    # multiply-adds.
    d4 = d - d % 4
    for i in range(0, d4, 4):
        for j in range(0, i + 4, 2):
            s00 = s10 = s20 = s30 = s01 = s11 = s21 = s31 = zero
            for p in range(m):
                u, v = right[j, p], right[j + 1, p]
                s00 += left[i, p] * u
                s10 += left[i + 1, p] * u
                s20 += left[i + 2, p] * u
                s30 += left[i + 3, p] * u
                s01 += left[i, p] * v
                s11 += left[i + 1, p] * v
                s21 += left[i + 2, p] * v
                s31 += left[i + 3, p] * v
            products[i, j] += s00
            products[i + 1, j] += s10
            products[i + 2, j] += s20
            products[i + 3, j] += s30
            products[i, j + 1] += s01
            products[i + 1, j + 1] += s11
            products[i + 2, j + 1] += s21
            products[i + 3, j + 1] += s31
    for i in range(d4, d):
        for j in range(i + 1):
            s00 = zero
            for p in range(m):
                s00 += left[i, p] * right[j, p]
            products[i, j] += s00


@part_of_kernel
def move_moments(mean: Array, near: Array, count: float, first: Array, second: Array) -> None:
    """Move moments about near (d,), a rounded mean, to the mean: first (d,) and the lower half of second (d, d).

    They must be those of the given count alone, but second may hold more that is about the mean already.
    """
    d = mean.shape[0]
    exact = True
    for i in range(d):
        exact = exact and mean[i] == near[i]
    if exact:
        return
    for i in range(d):
        for j in range(i + 1):
            a, b = mean[i] - near[i], mean[j] - near[j]
            second[i, j] += count * a * b - a * first[j] - b * first[i]
    for i in range(d):
        first[i] -= count * (mean[i] - near[i])
