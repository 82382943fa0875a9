"""The generic EM driver: one loop for every latent variable model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lvm import _checks
from lvm.execution import Execution
from lvm.protocol import DegenerateError, Rows, leaves, n_rows
from lvm.result import EMResult, Iteration, Status

# A sum over n rows carries a relative rounding error of a few eps per merge level; far below any
# tolerance of use, far above what blocks of 4,096 rows and 64 chunks accumulate (about 1e-14).
ROUNDING = 1e-12
# In units of eps: what densities in the rows' own arithmetic lose. Only float32 exceeds ROUNDING, with 4e-6.
DENSITY_ROUNDING = 32.0


def fit_em(
    model: Any,
    rows: Any,
    params: Any,
    *,
    tol: float = 1e-7,
    max_iter: int = 1000,
    callback: Callable[[Iteration], bool | None] | None = None,
    n_jobs: int | None = None,
) -> EMResult:
    """Fit a latent variable model by expectation-maximisation.

    Parameters
    ----------
    model : LatentModel
        Offers `estep_stats`, `mstep` and `loglik`, see `lvm.protocol`.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        The data; an array X stands for `Rows(X)`.
    params : NamedTuple
        Starting parameters.
    tol : float
        EM has converged when an iteration gains less than this, in nats per unit of row weight.
        0 runs exactly `max_iter` iterations.
    max_iter : int
        Largest number of M-steps; 0 only evaluates the start.
    callback : callable, optional
        Called with an `Iteration` after each E-step; a true return value stops EM.
    n_jobs : int, optional
        Number of threads; None means every core. The result does not depend on it.

    Returns
    -------
    EMResult
        Parameters, the log-likelihood that belongs to them, the trace and the status.

    Raises
    ------
    TypeError
        If the model lacks a method.
    ValueError
        If `tol` or `max_iter` is negative, there are no rows or none has weight, or a row has density 0 under
        every component at the start.

    References
    ----------
    Dempster, Laird & Rubin (1977), "Maximum likelihood from incomplete data via the EM algorithm",
    JRSS B 39, section 2.
    """
    rows = prepared_rows(model, rows, tol, max_iter)
    objective_of, relative = objective_function(model), rounding(rows)
    trace: list[float] = []
    previous: tuple[Any, Any] = (params, None)  # the last parameters known to be good, and their statistics
    status = Status.MAX_ITER
    with Execution(model, rows, n_jobs) as execution:
        while True:
            stats = execution.estep_stats(params)
            objective = objective_of(stats, params)
            if not trace:
                check_start(stats.weight, objective)
            gain = find_gain(trace, objective, stats.weight)
            trace.append(objective)
            if failure := find_failure(trace, stats.weight, relative):
                status, (params, stats) = failure, previous
                break
            if callback is not None and callback(Iteration(len(trace) - 1, params, objective, gain)):
                status = Status.STOPPED
                break
            if gain < tol:
                status = Status.CONVERGED
                break
            if len(trace) > max_iter:
                break
            previous = (params, stats)
            try:
                params = model.mstep(stats, params)
            except DegenerateError:
                status = Status.DEGENERATE
                break
    return ended(params, stats, trace, status)


def ended(params: Any, stats: Any, trace: list[float], status: Status) -> EMResult:
    """Return the result: the last good parameters, their statistics, and all that was evaluated."""
    n_iter = len(trace) - (2 if status in (Status.DECREASED, Status.NON_FINITE) else 1)
    return EMResult(params, float(stats.loglik), np.array(trace), n_iter, status)


def check_start(weight: float, objective: float) -> None:
    """Refuse rows without weight, and starting parameters without a finite objective."""
    if not weight > 0:
        raise ValueError(f"the rows have the total weight {weight}; at least one needs a positive weight.")
    if not math.isfinite(objective):
        raise ValueError(f"the starting parameters have objective {objective}; choose others or scale the data.")


def prepared_rows(model: Any, rows: Any, tol: float, max_iter: int, more_methods: tuple[str, ...] = ()) -> Any:
    """Return the rows as the model's kernels see them; refuse what cannot be fitted."""
    methods = ("estep_stats", "mstep", "loglik", *more_methods)
    missing = [name for name in methods if not callable(getattr(model, name, None))]
    if missing:
        raise TypeError(
            f"{type(model).__name__} must implement {', '.join(methods[:-1])} and {methods[-1]}; missing "
            f"{', '.join(missing)}. A family becomes a model as Mixture(family)."
        )
    _checks.real("tol", tol, 0.0)
    _checks.integer("max_iter", max_iter, 0)
    if not (isinstance(rows, tuple) and hasattr(rows, "_fields")):
        rows = Rows(rows if hasattr(rows, "shape") else np.asarray(rows))
    if n_rows(rows) == 0:
        raise ValueError("there are no rows to fit; give at least one.")
    return model.canonical(rows) if hasattr(model, "canonical") else rows


def objective_function(model: Any) -> Callable[[Any, Any], float]:
    """Return what EM climbs, as a function of statistics and the parameters that they belong to."""
    if hasattr(model, "objective"):
        return lambda stats, params: float(model.objective(stats, params))
    if hasattr(model, "log_prior"):
        return lambda stats, params: float(stats.loglik + model.log_prior(params))
    return lambda stats, params: float(stats.loglik)


def find_gain(trace: list[float], objective: float, weight: float) -> float:
    """Return the gain per unit of weight; a fall within rounding counts as none."""
    if not trace:
        return math.inf
    return max(0.0, objective - trace[-1]) / weight


def rounding(rows: Any) -> float:
    """Return the relative rounding error of an objective, from the precision of the rows."""
    precisions = [leaf.dtype for leaf in leaves(rows) if getattr(getattr(leaf, "dtype", None), "kind", "") == "f"]
    return max([ROUNDING, *(DENSITY_ROUNDING * float(np.finfo(dtype).eps) for dtype in precisions)])


def find_failure(trace: list[float], weight: float, relative: float) -> Status | None:
    """Return what is wrong with the last objective of the trace, None where nothing is."""
    if not math.isfinite(trace[-1]):
        return Status.NON_FINITE
    if len(trace) > 1 and trace[-2] - trace[-1] > relative * max(weight, abs(trace[-2])):
        return Status.DECREASED
    return None
