"""Poisson components: densities, exposures, missing cells, the M-step, and published optima."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats
from scipy.special import xlogy

import lvm
from lvm.families import Poisson
from lvm.families.counts import ExposedRows
from lvm.initialize import from_assignment
from lvm.models.mixture import MixtureParams
from lvm.protocol import IncompleteRows
from lvm.testing import model_checks

Array = NDArray[np.float64]
RATES = np.array([[1.0, 6.0, 0.5], [4.0, 2.0, 3.0]])
# Pearson's and Hasselblad's deaths of women over 80, from The Times of 1910-1912: frequencies of 0, 1, ... a day.
DEATHS = np.array([162, 267, 271, 185, 111, 61, 27, 8, 3, 1], np.float64)


def counts(n: int = 150, seed: int = 0, missing: float = 0.0) -> Array:
    rng = np.random.RandomState(seed)
    X = rng.poisson(RATES[rng.randint(0, 2, n)]).astype(np.float64)
    X[rng.random_sample(X.shape) < missing] = np.nan
    return X


def exposures(n: int = 150, seed: int = 1) -> Array:
    return np.random.RandomState(seed).uniform(0.2, 3.0, n)


def density(family: Poisson, rates: Any, X: Any) -> Array:
    params = family.params(np.array(rates, np.float64))
    out = np.zeros((len(params.rates), len(X.X if isinstance(X, ExposedRows) else X)))
    family.log_density(family.canonical(X), params, out)
    return out


def reference(rates: Any, X: Array, exposure: Any = 1.0) -> Array:
    """Return log densities (K, n) by scipy, without the missing cells."""
    exposure = np.broadcast_to(exposure, len(X))[:, None]
    return np.array([np.nansum(stats.poisson.logpmf(X, exposure * rate), axis=1) for rate in np.asarray(rates)])


# ----- density ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "X"),
    [
        (RATES, counts()),
        ([[2.5]], np.array([[3.0]])),
        ([[0.0, 1.0]], np.array([[0.0, 2.0]])),
        ([[1e-300, 1e6, 3.0]], np.array([[0.0, 1e6, 5.0], [1.0, 999_000.0, 2000.0]])),
        (np.random.RandomState(0).gamma(2.0, size=(9, 70)), np.random.RandomState(1).poisson(2.0, (300, 70))),
    ],
    ids=["plain", "n=K=d=1", "rate 0", "extreme", "many features"],
)
def test_density_is_scipys(rates: Any, X: Any) -> None:
    rounding = 1e-15 * X.shape[1] * (1 + xlogy(X.max(), X.max()))  # of terms such as x log rate, which cancel
    assert_allclose(density(Poisson(), rates, X), reference(rates, X), rtol=1e-13, atol=rounding)


def test_impossible_counts() -> None:
    """A rate of 0 allows only 0, with exposures and holes too."""
    X = np.array([[0.0, 3.0], [1.0, 3.0], [np.nan, 3.0]])
    for data in (X, ExposedRows(X, np.full(3, 2.0))):
        rates = np.array([[0.0, 1.5]]) / (1 if data is X else 2)
        of_column = stats.poisson.logpmf(3, 1.5)
        assert_allclose(density(Poisson(), rates, data)[0], [of_column, -np.inf, of_column], rtol=1e-14)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("d", [1, 3])
def test_density_with_exposures_and_holes(d: int, missing: float) -> None:
    X, e = counts(missing=missing)[:, :d], exposures()
    assert_allclose(density(Poisson(), RATES[:, :d], ExposedRows(X, e)), reference(RATES[:, :d], X, e), rtol=1e-11)
    assert_allclose(density(Poisson(), RATES[:, :d], X), reference(RATES[:, :d], X), rtol=1e-11)


def test_a_row_without_observations_has_density_one() -> None:
    for data in (np.full((1, 3), np.nan), ExposedRows(np.full((1, 3), np.nan), np.array([7.0]))):
        assert_array_equal(density(Poisson(), RATES, data), np.zeros((2, 1)))


# ----- rows ---------------------------------------------------------------------------------------------------------


def test_canonical_kinds() -> None:
    family = Poisson()
    assert family.canonical(counts().astype(int)).dtype == np.float64
    assert isinstance(family.canonical(counts(missing=0.1)), IncompleteRows)
    assert isinstance(family.canonical(ExposedRows(counts(), None)), np.ndarray)
    exposed = family.canonical(ExposedRows(counts(missing=0.1), list(exposures())))
    assert isinstance(exposed, ExposedRows)
    assert isinstance(exposed.X, IncompleteRows)
    again = family.canonical(exposed)
    assert again.X.X is exposed.X.X
    assert again.exposure is exposed.exposure
    assert exposed[10:20].X.X.shape == (10, 3)
    assert_array_equal(exposed.take(np.array([3, 1])).exposure, exposures()[[3, 1]])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-1.0, r"X must be counts >= 0 \(Negative values in data\); got -1.0 at row 140, column 2"),
        (0.5, r"X must be whole counts; got 0.5 at row 140, column 2\."),
        (np.inf, r"X must be whole counts; got inf at row 140, column 2\."),
    ],
)
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_other_values_are_refused(value: float, words: str, missing: float) -> None:
    X = counts(missing=missing)
    X[140, 2] = value
    for data in (X, ExposedRows(X, exposures())):
        with pytest.raises(ValueError, match=words):
            Poisson().canonical(data)


def test_a_late_fraction_is_named() -> None:
    X = np.zeros((20_000, 2))
    X[19_000, 1] = 1.25
    with pytest.raises(ValueError, match=r"got 1\.25 at row 19000, column 1"):
        Poisson().canonical(X)


def test_wrong_exposures_are_refused() -> None:
    for value in (0.0, -1.0, np.nan, np.inf):
        e = exposures()
        e[7] = value
        with pytest.raises(ValueError, match=f"exposure must be finite and > 0; got {value} at row 7"):
            Poisson().canonical(ExposedRows(counts(), e))
    with pytest.raises(ValueError, match=r"exposure has shape \(3,\), expected \(150,\)"):
        Poisson().canonical(ExposedRows(counts(), exposures(3)))


def test_wrong_parameters_are_refused() -> None:
    rates = RATES.copy()
    for value in (-1.0, np.nan, np.inf):
        rates[0, 2] = value
        with pytest.raises(ValueError, match=f"rates must be finite and >= 0, got {value:g} in component 0, feature 2"):
            Poisson().params(rates)
    with pytest.raises(ValueError, match=r"rates must have the shape \(n_components, n_features\), got \(3,\)"):
        Poisson().params(RATES[0])
    with pytest.raises(ValueError, match=r"rates_prior\[0\] must be a finite number >= 1, got 0.5"):
        Poisson((0.5, 1.0))
    with pytest.raises(ValueError, match=r"rates_prior\[1\] must be a finite number >= 0, got -1"):
        Poisson((1.0, -1))
    for pair in (2.0, (1.0,), (1.0, 2.0, 3.0)):
        with pytest.raises(ValueError, match="rates_prior must be a pair, shape and rate, got"):
            Poisson(pair)  # type: ignore[arg-type]  # on purpose
    assert repr(Poisson((2, 0.5))) == "Poisson(rates_prior=(2, 0.5))"


# ----- M-step -------------------------------------------------------------------------------------------------------


def expected(X: Array, e: Any, resp: Array, rates: Array, prior: tuple[float, float]) -> float:
    """Return the expected log-likelihood plus log prior."""
    value = float(np.sum(resp * reference(rates, X, e)))
    return value + float(np.sum(stats.gamma.logpdf(rates, prior[0], scale=1 / prior[1])) if prior[1] else 0.0)


@pytest.mark.parametrize("prior", [None, (2.5, 1.5)])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("exposed", [False, True])
def test_mstep_maximises(exposed: bool, missing: float, prior: Any) -> None:
    """It is the ratio of sums, and no perturbation does better; the log prior changes as the Gamma density does."""
    X, e = counts(missing=missing), exposures() if exposed else np.ones(150)
    family = Poisson(prior)
    rows = family.canonical(ExposedRows(X, e) if exposed else X)
    resp = np.random.RandomState(2).dirichlet([1.0, 1.0], 150).T.copy() * 1.7
    start = family.params(RATES)
    statistics = family.zero_stats(start)
    family.accumulate(rows, resp, start, statistics)
    found = family.mstep(statistics, start)
    a, b = family.rates_prior
    weight = resp @ (e[:, None] * ~np.isnan(X))
    assert_allclose(found.rates, (resp @ np.nan_to_num(X) + a - 1) / (weight + b), rtol=1e-13)
    best = expected(X, e, resp, found.rates, (a, b))
    rng = np.random.RandomState(3)
    for scale in (1e-3, 0.1):
        other = found.rates * np.exp(scale * rng.randn(2, 3))
        assert expected(X, e, resp, other, (a, b)) < best
        if prior:
            change = family.log_prior(family.params(other)) - family.log_prior(found)
            densities = [stats.gamma.logpdf(rates, a, scale=1 / b).sum() for rates in (other, found.rates)]
            assert_allclose(change, densities[0] - densities[1], rtol=1e-9)


def test_held_and_dead_components_stay() -> None:
    family = Poisson((2.0, 1.0), held={"rates": np.array([True, False, False])})
    start = family.params(np.vstack([RATES, [[9.0, 9.0, 9.0]]]))
    statistics = family.zero_stats(start)
    family.accumulate(family.canonical(counts()), np.outer([0.5, 0.5, 0.0], np.ones(150)), start, statistics)
    found = family.mstep(statistics, start)
    assert_array_equal(found.rates[[0, 2]], start.rates[[0, 2]])
    assert_allclose(found.rates[1], (0.5 * counts().sum(axis=0) + 1) / 76, rtol=1e-13)
    assert family.n_parameters(start) == 6
    free = family.params(start.rates[1:])
    assert family.log_prior(start) == Poisson((2.0, 1.0)).log_prior(free)
    moved = family.from_vector(1.1 * family.to_vector(start, start), start)
    assert_array_equal(moved.rates[0], start.rates[0])
    assert_allclose(moved.rates[1:], 1.1 * start.rates[1:])


def test_a_column_of_zeros_and_one_of_holes() -> None:
    """The rate of the one is 0, that of the other stays as it is."""
    X = counts()
    X[:, 0], X[:, 2] = 0.0, np.nan
    model = lvm.Mixture(Poisson())
    start = MixtureParams(np.array([0.5, 0.5]), model.family.params(RATES))
    found = lvm.fit_em(model, X, start, max_iter=50).params.components
    assert_array_equal(found.rates[:, 0], 0.0)
    assert_array_equal(found.rates[:, 2], RATES[:, 2])
    neutral = model.family.start(model.family.canonical(X), np.ones(150), 2)
    assert_allclose(neutral.rates, [[0.0, X[:, 1].mean(), 1.0]] * 2, rtol=1e-13)


def test_start_weighs_rows_and_exposures() -> None:
    X, e, weight = counts(40_000, missing=0.2), exposures(40_000), exposures(40_000, seed=5)
    family = Poisson()
    start = family.start(family.canonical(ExposedRows(X, e)), weight, 3)
    mean = weight @ np.nan_to_num(X) / (weight @ (e[:, None] * ~np.isnan(X)))
    assert_allclose(start.rates, np.repeat(mean[None], 3, axis=0), rtol=1e-12)


def test_coordinates_have_no_units_and_come_back() -> None:
    family = Poisson()
    params = family.params([[0.0, 5.0], [0.0, 1.0]])
    vector = family.to_vector(params, params)
    assert_allclose(vector, [0.0, 5 / 3, 0.0, 1 / 3])
    assert_allclose(family.from_vector(vector, params).rates, params.rates)
    assert_allclose(family.from_vector(vector - 0.5, params).rates[1], [1e-10, 3e-10], rtol=1e-6)


def test_fill_writes_posterior_means() -> None:
    X, e = counts(missing=0.3), exposures()
    model = lvm.Mixture(Poisson())
    params = MixtureParams(np.array([0.3, 0.7]), model.family.params(RATES))
    for rows, factor in ((X, 1.0), (ExposedRows(X, e), e[:, None])):
        canonical = model.canonical(lvm.Rows(rows))
        out = X.copy()
        model.impute(canonical, params, out)
        joint = np.log([[0.3], [0.7]]) + reference(RATES, X, np.ravel(factor) if rows is not X else 1.0)
        resp = np.exp(joint - np.logaddexp(*joint))
        assert_allclose(out, np.where(np.isnan(X), factor * (resp.T @ RATES), X), rtol=1e-9)


# ----- fits ---------------------------------------------------------------------------------------------------------

CASES = {
    "plain": (Poisson(), counts()),
    "prior": (Poisson((2.0, 0.5)), counts()),
    "missing": (Poisson(), counts(missing=0.2)),
    "exposure": (Poisson(), ExposedRows(counts(), exposures())),
    "exposure and missing with prior": (Poisson((1.5, 1.0)), ExposedRows(counts(missing=0.2), exposures())),
    "held": (Poisson(held={"rates": np.array([True, False])}), counts()),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, (family, X) in CASES.items()
        for check in model_checks(
            lvm.Mixture(family), MixtureParams(np.array([0.4, 0.6]), family.params(RATES * 1.2)), lvm.Rows(X)
        )
    ],
)
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("name", CASES)
def test_objective_never_falls(name: str) -> None:
    family, X = CASES[name]
    start = MixtureParams(np.array([0.4, 0.6]), family.params(RATES * [[3.0], [0.1]]))
    trace = lvm.fit_em(lvm.Mixture(family), lvm.Rows(X), start, tol=0.0, max_iter=60).objective_trace
    assert np.diff(trace).min() > -1e-10
    assert trace[-1] > trace[0] + 1


@pytest.mark.parametrize("place", range(3))
def test_candy(place: int, reference_folder: Path) -> None:
    """The path and the end of flexmix: its M-step from the start labels is our start, its iteration 1 our first."""
    folder = reference_folder / "poisson_candy"
    X = np.loadtxt(folder / "data.csv", skiprows=1)[:, None]
    fit = json.loads((folder / "result.json").read_text())["fits"][place]
    model, K = lvm.Mixture(Poisson()), fit["G"]
    rows = model.canonical(lvm.Rows(X))
    start = from_assignment(model, rows, np.array(fit["start_labels_0based"]), K)
    found = lvm.fit_em(model, rows, start, tol=1e-15, max_iter=2000)
    own = fit["own_loglik_after_iterations_1_2_5_10"]
    assert_allclose(found.objective_trace[[0, 1, 4, 9]], own, rtol=1e-12)
    assert_allclose(found.loglik, fit["loglik"], rtol=1e-12)
    assert_allclose(found.params.components.rates, fit["rates"], atol=1e-5)  # flat: gains of 1e-15 stop it
    assert_allclose(found.params.weights, fit["weights"], atol=1e-5)
    assert model.n_parameters(start) == fit["n_parameters"]


def test_deaths_and_their_acceleration() -> None:
    """Hasselblad's optimum, and in a fifth of the iterations (17 here, 1,800 by EM) the same."""
    X = np.arange(10.0)[:, None]
    model = lvm.Mixture(Poisson())
    start = MixtureParams(np.array([0.3, 0.7]), model.family.params([[1.0], [2.5]]))
    plain = lvm.fit_em(model, lvm.Rows(X, DEATHS), start, tol=1e-13, max_iter=10_000)
    assert_allclose(plain.loglik, -1989.94586, atol=1e-5)
    assert_allclose(plain.params.weights, [0.3599, 0.6401], atol=1e-4)
    assert_allclose(plain.params.components.rates.ravel(), [1.2561, 2.6634], atol=1e-4)
    fast = lvm.fit_anderson(model, lvm.Rows(X, DEATHS), start, tol=1e-11)
    assert fast.loglik > plain.loglik - 1e-7
    assert 5 * fast.n_iter < plain.n_iter
    assert fast.n_iter <= 72  # of SQUAREM
