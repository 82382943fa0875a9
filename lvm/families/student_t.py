"""What the multivariate Student t structures share: density, degrees of freedom, and the neutral start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.families.gaussian import with_floor
from lvm.kernels.degrees_of_freedom import LEAST, MOST, best_degrees_of_freedom
from lvm.kernels.estep import BOTH, DENSITIES, MOMENTS
from lvm.kernels.heavy_tails import HeavyParams, HeavyRoom
from lvm.kernels.moments import column_moments, sums_of_squares
from lvm.kernels.passes import run_pass
from lvm.kernels.workspace import NO_POSTERIOR, NO_RESPONSIBILITIES, Posterior
from lvm.protocol import DEAD_SHARE, count_free, keep_held

START = 20.0  # degrees of freedom: heavier tails than the Gaussian's, and light enough to be left either way


class StudentTParams(NamedTuple):
    """Means (K, d), scatters (K, d, d) or (K, d), degrees of freedom (K,), and the inverse factors of the scatters.

    These are inverse Cholesky factors (K, d, d), lower, or inverse square roots (K, d).
    """

    means: Array
    scatters: Array
    degrees_of_freedom: Array
    inverse_factors: Array


class StudentTStats(NamedTuple):
    """Sums over the rows, each in its distance delta and w = r / (1 + delta / nu) under the current parameters.

    Attributes
    ----------
    counts : ndarray of shape (K,)
        Sums of r.
    weights : ndarray of shape (K,)
        Sums of w.
    logarithms : ndarray of shape (K,)
        Sums of r log(1 + delta / nu).
    first : ndarray of shape (K, d)
        Sums of w (x - m), about the current means m.
    second : ndarray of shape (K, d, d) or (K, d)
        Sums of w (x - m)(x - m)', of which only the lower half counts; or of w (x - m)**2.
    """

    counts: Array
    weights: Array
    logarithms: Array
    first: Array
    second: Array


class StudentT(ABC):
    """Base of the structures of the scatter matrix.

    A row at the distance delta = (x - mean)' scatter^-1 (x - mean) has, with nu degrees of freedom, the density

    Gamma((nu + d) / 2) / Gamma(nu / 2) |pi nu scatter|**(-1/2) (1 + delta / nu)**(-(nu + d) / 2),

    so that far rows count less. An M-step takes, with u = (nu + d) / (nu + delta), the mean = sum r u x / sum r u and
    scatter = sum r u (x - mean)(x - mean)' / sum r of Peel & McLachlan (2000), section 4, and then the degrees of
    freedom that maximise a lower bound of the expected log-likelihood under r, see `best_degrees_of_freedom`. Both
    steps climb the same bound, by tangents to log(1 + delta / nu) in place of gamma variables of each row. It takes
    one pass over the rows, and no iteration lowers the likelihood.

    Parameters
    ----------
    degrees_of_freedom : {"separate", "common"} or float
        One for each component, or one for all of them, estimated between 0.1 and 1,000; or a number that stays.
    reg_covar : float
        Added to the diagonal of every scatter in the M-step, in squared units of the data: the exact maximiser with
        the penalty -reg_covar / 2 * sum_k N_k tr(inverse scatter_k) (`log_penalty`). 0 is maximum likelihood.
    held : mapping of str to ndarray of bool, optional
        Components whose "means", "scatters" or "degrees_of_freedom" the M-step keeps, as masks (K,).

    References
    ----------
    Peel & McLachlan (2000), "Robust mixture modelling using the t distribution", Statistics and Computing 10.
    Hunter & Lange (2004), "A tutorial on MM algorithms", The American Statistician 58 (tangents as bounds).
    """

    parameters: ClassVar[Mapping[str, str]]

    def __init__(
        self,
        degrees_of_freedom: str | float = "separate",
        reg_covar: float = 0.0,
        held: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        self.degrees_of_freedom = _degrees_of_freedom(degrees_of_freedom)
        self.reg_covar = _checks.real("reg_covar", reg_covar, 0.0)
        self.held = dict(held or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}(degrees_of_freedom={self.degrees_of_freedom!r}, reg_covar={self.reg_covar:g})"

    @abstractmethod
    def _inverse_factors(self, scatters: Array) -> Array:
        """Return the inverse factors of scatters, which are validated."""

    @abstractmethod
    def _axis_scatters(self, variances: Array) -> Array:
        """Return the scatters of K components with variances (K, d) and no correlations."""

    @abstractmethod
    def _variances(self, params: StudentTParams) -> Array:
        """Return the diagonals of the scatters, shape (K, d)."""

    @abstractmethod
    def _maximise(
        self, stats: StudentTStats, params: StudentTParams, shift: Array, free: NDArray[np.bool_]
    ) -> tuple[StudentTParams, Array]:
        """Return parameters with means moved by shift (K, d) and free (K,) scatters, and the sums of w delta' (K,)."""

    @abstractmethod
    def _scatters_to_vector(self, scatters: Array, factors: Array, scale: Array) -> Array:
        """Return unconstrained coordinates of scatters, in units of scale (d,)."""

    @abstractmethod
    def _scatters_from_vector(self, vector: Array, scale: Array, like: Array) -> Array:
        """Return the scatters that have these coordinates."""

    def _is_free(self, name: str, n_components: int) -> NDArray[np.bool_]:
        """Return the components whose parameter the M-step changes, as a mask (K,)."""
        if name == "degrees_of_freedom" and not isinstance(self.degrees_of_freedom, str):
            return np.zeros(n_components, np.bool_)
        return ~self.held.get(name, np.zeros(n_components, np.bool_))

    def params(self, means: Array, scatters: Array, degrees_of_freedom: Array) -> StudentTParams:
        """Return parameters from means (K, d), scatters (K, d, d) or (K, d), and degrees of freedom (K,)."""
        means = np.array(means, np.float64, order="C")
        if not np.isfinite(means).all():
            k, j = np.argwhere(~np.isfinite(means))[0]
            raise ValueError(f"means must be finite, got {means[k, j]} in component {k}, feature {j}.")
        nu = np.array(degrees_of_freedom, np.float64, order="C")
        bad = np.flatnonzero(~((nu > 0) & (nu < np.inf)))
        if len(bad):
            raise ValueError(f"degrees_of_freedom must be finite and > 0, got {nu[bad[0]]} in component {bad[0]}.")
        free = self._is_free("degrees_of_freedom", len(nu))
        if self.degrees_of_freedom == "common" and free.any():
            bad = np.flatnonzero(free & (nu != nu[free][0]))
            rule = "must be the same in all components"
        else:
            bad = np.flatnonzero(~isinstance(self.degrees_of_freedom, str) & (nu != self.degrees_of_freedom))
            rule = f"are fixed at {self.degrees_of_freedom}"
        if len(bad):
            raise ValueError(f"degrees_of_freedom {rule}, got {nu[0]} in component 0 and {nu[bad[0]]} in {bad[0]}.")
        scatters = np.array(scatters, np.float64, order="C")
        return StudentTParams(means, scatters, nu, self._inverse_factors(scatters))

    def canonical(self, X: Any) -> Array:
        """Return X as float64, C order, read-only; refuse NaN and infinities."""
        array: Array = canonical(X)
        _checks.matrix(array)
        try:
            _checks.finite(array)
        except ValueError as refused:
            hint = "Missing cells are accepted by families whose features are independent given the component."
            raise ValueError(f"{refused} {hint}" if np.isnan(array).any() else str(refused)) from None
        return array

    def start(self, X: Any, weight: Array, n_components: int) -> StudentTParams:
        """Return K equal components at the mean of X (n, d), with the variances of its columns as scatter."""
        mean, variance = np.empty(X.shape[1]), np.empty(X.shape[1])
        column_moments(self.canonical(X), canonical(weight), mean, variance)
        variance += self.reg_covar
        variance[variance == 0] = 1.0  # a constant column: any finite scale serves as a start
        means, variances = (np.repeat(row[None], n_components, axis=0) for row in (mean, variance))
        nu = START if isinstance(self.degrees_of_freedom, str) else self.degrees_of_freedom
        return self.params(means, self._axis_scatters(variances), np.full(n_components, nu))

    @abstractmethod
    def _gaussian(self, params: StudentTParams) -> Any:
        """Return parameters of Gaussian components with these means and scatters."""

    @staticmethod
    @abstractmethod
    def _room(m: int, d: int, K: int, dtype: np.dtype[Any]) -> HeavyRoom:
        """Return room for a pass, see `lvm.kernels.heavy_tails`."""

    def _run(
        self, X: Array, params: StudentTParams, posterior: Posterior, resp: Array, stats: StudentTStats, steps: int
    ) -> tuple[float, float, int]:
        heavy = HeavyParams(params.means, self._gaussian(params), params.degrees_of_freedom)
        return run_pass(X, heavy, posterior, resp, stats, steps, self._room)

    def log_density(self, X: Array, params: StudentTParams, out: Array) -> None:
        """Add log t(x_i; mean_k, scatter_k, degrees_of_freedom_k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        no_rows = self.zero_stats(StudentTParams(*(array[:0] for array in params)))
        self._run(X, params, NO_POSTERIOR, out, no_rows, DENSITIES)

    def accumulate(self, X: Array, resp: Array, params: StudentTParams, stats: StudentTStats) -> None:
        """Add the rows' sums, moments about the current means."""
        self._run(X, params, NO_POSTERIOR, resp, stats, MOMENTS)

    def estep(
        self, X: Array, params: StudentTParams, posterior: Posterior, stats: StudentTStats
    ) -> tuple[float, float, int]:
        """Add the rows' sums, densities and responsibilities at one go."""
        _checks.matching(X, params.means, posterior.offsets)
        return self._run(X, params, posterior, NO_RESPONSIBILITIES, stats, BOTH)

    def zero_stats(self, params: StudentTParams) -> StudentTStats:
        """Return the sums over no rows."""
        K = len(params.means)
        sums = np.zeros_like(params.means), np.zeros_like(params.scatters)
        return StudentTStats(np.zeros(K), np.zeros(K), np.zeros(K), *sums)

    def mstep(self, stats: StudentTStats, params: StudentTParams) -> StudentTParams:
        """Return means, scatters and degrees of freedom that raise the expected log-likelihood."""
        K = len(stats.counts)
        alive = stats.counts > DEAD_SHARE * stats.counts.sum()
        moves = (alive & self._is_free("means", K))[:, None]
        shift = np.divide(stats.first, stats.weights[:, None], out=np.zeros_like(stats.first), where=moves)
        new, distances = self._maximise(stats, params, shift, alive & self._is_free("scatters", K))
        free, nu = self._is_free("degrees_of_freedom", K), params.degrees_of_freedom.copy()
        terms = np.column_stack([stats.counts, stats.weights, stats.logarithms, distances, nu])[free & alive]
        d = params.means.shape[1]
        if self.degrees_of_freedom == "common" and len(terms):
            nu[free] = best_degrees_of_freedom(terms, d, LEAST, MOST)
        else:
            nu[free & alive] = [best_degrees_of_freedom(terms[i : i + 1], d, LEAST, MOST) for i in range(len(terms))]
        return new._replace(degrees_of_freedom=nu)

    def floored(self, X: Any, weight: Array, share: float) -> Self:
        """Return this family with a reg_covar of at least that share of the smallest variance > 0 of a column."""
        return with_floor(self, self.canonical(X), weight, share)

    def log_penalty(self, params: StudentTParams) -> Array:
        """Return -reg_covar / 2 * tr(inverse scatter) of each component, shape (K,)."""
        penalty = np.zeros(len(params.means))
        if self.reg_covar > 0:
            sums_of_squares(params.inverse_factors.reshape(len(penalty), -1, params.means.shape[1]), penalty)
            penalty *= -0.5 * self.reg_covar
        return penalty

    def _units(self, origin: StudentTParams) -> tuple[Array, Array]:
        """Return a location and a scale of each feature, (d,) each."""
        return origin.means.mean(axis=0), np.sqrt(self._variances(origin).mean(axis=0))

    def to_vector(self, params: StudentTParams, origin: StudentTParams) -> Array:
        """Return coordinates without units: means, scatters, and logarithms of the free degrees of freedom."""
        location, scale = self._units(origin)
        nu = np.log(params.degrees_of_freedom[self._is_free("degrees_of_freedom", len(params.means))])
        scatters = self._scatters_to_vector(params.scatters, params.inverse_factors, scale)
        shared = nu[:1] if self.degrees_of_freedom == "common" else nu
        return np.concatenate([((params.means - location) / scale).ravel(), scatters, shared])

    def from_vector(self, vector: Array, origin: StudentTParams) -> StudentTParams:
        """Return the parameters that have these coordinates; degrees of freedom out of bounds are put on them."""
        location, scale = self._units(origin)
        nu = origin.degrees_of_freedom.copy()
        free = self._is_free("degrees_of_freedom", len(nu))
        n_nu = min(1, free.sum()) if self.degrees_of_freedom == "common" else free.sum()
        means, rest, shared = np.split(vector, [origin.means.size, len(vector) - n_nu])
        if free.any():
            nu[free] = np.clip(np.exp(np.minimum(shared, 700.0)), min(LEAST, nu.min()), max(MOST, nu.max()))
        means = keep_held(self.held, "means", means.reshape(origin.means.shape) * scale + location, origin.means)
        scatters = self._scatters_from_vector(rest, scale, origin.scatters)
        return self.params(means, keep_held(self.held, "scatters", scatters, origin.scatters), nu)

    def sample(self, params: StudentTParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d)."""
        nu = params.degrees_of_freedom[k]
        normal = self._normal(params.scatters[k], n, rng)
        return np.asarray(params.means[k] + normal * np.sqrt(nu / rng.chisquare(nu, (n, 1))))

    @abstractmethod
    def _normal(self, scatter: Array, n: int, rng: np.random.RandomState) -> Array:
        """Draw n normal rows with mean 0 and this covariance, shape (n, d)."""

    def n_parameters(self, params: StudentTParams) -> int:
        """Return the number of free means, entries of scatters, and degrees of freedom."""
        K, d = params.means.shape
        n_nu = int(np.count_nonzero(self._is_free("degrees_of_freedom", K)))
        per_scatter = d * (d + 1) // 2 if params.scatters.ndim == 3 else d
        n_scatters = int(np.count_nonzero(self._is_free("scatters", K)))
        n_nu = min(1, n_nu) if self.degrees_of_freedom == "common" else n_nu
        return count_free(self.held, "means", params.means) + int(n_scatters * per_scatter) + n_nu


def _degrees_of_freedom(given: Any) -> str | float:
    """Return what is said of the degrees of freedom: "separate", "common" or a number > 0."""
    if isinstance(given, str) and given in ("separate", "common"):
        return given
    if isinstance(given, bool) or not isinstance(given, Real) or not 0 < float(given) < np.inf:
        raise _checks.ParameterError(
            f"degrees_of_freedom must be 'separate', 'common' or a finite number > 0, got {given!r}."
        )
    return float(given)
