"""A pass over rows that does a whole E-step where few responsibilities are not 0: rows that have one are listed.

Rows may come in the order of a guess at their component: what then cannot matter is not computed, see `guesses`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._handles import Handle, values_of
from lvm._jit import bare_kernel
from lvm._vectors import ONE, ZERO, prefetch
from lvm.kernels.components import add_near_densities, add_panel_densities
from lvm.kernels.estep import add_component, end_pass, write_constants
from lvm.kernels.guesses import pays
from lvm.kernels.panels import LINE, load_rows, prefetch_rows
from lvm.kernels.shares import (
    exponentiate_listed,
    find_tops,
    finish_rows,
    first_impossible,
    list_all,
    list_rows,
    share_listed,
)
from lvm.kernels.workspace import BOUNDED, EVALUATED, USED, Posterior, Workspace

GRACE = 1024  # rows, after which it must show that lists and bounds pay
CROWDED = 0.35  # share of responsibilities that are not 0, from which on rows are better not listed


@bare_kernel
def run_listed_estep(
    X: Any, params: Any, posterior: Posterior, space: Handle[Workspace], stats: Any
) -> tuple[float, float, int]:
    """Do an E-step of X (n, d) without labels, in the order of a guess where there is one; see `run_estep`.

    Without an order, it ends where many responsibilities are not 0.
    """
    strip, room, guess = values_of(space)
    n: Any = np.uint64(X.shape[0])
    K, d, m, width = np.uint64(len(strip.lengths)), np.uint64(X.shape[1]), np.uint64(len(strip.r)), strip.panels.width
    base = write_constants(X, params, posterior, room)
    loglik = penalty = 0.0
    impossible, stop = n, n
    is_bounded = is_sorted = len(guess.order) > 0
    list_all(strip)
    for start in range(ZERO, n + m, m):  # the last time for what waits in the queue
        n_rows, n_panels = min(m, stop - min(start, stop)), ZERO
        if n_rows > ZERO:
            for p in range(m):
                row = min(start + p, n - ONE)
                strip.rows[p] = row = guess.order[row] if is_sorted else row
                strip.weight[p] = (posterior.weight[row] if len(posterior.weight) > 0 else 1.0) if p < n_rows else 0.0
            for p in range(min(start + m, n), min(start + m + m, n) if is_sorted else ZERO):  # rows of the next strip
                for i in range(ZERO, d, LINE // X.itemsize):
                    prefetch(X, guess.order[p] * d + i)
            n_panels = load_rows(X, strip.rows, n_rows, strip.panels)
            for q in range(n_panels):
                if is_bounded:
                    k = guess.winners[strip.rows[q * width]]
                    strip.n_near[q] = add_near_densities(strip, q, room, guess, k, posterior.smallest)
                    strip.tally[EVALUATED] += strip.n_near[q] * width
                else:
                    if not is_sorted:
                        prefetch_rows(X, start + m + q * width, width)
                    add_panel_densities(strip.panels, q * strip.panels.stride, room, strip.values, q * K * width)
            find_tops(strip, n_panels)
            list_rows(strip, n_panels, posterior.smallest)
            exponentiate_listed(strip, n_panels, posterior.smallest, room.reliefs, posterior.log_relief)
            more, penalties, fails = finish_rows(strip, n_panels, base, posterior.log_relief)
            loglik, penalty = loglik + more, penalty + penalties
            if fails:
                impossible = min(impossible, first_impossible(strip, n_rows, n))
        for k in range(K):
            n_listed = strip.n_active[k] if n_rows > ZERO else ZERO
            if n_listed == ZERO and n_rows > ZERO:  # most of them, where rows are sorted
                continue
            count, is_queued = share_listed(strip, k, n_listed, n_rows)
            room.counts[k] += count
            strip.tally[USED] += n_listed
            add_component(X, strip, n_rows, n_panels, k, n_listed, is_queued, room)
        if n_rows == ZERO:
            break
        done = start + n_rows
        if is_bounded:
            strip.tally[BOUNDED] = done
            if done >= GRACE and not pays(strip.tally[EVALUATED] / (K * done), X.shape[1]):
                is_bounded = False
                list_all(strip)
        if not is_sorted and done >= GRACE and strip.tally[USED] > CROWDED * K * done:
            stop = done
    return loglik, penalty, end_pass(strip, room, params, stats, stop, impossible)
