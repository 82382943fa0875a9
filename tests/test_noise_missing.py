"""Noise beside Gaussian components where cells are missing: marginals, starts, imputations and draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import kstest, multivariate_normal

import lvm
from lvm.estimators.gaussian import FOURTEEN
from lvm.families import DiagGaussian, FullGaussian, WithNoise
from lvm.families.noise import UniformBox, smallest_box
from lvm.models.mixture import MixtureParams
from lvm.testing import model_checks

Array = NDArray[np.float64]
each_structure = pytest.mark.parametrize("structure", FOURTEEN)


def scattered(share: float = 0.15, seed: int = 0) -> tuple[Array, Any]:
    """Return rows of two clusters and of noise, with a share of their cells missing, and which is which."""
    rng = np.random.RandomState(seed)
    clusters = [rng.randn(200, 3) * [1.0, 0.5, 1.0], rng.randn(200, 3) + np.array([6.0, 3.0, 0.0])]
    X = np.concatenate([*clusters, rng.uniform(-15.0, 20.0, (80, 3))])
    X[rng.random_sample(X.shape) < share] = np.nan
    return X, np.repeat([0, 1, -1], [200, 200, 80])


HOLES, TRUTH = scattered()


def fitted(structure: str = "full", X: Array = HOLES, **arguments: Any) -> Any:
    return lvm.GaussianMixture(2, covariance_type=structure, noise=True, random_state=0, **arguments).fit(X)


# ----- the density ------------------------------------------------------------------------------------------------


def test_box_of_rows_with_holes_is_along_the_features() -> None:
    rng = np.random.RandomState(0)
    turn = np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
    X = rng.uniform([-5.0, -0.1], [5.0, 0.1], (300, 2)) @ turn
    assert abs(smallest_box(X)[1:]).min() > 0.01  # whole rows lie in a turned box
    X[0, 0] = np.nan
    expected = [np.nanmin(X, axis=0), *np.diag(np.nanmax(X, axis=0) - np.nanmin(X, axis=0))]
    assert_allclose(smallest_box(X), expected, rtol=1e-12)
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match="column 1 of X has no observed value; remove the column"):
        smallest_box(X)
    X[:, 1] = [2.0, *[np.nan] * 299]
    with pytest.raises(ValueError, match="column 1 is constant, so that noise has no volume"):
        smallest_box(X)


def test_density_of_parts_of_a_row() -> None:
    box = UniformBox([[1.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.1]])
    observed = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    assert_allclose(np.exp(box.log_density(observed)), [1.0, 5.0, 0.2, 1.0], rtol=1e-12)
    assert_allclose(box.centre, [2.0, 4.5, 0.05], rtol=1e-12)
    turned = UniformBox([[0.0, 0.0], [3.0, 3.0], [-1.0, 1.0]])  # from -1 to 3 and from 0 to 4, its volume is 6
    observed = np.array([[1, 1], [1, 0], [0, 1]], bool)
    assert_allclose(np.exp(turned.log_density(observed)), [1 / 6, 0.25, 0.25], rtol=1e-12)
    assert_allclose(turned.centre, [1.0, 2.0], rtol=1e-12)
    drawn = turned.draw_missing(np.ones((2000, 2), bool), np.random.RandomState(0)).reshape(-1, 2)
    assert kstest(drawn[:, 0], "uniform", (-1, 4)).pvalue > 1e-4
    assert kstest(drawn[:, 1], "uniform", (0, 4)).pvalue > 1e-4


@each_structure
def test_marginal_density_is_the_integral_over_the_missing_cell(structure: str) -> None:
    """The noise over its box; the components, which are the rest of the density, over more than that."""
    found = fitted(structure)
    noise = found.noise_weight_ * found.noise_density_
    row, column = np.array([1.0, 2.0, 0.5]), 1
    width = found.noise_box_[1 + column, column]
    assert width == found.noise_box_[1 + column].sum()

    def components(value: float) -> float:
        row[column] = value
        return float(np.exp(found.score_samples([row])[0]) - noise)

    integral = quad(components, -60.0, 60.0, points=[0.0, 3.0], limit=200, epsabs=1e-11)[0] + noise * width
    row[column] = np.nan
    assert_allclose(np.exp(found.score_samples([row])[0]), integral, rtol=1e-8)
    assert_allclose(found.score_samples([[np.nan] * 3]), 0.0, atol=1e-15)
    assert_allclose(found.predict_proba([[np.nan] * 3])[0], found.weights_, rtol=1e-12)


def test_responsibilities_and_statistics_by_hand() -> None:
    found = fitted()
    ranges = np.diag(found.noise_box_[1:])
    joint = np.empty((len(HOLES), 3))
    for i, row in enumerate(HOLES):
        seen = ~np.isnan(row)
        joint[i, 2] = found.weights_[2] / np.prod(ranges[seen])
        for k in range(2):
            covariance = found.covariances_[k][np.ix_(seen, seen)]
            density = multivariate_normal.pdf(row[seen], found.means_[k][seen], covariance) if seen.any() else 1.0
            joint[i, k] = found.weights_[k] * density
    assert_allclose(found.score_samples(HOLES), np.log(joint.sum(axis=1)), rtol=1e-10, atol=1e-12)
    assert_allclose(found.predict_proba(HOLES), joint / joint.sum(axis=1, keepdims=True), atol=1e-12)
    assert_allclose(found.loglik_, np.log(joint.sum(axis=1)).sum(), rtol=1e-10)


# ----- fits -------------------------------------------------------------------------------------------------------


@each_structure
def test_objective_climbs_and_clusters_are_found(structure: str) -> None:
    found = fitted(structure, tol=1e-9)
    assert found.converged_
    assert np.diff(found.objective_trace_).min() > -1e-9  # rounding of some thousand
    order = np.argsort(found.means_[:, 0])
    assert_allclose(found.means_[order], [[0.0, 0.0, 0.0], [6.0, 3.0, 0.0]], atol=0.4)
    assert_allclose(found.noise_weight_, 80 / 480, atol=0.05)
    assigned = found.predict(HOLES)
    seen = (~np.isnan(HOLES)).all(axis=1)
    assert np.mean(np.where(assigned < 0, -1, np.argsort(order)[assigned])[seen] == TRUTH[seen]) > 0.95


@pytest.mark.parametrize("settings", [{"prior": "default"}, {"acceleration": "anderson"}, {"n_jobs": 2}])
def test_other_ways_to_fit(settings: dict[str, Any]) -> None:
    found = fitted(**settings)
    assert_allclose(found.loglik_, found.score_samples(HOLES).sum(), rtol=1e-10)
    assert np.diff(found.objective_trace_).min() > -1e-9


def test_starts_that_are_given_labels_and_weights() -> None:
    found = fitted(tol=1e-10)
    by_labels = fitted(init_params=np.maximum(TRUTH, 0), tol=1e-10)  # none of them noise
    assert_allclose(by_labels.loglik_, found.loglik_, rtol=1e-8)
    known = np.where(np.arange(480) % 5 == 0, np.where(TRUTH < 0, 2, TRUTH), -1)
    labelled = lvm.GaussianMixture(2, noise=True, random_state=0).fit(HOLES, labels=known)
    assert labelled.means_[0, 0] < labelled.means_[1, 0]
    weight = np.arange(480) % 3
    settings = {"init_params": np.where(TRUTH < 0, 2, TRUTH), "max_iter": 4, "tol": 0, "noise": True}
    weighted = lvm.GaussianMixture(2, **settings).fit(HOLES, sample_weight=weight)
    settings["init_params"] = np.repeat(settings["init_params"], weight)
    repeated = lvm.GaussianMixture(2, **settings).fit(np.repeat(HOLES, weight, axis=0))
    assert_allclose(weighted.loglik_, repeated.loglik_, rtol=1e-10)


def test_rows_with_holes_after_a_fit_to_whole_rows() -> None:
    """The box is turned; a part of a row has the density of the box along the features about it."""
    rng = np.random.RandomState(1)
    strewn = rng.uniform(-9.0, 9.0, (9, 1)) + np.array([0.0, 0.5])
    X = np.concatenate([rng.randn(300, 2) @ [[3.0, 2.8], [0.0, 0.4]], strewn])
    found = fitted("full", X)
    assert abs(found.noise_box_[1:]).min() > 0.01
    ranges = abs(found.noise_box_[1:]).sum(axis=0)
    sd = np.sqrt(found.covariances_[:, 0, 0])
    gauss = np.exp(-0.5 * ((0.5 - found.means_[:, 0]) / sd) ** 2) / sd / np.sqrt(2 * np.pi)
    expected = np.log(found.weights_[:2] @ gauss + found.noise_weight_ / ranges[0])
    assert_allclose(found.score_samples([[0.5, np.nan]]), expected, rtol=1e-10)
    assert np.isfinite(found.impute([[0.5, np.nan], [np.nan, 1e6]])).all()


# ----- imputation -------------------------------------------------------------------------------------------------


def test_imputed_cells_are_posterior_means() -> None:
    """The mean of the components, by their responsibilities, and the centre of the box by that of the noise."""
    found = fitted()
    rows = np.array([[12.0, np.nan, 3.0], [3.0, np.nan, np.nan], [np.nan, np.nan, np.nan], [0.0, 0.0, 0.0]])
    resp, centre = found.predict_proba(rows), found.noise_box_[0] + np.diag(found.noise_box_[1:]) / 2
    expected = rows.copy()
    for i, row in enumerate(rows):
        seen, gone = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        if not len(gone):
            continue
        total = resp[i, 2] * centre[gone]
        for k in range(2):
            mean, covariance = found.means_[k], found.covariances_[k]
            slope = covariance[np.ix_(gone, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
            total = total + resp[i, k] * (mean[gone] + slope @ (row[seen] - mean[seen]))
        expected[i, gone] = total
    assert resp[0, 2] > 0.99
    assert_allclose(found.impute(rows), expected, rtol=1e-9)
    assert_array_equal(fitted(X=scattered(0.0)[0]).impute(rows[3:]), rows[3:])


def test_draws_have_the_mean_and_the_kinds_of_imputation() -> None:
    found = fitted()
    row = np.array([2.6, np.nan, np.nan])  # of either cluster or noise
    many = np.repeat(row[None], 20_000, axis=0)
    drawn = found.sample_missing(many, random_state=0)
    assert_array_equal(drawn[:, 0], 2.6)
    assert_allclose(drawn.mean(axis=0), found.impute([row])[0], atol=5 * drawn.std(axis=0).max() / np.sqrt(20_000))
    far = found.sample_missing(np.repeat([[15.0, np.nan, np.nan]], 2000, axis=0), random_state=0)
    low, width = found.noise_box_[0], np.diag(found.noise_box_[1:])
    for j in (1, 2):
        assert kstest(far[:, j], "uniform", (low[j], width[j])).pvalue > 1e-4
    assert_array_equal(found.sample_missing(many[:50], random_state=3), found.sample_missing(many[:50], random_state=3))
    whole = np.zeros((3, 3))
    assert_array_equal(found.sample_missing(whole), whole)


# ----- the contract -----------------------------------------------------------------------------------------------


def model_of(family: Any) -> tuple[Any, Any, Any]:
    X = HOLES[::3]
    model = lvm.Mixture(WithNoise(family, smallest_box(X)))
    components = family.start(family.canonical(X), np.ones(len(X)), 2)
    components = components._replace(means=np.array([[0.5, 0.0, 0.1], [5.0, 2.5, 0.0]]))
    return model, MixtureParams(np.array([0.4, 0.35, 0.25]), components), lvm.Rows(X)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, family in {"full": FullGaussian(), "diag regularised": DiagGaussian(0.1)}.items()
        for check in model_checks(*model_of(family))
        if str(check) not in ("density_integrates_to_one", "parameters_are_counted")  # as in test_noise
    ],
)
def test_conformance(check: Any) -> None:
    check()
