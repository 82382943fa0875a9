"""What the tables of estimates of models that are no mixtures have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array
from lvm.estimators.outcome import total_loglik
from lvm.estimators.summary import Estimate, Summary, by_component, estimates_of
from lvm.uncertainty import standard_errors


class Fitted(NamedTuple):
    """A model at its estimates, and what a user knows of them; see `lvm.uncertainty.standard_errors`.

    Attributes
    ----------
    model, rows, params
        The model, canonical rows and the estimates.
    values : callable
        Returns the fitted attributes by name, without the underscore, from parameters.
    held : mapping of str to ndarray of bool, optional
        Which of these are held.
    gradient : callable, optional
        Returns the derivatives of the log-likelihood of all rows, see `lvm.gradients`.
    """

    model: Any
    rows: Any
    params: Any
    values: Callable[[Any], Mapping[str, Array]]
    held: Mapping[str, NDArray[np.bool_]] | None = None
    gradient: Callable[[Any], Array] | None = None

    def errors(self, kind: str) -> dict[str, Array]:
        """Return the standard errors of the values; to be called by what users call, which warnings name."""
        return standard_errors(self.model, self.rows, self.params, kind, self.values, self.held, self.gradient)

    def total(self) -> tuple[float, float]:
        """Return the log-likelihood of all rows, and their weight."""
        return total_loglik(self.model.loglik(self.rows, self.params), self.rows.weight)

    def n_parameters(self) -> int:
        """Return the number of free parameters."""
        return int(self.model.n_parameters(self.params))


class Column(NamedTuple):
    """How an array is shown: names along its axes, None where the index is the component, and the intervals' scale."""

    axes: tuple[Sequence[str] | None, ...]
    scale: str = "identity"


def in_shape(errors: Mapping[str, Array]) -> dict[str, Any]:
    """Return errors as arrays, and those of single numbers as numbers."""
    return {name: array if np.ndim(array) else float(array) for name, array in errors.items()}


def lines_of(estimator: Any, errors: Mapping[str, Any], columns: Mapping[str, Column]) -> list[Estimate]:
    """Return the lines of the fitted attributes that `columns` name, component by component."""
    return by_component(
        [
            line
            for name, (axes, scale) in columns.items()
            for line in estimates_of(name, getattr(estimator, f"{name}_"), errors[name], axes, scale)
        ]
    )


def summarise(
    title: str, fitted: Fitted, lines: list[Estimate], kind: str, level: float, groups: str = "component"
) -> Summary:
    """Return the table of a model's estimates.

    Parameters
    ----------
    title : str
        What was fitted.
    fitted : Fitted
        The model.
    lines : list of Estimate
        Its estimates.
    kind : str
        How standard errors were found.
    level : float
        Coverage of the intervals.
    groups : str
        What the lines are grouped by; empty where by nothing.
    """
    loglik, weight = fitted.total()
    return Summary(title, lines, level, kind, weight, loglik, fitted.n_parameters(), groups)
