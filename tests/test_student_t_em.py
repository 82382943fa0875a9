"""Fits of Student t mixtures: monotone, to optima, those of other software too, and past outliers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from reference.student_t import KINDS, problem

import lvm
from lvm.families import DiagStudentT, FullGaussian, FullStudentT
from lvm.kernels.degrees_of_freedom import MOST
from lvm.models.mixture import Mixture, MixtureParams

Array = NDArray[np.float64]
BOTH = (FullStudentT, DiagStudentT)


# ----- EM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("structure", BOTH)
def test_no_iteration_lowers_the_objective(structure: Any, kind: dict[str, Any]) -> None:
    for seed, d in ((0, 3), (1, 1), (2, 12)):
        family = structure(**kind)
        model, start, rows = problem(family, d=d, seed=seed)
        done = lvm.fit_em(model, rows, start, tol=0.0, max_iter=300)
        gains = np.diff(done.objective_trace)
        assert gains.min() >= -1e-13 * np.abs(done.objective_trace).max()
        assert gains[0] > 1e-2
        for name, mask in family.held.items():
            assert_array_equal(getattr(done.params.components, name)[mask], getattr(start.components, name)[mask])
        nu = done.params.components.degrees_of_freedom
        if family.degrees_of_freedom == "common":
            assert nu[0] == nu[1] != 20
        elif not family.held:
            assert (nu[0] != nu[1]) == isinstance(family.degrees_of_freedom, str)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_ends_are_optima_of_what_is_free(kind: dict[str, Any]) -> None:
    """No free parameter can be moved to a higher objective: the slopes are those of rounding."""
    family = FullStudentT(**kind)
    model, start, rows = problem(family)
    end = lvm.fit_em(model, rows, start, tol=1e-15, max_iter=20_000)
    best = end.objective_trace[-1]

    def gains(name: str, k: Any) -> Any:
        for factor in (1 + 1e-3, 1 - 1e-3):
            array = getattr(end.params.components, name).copy()
            array[k] = array[k] * factor
            if name == "degrees_of_freedom":
                array = np.minimum(array, MOST)
            moved = family.params(**{n: getattr(end.params.components, n) for n in family.parameters} | {name: array})
            trace = lvm.fit_em(model, rows, end.params._replace(components=moved), max_iter=0).objective_trace
            yield trace[0] - best

    for name in family.parameters:
        free = family._is_free(name, 2)
        common = name == "degrees_of_freedom" and family.degrees_of_freedom == "common"
        for k in [slice(None)] if common else np.flatnonzero(free):
            assert max(gains(name, k)) < 1e-6


def test_a_held_value_is_as_good_as_a_fixed_one() -> None:
    held = FullStudentT(held={"degrees_of_freedom": np.ones(2, np.bool_)})
    ends = []
    for family in (held, FullStudentT(20.0)):
        model, start, rows = problem(family)
        ends.append(lvm.fit_em(model, rows, start, tol=0, max_iter=20))
    assert_array_equal(ends[0].objective_trace, ends[1].objective_trace)
    assert held.n_parameters(ends[0].params.components) == 2 * (3 + 6)


# ----- against other software ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def recorded(reference_folder: Path) -> tuple[Array, dict[str, Any]]:
    folder = reference_folder / "student_t_faithful"
    X = np.loadtxt(folder / "data.csv", delimiter=",", skiprows=1)
    return X, json.loads((folder / "result.json").read_text(encoding="utf-8"))


def from_recorded_start(recorded: tuple[Array, dict[str, Any]], family: Any, nu: float, **options: Any) -> Any:
    X, record = recorded
    components = family.params(record["start_means"], record["start_scale_matrices"], np.full(2, nu))
    start = MixtureParams(np.array(record["start_weights"]), components)
    return lvm.fit_em(Mixture(family), lvm.Rows(X), start, **{"tol": 1e-15, "max_iter": 20_000, **options})


def test_fixed_degrees_of_freedom_follow_the_recorded_path(recorded: Any) -> None:
    expected = recorded[1]["own_em_nu_fixed_4"]
    done = from_recorded_start(recorded, FullStudentT(4), 4.0)
    path = expected["loglik_at_start_and_after_1_2_5_10"]
    assert_allclose(done.objective_trace[[0, 1, 2, 5, 10]], path, rtol=1e-12)
    assert_allclose(done.loglik, expected["loglik"], rtol=1e-12)
    # The optimum is flat: a gain of 1e-15 per row leaves the parameters some 1e-6 off.
    assert_allclose(done.params.weights, expected["weights"], rtol=1e-5)
    assert_allclose(done.params.components.means, expected["means"], rtol=1e-5)
    assert_allclose(done.params.components.scatters, expected["scale_matrices"], rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "name", "iterations"),
    [("separate", "own_ecme_free_nu", 400), ("common", "own_ecme_common_nu", 700)],
)
def test_estimated_degrees_of_freedom_reach_the_recorded_optimum(
    recorded: Any, given: str, name: str, iterations: int
) -> None:
    """Slow ends have their limit: the classical update of the degrees of freedom takes thousands of iterations."""
    expected, family = recorded[1][name], FullStudentT(given)
    done = from_recorded_start(recorded, family, 20.0)
    assert_allclose(done.loglik, expected["loglik"], rtol=1e-10)
    assert done.loglik >= expected["loglik"] - 1e-8
    assert_allclose(done.params.components.degrees_of_freedom, expected["nu"], rtol=1e-3)
    assert_allclose(done.params.components.means, expected["means"], rtol=1e-4)
    assert_allclose(done.params.components.scatters, expected["scale_matrices"], rtol=1e-3)
    assert Mixture(family).n_parameters(done.params) == expected["n_parameters"]
    assert len(from_recorded_start(recorded, family, 20.0, tol=1e-14).objective_trace) < iterations


def test_densities_at_the_optima_of_peers(recorded: Any) -> None:
    X, record = recorded
    for family, peer, loglik in (
        (FullStudentT(), record["teigen"]["UUUU"], "loglik"),
        (FullStudentT("common"), record["mixsmsn_common_nu"], "loglik_from_aic"),
    ):
        nu = np.broadcast_to(peer["nu"], 2)
        params = MixtureParams(np.array(peer["weights"]), family.params(peer["means"], peer["scale_matrices"], nu))
        assert_allclose(Mixture(family).loglik(lvm.Rows(X), params).sum(), peer[loglik], rtol=1e-11)
        assert Mixture(family).n_parameters(params) == 13 - (family.degrees_of_freedom == "common")


def test_outliers_do_not_move_the_means() -> None:
    """One row in 20 is gross error: Gaussian components go after them, t components stay at the clusters."""
    rng = np.random.RandomState(0)
    centres = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    clean = [centre + rng.standard_normal((200, 2)) for centre in centres]
    X = np.concatenate([*clean, rng.uniform(-20, 20, (31, 2))])
    errors = []
    for family in (FullGaussian(), FullStudentT()):
        start = family.start(X, np.ones(len(X)), 3)._replace(means=centres + np.array([1.0, -1.0]))
        end = lvm.fit_em(Mixture(family), lvm.Rows(X), MixtureParams(np.full(3, 1 / 3), start), max_iter=2000)
        errors.append(np.linalg.norm(end.params.components.means[:, None] - centres, axis=2).min(axis=0).max())
    assert errors[0] > 2  # found: 2.57
    assert errors[1] < 0.25  # found: 0.15; the standard error of a mean is 0.07


@pytest.mark.parametrize("kind", ["separate", "common", 3.0])
@pytest.mark.parametrize("structure", BOTH)
def test_acceleration_reaches_the_same_end(structure: Any, kind: Any) -> None:
    model, start, rows = problem(structure(kind))
    plain = lvm.fit_em(model, rows, start, tol=1e-13, max_iter=20_000)
    fast = lvm.fit_anderson(model, rows, start, tol=1e-13)
    assert_allclose(fast.loglik, plain.loglik, rtol=1e-11)
    assert len(fast.objective_trace) < len(plain.objective_trace)
