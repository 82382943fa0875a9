"""Gaussian components with axis-aligned covariances: a variance per feature, or one for all features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np

from lvm import _checks
from lvm._jit import Array
from lvm.families.gaussian import GaussianFamily, alive_cells, refuse_singular
from lvm.kernels.covariance import FAR, NOISE, ROUNDED
from lvm.kernels.estep import BOTH, DENSITIES, MOMENTS
from lvm.kernels.incomplete import add_observed_densities, add_observed_moments
from lvm.kernels.passes import run_pass
from lvm.kernels.scaled import scaling_room
from lvm.kernels.workspace import NO_POSTERIOR, NO_RESPONSIBILITIES, Posterior
from lvm.protocol import IncompleteRows, count_free


class DiagGaussianParams(NamedTuple):
    """Means (K, d), variances (K, d) or (K,), and inverse standard deviations (K, d)."""

    means: Array
    covariances: Array
    inverse_scales: Array


class DiagGaussianStats(NamedTuple):
    """Sums over rows, of responsibilities r and cells x about the current means m.

    The weight behind a mean is counts + observed: rows without holes are counted once, not once per feature.

    Attributes
    ----------
    counts : ndarray of shape (K,)
        Sums of r, of rows in arrays without holes.
    first, second : ndarray of shape (K, d)
        Sums of r (x - m) and of r (x - m)**2 over observed cells.
    observed : ndarray of shape (K, d)
        Sums of r over the observed cells of `IncompleteRows`.
    incomplete : ndarray of shape (K,)
        Sums of r over `IncompleteRows`, whatever is observed of them.
    """

    counts: Array
    first: Array
    second: Array
    observed: Array
    incomplete: Array


NO_STATS = DiagGaussianStats(np.empty(0), np.empty((0, 0)), np.empty((0, 0)), np.empty((0, 0)), np.empty(0))


class DiagStatistics(GaussianFamily[DiagGaussianParams]):
    """Density and statistics of the axis-aligned structures; only the M-step differs.

    Missing cells are left out of both. `log_penalty` remains that of the whole row, the same for all rows of a
    component, so that the M-step maximises, with N_k the responsibilities of all rows, n_kj those of the rows where
    feature j is observed, and S_kj their squares about the mean,

    sum_kj -(n_kj log v_kj + S_kj / v_kj) / 2 - reg_covar / 2 * sum_kj N_k / v_kj.

    Its maximum is v_kj = (S_kj + reg_covar N_k) / n_kj, and for one variance of all features the ratio of their sums.
    """

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

    def _incomplete(self, X: Array) -> IncompleteRows:
        return IncompleteRows(X)

    def log_density(self, X: Any, params: DiagGaussianParams, out: Array) -> None:
        """Add log N(x_i; mean_k, variances_k) to out (K, n), of what is observed of x_i."""
        _checks.matching(X, params.means, out)
        if isinstance(X, IncompleteRows):
            add_observed_densities(X.X, params.means, params.inverse_scales, out)
        else:
            run_pass(X, params, NO_POSTERIOR, out, NO_STATS, DENSITIES, scaling_room)

    def zero_stats(self, params: DiagGaussianParams) -> DiagGaussianStats:
        """Return the moments of no rows."""
        K, d = params.means.shape
        return DiagGaussianStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, d)), np.zeros((K, d)), np.zeros(K))

    def accumulate(self, X: Any, resp: Array, params: DiagGaussianParams, stats: DiagGaussianStats) -> None:
        """Add the moments of the observed cells about the current means."""
        if isinstance(X, IncompleteRows):
            add_observed_moments(X.X, resp, params.means, *stats[1:])
        else:
            run_pass(X, params, NO_POSTERIOR, resp, stats, MOMENTS, scaling_room)

    def estep(
        self, X: Any, params: DiagGaussianParams, posterior: Posterior, stats: DiagGaussianStats
    ) -> tuple[float, float, int] | None:
        """Add the rows' moments about the current means, densities and responsibilities at one go."""
        if isinstance(X, IncompleteRows):
            return None
        _checks.matching(X, params.means, posterior.offsets)
        return run_pass(X, params, posterior, NO_RESPONSIBILITIES, stats, BOTH, scaling_room)

    def fill(self, X: Any, resp: Array, params: DiagGaussianParams, out: Array) -> None:
        """Write the posterior mean of each missing cell under resp (K, n) to out (n, d)."""
        if isinstance(X, IncompleteRows):
            np.copyto(out, resp.T @ params.means, where=np.isnan(X.X))

    @abstractmethod
    def _structured(self, scatter: Array, weights: Array, totals: Array, old: Array) -> Array:
        """Return the variances that maximise the objective under the structure; of dead components they do not count.

        Parameters
        ----------
        scatter : ndarray of shape (K, d)
            S_kj / n_kj, 0 where there is no weight.
        weights : ndarray of shape (K, d) or (K, 1)
            n_kj; one column where it is the same for all features.
        totals : ndarray of shape (K, 1)
            N_k.
        old : ndarray of shape (K, d) or (K,)
            The variances now, where a search starts.
        """

    def _weights_of_variances(self, weights: Array) -> Array:
        """Return the weight behind each variance, per feature, from those behind the means; (K, d) or (K, 1)."""
        return np.asarray(weights.mean(axis=1, keepdims=True))

    def _penalised(self, scatter: Array, behind: Array, totals: Array) -> Array:
        """Return (S_kj + reg_covar N_k) / n_kj, for weights behind the variances, (K, d) or (K, 1)."""
        share = np.ones_like(behind)  # N / n; 1 exactly without holes
        np.divide(totals, behind, out=share, where=alive_cells(behind))
        return scatter + self.reg_covar * share

    def _noise(self, means: Array, weights: Array) -> Array:
        """Return what rounding of the means leaves of a variance that is 0."""
        return (NOISE * means) ** 2

    def _weights(self, stats: DiagGaussianStats) -> Array:
        weights = super()._weights(stats)
        return weights + stats.observed if stats.incomplete.any() else weights

    def _second_moments(self, params: DiagGaussianParams, shift: Array) -> Array:
        return params.inverse_scales**-2 + shift**2

    def _maximise(self, stats: DiagGaussianStats, params: DiagGaussianParams) -> DiagGaussianParams:
        weights = self._weights(stats)
        alive = alive_cells(weights)
        shift = np.divide(stats.first, weights, out=np.zeros_like(stats.first), where=alive)
        means = params.means + shift
        square = np.divide(stats.second, weights, out=np.zeros_like(shift), where=alive)
        scatter = square - shift**2
        scatter = np.where(shift**2 > FAR * square, np.maximum(scatter, ROUNDED * self._eps * square), scatter)
        scatter = np.where(scatter <= (NOISE * means) ** 2, 0.0, scatter)  # rounding, of which no shape is to be made
        totals = (stats.counts + stats.incomplete)[:, None]
        variances = self._structured(scatter, weights, totals, params.covariances)
        alive = alive_cells(self._weights_of_variances(weights))
        alive = alive if variances.ndim == 2 else alive[:, 0]
        variances = np.where(alive, variances, params.covariances)
        singular = ~(variances > self._noise(means, weights)) & alive
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
        """Return the number of free means and variances."""
        return count_free(self.held, "means", params.means) + count_free(self.held, "covariances", params.covariances)


def mean_variances(variances: Array, weights: Array) -> Array:
    """Return the means over features (K,) of variances (K, d) under weights (K, d) or (K, 1)."""
    if weights.shape[1] == 1:
        return np.asarray(variances.mean(axis=1))
    totals = weights.sum(axis=1)
    return np.asarray((weights * variances).sum(axis=1) / np.where(totals > 0, totals, 1.0))


@final
class DiagGaussian(DiagStatistics):
    """Each component has a variance per feature (VVI of Celeux & Govaert, 1995)."""

    structure: ClassVar[str] = "VVI"
    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "Kd"}

    def _structured(self, scatter: Array, weights: Array, totals: Array, old: Array) -> Array:
        return self._penalised(scatter, weights, totals)

    def _weights_of_variances(self, weights: Array) -> Array:
        return weights

    def _axis_params(self, means: Array, variances: Array) -> DiagGaussianParams:
        return self.params(means, np.repeat(variances[None], len(means), axis=0))


@final
class SphericalGaussian(DiagStatistics):
    """Each component has one variance for all features (VII of Celeux & Govaert, 1995)."""

    structure: ClassVar[str] = "VII"
    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "K"}

    def _structured(self, scatter: Array, weights: Array, totals: Array, old: Array) -> Array:
        return mean_variances(self._penalised(scatter, self._weights_of_variances(weights), totals), weights)

    def _noise(self, means: Array, weights: Array) -> Array:
        return mean_variances((NOISE * means) ** 2, weights)

    def _axis_params(self, means: Array, variances: Array) -> DiagGaussianParams:
        return self.params(means, np.repeat(variances.mean(), len(means)))
