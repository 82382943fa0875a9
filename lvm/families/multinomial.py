"""Rows of counts, each a multinomial draw: words of a text, choices of a person."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import gammaln

from lvm import _checks
from lvm._jit import Array, canonical, kernel
from lvm.kernels.strips import STRIP, WIDTH, load_strip
from lvm.protocol import DEAD_SHARE, SparseRows

LOG_FACTORIAL = gammaln(np.arange(1.0, 1025.0))  # log m! for m < 1024; larger ones are computed


class MultinomialParams(NamedTuple):
    """Cell probabilities and their logarithms, (K, d) each, in Fortran order; rows of the first sum to 1."""

    probabilities: Array
    log_probabilities: Array


class MultinomialStats(NamedTuple):
    """Weighted responsibilities (K,) and weighted counts of each cell (K, d), in Fortran order."""

    counts: Array
    events: Array


@kernel
def _log_factorial(x: float) -> float:
    """Return log x! (log Gamma(x + 1) for fractional x)."""
    whole = int(min(x, LOG_FACTORIAL.shape[0] - 1))
    return LOG_FACTORIAL[whole] if x == whole else math.lgamma(x + 1.0)


@kernel
def _log_density_dense(X: Array, log_probabilities: Array, out: Array) -> None:
    """Add log p of X (n, d) to out (K, n), with the multinomial coefficient; log_probabilities (d, K)."""
    n, d = X.shape
    strip = np.empty((d, WIDTH))
    coefficient = np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        for p in range(m):
            total = 0.0
            coefficient[p] = 0.0
            for j in range(d):
                x = X[start + p, j]
                strip[j, p] = x
                total += x
                if x != 0.0 and x != 1.0:
                    coefficient[p] -= _log_factorial(x)
            coefficient[p] += _log_factorial(total)
        for k in range(out.shape[0]):
            row = out[k, start : start + m]
            for p in range(m):
                row[p] += coefficient[p]
            for j in range(d):
                w = log_probabilities[j, k]
                if w == -np.inf:
                    for p in range(m):
                        row[p] = -np.inf if strip[j, p] > 0.0 else row[p]
                else:
                    for p in range(m):
                        row[p] += w * strip[j, p]


@kernel
def _accumulate_dense(X: Array, resp: Array, counts: Array, events: Array) -> None:
    """Add the sums of resp (K, n) to counts (K,), and of resp times X (n, d) to events (d, K)."""
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
                events[j, k] += total


@kernel
def _log_density_sparse(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: Array, log_probabilities: Array, out: Array
) -> None:
    """Add log p of CSR rows to out (K, n), with the multinomial coefficient; log_probabilities (d, K)."""
    K, n = out.shape
    total = np.empty(K)
    for i in range(n):
        total[:] = 0.0
        size = 0.0
        coefficient = 0.0
        for entry in range(indptr[i], indptr[i + 1]):
            j = indices[entry]
            x = data[entry]
            size += x
            if x != 0.0 and x != 1.0:
                coefficient -= _log_factorial(x)
            for k in range(K):
                total[k] += x * log_probabilities[j, k]
        coefficient += _log_factorial(size)
        for k in range(K):
            out[k, i] += coefficient + total[k]


@kernel
def _accumulate_sparse(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: Array, resp: Array, counts: Array, events: Array
) -> None:
    """Add the sums of resp (K, n) to counts (K,), and of resp times the CSR rows to events (d, K)."""
    K, n = resp.shape
    r = np.empty(K)
    for i in range(n):
        for k in range(K):
            r[k] = resp[k, i]
            counts[k] += r[k]
        for entry in range(indptr[i], indptr[i + 1]):
            j = indices[entry]
            x = data[entry]
            for k in range(K):
                events[j, k] += x * r[k]


@final
class Multinomial:
    """Counts of d cells given the row's total: p(x | k) = (sum x)! / prod x! * prod p_kj ** x_j.

    X is dense or a scipy sparse matrix, which is never made dense. The total of a row is given, not modelled.
    Fractional counts, such as tf-idf weights, are taken as they are, with Gamma(x + 1) for x!.

    Parameters
    ----------
    alpha : float
        Parameter of a symmetric Dirichlet prior on each component's probabilities, >= 1; 1 is maximum
        likelihood, and alpha > 1 adds alpha - 1 to every count (maximum a posteriori).
    n_trials : int
        Total of each row that `sample` draws.

    References
    ----------
    McLachlan & Peel (2000), "Finite Mixture Models", section 5.5.
    """

    def __init__(self, alpha: float = 1.0, n_trials: int = 1) -> None:
        self.alpha = _checks.real("alpha", alpha, 1.0)
        self.n_trials = _checks.integer("n_trials", n_trials, 0)
        if self.n_trials >= 2**63:
            raise _checks.ParameterError(f"n_trials must be below 2**63 to be drawn, got {n_trials}.")

    def __repr__(self) -> str:
        return f"Multinomial(alpha={self.alpha:g}, n_trials={self.n_trials})"

    def params(self, probabilities: Array) -> MultinomialParams:
        """Return parameters from probabilities (K, d), whose rows sum to 1."""
        p = np.array(probabilities, np.float64, order="F")
        with np.errstate(divide="ignore"):
            return MultinomialParams(p, np.log(p))

    def canonical(self, X: Any) -> Array | SparseRows:
        """Return X as read-only float64 (n, d) or as SparseRows; refuse negative counts."""
        if isinstance(X, SparseRows):
            return X
        if sparse.issparse(X):
            _checks.counts(X)
            return _checks.sparse_rows(X, with_data=True)
        X = np.asarray(X)
        _checks.matrix(X)
        _checks.counts(X)
        return canonical(X)

    def start(self, X: Any, weight: Array, n_components: int) -> MultinomialParams:
        """Return K components of equal probabilities."""
        return self.params(np.full((n_components, X.shape[1]), 1 / X.shape[1]))

    def log_density(self, X: Any, params: MultinomialParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.probabilities, out)
        if isinstance(X, SparseRows):
            _log_density_sparse(X.indptr, X.indices, X.data, params.log_probabilities.T, out)
        else:
            _log_density_dense(X, params.log_probabilities.T, out)

    def zero_stats(self, params: MultinomialParams) -> MultinomialStats:
        """Return the statistics of no rows."""
        K, d = params.probabilities.shape
        return MultinomialStats(np.zeros(K), np.zeros((K, d), order="F"))

    def accumulate(self, X: Any, resp: Array, params: MultinomialParams, stats: MultinomialStats) -> None:
        """Add the weighted number of rows and counts of cells."""
        if isinstance(X, SparseRows):
            _accumulate_sparse(X.indptr, X.indices, X.data, resp, stats.counts, stats.events.T)
        else:
            _accumulate_dense(X, resp, stats.counts, stats.events.T)

    def mstep(self, stats: MultinomialStats, params: MultinomialParams) -> MultinomialParams:
        """Return the posterior modes of the probabilities; a dead or empty component keeps its own."""
        events = stats.events + (self.alpha - 1)
        totals = events.sum(axis=1, keepdims=True)
        alive = (stats.counts > DEAD_SHARE * stats.counts.sum())[:, None] & (totals > 0)
        return self.params(np.divide(events, totals, out=params.probabilities.copy("F"), where=alive))

    def log_prior(self, params: MultinomialParams) -> float:
        """Return the log density of the Dirichlet prior, up to a constant."""
        if self.alpha == 1:
            return 0.0
        return (self.alpha - 1) * float(params.log_probabilities.sum())

    def sample(self, params: MultinomialParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
        """Draw n rows of `n_trials` counts from component k, shape (n, d)."""
        return np.asarray(rng.multinomial(self.n_trials, params.probabilities[k], size=n))

    def n_parameters(self, params: MultinomialParams) -> int:
        """Return K (d - 1)."""
        K, d = params.probabilities.shape
        return int(K * (d - 1))
