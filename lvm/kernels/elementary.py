"""An exp and a log that the compiler can vectorise: libm's would be called once per value."""

from __future__ import annotations

import math

import numpy as np

from lvm._jit import bits_to_float, exact_helper, float_to_bits

LOG2_E = 1.4426950408889634
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
# Adding 1.5 * 2**52 leaves the rounded integer in the low bits of a float64.
ROUNDER = 6755399441055744.0
UNDERFLOW = -708.0
# An integer below 2**52 in the low bits of 2**52 is the float64 2**52 + integer.
TWO_52 = 4503599627370496.0
TWO_52_BITS = 0x4330000000000000
MANTISSA = 0x000FFFFFFFFFFFFF
ONE_BITS = 0x3FF0000000000000
SMALLEST_NORMAL = 2.0**-1022
TWO_54 = 2.0**54
LN_TWO_54 = 54 * math.log(2)


@exact_helper
def exp(value: float) -> float:
    """Return exp of a value <= 709, 0 below -708; relative error below 3e-16.

    Cody-Waite reduction to |r| <= ln(2)/2 and a Taylor polynomial of degree 13 (remainder 4e-18).
    """
    x = max(value, UNDERFLOW)
    shifted = x * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    y = 1.6059043836821613e-10
    y = y * r + 2.08767569878681e-09
    y = y * r + 2.505210838544172e-08
    y = y * r + 2.755731922398589e-07
    y = y * r + 2.7557319223985893e-06
    y = y * r + 2.48015873015873e-05
    y = y * r + 0.0001984126984126984
    y = y * r + 0.001388888888888889
    y = y * r + 0.008333333333333333
    y = y * r + 0.041666666666666664
    y = y * r + 0.16666666666666666
    y = y * r + 0.5
    y = y * r + 1.0
    y = y * r + 1.0
    power = bits_to_float((float_to_bits(shifted) + 1023) << 52)
    return y * power if value > UNDERFLOW else 0.0


@exact_helper
def log(value: float) -> float:
    """Return log of a positive normal number; relative error below 4e-16.

    log(m 2**e) = e ln 2 + log(1 + f) with sqrt(1/2) < m = 1 + f <= sqrt(2). From s = f / (2 + f), z = s**2 and
    2 artanh(s) = 2 s (1 + z/3 + z**2/5 + ...) follows log(1 + f) = f - s (f - 2 z (1/3 + z/5 + ...)): the large term
    is exact. z < 0.0295, so that the series ends after z**10 (remainder 1e-18).
    """
    bits = float_to_bits(value)
    e = bits_to_float((bits >> 52) | TWO_52_BITS) - (TWO_52 + 1023.0)
    m = bits_to_float((bits & MANTISSA) | ONE_BITS)
    upper = m > 1.4142135623730951
    m = 0.5 * m if upper else m
    e = e + 1.0 if upper else e
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = 2.0 / 21.0
    series = series * z + 2.0 / 19.0
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
