"""The one door to numba: how kernels are compiled, and the arrays they see."""

from __future__ import annotations

import getpass
import hashlib
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import event
from numba.extending import intrinsic, models, overload, register_model
from numba.misc.appdirs import AppDirs
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])
config: Any = numba.config

# Full fast-math less `nnan` and `ninf`: those two turn a log-sum-exp over -inf into NaN.
FASTMATH = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})


OPTIONS: Any = {"nogil": True, "error_model": "numpy"}


def choose_by_type(stub: Function, argument: str, implementations: Mapping[Any, Callable[..., Any]]) -> None:
    """Make kernels that call `stub` compile an implementation in its place, as a helper: that of an argument's type.

    Stub and implementations are plain functions with the same argument names; the types are NamedTuples.
    """
    position = list(inspect.signature(stub).parameters).index(argument)

    def choose(*types: Any) -> Callable[..., Any] | None:
        return implementations.get(getattr(types[position], "instance_class", None))

    options: Any = {**OPTIONS, "fastmath": set(FASTMATH), "forceinline": True}
    overload(stub, jit_options=options, strict=False)(choose)


def _compile(function: Function, fastmath: set[str], inlined: bool = False) -> Function:
    options: dict[str, Any] = {**OPTIONS, "fastmath": fastmath, "forceinline": inlined}
    folder = cache_folder()
    if folder is None:
        return cast(Function, numba.njit(**options)(function))
    given, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        compiled = numba.njit(cache=True, **options)(function)
        _forgive_disk(compiled)
    except RuntimeError:  # numba knows no cache for a function without a source file
        compiled = numba.njit(**options)(function)
    finally:
        config.CACHE_DIR = given
    return cast(Function, compiled)


def _forgive_disk(compiled: Any) -> None:
    """Make a full disk, or a cache that has vanished, cost time instead of an exception in the middle of a fit."""
    store = compiled._cache  # numba offers no other way
    load, save = store.load_overload, store.save_overload

    def load_if_possible(signature: Any, target: Any) -> Any:
        with suppress(OSError):
            return load(signature, target)
        return None

    def save_if_possible(signature: Any, data: Any) -> None:
        with suppress(OSError):
            save(signature, data)

    store.load_overload, store.save_overload = load_if_possible, save_if_possible


@cache
def cache_folder() -> Path | None:
    """Return the folder where compiled kernels are kept, None where no folder can be written.

    It is the first that can be written of: `NUMBA_CACHE_DIR`, the package's own `__pycache__`, the user's cache
    folder, a private folder for temporary files. Within that, its name is a hash of all that kernels are compiled
    from: numba looks at a kernel's own file alone, and would serve a stale one when a helper has changed. Where a
    folder is full but cannot be written, as in a read-only image, its kernels are copied to the one that can.
    """
    filled = None
    for parent in _cache_parents():
        folder = parent / f"lvm-{_sources_hash()}"
        with suppress(OSError):
            if not folder.exists():
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if filled is not None:
                    with tempfile.TemporaryDirectory(dir=parent) as scratch, suppress(OSError):
                        # In one step: another process sees no half of it, and may have been first.
                        shutil.copytree(filled, Path(scratch) / "copy").rename(folder)
                folder.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
        with suppress(OSError):
            if folder.is_dir() and any(folder.iterdir()):
                filled = filled or folder
    return None


def _cache_parents() -> Iterator[Path]:
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    yield Path(__file__).parent / "__pycache__"
    user = Path(cast(Any, AppDirs)("numba", appauthor=False).user_cache_dir)
    if user.is_absolute():  # "~" stays where there is no home
        yield user
    with suppress(OSError, KeyError):
        name = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
        folder = Path(tempfile.gettempdir()) / f"lvm-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        # Files of the cache are code: in a folder that everyone may write, only one's own will do.
        status = folder.lstat()
        private = folder.is_dir() and not folder.is_symlink() and not status.st_mode & 0o022
        if os.name == "nt" or (private and status.st_uid == os.getuid()):
            yield folder


@cache
def _sources_hash() -> str:
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for pattern in ("_jit.py", "protocol.py", "kernels/*.py", "families/*.py"):
        for path in sorted(package.glob(pattern)):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def kernel(function: Function) -> Function:
    """Compile a kernel: nogil, cached on disk, additions may be reordered."""
    return _compile(function, set(FASTMATH))


def helper(function: Function) -> Function:
    """Compile a kernel that other kernels call, into each of them.

    As a function of its own it would exist once for each caller, optimised in different ways, and which of them
    runs would depend on what the process compiled and what it loaded from disk: results would differ in their
    last bits.
    """
    return _compile(function, set(FASTMATH), inlined=True)


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


class _EightType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Eight")


@register_model(_EightType)
class _EightModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _EIGHT_DOUBLES)  # type: ignore[no-untyped-call]  # numba has none


_EIGHT_DOUBLES = ir.VectorType(ir.DoubleType(), 8)
_EIGHT = _EightType()


def _address(context: Any, builder: Any, array_type: Any, array: Any, position: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position]), _EIGHT_DOUBLES.as_pointer())


def _zero_eight(_typing: Any) -> Any:
    def generate(_context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return ir.Constant(_EIGHT_DOUBLES, [0.0] * 8)

    return _EIGHT(), generate


def _load_eight(_typing: Any, array: Any, _position: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = builder.load(_address(context, builder, signature.args[0], *arguments))
        loaded.align = 8
        return loaded

    return _EIGHT(array, types.uint64), generate


def _store_eight(_typing: Any, value: Any, array: Any, _position: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = builder.store(arguments[0], _address(context, builder, signature.args[1], *arguments[1:]))
        stored.align = 8
        return context.get_dummy_value()

    return types.none(value, array, types.uint64), generate


def _add_scaled(_typing: Any, onto: Any, value: Any, _factor: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        undefined = ir.Constant(_EIGHT_DOUBLES, ir.Undefined)
        first = builder.insert_element(undefined, arguments[2], ir.Constant(ir.IntType(32), 0))
        factors = builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8))
        return builder.fadd(arguments[0], builder.fmul(arguments[1], factors))

    return _EIGHT(onto, value, types.float64), generate


def _load_one(_typing: Any, array: Any, _position: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return types.float64(array, types.uint64), generate


def _multiply_eights(_typing: Any, left: Any, right: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return _EIGHT(left, right), generate


def _sum_eight(_typing: Any, value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        total = arguments[0]
        for half in (4, 2, 1):
            undefined = ir.Constant(total.type, ir.Undefined)
            low, high = (ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(a, a + half))) for a in (0, half))
            total = builder.fadd(
                builder.shuffle_vector(total, undefined, low), builder.shuffle_vector(total, undefined, high)
            )
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float64(value), generate


# For kernels: eight float64 as one value. A short loop over eight array entries is unrolled before it could become
# vector instructions, and its sums live in memory; these stay in registers, two or more where one is too narrow.
zero_eight = cast(Callable[[], Any], intrinsic(_zero_eight))
# load_eight(array, position): from that position of a C-ordered array of any shape, taken as flat.
load_eight = cast(Callable[[Any, Any], Any], intrinsic(_load_eight))
# store_eight(eight, array, position): likewise.
store_eight = cast(Callable[[Any, Any, Any], None], intrinsic(_store_eight))
# add_scaled(onto, eight, factor): onto + factor * eight.
add_scaled = cast(Callable[[Any, Any, float], Any], intrinsic(_add_scaled))
# multiply_eights(eight, eight): entry by entry.
multiply_eights = cast(Callable[[Any, Any], Any], intrinsic(_multiply_eights))
# sum_eight(eight): the sum of its entries.
sum_eight = cast(Callable[[Any], float], intrinsic(_sum_eight))
# load_one(array, position): the entry of a C-ordered array of float64 at that position, taken as flat.
load_one = cast(Callable[[Any, Any], float], intrinsic(_load_one))
