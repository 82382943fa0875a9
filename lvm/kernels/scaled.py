"""Gaussian log densities and moments with axis-aligned covariances, panel by panel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lvm._jit import Array
from lvm._tiles import COLUMNS, ROWS, Memory, Position, add_totals, on_tile, unrolled, zero_tile
from lvm._vectors import FOUR, TWO, ZERO, load, spread, store, sum_entries
from lvm.kernels.components import count_used, implement, no_near_densities
from lvm.kernels.panels import Panels, carved, padded
from lvm.kernels.strips import LOG_2PI

# Where a strip has as many bytes, and a share of its responsibilities is not 0, its moments are joined.
WIDE, JOINED = 1 << 14, 0.7


class ScalingRoom(NamedTuple):
    """Components as panels of one dtype see them, and their sums; d is padded with zeros to e, a multiple of 4.

    Attributes
    ----------
    n_features : int
        d.
    log_norms : ndarray of shape (K,), float64
        Log densities at the means; for an E-step, with the offsets of a `Posterior`.
    constants, reliefs : ndarray of shape (K,), rounded up to a multiple of 4
        These, and the reliefs of a `Posterior`, in the dtype of the rows.
    near : ndarray of shape (K, e)
        Means, rounded to the dtype.
    means, scales, offsets : ndarray of shape (K / 4, e, 4)
        Of four components at a time the same means, the inverse standard deviations, and scale * (near - mean): what
        the rounding of the means lacks, after scaling.
    counts, sums : ndarray of shape (K,) and (K, 2 e), float64
        Sums of r, and of r (x - near) and r (x - near)**2, four of each at a time.
    """

    n_features: int
    log_norms: Array
    constants: Array
    reliefs: Array
    near: Array
    means: Array
    scales: Array
    offsets: Array
    counts: Array
    sums: Array


def scaling_room(_m: int, d: int, K: int, dtype: np.dtype[Any]) -> ScalingRoom:
    """Return room for K components of d features."""
    e, n_groups = padded(d), padded(K) // 4
    single = {"constants": 4 * n_groups, "reliefs": 4 * n_groups, "near": (K, e)}
    grouped = dict.fromkeys(("means", "scales", "offsets"), (n_groups, e, 4))
    double = {"log_norms": K, "counts": K, "sums": (K, 2 * e)}
    return ScalingRoom(n_features=d, **carved((dtype, single), (dtype, grouped), (np.float64, double)))


def _prepare(room: ScalingRoom, params: Any) -> None:
    """Write means and inverse standard deviations (K, d) to room."""
    K, d = params.means.shape
    for k in range(K):
        log_norm, group, row = -0.5 * d * LOG_2PI, k // 4, k % 4
        for i in range(d):
            mean, scale = params.means[k, i], params.inverse_scales[k, i]
            room.near[k, i] = mean
            rounded = room.near[k, i]
            room.means[group, i, row], room.scales[group, i, row] = rounded, scale
            room.offsets[group, i, row] = (rounded - mean) * scale
            log_norm += np.log(scale)
        room.log_norms[k] = log_norm


@on_tile
def _add_squares(
    tile: Any, x: Memory, row: Position, means: Memory, scales: Memory, offsets: Memory, at: Position
) -> None:
    """Add the squares of scale * (x - mean) of two features, for four components and a panel of points."""
    for feature in range(2):
        points = [x.load(row + (COLUMNS * feature + column) * x.lanes) for column in range(COLUMNS)]
        for k in range(ROWS):
            entry = at + (ROWS * feature + k)
            mean, scale = means.spread(entry), scales.spread(entry)
            for column in range(COLUMNS):
                z = (points[column] - mean) * scale
                z = z if x.is_double else z + offsets.spread(entry)
                tile[k][column] += z * z


@unrolled
def finish_densities(tile: Any, constants: Memory, k: Position, values: Memory, to: Position) -> None:
    """Write constants less half the squared distances to values, for four components and a panel of points."""
    for i, row in enumerate(tile):
        for column in range(COLUMNS):
            half = row[column] * 0.5
            values.store(constants.spread(k + i) - half, to + (COLUMNS * i + column) * values.lanes)


def _add_densities(panels: Panels, at: Any, room: ScalingRoom, values: Array, first: Any) -> None:
    """Write the log densities of a panel, see `components.add_panel_densities`.

    What stands beyond the last component is overwritten by the next panel.
    """
    e, width = np.uint64(room.near.shape[1]), panels.width
    for k in range(ZERO, np.uint64(len(room.log_norms)), FOUR):
        tile, entry = zero_tile(values), k * e
        for row in range(ZERO, np.uint64(room.n_features), TWO):
            # A load of the points serves four components.
            tile = _add_squares(tile, panels.values, at + row * width, room.means, room.scales, room.offsets, entry)
            entry += FOUR + FOUR
        finish_densities(tile, room.constants, k, values, first + k * width)


def _square_norms(panels: Panels, at: Any, k: Any, room: ScalingRoom, norms: Array) -> None:
    """Write the squared distances from one component, see `components.square_norms`."""
    half, row = panels.width // TWO, k % FOUR
    norm = norm2 = spread(0.0, norms)
    for i in range(room.n_features):
        mean, scale, offset = (
            room.means[k // FOUR, i, row],
            room.scales[k // FOUR, i, row],
            room.offsets[k // FOUR, i, row],
        )
        place = at + np.uint64(i) * panels.width
        z = (load(panels.values, place) - mean) * scale + offset
        z2 = (load(panels.values, place + half) - mean) * scale + offset
        norm, norm2 = norm + z * z, norm2 + z2 * z2
    store(norm, norms, ZERO)
    store(norm2, norms, half)


@on_tile
def _add_sums(tile: Any, x: Memory, row: Position, near: Memory, at: Position, r: Memory, p: Position) -> None:
    """Add r z and r z**2, for z a panel of points about the mean, of four features."""
    for column in range(COLUMNS):
        weight = r.load(p + column * r.lanes)
        for feature in range(ROWS):
            z = x.load(row + (COLUMNS * feature + column) * x.lanes) - near.spread(at + feature)
            weighted = z * weight
            tile[feature][0] += weighted
            tile[feature][1] += weighted * z


def _add_moments(panels: Panels, n_panels: Any, r: Array, first: Any, k: Any, room: ScalingRoom) -> None:
    """Add the moments of panels, see `components.add_moments`."""
    e = np.uint64(room.near.shape[1])
    for i in range(ZERO, e, FOUR):
        # Eight running sums in registers: those of z and of z**2 of four features.
        tile, row, p = zero_tile(r), i * panels.width, first
        for _ in range(n_panels):
            tile = _add_sums(tile, panels.values, row, room.near, k * e + i, r, p)
            row, p = row + panels.stride, p + panels.width
        add_totals(tile, room.sums, TWO * (k * e + i))


def _join(strip: Any, n_panels: Any, room: ScalingRoom) -> Any:
    """Add the moments of a strip four features at a time, see `components.join`.

    Those stay in the L1 cache for all components, where the whole strip would come from the L2 cache for each.
    """
    K, e, panels, values = np.uint64(len(room.log_norms)), np.uint64(room.near.shape[1]), strip.panels, strip.values
    width, half = panels.width, panels.width // TWO
    if n_panels * width * e * values.itemsize < WIDE:
        return ZERO
    n_used = count_used(strip, n_panels)
    if n_used < JOINED * (n_panels * width * K):
        return ZERO
    for k in range(K):
        count = spread(0.0, values)
        for q in range(n_panels):
            for part in (ZERO, half):
                at = (q * K + k) * width + part
                r = load(values, at) * load(strip.scale, q * width + part)
                store(r, values, at)
                count += r
        room.counts[k] += sum_entries(count)
    for i in range(ZERO, e, FOUR):
        for k in range(K):
            tile, row, p = zero_tile(values), i * width, k * width
            for _ in range(n_panels):
                tile = _add_sums(tile, panels.values, row, room.near, k * e + i, values, p)
                row, p = row + panels.stride, p + K * width
            add_totals(tile, room.sums, TWO * (k * e + i))
    return n_used


def _collect(room: ScalingRoom, params: Any, stats: Any) -> None:
    """Move the moments in room to stats, about the means."""
    for k in range(len(stats.counts)):
        count = room.counts[k]
        stats.counts[k] += count
        room.counts[k] = 0.0
        for i in range(params.means.shape[1]):
            at = i // 4 * 8 + i % 4
            one, two, rest = room.sums[k, at], room.sums[k, at + 4], params.means[k, i] - room.near[k, i]
            stats.first[k, i] += one - count * rest
            stats.second[k, i] += two - 2.0 * rest * one + count * rest * rest
            room.sums[k, at], room.sums[k, at + 4] = 0.0, 0.0


implement(
    ScalingRoom,
    prepare=_prepare,
    add_panel_densities=_add_densities,
    square_norms=_square_norms,
    add_near_densities=no_near_densities,
    add_moments=_add_moments,
    join=_join,
    collect=_collect,
)
