"""The driver's promises."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest

import lvm
from lvm.execution import Execution, chunk_slices, n_threads
from lvm.families import FullGaussian
from lvm.models.mixture import MixtureParams
from lvm.models.row_blocks import cut_into_blocks
from lvm.protocol import DegenerateError, ZeroDensityError, leaves
from lvm.result import Iteration

X = lvm.datasets.load_faithful().data


def start(reg_covar: float = 0.0) -> tuple[Any, MixtureParams]:
    family = FullGaussian(reg_covar)
    components = family.params(np.array([[2.0, 60.0], [4.0, 70.0]]), np.repeat([np.diag([1.0, 100.0])], 2, axis=0))
    return lvm.Mixture(family), MixtureParams(np.array([0.5, 0.5]), components)


def test_loglik_belongs_to_the_returned_parameters() -> None:
    model, params = start()
    for max_iter in (0, 1, 5):
        result = lvm.fit_em(model, X, params, tol=0, max_iter=max_iter)
        assert result.loglik == pytest.approx(model.loglik(lvm.Rows(X), result.params).sum(), rel=1e-13)
        assert result.loglik == result.objective_trace[-1]
        assert result.n_iter == max_iter
        assert len(result.objective_trace) == max_iter + 1
        assert result.status is lvm.Status.MAX_ITER
        assert not result.converged


def test_converges_where_the_gain_per_weight_is_below_tol() -> None:
    model, params = start()
    result = lvm.fit_em(model, X, params, tol=1e-6)
    assert result.converged
    gains = np.diff(result.objective_trace) / len(X)
    assert gains[-1] < 1e-6
    assert np.all(gains[:-1] >= 1e-6)
    # The tolerance is per unit of weight: a hundred copies of the data stop at the same iteration.
    heavy = lvm.fit_em(model, lvm.Rows(X, np.full(len(X), 100.0)), params, tol=1e-6)
    assert heavy.n_iter == result.n_iter


def test_callback_sees_each_iteration_and_stops() -> None:
    seen: list[Iteration] = []

    def callback(iteration: Iteration) -> bool:
        seen.append(iteration)
        return iteration.n_iter == 3

    model, params = start()
    result = lvm.fit_em(model, X, params, callback=callback)
    assert result.status is lvm.Status.STOPPED
    assert [iteration.n_iter for iteration in seen] == [0, 1, 2, 3]
    assert result.n_iter == 3
    assert seen[0].gain == np.inf
    np.testing.assert_allclose([i.gain for i in seen[1:]], np.diff(result.objective_trace) / len(X), rtol=1e-9)


def test_penalised_objective_is_named_and_monotone() -> None:
    model, params = start(reg_covar=0.05)
    result = lvm.fit_em(model, X, params, tol=1e-10)
    assert result.converged
    assert np.all(np.diff(result.objective_trace) > -1e-9)
    assert result.objective_trace[-1] < result.loglik
    each = model.loglik(lvm.Rows(X), result.params)
    penalty = -0.025 * np.trace(np.linalg.inv(result.params.components.covariances), axis1=1, axis2=2)
    resp = model.responsibilities(lvm.Rows(X), result.params)
    objective = each.sum() + np.log(resp @ np.exp(penalty)).sum()
    assert result.objective_trace[-1] == pytest.approx(objective, rel=1e-12)


class Stats(NamedTuple):
    loglik: float
    weight: float


class Params(NamedTuple):
    step: Any


class Scripted:
    """A model whose objective follows a script."""

    def __init__(self, objectives: list[float], degenerate_at: int = -1) -> None:
        self.objectives = objectives
        self.degenerate_at = degenerate_at

    def estep_stats(self, rows: Any, params: Params) -> Stats:
        return Stats(self.objectives[int(params.step)], float(len(rows.X)))

    def mstep(self, stats: Stats, params: Params) -> Params:
        assert stats.loglik == self.objectives[int(params.step)]
        if params.step == self.degenerate_at:
            raise DegenerateError("collapsed")
        return Params(params.step + 1)

    def loglik(self, rows: Any, params: Params) -> Any:
        return np.full(len(rows.X), self.objectives[int(params.step)] / len(rows.X))


@pytest.mark.parametrize(
    ("objectives", "status", "n_iter"),
    [
        ([-9.0, -8.0, -8.5], lvm.Status.DECREASED, 1),
        ([-9.0, -8.0, np.nan], lvm.Status.NON_FINITE, 1),
        ([-9.0, -8.0, np.inf], lvm.Status.NON_FINITE, 1),
        ([-9.0, -8.0, -8.0 - 1e-13], lvm.Status.CONVERGED, 2),
        ([-9.0, -8.0, -7.0, -7.0], lvm.Status.CONVERGED, 3),
    ],
)
def test_status(objectives: list[float], status: lvm.Status, n_iter: int) -> None:
    result = lvm.fit_em(Scripted(objectives), np.ones((4, 1)), Params(0.0), tol=1e-8)
    assert result.status is status
    assert result.n_iter == n_iter
    assert result.params == Params(n_iter)
    assert result.loglik == objectives[n_iter]
    np.testing.assert_array_equal(result.objective_trace, objectives)


def test_degenerate_mstep_returns_the_last_parameters() -> None:
    result = lvm.fit_em(Scripted([-9.0, -8.0, -7.0], degenerate_at=1), np.ones((4, 1)), Params(0.0))
    assert result.status is lvm.Status.DEGENERATE
    assert result.params == Params(1.0)
    assert result.loglik == -8.0


def test_useless_start_is_an_error() -> None:
    with pytest.raises(ValueError, match="starting parameters have objective nan"):
        lvm.fit_em(Scripted([np.nan]), np.ones((4, 1)), Params(0.0))


def test_a_prior_on_parameters_is_part_of_the_objective() -> None:
    class WithPrior(Scripted):
        def log_prior(self, params: Params) -> float:
            return -2.0 * params.step

    result = lvm.fit_em(WithPrior([-9.0, -6.0, -4.0, -4.0]), np.ones((4, 1)), Params(0.0), tol=0.01)
    np.testing.assert_array_equal(result.objective_trace, [-9.0, -8.0, -8.0])
    assert result.loglik == -4.0


@pytest.mark.parametrize(
    ("arguments", "message"), [({"tol": -1}, "tol must be a finite number >= 0"), ({"max_iter": -1}, "max_iter")]
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    model, params = start()
    with pytest.raises(ValueError, match=message):
        lvm.fit_em(model, X, params, **arguments)


def test_impossible_row_is_named_by_its_place_in_the_data() -> None:
    rows = np.tile(X, (100, 1))
    assert len(chunk_slices(*rows.shape)) > 1
    rows[20000] = 1e200
    model, params = start()
    with pytest.raises(ZeroDensityError, match="row 20000 has density 0") as caught:
        lvm.fit_em(model, rows, params, n_jobs=2)
    assert caught.value.row == 20000
    assert np.isfinite(lvm.fit_em(model, lvm.Rows(rows, (rows[:, 0] < 1e199).astype(float)), params, max_iter=2).loglik)


def test_chunks_cover_the_rows_and_depend_on_the_shape_alone() -> None:
    for n in (0, 1, 2047, 2048, 4096, 100_000, 131_072, 10_000_000):
        for width in (0, 1, 3, 8, 200, 10_000):
            chunks = chunk_slices(n, width)
            assert len(chunks) in (1, 2, 4, 8, 16, 32, 64)
            assert [chunk.start for chunk in chunks[1:]] == [chunk.stop for chunk in chunks[:-1]]
            assert (chunks[0].start, chunks[-1].stop) == (0, n)
            lengths = {chunk.stop - chunk.start for chunk in chunks}
            assert max(lengths) - min(lengths) <= 1
    assert len(chunk_slices(20_000, 128)) == 16  # wide rows take longer
    assert len(chunk_slices(20_000, 2)) == 2
    assert len(chunk_slices(20_000, 80, 5_000)) == 8  # statistics of many features are not worth it for a few rows


def test_n_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert [n_threads(n_jobs) for n_jobs in (None, 3, 99, -1, -2, -99)] == [8, 3, 99, 8, 7, 1]
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert [n_threads(n_jobs) for n_jobs in (None, -1)] == [2, 2]
    for wrong in (1.5, True, "2"):
        with pytest.raises(TypeError, match="n_jobs must be"):
            n_threads(wrong)  # type: ignore[arg-type]  # on purpose


def test_any_ordered_map_gives_the_same_statistics() -> None:
    model, params = start()
    rows = model.canonical(lvm.Rows(np.tile(X, (150, 1))))
    seen: list[slice] = []

    def reversed_map(function: Any, chunks: Any) -> list[Any]:
        seen.extend(chunks)
        return [function(chunk) for chunk in reversed(seen)][::-1]

    with Execution(model, rows, n_jobs=3) as threads, Execution(model, rows, n_jobs=1) as one_by_one:
        expected = [threads.estep_stats(params), one_by_one.estep_stats(params)]
    with Execution(model, rows, ordered_map=reversed_map) as plain:
        got = plain.estep_stats(params)
    assert len(seen) > 2
    for stats in expected:
        assert stats.loglik == got.loglik
        assert np.array_equal(stats.components.second, got.components.second)


def test_a_chunk_is_cut_into_blocks_that_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = start(reg_covar=0.05)
    rows = model.canonical(
        lvm.Rows(np.tile(X, (5, 1)), np.linspace(0.5, 2.0, 5 * len(X)), np.arange(5 * len(X)) % 3 - 1)
    )
    monkeypatch.setattr(model.family, "estep", None, raising=False)  # which takes a chunk as one
    whole = model.estep_stats(rows, params)
    each = model.loglik(rows, params)
    monkeypatch.setattr("lvm.models.row_blocks.MAX_BLOCK_ROWS", 300)
    blocks = cut_into_blocks(rows.X, 2)
    assert [len(range(*block.indices(len(rows.X)))) for block in blocks] == [272] * 5
    parts = model.estep_stats(rows, params)
    np.testing.assert_array_equal(model.loglik(rows, params), each)
    for one, two in zip(leaves(whole), leaves(parts), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_threads_end_with_the_fit() -> None:
    model, params = start()
    during: list[int] = []
    before = threading.active_count()
    many = np.tile(X, (200, 1))
    lvm.fit_em(model, many, params, max_iter=2, n_jobs=4, callback=lambda _: during.append(threading.active_count()))
    assert max(during) == before + 3
    assert threading.active_count() == before


MEMORY = """
import resource, warnings
import numpy as np
import lvm
warnings.simplefilter("ignore")
def fit(n):
    X = np.random.RandomState(0).standard_normal((n, 8))
    start = dict(weights_init=np.full(10, 0.1), means_init=X[:10], precisions_init=np.repeat(np.eye(8)[None], 10, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lvm.GaussianMixture(10, **start, tol=0, max_iter=3).fit(X)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
fit(5000)
print(fit(400_000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_memory_above_the_data_does_not_grow() -> None:
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    out = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, env=environment)
    # n * K responsibilities alone would take 32 MB, a copy of the data 26 MB.
    assert float(out.stdout) < 16


def test_sizes_that_disagree_are_refused_before_any_kernel_runs() -> None:
    model, params = start()
    with pytest.raises(ValueError, match="X has 3 features, but the parameters have 2"):
        lvm.fit_em(model, np.ones((5, 3)), params)
    with pytest.raises(ValueError, match="X must have two dimensions"):
        lvm.fit_em(model, np.ones(5), params)
    with pytest.raises(ValueError, match="3 mixing weights, but parameters of 2 components"):
        lvm.fit_em(model, X, params._replace(weights=np.full(3, 1 / 3)))
    with pytest.raises(ValueError, match=r"rows.weight.shape == \(5,\), expected \(272,\)"):
        lvm.fit_em(model, lvm.Rows(X, np.ones(5)), params)
    with pytest.raises(ValueError, match=r"rows.labels has shape \(5,\), expected \(272,\)"):
        lvm.fit_em(model, lvm.Rows(X, None, np.zeros(5, int)), params)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lvm.Rows(X, -np.ones(272)), r"rows.weight must be finite and >= 0; got -1.0 at row 0"),
        (lvm.Rows(X, np.full(272, np.nan)), r"rows.weight must be finite and >= 0; got nan at row 0"),
        (lvm.Rows(X, np.zeros(272)), r"the rows have the total weight 0.0"),
        (lvm.Rows(X, None, np.full(272, 7)), r"rows.labels hold 7, but there are 2 components"),
        (lvm.Rows(X, None, np.full(272, 0.5)), r"rows.labels must be integers .*; got 0.5 at row 0"),
        (X[:0], r"there are no rows to fit"),
        (np.where(X > 90, np.inf, X), r"Input X contains infinity at row"),
    ],
    ids=["negative", "nan weight", "no weight", "label", "half label", "no rows", "infinity"],
)
def test_rows_are_validated(rows: Any, message: str) -> None:
    model, params = start()
    with pytest.raises(ValueError, match=message):
        lvm.fit_em(model, rows, params)
