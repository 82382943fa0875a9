"""Hidden Markov models where a state has nothing to go by: a sane fit or an error that says why, never NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lvm
from lvm.families import DiagGaussian, FullGaussian
from lvm.models.hidden_markov import HiddenMarkovModel, HiddenMarkovParams
from lvm.protocol import Rows
from lvm.result import Status

RNG = np.random.RandomState(0)
X = RNG.randn(100, 2) + 5 * (np.arange(100) < 40)[:, None]
CONSTANT = np.full((50, 2), 3.0)
TWO_VALUES = np.repeat([[0.0], [1.0]], [30, 20], axis=0)


def assert_sane(model: Any, Y: Any) -> None:
    assert model.converged_
    assert np.isfinite(model.loglik_)
    assert np.diff(model.objective_trace_).min(initial=0.0) > -1e-6
    for values in [model.startprob_, model.transmat_, model.weights_, *model.components_]:
        assert not np.isnan(values).any()  # log odds and log rates may be infinite
    np.testing.assert_allclose(model.startprob_.sum(), 1.0)
    np.testing.assert_allclose(model.transmat_.sum(axis=1), 1.0)
    np.testing.assert_allclose(model.predict_proba(Y).sum(axis=1), 1.0)
    assert set(model.predict(Y)) <= set(range(model.n_states))


@pytest.mark.parametrize(
    ("family", "n_states", "Y"),
    [
        ("gaussian_diag", 1, CONSTANT),
        ("gaussian_diag", 2, CONSTANT),
        ("gaussian_full", 2, CONSTANT),
        ("gaussian_tied", 2, CONSTANT),
        ("gaussian_spherical", 2, CONSTANT),
        ("gaussian_diag", 3, TWO_VALUES),
        ("gaussian_full", 3, np.repeat(X[:3], 20, axis=0)),
        ("gaussian_diag", 3, X[:3]),
        ("gaussian_diag", 1, X[:1]),
        ("gaussian_full", 2, np.concatenate([X, [[1e6, 1e6]]])),
        ("gaussian_diag", 2, 1e150 * X),
        ("gaussian_diag", 2, 1e-150 * X),
        ("poisson", 2, np.zeros((50, 2))),
        ("poisson", 3, TWO_VALUES),
        ("bernoulli", 2, np.ones((50, 2))),
        ("categorical", 2, np.zeros((50, 2))),
        ("multinomial", 2, np.zeros((50, 2))),
    ],
)
def test_fits_are_sane(family: str, n_states: int, Y: Any) -> None:
    """Regularised Gaussians have a maximum whatever the data; the likelihood of counts is bounded."""
    assert_sane(lvm.HiddenMarkov(family, n_states, random_state=0).fit(Y), Y)


@pytest.mark.parametrize("family", [DiagGaussian(), FullGaussian(), "student_t_full", "student_t_diag", "gamma"])
@pytest.mark.parametrize("Y", [CONSTANT, TWO_VALUES + 1], ids=["constant", "two values"])
def test_unbounded_likelihoods_are_refused(family: Any, Y: Any) -> None:
    family = type(family)(0.0) if isinstance(family, (DiagGaussian, FullGaussian)) else family
    with pytest.raises(
        ValueError, match="some state's likelihood has no maximum; lower n_states, add data or use a prior"
    ):
        lvm.HiddenMarkov(family, 2, random_state=0).fit(Y)


@pytest.mark.parametrize("where", [500.0, 1e8])
def test_a_state_without_observations_keeps_its_parameters(where: float) -> None:
    start = {"means": np.array([[0.0, 0.0], [5.0, 5.0], [where, where]]), "covariances": np.ones((3, 2))}
    options = {"startprob_init": np.full(3, 1 / 3), "transmat_init": np.full((3, 3), 1 / 3)}
    model = lvm.HiddenMarkov("gaussian_diag", 3, components_init=start, **options).fit(X)
    assert_sane(model, X)
    np.testing.assert_array_equal(model.means_[2], where)
    np.testing.assert_array_equal(model.transmat_[2], 1 / 3)
    np.testing.assert_array_equal(model.transmat_[:2, 2], 0)
    two = lvm.HiddenMarkov("gaussian_diag", 2, random_state=0).fit(X)
    assert model.loglik_ == pytest.approx(two.loglik_, rel=1e-6)


def test_a_state_that_collapses_ends_em_before_it() -> None:
    """The third state explains a single observation: its variance goes to 0, and the likelihood to infinity."""
    family = DiagGaussian(0.0)
    Y = np.concatenate([X, [[40.0, 40.0]]])
    components = family.params(np.array([[0.0, 0.0], [5.0, 5.0], [39.0, 39.0]]), np.ones((3, 2)))
    params = HiddenMarkovParams(np.full(3, 1 / 3), np.full((3, 3), 1 / 3), components)
    fit = lvm.fit_em(HiddenMarkovModel(family), Y, params)
    assert fit.status is Status.DEGENERATE
    assert np.isfinite(fit.loglik)
    assert fit.loglik == pytest.approx(float(HiddenMarkovModel(family).loglik(Rows(Y), fit.params).sum()))
    assert all(np.isfinite(values).all() for values in (fit.params.transmat, *fit.params.components))
