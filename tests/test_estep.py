"""An E-step at one go equals densities, responsibilities and statistics one after the other, and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference import slow

from lvm.em import fit_em
from lvm.families import (
    DiagGaussian,
    DiagStudentT,
    FullGaussian,
    FullStudentT,
    SphericalGaussian,
    TiedGaussian,
)
from lvm.models import mixture
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, ZeroDensityError, leaves

Array = NDArray[np.float64]

GAUSSIANS = [FullGaussian, DiagGaussian, SphericalGaussian, TiedGaussian]
FAMILIES = [*GAUSSIANS, FullStudentT, DiagStudentT]
each_family = pytest.mark.parametrize("family", FAMILIES)
each_gaussian = pytest.mark.parametrize("family", GAUSSIANS)


def problem(family: Any, n: int, d: int, K: int, apart: float, seed: int = 0) -> tuple[MixtureParams, Array]:
    """Return parameters near the truth, and rows (n, d) of K components so many standard deviations apart."""
    rng = np.random.default_rng(seed)
    means = apart * rng.standard_normal((K, d))
    X = means[rng.integers(K, size=n)] + rng.standard_normal((n, d)) @ (np.eye(d) + 0.2 * rng.standard_normal((d, d)))
    matrix = family.start(X, np.ones(n), K)[1]
    scale = rng.uniform(0.5, 2.0, matrix.shape[:1] + (1,) * (matrix.ndim - 1))
    values = scale * np.broadcast_to(np.eye(d) if matrix.ndim == 3 else 1.0, matrix.shape)
    given = [means + 0.1 * rng.standard_normal((K, d)), values]
    given += [np.full(K, 4.0)] if "degrees_of_freedom" in family.parameters else []
    return MixtureParams(rng.dirichlet(np.ones(K)), family.params(*given)), X


def both(family: Any, rows: Rows, params: MixtureParams) -> tuple[Any, Any]:
    """Return the statistics of an E-step at one go, and of one step by step."""
    model = Mixture(family)
    rows = model.canonical(rows)
    at_once = model.estep_stats(rows, params)
    family.estep = None
    stepwise = model.estep_stats(rows, params)
    del family.estep
    return at_once, stepwise


def equal(at_once: Any, stepwise: Any, tolerance: float = 1e-12) -> None:
    assert type(at_once) is type(stepwise)
    assert_allclose(at_once.loglik, stepwise.loglik, rtol=tolerance)
    for ours, theirs in zip(leaves(at_once), leaves(stepwise), strict=True):
        lower = np.tril(theirs) if np.ndim(theirs) == 3 else theirs
        size = np.abs(lower).max(initial=0.0)
        assert_allclose(np.tril(ours) if np.ndim(ours) == 3 else ours, lower, atol=tolerance * size, rtol=0)


@each_family
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 9, 17])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 127, 128, 129, 1500])
@pytest.mark.parametrize("apart", [0.5, 30.0])
def test_statistics(family: Any, n: int, d: int, apart: float) -> None:
    """Where components overlap and where they do not: then rows of several strips wait in queues."""
    params, X = problem(family(), n, d, 5, apart)
    equal(*both(family(), Rows(X), params))


@each_family
@pytest.mark.parametrize("K", [1, 2, 40])
def test_numbers_of_components(family: Any, K: int) -> None:
    params, X = problem(family(), 700, 3, K, 3.0)
    equal(*both(family(), Rows(X), params))


@each_family
@pytest.mark.parametrize("apart", [1.0, 30.0])
def test_weights_and_labels(family: Any, apart: float) -> None:
    """Rows of weight 0 count for nothing, even where they are impossible."""
    rng = np.random.default_rng(1)
    params, X = problem(family(), 900, 4, 6, apart)
    weight = rng.integers(0, 3, 900) * rng.uniform(size=900)
    labels = np.where(rng.uniform(size=900) < 0.5, rng.integers(6, size=900), -1)
    X[5], weight[5] = 1e300, 0.0
    for rows in (Rows(X, weight), Rows(X, weight, labels), Rows(X[6:], None, labels[6:])):
        at_once, stepwise = both(family(), rows, params)
        assert np.isfinite(at_once.loglik)
        equal(at_once, stepwise)


@each_gaussian
@pytest.mark.parametrize(("reg_covar", "apart"), [(0.01, 2.0), (0.3, 2.0), (0.3, 30.0)])
def test_penalties(family: Any, reg_covar: float, apart: float) -> None:
    params, X = problem(family(reg_covar), 1000, 5, 6, apart)
    at_once, stepwise = both(family(reg_covar), Rows(X), params)
    assert at_once.penalty < 0
    equal(at_once, stepwise)


def test_large_penalties_go_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is negligible with them may be what counts without."""
    family = FullGaussian(0.3)
    params, X = problem(family, 200, 2, 3, 2.0)
    calls = []
    monkeypatch.setattr(FullGaussian, "estep", lambda *_: calls.append(1))
    Mixture(family).estep_stats(Rows(X), params)
    assert calls
    calls.clear()
    sharp = params.components._replace(
        inverse_cholesky=params.components.inverse_cholesky * 20, covariances=params.components.covariances / 400
    )
    assert -family.log_penalty(sharp).min() > mixture.MAX_RELIEF
    Mixture(family).estep_stats(Rows(X), params._replace(components=sharp))
    assert not calls


@each_gaussian
@pytest.mark.parametrize("d", [9, 40])
@pytest.mark.parametrize("apart", [1.0, 30.0])
def test_float32(family: Any, apart: float, d: int) -> None:
    """Log densities of size 1e2 or so have errors of 1e-5 in float32, and responsibilities as much."""
    single = family(dtype=np.float32)
    params, X = problem(single, 1000, d, 6, apart)
    equal(*both(single, Rows(X), params), tolerance=2e-5)


@each_family
def test_components_of_weight_zero(family: Any) -> None:
    params, X = problem(family(), 1000, 6, 5, 3.0)
    weights = np.r_[0.0, np.full(4, 1 / 4)]
    at_once, stepwise = both(family(), Rows(X), params._replace(weights=weights))
    assert at_once.counts[0] == 0.0
    equal(at_once, stepwise)


@each_gaussian
@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("apart", [1.0, 30.0])
def test_brute_force(family: Any, apart: float, d: int) -> None:
    n, K = 250, 4
    params, X = problem(family(), n, d, K, apart)
    weight = np.random.default_rng(3).uniform(size=n)
    stats = Mixture(family()).estep_stats(Mixture(family()).canonical(Rows(X, weight)), params)
    means, covariances = params.components.means, params.components.covariances
    kind = family.__name__.removesuffix("Gaussian").lower()
    density = slow.gaussian_log_density(X, means, slow.expand_covariances(kind, covariances, K, d))
    expected = slow.posterior(density, params.weights, weight)
    counts, first, second = slow.moments(X, expected.resp, means)
    assert_allclose(stats.loglik, expected.loglik, rtol=1e-13)
    assert_allclose(stats.counts, counts, rtol=1e-12)
    assert_allclose(stats.components.first, first, atol=1e-11)
    found = stats.components.second
    if kind in ("diag", "spherical"):
        second = np.diagonal(second, axis1=1, axis2=2)
    lower = np.tril if kind in ("full", "tied") else np.asarray
    desired = second.sum(axis=0, keepdims=True) if kind == "tied" else second
    assert_allclose(lower(found), lower(desired), atol=1e-10)


@each_gaussian
@pytest.mark.parametrize("row", [0, 127, 128, 300])
def test_the_first_impossible_row_is_named(family: Any, row: int) -> None:
    params, X = problem(family(), 400, 3, 4, 2.0)
    X[[row, 399]] = 1e200
    with pytest.raises(ZeroDensityError, match=f"row {row} has density 0"):
        Mixture(family()).estep_stats(Rows(X), params)


@each_gaussian
def test_what_an_error_leaves_behind_is_not_added(family: Any) -> None:
    """Scratch belongs to a thread, and its sums are 0 again even after an impossible row."""
    params, X = problem(family(), 400, 3, 4, 30.0)
    bad = X.copy()
    bad[200] = 1e200
    model = Mixture(family())
    before = model.estep_stats(Rows(X), params)
    with pytest.raises(ZeroDensityError):
        model.estep_stats(Rows(bad), params)
    for one, two in zip(leaves(before), leaves(model.estep_stats(Rows(X), params)), strict=True):
        assert_array_equal(one, two)


@each_family
def test_labels_beyond_the_components_are_refused(family: Any) -> None:
    params, X = problem(family(), 20, 2, 3, 2.0)
    with pytest.raises(ValueError, match=r"hold 3, but there are 3 components"):
        Mixture(family()).estep_stats(Rows(X, None, np.full(20, 3)), params)


@each_family
def test_models_that_share_a_thread_do_not_disturb_each_other(family: Any) -> None:
    """Scratch of the same size serves all: no answer may depend on who used it before."""
    params, X = problem(family(), 500, 4, 5, 10.0)
    other, Y = problem(family(), 500, 4, 5, 1.0, seed=5)
    model = Mixture(family())
    alone = model.estep_stats(Rows(X), params)
    model.estep_stats(Rows(Y), other)
    for one, two in zip(leaves(alone), leaves(model.estep_stats(Rows(X), params)), strict=True):
        assert_array_equal(one, two)


class Halved(DiagGaussian):
    """Overrides one step of those that its parent's E-step does at once."""

    def log_density(self, X: Any, params: Any, out: Any) -> None:
        super().log_density(X, params, out)
        out -= np.log(2.0)


class Relabelled(Mixture[Any]):
    """Overrides `estep_stats` alone."""

    def estep_stats(self, rows: Any, params: Any) -> Any:
        return super().estep_stats(rows, params)._replace(loglik=-1.0)


def test_no_shortcut_goes_round_what_a_subclass_overrides() -> None:
    X = np.random.RandomState(0).normal(size=(50, 2))
    family = Halved()
    params = MixtureParams(np.array([0.5, 0.5]), family.params(X[:2], np.ones((2, 2))))
    honest = Mixture(DiagGaussian()).estep_stats(Rows(X), params).loglik
    assert_allclose(Mixture(family).estep_stats(Rows(X), params).loglik, honest - 50 * np.log(2.0), rtol=1e-13)
    assert fit_em(Relabelled(family), Rows(X), params, max_iter=0).loglik == -1.0
