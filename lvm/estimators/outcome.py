"""What every estimator keeps of an EM run, and the criteria that follow from a log-likelihood."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lvm import _checks
from lvm._jit import Array
from lvm.result import EMResult, Status


def keep_outcome(estimator: Any, result: EMResult) -> bool:
    """Set the fitted attributes that tell how EM ended; return whether it stopped before it converged, unasked."""
    estimator.loglik_ = result.loglik
    estimator.objective_trace_ = result.objective_trace
    estimator.status_ = result.status
    estimator.converged_ = result.converged
    estimator.n_iter_ = result.n_iter
    asked_for = result.status is Status.MAX_ITER and (estimator.tol == 0 or estimator.max_iter == 0)
    return not result.converged and not asked_for


def total_loglik(each: Array, weight: Array | None) -> tuple[float, float]:
    """Return the log-likelihood of all rows, from that of each (n,), and their total weight."""
    if weight is None:
        return float(each.sum()), float(len(each))
    counted = weight > 0  # a row of weight 0 may be impossible
    return float(each[counted] @ weight[counted]), float(weight.sum())


class LikelihoodCriteria:
    """Score and information criteria of an estimator that has `score_samples` and `n_parameters`."""

    @abstractmethod
    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row in nats, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.
        """

    @abstractmethod
    def n_parameters(self) -> int:
        """Return the number of free parameters."""

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per row (per unit of weight), in nats.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        """
        loglik, n = self._total(X, sample_weight)
        return loglik / n

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return Akaike's information criterion, -2 loglik + 2 n_parameters: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        """
        return -2 * self._total(X, sample_weight)[0] + 2 * self.n_parameters()

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the Bayesian information criterion, -2 loglik + n_parameters log n: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.
        sample_weight : array-like of shape (n,), optional
            Row weights; n is then their sum.
        """
        loglik, n = self._total(X, sample_weight)
        return -2 * loglik + self.n_parameters() * float(np.log(n))

    def _total(self, X: ArrayLike, sample_weight: ArrayLike | None) -> tuple[float, float]:
        each = self.score_samples(X)
        return total_loglik(each, _checks.sample_weight(sample_weight, len(each)))
