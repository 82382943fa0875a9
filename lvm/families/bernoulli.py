"""Independent binary features: latent class analysis of yes/no items."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lvm import _checks
from lvm._jit import Array, canonical, kernel
from lvm.kernels.elementary import log_complement, log_probability
from lvm.kernels.products import add_products, add_weighted_rows
from lvm.kernels.sparse_products import add_sparse_products, add_weighted_sparse_rows
from lvm.protocol import DEAD_SHARE, SparseRows

BEYOND = 1e-10  # a probability close to 0, from which EM still finds back to another


class BernoulliParams(NamedTuple):
    """Parameters, with what the kernels need of their logarithms.

    Attributes
    ----------
    probabilities : ndarray of shape (K, d)
        Probability of a 1.
    log_odds : ndarray of shape (K, d)
        log p / (1 - p); -inf where p = 0, and inf where p = 1.
    log_none : ndarray of shape (K,)
        Log-probability of a row of zeros, over the features with p < 1.
    n_certain : ndarray of shape (K,)
        Number of features with p = 1.
    """

    probabilities: Array
    log_odds: Array
    log_none: Array
    n_certain: Array


class BernoulliStats(NamedTuple):
    """Weighted responsibilities (K,) and weighted number of ones (K, d)."""

    counts: Array
    ones: Array


@kernel
def _write_log_odds(probabilities: Array, log_odds: Array, log_none: Array, n_certain: Array) -> None:
    """Write the other fields of `BernoulliParams` for probabilities (K, d)."""
    for k in range(log_odds.shape[0]):
        row, odds, none, certain = probabilities[k], log_odds[k], 0.0, 0.0
        for j in range(log_odds.shape[1]):
            zero = log_complement(row[j])
            odds[j] = log_probability(row[j]) - zero
            none += zero if row[j] < 1.0 else 0.0
            certain += 0.0 if row[j] < 1.0 else 1.0
        log_none[k] = none
        n_certain[k] = certain


@final
class Bernoulli:
    """d independent binary features given the component.

    X is dense (bool, integer or float zeros and ones) or a scipy sparse matrix.

    Parameters
    ----------
    alpha : float
        Both parameters of a symmetric Beta prior on each probability, >= 1; 1 is maximum likelihood, and
        alpha > 1 adds alpha - 1 ones and zeros per feature and component (maximum a posteriori).

    References
    ----------
    Bishop (2006), "Pattern Recognition and Machine Learning", section 9.3.3.
    """

    dtype = np.uint8

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = _checks.real("alpha", alpha, 1.0)

    def __repr__(self) -> str:
        return f"Bernoulli(alpha={self.alpha:g})"

    def params(self, probabilities: Array) -> BernoulliParams:
        """Return parameters from probabilities (K, d) in [0, 1]."""
        p = np.array(probabilities, np.float64, order="C")
        params = BernoulliParams(p, np.empty_like(p), np.empty(len(p)), np.empty(len(p)))
        _write_log_odds(*params)
        return params

    def canonical(self, X: Any) -> NDArray[np.uint8] | SparseRows:
        """Return X as read-only uint8 (n, d), or as SparseRows without data; refuse other values."""
        if isinstance(X, SparseRows):
            return X
        if sparse.issparse(X):
            _checks.binary(X)
            return _checks.sparse_rows(X, with_data=False)
        X = np.asarray(X)
        _checks.matrix(X)
        _checks.binary(X)
        return canonical(X.view(np.uint8) if X.dtype == np.bool_ else X, np.uint8)

    def start(self, X: Any, weight: Array, n_components: int) -> BernoulliParams:
        """Return K components of fair coins."""
        return self.params(np.full((n_components, X.shape[1]), 0.5))

    def log_density(self, X: Any, params: BernoulliParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.probabilities, out)
        table, offset = params.log_odds, canonical(np.zeros(len(X)))
        if not isinstance(X, SparseRows):
            add_products(X, table, params.log_none, offset, out)
        elif not params.n_certain.any():
            add_sparse_products(X.indptr, X.indices, X.data, table, params.log_none, offset, out)
        else:
            # CSR rows do not show what they lack: count the certain features that are there.
            certain, missing = np.isposinf(table).astype(np.float64), np.zeros_like(out)
            finite = np.where(certain > 0, 0.0, table)
            add_sparse_products(X.indptr, X.indices, X.data, finite, params.log_none, offset, out)
            add_sparse_products(X.indptr, X.indices, X.data, -certain, params.n_certain, offset, missing)
            out[missing > 0] = -np.inf

    def zero_stats(self, params: BernoulliParams) -> BernoulliStats:
        """Return the statistics of no rows."""
        K, d = params.probabilities.shape
        return BernoulliStats(np.zeros(K), np.zeros((K, d)))

    def accumulate(self, X: Any, resp: Array, params: BernoulliParams, stats: BernoulliStats) -> None:
        """Add the weighted number of rows and of ones."""
        if isinstance(X, SparseRows):
            add_weighted_sparse_rows(X.indptr, X.indices, X.data, resp, stats.counts, stats.ones)
        else:
            add_weighted_rows(X, resp, stats.counts, stats.ones)

    def mstep(self, stats: BernoulliStats, params: BernoulliParams) -> BernoulliParams:
        """Return the posterior modes of the probabilities; a dead component keeps its own."""
        dead = stats.counts <= DEAD_SHARE * stats.counts.sum()
        p = stats.ones + (self.alpha - 1)
        p /= np.where(dead, 1.0, stats.counts + 2 * (self.alpha - 1))[:, None]
        p[dead] = params.probabilities[dead]
        return self.params(np.minimum(p, 1.0, out=p))  # sums in two orders: 1 may be passed by rounding

    def log_prior(self, params: BernoulliParams) -> float:
        """Return the log density of the Beta prior, up to a constant."""
        if self.alpha == 1:
            return 0.0
        p = params.probabilities
        return (self.alpha - 1) * float(np.sum(np.log(p) + np.log1p(-p)))

    def to_vector(self, params: BernoulliParams, origin: BernoulliParams) -> Array:
        """Return the probabilities: where one tends to 0 or 1, its logarithm would outrun all the others."""
        return params.probabilities.ravel()

    def from_vector(self, vector: Array, origin: BernoulliParams) -> BernoulliParams:
        """Return the parameters that have these probabilities; one out of bounds is put close to the bound."""
        p = np.where(vector < 0, BEYOND, np.where(vector > 1, 1 - BEYOND, vector))
        return self.params(p.reshape(origin.probabilities.shape))

    def sample(self, params: BernoulliParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.uint8]:
        """Draw n rows from component k, shape (n, d), as uint8."""
        p = params.probabilities[k]
        return np.asarray(rng.random_sample((n, len(p))) < p, np.uint8)

    def n_parameters(self, params: BernoulliParams) -> int:
        """Return K d."""
        return int(params.probabilities.size)
