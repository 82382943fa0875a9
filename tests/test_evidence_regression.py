"""Linear regression by maximum evidence: against normal densities, scikit-learn, and the published evidence."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ARDRegression, BayesianRidge
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm
from lvm.models.evidence_regression import EvidenceParams, EvidenceRegression, RegressionRows, regression_moments
from lvm.testing import Check, model_checks

RNG = np.random.default_rng(4)
FLAT: dict[str, Any] = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0, "compute_score": True}


def many_regressions(n: int, d: int) -> tuple[RegressionRows, list[tuple[Any, Any]]]:
    """Return regressions of random sizes with coefficients from one prior, and their data."""
    data = []
    for _ in range(n):
        X = RNG.normal(size=(int(RNG.integers(4, 9)), d))
        w = RNG.normal(size=d) * np.linspace(0.5, 2.0, d)
        data.append((X, X @ w + 0.7 * RNG.normal(size=len(X))))
    rows = [regression_moments(X, y, centred=False).rows[:5] for X, y in data]
    return RegressionRows(*(np.concatenate(parts) for parts in zip(*rows, strict=True))), data


ROWS, DATA = many_regressions(80, 3)
PARAMS = EvidenceParams(np.array([1.5]), np.array([1.0, 0.5, 2.0]))
EQUAL = EvidenceParams(np.array([1.5]), np.full(3, 0.8))
CHECKS = [
    *model_checks(EvidenceRegression("relevance"), PARAMS, ROWS),
    *model_checks(EvidenceRegression("shared"), EQUAL, ROWS._replace(weight=RNG.uniform(0.5, 2.0, 80))),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conformance(check: Check) -> None:
    check()


def density(X: Any, noise: float, prior: Any) -> Any:
    return multivariate_normal(np.zeros(len(X)), noise * np.eye(len(X)) + (X * prior) @ X.T)


def test_evidence_is_a_normal_density() -> None:
    """Of y, without the coefficients: from the n x n covariance, which the model never forms; also with v = 0."""
    for prior in ([1.0, 0.5, 2.0], [0.0, 3.0, 1e-8], [0.0, 0.0, 0.0], [1e8, 1e8, 1e8]):
        params = EvidenceParams(np.array([0.8]), np.array(prior))
        found = EvidenceRegression("relevance").loglik(ROWS, params)
        expected = [density(X, 0.8, params.prior).logpdf(y) for X, y in DATA]
        # The eigenvalues of the covariance span up to 1e9: logpdf inverts it with that error.
        np.testing.assert_allclose(found, expected, rtol=1e-11 if max(prior) < 1e6 else 1e-6)


def test_posterior_is_that_of_conditioning() -> None:
    """w given y in their joint normal distribution: prior X'C^-1 y, and prior - prior X'C^-1 X prior."""
    posterior = EvidenceRegression("relevance").posterior(ROWS, PARAMS)
    for i, (X, y) in enumerate(DATA):
        gain = (PARAMS.prior[:, None] * X.T) @ np.linalg.inv(1.5 * np.eye(len(X)) + (X * PARAMS.prior) @ X.T)
        covariance = np.diag(PARAMS.prior) - gain @ X * PARAMS.prior
        np.testing.assert_allclose(posterior.mean[i], gain @ y, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(posterior.covariance[i], covariance, rtol=1e-9, atol=1e-12)
        error = np.sum((y - X @ gain @ y) ** 2) + np.trace(X @ covariance @ X.T)
        assert posterior.error[i] == pytest.approx(error, rel=1e-10)


def test_variances_are_bishops() -> None:
    """Equations 9.62 and 9.63 for one regression."""
    X, y = RNG.normal(size=(30, 4)), RNG.normal(size=30)
    rows, model = regression_moments(X, y, centred=False).rows, EvidenceRegression("shared")
    params = EvidenceParams(np.array([0.5]), np.full(4, 2.0))
    new = model.mstep(model.estep_stats(rows, params), params)
    S = np.linalg.inv(np.eye(4) / 2.0 + X.T @ X / 0.5)
    m = S @ X.T @ y / 0.5
    np.testing.assert_allclose(new.prior, np.full(4, (m @ m + np.trace(S)) / 4), rtol=1e-12)
    assert new.noise[0] == pytest.approx((np.sum((y - X @ m) ** 2) + np.trace(X @ S @ X.T)) / 30, rel=1e-12)


def test_diabetes_has_the_published_evidence() -> None:
    """-2405.77, and scikit-learn's coefficients, from each start and with acceleration; tolerance of the last gains."""
    X, y = load_diabetes(return_X_y=True)
    reference = BayesianRidge(**FLAT, tol=1e-13, max_iter=5000).fit(X, y)
    for arguments in ({}, {"acceleration": "anderson"}, {"alpha_init": 1.0, "lambda_init": 1.0}):
        found = lvm.BayesianLinearRegression(tol=1e-15, max_iter=10_000, **arguments).fit(X, y)
        assert round(found.loglik_, 2) == -2405.77
        assert found.loglik_ == pytest.approx(reference.scores_[-1], abs=1e-8)
        np.testing.assert_allclose(found.coef_, reference.coef_, rtol=1e-4)
        np.testing.assert_allclose(found.sigma_, reference.sigma_, rtol=1e-4, atol=1e-4 * np.abs(found.sigma_).max())
        assert found.intercept_ == pytest.approx(reference.intercept_, rel=1e-10)
        assert found.alpha_ == pytest.approx(reference.alpha_, rel=1e-5)
        assert found.lambda_ == pytest.approx(reference.lambda_, rel=1e-5)
        assert np.all(np.diff(found.objective_trace_) >= -1e-9)
    mean, std = found.predict(X, return_std=True)
    # diabetes is centred, so that the different origins of the two standard deviations agree
    expected = reference.predict(X, return_std=True)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-5)
    np.testing.assert_allclose(std, expected[1], rtol=1e-5)
    assert found.score(X, y) == pytest.approx(reference.score(X, y), rel=1e-6)


def test_relevance_prunes_and_beats_scikit_learn() -> None:
    """The evidence at scikit-learn's precisions, by the same density, is not higher; the same features go."""
    X, y = load_diabetes(return_X_y=True)
    ard = ARDRegression(**{**FLAT, "compute_score": False}, tol=1e-10, max_iter=5000).fit(X, y)
    Xc, yc = X - X.mean(axis=0), y - y.mean()
    for acceleration in (None, "anderson"):
        found = lvm.BayesianLinearRegression(
            prior="relevance", tol=1e-12, max_iter=20_000, acceleration=acceleration
        ).fit(X, y)
        pruned = np.isinf(found.lambda_)
        np.testing.assert_array_equal(pruned, ard.lambda_ > 1e3)
        assert pruned.sum() == 3
        assert np.all(found.coef_[pruned] == 0)
        assert np.all(found.sigma_[pruned] == 0)
        own = density(Xc, 1 / found.alpha_, 1 / found.lambda_).logpdf(yc)
        assert found.loglik_ == pytest.approx(own, rel=1e-10)
        assert own >= density(Xc, 1 / ard.alpha_, np.where(pruned, 0.0, 1 / ard.lambda_)).logpdf(yc) - 1e-6
        np.testing.assert_allclose(found.coef_[~pruned], ard.coef_[~pruned], rtol=1e-3)
        assert found.loglik_ > lvm.BayesianLinearRegression().fit(X, y).loglik_
        assert len(found.objective_trace_) == found.n_iter_ + 1
        assert np.all(np.diff(found.objective_trace_) >= -1e-9)
        assert found.n_iter_ < 500  # EM alone is not there after 20,000


def test_relevance_is_a_maximum() -> None:
    """No optimiser of the n x n density finds more evidence from there, nor for a feature that is out."""
    X = RNG.normal(size=(40, 4))
    y = X @ [2.0, 0.0, -1.0, 0.0] + RNG.normal(size=40)
    found = lvm.BayesianLinearRegression(prior="relevance", fit_intercept=False, tol=1e-13).fit(X, y)

    def cost(logs: Any) -> float:
        return -float(density(X, np.exp(logs[0]), np.exp(logs[1:])).logpdf(y))

    with np.errstate(divide="ignore"):
        start = np.log(np.maximum(np.concatenate([[1 / found.alpha_], 1 / found.lambda_]), 1e-6))
    best = -minimize(cost, start, method="L-BFGS-B", bounds=[(-20, 5)] * 5).fun
    assert found.loglik_ >= best - 1e-6


def test_pruning_takes_features_back() -> None:
    """A relevant feature that is out comes back, to where its evidence is highest."""
    X = RNG.normal(size=(50, 3))
    y = X @ [1.0, 0.0, 2.0] + 0.5 * RNG.normal(size=50)
    model, rows = EvidenceRegression("relevance"), regression_moments(X, y).rows
    params = EvidenceParams(np.array([0.25]), np.array([1.0, 0.1, 0.0]))
    new = model.pruned(rows, params)
    assert new.prior[2] > 0
    evidence = model.loglik(rows, new)[0]
    assert evidence > model.loglik(rows, params)[0] + 10
    if new.prior[1] == 0:  # the last step may have been this one, and moved the others' optima
        new = model.pruned(rows, new)
    for factor in (0.5, 2.0):
        other = new._replace(prior=new.prior * [1, 1, factor])
        assert model.loglik(rows, other)[0] < evidence + 1e-6 or new.prior[1] == 0


@pytest.mark.parametrize("prior", ["shared", "relevance"])
def test_weights_are_repetitions(prior: str) -> None:
    X, times = RNG.normal(size=(30, 3)) + 5.0, RNG.integers(0, 4, 30)
    y = X @ [1.0, -1.0, 0.0] + RNG.normal(size=30)
    weighted = lvm.BayesianLinearRegression(prior=prior).fit(X, y, sample_weight=times)
    repeated = lvm.BayesianLinearRegression(prior=prior).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-8, atol=1e-12)
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, rel=1e-12)


def test_units_do_not_matter_to_relevance() -> None:
    X = RNG.normal(size=(60, 3))
    y = X @ [1.0, 0.0, 0.3] + RNG.normal(size=60)
    scale = np.array([1e-9, 1e6, 1e3])
    plain = lvm.BayesianLinearRegression(prior="relevance").fit(X, y)
    scaled = lvm.BayesianLinearRegression(prior="relevance").fit(X * scale + 10 * scale, 1e5 * y - 3)
    np.testing.assert_allclose(scaled.coef_ * scale / 1e5, plain.coef_, rtol=1e-5, atol=1e-7)
    assert scaled.loglik_ == pytest.approx(plain.loglik_ - 60 * np.log(1e5), abs=1e-5)


def test_moments_survive_an_offset() -> None:
    """Features and targets far from 0: sums of squares about the origin would have lost all digits."""
    X = RNG.normal(size=(200, 3))
    y = X @ [1.0, 2.0, 3.0] + 1e-3 * RNG.normal(size=200)
    plain = lvm.BayesianLinearRegression().fit(X, y)
    moved = lvm.BayesianLinearRegression().fit(X + 1e7, y + 1e8)
    # The data themselves are rounded to 1e-8 / 1e-3 of the noise.
    np.testing.assert_allclose(moved.coef_, plain.coef_, rtol=1e-6)
    assert moved.alpha_ == pytest.approx(plain.alpha_, rel=1e-4)


@pytest.mark.parametrize("prior", ["shared", "relevance"])
def test_constant_and_collinear_features(prior: str) -> None:
    """A constant has the coefficient 0; of two equal features, both predict as one; more features than rows do."""
    X = RNG.normal(size=(50, 2))
    y = 3 * X[:, 0] + 0.1 * RNG.normal(size=50)
    odd = np.column_stack([X, np.full(50, 7.0), X[:, 0], X[:, 0] + X[:, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = lvm.BayesianLinearRegression(prior=prior).fit(odd, y)
        plain = lvm.BayesianLinearRegression(prior=prior).fit(X, y)
        wide = lvm.BayesianLinearRegression(prior=prior).fit(RNG.normal(size=(10, 30)), RNG.normal(size=10))
    assert found.coef_[2] == 0
    assert np.all(np.linalg.eigvalsh(found.sigma_) > -1e-15)
    np.testing.assert_allclose(found.predict(odd), plain.predict(X), atol=0.1)
    assert np.all(np.isfinite(wide.coef_))
    assert np.isfinite(wide.loglik_)


def test_exact_targets_reach_the_bound_of_the_noise() -> None:
    X = RNG.normal(size=(20, 2))
    for acceleration in (None, "anderson"):
        found = lvm.BayesianLinearRegression(acceleration=acceleration).fit(X, X @ [1.0, 2.0])
        assert found.converged_
        np.testing.assert_allclose(found.coef_, [1.0, 2.0], rtol=1e-9)
        assert found.alpha_ == pytest.approx(1e10 / np.var(X @ [1.0, 2.0]), rel=1e-6)


def test_without_intercept_and_with_names() -> None:
    X = pd.DataFrame(RNG.normal(size=(40, 2)) + 2.0, columns=["a", "b"])
    y = X.to_numpy() @ [1.0, -1.0] + 0.1 * RNG.normal(size=40)
    found = lvm.BayesianLinearRegression(fit_intercept=False).fit(X, y)
    reference = BayesianRidge(**FLAT, tol=1e-12, fit_intercept=False).fit(X, y)
    assert found.intercept_ == 0
    assert found.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_allclose(found.coef_, reference.coef_, rtol=1e-5)
    np.testing.assert_allclose(
        found.predict(X, return_std=True)[1], reference.predict(X, return_std=True)[1], rtol=1e-4
    )


def test_std_covers() -> None:
    """New targets fall within two standard deviations as often as normal ones do: 95.4%, to five standard errors."""
    X = RNG.normal(size=(60, 10))
    w = RNG.normal(size=10)
    found = lvm.BayesianLinearRegression().fit(X, X @ w + RNG.normal(size=60))
    new = RNG.normal(size=(4000, 10))
    mean, std = found.predict(new, return_std=True)
    z = (new @ w + RNG.normal(size=4000) - mean) / std
    assert 0.9 < np.mean(np.abs(z) < 2) < 0.99  # of one draw of coefficients
    assert np.all(std > 1 / np.sqrt(found.alpha_))


def test_save_and_load(tmp_path: Any) -> None:
    X = RNG.normal(size=(30, 3))
    y = X @ [1.0, 0.0, 0.0] + RNG.normal(size=30)
    for prior in ("shared", "relevance"):
        found = lvm.BayesianLinearRegression(prior=prior).fit(X, y)
        lvm.save(found, tmp_path / "model.lvm")
        loaded = lvm.load(tmp_path / "model.lvm")
        for one, other in zip(found.predict(X, return_std=True), loaded.predict(X, return_std=True), strict=True):
            np.testing.assert_array_equal(one, other)
        assert str(loaded.lambda_) == str(found.lambda_)
    found.sigma_ = found.sigma_[:2]
    with pytest.raises(ValueError, match=r"sigma_ should be floats of shape \(3, 3\), got shape \(2, 3\)"):
        lvm.save(found, tmp_path / "model.lvm")


def fit(X: Any = None, y: Any = None, weight: Any = None, **arguments: Any) -> Any:
    X = np.arange(8.0).reshape(4, 2) ** 2 if X is None else X
    return lvm.BayesianLinearRegression(**arguments).fit(X, [1.0, 2.0, 0.0, 3.0] if y is None else y, weight)


def test_mistakes() -> None:
    for arguments, message in (
        ({"prior": "none"}, "prior must be one of 'shared', 'relevance', got 'none'"),
        ({"fit_intercept": 1}, "fit_intercept must be True or False, got 1"),
        ({"tol": -1.0}, "tol must be a finite number >= 0, got -1.0"),
        ({"acceleration": "fast"}, "acceleration must be one of 'anderson', got 'fast'"),
        ({"alpha_init": 0.0}, "alpha_init must be a finite number > 0, got 0.0"),
        ({"lambda_init": [1.0, 2.0]}, "lambda_init must be a finite number > 0, got"),
        ({"prior": "relevance", "lambda_init": [1.0]}, r"> 0 or an array of shape \(2,\), got \[1.0\]"),
        ({"y": [2.0, 2.0, 2.0, 2.0]}, "y is 2.0 in every row"),
        ({"y": [2.0, 2.0, 5.0, 2.0], "weight": [1, 1, 0, 1]}, "y is 2.0 in every row"),
        ({"y": [0.0] * 4, "fit_intercept": False}, "y is 0.0 in every row"),
        ({"weight": [0, 1, 0, 0]}, "there are n_samples=1 observations of positive weight"),
        ({"weight": [0, 1, -1, 0]}, r"sample_weight must be finite and >= 0; got -1"),
        ({"X": [[np.nan, 1.0]] * 4}, "Input X contains NaN"),
        ({"y": [1.0, np.nan, 0.0, 1.0]}, "Input y contains NaN"),
        ({"X": [[1e200, 1.0], [2.0, 3.0]] * 2}, "column 0 of X has a largest value of 1e\\+200"),
    ):
        with pytest.raises(ValueError, match=message), np.errstate(over="ignore"):
            fit(**arguments)
    with pytest.raises(ValueError, match="1 sample"):
        fit([[1.0, 2.0]], [1.0])
    with pytest.raises(ValueError, match="expected those of 2 regressions on 3"):
        EvidenceRegression().canonical(RegressionRows(np.ones((2, 3, 2)), np.ones((2, 3)), *np.ones((3, 2))))
    with pytest.warns(ConvergenceWarning, match=r"EM did not converge \(n_iter=2\)"):
        fit(max_iter=2, tol=1e-12)


def test_constant_target_may_have_no_intercept() -> None:
    assert np.isfinite(fit(y=[2.0] * 4, fit_intercept=False).loglik_)


def naive_fit(X: NDArray[np.float64], y: NDArray[np.float64], n_iter: int) -> tuple[float, float]:
    """Return noise and shared prior variance after so many iterations from scikit-learn's start."""
    noise, prior = float(np.var(y)), 1.0
    Xc, yc = X - X.mean(axis=0), y - y.mean()
    for _ in range(n_iter):
        S = np.linalg.inv(np.eye(X.shape[1]) / prior + Xc.T @ Xc / noise)
        m = S @ Xc.T @ yc / noise
        noise = (np.sum((yc - Xc @ m) ** 2) + np.trace(Xc @ S @ Xc.T)) / len(y)
        prior = (m @ m + np.trace(S)) / X.shape[1]
    return noise, prior


def test_iterations_are_the_textbooks() -> None:
    X = RNG.normal(size=(25, 3)) + 1.0
    y = X @ [1.0, 0.5, 0.0] + RNG.normal(size=25)
    found = lvm.BayesianLinearRegression(tol=0, max_iter=7, alpha_init=1 / np.var(y), lambda_init=1.0).fit(X, y)
    noise, prior = naive_fit(X, y, 7)
    assert 1 / found.alpha_ == pytest.approx(noise, rel=1e-11)
    assert 1 / found.lambda_ == pytest.approx(prior, rel=1e-11)
    assert found.n_iter_ == 7


@pytest.mark.filterwarnings("ignore:EM did not converge:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([lvm.BayesianLinearRegression(), lvm.BayesianLinearRegression(prior="relevance")])
def test_sklearn_check(estimator: Any, check: Any) -> None:
    check(estimator)
