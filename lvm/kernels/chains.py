"""Markov chains of hidden states: filtering, smoothing and the most probable path.

Arrays of observations by states are (m, P): P is K, rounded up to whole vectors of eight, and what is beyond K stands
for impossible states. A block may hold the end of one sequence and the beginning of others.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, add_scaled, helper, kernel, load_eight, store_eight, zero_eight
from lvm.kernels.elementary import exp, log
from lvm.kernels.strips import STRIP

# Where every transition is at least as probable, what underflows in a filtered distribution can add no digit to any
# later one: it is below 1e-308, and each state gets a share of 1e-100 from whatever is left. Else, logarithms.
MIN_SCALED_TRANSITION = 1e-100
SMALLEST_TOTAL = 1e-200
RENEWED = 32  # observations after which smoothed distributions are made to sum to 1: rounding adds up, step by step


class Chain(NamedTuple):
    """Start (P,), transitions from state i to j (P, P), and the same transposed; or their logarithms."""

    start: Array
    transitions: Array
    transposed: Array


class Filtered(NamedTuple):
    """What the forward pass leaves of m observations: probabilities, or their logarithms.

    Attributes
    ----------
    states : ndarray of shape (m, P)
        Before the pass, p(x_t | state), relative to the largest; after it, p(state | x_1, ..., x_t).
    predicted : ndarray of shape (m, P)
        p(state | x_1, ..., x_t-1).
    norms : ndarray of shape (m,)
        Before the pass, the logarithm of that largest; after it, log p(x_t | x_1, ..., x_t-1).
    first : ndarray of shape (m,), uint8
        1 where a sequence begins.
    """

    states: Array
    predicted: Array
    norms: Array
    first: NDArray[np.uint8]


class Transited(NamedTuple):
    """Expected weights of the first states (P,) and of the transitions (P, P)."""

    starts: Array
    transitions: Array


@kernel
def keep_known(log_density: Array, known: NDArray[np.int64]) -> None:
    """Make every state but the known one impossible in log_density (K, m), by known (m,), -1 for unknown."""
    for k in range(log_density.shape[0]):
        row = log_density[k]
        for t in range(len(known)):
            if known[t] >= 0 and known[t] != k:
                row[t] = -np.inf


@kernel
def scale_densities(log_density: Array, offsets: Array, states: Array, norms: Array) -> None:
    """Write exp(log_density (K, m) + offsets (K,)) to states (m, P), relative to their largest, its log to norms (m,).

    Where that is not finite, states are 0 and norms -inf or NaN.
    """
    K, n = log_density.shape
    values = np.empty(STRIP)
    states[:, K:] = 0.0
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        top = norms[start : start + m]
        out = states[start : start + m]
        for p in range(m):
            top[p] = -np.inf
        for k in range(K):
            row, offset = log_density[k, start : start + m], offsets[k]
            for p in range(m):
                top[p] = max(top[p], row[p] + offset)
        for p in range(m):
            top[p] = top[p] if top[p] < np.inf else np.nan
        for k in range(K):
            row, offset = log_density[k, start : start + m], offsets[k]
            for p in range(m):
                difference = row[p] + offset - top[p]
                values[p] = exp(difference) if difference <= 0.0 else 0.0
            for p in range(m):
                out[p, k] = values[p]


@kernel
def log_densities(log_density: Array, offsets: Array, states: Array, norms: Array) -> None:
    """Write log_density (K, m) + offsets (K,) to states (m, P), transposed, and 0 to norms (m,)."""
    K, m = log_density.shape
    states[:, K:] = -np.inf
    norms[:] = 0.0
    for k in range(K):
        for t in range(m):
            value = log_density[k, t] + offsets[k]
            states[t, k] = value
            if not value < np.inf:
                norms[t] = np.nan


@helper
def _product(vector: Array, matrix: Array, K: int, out: Array) -> None:
    """Write vector (P,) @ matrix (P, P) to out (P,), where the vector ends after K entries."""
    width = len(out)
    for first in range(0, width, 8):
        even, odd = zero_eight(), zero_eight()
        for i in range(0, K - 1, 2):
            even = add_scaled(even, load_eight(matrix, i * width + first), vector[i])
            odd = add_scaled(odd, load_eight(matrix, (i + 1) * width + first), vector[i + 1])
        if K % 2 == 1:
            even = add_scaled(even, load_eight(matrix, (K - 1) * width + first), vector[K - 1])
        store_eight(add_scaled(even, odd, 1.0), out, first)


@kernel
def filter_scaled(filtered: Filtered, chain: Chain, K: int, before: Array) -> int:
    """Filter a block, from and to the distribution (P,) of the observation before.

    Returns the first observation that is impossible or nearly so, which only `filter_logarithms` can tell; else -1.

    References
    ----------
    Devijver (1985), "Baum's forward-backward algorithm revisited", eqs. 8-10.
    """
    m, width = filtered.states.shape
    transitions, norms = chain.transitions, filtered.norms
    totals = np.ones(STRIP)
    joint, scale = before.copy(), 1.0  # joint * scale is the distribution: the division need not be waited for
    for begin in range(0, m, STRIP):
        size = min(STRIP, m - begin)
        for p in range(size):
            predicted, states = filtered.predicted[begin + p], filtered.states[begin + p]
            if filtered.first[begin + p]:
                predicted[:] = chain.start
            else:
                _product(joint, transitions, K, predicted)
                for k in range(width):
                    predicted[k] *= scale
            total = 0.0
            for k in range(width):
                joint[k] = states[k] * predicted[k]
                total += joint[k]
            if not total > SMALLEST_TOTAL:
                return begin + p
            scale = 1.0 / total
            for k in range(width):
                states[k] = joint[k] * scale
            totals[p] = total
        part = norms[begin : begin + size]
        for p in range(size):
            part[p] += log(totals[p])
    for k in range(width):
        before[k] = joint[k] * scale
    return -1


@kernel
def filter_logarithms(filtered: Filtered, chain: Chain, K: int, before: Array) -> int:
    """Filter a block in logarithms; returns the first impossible observation, -1 for none.

    An impossible one tells nothing of its state, and has the norm -inf, or NaN where it is not even that.
    """
    m, width = filtered.states.shape
    top, total = np.empty(width), np.empty(width)
    impossible = -1
    for t in range(m):
        predicted, states = filtered.predicted[t], filtered.states[t]
        if filtered.first[t]:
            predicted[:] = chain.start
        else:
            top[:] = -np.inf
            total[:] = 0.0
            for i in range(K):
                row = chain.transitions[i]
                for k in range(width):
                    top[k] = max(top[k], before[i] + row[k])
            for i in range(K):
                row = chain.transitions[i]
                for k in range(width):
                    total[k] += exp(before[i] + row[k] - (top[k] if top[k] > -np.inf else 0.0))
            for k in range(width):
                predicted[k] = top[k] + log(total[k] if total[k] > 0.0 else 1.0)
        largest = -np.inf
        for k in range(width):
            states[k] += predicted[k]
            largest = max(largest, states[k])
        if largest > -np.inf and largest < np.inf and filtered.norms[t] == 0.0:
            norm = 0.0
            for k in range(width):
                norm += exp(states[k] - largest)
            filtered.norms[t] = largest + math.log(norm)
            states -= filtered.norms[t]
        else:
            impossible = t if impossible < 0 else impossible
            filtered.norms[t] = -np.inf if largest == -np.inf and filtered.norms[t] == 0.0 else np.nan
            states[:] = predicted
        before[:] = states
    return impossible


@kernel
def smooth_scaled(
    filtered: Filtered, chain: Chain, K: int, is_last: bool, after: Array, weight: Array, sums: Transited
) -> None:
    """Turn the filtered distributions of a block into smoothed ones, p(state | all of the sequence), in place.

    With g the smoothed and q the predicted distribution, g_t(i) = f_t(i) sum_j a_ij g_t+1(j) / q_t+1(j). `after` (P,)
    holds that last ratio, of the observation after the block unless the block is last, and then of its first one.
    Adds the expected starts and transitions under weight (m,).

    References
    ----------
    Rabiner (1989), "A tutorial on hidden Markov models", section III; in the form of Askar & Derin (1981).
    """
    m, width = filtered.states.shape
    ahead, sum_of_products = np.empty(width), np.zeros((width, width))
    for t in range(m - 1, -1, -1):
        states, predicted, w = filtered.states[t], filtered.predicted[t], weight[t]
        if not (filtered.first[t + 1] if t + 1 < m else is_last):
            for i in range(K):
                share = w * states[i]
                row = sum_of_products[i]
                for first in range(0, width, 8):
                    store_eight(add_scaled(load_eight(row, first), load_eight(after, first), share), row, first)
            _product(after, chain.transposed, K, ahead)
            for k in range(width):
                states[k] *= ahead[k]
            if t % RENEWED == 0:
                total = 0.0
                for k in range(width):
                    total += states[k]
                for k in range(width):
                    states[k] /= total
        if filtered.first[t]:
            for k in range(width):
                sums.starts[k] += w * states[k]
        else:
            for k in range(width):
                after[k] = states[k] * (1.0 / (predicted[k] if predicted[k] > 0.0 else 1.0))
    for i in range(K):
        for j in range(K):
            sums.transitions[i, j] += sum_of_products[i, j] * chain.transitions[i, j]


@kernel
def smooth_logarithms(
    filtered: Filtered, chain: Chain, K: int, is_last: bool, after: Array, weight: Array, sums: Transited
) -> None:
    """Smooth a block as `smooth_scaled`, from filtered distributions in logarithms; the results are probabilities.

    `after` holds the logarithms of the ratios.
    """
    m, width = filtered.states.shape
    smoothed = np.empty(width)
    for t in range(m - 1, -1, -1):
        states, predicted, w = filtered.states[t], filtered.predicted[t], weight[t]
        if filtered.first[t + 1] if t + 1 < m else is_last:
            for k in range(width):
                smoothed[k] = exp(states[k])
        else:
            smoothed[:] = 0.0
            total = 0.0
            for i in range(K):
                row, onto = chain.transitions[i], sums.transitions[i]
                mass = 0.0
                for j in range(width):
                    share = exp(states[i] + row[j] + after[j])
                    mass += share
                    onto[j] += w * share
                smoothed[i] = mass
                total += mass
            for k in range(width):
                smoothed[k] /= total
        if filtered.first[t]:
            for k in range(width):
                sums.starts[k] += w * smoothed[k]
        else:
            for k in range(width):
                after[k] = math.log(smoothed[k]) - predicted[k] if smoothed[k] > 0.0 else -np.inf
        for k in range(width):
            states[k] = smoothed[k]


@kernel
def write_responsibilities(states: Array, weight: Array, smallest: float, resp: Array) -> None:
    """Write states (m, P) times weight (m,) to resp (K, m), transposed, and 0 where they are below smallest."""
    K, n = resp.shape
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        part, w = states[start : start + m], weight[start : start + m]
        for k in range(K):
            row = resp[k, start : start + m]
            for p in range(m):
                row[p] = w[p] * part[p, k] if part[p, k] > smallest else 0.0


@kernel
def extend_paths(
    states: Array, first: NDArray[np.uint8], chain: Chain, K: int, best: Array, pointers: NDArray[np.uint16]
) -> float:
    """Extend the most probable paths to each state (P,), as logarithms relative to the best of them, over a block.

    states (m, P) are log densities. Writes to pointers (m, K) the state before each, where a sequence begins the last
    one of the sequence before. Returns by how much the log probabilities of the best paths grow.

    References
    ----------
    Viterbi (1967); Rabiner (1989), section III.B.
    """
    m, width = states.shape
    grown = 0.0
    value, source = np.empty(width), np.empty(width, np.int64)
    for t in range(m):
        if first[t]:
            last = 0
            for k in range(1, K):
                last = k if best[k] > best[last] else last
            value[:] = chain.start
            source[:] = last
        else:
            value[:] = -np.inf
            source[:] = 0
            for i in range(K):
                row = chain.transitions[i]
                for k in range(width):
                    candidate = best[i] + row[k]
                    source[k] = i if candidate > value[k] else source[k]
                    value[k] = max(value[k], candidate)
        top = -np.inf
        for k in range(width):
            value[k] += states[t, k]
            top = max(top, value[k])
        grown += top
        for k in range(width):
            best[k] = value[k] - (top if top > -np.inf else 0.0)
        for k in range(K):
            pointers[t, k] = source[k]
    return grown


@kernel
def trace_back(pointers: NDArray[np.uint16], last: int, path: NDArray[np.int64]) -> None:
    """Write the path (n,) that ends in the state last, by pointers (n, K) to the states before."""
    state = last
    for t in range(len(path) - 1, -1, -1):
        path[t] = state
        state = pointers[t, state]
