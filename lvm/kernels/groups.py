"""Groups of eight components: how kernels for discrete rows read tables and responsibilities, and write sums.

A group (S, 8) of a table (K, S) has eight components side by side for each feature or category: what a cell of a row
says of them is one vector load, and a row's sums over its cells are eight numbers. Of a table, responsibilities (K, n)
too, the last component stands in for those that its last group lacks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._jit import Array, helper
from lvm._vectors import FOUR, ONE, THREE, TWO, ZERO, transpose_four
from lvm.kernels.strips import STRIP, WIDTH, aligned_zeros

LANES = 8
EIGHT = np.uint64(LANES)
FLOAT64 = np.dtype(np.float64)


@helper
def zero_groups(n_groups: int, n_slots: int) -> Array:
    """Return zeros (n_groups, S, 8), each eight of them a cache line."""
    return aligned_zeros(n_groups * n_slots * LANES, FLOAT64).reshape(n_groups, n_slots, LANES)


@helper
def load_group(table: Array, g: int, start: Any, m: int, group: Array) -> None:
    """Write the components 8 g to 8 g + 7 of m columns of a table (K, S), from start on, to group (m, 8)."""
    for c in range(ZERO, EIGHT, FOUR):
        load_four(table, np.uint64(g) * EIGHT + c, start, m, group, c)


@helper
def load_four(table: Array, k: Any, start: Any, m: int, group: Array, at: Any) -> None:
    """Write four components from k on of m columns of a table (K, S), from start on, to group (m, ...) from `at` on."""
    K, S, stride = np.uint64(table.shape[0]), np.uint64(table.shape[1]), np.uint64(group.shape[1])
    n, last = np.uint64(m), K - ONE
    p, q = start + min(k, last) * S, start + min(k + ONE, last) * S
    r, s = start + min(k + TWO, last) * S, start + min(k + THREE, last) * S
    for j in range(ZERO, n - n % FOUR, FOUR):
        transpose_four(table, (p + j, q + j, r + j, s + j), group, j * stride + at, stride)
    for j in range(n - n % FOUR, n):
        for i in range(FOUR):
            group[j, at + i] = table[min(k + i, last), start + j]


@helper
def transpose_group(group: Array, start: Any, m: int, rows: Array) -> None:
    """Write m entries of group (S, 8), from start on, to rows (8, WIDTH)."""
    n: Any = np.uint64(m)
    for c in range(ZERO, EIGHT, FOUR):
        first, width = start * EIGHT + c, np.uint64(WIDTH)
        for j in range(ZERO, n - n % FOUR, FOUR):
            p = first + j * EIGHT
            positions = p, p + EIGHT, p + TWO * EIGHT, p + THREE * EIGHT
            transpose_four(group, positions, rows, c * width + j, width)
        for j in range(n - n % FOUR, n):
            for i in range(FOUR):
                rows[c + i, j] = group[start + j, c + i]


@helper
def add_columns(group: Array, at: Any, m: int, g: int, rows: Array, start: int, out: Array) -> None:
    """Add m entries of group (S, 8), from `at` on, to those from start on of components 8 g to 8 g + 7 of out (K, ...).

    By way of rows (8, WIDTH).
    """
    transpose_group(group, at, m, rows)
    for k in range(g * LANES, min((g + 1) * LANES, out.shape[0])):
        into, more = out[k, start : start + m], rows[k % LANES]
        for j in range(m):
            into[j] += more[j]


@helper
def add_group(group: Array, g: int, rows: Array, sums: Array) -> None:
    """Add group (S, 8) to the components 8 g to 8 g + 7 of sums (K, S), by way of rows (8, WIDTH)."""
    S = sums.shape[1]
    for start in range(0, S, STRIP):
        add_columns(group, np.uint64(start), min(STRIP, S - start), g, rows, start, sums)


@helper
def add_counts(resp: Array, counts: Array) -> None:
    """Add the sums of resp (K, n) to counts (K,)."""
    for k in range(resp.shape[0]):
        row, count = resp[k], 0.0
        for p in range(resp.shape[1]):
            count += row[p]
        counts[k] += count
