"""Gaussian components with full covariance matrices, one per component or one for all."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, final

import numpy as np

from lvm import _checks
from lvm._jit import Array, helper, kernel
from lvm.families.gaussian import COLLINEAR, FAR, LOG_2PI, NOISE, ROUNDED, GaussianFamily, refuse_singular
from lvm.kernels.strips import DENSE, STRIP, WIDTH, count_active, gather_strip, list_active, load_strip
from lvm.kernels.triangular import inverse_cholesky
from lvm.protocol import DEAD_SHARE


class FullGaussianParams(NamedTuple):
    """Means (K, d), covariances (C, d, d) and their inverse Cholesky factors (C, d, d), lower; C is K or 1."""

    means: Array
    covariances: Array
    inverse_cholesky: Array


class FullGaussianStats(NamedTuple):
    """Sums of r, r (x - m) and r (x - m)(x - m)' about the current means m: (K,), (K, d), (K, d, d).

    Of the last only the lower half counts.
    """

    counts: Array
    first: Array
    second: Array


@helper
def _copy(matrix: Array, into: Array) -> None:
    """Copy a matrix (d, d) into the corner of another, without what numba compiles for array assignments."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            into[i, j] = matrix[i, j]


@helper
def _distance(L: Array, z: Array, m: int, y: Array, distance: Array) -> None:
    """Write |L z|**2 of m points z (d, m) to distance (m,), for lower triangular L; d is a multiple of 4."""
    for p in range(m):
        distance[p] = 0.0
    for j in range(0, L.shape[0], 4):
        for p in range(m):
            y[0, p] = 0.0
            y[1, p] = 0.0
            y[2, p] = 0.0
            y[3, p] = 0.0
        # Four rows of y = L z at a time, four columns of L each: a store serves four multiply-adds.
        for i in range(0, j, 4):
            a0, a1, a2, a3 = L[j, i], L[j, i + 1], L[j, i + 2], L[j, i + 3]
            b0, b1, b2, b3 = L[j + 1, i], L[j + 1, i + 1], L[j + 1, i + 2], L[j + 1, i + 3]
            c0, c1, c2, c3 = L[j + 2, i], L[j + 2, i + 1], L[j + 2, i + 2], L[j + 2, i + 3]
            d0, d1, d2, d3 = L[j + 3, i], L[j + 3, i + 1], L[j + 3, i + 2], L[j + 3, i + 3]
            for p in range(m):
                t, u, v, w = z[i, p], z[i + 1, p], z[i + 2, p], z[i + 3, p]
                y[0, p] += a0 * t + a1 * u + a2 * v + a3 * w
                y[1, p] += b0 * t + b1 * u + b2 * v + b3 * w
                y[2, p] += c0 * t + c1 * u + c2 * v + c3 * w
                y[3, p] += d0 * t + d1 * u + d2 * v + d3 * w
        # The triangle on the diagonal completes the four rows: they are squared without being stored.
        a0 = L[j, j]
        b0, b1 = L[j + 1, j], L[j + 1, j + 1]
        c0, c1, c2 = L[j + 2, j], L[j + 2, j + 1], L[j + 2, j + 2]
        d0, d1, d2, d3 = L[j + 3, j], L[j + 3, j + 1], L[j + 3, j + 2], L[j + 3, j + 3]
        for p in range(m):
            t, u, v, w = z[j, p], z[j + 1, p], z[j + 2, p], z[j + 3, p]
            y0 = y[0, p] + a0 * t
            y1 = y[1, p] + b0 * t + b1 * u
            y2 = y[2, p] + c0 * t + c1 * u + c2 * v
            y3 = y[3, p] + d0 * t + d1 * u + d2 * v + d3 * w
            distance[p] += y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3


@kernel
def _log_density(X: Array, means: Array, factors: Array, out: Array) -> None:
    """Add the Gaussian log densities of X (n, d) to out (K, n), for inverse Cholesky factors (C, d, d)."""
    n, d = X.shape
    padded = (d + 3) // 4 * 4  # rows and columns of zeros make d a multiple of 4
    strip = np.empty((d, WIDTH))
    z = np.zeros((padded, WIDTH))
    L = np.zeros((padded, padded))
    y = np.empty((4, WIDTH))
    distance = np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(means.shape[0]):
            _copy(factors[min(k, factors.shape[0] - 1)], L)
            log_norm = -0.5 * d * LOG_2PI
            for i in range(d):
                log_norm += np.log(L[i, i])
                mean = means[k, i]
                for p in range(m):
                    z[i, p] = strip[i, p] - mean
            _distance(L, z, m, y, distance)
            row = out[k, start : start + m]
            for p in range(m):
                row[p] += log_norm - 0.5 * distance[p]


@helper
def _add_moments(
    strip: Array, m: int, r: Array, mean: Array, centred: tuple[Array, Array], first: Array, second: Array
) -> None:
    """Add the moments of m points in strip (d, m) under r (m,) about mean (d,); centred is scratch for two strips."""
    d = first.shape[0]
    z, rz = centred
    for i in range(d):
        total = 0.0
        for p in range(m):
            z[i, p] = strip[i, p] - mean[i]
            rz[i, p] = r[p] * z[i, p]
            total += rz[i, p]
        first[i] += total
    # Four rows times two columns: eight running sums in registers, no store, and six loads serve eight
    # multiply-adds.
    d4 = d - d % 4
    for i in range(0, d4, 4):
        for j in range(0, i + 4, 2):
            s00 = s10 = s20 = s30 = s01 = s11 = s21 = s31 = 0.0
            for p in range(m):
                u, v = z[j, p], z[j + 1, p]
                s00 += rz[i, p] * u
                s10 += rz[i + 1, p] * u
                s20 += rz[i + 2, p] * u
                s30 += rz[i + 3, p] * u
                s01 += rz[i, p] * v
                s11 += rz[i + 1, p] * v
                s21 += rz[i + 2, p] * v
                s31 += rz[i + 3, p] * v
            second[i, j] += s00
            second[i + 1, j] += s10
            second[i + 2, j] += s20
            second[i + 3, j] += s30
            second[i, j + 1] += s01
            second[i + 1, j + 1] += s11
            second[i + 2, j + 1] += s21
            second[i + 3, j + 1] += s31
    for i in range(d4, d):
        for j in range(i + 1):
            s00 = 0.0
            for p in range(m):
                s00 += rz[i, p] * z[j, p]
            second[i, j] += s00


@kernel
def _accumulate(X: Array, resp: Array, means: Array, counts: Array, first: Array, second: Array) -> None:
    """Add the moments of X (n, d) about means (K, d) under resp (K, n), lower half of second (K, d, d).

    Where most responsibilities of a component are 0, its rows are gathered first.
    """
    n, d = X.shape
    K = means.shape[0]
    strip = np.empty((d, WIDTH))
    centred = (np.empty((d, WIDTH)), np.empty((d, WIDTH)))
    active = np.empty(n, np.int64)
    gathered = np.empty(STRIP)
    is_dense = np.empty(K, np.bool_)
    n_dense = 0
    for k in range(K):
        n_active = count_active(resp[k], counts[k : k + 1])
        is_dense[k] = n_active > DENSE * n
        if is_dense[k]:
            n_dense += 1
            continue
        list_active(resp[k], active)
        for start in range(0, n_active, STRIP):
            m = min(STRIP, n_active - start)
            gather_strip(X, resp[k], active[start : start + m], strip, gathered)
            _add_moments(strip, m, gathered, means[k], centred, first[k], second[k])
    if n_dense == 0:
        return
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(K):
            if is_dense[k]:
                _add_moments(strip, m, resp[k, start : start + m], means[k], centred, first[k], second[k])


@helper
def _factorise(covariance: Array, mean: Array, factor: Array) -> bool:
    """Write the inverse Cholesky factor of covariance (d, d) to factor; False where it is singular to rounding."""
    for i in range(covariance.shape[0]):
        if not covariance[i, i] > (NOISE * mean[i]) ** 2:
            return False
    return bool(inverse_cholesky(covariance, factor) > COLLINEAR * covariance.shape[0])


@helper
def _mstep_means(counts: Array, first: Array, old: Array, means: Array) -> None:
    """Write the new means (K, d); a dead component keeps its old one."""
    total = np.sum(counts)
    for k in range(len(counts)):
        alive = counts[k] > DEAD_SHARE * total
        for i in range(old.shape[1]):
            means[k, i] = old[k, i] + (first[k, i] / counts[k] if alive else 0.0)


@helper
def _covariance(scatter: Array, moments: Array, mean: Array, reg: float, covariance: Array, factor: Array) -> bool:
    """Write scatter (d, d), lower, plus reg to covariance, and its factor; False where it is singular.

    moments (d,) are the second moments before the shift of the mean was taken off.
    """
    d = scatter.shape[0]
    for i in range(d):
        for j in range(i + 1):
            covariance[i, j] = scatter[i, j]
            covariance[j, i] = scatter[i, j]
        covariance[i, i] += reg
    if _factorise(covariance, mean, factor):
        return True
    far = False
    for i in range(d):
        far = far or moments[i] - scatter[i, i] > FAR * moments[i]
    if not far:
        return False
    for i in range(d):
        for j in range(d):
            covariance[i, j] = 0.0
        covariance[i, i] = max(scatter[i, i], ROUNDED * moments[i]) + reg
    return _factorise(covariance, mean, factor)


@kernel
def _mstep_full(stats: FullGaussianStats, old: FullGaussianParams, reg: float, new: FullGaussianParams) -> int:
    """Write the M-step to new; return the first component with a singular covariance, or -1."""
    counts = stats.counts
    total = np.sum(counts)
    d = old.means.shape[1]
    delta = np.empty(d)
    moments = np.empty(d)
    scatter = np.empty((d, d))
    _mstep_means(counts, stats.first, old.means, new.means)
    for k in range(len(counts)):
        if not counts[k] > DEAD_SHARE * total:
            _copy(old.covariances[k], new.covariances[k])
            _copy(old.inverse_cholesky[k], new.inverse_cholesky[k])
            continue
        for i in range(d):
            delta[i] = stats.first[k, i] / counts[k]
            moments[i] = stats.second[k, i, i] / counts[k]
        for i in range(d):
            for j in range(i + 1):
                scatter[i, j] = stats.second[k, i, j] / counts[k] - delta[i] * delta[j]
        if not _covariance(scatter, moments, new.means[k], reg, new.covariances[k], new.inverse_cholesky[k]):
            return k
    return -1


@kernel
def _mstep_tied(stats: FullGaussianStats, old: FullGaussianParams, reg: float, new: FullGaussianParams) -> int:
    """Write the M-step with one covariance for all to new; return 0 where it is singular, else -1."""
    counts = stats.counts
    total = np.sum(counts)
    K, d = old.means.shape
    moments = np.zeros(d)
    largest = np.zeros(d)
    scatter = np.zeros((d, d))
    _mstep_means(counts, stats.first, old.means, new.means)
    for k in range(K):
        if not counts[k] > DEAD_SHARE * total:
            continue
        for i in range(d):
            largest[i] = max(largest[i], abs(new.means[k, i]))
            moments[i] += stats.second[k, i, i] / total
            for j in range(i + 1):
                shift = stats.first[k, i] * (stats.first[k, j] / counts[k])
                scatter[i, j] += (stats.second[k, i, j] - shift) / total
    done = _covariance(scatter, moments, largest, reg, new.covariances[0], new.inverse_cholesky[0])
    return -1 if done else 0


class _FullStatistics(GaussianFamily[FullGaussianParams]):
    """Density and statistics of the structures that need all second moments; only the M-step differs."""

    def params(self, means: Array, covariances: Array) -> FullGaussianParams:
        """Return parameters from means (K, d) and covariances (C, d, d), positive definite; C is K or 1."""
        means = np.array(means, np.float64, order="C")
        covariances = np.array(covariances, np.float64, order="C")
        factors = np.empty_like(covariances)
        for c, covariance in enumerate(covariances):
            if not inverse_cholesky(covariance, factors[c]) > 0:
                raise ValueError(f"covariance {c} is not symmetric, positive definite and finite.")
        return FullGaussianParams(means, covariances, factors)

    @abstractmethod
    def _n_covariances(self, n_components: int) -> int:
        """Return the number of distinct covariance matrices."""

    def _axis_params(self, means: Array, variances: Array) -> FullGaussianParams:
        return self.params(means, np.repeat(np.diag(variances)[None], self._n_covariances(len(means)), axis=0))

    def _whitening(self, params: FullGaussianParams) -> Array:
        return params.inverse_cholesky

    def log_density(self, X: Array, params: FullGaussianParams, out: Array) -> None:
        """Add log N(x_i; mean_k, covariance_k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        _log_density(X, params.means, params.inverse_cholesky, out)

    def zero_stats(self, params: FullGaussianParams) -> FullGaussianStats:
        """Return the moments of no rows."""
        K, d = params.means.shape
        return FullGaussianStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, d, d)))

    def accumulate(self, X: Array, resp: Array, params: FullGaussianParams, stats: FullGaussianStats) -> None:
        """Add the rows' moments about the current means."""
        _accumulate(X, resp, params.means, stats.counts, stats.first, stats.second)

    def sample(self, params: FullGaussianParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d)."""
        covariance = params.covariances[min(k, len(params.covariances) - 1)]
        factor = np.linalg.cholesky(covariance)
        return np.asarray(params.means[k] + rng.standard_normal((n, len(covariance))) @ factor.T)

    def n_parameters(self, params: FullGaussianParams) -> int:
        """Return K d means plus d (d + 1) / 2 for each covariance matrix."""
        K, d = params.means.shape
        return int(K * d + self._n_covariances(K) * d * (d + 1) // 2)


@final
class FullGaussian(_FullStatistics):
    """Each component has its own covariance matrix (VVV of Celeux & Govaert, 1995)."""

    def _n_covariances(self, n_components: int) -> int:
        return n_components

    def mstep(self, stats: FullGaussianStats, params: FullGaussianParams) -> FullGaussianParams:
        """Return the weighted means and covariances."""
        new = FullGaussianParams(*map(np.empty_like, params))
        refuse_singular(_mstep_full(stats, params, self.reg_covar, new))
        return new


@final
class TiedGaussian(_FullStatistics):
    """All components share one covariance matrix (EEE of Celeux & Govaert, 1995)."""

    def _n_covariances(self, n_components: int) -> int:
        return 1

    def mstep(self, stats: FullGaussianStats, params: FullGaussianParams) -> FullGaussianParams:
        """Return the weighted means and the pooled covariance."""
        new = FullGaussianParams(*map(np.empty_like, params))
        refuse_singular(_mstep_tied(stats, params, self.reg_covar, new), shared=True)
        return new
