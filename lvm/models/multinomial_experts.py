"""Experts for labels: multinomial logistic regressions."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lvm import _checks
from lvm._jit import Array
from lvm.kernels.softmax import add_label_densities, add_label_derivatives
from lvm.models.expert_rows import RegressionRows
from lvm.models.newton import NEWTON_PASSES, softmax_steps


class MultinomialExpertsParams(NamedTuple):
    """Coefficients (K, C, p), which sum to 0 over the C classes."""

    coefficients: Array


class MultinomialExpertsStats(NamedTuple):
    """Derivatives of the expected log-likelihood for all classes but the last, see `lvm.kernels.softmax`.

    Attributes
    ----------
    gradient : ndarray of shape (K, C - 1, p)
        First derivatives.
    hessian : ndarray of shape (K, C - 1, C - 1, p, p)
        Negative second derivatives.
    """

    gradient: Array
    hessian: Array


@final
class MultinomialExperts:
    """Multinomial logistic regressions of a label; the M-step is a damped Newton step.

    Parameters
    ----------
    bounds : ndarray of shape (2, p)
        Smallest and largest value of each covariate, see `column_bounds`.
    n_classes : int
        Number of classes.
    alpha : float
        Precision of a normal prior on all coefficients but the first of each class, >= 0.
    """

    passes = NEWTON_PASSES

    def __init__(self, bounds: Array, n_classes: int, alpha: float = 0.0) -> None:
        self.bounds = np.array(bounds, np.float64)
        self.n_classes = _checks.integer("n_classes", n_classes, 2)
        self.alpha = _checks.real("alpha", alpha, 0.0)

    def __repr__(self) -> str:
        return f"MultinomialExperts(n_classes={self.n_classes}, alpha={self.alpha:g})"

    def start(self, rows: RegressionRows, weight: Array, n_components: int) -> MultinomialExpertsParams:
        """Return K components with the class frequencies of all rows."""
        counts = np.bincount(rows.response.astype(np.int64), weight, self.n_classes)
        logarithms = np.log(counts + 0.5)
        coefficients = np.zeros((n_components, self.n_classes, rows.design.shape[1]))
        coefficients[:, :, 0] = logarithms - logarithms.mean()
        return MultinomialExpertsParams(coefficients)

    def targets(self, rows: RegressionRows) -> Array:
        """Return the label's indicators, (n, C)."""
        return np.asarray(np.equal.outer(rows.response, np.arange(self.n_classes)), np.float64)

    def log_density(self, rows: RegressionRows, params: MultinomialExpertsParams, out: Array) -> None:
        """Add log p(y_i | x_i, k) to out (K, n)."""
        add_label_densities(rows.design, rows.response, params.coefficients, out)

    def zero_stats(self, params: MultinomialExpertsParams) -> MultinomialExpertsStats:
        """Return the derivatives of no rows."""
        K, n_classes, p = params.coefficients.shape
        free = n_classes - 1
        return MultinomialExpertsStats(np.zeros((K, free, p)), np.zeros((K, free, free, p, p)))

    def accumulate(
        self, rows: RegressionRows, resp: Array, params: MultinomialExpertsParams, stats: MultinomialExpertsStats
    ) -> None:
        """Add the derivatives of sum_i resp_ki log p(y_i | x_i, k)."""
        add_label_derivatives(rows.design, rows.response, resp, params.coefficients, *stats)

    def mstep(self, stats: MultinomialExpertsStats, params: MultinomialExpertsParams) -> MultinomialExpertsParams:
        """Return coefficients that raise the expected log-likelihood, by a damped Newton step."""
        old = params.coefficients
        return MultinomialExpertsParams(old + softmax_steps(*stats, old, self.alpha, self.bounds))

    def log_prior(self, params: MultinomialExpertsParams) -> float:
        """Return the log density of the prior, up to a constant."""
        return -0.5 * self.alpha * float(np.sum(params.coefficients[:, :, 1:] ** 2))

    def means(self, design: Array, params: MultinomialExpertsParams) -> Array:
        """Return the class probabilities, shape (K, n, C)."""
        return np.asarray(softmax(design @ np.swapaxes(params.coefficients, 1, 2), axis=2))

    def sample(
        self,
        rows: RegressionRows,
        params: MultinomialExpertsParams,
        components: NDArray[np.int64],
        rng: np.random.RandomState,
    ) -> Array:
        """Draw a label for each row, given its component."""
        eta = np.einsum("ip,icp->ic", rows.design, params.coefficients[components])
        beyond = np.cumsum(softmax(eta, axis=1), axis=1) < rng.random_sample((len(eta), 1))
        return np.asarray(np.minimum(beyond.sum(axis=1), self.n_classes - 1), np.float64)

    def n_parameters(self, params: MultinomialExpertsParams) -> int:
        """Return K (C - 1) p."""
        K, n_classes, p = params.coefficients.shape
        return int(K * (n_classes - 1) * p)

    def to_vector(self, params: MultinomialExpertsParams, origin: MultinomialExpertsParams) -> Array:
        """Return the coefficients."""
        return params.coefficients.ravel()

    def from_vector(self, vector: Array, origin: MultinomialExpertsParams) -> MultinomialExpertsParams:
        """Return the parameters that have these coordinates."""
        coefficients = vector.reshape(origin.coefficients.shape)
        return MultinomialExpertsParams(coefficients - coefficients.mean(axis=1, keepdims=True))
