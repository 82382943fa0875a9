"""Standard errors of factor loadings and noise variances, and the table of the estimates."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.estimators.model_inference import Column, Fitted, in_shape, lines_of, summarise
from lvm.estimators.outcome import LikelihoodCriteria
from lvm.estimators.summary import Summary, check_level, estimates_of
from lvm.gradients.factors import gradient_of_factors
from lvm.marginals import feature_names
from lvm.models.factor_analysis import FactorModel, FactorParams, sample_moments
from lvm.models.factor_rotation import rotated
from lvm.protocol import Rows


class FactorInference(LikelihoodCriteria):
    """What fitted factors say of the precision of their parameters."""

    rotation: str | None
    min_noise_variance: float
    loadings_: Array
    factor_correlations_: Array
    _isotropic: ClassVar[bool]

    @abstractmethod
    def _params(self) -> FactorParams:
        """Return the parameters with uncorrelated factors."""

    @abstractmethod
    def _validate(self, X: Any, reset: bool) -> Array:
        """Return X checked."""

    @abstractmethod
    def _variances(self, rows: Rows) -> Array:
        """Return the variances (d,) of what is observed."""

    def standard_errors(
        self, X: ArrayLike, sample_weight: ArrayLike | None = None, kind: str = "sandwich"
    ) -> dict[str, Any]:
        """Return the standard errors of means, loadings and noise variances, by the observed information.

        The errors of loadings are those of the rotation that `rotation` names, which is a function of the data like
        the loadings themselves: without one, of loadings L for which L' Psi^-1 L is diagonal, of principal axes for
        `ProbabilisticPCA`; otherwise of the loadings after varimax or promax. They are found by the delta method
        through the rotation. Order and signs of the factors are taken as known. Where two factors explain about the
        same, the unrotated ones are hardly determined, and their errors large.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The observations that the model was fitted to, NaN where missing.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies: a row of weight 2 counts as two equal rows.
        kind : {"sandwich", "empirical", "observed"}
            By the sums J of the outer products of the rows' scores and H of their negative second derivatives:
            H^-1 J H^-1, which is right even where the data are not normal; J^-1, the cheapest; or H^-1.

        Returns
        -------
        dict
            Standard errors of "mean", "loadings", "noise_variance" and "communalities", and with promax
            "factor_correlations", in the shapes of the fitted attributes. NaN, with a warning, of a noise variance at
            its bound, and of what the data do not determine.

        Raises
        ------
        ValueError
            If the data do not fit the model, or there are fewer rows than parameters.

        References
        ----------
        Lawley & Maxwell (1971), "Factor analysis as a statistical method", chapter 5. Jennrich (1973), "Standard errors
        for obliquely rotated factor loadings", Psychometrika 38.
        """
        return in_shape(self._target(X, sample_weight).errors(kind))

    def summary(
        self, X: ArrayLike, sample_weight: ArrayLike | None = None, kind: str = "sandwich", level: float = 0.95
    ) -> Summary:
        """Return a table of the estimates with their standard errors and confidence intervals.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The observations that the model was fitted to, NaN where missing.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies.
        kind : {"sandwich", "empirical", "observed"}
            How standard errors are found, see `standard_errors`, and of which rotation.
        level : float
            Coverage of the intervals, within (0, 1): normal ones, of logarithms for noise variances, of log odds for
            communalities and of Fisher's z for correlations, so that they stay within the parameter's range.

        Returns
        -------
        Summary
            Prints as a table; `to_frame()` makes it a data frame, `estimates` is the list of its lines.
        """
        check_level(level)
        fitted = self._target(X, sample_weight)
        errors, features, q = fitted.errors(kind), feature_names(self), self.loadings_.shape[1]
        factors = [f"factor {j}" for j in range(q)]
        columns = {
            "mean": Column((features,)),
            "loadings": Column((features, factors)),
            "noise_variance": Column(() if self._isotropic else (features,), "log"),
            "communalities": Column((features,), "logit"),
        }
        lines = lines_of(self, errors, columns)
        if "factor_correlations" in errors:
            a, b = np.tril_indices(q, -1)
            pairs = [f"{factors[i]} x {factors[j]}" for i, j in zip(a, b, strict=True)]
            below = self.factor_correlations_[a, b], errors["factor_correlations"][a, b]
            lines += estimates_of("factor_correlations", *below, (pairs,), "atanh")
        title = f"{type(self).__name__}, {q} factors, {'unrotated' if self.rotation is None else self.rotation}"
        return summarise(title.replace(" 1 factors", " 1 factor"), fitted, lines, kind, level, "")

    def _target(self, X: ArrayLike, sample_weight: ArrayLike | None) -> Fitted:
        check_is_fitted(self)
        data = self._validate(X, reset=False)
        weight = _checks.sample_weight(sample_weight, len(data))
        if weight is not None:
            data, weight = data[weight > 0], canonical(weight[weight > 0])
        rows = FactorModel().canonical(Rows(data, weight))
        variance = self._variances(rows)
        floor = self.min_noise_variance * (variance.mean() if self._isotropic else variance)
        model, params = FactorModel(self._isotropic, floor), self._params()
        moments = sample_moments(rows.X, rows.weight) if isinstance(rows.X, np.ndarray) else rows

        def gradient(moved: FactorParams) -> Array:
            return gradient_of_factors(model, moments, moved, params)

        return Fitted(model, rows, params, self._values, None, gradient)

    def _values(self, params: FactorParams) -> dict[str, Array]:
        """Return the fitted attributes; factors have the order and signs of the fitted ones."""
        scale = np.sqrt(np.diagonal(params.covariance))
        units = np.ones(len(scale)) if self._isotropic else scale
        loadings, correlations = rotated(params.loadings, params.noise_variances, units, self.rotation)
        likeness = (self.loadings_ / scale[:, None]).T @ (loadings / scale[:, None])
        _, order = linear_sum_assignment(-np.abs(likeness))
        sign = np.where(likeness[np.arange(len(order)), order] < 0, -1.0, 1.0)
        found = {
            "mean": params.mean,
            "loadings": loadings[:, order] * sign,
            "noise_variance": params.noise_variances[0] if self._isotropic else params.noise_variances,
            "communalities": 1 - params.noise_variances / scale**2,
        }
        if self.rotation == "promax":
            correlations = correlations[np.ix_(order, order)] * np.outer(sign, sign)
            np.fill_diagonal(correlations, 1.0)  # not but for rounding
            found["factor_correlations"] = correlations
        return found
