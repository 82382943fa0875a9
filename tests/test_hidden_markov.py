"""The hidden Markov model against sums over all paths, and against what theory says of it."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from conformance import each_check
from scipy.special import logsumexp

import lvm
from lvm.families import Bernoulli, DiagGaussian, FullGaussian, Poisson
from lvm.models import chain_walk
from lvm.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from lvm.models.mixture import MixtureParams
from lvm.models.sequences import SequenceRows, Sequences, by_observation, indptr_of
from lvm.protocol import ZeroDensityError, slice_rows

# Sums of a few hundred terms of size 1, in another order.
TOLERANCE = 1e-12


def sequences(X: Any, lengths: Any, states: Any = None, weight: Any = None) -> SequenceRows:
    return SequenceRows(Sequences(indptr_of(lengths, len(X)), X, states), weight)


def by_paths(startprob: Any, transmat: Any, densities: Any, known: Any) -> Any:
    """Sum over all paths of a sequence of log densities (T, K): the slow reference."""
    T, K = densities.shape
    paths = [
        path for path in product(range(K), repeat=T) if all(s in (-1, z) for s, z in zip(known, path, strict=True))
    ]
    with np.errstate(divide="ignore"):
        start, transitions = np.log(startprob), np.log(transmat)
    joint = np.array(
        [
            start[z[0]] + sum(transitions[i, j] for i, j in pairwise(z)) + sum(densities[t, k] for t, k in enumerate(z))
            for z in paths
        ]
    )
    loglik = logsumexp(joint)
    posterior, pairs = np.zeros((T, K)), np.zeros((K, K))
    for z, p in zip(paths, np.exp(joint - loglik), strict=True):
        posterior[np.arange(T), z] += p
        for i, j in pairwise(z):
            pairs[i, j] += p
    return loglik, posterior, pairs, paths[int(joint.argmax())], joint.max()


def case(K: int, seed: int, kind: str) -> tuple[Any, Any, Any]:
    """Return a model, parameters and observations (11, 2)."""
    rng = np.random.RandomState(seed)
    startprob, transmat = rng.dirichlet(np.ones(K)), rng.dirichlet(np.ones(K), K)
    spread = 1.0
    if kind != "positive":
        startprob, transmat = np.eye(K)[0], np.triu(transmat)
        transmat /= transmat.sum(axis=1, keepdims=True)
        spread = 30.0 if kind == "far" else 1.0
    family = DiagGaussian()
    components = family.params(spread * rng.randn(K, 2), np.ones((K, 2)))
    return HiddenMarkovModel(family), HiddenMarkovParams(startprob, transmat, components), rng.randn(11, 2)


@pytest.mark.parametrize("kind", ["positive", "left-right", "far"])
@pytest.mark.parametrize("known", [False, True], ids=["free", "known"])
@pytest.mark.parametrize("block", [256, 2], ids=["at once", "in blocks"])
@pytest.mark.parametrize(("K", "lengths"), [(1, [11]), (2, [1, 9, 1]), (3, [6, 4, 1]), (9, [2, 2, 3, 1, 3])])
def test_all_paths(K: int, lengths: Any, block: int, known: bool, kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(chain_walk, "MIN_BLOCK", block)
    monkeypatch.setattr(chain_walk, "BLOCK_CELLS", 1 << 15 if block > 2 else 1)
    model, params, X = case(K, K, kind)
    states = np.full(11, -1)
    states[5] = K - 1 if known and (kind == "positive" or lengths[0] == 6) else -1
    weight = np.linspace(0.5, 2.0, len(lengths))
    rows = model.canonical(sequences(X, lengths, states, weight))
    densities = np.zeros((K, 11))
    model.family.log_density(rows.X.observations, params.components, densities)
    stats, posterior = model.estep_stats(rows, params), model.responsibilities(rows, params)
    logliks, (joint, path) = model.loglik(rows, params), model.most_probable_path(rows, params)
    cuts = np.cumsum([0, *lengths])
    pairs, starts, counts, best = np.zeros((K, K)), np.zeros(K), np.zeros(K), 0.0
    for i, (a, b) in enumerate(pairwise(cuts)):
        expected = by_paths(params.startprob, params.transmat, densities.T[a:b], states[a:b])
        assert logliks[i] == pytest.approx(expected[0], rel=TOLERANCE)
        np.testing.assert_allclose(posterior[a:b], expected[1], atol=TOLERANCE)
        assert tuple(path[a:b]) == expected[3]
        pairs += weight[i] * expected[2]
        starts += weight[i] * expected[1][0]
        counts += weight[i] * expected[1].sum(axis=0)
        best += expected[4]
    np.testing.assert_allclose(stats.transitions, pairs, atol=TOLERANCE)
    np.testing.assert_allclose(stats.starts, starts, atol=TOLERANCE)
    np.testing.assert_allclose(stats.components.counts, counts, atol=1e-11)
    assert stats.loglik == pytest.approx(weight @ logliks, rel=TOLERANCE)
    assert stats.weight == pytest.approx(weight.sum())
    assert joint == pytest.approx(best, rel=TOLERANCE)
    expected_right, states_alone = model.most_probable_states(rows, params)
    np.testing.assert_array_equal(states_alone, posterior.argmax(axis=1))
    assert expected_right == pytest.approx(posterior.max(axis=1).sum())


def test_what_underflows_may_matter_later() -> None:
    """The path that stays in the first state is 1e-870 of the other until an observation excludes that one."""
    family = DiagGaussian()
    params = HiddenMarkovParams(
        np.array([0.5, 0.5]), np.eye(2), family.params(np.array([[0.0], [40.0]]), np.ones((2, 1)))
    )
    model = HiddenMarkovModel(family)
    X = np.array([[45.0], [43.0], [-400.0], [41.0]])
    (loglik,) = model.loglik(sequences(X, None), params)
    joint = -2 * np.log(2 * np.pi) - 0.5 * ((X - params.components.means[:, 0]) ** 2).sum(axis=0) + np.log(0.5)
    assert loglik == pytest.approx(logsumexp(joint), rel=TOLERANCE)
    np.testing.assert_array_equal(model.responsibilities(sequences(X, None), params)[:, 0], np.ones(4))


def test_an_unlikely_start_is_not_impossible() -> None:
    """The state in which sequences start is e**-3200 times as likely as the other: beyond what scaled numbers hold."""
    family = DiagGaussian()
    components = family.params(np.array([[0.0], [80.0]]), np.ones((2, 1)))
    params = HiddenMarkovParams(np.array([1.0, 0.0]), np.full((2, 2), 0.5), components)
    (loglik,) = HiddenMarkovModel(family).loglik(sequences(np.array([[80.0], [80.0]]), None), params)
    assert loglik == pytest.approx(-3200 - np.log(2 * np.pi) + np.log(0.5), rel=TOLERANCE)


@pytest.mark.parametrize("smallest", [0.0, 1e-60], ids=["ordinary", "sticky"])
@pytest.mark.parametrize("K", [3, 8, 13, 16, 17])
def test_scaled_form_is_the_logarithmic_one(K: int, smallest: float, monkeypatch: Any) -> None:
    """Of states that observations tell apart by e**-300, in several blocks: to rounding of sums over 3,000 steps."""
    rng = np.random.RandomState(K)
    transmat = rng.dirichlet(np.ones(K), K)
    if smallest:
        transmat = np.where(np.eye(K) > 0, 1.0, smallest)
    family = DiagGaussian()
    params = HiddenMarkovParams(
        rng.dirichlet(np.ones(K)), transmat, family.params(10 * rng.randn(K, 2), np.ones((K, 2)))
    )
    model = HiddenMarkovModel(family)
    X = np.concatenate([model.sample_sequence(params, 1_500, rng)[0] for _ in range(2)]) + 3 * rng.randn(3_000, 2)
    rows = model.canonical(sequences(X, [2_400, 600]))
    monkeypatch.setattr(chain_walk, "BLOCK_CELLS", 1 << 12)
    scaled, smoothed = model.estep_stats(rows, params), model.responsibilities(rows, params)
    assert chain_walk.Walk(family, rows, params)._forward(0, 1).is_scaled
    monkeypatch.setattr(chain_walk, "MIN_SCALED_TRANSITION", 2.0)
    logarithmic = model.estep_stats(rows, params)
    assert not chain_walk.Walk(family, rows, params)._forward(0, 1).is_scaled
    assert scaled.loglik == pytest.approx(logarithmic.loglik, rel=1e-13)
    np.testing.assert_allclose(scaled.transitions, logarithmic.transitions, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scaled.starts, logarithmic.starts, atol=1e-10)
    np.testing.assert_allclose(smoothed, model.responsibilities(rows, params), atol=1e-10)
    np.testing.assert_allclose(smoothed.sum(axis=1), 1.0, atol=1e-13)


def test_blocks_change_nothing(monkeypatch: Any) -> None:
    model, params, _ = case(3, 0, "positive")
    X, _ = model.sample_sequence(params, 20_000, np.random.RandomState(0))
    rows = model.canonical(sequences(X, [15_000, 5_000]))
    few = model.estep_stats(rows, params), model.most_probable_path(rows, params)
    monkeypatch.setattr(chain_walk, "BLOCK_CELLS", 1 << 12)
    many = model.estep_stats(rows, params), model.most_probable_path(rows, params)
    assert few[0].loglik == pytest.approx(many[0].loglik, rel=TOLERANCE)
    np.testing.assert_allclose(few[0].transitions, many[0].transitions, rtol=1e-11)
    np.testing.assert_allclose(few[0].components.first, many[0].components.first, atol=1e-8)
    np.testing.assert_array_equal(few[1][1], many[1][1])


def test_equal_rows_of_transitions_are_a_mixture() -> None:
    X = np.random.RandomState(0).randn(300, 2)
    family = FullGaussian(reg_covar=0.01)
    weights = np.array([0.2, 0.5, 0.3])
    components = family.params(np.array([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.stack([np.eye(2)] * 3))
    mixture = lvm.Mixture(family).estep_stats(lvm.Rows(X), MixtureParams(weights, components))
    params = HiddenMarkovParams(weights, np.stack([weights] * 3), components)
    chain = HiddenMarkovModel(family).estep_stats(sequences(X, [100, 1, 199]), params)
    assert chain.loglik == pytest.approx(mixture.loglik, rel=TOLERANCE)
    assert chain.penalty == pytest.approx(mixture.penalty, rel=1e-9)
    for ours, theirs in zip(chain.components, mixture.components, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
    np.testing.assert_allclose(chain.starts + chain.transitions.sum(axis=0), mixture.counts, atol=1e-10)


def test_fisher_identity() -> None:
    """The slope of the log-likelihood is the expected slope of the complete one: differences of 1e-6, error 1e-8."""
    model, params, X = case(3, 5, "positive")
    rows = model.canonical(sequences(X, [4, 7]))
    stats = model.estep_stats(rows, params)

    def slope(name: str, place: Any) -> float:
        ends = []
        for step in (1e-6, -1e-6):
            array = np.array(getattr(params, name) if name != "means" else params.components.means)
            array[place] += step
            moved = {name: array} if name != "means" else {"components": params.components._replace(means=array)}
            ends.append(float(model.loglik(rows, params._replace(**moved)).sum()))
        return (ends[0] - ends[1]) / 2e-6

    for place in np.ndindex(3, 3):
        expected = stats.transitions[place] / params.transmat[place]
        assert slope("transmat", place) == pytest.approx(expected, abs=1e-7 * max(1, expected))
    for k in range(3):
        assert slope("startprob", k) == pytest.approx(stats.starts[k] / params.startprob[k], rel=1e-6)
        assert slope("means", (k, 1)) == pytest.approx(stats.components.first[k, 1], abs=1e-7)


@pytest.mark.parametrize("zeros", [False, True])
def test_objective_climbs_with_penalty_and_priors(zeros: bool) -> None:
    model, params, _ = case(3, 1, "left-right" if zeros else "positive")
    X, _ = model.sample_sequence(params, 400, np.random.RandomState(1))
    family = DiagGaussian(reg_covar=0.5)
    model = HiddenMarkovModel(family, startprob_prior=1.5, transmat_prior=2.0)
    start = params._replace(components=family.params(X[[0, 100, 300]], np.ones((3, 2))))
    fit = lvm.fit_em(model, sequences(X, [100] * 4), start, tol=0, max_iter=60)
    assert np.diff(fit.objective_trace).min() > -1e-9
    assert fit.objective_trace[-1] > fit.objective_trace[0] + 1
    stats = model.estep_stats(sequences(X, [100] * 4), fit.params)
    assert model.objective(stats, fit.params) == pytest.approx(fit.objective_trace[-1])
    assert fit.loglik == pytest.approx(model.loglik(sequences(X, [100] * 4), fit.params).sum())
    np.testing.assert_array_equal(fit.params.transmat == 0, params.transmat == 0)


def test_mstep_is_the_maximum_under_priors() -> None:
    model, params, X = case(3, 2, "positive")
    model = HiddenMarkovModel(model.family, startprob_prior=1.5, transmat_prior=2.0)
    stats = model.estep_stats(sequences(X, [4, 7]), params)
    best = model.mstep(stats, params)

    def expected(transmat: Any) -> float:
        return float(((stats.transitions + 1.0) * np.log(transmat)).sum())

    rng = np.random.RandomState(0)
    for _ in range(20):
        other = best.transmat * rng.uniform(0.9, 1.1, (3, 3))
        assert expected(other / other.sum(axis=1, keepdims=True)) < expected(best.transmat)
    np.testing.assert_allclose(best.startprob, (stats.starts + 0.5) / (stats.starts.sum() + 1.5))


def test_a_state_without_weight_keeps_its_transitions() -> None:
    model, params, X = case(3, 2, "positive")
    params = params._replace(startprob=np.array([0.5, 0.5, 0.0]))
    params.transmat[:2] = [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]
    after = model.mstep(model.estep_stats(sequences(X, [4, 7]), params), params)
    np.testing.assert_array_equal(after.transmat[2], params.transmat[2])
    assert after.startprob[2] == 0
    assert np.all(after.transmat[:2, 2] == 0)


def test_counting_by_observation_changes_no_statistic() -> None:
    model, params, X = case(3, 2, "positive")
    rows = model.canonical(sequences(X, [4, 1, 6], weight=np.array([1.0, 3.0, 0.5])))
    counted = by_observation(rows)
    whole = model.estep_stats(rows, params)
    for cut in range(12):
        parts = [model.estep_stats(slice_rows(counted, part), params) for part in (slice(0, cut), slice(cut, 11))]
        np.testing.assert_allclose(parts[0].transitions + parts[1].transitions, whole.transitions, atol=TOLERANCE)
        assert parts[0].loglik + parts[1].loglik == pytest.approx(whole.loglik)
        assert parts[0].weight + parts[1].weight == 4.5


def test_threads_and_memory() -> None:
    """100 sequences of 1,000 make several chunks, bitwise the same for 1 and 2 threads; no array of n x K is kept."""
    model, params, _ = case(9, 3, "positive")
    X, _ = model.sample_sequence(params, 100_000, np.random.RandomState(0))
    rows = by_observation(model.canonical(sequences(X, [1_000] * 100)))
    one, two = (lvm.fit_em(model, rows, params, tol=0, max_iter=2, n_jobs=jobs) for jobs in (1, 2))
    np.testing.assert_array_equal(one.objective_trace, two.objective_trace)
    np.testing.assert_array_equal(one.params.transmat, two.params.transmat)
    np.testing.assert_array_equal(one.params.components.means, two.params.components.means)
    single = model.canonical(sequences(X, None))
    tracemalloc.start()
    model.estep_stats(single, params)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6  # states of all observations would take 7.2 MB


def test_impossible_observations_are_named() -> None:
    family = Bernoulli()
    model = HiddenMarkovModel(family)
    X = np.array([[1], [1], [0], [1], [0], [0]], np.uint8)
    params = HiddenMarkovParams(np.array([0.5, 0.5]), np.eye(2), family.params(np.array([[1.0], [0.5]])))
    params = params._replace(startprob=np.array([1.0, 0.0]))
    rows = model.canonical(sequences(X, [2, 2, 2]))
    np.testing.assert_array_equal(model.loglik(rows, params), [0.0, -np.inf, -np.inf])
    with pytest.raises(ZeroDensityError, match="row 1 has density 0"):
        model.estep_stats(rows, params)
    with pytest.raises(ZeroDensityError, match="row 2 has density 0"):
        lvm.fit_em(model, by_observation(rows), params)
    with pytest.raises(ZeroDensityError, match="row 0 has density 0"):
        model.estep_stats(slice_rows(rows, slice(1, 3)), params)
    with pytest.raises(ZeroDensityError, match="row 2 has density 0"):
        model.most_probable_path(by_observation(rows), params)
    with pytest.raises(ZeroDensityError, match="row 4 has density 0"):
        model.estep_stats(by_observation(rows._replace(weight=np.array([1.0, 0.0, 1.0]))), params)
    stats = model.estep_stats(rows._replace(weight=np.array([1.0, 0.0, 0.0])), params)
    assert stats.loglik == 0
    np.testing.assert_allclose(stats.components.counts, [2.0, 0.0])


def _conforming(family: Any, components: Any, **options: Any) -> tuple[Any, Any, Any]:
    model = HiddenMarkovModel(family, **options)
    transmat = np.array([[0.7, 0.3], [0.4, 0.6]])
    params = HiddenMarkovParams(np.array([0.6, 0.4]), transmat, components)
    rng = np.random.RandomState(3)
    lengths = rng.randint(2, 9, 70)
    X = np.concatenate([model.sample_sequence(params, length, rng)[0] for length in lengths])
    return model, params, sequences(X, lengths)


MEANS = np.array([[-1.0, 0.0], [1.0, 0.5]])
CASES = {
    "diag": _conforming(DiagGaussian(), DiagGaussian().params(MEANS, np.ones((2, 2)))),
    "full regularised": _conforming(FullGaussian(0.1), FullGaussian().params(MEANS, np.stack([np.eye(2)] * 2))),
    "poisson with priors": _conforming(
        Poisson((1.5, 1.0)), Poisson().params(np.exp(MEANS)), startprob_prior=1.5, transmat_prior=1.2
    ),
}


@each_check(CASES)
def test_conformance(check: Any) -> None:
    check()


def test_acceleration_ends_no_lower() -> None:
    model, params, rows = CASES["diag"]
    plain = lvm.fit_em(model, rows, params, tol=1e-9)
    fast = lvm.fit_anderson(model, rows, params, tol=1e-9)
    assert fast.converged
    assert fast.loglik == pytest.approx(plain.loglik, abs=1e-4)
    zeros = params._replace(startprob=np.array([1.0, 0.0]))
    back = model.from_vector(model.to_vector(zeros, params), params)
    np.testing.assert_allclose(back.startprob, [1.0, 0.0])
    np.testing.assert_allclose(back.transmat, params.transmat)
