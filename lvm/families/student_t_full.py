"""Multivariate Student t components with a full scatter matrix each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, kernel
from lvm.families.gaussian import refuse_singular
from lvm.families.student_t import StudentT, StudentTParams, StudentTStats, add_t_densities
from lvm.kernels.covariance import EPS, factorised_covariance
from lvm.kernels.degrees_of_freedom import write_weighted
from lvm.kernels.densities import add_log_density, density_scratch
from lvm.kernels.moments import add_strip_moments
from lvm.kernels.strips import STRIP, load_strip, zero_strip
from lvm.kernels.triangular import copy_matrix, inverse_cholesky
from lvm.kernels.whitening import whitened_components
from lvm.protocol import DEAD_SHARE

ASYMMETRY = 1e-8  # of a scatter matrix, in units of its diagonal: what rounding in a file may leave


@kernel
def _log_density(X: Array, params: StudentTParams, out: Array) -> None:
    """Add the log densities of X (n, d) to out (K, n)."""
    components = whitened_components(X, params.means, params.inverse_factors)
    add_t_densities(X, components, params.degrees_of_freedom, out)


@kernel
def _accumulate(X: Array, resp: Array, params: StudentTParams, stats: StudentTStats) -> None:
    """Add the sums of X (n, d) under resp (K, n)."""
    n, d = X.shape
    components = whitened_components(X, params.means, params.inverse_factors)
    e = components.offsets.shape[1]
    strip, scratch, spare = zero_strip(e + 1, X), density_scratch(X, e), np.zeros(STRIP)
    centred, weighted = (zero_strip(d, X), zero_strip(d, X)), strip[e]
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(resp.shape[0]):
            r, count = resp[k, start : start + m], 0.0
            for p in range(m):
                count += r[p]
            if count > 0.0:
                add_log_density(strip, m, components, k, e, scratch, spare)
                weight, logarithms = write_weighted(scratch.norms, r, params.degrees_of_freedom[k], weighted)
                stats.counts[k] += count
                stats.weights[k] += weight
                stats.logarithms[k] += logarithms
                add_strip_moments(strip, m, weighted, params.means[k], centred, stats.first[k], stats.second[k])


@kernel
def _mstep(
    stats: StudentTStats,
    old: StudentTParams,
    shift: Array,
    free: NDArray[np.bool_],
    reg: float,
    new: StudentTParams,
    distances: Array,
) -> int:
    """Write the scatters of components that are free (K,), for means that move by shift (K, d), to new.

    Writes the sum of w delta' to distances (K,); returns the first component with a singular scatter, or -1.
    """
    K, d = shift.shape
    scatter, moments, whole = np.empty((d, d)), np.empty(d), np.empty((d, d))
    total = np.sum(stats.counts)
    for k in range(K):
        nu, count = old.degrees_of_freedom[k], stats.counts[k]
        alive = count > DEAD_SHARE * total
        factor = (nu + d) / nu / count if alive else 0.0
        for i in range(d):
            moments[i] = factor * stats.second[k, i, i]
            for j in range(i + 1):
                whole[i, j] = stats.second[k, i, j] - stats.weights[k] * shift[k, i] * shift[k, j]
                scatter[i, j] = factor * whole[i, j]
        if not (alive and free[k]):
            copy_matrix(old.scatters[k], new.scatters[k])
            copy_matrix(old.inverse_factors[k], new.inverse_factors[k])
        elif not factorised_covariance(
            scatter, moments, new.means[k], reg, EPS, new.scatters[k], new.inverse_factors[k]
        ):
            return k
        distances[k] = 0.0
        for row in new.inverse_factors[k]:
            for i in range(d):
                distances[k] += row[i] * row[i] * whole[i, i]
                for j in range(i):
                    distances[k] += 2.0 * row[i] * row[j] * whole[i, j]
    return -1


@final
class FullStudentT(StudentT):
    """Each component has its own scatter matrix; with infinitely many degrees of freedom it is `FullGaussian`."""

    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "scatters": "Kdd", "degrees_of_freedom": "K"}

    def _inverse_factors(self, scatters: Array) -> Array:
        factors = np.empty_like(scatters)
        for k, scatter in enumerate(scatters):
            scale = np.sqrt(np.abs(np.diag(scatter)))
            skew = np.abs(scatter - scatter.T) > ASYMMETRY * np.outer(scale, scale)
            if skew.any() or not inverse_cholesky(scatter, factors[k]) > 0:
                raise ValueError(f"scatter {k} is not symmetric, positive definite and finite.")
        return factors

    def _axis_scatters(self, variances: Array) -> Array:
        return np.stack([np.diag(row) for row in variances])

    def _variances(self, params: StudentTParams) -> Array:
        return np.asarray(np.diagonal(params.scatters, axis1=1, axis2=2))

    def log_density(self, X: Array, params: StudentTParams, out: Array) -> None:
        """Add log t(x_i; mean_k, scatter_k, degrees_of_freedom_k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        _log_density(X, params, out)

    def accumulate(self, X: Array, resp: Array, params: StudentTParams, stats: StudentTStats) -> None:
        """Add the rows' sums, moments about the current means."""
        _accumulate(X, resp, params, stats)

    def _maximise(
        self, stats: StudentTStats, params: StudentTParams, shift: Array, free: NDArray[np.bool_]
    ) -> tuple[StudentTParams, Array]:
        new = StudentTParams(params.means + shift, *map(np.empty_like, params[1:]))
        distances = np.empty(len(shift))
        refuse_singular(_mstep(stats, params, shift, free, self.reg_covar, new, distances))
        return new, distances

    def _scatters_to_vector(self, scatters: Array, factors: Array, scale: Array) -> Array:
        """Return the inverse Cholesky factors, their diagonals in logarithms."""
        rows, columns = np.tril_indices(len(scale), -1)
        units = factors * scale
        diagonal = np.log(np.diagonal(units, axis1=1, axis2=2))
        return np.concatenate([units[:, rows, columns].ravel(), diagonal.ravel()])

    def _scatters_from_vector(self, vector: Array, scale: Array, like: Array) -> Array:
        K, d, _ = like.shape
        factors = np.zeros_like(like)
        lower, diagonal = np.split(vector, [len(vector) - K * d])
        rows, columns = np.tril_indices(d, -1)
        factors[:, rows, columns] = lower.reshape(K, -1)
        factors[:, range(d), range(d)] = np.exp(diagonal).reshape(K, d)
        roots = np.asarray(np.linalg.inv(factors / scale), np.float64)
        return np.asarray(roots @ np.swapaxes(roots, 1, 2))

    def _normal(self, scatter: Array, n: int, rng: np.random.RandomState) -> Array:
        return np.asarray(rng.standard_normal((n, len(scatter))) @ np.linalg.cholesky(scatter).T)
