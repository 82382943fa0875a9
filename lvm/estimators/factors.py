"""What the estimators of one Gaussian with latent factors share: fitting, scores of the factors, likelihoods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from lvm import _checks, initialize
from lvm._jit import Array, canonical
from lvm.estimators.factor_inference import FactorInference
from lvm.estimators.numbers import numeric_table
from lvm.estimators.outcome import keep_outcome
from lvm.estimators.progress import FITS
from lvm.families.gaussian import moments_of_columns
from lvm.kernels.covariance import NOISE
from lvm.models.factor_analysis import FactorModel, FactorParams, MomentRows, posterior_factors, sample_moments
from lvm.models.factor_rotation import ROTATIONS, rotated
from lvm.protocol import Rows
from lvm.result import warn

AT_BOUND = 1e-6  # relative distance from the bound within which a noise variance is said to be on it


@dataclass(eq=False, repr=False, kw_only=True)
class FactorEstimator(FactorInference, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]  # no stubs
    """What both estimators share: all but the form of the noise."""

    _mixes = False  # for saving: there are no mixing weights
    _isotropic: ClassVar[bool]

    n_factors: int = field(default=1, kw_only=False)
    rotation: str | None = None
    min_noise_variance: float = 0.005
    tol: float = 1e-9
    max_iter: int = 1000
    random_state: Any = None
    n_jobs: int | None = None
    acceleration: str | None = "anderson"

    # ----- fitting --------------------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit means, loadings and noise variances by expectation-maximisation.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights, >= 0; a row of weight 2 counts as two equal rows.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If an argument is out of its range, there are too many factors, or a column is constant.
        """
        self._check_parameters()
        data = self._validate(X, reset=True)
        self._check_n_factors()
        weight = _checks.sample_weight(sample_weight, len(data))
        if weight is not None and np.count_nonzero(weight) < 2:
            raise ValueError("sample_weight is > 0 for one row alone; a covariance needs at least two.")
        if weight is not None:
            data, weight = data[weight > 0], canonical(weight[weight > 0])
        rows = FactorModel().canonical(Rows(data, weight))
        variance = self._variances(rows)
        floor = self.min_noise_variance * (variance.mean() if self._isotropic else variance)
        model = FactorModel(self._isotropic, floor)
        complete = isinstance(rows.X, np.ndarray)
        moments = sample_moments(rows.X if complete else canonical(initialize.filled(data)), rows.weight)
        result = FITS[self.acceleration](
            model,
            moments if complete else rows,
            model.start(moments, self.n_factors),
            tol=self.tol,
            max_iter=self.max_iter,
            n_jobs=self.n_jobs,
        )
        params: FactorParams = result.params
        scale = np.ones(len(variance)) if self._isotropic else np.sqrt(np.diagonal(params.covariance))
        self.mean_ = params.mean
        self.loadings_, self.factor_correlations_ = rotated(
            params.loadings, params.noise_variances, scale, self.rotation
        )
        self._set_noise(params.noise_variances)
        self.saturated_loglik_ = _saturated_loglik(moments) if complete else float("nan")
        self.total_weight_ = float(len(data) if weight is None else weight.sum())
        self._warn(params.noise_variances, floor, keep_outcome(self, result))
        return self

    def _check_parameters(self) -> None:
        _checks.integer("n_factors", self.n_factors, 1)
        if self.rotation is not None:
            _checks.choice("rotation", self.rotation, ROTATIONS)
        if not _checks.real("min_noise_variance", self.min_noise_variance, 0.0) < 1:
            raise _checks.ParameterError(
                f"min_noise_variance is a share of the variance and must be < 1, got {self.min_noise_variance}."
            )
        _checks.real("tol", self.tol, 0.0)
        _checks.integer("max_iter", self.max_iter, 0)
        if self.acceleration is not None:
            _checks.choice("acceleration", self.acceleration, ["anderson"])

    def _check_n_factors(self) -> None:
        if self.n_factors >= self.n_features_in_:
            raise ValueError(
                f"n_factors={self.n_factors} must be less than n_features = {self.n_features_in_}; lower n_factors or "
                "add columns."
            )

    @abstractmethod
    def _set_noise(self, noise: Array) -> None:
        """Set `noise_variance_`, from one number for each feature."""

    def _validate(self, X: Any, reset: bool) -> Array:
        return np.asarray(numeric_table(self, X, reset, accepts_missing=True, min_rows=2), np.float64)

    def _variances(self, rows: Rows) -> Array:
        """Return the variances (d,) of what is observed; refuse constant columns."""
        d = rows.X.shape[1]
        weight = canonical(np.ones(len(rows.X))) if rows.weight is None else rows.weight
        mean, variance = np.empty(d), np.empty(d)
        moments_of_columns(rows.X, weight, mean, variance)
        for column in np.flatnonzero(variance <= (NOISE * mean) ** 2):
            raise ValueError(
                f"column {self._name(int(column))} of X is constant; remove it, it has nothing to explain."
            )
        _checks.representable(rows.X if isinstance(rows.X, np.ndarray) else rows.X.parts()[0], variance)
        return variance

    def _name(self, column: int) -> str:
        return _checks.column_name(column, getattr(self, "feature_names_in_", None))

    def _warn(self, noise: Array, floor: Array, is_unfinished: bool) -> None:
        at_bound = np.flatnonzero(noise <= (1 + AT_BOUND) * floor)
        if len(at_bound):
            what = (
                "the noise variance" if self._isotropic else f"the noise variance of column {self._name(at_bound[0])}"
            )
            warn(
                f"{what} is at its bound of {self.min_noise_variance:g} times the variance (Heywood case): the factors "
                "explain all of it, and inference is doubtful; lower n_factors, or add data.",
            )
        if is_unfinished:
            warn(
                f"EM did not converge (n_iter={self.n_iter_}): {self.status_}. Increase max_iter or tol.",
                ConvergenceWarning,
            )

    # ----- what users call ------------------------------------------------------------------------------------

    def transform(self, X: ArrayLike, return_cov: bool = False) -> Any:
        """Return the posterior means of the factors, shape (n, q): regression scores (Thomson).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.
        return_cov : bool
            Whether to return also the posterior covariances (n, q, q): read-only where they are all the same.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        means, covariances = posterior_factors(X, self.mean_, self.loadings_, self._noise(), self.factor_correlations_)
        return (means, covariances) if return_cov else means

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row in nats, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.
        """
        check_is_fitted(self)
        model = FactorModel()
        return model.loglik(model.canonical(Rows(self._validate(X, reset=False))), self._params())

    def n_parameters(self) -> int:
        """Return the number of free parameters: means, loadings less rotations, and noise variances."""
        check_is_fitted(self)
        return FactorModel(self._isotropic).n_parameters(self._params())

    def get_covariance(self) -> Array:
        """Return the covariance of the observations under the model, shape (d, d)."""
        check_is_fitted(self)
        return self._params().covariance

    def get_precision(self) -> Array:
        """Return the inverse of `get_covariance()`, shape (d, d)."""
        return np.asarray(np.linalg.inv(self.get_covariance()))

    def sample(self, n_samples: int = 1) -> Array:
        """Draw observations from the fitted model, shape (n_samples, d).

        Parameters
        ----------
        n_samples : int
            Number of rows.
        """
        check_is_fitted(self)
        _checks.integer("n_samples", n_samples, 1)
        return FactorModel().sample(self._params(), n_samples, check_random_state(self.random_state))[0]

    @property
    def components_(self) -> Array:
        """The transpose of the loadings, shape (q, d): scikit-learn's name and form."""
        return np.asarray(self.loadings_.T)

    @property
    def communalities_(self) -> Array:
        """Share of each feature's variance that the factors explain, shape (d,)."""
        explained = np.sum(self.loadings_ @ self.factor_correlations_ * self.loadings_, axis=1)
        return np.asarray(explained / (explained + self._noise()))

    @property
    def uniquenesses_(self) -> Array:
        """Share of each feature's variance that is noise, shape (d,): 1 - `communalities_`."""
        return np.asarray(self._noise() / np.diagonal(self._params().covariance))

    # ----- what these share -----------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return int(self.loadings_.shape[1])

    def _noise(self) -> Array:
        return np.broadcast_to(np.asarray(self.noise_variance_, np.float64), (self.n_features_in_,))

    def _params(self) -> FactorParams:
        """Return the parameters with uncorrelated factors."""
        root = np.linalg.cholesky(self.factor_correlations_)
        return FactorParams(np.asarray(self.mean_), self.loadings_ @ root, np.array(self._noise()))

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        """Return the shapes of the fitted arrays that predictions use."""
        d, q = self.n_features_in_, self.n_factors
        noise = () if self._isotropic else (d,)
        return {"mean_": (d,), "loadings_": (d, q), "noise_variance_": noise, "factor_correlations_": (q, q)}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _saturated_loglik(moments: MomentRows) -> float:
    """Return the log-likelihood under the moments themselves as parameters, inf where their covariance is singular."""
    (second,) = moments.second
    sign, log_det = np.linalg.slogdet(second)
    if sign <= 0 or moments.weight is None:
        return float("inf")
    d = len(second)
    return float(-0.5 * moments.weight[0] * (d * np.log(2 * np.pi) + log_det + d))
