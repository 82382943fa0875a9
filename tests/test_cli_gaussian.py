"""The options of Gaussian mixtures on the command line: prior, noise, and what becomes of collapsing components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import TABLE, fails, ran

import lvm


@pytest.fixture
def far(folder: Path) -> Path:
    """data.csv with three rows far from the others, one of them with a blank cell."""
    more = pd.DataFrame([[-40.0, 50.0], [60.0, -30.0], [np.nan, 70.0]], columns=TABLE.columns)
    pd.concat([TABLE, more]).to_csv("far.csv", index=False)
    return folder


@pytest.mark.usefixtures("folder")
def test_prior() -> None:
    ran("fit", "data.csv", "-k", 2, "--prior", "default", "--out", "default", "-q")
    by_hand = lvm.GaussianMixture(2, prior="default", random_state=0).fit(TABLE)
    assert lvm.load("default/model.lvm").loglik_ == pytest.approx(by_hand.loglik_, rel=1e-10)
    ran("fit", "data.csv", "-k", 2, "--prior", "shrinkage=0.5, dof=9", "--out", "parts", "-q")
    loaded = lvm.load("parts/model.lvm")
    assert loaded.prior == {"shrinkage": 0.5, "dof": 9.0}
    assert (loaded.prior_["shrinkage"], loaded.prior_["dof"]) == (0.5, 9.0)
    assert fails("fit", "data.csv", "--prior", "mclust").startswith(
        "--prior must be default, or look like shrinkage=0.1,dof=8,scale=2, got 'mclust'."
    )
    assert "prior may hold 'shrinkage', 'mean', 'dof', 'scale', got 'kappa'" in fails(
        "fit", "data.csv", "--prior", "kappa=1"
    )
    assert fails("fit", "data.csv", "--family", "gamma", "--prior", "default").startswith(
        "--prior is for --family gaussian, got --family gamma"
    )


@pytest.mark.usefixtures("far")
def test_noise_is_component_minus_one() -> None:
    screen = ran("fit", "far.csv", "-k", 2, "--noise", "--out", "out")
    assert "K = 2" in screen
    assert "noise" in screen
    assigned = pd.read_csv("out/assignments.csv")
    assert assigned["component"].tolist()[-3:] == [-1, -1, -1]
    assert set(assigned["component"][:-3]) == {0, 1}
    assert list(assigned.columns[3:]) == ["component_0", "component_1", "noise"]
    np.testing.assert_allclose(assigned.iloc[:, 3:].sum(axis=1), 1.0, rtol=1e-9)
    ran("predict", "out/model.lvm", "far.csv", "-o", "again.csv")
    pd.testing.assert_frame_equal(pd.read_csv("again.csv"), assigned)
    drawn = ran("sample", "out/model.lvm", "-n", 500)
    assert ",-1\n" in drawn
    assert fails("fit", "far.csv", "--noise", "--plot", "--out", "x").startswith("--plot draws no noise")
    assert fails("fit", "far.csv", "--family", "poisson", "--noise").startswith("--noise is for --family gaussian")


@pytest.mark.usefixtures("folder")
def test_on_degenerate() -> None:
    more = pd.DataFrame(np.full((5, 2), 30.0), columns=TABLE.columns)
    pd.concat([TABLE, more]).to_csv("equal.csv", index=False)
    options = ("fit", "equal.csv", "-k", 3, "--reg-covar", 0, "--n-init", 1, "--on-degenerate")
    ran(*options, "floor", "--out", "floor", "-q")
    assert "FlooredFullGaussian" in lvm.load("floor/model.lvm").degeneracy_
    assert "ill-defined empirical covariance" in fails(*options, "raise")
    assert "on_degenerate must be one of" in fails(*options, "never")
