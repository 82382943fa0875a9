"""The log-likelihood as a bound plus a divergence, in mixtures of regressions and in hidden Markov models."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from expert_cases import KINDS, case, log_densities
from scipy.stats import norm

import lvm
from lvm.families import DiagGaussian, Poisson
from lvm.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from lvm.models.latent_trait import LatentTraitModel
from lvm.models.sequences import SequenceRows, Sequences, by_observation, indptr_of
from lvm.plotting import plot_bound
from lvm.protocol import Rows, ZeroDensityError, slice_rows

# ----- mixtures of regressions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("gated", [False, True], ids=["constant", "gated"])
@pytest.mark.parametrize("kind", KINDS)
def test_experts(kind: str, gated: bool, grouped: bool) -> None:
    """The E-step makes the divergence 0, and no other responsibilities of the units exceed the log-likelihood."""
    model, params, rows = case(kind, gated, grouped)
    joint = model.joint_log_density(rows, params)
    np.testing.assert_allclose(joint, log_densities(kind, params, rows.data), rtol=1e-10)
    rng = np.random.RandomState(1)
    rows = rows._replace(weight=rng.uniform(0, 2, len(rows.data)))
    expected = float(rows.weight @ model.loglik(rows, params))
    loglik, elbo, kl = lvm.decompose(model, rows, params, model.responsibilities(rows, params))
    assert loglik == pytest.approx(expected, rel=1e-12)
    assert elbo == pytest.approx(expected, rel=1e-12)
    assert 0 <= kl < 1e-12 * len(joint)
    for spread in (0.02, 1.0, 50.0):
        q = rng.dirichlet(np.full(2, spread), len(joint))
        loglik, elbo, kl = lvm.decompose(model, rows, params, q)
        assert elbo < loglik - 1e-3
        assert elbo + kl == pytest.approx(loglik, rel=1e-11)
        assert lvm.elbo(model, rows, params, q) == elbo


def test_steps_of_experts_raise_the_bound() -> None:
    """A Newton step need not maximise the bound, but raises it."""
    model, params, rows = case("poisson", True, True)
    for _ in range(4):
        q = model.responsibilities(rows, params)
        new = model.mstep(model.estep_stats(rows, params), params)
        assert lvm.elbo(model, rows, params, q) < lvm.elbo(model, rows, new, q) < model.loglik(rows, new).sum()
        params = new


# ----- hidden Markov models -------------------------------------------------------------------------------------

K = 3
LENGTHS = [5, 1, 4]
TRANSMAT = {
    "positive": np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]]),
    "left-right": np.array([[0.6, 0.4, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]),
}


def chain(kind: str = "positive") -> tuple[Any, Any, Any]:
    """Return a model of 3 states, parameters and three sequences of 10 observations together, weighted."""
    family = DiagGaussian()
    components = family.params(np.array([[-1.0], [0.0], [1.5]]), np.ones((K, 1)))
    startprob = np.array([0.5, 0.3, 0.2]) if kind == "positive" else np.array([1.0, 0.0, 0.0])
    X = np.random.RandomState(3).randn(10, 1)
    rows = SequenceRows(Sequences(indptr_of(LENGTHS, 10), X), np.array([1.0, 0.5, 2.0]))
    return HiddenMarkovModel(family), HiddenMarkovParams(startprob, TRANSMAT[kind], components), rows


def random_paths(rng: np.random.RandomState, spread: float, params: Any) -> Any:
    """Return a distribution over the possible paths, [t, i, j]; for the first of a sequence the same for all i."""
    q = np.stack([rng.dirichlet(np.full(K, spread), K) for _ in range(10)]) * (params.transmat > 0)
    q[[0, 5, 6]] = rng.dirichlet(np.full(K, spread), 3)[:, None] * (params.startprob > 0)
    return q / q.sum(axis=2, keepdims=True)


def by_paths(params: Any, rows: Any, q: Any) -> tuple[float, float]:
    """Return log-likelihood and bound, as sums over all paths of each sequence."""
    loglik = elbo = 0.0
    with np.errstate(divide="ignore"):
        start, transitions = np.log(params.startprob), np.log(params.transmat)
    for s, w in enumerate(rows.weight):
        a, b = rows.X.indptr[s], rows.X.indptr[s + 1]
        emissions = norm.logpdf(rows.X.observations[a:b], params.components.means[:, 0])
        total = 0.0
        for path in product(range(K), repeat=int(b - a)):
            joint, probability = start[path[0]] + emissions[0, path[0]], q[a, 0, path[0]]
            for t in range(1, len(path)):
                joint += transitions[path[t - 1], path[t]] + emissions[t, path[t]]
                probability *= q[a + t, path[t - 1], path[t]]
            total += np.exp(joint)
            elbo += w * probability * (joint - np.log(probability)) if probability > 0 else 0.0
        loglik += w * np.log(total)
    return loglik, elbo


@pytest.mark.parametrize("kind", TRANSMAT)
def test_paths(kind: str) -> None:
    model, params, rows = chain(kind)
    exact = model.posterior_transitions(rows, params)
    np.testing.assert_allclose(exact.sum(axis=2), 1.0)
    loglik, elbo, kl = lvm.decompose(model, rows, params, exact)
    expected = float(rows.weight @ model.loglik(rows, params))
    assert loglik == pytest.approx(expected, rel=1e-13)
    assert elbo == pytest.approx(expected, rel=1e-13)
    assert 0 <= kl < 1e-12
    rng = np.random.RandomState(0)
    for spread in (0.1, 1.0, 20.0):
        q = random_paths(rng, spread, params)
        loglik, elbo, kl = lvm.decompose(model, rows, params, q)
        assert (loglik, elbo) == pytest.approx(by_paths(params, rows, q), rel=1e-12)
        assert elbo < loglik - 1e-3
        assert elbo + kl == pytest.approx(loglik, rel=1e-12)
        counted = by_observation(model.canonical(rows))
        assert lvm.elbo(model, counted, params, q) == pytest.approx(elbo, rel=1e-12)


def test_the_posterior_of_paths_has_the_smoothed_states() -> None:
    model, params, rows = chain()
    q, smoothed = model.posterior_transitions(rows, params), model.responsibilities(rows, params)
    for t in range(10):
        before = smoothed[t - 1] if t not in (0, 5, 6) else np.full(K, 1 / K)
        np.testing.assert_allclose(before @ q[t], smoothed[t], atol=1e-13)


def test_baum_welch_raises_the_bound() -> None:
    model, params, rows = chain()
    for _ in range(4):
        q = model.posterior_transitions(rows, params)
        new = model.mstep(model.estep_stats(rows, params), params)
        before, after = lvm.decompose(model, rows, params, q), lvm.decompose(model, rows, new, q)
        assert before.elbo == pytest.approx(before.loglik, rel=1e-13)
        assert before.elbo < after.elbo < after.loglik
        params = new


def test_known_states_and_impossible_paths() -> None:
    model, params, rows = chain()
    states = np.full(10, -1)
    states[[2, 6]] = 1
    known = SequenceRows(Sequences(rows.X.indptr, rows.X.observations, states), rows.weight)
    exact = model.posterior_transitions(known, params)
    found = lvm.decompose(model, known, params, exact)
    assert found.kl < 1e-12
    assert found.loglik == pytest.approx(float(rows.weight @ model.loglik(known, params)), rel=1e-13)
    np.testing.assert_array_equal(exact[2, :, 1], 1.0)
    excluded = lvm.decompose(model, known, params, np.full((10, K, K), 1 / K))
    assert (excluded.elbo, excluded.kl) == (-np.inf, np.inf)
    left_right, ordered, _ = chain("left-right")
    assert lvm.elbo(left_right, rows, ordered, np.full((10, K, K), 1 / K)) == -np.inf


def test_impossible_observations() -> None:
    family = Poisson()
    model = HiddenMarkovModel(family)
    params = HiddenMarkovParams(np.array([0.5, 0.5]), np.full((2, 2), 0.5), family.params(np.array([[0.0], [0.0]])))
    rows = SequenceRows(Sequences(np.array([0, 2, 4]), np.array([[0.0], [0.0], [1.0], [0.0]])))
    q = np.full((4, 2, 2), 0.5)
    with pytest.raises(ZeroDensityError, match="row 2 has density 0"):
        lvm.decompose(model, rows, params, q)
    assert lvm.decompose(model, rows._replace(weight=np.array([1.0, 0.0])), params, q) == (0.0, 0.0, 0.0)


def test_mistakes() -> None:
    model, params, rows = chain()
    with pytest.raises(
        ValueError, match=r"responsibilities have shape \(10, 3\), expected \(10, 3, 3\): from each state"
    ):
        lvm.elbo(model, rows, params, np.full((10, 3), 1 / 3))
    q = np.full((10, K, K), 1 / K)
    q[4, 1] = [0.5, 0.5, 0.5]
    with pytest.raises(ValueError, match="in row 4, state 1"):
        lvm.elbo(model, rows, params, q)
    with pytest.raises(TypeError, match=r"LatentTraitModel must implement joint_log_density.*of the K values"):
        lvm.elbo(LatentTraitModel(), np.zeros((2, 2)), None, q)
    single = slice_rows(rows, slice(0, 1)).X.observations[:5]
    exact = model.posterior_transitions(Rows(single), params)
    assert lvm.decompose(model, single, params, exact).kl < 1e-12


def test_a_chain_has_no_picture_of_its_bound() -> None:
    model, params, rows = chain()
    with pytest.raises(TypeError, match="HiddenMarkovModel must implement joint_log_density"):
        plot_bound(model, rows, params)
