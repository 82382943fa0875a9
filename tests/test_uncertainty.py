"""Standard errors against exact formulas, brute-force derivatives and an independent likelihood."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from uncertainty_cases import (
    BINARY,
    CASES,
    CODES,
    COUNTS,
    EXACT,
    NORMAL,
    POSITIVE,
    RNG,
    SECOND,
    TOTALS,
    N,
    coordinates,
    fitted,
    flat,
)

import lvm
from lvm import coordinates as lvm_coordinates
from lvm import uncertainty

SEARCHED = ("gaussian EVE", "gaussian VVE")  # whose common axes are found by a search, to its tolerance

each_case = pytest.mark.parametrize("name", CASES)


# ----- one component: formulas --------------------------------------------------------------------------------


def test_normal_means_and_variances() -> None:
    """To 1e-6, which differences lose: sd / sqrt(n), and of covariances sqrt((s_ij**2 + s_ii s_jj) / n)."""
    mixture = lvm.GaussianMixture(1, reg_covar=0.0).fit(NORMAL)
    errors = mixture.standard_errors(NORMAL, kind="observed")
    S = np.cov(NORMAL.T, bias=True)
    np.testing.assert_allclose(errors["means"][0], np.sqrt(np.diag(S) / N), rtol=1e-6)
    expected = np.sqrt((S**2 + np.outer(np.diag(S), np.diag(S))) / N)
    np.testing.assert_allclose(errors["covariances"][0], expected, rtol=1e-6)
    tied = lvm.GaussianMixture(1, covariance_type="tied", reg_covar=0.0).fit(NORMAL)
    np.testing.assert_allclose(tied.standard_errors(NORMAL, kind="observed")["covariances"], expected, rtol=1e-6)
    np.testing.assert_array_equal(errors["weights"], [0.0])


def test_sandwich_of_variances_is_that_of_fourth_moments() -> None:
    """White's error of a variance, right for any distribution: sqrt((m_4 - m_2**2) / n)."""
    X = POSITIVE[:, :1]
    mixture = lvm.GaussianMixture(1, covariance_type="diag", reg_covar=0.0).fit(X)
    centred = X - X.mean()
    expected = np.sqrt((np.mean(centred**4) - np.mean(centred**2) ** 2) / N)
    np.testing.assert_allclose(mixture.standard_errors(X)["covariances"], [[expected]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["observed", "empirical", "sandwich"])
def test_proportions(kind: str) -> None:
    """The scores are linear in x: all three are sqrt(p q / n), the empirical one where no other column adds to it."""
    X = BINARY[:, :1] if kind == "empirical" else BINARY
    p = X.mean(axis=0)
    errors = lvm.BernoulliMixture(1).fit(X).standard_errors(X, kind=kind)
    np.testing.assert_allclose(errors["probabilities"][0], np.sqrt(p * (1 - p) / N), rtol=1e-6)
    X = CODES[:, :1] if kind == "empirical" else CODES
    errors = lvm.CategoricalMixture(1).fit(X).standard_errors(X, kind=kind)
    for found, column in zip(errors["probabilities"], X.T, strict=True):
        p = np.bincount(column, minlength=3) / N
        np.testing.assert_allclose(found[0], np.sqrt(p * (1 - p) / N), rtol=1e-6)


def test_other_families() -> None:
    observed = {"kind": "observed"}
    rates = COUNTS.mean(axis=0)
    found = lvm.PoissonMixture(1).fit(COUNTS).standard_errors(COUNTS, **observed)["rates"][0]
    np.testing.assert_allclose(found, np.sqrt(rates / N), rtol=1e-6)
    found = lvm.ExponentialMixture(1).fit(POSITIVE).standard_errors(POSITIVE, **observed)["scales"][0]
    np.testing.assert_allclose(found, POSITIVE.mean(axis=0) / np.sqrt(N), rtol=1e-6)
    p = TOTALS.mean(axis=0) / 20
    found = lvm.MultinomialMixture(1).fit(TOTALS).standard_errors(TOTALS, **observed)["probabilities"][0]
    np.testing.assert_allclose(found, np.sqrt(p * (1 - p) / (20 * N)), rtol=1e-6)
    mixture = lvm.NegativeBinomialMixture(1, **EXACT).fit(COUNTS)
    found = mixture.standard_errors(COUNTS, **observed)["means"]
    np.testing.assert_allclose(found, np.sqrt((mixture.means_ + mixture.means_**2 / mixture.sizes_) / N), rtol=1e-5)


def test_exposures_and_missing_cells() -> None:
    """A rate's error is sqrt(rate / total exposure), a mean's the deviation over the root of what is observed."""
    exposure = RNG.uniform(0.5, 2.0, N)
    mixture = lvm.PoissonMixture(1).fit(COUNTS, exposure=exposure)
    errors = mixture.standard_errors(COUNTS, exposure=exposure, kind="observed")
    np.testing.assert_allclose(errors["rates"], np.sqrt(mixture.rates_ / exposure.sum()), rtol=1e-6)
    X = NORMAL.copy()
    X[:100, 0] = np.nan
    mixture = lvm.GaussianMixture(1, covariance_type="diag", reg_covar=0.0, **EXACT).fit(X)
    errors = mixture.standard_errors(X, kind="observed")["means"][0]
    np.testing.assert_allclose(errors, np.nanstd(X, axis=0) / np.sqrt([N - 100, N]), rtol=1e-6)


def test_prior_adds_its_curvature() -> None:
    """A Beta(a, a) prior is 2 (a - 1) rows more: p q / (n + 2 a - 2) is the inverse Hessian of the log posterior."""
    mixture = lvm.BernoulliMixture(1, alpha=11.0).fit(BINARY)
    p = mixture.probabilities_
    found = mixture.standard_errors(BINARY, kind="observed")["probabilities"]
    np.testing.assert_allclose(found, np.sqrt(p * (1 - p) / (N + 20)), rtol=1e-5)


# ----- scores and second derivatives --------------------------------------------------------------------------


@each_case
def test_sums_are_derivatives_of_the_loglik(name: str) -> None:
    """Fisher's identity and Louis's formula against differences of the log-likelihood itself, off the maximum.

    In three random directions: scores to 1e-5 of their spread, second derivatives to 1e-4 of the information, which
    differences of sums over 300 rows allow.
    """
    estimator, X = fitted(name)
    rng = np.random.default_rng(5)
    weight = rng.integers(0, 3, N).astype(np.float64)
    labels = np.where(rng.random(N) < 0.1, SECOND, -1).astype(np.int64)
    there = coordinates(estimator, X, weight, labels)
    start = 20.0 * np.where(rng.random(len(there.steps)) < 0.5, 1.0, -1.0) * there.steps
    there = coordinates(estimator, X, weight, labels, lvm.MixtureParams(there.weights(start), there.moved(start)))
    found = there.moments()
    assert found.hessian is not None
    model = there.model
    penalty = getattr(model.family, "log_penalty", None)

    def each(move: NDArray[np.float64]) -> NDArray[np.float64]:
        components, weights = there.moved(move), there.weights(move)
        joint = model.joint_log_density(there.rows, lvm.MixtureParams(weights, components))
        return np.logaddexp.reduce(joint + (0.0 if penalty is None else penalty(components)), axis=1)

    w = np.ones(len(there.rows.X)) if there.rows.weight is None else there.rows.weight
    for _ in range(3):
        move = rng.normal(size=len(there.steps)) * there.steps
        ahead, here, behind = each(move), each(0 * move), each(-move)
        scores = (ahead - behind) / 2
        spread = np.sqrt(w @ scores**2)
        assert abs(move @ found.score - w @ scores) < 1e-5 * spread * np.sqrt(N)
        assert move @ found.outer @ move == pytest.approx(spread**2, rel=1e-5)
        information = np.sqrt(np.diag(found.outer)) @ np.abs(move)
        error = 1e-3 if name in SEARCHED else 1e-4
        assert abs(move @ found.hessian @ move - w @ (ahead - 2 * here + behind)) < error * information**2


@each_case
def test_scores_sum_to_zero_at_the_maximum(name: str) -> None:
    """In units of their own error: what is left is what EM leaves at a tolerance of 1e-13 nats per row."""
    estimator, X = fitted(name)
    at = coordinates(estimator, X)
    found = at.moments(hessian=False)
    gradient, _ = uncertainty.prior_derivatives(at)
    spread = np.sqrt(np.maximum(np.diag(found.outer), 1e-30))
    assert np.all(np.abs(found.score + gradient) < 2e-3 * spread + 1e-9)


@each_case
def test_free_directions_are_the_parameters_and_errors_finite(name: str) -> None:
    estimator, X = fitted(name)
    assert uncertainty.free_directions(coordinates(estimator, X)).shape[1] == estimator.n_parameters()
    for kind in uncertainty.KINDS:
        errors = flat(estimator.standard_errors(X, kind=kind))
        assert np.all(errors > 0)
        assert np.all(errors < np.inf)


def test_latent_classes_against_a_likelihood_of_their_own() -> None:
    """Differences of a likelihood in logits, written afresh, and the delta method: to 1e-4, its own precision."""
    mixture, _ = fitted("bernoulli")
    logit = np.log([mixture.weights_[0] / mixture.weights_[1], *(p / (1 - p) for p in mixture.probabilities_.ravel())])

    def loglik(v: NDArray[np.float64]) -> float:
        pi, p = 1 / (1 + np.exp(-v[0])), 1 / (1 + np.exp(-v[1:].reshape(2, 4)))
        joint = [np.prod(np.where(BINARY > 0, q, 1 - q), axis=1) for q in p]
        return float(np.log(pi * joint[0] + (1 - pi) * joint[1]).sum())

    h, H = 1e-3, np.empty((9, 9))
    unit = h * np.eye(9)
    for a in range(9):
        for b in range(9):
            signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
            H[a, b] = sum(s * t * loglik(logit + s * unit[a] + t * unit[b]) for s, t in signs) / (4 * h**2)
    p = np.concatenate([mixture.weights_[:1], mixture.probabilities_.ravel()])
    expected = p * (1 - p) * np.sqrt(np.diag(np.linalg.inv(-H)))
    errors = mixture.standard_errors(BINARY, kind="observed")
    np.testing.assert_allclose(errors["weights"], expected[[0, 0]], rtol=1e-4)
    np.testing.assert_allclose(errors["probabilities"].ravel(), expected[1:], rtol=1e-4)


# ----- invariances --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", uncertainty.KINDS)
@pytest.mark.parametrize("name", ["gaussian full", "categorical", "poisson"])
def test_weights_are_repeated_rows(name: str, kind: str) -> None:
    estimator, X = fitted(name)
    weight = np.random.default_rng(2).integers(1, 4, N)
    estimator = clone(estimator).fit(X, sample_weight=weight)
    weighted = flat(estimator.standard_errors(X, weight, kind=kind))
    repeated = flat(estimator.standard_errors(np.repeat(X, weight, axis=0), kind=kind))
    np.testing.assert_allclose(weighted, repeated, rtol=1e-4)  # the steps are found on other rows


@pytest.mark.parametrize("name", ["gaussian VVE", "student t", "bernoulli", "gamma"])
def test_the_order_of_components_does_not_matter(name: str) -> None:
    estimator, X = fitted(name)
    model, rows, params = estimator._information_rows(X, None, None, None)
    turned = model.family.params(
        **{n: np.asarray(getattr(params.components, n))[::-1] for n in estimator._parameters()}
    )
    one = uncertainty.standard_errors(model, rows, params)
    other = uncertainty.standard_errors(model, rows, lvm.MixtureParams(params.weights[::-1].copy(), turned))
    for parameter, errors in one.items():
        np.testing.assert_allclose(other[parameter][::-1], errors, rtol=1e-4)


def test_blocks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator, X = fitted("gaussian full")
    whole = flat(estimator.standard_errors(X))
    monkeypatch.setattr(lvm_coordinates, "CELLS", 1)  # blocks of 64 rows
    np.testing.assert_allclose(flat(estimator.standard_errors(X)), whole, rtol=1e-9)


def test_units_do_not_matter() -> None:
    estimator, X = fitted("gaussian full")
    scale = np.array([1e6, 1e-4])
    moved = lvm.GaussianMixture(2, reg_covar=0.0, **EXACT).fit(X * scale)
    order = np.argsort(moved.weights_) if estimator.weights_[0] < estimator.weights_[1] else np.argsort(-moved.weights_)
    found = moved.standard_errors(X * scale)["means"][order] / scale
    np.testing.assert_allclose(found, estimator.standard_errors(X)["means"], rtol=1e-4)


def test_single_precision_rows() -> None:
    """Differences are taken in double precision whatever the rows: only their rounding, 1e-7, enters."""
    estimator, X = fitted("gaussian full")
    found = flat(estimator.standard_errors(X.astype(np.float32)))
    np.testing.assert_allclose(found, flat(estimator.standard_errors(X)), rtol=1e-5)


@pytest.mark.slow
def test_coverage() -> None:
    """Of 250 samples of 2,000 rows, 95 % intervals hold the truth in 90.9 to 99.1 %: 3 errors of that share."""
    rng = np.random.default_rng(3)
    truth = {"weights": [0.35, 0.65], "means": [[0.0], [3.5]], "covariances": [[1.0], [1.44]]}
    inside = {(kind, name): np.zeros(np.shape(truth[name])) for kind in uncertainty.KINDS for name in truth}
    for _ in range(250):
        second = rng.random(2000) < 0.65
        X = np.where(second, 3.5 + 1.2 * rng.normal(size=2000), rng.normal(size=2000))[:, None]
        mixture = lvm.GaussianMixture(
            2, covariance_type="diag", means_init=[[0.0], [3.5]], reg_covar=0.0, tol=1e-10, acceleration="anderson"
        ).fit(X)
        for kind in uncertainty.KINDS:
            for name, errors in mixture.standard_errors(X, kind=kind).items():
                estimates = getattr(mixture, f"{name}_")
                inside[kind, name] += np.abs(estimates - np.array(truth[name])) < 1.959964 * errors
    for which, count in inside.items():
        assert np.all(np.abs(count / 250 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 250)), (which, count / 250)
