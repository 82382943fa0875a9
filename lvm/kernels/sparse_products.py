"""Products of CSR rows with tables of the components, in groups of eight components.

An entry of a row is one vector load from a group, and a group of a table stays in the L2 cache where the table of all
components would not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, kernel
from lvm._masks import any_above
from lvm._vectors import FOUR, ONE, TWO, ZERO, larger, load_eight, store, zero_eight
from lvm.kernels.groups import (
    EIGHT,
    FLOAT64,
    LANES,
    add_counts,
    add_group,
    load_four,
    load_group,
    transpose_group,
    zero_groups,
)
from lvm.kernels.strips import STRIP, WIDTH, aligned_zeros

AT_ONCE = 3  # groups that a row is multiplied by: their sums are enough to keep the multiply-add units busy


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
    """Add base (K,) + offset (n,) + CSR rows @ table.T (d, K) to out (K, n); no data means that all entries are 1."""
    (K, n), (d, width) = out.shape, (table.shape[1], min(AT_ONCE * LANES, (out.shape[0] + 3) // 4 * 4))
    # A feature's components side by side; with a row more, since sums of eight components read those of the next.
    entries = aligned_zeros((d + 1) * width, FLOAT64).reshape(d + 1, width)
    stride, ones, n_groups = np.uint64(width), len(data) == 0, (K - 1) // LANES + 1
    total, rows = np.empty((AT_ONCE, STRIP, LANES)), np.empty((LANES, WIDTH))
    for first in range(0, n_groups, AT_ONCE):
        n_here = np.uint64(min(width, K - first * LANES))
        for c in range(ZERO, n_here, FOUR):
            load_four(table, np.uint64(first) * EIGHT + c, ZERO, d, entries, c)
        for start in range(0, n, STRIP):
            m = min(STRIP, n - start)
            for p in range(m):
                begin, end = np.uint64(indptr[start + p]), np.uint64(indptr[start + p + 1])
                a, b, c = zero_eight(), zero_eight(), zero_eight()
                if n_here > TWO * EIGHT:
                    for e in range(begin, end):
                        at, x = stride * np.uint64(indices[e]), 1.0 if ones else data[e]
                        a += load_eight(entries, at) * x
                        b += load_eight(entries, at + EIGHT) * x
                        c += load_eight(entries, at + TWO * EIGHT) * x
                elif n_here > EIGHT:
                    for e in range(begin, end):
                        at, x = stride * np.uint64(indices[e]), 1.0 if ones else data[e]
                        a += load_eight(entries, at) * x
                        b += load_eight(entries, at + EIGHT) * x
                else:
                    # Two entries at a time: a sum waits for its last addition.
                    for e in range(begin, end - (end - begin) % TWO, TWO):
                        a += load_eight(entries, stride * np.uint64(indices[e])) * (1.0 if ones else data[e])
                        x = 1.0 if ones else data[e + ONE]
                        b += load_eight(entries, stride * np.uint64(indices[e + ONE])) * x
                    if (end - begin) % TWO == ONE:
                        e = end - ONE
                        a += load_eight(entries, stride * np.uint64(indices[e])) * (1.0 if ones else data[e])
                    a += b
                to = EIGHT * np.uint64(p)
                store(a, total[0], to)
                store(b, total[1], to)
                store(c, total[2], to)
            for g in range(first, min(first + AT_ONCE, n_groups)):
                transpose_group(total[g - first], ZERO, m, rows)
                for k in range(g * LANES, min((g + 1) * LANES, K)):
                    row, more = out[k, start : start + m], rows[k % LANES]
                    constant, added = base[k], offset[start : start + m]
                    for p in range(m):
                        row[p] += constant + added[p] + more[p]


@kernel
def add_weighted_sparse_rows(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: Array, resp: Array, counts: Array, sums: Array
) -> None:
    """Add the sums of resp (K, n) to counts (K,), and resp @ CSR rows to sums (K, d); no data means ones."""
    K, n = resp.shape
    ones = len(data) == 0
    weights, rows = np.empty((STRIP, LANES)), np.empty((LANES, WIDTH))
    grouped = zero_groups((K - 1) // LANES + 1, sums.shape[1])
    add_counts(resp, counts)
    for g in range(grouped.shape[0]):
        group = grouped[g]
        for start in range(0, n, STRIP):
            m = min(STRIP, n - start)
            load_group(resp, g, np.uint64(start), m, weights)
            for p in range(m):
                r = load_eight(weights, EIGHT * np.uint64(p))
                # Most rows are certain of their component: one group of them is left.
                if not any_above(larger(r, 0.0 - r), 0.0):
                    continue
                for e in range(np.uint64(indptr[start + p]), np.uint64(indptr[start + p + 1])):
                    at = EIGHT * np.uint64(indices[e])
                    store(load_eight(group, at) + r * (1.0 if ones else data[e]), group, at)
        add_group(group, g, rows, sums)
