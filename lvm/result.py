"""What a fit returns, and the ways in which it can end."""

from __future__ import annotations

import inspect
import warnings
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Status(StrEnum):
    """How EM ended; the value is the message for the user."""

    CONVERGED = "converged: the gain per unit of row weight fell below tol"
    MAX_ITER = "stopped at max_iter before the gain fell below tol; raise max_iter or tol"
    DECREASED = "the objective fell by more than rounding can explain; the parameters before the fall are returned"
    NON_FINITE = "the objective became infinite or NaN; the parameters before that are returned; scale the data"
    DEGENERATE = "a component collapsed: the likelihood has no maximum there; the parameters before that are returned"
    STOPPED = "stopped by the callback"


class Iteration(NamedTuple):
    """What a callback sees after each E-step.

    Attributes
    ----------
    n_iter : int
        Number of M-steps so far; 0 at the starting parameters.
    params : NamedTuple
        Parameters whose objective is given; not to be modified.
    objective : float
        Log-likelihood of `params`, penalised where the model has a prior or penalty.
    gain : float
        Rise of the objective over the last iteration, per unit of row weight; inf at the start.
    """

    n_iter: int
    params: Any
    objective: float
    gain: float


class EMResult(NamedTuple):
    """Outcome of `fit_em`.

    Attributes
    ----------
    params : NamedTuple
        Fitted parameters.
    loglik : float
        Log-likelihood of the data under `params`, in nats; not penalised.
    objective_trace : ndarray of shape (n_iter + 1,)
        What EM climbs, at the start and after each iteration: the log-likelihood, plus the log prior
        or penalty where the model has one. One value longer where the last step was taken back.
    n_iter : int
        Number of M-steps that led to `params`.
    status : Status
        How EM ended.
    """

    params: Any
    loglik: float
    objective_trace: NDArray[np.float64]
    n_iter: int
    status: Status

    @property
    def converged(self) -> bool:
        """Whether EM ended because the gain fell below the tolerance."""
        return self.status is Status.CONVERGED


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn of what a user asked for, pointing at the line outside the library that asked."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "lvm":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
