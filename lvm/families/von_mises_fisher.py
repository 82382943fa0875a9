"""Directions: points on the unit sphere, each component about a mean direction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.families.gaussian_diag import DiagGaussianParams
from lvm.kernels.bessel import solve_concentrations, write_log_peaks
from lvm.kernels.components import Moments
from lvm.kernels.covariance import EPS, FAR, NOISE, ROUNDED
from lvm.kernels.estep import DENSITIES, MOMENTS
from lvm.kernels.passes import run_pass
from lvm.kernels.products import add_products, add_weighted_rows
from lvm.kernels.scaled import scaling_room
from lvm.kernels.strips import LOG_2PI
from lvm.kernels.workspace import NO_POSTERIOR
from lvm.protocol import DEAD_SHARE, DegenerateError, count_free, keep_held

UNIT = 1e-6  # how far the length of a row may be from 1: float32 and a few decimals pass
ROUNDED_UNIT = 4.0 * EPS  # rows of length 1 to rounding stay as they are
BLOCK_ROWS = 1 << 14
# Above it, densities and moments are taken from x - m. Below, products with x are several times as fast, and c x' m
# is rounded by no more than some 1e-12.
SHARP = 1e4
UNIFORM = 1e-20  # concentrations below it change no digit of a density


class VonMisesFisherParams(NamedTuple):
    """Unit vectors (K, d), concentrations (K,) >= 0, and the log densities at the mean directions (K,)."""

    directions: Array
    concentrations: Array
    log_peaks: Array


class VonMisesFisherStats(NamedTuple):
    """Sums of r, r (x - m) and r |x - m|**2 about the current mean directions m: (K,), (K, d), (K,)."""

    counts: Array
    first: Array
    second: Array


def _as_gaussians(params: VonMisesFisherParams) -> DiagGaussianParams:
    """Return Gaussians whose log densities on the sphere are those of params, each but for a constant.

    Since x' m = 1 - |x - m|**2 / 2: no large terms cancel.
    """
    concentrations = np.maximum(params.concentrations, UNIFORM)
    scales = np.repeat(np.sqrt(concentrations)[:, None], params.directions.shape[1], axis=1)
    return DiagGaussianParams(params.directions, 1 / concentrations, scales)


@final
class VonMisesFisher:
    """Unit vectors with density C_d(c) exp(c m' x) on the sphere: mean direction m, concentration c.

    A concentration of 0 is the uniform density; c (1 - m' x) is about half of a squared distance over a variance of
    1 / c. Rows of X have length 1 to within 1e-6, and are divided by their length where it differs from 1.

    Parameters
    ----------
    max_concentration : float, optional
        The largest concentration of the M-step, which then maximises under this bound. None is maximum likelihood:
        components whose points coincide, where it has no maximum, raise `DegenerateError`.
    held : mapping of str to ndarray of bool, optional
        Components whose "directions" or "concentrations" the M-step keeps, as masks (K,).

    References
    ----------
    Banerjee, Dhillon, Ghosh & Sra (2005), "Clustering on the unit hypersphere using von Mises-Fisher distributions",
    JMLR 6, equations 2.2 (density) and 3.9 to 3.11 (EM).
    Wood (1994), "Simulation of the von Mises Fisher distribution", Communications in Statistics 23.
    """

    parameters: ClassVar[Mapping[str, str]] = {"directions": "Kd", "concentrations": "K"}

    def __init__(
        self, max_concentration: float | None = None, held: Mapping[str, NDArray[np.bool_]] | None = None
    ) -> None:
        if max_concentration is not None:
            max_concentration = _checks.real("max_concentration", max_concentration, 0.0)
        self.max_concentration = max_concentration
        self._most = np.inf if max_concentration is None else max_concentration
        self.held = dict(held or {})

    def __repr__(self) -> str:
        most = self.max_concentration
        return f"VonMisesFisher(max_concentration={most if most is None else format(most, 'g')})"

    def params(self, directions: Array, concentrations: Array) -> VonMisesFisherParams:
        """Return parameters from unit vectors (K, d), d >= 2, and concentrations (K,) >= 0."""
        m, c = np.array(directions, np.float64, order="C"), np.array(concentrations, np.float64, order="C")
        lengths = require_directions(m)
        require_concentrations(c)
        off = np.abs(lengths - 1) > ROUNDED_UNIT
        m[off] /= lengths[off, None]
        return self._with_peaks(m, c)

    def _with_peaks(self, directions: Array, concentrations: Array) -> VonMisesFisherParams:
        d = directions.shape[1]
        log_peaks = np.empty(len(directions))
        write_log_peaks(d, concentrations, log_peaks)
        log_area = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)  # of the unit sphere
        return VonMisesFisherParams(directions, concentrations, log_peaks - log_area)

    def canonical(self, X: Any) -> Array:
        """Return X as read-only float64 (n, d), with rows of length 1; refuse other lengths and missing cells."""
        array: Array = canonical(X)
        _checks.matrix(array)
        n, d = array.shape
        if d < 2:
            raise ValueError(f"X must have 2 columns or more to hold directions, got {d}.")
        _refuse_missing(array)
        _checks.finite(array)
        lengths = np.empty(n)
        for start in range(0, n, BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            with np.errstate(over="ignore"):
                lengths[part] = np.sqrt(np.einsum("ij,ij->i", array[part], array[part]))
        bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT))
        if len(bad):
            raise ValueError(
                f"rows of X must have length 1, got length {lengths[bad[0]]:.6g} in row {bad[0]}; divide each row by "
                "its length, as sklearn.preprocessing.normalize does, and remove rows of zeros."
            )
        off = np.abs(lengths - 1) > ROUNDED_UNIT * math.sqrt(d)
        if not off.any():
            return array
        unit = np.array(array)
        unit[off] /= lengths[off, None]
        return canonical(unit)

    def start(self, X: Any, weight: Array, n_components: int) -> VonMisesFisherParams:
        """Return K equal components that fit all rows."""
        total = weight @ X
        length = np.linalg.norm(total)
        direction = total / length if length > 0 else np.eye(1, X.shape[1])[0]
        params = self._with_peaks(np.array(direction[None], np.float64), np.ones(1))
        stats = self.zero_stats(params)
        self.accumulate(X, np.array(weight[None], np.float64), params, stats)
        with suppress(DegenerateError):  # where all rows coincide, any concentration serves as a start
            params = VonMisesFisher(self.max_concentration).mstep(stats, params)
        return self._with_peaks(np.repeat(params[0], n_components, axis=0), np.repeat(params[1], n_components))

    def log_density(self, X: Array, params: VonMisesFisherParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.directions, out)
        directions, concentrations, log_peaks = params
        if _is_sharp(params):
            gaussians = _as_gaussians(params)
            log_norms = np.log(gaussians.inverse_scales).sum(axis=1) - 0.5 * LOG_2PI * X.shape[1]
            no_rows = Moments(np.empty(0), *np.empty((2, 0, 0)))
            prior = NO_POSTERIOR._replace(offsets=log_peaks - log_norms)
            run_pass(X, gaussians, prior, out, no_rows, DENSITIES, scaling_room)
        else:
            table = concentrations[:, None] * directions
            add_products(X, table, log_peaks - concentrations, canonical(np.zeros(len(X))), out)

    def zero_stats(self, params: VonMisesFisherParams) -> VonMisesFisherStats:
        """Return the moments of no rows."""
        K, d = params.directions.shape
        return VonMisesFisherStats(np.zeros(K), np.zeros((K, d)), np.zeros(K))

    def accumulate(self, X: Array, resp: Array, params: VonMisesFisherParams, stats: VonMisesFisherStats) -> None:
        """Add the rows' moments about the current mean directions."""
        if _is_sharp(params):
            squares = np.zeros_like(stats.first)
            gaussians, moments = _as_gaussians(params), Moments(stats.counts, stats.first, squares)
            run_pass(X, gaussians, NO_POSTERIOR, resp, moments, MOMENTS, scaling_room)
            stats.second[:] += squares.sum(axis=1)
            return
        counts, sums = np.zeros_like(stats.counts), np.zeros_like(stats.first)
        add_weighted_rows(X, resp, counts, sums)
        sums -= counts[:, None] * params.directions
        stats.counts[:] += counts
        stats.first[:] += sums
        stats.second[:] -= 2 * np.sum(params.directions * sums, axis=1)  # |x - m|**2 = -2 m' (x - m)

    def mstep(self, stats: VonMisesFisherStats, params: VonMisesFisherParams) -> VonMisesFisherParams:
        """Return the mean directions, and the concentrations that belong to the mean lengths.

        The mean direction m and the mean row y have |y|**2 = 1 - (mean |x - m|**2 - |y - m|**2), and m' y =
        1 - mean |x - m|**2 / 2: what is missing to 1 has all of its digits, also where points lie close together.
        """
        alive = stats.counts > DEAD_SHARE * stats.counts.sum()
        counts = np.where(alive, stats.counts, 1.0)
        shift = stats.first / counts[:, None]
        square = stats.second / counts
        if not _is_sharp(params):  # below the rounding of products; the next statistics, at what follows, know better
            square = np.maximum(square, ROUNDED * EPS)
        moved = np.sum(shift**2, axis=1)
        spread = np.where(moved > FAR * square, np.maximum(square - moved, ROUNDED * EPS * square), square - moved)
        mean = params.directions + shift
        lengths = np.sqrt(np.sum(mean**2, axis=1))
        free = alive & (lengths > 0)
        directions = np.where(free[:, None], mean / np.where(free, lengths, 1.0)[:, None], params.directions)
        directions = keep_held(self.held, "directions", directions, params.directions)
        # The length of the mean row where the direction is free, its part along the direction where that is held.
        complements = keep_held(self.held, "directions", spread / (1 + lengths), square / 2)
        lengths = np.where(complements < 0.5, 1 - complements, lengths)
        lengths = keep_held(self.held, "directions", lengths, np.maximum(1 - square / 2, 0.0))
        concentrations = self._concentrations(lengths, complements, directions.shape[1])
        concentrations = np.where(alive, concentrations, params.concentrations)
        concentrations = keep_held(self.held, "concentrations", concentrations, params.concentrations)
        infinite = np.flatnonzero(~np.isfinite(concentrations))
        if len(infinite):
            raise DegenerateError(
                f"the concentration of component {infinite[0]} is infinite: its points coincide to rounding; lower "
                "n_components, set max_concentration, or remove repeated rows.",
                int(infinite[0]),
            )
        return self._with_peaks(directions, concentrations)

    def floored(self, X: Any, weight: Array, share: float) -> VonMisesFisher:
        """Return this family with concentrations of at most 1 / share, about the inverse of a variance."""
        return VonMisesFisher(min(self._most, 1 / share), self.held)

    def _concentrations(self, lengths: Array, complements: Array, d: int) -> Array:
        """Return the best concentrations for means of these lengths (K,), which lack so much to 1."""
        coincide = 2 * complements <= NOISE**2
        found = np.empty(len(lengths))
        solve_concentrations(d, np.where(coincide, 0.0, lengths), np.where(coincide, 1.0, complements), found)
        # The expected log-likelihood is concave in the concentration: beyond the bound, the bound is best.
        return np.minimum(np.where(coincide, np.inf, found), self._most)

    def to_vector(self, params: VonMisesFisherParams, origin: VonMisesFisherParams) -> Array:
        """Return the directions, and the logarithms of the concentrations, near 0 the concentrations themselves."""
        return np.concatenate([params.directions.ravel(), np.log1p(params.concentrations)])

    def from_vector(self, vector: Array, origin: VonMisesFisherParams) -> VonMisesFisherParams:
        """Return the parameters that have these coordinates, with directions of length 1."""
        directions, logarithms = np.split(vector, [origin.directions.size])
        directions = directions.reshape(origin.directions.shape)
        concentrations = np.clip(np.expm1(logarithms), 0.0, self._most)
        concentrations = keep_held(self.held, "concentrations", concentrations, origin.concentrations)
        return self.params(directions / np.linalg.norm(directions, axis=1, keepdims=True), concentrations)

    def sample(self, params: VonMisesFisherParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d), by Wood's rejection."""
        direction = params.directions[k]
        gap = _draw_gaps(float(params.concentrations[k]), len(direction), n, rng)
        tangent = rng.standard_normal((n, len(direction)))
        tangent -= np.outer(tangent @ direction, direction)
        tangent *= (np.sqrt(gap * (2 - gap)) / np.linalg.norm(tangent, axis=1))[:, None]
        X = direction - gap[:, None] * direction + tangent
        return np.asarray(X / np.linalg.norm(X, axis=1, keepdims=True))

    def n_parameters(self, params: VonMisesFisherParams) -> int:
        """Return d - 1 for each free direction, and 1 for each free concentration."""
        angles = count_free(self.held, "directions", params.directions[:, 1:])
        return angles + count_free(self.held, "concentrations", params.concentrations)


def require_directions(directions: Array) -> Array:
    """Return the lengths of mean directions (K, d); refuse other lengths than 1."""
    lengths = np.sqrt(np.sum(directions**2, axis=1))
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT))
    if len(bad):
        raise ValueError(f"directions must have length 1, got length {lengths[bad[0]]:.6g} in component {bad[0]}.")
    return np.asarray(lengths)


def require_concentrations(concentrations: Array) -> None:
    """Refuse concentrations (K,) that are not finite or below 0."""
    bad = np.flatnonzero(~((concentrations >= 0) & (concentrations < np.inf)))
    if len(bad):
        raise ValueError(
            f"concentrations must be finite and >= 0, got {concentrations[bad[0]]:g} in component {bad[0]}."
        )


def _is_sharp(params: VonMisesFisherParams) -> bool:
    return bool(params.concentrations.max() > SHARP)


def _refuse_missing(X: Array) -> None:
    for start in range(0, len(X), BLOCK_ROWS):
        missing = np.argwhere(np.isnan(X[start : start + BLOCK_ROWS]))
        if len(missing):
            raise ValueError(
                f"Input X contains NaN at row {start + missing[0][0]}, column {missing[0][1]}; a direction needs all "
                "of its coordinates. Remove or impute such rows first; families whose features are independent given "
                "the component accept missing cells."
            )


def _draw_gaps(concentration: float, d: int, n: int, rng: np.random.RandomState) -> Array:
    """Draw 1 - m' x for n rows x: Wood's algorithm VM*, in terms that keep their digits at high concentrations."""
    b = (d - 1) / (2 * concentration + math.hypot(2 * concentration, d - 1))
    edge = 2 * b / (1 + b)  # 1 - x0 of the paper
    gaps = np.empty(0)
    while len(gaps) < n:
        z = rng.beta((d - 1) / 2, (d - 1) / 2, n - len(gaps))
        gap = 2 * b * z / (1 - (1 - b) * z)
        # The paper's log ratio c w + (d - 1) log(1 - x0 w) - c x0 - (d - 1) log(1 - x0**2), with w = 1 - gap.
        ratio = (edge + (1 - edge) * gap) / (edge * (2 - edge))
        log_accept = concentration * (edge - gap) + (d - 1) * np.log(ratio)
        gaps = np.concatenate([gaps, gap[np.log(1 - rng.random_sample(len(gap))) <= log_accept]])
    return gaps
