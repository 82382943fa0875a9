"""One pass over rows that does a whole E-step: densities, responsibilities and sums, strip by strip.

What it needs of a family are functions chosen by the type of its `Room`. Where most rows of a strip belong to a
component, its sums run over the strip as it lies. Where few do, they wait in a queue until they fill a strip.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._handles import Handle, values_of
from lvm._jit import Array, bare_kernel, part_of_kernel
from lvm._vectors import ONE, ZERO, load_one
from lvm.kernels.components import add_moments, add_panel_densities, collect, join, prepare
from lvm.kernels.panels import load_rows, prefetch_rows
from lvm.kernels.shares import exponentiate, finish_rows, first_impossible, share
from lvm.kernels.workspace import ROWS, USED, Posterior, Strip, Workspace, place_in_queue

DENSITIES, MOMENTS = 1, 2  # steps of a pass
BOTH = DENSITIES | MOMENTS
SPARSE = 0.25  # share of responsibilities that are not 0, below which rows are better listed


@part_of_kernel
def write_constants(X: Any, params: Any, posterior: Posterior, room: Any) -> float:
    """Write the components to room, with constants to which the value returned is to be added."""
    K, base = len(room.log_norms), -np.inf
    prepare(room, params)
    for k in range(K):
        if len(posterior.offsets) > 0:
            room.log_norms[k] += posterior.offsets[k]
        base = max(base, room.log_norms[k])
    # In float32, constants far from 0 would cost digits.
    base = base if base > -np.inf and X.itemsize < 8 else 0.0
    for k in range(K):
        room.constants[k] = room.log_norms[k] - base
        room.reliefs[k] = posterior.reliefs[k] if len(posterior.reliefs) > 0 else 1.0
    return base


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


@part_of_kernel
def add_component(
    X: Any, strip: Strip, n_rows: Any, n_panels: Any, k: Any, n_listed: Any, is_queued: Any, room: Any
) -> None:
    """Add the moments of component k: of a strip under strip.r, or where they are queued, of what fills a strip.

    Of all that is queued, where there are no rows.
    """
    m, width = np.uint64(len(strip.r)), strip.panels.width
    panels, r, first, n_filled = strip.panels, strip.r, ZERO, n_panels
    if is_queued:
        length = strip.lengths[k] + n_listed
        ready = m if length >= m else length if n_rows == ZERO else ZERO
        strip.lengths[k] = length - ready
        n_filled, panels, r, first = ZERO, strip.gathered, strip.queue_r, place_in_queue(strip, k)
        if ready > ZERO:
            n_filled = load_rows(X, strip.queue[first : first + ready], ready, strip.gathered)
        for p in range(first + ready, first + n_filled * width):
            strip.queue_r[p] = 0.0
    if n_filled > ZERO:
        add_moments(panels, n_filled, r, first, k, room)


@part_of_kernel
def end_pass(strip: Strip, room: Any, params: Any, stats: Any, n: Any, impossible: Any) -> Any:
    """Move the sums of n rows to stats; return the first of them that is impossible, -1 where that is none of them."""
    strip.tally[ROWS] = n
    collect(room, params, stats)
    failed: Any = np.int64(-1)
    if impossible < n:
        failed = np.int64(impossible)
    return failed


@bare_kernel
def run_estep(
    X: Any, params: Any, posterior: Posterior, resp: Array, space: Handle[Workspace], stats: Any, steps: int, trial: Any
) -> tuple[float, float, int]:
    """Do the steps of a pass over X (n, d).

    DENSITIES alone adds log densities to resp (K, n), MOMENTS alone adds those under given resp to stats. Both together
    do an E-step without resp; from `trial` rows on, where that is not 0, it ends as soon as few responsibilities are
    not 0. It returns the weighted log-likelihood without penalties, the weighted penalties, and the first row of
    positive weight without a finite density, -1 where there is none.
    """
    strip, room, _ = values_of(space)
    n: Any = np.uint64(X.shape[0])
    K, m, width = np.uint64(len(strip.lengths)), np.uint64(len(strip.r)), strip.panels.width
    base = write_constants(X, params, posterior, room)
    loglik = penalty = 0.0
    impossible, stop = n, n
    for start in range(ZERO, n + m, m):  # the last time for what waits in the queue
        n_rows, n_panels = min(m, stop - min(start, stop)), ZERO
        for k in range(K):
            strip.n_active[k] = ZERO
        if n_rows > ZERO:
            for p in range(m):
                strip.rows[p] = row = min(start + p, n - ONE)
                strip.weight[p] = (posterior.weight[row] if len(posterior.weight) > 0 else 1.0) if p < n_rows else 0.0
            n_panels = load_rows(X, strip.rows, n_rows, strip.panels)
            if steps & DENSITIES:
                for q in range(n_panels):
                    prefetch_rows(X, start + m + q * width, width)
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
                exponentiate(strip, n_panels, posterior.smallest, room.reliefs)
                more, penalties, fails = finish_rows(strip, n_panels, base, posterior.log_relief)
                loglik, penalty = loglik + more, penalty + penalties
                if fails:
                    impossible = min(impossible, first_impossible(strip, n_rows, n))
            n_joined = join(strip, n_panels, room)
            if n_joined > ZERO:
                strip.tally[USED] += n_joined
                continue
        for k in range(K):
            if strip.n_active[k] == ZERO and n_rows > ZERO:
                continue
            count, n_used, is_queued = share(strip, k, n_rows, n_panels)
            room.counts[k] += count
            strip.tally[USED] += n_used
            add_component(X, strip, n_rows, n_panels, k, n_used, is_queued, room)
        if n_rows == ZERO:
            break
        done = start + n_rows
        if ZERO < trial <= done and strip.tally[USED] < SPARSE * K * done:
            stop = done
    return loglik, penalty, end_pass(strip, room, params, stats, stop, impossible)
