"""Rows in the order of their likeliest component, and the few components that then can matter for a panel.

Where components lie apart, a panel of rows of one component needs the densities of that one and of its neighbours. The
others are told by a tangent: with delta = x - mean_k, L_j the inverse Cholesky factor of component j and
u = L_j (mean_k - mean_j), the squared distance from j is |L_j delta + u|**2 >= |u|**2 + 2 delta' L_j' u. It takes d
multiplications, where the distance takes d**2 / 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, bare_kernel, part_of_kernel
from lvm._tiles import add_multiples, store_tile, zero_tile
from lvm._vectors import FOUR, ONE, TWO, ZERO, load, spread, store, where_above
from lvm.kernels.panels import Panels, carved, load_rows, padded, panel_width

BLOCK = 4096  # rows sorted at a time: they stay in the L2 or L3 cache


class Guess(NamedTuple):
    """What finds the likeliest component of a row, and bounds the others; of K components in G groups of four.

    Attributes
    ----------
    means, factors : ndarray of shape (K, d) and (K, d, d), float64
        The means and inverse Cholesky factors for which the rest was computed.
    linear, constants : ndarray of shape (G, e, 4) and (4 G,)
        Log densities under the mean covariance, up to what all components share: they are linear in x.
    tangents, heights : ndarray of shape (K, G, e, 4) and (K, 4 G)
        -L_j' u and -|u|**2 / 2 of all pairs k, j.
    scores : ndarray of shape (4 G width,)
        Scratch: values of a panel.
    winners, order : ndarray of shape (BLOCK,), uint64
        The likeliest component of each row of a block, and the rows sorted by it.
    starts : ndarray of shape (K + 1,), uint64
        Where the rows of each component end, after those of the one before.
    """

    means: Array
    factors: Array
    linear: Array
    constants: Array
    tangents: Array
    heights: Array
    scores: Array
    winners: NDArray[np.uint64]
    order: NDArray[np.uint64]
    starts: NDArray[np.uint64]


def empty_guess(K: int, d: int, dtype: np.dtype[Any]) -> Guess:
    """Return room for a guess of K components of d features; for none of them, what stands for rows as they lie."""
    n_groups, e, n = padded(K) // 4, padded(d), BLOCK if K > 0 else 0
    double = {"means": (K, d), "factors": (K, d, d)}
    single = {"linear": (n_groups, e, 4), "constants": 4 * n_groups, "tangents": (K, n_groups, e, 4)}
    single |= {"heights": (K, 4 * n_groups), "scores": 4 * n_groups * panel_width(dtype)}
    whole = {"winners": n, "order": n, "starts": K + 1}
    guess = Guess(**carved((np.float64, double), (dtype, single), (np.uint64, whole)))
    guess.means.fill(np.nan)  # equals no parameters
    return guess


def write_groups(vectors: Array, groups: Array) -> None:
    """Write vectors (..., K, d) to groups (..., G, e, 4): four of them side by side."""
    *axes, K, d = vectors.shape
    *_, n_groups, e, four = groups.shape
    whole = np.zeros((*axes, four * n_groups, e))
    whole[..., :K, :d] = vectors
    groups[:] = whole.reshape(*axes, n_groups, four, e).swapaxes(-1, -2)


def prepare_guess(params: Any, guess: Guess) -> None:
    """Write to guess what finds the likeliest component, and bounds the others, unless it is there."""
    means, covariances, factors = params
    K = len(means)
    if np.array_equal(guess.means, means) and np.array_equal(guess.factors, factors):
        return
    guess.means[:], guess.factors[:] = means, factors
    centre, covariance = means.mean(axis=0), covariances.mean(axis=0)
    try:
        linear = np.linalg.solve(covariance, (means - centre).T).T
    except np.linalg.LinAlgError:  # any metric serves a guess
        linear = (means - centre) / np.diagonal(covariance)
    write_groups(linear, guess.linear)
    guess.constants.fill(-np.inf)
    guess.constants[:K] = -0.5 * np.sum(linear * (means + centre), axis=1)
    near = means.astype(guess.heights.dtype).astype(np.float64)  # as panels see it: they are centred there
    u = (near - means[:, None]) @ factors.swapaxes(1, 2)  # j, k
    write_groups(-(u @ factors).swapaxes(0, 1), guess.tangents)
    guess.heights[:, :K] = -0.5 * np.square(u).sum(axis=2).T


@part_of_kernel
def _find_winners(panels: Panels, q: Any, guess: Guess, e: Any) -> None:
    """Write the component of the highest score of each row of a panel to the beginning of guess.scores."""
    width, half, scores = panels.width, panels.width // TWO, guess.scores
    n_components = np.uint64(len(guess.constants))
    for k in range(ZERO, n_components, FOUR):
        tile = zero_tile(scores)
        for i in range(ZERO, e, FOUR):
            tile = add_multiples(tile, panels.values, q * panels.stride + i * width, guess.linear, k * e + FOUR * i)
        store_tile(tile, scores, k * width)
    best = best2 = spread(-np.inf, scores)
    winner = winner2 = spread(0.0, scores)
    for k in range(n_components):
        score, score2 = (
            load(scores, k * width) + guess.constants[k],
            load(scores, k * width + half) + guess.constants[k],
        )
        winner, winner2 = where_above(score, best, k, winner), where_above(score2, best2, k, winner2)
        best, best2 = where_above(score, best, score, best), where_above(score2, best2, score2, best2)
    store(winner, scores, ZERO)
    store(winner2, scores, half)


@bare_kernel
def sort_by_guess(X: Any, guess: Guess, panels: Panels, rows: NDArray[np.uint64]) -> None:
    """Write the likeliest components of X (n, d) to guess.winners, and the rows sorted by them to guess.order.

    rows (m,) is scratch for the rows of a strip, in panels.
    """
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
                winner = np.uint64(guess.scores[p])
                winners[first + p] = winner
                starts[winner + ONE] += ONE
    for k in range(1, len(starts)):
        starts[k] += starts[k - 1]
    for p in range(n):
        order[starts[winners[p]]] = p
        starts[winners[p]] += ONE
