"""One pass over rows that does a whole E-step: densities, responsibilities and sums, strip by strip.

What it needs of a family are functions chosen by the type of its `Room`. Where most rows of a strip belong to a
component, its sums run over the strip as it lies. Where few do, they wait in a queue until they fill a strip.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._handles import Handle, values_of
from lvm._jit import Array, bare_kernel, part_of_kernel
from lvm._vectors import ONE, ZERO, load_one, prefetch
from lvm.kernels.components import add_moments, add_near_densities, add_panel_densities, collect, join, prepare
from lvm.kernels.guesses import pays
from lvm.kernels.panels import LINE, load_rows
from lvm.kernels.shares import (
    exponentiate,
    exponentiate_listed,
    find_tops,
    finish_rows,
    first_impossible,
    list_all,
    list_rows,
    share,
    share_listed,
)
from lvm.kernels.workspace import BOUNDED, EVALUATED, ROWS, USED, Posterior, Strip, Workspace, place_in_queue

DENSITIES, MOMENTS = 1, 2  # steps of a pass
BOTH = DENSITIES | MOMENTS
SPARSE = 0.25  # share of responsibilities that are not 0, below which they are listed
SORTED = 0.2  # the same, below which rows are sorted
HOPE = 1024  # rows in order, after which it must show that bounds pay


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
    list_all(strip)
    loglik = penalty = 0.0
    impossible, stop = n, n
    is_sorted, has_weight = len(guess.order) > 0, len(posterior.weight) > 0
    is_sparse = is_bounded = is_sorted
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
            if is_sorted:
                d = np.uint64(X.shape[1])
                for p in range(min(start + m, n), min(start + m + m, n)):  # the rows of the next strip
                    for i in range(ZERO, d, LINE // X.itemsize):
                        prefetch(X, guess.order[p] * d + i)
            n_panels = load_rows(X, strip.rows, n_rows, strip.panels)
            if steps & DENSITIES:
                for q in range(n_panels):
                    if is_bounded:
                        k = guess.winners[strip.rows[q * width]]
                        strip.n_near[q] = add_near_densities(strip, q, room, guess, k, posterior.smallest)
                        strip.tally[EVALUATED] += strip.n_near[q] * width
                    else:
                        add_panel_densities(strip.panels, q * strip.panels.stride, room, strip.values, q * K * width)
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
                if is_sparse:
                    find_tops(strip, n_panels)
                    list_rows(strip, n_panels, posterior.smallest)
                    exponentiate_listed(strip, n_panels, posterior.smallest, room.reliefs, posterior.log_relief)
                else:
                    exponentiate(strip, n_panels, posterior.smallest, room.reliefs)
                more, penalties, fails = finish_rows(strip, n_panels, base, posterior.log_relief)
                loglik, penalty = loglik + more, penalty + penalties
                if fails:
                    impossible = min(impossible, first_impossible(strip, n_rows, n))
            if not is_sparse and join(strip, n_panels, room):
                continue
        n_used = ZERO
        for k in range(K):
            if strip.n_active[k] == ZERO and n_rows > ZERO:  # most of them, where rows are sorted
                continue
            count, n_here, is_queued = (
                share_listed(strip, k, n_rows) if is_sparse else share(strip, k, n_rows, n_panels)
            )
            room.counts[k] += count
            n_used += n_here
            panels, r_values, first, n_filled = strip.panels, strip.r, ZERO, n_panels
            if is_queued:
                length = strip.lengths[k] + n_here
                ready = m if length >= m else length if n_rows == ZERO else ZERO
                strip.lengths[k] = length - ready
                if ready == ZERO:
                    continue
                first = place_in_queue(strip, k)
                n_filled = load_rows(X, strip.queue[first : first + ready], ready, strip.gathered)
                for p in range(first + ready, first + n_filled * width):
                    strip.queue_r[p] = 0.0
                panels, r_values = strip.gathered, strip.queue_r
            add_moments(panels, n_filled, r_values, first, k, room)
        if n_rows == ZERO:
            break
        strip.tally[USED] += n_used
        if is_bounded:
            strip.tally[BOUNDED] = start + n_rows
            if start >= HOPE and not pays(strip.tally[EVALUATED] / (K * (start + n_rows)), X.shape[1]):
                is_bounded = False
                list_all(strip)
        is_sparse = steps == BOTH and (is_sorted or n_used < SPARSE * K * n_rows)
        if start < trial <= start + m:
            stop = min(n, start + m) if strip.tally[USED] < SORTED * K * (start + m) else n
    strip.tally[ROWS] = stop
    collect(room, params, stats)
    failed: Any = np.int64(-1)
    if impossible < n:
        failed = np.int64(impossible)
    return loglik, penalty, failed
