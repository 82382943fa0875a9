"""The one table of cases: what is fitted, from which start, for how many iterations. No benchmarks here."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
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
        A covariance type of the Gaussian mixture, or a key of `DRAWS`.
    n, d, K : int
        Numbers of rows, features and components.
    n_iter : int
        Iterations of a timed fit.
    separation : float
        Gaussian: distance between means, in standard deviations, is about 1.4 times this.
    n_words : int
        Multinomial: total of a row. Bernoulli: mean number of ones in a row. Categorical: categories of a column.
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
    def kind(self) -> str:
        """Return what sets the rows apart, "" for overlapping components and dense rows."""
        return "csr" if self.is_sparse else "separated" if self.separation > 5 else self.data

    @property
    def name(self) -> str:
        """Return how results name the case; all that changes the work is part of it."""
        kind = self.kind + " " * bool(self.kind)
        return f"{self.family} {kind}{self.n}x{self.d} K={self.K} iter={self.n_iter}"

    @property
    def group(self) -> str:
        """Return the section of the table of peers that the case is in."""
        if self.data:
            return "small"
        if self.family not in COVARIANCES:
            return "discrete"
        return self.kind or ("many" if self.K >= MANY else self.family)

    @property
    def has_rate(self) -> bool:
        """Return whether the rate of multiplications is compared with dgemm: where they are most of the work."""
        return self.family == "full" and self.d >= 32 and not self.kind

    @property
    def flop(self) -> int:
        """Return the useful floating-point operations of an iteration with full covariances: distances and moments."""
        return 2 * self.n * self.K * self.d**2

    @property
    def stats_bytes(self) -> int:
        """Return the size of the statistics: a weight, a mean and what spreads about it, per component."""
        spread = {"full": self.d**2, "tied": self.d**2, "diag": self.d, "spherical": 1}
        return 8 * self.K * (1 + self.d + spread.get(self.family, 0))

    def shrunk(self) -> Case:
        """Return the case with as few rows and iterations as make sense, to try the suite and not the library."""
        return self._replace(n=min(self.n, 500 + 2 * self.K * min(self.d, 128)), n_iter=2)


MANY = 100  # components, in a group of their own
# Shapes that every covariance type meets. Iterations: enough that lvm's take 0.1 s, few enough for slow peers.
_SHAPES = ((400_000, 2, 6), (150_000, 8, 12), (150_000, 16, 10), (80_000, 32, 16), (40_000, 64, 16), (20_000, 128, 8))
_SEPARATED = ((100_000, 8, 16), (60_000, 8, 32), (60_000, 16, 32), (40_000, 32, 16))
_IN_SUBSET = (("full", 2), ("full", 8), ("full", 64), ("diag", 8))

_TABLE = (
    *(Case("full", *shape, 5, in_subset=("full", shape[1]) in _IN_SUBSET) for shape in _SHAPES),
    Case("full", 150_000, 8, 48, 3),
    *(Case("diag", *shape, 15, in_subset=("diag", shape[1]) in _IN_SUBSET) for shape in _SHAPES),
    Case("diag", 150_000, 8, 48, 10),
    Case("tied", 200_000, 16, 10, 3),
    Case("spherical", 150_000, 8, 12, 15),
    Case("full", 60_000, 8, MANY, 3),
    Case("diag", 60_000, 8, MANY, 5),
    *(Case("full", *shape, 3, separation=10.0) for shape in _SEPARATED),
    *(Case("diag", *shape, 3, separation=10.0) for shape in _SEPARATED),
    Case("full", 272, 2, 2, 500, data="faithful"),
    Case("bernoulli", 100_000, 30, 8, 10, n_words=10, in_subset=True),
    Case("bernoulli", 50_000, 100, 10, 10, n_words=20),
    Case("bernoulli", 50_000, 1_000, 10, 5, n_words=20, is_sparse=True, in_subset=True),
    Case("categorical", 100_000, 20, 8, 10, n_words=4),
    Case("multinomial", 100_000, 30, 8, 10, n_words=40),
    Case("exponential", 100_000, 8, 8, 10),
    Case("gamma", 100_000, 8, 8, 10),
    Case("von_mises_fisher", 100_000, 50, 10, 10),
    Case("poisson", 100_000, 30, 8, 10),
    Case("negative_binomial", 100_000, 8, 8, 10),
    Case("student_t", 100_000, 8, 8, 10),
    Case("student_t_diag", 100_000, 8, 8, 10),
    Case("multinomial", 20_000, 5_000, 20, 5, n_words=80, is_sparse=True),
)


def _quick_table() -> tuple[Case, ...]:
    """Return one small case of each kind, from the subset where it can be."""
    last_counts = sorted(_TABLE, key=lambda case: case.in_subset)
    return tuple({(case.family, case.group, case.kind, case.has_rate): case.shrunk() for case in last_counts}.values())


def table(is_quick: bool) -> dict[str, Case]:
    """Return the cases by name."""
    return {case.name: case for case in (_quick_table() if is_quick else _TABLE)}


IS_QUICK = os.environ.get("LVM_BENCHMARKS_QUICK") == "1"
CASES = table(IS_QUICK)
GAUSSIAN = tuple(name for name, case in CASES.items() if case.family in COVARIANCES and not case.data)
DISCRETE = tuple(name for name, case in CASES.items() if case.group == "discrete")
SMALL = tuple(name for name, case in CASES.items() if case.data)
SUBSET = tuple(name for name, case in CASES.items() if case.in_subset)
RATES = tuple(name for name, case in CASES.items() if case.has_rate)


class Problem(NamedTuple):
    """The data of a case and an explicit start: X (n, d), weights (K,), and the estimator's other `*_init`."""

    X: Any
    weights: Array
    components: dict[str, Array]


@lru_cache(maxsize=1)
def problem(case: Case) -> Problem:
    """Return the data and the start of a case: the same in every process and on every commit."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
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
    if case.family in STARTED:
        X, components = STARTED[case.family](case, assigned, rng)
        return Problem(X, weights, components)
    X, probabilities = DRAWS[case.family](case, assigned, rng)
    # Halfway between the truth and no structure: EM has work to do, and nothing is 0.
    start = 0.5 * probabilities + 0.5 * probabilities.mean(axis=0)
    if case.family == "categorical":
        start = start.swapaxes(0, 1)  # one array per column
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


def _student_t(case: Case, assigned: NDArray[np.int64], rng: np.random.Generator) -> tuple[Array, dict[str, Array]]:
    """Return rows (n, d) with 4 degrees of freedom, and a start near the truth."""
    X, means = _gaussian(case, assigned, rng)
    X += (X - means[assigned]) * (np.sqrt(4 / rng.chisquare(4, (case.n, 1))) - 1)
    shape = (case.K, case.d, case.d)
    scatters = np.ones(shape[:2]) if case.family == "student_t_diag" else np.broadcast_to(np.eye(case.d), shape)
    start = {"means_init": means + 0.2 * rng.standard_normal(means.shape), "scatters_init": scatters}
    return X, start | {"degrees_of_freedom_init": np.full(case.K, 20.0)}


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


def _categorical(case: Case, assigned: NDArray[np.int64], rng: np.random.Generator) -> tuple[Any, Array]:
    """Return codes of categories, int64, and the true probabilities (K, d, n_words)."""
    probabilities = rng.gamma(1.0, size=(case.K, case.d, case.n_words)) + 0.1
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    limits = np.cumsum(probabilities, axis=2)[:, :, :-1]
    X = np.empty((case.n, case.d), np.int64)
    for k in range(case.K):
        rows = np.flatnonzero(assigned == k)
        X[rows] = (rng.random((len(rows), case.d, 1)) > limits[k]).sum(axis=2)
    return X, probabilities


def _amounts(case: Case, assigned: NDArray[np.int64], rng: np.random.Generator) -> tuple[Array, dict[str, Array]]:
    """Return exponential or gamma amounts (n, d), and a start halfway between the truth and no structure."""
    scales = rng.lognormal(size=(case.K, case.d))
    start = {"scales_init": 0.5 * scales + 0.5 * scales.mean(axis=0)}
    if case.family == "exponential":
        return scales[assigned] * rng.standard_exponential((case.n, case.d)), start
    shapes = rng.uniform(0.7, 9.0, (case.K, case.d))
    start["shapes_init"] = 0.5 * shapes + 0.5 * shapes.mean(axis=0)
    return scales[assigned] * rng.standard_gamma(shapes[assigned]), start


def _directions(case: Case, assigned: NDArray[np.int64], rng: np.random.Generator) -> tuple[Array, dict[str, Array]]:
    """Return unit rows (n, d) about mean directions, and a start near those."""
    means = rng.standard_normal((case.K, case.d))
    X = means[assigned] + 1.5 * rng.standard_normal((case.n, case.d))
    start = means + 0.5 * rng.standard_normal(means.shape)
    X, start = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X, start))
    return X, {"directions_init": start, "concentrations_init": np.full(case.K, 10.0)}


def _events(case: Case, assigned: NDArray[np.int64], rng: np.random.Generator) -> tuple[Any, dict[str, Array]]:
    """Return counts, float64, of Poisson or of negative binomial components of size 2, and the start."""
    means = rng.gamma(2.0, 2.0, size=(case.K, case.d)) + 0.1
    start = 0.5 * means + 0.5 * means.mean(axis=0)
    if case.family == "poisson":
        return rng.poisson(means[assigned]).astype(np.float64), {"rates_init": start}
    X = rng.poisson(means[assigned] * rng.gamma(2.0, 0.5, size=(case.n, case.d))).astype(np.float64)
    return X, {"means_init": start, "sizes_init": np.ones_like(start)}


# Those that name their starting parameters.
STARTED: dict[str, Callable[..., tuple[Any, dict[str, Array]]]] = {
    "exponential": _amounts,
    "gamma": _amounts,
    "negative_binomial": _events,
    "poisson": _events,
    "student_t": _student_t,
    "student_t_diag": _student_t,
    "von_mises_fisher": _directions,
}

# The families that are not Gaussian: a new one needs a line here, and lines in the table.
DRAWS: dict[str, Callable[..., tuple[Any, Array]]] = {
    "bernoulli": _bernoulli,
    "categorical": _categorical,
    "multinomial": _multinomial,
}
