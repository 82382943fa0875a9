"""The command line's mistakes: one line that says what and where, exit code 2, and nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import fails, listing, run

from lvm import tables
from lvm.cli_families import FAMILIES

pytestmark = pytest.mark.usefixtures("folder")


FILES = {
    "empty.csv": "",
    "header.csv": "a,b\n",
    "text.csv": "a,b,kind\n1,2,x\n3,4,y\n",
    "typo.csv": "a,b\n1,2\n3,4o\n5,6\n",
    "words.csv": "kind;other\nx;y\n",
    "gap.csv": "a,b\n1,2\n3,\n5,6\n",
    "infinite.csv": "a,b\n1,2\n-inf,4\n5,6\n",
    "long.csv": "a,b\n1,2\n1,2,3\n",
    "longer.csv": "a,b\n1,2,3\n1,2,3\n",
    "headerless.csv": "1.5,2\n3,4\n5,6\n",
    "unnamed.csv": ",a,b\n1,5,2\n2,3,4\n",
    "weights.csv": "a,w,zero\n1,1,0\n2,-3,0\n4,1,0\n",
    "labels.csv": "a,kind,half,name\n1,0,0.5,x\n2,2,1,\n4,,,y\n",
    "other.txt": "a,b\n1,2\n",
    "bad.parquet": "not parquet",
    "bad.lvm": "not a model",
}

MISTAKES: list[tuple[list[str], str]] = [
    (["fit", "absent.csv"], "there is no file absent.csv, nor a data set of that name (faithful, iris, digits)."),
    (["fit", "."], ". is a folder; expected a file ending in .csv, .csv.gz, .parquet."),
    (["fit", "other.txt"], "other.txt is of an unknown kind; expected a file ending in .csv, .csv.gz, .parquet."),
    (["fit", "empty.csv"], "empty.csv is empty; expected a line of column names and at least one row."),
    (["fit", "header.csv"], "header.csv has no rows; expected column names and at least one row."),
    (["fit", "latin.csv"], "latin.csv is not text in UTF-8"),
    (
        ["fit", "long.csv"],
        "long.csv cannot be read as CSV: Error tokenizing data. C error: Expected 2 fields in line 3",
    ),
    (
        ["fit", "longer.csv"],
        "longer.csv cannot be read as CSV: Length of header or names does not match length of data",
    ),
    (["fit", "headerless.csv"], "the first line of headerless.csv holds numbers; expected column names: add a header"),
    (["fit", "unnamed.csv"], "column 1 of unnamed.csv has no name (a row number?); name it in the header or choose "),
    (["fit", "bad.parquet"], "bad.parquet cannot be read as Parquet: "),
    (
        ["fit", "text.csv"],
        "column 'kind' of text.csv holds text: 'x' at row 0 (line 2); correct it, or choose numeric columns: "
        "--columns a,b.",
    ),
    (["fit", "typo.csv"], "column 'b' of typo.csv holds text: '4o' at row 1 (line 3); correct it, or choose numeric"),
    (["fit", "typo.csv", "--columns", "b"], "column 'b' of typo.csv holds text: '4o' at row 1 (line 3); correct it or"),
    (
        ["fit", "words.csv"],
        "column 'kind;other' of words.csv holds text: 'x;y' at row 0 (line 2); correct it, or is its",
    ),
    (["fit", "dates.parquet"], "column 'when' of dates.parquet holds datetime64"),
    (
        ["fit", "gap.csv", "-k", "1", "--family", "multinomial"],
        "column 'b' of gap.csv has no value (empty or NaN) at row 1 (line 3); remove or impute such rows first.",
    ),
    (["fit", "infinite.csv"], "column 'a' of infinite.csv holds -inf at row 1 (line 3); expected finite numbers."),
    (["fit", "data.csv", "--columns", "a"], "data.csv has no column 'a'; it has 'height', 'width [cm]'."),
    (["fit", "data.csv", "--columns", "height,height"], "column 'height' is chosen twice; name each column once."),
    (["fit", "data.csv", "--weight-column", "w"], "data.csv has no column 'w'; it has 'height', 'width [cm]'."),
    (["fit", "weights.csv", "--weight-column", "w"], "column 'w' of weights.csv holds -3 at row 1 (line 3); expected"),
    (
        ["fit", "weights.csv", "-k1", "--weight-column", "zero"],
        "for every row; at least one row needs a positive weight.",
    ),
    (
        ["fit", "labels.csv", "--label-column", "half", "--columns", "a"],
        "column 'half' of labels.csv holds 0.5 at row 0",
    ),
    (["fit", "labels.csv", "--label-column", "name", "--columns", "a"], "column 'name' of labels.csv holds text: 'x'"),
    (
        ["fit", "labels.csv", "--label-column", "kind", "--columns", "a", "-k", "2:3"],
        "column 'kind' of labels.csv has labels up to 2, so -k must be at least 3, got 2.",
    ),
    (["fit", "gap.csv", "--columns", "a", "-k", "4"], "-k asks for 4 components, but gap.csv has 3 rows; lower -k."),
    (["fit", "data.csv", "-k", "two"], "-k must look like 3, 1:6 or 2,4,8, got 'two'."),
    (["fit", "data.csv", "-k", "6:1"], "-k must name numbers from 1 up, a range from low to high, got '6:1'."),
    (["fit", "data.csv", "-k", "0"], "-k must name numbers from 1 up, a range from low to high, got '0'."),
    (["fit", "data.csv", "-k", "1:99999999999"], "-k must name at most 10,000 numbers, got '1:99999999999'."),
    (
        ["fit", "data.csv", "--family", "cauchy"],
        f"--family must be one of {', '.join(FAMILIES)}, got 'cauchy'.",
    ),
    (
        ["fit", "data.csv", "--covariance", "full,round"],
        "--covariance must be of full, tied, diag, spherical, EII, VII, ",
    ),
    (
        ["fit", "data.csv", "--family", "bernoulli", "--covariance", "full"],
        "--covariance is for --family gaussian or student_t, got --family bernoulli; leave it out.",
    ),
    (
        ["fit", "data.csv", "--alpha", "2"],
        "--alpha is for --family categorical or bernoulli or multinomial or mixed, got",
    ),
    (["fit", "data.csv", "--family", "bernoulli", "-k1"], "X must be 0 or 1 for Bernoulli components; got "),
    (["fit", "data.csv", "--family", "multinomial", "-k1"], "X must be counts >= 0"),
    (
        ["fit", "data.csv", "--criterion", "best"],
        "criterion must be one of 'bic', 'aic', 'icl', 'heldout', got 'best'.",
    ),
    (["fit", "data.csv", "--tol=-1"], "tol must be a finite number >= 0, got -1.0."),
    (["fit", "data.csv", "--reg-covar=-1"], "reg_covar must be a finite number >= 0, got -1.0."),
    (["fit", "data.csv", "--n-init=0"], "n_init must be an integer >= 1, got 0."),
    (["fit", "data.csv", "--jobs=0"], "n_jobs=0 has no meaning"),
    (["fit", "data.csv", "--plot"], "--plot needs a folder to draw into; give --out too."),
    (["fit", "data.csv", "--out", "other.txt"], "other.txt is a file; expected a folder for the results."),
    (["fit", "data.csv", "--out", "no/where"], "to make where in; create it first."),
    (["fit", "data.csv", "--max-iter", "many"], "Invalid value for '--max-iter'"),
    (["fit", "data.csv", "--acceleration", "fast"], "acceleration"),
    (["fit", "data.csv", "--colour"], "No such option: --colour"),
    (["fit"], "Missing argument"),
    (["guess"], "No such command 'guess'."),
    (["predict", "absent.lvm", "data.csv"], "there is no model file absent.lvm; check the path, or write it with"),
    (["predict", "bad.lvm", "data.csv"], "bad.lvm is not a model written by lvm.save, or is cut short"),
    (["predict", "data.csv", "data.csv"], "data.csv is not a model written by lvm.save"),
    (["predict", "model.lvm", "absent.csv"], "there is no file absent.csv"),
    (
        ["predict", "model.lvm", "gap.csv"],
        "gap.csv has no column 'height' that the model needs; it has 'a', 'b'.",
    ),
    (["predict", "model.lvm", "data.csv", "--out", "p.txt"], "cannot write p.txt; expected a name ending in .csv or"),
    (["predict", "model.lvm", "data.csv", "--out", "no/p.csv"], "there is no folder no to write p.csv into; create it"),
    (["score", "bad.lvm", "data.csv"], "bad.lvm is not a model written by lvm.save"),
    (["sample", "bad.lvm"], "bad.lvm is not a model written by lvm.save"),
    (["sample", "model.lvm", "-n", "0"], "Invalid value for '--rows' / '-n'"),
]


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_mistakes_are_one_line_and_leave_nothing(arguments: list[str], message: str, folder: Path) -> None:
    for name, content in FILES.items():
        Path(name).write_text(content)
    Path("latin.csv").write_bytes("höhe\n1\n".encode("latin-1"))
    pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}).to_parquet("dates.parquet")
    before = listing(folder)
    if arguments[0] == "fit" and "--out" not in arguments and "--plot" not in arguments and len(arguments) > 1:
        arguments = [*arguments, "--out", "results"]
    assert message in fails(*arguments)
    assert listing(folder) == before


def test_a_failure_while_writing_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "write", full)
    for out in ("new", "old"):
        if out == "old":
            (folder / "old").mkdir()
            (folder / "old" / "model.lvm").write_text("old")
        result = run("fit", "data.csv", "-k", "1", "--out", out, "--quiet")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "error: [Errno 28] No space left on device\n"
    assert listing(folder) == ["data.csv", "old"]
    assert listing(folder / "old") == ["model.lvm"]
    assert (folder / "old" / "model.lvm").read_text() == "old"


def test_a_folder_in_the_place_of_a_file(folder: Path) -> None:
    (folder / "out" / "model.lvm").mkdir(parents=True)
    result = run("fit", "data.csv", "-k", "1", "--out", "out", "--quiet")
    assert result.exit_code == 2
    assert "model.lvm is a folder, where a file of that name is to be written" in result.stderr
    assert listing(folder / "out") == ["model.lvm"]


def test_blank_lines_leave_the_line_unsaid() -> None:
    Path("blank.csv").write_text("a\n1\n\nx\n")
    assert "'x' at row 1;" in fails("fit", "blank.csv")


def test_a_programming_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(tables, "read", broken)
    assert isinstance(run("fit", "data.csv").exception, ZeroDivisionError)
