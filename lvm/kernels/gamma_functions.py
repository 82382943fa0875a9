"""Gamma functions that the compiler can vectorise, and factorials from a table.

All rest on Stirling's series at z >= 8, to which smaller arguments are shifted by eight. With u = x (x + 7) both
Gamma(x + 8) / Gamma(x) = u (u + 6) (u + 10) (u + 12) and its logarithmic derivative are rational functions without
cancellation, hence one division and no loop.

References
----------
NIST Digital Library of Mathematical Functions, 5.5.1 and 5.5.2 (recurrences), 5.11.1 and 5.11.2 (series).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from lvm._jit import exact_helper, helper
from lvm.kernels.elementary import log

SHIFT = 8.0
LOG_FACTORIAL = gammaln(np.arange(1.0, 1025.0))  # log m! for m < 1024; larger ones are computed
LARGEST = float(len(LOG_FACTORIAL) - 1)


@helper
def log_factorial(x: float) -> float:
    """Return log x! (log Gamma(x + 1) for fractional x)."""
    whole = int(min(x, LARGEST))
    return LOG_FACTORIAL[whole] if x == whole else math.lgamma(x + 1.0)


@exact_helper
def _shift_product(x: float) -> float:
    """Return x (x + 1) ... (x + 7)."""
    u = x * (x + 7.0)
    return (u * (u + 6.0)) * ((u + 10.0) * (u + 12.0))


@exact_helper
def _shift_sum(x: float) -> float:
    """Return 1 / x + 1 / (x + 1) + ... + 1 / (x + 7)."""
    u = x * (x + 7.0)
    low, high = u * (u + 6.0), (u + 10.0) * (u + 12.0)
    return (2.0 * x + 7.0) * ((2.0 * u + 6.0) * high + (2.0 * u + 22.0) * low) / (low * high)


@exact_helper
def _log_gamma_rest(z: float) -> float:
    """Return log Gamma(z) - (z - 1/2) log z + z - log(2 pi) / 2 for z >= 8: sum_k B_2k / (2k (2k - 1) z**(2k - 1))."""
    w = 1.0 / z
    y = w * w
    series = -3617.0 / 122400.0
    series = series * y + 1.0 / 156.0
    series = series * y - 691.0 / 360360.0
    series = series * y + 1.0 / 1188.0
    series = series * y - 1.0 / 1680.0
    series = series * y + 1.0 / 1260.0
    series = series * y - 1.0 / 360.0
    series = series * y + 1.0 / 12.0
    return series * w


@exact_helper
def _digamma_rest(z: float) -> float:
    """Return log z - 1 / (2 z) - psi(z) for z >= 8: sum_k B_2k / (2k z**2k)."""
    y = 1.0 / (z * z)
    series = 43867.0 / 14364.0
    series = series * y - 3617.0 / 8160.0
    series = series * y + 1.0 / 12.0
    series = series * y - 691.0 / 32760.0
    series = series * y + 1.0 / 132.0
    series = series * y - 1.0 / 240.0
    series = series * y + 1.0 / 252.0
    series = series * y - 1.0 / 120.0
    series = series * y + 1.0 / 12.0
    return series * y


@exact_helper
def _log_quotient(x: float, z: float) -> float:
    """Return log(1 + x / z) for x >= 0, z > 0, also where the sum rounds: as `log_complement`."""
    u = x / z
    v = 1.0 + u
    quotient: float = log(v) - ((v - 1.0) - u) / v
    return quotient


@exact_helper
def log_gamma_rise(x: float, r: float) -> float:
    """Return log Gamma(r + x) - log Gamma(r) - x log r, for x >= 0 and r > 0 up to 1e36.

    For whole x it is the sum of log(1 + m / r) over m < x. What would cancel for large r is left out beforehand: the
    error stays below 1e-14 (1 + x) plus 1e-14 of the value. 0 where x is.
    """
    is_small = r < SHIFT
    z = r + SHIFT if is_small else r
    w = z + x
    rise = (w - 0.5) * _log_quotient(x, z) - x + (_log_gamma_rest(w) - _log_gamma_rest(z))
    if is_small:
        rise += x * _log_quotient(SHIFT, r) - log(_shift_product(r + x) / _shift_product(r))
    return rise if x > 0.0 else 0.0


@exact_helper
def digamma_rise(x: float, r: float) -> float:
    """Return psi(r + x) - psi(r) for x = 0 and x >= 1, r > 0 up to 1e36; relative error below 1e-13.

    For whole x it is the sum of 1 / (r + m) over m < x.
    """
    is_small = r < SHIFT
    z = r + SHIFT if is_small else r
    w = z + x
    rise = _log_quotient(x, z) + 0.5 * x / (z * w) + (_digamma_rest(z) - _digamma_rest(w))
    if is_small:
        rise += _shift_sum(r) - _shift_sum(r + x)
    return rise if x > 0.0 else 0.0
