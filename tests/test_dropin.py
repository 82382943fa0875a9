"""Code written for scikit-learn's `GaussianMixture` runs with only the import changed."""

from __future__ import annotations

import inspect
import io
import pickle
import warnings
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Peer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import lvm

X = load_iris().data
STRUCTURES = ("full", "tied", "diag", "spherical")


def start(structure: str) -> dict[str, Any]:
    """Return explicit starting parameters."""
    precisions = {
        "full": np.repeat(np.eye(4)[None] * 4, 3, axis=0),
        "tied": np.eye(4) * 4,
        "diag": np.full((3, 4), 4.0),
        "spherical": np.full(3, 4.0),
    }
    return {
        "n_components": 3,
        "covariance_type": structure,
        "weights_init": np.array([0.3, 0.3, 0.4]),
        "means_init": X[[0, 60, 120]],
        "precisions_init": precisions[structure],
    }


def test_constructor_takes_the_same_arguments() -> None:
    ours, theirs = (inspect.signature(estimator.__init__).parameters for estimator in (lvm.GaussianMixture, Peer))
    assert list(ours)[:2] == list(theirs)[:2]
    assert set(theirs) <= set(ours)
    assert all(ours[name].kind == theirs[name].kind for name in theirs)
    # Only where EM starts and stops differs: its defaults there end near the best optimum known.
    differing = {name for name in theirs if ours[name].default != theirs[name].default}
    assert differing == {"tol", "max_iter", "n_init", "init_params"}


def test_methods_take_the_same_arguments() -> None:
    for name, theirs in inspect.getmembers(Peer, inspect.isfunction):
        if name.startswith("_"):
            continue
        ours = list(inspect.signature(getattr(lvm.GaussianMixture, name)).parameters)
        assert ours[: len(inspect.signature(theirs).parameters)] == list(inspect.signature(theirs).parameters), name


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("reg_covar", "rtol"), [(0.0, 1e-9), (1e-6, 1e-3)])
def test_same_start_and_iterations_give_the_same_fit(structure: str, reg_covar: float, rtol: float) -> None:
    # With reg_covar EM here is exact for a penalised objective, there it is not: the parameters differ by a
    # multiple of reg_covar / smallest variance, here 1e-6 / 0.005.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours = lvm.GaussianMixture(**start(structure), tol=0, max_iter=15, reg_covar=reg_covar).fit(X)
        theirs = Peer(**start(structure), tol=0, max_iter=15, reg_covar=reg_covar, init_params="random").fit(X)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=rtol)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=rtol)
    for method in ("score", "aic", "bic"):
        assert getattr(ours, method)(X) == pytest.approx(getattr(theirs, method)(X), rel=1e-6 if reg_covar else 1e-10)
    assert np.array_equal(ours.predict(X), theirs.predict(X))
    assert ours.n_iter_ == theirs.n_iter_ == 15
    assert ours.n_parameters() == theirs._n_parameters()


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_attributes_exist_after_any_start(structure: str, init_params: str) -> None:
    arguments = {"n_components": 3, "covariance_type": structure, "init_params": init_params, "random_state": 0}
    ours = lvm.GaussianMixture(**arguments).fit(X)
    theirs = Peer(**arguments, max_iter=1000).fit(X)
    public = {name for name in vars(theirs) if name.endswith("_") and not name.startswith("_")}
    assert public <= set(vars(ours))
    for name in public:
        assert isinstance(getattr(ours, name), (type(getattr(theirs, name)), float)), name
        assert np.shape(getattr(ours, name)) == np.shape(getattr(theirs, name)) or name == "lower_bounds_", name
    assert ours.lower_bounds_[-1] >= theirs.lower_bounds_[-1] - 0.3  # perhaps another optimum, never nonsense


@pytest.mark.parametrize("seed", range(3))
def test_same_seed_gives_the_same_kmeans_start(seed: int) -> None:
    ours = lvm.GaussianMixture(3, random_state=seed).fit(X)
    theirs = Peer(3, random_state=seed, tol=1e-7, max_iter=1000).fit(X)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-3)
    assert ours.loglik_ == pytest.approx(theirs.score(X) * len(X), rel=1e-6)


def test_sample_has_the_same_form() -> None:
    rows, components = lvm.GaussianMixture(3, random_state=0).fit(X).sample(200)
    peer_rows, peer_components = Peer(3, random_state=0).fit(X).sample(200)
    assert rows.shape == peer_rows.shape
    assert components.dtype == peer_components.dtype
    assert np.all(np.diff(components) >= 0)


def test_mixture_built_by_hand() -> None:
    theirs = Peer(3, random_state=0).fit(X)
    ours = lvm.GaussianMixture(3)
    ours.weights_, ours.means_ = theirs.weights_, theirs.means_
    ours.precisions_cholesky_ = theirs.precisions_cholesky_
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-10)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-10)
    assert ours.sample(5)[0].shape == (5, 4)


def test_convergence_warning_and_its_absence() -> None:
    with pytest.warns(ConvergenceWarning, match="Best performing initialization did not converge"):
        mixture = lvm.GaussianMixture(3, max_iter=1, random_state=0).fit(X)
    assert not mixture.converged_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lvm.GaussianMixture(3, random_state=0).fit(X).converged_


def test_warm_start_continues() -> None:
    mixture = lvm.GaussianMixture(3, n_init=1, max_iter=2, warm_start=True, random_state=0, tol=0)
    first = mixture.fit(X).loglik_
    second = mixture.fit(X)
    assert second.objective_trace_[0] == pytest.approx(first, abs=1e-2)
    assert mixture.loglik_ > first
    together = lvm.GaussianMixture(3, n_init=1, max_iter=4, random_state=0, tol=0).fit(X)
    assert mixture.loglik_ == pytest.approx(together.loglik_, rel=1e-12)


def test_fit_predict_agrees_with_predict() -> None:
    mixture = lvm.GaussianMixture(3, random_state=0)
    assert np.array_equal(mixture.fit_predict(X), mixture.predict(X))


def test_verbose_writes_to_standard_output() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        lvm.GaussianMixture(3, verbose=2, verbose_interval=1, n_init=2, random_state=0).fit(X)
    assert "Initialization 1" in out.getvalue()
    assert "Iteration 1" in out.getvalue()
    assert "ll change" in out.getvalue()


def test_pipeline_grid_search_clone_and_pickle() -> None:
    pipeline = make_pipeline(StandardScaler(), lvm.GaussianMixture(random_state=0))
    assert pipeline.fit(X).predict(X).shape == (150,)
    search = GridSearchCV(lvm.GaussianMixture(random_state=0), {"n_components": [1, 2, 3]}, cv=3).fit(X)
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()
    mixture = lvm.GaussianMixture(3, random_state=0, means_init=X[[0, 60, 120]]).fit(X)
    twin = pickle.loads(pickle.dumps(mixture))
    assert np.array_equal(twin.predict_proba(X), mixture.predict_proba(X))
    fresh = clone(mixture).fit(X)
    assert fresh.loglik_ == mixture.loglik_
    parallel = cross_val_score(lvm.GaussianMixture(3, random_state=0), X, cv=3, n_jobs=2)
    assert np.array_equal(parallel, cross_val_score(lvm.GaussianMixture(3, random_state=0), X, cv=3))


def test_pandas_names_are_kept_and_checked() -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    mixture = lvm.GaussianMixture(3, random_state=0).fit(frame)
    assert list(mixture.feature_names_in_) == ["a", "b", "c", "d"]
    assert np.array_equal(mixture.predict(frame), lvm.GaussianMixture(3, random_state=0).fit(X).predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        mixture.predict(frame[["b", "a", "c", "d"]])


def test_input_of_any_kind_and_layout_gives_the_same_fit() -> None:
    reference = lvm.GaussianMixture(3, random_state=0).fit(X)
    frozen = X.copy()
    frozen.flags.writeable = False
    for other in (X.tolist(), np.asfortranarray(X), frozen, np.repeat(X, 2, axis=0)[::2]):
        assert lvm.GaussianMixture(3, random_state=0).fit(other).loglik_ == reference.loglik_
    single = lvm.GaussianMixture(3, random_state=0).fit(X.astype(np.float32))
    assert single.loglik_ == pytest.approx(reference.loglik_, rel=1e-4)
