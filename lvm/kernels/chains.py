"""Markov chains of hidden states: filtering, smoothing and the most probable path.

Arrays of observations by states are (m, P): P is K, rounded up to whole vectors of eight, and what is beyond K stands
for impossible states. A block may hold the end of one sequence and the beginning of others.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper, kernel
from lvm._vectors import load_eight, load_one, store, sum_entries, zero_eight
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
    """A block of m observations before and after the forward pass: probabilities, or their logarithms.

    Attributes
    ----------
    densities : ndarray of shape (m + 1, P)
        p(x_t | state), scaled so that the largest is 1; after a pass in logarithms, these less `norms`. The last row is
        for the backward pass.
    states : ndarray of shape (m + 1, P)
        p(state | x_1, ..., x_t), of the observation before the block and then of each; without logarithms, the latter
        times `totals`.
    totals : ndarray of shape (m,)
        p(x_t | x_1, ..., x_t-1), as densities are scaled; not for logarithms.
    norms : ndarray of shape (m,)
        Before the pass, the logarithm of what densities are divided by; after it, log p(x_t | x_1, ..., x_t-1).
    first : ndarray of shape (m,), uint8
        1 where a sequence begins.
    """

    densities: Array
    states: Array
    totals: Array
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
def scale_densities(log_density: Array, offsets: Array, densities: Array, norms: Array) -> None:
    """Write exp(log_density (K, m) + offsets (K,)) to densities (m, P), over the largest, whose log goes to norms (m,).

    Where that is not finite, densities are 0 and norms -inf or NaN.
    """
    K, n = log_density.shape
    values = np.empty(STRIP)
    densities[:, K:] = 0.0
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        top = norms[start : start + m]
        out = densities[start : start + m]
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
def log_densities(log_density: Array, offsets: Array, densities: Array, norms: Array) -> None:
    """Write log_density (K, m) + offsets (K,) to densities (m, P), transposed, and 0 to norms (m,)."""
    K, m = log_density.shape
    densities[:, K:] = -np.inf
    norms[:] = 0.0
    for k in range(K):
        for t in range(m):
            value = log_density[k, t] + offsets[k]
            densities[t, k] = value
            if not value < np.inf:
                norms[t] = np.nan


@helper
def _product(vectors: Array, begin: int, matrix: Array, K: int, first: int) -> Any:
    """Return entries first to first + 8 of vector (P,) @ matrix (P, P), the vector being K entries of vectors."""
    width = matrix.shape[1]
    even, odd = zero_eight(), zero_eight()
    for i in range(0, K, 2):  # one more than K where that is odd: there both are 0
        place = i * width + first
        even += load_eight(matrix, place) * load_one(vectors, begin + i)
        odd += load_eight(matrix, place + width) * load_one(vectors, begin + i + 1)
    return even + odd


@kernel
def filter_scaled(filtered: Filtered, chain: Chain, K: int) -> int:
    """Filter a block, from the first of `states` on.

    Returns the first observation that is impossible or nearly so, which only `filter_logarithms` can tell; else -1.

    References
    ----------
    Devijver (1985), "Baum's forward-backward algorithm revisited", eqs. 8-10.
    """
    # No field or row is taken in the loop: counting its references costs as much as a step.
    densities, states, totals, begins = filtered.densities, filtered.states, filtered.totals, filtered.first
    start, transitions, norms = chain.start, chain.transitions, filtered.norms
    m, width = len(totals), len(start)
    scale = 1.0
    for t in range(m):
        before, now = t * width, (t + 1) * width
        sums = zero_eight()
        for first in range(0, width, 8):
            density = load_eight(densities, before + first)
            if begins[t]:
                joint = density * load_eight(start, first)
            else:
                joint = density * scale * _product(states, before, transitions, K, first)
            store(joint, states, now + first)
            sums += joint
        total = sum_entries(sums)
        if not total > SMALLEST_TOTAL:
            return t
        totals[t] = total
        scale = 1.0 / total
    for t in range(m):
        norms[t] += log(totals[t])
    return -1


@kernel
def filter_logarithms(filtered: Filtered, chain: Chain, K: int) -> int:
    """Filter a block in logarithms; returns the first impossible observation, -1 for none.

    An impossible one tells nothing of its state, and has the norm -inf, or NaN where it is not even that.
    """
    m, width = len(filtered.norms), len(chain.start)
    top, total, predicted = np.empty(width), np.empty(width), np.empty(width)
    impossible = -1
    for t in range(m):
        before, states, densities = filtered.states[t], filtered.states[t + 1], filtered.densities[t]
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
            states[k] = predicted[k] + densities[k]
            largest = max(largest, states[k])
        if largest > -np.inf and largest < np.inf and filtered.norms[t] == 0.0:
            norm = 0.0
            for k in range(width):
                norm += exp(states[k] - largest)
            filtered.norms[t] = largest + math.log(norm)
            states -= filtered.norms[t]
            densities -= filtered.norms[t]
        else:
            impossible = t if impossible < 0 else impossible
            densities[:] = 0.0
            filtered.norms[t] = -np.inf if largest == -np.inf and filtered.norms[t] == 0.0 else np.nan
            states[:] = predicted
    return impossible


@kernel
def smooth_scaled(filtered: Filtered, chain: Chain, K: int, is_last: bool, weight: Array, sums: Transited) -> None:
    """Turn the filtered distributions of a block into smoothed ones, p(state | all of the sequence), in place.

    With f the filtered distribution, b the densities and c the totals, the smoothed one is f_t(i) r_t(i), where
    r_t(i) = sum_j a_ij v_t+1(j), or 1 at the end, and v_t(j) = b_t(j) r_t(j) / c_t. v takes the place of the densities;
    their last row holds it for the observation after the block, unless the block is last. Adds the expected starts and
    transitions under weight (m,).

    References
    ----------
    Devijver (1985), "Baum's forward-backward algorithm revisited"; Rabiner (1989), "A tutorial on hidden Markov
    models", sections III and V.A.
    """
    densities, states, totals, begins = filtered.densities, filtered.states, filtered.totals, filtered.first
    transposed, starts, products = chain.transposed, sums.starts, np.zeros(chain.transitions.shape)
    m, width = len(totals), len(starts)
    end = np.ones(width)
    for t in range(m - 1, -1, -1):
        now, after = t * width, (t + 1) * width  # of densities; the row of states is the next
        goes_on = not (begins[t + 1] if t + 1 < m else is_last)
        scale, whole = 1.0 / totals[t], zero_eight()
        if goes_on:
            share = weight[t] * scale
            for first in range(0, width, 8):
                value = load_eight(densities, after + first)
                for i in range(K):
                    place = i * width + first
                    factor = share * load_one(states, after + i)
                    store(load_eight(products, place) + value * factor, products, place)
        for first in range(0, width, 8):
            ratio = _product(densities, after, transposed, K, first) if goes_on else load_eight(end, first)
            ratio = ratio * scale
            store(load_eight(densities, now + first) * ratio, densities, now + first)
            smoothed = load_eight(states, after + first) * ratio
            store(smoothed, states, after + first)
            whole += smoothed
        if t % RENEWED == 0:
            renewal = 1.0 / sum_entries(whole)
            for first in range(0, width, 8):
                store(load_eight(densities, now + first) * renewal, densities, now + first)
                store(load_eight(states, after + first) * renewal, states, after + first)
        if begins[t]:
            for k in range(width):
                starts[k] += weight[t] * load_one(states, after + k)
    for i in range(K):
        for j in range(K):
            sums.transitions[i, j] += products[i, j] * chain.transitions[i, j]


@kernel
def smooth_logarithms(filtered: Filtered, chain: Chain, K: int, is_last: bool, weight: Array, sums: Transited) -> None:
    """Smooth a block as `smooth_scaled`, from filtered distributions in logarithms; the results are probabilities.

    The logarithms of v take the place of the densities.
    """
    m, width = len(filtered.norms), len(chain.start)
    smoothed = np.empty(width)
    for t in range(m - 1, -1, -1):
        states, density, after, w = filtered.states[t + 1], filtered.densities[t], filtered.densities[t + 1], weight[t]
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
        for k in range(width):
            density[k] += math.log(smoothed[k]) - states[k] if smoothed[k] > 0.0 else -np.inf
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
