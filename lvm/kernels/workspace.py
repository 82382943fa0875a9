"""What a pass over rows works with: the posterior it computes, and room for a strip of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, canonical, part_of_kernel
from lvm._vectors import TWO
from lvm.kernels.guesses import Guess
from lvm.kernels.panels import Panels, as_panels, carved, padded, panel_width, panels_size

EVALUATED, USED, ROWS, BOUNDED = range(4)  # what a strip tallies


class Posterior(NamedTuple):
    """What turns log densities into responsibilities.

    Attributes
    ----------
    offsets : ndarray of shape (K,)
        log weights + log penalties.
    reliefs : ndarray of shape (K,)
        exp(-log penalties) over the largest of them.
    log_relief : float
        The logarithm of that largest.
    smallest : float
        Responsibilities below exp(smallest) of the row's largest are taken for 0.
    weight : ndarray of shape (n,), or empty
        Row weights; none means 1.
    labels : ndarray of shape (n,), int64, or empty
        Known components, -1 where unknown; none means all unknown.
    """

    offsets: Array
    reliefs: Array
    log_relief: float
    smallest: float
    weight: Array
    labels: NDArray[np.int64]


# For the steps that need none.
NO_POSTERIOR = Posterior(np.empty(0), np.empty(0), 0.0, 0.0, canonical(np.empty(0)), canonical(np.empty(0), np.int64))
NO_RESPONSIBILITIES = np.empty((0, 0))


class Strip(NamedTuple):
    """Scratch for a strip of m rows; panel q has `values` of component k from (q K + k) width on.

    Attributes
    ----------
    panels, gathered : Panels
        The rows as they lie, and those of the queue.
    values : ndarray
        Log densities; then responsibilities over those in `scale`. There is room for three more components.
    rows : ndarray of shape (m,), uint64
        Positions of the rows in X.
    weight, top, totals, reliefs, scale : ndarray of shape (m,)
        Of each row the weight, 0 beyond the last; the largest value; the sums of exp(value - top), as they are and
        times the reliefs; weight over total.
    r : ndarray of shape (m,)
        Responsibilities of one component.
    near : ndarray, uint64
        Components with a value that may matter, of panel q from q K on.
    n_near : ndarray of shape (m / width,), uint64
        How many.
    active : ndarray, uint64
        Panels with a responsibility that is not 0, of component k from k m on; unused where rows are listed.
    n_active : ndarray of shape (K,), uint64
        How many; or how many rows are listed.
    queue, queue_r : ndarray, uint64 and the dtype of the rows
        Rows that wait for their moments and their responsibilities, of component k from (2 m + width) k on.
    lengths, ends : ndarray of shape (K,), uint64
        How many, and where those end that a strip appends.
    tally : ndarray of shape (4,), uint64
        Numbers of densities evaluated of rows in order, of responsibilities that are not 0 (of joined ones, also those
        of rows of weight 0), of rows that are done, and of those whose densities were bounded.
    """

    panels: Panels
    gathered: Panels
    values: Array
    rows: NDArray[np.uint64]
    weight: Array
    top: Array
    totals: Array
    reliefs: Array
    scale: Array
    r: Array
    near: NDArray[np.uint64]
    n_near: NDArray[np.uint64]
    active: NDArray[np.uint64]
    n_active: NDArray[np.uint64]
    queue: NDArray[np.uint64]
    queue_r: Array
    lengths: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    tally: NDArray[np.uint64]


def empty_strip(m: int, d: int, K: int, dtype: np.dtype[Any]) -> Strip:
    """Return room for strips of m rows of d features under K components."""
    e = padded(d)
    n_panels, queued = m // panel_width(dtype), 2 * m + panel_width(dtype)
    large = {"panels": panels_size(m, e, dtype), "gathered": panels_size(m, e, dtype), "values": (K + 3) * m}
    single = dict.fromkeys(("weight", "top", "totals", "reliefs", "scale", "r"), m) | {"queue_r": K * queued}
    whole = {
        "rows": m,
        "near": n_panels * K + 1,
        "n_near": n_panels,
        "active": K * m,
        "n_active": K,
        "queue": K * queued,
        "lengths": K,
        "ends": K,
        "tally": 4,
    }
    arrays = carved((dtype, large), (dtype, single), (np.uint64, whole))
    return Strip(**arrays | {name: as_panels(arrays[name], e) for name in ("panels", "gathered")})


@part_of_kernel
def place_in_queue(strip: Strip, k: Any) -> Any:
    """Return where the next row of component k stands in its queue."""
    return (TWO * np.uint64(len(strip.r)) + strip.panels.width) * k + strip.lengths[k]


class Workspace(NamedTuple):
    """All that a pass works with."""

    strip: Strip
    room: Any
    guess: Guess
