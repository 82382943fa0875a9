"""Products of CSR rows with tables of the components, in groups of eight components.

A group (d, 8) of a table (K, d) has eight components side by side for each feature: an entry of a row is one vector
load from it, and a group stays in the L2 cache where the table of all components would not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper, kernel
from lvm._vectors import load_eight, store, zero_eight
from lvm.kernels.strips import STRIP, aligned_zeros

LANES = 8
FLOAT64 = np.dtype(np.float64)


@helper
def zero_groups(n_groups: int, d: int) -> Array:
    """Return zeros (n_groups, d, 8), each eight of them a cache line."""
    return aligned_zeros(n_groups * d * LANES, FLOAT64).reshape(n_groups, d, LANES)


@helper
def load_group(table: Array, g: int, group: Array) -> None:
    """Write the components 8 g to 8 g + 7 of a table (K, d) to group (d, 8)."""
    K, d = table.shape
    for start in range(0, d, STRIP):  # eight components of these features stay in the L1 cache
        m = min(STRIP, d - start)
        part = group[start : start + m]
        for k in range(g * LANES, min((g + 1) * LANES, K)):
            row = table[k, start : start + m]
            for j in range(m):
                part[j, k - g * LANES] = row[j]


@helper
def add_group(group: Array, g: int, sums: Array) -> None:
    """Add group (d, 8) to the components 8 g to 8 g + 7 of sums (K, d)."""
    K, d = sums.shape
    for start in range(0, d, STRIP):
        m = min(STRIP, d - start)
        part = group[start : start + m]
        for k in range(g * LANES, min((g + 1) * LANES, K)):
            row = sums[k, start : start + m]
            for j in range(m):
                row[j] += part[j, k - g * LANES]


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
    K, n = out.shape
    last = (K - 1) // LANES
    groups = zero_groups(min(last + 1, 2), table.shape[1])
    left, right = groups[0], groups[min(last, 1)]
    ones = len(data) == 0
    eight = np.uint64(LANES)  # unsigned: an index that may be negative costs a test
    total = np.empty((2, STRIP, LANES))
    # Two groups at a time: each sum waits for its last addition, and a row is read and its end guessed half as often.
    for g in range(0, last + 1, 2):
        load_group(table, g, left)
        if g < last:
            load_group(table, g + 1, right)
        for start in range(0, n, STRIP):
            m = min(STRIP, n - start)
            for p in range(m):
                begin, end = np.uint64(indptr[start + p]), np.uint64(indptr[start + p + 1])
                a, b = zero_eight(), zero_eight()
                if g < last:
                    for e in range(begin, end):
                        at, x = eight * np.uint64(indices[e]), 1.0 if ones else data[e]
                        a += load_eight(left, at) * x
                        b += load_eight(right, at) * x
                else:
                    for e in range(begin, end):
                        a += load_eight(left, eight * np.uint64(indices[e])) * (1.0 if ones else data[e])
                store(a, total[0], eight * np.uint64(p))
                store(b, total[1], eight * np.uint64(p))
            for k in range(g * LANES, min((g + 2) * LANES, K)):
                column = total[k // LANES - g]
                row, constant, added = out[k, start : start + m], base[k], offset[start : start + m]
                for p in range(m):
                    row[p] += constant + added[p] + column[p, k % LANES]


@kernel
def add_weighted_sparse_rows(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: Array, resp: Array, counts: Array, sums: Array
) -> None:
    """Add the sums of resp (K, n) to counts (K,), and resp @ CSR rows to sums (K, d); no data means ones."""
    K, n = resp.shape
    ones = len(data) == 0
    eight = np.uint64(LANES)
    weights = np.empty((STRIP, LANES))
    active = np.empty(STRIP)
    grouped = zero_groups((K - 1) // LANES + 1, sums.shape[1])
    for g in range(grouped.shape[0]):
        group = grouped[g]
        weights[:] = 0.0
        for start in range(0, n, STRIP):
            m = min(STRIP, n - start)
            active[:m] = 0.0
            for k in range(g * LANES, min((g + 1) * LANES, K)):
                row = resp[k, start : start + m]
                count = 0.0
                for p in range(m):
                    weights[p, k - g * LANES] = row[p]
                    active[p] = max(active[p], abs(row[p]))
                    count += row[p]
                counts[k] += count
            for p in range(m):
                if active[p] == 0.0:  # most rows are certain of their component: one group of them is left
                    continue
                r = load_eight(weights, eight * np.uint64(p))
                for e in range(np.uint64(indptr[start + p]), np.uint64(indptr[start + p + 1])):
                    at = eight * np.uint64(indices[e])
                    store(load_eight(group, at) + r * (1.0 if ones else data[e]), group, at)
        add_group(group, g, sums)
