"""Gaussian log densities and moments under one full covariance for all components, panel by panel.

Points are whitened once, y = L (x - c), and compared with the whitened means.

Of the second moments only the sum over components is needed, and it takes one outer product per point. With the
point's total weight w_i = sum_k r_ik and its posterior mean m_i = sum_k r_ik mean_k / w_i (derived here: write
x_i - mean_k = (x_i - m_i) + (m_i - mean_k), whose cross terms vanish),

sum_ik r_ik (x_i - mean_k)(x_i - mean_k)' = sum_i w_i (x_i - m_i)(x_i - m_i)'
    + sum_{k<l} G_kl (mean_k - mean_l)(mean_k - mean_l)',    G_kl = sum_i r_ik r_il / w_i,

sum_i r_ik (x_i - mean_k) = sum_i r_ik (x_i - m_i) + sum_l G_kl (mean_l - mean_k).

No term cancels another of the first. All that is summed over points are the products of the d + K numbers
sqrt(w_i) (x_i - m_i) and r_ik / sqrt(w_i), called joined.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lvm._jit import Array, bare_helper
from lvm._tiles import COLUMNS, ROWS, Memory, Position, add_multiples, on_tile, store_tile, zero_tile
from lvm._vectors import FOUR, TWO, ZERO, load, spread, square_root, store, sum_entries, where_above
from lvm.kernels.components import count_used, implement, no_near_densities
from lvm.kernels.panels import Panels, as_panels, carved, padded, panel_width, panels_size
from lvm.kernels.scaled import finish_densities
from lvm.kernels.strips import LOG_2PI
from lvm.kernels.whitened import (
    add_products,
    add_whitened_moments,
    move_sums,
    pack_factor,
    unpack_products,
    whiten_last,
)

GATHERED = 30.0  # multiply-adds that a row costs which is gathered for its moments, beside those


class SharedRoom(NamedTuple):
    """Components as panels of one dtype see them, and their sums; d is padded with zeros to e, a multiple of 4.

    Attributes
    ----------
    n_features : int
        d.
    log_norms : ndarray of shape (K,), float64
        Log densities at the means; for an E-step, with the offsets of a `Posterior`.
    constants, reliefs : ndarray of shape (4 G,)
        These, and the reliefs of a `Posterior`, in the dtype of the rows, for G groups of four components.
    centre : ndarray of shape (e,)
        c: the mean of the means.
    near : ndarray of shape (K, e)
        Means, rounded to the dtype.
    factor : ndarray of shape (e (e + 4) / 2,)
        The inverse Cholesky factor L, as in `WhiteningRoom`.
    white : ndarray of shape (G, e, 4)
        L (mean - c), of four components side by side.
    centred, whitened : ndarray of shape (e width,)
        Scratch: a panel about c, before and after whitening; the second is longer.
    weighted : Panels
        Scratch, see `WhiteningRoom`.
    joined : Panels
        Scratch: the joined numbers of a strip.
    counts, first, products : ndarray of shape (K,), (K, e) and (1, e (e + 4) / 2), float64
        Sums of r, of r (x - near), and of the products of these over all components, see `add_products`.
    of_joined, overlap, step : ndarray, float64
        Sums of products of the joined; scratch of shape (K, K) and (d,).
    """

    n_features: int
    log_norms: Array
    constants: Array
    reliefs: Array
    centre: Array
    near: Array
    factor: Array
    white: Array
    centred: Array
    whitened: Array
    weighted: Panels
    joined: Panels
    counts: Array
    first: Array
    products: Array
    of_joined: Array
    overlap: Array
    step: Array


def shared_room(m: int, d: int, K: int, dtype: np.dtype[Any]) -> SharedRoom:
    """Return room for K components and strips of m rows of d features."""
    e, width, n_groups = padded(d), panel_width(dtype), padded(K) // 4
    f, triangle = padded(e + K), e * (e + 4) // 2
    scratch = {"weighted": panels_size(m, e + 1, dtype), "joined": panels_size(m, f, dtype)}
    scratch |= {"centred": e * width, "whitened": e * width}
    single = {"constants": 4 * n_groups, "reliefs": 4 * n_groups, "centre": e, "near": (K, e), "factor": triangle}
    grouped = {"white": (n_groups, e, 4)}
    double = {"log_norms": K, "counts": K, "first": (K, e), "products": (1, triangle), "step": d, "overlap": (K, K)}
    of_joined = {"of_joined": f * (f + 4) // 2}
    arrays = carved((dtype, scratch), (dtype, single), (dtype, grouped), (np.float64, double), (np.float64, of_joined))
    panels = {"weighted": as_panels(arrays["weighted"], e + 1), "joined": as_panels(arrays["joined"], f)}
    return SharedRoom(n_features=d, **arrays | panels)


def _prepare(room: SharedRoom, params: Any) -> None:
    """Write means (K, d) and the inverse Cholesky factor (1, d, d) to room."""
    K, d = params.means.shape
    L = params.inverse_cholesky[0]
    log_norm = pack_factor(L, room.factor) - 0.5 * d * LOG_2PI
    for i in range(d):
        mean = 0.0
        for k in range(K):
            mean += params.means[k, i] / K
            room.near[k, i] = params.means[k, i]
        room.centre[i] = mean
    for k in range(K):
        room.log_norms[k] = log_norm
        for i in range(d):
            white = 0.0
            for j in range(i + 1):
                white += L[i, j] * (params.means[k, j] - room.centre[j])
            room.white[k // 4, i, k % 4] = white


@on_tile
def _add_squares(tile: Any, y: Memory, row: Position, means: Memory, at: Position) -> None:
    """Add the squares of y - mean of four whitened features, for four components and a panel of points."""
    for feature in range(ROWS):
        points = [y.load(row + (COLUMNS * feature + column) * y.lanes) for column in range(COLUMNS)]
        for k in range(ROWS):
            mean = means.spread(at + (ROWS * feature + k))
            for column in range(COLUMNS):
                z = points[column] - mean
                tile[k][column] += z * z


def _add_densities(panels: Panels, at: Any, room: SharedRoom, values: Array, first: Any) -> None:
    """Write the log densities of a panel, see `components.add_panel_densities`.

    What stands beyond the last component is overwritten by the next panel.
    """
    e, width, z, y, entry = np.uint64(len(room.centre)), panels.width, room.centred, room.whitened, ZERO
    for j in range(ZERO, e, FOUR):
        tile = zero_tile(z)
        for i in range(ZERO, j, FOUR):
            tile = add_multiples(tile, z, i * width, room.factor, entry)
            entry += FOUR * FOUR
        tile = whiten_last(tile, panels.values, at, room.centre, z, j, room.factor, entry)
        entry += FOUR * FOUR
        store_tile(tile, y, j * width)
    for k in range(ZERO, np.uint64(len(room.log_norms)), FOUR):
        tile = zero_tile(y)
        for i in range(ZERO, e, FOUR):
            tile = _add_squares(tile, y, i * width, room.white, k * e + FOUR * i)
        finish_densities(tile, room.constants, k, values, first + k * width)


@bare_helper
def _is_joined(m: Any, n_used: Any, K: Any, d: Any) -> bool:
    """Return whether joined moments of m rows take less time than those of n_used pairs of row and component."""
    joined = m * ((d + K) * (d + K + FOUR) / 2 + 2 * K * d)
    return bool(joined < n_used * (d * (d + FOUR) / 2 + 4 * d + GATHERED))


@on_tile
def _spread_about(
    tile: Any, x: Memory, row: Position, means: Memory, at: Position, shares: Memory, share: Position
) -> None:
    """Add share * (x - mean) of four features of a panel, for one component."""
    for column in range(COLUMNS):
        factor = shares.load(share + column * x.lanes)
        for feature in range(ROWS):
            points = x.load(row + (COLUMNS * feature + column) * x.lanes)
            tile[feature][column] += (points - means.spread(at + feature)) * factor


def _join(strip: Any, n_panels: Any, room: SharedRoom) -> Any:
    """Add the moments of a strip by the identity of this module, see `components.join`."""
    K, e, width, d = np.uint64(len(room.log_norms)), np.uint64(len(room.centre)), strip.panels.width, room.n_features
    half, joined, n_used = width // TWO, room.joined, count_used(strip, n_panels)
    if not _is_joined(n_panels * width, n_used, K, np.uint64(d)):
        return ZERO
    for q in range(n_panels):
        for part in (ZERO, half):
            root, at = spread(0.0, strip.values), q * K * width + part
            for k in range(K):
                root = root + load(strip.values, at + k * width)
            scale = load(strip.scale, q * width + part)
            root = square_root(root * scale)
            scale = where_above(root, 0.0, scale / root, 0.0)
            for k in range(K):
                share = load(strip.values, at + k * width) * scale
                store(share, joined.values, q * joined.stride + (e + k) * width + part)
                room.counts[k] += sum_entries(share * root)
        for i in range(ZERO, e, FOUR):
            tile, to = zero_tile(joined.values), q * joined.stride + i * width
            for k in range(K):
                share = q * joined.stride + (e + k) * width
                row = q * strip.panels.stride + i * width
                tile = _spread_about(tile, strip.panels.values, row, room.near, k * e + i, joined.values, share)
            store_tile(tile, joined.values, to)
    add_products(joined, n_panels, e + K, room.of_joined)
    return n_used


@bare_helper
def _place(row: int, column: int) -> int:
    """Return where `add_products` sums the products of features row >= column."""
    group = row // 4
    return 8 * group * (group + 1) + 4 * column + row % 4


@bare_helper
def _add_between(overlap: Array, means: Array, step: Array, second: Array) -> None:
    """Add the sum over l < k of overlap[k, l] (mean_k - mean_l)(mean_k - mean_l)' to second (d, d), lower half.

    Overwrites overlap (K, K), of which only the part below the diagonal is read. By the identity of this module
    again, with mean_k as the point and overlap[k] as its responsibilities: the last component leaves one square and
    what it adds to the overlaps of the others. step (d,) is scratch.
    """
    d = second.shape[0]
    for k in range(means.shape[0] - 1, 0, -1):
        whole = 0.0
        for other in range(k):
            whole += overlap[k, other]
        if whole == 0.0:
            continue
        for i in range(d):
            step[i] = 0.0
        for other in range(k):
            share = overlap[k, other] / whole
            for i in range(d):
                step[i] += share * (means[k, i] - means[other, i])
            for j in range(other):
                overlap[other, j] += share * overlap[k, j]
        for i in range(d):
            for j in range(i + 1):
                second[i, j] += whole * step[i] * step[j]


def _collect(room: SharedRoom, params: Any, stats: Any) -> None:
    """Move the moments in room to stats, about the means."""
    K, e, d, products = len(stats.counts), len(room.centre), room.n_features, room.of_joined
    if K == 0:
        return
    second = stats.second[0]
    unpack_products(room.products[0], second)
    for i in range(d):
        for j in range(i + 1):
            second[i, j] += products[_place(i, j)]
    for k in range(K):
        for other in range(k + 1):
            room.overlap[k, other] = room.overlap[other, k] = products[_place(e + k, e + other)]
    for k in range(K):
        for i in range(d):
            first = room.first[k, i] + products[_place(e + k, i)]
            for other in range(K):
                first += room.overlap[k, other] * (room.near[other, i] - room.near[k, i])
            room.first[k, i] = first
    _add_between(room.overlap, room.near, room.step, second)
    for k in range(K):
        move_sums(room, k, params.means[k], second, stats)
    for i in range(len(products)):
        products[i] = 0.0


implement(
    SharedRoom,
    prepare=_prepare,
    add_panel_densities=_add_densities,
    add_near_densities=no_near_densities,
    add_moments=add_whitened_moments,
    join=_join,
    collect=_collect,
)
