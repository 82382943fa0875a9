"""Gaussian components whose covariances few factors make up: for many features, at a cost linear in them.

x = mean + L z + e, factors z ~ N(0, I), noise e ~ N(0, Psi), Psi diagonal: the covariance is L L' + Psi. Given x, the
factors have the covariance V = (I + L' Psi^-1 L)^-1 and the mean beta (x - mean), beta = V L' Psi^-1. With S the second
moments of the rows about the new mean, the M-step is (Rubin & Thayer, 1982, section 3; Ghahramani & Hinton, 1996)

L <- S beta' (V + beta S beta')^-1,    Psi <- diag(S - L beta S).

It needs of S the diagonal and S beta' (d, q) alone. The mean comes first, as in the AECM algorithm: since it does not
depend on what the factors are, the objective cannot fall (McLachlan & Peel, 2000, section 8.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.kernels.covariance import COLLINEAR, EPS, NOISE
from lvm.kernels.factors import add_factor_densities, add_factor_moments
from lvm.kernels.moments import column_moments
from lvm.kernels.strips import LOG_2PI
from lvm.protocol import DEAD_SHARE, DegenerateError, count_free, free_part, keep_held

START_ROWS = 1000  # more do not improve the principal axes of a start
# Starting factors explain at least this share of a noise variance: from loadings of 0 EM would not move.
LEAST_EXPLAINED = 0.01


class Posterior(NamedTuple):
    """Of factors given rows: coefficients beta (..., q, d) and covariance V (..., q, q)."""

    coefficients: Array
    covariance: Array


def factor_posterior(loadings: Array, noise_variances: Array) -> Posterior:
    """Return the posterior of the factors for loadings (..., d, q) and noise variances (..., d)."""
    scaled = np.swapaxes(loadings, -1, -2) / noise_variances[..., None, :]
    precision = scaled @ loadings
    precision = (precision + np.swapaxes(precision, -1, -2)) / 2 + np.eye(loadings.shape[-1])
    covariance = np.linalg.inv(precision)
    return Posterior(np.asarray(covariance @ scaled), np.asarray(covariance, np.float64))


def factor_step(posterior: Posterior, variances: Array, projected: Array, held: Array | None = None) -> Any:
    """Return new loadings (..., d, q) and noise variances (..., d).

    Parameters
    ----------
    posterior : Posterior
        At the present parameters.
    variances : ndarray of shape (..., d)
        Diagonal of the second moments S about the new mean.
    projected : ndarray of shape (..., d, q)
        S beta'.
    held : ndarray of shape (..., d, q), optional
        Loadings to keep; the noise variances are then the best given these.
    """
    second = posterior.covariance + posterior.coefficients @ projected
    second = (second + np.swapaxes(second, -1, -2)) / 2
    if held is None:
        loadings = np.swapaxes(np.linalg.solve(second, np.swapaxes(projected, -1, -2)), -1, -2)
        return loadings, variances - np.sum(loadings * projected, axis=-1)
    return held, variances - np.sum(held * (2 * projected - held @ second), axis=-1)


def principal_loadings(second: Array, noise: Array, n_factors: int, least: float = 0.0) -> Array:
    """Return the best loadings (d, q) given noise variances (d,), for second moments S (d, d) about the mean.

    They are those of Jöreskog (1967), equation 15, from the largest eigenvalues theta of Psi^-1/2 S Psi^-1/2:
    Psi^1/2 U (theta - 1)^1/2, with `least` in place of a smaller theta - 1.
    """
    root, d = np.sqrt(noise), len(noise)
    values, vectors = eigh(second / np.outer(root, root), subset_by_index=[d - n_factors, d - 1])
    return np.asarray(root[:, None] * vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1] - 1, least)))


def is_noise(noise: Array, variances: Array, means: Array) -> NDArray[np.bool_]:
    """Return where noise variances are 0 but for rounding, given the variances that they are a part of."""
    d = means.shape[-1]
    return np.asarray(~(noise > np.maximum(COLLINEAR * EPS * d * variances, (NOISE * means) ** 2)))


class FactorGaussianParams(NamedTuple):
    """Means (K, d), loadings (K, d, q) and noise variances (K, d); behind these, what the kernels need.

    Attributes
    ----------
    means, loadings, noise_variances : ndarray
        What the user knows.
    inverse_scales : ndarray of shape (K, d)
        Inverse roots of the noise variances.
    whitening, posterior : ndarray of shape (K, e, d)
        G and M^-1 A' of `lvm.kernels.factors`, with a row of zeros where q is odd.
    log_norms : ndarray of shape (K,)
        Log densities at the means.
    """

    means: Array
    loadings: Array
    noise_variances: Array
    inverse_scales: Array
    whitening: Array
    posterior: Array
    log_norms: Array


class FactorGaussianStats(NamedTuple):
    """Sums over rows of responsibilities r, of x about the mean m and of posterior means y of the factors, both now.

    Attributes
    ----------
    counts : ndarray of shape (K,)
        Sums of r.
    square : ndarray of shape (K, d)
        Sums of r (x - m)**2 / Psi.
    products : ndarray of shape (K, 1 + q, d)
        Sums of r (x - m)' Psi^-1/2, and of r y (x - m)' Psi^-1/2.
    """

    counts: Array
    square: Array
    products: Array


@final
class FactorGaussian:
    """Each component has the covariance L L' + Psi: loadings L (d, q) of few factors, and a noise variance per feature.

    Densities and statistics take rows x d x q operations; nothing has the size d x d.

    Parameters
    ----------
    n_factors : int
        Number q of factors, of each component; at least 1.
    min_noise_variance : float or array-like of shape (d,)
        What noise variances cannot fall below, in squared units of the data. Without, a component whose noise
        vanishes in a feature (Heywood case) has an infinite likelihood, or EM creeps towards it. The M-step is the
        maximum within the bound, so that EM stays monotone.
    held : mapping of str to ndarray of bool, optional
        Components whose "means", "loadings" or "noise_variances" the M-step keeps, as masks (K,).

    References
    ----------
    Ghahramani & Hinton (1996), "The EM algorithm for mixtures of factor analyzers", technical report CRG-TR-96-1.
    McLachlan & Peel (2000), "Finite Mixture Models", chapter 8.
    """

    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "loadings": "Kdq", "noise_variances": "Kd"}
    ignores_negligible = True

    def __init__(
        self,
        n_factors: int = 1,
        min_noise_variance: ArrayLike = 0.0,
        held: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        self.n_factors = _checks.integer("n_factors", n_factors, 1)
        floor = np.array(min_noise_variance, np.float64)
        if floor.ndim > 1 or not np.all((floor >= 0) & (floor < np.inf)):
            raise ValueError(f"min_noise_variance must be finite and >= 0, one number or (d,), got {floor}.")
        self.min_noise_variance: Array = floor
        self.held = dict(held or {})

    def __repr__(self) -> str:
        return f"FactorGaussian(n_factors={self.n_factors})"

    def params(self, means: Array, loadings: Array, noise_variances: Array) -> FactorGaussianParams:
        """Return parameters from means (K, d), loadings (K, d, q) and noise variances (K, d), all > 0."""
        means, loadings, noise = (
            np.array(array, np.float64, order="C") for array in (means, loadings, noise_variances)
        )
        if loadings.shape != (*means.shape, self.n_factors):
            raise ValueError(f"loadings should have the shape {(*means.shape, self.n_factors)}, got {loadings.shape}.")
        if noise.shape != means.shape:
            raise ValueError(f"noise_variances should have the shape {means.shape}, got {noise.shape}.")
        for name, array, valid in (
            ("means must be finite", means, np.isfinite(means)),
            ("loadings must be finite", loadings, np.isfinite(loadings)),
            ("noise_variances must be finite and > 0", noise, (noise > 0) & (noise < np.inf)),
        ):
            if not valid.all():
                k, j = np.argwhere(~valid)[0][:2]
                raise ValueError(f"{name}, got {array[~valid][0]} in component {k}, feature {j}.")
        return self._params(means, loadings, noise)

    def _params(self, means: Array, loadings: Array, noise: Array) -> FactorGaussianParams:
        root = np.sqrt(noise)
        scaled = np.swapaxes(loadings / root[:, :, None], 1, 2)  # A'
        q, d = scaled.shape[1:]
        precision = scaled @ np.swapaxes(scaled, 1, 2) + np.eye(q)
        factor = np.linalg.cholesky(precision)
        padding = ((0, 0), (0, q % 2), (0, 0))
        whitening = np.pad(np.linalg.solve(factor, scaled), padding)
        posterior = np.pad(np.linalg.solve(precision, scaled), padding)
        log_det = np.log(root).sum(axis=1) + np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        return FactorGaussianParams(
            means,
            loadings,
            noise,
            1 / root,
            np.ascontiguousarray(whitening),
            np.ascontiguousarray(posterior),
            -0.5 * d * LOG_2PI - log_det,
        )

    def canonical(self, X: Any) -> Array:
        """Return X (n, d) as float64, C order, read-only; refuse what is not finite."""
        array = canonical(X)
        _checks.matrix(array)
        _checks.finite(array)
        return array

    def start(self, X: Any, weight: Array, n_components: int) -> FactorGaussianParams:
        """Return K equal components at the mean of X (n, d), with its principal axes as loadings."""
        X, weight = self.canonical(X), canonical(weight)
        mean, variance = np.empty(X.shape[1]), np.empty(X.shape[1])
        column_moments(X, weight, mean, variance)
        variance[variance == 0] = 1.0  # a constant column: any finite scale serves as a start
        counted = np.flatnonzero(weight > 0)
        some = counted[np.linspace(0, len(counted) - 1, min(START_ROWS, len(counted))).astype(np.int64)]
        scaled = (X[some] - mean) * np.sqrt(weight[some, None] / variance / weight[some].sum())
        m, d = scaled.shape
        q, found = self.n_factors, min(self.n_factors, m, d)
        loadings, explained = (
            np.eye(d)[np.arange(q) % d],
            np.zeros(q),
        )  # with fewer axes than factors, features stand in
        products = scaled.T @ scaled if d <= m else scaled @ scaled.T
        values, vectors = eigh(products, subset_by_index=[len(products) - found, len(products) - 1])
        explained[:found] = values[::-1]
        axes = (
            vectors.T
            if d <= m
            else vectors.T @ scaled / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny))[:, None]
        )
        loadings[:found] = axes[::-1]
        noise = max(1 - explained.sum() / d, LEAST_EXPLAINED)
        loadings *= np.sqrt(np.maximum(explained - noise, LEAST_EXPLAINED))[:, None]
        of_each = np.maximum(np.maximum(1 - np.square(loadings).sum(axis=0), 0.1) * variance, self.min_noise_variance)
        scaled = np.ascontiguousarray((loadings * np.sqrt(variance)).T)
        return self.params(*(np.repeat(array[None], n_components, axis=0) for array in (mean, scaled, of_each)))

    def log_density(self, X: Array, params: FactorGaussianParams, out: Array) -> None:
        """Add log N(x_i; mean_k, L_k L_k' + Psi_k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        add_factor_densities(X, params.means, params.inverse_scales, params.whitening, params.log_norms, out)

    def zero_stats(self, params: FactorGaussianParams) -> FactorGaussianStats:
        """Return the statistics of no rows."""
        K, d = params.means.shape
        return FactorGaussianStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, 1 + self.n_factors, d)))

    def accumulate(self, X: Array, resp: Array, params: FactorGaussianParams, stats: FactorGaussianStats) -> None:
        """Add the moments about the current means, and their products with the factors."""
        add_factor_moments(X, resp, params.means, params.inverse_scales, params.posterior, *stats)

    def mstep(self, stats: FactorGaussianStats, params: FactorGaussianParams) -> FactorGaussianParams:
        """Return means, and loadings and noise variances of one step about these; what is held, and the dead, stay."""
        total = stats.counts.sum()
        alive = np.flatnonzero(stats.counts > DEAD_SHARE * total)
        counts, root = stats.counts[alive], np.sqrt(params.noise_variances[alive])
        first, crossed = stats.products[alive, 0] / counts[:, None], stats.products[alive, 1:] / counts[:, None, None]
        shift = root * np.where(self._mask("means", alive)[:, None], 0.0, first)
        new = [array.copy() for array in params[:3]]
        new[0][alive] += shift
        posterior = factor_posterior(params.loadings[alive], params.noise_variances[alive])
        variances = root**2 * stats.square[alive] / counts[:, None] - shift**2
        moved = (posterior.coefficients @ shift[:, :, None])[:, :, 0]
        projected = root[:, :, None] * np.swapaxes(crossed, 1, 2) - shift[:, :, None] * moved[:, None, :]
        loadings, noise = factor_step(posterior, variances, projected)
        held = self._mask("loadings", alive)
        if held.any():
            kept = params.loadings[alive[held]]
            of_held = Posterior(*(part[held] for part in posterior))
            loadings[held], noise[held] = factor_step(of_held, variances[held], projected[held], kept)
        noise = np.maximum(noise, self.min_noise_variance)
        noise = keep_held({"n": self._mask("noise_variances", alive)}, "n", noise, params.noise_variances[alive])
        vanished = is_noise(noise, variances, new[0][alive])
        if vanished.any():
            k, j = np.argwhere(vanished)[0]
            raise DegenerateError(
                f"the noise variance of feature {j} in component {alive[k]} is 0 to rounding: factors, or points that "
                "coincide, leave none; lower n_factors or n_components, or set min_noise_variance > 0.",
                int(alive[k]),
            )
        new[1][alive], new[2][alive] = loadings, noise
        return self._params(*new)

    def _mask(self, name: str, components: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the components keep a parameter."""
        return self.held[name][components] if name in self.held else np.zeros(len(components), np.bool_)

    def sample(self, params: FactorGaussianParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d)."""
        factors, noise = rng.standard_normal((n, self.n_factors)), rng.standard_normal((n, params.means.shape[1]))
        return np.asarray(params.means[k] + factors @ params.loadings[k].T + noise / params.inverse_scales[k])

    def n_parameters(self, params: FactorGaussianParams) -> int:
        """Return the number of free means, noise variances and loadings, less the rotations of the factors."""
        count = sum(count_free(self.held, name, getattr(params, name)) for name in self.parameters)
        n_free = len(free_part(self.held, "loadings", params.loadings))
        return count - n_free * self.n_factors * (self.n_factors - 1) // 2

    def _units(self, origin: FactorGaussianParams) -> tuple[Array, Array]:
        """Return a location and a scale of each feature, (d,) each."""
        variances = np.square(origin.loadings).sum(axis=2) + origin.noise_variances
        return origin.means.mean(axis=0), np.sqrt(variances.mean(axis=0))

    def to_vector(self, params: FactorGaussianParams, origin: FactorGaussianParams) -> Array:
        """Return means and loadings, without units, and the logarithms of the noise variances."""
        location, scale = self._units(origin)
        parts = (params.means - location) / scale, params.loadings / scale[:, None]
        return np.concatenate([*map(np.ravel, parts), np.log(params.noise_variances / scale**2).ravel()])

    def from_vector(self, vector: Array, origin: FactorGaussianParams) -> FactorGaussianParams:
        """Return the parameters that have these coordinates; noise variances out of bounds are put on the bound."""
        location, scale = self._units(origin)
        K, d, q = origin.loadings.shape
        means, loadings, logarithms = np.split(vector, [K * d, K * d * (1 + q)])
        noise = np.maximum(np.exp(logarithms.reshape(K, d)) * scale**2, self.min_noise_variance)
        return self.params(means.reshape(K, d) * scale + location, loadings.reshape(K, d, q) * scale[:, None], noise)
