"""Gaussian components whose variances, along all their axes, lie within a factor of each other.

Without such a bound the likelihood of Gaussian mixtures has no maximum, and many spurious ones: components of a few
points that nearly coincide, or nearly lie in a subspace. With it a maximum exists (Hathaway, 1985, "A constrained
formulation of maximum-likelihood estimation for normal mixture distributions", Annals of Statistics 13).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvm._jit import Array
from lvm.families.conjugate_prior import NormalInverseWishart
from lvm.families.gaussian import GaussianFamily
from lvm.families.gaussian_diag import DiagGaussianParams
from lvm.families.gaussian_orientations import SharedMatrices
from lvm.families.gaussian_structures import SharedVariances, SphericalVariances


def truncated(values: Array, weights: Array, ratio: float) -> Array:
    """Return the variances v that maximise -sum weights (log v + values / v) / 2 under max v <= ratio min v.

    They are the values themselves, cut off at m and ratio m. Given m that is each one's best, and what is left is
    convex in log m. Its derivative times m, sum weights [max(m - value, 0) - max(value / ratio - m, 0)], is linear in m
    between the values and the values over the ratio, and m is where it crosses 0.

    Parameters
    ----------
    values : ndarray
        Variances without the bound, >= 0.
    weights : ndarray of the same shape
        Weight behind each.
    ratio : float
        Bound, >= 1.

    References
    ----------
    Fritz, Garcia-Escudero & Mayo-Iscar (2013), "A fast algorithm for robust constrained clustering", Computational
    Statistics & Data Analysis 61, section 3.
    """
    if not values.max() > ratio * values.min():
        return values
    flat, behind = values.ravel(), weights.ravel()
    order = np.argsort(flat)
    ordered, counts = flat[order], behind[order]
    below = np.concatenate([[0.0], np.cumsum(counts)])  # weight of the j smallest, and of those times their values
    sums = np.concatenate([[0.0], np.cumsum(counts * ordered)])

    def slope(edges: Array) -> tuple[Array, Array]:
        """Return a and b of the derivative a m - b, as it is just above each edge."""
        low = np.searchsorted(ordered, edges, "right")
        high = np.searchsorted(ordered / ratio, edges, "right")
        return below[low] + below[-1] - below[high], sums[low] + (sums[-1] - sums[high]) / ratio

    edges = np.sort(np.concatenate([ordered, ordered / ratio]))
    factor, constant = slope(edges)
    last = max(int(np.searchsorted(factor * edges - constant > 0, True)) - 1, 0)
    floor = constant[last] / factor[last] if factor[last] > 0 else edges[last]
    return np.clip(values, floor, ratio * floor)


def check_ratio(ratio: float, held: Mapping[str, NDArray[np.bool_]] | None = None) -> float:
    """Return a bound as a float; refuse those below 1, and covariances that are held in some components alone."""
    if not 1 <= ratio < np.inf:
        raise ValueError(f"max_eigenvalue_ratio must be finite and >= 1, got {ratio!r}.")
    if held and "covariances" in held and held["covariances"].any() != held["covariances"].all():
        raise ValueError("max_eigenvalue_ratio compares the covariances of all components; fix all of them or none.")
    return float(ratio)


class _Bounded(GaussianFamily[Any]):
    """What the structures share whose eigenvalues lie within a factor of each other."""

    def __init__(
        self,
        max_eigenvalue_ratio: float,
        reg_covar: float = 0.0,
        dtype: DTypeLike = np.float64,
        held: Mapping[str, NDArray[np.bool_]] | None = None,
        prior: NormalInverseWishart | None = None,
    ) -> None:
        self.max_eigenvalue_ratio = check_ratio(max_eigenvalue_ratio, held)
        super().__init__(reg_covar, dtype, held, prior)


@final
class BoundedFullGaussian(_Bounded, SharedMatrices):
    """Each component has its own covariance matrix, whose eigenvalues lie within a factor of all others'.

    The axes are those of the scatters: for any eigenvalues, they minimise tr(C_k^-1 S_k) there (von Neumann).
    """

    structure: ClassVar[str] = "VVV"

    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        values, axes = np.linalg.eigh(scatters)
        variances = np.maximum(values, 0.0)
        bounded = truncated(variances, np.repeat(counts[:, None], values.shape[1], axis=1), self.max_eigenvalue_ratio)
        if bounded is variances:
            return scatters
        return np.asarray((axes * bounded[:, None]) @ np.swapaxes(axes, 1, 2))


class BoundedVariances(_Bounded, SharedVariances):
    """What the axis-aligned structures share whose variances lie within a factor of each other."""

    def from_vector(self, vector: Array, origin: DiagGaussianParams) -> DiagGaussianParams:
        """Return the parameters within the bound that are nearest to those with these coordinates."""
        params = super().from_vector(vector, origin)
        return self.params(params.means, self.nearest(params.covariances))


@final
class BoundedDiagGaussian(BoundedVariances):
    """Each component has a variance per feature, which lie within a factor of all others."""

    structure: ClassVar[str] = "VVI"

    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        return truncated(squares / np.where(weights > 0, weights, 1.0), weights, self.max_eigenvalue_ratio)


@final
class BoundedSphericalGaussian(BoundedVariances, SphericalVariances):
    """Each component has one variance for all features, within a factor of all others."""

    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        behind = weights.sum(axis=1, keepdims=True)
        bounded = truncated(squares.sum(axis=1, keepdims=True) / behind, behind, self.max_eigenvalue_ratio)
        return np.repeat(bounded, squares.shape[1], axis=1)

    def nearest(self, covariances: Array) -> Array:
        """Return the variances within the bound that are nearest, each of the same weight."""
        return truncated(covariances, np.ones_like(covariances), self.max_eigenvalue_ratio)

    def _axis_params(self, means: Array, variances: Array) -> DiagGaussianParams:
        return self.params(means, np.repeat(variances.mean(), len(means)))


BOUNDED: Mapping[str, Any] = {
    "VVV": BoundedFullGaussian,
    "VVI": BoundedDiagGaussian,
    "VII": BoundedSphericalGaussian,
}
