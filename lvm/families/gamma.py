"""Positive amounts: independent gamma features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, polygamma

from lvm import _checks
from lvm._jit import Array, exact_helper, helper, kernel
from lvm.families.draws import draw_cells
from lvm.families.positive import SMALLEST_NORMAL, canonical_amounts, column_means, fill_means, require_positive
from lvm.kernels.covariance import EPS, NOISE
from lvm.kernels.elementary import log
from lvm.kernels.incomplete import load_incomplete_strip
from lvm.kernels.strips import LOG_2PI, STRIP, load_strip, zero_strip
from lvm.protocol import DEAD_SHARE, DegenerateError, IncompleteRows, count_free, keep_held

# The least value of X, and how to say so.
AMOUNTS = (SMALLEST_NORMAL, f"must be > 0 for gamma components, and at least {SMALLEST_NORMAL:.3g}")
# From this shape on, log t - t + 1 with t = x / mean is computed as such, at the price of a logarithm for each
# component. Below, log x - log mean serves all of them: it may be off by some 1e-15, which the shape multiplies.
SHARP = 1e3
FARTHEST = 1e300  # x / mean beyond is taken for this: products with responsibilities of 0 must not be NaN
# The shape is 1 / (coefficient of variation)**2: beyond the inverse of this, the variation is rounding.
FLAT = NOISE**2
LARGE = 20.0  # shapes from which asymptotic series are exact, and differences of special functions are not
MAX_STEPS = 50


class GammaParams(NamedTuple):
    """Parameters, with what the kernels need of them.

    Attributes
    ----------
    shapes, scales : ndarray of shape (K, d)
        Shape, without unit, and scale, in the unit of the feature: `a` and `scale` of scipy.stats.gamma.
    means : ndarray of shape (K, d)
        shape * scale.
    log_peaks : ndarray of shape (K, d)
        Log density of log x at the mean, shape log(shape) - shape - log Gamma(shape).
    """

    shapes: Array
    scales: Array
    means: Array
    log_peaks: Array


class GammaStats(NamedTuple):
    """Sums about the current means, with t = x / mean.

    Of r over complete rows (K,); and for each feature (K, d), of r over the observed cells of the others, of r (t - 1),
    and of r (log t - t + 1), whose terms are all <= 0.
    """

    counts: Array
    observed: Array
    first: Array
    logs: Array


@exact_helper
def _log_excess(t: float, log_x: float, log_mean: float) -> float:
    """Return log t - (t - 1) for t = x / mean, near t = 1 and where it underflows too."""
    near = log(max(t, 0.5)) - (t - 1.0)
    return near if t > 0.5 else log_x - log_mean - (t - 1.0)


@helper
def _write_logs(strip: Array, m: int, logs: Array, total: Array) -> None:
    """Write the logarithms of strip (d, m) to logs (d, m), and their sums over features to total (m,)."""
    for p in range(m):
        total[p] = 0.0
    for j in range(logs.shape[0]):
        x, log_x = strip[j], logs[j]
        for p in range(m):
            log_x[p] = log(x[p])
            total[p] += log_x[p]


@helper
def _add_excess(x: Array, log_x: Array, shape: float, mean: float, row: Array) -> None:
    """Add shape * (log t - t + 1), t = x / mean, to row (m,)."""
    m, inverse, log_mean = len(row), 1.0 / mean, np.log(mean)
    if shape > SHARP:
        for p in range(m):
            row[p] += shape * _log_excess(min(x[p] * inverse, FARTHEST), log_x[p], log_mean)
    else:
        constant, slope = shape * (1.0 - log_mean), shape * inverse
        for p in range(m):
            row[p] += constant + shape * log_x[p] - slope * x[p]


@helper
def _sums(x: Array, log_x: Array, r: Array, shape: float, mean: float) -> tuple[float, float]:
    """Return the sums of r (t - 1) and of r (log t - t + 1) for t = x / mean of m points."""
    m, inverse, log_mean, one, two = len(r), 1.0 / mean, np.log(mean), 0.0, 0.0
    if shape > SHARP:
        for p in range(m):
            t = min(x[p] * inverse, FARTHEST)
            one += r[p] * (t - 1.0)
            two += r[p] * _log_excess(t, log_x[p], log_mean)
    else:
        for p in range(m):
            u = min(x[p] * inverse, FARTHEST) - 1.0
            one += r[p] * u
            two += r[p] * (log_x[p] - log_mean - u)
    return one, two


@kernel
def _log_density(X: Array, shapes: Array, means: Array, log_peaks: Array, out: Array) -> None:
    """Add the log densities of X (n, d) to out (K, n)."""
    n, d = X.shape
    room = zero_strip(2 * d + 1, X)
    strip, logs, total = room[:d], room[d : 2 * d], room[2 * d]
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        _write_logs(strip, m, logs, total)
        for k in range(len(out)):
            row, peak = out[k, start : start + m], np.sum(log_peaks[k])
            for p in range(m):
                row[p] += peak - total[p]
            for j in range(d):
                _add_excess(strip[j], logs[j], shapes[k, j], means[k, j], row)


@kernel
def _accumulate(X: Array, resp: Array, shapes: Array, means: Array, counts: Array, first: Array, excess: Array) -> None:
    """Add the sums of X (n, d) about the means under resp (K, n)."""
    n, d = X.shape
    room = zero_strip(2 * d + 1, X)
    strip, logs, total = room[:d], room[d : 2 * d], room[2 * d]
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        _write_logs(strip, m, logs, total)
        for k in range(len(resp)):
            r, count = resp[k, start : start + m], 0.0
            for p in range(m):
                count += r[p]
            counts[k] += count
            for j in range(d if count > 0.0 else 0):
                one, two = _sums(strip[j], logs[j], r, shapes[k, j], means[k, j])
                first[k, j] += one
                excess[k, j] += two


@kernel
def _add_incomplete(X: Array, shapes: Array, means: Array, log_peaks: Array, out: Array) -> None:
    """Add the log densities of the observed cells of X (n, d) to out (K, n)."""
    n, d = X.shape
    room = zero_strip(3 * d + 2, X)
    strip, seen, logs, total, term = room[:d], room[d : 2 * d], room[2 * d : 3 * d], room[3 * d], room[3 * d + 1]
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_incomplete_strip(X, start, m, 1.0, strip, seen)  # log 1 = 0 adds nothing to the total
        _write_logs(strip, m, logs, total)
        for k in range(len(out)):
            row = out[k, start : start + m]
            for p in range(m):
                row[p] -= total[p]
            for j in range(d):
                for p in range(m):
                    term[p] = log_peaks[k, j]
                _add_excess(strip[j], logs[j], shapes[k, j], means[k, j], term[:m])
                for p in range(m):
                    row[p] += seen[j, p] * term[p]


@kernel
def _accumulate_incomplete(
    X: Array, resp: Array, shapes: Array, means: Array, observed: Array, first: Array, excess: Array
) -> None:
    """Add the sums of the observed cells of X (n, d) about the means under resp (K, n)."""
    n, d = X.shape
    room = zero_strip(3 * d + 2, X)
    strip, seen, logs, total, weight = room[:d], room[d : 2 * d], room[2 * d : 3 * d], room[3 * d], room[3 * d + 1]
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_incomplete_strip(X, start, m, 1.0, strip, seen)
        _write_logs(strip, m, logs, total)
        for k in range(len(resp)):
            r = resp[k, start : start + m]
            for j in range(d):
                count = 0.0
                for p in range(m):
                    weight[p] = r[p] * seen[j, p]
                    count += weight[p]
                one, two = _sums(strip[j], logs[j], weight[:m], shapes[k, j], means[k, j])
                observed[k, j] += count
                first[k, j] += one
                excess[k, j] += two


def log_minus_digamma(shapes: Array) -> Array:
    """Return log a - digamma(a), which falls from infinity to 0; about 1 / (2 a) for large shapes."""
    s = 1 / shapes**2
    series = 0.5 / shapes + s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s * (1 / 240 - s / 132))))
    return np.asarray(np.where(shapes >= LARGE, series, np.log(shapes) - digamma(shapes)))


def _trigamma_excess(shapes: Array) -> Array:
    """Return trigamma(a) - 1 / a > 0, minus the derivative of `log_minus_digamma`."""
    s = 1 / shapes**2
    series = s * (0.5 + (1 / 6 - s * (1 / 30 - s * (1 / 42 - s / 30))) / shapes)
    return np.asarray(np.where(shapes >= LARGE, series, polygamma(1, shapes) - 1 / shapes))


def solve_shapes(gaps: Array, max_steps: int = MAX_STEPS) -> Array:
    """Return a with log a - digamma(a) = gaps, all > 0: the shapes that maximise the likelihood.

    Minka's first approximation, to 1.5 per cent, and Newton's steps in the logarithms of both sides, which are nearly
    a straight line: each comes nearer, hence likelier, as the likelihood is concave in a. All stay within
    1 / (2 gap) < a < 1 / gap.

    References
    ----------
    Minka (2002), "Estimating a Gamma distribution", equations 7 to 10.
    """
    a = (3 - gaps + np.sqrt((gaps - 3) ** 2 + 24 * gaps)) / (12 * gaps)
    for _ in range(max_steps):
        value = log_minus_digamma(a)
        step = value * np.log(value / gaps) / (a * _trigamma_excess(a))
        following = np.clip(a * np.exp(step), 0.5 / gaps, 1 / gaps)
        done = np.all(np.abs(following - a) <= 4 * EPS * a)
        a = following
        if done:
            break
    return np.asarray(a)


def invert_digamma(values: Array) -> Array:
    """Return a with digamma(a) = values: the shapes that maximise the likelihood for given scales.

    References
    ----------
    Minka (2000), "Estimating a Dirichlet distribution", appendix C: Newton's steps, which converge from this start.
    """
    with np.errstate(over="ignore"):
        a = np.where(values >= -2.22, np.exp(np.minimum(values, 700.0)) + 0.5, -1 / (values - digamma(1.0)))
    for _ in range(MAX_STEPS):
        following = a - (digamma(a) - values) / polygamma(1, a)
        following = np.where(following > 0, following, a / 2)
        done = np.all(np.abs(following - a) <= 4 * EPS * a)
        a = following
        if done:
            break
    return np.asarray(a)


@final
class Gamma:
    """d independent gamma features given the component, with density x**(a - 1) exp(-x / s) / (Gamma(a) s**a), x > 0.

    A missing cell (NaN) leaves its factor out. Where a component's values of a feature are equal to rounding, the
    likelihood has no maximum, and the M-step raises `DegenerateError`.

    Parameters
    ----------
    held : mapping of str to ndarray of bool, optional
        Components whose "shapes" or "scales" the M-step keeps, as masks (K,).

    References
    ----------
    Minka (2002), "Estimating a Gamma distribution".
    """

    accepts_missing = True
    parameters: ClassVar[Mapping[str, str]] = {"shapes": "Kd", "scales": "Kd"}

    def __init__(self, held: Mapping[str, NDArray[np.bool_]] | None = None) -> None:
        self.held = dict(held or {})

    def __repr__(self) -> str:
        return "Gamma()"

    def params(self, shapes: Array, scales: Array) -> GammaParams:
        """Return parameters from shapes (K, d) and scales (K, d), all > 0."""
        shapes, scales = np.array(shapes, np.float64, order="C"), np.array(scales, np.float64, order="C")
        if shapes.shape != scales.shape:
            raise ValueError(f"shapes and scales must have one shape, got {shapes.shape} and {scales.shape}.")
        require_positive("shapes", shapes)
        require_positive("scales", scales)
        with np.errstate(over="ignore", under="ignore"):
            means = shapes * scales
        require_positive("shapes * scales", means)
        return GammaParams(shapes, scales, means, _log_peaks(shapes))

    def canonical(self, X: Any) -> Array | IncompleteRows:
        """Return X as read-only float64 (n, d), or as IncompleteRows; refuse values that are not above 0."""
        return canonical_amounts(X, *AMOUNTS)

    def start(self, X: Any, weight: Array, n_components: int) -> GammaParams:
        """Return K equal components that fit each column."""
        means = column_means(X, weight)
        means[means == 0] = 1.0  # nothing observed
        params = self.params(np.ones((1, len(means))), means[None])
        stats = self.zero_stats(params)
        self.accumulate(X, np.array(weight[None], np.float64, order="C"), params, stats)
        total = np.maximum(stats.counts[:, None] + stats.observed, SMALLEST_NORMAL)
        shapes = solve_shapes(np.maximum(-stats.logs / total, 1 / SHARP))  # where nearly equal, as wide as SHARP says
        return self.params(np.repeat(shapes, n_components, axis=0), np.repeat(means / shapes, n_components, axis=0))

    def log_density(self, X: Any, params: GammaParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.shapes, out)
        if isinstance(X, IncompleteRows):
            _add_incomplete(X.X, params.shapes, params.means, params.log_peaks, out)
        else:
            _log_density(X, params.shapes, params.means, params.log_peaks, out)

    def zero_stats(self, params: GammaParams) -> GammaStats:
        """Return the statistics of no rows."""
        K, d = params.shapes.shape
        return GammaStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, d)), np.zeros((K, d)))

    def accumulate(self, X: Any, resp: Array, params: GammaParams, stats: GammaStats) -> None:
        """Add the rows' sums about the current means."""
        if isinstance(X, IncompleteRows):
            _accumulate_incomplete(X.X, resp, params.shapes, params.means, stats.observed, stats.first, stats.logs)
        else:
            _accumulate(X, resp, params.shapes, params.means, stats.counts, stats.first, stats.logs)

    def mstep(self, stats: GammaStats, params: GammaParams) -> GammaParams:
        """Return the maximum likelihood shapes and scales given those held; features of no weight keep theirs."""
        weight = stats.counts[:, None] + stats.observed
        dead = weight <= DEAD_SHARE * weight.sum(axis=0)
        shift = np.where(dead, 0.0, stats.first / np.where(dead, 1.0, weight))
        logs = np.where(dead, -1.0, stats.logs / np.where(dead, 1.0, weight))
        means = params.means * (1 + shift)
        shapes = self._shapes(shift, logs, params)
        shapes = keep_held(self.held, "shapes", np.where(dead, params.shapes, shapes), params.shapes)
        flat = np.argwhere(np.isinf(shapes))
        if len(flat):
            raise DegenerateError(
                f"the shape of component {flat[0][0]}, feature {flat[0][1]} is infinite: X is the same in all of its "
                "rows, to rounding; lower n_components, or remove the column.",
                int(flat[0][0]),
            )
        scales = np.where(dead, params.scales, means / shapes)
        return self.params(shapes, keep_held(self.held, "scales", scales, params.scales))

    def _shapes(self, shift: Array, logs: Array, params: GammaParams) -> Array:
        """Return the best shapes for means of t of 1 + shift, and of log t of shift + logs, t = x / old mean."""
        # log(mean t) - mean log t >= 0. About a far centre its digits cancel: below what rounding can have left,
        # the shape goes part of the way, which raises the likelihood too, and the next statistics have the centre.
        gaps = np.log1p(shift) - shift - logs
        noise = 16 * EPS * np.abs(logs)
        noise += np.where(params.shapes > SHARP, 0.0, 16 * EPS * (1 + np.abs(np.log(params.means))))
        gaps = np.where((gaps < noise) & (noise > FLAT), noise, gaps)
        flat = gaps <= FLAT / 2
        shapes = np.where(flat, np.inf, solve_shapes(np.where(flat, 1.0, gaps)))
        if "scales" not in self.held:
            return np.asarray(shapes)
        given = invert_digamma(np.log(params.shapes) + shift + logs)
        return keep_held(self.held, "scales", shapes, given)

    def fill(self, X: Any, resp: Array, params: GammaParams, out: Array) -> None:
        """Write the posterior mean of each missing cell to out (n, d)."""
        fill_means(resp, params.means, out)

    def draw_missing(self, X: Any, resp: Array, params: GammaParams, rng: np.random.RandomState, out: Array) -> None:
        """Write a draw of the missing cells of each row, of a component from resp (K, n), to out (n, d)."""
        draw_cells(self, np.isnan(out), resp, params, rng, out)

    def to_vector(self, params: GammaParams, origin: GammaParams) -> Array:
        """Return the logarithms of the shapes, and of the means in units of the origin's."""
        return np.concatenate([np.log(params.shapes).ravel(), np.log(params.means / origin.means).ravel()])

    def from_vector(self, vector: Array, origin: GammaParams) -> GammaParams:
        """Return the parameters that have these coordinates."""
        log_shapes, log_means = vector.reshape(2, *origin.shapes.shape)
        shapes = np.exp(log_shapes)
        return self.params(shapes, origin.means * np.exp(log_means) / shapes)

    def sample(self, params: GammaParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d); what underflows becomes the smallest normal number."""
        drawn = rng.gamma(params.shapes[k], params.scales[k], (n, params.shapes.shape[1]))
        return np.maximum(drawn, SMALLEST_NORMAL)

    def n_parameters(self, params: GammaParams) -> int:
        """Return 2 d for each free component."""
        return count_free(self.held, "shapes", params.shapes) + count_free(self.held, "scales", params.scales)


def _log_peaks(shapes: Array) -> Array:
    """Return a log a - a - log Gamma(a); by Stirling's series for large a, where the terms nearly cancel."""
    s = 1 / shapes**2
    stirling = (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s / 1188)))) / shapes
    series = 0.5 * (np.log(shapes) - LOG_2PI) - stirling
    return np.asarray(np.where(shapes >= LARGE, series, shapes * np.log(shapes) - shapes - gammaln(shapes)))
