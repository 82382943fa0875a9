"""The contract: what a latent variable model and a component family must offer.

Two protocols, both structural: any object with these methods serves, no base class and no
registration. Arrays are float64 unless said otherwise; n is the number of rows, d of features,
K of components.

The rule from which row blocks, threads and clusters follow: **statistics add up**. For any split
of the rows, the elementwise sum of the parts' statistics, all taken at the same parameters (which may
be their centre), is the statistics of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Params = TypeVar("Params")
Stats = TypeVar("Stats")

# A component with a smaller share of the weight changes no digit of the log-likelihood: it has died, and
# its M-step keeps its parameters.
DEAD_SHARE = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class SparseRows:
    """Rows of a compressed sparse row (CSR) matrix; slicing shares the entries, it copies nothing.

    Attributes
    ----------
    indptr : ndarray of shape (n + 1,), int64
        Row i owns the entries `indptr[i]:indptr[i + 1]` of `indices` and `data`.
    indices : ndarray of shape (nnz,), int32
        Column of each entry, ascending within a row, without duplicates.
    data : ndarray of shape (nnz,)
        Value of each entry.
    n_features : int
        Number of columns.
    constants : ndarray of shape (n,), optional
        The part of each row's log density that no parameter enters, where the family computed it beforehand.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: Array
    n_features: int
    constants: Array | None = None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return len(self), self.n_features

    def __getitem__(self, rows: slice) -> SparseRows:
        start, stop, _ = rows.indices(len(self))
        constants = None if self.constants is None else self.constants[start:stop]
        return SparseRows(self.indptr[start : stop + 1], self.indices, self.data, self.n_features, constants)

    def row_sums(self) -> Array:
        """Return the sum of each row's entries, shape (n,)."""
        return np.diff(np.concatenate([[0.0], np.cumsum(self.data)])[self.indptr])


class Rows(NamedTuple):
    """Row-aligned data of a model; models with more columns define their own NamedTuple.

    Attributes
    ----------
    X : ndarray of shape (n, d) or SparseRows
        Observations, in the dtype that the family asks for.
    weight : ndarray of shape (n,), optional
        Row weights, >= 0: a row of weight 2 counts as two equal rows. None means all 1.
    labels : ndarray of shape (n,), int64, optional
        Known component of a row, -1 where unknown. None means all unknown.
    """

    X: Any
    weight: Array | None = None
    labels: NDArray[np.int64] | None = None


@runtime_checkable
class LatentModel(Protocol[Params, Stats]):
    """All that the EM driver knows of a model.

    `Params` and `Stats` are NamedTuples of arrays, floats or such NamedTuples. `Stats` has at least
    the fields `loglik` (log-likelihood of the rows under the parameters of the E-step, weighted) and
    `weight` (total row weight). A model may also define

    - `log_prior(params) -> float`: the driver then climbs `stats.loglik + log_prior(params)`;
    - `objective(stats, params) -> float`: the same said in full, where that sum is not enough;
    - `canonical(rows) -> rows`: bring rows to the dtype and layout of the kernels, once per fit.
    """

    def estep_stats(self, rows: Any, params: Params) -> Stats:
        """Return the expected sufficient statistics of `rows` under the posterior at `params`."""

    def mstep(self, stats: Stats, params: Params) -> Params:
        """Return the parameters that maximise (or raise) the expected objective.

        `params` are those of the E-step: the centre of centred statistics, and the start of an
        iterative M-step. Raises `DegenerateError` where no maximiser exists.
        """

    def loglik(self, rows: Any, params: Params) -> Array:
        """Return the log-likelihood of each row, shape (n,), unweighted."""


@runtime_checkable
class Family(Protocol[Params, Stats]):
    """One component density, for all K components at once: what a mixture is made of.

    The first axis of every array in `Params` and `Stats` is the component (of length 1 where the
    components share it). A family may also define

    - `start(X, weight, n_components) -> Params`: neutral parameters, the first centre of `accumulate`;
      needed to start from responsibilities, which every estimator does;
    - `canonical(X) -> X`: validate the values and return them as the kernels see them, once per fit; by default
      float64, C order, read-only. Another dtype is named by the attribute `dtype`;
    - `log_prior(params) -> float`: log density of the prior, up to a constant;
    - `log_penalty(params) -> (K,)`: a term added to each component's log density in the E-step only, for an
      M-step that maximises a penalised expectation;
    - `to_vector(params, origin) -> (p,)` and its inverse `from_vector(vector, origin) -> params`: coordinates, for
      `lvm.fit_anderson`. `origin`, any parameters of the same shapes, fixes location and scale: the coordinates should
      not depend on the units of the data;
    - `pruning_depth`, `find_candidates` and `accumulate_candidates`, all three: an E-step that looks only at the
      pairs of row and component that can matter, see `lvm.kernels.candidates` and `lvm.families.FullGaussian`.
    """

    def log_density(self, X: Any, params: Params, out: Array) -> None:
        """Add log p(x_i | component k) to `out[k, i]`; `out` has shape (K, n), C order."""

    def zero_stats(self, params: Params) -> Stats:
        """Return the statistics of no rows."""

    def accumulate(self, X: Any, resp: Array, params: Params, stats: Stats) -> None:
        """Add the rows' expected statistics to `stats`, in place.

        `resp[k, i]` is row i's responsibility for component k times its weight, shape (K, n).
        Second moments are taken about a centre in `params`, never about the origin.
        """

    def mstep(self, stats: Stats, params: Params) -> Params:
        """Return the parameters that maximise the expected (penalised) log-likelihood."""

    def sample(self, params: Params, k: int, n: int, rng: np.random.RandomState) -> Any:
        """Draw `n` rows from component `k`, shape (n, d)."""

    def n_parameters(self, params: Params) -> int:
        """Return the number of free parameters of all components together."""


class DegenerateError(ValueError):
    """An M-step has no finite maximiser, as when a component collapses onto one point."""


class ZeroDensityError(ValueError):
    """A row is impossible, or overflows, under every component.

    Attributes
    ----------
    row : int
        Position of the row in the data that was handed in.
    """

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__(
            f"row {row} has density 0 (or an overflowing one) under every component, so its component is "
            "undefined; remove the row, scale the data, or use a prior or other starting values."
        )


def map_fields(function: Any, *trees: Any) -> Any:
    """Apply `function` to matching leaves of nested NamedTuples; None stays None."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(map_fields(function, *fields) for fields in zip(*trees, strict=True)))
    return function(*trees)


def leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves of nested NamedTuples, in field order."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for field in tree:
            yield from leaves(field)
    elif tree is not None:
        yield tree


def n_rows(rows: Any) -> int:
    """Return the number of rows of a NamedTuple of row-aligned arrays."""
    first = next(leaves(rows))
    return int(first.shape[0]) if hasattr(first, "shape") else len(first)  # scipy's matrices have no len


def slice_rows(rows: Any, part: slice) -> Any:
    """Return the rows of `part`, as views."""
    return map_fields(lambda field: field[part], rows)
