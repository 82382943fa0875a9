"""Mixtures of factor analysers: clusters of rows with many features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.estimators.base import MixtureEstimator
from lvm.estimators.documentation import documented
from lvm.estimators.gaussian import check_spread
from lvm.families.gaussian_factor import FactorGaussian
from lvm.kernels.moments import column_moments
from lvm.protocol import Rows


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class MixtureOfFactorAnalyzers(MixtureEstimator):
    """Mixture of Gaussian components with few factors each: clustering and reduction of the dimension together.

    Component k has the covariance L_k L_k' + Psi_k, with q columns in the loadings L_k and a diagonal Psi_k: between
    diagonal covariances (no factors) and full ones, for data with more features than a full covariance can be estimated
    of. An iteration takes n x d x q operations per component, and nothing has the size d x d.

    Parameters
    ----------
    n_components : int
        Number of components.
    n_factors : int
        Number q of factors of each component.
    min_noise_variance : float
        What a noise variance cannot fall below, as a share of its feature's variance in all data; keeps components from
        collapsing.
    means_init : array-like of shape (n_components, d), optional
        Starting means; rows are assigned to the nearest for the parameters not given.
    loadings_init : array-like of shape (n_components, d, n_factors), optional
        Starting loadings.
    noise_variances_init : array-like of shape (n_components, d), optional
        Starting noise variances.
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    means_ : ndarray of shape (n_components, d)
        Means.
    loadings_ : ndarray of shape (n_components, d, n_factors)
        Loadings, such that L' Psi^-1 L is diagonal and descending, and the largest of each column is > 0.
    noise_variances_ : ndarray of shape (n_components, d)
        Noise variances.
    covariances_ : ndarray of shape (n_components, d, d)
        Covariances, made when asked for.
    <fitted attributes>

    References
    ----------
    Ghahramani & Hinton (1996), "The EM algorithm for mixtures of factor analyzers", technical report CRG-TR-96-1.
    McLachlan & Peel (2000), "Finite Mixture Models", chapter 8.

    Examples
    --------
    >>> import lvm, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> loadings = rng.normal(size=(2, 1, 20))
    >>> z = np.arange(400) % 2
    >>> X = 2.0 * z[:, None] + rng.normal(size=(400, 1)) * loadings[z, 0] + rng.normal(size=(400, 20))
    >>> mixture = lvm.MixtureOfFactorAnalyzers(2, random_state=0).fit(X)
    >>> labels = mixture.predict(X)
    >>> float(max(np.mean(labels == z), np.mean(labels != z)))
    1.0
    """

    _min_rows = 2
    _family_type = FactorGaussian

    acceleration: str | None = "anderson"
    n_factors: int = 1
    min_noise_variance: float = 1e-4
    means_init: ArrayLike | None = None
    loadings_init: ArrayLike | None = None
    noise_variances_init: ArrayLike | None = None

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _checks.integer("n_factors", self.n_factors, 1)
        if not _checks.real("min_noise_variance", self.min_noise_variance, 0.0) < 1:
            raise _checks.ParameterError(
                f"min_noise_variance is a share of the variance and must be < 1, got {self.min_noise_variance}."
            )

    def _family(self, X: Any = None, weight: Array | None = None) -> FactorGaussian:
        if self.min_noise_variance == 0 or X is None:
            return FactorGaussian(self.n_factors, held=self._held())
        X = canonical(X)
        mean, variance = np.empty(X.shape[1]), np.empty(X.shape[1])
        column_moments(X, canonical(np.ones(len(X))) if weight is None else weight, mean, variance)
        variance[variance == 0] = float(np.min(variance[variance > 0], initial=1.0))  # a constant column: any unit
        return FactorGaussian(self.n_factors, self.min_noise_variance * variance, self._held())

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        K, d = n_components, self.n_features_in_
        return {"means_": (K, d), "loadings_": (K, d, self.n_factors), "noise_variances_": (K, d)}

    def _check_data(self, rows: Rows) -> None:
        d = rows.X.shape[1]
        if self.n_factors >= d:
            raise ValueError(
                f"n_factors={self.n_factors} must be less than n_features = {d}; lower n_factors or add columns."
            )
        check_spread(rows, self.n_components, 0.0 if self.min_noise_variance == 0 else np.finfo(np.float64).tiny)

    def _check_value(self, name: str, array: Array) -> None:
        if name == "noise_variances" and np.any(array <= 0):
            raise ValueError(f"The parameter 'noise_variances' should be positive, but got {np.nanmin(array)}.")

    def _start_centres(self) -> Array | None:
        means = self._given()["means"]
        return None if np.isnan(means).any() else means

    def _set_components(self, components: Any) -> None:
        super()._set_components(components)
        held = self._held().get("loadings", np.zeros(self.n_components, np.bool_))
        loadings = components.loadings.copy()
        for k in np.flatnonzero(~held):
            loadings[k] = _canonical_rotation(loadings[k], components.noise_variances[k])
        self.loadings_ = loadings

    def _values_by_name(self, components: Any) -> dict[str, Array]:
        """Return the parameters as the fitted attributes are, the loadings turned: what standard errors are of."""
        values = super()._values_by_name(components)
        turned = values["loadings"].copy()
        for k in np.flatnonzero(~self._held().get("loadings", np.zeros(len(turned), np.bool_))):
            turned[k] = _canonical_rotation(turned[k], values["noise_variances"][k])
            likeness = np.sum(turned[k] * self.loadings_[k], axis=0)
            turned[k] *= np.where(likeness < 0, -1.0, 1.0)  # signs do not jump
        return {**values, "loadings": turned}

    def _described(self, columns: Sequence[int]) -> tuple[str, list[list[str]]]:
        deviations = np.sqrt(np.square(self.loadings_).sum(axis=2) + self.noise_variances_)
        cells = [[f"{m[j]:.4g} ({s[j]:.4g})" for j in columns] for m, s in zip(self.means_, deviations, strict=True)]
        return "mean (standard deviation)", cells

    @property
    def covariances_(self) -> Array:
        """Covariances of the components, shape (n_components, d, d)."""
        noise = self.noise_variances_[:, :, None] * np.eye(self.n_features_in_)
        return np.asarray(self.loadings_ @ np.swapaxes(self.loadings_, 1, 2) + noise)

    def factor_scores(self, X: ArrayLike) -> Array:
        """Return the posterior means of the factors of each row in each component, shape (n, n_components, n_factors).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        """
        check_is_fitted(self)
        _, rows, params = self._fitted(X)
        of_each = params.components
        means = np.empty((len(rows.X), len(of_each.means), self.n_factors))
        for k, coefficients in enumerate(of_each.posterior[:, : self.n_factors] * of_each.inverse_scales[:, None]):
            means[:, k] = (rows.X - of_each.means[k]) @ coefficients.T
        return means


def _canonical_rotation(loadings: Array, noise: Array) -> Array:
    """Return loadings (d, q) whose factors are turned such that L' Psi^-1 L is diagonal and descending."""
    _, _, axes = np.linalg.svd(loadings / np.sqrt(noise)[:, None], full_matrices=False)
    turned = loadings @ axes.T
    largest = turned[np.abs(turned).argmax(axis=0), range(turned.shape[1])]
    return np.asarray(turned * np.where(largest < 0, -1.0, 1.0))
