"""A warning points at the line of the user who called the library, whatever the estimator and the method."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import lvm
from lvm.result import warn

X = np.random.RandomState(0).normal(size=(200, 4)) + np.repeat([[0.0], [2.0]], 100, axis=0)
COUNTS = np.abs(np.round(2 * X))
FEW: dict[str, Any] = {"max_iter": 1, "random_state": 0}

UNFINISHED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "BayesianLinearRegression": (lvm.BayesianLinearRegression(max_iter=1, tol=1e-15), (X[:, :3], X[:, 3])),
    "BernoulliMixture": (lvm.BernoulliMixture(2, **FEW), (X > 1,)),
    "CategoricalMixture": (lvm.CategoricalMixture(2, **FEW), (COUNTS,)),
    "ExponentialMixture": (lvm.ExponentialMixture(2, **FEW), (np.exp(X),)),
    "FactorAnalysis": (lvm.FactorAnalysis(1, max_iter=1), (X,)),
    "GammaMixture": (lvm.GammaMixture(2, **FEW), (np.exp(X),)),
    "GaussianMixture": (lvm.GaussianMixture(2, **FEW), (X,)),
    "HiddenMarkov": (lvm.HiddenMarkov(n_states=2, **FEW), (X,)),
    "LatentTrait": (lvm.LatentTrait(max_iter=1), (X > 1,)),
    "MixedMixture": (lvm.MixedMixture([("a", "gaussian", [0, 1]), ("b", "gaussian_full", [2, 3])], 2, **FEW), (X,)),
    "MixtureModel": (lvm.MixtureModel(lvm.families.Gamma(), 2, **FEW), (np.exp(X),)),
    "MixtureOfExperts": (lvm.MixtureOfExperts(2, **FEW), (X[:, :3], X[:, 3])),
    "MixtureOfFactorAnalyzers": (lvm.MixtureOfFactorAnalyzers(2, n_factors=1, **FEW), (X,)),
    "MultinomialMixture": (lvm.MultinomialMixture(2, **FEW), (COUNTS + 1,)),
    "NegativeBinomialMixture": (lvm.NegativeBinomialMixture(2, **FEW), (COUNTS,)),
    "PoissonMixture": (lvm.PoissonMixture(2, **FEW), (COUNTS,)),
    "ProbabilisticPCA": (lvm.ProbabilisticPCA(1, max_iter=1), (np.where(X > 2.5, np.nan, X),)),
    "StudentTMixture": (lvm.StudentTMixture(2, **FEW), (X,)),
    "VonMisesFisherMixture": (lvm.VonMisesFisherMixture(2, normalize=True, **FEW), (X,)),
}


def places(call: Callable[[], Any], category: type[Warning]) -> list[str]:
    """Return the files at which the warnings of a call point."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [Path(each.filename).name for each in caught if issubclass(each.category, category)]


def test_no_estimator_is_forgotten() -> None:
    estimators = {name for name in lvm.__all__ if hasattr(getattr(lvm, name), "fit")}
    assert estimators - set(UNFINISHED) == set()


@pytest.mark.parametrize("method", ["fit", "fit_predict"])
@pytest.mark.parametrize("name", UNFINISHED)
def test_unfinished_fits(name: str, method: str) -> None:
    estimator, data = UNFINISHED[name]
    if not hasattr(estimator, method):
        pytest.skip(f"{name} has no method {method}")
    assert places(lambda: getattr(estimator, method)(*data), ConvergenceWarning) == ["test_warnings.py"]


def test_large_regularisation() -> None:
    estimator = lvm.GaussianMixture(2, reg_covar=10.0, random_state=0)
    assert places(lambda: estimator.fit(X), RuntimeWarning) == ["test_warnings.py"]


def test_separated_gates() -> None:
    rng = np.random.RandomState(0)
    x = np.r_[rng.uniform(-2, -1, 50), rng.uniform(1, 2, 50)]
    y = np.where(x < 0, 10 + x, -10 + 3 * x) + 0.1 * rng.randn(100)
    estimator = lvm.MixtureOfExperts(2, gating="softmax", random_state=0)
    assert places(lambda: estimator.fit(x[:, None], y), ConvergenceWarning) == ["test_warnings.py"]


def test_calls_through_another_library_point_there() -> None:
    """The first line outside the library, not one in it, nor one that nobody knows."""
    steps = make_pipeline(FunctionTransformer(), lvm.GaussianMixture(2, **FEW))
    assert places(lambda: steps.fit(X), ConvergenceWarning) == ["pipeline.py"]


def test_a_call_from_here_points_here() -> None:
    assert places(lambda: warn("said"), UserWarning) == ["test_warnings.py"]
