"""Uniform noise beside the components: its likelihood, what it recovers, and how estimators show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.stats import kstest, multivariate_normal
from sklearn.base import clone

import lvm
from lvm.families import DiagGaussian, FullGaussian, TiedGaussian, WithNoise
from lvm.families.noise import UniformBox, smallest_box
from lvm.models.mixture import MixtureParams
from lvm.testing import model_checks

Array = NDArray[np.float64]


def scattered(seed: int, n_noise: int = 100) -> tuple[Array, Any]:
    """Return two clusters of 200 about (0, 0) and (6, 3), with rows all over the place, and which is which."""
    rng = np.random.RandomState(seed)
    clusters = [rng.randn(200, 2) * [1.0, 0.5], rng.randn(200, 2) * [0.5, 1.0] + [6.0, 3.0]]
    X = np.concatenate([*clusters, rng.uniform([-15.0, -15.0], [20.0, 20.0], (n_noise, 2))])
    return X, np.repeat([0, 1, -1], [200, 200, n_noise])


def fitted(seed: int = 0, **arguments: Any) -> tuple[Any, Array]:
    X, _ = scattered(seed)
    return lvm.GaussianMixture(2, noise=True, random_state=0, **arguments).fit(X), X


# ----- the box ----------------------------------------------------------------------------------------------------


def test_box_along_the_features() -> None:
    X = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 4.0], [2.0, 4.0], [1.0, 2.0]])
    assert_allclose(smallest_box(X), [[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]], atol=1e-12)
    assert_allclose(UniformBox(smallest_box(X)).log_volume, np.log(6.0), rtol=1e-12)


def test_box_along_the_principal_components() -> None:
    """A long thin cloud along the diagonal: the turned box is the smaller, and holds every row."""
    rng = np.random.RandomState(0)
    turn = np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
    X = rng.uniform([-5.0, -0.1], [5.0, 0.1], (300, 2)) @ turn + [3.0, 7.0]
    box = smallest_box(X)
    corner, edges = box[0], box[1:]
    assert_allclose(edges[0] @ edges[1], 0.0, atol=1e-12)
    inside = (X - corner) @ edges.T / (edges**2).sum(axis=1)
    assert_allclose([inside.min(axis=0), inside.max(axis=0)], [[0, 0], [1, 1]], atol=1e-12)
    centred = X - X.mean(axis=0)
    scores = centred @ np.linalg.eigh(centred.T @ centred)[1]
    expected = np.ptp(scores, axis=0).prod()  # mclust's hypvol
    assert expected < np.ptp(X, axis=0).prod() / 5
    assert_allclose(np.exp(UniformBox(box).log_volume), expected, rtol=1e-10)


def test_volume_of_one_column_is_its_range() -> None:
    assert_allclose(UniformBox(smallest_box(np.array([[1.0], [4.0], [2.0]]))).log_volume, np.log(3.0), rtol=1e-12)


def test_boxes_without_volume() -> None:
    X = np.random.RandomState(0).randn(20, 3)
    X[:, 1] = 2.0
    with pytest.raises(ValueError, match="column 1 is constant, so that noise has no volume"):
        smallest_box(X)
    X[:, 1] = X[:, 0]
    with pytest.raises(ValueError, match="the rows lie in a subspace"):
        smallest_box(X)
    with pytest.raises(ValueError, match="edges of positive length"):
        UniformBox(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"shape \(d \+ 1, d\), got the shape \(2, 2\)"):
        UniformBox(np.zeros((2, 2)))


def test_draws_fill_the_box() -> None:
    box = UniformBox([[1.0, 2.0], [3.0, 3.0], [-1.0, 1.0]])
    drawn = box.sample(5000, np.random.RandomState(0))
    u = (drawn - box.corner) @ np.linalg.inv(box.edges)
    for column in u.T:
        assert kstest(column, "uniform").pvalue > 1e-4


# ----- the model --------------------------------------------------------------------------------------------------


def model_of(family: Any, X: Array) -> tuple[Any, Any, Any]:
    model = lvm.Mixture(WithNoise(family, smallest_box(X)))
    components = family.start(X, np.ones(len(X)), 2)
    components = components._replace(means=np.array([[0.5, 0.0], [5.0, 2.5]]))
    return model, MixtureParams(np.array([0.4, 0.35, 0.25]), components), lvm.Rows(X)


@pytest.mark.parametrize("labelled", [False, True])
def test_likelihood_and_responsibilities_by_hand(labelled: bool) -> None:
    X, truth = scattered(0)
    model, params, rows = model_of(FullGaussian(), X)
    labels = np.where(np.arange(500) % 3 == 0, np.where(truth < 0, 2, truth), -1) if labelled else None
    volume = np.exp(UniformBox(smallest_box(X)).log_volume)
    joint = np.stack(
        [
            *(
                w * multivariate_normal.pdf(X, m, c)
                for w, m, c in zip(params.weights, params.components.means, params.components.covariances, strict=False)
            ),
            np.full(500, params.weights[2] / volume),
        ],
        axis=1,
    )
    if labels is not None:
        joint = np.where((labels[:, None] < 0) | (labels[:, None] == np.arange(3)), joint, 0.0)
    rows = rows._replace(labels=labels)
    assert_allclose(model.loglik(rows, params), np.log(joint.sum(axis=1)), rtol=1e-10)
    assert_allclose(model.responsibilities(rows, params), joint / joint.sum(axis=1, keepdims=True), atol=1e-12)
    stats = model.estep_stats(rows, params)
    resp = joint / joint.sum(axis=1, keepdims=True)
    new = model.mstep(stats, params)
    assert_allclose(new.weights, resp.mean(axis=0), rtol=1e-10)
    assert_allclose(new.components.means, (resp.T @ X / resp.sum(axis=0)[:, None])[:2], rtol=1e-10)


# The density does not end where the box does, and the volume counts as a parameter although no M-step moves it.
BY_CONVENTION = ("density_integrates_to_one", "parameters_are_counted")


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, family in {
            "full": FullGaussian(),
            "tied regularised": TiedGaussian(0.1),
            "diag": DiagGaussian(),
        }.items()
        for check in model_checks(*model_of(family, scattered(0, 60)[0][::3]))
        if str(check) not in BY_CONVENTION
    ],
)
def test_conformance(check: Any) -> None:
    check()


# ----- the estimator ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_noise", [20, 100, 270])
def test_recovers_clusters_among_noise(seed: int, n_noise: int) -> None:
    """5, 20 and 40 % of noise. Means of 200 rows with deviations to 1 are good to 0.07; 0.35 is five of these."""
    X, truth = scattered(seed, n_noise)
    found = lvm.GaussianMixture(2, noise=True, random_state=0).fit(X)
    order = np.argsort(found.means_[:, 0])
    assert_allclose(found.means_[order], [[0.0, 0.0], [6.0, 3.0]], atol=0.35)
    assert_allclose(found.noise_weight_, n_noise / (400 + n_noise), atol=0.05)
    assigned = found.predict(X)
    agree = np.mean(np.where(assigned < 0, -1, np.argsort(order)[assigned]) == truth)
    assert agree > 0.96
    assert np.diff(found.objective_trace_).min() > -1e-9
    assert found.score(X) > lvm.GaussianMixture(2, random_state=0).fit(X).score(X)


def test_attributes_and_their_shapes() -> None:
    found, X = fitted()
    assert found.weights_.shape == (3,)
    assert found.means_.shape == (2, 2)
    assert found.predict_proba(X).shape == (500, 3)
    assert found.noise_weight_ == found.weights_[-1]
    assert_allclose(found.weights_.sum(), 1.0, rtol=1e-12)
    assert_allclose(found.noise_density_, 1 / np.ptp(X, axis=0).prod(), rtol=1e-12)
    assert set(np.unique(found.predict(X))) == {-1, 0, 1}
    assert_array_equal(found.predict(X) == -1, found.predict_proba(X).argmax(axis=1) == 2)
    assert found.n_parameters() == lvm.GaussianMixture(2, random_state=0).fit(X).n_parameters() + 2  # as in mclust


def test_density_is_constant_outside_the_box() -> None:
    found, _ = fitted()
    far = found.score_samples([[1e5, 1e5], [-1e5, 3e6]])
    assert_allclose(far, np.log(found.noise_weight_ * found.noise_density_), rtol=1e-12)


def test_samples_are_like_the_data() -> None:
    found, X = fitted()
    drawn, components = found.sample(4000)
    assert_allclose(np.mean(components == -1), found.noise_weight_, atol=5 * np.sqrt(0.25 / 4000))
    noise = drawn[components == -1]
    assert np.all((noise >= X.min(axis=0)) & (noise <= X.max(axis=0)))
    for column, low, high in zip(noise.T, X.min(axis=0), X.max(axis=0), strict=True):
        assert kstest(column, "uniform", (low, high - low)).pvalue > 1e-4


def test_save_load_and_clone(tmp_path: Path) -> None:
    found, X = fitted(covariance_type="diag", prior="default")
    lvm.save(found, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    for method in ("predict", "predict_proba", "score_samples"):
        assert_array_equal(getattr(loaded, method)(X), getattr(found, method)(X))
    assert loaded.bic(X) == found.bic(X)
    assert_array_equal(loaded.noise_box_, found.noise_box_)
    assert_array_equal(loaded.sample(20)[1], found.sample(20)[1])
    assert clone(found).noise is True


def test_select_weighs_noise_against_components() -> None:
    X, _ = scattered(0, 40)
    found = lvm.select(lvm.GaussianMixture(random_state=0), X, n_components=[1, 2, 3], noise=[False, True])
    assert (found.best.n_components, found.best.noise) == (2, True)


def test_whole_weights_are_repeated_rows() -> None:
    X, truth = scattered(0, 30)
    weight = np.arange(len(X)) % 3
    start = np.where(truth < 0, 2, truth)
    settings = {"noise": True, "max_iter": 4, "tol": 0}
    weighted = lvm.GaussianMixture(2, init_params=start, **settings).fit(X, sample_weight=weight)
    repeated = lvm.GaussianMixture(2, init_params=np.repeat(start, weight), **settings).fit(
        np.repeat(X, weight, axis=0)
    )
    assert_allclose(weighted.noise_box_, repeated.noise_box_)
    assert_allclose(weighted.loglik_, repeated.loglik_, rtol=1e-10)


def test_labels_of_noise_and_of_components() -> None:
    X, truth = scattered(1)
    labels = np.where(np.arange(500) % 5 == 0, np.where(truth < 0, 2, truth), -1)
    found = lvm.GaussianMixture(2, noise=True, random_state=0).fit(X, labels=labels)
    assert_allclose(found.means_, [[0.0, 0.0], [6.0, 3.0]], atol=0.35)  # in the order of the labels
    mask = np.ones((500, 3), int)
    mask[truth == 0] = [1, 0, 1]
    mask[truth == -1] = [0, 0, 1]
    masked = lvm.GaussianMixture(2, noise=True, random_state=0).fit(X, labels=mask)
    assert masked.means_[0, 0] < masked.means_[1, 0]
    assert masked.noise_weight_ >= 0.2
    with pytest.raises(ValueError, match="labels"):
        lvm.GaussianMixture(2, noise=True, random_state=0).fit(X, labels=np.full(500, 3))


def test_given_starts_and_fixed_values() -> None:
    X, truth = scattered(2)
    start = {
        "weights_init": [0.4, 0.4, 0.2],
        "means_init": [[0.0, 0.0], [6.0, 3.0]],
        "covariances_init": np.repeat(np.eye(2)[None], 2, axis=0),
    }
    found = lvm.GaussianMixture(2, noise=True, **start).fit(X)
    assert_allclose(found.means_, start["means_init"], atol=0.35)
    by_labels = lvm.GaussianMixture(2, noise=True, init_params=np.maximum(truth, 0)).fit(X)  # none of them noise
    assert_allclose(by_labels.loglik_, found.loglik_, rtol=1e-5)
    held = lvm.GaussianMixture(2, noise=True, fixed={"weights": [np.nan, np.nan, 0.1]}, random_state=0).fit(X)
    assert_allclose(held.noise_weight_, 0.1, rtol=1e-12)
    means = np.array([[0.5, 0.0], [np.nan, np.nan]])
    assert_allclose(
        lvm.GaussianMixture(2, noise=True, fixed={"means": means}, random_state=0).fit(X).means_[0], means[0]
    )
    warm = found.set_params(warm_start=True, max_iter=1)
    assert_allclose(warm.fit(X).loglik_, found.loglik_, rtol=1e-7)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_every_way_to_start(init_params: str) -> None:
    X, _ = scattered(0)
    found = lvm.GaussianMixture(2, noise=True, init_params=init_params, n_init=4, random_state=0).fit(X)
    assert 0.15 < found.noise_weight_ < 0.25


@pytest.mark.parametrize("settings", [{"acceleration": "anderson"}, {"n_jobs": 2}, {"reg_covar": 0.1}])
def test_other_ways_to_fit_agree_with_the_density(settings: dict[str, Any]) -> None:
    found, X = fitted(**settings)
    assert_allclose(found.loglik_, found.score_samples(X).sum(), rtol=1e-10)
    assert np.diff(found.objective_trace_).min() > -1e-9


def test_refusals() -> None:
    X, _ = scattered(0)
    with pytest.raises(ValueError, match="equal_weights=True would make the noise as frequent as each component"):
        lvm.GaussianMixture(2, noise=True, equal_weights=True).fit(X)
    with pytest.raises(ValueError, match="noise must be True or False, got 'yes'"):
        lvm.GaussianMixture(2, noise="yes").fit(X)
    with pytest.raises(ValueError, match="on_degenerate='drop' does not go with noise=True"):
        lvm.GaussianMixture(2, noise=True, on_degenerate="drop").fit(X)
    found, _ = fitted()
    with pytest.raises(ValueError, match="noise=True has no marginal or conditional densities"):
        found.marginal(0)
    with pytest.raises(ValueError, match="noise=True has no marginal or conditional densities"):
        found.condition({0: 1.0})
    with pytest.raises(ValueError, match="fitted with another value of noise"):
        found.set_params(noise=False).predict(X)
    with pytest.raises(AttributeError, match="noise_weight_ with noise=True only"):
        _ = found.noise_weight_
    assert not hasattr(found.fit(X), "noise_box_")


def test_box_of_columns_in_other_units() -> None:
    """Where one column is 1e20 times as wide, principal axes are rounding: the box is along the features."""
    X = np.random.RandomState(0).randn(50, 2) * [1e10, 1e-10]
    assert_allclose(np.diag(smallest_box(X)[1:]), np.ptp(X, axis=0), rtol=1e-12)
