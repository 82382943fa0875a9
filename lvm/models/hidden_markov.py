"""The hidden Markov model: turns any family of densities into one of sequences whose components follow a chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lvm import _checks
from lvm._jit import Array, canonical, is_canonical
from lvm.models.chain_walk import Walk, chain_posterior
from lvm.models.mixture import Mixture
from lvm.models.sequences import SequenceRows, Sequences, SequencesByObservation, checked_indptr, indptr_of
from lvm.protocol import CanonicalRows

F = TypeVar("F", bound=Any)


class HiddenMarkovParams(NamedTuple):
    """Start probabilities (K,), transition probabilities (K, K) from row to column, and the family's parameters."""

    startprob: Array
    transmat: Array
    components: Any


class HiddenMarkovStats(NamedTuple):
    """Additive statistics of a hidden Markov model.

    Attributes
    ----------
    loglik : float
        Weighted log-likelihood of the sequences.
    penalty : float
        What the family's `log_penalty` adds to it.
    weight : float
        Total weight of the sequences.
    starts : ndarray of shape (K,)
        Expected weight of the sequences that start in each state.
    transitions : ndarray of shape (K, K)
        Expected weight of the transitions from each state to each.
    components : NamedTuple
        The family's statistics.
    """

    loglik: float
    penalty: float
    weight: float
    starts: Array
    transitions: Array
    components: Any


class HiddenMarkovModel(Generic[F]):
    """Hidden Markov model with emissions of one family: the component of an observation depends on the one before.

    Rows are `SequenceRows(Sequences(indptr, X, states), weight)`: each sequence is a row, and never divided. So
    tolerances of `fit_em` are per sequence, and threads share sequences by the thousand. `by_observation` of such rows
    makes each observation one, to the same statistics: threads then share sequences of about equal length together,
    and an impossible observation is named by its own number; `loglik` remains that of the sequences. An array is a
    single sequence. A probability that is 0 stays 0: left-right models are started from a transition matrix with such
    zeros.

    Parameters
    ----------
    family : Family
        Density of an observation given its state, see `lvm.protocol.Family`.
    startprob_prior, transmat_prior : float
        Parameters of symmetric Dirichlet priors on the start probabilities and on each row of the transition
        probabilities that are not 0, >= 1; 1 is maximum likelihood.
    held : sequence of {"startprob", "transmat"}
        What the M-step keeps.

    Notes
    -----
    A family's penalty enters the log density of each observation in the E-step. EM then climbs the log-likelihood of
    the densities so changed, of which the M-step maximises the expectation; `loglik` is that without penalty, from
    another forward pass.

    References
    ----------
    Rabiner (1989), "A tutorial on hidden Markov models and selected applications in speech recognition", section III.
    """

    def __init__(
        self, family: F, startprob_prior: float = 1.0, transmat_prior: float = 1.0, held: tuple[str, ...] = ()
    ) -> None:
        Mixture(family)  # names the methods that it lacks
        self.family = family
        self.startprob_prior = _checks.real("startprob_prior", startprob_prior, 1.0)
        self.transmat_prior = _checks.real("transmat_prior", transmat_prior, 1.0)
        self.held = tuple(held)
        self._canonical_observations: Callable[[Any], Any] = getattr(family, "canonical", canonical)
        self._dtype = getattr(family, "dtype", np.float64)

    def __repr__(self) -> str:
        return f"HiddenMarkovModel({self.family!r})"

    def canonical(self, rows: Any) -> SequenceRows:
        """Return the rows validated, in the dtypes and layouts of the kernels; no copy where they are right."""
        X, labels = rows.X, getattr(rows, "labels", None)
        if isinstance(X, SequencesByObservation):
            if rows.weight is not None:
                raise ValueError("rows.weight is given, but SequencesByObservation has a weight of its own; use that.")
            weight = self._canonical_weight(X.weight, X.sequences)
            return SequenceRows(SequencesByObservation(self._canonical_X(X.sequences), weight, X.start, X.stop))
        if not isinstance(X, Sequences):
            if not hasattr(X, "shape"):
                raise TypeError(
                    f"rows.X must be Sequences(indptr, observations), or an array that is a single sequence, got "
                    f"{type(X).__name__}; concatenate several, and make indptr from their lengths by indptr_of."
                )
            X = Sequences(indptr_of(None, X.shape[0]), X, labels)
        elif labels is not None:
            raise ValueError("rows.labels are given beside Sequences; their states are for known ones.")
        return SequenceRows(self._canonical_X(X), self._canonical_weight(rows.weight, X))

    def _canonical_X(self, X: Sequences) -> Sequences:
        observations, states = X.observations, X.states
        is_raw = not isinstance(observations, CanonicalRows) and not is_canonical(observations, self._dtype)
        if is_raw:
            observations = self._canonical_observations(observations)
        n = observations.shape[0]
        indptr = checked_indptr(X.indptr, n, whole=is_raw)
        if states is not None and not is_canonical(states, np.int64):
            if np.ndim(states) != 1:
                raise ValueError(f"states have shape {np.shape(states)}, expected ({n},): one per observation, or -1.")
            states = _checks.labels(states, n, None, "states")
        return Sequences(indptr, observations, states)

    def _canonical_weight(self, weight: Any, X: Sequences) -> Array | None:
        return None if weight is None else _checks.row_weights(weight, len(X), "rows.weight")

    # ----- expectation-maximisation -----------------------------------------------------------------------------

    def estep_stats(self, rows: SequenceRows, params: HiddenMarkovParams) -> HiddenMarkovStats:
        """Return the expected sufficient statistics of the sequences.

        Raises
        ------
        ZeroDensityError
            If an observation of a sequence of positive weight is impossible after those before it.
        """
        rows = self._ready(rows)
        K = len(params.startprob)
        stats = self.family.zero_stats(params.components)
        walk = Walk(self.family, rows, params)
        for block in walk.smoothed():
            self.family.accumulate(block.X, block.resp, params.components, stats)
        starts, transitions = walk.sums.starts[:K].copy(), walk.sums.transitions[:K, :K].copy()
        return HiddenMarkovStats(walk.loglik, walk.penalty, walk.total_weight(), starts, transitions, stats)

    def mstep(self, stats: HiddenMarkovStats, params: HiddenMarkovParams) -> HiddenMarkovParams:
        """Return the parameters that maximise the expected (penalised) log-likelihood."""
        startprob, transmat = params.startprob, params.transmat
        if "startprob" not in self.held:
            startprob = _normalised(stats.starts[None], startprob[None], self.startprob_prior)[0]
        if "transmat" not in self.held:
            transmat = _normalised(stats.transitions, transmat, self.transmat_prior)
        return HiddenMarkovParams(startprob, transmat, self.family.mstep(stats.components, params.components))

    def log_prior(self, params: HiddenMarkovParams) -> float:
        """Return the log density of all priors, up to a constant."""
        prior = getattr(self.family, "log_prior", None)
        total = 0.0 if prior is None else float(prior(params.components))
        for name, alpha in (("startprob", self.startprob_prior), ("transmat", self.transmat_prior)):
            if alpha > 1 and name not in self.held:
                p = getattr(params, name)
                total += (alpha - 1) * float(np.log(p[p > 0]).sum())
        return total

    def objective(self, stats: HiddenMarkovStats, params: HiddenMarkovParams) -> float:
        """Return what EM climbs: the log-likelihood plus the family's penalty and all log priors."""
        return stats.loglik + stats.penalty + self.log_prior(params)

    def loglik(self, rows: SequenceRows, params: HiddenMarkovParams) -> Array:
        """Return the log-likelihood of each sequence, shape (n_sequences,), unweighted; -inf where impossible."""
        return Walk(self.family, self._ready(_unweighted(rows)), params, penalised=False).logliks()

    # ----- states ---------------------------------------------------------------------------------------------

    def responsibilities(self, rows: SequenceRows, params: HiddenMarkovParams) -> Array:
        """Return the posterior probability of each state for each observation, given its sequence, shape (n, K)."""
        walk = Walk(self.family, self._ready(_unweighted(rows)), params, penalised=False, smallest=-1.0)
        origin, stop = walk.span()
        out = np.empty((stop - origin, len(params.startprob)))
        for block in walk.smoothed():
            out[block.part.start - origin : block.part.stop - origin] = block.resp.T
        return out

    def most_probable_path(self, rows: SequenceRows, params: HiddenMarkovParams) -> tuple[float, NDArray[np.int64]]:
        """Return the most probable states (n,) of all sequences together, and the log density of them with the rows."""
        return Walk(self.family, self._ready(_unweighted(rows)), params, penalised=False).path()

    def most_probable_states(self, rows: SequenceRows, params: HiddenMarkovParams) -> tuple[float, NDArray[np.int64]]:
        """Return how many states are expected to be right, and the most probable state of each observation (n,)."""
        walk = Walk(self.family, self._ready(_unweighted(rows)), params, penalised=False, smallest=-1.0)
        origin, stop = walk.span()
        out, expected = np.empty(stop - origin, np.int64), 0.0
        for block in walk.smoothed():
            out[block.part.start - origin : block.part.stop - origin] = block.resp.argmax(axis=0)
            expected += float(block.resp.max(axis=0).sum())
        return expected, out

    def chain_log_density(self, rows: SequenceRows, params: HiddenMarkovParams) -> tuple[Array, Array]:
        """Return log p(x_t, z_t = j | z_t-1 = i), [t, i, j], and the weights (n,) of the observations' sequences.

        The first observation of a sequence has log p(x_t, z_t = j) for all i.
        """
        rows = self._ready(rows)
        X, weight = (rows.X.sequences, rows.X.weight) if isinstance(rows.X, SequencesByObservation) else rows
        walk = Walk(self.family, _unweighted(rows), params, penalised=False)
        return walk.log_density(), np.repeat(np.ones(len(X)) if weight is None else weight, X.lengths)

    def posterior_transitions(self, rows: SequenceRows, params: HiddenMarkovParams) -> Array:
        """Return p(z_t = j | z_t-1 = i, x), [t, i, j], (n, K, K): the posterior of the path, which is a chain.

        The first observation of a sequence has p(z_t = j | x) for all i; after an i that is impossible, given what
        follows, all j are equal.
        """
        posterior = np.exp(chain_posterior(self.chain_log_density(rows, params)[0])[0])
        return np.where(posterior.sum(axis=2, keepdims=True) > 0, posterior, 1 / len(params.startprob))

    # ----- all else -------------------------------------------------------------------------------------------

    def sample_states(self, params: HiddenMarkovParams, n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
        """Draw the states of a sequence of n observations."""
        limits = np.cumsum(params.transmat, axis=1).tolist()
        K, uniform = len(limits), rng.random_sample(n)
        states = np.empty(n, np.int64)
        row = np.cumsum(params.startprob).tolist()
        for t, u in enumerate(uniform.tolist()):
            state = min(int(np.searchsorted(row, u * row[-1], side="right")), K - 1)
            states[t] = state
            row = limits[state]
        return states

    def sample_sequence(
        self, params: HiddenMarkovParams, n: int, rng: np.random.RandomState
    ) -> tuple[Any, NDArray[np.int64]]:
        """Draw a sequence of n observations; returns X (n, d) and the states (n,)."""
        states = self.sample_states(params, n, rng)
        order = np.argsort(states, kind="stable")
        counts = np.bincount(states, minlength=len(params.startprob))
        drawn = [self.family.sample(params.components, k, int(c), rng) for k, c in enumerate(counts) if c]
        return np.concatenate(drawn)[np.argsort(order, kind="stable")], states

    def n_parameters(self, params: HiddenMarkovParams) -> int:
        """Return the number of free parameters: probabilities that are 0 stay so, and do not count."""
        count = int(self.family.n_parameters(params.components))
        if "startprob" not in self.held:
            count += int(np.count_nonzero(params.startprob)) - 1
        if "transmat" not in self.held:
            count += int(np.count_nonzero(params.transmat)) - len(params.transmat)
        return count

    def to_vector(self, params: HiddenMarkovParams, origin: HiddenMarkovParams) -> Array:
        """Return coordinates, free of units: logarithms of the probabilities, and those of the family.

        Raises
        ------
        TypeError
            If the family does not say what its coordinates are.
        """
        missing = [name for name in ("to_vector", "from_vector") if not hasattr(self.family, name)]
        if missing:
            raise TypeError(f"{type(self.family).__name__} must implement {' and '.join(missing)} to be accelerated.")
        with np.errstate(divide="ignore"):
            logs = np.log(np.concatenate([params.startprob, params.transmat.ravel()]))
        return np.concatenate([logs, self.family.to_vector(params.components, origin.components)])

    def from_vector(self, vector: Array, origin: HiddenMarkovParams) -> HiddenMarkovParams:
        """Return the parameters that have these coordinates."""
        K = len(origin.startprob)
        startprob, transmat, rest = np.split(vector, [K, K + K * K])
        components = self.family.from_vector(rest, origin.components)
        start = origin.startprob if "startprob" in self.held else np.asarray(softmax(startprob))
        matrix = origin.transmat if "transmat" in self.held else np.asarray(softmax(transmat.reshape(K, K), axis=1))
        return HiddenMarkovParams(start, matrix, components)

    def _ready(self, rows: Any) -> SequenceRows:
        """Return rows as `canonical` leaves them; values are not looked at again."""
        X, weight = rows.X, rows.weight
        if isinstance(X, SequencesByObservation):
            weight, X = X.weight, X.sequences
        is_ready = (
            isinstance(X, Sequences)
            and (isinstance(X.observations, CanonicalRows) or is_canonical(X.observations, self._dtype))
            and (weight is None or is_canonical(weight, np.float64))
        )
        return SequenceRows(rows.X, rows.weight) if is_ready else self.canonical(rows)


def _unweighted(rows: Any) -> Any:
    if isinstance(rows.X, SequencesByObservation):
        return SequenceRows(replace(rows.X, weight=None))
    return rows._replace(weight=None)


def _normalised(counts: Array, old: Array, prior: float) -> Array:
    """Return the rows of probabilities that maximise sum (counts + prior - 1) log p over those > 0 in old."""
    raised = counts + (prior - 1) * (old > 0)
    totals = raised.sum(axis=1, keepdims=True)
    alive = totals > np.finfo(np.float64).tiny
    return np.where(alive, raised / np.where(alive, totals, 1.0), old)
