"""Every family of the library with random data, random parameters, and its slow twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import lvm
from lvm import families
from reference import slow

Array = NDArray[np.float64]

FAMILIES = {
    "full": families.FullGaussian,
    "tied": families.TiedGaussian,
    "diag": families.DiagGaussian,
    "spherical": families.SphericalGaussian,
    "bernoulli": families.Bernoulli,
    "multinomial": families.Multinomial,
}


@dataclass(frozen=True)
class Case:
    """One family, fed with dense or with CSR rows; `penalty` is reg_covar or alpha - 1."""

    kind: str
    is_sparse: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-csr" if self.is_sparse else self.kind

    @property
    def is_gaussian(self) -> bool:
        return self.kind in slow.GAUSSIAN

    def family(self, penalty: float = 0.0) -> Any:
        return FAMILIES[self.kind](penalty if self.is_gaussian else 1 + penalty)

    def mixture(self, penalty: float = 0.0) -> Any:
        return lvm.Mixture(self.family(penalty))

    def estimator(self, n_components: int, penalty: float = 0.0, **arguments: Any) -> Any:
        if self.is_gaussian:
            return lvm.GaussianMixture(n_components, covariance_type=self.kind, reg_covar=penalty, **arguments)
        face = lvm.BernoulliMixture if self.kind == "bernoulli" else lvm.MultinomialMixture
        return face(n_components, alpha=1 + penalty, **arguments)

    def rows(self, X: Array) -> Any:
        """Return X as this case is fed."""
        return sparse.csr_matrix(X) if self.is_sparse else X

    def data(self, rng: np.random.RandomState, n: int, d: int) -> Array:
        """Return n rows of several overlapping clusters."""
        if self.is_gaussian:
            return rng.normal(size=(n, d)) * rng.uniform(0.5, 2, d) + 3 * rng.randint(0, 3, (n, 1))
        if self.kind == "bernoulli":
            return (rng.uniform(size=(n, d)) < rng.uniform(0.1, 0.9, (3, d))[rng.randint(0, 3, n)]).astype(float)
        return np.array([rng.multinomial(rng.randint(0, 12), p) for p in rng.dirichlet(np.ones(d), n)], float)

    def random_params(self, rng: np.random.RandomState, K: int, d: int) -> Any:
        """Return the family's parameters, well inside their space."""
        means = rng.normal(size=(K, d)) + 3 * np.arange(K)[:, None]
        if self.kind in ("full", "tied"):
            roots = rng.normal(size=(K if self.kind == "full" else 1, d, d))
            return self.family().params(means, roots @ np.swapaxes(roots, 1, 2) + np.eye(d))
        if self.kind in ("diag", "spherical"):
            return self.family().params(means, rng.uniform(0.5, 4, (K, d) if self.kind == "diag" else K))
        if self.kind == "bernoulli":
            return self.family().params(rng.uniform(0.05, 0.95, (K, d)))
        return self.family().params(rng.dirichlet(np.full(d, 2.0), K))

    def random_mixture(self, rng: np.random.RandomState, K: int, d: int) -> Any:
        """Return mixing weights and the family's parameters."""
        from lvm.models.mixture import MixtureParams

        return MixtureParams(rng.dirichlet(np.full(K, 3.0)), self.random_params(rng, K, d))

    def plain(self, params: Any) -> tuple[Array, ...]:
        """Return means and covariance matrices (K, d, d), or probabilities."""
        if not self.is_gaussian:
            return (np.array(params.probabilities),)
        K, d = params.means.shape
        covariances = params.covariances[0] if self.kind == "tied" else params.covariances
        return np.array(params.means), slow.expand_covariances(self.kind, covariances, K, d)

    def slow_log_density(self, X: Array, params: Any) -> Array:
        if self.is_gaussian:
            return slow.gaussian_log_density(X, *self.plain(params))
        density = slow.bernoulli_log_density if self.kind == "bernoulli" else slow.multinomial_log_density
        return density(X, *self.plain(params))

    def slow_mstep(self, X: Array, resp: Array, penalty: float = 0.0) -> tuple[Array, ...]:
        """Return what `plain` gives of the M-step's parameters."""
        if self.is_gaussian:
            return slow.gaussian_mstep(self.kind, X, resp, penalty)
        mstep = slow.bernoulli_mstep if self.kind == "bernoulli" else slow.multinomial_mstep
        return (mstep(X, resp, 1 + penalty),)

    def slow_penalty(self, params: Any, penalty: float) -> Array:
        """Return the term added to each component's log density, (K,): the trace penalty of reg_covar."""
        if not self.is_gaussian or penalty == 0:
            return np.zeros(len(params[0]))
        return np.array([-0.5 * penalty * np.trace(np.linalg.inv(c)) for c in self.plain(params)[1]])

    def slow_prior(self, params: Any, penalty: float) -> float:
        """Return the log prior, up to a constant: alpha - 1 pseudo-counts."""
        if self.is_gaussian or penalty == 0:
            return 0.0
        p = params.probabilities
        return penalty * float(np.log(p).sum() + (np.log1p(-p).sum() if self.kind == "bernoulli" else 0.0))


GAUSSIANS = [Case(kind) for kind in slow.GAUSSIAN]
PROBABILITIES = [
    Case("bernoulli"),
    Case("bernoulli", is_sparse=True),
    Case("multinomial"),
    Case("multinomial", is_sparse=True),
]
CASES = GAUSSIANS + PROBABILITIES


def slow_iteration(
    case: Case,
    X: Array,
    params: Any,
    sample_weight: Array | None = None,
    labels: NDArray[np.int64] | None = None,
    penalty: float = 0.0,
) -> tuple[float, Array, tuple[Array, ...]]:
    """Run one EM iteration; returns the objective before it, the new weights and the new plain parameters."""
    result = slow.posterior(
        case.slow_log_density(X, params.components),
        params.weights,
        sample_weight,
        labels,
        case.slow_penalty(params.components, penalty),
    )
    objective = result.loglik + result.penalty + case.slow_prior(params.components, penalty)
    counts = result.resp.sum(axis=1)
    return objective, counts / counts.sum(), case.slow_mstep(X, result.resp, penalty)
