"""Vectors for kernels: as many numbers as a register of this machine holds, with their arithmetic.

The compiler turns a simple loop into vector instructions by itself. It cannot keep eight running sums of a long loop
in registers, skip the exponentials of a whole vector, or transpose: for that, kernels say what they want. Vectors are
added, subtracted, multiplied and divided by +, -, * and /, with each other and with numbers. A position is that of an
entry in a C-ordered array of any shape, taken as flat; it is unsigned, since one that may be negative costs a test.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core.typing import templates
from numba.extending import intrinsic, lower_builtin, models, register_model

# Steps between positions, unsigned as these are: with a signed one, numba would make a float64 of the sum.
_STEPS: Any = np.arange(5, dtype=np.uint64)
ZERO, ONE, TWO, THREE, FOUR = _STEPS

AbstractTemplate: Any = templates.AbstractTemplate
infer_global: Any = templates.infer_global
signature: Any = templates.signature

REGISTER = 64 if binding.get_host_cpu_features().get("avx512f") else 32  # bytes

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_SCALARS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


class VectorType(types.Type):
    """So many numbers of one dtype, float64 or float32."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype} x {lanes})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Any) -> None:
        super().__init__(manager, vector, _llvm(vector))  # type: ignore[no-untyped-call]  # numba has none


def _llvm(vector: VectorType) -> Any:
    return ir.VectorType(_SCALARS[vector.dtype], vector.lanes)


def _native(array: Any) -> VectorType:
    """Return the vectors of an array's dtype that fill a register."""
    return VectorType(array.dtype, REGISTER * 8 // array.dtype.bitwidth)


def _indices(lanes: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(_INT32, len(lanes)), list(lanes))


def _pick(builder: Any, one: Any, two: Any, lanes: Sequence[int]) -> Any:
    """Return a vector of the entries of two vectors, side by side, at these places."""
    return builder.shuffle_vector(one, two, _indices(lanes))


def _as_vector(context: Any, builder: Any, value: Any, given: Any, vector: VectorType) -> Any:
    if isinstance(given, VectorType):
        return value
    undefined = ir.Constant(_llvm(vector), ir.Undefined)
    number = context.cast(builder, value, given, vector.dtype)
    first = builder.insert_element(undefined, number, ir.Constant(_INT32, 0))
    return _pick(builder, first, undefined, [0] * vector.lanes)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, position: Any, pointee: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), pointee.as_pointer())


def _vector_of(arguments: Sequence[Any]) -> Any:
    """Return the type of the first vector among the arguments, all of them vectors or numbers; None without one."""
    if not all(isinstance(each, VectorType | types.Number) for each in arguments):
        return None
    return next((each for each in arguments if isinstance(each, VectorType)), None)


def _register_operator(symbol: Any, instruction: str) -> None:
    class Template(AbstractTemplate):  # type: ignore[misc]  # numba has no types
        key = symbol

        def generic(self, arguments: Any, _keywords: Any) -> Any:
            vector = _vector_of(arguments)
            return None if vector is None or len(arguments) != 2 else signature(vector, *arguments)

    def lower(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        given = zip(arguments, typed.args, strict=True)
        one, two = (_as_vector(context, builder, value, kind, typed.return_type) for value, kind in given)
        return getattr(builder, instruction)(one, two)

    infer_global(symbol)(Template)
    register: Any = lower_builtin
    for kinds in ((VectorType, VectorType), (VectorType, types.Number), (types.Number, VectorType)):
        register(symbol, *kinds)(lower)


for _name, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _register_operator(getattr(operator, _name), _instruction)
    _register_operator(getattr(operator, f"i{_name}"), _instruction)


# ----- memory ---------------------------------------------------------------------------------------------------


def _prefetch(_typing: Any, array: Any, _position: Any) -> Any:
    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, typed.args[0], arguments[0], arguments[1], ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, *[_INT32] * 3])
        function = builder.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
        builder.call(function, [pointer, *(ir.Constant(_INT32, hint) for hint in (0, 3, 1))])  # to read, often, data
        return context.get_dummy_value()

    return types.none(array, types.uint64), generate


def _lanes(_typing: Any, array: Any) -> Any:
    lanes = _native(array).lanes

    def generate(context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return context.get_constant(types.uint64, lanes)

    return types.uint64(array), generate


def _loader(vector_of: Callable[[Any], VectorType]) -> Any:
    def load(_typing: Any, array: Any, _position: Any) -> Any:
        vector = vector_of(array)

        def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            loaded = builder.load(_pointer(context, builder, typed.args[0], arguments[0], arguments[1], _llvm(vector)))
            loaded.align = array.dtype.bitwidth // 8
            return loaded

        return vector(array, types.uint64), generate

    return load


def _store(_typing: Any, vector: Any, array: Any, _position: Any) -> Any:
    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, typed.args[1], arguments[1], arguments[2], _llvm(vector))
        builder.store(arguments[0], pointer).align = vector.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(vector, array, types.uint64), generate


def _load_one(_typing: Any, array: Any, _position: Any) -> Any:
    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        data = context.make_array(typed.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return array.dtype(array, types.uint64), generate


def _load_bytes(_typing: Any, array: Any, _position: Any) -> Any:
    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, typed.args[0], arguments[0], arguments[1], ir.IntType(64))
        loaded = builder.load(pointer)
        loaded.align = 1
        return loaded

    return types.uint64(array, types.uint64), generate


def _gather(_typing: Any, array: Any, places: Any, _position: Any, _width: Any, _factor: Any, _offset: Any) -> Any:
    vector = _native(array)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, listed, first, width, factor, offset = arguments
        low, gathered = builder.sub(width, width.type(1)), ir.Constant(_llvm(vector), ir.Undefined)
        data = context.make_array(array)(context, builder, source).data
        for lane in range(vector.lanes):
            place = builder.load(
                _pointer(context, builder, places, listed, builder.add(first, first.type(lane)), _INT64)
            )
            in_panel = builder.and_(place, low)
            place = builder.add(builder.mul(builder.sub(place, in_panel), factor), builder.add(in_panel, offset))
            gathered = builder.insert_element(gathered, builder.load(builder.gep(data, [place])), _INT32(lane))
        return gathered

    return vector(array, places, *[types.uint64] * 4), generate


def _spread(_typing: Any, value: Any, array: Any) -> Any:
    vector = _native(array)

    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        return _as_vector(context, builder, arguments[0], typed.args[0], vector)

    return vector(value, array), generate


def _zero_eight(_typing: Any) -> Any:
    vector = VectorType(types.float64, 8)

    def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(_llvm(vector), [0.0] * 8)

    return vector(), generate


def _transpose_four(_typing: Any, source: Any, at: Any, target: Any, _position: Any, _width: Any) -> Any:
    four = ir.VectorType(_SCALARS[source.dtype], 4)
    align = source.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
        rows, target_array, position, width = arguments[1:]
        loaded = []
        for i in range(4):
            row = builder.extract_value(rows, i)
            loaded.append(builder.load(_pointer(context, builder, typed.args[0], arguments[0], row, four)))
            loaded[-1].align = align
        a, b, c, d = loaded
        even_ab, odd_ab = (_pick(builder, a, b, lanes) for lanes in ([0, 4, 2, 6], [1, 5, 3, 7]))
        even_cd, odd_cd = (_pick(builder, c, d, lanes) for lanes in ([0, 4, 2, 6], [1, 5, 3, 7]))
        for lanes in ([0, 1, 4, 5], [2, 3, 6, 7]):
            for pair in ((even_ab, even_cd), (odd_ab, odd_cd)):
                pointer = _pointer(context, builder, typed.args[2], target_array, position, four)
                builder.store(_pick(builder, *pair, lanes), pointer).align = align
                position = builder.add(position, width)
        return context.get_dummy_value()

    return types.none(source, at, target, types.uint64, types.uint64), generate


# lanes(array): how many numbers of an array's dtype a vector holds.
lanes = cast(Callable[[Any], int], intrinsic(_lanes))
# load(array, position): the vector that starts there.
load = cast(Callable[[Any, Any], Any], intrinsic(_loader(_native)))
# prefetch(array, position): the cache line that holds it, which is going to be read.
prefetch = cast(Callable[[Any, Any], None], intrinsic(_prefetch))
# load_eight(array, position): eight float64, in as many registers as they take.
load_eight = cast(Callable[[Any, Any], Any], intrinsic(_loader(lambda array: VectorType(array.dtype, 8))))
# load_one(array, position): a number.
load_one = cast(Callable[[Any, Any], Any], intrinsic(_load_one))
# load_bytes(array, position): eight bytes of an array of uint8, the first one lowest.
load_bytes = cast(Callable[[Any, Any], int], intrinsic(_load_bytes))
# store(vector, array, position).
store = cast(Callable[[Any, Any, Any], None], intrinsic(_store))
# gather(array, places, position, width, factor, offset): the vector of entries of an array at places listed from a
# position on, p for p: at factor * (p - p % width) + p % width + offset; width is a power of two.
gather = cast(Callable[[Any, Any, Any, Any, Any, Any], Any], intrinsic(_gather))
# spread(number, array): a vector of an array's dtype with all its entries equal.
spread = cast(Callable[[Any, Any], Any], intrinsic(_spread))
# zero_eight(): eight zeros.
zero_eight = cast(Callable[[], Any], intrinsic(_zero_eight))
# transpose_four(source, (p, q, r, s), target, position, width): of four rows of source that start there, entry j of
# each, for j < 4, side by side to target, from position + j * width on.
transpose_four = cast(Callable[[Any, Any, Any, Any, Any], None], intrinsic(_transpose_four))


# ----- entry by entry -------------------------------------------------------------------------------------------


def _elementwise(generate_vector: Callable[..., Any], n_arguments: int) -> Any:
    """Return an intrinsic for vectors and numbers mixed, and for numbers alone."""

    def generic(_typing: Any, *given: Any) -> Any:
        result = _vector_of(given) or given[0]

        def generate(context: Any, builder: Any, typed: Any, arguments: Any) -> Any:
            pairs = zip(arguments, typed.args, strict=True)
            if isinstance(result, VectorType):
                values = [_as_vector(context, builder, value, kind, result) for value, kind in pairs]
            else:
                values = [context.cast(builder, value, kind, result) for value, kind in pairs]
            return generate_vector(builder, result, *values)

        return result(*given), generate

    signatures: dict[int, Any] = {
        1: lambda typing, a: generic(typing, a),
        2: lambda typing, a, b: generic(typing, a, b),
        4: lambda typing, a, b, c, d: generic(typing, a, b, c, d),
    }
    return intrinsic(signatures[n_arguments])


def _larger(builder: Any, _kind: Any, one: Any, two: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", one, two), one, two)


def _where_above(builder: Any, _kind: Any, value: Any, limit: Any, then: Any, otherwise: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", value, limit), then, otherwise)


def _square_root(builder: Any, kind: Any, value: Any) -> Any:
    bits = kind.dtype.bitwidth
    name = f"llvm.sqrt.v{kind.lanes}f{bits}"
    function = builder.module.declare_intrinsic(name, (), ir.FunctionType(_llvm(kind), [_llvm(kind)]))
    return builder.call(function, [value])


def _bits(kind: Any) -> tuple[Any, int, int, Callable[[int], Any]]:
    """Return the integers of the bits of a float, the length of its mantissa, its bias, and a maker of constants."""
    dtype, n = (kind.dtype, kind.lanes) if isinstance(kind, VectorType) else (kind, 0)
    mantissa, bias = (52, 1023) if dtype == types.float64 else (23, 127)
    whole: Any = ir.IntType(dtype.bitwidth)
    if not n:
        return whole, mantissa, bias, lambda number: ir.Constant(whole, number)
    vector = ir.VectorType(whole, n)
    return vector, mantissa, bias, lambda number: ir.Constant(vector, [number] * n)


def _power_of_two(builder: Any, kind: Any, value: Any) -> Any:
    whole, mantissa, bias, constant = _bits(kind)
    exponent = builder.add(builder.bitcast(value, whole), constant(bias))
    return builder.bitcast(builder.shl(exponent, constant(mantissa)), value.type)


def _mantissa_of(builder: Any, kind: Any, value: Any) -> Any:
    whole, mantissa, bias, constant = _bits(kind)
    bits = builder.and_(builder.bitcast(value, whole), constant((1 << mantissa) - 1))
    return builder.bitcast(builder.or_(bits, constant(bias << mantissa)), value.type)


def _biased_exponent_of(builder: Any, kind: Any, value: Any) -> Any:
    # An integer n in the low bits of 2**mantissa makes it 2**mantissa + n.
    whole, mantissa, bias, constant = _bits(kind)
    high = constant((bias + mantissa) << mantissa)
    exponent = builder.or_(builder.lshr(builder.bitcast(value, whole), constant(mantissa)), high)
    return builder.fsub(builder.bitcast(exponent, value.type), builder.bitcast(high, value.type))


# larger(a, b): entry by entry; b where either is NaN.
larger = cast(Callable[[Any, Any], Any], _elementwise(_larger, 2))
# where_above(a, limit, then, otherwise): then where a > limit.
where_above = cast(Callable[[Any, Any, Any, Any], Any], _elementwise(_where_above, 4))
# square_root(vector).
square_root = cast(Callable[[Any], Any], _elementwise(_square_root, 1))
# power_of_two(a): 2**n for the integer n in the low bits of a.
power_of_two = cast(Callable[[Any], Any], _elementwise(_power_of_two, 1))
# mantissa_of(a), of a positive normal number: from 1 to below 2.
mantissa_of = cast(Callable[[Any], Any], _elementwise(_mantissa_of, 1))
# biased_exponent_of(a): its exponent of 2 plus 1023, or 127 in float32.
biased_exponent_of = cast(Callable[[Any], Any], _elementwise(_biased_exponent_of, 1))


# ----- across entries -------------------------------------------------------------------------------------------


def _sum_entries(_typing: Any, vector: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        total, half = _in_double(builder, arguments[0], vector), vector.lanes // 2
        while half:
            low, high = (_pick(builder, total, total, range(a, a + half)) for a in (0, half))
            total, half = builder.fadd(low, high), half // 2
        return builder.extract_element(total, ir.Constant(_INT32, 0))

    return types.float64(vector), generate


def _in_double(builder: Any, value: Any, vector: VectorType) -> Any:
    """Return a vector as float64, in as many registers as they take."""
    return (
        value if vector.dtype == types.float64 else builder.fpext(value, ir.VectorType(ir.DoubleType(), vector.lanes))
    )


# sum_entries(vector): the sum of its entries, in float64.
sum_entries = cast(Callable[[Any], Any], intrinsic(_sum_entries))
