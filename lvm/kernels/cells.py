"""Sums over the cells of rows of category codes: of a table with an entry for each category, and into such a table.

Column j of c_j categories owns c_j + 1 consecutive slots of a table (K, S). The first of them is for a missing cell,
whose code is -1, so that no code needs a branch: a cell belongs to slot `slots[j] + code`, where `slots[j]` is that of
category 0. An entry of a table may be -inf, but not inf. Tables are brought into groups of eight components, see
`groups`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, kernel
from lvm._vectors import ONE, TWO, ZERO, load_eight, store, zero_eight
from lvm.kernels.groups import EIGHT, LANES, add_counts, add_group, load_group, transpose_group, zero_groups
from lvm.kernels.strips import STRIP, WIDTH
from lvm.protocol import CanonicalRows


@dataclass(frozen=True)
class CodedRows(CanonicalRows):
    """Rows of category codes.

    Attributes
    ----------
    codes : ndarray of shape (n, d), int32
        Category of each cell, from 0; -1 where missing.
    """

    codes: NDArray[np.int32]


@kernel
def add_cells(codes: NDArray[np.int32], slots: NDArray[np.int64], table: Array, base: Array, out: Array) -> None:
    """Add base (K,) + the sums over columns of table (K, S) at the slots of codes (n, d) to out (K, n)."""
    (n, d), (K, S) = codes.shape, table.shape
    cells = codes.reshape(n * d)
    group = zero_groups(min(K, 1), S)[0]  # a literal 1 would compile it once more
    total, rows = np.empty((STRIP, LANES)), np.empty((LANES, WIDTH))
    width = np.uint64(d)  # unsigned: an index that may be negative costs a test
    for g in range((K - 1) // LANES + 1):
        load_group(table, g, ZERO, S, group)
        for start in range(0, n, STRIP):
            m = min(STRIP, n - start)
            for p in range(m):
                a, b = zero_eight(), zero_eight()
                first = np.uint64(start + p) * width
                for j in range(ZERO, width - width % TWO, TWO):
                    a += load_eight(group, EIGHT * np.uint64(slots[j] + cells[first + j]))
                    b += load_eight(group, EIGHT * np.uint64(slots[j + ONE] + cells[first + j + ONE]))
                if width % TWO > ZERO:
                    j = width - ONE
                    a += load_eight(group, EIGHT * np.uint64(slots[j] + cells[first + j]))
                store(a + b, total, EIGHT * np.uint64(p))
            transpose_group(total, ZERO, m, rows)
            for k in range(g * LANES, min((g + 1) * LANES, K)):
                row, more, constant = out[k, start : start + m], rows[k % LANES], base[k]
                for p in range(m):
                    row[p] += constant + more[p]


@kernel
def add_weighted_cells(
    codes: NDArray[np.int32], slots: NDArray[np.int64], resp: Array, counts: Array, sums: Array
) -> None:
    """Add the sums of resp (K, n) to counts (K,), and resp at the slots of codes (n, d) to sums (K, S)."""
    (n, d), (K, S) = codes.shape, sums.shape
    cells = codes.reshape(n * d)
    grouped = zero_groups((K - 1) // LANES + 1, S)
    weights, rows = np.empty((STRIP, LANES)), np.empty((LANES, WIDTH))
    width = np.uint64(d)
    add_counts(resp, counts)
    for g in range(grouped.shape[0]):
        group = grouped[g]
        for start in range(0, n, STRIP):
            m = min(STRIP, n - start)
            load_group(resp, g, np.uint64(start), m, weights)
            for p in range(m):
                r = load_eight(weights, EIGHT * np.uint64(p))
                first = np.uint64(start + p) * width
                for j in range(width):
                    at = EIGHT * np.uint64(slots[j] + cells[first + j])
                    store(load_eight(group, at) + r, group, at)
        add_group(group, g, rows, sums)
