"""MixtureOfExperts: data without a maximum, and what is said of them; lines as starts; warm starts; reports."""

from __future__ import annotations

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from expert_cases import KINDS, crossing
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

import lvm

X200 = np.random.RandomState(0).randn(200, 2)
RIGHT = X200[:, :1] > 0
SEPARATED: list[tuple[str, Any, Any]] = [
    ("binomial", X200, RIGHT.ravel()),
    ("binomial", RIGHT, RIGHT.ravel() & (X200[:, 1] > 0)),  # in one half alone
    ("binomial", X200, np.zeros(200)),
    ("multinomial", X200, np.digitize(X200[:, 0], [-0.5, 0.5])),
    ("poisson", RIGHT, np.where(RIGHT.ravel(), 0, np.random.RandomState(1).poisson(3, 200))),
    ("poisson", X200, np.zeros(200)),
]


@pytest.mark.parametrize(("expert", "X", "y"), SEPARATED)
@pytest.mark.parametrize("acceleration", [None, "anderson"])
def test_experts_that_separate_are_reported(expert: str, X: Any, y: Any, acceleration: str | None) -> None:
    model = lvm.MixtureOfExperts(1, expert=expert, acceleration=acceleration)
    with pytest.warns(ConvergenceWarning, match=r"coefficients of component 0 grow without bound.*set alpha > 0"):
        model.fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(model.set_params(alpha=1.0).fit(X, y).coefficients_).max() < 20


def test_gate_that_separates_some_rows_is_reported() -> None:
    """All rows with a mark belong to one component, those without to both."""
    rng = np.random.RandomState(0)
    mark, x = rng.rand(400) < 0.3, rng.randn(400)
    y = np.where(mark | (rng.rand(400) < 0.5), 3 + 2 * x, -3 - x) + 0.3 * rng.randn(400)
    model = lvm.MixtureOfExperts(2, gating="softmax", random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"0 or 1 in some rows.*set gating_alpha > 0"):
        model.fit(x[:, None], y, gating_X=mark[:, None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(gating_alpha=0.1).fit(x[:, None], y, gating_X=mark[:, None])


@pytest.mark.parametrize("n", [100, 5000])
@pytest.mark.parametrize("expert", ["poisson", "binomial"])
def test_what_has_a_maximum_is_not_said_to_separate(expert: str, n: int) -> None:
    rng = np.random.RandomState(2)
    X, trials = rng.randn(n, 2), None if expert == "poisson" else np.full(n, 10)
    eta = np.where(rng.rand(n) < 0.5, 1 + X[:, 0], -X[:, 1])
    y = rng.poisson(np.exp(eta)) if trials is None else rng.binomial(trials, 1 / (1 + np.exp(-eta)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for gating in ("constant", "softmax"):
            model = lvm.MixtureOfExperts(2, expert=expert, gating=gating, random_state=0, n_init=2)
            model.fit(X, y, trials=trials)
            model.set_params(tol=0.0, max_iter=3).fit(X, y, trials=trials)  # far from any maximum


def test_constant_response_with_a_prior_of_scales() -> None:
    """The remedy that the refusal names: n residuals of 0 and nu of root mean square s."""
    fit = lvm.MixtureOfExperts(2, scales_prior=(2.0, 0.1), random_state=0).fit(X200, np.full(200, 3.5))
    assert_allclose(fit.predict(X200), 3.5, rtol=1e-12)
    assert_allclose(fit.scales_.min(), 0.1 * np.sqrt(2 / 202), rtol=1e-6)
    assert np.isfinite(fit.loglik_)


@pytest.mark.parametrize(
    ("X", "y", "groups", "message"),
    [
        (X200, 1e200 * X200[:, 0], None, r"y spreads over \d.*e\+200, expected 1e-150 to 1e150; scale it"),
        (X200, 1e-200 * X200[:, 0], None, r"y spreads over \d.*e-200"),
        (1e200 * X200, X200[:, 0], None, "column 0 of X has the variance inf"),
        (
            np.where(np.arange(400).reshape(200, 2) == 7, np.nan, X200),
            X200[:, 0],
            None,
            "NaN at row 3, column 1; remove or impute",
        ),
        (X200, X200[:, 0], np.array(["a", None] * 100, dtype=object), "groups holds None at row 1"),
        (X200, X200[:, 0], pd.Series(["a", "b", "c", pd.NA] * 50), "groups holds (nan|<NA>) at row 3"),
    ],
)
def test_refusals(X: Any, y: Any, groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.MixtureOfExperts(2, random_state=0).fit(X, y, groups=groups)


def test_lines_find_five_planes() -> None:
    """Ten single sets of lines, not the best of several each, miss them for one seed in four."""
    rng = np.random.RandomState(5)
    X, component, planes = rng.randn(1000, 3), rng.randint(0, 5, 1000), 3 * rng.randn(5, 4)
    y = (np.column_stack([np.ones(1000), X]) * planes[component]).sum(axis=1) + 0.5 * rng.randn(1000)
    best = lvm.MixtureOfExperts(5, init_params=component).fit(X, y).loglik_
    for seed in range(12):
        assert lvm.MixtureOfExperts(5, random_state=seed).fit(X, y).loglik_ > best - 0.01


def test_starts_of_long_groups_take_little_memory() -> None:
    n, K = 200_000, 20
    rng = np.random.RandomState(0)
    X, groups = rng.randn(n, 1), np.arange(n) // 2000
    y = np.where(groups % 2, 1, -1) * X[:, 0] + rng.randn(n)
    model = lvm.MixtureOfExperts(K, random_state=0, n_init=1, max_iter=1, tol=0.0)
    tracemalloc.start()
    model.fit(X, y, groups=groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * 8 * n * K


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gating", ["constant", "softmax"])
def test_warm_start_goes_on(kind: str, gating: str) -> None:
    X, y, _ = crossing(kind=kind)
    arguments: dict[str, Any] = {"expert": kind, "gating": gating, "alpha": 0.5, "gating_alpha": 0.5, "random_state": 0}
    model = lvm.MixtureOfExperts(2, warm_start=True, max_iter=4, tol=0.0, **arguments).fit(X, y)
    before = model.objective_trace_[-1]
    model.fit(X, y)
    assert len(model.restarts_) == 1
    assert_allclose(model.objective_trace_[0], before, rtol=1e-10)
    assert model.objective_trace_[-1] > before
    # of other shapes: anew
    assert len(model.set_params(n_components=3).fit(X, y).restarts_) == 10


def test_verbose_reports(capsys: pytest.CaptureFixture[str]) -> None:
    X, y, _ = crossing()
    model = lvm.MixtureOfExperts(2, n_init=2, random_state=0, verbose=2, verbose_interval=2)
    fit = model.fit(X, y)
    told = capsys.readouterr().out
    assert told.startswith("Initialization 0\nInitialization 1\nRun of at most 20 iterations\n  Iteration 2\t time")
    assert f"Run ended after {fit.n_iter_} iterations: converged" in told
    silent = lvm.MixtureOfExperts(2, n_init=2, random_state=0).fit(X, y)
    assert capsys.readouterr().out == ""
    assert_array_equal(silent.objective_trace_, fit.objective_trace_)
    with pytest.raises(ValueError, match="verbose must be an integer >= 0, got -1"):
        model.set_params(verbose=-1).fit(X, y)
    with pytest.raises(ValueError, match="warm_start must be True or False, got 'yes'"):
        model.set_params(verbose=0, warm_start="yes").fit(X, y)
