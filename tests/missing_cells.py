"""Data with holes, and components that accept them: what the tests of missing cells share."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import bernoulli, norm

import lvm
from lvm.families import Bernoulli, DiagGaussian, SphericalGaussian
from lvm.models.mixture import MixtureParams

NAN = np.nan
GAUSSIANS = {"diag": DiagGaussian, "spherical": SphericalGaussian}
FAMILIES = {**GAUSSIANS, "bernoulli": Bernoulli}


def with_holes(X: Any, share: float, seed: int = 0) -> Any:
    """Return X as floats with this share of its cells missing, the first row whole and the second empty."""
    X = np.array(X, np.float64)
    holes = np.random.RandomState(seed).uniform(size=X.shape) < share
    holes[0] = False
    X[holes] = NAN
    X[1:2] = NAN
    return X


def data(name: str, n: int = 300, d: int = 3, seed: int = 0) -> Any:
    """Return complete rows of two groups."""
    rng = np.random.RandomState(seed)
    group = rng.randint(0, 2, (n, 1))
    if name == "bernoulli":
        return (rng.uniform(size=(n, d)) < 0.25 + 0.5 * group).astype(np.float64)
    return rng.normal(size=(n, d)) * np.linspace(1, 2, d) + 3 * group + 5.0


def parameters(name: str, K: int, d: int, seed: int = 1) -> Any:
    rng = np.random.RandomState(seed)
    if name == "bernoulli":
        return Bernoulli().params(rng.uniform(0.1, 0.9, (K, d)))
    variances = rng.uniform(0.5, 4.0, (K, d) if name == "diag" else K)
    return GAUSSIANS[name]().params(rng.normal(size=(K, d)) + 6.0, variances)


def factors(name: str, params: Any, k: int, X: Any) -> Any:
    """Return log p(x_ij | k), shape (n, d), NaN where missing."""
    if name == "bernoulli":
        return np.where(np.isnan(X), NAN, bernoulli.logpmf(np.nan_to_num(X), params.probabilities[k]))
    return norm.logpdf(X, params.means[k], 1 / params.inverse_scales[k])


def densities(family: Any, X: Any, params: Any) -> Any:
    out = np.zeros((len(params[0]), len(X)))
    family.log_density(family.canonical(X), params, out)
    return out


def mixture(name: str, K: int = 2, d: int = 3, **arguments: Any) -> tuple[Any, MixtureParams]:
    weights = np.linspace(1, 2, K)
    return lvm.Mixture(FAMILIES[name](**arguments)), MixtureParams(weights / weights.sum(), parameters(name, K, d))
