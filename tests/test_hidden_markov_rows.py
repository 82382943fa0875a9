"""Rows of hidden Markov models as a user may give them, or give them wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lvm
from lvm.execution import chunk_slices
from lvm.families import DiagGaussian
from lvm.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from lvm.models.sequences import SequenceRows, Sequences, SequencesByObservation, by_observation, indptr_of
from lvm.protocol import Rows, n_rows


def sequences(X: Any, lengths: Any, states: Any = None, weight: Any = None) -> SequenceRows:
    return SequenceRows(Sequences(indptr_of(lengths, len(X)), X, states), weight)


def case() -> tuple[Any, Any, Any]:
    """Return a model of 3 states, parameters and observations (11, 2)."""
    rng = np.random.RandomState(2)
    family = DiagGaussian()
    components = family.params(rng.randn(3, 2), np.ones((3, 2)))
    params = HiddenMarkovParams(rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3), components)
    return HiddenMarkovModel(family), params, rng.randn(11, 2)


def test_sequences_given_directly_are_not_divided() -> None:
    """Enough short ones for two chunks; however rows are counted, sums of as many terms in another order."""
    model, params, _ = case()
    rng = np.random.RandomState(0)
    lengths = rng.randint(1, 5, 17_000)
    X, _ = model.sample_sequence(params, int(lengths.sum()), rng)
    rows = sequences(X, lengths, weight=rng.uniform(0, 2, 17_000))
    assert len(chunk_slices(n_rows(rows), 2)) == 2
    counted = by_observation(model.canonical(rows))
    fits = [
        lvm.fit_em(model, given, params, tol=0, max_iter=2, n_jobs=jobs)
        for given, jobs in ((rows, 1), (rows, 2), (counted, 1))
    ]
    np.testing.assert_array_equal(fits[0].objective_trace, fits[1].objective_trace)
    np.testing.assert_array_equal(fits[0].params.transmat, fits[1].params.transmat)
    np.testing.assert_allclose(fits[0].objective_trace, fits[2].objective_trace, rtol=1e-12)
    np.testing.assert_allclose(fits[0].params.transmat, fits[2].params.transmat, rtol=1e-10)
    assert fits[0].loglik == pytest.approx(rows.weight @ model.loglik(rows, fits[0].params), rel=1e-12)
    assert fits[0].loglik != pytest.approx(lvm.fit_em(model, X, params, tol=0, max_iter=2).loglik, rel=1e-3)


def test_an_array_is_a_single_sequence() -> None:
    model, params, X = case()
    states = np.full(11, -1)
    states[4] = 2
    known = lvm.fit_em(model, sequences(X, None, states), params, max_iter=3).loglik
    plain = lvm.fit_em(model, sequences(X, [11]), params, max_iter=3).loglik
    assert known < plain - 0.1
    assert all(lvm.fit_em(model, X_, params, max_iter=3).loglik == plain for X_ in (X, Rows(X), SequenceRows(X)))
    assert lvm.fit_em(model, Rows(X, None, states), params, max_iter=3).loglik == known
    assert lvm.fit_em(model, Rows(X, np.array([2.0])), params, max_iter=3).loglik > 2 * plain - 5


@pytest.mark.parametrize(
    ("indptr", "message"),
    [
        ([5, 6], "indptr goes from 5 to 6, but there are 11 observations"),
        ([0, 5, 12], "indptr goes from 0 to 12, but there are 11 observations"),
        ([-1, 11], "indptr goes from -1 to 11"),
        ([0, 5, 5, 11], "indptr must ascend, got 5 after 5 for sequence 1"),
        ([6, 5], "indptr must ascend, got 5 after 6 for sequence 0"),
        ([0, 5.5, 11], "indptr must be a list of integers"),
        ([[0, 11]], "indptr must be a list of integers"),
    ],
)
def test_where_sequences_begin_is_checked(indptr: Any, message: str) -> None:
    model, _, X = case()
    for rows in (
        SequenceRows(Sequences(indptr, X)),
        SequenceRows(SequencesByObservation(Sequences(indptr, X), None, 0, 11)),
    ):
        with pytest.raises(ValueError, match=message):
            model.canonical(rows)


def test_mistaken_rows() -> None:
    model, params, X = case()
    with pytest.raises(TypeError, match=r"rows\.X must be Sequences.*, got list; concatenate several"):
        lvm.fit_em(model, SequenceRows([X[:4], X[4:]]), params)
    with pytest.raises(ValueError, match=r"rows.weight.shape == \(11,\), expected \(2,\)"):
        lvm.fit_em(model, sequences(X, [4, 7], weight=np.ones(11)), params)
    with pytest.raises(ValueError, match="SequencesByObservation has a weight of its own"):
        lvm.fit_em(model, by_observation(sequences(X, [4, 7]))._replace(weight=np.ones(2)), params)
    with pytest.raises(ValueError, match=r"rows\.labels are given beside Sequences"):
        lvm.fit_em(model, Rows(Sequences(np.array([0, 11]), X), None, np.zeros(11)), params)
    with pytest.raises(ValueError, match=r"states have shape \(11, 3\), expected \(11,\)"):
        lvm.fit_em(model, Rows(X, None, np.ones((11, 3))), params)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 4], "lengths sum to 7, but X has 11 observations"),
        ([11, 0], "lengths must be >= 1, got 0 for sequence 1"),
        ([12, -1], "lengths must be >= 1, got -1 for sequence 1"),
        ([5.5, 5.5], "lengths must be a list of integers >= 1"),
        ([[5, 6]], "lengths must be a list of integers >= 1"),
        ([], "lengths must be a list of integers >= 1"),
    ],
)
def test_lengths_are_checked(lengths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        indptr_of(lengths, 11)


def test_known_states_are_checked() -> None:
    model, params, X = case()
    with pytest.raises(ValueError, match="states hold 3, but there are 3, from 0 to 2"):
        model.estep_stats(sequences(X, None, np.full(11, 3)), params)
    with pytest.raises(ValueError, match=r"states has shape \(4,\), expected \(11,\)"):
        model.canonical(sequences(X, None, np.zeros(4)))
