"""Panels: as many rows as fill two vectors, transposed, so that the values of a feature lie side by side.

A strip is a hundred rows or so, as panels one after the other. Whatever is done to one panel stays in the L1 cache, and
sums over the rows of a strip stay in registers. Features are padded with zeros to a multiple of 4, and rows, beyond the
last one, by repeating it: whoever sums over rows gives those the weight 0.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, bare_helper, part_of_kernel
from lvm._vectors import FOUR, ONE, REGISTER, THREE, TWO, ZERO, load_one, prefetch, transpose_four

Made = TypeVar("Made")

POINTS = 128  # rows of a strip, fewer where they are wide: what belongs to a strip fits the L2 cache
STRIP_BYTES = 1 << 17
# Cache lines between panels: else rows of panels at distances of 4 kB would share a few sets of the L1 cache.
LINE = 64
PADDING = 3 * LINE
PAGE = 4096


class Panels(NamedTuple):
    """Rows of a strip; `values` is flat, panel q starts at q * stride and has `width` values of each feature."""

    values: Array
    stride: Any
    width: Any


class _Kept(threading.local):
    def __init__(self) -> None:
        self.made: dict[Any, tuple[Any, Any]] = {}


_kept = _Kept()


def _same(one: Any, other: Any) -> bool:
    """Return whether two arguments are; of arrays, and of tuples of them, only one and the same."""
    return one is other or (not isinstance(one, tuple | np.ndarray) and bool(one == other))


def kept_by_thread(make: Callable[..., Made]) -> Callable[..., Made]:
    """Return what `make` returned for the same arguments the last time, to this thread: scratch is not made anew."""

    @wraps(make)
    def keep(*arguments: Any) -> Made:
        last, made = _kept.made.get(make, (None, None))
        if last is None or not all(map(_same, last, arguments)):
            made = make(*arguments)
            _kept.made[make] = (arguments, made)
        return cast(Made, made)

    return keep


def padded(n_features: int) -> int:
    """Return the number of features of a panel."""
    return (n_features + 3) // 4 * 4


def panel_width(dtype: np.dtype[Any]) -> int:
    """Return the number of rows of a panel."""
    return 2 * REGISTER // dtype.itemsize


def strip_length(n: int, n_values: int, dtype: np.dtype[Any]) -> int:
    """Return the number of rows in a strip, for n rows of so many values each: a number of whole panels."""
    width = panel_width(dtype)
    m = max(POINTS, width)
    while m > width and m * n_values * dtype.itemsize > STRIP_BYTES:
        m //= 2
    return min(m, -(-n // width) * width)


def carved(*kinds: tuple[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """Return arrays of zeros, by name, from dtypes and the shapes of arrays of each, side by side in memory.

    The first starts at that of a page and each at that of a cache line: else loads of whole vectors would touch two of
    them; and a load waits for a store whose address has the same last 12 bits, which is not to be left to chance.
    """
    fields = [(name, np.dtype(dtype), shape) for dtype, shapes in kinds for name, shape in shapes.items()]
    sizes = [int(np.prod(shape)) * dtype.itemsize for _, dtype, shape in fields]
    starts = np.cumsum([0, *(-(-size // LINE) * LINE for size in sizes)])
    memory = np.zeros(starts[-1] + PAGE, np.uint8)
    first = -memory.ctypes.data % PAGE
    return {
        name: np.ndarray(shape, dtype, memory[first + start : first + start + size])
        for (name, dtype, shape), start, size in zip(fields, starts, sizes, strict=False)
    }


def panels_size(m: int, n_features: int, dtype: np.dtype[Any]) -> int:
    """Return the number of values of panels for m rows."""
    width = panel_width(dtype)
    return m // width * (n_features * width + PADDING // dtype.itemsize)


def as_panels(values: Array, n_features: int) -> Panels:
    """Return panels whose values these are, flat."""
    width = panel_width(values.dtype)
    stride = n_features * width + PADDING // values.dtype.itemsize
    return Panels(values, np.uint64(stride), np.uint64(width))


@part_of_kernel
def prefetch_rows(X: Any, start: Any, m: Any) -> None:
    """Ask for m rows of X (n, d) from start on, as far as there are: while others are worked on, memory is idle."""
    d = np.uint64(X.shape[1])
    end = np.uint64(X.shape[0]) * d
    for at in range(min(start * d, end), min((start + m) * d, end), LINE // X.itemsize):
        prefetch(X, at)


@bare_helper
def load_rows(X: Any, rows: NDArray[np.uint64], m: Any, panels: Panels) -> Any:
    """Copy m rows of X (n, d), at the positions `rows`, to panels; return the number of panels."""
    d, last, width = np.uint64(X.shape[1]), m - ONE, panels.width
    n_panels, whole = last // width + ONE, d - d % FOUR
    for panel in range(n_panels):
        for first in range(panel * width, panel * width + width, FOUR):
            p, q = rows[min(first, last)] * d, rows[min(first + ONE, last)] * d
            r, s = rows[min(first + TWO, last)] * d, rows[min(first + THREE, last)] * d
            at = first + panel * (panels.stride - width)
            for i in range(ZERO, whole, FOUR):
                transpose_four(X, (p + i, q + i, r + i, s + i), panels.values, at + i * width, width)
            for i in range(whole, d):
                to = at + i * width
                panels.values[to], panels.values[to + ONE] = load_one(X, p + i), load_one(X, q + i)
                panels.values[to + TWO], panels.values[to + THREE] = load_one(X, r + i), load_one(X, s + i)
    return n_panels
