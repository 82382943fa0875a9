"""Independent binary features: latent class analysis of yes/no items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lvm import _checks
from lvm._jit import Array, canonical, kernel
from lvm.families.draws import draw_cells
from lvm.kernels.bits import add_bits, add_weighted_bits
from lvm.kernels.cells import CodedRows, add_cells, add_weighted_cells
from lvm.kernels.elementary import log_complement, log_probability
from lvm.kernels.sparse_products import add_sparse_products, add_weighted_sparse_rows
from lvm.protocol import DEAD_SHARE, SparseRows, count_free, free_part, keep_held

BEYOND = 1e-10  # a probability close to 0, from which EM still finds back to another


class BernoulliParams(NamedTuple):
    """Parameters, with what the kernels need of their logarithms.

    Attributes
    ----------
    probabilities : ndarray of shape (K, d)
        Probability of a 1.
    log_zero, log_one : ndarray of shape (K, d)
        log(1 - p) and log p.
    log_odds : ndarray of shape (K, d)
        log p / (1 - p); -inf where p = 0, and inf where p = 1.
    log_none : ndarray of shape (K,)
        Log-probability of a row of zeros, over the features with p < 1.
    n_certain : ndarray of shape (K,)
        Number of features with p = 1.
    """

    probabilities: Array
    log_zero: Array
    log_one: Array
    log_odds: Array
    log_none: Array
    n_certain: Array


class BernoulliStats(NamedTuple):
    """Sums of responsibilities.

    Attributes
    ----------
    counts : ndarray of shape (K,)
        Over rows, without those of `CodedRows`.
    ones : ndarray of shape (K, d)
        Over the ones of each feature.
    observed : ndarray of shape (K, d)
        Over the observed cells of `CodedRows`: counts + observed is the weight behind a probability.
    """

    counts: Array
    ones: Array
    observed: Array


@kernel
def _write_logarithms(
    probabilities: Array, log_zero: Array, log_one: Array, log_odds: Array, log_none: Array, n_certain: Array
) -> None:
    """Write the other fields of `BernoulliParams` for probabilities (K, d)."""
    for k in range(log_odds.shape[0]):
        row, zeros, ones, odds = probabilities[k], log_zero[k], log_one[k], log_odds[k]
        none = certain = 0.0
        for j in range(log_odds.shape[1]):
            zeros[j], ones[j] = log_complement(row[j]), log_probability(row[j])
            odds[j] = ones[j] - zeros[j]
            none += zeros[j] if row[j] < 1.0 else 0.0
            certain += 0.0 if row[j] < 1.0 else 1.0
        log_none[k] = none
        n_certain[k] = certain


def _coded(X: NDArray[Any]) -> NDArray[np.int32]:
    """Return zeros, ones and NaN (n, d) as codes, -1 where NaN."""
    codes = np.empty(X.shape, np.int32)
    for start in range(0, len(X), _checks.BLOCK_ROWS):
        block = X[start : start + _checks.BLOCK_ROWS]
        codes[start : start + len(block)] = np.where(np.isnan(block), -1, block)
    return canonical(codes, np.int32)


def _slots(d: int) -> NDArray[np.int64]:
    """Return the slot of a 0 of each feature in such a table, (d,)."""
    return canonical(np.arange(1, 3 * d, 3), np.int64)


@final
class Bernoulli:
    """d independent binary features given the component.

    X is dense (bool, integer or float zeros and ones, NaN where missing) or a scipy sparse matrix. The factors of
    missing cells are left out, which is maximum likelihood where cells are missing at random.

    Parameters
    ----------
    alpha : float
        Both parameters of a symmetric Beta prior on each probability, >= 1; 1 is maximum likelihood, and
        alpha > 1 adds alpha - 1 ones and zeros per feature and component (maximum a posteriori).
    held : mapping of str to ndarray of bool, optional
        Components whose "probabilities" the M-step keeps, as a mask (K,).

    References
    ----------
    Bishop (2006), "Pattern Recognition and Machine Learning", section 9.3.3.
    """

    dtype = np.uint8
    parameters: ClassVar[Mapping[str, str]] = {"probabilities": "Kd"}
    accepts_missing = True

    def __init__(self, alpha: float = 1.0, held: Mapping[str, NDArray[np.bool_]] | None = None) -> None:
        self.alpha = _checks.real("alpha", alpha, 1.0)
        self.held = dict(held or {})

    def __repr__(self) -> str:
        return f"Bernoulli(alpha={self.alpha:g})"

    def params(self, probabilities: Array) -> BernoulliParams:
        """Return parameters from probabilities (K, d) in [0, 1]."""
        p = np.array(probabilities, np.float64, order="C")
        params = BernoulliParams(p, *(np.empty(shape) for shape in 3 * [p.shape] + 2 * [len(p)]))
        _write_logarithms(*params)
        return params

    def canonical(self, X: Any) -> NDArray[np.uint8] | SparseRows | CodedRows:
        """Return X as read-only uint8 (n, d), as SparseRows without data, or with holes as CodedRows."""
        if isinstance(X, SparseRows | CodedRows):
            return X
        if sparse.issparse(X):
            _checks.binary(X)
            _checks.finite(X)  # a missing cell would have to be stored
            return _checks.sparse_rows(X, with_data=False)
        X = np.asarray(X)
        _checks.matrix(X)
        _checks.binary(X)
        if X.dtype.kind == "f" and np.isnan(np.sum(X)):
            return CodedRows(_coded(X))
        return canonical(X.view(np.uint8) if X.dtype == np.bool_ else X, np.uint8)

    def start(self, X: Any, weight: Array, n_components: int) -> BernoulliParams:
        """Return K components of fair coins."""
        return self.params(np.full((n_components, X.shape[1]), 0.5))

    def log_density(self, X: Any, params: BernoulliParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        _checks.matching(X, params.probabilities, out)
        table, offset = params.log_odds, canonical(np.zeros(len(X)))
        if isinstance(X, CodedRows):
            K, d = table.shape
            cells = np.stack([np.zeros((K, d)), params.log_zero, params.log_one], axis=2)
            add_cells(X.codes, _slots(d), cells.reshape(K, 3 * d), np.zeros(K), out)
        elif not isinstance(X, SparseRows):
            add_bits(X, params.log_zero, params.log_one, out)
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
        return BernoulliStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, d)))

    def accumulate(self, X: Any, resp: Array, params: BernoulliParams, stats: BernoulliStats) -> None:
        """Add the weighted number of rows, or of observed cells, and of ones."""
        if isinstance(X, CodedRows):
            K, d = stats.ones.shape
            cells = np.zeros((K, 3 * d))
            add_weighted_cells(X.codes, _slots(d), resp, np.zeros(K), cells)
            zeros, ones = cells[:, 1::3], cells[:, 2::3]
            np.add(stats.ones, ones, out=stats.ones)
            np.add(stats.observed, zeros + ones, out=stats.observed)
        elif isinstance(X, SparseRows):
            add_weighted_sparse_rows(X.indptr, X.indices, X.data, resp, stats.counts, stats.ones)
        else:
            add_weighted_bits(X, resp, stats.counts, stats.ones)

    def mstep(self, stats: BernoulliStats, params: BernoulliParams) -> BernoulliParams:
        """Return the posterior modes of the probabilities; what has no weight behind it keeps its own.

        With a prior, an unobserved feature of a component that is not dead has a mode, 1/2.
        """
        weights = stats.counts[:, None] + stats.observed
        kept = weights <= DEAD_SHARE * weights.sum(axis=0)
        if self.alpha > 1:
            kept = np.repeat(kept.all(axis=1, keepdims=True), kept.shape[1], axis=1)
        p = stats.ones + (self.alpha - 1)
        p /= np.where(kept, 1.0, weights + 2 * (self.alpha - 1))
        p[kept] = params.probabilities[kept]
        np.minimum(p, 1.0, out=p)  # sums in two orders: 1 may be passed by rounding
        return self.params(keep_held(self.held, "probabilities", p, params.probabilities))

    def log_prior(self, params: BernoulliParams) -> float:
        """Return the log density of the Beta prior, up to a constant."""
        if self.alpha == 1:
            return 0.0
        p = free_part(self.held, "probabilities", params.probabilities)
        return (self.alpha - 1) * float(np.sum(np.log(p) + np.log1p(-p)))

    def to_vector(self, params: BernoulliParams, origin: BernoulliParams) -> Array:
        """Return the probabilities: where one tends to 0 or 1, its logarithm would outrun all the others."""
        return params.probabilities.ravel()

    def from_vector(self, vector: Array, origin: BernoulliParams) -> BernoulliParams:
        """Return the parameters that have these probabilities; one out of bounds is put close to the bound."""
        p = np.where(vector < 0, BEYOND, np.where(vector > 1, 1 - BEYOND, vector))
        return self.params(p.reshape(origin.probabilities.shape))

    def fill(self, X: Any, resp: Array, params: BernoulliParams, out: Array) -> None:
        """Write 1 to missing cells of out (n, d) where that is more probable than 0 under resp (K, n), else 0."""
        if isinstance(X, CodedRows):
            np.copyto(out, resp.T @ params.probabilities > 0.5, where=X.codes < 0)

    def draw_missing(
        self, X: Any, resp: Array, params: BernoulliParams, rng: np.random.RandomState, out: Array
    ) -> None:
        """Write a draw of the missing cells of each row, of a component from resp (K, n), to out (n, d)."""
        if isinstance(X, CodedRows):
            draw_cells(self, X.codes < 0, resp, params, rng, out)

    def sample(self, params: BernoulliParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.uint8]:
        """Draw n rows from component k, shape (n, d), as uint8."""
        p = params.probabilities[k]
        return np.asarray(rng.random_sample((n, len(p))) < p, np.uint8)

    def n_parameters(self, params: BernoulliParams) -> int:
        """Return d for each free component."""
        return count_free(self.held, "probabilities", params.probabilities)
