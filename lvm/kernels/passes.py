"""Passes over rows, in the order that takes least time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lvm._handles import Handle
from lvm._jit import Array
from lvm.kernels.estep import BOTH, SPARSE, run_estep
from lvm.kernels.guesses import BLOCK, empty_guess, sort_by_guess, write_bounds, write_scores
from lvm.kernels.listed_rows import run_listed_estep
from lvm.kernels.panels import POINTS, kept_by_thread, strip_length
from lvm.kernels.whitened import WhiteningRoom
from lvm.kernels.workspace import BOUNDED, ROWS, USED, Posterior, Workspace, empty_strip

# Where lists and sorting are considered: few pairs are done before it, few components leave nothing out; and memory for
# the tangents of all pairs of components, in numbers.
MIN_PAIRS, MIN_SORTED_COMPONENTS, MAX_TANGENTS = 1 << 15, 8, 1 << 20
TRIAL = 256  # rows
SORTED = 0.2  # share of responsibilities that are not 0, below which rows are sorted


def run_pass(
    X: Array, params: Any, posterior: Posterior, resp: Array, stats: Any, steps: int, make_room: Callable[..., Any]
) -> tuple[float, float, int]:
    """Do the steps of a pass over X (n, d), see `run_estep`, with room for components by `make_room`.

    After rows with few responsibilities that are not 0, the next ones are listed; and before it sorted by their
    likeliest component, block by block, as long as these are few and bounds save enough densities.
    """
    (K, d), n = params.means.shape, len(X)
    as_it_lies = _workspace(make_room, min(n, POINTS), d, K, X.dtype)
    strip, room, _ = as_it_lies.values
    if n * K < MIN_PAIRS or steps != BOTH or len(posterior.labels):
        done: tuple[float, float, int] = run_estep(X, params, posterior, resp, as_it_lies, stats, steps, 0)
        return done
    loglik, penalty, start, used, is_sorted, may_be_sorted = 0.0, 0.0, 0, 1.0, False, has_guess(room)
    while start < n:
        is_sorted = may_be_sorted and used < (SPARSE if is_sorted else SORTED)
        rows, space = X[start : start + BLOCK if is_sorted else n], as_it_lies
        of_rows = posterior._replace(weight=posterior.weight[start : start + len(rows)])
        if is_sorted:
            space = _with_guess(as_it_lies, params, posterior.offsets, posterior.smallest)
            sort_by_guess(rows, space)
        strip.tally.fill(0)
        if used < SPARSE:
            done = run_listed_estep(rows, params, of_rows, space, stats)
        else:
            done = run_estep(rows, params, of_rows, resp, space, stats, steps, TRIAL)
        loglik, penalty, impossible = loglik + done[0], penalty + done[1], done[2]
        if impossible >= 0:
            return loglik, penalty, start + impossible
        n_done = int(strip.tally[ROWS])
        start, used = start + n_done, int(strip.tally[USED]) / (K * n_done)
        may_be_sorted &= not is_sorted or strip.tally[BOUNDED] == n_done
    return loglik, penalty, -1


@kept_by_thread
def _workspace(make_room: Callable[..., Any], n: int, d: int, K: int, dtype: np.dtype[Any]) -> Handle[Workspace]:
    m = strip_length(n, max(K, d), dtype)
    return Handle(Workspace(empty_strip(m, d, K, dtype), make_room(m, d, K, dtype), empty_guess(0, 0, dtype)))


@kept_by_thread
def _room_for_guess(space: Handle[Workspace]) -> Handle[Workspace]:
    room = space.values.room
    return Handle(space.values._replace(guess=empty_guess(len(room.near), room.n_features, room.near.dtype)))


@kept_by_thread
def _with_guess(as_it_lies: Handle[Workspace], params: Any, _offsets: Array, smallest: float) -> Handle[Workspace]:
    """Return the workspace with a guess at the components that its room holds: it was prepared for this E-step.

    The array of offsets, of which each E-step makes a new one, tells them apart.
    """
    space = _room_for_guess(as_it_lies)
    write_scores(params, space.values.guess)
    write_bounds(space, params, smallest)
    return space


def has_guess(room: Any) -> bool:
    """Return whether densities in this room use a guess, and cost enough for it."""
    if not isinstance(room, WhiteningRoom):
        return False
    K, e = room.near.shape
    return bool(K >= MIN_SORTED_COMPONENTS and K * K * e <= MAX_TANGENTS)
