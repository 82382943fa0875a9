"""Student t log densities and moments, panel by panel, on the distances and moments of Gaussian components.

With nu degrees of freedom, a row at the squared distance delta counts w = r / (1 + delta / nu) in the moments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lvm._jit import Array
from lvm._vectors import TWO, ZERO, load, spread, store, sum_entries, where_above
from lvm.kernels.components import (
    Moments,
    add_moments,
    add_panel_densities,
    collect,
    implement,
    never_join,
    no_near_densities,
    prepare,
    square_norms,
)
from lvm.kernels.degrees_of_freedom import log_one_plus
from lvm.kernels.gamma_functions import log_gamma_rise
from lvm.kernels.panels import Panels, carved, panel_width
from lvm.kernels.scaled import scaling_room
from lvm.kernels.whitened import whitening_room


class HeavyParams(NamedTuple):
    """Means (K, d), parameters of Gaussian components that have them, and degrees of freedom (K,)."""

    means: Array
    gaussian: Any
    degrees_of_freedom: Array


class HeavyRoom(NamedTuple):
    """Components as panels see them, and their sums.

    Attributes
    ----------
    gaussian : NamedTuple
        Room for Gaussian components.
    log_norms, constants, reliefs, counts : ndarray of shape (K,)
        See `components`.
    halves, inverses : ndarray of shape (K,)
        (nu + d) / 2 and 1 / nu.
    norms, weights : ndarray of shape (width,) and (m,)
        Scratch: squared distances, and w.
    sums, logarithms : ndarray of shape (K,)
        Sums of w, and of r log(1 + delta / nu).
    """

    gaussian: Any
    log_norms: Array
    constants: Array
    reliefs: Array
    counts: Array
    halves: Array
    inverses: Array
    norms: Array
    weights: Array
    sums: Array
    logarithms: Array


def heavy_room(make_gaussian: Callable[..., Any], m: int, d: int, K: int, dtype: np.dtype[Any]) -> HeavyRoom:
    """Return room for K components and strips of m rows of d features, on that for Gaussian components."""
    names = ("log_norms", "constants", "reliefs", "counts", "halves", "inverses", "sums", "logarithms")
    sizes = dict.fromkeys(names, K) | {"norms": panel_width(dtype), "weights": m}
    return HeavyRoom(gaussian=make_gaussian(m, d, K, dtype), **carved((np.float64, sizes)))


def heavy_whitening_room(m: int, d: int, K: int, dtype: np.dtype[Any]) -> HeavyRoom:
    """Return room for components with full scatter matrices."""
    return heavy_room(whitening_room, m, d, K, dtype)


def heavy_scaling_room(m: int, d: int, K: int, dtype: np.dtype[Any]) -> HeavyRoom:
    """Return room for components with diagonal scatter matrices."""
    return heavy_room(scaling_room, m, d, K, dtype)


def _prepare(room: HeavyRoom, params: Any) -> None:
    """Write the components to room, see `components.prepare`."""
    d = params.means.shape[1]
    prepare(room.gaussian, params.gaussian)
    for k in range(len(room.log_norms)):
        nu = params.degrees_of_freedom[k]
        room.log_norms[k] = room.gaussian.log_norms[k] + log_gamma_rise(0.5 * d, 0.5 * nu)
        room.halves[k], room.inverses[k] = 0.5 * (nu + d), 1.0 / nu
        room.gaussian.constants[k] = 0.0


def _add_densities(panels: Panels, at: Any, room: HeavyRoom, values: Array, first: Any) -> None:
    """Write the log densities of a panel, see `components.add_panel_densities`."""
    add_panel_densities(panels, at, room.gaussian, values, first)
    half = panels.width // TWO
    for j in range(len(room.log_norms)):
        to = first + np.uint64(j) * panels.width
        for part in (ZERO, half):  # what is there are -delta / 2
            quotient = load(values, to + part) * (-2.0 * room.inverses[j])
            store(room.constants[j] - room.halves[j] * log_one_plus(quotient), values, to + part)


def _add_moments(panels: Panels, n_panels: Any, r: Array, first: Any, k: Any, room: HeavyRoom) -> None:
    """Add the moments of panels, see `components.add_moments`."""
    sums = logarithms = spread(0.0, r)
    for q in range(n_panels):
        square_norms(panels, q * panels.stride, k, room.gaussian, room.norms)
        for part in (ZERO, panels.width // TWO):
            p = q * panels.width + part
            responsibility, quotient = load(r, first + p), load(room.norms, part) * room.inverses[k]
            weight = responsibility / (1.0 + quotient)
            store(weight, room.weights, p)
            sums += weight
            logarithms += where_above(responsibility, 0.0, responsibility * log_one_plus(quotient), 0.0)
    room.sums[k] += sum_entries(sums)
    room.logarithms[k] += sum_entries(logarithms)
    add_moments(panels, n_panels, room.weights, ZERO, k, room.gaussian)


def _collect(room: HeavyRoom, params: Any, stats: Any) -> None:
    """Move the moments in room to stats, see `components.collect`."""
    for k in range(len(stats.counts)):
        stats.counts[k] += room.counts[k]
        stats.logarithms[k] += room.logarithms[k]
        room.gaussian.counts[k] = room.sums[k]
        room.counts[k] = room.logarithms[k] = room.sums[k] = 0.0
    collect(room.gaussian, params.gaussian, Moments(stats.weights, stats.first, stats.second))


implement(
    HeavyRoom,
    prepare=_prepare,
    add_panel_densities=_add_densities,
    add_near_densities=no_near_densities,
    add_moments=_add_moments,
    join=never_join,
    collect=_collect,
)
