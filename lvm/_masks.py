"""Which entries of vectors are above a limit, and lists of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lvm._vectors import _INT64, _as_vector, _pick, _pointer


def _mask(context: Any, builder: Any, typed: Any, arguments: Any, with_nan: bool) -> Any:
    """Return a bit for each entry of a vector that is above a limit."""
    vector = typed.args[0]
    limit = _as_vector(context, builder, arguments[1], typed.args[1], vector)
    compare = builder.fcmp_unordered if with_nan else builder.fcmp_ordered
    return builder.bitcast(compare(">", arguments[0], limit), ir.IntType(vector.lanes))


def _any_above(_typing: Any, vector: Any, limit: Any) -> Any:
    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        bits = _mask(context, builder, typed, arguments, with_nan=True)
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(vector, limit), generate


def _all_above(_typing: Any, vector: Any, limit: Any) -> Any:
    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        bits = _mask(context, builder, typed, arguments, with_nan=False)
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, -1))

    return types.boolean(vector, limit), generate


def _count_above(_typing: Any, vector: Any, limit: Any) -> Any:
    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        bits = _mask(context, builder, typed, arguments, with_nan=False)
        return builder.ctpop(builder.zext(bits, _INT64))

    return types.uint64(vector, limit), generate


def _append_above(_typing: Any, vector: Any, limit: Any, _first: Any, array: Any, _position: Any) -> Any:
    set_bits = [[place for place in range(4) if pattern >> place & 1] for pattern in range(16)]

    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        kind = ir.VectorType(_INT64, 4)
        known = cast(Any, cgutils.global_constant)(
            builder,
            "places_of_bits",
            ir.Constant(ir.ArrayType(kind, 16), [(places + [0] * 4)[:4] for places in set_bits]),
        )
        bits = builder.zext(_mask(context, builder, typed, arguments, with_nan=False), _INT64)
        _, _, first, values, start = arguments
        position = start
        for part in range(0, vector.lanes, 4):
            four = builder.and_(builder.lshr(bits, _INT64(part)), _INT64(15))
            places = builder.load(builder.gep(known, [_INT64(0), four]))
            offset = builder.insert_element(
                ir.Constant(kind, ir.Undefined), builder.add(first, _INT64(part)), _INT64(0)
            )
            pointer = _pointer(context, builder, array, values, position, kind)
            builder.store(builder.add(places, _pick(builder, offset, offset, [0] * 4)), pointer).align = 8
            position = builder.add(position, builder.ctpop(four))
        return builder.sub(position, start)

    return types.uint64(vector, limit, types.uint64, array, types.uint64), generate


# any_above(vector, limit): whether one of its entries is, or is NaN.
any_above = cast(Callable[[Any, Any], bool], intrinsic(_any_above))
# all_above(vector, limit): whether all of its entries are.
all_above = cast(Callable[[Any, Any], bool], intrinsic(_all_above))
# count_above(vector, limit): how many of its entries are.
count_above = cast(Callable[[Any, Any], int], intrinsic(_count_above))
# append_above(vector, limit, first, array, position): for each entry above the limit, write first plus its place to an
# array of uint64; return how many. What stands behind those, as much as a vector holds, may be overwritten.
append_above = cast(Callable[[Any, Any, Any, Any, Any], Any], intrinsic(_append_above))
