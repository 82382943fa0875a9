"""The weights of Student t distributions, and the degrees of freedom that raise their expected log-likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._jit import Array, exact_helper, helper, kernel
from lvm._vectors import where_above
from lvm.kernels.elementary import exp, log
from lvm.kernels.gamma_functions import digamma_rise, log_gamma_rise

# Degrees of freedom are searched between these. With fewer than LEAST, rows would spread over tens of orders of
# magnitude; with more than MOST, hardly any data tell the distribution from a Gaussian, and the search would not end.
LEAST, MOST = 0.1, 1000.0
FIRST_STEP = 1e-3  # of the logarithm, in the search for an interval that holds a maximum
HALVINGS = 60
LARGEST = float(np.finfo(np.float64).max)
ROUNDING = 1e-12  # of the value per unit of weight


@exact_helper
def log_one_plus(u: Any) -> Any:
    """Return log(1 + u) for u >= 0, a number or a vector, also where the sum rounds: as `log_complement`."""
    v = 1.0 + u
    return where_above(v, LARGEST, np.inf, log(v) - ((v - 1.0) - u) / v)


@helper
def _value_and_slope(terms: Array, d: int, nu: float) -> tuple[float, float]:
    """Return the lower bound of `best_degrees_of_freedom` at nu, up to a constant, and its derivative by log nu."""
    half = 0.5 * (nu + d)
    constant = log_gamma_rise(0.5 * d, 0.5 * nu)
    change = 0.5 * (nu * digamma_rise(0.5 * d, 0.5 * nu) - d)
    value = slope = 0.0
    for k in range(terms.shape[0]):
        count, weight, logarithms, distance, old = terms[k]
        step = log(nu / old)
        a = 1.0 - weight / count
        scale = exp(a * step) / count
        mean = logarithms / count - 1.0 + scale * (weight + distance / nu) - a * step
        mean_change = scale * (a * weight + (a - 1.0) * distance / nu) - a
        value += count * (constant - half * mean)
        slope += count * (change - 0.5 * nu * mean - half * mean_change)
    return value, slope


@kernel
def best_degrees_of_freedom(terms: Array, d: int, least: float, most: float) -> float:
    """Return the nu in [least, most], uphill from the old one, that maximises the bound of all components together.

    terms (m, 5) holds per component: N, the sum of r; the sums of w = r / (1 + delta / nu), of r log(1 + delta / nu),
    and of w delta', for distances delta under the old parameters and delta' under the new location and scatter; and
    the old nu, the same in all. With s = new nu / old nu, for any a,

    sum r log(1 + delta' / new nu) <= sum r log(1 + delta / nu) - N + s**a sum w (1 + delta' / new nu) - a N log s,

    the tangents of log(s**a (1 + delta' / new nu)). The gap is N / 2 times the mean of (a - q)**2 (log s)**2 to
    second order, for q = (delta / nu) / (1 + delta / nu), hence least for a the mean of q.
    """
    old = terms[0, 4]
    start, slope = _value_and_slope(terms, d, old)
    direction = 1.0 if slope > 0.0 else -1.0
    bound = log(max(most, old)) if slope > 0.0 else log(min(least, old))
    near = log(old)
    far, step, reached = near, FIRST_STEP, start
    bracketed = False
    halvings = 0
    # The first maximum uphill: steps that double until the slope turns, then halves of the last one.
    while halvings < HALVINGS and near != bound:
        if bracketed:
            trial = 0.5 * (near + far)
            halvings += 1
        else:
            trial = near + direction * step
            trial = min(trial, bound) if direction > 0.0 else max(trial, bound)
            step *= 2.0
        value, slope = _value_and_slope(terms, d, exp(trial))
        if slope * direction > 0.0:
            near, reached = trial, value
        else:
            far, bracketed = trial, True
    best = exp(near)
    if near == bound:
        best = max(most, old) if direction > 0.0 else min(least, old)
    if reached < start - ROUNDING * np.sum(terms[:, 0]):  # beyond a valley narrower than the steps
        return float(old)
    return float(best)
