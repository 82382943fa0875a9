"""How far components have shrunk: how many rows are behind each, and how flat it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lvm._jit import Array
from lvm.estimators.fitted import FittedMixture
from lvm.marginals import marginal_covariances
from lvm.models.mixture import MixtureParams

# A standard deviation below a hundredth of the data's, in some direction, is of rounded or repeated values, or of a
# component on a few rows, more often than of a group.
FLAT = 1e-4


class Shrinkage(NamedTuple):
    """What tells shrinking components, see `Shrinking.shrinkage`.

    Attributes
    ----------
    rows : ndarray of shape (K,)
        Weight in rows: the sum of the responsibilities for each component.
    smallest : ndarray of shape (K,)
        Smallest eigenvalue of each covariance, of columns scaled to a variance of 1 in the data.
    condition : ndarray of shape (K,)
        Largest eigenvalue over the smallest.
    n_features : int
        Number of columns.
    """

    rows: Array
    smallest: Array
    condition: Array
    n_features: int

    def suspicions(self) -> list[str]:
        """Return a line for each component that hardly any rows support, or that is nearly singular.

        Those have no more rows than columns, or an eigenvalue below 1e-4: their likelihood is high because they are
        flat, not because they describe a group (McLachlan & Peel, 2000, section 3.10, "spurious local maximisers").
        """
        few, flat = self.rows <= self.n_features, self.smallest < FLAT
        return [
            f"component {k} has shrunk: {self.rows[k]:.1f} rows of weight, and its smallest standard deviation is "
            f"{np.sqrt(self.smallest[k]):.2g} of the data's; try more starts, lower n_components or raise reg_covar."
            for k in np.flatnonzero(few | flat)
        ]


class Shrinking(FittedMixture):
    """Base of the Gaussian mixtures, whose components can shrink."""

    means_: Array

    def shrinkage(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Shrinkage:
        """Return what tells shrinking components: rows behind each, smallest eigenvalue, condition number.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, as the mixture was fitted to.
        sample_weight : array-like of shape (n,), optional
            Row weights.

        Returns
        -------
        Shrinkage
            Its `suspicions()` are lines about the components that have shrunk.
        """
        model, rows, params = self._weighted(X, sample_weight, None)
        cells = np.asarray(self._validate(X, reset=False), np.float64)
        weight = np.ones(len(cells)) if rows.weight is None else rows.weight
        K, d = self.means_.shape
        covariances = marginal_covariances(self, range(d))
        variances = _variances(cells, weight)
        scale = np.sqrt(np.where(variances > 0, variances, 1.0))
        eigenvalues = np.linalg.eigvalsh(covariances / scale / scale[:, None])
        smallest = np.maximum(eigenvalues[:, 0], 0.0)  # rounding may leave less
        with np.errstate(divide="ignore"):
            condition = eigenvalues[:, -1] / smallest
        counts = weight @ model.responsibilities(rows, params)
        return Shrinkage(counts[:K], smallest, condition, d)

    def _is_spurious(self, X: Any, weight: Array | None) -> Callable[[MixtureParams], bool]:
        """Return what tells parameters that `Shrinkage.suspicions` would say something of, fitted to rows X."""
        cells = np.asarray(X, np.float64)
        total = np.ones(len(cells)) if weight is None else weight
        n_rows, variances = total.sum(), _variances(cells, total)
        squared = np.where(variances > 0, variances, 1.0)
        scale = np.sqrt(squared)

        def is_spurious(params: MixtureParams) -> bool:
            means, covariances = params.components.means, params.components.covariances
            if covariances.ndim == 3:
                smallest = np.linalg.eigvalsh(covariances / scale / scale[:, None])[:, 0]
            else:
                smallest = covariances.reshape(len(covariances), -1) / squared
            few = n_rows * params.weights[: len(means)] <= means.shape[1]
            return bool(few.any() or (smallest < FLAT).any())

        return is_spurious


def _variances(cells: Array, weight: Array) -> Array:
    """Return the weighted variances of what is observed in the columns of cells (n, d), NaN where missing."""
    behind = np.where(np.isnan(cells), 0.0, weight[:, None])
    total = behind.sum(axis=0)
    centred = np.nan_to_num(cells - np.nansum(behind * np.nan_to_num(cells), axis=0) / total)
    return np.asarray((behind * centred**2).sum(axis=0) / total)


def suspicions(estimator: Any, X: ArrayLike, sample_weight: ArrayLike | None = None) -> list[str]:
    """Return lines about the components that have shrunk; none for mixtures of other components.

    Parameters
    ----------
    estimator : estimator
        A fitted mixture.
    X : array-like of shape (n, d)
        Its observations.
    sample_weight : array-like of shape (n,), optional
        Row weights.
    """
    return estimator.shrinkage(X, sample_weight).suspicions() if isinstance(estimator, Shrinking) else []
