"""Rows listed by component give the same sums as rows as they lie, and lists end where they do not pay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_estep import FAMILIES, each_family, each_gaussian, equal, problem

from lvm.families import DiagGaussian
from lvm.kernels import passes
from lvm.kernels.estep import run_estep
from lvm.kernels.listed_rows import GRACE, run_listed_estep
from lvm.kernels.passes import MIN_PAIRS, TRIAL
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, ZeroDensityError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return a list that fills with the kernels that run, and how many rows each is given; whatever their number."""
    made: list[tuple[str, int]] = []

    def lying(X: Any, *others: Any) -> Any:
        made.append(("as they lie", len(X)))
        return run_estep(X, *others)

    def listed(X: Any, *others: Any) -> Any:
        made.append(("listed", len(X)))
        return run_listed_estep(X, *others)

    monkeypatch.setattr(passes, "MIN_PAIRS", 0)
    monkeypatch.setattr(passes, "run_estep", lying)
    monkeypatch.setattr(passes, "run_listed_estep", listed)
    return made


def far_apart(family: Any, n: int, d: int, apart: float) -> tuple[MixtureParams, Any]:
    """Return `problem` with six components, of light tails."""
    params, X = problem(family, n, d, 6, apart)
    if "degrees_of_freedom" in family.parameters:
        params = params._replace(components=params.components._replace(degrees_of_freedom=np.full(6, 1e4)))
    return params, X


def both(family: Any, rows: Rows, params: MixtureParams) -> tuple[Any, Any]:
    """Return the statistics of rows that may be listed, and of rows that may not."""
    rows = Mixture(family).canonical(rows)
    free = Mixture(family).estep_stats(rows, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "MIN_PAIRS", np.inf)
        return free, Mixture(family).estep_stats(rows, params)


@each_family
@pytest.mark.parametrize("d", [2, 3, 8, 17])
@pytest.mark.parametrize("n", [TRIAL + 1, TRIAL + 130, 1500])
def test_statistics(family: Any, n: int, d: int, calls: list[Any]) -> None:
    params, X = far_apart(family(), n, d, 200.0)
    free, as_they_lie = both(family(), Rows(X), params)
    assert calls[:2] == [("as they lie", n), ("listed", n - TRIAL)]
    equal(free, as_they_lie)


@each_family
def test_weights(family: Any, calls: list[Any]) -> None:
    """Rows of weight 0 count for nothing, even where they are impossible."""
    rng = np.random.default_rng(1)
    params, X = far_apart(family(), 900, 4, 60.0)
    weight = rng.integers(0, 3, 900) * rng.uniform(size=900)
    X[500], weight[500] = 1e300, 0.0
    free, as_they_lie = both(family(), Rows(X, weight), params)
    assert ("listed", 900 - TRIAL) in calls
    assert np.isfinite(free.loglik)
    equal(free, as_they_lie)


@each_gaussian
def test_penalties(family: Any, calls: list[Any]) -> None:
    params, X = far_apart(family(0.3), 1000, 5, 60.0)
    free, as_they_lie = both(family(0.3), Rows(X), params)
    assert ("listed", 1000 - TRIAL) in calls
    assert free.penalty < 0
    equal(free, as_they_lie)


@each_gaussian
def test_float32(family: Any, calls: list[Any]) -> None:
    single = family(dtype=np.float32)
    params, X = far_apart(single, 1000, 9, 12.0)
    free, as_they_lie = both(single, Rows(X), params)
    assert ("listed", 1000 - TRIAL) in calls
    equal(free, as_they_lie, 2e-5)


@each_family
def test_the_first_impossible_row_is_named(family: Any, calls: list[Any]) -> None:
    params, X = far_apart(family(), 900, 4, 60.0)
    X[[700, 555, 556]] = 1e300
    with pytest.raises(ZeroDensityError) as caught:
        Mixture(family()).estep_stats(Rows(X), params)
    assert calls[-1] == ("listed", 900 - TRIAL)
    assert caught.value.row == 555


def test_lists_end_where_they_do_not_pay(calls: list[Any]) -> None:
    """Rows beside one of six corners each, and then rows between all of them."""
    rng, angles = np.random.default_rng(0), np.arange(6) * np.pi / 3
    means = 30.0 * np.column_stack([np.cos(angles), np.sin(angles)])
    X = means[rng.integers(6, size=8000)] + rng.standard_normal((8000, 2))
    X[4000:] = 1e-3 * rng.standard_normal((4000, 2))
    params = MixtureParams(np.full(6, 1 / 6), DiagGaussian().params(means, np.ones((6, 2))))
    free, as_they_lie = both(DiagGaussian(), Rows(X), params)
    kinds, lengths = zip(*calls, strict=True)
    assert kinds == ("as they lie", "listed", "as they lie", "as they lie")
    assert 4000 + GRACE // 2 < 8000 - lengths[2] < 6000
    equal(free, as_they_lie)


@pytest.mark.parametrize("family", FAMILIES)
def test_few_rows_are_not_tried(family: Any) -> None:
    """Nor rows with labels."""
    made = []
    params, X = far_apart(family(), MIN_PAIRS // 6 - 1, 2, 200.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "run_listed_estep", lambda *_: made.append(1))
        Mixture(family()).estep_stats(Rows(X), params)
        more = np.vstack([X, X])
        Mixture(family()).estep_stats(Rows(more, None, np.full(len(more), -1)), params)
    assert made == []
