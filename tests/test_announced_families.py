"""Families that installed packages announce: found by name, saved, listed and fitted by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, ran
from numpy.testing import assert_allclose, assert_array_equal
from zero_inflated_poisson import ZeroInflatedPoisson

import lvm
from lvm import families
from lvm.families.registry import announced, family_by_name

SOURCE = (Path(__file__).parent / "zero_inflated_poisson.py").read_text(encoding="utf-8")
FAMILY = ZeroInflatedPoisson()
TRUE = lvm.MixtureParams(
    np.array([0.6, 0.4]), FAMILY.params(shares=[[0.5, 0.1], [0.2, 0.6]], rates=[[2.0, 9.0], [7.0, 3.0]])
)
X, _ = lvm.Mixture(FAMILY).sample(TRUE, 1000, np.random.RandomState(0))

ENTRY_POINTS = """[lvm.families]
zip = zip_family:ZeroInflatedPoisson
poisson = zip_family:ZeroInflatedPoisson
absent = zip_family:Missing
broken = broken_family:Family
unfinished = unfinished_family:Unfinished
nameless = nameless_family:FAMILY
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder that holds an installed package with families, good and bad."""
    folder = tmp_path / "site"
    information = folder / "zipfam-1.5.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: zipfam\nVersion: 1.5\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "zip_family.py").write_text(SOURCE)
    (folder / "broken_family.py").write_text("import no_such_module\n")
    (folder / "unfinished_family.py").write_text("class Unfinished:\n    def log_density(self, X, params, out): ...\n")
    nameless = SOURCE.replace('    parameters: ClassVar = {"shares": "Kd", "rates": "Kd"}\n', "")
    assert nameless != SOURCE
    (folder / "nameless_family.py").write_text(nameless + "\n\nFAMILY = ZeroInflatedPoisson()\n")
    return folder


@pytest.fixture
def installed(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install that package for this process."""
    monkeypatch.syspath_prepend(package)
    yield package
    for name in ("zip_family", "broken_family", "unfinished_family", "nameless_family"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("installed")
def test_announced_families_are_found_by_name(tmp_path: Path) -> None:
    assert set(announced()) == {"zip", "absent", "broken", "unfinished", "nameless"}
    assert isinstance(family_by_name("poisson"), families.Poisson)  # the library's own comes first
    mixture = lvm.MixtureModel("zip", 2, random_state=0).fit(X)
    assert_allclose(mixture.loglik_, lvm.MixtureModel(FAMILY, 2, random_state=0).fit(X).loglik_, rtol=1e-12)
    lvm.save(mixture, tmp_path / "zip.lvm")
    loaded = lvm.load(tmp_path / "zip.lvm")
    assert_array_equal(loaded.predict_proba(X), mixture.predict_proba(X))
    assert_array_equal(loaded.components_.shares, mixture.shares_)


@pytest.mark.usefixtures("installed")
def test_the_first_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    (other / "later-2.dist-info").mkdir(parents=True)
    (other / "later-2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: later\nVersion: 2\n")
    (other / "later-2.dist-info" / "entry_points.txt").write_text("[lvm.families]\nzip = no_such_module:A\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(other)])
    assert len([point for point in metadata.entry_points(group="lvm.families") if point.name == "zip"]) == 2
    assert announced()["zip"].value == "zip_family:ZeroInflatedPoisson"


def test_a_model_needs_its_package(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zip.lvm"
    lvm.save(lvm.MixtureModel("zip", 2, random_state=0).fit(X), path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(installed)])
    with pytest.raises(ValueError, match=r"^family 'zip' is not installed: .*install the package that announces it"):
        lvm.load(path)
    assert fails("predict", path, "no.csv").startswith("family 'zip' is not installed")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"family 'broken' of zipfam 1\.5 cannot be used, broken_family:Family raises ModuleNotFoundError"),
        ("absent", r"zip_family:Missing raises AttributeError"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_a_broken_package_says_so(name: str, message: str) -> None:
    with pytest.raises(ImportError, match=message):
        lvm.MixtureModel(name, 2).fit(X)


@pytest.mark.usefixtures("installed")
def test_nameless_parameters_cannot_be_saved(tmp_path: Path) -> None:
    mixture = lvm.MixtureModel("nameless", 2, random_state=0, max_iter=2, tol=0).fit(X)
    assert mixture.components_.rates.shape == (2, 2)
    with pytest.raises(TypeError, match=r"cannot save a mixture of ZeroInflatedPoisson, whose parameters have no na"):
        lvm.save(mixture, tmp_path / "model.lvm")


@pytest.mark.usefixtures("installed")
def test_the_command_line_lists_them() -> None:
    lines = {line.split()[0]: line for line in ran("families").splitlines() if line.strip()}
    assert "Counts that are 0 for two reasons" in lines["zip"]
    assert "(zipfam 1.5)" in lines["zip"]
    assert "MixtureModel" in lines["zip"]
    assert "shares, rates" in lines["zip"]
    assert "cannot be used: ModuleNotFoundError: No module named 'no_such_module'" in lines["broken"]
    assert "missing zero_stats, accumulate" in lines["unfinished"]
    assert "PoissonMixture" in lines["poisson"]
    assert "gaussian" in lines


@pytest.mark.usefixtures("installed")
def test_the_command_line_fits_them(tmp_path: Path) -> None:
    data, out = tmp_path / "data.csv", tmp_path / "out"
    np.savetxt(data, X, fmt="%d", delimiter=",", header="a,b", comments="")
    printed = ran("fit", data, "--family", "zip", "-k", "2", "--out", out)
    assert "MixtureModel, K = 2" in printed
    assert "share, rate" in printed
    assigned = np.loadtxt(out / "assignments.csv", delimiter=",", skiprows=1)[:, 1]
    again = ran("predict", out / "model.lvm", data)
    assert_array_equal(np.array([line.split(",")[1] for line in again.splitlines()[1:]], float), assigned)
    assert ran("sample", out / "model.lvm", "-n", "3").splitlines()[0] == "a,b,component"
    printed = ran("fit", data, "--family", "nameless", "-k", "2")
    assert "MixtureModel" in printed
    assert "per column" not in printed
    message = fails("fit", data, "--family", "unfinished", "-k", "2")
    assert message.startswith("--family unfinished of zipfam 1.5 cannot be used: TypeError: Unfinished must implement")
    assert "got 'nothing'" in fails("fit", data, "--family", "nothing")
    assert "zip" in fails("fit", data, "--family", "nothing")
    assert "leave it out" in fails("fit", data, "--family", "zip", "--alpha", "2")
    message = fails("fit", data, "--family", "nameless", "-k", "2", "--quiet", "--out", tmp_path / "none")
    assert "whose parameters have no names" in message
    assert not (tmp_path / "none").exists()


def test_another_process_finds_them(package: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run(
        [sys.executable, "-m", "lvm", "families"], env=environment, capture_output=True, text=True, check=True
    )
    assert "(zipfam 1.5)" in done.stdout
    assert "No module named 'no_such_module'" in done.stdout
    assert done.stderr == ""


@pytest.mark.usefixtures("installed")
def test_a_block_may_have_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture = lvm.MixedMixture([("counts", "zip", [0, 1])], 2, random_state=0).fit(X)
    assert mixture.parameters_["counts"]["shares"].shape == (2, 2)
