"""Gates: how probable each component is before the response is seen, for all units alike or by their covariates."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
from scipy.special import log_softmax, softmax

from lvm import _checks
from lvm._jit import Array
from lvm.kernels.softmax import add_gate_derivatives, add_log_softmax
from lvm.models.newton import softmax_steps


class ConstantGateParams(NamedTuple):
    """Mixing weights (K,), which sum to 1."""

    weights: Array


class ConstantGateStats(NamedTuple):
    """Sums of responsibilities over units (K,)."""

    counts: Array


class SoftmaxGateParams(NamedTuple):
    """Coefficients (K, q): the probability of component k is proportional to exp(coefficients_k'z)."""

    coefficients: Array


class SoftmaxGateStats(NamedTuple):
    """Derivatives of the expected log-likelihood at the current coefficients, for all components but the last.

    Attributes
    ----------
    counts : ndarray of shape (K,)
        Sums of responsibilities over units.
    gradient : ndarray of shape (K - 1, q)
        First derivatives.
    hessian : ndarray of shape (K - 1, K - 1, q, q)
        Negative second derivatives; blocks [k, l] with l <= k, and of each the lower half.
    """

    counts: Array
    gradient: Array
    hessian: Array


@final
class ConstantGate:
    """The same mixing weights for all units: a mixture of regressions.

    Parameters
    ----------
    weights_prior : float
        Parameter of a symmetric Dirichlet prior on the weights, >= 1; 1 is maximum likelihood.
    """

    def __init__(self, weights_prior: float = 1.0) -> None:
        self.weights_prior = _checks.real("weights_prior", weights_prior, 1.0)

    def __repr__(self) -> str:
        return f"ConstantGate(weights_prior={self.weights_prior:g})"

    def start(self, weights: Array) -> ConstantGateParams:
        """Return parameters from mixing weights (K,)."""
        return ConstantGateParams(np.array(weights, np.float64))

    def log_weights(self, params: ConstantGateParams) -> Array:
        """Return the part of the log probabilities that is the same for all units, (K,)."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(params.weights))

    def log_density(self, z: Array | None, params: ConstantGateParams, out: Array) -> None:
        """Add the part of the log probabilities that depends on z to out (K, n): nothing."""

    def zero_stats(self, params: ConstantGateParams) -> ConstantGateStats:
        """Return the statistics of no units."""
        return ConstantGateStats(np.zeros(len(params.weights)))

    def accumulate(self, z: Array | None, resp: Array, params: ConstantGateParams, stats: ConstantGateStats) -> None:
        """Add what depends on z to the statistics: nothing."""

    def mstep(self, stats: ConstantGateStats, params: ConstantGateParams) -> ConstantGateParams:
        """Return the weights that maximise sum_k (counts_k + weights_prior - 1) log weights_k."""
        raised = stats.counts + (self.weights_prior - 1)
        return ConstantGateParams(np.asarray(raised / raised.sum()))

    def log_prior(self, params: ConstantGateParams) -> float:
        """Return the log density of the prior, up to a constant."""
        return (self.weights_prior - 1) * float(np.log(params.weights).sum()) if self.weights_prior > 1 else 0.0

    def probabilities(self, z: Array, params: ConstantGateParams) -> Array:
        """Return the probability of each component for each row of z (n, q), shape (n, K)."""
        return np.tile(params.weights, (len(z), 1))

    def n_parameters(self, params: ConstantGateParams) -> int:
        """Return K - 1."""
        return len(params.weights) - 1

    def to_vector(self, params: ConstantGateParams) -> Array:
        """Return the log weights."""
        return self.log_weights(params)

    def from_vector(self, vector: Array, origin: ConstantGateParams) -> ConstantGateParams:
        """Return the parameters that have these coordinates."""
        return ConstantGateParams(np.asarray(softmax(vector)))


@final
class SoftmaxGate:
    """Probabilities by multinomial logistic regression: a mixture of experts.

    The coefficients sum to 0 over the components: a common vector added to all would change nothing.

    Parameters
    ----------
    bounds : ndarray of shape (2, q)
        Smallest and largest value of each covariate, see `column_bounds`: how far a step can go and never lower
        the likelihood of rows within them.
    alpha : float
        Precision of a normal prior on the coefficients but for the intercepts, >= 0; 0 is maximum likelihood.
    """

    def __init__(self, bounds: Array, alpha: float = 0.0) -> None:
        self.bounds = np.array(bounds, np.float64)
        self.alpha = _checks.real("alpha", alpha, 0.0)

    def __repr__(self) -> str:
        return f"SoftmaxGate(alpha={self.alpha:g})"

    def start(self, weights: Array) -> SoftmaxGateParams:
        """Return parameters with these probabilities (K,) whatever the covariates."""
        coefficients = np.zeros((len(weights), self.bounds.shape[1]))
        logarithms = np.log(np.maximum(weights, np.finfo(np.float64).eps))
        coefficients[:, 0] = logarithms - logarithms.mean()
        return SoftmaxGateParams(coefficients)

    def log_weights(self, params: SoftmaxGateParams) -> Array:
        """Return the part of the log probabilities that is the same for all units, (K,): 0."""
        return np.zeros(len(params.coefficients))

    def log_density(self, z: Array, params: SoftmaxGateParams, out: Array) -> None:
        """Add the log probabilities of each unit of z (n, q) to out (K, n)."""
        add_log_softmax(z, params.coefficients, out)

    def zero_stats(self, params: SoftmaxGateParams) -> SoftmaxGateStats:
        """Return the derivatives of no units."""
        K, q = params.coefficients.shape
        return SoftmaxGateStats(np.zeros(K), np.zeros((K - 1, q)), np.zeros((K - 1, K - 1, q, q)))

    def accumulate(self, z: Array, resp: Array, params: SoftmaxGateParams, stats: SoftmaxGateStats) -> None:
        """Add the derivatives of sum_ik resp_ki log p(k | z_i)."""
        add_gate_derivatives(z, resp, params.coefficients, stats.gradient, stats.hessian)

    def mstep(self, stats: SoftmaxGateStats, params: SoftmaxGateParams) -> SoftmaxGateParams:
        """Return coefficients that raise the expected log-likelihood, by a damped Newton step."""
        if len(params.coefficients) == 1:
            return params
        old = params.coefficients[None]
        step = softmax_steps(stats.gradient[None], stats.hessian[None], old, self.alpha, self.bounds)
        return SoftmaxGateParams(params.coefficients + step[0])

    def log_prior(self, params: SoftmaxGateParams) -> float:
        """Return the log density of the prior, up to a constant."""
        return -0.5 * self.alpha * float(np.sum(params.coefficients[:, 1:] ** 2))

    def probabilities(self, z: Array, params: SoftmaxGateParams) -> Array:
        """Return the probability of each component for each row of z (n, q), shape (n, K)."""
        return np.asarray(np.exp(log_softmax(z @ params.coefficients.T, axis=1)))

    def n_parameters(self, params: SoftmaxGateParams) -> int:
        """Return (K - 1) q."""
        K, q = params.coefficients.shape
        return int((K - 1) * q)

    def to_vector(self, params: SoftmaxGateParams) -> Array:
        """Return the coefficients."""
        return params.coefficients.ravel()

    def from_vector(self, vector: Array, origin: SoftmaxGateParams) -> SoftmaxGateParams:
        """Return the parameters that have these coordinates."""
        coefficients = vector.reshape(origin.coefficients.shape)
        return SoftmaxGateParams(coefficients - coefficients.mean(axis=0))
