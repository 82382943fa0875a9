"""The log-likelihood as a bound plus a divergence, for any responsibilities, and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

import lvm
from lvm.plotting import plot_bound
from lvm.protocol import Rows, ZeroDensityError

RNG = np.random.default_rng(5)
X = np.concatenate([RNG.normal(-1.0, 1.0, (20, 2)), RNG.normal(1.5, 0.7, (15, 2))])
FAMILY = lvm.families.FullGaussian()
MODEL = lvm.Mixture(FAMILY)
PARAMS = lvm.MixtureParams(
    np.array([0.3, 0.5, 0.2]),
    FAMILY.params(
        means=RNG.normal(size=(3, 2)), covariances=np.array([np.eye(2), [[2.0, 0.5], [0.5, 1.0]], 0.5 * np.eye(2)])
    ),
)
WEIGHT = RNG.uniform(0.0, 2.0, len(X))


@pytest.fixture(autouse=True, scope="module")
def no_window() -> None:
    pyplot.switch_backend("agg")


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


def slow_joint(weights: Any, components: Any) -> NDArray[np.float64]:
    return np.column_stack(
        [
            np.log(weight) + multivariate_normal(mean, covariance).logpdf(X)
            for weight, mean, covariance in zip(weights, components.means, components.covariances, strict=True)
        ]
    )


def test_joint_density_is_scipys() -> None:
    """To 1e-12: two evaluations of the same quadratic forms."""
    found = MODEL.joint_log_density(Rows(X), PARAMS)
    np.testing.assert_allclose(found, slow_joint(PARAMS.weights, PARAMS.components), rtol=1e-12)


def test_joint_density_respects_labels_and_weights_of_zero() -> None:
    labels = RNG.integers(-1, 3, len(X))
    free = MODEL.joint_log_density(Rows(X), PARAMS)
    excluded = (labels[:, None] >= 0) & (np.arange(3) != labels[:, None])
    np.testing.assert_array_equal(
        MODEL.joint_log_density(Rows(X, None, labels), PARAMS), np.where(excluded, -np.inf, free)
    )
    mask = RNG.random((len(X), 3)) < 0.5
    mask[:, 0] |= ~mask.any(axis=1)
    np.testing.assert_array_equal(MODEL.joint_log_density(Rows(X, None, mask), PARAMS), np.where(mask, free, -np.inf))
    empty = PARAMS._replace(weights=np.array([0.5, 0.0, 0.5]))
    assert np.all(np.isneginf(MODEL.joint_log_density(Rows(X), empty)[:, 1]))


@pytest.mark.parametrize("weight", [None, WEIGHT])
@given(st.integers(0, 10_000), st.floats(0.01, 10.0))
def test_parts_add_up_and_the_bound_is_one(weight: Any, seed: int, spread: float) -> None:
    """For any responsibilities, also with zeros: to rounding of sums over 35 rows."""
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(3, spread), len(X))
    q[rng.random(q.shape) < 0.2] = 0.0
    q[q.sum(axis=1) == 0] = [0.0, 1.0, 0.0]
    q /= q.sum(axis=1, keepdims=True)
    rows = Rows(X, weight)
    loglik, elbo, kl = lvm.decompose(MODEL, rows, PARAMS, q)
    w = np.ones(len(X)) if weight is None else weight
    assert loglik == pytest.approx(float(w @ MODEL.loglik(Rows(X), PARAMS)), rel=1e-12)
    assert elbo + kl == pytest.approx(loglik, rel=1e-11, abs=1e-11 * kl)
    assert elbo <= loglik + 1e-10
    assert kl >= 0
    assert lvm.elbo(MODEL, rows, PARAMS, q) == elbo
    joint = slow_joint(PARAMS.weights, PARAMS.components)
    slow = sum(w[i] * q[i, k] * (joint[i, k] - np.log(q[i, k])) for i, k in zip(*np.nonzero(q), strict=True))
    assert elbo == pytest.approx(float(slow), rel=1e-10)


def test_the_e_step_makes_the_divergence_zero() -> None:
    loglik, elbo, kl = lvm.decompose(MODEL, X, PARAMS, MODEL.responsibilities(Rows(X), PARAMS))
    assert 0 <= kl < 1e-12 * len(X)  # second order in responsibilities that are right to 1e-15
    assert elbo == pytest.approx(loglik, rel=1e-13)
    labels = RNG.integers(-1, 3, len(X))
    rows = Rows(X, None, labels)
    assert lvm.decompose(MODEL, rows, PARAMS, MODEL.responsibilities(rows, PARAMS)).kl < 1e-12 * len(X)


def test_em_raises_the_bound_step_by_step() -> None:
    """bound(q_old, old) = loglik(old) <= bound(q_old, new) <= loglik(new): the proof of monotony, in numbers."""
    params = PARAMS
    for _ in range(5):
        q = MODEL.responsibilities(Rows(X), params)
        new = MODEL.mstep(MODEL.estep_stats(Rows(X), params), params)
        before, after = lvm.decompose(MODEL, X, params, q), lvm.decompose(MODEL, X, new, q)
        assert before.elbo <= after.elbo <= after.loglik
        assert after.kl > 1e-6  # it has moved
        params = new


def test_any_model_with_the_hook_serves() -> None:
    class Coin:
        def joint_log_density(self, rows: Rows, params: Any) -> NDArray[np.float64]:
            return np.log(np.where(rows.X == 1, params, 1 - params) / 2)

    p, flips = np.array([[0.2, 0.9]]), np.array([[1.0], [0.0]])
    loglik, elbo, kl = lvm.decompose(Coin(), flips, p, [[1.0, 0.0], [0.5, 0.5]])
    assert loglik == pytest.approx(np.log(0.55) + np.log(0.45))
    assert elbo == pytest.approx(np.log(0.1) + 0.5 * np.log(0.4 / 0.5) + 0.5 * np.log(0.05 / 0.5))
    assert kl == pytest.approx(loglik - elbo)


def test_what_is_impossible() -> None:
    """A bound by an excluded component is -inf; a row of density 0 is named, unless it has no weight."""
    labels = np.full(len(X), -1)
    labels[3] = 1
    q = np.full((len(X), 3), 1 / 3)
    loglik, elbo, kl = lvm.decompose(MODEL, Rows(X, None, labels), PARAMS, q)
    assert np.isfinite(loglik)
    assert elbo == -np.inf
    assert kl == np.inf
    family = lvm.families.Bernoulli()
    params = lvm.MixtureParams(np.array([0.5, 0.5]), family.params(np.array([[0.0], [0.0]])))
    flips = np.array([[0], [1]])
    with pytest.raises(ZeroDensityError, match="row 1 has density 0"):
        lvm.decompose(lvm.Mixture(family), flips, params, np.full((2, 2), 0.5))
    assert lvm.elbo(lvm.Mixture(family), flips, params, np.full((2, 2), 0.5)) == -np.inf
    weighted = Rows(flips, np.array([1.0, 0.0]))
    assert lvm.decompose(lvm.Mixture(family), weighted, params, np.full((2, 2), 0.5)) == (0.0, 0.0, 0.0)


def test_mistakes() -> None:
    with pytest.raises(TypeError, match="int must implement joint_log_density"):
        lvm.elbo(3, X, PARAMS, np.ones((len(X), 1)))
    with pytest.raises(ValueError, match=r"responsibilities have shape \(35, 2\), expected \(35, 3\)"):
        lvm.elbo(MODEL, X, PARAMS, np.full((35, 2), 0.5))
    for row in ([0.5, 0.6, 0.0], [1.5, -0.5, 0.0], [np.nan, 0.5, 0.5]):
        q = np.full((len(X), 3), 1 / 3)
        q[7] = row
        with pytest.raises(ValueError, match="in row 7"):
            lvm.decompose(MODEL, X, PARAMS, q)


# ----- the picture --------------------------------------------------------------------------------------------


def curves(ax: Any) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return the positions and the log-likelihood, the bound, and the next bound along them."""
    found = [line.get_data() for line in ax.lines if len(line.get_xdata()) > 2]
    return found[0][0], [np.asarray(y) for _, y in found]


def test_picture_of_a_step() -> None:
    """The bounds touch the log-likelihood at the old and at the new parameters, and nowhere exceed it."""
    positions = np.linspace(-0.5, 1.5, 81)
    x, (loglik, bound, after) = curves(plot_bound(MODEL, X, PARAMS, values=positions))
    new = MODEL.mstep(MODEL.estep_stats(Rows(X), PARAMS), PARAMS)
    np.testing.assert_allclose(x, positions)
    assert np.all(bound <= loglik + 1e-10)
    assert np.all(after <= loglik + 1e-10)
    at_old, at_new = 20, 60
    assert bound[at_old] == pytest.approx(loglik[at_old], rel=1e-12)
    assert after[at_new] == pytest.approx(loglik[at_new], rel=1e-12)
    assert loglik[at_old] == pytest.approx(float(MODEL.loglik(Rows(X), PARAMS).sum()), rel=1e-12)
    assert loglik[at_new] == pytest.approx(float(MODEL.loglik(Rows(X), new).sum()), rel=1e-9)  # through coordinates
    assert np.argmax(bound) == at_new  # what the M-step is for
    slopes = np.gradient(loglik, x)[at_old], np.gradient(bound, x)[at_old]
    assert slopes[0] == pytest.approx(slopes[1], rel=0.02)  # they touch; differences over 0.05


def test_picture_of_one_parameter() -> None:
    """Along one mean, the new value is where the bound is highest: the weighted mean of its column."""
    ax = plot_bound(MODEL, Rows(X, WEIGHT), PARAMS, parameter="weights", index=0)
    x, (loglik, bound, _) = curves(ax)
    resp = MODEL.responsibilities(Rows(X), PARAMS)
    best = float(WEIGHT @ resp[:, 0] / WEIGHT.sum())  # of a weight, with the others in proportion
    assert x[np.nanargmax(bound)] == pytest.approx(best, abs=np.diff(x).max())
    assert np.all(bound <= loglik + 1e-10)
    assert ax.get_xlabel() == "weights[0]"
    assert plot_bound(MODEL, X, PARAMS, parameter="means", index=(0, -1)).get_xlabel() == "means[0, -1]"


def test_picture_leaves_out_impossible_parameters() -> None:
    x, (loglik, bound, _) = curves(
        plot_bound(MODEL, X, PARAMS, parameter="covariances", index=(0, 0, 0), values=np.linspace(-1.0, 2.0, 30))
    )
    np.testing.assert_array_equal(np.isnan(loglik), x <= 0)
    np.testing.assert_array_equal(np.isnan(bound), x <= 0)


def test_picture_at_a_fixed_point() -> None:
    """Where EM has converged, old and new coincide, and nothing is divided by their distance."""
    end = lvm.fit_em(MODEL, X, PARAMS, tol=1e-14, max_iter=5000).params
    x, (loglik, bound, _) = curves(plot_bound(MODEL, X, end, end, parameter="means", index=(1, 0)))
    assert np.ptp(x) > 0.01
    assert np.all(bound <= loglik + 1e-9)


def test_picture_mistakes() -> None:
    with pytest.raises(ValueError, match="parameter must be one of 'weights', 'means', 'covariances', got 'rates'"):
        plot_bound(MODEL, X, PARAMS, parameter="rates")
    for index in (0, (0, 2), (3, 0), (0, 0, 0)):
        with pytest.raises(ValueError, match=r"means has shape \(3, 2\); index must name one of its entries"):
            plot_bound(MODEL, X, PARAMS, parameter="means", index=index)
