"""Gaussian components with axis-aligned covariances that share volume, shape or both.

Each variance is volume times shape, v_kj = lambda_k a_kj with prod_j a_kj = 1; three letters say whether volume, shape
and orientation are equal (E) in all components, variable (V) or those of the identity (I), as in Celeux & Govaert
(1995), "Gaussian parsimonious clustering models", Pattern Recognition 28.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvm._jit import Array
from lvm.families.conjugate_prior import NormalInverseWishart
from lvm.families.gaussian import alive_cells, count_free_parts, refuse_partly_held
from lvm.families.gaussian_diag import DiagGaussianParams, DiagStatistics, mean_variances
from lvm.kernels.covariance import NOISE
from lvm.protocol import count_free

# An alternation ends when no value moves by more than this share of itself: the objective is flat there, and then
# within the square of it, rounding, of its maximum. Where the cap ends it, EM goes on from there and climbs no less.
SETTLED = 1e-10
MAX_STEPS = 1000


def alternated(step: Callable[[Array], Array], start: Array) -> Array:
    """Return where repeated steps from positive values lead; values that vanish or overflow end it."""
    values = start
    for _ in range(MAX_STEPS):
        after = step(values)
        change = np.abs(after / values - 1).max()
        values = after
        if not SETTLED < change < np.inf or not np.all(after > 0):
            break
    return values


def products_of_shares(squares: Array, weights: Array, volumes: Array) -> Array:
    """Return variances lambda_k a_j (K, d) of maximum likelihood, by turns, from volumes (K,) on.

    Celeux & Govaert (1995), section 4.2, model [lambda_k A], with weights (K, d) of each sum of squares (K, d). The
    problem is convex in the logarithms, so that any start leads to the same end.
    """

    def shape(volumes: Array) -> Array:
        return np.asarray((squares / volumes[:, None]).sum(axis=0) / weights.sum(axis=0))

    volumes = alternated(lambda each: (squares / shape(each)).sum(axis=1) / weights.sum(axis=1), volumes)
    return volumes[:, None] * shape(volumes)


def equal_volumes(variances: Array, counts: Array) -> Array:
    """Return variances lambda a_kj (K, d) of maximum likelihood from those without constraint (K, d).

    Celeux & Govaert (1995), section 4.2, model [lambda A_k]: all keep their shape, at the mean of their volumes.
    """
    logs = np.log(variances)
    volumes = logs.mean(axis=1, keepdims=True)
    largest = volumes.max()
    common = largest + np.log(counts @ np.exp(volumes - largest) / counts.sum())
    return np.asarray(np.exp(logs - volumes + common))


class SharedVariances(DiagStatistics):
    """What the axis-aligned structures share whose components share parts of their variances."""

    structure: ClassVar[str]
    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "Kd"}

    def __init__(
        self,
        reg_covar: float = 0.0,
        dtype: DTypeLike = np.float64,
        held: Mapping[str, NDArray[np.bool_]] | None = None,
        prior: NormalInverseWishart | None = None,
    ) -> None:
        super().__init__(reg_covar, dtype, held, prior)
        refuse_partly_held(self.structure, self.held)

    @abstractmethod
    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        """Return the variances (K, d) or (1, d) that maximise -sum_kj (weights_kj log v_kj + squares_kj / v_kj) / 2.

        Of K components, all alive; squares, weights and old variances are (K, d), totals (K, 1) the weights of all
        their rows, also of those where a feature is missing.
        """

    def _structured(self, scatter: Array, weights: Array, totals: Array, old: Array) -> Array:
        alive = alive_cells(self._weights_of_variances(weights))[:, 0]
        weights = np.broadcast_to(weights, scatter.shape)
        squares = weights * scatter + self.reg_covar * totals
        variances = np.ones_like(scatter)
        with np.errstate(all="ignore"):  # what is singular comes out as 0, inf or NaN, and is refused
            variances[alive] = self._shared(squares[alive], weights[alive], totals[alive], old[alive])
        return variances

    def nearest(self, covariances: Array) -> Array:
        """Return the variances of the structure that are nearest, each of the same weight."""
        with np.errstate(all="ignore"):
            ones = np.ones_like(covariances)
            return np.broadcast_to(self._shared(covariances, ones, ones[:, :1], covariances), covariances.shape)

    def _axis_params(self, means: Array, variances: Array) -> DiagGaussianParams:
        return self.params(means, np.repeat(variances[None], len(means), axis=0))

    def n_parameters(self, params: DiagGaussianParams) -> int:
        """Return the number of free means and of free volumes and shapes."""
        means = count_free(self.held, "means", params.means)
        return means + count_free_parts(self.held, self.structure, *params.means.shape)


class SphericalVariances(SharedVariances):
    """What the structures share of one variance (K,) for all features of a component."""

    structure: ClassVar[str] = "VII"
    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "K"}

    def _structured(self, scatter: Array, weights: Array, totals: Array, old: Array) -> Array:
        wide = np.repeat(old[:, None], scatter.shape[1], axis=1)
        return super()._structured(scatter, weights, totals, wide)[:, 0].copy()

    def _noise(self, means: Array, weights: Array) -> Array:
        return mean_variances((NOISE * means) ** 2, weights)


@final
class EIIGaussian(SharedVariances):
    """All components and features share one variance."""

    structure: ClassVar[str] = "EII"
    parameters: ClassVar[Mapping[str, str]] = {"means": "Kd", "covariances": "K"}

    def _weights_of_variances(self, weights: Array) -> Array:
        return np.full((len(weights), 1), weights.sum())

    def _structured(self, scatter: Array, weights: Array, totals: Array, old: Array) -> Array:
        wide = np.repeat(old[:, None], scatter.shape[1], axis=1)
        return super()._structured(scatter, weights, totals, wide)[:, 0].copy()

    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        return np.full((1, squares.shape[1]), squares.sum() / weights.sum())

    def nearest(self, covariances: Array) -> Array:
        """Return the variances of the structure that are nearest, each of the same weight."""
        return np.full_like(covariances, covariances.mean())

    def _noise(self, means: Array, weights: Array) -> Array:
        return mean_variances((NOISE * means) ** 2, weights)

    def _axis_params(self, means: Array, variances: Array) -> DiagGaussianParams:
        return self.params(means, np.repeat(variances.mean(), len(means)))


@final
class EEIGaussian(SharedVariances):
    """All components share a variance per feature."""

    structure: ClassVar[str] = "EEI"

    def _weights_of_variances(self, weights: Array) -> Array:
        return np.full((len(weights), 1), weights.sum())

    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        return np.asarray(squares.sum(axis=0, keepdims=True) / weights.sum(axis=0, keepdims=True))


@final
class VEIGaussian(SharedVariances):
    """The variances of the features are in the same proportions in all components."""

    structure: ClassVar[str] = "VEI"

    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        return products_of_shares(squares, weights, np.exp(np.log(old).mean(axis=1)))


@final
class EVIGaussian(SharedVariances):
    """The product of the variances is the same in all components.

    With missing cells their weight is added at the old variances, by turns: -(N_k - n_kj) (log v_kj + old_kj / v_kj) is
    largest at v = old, so that what is maximised in its place is a lower bound that touches the objective there.
    """

    structure: ClassVar[str] = "EVI"

    def _shared(self, squares: Array, weights: Array, totals: Array, old: Array) -> Array:
        missing = totals - weights

        def step(variances: Array) -> Array:
            return equal_volumes((squares + missing * variances) / totals, totals[:, 0])

        return alternated(step, old) if missing.any() else step(old)
