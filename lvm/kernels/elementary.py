"""An exp and a log that the compiler can vectorise: libm's would be called once per value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lvm._jit import choose_by_type, exact_helper
from lvm._vectors import biased_exponent_of, larger, mantissa_of, power_of_two, where_above

LOG2_E = 1.4426950408889634
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
# Adding 1.5 * 2**52 leaves the rounded integer in the low bits of a float64.
ROUNDER = 6755399441055744.0
UNDERFLOW = -708.0
SQRT_TWO = 1.4142135623730951
SMALLEST_NORMAL = 2.0**-1022
TWO_54 = 2.0**54
LN_TWO_54 = 54 * math.log(2)
# The same for float32; the high part of ln 2 has 9 bits, so that its products with integers are exact.
LOG2_E_SINGLE, LN2_HIGH_SINGLE, LN2_LOW_SINGLE = map(np.float32, (LOG2_E, 0.693359375, -2.12194440e-4))
ROUNDER_SINGLE, UNDERFLOW_SINGLE, SQRT_TWO_SINGLE = map(np.float32, (1.5 * 2**23, -87.0, SQRT_TWO))
HALF_SINGLE, ONE_SINGLE, TWO_SINGLE, BIAS_SINGLE = map(np.float32, (0.5, 1.0, 2.0, 127.0))
POLYNOMIAL_SINGLE = tuple(map(np.float32, (0.49999993, 0.16666521, 0.041668388, 0.0083687169, 0.0013814599)))
SERIES_SINGLE = tuple(np.float32(2 / n) for n in (3, 5, 7, 9))


@exact_helper
def _exp(value: Any) -> Any:
    """Return exp of a number from -708 to 709, or of a vector of them; relative error below 3e-16.

    Cody-Waite reduction to |r| <= ln(2)/2, and 1 + r + r**2 q(r) with the q of degree 9 whose largest relative error,
    4e-18, is least (Remez). Even and odd powers by themselves: two short chains of operations instead of a long one.
    """
    shifted = value * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (value - n * LN2_HIGH) - n * LN2_LOW
    s = r * r
    even = s * 2.7630248379211444e-07 + 2.480149309890655e-05
    odd = s * 2.5000061602835667e-08 + 2.7557586373840164e-06
    even = s * even + 0.001388888894363011
    odd = s * odd + 0.00019841269506578688
    even = s * even + 0.041666666666530159
    odd = s * odd + 0.0083333333334944617
    even = s * even + 0.50000000000000106
    odd = s * odd + 0.16666666666666413
    return (1.0 + (r + s * (even + r * odd))) * power_of_two(shifted)


@exact_helper
def _exp_single(value: Any) -> Any:
    """Return exp of a float32 from -87 to 88, or of a vector of them; relative error below 2e-7. As `_exp`."""
    shifted = value * LOG2_E_SINGLE + ROUNDER_SINGLE
    n = shifted - ROUNDER_SINGLE
    r = (value - n * LN2_HIGH_SINGLE) - n * LN2_LOW_SINGLE
    s = r * r
    even = s * POLYNOMIAL_SINGLE[4] + POLYNOMIAL_SINGLE[2]
    odd = s * POLYNOMIAL_SINGLE[3] + POLYNOMIAL_SINGLE[1]
    even = s * even + POLYNOMIAL_SINGLE[0]
    return (ONE_SINGLE + (r + s * (even + r * odd))) * power_of_two(shifted)


@exact_helper
def exp(value: float) -> float:
    """Return exp of a value <= 709, 0 below -708; relative error below 3e-16."""
    x = max(value, UNDERFLOW)
    y = _exp(x)
    return y if value > UNDERFLOW else 0.0


def exp_above(value: Any, limit: Any) -> Any:
    """Return exp of a vector <= 0 in its own precision, 0 up to a limit; for kernels."""
    raise NotImplementedError


def _exp_above(value: Any, limit: Any) -> Any:
    return where_above(value, larger(limit, UNDERFLOW), _exp(value), 0.0)


def _exp_above_single(value: Any, limit: Any) -> Any:
    return where_above(value, larger(limit, UNDERFLOW_SINGLE), _exp_single(value), 0.0)


choose_by_type(exp_above, "value", {"float64": _exp_above, "float32": _exp_above_single})


@exact_helper
def log(value: Any) -> Any:
    """Return log of a positive normal number, or of a vector of them; relative error below 4e-16.

    log(m 2**e) = e ln 2 + log(1 + f) with sqrt(1/2) < m = 1 + f <= sqrt(2). From s = f / (2 + f), z = s**2 and
    2 artanh(s) = 2 s (1 + z/3 + z**2/5 + ...) follows log(1 + f) = f - s (f - 2 z (1/3 + z/5 + ...)): the large term
    is exact. z < 0.0295, so that the series ends after z**10 (remainder 1e-18).
    """
    m, e = mantissa_of(value), biased_exponent_of(value) - 1023.0
    f = where_above(m, SQRT_TWO, 0.5 * m, m) - 1.0
    e = where_above(m, SQRT_TWO, e + 1.0, e)
    s = f / (2.0 + f)
    z = s * s
    series = z * (2.0 / 21.0) + 2.0 / 19.0
    series = series * z + 2.0 / 17.0
    series = series * z + 2.0 / 15.0
    series = series * z + 2.0 / 13.0
    series = series * z + 2.0 / 11.0
    series = series * z + 2.0 / 9.0
    series = series * z + 2.0 / 7.0
    series = series * z + 2.0 / 5.0
    series = series * z + 2.0 / 3.0
    return e * LN2_HIGH + (f - (s * (f - z * series) - e * LN2_LOW))


@exact_helper
def log_single(value: Any) -> Any:
    """Return log of a positive normal float32, or of a vector of them; relative error below 3e-7. As `log`."""
    m, e = mantissa_of(value), biased_exponent_of(value) - BIAS_SINGLE
    f = where_above(m, SQRT_TWO_SINGLE, HALF_SINGLE * m, m) - ONE_SINGLE
    e = where_above(m, SQRT_TWO_SINGLE, e + ONE_SINGLE, e)
    s = f / (TWO_SINGLE + f)
    z = s * s
    series = z * SERIES_SINGLE[3] + SERIES_SINGLE[2]
    series = series * z + SERIES_SINGLE[1]
    series = series * z + SERIES_SINGLE[0]
    return e * LN2_HIGH_SINGLE + (f - (s * (f - z * series) - e * LN2_LOW_SINGLE))


def logarithm(value: Any) -> Any:
    """Return log of a number or a vector in its own precision; for kernels."""
    raise NotImplementedError


def _logarithm(value: Any) -> Any:
    return log(value)


def _logarithm_single(value: Any) -> Any:
    return log_single(value)


choose_by_type(logarithm, "value", {"float64": _logarithm, "float32": _logarithm_single})


@exact_helper
def log_probability(p: float) -> float:
    """Return log p for p in [0, 1], also where p is 0 or too small to be normal."""
    is_normal = p >= SMALLEST_NORMAL
    logarithm = log(p if is_normal else max(p * TWO_54, SMALLEST_NORMAL)) - (0.0 if is_normal else LN_TWO_54)
    return logarithm if p > 0.0 else -np.inf


@exact_helper
def log_complement(p: float) -> float:
    """Return log(1 - p) for p in [0, 1]: of the rounded 1 - p, and a correction by what it lost."""
    q = 1.0 - p
    return log(q) - ((q - 1.0) + p) / q if q > 0.0 else -np.inf
