"""Bayesian linear regression with the variances of noise and prior fitted by maximum evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.evidence_inference import EvidenceInference
from lvm.estimators.outcome import keep_outcome
from lvm.estimators.progress import FITS
from lvm.models.evidence_regression import (
    PRIORS,
    EvidenceParams,
    EvidenceRegression,
    RegressionRows,
    regression_moments,
)
from lvm.result import EMResult, warn

# Targets that the features explain fully have an evidence without bound: the noise keeps this share of their variance.
NOISE_SHARE = 1e-10
COARSE = 1e-6  # tolerance at which irrelevant features are left out first: EM creeps while they are in


@final
@dataclass(eq=False, repr=False, kw_only=True)
class BayesianLinearRegression(EvidenceInference, RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no stubs
    """Linear regression with normal priors on the coefficients, whose precisions are fitted by EM.

    The coefficients are latent variables. The precision of the noise and that of the prior, or one for each feature,
    maximise the evidence, in which the coefficients are integrated out (type II maximum likelihood). That is ridge
    regression whose penalty the data choose, without cross-validation. A few passes over the data take their second
    moments, which is all that iterations need. With `prior="relevance"`, features that the evidence is better without
    are pruned: their coefficient is 0, and their precision infinite.

    Parameters
    ----------
    prior : {"shared", "relevance"}
        Whether all coefficients share one prior precision, which makes the units of features matter, or each has its
        own (automatic relevance determination), which does not.
    fit_intercept : bool
        Whether there is an intercept: a parameter, without a prior.
    alpha_init : float, optional
        Starting precision of the noise, > 0; by default 1 / variance of y.
    lambda_init : float or array-like of shape (d,), optional
        Starting prior precision, > 0; by default such that all features together explain the variance of y.
    tol : float
        EM has converged when an iteration gains less than this, in nats per observation. 0 runs `max_iter` iterations.
    max_iter : int
        Largest number of iterations.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations; None is plain EM.

    Attributes
    ----------
    coef_ : ndarray of shape (d,)
        Posterior mean of the coefficients.
    intercept_ : float
        Intercept; 0 without one.
    alpha_ : float
        Precision of the noise, at most 1e10 / variance of y: targets that the features explain fully have no other.
    lambda_ : float or ndarray of shape (d,)
        Prior precision; one for each feature, inf where it is pruned, with `prior="relevance"`.
    sigma_ : ndarray of shape (d, d)
        Posterior covariance of the coefficients.
    X_offset_ : ndarray of shape (d,)
        Means of the features, about which they are taken; 0 without an intercept.
    loglik_ : float
        Log evidence, in nats.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        Log evidence, from the start on.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations; leaving out features counts as one.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any.

    References
    ----------
    MacKay (1992), "Bayesian interpolation". Tipping (2001), "Sparse Bayesian learning and the relevance vector
    machine". Bishop (2006), "Pattern Recognition and Machine Learning", sections 3.5 and 9.3.4. scikit-learn's
    `BayesianRidge` with alpha_1 = alpha_2 = lambda_1 = lambda_2 = 0 has the same optimum as `prior="shared"`.

    Examples
    --------
    >>> import lvm, numpy as np
    >>> X = np.arange(8.0)[:, None]
    >>> y = 3 * X[:, 0] + 1 + np.array([0.1, -0.2, 0.1, 0.0, -0.1, 0.2, 0.0, -0.1])
    >>> regression = lvm.BayesianLinearRegression().fit(X, y)
    >>> mean, std = regression.predict([[3.0], [30.0]], return_std=True)
    >>> mean.round(1), std.round(1)
    (array([10. , 90.9]), array([0.1, 0.6]))
    """

    _mixes = False  # for saving: there are no mixing weights

    prior: str = "shared"
    fit_intercept: bool = True
    alpha_init: float | None = None
    lambda_init: Any = None
    tol: float = 1e-8
    max_iter: int = 1000
    acceleration: str | None = None

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the precisions by expectation-maximisation, and the coefficients given those.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.
        y : array-like of shape (n,)
            Targets.
        sample_weight : array-like of shape (n,), optional
            Row weights, >= 0; a row of weight 2 counts as two equal rows.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If an argument is out of its range, there are fewer than two observations, or y does not vary.
        """
        self._check_parameters()
        data, targets = validate_data(self, X, y, dtype="numeric", y_numeric=True, ensure_min_samples=2)
        weight = _checks.sample_weight(sample_weight, len(data))
        self._check_targets(targets, weight)
        moments = regression_moments(data, targets, weight, self.fit_intercept)
        variance = _variance(moments.rows)
        model = EvidenceRegression(self.prior, NOISE_SHARE * variance)
        rows = model.canonical(moments.rows)
        result = self._run(model, rows, self._start(rows, variance))
        posterior = model.posterior(rows, result.params)
        self.coef_ = posterior.mean[0]
        self.sigma_ = posterior.covariance[0]
        self.X_offset_ = moments.features
        self.intercept_ = moments.target - float(moments.features @ self.coef_)
        self.alpha_ = 1 / float(result.params.noise[0])
        with np.errstate(divide="ignore"):
            precision = 1 / result.params.prior
        self.lambda_ = float(precision.min()) if self.prior == "shared" else precision
        if keep_outcome(self, result):
            warn(
                f"EM did not converge (n_iter={self.n_iter_}): {result.status}. acceleration='anderson' needs fewer.",
                ConvergenceWarning,
            )
        return self

    def predict(self, X: ArrayLike, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Return the mean of the predictive distribution of each row, shape (n,), and its standard deviation if asked.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Features.
        return_std : bool
            Whether to return also the standard deviation (n,): of the noise and of the coefficients, given the
            fitted precisions and intercept.
        """
        check_is_fitted(self)
        data = validate_data(self, X, reset=False, dtype="numeric")
        mean = np.asarray(data @ self.coef_ + self.intercept_)
        if not return_std:
            return mean
        centred = data - self.X_offset_
        variance = np.einsum("ni,ni->n", centred @ self.sigma_, centred)
        return mean, np.sqrt(np.maximum(variance, 0.0) + 1 / self.alpha_)

    def _check_parameters(self) -> None:
        _checks.choice("prior", self.prior, PRIORS)
        if not isinstance(self.fit_intercept, (bool, np.bool_)):
            raise _checks.ParameterError(f"fit_intercept must be True or False, got {self.fit_intercept!r}.")
        _checks.real("tol", self.tol, 0.0)
        _checks.integer("max_iter", self.max_iter, 0)
        if self.acceleration is not None:
            _checks.choice("acceleration", self.acceleration, ["anderson"])

    def _check_targets(self, y: Array, weight: Array | None) -> None:
        counted = y if weight is None else y[weight > 0]
        if len(counted) < 2:
            raise ValueError(
                f"there are n_samples={len(counted)} observations of positive weight; the variance of the noise "
                "needs at least 2."
            )
        low, high = counted.min(), counted.max()
        if low == high and (self.fit_intercept or low == 0):
            raise ValueError(f"y is {low} in every row: there is no variance to explain; give targets that vary.")

    def _start(self, rows: RegressionRows, variance: float) -> EvidenceParams:
        """Return starting variances; that of a feature that never varies is 0, as data say nothing of it."""
        scales = np.diagonal(rows.gram[0]) / rows.size[0]
        varies = scales > 0
        noise = variance if self.alpha_init is None else 1 / _positive("alpha_init", self.alpha_init, ())
        if self.lambda_init is not None:
            given = _positive("lambda_init", self.lambda_init, scales.shape if self.prior == "relevance" else ())
            prior = np.broadcast_to(1 / given, scales.shape)
        elif self.prior == "shared":
            prior = np.full(len(scales), variance / max(scales.sum(), np.finfo(np.float64).tiny))
        else:
            prior = variance / np.where(varies, scales * max(1, np.count_nonzero(varies)), np.inf)
        return EvidenceParams(np.array([float(noise)]), np.where(varies, prior, 0.0))

    def _run(self, model: EvidenceRegression, rows: RegressionRows, params: EvidenceParams) -> EMResult:
        """Return the end of EM, which goes on as long as features are worth leaving out, or taking back."""
        size = float(rows.size[0])
        tol = max(self.tol, COARSE) if self.prior == "relevance" and self.tol > 0 else self.tol
        trace: list[Array] = []
        while True:
            left = self.max_iter - sum(map(len, trace))
            result = FITS[self.acceleration](model, rows, params, tol=tol * size, max_iter=max(0, left))
            trace.append(result.objective_trace)
            if self.prior == "shared" or not result.converged or left < 1:
                break
            params = model.pruned(rows, result.params, tol * size)
            if np.array_equal(params.prior, result.params.prior) and tol == self.tol:
                break
            tol = self.tol
        n_iter = result.n_iter + sum(map(len, trace[:-1]))
        return result._replace(objective_trace=np.concatenate(trace), n_iter=n_iter)

    def _least_noise(self, rows: RegressionRows) -> float:
        return NOISE_SHARE * _variance(rows)

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        """Return the shapes of the fitted arrays that predictions use."""
        d = self.n_features_in_
        return {"coef_": (d,), "sigma_": (d, d), "X_offset_": (d,), "alpha_": (), "intercept_": ()}


def _variance(rows: RegressionRows) -> float:
    """Return the variance of the targets of a regression."""
    total = rows.residual[0] + rows.fit[0] @ rows.gram[0] @ rows.fit[0]
    return float(total / rows.size[0])


def _positive(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Return a starting precision, > 0: a number, or where a shape is given an array of that."""
    array = np.asarray(value, np.float64)
    if array.shape not in ((), shape) or not np.all(np.isfinite(array) & (array > 0)):
        expected = f" or an array of shape {shape}" if shape else ""
        raise _checks.ParameterError(f"{name} must be a finite number > 0{expected}, got {value!r}.")
    return array
