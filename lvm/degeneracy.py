"""What becomes of a component that collapses or dies, and how it is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import canonical
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import DEAD_SHARE, DegenerateError, Rows, map_fields
from lvm.result import EMResult, Status

POLICIES = ("restart", "raise", "drop", "floor")
MAX_RESTARTS = 10  # fresh starts where all degenerate, before the fit is given up
# Floors of variances that are tried one after the other, as shares of the smallest variance of a column: the first is
# enough for a component of few points, the last for columns that are collinear and of scales that differ by 1e5.
FLOORS = tuple(10.0**power for power in range(-6, 7, 2))


def reason(model: Mixture[Any], rows: Rows, params: MixtureParams) -> DegenerateError:
    """Return why EM could not go on from these parameters: its result does not keep the M-step's reason.

    Parameters
    ----------
    model : Mixture
        The model whose M-step failed.
    rows : Rows
        The rows it was fitted to.
    params : MixtureParams
        The last parameters before that.
    """
    try:
        model.mstep(model.estep_stats(rows, params), params)
    except DegenerateError as error:
        return error
    return DegenerateError(Status.DEGENERATE.value)


def floored(model: Mixture[Any], rows: Rows) -> Iterator[Mixture[Any]]:
    """Yield the model with bounds that keep its components from collapsing, each stronger than the one before.

    Parameters
    ----------
    model : Mixture
        A model whose family may offer `floored`, see `lvm.protocol.Family`; where it does not, nothing is yielded.
    rows : Rows
        Canonical rows, whose variances are the units of the bounds.
    """
    weight = canonical(np.ones(len(rows.X))) if rows.weight is None else rows.weight
    for share in FLOORS if hasattr(model.family, "floored") else ():
        family = model.family.floored(rows.X, weight, share)
        if family is None:
            return
        yield Mixture(family, model.weights_prior, model.equal_weights, model.held_weights)


def without(params: MixtureParams, component: int) -> MixtureParams:
    """Return the parameters without one component; the weights of the others grow in proportion.

    Parameters
    ----------
    params : MixtureParams
        Of two components or more.
    component : int
        The one to leave out.
    """
    K = len(params.weights)

    def others(array: Any) -> Any:
        return np.ascontiguousarray(np.delete(array, component, axis=0)) if len(array) == K else array

    weights = np.delete(params.weights, component)
    total = weights.sum()
    return MixtureParams(
        weights / total if total > 0 else np.full(K - 1, 1 / (K - 1)), map_fields(others, params.components)
    )


def confined(model: Mixture[Any], params: MixtureParams) -> MixtureParams:
    """Return the parameters within the bounds of a floored model, and as near as can be to those given.

    Parameters
    ----------
    model : Mixture
        The model.
    params : MixtureParams
        Of a model without the bounds.
    """
    family = model.family
    return params._replace(components=family.confined(params.components)) if hasattr(family, "confined") else params


def dropped(
    model: Mixture[Any], rows: Rows, result: EMResult, run: Callable[[Mixture[Any], MixtureParams], EMResult]
) -> tuple[EMResult, list[str]]:
    """Return the fit that EM reaches when it goes on without each component that collapses or has died.

    Rows that no other component can take, as one row far from all others, make the next one collapse, and so on until
    one is left. Where a component collapses that has taken in rows of one that was dropped, EM goes back to that one
    and on with floors from there, if the family has any.

    Parameters
    ----------
    model : Mixture
        The model.
    rows : Rows
        The rows it is fitted to.
    result : EMResult
        Where EM ended.
    run : callable
        `run(model, params)` runs EM of a model from there.

    Returns
    -------
    result : EMResult
        Its trace begins after the last component was dropped.
    notes : list of str
        What was dropped or floored and why, in order.

    Raises
    ------
    DegenerateError
        If the last component collapses, or what collapses is no single component.
    """
    notes: list[str] = []
    collapses: list[_Collapse] = []
    floors = floored(model, rows)
    while True:
        K = len(result.params.weights)
        if result.status is Status.DEGENERATE:
            error = reason(model, rows, result.params)
            if K == 1 or error.component is None:
                raise error
            component, why = error.component, str(error)
            own = model.responsibilities(rows._replace(weight=None), result.params)[:, component] > 0.5
            earlier = [index for index, collapse in enumerate(collapses) if (own & collapse.rows).any()]
            bounded = next(floors, None) if earlier else None
            if bounded is not None:
                model, before = bounded, collapses[earlier[0]]
                del collapses[earlier[0] :], notes[before.n_notes :]
                notes.append(
                    f"component {before.component} of {len(before.result.params.weights)} was kept, and the fit went "
                    f"on with {model.family!r}: without it others collapse on its rows"
                )
                result = run(model, confined(model, before.result.params))
                continue
            collapses.append(_Collapse(own, component, result, len(notes)))
        else:
            dead = np.flatnonzero(result.params.weights <= DEAD_SHARE)
            if not len(dead):
                return result, notes
            component, why = int(dead[0]), "no row belongs to it"
        notes.append(f"component {component} of {K} was dropped: {why}")
        result = run(model, without(result.params, component))


class _Collapse(NamedTuple):
    """The rows (n,) of a component that collapsed, its number, where EM was, and how many notes there were."""

    rows: NDArray[np.bool_]
    component: int
    result: EMResult
    n_notes: int
