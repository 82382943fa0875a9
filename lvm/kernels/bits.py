"""Rows of zeros and ones, four features at a time: their sixteen patterns have an entry each in tables and sums.

A row is read as one half byte for each four features. What it adds to a density, or a responsibility to the sums, is
one entry for each of those: a quarter of the work of a product, and exact also where an entry is -inf. The technique
is known from products of binary matrices (Arlazarov, Dinic, Kronrod & Faradzev, 1970, "On economical construction of
the transitive closure of a directed graph").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper, kernel
from lvm._vectors import FOUR, ONE, ZERO, load_bytes, load_eight, load_one, store, zero_eight
from lvm.kernels.groups import EIGHT, LANES, add_columns, add_counts, add_group, load_group, zero_groups
from lvm.kernels.strips import STRIP, WIDTH

PATTERNS = np.uint64(16)
FIFTEEN, THIRTY_TWO = np.uint64(15), np.uint64(32)
# Times eight bytes of 0 or 1, this leaves them as the bits of the highest byte; its bits 7, 14, ..., 56 are set.
GATHER, HIGHEST = np.uint64(0x0102040810204080), np.uint64(56)
N_AT_ONCE = 16  # bytes of eight features: what a group needs for them fits the L1 cache
TILE = np.uint64(N_AT_ONCE)


@helper
def _packed(X: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return zeros and ones X (n, d) as bits, (n, ceil(d / 8)), the first feature lowest."""
    n, d = np.uint64(X.shape[0]), np.uint64(X.shape[1])
    packed = np.empty((n, (d + EIGHT - ONE) // EIGHT), np.uint8)
    whole, rest = d // EIGHT, d % EIGHT
    for p in range(n):
        for b in range(whole):
            packed[p, b] = (load_bytes(X, p * d + EIGHT * b) * GATHER) >> HIGHEST
        if rest > ZERO:
            last: Any = ZERO
            if whole > ZERO:
                last = load_bytes(X, p * d + d - EIGHT) >> (EIGHT * (EIGHT - rest))
            else:
                for i in range(rest):
                    last |= np.uint64(X[p, i]) << (EIGHT * i)
            packed[p, whole] = (last * GATHER) >> HIGHEST
    return packed


@helper
def _tabulate(zeros: Array, ones: Array, first: Any, size: Any, table: Array) -> None:
    """Write the sums of zeros and ones (d, 8) that belong to each pattern of `size` bytes from feature `first` on."""
    d = np.uint64(ones.shape[0])
    for j in range(ZERO, EIGHT * size, FOUR):
        for pattern in range(PATTERNS):
            total = zero_eight()
            for feature in range(first + j, min(first + j + FOUR, d)):
                if (pattern >> (feature % FOUR)) & ONE:
                    total += load_eight(ones, feature * EIGHT)
                else:
                    total += load_eight(zeros, feature * EIGHT)
            store(total, table, (FOUR * j + pattern) * EIGHT)


@kernel
def add_bits(X: NDArray[np.uint8], log_zero: Array, log_one: Array, out: Array) -> None:
    """Add the sums over features of log_one (K, d) where X (n, d) is 1, of log_zero where it is 0, to out (K, n)."""
    (n, d), K = X.shape, out.shape[0]
    packed = _packed(X)
    n_bytes = np.uint64(packed.shape[1])
    table = zero_groups(min(K, 1), 32 * min(packed.shape[1], N_AT_ONCE))[0]
    zeros_and_ones = zero_groups(2 * min(K, 1), d)
    zeros, ones = zeros_and_ones[0], zeros_and_ones[1]
    total, rows = np.empty((STRIP, LANES)), np.empty((LANES, WIDTH))
    for g in range((K - 1) // LANES + 1):
        load_group(log_zero, g, ZERO, d, zeros)
        load_group(log_one, g, ZERO, d, ones)
        for b in range(ZERO, n_bytes, TILE):
            size = min(TILE, n_bytes - b)
            _tabulate(zeros, ones, EIGHT * b, size, table)
            for start in range(0, n, STRIP):
                m = min(STRIP, n - start)
                for p in range(np.uint64(m)):
                    low, high, first = zero_eight(), zero_eight(), (np.uint64(start) + p) * n_bytes + b
                    for i in range(size):
                        byte, at = np.uint64(load_one(packed, first + i)), i * THIRTY_TWO
                        low += load_eight(table, (at + (byte & FIFTEEN)) * EIGHT)
                        high += load_eight(table, (at + PATTERNS + (byte >> FOUR)) * EIGHT)
                    store(low + high, total, p * EIGHT)
                add_columns(total, ZERO, m, g, rows, start, out)


@helper
def _collect(table: Array, first: Any, size: Any, sums: Array) -> None:
    """Write the sums of the entries with a one of each feature, of `size` bytes from `first` on, to sums (d, 8).

    The table is cleared.
    """
    for feature in range(first, min(first + EIGHT * size, np.uint64(sums.shape[0]))):
        total, entries = zero_eight(), (feature - first) // FOUR * PATTERNS
        for pattern in range(PATTERNS):
            if (pattern >> (feature % FOUR)) & ONE:
                total += load_eight(table, (entries + pattern) * EIGHT)
        store(total, sums, feature * EIGHT)
    table[:] = 0.0


@kernel
def add_weighted_bits(X: NDArray[np.uint8], resp: Array, counts: Array, sums: Array) -> None:
    """Add the sums of resp (K, n) to counts (K,), and those over the ones of X (n, d) to sums (K, d)."""
    (n, d), K = X.shape, resp.shape[0]
    packed = _packed(X)
    n_bytes = np.uint64(packed.shape[1])
    table = zero_groups(min(K, 1), 32 * min(packed.shape[1], N_AT_ONCE))[0]
    ones = zero_groups(min(K, 1), d)[0]
    weights, rows = np.empty((STRIP, LANES)), np.empty((LANES, WIDTH))
    add_counts(resp, counts)
    for g in range((K - 1) // LANES + 1):
        for b in range(ZERO, n_bytes, TILE):
            size = min(TILE, n_bytes - b)
            for start in range(0, n, STRIP):
                m = min(STRIP, n - start)
                load_group(resp, g, np.uint64(start), m, weights)
                for p in range(np.uint64(m)):
                    r, first = load_eight(weights, p * EIGHT), (np.uint64(start) + p) * n_bytes + b
                    for i in range(size):
                        byte, at = np.uint64(load_one(packed, first + i)), i * THIRTY_TWO
                        low, high = (at + (byte & FIFTEEN)) * EIGHT, (at + PATTERNS + (byte >> FOUR)) * EIGHT
                        store(load_eight(table, low) + r, table, low)
                        store(load_eight(table, high) + r, table, high)
            _collect(table, EIGHT * b, size, ones)
        add_group(ones, g, rows, sums)
