"""Standard errors of a fitted hidden Markov model, and the table of its estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.hidden_markov_fitted import CHAIN, FittedHiddenMarkov
from lvm.estimators.model_inference import Column, Fitted, lines_of
from lvm.estimators.summary import Summary, by_component, check_level
from lvm.mixture_coordinates import held_masks, on_structure
from lvm.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from lvm.models.sequences import SequenceRows, Sequences, indptr_of


class _Emissions:
    """A family whose density has the family's penalty, as in EM, and whose coordinates keep its structure."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def log_density(self, X: Any, params: Any, out: Array) -> None:
        """Add the penalised log densities to out (K, n)."""
        self._family.log_density(X, params, out)
        if hasattr(self._family, "log_penalty"):
            out += np.asarray(self._family.log_penalty(params))[:, None]

    def from_vector(self, vector: Array, origin: Any) -> Any:
        """Return the parameters that have these coordinates."""
        return on_structure(self._family, self._family.from_vector(vector, origin))


class HiddenMarkovInference(FittedHiddenMarkov):
    """What a fitted hidden Markov model says of the precision of its parameters."""

    def standard_errors(
        self,
        X: ArrayLike,
        lengths: ArrayLike | None = None,
        sequence_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        kind: str = "observed",
    ) -> dict[str, Array]:
        """Return the standard errors of the parameters, by the observed information.

        They are those of a maximum, so fit to a small `tol` first. The information grows with the number of
        observations also of a single long sequence, where maximum likelihood is asymptotically normal if the chain
        forgets its start, and `kind="observed"` holds. Scores are independent between sequences alone: "sandwich" and
        "empirical" need more sequences than parameters. Of a single sequence the start probabilities have no error:
        their maximum is 0 or 1, whatever the truth.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The observations that the model was fitted to.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence. None is a single sequence.
        sequence_weight : array-like of shape (n_sequences,), optional
            Weights, as frequencies: a sequence of weight 2 counts as two equal ones.
        labels : array-like of shape (n,), optional
            Known states, as in `fit`.
        kind : {"observed", "sandwich", "empirical"}
            By the sums J of the outer products of the sequences' scores and H of their negative second derivatives:
            H^-1; H^-1 J H^-1, which is right even where the family is not; or J^-1, the cheapest.

        Returns
        -------
        dict
            Standard errors of "startprob", "transmat" and each parameter of the family, in the shapes of the fitted
            attributes. 0 for what is fixed, and for probabilities that start as 0; NaN, with a warning, at the end
            of a parameter's range and for what the data do not determine.

        Raises
        ------
        TypeError
            If the family lacks `parameters`, `to_vector` or `from_vector`.
        ValueError
            If the data do not fit the model, or there are fewer sequences than parameters.

        References
        ----------
        Bickel, Ritov & Ryden (1998), "Asymptotic normality of the maximum-likelihood estimator for general hidden
        Markov models", Annals of Statistics 26. Cappe, Moulines & Ryden (2005), "Inference in hidden Markov models",
        section 12.5.
        """
        fitted, is_single = self._target(X, lengths, sequence_weight, labels)
        return _without_start(fitted.errors(kind), is_single)

    def summary(
        self,
        X: ArrayLike,
        lengths: ArrayLike | None = None,
        sequence_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        kind: str = "observed",
        level: float = 0.95,
    ) -> Summary:
        """Return a table of the estimates with their standard errors and confidence intervals.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The observations that the model was fitted to.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence. None is a single sequence.
        sequence_weight : array-like of shape (n_sequences,), optional
            Weights, as frequencies.
        labels : array-like of shape (n,), optional
            Known states, as in `fit`.
        kind : {"observed", "sandwich", "empirical"}
            How standard errors are found, see `standard_errors`.
        level : float
            Coverage of the intervals, within (0, 1): normal ones, of log odds for probabilities and of logarithms for
            what is positive, so that they stay within the parameter's range.

        Returns
        -------
        Summary
            Prints as a table, by the state from which transitions start; `to_frame()` makes it a data frame,
            `estimates` is the list of its lines.
        """
        check_level(level)
        fitted, is_single = self._target(X, lengths, sequence_weight, labels)
        errors = _without_start(fitted.errors(kind), is_single)
        values = {name: getattr(self, f"{name}_") for name in errors if name not in CHAIN}
        states = [f"to {k}" for k in range(self.n_states)]
        mixture, family = self._mixture(), self._family()
        if hasattr(self, "feature_names_in_"):
            mixture.feature_names_in_ = self.feature_names_in_
        if hasattr(self, "n_categories_"):
            mixture.categories_ = [list(range(count)) for count in self.n_categories_]
        chain = {"startprob": Column((None,), "logit"), "transmat": Column((None, states), "logit")}
        of_chain, of_family = lines_of(self, errors, chain), mixture._lines(values, errors, family.parameters)
        lines = by_component([*of_chain, *of_family])
        lengths_of = fitted.rows.X.lengths
        weight = np.ones(len(lengths_of)) if fitted.rows.weight is None else fitted.rows.weight
        each = self._model().loglik(fitted.rows, fitted.params)
        loglik = float(each[weight > 0] @ weight[weight > 0])
        title = f"{type(self).__name__}, {type(family).__name__}, {self.n_states} states"
        n_parameters = self.n_parameters()
        return Summary(title, lines, level, kind, float(weight @ lengths_of), loglik, n_parameters, "state")

    def _target(self, X: Any, lengths: Any, sequence_weight: Any, labels: Any) -> tuple[Fitted, bool]:
        """Return the model whose log-likelihood EM climbs, and whether a single sequence tells of the start."""
        check_is_fitted(self)
        family = self._mixture()._family()
        missing = [name for name in ("parameters", "to_vector", "from_vector") if not hasattr(family, name)]
        if missing:
            raise TypeError(
                f"{type(family).__name__} must implement {', '.join(missing)} for its parameters to have standard "
                "errors."
            )
        data = self._validate(X, reset=False)
        if data.dtype == np.float32:
            data = data.astype(np.float64)  # differences need the digits
        indptr = indptr_of(lengths, len(data))
        weight = None
        if sequence_weight is not None:
            weight = _checks.row_weights(sequence_weight, len(indptr) - 1, "sequence_weight")
        known = _checks.labels(labels, len(data), self.n_states)
        n_sequences = len(indptr) - 1 if weight is None else np.count_nonzero(weight)
        is_single = n_sequences == 1 and self.startprob_prior == 1 and "startprob" not in self._fixed()
        held = (*self._model().held, *(["startprob"] if is_single else []))
        model = HiddenMarkovModel(_Emissions(family), self.startprob_prior, self.transmat_prior, held)
        rows = model.canonical(SequenceRows(Sequences(indptr, data, known), weight))

        def values(params: HiddenMarkovParams) -> dict[str, Array]:
            chain = {"startprob": params.startprob, "transmat": params.transmat}
            return chain | {
                name: np.asarray(getattr(params.components, name), np.float64) for name in family.parameters
            }

        return Fitted(model, rows, self._get_params(), values, self._held_values(held, family)), is_single

    def _held_values(self, held: tuple[str, ...], family: Any) -> dict[str, NDArray[np.bool_]]:
        """Return masks of what is fixed, and of probabilities that given zeros, which stay, make 0 or 1."""
        masks = dict(held_masks(family))
        for name in CHAIN:
            shape = getattr(self, f"{name}_").shape
            given = self._given(name, shape)
            possible = np.ones(shape, np.bool_) if given is None else np.asarray(given > 0)
            masks[name] = ~possible | (possible.sum(axis=-1, keepdims=True) == 1)
            if name in held:
                masks[name][:] = True
        return masks


def _without_start(errors: dict[str, Array], is_single: bool) -> dict[str, Array]:
    """Return errors, NaN for start probabilities of a single sequence."""
    if is_single:
        errors["startprob"] = np.full(errors["startprob"].shape, np.nan)
    return errors
