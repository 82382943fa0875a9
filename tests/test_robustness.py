"""Data without a maximum of the likelihood, by covariance structure and policy: a sane fit or the documented error."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as PeerMixture

import lvm
from lvm import Status
from lvm.degeneracy import POLICIES
from lvm.estimators.gaussian import FOURTEEN

RNG = np.random.RandomState(0)
TWO = np.concatenate([RNG.randn(30, 2), RNG.randn(25, 2) + 4.0])
DATA = {
    "duplicated points": (np.concatenate([np.repeat(TWO[::9], 4, axis=0), np.full((9, 2), 7.0)]), 3),
    "constant column": (np.column_stack([TWO, np.full(55, 3.0)]), 2),
    "collinear columns": (np.column_stack([TWO, TWO @ [2.0, -1.0]]), 2),
    "more columns than rows": (RNG.randn(6, 12), 2),
    "one point at 1e8": (np.concatenate([TWO, [[1e8, 1e8]]]), 3),
    "a point at 1e8 in one column": (np.concatenate([TWO, [[0.0, -1e8]]]), 3),
    "missing cells": (np.concatenate([np.where(RNG.rand(55, 2) < 0.1, np.nan, TWO), np.full((5, 2), 9.0)]), 3),
}
STRUCTURES = ("full", "tied", "diag", "spherical", "VEV", "EEI")


def is_well(fitted: Any, X: NDArray[Any]) -> None:
    """Everything is finite; where the objective fell beyond rounding, the status says so."""
    for name, value in vars(fitted).items():
        if name.endswith("_") and name != "restarts_" and isinstance(value, np.ndarray) and value.dtype.kind == "f":
            assert np.isfinite(value).all(), name
    trace = fitted.objective_trace_[: fitted.n_iter_ + 1]
    rounding = 4e-6 if X.dtype == np.float32 else 1e-12
    assert np.diff(trace).min(initial=0.0) >= -rounding * max(len(X), np.abs(trace).max())
    if len(fitted.objective_trace_) > len(trace):
        assert fitted.status_ in (Status.DECREASED, Status.NON_FINITE)
        assert not fitted.converged_
    assert fitted.weights_.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.isfinite(fitted.score_samples(X)).all()
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1.0, rtol=1e-12)


def error_of(mixture: Any, X: NDArray[Any]) -> str:
    """Return what a fit says that fails, "" where it does not."""
    try:
        mixture.fit(X)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("policy", "dtype"), [*((policy, np.float64) for policy in POLICIES), ("drop", np.float32), ("floor", np.float32)]
)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", DATA)
def test_a_sane_fit_or_the_documented_error(name: str, structure: str, policy: str, dtype: Any) -> None:
    X, K = DATA[name][0].astype(dtype), DATA[name][1]
    mixture = lvm.GaussianMixture(
        K, covariance_type=structure, reg_covar=0, on_degenerate=policy, random_state=0, n_init=1, max_iter=100
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        message = error_of(mixture, X)
    if message:
        assert policy != "floor"
        assert "ill-defined empirical covariance" in message  # as scikit-learn says
        assert "singular to rounding" in message
        return
    assert {each.category for each in caught} <= {ConvergenceWarning}
    assert len(mixture.means_) == K - mixture.dropped_
    assert bool(mixture.degeneracy_) == any("on_degenerate" in str(each.message) for each in caught)
    is_well(mixture, X)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", DATA)
def test_a_prior_keeps_every_structure_from_collapse(name: str, structure: str) -> None:
    X, K = DATA[name]
    prior: dict[str, Any] = {}
    is_singular = name not in ("duplicated points", "missing cells")  # a covariance of which no prior's scale is made
    if is_singular and structure in ("full", "tied", "VEV"):
        prior = {"scale": np.eye(X.shape[1]), "shrinkage": 0}
    elif name == "constant column":
        prior = {"scale": 1.0}
    mixture = lvm.GaussianMixture(
        K,
        covariance_type=structure,
        reg_covar=0,
        prior=prior,
        on_degenerate="raise",
        init_params="kmeans",
        n_init=1,
        random_state=0,
    )
    is_well(mixture.fit(X), X)


@pytest.mark.parametrize("structure", FOURTEEN)
def test_a_prior_rescues_what_scikit_learn_cannot_fit(structure: str) -> None:
    X, labels = np.concatenate([TWO, np.full((5, 2), 9.0)]), np.repeat([0, 1, 2], [30, 25, 5])
    if structure == "VVV":  # others escape by rounding
        with pytest.raises(ValueError, match="ill-defined empirical covariance"):
            PeerMixture(3, reg_covar=0, means_init=[X[labels == k].mean(axis=0) for k in range(3)]).fit(X)
    fitted = lvm.GaussianMixture(
        3, covariance_type=structure, reg_covar=0, prior="default", init_params=labels, on_degenerate="raise"
    ).fit(X)
    assert fitted.converged_
    is_well(fitted, X)
    assert fitted.predict(X)[-5:].tolist() == [2] * 5


@pytest.mark.parametrize("policy", ["restart", "floor"])
@pytest.mark.parametrize("name", ["duplicated points", "one point at 1e8", "missing cells"])
def test_noise_takes_in_what_collapses_or_the_policy_acts(name: str, policy: str) -> None:
    X, _ = DATA[name]
    mixture = lvm.GaussianMixture(2, noise=True, reg_covar=0, on_degenerate=policy, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        is_well(mixture.fit(X), X)
    if name == "one point at 1e8":
        assert mixture.predict(X)[-1] == -1
