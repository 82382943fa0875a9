"""Linear regressions whose coefficients are latent: their prior and the noise are fitted by maximum evidence."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike

from lvm import _checks
from lvm._jit import Array, canonical

PRIORS = ("shared", "relevance")
BLOCK_ROWS = 1 << 14
FAR = 50.0  # on the logarithmic scale: extrapolation may try what overflows
SMALLEST, LARGEST = 1e-145, 1e145  # of values whose squares, summed, are normal numbers


class RegressionRows(NamedTuple):
    """One regression a row, by what its likelihood depends on: the moments of its observations about their fit.

    The squared error of coefficients w is `residual` + (w - fit)' `gram` (w - fit), without cancellation.

    Attributes
    ----------
    gram : ndarray of shape (n, d, d)
        X'X of each regression.
    fit : ndarray of shape (n, d)
        Least squares coefficients: the smallest of them where there are several.
    residual : ndarray of shape (n,)
        Their sum of squared errors.
    size : ndarray of shape (n,)
        Number of observations.
    rank : ndarray of shape (n,)
        Rank of X: with little noise, eigenvalues of `gram` that should be 0 but for rounding would count.
    weight : ndarray of shape (n,), optional
        Weight of each regression as a whole, >= 0. None means all 1.
    """

    gram: Array
    fit: Array
    residual: Array
    size: Array
    rank: Array
    weight: Array | None = None


class EvidenceParams(NamedTuple):
    """Variance of the noise, shape (1,), and prior variance of each coefficient, shape (d,): 0 where it is pruned."""

    noise: Array
    prior: Array


class EvidenceStats(NamedTuple):
    """Additive statistics of regressions.

    Attributes
    ----------
    loglik : float
        Log evidence.
    weight : float
        Total weight of the regressions.
    size : float
        Number of observations.
    error : float
        Posterior mean of the sum of squared errors.
    second : ndarray of shape (d,)
        Posterior second moments of the coefficients, summed over regressions.
    """

    loglik: float
    weight: float
    size: float
    error: float
    second: Array


class Posterior(NamedTuple):
    """Normal posterior of the coefficients: means (n, d), covariances (n, d, d); and the log evidence (n,).

    `error` (n,) is the posterior mean of each regression's sum of squared errors.
    """

    mean: Array
    covariance: Array
    error: Array
    loglik: Array


@final
class EvidenceRegression:
    """Linear regressions y = X w + noise with latent w ~ N(0, diag(prior)): a row is a whole regression.

    The coefficients of each regression are its latent variable; the variances of noise and coefficients are shared
    by all, and fitted by maximising the evidence p(y | noise, prior), in which w is integrated out (type II maximum
    likelihood). With one regression this is the evidence approximation; with many, regression with random coefficients.

    Parameters
    ----------
    prior : {"shared", "relevance"}
        Whether all coefficients have one prior variance, or each its own (automatic relevance determination), of
        which those of irrelevant features tend to 0. A prior variance of 0 stays 0.
    least_noise : float
        Lower bound of the noise variance: where features explain the targets fully, the evidence has no other.

    References
    ----------
    MacKay (1992), "Bayesian interpolation", Neural Computation 4. Tipping (2001), "Sparse Bayesian learning and the
    relevance vector machine", JMLR 1. Bishop (2006), "Pattern Recognition and Machine Learning", sections 3.5 and
    9.3.4: equations 9.62 and 9.63 are the M-step for `prior`.
    """

    def __init__(self, prior: str = "shared", least_noise: float = 0.0) -> None:
        self.prior = _checks.choice("prior", prior, PRIORS)
        self.least_noise = _checks.real("least_noise", least_noise, 0.0)

    def __repr__(self) -> str:
        return f"EvidenceRegression(prior={self.prior!r}, least_noise={self.least_noise:g})"

    def canonical(self, rows: RegressionRows) -> RegressionRows:
        """Return the rows as float64 in C order, with shapes that fit together."""
        gram, fit, residual, size, rank = map(canonical, rows[:5])
        (n, d), shapes = fit.shape, [array.shape for array in (gram, residual, size, rank)]
        if shapes != [(n, d, d), (n,), (n,), (n,)]:
            raise ValueError(
                f"gram, residual, size and rank have the shapes {shapes}; expected those of {n} regressions on {d}."
            )
        weight = None if rows.weight is None else _checks.row_weights(rows.weight, n, "rows.weight")
        return RegressionRows(gram, fit, residual, size, rank, weight)

    def posterior(self, rows: RegressionRows, params: EvidenceParams) -> Posterior:
        """Return the posterior of each regression's coefficients.

        With D = diag(prior)^(1/2) and the eigenvalues e of D X'X D / noise, all of it follows from 1 + e >= 1: neither
        collinear features nor prior variances of 0 do harm.
        """
        active = np.flatnonzero(params.prior > 0)
        noise, scale = float(params.noise[0]), np.sqrt(params.prior[active])
        values, vectors = np.linalg.eigh(rows.gram[:, active[:, None], active] * (np.outer(scale, scale) / noise))
        null = np.arange(len(active)) < len(active) - rows.rank[:, None]
        values = np.where(null, 0.0, np.maximum(values, 0.0))  # below is rounding
        target = np.einsum("nij,nj->ni", rows.gram, rows.fit)[:, active] * scale / noise
        along = np.where(null, 0.0, np.einsum("nij,ni->nj", vectors, target) / (1 + values))
        whitened = np.einsum("nij,nj->ni", vectors, along)
        mean, covariance = np.zeros_like(rows.fit), np.zeros_like(rows.gram)
        mean[:, active] = scale * whitened
        half = scale[:, None] * vectors / np.sqrt(1 + values)[:, None, :]
        covariance[:, active[:, None], active] = half @ half.transpose(0, 2, 1)
        squared = rows.residual + _quadratic(rows.gram, mean - rows.fit)
        loglik = -0.5 * (
            rows.size * np.log(2 * np.pi * noise)
            + squared / noise
            + np.sum(np.square(whitened), axis=1)
            + np.log1p(values).sum(axis=1)
        )
        error = squared + noise * np.sum(values / (1 + values), axis=1)
        return Posterior(mean, covariance, error, loglik)

    def estep_stats(self, rows: RegressionRows, params: EvidenceParams) -> EvidenceStats:
        """Return the expected sufficient statistics of the regressions."""
        posterior = self.posterior(rows, params)
        weight = np.ones(len(rows.size)) if rows.weight is None else rows.weight
        second = np.square(posterior.mean) + np.diagonal(posterior.covariance, axis1=1, axis2=2)
        return EvidenceStats(
            float(weight @ posterior.loglik),
            float(weight.sum()),
            float(weight @ rows.size),
            float(weight @ posterior.error),
            weight @ second,
        )

    def mstep(self, stats: EvidenceStats, params: EvidenceParams) -> EvidenceParams:
        """Return the variances that maximise the expected log-likelihood.

        In each it rises up to its maximiser and falls beyond: below its bound, the bound is best.
        """
        noise = max(stats.error / stats.size, self.least_noise)
        prior = stats.second / stats.weight
        if self.prior == "shared":
            free = params.prior > 0
            prior = np.where(free, prior.sum() / max(1, np.count_nonzero(free)), 0.0)
        return EvidenceParams(np.array([noise]), prior)

    def loglik(self, rows: RegressionRows, params: EvidenceParams) -> Array:
        """Return the log evidence of each regression, shape (n,), unweighted."""
        return self.posterior(rows, params).loglik

    def n_parameters(self, params: EvidenceParams) -> int:
        """Return 1 for the noise, and 1 for a shared prior variance or as many as there are coefficients."""
        return 2 if self.prior == "shared" else 1 + len(params.prior)

    def to_vector(self, params: EvidenceParams, origin: EvidenceParams) -> Array:
        """Return the logarithms of the variances: of those of the prior one is enough where they are equal."""
        prior = params.prior.max(initial=0.0, keepdims=True) if self.prior == "shared" else params.prior
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.concatenate([params.noise, prior])))

    def from_vector(self, vector: Array, origin: EvidenceParams) -> EvidenceParams:
        """Return the parameters that have these coordinates, within `FAR` of those of `origin`; 0 where it is 0."""
        start = self.to_vector(origin, origin)
        variances = np.exp(np.clip(vector, start - FAR, start + FAR))
        return EvidenceParams(
            np.maximum(variances[:1], self.least_noise), np.where(origin.prior > 0, variances[1:], 0.0)
        )

    def pruned(self, rows: RegressionRows, params: EvidenceParams, least: float = 0.0) -> EvidenceParams:
        """Return parameters of at least this evidence, where features left out by EM's limit are left out at once.

        In one regression, the evidence as a function of one prior variance v, with sparsity s and quality q that the
        others determine, is (q**2 v / (1 + v s) - log(1 + v s)) / 2 up to a constant. Its maximum is at v = 0 where
        q**2 <= s, which EM approaches as 1 / n_iter; else at (q**2 - s) / s**2. The feature that gains most by being
        left out, or by coming back, goes first, until none gains; who comes back has to gain more than `least`.

        References
        ----------
        Faul & Tipping (2002), "Analysis of sparse Bayesian learning", NIPS 14, equations 14 to 19.
        """
        noise, prior = float(params.noise[0]), params.prior.copy()
        gram, target = rows.gram[0], rows.gram[0] @ rows.fit[0] / noise
        refresh = True
        for _ in range(4 * len(prior)):  # each step gains, so that the bound is for rounding alone
            if refresh:
                posterior = self.posterior(rows, EvidenceParams(params.noise, prior))
                covariance, mean = posterior.covariance[0], posterior.mean[0]
                inside = np.diagonal(gram) / noise - np.einsum("ij,ij->i", gram @ covariance, gram) / noise**2
            sparsity, quality = inside, target - gram @ mean / noise
            # Of a feature that is in, without its own part; 1 - v S is s_jj / var(w_j | y), in (0, 1].
            share = np.maximum(1 - prior * sparsity, np.finfo(np.float64).tiny)
            with np.errstate(over="ignore", invalid="ignore"):  # of features that the others determine, s is rounding
                sparsity, quality = np.maximum(sparsity / share, 0.0), quality / share
                worth = np.square(quality) > sparsity
                best = np.where(worth, (quality**2 - sparsity) / np.maximum(sparsity, 1e-150) ** 2, 0.0)
                gain = _evidence_of(best, sparsity, quality) - _evidence_of(prior, sparsity, quality)
            gain[
                ~np.isfinite(gain) | ((prior > 0) == (best > 0)) | ((best > 0) & (gain <= least))
            ] = -np.inf  # the first EM finds by itself
            place = int(np.argmax(gain))
            if not gain[place] > 0:
                break
            prior[place] = best[place]
            refresh = best[place] > 0
            if not refresh:  # conditioning on a coefficient of 0
                column = covariance[:, place].copy()
                spread = max(column[place], np.finfo(np.float64).tiny)
                covariance -= np.outer(column, column) / spread
                mean -= column * (mean[place] / spread)
                inside = inside + np.square(gram @ column / noise) / spread
        return EvidenceParams(params.noise, prior)


def _evidence_of(prior: Array, sparsity: Array, quality: Array) -> Array:
    """Return the part of the log evidence that depends on one prior variance, for each (d,)."""
    spread = prior * sparsity
    return 0.5 * (quality**2 * prior / (1 + spread) - np.log1p(spread))


def _quadratic(matrices: Array, vectors: Array) -> Array:
    """Return the quadratic forms of matrices (n, d, d) in vectors (n, d), >= 0."""
    return np.asarray(np.maximum(np.einsum("ni,nij,nj->n", vectors, matrices, vectors), 0.0))


class Moments(NamedTuple):
    """A regression as a row, and the means of features (d,) and target about which it was taken."""

    rows: RegressionRows
    features: Array
    target: float


def regression_moments(X: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None, centred: bool = True) -> Moments:
    """Reduce observations to a row of `EvidenceRegression`, in a few passes.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Features, finite.
    y : array-like of shape (n,)
        Targets, finite.
    weight : array-like of shape (n,), optional
        Weight of each observation.
    centred : bool
        Whether means are subtracted: the intercept at its maximum of the evidence.

    Returns
    -------
    Moments
        The row, and the means; 0 where not centred.

    Raises
    ------
    ValueError
        If squares leave the range of float64.
    """
    data, targets = np.asarray(X), np.asarray(y)
    n, d = data.shape
    weights = np.ones(n) if weight is None else np.asarray(weight, np.float64)
    size = float(weights.sum())
    means = np.zeros(d + 1)
    low, high = data.min(axis=0), data.max(axis=0)
    largest = [*np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64))), np.abs(targets).max()]
    for name, reach in zip([*(f"column {j} of X" for j in range(d)), "y"], largest, strict=True):
        if not (reach == 0 or SMALLEST < reach < LARGEST):
            raise ValueError(f"{name} has a largest value of {reach:.3g}, expected 0 or 1e-145 to 1e145; scale it.")
    if centred:
        for _ in range(2):  # the second removes the rounding of the first
            means = means + sum(weight @ block for block, weight in _blocks(data, targets, weights, means)) / size
    products = np.zeros((d + 1, d + 1))
    for block, weight_of in _blocks(data, targets, weights, means):
        products += (block * weight_of[:, None]).T @ block
    gram, cross = products[:d, :d].copy(), products[:d, d]
    counted = weights > 0
    constant = np.zeros(d, np.bool_)
    if centred:
        constant = low == high
        if not counted.all():
            constant = np.array([column[counted].min() == column[counted].max() for column in data.T])
    gram[constant] = gram[:, constant] = 0.0
    inverse, rank = _pseudo_inverse(gram)
    fit = inverse @ cross
    residual, cross = _errors(data, targets, weights, means, fit)
    cross[constant] = 0.0
    step = inverse @ cross  # what rounding has left of the slope, times the inverse
    scalars = (np.array([value]) for value in (max(residual - cross @ step, 0.0), size, rank))
    rows = RegressionRows(gram[None], (fit + step)[None], *scalars)
    return Moments(rows, means[:d], float(means[d]))


def _blocks(X: Any, y: Any, weights: Array, means: Array) -> Any:
    """Yield blocks of [X, y] - means and of the weights, as float64."""
    for start in range(0, len(X), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        yield np.column_stack([X[part], y[part]]).astype(np.float64, copy=False) - means, weights[part]


def _errors(X: Any, y: Any, weights: Array, means: Array, fit: Array) -> tuple[float, Array]:
    """Return the weighted sum of squared errors of a fit, and their products with the features (d,)."""
    squares, cross = 0.0, np.zeros(len(fit))
    for block, weight in _blocks(X, y, weights, means):
        error = block[:, -1] - block[:, :-1] @ fit
        squares += float(weight @ error**2)
        cross += block[:, :-1].T @ (weight * error)
    return squares, cross


def _pseudo_inverse(gram: Array) -> tuple[Array, float]:
    """Return the pseudo-inverse of a Gram matrix (d, d), scaled to a diagonal of ones beforehand, and its rank."""
    scale = np.sqrt(np.diagonal(gram))
    scale = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    values, vectors = np.linalg.eigh(gram * np.outer(scale, scale))
    kept = values > len(gram) * 1e-14 * max(values[-1], np.finfo(np.float64).tiny)
    half = scale[:, None] * vectors[:, kept] / np.sqrt(values[kept])
    return half @ half.T, float(np.count_nonzero(kept))
