"""Compile every kernel ahead of its first use, so that later processes find it on disk."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

import lvm
from lvm._disk import cache_folder
from lvm._jit import compilations
from lvm.estimators.gaussian import STRUCTURES
from lvm.kernels.passes import MIN_PAIRS, MIN_SORTED_COMPONENTS


class Warmup(NamedTuple):
    """What a warm-up did.

    Attributes
    ----------
    seconds : float
        How long it took.
    n_compiled : int
        Number of the library's kernels that were compiled; 0 where the cache was full already.
    folder : Path or None
        Where compiled kernels are kept; None where no folder can be written, so that nothing is kept.
    """

    seconds: float
    n_compiled: int
    folder: Path | None


def fill_cache() -> Warmup:
    """Fit a tiny mixture of each family, structure and kind of data, and one of components that lie apart.

    Returns
    -------
    Warmup
        The time that it took, how many kernels were compiled, and where they are kept.
    """
    began = time.perf_counter()
    with compilations() as events, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator, X in _tiny_problems():
            estimator.fit(X).predict(X)
            if isinstance(estimator, lvm.GaussianMixture):
                estimator.impute(X)
                estimator.fit(X, labels=np.ones((len(X), len(estimator.weights_)), np.bool_))
        for dtype in (np.float64, np.float32):
            _list_rows(dtype)
        measurements = np.random.RandomState(0).normal(size=(60, 6))
        lvm.FactorAnalysis(1, max_iter=2).fit(measurements)
    functions = {recorded.data["dispatcher"].py_func for _, recorded in events}
    own = [function for function in functions if function.__module__.startswith("lvm.")]
    return Warmup(time.perf_counter() - began, len(own), cache_folder())


def _list_rows(dtype: Any) -> None:
    """Fit components so far apart, with rows so many, that those are listed; and sorted, under full covariance."""
    K = 2 * MIN_SORTED_COMPONENTS
    X = np.repeat(30 * np.eye(K, 3 * K), 2 * MIN_PAIRS // K**2, axis=0)
    noise = np.random.RandomState(0).normal(size=X.shape)
    settings: dict[str, Any] = {"max_iter": 1, "init_params": np.arange(len(X)) * K // len(X)}
    for kind in STRUCTURES:
        lvm.GaussianMixture(K, covariance_type=kind, **settings).fit((X + noise).astype(dtype))


def _tiny_problems() -> Iterator[tuple[Any, Any]]:
    X = np.random.RandomState(0).normal(size=(60, 3))
    settings: dict[str, Any] = {"max_iter": 2, "random_state": 0}
    yield lvm.CategoricalMixture(2, **settings), np.where(X > 1, -1, X > 0)
    for counting in (lvm.PoissonMixture(2, **settings), lvm.NegativeBinomialMixture(2, **settings)):
        yield counting, np.round(np.exp(X))
    for amounts in (np.exp(X), np.exp(np.where(X > 1, np.nan, X))):
        yield lvm.ExponentialMixture(2, **settings), amounts
        yield lvm.GammaMixture(2, **settings), amounts
    for rows in (X, 100 + 0.1 * X):  # wide components and sharp ones
        yield lvm.VonMisesFisherMixture(2, normalize=True, **settings), rows
    for kind in ("full", "diag"):
        yield lvm.StudentTMixture(2, covariance_type=kind, **settings), X
    for kind in ("full", "tied", "diag"):
        yield lvm.GaussianMixture(2, covariance_type=kind, **settings), np.where(X > 1, np.nan, X)
    yield lvm.GaussianMixture(2, max_eigenvalue_ratio=5.0, **settings), X
    yield lvm.MixtureOfFactorAnalyzers(2, n_factors=1, **settings), X
    yield lvm.BernoulliMixture(2, **settings), np.where(X > 1, np.nan, X > 0)
    for dtype in (np.float64, np.float32):
        for kind in STRUCTURES:
            yield lvm.GaussianMixture(2, covariance_type=kind, **settings), X.astype(dtype)
        for estimator in (lvm.BernoulliMixture(2, **settings), lvm.MultinomialMixture(2, **settings)):
            ones = (X > 0).astype(dtype)
            yield estimator, ones
            yield estimator, sparse.csr_matrix(ones)
