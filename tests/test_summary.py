"""Standard errors of what is held, at its end or undetermined; refusals; and the summary table."""

from __future__ import annotations

import doctest
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from uncertainty_cases import BINARY, COUNTS, EXACT, NORMAL, POSITIVE, N, fitted, flat

import lvm
from lvm import uncertainty
from lvm.protocol import Rows

# ----- what is held, at its end or undetermined ---------------------------------------------------------------


def test_held_parameters_have_no_error() -> None:
    """With the mean known, a variance's error is variance sqrt(2 / n), about that mean."""
    mean = NORMAL.mean(axis=0) + 0.1
    mixture = lvm.GaussianMixture(1, covariance_type="diag", reg_covar=0.0, fixed={"means": [mean]}).fit(NORMAL)
    errors = mixture.standard_errors(NORMAL, kind="observed")
    np.testing.assert_array_equal(errors["means"], [[0.0, 0.0]])
    np.testing.assert_allclose(errors["covariances"], mixture.covariances_ * np.sqrt(2 / N), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "zero"),
    [
        ({"equal_weights": True}, "weights"),
        ({"fixed": {"weights": [0.5, 0.5]}}, "weights"),
        ({"fixed": {"probabilities": [[0.2, 0.2, 0.2, 0.2], [0.8, 0.8, 0.8, 0.8]]}}, "probabilities"),
    ],
)
def test_held_in_mixtures(arguments: dict[str, Any], zero: str) -> None:
    mixture = lvm.BernoulliMixture(2, **EXACT, **arguments).fit(BINARY)
    errors = mixture.standard_errors(BINARY)
    for name, found in errors.items():
        assert np.all(found == 0 if name == zero else found > 0)


def test_held_shapes_of_one_component() -> None:
    """Held shapes tie two coordinates of a gamma component: a scale's error is then scale / sqrt(n shape)."""
    mixture = lvm.GammaMixture(1, fixed={"shapes": [[2.0, 3.0]]}, **EXACT).fit(POSITIVE)
    errors = mixture.standard_errors(POSITIVE, kind="observed")
    np.testing.assert_array_equal(errors["shapes"], [[0.0, 0.0]])
    np.testing.assert_allclose(errors["scales"], mixture.scales_ / np.sqrt(N * np.array([2.0, 3.0])), rtol=1e-6)


def test_ends_of_ranges_are_named() -> None:
    X = np.column_stack([BINARY[:, 0], np.ones(N)])
    mixture = lvm.BernoulliMixture(1).fit(X)
    with pytest.warns(RuntimeWarning, match=r"at the end of their range: probabilities\[0, 1\]\."):
        errors = mixture.standard_errors(X)["probabilities"][0]
    p = X[:, 0].mean()
    np.testing.assert_allclose(errors, [np.sqrt(p * (1 - p) / N), np.nan], rtol=1e-6)


def test_carcinoma(reference_folder: Path) -> None:
    """Linzer & Lewis's example: the probabilities at 0 and 1 have no error, the others as in a fit without them."""
    folder = reference_folder / "latent_class_carcinoma"
    published = json.loads((folder / "result.json").read_text())["fits_polca"][0]
    X = pd.read_csv(folder / "data.csv", dtype=str)
    mixture = lvm.CategoricalMixture(2, **EXACT).fit(X)
    assert mixture.loglik_ == pytest.approx(published["loglik"], rel=1e-8)
    with pytest.warns(RuntimeWarning, match="at the end of their range: probabilities"):
        errors = mixture.standard_errors(X, kind="empirical")
    for p, found in zip(mixture.probabilities_, errors["probabilities"], strict=True):
        np.testing.assert_array_equal(np.isnan(found), np.abs(p - 0.5) > 0.5 - 1e-7)
    assert np.all(errors["weights"] > 0)


def test_undetermined_parameters_are_named() -> None:
    """Two classes cannot be told from one binary column; its overall proportion can."""
    X = BINARY[:, :1]
    mixture = lvm.BernoulliMixture(
        2, max_iter=0, tol=0, weights_init=[0.5, 0.5], probabilities_init=[[X.mean() - 0.1], [X.mean() + 0.1]]
    ).fit(X)
    with pytest.warns(RuntimeWarning, match=r"not determined by the data: weights\[0\], weights\[1\], probabilities"):
        assert np.isnan(flat(mixture.standard_errors(X))).all()


def test_no_maximum_is_noticed() -> None:
    estimator, X = fitted("gaussian full")
    with pytest.warns(RuntimeWarning, match="not at a maximum"):
        estimator.standard_errors(X + 0.2)


# ----- refusals -----------------------------------------------------------------------------------------------


def test_refusals() -> None:
    estimator, X = fitted("gaussian full")
    with pytest.raises(ValueError, match=r"kind.*'robust'"):
        estimator.standard_errors(X, kind="robust")
    with pytest.raises(ValueError, match=r"level must lie within \(0, 1\), got 95"):
        estimator.summary(X, level=95)
    with pytest.raises(TypeError, match="GaussianMixture takes no exposure"):
        estimator.standard_errors(X, exposure=2.0)


def test_families_without_coordinates_are_refused() -> None:
    class Bare:
        """A Poisson family that does not tell its coordinates."""

        parameters = lvm.families.Poisson.parameters

        def __init__(self) -> None:
            self._inner = lvm.families.Poisson()
            for name in ("params", "start", "canonical", "log_density", "zero_stats", "accumulate", "mstep", "sample"):
                setattr(self, name, getattr(self._inner, name))
            self.n_parameters = self._inner.n_parameters

    mixture = lvm.MixtureModel(Bare(), 1).fit(COUNTS)
    with pytest.raises(TypeError, match="Bare must implement to_vector, from_vector for its parameters"):
        mixture.standard_errors(COUNTS)


def test_functions_work_without_an_estimator() -> None:
    estimator, X = fitted("poisson")
    model = lvm.Mixture(lvm.families.Poisson())
    params = lvm.MixtureParams(estimator.weights_, model.family.params(estimator.rates_))
    errors = uncertainty.standard_errors(model, Rows(X.astype(np.float64)), params)
    assert list(errors) == ["weights", "rates"]
    np.testing.assert_allclose(errors["rates"], estimator.standard_errors(X)["rates"], rtol=1e-4)


# ----- the table ----------------------------------------------------------------------------------------------


def test_summary(faithful: NDArray[np.float64]) -> None:
    frame = pd.DataFrame(faithful, columns=["eruptions", "waiting"])
    mixture = lvm.GaussianMixture(2, **EXACT).fit(frame)
    summary = mixture.summary(frame, level=0.9)
    text = str(summary)
    assert text == repr(summary)
    assert "log-likelihood -1130.2640, 11 parameters, 272 rows" in text
    assert f"AIC {mixture.aic(frame):.4f}, BIC {mixture.bic(frame):.4f}; standard errors: sandwich" in text
    assert text.count("waiting x eruptions") == 2  # the lower halves of the matrices alone
    assert "    5%" in text
    assert "   95%" in text
    table = summary.to_frame()
    assert list(table.columns) == ["component", "parameter", "feature", "estimate", "std_error", "low", "high"]
    assert len(table) == 2 * (1 + 2 + 3)
    line = table[(table.component == 1) & (table.parameter == "means") & (table.feature == "waiting")].iloc[0]
    error = mixture.standard_errors(frame)["means"][1, 1]
    assert line.estimate == mixture.means_[1, 1]
    assert line.std_error == pytest.approx(error, rel=1e-12)
    assert line.low == pytest.approx(line.estimate - 1.6448536269514722 * error, rel=1e-12)
    assert line.high == pytest.approx(line.estimate + 1.6448536269514722 * error, rel=1e-12)


def test_summary_of_mixed_columns() -> None:
    estimator, X = fitted("mixed")
    table = estimator.summary(X).to_frame()
    first = table[table.component == 0]
    assert first.parameter.tolist() == [
        *("weights", "size.means", "size.means", "size.covariances", "size.covariances"),
        *("answer.probabilities",) * 3,
        "visits.rates",
    ]
    assert first.feature.tolist()[5:] == [*(f"column 2 = {c}" for c in estimator.categories_["answer"][0]), "column 3"]
    errors = estimator.standard_errors(X)
    assert {name: set(block) for name, block in errors.items() if name != "weights"} == {
        "size": {"means", "covariances"},
        "answer": {"probabilities"},
        "visits": {"rates"},
    }
    assert [each.shape for each in errors["answer"]["probabilities"]] == [(2, 3)]


def test_shared_held_and_missing_lines() -> None:
    tied = str(fitted("gaussian tied")[0].summary(NORMAL))
    assert "\nall        covariances  column 0" in tied
    held = lvm.BernoulliMixture(2, equal_weights=True, **EXACT).fit(BINARY).summary(BINARY)
    assert [each.error for each in held.estimates if each.parameter == "weights"] == [0.0, 0.0]
    (line, *_) = [line for line in str(held).splitlines() if "weights" in line]
    assert line.split()[-4:] == ["0.500", "-", "-", "-"]


@pytest.mark.parametrize("module", ["inference", "expert_inference", "evidence_inference"])
def test_examples(module: str) -> None:
    outcome = doctest.testmod(import_module(f"lvm.estimators.{module}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
