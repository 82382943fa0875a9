"""The vectorisable exp and log against extended precision."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from lvm._jit import kernel
from lvm.kernels.elementary import exp, log, log_complement, log_probability

Array = NDArray[np.float64]


@kernel
def _map_exp(values: Array, out: Array) -> None:
    for p in range(len(values)):
        out[p] = exp(values[p])


@kernel
def _map_log(values: Array, out: Array) -> None:
    for p in range(len(values)):
        out[p] = log(values[p])


def run_exp(values: Array) -> Array:
    out = np.empty_like(values)
    _map_exp(values, out)
    return out


def run_log(values: Array) -> Array:
    out = np.empty_like(values)
    _map_log(values, out)
    return out


@pytest.mark.parametrize("m", [1, 7, 256])
def test_exp_against_numpy(m: int) -> None:
    """Below 3e-16 as the docstring says; numpy in extended precision is the truth where the machine has it."""
    extended = np.finfo(np.longdouble).eps < 1e-18
    rng = np.random.RandomState(0)
    for low, high in [(-707.9, -600.0), (-50.0, 0.0), (-1.0, 1.0), (-1e-12, 1e-12), (0.0, 708.9)]:
        x = rng.uniform(low, high, m)
        truth = np.exp(x.astype(np.longdouble))
        assert np.max(np.abs(run_exp(x) - truth) / truth) < (3e-16 if extended else 5.3e-16)


@pytest.mark.parametrize("m", [1, 7, 256])
def test_log_against_numpy(m: int) -> None:
    """Below 4e-16 as the docstring says, near 1 too, where the logarithm vanishes."""
    extended = np.finfo(np.longdouble).eps < 1e-18
    rng = np.random.RandomState(0)
    for low, high in [(1.0, 2.0), (0.5, 1.0), (1 - 1e-9, 1 + 1e-9), (1.0, 1e3), (1e-300, 1e-299), (1e299, 1e300)]:
        x = rng.uniform(low, high, m)
        truth = np.log(x.astype(np.longdouble))
        assert np.max(np.abs(run_log(x) - truth) / np.abs(truth)) < (4e-16 if extended else 6.3e-16)
    assert_array_equal(run_log(np.array([1.0, 2.0, 0.5])), [0.0, np.log(2), -np.log(2)])
    edges = np.array([2.2250738585072014e-308, 1.7976931348623157e308, np.sqrt(2), np.sqrt(0.5)])
    assert_allclose(run_log(edges), np.log(edges), rtol=6.3e-16)


def test_exp_edges() -> None:
    """Exact at 0, 0 where float64 underflows, monotone across each change of exponent."""
    edges = np.array([0.0, -0.0, 5e-324, -5e-324, -708.1, -745.0, -1e4, -1e308, -np.inf])
    assert_array_equal(run_exp(edges), [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    half = (np.arange(-1000, 1000) + 0.5) * np.log(2)
    grid = np.sort(np.concatenate([np.nextafter(half, -np.inf), half, np.nextafter(half, np.inf)]))
    assert_allclose(run_exp(grid), np.exp(grid), rtol=5.3e-16)


@kernel
def _map_probabilities(values: Array, logarithms: Array, complements: Array) -> None:
    for p in range(len(values)):
        logarithms[p], complements[p] = log_probability(values[p]), log_complement(values[p])


@pytest.mark.parametrize("m", [1, 7, 256])
def test_logs_of_probabilities_against_numpy(m: int) -> None:
    """Of 0, of 1, of what is too small to be normal, and of all between; with numpy's own error of half a digit."""
    rng = np.random.RandomState(0)
    edges = np.array([0.0, 1.0, 5e-324, 1e-310, 2.0**-1022, 1e-300, 1e-17, 1 - 2.0**-53, 0.5])
    for p in (edges, rng.uniform(size=m), rng.uniform(size=m) * 1e-9, 1 - rng.uniform(size=m) * 1e-9):
        logarithms, complements = np.empty_like(p), np.empty_like(p)
        _map_probabilities(p, logarithms, complements)
        with np.errstate(divide="ignore"):
            assert_allclose(logarithms, np.log(p), rtol=7e-16)
            assert_allclose(complements, np.log1p(-p), rtol=7e-16)
