"""What all Gaussian structures share: regularisation, thresholds, and the neutral start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.kernels.moments import column_moments, sums_of_squares
from lvm.protocol import DegenerateError

Params = TypeVar("Params", bound=Any)


class GaussianFamily(ABC, Generic[Params]):
    """Base of the Gaussian structures.

    Parameters
    ----------
    reg_covar : float
        Added to every variance in the M-step, in squared units of the data. This is the exact M-step of
        the expected log-likelihood under a blur of the data by independent noise of this variance,

        Q(theta) - reg_covar / 2 * sum_k N_k tr(inverse covariance_k),

        so EM climbs that penalised objective (`log_penalty`) and stays monotone. 0 is maximum likelihood.
    dtype : {float64, float32}
        Of the rows, and of the arithmetic of the densities and of the moments of a few hundred rows; parameters,
        statistics and log-likelihoods are float64.
    """

    def __init__(self, reg_covar: float = 0.0, dtype: DTypeLike = np.float64) -> None:
        if not 0 <= reg_covar < np.inf:
            raise ValueError(f"reg_covar must be finite and >= 0, got {reg_covar}.")
        self.reg_covar = float(reg_covar)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float64, np.float32):
            raise ValueError(f"dtype must be float64 or float32, got {self.dtype}.")
        self._eps = float(np.finfo(self.dtype).eps)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reg_covar={self.reg_covar:g})"

    @abstractmethod
    def params(self, means: Array, covariances: Array) -> Params:
        """Return parameters from means (K, d) and covariances in the shape of the structure."""

    @abstractmethod
    def _axis_params(self, means: Array, variances: Array) -> Params:
        """Return parameters with the same variances (d,), all > 0, in every component."""

    @abstractmethod
    def _whitening(self, params: Params) -> Array:
        """Return factors (C, d, e) whose squares sum to the trace of each inverse covariance; C is K or 1."""

    @abstractmethod
    def _mean_variances(self, params: Params) -> Array:
        """Return the variance of each feature within components, on average, shape (d,)."""

    def _units(self, origin: Params) -> tuple[Array, Array]:
        """Return a location and a scale of each feature, (d,) each."""
        return origin.means.mean(axis=0), np.sqrt(self._mean_variances(origin))

    def canonical(self, X: Any) -> Array:
        """Return X in the family's dtype, C order, read-only; refuse NaN and infinities."""
        array: Array = canonical(X, self.dtype)
        _checks.matrix(array)
        _checks.finite(array)
        return array

    def start(self, X: Any, weight: Array, n_components: int) -> Params:
        """Return K equal components at the mean of X (n, d), with the variances of its columns."""
        mean, variance = np.empty(X.shape[1]), np.empty(X.shape[1])
        column_moments(self.canonical(X), canonical(weight), mean, variance)
        variance += self.reg_covar
        variance[variance == 0] = 1.0  # a constant column: any finite scale serves as a start
        return self._axis_params(np.repeat(mean[None], n_components, axis=0), variance)

    def log_penalty(self, params: Params) -> Array:
        """Return -reg_covar / 2 * tr(inverse covariance) of each component, shape (K,)."""
        penalty = np.zeros(len(params.means))
        if self.reg_covar > 0:
            sums_of_squares(self._whitening(params), penalty)
            penalty *= -0.5 * self.reg_covar
        return penalty


def refuse_singular(component: int, shared: bool = False) -> None:
    """Raise `DegenerateError` for a component >= 0 whose covariance is singular."""
    if component >= 0:
        which = "the shared covariance" if shared else f"the covariance of component {component}"
        raise DegenerateError(
            f"{which} is singular to rounding: its points coincide or lie in a subspace; lower n_components, "
            "set or increase reg_covar, remove constant or collinear columns, or scale the data."
        )
