"""Standard errors of models with continuous latent variables: factors, one trait, the weights of a regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import assert_errors, errors_of
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import multivariate_normal, norm
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import BayesianRidge

import lvm
from lvm import uncertainty
from lvm.gradients.factors import gradient_of_factors
from lvm.gradients.trait import gradient_of_trait
from lvm.models.factor_analysis import FactorModel, FactorParams
from lvm.models.factor_rotation import rotated
from lvm.models.latent_trait import LatentTraitModel, TraitParams
from lvm.protocol import Rows

RNG = np.random.default_rng(9)
N = 300
LOADINGS = np.array([[0.9, 0.1], [0.8, -0.2], [0.7, 0.3], [0.2, 0.8], [-0.1, 0.6]]) * [2.0, 1.0]
X = (RNG.normal(size=(N, 2)) @ LOADINGS.T + 0.6 * RNG.standard_t(8, size=(N, 5))) * [1.0, 10.0, 1.0, 1.0, 0.1] + 5.0
HOLES = np.where(RNG.random(X.shape) < 0.15, np.nan, X)
EXACT: dict[str, Any] = {"tol": 1e-14, "max_iter": 20_000}


# ----- factors ------------------------------------------------------------------------------------------------


def principal(covariance: Any, noise: Any, q: int = 2) -> Any:
    """Return the loadings for which L' Psi^-1 L is diagonal, by an eigendecomposition, largest entries > 0."""
    root = np.sqrt(noise)
    values, vectors = np.linalg.eigh((covariance - np.diag(noise)) / np.outer(root, root))
    return root[:, None] * vectors[:, ::-1][:, :q] * np.sqrt(values[::-1][:q])


def varimax(loadings: Any) -> Any:
    """Return two columns turned by the angle that a search finds, rows taken to length 1 (Kaiser)."""
    unit = loadings / np.linalg.norm(loadings, axis=1, keepdims=True)

    def turn(angle: float) -> Any:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def criterion(angle: float) -> float:
        return -float(np.var((unit @ turn(angle)) ** 2, axis=0).sum())

    best = min(np.linspace(0, np.pi / 2, 90), key=criterion)
    angle = minimize_scalar(criterion, bounds=(best - 0.02, best + 0.02), method="bounded", options={"xatol": 1e-11}).x
    return loadings @ turn(angle)


def factor_errors(model: Any, data: Any, kind: str) -> Any:
    """Return errors from free coordinates: loadings of which the upper corner is 0, log noise, and means."""
    covariance, d, q = model.get_covariance(), 5, 2
    isotropic = isinstance(model, lvm.ProbabilisticPCA)
    noise = np.full(d, model.noise_variance_)
    plain = principal(covariance, noise)
    left = np.linalg.qr(plain[:q].T)[0]
    lower = plain @ left  # its upper corner is 0
    below = np.tril_indices(d, 0, q)

    def split(v: Any) -> Any:
        parts = np.split(v, [d, d + len(below[0])])
        loadings = np.zeros((d, q))
        loadings[below] = parts[1]
        psi = np.resize(np.exp(parts[2]), d)
        return parts[0], loadings @ loadings.T + np.diag(psi), psi

    def each(v: Any) -> Any:
        mean, sigma, _ = split(v)
        if not np.isnan(data).any():
            return multivariate_normal.logpdf(data, mean, sigma)
        found, holes = np.zeros(len(data)), np.isnan(data)
        for pattern in np.unique(holes, axis=0):
            seen, here = ~pattern, (holes == pattern).all(axis=1)
            if seen.any():
                part = data[np.ix_(here, seen)]
                found[here] = multivariate_normal.logpdf(part, mean[seen], sigma[np.ix_(seen, seen)])
        return found

    def attributes(v: Any) -> Any:
        mean, sigma, psi = split(v)
        loadings = principal(sigma, psi)
        found = {
            "mean": mean,
            "noise_variance": psi[0] if isotropic else psi,
            "communalities": 1 - psi / np.diag(sigma),
        }
        if model.rotation == "promax":  # whose algorithm has tests of its own
            loadings, correlations = rotated(loadings, psi, np.sqrt(np.diag(sigma)), "promax")
            found["factor_correlations"] = correlations
        elif model.rotation == "varimax":
            loadings = varimax(loadings)
        scale = np.sqrt(np.diag(covariance))[:, None]
        likeness = (model.loadings_ / scale).T @ (loadings / scale)
        order = np.abs(likeness).argmax(axis=1)
        found["loadings"] = loadings[:, order] * np.sign(likeness[np.arange(q), order])
        return found

    start = np.concatenate([model.mean_, lower[below], np.log(noise[: 1 if isotropic else d])])
    np.testing.assert_allclose(attributes(start)["loadings"], model.loadings_, rtol=1e-4, atol=1e-4)
    return errors_of(kind, each, start, attributes)


@pytest.mark.parametrize("kind", uncertainty.KINDS)
@pytest.mark.parametrize("rotation", [None, "varimax", "promax"])
def test_factor_analysis(rotation: Any, kind: str) -> None:
    """Against the normal density by scipy, and rotations by a search: to 1e-3, as differences allow."""
    model = lvm.FactorAnalysis(2, rotation=rotation, **EXACT).fit(X)
    found = model.standard_errors(X, kind=kind)
    expected = factor_errors(model, X, kind)
    assert set(found) == set(expected)
    assert_errors(found, expected)
    if kind == "observed":
        np.testing.assert_allclose(found["mean"], X.std(axis=0) / np.sqrt(N), rtol=1e-4)


@pytest.mark.parametrize("kind", ["observed", "sandwich"])
def test_missing_cells_and_one_noise_variance(kind: str) -> None:
    model = lvm.FactorAnalysis(2, **EXACT).fit(HOLES)
    assert_errors(model.standard_errors(HOLES, kind=kind), factor_errors(model, HOLES, kind))
    data = X / [1.0, 10.0, 1.0, 1.0, 0.1]
    model = lvm.ProbabilisticPCA(2, **EXACT).fit(data)
    found = model.standard_errors(data, kind=kind)
    assert isinstance(found["noise_variance"], float)
    assert_errors(found, factor_errors(model, data, kind))


def test_mixtures_of_factor_analyzers_have_the_same_errors() -> None:
    """With one component they are factor analysis: loadings in the same rotation, weighted rows, all kinds."""
    weight = RNG.integers(1, 3, N)
    one = lvm.FactorAnalysis(2, **EXACT).fit(X, sample_weight=weight)
    mixture = lvm.MixtureOfFactorAnalyzers(1, n_factors=2, **EXACT).fit(X, sample_weight=weight)
    for kind in uncertainty.KINDS:
        expected = one.standard_errors(X, weight, kind)
        found = mixture.standard_errors(X, weight, kind=kind)
        sign = np.abs(np.sum(one.loadings_ * mixture.loadings_[0], axis=0) / np.sum(one.loadings_**2, axis=0))
        np.testing.assert_allclose(sign, 1.0, rtol=1e-5)  # the same order of the factors
        np.testing.assert_allclose(found["means"][0], expected["mean"], rtol=1e-3)
        np.testing.assert_allclose(found["loadings"][0], expected["loadings"], rtol=1e-3)
        np.testing.assert_allclose(found["noise_variances"][0], expected["noise_variance"], rtol=1e-3)
    assert "factor 1" in str(mixture.summary(X, weight))


def test_noise_at_its_bound_has_no_error() -> None:
    data = X.copy()
    data[:, 1] = data[:, 0] * 2 + 1e-3 * RNG.normal(size=N)
    with pytest.warns(UserWarning, match="Heywood"):
        model = lvm.FactorAnalysis(1, **EXACT).fit(data)
    with pytest.warns(RuntimeWarning, match="at the end of their range: noise_variance"):
        errors = model.standard_errors(data)["noise_variance"]
    at_bound = model.noise_variance_ < 0.006 * data.var(axis=0)
    np.testing.assert_array_equal(np.isnan(errors), at_bound)
    assert at_bound.any()


@pytest.mark.parametrize("isotropic", [False, True])
def test_gradient_of_factors(isotropic: bool) -> None:
    """Off the maximum, with holes, against differences of the log-likelihood."""
    model = FactorModel(isotropic)
    noise = np.full(5, 0.7) if isotropic else np.array([0.5, 30.0, 0.8, 0.4, 0.01])
    params = FactorParams(np.nanmean(HOLES, axis=0) + 0.1, LOADINGS * [[1.0], [10.0], [1.0], [1.0], [0.1]], noise)
    for data in (X, HOLES):
        rows = model.canonical(Rows(data, RNG.uniform(0.5, 2.0, N)))
        check_gradient(model, rows, params, gradient_of_factors)


def check_gradient(model: Any, rows: Any, params: Any, gradient: Any) -> None:
    vector = model.to_vector(params, params)
    found = gradient(model, rows, params, params)
    weight = np.ones(len(rows.X)) if rows.weight is None else rows.weight
    for j, unit in enumerate(1e-5 * np.eye(len(vector))):
        ahead, behind = (weight @ model.loglik(rows, model.from_vector(vector + s * unit, params)) for s in (1, -1))
        assert found[j] == pytest.approx((ahead - behind) / 2e-5, rel=1e-5, abs=1e-4)


# ----- one trait ----------------------------------------------------------------------------------------------

TABLE = np.loadtxt(Path(__file__).parent / "data" / "lsat6.csv", delimiter=",", skiprows=1)
ANSWERS, TIMES = TABLE[:, :5], TABLE[:, 5]


def test_published_errors_of_the_rasch_model() -> None:
    """Rizopoulos (2006), "ltm: an R package for latent variable modeling", JSS 17(5), section 4.1, to its digits."""
    model = lvm.LatentTrait(discrimination="common", **EXACT).fit(ANSWERS, sample_weight=TIMES)
    found = model.standard_errors(ANSWERS, TIMES, kind="observed")
    np.testing.assert_allclose(found["difficulty"], [0.3266, 0.1422, 0.0977, 0.1691, 0.2510], atol=1e-4)
    np.testing.assert_allclose(found["discrimination"], 0.0694, atol=1e-4)


def trait_errors(model: Any, data: Any, weight: Any, kind: str) -> Any:
    """Return errors by an integral over a fine grid, from slopes, or their logarithms, and intercepts."""
    theta = np.linspace(-8, 8, 301)
    mass = norm.pdf(theta) * (theta[1] - theta[0])
    common, prior = model.discrimination == "common", model.discrimination_prior
    d = data.shape[1]

    def split(v: Any) -> Any:
        return np.resize(v[:-d] if prior is None else np.exp(v[:-d]), d), v[-d:]

    def each(v: Any) -> Any:
        slopes, intercepts = split(v)
        p = expit(np.multiply.outer(theta, slopes) + intercepts)[:, None, :]
        factors = np.where(np.isnan(data), 1.0, np.where(data == 1, p, 1 - p))
        return np.log(mass @ factors.prod(axis=2))

    def log_prior(v: Any) -> float:
        if prior is None:
            return 0.0
        return float(np.sum(norm.logpdf(v[:-d], *prior) - v[:-d]))

    def attributes(v: Any) -> Any:
        slopes, intercepts = split(v)
        return {"discrimination": slopes, "intercept": intercepts, "difficulty": -intercepts / slopes}

    slopes = model.discrimination_[: 1 if common else d]
    start = np.concatenate([slopes if prior is None else np.log(slopes), model.intercept_])
    return errors_of(kind, each, start, attributes, weight, log_prior)


@pytest.mark.parametrize("kind", uncertainty.KINDS)
@pytest.mark.parametrize("arguments", [{}, {"discrimination": "common"}, {"discrimination_prior": (0.0, 0.5)}])
def test_latent_trait(arguments: dict[str, Any], kind: str) -> None:
    """LSAT6, against a sum over 301 nodes: to 1e-3."""
    model = lvm.LatentTrait(**arguments, **EXACT).fit(ANSWERS, sample_weight=TIMES)
    found = model.standard_errors(ANSWERS, TIMES, kind=kind)
    assert_errors(found, trait_errors(model, ANSWERS, TIMES, kind))
    spread = np.repeat(ANSWERS, TIMES.astype(int), axis=0)  # equal rows are taken together
    assert_errors(model.standard_errors(spread, kind=kind), found, rtol=1e-5)


def test_missing_answers() -> None:
    true = TraitParams(np.array([1.5, 0.8, 1.2, 1.0]), np.array([0.5, -1.0, 0.0, 1.0]))
    data = LatentTraitModel().sample(true, 1000, np.random.RandomState(1))[0].astype(np.float64)
    data[RNG.random(data.shape) < 0.2] = np.nan
    model = lvm.LatentTrait(acceleration="anderson", **EXACT).fit(data)
    assert_errors(model.standard_errors(data), trait_errors(model, data, None, "sandwich"))
    for arguments in ((), ("common",), ("free", (0.0, 0.5))):
        inner = LatentTraitModel(*arguments)
        params = true if arguments != ("common",) else true._replace(slopes=np.full(4, 1.1))
        check_gradient(inner, inner.canonical(Rows(data)), params, lambda *given: gradient_of_trait(*given[:3]))


# ----- the weights of a regression ----------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["shared", "relevance"])
def test_bayesian_regression(prior: str) -> None:
    """Precisions by the curvature of the normal density of y; coefficients by their posterior."""
    rng = np.random.default_rng(3)
    A = rng.normal(size=(60, 4)) * [1.0, 2.0, 3.0, 4.0]
    y = A @ [1.0, -0.5, 0.4, 0.3] + rng.normal(size=60)
    model = lvm.BayesianLinearRegression(prior=prior, fit_intercept=False, **EXACT).fit(A, y)

    def each(v: Any) -> Any:
        precisions = np.resize(np.exp(v[1:]), 4)
        return np.array([multivariate_normal.logpdf(y, None, np.exp(-v[0]) * np.eye(60) + (A / precisions) @ A.T)])

    def attributes(v: Any) -> Any:
        return {"alpha": np.exp(v[0]), "lambda": np.exp(v[1]) if prior == "shared" else np.exp(v[1:])}

    found = model.standard_errors(A, y)
    start = np.log(np.append(model.alpha_, model.lambda_))
    assert_errors(found, errors_of("observed", each, start, attributes))
    np.testing.assert_allclose(found["coef"], np.sqrt(np.diag(model.sigma_)), rtol=1e-12)
    assert found["intercept"] == 0


def test_intercept_and_pruned_features() -> None:
    """The intercept's deviation is that of the predictive mean at 0; pruned features have coefficient 0 for certain."""
    rng = np.random.default_rng(3)
    A = rng.normal(size=(80, 3)) + 4.0
    y = A[:, 0] + rng.normal(size=80) + 10
    shared = lvm.BayesianLinearRegression(**EXACT).fit(A, y)
    _, deviation = shared.predict(np.zeros((1, 3)), return_std=True)
    found = shared.standard_errors(A, y)
    assert found["intercept"] ** 2 == pytest.approx(deviation[0] ** 2 - 1 / shared.alpha_ + 1 / shared.alpha_ / 80)
    flat = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0, "tol": 1e-10, "max_iter": 3000}
    np.testing.assert_allclose(found["coef"], np.sqrt(np.diag(BayesianRidge(**flat).fit(A, y).sigma_)), rtol=1e-4)
    relevance = lvm.BayesianLinearRegression(prior="relevance", **EXACT).fit(A, y)
    found = relevance.standard_errors(A, y)
    pruned = np.isinf(relevance.lambda_)
    assert pruned.any()
    np.testing.assert_array_equal(found["coef"] == 0, pruned)
    np.testing.assert_array_equal(np.isnan(found["lambda"]), pruned)
    text = str(relevance.summary(A, y))
    assert "log evidence" in text
    assert "AIC" not in text
    low, high = np.array(relevance.summary(A, y).to_frame().query("parameter == 'alpha'")[["low", "high"]])[0]
    assert 0 < low < relevance.alpha_ < high


# ----- refusals and tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [lvm.FactorAnalysis(1), lvm.ProbabilisticPCA(1), lvm.LatentTrait()])
def test_refusals(estimator: Any) -> None:
    data = ANSWERS if isinstance(estimator, lvm.LatentTrait) else X
    with pytest.raises(NotFittedError):
        estimator.standard_errors(data)
    estimator.fit(data)
    with pytest.raises(ValueError, match=r"kind.*'robust'"):
        estimator.standard_errors(data, kind="robust")
    with pytest.raises(ValueError, match=r"level must lie within \(0, 1\), got 95"):
        estimator.summary(data, level=95)
    with pytest.raises(ValueError, match=f"{data.shape[1] - 1} features"):
        estimator.standard_errors(data[:, 1:])
    with pytest.raises(ValueError, match="sample_weight"):
        estimator.standard_errors(data, np.ones(len(data) + 1))
    with pytest.raises(ValueError, match="use kind='observed'"):
        estimator.standard_errors(data[:4])


def test_refusals_of_regressions() -> None:
    model = lvm.BayesianLinearRegression()
    with pytest.raises(NotFittedError):
        model.standard_errors(X, X[:, 0])
    model.fit(X[:, 1:], X[:, 0])
    with pytest.raises(ValueError, match=r"kind must be 'observed' for BayesianLinearRegression, got 'sandwich'"):
        model.summary(X[:, 1:], X[:, 0], kind="sandwich")
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.standard_errors(X[:, 1:], X[1:, 0])


def test_summaries() -> None:
    model = lvm.FactorAnalysis(2, rotation="promax", **EXACT).fit(X)
    summary = model.summary(X, level=0.9)
    text = str(summary)
    assert "FactorAnalysis, 2 factors, promax" in text
    assert f"AIC {model.aic(X):.4f}, BIC {model.bic(X):.4f}; standard errors: sandwich" in text
    assert "column 0 x factor 1" in text
    assert "component" not in text
    table = summary.to_frame()
    assert len(table) == 5 * (1 + 2 + 1 + 1) + 1
    assert table.component.isna().all()
    line = table[table.parameter == "factor_correlations"].iloc[0]
    assert line.estimate == model.factor_correlations_[1, 0]
    z = np.arctanh([line.low, line.estimate, line.high])
    assert z[1] - z[0] == pytest.approx(1.6448536269514722 * line.std_error / (1 - line.estimate**2), rel=1e-9)
    for parameter, least, most in (("noise_variance", 0.0, np.inf), ("communalities", 0.0, 1.0)):
        inside = table[table.parameter == parameter][["low", "estimate", "high"]].to_numpy()
        assert np.all(np.diff(inside, axis=1) > 0)
        assert np.all((inside > least) & (inside < most))
    trait = lvm.LatentTrait(discrimination_prior=(0, 0.5)).fit(ANSWERS, sample_weight=TIMES)
    table = trait.summary(ANSWERS, TIMES).to_frame()
    assert len(table) == 15
    assert np.all(table[table.parameter == "discrimination"].low > 0)
