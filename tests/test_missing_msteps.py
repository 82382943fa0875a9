"""Statistics and M-steps of Bernoulli, diagonal and spherical Gaussian components where cells are missing.

Sums of a few hundred terms in another order agree to 1e-12 of their size, unless a tolerance says otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from missing_cells import FAMILIES, GAUSSIANS, NAN, data, densities, mixture, parameters, with_holes
from numpy.testing import assert_allclose, assert_array_equal

import lvm
from lvm.em import rounding
from lvm.families import Bernoulli, DiagGaussian
from lvm.models.mixture import MixtureParams
from lvm.protocol import leaves, map_fields

all_families = pytest.mark.parametrize("name", FAMILIES)
gaussians = pytest.mark.parametrize("name", GAUSSIANS)


# ----- statistics ---------------------------------------------------------------------------------------------


@all_families
@pytest.mark.parametrize(("n", "d", "K"), [(1, 1, 1), (7, 2, 3), (256, 4, 9), (300, 5, 2), (600, 9, 8)])
def test_statistics(name: str, n: int, d: int, K: int) -> None:
    X, params, family = with_holes(data(name, n, d), 0.4), parameters(name, K, d), FAMILIES[name]()
    X[0, 0] = NAN
    rng = np.random.RandomState(0)
    resp = rng.uniform(size=(K, n)) * rng.randint(0, 2, (K, n))
    resp[0] = 0.0
    stats = map_fields(lambda array: array + 1.0, family.zero_stats(params))  # to be added to
    family.accumulate(family.canonical(X), resp, params, stats)
    seen = ~np.isnan(X)
    assert_allclose(stats.observed, 1 + resp @ seen, rtol=1e-12)
    assert_array_equal(stats.counts, 1.0)
    if name == "bernoulli":
        assert_allclose(stats.ones, 1 + resp @ np.nan_to_num(X), rtol=1e-12)
        return
    z = np.nan_to_num(X - params.means[:, None])
    assert_allclose(stats.first, 1 + np.einsum("kn,knd->kd", resp, z), rtol=1e-12)
    assert_allclose(stats.second, 1 + np.einsum("kn,knd->kd", resp, z**2), rtol=1e-12)
    assert_allclose(stats.incomplete, 1 + resp.sum(axis=1), rtol=1e-12)


@all_families
def test_parts_without_holes_add_up(name: str) -> None:
    """Each part made canonical by itself, as on a cluster: the M-step is that of the whole."""
    model, params = mixture(name, **({} if name == "bernoulli" else {"reg_covar": 0.3}))
    X = with_holes(data(name), 0.3)
    X[100:200] = data(name)[100:200]
    whole = model.estep_stats(lvm.Rows(X), params)
    parts = [model.estep_stats(lvm.Rows(X[part]), params) for part in (slice(0, 100), slice(100, 200), slice(200, 300))]
    assert whole.components.counts.sum() == 0.0
    assert parts[1].components.observed.sum() == 0.0
    total = map_fields(lambda *fields: sum(fields), *parts)
    for found, expected in zip(leaves(model.mstep(total, params)), leaves(model.mstep(whole, params)), strict=True):
        assert_allclose(found, expected, rtol=1e-12)


# ----- M-steps ------------------------------------------------------------------------------------------------


@all_families
def test_one_component_has_the_moments_of_the_columns(name: str) -> None:
    X = with_holes(data(name), 0.4)
    weight = np.random.RandomState(0).uniform(0.5, 2, len(X))
    model, params = mixture(name, K=1)
    stats = model.estep_stats(lvm.Rows(X, weight), params)
    found = model.mstep(stats, params).components
    w = weight[:, None] * ~np.isnan(X)
    mean = np.nansum(w * X, axis=0) / w.sum(axis=0)
    squares = np.nansum(w * (X - mean) ** 2, axis=0)
    if name == "bernoulli":
        assert_allclose(found.probabilities, [mean], rtol=1e-12)
    else:
        expected = [squares / w.sum(axis=0)] if name == "diag" else [squares.sum() / w.sum()]
        assert_allclose(found.means, [mean], rtol=1e-12)
        assert_allclose(found.covariances, expected, rtol=1e-12)


@gaussians
def test_start_is_of_observed_cells(name: str) -> None:
    X = with_holes(data(name), 0.4)
    weight = np.random.RandomState(0).uniform(size=len(X)) * (np.arange(len(X)) > 5)
    params = GAUSSIANS[name](reg_covar=0.5).start(X, weight, 2)
    w = weight[:, None] * ~np.isnan(X)
    mean = np.nansum(w * X, axis=0) / w.sum(axis=0)
    variance = np.nansum(w * (X - mean) ** 2, axis=0) / w.sum(axis=0) + 0.5
    assert_allclose(params.means, np.repeat([mean], 2, axis=0), rtol=1e-12)
    expected = np.repeat([variance], 2, axis=0) if name == "diag" else np.repeat(variance.mean(), 2)
    assert_allclose(params.covariances, expected, rtol=1e-12)


@gaussians
def test_empty_columns_are_named(name: str) -> None:
    X = data(name)
    X[:, 2] = NAN
    with pytest.raises(ValueError, match="column 2 of X has no observed value; remove it"):
        GAUSSIANS[name]().start(X, np.ones(len(X)), 2)


@all_families
def test_features_that_a_component_does_not_see_stay(name: str) -> None:
    """Component 0 owns the first half of the rows, where column 1 is missing."""
    X = data(name)
    X[:150, 1] = NAN
    resp = np.repeat([[1.0], [0.0]], 150, axis=1).reshape(2, 150)
    resp = np.hstack([resp, 1 - resp])
    family, params = FAMILIES[name](), parameters(name, 2, 3)
    stats = family.zero_stats(params)
    family.accumulate(family.canonical(X), resp, params, stats)
    found = family.mstep(stats, params)
    assert_array_equal(found[0][0, 1], params[0][0, 1])
    assert_allclose(found[0][0, [0, 2]], X[:150, [0, 2]].mean(axis=0), rtol=1e-12)
    assert_allclose(found[0][1], X[150:].mean(axis=0), rtol=1e-12)
    if name == "diag":
        assert_array_equal(found.covariances[0, 1], params.covariances[0, 1])
    elif name == "spherical":
        assert_allclose(found.covariances[0], X[:150, [0, 2]].var(axis=0).mean(), rtol=1e-12)
    else:
        prior = Bernoulli(alpha=2.0).mstep(stats, params).probabilities
        assert prior[0, 1] == 0.5  # the mode of the prior
        assert_allclose(prior[0, 0], (X[:150, 0].sum() + 1) / 152, rtol=1e-12)


@all_families
def test_components_of_no_weight_stay(name: str) -> None:
    X, family, params = with_holes(data(name), 0.3), FAMILIES[name](), parameters(name, 2, 3)
    stats = family.zero_stats(params)
    family.accumulate(family.canonical(X), np.repeat([[1.0], [0.0]], len(X), axis=1), params, stats)
    end = family.mstep(stats, params)
    for found, old in zip(end, params, strict=True):
        assert_array_equal(found[1], old[1])
    assert not np.any(end[0][0] == params[0][0])


def expected_objective(family: Any, X: Any, resp: Any, params: Any) -> float:
    """Return what the M-step maximises."""
    total = float(np.sum(resp * densities(family, X, params)))
    if isinstance(family, Bernoulli):
        return total + family.log_prior(params)
    return total + float(resp.sum(axis=1) @ family.log_penalty(params))


PENALISED = [
    ("diag", {"reg_covar": 0.0}),
    ("diag", {"reg_covar": 2.0}),
    ("spherical", {"reg_covar": 0.0}),
    ("spherical", {"reg_covar": 2.0}),
    ("bernoulli", {"alpha": 1.0}),
    ("bernoulli", {"alpha": 2.5}),
]


@pytest.mark.parametrize("held", [None, "means", "covariances"])
@pytest.mark.parametrize(("name", "arguments"), PENALISED)
def test_mstep_maximises(name: str, arguments: Any, held: str | None) -> None:
    """Every step away from its result, of the parameters that are not held, lowers the expected objective."""
    if name == "bernoulli" and held is not None:
        held = "probabilities"
    masks = {} if held is None else {held: np.array([True, False])}
    X, family, params = with_holes(data(name), 0.4), FAMILIES[name](**arguments, held=masks), parameters(name, 2, 3)
    resp = np.random.RandomState(0).dirichlet(np.ones(2), len(X)).T.copy()
    stats = family.zero_stats(params)
    family.accumulate(family.canonical(X), resp, params, stats)
    found = family.mstep(stats, params)
    best = expected_objective(family, X, resp, found)
    for field in family.parameters:
        if field == held:
            assert_array_equal(getattr(found, field)[0], getattr(params, field)[0])
        for at in np.ndindex(getattr(found, field).shape):
            if field == held and at[0] == 0:
                continue
            for factor in (0.999, 1.001):
                arrays = {each: getattr(found, each).copy() for each in family.parameters}
                arrays[field][at] *= factor
                assert expected_objective(family, X, resp, family.params(**arrays)) < best - 1e-9


@pytest.mark.parametrize(("name", "arguments"), PENALISED)
def test_objective_never_falls(name: str, arguments: Any) -> None:
    model, params = mixture(name, K=3, **arguments)
    X = with_holes(data(name), 0.4)
    found = lvm.fit_em(model, lvm.Rows(X), params, tol=0.0, max_iter=60)
    trace = found.objective_trace
    assert trace[-1] > trace[0] + 1
    assert np.diff(trace).min() >= -rounding(lvm.Rows(X)) * max(len(X), np.abs(trace).max())


def test_penalty_is_no_part_of_the_loglik() -> None:
    model, params = mixture("diag", reg_covar=2.0)
    X = with_holes(data("diag"), 0.4)
    stats = model.estep_stats(lvm.Rows(X), params)
    assert_allclose(stats.loglik, model.loglik(lvm.Rows(X), params).sum(), rtol=1e-12)
    assert stats.penalty < -1


# ----- against complete data ----------------------------------------------------------------------------------


@all_families
def test_a_row_of_weight_zero_with_holes_changes_rounding_alone(name: str) -> None:
    """The kernels for rows with holes, on complete ones."""
    model, params = mixture(name)
    X = data(name)
    more, weight = np.vstack([X, np.full((1, 3), NAN)]), np.append(np.ones(len(X)), 0.0)
    one = lvm.fit_em(model, lvm.Rows(X), params, tol=0.0, max_iter=20)
    two = lvm.fit_em(model, lvm.Rows(more, weight), params, tol=0.0, max_iter=20)
    assert_allclose(two.objective_trace, one.objective_trace, rtol=1e-12)
    for found, expected in zip(leaves(two.params), leaves(one.params), strict=True):
        assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@all_families
def test_empty_rows_tell_nothing(name: str) -> None:
    model, params = mixture(name)
    X = with_holes(data(name), 0.3)
    full = X[~np.isnan(X).all(axis=1)]
    more = np.vstack([full, np.full((40, 3), NAN)])
    assert_allclose(model.loglik(lvm.Rows(more), params)[-40:], 0.0, atol=1e-15)
    posterior = model.responsibilities(lvm.Rows(more), params)[-40:]
    assert_allclose(posterior, np.repeat([params.weights], 40, axis=0), rtol=1e-14)
    one, two = (model.estep_stats(lvm.Rows(rows), params) for rows in (full, more))
    assert_allclose(two.loglik, one.loglik, rtol=1e-13)
    ends = [model.mstep(stats, params).components for stats in (one, two)]
    for found, expected in zip(leaves(ends[1]), leaves(ends[0]), strict=True):
        assert_allclose(found, expected, rtol=1e-12)


def test_an_estep_at_once_leaves_rows_with_holes_to_the_steps() -> None:
    """One hole changes nothing but what its row says: well separated components of many rows."""
    rng = np.random.RandomState(0)
    means = 100 * rng.normal(size=(20, 6))
    X = np.repeat(means, 1650, axis=0) + rng.normal(size=(33_000, 6))
    family = DiagGaussian()
    holes = X.copy()
    holes[5, 1] = NAN
    model, start = lvm.Mixture(family), MixtureParams(np.full(20, 1 / 20), family.params(means, np.ones((20, 6))))
    rest = np.arange(len(X)) != 5
    whole, without, holed = (model.estep_stats(lvm.Rows(rows), start) for rows in (X, X[rest], holes))
    cell = model.loglik(lvm.Rows(X[5:6]), start)[0] - model.loglik(lvm.Rows(holes[5:6]), start)[0]
    assert_allclose(holed.loglik, whole.loglik - cell, rtol=1e-13)
    assert_allclose(holed.loglik, without.loglik + model.loglik(lvm.Rows(holes[5:6]), start)[0], rtol=1e-13)
    assert_allclose(holed.counts, whole.counts, rtol=1e-13)
