"""Multivariate Student t components whose scatter matrices are diagonal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, kernel
from lvm.families.gaussian import refuse_singular
from lvm.families.student_t import StudentT, StudentTParams, StudentTStats, add_t_densities
from lvm.kernels.covariance import EPS, FAR, NOISE, ROUNDED
from lvm.kernels.degrees_of_freedom import write_weighted
from lvm.kernels.densities import add_log_density, density_scratch
from lvm.kernels.scaling import add_moved_sums, add_strip_sums, scaled_components
from lvm.kernels.strips import STRIP, load_strip, zero_strip
from lvm.protocol import DEAD_SHARE, keep_held


@kernel
def _log_density(X: Array, params: StudentTParams, out: Array) -> None:
    """Add the log densities of X (n, d) to out (K, n)."""
    components = scaled_components(X, params.means, params.inverse_factors)
    add_t_densities(X, components, params.degrees_of_freedom, out)


@kernel
def _accumulate(X: Array, resp: Array, params: StudentTParams, stats: StudentTStats) -> None:
    """Add the sums of X (n, d) under resp (K, n)."""
    n = X.shape[0]
    components = scaled_components(X, params.means, params.inverse_factors)
    K, e = components.near.shape
    strip, scratch, spare = zero_strip(e + 1, X), density_scratch(X, e), np.zeros(STRIP)
    weighted, weights, one, two = strip[e], np.zeros(K), np.zeros((K, e)), np.zeros((K, e))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(K):
            r, count = resp[k, start : start + m], 0.0
            for p in range(m):
                count += r[p]
            if count > 0.0:
                add_log_density(strip, m, components, k, e, scratch, spare)  # for the norms that it leaves
                weight, logarithms = write_weighted(scratch.norms, r, params.degrees_of_freedom[k], weighted)
                stats.counts[k] += count
                weights[k] += weight
                stats.logarithms[k] += logarithms
                add_strip_sums(strip, weighted[:m], components.near, k, one, two)
    for k in range(K):
        stats.weights[k] += weights[k]
    add_moved_sums(params.means, components.near, weights, one, two, stats.first, stats.second)


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

    def log_density(self, X: Array, params: StudentTParams, out: Array) -> None:
        """Add log t(x_i; mean_k, diag(scatter_k), degrees_of_freedom_k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        _log_density(X, params, out)

    def accumulate(self, X: Array, resp: Array, params: StudentTParams, stats: StudentTStats) -> None:
        """Add the rows' sums, moments about the current means."""
        _accumulate(X, resp, params, stats)

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
