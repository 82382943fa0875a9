"""Posterior deviations of a Bayesian regression's coefficients and errors of its precisions, and their table."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted, validate_data

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.model_inference import Column, Fitted, in_shape, lines_of
from lvm.estimators.summary import Summary, check_level
from lvm.marginals import feature_names
from lvm.models.evidence_regression import EvidenceParams, EvidenceRegression, RegressionRows, regression_moments


class EvidenceInference:
    """What a fitted Bayesian regression says of the precision of its parameters."""

    prior: str
    fit_intercept: bool
    coef_: Array
    intercept_: float
    alpha_: float
    lambda_: Any
    sigma_: Array
    X_offset_: Array

    def standard_errors(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, kind: str = "observed"
    ) -> dict[str, Any]:
        """Return the posterior standard deviations of the coefficients, and standard errors of the precisions.

        Coefficients are latent variables: what there is to know of them is their posterior given the fitted precisions,
        `sigma_`; that of the intercept has a flat prior. The precisions are parameters, with errors by the curvature
        of the log evidence in their logarithms. The deviations of the coefficients do not reflect these.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The features that the regression was fitted to.
        y : array-like of shape (n,)
            The targets.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies.
        kind : {"observed"}
            By the negative second derivatives of the log evidence, the only one: the rows share the coefficients, so
            that they are one observation of the precisions, and there are no independent scores to sum.

        Returns
        -------
        dict
            "coef", "intercept", "alpha" and "lambda", in the shapes of the fitted attributes. Of features that are
            pruned the coefficient has 0 and the precision NaN. NaN also, with a warning, of precisions at their bound
            or not determined by the data.

        Raises
        ------
        ValueError
            If `kind` is another, or the data do not fit the model.

        References
        ----------
        MacKay (1992), "Bayesian interpolation", Neural Computation 4, section 4.4: errors of the logarithms.

        Examples
        --------
        >>> import lvm, numpy as np
        >>> X = np.arange(8.0)[:, None]
        >>> y = 3 * X[:, 0] + 1 + np.array([0.1, -0.2, 0.1, 0.0, -0.1, 0.2, 0.0, -0.1])
        >>> regression = lvm.BayesianLinearRegression().fit(X, y)
        >>> regression.standard_errors(X, y)["coef"].round(3)
        array([0.02])
        """
        fitted = self._target(X, y, sample_weight, kind)
        return self._with_coefficients(fitted.errors(kind), float(fitted.rows.size[0]))

    def summary(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        kind: str = "observed",
        level: float = 0.95,
    ) -> Summary:
        """Return a table of coefficients and precisions with their errors and intervals.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The features that the regression was fitted to.
        y : array-like of shape (n,)
            The targets.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies.
        kind : {"observed"}
            How standard errors are found, see `standard_errors`.
        level : float
            Coverage of the intervals, within (0, 1): central credible intervals of the coefficients, which are normal;
            for precisions normal ones of their logarithms, so that they stay positive.

        Returns
        -------
        Summary
            Prints as a table; `to_frame()` makes it a data frame, `estimates` is the list of its lines. Its
            log-likelihood is the log evidence.
        """
        check_level(level)
        fitted = self._target(X, y, sample_weight, kind)
        size, features = float(fitted.rows.size[0]), (feature_names(self),)
        errors = self._with_coefficients(fitted.errors(kind), size)
        columns = {
            "intercept": Column(()),
            "coef": Column(features),
            "alpha": Column((), "log"),
            "lambda": Column(() if self.prior == "shared" else features, "log"),
        }
        if not self.fit_intercept:
            del columns["intercept"]
        lines = lines_of(self, errors, columns)
        title = f"{type(self).__name__}, {self.prior} prior"
        loglik, count = fitted.total()[0], fitted.n_parameters()
        return Summary(title, lines, level, kind, size, loglik, count, "", "log evidence")

    def _target(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, kind: str) -> Fitted:
        if kind != "observed":
            raise ValueError(
                f"kind must be 'observed' for {type(self).__name__}, got {kind!r}: all rows together are one "
                "observation of the precisions, so that there are no independent scores."
            )
        check_is_fitted(self)
        data, targets = validate_data(self, X, y, reset=False, dtype="numeric", y_numeric=True)
        weight = _checks.sample_weight(sample_weight, len(data))
        moments = regression_moments(data, targets, weight, self.fit_intercept)
        model = EvidenceRegression(self.prior, self._least_noise(moments.rows))
        rows = model.canonical(moments.rows)
        varies = np.diagonal(rows.gram[0]) > 0
        prior = np.where(varies, 1 / np.broadcast_to(np.asarray(self.lambda_, np.float64), varies.shape), 0.0)
        params = EvidenceParams(np.array([1 / self.alpha_]), prior)

        def values(params: EvidenceParams) -> dict[str, Array]:
            precision = 1 / params.prior[prior > 0]
            return {"alpha": 1 / params.noise[0], "lambda": precision[:1] if self.prior == "shared" else precision}

        return Fitted(model, rows, params, values)

    @abstractmethod
    def _least_noise(self, rows: RegressionRows) -> float:
        """Return the bound of the noise variance."""

    def _with_coefficients(self, found: dict[str, Array], size: float) -> dict[str, Any]:
        """Return errors of all attributes from those of the precisions."""
        deviations = np.sqrt(np.diagonal(self.sigma_))
        intercept = np.sqrt(1 / (self.alpha_ * size) + self.X_offset_ @ self.sigma_ @ self.X_offset_)
        errors: dict[str, Any] = {"coef": deviations, "intercept": intercept if self.fit_intercept else 0.0}
        errors["alpha"] = found["alpha"]
        if self.prior == "shared":
            errors["lambda"] = found["lambda"][0] if len(found["lambda"]) else np.nan
        else:
            errors["lambda"] = np.full(len(deviations), np.nan)
            errors["lambda"][np.isfinite(self.lambda_)] = found["lambda"]
        return in_shape(errors)
