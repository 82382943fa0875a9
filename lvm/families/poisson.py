"""Independent Poisson counts: events in a time, an area or a population."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array
from lvm.families.counts import (
    ExposedRows,
    add_linear_densities,
    add_linear_sums,
    alive_weights,
    canonical_exposed,
    column_means,
    exposed_means,
    fill_means,
    parameter,
    with_units,
    without_units,
)
from lvm.families.draws import draw_components
from lvm.protocol import IncompleteRows, count_free, free_part, keep_held


class PoissonParams(NamedTuple):
    """Rates and their logarithms, (K, d) each."""

    rates: Array
    log_rates: Array


class PoissonStats(NamedTuple):
    """Additive statistics.

    Attributes
    ----------
    counts : ndarray of shape (K,)
        Weighted responsibilities of rows that are complete and have no exposure.
    observed : ndarray of shape (K, d)
        Of other rows, weighted responsibilities times exposures, summed over observed cells.
    sums : ndarray of shape (K, d)
        Weighted counts.
    """

    counts: Array
    observed: Array
    sums: Array


@final
class Poisson:
    """d independent Poisson counts given the component, with means exposure * rate.

    X is a dense array of whole counts, NaN where missing, for an exposure of 1; or `ExposedRows` of such an array and
    of the exposure of each row. A rate may be 0: then every count of that feature is 0.

    Parameters
    ----------
    rates_prior : tuple of two floats, optional
        Shape a >= 1 and rate b >= 0 of a Gamma prior on each rate: adds a - 1 events and an exposure of b per feature
        and component (maximum a posteriori). (1, 0), as None, is maximum likelihood.
    held : mapping of str to ndarray of bool, optional
        Components whose "rates" the M-step keeps, as a mask (K,).

    References
    ----------
    Hasselblad (1969), "Estimation of finite mixtures of distributions from the exponential family", JASA 64.
    """

    accepts_missing = True
    parameters: ClassVar[Mapping[str, str]] = {"rates": "Kd"}

    def __init__(
        self,
        rates_prior: tuple[float, float] | None = None,
        held: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        if rates_prior is not None and (np.ndim(rates_prior) != 1 or len(rates_prior) != 2):
            raise _checks.ParameterError(f"rates_prior must be a pair, shape and rate, got {rates_prior!r}.")
        shape, rate = (1.0, 0.0) if rates_prior is None else rates_prior
        self.rates_prior = (_checks.real("rates_prior[0]", shape, 1.0), _checks.real("rates_prior[1]", rate, 0.0))
        self.held = dict(held or {})

    def __repr__(self) -> str:
        shape, rate = self.rates_prior
        return f"Poisson(rates_prior=({shape:g}, {rate:g}))"

    def params(self, rates: Array) -> PoissonParams:
        """Return parameters from rates (K, d), finite and >= 0."""
        rates = parameter("rates", rates, 0.0, np.inf, "finite and >= 0")
        with np.errstate(divide="ignore"):
            return PoissonParams(rates, np.log(rates))

    def canonical(self, X: Any) -> Array | IncompleteRows | ExposedRows:
        """Return counts as read-only float64 (n, d), IncompleteRows or ExposedRows; refuse other values."""
        return canonical_exposed(X)

    def start(self, X: Any, weight: Array, n_components: int) -> PoissonParams:
        """Return K components with the rates of all rows."""
        return self.params(np.repeat(column_means(X, weight)[None], n_components, axis=0))

    def log_density(self, X: Any, params: PoissonParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.rates, out)
        add_linear_densities(X, params.log_rates, params.rates, out)

    def zero_stats(self, params: PoissonParams) -> PoissonStats:
        """Return the statistics of no rows."""
        shape = params.rates.shape
        return PoissonStats(np.zeros(shape[0]), np.zeros(shape), np.zeros(shape))

    def accumulate(self, X: Any, resp: Array, params: PoissonParams, stats: PoissonStats) -> None:
        """Add the weighted exposures and counts."""
        add_linear_sums(X, resp, *stats)

    def mstep(self, stats: PoissonStats, params: PoissonParams) -> PoissonParams:
        """Return the posterior modes of the rates; one that nothing is known of, or of a dead component, stays."""
        weight, alive = alive_weights(stats.counts, stats.observed)
        shape, rate = self.rates_prior
        rates = np.where(alive, (stats.sums + (shape - 1)) / (weight + rate), params.rates)
        return self.params(keep_held(self.held, "rates", rates, params.rates))

    def log_prior(self, params: PoissonParams) -> float:
        """Return the log density of the Gamma prior on the free rates, up to a constant."""
        shape, rate = self.rates_prior
        free, logarithms = (free_part(self.held, "rates", array) for array in params)
        return (0.0 if shape == 1 else (shape - 1) * float(logarithms.sum())) - rate * float(free.sum())

    def to_vector(self, params: PoissonParams, origin: PoissonParams) -> Array:
        """Return the rates, relative to the mean rates of the origin."""
        return without_units(params.rates, origin.rates)

    def from_vector(self, vector: Array, origin: PoissonParams) -> PoissonParams:
        """Return the parameters that have these rates; those held are the origin's to the bit."""
        return self.params(keep_held(self.held, "rates", with_units(vector, origin.rates), origin.rates))

    def fill(self, X: Any, resp: Array, params: PoissonParams, out: Array) -> None:
        """Write the posterior means of missing cells to out (n, d)."""
        fill_means(X, resp, params.rates, out)

    def draw_missing(self, X: Any, resp: Array, params: PoissonParams, rng: np.random.RandomState, out: Array) -> None:
        """Write a draw of the missing cells of each row, of a component from resp (K, n), to out (n, d)."""
        missing = np.isnan(out)
        means = exposed_means(X, params.rates[draw_components(resp, rng)])
        out[missing] = rng.poisson(means[missing])

    def sample(self, params: PoissonParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
        """Draw n rows of exposure 1 from component k, shape (n, d)."""
        rates = params.rates[k]
        return np.asarray(rng.poisson(rates, (n, len(rates))), np.int64)

    def n_parameters(self, params: PoissonParams) -> int:
        """Return d for each free component."""
        return count_free(self.held, "rates", params.rates)
