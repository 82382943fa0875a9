"""Independent negative binomial counts: Poisson counts whose rates vary within a component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, kernel
from lvm.families.counts import (
    ExposedRows,
    add_linear_densities,
    add_linear_sums,
    alive_weights,
    canonical_counts,
    column_means,
    column_variances,
    fill_means,
    parameter,
    with_units,
    without_units,
    zeros_as_missing,
)
from lvm.families.draws import draw_cells
from lvm.kernels.gamma_functions import digamma_rise, log_gamma_rise
from lvm.kernels.strips import STRIP, load_strip, zero_strip
from lvm.protocol import IncompleteRows, count_free, keep_held

SMALLEST_SIZE, LARGEST_SIZE = 1e-6, 1e8
LOG_BOUNDS = np.log(SMALLEST_SIZE), np.log(LARGEST_SIZE)
START_SIZES = 1e-2, 1e2  # from larger ones EM is slow to come back
STEPS = 100  # of Newton's method or bisection: the latter alone needs 50


class NegativeBinomialParams(NamedTuple):
    """Parameters, with what the kernels need of them, (K, d) each.

    Attributes
    ----------
    means : ndarray of shape (K, d)
        Mean counts.
    sizes : ndarray of shape (K, d)
        Sizes r: the variance is mean + mean**2 / r.
    slopes : ndarray of shape (K, d)
        log mean - log(1 + mean / r); -inf where the mean is 0.
    costs : ndarray of shape (K, d)
        r log(1 + mean / r), minus the log-probability of a 0.
    """

    means: Array
    sizes: Array
    slopes: Array
    costs: Array


class NegativeBinomialStats(NamedTuple):
    """Additive statistics.

    Attributes
    ----------
    counts : ndarray of shape (K,)
        Weighted responsibilities of complete rows.
    observed : ndarray of shape (K, d)
        Weighted responsibilities of rows with holes, summed over observed cells.
    sums : ndarray of shape (K, d)
        Weighted counts.
    rises : ndarray of shape (K, d)
        Weighted sums of r (psi(x + r) - psi(r)) at the current sizes r; at most `sums`.
    """

    counts: Array
    observed: Array
    sums: Array
    rises: Array


@kernel
def _add_rises(X: Array, sizes: Array, out: Array) -> None:
    """Add the sums of log Gamma(x + r) - log Gamma(r) - x log r over the columns of X (n, d) to out (K, n)."""
    n, d = X.shape
    strip = zero_strip(d, X)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(len(sizes)):
            row = out[k, start : start + m]
            for j in range(d):
                x, r = strip[j, :m], sizes[k, j]
                for p in range(m):
                    row[p] += log_gamma_rise(x[p], r)


@kernel
def _add_weighted_rises(X: Array, resp: Array, sizes: Array, rises: Array) -> None:
    """Add the sums of r (psi(x + r) - psi(r)) over X (n, d) under resp (K, n) to rises (K, d)."""
    n, d = X.shape
    strip = zero_strip(d, X)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(len(sizes)):
            weights = resp[k, start : start + m]
            for j in range(d):
                x, r, total = strip[j, :m], sizes[k, j], 0.0
                for p in range(m):
                    total += weights[p] * digamma_rise(x[p], r)
                rises[k, j] += r * total


def _best_sizes(rises: Array, averages: Array, means: Array, sizes: Array) -> Array:
    """Return the sizes r that maximise rises log r + r log r - (r + averages) log(r + means), (K, d) each.

    In log r its derivative rises - r log(1 + means / r) + (means - averages) r / (r + means) changes sign once, from
    + to -, where rises <= averages: Newton's method within a bracket finds where. A maximum beyond the bounds leads to
    the bound.
    """
    low, high = (np.full(sizes.shape, bound) for bound in LOG_BOUNDS)
    at = np.log(sizes)
    for _ in range(STEPS):
        r = np.exp(at)
        cost, share = r * np.log1p(means / r), r / (r + means)
        slope = rises - cost + (means - averages) * share
        bend = means * share - cost + (means - averages) * share * (1 - share)
        low, high = np.where(slope > 0, at, low), np.where(slope < 0, at, high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            new = at - slope / bend
        new = np.where((new > low) & (new < high), new, 0.5 * (low + high))
        new = np.where(slope == 0, at, new)
        moved, at = np.abs(new - at).max(initial=0.0), new
        if moved < 1e-13:  # relative change of r
            break
    return np.clip(np.exp(at), SMALLEST_SIZE, LARGEST_SIZE)


@final
class NegativeBinomial:
    """d independent negative binomial counts given the component, with variances mean + mean**2 / size.

    `scipy.stats.nbinom(size, size / (size + mean))`; the size is the `theta` of R's MASS. Sizes lie between 1e-6 and
    1e8, where the distribution is Poisson's to 8 digits. X is a dense array of whole counts, NaN where missing.

    The M-step raises the expected log-likelihood: it maximises a bound below it, so that a few additive statistics
    suffice. As log(r + m) is convex in log r, the sum log Gamma(x + r) - log Gamma(r) of such terms over m < x lies
    above its tangent in log r at the current size r. The bound is loose for large sizes: an iteration removes about
    1 / r of what log r lacks, so that sizes of a hundred need a thousand iterations, and where the counts of a
    component vary no more than Poisson's, EM creeps towards the largest size. `lvm.fit_anderson` helps, as do Poisson
    components.

    Parameters
    ----------
    held : mapping of str to ndarray of bool, optional
        Components whose "means" or "sizes" the M-step keeps, as masks (K,).

    References
    ----------
    Lange, Hunter & Yang (2000), "Optimization transfer using surrogate objective functions", JCGS 9: minorisation.
    Lawless (1987), "Negative binomial and mixed Poisson regression", Canadian Journal of Statistics 15: the sum.
    """

    accepts_missing = True
    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "sizes": "Kd"}

    def __init__(self, held: Mapping[str, NDArray[np.bool_]] | None = None) -> None:
        self.held = dict(held or {})

    def __repr__(self) -> str:
        return "NegativeBinomial()"

    def params(self, means: Array, sizes: Array) -> NegativeBinomialParams:
        """Return parameters from means (K, d), finite and >= 0, and sizes (K, d) between 1e-6 and 1e8."""
        means = parameter("means", means, 0.0, np.inf, "finite and >= 0")
        sizes = parameter("sizes", sizes, SMALLEST_SIZE, LARGEST_SIZE, "between 1e-6 and 1e8")
        if means.shape != sizes.shape:
            raise ValueError(f"means have shape {means.shape}, but sizes {sizes.shape}; expected the same.")
        with np.errstate(divide="ignore"):
            slopes = np.log(means) - np.log1p(means / sizes)
        return NegativeBinomialParams(means, sizes, slopes, sizes * np.log1p(means / sizes))

    def canonical(self, X: Any) -> Array | IncompleteRows:
        """Return counts as read-only float64 (n, d) or IncompleteRows; refuse other values."""
        if isinstance(X, ExposedRows):
            raise TypeError("NegativeBinomial takes no exposures, got ExposedRows; give the counts alone.")
        return canonical_counts(X)

    def start(self, X: Any, weight: Array, n_components: int) -> NegativeBinomialParams:
        """Return K components with the means of all rows, and sizes by the method of moments."""
        means = column_means(X, weight)
        excess = column_variances(X, weight, means) - means
        sizes = np.divide(means**2, excess, out=np.full_like(means, START_SIZES[1]), where=excess > 0)
        return self.params(*np.repeat([[means], [np.clip(sizes, *START_SIZES)]], n_components, axis=1))

    def log_density(self, X: Any, params: NegativeBinomialParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        add_linear_densities(X, params.slopes, params.costs, out)
        _add_rises(zeros_as_missing(X)[0], params.sizes, out)

    def zero_stats(self, params: NegativeBinomialParams) -> NegativeBinomialStats:
        """Return the statistics of no rows."""
        shape = params.means.shape
        return NegativeBinomialStats(np.zeros(shape[0]), np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def accumulate(self, X: Any, resp: Array, params: NegativeBinomialParams, stats: NegativeBinomialStats) -> None:
        """Add the weighted counts, and the slopes of log Gamma(x + r) - log Gamma(r) in log r."""
        add_linear_sums(X, resp, stats.counts, stats.observed, stats.sums)
        _add_weighted_rises(zeros_as_missing(X)[0], resp, params.sizes, stats.rises)

    def mstep(self, stats: NegativeBinomialStats, params: NegativeBinomialParams) -> NegativeBinomialParams:
        """Return the weighted means, and better sizes; what is held, or of a dead component, stays."""
        weight, alive = alive_weights(stats.counts, stats.observed)
        averages = np.where(alive, stats.sums / weight, params.means)
        means = keep_held(self.held, "means", averages, params.means)
        sizes = np.where(alive, _best_sizes(stats.rises / weight, averages, means, params.sizes), params.sizes)
        return self.params(means, keep_held(self.held, "sizes", sizes, params.sizes))

    def to_vector(self, params: NegativeBinomialParams, origin: NegativeBinomialParams) -> Array:
        """Return the means, relative to those of the origin, and the logarithms of the sizes."""
        return np.concatenate([without_units(params.means, origin.means), np.log(params.sizes).ravel()])

    def from_vector(self, vector: Array, origin: NegativeBinomialParams) -> NegativeBinomialParams:
        """Return the parameters that have these coordinates; those held are the origin's to the bit."""
        means, logarithms = np.split(vector, [origin.means.size])
        sizes = np.clip(np.exp(logarithms).reshape(origin.sizes.shape), SMALLEST_SIZE, LARGEST_SIZE)
        return self.params(
            keep_held(self.held, "means", with_units(means, origin.means), origin.means),
            keep_held(self.held, "sizes", sizes, origin.sizes),
        )

    def fill(self, X: Any, resp: Array, params: NegativeBinomialParams, out: Array) -> None:
        """Write the posterior means of missing cells to out (n, d)."""
        fill_means(X, resp, params.means, out)

    def draw_missing(
        self, X: Any, resp: Array, params: NegativeBinomialParams, rng: np.random.RandomState, out: Array
    ) -> None:
        """Write a draw of the missing cells of each row, of a component from resp (K, n), to out (n, d)."""
        draw_cells(self, np.isnan(out), resp, params, rng, out)

    def sample(self, params: NegativeBinomialParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
        """Draw n rows from component k, shape (n, d): Poisson counts of Gamma distributed rates."""
        means, sizes = params.means[k], params.sizes[k]
        return np.asarray(rng.poisson(rng.gamma(sizes, means / sizes, (n, len(means)))), np.int64)

    def n_parameters(self, params: NegativeBinomialParams) -> int:
        """Return 2 d for each free component."""
        return count_free(self.held, "means", params.means) + count_free(self.held, "sizes", params.sizes)
