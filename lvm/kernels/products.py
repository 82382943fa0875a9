"""Products of data with tables of the components: what all families with a density linear in the data run on.

A table (d, K) has the components of a feature side by side. An entry of -inf forbids the feature: a row where it
is not 0 gets -inf, and one where it is 0 is not touched (0 * log 0 = 0). An entry of inf, for dense data only, demands
the feature: a row where it is 0 gets -inf, and one where it is not 0 is not touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper, kernel
from lvm.kernels.strips import STRIP, WIDTH

TILE = 64  # features of a strip at a time: with their rows they stay in the L2 cache for any number of features


@helper
def _load_tile(X: Any, start: int, m: int, first: int, width: int, strip: Array) -> None:
    """Copy `width` features from `first` of m rows of X (n, d) from start to strip (TILE, WIDTH), transposed."""
    # Eight points at a time, as in `load_strip`: each feature of theirs is one vector store.
    for begin in range(start, start + m - 7, 8):
        for j in range(first, first + width):
            for p in range(begin, begin + 8):
                strip[j - first, p - start] = X[p, j]
    for p in range(start + m - m % 8, start + m):
        for j in range(first, first + width):
            strip[j - first, p - start] = X[p, j]


@helper
def _add_tile(strip: Array, width: int, m: int, coefficients: Array, first: int, start: int, out: Array) -> None:
    """Add coefficients (K, d) from first @ strip (width, m) to m columns of out (K, n) from start."""
    K = out.shape[0]
    stop = start + m
    # Four components at a time, two features each: a store serves two multiply-adds, a value of the strip
    # four, and eight coefficients, four sums and two values fit sixteen vector registers.
    for k in range(0, K - 3, 4):
        a, b = coefficients[k, first:], coefficients[k + 1, first:]
        c, d = coefficients[k + 2, first:], coefficients[k + 3, first:]
        ya, yb, yc, yd = out[k, start:stop], out[k + 1, start:stop], out[k + 2, start:stop], out[k + 3, start:stop]
        for j in range(0, width - 1, 2):
            a0, b0, c0, d0 = a[j], b[j], c[j], d[j]
            a1, b1, c1, d1 = a[j + 1], b[j + 1], c[j + 1], d[j + 1]
            for p in range(m):
                u, v = strip[j, p], strip[j + 1, p]
                ya[p] += a0 * u + a1 * v
                yb[p] += b0 * u + b1 * v
                yc[p] += c0 * u + c1 * v
                yd[p] += d0 * u + d1 * v
        if width % 2:
            for p in range(m):
                u = strip[width - 1, p]
                ya[p] += a[width - 1] * u
                yb[p] += b[width - 1] * u
                yc[p] += c[width - 1] * u
                yd[p] += d[width - 1] * u
    # The components left over, four features at a time: a store serves four multiply-adds.
    for k in range(K - K % 4, K):
        a, ya = coefficients[k, first:], out[k, start:stop]
        for j in range(0, width - 3, 4):
            a0, a1, a2, a3 = a[j], a[j + 1], a[j + 2], a[j + 3]
            for p in range(m):
                ya[p] += a0 * strip[j, p] + a1 * strip[j + 1, p] + a2 * strip[j + 2, p] + a3 * strip[j + 3, p]
        for j in range(width - width % 4, width):
            for p in range(m):
                ya[p] += a[j] * strip[j, p]


@helper
def _mark_impossible(strip: Array, width: int, m: int, table: Array, start: int, out: Array) -> None:
    """Write -inf to out (K, n) where infinite entries of table (>= width, K) say so of strip (width, m)."""
    for j in range(width):
        for k in range(out.shape[0]):
            row = out[k, start : start + m]
            if table[j, k] == -np.inf:
                for p in range(m):
                    row[p] = -np.inf if strip[j, p] > 0.0 else row[p]
            elif table[j, k] == np.inf:
                for p in range(m):
                    row[p] = row[p] if strip[j, p] > 0.0 else -np.inf


@kernel
def add_products(X: Any, table: Array, base: Array, offset: Array, out: Array) -> None:
    """Add base (K,) + offset (n,) + X (n, d) @ table (d, K) to out (K, n); all of X is >= 0."""
    n, d = X.shape
    K = out.shape[0]
    strip = np.empty((TILE, WIDTH))
    finite = np.empty((K, d))
    special = False
    for j in range(d):
        for k in range(K):
            finite[k, j] = table[j, k] if abs(table[j, k]) < np.inf else 0.0
            special = special or abs(table[j, k]) == np.inf
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        added = offset[start : start + m]
        for k in range(K):
            row = out[k, start : start + m]
            for p in range(m):
                row[p] += base[k] + added[p]
        for first in range(0, d, TILE):
            width = min(TILE, d - first)
            _load_tile(X, start, m, first, width, strip)
            _add_tile(strip, width, m, finite, first, start, out)
            if special:
                _mark_impossible(strip, width, m, table[first:], start, out)


@helper
def _sum_tile(strip: Array, width: int, m: int, resp: Array, start: int, sums: Array) -> None:
    """Add strip (width, m) @ m columns of resp (K, n) from start, transposed, to sums (>= width, K)."""
    K = resp.shape[0]
    stop = start + m
    # Four components by two features: six loads serve eight multiply-adds, and the eight sums stay in registers
    # with what is loaded.
    for k in range(0, K - 3, 4):
        a, b, c, d = resp[k, start:stop], resp[k + 1, start:stop], resp[k + 2, start:stop], resp[k + 3, start:stop]
        for j in range(0, width - 1, 2):
            a0, b0, c0, d0, a1, b1, c1, d1 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for p in range(m):
                u, v = strip[j, p], strip[j + 1, p]
                a0 += a[p] * u
                b0 += b[p] * u
                c0 += c[p] * u
                d0 += d[p] * u
                a1 += a[p] * v
                b1 += b[p] * v
                c1 += c[p] * v
                d1 += d[p] * v
            first, second = sums[j, k : k + 4], sums[j + 1, k : k + 4]
            first[0], first[1], first[2], first[3] = first[0] + a0, first[1] + b0, first[2] + c0, first[3] + d0
            second[0], second[1] = second[0] + a1, second[1] + b1
            second[2], second[3] = second[2] + c1, second[3] + d1
    for k in range(K):
        a = resp[k, start:stop]
        # What the blocks of four components by two features left over.
        for j in range(width - width % 2 if k < K - K % 4 else 0, width):
            a0 = 0.0
            for p in range(m):
                a0 += a[p] * strip[j, p]
            sums[j, k] += a0


@kernel
def add_weighted_rows(X: Any, resp: Array, counts: Array, sums: Array) -> None:
    """Add the sums of resp (K, n) to counts (K,), and X (n, d).T @ resp.T to sums (d, K)."""
    n, d = X.shape
    strip = np.empty((TILE, WIDTH))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        for k in range(resp.shape[0]):
            row = resp[k, start : start + m]
            count = 0.0
            for p in range(m):
                count += row[p]
            counts[k] += count
        for first in range(0, d, TILE):
            width = min(TILE, d - first)
            _load_tile(X, start, m, first, width, strip)
            _sum_tile(strip, width, m, resp, start, sums[first:])


@kernel
def add_sparse_products(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: Array,
    table: Array,
    base: Array,
    offset: Array,
    out: Array,
) -> None:
    """Add base (K,) + offset (n,) + CSR rows @ table (d, K) to out (K, n); no data means that all entries are 1."""
    K, n = out.shape
    ones = len(data) == 0
    total = np.empty((8, K))
    for start in range(0, n, 8):  # eight rows fill a cache line of each row of out
        m = min(8, n - start)
        for p in range(m):
            t = total[p]
            begin, end = indptr[start + p], indptr[start + p + 1]
            for k in range(K):
                t[k] = base[k] + offset[start + p]
            # Four entries at a time: a store serves four multiply-adds, and the inner loop's overhead is shared.
            for e in range(begin, end - 3, 4):
                w0, w1 = table[np.uint64(indices[e])], table[np.uint64(indices[e + 1])]
                w2, w3 = table[np.uint64(indices[e + 2])], table[np.uint64(indices[e + 3])]
                x0, x1, x2, x3 = (1.0, 1.0, 1.0, 1.0) if ones else (data[e], data[e + 1], data[e + 2], data[e + 3])
                for k in range(K):
                    t[k] += x0 * w0[k] + x1 * w1[k] + x2 * w2[k] + x3 * w3[k]
            for e in range(end - (end - begin) % 4, end):
                w0 = table[np.uint64(indices[e])]
                x0 = 1.0 if ones else data[e]
                for k in range(K):
                    t[k] += x0 * w0[k]
        for k in range(K):
            for p in range(m):
                out[k, start + p] += total[p, k]


@kernel
def add_weighted_sparse_rows(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: Array, resp: Array, counts: Array, sums: Array
) -> None:
    """Add the sums of resp (K, n) to counts (K,), and CSR rows.T @ resp.T to sums (d, K); no data means ones."""
    K, n = resp.shape
    r = np.empty(K)
    for i in range(n):
        for k in range(K):
            r[k] = resp[k, i]
            counts[k] += r[k]
        if len(data) == 0:
            for e in range(indptr[i], indptr[i + 1]):
                j = np.uint64(indices[e])
                for k in range(K):
                    sums[j, k] += r[k]
        else:
            for e in range(indptr[i], indptr[i + 1]):
                j, x = np.uint64(indices[e]), data[e]
                for k in range(K):
                    sums[j, k] += x * r[k]
