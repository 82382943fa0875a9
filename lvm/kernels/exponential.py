"""An exp that the compiler can vectorise."""

from __future__ import annotations

import numpy as np

from lvm._jit import Array, exact_kernel

LOG2_E = 1.4426950408889634
LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
# Adding 1.5 * 2**52 leaves the rounded integer in the low bits of a float64.
ROUNDER = 6755399441055744.0
UNDERFLOW = -708.0


@exact_kernel
def exp_inplace(values: Array, scratch: Array) -> None:
    """Replace values (m,) <= 709 by their exp, 0 below -708; scratch (m,). Relative error below 3e-16.

    Cody-Waite reduction to |r| <= ln(2)/2 and a Taylor polynomial of degree 13 (remainder 4e-18).
    libm's exp would be called once per value: it costs about eight times as much.
    """
    exponents = scratch.view(np.int64)
    for p in range(values.shape[0]):
        x = max(values[p], UNDERFLOW)
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
        scratch[p] = shifted
        values[p] = y if values[p] > UNDERFLOW else 0.0
    for p in range(values.shape[0]):
        exponents[p] = (exponents[p] + 1023) << 52
    for p in range(values.shape[0]):
        values[p] *= scratch[p]
