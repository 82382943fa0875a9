"""The door to numba: how kernels are compiled, and the arrays they see.

What numba learns of vectors, masks, tiles and handles, and of the disk, is in modules of those names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeGuard, TypeVar, cast

import numba
import numpy as np
from numba.core import event
from numba.extending import overload
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lvm._disk import keep_on_disk

Array = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])

# Full fast-math less `nnan` and `ninf`: those two turn a log-sum-exp over -inf into NaN.
FASTMATH = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})


OPTIONS: Any = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
# Where nothing is allocated, references to arrays need not be counted. Numba would at each call of a helper, for all
# arrays in its arguments, by an atomic operation each.
BARE: Any = {"_nrt": False}


def choose_by_type(stub: Function, argument: str, implementations: Mapping[Any, Callable[..., Any]]) -> None:
    """Make kernels that call `stub` compile an implementation in its place, as a helper: that of an argument's type.

    Stub and implementations are plain functions with the same argument names, and allocate nothing; the types are
    NamedTuples, or names of the dtypes of arrays, vectors and numbers.
    """
    position = list(inspect.signature(stub).parameters).index(argument)

    def choose(*types: Any) -> Callable[..., Any] | None:
        given = types[position]
        return implementations.get(getattr(given, "instance_class", str(getattr(given, "dtype", given))))

    options: Any = {**OPTIONS, **BARE, "fastmath": set(FASTMATH), "forceinline": True}
    overload(stub, jit_options=options, strict=False)(choose)


def _compile(function: Function, fastmath: set[str], inlined: bool = False, bare: bool = False) -> Function:
    options: Any = {**OPTIONS, **(BARE if bare else {}), "fastmath": fastmath, "forceinline": inlined}
    compiled: Any = numba.njit(**{**options, "no_cpython_wrapper": inlined})(function)
    keep_on_disk(compiled)
    if inlined:
        compiled.targetoptions = options  # a pickled one is compiled with an entry where it is loaded
        _spare_entry(compiled, cache(lambda: numba.njit(**options)(function)))
    return cast(Function, compiled)


def _spare_entry(helper: Any, make_twin: Callable[[], Any]) -> None:
    """Let numba pass over a helper's entry from Python, a third of its compilation; a twin of it answers calls."""

    def add_overload(result: Any) -> None:
        helper.overloads[tuple(result.signature.args)] = result  # and not to what Python may call

    helper.add_overload = add_overload
    helper._compile_for_args = lambda *_, **__: make_twin()  # numba calls what this returns


def kernel(function: Function) -> Function:
    """Compile a kernel: nogil, cached on disk, additions may be reordered."""
    return _compile(function, set(FASTMATH))


def helper(function: Function) -> Function:
    """Compile a kernel that other kernels call, into each of them.

    As a function of its own it would exist once for each caller, optimised in different ways, and which of them
    runs would depend on what the process compiled and what it loaded from disk: results would differ in their
    last bits. Called from Python, it is compiled once more, in each process.
    """
    return _compile(function, set(FASTMATH), inlined=True)


def bare_kernel(function: Function) -> Function:
    """Compile a kernel that allocates nothing, see `kernel`."""
    return _compile(function, set(FASTMATH), bare=True)


def bare_helper(function: Function) -> Function:
    """Compile a helper that allocates nothing, see `helper`."""
    return _compile(function, set(FASTMATH), inlined=True, bare=True)


def part_of_kernel(function: Function) -> Function:
    """Write the source of a helper into each kernel that calls it: for long ones, with a few callers.

    A helper is also compiled by itself, for nothing, which for these takes seconds.
    """
    return cast(Function, numba.njit(inline="always", fastmath=set(FASTMATH), **OPTIONS)(function))


def exact_helper(function: Function) -> Function:
    """Compile a helper whose additions keep their written order (error-free transformations)."""
    return _compile(function, {"contract"}, inlined=True)


@contextmanager
def compilations() -> Iterator[list[Any]]:
    """Yield a list that fills with the events of numba's compiler, from all threads."""
    with event.install_recorder("numba:compile") as recorder:
        yield recorder.buffer


def is_canonical(array: Any, dtype: DTypeLike) -> TypeGuard[NDArray[Any]]:
    """Return whether `canonical` would return `array` itself."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        return False
    flags = array.flags
    return flags.c_contiguous and flags.aligned and not flags.writeable


def canonical(array: ArrayLike, dtype: DTypeLike = np.float64) -> NDArray[Any]:
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
