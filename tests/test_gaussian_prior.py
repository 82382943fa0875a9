"""Conjugate priors of Gaussian components: the M-step of maximum a posteriori, mclust's optima, singular fits."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.stats import invwishart, multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm
from lvm.estimators.gaussian import FOURTEEN
from lvm.families import DiagGaussian, FullGaussian, NormalInverseWishart, SphericalGaussian, TiedGaussian
from lvm.families.conjugate_prior import default_prior
from lvm.models.mixture import MixtureParams
from lvm.testing import model_checks

Array = NDArray[np.float64]
each_structure = pytest.mark.parametrize("structure", FOURTEEN)


def blobs(seed: int = 0, n: int = 60) -> Array:
    rng = np.random.RandomState(seed)
    X = np.concatenate(
        [rng.randn(n, 3) * [1.0, 2.0, 0.5], rng.randn(n, 3) @ np.triu(np.ones((3, 3))) + [4.0, 0.0, 2.0]]
    )
    return np.asarray(X)


def family_of(structure: str, X: Array, K: int = 2, reg_covar: float = 0.0, **arguments: Any) -> Any:
    given = {**default_prior(X, None, K, structure), **arguments.pop("prior", {})}
    return FOURTEEN[structure].family(reg_covar, prior=NormalInverseWishart(**given), **arguments)


def covariances_of(params: Any) -> Array:
    """Return covariance matrices (K, d, d) whatever the structure."""
    if params[2].ndim == 2:
        return np.asarray(params[2][:, :, None] ** -2.0 * np.eye(params[2].shape[1]))
    return np.broadcast_to(params.covariances, (len(params.means), *params.covariances.shape[1:]))


# ----- the M-step -------------------------------------------------------------------------------------------------


def log_joint(X: Array, resp: Array, family: Any, params: Any) -> float:
    """Return expected log-likelihood plus log prior, the former from scipy."""
    densities = [
        multivariate_normal.logpdf(X, mean, covariance)
        for mean, covariance in zip(params.means, covariances_of(params), strict=True)
    ]
    penalty = np.broadcast_to(family.log_penalty(params), len(resp))
    return float((resp * np.array(densities)).sum() + resp.sum(axis=1) @ penalty + family.log_prior(params))


@each_structure
@pytest.mark.parametrize("reg_covar", [0.0, 0.3])
@pytest.mark.parametrize("shrinkage", [0.0, 0.01, 30.0])
def test_no_step_from_the_m_step_raises_the_posterior(structure: str, reg_covar: float, shrinkage: float) -> None:
    X = blobs(n=20)
    rng = np.random.RandomState(1)
    family = family_of(structure, X, 2, reg_covar, prior={"shrinkage": shrinkage})
    resp = rng.dirichlet([1.0, 2.0], len(X)).T.copy()
    old = family.start(family.canonical(X), np.ones(len(X)), 2)
    stats = family.zero_stats(old)
    family.accumulate(family.canonical(X), resp, old, stats)
    params = family.mstep(stats, old)
    best = log_joint(X, resp, family, params)
    vector = family.to_vector(params, old)
    for scale in (1e-1, 1e-3):
        for _ in range(25):
            moved = family.from_vector(vector + scale * rng.randn(len(vector)), old)
            moved = family.params(moved.means, family.nearest(moved.covariances))
            assert log_joint(X, resp, family, moved) < best + 1e-9 * abs(best)  # rounding of a sum of this size


def test_m_step_of_full_covariances_is_that_of_the_paper() -> None:
    X = blobs()
    K, n, d = 2, len(X), 3
    resp = np.random.RandomState(2).dirichlet([1.0, 2.0], n).T.copy()
    m, scale, kappa, dof = np.array([1.0, 0.5, -1.0]), np.diag([2.0, 1.0, 0.5]) + 0.1, 0.7, 7.5
    family = FullGaussian(prior=NormalInverseWishart(m, scale, kappa, dof))
    old = family.start(X, np.ones(n), K)
    stats = family.zero_stats(old)
    family.accumulate(family.canonical(X), resp, old, stats)
    params = family.mstep(stats, old)
    for k in range(K):
        count = resp[k].sum()
        mean = resp[k] @ X / count
        scatter = (resp[k][:, None] * (X - mean)).T @ (X - mean)
        shift = kappa * count / (kappa + count) * np.outer(mean - m, mean - m)
        assert_allclose(params.means[k], (count * mean + kappa * m) / (count + kappa), rtol=1e-12)
        assert_allclose(
            params.covariances[k], (scale + shift + scatter) / (count + dof + d + 2), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(
    ("family", "extra", "per_feature"), [(DiagGaussian, 3.0, True), (SphericalGaussian, 2.0, False)]
)
def test_m_step_of_variances_is_that_of_the_paper(family: Any, extra: float, per_feature: bool) -> None:
    X = blobs()
    n, d = X.shape
    m, scale, kappa, dof = np.zeros(3), 1.5, 0.4, 6.0
    family = family(prior=NormalInverseWishart(m, scale, kappa, dof))
    old = family.start(X, np.ones(n), 1)
    stats = family.zero_stats(old)
    family.accumulate(family.canonical(X), np.ones((1, n)), old, stats)
    params = family.mstep(stats, old)
    mean = X.mean(axis=0)
    squares = ((X - mean) ** 2).sum(axis=0) + kappa * n / (kappa + n) * mean**2
    if per_feature:
        expected = (squares + scale) / (n + dof + extra)
    else:
        expected = (squares.sum() + scale) / (n * d + dof + extra + d)
    assert_allclose(params.covariances[0], expected, rtol=1e-12)


def test_density_of_a_covariance_is_inverse_wishart() -> None:
    """Differences of log priors are those of scipy's densities, at one mean."""
    scale, dof, kappa, m = np.array([[2.0, 0.3], [0.3, 1.0]]), 5.0, 0.8, np.array([0.5, -0.5])
    family = FullGaussian(prior=NormalInverseWishart(m, scale, kappa, dof))
    means, values = np.array([[1.0, 0.0]]), []
    for covariance in (np.eye(2), np.array([[3.0, -1.0], [-1.0, 0.7]])):
        exact = invwishart.logpdf(covariance, dof, scale) + multivariate_normal.logpdf(means[0], m, covariance / kappa)
        values.append(family.log_prior(family.params(means, covariance[None])) - exact)
    assert_allclose(values[0], values[1], rtol=1e-12)


@each_structure
def test_component_without_data_goes_to_the_mode_of_the_prior(structure: str) -> None:
    X = blobs()
    family = family_of(structure, X)
    old = family.start(X, np.ones(len(X)), 2)
    stats = family.zero_stats(old)
    family.accumulate(family.canonical(X), np.stack([np.ones(len(X)), np.zeros(len(X))]), old, stats)
    params = family.mstep(stats, old)
    assert_allclose(params.means[1], family.prior.mean, rtol=1e-12)
    covariance = covariances_of(params)[1]
    if structure in ("VII", "VVI", "VVV"):
        added = {"VII": 2 + 3, "VVI": 3, "VVV": 3 + 2}[structure]
        scale = family.prior.scale if structure == "VVV" else family.prior.scale * np.eye(3)
        assert_allclose(covariance, scale / (family.prior.dof + added), rtol=1e-10, atol=1e-14)
    assert np.linalg.eigvalsh(covariance).min() > 0


@each_structure
@pytest.mark.parametrize("kind", ["plain", "regularised", "missing", "held means"])
def test_every_iteration_raises_the_posterior(structure: str, kind: str) -> None:
    X = blobs(3)
    rng = np.random.RandomState(5)
    if kind == "missing":
        X[rng.random_sample(X.shape) < 0.15] = np.nan
    held = {"means": np.array([True, False])} if kind == "held means" else {}
    family = family_of(structure, X, 2, 0.05 if kind == "regularised" else 0.0, held=held, prior={"shrinkage": 0.5})
    model = lvm.Mixture(family)
    rows = model.canonical(lvm.Rows(X))
    start = family.start(rows.X, np.ones(len(X)), 2)
    start = start._replace(means=start.means + np.array([[-1.0, 0.3, 0.0], [1.0, 0.0, 0.5]]))
    result = lvm.fit_em(model, rows, MixtureParams(np.array([0.4, 0.6]), start), tol=0, max_iter=12)
    assert result.n_iter == 12
    assert np.diff(result.objective_trace).min() > -1e-9  # rounding of some hundreds
    if held:
        assert_array_equal(result.params.components.means[0], start.means[0])


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, family in {
            "full": family_of("VVV", blobs(), prior={"shrinkage": 2.0}),
            "tied regularised": family_of("EEE", blobs(), 2, 0.1),
            "diag": family_of("VVI", blobs(), prior={"scale": [1.0, 2.0, 0.5]}),
            "spherical": family_of("VII", blobs()),
        }.items()
        for check in model_checks(
            family,
            family.start(blobs(), np.ones(120), 2)._replace(means=np.array([[0.0, 0.5, 0.2], [4.0, 0.0, 2.0]])),
            blobs(),
        )
    ],
)
def test_conformance(check: Any) -> None:
    check()


# ----- mclust's optima --------------------------------------------------------------------------------------------


def by_mclust(X: Array, labels: Any, structure: str, iterations: int) -> float:
    """Return the log-likelihood after mclust's own M-steps of EII or EEI, which differ from the paper's.

    That of EII leaves out the scale; that of EEI leaves the means where they are, and divides by G - 1 less.
    """
    prior = default_prior(X, None, 3, structure)
    (n, d), K, kappa = X.shape, 3, prior["shrinkage"]
    resp = np.equal.outer(np.arange(K), labels).astype(float)
    loglik = 0.0
    for _ in range(iterations):
        counts = resp.sum(axis=1)
        means = resp @ X / counts[:, None]
        squares = np.array([resp[k] @ (X - means[k]) ** 2 for k in range(K)])
        squares += (kappa * counts / (kappa + counts))[:, None] * (means - prior["mean"]) ** 2
        if structure == "EII":
            variances = np.full(d, squares.sum() / (prior["dof"] + (n + K) * d + 2))
            means = (counts[:, None] * means + kappa * prior["mean"]) / (counts + kappa)[:, None]
        else:
            variances = (prior["scale"] + squares.sum(axis=0)) / (prior["dof"] + n + 2)
        logs = [
            np.log(c / n) + multivariate_normal.logpdf(X, m, np.diag(variances))
            for c, m in zip(counts, means, strict=True)
        ]
        total = np.logaddexp.reduce(logs, axis=0)
        resp, loglik = np.exp(logs - total), float(total.sum())
    return loglik


@pytest.mark.parametrize("structure", ["VII", "VVI", "EEE", "VVV", "EII", "EEI"])
def test_optimum_of_mclust(reference_folder: Path, structure: str) -> None:
    folder = reference_folder / "map_iris"
    record = json.loads((folder / "result.json").read_text())
    X = np.genfromtxt(folder / "data.csv", delimiter=",", skip_header=1)
    labels = np.array(record["start_labels_0based"])
    (found,) = (fit for fit in record["fits"] if fit["model"] == structure)
    settings = {"covariance_type": structure, "reg_covar": 0.0, "init_params": labels, "tol": 0, "max_iter": 500}
    fitted = lvm.GaussianMixture(3, prior="default", **settings).fit(X)
    assert_allclose(fitted.prior_["mean"], found["prior_mean"], rtol=1e-12)
    assert_allclose(fitted.prior_["scale"], found["prior_scale"], rtol=1e-12)
    assert (fitted.prior_["dof"], fitted.prior_["shrinkage"]) == (found["prior_dof"], found["prior_shrinkage_kappa"])
    if structure in ("EII", "EEI"):
        assert_allclose(by_mclust(X, labels, structure, 500), found["loglik_of_data_at_map"], rtol=1e-9)
        assert_allclose(fitted.loglik_, found["loglik_of_data_at_map"], rtol=1e-3)
        return
    assert_allclose(fitted.loglik_, found["loglik_of_data_at_map"], rtol=1e-9)
    assert_allclose(fitted.weights_, found["weights"], rtol=1e-8)
    assert_allclose(fitted.means_, found["means"], rtol=1e-8)
    matrices = covariances_of(fitted._get_components())
    assert_allclose(matrices, found["covariances"], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("structure", ["VVV", "EEE", "VVI", "VII"])
def test_path_is_that_of_separate_code(structure: str, iris: Array) -> None:
    """Each iteration's log-likelihood, of a slow EM that writes the formulas of the paper down."""
    labels = np.repeat([0, 1, 2], 50)
    K, (n, d), prior = 3, iris.shape, default_prior(iris, None, 3, structure)
    kappa, dof, scale = prior["shrinkage"], prior["dof"], prior["scale"]
    resp, path = np.equal.outer(np.arange(K), labels).astype(float), []
    for _ in range(10):
        counts = resp.sum(axis=1)
        means = resp @ iris / counts[:, None]
        off = means - prior["mean"]
        scatters = np.array([(resp[k][:, None] * (iris - means[k])).T @ (iris - means[k]) for k in range(K)])
        scatters += (kappa * counts / (kappa + counts))[:, None, None] * off[:, :, None] * off[:, None, :]
        traces = np.trace(scatters, axis1=1, axis2=2)
        squares = np.diagonal(scatters, axis1=1, axis2=2)
        c = counts[:, None, None]
        matrices = {
            "VVV": lambda s=scatters, c=c: (s + scale) / (c + dof + d + 2),
            "EEE": lambda s=scatters: np.repeat([(s.sum(axis=0) + scale) / (n + dof + d + 1 + K)], K, axis=0),
            "VVI": lambda q=squares, c=c: ((q + scale)[:, :, None] * np.eye(d)) / (c + dof + 3),
            "VII": lambda t=traces, c=c: (t + scale)[:, None, None] * np.eye(d) / (c * d + dof + 2 + d),
        }[structure]()
        means = (counts[:, None] * means + kappa * prior["mean"]) / (counts + kappa)[:, None]
        logs = [np.log(counts[k] / n) + multivariate_normal.logpdf(iris, means[k], matrices[k]) for k in range(K)]
        total = np.logaddexp.reduce(logs, axis=0)
        resp = np.exp(logs - total)
        path.append(total.sum())
    settings = {"covariance_type": structure, "reg_covar": 0.0, "init_params": labels, "prior": "default", "tol": 0}
    for place in (0, 1, 4, 9):
        fitted = lvm.GaussianMixture(3, max_iter=place, **settings).fit(iris)
        assert_allclose(fitted.loglik_, path[place], rtol=1e-11)


# ----- the estimator ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["VVV", "VVI", "VII", "VVE"])
def test_rescues_singular_fits(structure: str) -> None:
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.randn(30, 2), np.repeat([[9.0, 9.0]], 5, axis=0)])
    labels = np.repeat([0, 1], [30, 5])
    settings = {"covariance_type": structure, "reg_covar": 0.0, "init_params": labels}
    with pytest.raises(ValueError, match="ill-defined empirical covariance"):
        lvm.GaussianMixture(2, **settings).fit(X)
    fitted = lvm.GaussianMixture(2, prior="default", **settings).fit(X)
    assert fitted.converged_
    assert_array_equal(fitted.predict(X), labels)
    assert np.isfinite(fitted.bic(X))


def test_criteria_are_of_the_likelihood_alone(iris: Array) -> None:
    fitted = lvm.GaussianMixture(2, prior="default", random_state=0).fit(iris)
    assert_allclose(fitted.loglik_, fitted.score_samples(iris).sum(), rtol=1e-12)
    assert_allclose(fitted.bic(iris), -2 * fitted.loglik_ + 29 * np.log(150), rtol=1e-12)
    assert abs(fitted.objective_trace_[-1] - fitted.loglik_) > 1
    plain = lvm.GaussianMixture(2, random_state=0).fit(iris)
    assert fitted.loglik_ < plain.loglik_


def test_whole_weights_are_repeated_rows(iris: Array) -> None:
    weight = np.arange(150) % 3
    settings = {"prior": "default", "init_params": np.repeat([0, 1, 2], 50), "max_iter": 5, "tol": 0}
    weighted = lvm.GaussianMixture(3, **settings).fit(iris, sample_weight=weight)
    settings["init_params"] = np.repeat(settings["init_params"], weight)
    repeated = lvm.GaussianMixture(3, **settings).fit(np.repeat(iris, weight, axis=0))
    assert_allclose(weighted.loglik_, repeated.loglik_, rtol=1e-10)
    assert_allclose(weighted.prior_["scale"], repeated.prior_["scale"], rtol=1e-10)


def test_default_scale_of_missing_cells_and_of_few_rows(iris: Array) -> None:
    holes = iris.copy()
    holes[::7, 0] = np.nan
    found = lvm.GaussianMixture(2, prior="default", random_state=0).fit(holes).prior_
    assert_allclose(found["mean"], np.nanmean(holes, axis=0), rtol=1e-12)
    assert_allclose(found["scale"], np.diag(np.nanvar(holes, axis=0, ddof=1)) * 2**-0.5, rtol=1e-12)
    few = default_prior(iris[:4], None, 2, "VVV")
    assert_allclose(few["scale"], np.diag(iris[:4].var(axis=0, ddof=1)) * 2**-0.5, rtol=1e-12)


def test_parts_of_the_prior_can_be_given(iris: Array) -> None:
    scale = np.diag([1.0, 2.0, 3.0, 4.0])
    fitted = lvm.GaussianMixture(2, prior={"shrinkage": 1e6, "mean": iris[0], "scale": scale}, random_state=0).fit(iris)
    assert_allclose(fitted.means_, np.repeat(iris[:1], 2, axis=0), atol=1e-3)  # 1e6 rows stand there, and 150 elsewhere
    assert fitted.prior_["dof"] == 6
    assert_array_equal(fitted.prior_["scale"], scale)


def test_save_load_clone_and_refit(iris: Array, tmp_path: Path) -> None:
    fitted = lvm.GaussianMixture(2, prior={"shrinkage": 0.5}, random_state=0).fit(iris)
    lvm.save(fitted, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    assert loaded.prior == {"shrinkage": 0.5}
    assert_array_equal(loaded.predict_proba(iris), fitted.predict_proba(iris))
    assert_array_equal(loaded.prior_["scale"], fitted.prior_["scale"])
    again = clone(fitted)
    assert again.prior == fitted.prior
    assert again.set_params(prior=None).fit(iris).loglik_ > fitted.loglik_
    fitted.set_params(covariance_type="diag").fit(iris)  # whose prior has another shape
    assert fitted.prior_["scale"].shape == ()
    assert not hasattr(fitted.set_params(prior=None).fit(iris), "prior_")


def test_select_fits_all_structures(iris: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = lvm.select(
            lvm.GaussianMixture(prior="default", max_iter=3, reg_covar=0.0, random_state=0),
            iris,
            n_components=2,
            covariance_type="all",
        )
    assert all(math.isfinite(candidate.bic) for candidate in found.table)
    assert len(found.table) == 14


@parametrize_with_checks([lvm.GaussianMixture(2, prior="default")])
def test_scikit_learn(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        check(estimator)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (3, r"prior must be None, 'default' or a dictionary of 'shrinkage', 'mean', 'dof', 'scale', got 3\."),
        ({"kappa": 1}, r"prior may hold 'shrinkage', 'mean', 'dof', 'scale', got 'kappa'\."),
        ({"shrinkage": -1}, r"shrinkage must be a finite number >= 0, got -1\."),
        ({"dof": 3.0}, r"the prior's dof must be > 3 for covariances VVV, got 3\."),
        ({"mean": [0.0]}, r"prior\['mean'\] should have the shape \(4,\), got \(1,\)\."),
        ({"mean": [0.0, np.nan, 0.0, 0.0]}, r"the prior's mean must be finite numbers"),
        ({"scale": np.ones((4, 4))}, r"prior\['scale'\] should be positive, or a positive definite matrix"),
        ({"scale": np.ones(4)}, r"scale should have the shape \(\) or \(4, 4\) for covariances VVV, got \(4,\)\."),
        ({"scale": np.ones(3)}, r"scale must be a finite number, 4 numbers or a 4 x 4 matrix"),
    ],
)
def test_refusals(prior: Any, message: str, iris: Array) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(2, prior=prior).fit(iris)


def test_refuses_a_scale_per_feature_where_they_share_their_variance() -> None:
    with pytest.raises(ValueError, match=r"shape \(\) for covariances VII, got \(2,\)"):
        SphericalGaussian(prior=NormalInverseWishart([0.0, 0.0], [1.0, 2.0]))
    with pytest.raises(ValueError, match=r"shape \(\) or \(2, 2\) for covariances EEE, got \(2,\)"):
        TiedGaussian(prior=NormalInverseWishart([0.0, 0.0], [1.0, 2.0]))
