"""Gaussian components with covariance matrices that share volume, shape, orientation or two of them.

Each covariance is volume, shape and orientation, lambda_k D_k A_k D_k' with |A_k| = 1 diagonal and D_k orthogonal;
three letters say which are equal (E) in all components and which variable (V), as in Celeux & Govaert (1995),
"Gaussian parsimonious clustering models", Pattern Recognition 28.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvm._jit import Array, kernel
from lvm.families.conjugate_prior import NormalInverseWishart
from lvm.families.gaussian import alive_cells, count_free_parts, refuse_partly_held, refuse_singular
from lvm.families.gaussian_full import FullGaussianParams, FullGaussianStats, FullStatistics
from lvm.families.gaussian_structures import MAX_STEPS, SETTLED, equal_volumes, products_of_shares
from lvm.kernels.covariance import COLLINEAR, EPS, NOISE, factorised_covariance, mstep_means
from lvm.kernels.rotations import rotate
from lvm.kernels.triangular import inverse_cholesky
from lvm.protocol import DEAD_SHARE, count_free


@kernel
def _find_scatters(
    stats: FullGaussianStats, old: FullGaussianParams, reg: float, eps: float, means: Array, scatters: Array
) -> None:
    """Write the new means (K, d), and the scatter about them per unit of weight plus reg to scatters (K, d, d)."""
    counts = stats.counts
    d = old.means.shape[1]
    delta, moments, scatter, factor = np.empty(d), np.empty(d), np.empty((d, d)), np.empty((d, d))
    total = mstep_means(counts, stats.first, old.means, means)
    for k in range(len(counts)):
        if not counts[k] > DEAD_SHARE * total:
            continue
        for i in range(d):
            delta[i] = stats.first[k, i] / counts[k]
            moments[i] = stats.second[k, i, i] / counts[k]
        for i in range(d):
            for j in range(i + 1):
                scatter[i, j] = stats.second[k, i, j] / counts[k] - delta[i] * delta[j]
        # A singular scatter may still have a part in covariances that are not: only these are refused.
        factorised_covariance(scatter, moments, means[k], reg, eps, scatters[k], factor)
        for i in range(d):
            if not scatters[k, i, i] > (NOISE * means[k, i]) ** 2:  # rounding, of which no shape is to be made
                for j in range(d):
                    scatters[k, i, j] = 0.0
                    scatters[k, j, i] = 0.0


@kernel
def _factorise(matrices: Array, means: Array, eps: float, covariances: Array, factors: Array) -> int:
    """Copy matrices (K, d, d), of components at means (K, d), and write their factors.

    Returns the first that is singular to rounding, or -1.
    """
    K, d = means.shape
    variances = np.empty(d)
    for k in range(K):
        for i in range(d):
            variances[i] = matrices[k, i, i]
        if not factorised_covariance(matrices[k], variances, means[k], 0.0, eps, covariances[k], factors[k]):
            return k
    return -1


@kernel
def _share_matrix(scatters: Array, counts: Array, volumes: Array, matrix: Array) -> None:
    """Write lambda_k (K,) and C (d, d), the maximum likelihood of covariances lambda_k C, by turns from lambda_k on.

    Celeux & Govaert (1995), section 4.1, model [lambda_k C].
    """
    K, d = scatters.shape[0], scatters.shape[1]
    total = np.sum(counts)
    factor = np.empty((d, d))
    for _ in range(MAX_STEPS):
        for i in range(d):
            for j in range(d):
                matrix[i, j] = 0.0
        for k in range(K):
            share = counts[k] / total / volumes[k]
            for i in range(d):
                for j in range(i + 1):
                    matrix[i, j] += share * scatters[k, i, j]
        for i in range(d):
            for j in range(i):
                matrix[j, i] = matrix[i, j]
        if not inverse_cholesky(matrix, factor) > 0.0:
            return
        change, smallest = 0.0, np.inf
        for k in range(K):
            trace = 0.0  # of C^-1 S_k, as the sum of l_i' S_k l_i over the rows of C's inverse factor
            for i in range(d):
                for a in range(i + 1):
                    row = 0.5 * factor[i, a] * scatters[k, a, a]
                    for b in range(a):
                        row += factor[i, b] * scatters[k, a, b]
                    trace += 2.0 * factor[i, a] * row
            volume = trace / d
            change = max(change, abs(volume / volumes[k] - 1.0))
            volumes[k] = volume
            smallest = min(smallest, volume)
        if not (change > SETTLED and smallest > 0.0):
            return


def _volumes(covariances: Array) -> Array:
    """Return the d-th roots of determinants (K,)."""
    signs, logs = np.linalg.slogdet(covariances)
    return np.asarray(np.where(signs > 0, np.exp(logs / covariances.shape[1]), 0.0))


def _composed(axes: Array, variances: Array) -> Array:
    """Return the matrices D_k diag(v_k) D_k' for axes (K, d, d) or (d, d) in columns, and variances (K, d)."""
    return np.asarray((axes * variances[:, None]) @ np.swapaxes(axes, -1, -2))


def _eigenvalues(matrices: Array) -> tuple[Array, Array]:
    """Return the eigenvalues (K, d) of matrices (K, d, d), 0 where they are rounding of the largest, and the axes."""
    values, axes = np.linalg.eigh(matrices)
    return np.where(values > COLLINEAR * EPS * values.shape[1] * values[:, -1:], values, 0.0), axes


def _along(axes: Array, matrices: Array) -> Array:
    """Return the variances (K, d) of matrices (K, d, d) along common axes (d, d) in columns."""
    return np.asarray(np.maximum(np.einsum("ij,kij->kj", axes, matrices @ axes), 0.0))


def _without_size(matrices: Array) -> tuple[Array, Array]:
    """Return matrices (K, d, d) over their traces, and these traces (K,)."""
    sizes = np.trace(matrices, axis1=1, axis2=2)
    return matrices / sizes[:, None, None], sizes


def _common_axes(scatters: Array, counts: Array, old: Array, power: float) -> Array:
    """Return the axes (d, d), in columns, that suit the scatters (K, d, d) best, from those of old covariances on."""
    old, _ = _without_size(old)
    axes = np.ascontiguousarray(np.linalg.eigh(old.mean(axis=0))[1])
    # Axes of equal variance on average are told apart by the components: all covariances have them in common.
    rotate(axes.T @ old @ axes, np.ones(len(old)), 0.0, axes)
    scatters, sizes = _without_size(scatters)
    rotate(axes.T @ scatters @ axes, counts * (sizes / sizes.max()) ** (power * len(axes)), power, axes)
    return axes


class SharedMatrices(FullStatistics):
    """What the structures share whose covariance matrices share parts."""

    structure: ClassVar[str]

    def __init__(
        self,
        reg_covar: float = 0.0,
        dtype: DTypeLike = np.float64,
        held: Mapping[str, NDArray[np.bool_]] | None = None,
        prior: NormalInverseWishart | None = None,
    ) -> None:
        super().__init__(reg_covar, dtype, held, prior)
        refuse_partly_held(self.structure, self.held)

    @abstractmethod
    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        """Return the covariances (K, d, d) that maximise -sum_k counts_k (log |C_k| + tr(C_k^-1 scatter_k)) / 2.

        Of K components, all alive; counts (K,), scatters and the old covariances (K, d, d).
        """

    def _maximise(self, stats: FullGaussianStats, params: FullGaussianParams) -> FullGaussianParams:
        new = FullGaussianParams(*(array.copy() for array in params))
        scatters = np.empty_like(params.covariances)
        _find_scatters(stats, params, self.reg_covar, self._eps, new.means, scatters)
        alive = np.flatnonzero(alive_cells(stats.counts[:, None]))
        matrices = self._structured_if_finite(scatters[alive], stats.counts[alive], params.covariances[alive])
        covariances, factors = np.empty_like(matrices), np.empty_like(matrices)
        singular = _factorise(matrices, new.means[alive], self._eps, covariances, factors)
        if singular >= 0:
            refuse_singular(int(alive[singular]))
        new.covariances[alive], new.inverse_cholesky[alive] = covariances, factors
        return new

    def _structured_if_finite(self, scatters: Array, counts: Array, old: Array) -> Array:
        """Return the covariances, NaN where a search left the range of numbers."""
        with np.errstate(all="ignore"):
            try:
                return np.ascontiguousarray(self._structured(scatters, counts, old))
            except np.linalg.LinAlgError:
                return np.full_like(scatters, np.nan)

    def nearest(self, covariances: Array) -> Array:
        """Return the covariances of the structure that are nearest, each of the same weight."""
        covariances = np.array(covariances, np.float64, order="C")
        matrices = self._structured_if_finite(covariances, np.ones(len(covariances)), covariances)
        return np.asarray((matrices + np.swapaxes(matrices, 1, 2)) / 2)

    def from_vector(self, vector: Array, origin: FullGaussianParams) -> FullGaussianParams:
        """Return the parameters of the structure that are nearest to those with these coordinates."""
        params = super().from_vector(vector, origin)
        return self.params(params.means, self.nearest(params.covariances))

    def n_parameters(self, params: FullGaussianParams) -> int:
        """Return the number of free means and of free volumes, shapes and orientations."""
        means = count_free(self.held, "means", params.means)
        return means + count_free_parts(self.held, self.structure, *params.means.shape)


@final
class VEEGaussian(SharedMatrices):
    """All covariances are multiples of one matrix."""

    structure: ClassVar[str] = "VEE"

    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        volumes, matrix = _volumes(old), np.empty_like(scatters[0])
        _share_matrix(scatters, counts, volumes, matrix)
        return np.asarray(volumes[:, None, None] * matrix)


@final
class EVEGaussian(SharedMatrices):
    """The covariances share axes and determinant.

    Given the axes, shapes and volume have a closed form. Put in, what is left to minimise over the axes is
    sum_k n_k |diag(D' S_k D)|^(1 / d).
    """

    structure: ClassVar[str] = "EVE"

    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        axes = _common_axes(scatters, counts, old, 1 / scatters.shape[1])
        return _composed(axes, equal_volumes(_along(axes, scatters), counts))


@final
class VVEGaussian(SharedMatrices):
    """The covariances share their axes: common principal components.

    Given the axes, the variances are those along them. What is left to minimise is sum_k n_k log |diag(D' S_k D)|.
    """

    structure: ClassVar[str] = "VVE"

    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        axes = _common_axes(scatters, counts, old, 0.0)
        return _composed(axes, _along(axes, scatters))


@final
class EEVGaussian(SharedMatrices):
    """The covariances share their eigenvalues."""

    structure: ClassVar[str] = "EEV"

    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        values, axes = _eigenvalues(scatters)
        return _composed(axes, np.repeat((counts @ values / counts.sum())[None], len(counts), axis=0))


@final
class VEVGaussian(SharedMatrices):
    """The eigenvalues of the covariances are in the same proportions."""

    structure: ClassVar[str] = "VEV"

    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        values, axes = _eigenvalues(scatters)
        weights = np.repeat(counts[:, None], scatters.shape[1], axis=1)
        return _composed(axes, products_of_shares(weights * values, weights, _volumes(old)))


@final
class EVVGaussian(SharedMatrices):
    """The covariances share their determinant."""

    structure: ClassVar[str] = "EVV"

    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        volumes = _volumes(scatters)[:, None, None]
        largest = volumes.max()
        common = largest * (counts @ (volumes[:, 0, 0] / largest)) / counts.sum()
        return np.asarray(scatters / volumes * common)
