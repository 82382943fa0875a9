"""Where compiled kernels are kept, for later processes to find."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import llvmlite
import numba
from numba.core import caching, runtime
from numba.misc.appdirs import AppDirs

config: Any = numba.config
PACKAGE = Path(__file__).parent
# All that kernels are compiled from.
SOURCES = ("_[!_]*.py", "protocol.py", "kernels/*.py", "families/*.py")
# Numba's own; it offers no other way.
BaseLocator: Any = caching._CacheLocator
BaseCache: Any = caching.FunctionCache
BaseResults: Any = caching.CompileResultCacheImpl
memory: Any = cast(Any, runtime).rtsys


@cache
def cache_folder() -> Path | None:
    """Return the folder where compiled kernels are kept, None where no folder can be written.

    It is the first that can be written of: `NUMBA_CACHE_DIR`, the package's own `__pycache__`, the user's cache
    folder, a private folder for temporary files. Within that, its name is a hash of all that kernels are compiled
    from: numba looks at a kernel's own file alone, and would serve a stale one when a helper has changed. So one
    folder may serve installations in several places. Where a folder is full but cannot be written, as in a read-only
    image, its kernels are copied to the one that can.
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
                        copy = shutil.copytree(filled, Path(scratch) / "copy")
                        for part in (copy, *filter(Path.is_dir, copy.rglob("*"))):
                            part.chmod(0o700)
                        copy.rename(folder)
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
    yield PACKAGE / "__pycache__"
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
def _sources() -> dict[Path, bytes]:
    """Return the hashes of all files that kernels are compiled from; none where the package is no folder of sources."""
    paths = [path for pattern in SOURCES for path in sorted(PACKAGE.glob(pattern))]
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in paths}


@cache
def _sources_hash() -> str:
    compilers = f"{numba.__version__} {llvmlite.__version__} {getattr(config, 'USING_SVML', None)}"
    digest = hashlib.sha256(compilers.encode())
    for path, of_file in _sources().items():
        digest.update(path.name.encode() + of_file)
    return digest.hexdigest()[:16]


@cache
def _stamp(path: str) -> bytes:
    """Return a hash of a file as it is when its first kernel is met: it may have changed since all were hashed."""
    return hashlib.sha256(Path(path).read_bytes()).digest()


class _Locator(BaseLocator):  # type: ignore[misc]  # numba has no types
    """Finds the library's own kernels: the name of the folder tells their sources apart, wherever those are."""

    def __init__(self, function: Any, file: str, folder: Path) -> None:
        self._py_file = file  # which numba names in warnings
        self._line = function.__code__.co_firstlineno
        self._folder = folder / Path(file).parent.relative_to(PACKAGE)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator | None:
        folder = cache_folder()
        return cls(py_func, py_file, folder) if folder is not None and Path(py_file) in _sources() else None

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> bytes:
        return _stamp(self._py_file)

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Results(BaseResults):  # type: ignore[misc]  # numba has no types
    _locator_classes = (_Locator, *BaseResults._locator_classes)


class _Cache(BaseCache):  # type: ignore[misc]  # numba has no types
    """Lets a full disk, or a folder that has vanished, cost time instead of an exception in the middle of a fit."""

    _impl_class = _Results

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(OSError):
            if not isinstance(self._impl.locator, _Locator):
                return super().load_overload(sig, target_context)
            # Numba would first learn of all that it can compile, for a third of a second. What is compiled already
            # needs its memory alone, as long as it hashes nothing.
            memory.initialize(target_context)
            result = self._load_overload(sig, target_context)
            # Processes that save at the same time may have mixed up their files.
            if result is not None and tuple(result.signature.args) == tuple(sig):
                return result
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def keep_on_disk(compiled: Any) -> None:
    """Let numba load and save a kernel, where there is a folder for it and it comes from a source file."""
    folder = cache_folder()
    if folder is None:
        return
    given, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        with suppress(RuntimeError):  # numba knows no cache for a function without a source file
            compiled._cache = _Cache(compiled.py_func)
    finally:
        config.CACHE_DIR = given
