"""Products of rows of all kinds with tables of the components equal slow references on awkward sizes and entries."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference import linear
from scipy import sparse

from lvm._jit import canonical
from lvm.families import Multinomial
from lvm.kernels.bits import add_bits, add_weighted_bits
from lvm.kernels.groups import add_group, load_group, zero_groups
from lvm.kernels.products import add_products, add_weighted_rows
from lvm.kernels.sparse_products import add_sparse_products, add_weighted_sparse_rows
from lvm.kernels.strips import LINE, WIDTH

# Components around groups of eight and pairs of groups; features and rows around the unrolled steps of eight, the tiles
# of 64 features and the strips of 256 rows.
PRODUCTS = [(1, 1, 1), (1, 17, 9), (3, 4, 2), (255, 5, 3), (256, 6, 7), (257, 7, 8), (264, 8, 9), (9, 9, 130)]
PRODUCTS += [(7, 16, 63), (8, 17, 64), (9, 24, 65), (17, 25, 7), (513, 3, 16)]
KINDS = ["dense", "csr", "csr of ones"]


def random_rows(rng: np.random.RandomState, kind: str, n: int, d: int) -> NDArray[Any]:
    """Return counts, or zeros and ones, among them a row of zeros where there are several."""
    X = rng.randint(0, 2 if kind == "csr of ones" else 5, (n, d)) * (rng.uniform(size=(n, d)) < 0.6)
    X[1 : n // 2 : 3] = 0
    return X


def products(kind: str, X: NDArray[Any], table: Any, base: Any, offset: Any, out: Any) -> None:
    """Add the products of X as `kind` with a table (d, K) to out."""
    table = np.ascontiguousarray(table.T)
    if kind.startswith("csr"):
        rows = Multinomial().canonical(sparse.csr_matrix(X.astype(float)))
        data = rows.data if kind == "csr" else canonical(np.empty(0))
        add_sparse_products(rows.indptr, rows.indices, data, table, base, canonical(offset), out)
    else:
        add_products(canonical(X), table, base, canonical(offset), out)


def weighted_sums(kind: str, X: NDArray[Any], resp: Any, counts: Any, sums: Any) -> None:
    """Add the weighted rows of X as `kind` to counts (K,) and sums (K, d)."""
    if kind.startswith("csr"):
        rows = Multinomial().canonical(sparse.csr_matrix(X.astype(float)))
        data = rows.data if kind == "csr" else canonical(np.empty(0))
        add_weighted_sparse_rows(rows.indptr, rows.indices, data, resp, counts, sums)
    else:
        add_weighted_rows(canonical(X), resp, counts, sums)


@pytest.mark.parametrize(("n", "K", "d"), PRODUCTS)
@pytest.mark.parametrize("kind", KINDS)
def test_products(kind: str, n: int, K: int, d: int) -> None:
    """With base, offset, and what stood in the output before."""
    rng = np.random.RandomState(n)
    X = random_rows(rng, kind, n, d)
    table, base, offset = rng.normal(size=(d, K)), rng.normal(size=K), rng.normal(size=n)
    out = np.full((K, n), 0.25)
    products(kind, X, table, base, offset, out)
    assert_allclose(out, 0.25 + linear.products(X, table, base, offset), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize(("n", "K", "d"), PRODUCTS)
@pytest.mark.parametrize("kind", KINDS)
def test_weighted_sums(kind: str, n: int, K: int, d: int, certain: bool) -> None:
    """Rows of weight 0 and zero responsibilities; where rows are certain, most groups of components have none."""
    rng = np.random.RandomState(n)
    X = random_rows(rng, kind, n, d)
    resp = rng.dirichlet(np.full(K, 0.5), n).T * rng.randint(0, 3, n)
    resp = np.where(np.arange(K)[:, None] == rng.randint(0, K, n), resp, 0.0) if certain else resp
    counts, sums = np.ones(K), np.zeros((K, d))
    for _ in range(2):  # the second time, sums are not 0
        weighted_sums(kind, X, np.ascontiguousarray(resp), counts, sums)
    desired_counts, desired = linear.weighted_sums(X, 2 * resp)
    assert_allclose(counts, 1 + desired_counts, rtol=1e-13)
    assert_allclose(sums, desired.T, rtol=1e-13)


@pytest.mark.parametrize(("n", "K", "d"), [(300, 5, 3), (261, 10, 70), (1, 9, 65)])
def test_infinite_entries_of_a_table(n: int, K: int, d: int) -> None:
    """-inf forbids a feature, in every tile of features; other cells are not touched."""
    rng = np.random.RandomState(d)
    X = rng.randint(0, 2, (n, d))
    table, base, offset = rng.normal(size=(d, K)), rng.normal(size=K), rng.normal(size=n)
    table[0, 1] = table[d - 1, 1] = table[d - 1, 4] = table[d // 2, K - 1] = -np.inf
    out = np.zeros((K, n))
    products("dense", X, table, base, offset, out)
    desired = linear.products(X, table, base, offset)
    assert n == 1 or {-np.inf} < set(desired[1])
    assert_allclose(out, desired, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["csr", "csr of ones"])
def test_impossible_entries_of_a_sparse_table(kind: str) -> None:
    rng = np.random.RandomState(0)
    X = random_rows(rng, kind, 300, 6)
    table, base, offset = rng.normal(size=(6, 10)), np.zeros(10), np.zeros(300)
    table[2, 3] = table[5, 9] = -np.inf
    out = np.zeros((10, 300))
    products(kind, X, table, base, offset, out)
    assert_allclose(out, linear.products(X, table, base, offset), rtol=1e-12, atol=1e-12)


BITS = [
    (1, 1, 1),
    (3, 2, 4),
    (255, 7, 7),
    (256, 8, 8),
    (257, 9, 9),
    (30, 3, 15),
    (5, 17, 127),
    (9, 8, 128),
    (7, 4, 129),
]
BITS += [(513, 3, 16), (6, 9, 300)]


@pytest.mark.parametrize(("n", "K", "d"), BITS)
def test_patterns_of_bits(n: int, K: int, d: int) -> None:
    """Added to what stood in the output before; probabilities of 0 and 1 forbid rows, and nothing else."""
    rng = np.random.RandomState(n)
    X = canonical(rng.randint(0, 2, (n, d)), np.uint8)
    probability = rng.uniform(size=(d, K))
    probability[rng.uniform(size=(d, K)) < 0.3 / d] = 0.0
    probability[rng.uniform(size=(d, K)) < 0.3 / d] = 1.0
    with np.errstate(divide="ignore"):
        log_zero, log_one = np.log1p(-probability), np.log(probability)
    out = np.full((K, n), 0.25)
    add_bits(X, *(np.ascontiguousarray(each.T) for each in (log_zero, log_one)), out)
    desired = 0.25 + linear.sums_of_patterns(X, log_zero, log_one)
    assert n * K < 100 or 0 < np.isneginf(desired).mean() < 0.9
    assert_allclose(out, desired, rtol=1e-13)


@pytest.mark.parametrize(("n", "K", "d"), BITS)
def test_weighted_patterns_of_bits(n: int, K: int, d: int) -> None:
    rng = np.random.RandomState(n)
    X = canonical(rng.randint(0, 2, (n, d)), np.uint8)
    resp = np.ascontiguousarray(rng.dirichlet(np.full(K, 0.5), n).T * rng.randint(0, 3, n))
    counts, sums = np.ones(K), np.zeros((K, d))
    for _ in range(2):
        add_weighted_bits(X, resp, counts, sums)
    desired_counts, desired = linear.weighted_sums(X, 2 * resp)
    assert_allclose(counts, 1 + desired_counts, rtol=1e-13)
    assert_allclose(sums, desired.T, rtol=1e-13)


def test_bits_at_the_end_of_memory() -> None:
    """Eight bytes at a time are read of each row, and none beyond the last."""
    page = mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, page), np.uint8)
    X = memory[page - 9 * 21 :].reshape(21, 9)
    out = np.zeros((1, 21))
    add_bits(canonical(X, np.uint8), np.full((1, 9), -1.0), np.zeros((1, 9)), out)
    assert_array_equal(out, -9.0)


@pytest.mark.parametrize(("K", "d"), [(1, 1), (7, 3), (8, 1), (9, 5), (17, 2)])
def test_groups(K: int, d: int) -> None:
    """Tables come back as they went in, and lanes are aligned with cache lines."""
    table = np.arange(1.0, 1.0 + K * d).reshape(K, d)
    groups, sums, rows = zero_groups(-(-K // 8), d), np.ones((K, d)), np.empty((8, WIDTH))
    for g, group in enumerate(groups):
        load_group(table, g, np.uint64(0), d, group)
        add_group(group, g, rows, sums)
    assert_array_equal(groups, linear.in_groups(table.T))
    assert_array_equal(sums, 1 + table)
    assert groups.ctypes.data % LINE == 0
