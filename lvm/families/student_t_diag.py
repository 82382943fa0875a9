"""Multivariate Student t components whose scatter matrices are diagonal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array
from lvm.families.gaussian import refuse_singular
from lvm.families.gaussian_diag import DiagGaussianParams
from lvm.families.student_t import StudentT, StudentTParams, StudentTStats
from lvm.kernels.covariance import EPS, FAR, NOISE, ROUNDED
from lvm.kernels.heavy_tails import heavy_scaling_room
from lvm.protocol import DEAD_SHARE, keep_held


@final
class DiagStudentT(StudentT):
    """Each component has a scatter per feature; with infinitely many degrees of freedom it is `DiagGaussian`.

    The features are uncorrelated given the component, but not independent: far rows are far in all of them.
    """

    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "scatters": "Kd", "degrees_of_freedom": "K"}

    def _inverse_factors(self, scatters: Array) -> Array:
        bad = np.argwhere(~((scatters > 0) & (scatters < np.inf)))
        if len(bad):
            k, j = bad[0]
            raise ValueError(f"scatters must be finite and > 0, got {scatters[k, j]} in component {k}, feature {j}.")
        return np.asarray(1 / np.sqrt(scatters))

    def _axis_scatters(self, variances: Array) -> Array:
        return variances

    def _variances(self, params: StudentTParams) -> Array:
        return params.scatters

    _room = staticmethod(heavy_scaling_room)

    def _gaussian(self, params: StudentTParams) -> DiagGaussianParams:
        return DiagGaussianParams(params.means, params.scatters, params.inverse_factors)

    def _maximise(
        self, stats: StudentTStats, params: StudentTParams, shift: Array, free: NDArray[np.bool_]
    ) -> tuple[StudentTParams, Array]:
        alive = stats.counts > DEAD_SHARE * stats.counts.sum()
        nu, d = params.degrees_of_freedom, shift.shape[1]
        factor = ((nu + d) / nu / np.where(alive, stats.counts, np.inf))[:, None]
        moved = stats.weights[:, None] * shift**2
        whole = np.maximum(stats.second - moved, 0.0)
        scatter, square = factor * whole, factor * stats.second
        cancelled = moved > FAR * stats.second
        scatter = np.where(cancelled, np.maximum(scatter, ROUNDED * EPS * square), scatter) + self.reg_covar
        means = params.means + shift
        singular = free & ~(scatter > (NOISE * means) ** 2).all(axis=1)
        if singular.any():
            refuse_singular(int(np.argmax(singular)))
        scatter = keep_held({"scatters": ~free}, "scatters", scatter, params.scatters)
        new = StudentTParams(means, scatter, nu, 1 / np.sqrt(scatter))
        return new, np.asarray((whole / scatter).sum(axis=1))

    def _scatters_to_vector(self, scatters: Array, factors: Array, scale: Array) -> Array:
        return np.asarray(np.log(scatters / scale**2).ravel())

    def _scatters_from_vector(self, vector: Array, scale: Array, like: Array) -> Array:
        return np.asarray(np.exp(vector).reshape(like.shape) * scale**2)

    def _normal(self, scatter: Array, n: int, rng: np.random.RandomState) -> Array:
        return np.asarray(rng.standard_normal((n, len(scatter))) * np.sqrt(scatter))
