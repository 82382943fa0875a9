"""Independent categorical features given the component: latent class analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, canonical, kernel
from lvm.families.draws import draw_cells
from lvm.kernels.cells import CodedRows, add_cells, add_weighted_cells
from lvm.kernels.elementary import log_probability
from lvm.protocol import DEAD_SHARE, count_free, keep_held

BEYOND = 1e-10  # a probability close to 0, from which EM still finds back to another
NORMALISED = 1e-6  # how far probabilities given in a few digits may miss a sum of 1


class CategoricalParams(NamedTuple):
    """Parameters, with their logarithms as the kernels read them.

    Attributes
    ----------
    probabilities : ndarray of shape (K, C)
        Probabilities of the categories, those of all columns side by side; each column's sum to 1.
    log_cells : ndarray of shape (K, C + d)
        Their logarithms, with a 0 for a missing cell before those of each column, see `lvm.kernels.cells`.
    """

    probabilities: Array
    log_cells: Array


class CategoricalStats(NamedTuple):
    """Weighted responsibilities (K,), and their sums over the rows of each category or missing cell (K, C + d)."""

    counts: Array
    cells: Array


@kernel
def _write_logarithms(probabilities: Array, at: NDArray[np.int64], table: Array) -> None:
    """Write the logarithms of probabilities (K, C) to the slots `at` (C,) of table (K, S)."""
    for k in range(table.shape[0]):
        for c in range(len(at)):
            table[k, at[c]] = log_probability(probabilities[k, c])


@final
class Categorical:
    """d independent categorical features given the component: p(x | k) = prod_j p_kj[x_j].

    X holds codes, as integers or floats: 0 to c_j - 1 in column j, and -1 or NaN where a cell is missing. The factors
    of missing cells are left out, which is maximum likelihood where cells are missing at random.

    Parameters
    ----------
    n_categories : sequence of int
        Number of categories c_j of each column, those included that no row has.
    alpha : float
        Parameter of a symmetric Dirichlet prior on the probabilities of each column and component, >= 1; 1 is maximum
        likelihood, and alpha > 1 adds alpha - 1 to every category's count (maximum a posteriori).
    held : mapping of str to ndarray of bool, optional
        Components whose "probabilities" the M-step keeps, as a mask (K,).

    References
    ----------
    Goodman (1974), "Exploratory latent structure analysis using both identifiable and unidentifiable models",
    Biometrika 61.
    """

    parameters: ClassVar[Mapping[str, str]] = {"probabilities": "Kc"}
    accepts_missing = True

    def __init__(
        self, n_categories: Sequence[int], alpha: float = 1.0, held: Mapping[str, NDArray[np.bool_]] | None = None
    ) -> None:
        if np.ndim(n_categories) != 1 or len(n_categories) == 0:
            raise _checks.ParameterError(f"n_categories must be a list of integers >= 1, got {n_categories!r}.")
        self.n_categories = [_checks.integer(f"n_categories[{j}]", c, 1) for j, c in enumerate(n_categories)]
        self.alpha = _checks.real("alpha", alpha, 1.0)
        self.held = dict(held or {})
        self._first = np.cumsum([0, *self.n_categories[:-1]])
        column = np.repeat(np.arange(len(self.n_categories)), self.n_categories)
        self._at = canonical(np.arange(len(column)) + column + 1, np.int64)  # slot of each category
        self._slots = canonical(self._at[self._first], np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is made of: arrays come back writable, and kernels would compile once more for those."""
        return Categorical, (self.n_categories, self.alpha, self.held)

    def __repr__(self) -> str:
        return f"Categorical(n_categories={self.n_categories}, alpha={self.alpha:g})"

    def params(self, probabilities: Array) -> CategoricalParams:
        """Return parameters from probabilities (K, C) in [0, 1], those of each column summing to 1."""
        p = np.array(probabilities, np.float64, order="C")
        if p.ndim != 2 or p.shape[1] != len(self._at):
            raise ValueError(
                f"probabilities must have a row per component and {len(self._at)} columns, one per category; "
                f"got shape {p.shape}."
            )
        bad = np.argwhere(~((p >= 0) & (p <= 1)))
        if len(bad):
            k, c = bad[0]
            j = np.searchsorted(self._first, c, side="right") - 1
            raise ValueError(
                f"probabilities must be within [0, 1], got {p[k, c]} in component {k}, "
                f"category {c - self._first[j]} of column {j}."
            )
        totals = self._totals(p)
        bad = np.argwhere(~(np.abs(totals - 1) <= NORMALISED))
        if len(bad):
            k, j = bad[0]
            raise ValueError(f"probabilities of component {k} in column {j} sum to {totals[k, j]}, not 1.")
        return self._with_logarithms(p)

    def _with_logarithms(self, p: Array) -> CategoricalParams:
        table = np.zeros((len(p), len(self._at) + len(self._slots)))
        _write_logarithms(p, self._at, table)
        return CategoricalParams(p, table)

    def _totals(self, p: Array) -> Array:
        """Return the sums (K, d) of p (K, C) over the categories of each column."""
        return np.add.reduceat(p, self._first, axis=1)

    def _spread(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array (K, d) as (K, C): each column's value for all of its categories."""
        return np.repeat(array, self.n_categories, axis=1)

    def canonical(self, X: Any) -> CodedRows:
        """Return X as read-only int32 codes; refuse what is not the code of a category."""
        if isinstance(X, CodedRows):
            return X
        X = np.asarray(X)
        _checks.matrix(X)
        if X.dtype.kind not in "biuf":
            raise ValueError(f"X must hold the codes of categories as numbers, got dtype {X.dtype}; encode it first.")
        if X.shape[1] != len(self.n_categories):
            raise ValueError(f"X has {X.shape[1]} columns, but n_categories is given for {len(self.n_categories)}.")
        floats = X.dtype.kind == "f"
        n_missing = 0
        for start in range(0, len(X), _checks.BLOCK_ROWS):
            block = X[start : start + _checks.BLOCK_ROWS]
            missing = np.isnan(block) if floats else np.False_
            valid = (block >= -1) & (block < self.n_categories) & (block == np.floor(block))
            bad = np.argwhere(~(valid | missing))
            if len(bad):
                row, column = start + int(bad[0, 0]), int(bad[0, 1])
                raise ValueError(
                    f"X must hold codes of categories, 0 to {self.n_categories[column] - 1} for the "
                    f"{self.n_categories[column]} of this column, or -1 or NaN where missing; got {X[row, column]} "
                    f"at row {row}, column {column}."
                )
            n_missing += int(np.sum(missing))
        return CodedRows(canonical(np.where(np.isnan(X), -1.0, X) if n_missing else X, np.int32))

    def start(self, X: CodedRows, weight: Array, n_components: int) -> CategoricalParams:
        """Return K components of equal probabilities."""
        shares = 1 / np.array([self.n_categories], np.float64)
        return self.params(np.repeat(self._spread(shares), n_components, axis=0))

    def log_density(self, X: CodedRows, params: CategoricalParams, out: Array) -> None:
        """Add log p(x_i | k) to out (K, n)."""
        if params.probabilities.shape[1] != len(self._at):
            raise ValueError(
                f"the parameters have {params.probabilities.shape[1]} categories in all, but n_categories sums to "
                f"{len(self._at)}."
            )
        _checks.matching(X, params.log_cells[:, self._slots], out)
        add_cells(X.codes, self._slots, params.log_cells, np.zeros(len(out)), out)

    def zero_stats(self, params: CategoricalParams) -> CategoricalStats:
        """Return the statistics of no rows."""
        return CategoricalStats(np.zeros(len(params.log_cells)), np.zeros(params.log_cells.shape))

    def accumulate(self, X: CodedRows, resp: Array, params: CategoricalParams, stats: CategoricalStats) -> None:
        """Add the weighted number of rows, and of those with each category."""
        add_weighted_cells(X.codes, self._slots, resp, stats.counts, stats.cells)

    def mstep(self, stats: CategoricalStats, params: CategoricalParams) -> CategoricalParams:
        """Return the posterior modes; a dead component, or one that saw nothing of a column, keeps its own there."""
        dead = stats.counts <= DEAD_SHARE * stats.counts.sum()
        p = stats.cells[:, self._at] + (self.alpha - 1)
        totals = self._totals(p)
        kept = dead[:, None] | (totals <= 0)
        p /= self._spread(np.where(kept, 1.0, totals))
        p = np.where(self._spread(kept), params.probabilities, p)
        return self._with_logarithms(keep_held(self.held, "probabilities", p, params.probabilities))

    def log_prior(self, params: CategoricalParams) -> float:
        """Return the log density of the Dirichlet priors, up to a constant."""
        if self.alpha == 1:
            return 0.0
        return (self.alpha - 1) * float(params.log_cells.sum())

    def to_vector(self, params: CategoricalParams, origin: CategoricalParams) -> Array:
        """Return the probabilities: where one tends to 0, its logarithm would outrun all the others."""
        return params.probabilities.ravel()

    def from_vector(self, vector: Array, origin: CategoricalParams) -> CategoricalParams:
        """Return the parameters that have these probabilities; one below 0 is put close to it."""
        p = np.where(vector < 0, BEYOND, vector).reshape(origin.probabilities.shape)
        return self._with_logarithms(p / self._spread(self._totals(p)))

    def fill(self, X: CodedRows, resp: Array, params: CategoricalParams, out: Array) -> None:
        """Write the most probable category of each missing cell under resp (K, n) to out (n, d)."""
        for j, (first, c) in enumerate(zip(self._first, self.n_categories, strict=True)):
            rows = np.flatnonzero(X.codes[:, j] < 0)
            posterior = params.probabilities[:, first : first + c].T @ resp[:, rows]
            out[rows, j] = posterior.argmax(axis=0)

    def draw_missing(
        self, X: Any, resp: Array, params: CategoricalParams, rng: np.random.RandomState, out: Array
    ) -> None:
        """Write a draw of the missing cells of each row, of a component from resp (K, n), to out (n, d)."""
        draw_cells(self, X.codes < 0, resp, params, rng, out)

    def sample(self, params: CategoricalParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.int64]:
        """Draw n rows of codes from component k, shape (n, d)."""
        columns = np.split(params.probabilities[k], self._first[1:])
        return np.stack([rng.choice(len(p), n, p=p / p.sum()) for p in columns], axis=1)

    def n_parameters(self, params: CategoricalParams) -> int:
        """Return K times the sum of c_j - 1, of the components that are not held."""
        free = params.probabilities[:, len(self._slots) :]  # one of each column follows from the others
        return count_free(self.held, "probabilities", free)
