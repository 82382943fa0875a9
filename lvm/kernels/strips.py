"""Strips: a few hundred rows, transposed, so that the values of a feature are contiguous."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper

STRIP = 256  # points per inner loop: d = 16 features of them fit a 48 KB L1 cache
# A row of a strip is a cache line longer: rows 2,048 bytes apart would share a few sets of the L1 cache.
WIDTH = STRIP + 8
LOG_2PI = 1.8378770664093453


LINE = 64  # bytes of a cache line, and of the widest vector


@helper
def aligned_zeros(size: int, dtype: Any) -> Array:
    """Return zeros (size,) at the start of a cache line.

    numba aligns arrays to half a line: each load of a whole vector would touch two lines, and take twice as long.
    """
    memory = np.zeros(size + LINE, dtype)
    first = -(memory.ctypes.data // memory.itemsize) % (LINE // memory.itemsize)
    return memory[first : first + size]


@helper
def zero_strip(n_rows: Any, X: Any) -> Array:
    """Return zeros (n_rows, WIDTH) in the dtype of X, at the start of a cache line."""
    return aligned_zeros(n_rows * WIDTH, X.dtype).reshape(n_rows, WIDTH)


@helper
def load_strip(X: Any, start: int, m: int, strip: Array) -> None:
    """Copy m rows of X (n, d) from start to strip (e, WIDTH), transposed: the first e features where e < d."""
    d = min(X.shape[1], strip.shape[0])
    # Eight points at a time: eight rows of X stay in the L1 cache, and each feature of theirs is one vector store.
    for first in range(0, m - 7, 8):
        for i in range(d):
            for p in range(first, first + 8):
                strip[i, p] = X[start + p, i]
    for p in range(m - m % 8, m):
        for i in range(d):
            strip[i, p] = X[start + p, i]


# Gathering rows pays below about this share of them: it costs d loads per row, the moments about d**2 / 2.
DENSE = 0.5


@helper
def count_active(resp: Array, count: Array) -> int:
    """Add the sum of resp (n,) to count (1,) and return how many of them are not 0."""
    total = 0.0
    n_active = 0
    for p in range(resp.shape[0]):
        total += resp[p]
        n_active += 1 if resp[p] != 0.0 else 0
    count[0] += total
    return n_active


@helper
def list_active(resp: Array, active: NDArray[np.int64]) -> None:
    """Write the positions of the non-zero entries of resp (n,) to active (n,), ascending."""
    found = 0
    for p in range(resp.shape[0]):
        active[found] = p
        found += 1 if resp[p] != 0.0 else 0


@helper
def gather_strip(X: Any, rows: NDArray[np.int64], strip: Array) -> None:
    """Copy rows (m,) of X (n, d) to strip (>= d, WIDTH), transposed."""
    m = rows.shape[0]
    for first in range(0, m - 7, 8):  # as load_strip
        for i in range(X.shape[1]):
            for p in range(first, first + 8):
                strip[i, p] = X[rows[p], i]
    for p in range(m - m % 8, m):
        for i in range(X.shape[1]):
            strip[i, p] = X[rows[p], i]
