"""The command line: what it prints and writes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import TABLE, fails, listing, ran, run

import lvm
from lvm import reports, tables
from lvm.cli_families import FAMILIES

RNG = np.random.default_rng(12)


pytestmark = pytest.mark.usefixtures("folder")


# ----- fit --------------------------------------------------------------------------------------------------------


def test_fit_writes_results_and_a_summary(folder: Path) -> None:
    printed = ran("fit", "data.csv", "-k", "1:3", "--covariance", "full,tied", "--out", "out", "--plot")
    assert listing(folder) == ["data.csv", "out"]
    assert listing(folder / "out") == [
        "assignments.csv",
        "clusters.png",
        "criterion.png",
        "model.lvm",
        "selection.csv",
    ]
    estimator = lvm.load("out/model.lvm")
    assert (estimator.n_components, estimator.n_init, estimator.random_state) == (2, "auto", 0)
    assert estimator.feature_names_in_.tolist() == ["height", "width [cm]"]
    assigned = pd.read_csv("out/assignments.csv", **tables.EXACT)
    assert list(assigned) == ["row", "component", "probability", "component_0", "component_1"]
    np.testing.assert_array_equal(assigned[["component_0", "component_1"]], estimator.predict_proba(TABLE))
    np.testing.assert_array_equal(assigned["component"], estimator.predict(TABLE))
    np.testing.assert_array_equal(assigned["probability"], estimator.predict_proba(TABLE).max(axis=1))
    assert assigned["row"].tolist() == list(range(60))
    table = pd.read_csv("out/selection.csv", **tables.EXACT)
    assert len(table) == 6
    assert table.loc[table["best"], "bic"].tolist() == [table["bic"].min()] == [estimator.bic(TABLE)]
    for name in ("criterion", "clusters"):
        assert Path(f"out/{name}.png").read_bytes().startswith(b"\x89PNG")
    (marked,) = (line for line in printed.splitlines() if line.rstrip().endswith("best"))
    assert marked.split()[:2] == ["2", estimator.covariance_type]
    assert f"{estimator.bic(TABLE):.2f}" in marked
    assert f"GaussianMixture, K = 2, covariance {estimator.covariance_type}" in printed
    assert "width [cm]" in printed
    assert f"{estimator.means_[0, 1]:.4g} (" in printed
    assert f"log-likelihood {estimator.loglik_:.4f}" in printed
    assert f"EM after {estimator.n_iter_} iterations: converged" in printed
    assert "wrote model.lvm, assignments.csv, selection.csv, criterion.png, clusters.png into out" in printed


def test_fit_prints_without_out_and_is_silent_when_quiet(folder: Path) -> None:
    assert "best" in ran("fit", "data.csv", "-k", "2")
    result = run("fit", "data.csv", "-k", "2", "--quiet", "--out", "out")
    assert (result.exit_code, result.output) == (0, "")
    assert listing(folder / "out") == ["assignments.csv", "model.lvm", "selection.csv"]


def test_fit_equals_the_library_and_repeats_to_the_bit() -> None:
    for out in ("a", "b"):
        ran("fit", "data.csv", "-k", "2", "-o", out, "--seed", "4", "--n-init", "2", "--tol", "1e-4", "--reg-covar", 0)
    expected = lvm.GaussianMixture(2, n_init=2, random_state=4, tol=1e-4, reg_covar=0.0).fit(TABLE)
    np.testing.assert_array_equal(lvm.load("a/model.lvm").means_, expected.means_)
    assert Path("a/model.lvm").read_bytes() == Path("b/model.lvm").read_bytes()


def test_fit_replaces_its_own_files_and_leaves_others(folder: Path) -> None:
    out = folder / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "model.lvm").write_text("old")
    ran("fit", "data.csv", "-k", "1", "--out", out)
    assert listing(out) == ["assignments.csv", "model.lvm", "notes.txt", "selection.csv"]
    assert lvm.load(out / "model.lvm").n_components == 1


def test_fit_of_a_shipped_data_set_by_name() -> None:
    printed = ran("fit", "faithful", "-k", "2", "--covariance", "tied", "--out", "out")
    expected = lvm.datasets.load_faithful()
    assert "2325.2" in printed  # mclust's EEE with two components, published as -2325.2
    assert lvm.load("out/model.lvm").feature_names_in_.tolist() == expected.feature_names


def test_fit_of_parquet(folder: Path) -> None:
    TABLE.astype({"height": "Float64"}).to_parquet("data.parquet")
    ran("fit", "data.parquet", "-k", "2", "--out", "p")
    ran("fit", "data.csv", "-k", "2", "--out", "c")
    assert (folder / "p/model.lvm").read_bytes() == (folder / "c/model.lvm").read_bytes()


def test_fit_of_wide_counts() -> None:
    counts = RNG.poisson(np.where(np.arange(40)[:, None] < 20, np.arange(1, 10), np.arange(9, 0, -1)))
    pd.DataFrame(counts, columns=[f"word {j}" for j in range(9)]).to_csv("counts.csv", index=False)
    arguments = ("-k", "2,1", "--family", "multinomial", "--alpha", "1.5", "--criterion", "icl")
    printed = ran("fit", "counts.csv", *arguments, "-o", "out", "--plot")
    estimator = lvm.load("out/model.lvm")
    assert (estimator.alpha, estimator.n_components) == (1.5, 2)
    assert "MultinomialMixture, K = 2" in printed
    assert "per column: probability, the first 6 of 9 columns" in printed
    assert "word 5" in printed
    assert "word 6" not in printed
    assert f"{estimator.probabilities_[0, 0]:.4f}" in printed


def test_fit_of_bits_with_held_out_rows() -> None:
    pd.DataFrame((RNG.random((40, 3)) < 0.5).astype(int), columns=list("abc")).to_csv("bits.csv", index=False)
    printed = ran("fit", "bits.csv", "-k", "1:2", "--family", "bernoulli", "--criterion", "heldout")
    assert "held-out" in printed
    assert "probability of a 1" in printed


def test_weights_equal_repeated_rows() -> None:
    weights = np.arange(60) % 3
    TABLE.assign(n=weights).to_csv("weighted.csv", index=False)
    TABLE.loc[TABLE.index.repeat(weights)].to_csv("repeated.csv", index=False)
    ran("fit", "weighted.csv", "-k", "2", "--weight-column", "n", "-o", "w")
    ran("fit", "repeated.csv", "-k", "2", "-o", "r")
    weighted, repeated = lvm.load("w/model.lvm"), lvm.load("r/model.lvm")
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, rel=1e-6)  # both within tol of the optimum
    assert weighted.n_features_in_ == 2


def test_labels_are_kept() -> None:
    labels = [1, *[""] * 28, -1, 0, *[""] * 29]
    TABLE.assign(kind=labels).to_csv("labelled.csv", index=False)
    ran("fit", "labelled.csv", "-k", "2:3", "--label-column", "kind", "--out", "out")
    estimator = lvm.load("out/model.lvm")
    known = np.full(60, -1)
    known[[0, 30]] = 1, 0
    expected = lvm.GaussianMixture(2, random_state=0).fit(TABLE, labels=known)
    np.testing.assert_array_equal(estimator.means_, expected.means_)
    assert estimator.means_[1, 0] < estimator.means_[0, 0]
    assigned = pd.read_csv("out/assignments.csv")
    assert assigned.loc[0, ["component", "probability", "component_0", "component_1"]].tolist() == [1, 1, 0, 1]


def test_a_surprising_label_outweighs_the_posterior() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1]])
    frame = tables.assignments(probabilities, np.array([1, -1]))
    assert frame["component"].tolist() == [1, 0]
    assert frame["probability"].tolist() == [1.0, 0.9]
    assert probabilities[0, 0] == 0.9


def test_columns_choose_and_order() -> None:
    TABLE.assign(name="x", age=RNG.normal(size=60)).to_csv("more.csv", index=False)
    ran("fit", "more.csv", "-k", "1", "--columns", "age, height", "-o", "out")
    assert lvm.load("out/model.lvm").feature_names_in_.tolist() == ["age", "height"]


def test_failed_and_unfinished_fits_are_noted() -> None:
    pd.DataFrame({"x": [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]}).to_csv("few.csv", index=False)
    printed = ran("fit", "few.csv", "-k", "1,5", "--reg-covar", "0")
    assert "K 5: failed: n_components=5 exceeds the 4 distinct rows of X" in " ".join(printed.split())
    assert "max iter" in ran("fit", "faithful", "-k", "3", "--max-iter", "2")
    assert "converged" in ran("fit", "faithful", "-k", "3", "--acceleration", "anderson", "--tol", "1e-10")


def test_warnings_are_one_line_each() -> None:
    (TABLE * 1e-6).to_csv("small.csv", index=False)
    result = run("fit", "small.csv", "-k", "1:3")
    assert result.exit_code == 0
    assert result.stderr.count("warning: reg_covar=1e-06 exceeds the variance") == result.stderr.count("\n") == 1


# ----- predict, score, sample, families ---------------------------------------------------------------------------


def test_predict(model: str) -> None:
    TABLE.assign(extra="text").iloc[:, ::-1].to_csv("new.csv", index=False)
    expected = lvm.load(model)
    frame = pd.read_csv(io.StringIO(ran("predict", model, "new.csv")), **tables.EXACT)
    np.testing.assert_array_equal(frame["component"], expected.predict(TABLE))
    np.testing.assert_array_equal(frame[["component_0", "component_1"]], expected.predict_proba(TABLE))
    assert ran("predict", model, "data.csv", "--out", "p.csv") == ""
    pd.testing.assert_frame_equal(pd.read_csv("p.csv", **tables.EXACT), frame)
    ran("predict", model, "data.csv", "--out", "p.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet("p.parquet"), frame)


def test_score(model: str) -> None:
    estimator = lvm.load(model)
    lines = dict(line.rsplit(maxsplit=1) for line in ran("score", model, "data.csv").splitlines())
    assert lines["rows"] == "60"
    assert float(lines["total log-likelihood"]) == pytest.approx(estimator.loglik_, rel=1e-9)
    assert float(lines["mean log-likelihood/row"]) == pytest.approx(estimator.score(TABLE), rel=1e-9)
    frame = pd.read_csv(io.StringIO(ran("score", model, "data.csv", "--per-row")), **tables.EXACT)
    np.testing.assert_array_equal(frame["loglik"], estimator.score_samples(TABLE))


def test_a_model_without_column_names() -> None:
    lvm.save(lvm.GaussianMixture(2, random_state=0).fit(TABLE.to_numpy()), "plain.lvm")
    assert "60" in ran("score", "plain.lvm", "data.csv")
    TABLE.assign(c=1.0).to_csv("three.csv", index=False)
    assert fails("score", "plain.lvm", "three.csv") == (
        "plain.lvm was fitted on 2 columns without names, three.csv has 3; give a file of those columns alone."
    )


def test_sample(model: str) -> None:
    frame = pd.read_csv(io.StringIO(ran("sample", model, "-n", "25", "--seed", "7")), **tables.EXACT)
    assert list(frame) == ["height", "width [cm]", "component"]
    X, component = lvm.load(model).set_params(random_state=7).sample(25)
    np.testing.assert_array_equal(frame.iloc[:, :2], X)
    np.testing.assert_array_equal(frame["component"], component)
    ran("sample", model, "--out", "drawn.csv")
    assert len(pd.read_csv("drawn.csv")) == 1000
    assert ran("score", model, "drawn.csv").startswith("rows                     1000")


def test_families() -> None:
    printed = ran("families")
    for name, family in FAMILIES.items():
        assert name in printed
        assert family.estimator in printed
        assert hasattr(lvm, family.estimator)


def test_help_names_the_commands() -> None:
    printed = ran("--help")
    assert all(name in printed for name in ("fit", "predict", "score", "sample", "families"))
    assert "--covariance" in ran("fit", "--help")


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(reports, "console", lambda **_: terminal)
    found = lvm.select(lvm.GaussianMixture(random_state=0), TABLE, n_components=[1, 2])
    with reports.progress(hidden=False) as callback:
        callback(1, 2, found.table[0])
        callback(2, 2, found.table[1])
    assert "2/2" in terminal.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


# ----- as a program -----------------------------------------------------------------------------------------------


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_the_program_fails_in_one_line_without_a_traceback() -> None:
    done = program("-m", "lvm", "fit", "absent.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: there is no file absent.csv, nor a data set of that name (faithful, iris, digits).\n"
    )


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['lvm', '--help']\n"
        "try:\n"
        "    runpy.run_module('lvm', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "heavy = {'numba', 'numpy', 'scipy', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = program("-c", code)
    assert done.returncode == 0, done.stderr
    assert "families" in done.stdout


def test_a_missing_extra_is_named() -> None:
    code = "import sys, runpy; sys.modules['typer'] = None; runpy.run_module('lvm', run_name='__main__')"
    done = program("-c", code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the command line needs typer: pip install 'lvm[cli]'\n"


def test_a_missing_plot_extra_is_named_before_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvm.cli.find_spec", lambda _: None)
    assert fails("fit", "data.csv", "--plot", "--out", "out") == "--plot needs matplotlib: pip install 'lvm[plot]'."


def test_numbers_are_whole_on_a_narrow_screen() -> None:
    from rich.console import Console

    screen = Console(file=io.StringIO(), width=40)
    found = lvm.select(lvm.GaussianMixture(random_state=0), TABLE, n_components=[2])
    reports.print_selection(screen, found)
    reports.print_mixture(screen, found.best, [30, 30], 60)
    printed = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert f"{found.table[0].icl:.2f}" in printed
    assert "\u2026" not in printed
    assert screen.width == 40
