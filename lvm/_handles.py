"""Handles: what a kernel works with, passed by address.

Numba unpacks its arguments array by array, at each call. For the fifty arrays that an E-step works with, the same from
call to call, this takes as long as the E-step of hundreds of rows. A handle has them unpacked already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import typeof, types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

Values = TypeVar("Values")

_WORD = ir.IntType(64)


class HandleType(types.Type):
    """The address of values of some type."""

    def __init__(self, values: Any) -> None:
        self.values = values
        super().__init__(name=f"Handle({values})")


@register_model(HandleType)
class _HandleModel(models.PrimitiveModel):
    def __init__(self, manager: Any, handle: Any) -> None:
        super().__init__(manager, handle, _WORD)  # type: ignore[no-untyped-call]  # numba has none


class Handle(Generic[Values]):
    """Holds `values`, a NamedTuple of arrays, integers and such tuples. Kernels get at them by `values_of`."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self._numba_type_ = HandleType(cast(Any, typeof)(values))
        self._words = np.array([word % 2**64 for word in _words(values)], np.uint64)
        self.address = self._words.ctypes.data


def _words(value: Any) -> Iterator[int]:
    """Yield what numba has for a value: of an array no owner and no parent, number and size of items, address, axes."""
    if isinstance(value, np.ndarray):
        yield from (0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides)
    elif isinstance(value, tuple):
        for part in value:
            yield from _words(part)
    else:
        yield int(value)


def _unbox(_type: Any, handle: Any, context: Any) -> Any:
    address = context.pyapi.object_getattr_string(handle, "address")
    word = context.pyapi.long_as_ulonglong(address)
    context.pyapi.decref(address)
    return cast(Any, NativeValue)(word)


cast(Any, unbox)(HandleType)(_unbox)


def _values_of(_typing: Any, handle: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        n_read = 0

        def read(kind: Any) -> Any:
            # Word by word: the compiler handles numbers better than one load of a structure of hundreds.
            nonlocal n_read
            if isinstance(kind, ir.LiteralStructType | ir.ArrayType):
                whole = ir.Constant(kind, ir.Undefined)
                parts = kind.elements if isinstance(kind, ir.LiteralStructType) else [kind.element] * kind.count
                for i, part in enumerate(parts):
                    whole = builder.insert_value(whole, read(part), i)
                return whole
            word = builder.load(builder.gep(place, [ir.Constant(_WORD, n_read)]))
            n_read += 1
            return builder.inttoptr(word, kind) if isinstance(kind, ir.PointerType) else word

        return read(context.get_value_type(handle.values))

    return handle.values(handle), generate


# values_of(handle): its values.
values_of = cast(Callable[[Any], Any], intrinsic(_values_of))
