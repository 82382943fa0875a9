"""Gaussian components with axis-aligned covariances: a variance per feature, or one for all features."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, final

import numpy as np

from lvm import _checks
from lvm._jit import Array, kernel
from lvm.families.gaussian import FAR, LOG_2PI, NOISE, ROUNDED, GaussianFamily, refuse_singular
from lvm.kernels.strips import STRIP, WIDTH, load_strip
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


@kernel
def _log_density(X: Array, means: Array, inverse_scales: Array, out: Array) -> None:
    """Add the log densities of X (n, d) to out (K, n)."""
    n, d = X.shape
    strip = np.empty((d, WIDTH))
    distance = np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(means.shape[0]):
            log_norm = -0.5 * d * LOG_2PI
            for p in range(m):
                distance[p] = 0.0
            for i in range(d):
                mean, scale = means[k, i], inverse_scales[k, i]
                log_norm += np.log(scale)
                for p in range(m):
                    distance[p] += ((strip[i, p] - mean) * scale) ** 2
            for p in range(m):
                out[k, start + p] += log_norm - 0.5 * distance[p]


@kernel
def _accumulate(X: Array, resp: Array, means: Array, counts: Array, first: Array, second: Array) -> None:
    """Add the moments of X (n, d) about means (K, d) under resp (K, n)."""
    n, d = X.shape
    strip = np.empty((d, WIDTH))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(means.shape[0]):
            r = resp[k, start : start + m]
            count = 0.0
            for p in range(m):
                count += r[p]
            if count == 0.0:
                continue
            counts[k] += count
            for i in range(d):
                mean = means[k, i]
                one = two = 0.0
                for p in range(m):
                    z = strip[i, p] - mean
                    one += r[p] * z
                    two += r[p] * z * z
                first[k, i] += one
                second[k, i] += two


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

    def _trace_precision(self, params: DiagGaussianParams) -> Array:
        return np.asarray(np.square(params.inverse_scales).sum(axis=1))

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
        _accumulate(X, resp, params.means, stats.counts, stats.first, stats.second)

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
        scatter = np.where(shift**2 > FAR * square, np.maximum(square - shift**2, ROUNDED * square), square - shift**2)
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
