"""Gaussian components with a floor of their variances: what the policy "floor" fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

import lvm
from lvm.families import DiagGaussian, FullGaussian, SphericalGaussian, WithNoise
from lvm.families.gaussian import spreads_of_columns
from lvm.families.noise import smallest_box
from lvm.models.mixture import MixtureParams

Array = NDArray[np.float64]
FAMILIES = {"VVV": FullGaussian, "VVI": DiagGaussian, "VII": SphericalGaussian}
each_family = pytest.mark.parametrize("kind", FAMILIES.values(), ids=FAMILIES)


def rows_of(n: int = 40) -> Array:
    """Return a group of some extent, and one that is flat in one direction."""
    rng = np.random.RandomState(0)
    flat = rng.randn(n, 3) @ [[1.0, 0.5, 0.0], [0.0, 1e-6, 0.0], [0.0, 0.0, 1e-5]] + [6.0, 0.0, 3.0]
    return np.concatenate([rng.randn(n, 3) * [1.0, 2.0, 0.5], flat])


def floored(kind: Any, X: Array, share: float, **arguments: Any) -> Any:
    return kind(**arguments).floored(X, np.ones(len(X)), share)


def step(family: Any, X: Array, resp: Array) -> tuple[Any, Any]:
    rows = family.canonical(X)
    old = family.start(rows, np.ones(len(X)), len(resp))
    stats = family.zero_stats(old)
    family.accumulate(rows, resp, old, stats)
    return family.mstep(stats, old), old


def covariances_of(params: Any) -> Array:
    if params.covariances.ndim == 3:
        return np.asarray(params.covariances)
    return np.asarray(params[2][:, :, None] ** -2.0 * np.eye(params[2].shape[1]))


@each_family
def test_m_step_is_the_best_that_keeps_the_floor(kind: Any) -> None:
    X = rows_of()
    family = floored(kind, X, 0.05)
    resp = np.random.RandomState(1).dirichlet([0.3, 0.3], len(X)).T.copy()
    resp[:, :40], resp[:, 40:] = [[0.999], [0.001]], [[0.001], [0.999]]
    params, old = step(family, X, resp)

    def objective(params: Any) -> float:
        densities = [
            multivariate_normal.logpdf(X, mean, covariance)
            for mean, covariance in zip(params.means, covariances_of(params), strict=True)
        ]
        return float((resp * np.array(densities)).sum())

    best, rng = objective(params), np.random.RandomState(2)
    vector = family.to_vector(params, old)
    floor = family.floor if kind is not SphericalGaussian else np.full(3, family.floor.mean())
    for scale in (0.3, 1e-2, 1e-4):
        for _ in range(40):
            moved = family.from_vector(vector + scale * rng.randn(len(vector)), old)
            for covariance in covariances_of(moved):  # they keep the floor too
                assert np.linalg.eigvalsh((covariance - np.diag(floor)) / np.sqrt(np.outer(floor, floor))).min() > -1e-9
            assert objective(moved) <= best + 1e-9 * abs(best)  # rounding of a sum of this size


@each_family
def test_what_is_above_the_floor_is_left_as_it_is(kind: Any) -> None:
    X = rows_of()
    resp = np.repeat(np.eye(2), 40, axis=1)
    with_floor, plain = step(floored(kind, X, 1e-4), X, resp)[0], step(kind(), X, resp)[0]
    assert_allclose(with_floor.means, plain.means, rtol=1e-12)
    assert_allclose(with_floor.covariances[0], plain.covariances[0], rtol=1e-12, atol=1e-12)
    changed = not np.allclose(with_floor.covariances[1], plain.covariances[1], rtol=1e-6, atol=0)
    assert changed == (kind is not SphericalGaussian)  # the mean over features is far above


@each_family
def test_floors_have_the_units_of_the_columns(kind: Any) -> None:
    units = np.array([1e-6, 1.0, 1e9]) if kind is not SphericalGaussian else 1e4
    X, resp = rows_of(), np.repeat(np.eye(2), 40, axis=1)
    one, other = (covariances_of(step(floored(kind, rows, 0.01), rows, resp)[0]) for rows in (X, X * units))
    scale = np.broadcast_to(units, 3)
    assert_allclose(other / scale / scale[:, None], one, rtol=1e-7, atol=1e-10)


@each_family
@pytest.mark.parametrize("kind_of_rows", ["plain", "missing", "regularised", "held"])
def test_every_iteration_climbs(kind: Any, kind_of_rows: str) -> None:
    X = rows_of()
    if kind_of_rows == "missing":
        X[np.random.RandomState(3).random_sample(X.shape) < 0.1] = np.nan
    arguments: dict[str, Any] = {"reg_covar": 1e-3} if kind_of_rows == "regularised" else {}
    if kind_of_rows == "held":
        arguments["held"] = {"covariances": np.array([True, False])}
    plain = kind(**arguments)
    family = plain.floored(plain.canonical(X), np.ones(len(X)), 1e-3)
    model = lvm.Mixture(family)
    rows = model.canonical(lvm.Rows(X))
    start = family.start(rows.X, np.ones(len(X)), 2)
    start = start._replace(means=start.means + np.array([[-1.0, 0.3, 0.0], [1.0, 0.0, 0.5]]))
    result = lvm.fit_em(model, rows, MixtureParams(np.array([0.4, 0.6]), start), tol=0, max_iter=30)
    assert np.diff(result.objective_trace).min() > -1e-9  # rounding of some hundreds
    if kind_of_rows == "held":
        assert_array_equal(result.params.components.covariances[0], start.covariances[0])


def test_spread_of_columns() -> None:
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.randn(4001) * 3, np.full(4001, 2.0), rng.randn(4001), rng.rand(4001) < 0.1])
    X[0, 2] = 1e8  # tells nothing of the others
    X[1:9, 0] = np.nan
    family = FullGaussian()
    spreads = spreads_of_columns(family.canonical(X), np.ones(4001))
    assert_allclose(spreads[[0, 2]], [9.0, 1.0], rtol=0.1)  # quartiles of 4,000 are good to 3 %, squared
    assert_allclose(spreads[3], X[:, 3].var(), rtol=1e-9)  # whose quartiles are equal
    assert spreads[1] == spreads[3]  # the least of the others'
    weight = np.arange(4001) % 3.0
    repeated = np.repeat(X, weight.astype(int), axis=0)
    assert_allclose(
        spreads_of_columns(family.canonical(X), weight),
        spreads_of_columns(family.canonical(repeated), np.ones(len(repeated))),
        rtol=1e-6,
    )
    assert_array_equal(spreads_of_columns(np.ones((5, 2)), np.ones(5)), [1.0, 1.0])


def test_given_starts_below_the_floor_are_lifted() -> None:
    X = np.concatenate([rows_of()[:40], np.full((5, 3), 9.0)])
    start = {"means_init": [[0.0] * 3, [9.0] * 3], "weights_init": [0.5, 0.5]}
    start["covariances_init"] = np.array([np.eye(3), 1e-12 * np.eye(3)])
    with pytest.warns(UserWarning, match="Floored"):
        found = lvm.GaussianMixture(2, reg_covar=0, on_degenerate="floor", **start).fit(X)
    assert found.converged_
    assert np.diff(found.objective_trace_).min() >= -1e-9
    assert found.weights_[1] == pytest.approx(1 / 9)


def test_noise_beside_floored_components() -> None:
    X = np.concatenate([rows_of()[:40], np.full((9, 3), 9.0), np.random.RandomState(0).uniform(-20, 20, (9, 3))])
    family = WithNoise(FullGaussian(), smallest_box(X)).floored(X, np.ones(len(X)), 1e-6)
    assert "FlooredFullGaussian(least variance" in repr(family)
    params = FullGaussian().params(np.zeros((1, 3)), np.eye(3)[None] * 1e-30)
    assert_allclose(family.confined(params).covariances[0], np.diag(family.family.floor), rtol=1e-9)
    labels = np.repeat([0, 1, 2], [40, 9, 9])
    with pytest.warns(UserWarning, match="Floored"):
        found = lvm.GaussianMixture(
            2, noise=True, reg_covar=0, on_degenerate="floor", init_params=labels, random_state=0
        ).fit(X)
    assert_array_equal(found.predict(X)[40:49], 1)
    assert found.noise_weight_ > 0.1
