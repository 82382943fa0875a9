"""Latent class models in files and on the command line, where cells may be text, and blank."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from answers import CATEGORIES, PROBABILITIES, answers, started
from command_line import fails, ran
from numpy.testing import assert_allclose, assert_array_equal

import lvm


@pytest.mark.parametrize("names", [True, False])
def test_saved_and_loaded(names: bool, tmp_path: Path) -> None:
    X, _ = answers(200, 0.1)
    held = [np.where([[True], [False]], p, np.nan) for p in PROBABILITIES]
    mixture = lvm.CategoricalMixture(
        2, categories=CATEGORIES, probabilities_init=PROBABILITIES, fixed={"probabilities": held}, random_state=0
    )
    data = X if names else X.to_numpy()
    mixture.fit(data)
    lvm.save(mixture, tmp_path / "a.lvm")
    loaded = lvm.load(tmp_path / "a.lvm")
    lvm.save(loaded, tmp_path / "b.lvm")
    assert (tmp_path / "a.lvm").read_bytes() == (tmp_path / "b.lvm").read_bytes()
    assert_array_equal(loaded.predict_proba(data), mixture.predict_proba(data))
    assert_array_equal(loaded.sample(30)[0], mixture.sample(30)[0])
    assert_array_equal(loaded.impute(data), mixture.impute(data))
    assert [column.dtype for column in loaded.categories_] == [object, np.int64, np.bool_]
    assert loaded.fit(data).loglik_ == mixture.loglik_


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda fitted: fitted["categories_"].pop(), r"categories_ should be a list of 3 arrays"),
        (lambda fitted: fitted.pop("categories_"), r"categories_ should be a list of 3 arrays"),
        (lambda fitted: fitted["probabilities_"].pop(), r"probabilities_\[0\] should be floats of shape \(2, 3\)"),
        (lambda fitted: fitted["categories_"][0]["strings"].append("mauve"), r"probabilities_\[0\] .* \(2, 4\)"),
        (lambda fitted: fitted["categories_"][0].update(strings=["a"] * 3), r"categories_\[0\] repeats a category"),
        (lambda fitted: fitted.update(probabilities_=[0.5] * 3), r"probabilities_\[0\] should be floats of shape"),
    ],
)
def test_damaged_files_are_refused(edit: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.lvm"
    lvm.save(started().fit(answers(100)[0]), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    edit(manifest["fitted"])
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=message):
        lvm.load(path)


@pytest.mark.usefixtures("folder")
def test_command_line() -> None:
    X, _ = answers(300, 0.1)
    X["shelf"] = np.where(X["sold"].notna() & X["sold"].eq(True), "1", "2")
    X.loc[0, "shelf"] = "x"
    X.to_csv("answers.csv", index=False)
    printed = ran(
        "fit", "answers.csv", "--family", "categorical", "-k", "2:3", "--out", "out", "--plot", "--alpha", "1.5"
    )
    assert "CategoricalMixture, K = " in printed
    assert "per column: most probable category (its probability)" in printed
    assert "blue (0." in printed
    mixture = lvm.load("out/model.lvm")
    assert mixture.alpha == 1.5
    assert mixture.categories_[1].tolist() == CATEGORIES[1]
    assert [type(value) for value in mixture.categories_[1].tolist()] == [int] * 4
    assert mixture.categories_[3].tolist() == ["1", "2", "x"]
    assigned = pd.read_csv("out/assignments.csv")
    assert_array_equal(assigned["component"], mixture.predict(X))
    # Columns in another order, text that looks like numbers, a blank cell.
    new = X[["shelf", "sold", "size", "colour"]].iloc[1:5].reset_index(drop=True)
    new.loc[1, ["shelf", "sold"]] = None
    new.to_csv("new.csv", index=False)
    predicted = pd.read_csv(io.StringIO(ran("predict", "out/model.lvm", "new.csv")))
    assert_allclose(
        predicted[[f"component_{k}" for k in range(mixture.n_components)]], mixture.predict_proba(new[X.columns])
    )
    assert f"{mixture.score_samples(new[X.columns]).sum():.10g}" in ran("score", "out/model.lvm", "new.csv")
    drawn = pd.read_csv(io.StringIO(ran("sample", "out/model.lvm", "-n", "50", "--seed", "3")))
    assert list(drawn) == [*X.columns, "component"]
    assert set(drawn["colour"]) <= set(CATEGORIES[0])
    new.assign(colour="mauve").to_csv("new.csv", index=False)
    assert "'mauve' at row 0, which is not among the known categories" in fails("predict", "out/model.lvm", "new.csv")
    assert "has no column 'colour' that the model needs" in fails("predict", "out/model.lvm", "data.csv")
    assert "chosen twice" in fails("fit", "answers.csv", "--family", "categorical", "--columns", "size,size")


@pytest.mark.usefixtures("folder")
def test_blank_cells_on_the_command_line() -> None:
    """Families that take missing cells fit tables with blanks; the others name the first."""
    rng = np.random.RandomState(0)
    X = pd.DataFrame(rng.randint(0, 2, (60, 2)).astype(float), columns=["a", "b"])
    X = X.mask(rng.uniform(size=X.shape) < 0.2)
    X.to_csv("gaps.csv", index=False)
    ran("fit", "gaps.csv", "--family", "bernoulli", "-k", "1", "--out", "out")
    loaded = lvm.load("out/model.lvm")
    assert_allclose(loaded.probabilities_[0], X.mean(), rtol=1e-9)
    assert f"{loaded.score_samples(X).sum():.10g}" in ran("score", "out/model.lvm", "gaps.csv")
    row = int(np.flatnonzero(X["a"].isna())[0])
    message = f"column 'a' of gaps.csv has no value (empty or NaN) at row {row}"
    for family in ("multinomial", "student_t"):
        assert message in fails("fit", "gaps.csv", "--family", family)


def test_heat_map_of_the_classes() -> None:
    from matplotlib.figure import Figure

    X, _ = answers(100)
    mixture = started().fit(X)
    figure = lvm.plotting.plot_mixture(mixture, X, columns=["sold", "colour"], figure=Figure())
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["sold = False", "sold = True", "colour = blue", "colour = green", "colour = red"]
    expected = np.concatenate([mixture.probabilities_[2], mixture.probabilities_[0]], axis=1)
    assert_array_equal(axes.images[0].get_array(), expected)
    assert axes.images[0].get_clim() == (0.0, 1.0)
