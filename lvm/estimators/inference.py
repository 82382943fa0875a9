"""Standard errors of a fitted mixture, and the table of its estimates."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.fitted import FittedMixture
from lvm.estimators.summary import Estimate, Summary, by_component, check_level
from lvm.families.counts import ExposedRows
from lvm.marginals import feature_names
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows
from lvm.uncertainty import standard_errors

# Parameters by the range of their values; means beside sizes are those of counts.
POSITIVE = {
    *("rates", "scales", "sizes", "shapes", "concentrations", "degrees_of_freedom", "noise_variances"),
    *("covariances", "scatters"),
}
PROBABILITIES = {"weights", "probabilities"}


class Inference(FittedMixture):
    """What a fitted mixture says of the precision of its parameters."""

    def standard_errors(
        self,
        X: ArrayLike,
        sample_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        kind: str = "sandwich",
        exposure: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Return the standard errors of the parameters, by the observed information.

        They are those of a maximum, so fit to a small `tol` first. Where components overlap little and rows are many
        they are good; a bootstrap is better where a component has few rows.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The observations that the mixture was fitted to.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies: a row of weight 2 counts as two equal rows.
        labels : array-like of shape (n,) or (n, K), optional
            Known components, as in `fit`.
        kind : {"sandwich", "empirical", "observed"}
            By the sums J of the outer products of the rows' scores and H of their negative second derivatives:
            H^-1 J H^-1, which is right even where the components are not of this family; J^-1, the cheapest, and the
            only one for hundreds of parameters per component; or H^-1.
        exposure : float or array-like of shape (n,), optional
            Exposures of the rows, for estimators whose `fit` takes them.

        Returns
        -------
        dict
            Standard errors of "weights" and each parameter of the components, by the names and in the shapes of the
            fitted attributes (without the underscore). 0 for what is held by `fixed` or follows from nothing
            estimated; NaN, with a warning, at the end of a parameter's range, such as a probability of 0, and for
            what the data do not determine.

        Raises
        ------
        TypeError
            If the family of the components lacks `parameters`, `to_vector` or `from_vector`.

        References
        ----------
        McLachlan & Peel (2000), "Finite Mixture Models", sections 2.15 and 2.16.

        Examples
        --------
        >>> import lvm
        >>> mites = [[0], [1], [2], [3], [4], [5], [6], [7]]
        >>> leaves = [70, 38, 17, 10, 9, 3, 2, 1]
        >>> mixture = lvm.PoissonMixture(1).fit(mites, sample_weight=leaves)
        >>> mixture.standard_errors(mites, leaves, kind="observed")["rates"].round(4).tolist()
        [[0.0874]]
        """
        model, rows, params = self._information_rows(X, sample_weight, labels, exposure)
        return self._errors_by_attribute(self._errors(model, rows, params, kind))

    def summary(
        self,
        X: ArrayLike,
        sample_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        kind: str = "sandwich",
        exposure: ArrayLike | None = None,
        level: float = 0.95,
    ) -> Summary:
        """Return a table of the estimates with their standard errors and confidence intervals.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The observations that the mixture was fitted to.
        sample_weight : array-like of shape (n,), optional
            Row weights, as frequencies.
        labels : array-like of shape (n,) or (n, K), optional
            Known components, as in `fit`.
        kind : {"sandwich", "empirical", "observed"}
            How standard errors are found, see `standard_errors`.
        exposure : float or array-like of shape (n,), optional
            Exposures of the rows, for estimators whose `fit` takes them.
        level : float
            Coverage of the intervals, within (0, 1). They are normal ones, estimate -+ z * standard error: of
            logarithms where the parameter is positive, of log odds where it is a probability, of Fisher's z where it is
            a coordinate of a direction. Such intervals stay within the parameter's range, and their coverage is
            nearer to `level`, since the likelihood is nearer to a normal one on these scales.

        Returns
        -------
        Summary
            Prints as a table; `to_frame()` makes it a data frame, `estimates` is the list of its lines.

        Examples
        --------
        >>> import lvm
        >>> mites = [[0], [1], [2], [3], [4], [5], [6], [7]]
        >>> leaves = [70, 38, 17, 10, 9, 3, 2, 1]
        >>> mixture = lvm.NegativeBinomialMixture(1, tol=1e-12).fit(mites, sample_weight=leaves)
        >>> print(mixture.summary(mites, leaves, kind="observed"))
        NegativeBinomialMixture
        log-likelihood -222.4372, 2 parameters, 150 rows
        AIC 448.8743, BIC 454.8956; standard errors: observed
        <BLANKLINE>
        component  parameter  feature   estimate  std. error   2.5%  97.5%
        ------------------------------------------------------------------
        0          means      column 0     1.147       0.127  0.922  1.425
                   sizes      column 0     1.025       0.276  0.604  1.737
        ------------------------------------------------------------------
        """
        check_level(level)
        model, rows, params = self._information_rows(X, sample_weight, labels, exposure)
        errors = self._errors(model, rows, params, kind)
        values = self._values_by_name(params.components)
        if len(params.weights) > 1:
            values = {"weights": params.weights, **values}
        estimates = self._lines(values, errors, {"weights": "K", **self._parameters()})
        each = model.loglik(rows, params)
        weight = np.ones(len(each)) if rows.weight is None else rows.weight
        loglik = float(each[weight > 0] @ weight[weight > 0])
        title = type(self).__name__
        if isinstance(structure := getattr(self, "covariance_type", None), str):
            title += f", covariance {structure}"
        return Summary(title, estimates, level, kind, float(weight.sum()), loglik, model.n_parameters(params))

    # ----- the parts ------------------------------------------------------------------------------------------

    def _information_rows(
        self, X: Any, sample_weight: ArrayLike | None, labels: ArrayLike | None, exposure: ArrayLike | None
    ) -> tuple[Mixture[Any], Rows, MixtureParams]:
        """Return the mixture, its rows in double precision and each distinct one once, and the estimates."""
        check_is_fitted(self)
        if exposure is not None:
            if "exposure" not in inspect.signature(self.score_samples).parameters:
                raise TypeError(f"{type(self).__name__} takes no exposure; leave it out.")
            X = ExposedRows(X, np.asarray(exposure, np.float64))
        data = self._validate(X, reset=False)
        if isinstance(data, np.ndarray) and data.dtype == np.float32:
            data = data.astype(np.float64)  # differences need the digits
        n = data.shape[0]
        weight, known = _checks.sample_weight(sample_weight, n), _checks.labels(labels, n, len(self.weights_))
        model = self._model(data, weight)
        rows = model.canonical(Rows(data, weight, known))
        return model, self._collapsed(rows).rows, self._get_params()

    def _collapsed(self, rows: Rows) -> Any:
        raise NotImplementedError  # of the estimators that fit

    def _values_by_name(self, components: Any) -> dict[str, Array]:
        return {name: np.asarray(self._value_of(components, name)) for name in self._parameters()}

    def _errors(self, model: Mixture[Any], rows: Rows, params: MixtureParams, kind: str) -> dict[str, Array]:
        if not self._parameters():
            raise TypeError(
                f"{type(model.family).__name__} must implement parameters, with axes of K, d and 1, for them to have "
                "standard errors."
            )
        return standard_errors(model, rows, params, kind, self._values_by_name)

    def _errors_by_attribute(self, errors: Mapping[str, Array]) -> dict[str, Any]:
        """Return errors in the shapes of the fitted attributes."""
        blocks = {block.name: block for block in self._blocks()}
        found: dict[str, Any] = {}
        for name, array in errors.items():
            block, _, parameter = name.rpartition("__")
            if block in blocks:
                found.setdefault(block, {})[parameter] = blocks[block].outside(parameter, array)
            else:
                found[name] = array if name == "weights" else self._outside(name, array)
        return found

    def _lines(
        self, values: Mapping[str, Array], errors: Mapping[str, Array], axes: Mapping[str, str]
    ) -> list[Estimate]:
        """Return the lines of a table, component by component."""
        lines = [
            Estimate(*where, float(values[name][at]), float(errors[name][at]), self._scale(name, axes[name], at))
            for name in values
            for at in np.ndindex(values[name].shape)
            if (where := self._place(name, axes[name], at)) is not None
        ]
        return by_component(lines)

    def _blocks(self) -> Sequence[Any]:
        """Return the blocks of columns of a mixed mixture."""
        blocks: Sequence[Any] = self._fitted_blocks() if hasattr(self, "_fitted_blocks") else []
        return blocks

    def _place(self, name: str, axes: str, index: tuple[int, ...]) -> tuple[int | None, str, str] | None:
        """Return component, parameter and feature or category of an entry; None for the upper half of a matrix."""
        component = index[0] if axes[0] == "K" else None
        rest = list(zip(axes[1:], index[1:], strict=True))
        if axes.endswith("dd") and index[-2] < index[-1]:
            return None
        words = [self._axis_label(name, axis, i) for axis, i in rest]
        if axes.endswith("dd"):
            words = words[-1:] if index[-2] == index[-1] else words
        return component, name.replace("__", "."), " x ".join(words)

    def _scale(self, name: str, axes: str, index: tuple[int, ...]) -> str:
        """Return the scale on which the interval of an entry is symmetric."""
        block, _, parameter = name.rpartition("__")
        if parameter in PROBABILITIES:
            return "logit"
        if parameter == "directions":
            return "atanh"
        if parameter == "means" and (f"{block}__sizes" if block else "sizes") in self._parameters():
            return "log"
        is_covariance = axes.endswith("dd") and index[-2] != index[-1]
        return "log" if parameter in POSITIVE and not is_covariance else "identity"

    def _axis_label(self, name: str, axis: str, i: int) -> str:
        """Return what an index along an axis means."""
        if axis not in "dc":
            return {"1": "", "q": f"factor {i}"}.get(axis, str(i))
        features, categories = feature_names(self), getattr(self, "categories_", ())
        for block in self._blocks():
            if name.startswith(f"{block.name}__"):
                features, categories = [features[j] for j in block.columns], block.categories
        if axis == "d":
            return features[i]
        pairs = zip(features, categories, strict=True)
        return [f"{feature} = {value}" for feature, column in pairs for value in column][i]
