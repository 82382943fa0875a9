"""Degenerate data give a sane fit or an error that says what to do; never NaN, a LinAlgError or a hang."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import lvm

STRUCTURES = ("full", "tied", "diag", "spherical")
RNG = np.random.RandomState(0)
TWO_GROUPS = np.concatenate([RNG.randn(60, 2), RNG.randn(50, 2) + 4.0])


def assert_sane(mixture: Any, X: Any) -> None:
    """Everything fitted and predicted is finite, and the objective never fell."""
    fitted = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "probabilities_")
    for name in (*fitted, "objective_trace_", "loglik_"):
        if hasattr(mixture, name):
            assert np.all(np.isfinite(getattr(mixture, name))), name
    assert mixture.weights_.sum() == pytest.approx(1.0, abs=1e-12)
    trace = mixture.objective_trace_
    assert np.all(np.diff(trace) >= -1e-12 * max(len(mixture.predict(X)), abs(trace[-1])))
    assert mixture.converged_
    np.testing.assert_allclose(mixture.predict_proba(X).sum(axis=1), 1.0, rtol=1e-12)
    assert np.all(np.isfinite(mixture.score_samples(X)))


REGULARISED = {
    "fewer distinct rows than components": (np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0), 3),
    "one distinct row": (np.ones((10, 2)), 2),
    "constant column": (np.column_stack([TWO_GROUPS, np.ones(110)]), 2),
    "constant column far out": (np.column_stack([TWO_GROUPS, np.full(110, 1e8)]), 2),
    "collinear columns": (np.column_stack([TWO_GROUPS, 2 * TWO_GROUPS[:, 0]]), 2),
    "duplicated rows": (np.repeat(TWO_GROUPS, 5, axis=0), 3),
    "offset 1e8": (TWO_GROUPS + 1e8, 2),
    "scale 1e100": (TWO_GROUPS * 1e100, 2),
    "one feature": (TWO_GROUPS[:, :1], 2),
    "two rows": (TWO_GROUPS[:2], 1),
    "as many components as rows": (TWO_GROUPS[:6], 6),
    "more features than rows": (RNG.randn(5, 20), 2),
    "one point far away": (np.concatenate([TWO_GROUPS, [[1e8, 1e8]]]), 3),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", REGULARISED)
def test_default_regularisation_gives_a_sane_fit(name: str, structure: str) -> None:
    X, K = REGULARISED[name]
    assert_sane(lvm.GaussianMixture(K, covariance_type=structure, random_state=0).fit(X), X)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("scale", [1e-150, 1e-100, 1.0, 1e100, 1e150])
def test_maximum_likelihood_at_any_scale(structure: str, scale: float) -> None:
    plain = lvm.GaussianMixture(2, covariance_type=structure, reg_covar=0, random_state=0).fit(TWO_GROUPS)
    scaled = lvm.GaussianMixture(2, covariance_type=structure, reg_covar=0, random_state=0).fit(TWO_GROUPS * scale)
    assert_sane(scaled, TWO_GROUPS * scale)
    # A density in 1 / unit**2 per row: the log-likelihood moves by n d log(scale).
    assert scaled.loglik_ == pytest.approx(plain.loglik_ - TWO_GROUPS.size * np.log(scale), rel=1e-10)
    np.testing.assert_allclose(scaled.means_ / scale, plain.means_, rtol=1e-6)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_offset_costs_no_digits(structure: str) -> None:
    plain = lvm.GaussianMixture(2, covariance_type=structure, reg_covar=0, random_state=0).fit(TWO_GROUPS)
    moved = lvm.GaussianMixture(2, covariance_type=structure, reg_covar=0, random_state=0).fit(TWO_GROUPS + 1e8)
    # The shifted data themselves are rounded to 1.5e-8; of squared deviations that leaves about 7 digits.
    np.testing.assert_allclose(moved.covariances_, plain.covariances_, rtol=1e-6, atol=1e-7)


SINGULAR = {
    "constant column": (np.column_stack([TWO_GROUPS, np.ones(110)]), 2, ("full", "tied", "diag")),
    "collinear columns": (np.column_stack([TWO_GROUPS, 2 * TWO_GROUPS[:, 0]]), 2, ("full", "tied")),
    "as many components as rows": (TWO_GROUPS[:6], 6, STRUCTURES),
    "one point far away": (np.concatenate([TWO_GROUPS, [[1e8, 1e8]]]), 3, ("full", "diag", "spherical")),
    "more features than rows": (RNG.randn(5, 20), 2, ("full", "tied")),
}


@pytest.mark.parametrize(
    ("name", "structure"), [(name, structure) for name, case in SINGULAR.items() for structure in case[2]]
)
def test_without_regularisation_a_collapse_is_a_clear_error(name: str, structure: str) -> None:
    X, K, _ = SINGULAR[name]
    with pytest.raises(ValueError, match=r"ill-defined empirical covariance.*increase reg_covar"):
        lvm.GaussianMixture(K, covariance_type=structure, reg_covar=0, random_state=0).fit(X)


def test_fewer_distinct_rows_than_components_are_counted() -> None:
    X = np.repeat([[0.0, 0.0], [1.0, 1.0], [3.0, 0.0]], 4, axis=0)
    with pytest.raises(ValueError, match=r"n_components=5 exceeds the 3 distinct rows of X; lower n_components"):
        lvm.GaussianMixture(5, reg_covar=0).fit(X)


def test_collapse_of_one_start_does_not_lose_the_others() -> None:
    X = np.concatenate([TWO_GROUPS, np.full((3, 2), 10.0)])
    labels = np.r_[np.zeros(60, int), np.ones(50, int), np.full(3, 2)]
    with pytest.raises(ValueError, match="covariance of component 2 is singular"):
        lvm.GaussianMixture(3, reg_covar=0, init_params=labels).fit(X)
    mixture = lvm.GaussianMixture(2, reg_covar=0, n_init=30, init_params="random_from_data", random_state=1).fit(X)
    assert np.isfinite(mixture.loglik_)
    assert mixture.restarts_.shape == (30,)
    # Starts that end at the same optimum stop within a few gains of tol, 1e-7 per row, of it.
    assert mixture.loglik_ == pytest.approx(mixture.restarts_.max(), abs=1e-4)


def test_hidden_structure_is_reported() -> None:
    with pytest.warns(RuntimeWarning, match=r"reg_covar=1e-06 exceeds the variance 4.* of column 0 and hides"):
        lvm.GaussianMixture(2, random_state=0).fit(TWO_GROUPS * 1e-4)
    with pytest.raises(ValueError, match=r"reg_covar=1e-06 exceeds the variance .*; scale the data or lower reg_covar"):
        lvm.GaussianMixture(2, random_state=0).fit(TWO_GROUPS * 1e-100)


def test_dead_component_keeps_its_parameters() -> None:
    start = {"means_init": [[0.0, 0.0], [4.0, 4.0], [1e6, 1e6]], "weights_init": [0.4, 0.4, 0.2]}
    mixture = lvm.GaussianMixture(3, precisions_init=np.ones((3, 2)), covariance_type="diag", reg_covar=0, **start)
    mixture.fit(TWO_GROUPS)
    assert_sane(mixture, TWO_GROUPS)
    assert mixture.weights_[2] == 0
    np.testing.assert_array_equal(mixture.means_[2], [1e6, 1e6])
    pair = lvm.GaussianMixture(2, covariance_type="diag", reg_covar=0, random_state=0).fit(TWO_GROUPS)
    assert mixture.loglik_ == pytest.approx(pair.loglik_, rel=1e-8)


DISCRETE = {
    "all ones": (lvm.BernoulliMixture, np.ones((10, 3), int), 2),
    "all zeros": (lvm.BernoulliMixture, np.zeros((10, 3), int), 2),
    "one row": (lvm.BernoulliMixture, np.ones((1, 3), int), 1),
    "one feature": (lvm.BernoulliMixture, np.array([[0], [1]] * 5), 2),
    "few distinct rows": (lvm.BernoulliMixture, np.array([[0, 1], [1, 0]] * 5), 4),
    "no counts at all": (lvm.MultinomialMixture, np.zeros((10, 3), int), 2),
    "empty rows": (lvm.MultinomialMixture, np.vstack([np.zeros((3, 3), int), RNG.randint(0, 5, (20, 3))]), 2),
    "one row of counts": (lvm.MultinomialMixture, np.ones((1, 3), int), 1),
    "one cell": (lvm.MultinomialMixture, np.arange(10)[:, None], 2),
    "huge counts": (lvm.MultinomialMixture, RNG.randint(0, 10**9, (20, 4)), 2),
}


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_data_give_a_sane_fit(name: str, container: Any, alpha: float) -> None:
    estimator, X, K = DISCRETE[name]
    assert_sane(estimator(K, alpha=alpha, random_state=0).fit(container(X)), container(X))


def test_impossible_row_is_named_by_predict_and_scored_minus_infinity() -> None:
    mixture = lvm.BernoulliMixture(1).fit([[1, 0], [0, 0]])
    np.testing.assert_array_equal(mixture.score_samples([[0, 0], [0, 1]]), [np.log(0.5), -np.inf])
    with pytest.raises(ValueError, match=r"row 1 has density 0 .* use a prior"):
        mixture.predict([[0, 0], [0, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smoothed = lvm.BernoulliMixture(1, alpha=1.5).fit([[1, 0], [0, 0]])
    assert np.all(np.isfinite(smoothed.score_samples([[0, 1]])))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("distance", [1e6, 1e8, 1e10])
def test_clusters_and_starts_far_apart_lose_no_digits(structure: str, distance: float) -> None:
    """Moments about a centre 1e10 standard deviations off cancel; the second iteration is about the right one."""
    X = np.concatenate([TWO_GROUPS, TWO_GROUPS + distance])
    labels = np.repeat([0, 1], 110)
    mixture = lvm.GaussianMixture(2, covariance_type=structure, init_params=labels, reg_covar=0).fit(X)
    assert_sane(mixture, X)
    expected = lvm.GaussianMixture(1, covariance_type=structure, reg_covar=0).fit(TWO_GROUPS)
    outside = expected.covariances_ if structure == "tied" else np.repeat(expected.covariances_, 2, axis=0)
    # The data themselves are rounded to 2e-16 * distance.
    np.testing.assert_allclose(mixture.covariances_, outside, rtol=1e-6, atol=4e-16 * distance)
    arguments = {
        "covariances_init": lvm.GaussianMixture(2, covariance_type=structure, random_state=0)
        .fit(TWO_GROUPS)
        .covariances_
    }
    far = lvm.GaussianMixture(
        2,
        covariance_type=structure,
        means_init=[[-distance, 0.0], [distance, 0.0]],
        weights_init=[0.5, 0.5],
        **arguments,
    )
    assert np.all(np.isfinite(far.fit(TWO_GROUPS).means_))


@pytest.mark.parametrize("scale", [1e-170, 1e160])
@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
def test_scales_beyond_floating_point_are_refused(scale: float, reg_covar: float) -> None:
    with pytest.raises(ValueError, match=r"column 0 of X has the variance .*; scale the data"):
        lvm.GaussianMixture(2, reg_covar=reg_covar).fit(TWO_GROUPS * scale)


def test_counts_and_weights_beyond_floating_point_are_refused() -> None:
    with pytest.raises(ValueError, match="the counts of row 0 add up to infinity; scale the data"):
        lvm.MultinomialMixture(2).fit(np.full((5, 3), 1e308))
    with pytest.raises(ValueError, match="sample_weight sums to inf; divide the weights by a constant"):
        lvm.GaussianMixture(2).fit(TWO_GROUPS, sample_weight=np.full(110, 1e308))
    with pytest.raises(ValueError, match=r"n_trials must be below 2\*\*63"):
        lvm.MultinomialMixture(2, random_state=0).fit(RNG.randint(1, 9, (20, 4)) * 1e19).sample()
