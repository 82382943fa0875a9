"""Equal rows made one row of their total weight: exact, and cheap where data repeat, as answers to items do.

Rows are grouped by a 64-bit hash, and each is then compared with the one that stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import canonical
from lvm.protocol import Rows, SparseRows, n_rows, row_parts, slice_rows, take_rows

SAMPLE_ROWS = 1000
BLOCK_ROWS = 1 << 16  # rows grouped at a time
BLOCK_CELLS = 1 << 18  # cells, or entries, hashed or compared at a time: 2 MB
MAX_BYTES = 1 << 24  # distinct rows larger than this are not worth their memory, unless asked for


class Collapsed(NamedTuple):
    """Rows to fit, and the position of each in the rows that were handed in; None where they are the same."""

    rows: Rows
    first: NDArray[np.int64] | None


def collapse(rows: Rows, deduplicate: bool | str) -> Collapsed:
    """Return the distinct (row, label) pairs with their total weights, in the order of their first appearance.

    Parameters
    ----------
    rows : Rows
        Canonical rows.
    deduplicate : bool or "auto"
        True collapses, False leaves the rows alone, "auto" collapses where a sample of the rows says that at most
        half of all are distinct, and where the distinct ones are few enough to hold.

    Returns
    -------
    Collapsed
        The rows themselves where nothing was gained.
    """
    unchanged = Collapsed(rows, None)
    n = n_rows(rows)
    automatic = deduplicate == "auto"
    if not deduplicate or (automatic and not pays(rows)):
        return unchanged
    first, total, hashes = np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint64)
    for part in _slices(n, BLOCK_ROWS):
        weight = np.ones(part.stop - part.start) if rows.weight is None else rows.weight[part]
        candidates = np.concatenate([first, np.arange(part.start, part.stop)])
        groups = group(rows, candidates, np.concatenate([hashes, hash_rows(rows, part)]))
        if groups is None:
            return unchanged
        at, inverse, hashes = groups
        first = candidates[at]
        total = np.asarray(np.bincount(inverse, np.concatenate([total, weight])), np.float64)
        if automatic and _bytes(rows.X, first) > MAX_BYTES:
            return unchanged
    if len(first) == n or (automatic and 2 * len(first) > n):
        return unchanged
    order = np.argsort(first)
    first = first[order]
    labels = None if rows.labels is None else take_rows(rows.labels, first)
    return Collapsed(Rows(take_rows(rows.X, first), canonical(total[order]), labels), first)


def pays(rows: Rows) -> bool:
    """Return whether a sample of the rows repeats as often as it would if at most half of all rows were distinct.

    Of P patterns that are equally likely, s rows hold about s**2 / (2 P) repetitions; unequal ones repeat more often.
    """
    n = n_rows(rows)
    s = min(n, SAMPLE_ROWS)
    sample = np.arange(n) if s == n else np.sort(np.random.RandomState(0).randint(0, n, s))
    sample = np.unique(sample)
    s = len(sample)
    hashes = hash_rows(Rows(take_rows(rows.X, sample), None, None if rows.labels is None else rows.labels[sample]))
    repeats = s - len(np.unique(hashes))
    return repeats >= n / 2 if s == n else repeats >= max(10, s**2 / n)


def group(
    rows: Rows, index: NDArray[np.int64], hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]] | None:
    """Group the rows at `index` that are equal, and equal in their labels.

    Parameters
    ----------
    rows : Rows
        Canonical rows; their weights are not looked at.
    index : ndarray of shape (m,)
        Positions of rows.
    hashes : ndarray of shape (m,)
        Their hashes.

    Returns
    -------
    tuple of ndarray or None
        For each group the position in `index` of its first row; the group of each row, (m,); the hash of each group, in
        ascending order. None where different rows share a hash.
    """
    distinct, at, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    inverse = inverse.reshape(len(index))  # numpy 2.0 alone gives it another shape
    moved = np.flatnonzero(at[inverse] != np.arange(len(index)))
    ours, theirs = index[moved], index[at[inverse[moved]]]
    if rows.labels is not None and not np.array_equal(rows.labels[ours], rows.labels[theirs]):
        return None
    for X in row_parts(rows.X):
        for part in _slices(len(ours), _step(X)):
            if not _equal(take_rows(X, ours[part]), take_rows(X, theirs[part])):
                return None
    return at, inverse, distinct


def hash_rows(rows: Rows, part: slice | None = None) -> NDArray[np.uint64]:
    """Return a hash of each row and its label, shape (m,): the same for dense and for CSR rows of equal values."""
    X, _, labels = rows if part is None else slice_rows(rows, part)
    arrays = row_parts(X) if labels is None else [*row_parts(X), labels]
    out = np.zeros(len(X), np.uint64)
    for seed, array in enumerate(arrays):
        _add_hashes(array if len(array.shape) == 2 else array[:, None], np.random.RandomState(seed), out)
    return out


def _add_hashes(X: Any, rng: np.random.RandomState, out: NDArray[np.uint64]) -> None:
    """Add sums of products with random odd numbers, modulo 2**64, to out (n,): a zero adds nothing."""
    factors = rng.randint(0, 1 << 63, X.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    for block in _slices(len(X), _step(X)):
        rest = X[block]
        if isinstance(rest, SparseRows):
            begin, end = int(rest.indptr[0]), int(rest.indptr[-1])
            values = rest.data[begin:end] if len(rest.data) else np.ones(end - begin)
            products = _mixed(values) * factors[rest.indices[begin:end]]
            ends = np.concatenate([[np.uint64(0)], np.cumsum(products, dtype=np.uint64)])[rest.indptr - begin]
            out[block] += ends[1:] - ends[:-1]
        else:
            out[block] += (_mixed(rest) * factors).sum(axis=1, dtype=np.uint64)


def _mixed(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the bits of float64 values with the upper ones folded on the lower: those of small integers are 0."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    return np.asarray(bits ^ (bits >> np.uint64(44)))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, SparseRows):
        return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("indptr", "indices", "data"))
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _step(X: Any) -> int:
    """Return how many rows have about BLOCK_CELLS cells or entries."""
    cells = (X.indptr[-1] - X.indptr[0]) / max(1, len(X)) if isinstance(X, SparseRows) else np.prod(X.shape[1:])
    return max(1, int(BLOCK_CELLS / max(1.0, cells)))


def _bytes(X: Any, index: NDArray[np.int64]) -> int:
    total = 8 * len(index)
    for part in row_parts(X):
        if isinstance(part, SparseRows):
            total += 12 * int((part.indptr[index + 1] - part.indptr[index]).sum()) + 8 * len(index)
        else:
            total += part[:1].nbytes * len(index)
    return total


def _slices(n: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
