"""Modified Bessel functions as directional densities need them: I_v without overflow, ratios without cancellation.

For the order v = d/2 - 1 of directions in d dimensions, at any concentration x >= 0:

- H(x) = Gamma(v + 1) (2 / x)**v I_v(x), which is 1 at x = 0: the mean of exp(x cos) over the sphere;
- A(x) = I_{v+1}(x) / I_v(x), the length of the mean direction, and 1 - A(x), which loses no digits where A is near 1.

At orders of ORDER or more, all three follow from the uniform expansions in 1 / v. Lower orders are reached by the
recurrence I_v = I_{v+2} + 2 (v + 1) / x I_{v+1}, which is stable downwards.

References
----------
NIST Digital Library of Mathematical Functions, 10.29.1 (recurrence), 10.41.3 and 10.41.5 (uniform expansions).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from lvm._jit import Array, exact_helper, kernel

ORDER = 40.0
TERMS = 9  # of the expansions: the first that is left out is below 1e-15 at ORDER
EPS = 2.220446049250313e-16
MAX_STEPS = 100
# The derivative of A cancels to all but about 1 / x of its digits; far out, 1 - A falls as 1 / x.
FAR_OUT = 1e6


def _coefficients() -> Array:
    """Return c (TERMS + 1, TERMS + 1) with u_k(p) = p**k sum_j c[k, j] p**(2 j), DLMF 10.41.9."""
    u = [{0: Fraction(1)}]
    for k in range(TERMS):
        following: dict[int, Fraction] = {}
        for power, c in u[k].items():
            for shift, factor in (
                (1, Fraction(power, 2) + Fraction(1, 8 * (power + 1))),
                (3, -Fraction(power, 2) - Fraction(5, 8 * (power + 3))),
            ):
                following[power + shift] = following.get(power + shift, Fraction(0)) + c * factor
        u.append(following)
    return np.array([[float(u[k].get(k + 2 * j, 0)) for j in range(TERMS + 1)] for k in range(TERMS + 1)])


COEFFICIENTS = _coefficients()


@exact_helper
def _expansions(p: float, order: float) -> tuple[float, float]:
    """Return the sums of u_k(p) / v**k, and of (u_k(p) / 2 + p u_k'(p)) / v**k."""
    first = second = 0.0
    for k in range(TERMS, -1, -1):
        value = moved = 0.0
        for j in range(k, -1, -1):
            value = value * p * p + COEFFICIENTS[k, j]
            moved = moved * p * p + COEFFICIENTS[k, j] * (0.5 + k + 2 * j)
        # Horner's scheme in p / v.
        first = first * (p / order) + value
        second = second * (p / order) + (moved if k < TERMS else 0.0)
    return first, second


@exact_helper
def bessel_terms(n_features: int, x: float) -> tuple[float, float, float]:
    """Return x - log H(x), A(x) and 1 - A(x) in so many dimensions."""
    target = 0.5 * n_features - 1.0
    n_steps = max(0, math.ceil(ORDER - target))
    order = target + n_steps
    # With s = sqrt(1 + z**2) and q = s - 1, 10.41.3 and Gamma(v + 1) by the same expansion at z = 0 give
    # log H = v (q - log(1 + q / 2)) - log(s) / 2 + log(U(1 / s) / U(1)), where v q nearly cancels x = v z.
    z = x / order
    s = math.sqrt(1.0 + z * z)
    q = z * z / (1.0 + s)
    p = 1.0 / s
    u, w = _expansions(p, order)
    u_at_zero, _ = _expansions(1.0, order)
    gap = order * (q + z) / (s + z) + order * math.log1p(0.5 * q) + 0.5 * math.log1p(q) - math.log(u / u_at_zero)
    # I_v' / I_v = A + v / x from 10.41.5, whose v_k differ from u_k by multiples of p (1 - p**2), 10.41.11.
    rest = p * p * w / (order * u)
    ratio = z * (1.0 / (1.0 + s) - rest)
    complement = (1.0 + 1.0 / (s + z)) / (1.0 + s) + z * rest
    for _ in range(n_steps):
        twice = 2.0 * order
        order -= 1.0
        gap -= math.log1p(x * ratio / twice)
        total = twice + x * ratio
        ratio, complement = x / total, (twice - x * complement) / total
    return gap, ratio, complement


@kernel
def write_log_peaks(n_features: int, concentrations: Array, out: Array) -> None:
    """Write x - log H(x) of concentrations (K,) to out (K,)."""
    for k in range(len(out)):
        out[k] = bessel_terms(n_features, concentrations[k])[0]


@kernel
def solve_concentrations(n_features: int, lengths: Array, complements: Array, out: Array) -> None:
    """Write x with A(x) = lengths (K,), all in [0, 1), to out (K,); complements are 1 - lengths, with all their digits.

    Newton's steps from Banerjee et al. (2005), equation 4.4, within the bounds R (d - 2) / (1 - R**2) and
    R d / (1 - R**2) of Tanabe et al. (2007), Computational Statistics 22, and bisections where they leave them.
    """
    d = float(n_features)
    for k in range(len(out)):
        length, complement = lengths[k], complements[k]
        squared = complement * (2.0 - complement)  # 1 - R**2
        low, high = length * (d - 2.0) / squared * (1.0 - 4.0 * EPS), length * d / squared * (1.0 + 4.0 * EPS)
        x = length * (d - 1.0 + squared) / squared
        for _ in range(MAX_STEPS if length > 0.0 else 0):
            _, ratio, rest = bessel_terms(n_features, x)
            excess = ratio - length if length < 0.5 else complement - rest
            if excess > 0.0:
                high = min(high, x)
            else:
                low = max(low, x)
            slope = rest / x if x > FAR_OUT * d else rest * (1.0 + ratio) - (d - 1.0) * ratio / x
            following = x - excess / slope
            if not low <= following <= high:
                following = 0.5 * (low + high)
            moved, x = abs(following - x), following
            if moved <= 4.0 * EPS * x:
                break
        out[k] = x if length > 0.0 else 0.0
