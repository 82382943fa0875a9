"""Gaussian components whose variances, in any direction, do not fall below a floor: what keeps them from collapsing.

A covariance C keeps the floor where C - diag(floor) is positive semidefinite, so that the units of the columns do not
matter. The likelihood of components with floors is bounded, and the M-step lifts what lies below a floor, and nothing
else: other components, and other directions, are those of maximum likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np

from lvm._jit import Array
from lvm.families.gaussian_diag import DiagGaussian, DiagGaussianParams, SphericalGaussian
from lvm.families.gaussian_full import FullGaussian, FullGaussianParams
from lvm.families.gaussian_orientations import SharedMatrices
from lvm.families.gaussian_structures import SharedVariances, SphericalVariances
from lvm.kernels.covariance import COLLINEAR, EPS


class _Floored:
    """What the floored structures share.

    Parameters
    ----------
    family : GaussianFamily
        The family without floors.
    floor : ndarray of shape (d,)
        Least variance of each feature, > 0.
    """

    floor: Array

    def __init__(self, family: Any, floor: Array) -> None:
        vars(self).update(vars(family))
        self.floor = floor

    def __repr__(self) -> str:
        return f"{type(self).__name__}(least variance {self.floor.min():g})"


@final
class FlooredFullGaussian(_Floored, SharedMatrices):
    """Each component has its own covariance matrix C, with C - diag(floor) positive semidefinite.

    With columns in units of the floors' roots, the M-step is that of the scatter with eigenvalues of at least 1: for
    any eigenvalues its axes minimise tr(C^-1 S) (von Neumann), and -log v - s / v falls beyond s.
    """

    structure: ClassVar[str] = "VVV"

    def _structured(self, scatters: Array, counts: Array, old: Array) -> Array:
        units = np.sqrt(self.floor)
        values, axes = np.linalg.eigh(scatters / units / units[:, None])
        lifted = (axes * np.maximum(values, 1.0)[:, None]) @ np.swapaxes(axes, 1, 2)
        # Rounding of the largest eigenvalue moves those at the floor, where the likelihood is not flat.
        rounding = COLLINEAR * EPS * len(units) * values[:, -1]
        moved = np.abs(lifted - old / units / units[:, None]).max(axis=(1, 2)) > rounding
        lifted = np.where(moved[:, None, None], lifted * units * units[:, None], old)
        return np.where((values[:, 0] < 1.0)[:, None, None], lifted, scatters)

    def confined(self, params: FullGaussianParams) -> FullGaussianParams:
        """Return the parameters that keep the floor, and are nearest to those given."""
        return self.params(params.means, self.nearest(params.covariances))


class _FlooredVariances(_Floored, SharedVariances):
    """What the axis-aligned structures share."""

    def confined(self, params: DiagGaussianParams) -> DiagGaussianParams:
        """Return the parameters that keep the floor, and are nearest to those given."""
        return self.params(params.means, self.nearest(params.covariances))

    def from_vector(self, vector: Array, origin: DiagGaussianParams) -> DiagGaussianParams:
        """Return the parameters that keep the floor, and are nearest to those with these coordinates."""
        return self.confined(super().from_vector(vector, origin))


@final
class FlooredDiagGaussian(_FlooredVariances):
    """Each component has a variance per feature, not below the floor of the feature."""

    structure: ClassVar[str] = "VVI"

    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        return np.maximum(squares / np.where(weights > 0, weights, 1.0), self.floor)


@final
class FlooredSphericalGaussian(_FlooredVariances, SphericalVariances):
    """Each component has one variance for all features, not below the mean of their floors."""

    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        variances = squares.sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
        return np.repeat(np.maximum(variances, self.floor.mean()), squares.shape[1], axis=1)

    def nearest(self, covariances: Array) -> Array:
        """Return the variances that keep the floor and are nearest."""
        return np.asarray(np.maximum(covariances, self.floor.mean()))

    def _axis_params(self, means: Array, variances: Array) -> DiagGaussianParams:
        return self.params(means, np.repeat(max(variances.mean(), self.floor.mean()), len(means)))


# Where covariances share parts, a floor of one would bend the others: these have a reg_covar in its place.
FLOORED: Mapping[type, Any] = {
    FullGaussian: FlooredFullGaussian,
    DiagGaussian: FlooredDiagGaussian,
    SphericalGaussian: FlooredSphericalGaussian,
}
