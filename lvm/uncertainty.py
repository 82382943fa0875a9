"""How far estimates would move with other data: standard errors by the observed information.

One implementation serves every model with `loglik`, `to_vector`, `from_vector` and `n_parameters`. Coordinates v may be
redundant, as probabilities that sum to 1 and rotations of factors are: the directions in which what the user knows can
move are found from its derivatives in v. The score of a row is the gradient of its log-likelihood, by Fisher's identity
the posterior mean of that of the complete data; `lvm.coordinates` takes differences of the former, and for mixtures
`lvm.mixture_coordinates` the posterior mean, which is faster.

References
----------
Louis (1982), "Finding the observed information matrix when using the EM algorithm", JRSS B 44, equation 3.2.
McLachlan & Peel (2000), "Finite Mixture Models", sections 2.15 and 2.16. White (1982), "Maximum likelihood estimation
of misspecified models", Econometrica 50, theorem 3.2: the sandwich.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space

from lvm import _checks
from lvm._jit import Array
from lvm.coordinates import Coordinates, Values, fields_by_name, second_differences
from lvm.mixture_coordinates import MixtureCoordinates, named_values
from lvm.models.mixture import Mixture
from lvm.result import warn

KINDS = ("sandwich", "empirical", "observed")
# Eigenvalues below this share of the largest, of an information scaled to a diagonal of 1, are those of directions
# that the data do not determine: differences are exact to some 1e-7.
SINGULAR = 1e-6
FREE = 1e-5  # singular values of the Jacobian below this share of the largest are those of redundant directions
MOVED = 1e-3  # share of a parameter's movement along such directions from which on it is undetermined
HALF_AN_ERROR = 0.25  # squared distance from the maximum, in standard errors, that is worth a warning
SHOWN = 4  # parameters named in a warning


def standard_errors(
    model: Any,
    rows: Any,
    params: Any,
    kind: str = "sandwich",
    values: Callable[[Any], Mapping[str, Array]] | None = None,
    held: Mapping[str, NDArray[np.bool_]] | None = None,
    gradient: Callable[[Any], Array] | None = None,
) -> dict[str, Array]:
    """Return the standard errors of a model's parameters at its maximum.

    Where there is a prior, its curvature is added to the information of the data. What the likelihood of a mixture of
    Gaussians is penalised by (`log_penalty`) is a part of each row's density here, as it is in EM.

    Parameters
    ----------
    model : LatentModel
        The model, with `to_vector`, `from_vector` and `n_parameters`; or a `Mixture`, whose family offers `parameters`,
        `to_vector` and `from_vector`.
    rows : NamedTuple
        The data, such as `Rows`, weighted by frequencies: a row of weight 2 counts as two. Rows are independent of each
        other: a group or a sequence is one.
    params : NamedTuple
        The estimates.
    kind : {"sandwich", "empirical", "observed"}
        With J the sum of s_i s_i' and H the negative Hessian of the log-likelihood: H^-1 J H^-1, which is right even
        where the data are not of this model; J^-1, the cheapest; or H^-1.
    values : callable, optional
        Returns arrays by name from parameters: functions of them whose errors are wanted, all parameters by default. Of
        a mixture they are functions of the components' parameters, with the component as their first axis, and the
        weights come with them.
    held : mapping of str to ndarray of bool, optional
        Which of these values are held, as masks in their shapes. Mixtures know what they hold.
    gradient : callable, optional
        Returns the derivatives of the log-likelihood of all rows in the coordinates of `to_vector`, from parameters;
        second derivatives are then faster, see `lvm.gradients`. Not for mixtures.

    Returns
    -------
    dict of str to ndarray
        Standard errors of "weights" of a mixture and each value, in their shapes. 0 for what is held or follows from
        nothing estimated; NaN at the end of a parameter's range, and for what the data do not determine.

    Raises
    ------
    TypeError
        If the model, or its family, lacks a method.
    ValueError
        If the coordinates have not as many free directions as the model has parameters, or if there are fewer rows than
        parameters for the squared scores of one that is no mixture.
    """
    _checks.choice("kind", kind, list(KINDS))
    ready = model.canonical(rows) if hasattr(model, "canonical") else rows
    at: Coordinates
    if isinstance(model, Mixture):
        at = MixtureCoordinates(model, ready, params, values or (lambda components: named_values(model, components)))
    else:
        at = Coordinates(model, ready, params, values or fields_by_name, held, gradient)
    free = free_directions(at)
    at.check(kind, free.shape[1])
    found = at.moments(hessian=kind != "empirical")
    of_prior, curvature = prior_derivatives(at)
    outer = free.T @ found.outer @ free
    information = outer if found.hessian is None else -free.T @ found.hessian @ free
    inverse, lost = _inverse(information - free.T @ curvature @ free)
    covariance = inverse @ outer @ inverse if kind == "sandwich" else inverse
    slope = free.T @ (found.score + of_prior)
    metric = inverse if kind == "observed" else _inverse(outer)[0]
    if slope @ metric @ slope > HALF_AN_ERROR:
        warn(
            "the parameters are not at a maximum of the likelihood of these rows: fit to them, with a lower tol or "
            "more iterations; standard errors hold at the maximum.",
            RuntimeWarning,
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
            warn(message, RuntimeWarning)
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
    if rank < at.n_expected and not at.is_partial:  # more are not determined by the data, as rotations of factors
        raise ValueError(
            f"the coordinates of {at.name} have {rank} free directions, but there are {at.n_expected} free parameters; "
            "standard errors need to_vector and from_vector that move all of them."
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


def prior_derivatives(at: Coordinates) -> tuple[Array, Array]:
    """Return the gradient (P,) and the Hessian (P, P) of the log prior."""
    p, wide = len(at.steps), at.steps * 10  # wider: one number has to bear the second differences
    with np.errstate(all="ignore"):  # a component of weight 0 has a log prior of -inf, and no coordinates
        start = at.log_prior(np.zeros(p))
        ahead, behind = (np.array([at.log_prior(sign * move) for move in np.diag(wide)]) - start for sign in (1, -1))
        if not (np.any(ahead) or np.any(behind)) or not np.isfinite(start):
            return np.zeros(p), np.zeros((p, p))
        return (ahead - behind) / (2 * wide), second_differences(lambda move: at.log_prior(move) - start, wide)
