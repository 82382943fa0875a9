"""Gaussian components with a full covariance matrix each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np

from lvm import _checks
from lvm._jit import Array, kernel, part_of_kernel
from lvm.families.gaussian import GaussianFamily, refuse_singular
from lvm.kernels.candidates import Candidates, Pruning, find_candidates, pruning_depth
from lvm.kernels.covariance import factorised_covariance, mstep_means
from lvm.kernels.densities import add_log_densities
from lvm.kernels.moments import add_strip_moments, move_moments
from lvm.kernels.patterns import (
    PatternedRows,
    add_conditional_means,
    add_patterned_densities,
    add_patterned_moments,
    patterned_rows,
)
from lvm.kernels.strips import DENSE, STRIP, count_active, gather_strip, list_active, load_strip, zero_strip
from lvm.kernels.triangular import copy_matrix, inverse_cholesky
from lvm.kernels.whitening import whitened_components
from lvm.protocol import DEAD_SHARE, count_free


class FullGaussianParams(NamedTuple):
    """Means (K, d), covariances (C, d, d) and their inverse Cholesky factors (C, d, d), lower; C is K or 1."""

    means: Array
    covariances: Array
    inverse_cholesky: Array


class FullGaussianStats(NamedTuple):
    """Sums of r, r (x - m) and r (x - m)(x - m)' about the current means m: (K,), (K, d), (K, d, d).

    Of the last only the lower half counts.
    """

    counts: Array
    first: Array
    second: Array


@kernel
def _log_density(X: Array, means: Array, factors: Array, out: Array) -> None:
    """Add the Gaussian log densities of X (n, d) to out (K, n), for inverse Cholesky factors (K, d, d)."""
    add_log_densities(X, whitened_components(X, means, factors), out)


@kernel
def _accumulate(X: Array, resp: Array, means: Array, counts: Array, first: Array, second: Array) -> None:
    """Add the moments of X (n, d) about means (K, d) under resp (K, n), lower half of second (K, d, d)."""
    add_moments(X, resp, means, counts, first, second)


@part_of_kernel
def add_moments(X: Array, resp: Array, means: Array, counts: Array, first: Array, second: Array) -> None:
    """Add the moments of X (n, d) about means (K, d) under resp (K, n), lower half of second (C, d, d); C is K or 1.

    Where most responsibilities of a component are 0, its rows are gathered first.
    """
    n, d = X.shape
    K, last = means.shape[0], second.shape[0] - 1
    strip, centred = zero_strip(d + 1, X), (zero_strip(d, X), zero_strip(d, X))
    near, shift, count = means.astype(X.dtype), np.zeros((K, d)), np.zeros(K)
    active = np.empty(n, np.int64)
    gathered = strip[d]
    is_dense = np.empty(K, np.bool_)
    n_dense = 0
    for k in range(K):
        n_active = count_active(resp[k], count[k : k + 1])
        is_dense[k] = n_active > DENSE * n
        if is_dense[k]:
            n_dense += 1
            continue
        list_active(resp[k], active)
        for start in range(0, n_active, STRIP):
            m = min(STRIP, n_active - start)
            rows = active[start : start + m]
            gather_strip(X, rows, strip)
            for p in range(m):
                gathered[p] = resp[k, rows[p]]
            add_strip_moments(strip, m, gathered, near[k], centred, shift[k], second[min(k, last)])
    for start in range(0, n if n_dense else 0, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        for k in range(K):
            if is_dense[k]:
                add_strip_moments(
                    strip, m, resp[k, start : start + m], near[k], centred, shift[k], second[min(k, last)]
                )
    for k in range(K):
        move_moments(means[k], near[k], count[k], shift[k], second[min(k, last)])
        counts[k] += count[k]
        for i in range(d):
            first[k, i] += shift[k, i]


@kernel
def _pruning_depth(X: Array, params: FullGaussianParams, offsets: Array, smallest: float) -> int:
    """Return the cheapest depth of `_find_candidates` on X, 0 for none."""
    return pruning_depth(X, whitened_components(X, params.means, params.inverse_cholesky), offsets, smallest, True)


@kernel
def _find_candidates(X: Array, params: FullGaussianParams, pruning: Pruning, bounds: Array, found: Candidates) -> bool:
    """List the pairs of row and component that matter."""
    components = whitened_components(X, params.means, params.inverse_cholesky)
    return find_candidates(X, components, pruning, bounds, found)


@kernel
def _accumulate_candidates(
    X: Array, found: Candidates, means: Array, counts: Array, first: Array, second: Array
) -> None:
    """Add the moments of X (n, d) about means (K, d) under the responsibilities found."""
    d = X.shape[1]
    strip, centred = zero_strip(d + 1, X), (zero_strip(d, X), zero_strip(d, X))
    gathered = strip[d]
    near, shift = means.astype(X.dtype), np.zeros(means.shape)
    for k in range(means.shape[0]):
        count = 0.0
        for start in range(found.starts[k], found.starts[k + 1], STRIP):
            rows = found.rows[start : min(start + STRIP, found.starts[k + 1])]
            gather_strip(X, rows, strip)
            for p in range(len(rows)):
                gathered[p] = found.values[start + p]
                count += gathered[p]
            add_strip_moments(strip, len(rows), gathered, near[k], centred, shift[k], second[k])
        move_moments(means[k], near[k], count, shift[k], second[k])
        counts[k] += count
        for i in range(d):
            first[k, i] += shift[k, i]


@kernel
def _mstep_full(
    stats: FullGaussianStats, old: FullGaussianParams, reg: float, eps: float, new: FullGaussianParams
) -> int:
    """Write the M-step to new; return the first component with a singular covariance, or -1."""
    counts = stats.counts
    total = np.sum(counts)
    d = old.means.shape[1]
    delta = np.empty(d)
    moments = np.empty(d)
    scatter = np.empty((d, d))
    mstep_means(counts, stats.first, old.means, new.means)
    for k in range(len(counts)):
        if not counts[k] > DEAD_SHARE * total:
            copy_matrix(old.covariances[k], new.covariances[k])
            copy_matrix(old.inverse_cholesky[k], new.inverse_cholesky[k])
            continue
        for i in range(d):
            delta[i] = stats.first[k, i] / counts[k]
            moments[i] = stats.second[k, i, i] / counts[k]
        for i in range(d):
            for j in range(i + 1):
                scatter[i, j] = stats.second[k, i, j] / counts[k] - delta[i] * delta[j]
        if not factorised_covariance(
            scatter, moments, new.means[k], reg, eps, new.covariances[k], new.inverse_cholesky[k]
        ):
            return k
    return -1


def matrices(params: FullGaussianParams) -> tuple[Array, Array, Array]:
    """Return means, covariances and inverse Cholesky factors: what the kernels for rows with holes take."""
    return params.means, params.covariances, params.inverse_cholesky


class MatrixGaussian(GaussianFamily[FullGaussianParams]):
    """What the structures share whose covariances are matrices: all but density and statistics."""

    def params(self, means: Array, covariances: Array) -> FullGaussianParams:
        """Return parameters from means (K, d) and covariances (C, d, d), positive definite; C is K or 1."""
        means = np.array(means, np.float64, order="C")
        covariances = np.array(covariances, np.float64, order="C")
        factors = np.empty_like(covariances)
        for c, covariance in enumerate(covariances):
            if not inverse_cholesky(covariance, factors[c]) > 0:
                raise ValueError(f"covariance {c} is not symmetric, positive definite and finite.")
        return FullGaussianParams(means, covariances, factors)

    @abstractmethod
    def _n_covariances(self, n_components: int) -> int:
        """Return the number of distinct covariance matrices."""

    def _axis_params(self, means: Array, variances: Array) -> FullGaussianParams:
        return self.params(means, np.repeat(np.diag(variances)[None], self._n_covariances(len(means)), axis=0))

    def _incomplete(self, X: Array) -> PatternedRows:
        return patterned_rows(X)

    def fill(self, X: Any, resp: Array, params: FullGaussianParams, out: Array) -> None:
        """Write the posterior mean of each missing cell under resp (K, n) to out (n, d)."""
        if isinstance(X, PatternedRows):
            np.copyto(out, 0.0, where=np.isnan(X.X))
            add_conditional_means(X.holes, resp, *matrices(params), out)

    def _whitening(self, params: FullGaussianParams) -> Array:
        return params.inverse_cholesky

    def _second_moments(self, params: FullGaussianParams, shift: Array) -> Array:
        return params.covariances + shift[:, :, None] * shift[:, None, :]

    def _mean_variances(self, params: FullGaussianParams) -> Array:
        return np.asarray(np.diagonal(params.covariances, axis1=1, axis2=2).mean(axis=0))

    def to_vector(self, params: FullGaussianParams, origin: FullGaussianParams) -> Array:
        """Return the means and the inverse Cholesky factors, their diagonals in logarithms, without units."""
        location, scale = self._units(origin)
        factors = params.inverse_cholesky * scale
        rows, columns = np.tril_indices(len(scale), -1)
        lower = factors[:, rows, columns]
        diagonal = np.log(np.diagonal(factors, axis1=1, axis2=2))
        return np.concatenate([((params.means - location) / scale).ravel(), lower.ravel(), diagonal.ravel()])

    def from_vector(self, vector: Array, origin: FullGaussianParams) -> FullGaussianParams:
        """Return the parameters that have these coordinates."""
        location, scale = self._units(origin)
        factors = np.zeros_like(origin.covariances)
        n_covariances, d, _ = factors.shape
        means, lower, diagonal = np.split(vector, [origin.means.size, len(vector) - n_covariances * d])
        rows, columns = np.tril_indices(d, -1)
        factors[:, rows, columns] = lower.reshape(n_covariances, -1)
        factors[:, range(d), range(d)] = np.exp(diagonal).reshape(n_covariances, d)
        roots = np.asarray(np.linalg.inv(factors / scale), np.float64)
        return self.params(means.reshape(-1, d) * scale + location, roots @ np.swapaxes(roots, 1, 2))

    def sample(self, params: FullGaussianParams, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d)."""
        covariance = params.covariances[min(k, len(params.covariances) - 1)]
        factor = np.linalg.cholesky(covariance)
        return np.asarray(params.means[k] + rng.standard_normal((n, len(covariance))) @ factor.T)

    def n_parameters(self, params: FullGaussianParams) -> int:
        """Return d for each free mean plus d (d + 1) / 2 for each free covariance matrix."""
        d = params.means.shape[1]
        n_covariances = count_free(self.held, "covariances", params.covariances) // d**2
        return int(count_free(self.held, "means", params.means) + n_covariances * d * (d + 1) // 2)


class FullStatistics(MatrixGaussian):
    """Density and statistics of the structures with a covariance matrix per component; only the M-step differs."""

    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "Kdd"}

    def _n_covariances(self, n_components: int) -> int:
        return n_components

    def log_density(self, X: Any, params: FullGaussianParams, out: Array) -> None:
        """Add log N(x_i; mean_k, covariance_k) to out (K, n)."""
        _checks.matching(X, params.means, out)
        if isinstance(X, PatternedRows):
            add_patterned_densities(X.holes, *matrices(params), out)
        else:
            _log_density(X, params.means, params.inverse_cholesky, out)

    def zero_stats(self, params: FullGaussianParams) -> FullGaussianStats:
        """Return the moments of no rows."""
        K, d = params.means.shape
        return FullGaussianStats(np.zeros(K), np.zeros((K, d)), np.zeros((K, d, d)))

    def accumulate(self, X: Any, resp: Array, params: FullGaussianParams, stats: FullGaussianStats) -> None:
        """Add the rows' moments about the current means."""
        if isinstance(X, PatternedRows):
            add_patterned_moments(X.holes, resp, *matrices(params), *stats)
        else:
            _accumulate(X, resp.astype(X.dtype, copy=False), params.means, stats.counts, stats.first, stats.second)

    def pruning_depth(self, X: Any, params: FullGaussianParams, offsets: Array, smallest: float) -> int:
        """Return the depth of `find_candidates` that is cheapest on X, 0 for none, as where cells are missing."""
        return 0 if isinstance(X, PatternedRows) else int(_pruning_depth(X, params, offsets, smallest))

    def find_candidates(
        self, X: Array, params: FullGaussianParams, pruning: Pruning, bounds: Array, found: Candidates
    ) -> bool:
        """List the pairs that matter, by bounds from the first whitened coordinates."""
        return bool(_find_candidates(X, params, pruning, bounds, found))

    def accumulate_candidates(
        self, X: Array, found: Candidates, params: FullGaussianParams, stats: FullGaussianStats
    ) -> None:
        """Add the candidates' moments about the current means."""
        _accumulate_candidates(X, found, params.means, stats.counts, stats.first, stats.second)


@final
class FullGaussian(FullStatistics):
    """Each component has its own covariance matrix (VVV of Celeux & Govaert, 1995)."""

    structure: ClassVar[str] = "VVV"

    def _maximise(self, stats: FullGaussianStats, params: FullGaussianParams) -> FullGaussianParams:
        new = FullGaussianParams(*map(np.empty_like, params))
        refuse_singular(_mstep_full(stats, params, self.reg_covar, self._eps, new))
        return new
