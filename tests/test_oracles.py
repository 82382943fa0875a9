"""Answers known by other means: enumeration, identities, closed forms, nested models, sampling, scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from reference import slow
from reference.cases import CASES, GAUSSIANS, PROBABILITIES, Case
from scipy import stats
from scipy.special import log_softmax
from sklearn import mixture as sklearn_mixture
from sklearn.exceptions import ConvergenceWarning

import lvm
from lvm import Rows
from lvm.models.mixture import MixtureParams

Array = NDArray[np.float64]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
TIGHT: dict[str, Any] = {"tol": 1e-13, "max_iter": 10_000}


def fixed(estimator: Any, X: Any, n_iter: int, **rows: Any) -> Any:
    """Fit with exactly n_iter iterations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.set_params(tol=0.0, max_iter=n_iter).fit(X, **rows)


# ----- exhaustive enumeration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(("n", "K"), [(1, 1), (2, 3), (4, 3), (6, 2)])
@every_case
def test_enumeration_of_assignments(case: Case, n: int, K: int, labelled: bool) -> None:
    """log p(X) and the expected statistics, from the sum over all K**n assignments of rows to components."""
    rng = np.random.RandomState(n)
    X, params = case.data(rng, n, 3), case.random_mixture(rng, K, 3)
    labels = np.where(np.arange(n) % 2 == 0, rng.randint(0, K, n), -1) if labelled else None
    total, probability, assignments = slow.enumerate_assignments(
        case.slow_log_density(X, params.components), params.weights, labels
    )
    model = case.mixture()
    found = model.estep_stats(model.canonical(Rows(case.rows(X), None, labels)), params)
    assert_allclose(found.loglik, total, rtol=1e-12)
    members = np.array([probability @ (assignments == k) for k in range(K)])  # P(row i in k), (K, n)
    assert_allclose(found.counts, members.sum(axis=1), rtol=1e-11, atol=1e-13)
    if case.is_gaussian:
        assert_allclose(found.components.first, slow.moments(X, members, params.components.means)[1], atol=1e-11)
    else:
        assert_allclose(found.components[1], members @ X, rtol=1e-11, atol=1e-12)


# ----- calculus -----------------------------------------------------------------------------------------------


class Coordinates:
    """Unconstrained coordinates about some parameters: their value at 0 is the parameters themselves."""

    def __init__(self, case: Case, params: MixtureParams) -> None:
        self.case, self.params = case, params
        self.K, self.d = (params.components[0]).shape
        matrices = {"full": self.K, "tied": 1}.get(case.kind, 0) * self.d**2
        scales = {"diag": self.K * self.d, "spherical": self.K}.get(case.kind, 0)
        self.size = self.K + self.K * self.d + matrices + scales

    def __call__(self, move: Array) -> MixtureParams:
        K, d = self.K, self.d
        weights, components = self.params
        new_weights = np.exp(log_softmax(np.log(weights) + move[:K]))
        location, rest = move[K : K + K * d].reshape(K, d), move[K + K * d :]
        if not self.case.is_gaussian:
            p = components.probabilities
            if self.case.kind == "bernoulli":
                new = p * np.exp(location) / (1 - p + p * np.exp(location))
            else:
                new = np.exp(log_softmax(np.log(p) + location, axis=1))
            return MixtureParams(new_weights, self.case.family().params(new))
        covariances = components.covariances
        if self.case.kind in ("full", "tied"):
            roots = np.linalg.cholesky(covariances) @ (np.eye(d) + rest.reshape(-1, d, d))
            covariances = roots @ np.swapaxes(roots, 1, 2)
        else:
            covariances = covariances * np.exp(rest.reshape(covariances.shape))
        return MixtureParams(new_weights, self.case.family().params(components.means + location, covariances))


def expected_loglik(case: Case, X: Array, resp: Array, penalty: float = 0.0) -> Callable[[MixtureParams], float]:
    """Return Q: the complete log-likelihood under fixed responsibilities (K, n), penalised and with the prior."""

    def q(params: MixtureParams) -> float:
        log_density = case.slow_log_density(X, params.components)
        log_density += np.log(params.weights)[:, None] + case.slow_penalty(params.components, penalty)[:, None]
        return float(np.sum(resp * log_density)) + case.slow_prior(params.components, penalty)

    return q


def gradient(function: Callable[[MixtureParams], float], at: Coordinates) -> Array:
    """Return central differences: with steps of 1e-5 their error is 1e-10 of the third derivatives."""
    steps = 1e-5 * np.eye(at.size)
    return np.array([(function(at(step)) - function(at(-step))) / 2e-5 for step in steps])


@pytest.mark.parametrize("penalty", [0.0, 0.4])
@every_case
def test_fishers_identity(case: Case, penalty: float) -> None:
    """The gradient of the (penalised) log-likelihood is that of Q at the parameters of its responsibilities."""
    rng = np.random.RandomState(2)
    X, params = case.data(rng, 30, 3), case.random_mixture(rng, 3, 3)
    weight = rng.randint(0, 3, 30).astype(float)
    model = case.mixture(penalty)
    rows = model.canonical(Rows(case.rows(X), weight))

    def observed(at: MixtureParams) -> float:
        return float(model.objective(model.estep_stats(rows, at), at))

    resp = slow.posterior(
        case.slow_log_density(X, params.components),
        params.weights,
        weight,
        log_penalty=case.slow_penalty(params.components, penalty),
    ).resp
    at = Coordinates(case, params)
    score = gradient(observed, at)
    assert np.max(np.abs(score)) > 0.1
    # Rounding of a log-likelihood of 1e2 over a step of 1e-5: 1e-14 * 1e2 / 1e-5.
    assert_allclose(score, gradient(expected_loglik(case, X, resp, penalty), at), rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("penalty", [0.0, 0.4])
@every_case
def test_mstep_maximises_q(case: Case, penalty: float) -> None:
    """Its gradient vanishes there, and no move, small or large, gains anything."""
    rng = np.random.RandomState(3)
    X, start = case.data(rng, 60, 3), case.random_mixture(rng, 2, 3)
    model = case.mixture(penalty)
    rows = model.canonical(Rows(case.rows(X)))
    log_penalty = case.slow_penalty(start.components, penalty)
    resp = slow.posterior(case.slow_log_density(X, start.components), start.weights, log_penalty=log_penalty).resp
    q = expected_loglik(case, X, resp, penalty)
    best = model.mstep(model.estep_stats(rows, start), start)
    at = Coordinates(case, best)
    assert np.max(np.abs(gradient(q, Coordinates(case, start)))) > 0.1
    assert_allclose(gradient(q, at), 0.0, atol=2e-6)
    top = q(best)
    for size in (1e-3, 1e-2, 0.1, 0.5):
        moved = [q(at(size * rng.normal(size=at.size))) for _ in range(25)]
        assert max(moved) < top


# ----- closed forms and nested models -------------------------------------------------------------------------


@every_case
def test_one_component_has_a_closed_form(case: Case) -> None:
    rng = np.random.RandomState(4)
    X, weight = case.data(rng, 70, 3), rng.uniform(0.5, 2, 70)
    fitted = case.estimator(1).fit(case.rows(X), sample_weight=weight)
    assert_allclose(fitted.weights_, [1.0], rtol=1e-15)
    assert fitted.n_iter_ <= 2
    if not case.is_gaussian:
        events = weight @ X
        total = weight.sum() if case.kind == "bernoulli" else events.sum()
        assert_allclose(fitted.probabilities_[0], events / total, rtol=1e-12)
        return
    mean, covariance = np.average(X, axis=0, weights=weight), np.cov(X.T, aweights=weight, ddof=0)
    if case.kind == "diag":
        covariance = np.diag(np.diag(covariance))
    if case.kind == "spherical":
        covariance = np.eye(3) * np.trace(covariance) / 3
    assert_allclose(fitted.means_[0], mean, rtol=1e-12, atol=1e-12)
    covariances = slow.expand_covariances(case.kind, fitted.covariances_, 1, 3)
    assert_allclose(covariances[0], covariance, rtol=1e-11, atol=1e-12)
    assert_allclose(fitted.loglik_, weight @ stats.multivariate_normal(mean, covariance).logpdf(X), rtol=1e-12)


def test_structures_coincide_where_they_are_the_same_model(faithful: Array) -> None:
    """One component: tied is full. One feature: full, diag and spherical are one model. Same path, same end."""
    labels = (faithful[:, 0] > 3).astype(int)
    alone = [fixed(Case(kind).estimator(1), faithful, 3) for kind in ("full", "tied")]
    assert_allclose(alone[0].objective_trace_, alone[1].objective_trace_, rtol=1e-13)
    narrow = [
        fixed(Case(kind).estimator(2, init_params=labels), faithful[:, :1], 8) for kind in ("full", "diag", "spherical")
    ]
    for other in narrow[1:]:
        assert_allclose(other.objective_trace_, narrow[0].objective_trace_, rtol=1e-12)
        assert_allclose(np.ravel(other.covariances_), np.ravel(narrow[0].covariances_), rtol=1e-10)
        assert other.n_parameters() == narrow[0].n_parameters() == 5


@pytest.mark.parametrize(("small", "large"), [("spherical", "diag"), ("diag", "full"), ("tied", "full")])
def test_larger_models_fit_at_least_as_well(iris: Array, small: str, large: str) -> None:
    """A structure started at the optimum of one nested in it begins at its log-likelihood and climbs from there."""
    nested = Case(small).estimator(2, random_state=0, **TIGHT).fit(iris)
    start: dict[str, Any] = {"weights_init": nested.weights_, "means_init": nested.means_}
    matrices = slow.expand_covariances(small, nested.covariances_, 2, 4)
    start["covariances_init"] = matrices if large == "full" else np.diagonal(matrices, axis1=1, axis2=2)
    general = Case(large).estimator(2, **TIGHT, **start).fit(iris)
    assert_allclose(general.objective_trace_[0], nested.loglik_, rtol=1e-12)
    assert general.loglik_ > nested.loglik_ + 1
    assert general.n_parameters() > nested.n_parameters()


def test_binary_item_is_a_multinomial_of_one_trial() -> None:
    rng = np.random.RandomState(0)
    x = rng.randint(0, 2, (200, 1)).astype(float)
    start: dict[str, Any] = {"weights_init": [0.4, 0.6]}
    p = np.array([[0.2], [0.7]])
    one = fixed(lvm.BernoulliMixture(2, probabilities_init=p, **start), x, 5)
    two = fixed(lvm.MultinomialMixture(2, probabilities_init=np.hstack([1 - p, p]), **start), np.hstack([1 - x, x]), 5)
    assert_allclose(two.objective_trace_, one.objective_trace_, rtol=1e-13)
    assert two.n_parameters() == one.n_parameters() == 3


@every_case
def test_twin_components_are_one(case: Case) -> None:
    """Equal components stay equal under EM, at the log-likelihood of a single one."""
    X = case.data(np.random.RandomState(5), 90, 3)
    twins = fixed(case.estimator(2, init_params=np.full((90, 2), 0.5)), case.rows(X), 4)
    single = fixed(case.estimator(1), case.rows(X), 4)
    assert_allclose(twins.objective_trace_, single.objective_trace_, rtol=1e-12)


# ----- sampling -----------------------------------------------------------------------------------------------


def fitted_model(case: Case, rng: np.random.RandomState, d: int) -> Any:
    X = case.data(rng, 400, d)
    return case.estimator(2, 0.01, random_state=rng.randint(2**31)).fit(case.rows(X))


@pytest.mark.parametrize("case", GAUSSIANS, ids=str)
def test_samples_follow_the_density(case: Case) -> None:
    """Kolmogorov-Smirnov against the integral of `score_samples`; the negative control is a sample moved by 0.2."""
    model = fitted_model(case, np.random.RandomState(6), 1)
    scale = float(np.sqrt(np.max(model.covariances_)))
    grid = np.linspace(model.means_.min() - 12 * scale, model.means_.max() + 12 * scale, 40_001)
    density = np.exp(model.score_samples(grid[:, None]))
    steps = np.concatenate([[0.0], np.diff(grid) * (density[1:] + density[:-1]) / 2])
    cumulated = np.cumsum(steps)
    assert cumulated[-1] == pytest.approx(1.0, abs=1e-9)  # a proper density; trapezia of analytic functions
    X, _ = model.sample(4000)

    def cdf(x: Array) -> Array:
        return np.interp(x, grid, cumulated)

    assert stats.kstest(X[:, 0], cdf).pvalue > 1e-3
    assert stats.kstest(X[:, 0] + 0.2 * X[:, 0].std(), cdf).pvalue < 1e-6


@pytest.mark.parametrize("case", GAUSSIANS, ids=str)
def test_samples_in_many_dimensions(case: Case) -> None:
    """Each component, projected on random directions, is the normal law of its mean and covariance."""
    rng = np.random.RandomState(7)
    model = fitted_model(case, rng, 4)
    X, y = model.sample(6000)
    assert stats.binomtest(int((y == 0).sum()), 6000, model.weights_[0]).pvalue > 1e-3
    covariances = slow.expand_covariances(case.kind, model.covariances_, 2, 4)
    for direction in rng.normal(size=(5, 4)):
        for k in range(2):
            scale = np.sqrt(direction @ covariances[k] @ direction)
            z = (X[y == k] - model.means_[k]) @ direction / scale
            assert stats.kstest(z, "norm").pvalue > 1e-4
            assert stats.kstest(1.5 * z, "norm").pvalue < 1e-4  # negative control: a scale wrong by half


def table_of(case: Case) -> Array:
    """Return every possible row: 2**4 answers, or all counts of 5 trials in 3 cells."""
    if case.kind == "bernoulli":
        return np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T
    cells = np.array(np.meshgrid(*[np.arange(6.0)] * 3)).reshape(3, -1).T
    return cells[cells.sum(axis=1) == 5]


@pytest.mark.parametrize("case", PROBABILITIES, ids=str)
def test_samples_follow_the_probabilities(case: Case) -> None:
    """Chi-squared over all possible rows, whose probabilities sum to 1; the negative control has equal components."""
    rng = np.random.RandomState(8)
    model = fitted_model(case, rng, 4 if case.kind == "bernoulli" else 3)
    table = table_of(case)
    probability = np.exp(model.score_samples(case.rows(table)))
    assert probability.sum() == pytest.approx(1.0, abs=1e-12)
    X = model.sample(5000)[0] if case.kind == "bernoulli" else model.sample(5000, n_trials=5)[0]
    observed = np.array([(row == X).all(axis=1).sum() for row in table])
    assert observed.sum() == 5000
    expected = 5000 * probability / probability.sum()
    enough = expected > 5
    pooled = [np.append(counts[enough], counts[~enough].sum() + 1e-9) for counts in (observed, expected)]
    pooled[1] *= pooled[0].sum() / pooled[1].sum()
    assert stats.chisquare(*pooled).pvalue > 1e-3
    model.probabilities_ = np.repeat(model.weights_[None] @ model.probabilities_, 2, axis=0)
    independent = 5000 * np.exp(model.score_samples(case.rows(table)))
    pooled[1] = np.append(independent[enough], independent[~enough].sum() + 1e-9)
    pooled[1] *= pooled[0].sum() / pooled[1].sum()
    assert stats.chisquare(*pooled).pvalue < 1e-6


# ----- scikit-learn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GAUSSIANS, ids=str)
def test_agrees_with_scikit_learn(case: Case, iris: Array) -> None:
    """From the same explicit start, after the same iterations: the same parameters, densities and criteria."""
    rng = np.random.RandomState(9)
    first = Case(case.kind).estimator(3, init_params=rng.randint(0, 3, 150))
    start = fixed(first, iris, 0)
    arguments: dict[str, Any] = {
        "covariance_type": case.kind,
        "weights_init": start.weights_,
        "means_init": start.means_,
        "precisions_init": start.precisions_,
        "reg_covar": 0.0,
    }
    ours = fixed(lvm.GaussianMixture(3, **arguments), iris, 10)
    theirs = sklearn_mixture.GaussianMixture(3, max_iter=10, **arguments)
    fixed(theirs, iris, 10)
    assert theirs.n_iter_ == ours.n_iter_ == 10
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        # Ten iterations of a start without structure carry the rounding of the inverted precisions along.
        assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-8, err_msg=name)
    assert_allclose(ours.score_samples(iris), theirs.score_samples(iris), rtol=1e-9, atol=1e-9)
    assert_allclose(ours.predict_proba(iris), theirs.predict_proba(iris), atol=1e-9)
    assert_allclose(ours.bic(iris), theirs.bic(iris), rtol=1e-11)
    assert_allclose(ours.aic(iris), theirs.aic(iris), rtol=1e-11)
    assert np.array_equal(ours.predict(iris), theirs.predict(iris))
