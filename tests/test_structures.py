"""The fourteen structures of Celeux & Govaert (1995): M-steps against a general optimiser, and properties."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import expm
from scipy.optimize import minimize
from sklearn.utils.estimator_checks import parametrize_with_checks
from structures import ALIGNED, NEW, Array, Cost, each_new, family, matrices, mstep, partition

import lvm
from lvm.estimators.gaussian import FOURTEEN
from lvm.kernels.rotations import rotate
from lvm.models.mixture import MixtureParams
from lvm.testing import model_checks

NAN = np.nan


# ----- M-steps against a general optimiser --------------------------------------------------------------------


def composed(name: str, vector: Array, K: int, d: int) -> Array:
    """Return the covariances (K, d, d) of a structure with these free parameters: logarithms, and angles of axes."""
    place = 0

    def taken(letter: str, size: int) -> Array:
        nonlocal place
        owners = {"E": 1, "V": K, "I": 0}[letter]
        part = vector[place : place + owners * size].reshape(owners, size)
        place += owners * size
        return np.broadcast_to(part, (K, size)) if owners else np.zeros((K, size))

    volumes, shapes, angles = taken(name[0], 1), taken(name[1], d - 1), taken(name[2], d * (d - 1) // 2)
    logs = volumes + np.hstack([shapes, -shapes.sum(axis=1, keepdims=True)])
    result = np.empty((K, d, d))
    for k in range(K):
        skew = np.zeros((d, d))
        skew[np.tril_indices(d, -1)] = angles[k]
        axes = expm(skew - skew.T)
        result[k] = axes @ np.diag(np.exp(logs[k])) @ axes.T
    assert place == len(vector)
    return result


@pytest.mark.parametrize("reg_covar", [0.0, 0.5])
@pytest.mark.parametrize(("K", "d"), [(2, 2), (3, 3)])
@each_new
def test_mstep_is_the_maximum(name: str, K: int, d: int, reg_covar: float) -> None:
    """No start of a general optimiser over the structure's own parameters leads lower, and the best as low.

    The cost is flat at its minimum: 1e-9 is what finite differences leave of it.
    """
    X, resp = partition(K, d, seed=K)
    found = mstep(name, X, resp, reg_covar=reg_covar)
    counts = resp.sum(axis=1)
    assert_allclose(found.means, resp @ X / counts[:, None], rtol=1e-12)
    cost = Cost(found.means, X, resp, reg_covar)
    reached = cost(matrices(found.covariances, K, d))
    rng = np.random.RandomState(0)
    size = family(name).n_parameters(found) - K * d
    ends = [
        minimize(
            lambda vector: cost(composed(name, vector, K, d)),
            rng.normal(size=size),
            options={"gtol": 1e-8},
        ).fun
        for _ in range(8 if name[1:] == "VE" else 3)
    ]
    assert_allclose(reached, min(ends), atol=1e-9)


@pytest.mark.parametrize("reg_covar", [0.0, 0.5])
@pytest.mark.parametrize("name", ["EII", "EEI", "VEI", "EVI"])
def test_mstep_is_the_maximum_where_cells_are_missing(name: str, reg_covar: float) -> None:
    K, d = 3, 3
    X, resp = partition(K, d, seed=5)
    X[np.random.RandomState(1).uniform(size=X.shape) < 0.3] = NAN
    X[0] = NAN
    found = mstep(name, X, resp, reg_covar=reg_covar)
    cost = Cost(found.means, X, resp, reg_covar)
    reached = cost(matrices(found.covariances, K, d))
    size = family(name).n_parameters(found) - K * d
    end = minimize(
        lambda vector: cost(composed(name, vector, K, d)),
        np.zeros(size),
        options={"gtol": 1e-8},
    )
    assert_allclose(reached, end.fun, atol=1e-9)
    for k, at in product(range(K), range(d)):  # the means do not depend on the structure
        seen = ~np.isnan(X[:, at])
        assert_allclose(found.means[k, at], np.average(X[seen, at], weights=resp[k, seen]), rtol=1e-12)


@pytest.mark.parametrize("name", ["EII", "EEI", "VEI", "EVI"])
def test_without_holes_the_kernels_for_holes_change_rounding_alone(name: str) -> None:
    X, resp = partition(2, 3)
    more, wider = np.vstack([X, np.full((1, 3), NAN)]), np.hstack([resp, np.zeros((2, 1))])
    for one, two in zip(mstep(name, X, resp), mstep(name, more, wider), strict=True):
        assert_allclose(two, one, rtol=1e-9)


def is_nested(small: str, large: str) -> bool:
    """Return whether one structure is a case of another, letter by letter; spherical ones are cases of all."""
    order = "IEV"
    if small[1] == "I":
        return order.index(small[0]) <= order.index(large[0])
    return all(order.index(a) <= order.index(b) for a, b in zip(small, large, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_less_constrained_structures_fit_no_worse(seed: int) -> None:
    K, d = 3, 4
    X, resp = partition(K, d, seed=seed)
    costs = {}
    for name in FOURTEEN:
        found = mstep(name, X, resp)
        costs[name] = Cost(found.means, X, resp)(matrices(found.covariances, K, d))
    pairs = [(small, large) for small, large in product(FOURTEEN, FOURTEEN) if is_nested(small, large)]
    assert len(pairs) > 60
    for small, large in pairs:
        assert costs[large] <= costs[small] + 1e-12, (small, large)
    assert len(set(costs.values())) == len(FOURTEEN)


@each_new
def test_mstep_keeps_what_has_the_structure(name: str) -> None:
    """At scatters that have the structure, they are the maximum; `nearest` is the same map."""
    K, d = 3, 4
    X, resp = partition(K, d)
    found = mstep(name, X, resp).covariances
    chosen = family(name)
    assert_allclose(chosen.nearest(found), found, rtol=1e-7, atol=1e-9 * np.abs(found).max())
    other = matrices(mstep("VVV" if name not in ALIGNED else "VVI", X, resp).covariances, K, d)
    if name == "EII":
        given = np.array([1.0, 3.0, 2.0])
        assert_array_equal(chosen.nearest(given), [2.0, 2.0, 2.0])
    else:
        given = np.diagonal(other, axis1=1, axis2=2) if name in ALIGNED else other
        assert np.abs(chosen.nearest(given) - given).max() > 0.01


# ----- common axes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 0.2])
def test_common_axes_are_found(power: float) -> None:
    """Of matrices that have them, exactly; of others, no small rotation is better."""
    rng = np.random.RandomState(0)
    K, d = 4, 5
    counts = rng.uniform(1, 9, K)
    common = np.linalg.qr(rng.normal(size=(d, d)))[0]
    variances = rng.uniform(0.1, 9.0, (K, d))
    exact = (common * variances[:, None]) @ common.T
    turned, axes = exact.copy(), np.eye(d)
    assert rotate(turned, counts, power, axes) < 20
    assert_allclose(axes.T @ axes, np.eye(d), atol=1e-13)
    assert_allclose(np.sort(np.abs(axes.T @ common), axis=1)[:, -1], 1.0, rtol=1e-12)
    off = turned[:, ~np.eye(d, dtype=bool)]
    assert np.abs(off).max() < 1e-8  # the angles are known to the root of the gain that is worth a turn

    roots = rng.normal(size=(K, d, d))
    matrix = roots @ np.swapaxes(roots, 1, 2)
    turned, axes = matrix.copy(), np.eye(d)
    rotate(turned, counts, power, axes)
    assert_allclose(turned, axes.T @ matrix @ axes, rtol=1e-10, atol=1e-12)

    def objective(directions: Array) -> float:
        logs = np.log(np.einsum("ij,kil,lj->kj", directions, matrix, directions)).sum(axis=1)
        return float(counts @ (np.exp(power * logs) if power else logs))

    best = objective(axes)
    assert best < objective(np.eye(d)) - 0.1
    for _ in range(50):
        skew = 1e-3 * rng.normal(size=(d, d))
        assert objective(axes @ expm(skew - skew.T)) > best


# ----- conformance --------------------------------------------------------------------------------------------


def conformance_case(name: str, weighted: bool, holes: float, **arguments: Any) -> tuple[Any, Any, Any]:
    rng = np.random.RandomState(1)
    X = np.concatenate([rng.randn(60, 3) @ np.diag([1.0, 2.0, 0.5]), rng.randn(50, 3) + np.array([2.0, 0.0, 1.0])])
    X[rng.uniform(size=X.shape) < holes] = NAN
    chosen = family(name, **arguments)
    params = chosen.start(X, np.ones(len(X)), 2)
    params = params._replace(means=params.means + np.array([[-1.0, 0.0, 0.2], [1.0, 0.5, 0.0]]))
    weight = rng.uniform(0.2, 2.0, len(X)) if weighted else None
    labels = np.where(np.arange(len(X)) % 7 == 0, np.arange(len(X)) // 60, -1) if weighted else None
    return lvm.Mixture(chosen), MixtureParams(np.array([0.4, 0.6]), params), lvm.Rows(X, weight, labels)


CASES = {
    **{f"{name} weights and labels": conformance_case(name, True, 0.0) for name in NEW},
    **{f"{name} regularised": conformance_case(name, False, 0.0, reg_covar=0.1) for name in NEW},
    **{f"{name} with holes": conformance_case(name, True, 0.2, reg_covar=0.1) for name in ("EII", "EEI", "VEI", "EVI")},
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, (model, params, rows) in CASES.items()
        for check in model_checks(model, params, rows)
    ],
)
def test_conformance(check: Any) -> None:
    check()


@parametrize_with_checks(
    [lvm.GaussianMixture(2, covariance_type=name) for name in ("VEI", "VVE", "EVV")],
    expected_failed_checks=lambda estimator: (
        {}  # its starts end at one optimum
        if estimator.covariance_type == "EVV"
        else {"check_sample_weight_equivalence_on_dense_data": "k-means draws its seeds from the rows as they come"}
    ),
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)
