"""What a fitted mixture of regressions can do: predict, assign rows to components, score and draw responses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.estimators.expert_data import (
    SIZES,
    Groups,
    Response,
    check_response,
    check_size,
    find_groups,
    gating_columns,
    of_groups,
    plain_columns,
    regression_rows,
)
from lvm.estimators.outcome import total_loglik
from lvm.models.count_experts import CountExpertsParams
from lvm.models.expert_rows import ExpertsRows, RegressionRows
from lvm.models.experts import ExpertsParams, GatedExperts
from lvm.models.gates import ConstantGateParams, SoftmaxGateParams
from lvm.models.gaussian_experts import GaussianExpertsParams
from lvm.models.multinomial_experts import MultinomialExpertsParams

EXPERTS = ["gaussian", "poisson", "binomial", "multinomial"]
GATINGS = ["constant", "softmax"]


def _joined(intercepts: Array, slopes: Array) -> Array:
    return np.ascontiguousarray(np.concatenate([intercepts[..., None], slopes], axis=-1))


def _has_proba(estimator: Any) -> bool:
    return bool(estimator.expert == "multinomial" or estimator.gating == "softmax")


class FittedExperts:
    """The methods of a mixture of regressions that need no more than its fitted attributes."""

    expert: str
    gating: str
    random_state: Any
    n_features_in_: int
    weights_: Array
    coefficients_: Array
    intercepts_: Array
    scales_: Array
    gating_coefficients_: Array
    gating_intercepts_: Array
    classes_: NDArray[Any]
    gates_apart_: bool
    gating_feature_names_in_: NDArray[Any]

    # ----- what the estimator says ----------------------------------------------------------------------------

    def _experts(self, bounds: Array) -> Any:
        raise NotImplementedError

    def _gate(self, bounds: Array | None) -> Any:
        raise NotImplementedError

    # ----- from attributes to the model -----------------------------------------------------------------------

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        """Return the shapes of the fitted attributes, for files."""
        K, d = n_components, self.n_features_in_
        middle: tuple[int, ...] = ()
        if self.expert == "multinomial":
            middle = (len(getattr(self, "classes_", ())),)
        shapes: dict[str, Any] = {"coefficients_": (K, *middle, d), "intercepts_": (K, *middle)}
        if self.expert == "gaussian":
            shapes["scales_"] = (K,)
        if self.gating == "softmax":
            own = getattr(self, "gates_apart_", False)
            q = np.shape(getattr(self, "gating_coefficients_", ((),)))[-1] if own else d
            shapes |= {"gating_coefficients_": (K, q), "gating_intercepts_": (K,)}
        return shapes

    def _gating(self, gating_X: ArrayLike | None, X: Array, reset: bool = False) -> Array:
        """Return the gate's covariates, X where they are not given."""
        if reset:
            self.gates_apart_ = gating_X is not None
        if gating_X is None:
            if self.gates_apart_:
                raise ValueError("give gating_X: the gate was fitted to covariates of its own.")
            return X
        if not self.gates_apart_:
            raise ValueError("leave gating_X out: the gate was fitted to X.")
        names = getattr(self, "gating_feature_names_in_", None)
        fitted = None if reset else (self.gating_coefficients_.shape[1], names)
        z, names = gating_columns(gating_X, len(X), fitted)
        if reset and names is not None:
            self.gating_feature_names_in_ = names
        return z

    def _covariates(self, X: ArrayLike, gating_X: ArrayLike | None) -> tuple[Array, Array | None]:
        """Return the designs of experts and gate, in the user's units."""
        check_is_fitted(self)
        checked = validate_data(self, X, reset=False, dtype=np.float64)
        if self.gating == "constant":
            if gating_X is not None:
                raise ValueError("gating_X is for gating='softmax'; leave it out with gating='constant'.")
            return plain_columns(checked), None
        return plain_columns(checked), plain_columns(self._gating(gating_X, checked))

    def _gated(self, X: ArrayLike, gating_X: ArrayLike | None) -> tuple[GatedExperts, ExpertsParams, Array, Array]:
        design, gate = self._covariates(X, gating_X)
        model, params = self._model(), self._get_params()
        return model, params, design, model.gate.probabilities(design if gate is None else gate, params.gate)

    def _model(self) -> GatedExperts:
        bounds = np.zeros((2, self.n_features_in_ + 1))
        gate = np.zeros((2, self.gating_coefficients_.shape[1] + 1)) if self.gating == "softmax" else None
        return GatedExperts(self._experts(bounds), self._gate(gate))

    def _get_params(self) -> ExpertsParams:
        coefficients = _joined(self.intercepts_, self.coefficients_)
        experts: Any
        if self.expert == "gaussian":
            experts = GaussianExpertsParams(coefficients, np.array(self.scales_))
        elif self.expert == "multinomial":
            experts = MultinomialExpertsParams(coefficients)
        else:
            experts = CountExpertsParams(coefficients)
        if self.gating == "constant":
            return ExpertsParams(ConstantGateParams(np.array(self.weights_)), experts)
        gate = SoftmaxGateParams(_joined(self.gating_intercepts_, self.gating_coefficients_))
        return ExpertsParams(gate, experts)

    def _rows(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gating_X: ArrayLike | None,
        groups: ArrayLike | None,
        exposure: ArrayLike | None,
        trials: ArrayLike | None,
    ) -> tuple[RegressionRows, Groups | None]:
        """Return canonical rows of new data, in the user's units, and their groups."""
        design, gate = self._covariates(X, gating_X)
        n = len(design)
        values = np.asarray(y)
        if values.shape != (n,):
            raise ValueError(f"y has shape {values.shape}, expected ({n},): one response per row of X.")
        if self.expert == "multinomial":
            check_response(self.expert, values, exposure, trials)
            codes = np.minimum(np.searchsorted(self.classes_, values), len(self.classes_) - 1)
            bad = np.flatnonzero(self.classes_[codes] != values)
            if len(bad):
                raise ValueError(f"y holds {values[bad[0]]!r} at row {bad[0]}, which is not among classes_.")
            response = Response(codes.astype(np.float64), None, None)
        else:
            numbers = values.astype(np.float64)
            bad = np.flatnonzero(~np.isfinite(numbers))
            if len(bad):
                raise ValueError(f"y must be finite; got {numbers[bad[0]]} at row {bad[0]}.")
            response = check_response(self.expert, numbers, exposure, trials)
        found = None if groups is None else find_groups(groups, n)
        return regression_rows(design, response, gate, found), found

    def _total(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, **more: ArrayLike | None
    ) -> tuple[float, float]:
        """Return the log-likelihood and the number, or total weight, of rows or groups."""
        rows, found = self._rows(X, y, *(more.get(name) for name in ("gating_X", "groups", "exposure", "trials")))
        each = self._model().loglik(ExpertsRows(rows), self._get_params())
        weight = _checks.sample_weight(sample_weight, len(rows.design))
        if weight is not None and found is not None:
            weight = of_groups(weight, found, "sample_weight")
        return total_loglik(each, weight)

    # ----- what users call ------------------------------------------------------------------------------------

    def predict(
        self,
        X: ArrayLike,
        gating_X: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
        trials: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """Return the expected response, or the most probable label, of each row, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts.
        gating_X : array-like of shape (n, q), optional
            Covariates of the gate, where it was fitted to others than X.
        exposure : array-like of shape (n,), optional
            For Poisson counts; 1 by default.
        trials : array-like of shape (n,), optional
            For binomial counts; 1 by default: the probability of a success.
        """
        if self.expert == "multinomial":
            best = self.predict_proba(X, gating_X).argmax(axis=1)
            return np.asarray(self.classes_[best])
        model, params, design, probabilities = self._gated(X, gating_X)
        means = np.einsum("ik,ki->i", probabilities, model.experts.means(design, params.experts))
        check_response(self.expert, np.zeros(len(design)), exposure, trials)
        if self.expert in SIZES:
            means *= check_size(self.expert, exposure if self.expert == "poisson" else trials, len(means))
        return np.asarray(means)

    @available_if(_has_proba)  # type: ignore[untyped-decorator]  # scikit-learn has no stubs
    def predict_proba(self, X: ArrayLike, gating_X: ArrayLike | None = None) -> Array:
        """Return a softmax gate's probability of each component, shape (n, K); of labels that of each, (n, n_classes).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts.
        gating_X : array-like of shape (n, q), optional
            Covariates of the gate, where it was fitted to others than X.
        """
        model, params, design, probabilities = self._gated(X, gating_X)
        if self.expert == "multinomial":
            return np.asarray(np.einsum("ik,kic->ic", probabilities, model.experts.means(design, params.experts)))
        return np.asarray(probabilities)

    def predict_components(self, X: ArrayLike) -> Array:
        """Return each component's expected response per unit of exposure or trial, shape (n, K).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts.

        Returns
        -------
        ndarray of shape (n, K) or (n, K, n_classes)
            Means; for multinomial experts the probabilities of the labels.
        """
        check_is_fitted(self)
        design = plain_columns(validate_data(self, X, reset=False, dtype=np.float64))
        return np.ascontiguousarray(np.swapaxes(self._model().experts.means(design, self._get_params().experts), 0, 1))

    def predict_gate_proba(self, gating_X: ArrayLike) -> Array:
        """Return the probability of each component before the response is seen, shape (n, K).

        Parameters
        ----------
        gating_X : array-like of shape (n, q)
            Covariates of the gate: X where it was fitted to that; of constant weights only the length counts.
        """
        check_is_fitted(self)
        if self.gating == "constant" or not self.gates_apart_:
            z = validate_data(self, gating_X, reset=False, dtype=np.float64)
        else:
            z = self._gating(gating_X, np.asarray(gating_X))
        return np.asarray(self._model().gate.probabilities(plain_columns(z), self._get_params().gate))

    def responsibilities(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gating_X: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
        trials: ArrayLike | None = None,
    ) -> Array:
        """Return the probability of each component given the response, shape (n, K).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts.
        y : array-like of shape (n,)
            Response.
        gating_X : array-like of shape (n, q), optional
            Covariates of the gate, where it was fitted to others than X.
        groups : array-like of shape (n,), optional
            Labels of groups; their rows have the same responsibilities.
        exposure : array-like of shape (n,), optional
            For Poisson counts.
        trials : array-like of shape (n,), optional
            For binomial counts.
        """
        rows, found = self._rows(X, y, gating_X, groups, exposure, trials)
        resp = self._model().responsibilities(ExpertsRows(rows), self._get_params())
        return resp if found is None else resp[found.inverse]

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        gating_X: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
        trials: ArrayLike | None = None,
    ) -> float:
        """Return R squared of the predictions, as scikit-learn's regressors do; for labels the accuracy.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts.
        y : array-like of shape (n,)
            Response.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        gating_X : array-like of shape (n, q), optional
            Covariates of the gate, where it was fitted to others than X.
        exposure : array-like of shape (n,), optional
            For Poisson counts.
        trials : array-like of shape (n,), optional
            For binomial counts.
        """
        metric = accuracy_score if self.expert == "multinomial" else r2_score
        return float(metric(y, self.predict(X, gating_X, exposure, trials), sample_weight=sample_weight))

    def n_parameters(self) -> int:
        """Return the number of free parameters of the fitted mixture."""
        check_is_fitted(self)
        return self._model().n_parameters(self._get_params())

    def aic(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, **more: ArrayLike | None
    ) -> float:
        """Return Akaike's information criterion, -2 loglik + 2 n_parameters: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts.
        y : array-like of shape (n,)
            Response.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        **more : array-like
            `gating_X`, `groups`, `exposure` or `trials`, as in `fit`.
        """
        return -2 * self._total(X, y, sample_weight, **more)[0] + 2 * self.n_parameters()

    def bic(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, **more: ArrayLike | None
    ) -> float:
        """Return the Bayesian information criterion, -2 loglik + n_parameters log n: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts.
        y : array-like of shape (n,)
            Response.
        sample_weight : array-like of shape (n,), optional
            Row weights; n is then their sum.
        **more : array-like
            `gating_X`, `groups`, `exposure` or `trials`, as in `fit`. With groups, n is their number.
        """
        loglik, n = self._total(X, y, sample_weight, **more)
        return -2 * loglik + self.n_parameters() * float(np.log(n))

    def sample(
        self,
        X: ArrayLike,
        gating_X: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
        trials: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Draw a response for each row of covariates.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts.
        gating_X : array-like of shape (n, q), optional
            Covariates of the gate, where it was fitted to others than X.
        exposure : array-like of shape (n,), optional
            For Poisson counts; 1 by default.
        trials : array-like of shape (n,), optional
            For binomial counts; 1 by default.

        Returns
        -------
        y : ndarray of shape (n,)
            Responses.
        components : ndarray of shape (n,)
            Their components.
        """
        model, params, design, probabilities = self._gated(X, gating_X)
        zeros = canonical(np.zeros(len(design)))
        response = check_response(self.expert, zeros, exposure, trials)
        rng = check_random_state(self.random_state)
        beyond = np.cumsum(probabilities, axis=1) < rng.random_sample((len(design), 1))
        components = np.minimum(beyond.sum(axis=1), len(self.weights_) - 1)
        drawn = model.experts.sample(RegressionRows(design, zeros, response.size), params.experts, components, rng)
        return (self.classes_[drawn.astype(np.int64)] if self.expert == "multinomial" else drawn), components
