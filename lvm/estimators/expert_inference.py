"""Standard errors of a fitted mixture of regressions, and the table of its estimates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.estimators.expert_data import Design, find_design, of_groups
from lvm.estimators.expert_predictions import FittedExperts
from lvm.estimators.model_inference import Column, Fitted, in_shape, lines_of, summarise
from lvm.estimators.summary import Summary, check_level
from lvm.gradients.experts import gradient_of_experts
from lvm.marginals import feature_names
from lvm.models.expert_rows import ExpertsRows
from lvm.models.experts import ExpertsParams


class ExpertInference(FittedExperts):
    """What a fitted mixture of regressions says of the precision of its parameters."""

    alpha: float
    gating_alpha: float

    def standard_errors(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gating_X: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
        trials: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        kind: str = "sandwich",
    ) -> dict[str, Any]:
        """Return the standard errors of the parameters, by the observed information.

        They are those of a maximum, so fit to a small `tol` first. The score of a group is the sum of those of its
        rows: with `groups`, "sandwich" and "empirical" hold whatever the dependence within them. With one component
        and `kind="observed"`, they are those of linear regression (with the maximum likelihood variance of residuals)
        and of generalised linear models.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts that the mixture was fitted to.
        y : array-like of shape (n,)
            Response.
        gating_X : array-like of shape (n, q), optional
            Covariates of the gate, as in `fit`.
        groups : array-like of shape (n,), optional
            Labels of groups, as in `fit`.
        exposure : array-like of shape (n,), optional
            For Poisson counts.
        trials : array-like of shape (n,), optional
            For binomial counts.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies: a row, or group, of weight 2 counts as two.
        kind : {"sandwich", "empirical", "observed"}
            By the sums J of the outer products of the scores of rows or groups and H of their negative second
            derivatives: H^-1 J H^-1, which is right even where the regressions are not of this kind; J^-1, the
            cheapest; or H^-1.

        Returns
        -------
        dict
            Standard errors of "intercepts", "coefficients", "scales" of normal residuals, and "weights", or
            "gating_intercepts" and "gating_coefficients", in the shapes of the fitted attributes. Those of a gate and
            of multinomial experts are for coefficients that sum to 0. NaN, with a warning, for what is at the end
            of its range or not determined by the data.

        Raises
        ------
        ValueError
            If the data do not fit the mixture, or there are fewer rows or groups than parameters.

        References
        ----------
        McLachlan & Peel (2000), "Finite Mixture Models", sections 2.15 and 2.16.

        Examples
        --------
        >>> import lvm
        >>> x, y = [[0], [1], [2], [3]], [1.0, 3.1, 4.9, 7.0]
        >>> line = lvm.MixtureOfExperts(1).fit(x, y)
        >>> line.standard_errors(x, y, kind="observed")["coefficients"].round(4).tolist()
        [[0.03]]
        """
        fitted = self._target(X, y, gating_X, groups, exposure, trials, sample_weight)
        return in_shape(fitted.errors(kind))

    def summary(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gating_X: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
        trials: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        kind: str = "sandwich",
        level: float = 0.95,
    ) -> Summary:
        """Return a table of the estimates with their standard errors and confidence intervals.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts that the mixture was fitted to.
        y : array-like of shape (n,)
            Response.
        gating_X : array-like of shape (n, q), optional
            Covariates of the gate, as in `fit`.
        groups : array-like of shape (n,), optional
            Labels of groups, as in `fit`.
        exposure : array-like of shape (n,), optional
            For Poisson counts.
        trials : array-like of shape (n,), optional
            For binomial counts.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies.
        kind : {"sandwich", "empirical", "observed"}
            How standard errors are found, see `standard_errors`.
        level : float
            Coverage of the intervals, within (0, 1): normal ones, of logarithms for scales and of log odds for weights,
            so that they stay within the parameter's range.

        Returns
        -------
        Summary
            Prints as a table; `to_frame()` makes it a data frame, `estimates` is the list of its lines.
        """
        check_level(level)
        fitted = self._target(X, y, gating_X, groups, exposure, trials, sample_weight)
        errors, features = fitted.errors(kind), feature_names(self)
        labels = ([str(label) for label in self.classes_],) if self.expert == "multinomial" else ()
        columns = {"weights": Column((None,), "logit")} if "weights" in errors else {}
        columns |= {"intercepts": Column((None, *labels)), "coefficients": Column((None, *labels, features))}
        if "scales" in errors:
            columns["scales"] = Column((None,), "log")
        if "gating_coefficients" in errors:
            if self.gates_apart_:
                features = [f"gate column {j}" for j in range(self.gating_coefficients_.shape[1])]
            columns |= {"gating_intercepts": Column((None,)), "gating_coefficients": Column((None, features))}
        if len(self.weights_) == 1:
            columns = {name: column for name, column in columns.items() if name != "weights" and "gating" not in name}
        title = f"{type(self).__name__}, {self.expert} experts, {self.gating} gating"
        return summarise(title, fitted, lines_of(self, errors, columns), kind, level)

    def _target(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gating_X: ArrayLike | None,
        groups: ArrayLike | None,
        exposure: ArrayLike | None,
        trials: ArrayLike | None,
        sample_weight: ArrayLike | None,
    ) -> Fitted:
        """Return the model on the columns in which it was fitted: there its coordinates are of order 1."""
        data, found = self._rows(X, y, gating_X, groups, exposure, trials)
        weight = _checks.sample_weight(sample_weight, len(data.design))
        of_row = weight if weight is None or found is None else weight[found.order]
        names = getattr(self, "feature_names_in_", None)
        design = find_design(data.design[:, 1:], of_row, self.alpha > 0, "X", names)
        shift = 0.0
        if self.expert == "gaussian":  # an offset would cost the residuals digits
            shift = float(np.average(data.response, weights=of_row))
        gate_design: Design | None = None
        gate = None
        if data.gate is not None:
            z = data.gate[:, 1:]
            counts = np.ones(len(z), np.int64) if data.indptr is None else np.diff(data.indptr)
            gate_design = find_design(np.repeat(z, counts, axis=0), of_row, self.gating_alpha > 0, "gating_X", None)
            gate = gate_design.columns(z)
        data = replace(
            data, design=design.columns(data.design[:, 1:]), response=canonical(data.response - shift), gate=gate
        )
        if weight is not None and found is not None:
            weight = of_groups(weight, found, "sample_weight")
        params = self._get_params()
        coefficients = design.inside(self.intercepts_ - shift, self.coefficients_)
        params = params._replace(experts=params.experts._replace(coefficients=coefficients))
        if gate_design is not None:
            inside = gate_design.inside(self.gating_intercepts_, self.gating_coefficients_)
            params = params._replace(gate=params.gate._replace(coefficients=inside))

        def values(params: ExpertsParams) -> dict[str, Array]:
            intercepts, coefficients = design.outside(params.experts.coefficients)
            arrays = {"intercepts": intercepts + shift, "coefficients": coefficients}
            if self.expert == "gaussian":
                arrays["scales"] = params.experts.scales
            if gate_design is None:
                return {"weights": params.gate.weights, **arrays}
            intercepts, coefficients = gate_design.outside(params.gate.coefficients)
            return {**arrays, "gating_intercepts": intercepts, "gating_coefficients": coefficients}

        model, rows = self._model(), ExpertsRows(data, weight)

        def gradient(moved: ExpertsParams) -> Array:
            return gradient_of_experts(model, rows, moved, params)

        return Fitted(model, rows, params, values, None, gradient)
