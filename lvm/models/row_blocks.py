"""Blocks of rows, in which the steps of an E-step follow each other where a family does not take them at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, canonical
from lvm.protocol import SparseRows

# A block costs a few microseconds of Python, during which other threads wait for the interpreter: blocks are long.
MAX_BLOCK_ROWS = 1 << 15
BLOCK_CELLS = 1 << 17  # values or responsibilities per block, 1 MB: they stay in the L2 cache from kernel to kernel

# What kernels see where rows have no weights or no labels.
ONES = canonical(np.ones(MAX_BLOCK_ROWS))
UNKNOWN = canonical(np.full(MAX_BLOCK_ROWS, -1), np.int64)


def cut_into_blocks(X: Any, K: int) -> list[slice]:
    """Cut the rows of X into blocks of nearly equal length, for K components."""
    n, d = len(X), X.shape[1]
    # Each block of sparse rows goes through tables of all features once: they have as many rows at least.
    most = max(BLOCK_CELLS // K, d) if isinstance(X, SparseRows) else BLOCK_CELLS // max(K, d)
    most = max(256, min(MAX_BLOCK_ROWS, most))
    count = -(-n // most)
    return [slice(n * i // count, n * (i + 1) // count) for i in range(count)]


def check_labels(labels: NDArray[Any] | None, K: int) -> None:
    """Refuse labels of components that there are not."""
    if labels is not None and labels.ndim == 1 and labels.max(initial=-1) >= K:
        raise ValueError(f"rows.labels hold {labels.max()}, but there are {K} components, from 0 to {K - 1}.")
    if labels is not None and labels.ndim > 1 and labels.shape[1] != K:
        raise ValueError(f"rows.labels have {labels.shape[1]} columns, but there are {K} components.")


class Block(NamedTuple):
    """Responsibilities (K, m) of one block of rows, times the row weights, and log-likelihoods (m,)."""

    rows: slice
    X: Any
    resp: Array
    row_loglik: Array
    loglik: float
    penalty: float


def expanded(given: NDArray[Any], K: int) -> Array:
    """Return responsibilities (K, m) from those given as (m, K) or as labels (m,), -1 for unknown."""
    if given.ndim == 2:
        return np.array(given.T, np.float64, order="C")
    resp: Array = np.equal.outer(np.arange(K), given).astype(np.float64)
    resp[:, given < 0] = 1.0 / K
    return resp
