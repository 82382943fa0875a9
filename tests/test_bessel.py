"""Bessel functions of directional densities, against many digits and against scipy."""

from __future__ import annotations

from math import lgamma
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ive

from lvm._jit import kernel
from lvm.kernels.bessel import bessel_terms, solve_concentrations, write_log_peaks


@kernel
def _map_terms(d: int, x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[0, i], out[1, i], out[2, i] = bessel_terms(d, x[i])


def terms(d: int, x: Any) -> Any:
    out = np.empty((3, len(x)))
    _map_terms(d, np.asarray(x, np.float64), out)
    return out


@pytest.mark.parametrize(
    ("d", "x", "peak", "complement"),
    [
        # mpmath with 60 digits: log density at the mean direction, and 1 - A.
        (2, 0.5, -1.3994267855948267875, 0.75750038741919805465),
        (2, 1e6, 5.9888166207774018102, 5.000001250001250002e-7),
        (3, 0.001, -2.5300244136359519041, 0.99966666668888888677),
        (5, 20.0, 2.3670037086768415485, 0.097368421052631588362),
        (30, 0.1, 7.4269590486391111205, 0.99666670138820807696),
        (30, 1e6, 173.67578350259540095, 0.000014499902124902129643),
        (81, 100.0, 118.43132930506510819, 0.32414237210951974809),
        (200, 0.01, 243.97806935407543636, 0.99995000000012376238),
        (200, 3000.0, 615.39838720822852736, 0.032622147318942727371),
        (1000, 0.1, 2032.1577552564738852, 0.99990000000099800397),
        (1000, 1000.0, 2654.5508377313324195, 0.38181318708989504066),
        (1000, 1e6, 5982.9524294663536976, 0.00049937549950824963997),
        (1000, 1e10, 10583.392957283827623, 4.9949998754996249876e-8),
    ],
)
def test_bessel_against_many_digits(d: int, x: float, peak: float, complement: float) -> None:
    log_area = np.log(2) + d / 2 * np.log(np.pi) - lgamma(d / 2)
    out = np.empty(1)
    write_log_peaks(d, np.array([x]), out)
    assert_allclose(out - log_area, [peak], rtol=1e-13, atol=1e-12)
    # Forty steps of the recurrence, from 80 / x to 1 / x, cost a factor of some hundreds.
    assert_allclose(terms(d, [x])[2, 0], complement, rtol=1e-12)


@pytest.mark.parametrize("d", [2, 3, 4, 11, 40, 79, 80, 81, 82, 83, 120])
def test_bessel_against_scipy(d: int) -> None:
    """Where scipy's scaled functions neither underflow nor lose digits; on both sides of the recurrence's start."""
    x = np.logspace(1, 4, 50) * max(1, d / 20)
    gap, ratio, complement = terms(d, x)
    v = d / 2 - 1
    low, high = ive(v, x), ive(v + 1, x)
    assert_allclose(ratio, high / low, rtol=1e-12)
    assert_allclose(ratio + complement, 1.0, rtol=1e-14)
    log_h = np.log(low / low[0]) + x - x[0] - v * np.log(x / x[0])
    assert_allclose(gap - gap[0], x - x[0] - log_h, rtol=1e-11, atol=1e-11)


def test_bessel_at_zero_is_uniform() -> None:
    for d in (2, 3, 81, 82, 1000):
        assert_array_equal(terms(d, [0.0]), [[0.0], [0.0], [1.0]])
        assert_allclose(terms(d, [1e-9])[1], 1e-9 / d, rtol=1e-13)


@pytest.mark.parametrize("d", [2, 3, 10, 80, 83, 300, 1000, 20000])
def test_concentrations_solve_their_equation(d: int) -> None:
    x = np.logspace(-8, 15, 200)
    _, ratio, complement = terms(d, x)
    found = np.empty_like(x)
    solve_concentrations(d, ratio, complement, found)
    # The smallest dimensions amplify the rounding of the recurrence.
    assert_allclose(found, x, rtol=2e-12 if d < 80 else 1e-14)
    solve_concentrations(d, np.zeros(1), np.ones(1), found[:1])
    assert found[0] == 0.0
