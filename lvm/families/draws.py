"""Draws of missing cells: the component of each row, and cells that are independent given it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array


def draw_components(resp: Array, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Return a component for each row, shape (n,), drawn by its responsibilities (K, n)."""
    bounds = np.cumsum(resp, axis=0)
    return np.asarray(np.sum(bounds <= rng.random_sample(resp.shape[1]) * bounds[-1], axis=0))


def certain(components: NDArray[np.int64], n_components: int) -> Array:
    """Return the responsibilities (K, n) of rows whose components (n,) are known."""
    return np.equal.outer(np.arange(n_components), components).astype(np.float64)


def draw_cells(
    family: Any, missing: NDArray[np.bool_], resp: Array, params: Any, rng: np.random.RandomState, out: Array
) -> None:
    """Write draws of the missing cells (n, d) to out (n, d), for features that are independent given the component."""
    incomplete = np.flatnonzero(missing.any(axis=1))
    drawn = draw_components(np.ascontiguousarray(resp[:, incomplete]), rng)
    for k in range(len(resp)):
        rows = incomplete[drawn == k]
        out[rows] = np.where(missing[rows], family.sample(params, k, len(rows), rng), out[rows])
