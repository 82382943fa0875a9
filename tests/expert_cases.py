"""Mixtures of regressions on drawn rows, and their log-likelihoods term by term: what the tests of experts share."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit, gammaln, log_softmax

from lvm._jit import canonical
from lvm.models.count_experts import BinomialExperts, PoissonExperts
from lvm.models.expert_rows import ExpertsRows, RegressionRows
from lvm.models.experts import ExpertsParams, GatedExperts
from lvm.models.gates import ConstantGate, SoftmaxGate
from lvm.models.gaussian_experts import GaussianExperts
from lvm.models.multinomial_experts import MultinomialExperts
from lvm.models.newton import column_bounds

KINDS = ("gaussian", "poisson", "binomial", "multinomial")
COEFFICIENTS = np.array([[0.2, 1.0, 0.5], [0.5, -0.8, 0.3]])
PER_GROUP = 3


def case(kind: str, gated: bool, grouped: bool, alpha: float = 0.0, n: int = 240) -> tuple[Any, Any, Any]:
    """Return a model, parameters off the optimum, and rows drawn from two crossing regressions."""
    rng = np.random.RandomState(0)
    X = canonical(np.column_stack([np.ones(n), rng.randn(n, 2)]))
    bounds = column_bounds(X)
    n_units = n // PER_GROUP if grouped else n
    component = rng.randint(0, 2, n_units)
    of_row = component.repeat(n // n_units)
    eta = (X * COEFFICIENTS[of_row]).sum(axis=1)
    size, constants = None, None
    experts: Any
    if kind == "gaussian":
        y = 2 * eta + 0.7 * rng.randn(n)
        experts = GaussianExperts(alpha)
    elif kind == "poisson":
        size = rng.uniform(0.5, 3.0, n)
        y = rng.poisson(size * np.exp(eta))
        constants = y * np.log(size) - gammaln(y + 1)
        experts = PoissonExperts(bounds, alpha)
    elif kind == "binomial":
        size = rng.randint(5, 12, n)
        y = rng.binomial(size, expit(2 * eta))
        constants = gammaln(size + 1) - gammaln(y + 1) - gammaln(size - y + 1)
        experts = BinomialExperts(bounds, alpha)
    else:
        y = np.clip(np.round(eta + 0.4 * rng.logistic(size=n)), -1, 1) + 1
        experts = MultinomialExperts(bounds, 3, alpha)
    z = canonical(np.column_stack([np.ones(n_units), rng.randn(n_units)])) if gated else None
    gate = ConstantGate(1 + alpha) if z is None else SoftmaxGate(column_bounds(z), alpha)
    indptr = canonical(np.arange(0, n + 1, PER_GROUP), np.int64) if grouped else None
    data = RegressionRows(
        X,
        canonical(y),
        None if size is None else canonical(size),
        None if constants is None else canonical(constants),
        z,
        indptr,
    )
    model, rows = GatedExperts(experts, gate), ExpertsRows(data)
    labels = np.where(rng.rand(n_units) < 0.2, 1 - component, component)
    params = model.from_assignment(rows, labels, 2)
    return model, params._replace(gate=gate.start(np.array([0.4, 0.6]))), rows


def log_densities(kind: str, params: ExpertsParams, data: RegressionRows) -> Any:
    """Return log p(k | z) + sum over its rows of log p(y | x, k) of each unit and component, by scipy: (n_units, K)."""
    X, y = data.design, data.response
    b = params.experts.coefficients
    if kind == "multinomial":
        rows = np.stack([log_softmax(X @ each.T, axis=1)[np.arange(len(y)), y.astype(int)] for each in b], axis=1)
    else:
        eta = X @ b.T
        size = np.ones(len(y)) if data.size is None else data.size
        if kind == "gaussian":
            rows = stats.norm.logpdf(y[:, None], eta, params.experts.scales)
        elif kind == "poisson":
            rows = stats.poisson.logpmf(y[:, None], size[:, None] * np.exp(eta))
        else:
            rows = stats.binom.logpmf(y[:, None], size[:, None], expit(eta))
            # expit(37) is 1: scipy's density of probabilities cannot tell large log odds apart
            exact = data.constants[:, None] + y[:, None] * eta - size[:, None] * np.logaddexp(0, eta)
            rows = np.where(np.abs(eta) < 5, rows, exact)
    if data.indptr is not None:
        rows = np.stack([rows[a:b].sum(axis=0) for a, b in zip(data.indptr, data.indptr[1:], strict=False)])
    if data.gate is None:
        return rows + np.log(params.gate.weights)
    return rows + log_softmax(data.gate @ params.gate.coefficients.T, axis=1)


def crossing(n: int = 300, seed: int = 0, kind: str = "gaussian") -> tuple[Any, Any, Any]:
    """Return covariates, a response of two regressions, and the components."""
    rng = np.random.RandomState(seed)
    X = rng.randn(n, 2) * [1.0, 20.0] + [5.0, -300.0]
    component = rng.randint(0, 2, n)
    coefficients = np.array([[1.0, 0.03], [-1.0, 0.02]])
    eta = (X - X.mean(axis=0)) @ coefficients.T
    eta = eta[np.arange(n), component] + 0.5
    y: Any = 2 * eta + 0.5 * rng.randn(n)
    if kind == "poisson":
        y = rng.poisson(np.exp(eta))
    if kind == "binomial":
        y = (rng.rand(n) < expit(eta)).astype(int)
    if kind == "multinomial":
        y = np.array(["low", "middle", "up"])[np.clip(np.round(eta + rng.logistic(size=n) * 0.5), 0, 2).astype(int)]
    return X, y, component
