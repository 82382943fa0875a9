"""Products of dense rows with tables of the components: what all families with a density linear in the data run on.

Tables are brought into groups of eight components, see `sparse_products`. An entry of -inf forbids the feature: a row
where it is not 0 gets -inf, and one where it is 0 is not touched (0 * log 0 = 0). An entry of inf demands the
feature: a row where it is 0 gets -inf, and one where it is not 0 is not touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._jit import Array, helper, kernel
from lvm._vectors import load_eight, store, zero_eight
from lvm.kernels.sparse_products import LANES, add_group, load_group, zero_groups
from lvm.kernels.strips import STRIP

TILE = 64  # features of a strip at a time: with their table they stay in the L2 cache for any number of features


@helper
def _store_eights(rows: Any, out: Array) -> None:
    """Write eight vectors to out (8, 8)."""
    for i in range(LANES):
        store(rows[i], out, np.uint64(i * LANES))


@helper
def _load_tile(X: Any, start: int, m: int, first: int, width: int, tile: Array) -> None:
    """Copy `width` features from `first` of m rows of X (n, d) from start to tile, flat: row after row.

    What follows, up to eight rows, is 0: it is multiplied along, and must be finite.
    """
    if width == X.shape[1]:
        cells = X[start : start + m].reshape(m * width)
        for i in range(m * width):  # one long loop: the short ones below cost twice as much
            tile[i] = cells[i]
    else:
        for p in range(m):
            source, row = X[start + p, first : first + width], tile[p * width : (p + 1) * width]
            for j in range(width):
                row[j] = source[j]
    tile[m * width : (m + LANES) * width + LANES] = 0.0


@helper
def _multiply(tile: Array, m: int, table: Array, first: int, width: int, product: Array) -> None:
    """Write tile (m, width) @ table (d, 8) from feature `first` to product (m, 8)."""
    w, two, three, four = np.uint64(width), np.uint64(2), np.uint64(3), np.uint64(4)
    for row in range(0, m, LANES):
        # Eight rows at a time: a load from the table serves eight of them, and their sums need not wait for each other.
        a, b, c, d = zero_eight(), zero_eight(), zero_eight(), zero_eight()
        e, f, g, h = zero_eight(), zero_eight(), zero_eight(), zero_eight()
        for j in range(w):
            entry = load_eight(table, (np.uint64(first) + j) * np.uint64(LANES))
            i = np.uint64(row) * w + j
            k = i + four * w
            a, b = a + entry * tile[i], b + entry * tile[i + w]
            c, d = c + entry * tile[i + two * w], d + entry * tile[i + three * w]
            e, f = e + entry * tile[k], f + entry * tile[k + w]
            g, h = g + entry * tile[k + two * w], h + entry * tile[k + three * w]
        _store_eights((a, b, c, d, e, f, g, h), product[row : row + LANES])


@helper
def _mark_impossible(tile: Array, width: int, m: int, table: Array, first: int, start: int, out: Array) -> None:
    """Write -inf to out (K, n) where infinite entries of table (K, d) from `first` say so of tile (m, width)."""
    for j in range(width):
        for k in range(out.shape[0]):
            entry = table[k, first + j]
            for p in range(m if abs(entry) == np.inf else 0):
                if (tile[p * width + j] > 0.0) == (entry < 0.0):
                    out[k, start + p] = -np.inf


@kernel
def add_products(X: Any, table: Array, base: Array, offset: Array, out: Array) -> None:
    """Add base (K,) + offset (n,) + X (n, d) @ table.T (d, K) to out (K, n).

    X is >= 0 where the table has infinite entries.
    """
    n, d = X.shape
    K, n_groups = out.shape[0], (out.shape[0] - 1) // LANES + 1
    tile = np.empty((STRIP + LANES) * TILE + LANES)
    product = np.empty((STRIP, LANES))
    finite = zero_groups(n_groups, d)
    special = False
    for g in range(n_groups):
        load_group(table, g, finite[g])
        for j in range(d):
            for c in range(LANES):
                infinite = abs(finite[g, j, c]) == np.inf
                finite[g, j, c] = 0.0 if infinite else finite[g, j, c]
                special |= infinite
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        for first in range(0, d, TILE):
            width = min(TILE, d - first)
            _load_tile(X, start, m, first, width, tile)
            for g in range(n_groups):
                _multiply(tile, m, finite[g], first, width, product)
                for k in range(g * LANES, min((g + 1) * LANES, K)):
                    row, added, constant = out[k, start : start + m], offset[start : start + m], base[k]
                    if first == 0:
                        for p in range(m):
                            row[p] += constant + added[p]
                    for p in range(m):
                        row[p] += product[p, k - g * LANES]
            if special:
                _mark_impossible(tile, width, m, table, first, start, out)


@helper
def _sum_rows(tile: Array, m: int, weights: Array, first: int, width: int, sums: Array) -> None:
    """Add tile (m, width).T @ weights (m, 8) to sums (d, 8) from feature `first`."""
    for column in range(0, width, LANES):
        # Eight features at a time: a load of the weights serves eight of them, and the sums stay in registers.
        a, b, c, d = zero_eight(), zero_eight(), zero_eight(), zero_eight()
        e, f, g, h = zero_eight(), zero_eight(), zero_eight(), zero_eight()
        for p in range(np.uint64(m)):
            r = load_eight(weights, p * np.uint64(LANES))
            i = p * np.uint64(width) + np.uint64(column)
            a, b = a + r * tile[i], b + r * tile[i + np.uint64(1)]
            c, d = c + r * tile[i + np.uint64(2)], d + r * tile[i + np.uint64(3)]
            e, f = e + r * tile[i + np.uint64(4)], f + r * tile[i + np.uint64(5)]
            g, h = g + r * tile[i + np.uint64(6)], h + r * tile[i + np.uint64(7)]
        total = np.empty((LANES, LANES))
        _store_eights((a, b, c, d, e, f, g, h), total)
        for feature in range(min(LANES, width - column)):
            sums[first + column + feature] += total[feature]


@kernel
def add_weighted_rows(X: Any, resp: Array, counts: Array, sums: Array) -> None:
    """Add the sums of resp (K, n) to counts (K,), and resp @ X (n, d) to sums (K, d)."""
    n, d = X.shape
    K, n_groups = resp.shape[0], (resp.shape[0] - 1) // LANES + 1
    grouped = zero_groups(n_groups, d)
    tile = np.empty((STRIP + LANES) * TILE + LANES)
    weights = np.zeros((n_groups, STRIP, LANES))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        for k in range(K):
            row, column, count = resp[k, start : start + m], weights[k // LANES], 0.0
            for p in range(m):
                column[p, k % LANES] = row[p]
                count += row[p]
            counts[k] += count
        for first in range(0, d, TILE):
            width = min(TILE, d - first)
            _load_tile(X, start, m, first, width, tile)
            for g in range(n_groups):
                _sum_rows(tile, m, weights[g], first, width, grouped[g])
    for g in range(n_groups):
        add_group(grouped[g], g, sums)
