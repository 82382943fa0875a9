"""Save and load fitted estimators: a zip of one JSON manifest and `.npy` arrays, without pickle.

The manifest holds the class, the constructor's parameters and the fitted attributes. Loading reads
numbers and text alone: classes come from the table below, arrays are read with `allow_pickle=False`.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

import lvm
from lvm.result import Status

FORMAT = "lvm-model"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 26


# All estimators can be saved: their public names, and the modules that they live in.
ESTIMATORS = {name: home for name, home in lvm._HOMES.items() if home.startswith("lvm.estimators.")}


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Save a fitted estimator to a file.

    The file is written beside its place and moved there once complete, so that a failure leaves what was
    there before. A `random_state` other than an integer is saved as None: a generator's position is not kept.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator of this package.
    path : str or path-like
        File to write, by custom ending in `.lvm`; replaced where it exists.

    Raises
    ------
    TypeError
        If the estimator is of another class, or a parameter of a type that the format lacks.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If the path is a folder, or the fitted attributes do not fit together.

    Examples
    --------
    >>> import lvm, tempfile, pathlib
    >>> X = lvm.datasets.load_faithful().data
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "faithful.lvm"
    >>> lvm.save(lvm.GaussianMixture(2, random_state=0).fit(X), path)
    >>> lvm.load(path).n_components
    2
    """
    name = type(estimator).__name__
    if name not in ESTIMATORS or type(estimator) is not _class(name):
        raise TypeError(f"save expects a fitted {_names()}, got {type(estimator).__name__}.")
    check_is_fitted(estimator)
    if hasattr(estimator, "_check_savable"):
        estimator._check_savable()
    arrays: dict[str, NDArray[Any]] = {}
    parameters = estimator.get_params(deep=False)
    if "random_state" in parameters and not isinstance(parameters["random_state"], Integral):
        parameters["random_state"] = None
    fitted = {key: value for key, value in vars(estimator).items() if _is_fitted_name(key)}
    if misfit := _misfit(estimator, fitted):
        raise ValueError(f"cannot save this {name}: {misfit}; fit it with its present parameters first.")
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "lvm_version": lvm.__version__,
        "class": name,
        "parameters": {key: _encode(value, f"parameters/{key}", arrays) for key, value in parameters.items()},
        "fitted": {key: _encode(value, f"fitted/{key}", arrays) for key, value in fitted.items()},
    }
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # A fixed date, so that equal models give equal files.
        archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(manifest, indent=1, allow_nan=False))
        for member, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(member), buffer.getvalue())


def load(path: str | os.PathLike[str]) -> Any:
    """Load an estimator saved by `save`; no code from the file is run.

    Parameters
    ----------
    path : str or path-like
        File written by `save`.

    Returns
    -------
    estimator
        The fitted estimator: its predictions equal those before saving, bit for bit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a saved model, is damaged or inconsistent, or was written in a newer format.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a model file written by lvm.save.")
    if not path.exists():
        raise FileNotFoundError(f"there is no model file {path}; check the path, or write it with lvm.save.")
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _read_manifest(archive, path)
            parameters = _decode_all(archive, manifest["parameters"])
            fitted = _decode_all(archive, manifest["fitted"])
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is not a model written by lvm.save, or is cut short ({error}); save it again."
        ) from error
    except _FormatError:
        raise
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        MemoryError,
        RuntimeError,
        zlib.error,
    ) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    return _build(manifest["class"], parameters, fitted, path)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its place at `path` only when complete.

    Parameters
    ----------
    path : str or path-like
        Where the file belongs.

    Yields
    ------
    binary file
        A temporary file in the same folder, removed if the body fails.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected the name of a file to write.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into; create it first.")
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _FormatError(ValueError):
    """The file is not what `load` reads; the message is complete."""


def _damaged(path: Path, what: str) -> _FormatError:
    return _FormatError(f"{path} is not a consistent lvm model, it was damaged or edited: {what}; save it again.")


def _names() -> str:
    *others, last = ESTIMATORS
    return f"{', '.join(others)} or {last}"


def _class(name: str) -> Any:
    return getattr(import_module(ESTIMATORS[name]), name)


def _is_fitted_name(name: str) -> bool:
    return name.isidentifier() and name.endswith("_") and not name.startswith("_")


# ----- values -----------------------------------------------------------------------------------------------------


def _encode(value: Any, where: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """Return a JSON value; arrays go into `arrays` and leave a reference."""
    if isinstance(value, Status):
        return {"status": value.name}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{where}/{index}", arrays) for index, item in enumerate(value)]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else {"float": repr(number)}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(item, f"{where}/{key}", arrays) for key, item in value.items()}}
    array = np.asarray(value)
    if array.dtype.kind in "OU" and array.ndim == 1 and all(isinstance(item, str) for item in array):
        return {"strings": [str(item) for item in array]}
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"cannot save {where.replace('/', ' ')} of type {type(value).__name__}; expected numbers, text, "
            "lists of those or numeric arrays; set it to one of them before saving."
        )
    member = f"{where}.npy"
    arrays[member] = array
    return {"array": member}


def _decode(archive: zipfile.ZipFile, value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(archive, item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "status":
        return Status[content]
    if kind == "float":
        return float(content)
    if kind == "dict":
        return {str(key): _decode(archive, item) for key, item in content.items()}
    if kind == "strings":
        if not all(isinstance(item, str) for item in content):
            raise ValueError("a list of strings holds something else")
        return np.array(content, dtype=object)
    if kind == "array":
        # Without a file name, numpy reads no more than the bytes at hand.
        return np.lib.format.read_array(io.BytesIO(archive.read(content)), allow_pickle=False)
    raise ValueError(f"a value of the unknown kind {kind!r}")


def _decode_all(archive: zipfile.ZipFile, values: Any) -> dict[str, Any]:
    return {name: _decode(archive, value) for name, value in values.items()}


# ----- the manifest and what it builds ----------------------------------------------------------------------------


def _read_manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    if MANIFEST not in archive.namelist() or archive.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
        raise _FormatError(f"{path} is a zip file but not a model written by lvm.save: it has no {MANIFEST}.")
    manifest = json.loads(archive.read(MANIFEST).decode("utf-8"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise _FormatError(f"{path} has the format {found!r}, expected {FORMAT!r}; give a file written by lvm.save.")
    version, writer = manifest.get("format_version"), manifest.get("lvm_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise _damaged(path, f"its format version is {version!r}")
    newer = f"it was written by lvm {writer}, and this is lvm {lvm.__version__}; upgrade lvm to load it."
    if version > FORMAT_VERSION:
        raise _FormatError(f"{path} has format version {version}, expected at most {FORMAT_VERSION}: {newer}")
    name = manifest.get("class")
    if not isinstance(name, str) or name not in ESTIMATORS:
        raise _FormatError(f"{path} holds a {name!r}, expected {_names()}: {newer}")
    unknown = sorted(set(manifest["parameters"]) - set(_class(name)._get_param_names()))
    if unknown:
        raise _FormatError(f"{path} has a parameter {unknown[0]!r} that {name} lacks: {newer}")
    return manifest


def _build(name: str, parameters: dict[str, Any], fitted: dict[str, Any], path: Path) -> Any:
    kind = _class(name)
    estimator = kind(**parameters)
    for attribute, value in fitted.items():
        if not _is_fitted_name(attribute) or hasattr(kind, attribute):
            raise _damaged(path, f"{attribute!r} is not a fitted attribute of {name}")
        setattr(estimator, attribute, value)
    if misfit := _misfit(estimator, fitted):
        raise _damaged(path, misfit)
    return estimator


def _pairs(values: Any, shapes: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield name, value and expected shape of the arrays in nested lists and dictionaries of shapes."""
    if isinstance(shapes, dict):
        for key, shape in shapes.items():
            value = values.get(key) if isinstance(values, dict) else None
            yield from _pairs(value, shape, f"{name}[{key!r}]" if name else key)
    elif isinstance(shapes, list):
        items = values if isinstance(values, list) and len(values) == len(shapes) else [None] * len(shapes)
        for place, (value, shape) in enumerate(zip(items, shapes, strict=True)):
            yield from _pairs(value, shape, f"{name}[{place}]")
    else:
        yield name, values, shapes


def _misfit(estimator: Any, fitted: dict[str, Any]) -> str | None:
    """Return how the fitted arrays fail to fit together, or None; the kernels check no bounds."""
    d = fitted.get("n_features_in_")
    if not isinstance(d, Integral) or d < 1:
        return f"n_features_in_ is {d!r}"
    K, mixes = np.size(fitted.get("weights_", ())), getattr(estimator, "_mixes", True)  # other models have no weights
    if mixes and K < 1:
        return "weights_ is missing"
    try:
        shapes = {**({"weights_": (K,)} if mixes else {}), **estimator._attribute_shapes(K)}
    except ValueError as error:  # an argument that decides the shapes is out of its range
        from lvm.families.registry import UnknownFamilyError

        if isinstance(error, UnknownFamilyError):  # the file is right, a package is missing
            raise
        return str(error)
    for attribute, value, expected in _pairs(fitted, shapes):
        array = np.array(value) if isinstance(value, float) and expected == () else value
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.shape != expected:
            found = f"shape {array.shape}" if isinstance(array, np.ndarray) else repr(array)
            return f"{attribute} should be floats of shape {expected}, got {found}"
        if not np.all(np.isfinite(array)):
            return f"{attribute} holds NaN or infinity"
    if mixes and not abs(fitted["weights_"].sum() - 1) < 1e-6:
        return f"weights_ sums to {fitted['weights_'].sum()}, not 1"
    names = fitted.get("feature_names_in_")
    if names is not None and np.shape(names) != (d,):
        return f"feature_names_in_ should have {d} names, got shape {np.shape(names)}"
    return None
