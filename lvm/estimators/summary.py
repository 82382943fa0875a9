"""The table of a mixture's estimates with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from lvm._jit import Array


class Estimate(NamedTuple):
    """A line of a summary.

    Attributes
    ----------
    component : int or None
        Component; None where all share the parameter.
    parameter, feature : str
        Names of the parameter, and of the feature or category that it belongs to, empty where to none.
    value, error : float
        Estimate and standard error.
    """

    component: int | None
    parameter: str
    feature: str
    value: float
    error: float


@dataclass(frozen=True, repr=False)
class Summary:
    """Estimates with standard errors and intervals, which print as a table.

    Attributes
    ----------
    title : str
        What was fitted.
    estimates : list of Estimate
        The lines.
    level : float
        Coverage of the intervals.
    kind : str
        How standard errors were found.
    weight : float
        Total weight of the rows.
    loglik : float
        Their log-likelihood.
    n_parameters : int
        Number of free parameters.
    """

    title: str
    estimates: list[Estimate]
    level: float
    kind: str
    weight: float
    loglik: float
    n_parameters: int

    def intervals(self) -> Array:
        """Return the normal confidence intervals of all lines, shape (lines, 2); NaN where there is no error."""
        values, errors = (np.array([getattr(each, name) for each in self.estimates]) for name in ("value", "error"))
        z = float(ndtri(0.5 + self.level / 2))
        return np.column_stack([values - z * errors, values + z * errors])

    def to_frame(self) -> Any:
        """Return the lines as a pandas data frame: component, parameter, feature, estimate, std_error, low, high."""
        import pandas as pd

        frame = pd.DataFrame(
            [(*each, *interval) for each, interval in zip(self.estimates, self.intervals().tolist(), strict=True)],
            columns=["component", "parameter", "feature", "estimate", "std_error", "low", "high"],
        )
        return frame.astype({"component": "Int64"})

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        ends = f"{50 * (1 - self.level):.4g}%", f"{50 * (1 + self.level):.4g}%"
        lines: list[tuple[str, ...]] = [("component", "parameter", "feature", "estimate", "std. error", *ends)]
        before: tuple[Any, ...] = ()
        breaks = [0]
        for each, interval in zip(self.estimates, self.intervals().tolist(), strict=True):
            place = ("all" if each.component is None else str(each.component), each.parameter)
            if before and place[0] != before[0]:
                breaks.append(len(lines) - 1)
            shown = [word if before[: i + 1] != place[: i + 1] else "" for i, word in enumerate(place)]
            lines.append((*shown, each.feature, *_numbers(each.value, each.error, *interval)))
            before = place
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(
                word.ljust(w) if i < 3 else word.rjust(w) for i, (word, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rule = "-" * len(texts[0])
        body = [
            text for i, line in enumerate(texts) for text in ([line.rstrip(), rule] if i in breaks else [line.rstrip()])
        ]
        criteria = -2 * self.loglik + np.array([2.0, np.log(self.weight)]) * self.n_parameters
        head = f"log-likelihood {self.loglik:.4f}, {self.n_parameters} parameters, {self.weight:.10g} rows"
        foot = f"AIC {criteria[0]:.4f}, BIC {criteria[1]:.4f}; standard errors: {self.kind}"
        return "\n".join([self.title, head, foot, "", *body, rule])


def _numbers(value: float, error: float, low: float, high: float) -> tuple[str, str, str, str]:
    """Return a line's numbers with as many decimals as show three digits of the error."""
    size = error if error > 0 else abs(value)
    decimals = 4 if not size > 0 else int(np.clip(2 - np.floor(np.log10(size)), 0, 12))
    if abs(value) >= 1e9 or decimals == 12:
        return f"{value:.6g}", f"{error:.3g}", f"{low:.6g}", f"{high:.6g}"
    texts = [f"{number:.{decimals}f}" for number in (value, error, low, high)]
    if error == 0:  # not estimated
        texts[1:] = ["-", "-", "-"]
    return texts[0], texts[1], texts[2], texts[3]
