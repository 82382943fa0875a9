"""Models beyond the mixtures of one family: blocks of several kinds, a user's own family, experts, factors, traits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

import lvm

from .cases import IS_QUICK
from .timing import seconds_per_iteration

N_ITER = 10
K = 4


class GeometricParams(NamedTuple):
    """Probabilities (K, d) that a count ends."""

    ends: Any


class GeometricStats(NamedTuple):
    """Weights (K, 1) and weighted sums (K, d) of counts."""

    counts: Any
    sums: Any


class Geometric:
    """Geometric counts in numpy, as a user would write a family of their own."""

    parameters = {"ends": "Kd"}  # noqa: RUF012 - as users write it

    def params(self, ends: Any) -> GeometricParams:
        return GeometricParams(np.array(ends, np.float64))

    def start(self, X: Any, weight: Any, n_components: int) -> GeometricParams:
        return GeometricParams(np.tile(1 / (1 + np.average(X, axis=0, weights=weight)), (n_components, 1)))

    def log_density(self, X: Any, params: GeometricParams, out: Any) -> None:
        out += np.log1p(-params.ends) @ X.T + np.log(params.ends).sum(axis=1)[:, None]

    def zero_stats(self, params: GeometricParams) -> GeometricStats:
        return GeometricStats(np.zeros((len(params.ends), 1)), np.zeros(params.ends.shape))

    def accumulate(self, X: Any, resp: Any, params: GeometricParams, stats: GeometricStats) -> None:
        np.add(stats.counts, resp.sum(axis=1, keepdims=True), out=stats.counts)
        np.add(stats.sums, resp @ X, out=stats.sums)

    def mstep(self, stats: GeometricStats, params: GeometricParams) -> GeometricParams:
        return GeometricParams(stats.counts / (stats.counts + stats.sums))

    def sample(self, params: GeometricParams, k: int, n: int, rng: np.random.RandomState) -> Any:
        return rng.geometric(params.ends[k], (n, params.ends.shape[1])) - 1.0

    def n_parameters(self, params: GeometricParams) -> int:
        return int(params.ends.size)


def _rows(n: int, d: int) -> tuple[Any, Any, Any]:
    """Return rows (n, d) of K groups three standard deviations apart, their groups, and a start that knows 4 in 5."""
    n = min(n, 2_000) if IS_QUICK else n
    rng = np.random.default_rng(0)
    group = rng.integers(K, size=n)
    X = rng.standard_normal((n, d)) + 3 / np.sqrt(d) * rng.standard_normal((K, d))[group]
    return X, group, np.where(rng.random(n) < 0.8, group, rng.integers(K, size=n))


def _mixed() -> tuple[Any, ...]:
    X, _, start = _rows(50_000, 12)
    X[:, 4:8] = np.digitize(X[:, 4:8], [-1.0, 0.0, 1.0])
    X[:, 8:] = np.floor(np.exp(0.5 * X[:, 8:]))
    blocks = [("a", "gaussian", slice(0, 4)), ("b", "categorical", slice(4, 8)), ("c", "poisson", slice(8, 12))]
    return lvm.MixedMixture(blocks, K, init_params=start, n_jobs=1), X


def _own_family() -> tuple[Any, ...]:
    X, _, start = _rows(50_000, 8)
    return lvm.MixtureModel(Geometric(), K, init_params=start, n_jobs=1), np.floor(np.exp(X))


def _experts() -> tuple[Any, ...]:
    X, group, start = _rows(50_000, 4)
    y = (X * np.random.default_rng(1).standard_normal((K, 4))[group]).sum(axis=1) + 0.3 * X[:, 0] ** 2
    return lvm.MixtureOfExperts(K, gating="softmax", init_params=start, n_init=1, n_jobs=1), X, y


def _factor_analysis() -> tuple[Any, ...]:
    return lvm.FactorAnalysis(5, acceleration=None, n_jobs=1), _rows(20_000, 100)[0]


def _factor_mixture() -> tuple[Any, ...]:
    X, _, start = _rows(20_000, 40)
    return lvm.MixtureOfFactorAnalyzers(K, n_factors=3, init_params=start, acceleration=None, n_jobs=1), X


def _latent_trait() -> tuple[Any, ...]:
    X, _, _ = _rows(20_000, 20)
    return lvm.LatentTrait(deduplicate=False, n_jobs=1), X + X[:, :1] > np.linspace(-1.0, 1.0, 20)


def _evidence_regression() -> tuple[Any, ...]:
    X, _, _ = _rows(20_000, 100)
    return lvm.BayesianLinearRegression(), X, X[:, :10].sum(axis=1) + X[:, 0] ** 2


# The estimator that a commit must have, and what makes it and its data.
MODELS: dict[str, tuple[str, Callable[[], tuple[Any, ...]]]] = {
    "mixed 50000x(4+4+4) K=4": ("MixedMixture", _mixed),
    "own family 50000x8 K=4": ("MixtureModel", _own_family),
    "experts 50000x4 K=4": ("MixtureOfExperts", _experts),
    "factor analysis 20000x100 q=5": ("FactorAnalysis", _factor_analysis),
    "factor mixture 20000x40 K=4 q=3": ("MixtureOfFactorAnalyzers", _factor_mixture),
    "latent trait 20000x20": ("LatentTrait", _latent_trait),
    "evidence regression 20000x100": ("BayesianLinearRegression", _evidence_regression),
}


class Models:
    """Fits of a fixed number of iterations, on one thread."""

    params = (("lvm",), tuple(MODELS))
    param_names = ("library", "model")
    warmup_time = 0.0
    number = 1
    repeat = 3
    timeout = 300

    def setup(self, _library: str, model: str) -> None:
        """Make the data, and compile."""
        threadpool_limits(1)
        name, make = MODELS[model]
        if not hasattr(lvm, name):
            raise NotImplementedError(f"this commit has no {name}")
        self.estimator, *self.data = make()
        self.estimator.set_params(tol=0)
        self.fit(1)

    def fit(self, n_iter: int) -> Callable[[], float]:
        """Fit by so many M-steps; return what tells the log-likelihood."""
        fitted = self.estimator.set_params(max_iter=n_iter).fit(*self.data)
        return lambda: float(fitted.loglik_)

    def time_fit(self, _library: str, _model: str) -> None:
        """Time a fit."""
        self.fit(N_ITER)

    def track_seconds_per_iteration(self, _library: str, _model: str) -> float:
        """Measure an iteration, without validation and what else a fit does once."""
        return seconds_per_iteration([self.fit], 1, 1 + N_ITER, 1 if IS_QUICK else 5)[0]

    track_seconds_per_iteration.unit = "seconds"  # type: ignore[attr-defined]

    def track_loglik(self, _library: str, _model: str) -> float:
        """Record the log-likelihood reached: a fast wrong answer shows."""
        return self.fit(N_ITER)()

    track_loglik.unit = "nats"  # type: ignore[attr-defined]
