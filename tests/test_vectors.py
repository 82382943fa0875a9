"""Vectors and tiles in kernels: each operation is numpy's, entry by entry, in both precisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from lvm._jit import bare_kernel
from lvm._masks import all_above, any_above, append_above, count_above
from lvm._tiles import (
    COLUMNS,
    ROWS,
    Memory,
    Position,
    add_row_totals,
    add_totals,
    fill_rows,
    on_tile,
    store_tile,
    zero_tile,
)
from lvm._vectors import (
    ONE,
    REGISTER,
    TWO,
    ZERO,
    gather,
    lanes,
    larger,
    load,
    load_eight,
    load_one,
    prefetch,
    spread,
    square_root,
    store,
    sum_entries,
    transpose_four,
    where_above,
    zero_eight,
)

both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def n_lanes(dtype: Any) -> int:
    return REGISTER // np.dtype(dtype).itemsize


@bare_kernel
def _calculate(a: Any, b: Any, out: Any) -> None:
    x, y, step = load(a, ZERO), load(b, ZERO), lanes(a)
    store(x + y, out, ZERO)
    store(x - y * 2.0, out, step)
    store(3 * x / y, out, step + step)
    store(larger(x, y), out, step + step + step)
    store(where_above(x, 0.25, y, -1.0), out, 4 * step)
    store(square_root(y), out, 5 * step)
    store(spread(7, a) - load_one(b, ONE), out, 6 * step)


@both_dtypes
def test_arithmetic(dtype: Any) -> None:
    n = n_lanes(dtype)
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, n).astype(dtype), rng.uniform(0.1, 1, n).astype(dtype)
    out = np.empty((7, n), dtype)
    _calculate(a, b, out)
    desired = [a + b, a - 2 * b, 3 * a / b, np.maximum(a, b), np.where(a > 0.25, b, -1), np.sqrt(b), 7 - b[1] + 0 * a]
    assert_allclose(out, desired, rtol=4 * np.finfo(dtype).eps)


@bare_kernel
def _ask(a: Any, limit: float, out: Any) -> None:
    x = load(a, ZERO)
    out[0] = 1.0 if any_above(x, limit) else 0.0
    out[1] = count_above(x, limit)
    out[2] = 1.0 if all_above(x, limit) else 0.0
    out[3] = sum_entries(x)


@both_dtypes
@pytest.mark.parametrize("limit", [-1.0, 0.0, 0.5, 2.0])
def test_questions(dtype: Any, limit: float) -> None:
    a, out = np.random.default_rng(1).uniform(-1, 1, n_lanes(dtype)).astype(dtype), np.empty(4)
    _ask(a, limit, out)
    assert_array_equal(out[:3], [np.any(a > limit), np.sum(a > limit), np.all(a > limit)])
    assert out[3] == pytest.approx(a.astype(float).sum(), rel=1e-15)  # in float64


@both_dtypes
def test_nan_is_above_for_whoever_asks_whether_any_is(dtype: Any) -> None:
    """What a bound says nothing of is looked at; but it counts for nothing."""
    a, out = np.full(n_lanes(dtype), -5.0, dtype), np.empty(4)
    a[1] = np.nan
    _ask(a, 0.0, out)
    assert_array_equal(out[:3], [1, 0, 0])
    _ask(-a, 0.0, out)
    assert_array_equal(out[:3], [1, len(a) - 1, 0])


@bare_kernel
def _list(a: Any, limit: float, places: Any) -> int:
    n = append_above(load(a, ZERO), limit, np.uint64(70), places, ONE)
    n += append_above(load(a, ZERO), limit, np.uint64(90), places, ONE + n)
    return int(n)


@both_dtypes
def test_lists_of_entries(dtype: Any) -> None:
    """In order, one list behind the other, for every pattern of entries."""
    n = n_lanes(dtype)
    for pattern in range(2**n):
        a = np.array([pattern >> place & 1 for place in range(n)], dtype)
        places = np.zeros(3 * n + 1, np.uint64)
        above = np.flatnonzero(a)
        assert _list(a, 0.5, places) == 2 * len(above)
        assert_array_equal(places[1 : 1 + 2 * len(above)], [*70 + above, *90 + above])
        assert places[0] == 0


@bare_kernel
def _gather(a: Any, places: Any, out: Any, width: Any, factor: Any, offset: Any) -> None:
    prefetch(a, ONE)
    store(gather(a, places, TWO, width, factor, offset), out, ZERO)


@both_dtypes
def test_gathered_entries(dtype: Any) -> None:
    n, rng = n_lanes(dtype), np.random.default_rng(2)
    a, places, out = (
        rng.normal(size=300).astype(dtype),
        rng.integers(0, 64, n + 2).astype(np.uint64),
        np.empty(n, dtype),
    )
    _gather(a, places, out, np.uint64(8), np.uint64(4), np.uint64(16))
    used = places[2:]
    assert_array_equal(out, a[used // 8 * 32 + used % 8 + 16])


@bare_kernel
def _eights(a: Any, out: Any) -> None:
    store(zero_eight() + load_eight(a, ONE) * 2.0, out, ZERO)


def test_eight_numbers_whatever_a_register_holds() -> None:
    a, out = np.arange(9.0), np.empty(8)
    _eights(a, out)
    assert_array_equal(out, 2 * a[1:])


@bare_kernel
def _transpose(X: Any, rows: Any, out: Any) -> None:
    transpose_four(X, (rows[0], rows[1], rows[2], rows[3]), out, ONE, np.uint64(5))


@both_dtypes
def test_transposed_rows(dtype: Any) -> None:
    X, out = np.arange(60, dtype=dtype).reshape(10, 6), np.zeros(30, dtype)
    _transpose(X, np.array([3 * 6, 0, 9 * 6, 6 + 1], np.uint64), out)
    for j in range(4):
        assert_array_equal(out[1 + 5 * j : 5 + 5 * j], [X[3, j], X[0, j], X[9, j], X[1, 1 + j]])


@on_tile
def _add_products(tile: Any, a: Memory, at: Position) -> None:
    for row in range(ROWS):
        for column in range(COLUMNS):
            tile[row][column] += a.load(at + row * a.lanes) * a.load(at + column * a.lanes) * 0.5


@bare_kernel
def _tile(a: Any, numbers: Any, out: Any, sums: Any) -> None:
    tile = _add_products(zero_tile(a), a, ZERO)
    store_tile(tile, out, ZERO)
    add_totals(tile, sums, ZERO)
    add_row_totals(tile, sums, np.uint64(8))
    store_tile(fill_rows(tile, numbers, ONE), out, np.uint64(8) * lanes(a))


@both_dtypes
def test_tiles(dtype: Any) -> None:
    n = n_lanes(dtype)
    a = np.random.default_rng(0).normal(size=(ROWS, n)).astype(dtype)
    numbers = np.arange(5, dtype=dtype)
    out, sums = np.empty((16, n), dtype), np.ones(12)
    _tile(a, numbers, out, sums)
    desired = 0.5 * a[:, None] * a[None, :COLUMNS]
    eps = 8 * np.finfo(dtype).eps
    assert_allclose(out[:8].reshape(desired.shape), desired, rtol=eps)
    assert_allclose(sums[:8].reshape(COLUMNS, ROWS) - 1, desired.sum(axis=2).T, rtol=eps, atol=eps)
    assert_allclose(sums[8:] - 1, desired.sum(axis=(1, 2)), rtol=eps, atol=eps)
    rows: NDArray[Any] = np.repeat(numbers[1:], COLUMNS)
    assert_array_equal(out[8:], np.repeat(rows[:, None], n, axis=1))
