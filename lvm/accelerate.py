"""Fewer iterations on slow problems: EM with Anderson acceleration, which never lowers the objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lvm._jit import Array
from lvm.em import check_start, ended, find_failure, find_gain, objective_function, prepared_rows, rounding
from lvm.execution import Execution
from lvm.protocol import DegenerateError
from lvm.result import EMResult, Iteration, Status

MEMORY = 5  # EM steps that an extrapolation looks back at
# Directions in which those steps hardly differ are damped: below the root of this share of the largest difference.
DAMPING = 1e-6


def fit_anderson(
    model: Any,
    rows: Any,
    params: Any,
    *,
    tol: float = 1e-7,
    max_iter: int = 1000,
    callback: Callable[[Iteration], bool | None] | None = None,
    n_jobs: int | None = None,
) -> EMResult:
    """Fit a latent variable model by EM with Anderson acceleration.

    Each step combines the last EM steps such that their residual is smallest, in the coordinates of the model's
    `to_vector`. Where that lowers the objective, the step is taken back, its history is forgotten, and EM goes on. It
    ends at a fixed point of EM, where EM is slow often in a tenth of its iterations; the path, and among several
    maxima the end, may differ.

    Parameters
    ----------
    model : LatentModel
        Offers also `to_vector(params, origin)`, coordinates of the parameters, shape (p,), and the inverse
        `from_vector(vector, origin)`, see `lvm.protocol.Family`; `origin` are the starting parameters.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        The data; an array X stands for `Rows(X)`.
    params : NamedTuple
        Starting parameters.
    tol : float
        It has converged when an EM step gains less than this, in nats per unit of row weight. 0 never does.
    max_iter : int
        Largest number of E-steps after the first.
    callback : callable, optional
        Called with an `Iteration` after each step; a true return value stops EM.
    n_jobs : int, optional
        Number of threads; None means every core. The result does not depend on it.

    Returns
    -------
    EMResult
        As from `fit_em`. `n_iter` counts E-steps after the first; the trace repeats its last value where a step was
        taken back.

    Raises
    ------
    TypeError
        If the model lacks a method.
    ValueError
        As `fit_em`.

    References
    ----------
    Henderson & Varadhan (2019), "Damped Anderson acceleration with restarts and monotonicity control for accelerating
    EM and EM-like algorithms", JCGS 28, sections 2 and 3; here with a fixed relative damping.
    """
    rows = prepared_rows(model, rows, tol, max_iter, ("to_vector", "from_vector"))
    objective_of, relative = objective_function(model), rounding(rows)
    origin = params
    history = _History()
    status = Status.MAX_ITER
    with Execution(model, rows, n_jobs) as execution:
        stats = execution.estep_stats(params)
        trace = [objective_of(stats, params)]
        check_start(stats.weight, trace[0])
        gain, is_em_step = np.inf, False
        while True:
            if callback is not None and callback(Iteration(len(trace) - 1, params, trace[-1], gain)):
                status = Status.STOPPED
                break
            if gain < tol:
                if is_em_step:
                    status = Status.CONVERGED
                    break
                history = _History()  # an extrapolation may gain little by chance: an EM step is to confirm it
            if len(trace) > max_iter:
                break
            try:
                after = model.mstep(stats, params)
            except DegenerateError:
                status = Status.DEGENERATE
                break
            here = model.to_vector(params, origin)
            vector = history.extrapolated(here, model.to_vector(after, origin))
            if vector is not None:
                further = _evaluated(model, execution, vector, origin, objective_of)
                if further is not None and further[2] >= trace[-1]:
                    params, stats, objective = further
                    gain, is_em_step = find_gain(trace, objective, stats.weight), False
                    trace.append(objective)
                    continue
                history = _History()
                trace.append(trace[-1])
                if len(trace) > max_iter:
                    break
            after_stats = execution.estep_stats(after)
            objective = objective_of(after_stats, after)
            gain, is_em_step = find_gain(trace, objective, stats.weight), True
            trace.append(objective)
            if failure := find_failure(trace, stats.weight, relative):
                status = failure
                break
            params, stats = after, after_stats
    return ended(params, stats, trace, status)


class _History:
    """The last vectors, and the EM step from each."""

    def __init__(self) -> None:
        self._vectors: list[Array] = []
        self._steps: list[Array] = []

    def extrapolated(self, vector: Array, after: Array) -> Array | None:
        """Add an EM step from a vector to the one after; return where all steps lead, None for the first.

        Coordinates that are infinite, such as the logarithm of a weight that is 0, stay where they are.
        """
        with np.errstate(invalid="ignore"):
            step = np.nan_to_num(after - vector, nan=0.0, posinf=0.0, neginf=0.0)
        self._vectors = [*self._vectors[-MEMORY:], np.where(np.isfinite(vector), vector, 0.0)]
        self._steps = [*self._steps[-MEMORY:], step]
        if len(self._steps) == 1:
            return None
        moves, changes = np.diff(self._vectors, axis=0), np.diff(self._steps, axis=0)
        left, sizes, right = np.linalg.svd(changes, full_matrices=False)
        if not sizes[0] > 0:
            return None
        shares = (left * (sizes / (sizes**2 + DAMPING * sizes[0] ** 2))) @ (right @ step)
        return np.asarray(after - shares @ (moves + changes))


def _evaluated(
    model: Any, execution: Execution, vector: Array, origin: Any, objective_of: Callable[[Any, Any], float]
) -> tuple[Any, Any, float] | None:
    """Return the parameters of a vector, their statistics and objective; None where they are out of bounds."""
    try:
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            params = model.from_vector(vector, origin)
        stats = execution.estep_stats(params)  # may refuse a row, as may any check of parameters: ValueErrors all
        objective = objective_of(stats, params)
    except (ValueError, np.linalg.LinAlgError):
        return None
    return (params, stats, objective) if np.isfinite(objective) else None
