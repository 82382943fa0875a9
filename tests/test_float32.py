"""Rows in float32 are computed in float32, and give what float64 gives to about its rounding, 1.2e-7.

Parameters, statistics and log-likelihoods are float64 whatever the rows are.
"""

from __future__ import annotations

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference import slow
from reference.cases import FAMILIES, Case

import lvm
from lvm import Rows, Status, fit_em
from lvm.models.mixture import MixtureParams

Array = NDArray[np.float64]

EPS = float(np.finfo(np.float32).eps)
KINDS = slow.GAUSSIAN
every_kind = pytest.mark.parametrize("kind", KINDS)
SHAPES = [(1, 1, 1), (1, 3, 2), (2, 1, 3), (255, 2, 4), (256, 3, 5), (257, 2, 6), (513, 9, 7), (30, 2, 8), (40, 1, 9)]


def families(kind: str, penalty: float = 0.0) -> tuple[Any, Any]:
    """Return the family in float32 and in float64."""
    return FAMILIES[kind](penalty, np.float32), FAMILIES[kind](penalty, np.float64)


def clusters(rng: np.random.RandomState, n: int, d: int, spread: float = 3.0) -> Any:
    """Return rows of three clusters, in float32."""
    return (rng.normal(size=(n, d)) + spread * rng.randint(0, 3, (n, 1))).astype(np.float32)


def wide(X: Any) -> Array:
    return np.asarray(X, np.float64)


def fitted(kind: str, X: Any, start: Any, K: int = 3, **arguments: Any) -> Any:
    rows = {name: arguments.pop(name) for name in ("sample_weight", "labels") if name in arguments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fixed number of iterations is meant
        return lvm.GaussianMixture(K, covariance_type=kind, init_params=start, **arguments).fit(X, **rows)


def assert_equal_to_rounding(single: Any, double: Any, X: Any) -> None:
    """Compare a fit in float32 with one in float64, after the same number of iterations or both at an optimum.

    Log densities of d features are good to a few d eps, and their sum over rows to less; parameters to what that
    leaves of the sharpness of the maximum.
    """
    assert_allclose(single.loglik_, double.loglik_, rtol=1e-6)
    assert_allclose(single.weights_, double.weights_, atol=1e-4)
    spread = wide(X).std(axis=0)
    assert_allclose(single.means_ / spread, double.means_ / spread, rtol=0, atol=1e-4)
    size = np.max(np.abs(double.covariances_))
    assert_allclose(single.covariances_ / size, double.covariances_ / size, rtol=0, atol=1e-4)


# ----- kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("n", "K", "d"), SHAPES)
@every_kind
def test_densities(kind: str, n: int, K: int, d: int, offset: float) -> None:
    """Each whitened coordinate is good to a few eps of its size, the mean's rounding included."""
    rng = np.random.RandomState(n + d)
    single, double = families(kind)
    X, params = clusters(rng, n, d), Case(kind).random_params(rng, K, d)
    X, params = X + np.float32(offset), double.params(params.means + offset, params.covariances)
    out, desired = np.full((K, n), 0.5), np.full((K, n), 0.5)
    single.log_density(single.canonical(X), params, out)
    double.log_density(double.canonical(X), params, desired)
    assert X.dtype == np.float32
    # The covariances have a condition of 1e3 at most: that much of a few eps, times the distance.
    assert np.all(np.abs(out - desired) < 300 * EPS * (1 + d + np.abs(desired)))
    if n * d > 50:
        assert np.any(out != desired)  # computed in float32 indeed


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("n", "K", "d"), SHAPES)
@every_kind
def test_statistics(kind: str, n: int, K: int, d: int, offset: float) -> None:
    rng = np.random.RandomState(n + d)
    single, double = families(kind)
    X, params = clusters(rng, n, d), Case(kind).random_params(rng, K, d)
    X, params = X + np.float32(offset), double.params(params.means + offset, params.covariances)
    resp = rng.dirichlet(np.full(K, 0.3), n).T * rng.randint(0, 3, n)
    resp[resp < 0.01] = 0.0
    resp[0, 0] = 1.0
    resp = wide(resp.astype(np.float32))  # so that both see the same
    found, desired = single.zero_stats(params), double.zero_stats(params)
    single.accumulate(single.canonical(X), resp, params, found)
    double.accumulate(double.canonical(X), resp, params, desired)
    size = np.max(np.abs(wide(X) - params.means[:, None]))
    for field, power in (("counts", 0), ("first", 1), ("second", 2)):
        actual, value = getattr(found, field), getattr(desired, field)
        assert actual.dtype == np.float64
        if actual.ndim == 3:
            actual, value = np.tril(actual), np.tril(value)
        assert_allclose(actual, value, rtol=0, atol=8 * EPS * size**power * resp.sum(), err_msg=field)


@pytest.mark.parametrize("n", [300, 20_000])
@every_kind
def test_statistics_do_not_drift_with_the_number_of_rows(kind: str, n: int) -> None:
    """Sums of a strip are added in float64: a sum in float32 alone would lose n eps / 2 of equal terms."""
    single, _ = families(kind)
    params = single.start(wide(np.arange(6.0)[:, None]), np.ones(6), 1)
    stats = single.zero_stats(params)
    single.accumulate(single.canonical(np.full((n, 1), 2.6)), np.full((1, n), 0.1), params, stats)
    z = float(np.float32(2.6)) - 2.5
    r = float(np.float32(0.1))
    assert_allclose([np.ravel(field)[0] / n for field in stats[:3]], [r, r * z, r * z * z], rtol=4 * EPS)


# ----- fits ---------------------------------------------------------------------------------------------------


@every_kind
def test_fit_equals_that_of_float64(kind: str) -> None:
    X = clusters(np.random.RandomState(0), 3000, 5)
    labels = np.arange(3000) % 3
    single, double = (fitted(kind, data, labels, tol=0.0, max_iter=20) for data in (X, wide(X)))
    assert_equal_to_rounding(single, double, X)
    assert single.loglik_ != double.loglik_
    for name in ("weights_", "means_", "covariances_", "precisions_", "objective_trace_"):
        assert getattr(single, name).dtype == np.float64


@every_kind
def test_fit_of_data_far_from_the_origin(kind: str) -> None:
    """At 1e6 float32 keeps sixteenths: the fit is that of float64 of the same rows."""
    X = clusters(np.random.RandomState(1), 2000, 3, spread=6.0) + np.float32(1e6)
    labels = (wide(X).sum(axis=1) > 3e6 + 18).astype(int)
    single, double = (fitted(kind, data, labels, K=2, tol=0.0, max_iter=15) for data in (X, wide(X)))
    assert_equal_to_rounding(single, double, X)
    assert np.all(np.abs(np.ravel(double.covariances_)) < 100)


@every_kind
def test_two_points_far_apart(kind: str) -> None:
    """scikit-learn's issue 30382: two points in float32 gave negative variances there."""
    X = np.array([[9999.0], [0.0]], np.float32)
    single, double = (
        lvm.GaussianMixture(2, covariance_type=kind, random_state=0).fit(data) for data in (X, X.astype(float))
    )
    assert np.all(np.ravel(single.covariances_) > 0)
    assert_allclose(np.ravel(single.covariances_), 1e-6, rtol=1e-3)
    assert_allclose(np.sort(single.means_[:, 0]), [0.0, 9999.0], atol=1e-9)
    assert single.loglik_ == pytest.approx(double.loglik_, rel=1e-6)
    assert_array_equal(single.predict(X), double.predict(X))


@pytest.mark.parametrize("scale", [1e-20, 1e13])
@every_kind
def test_squares_beyond_float32_are_computed_in_float64(kind: str, scale: float) -> None:
    """Bit for bit as if the rows had come as float64."""
    X = (clusters(np.random.RandomState(2), 300, 2) * scale).astype(np.float32)
    assert np.all(np.isfinite(X))
    single, double = (fitted(kind, data, np.arange(300) % 2, K=2, reg_covar=0, max_iter=5) for data in (X, wide(X)))
    assert_array_equal(single.objective_trace_, double.objective_trace_)
    assert_array_equal(single.covariances_, double.covariances_)
    plain = fitted(kind, (X / scale).astype(np.float32), np.arange(300) % 2, K=2, reg_covar=0, max_iter=5)
    assert_allclose(single.means_ / scale, plain.means_, atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
@every_kind
def test_long_fits_never_decrease(kind: str, seed: int) -> None:
    """Where the gain drowns in rounding, a fit has converged or goes on; the trace stays on its level."""
    rng = np.random.RandomState(seed)
    X = clusters(rng, 1500, 1 + 3 * seed, spread=1.5 + seed)
    start = np.digitize(X.mean(axis=1), np.quantile(X.mean(axis=1), [0.3, 0.7]))
    mixture = fitted(kind, X, start, tol=1e-15, max_iter=400)
    assert mixture.status_ in (Status.CONVERGED, Status.MAX_ITER)
    # Each row's log density is good to a few d eps of its size; of their sum less remains.
    assert np.diff(mixture.objective_trace_).min() > -1e-6 * len(X)
    double = fitted(kind, wide(X), start, tol=0.0, max_iter=mixture.n_iter_)
    assert mixture.loglik_ == pytest.approx(double.loglik_, rel=1e-6)


@pytest.mark.parametrize("apart", [10.0, 1e3, 1e5])
@every_kind
def test_components_far_apart(kind: str, apart: float) -> None:
    """Neither their distance nor a common centre costs the digits of the small spread of each."""
    rng = np.random.RandomState(3)
    labels = np.arange(1200) % 6
    X = (rng.normal(size=(1200, 4)) + apart * rng.normal(size=(6, 4))[labels]).astype(np.float32)
    single, double = (fitted(kind, data, labels, K=6, tol=0.0, max_iter=8) for data in (X, wide(X)))
    assert single.status_ is Status.MAX_ITER
    assert single.loglik_ == pytest.approx(double.loglik_, rel=1e-6)
    assert_allclose(single.covariances_, double.covariances_, atol=1e-5)
    assert np.max(np.abs(double.covariances_)) < 2


@every_kind
def test_weights_and_labels(kind: str) -> None:
    rng = np.random.RandomState(4)
    X = clusters(rng, 900, 3)
    known = np.where(rng.uniform(size=900) < 0.2, rng.randint(0, 3, 900), -1)
    rows = {"sample_weight": rng.randint(0, 3, 900).astype(float), "labels": known}
    single, double = (fitted(kind, data, np.arange(900) % 3, tol=0.0, max_iter=10, **rows) for data in (X, wide(X)))
    assert_equal_to_rounding(single, double, X)
    repeated = fitted(
        kind,
        np.repeat(X, rows["sample_weight"].astype(int), axis=0),
        np.repeat(np.arange(900) % 3, rows["sample_weight"].astype(int)),
        labels=np.repeat(known, rows["sample_weight"].astype(int)),
        tol=0.0,
        max_iter=10,
    )
    assert_equal_to_rounding(single, repeated, X)


@pytest.mark.parametrize("factor", [2.0**-498, 2.0**-100, 2.0**100, 2.0**498])
@every_kind
def test_scale_of_weights_does_not_matter(kind: str, factor: float) -> None:
    """Also where the weights themselves do not fit into float32."""
    rng = np.random.RandomState(5)
    X, weight, start = clusters(rng, 400, 3), rng.uniform(0, 2, 400), rng.dirichlet(np.ones(2), 400)
    plain, scaled = (fitted(kind, X, start, K=2, tol=0.0, max_iter=5, sample_weight=weight * f) for f in (1.0, factor))
    assert_allclose(scaled.weights_, plain.weights_, rtol=1e-5)
    assert_allclose(scaled.means_, plain.means_, atol=1e-4)


def test_driver_computes_in_the_dtype_of_the_family() -> None:
    """Without an estimator it is the family that decides, whatever the rows were."""
    X = wide(clusters(np.random.RandomState(6), 500, 3))
    single, double = families("full", 1e-3)
    start = MixtureParams(np.full(2, 0.5), double.params(np.array([[0.0, 0, 0], [5, 5, 5]]), np.array([np.eye(3)] * 2)))
    found = [fit_em(lvm.Mixture(family), Rows(X), start, tol=0.0, max_iter=5) for family in (single, double)]
    assert found[0].loglik == pytest.approx(found[1].loglik, rel=1e-6)
    assert found[0].loglik != found[1].loglik


# ----- predictions --------------------------------------------------------------------------------------------


@every_kind
def test_predictions_agree(kind: str) -> None:
    """A mixture serves rows of both dtypes, whichever it was fitted to."""
    X = clusters(np.random.RandomState(7), 1000, 4)
    for data in (X, wide(X)):
        mixture = fitted(kind, data, np.arange(1000) % 3, max_iter=10)
        probability = mixture.predict_proba(wide(X))
        assert_allclose(mixture.predict_proba(X), probability, atol=2e-5)
        assert_allclose(mixture.score_samples(X), mixture.score_samples(wide(X)), rtol=1e-5, atol=1e-5)
        sure = np.abs(np.sort(probability, axis=1)[:, -2:] @ [-1, 1]) > 1e-4
        assert sure.mean() > 0.99
        assert_array_equal(mixture.predict(X)[sure], mixture.predict(wide(X))[sure])


@every_kind
def test_predictions_copy_no_rows(kind: str) -> None:
    """Float32 rows are read where they lie; a copy in float64 would be twice their size."""
    X = clusters(np.random.RandomState(8), 100_000, 16)
    mixture = fitted(kind, X[:500], np.arange(500) % 3, max_iter=3, n_jobs=1)
    mixture.score_samples(X[:500])
    X.flags.writeable = False
    tracemalloc.start()
    try:
        mixture.predict(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 2  # the labels are an eighth of it
