"""Rows and models that went to another process run the same kernels there: no second signature is compiled."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import pytest
from missing_cells import with_holes
from numpy.testing import assert_array_equal
from scipy import sparse
from test_compile import kernels

import lvm
from lvm import execution
from lvm.execution import Execution
from lvm.families.counts import ExposedRows
from lvm.initialize import from_assignment
from lvm.protocol import CanonicalRows, leaves

X = np.random.RandomState(0).normal(size=(60, 3)) + 3 * np.repeat([[0.0], [1.0]], 30, axis=0)
COUNTS = np.abs(np.round(X))
ARGUMENTS: dict[str, Any] = {"max_iter": 2, "tol": 0, "random_state": 0, "n_jobs": 1}

FITS: dict[str, tuple[Any, Any]] = {
    "bernoulli": (lvm.BernoulliMixture(2, **ARGUMENTS), X > 1),
    "bernoulli, sparse": (lvm.BernoulliMixture(2, **ARGUMENTS), sparse.csr_matrix(X > 1)),
    "bernoulli with holes": (lvm.BernoulliMixture(2, **ARGUMENTS), with_holes(X > 1, 0.2)),
    "categorical": (lvm.CategoricalMixture(2, **ARGUMENTS), with_holes(COUNTS, 0.2)),
    "multinomial, sparse": (lvm.MultinomialMixture(2, **ARGUMENTS), sparse.csr_matrix(COUNTS + 1)),
    "poisson": (lvm.PoissonMixture(2, **ARGUMENTS), with_holes(COUNTS, 0.2)),
    "gamma": (lvm.GammaMixture(2, **ARGUMENTS), with_holes(np.exp(X), 0.2)),
    "gaussian full": (lvm.GaussianMixture(2, **ARGUMENTS), X),
    "gaussian full with holes": (lvm.GaussianMixture(2, **ARGUMENTS), with_holes(X, 0.2)),
    "gaussian diag with holes": (lvm.GaussianMixture(2, covariance_type="diag", **ARGUMENTS), with_holes(X, 0.2)),
    "mixed": (
        lvm.MixedMixture([("a", "gaussian", [0]), ("b", "categorical", [1]), ("c", "poisson", [2])], 2, **ARGUMENTS),
        with_holes(COUNTS, 0.2),
    ),
    "factor analysis": (lvm.FactorAnalysis(1, max_iter=2), with_holes(np.hstack([X, X[::-1]]), 0.2)),
    "latent trait": (lvm.LatentTrait(max_iter=2), with_holes(X > 1, 0.2)),
    "experts": (lvm.MixtureOfExperts(2, gating="softmax", max_iter=2, random_state=0), (X[:, :2], X[:, 2])),
    "experts of events": (lvm.MixtureOfExperts(2, expert="poisson", max_iter=2, random_state=0), (X, COUNTS[:, 0])),
    "hidden markov": (lvm.HiddenMarkov(n_states=2, **ARGUMENTS), X),
}


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every E-step of a chunk: its model, rows and parameters."""
    seen: list[Any] = []
    original = execution.stats_at

    def record(model: Any) -> Any:
        stats_at = original(model)

        def recorded(params: Any) -> Any:
            stats_of = stats_at(params)

            def stats_of_chunk(rows: Any) -> Any:
                seen.append((model, rows, params))
                return stats_of(rows)

            return stats_of_chunk

        return recorded

    monkeypatch.setattr(execution, "stats_at", record)
    return seen


def arrays(rows: Any) -> Iterator[Any]:
    """Yield the arrays that canonical rows hold, however deep."""
    for field in vars(rows).values():
        for part in field if isinstance(field, tuple) else (field,):
            if isinstance(part, CanonicalRows):
                yield from arrays(part)
            elif isinstance(part, np.ndarray):
                yield part


def signatures() -> dict[str, int]:
    return {name: len(kernel.signatures) for name, kernel in kernels().items()}


def sent(function: Any, chunks: Any) -> Any:
    """Map as a pool of processes would: the function, with its model and rows, is pickled for each chunk."""
    return [pickle.loads(pickle.dumps(joblib.wrap_non_picklable_objects(function)))(chunk) for chunk in chunks]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", FITS)
def test_another_process_compiles_nothing_new(name: str, chunks: list[Any]) -> None:
    estimator, data = FITS[name]
    arguments = {} if "hidden" in name else {"sample_weight": np.linspace(1.0, 2.0, 60)}
    estimator.fit(*(data if isinstance(data, tuple) else (data,)), **arguments)
    model, rows, params = chunks[-1]
    expected = model.estep_stats(rows, params)
    before = signatures()
    with Execution(model, rows, ordered_map=sent) as there:
        found = there.estep_stats(params)
    for a, b in zip(leaves(expected), leaves(found), strict=True):
        assert_array_equal(a, b)
    assert {name: n for name, n in signatures().items() if n > before.get(name, 0)} == {}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", FITS)
def test_canonical_rows_stay_read_only(name: str, chunks: list[Any]) -> None:
    estimator, data = FITS[name]
    estimator.fit(*(data if isinstance(data, tuple) else (data,)))
    rows = chunks[-1][1]
    for twin in (pickle.loads(pickle.dumps(rows)), copy.deepcopy(rows)):
        for leaf in leaves(twin):
            held = list(arrays(leaf)) if isinstance(leaf, CanonicalRows) else []
            assert bool(held) == isinstance(leaf, CanonicalRows)
            assert not any(array.flags.writeable for array in held)


def test_several_chunks() -> None:
    """Slices of rows of several arrays, each of which comes back whole."""
    rng = np.random.RandomState(0)
    counts = rng.poisson(3.0, (20_000, 3)) * 1.0
    counts[rng.rand(*counts.shape) < 0.1] = np.nan
    model = lvm.Mixture(lvm.families.Poisson())
    rows = model.canonical(lvm.Rows(ExposedRows(counts, rng.uniform(0.5, 2.0, 20_000))))
    params = from_assignment(model, rows, rng.randint(0, 2, 20_000), 2)
    with Execution(model, rows, n_jobs=1) as here, Execution(model, rows, ordered_map=sent) as there:
        expected = here.estep_stats(params)
        before = signatures()
        found = there.estep_stats(params)
    for a, b in zip(leaves(expected), leaves(found), strict=True):
        assert_array_equal(a, b)
    assert signatures() == before
