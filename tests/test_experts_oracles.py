"""MixtureOfExperts against other software and brute force: nested models, groups, gradients."""

from __future__ import annotations

import numpy as np
import pytest
from expert_cases import KINDS, crossing
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import expit
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge

import lvm

# ----- nested models, brute force -----------------------------------------------------------------------------------


def test_one_gaussian_expert_is_linear_regression() -> None:
    X, y, _ = crossing()
    weight = np.random.RandomState(1).uniform(0.1, 2.0, len(y))
    fit = lvm.MixtureOfExperts(1).fit(X, y, sample_weight=weight)
    line = LinearRegression().fit(X, y, sample_weight=weight)
    assert_allclose(fit.coefficients_[0], line.coef_, rtol=1e-10)
    assert_allclose(fit.intercepts_[0], line.intercept_, rtol=1e-10)
    assert_allclose(fit.predict(X), line.predict(X), rtol=1e-9, atol=1e-9)
    assert_allclose(fit.score(X, y, weight), line.score(X, y, weight), rtol=1e-12)
    assert_allclose(fit.scales_[0] ** 2, np.average((y - line.predict(X)) ** 2, weights=weight), rtol=1e-12)


def test_ridge_is_that_of_standardised_covariates() -> None:
    X, y, _ = crossing()
    scales = X.std(axis=0)
    fit = lvm.MixtureOfExperts(1, alpha=7.0, tol=1e-14).fit(X, y)
    assert_allclose(fit.coefficients_[0] * scales, Ridge(7.0).fit(X / scales, y).coef_, rtol=1e-10)


def test_one_count_expert_is_a_generalised_linear_model() -> None:
    X, y, _ = crossing(kind="poisson")
    exposure = np.random.RandomState(2).uniform(0.5, 4.0, len(y))
    fit = lvm.MixtureOfExperts(1, expert="poisson", tol=1e-14).fit(X, y, exposure=exposure)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    line = PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(Z, y / exposure, sample_weight=exposure)
    assert_allclose(fit.coefficients_[0] * X.std(axis=0), line.coef_, rtol=1e-6)
    assert_allclose(fit.predict(X, exposure=exposure), exposure * line.predict(Z), rtol=1e-6)
    expected = stats.poisson.logpmf(y, exposure * line.predict(Z)).sum()
    assert_allclose(fit.loglik_, expected, rtol=1e-10)

    X, y, _ = crossing(kind="binomial")
    fit = lvm.MixtureOfExperts(1, expert="binomial", tol=1e-14).fit(X, y)
    logistic = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(Z, y)
    assert_allclose(fit.coefficients_[0] * X.std(axis=0), logistic.coef_[0], rtol=1e-4)
    assert_allclose(fit.predict(X), logistic.predict_proba(Z)[:, 1], rtol=1e-4)


def test_one_multinomial_expert_is_logistic_regression() -> None:
    X, y, _ = crossing(kind="multinomial")
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    fit = lvm.MixtureOfExperts(1, expert="multinomial", tol=1e-14).fit(X, y)
    logistic = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(Z, y)
    assert_allclose(fit.predict_proba(X), logistic.predict_proba(Z), rtol=1e-4)
    assert_array_equal(fit.predict(X), logistic.predict(Z))
    assert_array_equal(fit.classes_, ["low", "middle", "up"])
    # the ridge of standardised covariates: scikit-learn's C is its inverse
    ridge = lvm.MixtureOfExperts(1, expert="multinomial", alpha=2.0, tol=1e-14).fit(X, y)
    logistic = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(Z, y)
    assert_allclose(ridge.predict_proba(X), logistic.predict_proba(Z), rtol=1e-4)


def test_binomial_trials_are_repeated_rows() -> None:
    X, _, component = crossing(150)
    rng = np.random.RandomState(3)
    trials = rng.randint(1, 6, len(X))
    y = rng.binomial(trials, expit(np.where(component, 1, -1) * (X[:, 0] - 5)))
    one = lvm.MixtureOfExperts(1, expert="binomial", tol=1e-14).fit(X, y, trials=trials)
    successes = np.concatenate([np.r_[np.ones(a), np.zeros(b - a)] for a, b in zip(y, trials, strict=True)])
    many = lvm.MixtureOfExperts(1, expert="binomial", tol=1e-14).fit(np.repeat(X, trials, axis=0), successes)
    assert_allclose(one.coefficients_, many.coefficients_, rtol=1e-8)
    assert_allclose(one.predict(X, trials=trials), trials * one.predict(X), rtol=1e-14)
    assert_allclose(one.loglik_, stats.binom.logpmf(y, trials, one.predict(X)).sum(), rtol=1e-10)


def test_groups_by_brute_force() -> None:
    """The density of a group is the mixture of products, rows may come in any order, and labels may be text."""
    X, _, _ = crossing(120)
    rng = np.random.RandomState(4)
    group = rng.permutation(np.repeat(np.arange(40), 3))
    of_group = rng.randint(0, 2, 40)
    y = np.where(of_group[group] == 0, 1, -1) * X[:, 0] + 1.5 * rng.randn(120)
    names = np.array([f"subject {g}" for g in group])
    fit = lvm.MixtureOfExperts(2, random_state=0, tol=1e-12).fit(X, y, groups=names)
    density = stats.norm.logpdf(y[:, None], fit.predict_components(X), fit.scales_)
    joint = np.stack([density[group == g].sum(axis=0) for g in range(40)]) + np.log(fit.weights_)
    each = np.logaddexp(*joint.T)
    assert_allclose(fit.loglik_, each.sum(), rtol=1e-10)
    resp = np.exp(joint - each[:, None])
    assert_allclose(fit.responsibilities(X, y, groups=names), resp[group], atol=1e-9)
    assert_allclose(fit.weights_, resp.mean(axis=0), atol=1e-5)  # at the fixed point, to the root of tol
    assert_allclose(fit.bic(X, y, groups=names), -2 * each.sum() + 9 * np.log(40), rtol=1e-10)
    found = resp.argmax(axis=1)
    assert max(np.mean(found == of_group), np.mean(found != of_group)) > 0.95
    # alone in its group, a row is a unit
    alone = lvm.MixtureOfExperts(2, random_state=0).fit(X, y, groups=np.arange(120))
    assert_allclose(alone.loglik_, lvm.MixtureOfExperts(2, random_state=0).fit(X, y).loglik_, rtol=1e-12)
    # weights of groups, and their repetition
    weight = np.where(group % 2 == 0, 2.0, 1.0)
    labels = of_group[group]
    double = lvm.MixtureOfExperts(2, init_params=labels, tol=1e-12).fit(X, y, groups=group, sample_weight=weight)
    more = np.flatnonzero(group % 2 == 0)
    index = np.r_[np.arange(120), more]
    repeated = lvm.MixtureOfExperts(2, init_params=labels[index], tol=1e-12).fit(
        X[index], y[index], groups=np.r_[group, group[more] + 100]
    )
    assert_allclose(double.loglik_, repeated.loglik_, rtol=1e-10)
    gate = lvm.MixtureOfExperts(2, gating="softmax", random_state=0).fit(
        X, y, gating_X=(group[:, None] % 7).astype(float), groups=group
    )
    assert gate.loglik_ > fit.loglik_ - 1e-4  # one more parameter


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gating", ["constant", "softmax"])
@pytest.mark.filterwarnings("ignore:coefficients of component:sklearn.exceptions.ConvergenceWarning")  # binomial
def test_gradient_is_zero_at_convergence(kind: str, gating: str) -> None:
    """In the user's units, by central differences of the log-likelihood of all rows."""
    X, y, _ = crossing(kind=kind)
    X = X[:, :1]
    fit = lvm.MixtureOfExperts(
        2, expert=kind, gating=gating, random_state=1, tol=1e-14, max_iter=20_000, alpha=0.0, acceleration="anderson"
    ).fit(X, y)
    start = fit.loglik_
    names = ["coefficients_", "intercepts_"]
    names += ["gating_coefficients_", "gating_intercepts_"] if gating == "softmax" else []
    names += ["scales_"] if kind == "gaussian" else []

    def loglik() -> float:
        return -0.5 * fit.aic(X, y) + fit.n_parameters()

    assert_allclose(loglik(), start, rtol=1e-10)
    for name in names:
        values = getattr(fit, name)
        for place in np.ndindex(*values.shape):
            value, ends = values[place], []
            for step in (1e-4, -1e-4):
                values[place] = value + step
                ends.append(loglik())
            values[place] = value
            # slopes of this likelihood are of order n sd(x) = 300; tol of 1e-14 leaves about its root of that
            assert abs(ends[0] - ends[1]) / 2e-4 < 0.02, name
            assert max(ends) <= start + 1e-7
