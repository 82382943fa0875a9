"""MixtureOfExperts: scikit-learn's checks, recorded optima, predictions, files, numerics."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from expert_cases import KINDS, crossing
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm

ROWS_AS_THEY_COME = {"check_sample_weight_equivalence_on_dense_data": "starts are lines through rows as they come"}


# ----- scikit-learn -----------------------------------------------------------------------------------------------


@parametrize_with_checks(
    [
        # the data of these checks are few, and some lie on a line
        lvm.MixtureOfExperts(random_state=0, alpha=1e-3, scales_prior=(1.0, 0.1), n_init=2),
        lvm.MixtureOfExperts(
            random_state=0, alpha=1e-3, scales_prior=(1.0, 0.1), gating="softmax", gating_alpha=0.1, n_init=2
        ),
        lvm.MixtureOfExperts(1, alpha=0.01, scales_prior=(1.0, 0.1), n_init=1),
        lvm.MixtureOfExperts(random_state=0, expert="multinomial", alpha=0.1, n_init=2),
    ],
    expected_failed_checks=lambda estimator: {
        **({} if estimator.n_components == 1 else ROWS_AS_THEY_COME),
        **({} if estimator.gating == "constant" else {"check_regressors_no_decision_function": "those of the gate"}),
    },
)
@pytest.mark.filterwarnings("ignore:EM did not converge:sklearn.exceptions.ConvergenceWarning")
def test_sklearn_check(estimator: Any, check: Any) -> None:
    check(estimator)


def test_tags() -> None:
    assert is_regressor(lvm.MixtureOfExperts())
    assert not hasattr(lvm.MixtureOfExperts(), "predict_proba")
    assert is_classifier(lvm.MixtureOfExperts(expert="multinomial"))
    with pytest.raises(NotFittedError):
        lvm.MixtureOfExperts().predict([[1.0]])


# ----- recorded optima --------------------------------------------------------------------------------------------


def recorded(folder: Path, name: str) -> tuple[Any, Any]:
    table = pd.read_csv(folder / name / "data.csv")
    return table, json.loads((folder / name / "result.json").read_text())


@pytest.mark.parametrize("name", ["regression_mixture_co2", "regression_mixture_npreg"])
@pytest.mark.parametrize("scales", ["free_sigma", "common_sigma"])
def test_mixtools(reference_folder: Path, name: str, scales: str) -> None:
    """From the recorded partition: the trajectory of mixtools' regmixEM, and its optimum."""
    table, result = recorded(reference_folder, name)
    expected = result[scales]
    X, y = table.drop(columns="y"), table["y"]
    start = result["start_labels_0based"]
    fit = lvm.MixtureOfExperts(
        2, equal_scales=scales == "common_sigma", init_params=start, tol=1e-13, max_iter=10_000
    ).fit(X, y)
    # the recorded numbers have 15 digits
    recorded_trace = expected["peer_loglik_at_start_and_after_1_2_5_10"]
    assert_allclose(fit.objective_trace_[[0, 1, 2, 5, 10]], recorded_trace, rtol=1e-12)
    assert_allclose(fit.loglik_, expected["loglik"], rtol=1e-10)
    assert fit.n_parameters() == expected["n_parameters"]
    assert_allclose(fit.bic(X, y), expected["bic"], rtol=1e-10)
    # parameters, where the optimum is flat, have half the digits of the log-likelihood
    best = expected["direct_maximisation"]
    found = np.column_stack([fit.intercepts_, fit.coefficients_])
    assert_allclose(found, best["coefficients_per_component"], rtol=1e-5)
    assert_allclose(fit.scales_, np.broadcast_to(best["sigma"], 2), rtol=1e-5)
    assert_allclose(fit.weights_, expected["weights"], rtol=1e-5)


def test_flexmix_poisson(reference_folder: Path) -> None:
    table, result = recorded(reference_folder, "regression_mixture_poisson_npreg")
    X, y = table[["x"]], table["y"]
    fit = lvm.MixtureOfExperts(
        2, expert="poisson", init_params=result["start_labels_0based"], tol=1e-13, max_iter=10_000
    ).fit(X, y)
    assert_allclose(fit.loglik_, result["direct_maximisation"]["loglik"], rtol=1e-11)
    assert fit.n_parameters() == result["n_parameters"]
    found = np.column_stack([fit.intercepts_, fit.coefficients_])
    assert_allclose(found, result["direct_maximisation"]["coefficients_per_component"], rtol=1e-4)


@pytest.mark.parametrize(("name", "expert"), [("experts_co2", "gaussian"), ("experts_poisson_npreg", "poisson")])
def test_experts_reach_direct_maximisation(reference_folder: Path, name: str, expert: str) -> None:
    table, result = recorded(reference_folder, name)
    X, y = table.iloc[:, [1]], table["y"]
    best = result["direct_maximisation"]
    fit = lvm.MixtureOfExperts(
        2, expert=expert, gating="softmax", init_params=result["start_labels_0based"], tol=1e-13, max_iter=10_000
    ).fit(X, y)
    assert_allclose(fit.loglik_, best["loglik"], rtol=1e-10)
    assert fit.n_parameters() == result["n_parameters"]
    assert_allclose(
        np.column_stack([fit.intercepts_, fit.coefficients_]), best["coefficients_per_component"], rtol=1e-3
    )
    gate = np.column_stack([fit.gating_intercepts_, fit.gating_coefficients_])
    assert_allclose(gate.sum(axis=0), 0, atol=1e-12)
    reference = np.array(best["gate_coefficients_per_component_first_is_reference"])
    assert_allclose(gate[1] - gate[0], reference[1], rtol=1e-2)
    # with covariates of its own, here the same
    again = lvm.MixtureOfExperts(
        2, expert=expert, gating="softmax", init_params=result["start_labels_0based"], tol=1e-13, max_iter=10_000
    ).fit(X, y, gating_X=X.to_numpy())
    assert again.loglik_ == fit.loglik_
    assert_array_equal(again.predict(X, gating_X=X.to_numpy()), fit.predict(X))


@pytest.mark.parametrize(
    ("name", "columns", "arguments", "best"),
    [
        ("regression_mixture_co2", ["GNP"], {}, -66.93977),
        ("regression_mixture_co2", ["GNP"], {"equal_scales": True}, -69.42382),
        ("regression_mixture_npreg", ["x", "x2"], {}, -642.53201),
        ("regression_mixture_poisson_npreg", ["x"], {"expert": "poisson"}, -440.64029),
        ("experts_co2", ["GNP"], {"gating": "softmax"}, -66.29656),
        ("experts_poisson_npreg", ["x"], {"expert": "poisson", "gating": "softmax"}, -440.55129),
    ],
)
def test_default_starts_find_the_best_optimum(
    reference_folder: Path, name: str, columns: list[str], arguments: dict[str, Any], best: float
) -> None:
    """The published -66.93977 of the CO2 data among them; one of ten lines in three leads there."""
    table, _ = recorded(reference_folder, name)
    for seed in range(3):
        fit = lvm.MixtureOfExperts(2, random_state=seed, **arguments).fit(table[columns], table["y"])
        assert_allclose(fit.loglik_, best, atol=5e-4)  # of the default tol, where EM is slow


# ----- predictions, files, draws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gating", ["constant", "softmax"])
def test_predictions_fit_together(kind: str, gating: str, tmp_path: Path) -> None:
    X, y, _ = crossing(kind=kind)
    table = pd.DataFrame(X, columns=["first", "second"])
    fit = lvm.MixtureOfExperts(2, expert=kind, gating=gating, random_state=0, alpha=0.1, gating_alpha=0.1).fit(table, y)
    gate, parts = fit.predict_gate_proba(table), fit.predict_components(table)
    assert_allclose(gate.sum(axis=1), 1, rtol=1e-12)
    assert_allclose(gate.mean(axis=0), fit.weights_, rtol=1e-10)
    if kind == "multinomial":
        assert_allclose(fit.predict_proba(table), np.einsum("ik,ikc->ic", gate, parts), rtol=1e-10)
        assert_allclose(fit.score(table, y), np.mean(fit.predict(table) == y))
    else:
        assert_allclose(fit.predict(table), (gate * parts).sum(axis=1), rtol=1e-10)
        assert gating == "constant" or np.array_equal(fit.predict_proba(table), gate)
    assert_array_equal(fit.feature_names_in_, ["first", "second"])
    attributes = {name for name in vars(fit) if name.endswith("_")}
    documented = set(type(fit).__doc__.split("Attributes\n")[1].split("References\n")[0].split())
    assert attributes <= documented
    # threads and repetitions change no bit
    again = lvm.MixtureOfExperts(2, expert=kind, gating=gating, random_state=0, alpha=0.1, gating_alpha=0.1, n_jobs=2)
    assert again.fit(table, y).loglik_ == fit.loglik_
    # files
    lvm.save(fit, tmp_path / "experts.lvm")
    loaded = lvm.load(tmp_path / "experts.lvm")
    assert_array_equal(loaded.predict(table), fit.predict(table))
    assert_array_equal(loaded.responsibilities(table, y), fit.responsibilities(table, y))
    # draws
    drawn, component = fit.sample(table)
    assert len(drawn) == len(component) == len(y)
    assert set(np.unique(component)) == {0, 1}


@pytest.mark.parametrize("kind", KINDS)
def test_draws_lead_back_to_the_parameters(kind: str) -> None:
    X, y, _ = crossing(kind=kind)
    fit = lvm.MixtureOfExperts(2, expert=kind, gating="softmax", random_state=0, alpha=1.0, gating_alpha=1.0).fit(X, y)
    many = np.tile(X, (100, 1))
    drawn, component = fit.sample(many)
    gate, parts = fit.predict_gate_proba(many), fit.predict_components(many)
    n = len(many)
    share = gate[:, 1].mean()
    # five standard errors
    assert abs(component.mean() - share) < 5 * np.sqrt(share * (1 - share) / n)
    if kind == "multinomial":
        drawn, parts = (drawn == "up").astype(float), parts[:, :, 2]
    errors = drawn - parts[np.arange(n), component]
    assert abs(errors.mean()) < 5 * errors.std() / np.sqrt(n)
    assert abs(np.mean(errors * X[:, 0].mean() * (many[:, 0] - 5))) < 5 * (
        errors * 5 * (many[:, 0] - 5)
    ).std() / np.sqrt(n)


# ----- numerics -----------------------------------------------------------------------------------------------------


def test_units_do_not_matter() -> None:
    """Offsets of 1e8 and scales of 1e-6 to 1e6 give the same fit, to what the data have left of their digits."""
    X, y, component = crossing()
    base = lvm.MixtureOfExperts(2, gating="softmax", init_params=component, tol=0, max_iter=50).fit(X, y)
    moved = lvm.MixtureOfExperts(2, gating="softmax", init_params=component, tol=0, max_iter=50).fit(
        X * [1e6, 1e-6] + [1e9, 1.0], y * 1e3 + 1e8
    )
    assert moved.n_iter_ == base.n_iter_ == 50
    assert_allclose(moved.loglik_, base.loglik_ - len(y) * np.log(1e3), rtol=1e-7)
    assert_allclose(moved.scales_, base.scales_ * 1e3, rtol=1e-6)
    assert_allclose(moved.coefficients_ * [1e6, 1e-6] / 1e3, base.coefficients_, rtol=1e-5)


def test_acceleration_ends_where_em_does() -> None:
    X, y, component = crossing(kind="poisson")
    arguments: dict[str, Any] = {"expert": "poisson", "gating": "softmax", "init_params": component, "max_iter": 20_000}
    plain = lvm.MixtureOfExperts(2, tol=1e-12, **arguments).fit(X, y)
    fast = lvm.MixtureOfExperts(2, tol=1e-12, acceleration="anderson", **arguments).fit(X, y)
    assert_allclose(fast.loglik_, plain.loglik_, rtol=1e-8)
    assert fast.n_iter_ < plain.n_iter_


def test_separating_gate_is_reported() -> None:
    rng = np.random.RandomState(0)
    x = np.r_[rng.uniform(-2, -1, 50), rng.uniform(1, 2, 50)]
    y = np.where(x < 0, 10 + x, -10 + 3 * x) + 0.1 * rng.randn(100)
    model = lvm.MixtureOfExperts(2, gating="softmax", random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"separates component \d from the others.*set gating_alpha > 0"):
        model.fit(x[:, None], y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = model.set_params(gating_alpha=0.1).fit(x[:, None], y)
    assert np.abs(fit.gating_coefficients_).max() < 10
    assert_allclose(sorted(fit.coefficients_.ravel()), [1, 3], atol=0.2)


def test_prior_allows_collinear_columns_and_exact_fits() -> None:
    X, y, _ = crossing()
    wide = np.column_stack([X, X[:, 0] + X[:, 1], np.ones(len(X))])
    fit = lvm.MixtureOfExperts(2, alpha=0.1, random_state=0).fit(wide, y)
    assert np.all(np.diff(fit.objective_trace_) >= -1e-10)
    assert fit.coefficients_[0, 3] == 0
    line = lvm.MixtureOfExperts(1, scales_prior=(1.0, 0.5)).fit(X, X @ [1.0, 2.0])
    assert_allclose(line.scales_, 0.5 / np.sqrt(301), rtol=1e-6)
    assert_allclose(line.coefficients_, [[1.0, 2.0]], rtol=1e-8)


def test_covariates_of_the_gate_are_known_by_their_names(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(rng.normal(size=(80, 2)), columns=["a", "b"])
    y = np.where(frame["b"] > 0, 1.0, -1.0) * frame["a"] + 0.1 * rng.normal(size=80)
    fit = lvm.MixtureOfExperts(2, gating="softmax", gating_alpha=0.1, random_state=0).fit(
        frame[["a"]], y, gating_X=frame
    )
    assert list(fit.gating_feature_names_in_) == ["a", "b"]
    lvm.save(fit, tmp_path / "fit.lvm")
    for model in (fit, lvm.load(tmp_path / "fit.lvm")):
        assert_array_equal(model.predict(frame[["a"]], frame), fit.predict(frame[["a"]], frame.to_numpy()))
        with pytest.raises(ValueError, match="the columns b, a, but the gate was fitted to a, b"):
            model.predict(frame[["a"]], frame[["b", "a"]])
    with pytest.raises(ValueError, match="gating_X has 79 rows, but X has 80"):
        fit.predict(frame[["a"]], frame[1:])
    assert not hasattr(fit.fit(frame[["a"]], y), "gating_feature_names_in_")
