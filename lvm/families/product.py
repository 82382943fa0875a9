"""Blocks of features of different families, independent given the component: what mixed data are modelled by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.families.draws import certain, draw_components
from lvm.protocol import CanonicalRows


class ProductParams(NamedTuple):
    """Parameters of each block, in order."""

    blocks: tuple[Any, ...]


class ProductStats(NamedTuple):
    """Statistics of each block, in order."""

    blocks: tuple[Any, ...]


@dataclass(frozen=True)
class JoinedRows(CanonicalRows):
    """Rows of several blocks side by side.

    Attributes
    ----------
    blocks : tuple
        Canonical rows of each block.
    """

    blocks: tuple[Any, ...]

    def __len__(self) -> int:
        return int(self.blocks[0].shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of all columns."""
        return len(self), sum(int(block.shape[1]) for block in self.blocks)


@final
class Product:
    """The product of families over blocks of columns: p(x | k) = prod_b p_b(x_b | k).

    Parameters
    ----------
    blocks : sequence of (str, Family, sequence of int)
        Name, family and columns of each block.
    names_of_columns : sequence of str, optional
        Names of all columns of X, for messages.

    References
    ----------
    Hunt & Jorgensen (1999), "Mixture model clustering using the MULTIMIX program", Australian & New Zealand Journal of
    Statistics 41: components are products over blocks of features.
    """

    ignores_negligible = False

    def __init__(
        self, blocks: Sequence[tuple[str, Any, ArrayLike]], names_of_columns: Sequence[str] | None = None
    ) -> None:
        if not blocks:
            raise ValueError("a product needs at least one block; give (name, family, columns).")
        self.names = [name for name, _, _ in blocks]
        self.families = [family for _, family, _ in blocks]
        self.columns = [np.asarray(columns, np.int64) for _, _, columns in blocks]
        self.names_of_columns = names_of_columns
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"two blocks have the name {min(twice)!r}; give each its own.")
        for name, columns in zip(self.names, self.columns, strict=True):
            if columns.ndim != 1 or len(columns) == 0:
                raise ValueError(f"block {name!r} has no columns; give it at least one, or leave it out.")
        self.n_features = 1 + max(int(columns.max()) for columns in self.columns)
        self.accepts_missing = any(getattr(family, "accepts_missing", False) for family in self.families)
        # Only where every block says so.
        self.ignores_negligible = all(getattr(family, "ignores_negligible", False) for family in self.families)

    def __repr__(self) -> str:
        return f"Product({list(zip(self.names, self.families, self.columns, strict=True))!r})"

    def canonical(self, X: Any) -> JoinedRows:
        """Return the blocks of X (n, d) as their families see them."""
        if isinstance(X, JoinedRows):
            return X
        X = np.asarray(X)
        _checks.matrix(X)
        if X.shape[1] < self.n_features:
            raise ValueError(f"X has {X.shape[1]} columns, but a block has column {self.n_features - 1}.")
        blocks = []
        for name, family, columns in self._each():
            try:
                blocks.append(getattr(family, "canonical", canonical)(X[:, columns]))
            except ValueError as error:
                raise ValueError(f"block {name!r}: {self._with_own_columns(str(error), columns)}") from None
        return JoinedRows(tuple(blocks))

    def _with_own_columns(self, message: str, columns: NDArray[np.int64]) -> str:
        """Return what a family says of a column of its block as said of that column of X."""

        def own(found: re.Match[str]) -> str:
            place = int(found[1])
            if place >= len(columns):
                return found[0]
            at = int(columns[place])
            return f"column {at}" if self.names_of_columns is None else f"column {at} ({self.names_of_columns[at]!r})"

        return re.sub(r"column (\d+)", own, message)

    def _each(self) -> Any:
        return zip(self.names, self.families, self.columns, strict=True)

    def params(self, blocks: Mapping[str, Any]) -> ProductParams:
        """Return parameters from those of each block, by name."""
        return ProductParams(tuple(blocks[name] for name in self.names))

    def start(self, X: JoinedRows, weight: Array, n_components: int) -> ProductParams:
        """Return K equal components."""
        return ProductParams(
            tuple(family.start(x, weight, n_components) for family, x in zip(self.families, X.blocks, strict=True))
        )

    def log_density(self, X: JoinedRows, params: ProductParams, out: Array) -> None:
        """Add the log densities of all blocks to out (K, n)."""
        for family, x, block in zip(self.families, X.blocks, params.blocks, strict=True):
            family.log_density(x, block, out)

    def zero_stats(self, params: ProductParams) -> ProductStats:
        """Return the statistics of no rows."""
        return ProductStats(
            tuple(family.zero_stats(block) for family, block in zip(self.families, params.blocks, strict=True))
        )

    def accumulate(self, X: JoinedRows, resp: Array, params: ProductParams, stats: ProductStats) -> None:
        """Add the statistics of each block under the same responsibilities."""
        for family, x, block, into in zip(self.families, X.blocks, params.blocks, stats.blocks, strict=True):
            family.accumulate(x, resp, block, into)

    def mstep(self, stats: ProductStats, params: ProductParams) -> ProductParams:
        """Return each block's M-step: given the component they do not depend on each other."""
        steps = zip(self.families, stats.blocks, params.blocks, strict=True)
        return ProductParams(tuple(family.mstep(of_block, block) for family, of_block, block in steps))

    def floored(self, X: Any, weight: Array, share: float) -> Product | None:
        """Return the product with such bounds in the blocks that have them, None where none has."""
        each = zip(self._each(), self.canonical(X).blocks, strict=True)
        blocks = [
            (name, family.floored(x, weight, share) if hasattr(family, "floored") else None, columns)
            for (name, family, columns), x in each
        ]
        if all(family is None for _, family, _ in blocks):
            return None
        return Product(
            [(name, new or old, columns) for (name, new, columns), old in zip(blocks, self.families, strict=True)],
            self.names_of_columns,
        )

    def log_prior(self, params: ProductParams) -> float:
        """Return the sum of the blocks' log priors."""
        each = zip(self.families, params.blocks, strict=True)
        return sum(float(family.log_prior(block)) for family, block in each if hasattr(family, "log_prior"))

    def log_penalty(self, params: ProductParams) -> Array:
        """Return the sum of the blocks' penalties, shape (K,)."""
        each = zip(self.families, params.blocks, strict=True)
        penalties = [family.log_penalty(block) for family, block in each if hasattr(family, "log_penalty")]
        return np.asarray(sum(penalties)) if penalties else np.zeros(self._n_components(params))

    @staticmethod
    def _n_components(params: ProductParams) -> int:
        return max(len(array) for block in params.blocks for array in block[:1])

    def fill(self, X: JoinedRows, resp: Array, params: ProductParams, out: Array) -> None:
        """Write the posterior means, or modes, of missing cells to out (n, d)."""
        for (_, family, columns), x, block in zip(self._each(), X.blocks, params.blocks, strict=True):
            if hasattr(family, "fill"):
                part = np.ascontiguousarray(out[:, columns])
                family.fill(x, resp, block, part)
                out[:, columns] = part

    def draw_missing(
        self, X: JoinedRows, resp: Array, params: ProductParams, rng: np.random.RandomState, out: Array
    ) -> None:
        """Write a draw of the missing cells of each row, of one component for all blocks, to out (n, d)."""
        chosen = certain(draw_components(resp, rng), len(resp))
        for (name, family, columns), x, block in zip(self._each(), X.blocks, params.blocks, strict=True):
            part = np.ascontiguousarray(out[:, columns])
            if not np.isnan(part).any():
                continue
            if not hasattr(family, "draw_missing"):
                raise TypeError(
                    f"{type(family).__name__} of block {name!r} must implement draw_missing to sample missing cells."
                )
            family.draw_missing(x, chosen, block, rng, part)
            out[:, columns] = part

    def to_vector(self, params: ProductParams, origin: ProductParams) -> Array:
        """Return the coordinates of all blocks, one after the other."""
        return np.concatenate(self._vectors(params, origin))

    def _vectors(self, params: ProductParams, origin: ProductParams) -> list[Array]:
        each = zip(self.names, self.families, params.blocks, origin.blocks, strict=True)
        vectors = []
        for name, family, block, of_origin in each:
            if not hasattr(family, "to_vector"):
                raise TypeError(f"{type(family).__name__} of block {name!r} must implement to_vector and from_vector.")
            vectors.append(family.to_vector(block, of_origin))
        return vectors

    def from_vector(self, vector: Array, origin: ProductParams) -> ProductParams:
        """Return the parameters that have these coordinates."""
        lengths = [len(part) for part in self._vectors(origin, origin)]
        parts = np.split(vector, np.cumsum(lengths)[:-1])
        each = zip(self.families, parts, origin.blocks, strict=True)
        return ProductParams(tuple(family.from_vector(part, block) for family, part, block in each))

    def sample(self, params: ProductParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d), as float64; columns of no block are NaN."""
        out = np.full((n, self.n_features), np.nan)
        for (_, family, columns), block in zip(self._each(), params.blocks, strict=True):
            out[:, columns] = family.sample(block, k, n, rng)
        return out

    def n_parameters(self, params: ProductParams) -> int:
        """Return the number of free parameters of all blocks."""
        each = zip(self.families, params.blocks, strict=True)
        return sum(int(family.n_parameters(block)) for family, block in each)
