"""The contract: what a latent variable model and a component family must offer.

Two protocols, both structural: any object with these methods serves, no base class and no
registration. Arrays are float64 unless said otherwise; n is the number of rows, d of features,
K of components.

The rule from which row blocks, threads and clusters follow: **statistics add up**. For any split
of the rows, the elementwise sum of the parts' statistics, all taken at the same parameters (which may
be their centre), is the statistics of the whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lvm._jit import canonical

Array = NDArray[np.float64]
Params = TypeVar("Params")
Stats = TypeVar("Stats")

# A component with a smaller share of the weight changes no digit of the log-likelihood: it has died, and
# its M-step keeps its parameters.
DEAD_SHARE = float(np.finfo(np.float64).eps)


class CanonicalRows:
    """Rows that are more than one array, as a family's `canonical` leaves them: valid by construction.

    The base of dataclasses whose fields are row-aligned: arrays, such rows, tuples of those, or None. They are cut into
    blocks by slices, and rows are picked from them by `take`; neither looks at values again.
    """

    def _fields(self) -> tuple[Any, ...]:
        return tuple(vars(self).values())

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Make arrays read-only again, which pickling forgets: kernels would compile once more for others."""
        vars(self).update({name: _pick(field, _protected) for name, field in state.items()})

    def __len__(self) -> int:
        return len(self._fields()[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns: those of the first field."""
        n, d = self._fields()[0].shape
        return int(n), int(d)

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(*(_pick(field, lambda part: part[rows]) for field in self._fields()))

    def take(self, index: NDArray[np.int64]) -> Self:
        """Return the rows at `index`, in that order."""
        return type(self)(*(_pick(field, lambda part: take_rows(part, index)) for field in self._fields()))

    def parts(self) -> list[Any]:
        """Return the arrays and sparse rows that these rows are made of, in order."""
        fields = [part for field in self._fields() for part in (field if isinstance(field, tuple) else (field,))]
        return [leaf for part in fields if part is not None for leaf in row_parts(part)]


@dataclass(frozen=True)
class SparseRows(CanonicalRows):
    """Rows of a compressed sparse row (CSR) matrix; slicing shares the entries, it copies nothing.

    Attributes
    ----------
    indptr : ndarray of shape (n + 1,), int64
        Row i owns the entries `indptr[i]:indptr[i + 1]` of `indices` and `data`.
    indices : ndarray of shape (nnz,), int32
        Column of each entry, ascending within a row, without duplicates.
    data : ndarray of shape (nnz,)
        Value of each entry; empty where all of them are 1.
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

    def take(self, index: NDArray[np.int64]) -> SparseRows:
        """Return the rows at `index`, in that order, with entries of their own."""
        starts = self.indptr[index]
        lengths = self.indptr[index + 1] - starts
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        entries = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        data = canonical(self.data[entries] if len(self.data) else self.data)
        constants = None if self.constants is None else canonical(self.constants[index])
        indices = canonical(self.indices[entries], np.int32)
        return SparseRows(canonical(indptr, np.int64), indices, data, self.n_features, constants)

    def parts(self) -> list[Any]:
        """Return these rows alone."""
        return [self]

    def row_sums(self) -> Array:
        """Return the sum of each row's entries, shape (n,)."""
        return np.diff(np.concatenate([[0.0], np.cumsum(self.data)])[self.indptr])


@dataclass(frozen=True)
class IncompleteRows(CanonicalRows):
    """Rows of numbers with holes, for families that leave the factor of a missing cell out of the density.

    Attributes
    ----------
    X : ndarray of shape (n, d)
        Observations, NaN where missing.
    """

    X: Array


def _protected(part: Any) -> Any:
    return canonical(part, part.dtype) if isinstance(part, np.ndarray) else part


def protected(rows: Any) -> Any:
    """Return canonical rows, a NamedTuple, with arrays that are read-only again after they were pickled."""
    return map_fields(_protected, rows)


def _pick(field: Any, pick: Any) -> Any:
    if isinstance(field, tuple):
        return tuple(pick(part) for part in field)
    return None if field is None else pick(field)


def row_parts(X: Any) -> list[Any]:
    """Return the arrays (n,) or (n, d) and `SparseRows` that rows are made of."""
    return X.parts() if isinstance(X, CanonicalRows) else [X]


def take_rows(X: Any, index: NDArray[np.int64]) -> Any:
    """Return the rows of X at `index`, as canonical rows of their own."""
    return X.take(index) if isinstance(X, CanonicalRows) else canonical(X[index], X.dtype.type)


class Rows(NamedTuple):
    """Row-aligned data of a model; models with more columns define their own NamedTuple.

    Attributes
    ----------
    X : ndarray of shape (n, d) or CanonicalRows
        Observations, in the dtype that the family asks for.
    weight : ndarray of shape (n,), optional
        Row weights, >= 0: a row of weight 2 counts as two equal rows. None means all 1.
    labels : ndarray of shape (n,), int64, or of shape (n, K), uint8, optional
        Known component of a row, -1 where unknown; or 1 for each component that a row may belong to, at least one, and
        0 for the others. None means all unknown.
    """

    X: Any
    weight: Array | None = None
    labels: NDArray[Any] | None = None


@runtime_checkable
class LatentModel(Protocol[Params, Stats]):
    """All that the EM driver knows of a model.

    `Params` and `Stats` are NamedTuples of arrays, floats, or tuples of those. `Stats` has at least
    the fields `loglik` (log-likelihood of the rows under the parameters of the E-step, weighted) and
    `weight` (total row weight). A model may also define

    - `log_prior(params) -> float`: the driver then climbs `stats.loglik + log_prior(params)`;
    - `objective(stats, params) -> float`: the same said in full, where that sum is not enough;
    - `canonical(rows) -> rows`: bring rows to the dtype and layout of the kernels, once per fit;
    - `estep_at(params) -> function of rows`: `estep_stats` at params, where all chunks of rows share some of the work;
      not used where a subclass overrides `estep_stats` alone;
    - `joint_log_density(rows, params) -> (n, K)`: log p(x_i, z_i = k) of a discrete latent variable, for `lvm.elbo`.
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
    - `parameters`: a mapping of the arrays in `Params` that a user knows to their axes, such as
      `{"means": "Kd", "degrees_of_freedom": "K"}`, and `params(**arrays) -> Params`, which builds and validates them:
      what starts, saved models and fitted attributes (`means_`) are made of;
    - `held`: a mapping of such names to masks (K,) of the components whose values the M-step keeps; it maximises over
      the rest given those (`keep_held`), and `n_parameters` leaves them out (`count_free`);
    - `accepts_missing = True` and `fill(X, resp, params, out)`: `canonical` lets NaN pass and returns `IncompleteRows`,
      or rows of its own, where there are any; densities leave the factors of missing cells out. `fill` writes the mean
      of each missing cell (the mode of categories) under the responsibilities (K, n) to out (n, d), a copy of the rows;
    - `draw_missing(X, resp, params, rng, out)`: write a draw of each row's missing cells to out, as `fill` does their
      mean: of a component drawn from the responsibilities, given the cells observed;
    - `log_prior(params) -> float`: log density of the prior, up to a constant;
    - `log_penalty(params) -> (K,)`: a term added to each component's log density in the E-step only, for an
      M-step that maximises a penalised expectation;
    - `floored(X, weight, share) -> Family or None`: for the policy "floor", this family with variances that cannot fall
      below a share of the data's, or None where it has no such bound;
    - `ignores_negligible = True`: in an E-step, responsibilities below 4e-18 of the row's largest become 0, so that
      moments can leave the row out. Not for parameters that stay 0 for ever once they are, such as probabilities;
    - `to_vector(params, origin) -> (p,)` and its inverse `from_vector(vector, origin) -> params`: coordinates, for
      `lvm.fit_anderson`. `origin`, any parameters of the same shapes, fixes location and scale: the coordinates should
      not depend on the units of the data;
    - `estep(X, params, posterior, stats) -> (loglik, penalty, row) or None`: a whole E-step in one kernel, in place of
      `log_density` and `accumulate`, which it must equal to rounding; stats then also has the `counts` (K,) of its
      responsibilities. `posterior` is a `lvm.kernels.workspace.Posterior`; row is the first of positive weight that is
      impossible, or -1. None leaves these rows to the other two, as does a subclass that overrides one of them alone.
      See `lvm.kernels.estep`, `lvm.families.FullGaussian`.
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


def shortcut(owner: Any, name: str, *methods: str) -> Any:
    """Return the method that does the work of others at once.

    None where there is none, and where a subclass has overridden one of those alone: the shortcut would go round it.
    """
    for ancestor in type(owner).__mro__:
        if name in vars(ancestor):
            break
        if any(method in vars(ancestor) for method in methods):
            return None
    return getattr(owner, name, None)


def keep_held(held: Mapping[str, NDArray[np.bool_]], name: str, new: Array, old: Array) -> Array:
    """Return new (K, ...), with the old values of the components for which `held` keeps this parameter."""
    if name not in held:
        return new
    return np.where(held[name].reshape(-1, *(1,) * (new.ndim - 1)), old, new)


def holding(family: Any, held: Mapping[str, Any]) -> Any:
    """Return a family, or a copy of it that keeps the parameters `held`; ValueError if it has no such attribute."""
    if not held:
        return family
    if not hasattr(family, "held"):
        raise ValueError(
            f"{type(family).__name__} has no attribute `held`, so that its parameters cannot be fixed; leave them out "
            "of fixed."
        )
    family = copy.copy(family)
    family.held = dict(held)
    return family


def free_part(held: Mapping[str, NDArray[np.bool_]], name: str, array: Array) -> Array:
    """Return the components of a parameter (K, ...) that do not keep it."""
    return array if name not in held else array[~held[name]]


def count_free(held: Mapping[str, NDArray[np.bool_]], name: str, array: Array) -> int:
    """Return the number of entries of a parameter (K, ...) in the components that do not keep it."""
    return int(free_part(held, name, array).size)


class DegenerateError(ValueError):
    """An M-step has no finite maximiser, as when a component collapses onto one point.

    Attributes
    ----------
    component : int or None
        The component to blame; None where it is no single one, or unknown.
    """

    def __init__(self, message: str, component: int | None = None) -> None:
        self.component = component
        super().__init__(message)


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
    """Apply `function` to matching leaves of nested tuples, named or not; None stays None."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        mapped = [map_fields(function, *fields) for fields in zip(*trees, strict=True)]
        return type(first)(*mapped) if hasattr(first, "_fields") else tuple(mapped)
    return function(*trees)


def leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves of nested tuples, in order."""
    if isinstance(tree, tuple):
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
