"""Labels as a mask of the components that each row may belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import norm

import lvm
from lvm.families import DiagGaussian
from lvm.protocol import Rows

K = 3


@pytest.fixture
def X() -> Any:
    rng = np.random.RandomState(0)
    return np.concatenate([rng.normal(m, 1.0, (60, 2)) for m in (-2.0, 0.0, 2.5)])


@pytest.fixture
def allowed(X: Any) -> Any:
    mask = np.random.RandomState(1).rand(len(X), K) < 0.6
    mask[~mask.any(axis=1), 1] = True
    return mask


FAMILY = DiagGaussian()
PARAMS = lvm.MixtureParams(
    np.array([0.2, 0.5, 0.3]),
    FAMILY.params(means=np.array([[-1.0, -1.0], [0.0, 0.5], [2.0, 2.0]]), covariances=np.ones((K, 2))),
)


def joint(X: Any) -> Any:
    """Return log pi_k + log p(x | k), shape (n, K), by scipy."""
    densities = norm.logpdf(X[:, None], PARAMS.components.means, 1.0).sum(axis=2)
    return np.log(PARAMS.weights) + densities


def test_loglik_sums_over_the_allowed_components(X: Any, allowed: Any) -> None:
    model = lvm.Mixture(FAMILY)
    masked = np.where(allowed, joint(X), -np.inf)
    expected = logsumexp(masked, axis=1)
    assert_allclose(model.loglik(Rows(X, None, allowed), PARAMS), expected, rtol=1e-12)
    resp = model.responsibilities(Rows(X, None, allowed), PARAMS)
    assert_allclose(resp, np.exp(masked - expected[:, None]), atol=1e-13)
    assert np.all(resp[~allowed] == 0.0)
    stats = model.estep_stats(Rows(X, None, allowed), PARAMS)
    assert_allclose(stats.loglik, expected.sum(), rtol=1e-12)
    assert_allclose(stats.counts, resp.sum(axis=0), rtol=1e-12)


def test_one_hot_mask_is_the_label_and_a_full_mask_is_none(X: Any) -> None:
    model = lvm.Mixture(FAMILY)
    labels = np.random.RandomState(2).randint(-1, K, len(X))
    mask = np.where(labels[:, None] < 0, True, np.equal.outer(labels, np.arange(K)))
    by_label = model.estep_stats(Rows(X, None, labels), PARAMS)
    by_mask = model.estep_stats(Rows(X, None, mask), PARAMS)
    assert_allclose(by_mask.loglik, by_label.loglik, rtol=1e-14)
    assert_allclose(by_mask.components.first, by_label.components.first, rtol=1e-12)
    nothing = model.estep_stats(Rows(X, None, np.ones((len(X), K), np.int64)), PARAMS)
    assert_allclose(nothing.loglik, model.estep_stats(Rows(X), PARAMS).loglik, rtol=1e-14)


@pytest.mark.parametrize("method", ["kmeans", "k-means++", "random", "random_from_data"])
def test_a_fit_respects_the_mask(X: Any, allowed: Any, method: str) -> None:
    mixture = lvm.GaussianMixture(K, covariance_type="diag", init_params=method, random_state=0)
    mixture.fit(X, labels=allowed)
    assert np.diff(mixture.objective_trace_).min() > -1e-9
    model = lvm.Mixture(DiagGaussian(1e-6))
    params = lvm.MixtureParams(mixture.weights_, FAMILY.params(mixture.means_, mixture.covariances_))
    expected = model.loglik(Rows(X, None, allowed), params).sum()
    assert_allclose(mixture.loglik_, expected, rtol=1e-12)
    # Criteria take the likelihood in which the mask is known.
    assert_allclose(mixture.aic(X, labels=allowed), -2 * expected + 2 * mixture.n_parameters(), rtol=1e-12)
    assert mixture.aic(X, labels=allowed) > mixture.aic(X)


def test_the_mask_names_the_components() -> None:
    """Two halves that may be component 0 or 1 only: no free fit would know which is which."""
    rng = np.random.RandomState(3)
    X = np.concatenate([rng.normal(5.0, 1.0, (50, 1)), rng.normal(-5.0, 1.0, (50, 1))])
    mask = np.ones((100, 2), np.bool_)
    mask[:5, 1] = False
    for seed in range(4):
        mixture = lvm.GaussianMixture(2, random_state=seed).fit(X, labels=mask)
        assert mixture.means_[0, 0] > 4.0 > -4.0 > mixture.means_[1, 0]


def test_equal_rows_of_different_masks_stay_apart() -> None:
    rng = np.random.RandomState(4)
    X = (rng.rand(300, 4) < 0.5).astype(np.uint8)
    mask = np.ones((300, 2), np.bool_)
    mask[:100, 0] = False
    arguments = {"weights_init": [0.5, 0.5], "probabilities_init": rng.uniform(0.3, 0.7, (2, 4)), "tol": 1e-12}
    fits = [lvm.BernoulliMixture(2, deduplicate=apart, **arguments) for apart in (False, True)]
    one, other = (fit.fit(X, labels=mask) for fit in fits)
    assert_allclose(one.loglik_, other.loglik_, rtol=1e-12)
    assert_allclose(one.probabilities_, other.probabilities_, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((180, 2)), r"labels has shape \(180, 2\), expected \(180, 3\): one column per component"),
        (np.ones((179, 3)), r"labels has shape \(179, 3\), expected \(180, 3\)"),
        (np.full((180, 3), 2.0), "labels as a mask must hold True and False only"),
        (np.array([["a"] * 3] * 180), "labels as a mask must hold True and False only"),
        (np.arange(180)[:, None] != np.array([[7, 7, 7]]), "labels allows no component in row 7; allow at least one"),
    ],
)
def test_wrong_masks_are_refused(X: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(K).fit(X, labels=mask)


def test_a_mask_of_another_number_of_components_is_refused(X: Any) -> None:
    with pytest.raises(ValueError, match=r"rows\.labels have 2 columns, but there are 3 components"):
        lvm.Mixture(FAMILY).estep_stats(Rows(X, None, np.ones((len(X), 2), np.uint8)), PARAMS)
