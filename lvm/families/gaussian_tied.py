"""Gaussian components that share one full covariance matrix: they cost little more than one component would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np

from lvm import _checks
from lvm._jit import Array, kernel
from lvm.families.gaussian import refuse_singular
from lvm.families.gaussian_full import FullGaussianParams, MatrixGaussian, matrices
from lvm.kernels.covariance import factorised_covariance, mstep_means
from lvm.kernels.estep import BOTH, DENSITIES, MOMENTS
from lvm.kernels.passes import run_pass
from lvm.kernels.patterns import PatternedRows, add_patterned_densities, add_patterned_moments
from lvm.kernels.shared import shared_room
from lvm.kernels.whitened import whitening_room
from lvm.kernels.workspace import NO_POSTERIOR, NO_RESPONSIBILITIES, Posterior
from lvm.protocol import DEAD_SHARE


class TiedGaussianStats(NamedTuple):
    """Sums of r, of r (x - m) about the current means m, and of r (x - m)(x - m)' over all components together.

    Shapes (K,), (K, d) and (1, d, d); of the last only the lower half counts.
    """

    counts: Array
    first: Array
    second: Array


NO_STATS = TiedGaussianStats(np.empty(0), np.empty((0, 0)), np.empty((0, 0, 0)))


def _room(params: FullGaussianParams, dtype: np.dtype[Any]) -> Callable[..., Any]:
    """Return what makes room for a pass: y = L (x - c) is good to eps times how far the means are from c.

    Where that is too far, each component whitens the points about its own mean.
    """
    distances = np.abs(params.means - params.means.mean(axis=0)) @ np.abs(params.inverse_cholesky[0]).T
    return shared_room if distances.max() < np.finfo(dtype).eps ** -0.25 else whitening_room


@kernel
def _mstep_tied(
    stats: TiedGaussianStats, old: FullGaussianParams, reg: float, eps: float, new: FullGaussianParams
) -> int:
    """Write the M-step with one covariance for all to new; return 0 where it is singular, else -1."""
    counts = stats.counts
    K, d = old.means.shape
    moments = np.empty(d)
    largest = np.zeros(d)
    scatter = np.empty((d, d))
    total = mstep_means(counts, stats.first, old.means, new.means)
    for i in range(d):
        moments[i] = stats.second[0, i, i] / total
        for j in range(i + 1):
            scatter[i, j] = stats.second[0, i, j] / total
    for k in range(K):
        if not counts[k] > DEAD_SHARE * total:
            continue
        for i in range(d):
            largest[i] = max(largest[i], abs(new.means[k, i]))
            for j in range(i + 1):
                scatter[i, j] -= stats.first[k, i] * (stats.first[k, j] / counts[k]) / total
    done = factorised_covariance(scatter, moments, largest, reg, eps, new.covariances[0], new.inverse_cholesky[0])
    return -1 if done else 0


@final
class TiedGaussian(MatrixGaussian):
    """All components share one covariance matrix (EEE of Celeux & Govaert, 1995).

    How densities and moments make use of that, `lvm.kernels.shared` tells.
    """

    structure: ClassVar[str] = "EEE"
    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "1dd"}

    def _n_covariances(self, n_components: int) -> int:
        return 1

    def log_density(self, X: Any, params: FullGaussianParams, out: Array) -> None:
        """Add log N(x_i; mean_k, covariance) to out (K, n)."""
        _checks.matching(X, params.means, out)
        if isinstance(X, PatternedRows):
            add_patterned_densities(X.holes, *matrices(params), out)
        else:
            run_pass(X, params, NO_POSTERIOR, out, NO_STATS, DENSITIES, _room(params, X.dtype))

    def zero_stats(self, params: FullGaussianParams) -> TiedGaussianStats:
        """Return the moments of no rows."""
        K, d = params.means.shape
        return TiedGaussianStats(np.zeros(K), np.zeros((K, d)), np.zeros((1, d, d)))

    def accumulate(self, X: Any, resp: Array, params: FullGaussianParams, stats: TiedGaussianStats) -> None:
        """Add the rows' moments about the current means."""
        if isinstance(X, PatternedRows):
            add_patterned_moments(X.holes, resp, *matrices(params), *stats)
        else:
            run_pass(X, params, NO_POSTERIOR, resp, stats, MOMENTS, _room(params, X.dtype))

    def estep(
        self, X: Any, params: FullGaussianParams, posterior: Posterior, stats: TiedGaussianStats
    ) -> tuple[float, float, int] | None:
        """Add the rows' moments about the current means, densities and responsibilities at one go."""
        if isinstance(X, PatternedRows):
            return None
        _checks.matching(X, params.means, posterior.offsets)
        return run_pass(X, params, posterior, NO_RESPONSIBILITIES, stats, BOTH, _room(params, X.dtype))

    def _maximise(self, stats: TiedGaussianStats, params: FullGaussianParams) -> FullGaussianParams:
        new = FullGaussianParams(*map(np.empty_like, params))
        refuse_singular(_mstep_tied(stats, params, self.reg_covar, self._eps, new), shared=True)
        return new
