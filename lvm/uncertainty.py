"""How far estimates would move with other data: standard errors by the observed information.

One implementation serves every family with `to_vector` and `from_vector`. Its coordinates v may be redundant, as
probabilities that sum to 1 are, and its densities are differentiated numerically. With l_ik = log(pi_k p(x_i | k)),
u_ik its gradient and r_ik the responsibilities, the score of a row is s_i = sum_k r_ik u_ik (Fisher's identity), and
the Hessian of the log-likelihood is sum_ik r_ik (l_ik'' + u_ik u_ik') - sum_i s_i s_i' (Louis). A component's density
depends on its own coordinates, so those of all components are moved at once.

References
----------
Louis (1982), "Finding the observed information matrix when using the EM algorithm", JRSS B 44, equation 3.2.
McLachlan & Peel (2000), "Finite Mixture Models", sections 2.15 and 2.16. White (1982), "Maximum likelihood estimation
of misspecified models", Econometrica 50, theorem 3.2: the sandwich.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space

from lvm import _checks
from lvm._jit import Array
from lvm.coordinates import Coordinates, Values, named_values
from lvm.models.mixture import Mixture, MixtureParams, MixtureStats
from lvm.protocol import Rows

KINDS = ("sandwich", "empirical", "observed")
CELLS = 1 << 21  # numbers of a block of rows that are held at a time: 16 MB
# Eigenvalues below this share of the largest, of an information scaled to a diagonal of 1, are those of directions
# that the data do not determine: differences are exact to some 1e-7.
SINGULAR = 1e-6
FREE = 1e-5  # singular values of the Jacobian below this share of the largest are those of redundant directions
MOVED = 1e-3  # share of a parameter's movement along such directions from which on it is undetermined
HALF_AN_ERROR = 0.25  # squared distance from the maximum, in standard errors, that is worth a warning
SHOWN = 4  # parameters named in a warning


class Moments(NamedTuple):
    """Sums over the rows, in coordinates.

    Attributes
    ----------
    score : ndarray of shape (P,)
        Sum of the rows' scores, times their weights.
    outer : ndarray of shape (P, P)
        Sum of s_i s_i', times the weights: the empirical information.
    hessian : ndarray of shape (P, P), optional
        Second derivatives of the log-likelihood.
    """

    score: Array
    outer: Array
    hessian: Array | None


def standard_errors(
    model: Mixture[Any],
    rows: Rows,
    params: MixtureParams,
    kind: str = "sandwich",
    values: Callable[[Any], Mapping[str, Array]] | None = None,
) -> dict[str, Array]:
    """Return the standard errors of a mixture's parameters at its maximum.

    Where there is a prior, its curvature is added to the information of the data. What the likelihood of Gaussians is
    penalised by (`log_penalty`) is a part of each row's density here, as it is in EM.

    Parameters
    ----------
    model : Mixture
        The mixture; its family offers `parameters`, `to_vector` and `from_vector`.
    rows : Rows
        The data, weighted by frequencies: a row of weight 2 counts as two.
    params : MixtureParams
        The estimates.
    kind : {"sandwich", "empirical", "observed"}
        With J the sum of s_i s_i' and H the negative Hessian of the log-likelihood: H^-1 J H^-1, which is right even
        where the components are not of this family; J^-1, the cheapest; or H^-1.
    values : callable, optional
        Returns the arrays of a family's parameters by name, first axis the component; by default those in `parameters`.

    Returns
    -------
    dict of str to ndarray
        Standard errors of "weights" and each parameter, in the shapes of their values. 0 for what is held or follows
        from nothing estimated; NaN at the end of a parameter's range, and for what the data do not determine.

    Raises
    ------
    TypeError
        If the family lacks a method.
    ValueError
        If the coordinates have not as many free directions as the mixture has parameters.
    """
    _checks.choice("kind", kind, list(KINDS))
    at = Coordinates(
        model, model.canonical(rows), params, values or (lambda components: named_values(model, components))
    )
    found = moments(at, hessian=kind != "empirical")
    free = free_directions(at)
    gradient, curvature = _prior(at)
    outer = free.T @ found.outer @ free
    information = outer if found.hessian is None else -free.T @ found.hessian @ free
    inverse, lost = _inverse(information - free.T @ curvature @ free)
    covariance = inverse @ outer @ inverse if kind == "sandwich" else inverse
    slope = free.T @ (found.score + gradient)
    if slope @ _inverse(outer)[0] @ slope > HALF_AN_ERROR:
        warnings.warn(
            "the parameters are not at a maximum of the likelihood of these rows: fit to them, with a lower tol or "
            "more iterations; standard errors hold at the maximum.",
            RuntimeWarning,
            stacklevel=4,
        )
    jacobian = at.jacobian @ free
    errors = np.sqrt(np.maximum(np.einsum("tp,pq,tq->t", jacobian, covariance, jacobian, optimize=True), 0.0))
    norm = np.linalg.norm(jacobian, axis=1)
    unknown = (np.linalg.norm(jacobian @ lost, axis=1) > MOVED * norm) & (norm > 0)
    at_end = at.at_the_end(norm)
    errors[at.held | (norm == 0)] = 0.0
    errors[(unknown | at_end) & ~at.held] = np.nan
    for what, which in (
        ("at the end of their range", at_end & ~at.held),
        ("not determined by the data", unknown & ~at_end & ~at.held),
    ):
        if which.any():
            message = f"standard errors are NaN for parameters that are {what}: {_named(at.values, which)}."
            warnings.warn(message, RuntimeWarning, stacklevel=4)
    return at.values.split(errors)


def _named(values: Values, which: NDArray[np.bool_]) -> str:
    """Return the first few parameters of a mask, as "rates[0, 1]"."""
    names = [
        f"{name}[{', '.join(map(str, i))}]" for name, mask in values.split(which).items() for i in np.argwhere(mask)
    ]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def free_directions(at: Coordinates) -> Array:
    """Return a basis (P, p) of the directions in which the parameters can move, those held apart."""
    scaled = at.jacobian * at.steps
    largest = np.abs(scaled).max(axis=1, initial=0.0)
    scaled = scaled / np.where(largest > 0, largest, 1.0)[:, None]
    basis = np.eye(len(at.steps))
    if (at.held & (largest > 0)).any():
        basis = null_space(scaled[at.held], rcond=FREE)
    _, sizes, directions = np.linalg.svd(scaled @ basis, full_matrices=False)
    rank = int(np.sum(sizes > FREE * sizes.max(initial=0.0)))
    expected = int(at.model.n_parameters(at.params))
    if hasattr(at.model.family, "box"):
        expected -= 1  # the volume of noise, which is counted, has no coordinate
    if rank < expected and not at.has_ends:  # more are not determined by the data, as rotations of factors
        raise ValueError(
            f"the coordinates of {type(at.model.family).__name__} have {rank} free directions, but the mixture has "
            f"{expected} free parameters; standard errors need to_vector and from_vector that move all of them."
        )
    return np.asarray(at.steps[:, None] * (basis @ directions[:rank].T))


def _inverse(information: Array) -> tuple[Array, Array]:
    """Return the inverse of an information matrix over the directions that it determines, and the others (p, u)."""
    diagonal = np.diagonal(information)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    sizes, axes = np.linalg.eigh((information + information.T) / (2 * np.outer(scale, scale)))
    kept = sizes > SINGULAR * sizes.max(initial=0.0)
    axes = axes / scale[:, None]
    inverse: Array = (axes[:, kept] / sizes[kept]) @ axes[:, kept].T
    return inverse, axes[:, ~kept] / np.linalg.norm(axes[:, ~kept], axis=0)


# ----- sums over the rows -------------------------------------------------------------------------------------


def moments(at: Coordinates, hessian: bool = True) -> Moments:
    """Return the sums of scores, of their outer products and, if asked for, of second derivatives.

    Parameters
    ----------
    at : Coordinates
        Coordinates about the estimates.
    hessian : bool
        Whether to sum second derivatives: as many evaluations as pairs of a component's coordinates.
    """
    p, n_slots, K = len(at.steps), len(at.slots), at.n_components
    score, outer, complete = np.zeros(p), np.zeros((p, p)), np.zeros((p, p))
    for block in _blocks(at, (n_slots + 1) * K + p):
        gradients = np.stack([at.differences(slot, block.X) for slot in at.slots]) if n_slots else np.empty((0, K, 0))
        scores = np.zeros((p, len(block.weight)))
        for k in range(K):
            own = np.flatnonzero(at.owner[:, k] >= 0)
            rows = np.concatenate([np.arange(at.n_weights), at.owner[own, k]])
            r = block.resp[k]
            u = np.concatenate([np.repeat(at.weight_gradients[:, k, None], len(r), axis=1), gradients[own, k]])
            u[:, r == 0] = 0.0  # where the row is impossible, its density has no gradient
            scores[rows] += u * r
            if hessian:
                complete[np.ix_(rows, rows)] += (u * (r * block.weight)) @ u.T
        score += scores @ block.weight
        outer += (scores * block.weight) @ scores.T
    return Moments(score, outer, complete + _curvature(at) - outer if hessian else None)


class _Block(NamedTuple):
    """Some rows, their log densities and responsibilities (K, m), and weights (m,)."""

    X: Any
    density: Array
    resp: Array
    weight: Array


def _blocks(at: Coordinates, width: int) -> Iterator[_Block]:
    """Yield blocks of rows of positive weight, of which a number of numbers each is held."""
    n, most = len(at.rows.X), max(64, CELLS // width)
    for start in range(0, n, most):
        part = slice(start, min(start + most, n))
        weight = np.ones(part.stop - start) if at.rows.weight is None else np.array(at.rows.weight[part])
        density = at.density(at.rows.X[part], at.components)
        resp = at.responsibilities(density, part)
        resp[:, weight == 0] = 0.0  # such rows may be impossible
        yield _Block(at.rows.X[part], density, resp, weight)


def _curvature(at: Coordinates) -> Array:
    """Return sum_ik w_i r_ik l_ik'', the second derivatives of the expected complete log-likelihood.

    By differences f of it, component by component: with steps a and b, l_ab a b is half of f(a + b) - f(a) - f(b)
    - f(-a) - f(-b) + f(-a - b).
    """
    p, K, n_slots = len(at.steps), at.n_components, len(at.slots)
    out = np.zeros((p, p))
    total = 0.0
    for block in _blocks(at, 3 * K):
        weighted = block.resp * block.weight
        total += float(weighted[at.free_weights].sum())
        possible = block.resp > 0

        def rise(move: Array, block: _Block = block, weighted: Array = weighted, possible: Any = possible) -> Array:
            """Return what a move adds to each component's part, shape (K,)."""
            density = at.density(block.X, at.moved(move))
            change = np.subtract(density, block.density, out=np.zeros_like(density), where=possible)
            return np.asarray(np.einsum("ki,ki->k", weighted, change))

        once = [rise(slot) + rise(-slot) for slot in at.slots]
        for a in range(n_slots):
            _put(at, out, a, a, once[a])
            for b in range(a):
                both = rise(at.slots[a] + at.slots[b]) + rise(-at.slots[a] - at.slots[b])
                _put(at, out, a, b, (both - once[a] - once[b]) / 2)
    q = at.free_shares
    w = slice(0, at.n_weights)
    out[w, w] = -total * (np.diag(q) - np.outer(q, q))
    return out


def _put(at: Coordinates, out: Array, a: int, b: int, differences: Array) -> None:
    """Add second differences (K,) of two slots to the pairs of coordinates that move each component."""
    for k, difference in enumerate(differences):
        i, j = at.owner[a, k], at.owner[b, k]
        if i >= 0 and j >= 0:
            value = difference / (at.steps[i] * at.steps[j])
            out[i, j] += value
            if a != b:
                out[j, i] += value


def _prior(at: Coordinates) -> tuple[Array, Array]:
    """Return the gradient (P,) and the Hessian (P, P) of the log prior."""
    p = len(at.steps)
    gradient, hessian = np.zeros(p), np.zeros((p, p))
    nothing = MixtureStats(0.0, 0.0, 0.0, np.zeros(at.n_components), None)

    def log_prior(move: Array) -> float:
        return at.model.objective(nothing, MixtureParams(at.weights(move), at.moved(move)))

    unit = np.diag(at.steps * 10)  # wider: one number has to bear the second differences
    with np.errstate(all="ignore"):  # a component of weight 0 has a log prior of -inf, and no coordinates
        start = log_prior(np.zeros(p))
        ahead, behind = (np.array([log_prior(sign * move) for move in unit]) - start for sign in (1, -1))
        if not (np.any(ahead) or np.any(behind)) or not np.isfinite(start):
            return gradient, hessian
        gradient[:] = (ahead - behind) / 2
        once = ahead + behind
        for a in range(p):
            hessian[a, a] = once[a]
            for b in range(a):
                both = log_prior(unit[a] + unit[b]) + log_prior(-unit[a] - unit[b]) - 2 * start
                hessian[a, b] = hessian[b, a] = (both - once[a] - once[b]) / 2
    width = np.diagonal(unit)
    return gradient / width, hessian / np.outer(width, width)
