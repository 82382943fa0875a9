"""Sparse E-steps: only the pairs of row and component that can matter, where most cannot.

With well separated components nearly every responsibility is 0. A family then lists, from an upper bound of each log
density, the pairs whose responsibility may exceed exp(NEGLIGIBLE), and evaluates the rest of the density for those
alone. What is left out changes no digit: K terms below 1e-17 of the largest.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, helper, kernel, part_of_kernel
from lvm.kernels.densities import add_densities_of_rows, add_log_density, density_scratch
from lvm.kernels.elementary import exp, log
from lvm.kernels.strips import STRIP, gather_strip, load_strip, zero_strip

Positions = NDArray[np.int64]

# Nanoseconds, measured; only their ratios matter.
# Per pair of row and component: responsibilities and the search for those that are not 0; the search for the best
# bounds; the search for candidates in a row that has more than one. Per row, and per candidate.
COST_DENSE, COST_BOUND, COST_SEARCH, COST_ROW, COST_CANDIDATE = 1.4, 0.35, 0.6, 10.0, 8.0
# Per value of a row, or pair of values: to gather it, to whiten it, to add its moments.
COST_GATHER, COST_FEATURE, COST_PRODUCT, COST_MOMENT = 0.35, 0.08, 0.0145, 0.06


class Candidates(NamedTuple):
    """Pairs of row and component, by component.

    Attributes
    ----------
    starts : ndarray of shape (K + 1,), int64
        Component k owns the pairs `starts[k]:starts[k + 1]`.
    rows : ndarray of shape (capacity,), int64
        Row of each pair.
    values : ndarray of shape (capacity,)
        Log density plus offset of each pair; after `normalise_candidates` the weighted responsibility.
    """

    starts: Positions
    rows: Positions
    values: Array


def empty_candidates(K: int, n: int) -> Candidates:
    """Return room for the candidates of n rows: as many as still pay."""
    capacity = n * max(1, K // 2)
    return Candidates(np.empty(K + 1, np.int64), np.empty(capacity, np.int64), np.empty(capacity))


@helper
def note_best(bound: Array, k: int, best: Array, second: Array, winner: Positions) -> None:
    """Keep the two largest bounds (m,) of a row in best and second (m,), and the component of the best in winner."""
    for p in range(bound.shape[0]):
        better = bound[p] > best[p]
        second[p] = max(second[p], min(bound[p], best[p]))
        best[p] = bound[p] if better else best[p]
        winner[p] = k if better else winner[p]


@helper
def sort_by_winner(winner: Positions, starts: Positions, order: Positions) -> None:
    """Write the rows of each winner (n,) to order (n,), ascending, from starts (K + 1,) on: a counting sort."""
    K = starts.shape[0] - 1
    for k in range(K + 1):
        starts[k] = 0
    for p in range(winner.shape[0]):
        starts[winner[p] + 1] += 1
    for k in range(K):
        starts[k + 1] += starts[k]
    for p in range(winner.shape[0]):
        order[starts[winner[p]]] = p
        starts[winner[p]] += 1
    for k in range(K, 0, -1):
        starts[k] = starts[k - 1]
    starts[0] = 0


@helper
def list_above(bound: Array, floor: Array, rows: Positions) -> int:
    """Write the positions where bound (n,) exceeds floor (n,) to rows (n,); return how many."""
    found = 0
    # Written in any case and kept where it matters: no branch to mispredict.
    for p in range(bound.shape[0]):
        rows[found] = p
        found += 1 if bound[p] > floor[p] else 0
    return found


@helper
def list_some_above(bound: Array, floor: Array, among: Positions, rows: Positions) -> int:
    """Do as `list_above`, for the positions among those (m,) alone."""
    found = 0
    for a in range(among.shape[0]):
        rows[found] = among[a]
        found += 1 if bound[among[a]] > floor[among[a]] else 0
    return found


@helper
def count_above(bounds: Array, best: Array, smallest: float) -> int:
    """Return how many of the bounds (K, m) exceed best (m,) + smallest."""
    found = 0
    for k in range(bounds.shape[0]):
        for p in range(bounds.shape[1]):
            found += 1 if bounds[k, p] > best[p] + smallest else 0
    return found


class Pruning(NamedTuple):
    """What decides which pairs are candidates.

    Attributes
    ----------
    offsets : ndarray of shape (K,)
        Added to log densities: log weights and penalties.
    smallest : float
        Pairs whose log density falls short of the row's largest by more than -smallest are left out.
    depth : int
        Whitened coordinates in the first bound.
    """

    offsets: Array
    smallest: float
    depth: int


@part_of_kernel
def pruning_depth(X: Array, components: Any, offsets: Array, smallest: float, is_quadratic: bool) -> int:
    """Return the depth of the bounds that makes the E-step cheapest, 0 where looking at all pairs does.

    Decided from a few rows, spread over X (n, d). Quadratic: whitening takes a matrix.
    """
    n, d = X.shape
    K, e = components.offsets.shape
    m = min(n, STRIP, max(32, n // 128))
    strip, scratch = zero_strip(e, X), density_scratch(X, e)
    gather_strip(X, np.arange(m) * (n // m), strip)
    bounds, best = np.empty((K, m)), np.full(m, -np.inf)
    for k in range(K):
        bounds[k] = offsets[k]
        add_log_density(strip, m, components, k, e, scratch, bounds[k])
        for p in range(m):
            best[p] = max(best[p], bounds[k, p])
    n_left = count_above(bounds, best, smallest) / m
    if n_left > 0.5 * K:
        return 0
    quadratic = COST_PRODUCT if is_quadratic else 0.0
    linear = 0.0 if is_quadratic else COST_MOMENT  # the moments that grow with d**2 are gathered in any case
    whole = COST_FEATURE * e + quadratic * e * e
    rest = COST_ROW + n_left * (COST_CANDIDATE + (COST_GATHER * d + linear * d if not is_quadratic else 0.0))
    chosen, cheapest = 0, K * (whole + COST_DENSE + linear * d)
    depth = 4
    while True:
        depth = min(depth, e)
        for k in range(K):
            bounds[k] = offsets[k]
            add_log_density(strip, m, components, k, depth, scratch, bounds[k])
        n_listed = max(1.0, count_above(bounds, best, smallest) / m)
        bounding = COST_FEATURE * depth + quadratic * depth * depth
        cost = rest + K * (bounding + COST_BOUND) + K * min(1.0, n_listed - 1.0) * COST_SEARCH
        cost += n_listed * (COST_GATHER * d + whole) if depth < e else 0.0
        if cost < cheapest:
            chosen, cheapest = depth, cost
        if depth == e:
            return chosen
        depth *= 2


@part_of_kernel
def find_candidates(X: Array, components: Any, pruning: Pruning, bounds: Array, found: Candidates) -> bool:
    """List the pairs that matter in found; bounds (K, n) is scratch.

    Returns False where they are too many for the room in found, or where a row has no finite density.
    """
    n = X.shape[0]
    K, e = components.offsets.shape
    offsets, smallest, depth = pruning
    strip, scratch, values = zero_strip(e, X), density_scratch(X, e), np.empty(STRIP)
    best, second, winner = np.full(n, -np.inf), np.full(n, -np.inf), np.zeros(n, np.int64)
    starts, order = np.empty(K + 1, np.int64), np.empty(n, np.int64)
    open_rows, listed = np.empty(n, np.int64), np.empty(n, np.int64)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip[:depth])
        strip_best, strip_second = best[start : start + m], second[start : start + m]
        strip_winner = winner[start : start + m]
        for k in range(K):
            row = bounds[k, start : start + m]
            for p in range(m):
                row[p] = offsets[k]
            add_log_density(strip, m, components, k, depth, scratch, row)
            note_best(row, k, strip_best, strip_second, strip_winner)
    sort_by_winner(winner, starts, order)
    for k in range(K):
        # The density under the most promising component bounds the row's largest from below.
        for start in range(starts[k], starts[k + 1], STRIP):
            rows = order[start : min(start + STRIP, starts[k + 1])]
            if depth < e:
                for p in range(len(rows)):
                    values[p] = offsets[k]
                add_densities_of_rows(X, rows, components, k, strip, scratch, values)
                for p in range(len(rows)):
                    best[rows[p]] = values[p]
            for p in range(len(rows)):
                bounds[k, rows[p]] = -np.inf  # done: not to be listed again
                if not (best[rows[p]] > -np.inf and best[rows[p]] < np.inf):
                    return False
    floor = best + smallest
    # Most rows are decided: no component but the most promising comes near.
    n_open = list_above(second, floor, open_rows)
    end = 0
    for k in range(K):
        found.starts[k] = end
        n_listed = list_some_above(bounds[k], floor, open_rows[:n_open], listed)
        if end + starts[k + 1] - starts[k] + n_listed > len(found.rows):
            return False
        for c in range(starts[k], starts[k + 1]):
            found.rows[end] = order[c]
            found.values[end] = best[order[c]]
            end += 1
        for start in range(0, n_listed, STRIP):
            rows = listed[start : min(start + STRIP, n_listed)]
            for p in range(len(rows)):
                values[p] = offsets[k] if depth < e else bounds[k, rows[p]]
            if depth < e:
                add_densities_of_rows(X, rows, components, k, strip, scratch, values)
            for p in range(len(rows)):
                found.rows[end] = rows[p]
                found.values[end] = values[p]
                end += 1 if values[p] > floor[rows[p]] else 0
    found.starts[K] = end
    return True


@kernel
def normalise_candidates(found: Candidates, log_penalty: Array, weight: Array, counts: Array) -> tuple[float, float]:
    """Turn the values into weighted responsibilities, as `responsibilities` does for all pairs of m rows.

    Every row needs a candidate, with a finite value. Adds the totals to counts (K,); returns the weighted
    log-likelihood and penalty for row weights (m,).
    """
    starts, rows, values = found
    K, m = counts.shape[0], weight.shape[0]
    top, total, relief = np.full(m, -np.inf), np.zeros(m), np.zeros(m)
    largest = 0.0
    for k in range(K):
        largest = max(largest, -log_penalty[k])
    for c in range(starts[K]):
        top[rows[c]] = max(top[rows[c]], values[c])
    for c in range(starts[K]):
        values[c] = exp(values[c] - top[rows[c]])
    for c in range(starts[K]):
        total[rows[c]] += values[c]
    loglik = penalty = 0.0
    for p in range(m):
        loglik += weight[p] * (top[p] + log(total[p])) if weight[p] > 0.0 else 0.0
        total[p] = weight[p] / total[p]
    for k in range(K):
        count = 0.0
        for c in range(starts[k], starts[k + 1]):
            values[c] *= total[rows[c]]
            count += values[c]
        counts[k] += count
    if largest > 0.0:
        for k in range(K):
            factor = math.exp(-log_penalty[k] - largest)
            for c in range(starts[k], starts[k + 1]):
                relief[rows[c]] += factor * values[c]
        for p in range(m):
            if weight[p] > 0.0:
                penalty -= weight[p] * (log(relief[p] / weight[p]) + largest)
    return loglik - penalty, penalty
