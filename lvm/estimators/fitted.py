"""What a fitted mixture can do: predict, score, sample, and weigh itself against others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows


class FittedMixture(DensityMixin, BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no stubs
    """The methods of a mixture estimator that need no more than its fitted attributes."""

    random_state: Any
    weights_: Array

    @abstractmethod
    def _family(self, X: Any = None, weight: Array | None = None) -> Any:
        """Return the family that the constructor's arguments describe, for the rows X and weights where they matter."""

    @abstractmethod
    def _get_components(self) -> Any:
        """Return the family's parameters from the fitted attributes."""

    @abstractmethod
    def _validate(self, X: Any, reset: bool) -> Any:
        """Return X as a numeric array or matrix of the fitted width, finite."""

    def _get_params(self) -> MixtureParams:
        return MixtureParams(np.array(self.weights_, np.float64), self._get_components())

    def _fitted(self, X: Any) -> tuple[Mixture[Any], Rows, MixtureParams]:
        check_is_fitted(self)
        data = self._validate(X, reset=False)
        model = Mixture(self._family(data))
        return model, model.canonical(Rows(data)), self._get_params()

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the posterior probability of each component for each row, shape (n, K).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.

        Returns
        -------
        ndarray of shape (n, K)
            Responsibilities; each row sums to 1.

        Raises
        ------
        ValueError
            If a row has density 0 under every component; it names the row.
        """
        model, rows, params = self._fitted(X)
        return model.responsibilities(rows, params)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable component of each row, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        """
        model, rows, params = self._fitted(X)
        return model.most_probable(rows, params)

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row in nats, shape (n,); -inf where the row is impossible.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        """
        model, rows, params = self._fitted(X)
        return model.loglik(rows, params)

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per row (per unit of weight), in nats.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        """
        loglik, n = _total(*self._weighted(X, sample_weight, None))
        return loglik / n

    def sample(self, n_samples: int = 1) -> tuple[Any, NDArray[np.int64]]:
        """Draw rows from the fitted mixture.

        Parameters
        ----------
        n_samples : int
            Number of rows.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
            Rows, in the order of their components.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        return self._sample(self._family(), n_samples)

    def _sample(self, family: Any, n_samples: int) -> tuple[Any, NDArray[np.int64]]:
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one sample.")
        return Mixture(family).sample(self._get_params(), n_samples, check_random_state(self.random_state))

    def n_parameters(self) -> int:
        """Return the number of free parameters of the fitted mixture."""
        check_is_fitted(self)
        return Mixture(self._family()).n_parameters(self._get_params())

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None, labels: ArrayLike | None = None) -> float:
        """Return Akaike's information criterion, -2 loglik + 2 n_parameters: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        labels : array-like of shape (n,), optional
            Known components, -1 where unknown: the likelihood is then the one in which they are known.
        """
        return -2 * _total(*self._weighted(X, sample_weight, labels))[0] + 2 * self.n_parameters()

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None, labels: ArrayLike | None = None) -> float:
        """Return the Bayesian information criterion, -2 loglik + n_parameters log n: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights; n is then their sum.
        labels : array-like of shape (n,), optional
            Known components, -1 where unknown: the likelihood is then the one in which they are known.

        References
        ----------
        Schwarz (1978), "Estimating the dimension of a model". mclust's BIC is the negative of this one.
        """
        return _bic(*self._weighted(X, sample_weight, labels))

    def icl(self, X: ArrayLike, sample_weight: ArrayLike | None = None, labels: ArrayLike | None = None) -> float:
        """Return the integrated completed likelihood criterion: BIC - 2 sum log max_k r_ik; the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        labels : array-like of shape (n,), optional
            Known components, -1 where unknown: the likelihood is then the one in which they are known.

        References
        ----------
        Biernacki, Celeux & Govaert (2000), "Assessing a mixture model for clustering with the integrated
        completed likelihood". mclust's ICL is the negative of this one.
        """
        model, rows, params = self._weighted(X, sample_weight, labels)
        return _bic(model, rows, params) - 2 * model.classification_loglik(rows, params)

    def _weighted(
        self, X: ArrayLike, sample_weight: ArrayLike | None, labels: ArrayLike | None
    ) -> tuple[Mixture[Any], Rows, MixtureParams]:
        model, rows, params = self._fitted(X)
        n = len(rows.X)
        weight, known = _checks.sample_weight(sample_weight, n), _checks.labels(labels, n, len(params.weights))
        return model, rows._replace(weight=weight, labels=known), params


def _bic(model: Mixture[Any], rows: Rows, params: MixtureParams) -> float:
    loglik, n = _total(model, rows, params)
    return -2 * loglik + model.n_parameters(params) * float(np.log(n))


def _total(model: Mixture[Any], rows: Rows, params: MixtureParams) -> tuple[float, float]:
    """Return the log-likelihood of all rows and their total weight."""
    each = model.loglik(rows, params)
    if rows.weight is None:
        return float(each.sum()), float(len(each))
    counted = rows.weight > 0  # a row of weight 0 may be impossible
    return float(each[counted] @ rows.weight[counted]), float(rows.weight.sum())
