"""Gaussian components that share one full covariance matrix: they cost little more than one component would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, helper, kernel
from lvm.families.gaussian import refuse_singular
from lvm.families.gaussian_full import FullGaussianParams, MatrixGaussian, add_moments, matrices
from lvm.kernels.covariance import factorised_covariance, mstep_means
from lvm.kernels.moments import add_products, move_moments
from lvm.kernels.patterns import PatternedRows, add_patterned_densities, add_patterned_moments
from lvm.kernels.strips import DENSE, LOG_2PI, STRIP, load_strip, zero_strip
from lvm.protocol import DEAD_SHARE


class TiedGaussianStats(NamedTuple):
    """Sums of r, of r (x - m) about the current means m, and of r (x - m)(x - m)' over all components together.

    Shapes (K,), (K, d) and (1, d, d); of the last only the lower half counts.
    """

    counts: Array
    first: Array
    second: Array


class _Whitened(NamedTuple):
    """Components as strips of one dtype see them; d is padded with zeros to e, a multiple of 4.

    Attributes
    ----------
    near : ndarray of shape (K, d)
        Means, rounded to the dtype.
    owners : ndarray of shape (K,), int64
        The component about whose rounded mean this one's points are whitened; its own where it is that one.
    means : ndarray of shape (K, e)
        L (mean - centre), for the centre that `owners` names.
    factor : ndarray of shape (e, e)
        Inverse Cholesky factor L, lower.
    """

    near: Array
    owners: NDArray[np.int64]
    means: Array
    factor: Array


@helper
def _reach(L: Array, mean: Array, centre: Array) -> float:
    """Return the largest sum of the sizes of terms in an element of L (mean - centre), for d features."""
    largest = 0.0
    for i in range(mean.shape[0]):
        size = 0.0
        for j in range(i + 1):
            size += abs(L[i, j] * (mean[j] - centre[j]))
        largest = max(largest, size)
    return largest


@helper
def _whitened(X: Any, means: Array, factor: Array, limit: float) -> _Whitened:
    """Return components with means (K, d) and one factor (d, d) in the dtype of X.

    y = L (x - centre) is good to eps times the reach of the centre, where L (x - mean) itself is good to eps times
    a few: so a component takes the first centre within the limit, and becomes one where there is none.
    """
    K, d = means.shape
    e = (d + 3) // 4 * 4
    near = means.astype(X.dtype)
    owners = np.empty(K, np.int64)
    white, L = np.zeros((K, e), X.dtype), np.zeros((e, e), X.dtype)
    for i in range(d):
        for j in range(i + 1):
            L[i, j] = factor[i, j]
    for k in range(K):
        owner = 0
        while owner < k and not (owners[owner] == owner and _reach(factor, means[k], near[owner]) <= limit):
            owner += 1
        owners[k] = owner
        for i in range(d):
            total = 0.0
            for j in range(i + 1):
                total += L[i, j] * (means[k, j] - near[owner, j])  # the L that the points will see
            white[k, i] = total
    return _Whitened(near, owners, white, L)


@helper
def _whiten_strip(strip: Array, m: int, centre: Array, L: Array, z: Array, y: Array) -> None:
    """Write L (x - centre) of m points in strip (d, WIDTH) to y (e, WIDTH); z (e, WIDTH) is scratch, 0 beyond d."""
    for i in range(centre.shape[0]):
        at = centre[i]
        for p in range(m):
            z[i, p] = strip[i, p] - at
    for j in range(0, L.shape[0], 4):
        # The triangle on the diagonal first: it starts the four rows, and is all there is of the first ones.
        a0 = L[j, j]
        b0, b1 = L[j + 1, j], L[j + 1, j + 1]
        c0, c1, c2 = L[j + 2, j], L[j + 2, j + 1], L[j + 2, j + 2]
        d0, d1, d2, d3 = L[j + 3, j], L[j + 3, j + 1], L[j + 3, j + 2], L[j + 3, j + 3]
        for p in range(m):
            t, u, v, w = z[j, p], z[j + 1, p], z[j + 2, p], z[j + 3, p]
            y[j, p] = a0 * t
            y[j + 1, p] = b0 * t + b1 * u
            y[j + 2, p] = c0 * t + c1 * u + c2 * v
            y[j + 3, p] = d0 * t + d1 * u + d2 * v + d3 * w
        # Four rows of y at a time, four columns of L each: a store serves four multiply-adds.
        for i in range(0, j, 4):
            a0, a1, a2, a3 = L[j, i], L[j, i + 1], L[j, i + 2], L[j, i + 3]
            b0, b1, b2, b3 = L[j + 1, i], L[j + 1, i + 1], L[j + 1, i + 2], L[j + 1, i + 3]
            c0, c1, c2, c3 = L[j + 2, i], L[j + 2, i + 1], L[j + 2, i + 2], L[j + 2, i + 3]
            d0, d1, d2, d3 = L[j + 3, i], L[j + 3, i + 1], L[j + 3, i + 2], L[j + 3, i + 3]
            for p in range(m):
                t, u, v, w = z[i, p], z[i + 1, p], z[i + 2, p], z[i + 3, p]
                y[j, p] += a0 * t + a1 * u + a2 * v + a3 * w
                y[j + 1, p] += b0 * t + b1 * u + b2 * v + b3 * w
                y[j + 2, p] += c0 * t + c1 * u + c2 * v + c3 * w
                y[j + 3, p] += d0 * t + d1 * u + d2 * v + d3 * w


@kernel
def _log_density(X: Array, means: Array, factor: Array, limit: float, out: Array) -> None:
    """Add the Gaussian log densities of X (n, d) to out (K, n), for one inverse Cholesky factor (d, d)."""
    n, d = X.shape
    K = means.shape[0]
    components = _whitened(X, means, factor, limit)
    e = components.factor.shape[0]
    strip, z, y = zero_strip(d, X), zero_strip(e, X), zero_strip(e + 1, X)
    distance = y[e]
    log_norm = -0.5 * d * LOG_2PI
    for i in range(d):
        log_norm += np.log(factor[i, i])
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for owner in range(K):
            if components.owners[owner] != owner:
                continue
            _whiten_strip(strip, m, components.near[owner], components.factor, z, y)
            for k in range(owner, K):
                if components.owners[k] != owner:
                    continue
                mu = components.means[k]
                for p in range(m):
                    distance[p] = 0.0
                # Four features at a time: one store serves them all.
                for i in range(0, e, 4):
                    m0, m1, m2, m3 = mu[i], mu[i + 1], mu[i + 2], mu[i + 3]
                    for p in range(m):
                        z0, z1, z2, z3 = y[i, p] - m0, y[i + 1, p] - m1, y[i + 2, p] - m2, y[i + 3, p] - m3
                        distance[p] += z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3
                row = out[k, start : start + m]
                for p in range(m):
                    row[p] += log_norm - 0.5 * distance[p]


@helper
def _joined_width(d: int, K: int) -> int:
    """Return the number of rows that `_join` needs: d + K, with room for steps of four."""
    return (d + (K + 3) // 4 * 4 + 3) // 4 * 4


@helper
def _is_pooled(resp: Array, d: int) -> bool:
    """Return whether the pooled moments of d features under resp (K, n) take less time than those by component.

    In units of a multiply-add of the unrolled loops; what gathering costs on top was measured.
    """
    K, n = resp.shape
    e = _joined_width(d, K)
    pooled = n * (e * e + 4 * K * d) + K * K * (K + 3 * d)
    gathering = 8 / resp.itemsize  # it moves single values, so that float32 is no faster
    separate = 0.0
    for k in range(K):
        row = resp[k]
        n_active = 0
        for p in range(n):
            n_active += 1 if row[p] != 0.0 else 0
        if n_active > DENSE * n:
            separate += n * d * (d + 4)
        else:
            separate += gathering * (20 * n + n_active * (1.5 * d * (d + 8) + 40))
    return bool(pooled < separate)


@helper
def _join(strip: Array, m: int, resp: Array, start: int, near: Array, count: Array, joined: Array) -> None:
    """Write sqrt(w) (x - m) of m points in strip (d, WIDTH), and r / sqrt(w) below, to joined (>= d + K, WIDTH).

    w is the sum of a point's resp (K, n), from start on, and m its mean over components at near (K4, d), where K4 is K
    or more, a multiple of 4. Adds the sums of resp to count (K,).
    """
    K, d = resp.shape[0], near.shape[1]
    zero = strip.dtype.type(0)
    root = joined[0]
    for p in range(m):
        root[p] = 0.0
    for k in range(K):
        row = resp[k, start : start + m]
        total = zero
        for p in range(m):
            root[p] += row[p]
            total += row[p]
        count[k] += total
    for p in range(m):
        root[p] = 1.0 / np.sqrt(root[p]) if root[p] > 0.0 else 0.0
    for k in range(K):
        row = resp[k, start : start + m]
        for p in range(m):
            joined[d + k, p] = row[p] * root[p]
    for i in range(d):
        for p in range(m):
            joined[i, p] = 0.0
        # Four components at a time: one store serves them all.
        for k in range(0, near.shape[0], 4):
            m0, m1, m2, m3 = near[k, i], near[k + 1, i], near[k + 2, i], near[k + 3, i]
            j = d + k
            for p in range(m):
                x = strip[i, p]
                joined[i, p] += (
                    joined[j, p] * (x - m0)
                    + joined[j + 1, p] * (x - m1)
                    + joined[j + 2, p] * (x - m2)
                    + joined[j + 3, p] * (x - m3)
                )


@helper
def _add_between(overlap: Array, means: Array, second: Array) -> None:
    """Add the sum over l < k of overlap[k, l] (mean_k - mean_l)(mean_k - mean_l)' to second (d, d), lower half.

    Overwrites overlap (K, K), of which only the part below the diagonal is read. By the identity of
    `TiedGaussian` again, with mean_k as the point and overlap[k] as its responsibilities: the last component leaves
    one square and what it adds to the overlaps of the others.
    """
    d = means.shape[1]
    step = np.empty(d)
    for k in range(means.shape[0] - 1, 0, -1):
        total = 0.0
        for other in range(k):
            total += overlap[k, other]
        if total == 0.0:
            continue
        for i in range(d):
            step[i] = 0.0
        for other in range(k):
            share = overlap[k, other] / total
            for i in range(d):
                step[i] += share * (means[k, i] - means[other, i])
            for j in range(other):
                overlap[other, j] += share * overlap[k, j]
        for i in range(d):
            for j in range(i + 1):
                second[i, j] += total * step[i] * step[j]


@helper
def _add_pooled_moments(X: Array, resp: Array, means: Array, counts: Array, first: Array, second: Array) -> None:
    """Add the moments of X (n, d) about means (K, d) under resp (K, n), lower half of second (1, d, d)."""
    n, d = X.shape
    K = means.shape[0]
    e = _joined_width(d, K)
    near = np.zeros(((K + 3) // 4 * 4, d), X.dtype)
    centres = np.empty((K, d))
    for k in range(K):
        for i in range(d):
            near[k, i] = means[k, i]
            centres[k, i] = near[k, i]
    strip, joined = zero_strip(d, X), zero_strip(e, X)
    count, shift, products = np.zeros(K), np.zeros((K, d)), np.zeros((e, e))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        _join(strip, m, resp, start, near, count, joined)
        # At once all products of deviations, of responsibilities with deviations, and of responsibilities.
        add_products(joined, joined, m, products)
    overlap = products[d : d + K, d : d + K]
    for i in range(d):
        for j in range(i + 1):
            second[0, i, j] += products[i, j]
    for k in range(K):
        for i in range(d):
            shift[k, i] = products[d + k, i]
        for other in range(K):
            both = overlap[max(k, other), min(k, other)]
            for i in range(d):
                shift[k, i] += both * (centres[other, i] - centres[k, i])
    _add_between(overlap, centres, second[0])
    for k in range(K):
        move_moments(means[k], near[k], count[k], shift[k], second[0])
        counts[k] += count[k]
        for i in range(d):
            first[k, i] += shift[k, i]


@kernel
def _accumulate(X: Array, resp: Array, means: Array, counts: Array, first: Array, second: Array) -> None:
    """Add the moments of X (n, d) about means (K, d) under resp (K, n), lower half of second (1, d, d).

    Where few responsibilities are not 0, or components are many for d, the pooled moments do not pay.
    """
    if _is_pooled(resp, X.shape[1]):
        _add_pooled_moments(X, resp, means, counts, first, second)
    else:
        add_moments(X, resp, means, counts, first, second)
    # The loops leave other things above the diagonal; without them, equal statistics are equal arrays.
    for i in range(second.shape[1]):
        for j in range(i + 1, second.shape[2]):
            second[0, i, j] = 0.0


@kernel
def _mstep_tied(
    stats: TiedGaussianStats, old: FullGaussianParams, reg: float, eps: float, new: FullGaussianParams
) -> int:
    """Write the M-step with one covariance for all to new; return 0 where it is singular, else -1."""
    counts = stats.counts
    total = np.sum(counts)
    K, d = old.means.shape
    moments = np.empty(d)
    largest = np.zeros(d)
    scatter = np.empty((d, d))
    mstep_means(counts, stats.first, old.means, new.means)
    for i in range(d):
        moments[i] = stats.second[0, i, i] / total
        for j in range(i + 1):
            scatter[i, j] = stats.second[0, i, j] / total
    for k in range(K):
        if not counts[k] > DEAD_SHARE * total:
            continue
        for i in range(d):
            largest[i] = max(largest[i], abs(new.means[k, i]))
            for j in range(i + 1):
                scatter[i, j] -= stats.first[k, i] * (stats.first[k, j] / counts[k]) / total
    done = factorised_covariance(scatter, moments, largest, reg, eps, new.covariances[0], new.inverse_cholesky[0])
    return -1 if done else 0


@final
class TiedGaussian(MatrixGaussian):
    """All components share one covariance matrix (EEE of Celeux & Govaert, 1995).

    Points are whitened once, y = L (x - c), and compared with the whitened means.

    Of the second moments only the sum over components is needed, and it takes one outer product per point. With the
    point's total weight w_i = sum_k r_ik and its posterior mean m_i = sum_k r_ik mean_k / w_i (derived here: write
    x_i - mean_k = (x_i - m_i) + (m_i - mean_k), whose cross terms vanish),

    sum_ik r_ik (x_i - mean_k)(x_i - mean_k)' = sum_i w_i (x_i - m_i)(x_i - m_i)'
        + sum_{k<l} G_kl (mean_k - mean_l)(mean_k - mean_l)',    G_kl = sum_i r_ik r_il / w_i,

    sum_i r_ik (x_i - mean_k) = sum_i r_ik (x_i - m_i) + sum_l G_kl (mean_l - mean_k).

    No term cancels another of the first. All that is summed over points are the products of the d + K numbers
    sqrt(w_i) (x_i - m_i) and r_ik / sqrt(w_i).
    """

    structure: ClassVar[str] = "EEE"
    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "1dd"}

    def _n_covariances(self, n_components: int) -> int:
        return 1

    def log_density(self, X: Any, params: FullGaussianParams, out: Array) -> None:
        """Add log N(x_i; mean_k, covariance) to out (K, n)."""
        _checks.matching(X, params.means, out)
        if isinstance(X, PatternedRows):
            add_patterned_densities(X.holes, *matrices(params), out)
        else:
            _log_density(X, params.means, params.inverse_cholesky[0], self._eps**-0.25, out)

    def zero_stats(self, params: FullGaussianParams) -> TiedGaussianStats:
        """Return the moments of no rows."""
        K, d = params.means.shape
        return TiedGaussianStats(np.zeros(K), np.zeros((K, d)), np.zeros((1, d, d)))

    def accumulate(self, X: Any, resp: Array, params: FullGaussianParams, stats: TiedGaussianStats) -> None:
        """Add the rows' moments about the current means."""
        if isinstance(X, PatternedRows):
            add_patterned_moments(X.holes, resp, *matrices(params), *stats)
        else:
            _accumulate(X, resp.astype(X.dtype, copy=False), params.means, *stats)

    def _maximise(self, stats: TiedGaussianStats, params: FullGaussianParams) -> FullGaussianParams:
        new = FullGaussianParams(*map(np.empty_like, params))
        refuse_singular(_mstep_tied(stats, params, self.reg_covar, self._eps, new), shared=True)
        return new
