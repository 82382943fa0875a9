"""The estimator of hidden Markov models: against hmmlearn, and what users may do with it, or do wrong."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm
from lvm import families

LENGTHS = [250, 100, 50]
TRANSMAT = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]])
MEANS = np.array([[0.0, 0.0], [3.0, 1.0], [-1.0, 3.0]])


def simulated(n: int = 400, seed: int = 0) -> tuple[Any, Any]:
    """Return observations (n, 2) and their states, of a chain that starts in state 0."""
    rng = np.random.RandomState(seed)
    states = np.zeros(n, np.int64)
    for t in range(1, n):
        states[t] = rng.choice(3, p=TRANSMAT[states[t - 1]])
    return MEANS[states] + rng.randn(n, 2), states


X, STATES = simulated()


def fitted(**options: Any) -> Any:
    return lvm.HiddenMarkov("gaussian_diag", 3, random_state=0, **options).fit(X, lengths=LENGTHS)


# ----- hmmlearn -------------------------------------------------------------------------------------------------


def _start() -> dict[str, Any]:
    return {"startprob_init": np.full(3, 1 / 3), "transmat_init": np.full((3, 3), 0.15) + 0.55 * np.eye(3)}


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_gaussian_as_hmmlearn(kind: str) -> None:
    """The same log-likelihood after each of the first iterations; hmmlearn's priors on covariances are switched off."""
    hmm = pytest.importorskip("hmmlearn.hmm")
    covariances = np.ones((3, 2)) if kind == "diag" else np.stack([np.eye(2)] * 3)
    start = {"means": MEANS + 0.5, "covariances": covariances}
    family = {"diag": families.DiagGaussian, "full": families.FullGaussian}[kind]()
    ours = lvm.HiddenMarkov(family, 3, **_start(), components_init=start, tol=0, max_iter=8).fit(X, lengths=LENGTHS)
    weight = {"covars_prior": 0, "covars_weight": 1 if kind == "diag" else 0, "means_weight": 0, "min_covar": 0}
    theirs = hmm.GaussianHMM(3, kind, n_iter=9, tol=-np.inf, init_params="", **weight)
    theirs.startprob_, theirs.transmat_ = _start().values()
    theirs.means_, theirs.covars_ = start["means"], covariances
    theirs.fit(X, LENGTHS)
    np.testing.assert_allclose(ours.objective_trace_, list(theirs.monitor_.history)[-9:], rtol=1e-9)
    assert len(theirs.monitor_.history) == 9


def test_poisson_as_hmmlearn() -> None:
    hmm = pytest.importorskip("hmmlearn.hmm")
    counts = np.random.RandomState(0).poisson(np.exp(0.5 * MEANS[STATES]))
    start = np.exp(0.5 * MEANS) + 0.3
    ours = lvm.HiddenMarkov("poisson", 3, **_start(), components_init={"rates": start}, tol=0, max_iter=8)
    ours.fit(counts, lengths=LENGTHS)
    theirs = hmm.PoissonHMM(3, n_iter=8, tol=-np.inf, init_params="", lambdas_prior=0, lambdas_weight=0)
    theirs.startprob_, theirs.transmat_ = _start().values()
    theirs.lambdas_ = start.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(counts, LENGTHS)
    assert ours.loglik_ == pytest.approx(theirs.score(counts, LENGTHS), rel=1e-9)
    assert ours.score(counts, lengths=LENGTHS) * 400 == pytest.approx(theirs.score(counts, LENGTHS), rel=1e-9)
    np.testing.assert_allclose(ours.rates_, theirs.lambdas_, rtol=1e-7)
    np.testing.assert_array_equal(ours.predict(counts, LENGTHS), theirs.predict(counts, LENGTHS))
    np.testing.assert_allclose(ours.predict_proba(counts, LENGTHS), theirs.predict_proba(counts, LENGTHS), atol=1e-8)
    for algorithm in ("viterbi", "map"):
        joint, states = theirs.decode(counts, LENGTHS, algorithm)
        found = ours.decode(counts, LENGTHS, algorithm)
        assert found[0] == pytest.approx(joint, rel=1e-7)
        np.testing.assert_array_equal(found[1], states)


# ----- fitting --------------------------------------------------------------------------------------------------


def test_fit_recovers_states() -> None:
    model = fitted(n_init=2)
    assert model.converged_
    assert model.restarts_.shape == (2,)
    order = np.argmin(((model.means_[:, None] - MEANS) ** 2).sum(axis=2), axis=1)
    assert sorted(order) == [0, 1, 2]
    assert np.mean(order[model.predict(X, LENGTHS)] == STATES) > 0.9
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1)
    assert model.loglik_ == pytest.approx(model.score(X, lengths=LENGTHS) * 400)
    assert model.n_parameters() == 2 + 6 + 12
    assert model.aic(X, LENGTHS) == pytest.approx(-2 * model.loglik_ + 40)
    assert model.bic(X, LENGTHS) == pytest.approx(-2 * model.loglik_ + 20 * np.log(400))
    np.testing.assert_allclose(model.weights_ @ model.transmat_, model.weights_, atol=1e-12)
    assert model.weights_.sum() == pytest.approx(1)


def test_lengths_may_stand_second_as_in_hmmlearn() -> None:
    model = fitted()
    assert lvm.HiddenMarkov("gaussian_diag", 3, random_state=0).fit(X, LENGTHS).loglik_ == model.loglik_
    assert model.score(X, LENGTHS) == model.score(X, lengths=LENGTHS) != model.score(X)


def test_zeros_stay() -> None:
    left_right = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    Y = np.concatenate([X[np.equal(STATES, k)][:40] for k in range(3)])
    options = {"startprob_init": [1.0, 0.0, 0.0], "transmat_init": left_right, "components_init": {"means": MEANS}}
    model = lvm.HiddenMarkov("gaussian_diag", 3, **options, tol=0, max_iter=200).fit(Y)
    np.testing.assert_array_equal(model.transmat_[left_right == 0], 0)
    np.testing.assert_array_equal(model.startprob_, [1, 0, 0])
    assert np.all(np.diff(model.predict(Y)) >= 0)
    assert model.n_parameters() == 2 + 12
    np.testing.assert_allclose(model.weights_, [0, 0, 1], atol=1e-12)


def test_fixed_values_are_held() -> None:
    means = np.array([[0.0, 0.0], [np.nan, np.nan], [np.nan, np.nan]])
    model = fitted(fixed={"transmat": TRANSMAT, "startprob": [1.0, 0.0, 0.0], "means": means}, max_iter=30, tol=0)
    np.testing.assert_allclose(model.transmat_, TRANSMAT)
    np.testing.assert_array_equal(model.startprob_, [1.0, 0.0, 0.0])
    np.testing.assert_array_equal(model.means_[0], 0)
    assert model.n_parameters() == 4 + 6
    assert np.diff(model.objective_trace_).min() > -1e-9


def test_known_states_and_weights() -> None:
    labels = np.where(np.arange(400) % 4 == 0, STATES, -1)
    model = lvm.HiddenMarkov("gaussian_diag", 3, random_state=0).fit(X, lengths=LENGTHS, labels=labels)
    assert np.mean(model.predict(X, LENGTHS) == STATES) > 0.9
    start = {**_start(), "components_init": {"means": MEANS, "covariances": np.ones((3, 2))}}
    weighted = lvm.HiddenMarkov("gaussian_diag", 3, **start).fit(X, lengths=LENGTHS, sequence_weight=[0, 2, 1])
    repeated = np.concatenate([X[250:350], X[250:]])
    twice = lvm.HiddenMarkov("gaussian_diag", 3, **start).fit(repeated, lengths=[100, 100, 50])
    assert weighted.loglik_ == pytest.approx(twice.loglik_, rel=1e-12)
    assert weighted.n_iter_ == twice.n_iter_


def test_warm_start_and_acceleration() -> None:
    model = fitted(max_iter=5, tol=0, warm_start=True)
    trace = list(model.objective_trace_)
    trace += list(model.fit(X, lengths=LENGTHS).objective_trace_[1:])
    np.testing.assert_allclose(trace, fitted(max_iter=10, tol=0).objective_trace_, rtol=1e-12)
    assert fitted(acceleration="anderson").loglik_ == pytest.approx(fitted().loglik_, abs=0.1)


def test_tolerance_is_per_observation() -> None:
    trace = fitted(tol=1e-4).objective_trace_
    gains = np.diff(trace) / 400
    assert gains[-1] < 1e-4 <= gains[:-1].min()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "family", ["poisson", "bernoulli", "multinomial", "categorical", "gaussian_full", "student_t_diag", "gaussian_tied"]
)
def test_families_by_name(family: str) -> None:
    counts = np.random.RandomState(0).poisson(np.exp(0.4 * MEANS[STATES]))
    Y = {"bernoulli": counts > 1, "gaussian_full": X, "student_t_diag": X, "gaussian_tied": X}.get(family, counts)
    model = lvm.HiddenMarkov(family, 2, random_state=0, max_iter=20).fit(Y, lengths=LENGTHS)
    assert np.diff(model.objective_trace_).min() > -1e-8
    drawn, states = model.sample(50, 3)
    assert drawn.shape == (50, 2)
    assert states.shape == (50,)
    assert np.isfinite(model.score(drawn)) or family == "categorical"
    np.testing.assert_allclose(model.predict_proba(Y, LENGTHS).sum(axis=1), 1)
    np.testing.assert_array_equal(model.sample(50, 3)[0], drawn)


def test_missing_cells() -> None:
    Y = X.copy()
    Y[np.random.RandomState(0).rand(*X.shape) < 0.1] = np.nan
    Y[7] = np.nan
    model = lvm.HiddenMarkov("gaussian_diag", 3, random_state=0).fit(Y, lengths=LENGTHS)
    assert np.diff(model.objective_trace_).min() > -1e-9
    # Of the row without values, the neighbours tell all.
    before, after = model.predict_proba(Y[:7])[-1], model.predict_proba(Y[:7])
    assert np.isfinite(after).all()
    np.testing.assert_allclose(model.predict_proba(Y[:8])[-1], before @ model.transmat_, atol=1e-12)


def test_samples_follow_the_chain() -> None:
    model = fitted()
    drawn, states = model.sample(20_000, 1)
    pairs = np.bincount(states[:-1] * 3 + states[1:], minlength=9).reshape(3, 3)
    shares = pairs / pairs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, model.transmat_, atol=5 * 0.5 / np.sqrt(pairs.sum(axis=1).min()))
    for k in range(3):
        error = 5 * np.sqrt(model.covariances_[k] / np.sum(states == k))
        np.testing.assert_array_less(np.abs(drawn[states == k].mean(axis=0) - model.means_[k]), error)


@pytest.mark.parametrize("family", ["gaussian_diag", "categorical"])
def test_saved_models_predict_the_same(family: str, tmp_path: Any) -> None:
    Y = X if family == "gaussian_diag" else (X > 0).astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = lvm.HiddenMarkov(family, 2, random_state=0, max_iter=20).fit(Y)
    lvm.save(model, tmp_path / "chain.lvm")
    for twin in (lvm.load(tmp_path / "chain.lvm"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.predict_proba(Y), model.predict_proba(Y))
        np.testing.assert_array_equal(twin.weights_, model.weights_)
    of_object = clone(model).set_params(family=families.DiagGaussian(1e-6), max_iter=1, tol=0).fit(X)
    with pytest.raises(ValueError, match="cannot save the family object DiagGaussian"):
        lvm.save(of_object, tmp_path / "chain.lvm")


# ----- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"lengths": [200, 100]}, "lengths sum to 300, but X has 400 observations"),
        ({}, {"y": [200, 100]}, "lengths sum to 300, but X has 400 observations"),
        ({}, {"lengths": [400, 0]}, "lengths must be >= 1, got 0 for sequence 1"),
        ({}, {"sequence_weight": [1, 1]}, r"sequence_weight.shape == \(2,\), expected \(1,\)"),
        ({}, {"sequence_weight": [0.0]}, "sequence_weight is zero for every sequence"),
        ({}, {"labels": [3] * 400}, "labels must be integers between -1"),
        ({}, {"labels": np.ones((400, 3))}, r"labels have shape \(400, 3\), expected \(400,\)"),
        ({"n_states": 401}, {}, "n_states = 401, n_samples = 400; lower n_states"),
        ({"n_states": 0}, {}, "n_states must be an integer >= 1, got 0"),
        ({"transmat_init": np.eye(2)}, {}, r"'transmat' should have the shape of \(3, 3\), but got \(2, 2\)"),
        ({"transmat_init": np.full((3, 3), 0.3)}, {}, "row 0 of transmat sums to 0.9, not 1"),
        ({"startprob_init": [0.5, 0.6, 0.0]}, {}, "startprob sums to 1.1, not 1"),
        ({"startprob_init": [1.5, -0.5, 0.0]}, {}, r"'startprob' should be in the range \[0, 1\].*-0.5"),
        ({"transmat_prior": 0.5}, {}, "transmat_prior must be a finite number >= 1, got 0.5"),
        ({"components_init": {"rates": MEANS}}, {}, "components_init may hold 'means', 'covariances', got 'rates'"),
        ({"components_init": {"means": MEANS[:2]}}, {}, r"'means' should have the shape of \(3, 2\)"),
        ({"fixed": {"weights": [1, 0, 0]}}, {}, "fixed may hold 'startprob', 'transmat', 'means', .* got 'weights'"),
        ({"fixed": 3}, {}, "fixed must be a dictionary"),
        ({"family": "nonsense"}, {}, "family 'nonsense' is not installed"),
        ({"family": families.DiagGaussian}, {}, r"got the class DiagGaussian; call it: DiagGaussian\(\)"),
        ({"acceleration": "squarem"}, {}, "acceleration must be one of 'anderson', got 'squarem'"),
        ({"family": "gaussian_diag", "init_params": "nonsense"}, {}, "init_params must be one of"),
    ],
)
def test_mistakes_are_named(options: Any, arguments: Any, message: str) -> None:
    model = lvm.HiddenMarkov("gaussian_diag", 3).set_params(**options)
    with pytest.raises(ValueError, match=message):
        model.fit(X, **arguments)


def test_impossible_observations_are_named() -> None:
    model = lvm.HiddenMarkov("bernoulli", 1).fit([[1], [1], [1]])
    with pytest.raises(ValueError, match="row 2 has density 0"):
        model.predict([[1], [1], [0], [1]], lengths=[2, 2])
    assert model.score([[1], [0]]) == -np.inf
    with pytest.raises(ValueError, match="algorithm must be one of 'viterbi', 'map', got 'best'"):
        model.predict([[1]], algorithm="best")


def test_degenerate_starts_say_why() -> None:
    with pytest.raises(ValueError, match="Fitting the hidden Markov model failed: from every start"):
        lvm.HiddenMarkov(families.DiagGaussian(), 2, random_state=0).fit(np.array([[0.0], [0.0], [0.0], [1.0]]))


def test_unfitted() -> None:
    model = lvm.HiddenMarkov()
    for call in (lambda: model.predict(X), lambda: model.weights_, model.sample, model.n_parameters):
        with pytest.raises(NotFittedError):
            call()


ORDER = "the order of observations is what the model is about"


@pytest.mark.filterwarnings("ignore:.*did not converge:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [lvm.HiddenMarkov("gaussian_diag"), lvm.HiddenMarkov("gaussian_full", 1)],
    expected_failed_checks=lambda estimator: (
        dict.fromkeys(("check_methods_subset_invariance", "check_methods_sample_order_invariance"), ORDER)
        if estimator.n_states > 1
        else {}
    ),
)
def test_sklearn_check(estimator: Any, check: Any) -> None:
    check(estimator)
