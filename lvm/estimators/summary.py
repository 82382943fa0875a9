"""The table of a model's estimates with their standard errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri

from lvm import _checks
from lvm._jit import Array

# Of each scale on which an interval is symmetric: the function, its inverse and its derivative.
SCALES: dict[str, tuple[Callable[[float], float], Callable[[float], float], Callable[[float], float]]] = {
    "identity": (float, float, lambda value: 1.0),
    "log": (np.log, np.exp, lambda value: 1 / value),
    "logit": (logit, expit, lambda value: 1 / (value * (1 - value))),
    "atanh": (np.arctanh, np.tanh, lambda value: 1 / (1 - value**2)),
}


class Estimate(NamedTuple):
    """A line of a summary.

    Attributes
    ----------
    component : int or None
        Component or state; None where all share the parameter.
    parameter, feature : str
        Names of the parameter, and of the feature or category that it belongs to, empty where to none.
    value, error : float
        Estimate and standard error.
    scale : {"identity", "log", "logit", "atanh"}
        Scale on which the interval is symmetric, so that it keeps within the parameter's range.
    """

    component: int | None
    parameter: str
    feature: str
    value: float
    error: float
    scale: str = "identity"

    def interval(self, z: float) -> tuple[float, float]:
        """Return the ends of the interval of z standard errors, by the delta method on the estimate's scale."""
        onto, back, slope = SCALES[self.scale]
        value = np.float64(self.value)  # which divides by 0
        with np.errstate(all="ignore"):
            middle, width = onto(value), z * self.error * slope(value)
            ends = float(back(middle - width)), float(back(middle + width))
        if not np.isfinite(middle) or self.error == 0:  # at the end of the range, or held
            return self.value - z * self.error, self.value + z * self.error
        return ends


def estimates_of(
    name: str, values: Array, errors: Array, axes: Sequence[Sequence[str] | None], scale: str = "identity"
) -> list[Estimate]:
    """Return the lines of one array.

    Parameters
    ----------
    name : str
        Name of the parameter.
    values, errors : ndarray
        Estimates and standard errors, of the same shape.
    axes : sequence of (sequence of str) or None
        Names along each axis; None where the index is the component.
    scale : {"identity", "log", "logit", "atanh"}
        Scale of the intervals.
    """
    lines = []
    for index in np.ndindex(np.shape(values)):
        component = next((i for i, names in zip(index, axes, strict=True) if names is None), None)
        words = [names[i] for i, names in zip(index, axes, strict=True) if names is not None]
        value, error = float(np.asarray(values)[index]), float(np.asarray(errors)[index])
        lines.append(Estimate(component, name, " x ".join(words), value, error, scale))
    return lines


def by_component(lines: list[Estimate]) -> list[Estimate]:
    """Return the lines sorted by component, those that all share at the end."""
    return sorted(lines, key=lambda each: (each.component is None, each.component or 0))


def check_level(level: float) -> None:
    """Refuse a coverage that is not within (0, 1)."""
    if not 0 < _checks.real("level", level, 0.0) < 1:
        raise _checks.ParameterError(f"level must lie within (0, 1), got {level!r}.")


@dataclass(frozen=True, repr=False)
class Summary:
    """Estimates with standard errors and intervals, which print as a table.

    Intervals are Wald's, estimate -+ z * standard error, on a scale on which the parameter has no bounds and is nearer
    to normal: logarithms of what is positive (variances, rates, scales), log odds of probabilities, Fisher's z of
    correlations and directions, and the parameter itself otherwise. So they never leave its range.

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
    groups : str
        What the lines are grouped by, the first column: "component", "state"; empty where by nothing.
    objective : str
        What `loglik` is.
    """

    title: str
    estimates: list[Estimate]
    level: float
    kind: str
    weight: float
    loglik: float
    n_parameters: int
    groups: str = "component"
    objective: str = "log-likelihood"

    def intervals(self) -> Array:
        """Return the confidence intervals of all lines, shape (lines, 2); NaN where there is no error.

        References
        ----------
        Meeker & Escobar (1998), "Statistical methods for reliability data", chapters 7 and 8: normal intervals of
        transformed parameters.
        """
        z = float(ndtri(0.5 + self.level / 2))
        return np.array([each.interval(z) for each in self.estimates]).reshape(-1, 2)

    def to_frame(self) -> Any:
        """Return the lines as a pandas data frame: component, parameter, feature, estimate, std_error, low, high."""
        import pandas as pd

        frame = pd.DataFrame(
            [(*each[:5], *interval) for each, interval in zip(self.estimates, self.intervals().tolist(), strict=True)],
            columns=["component", "parameter", "feature", "estimate", "std_error", "low", "high"],
        )
        return frame.astype({"component": "Int64"})

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        ends = f"{50 * (1 - self.level):.4g}%", f"{50 * (1 + self.level):.4g}%"
        lines: list[tuple[str, ...]] = [(self.groups, "parameter", "feature", "estimate", "std. error", *ends)]
        before: tuple[Any, ...] = ()
        breaks = [0]
        for each, interval in zip(self.estimates, self.intervals().tolist(), strict=True):
            place = ("all" if each.component is None else str(each.component), each.parameter)
            if before and place[0] != before[0]:
                breaks.append(len(lines) - 1)
            shown = [word if before[: i + 1] != place[: i + 1] else "" for i, word in enumerate(place)]
            lines.append((*shown, each.feature, *_numbers(each.value, each.error, *interval)))
            before = place
        if not self.groups:
            lines = [line[1:] for line in lines]
        n_words = len(lines[0]) - 4
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(
                word.ljust(w) if i < n_words else word.rjust(w)
                for i, (word, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rule = "-" * len(texts[0])
        body = [
            text for i, line in enumerate(texts) for text in ([line.rstrip(), rule] if i in breaks else [line.rstrip()])
        ]
        criteria = -2 * self.loglik + np.array([2.0, np.log(self.weight)]) * self.n_parameters
        head = f"{self.objective} {self.loglik:.4f}, {self.n_parameters} parameters, {self.weight:.10g} rows"
        foot = f"standard errors: {self.kind}"
        if self.objective == "log-likelihood":
            foot = f"AIC {criteria[0]:.4f}, BIC {criteria[1]:.4f}; {foot}"
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
