"""Mixtures of exponential and gamma amounts: what they recover, accept and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import ran
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import expon, gamma
from sklearn.utils import estimator_checks

import lvm
from lvm.families.positive import column_means, fill_means
from lvm.protocol import IncompleteRows

SHAPES = np.array([[2.0, 6.0], [9.0, 3.0]])
SCALES = np.array([[1.0, 30.0], [4.0, 500.0]])
NAMES = ["minutes", "cost"]
GAMMA: dict[str, Any] = {"random_state": 0, "tol": 1e-10}
ESTIMATORS = {
    "exponential": lvm.ExponentialMixture(2, **GAMMA),
    "gamma": lvm.GammaMixture(2, **GAMMA),
}
each = pytest.mark.parametrize("name", ESTIMATORS)


def make(name: str, **arguments: Any) -> Any:
    return type(ESTIMATORS[name])(**(ESTIMATORS[name].get_params() | arguments))


def data(name: str, n: int = 4000, missing: float = 0.0) -> tuple[Any, Any]:
    rng = np.random.RandomState(5)
    label = (rng.uniform(size=n) < 0.4).astype(int)
    X = rng.gamma(SHAPES[label] if name == "gamma" else 1.0, SCALES[label])
    X[rng.uniform(size=X.shape) < missing] = np.nan
    return X, label


def factors(mixture: Any, X: Any) -> Any:
    """Return the log densities of cells (K, n, d) by scipy, NaN where missing."""
    if isinstance(mixture, lvm.GammaMixture):
        return gamma.logpdf(X, mixture.shapes_[:, None], scale=mixture.scales_[:, None])
    return expon.logpdf(X, scale=mixture.scales_[:, None])


def in_order(array: Any, mixture: Any) -> Any:
    return array[np.argsort(mixture.scales_[:, 1])]


# ----- what is fitted -----------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("acceleration", [None, "anderson"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_parameters_are_recovered(name: str, missing: float, acceleration: Any) -> None:
    X, _ = data(name, 20_000, missing)
    mixture = make(name, acceleration=acceleration).fit(X)
    assert mixture.converged_
    assert np.diff(mixture.objective_trace_).min() > -1e-7
    # Some five standard errors: those of shapes and of scales beside them are about 2 per cent at 8,000 rows.
    assert_allclose(in_order(mixture.weights_, mixture), [0.6, 0.4], atol=0.02)
    assert_allclose(in_order(mixture.scales_, mixture), SCALES, rtol=0.12)
    if name == "gamma":
        assert_allclose(in_order(mixture.shapes_, mixture), SHAPES, rtol=0.12)


@each
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_probabilities_are_those_of_scipy(name: str, missing: float) -> None:
    X, _ = data(name, 500, missing)
    mixture = make(name).fit(X)
    joint = np.log(mixture.weights_)[:, None] + np.nansum(factors(mixture, X), axis=2)
    loglik = np.logaddexp(*joint)
    assert_allclose(mixture.score_samples(X), loglik, rtol=1e-11, atol=1e-14)
    assert_allclose(mixture.predict_proba(X), np.exp(joint - loglik).T, atol=1e-11)
    assert_array_equal(mixture.predict(X), joint.argmax(axis=0))
    assert mixture.loglik_ == pytest.approx(loglik.sum(), rel=1e-11)
    count = 1 + mixture.scales_.size * (2 if name == "gamma" else 1)
    assert mixture.n_parameters() == count
    assert mixture.bic(X) == pytest.approx(-2 * loglik.sum() + count * np.log(500), rel=1e-11)
    assert mixture.aic(X) == pytest.approx(-2 * loglik.sum() + 2 * count, rel=1e-11)
    entropy = -2 * np.log(mixture.predict_proba(X).max(axis=1)).sum()
    assert mixture.icl(X) == pytest.approx(mixture.bic(X) + entropy, rel=1e-11)


@each
def test_missing_cells_are_imputed_by_posterior_means(name: str) -> None:
    X, _ = data(name, 300, 0.3)
    mixture = make(name).fit(X)
    means = mixture.scales_ * (mixture.shapes_ if name == "gamma" else 1.0)
    expected = np.where(np.isnan(X), mixture.predict_proba(X) @ means, X)
    assert_allclose(mixture.impute(X), expected, rtol=1e-12)
    whole = np.nan_to_num(X, nan=1.0)
    assert_array_equal(mixture.impute(whole), whole)


@each
def test_weights_are_repetitions(name: str) -> None:
    X, _ = data(name, 300)
    times = np.random.RandomState(0).randint(0, 4, len(X))
    start = np.arange(len(X)) % 2
    weighted = make(name, init_params=start).fit(X, sample_weight=times)
    repeated = make(name, init_params=np.repeat(start, times)).fit(np.repeat(X, times, axis=0))
    assert_allclose(weighted.scales_, repeated.scales_, rtol=1e-9)
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, rel=1e-12)


@each
def test_labels_are_kept(name: str) -> None:
    X, label = data(name, 1000)
    some = np.where(np.arange(len(X)) < 300, 1 - label, -1)
    mixture = make(name).fit(X, labels=some)
    assert_array_equal(np.argsort(mixture.scales_[:, 1]), [1, 0])
    mask = np.ones((len(X), 2), int)
    mask[:300] = np.eye(2)[1 - label[:300]]
    assert make(name).fit(X, labels=mask).loglik_ == pytest.approx(mixture.loglik_, rel=1e-9)


@each
def test_starts_fixed_values_and_warm_starts(name: str) -> None:
    X, _ = data(name, 1000)
    mixture = make(name).fit(X)
    given = {"scales_init": mixture.scales_, "weights_init": mixture.weights_}
    if name == "gamma":
        given["shapes_init"] = mixture.shapes_
    assert make(name, **given).fit(X).n_iter_ <= 2
    assert mixture.set_params(warm_start=True).fit(X).n_iter_ <= 2
    fixed = {"scales": [[2.0, 40.0], [np.nan, np.nan]]}
    held = make(name, fixed=fixed).fit(X)
    assert_array_equal(held.scales_[0], [2.0, 40.0])
    assert held.n_parameters() == mixture.n_parameters() - 2
    assert held.loglik_ < mixture.loglik_
    assert np.diff(held.objective_trace_).min() > -1e-8


def test_prior_on_rates() -> None:
    X, _ = data("exponential", 200)
    mixture = make("exponential", rates_prior=(3.0, 10.0), tol=1e-13).fit(X)
    resp = mixture.predict_proba(X).T
    expected = (resp @ X + 10.0) / (resp.sum(axis=1)[:, None] + 2.0)
    assert_allclose(mixture.scales_, expected, rtol=1e-5)  # as far as EM has converged
    prior = (2 * -np.log(mixture.scales_) - 10.0 / mixture.scales_).sum()
    assert mixture.objective_trace_[-1] == pytest.approx(mixture.loglik_ + prior, rel=1e-12)


# ----- data of all kinds --------------------------------------------------------------------------------------


@each
def test_forms_of_data(name: str) -> None:
    X = np.ceil(data(name, 300)[0]).astype(np.float32)
    expected = make(name).fit(X.astype(np.float64))
    for form in (X, X.tolist(), X.astype(np.int32), np.asfortranarray(X), pd.DataFrame(X, columns=NAMES)):
        assert_array_equal(make(name).fit(form).scales_, expected.scales_)


@each
def test_units_change_nothing(name: str) -> None:
    X, _ = data(name, 500)
    unit = np.array([1e-100, 1e120])
    one, other = make(name).fit(X), make(name).fit(X * unit)
    assert_allclose(other.scales_ / unit, one.scales_, rtol=1e-8)
    assert_array_equal(one.predict(X), other.predict(X * unit))


def test_zeros_are_waiting_times() -> None:
    X, _ = data("exponential", 500)
    X[::7] = 0.0
    assert make("exponential").fit(X).converged_
    X[:, 0] = 0.0
    mixture = make("exponential", rates_prior=(1.0, 2.0)).fit(X)
    assert_allclose(mixture.scales_[:, 0] * 500 * mixture.weights_, 2.0, rtol=1e-6)


def test_column_means_are_of_observed_cells() -> None:
    X = np.array([[1.0, np.nan, np.nan], [4.0, 2.0, np.nan], [100.0, 100.0, 100.0]])
    weight = np.array([1.0, 3.0, 0.0])
    assert_allclose(column_means(IncompleteRows(X), weight), [3.25, 2.0, 0.0], rtol=1e-15)
    assert_allclose(column_means(np.ascontiguousarray(X[:, :1]), weight), [3.25], rtol=1e-15)
    fill_means(np.array([[0.25, 0.5, 0.0], [0.75, 0.5, 1.0]]), np.array([[0.0, 4.0, 8.0], [0.0, 8.0, 0.0]]), X)
    assert_array_equal(X, [[1.0, 7.0, 2.0], [4.0, 2.0, 4.0], [100.0, 100.0, 100.0]])


@each
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    X, _ = data(name, 300, 0.1)
    mixture = make(name, fixed={"weights": [0.5, 0.5]}).fit(pd.DataFrame(X, columns=NAMES))
    lvm.save(mixture, tmp_path / "m.lvm")
    loaded = lvm.load(tmp_path / "m.lvm")
    frame = pd.DataFrame(X, columns=NAMES)
    assert_array_equal(loaded.score_samples(frame), mixture.score_samples(frame))
    assert_array_equal(loaded.impute(frame), mixture.impute(frame))


@each
def test_samples_come_from_the_components(name: str) -> None:
    mixture = make(name).fit(data(name)[0])
    X, label = mixture.sample(40_000)
    means = mixture.scales_ * (mixture.shapes_ if name == "gamma" else 1.0)
    for k in range(2):
        assert_allclose(X[label == k].mean(axis=0), means[k], rtol=0.05)  # five standard errors are 4 per cent
    assert_allclose(np.bincount(label) / 40_000, mixture.weights_, atol=0.015)


@each
def test_command_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    X, _ = data(name, 200)
    pd.DataFrame(X, columns=NAMES).to_csv("data.csv", index=False)
    shown = ran("fit", "data.csv", "--family", name, "-k", "2", "--out", "out")
    assert f"per column: {'shape, scale' if name == 'gamma' else 'scale'}" in shown
    mixture = lvm.load("out/model.lvm")
    assert f"{mixture.scales_[0, 1]:.4g}" in shown
    assert ran("predict", "out/model.lvm", "data.csv").count("\n") == 201
    assert ran("sample", "out/model.lvm", "-n", "5").startswith("minutes,cost,component")


# ----- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("exponential", -2.5, r"Negative values in data: X must be >= 0 .*; got -2\.5 at row 3, column 1 \('cost'\)"),
        ("gamma", -2.5, r"Negative values in data: X must be > 0 .*; got -2\.5 at row 3, column 1 \('cost'\)"),
        ("gamma", 0.0, r"^X must be > 0 .*; got 0\.0 at row 3, column 1 \('cost'\)"),
        ("exponential", np.inf, r"infinity at row 3, column 1 \('cost'\)"),
    ],
)
def test_impossible_values_are_named(name: str, value: float, message: str) -> None:
    frame = pd.DataFrame(data(name, 20)[0], columns=NAMES)
    mixture = make(name).fit(frame)
    frame.loc[3, "cost"] = value
    for method in (make(name).fit, mixture.predict):
        with pytest.raises(ValueError, match=message):
            method(frame)


@each
def test_unobserved_columns_are_named(name: str) -> None:
    frame = pd.DataFrame(data(name, 20)[0], columns=NAMES).assign(cost=np.nan)
    with pytest.raises(ValueError, match=r"column 1 \('cost'\) of X has no observed value"):
        make(name).fit(frame)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("exponential", {"rates_prior": 2}, r"rates_prior must be a pair \(shape, rate\) or None, got 2"),
        ("exponential", {"scales_init": [[1.0, 1.0], [1.0, -1.0]]}, "scales .* > 0, got -1 in component 1, feature 1"),
        ("gamma", {"shapes_init": np.zeros((2, 2))}, "shapes .* > 0, got 0 in component 0, feature 0"),
        ("gamma", {"shapes_init": [1.0]}, r"'shapes' should have the shape of \(2, 2\), but got \(1,\)"),
        ("gamma", {"fixed": {"scales": [[np.nan] * 2, [3.0, -3.0]]}}, "scales .* got -3 in component 1, feature 1"),
        ("gamma", {"fixed": {"rates": 1}}, "fixed may hold 'weights', 'shapes', 'scales', got 'rates'"),
    ],
)
def test_wrong_arguments_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **arguments).fit(data(name, 20)[0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("exponential", 0.0, "failed: .*has no maximum.* .the scale of component 0, feature 1 is 0"),
        ("gamma", 3.0, "failed: .*has no maximum.* .the shape of component 0, feature 1 is infinite"),
    ],
)
@pytest.mark.parametrize("start", ["kmeans", "given"])
def test_degenerate_fits_say_why(name: str, value: float, message: str, start: str) -> None:
    """Whether the start degenerates or EM does."""
    X, _ = data(name, 50)
    X[:, 1] = value
    given = {f"{parameter}_init": np.ones((2, 2)) for parameter in type(make(name))._family_type.parameters}
    given["weights_init"] = np.full(2, 0.5)
    with pytest.raises(ValueError, match=message):
        make(name, **(given if start == "given" else {})).fit(X)


# ----- scikit-learn's checks of the gamma mixture -------------------------------------------------------------


def test_sklearn_checks_of_amounts_above_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's data for positive-only estimators start at 0, which is no gamma amount; here at 0.5."""
    original = estimator_checks._enforce_estimator_tags_X

    def above_zero(estimator: Any, X: Any, X_test: Any = None, **options: Any) -> Any:
        return original(estimator, X, X_test, **options) + 0.5

    monkeypatch.setattr(estimator_checks, "_enforce_estimator_tags_X", above_zero)
    done = estimator_checks.check_estimator(lvm.GammaMixture(), on_fail=None, on_skip=None)
    assert {check["check_name"] for check in done if check["status"] == "failed"} <= {
        "check_estimators_dtypes",  # rounds to integers, among them 0
        # Columns of few different values, where the likelihood of two components has no maximum.
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weights_not_an_array",
        "check_sample_weights_not_overwritten",
        "check_sample_weights_pandas_series",
        "check_sample_weights_shape",
    }
    assert sum(check["status"] == "passed" for check in done) > 35
