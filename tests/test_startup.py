"""Start-up: where compiled kernels are kept, whatever folders can be written, and the warm-up that fills the cache."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ran

import lvm
from lvm import _disk, _jit
from lvm.kernels.guesses import pays
from lvm.kernels.moments import column_moments
from lvm.warmup import Warmup, fill_cache

NOWHERE = "/proc/nonexistent"  # where not even root can make a folder

# Runs one kernel in a process of its own; says where it is kept and how much was compiled.
ONE_KERNEL = """
import json, os, shutil, sys, tempfile
{before}
import numpy as np
from lvm import _disk, _jit
from lvm.kernels.moments import column_moments
folder = _disk.cache_folder()
{between}
mean, variance = np.empty(2), np.empty(2)
with _jit.compilations() as events:
    column_moments(_jit.canonical([[1.0, 2.0], [3.0, 2.0]]), _jit.canonical([1.0, 1.0]), mean, variance)
assert (mean.tolist(), variance.tolist()) == ([2.0, 2.0], [1.0, 0.0])
print(json.dumps([folder and str(folder), len(events), _jit.__file__]))
"""


class Installation:
    """A copy of the package, and processes that import it."""

    def __init__(self, home: Path) -> None:
        self.package = home / "site" / "lvm"
        self.temporary = home / "tmp"
        self.temporary.mkdir()
        shutil.copytree(Path(lvm.__file__).parent, self.package, ignore=shutil.ignore_patterns("__pycache__"))

    def make_read_only(self) -> None:
        """Put a file where Python and numba want a folder: permissions would not stop root."""
        for folder in (self.package, *(path for path in self.package.iterdir() if path.is_dir())):
            (folder / "__pycache__").touch()

    def run(self, before: str = "", between: str = "", **variables: str) -> tuple[Path | None, int]:
        kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA")}
        environment = {**kept, "HOME": NOWHERE, "TMPDIR": str(self.temporary), "PYTHONPATH": str(self.package.parent)}
        done = subprocess.run(
            [sys.executable, "-c", ONE_KERNEL.format(before=before, between=between)],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            cwd=self.temporary,
        )
        assert done.returncode == 0, done.stderr
        folder, n_events, file = json.loads(done.stdout)
        assert Path(file).parent == self.package
        return None if folder is None else Path(folder), n_events


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


pytestmark = pytest.mark.skipif(os.name == "nt", reason="folders are made unusable in Unix's ways")


# ----- which folder -------------------------------------------------------------------------------------------


def test_an_installed_package_keeps_its_kernels_beside_it(installed: Installation) -> None:
    folder, n_compiled = installed.run()
    assert folder is not None
    assert folder.parent == installed.package / "__pycache__"
    assert n_compiled > 0
    assert installed.run() == (folder, 0)


def test_the_folder_that_the_user_names_comes_first(installed: Installation, tmp_path: Path) -> None:
    folder, _ = installed.run(NUMBA_CACHE_DIR=str(tmp_path / "new" / "cache"))
    assert folder is not None
    assert folder.parent == tmp_path / "new" / "cache"
    assert list(folder.rglob("*.nbi"))
    assert installed.run(NUMBA_CACHE_DIR=str(tmp_path / "new" / "cache")) == (folder, 0)


def test_a_named_folder_that_cannot_be_written_is_passed_over(installed: Installation) -> None:
    folder, _ = installed.run(NUMBA_CACHE_DIR=NOWHERE)
    assert folder is not None
    assert folder.parent == installed.package / "__pycache__"


def test_read_only_package(installed: Installation, tmp_path: Path) -> None:
    """The user's own folder serves, then one for temporary files, in the next process too."""
    installed.make_read_only()
    (tmp_path / "home").mkdir()
    folder, _ = installed.run(HOME=str(tmp_path / "home"))
    assert folder is not None
    assert (tmp_path / "home") in folder.parents

    folder, n_compiled = installed.run()
    assert folder is not None
    assert folder.parent == installed.temporary / f"lvm-{os.getuid()}"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert n_compiled > 0
    assert installed.run() == (folder, 0)


def test_no_folder_at_all(installed: Installation) -> None:
    installed.make_read_only()
    folder, n_compiled = installed.run(f"tempfile.tempdir = {NOWHERE!r}", NUMBA_CACHE_DIR=NOWHERE)
    assert folder is None
    assert n_compiled > 0


def test_a_temporary_folder_that_others_may_write_is_not_trusted(installed: Installation) -> None:
    installed.make_read_only()
    folder = installed.temporary / f"lvm-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert installed.run()[0] is None
    folder.rmdir()
    folder.symlink_to(installed.temporary)
    assert installed.run()[0] is None


def test_no_folder_named_tilde_without_a_home(installed: Installation) -> None:
    installed.make_read_only()
    folder, _ = installed.run("os.path.expanduser = lambda path: path")
    assert folder is not None
    assert folder.parent.parent == installed.temporary
    assert not (installed.temporary / "~").exists()


def test_a_full_folder_that_is_read_only_is_copied(installed: Installation, tmp_path: Path) -> None:
    given = tmp_path / "image"
    original, _ = installed.run(NUMBA_CACHE_DIR=str(given))
    read_only = f"""
original = tempfile.TemporaryFile
def refuse(*args, dir=None, **kwargs):
    if str(dir).startswith({str(given)!r}):
        raise PermissionError(dir)
    return original(*args, dir=dir, **kwargs)
tempfile.TemporaryFile = refuse
"""
    installed.make_read_only()
    folder, n_compiled = installed.run(read_only, NUMBA_CACHE_DIR=str(given))
    assert folder is not None
    assert original is not None
    assert folder.name == original.name
    assert folder.parent.parent == installed.temporary
    assert n_compiled == 0
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


@pytest.mark.parametrize("before", ["shutil.rmtree(folder)", "shutil.rmtree(folder); open(folder, 'w').close()"])
def test_a_cache_that_vanishes_is_no_error(installed: Installation, before: str) -> None:
    folder, n_compiled = installed.run(between=before)
    assert folder is not None
    assert n_compiled > 0


def test_a_changed_helper_changes_the_folder(installed: Installation) -> None:
    """numba would look at the file of the kernel alone."""
    one, _ = installed.run()
    with (installed.package / "kernels" / "triangular.py").open("a") as source:
        source.write("# changed\n")
    two, n_compiled = installed.run()
    assert one != two
    assert n_compiled > 0


def test_installations_of_the_same_sources_share_a_folder(tmp_path: Path) -> None:
    """Wherever they are; one with other sources has its own."""
    homes = [tmp_path / name for name in ("one", "two", "three")]
    for home in homes:
        home.mkdir()
    one, two, three = map(Installation, homes)
    with (three.package / "kernels" / "moments.py").open("a") as source:
        source.write("# changed\n")
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    folder, n_compiled = one.run(**cache)
    assert n_compiled > 0
    assert two.run(**cache) == (folder, 0)
    other, n_compiled = three.run(**cache)
    assert other != folder
    assert n_compiled > 0


def test_files_that_were_not_hashed_are_numbas_business() -> None:
    """In a zip file, or without a source: their folder would not tell them apart."""
    package, function = Path(_disk.__file__).parent, column_moments.py_func  # type: ignore[attr-defined]
    assert _disk._Locator.from_function(function, function.__code__.co_filename) is not None
    for path in ("site.zip/lvm/kernels/moments.py", package / "kernels" / "deeper" / "moments.py", package / "em.py"):
        assert _disk._Locator.from_function(function, str(path)) is None


def test_a_file_of_another_signature_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that save at the same time, one may have the file that the other's index names."""
    kernel: Any = column_moments
    column_moments(_jit.canonical([[1.0], [3.0]]), _jit.canonical([1.0, 1.0]), np.empty(1), np.empty(1))
    cache, context, signature = kernel._cache, kernel.targetctx, tuple(kernel.signatures[0])
    key = cache._index_key(signature, context.codegen())
    monkeypatch.setattr(cache, "_index_key", lambda *_: key)
    assert cache.load_overload(signature, context) is not None
    assert cache.load_overload(signature[::-1], context) is None


def test_a_helper_answers_calls_from_python_also_where_it_was_pickled() -> None:
    """Though numba passes over what takes them when it compiles one for a kernel."""
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)(1.0, 8))"
    assert pays(1.0, 8) is False
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=pickle.dumps(pays), capture_output=True, check=True)
    assert done.stdout == b"False\n"


def test_a_function_without_a_source_file_is_compiled_without_a_cache() -> None:
    names: dict[str, Any] = {}
    exec("def twice(x):\n    return 2.0 * x\n", names)
    assert _jit.kernel(names["twice"])(4.0) == 8.0


def test_the_setting_of_numba_is_left_as_it_was() -> None:
    import numba

    assert os.environ["NUMBA_CACHE_DIR"] == numba.config.CACHE_DIR
    assert _disk.cache_folder() is not None
    assert Path(numba.config.CACHE_DIR) == _disk.cache_folder().parent  # type: ignore[union-attr]  # there is one


# ----- the warm-up --------------------------------------------------------------------------------------------


def test_warmup_here() -> None:
    fill_cache()
    done = fill_cache()
    assert done.n_compiled == 0
    assert done.seconds > 0
    assert done.folder == _disk.cache_folder()
    lines = ran("warmup").splitlines()
    assert lines[0].startswith("nothing to compile, ")
    assert lines[1] == f"cache: {done.folder}"


def test_warmup_says_that_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvm.warmup.fill_cache", lambda: Warmup(1.25, 7, None))
    assert ran("warmup").splitlines() == ["7 kernels compiled, 1.2 s", "cache: none, no folder can be written"]


def test_warmup_is_explained() -> None:
    text = " ".join(ran("warmup", "--help").split())
    assert "NUMBA_CACHE_DIR" in text
    assert "after an installation" in text


BITS = """
import hashlib
import numpy as np
import lvm
X = np.random.RandomState(0).standard_normal((300, 5))
for kind in ("full", "tied", "diag", "spherical"):
    mixture = lvm.GaussianMixture(3, covariance_type=kind, random_state=0, max_iter=30, tol=0).fit(X)
    print(kind, hashlib.sha256(mixture.score_samples(X).tobytes()).hexdigest())
for estimator, rows in ((lvm.BernoulliMixture, X > 0), (lvm.MultinomialMixture, np.abs(X.round()))):
    mixture = estimator(3, random_state=0, max_iter=30, tol=0).fit(rows)
    print(estimator.__name__, hashlib.sha256(mixture.score_samples(rows).tobytes()).hexdigest())
"""


def test_compiled_and_loaded_kernels_give_the_same_bits(tmp_path: Path) -> None:
    """A kernel compiled in this process, and the same one loaded from disk, are the same code."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    cold, warm = (
        subprocess.run([sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert cold.count("\n") == 6
    assert cold == warm
