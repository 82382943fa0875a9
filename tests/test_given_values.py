"""Priors on weights, equal weights, and parameters that a fit holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import softmax

import lvm
from lvm.families import DiagGaussian, FullGaussian, SphericalGaussian, TiedGaussian
from lvm.protocol import Rows

NAN = np.nan


@pytest.fixture
def X() -> Any:
    rng = np.random.RandomState(0)
    return np.concatenate([rng.normal(0.0, 1.0, (80, 2)), rng.normal(3.0, 2.0, (40, 2))])


# ----- weights --------------------------------------------------------------------------------------------------


def test_weights_prior_adds_rows_to_each_component(X: Any) -> None:
    arguments: dict[str, Any] = {"random_state": 0, "tol": 1e-13, "reg_covar": 0.0}
    mixture = lvm.GaussianMixture(2, weights_prior=11.0, **arguments).fit(X)
    counts = mixture.predict_proba(X).sum(axis=0) + 10.0
    assert_allclose(mixture.weights_, counts / counts.sum(), rtol=1e-5)  # as far as EM has converged
    free = lvm.GaussianMixture(2, **arguments).fit(X)
    assert np.ptp(mixture.weights_) < np.ptp(free.weights_) - 0.01
    assert mixture.loglik_ < free.loglik_
    trace = mixture.objective_trace_
    assert np.diff(trace).min() > -1e-9
    assert trace[-1] == pytest.approx(mixture.loglik_ + 10 * np.log(mixture.weights_).sum(), rel=1e-13)


def test_weights_maximise_the_objective(X: Any) -> None:
    """With a prior and a held weight, against a general optimiser over the weights alone."""
    family = FullGaussian()
    components = family.params([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]], np.stack([np.eye(2)] * 3))
    model = lvm.Mixture(family, weights_prior=3.0, held_weights=[False, True, False])
    params = lvm.MixtureParams(np.array([0.3, 0.5, 0.2]), components)
    stats = model.estep_stats(Rows(X), params)
    new = model.mstep(stats, params).weights

    def expected(free: Any) -> float:
        weights = np.insert(0.5 * softmax(np.append(free, 0.0)), 1, 0.5)
        return -float(stats.counts @ np.log(weights) + 2.0 * np.log(weights[[0, 2]]).sum())

    best = minimize(expected, [0.0], tol=1e-14)
    assert_allclose(new[[0, 2]], 0.5 * softmax([best.x[0], 0.0]), rtol=1e-6)
    assert new[1] == 0.5
    assert model.n_parameters(params) == 1 + family.n_parameters(components)


def test_equal_weights(X: Any) -> None:
    mixture = lvm.GaussianMixture(3, equal_weights=True, random_state=0, weights_prior=2.0).fit(X)
    assert np.array_equal(mixture.weights_, np.full(3, 1 / 3))
    assert np.diff(mixture.objective_trace_).min() > -1e-9
    assert mixture.n_parameters() == lvm.GaussianMixture(3, random_state=0).fit(X).n_parameters() - 2


@pytest.mark.parametrize("weights", [[0.7, 0.3], [0.9, NAN], [NAN, 0.25], [NAN, NAN]])
def test_fixed_weights(X: Any, weights: Any) -> None:
    mixture = lvm.GaussianMixture(2, fixed={"weights": weights}, random_state=0).fit(X)
    held = ~np.isnan(weights)
    assert np.array_equal(mixture.weights_[held], np.asarray(weights)[held])
    assert mixture.weights_.sum() == pytest.approx(1.0, abs=1e-15)
    assert mixture.n_parameters() == 10 + (1 if not held.any() else 0)
    assert np.diff(mixture.objective_trace_).min() > -1e-9


# ----- components -----------------------------------------------------------------------------------------------

FAMILIES = {"full": FullGaussian, "tied": TiedGaussian, "diag": DiagGaussian, "spherical": SphericalGaussian}
VALUES: dict[str, dict[str, Any]] = {
    "full": {"means": [[0.5, 0.0], [NAN, NAN]], "covariances": [np.full((2, 2), NAN), [[2.0, 0.5], [0.5, 1.0]]]},
    "tied": {"means": [[0.5, 0.0], [NAN, NAN]], "covariances": [[2.0, 0.5], [0.5, 1.0]]},
    "diag": {"means": [[0.5, 0.0], [NAN, NAN]], "covariances": [[NAN, NAN], [1.0, 3.0]]},
    "spherical": {"means": [[0.5, 0.0], [NAN, NAN]], "covariances": [NAN, 2.0]},
}


@pytest.mark.parametrize("names", [("means",), ("covariances",), ("means", "covariances")], ids=str)
@pytest.mark.parametrize("kind", FAMILIES)
def test_fixed_parameters_stay_and_the_rest_is_optimal(X: Any, kind: str, names: tuple[str, ...]) -> None:
    fixed = {name: np.array(VALUES[kind][name], np.float64) for name in names}
    arguments: dict[str, Any] = {"covariance_type": kind, "reg_covar": 0.0, "random_state": 0, "tol": 1e-12}
    mixture = lvm.GaussianMixture(2, fixed=fixed, **arguments).fit(X)
    free = lvm.GaussianMixture(2, **arguments).fit(X)
    for name, array in fixed.items():
        assert np.array_equal(getattr(mixture, f"{name}_")[~np.isnan(array)], array[~np.isnan(array)])
    assert np.diff(mixture.objective_trace_).min() > -1e-9
    assert mixture.n_parameters() < free.n_parameters()
    assert mixture.loglik_ < free.loglik_
    # No free parameter can be changed to a better likelihood.
    rng = np.random.RandomState(1)
    family = FAMILIES[kind]()
    inside = (lambda a: a[None]) if kind == "tied" else (lambda a: a)
    for _ in range(20):
        means = mixture.means_ + 0.01 * rng.randn(2, 2)
        covariances = mixture.covariances_ * np.exp(0.01 * rng.randn())
        if "means" in fixed:
            means = np.where(np.isnan(fixed["means"]), means, fixed["means"])
        if "covariances" in fixed:
            covariances = np.where(np.isnan(fixed["covariances"]), covariances, fixed["covariances"])
        params = lvm.MixtureParams(mixture.weights_, family.params(means, inside(np.asarray(covariances))))
        # 1e-6: EM stopped within that of the optimum, and a step of 0.01 costs more than 1e-3.
        assert lvm.Mixture(family).loglik(Rows(X), params).sum() < mixture.loglik_ + 1e-6


def test_fixed_probabilities_and_rates() -> None:
    rng = np.random.RandomState(0)
    X = (rng.rand(300, 3) < np.where(rng.rand(300, 1) < 0.5, 0.8, 0.2)).astype(int)
    fixed = {"probabilities": [[0.5, 0.5, 0.5], [NAN] * 3]}
    mixture = lvm.BernoulliMixture(2, fixed=fixed, random_state=0, alpha=1.5).fit(X)
    assert np.array_equal(mixture.probabilities_[0], [0.5, 0.5, 0.5])
    assert mixture.n_parameters() == 1 + 3
    assert np.diff(mixture.objective_trace_).min() > -1e-9


def test_all_fixed_is_a_fit_of_nothing(X: Any) -> None:
    fixed = {"weights": [0.5, 0.5], "means": [[0.0, 0.0], [3.0, 3.0]], "covariances": np.stack([np.eye(2)] * 2)}
    mixture = lvm.GaussianMixture(2, fixed=fixed, reg_covar=0.0).fit(X)
    assert mixture.n_parameters() == 0
    assert mixture.n_iter_ == 1
    assert mixture.objective_trace_[0] == mixture.objective_trace_[1]
    assert np.array_equal(mixture.means_, fixed["means"])


def test_warm_start_puts_fixed_values_in(X: Any) -> None:
    mixture = lvm.GaussianMixture(2, random_state=0, warm_start=True).fit(X)
    means = mixture.means_.copy()
    mixture.set_params(fixed={"means": [[1.0, 1.0], [NAN, NAN]]}).fit(X)
    assert np.array_equal(mixture.means_[0], [1.0, 1.0])
    assert not np.array_equal(mixture.means_[1], means[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights_prior": 0.5}, r"weights_prior must be a finite number >= 1, got 0.5"),
        ({"equal_weights": 1}, "equal_weights must be True or False, got 1"),
        ({"equal_weights": True, "weights_init": [0.5, 0.5]}, "equal_weights=True leaves no weights to give"),
        ({"fixed": {"rates": 1}}, "fixed may hold 'weights', 'means', 'covariances', got 'rates'"),
        ({"fixed": {"weights": [0.7, 0.7]}}, r"fixed\['weights'\] sum to 1.4; expected 1"),
        ({"fixed": {"weights": [0.2, 0.3]}}, r"fixed\['weights'\] sum to 0.5; expected 1"),
        ({"fixed": {"weights": [-0.2, NAN]}}, r"fixed\['weights'\] must lie within \[0, 1\], got \[-0.2"),
        ({"fixed": {"means": [0.0, 1.0]}}, r"fixed\['means'\] should have the shape of \(2, 2\), but got \(2,\)"),
        ({"fixed": {"means": [[0.0, NAN], [NAN, NAN]]}}, r"fixed\['means'\] holds NaN in a part of component 0"),
        ({"fixed": {"means": [[0.0, np.inf], [NAN, NAN]]}}, r"fixed\['means'\] contains infinity"),
        (
            {"fixed": {"covariances": [-1.0, NAN]}, "covariance_type": "spherical"},
            "'spherical covariance' should be positive, but got -1.0",
        ),
        ({"fixed": [1, 2]}, r"fixed must be a dictionary such as \{'weights': \[0.5, 0.5\]\}, got \[1, 2\]"),
    ],
)
def test_wrong_values_are_refused(X: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(2, **arguments).fit(X)
