"""Waiting times: independent exponential features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, canonical, kernel
from lvm.families.draws import draw_cells
from lvm.families.positive import SMALLEST_NORMAL, canonical_amounts, column_means, fill_means, require_positive
from lvm.kernels.incomplete import load_incomplete_strip
from lvm.kernels.products import add_products, add_weighted_rows
from lvm.kernels.strips import STRIP, zero_strip
from lvm.protocol import DEAD_SHARE, DegenerateError, IncompleteRows, count_free, free_part, keep_held

AMOUNTS = (0.0, "must be >= 0 for exponential components")  # the least value of X, and how to say so


class ExponentialParams(NamedTuple):
    """Means (K, d), and their inverses (K, d), logarithms (K, d) and the sums of those (K,), with their signs changed.

    Attributes
    ----------
    scales : ndarray of shape (K, d)
        Mean of each feature, in its unit.
    negative_rates : ndarray of shape (K, d)
        -1 / scale.
    log_rates : ndarray of shape (K, d)
        -log scale.
    log_peaks : ndarray of shape (K,)
        Log density of a row of zeros.
    """

    scales: Array
    negative_rates: Array
    log_rates: Array
    log_peaks: Array


class ExponentialStats(NamedTuple):
    """Weight of complete rows (K,), of observed cells of the others (K, d), and weighted sums of all cells (K, d)."""

    counts: Array
    observed: Array
    sums: Array


@kernel
def _add_incomplete(X: Array, negative_rates: Array, log_rates: Array, out: Array) -> None:
    """Add the log densities of the observed cells of X (n, d) to out (K, n)."""
    n, d = X.shape
    strip, seen = zero_strip(d, X), zero_strip(d, X)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_incomplete_strip(X, start, m, 0.0, strip, seen)
        for k in range(len(out)):
            row = out[k, start : start + m]
            for j in range(d):
                x, flags, rate, log_rate = strip[j], seen[j], negative_rates[k, j], log_rates[k, j]
                for p in range(m):
                    row[p] += flags[p] * log_rate + x[p] * rate


@kernel
def _accumulate_incomplete(X: Array, resp: Array, observed: Array, sums: Array) -> None:
    """Add the weights and weighted sums of the observed cells of X (n, d) under resp (K, n)."""
    n, d = X.shape
    strip, seen = zero_strip(d, X), zero_strip(d, X)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_incomplete_strip(X, start, m, 0.0, strip, seen)
        for k in range(len(resp)):
            r = resp[k, start : start + m]
            for j in range(d):
                x, flags, weight, total = strip[j], seen[j], 0.0, 0.0
                for p in range(m):
                    weight += r[p] * flags[p]
                    total += r[p] * x[p]
                observed[k, j] += weight
                sums[k, j] += total


@final
class Exponential:
    """d independent exponential features given the component: p(x) = prod_j exp(-x_j / scale_j) / scale_j, x >= 0.

    A missing cell (NaN) leaves its factor out.

    Parameters
    ----------
    rates_prior : tuple of float, optional
        Shape a >= 1 and rate b >= 0, in the unit of X, of a Gamma prior on each rate 1 / scale: the M-step is that
        of a - 1 more cells whose sum is b (maximum a posteriori). None is maximum likelihood.
    held : mapping of str to ndarray of bool, optional
        Components whose "scales" the M-step keeps, as a mask (K,).

    References
    ----------
    McLachlan & Peel (2000), "Finite Mixture Models", section 10.2.
    """

    accepts_missing = True
    parameters: ClassVar[Mapping[str, str]] = {"scales": "Kd"}

    def __init__(
        self,
        rates_prior: tuple[float, float] | None = None,
        held: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        shape, rate = (1.0, 0.0) if rates_prior is None else _pair("rates_prior", rates_prior)
        self._prior = (
            _checks.real("the shape in rates_prior", shape, 1.0),
            _checks.real("the rate in rates_prior", rate, 0.0),
        )
        self.rates_prior = rates_prior
        self.held = dict(held or {})

    def __repr__(self) -> str:
        return f"Exponential(rates_prior={None if self.rates_prior is None else self._prior})"

    def params(self, scales: Array) -> ExponentialParams:
        """Return parameters from means (K, d) > 0."""
        scales = np.array(scales, np.float64, order="C")
        require_positive("scales", scales)
        log_rates = -np.log(scales)
        return ExponentialParams(scales, -1 / scales, log_rates, log_rates.sum(axis=1))

    def canonical(self, X: Any) -> Array | IncompleteRows:
        """Return X as read-only float64 (n, d), or as IncompleteRows; refuse values below 0."""
        return canonical_amounts(X, *AMOUNTS)

    def start(self, X: Any, weight: Array, n_components: int) -> ExponentialParams:
        """Return K equal components with the means of the columns."""
        means = column_means(X, weight)
        means[~(means >= SMALLEST_NORMAL)] = 1.0  # a column of zeros, or unseen: any scale serves as a start
        return self.params(np.repeat(means[None], n_components, axis=0))

    def log_density(self, X: Any, params: ExponentialParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.scales, out)
        if isinstance(X, IncompleteRows):
            _add_incomplete(X.X, params.negative_rates, params.log_rates, out)
        else:
            add_products(X, params.negative_rates, params.log_peaks, canonical(np.zeros(len(X))), out)

    def zero_stats(self, params: ExponentialParams) -> ExponentialStats:
        """Return the statistics of no rows."""
        K, d = params.scales.shape
        return ExponentialStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, d)))

    def accumulate(self, X: Any, resp: Array, params: ExponentialParams, stats: ExponentialStats) -> None:
        """Add the weighted number and sums of cells."""
        if isinstance(X, IncompleteRows):
            _accumulate_incomplete(X.X, resp, stats.observed, stats.sums)
        else:
            add_weighted_rows(X, resp, stats.counts, stats.sums)

    def mstep(self, stats: ExponentialStats, params: ExponentialParams) -> ExponentialParams:
        """Return the inverses of the posterior modes of the rates; features of no weight keep theirs."""
        shape, rate = self._prior
        weight = stats.counts[:, None] + stats.observed
        dead = weight <= DEAD_SHARE * weight.sum(axis=0)
        scales = (stats.sums + rate) / np.where(dead, 1.0, weight + (shape - 1))
        scales[dead] = params.scales[dead]
        scales = keep_held(self.held, "scales", scales, params.scales)
        zero = np.argwhere(scales < SMALLEST_NORMAL)
        if len(zero):
            raise DegenerateError(
                f"the scale of component {zero[0][0]}, feature {zero[0][1]} is 0: so is X in all of its rows; lower "
                "n_components, set rates_prior with a rate > 0, or remove the column.",
                int(zero[0][0]),
            )
        return self.params(scales)

    def log_prior(self, params: ExponentialParams) -> float:
        """Return the log density of the Gamma prior, up to a constant."""
        shape, rate = self._prior
        log_rates = free_part(self.held, "scales", params.log_rates)
        return float((shape - 1) * log_rates.sum() + rate * free_part(self.held, "scales", params.negative_rates).sum())

    def fill(self, X: Any, resp: Array, params: ExponentialParams, out: Array) -> None:
        """Write the posterior mean of each missing cell to out (n, d)."""
        fill_means(resp, params.scales, out)

    def draw_missing(
        self, X: Any, resp: Array, params: ExponentialParams, rng: np.random.RandomState, out: Array
    ) -> None:
        """Write a draw of the missing cells of each row, of a component from resp (K, n), to out (n, d)."""
        draw_cells(self, np.isnan(out), resp, params, rng, out)

    def to_vector(self, params: ExponentialParams, origin: ExponentialParams) -> Array:
        """Return the logarithms of the scales, in units of the origin's."""
        return np.asarray(np.log(params.scales / origin.scales)).ravel()

    def from_vector(self, vector: Array, origin: ExponentialParams) -> ExponentialParams:
        """Return the parameters that have these coordinates."""
        return self.params(origin.scales * np.exp(vector).reshape(origin.scales.shape))

    def sample(self, params: ExponentialParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d)."""
        return np.asarray(rng.exponential(params.scales[k], (n, params.scales.shape[1])))

    def n_parameters(self, params: ExponentialParams) -> int:
        """Return d for each free component."""
        return count_free(self.held, "scales", params.scales)


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise _checks.ParameterError(f"{name} must be a pair (shape, rate) or None, got {value!r}.")
    return value[0], value[1]
