"""Panels hold rows transposed, and scratch lies where it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from lvm._jit import bare_kernel
from lvm.kernels.panels import (
    LINE,
    PAGE,
    POINTS,
    STRIP_BYTES,
    as_panels,
    carved,
    kept_by_thread,
    load_rows,
    padded,
    panel_width,
    panels_size,
    strip_length,
)

both_dtypes = pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(np.float32)], ids=str)


@bare_kernel
def _load(X: Any, rows: Any, panels: Any) -> Any:
    return load_rows(X, rows, np.uint64(len(rows)), panels)


@both_dtypes
@pytest.mark.parametrize("d", range(1, 10))
@pytest.mark.parametrize("m", [1, 3, 7, 8, 9, 31, 32, 33, 128])
def test_rows_are_transposed(m: int, d: int, dtype: Any) -> None:
    """In any order; features are padded with zeros, and rows with the last one."""
    width, e = panel_width(dtype), padded(d)
    X = np.random.default_rng(0).normal(size=(200, d)).astype(dtype)
    rows = np.random.default_rng(m).integers(200, size=m).astype(np.uint64)
    panels = as_panels(np.zeros(panels_size(-(-m // width) * width, e, dtype), dtype), e)
    n_panels = _load(X, rows, panels)
    assert n_panels == -(-m // width)
    for q in range(n_panels):
        panel = panels.values[q * int(panels.stride) :][: e * width].reshape(e, width)
        places = np.minimum(np.arange(q * width, (q + 1) * width), m - 1)
        assert_array_equal(panel[:d], X[rows[places]].T)
        assert_array_equal(panel[d:], 0.0)


@both_dtypes
def test_strips_are_whole_panels_that_fit(dtype: Any) -> None:
    width = panel_width(dtype)
    for n, n_values in [(1, 1), (7, 3), (1000, 8), (10**6, 64), (10**6, 10**3), (10**6, 10**6)]:
        m = strip_length(n, n_values, dtype)
        assert m % width == 0
        assert width <= m <= max(POINTS, width)
        assert m == width or m * n_values * dtype.itemsize <= STRIP_BYTES
        assert m < n + width


def test_carved_arrays_start_at_lines_of_a_page() -> None:
    arrays = carved((np.float64, {"a": 3, "b": (2, 5)}), (np.float32, {"c": (0, 4)}), (np.uint64, {"d": 1}))
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "a": ((3,), "float64"),
        "b": ((2, 5), "float64"),
        "c": ((0, 4), "float32"),
        "d": ((1,), "uint64"),
    }
    places = [array.ctypes.data for name, array in arrays.items() if name != "c"]
    assert places[0] % PAGE == 0
    assert [place - places[0] for place in places] == [0, LINE, 3 * LINE]
    for array in arrays.values():
        assert_array_equal(array, 0)
        array[...] = 1
    assert_array_equal(arrays["a"], 1.0)


def test_what_was_made_last_is_kept() -> None:
    made = []

    @kept_by_thread
    def make(*arguments: int) -> list[int]:
        made.append(arguments)
        return list(arguments)

    assert make(1, 2) is make(1, 2)
    assert make(2, 2) == [2, 2]
    assert make(1, 2) == [1, 2]
    assert made == [(1, 2), (2, 2), (1, 2)]
