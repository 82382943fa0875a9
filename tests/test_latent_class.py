"""Latent class analysis: recorded optima; fit of a table of patterns and separation of classes, computed by hand."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import chisquare, power_divergence

import lvm
from lvm.families import Categorical
from lvm.latent_class import GoodnessOfFit, average_posteriors, complete_patterns, goodness_of_fit, relative_entropy
from lvm.models.mixture import MixtureParams

ITERATIONS = [1, 2, 5, 10]

# ----- patterns -----------------------------------------------------------------------------------------------------


def test_patterns_are_counted() -> None:
    codes = np.array([[1, 0], [0, 2], [1, 0], [0, -1], [0, 2], [1, 0], [-1, -1], [1, 1]])
    patterns, counts = complete_patterns(codes)
    assert_array_equal(patterns, [[0, 2], [1, 0], [1, 1]])
    assert_array_equal(counts, [2.0, 3.0, 1.0])
    patterns, counts = complete_patterns(codes, np.array([0.5, 1.0, 2.0, 9.0, 0.25, 0.0, 9.0, 0.0]))
    assert_array_equal(patterns, [[0, 2], [1, 0]])
    assert_array_equal(counts, [1.25, 2.5])


def test_no_complete_pattern() -> None:
    patterns, counts = complete_patterns(np.array([[0, -1], [-1, 1]]))
    assert patterns.shape == (0, 2)
    assert counts.shape == (0,)
    fit = goodness_of_fit(counts, np.empty(0), 2.0, 4, 1)
    assert np.isnan(fit.g_squared)
    assert np.isnan(fit.chi_squared)
    assert fit.degrees_of_freedom == 1


# ----- goodness of fit -----------------------------------------------------------------------------------------------


def test_goodness_of_fit_by_hand() -> None:
    """Of four cells expected to hold 4, 4, 1 and 1 of 10 rows, the last is empty."""
    fit = goodness_of_fit(np.array([5.0, 3.0, 2.0]), np.log([0.4, 0.4, 0.1]), 10.0, 4, 1)
    assert fit.g_squared == pytest.approx(2 * (5 * math.log(5 / 4) + 3 * math.log(3 / 4) + 2 * math.log(2)), rel=1e-14)
    assert fit.chi_squared == pytest.approx(1 / 4 + 1 / 4 + 1 + 1, rel=1e-14)
    assert fit.degrees_of_freedom == 2


@pytest.mark.parametrize("seed", range(3))
def test_goodness_of_fit_is_that_of_the_whole_table(seed: int) -> None:
    """scipy is given every cell; empty ones may also be handed in."""
    rng = np.random.RandomState(seed)
    p = rng.dirichlet(np.ones(12))
    counts = rng.multinomial(15, rng.dirichlet(np.ones(12))).astype(float)
    assert (counts == 0).any()
    seen = counts > 0
    fit = goodness_of_fit(counts[seen], np.log(p[seen]), 15.0, 12, 3)
    assert fit.chi_squared == pytest.approx(chisquare(counts, 15 * p).statistic, rel=1e-12)
    g_squared = power_divergence(counts, 15 * p, lambda_="log-likelihood").statistic
    assert fit.g_squared == pytest.approx(g_squared, rel=1e-12)
    assert_allclose(goodness_of_fit(counts, np.log(p), 15.0, 12, 3), fit, rtol=1e-12)


def test_a_saturated_model_fits_perfectly() -> None:
    counts = np.array([1.0, 2.5, 4.0])
    fit = goodness_of_fit(counts, np.log(counts / 7.5), 7.5, 3, 2)
    assert_allclose(fit, (0.0, 0.0, 0.0, 3), atol=1e-14)


def test_degrees_of_freedom_are_limited_by_rows() -> None:
    """Rows with missing cells count there, as in poLCA; a table may have more than 2**64 cells."""
    arguments = (np.array([5.0]), np.array([-1.0]))
    assert goodness_of_fit(*arguments, 8.0, 3**24, 97).degrees_of_freedom == 8 - 97
    assert goodness_of_fit(*arguments, 8.0, 5**60, 3).degrees_of_freedom == 5
    assert goodness_of_fit(*arguments, 8.0, 8, 3).degrees_of_freedom == 4


def test_an_observed_pattern_that_is_impossible() -> None:
    fit = goodness_of_fit(np.array([1.0, 1.0, 0.0]), np.array([0.0, -np.inf, -np.inf]), 2.0, 4, 1)
    assert fit == GoodnessOfFit(np.inf, np.inf, 1.0, 2)


def test_a_pattern_too_improbable_to_be_counted() -> None:
    """Its X squared overflows, its G squared does not."""
    fit = goodness_of_fit(np.array([1.0, 1.0]), np.array([0.0, -800.0]), 2.0, 4, 1)
    assert fit.chi_squared == np.inf
    assert fit.g_squared == pytest.approx(2 * (2 * math.log(0.5) + 800), rel=1e-14)


# ----- separation ----------------------------------------------------------------------------------------------------


def test_relative_entropy_by_hand() -> None:
    half = math.log(2)
    resp = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    assert relative_entropy(resp) == pytest.approx(1 - (half + 1.5 * half) / (3 * math.log(3)), rel=1e-14)
    weighted = relative_entropy(resp, np.array([2.0, 0.0, 3.0]))
    assert weighted == pytest.approx(1 - 3 * 1.5 * half / (5 * math.log(3)), rel=1e-14)


def test_relative_entropy_of_certain_and_of_equal_classes() -> None:
    assert relative_entropy(np.eye(4)) == 1.0
    assert relative_entropy(np.full((6, 4), 0.25)) == pytest.approx(0.0, abs=1e-15)
    assert relative_entropy(np.ones((5, 1))) == 1.0


def test_average_posteriors_by_hand() -> None:
    resp = np.array([[0.9, 0.1, 0.0], [0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [0.1, 0.6, 0.3]])
    assert_allclose(average_posteriors(resp)[0], [0.7, 0.8 / 3, 0.1 / 3], rtol=1e-14)
    assert_allclose(average_posteriors(resp)[1], [0.1, 0.6, 0.3], rtol=1e-14)
    assert np.isnan(average_posteriors(resp)[2]).all()
    weighted = average_posteriors(resp, np.array([3.0, 1.0, 0.0, 0.0]))
    assert_allclose(weighted[0], [0.85, 0.125, 0.025], rtol=1e-14)
    assert np.isnan(weighted[1:]).all()


def test_weights_are_repetitions() -> None:
    rng = np.random.RandomState(0)
    resp, weight = rng.dirichlet([0.5, 1.0, 0.7], 40), rng.randint(0, 4, 40)
    repeated, weights = np.repeat(resp, weight, axis=0), weight.astype(float)
    assert relative_entropy(resp, weights) == pytest.approx(relative_entropy(repeated), rel=1e-13)
    assert_allclose(average_posteriors(resp, weights), average_posteriors(repeated), rtol=1e-13)
    codes = rng.randint(-1, 3, (40, 2))
    for actual, desired in zip(
        complete_patterns(codes, weights), complete_patterns(np.repeat(codes, weight, axis=0)), strict=True
    ):
        assert_array_equal(actual, desired)


# ----- fitted models ------------------------------------------------------------------------------------------------


def test_likelihood_ratio_of_a_fit() -> None:
    """G squared is twice the gap between the saturated log-likelihood and that of the model, incomplete rows aside."""
    rng = np.random.RandomState(1)
    family = Categorical([2, 3, 2])
    params = family.params(np.array([[0.8, 0.2, 0.2, 0.3, 0.5, 0.6, 0.4], [0.3, 0.7, 0.5, 0.4, 0.1, 0.1, 0.9]]))
    model, mixture = lvm.Mixture(family), MixtureParams(np.array([0.4, 0.6]), params)
    codes = np.where(rng.uniform(size=(80, 3)) < 0.1, -1, model.sample(mixture, 80, rng)[0])
    patterns, counts = complete_patterns(codes)
    logliks = model.loglik(lvm.Rows(patterns), mixture)
    fit = goodness_of_fit(counts, logliks, 80.0, 12, model.n_parameters(mixture))
    complete = codes[(codes >= 0).all(axis=1)]
    saturated = float(counts @ np.log(counts / counts.sum()))
    assert 0 < len(complete) < 80
    assert fit.g_squared == pytest.approx(2 * (saturated - model.loglik(lvm.Rows(complete), mixture).sum()), rel=1e-12)
    table = np.array(list(product(range(2), range(3), range(2))))
    expected = len(complete) * np.exp(model.loglik(lvm.Rows(table), mixture))
    observed = np.array([np.sum((complete == cell).all(axis=1)) for cell in table])
    assert fit.chi_squared == pytest.approx(np.sum((observed - expected) ** 2 / expected), rel=1e-12)
    assert fit.degrees_of_freedom == 11 - 9


# What poLCA prints for its carcinoma data: classes, G squared, X squared, residual degrees of freedom.
CARCINOMA = [(2, 62.36543, 92.64814, 103), (3, 15.26171, 20.50336, 95)]


@pytest.mark.parametrize(("K", "g_squared", "chi_squared", "degrees_of_freedom"), CARCINOMA)
def test_published_fit(
    reference_folder: Path, K: int, g_squared: float, chi_squared: float, degrees_of_freedom: int
) -> None:
    folder = reference_folder / "latent_class_carcinoma"
    record = json.loads((folder / "result.json").read_text())
    X = np.genfromtxt(folder / "data.csv", delimiter=",", skip_header=1) - 1
    found: Any = next(fit for fit in record["fits_polca"] if fit["G"] == K)
    family = Categorical(record["categories"])
    model = lvm.Mixture(family)
    p = np.concatenate([np.array(values) for values in found["probs"].values()], axis=1)
    params = MixtureParams(np.array(found["weights"]), family.params(p))
    patterns, counts = complete_patterns(family.canonical(X).codes)
    logliks = model.loglik(lvm.Rows(patterns), params)
    fit = goodness_of_fit(counts, logliks, len(X), 2**7, model.n_parameters(params))
    assert_allclose(fit, (g_squared, chi_squared, degrees_of_freedom, len(counts)), rtol=0, atol=5.1e-6)


# ----- optima recorded from poLCA -----------------------------------------------------------------------------------


RECORDED = [("carcinoma", number) for number in range(6)] + [("verbalaggression", number) for number in range(4)]


@pytest.mark.parametrize(("case", "number"), RECORDED)
def test_published_optima(reference_folder: Path, case: str, number: int) -> None:
    """poLCA begins with an E-step; its trajectory is at the updated parameters."""
    folder = reference_folder / f"latent_class_{case}"
    record = json.loads((folder / "result.json").read_text())
    assert len(record["fits_polca"]) == sum(name == case for name, _ in RECORDED)
    found = record["fits_polca"][number]
    rows = lvm.Rows(np.genfromtxt(folder / "data.csv", delimiter=",", skip_header=1) - 1)  # coded from 1
    family = Categorical(record["categories"])
    model = lvm.Mixture(family)
    start = MixtureParams(
        np.array(found["start_weights"]), family.params(np.concatenate([*map(np.array, found["start_probs"])], axis=1))
    )
    trace = lvm.fit_em(model, rows, start, tol=0.0, max_iter=10).objective_trace
    # The same arithmetic in another order, and 15 recorded digits.
    assert_allclose(trace[ITERATIONS], found["loglik_after_iterations_1_2_5_10"], rtol=1e-12)
    end = lvm.fit_em(model, rows, start, tol=1e-14, max_iter=100_000)
    assert end.converged
    assert_allclose(end.loglik, found["loglik"], rtol=1e-8)
    assert model.n_parameters(end.params) == found["n_parameters"]
    after = lvm.fit_em(model, rows, start, tol=0.0, max_iter=found["iterations"]).params
    assert_allclose(after.weights, found["weights"], rtol=1e-7, atol=1e-7)
    desired = np.concatenate([np.array(p) for p in found["probs"].values()], axis=1)
    assert_allclose(after.components.probabilities, desired, rtol=1e-7, atol=1e-7)


def test_probabilities_that_all_but_vanish_come_back() -> None:
    """EM may take a probability below 1e-20 and back: a plain one, cell by cell, ends at the same maximum."""
    rng = np.random.RandomState(13)
    d, K = 40, 3
    family = Categorical([3] * d)
    truth = family.params(np.concatenate([rng.dirichlet(np.ones(3), K) for _ in range(d)], axis=1))
    X = np.concatenate([family.sample(truth, k, 27, rng) for k in range(K)])
    start = family.params(np.concatenate([rng.dirichlet(np.full(3, 4.0), K) for _ in range(d)], axis=1))
    weights, p = np.full(K, 1 / K), np.stack(np.split(start.probabilities, d, axis=1))
    smallest = []
    for _ in range(60):
        with np.errstate(divide="ignore"):
            joint = np.log(weights)[:, None] + sum(np.log(p[j][:, X[:, j]]) for j in range(d))
        logliks = logsumexp(joint, axis=0)
        resp = np.exp(joint - logliks)
        weights = resp.mean(axis=1)
        p = np.stack([np.stack([resp[:, X[:, j] == c].sum(axis=1) for c in range(3)], axis=1) for j in range(d)])
        p /= resp.sum(axis=1)[:, None]
        smallest.append(p[p > 0].min())
    assert min(smallest) < 1e-20
    found = lvm.fit_em(
        lvm.Mixture(family), lvm.Rows(X), MixtureParams(np.full(K, 1 / K), start), tol=1e-12, max_iter=60
    )
    assert found.loglik == pytest.approx(logliks.sum(), rel=1e-10)
