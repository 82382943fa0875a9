"""Missing cells of Bernoulli, diagonal and spherical Gaussian components: their factors are left out.

Sums of a few hundred terms in another order agree to 1e-12 of their size, unless a tolerance says otherwise.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import each_check
from missing_cells import FAMILIES, GAUSSIANS, NAN, data, densities, factors, mixture, parameters, with_holes
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.integrate import quad

import lvm
from lvm.families import Bernoulli
from lvm.kernels.cells import CodedRows
from lvm.models.mixture import MixtureParams
from lvm.protocol import IncompleteRows

all_families = pytest.mark.parametrize("name", FAMILIES)
gaussians = pytest.mark.parametrize("name", GAUSSIANS)


# ----- rows ---------------------------------------------------------------------------------------------------


@all_families
def test_complete_rows_stay_arrays(name: str) -> None:
    X = data(name)
    found = FAMILIES[name]().canonical(X)
    assert isinstance(found, np.ndarray)
    assert found.dtype == (np.uint8 if name == "bernoulli" else np.float64)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@gaussians
def test_holes_are_kept(name: str, dtype: Any) -> None:
    X = with_holes(data(name), 0.3)
    family = GAUSSIANS[name](dtype=dtype)
    found = family.canonical(X)
    assert isinstance(found, IncompleteRows)
    assert found.X.dtype == np.float64
    assert not found.X.flags.writeable
    assert_array_equal(found.X, X)
    assert family.canonical(found) is found


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_holes_are_codes(dtype: Any) -> None:
    found = Bernoulli().canonical(np.array([[0.0, NAN], [1.0, 0.0]], dtype))
    assert isinstance(found, CodedRows)
    assert_array_equal(found.codes, [[0, -1], [1, 0]])
    assert found.codes.dtype == np.int32
    assert not found.codes.flags.writeable
    assert Bernoulli().canonical(found) is found


@gaussians
def test_sums_that_overflow_are_no_holes(name: str) -> None:
    X = np.repeat([[1e308], [-1e308]], 300, axis=0)  # inf - inf in sums that run in pairs
    assert isinstance(GAUSSIANS[name]().canonical(np.column_stack([X, X[::-1]])), np.ndarray)


@gaussians
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="Input X contains infinity at row 1, column 0"):
        GAUSSIANS[name]().canonical([[0.0, NAN], [value, 1.0]])


@pytest.mark.parametrize("value", [0.5, 2.0, np.inf])
def test_values_beside_holes_are_checked(value: float) -> None:
    with pytest.raises(ValueError, match=f"X must be 0 or 1 for Bernoulli components; got {value} at row 1, column 1"):
        Bernoulli().canonical(np.array([[0.0, NAN], [1.0, value]]))


def test_sparse_rows_have_no_holes() -> None:
    with pytest.raises(ValueError, match="Input X contains NaN at row 1, column 0"):
        Bernoulli().canonical(sparse.csr_matrix([[0.0, 1.0], [NAN, 1.0]]))


# ----- densities ----------------------------------------------------------------------------------------------


@all_families
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("n", [1, 7, 256, 300])
@pytest.mark.parametrize("K", [1, 3, 9])
def test_density_is_the_product_over_observed_cells(name: str, K: int, n: int, d: int) -> None:
    X, params = with_holes(data(name, n, d), 0.4), parameters(name, K, d)
    if n == 1:
        X[0, 0] = NAN
    out = densities(FAMILIES[name](), X, params)
    for k in range(K):
        expected = np.nansum(factors(name, params, k, X), axis=1)
        assert_allclose(out[k], expected, rtol=1e-13, atol=1e-13 * d)
        assert_array_equal(out[k, np.isnan(X).all(axis=1)], 0.0)


@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (0.0, 1e-150), (0.0, 1e150)])
@gaussians
def test_density_far_from_one(name: str, offset: float, scale: float) -> None:
    X = with_holes(data(name), 0.4) * scale + offset
    params = parameters(name, 2, 3)
    params = GAUSSIANS[name]().params(params.means * scale + offset, params.covariances * scale**2)
    for k, row in enumerate(densities(GAUSSIANS[name](), X, params)):
        assert_allclose(row, np.nansum(factors(name, params, k, X), axis=1), rtol=1e-12)


def test_bernoulli_density_sums_over_completions() -> None:
    params = parameters("bernoulli", 3, 4)
    X = np.array([[1.0, NAN, 0.0, NAN]])
    completed = np.array([[1, a, 0, b] for a, b in product((0, 1), repeat=2)])
    family = Bernoulli()
    marginal = np.exp(densities(family, X, params)[:, 0])
    assert_allclose(marginal, np.exp(densities(family, completed, params)).sum(axis=1), rtol=1e-14)


@gaussians
def test_gaussian_density_integrates_over_a_hole(name: str) -> None:
    family, params = GAUSSIANS[name](), parameters(name, 2, 3)
    marginal = densities(family, np.array([[5.0, NAN, 6.5]]), params)[:, 0]
    for k in range(2):
        integral = quad(lambda x, k=k: np.exp(densities(family, np.array([[5.0, x, 6.5]]), params)[k, 0]), -15, 25)[0]
        assert_allclose(np.exp(marginal[k]), integral, rtol=1e-8)  # what quad promises


def test_certain_probabilities() -> None:
    """Probabilities of 0 and 1 forbid a value, not a missing cell."""
    params = Bernoulli().params(np.array([[0.0, 1.0, 0.5]]))
    X = np.array([[NAN, NAN, 1.0], [0.0, 1.0, NAN], [1.0, NAN, NAN], [NAN, 0.0, 0.0]])
    assert_allclose(densities(Bernoulli(), X, params), [[np.log(0.5), 0.0, -np.inf, -np.inf]], rtol=1e-15)


# ----- filling ------------------------------------------------------------------------------------------------


@all_families
def test_fill(name: str) -> None:
    model, params = mixture(name)
    if name == "bernoulli":
        params = params._replace(components=Bernoulli().params(np.array([[0.9, 0.8, 0.1], [0.2, 0.3, 0.7]])))
    X = with_holes(data(name), 0.4)
    rows = model.canonical(lvm.Rows(X))
    out = X.copy()
    model.impute(rows, params, out)
    r = model.responsibilities(rows, params)
    mean = r @ (params.components.probabilities if name == "bernoulli" else params.components.means)
    expected = (mean > 0.5).astype(float) if name == "bernoulli" else mean
    assert_array_equal(out[~np.isnan(X)], X[~np.isnan(X)])
    assert_allclose(out[np.isnan(X)], expected[np.isnan(X)], rtol=1e-12)
    if name == "bernoulli":
        assert 0 < out[np.isnan(X)].mean() < 1


@all_families
def test_fill_leaves_complete_rows(name: str) -> None:
    model, params = mixture(name)
    out = data(name)
    model.impute(model.canonical(lvm.Rows(out)), params, out)
    assert_array_equal(out, data(name))


# ----- the contract, and published results --------------------------------------------------------------------


def case(name: str, weighted: bool, **arguments: Any) -> tuple[Any, Any, Any]:
    model, params = mixture(name, **arguments)
    X = with_holes(data(name, 220), 0.25)
    rng = np.random.RandomState(1)
    weight = rng.uniform(0.2, 2.0, len(X)) if weighted else None
    labels = np.where(np.arange(len(X)) % 7 == 0, rng.randint(0, 2, len(X)), -1) if weighted else None
    return model, params, lvm.Rows(X, weight, labels)


MODELS = {
    "diag": case("diag", weighted=False),
    "diag regularised": case("diag", weighted=True, reg_covar=0.3),
    "spherical": case("spherical", weighted=True),
    "spherical regularised": case("spherical", weighted=False, reg_covar=0.3),
    "bernoulli": case("bernoulli", weighted=True),
    "bernoulli with prior": case("bernoulli", weighted=False, alpha=1.5),
}


@each_check(MODELS)
def test_conformance(check: Any) -> None:
    check()


@pytest.mark.parametrize("which", range(4))
def test_published_latent_classes(which: int, reference_folder: Path) -> None:
    """What poLCA finds for psychTools::ability, and on the way there."""
    folder = reference_folder / "bernoulli_missing_ability"
    record = json.loads((folder / "result.json").read_text())
    X = np.genfromtxt(folder / "data.csv", delimiter=",", skip_header=1) - 1  # coded 1, 2
    assert X.shape == (record["n"], 16)
    assert np.isnan(X).any()
    found = record["fits_polca"][which]
    probabilities = np.array(found["start_probs"])[:, :, 1].T
    model = lvm.Mixture(Bernoulli())
    start = MixtureParams(np.array(found["start_weights"]), Bernoulli().params(probabilities))
    end = lvm.fit_em(model, lvm.Rows(X), start, tol=1e-14, max_iter=5000)
    steps = found["loglik_after_iterations_1_2_5_10"]
    assert_allclose(end.objective_trace[[1, 2, 5, 10]], steps, rtol=1e-9)
    assert_allclose(end.loglik, found["loglik"], rtol=1e-8)
    assert_allclose(end.params.weights, found["weights"], atol=1e-4)  # poLCA stops at a gain of 1e-11
    assert model.n_parameters(end.params) == found["n_parameters"]
