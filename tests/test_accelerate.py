"""Anderson acceleration: the same maxima in far fewer iterations, and never a lower objective."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import lvm
from lvm import fit_anderson, fit_em
from lvm.families import Bernoulli, DiagGaussian, FullGaussian, Multinomial, SphericalGaussian, TiedGaussian
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, leaves
from lvm.result import Status

Array = NDArray[np.float64]

NAMES = {FullGaussian: "full", TiedGaussian: "tied", DiagGaussian: "diag", SphericalGaussian: "spherical"}
GAUSSIANS = list(NAMES)


def gaussian_problem(
    family: Any, K: int = 2, n: int = 2000, separation: float = 1.5
) -> tuple[Any, Rows, MixtureParams]:
    """Return components so many standard deviations apart, and a start that is not far off."""
    rng = np.random.default_rng(0)
    assigned = rng.integers(K, size=n)
    X = rng.standard_normal((n, 2)) + separation * np.column_stack([assigned, np.zeros(n)])
    model = Mixture(family)
    centre = family.start(X, np.ones(n), K)
    means = np.column_stack([np.linspace(-0.5, separation + 0.5, K), np.zeros(K)])
    components = family.params(means, centre.covariances)
    return model, model.canonical(Rows(X)), MixtureParams(np.full(K, 1 / K), components)


def carcinoma(reference_folder: Path, K: int) -> tuple[Any, Rows, MixtureParams]:
    """Return the ratings of 118 slides by 7 pathologists, and the recorded start of poLCA."""
    folder = reference_folder / "latent_class_carcinoma"
    recorded = json.loads((folder / "result.json").read_text())
    fit = next(fit for fit in recorded["fits_polca"] if fit["G"] == K)
    X = np.loadtxt(folder / "data.csv", delimiter=",", skiprows=1) - 1
    model = Mixture(Bernoulli())
    ones = np.array([[p[1] for p in item] for item in fit["start_probs"]]).T
    return model, model.canonical(Rows(X)), MixtureParams(np.array(fit["start_weights"]), Bernoulli().params(ones))


def iterations_to(trace: Array, level: float) -> int:
    """Return the number of E-steps until the trace reaches the level."""
    reached = np.flatnonzero(trace >= level)
    assert len(reached), f"the level {level} was not reached: {trace[-1]}"
    return int(reached[0])


def saving(problem: tuple[Any, Rows, MixtureParams], close: float = 1e-6) -> float:
    """Return the ratio of the E-steps of EM to those of the accelerated one, to the same log-likelihood."""
    plain = fit_em(*problem, tol=0, max_iter=6000)
    fast = fit_anderson(*problem, tol=0, max_iter=1500)
    level = plain.objective_trace[-1] - close
    return iterations_to(plain.objective_trace, level) / iterations_to(fast.objective_trace, level)


@pytest.mark.parametrize("family", GAUSSIANS)
def test_overlapping_components_take_a_fifth_of_the_iterations(family: Any) -> None:
    assert saving(gaussian_problem(family())) >= 5


def test_latent_classes_take_a_fifth_of_the_iterations(reference_folder: Path) -> None:
    """Several probabilities tend to 0 and 1."""
    assert saving(carcinoma(reference_folder, 4)) >= 5


@pytest.mark.parametrize("family", [*GAUSSIANS, lambda: FullGaussian(0.05)])
def test_never_falls_and_ends_where_em_ends(family: Any) -> None:
    problem = gaussian_problem(family(), separation=3.0)
    plain, fast = fit_em(*problem, tol=1e-13, max_iter=5000), fit_anderson(*problem, tol=1e-13, max_iter=5000)
    last_digits = 8 * np.finfo(np.float64).eps * np.abs(fast.objective_trace[1:])  # of a sum in another order
    assert np.all(np.diff(fast.objective_trace) >= -last_digits)
    assert fast.converged
    assert len(fast.objective_trace) == fast.n_iter + 1
    assert_allclose(fast.objective_trace[-1], plain.objective_trace[-1], rtol=1e-9)
    assert_allclose(fast.params.components.means, plain.params.components.means, atol=1e-3)
    assert_allclose(fast.loglik, problem[0].loglik(problem[1], fast.params).sum(), rtol=1e-12)


@pytest.mark.parametrize("family", [*GAUSSIANS, Bernoulli, Multinomial])
def test_vectors_return(family: Any) -> None:
    """Coordinates and parameters are one to one."""
    rng = np.random.default_rng(0)
    if family in (Bernoulli, Multinomial):
        components = origin = family().params(rng.dirichlet(np.ones(4), 3))
    else:
        origin = family().start(rng.standard_normal((50, 4)), np.ones(50), 3)
        fitted = lvm.GaussianMixture(3, covariance_type=NAMES[family], random_state=0).fit(rng.standard_normal((50, 4)))
        components = fitted._get_components()
    model = Mixture(family())
    params, like = MixtureParams(rng.dirichlet(np.ones(3)), components), MixtureParams(np.full(3, 1 / 3), origin)
    back = model.from_vector(model.to_vector(params, like), like)
    for one, two in zip(leaves(back), leaves(params), strict=True):
        assert_allclose(one, two, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("family", GAUSSIANS)
def test_the_path_has_no_units(family: Any) -> None:
    """The same steps for the data in other units, far from the origin."""
    model, rows, start = gaussian_problem(family())
    covariances = 64.0 * start.components.covariances
    far = start._replace(components=family().params(8 * start.components.means + 1024, covariances))
    here = fit_anderson(model, rows, start, max_iter=30, tol=0)
    there = fit_anderson(model, Rows(8 * rows.X + 1024), far, max_iter=30, tol=0)
    shift = len(rows.X) * 2 * np.log(8)
    assert_allclose(there.objective_trace + shift, here.objective_trace, rtol=1e-9)


def test_probabilities_out_of_bounds_are_put_inside() -> None:
    vector = np.array([-0.1, 0.0, 0.5, 1.0, 1.2, 0.3])
    origin = Bernoulli().params(np.full((2, 3), 0.5))
    assert_allclose(Bernoulli().from_vector(vector, origin).probabilities.ravel(), [1e-10, 0, 0.5, 1, 1 - 1e-10, 0.3])
    p = Multinomial().from_vector(vector, Multinomial().params(np.full((2, 3), 1 / 3))).probabilities
    assert_allclose(p.sum(axis=1), 1)
    assert 0 < p[0, 0] < 1e-9
    assert p[0, 1] == 0


def test_probabilities_of_zero_stay() -> None:
    """Coordinates at infinity are left alone, and the fit goes on."""
    rng = np.random.default_rng(1)
    X = (rng.random((300, 5)) < np.where(rng.random((300, 1)) < 0.5, 0.2, 0.7)).astype(float)
    X[:, 4] = 0
    model = Mixture(Bernoulli())
    start = MixtureParams(np.array([0.4, 0.6]), Bernoulli().params(rng.uniform(0.2, 0.8, (2, 5))))
    fast = fit_anderson(model, Rows(X), start, tol=1e-12)
    assert fast.converged
    assert np.all(fast.params.components.probabilities[:, 4] == 0)
    assert_allclose(fast.loglik, fit_em(model, Rows(X), start, tol=1e-13, max_iter=9000).loglik, rtol=1e-8)


def test_stops_as_asked() -> None:
    problem = gaussian_problem(FullGaussian())
    assert fit_anderson(*problem, max_iter=0).n_iter == 0
    ten = fit_anderson(*problem, tol=0, max_iter=10)
    assert (ten.n_iter, ten.status) == (10, Status.MAX_ITER)
    seen: list[int] = []
    stopped = fit_anderson(*problem, callback=lambda iteration: bool(seen.append(iteration.n_iter)) or len(seen) == 4)
    assert stopped.status is Status.STOPPED
    assert len(seen) == 4


def test_threads_change_nothing() -> None:
    problem = gaussian_problem(FullGaussian(), n=40_000)
    one, two = (fit_anderson(*problem, max_iter=20, tol=0, n_jobs=jobs) for jobs in (1, 2))
    assert np.array_equal(one.objective_trace, two.objective_trace)


def test_a_model_without_coordinates_is_refused() -> None:
    class Plain:
        def estep_stats(self) -> None: ...
        def mstep(self) -> None: ...
        def loglik(self) -> None: ...

    with pytest.raises(TypeError, match="missing to_vector, from_vector"):
        fit_anderson(Plain(), Rows(np.ones((3, 1))), None)


@pytest.mark.parametrize("reg_covar", [1e-6, 0.1])
def test_estimators(reg_covar: float) -> None:
    X = np.asarray(gaussian_problem(FullGaussian())[1].X)
    options: Any = {"random_state": 0, "n_init": 3, "tol": 1e-11, "max_iter": 20_000, "reg_covar": reg_covar}
    plain = lvm.GaussianMixture(2, **options).fit(X)
    fast = lvm.GaussianMixture(2, acceleration="anderson", **options).fit(X)
    assert fast.converged_
    assert fast.n_iter_ * 5 < plain.n_iter_
    assert_allclose(fast.loglik_, plain.loglik_, rtol=1e-8)
    with pytest.raises(ValueError, match="acceleration"):
        lvm.GaussianMixture(2, acceleration="fast").fit(X)
