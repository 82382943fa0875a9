"""Gaussian components with axis-aligned covariances: a variance per feature, or one for all features."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, final

import numpy as np

from lvm import _checks
from lvm._jit import Array, kernel
from lvm.families.gaussian import GaussianFamily, refuse_singular
from lvm.kernels.candidates import Candidates, Pruning, find_candidates, pruning_depth
from lvm.kernels.covariance import FAR, NOISE, ROUNDED
from lvm.kernels.densities import add_log_densities
from lvm.kernels.scaling import add_moved_sums, add_strip_sums, add_sums_of_rows, scaled_components
from lvm.kernels.strips import STRIP, load_strip, zero_strip
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
    add_log_densities(X, scaled_components(X, means, inverse_scales), out)


@kernel
def _accumulate(
    X: Array, resp: Array, means: Array, inverse_scales: Array, counts: Array, first: Array, second: Array
) -> None:
    """Add the moments of X (n, d) about the means under resp (K, n)."""
    n = X.shape[0]
    near = scaled_components(X, means, inverse_scales).near
    K, e = near.shape
    strip, count = zero_strip(e, X), np.zeros(K)
    one, two = np.zeros((K, e)), np.zeros((K, e))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(K):
            r = resp[k, start : start + m]
            total = X.dtype.type(0)
            for p in range(m):
                total += r[p]
            if total > 0.0:
                count[k] += total
                add_strip_sums(strip, r, near, k, one, two)
    counts += count
    add_moved_sums(means, near, count, one, two, first, second)


@kernel
def _pruning_depth(X: Array, means: Array, inverse_scales: Array, offsets: Array, smallest: float) -> int:
    """Return the cheapest depth of `_find_candidates` on X, 0 for none."""
    return pruning_depth(X, scaled_components(X, means, inverse_scales), offsets, smallest, False)


@kernel
def _find_candidates(
    X: Array, means: Array, inverse_scales: Array, pruning: Pruning, bounds: Array, found: Candidates
) -> bool:
    """List the pairs of row and component that matter."""
    return find_candidates(X, scaled_components(X, means, inverse_scales), pruning, bounds, found)


@kernel
def _accumulate_candidates(
    X: Array, found: Candidates, means: Array, inverse_scales: Array, counts: Array, first: Array, second: Array
) -> None:
    """Add the moments of X (n, d) about the means under the responsibilities found."""
    near = scaled_components(X, means, inverse_scales).near
    K, e = near.shape
    count, one, two = np.zeros(K), np.zeros((K, e)), np.zeros((K, e))
    for k in range(K):
        rows, r = found.rows[found.starts[k] : found.starts[k + 1]], found.values[found.starts[k] : found.starts[k + 1]]
        for p in range(len(rows)):
            count[k] += r[p]
        add_sums_of_rows(X, rows, r, near[k], one[k], two[k])
    counts += count
    add_moved_sums(means, near, count, one, two, first, second)


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
        _accumulate(X, resp.astype(X.dtype, copy=False), params.means, params.inverse_scales, *stats)

    def pruning_depth(self, X: Array, params: DiagGaussianParams, offsets: Array, smallest: float) -> int:
        """Return the depth of `find_candidates` that is cheapest on X, 0 for none."""
        return int(_pruning_depth(X, params.means, params.inverse_scales, offsets, smallest))

    def find_candidates(
        self, X: Array, params: DiagGaussianParams, pruning: Pruning, bounds: Array, found: Candidates
    ) -> bool:
        """List the pairs that matter, by bounds from the first features."""
        return bool(_find_candidates(X, params.means, params.inverse_scales, pruning, bounds, found))

    def accumulate_candidates(
        self, X: Array, found: Candidates, params: DiagGaussianParams, stats: DiagGaussianStats
    ) -> None:
        """Add the candidates' moments about the current means."""
        _accumulate_candidates(X, found, params.means, params.inverse_scales, *stats)

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

    def _mean_variances(self, params: DiagGaussianParams) -> Array:
        return np.asarray((params.inverse_scales**-2).mean(axis=0))

    def to_vector(self, params: DiagGaussianParams, origin: DiagGaussianParams) -> Array:
        """Return the means, without units, and the logarithms of the variances."""
        location, scale = self._units(origin)
        return np.concatenate([((params.means - location) / scale).ravel(), np.log(params.covariances).ravel()])

    def from_vector(self, vector: Array, origin: DiagGaussianParams) -> DiagGaussianParams:
        """Return the parameters that have these coordinates."""
        location, scale = self._units(origin)
        means, logarithms = np.split(vector, [origin.means.size])
        variances = np.exp(logarithms).reshape(origin.covariances.shape)
        return self.params(means.reshape(origin.means.shape) * scale + location, variances)

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
