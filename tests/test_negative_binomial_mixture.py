"""NegativeBinomialMixture: published optima, likelihoods by scipy, missing cells, and the command line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import ran
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

import lvm
from lvm.collapse import collapse
from lvm.families import NegativeBinomial

Array = NDArray[np.float64]
MEANS, SIZES = np.array([[2.0, 9.0], [10.0, 3.0]]), np.array([[1.0, 4.0], [3.0, 2.0]])
ACCELERATED: dict[str, Any] = {"random_state": 0, "tol": 1e-12, "max_iter": 5000, "acceleration": "anderson"}


def counts(n: int = 500, missing: float = 0.0, seed: int = 0) -> tuple[Array, Any]:
    """Return counts (n, 2) of two components, and the components."""
    rng = np.random.RandomState(seed)
    y = rng.choice(2, n, p=[0.4, 0.6])
    X = rng.poisson(rng.gamma(SIZES[y], (MEANS / SIZES)[y])).astype(np.float64)
    X[rng.random_sample(X.shape) < missing] = np.nan
    return X, y


def logliks(weights: Array, means: Array, sizes: Array, X: Array) -> Array:
    """Return log densities of rows and components (n, K) by scipy, without missing cells."""
    each = stats.nbinom.logpmf(np.asarray(X, np.float64)[:, None], sizes, sizes / (sizes + means))
    return np.asarray(np.nansum(each, axis=2) + np.log(weights))


def of(mixture: Any, X: Array) -> Array:
    return logliks(mixture.weights_, mixture.means_, mixture.sizes_, X)


# ----- optima -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acceleration", [None, "anderson"])
def test_mites(acceleration: Any) -> None:
    """Bliss & Fisher (1953): red mites on 150 apple leaves have a size of 1.02459 by maximum likelihood."""
    mites, leaves = np.arange(8)[:, None], [70, 38, 17, 10, 9, 3, 2, 1]
    mixture = lvm.NegativeBinomialMixture(1, tol=1e-13, acceleration=acceleration).fit(mites, sample_weight=leaves)
    assert_allclose(mixture.sizes_, 1.02459, atol=1e-5)
    assert_allclose(mixture.means_, 172 / 150, rtol=1e-9)
    assert mixture.converged_


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_optimum_is_an_optimisers(missing: float) -> None:
    X, _ = counts(200, missing)
    mixture = lvm.NegativeBinomialMixture(2, **ACCELERATED).fit(X)

    def negative(vector: Array) -> float:
        means, sizes = np.exp(vector[1:]).reshape(2, 2, 2)
        return -float(logsumexp(logliks(softmax(np.append(vector[0], 0.0)), means, sizes, X), axis=1).sum())

    odds = np.log(mixture.weights_[0] / mixture.weights_[1])
    start = np.concatenate([[odds], np.log(mixture.means_).ravel() + 0.1, np.log(mixture.sizes_).ravel() - 0.1])
    best = minimize(negative, start, tol=1e-9)
    assert_allclose(mixture.loglik_, -best.fun, atol=1e-6)
    assert_allclose(mixture.means_.ravel(), np.exp(best.x[1:5]), rtol=2e-3)  # flat: differences of 1e-6 in the optimum
    assert_allclose(mixture.sizes_.ravel(), np.exp(best.x[5:]), rtol=2e-3)


def test_parameters_are_recovered() -> None:
    X, y = counts(20_000)
    mixture = lvm.NegativeBinomialMixture(2, acceleration="anderson", random_state=0).fit(X)
    order = np.argsort(mixture.means_[:, 0])
    assert_allclose(mixture.means_[order], MEANS, rtol=0.06)
    assert_allclose(mixture.sizes_[order], SIZES, rtol=0.15)
    assert_allclose(mixture.weights_[order], [0.4, 0.6], atol=0.02)
    assert np.mean(order[y] == mixture.predict(X)) > 0.85


def test_it_fits_what_varies_more_than_poisson_counts() -> None:
    X, _ = counts()
    assert (
        lvm.NegativeBinomialMixture(2, **ACCELERATED).fit(X).bic(X)
        < lvm.PoissonMixture(2, random_state=0).fit(X).bic(X) - 500
    )


def test_large_sizes_are_poissons() -> None:
    """Sizes held at their largest leave the Poisson mixture."""
    X = np.random.RandomState(0).poisson([[2.0], [9.0]], (2, 100)).reshape(-1, 1)
    poisson = lvm.PoissonMixture(2, tol=1e-12, random_state=0).fit(X)
    held = lvm.NegativeBinomialMixture(2, fixed={"sizes": [[1e8], [1e8]]}, tol=1e-12, random_state=0).fit(X)
    assert_allclose(np.sort(held.means_, axis=0), np.sort(poisson.rates_, axis=0), rtol=1e-5)
    assert_allclose(held.loglik_, poisson.loglik_, rtol=1e-7)
    assert held.n_parameters() == poisson.n_parameters() == 3


@pytest.mark.parametrize("seed", range(4))
def test_no_start_is_trapped_at_a_mean_of_zero(seed: int) -> None:
    X = np.repeat(np.arange(8), [70, 38, 17, 10, 9, 3, 2, 1])[:, None]
    mixture = lvm.NegativeBinomialMixture(2, max_iter=5, tol=0, random_state=seed).fit(X)
    assert mixture.means_.min() > 1e-3


# ----- what a fit tells -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_everything_is_scipys(missing: float) -> None:
    X, _ = counts(300, missing)
    weight = np.random.RandomState(1).uniform(0.5, 2.0, 300)
    mixture = lvm.NegativeBinomialMixture(2, random_state=0, tol=1e-5).fit(X, sample_weight=weight)
    joint = of(mixture, X)
    each = logsumexp(joint, axis=1)
    resp = np.exp(joint - each[:, None])
    total = float(weight @ each)
    assert_allclose(mixture.score_samples(X), each, rtol=1e-10, atol=1e-14)  # 0 where all is missing
    assert_allclose(mixture.predict_proba(X), resp, rtol=1e-8, atol=1e-15)
    assert_array_equal(mixture.predict(X), resp.argmax(axis=1))
    assert_allclose(mixture.loglik_, total, rtol=1e-11)
    assert_allclose(mixture.score(X, sample_weight=weight), total / weight.sum(), rtol=1e-11)
    assert mixture.n_parameters() == 9
    assert_allclose(mixture.aic(X, weight), -2 * total + 18, rtol=1e-11)
    bic = -2 * total + 9 * np.log(weight.sum())
    assert_allclose(mixture.bic(X, weight), bic, rtol=1e-11)
    assert_allclose(mixture.icl(X, weight), bic - 2 * weight @ np.log(resp.max(axis=1)), rtol=1e-11)
    assert_allclose(mixture.impute(X), np.where(np.isnan(X), resp @ mixture.means_, X), rtol=1e-8)


def test_samples_have_the_moments_of_the_fit() -> None:
    X, _ = counts()
    mixture = lvm.NegativeBinomialMixture(2, random_state=0).fit(X)
    drawn, y = mixture.sample(60_000)
    assert drawn.dtype == np.int64
    assert np.all(np.diff(y) >= 0)
    variances = mixture.means_ + mixture.means_**2 / mixture.sizes_
    for k in range(2):
        assert_allclose(drawn[y == k].mean(axis=0), mixture.means_[k], rtol=0.05)
        assert_allclose(drawn[y == k].var(axis=0), variances[k], rtol=0.1)


# ----- equal rows, weights, labels --------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_equal_rows_are_collapsed(missing: float) -> None:
    X, _ = counts(600, missing)
    X = X[:, :1]
    collapsed, _ = collapse(lvm.Rows(NegativeBinomial().canonical(X)), True)
    assert len(collapsed.X) == len(pd.DataFrame(X).drop_duplicates())
    arguments = {**ACCELERATED, "tol": 0.0, "max_iter": 5, "acceleration": None}
    fits = [lvm.NegativeBinomialMixture(2, deduplicate=flag, **arguments).fit(X) for flag in (True, False)]
    assert_allclose(fits[0].sizes_, fits[1].sizes_, rtol=1e-10)
    assert_allclose(fits[0].loglik_, fits[1].loglik_, rtol=1e-12)


def test_weights_are_repeated_rows() -> None:
    X, _ = counts(120)
    weight = np.random.RandomState(1).randint(0, 4, 120)
    arguments: dict[str, Any] = {"tol": 0.0, "max_iter": 10, "random_state": 0, "deduplicate": False}
    weighted = lvm.NegativeBinomialMixture(2, **arguments).fit(X, sample_weight=weight)
    repeated = lvm.NegativeBinomialMixture(2, **arguments).fit(np.repeat(X, weight, axis=0))
    assert_allclose(np.sort(weighted.means_, axis=0), np.sort(repeated.means_, axis=0), rtol=1e-9)
    # The method of moments starts sizes alike; what differs is the order of sums.
    assert_allclose(np.sort(weighted.sizes_, axis=0), np.sort(repeated.sizes_, axis=0), rtol=1e-9)


def test_labels_and_masks() -> None:
    X, y = counts(200, missing=0.1)
    labels = np.where(np.arange(200) % 2 == 0, y, -1)
    mask = np.where(labels[:, None] < 0, 1, np.equal.outer(labels, [0, 1]))
    by_label, by_mask = (lvm.NegativeBinomialMixture(2, **ACCELERATED).fit(X, labels=given) for given in (labels, mask))
    assert_allclose(by_mask.loglik_, by_label.loglik_, atol=1e-6)
    assert by_label.means_[0, 0] < by_label.means_[1, 0]  # in the order of the labels
    joint = of(by_label, X)
    total = float(np.where(labels < 0, logsumexp(joint, axis=1), joint[np.arange(200), labels]).sum())
    assert_allclose(by_label.loglik_, total, rtol=1e-11)


# ----- what is given, kept and refused ------------------------------------------------------------------------------


def test_fixed_and_starting_values() -> None:
    X, _ = counts(200)
    held = np.array([[1.0, 4.0], [np.nan, np.nan]])
    mixture = lvm.NegativeBinomialMixture(2, fixed={"sizes": held}, random_state=0, max_iter=20, tol=0).fit(X)
    assert_array_equal(mixture.sizes_[0], held[0])
    assert np.all(mixture.sizes_[1] != 3.0)
    assert mixture.n_parameters() == 7
    start: dict[str, Any] = {"means_init": MEANS, "sizes_init": SIZES, "weights_init": [0.4, 0.6]}
    started = lvm.NegativeBinomialMixture(2, max_iter=0, **start).fit(X)
    assert_array_equal(started.means_, MEANS)
    assert_array_equal(started.sizes_, SIZES)
    warm = lvm.NegativeBinomialMixture(2, warm_start=True, max_iter=3, tol=0, random_state=0).fit(X)
    first = warm.loglik_
    assert warm.fit(X).objective_trace_[0] == first
    with pytest.raises(ValueError, match="sizes must be between 1e-6 and 1e8, got 0 in component 1, feature 0"):
        lvm.NegativeBinomialMixture(2, sizes_init=[[1.0, 1.0], [0.0, 1.0]]).fit(X)
    with pytest.raises(ValueError, match="means must be finite and >= 0, got -1 in component 0, feature 1"):
        lvm.NegativeBinomialMixture(2, fixed={"means": [[1.0, -1.0], [np.nan, np.nan]]}).fit(X)


@pytest.mark.parametrize("value", [-1, -1.0, 2.5])
def test_values_are_refused_by_name(value: Any) -> None:
    table = pd.DataFrame({"visits": [1, 2, 0, 4], "calls": [0, value, 2, 3]})
    what = r"counts >= 0 \(Negative values in data\)" if value < 0 else "whole counts"
    with pytest.raises(ValueError, match=rf"X must be {what}; got {value} at row 1, column 1 \('calls'\)"):
        lvm.NegativeBinomialMixture(2).fit(table)
    table["calls"] = np.nan
    with pytest.raises(ValueError, match=r"column 1 \('calls'\) of X has no observed value"):
        lvm.NegativeBinomialMixture(2).fit(table)


def test_forms_of_input_and_saving(tmp_path: Path) -> None:
    X, _ = counts(150)
    arguments: dict[str, Any] = {"random_state": 0, "max_iter": 10, "tol": 0}
    table = pd.DataFrame(X, columns=["a", "b"])
    mixture = lvm.NegativeBinomialMixture(2, **arguments).fit(table)
    for form in (X, X.astype(int), X.astype(np.float32), X.tolist(), np.asfortranarray(X)):
        assert_array_equal(lvm.NegativeBinomialMixture(2, **arguments).fit(form).sizes_, mixture.sizes_)
    lvm.save(mixture, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    assert_array_equal(loaded.score_samples(table), mixture.score_samples(table))
    assert_array_equal(loaded.sample(50)[0], mixture.sample(50)[0])


@pytest.mark.usefixtures("folder")
def test_command_line() -> None:
    X, _ = counts(200, missing=0.1)
    table = pd.DataFrame(X, columns=["a", "b"])
    table.to_csv("counts.csv", index=False)
    printed = ran("fit", "counts.csv", "--family", "negative_binomial", "-k", "2", "--tol", "1e-4", "-o", "out")
    assert "NegativeBinomialMixture, K = 2" in printed
    mixture = lvm.load("out/model.lvm")
    assert f"{mixture.means_[0, 0]:.4g}" in printed
    assert f"{mixture.sizes_[1, 1]:.4g}" in printed
    assigned = pd.read_csv(io.StringIO(ran("predict", "out/model.lvm", "counts.csv")))
    assert_array_equal(assigned["component"], mixture.predict(table))
    drawn = pd.read_csv(io.StringIO(ran("sample", "out/model.lvm", "-n", "7")))
    assert list(drawn) == ["a", "b", "component"]
    assert len(drawn) == 7
