"""The one table of cases: what is fitted, from which start, for how many iterations. No benchmarks here."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import lvm

Array = NDArray[np.float64]

COVARIANCES = ("full", "tied", "diag", "spherical")


class Case(NamedTuple):
    """One fit.

    Attributes
    ----------
    family : str
        A covariance type of the Gaussian mixture, "bernoulli" or "multinomial".
    n, d, K : int
        Numbers of rows, features and components.
    n_iter : int
        Iterations of a timed fit.
    separation : float
        Gaussian: distance between means, in standard deviations, is about 1.4 times this.
    n_words : int
        Multinomial: total of a row. Bernoulli: mean number of ones in a row.
    is_sparse : bool
        Whether X is a CSR matrix.
    data : str
        Name of a real data set, "" for simulated rows.
    in_subset : bool
        Whether memory and thread scaling are measured too: cheap and costly rows, dense and sparse.
    """

    family: str
    n: int
    d: int
    K: int
    n_iter: int
    separation: float = 2.0
    n_words: int = 0
    is_sparse: bool = False
    data: str = ""
    in_subset: bool = False

    @property
    def name(self) -> str:
        """Return how results name the case; all that changes the work is part of it."""
        kind = "csr" if self.is_sparse else "separated" if self.separation > 5 else self.data
        return f"{self.family} {kind + ' ' * bool(kind)}{self.n}x{self.d} K={self.K} iter={self.n_iter}"


_TABLE = (
    Case("full", 400_000, 2, 6, 5, in_subset=True),
    Case("full", 150_000, 8, 12, 5, in_subset=True),
    Case("full", 40_000, 64, 16, 3, in_subset=True),
    Case("full", 60_000, 8, 32, 5, separation=10.0),
    Case("full", 272, 2, 2, 200, data="faithful"),
    Case("tied", 60_000, 16, 10, 3),
    Case("diag", 400_000, 2, 6, 10),
    Case("diag", 150_000, 8, 12, 10, in_subset=True),
    Case("spherical", 150_000, 8, 12, 10),
    Case("bernoulli", 100_000, 30, 8, 10, n_words=10, in_subset=True),
    Case("bernoulli", 50_000, 1_000, 10, 5, n_words=20, is_sparse=True, in_subset=True),
    Case("multinomial", 100_000, 30, 8, 10, n_words=40),
    Case("multinomial", 20_000, 5_000, 20, 5, n_words=80, is_sparse=True),
)

CASES = {case.name: case for case in _TABLE}
GAUSSIAN = tuple(name for name, case in CASES.items() if case.family in COVARIANCES and not case.data)
DISCRETE = tuple(name for name, case in CASES.items() if case.family not in COVARIANCES)
SMALL = tuple(name for name, case in CASES.items() if case.data)
SUBSET = tuple(name for name, case in CASES.items() if case.in_subset)


class Problem(NamedTuple):
    """The data of a case and an explicit start: X (n, d), weights (K,), and the estimator's other `*_init`."""

    X: Any
    weights: Array
    components: dict[str, Array]


@lru_cache(maxsize=1)
def problem(name: str) -> Problem:
    """Return the data and the start of a case: the same in every process and on every commit."""
    case = CASES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    assigned = rng.integers(case.K, size=case.n)
    weights = np.full(case.K, 1 / case.K)
    if case.family in COVARIANCES:
        if case.data:
            X = lvm.datasets.load(case.data).data
            scale, means = X.std(axis=0), np.quantile(X, (np.arange(case.K) + 0.5) / case.K, axis=0)
        else:
            X, means = _gaussian(case, assigned, rng)
            scale = np.ones(case.d)
            means += 0.2 * rng.standard_normal(means.shape)
        precisions = {
            "full": np.repeat(np.diag(scale**-2)[None], case.K, axis=0),
            "tied": np.diag(scale**-2),
            "diag": np.repeat(scale[None] ** -2, case.K, axis=0),
            "spherical": np.full(case.K, 1 / np.mean(scale**2)),
        }
        return Problem(X, weights, {"means_init": means, "precisions_init": precisions[case.family]})
    draw = _bernoulli if case.family == "bernoulli" else _multinomial
    X, probabilities = draw(case, assigned, rng)
    # Halfway between the truth and no structure: EM has work to do, and nothing is 0.
    start = 0.5 * probabilities + 0.5 * probabilities.mean(axis=0)
    return Problem(X, weights, {"probabilities_init": start})


def _gaussian(case: Case, assigned: NDArray[np.int64], rng: np.random.Generator) -> tuple[Array, Array]:
    """Return rows (n, d) of components with slightly different covariances, and the true means (K, d)."""
    means = case.separation / np.sqrt(case.d) * rng.standard_normal((case.K, case.d))
    X = rng.standard_normal((case.n, case.d))
    for k, mean in enumerate(means):
        factor = np.eye(case.d) + 0.3 / np.sqrt(case.d) * rng.standard_normal((case.d, case.d))
        rows = assigned == k
        X[rows] = X[rows] @ factor + mean
    return X, means


def _bernoulli(case: Case, assigned: NDArray[np.int64], rng: np.random.Generator) -> tuple[Any, Array]:
    """Return zeros and ones, uint8 or CSR, and the true probabilities (K, d)."""
    probabilities = np.minimum(case.n_words / case.d * rng.gamma(1.0, size=(case.K, case.d)) + 0.001, 0.97)
    X = np.empty((case.n, case.d), np.uint8)
    for k, p in enumerate(probabilities):
        rows = np.flatnonzero(assigned == k)
        X[rows] = rng.random((len(rows), case.d), np.float32) < p
    return (sparse.csr_matrix(X) if case.is_sparse else X), probabilities


def _multinomial(case: Case, assigned: NDArray[np.int64], rng: np.random.Generator) -> tuple[Any, Array]:
    """Return counts, float64 or CSR, and the true probabilities (K, d)."""
    probabilities = rng.gamma(0.5, size=(case.K, case.d)) + 0.01
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    words = np.empty((case.n, case.n_words), np.int64)
    for k, p in enumerate(probabilities):
        rows = np.flatnonzero(assigned == k)
        words[rows] = np.searchsorted(np.cumsum(p)[:-1], rng.random((len(rows), case.n_words)))
    entries = (np.ones(words.size), (np.repeat(np.arange(case.n), case.n_words), words.ravel()))
    counts = sparse.csr_matrix(entries, shape=(case.n, case.d))  # adds up repeated words
    return (counts if case.is_sparse else counts.toarray()), probabilities
