"""Products of dense and CSR rows with tables of the components equal numpy's on awkward sizes and infinite entries."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from lvm._jit import canonical
from lvm.families import Multinomial
from lvm.kernels.products import add_products, add_sparse_products, add_weighted_rows, add_weighted_sparse_rows

# Components and features around the unrolled steps of 4 and 2, the tiles of 64 features and the strips of 256 rows.
PRODUCTS = [(1, 1, 1), (3, 4, 2), (255, 5, 3), (256, 6, 63), (257, 7, 64), (513, 8, 65), (9, 9, 130), (17, 12, 7)]


@pytest.mark.parametrize(("n", "K", "d"), PRODUCTS)
@pytest.mark.parametrize("kind", ["uint8", "float64", "csr", "csr of ones"])
def test_products(kind: str, n: int, K: int, d: int) -> None:
    """Against numpy's products, with base, offset, and what stood in the output before."""
    rng = np.random.RandomState(n)
    X = rng.randint(0, 2 if kind in ("uint8", "csr of ones") else 5, (n, d)) * (rng.uniform(size=(n, d)) < 0.6)
    table, base, offset = rng.normal(size=(d, K)), rng.normal(size=K), rng.normal(size=n)
    resp, counts, sums = rng.dirichlet(np.full(K, 0.5), n).T.copy(), np.ones(K), np.ones((d, K))
    out = np.full((K, n), 0.25)
    if kind.startswith("csr"):
        rows = Multinomial().canonical(sparse.csr_matrix(X.astype(float)))
        entries = rows.indptr, rows.indices, rows.data if kind == "csr" else rows.data[:0]
        add_sparse_products(*entries, table, base, offset, out)
        add_weighted_sparse_rows(*entries, resp, counts, sums)
    else:
        rows = canonical(X, np.dtype(kind).type)
        add_products(rows, table, base, offset, out)
        add_weighted_rows(rows, resp, counts, sums)
    assert_allclose(out, 0.25 + base[:, None] + offset + (X @ table).T, rtol=1e-12, atol=1e-12)
    assert_allclose(counts, 1 + resp.sum(axis=1), rtol=1e-13)
    assert_allclose(sums, 1 + (resp @ X).T, rtol=1e-13)


@pytest.mark.parametrize("d", [3, 70])
def test_infinite_entries_of_a_table(d: int) -> None:
    """-inf forbids a feature and inf demands it, in every tile of features; other cells are not touched."""
    rng = np.random.RandomState(d)
    X = rng.randint(0, 2, (300, d))
    table = rng.normal(size=(d, 5))
    table[0, 1], table[d - 1, 1], table[d - 1, 4] = -np.inf, np.inf, -np.inf
    out = np.zeros((5, 300))
    add_products(canonical(X, np.uint8), table, np.zeros(5), np.zeros(300), out)
    desired = (X @ np.where(np.isinf(table), 0.0, table)).T
    desired[1, (X[:, 0] > 0) | (X[:, -1] == 0)] = -np.inf
    desired[4, X[:, -1] > 0] = -np.inf
    assert_allclose(out, desired, rtol=1e-12, atol=1e-12)
