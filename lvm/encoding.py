"""Tables of categories as codes, and back: text, numbers and booleans of arrays, lists and data frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lvm import _checks

Codes = NDArray[np.int32]

MAX_RANGE = 1 << 16  # of whole numbers, up to which a table of all of them is faster than sorting
MISSING_TYPES = ("NAType", "NaTType")  # pandas' own, by name: pandas is optional
MAX_LISTED = 10


def as_table(X: Any) -> Any:
    """Return X (n, d) as a data frame, where it is one, or else as an array that keeps text and numbers apart.

    Raises
    ------
    TypeError
        If X is sparse.
    ValueError
        If X has not two dimensions, is complex, or is empty.
    """
    if sparse.issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but dense data is required. Use '.toarray()' to convert to a dense "
            "numpy array."
        )
    if not hasattr(X, "iloc"):
        table = np.asarray(X)
        if table.dtype.kind in "US" and not hasattr(X, "dtype"):
            table = np.asarray(X, dtype=object)  # numpy turns the numbers beside a text into text
        X = table
    _checks.matrix(X)
    n, d = X.shape
    if hasattr(X, "dtype") and X.dtype.kind not in "biufUSO":
        kind = "Complex data" if X.dtype.kind == "c" else f"Data of the type {X.dtype} are"
        raise ValueError(f"{kind} not supported; X must hold categories as text, numbers or booleans.")
    if n == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape=({n}, {d})) while a minimum of 1 is required.")
    if d == 0:
        raise ValueError(f"Found array with 0 feature(s) (shape=({n}, {d})) while a minimum of 1 is required.")
    return X


def encode(
    table: Any,
    known: Sequence[NDArray[Any]] | None = None,
    names: Sequence[str] | None = None,
    ignore_unknown: bool = False,
) -> tuple[Codes, list[NDArray[Any]]]:
    """Return the codes of a table's cells, and the categories that they stand for.

    Parameters
    ----------
    table : DataFrame or ndarray of shape (n, d)
        Text, numbers or booleans, as `as_table` leaves them. None, NaN and pandas' own missing values are missing.
    known : sequence of ndarray, optional
        The categories of each column. By default those that occur in it: sorted, or in the order of a pandas
        categorical, of which those that no row has are left out.
    names : sequence of str, optional
        Names of the columns, for messages.
    ignore_unknown : bool
        Whether a category that is not known counts as missing; it is an error else.

    Returns
    -------
    codes : ndarray of shape (n, d), int32
        Position of each cell's category among its column's, -1 where missing; read-only.
    categories : list of ndarray
        The known ones, or those found: numbers, booleans, or text as objects.

    Raises
    ------
    ValueError
        If a column mixes text and numbers, holds anything else, or has a category that is not known.
    """
    codes = np.empty(table.shape, np.int32)
    categories = []
    for j, column in enumerate(_columns(table)):
        name = f"column {j}" if names is None else f"column {j} ({names[j]!r})"
        found, inverse = _factorize(column, name)
        if known is not None:
            inverse = _recode(found, inverse, known[j], name, ignore_unknown)
            found = known[j]
        codes[:, j] = inverse
        categories.append(found)
    codes.setflags(write=False)
    return codes, categories


def decode(codes: NDArray[np.integer], categories: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the categories (n, d) of codes without missing cells, as objects where columns are of several types."""
    types = {column.dtype for column in categories}
    out = np.empty(codes.shape, types.pop() if len(types) == 1 else object)
    for j, column in enumerate(categories):
        out[:, j] = column[codes[:, j]]
    return out


def given_categories(categories: Any, d: int, names: Sequence[str] | None = None) -> list[NDArray[Any]]:
    """Return a user's categories of d columns as arrays, in the order given.

    Raises
    ------
    ValueError
        If there is not one list per column, or one is empty, repeats a category, or holds what is none.
    """
    if isinstance(categories, str) or not hasattr(categories, "__len__") or len(categories) != d:
        count = f"{len(categories)} lists" if isinstance(categories, (list, tuple)) else repr(categories)
        raise ValueError(f"categories must be 'auto' or a list of categories for each of the {d} columns, got {count}.")
    checked = []
    for j, column in enumerate(categories):
        name = f"categories[{j}]" if names is None else f"categories[{j}] ({names[j]!r})"
        if isinstance(column, str) or np.ndim(column) != 1 or len(column) == 0:
            raise ValueError(f"{name} must be a list of categories, got {column!r}.")
        values = np.asarray(column, dtype=object).tolist()
        for value in values:
            if is_missing(value):
                raise ValueError(f"{name} holds {value!r}, a missing value; leave it out.")
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ValueError(f"{name} holds {twice!r} twice; name each category once.")
        checked.append(_category_array(values, name))
    return checked


def most_probable(probabilities: NDArray[np.float64], categories: NDArray[Any]) -> list[str]:
    """Return "category (its probability)" of the most probable one in each row of probabilities (K, c)."""
    modes = probabilities.argmax(axis=1)
    return [f"{categories[mode]} ({probabilities[k, mode]:.2f})" for k, mode in enumerate(modes)]


def check_fitted(categories: Any, d: int) -> None:
    """Refuse fitted categories, as a file may hold them, that are not an array of distinct ones for each column."""
    if not isinstance(categories, list) or len(categories) != d:
        raise ValueError(f"categories_ should be a list of {d} arrays")
    for j, column in enumerate(categories):
        is_array = isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind in "biufO"
        if not is_array or len(column) == 0:
            raise ValueError(f"categories_[{j}] should be an array of categories")
        if len(set(column.tolist())) < len(column):
            raise ValueError(f"categories_[{j}] repeats a category")


def _columns(table: Any) -> Iterator[Any]:
    """Yield the columns of a data frame as they are, those of an array in one piece."""
    for j in range(table.shape[1]):
        yield table.iloc[:, j] if hasattr(table, "iloc") else np.ascontiguousarray(table[:, j])


def _factorize(column: Any, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the categories of a column that occur, in order, and the position of each row's, -1 where missing."""
    if hasattr(column, "cat"):  # a pandas categorical
        codes = column.cat.codes.to_numpy()
        used = np.unique(codes[codes >= 0])
        place = np.full(len(column.cat.categories) + 1, -1, np.int32)  # the last is that of -1
        place[used] = np.arange(len(used))
        return _category_array(column.cat.categories.take(used).tolist(), name), place[codes]
    if hasattr(column, "factorize"):
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
            return _factorize_numbers(column.to_numpy(), name)
        codes, distinct = column.factorize()
        return _in_order(distinct.tolist(), codes, name)
    if column.dtype.kind in "biuf":
        return _factorize_numbers(column, name)
    place_of: dict[Any, int] = {}
    add: Callable[[Any, int], int] = place_of.setdefault
    try:
        codes = np.array([add(value, len(place_of)) for value in column.tolist()])
    except TypeError:
        raise ValueError(f"{name} of X holds lists or the like; expected text, numbers or booleans.") from None
    return _in_order(list(place_of), codes, name)


def _in_order(values: list[Any], codes: NDArray[Any], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return distinct values, missing ones among them, as sorted categories, and codes that belong to those."""
    present = [place for place, value in enumerate(values) if not is_missing(value)]
    _refuse_others([values[place] for place in present], name)
    order = sorted(present, key=values.__getitem__)
    place_of = np.full(len(values) + 1, -1, np.int32)  # the last is that of -1
    place_of[order] = np.arange(len(order))
    return _category_array([values[place] for place in order], name), place_of[codes]


def _factorize_numbers(values: NDArray[Any], name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(0, np.bool_)
    present = values[~missing] if missing.any() else values
    if len(present) == 0:
        return present, np.full(len(values), -1, np.int32)
    low, high = present.min().item(), present.max().item()
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError(f"{name} of X holds infinity, expected categories; correct it, or leave it empty (NaN).")
    whole = values.dtype.kind != "f" or bool(np.all(present == np.floor(present)))
    if whole and high - low < MAX_RANGE and abs(low) < 2.0**52:
        offsets = present.astype(np.int64) - int(low)
        found = np.flatnonzero(np.bincount(offsets))
        place = np.empty(int(high - low) + 1, np.int32)
        place[found] = np.arange(len(found))
        distinct, codes = (found + int(low)).astype(values.dtype), place[offsets]
    else:
        distinct, codes = np.unique(present, return_inverse=True)
    if len(present) == len(values):
        return distinct, codes
    out = np.full(len(values), -1, np.int32)
    out[~missing] = codes
    return distinct, out


def _recode(
    found: NDArray[Any], codes: NDArray[Any], known: NDArray[Any], name: str, ignore_unknown: bool
) -> NDArray[Any]:
    """Return codes among the categories found as codes among those known."""
    place_of = {value: place for place, value in enumerate(known.tolist())}
    place: Codes = np.array([*(place_of.get(value, -1) for value in found.tolist()), -1], np.int32)  # the last for -1
    unknown = np.flatnonzero(place[:-1] < 0)
    if len(unknown) and not ignore_unknown:
        row = int(np.argmax(np.isin(codes, unknown)))
        raise ValueError(
            f"{name} of X holds {found.tolist()[codes[row]]!r} at row {row}, which is not among the known categories "
            f"{_listed(known)}; correct it, name it in categories before fitting, or count such cells as missing by "
            "handle_unknown='ignore'."
        )
    return np.asarray(place[codes])


def _category_array(values: list[Any], name: str) -> NDArray[Any]:
    """Return categories as an array: of numbers, of booleans, or of text as objects."""
    _refuse_others(values, name)
    if values and isinstance(values[0], str):
        return np.array([str(value) for value in values], dtype=object)
    array = np.array(values, dtype=None if values else np.float64)
    if array.dtype.kind not in "biuf" or not np.all(np.isfinite(array)):
        raise ValueError(f"{name} holds numbers that are infinite or beyond 64 bits: {_listed(array)}.")
    return array


def _refuse_others(values: list[Any], name: str) -> None:
    """Refuse categories that are neither all text nor all numbers or booleans."""
    text = next((value for value in values if isinstance(value, str)), None)
    number = next((value for value in values if isinstance(value, (Real, np.bool_))), None)
    other = next((value for value in values if not isinstance(value, (str, Real, np.bool_))), None)
    if other is not None:
        raise ValueError(
            f"{name} of X holds {other!r} of type {type(other).__name__}; expected text, numbers or booleans: "
            "convert it to text first."
        )
    if text is not None and number is not None:
        raise ValueError(
            f"{name} of X mixes text and numbers, such as {text!r} and {number!r}; convert all of its cells to text."
        )


def is_missing(value: Any) -> bool:
    """Return whether a cell is None, NaN, or missing by pandas."""
    if value is None or type(value).__name__ in MISSING_TYPES:
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _listed(categories: NDArray[Any]) -> str:
    shown = ", ".join(repr(value) for value in categories[:MAX_LISTED].tolist())
    more = len(categories) - MAX_LISTED
    return f"{shown} and {more} more" if more > 0 else shown
