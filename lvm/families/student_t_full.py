"""Multivariate Student t components with a full scatter matrix each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, kernel
from lvm.families.gaussian import refuse_singular
from lvm.families.gaussian_full import FullGaussianParams
from lvm.families.student_t import StudentT, StudentTParams, StudentTStats
from lvm.kernels.covariance import EPS, factorised_covariance
from lvm.kernels.heavy_tails import heavy_whitening_room
from lvm.kernels.triangular import copy_matrix, run_inverse_cholesky
from lvm.protocol import DEAD_SHARE

ASYMMETRY = 1e-8  # of a scatter matrix, in units of its diagonal: what rounding in a file may leave


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
            if skew.any() or not run_inverse_cholesky(scatter, factors[k]) > 0:
                raise ValueError(f"scatter {k} is not symmetric, positive definite and finite.")
        return factors

    def _axis_scatters(self, variances: Array) -> Array:
        return np.stack([np.diag(row) for row in variances])

    def _variances(self, params: StudentTParams) -> Array:
        return np.asarray(np.diagonal(params.scatters, axis1=1, axis2=2))

    _room = staticmethod(heavy_whitening_room)

    def _gaussian(self, params: StudentTParams) -> FullGaussianParams:
        return FullGaussianParams(params.means, params.scatters, params.inverse_factors)

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
