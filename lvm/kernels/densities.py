"""Gaussian log densities of all rows under all components, whatever the covariance structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, choose_by_type, helper, part_of_kernel
from lvm.kernels.scaling import Scaled, add_scaled_density, add_scaled_rows
from lvm.kernels.strips import STRIP, Scratch, gather_strip, load_strip, zero_strip
from lvm.kernels.whitening import Whitened, add_whitened_density


def add_log_density(
    strip: Array, m: int, components: Whitened | Scaled, k: int, depth: int, scratch: Scratch, row: Array
) -> None:
    """Add the log densities of m points in strip (e, WIDTH) under component k to row (m,); for kernels.

    A depth below e, a multiple of 4, leaves out the whitened coordinates from there on: an upper bound.
    """
    raise NotImplementedError


def add_densities_of_rows(
    X: Array,
    rows: NDArray[np.int64],
    components: Whitened | Scaled,
    k: int,
    strip: Array,
    scratch: Scratch,
    values: Array,
) -> None:
    """Add the log densities of some rows (m,) of X, at most STRIP, under component k to values (m,); for kernels."""
    raise NotImplementedError


def _add_gathered_rows(
    X: Array,
    rows: NDArray[np.int64],
    components: Whitened,
    k: int,
    strip: Array,
    scratch: Scratch,
    values: Array,
) -> None:
    gather_strip(X, rows, strip)
    add_log_density(strip, len(rows), components, k, components.offsets.shape[1], scratch, values)


choose_by_type(add_log_density, "components", {Whitened: add_whitened_density, Scaled: add_scaled_density})
choose_by_type(add_densities_of_rows, "components", {Whitened: _add_gathered_rows, Scaled: add_scaled_rows})


@helper
def density_scratch(X: Any, e: int) -> Scratch:
    """Return room for `add_log_density`, in the dtype of X."""
    room = zero_strip(e + 5, X)
    return Scratch(room[:e], room[e : e + 4], room[e + 4])


@part_of_kernel
def add_log_densities(X: Array, components: Whitened | Scaled, out: Array) -> None:
    """Add the log densities of X (n, d) to out (K, n)."""
    n, e = X.shape[0], components.offsets.shape[1]
    strip, scratch = zero_strip(e, X), density_scratch(X, e)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(out.shape[0]):
            add_log_density(strip, m, components, k, e, scratch, out[k, start : start + m])
