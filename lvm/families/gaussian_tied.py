"""Gaussian components that share one full covariance matrix."""

from __future__ import annotations

from typing import final

import numpy as np

from lvm._jit import kernel
from lvm.families.gaussian import refuse_singular
from lvm.families.gaussian_full import FullGaussianParams, FullGaussianStats, FullStatistics
from lvm.kernels.covariance import factorised_covariance, mstep_means
from lvm.protocol import DEAD_SHARE


@kernel
def _mstep_tied(
    stats: FullGaussianStats, old: FullGaussianParams, reg: float, eps: float, new: FullGaussianParams
) -> int:
    """Write the M-step with one covariance for all to new; return 0 where it is singular, else -1."""
    counts = stats.counts
    total = np.sum(counts)
    K, d = old.means.shape
    moments = np.zeros(d)
    largest = np.zeros(d)
    scatter = np.zeros((d, d))
    mstep_means(counts, stats.first, old.means, new.means)
    for k in range(K):
        if not counts[k] > DEAD_SHARE * total:
            continue
        for i in range(d):
            largest[i] = max(largest[i], abs(new.means[k, i]))
            moments[i] += stats.second[k, i, i] / total
            for j in range(i + 1):
                shift = stats.first[k, i] * (stats.first[k, j] / counts[k])
                scatter[i, j] += (stats.second[k, i, j] - shift) / total
    done = factorised_covariance(scatter, moments, largest, reg, eps, new.covariances[0], new.inverse_cholesky[0])
    return -1 if done else 0


@final
class TiedGaussian(FullStatistics):
    """All components share one covariance matrix (EEE of Celeux & Govaert, 1995)."""

    def _n_covariances(self, n_components: int) -> int:
        return 1

    def mstep(self, stats: FullGaussianStats, params: FullGaussianParams) -> FullGaussianParams:
        """Return the weighted means and the pooled covariance."""
        new = FullGaussianParams(*map(np.empty_like, params))
        refuse_singular(_mstep_tied(stats, params, self.reg_covar, self._eps, new), shared=True)
        return new
