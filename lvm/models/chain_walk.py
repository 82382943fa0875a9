"""Forward, backward and most probable path over blocks of sequences, in memory that does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array
from lvm.kernels.chains import (
    MIN_SCALED_TRANSITION,
    Chain,
    Filtered,
    Transited,
    extend_paths,
    filter_logarithms,
    filter_scaled,
    keep_known,
    log_densities,
    scale_densities,
    smooth_logarithms,
    smooth_scaled,
    trace_back,
    write_responsibilities,
)
from lvm.kernels.strips import LINE
from lvm.models.sequences import SequenceRows, SequencesByObservation
from lvm.protocol import ZeroDensityError

BLOCK_CELLS = 1 << 15  # states of the observations of a block: some thousand observations
MIN_BLOCK = 256
NEGLIGIBLE = 4e-18  # see lvm.kernels.responsibilities


class Block(NamedTuple):
    """Posterior (K, m) of the states of a block of observations, times the weights of their sequences."""

    part: slice
    X: Any
    resp: Array


class _Forward(NamedTuple):
    """What the forward pass leaves of a group of sequences.

    Attributes
    ----------
    is_scaled : bool
        Whether `last` holds probabilities, not logarithms.
    plain, penalised : ndarray of shape (n_sequences,)
        Log-likelihoods without the family's penalty and with it.
    preceding : list of ndarray
        What precedes each block: the distribution of the observation before.
    last : Filtered
        The last block.
    impossible : int
        The first impossible observation, -1 for none.
    """

    is_scaled: bool
    plain: Array
    penalised: Array
    preceding: list[Array]
    last: Filtered
    impossible: int


class Walk:
    """One pass over sequences, in blocks: short sequences together, long ones in several.

    A long sequence is filtered first, and what precedes each block kept. Going back, the blocks are filtered again,
    and smoothed.
    """

    def __init__(
        self,
        family: Any,
        rows: SequenceRows,
        params: Any,
        *,
        penalised: bool = True,
        smallest: float | None = None,
    ) -> None:
        self._family = family
        X, weight, self._start = rows.X, rows.weight, None
        if isinstance(X, SequencesByObservation):
            weight, self._start, X = X.weight, X.start, X.sequences
        self._X, self._indptr, self._weight, self._components = X, X.indptr, weight, params.components
        K = self._K = len(params.startprob)
        width = 8 * -(-K // 8)
        if X.states is not None:
            highest = X.states[X.indptr[0] : X.indptr[-1]].max(initial=-1)
            if highest >= K:
                raise ValueError(f"states hold {highest}, but there are {K}, from 0 to {K - 1}.")
        penalty = getattr(self._family, "log_penalty", None) if penalised else None
        self._none = np.zeros(K)
        self._penalty = self._none if penalty is None else self._none + penalty(params.components)
        if smallest is None:
            smallest = NEGLIGIBLE if getattr(self._family, "ignores_negligible", False) else 0.0
        self._smallest = smallest
        self._is_scaled = float(params.transmat.min()) >= MIN_SCALED_TRANSITION
        self._chains = _chains(params, width)
        self._size = max(MIN_BLOCK, BLOCK_CELLS // width)
        longest = min(self._size, self.span()[1] - self.span()[0])
        self._buffer = np.empty(K * longest)
        self._room = Filtered(
            _aligned(longest + 1, width),
            _aligned(longest + 1, width),
            np.empty(longest),
            np.empty(longest),
            np.empty(longest, np.uint8),
        )
        self.sums = Transited(np.zeros(width), np.zeros((width, width)))
        self.loglik = self.penalty = 0.0

    def span(self) -> tuple[int, int]:
        """Return the first observation, and the one after the last."""
        return int(self._indptr[0]), int(self._indptr[-1])

    def total_weight(self) -> float:
        """Return the total weight of the sequences."""
        return float(len(self._indptr) - 1 if self._weight is None else np.sum(self._weight))

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Yield the first of the sequences that share a block, or a long one, and the one after them."""
        first, n = 0, len(self._indptr) - 1
        while first < n:
            end = int(np.searchsorted(self._indptr, self._indptr[first] + self._size, side="right")) - 1
            end = max(end, first + 1)
            yield first, end
            first = end

    def _blocks(self, first: int, end: int) -> list[slice]:
        start, stop = int(self._indptr[first]), int(self._indptr[end])
        count = -(-(stop - start) // self._size)
        edges = [start + (stop - start) * i // count for i in range(count + 1)]
        return [slice(a, b) for a, b in pairwise(edges)]

    def _densities(self, part: slice) -> Array:
        m = part.stop - part.start
        out = self._buffer[: self._K * m].reshape(self._K, m)
        out.fill(0.0)
        self._family.log_density(self._X.observations[part], self._components, out)
        if self._X.states is not None:
            keep_known(out, self._X.states[part])
        return out

    def _filtered(
        self, part: slice, begins: NDArray[Any], densities: Array, offsets: Array, before: Array, scaled: bool
    ) -> tuple[Filtered, int]:
        """Filter a block; returns what that leaves, and the first impossible observation of all, -1 for none."""
        m, room = part.stop - part.start, self._room
        filtered = Filtered(
            room.densities[: m + 1], room.states[: m + 1], room.totals[:m], room.norms[:m], room.first[:m]
        )
        filtered.first[:] = begins
        filtered.states[0] = before
        (scale_densities if scaled else log_densities)(densities, offsets, filtered.densities[:m], filtered.norms)
        where = (filter_scaled if scaled else filter_logarithms)(filtered, self._chains[scaled], self._K)
        return filtered, -1 if where < 0 else part.start + int(where)

    def _in_form(self, first: int, end: int, scaled: bool) -> _Forward | None:
        """Filter a group of sequences; None where the scaled form cannot."""
        blocks = self._blocks(first, end)
        width = self._room.states.shape[1]
        preceding, impossible = [np.zeros(width)], -1
        plain, penalised = np.zeros(end - first), np.zeros(end - first)
        passes = [(self._penalty, preceding, penalised)]
        if self._penalty.any():
            passes.insert(0, (self._none, [np.zeros(width)], plain))  # first: the other's arrays are to last
        for part in blocks:
            begins, densities = self._begins(part, first, end), self._densities(part)
            for offsets, before, logliks in passes:
                filtered, where = self._filtered(part, begins, densities, offsets, before[-1], scaled)
                if where >= 0 and scaled:
                    return None
                if len(blocks) > 1:
                    logliks[0] += filtered.norms.sum()
                else:
                    logliks += np.add.reduceat(filtered.norms, self._indptr[first:end] - part.start)
                before.append(filtered.states[-1] / filtered.totals[-1] if scaled else filtered.states[-1].copy())
            impossible = where if impossible < 0 else impossible
        return _Forward(scaled, plain if self._penalty.any() else penalised, penalised, preceding, filtered, impossible)

    def _begins(self, part: slice, first: int, end: int) -> NDArray[np.uint8]:
        """Return 1 for the observations of a block with which one of the sequences from first to end begins."""
        begins = np.zeros(part.stop - part.start, np.uint8)
        starts = self._indptr[first:end]
        begins[starts[(starts >= part.start) & (starts < part.stop)] - part.start] = 1
        return begins

    def _forward(self, first: int, end: int) -> _Forward:
        """Filter a group of sequences, in logarithms where need be."""
        found = self._in_form(first, end, True) if self._is_scaled else None
        found = self._in_form(first, end, False) if found is None else found
        assert found is not None
        return found

    def logliks(self) -> Array:
        """Return the log-likelihood of each sequence, shape (n_sequences,)."""
        found = [self._forward(*group).plain for group in self._groups()]
        return np.concatenate(found) if found else np.empty(0)

    def smoothed(self) -> Iterator[Block]:
        """Yield the posterior of one block after the other; add up log-likelihood, penalty, starts and transitions."""
        for first, end in self._groups():
            forward = self._forward(first, end)
            weight = np.ones(end - first) if self._weight is None else np.asarray(self._weight[first:end])
            if forward.impossible >= 0:
                self._refuse(first, end, forward.penalised, weight)
            counted = weight > 0
            self.loglik += float(weight[counted] @ forward.plain[counted])
            self.penalty += float(weight[counted] @ (forward.penalised[counted] - forward.plain[counted]))
            yield from self._backward(first, end, forward, weight)

    def _backward(self, first: int, end: int, forward: _Forward, weight: Array) -> Iterator[Block]:
        """Yield the posterior of each block of a group that was filtered, the last block first."""
        scaled, filtered = forward.is_scaled, forward.last
        blocks = self._blocks(first, end)
        after = np.zeros(self._room.states.shape[1])
        for index in range(len(blocks) - 1, -1, -1):
            part, is_last = blocks[index], index == len(blocks) - 1
            m = part.stop - part.start
            if not is_last:
                begins, before = self._begins(part, first, end), forward.preceding[index]
                filtered, _ = self._filtered(part, begins, self._densities(part), self._penalty, before, scaled)
            filtered.densities[m] = after
            lengths = np.diff(self._indptr[first : end + 1]) if len(blocks) == 1 else m
            weights = np.repeat(weight, lengths)
            smooth = smooth_scaled if scaled else smooth_logarithms
            smooth(filtered, self._chains[scaled], self._K, is_last, weights, self.sums)
            after = filtered.densities[0].copy()
            resp = self._buffer[: self._K * m].reshape(self._K, m)
            write_responsibilities(filtered.states[1:], weights, self._smallest, resp)
            yield Block(part, self._X.observations[part], resp)

    def _refuse(self, first: int, end: int, logliks: Array, weight: Array) -> None:
        """Raise for the first sequence that has weight and is impossible, if there is one."""
        for place in first + np.flatnonzero(~np.isfinite(logliks) & (weight > 0)):
            observation = self._forward(int(place), int(place) + 1).impossible
            raise ZeroDensityError(int(place) if self._start is None else observation - self._start)

    def log_density(self) -> Array:
        """Return log p(x_t, z_t = j | z_t-1 = i), [t, i, j], where the first of a sequence has the same for all i."""
        origin, stop = self.span()
        logarithms, K = self._chains[0], self._K
        out = np.tile(logarithms.transitions[:K, :K], (stop - origin, 1, 1))
        out[self._indptr[:-1] - origin] = logarithms.start[:K]
        for first, end in self._groups():
            for part in self._blocks(first, end):
                out[part.start - origin : part.stop - origin] += self._densities(part).T[:, None]
        return out

    def path(self) -> tuple[float, NDArray[np.int64]]:
        """Return the log density of the most probable paths together, and these."""
        origin, beyond = self.span()
        path = np.empty(beyond - origin, np.int64)
        total = 0.0
        for first, end in self._groups():
            blocks = self._blocks(first, end)
            start, stop = blocks[0].start, blocks[-1].stop
            pointers = np.empty((stop - start, self._K), np.uint16)
            best = np.zeros(len(self._chains[0].start))
            for part in blocks:
                m = part.stop - part.start
                states = self._room.densities[:m]
                log_densities(self._densities(part), self._none, states, self._room.norms[:m])
                begins = self._begins(part, first, end)
                rows = pointers[part.start - start : part.stop - start]
                grown = extend_paths(states, begins, self._chains[False], self._K, best, rows)
                if not np.isfinite(grown):
                    self._refuse(first, end, self._forward(first, end).plain, np.ones(end - first))
                total += grown
            trace_back(pointers, int(best[: self._K].argmax()), path[start - origin : stop - origin])
        return total, path


def chain_posterior(joint: Array) -> tuple[Array, Array]:
    """Return the posterior of a chain from log p(x_t, z_t = j | z_t-1 = i), [t, i, j], of one sequence after the other.

    These are log p(z_t = j | z_t-1 = i, x), -inf for all j after an i that makes what follows impossible; and terms of
    the log-likelihood, shape (n,): those of a sequence sum to its own.
    """
    posterior, gains = np.empty_like(joint), np.empty(len(joint))
    ahead = np.zeros(joint.shape[1])
    for t in range(len(joint) - 1, -1, -1):
        both = joint[t] + ahead
        totals = np.logaddexp.reduce(both, axis=1)
        posterior[t] = both - np.where(totals > -np.inf, totals, 0.0)[:, None]
        gains[t] = totals.max()
        ahead = totals - gains[t] if np.isfinite(gains[t]) else np.zeros_like(totals)
    return posterior, gains


def _aligned(*shape: int) -> Array:
    """Return room at the start of a cache line: else each load of a whole vector touches two."""
    size = math.prod(shape)
    memory = np.empty(size + LINE // 8)
    first = -(memory.ctypes.data // 8) % (LINE // 8)
    return memory[first : first + size].reshape(shape)


def _chains(params: Any, width: int) -> tuple[Chain, Chain]:
    """Return the logarithms of the probabilities, and these, of so many states: those beyond K are impossible."""
    K = len(params.startprob)
    chain = Chain(_aligned(width), _aligned(width, width), _aligned(width, width))
    for array in chain:
        array.fill(0.0)
    chain.start[:K], chain.transitions[:K, :K], chain.transposed[:K, :K] = (
        params.startprob,
        params.transmat,
        params.transmat.T,
    )
    with np.errstate(divide="ignore"):
        return Chain(*map(np.log, chain)), chain
