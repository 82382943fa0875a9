"""PoissonMixture: optima from independent software, exposures, priors, missing cells, and the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import fails, ran
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

import lvm
from lvm.collapse import collapse
from lvm.families import Poisson
from lvm.families.counts import ExposedRows
from lvm.protocol import IncompleteRows

Array = NDArray[np.float64]
RATES = np.array([[1.0, 6.0, 0.5], [4.0, 2.0, 3.0]])
# Hasselblad (1969): deaths of women over 80 on a day, from The Times of 1910-1912, and the number of such days.
DEATHS, DAYS = np.arange(10)[:, None], np.array([162, 267, 271, 185, 111, 61, 27, 8, 3, 1])
TIGHT: dict[str, Any] = {"random_state": 0, "tol": 1e-13, "max_iter": 20_000}


def counts(n: int = 400, exposed: bool = False, missing: float = 0.0, seed: int = 0) -> tuple[Array, Array, Any]:
    """Return counts (n, 3) of two components, exposures (n,), which are 1 unless asked for, and the components."""
    rng = np.random.RandomState(seed)
    exposure = rng.uniform(0.2, 3.0, n) if exposed else np.ones(n)
    y = rng.choice(2, n, p=[0.4, 0.6])
    X = rng.poisson(exposure[:, None] * RATES[y]).astype(np.float64)
    X[rng.random_sample(X.shape) < missing] = np.nan
    return X, exposure, y


def logliks(mixture: Any, X: Any, exposure: Any = 1.0, joint: bool = False) -> Array:
    """Return the log-likelihood of each row by scipy, or with its components (n, K), without missing cells."""
    factors = np.broadcast_to(exposure, len(X))[:, None, None]
    each = np.nansum(stats.poisson.logpmf(np.asarray(X, np.float64)[:, None], factors * mixture.rates_), axis=2)
    each = each + np.log(mixture.weights_)
    return np.asarray(each if joint else logsumexp(each, axis=1))


# ----- optima -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(3))
def test_candy(place: int, reference_folder: Path) -> None:
    """flexmix's optimum from its start, and the same from a start of our own, for 2, 3 and 4 components."""
    folder = reference_folder / "poisson_candy"
    X = np.loadtxt(folder / "data.csv", skiprows=1)[:, None]
    fit = json.loads((folder / "result.json").read_text())["fits"][place]
    mixture = lvm.PoissonMixture(fit["G"], init_params=fit["start_labels_0based"], tol=1e-15, max_iter=2000).fit(X)
    assert_allclose(mixture.loglik_, fit["loglik"], rtol=1e-8)
    assert_allclose(mixture.rates_, fit["rates"], atol=1e-5)  # flat: gains of 1e-15 stop it
    assert_allclose(mixture.weights_, fit["weights"], atol=1e-5)
    assert_allclose(mixture.bic(X), fit["bic"], rtol=1e-8)
    own = lvm.PoissonMixture(fit["G"], tol=1e-10, acceleration="anderson", random_state=0).fit(X)
    assert_allclose(own.loglik_, fit["loglik"], atol=1e-6)


@pytest.mark.parametrize("acceleration", [None, "anderson"])
def test_deaths(acceleration: Any) -> None:
    """Hasselblad's optimum: weights 0.3599 and 0.6401, rates 1.2561 and 2.6634."""
    mixture = lvm.PoissonMixture(2, acceleration=acceleration, **TIGHT).fit(DEATHS, sample_weight=DAYS)
    first = np.argsort(mixture.rates_[:, 0])
    assert_allclose(mixture.loglik_, -1989.94586, atol=1e-5)
    assert_allclose(mixture.weights_[first], [0.3599, 0.6401], atol=1e-3)
    assert_allclose(mixture.rates_[first, 0], [1.2561, 2.6634], atol=1e-3)
    assert mixture.converged_
    if acceleration:
        assert mixture.n_iter_ < 100  # EM takes about 2000


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("seed", range(4))
def test_no_start_is_trapped_at_a_rate_of_zero(init_params: str, seed: int) -> None:
    """Rows of zeros alone, as k-means finds them, would start a component that can never leave 0."""
    mixture = lvm.PoissonMixture(
        2, init_params=init_params, tol=1e-11, max_iter=5000, acceleration="anderson", random_state=seed
    ).fit(DEATHS, sample_weight=DAYS)
    assert_allclose(mixture.loglik_, -1989.94586, atol=1e-5)


def test_parameters_are_recovered() -> None:
    X, exposure, y = counts(20_000, exposed=True)
    mixture = lvm.PoissonMixture(2, random_state=0).fit(X, exposure=exposure)
    order = np.argsort(mixture.rates_[:, 0])
    assert_allclose(mixture.rates_[order], RATES, rtol=0.05)  # about 8000 rows each: three standard errors or more
    assert_allclose(mixture.weights_[order], [0.4, 0.6], atol=0.02)
    assert np.mean(order[y] == mixture.predict(X, exposure)) > 0.8


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("exposed", [False, True])
def test_maximum_a_posteriori_is_an_optimisers(exposed: bool, missing: float) -> None:
    X, exposure, _ = counts(150, exposed, missing)
    a, b = 3.0, 2.0
    mixture = lvm.PoissonMixture(2, rates_prior=(a, b), **TIGHT).fit(X, exposure=exposure)

    def objective(vector: Array) -> float:
        trial = lvm.PoissonMixture(2)
        trial.weights_, trial.rates_ = softmax(np.append(vector[0], 0.0)), np.exp(vector[1:].reshape(2, 3))
        prior = ((a - 1) * np.log(trial.rates_) - b * trial.rates_).sum()
        return -float(logliks(trial, X, exposure).sum() + prior)

    start = np.append(np.log(mixture.weights_[0] / mixture.weights_[1]), np.log(mixture.rates_) + 0.1)
    best = minimize(objective, start, tol=1e-10)
    assert_allclose(mixture.objective_trace_[-1], -best.fun, rtol=1e-9)
    assert_allclose(mixture.rates_.ravel(), np.exp(best.x[1:]), rtol=1e-4)  # of the optimiser
    assert mixture.loglik_ < lvm.PoissonMixture(2, **TIGHT).fit(X, exposure=exposure).loglik_


# ----- exposures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("exposed", [False, True])
def test_everything_is_scipys(exposed: bool, missing: float) -> None:
    X, exposure, _ = counts(300, exposed, missing)
    given = {"exposure": exposure} if exposed else {}
    weight = np.random.RandomState(1).uniform(0.5, 2.0, 300)
    mixture = lvm.PoissonMixture(2, random_state=0).fit(X, sample_weight=weight, **given)
    joint, each = logliks(mixture, X, exposure, joint=True), logliks(mixture, X, exposure)
    resp = np.exp(joint - each[:, None])
    assert_allclose(mixture.score_samples(X, **given), each, rtol=1e-11)
    assert_allclose(mixture.predict_proba(X, **given), resp, rtol=1e-9, atol=1e-15)
    assert_array_equal(mixture.predict(X, **given), resp.argmax(axis=1))
    total = float(weight @ each)
    assert_allclose(mixture.loglik_, total, rtol=1e-12)
    assert_allclose(mixture.score(X, sample_weight=weight, **given), total / weight.sum(), rtol=1e-12)
    assert mixture.n_parameters() == 7
    assert_allclose(mixture.aic(X, weight, **given), -2 * total + 14, rtol=1e-12)
    assert_allclose(mixture.bic(X, weight, **given), -2 * total + 7 * np.log(weight.sum()), rtol=1e-12)
    icl = -2 * total + 7 * np.log(weight.sum()) - 2 * weight @ np.log(resp.max(axis=1))
    assert_allclose(mixture.icl(X, weight, **given), icl, rtol=1e-12)
    filled = np.where(np.isnan(X), exposure[:, None] * (resp @ mixture.rates_), X)
    assert_allclose(mixture.impute(X, **given), filled, rtol=1e-9)
    assert_array_equal(
        mixture.predict(X, **given), lvm.PoissonMixture(2, random_state=0).fit_predict(X, None, weight, None, **given)
    )


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_an_exposure_of_one_is_none_bit_for_bit(missing: float) -> None:
    X, ones, _ = counts(missing=missing)
    plain = lvm.PoissonMixture(2, random_state=3).fit(X)
    for exposure in (1, 1.0, ones, ones.tolist(), pd.Series(ones)):
        other = lvm.PoissonMixture(2, random_state=3).fit(X, exposure=exposure)
        assert_array_equal(other.rates_, plain.rates_)
        assert_array_equal(other.score_samples(X, exposure), plain.score_samples(X))
        assert_array_equal(other.sample(400, exposure)[0], plain.sample(400)[0])


def test_units_of_exposure_do_not_matter() -> None:
    """Twice the exposure halves the rates, with the same likelihood; a scalar stands for all rows."""
    X, exposure, _ = counts(exposed=True)
    fits = [lvm.PoissonMixture(2, **TIGHT).fit(X, exposure=factor * exposure) for factor in (1.0, 2.0, 365.25)]
    for factor, fit in zip((2.0, 365.25), fits[1:], strict=True):
        assert_allclose(factor * np.sort(fit.rates_, axis=0), np.sort(fits[0].rates_, axis=0), rtol=1e-6)
        assert_allclose(fit.loglik_, fits[0].loglik_, rtol=1e-11)
    X, _, _ = counts()
    halved, plain = lvm.PoissonMixture(2, **TIGHT).fit(X, exposure=2), lvm.PoissonMixture(2, **TIGHT).fit(X)
    assert_allclose(2 * np.sort(halved.rates_, axis=0), np.sort(plain.rates_, axis=0), rtol=1e-6)
    assert_allclose(halved.score_samples(X, 2), plain.score_samples(X), rtol=1e-6)


def test_exposures_and_counts_doubled_keep_the_rates_of_one_component() -> None:
    """K = 1: the rate is the total of the counts by that of the exposures, cell by cell where some are missing."""
    X, exposure, _ = counts(exposed=True, missing=0.2)
    fit = lvm.PoissonMixture(1).fit(X, exposure=exposure)
    assert_allclose(fit.rates_[0], np.nansum(X, axis=0) / (exposure @ ~np.isnan(X)), rtol=1e-12)
    assert_allclose(lvm.PoissonMixture(1).fit(2 * X, exposure=2 * exposure).rates_, fit.rates_, rtol=1e-12)


def test_exposures_matter() -> None:
    """Without them, long observation looks like a component of its own."""
    rng = np.random.RandomState(0)
    exposure = np.where(rng.uniform(size=300) < 0.5, 1.0, 10.0)
    X = rng.poisson(3.0 * exposure)[:, None]
    with_exposure, without = lvm.PoissonMixture(2, random_state=0), lvm.PoissonMixture(2, random_state=0)
    assert_allclose(with_exposure.fit(X, exposure=exposure).rates_, 3.0, rtol=0.2)
    assert np.ptp(without.fit(X).rates_) > 20


def test_samples_have_their_exposures() -> None:
    X, exposure, _ = counts(exposed=True)
    mixture = lvm.PoissonMixture(2, random_state=0).fit(X, exposure=exposure)
    long = np.random.RandomState(1).uniform(1.0, 5.0, 50_000)
    drawn, y = mixture.sample(50_000, long)
    assert drawn.shape == (50_000, 3)
    assert drawn.dtype == np.int64
    assert np.all(np.diff(y) >= 0)
    for k in range(2):
        means = drawn[y == k].sum(axis=0) / long[y == k].sum()
        assert_allclose(means, mixture.rates_[k], atol=5 * np.sqrt(mixture.rates_[k].max() / 50_000))
        z = (drawn - long[:, None] * mixture.rates_[k])[y == k] / np.sqrt(long[y == k, None] * mixture.rates_[k])
        assert_allclose(z.var(axis=0), 1.0, atol=0.1)  # as Poisson counts about exposure times rate, row by row
    assert_allclose(mixture.sample(50_000, 3.0)[0].mean(), 3 * (mixture.weights_ @ mixture.rates_).mean(), rtol=0.02)


def test_wrong_exposures_are_refused() -> None:
    X, _, _ = counts(20)
    mixture = lvm.PoissonMixture(2, random_state=0).fit(X)
    for value in (0.0, -2.5, np.nan, np.inf):
        exposure = np.ones(20)
        exposure[7] = value
        message = f"exposure must be finite and > 0; got {value} at row 7"
        for use in (mixture.fit, mixture.predict, mixture.score_samples, mixture.bic, mixture.impute):
            with pytest.raises(ValueError, match=message):
                use(X, exposure=exposure)
        with pytest.raises(ValueError, match=message):
            mixture.sample(20, exposure)
    with pytest.raises(ValueError, match=r"exposure has shape \(3,\), expected \(20,\)"):
        mixture.predict(X, np.ones(3))
    with pytest.raises(ValueError, match=r"exposure has shape \(3,\), expected \(5,\)"):
        mixture.sample(5, np.ones(3))
    with pytest.raises(ValueError, match="Invalid value for 'n_samples': 0"):
        mixture.sample(0, 1.0)


def test_a_start_on_a_subsample_keeps_its_exposures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvm.initialize.MAX_START_ROWS", 200)
    X, exposure, _ = counts(2000, exposed=True, missing=0.1)
    found = lvm.PoissonMixture(2, random_state=0, tol=1e-10).fit(X, exposure=exposure)
    monkeypatch.undo()
    whole = lvm.PoissonMixture(2, random_state=0, tol=1e-10).fit(X, exposure=exposure)
    assert_allclose(found.loglik_, whole.loglik_, rtol=1e-8)


# ----- equal rows, weights, labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("exposed", [False, True])
def test_equal_rows_are_collapsed(exposed: bool, missing: float) -> None:
    """Rows that differ in their exposure alone stay apart; the fit is the same."""
    rng = np.random.RandomState(0)
    X = rng.poisson([[1.0], [4.0]], (2, 500)).reshape(-1, 1).astype(np.float64)
    X[rng.random_sample(X.shape) < missing] = np.nan
    exposure = rng.choice([1.0, 2.5], 1000) if exposed else np.ones(1000)
    rows = Poisson().canonical(ExposedRows(X, exposure if exposed else None))
    collapsed, first = collapse(lvm.Rows(rows), True)
    pairs = pd.DataFrame({"x": X[:, 0], "e": exposure}).fillna(-1.0)
    distinct = pairs.drop_duplicates()
    assert_array_equal(first, distinct.index)
    assert_array_equal(collapsed.weight, pairs.groupby(["x", "e"], sort=False).size())
    assert isinstance(collapsed.X, ExposedRows if exposed else IncompleteRows if missing else np.ndarray)
    fits = [
        lvm.PoissonMixture(2, deduplicate=flag, **TIGHT).fit(X, exposure=exposure) for flag in (True, False, "auto")
    ]
    for fit in fits[1:]:
        assert_allclose(fit.rates_, fits[0].rates_, rtol=1e-6)
        assert_allclose(fit.loglik_, fits[0].loglik_, rtol=1e-12)


@pytest.mark.parametrize("exposed", [False, True])
def test_weights_are_repeated_rows(exposed: bool) -> None:
    X, exposure, _ = counts(120, exposed)
    weight = np.random.RandomState(1).randint(0, 4, 120)
    weighted = lvm.PoissonMixture(2, **TIGHT).fit(X, sample_weight=weight, exposure=exposure)
    again = np.repeat(np.arange(120), weight)
    repeated = lvm.PoissonMixture(2, **TIGHT).fit(X[again], exposure=exposure[again])
    assert_allclose(weighted.loglik_, repeated.loglik_, rtol=1e-11)
    assert_allclose(weighted.rates_, repeated.rates_, rtol=1e-6)


@pytest.mark.parametrize("exposed", [False, True])
def test_labels_and_masks(exposed: bool) -> None:
    X, exposure, y = counts(200, exposed, missing=0.1)
    labels = np.where(np.arange(200) % 2 == 0, y, -1)
    mask = np.where(labels[:, None] < 0, 1, np.equal.outer(labels, [0, 1]))
    by_label, by_mask = (
        lvm.PoissonMixture(2, **TIGHT).fit(X, labels=given, exposure=exposure) for given in (labels, mask)
    )
    assert_allclose(by_mask.rates_, by_label.rates_, rtol=1e-6)
    assert_allclose(by_label.rates_, RATES, rtol=0.4)  # in the order of the labels
    joint = logliks(by_label, X, exposure, joint=True)
    total = float(np.where(labels < 0, logsumexp(joint, axis=1), joint[np.arange(200), labels]).sum())
    assert_allclose(by_label.loglik_, total, rtol=1e-12)
    assert_allclose(by_label.bic(X, labels=mask, exposure=exposure), -2 * total + 7 * np.log(200), rtol=1e-12)
    whole = lvm.PoissonMixture(2, **TIGHT).fit(X, labels=y, exposure=exposure)
    rates = [np.nansum(X[y == k], axis=0) / (exposure[y == k] @ ~np.isnan(X[y == k])) for k in range(2)]
    assert_allclose(whole.rates_, rates, rtol=1e-12)


# ----- what is given, kept and refused ------------------------------------------------------------------------------


def test_fixed_and_starting_rates() -> None:
    X, _, _ = counts()
    held = np.array([[1.0, 6.0, 0.5], [np.nan] * 3])
    mixture = lvm.PoissonMixture(2, fixed={"rates": held}, random_state=0).fit(X)
    assert_array_equal(mixture.rates_[0], held[0])
    assert mixture.n_parameters() == 4
    started = lvm.PoissonMixture(2, rates_init=RATES, weights_init=[0.5, 0.5], max_iter=0).fit(X)
    assert_array_equal(started.rates_, RATES)
    again = lvm.PoissonMixture(2, random_state=0, warm_start=True).fit(X)
    assert again.fit(X).n_iter_ <= 2
    with pytest.raises(ValueError, match="rates must be finite and >= 0, got -1 in component 0, feature 2"):
        lvm.PoissonMixture(2, rates_init=RATES - [0.0, 0.0, 1.5]).fit(X)
    with pytest.raises(ValueError, match="got -3 in component 1, feature 0"):
        lvm.PoissonMixture(2, fixed={"rates": [[np.nan] * 3, [-3.0, 1.0, 1.0]]}).fit(X)
    with pytest.raises(ValueError, match=r"rates_prior\[0\] must be a finite number >= 1, got 0.5"):
        lvm.PoissonMixture(2, rates_prior=(0.5, 1.0)).fit(X)


@pytest.mark.parametrize("value", [-1, -1.0, 0.5])
def test_values_are_refused_by_name(value: Any) -> None:
    table = pd.DataFrame({"visits": [1, 2, 0, 4], "calls": [0, value, 2, 3]})
    what = r"counts >= 0 \(Negative values in data\)" if value < 0 else "whole counts"
    for use in (lvm.PoissonMixture(2).fit, lvm.PoissonMixture(2).fit(table.abs().round()).predict):
        with pytest.raises(ValueError, match=rf"X must be {what}; got {value} at row 1, column 1 \('calls'\)"):
            use(table)
    table["calls"] = np.nan
    with pytest.raises(ValueError, match=r"column 1 \('calls'\) of X has no observed value"):
        lvm.PoissonMixture(2).fit(table, exposure=2.0)
    with pytest.raises(ValueError, match=r"contains infinity at row 0, column 0 \('visits'\)"):
        lvm.PoissonMixture(2).fit(table.assign(visits=np.inf))


def test_forms_of_input_and_saving(tmp_path: Path) -> None:
    X, exposure, _ = counts(exposed=True)
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    mixture = lvm.PoissonMixture(2, rates_prior=(1.5, 0.5), random_state=0).fit(table, exposure=exposure)
    assert mixture.feature_names_in_.tolist() == ["a", "b", "c"]
    for form in (X, X.astype(int), X.astype(np.float32), X.tolist(), np.asfortranarray(X)):
        other = lvm.PoissonMixture(2, rates_prior=(1.5, 0.5), random_state=0).fit(form, exposure=exposure.tolist())
        assert_array_equal(other.rates_, mixture.rates_)
    lvm.save(mixture, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    assert_array_equal(loaded.score_samples(table, exposure), mixture.score_samples(table, exposure))
    assert_array_equal(loaded.sample(50, 2.0)[0], mixture.sample(50, 2.0)[0])
    assert_array_equal(loaded.fit(table, exposure=exposure).rates_, mixture.rates_)


@pytest.mark.parametrize("criterion", ["bic", "heldout"])
def test_selection_with_exposures(criterion: str) -> None:
    X, exposure, _ = counts(exposed=True)
    arguments: dict[str, Any] = {"n_components": [1, 2, 3], "criterion": criterion}
    found = lvm.select(lvm.PoissonMixture(random_state=0), X, exposure=exposure, **arguments)
    assert found.best.n_components == 2
    assert_allclose(found.table[1].bic, found.best.bic(X, exposure=exposure))
    assert found.table[1].bic < lvm.select(lvm.PoissonMixture(random_state=0), X, **arguments).table[1].bic - 100


# ----- command line -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_command_line() -> None:
    X, exposure, _ = counts(exposed=True)
    table = pd.DataFrame(X.astype(int), columns=["a", "b", "c"]).assign(hours=exposure)
    table.to_csv("counts.csv", index=False)
    printed = ran("fit", "counts.csv", "--family", "poisson", "-k", "2", "--exposure-column", "hours", "-o", "out")
    assert "PoissonMixture, K = 2" in printed
    mixture = lvm.load("out/model.lvm")
    assert mixture.feature_names_in_.tolist() == ["a", "b", "c"]
    assert f"{mixture.rates_[0, 0]:.4g}" in printed
    rows = table[["a", "b", "c"]]
    best = lvm.PoissonMixture(2, n_init=5, random_state=0).fit(rows, exposure=exposure)
    assert_allclose(mixture.rates_, best.rates_)
    given = ("out/model.lvm", "counts.csv", "--exposure-column", "hours")
    assigned = pd.read_csv(io.StringIO(ran("predict", *given)))
    assert_array_equal(assigned["component"], mixture.predict(rows, exposure))
    assert f"{mixture.score_samples(rows, exposure).sum():.10g}" in ran("score", *given)
    assert f"{mixture.score_samples(rows).sum():.10g}" in ran("score", "out/model.lvm", "counts.csv")
    drawn = pd.read_csv(io.StringIO(ran("sample", "out/model.lvm", "-n", "7")))
    assert list(drawn) == ["a", "b", "c", "component"]
    lvm.save(lvm.PoissonMixture(2, random_state=0).fit(X), "nameless.lvm")
    assert len(ran("predict", "nameless.lvm", *given[1:]).splitlines()) == 401


@pytest.mark.usefixtures("folder")
def test_command_line_refuses() -> None:
    table = pd.DataFrame({"a": [1, 2, 3, 4], "b": [1, 0, 2, 1], "hours": [1.0, 2.0, 0.0, 1.0]})
    table.to_csv("counts.csv", index=False)
    arguments = ("fit", "counts.csv", "--exposure-column", "hours", "-k", "1")
    assert fails(*arguments).startswith("--exposure-column is for --family poisson, got --family gaussian")
    assert "got --family poisson" in fails(*arguments, "--family", "poisson", "--plot", "-o", "out")
    message = "column 'hours' of counts.csv holds 0 at row 2 (line 4); expected exposures > 0."
    assert fails(*arguments, "--family", "poisson") == message
    lvm.save(lvm.GaussianMixture(1).fit(table[["a", "b"]]), "gaussian.lvm")
    message = "--exposure-column is for a PoissonMixture, gaussian.lvm holds a GaussianMixture; leave it out."
    assert fails("score", "gaussian.lvm", *arguments[1:4]) == message
    table.assign(hours=0.5).to_csv("counts.csv", index=False)
    assert "X must be whole counts; got 0.5 at row 0, column 2 ('hours')" in fails(
        "fit", "counts.csv", "--family", "poisson", "-k", "1"
    )
