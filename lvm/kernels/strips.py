"""Strips: a few hundred rows, transposed, so that the values of a feature are contiguous."""

from __future__ import annotations

from typing import Any

from lvm._jit import Array, kernel

STRIP = 256  # points per inner loop: d = 16 features of them fill half of a 64 KB L1 cache


@kernel
def load_strip(X: Any, start: int, m: int, strip: Array) -> None:
    """Copy m rows of X (n, d) from start to strip (>= d, >= m), transposed."""
    for p in range(m):
        for i in range(X.shape[1]):
            strip[i, p] = X[start + p, i]
