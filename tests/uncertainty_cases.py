"""The mixtures whose standard errors are tested, fitted when first asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import lvm
from lvm.mixture_coordinates import MixtureCoordinates

RNG = np.random.default_rng(11)
N = 300
SECOND = RNG.random(N) < 0.4
EXACT: dict[str, Any] = {"tol": 1e-13, "max_iter": 20_000, "random_state": 0}
COUNTS = np.where(SECOND[:, None], RNG.negative_binomial(4, 0.2, (N, 2)), RNG.poisson(3.0, (N, 2)))
BINARY = (RNG.random((N, 4)) < np.where(SECOND[:, None], 0.8, 0.2)).astype(np.float64)
CODES = np.column_stack([RNG.binomial(2, np.where(SECOND, p, 1 - p)) for p in (0.8, 0.75, 0.3, 0.2)])
NORMAL = RNG.normal(size=(N, 2)) * np.where(SECOND[:, None], [1.0, 2.0], [0.5, 1.0])
NORMAL[SECOND] = NORMAL[SECOND] @ np.array([[1.0, 0.4], [0.0, 1.0]]) + [4.0, 1.0]
HEAVY = NORMAL + 0.5 * RNG.standard_t(2.0, size=(N, 2))
POSITIVE = np.where(SECOND[:, None], RNG.gamma(5.0, 1.0, (N, 2)), RNG.gamma(2.0, 10.0, (N, 2)))
DIRECTIONS = np.where(SECOND[:, None], [3.0, 0.0, 0.0], [0.0, 2.0, 1.0]) + RNG.normal(size=(N, 3))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
TOTALS = np.array([RNG.multinomial(20, [0.5, 0.3, 0.2] if second else [0.1, 0.2, 0.7]) for second in SECOND])
BLOCKS = [("size", "gaussian", [0, 1]), ("answer", "categorical", [2]), ("visits", "poisson", [3])]
MIXED = np.column_stack([NORMAL, CODES[:, 0], COUNTS[:, 0]])

STRUCTURES = ("full", "tied", "diag", "spherical", "EII", "EEI", "VEI", "EVI", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV")
CASES = {
    **{
        f"gaussian {kind}": (lvm.GaussianMixture(2, covariance_type=kind, reg_covar=0.0, **EXACT), NORMAL)
        for kind in STRUCTURES
    },
    "gaussian penalised": (lvm.GaussianMixture(2, reg_covar=0.1, **EXACT), NORMAL),
    "student t": (lvm.StudentTMixture(2, **EXACT), HEAVY),
    "student t common": (lvm.StudentTMixture(2, degrees_of_freedom="common", covariance_type="diag", **EXACT), HEAVY),
    "bernoulli": (lvm.BernoulliMixture(2, **EXACT), BINARY),
    "categorical": (lvm.CategoricalMixture(2, **EXACT), CODES),
    "categorical prior": (lvm.CategoricalMixture(2, alpha=3.0, weights_prior=4.0, **EXACT), CODES),
    "poisson": (lvm.PoissonMixture(2, **EXACT), COUNTS),
    "negative binomial": (lvm.NegativeBinomialMixture(2, **EXACT), RNG.negative_binomial(2, 0.2, (N, 2)) + COUNTS),
    "exponential": (lvm.ExponentialMixture(2, **EXACT), POSITIVE),
    "gamma": (lvm.GammaMixture(2, **EXACT), POSITIVE),
    "directions": (lvm.VonMisesFisherMixture(2, **EXACT), DIRECTIONS),
    "multinomial": (lvm.MultinomialMixture(2, **EXACT), TOTALS),
    "mixed": (lvm.MixedMixture(BLOCKS, 2, **EXACT), MIXED),
}


def fitted(name: str) -> tuple[Any, Any]:
    estimator, X = CASES[name]
    return (estimator if hasattr(estimator, "weights_") else estimator.fit(X)), X


def flat(errors: Any) -> NDArray[np.float64]:
    if isinstance(errors, dict):
        return np.concatenate([flat(value) for value in errors.values()])
    if isinstance(errors, list):
        return np.concatenate([flat(value) for value in errors])
    return np.ravel(errors)


def coordinates(
    estimator: Any, X: Any, weight: Any = None, labels: Any = None, params: Any = None
) -> MixtureCoordinates:
    model, rows, fitted_params = estimator._information_rows(X, weight, labels, None)
    return MixtureCoordinates(model, rows, params or fitted_params, estimator._values_by_name)
