"""Missing cells through the estimators: Gaussian mixtures of every covariance type take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from missing_cells import NAN, with_holes
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import lvm
from lvm.estimators.gaussian import STRUCTURES
from lvm.families import FullGaussian
from lvm.models.mixture import MixtureParams

kinds = pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])


@pytest.fixture(scope="module")
def holes(faithful: Any) -> Any:
    """Old Faithful with a fifth of its cells missing, and one row of nothing else."""
    return with_holes(faithful, 0.2)


def fitted(kind: str, X: Any, **arguments: Any) -> Any:
    return lvm.GaussianMixture(2, covariance_type=kind, random_state=0).set_params(**arguments).fit(X)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_fit_and_score(kind: str, holes: Any) -> None:
    mixture = fitted(kind, holes)
    assert mixture.converged_
    assert np.diff(mixture.objective_trace_).min() > -1e-9
    assert_allclose(mixture.score_samples(holes).sum(), mixture.loglik_, rtol=1e-12)
    assert_allclose(mixture.score_samples(holes)[1], 0.0, atol=1e-15)  # nothing observed
    assert_allclose(mixture.predict_proba(holes)[1], mixture.weights_, rtol=1e-14)
    assert mixture.predict(holes)[1] == mixture.weights_.argmax()
    assert mixture.bic(holes) == pytest.approx(-2 * mixture.loglik_ + mixture.n_parameters() * np.log(len(holes)))


@kinds
def test_holes_cost_little_information(kind: str, faithful: Any, holes: Any) -> None:
    """The parameters lie near those of the complete data: groups that far apart lose little by a fifth of the cells."""
    deviations = faithful.std(axis=0)
    complete, mixture = fitted(kind, faithful / deviations), fitted(kind, holes / deviations)
    order, other = complete.means_[:, 0].argsort(), mixture.means_[:, 0].argsort()
    assert np.abs(mixture.means_[other] - complete.means_[order]).max() < 0.15
    assert_allclose(mixture.weights_[other], complete.weights_[order], atol=0.05)


@kinds
def test_marginal_density_of_one_column(kind: str, holes: Any) -> None:
    """A row with one cell has the mixture's density of that column alone."""
    mixture = fitted(kind, holes)
    x = np.array([2.0, 3.0, 4.5])
    components = mixture._get_params().components
    variances = np.array([components.covariances[min(k, len(components.covariances) - 1)].ravel()[0] for k in range(2)])
    z = (x[:, None] - mixture.means_[:, 0]) / np.sqrt(variances)
    density = (mixture.weights_ * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi * variances)).sum(axis=1)
    found = mixture.score_samples(np.column_stack([x, np.full(3, NAN)]))
    assert_allclose(found, np.log(density), rtol=1e-12)


@kinds
def test_impute(kind: str, faithful: Any, holes: Any) -> None:
    mixture = fitted(kind, holes)
    found, missing = mixture.impute(holes), np.isnan(holes)
    assert_array_equal(found[~missing], holes[~missing])
    assert_allclose(found[1], mixture.weights_ @ mixture.means_, rtol=1e-12)
    partly = missing & ~missing.all(axis=1, keepdims=True)
    error = np.where(partly, found - faithful, 0.0).std(axis=0)
    constant = np.where(partly, np.nanmean(holes, axis=0) - faithful, 0.0).std(axis=0)
    # A single variance for both columns sees none of the groups in eruptions.
    assert np.all(error < (1.01 if kind == "spherical" else 0.7) * constant)
    assert_array_equal(mixture.impute(faithful), faithful)


def test_full_imputation_is_regression_within_components(holes: Any) -> None:
    mixture = fitted("full", holes)
    row = np.array([[3.0, NAN]])
    slopes = mixture.covariances_[:, 1, 0] / mixture.covariances_[:, 0, 0]
    each = mixture.means_[:, 1] + slopes * (3.0 - mixture.means_[:, 0])
    assert_allclose(mixture.impute(row)[0, 1], mixture.predict_proba(row)[0] @ each, rtol=1e-12)


@kinds
def test_sample_missing(kind: str, faithful: Any, holes: Any) -> None:
    mixture, missing = fitted(kind, holes), np.isnan(holes)
    found = mixture.sample_missing(holes, random_state=3)
    assert found.shape == holes.shape
    assert not np.isnan(found).any()
    assert_array_equal(found[~missing], holes[~missing])
    assert_array_equal(mixture.sample_missing(holes, random_state=3), found)
    assert np.all(mixture.sample_missing(holes, random_state=4)[missing] != found[missing])
    assert_array_equal(mixture.sample_missing(holes), mixture.sample_missing(holes, random_state=0))  # its own source
    assert_array_equal(mixture.sample_missing(faithful, random_state=0), faithful)


@kinds
def test_draws_are_about_the_imputation(kind: str, holes: Any) -> None:
    """Over 20,000 draws of one row, mean and share of the components lie within five standard errors."""
    mixture = fitted(kind, holes)
    row = np.array([[3.1, NAN]])
    draws = mixture.sample_missing(np.repeat(row, 20_000, axis=0), random_state=0)[:, 1]
    error = draws.std() / np.sqrt(len(draws))
    assert abs(draws.mean() - mixture.impute(row)[0, 1]) < 5 * error
    # Conditional means have no spread; draws do.
    assert draws.std() > 4


def test_refusals_name_the_family(faithful: Any) -> None:
    student = lvm.StudentTMixture(2, random_state=0).fit(faithful)
    with pytest.raises(TypeError, match="FullStudentT must implement draw_missing"):
        student.sample_missing(faithful)
    with pytest.raises(ValueError, match=r"NaN at row 1, column 0.*Gaussian components of all covariance types"):
        student.predict(with_holes(faithful, 0.2))


@kinds
def test_empty_column_is_named(kind: str) -> None:
    frame = pd.DataFrame({"a": np.arange(20.0), "b": np.full(20, NAN)})
    with pytest.raises(ValueError, match=r"column 1 \('b'\) of X has no observed value"):
        fitted(kind, frame)
    frame.loc[3, "b"] = 1.0
    with pytest.raises(ValueError, match="column 1 of X has no observed value"):
        lvm.GaussianMixture(2, covariance_type=kind).fit(frame, sample_weight=np.arange(20) != 3)


@kinds
def test_constant_column_with_holes(kind: str, holes: Any) -> None:
    X = np.column_stack([holes, np.where(np.isnan(holes[:, 0]), NAN, 2.0)])
    mixture = fitted(kind, X, reg_covar=0.01)
    assert_allclose(mixture.means_[:, 2], 2.0, rtol=1e-12)


@kinds
def test_weights_repeat_rows(kind: str, holes: Any) -> None:
    times = np.random.RandomState(0).randint(0, 4, len(holes))
    start = fitted(kind, holes, max_iter=2, tol=0)
    arguments = {
        "weights_init": start.weights_,
        "means_init": start.means_,
        "covariances_init": start.covariances_,
        "max_iter": 15,
        "tol": 0,
    }
    mixture = lvm.GaussianMixture(2, covariance_type=kind, **arguments).fit(holes, sample_weight=times)
    repeated = fitted(kind, np.repeat(holes, times, axis=0), **arguments)
    assert_allclose(mixture.means_, repeated.means_, rtol=1e-9)
    assert_allclose(mixture.covariances_, repeated.covariances_, rtol=1e-8)
    assert_allclose(mixture.loglik_, repeated.loglik_, rtol=1e-11)


def test_labels_of_rows_without_observations() -> None:
    """A label of an empty row adds log weight, and the weight of its component."""
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 8.0, np.full((50, 2), NAN)])
    labels = np.repeat([0, 1, 1], [100, 100, 50])
    mixture = fitted("full", X, tol=1e-14).fit(X, labels=labels)
    assert_allclose(mixture.weights_, [100 / 250, 150 / 250], rtol=1e-12)
    assert_allclose(mixture.means_[1], X[100:200].mean(axis=0), rtol=1e-7)  # EM's own pace
    allowed = np.ones((250, 2), bool)
    allowed[:100, 1] = False
    again = clone(mixture).fit(X, labels=allowed)
    assert_allclose(again.predict_proba(X)[-1], again.weights_, rtol=1e-12)


@kinds
def test_single_precision_becomes_double(kind: str, holes: Any) -> None:
    single = holes.astype(np.float32)
    one, two = fitted(kind, single), fitted(kind, single.astype(np.float64))
    assert one.loglik_ == two.loglik_
    assert_array_equal(one.means_, two.means_)


@pytest.mark.parametrize("form", ["nullable", "objects", "lists"])
def test_tables_of_other_kinds(form: str, holes: Any) -> None:
    expected = fitted("full", holes)
    frame = pd.DataFrame(holes, columns=["a", "b"])
    if form == "nullable":
        table: Any = frame.astype("Float64")
        assert table.isna().to_numpy().any()
    elif form == "objects":
        table = frame.astype(object).where(frame.notna(), None)
    else:
        table = holes.tolist()
    assert fitted("full", table).loglik_ == expected.loglik_


@kinds
def test_threads_give_the_same_bits(kind: str) -> None:
    rng = np.random.RandomState(0)
    X = with_holes(rng.normal(size=(40_000, 3)) + 4 * rng.randint(0, 2, (40_000, 1)), 0.2)
    one, two = (fitted(kind, X, n_jobs=n_jobs, max_iter=4, tol=0) for n_jobs in (1, 2))
    assert_array_equal(one.objective_trace_, two.objective_trace_)
    assert_array_equal(one.covariances_, two.covariances_)


def test_many_components_take_the_ordinary_estep() -> None:
    """Where complete rows would have a sparse E-step, rows with holes have the same likelihood as by the slow sum."""
    rng = np.random.RandomState(0)
    means = 20 * rng.normal(size=(12, 3))
    X = with_holes(np.repeat(means, 400, axis=0) + rng.normal(size=(4800, 3)), 0.1)
    family = FullGaussian()
    params = MixtureParams(np.full(12, 1 / 12), family.params(means, np.repeat(np.eye(3)[None], 12, axis=0)))
    model = lvm.Mixture(family)
    seen = ~np.isnan(X)
    z = np.where(seen[:, None], X[:, None] - means, 0.0)
    each = -0.5 * (z**2).sum(axis=2) - 0.5 * np.log(2 * np.pi) * seen.sum(axis=1)[:, None] - np.log(12)
    expected = np.logaddexp.reduce(each, axis=1).sum()
    assert_allclose(model.estep_stats(model.canonical(lvm.Rows(X)), params).loglik, expected, rtol=1e-12)


def test_anderson_acceleration(holes: Any) -> None:
    plain, fast = fitted("full", holes, tol=1e-12), fitted("full", holes, tol=1e-12, acceleration="anderson")
    assert_allclose(fast.loglik_, plain.loglik_, rtol=1e-9)
