"""The hidden Markov model of any family, as an estimator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.generic import check_family
from lvm.estimators.hidden_markov_fitted import CHAIN, as_lengths
from lvm.estimators.hidden_markov_inference import HiddenMarkovInference
from lvm.estimators.outcome import keep_outcome
from lvm.estimators.progress import FITS
from lvm.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from lvm.models.mixture import Mixture
from lvm.models.sequences import SequenceRows, Sequences, by_observation, indptr_of
from lvm.protocol import DegenerateError, Rows
from lvm.restarts import best_of
from lvm.result import EMResult, Status, warn

TAKEN = (
    *CHAIN,
    "n_categories",
)  # names of fitted attributes that no parameter of a family may have, beside a mixture's


@final
@dataclass(eq=False, repr=False, kw_only=True)
class HiddenMarkov(HiddenMarkovInference):
    """Hidden Markov model with emissions of any family, fitted by expectation-maximisation (Baum-Welch).

    An observation is drawn from the component of its state, and the state depends on that of the observation before.

    Parameters
    ----------
    family : Family or str
        The density of an observation given its state, see `lvm.Family`; or the name of one of the library's, or of one
        that an installed package announces. "categorical" takes codes from 0 to the largest of each column.
    n_states : int
        Number of hidden states.
    tol : float
        EM has converged when an iteration gains less than this, in nats per observation. 0 runs exactly `max_iter`
        iterations.
    max_iter : int
        Largest number of iterations.
    n_init : int
        Number of starts. All run a few iterations, the best third goes on, until the best is left.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"} or array-like
        How the start assigns observations to states, and counts transitions; or states (n,), -1 for unknown; or
        responsibilities (n, n_states).
    startprob_init : array-like of shape (n_states,), optional
        Starting value of the start probabilities. A probability that is 0 stays 0.
    transmat_init : array-like of shape (n_states, n_states), optional
        Starting value of the transition probabilities from row to column. Those that are 0 stay 0: an upper triangular
        matrix makes a left-right model.
    components_init : dict of str to array-like, or NamedTuple, optional
        Starting values of the family's parameters by name, such as `{"means": ...}`; or all, as its M-step returns.
    startprob_prior, transmat_prior : float
        Parameters of symmetric Dirichlet priors on the start probabilities and on each row of the transition
        probabilities, >= 1: 1 is maximum likelihood, and more adds so much less 1 to the count of each that is not 0.
    fixed : dict of str to array-like, optional
        Parameters that the fit holds at given values, by name: "startprob", "transmat", and those of the family, where
        a state whose entries are all NaN is free.
    random_state : int, RandomState instance or None
        Seed of the starts and of `sample`.
    warm_start : bool
        Whether `fit` starts from the parameters of the last fit.
    n_jobs : int, optional
        Number of threads, each of which takes whole sequences; None means every core. The result does not depend on it.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations, which saves many where EM is slow; None is plain EM.

    Attributes
    ----------
    startprob_ : ndarray of shape (n_states,)
        Probabilities of the first state of a sequence.
    transmat_ : ndarray of shape (n_states, n_states)
        Probabilities of the transitions from row to column.
    components_ : NamedTuple
        The family's parameters. Those that it names are attributes of their own too, such as `means_`.
    weights_ : ndarray of shape (n_states,)
        Share of time that the chain spends in each state in the long run, after a start by `startprob_`.
    loglik_ : float
        Log-likelihood of the sequences at the fitted parameters, in nats.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        What EM climbs, from the start on: the log-likelihood, plus penalties and log priors where there are any.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations of the best start.
    restarts_ : ndarray of shape (n_init,)
        Log-likelihood that each start reached; -inf where one degenerated.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any.

    Examples
    --------
    >>> import numpy as np, lvm
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(0, 1, (50, 1)), rng.normal(9, 1, (50, 1))])
    >>> model = lvm.HiddenMarkov("gaussian_diag", 2, random_state=0).fit(X, lengths=[25, 75])
    >>> states = model.predict(X, lengths=[25, 75])
    >>> bool((states[:50] == states[0]).all() and (states[50:] == states[99]).all())
    True

    References
    ----------
    Baum, Petrie, Soules & Weiss (1970), "A maximization technique occurring in the statistical analysis of
    probabilistic functions of Markov chains"; Rabiner (1989), "A tutorial on hidden Markov models and selected
    applications in speech recognition".
    """

    family: Any = field(default="gaussian_full", kw_only=False)
    n_states: int = field(default=2, kw_only=False)
    tol: float = 1e-7
    max_iter: int = 1000
    n_init: int = 1
    init_params: Any = "kmeans"
    startprob_init: Any = None
    transmat_init: Any = None
    components_init: Any = None
    startprob_prior: float = 1.0
    transmat_prior: float = 1.0
    fixed: Any = None
    random_state: Any = None
    warm_start: bool = False
    n_jobs: int | None = None
    acceleration: str | None = None

    # ----- fitting --------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        lengths: ArrayLike | None = None,
        sequence_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
    ) -> Self:
        """Fit the model by expectation-maximisation.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations of all sequences, one after the other.
        y : ignored
            For scikit-learn's API; taken for `lengths` where it does not have n entries.
        lengths : array-like of shape (n_sequences,), optional
            Number of observations of each sequence; they sum to n. None is a single sequence.
        sequence_weight : array-like of shape (n_sequences,), optional
            Weights, >= 0; a sequence of weight 2 counts as two equal ones.
        labels : array-like of shape (n,), optional
            Known states, -1 where unknown.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If an argument is out of its range, or if every start degenerates.
        """
        self._check_parameters()
        data = self._validate(X, reset=True)
        n, K = len(data), self.n_states
        if n < K:
            raise ValueError(
                f"Expected n_samples >= n_states but got n_states = {K}, n_samples = {n}; lower n_states or add data."
            )
        indptr = indptr_of(as_lengths(y, lengths, n), n)
        weight = None
        if sequence_weight is not None:
            weight = _checks.row_weights(sequence_weight, len(indptr) - 1, "sequence_weight")
        known = _checks.labels(labels, n, K)
        if known is not None and known.ndim == 2:
            raise ValueError(
                f"labels have shape {known.shape}, expected ({n},): a state per observation, -1 if unknown."
            )
        model = self._model()
        rows = model.canonical(SequenceRows(Sequences(indptr, data, known), weight))
        result, self.restarts_ = self._best_fit(model, data, rows)
        self._set_params(result.params)
        if keep_outcome(self, result):
            warn(
                "Best performing initialization did not converge. Try different init parameters, or increase "
                f"max_iter, tol, or check for degenerate data. (n_iter={self.n_iter_}; {result.status})",
                ConvergenceWarning,
            )
        return self

    def _check_parameters(self) -> None:
        _checks.integer("n_states", self.n_states, 1)
        for name in ("startprob_prior", "transmat_prior"):
            _checks.real(name, getattr(self, name), 1.0)
        family = self._family()
        check_family(family)
        for name in getattr(family, "parameters", {}):
            if name in TAKEN:
                raise ValueError(f"{type(family).__name__} has a parameter {name!r}, but {name}_ means another thing.")
        self._mixture()._check_parameters()

    def _best_fit(self, model: HiddenMarkovModel[Any], X: Any, rows: SequenceRows) -> tuple[EMResult, Array]:
        """Return the best fit from all starts, and the log-likelihoods that they reached."""
        lengths = rows.X.lengths
        weight = np.ones(len(lengths)) if rows.weight is None else rows.weight
        if not weight.any():
            raise ValueError("sequence_weight is zero for every sequence; at least one needs a positive weight.")
        tol = self.tol * float(weight @ lengths) / float(weight.sum())  # the driver's is per unit of weight
        counted = by_observation(rows)

        def run(start: HiddenMarkovParams, max_iter: int) -> EMResult:
            return FITS[self.acceleration](model, counted, start, tol=tol, max_iter=max_iter, n_jobs=self.n_jobs)

        rng, failure = check_random_state(self.random_state), None
        starts: list[HiddenMarkovParams | None] = []
        if self.warm_start and np.shape(getattr(self, "transmat_", ())) == (self.n_states, self.n_states):
            starts.append(self._get_params())
        for _ in range(0 if starts else self.n_init):
            try:
                starts.append(self._start(model, X, rows, rng))
            except DegenerateError as error:
                starts.append(None)
                failure = error
        best, logliks = best_of(starts, run, self.max_iter)
        if best is None:
            raise ValueError(
                "Fitting the hidden Markov model failed: from every start, some state's likelihood has no maximum; "
                f"lower n_states, add data or use a prior. ({failure or Status.DEGENERATE.value})"
            ) from failure
        return best, logliks

    def _start(
        self, model: HiddenMarkovModel[Any], X: Any, rows: SequenceRows, rng: np.random.RandomState
    ) -> HiddenMarkovParams:
        """Return starting parameters: those of a mixture, and the transitions between its components."""
        mixture, K = self._mixture(), self.n_states
        inner = Mixture(model.family)
        weight = None if rows.weight is None else np.repeat(rows.weight, rows.X.lengths)
        observed = Rows(rows.X.observations, weight, rows.X.states)
        given = mixture._given()
        is_given = bool(mixture._parameters()) or mixture.components_init is not None
        params = mixture._merged(given, None) if is_given else None
        if params is None:
            params = mixture._start(inner, X, observed, rng, given)
        startprob, transmat = self._given("startprob", (K,)), self._given("transmat", (K, K))
        if startprob is None or transmat is None:
            states = inner.most_probable(inner.canonical(observed), params)
            first = rows.X.indptr[:-1]
            weight = np.ones(len(states)) if weight is None else weight
            follows = np.ones(len(states), np.bool_)
            follows[first] = False
            place = np.flatnonzero(follows)
            pairs = np.bincount(states[place - 1] * K + states[place], weight[place], K * K).reshape(K, K) + 1
            starts = np.bincount(states[first], weight[first], K) + 1
            startprob = starts / starts.sum() if startprob is None else startprob
            transmat = pairs / pairs.sum(axis=1, keepdims=True) if transmat is None else transmat
        return HiddenMarkovParams(startprob, transmat, params.components)
