"""The vectorisable gamma functions against scipy and exact sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.special import gammaln, psi

from lvm._jit import kernel
from lvm.kernels.gamma_functions import digamma_rise, log_factorial, log_gamma_rise

Array = NDArray[np.float64]
SIZES = [1e-6, 1e-3, 0.5, 1.0, 3.3, np.nextafter(8.0, 0.0), 8.0, 20.0, 1e3, 1e8]


@kernel
def _map_factorials(values: Array, factorials: Array) -> None:
    for p in range(len(values)):
        factorials[p] = log_factorial(values[p])


@kernel
def _map_rises(values: Array, size: float, logs: Array, slopes: Array) -> None:
    for p in range(len(values)):
        logs[p], slopes[p] = log_gamma_rise(values[p], size), digamma_rise(values[p], size)


def run_rises(x: Any, size: float) -> tuple[Array, Array]:
    x = np.array(x, np.float64)
    out = (np.empty_like(x), np.empty_like(x))
    _map_rises(x, size, *out)
    return out


def test_factorials() -> None:
    """From the table, beyond it, and of what is not whole."""
    x = np.array([0.0, 1.0, 5.0, 1023.0, 1024.0, 1e6, 0.5, 1023.5])
    factorials = np.empty_like(x)
    _map_factorials(x, factorials)
    assert_allclose(factorials, gammaln(x + 1), rtol=1e-14)


@pytest.mark.parametrize("size", SIZES)
def test_rises_are_sums(size: float) -> None:
    """The sums over m < x that they stand for: a difference of gammas loses its digits at large sizes."""
    counts = np.array([0, 1, 2, 3, 4, 10, 57, 300, 5000])
    logs, slopes = run_rises(counts, size)
    exact = [math.fsum(math.log1p(m / size) for m in range(x)) for x in counts]
    assert np.max(np.abs(logs - exact) / (1 + counts + np.abs(exact))) < 1e-14
    assert_allclose(slopes, [math.fsum(1 / (size + m) for m in range(x)) for x in counts], rtol=1e-13)
    assert_array_equal([logs[0], slopes[0]], [0.0, 0.0])


@pytest.mark.parametrize("size", [1e-6, 0.7, 30.0])
def test_rises_of_huge_counts(size: float) -> None:
    counts = np.array([1e6, 1e9, 1e15])
    logs, slopes = run_rises(counts, size)
    assert_allclose(logs, gammaln(counts + size) - gammaln(size) - counts * np.log(size), rtol=1e-13)
    assert_allclose(slopes, psi(counts + size) - psi(size), rtol=1e-13)


def test_derivative_of_the_log_rise() -> None:
    """d/dr [log Gamma(r + x) - log Gamma(r)] is the rise of psi; central differences with steps of 1e-5."""
    counts = np.arange(1.0, 40.0)
    for size in (0.3, 6.0, 9.0):
        up, down = (run_rises(counts, size + h)[0] + counts * np.log(size + h) for h in (1e-5, -1e-5))
        assert_allclose((up - down) / 2e-5, run_rises(counts, size)[1], rtol=1e-6)
