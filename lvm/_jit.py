"""The door to numba: how kernels are compiled, and the arrays they see.

What numba learns of vectors, masks, tiles and handles is in modules of those names.
"""

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
from numba.core import event
from numba.extending import overload
from numba.misc.appdirs import AppDirs
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])
config: Any = numba.config

# Full fast-math less `nnan` and `ninf`: those two turn a log-sum-exp over -inf into NaN.
FASTMATH = frozenset({"nsz", "arcp", "contract", "afn", "reassoc"})


OPTIONS: Any = {"nogil": True, "error_model": "numpy"}
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
    options: dict[str, Any] = {**OPTIONS, **(BARE if bare else {}), "fastmath": fastmath, "forceinline": inlined}
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
    for pattern in (
        "_jit.py",
        "_vectors.py",
        "_masks.py",
        "_tiles.py",
        "_handles.py",
        "protocol.py",
        "kernels/*.py",
        "families/*.py",
    ):
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
