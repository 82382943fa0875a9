"""The parts of the Gaussian kernels, one by one, equal their slow references on awkward inputs.

Sums of n terms in another order differ by a few eps of the sum of the sizes of their terms; in float32 strips of 256
rows are summed with its eps, which is what the tolerances are in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference import slow

from lvm._jit import kernel
from lvm.families import DiagGaussian, TiedGaussian
from lvm.families import gaussian_tied as tied
from lvm.families.gaussian_full import add_moments
from lvm.kernels.moments import add_products, add_strip_moments, move_moments
from lvm.kernels.scaling import VERY_WIDE, WIDE
from lvm.kernels.strips import zero_strip
from lvm.protocol import DegenerateError

Array = NDArray[np.float64]

both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
POINTS = (1, 3, 7, 255, 256)  # of one strip
FEATURES = range(1, 10)  # two steps of four, and what is left of one


def eps(dtype: Any) -> float:
    return float(np.finfo(dtype).eps)


def strip_of(X: Any) -> Any:
    """Return rows X (n, d) as a strip, its unused columns NaN: whoever reads them shows it."""
    strip = zero_strip(X.shape[1], X)
    strip[:] = np.nan
    strip[:, : len(X)] = X.T
    return strip


# ----- moments of a strip -------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("scale", [1.0, 1e-15, 1e15])
@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("m", POINTS)
def test_strip_moments(m: int, d: int, scale: float, dtype: Any) -> None:
    """Added to what is there, with responsibilities of 0."""
    rng = np.random.RandomState(m + d)
    X, mean = (scale * (rng.normal(size=shape) + 3).astype(dtype) for shape in ((m, d), d))
    X, mean = X.astype(dtype), mean.astype(dtype)
    r = (rng.uniform(size=m) * rng.randint(0, 2, m)).astype(dtype)
    first, second = np.full(d, scale), np.full((d, d), scale**2)
    centred = (zero_strip(d, X), zero_strip(d, X))
    add_strip_moments(strip_of(X), m, r, mean, centred, first, second)
    _, one, two = slow.moments(X.astype(float), r[None].astype(float), mean[None].astype(float))
    tolerance = 8 * eps(dtype) * 30 * (1 + r.sum())  # squares of at most 30 or so
    assert_allclose(first / scale - 1, one[0] / scale, atol=tolerance)
    lower = np.tril_indices(d)
    assert_allclose(second[lower] / scale**2 - 1, two[0][lower] / scale**2, atol=tolerance)


@both_dtypes
@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("m", POINTS)
def test_products(m: int, d: int, dtype: Any) -> None:
    rng = np.random.RandomState(m + d)
    left, right = (rng.normal(size=(m, d)).astype(dtype) for _ in range(2))
    products = np.ones((d, d))
    add_products(strip_of(left), strip_of(right), m, products)
    lower = np.tril_indices(d)
    desired = left.T.astype(float) @ right.astype(float)
    assert_allclose(products[lower] - 1, desired[lower], atol=8 * eps(dtype) * (1 + m))


@pytest.mark.parametrize("d", FEATURES)
def test_moved_moments(d: int) -> None:
    """From a mean that float32 has rounded to the mean itself."""
    rng = np.random.RandomState(d)
    X, r, mean = rng.normal(size=(50, d)) + 1000, rng.uniform(size=(1, 50)), rng.normal(size=(1, d)) + 1000
    near = mean.astype(np.float32)
    assert np.any(near != mean)
    count, first, second = slow.moments(X, r, near.astype(float))
    move_moments(mean[0], near[0], count[0], first[0], second[0])
    _, one, two = slow.moments(X, r, mean)
    assert_allclose(first, one, atol=1e-12)
    lower = np.tril_indices(d)
    assert_allclose(second[0][lower], two[0][lower], atol=1e-12)


# ----- axis-aligned: density ----------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("d", [WIDE - 1, WIDE, WIDE + 1, 130])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 255, 257, 518])
def test_density_of_wide_rows(n: int, d: int, dtype: Any) -> None:
    """Four rows at a time, in strips of 256: what is left of either; added to what is there."""
    rng = np.random.RandomState(n + d)
    family = DiagGaussian(dtype=dtype)
    params = family.params(3 * rng.normal(size=(3, d)), rng.uniform(0.5, 2, (3, d)))
    X = family.canonical(params.means[rng.randint(0, 3, n)] + rng.normal(size=(n, d)))
    out = np.ones((3, n))
    family.log_density(X, params, out)
    desired = slow.gaussian_log_density(
        X.astype(float), params.means, np.array([np.diag(each) for each in params.covariances])
    )
    assert_allclose(out - 1, desired.reshape(out.shape), rtol=8 * eps(dtype) * np.sqrt(d))


@both_dtypes
@pytest.mark.parametrize("d", [VERY_WIDE - 1, VERY_WIDE, VERY_WIDE + 3])
@pytest.mark.parametrize("n", [1, 7, 8, 255, 257, 523])
def test_sums_of_wide_rows(n: int, d: int, dtype: Any) -> None:
    """Eight rows at a time, in strips of 256: what is left of either; with components that no row belongs to."""
    rng = np.random.RandomState(n + d)
    family = DiagGaussian(dtype=dtype)
    params = family.params(rng.normal(size=(4, d)), np.ones((4, d)))
    X = family.canonical(rng.normal(size=(n, d)))
    resp = rng.uniform(size=(4, n)) * rng.randint(0, 2, (4, n)) * np.array([[1.0], [0.0], [1.0], [1.0]])
    stats = family.zero_stats(params)
    family.accumulate(X, resp, params, stats)
    count, first, second = slow.moments(X.astype(float), resp, params.means)
    tolerance = 8 * eps(dtype) * 30 * (1 + n)  # squares of at most 30 or so
    assert_allclose(stats.counts, count, rtol=256 * eps(dtype))
    assert_allclose(stats.first, first, atol=tolerance)
    assert_allclose(stats.second, np.diagonal(second, axis1=1, axis2=2), atol=tolerance)


# ----- tied: density ------------------------------------------------------------------------------------------


def tied_params(rng: np.random.RandomState, K: int, d: int, apart: float) -> Any:
    """Return means that many standard deviations apart, and a covariance of condition 1e2 at most."""
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    covariance = basis @ np.diag(np.linspace(1, 100, d)) @ basis.T
    return TiedGaussian().params(apart * 10 * rng.normal(size=(K, d)), (covariance + covariance.T)[None] / 2)


def points_near(rng: np.random.RandomState, params: Any, n: int) -> Array:
    means = params.means[rng.randint(0, len(params.means), n)]
    return np.asarray(means + 10 * rng.normal(size=means.shape))


def whitened_tolerance(z: Array, dtype: Any) -> Array:
    """Return how good -|z|**2 / 2 is where z (..., d) keeps three quarters of the digits, and its square all."""
    d, size = z.shape[-1], np.sqrt((z**2).sum(axis=-1))
    return np.asarray(np.sqrt(d) * (eps(dtype) ** 0.75 * (size + 1e-3) + 16 * eps(dtype) * (1 + size**2)))


@both_dtypes
@pytest.mark.parametrize("apart", [0.0, 1.0, 30.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize(("n", "K", "d"), [(1, 1, 1), (255, 3, 2), (256, 5, 3), (257, 4, 4), (513, 9, 5), (30, 2, 9)])
def test_tied_log_density(n: int, K: int, d: int, apart: float, dtype: Any) -> None:
    """Components at any distance: of a common centre only those near it are whitened about it."""
    rng = np.random.RandomState(n + d)
    family, params = TiedGaussian(dtype=dtype), tied_params(rng, K, d, apart)
    X = family.canonical(points_near(rng, params, n))
    out = np.full((K, n), 0.5)
    family.log_density(X, params, out)
    desired, z = slow.whitened_log_density(X.astype(float), params.means, params.inverse_cholesky[0])
    assert np.all(np.abs(out - 0.5 - desired) <= whitened_tolerance(z, dtype))


@kernel
def _owners(X: Any, means: Any, factor: Any, limit: float) -> Any:
    return tied._whitened(X, means, factor, limit).owners


def test_tied_components_share_the_first_centre_within_reach() -> None:
    means = np.array([[0.0, 0.0], [3.0, 0.0], [100.0, 0.0], [0.0, -5.0], [103.0, 4.0], [50.0, 0.0]])
    assert_array_equal(_owners(means, means, np.eye(2), 6.0), [0, 0, 2, 0, 2, 5])
    assert_array_equal(_owners(means, means, np.eye(2), 1e3), np.zeros(6))
    assert_array_equal(_owners(means, means, np.eye(2), 0.0), np.arange(6))
    # Terms that cancel count with their sizes: that is what rounding sees.
    assert_array_equal(
        _owners(means[:2], means[:2] * [1, 0] + [[0, 0], [0, 3]], np.array([[1.0, 0], [-9, 9]]), 6.0), [0, 1]
    )


# ----- tied: statistics ---------------------------------------------------------------------------------------


def resp_of(rng: np.random.RandomState, K: int, n: int, dtype: Any) -> Any:
    """Return weighted responsibilities, many of them 0, with rows of weight 0 and rows of one component."""
    resp = rng.dirichlet(np.full(K, 0.5), n).T * rng.randint(0, 4, n)
    resp[resp < 0.05] = 0.0
    resp[:, ::5] = (np.arange(K) == 0)[:, None]
    return np.ascontiguousarray(resp.astype(dtype))


@both_dtypes
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e3, 1.0), (0.0, 1e12), (0.0, 1e-12)])
@pytest.mark.parametrize(
    ("n", "K", "d"),
    [(1, 1, 1), (1, 3, 2), (2, 4, 3), (255, 5, 4), (256, 2, 5), (257, 8, 6), (513, 3, 7), (30, 1, 8), (700, 13, 9)],
)
@pytest.mark.parametrize("add", [tied._add_pooled_moments, add_moments], ids=["pooled", "separate"])
def test_tied_moments(add: Any, n: int, K: int, d: int, offset: float, scale: float, dtype: Any) -> None:
    """Both ways give the sum over components of the plain moments; twice the rows add up to twice as much."""
    rng = np.random.RandomState(n + d)
    X = (scale * (rng.normal(size=(n, d)) + 3 * rng.randint(0, 3, (n, 1)) + offset)).astype(dtype)
    means, resp = scale * (rng.normal(size=(K, d)) + 3 + offset), resp_of(rng, K, n, dtype)
    stats = TiedGaussian().zero_stats(TiedGaussian().params(means, np.eye(d)[None]))
    for _ in range(2):
        add(X, resp, means, *stats)
    counts, first, second = slow.moments(X.astype(float), 2 * resp.astype(float), means)
    tolerance = 16 * eps(dtype) * (1 + resp.sum()) * 10  # sizes of at most 10, squares of at most 100
    assert_allclose(stats.counts, counts, atol=tolerance)
    assert_allclose(stats.first / scale, first / scale, atol=tolerance)
    lower = np.tril_indices(d)
    assert_allclose(stats.second[0][lower] / scale**2, second.sum(axis=0)[lower] / scale**2, atol=10 * tolerance)


@pytest.mark.parametrize("scale", [1e150, 1e-150])
def test_pooled_moments_at_the_ends_of_float64(scale: float) -> None:
    rng = np.random.RandomState(0)
    X, means, resp = rng.normal(size=(300, 5)), rng.normal(size=(6, 5)), resp_of(rng, 6, 300, np.float64)
    moved, plain = (TiedGaussian().zero_stats(TiedGaussian().params(means, np.eye(5)[None])) for _ in range(2))
    tied._add_pooled_moments(X * scale, resp, means * scale, *moved)
    tied._add_pooled_moments(X, resp, means, *plain)
    assert_allclose(moved.first / scale, plain.first, atol=1e-11)
    assert_allclose(moved.second / scale / scale, plain.second, atol=1e-11)


@pytest.mark.parametrize("apart", [1e4, 1e8])
def test_pooled_moments_of_components_far_apart(apart: float) -> None:
    """A point of one component only: the place of the others costs no digit."""
    rng = np.random.RandomState(0)
    means = apart * np.arange(6.0)[:, None] * np.ones(4)
    component = np.arange(300) % 6
    X = means[component] + rng.normal(size=(300, 4))
    resp = np.equal.outer(np.arange(6), component).astype(float)
    stats = TiedGaussian().zero_stats(TiedGaussian().params(means, np.eye(4)[None]))
    tied._add_pooled_moments(X, resp, means, *stats)
    _, first, second = slow.moments(X, resp, means)
    assert_allclose(stats.first, first, atol=1e-12)
    assert_allclose(np.tril(stats.second[0]), np.tril(second.sum(axis=0)), atol=1e-11)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("K", "d"), [(1, 1), (2, 1), (3, 4), (9, 5)])
def test_spread_between_components(K: int, d: int, zeros: bool) -> None:
    """One by one, or as the sum over pairs; with components that overlap with none."""
    rng = np.random.RandomState(K)
    overlap, means = rng.uniform(size=(K, K)), rng.normal(size=(K, d))
    if zeros:
        overlap[rng.uniform(size=(K, K)) < 0.6] = 0.0
        overlap[-1] = 0.0
    desired = np.ones((d, d))
    for k in range(K):
        for other in range(k):
            desired += overlap[k, other] * np.outer(means[k] - means[other], means[k] - means[other])
    second = np.ones((d, d))
    tied._add_between(overlap, means, second)
    assert_allclose(np.tril(second), np.tril(desired), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("K", "d", "share", "pooled"), [
    (10, 16, 1.0, True), (16, 64, 1.0, True), (48, 64, 0.4, True), (4, 8, 1.0, True),
    (6, 1, 1.0, False), (100, 2, 1.0, False), (16, 16, 1 / 16, False), (100, 64, 0.02, False), (3, 16, 0.0, False),
])  # fmt: skip
def test_tied_moments_are_pooled_where_it_pays(K: int, d: int, share: float, pooled: bool) -> None:
    resp = (np.random.RandomState(0).uniform(size=(K, 2000)) < share).astype(float)
    assert tied._is_pooled(resp, d) is pooled


@both_dtypes
@pytest.mark.parametrize("K", [4, 200])  # pooled, and by component
def test_tied_statistics_have_zeros_above_the_diagonal(K: int, dtype: Any) -> None:
    rng = np.random.RandomState(0)
    family = TiedGaussian(dtype=dtype)
    params = family.params(rng.normal(size=(K, 12)), np.eye(12)[None])
    X, resp = family.canonical(rng.normal(size=(300, 12))), rng.dirichlet(np.ones(K), 300).T.copy()
    assert tied._is_pooled(resp, 12) is (K == 4)
    stats = family.zero_stats(params)
    family.accumulate(X, resp, params, stats)
    assert_array_equal(np.triu(stats.second[0], 1), 0.0)
    assert np.all(stats.second[0][np.tril_indices(12)] != 0.0)


@both_dtypes
def test_pooled_moments_of_collinear_columns_are_singular(dtype: Any) -> None:
    """No rounding makes a variance where there is none: every term lies in the same subspace."""
    rng = np.random.RandomState(0)
    family, X = TiedGaussian(dtype=dtype), rng.normal(size=(400, 8))
    X[:, 5] = X[:, 0] - 2 * X[:, 3]
    labels = rng.dirichlet(np.ones(4), 400).T.copy()
    assert tied._is_pooled(labels, 8)
    params = family.params(np.zeros((4, 8)), np.eye(8)[None])
    for _ in range(2):
        stats = family.zero_stats(params)
        family.accumulate(family.canonical(X), labels, params, stats)
        regular = TiedGaussian(0.1, dtype).mstep(stats, params)
        with pytest.raises(DegenerateError, match="shared covariance is singular"):
            family.mstep(stats, params)
        params = regular
