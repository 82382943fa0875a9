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
from lvm.kernels.moments import add_products, move_moments
from lvm.kernels.panels import POINTS
from lvm.kernels.shared import _add_between, _is_joined
from lvm.kernels.strips import zero_strip
from lvm.protocol import DegenerateError

Array = NDArray[np.float64]

both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
SIZES = (1, 3, 7, 255, 256)  # of one strip
FEATURES = range(1, 10)  # two steps of four, and what is left of one


def eps(dtype: Any) -> float:
    return float(np.finfo(dtype).eps)


def strip_of(X: Any) -> Any:
    """Return rows X (n, d) as a strip, its unused columns NaN: whoever reads them shows it."""
    strip = zero_strip(X.shape[1], X)
    strip[:] = np.nan
    strip[:, : len(X)] = X.T
    return strip


# ----- parts -----------------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("m", SIZES)
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
@pytest.mark.parametrize("d", [1, 2, 3, 63, 64, 130])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 127, 129, 518])
def test_axis_aligned_density(n: int, d: int, dtype: Any) -> None:
    """Two features at a time, in panels and strips: what is left of each; added to what is there."""
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
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 127, 131])
@pytest.mark.parametrize("n", [1, 7, 8, 127, 129, 523])
def test_axis_aligned_sums(n: int, d: int, dtype: Any) -> None:
    """Four features at a time, in panels and strips: what is left of each; with components that no row belongs to."""
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


# ----- tied: statistics ---------------------------------------------------------------------------------------


def resp_of(rng: np.random.RandomState, K: int, n: int, dtype: Any) -> Any:
    """Return weighted responsibilities, many of them 0, with rows of weight 0 and rows of one component."""
    resp = rng.dirichlet(np.full(K, 0.5), n).T * rng.randint(0, 4, n)
    resp[resp < 0.05] = 0.0
    resp[:, ::5] = (np.arange(K) == 0)[:, None]
    return np.ascontiguousarray(resp.astype(dtype))


def tied_stats(X: Any, resp: Any, means: Array, is_joined: bool, dtype: Any = np.float64) -> Any:
    """Return the statistics of a tied family, by the way that its kernel chooses."""
    family = TiedGaussian(dtype=dtype)
    params = family.params(means, np.eye(means.shape[1])[None])
    rows = family.canonical(X)
    K, d = means.shape
    stats = family.zero_stats(params)
    for start in range(0, len(X), POINTS):  # the choice is made for each strip
        part = np.ascontiguousarray(resp[:, start : start + POINTS])
        n_used = np.uint64(np.count_nonzero(part))
        assert _joins(np.uint64(part.shape[1]), n_used, np.uint64(K), np.uint64(d)) is is_joined
    family.accumulate(rows, resp, params, stats)
    return stats


@kernel
def _joins(m: Any, n_used: Any, K: Any, d: Any) -> bool:
    return _is_joined(m, n_used, K, d)


@both_dtypes
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e3, 1.0), (0.0, 1e12), (0.0, 1e-12)])
@pytest.mark.parametrize(
    ("n", "K", "d", "is_joined"),
    [
        (1, 1, 1, True),
        (1, 3, 2, True),
        (2, 4, 9, True),
        (128, 2, 5, True),
        (129, 8, 6, True),
        (513, 3, 7, True),
        (30, 1, 8, True),
        (700, 13, 9, True),
        (7, 40, 1, False),
        (128, 70, 3, False),
        (300, 90, 5, False),
    ],
)
def test_tied_moments(n: int, K: int, d: int, is_joined: bool, offset: float, scale: float, dtype: Any) -> None:
    """Both ways give the sum over components of the plain moments; twice the rows add up to twice as much."""
    rng = np.random.RandomState(n + d)
    X = (scale * (rng.normal(size=(n, d)) + 3 * rng.randint(0, 3, (n, 1)) + offset)).astype(dtype)
    means, resp = scale * (rng.normal(size=(K, d)) + 3 + offset), resp_of(rng, K, n, np.float64)
    if is_joined:
        resp += 0.01
    else:
        resp[:, 1:] *= rng.uniform(size=(K, n - 1)) < 0.1
    stats = tied_stats(X, resp, means, is_joined, dtype)
    counts, first, second = slow.moments(X.astype(float), resp, means)
    tolerance = 16 * eps(dtype) * (1 + resp.sum()) * 10  # sizes of at most 10, squares of at most 100
    assert_allclose(stats.counts, counts, atol=tolerance)
    assert_allclose(stats.first / scale, first / scale, atol=tolerance)
    lower = np.tril_indices(d)
    assert_allclose(stats.second[0][lower] / scale**2, second.sum(axis=0)[lower] / scale**2, atol=10 * tolerance)
    assert_array_equal(np.triu(stats.second[0], 1), 0.0)


@pytest.mark.parametrize("scale", [1e150, 1e-150])
def test_joined_moments_at_the_ends_of_float64(scale: float) -> None:
    rng = np.random.RandomState(0)
    X, means, resp = rng.normal(size=(300, 5)), rng.normal(size=(3, 5)), 0.1 + resp_of(rng, 3, 300, np.float64)
    moved, plain = tied_stats(X * scale, resp, means * scale, True), tied_stats(X, resp, means, True)
    assert_allclose(moved.first / scale, plain.first, atol=1e-11)
    assert_allclose(moved.second / scale / scale, plain.second, atol=1e-11)


@pytest.mark.parametrize("apart", [1e4, 1e8])
def test_joined_moments_of_components_far_apart(apart: float) -> None:
    """The place of the other components costs a point no digit."""
    rng = np.random.RandomState(0)
    means = apart * np.arange(2.0)[:, None] * np.ones(9)
    component = np.arange(300) % 2
    X = means[component] + rng.normal(size=(300, 9))
    resp = np.equal.outer(np.arange(2), component) + 1e-30
    stats = tied_stats(X, resp, means, True)
    _, first, second = slow.moments(X, resp, means)
    assert_allclose(stats.first, first, atol=1e-11)
    assert_allclose(np.tril(stats.second[0]), np.tril(second.sum(axis=0)), atol=1e-10)


@kernel
def _spread(overlap: Any, means: Any, second: Any) -> None:
    _add_between(overlap, means, np.empty(second.shape[0]), second)


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
    _spread(overlap, means, second)
    assert_allclose(np.tril(second), np.tril(desired), rtol=1e-13, atol=1e-13)


@both_dtypes
def test_joined_moments_of_collinear_columns_are_singular(dtype: Any) -> None:
    """No rounding makes a variance where there is none: every term lies in the same subspace."""
    rng = np.random.RandomState(0)
    family, X = TiedGaussian(dtype=dtype), rng.normal(size=(400, 8))
    X[:, 5] = X[:, 0] - 2 * X[:, 3]
    labels = rng.dirichlet(np.ones(4), 400).T.copy()
    params = family.params(np.zeros((4, 8)), np.eye(8)[None])
    for _ in range(2):
        stats = family.zero_stats(params)
        family.accumulate(family.canonical(X), labels, params, stats)
        regular = TiedGaussian(0.1, dtype).mstep(stats, params)
        with pytest.raises(DegenerateError, match="shared covariance is singular"):
            family.mstep(stats, params)
        params = regular
