"""What a pass over rows needs of a family: functions chosen by the type of its room for components and their sums.

A room is a NamedTuple of arrays, made anew for no two passes of the same sizes. It has at least

- `log_norms` (K,), float64: log densities where distances are 0, which `prepare` writes; an E-step adds its offsets;
- `constants` and `reliefs`, of K values or more in the dtype of the rows, which an E-step writes;
- `counts` (K,), float64: sums of responsibilities.

What is summed in a room is 0 between passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lvm._jit import Array, bare_helper, choose_by_type
from lvm._masks import count_above
from lvm._vectors import TWO, ZERO, load, store
from lvm.kernels.panels import Panels

HALF = np.float32(0.5)  # exact, and no float32 becomes a float64 by it


class Moments(NamedTuple):
    """Sums of weights (K,), and first and second moments about the means, as the Gaussian structure has them."""

    counts: Array
    first: Array
    second: Array


def prepare(room: Any, params: Any) -> None:
    """Write the components as panels see them to room, from parameters."""
    raise NotImplementedError


def add_panel_densities(panels: Panels, at: Any, room: Any, values: Array, first: Any) -> None:
    """Write constants less half the squared distances of the panel at a position to values, from first on."""
    raise NotImplementedError


def square_norms(panels: Panels, at: Any, k: Any, room: Any, norms: Array) -> None:
    """Write the squared distances of the panel at a position from component k to norms (width,)."""
    raise NotImplementedError


@bare_helper
def add_density(panels: Panels, at: Any, room: Any, k: Any, values: Array, first: Any) -> None:
    """Write the values of one component, see `add_panel_densities`, and its squared distances to room.norms."""
    half, to = panels.width // TWO, first + k * panels.width
    square_norms(panels, at, k, room, room.norms)
    store(room.constants[k] - HALF * load(room.norms, ZERO), values, to)
    store(room.constants[k] - HALF * load(room.norms, half), values, to + half)


def add_moments(panels: Panels, n_panels: Any, r: Array, first: Any, k: Any, room: Any) -> None:
    """Add the moments of panels under responsibilities r, from `first` on, for component k to those in room."""
    raise NotImplementedError


def join(strip: Any, n_panels: Any, room: Any) -> Any:
    """Add the moments of a strip under all components at once, where that takes less time than one by one.

    Returns how many responsibilities are not 0; 0 where nothing was added.
    """
    raise NotImplementedError


def collect(room: Any, params: Any, stats: Any) -> None:
    """Move the moments in room to stats, about the means in params."""
    raise NotImplementedError


def precision_times(room: Any, params: Any, k: Any, vector: Array, product: Array) -> float:
    """Write the inverse covariance of component k times a vector (d,) to product; return vector . product."""
    raise NotImplementedError


def variance_along(room: Any, params: Any, k: Any, vector: Array) -> float:
    """Return the variance under component k of its features times a vector (d,)."""
    raise NotImplementedError


def add_near_densities(strip: Any, q: Any, room: Any, guess: Any, k: Any, limit: Any) -> Any:
    """Write the values of panel q of a strip for component k, where its rows should belong, and those that come near.

    Left out is what lies below the value of k by more than -limit for all rows. Lists the others in strip.near; returns
    how many.
    """
    raise NotImplementedError


def no_near_densities(strip: Any, q: Any, room: Any, guess: Any, k: Any, limit: Any) -> Any:  # noqa: ARG001
    """Let kernels compile for rooms without a guess, where it is never called."""
    return len(room.log_norms)


def never_join(strip: Any, n_panels: Any, room: Any) -> Any:  # noqa: ARG001 - the arguments of `join`
    """Leave the moments to each component."""
    return ZERO


@bare_helper
def count_used(strip: Any, n_panels: Any) -> Any:
    """Return how many values of a strip are not 0."""
    n_used = ZERO
    for at in range(ZERO, n_panels * np.uint64(len(strip.lengths)) * strip.panels.width, strip.panels.width // TWO):
        n_used += count_above(load(strip.values, at), 0.0)
    return n_used


def implement(room: type, **functions: Callable[..., Any]) -> None:
    """Make kernels use these functions in place of those of the same names above, for rooms of a type."""
    for name, function in functions.items():
        choose_by_type(globals()[name], "room", {room: function})
