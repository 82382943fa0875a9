"""The mixture model: turns any family of component densities into a latent variable model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from lvm import _checks
from lvm._jit import Array, canonical, is_canonical
from lvm.kernels.elementary import UNDERFLOW
from lvm.kernels.responsibilities import NEGLIGIBLE, keep_allowed, responsibilities
from lvm.kernels.workspace import NO_POSTERIOR, Posterior
from lvm.models.row_blocks import ONES, UNKNOWN, Block, check_labels, cut_into_blocks, expanded
from lvm.protocol import CanonicalRows, Rows, ZeroDensityError, n_rows, shortcut

# Where an E-step goes step by step: with larger penalties, even what is negligible enters the sum without penalties.
MAX_RELIEF = 8.0

FAMILY_METHODS = ("log_density", "zero_stats", "accumulate", "mstep", "sample", "n_parameters")

F = TypeVar("F", bound=Any)


class MixtureParams(NamedTuple):
    """Mixing weights (K,), which sum to 1, and the family's parameters."""

    weights: Array
    components: Any


class MixtureStats(NamedTuple):
    """Additive statistics of a mixture.

    Attributes
    ----------
    loglik : float
        Weighted log-likelihood of the rows.
    penalty : float
        What the family's `log_penalty` adds to it.
    weight : float
        Total row weight.
    counts : ndarray of shape (K,)
        Weighted responsibilities, summed over rows.
    components : NamedTuple
        The family's statistics.
    """

    loglik: float
    penalty: float
    weight: float
    counts: Array
    components: Any


class Mixture(Generic[F]):
    """Finite mixture of one family: p(x) = sum_k weights[k] p(x | component k).

    Rows are `Rows(X, weight, labels)`. A row with a known label contributes its joint density with
    that component, weights[k] p(x | k), and its responsibility is 1 there; one that may belong to some components only
    contributes the sum over those.

    Parameters
    ----------
    family : Family
        Component density, see `lvm.protocol.Family`.
    weights_prior : float
        Parameter of a symmetric Dirichlet prior on the mixing weights, >= 1; 1 is maximum likelihood, and more adds
        weights_prior - 1 to the count of each component (maximum a posteriori).
    equal_weights : bool
        Whether all components weigh 1 / K.
    held_weights : array-like of shape (K,), optional
        True for components that keep their weight; the others share the rest.

    Raises
    ------
    TypeError
        If the family lacks a method.

    References
    ----------
    McLachlan & Peel (2000), "Finite Mixture Models", sections 2.8 (EM) and 2.19 (partly labelled data).
    """

    def __init__(
        self,
        family: F,
        weights_prior: float = 1.0,
        equal_weights: bool = False,
        held_weights: ArrayLike | None = None,
    ) -> None:
        missing = [name for name in FAMILY_METHODS if not callable(getattr(family, name, None))]
        if missing:
            raise TypeError(
                f"{type(family).__name__} must implement {', '.join(FAMILY_METHODS)}; missing {', '.join(missing)}."
            )
        self.family = family
        self.weights_prior = _checks.real("weights_prior", weights_prior, 1.0)
        self.equal_weights = bool(equal_weights)
        self.held_weights = None if held_weights is None else np.array(held_weights, np.bool_)
        self._canonical_X: Callable[[Any], Any] = getattr(family, "canonical", canonical)
        self._dtype = getattr(family, "dtype", np.float64)
        self._at_once = shortcut(family, "estep", "log_density", "accumulate")

    def __repr__(self) -> str:
        return f"Mixture({self.family!r})"

    def canonical(self, rows: Rows) -> Rows:
        """Return the rows validated, in the dtypes and layouts of the kernels; no copy where they are right."""
        X = self._canonical_X(rows.X)
        weight = None if rows.weight is None else _checks.row_weights(rows.weight, len(X), "rows.weight")
        return Rows(X, weight, _checks.labels(rows.labels, len(X), None, "rows.labels"))

    def _is_canonical(self, rows: Rows) -> bool:
        """Return whether rows look as `canonical` leaves them; asked once per chunk, so values are not looked at."""
        X, weight, labels = rows
        return (
            (isinstance(X, CanonicalRows) or is_canonical(X, self._dtype))
            and (weight is None or is_canonical(weight, np.float64))
            and (labels is None or is_canonical(labels, np.int64 if labels.ndim == 1 else np.uint8))
        )

    def _canonical_rows(self, rows: Rows) -> Rows:
        return rows if self._is_canonical(rows) else self.canonical(rows)

    def estep_stats(self, rows: Rows, params: MixtureParams) -> MixtureStats:
        """Return the expected sufficient statistics of the rows.

        Raises
        ------
        ZeroDensityError
            If a row of positive weight has density 0 under every component.
        """
        return self.estep_at(params)(rows)

    def estep_at(self, params: MixtureParams) -> Callable[[Rows], MixtureStats]:
        """Return `estep_stats` at these parameters, as a function of rows: what all rows share is computed once."""
        at_once, prior = self._at_once, None if self._at_once is None else self._prior(params)
        if prior is None or prior.log_relief > MAX_RELIEF:
            return lambda rows: self.stepwise_stats(rows, params)

        def stats_of(rows: Rows) -> MixtureStats:
            rows = self._canonical_rows(rows)
            X, weight, labels = rows
            if labels is None or labels.ndim == 1:
                check_labels(labels, len(params.weights))
                given = {} if weight is None else {"weight": weight}
                posterior = prior._replace(**given if labels is None else given | {"labels": labels})
                stats = self.family.zero_stats(params.components)
                done = at_once(X, params.components, posterior, stats)
                if done is not None:
                    loglik, penalty, impossible = done
                    if impossible >= 0:
                        raise ZeroDensityError(impossible)
                    return MixtureStats(loglik, penalty, _total_weight(rows), stats.counts.copy(), stats)
            return self.stepwise_stats(rows, params)

        return stats_of

    def stepwise_stats(self, rows: Rows, params: MixtureParams) -> MixtureStats:
        """Return `estep_stats` by way of the family's `log_density` and `accumulate`, though it may have an `estep`."""
        rows = self._canonical_rows(rows)
        stats, counts = self.family.zero_stats(params.components), np.zeros(len(params.weights))
        loglik = penalty = 0.0
        for block in self._posterior(rows, params, counts):
            self.family.accumulate(block.X, block.resp, params.components, stats)
            loglik += block.loglik
            penalty += block.penalty
        return MixtureStats(loglik, penalty, _total_weight(rows), counts, stats)

    def _prior(self, params: MixtureParams) -> Posterior:
        """Return what an E-step turns log densities into responsibilities by, of rows without weights and labels."""
        offsets, reliefs, log_relief = _logarithms(params.weights), NO_POSTERIOR.reliefs, 0.0
        if hasattr(self.family, "log_penalty"):
            log_penalty = self._log_penalty(params)
            _checks.same_components(len(offsets), len(log_penalty))
            log_relief = -float(log_penalty.min())
        if log_relief > 0.0:
            offsets, reliefs = offsets + log_penalty, np.exp(-log_penalty - log_relief)
        smallest = self._smallest(penalised=True)
        return Posterior(offsets, reliefs, log_relief, smallest, NO_POSTERIOR.weight, NO_POSTERIOR.labels)

    def mstep(self, stats: MixtureStats, params: MixtureParams) -> MixtureParams:
        """Return the parameters that maximise the expected (penalised) log-likelihood."""
        weights = self._mix(stats.counts, params.weights)
        return MixtureParams(weights, self.family.mstep(stats.components, params.components))

    def _mix(self, counts: Array, old: Array) -> Array:
        """Return the mixing weights that maximise sum_k (counts_k + weights_prior - 1) log weights_k."""
        if self.equal_weights:
            return np.full(len(counts), 1 / len(counts))
        raised = counts + (self.weights_prior - 1)
        if self.held_weights is None:
            raised /= raised.sum()
            return raised
        raised[self.held_weights] = 0.0
        if not raised.sum() > 0:
            return old
        return np.where(self.held_weights, old, raised * ((1 - old[self.held_weights].sum()) / raised.sum()))

    def objective(self, stats: MixtureStats, params: MixtureParams) -> float:
        """Return what EM climbs: the log-likelihood plus the family's penalty and all log priors."""
        prior = getattr(self.family, "log_prior", None)
        objective = stats.loglik + stats.penalty + (0.0 if prior is None else float(prior(params.components)))
        if self.weights_prior > 1 and not self.equal_weights:
            free = slice(None) if self.held_weights is None else ~self.held_weights
            objective += (self.weights_prior - 1) * float(np.log(params.weights[free]).sum())
        return objective

    def loglik(self, rows: Rows, params: MixtureParams) -> Array:
        """Return the log-likelihood of each row, shape (n,), unweighted; -inf where it is impossible."""
        out = np.empty(n_rows(rows))
        for block in self._posterior(rows._replace(weight=None), params, penalised=False, strict=False):
            out[block.rows] = block.row_loglik
        return out

    def joint_log_density(self, rows: Rows, params: MixtureParams) -> Array:
        """Return log(weights[k] p(x_i | k)), shape (n, K), unweighted; -inf where a label excludes component k."""
        X, _, labels = self.canonical(rows)
        out = np.repeat(_logarithms(params.weights)[:, None], len(X), axis=1)
        self.family.log_density(X, params.components, out)
        if labels is not None:
            out[expanded(labels, len(out)) == 0] = -np.inf
        return out.T

    def responsibilities(self, rows: Rows, params: MixtureParams) -> Array:
        """Return the posterior probability of each component for each row, shape (n, K)."""
        out = np.empty((n_rows(rows), len(params.weights)))
        for block in self._posterior(rows._replace(weight=None), params, penalised=False):
            out[block.rows] = block.resp.T
        return out

    def most_probable(self, rows: Rows, params: MixtureParams) -> NDArray[np.int64]:
        """Return the component of highest responsibility for each row, shape (n,)."""
        out = np.empty(n_rows(rows), np.int64)
        for block in self._posterior(rows._replace(weight=None), params, penalised=False):
            out[block.rows] = block.resp.argmax(axis=0)
        return out

    def classification_loglik(self, rows: Rows, params: MixtureParams) -> float:
        """Return sum_i w_i log max_k r_ik: by how much certain assignments would lower the log-likelihood.

        It is <= 0, and 0 where every row belongs to one component for certain.
        """
        total = 0.0
        for block in self._posterior(rows, params, penalised=False):
            largest = block.resp.max(axis=0)
            weight = np.ones(len(largest)) if rows.weight is None else np.asarray(rows.weight)[block.rows]
            counted = weight > 0
            total += float(weight[counted] @ np.log(largest[counted] / weight[counted]))
        return total

    def impute(self, rows: Rows, params: MixtureParams, out: Array) -> None:
        """Write the posterior means, or modes, of missing cells to out (n, d), a copy of the rows."""
        if not hasattr(self.family, "fill"):
            raise TypeError(f"{type(self.family).__name__} must implement fill to impute; it takes no missing cells.")
        for block in self._posterior(rows._replace(weight=None), params, penalised=False):
            self.family.fill(block.X, block.resp, params.components, out[block.rows])

    def sample_missing(self, rows: Rows, params: MixtureParams, rng: np.random.RandomState, out: Array) -> None:
        """Write a draw of each row's missing cells given those observed to out (n, d), a copy of the rows."""
        if not hasattr(self.family, "draw_missing"):
            raise TypeError(f"{type(self.family).__name__} must implement draw_missing to sample missing cells.")
        for block in self._posterior(rows._replace(weight=None), params, penalised=False):
            self.family.draw_missing(block.X, block.resp, params.components, rng, out[block.rows])

    def assigned_stats(self, rows: Rows, assignment: ArrayLike, params: MixtureParams) -> MixtureStats:
        """Return the statistics under given responsibilities, without a log-likelihood: the first half of a start.

        Parameters
        ----------
        rows : Rows
            Canonical rows.
        assignment : array-like of shape (n,) or (n, K)
            Component of each row, -1 for equal responsibilities; or the responsibilities themselves.
        params : MixtureParams
            Centre of the statistics.
        """
        given = np.asarray(assignment)
        K = len(params.weights)
        stats = self.family.zero_stats(params.components)
        counts = np.zeros(K)
        for part in cut_into_blocks(rows.X, K):
            resp = expanded(given[part], K)
            if rows.weight is not None:
                resp *= rows.weight[part]
            self.family.accumulate(rows.X[part], resp, params.components, stats)
            counts += resp.sum(axis=1)
        return MixtureStats(0.0, 0.0, float(counts.sum()), counts, stats)

    def sample(self, params: MixtureParams, n: int, rng: np.random.RandomState) -> tuple[Any, NDArray[np.int64]]:
        """Draw n rows; returns X (n, d) and their components (n,), in component order."""
        counts = rng.multinomial(n, params.weights)
        parts = [self.family.sample(params.components, k, int(count), rng) for k, count in enumerate(counts)]
        return np.concatenate(parts), np.repeat(np.arange(len(counts)), counts)

    def n_parameters(self, params: MixtureParams) -> int:
        """Return the number of free parameters: K - 1 weights, less those held, and those of the family."""
        n_weights = len(params.weights) if self.held_weights is None else int(np.sum(~self.held_weights))
        count: int = self.family.n_parameters(params.components)
        return count if self.equal_weights else count + max(0, n_weights - 1)

    def to_vector(self, params: MixtureParams, origin: MixtureParams) -> Array:
        """Return coordinates, free of units: log weights and those of the family.

        Raises
        ------
        TypeError
            If the family does not say what its coordinates are.
        """
        missing = [name for name in ("to_vector", "from_vector") if not hasattr(self.family, name)]
        if missing:
            raise TypeError(f"{type(self.family).__name__} must implement {' and '.join(missing)} to be accelerated.")
        log_weights = _logarithms(params.weights)
        return np.concatenate([log_weights, self.family.to_vector(params.components, origin.components)])

    def from_vector(self, vector: Array, origin: MixtureParams) -> MixtureParams:
        """Return the parameters that have these coordinates."""
        K = len(origin.weights)
        return MixtureParams(np.asarray(softmax(vector[:K])), self.family.from_vector(vector[K:], origin.components))

    def _log_penalty(self, params: MixtureParams) -> Array:
        penalty = getattr(self.family, "log_penalty", None)
        return np.zeros(len(params.weights)) if penalty is None else np.asarray(penalty(params.components))

    def _posterior(
        self,
        rows: Rows,
        params: MixtureParams,
        counts: Array | None = None,
        *,
        penalised: bool = True,
        strict: bool = True,
    ) -> Iterator[Block]:
        """Yield the responsibilities of one block of rows after the other, and add their sums to counts (K,).

        Strict refuses impossible rows. Arrays are reused by the next block.
        """
        X, weight, labels = self._canonical_rows(rows)
        K = len(params.weights)
        check_labels(labels, K)
        counts = np.zeros(K) if counts is None else counts
        log_penalty = self._log_penalty(params) if penalised else np.zeros(K)
        log_weights = _logarithms(params.weights)
        blocks = cut_into_blocks(X, K)
        longest = -(-len(X) // len(blocks)) if blocks else 0
        buffer, logliks = np.empty(K * longest), np.empty(longest)
        for part in blocks:
            m = part.stop - part.start
            block, resp, row_loglik = X[part], buffer[: K * m].reshape(K, m), logliks[:m]
            resp.fill(0.0)
            self.family.log_density(block, params.components, resp)
            known = UNKNOWN[:m]
            if labels is not None and labels.ndim > 1:
                keep_allowed(resp, labels[part])
            elif labels is not None:
                known = labels[part]
            loglik, penalty, impossible = responsibilities(
                resp,
                log_weights,
                log_penalty,
                ONES[:m] if weight is None else weight[part],
                known,
                counts,
                row_loglik,
                self._smallest(penalised),
            )
            if impossible >= 0 and strict:
                raise ZeroDensityError(part.start + impossible)
            yield Block(part, block, resp, row_loglik, loglik, penalty)

    def _smallest(self, penalised: bool) -> float:
        """Return the logarithm of what is taken for 0: in an E-step what adds no digit, and nothing for others."""
        return NEGLIGIBLE if penalised and getattr(self.family, "ignores_negligible", False) else UNDERFLOW


def _logarithms(weights: Array) -> Array:
    """Return log(weights), -inf where one is 0."""
    if weights.all():
        return np.log(weights)
    with np.errstate(divide="ignore"):
        return np.log(weights)


def _total_weight(rows: Rows) -> float:
    return float(len(rows.X) if rows.weight is None else np.sum(rows.weight))
