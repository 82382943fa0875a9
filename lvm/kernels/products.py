"""Products of dense rows with tables of the components: what all families with a density linear in the data run on.

Tables are brought into groups of eight components, see `groups`. An entry of -inf forbids the feature: a row where it
is not 0 gets -inf, and one where it is 0 is not touched (0 * log 0 = 0).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._jit import Array, helper, kernel
from lvm._vectors import FOUR, ONE, THREE, TWO, ZERO, load_eight, store, zero_eight
from lvm.kernels.groups import EIGHT, LANES, add_counts, add_group, load_group, transpose_group, zero_groups
from lvm.kernels.strips import STRIP, WIDTH

TILE = 64  # features of a strip at a time: with their table they stay in the L2 cache for any number of features


@helper
def _store_four(sums: Any, out: Array, row: Any) -> None:
    """Write four vectors of eight to the rows of out (m, 8) from `row` on."""
    for i in range(4):
        store(sums[i], out, (row + np.uint64(i)) * EIGHT)


@helper
def _load_tile(X: Any, start: int, m: int, first: int, width: int, tile: Array) -> None:
    """Copy `width` features from `first` of m rows of X (n, d) from start to tile, flat: row after row.

    What follows, up to four rows, is 0: it is multiplied along, and must be finite.
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
    tile[m * width : (m + 4) * width] = 0.0


@helper
def _multiply(tile: Array, m: int, table: Array, first: int, width: int, product: Array) -> None:
    """Write tile (m, width) @ table (d, 8) from feature `first` to product (m, 8)."""
    w = np.uint64(width)
    for p in range(ZERO, np.uint64(m), FOUR):
        # Four rows at a time: a load from the table serves them all, and their sums, which need not wait for each
        # other, fill eight of sixteen registers.
        a, b, c, d = zero_eight(), zero_eight(), zero_eight(), zero_eight()
        for j in range(w):
            entry, i = load_eight(table, (np.uint64(first) + j) * EIGHT), p * w + j
            a, b = a + entry * tile[i], b + entry * tile[i + w]
            c, d = c + entry * tile[i + TWO * w], d + entry * tile[i + THREE * w]
        _store_four((a, b, c, d), product, p)


@helper
def _mark_impossible(tile: Array, width: int, m: int, table: Array, first: int, start: int, out: Array) -> None:
    """Write -inf to out (K, n) where tile (m, width) is not 0 and table (K, d), from `first` on, is -inf."""
    for j in range(width):
        for k in range(out.shape[0]):
            for p in range(m if table[k, first + j] == -np.inf else 0):
                if tile[p * width + j] > 0.0:
                    out[k, start + p] = -np.inf


@kernel
def add_products(X: Any, table: Array, base: Array, offset: Array, out: Array) -> None:
    """Add base (K,) + offset (n,) + X (n, d) @ table.T (d, K) to out (K, n); X is >= 0 where the table is -inf."""
    n, d = X.shape
    K, n_groups = out.shape[0], (out.shape[0] - 1) // LANES + 1
    tile = np.empty((STRIP + 4) * TILE)
    product, rows = np.empty((STRIP + 4, LANES)), np.empty((LANES, WIDTH))
    finite = zero_groups(n_groups, d)
    special = False
    for g in range(n_groups):
        load_group(table, g, ZERO, d, finite[g])
        for j in range(d):
            for c in range(LANES):
                forbidden = finite[g, j, c] == -np.inf
                finite[g, j, c] = 0.0 if forbidden else finite[g, j, c]
                special |= forbidden
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        for first in range(0, d, TILE):
            width = min(TILE, d - first)
            _load_tile(X, start, m, first, width, tile)
            for g in range(n_groups):
                _multiply(tile, m, finite[g], first, width, product)
                transpose_group(product, ZERO, m, rows)
                for k in range(g * LANES, min((g + 1) * LANES, K)):
                    row, more = out[k, start : start + m], rows[k % LANES]
                    constant, added = base[k], offset[start : start + m]
                    if first == 0:
                        for p in range(m):
                            row[p] += constant + added[p]
                    for p in range(m):
                        row[p] += more[p]
            if special:
                _mark_impossible(tile, width, m, table, first, start, out)


@helper
def _sum_rows(tile: Array, m: int, weights: Array, first: int, width: int, sums: Array) -> None:
    """Add tile (m, width).T @ weights (m, 8) to sums (d, 8) from feature `first`."""
    w, total = np.uint64(width), np.empty((4, LANES))
    for column in range(0, width, 4):
        # Four features at a time: a load of the weights serves them all, and their sums stay in registers.
        a, b, c, d = zero_eight(), zero_eight(), zero_eight(), zero_eight()
        for p in range(np.uint64(m)):
            r, i = load_eight(weights, p * EIGHT), p * w + np.uint64(column)
            a, b = a + r * tile[i], b + r * tile[i + ONE]
            c, d = c + r * tile[i + TWO], d + r * tile[i + THREE]
        _store_four((a, b, c, d), total, ZERO)
        for feature in range(min(4, width - column)):
            sums[first + column + feature] += total[feature]


@kernel
def add_weighted_rows(X: Any, resp: Array, counts: Array, sums: Array) -> None:
    """Add the sums of resp (K, n) to counts (K,), and resp @ X (n, d) to sums (K, d)."""
    n, d = X.shape
    n_groups = (resp.shape[0] - 1) // LANES + 1
    grouped = zero_groups(n_groups, d)
    tile = np.empty((STRIP + 4) * TILE)
    weights, rows = np.empty((n_groups, STRIP, LANES)), np.empty((LANES, WIDTH))
    add_counts(resp, counts)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        for g in range(n_groups):
            load_group(resp, g, np.uint64(start), m, weights[g])
        for first in range(0, d, TILE):
            width = min(TILE, d - first)
            _load_tile(X, start, m, first, width, tile)
            for g in range(n_groups):
                _sum_rows(tile, m, weights[g], first, width, grouped[g])
    for g in range(n_groups):
        add_group(grouped[g], g, rows, sums)
