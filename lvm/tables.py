"""Read the command line's data files, with errors that name column, row and value; write its results whole or not."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from pandas.errors import EmptyDataError, ParserError, ParserWarning

from lvm.datasets import LOADERS
from lvm.persistence import atomic_file

# Every digit counts. From 3.1 on, pandas reads no other way and warns of this argument.
EXACT: dict[str, Any] = (
    {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}
)
SUFFIXES = (".csv", ".csv.gz", ".parquet")


class DataFile:
    """A table, and where it came from; rows count from 0.

    Parameters
    ----------
    frame : DataFrame
        The table.
    source : str
        What the user called it.
    """

    def __init__(self, frame: pd.DataFrame, source: str) -> None:
        self.frame = frame
        self.source = source
        self.names = [str(name) for name in frame.columns]
        frame.columns = pd.Index(self.names)

    def __len__(self) -> int:
        return len(self.frame)

    def features(
        self, chosen: Sequence[str] | None, apart: Sequence[str] = (), owner: str = "", allow_missing: bool = False
    ) -> pd.DataFrame:
        """Return columns of finite numbers.

        Parameters
        ----------
        chosen : sequence of str, optional
            Their names; all columns by default.
        apart : sequence of str
            Columns with another role, which are no features.
        owner : str
            Who chose the columns, for the message about one that is missing.
        allow_missing : bool
            Whether cells may be blank, and are NaN then.

        Raises
        ------
        ValueError
            If a column is missing, has no name, or holds anything but finite numbers.
        """
        names = self._chosen(chosen, apart, owner)
        if chosen is None:
            self._refuse_text(names)
        frame = pd.DataFrame({name: self.numbers(name, owner, np.nan if allow_missing else None) for name in names})
        return frame if frame.dtypes.nunique() == 1 else frame.astype(np.float64)

    def categories(self, chosen: Sequence[str] | None, apart: Sequence[str] = (), owner: str = "") -> pd.DataFrame:
        """Return columns of categories as they were read: text, numbers, or blank.

        Parameters
        ----------
        chosen, apart, owner
            As in `features`.

        Raises
        ------
        ValueError
            If a column is missing or has no name.
        """
        frame = self.frame[self._chosen(chosen, apart, owner)].copy()
        for name in frame:
            present = frame[name].dropna()
            if present.dtype == np.float64 and (present == np.floor(present)).all() and (present.abs() < 2**53).all():
                frame[name] = frame[name].astype("Int64")  # pandas reads integers beside a blank as floats
        return frame

    def _chosen(self, chosen: Sequence[str] | None, apart: Sequence[str], owner: str) -> list[str]:
        """Return the names of the columns chosen, those of all without another role by default."""
        if chosen is None:
            names = [name for name in self.names if name not in apart]
            self._refuse_unnamed(names)
        else:
            names = list(chosen)
            twice = [name for name in names if names.count(name) > 1 or name in apart]
            if twice:
                raise ValueError(f"column {twice[0]!r} is chosen twice; name each column once.")
            for name in names:
                self._refuse_unknown(name, owner)
        if not names:
            raise ValueError(f"{self.source} has no columns left to fit; it has {_listed(self.names)}.")
        return names

    def numbers(self, name: str, owner: str = "", blank: float | None = None) -> NDArray[Any]:
        """Return one column as finite numbers; `blank` stands for empty cells, which are refused without it."""
        self._refuse_unknown(name, owner)
        column = self.frame[name]
        if not _is_numeric(column):
            raise ValueError(f"column {name!r} of {self.source} {self._text(column)}; correct it or leave it out.")
        missing = np.flatnonzero(column.isna())
        if len(missing):
            if blank is None:
                raise ValueError(
                    f"column {name!r} of {self.source} has no value (empty or NaN) at {self._place(int(missing[0]))}; "
                    "remove or impute such rows first."
                )
            column = column.astype(np.float64).fillna(blank)
        values = column.to_numpy()
        values = values.astype(np.float64) if values.dtype.kind == "O" else values
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise ValueError(
                f"column {name!r} of {self.source} holds {values[infinite[0]]} at {self._place(int(infinite[0]))}; "
                "expected finite numbers."
            )
        return values

    def weights(self, name: str) -> NDArray[np.float64]:
        """Return row weights, >= 0."""
        values = self.numbers(name).astype(np.float64)
        self._refuse(values < 0, name, values, "expected weights >= 0")
        return values

    def exposures(self, name: str) -> NDArray[np.float64]:
        """Return exposures, > 0."""
        values = self.numbers(name).astype(np.float64)
        self._refuse(values <= 0, name, values, "expected exposures > 0")
        return values

    def labels(self, name: str) -> NDArray[np.int64]:
        """Return component labels, -1 where the cell is blank."""
        values = self.numbers(name, blank=-1).astype(np.float64)
        rule = "expected labels 0, 1, 2 ..., blank or -1 where unknown"
        self._refuse((values < -1) | (values != np.floor(values)), name, values, rule)
        return values.astype(np.int64)

    def _refuse_unknown(self, name: str, owner: str) -> None:
        if name not in self.names:
            raise ValueError(f"{self.source} has no column {name!r}{owner}; it has {_listed(self.names)}.")

    def _refuse(self, bad: NDArray[np.bool_], name: str, values: NDArray[Any], rule: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(f"column {name!r} of {self.source} holds {values[row]:g} at {self._place(row)}; {rule}.")

    def _refuse_unnamed(self, names: list[str]) -> None:
        unnamed = [name for name in names if name.startswith("Unnamed: ")]
        if unnamed:
            number = self.names.index(unnamed[0]) + 1
            raise ValueError(
                f"column {number} of {self.source} has no name (a row number?); name it in the header or choose "
                f"columns: --columns {_option([name for name in names if name not in unnamed])}."
            )

    def _refuse_text(self, names: list[str]) -> None:
        text = [name for name in names if not _is_numeric(self.frame[name])]
        if not text:
            return
        numeric = [name for name in names if name not in text]
        remedy = f"choose numeric columns: --columns {_option(numeric)}" if numeric else "is its separator a comma?"
        first = self._text(self.frame[text[0]])
        others = f" (nor are {_listed(text[1:])} numeric)" if len(text) > 1 else ""
        raise ValueError(f"column {text[0]!r} of {self.source} {first}{others}; correct it, or {remedy}.")

    def _text(self, column: pd.Series[Any]) -> str:
        """Say what a column holds that is not a number, and where."""
        if not (types.is_string_dtype(column) or types.is_object_dtype(column)):
            return f"holds {column.dtype} values, not numbers"
        present = column.notna().to_numpy()
        odd = np.flatnonzero(pd.to_numeric(column, errors="coerce").isna().to_numpy() & present)
        row = int(odd[0]) if len(odd) else int(present.argmax())
        return f"holds text: {column.iloc[row]!r} at {self._place(row)}"

    def _place(self, row: int) -> str:
        """Name a row, with its line in the file where blank lines and quoted line ends leave no doubt."""
        path = Path(self.source)
        if path.suffix.lower() == ".csv" and path.is_file():
            with path.open("rb") as file:
                lines = sum(1 for line in file)
            if lines == len(self) + 1:
                return f"row {row} (line {row + 2})"
        return f"row {row}"


def read(source: str, text: Sequence[str] = ()) -> DataFile:
    """Read a CSV or Parquet file, or a data set shipped with the package.

    Parameters
    ----------
    source : str
        Path ending in .csv, .csv.gz or .parquet; or "faithful", "iris" or "digits".
    text : sequence of str
        Columns of a CSV file that are text even where all of their cells look like numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, cannot be parsed, or has no rows.
    """
    path = Path(source)
    if source in LOADERS:
        bunch = LOADERS[source]()
        return DataFile(pd.DataFrame(bunch.data, columns=list(bunch.feature_names)), source)
    if path.is_dir():
        raise ValueError(f"{source} is a folder; expected a file ending in {', '.join(SUFFIXES)}.")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {source}, nor a data set of that name ({', '.join(LOADERS)}).")
    if not source.lower().endswith(SUFFIXES):
        raise ValueError(f"{source} is of an unknown kind; expected a file ending in {', '.join(SUFFIXES)}.")
    frame = _read_parquet(path) if source.lower().endswith(".parquet") else _read_csv(path, text)
    if len(frame) == 0:
        raise ValueError(f"{source} has no rows; expected column names and at least one row.")
    return DataFile(frame, source)


def _read_csv(path: Path, text: Sequence[str]) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # rows longer than the header would lose cells
            frame: pd.DataFrame = pd.read_csv(
                path,
                encoding="utf-8-sig",
                skipinitialspace=True,
                index_col=False,
                low_memory=False,
                dtype=dict.fromkeys(text, str),
                **EXACT,
            )
    except EmptyDataError:
        raise ValueError(f"{path} is empty; expected a line of column names and at least one row.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None
    except (ParserError, ParserWarning) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from None
    except (EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    header = pd.to_numeric(pd.Series(frame.columns), errors="coerce")
    if header.notna().all() and header.tolist() != list(range(len(header))):  # pandas' own default names
        raise ValueError(f"the first line of {path} holds numbers; expected column names: add a header line.")
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise ValueError(f"{path} needs pyarrow to be read: pip install 'lvm[cli]'.") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from None
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{path} has two columns named {twice[0]!r}; rename one.")
    return frame


def assignments(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64] | None = None, noise: bool = False
) -> pd.DataFrame:
    """Return row, component, its probability, and the probability of every component.

    Parameters
    ----------
    probabilities : ndarray of shape (n, K)
        Posterior probabilities of the components.
    labels : ndarray of shape (n,), optional
        Known components, -1 where unknown: those rows belong to them for certain.
    noise : bool
        Whether the last component is noise, whose number is -1.
    """
    n, K = probabilities.shape
    if labels is not None:
        known = labels >= 0
        probabilities = probabilities.copy()
        probabilities[known] = np.equal.outer(labels[known], np.arange(K))
    best = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {"row": np.arange(n), "component": best, "probability": probabilities[np.arange(n), best]}
    names = [f"component_{k}" for k in range(K)]
    if noise:
        columns["component"], names[-1] = np.where(best == K - 1, -1, best), "noise"
    columns |= {name: probabilities[:, k] for k, name in enumerate(names)}
    return pd.DataFrame(columns)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV or Parquet, by the name's ending; whole, or not at all."""
    if not path.name.lower().endswith((".csv", ".parquet")):
        raise ValueError(f"cannot write {path}; expected a name ending in .csv or .parquet.")
    with atomic_file(path) as file:
        if path.name.lower().endswith(".csv"):
            frame.to_csv(file, index=False)
        else:
            frame.to_parquet(file, index=False)


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` at the end; if the body fails, none does.

    Parameters
    ----------
    folder : Path
        Where the files belong. Made if need be; files of the same names are replaced.

    Raises
    ------
    FileNotFoundError
        If the folder's parent does not exist.
    ValueError
        If the folder is a file, or holds a folder where a file belongs.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder for the results.")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.parent} to make {folder.name} in; create it first.")
    exists = folder.is_dir()
    # Inside an existing folder, which may be a mount point or the only place where one may write.
    temporary = (folder if exists else folder.parent) / f".{folder.name}.{token_hex(4)}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        if exists:
            moves = [(file, folder / file.name) for file in sorted(temporary.iterdir())]
            for _, target in moves:
                if target.is_dir():
                    raise ValueError(f"{target} is a folder, where a file of that name is to be written.")
            for file, target in moves:
                os.replace(file, target)
        else:
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_numeric(column: pd.Series[Any]) -> bool:
    return bool(types.is_numeric_dtype(column) or types.is_bool_dtype(column))


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _option(names: Sequence[str], most: int = 8) -> str:
    return ",".join(names[:most]) + (",..." if len(names) > most else "")
