"""Gaussian components with axis-aligned covariances: a variance per feature, or one for all features."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, final

import numpy as np

from lvm import _checks
from lvm._jit import Array, helper, kernel
from lvm.families.gaussian import GaussianFamily, refuse_singular
from lvm.kernels.covariance import FAR, NOISE, ROUNDED
from lvm.kernels.strips import STRIP, WIDTH, load_strip
from lvm.kernels.whitening import LOG_2PI
from lvm.protocol import DEAD_SHARE


class DiagGaussianParams(NamedTuple):
    """Means (K, d), variances (K, d) or (K,), and inverse standard deviations (K, d)."""

    means: Array
    covariances: Array
    inverse_scales: Array


class DiagGaussianStats(NamedTuple):
    """Sums of r, r (x - m) and r (x - m)**2 about the current means m: (K,), (K, d), (K, d)."""

    counts: Array
    first: Array
    second: Array


@helper
def _padded(array: Array, width: int, dtype: Any) -> Array:
    """Return array (K, d) in the dtype, with columns of zeros up to width."""
    wide = np.zeros((array.shape[0], width), dtype)
    for k in range(array.shape[0]):
        for i in range(array.shape[1]):
            wide[k, i] = array[k, i]
    return wide


@kernel
def _log_density(X: Array, means: Array, inverse_scales: Array, out: Array) -> None:
    """Add the log densities of X (n, d) to out (K, n)."""
    n, d = X.shape
    width = (d + 3) // 4 * 4  # features of zeros, with scale 0, make d a multiple of 4
    strip = np.zeros((width, WIDTH), X.dtype)
    distance = np.empty(STRIP, X.dtype)
    mu, scale = _padded(means, width, X.dtype), _padded(inverse_scales, width, X.dtype)
    offset = np.zeros_like(mu)  # what the rounding of the means lacks, whitened
    log_norms = np.full(means.shape[0], -0.5 * d * LOG_2PI)
    for k in range(means.shape[0]):
        for i in range(d):
            log_norms[k] += np.log(inverse_scales[k, i])
            offset[k, i] = (mu[k, i] - means[k, i]) * inverse_scales[k, i]
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(means.shape[0]):
            for p in range(m):
                distance[p] = 0.0
            # Four features at a time: one store serves them all.
            for i in range(0, width, 4):
                m0, m1, m2, m3 = mu[k, i], mu[k, i + 1], mu[k, i + 2], mu[k, i + 3]
                s0, s1, s2, s3 = scale[k, i], scale[k, i + 1], scale[k, i + 2], scale[k, i + 3]
                o0, o1, o2, o3 = offset[k, i], offset[k, i + 1], offset[k, i + 2], offset[k, i + 3]
                for p in range(m):
                    z0, z1 = (strip[i, p] - m0) * s0 + o0, (strip[i + 1, p] - m1) * s1 + o1
                    z2, z3 = (strip[i + 2, p] - m2) * s2 + o2, (strip[i + 3, p] - m3) * s3 + o3
                    distance[p] += z0 * z0 + z1 * z1 + z2 * z2 + z3 * z3
            row = out[k, start : start + m]
            log_norm = log_norms[k]
            for p in range(m):
                row[p] += log_norm - 0.5 * distance[p]


@kernel
def _accumulate(X: Array, resp: Array, means: Array, counts: Array, first: Array, second: Array) -> None:
    """Add the moments of X (n, d) about means (K, d) under resp (K, n)."""
    n, d = X.shape
    width = (d + 3) // 4 * 4
    zero = X.dtype.type(0)
    strip = np.zeros((width, WIDTH), X.dtype)
    mu = _padded(means, width, X.dtype)
    count, one, two = np.zeros(len(means)), np.zeros(mu.shape), np.zeros(mu.shape)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(means.shape[0]):
            r = resp[k, start : start + m]
            total = zero
            for p in range(m):
                total += r[p]
            if total == 0.0:
                continue
            count[k] += total
            # Four features at a time: eight running sums in registers, and each r serves them all.
            for i in range(0, width, 4):
                m0, m1, m2, m3 = mu[k, i], mu[k, i + 1], mu[k, i + 2], mu[k, i + 3]
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
                for p in range(m):
                    z0, z1, z2, z3 = strip[i, p] - m0, strip[i + 1, p] - m1, strip[i + 2, p] - m2, strip[i + 3, p] - m3
                    r0, r1, r2, r3 = r[p] * z0, r[p] * z1, r[p] * z2, r[p] * z3
                    a0 += r0
                    a1 += r1
                    a2 += r2
                    a3 += r3
                    b0 += r0 * z0
                    b1 += r1 * z1
                    b2 += r2 * z2
                    b3 += r3 * z3
                one[k, i] += a0
                one[k, i + 1] += a1
                one[k, i + 2] += a2
                one[k, i + 3] += a3
                two[k, i] += b0
                two[k, i + 1] += b1
                two[k, i + 2] += b2
                two[k, i + 3] += b3
    for k in range(means.shape[0]):
        counts[k] += count[k]
        for i in range(d):
            # From the rounded mean to the mean itself; the same where there was no rounding.
            rest = means[k, i] - mu[k, i]
            first[k, i] += one[k, i] - count[k] * rest
            second[k, i] += two[k, i] - 2.0 * rest * one[k, i] + count[k] * rest * rest


class _DiagStatistics(GaussianFamily[DiagGaussianParams]):
    """Density and statistics of the axis-aligned structures; only the M-step differs."""

    def params(self, means: Array, covariances: Array) -> DiagGaussianParams:
        """Return parameters from means (K, d) and variances (K, d) or (K,), all > 0."""
        means = np.array(means, np.float64, order="C")
        variances = np.array(covariances, np.float64, order="C")
        if not (np.all(variances > 0) and np.all(np.isfinite(variances))):
            raise ValueError(f"variances must be finite and > 0, got {variances.min()}.")
        return DiagGaussianParams(means, variances, self._inverse_scales(means, variances))

    def _inverse_scales(self, means: Array, variances: Array) -> Array:
        wide = variances.reshape(len(means), -1)
        return np.array(np.broadcast_to(1 / np.sqrt(wide), means.shape), order="C")

    def _whitening(self, params: DiagGaussianParams) -> Array:
        return params.inverse_scales[:, None]

    def log_density(self, X: Array, params: DiagGaussianParams, out: Array) -> None:
        """Add log N(x_i; mean_k, variances_k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        _log_density(X, params.means, params.inverse_scales, out)

    def zero_stats(self, params: DiagGaussianParams) -> DiagGaussianStats:
        """Return the moments of no rows."""
        K, d = params.means.shape
        return DiagGaussianStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, d)))

    def accumulate(self, X: Array, resp: Array, params: DiagGaussianParams, stats: DiagGaussianStats) -> None:
        """Add the rows' moments about the current means."""
        _accumulate(X, resp.astype(X.dtype, copy=False), params.means, stats.counts, stats.first, stats.second)

    @abstractmethod
    def _structured(self, variances: Array) -> Array:
        """Return the maximum likelihood variances under the structure from those per feature (K, d)."""

    def mstep(self, stats: DiagGaussianStats, params: DiagGaussianParams) -> DiagGaussianParams:
        """Return the weighted means and variances; a dead component keeps its own."""
        counts = stats.counts[:, None]
        alive = stats.counts > DEAD_SHARE * stats.counts.sum()
        shift = np.divide(stats.first, counts, out=np.zeros_like(stats.first), where=alive[:, None])
        means = params.means + shift
        square = np.divide(stats.second, counts, out=np.zeros_like(shift), where=alive[:, None])
        scatter = square - shift**2
        scatter = np.where(shift**2 > FAR * square, np.maximum(scatter, ROUNDED * self._eps * square), scatter)
        variances = self._structured(scatter + self.reg_covar)
        noise = self._structured((NOISE * means) ** 2)
        variances[~alive] = params.covariances[~alive]
        singular = ~(variances > noise) & (alive[:, None] if variances.ndim == 2 else alive)
        if singular.any():
            refuse_singular(int(np.argwhere(singular)[0][0]))
        return DiagGaussianParams(means, variances, self._inverse_scales(means, variances))

    def sample(self, params: DiagGaussianParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d)."""
        noise = rng.standard_normal((n, params.means.shape[1]))
        return np.asarray(params.means[k] + noise / params.inverse_scales[k])

    def n_parameters(self, params: DiagGaussianParams) -> int:
        """Return the number of means and variances."""
        return int(params.means.size + params.covariances.size)


@final
class DiagGaussian(_DiagStatistics):
    """Each component has a variance per feature (VVI of Celeux & Govaert, 1995)."""

    def _structured(self, variances: Array) -> Array:
        return variances

    def _axis_params(self, means: Array, variances: Array) -> DiagGaussianParams:
        return self.params(means, np.repeat(variances[None], len(means), axis=0))


@final
class SphericalGaussian(_DiagStatistics):
    """Each component has one variance for all features (VII of Celeux & Govaert, 1995)."""

    def _structured(self, variances: Array) -> Array:
        return np.asarray(variances.mean(axis=1))

    def _axis_params(self, means: Array, variances: Array) -> DiagGaussianParams:
        return self.params(means, np.repeat(variances.mean(), len(means)))
