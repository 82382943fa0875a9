"""The one door to numba: how kernels are compiled, and the arrays they see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import event
from numba.extending import intrinsic
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])

# Full fast-math less `nnan` and `ninf`: those two turn a log-sum-exp over -inf into NaN.
FASTMATH = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})


def _compile(function: Function, fastmath: set[str]) -> Function:
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no writable folder for its cache
        compiled = numba.njit(**options)(function)
    return cast(Function, compiled)


def kernel(function: Function) -> Function:
    """Compile a kernel: nogil, cached on disk, additions may be reordered."""
    return _compile(function, set(FASTMATH))


def exact_kernel(function: Function) -> Function:
    """Compile a kernel whose additions keep their written order (error-free transformations)."""
    return _compile(function, {"contract"})


@contextmanager
def compilations() -> Iterator[list[Any]]:
    """Yield a list that fills with the events of numba's compiler, from all threads."""
    with event.install_recorder("numba:compile") as recorder:
        yield recorder.buffer


def is_canonical(array: Any, dtype: type) -> TypeGuard[NDArray[Any]]:
    """Return whether `canonical` would return `array` itself."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        return False
    flags = array.flags
    return flags.c_contiguous and flags.aligned and not flags.writeable


def canonical(array: ArrayLike, dtype: type = np.float64) -> NDArray[Any]:
    """Return `array` as kernels see inputs: one dtype, C order, read-only.

    No copy is made where the dtype and layout are right already. The result is always a
    read-only view, so that a read-only input does not cost a second compiled signature and
    no kernel can modify what a user handed in.
    """
    if is_canonical(array, dtype):
        return array
    view = np.require(array, dtype, ["C", "A"]).view()
    view.flags.writeable = False
    return view


def _float_to_bits(_typing: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return numba.int64(numba.float64), generate


def _bits_to_float(_typing: Any, _bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return numba.float64(numba.int64), generate


# For kernels: the bits of a float64 as an int64, and back.
float_to_bits = cast(Callable[[float], int], intrinsic(_float_to_bits))
bits_to_float = cast(Callable[[int], float], intrinsic(_bits_to_float))
