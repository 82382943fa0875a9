"""Gaussian log densities and moments under full covariance, panel by panel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lvm._jit import Array, bare_helper, part_of_kernel
from lvm._tiles import (
    COLUMNS,
    ROWS,
    Memory,
    Position,
    add_multiples,
    add_row_totals,
    add_totals,
    fill_rows,
    on_tile,
    unrolled,
    zero_tile,
)
from lvm._vectors import FOUR, TWO, ZERO, load, spread, square_root, store
from lvm.kernels.components import add_density, implement, never_join
from lvm.kernels.guesses import add_near_densities
from lvm.kernels.moments import move_moments
from lvm.kernels.panels import Panels, as_panels, carved, padded, panel_width, panels_size
from lvm.kernels.strips import LOG_2PI


class WhiteningRoom(NamedTuple):
    """Components as panels of one dtype see them, and their sums; d is padded with zeros to e, a multiple of 4.

    Attributes
    ----------
    n_features : int
        d.
    log_norms : ndarray of shape (K,), float64
        Log densities at the means; for an E-step, with the offsets of a `Posterior`.
    constants, reliefs : ndarray of shape (K,)
        These, and the reliefs of a `Posterior`, in the dtype of the rows.
    near : ndarray of shape (K, e)
        Means, rounded to the dtype.
    offsets : ndarray of shape (K, e)
        -L (mean - near): what the rounding of the means lacks, after whitening.
    factors : ndarray of shape (K, e (e + 4) / 2)
        Inverse Cholesky factors L, lower: of four rows at a time the columns up to that of the last, one by one.
    centred : ndarray of shape (e width,)
        Scratch: a centred panel.
    norms : ndarray of shape (width,)
        Scratch: its squared norms after whitening.
    weighted : Panels
        Scratch: features about the mean times sqrt(r), and, as the last, sqrt(r).
    counts, first, products : ndarray of shape (K,), (K, e) and (K, e (e + 4) / 2), float64
        Sums of r, of r (x - near), and of the products of these, see `add_products`.
    """

    n_features: int
    log_norms: Array
    constants: Array
    reliefs: Array
    near: Array
    offsets: Array
    factors: Array
    centred: Array
    norms: Array
    weighted: Panels
    counts: Array
    first: Array
    products: Array


def whitening_room(m: int, d: int, K: int, dtype: np.dtype[Any]) -> WhiteningRoom:
    """Return room for K components and strips of m rows of d features."""
    e, width = padded(d), panel_width(dtype)
    triangle = e * (e + 4) // 2
    scratch = {"weighted": panels_size(m, e + 1, dtype), "centred": e * width, "norms": width}
    single = {"constants": K, "reliefs": K, "near": (K, e), "offsets": (K, e), "factors": (K, triangle)}
    double = {"log_norms": K, "counts": K, "first": (K, e), "products": (K, triangle)}
    arrays = carved((dtype, scratch), (dtype, single), (np.float64, double))
    return WhiteningRoom(n_features=d, **arrays | {"weighted": as_panels(arrays["weighted"], e + 1)})


@bare_helper
def pack_factor(L: Array, packed: Array) -> float:
    """Write an inverse Cholesky factor L (d, d) to packed (e (e + 4) / 2,); return the logarithm of its determinant."""
    at, log_determinant = 0, 0.0
    for i in range(L.shape[0]):
        log_determinant += np.log(L[i, i])
        for j in range(i + 1):
            packed[at + 4 * j + i % 4] = L[i, j]
        at += 4 * (i + 1) if i % 4 == 3 else 0
    return log_determinant


def _prepare(room: WhiteningRoom, params: Any) -> None:
    """Write means (K, d) and inverse Cholesky factors (C, d, d) to room; C is K or 1."""
    K, d = params.means.shape
    for k in range(K):
        L, mean, near = params.inverse_cholesky[min(k, len(params.inverse_cholesky) - 1)], params.means[k], room.near[k]
        room.log_norms[k] = pack_factor(L, room.factors[k]) - 0.5 * d * LOG_2PI
        for i in range(d):
            near[i] = mean[i]
            rest = 0.0
            for j in range(i + 1):
                rest -= L[i, j] * (mean[j] - near[j])
            room.offsets[k, i] = rest


@part_of_kernel
def move_sums(room: Any, k: Any, mean: Array, second: Array, stats: Any) -> None:
    """Move the count and the first moments of component k in room to stats, about its mean, and what second lacks."""
    move_moments(mean, room.near[k], room.counts[k], room.first[k], second)
    stats.counts[k] += room.counts[k]
    room.counts[k] = 0.0
    for i in range(len(mean)):
        stats.first[k, i] += room.first[k, i]
        room.first[k, i] = 0.0


def _collect(room: WhiteningRoom, params: Any, stats: Any) -> None:
    """Move the moments in room to stats, about the means."""
    for k in range(len(stats.counts)):
        second = stats.second[min(k, len(stats.second) - 1)]
        unpack_products(room.products[k], second)
        move_sums(room, k, params.means[k], second, stats)


@on_tile
def whiten_last(
    tile: Any, x: Memory, at: Position, mean: Memory, z: Memory, j: Position, L: Memory, entry: Position
) -> None:
    """Centre rows j to j + 3 of a panel x, write them to z, and add the triangle on the diagonal of L times them."""
    for i in range(ROWS):
        row, centre = j * (COLUMNS * x.lanes) + COLUMNS * i * x.lanes, mean.spread(j + i)
        points = [x.load(at + (row + column * x.lanes)) - centre for column in range(COLUMNS)]
        for below in range(i, ROWS):
            factor = L.spread(entry + (ROWS * i + below))
            for column in range(COLUMNS):
                tile[below][column] += factor * points[column]
        for column in range(COLUMNS):  # after all loads: the compiler would repeat those behind a store
            z.store(points[column], row + column * x.lanes)


@unrolled
def _add_squares(tile: Any, norms: Memory) -> None:
    """Add the sums of squares of the columns of a tile to norms (width,)."""
    for column in range(COLUMNS):
        at = column * norms.lanes
        norm = norms.load(at)
        for row in tile:
            norm += row[column] * row[column]
        norms.store(norm, at)


def _square_norms(panels: Panels, at: Any, k: Any, room: WhiteningRoom, norms: Array) -> None:
    """Write the squared norms of L (x - mean), see `components.square_norms`."""
    L, mean, offset, z = room.factors[k], room.near[k], room.offsets[k], room.centred
    zero, entry = spread(0.0, z), ZERO
    store(zero, norms, ZERO)
    store(zero, norms, panels.width // TWO)
    for j in range(ZERO, np.uint64(len(mean)), FOUR):
        # Four rows of y = L z for a panel of points: nothing is stored, and six loads serve eight multiply-adds. By
        # four columns, since the ends of long loops are mispredicted.
        tile = fill_rows(zero_tile(z), offset, j)
        for i in range(ZERO, j, FOUR):
            tile = add_multiples(tile, z, i * panels.width, L, entry)
            entry += FOUR * FOUR
        tile = whiten_last(tile, panels.values, at, mean, z, j, L, entry)
        entry += FOUR * FOUR
        _add_squares(tile, norms)


def _add_densities(panels: Panels, at: Any, room: WhiteningRoom, values: Array, first: Any) -> None:
    """Write the log densities of a panel, see `components.add_panel_densities`."""
    for k in range(np.uint64(len(room.log_norms))):
        add_density(panels, at, room, k, values, first)


def _precision_times(room: WhiteningRoom, params: Any, k: Any, vector: Array, product: Array) -> float:  # noqa: ARG001
    """Write L' L vector, see `components.precision_times`."""
    L, square = params.inverse_cholesky[min(k, len(params.inverse_cholesky) - 1)], 0.0
    for i in range(len(vector)):
        white = product[i] = 0.0
        for j in range(i + 1):
            white += L[i, j] * vector[j]
        for j in range(i + 1):
            product[j] += L[i, j] * white
        square += white * white
    return square


def _variance_along(room: WhiteningRoom, params: Any, k: Any, vector: Array) -> float:  # noqa: ARG001
    """Return vector' covariance vector, see `components.variance_along`."""
    covariance, variance = params.covariances[min(k, len(params.covariances) - 1)], 0.0
    for i in range(len(vector)):
        row = 0.0
        for j in range(len(vector)):
            row += covariance[i, j] * vector[j]
        variance += row * vector[i]
    return variance


@on_tile
def _weigh(
    tile: Any, x: Memory, row: Position, mean: Memory, i: Position, w: Memory, to: Position, roots: Position
) -> None:
    """Write sqrt(r) (x - mean) of four features to w, and add r (x - mean) to the rows of the tile."""
    for column in range(COLUMNS):
        root = w.load(roots + column * w.lanes)
        for feature in range(ROWS):
            step = (COLUMNS * feature + column) * w.lanes
            z = (x.load(row + step) - mean.spread(i + feature)) * root
            w.store(z, to + step)
            tile[feature][column] += z * root


@on_tile
def _multiply(tile: Any, w: Memory, row: Position, column: Position) -> None:
    """Add the products of four features, from position row on, with two, from position column on."""
    width = COLUMNS * w.lanes
    for part in range(0, width, w.lanes):
        others = [w.load(column + (j * width + part)) for j in range(COLUMNS)]
        for i in range(ROWS):
            feature = w.load(row + (i * width + part))
            for j in range(COLUMNS):
                tile[i][j] += feature * others[j]


@bare_helper
def add_products(w: Panels, n_panels: Any, d: Any, sums: Array) -> None:
    """Add the sums over points of products of two of the first d features of w to sums, flat.

    Of features i >= j, and some others: four i by two j at a time, see `unpack_products`.
    """
    at = ZERO
    for i in range(ZERO, d, FOUR):
        for j in range(ZERO, min(i + FOUR, d), TWO):
            tile, row, column = zero_tile(w.values), i * w.width, j * w.width
            for _ in range(n_panels):
                tile = _multiply(tile, w.values, row, column)  # six loads serve eight multiply-adds
                row, column = row + w.stride, column + w.stride
            add_totals(tile, sums, at)
            at += FOUR * TWO


@bare_helper
def unpack_products(sums: Array, second: Array) -> None:
    """Move the sums of `add_products` to the lower half of second (d, d)."""
    d, at = second.shape[0], 0
    for i in range(0, d, 4):
        for j in range(min(i + 4, d + d % 2)):
            for row in range(i, i + 4):
                if j <= row < d and j < d:
                    second[row, j] += sums[at]
                sums[at] = 0.0
                at += 1


def add_whitened_moments(panels: Panels, n_panels: Any, r: Array, first: Any, k: Any, room: WhiteningRoom) -> None:
    """Add the moments of panels, see `components.add_moments`."""
    w, e, mean = room.weighted, np.uint64(room.near.shape[1]), room.near[k]
    half, roots = w.width // TWO, e * w.width
    for q in range(n_panels):
        p, to = first + q * w.width, q * w.stride + roots
        store(square_root(load(r, p)), w.values, to)
        store(square_root(load(r, p + half)), w.values, to + half)
    for i in range(ZERO, e, FOUR):
        tile = zero_tile(w.values)
        for q in range(n_panels):
            at, to = q * panels.stride + i * w.width, q * w.stride
            tile = _weigh(tile, panels.values, at, mean, i, w.values, to + i * w.width, to + roots)
        add_row_totals(tile, room.first[k], i)
    add_products(w, n_panels, np.uint64(room.n_features), room.products[min(k, np.uint64(len(room.products) - 1))])


implement(
    WhiteningRoom,
    prepare=_prepare,
    add_panel_densities=_add_densities,
    square_norms=_square_norms,
    precision_times=_precision_times,
    variance_along=_variance_along,
    add_near_densities=add_near_densities,
    add_moments=add_whitened_moments,
    join=never_join,
    collect=_collect,
)
