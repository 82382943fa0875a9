"""Student t components: slow sums and bounds, row by row, random parameters, and kinds of constraints."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln

import lvm
from lvm.models.mixture import Mixture, MixtureParams

Array = NDArray[np.float64]

KINDS: list[dict[str, Any]] = [
    {},
    {"degrees_of_freedom": "common"},
    {"degrees_of_freedom": 1.5},
    {"reg_covar": 0.5},
    {"degrees_of_freedom": "common", "reg_covar": 0.5},
    {"held": {"means": np.array([True, False])}},
    {"held": {"scatters": np.array([True, False])}},
    {"held": {"degrees_of_freedom": np.array([False, True]), "means": np.array([True, True])}},
    {"degrees_of_freedom": "common", "held": {"scatters": np.array([True, True])}},
]


def random_params(family: Any, K: int, d: int, seed: int, nu: Any = None) -> Any:
    """Return parameters with correlations where the structure has them."""
    rng = np.random.RandomState(seed)
    roots = rng.standard_normal((K, d, d)) + 2 * np.eye(d)
    scatters = roots @ np.swapaxes(roots, 1, 2)
    if family.parameters["scatters"] == "Kd":
        scatters = np.diagonal(scatters, axis1=1, axis2=2)
    nu = rng.uniform(0.5, 30, K) if nu is None else np.full(K, nu)
    return family.params(3 * rng.standard_normal((K, d)), scatters, nu)


def matrices(scatters: Array) -> Array:
    return scatters if scatters.ndim == 3 else np.stack([np.diag(row) for row in scatters])


def distances(X: Array, mean: Array, scatter: Array) -> Array:
    z = np.linalg.solve(np.linalg.cholesky(scatter), (X - mean).T)
    return np.asarray((z**2).sum(axis=0))


def expected_loglik(X: Array, r: Array, mean: Array, scatter: Array, nu: float) -> float:
    return float(r @ stats.multivariate_t(mean, scatter, df=nu).logpdf(X).reshape(-1))


def lower_bound(X: Array, r: Array, old: tuple[Any, Any, Any], new: tuple[Any, Any, Any]) -> float:
    """Return the bound of `expected_loglik` at new parameters by tangents at old ones, row by row."""
    (mean0, scatter0, nu0), (mean, scatter, nu), d = old, new, X.shape[1]
    p0, p = distances(X, mean0, scatter0) / nu0, distances(X, mean, scatter) / nu
    a, s = r @ (p0 / (1 + p0)) / r.sum(), nu / nu0
    logarithm = np.log1p(p0) + s**a * (1 + p) / (1 + p0) - 1 - a * np.log(s)
    constant = gammaln((nu + d) / 2) - gammaln(nu / 2) - d / 2 * np.log(np.pi * nu)
    return float(r.sum() * (constant - np.linalg.slogdet(scatter)[1] / 2) - (nu + d) / 2 * (r @ logarithm))


def component(params: Any, k: int) -> tuple[Any, Any, Any]:
    return params.means[k], matrices(params.scatters)[k], params.degrees_of_freedom[k]


def heavy_rows(n: int = 300, d: int = 3, seed: int = 0) -> Array:
    rng = np.random.RandomState(seed)
    return np.concatenate([rng.standard_t(2.5, (n, d)), 4 + rng.standard_t(6, (n // 2, d)) @ rng.randn(d, d)])


def problem(family: Any, d: int = 3, seed: int = 0) -> tuple[Any, Any, Any]:
    X = heavy_rows(d=d, seed=seed)
    params = family.start(X, np.ones(len(X)), 2)
    params = params._replace(means=params.means + np.array([[-1.0], [1.0]]) * X.std(axis=0))
    model = Mixture(family)
    return model, MixtureParams(np.array([0.4, 0.6]), params), model.canonical(lvm.Rows(X))


def slow_stats(X: Array, resp: Array, params: Any) -> Any:
    sums: Any = [[], [], [], [], []]
    for k, r in enumerate(resp):
        mean, scatter, nu = component(params, k)
        p = distances(X, mean, scatter) / nu
        w, z = r / (1 + p), X - mean
        second = (w[:, None] * z).T @ z
        values = r.sum(), w.sum(), r @ np.log1p(p), w @ z, second if params.scatters.ndim == 3 else np.diag(second)
        for each, value in zip(sums, values, strict=True):
            each.append(value)
    return [np.array(each) for each in sums]


def peel_mclachlan(X: Array, r: Array, old: tuple[Any, Any, Any]) -> tuple[Array, Array]:
    mean, scatter, nu = old
    u = (nu + X.shape[1]) / (nu + distances(X, mean, scatter))
    mean = (r * u) @ X / (r @ u)
    return mean, ((r * u)[:, None] * (X - mean)).T @ (X - mean) / r.sum()


def bound_of_terms(terms: Array, d: int, nu: Array) -> Array:
    count, weight, logarithms, distance, old = terms
    a, s = 1 - weight / count, nu / old
    mean = logarithms / count - 1 + s**a * (weight + distance / nu) / count - a * np.log(s)
    constant = gammaln((nu + d) / 2) - gammaln(nu / 2) - d / 2 * np.log(nu)
    return np.asarray(count * (constant - (nu + d) / 2 * mean))
