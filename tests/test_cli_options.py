"""Options of the command line that belong to some families: each is the constructor's argument of that name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import fails, ran

import lvm

pytestmark = pytest.mark.usefixtures("folder")

RNG = np.random.default_rng(5)
Z = np.arange(60) < 30
COUNTS = pd.DataFrame(RNG.poisson(np.where(Z[:, None], [1.0, 6.0], [7.0, 2.0])), columns=["a", "b"])
AMOUNTS = pd.DataFrame(RNG.exponential(np.where(Z[:, None], [0.5, 1.0], [20.0, 9.0])), columns=["a", "b"])
DIRECTIONS = pd.DataFrame(RNG.normal(np.where(Z[:, None], [2.0, 0.0, 1.0], [0.0, 3.0, 0.0])), columns=list("abc"))
WORDS = pd.DataFrame({"colour": np.where(Z, "red", "blue"), "size": np.where(RNG.random(60) < 0.7, "S", "L")})

CASES: dict[str, tuple[str, pd.DataFrame, list[str], dict[str, Any]]] = {
    "prior of Poisson rates": ("poisson", COUNTS, ["--rates-prior", "2,0.5"], {"rates_prior": (2.0, 0.5)}),
    "prior of exponential rates": ("exponential", AMOUNTS, ["--rates-prior", "1.5, 3"], {"rates_prior": (1.5, 3.0)}),
    "prior of weights": ("poisson", COUNTS, ["--weights-prior", "4"], {"weights_prior": 4.0}),
    "equal weights": ("poisson", COUNTS, ["--equal-weights"], {"equal_weights": True}),
    "threshold": ("bernoulli", COUNTS, ["--binarize", "3"], {"binarize": 3.0}),
    "lengths": ("von_mises_fisher", DIRECTIONS, ["--normalize"], {"normalize": True}),
    "bound of concentrations": (
        "von_mises_fisher",
        DIRECTIONS,
        ["--normalize", "--max-concentration", "2.5"],
        {"normalize": True, "max_concentration": 2.5},
    ),
    "unknown categories": ("categorical", WORDS, ["--handle-unknown", "ignore"], {"handle_unknown": "ignore"}),
}


@pytest.mark.parametrize("name", CASES)
def test_options_are_the_constructors(name: str) -> None:
    family, table, options, arguments = CASES[name]
    table.to_csv("table.csv", index=False)
    ran("fit", "table.csv", "--family", family, "-k", "2", *options, "--out", "out")
    found = lvm.load("out/model.lvm")
    expected = type(found)(2, n_init=5, random_state=0, **arguments).fit(table)
    for argument, value in arguments.items():
        assert np.array_equal(getattr(found, argument), value)  # a pair comes back as a list
    assert found.loglik_ == expected.loglik_
    plain = type(found)(2, n_init=5, random_state=0, normalize=True) if "normalize" in arguments else type(found)(2)
    if name not in ("threshold", "lengths", "unknown categories"):
        assert plain.fit(table).loglik_ != found.loglik_  # the option makes a difference


def test_hyphens_are_for_families_too() -> None:
    DIRECTIONS.to_csv("table.csv", index=False)
    ran("fit", "table.csv", "--family", "von-mises-fisher", "-k", "2", "--normalize", "--out", "out")
    assert isinstance(lvm.load("out/model.lvm"), lvm.VonMisesFisherMixture)
    ran("fit", "table.csv", "--family", "student-t", "-k", "2", "--plot", "--out", "drawn")
    assert isinstance(lvm.load("drawn/model.lvm"), lvm.StudentTMixture)


def test_unknown_categories_of_new_rows() -> None:
    WORDS.to_csv("words.csv", index=False)
    blocks = ("--family", "mixed", "--block", "categorical:colour,size")
    ran("fit", "words.csv", "--family", "categorical", "-k", "2", "--out", "out")
    ran("fit", "words.csv", *blocks, "-k", "2", "--handle-unknown", "ignore", "--out", "mixed")
    pd.DataFrame({"colour": ["mauve", "red"], "size": ["S", "L"]}).to_csv("new.csv", index=False)
    message = fails("predict", "out/model.lvm", "new.csv")
    assert "'mauve' at row 0, which is not among the known categories 'blue', 'red'" in message
    ignored = ("--handle-unknown", "ignore")
    frame = pd.read_csv(io.StringIO(ran("predict", "out/model.lvm", "new.csv", *ignored)))
    blank = [[None, "S"], ["red", "L"]]
    expected = lvm.load("out/model.lvm").predict_proba(pd.DataFrame(blank, columns=["colour", "size"]))
    np.testing.assert_allclose(frame[["component_0", "component_1"]], expected, rtol=1e-12)
    assert "rows                     2" in ran("score", "out/model.lvm", "new.csv", *ignored)
    assert ran("predict", "mixed/model.lvm", "new.csv").count("\n") == 3
    assert "mauve" in fails("predict", "mixed/model.lvm", "new.csv", "--handle-unknown", "error")


MISTAKES: list[tuple[list[str], str]] = [
    (["--family", "poisson", "--rates-prior", "2"], "--rates-prior must be two numbers, as 2,0.5, got '2'."),
    (["--family", "poisson", "--rates-prior", "2,x"], "--rates-prior must be two numbers, as 2,0.5, got '2,x'."),
    (["--family", "poisson", "--rates-prior", "0.5,1"], "rates_prior[0] must be a finite number >= 1, got 0.5."),
    (["--family", "gamma", "--rates-prior", "2,1"], "--rates-prior is for --family exponential or poisson, got"),
    (["--normalize"], "--normalize is for --family von_mises_fisher, got --family gaussian; leave it out."),
    (["--max-concentration", "3"], "--max-concentration is for --family von_mises_fisher, got --family gaussian"),
    (["--binarize", "3"], "--binarize is for --family bernoulli, got --family gaussian"),
    (["--handle-unknown", "ignore"], "--handle-unknown is for --family categorical or mixed, got --family gaussian"),
    (
        ["--family", "categorical", "--handle-unknown", "guess"],
        "handle_unknown must be one of 'error', 'ignore', got 'guess'.",
    ),
    (["--weights-prior", "0.5"], "weights_prior must be a finite number >= 1, got 0.5."),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_mistakes(options: list[str], message: str, folder: Path) -> None:
    COUNTS.to_csv("counts.csv", index=False)
    assert message in fails("fit", "counts.csv", "-k", "1", *options, "--out", "results")
    assert not (folder / "results").exists()


def test_unknown_categories_are_for_categories(model: str) -> None:
    message = fails("predict", model, "data.csv", "--handle-unknown", "ignore")
    assert message == "--handle-unknown is for models of categories, model.lvm holds a GaussianMixture; leave it out."


def test_help_and_the_table_of_families_name_them() -> None:
    printed = ran("fit", "--help")
    listed = ran("families")
    for option in ("--rates-prior", "--binarize", "--handle-unknown", "--normalize", "--max-concentration"):
        assert option in printed
        assert option in listed
    assert "--weights-prior" in printed
    assert "--equal-weights" in printed
