"""Experts for a real response: linear regressions."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array
from lvm.kernels.regressions import add_gaussian_densities, add_residual_moments
from lvm.models.expert_rows import RegressionRows
from lvm.models.newton import EPS, solve_symmetric, symmetric
from lvm.protocol import DEAD_SHARE, DegenerateError

# Residuals below NOISE of the fitted values are rounding: their variance is 0. Where FAR of the squared residuals about
# the old coefficients is the step to the new ones, what is left may be mere cancellation; it is then ROUNDED of them at
# least, more than their rounding, and the next iteration is closer (as in `lvm.kernels.covariance`).
NOISE, FAR, ROUNDED = 8 * EPS, 0.5, 4096 * EPS


class GaussianExpertsParams(NamedTuple):
    """Coefficients (K, p) and residual standard deviations (K,)."""

    coefficients: Array
    scales: Array


class GaussianExpertsStats(NamedTuple):
    """Sums of r u u' with u = (x, y - x'b) for the current coefficients b, (K, p + 1, p + 1); lower halves."""

    moments: Array


@final
class GaussianExperts:
    """Linear regressions with normal residuals.

    With residuals e about the old coefficients and A = sum r x x', c = sum r x e, s = sum r e**2, the M-step is
    beta + A^-1 c and scale**2 = (s - c'A^-1 c) / sum r: no digit is lost to the size of the response.

    Parameters
    ----------
    alpha : float
        Ridge penalty >= 0 on all coefficients but the first: their prior is normal with the variance
        scale**2 / alpha.
    scales_prior : tuple of float, optional
        Number nu and root mean square s of residuals that are added to those of each component: a scaled inverse
        chi-squared prior on the variances. None is maximum likelihood.
    equal_scales : bool
        Whether all components have the same scale.

    References
    ----------
    DeSarbo & Cron (1988), "A maximum likelihood methodology for clusterwise linear regression".
    """

    passes = 1

    def __init__(
        self, alpha: float = 0.0, scales_prior: tuple[float, float] | None = None, equal_scales: bool = False
    ) -> None:
        self.alpha = _checks.real("alpha", alpha, 0.0)
        given = (0.0, 0.0) if scales_prior is None else scales_prior
        if np.shape(given) != (2,):
            raise _checks.ParameterError(f"scales_prior must be None or two numbers >= 0, got {scales_prior!r}.")
        self.scales_prior = tuple(_checks.real("scales_prior", value, 0.0) for value in given)
        self.equal_scales = bool(equal_scales)

    def __repr__(self) -> str:
        return f"GaussianExperts(alpha={self.alpha:g})"

    def start(self, rows: RegressionRows, weight: Array, n_components: int) -> GaussianExpertsParams:
        """Return K components at the mean of the response."""
        y = rows.response
        mean = y[0] + np.average(y - y[0], weights=weight)
        coefficients = np.zeros((n_components, rows.design.shape[1]))
        coefficients[:, 0] = mean
        nu, s = self.scales_prior
        variance = (weight @ (y - mean) ** 2 + nu * s**2) / (weight.sum() + nu)
        return GaussianExpertsParams(coefficients, np.full(n_components, np.sqrt(variance)))

    def targets(self, rows: RegressionRows) -> Array:
        """Return the response, (n, 1)."""
        return rows.response[:, None]

    def log_density(self, rows: RegressionRows, params: GaussianExpertsParams, out: Array) -> None:
        """Add log N(y_i; x_i'beta_k, scale_k**2) to out (K, n)."""
        add_gaussian_densities(rows.design, rows.response, params.coefficients, params.scales, out)

    def zero_stats(self, params: GaussianExpertsParams) -> GaussianExpertsStats:
        """Return the moments of no rows."""
        K, p = params.coefficients.shape
        return GaussianExpertsStats(np.zeros((K, p + 1, p + 1)))

    def accumulate(
        self, rows: RegressionRows, resp: Array, params: GaussianExpertsParams, stats: GaussianExpertsStats
    ) -> None:
        """Add the moments of covariates and residuals."""
        add_residual_moments(rows.design, rows.response, resp, params.coefficients, stats.moments)

    def mstep(self, stats: GaussianExpertsStats, params: GaussianExpertsParams) -> GaussianExpertsParams:
        """Return the posterior modes given the responsibilities; a dead component keeps its own.

        Raises
        ------
        DegenerateError
            If the residuals of a component are all 0.
        """
        moments = symmetric(stats.moments)
        counts, squares = moments[:, 0, 0], moments[:, -1, -1]
        products, c = moments[:, :-1, :-1], moments[:, :-1, -1]
        penalty = np.full(products.shape[1], self.alpha)
        penalty[0] = 0.0
        alive = counts > DEAD_SHARE * counts.sum()
        right = c - penalty * params.coefficients
        step = np.where(alive[:, None], solve_symmetric(products + np.diag(penalty), right), 0.0)
        coefficients = params.coefficients + step
        gained = np.einsum("kp,kp->k", 2 * c - np.einsum("kpq,kq->kp", products, step), step)
        residual = np.maximum(squares - gained, 0.0)
        residual = np.where(gained > FAR * squares, np.maximum(residual, ROUNDED * squares), residual)
        nu, s = self.scales_prior
        degrees = counts + nu + (len(penalty) - 1 if self.alpha > 0 else 0)
        sums = residual + nu * s**2 + (penalty * coefficients**2).sum(axis=1)
        if self.equal_scales:
            sums, degrees = np.full_like(sums, sums[alive].sum()), np.full_like(degrees, degrees[alive].sum())
        variances = sums / np.where(degrees > 0, degrees, 1.0)
        fitted = np.einsum("kp,kpq,kq->k", coefficients, products, coefficients) / np.where(alive, counts, 1.0)
        exact = alive & ~(variances > NOISE**2 * fitted)
        if exact.any():
            raise DegenerateError(
                f"the residuals of component {np.flatnonzero(exact)[0]} are all 0: its likelihood has no maximum. "
                "Lower n_components, add data, or set scales_prior.",
                int(np.flatnonzero(exact)[0]),
            )
        return GaussianExpertsParams(coefficients, np.where(alive, np.sqrt(variances), params.scales))

    def log_prior(self, params: GaussianExpertsParams) -> float:
        """Return the log density of the priors, up to a constant."""
        variances, log_variances = params.scales**2, 2 * np.log(params.scales)
        nu, s = self.scales_prior
        total = -0.5 * nu * float(np.sum(log_variances + s**2 / variances))
        if self.alpha > 0:
            slopes = params.coefficients[:, 1:]
            total -= 0.5 * float(np.sum(self.alpha * (slopes**2).sum(axis=1) / variances))
            total -= 0.5 * slopes.shape[1] * float(log_variances.sum())
        return total

    def means(self, design: Array, params: GaussianExpertsParams) -> Array:
        """Return x_i'beta_k, shape (K, n)."""
        return np.asarray(params.coefficients @ design.T)

    def sample(
        self,
        rows: RegressionRows,
        params: GaussianExpertsParams,
        components: NDArray[np.int64],
        rng: np.random.RandomState,
    ) -> Array:
        """Draw a response for each row, given its component."""
        means = np.einsum("ip,ip->i", rows.design, params.coefficients[components])
        return np.asarray(means + params.scales[components] * rng.standard_normal(len(components)))

    def n_parameters(self, params: GaussianExpertsParams) -> int:
        """Return the number of coefficients and scales."""
        return params.coefficients.size + (1 if self.equal_scales else len(params.scales))

    def to_vector(self, params: GaussianExpertsParams, origin: GaussianExpertsParams) -> Array:
        """Return the coefficients, without the unit of the response, and the logarithms of the scales."""
        unit = float(origin.scales.mean())
        scales = params.scales[:1] if self.equal_scales else params.scales
        return np.concatenate([(params.coefficients / unit).ravel(), np.log(scales / unit)])

    def from_vector(self, vector: Array, origin: GaussianExpertsParams) -> GaussianExpertsParams:
        """Return the parameters that have these coordinates."""
        unit = float(origin.scales.mean())
        coefficients, logarithms = np.split(vector * 1.0, [origin.coefficients.size])
        scales = np.resize(unit * np.exp(logarithms), len(origin.scales))
        return GaussianExpertsParams(unit * coefficients.reshape(origin.coefficients.shape), scales)
