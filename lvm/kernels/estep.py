"""One pass over rows that does a whole E-step: densities, responsibilities and sums, strip by strip.

What it needs of a family are functions chosen by the type of its `Room`. Where most rows of a strip belong to a
component, its sums run over the strip as it lies. Where few do, they wait in a queue until they fill a strip.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._handles import Handle, values_of
from lvm._jit import Array, bare_kernel, part_of_kernel
from lvm._vectors import (
    ONE,
    TWO,
    ZERO,
    any_above,
    bits_above,
    count_above,
    larger,
    load,
    load_one,
    lowest_bit,
    spread,
    store,
    sum_entries,
    where_above,
)
from lvm.kernels.components import add_moments, add_panel_densities, collect, join, prepare
from lvm.kernels.elementary import exp_above, logarithm
from lvm.kernels.panels import load_rows
from lvm.kernels.workspace import EVALUATED, ROWS, USED, Posterior, Strip, Workspace

DENSITIES, MOMENTS = 1, 2  # steps of a pass
BOTH = DENSITIES | MOMENTS
DENSE = 0.5  # share of a strip's rows from which on a component takes all of them as they lie
SPARSE = 0.25  # share of responsibilities that are not 0, below which it may pay to sort the rows


@part_of_kernel
def _exponentiate(strip: Strip, n_panels: Any, smallest: float, reliefs: Array) -> None:
    """Turn values into exp(value - top), 0 below exp(smallest), and find tops, sums and active panels."""
    K, width, m = np.uint64(len(strip.lengths)), strip.panels.width, np.uint64(len(strip.r))
    half, values = width // TWO, strip.values
    for q in range(n_panels):
        first, row = q * K * width, q * width
        top, top2 = load(values, first), load(values, first + half)
        for k in range(ONE, K):
            at = first + k * width
            top, top2 = larger(top, load(values, at)), larger(top2, load(values, at + half))
        nothing = sums = sums2 = relief = relief2 = spread(0.0, values)
        for k in range(K):
            at = first + k * width
            x, x2 = load(values, at) - top, load(values, at + half) - top2
            # Most components are negligible for all rows of a panel, where they lie far apart.
            y = y2 = nothing
            if any_above(larger(x, x2), smallest):
                y, y2 = exp_above(x, smallest), exp_above(x2, smallest)
                sums, sums2 = sums + y, sums2 + y2
                relief, relief2 = relief + y * reliefs[k], relief2 + y2 * reliefs[k]
                strip.active[k * m + strip.n_active[k]] = q
                strip.n_active[k] += ONE
            store(y, values, at)
            store(y2, values, at + half)
        store(top, strip.top, row)
        store(top2, strip.top, row + half)
        store(sums, strip.totals, row)
        store(sums2, strip.totals, row + half)
        store(relief, strip.reliefs, row)
        store(relief2, strip.reliefs, row + half)


@part_of_kernel
def _finish_rows(strip: Strip, n_panels: Any, base: float, log_relief: float) -> tuple[float, float, bool]:
    """Write weight over total to scale; return log-likelihood, penalty, and whether a row that counts is impossible."""
    loglik, penalty, impossible = 0.0, 0.0, False
    for p in range(ZERO, n_panels * strip.panels.width, strip.panels.width // TWO):
        weight, sums = load(strip.weight, p), load(strip.totals, p)
        impossible |= any_above(where_above(sums, 0.0, 0.0, weight), 0.0)
        weight = where_above(sums, 0.0, weight, 0.0)
        lift = logarithm(where_above(sums, 0.0, load(strip.reliefs, p), 1.0)) + log_relief
        if log_relief > 0.0:
            rest = logarithm(where_above(sums, 0.0, sums, 1.0)) - lift
            penalty += sum_entries(weight * rest)
        loglik += sum_entries(where_above(weight, 0.0, weight * (load(strip.top, p) + lift), 0.0)) + base * sum_entries(
            weight
        )
        store(where_above(weight, 0.0, weight / sums, 0.0), strip.scale, p)
    return loglik, penalty, impossible


@part_of_kernel
def _first_impossible(strip: Strip, m: Any, n: Any) -> Any:
    """Return the first of m rows that has weight and no finite density, n where there is none."""
    first = n
    for p in range(m):
        first = first if strip.totals[p] > 0.0 or not strip.weight[p] > 0.0 else min(first, strip.rows[p])
    return first


@part_of_kernel
def _take_from_rows(strip: Strip, n_panels: Any, start: Any, m: Any, resp: Array) -> None:
    """Write resp (K, n) of m rows from start to values, with active panels and scale 1."""
    K, n, width, length = (
        np.uint64(resp.shape[0]),
        np.uint64(resp.shape[1]),
        strip.panels.width,
        np.uint64(len(strip.r)),
    )
    for p in range(length):
        strip.scale[p] = strip.weight[p]
    for k in range(K):
        for q in range(n_panels):
            at, first, largest = (q * K + k) * width, q * width, 0.0
            for p in range(width):
                r = load_one(resp, k * n + start + first + p) if first + p < m else 0.0
                strip.values[at + p] = r
                largest = max(largest, r)
            if largest > 0.0:
                strip.active[k * length + strip.n_active[k]] = q
                strip.n_active[k] += ONE


@part_of_kernel
def _enqueue(strip: Strip, k: Any, length: Any) -> Any:
    """Append the rows of a strip that belong to component k, in strip.r, to its queue; return the new length."""
    m, width = np.uint64(len(strip.r)), strip.panels.width
    half, queue = width // TWO, TWO * k * m
    for a in range(k * m, k * m + strip.n_active[k]):
        for p in (strip.active[a] * width, strip.active[a] * width + half):
            bits = bits_above(load(strip.r, p), 0.0)
            while bits > ZERO:
                row = p + lowest_bit(bits)
                strip.queue[queue + length], strip.queue_r[queue + length] = strip.rows[row], strip.r[row]
                length, bits = length + ONE, bits & (bits - ONE)
    return length


@part_of_kernel
def _add_to_rows(strip: Strip, start: Any, m: Any, base: float, out: Array) -> None:
    """Add the values of m rows from start, and base, to out (K, n)."""
    K, width = np.uint64(out.shape[0]), strip.panels.width
    for k in range(K):
        for first in range(ZERO, m, width):
            at = first * K + k * width
            for p in range(min(width, m - first)):
                out[k, start + first + p] += base + strip.values[at + p]


@bare_kernel
def run_estep(
    X: Any, params: Any, posterior: Posterior, resp: Array, space: Handle[Workspace], stats: Any, steps: int, trial: Any
) -> tuple[float, float, int]:
    """Do the steps of a pass over X (n, d), in the order of a guess where there is one.

    DENSITIES alone adds log densities to resp (K, n), MOMENTS alone adds those under given resp to stats. Both together
    do an E-step without resp; after `trial` rows, where that is not 0, it ends if few responsibilities are not 0. It
    returns the weighted log-likelihood without penalties, the weighted penalties, and the first row of positive weight
    without a finite density, -1 where there is none.
    """
    strip, room, guess = values_of(space)
    n: Any = np.uint64(X.shape[0])
    K, m, width = np.uint64(len(strip.lengths)), np.uint64(len(strip.r)), strip.panels.width
    half = width // TWO
    prepare(room, params)
    base = -np.inf
    for k in range(K):
        if len(posterior.offsets) > 0:
            room.log_norms[k] += posterior.offsets[k]
        base = max(base, room.log_norms[k])
    # In float32, constants far from 0 would cost digits.
    base = base if base > -np.inf and X.itemsize < 8 else 0.0
    for k in range(K):
        room.constants[k] = room.log_norms[k] - base
        room.reliefs[k] = posterior.reliefs[k] if len(posterior.reliefs) > 0 else 1.0
    loglik = penalty = 0.0
    impossible, stop = n, n
    is_sorted, has_weight = len(guess.order) > 0, len(posterior.weight) > 0
    for start in range(ZERO, n + m, m):  # the last time for what waits in the queue
        n_rows = min(m, stop - min(start, stop))
        n_panels = ZERO
        for k in range(K):
            strip.n_active[k] = ZERO
        if n_rows > ZERO:
            for p in range(m):
                row = min(start + p, n - ONE)
                strip.rows[p] = guess.order[row] if is_sorted else row
                strip.weight[p] = (posterior.weight[strip.rows[p]] if has_weight else 1.0) if p < n_rows else 0.0
            n_panels = load_rows(X, strip.rows, n_rows, strip.panels)
            if steps & DENSITIES:
                for q in range(n_panels):
                    at, k = q * strip.panels.stride, guess.winners[strip.rows[q * width]] if is_sorted else ZERO
                    strip.tally[EVALUATED] += width * add_panel_densities(
                        strip.panels, at, room, guess, k, posterior.smallest, strip.values, q * K * width
                    )
            if steps == DENSITIES:
                _add_to_rows(strip, start, n_rows, base, resp)
                continue
            if steps == MOMENTS:
                _take_from_rows(strip, n_panels, start, n_rows, resp)
            else:
                for p in range(n_rows if len(posterior.labels) > 0 else ZERO):
                    known = posterior.labels[start + p]
                    for k in range(K if known >= 0 else ZERO):
                        if np.int64(k) != known:
                            strip.values[(p // width * K + k) * width + p % width] = -np.inf
                _exponentiate(strip, n_panels, posterior.smallest, room.reliefs)
                more, penalties, fails = _finish_rows(strip, n_panels, base, posterior.log_relief)
                loglik, penalty = loglik + more, penalty + penalties
                if fails:
                    impossible = min(impossible, _first_impossible(strip, n_rows, n))
            if join(strip, n_panels, room):
                continue
        for k in range(K):
            if strip.n_active[k] == ZERO and n_rows > ZERO:  # most of them, where rows are sorted
                continue
            zero, n_active, queue = spread(0.0, strip.r), strip.n_active[k], TWO * k * m
            for p in range(ZERO, n_panels * width, half):
                store(zero, strip.r, p)
            count, n_here, length = zero, ZERO, strip.lengths[k]
            for a in range(k * m, k * m + n_active):
                p, at = strip.active[a] * width, (strip.active[a] * K + k) * width
                for _ in range(2):
                    r = load(strip.values, at) * load(strip.scale, p)
                    store(r, strip.r, p)
                    count, n_here = count + r, n_here + count_above(r, 0.0)
                    p, at = p + half, at + half
            room.counts[k] += sum_entries(count)
            strip.tally[USED] += n_here
            panels, r_values, first, n_used = strip.panels, strip.r, ZERO, n_panels
            if n_here <= DENSE * n_rows:
                length = _enqueue(strip, k, length)
                ready = m if length >= m else length if n_rows == ZERO else ZERO
                strip.lengths[k] = length - ready
                if ready == ZERO:
                    continue
                first = queue + length - ready
                n_used = load_rows(X, strip.queue[first : first + ready], ready, strip.gathered)
                for p in range(first + ready, first + n_used * width):
                    strip.queue_r[p] = 0.0
                panels, r_values = strip.gathered, strip.queue_r
            add_moments(panels, n_used, r_values, first, k, room)
        if n_rows == ZERO:
            break
        if start < trial <= start + m:
            stop = min(n, start + m) if strip.tally[USED] < SPARSE * K * (start + m) else n
    strip.tally[ROWS] = stop
    collect(room, params, stats)
    first_impossible: Any = np.int64(-1)
    if impossible < n:
        first_impossible = np.int64(impossible)
    return loglik, penalty, first_impossible
