"""Rows of counts, each a multinomial draw: words of a text, choices of a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lvm import _checks
from lvm._jit import Array, canonical, helper, kernel
from lvm.kernels.elementary import log_probability
from lvm.kernels.gamma_functions import LARGEST, LOG_FACTORIAL, log_factorial
from lvm.kernels.products import add_products, add_weighted_rows
from lvm.kernels.sparse_products import add_sparse_products, add_weighted_sparse_rows
from lvm.protocol import DEAD_SHARE, SparseRows, count_free, free_part, keep_held

BEYOND = 1e-10  # a probability close to 0, from which EM still finds back to another


class MultinomialParams(NamedTuple):
    """Cell probabilities and their logarithms, (K, d) each; rows of the first sum to 1."""

    probabilities: Array
    log_probabilities: Array


class MultinomialStats(NamedTuple):
    """Weighted responsibilities (K,) and weighted counts of each cell (K, d)."""

    counts: Array
    events: Array


@helper
def _log_coefficient(x: Array) -> float:
    """Return log of (sum x)! / prod x! of one row's counts, (d,) or without its zeros."""
    total = 0.0
    coefficient = 0.0
    in_table = True
    for j in range(len(x)):  # no branch: next to no cost where every count is in the table
        whole = np.uint64(min(x[j], LARGEST))
        total += x[j]
        coefficient -= LOG_FACTORIAL[whole]
        in_table &= x[j] == whole
    if not in_table:
        coefficient = 0.0
        for j in range(len(x)):
            coefficient -= log_factorial(x[j])
    return coefficient + log_factorial(total)


@kernel
def _log_coefficients_dense(X: Array, out: Array) -> None:
    """Write the log multinomial coefficients of X (n, d) to out (n,)."""
    for i in range(len(out)):
        out[i] = _log_coefficient(X[i])


@kernel
def _log_coefficients_sparse(indptr: NDArray[np.int64], data: Array, out: Array) -> None:
    """Write the log multinomial coefficients of CSR rows to out (n,)."""
    for i in range(len(out)):
        out[i] = _log_coefficient(data[indptr[i] : indptr[i + 1]])


def _log_coefficients(X: Array | SparseRows) -> Array:
    """Return the log multinomial coefficients of rows, (n,), read-only."""
    out = np.empty(len(X))
    if isinstance(X, SparseRows):
        _log_coefficients_sparse(X.indptr, X.data, out)
    else:
        _log_coefficients_dense(X, out)
    return canonical(out)


@kernel
def _write_logarithms(probabilities: Array, out: Array) -> None:
    """Write the logarithms of probabilities (K, d) to out (K, d)."""
    for k in range(out.shape[0]):
        row, logarithms = probabilities[k], out[k]
        for j in range(out.shape[1]):
            logarithms[j] = log_probability(row[j])


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
    held : mapping of str to ndarray of bool, optional
        Components whose "probabilities" the M-step keeps, as a mask (K,).

    References
    ----------
    McLachlan & Peel (2000), "Finite Mixture Models", section 5.5.
    """

    parameters: ClassVar[Mapping[str, str]] = {"probabilities": "Kd"}

    def __init__(
        self, alpha: float = 1.0, n_trials: int = 1, held: Mapping[str, NDArray[np.bool_]] | None = None
    ) -> None:
        self.alpha = _checks.real("alpha", alpha, 1.0)
        self.n_trials = _checks.integer("n_trials", n_trials, 0)
        if self.n_trials >= 2**63:
            raise _checks.ParameterError(f"n_trials must be below 2**63 to be drawn, got {n_trials}.")
        self.held = dict(held or {})

    def __repr__(self) -> str:
        return f"Multinomial(alpha={self.alpha:g}, n_trials={self.n_trials})"

    def params(self, probabilities: Array) -> MultinomialParams:
        """Return parameters from probabilities (K, d), whose rows sum to 1."""
        p = np.array(probabilities, np.float64, order="C")
        logarithms = np.empty_like(p)
        _write_logarithms(p, logarithms)
        return MultinomialParams(p, logarithms)

    def canonical(self, X: Any) -> Array | SparseRows:
        """Return X as read-only float64 (n, d) or as SparseRows; refuse negative counts."""
        if isinstance(X, SparseRows):
            return X
        if sparse.issparse(X):
            _checks.counts(X)
            _checks.finite(X)
            rows = _checks.sparse_rows(X, with_data=True)
            return replace(rows, constants=_log_coefficients(rows))
        X = np.asarray(X)
        _checks.matrix(X)
        _checks.counts(X)
        _checks.finite(X)
        return canonical(X)

    def start(self, X: Any, weight: Array, n_components: int) -> MultinomialParams:
        """Return K components of equal probabilities."""
        return self.params(np.full((n_components, X.shape[1]), 1 / X.shape[1]))

    def log_density(self, X: Any, params: MultinomialParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.probabilities, out)
        table, base = params.log_probabilities, np.zeros(len(out))
        if isinstance(X, SparseRows):
            coefficients = _log_coefficients(X) if X.constants is None else X.constants
            add_sparse_products(X.indptr, X.indices, X.data, table, base, coefficients, out)
        else:
            add_products(X, table, base, _log_coefficients(X), out)

    def zero_stats(self, params: MultinomialParams) -> MultinomialStats:
        """Return the statistics of no rows."""
        K, d = params.probabilities.shape
        return MultinomialStats(np.zeros(K), np.zeros((K, d)))

    def accumulate(self, X: Any, resp: Array, params: MultinomialParams, stats: MultinomialStats) -> None:
        """Add the weighted number of rows and counts of cells."""
        if isinstance(X, SparseRows):
            add_weighted_sparse_rows(X.indptr, X.indices, X.data, resp, stats.counts, stats.events)
        else:
            add_weighted_rows(X, resp, stats.counts, stats.events)

    def mstep(self, stats: MultinomialStats, params: MultinomialParams) -> MultinomialParams:
        """Return the posterior modes of the probabilities; a dead or empty component keeps its own."""
        p = stats.events + (self.alpha - 1)
        totals = p.sum(axis=1)
        dead = (stats.counts <= DEAD_SHARE * stats.counts.sum()) | (totals <= 0)
        p /= np.where(dead, 1.0, totals)[:, None]
        p[dead] = params.probabilities[dead]
        return self.params(keep_held(self.held, "probabilities", p, params.probabilities))

    def log_prior(self, params: MultinomialParams) -> float:
        """Return the log density of the Dirichlet prior, up to a constant."""
        if self.alpha == 1:
            return 0.0
        return (self.alpha - 1) * float(free_part(self.held, "probabilities", params.log_probabilities).sum())

    def to_vector(self, params: MultinomialParams, origin: MultinomialParams) -> Array:
        """Return the probabilities: where one tends to 0, its logarithm would outrun all the others."""
        return params.probabilities.ravel()

    def from_vector(self, vector: Array, origin: MultinomialParams) -> MultinomialParams:
        """Return the parameters that have these probabilities; one below 0 is put close to it."""
        p = np.where(vector < 0, BEYOND, vector).reshape(origin.probabilities.shape)
        return self.params(p / p.sum(axis=1, keepdims=True))

    def sample(self, params: MultinomialParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
        """Draw n rows of `n_trials` counts from component k, shape (n, d)."""
        return np.asarray(rng.multinomial(self.n_trials, params.probabilities[k], size=n))

    def n_parameters(self, params: MultinomialParams) -> int:
        """Return d - 1 for each free component."""
        d = params.probabilities.shape[1]
        return int(count_free(self.held, "probabilities", params.probabilities) // d * (d - 1))
