"""Gaussian components with a full covariance matrix each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np

from lvm import _checks
from lvm._jit import Array, kernel
from lvm.families.gaussian import GaussianFamily, refuse_singular
from lvm.kernels.covariance import factorised_covariance, mstep_means
from lvm.kernels.estep import BOTH, DENSITIES, MOMENTS
from lvm.kernels.passes import run_pass
from lvm.kernels.patterns import (
    PatternedRows,
    add_conditional_means,
    add_patterned_densities,
    add_patterned_moments,
    patterned_rows,
)
from lvm.kernels.triangular import copy_matrix, run_inverse_cholesky
from lvm.kernels.whitened import whitening_room
from lvm.kernels.workspace import NO_POSTERIOR, NO_RESPONSIBILITIES, Posterior
from lvm.protocol import DEAD_SHARE, count_free


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


NO_STATS = FullGaussianStats(np.empty(0), np.empty((0, 0)), np.empty((0, 0, 0)))


@kernel
def _mstep_full(
    stats: FullGaussianStats, old: FullGaussianParams, reg: float, eps: float, new: FullGaussianParams
) -> int:
    """Write the M-step to new; return the first component with a singular covariance, or -1."""
    counts = stats.counts
    d = old.means.shape[1]
    delta = np.empty(d)
    moments = np.empty(d)
    scatter = np.empty((d, d))
    total = mstep_means(counts, stats.first, old.means, new.means)
    for k in range(len(counts)):
        if not counts[k] > DEAD_SHARE * total:
            copy_matrix(old.covariances[k], new.covariances[k])
            copy_matrix(old.inverse_cholesky[k], new.inverse_cholesky[k])
            continue
        for i in range(d):
            delta[i] = stats.first[k, i] / counts[k]
            moments[i] = stats.second[k, i, i] / counts[k]
        for i in range(d):
            for j in range(i + 1):
                scatter[i, j] = stats.second[k, i, j] / counts[k] - delta[i] * delta[j]
        if not factorised_covariance(
            scatter, moments, new.means[k], reg, eps, new.covariances[k], new.inverse_cholesky[k]
        ):
            return k
    return -1


def matrices(params: FullGaussianParams) -> tuple[Array, Array, Array]:
    """Return means, covariances and inverse Cholesky factors: what the kernels for rows with holes take."""
    return params.means, params.covariances, params.inverse_cholesky


class MatrixGaussian(GaussianFamily[FullGaussianParams]):
    """What the structures share whose covariances are matrices: all but density and statistics."""

    def params(self, means: Array, covariances: Array) -> FullGaussianParams:
        """Return parameters from means (K, d) and covariances (C, d, d), positive definite; C is K or 1."""
        means = np.array(means, np.float64, order="C")
        covariances = np.array(covariances, np.float64, order="C")
        factors = np.empty_like(covariances)
        for c, covariance in enumerate(covariances):
            if not run_inverse_cholesky(covariance, factors[c]) > 0:
                raise ValueError(f"covariance {c} is not symmetric, positive definite and finite.")
        return FullGaussianParams(means, covariances, factors)

    @abstractmethod
    def _n_covariances(self, n_components: int) -> int:
        """Return the number of distinct covariance matrices."""

    def _axis_params(self, means: Array, variances: Array) -> FullGaussianParams:
        return self.params(means, np.repeat(np.diag(variances)[None], self._n_covariances(len(means)), axis=0))

    def _incomplete(self, X: Array) -> PatternedRows:
        return patterned_rows(X)

    def fill(self, X: Any, resp: Array, params: FullGaussianParams, out: Array) -> None:
        """Write the posterior mean of each missing cell under resp (K, n) to out (n, d)."""
        if isinstance(X, PatternedRows):
            np.copyto(out, 0.0, where=np.isnan(X.X))
            add_conditional_means(X.holes, resp, *matrices(params), out)

    def _whitening(self, params: FullGaussianParams) -> Array:
        return params.inverse_cholesky

    def _second_moments(self, params: FullGaussianParams, shift: Array) -> Array:
        return params.covariances + shift[:, :, None] * shift[:, None, :]

    def _mean_variances(self, params: FullGaussianParams) -> Array:
        return np.asarray(np.diagonal(params.covariances, axis1=1, axis2=2).mean(axis=0))

    def to_vector(self, params: FullGaussianParams, origin: FullGaussianParams) -> Array:
        """Return the means and the inverse Cholesky factors, their diagonals in logarithms, without units."""
        location, scale = self._units(origin)
        factors = params.inverse_cholesky * scale
        rows, columns = np.tril_indices(len(scale), -1)
        lower = factors[:, rows, columns]
        diagonal = np.log(np.diagonal(factors, axis1=1, axis2=2))
        return np.concatenate([((params.means - location) / scale).ravel(), lower.ravel(), diagonal.ravel()])

    def from_vector(self, vector: Array, origin: FullGaussianParams) -> FullGaussianParams:
        """Return the parameters that have these coordinates."""
        location, scale = self._units(origin)
        factors = np.zeros_like(origin.covariances)
        n_covariances, d, _ = factors.shape
        means, lower, diagonal = np.split(vector, [origin.means.size, len(vector) - n_covariances * d])
        rows, columns = np.tril_indices(d, -1)
        factors[:, rows, columns] = lower.reshape(n_covariances, -1)
        factors[:, range(d), range(d)] = np.exp(diagonal).reshape(n_covariances, d)
        roots = np.asarray(np.linalg.inv(factors / scale), np.float64)
        return self.params(means.reshape(-1, d) * scale + location, roots @ np.swapaxes(roots, 1, 2))

    def sample(self, params: FullGaussianParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d)."""
        covariance = params.covariances[min(k, len(params.covariances) - 1)]
        factor = np.linalg.cholesky(covariance)
        return np.asarray(params.means[k] + rng.standard_normal((n, len(covariance))) @ factor.T)

    def n_parameters(self, params: FullGaussianParams) -> int:
        """Return d for each free mean plus d (d + 1) / 2 for each free covariance matrix."""
        d = params.means.shape[1]
        n_covariances = count_free(self.held, "covariances", params.covariances) // d**2
        return int(count_free(self.held, "means", params.means) + n_covariances * d * (d + 1) // 2)


class FullStatistics(MatrixGaussian):
    """Density and statistics of the structures with a covariance matrix per component; only the M-step differs."""

    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "Kdd"}

    def _n_covariances(self, n_components: int) -> int:
        return n_components

    def log_density(self, X: Any, params: FullGaussianParams, out: Array) -> None:
        """Add log N(x_i; mean_k, covariance_k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        if isinstance(X, PatternedRows):
            add_patterned_densities(X.holes, *matrices(params), out)
        else:
            run_pass(X, params, NO_POSTERIOR, out, NO_STATS, DENSITIES, whitening_room)

    def zero_stats(self, params: FullGaussianParams) -> FullGaussianStats:
        """Return the moments of no rows."""
        K, d = params.means.shape
        return FullGaussianStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, d, d)))

    def accumulate(self, X: Any, resp: Array, params: FullGaussianParams, stats: FullGaussianStats) -> None:
        """Add the rows' moments about the current means."""
        if isinstance(X, PatternedRows):
            add_patterned_moments(X.holes, resp, *matrices(params), *stats)
        else:
            run_pass(X, params, NO_POSTERIOR, resp, stats, MOMENTS, whitening_room)

    def estep(
        self, X: Any, params: FullGaussianParams, posterior: Posterior, stats: FullGaussianStats
    ) -> tuple[float, float, int] | None:
        """Add the rows' expected moments about the current means, densities and responsibilities at one go."""
        if isinstance(X, PatternedRows):
            return None
        _checks.matching(X, params.means, posterior.offsets)
        return run_pass(X, params, posterior, NO_RESPONSIBILITIES, stats, BOTH, whitening_room)


@final
class FullGaussian(FullStatistics):
    """Each component has its own covariance matrix (VVV of Celeux & Govaert, 1995)."""

    structure: ClassVar[str] = "VVV"

    def _maximise(self, stats: FullGaussianStats, params: FullGaussianParams) -> FullGaussianParams:
        new = FullGaussianParams(*map(np.empty_like, params))
        refuse_singular(_mstep_full(stats, params, self.reg_covar, self._eps, new))
        return new
