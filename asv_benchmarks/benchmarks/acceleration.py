"""Iterations that acceleration saves on slow problems."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import lvm

from .cases import IS_QUICK

CLOSE = 1e-6  # nats: both sides run until they are so close to the log-likelihood that plain EM reaches in the end
MAX_ITER = 300 if IS_QUICK else 20_000


def _overlapping(covariance_type: str) -> tuple[Any, Any]:
    """Return a Gaussian mixture and rows of two components 1.5 standard deviations apart."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2_000, 2))
    X[:1_000, 0] += 1.5
    means = np.array([[-0.5, 0.0], [2.0, 0.0]])
    options = {"means_init": means, "weights_init": [0.5, 0.5], "covariances_init": _unit(covariance_type)}
    return lvm.GaussianMixture(2, covariance_type=covariance_type, reg_covar=0, **options), X


def _unit(covariance_type: str) -> Any:
    return {"full": np.repeat(np.eye(2)[None], 2, axis=0), "diag": np.ones((2, 2))}[covariance_type]


def _latent_classes() -> tuple[Any, Any]:
    """Return a Bernoulli mixture and answers to seven items, from four classes that are hard to tell apart."""
    rng = np.random.default_rng(0)
    probabilities = np.clip(0.5 + 0.35 * rng.standard_normal((4, 7)), 0.02, 0.98)
    X = rng.random((500, 7)) < probabilities[rng.integers(4, size=500)]
    start = 0.5 * probabilities + 0.5 * probabilities.mean(axis=0)
    return lvm.BernoulliMixture(4, probabilities_init=start, weights_init=np.full(4, 0.25), deduplicate=True), X


PROBLEMS = {
    "Gaussian full, 1.5 sd apart": lambda: _overlapping("full"),
    "Gaussian diag, 1.5 sd apart": lambda: _overlapping("diag"),
    "four latent classes, seven items": _latent_classes,
}


def iterations(name: str) -> tuple[int, int]:
    """Return the iterations of plain EM and of the accelerated one, to the same log-likelihood."""
    estimator, X = PROBLEMS[name]()
    traces = []
    for acceleration in (None, "anderson"):
        estimator.set_params(acceleration=acceleration, tol=0, max_iter=MAX_ITER)
        traces.append(estimator.fit(X).objective_trace_)
    level = min(trace[-1] for trace in traces) - CLOSE
    plain, fast = (int(np.argmax(trace >= level)) for trace in traces)
    return plain, fast


class Acceleration:
    """Share of plain EM's iterations that the accelerated one takes."""

    params: ClassVar = list(PROBLEMS)
    param_names: ClassVar = ["problem"]

    def track_share(self, problem: str) -> float:
        """Measure the share."""
        plain, fast = iterations(problem)
        return fast / plain
