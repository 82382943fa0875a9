"""How well latent classes fit a table of response patterns, and how well they are told apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, entr, xlogy

from lvm._jit import Array


class GoodnessOfFit(NamedTuple):
    """Tests of a latent class model against the saturated table of response patterns.

    Attributes
    ----------
    g_squared : float
        Likelihood ratio statistic 2 sum O log(O / E).
    chi_squared : float
        Pearson's statistic, the sum of (O - E)**2 / E over all cells of the table.
    degrees_of_freedom : float
        Residual degrees of freedom; below 0, the model has more parameters than the table can tell apart. Where most
        cells of the table are expected to be nearly empty, neither statistic follows a chi-squared distribution.
    n_patterns : int
        Number of distinct complete rows observed.
    """

    g_squared: float
    chi_squared: float
    degrees_of_freedom: float
    n_patterns: int

    @property
    def g_squared_p_value(self) -> float:
        """Probability of a larger G squared were the model true; NaN without degrees of freedom."""
        return _p_value(self.g_squared, self.degrees_of_freedom)

    @property
    def chi_squared_p_value(self) -> float:
        """Probability of a larger X squared were the model true; NaN without degrees of freedom."""
        return _p_value(self.chi_squared, self.degrees_of_freedom)


def _p_value(statistic: float, degrees_of_freedom: float) -> float:
    return float(chdtrc(degrees_of_freedom, statistic)) if degrees_of_freedom > 0 else np.nan


def complete_patterns(codes: NDArray[np.integer], weight: Array | None = None) -> tuple[NDArray[np.integer], Array]:
    """Return the distinct rows without missing cells, and how often each is observed.

    Parameters
    ----------
    codes : ndarray of shape (n, d), int
        Category of each cell, -1 where missing. Rows with missing cells have no place in the table: they are left out.
    weight : ndarray of shape (n,), optional
        Row weights; rows of weight 0 are not observed.

    Returns
    -------
    patterns : ndarray of shape (P, d), int
        Distinct complete rows, in lexicographic order.
    counts : ndarray of shape (P,)
        Their total weights, all > 0.
    """
    observed = (codes >= 0).all(axis=1)
    if weight is not None:
        observed &= weight > 0
    patterns, inverse = np.unique(codes[observed], axis=0, return_inverse=True)
    weights = None if weight is None else weight[observed]
    return patterns, np.bincount(inverse.ravel(), weights, len(patterns)).astype(np.float64)


def goodness_of_fit(counts: Array, logliks: Array, weight: float, n_cells: int, n_parameters: int) -> GoodnessOfFit:
    """Return G squared and Pearson's X squared of a model of complete response patterns.

    Of N complete rows, E = N p are expected to show a pattern of probability p. Both statistics need the observed
    patterns only: one that is not observed adds nothing to G squared and its E to X squared, and the E of all cells
    sum to N. Rows with missing cells enter through the model's parameters and through the limit of the degrees
    of freedom, min(n_cells - 1, weight) - n_parameters, but not through the statistics.

    Parameters
    ----------
    counts : ndarray of shape (P,)
        Observed weight O of each distinct complete pattern.
    logliks : ndarray of shape (P,)
        Log probability of each of these patterns under the model.
    weight : float
        Total weight of all rows, those with missing cells included.
    n_cells : int
        Number of cells of the full table: the product of the numbers of categories.
    n_parameters : int
        Number of free parameters of the model.

    Returns
    -------
    GoodnessOfFit
        Both statistics are NaN where no row is complete, and inf where an observed pattern is impossible.

    References
    ----------
    Linzer & Lewis (2011), "poLCA: An R package for polytomous variable latent class analysis", Journal of Statistical
    Software 42(10), section 2.4.
    """
    degrees_of_freedom = float(min(n_cells - 1, weight) - n_parameters)
    counts, logliks = counts[counts > 0], logliks[counts > 0]
    total = float(counts.sum())
    if total == 0:
        return GoodnessOfFit(np.nan, np.nan, degrees_of_freedom, 0)
    expected = total * np.exp(logliks)
    g_squared = 2 * float(np.sum(xlogy(counts, counts / total) - counts * logliks))
    with np.errstate(divide="ignore", over="ignore"):
        observed_cells = float(np.sum((counts - expected) ** 2 / expected))
    return GoodnessOfFit(g_squared, observed_cells + total - float(expected.sum()), degrees_of_freedom, len(counts))


def relative_entropy(resp: Array, weight: Array | None = None) -> float:
    """Return by how much of its range the entropy of class membership is reduced, the entropy R squared.

    Parameters
    ----------
    resp : ndarray of shape (n, K)
        Posterior probability of each class for each row.
    weight : ndarray of shape (n,), optional
        Row weights.

    Returns
    -------
    float
        1 - sum_i w_i sum_k (-r_ik log r_ik) / (sum_i w_i log K): 1 where every row belongs to one class for certain, 0
        where all classes are equally probable for every row. A single class is certain.

    References
    ----------
    Ramaswamy, DeSarbo, Reibstein & Robinson (1993), "An empirical pooling approach for estimating marketing mix
    elasticities with PIMS data", Marketing Science 12.
    """
    n, K = resp.shape
    if K == 1:
        return 1.0
    weight = np.ones(n) if weight is None else weight
    return 1.0 - float(weight @ entr(resp).sum(axis=1)) / (float(weight.sum()) * float(np.log(K)))


def average_posteriors(resp: Array, weight: Array | None = None) -> Array:
    """Return the mean posterior probabilities of the rows assigned to each class.

    Parameters
    ----------
    resp : ndarray of shape (n, K)
        Posterior probability of each class for each row.
    weight : ndarray of shape (n,), optional
        Row weights.

    Returns
    -------
    ndarray of shape (K, K)
        Row k is the weighted mean of the posteriors of the rows whose most probable class is k, the first of equal
        ones; NaN where no row of positive weight is assigned to k. On the diagonal, values near 1 tell that the
        classes are well separated.

    References
    ----------
    Nagin (2005), "Group-Based Modeling of Development", chapter 5.
    """
    n, K = resp.shape
    weight = np.ones(n) if weight is None else weight
    assigned = np.equal.outer(np.arange(K), resp.argmax(axis=1)) * weight
    with np.errstate(invalid="ignore"):
        return np.asarray((assigned @ resp) / assigned.sum(axis=1, keepdims=True))
