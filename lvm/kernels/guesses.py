"""Rows in the order of their likeliest component, and the few components that then can matter for a panel.

Where components lie apart, a panel of rows of one component k needs the densities of that one and of its neighbours.
With delta = x - mean_k, y its whitened form under k, L_j the inverse Cholesky factor of component j and
u = L_j (mean_k - mean_j), the squared distance from j is

|L_j delta + u|**2 >= |u|**2 + 2 delta' t,    t = L_j' u,

a tangent. It takes d multiplications, where the distance takes d**2 / 2. And as |delta' t| <= |y| tau, where
tau**2 = t' covariance_k t, there is a |y|, called the reach, below which j is out of the question without any.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._handles import Handle, values_of
from lvm._jit import Array, bare_helper, bare_kernel, part_of_kernel
from lvm._masks import all_above, any_above
from lvm._tiles import COLUMNS, Memory, Position, add_multiples, fill_rows, store_tile, unrolled, zero_tile
from lvm._vectors import FOUR, ONE, TWO, ZERO, load, spread, store
from lvm.kernels.components import add_density, precision_times, variance_along
from lvm.kernels.panels import Panels, carved, load_rows, padded, panel_width

BLOCK = 1 << 14  # rows sorted at a time: memory for their order


class Guess(NamedTuple):
    """What finds the likeliest component of a row, and bounds the others; of K components in G groups of four.

    Attributes
    ----------
    linear, constants : ndarray of shape (G, e, 4) and (4 G,)
        Log densities under the mean covariance, up to what all components share: they are linear in x.
    numbers : ndarray of shape (4 G,)
        0, 1, 2, ...
    tangents, heights : ndarray of shape (K, G, e, 4) and (K, 4 G)
        -t, and the logarithm of weight times density at |L_j delta|**2 = |u|**2, of all pairs k, j.
    reaches : ndarray of shape (K, G)
        |y|**2 below which no component of a group matters to rows of component k; negative where one always does, inf
        where the group has none but k itself, or none with a weight.
    best, bounds : ndarray of shape (2 width,) and (4 width,)
        Scratch: the highest scores of a panel and whose they are; bounds of a group.
    step, slope : ndarray of shape (d,), float64
        Scratch: mean_k - mean_j, and t.
    winners, order : ndarray of shape (BLOCK,), uint64
        The likeliest component of each row of a block, and the rows sorted by it.
    starts : ndarray of shape (K + 1,), uint64
        Where the rows of each component end, after those of the one before.
    """

    linear: Array
    constants: Array
    numbers: Array
    tangents: Array
    heights: Array
    reaches: Array
    best: Array
    bounds: Array
    step: Array
    slope: Array
    winners: NDArray[np.uint64]
    order: NDArray[np.uint64]
    starts: NDArray[np.uint64]


def empty_guess(K: int, d: int, dtype: np.dtype[Any]) -> Guess:
    """Return room for a guess of K components of d features; for none of them, what stands for rows as they lie."""
    n_groups, e, width, n = padded(K) // 4, padded(d), panel_width(dtype), BLOCK if K > 0 else 0
    scratch = {"best": 2 * width, "bounds": 4 * width}
    single = {"linear": (n_groups, e, 4), "constants": 4 * n_groups, "numbers": 4 * n_groups}
    single |= {"tangents": (K, n_groups, e, 4), "heights": (K, 4 * n_groups), "reaches": (K, n_groups)}
    double, whole = {"step": d, "slope": d}, {"winners": n, "order": n, "starts": K + 1}
    guess = Guess(**carved((dtype, scratch), (dtype, single), (np.float64, double), (np.uint64, whole)))
    guess.numbers[:] = np.arange(4 * n_groups)
    return guess


def write_scores(params: Any, guess: Guess) -> None:
    """Write to guess the scores that find the likeliest component: those of linear discriminant analysis."""
    means, covariance = params.means, params.covariances.mean(axis=0)
    (K, d), centre = means.shape, means.mean(axis=0)
    linear = (means - centre) / np.diagonal(covariance)
    with suppress(np.linalg.LinAlgError):  # any metric serves a guess
        linear = np.linalg.solve(covariance, (means - centre).T).T
    for k in range(K):
        guess.linear[k // 4, :d, k % 4] = linear[k]
    guess.constants.fill(-np.inf)
    guess.constants[:K] = -0.5 * np.sum(linear * (means + centre), axis=1)


@bare_kernel
def write_bounds(space: Handle[Any], params: Any, limit: float) -> None:
    """Write to guess what bounds densities, from what the room holds for an E-step that takes exp(limit) for 0."""
    _, room, guess = values_of(space)
    K, d = params.means.shape
    for k in range(K):
        for group in range(guess.reaches.shape[1]):
            nearest = np.inf
            for j in range(4 * group, 4 * group + 4):
                guess.heights[k, j] = -np.inf
                if j >= K or j == k:
                    continue
                for i in range(d):
                    guess.step[i] = room.near[k, i] - params.means[j, i]  # panels are centred at near
                square = precision_times(room, params, j, guess.step, guess.slope)
                for i in range(d):
                    guess.tangents[k, group, i, j % 4] = -guess.slope[i]
                height = room.constants[j] - 0.5 * square
                guess.heights[k, j] = height
                # Where |y|**2 + 2 tau |y| < gap, the bound is below the value of k by more than -limit.
                gap = 2.0 * (room.constants[k] + limit - height)
                variance = variance_along(room, params, k, guess.slope)
                reach = gap / (np.sqrt(variance + gap) + np.sqrt(variance))
                if not gap > 0.0:
                    nearest = -1.0  # no row is out of its reach, not even one at the mean of k
                elif reach >= 0.0:  # not NaN, as it is where j weighs nothing
                    nearest = min(nearest, reach * reach)
            guess.reaches[k, group] = nearest


@unrolled
def _keep_best(tile: Any, numbers: Memory, k: Position, best: Memory) -> None:
    """Compare the scores of four components with the best so far of each row; with it stands whose it is."""
    for column in range(COLUMNS):
        at, whose = column * best.lanes, (COLUMNS + column) * best.lanes
        highest, winner = best.load(at), best.load(whose)
        for i, row in enumerate(tile):
            score = row[column]
            winner = score.where_above(highest, numbers.spread(k + i), winner)
            highest = score.where_above(highest, score, highest)
        best.store(highest, at)
        best.store(winner, whose)


@part_of_kernel
def _find_winners(panels: Panels, q: Any, guess: Guess, e: Any) -> None:
    """Write the component of the highest score of each row of a panel to guess.best, from width on."""
    width, half, best = panels.width, panels.width // TWO, guess.best
    store(spread(-np.inf, best), best, ZERO)
    store(spread(-np.inf, best), best, half)
    store(spread(0.0, best), best, width)
    store(spread(0.0, best), best, width + half)
    for k in range(ZERO, np.uint64(len(guess.constants)), FOUR):
        tile = fill_rows(zero_tile(best), guess.constants, k)
        for i in range(ZERO, e, FOUR):
            tile = add_multiples(tile, panels.values, q * panels.stride + i * width, guess.linear, k * e + FOUR * i)
        _keep_best(tile, guess.numbers, k, best)


@bare_kernel
def sort_by_guess(X: Any, space: Handle[Any]) -> None:
    """Write the likeliest components of X (n, d) to the guess, and the rows sorted by them."""
    strip, _, guess = values_of(space)
    panels, rows = strip.panels, strip.rows
    n, m, width = np.uint64(X.shape[0]), np.uint64(len(rows)), panels.width
    e, starts, winners, order = np.uint64(guess.linear.shape[1]), guess.starts, guess.winners, guess.order
    for k in range(len(starts)):
        starts[k] = ZERO
    for start in range(ZERO, n, m):
        n_rows = min(m, n - start)
        for p in range(m):
            rows[p] = start + p
        for q in range(load_rows(X, rows, n_rows, panels)):
            _find_winners(panels, q, guess, e)
            first = start + q * width
            for p in range(min(width, n - first)):
                winner = np.uint64(guess.best[width + p])
                winners[first + p] = winner
                starts[winner + ONE] += ONE
    for k in range(1, len(starts)):
        starts[k] += starts[k - 1]
    for p in range(n):
        order[starts[winners[p]]] = p
        starts[winners[p]] += ONE


@bare_helper
def pays(share: float, d: int) -> bool:
    """Return whether bounds save time where they leave this share of the densities of d features.

    In cycles per pair of row and component, as measured.
    """
    density, bound = d * (d + 6) / 16 + 3, 0.125 * d + 2.8
    return bool(share * density + bound < density)


def add_near_densities(strip: Any, q: Any, room: Any, guess: Guess, k: Any, limit: Any) -> Any:
    """Write the values of component k and those near it, see `components.add_near_densities`."""
    K, e, n_groups = np.uint64(len(room.log_norms)), np.uint64(room.near.shape[1]), np.uint64(guess.reaches.shape[1])
    panels, values, near, place = strip.panels, strip.values, strip.near, q * K
    at, first = q * panels.stride, place * panels.width
    half, own, n_near = panels.width // TWO, first + k * panels.width, ONE
    add_density(panels, at, room, k, values, first)  # which leaves the panel centred there
    near[place] = k
    norm, norm2 = load(room.norms, ZERO), load(room.norms, half)
    floor, floor2 = load(values, own) + limit, load(values, own + half) + limit
    for group in range(n_groups):
        if not (any_above(norm, guess.reaches[k, group]) or any_above(norm2, guess.reaches[k, group])):
            continue
        of_pairs = (k * n_groups + group) * FOUR
        tile, entry = fill_rows(zero_tile(values), guess.heights, of_pairs), of_pairs * e
        for i in range(ZERO, e, FOUR):
            tile = add_multiples(tile, room.centred, i * panels.width, guess.tangents, entry + FOUR * i)
        store_tile(tile, guess.bounds, ZERO)
        row = ZERO
        for j in range(FOUR * group, min(FOUR * group + FOUR, K)):
            # Written in any case, and counted where it is to stay: no branch that would be mispredicted.
            near[place + n_near] = j
            is_below = all_above(floor, load(guess.bounds, row)) & all_above(floor2, load(guess.bounds, row + half))
            n_near += np.uint64((not is_below) & (j != k))
            row += panels.width
    for a in range(ONE, n_near):
        add_density(panels, at, room, near[place + a], values, first)
    return n_near
