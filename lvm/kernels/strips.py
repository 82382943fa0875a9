"""Strips: a few hundred rows, transposed, so that the values of a feature are contiguous."""

from __future__ import annotations

from typing import Any

from lvm._jit import Array, kernel

STRIP = 256  # points per inner loop: d = 16 features of them fit a 48 KB L1 cache
# A row of a strip is a cache line longer: rows 2,048 bytes apart would share a few sets of the L1 cache.
WIDTH = STRIP + 8


@kernel
def load_strip(X: Any, start: int, m: int, strip: Array) -> None:
    """Copy m rows of X (n, d) from start to strip (>= d, WIDTH), transposed."""
    d = X.shape[1]
    # Eight points at a time: eight rows of X stay in the L1 cache, and each feature of theirs is one vector store.
    for first in range(0, m - 7, 8):
        for i in range(d):
            for p in range(first, first + 8):
                strip[i, p] = X[start + p, i]
    for p in range(m - m % 8, m):
        for i in range(d):
            strip[i, p] = X[start + p, i]
