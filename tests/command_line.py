"""Running the command line in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from lvm.cli import app

RNG = np.random.default_rng(11)
TABLE = pd.DataFrame(
    {
        "height": np.concatenate([RNG.normal(0, 1, 30), RNG.normal(9, 1, 30)]),
        "width [cm]": np.concatenate([RNG.normal(0, 1, 30), RNG.normal(9, 1, 30)]),
    }
)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="python -m lvm")


def ran(*arguments: Any) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


def fails(*arguments: Any) -> str:
    """Return the one line on stderr of a run that must fail."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    return str(result.stderr[len("error: ") : -1])


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
