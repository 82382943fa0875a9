"""Independent binary features: latent class analysis of yes/no items."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lvm import _checks
from lvm._jit import Array, canonical, kernel
from lvm.kernels.strips import STRIP, WIDTH, load_strip
from lvm.protocol import DEAD_SHARE, SparseRows


class BernoulliParams(NamedTuple):
    """Parameters, with what the kernels need of their logarithms; (K, d) arrays are in Fortran order.

    Attributes
    ----------
    probabilities : ndarray of shape (K, d)
        Probability of a 1.
    log_odds : ndarray of shape (K, d)
        log p / (1 - p); -inf where p = 0, and 0 where p = 1.
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
    """Weighted responsibilities (K,) and weighted number of ones (K, d), in Fortran order."""

    counts: Array
    ones: Array


@kernel
def _log_density_dense(
    X: NDArray[np.uint8], probabilities: Array, log_odds: Array, log_none: Array, out: Array
) -> None:
    """Add log p of X (n, d) to out (K, n); probabilities and log_odds (d, K)."""
    n, d = X.shape
    strip = np.empty((d, WIDTH))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(out.shape[0]):
            row = out[k, start : start + m]
            for p in range(m):
                row[p] += log_none[k]
            for j in range(d):
                w = log_odds[j, k]
                if probabilities[j, k] == 1.0:
                    for p in range(m):
                        row[p] = row[p] if strip[j, p] > 0.0 else -np.inf
                elif w == -np.inf:
                    for p in range(m):
                        row[p] = -np.inf if strip[j, p] > 0.0 else row[p]
                else:
                    for p in range(m):
                        row[p] += w * strip[j, p]


@kernel
def _accumulate_dense(X: NDArray[np.uint8], resp: Array, counts: Array, ones: Array) -> None:
    """Add the sums of resp (K, n) to counts (K,), and those over ones of X (n, d) to ones (d, K)."""
    n, d = X.shape
    strip = np.empty((d, WIDTH))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(resp.shape[0]):
            r = resp[k, start : start + m]
            count = 0.0
            for p in range(m):
                count += r[p]
            counts[k] += count
            for j in range(d):
                total = 0.0
                for p in range(m):
                    total += r[p] * strip[j, p]
                ones[j, k] += total


@kernel
def _log_density_sparse(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    probabilities: Array,
    log_odds: Array,
    log_none: Array,
    n_certain: Array,
    out: Array,
) -> None:
    """Add log p of CSR rows to out (K, n); probabilities and log_odds (d, K)."""
    K, n = out.shape
    total = np.empty(K)
    certain = np.sum(n_certain) > 0
    for i in range(n):
        total[:] = log_none
        for entry in range(indptr[i], indptr[i + 1]):
            j = indices[entry]
            for k in range(K):
                total[k] += log_odds[j, k]
        for k in range(K):
            out[k, i] += total[k]
        if certain:
            total[:] = n_certain
            for entry in range(indptr[i], indptr[i + 1]):
                j = indices[entry]
                for k in range(K):
                    total[k] -= 1.0 if probabilities[j, k] == 1.0 else 0.0
            for k in range(K):
                if total[k] > 0.0:
                    out[k, i] = -np.inf


@kernel
def _accumulate_sparse(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], resp: Array, counts: Array, ones: Array
) -> None:
    """Add the sums of resp (K, n) to counts (K,), and those over the entries of CSR rows to ones (d, K)."""
    K, n = resp.shape
    r = np.empty(K)
    for i in range(n):
        for k in range(K):
            r[k] = resp[k, i]
            counts[k] += r[k]
        for entry in range(indptr[i], indptr[i + 1]):
            j = indices[entry]
            for k in range(K):
                ones[j, k] += r[k]


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
        p = np.array(probabilities, np.float64, order="F")
        with np.errstate(divide="ignore"):
            log_one, log_zero = np.log(p), np.log1p(-p)
        log_zero[p == 1] = 0.0
        n_certain = np.sum(p == 1, axis=1, dtype=np.float64)
        return BernoulliParams(p, log_one - log_zero, log_zero.sum(axis=1), np.asarray(n_certain))

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
        p, w = params.probabilities.T, params.log_odds.T
        if isinstance(X, SparseRows):
            _log_density_sparse(X.indptr, X.indices, p, w, params.log_none, params.n_certain, out)
        else:
            _log_density_dense(X, p, w, params.log_none, out)

    def zero_stats(self, params: BernoulliParams) -> BernoulliStats:
        """Return the statistics of no rows."""
        K, d = params.probabilities.shape
        return BernoulliStats(np.zeros(K), np.zeros((K, d), order="F"))

    def accumulate(self, X: Any, resp: Array, params: BernoulliParams, stats: BernoulliStats) -> None:
        """Add the weighted number of rows and of ones."""
        if isinstance(X, SparseRows):
            _accumulate_sparse(X.indptr, X.indices, resp, stats.counts, stats.ones.T)
        else:
            _accumulate_dense(X, resp, stats.counts, stats.ones.T)

    def mstep(self, stats: BernoulliStats, params: BernoulliParams) -> BernoulliParams:
        """Return the posterior modes of the probabilities; a dead component keeps its own."""
        counts = stats.counts[:, None] + 2 * (self.alpha - 1)
        alive = stats.counts > DEAD_SHARE * stats.counts.sum()
        p = np.divide(stats.ones + (self.alpha - 1), counts, out=params.probabilities.copy("F"), where=alive[:, None])
        return self.params(np.minimum(p, 1.0))  # sums in two orders: 1 may be passed by rounding

    def log_prior(self, params: BernoulliParams) -> float:
        """Return the log density of the Beta prior, up to a constant."""
        if self.alpha == 1:
            return 0.0
        p = params.probabilities
        return (self.alpha - 1) * float(np.sum(np.log(p) + np.log1p(-p)))

    def sample(self, params: BernoulliParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.uint8]:
        """Draw n rows from component k, shape (n, d), as uint8."""
        p = params.probabilities[k]
        return np.asarray(rng.random_sample((n, len(p))) < p, np.uint8)

    def n_parameters(self, params: BernoulliParams) -> int:
        """Return K d."""
        return int(params.probabilities.size)
