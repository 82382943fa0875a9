"""What the tests of the fourteen covariance structures share."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

import lvm
from lvm.estimators.gaussian import FOURTEEN

Array = NDArray[np.float64]
NAN = np.nan

NEW = ("EII", "EEI", "VEI", "EVI", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV")
ALIGNED = ("EII", "VII", "EEI", "VEI", "EVI", "VVI")
each_new = pytest.mark.parametrize("name", NEW)
each = pytest.mark.parametrize("name", FOURTEEN)


def family(name: str, **arguments: Any) -> Any:
    return FOURTEEN[name].family(**arguments)


def matrices(covariances: Array, K: int, d: int) -> Array:
    """Return covariance matrices (K, d, d) from a family's."""
    if covariances.ndim == 3:
        return np.broadcast_to(covariances, (K, d, d))
    return np.broadcast_to(covariances.reshape(K, -1), (K, d))[:, :, None] * np.eye(d)


def partition(K: int, d: int, n: int = 240, seed: int = 0) -> tuple[Array, Array]:
    """Return rows of K groups that differ in volume, shape and orientation, and soft responsibilities (K, n)."""
    rng = np.random.RandomState(seed)
    groups = rng.randint(0, K, n)
    roots = rng.normal(size=(K, d, d)) + 1.5 * np.eye(d)
    X = np.einsum("nij,nj->ni", roots[groups], rng.normal(size=(n, d))) + 3 * rng.normal(size=(K, d))[groups]
    resp = 0.9 * np.eye(K)[groups].T + 0.1 * rng.dirichlet(np.ones(K), n).T
    return X, np.ascontiguousarray(resp)


def mstep(name: str, X: Array, resp: Array, old: Any = None, **arguments: Any) -> Any:
    """Return the parameters of an M-step from neutral ones, or from those given."""
    chosen = family(name, **arguments)
    rows = chosen.canonical(X)
    old = chosen.start(X, np.ones(len(X)), len(resp)) if old is None else old
    stats = chosen.zero_stats(old)
    chosen.accumulate(rows, resp, old, stats)
    return chosen.mstep(stats, old)


def fitted(name: str, X: Array, labels: Any = None, **arguments: Any) -> Any:
    settings: dict[str, Any] = {"reg_covar": 0.0, "tol": 0.0, "max_iter": 20, **arguments}
    labels = np.arange(len(X)) // (len(X) // 3) % 3 if labels is None else labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return lvm.GaussianMixture(3, covariance_type=name, init_params=labels, **settings).fit(X)


class Cost:
    """-2 / n times the penalised expected log-likelihood of covariances (K, d, d), by patterns of holes."""

    def __init__(self, means: Array, X: Array, resp: Array, reg_covar: float = 0.0) -> None:
        self.pieces = []
        seen = ~np.isnan(X)
        for pattern in np.unique(seen, axis=0):
            rows, at = (seen == pattern).all(axis=1), np.flatnonzero(pattern)
            z = X[rows][:, at] - means[:, None, at]
            self.pieces.append((at, resp[:, rows].sum(axis=1), np.einsum("kn,kni,knj->kij", resp[:, rows], z, z)))
        self.noise = reg_covar * resp.sum(axis=1)[:, None, None] * np.eye(X.shape[1])
        self.n = len(X)

    def __call__(self, covariances: Array) -> float:
        total = np.sum(np.linalg.inv(covariances) * self.noise)
        for at, counts, scatters in self.pieces:
            part = covariances[:, at[:, None], at]
            total += counts @ np.linalg.slogdet(part)[1] + np.sum(np.linalg.inv(part) * scatters)
        return float(total / self.n)
