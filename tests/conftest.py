"""Shared set-up: where compiled kernels are kept, hypothesis profiles, and data."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]


# numba reads this when it is first imported; the library loads it no earlier than the first test module does. A folder
# beside the tests, for all workers of pytest-xdist.
PARENT = ROOT if os.access(ROOT, os.W_OK) else Path(tempfile.gettempdir())
os.environ.setdefault("NUMBA_CACHE_DIR", str(PARENT / ".numba_cache"))

COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=20, **COMMON)
settings.register_profile("ci", max_examples=20, derandomize=True, **COMMON)
settings.register_profile("thorough", max_examples=500, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


@pytest.fixture(scope="session")
def faithful() -> NDArray[np.float64]:
    """Old Faithful: 272 rows, 2 columns."""
    return np.loadtxt(ROOT / "tests" / "data" / "faithful.csv", delimiter=",", skiprows=1)


@pytest.fixture(scope="session")
def iris() -> NDArray[np.float64]:
    """Fisher's iris: 150 rows, 4 columns."""
    return np.loadtxt(ROOT / "tests" / "data" / "iris.csv", delimiter=",", skiprows=1)


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """Optima recorded from independent software, which are not part of the repository."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/reference with the recorded optima is not beside this repository")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder that holds data.csv, and is the working folder: for the command line."""
    from command_line import TABLE

    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("data.csv", index=False)
    return tmp_path


@pytest.fixture
def model(folder: Path) -> str:
    """A file with a mixture of two components, fitted to data.csv."""
    from command_line import TABLE

    import lvm

    path = folder / "model.lvm"
    lvm.save(lvm.GaussianMixture(2, random_state=0).fit(TABLE), path)
    return path.name
