"""Every validation of what a user hands in, and its wording: expected, got, remedy."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from lvm._jit import Array, canonical
from lvm.protocol import SparseRows

BLOCK_ROWS = 1 << 14  # rows per block of a check: temporaries stay small whatever the data


# scikit-learn's sentence, for code that looks for it.
ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or "
    "scale the input data."
)


class ParameterError(ValueError, TypeError):
    """A constructor argument has the wrong type or value; both kinds, as in scikit-learn."""


def integer(name: str, value: Any, least: int) -> int:
    """Return `value` if it is an integer >= `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ParameterError(f"{name} must be an integer >= {least}, got {value!r}.")
    return int(value)


def real(name: str, value: Any, least: float) -> float:
    """Return `value` if it is a finite number >= `least`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= float(value) < np.inf:
        raise ParameterError(f"{name} must be a finite number >= {least:g}, got {value!r}.")
    return float(value)


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Return `value` if it is one of `options`."""
    if not isinstance(value, str) or value not in options:
        raise ParameterError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}.")
    return value


def at_most_rows(n_components: int, n: int) -> None:
    """Refuse more components than rows."""
    if n_components > n:
        raise ValueError(
            f"Expected n_samples >= n_components but got n_components = {n_components}, n_samples = {n}; "
            "lower n_components or add data."
        )


def distinct_rows(X: Array, n_components: int) -> None:
    """Refuse fewer distinct rows of X (n, d) than components, where nothing regularises the fit."""
    found: set[bytes] = set()
    for start in range(0, len(X), BLOCK_ROWS):
        block = np.unique(X[start : start + BLOCK_ROWS], axis=0)
        found.update(row.tobytes() for row in block[:n_components] + 0.0)
        if len(found) >= n_components:
            return
    raise ValueError(
        f"n_components={n_components} exceeds the {len(found)} distinct rows of X; lower n_components, add data, "
        f"or set reg_covar > 0. {ILL_DEFINED}"
    )


# For the refusal of missing cells.
WHO_ACCEPTS = (
    "missing values are for Gaussian components of all covariance types and for Bernoulli, categorical, count and "
    "positive ones; Student t, multinomial, von Mises-Fisher and factor-analytic components take none"
)


def finite(X: Any, names: Sequence[str] | None = None, allow_missing: bool = False) -> None:
    """Refuse NaN, unless missing cells are allowed, and infinities in X (n, d), dense or CSR, naming the first cell."""
    values = X.data if sparse.issparse(X) else X
    allow_missing = allow_missing and not sparse.issparse(X)
    with np.errstate(over="ignore", invalid="ignore"):
        if values.dtype.kind != "f" or np.isfinite(np.sum(values)):
            return
    for start in range(0, len(values), BLOCK_ROWS):
        block = values[start : start + BLOCK_ROWS]
        bad = np.argwhere(np.isinf(block) if allow_missing else ~np.isfinite(block))
        if len(bad) == 0:
            continue
        row, column, value = _cell(X, start, bad[0])
        kind = "NaN" if np.isnan(value) else "infinity"
        remedy = f"remove or impute such rows first ({WHO_ACCEPTS})" if np.isnan(value) else "remove or correct it"
        raise ValueError(f"Input X contains {kind} at row {row}, column {column_name(column, names)}; {remedy}.")


def no_empty_column(X: Any, names: Sequence[str] | None = None) -> None:
    """Refuse columns of X (n, d) in which every cell is missing."""
    if sparse.issparse(X) or X.dtype.kind != "f" or not len(X) or not np.isnan(X[0]).any():
        return
    for column in np.flatnonzero(np.isnan(X[0])):
        if np.isnan(X[:, column]).all():
            raise ValueError(
                f"column {column_name(int(column), names)} of X has no observed value; remove it, it tells nothing."
            )


def representable(X: Array, variance: Array) -> None:
    """Refuse columns of X (n, d) whose variances (d,), or the inverses of those, leave float64."""
    constant = [v == 0 and np.nanmax(X[:, j]) == np.nanmin(X[:, j]) for j, v in enumerate(variance)]
    bad = np.flatnonzero(~(np.array(constant) | ((variance > 1e-305) & (variance < 1e305))))
    if len(bad):
        raise ValueError(
            f"column {bad[0]} of X has the variance {variance[bad[0]]:.3g}, expected 0 or 1e-305 to 1e305; "
            "scale the data."
        )


def binary(X: Any, names: Sequence[str] | None = None) -> None:
    """Refuse values other than 0, 1 and NaN in X (n, d), dense or CSR, naming the first cell."""
    if X.dtype != np.bool_:
        _each_cell(
            X,
            lambda block: (block != 0) & (block != 1) & (block == block),
            "must be 0 or 1 for Bernoulli components",
            names,
        )


def counts(X: Any, names: Sequence[str] | None = None) -> None:
    """Refuse negative values in X (n, d), dense or CSR, naming the first cell."""
    if X.dtype.kind not in "bu":
        # scikit-learn's estimator checks look for its own words, "Negative values in data".
        _each_cell(X, lambda block: block < 0, "must be counts >= 0 (Negative values in data)", names)


def whole(X: Any, names: Sequence[str] | None = None) -> None:
    """Refuse values other than whole numbers and NaN in a dense X (n, d), naming the first cell."""
    if X.dtype.kind not in "biu":
        rule = "must be whole counts"
        _each_cell(X, lambda block: ((block != np.floor(block)) & (block == block)) | np.isinf(block), rule, names)


def text(X: Any) -> None:
    """Refuse text in a dense X (n, d) of objects or columns of several types, naming the first cell."""
    if sparse.issparse(X) or np.ndim(X) != 2:
        return
    names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
    for column, cells in enumerate(np.asarray(X, dtype=object).T.tolist()):
        for row, value in enumerate(cells):
            if isinstance(value, str) and not _is_number(value):
                where = f"row {row}, column {column_name(column, names)}"
                raise ValueError(
                    f"X must hold numbers; got {value!r} at {where}. Correct it, or leave the column out; "
                    "CategoricalMixture and MixedMixture take text."
                )


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _each_cell(X: Any, refused: Any, rule: str, names: Sequence[str] | None) -> None:
    values = X.data if sparse.issparse(X) else X
    for start in range(0, len(values), BLOCK_ROWS):
        bad = np.argwhere(refused(values[start : start + BLOCK_ROWS]))
        if len(bad):
            row, column, value = _cell(X, start, bad[0])
            raise ValueError(f"X {rule}; got {value} at row {row}, column {column_name(column, names)}.")


def _cell(X: Any, start: int, where: NDArray[np.int64]) -> tuple[int, int, Any]:
    """Return row, column and value of an entry found at `where` in a block of X or of its CSR data."""
    if sparse.issparse(X):
        entry = start + int(where[0])
        return int(np.searchsorted(X.indptr, entry, side="right")) - 1, int(X.indices[entry]), X.data[entry]
    row, column = start + int(where[0]), int(where[1])
    return row, column, X[row, column]


def column_name(column: int, names: Sequence[str] | None) -> str:
    """Return how messages call a column: by its number, and its name where it has one."""
    return str(column) if names is None else f"{column} ({names[column]!r})"


def matrix(X: Any) -> None:
    """Refuse what is not a matrix (n, d)."""
    if X.ndim != 2:
        raise ValueError(f"X must have two dimensions, rows and features; got shape {X.shape}. Reshape your data.")


def matching(X: Any, location: Array, out: Array) -> None:
    """Refuse rows, parameters (K, d) and densities (K, n) whose sizes disagree: kernels do not look."""
    if X.shape[1] != location.shape[1]:
        raise ValueError(f"X has {X.shape[1]} features, but the parameters have {location.shape[1]}.")
    same_components(len(out), len(location))


def same_components(n_weights: int, n_components: int) -> None:
    """Refuse mixing weights and parameters of different numbers of components."""
    if n_weights != n_components:
        raise ValueError(f"there are {n_weights} mixing weights, but parameters of {n_components} components.")


def sparse_rows(X: Any, with_data: bool) -> SparseRows:
    """Return a scipy sparse matrix as canonical rows: sorted, without duplicates or stored zeros."""
    matrix = sparse.csr_matrix(X)
    if not matrix.has_canonical_format or np.any(matrix.data == 0):
        matrix = matrix.copy() if matrix is X or np.shares_memory(matrix.data, X.data) else matrix
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return SparseRows(
        canonical(matrix.indptr, np.int64),
        canonical(matrix.indices, np.int32),
        canonical(matrix.data if with_data else np.empty(0)),
        int(matrix.shape[1]),
    )


def row_weights(weight: ArrayLike, n: int, name: str = "sample_weight") -> Array:
    """Return row weights (n,) as float64, finite and >= 0; a single number stands for all."""
    array = np.asarray(weight)
    if array.dtype.kind not in "biuf" and array.dtype != object:
        raise TypeError(f"{name} must be numeric, got dtype {array.dtype}.")
    array = array.astype(np.float64, copy=False)
    if array.ndim == 0:
        array = np.full(n, float(array))
    if array.shape != (n,):
        raise ValueError(f"{name}.shape == {array.shape}, expected ({n},): one weight per row of X.")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(bad):
        raise ValueError(f"{name} must be finite and >= 0; got {array[bad[0]]} at row {bad[0]}.")
    with np.errstate(over="ignore"):
        total = array.sum()
    if not np.isfinite(total):
        raise ValueError(f"{name} sums to {total}; divide the weights by a constant.")
    return canonical(array)


def sample_weight(weight: ArrayLike | None, n: int) -> Array | None:
    """Return row weights (n,), not all 0; None stays None."""
    if weight is None:
        return None
    array = row_weights(weight, n)
    if not array.any():
        raise ValueError("sample_weight is zero for every row; at least one row needs a positive weight.")
    return array


def labels(given: ArrayLike | None, n: int, n_components: int | None, name: str = "labels") -> NDArray[Any] | None:
    """Return component labels (n,), -1 for unknown, or a mask (n, K) of the components that a row may belong to.

    None stays None, and as n_components sets no limit.
    """
    if given is None:
        return None
    array = np.asarray(given)
    if array.ndim == 2:
        return _allowed(array, n, n_components, name)
    if array.shape != (n,):
        raise ValueError(
            f"{name} has shape {array.shape}, expected ({n},): one label per row of X, -1 where unknown; or a mask "
            f"({n}, n_components) of the components that a row may belong to."
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be integers, -1 where unknown, got dtype {array.dtype}; fill missing ones by -1."
        )
    limit = np.inf if n_components is None else n_components
    bad = np.flatnonzero(~((array >= -1) & (array < limit) & (array == np.floor(array))))
    if len(bad):
        raise ValueError(
            f"{name} must be integers between -1 (unknown) and n_components - 1 = {limit - 1}; "
            f"got {array[bad[0]]} at row {bad[0]}."
        )
    return canonical(array, np.int64)


def _allowed(mask: NDArray[Any], n: int, n_components: int | None, name: str) -> NDArray[np.uint8]:
    """Return a mask (n, K) of allowed components as zeros and ones, at least one of them in each row."""
    expected = (n, mask.shape[1] if n_components is None else n_components)
    if mask.shape != expected:
        raise ValueError(f"{name} has shape {mask.shape}, expected {expected}: one column per component.")
    if mask.dtype.kind not in "biuf" or not np.all((mask == 0) | (mask == 1)):
        raise ValueError(f"{name} as a mask must hold True and False only, one column per component.")
    none = np.flatnonzero(~mask.any(axis=1))
    if len(none):
        raise ValueError(f"{name} allows no component in row {none[0]}; allow at least one, all where unknown.")
    return canonical(mask, np.uint8)


def assignment(given: ArrayLike, n: int, n_components: int) -> NDArray[Any]:
    """Return a start given as labels (n,) or as responsibilities (n, K) whose rows sum to 1."""
    array = np.asarray(given)
    if array.ndim == 1:
        checked = labels(array, n, n_components, "init_params")
        assert checked is not None
        return checked
    if array.shape != (n, n_components):
        raise ValueError(
            f"init_params has shape {array.shape}; expected labels ({n},) or responsibilities ({n}, {n_components})."
        )
    array = np.asarray(array, np.float64)
    bad = np.flatnonzero(~((array >= 0).all(axis=1) & (np.abs(array.sum(axis=1) - 1) < 1e-6)))
    if len(bad):
        raise ValueError(
            f"responsibilities must be >= 0 and sum to 1 in each row; got {array[bad[0]]} in row {bad[0]}."
        )
    return array


def start_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return a starting value as float64 of the given shape, finite."""
    array = np.array(value, np.float64, order="C")
    if array.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"The parameter '{name}' contains NaN or infinity; starting values must be finite.")
    return array


def start_weights(value: ArrayLike, n_components: int) -> Array:
    """Return mixing weights (K,) within [0, 1] that sum to 1."""
    array = start_array("weights", value, (n_components,))
    if np.any(array < 0) or np.any(array > 1):
        raise ValueError(
            "The parameter 'weights' should be in the range [0, 1], but got "
            f"max value {array.max():.5f}, min value {array.min():.5f}."
        )
    if not abs(array.sum() - 1) < 1e-6:
        raise ValueError(f"The parameter 'weights' should be normalized, but got sum(weights) = {array.sum():.5f}.")
    return np.asarray(array / array.sum())


def probabilities(array: Array, sum_to_one: bool) -> None:
    """Refuse probabilities (K, d) beyond [0, 1], and components that do not sum to 1 where asked; NaN is not given."""
    if np.any(array < 0) or np.any(array > 1):
        raise ValueError(
            "The parameter 'probabilities' should be in the range [0, 1], but got "
            f"max value {np.nanmax(array):.5f}, min value {np.nanmin(array):.5f}."
        )
    sums = array.sum(axis=1)
    bad = np.flatnonzero(np.abs(sums - 1) > 1e-6)
    if sum_to_one and len(bad):
        raise ValueError(f"probabilities of component {bad[0]} sum to {sums[bad[0]]}, not 1; normalise each row.")
