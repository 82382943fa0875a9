"""Kernels see through a handle what it holds: the same memory, the same numbers."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from numba import njit

from lvm._handles import Handle, HandleType, values_of


class Inner(NamedTuple):
    count: Any
    matrix: Any


class Outer(NamedTuple):
    row: Any
    inner: Inner
    step: int


def outer(dtype: Any = np.float64) -> Outer:
    return Outer(
        np.arange(5, dtype=dtype),
        Inner(np.uint64(2**63 + 1), np.arange(12.0).reshape(3, 4)[:, ::2]),
        -3,
    )


@njit
def read(handle: Any) -> Any:
    row, inner, step = values_of(handle)
    return row[4], inner.count, inner.matrix[2, 1], inner.matrix.shape, len(row), step


@njit
def write(handle: Any) -> None:
    values = values_of(handle)
    values.row[1] = 7
    values.inner.matrix[1, 1] = -1.0


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint64])
def test_kernels_read_what_a_handle_holds(dtype: Any) -> None:
    """Of strided arrays too; unsigned numbers keep all their bits."""
    assert read(Handle(outer(dtype))) == (4, 2**63 + 1, 10.0, (3, 2), 5, -3)


def test_kernels_write_to_the_same_memory() -> None:
    values = outer()
    write(Handle(values))
    assert values.row[1] == 7
    assert values.inner.matrix[1, 1] == -1.0


def test_a_handle_keeps_its_arrays() -> None:
    handle = Handle(outer())
    _ = [np.full(5, 9.0) for _ in range(1000)]  # would take the memory of arrays that nobody holds
    assert read(handle)[0] == 4


def test_types_of_handles_are_those_of_their_values() -> None:
    """Kernels are found on disk by them."""
    one, two, other = (Handle(outer(dtype))._numba_type_ for dtype in (np.float64, np.float64, np.float32))
    assert one == two != other
    assert pickle.loads(pickle.dumps(one)) == one
    assert isinstance(one, HandleType)
