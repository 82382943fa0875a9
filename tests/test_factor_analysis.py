"""Factor analysis and probabilistic PCA: the model, the estimators, rotations, against independent routes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conformance import each_check
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis as ByScikitLearn
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm
from lvm.models.factor_analysis import FactorModel, FactorParams, MomentRows, sample_moments
from lvm.models.factor_rotation import varimax

LOADINGS = np.array([[1.0, 0.0], [0.8, 0.3], [0.5, -0.5], [-0.7, 0.6], [0.2, 1.0]])
NOISE = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
TRUE = FactorParams(np.arange(5.0), LOADINGS, NOISE)


def drawn(n: int, seed: int = 0) -> Any:
    return FactorModel().sample(TRUE, n, np.random.RandomState(seed))[0]


def with_holes(X: Any, share: float = 0.15, seed: int = 1) -> Any:
    return np.where(np.random.RandomState(seed).rand(*X.shape) < share, np.nan, X)


def six_tests(n: int = 400, seed: int = 0) -> Any:
    """Return rows of six columns that two factors explain, in unlike units."""
    rng = np.random.RandomState(seed)
    loadings = np.array([[1.0, 0.1], [0.9, 0.0], [0.8, 0.3], [0.1, 1.0], [0.0, 0.8], [0.3, 0.7]])
    X = rng.randn(n, 2) @ loadings.T + rng.randn(n, 6) * [0.5, 0.8, 0.6, 0.7, 0.9, 0.6]
    return X * [1.0, 10.0, 0.1, 1.0, 100.0, 3.0] + 5.0


# ----- the model --------------------------------------------------------------------------------------------------


def cases() -> dict[str, tuple[Any, Any, Any]]:
    rng = np.random.RandomState(2)
    X = drawn(150)
    start = FactorParams(TRUE.mean + 0.1, LOADINGS[:, :1] + 0.1 * rng.randn(5, 1), np.full(5, 1.0))
    groups = MomentRows(X[:60], np.array([np.cov(rng.randn(5, 9)) for _ in range(60)]), rng.rand(60) + 0.5)
    found = {}
    for name, isotropic in (("free noise", False), ("isotropic", True)):
        model = FactorModel(isotropic, 0.01)
        found[f"{name}, weights"] = model, start, lvm.Rows(X, rng.rand(150) + 0.2)
        found[f"{name}, holes"] = model, start, lvm.Rows(with_holes(X))
        found[f"{name}, moments"] = model, start, groups
    return found


@each_check(cases())
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("isotropic", [False, True])
def test_moments_stand_for_the_rows(isotropic: bool) -> None:
    """Log-likelihood, statistics and fit are those of the rows themselves."""
    X, weight = drawn(80), np.random.RandomState(3).rand(80)
    model = FactorModel(isotropic)
    rows, moments = model.canonical(lvm.Rows(X, weight)), sample_moments(X, weight)
    for one, other in zip(model.estep_stats(rows, TRUE), model.estep_stats(moments, TRUE), strict=True):
        assert_allclose(one, other, rtol=1e-10, atol=1e-10)
    reference = multivariate_normal(TRUE.mean, LOADINGS @ LOADINGS.T + np.diag(NOISE)).logpdf(X)
    assert_allclose(model.loglik(rows, TRUE), reference, rtol=1e-12)
    assert_allclose(model.estep_stats(moments, TRUE).loglik, weight @ reference, rtol=1e-12)
    start = model.start(moments, 2)
    by_rows, by_moments = (lvm.fit_em(model, part, start, max_iter=20, tol=0.0) for part in (rows, moments))
    assert_allclose(by_rows.objective_trace, by_moments.objective_trace, rtol=1e-11)


def test_no_parameters_nearby_are_better() -> None:
    """The fitted point is the maximum that a general optimiser finds from there and from the truth."""
    X = drawn(120)
    moments = sample_moments(X, None)
    model = FactorModel()
    fit = lvm.fit_anderson(model, moments, model.start(moments, 2), tol=1e-13)

    def negative(vector: Any) -> float:
        return -model.estep_stats(moments, model.from_vector(vector, TRUE)).loglik

    best = minimize(negative, model.to_vector(TRUE, TRUE), method="BFGS", options={"gtol": 1e-6}).fun
    assert fit.loglik == pytest.approx(-best, abs=1e-6)  # BFGS ends at a gradient of about this times distances of 1


@pytest.mark.parametrize("d", [2, 7])
def test_loglik_of_missing_cells(d: int) -> None:
    rng = np.random.RandomState(d)
    params = FactorParams(rng.randn(d), rng.randn(d, 1), rng.rand(d) + 0.1)
    X = with_holes(rng.randn(40, d), 0.4)
    X[0] = np.nan
    model = FactorModel()
    found = model.loglik(model.canonical(lvm.Rows(X)), params)
    for x, value in zip(X, found, strict=True):
        seen = ~np.isnan(x)
        if seen.any():
            covariance = params.covariance[np.ix_(seen, seen)]
            assert value == pytest.approx(multivariate_normal(params.mean[seen], covariance).logpdf(x[seen]), rel=1e-10)
    assert found[0] == 0.0


def test_malformed_moments_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"1 groups of 3 features need covariances of shape \(1, 3, 3\), got \(1, 2, 2\)"
    ):
        FactorModel().canonical(MomentRows(np.zeros((1, 3)), np.eye(2)[None]))
    with pytest.raises(ValueError, match="the moments must be finite"):
        FactorModel().canonical(MomentRows(np.full((1, 2), np.nan), np.eye(2)[None]))
    with pytest.raises(ValueError, match=r"min_noise_variance must be finite and >= 0.* got -1.0"):
        FactorModel(min_noise_variance=-1.0)


# ----- against other software -------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 2])
def test_scikit_learn_agrees(q: int) -> None:
    X = six_tests()[:, [0, 1, 2, 5]] if q == 1 else six_tests()
    other = ByScikitLearn(q, tol=1e-13, max_iter=100_000, svd_method="lapack").fit(X)
    model = lvm.FactorAnalysis(q, tol=1e-13).fit(X)
    assert model.score(X) == pytest.approx(other.score(X), abs=1e-8)
    # Where the likelihood is flat to 1e-13 per row, covariances are to about its root.
    assert_allclose(model.get_covariance(), other.get_covariance(), rtol=1e-5)
    assert_allclose(model.score_samples(X), other.score_samples(X), atol=1e-4)
    assert_allclose(np.abs(model.transform(X)), np.abs(other.transform(X)), atol=1e-4)
    assert model.loglik_ == pytest.approx(model.score(X) * len(X), rel=1e-11)
    assert_allclose(model.get_precision() @ model.get_covariance(), np.eye(X.shape[1]), atol=1e-9)


def _with_correlations(R: Any, n: int) -> Any:
    """Return n rows whose correlations are exactly R, and variances 1."""
    Z = np.random.RandomState(0).randn(n, len(R))
    Z = np.linalg.svd(Z - Z.mean(axis=0), full_matrices=False)[0] * np.sqrt(n)
    return Z @ np.linalg.cholesky(R).T


@pytest.fixture(scope="module")
def ability(reference_folder: Path) -> Any:
    """R's fits of one to three factors to `ability.cov`; three leave no residual, which gives the correlations."""
    fits = json.loads((reference_folder / "factor_ability" / "result.json").read_text())["fits"]
    loadings = np.array(fits[2]["loadings_unrotated_correlation_scale"])
    R = loadings @ loadings.T + np.diag(fits[2]["uniquenesses_correlation_scale"])
    np.fill_diagonal(R, 1.0)
    return fits, _with_correlations(R, 112)


@pytest.mark.parametrize(("q", "statistic", "dof"), [(1, 75.18, 9), (2, 6.11, 4)])
def test_published_factors_of_ability(ability: Any, q: int, statistic: float, dof: int) -> None:
    fits, X = ability
    model = lvm.FactorAnalysis(q, tol=1e-13).fit(X)
    assert model.loglik_ == pytest.approx(fits[q - 1]["loglik_standardised"], rel=1e-8)
    # The correlations are known to 1e-8, and R's optimiser stopped at a gradient near it.
    assert_allclose(model.uniquenesses_, fits[q - 1]["uniquenesses_correlation_scale"], atol=1e-6)
    assert_allclose(np.abs(model.loadings_), np.abs(fits[q - 1]["loadings_unrotated_correlation_scale"]), atol=1e-6)
    assert model.n_parameters() == fits[q - 1]["n_parameters_with_means"]
    test = model.chi_square_test()
    assert (round(test.statistic, 2), test.dof) == (statistic, dof)


def test_published_promax_of_ability(ability: Any) -> None:
    """Correlation of factors and loadings that R's manual of `ability.cov` prints to three digits."""
    model = lvm.FactorAnalysis(2, rotation="promax", tol=1e-13).fit(ability[1])
    assert model.factor_correlations_[0, 1] == pytest.approx(0.557, abs=1e-3)
    assert_allclose(model.loadings_[:, 0], [0.364, -0.057, -0.091, -0.053, 1.023, 0.811], atol=2e-3)
    assert_allclose(model.communalities_, 1 - model.uniquenesses_, rtol=1e-12)


# ----- probabilistic PCA ------------------------------------------------------------------------------------------


def test_pca_has_its_closed_form() -> None:
    X = six_tests()
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    q, d = 2, 6
    noise = values[: d - q].mean()
    model = lvm.ProbabilisticPCA(q, min_noise_variance=0.0).fit(X)
    assert model.noise_variance_ == pytest.approx(noise, rel=1e-10)
    expected = vectors[:, ::-1][:, :q] * np.sqrt(values[::-1][:q] - noise)
    assert_allclose(np.abs(model.loadings_), np.abs(expected), rtol=1e-8, atol=1e-8 * np.abs(expected).max())
    log_det = np.log(values[::-1][:q]).sum() + (d - q) * np.log(noise)
    assert model.score(X) == pytest.approx(-0.5 * (d * np.log(2 * np.pi) + log_det + d), rel=1e-12)
    assert model.n_parameters() == d + d * q + 1 - 1
    assert model.n_iter_ <= 2


def test_em_reaches_the_closed_form_from_elsewhere() -> None:
    moments = sample_moments(six_tests(), None)
    model = FactorModel(isotropic=True)
    best = model.start(moments, 2)
    off = FactorParams(best.mean + 1.0, np.random.RandomState(0).randn(6, 2), np.full(6, 100.0))
    fit = lvm.fit_em(model, moments, off, tol=1e-13, max_iter=20_000)
    assert fit.loglik == pytest.approx(model.estep_stats(moments, best).loglik, rel=1e-11)


# ----- the estimators ---------------------------------------------------------------------------------------------

ESTIMATORS = [lvm.FactorAnalysis(1, allow_unidentified=True, random_state=0), lvm.ProbabilisticPCA(1, random_state=0)]
each = pytest.mark.parametrize("kind", [lvm.FactorAnalysis, lvm.ProbabilisticPCA])


@pytest.mark.filterwarnings("ignore:.*Heywood")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@each
def test_weights_are_repetitions(kind: Any) -> None:
    X, times = six_tests(60), np.random.RandomState(0).randint(0, 3, 60)
    weighted = kind(2).fit(X, sample_weight=times)
    repeated = kind(2).fit(np.repeat(X, times, axis=0))
    assert_allclose(weighted.get_covariance(), repeated.get_covariance(), rtol=1e-7)
    assert weighted.bic(X, times) == pytest.approx(repeated.bic(np.repeat(X, times, axis=0)), rel=1e-9)
    expected = -2 * repeated.loglik_ + 2 * repeated.n_parameters()
    assert weighted.aic(X, times) == pytest.approx(expected, rel=1e-9)


@each
@pytest.mark.parametrize("acceleration", [None, "anderson"])
def test_missing_cells(kind: Any, acceleration: str | None) -> None:
    """EM climbs the likelihood of what is observed, to where reweighted rows have no better parameters."""
    X = with_holes(six_tests(), 0.1)
    model = kind(2, acceleration=acceleration, tol=1e-10, max_iter=20_000).fit(X)
    assert np.diff(model.objective_trace_).min() > -1e-8
    assert model.loglik_ == pytest.approx(model.score(X) * len(X), rel=1e-11)
    whole = kind(2).fit(six_tests())
    assert_allclose(model.get_covariance(), whole.get_covariance(), atol=0.2 * np.abs(whole.get_covariance()).max())
    means, covariances = model.transform(X[:20], return_cov=True)
    covariance, loadings = model.get_covariance(), model.loadings_
    for x, mean, spread in zip(X[:20], means, covariances, strict=True):
        seen = ~np.isnan(x)
        gain = loadings[seen].T @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        assert_allclose(mean, gain @ (x - model.mean_)[seen], rtol=1e-8, atol=1e-10)
        assert_allclose(spread, np.eye(2) - gain @ loadings[seen], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("rotation", ["varimax", "promax"])
@each
def test_rotations_keep_the_density(kind: Any, rotation: str) -> None:
    X = six_tests()
    plain, turned = kind(2).fit(X), kind(2, rotation=rotation).fit(X)
    assert_allclose(turned.get_covariance(), plain.get_covariance(), rtol=1e-10)
    standard = turned.loadings_ / (1 if kind is lvm.ProbabilisticPCA else X.std(axis=0)[:, None])
    assert np.all(standard.max(axis=0) == np.abs(standard).max(axis=0))
    scores, spread = turned.transform(X, return_cov=True)
    # Var(E[z | x]) + E[Var(z | x)] = Var(z) at the maximum.
    assert_allclose(np.cov(scores.T, bias=True) + spread[0], turned.factor_correlations_, atol=2e-4)
    assert_allclose(np.diag(turned.factor_correlations_), 1.0, rtol=1e-12)
    assert (rotation == "varimax") == np.allclose(turned.factor_correlations_, np.eye(2))


def test_varimax_is_a_maximum() -> None:
    loadings = np.random.RandomState(0).randn(9, 3)

    def criterion(rotation: Any) -> float:
        turned = loadings @ rotation
        turned = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        return float(np.var(turned**2, axis=0).sum())

    best = varimax(loadings)
    assert_allclose(best.T @ best, np.eye(3), atol=1e-12)
    rng = np.random.RandomState(1)
    nearby = [np.linalg.qr(np.eye(3) + 0.05 * rng.randn(3, 3))[0] for _ in range(200)]
    assert max(criterion(best @ near * np.sign(np.diag(near))) for near in nearby) <= criterion(best)


def test_units_do_not_matter() -> None:
    X = six_tests()
    scale = np.array([1e-6, 1e3, 1.0, 1e5, 1.0, 1e-3])
    one = lvm.FactorAnalysis(2, rotation="promax", tol=1e-12).fit(X)
    other = lvm.FactorAnalysis(2, rotation="promax", tol=1e-12).fit(X * scale)
    assert_allclose(other.loadings_, one.loadings_ * scale[:, None], rtol=1e-4, atol=1e-6 * scale.min())
    assert_allclose(other.uniquenesses_, one.uniquenesses_, rtol=1e-5)


@each
def test_saved_models_are_the_same(kind: Any, tmp_path: Path) -> None:
    X = pd.DataFrame(six_tests(), columns=list("abcdef"))
    model = kind(2, rotation="promax", random_state=0).fit(X)
    lvm.save(model, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    assert_array_equal(loaded.transform(X), model.transform(X))
    assert_array_equal(loaded.sample(5), model.sample(5))
    assert list(loaded.get_feature_names_out()) == [f"{kind.__name__.lower()}{c}" for c in range(2)]
    assert_array_equal(model.components_, model.loadings_.T)
    assert list(model.set_output(transform="pandas").transform(X).columns) == list(loaded.get_feature_names_out())


def test_samples_have_the_covariance() -> None:
    model = lvm.FactorAnalysis(2, random_state=0).fit(six_tests())
    X = model.sample(200_000)
    scale = np.sqrt(np.diag(model.get_covariance()))
    # Standard errors of correlations are at most 1 / sqrt(200,000) = 0.0022; of variances sqrt(2) as much.
    assert_allclose(np.cov((X / scale).T), model.get_covariance() / np.outer(scale, scale), atol=0.016)


def test_few_iterations_are_accelerated_ones() -> None:
    X = six_tests()
    assert lvm.FactorAnalysis(2, tol=1e-11).fit(X).n_iter_ < 50


# ----- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "X", "message"),
    [
        ({"n_factors": 3}, six_tests()[:, :5], "n_factors=3 are too many for 5 columns: .* the 15 variances"),
        ({"n_factors": 6}, six_tests(), "n_factors=6 must be less than n_features = 6"),
        ({"n_factors": 0}, six_tests(), "n_factors must be an integer >= 1, got 0"),
        ({"rotation": "quartimax"}, six_tests(), "rotation must be one of 'varimax', 'promax', got 'quartimax'"),
        ({"min_noise_variance": 1.0}, six_tests(), "is a share of the variance and must be < 1, got 1.0"),
        ({"acceleration": "x"}, six_tests(), "acceleration must be one of 'anderson', got 'x'"),
        ({}, six_tests()[:1], "minimum of 2 is required"),
        ({}, np.c_[six_tests(), np.full(400, 3.7)], "column 6 of X is constant; remove it"),
        ({}, np.c_[six_tests(), np.full(400, np.nan)], "column 6 of X has no observed value"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], X: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.FactorAnalysis(**arguments).fit(X)


def test_one_row_of_weight_is_no_sample() -> None:
    with pytest.raises(ValueError, match=r"sample_weight is > 0 for one row alone"):
        lvm.FactorAnalysis(1).fit(six_tests(5), sample_weight=[0, 0, 1, 0, 0])


def test_heywood_cases_are_told() -> None:
    """On these rows the likelihood is largest where a column has no noise; R's factanal stops at 0.005, too."""
    X = pd.DataFrame(np.random.RandomState(2).randn(30, 3), columns=["a", "b", "c"])
    with pytest.warns(UserWarning, match=r"noise variance of column 0 \('a'\) is at its bound of 0.005 .*Heywood"):
        model = lvm.FactorAnalysis(1).fit(X)
    assert model.converged_
    assert model.uniquenesses_[0] == pytest.approx(0.005, rel=1e-2)


def test_the_test_says_where_it_has_nothing_to_say() -> None:
    X = six_tests()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saturated, holed = lvm.FactorAnalysis(3, max_iter=5).fit(X), lvm.FactorAnalysis(1).fit(with_holes(X))
    with pytest.raises(ValueError, match="n_factors=3 leave 0 degrees of freedom of 6 columns"):
        saturated.chi_square_test()
    with pytest.raises(ValueError, match="cells of the data were missing"):
        holed.chi_square_test()


def test_the_test_has_its_size() -> None:
    """Under the hypothesis p-values are uniform: of 200 samples, 10 are expected below 0.05, sd 3."""
    loadings = np.array([[1.0], [0.8], [0.7], [0.9], [0.6]])
    rng = np.random.RandomState(0)
    values = [
        lvm.FactorAnalysis(1).fit(rng.randn(100, 1) @ loadings.T + rng.randn(100, 5)).chi_square_test().p_value
        for _ in range(200)
    ]
    assert 1 <= np.sum(np.array(values) < 0.05) <= 22
    assert lvm.FactorAnalysis(1).fit(six_tests()).chi_square_test().p_value < 1e-6
