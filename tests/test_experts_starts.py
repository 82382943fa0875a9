"""MixtureOfExperts: what it starts from, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from expert_cases import KINDS, crossing
from numpy.testing import assert_allclose

import lvm
from lvm.kernels import regressions, softmax
from lvm.protocol import ZeroDensityError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gating", ["constant", "softmax"])
def test_fitted_parameters_are_a_start(kind: str, gating: str) -> None:
    """Given back as starts, fitted parameters have the log-likelihood that was reported, and EM stays there."""
    X, y, _ = crossing(kind=kind)
    arguments: dict[str, Any] = {"expert": kind, "gating": gating, "alpha": 0.5, "gating_alpha": 0.5}
    fit = lvm.MixtureOfExperts(2, random_state=0, tol=1e-12, max_iter=20_000, **arguments).fit(X, y)
    names = ["coefficients", "intercepts"] + (["scales"] if kind == "gaussian" else [])
    names += ["gating_coefficients", "gating_intercepts"] if gating == "softmax" else ["weights"]
    starts = {f"{name}_init": getattr(fit, f"{name}_") for name in names}
    again = lvm.MixtureOfExperts(2, **arguments, **starts, max_iter=0).fit(X, y)
    assert_allclose(again.loglik_, fit.loglik_, rtol=1e-11)
    assert_allclose(again.coefficients_, fit.coefficients_, rtol=1e-10, atol=1e-12)
    assert_allclose(again.weights_, fit.weights_, rtol=1e-10)
    # without the gate's: equal weights
    if gating == "constant":
        del starts["weights_init"]
        equal = lvm.MixtureOfExperts(2, **arguments, **starts, max_iter=0).fit(X, y)
        assert_allclose(equal.weights_, 0.5)


def test_labels_and_responsibilities_are_starts() -> None:
    X, y, component = crossing()
    by_label = lvm.MixtureOfExperts(2, init_params=component, max_iter=3, tol=0).fit(X, y)
    by_share = lvm.MixtureOfExperts(2, init_params=np.eye(2)[component], max_iter=3, tol=0).fit(X, y)
    assert by_label.loglik_ == by_share.loglik_
    unknown = np.where(np.arange(len(y)) % 3 == 0, -1, component)
    half = np.where((unknown < 0)[:, None], 0.5, np.eye(2)[component])
    assert_allclose(
        lvm.MixtureOfExperts(2, init_params=unknown, max_iter=3, tol=0).fit(X, y).loglik_,
        lvm.MixtureOfExperts(2, init_params=half, max_iter=3, tol=0).fit(X, y).loglik_,
        rtol=1e-13,
    )
    by_chance = lvm.MixtureOfExperts(2, init_params="random", random_state=0).fit(X, y)
    by_lines = lvm.MixtureOfExperts(2, random_state=0).fit(X, y)
    assert_allclose(by_chance.loglik_, by_lines.loglik_, rtol=1e-5)
    assert len(by_lines.restarts_) == 10


def test_starts_are_reproducible_and_keep_to_rows_of_weight() -> None:
    X, y, _ = crossing()
    weight = (np.arange(len(y)) % 2).astype(float)
    wild = np.where(weight > 0, y, 1e6)
    first = lvm.MixtureOfExperts(2, random_state=3).fit(X, wild, sample_weight=weight)
    assert first.loglik_ == lvm.MixtureOfExperts(2, random_state=3).fit(X, wild, sample_weight=weight).loglik_
    kept = lvm.MixtureOfExperts(2, random_state=3).fit(X[weight > 0], y[weight > 0])
    assert_allclose(first.loglik_, kept.loglik_, rtol=1e-5)


def test_impossible_units_are_named_by_their_first_row() -> None:
    X, y, _ = crossing(60, kind="poisson")
    group = np.r_[1, np.zeros(59)].astype(int)
    y[0], X[0] = 5, [1000.0, -300.0]
    start = {"coefficients_init": [[1.0, 0.0], [1.0, 0.0]], "intercepts_init": [0.0, 0.0]}
    for groups in (None, group):
        with pytest.raises(ZeroDensityError, match="row 0 has density 0"):
            lvm.MixtureOfExperts(2, expert="poisson", **start).fit(X, y, groups=groups)


def fit_both_gates(kind: str, X: Any, y: Any, groups: Any) -> None:
    common: dict[str, Any] = {"expert": kind, "alpha": 1.0, "n_init": 1, "max_iter": 2, "tol": 0, "random_state": 0}
    lvm.MixtureOfExperts(2, **common).fit(X, y, groups=groups)
    lvm.MixtureOfExperts(2, gating="softmax", gating_alpha=1.0, **common).fit(X, y)


def test_every_layout_runs_the_same_kernels() -> None:
    """Lists, float32, Fortran order, read-only and strided inputs compile nothing more."""
    names = (
        *("add_gaussian_densities", "add_residual_moments", "add_count_densities", "add_count_derivatives"),
        *("add_group_sums", "spread_over_groups"),
    )
    kernels = (
        *(getattr(regressions, name) for name in names),
        *(getattr(softmax, name) for name in ("add_log_softmax", "add_gate_derivatives")),
        *(getattr(softmax, name) for name in ("add_label_densities", "add_label_derivatives")),
    )
    data = {kind: crossing(60, kind=kind)[:2] for kind in KINDS}
    groups = (None, np.arange(60) // 2)
    for kind, (X, y) in data.items():
        for group in groups:
            fit_both_gates(kind, X, y, group)
    before = [len(kernel.signatures) for kernel in kernels]  # other tests may have called them with arrays of any kind
    assert min(before) >= 1
    for kind, (X, y) in data.items():
        locked = X.copy()
        locked.flags.writeable = False
        for given in (X.tolist(), X.astype(np.float32), np.asfortranarray(X), locked, np.repeat(X, 2, axis=0)[::2]):
            for group in groups:
                fit_both_gates(kind, given, list(y), group)
    assert [len(kernel.signatures) for kernel in kernels] == before


# ----- refusals -----------------------------------------------------------------------------------------------------


def bad(value: float, row: int = 3) -> Any:
    y = np.arange(60.0) % 5
    y[row] = value
    return y


STARTS = {"coefficients_init": np.ones((2, 2)), "intercepts_init": [0.0, 1.0], "scales_init": [1.0, 1.0]}
X60 = np.random.RandomState(0).randn(60, 2)


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        ({}, {"y": np.full(60, 2.5)}, r"y is constant \(2.5\)"),
        ({}, {"y": bad(np.nan)}, "Input y contains NaN"),
        ({}, {"X": X60[:5], "y": np.arange(5.0)}, "n_samples = 5 is less than the 2 \\* 3 coefficients"),
        ({}, {"X": np.c_[X60, X60 @ [1, 2]]}, r"column \d of X is a linear combination of the columns"),
        ({}, {"X": np.c_[X60, np.ones(60)]}, "column 2 of X is constant, like the intercept"),
        (
            {},
            {"X": pd.DataFrame({"a": X60[:, 0], "b": 2 * X60[:, 0]})},
            r"column '\w' of X is a linear combination .*'\w'",
        ),
        ({"gating": "softmax"}, {"gating_X": np.ones((60, 1))}, "column 0 of gating_X is constant"),
        ({}, {"gating_X": X60}, "gating_X is for gating='softmax'"),
        ({"expert": "poisson"}, {"y": bad(-1.0)}, "whole counts >= 0 for expert='poisson'; got -1.0 at row 3"),
        ({"expert": "poisson"}, {"y": bad(1.5)}, "got 1.5 at row 3"),
        ({"expert": "poisson"}, {"exposure": np.zeros(60)}, "exposure must be finite and > 0; got 0.0 at row 0"),
        ({"expert": "poisson"}, {"exposure": [1.0]}, r"exposure has shape \(1,\), expected \(60,\)"),
        ({"expert": "poisson"}, {"trials": np.ones(60)}, "trials is for expert='binomial', not 'poisson'"),
        ({}, {"exposure": np.ones(60)}, "exposure is for expert='poisson', not 'gaussian'"),
        ({"expert": "binomial"}, {}, "at most the number of trials.*got 2.0 of 1.0 at row 2"),
        ({"expert": "binomial"}, {"trials": np.full(60, 4.5)}, "trials must be whole numbers >= 1; got 4.5"),
        ({"expert": "multinomial"}, {"y": ["a"] * 60}, "y holds one class"),
        ({"expert": "multinomial", "equal_scales": True}, {}, "equal_scales are for gaussian experts, not multinomial"),
        ({"expert": "gamma"}, {}, "expert must be one of 'gaussian'.*got 'gamma'"),
        ({"gating": "soft"}, {}, "gating must be one of"),
        ({"alpha": -1.0}, {}, "alpha must be a finite number >= 0, got -1.0"),
        ({"scales_prior": 1.0}, {}, "scales_prior must be None or two numbers"),
        ({"init_params": "kmeans"}, {}, "init_params must be one of 'lines', 'random'"),
        ({"init_params": [0, 1]}, {}, r"init_params has shape \(2,\)"),
        ({}, {"groups": np.zeros(5)}, r"groups has shape \(5,\), expected \(60,\)"),
        ({}, {"groups": bad(np.nan)}, "groups holds NaN at row 3"),
        ({}, {"groups": np.arange(60) // 2, "sample_weight": np.arange(60)}, "sample_weight must be the same in all"),
        ({"gating": "softmax"}, {"groups": np.arange(60) // 2}, "gating_X must be the same in all rows of a group"),
        ({"n_components": 5}, {"groups": np.arange(60) // 30}, "n_components = 5, n_samples = 2"),
        ({"gating": "softmax", "weights_prior": 2.0}, {}, "weights_prior is for gating='constant'"),
        ({"coefficients_init": np.ones((2, 2))}, {}, "coefficients_init needs intercepts_init beside it"),
        ({"intercepts_init": [1.0, 2.0], "coefficients_init": np.ones((2, 2))}, {}, "needs scales_init beside it"),
        ({"intercepts_init": [1.0]}, {}, r"'intercepts' should have the shape of \(2,\), but got \(1,\)"),
        ({"expert": "poisson", "scales_init": [1.0, 1.0]}, {}, "scales_init is not for expert='poisson'"),
        ({**STARTS, "scales_init": [1.0, 0.0]}, {}, "scales_init must be > 0, got 0.0"),
        ({**STARTS, "gating": "softmax", "gating_intercepts_init": [0, 0]}, {}, "needs gating_coefficients_init"),
        ({}, {"y": X60 @ [1.0, 2.0]}, "Fitting the mixture of regressions failed.*scales_prior"),
    ],
)
def test_refusals(arguments: dict[str, Any], data: dict[str, Any], message: str) -> None:
    data = {"X": X60, "y": np.arange(60.0) % 5, **data}
    with pytest.raises(ValueError, match=message):
        lvm.MixtureOfExperts(**{"n_components": 2, "random_state": 0, **arguments}).fit(**data)


def test_refusals_of_new_data() -> None:
    X, y, _ = crossing()
    fit = lvm.MixtureOfExperts(2, gating="softmax", random_state=0, gating_alpha=0.1).fit(X, y, gating_X=X[:, :1])
    with pytest.raises(ValueError, match="give gating_X: the gate was fitted to covariates of its own"):
        fit.predict(X)
    with pytest.raises(ValueError, match="gating_X has 2 columns, but the gate was fitted to 1"):
        fit.predict(X, gating_X=X)
    with pytest.raises(ValueError, match=r"y has shape \(2,\), expected \(300,\)"):
        fit.responsibilities(X, y[:2], gating_X=X[:, :1])
    with pytest.raises(ValueError, match="y must be finite; got inf at row 0"):
        fit.responsibilities(X, np.r_[np.inf, y[1:]], gating_X=X[:, :1])
    with pytest.raises(ValueError, match="exposure is for expert='poisson'"):
        fit.predict(X, X[:, :1], exposure=np.ones(300))
    fit = lvm.MixtureOfExperts(2, gating="softmax", random_state=0, gating_alpha=0.1).fit(X, y)
    with pytest.raises(ValueError, match="leave gating_X out: the gate was fitted to X"):
        fit.predict(X, gating_X=X)
    labels = crossing(kind="multinomial")[1]
    fit = lvm.MixtureOfExperts(2, expert="multinomial", random_state=0, alpha=0.1).fit(X, labels)
    with pytest.raises(ValueError, match=r"y holds .*'lower'.* at row 0, which is not among classes_"):
        fit.responsibilities(X, np.r_[["lower"], labels[1:]])
