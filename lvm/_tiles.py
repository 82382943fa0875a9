"""Tiles for kernels: four rows times two columns of vectors, the running sums of a loop, in registers.

Eight sums keep two multiply-add units busy that take four cycles each, and fit into sixteen registers beside what is
multiplied. What is done to a tile is a Python function that runs when a kernel is compiled: its loops are unrolled, and
its arithmetic becomes that of the kernel.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from lvm._vectors import VectorType, _as_vector, _llvm, _native, _pick, _pointer

ROWS, COLUMNS = 4, 2


class TileType(types.Type):
    """Eight vectors of one type."""

    def __init__(self, vector: VectorType) -> None:
        self.vector = vector
        super().__init__(name=f"Tile({vector.name})")


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Any) -> None:
        vectors = ir.ArrayType(_llvm(tile.vector), ROWS * COLUMNS)
        super().__init__(manager, tile, vectors)  # type: ignore[no-untyped-call]  # numba has none


class Vector:
    """A vector while a kernel is compiled."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, other: Vector | float) -> Vector:
        factor = (
            other.value if isinstance(other, Vector) else ir.Constant(self.value.type, [other] * self.value.type.count)
        )
        return Vector(self.builder, self.builder.fmul(self.value, factor))

    def where_above(self, limit: Vector, then: Vector, otherwise: Vector) -> Vector:
        """Return then where an entry is above the limit."""
        is_above = self.builder.fcmp_ordered(">", self.value, limit.value)
        return Vector(self.builder, self.builder.select(is_above, then.value, otherwise.value))


class Position:
    """A position in an array while a kernel is compiled."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Position | int) -> Position:
        return Position(self.builder, self.builder.add(self.value, self._value(other)))

    def __mul__(self, factor: int) -> Position:
        return Position(self.builder, self.builder.mul(self.value, self._value(factor)))

    __rmul__ = __mul__

    def _value(self, other: Position | int) -> Any:
        return other.value if isinstance(other, Position) else ir.Constant(ir.IntType(64), other)


class Memory:
    """An array while a kernel is compiled."""

    def __init__(self, context: Any, builder: Any, array: Any, value: Any) -> None:
        self.context, self.builder, self.array, self.value = context, builder, array, value
        self.lanes, self.is_double = _native(array).lanes, array.dtype == types.float64

    def _pointer(self, position: Position | int, pointee: Any) -> Any:
        place = position.value if isinstance(position, Position) else ir.Constant(ir.IntType(64), position)
        return _pointer(self.context, self.builder, self.array, self.value, place, pointee)

    def load(self, position: Position | int) -> Vector:
        """Return the vector that starts there."""
        loaded = self.builder.load(self._pointer(position, _llvm(_native(self.array))))
        loaded.align = self.array.dtype.bitwidth // 8
        return Vector(self.builder, loaded)

    def store(self, vector: Vector, position: Position | int) -> None:
        """Write a vector there."""
        pointer = self._pointer(position, _llvm(_native(self.array)))
        self.builder.store(vector.value, pointer).align = self.array.dtype.bitwidth // 8

    def add_four(self, four: Vector, position: Position) -> None:
        """Add four float64 to those there."""
        pointer = self._pointer(position, four.value.type)
        before = self.builder.load(pointer)
        before.align = 8
        self.builder.store(self.builder.fadd(before, four.value), pointer).align = 8

    def spread(self, position: Position) -> Vector:
        """Return a vector of copies of the number there."""
        number = self.builder.load(self._pointer(position, self.context.get_data_type(self.array.dtype)))
        vector = _native(self.array)
        return Vector(self.builder, _as_vector(self.context, self.builder, number, self.array.dtype, vector))


def _wrapped(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, TileType):
        vectors = [Vector(builder, builder.extract_value(value, i)) for i in range(ROWS * COLUMNS)]
        return [vectors[COLUMNS * row : COLUMNS * (row + 1)] for row in range(ROWS)]
    if isinstance(kind, types.Array):
        return Memory(context, builder, kind, value)
    return Position(builder, value)


def _typed(function: Callable[..., None], returns: bool) -> Any:
    def typed(_typing: Any, *given: Any) -> Any:
        result = given[0] if returns else types.none

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pairs = zip(signature.args, arguments, strict=True)
            wrapped = [_wrapped(context, builder, kind, value) for kind, value in pairs]
            function(*wrapped)
            if not returns:
                return context.get_dummy_value()
            changed = ir.Constant(context.get_value_type(result), ir.Undefined)
            for i, vector in enumerate(vector for row in wrapped[0] for vector in row):
                changed = builder.insert_value(changed, vector.value, i)
            return changed

        kinds = [each if isinstance(each, types.Array | TileType) else types.uint64 for each in given]
        return result(*kinds), generate

    typed.__name__ = function.__name__
    typing = inspect.Parameter("_typing", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    typed.__signature__ = inspect.Signature([typing, *parameters])  # type: ignore[attr-defined]  # numba reads it
    return intrinsic(typed)


def on_tile(function: Callable[..., None]) -> Callable[..., Any]:
    """Make a function that changes its first argument, a tile, one for kernels that returns the new tile.

    It sees the tile as four lists of two `Vector`; its other arguments are `Memory`, arrays, and `Position`.
    """
    return cast(Callable[..., Any], _typed(function, returns=True))


def unrolled(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function of arrays, positions and tiles one for kernels, see `on_tile`, that returns nothing."""
    return cast(Callable[..., None], _typed(function, returns=False))


def _zero_tile(_typing: Any, array: Any) -> Any:
    tile = TileType(_native(array))

    def generate(context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return context.get_constant_null(tile)

    return tile(array), generate


# zero_tile(array): zeros in an array's dtype.
zero_tile = cast(Callable[[Any], Any], intrinsic(_zero_tile))


@on_tile
def fill_rows(tile: Any, numbers: Memory, at: Position) -> None:
    """Make all entries of a row equal, to four numbers."""
    for i, row in enumerate(tile):
        row[:] = [numbers.spread(at + i)] * COLUMNS


@on_tile
def add_multiples(tile: Any, x: Memory, row: Position, numbers: Memory, at: Position) -> None:
    """Add four rows of x, times four numbers each, to the four rows of the tile."""
    for feature in range(ROWS):
        for column in range(COLUMNS):
            points = x.load(row + (COLUMNS * feature + column) * x.lanes)
            for k in range(ROWS):
                tile[k][column] += numbers.spread(at + (ROWS * feature + k)) * points


@unrolled
def store_tile(tile: Any, array: Memory, at: Position) -> None:
    """Write a tile, row by row."""
    for i, row in enumerate(tile):
        for column in range(COLUMNS):
            array.store(row[column], at + (COLUMNS * i + column) * array.lanes)


@unrolled
def add_totals(tile: Any, sums: Memory, at: Position) -> None:
    """Add the sums of the entries of each vector to eight float64, sums: the first column of the tile, the second."""
    for column in range(COLUMNS):
        sums.add_four(totals([row[column] for row in tile]), at + ROWS * column)


@unrolled
def add_row_totals(tile: Any, sums: Memory, at: Position) -> None:
    """Add the sums of the entries of each row to four float64, sums."""
    sums.add_four(totals([row[0] + row[1] for row in tile]), at)


def totals(vectors: list[Vector]) -> Vector:
    """Return the sums of the entries of four vectors, as a vector of four float64."""
    builder = vectors[0].builder
    values, half = [vector.value for vector in vectors], vectors[0].value.type.count // 2

    def add(one: Any, two: Any, low: Sequence[int], high: Sequence[int]) -> Any:
        return builder.fadd(_pick(builder, one, two, low), _pick(builder, one, two, high))

    if values[0].type.element != ir.DoubleType():
        values = [builder.fpext(value, ir.VectorType(ir.DoubleType(), value.type.count)) for value in values]
    while half >= ROWS:
        values = [add(value, value, range(half), range(half, 2 * half)) for value in values]
        half //= 2
    first, second = (add(one, two, (0, 4, 2, 6), (1, 5, 3, 7)) for one, two in (values[:2], values[2:]))
    return Vector(builder, add(first, second, (0, 1, 4, 5), (2, 3, 6, 7)))
