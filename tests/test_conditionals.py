"""Marginals, conditionals and Gaussian mixture regression against densities, integrals and draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

import lvm
from lvm.estimators import conditionals
from lvm.marginals import joint_densities, marginal_covariances, marginal_densities
from lvm.protocol import ZeroDensityError

Array = NDArray[np.float64]

NAMES = ["length", "width", "depth", "age"]
KINDS = ["full", "tied", "diag", "spherical", "EII", "VEI", "EVI", "VVE"]
# What marginals and conditionals of each kind are; a part of a matrix structure is no such structure.
KEPT = {"full": "full", "tied": "tied", "diag": "diag", "spherical": "spherical"}
KEPT |= {"EII": "EII", "VEI": "VEI", "EVI": "diag", "VVE": "full"}


def table(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    group = np.arange(n) % 3
    mixing = rng.normal(size=(3, 4, 4))
    X = np.einsum("nij,nj->ni", mixing[group], rng.normal(size=(n, 4))) + 4 * rng.normal(size=(3, 4))[group]
    return pd.DataFrame(X * [1.0, 30.0, 0.1, 1.0], columns=NAMES)


X = table()


def fitted(kind: str = "full", data: Any = X, n_components: int = 3) -> Any:
    return lvm.GaussianMixture(n_components, covariance_type=kind, random_state=0, tol=1e-4).fit(data)


def by_hand(weights: Any, means: Any, covariances: Any) -> Any:
    """A mixture with full covariances built from its parameters."""
    mixture = lvm.GaussianMixture(len(weights))
    mixture.weights_, mixture.means_ = np.array(weights, np.float64), np.array(means, np.float64)
    mixture.covariances_ = np.array(covariances, np.float64)
    factors = np.linalg.inv(np.linalg.cholesky(mixture.covariances_))
    mixture.precisions_cholesky_ = np.swapaxes(factors, 1, 2)
    mixture.n_features_in_ = mixture.means_.shape[1]
    return mixture


def density(mixture: Any, points: Array, columns: list[int]) -> Array:
    """The density of some columns by scipy."""
    total = np.zeros(len(points))
    for weight, mean, covariance in zip(
        mixture.weights_, mixture.means_, marginal_covariances(mixture, range(mixture.n_features_in_)), strict=True
    ):
        part = multivariate_normal(mean[columns], covariance[np.ix_(columns, columns)])
        total += weight * part.pdf(points)
    return total


# ----- marginals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_marginal_densities(kind: str) -> None:
    mixture = fitted(kind)
    marginal = mixture.marginal(["age", 0])
    assert marginal.covariance_type == KEPT[kind]
    assert marginal.feature_names_in_.tolist() == ["age", "length"]
    points = X[["age", "length"]]
    expected = np.log(density(mixture, points.to_numpy(), [3, 0]))
    np.testing.assert_allclose(marginal.score_samples(points), expected, rtol=1e-10)
    np.testing.assert_array_equal(marginal.weights_, mixture.weights_)


def test_marginal_by_quadrature() -> None:
    mixture = fitted(data=X.iloc[:, [0, 2, 3]].to_numpy())
    for point in mixture.means_[:, [0, 2]]:
        cuts = mixture.means_[:, 1].tolist()
        whole, _ = quad(
            lambda y, p=point: np.exp(mixture.score_samples([[p[0], y, p[1]]])[0]), -5, 5, points=cuts, limit=200
        )
        assert whole > 1e-3
        # quad is asked for a relative error of 1.5e-8.
        np.testing.assert_allclose(np.exp(mixture.marginal([0, 2]).score_samples([point])[0]), whole, rtol=1e-6)


def test_marginal_of_a_marginal_and_of_all_columns() -> None:
    mixture = fitted()
    twice = mixture.marginal(["age", "width", "length"]).marginal([2, "age"])
    once = mixture.marginal(["length", "age"])
    np.testing.assert_array_equal(twice.covariances_, once.covariances_)
    assert twice.feature_names_in_.tolist() == ["length", "age"]
    same = mixture.marginal(NAMES)
    np.testing.assert_allclose(same.score_samples(X), mixture.score_samples(X), rtol=1e-12)
    np.testing.assert_allclose(mixture.marginal("age").means_, mixture.means_[:, [3]])
    np.testing.assert_allclose(mixture.marginal(3).means_, mixture.means_[:, [3]])


# ----- conditionals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_conditional_density_is_joint_over_marginal(kind: str) -> None:
    mixture = fitted(kind)
    cells = X.to_numpy()
    for row in (0, 1, 2, 77):
        given = {"width": cells[row, 1], 3: cells[row, 3]}
        conditional = mixture.condition(given)
        assert conditional.covariance_type == KEPT[kind]
        assert conditional.feature_names_in_.tolist() == ["length", "depth"]
        points = cells[:, [0, 2]]
        whole = cells.copy()
        whole[:, [1, 3]] = cells[row, [1, 3]]
        expected = density(mixture, whole, [0, 1, 2, 3]) / density(mixture, cells[[row]][:, [1, 3]], [1, 3])
        found = np.exp(conditional.score_samples(pd.DataFrame(points, columns=["length", "depth"])))
        # Densities far out are small: what is below 1e-12 of the largest has lost digits in the quotient.
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12 * expected.max())


def test_conditional_parameters_are_the_regressions() -> None:
    mixture = fitted()
    conditional = mixture.condition({1: 10.0, 2: 0.2})
    o, m = [1, 2], [0, 3]
    weights = []
    for k, S in enumerate(mixture.covariances_):
        B = S[np.ix_(m, o)] @ np.linalg.inv(S[np.ix_(o, o)])
        off = np.array([10.0, 0.2]) - mixture.means_[k, o]
        np.testing.assert_allclose(conditional.means_[k], mixture.means_[k, m] + B @ off, rtol=1e-9)
        np.testing.assert_allclose(conditional.covariances_[k], S[np.ix_(m, m)] - B @ S[np.ix_(o, m)], rtol=1e-7)
        part = multivariate_normal(mixture.means_[k, o], S[np.ix_(o, o)])
        weights.append(mixture.weights_[k] * part.pdf([10.0, 0.2]))
    np.testing.assert_allclose(conditional.weights_, np.array(weights) / sum(weights), rtol=1e-9)


def test_conditioning_in_two_steps_is_conditioning_once() -> None:
    mixture = fitted()
    once = mixture.condition({"width": 12.0, "age": 1.0})
    twice = mixture.condition({"age": 1.0}).condition({"width": 12.0})
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), rtol=1e-8)


def test_near_singular_covariances_stay_positive_definite() -> None:
    """The difference of matrices in the textbook's formula is -1e-16 or so here, the factor's is not."""
    r = 1 - 1e-15
    mixture = by_hand([1.0], [[0.0, 0.0]], [[[1.0, r], [r, 1.0]]])
    conditional = mixture.condition({0: 1.0})
    assert 0 < conditional.covariances_[0, 0, 0] < 1e-14
    np.testing.assert_allclose(conditional.means_, [[1.0]], rtol=1e-12)


def test_values_far_from_everything_have_a_nearest_component() -> None:
    mixture = by_hand([0.5, 0.5], [[0.0, 1.0], [10.0, 2.0]], [np.eye(2), np.eye(2)])
    conditional = mixture.condition({0: 1e6})
    np.testing.assert_array_equal(conditional.weights_, [0.0, 1.0])
    np.testing.assert_allclose(mixture.predict_conditional([[1e6], [-1e6]], 1), [[2.0], [1.0]])


def test_components_of_weight_0_stay_out() -> None:
    mixture = by_hand([0.0, 1.0], [[0.0, 1.0], [10.0, 2.0]], [np.eye(2), np.eye(2)])
    np.testing.assert_array_equal(mixture.condition({0: 0.0}).weights_, [0.0, 1.0])
    np.testing.assert_allclose(mixture.predict_conditional([[0.0]], 1), [[2.0]])


# ----- what comes back is a fitted mixture ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_fitted_mixtures(kind: str, tmp_path: Path) -> None:
    mixture = fitted(kind)
    for part in (mixture.marginal(["depth", "length"]), mixture.condition({"width": 3.0, "age": 0.0})):
        check_is_fitted(part)
        assert type(part) is lvm.GaussianMixture
        assert not hasattr(part, "loglik_")
        rows, components = part.sample(50)
        table = pd.DataFrame(rows, columns=part.feature_names_in_)
        assert part.predict(table).shape == components.shape == (50,)
        assert np.isfinite(part.bic(table))
        lvm.save(part, tmp_path / "part.lvm")
        back = lvm.load(tmp_path / "part.lvm")
        np.testing.assert_array_equal(back.score_samples(table), part.score_samples(table))
    assert mixture.n_features_in_ == 4
    assert hasattr(mixture, "loglik_")


def test_draws_of_a_conditional_have_its_moments() -> None:
    mixture = fitted()
    row = X.to_numpy()[[5]]
    conditional = mixture.condition({"width": row[0, 1], "age": row[0, 3]})
    n = 20_000
    draws, _ = conditional.sample(n)
    mean, var = mixture.predict_conditional(row, ["length", "depth"], return_var=True)
    # Five standard errors.
    assert np.all(np.abs(draws.mean(axis=0) - mean[0]) < 5 * np.sqrt(var[0] / n))


# ----- regression -------------------------------------------------------------------------------------------------


def test_regression_has_the_moments_of_the_conditionals() -> None:
    mixture = fitted()
    cells = X.to_numpy()
    mean, var = mixture.predict_conditional(X, ["age", "width"], return_var=True)
    again, cov = mixture.predict_conditional(X, ["age", "width"], return_cov=True)
    alone = mixture.predict_conditional(X, ["age", "width"])
    assert mean.shape == var.shape == (200, 2)
    assert cov.shape == (200, 2, 2)
    np.testing.assert_array_equal(mean, again)
    np.testing.assert_array_equal(mean, alone)
    np.testing.assert_allclose(np.diagonal(cov, axis1=1, axis2=2), var, rtol=1e-12)
    for row in range(0, 200, 20):
        conditional = mixture.condition({0: cells[row, 0], 2: cells[row, 2]}).marginal(["age", "width"])
        w, mu, S = conditional.weights_, conditional.means_, conditional.covariances_
        np.testing.assert_allclose(mean[row], w @ mu, rtol=1e-10)
        second = np.einsum("k,kij->ij", w, S + mu[:, :, None] * mu[:, None, :])
        np.testing.assert_allclose(cov[row], second - np.outer(w @ mu, w @ mu), rtol=1e-6)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_regression_by_quadrature(kind: str) -> None:
    mixture = fitted(kind, data=X[["length", "age"]].to_numpy())
    y = np.linspace(-60, 60, 60_001)
    given = np.array([-3.0, 0.0, 2.5])
    mean, var = mixture.predict_conditional(given[:, None], 1, return_var=True)
    for row, x in enumerate(given):
        p = density(mixture, np.column_stack([np.full_like(y, x), y]), [0, 1])
        p /= p.sum()
        expected = p @ y
        # The trapezoidal rule is exact to rounding for smooth densities that are 0 at both ends.
        np.testing.assert_allclose(mean[row], [expected], rtol=1e-9)
        np.testing.assert_allclose(var[row], [p @ (y - expected) ** 2], rtol=1e-9)


def test_regression_on_draws() -> None:
    """On draws, what is left of a target is uncorrelated with functions of the others, of the variance predicted."""
    mixture = fitted()
    draws, _ = mixture.sample(100_000)
    mean, var = mixture.predict_conditional(draws, "age", return_var=True)
    left = draws[:, 3] - mean[:, 0]
    others = (draws[:, :3] - draws[:, :3].mean(axis=0)) / draws[:, :3].std(axis=0)
    functions = np.column_stack([np.ones(len(draws)), others, others[:, 0] * others[:, 1], np.sin(3 * others[:, 2])])
    for product in [*(left[:, None] * functions).T, left**2 - var[:, 0]]:
        assert abs(product.mean()) < 5 * product.std() / np.sqrt(len(draws))
    # A linear regression, which is the wrong one here, leaves more.
    design = np.column_stack([np.ones(len(draws)), others])
    straight = draws[:, 3] - design @ np.linalg.lstsq(design, draws[:, 3], rcond=None)[0]
    assert np.mean(left**2) < 0.9 * np.mean(straight**2)


def test_ways_to_hand_in_rows() -> None:
    mixture = fitted()
    holes = X.copy()
    holes[["age", "width"]] = np.nan
    expected = mixture.predict_conditional(X, ["width", "age"])
    np.testing.assert_array_equal(mixture.predict_conditional(holes), expected)
    np.testing.assert_array_equal(mixture.predict_conditional(holes, ["width", "age"]), expected)
    np.testing.assert_array_equal(mixture.predict_conditional(X[["depth", "length"]], ["width", "age"]), expected)
    np.testing.assert_array_equal(mixture.predict_conditional(holes.to_numpy()), expected)
    np.testing.assert_array_equal(mixture.predict_conditional(X[["length", "depth"]].to_numpy(), [1, 3]), expected)
    np.testing.assert_array_equal(mixture.predict_conditional(X, ["age", 1]), expected[:, ::-1])


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = fitted()
    whole = mixture.predict_conditional(X, 0, return_cov=True)
    monkeypatch.setattr(conditionals, "BLOCK_ROWS", 7)
    for found, expected in zip(mixture.predict_conditional(X, 0, return_cov=True), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    far = X.copy()
    far.iloc[150, 1] = 1e200
    with pytest.raises(ZeroDensityError, match="row 150 has density 0"):
        mixture.predict_conditional(far, 0)


def test_regression_follows_units() -> None:
    mixture = fitted()
    units = np.array([2.0, 0.25, 8.0, 0.5])
    scaled = by_hand(mixture.weights_, mixture.means_ * units, mixture.covariances_ * np.outer(units, units))
    mean, var = mixture.predict_conditional(X.to_numpy(), [0, 3], return_var=True)
    other, spread = scaled.predict_conditional(X.to_numpy() * units, [0, 3], return_var=True)
    np.testing.assert_allclose(other, mean * units[[0, 3]], rtol=1e-10)
    np.testing.assert_allclose(spread, var * units[[0, 3]] ** 2, rtol=1e-10)


# ----- densities for pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_densities_of_student_t(kind: str) -> None:
    mixture = lvm.StudentTMixture(2, covariance_type=kind, random_state=0, tol=1e-4).fit(X)
    points = X.to_numpy()[:20, [3, 0]]
    scatters = marginal_covariances(mixture, [3, 0])
    found = joint_densities(mixture, [3, 0], points)
    for k in range(2):
        part = multivariate_t(mixture.means_[k, [3, 0]], scatters[k], mixture.degrees_of_freedom_[k])
        np.testing.assert_allclose(found[k], part.pdf(points), rtol=1e-10)
    np.testing.assert_allclose(
        joint_densities(mixture, [3], points[:, :1]), marginal_densities(mixture, 3, points[:, 0]), rtol=1e-10
    )


# ----- what is refused --------------------------------------------------------------------------------------------


def test_refused_columns() -> None:
    mixture = fitted()
    with pytest.raises(ValueError, match="no column 'height'; the estimator was fitted on length, width, depth, age"):
        mixture.marginal(["height"])
    with pytest.raises(ValueError, match="no column 4; the estimator was fitted on 4 columns"):
        mixture.condition({4: 1.0})
    with pytest.raises(ValueError, match="no column -1"):
        mixture.predict_conditional(X, -1)
    with pytest.raises(ValueError, match=r"no column 1\.5"):
        mixture.marginal([1.5])
    with pytest.raises(ValueError, match="width is twice in columns; name each column once"):
        mixture.marginal(["width", 1])
    with pytest.raises(ValueError, match="width is twice in given"):
        mixture.condition({"width": 1.0, 1: 2.0})
    with pytest.raises(ValueError, match="columns is empty"):
        mixture.marginal([])
    with pytest.raises(ValueError, match="given is empty"):
        mixture.condition({})
    with pytest.raises(ValueError, match="all 4 columns are given; leave at least one out"):
        mixture.condition(dict.fromkeys(NAMES, 1.0))
    with pytest.raises(ValueError, match="all 4 columns are targets"):
        mixture.predict_conditional(X, NAMES)


def test_refused_values() -> None:
    mixture = fitted()
    with pytest.raises(TypeError, match="expects a dictionary such as"):
        mixture.condition([1.0, 2.0])
    with pytest.raises(ValueError, match="given values must be finite, got nan for depth"):
        mixture.condition({"age": 1.0, "depth": np.nan})
    with pytest.raises(ValueError, match=r"width = 1e\+200 has density 0 .* under every component; give other values"):
        mixture.condition({"width": 1e200})
    with pytest.raises(ValueError, match="return_var and return_cov are both True"):
        mixture.predict_conditional(X, 0, return_var=True, return_cov=True)
    holes = X.copy()
    holes.iloc[4, 2] = np.nan
    with pytest.raises(ValueError, match="given cells must be finite, got nan at row 4, depth"):
        mixture.predict_conditional(holes, ["length", "age"])
    with pytest.raises(ValueError, match="no column of X is NaN in every row; say which are the targets"):
        mixture.predict_conditional(holes)
    with pytest.raises(ValueError, match="X has 2 columns; expected all 4, or say which are the targets"):
        mixture.predict_conditional(X.to_numpy()[:, :2])
    with pytest.raises(ValueError, match="X has 2 columns; expected the 3 given ones or all 4"):
        mixture.predict_conditional(X.to_numpy()[:, :2], 0)
    with pytest.raises(ValueError, match="X has no column 'age'; expected width, depth, age"):
        mixture.predict_conditional(X[["depth", "width"]], "length")
    for method, argument in (("marginal", 0), ("condition", {0: 1.0}), ("predict_conditional", [[1.0]])):
        with pytest.raises(NotFittedError):
            getattr(lvm.GaussianMixture(2), method)(argument)
