"""Experts for counts: Poisson and logistic regressions."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from lvm import _checks
from lvm._jit import Array
from lvm.kernels.regressions import add_count_densities, add_count_derivatives
from lvm.models.expert_rows import RegressionRows
from lvm.models.newton import NEWTON_PASSES, ascent_steps, largest_change, symmetric


class CountExpertsParams(NamedTuple):
    """Coefficients (K, p) of the log rates, or of the log odds."""

    coefficients: Array


class CountExpertsStats(NamedTuple):
    """Gradient (K, p) and negative second derivatives (K, p, p), lower half, of the expected log-likelihood."""

    gradient: Array
    hessian: Array


class _CountExperts:
    """Generalised linear models of counts with their canonical link; the M-step is a damped Newton step.

    Parameters
    ----------
    bounds : ndarray of shape (2, p)
        Smallest and largest value of each covariate, see `column_bounds`: how far a step can go and never lower
        the likelihood of rows within them.
    alpha : float
        Precision of a normal prior on all coefficients but the first, >= 0; 0 is maximum likelihood.
    """

    passes = NEWTON_PASSES
    _poisson: bool

    def __init__(self, bounds: Array, alpha: float = 0.0) -> None:
        self.bounds = np.array(bounds, np.float64)
        self.alpha = _checks.real("alpha", alpha, 0.0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={self.alpha:g})"

    def _start(self, rows: RegressionRows, intercept: float, n_components: int) -> CountExpertsParams:
        coefficients = np.zeros((n_components, rows.design.shape[1]))
        coefficients[:, 0] = intercept
        return CountExpertsParams(coefficients)

    def log_density(self, rows: RegressionRows, params: CountExpertsParams, out: Array) -> None:
        """Add log p(y_i | x_i, k) to out (K, n)."""
        assert rows.size is not None
        assert rows.constants is not None
        add_count_densities(
            rows.design, rows.response, rows.size, rows.constants, params.coefficients, self._poisson, out
        )

    def zero_stats(self, params: CountExpertsParams) -> CountExpertsStats:
        """Return the derivatives of no rows."""
        K, p = params.coefficients.shape
        return CountExpertsStats(np.zeros((K, p)), np.zeros((K, p, p)))

    def accumulate(
        self, rows: RegressionRows, resp: Array, params: CountExpertsParams, stats: CountExpertsStats
    ) -> None:
        """Add the derivatives of sum_i resp_ki log p(y_i | x_i, k)."""
        assert rows.size is not None
        add_count_derivatives(rows.design, rows.response, rows.size, resp, params.coefficients, self._poisson, *stats)

    def mstep(self, stats: CountExpertsStats, params: CountExpertsParams) -> CountExpertsParams:
        """Return coefficients that raise the expected log-likelihood, by a damped Newton step."""
        penalty = np.full(self.bounds.shape[1], self.alpha)
        penalty[0] = 0.0
        gradient = stats.gradient - penalty * params.coefficients
        steps = ascent_steps(gradient, symmetric(stats.hessian) + np.diag(penalty), self._reach)
        return CountExpertsParams(params.coefficients + steps)

    def _reach(self, directions: Array) -> Array:
        up = largest_change(directions, self.bounds)
        return up if self._poisson else np.maximum(up, largest_change(-directions, self.bounds))

    def log_prior(self, params: CountExpertsParams) -> float:
        """Return the log density of the prior, up to a constant."""
        return -0.5 * self.alpha * float(np.sum(params.coefficients[:, 1:] ** 2))

    def n_parameters(self, params: CountExpertsParams) -> int:
        """Return the number of coefficients."""
        return params.coefficients.size

    def to_vector(self, params: CountExpertsParams, origin: CountExpertsParams) -> Array:
        """Return the coefficients."""
        return params.coefficients.ravel()

    def from_vector(self, vector: Array, origin: CountExpertsParams) -> CountExpertsParams:
        """Return the parameters that have these coordinates."""
        return CountExpertsParams(np.array(vector).reshape(origin.coefficients.shape))


@final
class PoissonExperts(_CountExperts):
    """Poisson regressions with a log link: a count is Poisson with mean size * exp(x'beta_k)."""

    _poisson = True

    def start(self, rows: RegressionRows, weight: Array, n_components: int) -> CountExpertsParams:
        """Return K components with the rate of all rows."""
        assert rows.size is not None
        return self._start(rows, float(np.log((weight @ rows.response + 0.5) / (weight @ rows.size))), n_components)

    def targets(self, rows: RegressionRows) -> Array:
        """Return log rates, (n, 1), of half a count more."""
        assert rows.size is not None
        return np.log((rows.response + 0.5) / rows.size)[:, None]

    def means(self, design: Array, params: CountExpertsParams) -> Array:
        """Return exp(x_i'beta_k), shape (K, n)."""
        return np.asarray(np.exp(params.coefficients @ design.T))

    def sample(
        self,
        rows: RegressionRows,
        params: CountExpertsParams,
        components: NDArray[np.int64],
        rng: np.random.RandomState,
    ) -> Array:
        """Draw a count for each row, given its component."""
        eta = np.einsum("ip,ip->i", rows.design, params.coefficients[components])
        return np.asarray(rng.poisson(rows.size * np.exp(eta)), np.float64)


@final
class BinomialExperts(_CountExperts):
    """Logistic regressions: a count is binomial of `size` trials with log odds x'beta_k."""

    _poisson = False

    def start(self, rows: RegressionRows, weight: Array, n_components: int) -> CountExpertsParams:
        """Return K components with the odds of all rows."""
        assert rows.size is not None
        total = weight @ rows.response
        return self._start(rows, float(logit((total + 0.5) / (weight @ rows.size + 1.0))), n_components)

    def targets(self, rows: RegressionRows) -> Array:
        """Return log odds, (n, 1), of half a success and half a failure more."""
        assert rows.size is not None
        return np.log((rows.response + 0.5) / (rows.size - rows.response + 0.5))[:, None]

    def means(self, design: Array, params: CountExpertsParams) -> Array:
        """Return the probability of a success, shape (K, n)."""
        return np.asarray(expit(params.coefficients @ design.T))

    def sample(
        self,
        rows: RegressionRows,
        params: CountExpertsParams,
        components: NDArray[np.int64],
        rng: np.random.RandomState,
    ) -> Array:
        """Draw a count for each row, given its component."""
        eta = np.einsum("ip,ip->i", rows.design, params.coefficients[components])
        assert rows.size is not None
        return np.asarray(rng.binomial(rows.size.astype(np.int64), expit(eta)), np.float64)
