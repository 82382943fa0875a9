"""Sums over the cells of rows of category codes equal slow references on awkward sizes and entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from lvm._jit import canonical
from lvm.kernels.cells import CodedRows, add_cells, add_weighted_cells

# Rows around strips of 256, components around groups of eight, numbers of categories per column.
SIZES = [(1, 1, [1]), (1, 9, [2, 1, 3]), (3, 2, [2]), (255, 7, [3, 2]), (256, 8, [4] * 20), (257, 9, [1, 1, 300])]
SIZES += [(513, 17, [2, 5, 3]), (40, 25, [2] * 70)]


def random_codes(rng: np.random.RandomState, n: int, n_categories: list[int]) -> NDArray[Any]:
    """Return codes (n, d), of which a fifth is missing."""
    codes = rng.randint(0, n_categories, (n, len(n_categories)))
    return canonical(np.where(rng.uniform(size=codes.shape) < 0.2, -1, codes), np.int32)


def layout(n_categories: list[int]) -> tuple[NDArray[Any], int]:
    """Return the slots of the columns' first categories, and the number of slots."""
    widths = np.array(n_categories) + 1
    return canonical(np.cumsum(widths) - widths + 1, np.int64), int(widths.sum())


def naive_sums(codes: NDArray[Any], slots: NDArray[Any], table: Any) -> Any:
    """Return the sums (K, n) of table (K, S) over the cells of each row, one cell at a time."""
    out = np.zeros((len(table), len(codes)))
    for (i, j), code in np.ndenumerate(codes):
        for k in range(len(table)):
            out[k, i] += table[k, slots[j] + code]
    return out


def naive_weighted(codes: NDArray[Any], slots: NDArray[Any], n_slots: int, resp: Any) -> Any:
    """Return the sums (K, S) of resp (K, n) over the rows of each slot, one cell at a time."""
    sums = np.zeros((len(resp), n_slots))
    for (i, j), code in np.ndenumerate(codes):
        for k in range(len(resp)):
            sums[k, slots[j] + code] += resp[k, i]
    return sums


@pytest.mark.parametrize(("n", "K", "n_categories"), SIZES)
def test_sums_over_cells(n: int, K: int, n_categories: list[int]) -> None:
    """With a base, and what stood in the output before; the slots of missing cells count like any other."""
    rng = np.random.RandomState(n)
    slots, n_slots = layout(n_categories)
    codes, table, base = random_codes(rng, n, n_categories), rng.normal(size=(K, n_slots)), rng.normal(size=K)
    out = np.full((K, n), 0.25)
    add_cells(codes, slots, table, base, out)
    # At most 70 additions of numbers near 1 in another order.
    assert_allclose(out, 0.25 + base[:, None] + naive_sums(codes, slots, table), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "K", "n_categories"), SIZES)
def test_weighted_cells(n: int, K: int, n_categories: list[int]) -> None:
    """Rows of weight 0 among them; the second time, sums are not 0."""
    rng = np.random.RandomState(n)
    slots, n_slots = layout(n_categories)
    codes = random_codes(rng, n, n_categories)
    resp = np.ascontiguousarray(rng.dirichlet(np.full(K, 0.5), n).T * rng.randint(0, 3, n))
    counts, sums = np.ones(K), np.zeros((K, n_slots))
    for _ in range(2):
        add_weighted_cells(codes, slots, resp, counts, sums)
    assert_allclose(counts, 1 + 2 * resp.sum(axis=1), rtol=1e-13)
    assert_allclose(sums, 2 * naive_weighted(codes, slots, n_slots, resp), rtol=1e-13)


def test_impossible_categories() -> None:
    """An entry of -inf, and several of them in one row, give -inf and leave other rows and components alone."""
    rng = np.random.RandomState(0)
    slots, n_slots = layout([2, 3, 2])
    codes, table = random_codes(rng, 300, [2, 3, 2]), rng.normal(size=(10, n_slots))
    table[1, [1, 4, 9]] = table[8, 1] = table[9, 2:] = -np.inf
    out = np.zeros((10, 300))
    add_cells(codes, slots, table, np.zeros(10), out)
    desired = naive_sums(codes, slots, table)
    assert np.isneginf(desired).any(axis=1).tolist() == [k in (1, 8, 9) for k in range(10)]
    assert_allclose(out, desired, rtol=1e-12, atol=1e-12)
    out[:] = -np.inf  # as where another block of columns has left a row impossible
    add_cells(codes, slots, table, np.zeros(10), out)
    assert np.isneginf(out).all()


def test_no_rows() -> None:
    slots, n_slots = layout([2, 3])
    counts, sums, out = np.zeros(3), np.zeros((3, n_slots)), np.empty((3, 0))
    codes = random_codes(np.random.RandomState(0), 0, [2, 3])
    add_cells(codes, slots, np.zeros((3, n_slots)), np.zeros(3), out)
    add_weighted_cells(codes, slots, out, counts, sums)
    assert not counts.any()
    assert not sums.any()


def test_rows_are_cut_and_picked() -> None:
    codes = random_codes(np.random.RandomState(2), 10, [3, 2])
    rows = CodedRows(codes)
    assert len(rows) == 10
    assert rows.shape == (10, 2)
    assert_array_equal(rows[2:5].codes, codes[2:5])
    assert np.shares_memory(rows[2:5].codes, codes)
    assert_array_equal(rows.take(np.array([7, 0, 7])).codes, codes[[7, 0, 7]])
