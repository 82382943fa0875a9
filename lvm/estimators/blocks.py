"""Blocks of columns: what `MixedMixture` knows of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array
from lvm.encoding import decode, encode, is_missing, most_probable
from lvm.families.categorical import Categorical
from lvm.families.registry import NAMED, announced, family_by_name
from lvm.models.mixture import Mixture
from lvm.protocol import holding

ALIASES = {"gaussian": "gaussian_diag", "student_t": "student_t_diag"}
CATEGORICAL = "categorical"
UNKNOWN = np.empty(0, np.int64)


def block_arrays(arrays: Mapping[str, Any], block: str) -> dict[str, Any]:
    """Return the arrays whose names begin with "block__", by the rest of their names."""
    return {name.removeprefix(f"{block}__"): value for name, value in arrays.items() if name.startswith(f"{block}__")}


@dataclass(frozen=True)
class Block:
    """A block of columns.

    Attributes
    ----------
    name : str
        Its name.
    make : callable
        `make(n_categories, held)` returns its family.
    chosen : object
        The columns, as the user names them.
    is_categorical : bool
        Whether its columns are categories, that are turned into codes.
    columns : ndarray of shape (m,)
        Positions of the columns, once known.
    categories : list of ndarray, optional
        Categories of each column, once known.
    """

    name: str
    make: Callable[[list[int], Mapping[str, Any]], Any]
    chosen: Any
    is_categorical: bool
    columns: NDArray[np.int64]
    categories: list[NDArray[Any]] | None = None

    @classmethod
    def read(cls, blocks: Any, alpha: float, reg_covar: float) -> list[Block]:
        """Return the blocks that a user describes as (name, family, columns)."""
        if isinstance(blocks, str) or not isinstance(blocks, Sequence) or not blocks:
            raise _checks.ParameterError(f"blocks must be a list of (name, family, columns), got {blocks!r}.")
        found: list[Block] = []
        for given in blocks:
            if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 3:
                raise _checks.ParameterError(f"a block must be (name, family, columns), got {given!r}.")
            name, family, chosen = given
            is_categorical = isinstance(family, str) and family == CATEGORICAL
            if not isinstance(name, str) or not name or "__" in name or name == "weights":
                raise _checks.ParameterError(
                    f"a block's name must be text without '__', and not 'weights', got {name!r}."
                )
            if any(other.name == name for other in found):
                raise ValueError(f"two blocks have the name {name!r}; give each its own.")
            if isinstance(family, type):
                raise _checks.ParameterError(
                    f"block {name!r} expects a family object, got the class {family.__name__}; call it: "
                    f"{family.__name__}()."
                )
            if not isinstance(family, str):
                Mixture(family)  # which names the methods that are missing
            found.append(cls(name, _maker(family, alpha, reg_covar), chosen, is_categorical, UNKNOWN))
        return found

    def on(self, X: Any, table: Any, names: Sequence[str] | None) -> Block:
        """Return the block with its columns found in a table, and with the categories of those."""
        columns = _positions(self.chosen, X, table.shape[1], names, self.name)
        categories = None
        if self.is_categorical:
            part = _part(table, columns)
            codes, categories = encode(part, None, None if names is None else [names[j] for j in columns])
            empty = np.flatnonzero((codes < 0).all(axis=0))
            if len(empty):
                where = columns[empty[0]]
                name = f"{where}" if names is None else f"{where} ({names[where]!r})"
                raise ValueError(f"column {name} of X has no observed value; remove it, it tells nothing.")
        return dataclasses.replace(self, columns=columns, categories=categories)

    def fitted(self, columns: NDArray[np.int64], categories: list[NDArray[Any]] | None) -> Block:
        """Return the block with known columns and categories."""
        return dataclasses.replace(self, columns=np.asarray(columns, np.int64), categories=categories)

    @staticmethod
    def refuse_shared(blocks: Sequence[Block], names: Sequence[str] | None) -> None:
        """Refuse columns that two blocks have."""
        owner: dict[int, str] = {}
        for block in blocks:
            for column in block.columns.tolist():
                if column in owner:
                    which = column if names is None else repr(names[column])
                    raise ValueError(
                        f"column {which} is in the blocks {owner[column]!r} and {block.name!r}; give it to one."
                    )
                owner[column] = block.name

    # ----- its family -----------------------------------------------------------------------------------------

    def family(self, held: Mapping[str, Any]) -> Any:
        """Return the family, which holds the components in `held`."""
        return self.make(self._sizes(), held)

    def _sizes(self) -> list[int]:
        return [len(column) for column in self.categories or ()] or [1]

    @property
    def parameters(self) -> Mapping[str, str]:
        """Names of the family's parameters, and their axes."""
        family = self.family({})
        parameters = getattr(family, "parameters", None)
        if parameters is None or not callable(getattr(family, "params", None)):
            raise TypeError(
                f"{type(family).__name__} of block {self.name!r} must implement parameters and params, which say what "
                "its parameters are, to be part of a mixed mixture."
            )
        named: Mapping[str, str] = parameters
        return named

    def inside_shape(self, name: str, n_components: int) -> tuple[int, ...]:
        """Return the shape of a parameter in the family."""
        lengths = {"K": n_components, "d": len(self.columns), "c": sum(self._sizes()), "1": 1}
        return tuple(lengths[axis] for axis in self.parameters[name])

    def shapes(self, n_components: int) -> dict[str, Any]:
        """Return the shapes of the parameters as the user sees them."""
        if self.is_categorical:
            return {"probabilities": [(n_components, c) for c in self._sizes()]}
        return {name: self.inside_shape(name, n_components) for name in self.parameters}

    def inside(self, name: str, value: Any) -> Array:
        """Return a parameter in the family's shape."""
        if self.is_categorical and not isinstance(value, np.ndarray):
            return np.concatenate([np.array(part, np.float64) for part in value], axis=1)
        return np.array(value, np.float64)

    def outside(self, name: str, array: Array) -> Any:
        """Return a parameter as the user sees it."""
        if self.is_categorical:
            return [np.ascontiguousarray(part) for part in np.split(array, np.cumsum(self._sizes())[:-1], axis=1)]
        return np.ascontiguousarray(array)

    def described(self, values: Mapping[str, Any], n_components: int) -> list[list[str]]:
        """Return what a table shows of each column: for each component, one text."""
        if self.categories is not None:
            each = zip(values["probabilities"], self.categories, strict=True)
            return [most_probable(probabilities, column) for probabilities, column in each]
        shape = (n_components, len(self.columns))
        arrays = [np.asarray(values[name]) for name, axes in self.parameters.items() if len(axes) <= 2]
        full = [np.broadcast_to(array.reshape(len(array), -1), shape) for array in arrays]
        return [
            [", ".join(f"{array[k, j]:.4g}" for array in full) for k in range(n_components)] for j in range(shape[1])
        ]

    # ----- its cells ------------------------------------------------------------------------------------------

    def numbers(self, table: Any, names: Sequence[str] | None, ignore_unknown: bool) -> Array:
        """Return the cells (n, m) as numbers: categories as their codes, missing ones as NaN."""
        part = _part(table, self.columns)
        own = None if names is None else [names[j] for j in self.columns]
        if self.is_categorical:
            codes, _ = encode(part, self.categories, own, ignore_unknown)
            return np.where(codes < 0, np.nan, codes)
        return _as_numbers(part, self.columns, own, self.name)

    def original(self, values: Array) -> NDArray[Any]:
        """Return cells (n, m) in the user's values from numbers without missing cells."""
        return values if self.categories is None else decode(values.astype(np.int64), self.categories)

    def features(self, values: Array) -> Array:
        """Return cells (n, m) where distances make sense: standardised numbers, indicators of categories."""
        if self.categories is not None:
            each = zip(np.rint(values).T, self._sizes(), strict=True)
            indicators = [np.equal.outer(codes, np.arange(c)) for codes, c in each]
            return np.concatenate(indicators, axis=1).astype(np.float64)
        scale = values.std(axis=0)
        return np.asarray((values - values.mean(axis=0)) / np.where(scale > 0, scale, 1.0))


def _maker(family: Any, alpha: float, reg_covar: float) -> Callable[[list[int], Mapping[str, Any]], Any]:
    """Return what makes a block's family, given the numbers of categories and what is held."""
    if isinstance(family, str) and family == CATEGORICAL:
        return lambda sizes, held: Categorical(sizes, alpha, held=held)
    if isinstance(family, str):
        name = ALIASES.get(family, family)
        if name not in NAMED and name not in announced():
            options = [CATEGORICAL, *ALIASES, *NAMED, *announced()]
            raise ValueError(
                f"there is no family {family!r}; expected one of {', '.join(options)}, or a family object."
            )
        family = family_by_name(name)
        for attribute, value in (("alpha", alpha), ("reg_covar", reg_covar)):
            if hasattr(family, attribute):
                setattr(family, attribute, value)
    return lambda _, held: holding(family, held)


def _positions(chosen: Any, X: Any, d: int, names: Sequence[str] | None, block: str) -> NDArray[np.int64]:
    """Return the positions of the columns that a user chooses."""
    if callable(chosen):
        chosen = chosen(X)
    if isinstance(chosen, slice):
        chosen = list(range(d))[chosen]
    chosen = [chosen] if isinstance(chosen, (str, int, np.integer)) else list(chosen)
    if not chosen:
        raise ValueError(f"block {block!r} has no columns; give it at least one, or leave it out.")
    if all(isinstance(each, (bool, np.bool_)) for each in chosen):
        if len(chosen) != d:
            raise ValueError(f"the mask of block {block!r} has {len(chosen)} entries, but X has {d} columns.")
        return np.flatnonzero(chosen).astype(np.int64)
    positions = []
    for each in chosen:
        if isinstance(each, str):
            if names is None:
                raise ValueError(
                    f"block {block!r} names the column {each!r}, but X has no column names; give a data frame."
                )
            if each not in list(names):
                raise ValueError(f"block {block!r} names the column {each!r}; X has {', '.join(map(repr, names))}.")
            positions.append(list(names).index(each))
        elif isinstance(each, (int, np.integer)) and -d <= each < d:
            positions.append(int(each) % d)
        else:
            raise ValueError(f"block {block!r} has the column {each!r}; expected names, or positions below {d}.")
    if len(set(positions)) < len(positions):
        twice = next(p for p in positions if positions.count(p) > 1)
        raise ValueError(f"block {block!r} has column {twice} twice; name each column once.")
    return np.array(positions, np.int64)


def _part(table: Any, columns: NDArray[np.int64]) -> Any:
    return table.iloc[:, columns] if hasattr(table, "iloc") else table[:, columns]


def _as_numbers(part: Any, columns: NDArray[np.int64], names: Sequence[str] | None, block: str) -> Array:
    """Return cells as float64, missing ones as NaN; refuse text, naming it."""
    if not hasattr(part, "iloc") and part.dtype.kind in "biuf":
        return np.asarray(part, np.float64)
    out = np.empty(part.shape)
    for j, at in enumerate(columns):
        name = f"column {at}" if names is None else f"column {at} ({names[j]!r})"
        out[:, j] = _numeric(part.iloc[:, j] if hasattr(part, "iloc") else part[:, j], f"{name} of block {block!r}")
    return out


def _numeric(column: Any, name: str) -> Array:
    """Return a column as float64, missing cells as NaN."""
    if getattr(column.dtype, "kind", "O") in "biuf":
        values = column.to_numpy(np.float64, na_value=np.nan) if hasattr(column, "to_numpy") else column
        return np.asarray(values, np.float64)
    out = np.empty(len(column))
    for i, value in enumerate(column.tolist()):
        if is_missing(value):
            out[i] = np.nan
        elif isinstance(value, (Real, np.bool_)):
            out[i] = value
        else:
            raise ValueError(
                f"{name} holds {value!r} at row {i}, expected numbers; correct it, or make it part of a categorical "
                "block."
            )
    return out
