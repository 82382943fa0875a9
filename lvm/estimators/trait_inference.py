"""Standard errors of the items of a latent trait model, and the table of the estimates."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.collapse import collapse
from lvm.estimators.model_inference import Column, Fitted, in_shape, lines_of, summarise
from lvm.estimators.outcome import LikelihoodCriteria
from lvm.estimators.summary import Summary, check_level
from lvm.gradients.trait import gradient_of_trait
from lvm.marginals import feature_names
from lvm.models.latent_trait import LatentTraitModel, TraitParams
from lvm.protocol import Rows


class TraitInference(LikelihoodCriteria):
    """What a fitted latent trait model says of the precision of its parameters."""

    discrimination_prior: tuple[float, float] | None
    deduplicate: bool | str

    @abstractmethod
    def _model(self) -> LatentTraitModel:
        """Return the model that the constructor's arguments describe."""

    @abstractmethod
    def _params(self) -> TraitParams:
        """Return the estimates."""

    @abstractmethod
    def _validate(self, X: Any, reset: bool) -> Any:
        """Return X checked."""

    def standard_errors(
        self, X: ArrayLike, sample_weight: ArrayLike | None = None, kind: str = "sandwich"
    ) -> dict[str, Array]:
        """Return the standard errors of discriminations, difficulties and intercepts, by the observed information.

        Those of difficulties, -intercept / discrimination, follow by the delta method.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The answers that the model was fitted to, NaN where missing.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies: a row of weight 2 counts as two equal rows.
        kind : {"sandwich", "empirical", "observed"}
            By the sums J of the outer products of the rows' scores and H of their negative second derivatives:
            H^-1 J H^-1, which is right even where curves are not logistic or the trait is not normal; J^-1, the
            cheapest; or H^-1.

        Returns
        -------
        dict
            Standard errors of "discrimination", "difficulty" and "intercept", in the shapes of the fitted attributes.
            NaN, with a warning, of a discrimination at its bound, and of what the data do not determine.

        Raises
        ------
        ValueError
            If the data do not fit the model, or there are fewer distinct rows than parameters.

        References
        ----------
        Bock & Aitkin (1981), "Marginal maximum likelihood estimation of item parameters: application of an EM
        algorithm". Yuan, Cheng & Patton (2014), "Information matrices and standard errors for MLEs of item parameters
        in IRT", Psychometrika 79.
        """
        return in_shape(self._target(X, sample_weight).errors(kind))

    def summary(
        self, X: ArrayLike, sample_weight: ArrayLike | None = None, kind: str = "sandwich", level: float = 0.95
    ) -> Summary:
        """Return a table of the estimates with their standard errors and confidence intervals.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The answers that the model was fitted to, NaN where missing.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies.
        kind : {"sandwich", "empirical", "observed"}
            How standard errors are found, see `standard_errors`.
        level : float
            Coverage of the intervals, within (0, 1): normal ones, of log discriminations where a prior keeps these > 0.

        Returns
        -------
        Summary
            Prints as a table; `to_frame()` makes it a data frame, `estimates` is the list of its lines.
        """
        check_level(level)
        fitted = self._target(X, sample_weight)
        items = (feature_names(self),)
        columns = {
            "discrimination": Column(items, "identity" if self.discrimination_prior is None else "log"),
            "difficulty": Column(items),
            "intercept": Column(items),
        }
        lines = lines_of(self, fitted.errors(kind), columns)
        return summarise(type(self).__name__, fitted, lines, kind, level, "")

    def _target(self, X: ArrayLike, sample_weight: ArrayLike | None) -> Fitted:
        check_is_fitted(self)
        model = self._model()
        data = self._validate(X, reset=False)
        weight = _checks.sample_weight(sample_weight, data.shape[0])
        rows, _ = collapse(model.canonical(Rows(data, weight)), self.deduplicate)
        params = self._params()
        return Fitted(model, rows, params, _values, None, lambda moved: gradient_of_trait(model, rows, moved))


def _values(params: TraitParams) -> dict[str, Array]:
    with np.errstate(divide="ignore", invalid="ignore"):
        difficulty = -params.intercepts / params.slopes
    return {"discrimination": params.slopes, "difficulty": difficulty, "intercept": params.intercepts}
