"""Factor analysis and probabilistic principal components: maximum likelihood by EM on the moments of the data."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solve_triangular

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.families.gaussian_factor import LEAST_EXPLAINED, factor_posterior, factor_step, is_noise, principal_loadings
from lvm.families.gaussian_full import FullGaussian, FullGaussianParams
from lvm.kernels.factors import maximise_noise
from lvm.kernels.moments import column_moments
from lvm.kernels.strips import LOG_2PI
from lvm.protocol import DegenerateError, Rows

GAUSSIAN = FullGaussian()
BLOCK_ROWS = 1 << 12
# More noise variances than this are not maximised one by one, at a cost of their number cubed.
MAX_SWEPT = 300
SINGULAR = 1e-10  # a correlation matrix with a smaller eigenvalue has no inverse to start from


class MomentRows(NamedTuple):
    """Groups of observations, of which the moments alone are known: a sample is one such row.

    Attributes
    ----------
    mean : ndarray of shape (m, d)
        Mean of each group.
    second : ndarray of shape (m, d, d)
        Its covariance about that, divided by the weight.
    weight : ndarray of shape (m,), optional
        Weight of its observations together; None means all 1.
    """

    mean: Array
    second: Array
    weight: Array | None = None


class FactorParams(NamedTuple):
    """Mean (d,), loadings (d, q) and noise variances (d,) of x = mean + loadings z + noise, z ~ N(0, I)."""

    mean: Array
    loadings: Array
    noise_variances: Array

    @property
    def covariance(self) -> Array:
        """Covariance of the observations, shape (d, d)."""
        return np.asarray(self.loadings @ self.loadings.T + np.diag(self.noise_variances))


class FactorStats(NamedTuple):
    """Log-likelihood, weight, and expected sums of x about the current mean m, and of (x - m)(x - m)': (d,), (d, d)."""

    loglik: float
    weight: float
    first: Array
    second: Array


def sample_moments(X: Array, weight: Array | None) -> MomentRows:
    """Return weight, mean and covariance of canonical observations (n, d) without holes, as one row."""
    given = canonical(np.ones(len(X))) if weight is None else weight
    mean, variance = np.empty(X.shape[1]), np.empty(X.shape[1])
    column_moments(X, given, mean, variance)
    second, rest = np.zeros((len(mean), len(mean))), np.zeros(len(mean))
    for start in range(0, len(X), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        centred = X[part] - mean
        weighted = given[part, None] * centred
        second += weighted.T @ centred
        rest += weighted.sum(axis=0)
    total = float(given.sum())
    second = second / total - np.outer(rest, rest) / total**2
    return MomentRows((mean + rest / total)[None], (second + second.T)[None] / 2, np.array([total]))


@final
class FactorModel:
    """One Gaussian with the covariance L L' + Psi, where L has few columns and Psi is diagonal.

    Rows are `MomentRows`, of which an iteration takes time that does not depend on the number of observations; or
    `Rows` of observations, where some cells may be missing (NaN): the E-step then completes the moments, given the
    present covariance, and the M-step is the same.

    Parameters
    ----------
    isotropic : bool
        Whether all features have the same noise variance (probabilistic principal components).
    min_noise_variance : float or array-like of shape (d,)
        What noise variances cannot fall below, in squared units of the data.

    References
    ----------
    Rubin & Thayer (1982), "EM algorithms for ML factor analysis", Psychometrika 47, section 3. Tipping & Bishop (1999),
    "Probabilistic principal component analysis", JRSS B 61, appendix B. Liu & Rubin (1994), "The ECME algorithm: a
    simple extension of EM and ECM with faster monotone convergence", Biometrika 81.
    """

    def __init__(self, isotropic: bool = False, min_noise_variance: ArrayLike = 0.0) -> None:
        self.isotropic = bool(isotropic)
        floor = np.array(min_noise_variance, np.float64)
        if floor.ndim > 1 or not np.all((floor >= 0) & (floor < np.inf)):
            raise ValueError(f"min_noise_variance must be finite and >= 0, one number or (d,), got {floor}.")
        self.min_noise_variance: Array = floor

    def __repr__(self) -> str:
        return f"FactorModel(isotropic={self.isotropic})"

    def canonical(self, rows: Any) -> Any:
        """Return the rows validated, in the dtypes and layouts of the kernels."""
        if isinstance(rows, MomentRows):
            mean, second = canonical(rows.mean), canonical(rows.second)
            m, d = mean.shape
            weight = None if rows.weight is None else _checks.row_weights(rows.weight, m, "rows.weight")
            if second.shape != (m, d, d):
                raise ValueError(
                    f"{m} groups of {d} features need covariances of shape {(m, d, d)}, got {second.shape}."
                )
            if not (np.isfinite(mean).all() and np.isfinite(second).all()):
                raise ValueError("the moments must be finite; remove rows or columns that overflow.")
            return MomentRows(mean, second, weight)
        X = GAUSSIAN.canonical(rows.X)
        weight = None if rows.weight is None else _checks.row_weights(rows.weight, len(X), "rows.weight")
        return Rows(X, weight, None)

    def start(self, moments: MomentRows, n_factors: int) -> FactorParams:
        """Return principal axes as loadings.

        Those of Jöreskog's start: noise variances from the multiple correlations, and the loadings that are best given
        these; with isotropic noise, the maximum itself (Tipping & Bishop, 1999, equations 7 and 8).
        """
        (mean,), (second,), _ = self.canonical(moments)
        d, q = len(mean), n_factors
        if self.isotropic:
            values, vectors = np.linalg.eigh(second)
            noise = max(float(values[: d - q].mean()), float(self._floor(d).max()), np.finfo(np.float64).tiny)
            excess = np.maximum(values[::-1][:q] - noise, 0.0)
            return FactorParams(
                mean, np.ascontiguousarray(vectors[:, ::-1][:, :q] * np.sqrt(excess)), np.full(d, noise)
            )
        scale = np.sqrt(np.diag(second))
        correlations = second / np.outer(scale, scale)
        values, vectors = np.linalg.eigh(correlations)
        unique = np.full(d, 0.5)
        if values[0] > SINGULAR:
            unique = (1 - 0.5 * q / d) / np.sum(vectors**2 / values, axis=1)
        unique = np.maximum(np.maximum(unique, 1e-3), self.min_noise_variance / scale**2)
        loadings = principal_loadings(correlations, unique, q, LEAST_EXPLAINED)
        return FactorParams(mean, loadings * scale[:, None], unique * scale**2)

    def _floor(self, d: int) -> Array:
        return np.broadcast_to(self.min_noise_variance, (d,))

    def _gaussian(self, params: FactorParams) -> FullGaussianParams:
        return GAUSSIAN.params(params.mean[None], params.covariance[None])

    def estep_stats(self, rows: Any, params: FactorParams) -> FactorStats:
        """Return the (expected) moments about the current mean."""
        if isinstance(rows, MomentRows):
            weight = np.ones(len(rows.mean)) if rows.weight is None else rows.weight
            shift = rows.mean - params.mean
            weighted = weight[:, None] * shift
            second = np.tensordot(weight, rows.second, 1) + weighted.T @ shift
            loglik = float(weight @ self.loglik(rows, params))
            return FactorStats(loglik, float(weight.sum()), weighted.sum(axis=0), second)
        weight = np.ones(len(rows.X)) if rows.weight is None else np.array(rows.weight)
        gaussian = self._gaussian(params)
        logliks, stats = np.zeros((1, len(weight))), GAUSSIAN.zero_stats(gaussian)
        GAUSSIAN.log_density(rows.X, gaussian, logliks)
        GAUSSIAN.accumulate(rows.X, weight[None], gaussian, stats)
        lower = np.tril(stats.second[0])
        second = lower + np.tril(lower, -1).T
        return FactorStats(float(logliks[0] @ weight), float(weight.sum()), stats.first[0], second)

    def mstep(self, stats: FactorStats, params: FactorParams) -> FactorParams:
        """Return the mean, and loadings and noise variances after one EM step about it and two steps of ECME.

        These maximise what the EM step raises (Liu & Rubin, 1994): over each noise variance given all else, where there
        are not too many features, then over the loadings given these. EM alone takes up to a thousand times as many
        iterations, and creeps towards noise variances at their bound. Loadings are turned to be near the ones before.
        """
        shift = stats.first / stats.weight
        second = stats.second / stats.weight - np.outer(shift, shift)
        posterior = factor_posterior(params.loadings, params.noise_variances)
        variances = np.diagonal(second)
        loadings, noise = factor_step(posterior, variances, second @ posterior.coefficients.T)
        if self.isotropic:
            noise = np.full(len(noise), noise.mean())
            variances = np.full(len(noise), variances.mean())
        noise = np.maximum(noise, self._floor(len(noise)).max() if self.isotropic else self.min_noise_variance)
        if not self.isotropic and len(noise) <= MAX_SWEPT:
            precision = np.linalg.inv(loadings @ loadings.T + np.diag(noise))
            maximise_noise(precision, precision @ second @ precision, np.array(self._floor(len(noise))), noise)
        vanished = is_noise(noise, variances, params.mean + shift)
        if vanished.any():
            raise DegenerateError(
                f"the noise variance of column {vanished.argmax()} is 0 to rounding: the factors leave none; lower "
                "n_factors, set or increase min_noise_variance, or remove collinear columns."
            )
        best = principal_loadings(second, noise, loadings.shape[1])
        left, _, right = np.linalg.svd(best.T @ (loadings / noise[:, None]))
        return FactorParams(params.mean + shift, np.ascontiguousarray(best @ (left @ right)), noise)

    def loglik(self, rows: Any, params: FactorParams) -> Array:
        """Return the log-likelihood of each row, shape (n,): per unit of weight for the observations of a group."""
        if not isinstance(rows, MomentRows):
            out = np.zeros((1, len(rows.X)))
            GAUSSIAN.log_density(rows.X, self._gaussian(params), out)
            return np.asarray(out[0])
        covariance = params.covariance
        scale = np.sqrt(np.diagonal(covariance))
        factor = np.linalg.cholesky(covariance / np.outer(scale, scale))
        root = solve_triangular(factor, np.diag(1 / scale), lower=True)
        log_det = 2 * float(np.log(np.diagonal(factor) * scale).sum())
        whitened = (rows.mean - params.mean) @ root.T
        spread = np.sum(rows.second * (root.T @ root), axis=(1, 2)) + np.square(whitened).sum(axis=1)
        return np.asarray(-0.5 * (len(scale) * LOG_2PI + log_det + spread))

    def sample(self, params: FactorParams, n: int, rng: np.random.RandomState) -> tuple[Array, None]:
        """Draw n observations (n, d)."""
        d, q = params.loadings.shape
        factors, noise = rng.standard_normal((n, q)), rng.standard_normal((n, d))
        return params.mean + factors @ params.loadings.T + noise * np.sqrt(params.noise_variances), None

    def n_parameters(self, params: FactorParams) -> int:
        """Return d + d q + (d or 1) - q (q - 1) / 2: means, loadings and noise, less the rotations of the factors."""
        d, q = params.loadings.shape
        return int(d + d * q + (1 if self.isotropic else d) - q * (q - 1) // 2)

    def to_vector(self, params: FactorParams, origin: FactorParams) -> Array:
        """Return mean and loadings, without units, and the logarithms of the noise variances."""
        scale = np.sqrt(np.diagonal(origin.covariance))
        logarithms = np.log(params.noise_variances / scale**2)
        logarithms = np.log(params.noise_variances[:1]) if self.isotropic else logarithms
        parts = (params.mean - origin.mean) / scale, (params.loadings / scale[:, None]).ravel(), logarithms
        return np.concatenate(parts)

    def from_vector(self, vector: Array, origin: FactorParams) -> FactorParams:
        """Return the parameters that have these coordinates; noise variances out of bounds are put on the bound."""
        d, q = origin.loadings.shape
        scale = np.sqrt(np.diagonal(origin.covariance))
        mean, loadings, logarithms = np.split(vector, [d, d + d * q])
        noise = np.exp(logarithms) * (1.0 if self.isotropic else scale**2)
        floor = self._floor(d).max() if self.isotropic else self.min_noise_variance
        noise = np.maximum(np.broadcast_to(noise, (d,)), floor)
        return FactorParams(mean * scale + origin.mean, loadings.reshape(d, q) * scale[:, None], noise)


def posterior_factors(X: Array, mean: Array, loadings: Array, noise: Array, correlations: Array) -> tuple[Array, Array]:
    """Return posterior means (n, q) and covariances (n, q, q) of factors, given what is observed of X (n, d).

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Observations, NaN where missing.
    mean, loadings, noise : ndarray of shape (d,), (d, q), (d,)
        Parameters.
    correlations : ndarray of shape (q, q)
        Covariance of the factors.
    """
    holes = np.isnan(X)
    patterns, place = np.unique(holes, axis=0, return_inverse=True) if holes.any() else (holes[:1], None)
    centred = np.where(holes, 0.0, X - mean)
    prior = np.linalg.inv(correlations)
    covariances, means = [], np.empty((len(X), loadings.shape[1]))
    for index, missing in enumerate(patterns):
        scaled = np.where(missing[:, None], 0.0, loadings / noise[:, None])
        covariances.append(np.linalg.inv(prior + scaled.T @ loadings))
        here = slice(None) if place is None else place.ravel() == index
        means[here] = centred[here] @ scaled @ covariances[-1]
    every = np.array(covariances)
    if place is None:
        return means, np.broadcast_to(every[0], (len(X), *every[0].shape))
    return means, every[place.ravel()]
