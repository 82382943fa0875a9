"""Bad input of every family: an error that names the value, its row and its column, and nothing half-done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import lvm
from lvm.families import Multinomial, Poisson

NAN = np.nan
GOOD = pd.DataFrame({"a": [1.0, 2.0, 9.0, 8.0, 1.0, 7.0], "b": [3.0, 2.0, 7.0, 9.0, 2.0, 8.0]})
ESTIMATORS: dict[str, Any] = {
    "gaussian": lvm.GaussianMixture(2),
    "student t": lvm.StudentTMixture(2),
    "bernoulli": lvm.BernoulliMixture(2),
    "multinomial": lvm.MultinomialMixture(2),
    "poisson": lvm.PoissonMixture(2),
    "negative binomial": lvm.NegativeBinomialMixture(2),
    "exponential": lvm.ExponentialMixture(2),
    "gamma": lvm.GammaMixture(2),
    "von Mises-Fisher": lvm.VonMisesFisherMixture(2, normalize=True),
    "own": lvm.MixtureModel(Poisson(), 2),
}
COUNTS = ("multinomial", "poisson", "negative binomial", "own")


def with_cell(value: Any, row: int = 3) -> pd.DataFrame:
    """Return the good table with this value in column b."""
    frame = GOOD.astype(object)
    frame.loc[row, "b"] = value
    return frame


@pytest.mark.parametrize("name", ESTIMATORS)
def test_text_is_named(name: str) -> None:
    for X, where in ((with_cell("tall"), r"1 \('b'\)"), (with_cell("tall").to_numpy(), "1")):
        with pytest.raises(ValueError, match=rf"X must hold numbers; got 'tall' at row 3, column {where}\. Correct it"):
            ESTIMATORS[name].fit(X)
    assert not hasattr(ESTIMATORS[name], "weights_")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_infinity_is_named(name: str) -> None:
    frame = pd.DataFrame({"a": [1.0, 0.0, 1.0], "b": [1.0, 0.0, 1.0]}) if name == "bernoulli" else GOOD.copy()
    frame.loc[2, "b"] = np.inf
    with pytest.raises(ValueError, match=r"infinity at row 2, column 1 \('b'\)|got inf at row 2, column 1"):
        ESTIMATORS[name].fit(frame)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bernoulli", 2.0, r"must be 0 or 1 for Bernoulli components; got 2\.0"),
        *((name, -2.0, r"got -2\.0") for name in (*COUNTS, "exponential", "gamma")),
        *((name, 1.5, r"X must be whole counts; got 1\.5") for name in COUNTS if name != "multinomial"),
        ("gamma", 0.0, r"X must be > 0 for gamma components, .*got 0\.0"),
    ],
)
def test_values_beyond_the_range_are_named(name: str, value: float, message: str) -> None:
    frame = pd.DataFrame({"a": [1.0, 0.0, 1.0, 1.0], "b": [1.0, 0.0, 1.0, 0.0]}) if name == "bernoulli" else GOOD.copy()
    frame.loc[3, "b"] = value
    named = "" if name == "own" else r" \('b'\)"  # a family sees no names
    with pytest.raises(ValueError, match=rf"{message} at row 3, column 1{named}"):
        ESTIMATORS[name].fit(frame)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_none_in_lists_is_a_missing_cell(name: str) -> None:
    """As NaN in arrays: taken, or refused by name."""
    cells = [[1, 0], [0, 1], [1, 1], [0, 0]] if name == "bernoulli" else GOOD.to_numpy().tolist()
    cells[1][1] = None  # type: ignore[call-overload]  # the missing cell
    estimator = ESTIMATORS[name].set_params(random_state=0, max_iter=3, tol=0)
    if name in ("student t", "multinomial", "von Mises-Fisher"):
        with pytest.raises(ValueError, match="Input X contains NaN at row 1, column 1; remove or impute such rows"):
            estimator.fit(cells)
    else:
        assert estimator.fit(cells).loglik_ == estimator.fit(np.array(cells, np.float64)).loglik_


@pytest.mark.parametrize("name", ["latent trait", "hidden Markov", "factors"])
def test_none_in_lists_is_a_missing_cell_of_other_models(name: str) -> None:
    estimator: Any = {
        "latent trait": lvm.LatentTrait(max_iter=3, tol=0),
        "hidden Markov": lvm.HiddenMarkov("gaussian_diag", 2, max_iter=3, tol=0, random_state=0),
        "factors": lvm.FactorAnalysis(1, max_iter=3, tol=0),
    }[name]
    cells = np.random.RandomState(0).normal(size=(40, 4))
    cells = (cells > 0).astype(float) if name == "latent trait" else cells
    cells[1, 1] = NAN
    nested = [[None if cell != cell else cell for cell in row] for row in cells.tolist()]
    assert estimator.fit(nested).loglik_ == estimator.fit(cells).loglik_
    nested[2][3] = "tall"
    with pytest.raises(ValueError, match=r"X must hold numbers; got 'tall' at row 2, column 3\. Correct it"):
        estimator.fit(nested)


def test_exposures_are_named() -> None:
    with pytest.raises(ValueError, match=r"exposure must hold a number for each row: could not convert .*'long'"):
        lvm.PoissonMixture(2).fit(GOOD, exposure=["long"] * 6)


def test_families_refuse_missing_cells_themselves() -> None:
    """Not the estimator alone: in a block, or beside `lvm.Mixture`, a NaN would make every row impossible."""
    with pytest.raises(ValueError, match="Input X contains NaN at row 1, column 0; remove or impute such rows first"):
        Multinomial().canonical(np.array([[1.0, 2.0], [NAN, 1.0]]))


# ----- blocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "value", "message"),
    [
        ("gaussian", np.inf, "Input X contains infinity at row 3, column 2"),
        ("gamma", -1.0, r"Negative values in data: X must be > 0 .*got -1\.0 at row 3, column 2"),
        ("poisson", 1.5, r"X must be whole counts; got 1\.5 at row 3, column 2"),
        ("multinomial", NAN, "Input X contains NaN at row 3, column 2"),
        ("student_t", NAN, "Input X contains NaN at row 3, column 2"),
        ("von_mises_fisher", NAN, "Input X contains NaN at row 3, column 2"),
    ],
)
def test_blocks_name_the_column_of_the_table(family: str, value: float, message: str) -> None:
    """The place in the table, not in the block."""
    table = pd.DataFrame({"x": GOOD["a"], "first": GOOD["a"], "second": GOOD["b"].astype(float)})
    table.loc[3, "second"] = value
    mixture = lvm.MixedMixture([("one", "gaussian", ["x"]), ("two", family, ["first", "second"])], 2)
    with pytest.raises(ValueError, match=rf"block 'two': {message} \('second'\)"):
        mixture.fit(table)
    with pytest.raises(ValueError, match=rf"block 'two': {message}\D"):
        lvm.MixedMixture([("one", "gaussian", [0]), ("two", family, [1, 2])], 2).fit(table.to_numpy())


def test_blocks_know_student_t_as_the_command_line_does() -> None:
    blocks = [("a", "student_t", ["a"]), ("b", "poisson", ["b"])]
    found = lvm.MixedMixture(blocks, 2, random_state=0, max_iter=3, tol=0).fit(GOOD)
    assert set(found.parameters_["a"]) == {"means", "scatters", "degrees_of_freedom"}


def test_objects_of_numpy_are_numbers() -> None:
    cells = np.array([[np.int64(a), np.float32(b), np.bool_(a > 5)] for a, b in GOOD.to_numpy()], dtype=object)
    blocks = [("a", "poisson", [0]), ("b", "gaussian", [1]), ("c", "bernoulli", [2])]
    found = lvm.MixedMixture(blocks, 2, random_state=0).fit(cells)
    assert found.loglik_ == lvm.MixedMixture(blocks, 2, random_state=0).fit(cells.astype(np.float64)).loglik_


def test_blocks_expect_families() -> None:
    with pytest.raises(ValueError, match=r"block 'a' expects a family object, got the class Poisson; call it: Poisson"):
        lvm.MixedMixture([("a", Poisson, ["a"])], 2).fit(GOOD)
    with pytest.raises(TypeError, match=r"object must implement log_density, .*; missing log_density, zero_stats"):
        lvm.MixedMixture([("a", object(), ["a"])], 2).fit(GOOD)
