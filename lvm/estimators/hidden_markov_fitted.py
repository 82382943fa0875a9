"""What a fitted hidden Markov model can do: name states, score, sample, and weigh itself against others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.generic import AXES, MixtureModel
from lvm.estimators.numbers import numeric_table
from lvm.families.categorical import Categorical
from lvm.families.registry import family_by_name
from lvm.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from lvm.models.sequences import SequenceRows, Sequences, by_observation, indptr_of

CHAIN = ("startprob", "transmat")
DOUBLINGS = 64  # of the number of steps after which a chain is taken to have settled


class FittedHiddenMarkov(DensityMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no stubs
    """The methods of a hidden Markov model that need no more than its arguments and fitted attributes."""

    family: Any
    n_states: int
    tol: float
    max_iter: int
    n_init: int
    init_params: Any
    startprob_init: Any
    transmat_init: Any
    components_init: Any
    startprob_prior: float
    transmat_prior: float
    fixed: Any
    random_state: Any
    warm_start: bool
    n_jobs: int | None
    acceleration: str | None
    startprob_: Array
    transmat_: Array

    _mixes: ClassVar[bool] = False  # the weights follow from the transitions

    # ----- emissions ------------------------------------------------------------------------------------------

    def _family(self) -> Any:
        """Return the family; of "categorical", with the categories found by `fit`."""
        if not isinstance(self.family, str):
            if isinstance(self.family, type):
                name = self.family.__name__
                raise _checks.ParameterError(
                    f"HiddenMarkov expects a family object, got the class {name}; call it: {name}()."
                )
            return self.family
        if self.family == "categorical":
            return Categorical(getattr(self, "n_categories_", [2]))
        return family_by_name(self.family)

    def _mixture(self) -> MixtureModel:
        """Return a mixture of the same components: it knows starts, held values and attributes."""
        rest = {name: value for name, value in self._fixed().items() if name not in CHAIN}
        mixture = MixtureModel(
            self._family(),
            self.n_states,
            init_params=self.init_params,
            fixed=rest or None,
            equal_weights=True,
            tol=self.tol,
            max_iter=self.max_iter,
            n_init=self.n_init,
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            acceleration=self.acceleration,
            warm_start=self.warm_start,
        )
        if hasattr(self, "n_features_in_"):
            mixture.n_features_in_ = self.n_features_in_
        given = self.components_init
        if not isinstance(given, Mapping):
            mixture.components_init = given
            return mixture
        names = getattr(mixture.family, "parameters", {})
        for name, value in given.items():
            if name not in names:
                raise ValueError(f"components_init may hold {', '.join(map(repr, names))}, got {name!r}.")
            setattr(mixture, f"{name}_init", value)
        if given and not mixture._parameters():
            mixture.components_init = mixture.family.params(**given)
        return mixture

    def _fixed(self) -> Mapping[str, Any]:
        if self.fixed is None:
            return {}
        if not isinstance(self.fixed, Mapping):
            raise _checks.ParameterError(
                f"fixed must be a dictionary such as {{'transmat': [[0.9, 0.1], [0.1, 0.9]]}}, got {self.fixed!r}."
            )
        parameters = getattr(self._family(), "parameters", {})
        names = (*CHAIN, *(parameters if all(AXES.issuperset(axes) for axes in parameters.values()) else ()))
        for name in self.fixed:
            if name not in names:
                raise ValueError(f"fixed may hold {', '.join(map(repr, names))}, got {name!r}.")
        return self.fixed

    def _model(self) -> HiddenMarkovModel[Any]:
        held = tuple(name for name in CHAIN if name in self._fixed())
        return HiddenMarkovModel(self._mixture()._family(), self.startprob_prior, self.transmat_prior, held)

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        """Return the shapes of the fitted attributes; the states are as many as the constructor says."""
        K = self.n_states
        shapes = self._mixture()._attribute_shapes(K)
        if isinstance(family := self._family(), Categorical):
            shapes["probabilities_"] = (K, sum(family.n_categories))
        return {"startprob_": (K,), "transmat_": (K, K), **shapes}

    def _check_savable(self) -> None:
        """Refuse a model of which `lvm.save` would lose a part."""
        if not isinstance(self.family, str):
            raise _checks.ParameterError(
                f"cannot save the family object {type(self.family).__name__}: models hold numbers and text alone. Give "
                "HiddenMarkov the name of a family, or use pickle."
            )

    def _validate(self, X: Any, reset: bool) -> NDArray[Any]:
        """Return X as a numeric array of the fitted width, unless it resets that, finite or missing."""
        accepts_missing = bool(getattr(self._family(), "accepts_missing", False))
        data: NDArray[Any] = numeric_table(self, X, reset, accepts_missing)
        if reset and self.family == "categorical":
            self.n_categories_ = [max(1, int(largest) + 1) for largest in np.nanmax(data, axis=0)]
        return data

    def _given(self, name: str, shape: tuple[int, ...]) -> Array | None:
        """Return start or transition probabilities that are fixed, or given as starting values."""
        value = self._fixed().get(name, getattr(self, f"{name}_init"))
        if value is None:
            return None
        array = _checks.start_array(name, value, shape)
        if np.any(array < 0):
            raise ValueError(
                f"The parameter '{name}' should be in the range [0, 1], but got min value {array.min():g}."
            )
        sums = np.atleast_1d(array.sum(axis=-1))
        worst = int(np.argmax(np.abs(sums - 1)))
        if not abs(sums[worst] - 1) < 1e-6:
            where = f"row {worst} of transmat sums" if len(shape) == 2 else "startprob sums"
            raise ValueError(f"{where} to {sums[worst]:g}, not 1; normalise it.")
        return np.asarray(array / array.sum(axis=-1, keepdims=True))

    def _set_params(self, params: HiddenMarkovParams) -> None:
        self.startprob_, self.transmat_ = params.startprob, params.transmat
        names = getattr(self._family(), "parameters", {})
        for name in names:
            setattr(self, f"{name}_", np.ascontiguousarray(getattr(params.components, name)))
        if not names:
            self._components = params.components

    def _get_params(self) -> HiddenMarkovParams:
        return HiddenMarkovParams(
            np.array(self.startprob_, np.float64), np.array(self.transmat_, np.float64), self.components_
        )

    @property
    def components_(self) -> Any:
        """The family's parameters, as its M-step returns them."""
        check_is_fitted(self)
        family = self._family()
        names = getattr(family, "parameters", {})
        return family.params(**{name: getattr(self, f"{name}_") for name in names}) if names else self._components

    @property
    def weights_(self) -> Array:
        """Share of time that the chain spends in each state in the long run, shape (n_states,)."""
        check_is_fitted(self)
        steps = (np.eye(len(self.transmat_)) + self.transmat_) / 2  # waiting keeps the shares, and forgets periods
        for _ in range(DOUBLINGS):
            steps = steps @ steps
            steps /= steps.sum(axis=1, keepdims=True)
        return np.asarray(self.startprob_ @ steps)

    # ----- what users call ------------------------------------------------------------------------------------

    def _fitted(self, X: Any, lengths: Any) -> tuple[HiddenMarkovModel[Any], SequenceRows, HiddenMarkovParams]:
        check_is_fitted(self)
        data = self._validate(X, reset=False)
        model = self._model()
        rows = model.canonical(SequenceRows(Sequences(indptr_of(lengths, len(data)), data)))
        return model, by_observation(rows), self._get_params()

    def predict(self, X: ArrayLike, lengths: ArrayLike | None = None, algorithm: str = "viterbi") -> NDArray[np.int64]:
        """Return the states of the observations, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence.
        algorithm : {"viterbi", "map"}
            Whether the sequence of states is the most probable one, or each state is by itself.
        """
        return self.decode(X, lengths, algorithm)[1]

    def decode(
        self, X: ArrayLike, lengths: ArrayLike | None = None, algorithm: str = "viterbi"
    ) -> tuple[float, NDArray[np.int64]]:
        """Return how probable the predicted states are, and these.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence.
        algorithm : {"viterbi", "map"}
            As in `predict`.

        Returns
        -------
        float
            Of "viterbi" the log density of observations and states together, in nats; of "map" the expected number of
            states that are right.
        ndarray of shape (n,)
            The states.
        """
        _checks.choice("algorithm", algorithm, ["viterbi", "map"])
        model, rows, params = self._fitted(X, lengths)
        if algorithm == "viterbi":
            return model.most_probable_path(rows, params)
        return model.most_probable_states(rows, params)

    def predict_proba(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Return the posterior probability of each state for each observation, shape (n, n_states).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence.

        Returns
        -------
        ndarray of shape (n, n_states)
            Given all observations of the sequence; each row sums to 1.

        Raises
        ------
        ValueError
            If an observation is impossible after those before it; it names the observation.
        """
        model, rows, params = self._fitted(X, lengths)
        return model.responsibilities(rows, params)

    def score(self, X: ArrayLike, y: Any = None, lengths: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per observation, in nats.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        y : ignored
            For scikit-learn's API; taken for `lengths` where it does not have n entries.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence.
        """
        n = _n_rows(X)
        return self._loglik(X, as_lengths(y, lengths, n)) / n

    def _loglik(self, X: Any, lengths: Any) -> float:
        model, rows, params = self._fitted(X, lengths)
        return float(model.loglik(rows, params).sum())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> tuple[Any, NDArray[np.int64]]:
        """Draw a sequence from the fitted model.

        Parameters
        ----------
        n_samples : int
            Number of observations.
        random_state : int, RandomState instance or None
            Seed; None takes that of the constructor.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
            Observations.
        states : ndarray of shape (n_samples,)
            Their states.
        """
        check_is_fitted(self)
        _checks.integer("n_samples", n_samples, 1)
        rng = check_random_state(self.random_state if random_state is None else random_state)
        return self._model().sample_sequence(self._get_params(), n_samples, rng)

    def n_parameters(self) -> int:
        """Return the number of free parameters; probabilities that start as 0 are none."""
        check_is_fitted(self)
        K = self.n_states
        start, transitions = self._given("startprob", (K,)), self._given("transmat", (K, K))
        free = HiddenMarkovParams(
            np.ones(K) if start is None else start,
            np.ones((K, K)) if transitions is None else transitions,
            self.components_,
        )
        return self._model().n_parameters(free)

    def aic(self, X: ArrayLike, lengths: ArrayLike | None = None) -> float:
        """Return Akaike's information criterion, -2 loglik + 2 n_parameters: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence.
        """
        return -2 * self._loglik(X, lengths) + 2 * self.n_parameters()

    def bic(self, X: ArrayLike, lengths: ArrayLike | None = None) -> float:
        """Return the Bayesian information criterion, -2 loglik + n_parameters log n: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations; n is their number.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence.
        """
        return -2 * self._loglik(X, lengths) + self.n_parameters() * float(np.log(_n_rows(X)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = bool(getattr(self._family(), "accepts_missing", False))
        return tags


def _n_rows(X: Any) -> int:
    return int(X.shape[0]) if hasattr(X, "shape") and len(X.shape) else len(X)


def as_lengths(y: Any, lengths: Any, n: int) -> Any:
    """Return the lengths, which may be given in the place of y: only labels of observations have n entries."""
    return y if lengths is None and y is not None and np.size(y) != n else lengths
