"""What all Gaussian structures share: regularisation, thresholds, and the neutral start."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.families.conjugate_prior import NormalInverseWishart
from lvm.families.draws import certain, draw_components
from lvm.kernels.incomplete import observed_column_moments
from lvm.kernels.moments import column_moments, sums_of_squares
from lvm.protocol import DEAD_SHARE, CanonicalRows, DegenerateError, keep_held, row_parts

Params = TypeVar("Params", bound=Any)
Regularised = TypeVar("Regularised", bound=Any)

QUARTILES = 1.3489795003921634  # distance between the quartiles of a normal distribution, in standard deviations


class GaussianFamily(ABC, Generic[Params]):
    """Base of the Gaussian structures.

    Parameters
    ----------
    reg_covar : float
        Added to every variance in the M-step, in squared units of the data. This is the exact M-step of
        the expected log-likelihood under a blur of the data by independent noise of this variance,

        Q(theta) - reg_covar / 2 * sum_k N_k tr(inverse covariance_k),

        so EM climbs that penalised objective (`log_penalty`) and stays monotone. 0 is maximum likelihood.
    dtype : {float64, float32}
        Of the rows, and of the arithmetic of the densities and of the moments of a few hundred rows; parameters,
        statistics and log-likelihoods are float64.
    held : mapping of str to ndarray of bool, optional
        Components whose "means" or "covariances" the M-step keeps, as masks (K,); of a shared covariance (1,).
    prior : NormalInverseWishart, optional
        Prior of means and covariances: the M-step then is that of maximum a posteriori. To its log density belongs
        -reg_covar / 2 tr(inverse covariance) for each unit of weight that it adds to a component.
    """

    parameters: ClassVar[Mapping[str, str]]
    structure: ClassVar[str]  # volume, shape and orientation, as three letters
    accepts_missing = True
    ignores_negligible = True

    def __init__(
        self,
        reg_covar: float = 0.0,
        dtype: DTypeLike = np.float64,
        held: Mapping[str, NDArray[np.bool_]] | None = None,
        prior: NormalInverseWishart | None = None,
    ) -> None:
        if not 0 <= reg_covar < np.inf:
            raise ValueError(f"reg_covar must be finite and >= 0, got {reg_covar}.")
        self.reg_covar = float(reg_covar)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float64, np.float32):
            raise ValueError(f"dtype must be float64 or float32, got {self.dtype}.")
        self._eps = float(np.finfo(self.dtype).eps)
        self.held = dict(held or {})
        if prior is not None:
            prior.check(self.structure)
        self.prior = prior

    def __repr__(self) -> str:
        prior = "" if self.prior is None else f", prior={self.prior!r}"
        return f"{type(self).__name__}(reg_covar={self.reg_covar:g}{prior})"

    @abstractmethod
    def params(self, means: Array, covariances: Array) -> Params:
        """Return parameters from means (K, d) and covariances in the shape of the structure."""

    def nearest(self, covariances: Array) -> Array:
        """Return the covariances of the structure that are nearest, each of the same weight, in its own shape.

        Nearest by the M-step, that is by Kullback-Leibler divergence from those given; what has the structure stays.
        """
        return covariances

    @abstractmethod
    def _maximise(self, stats: Any, params: Params) -> Params:
        """Return the M-step's parameters where none are held."""

    @abstractmethod
    def _second_moments(self, params: Params, shift: Array) -> Array:
        """Return the second moments about mean - shift (K, d) that belong to the covariances."""

    @abstractmethod
    def _axis_params(self, means: Array, variances: Array) -> Params:
        """Return parameters with the same variances (d,), all > 0, in every component."""

    @abstractmethod
    def _whitening(self, params: Params) -> Array:
        """Return factors (C, d, e) whose squares sum to the trace of each inverse covariance; C is K or 1."""

    @abstractmethod
    def _mean_variances(self, params: Params) -> Array:
        """Return the variance of each feature within components, on average, shape (d,)."""

    def _units(self, origin: Params) -> tuple[Array, Array]:
        """Return a location and a scale of each feature, (d,) each."""
        return origin.means.mean(axis=0), np.sqrt(self._mean_variances(origin))

    @abstractmethod
    def _incomplete(self, X: Array) -> Any:
        """Return canonical float64 rows (n, d), NaN where missing, as the kernels for rows with holes see them."""

    def canonical(self, X: Any) -> Any:
        """Return X in the family's dtype, C order, read-only; as float64 rows with holes where cells are NaN."""
        if isinstance(X, CanonicalRows):
            return X
        array = canonical(X, self.dtype)
        _checks.matrix(array)
        _checks.finite(array, allow_missing=True)
        # Finite numbers may overflow to inf - inf: a sum that is NaN is no proof.
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = np.isnan(np.sum(array))
        return self._incomplete(canonical(X)) if suspicious and np.isnan(array).any() else array

    def start(self, X: Any, weight: Array, n_components: int) -> Params:
        """Return K equal components at the mean of X (n, d), with the variances of its columns."""
        mean, variance = np.empty(X.shape[1]), np.empty(X.shape[1])
        moments_of_columns(self.canonical(X), canonical(weight), mean, variance)
        variance += self.reg_covar
        variance[variance == 0] = 1.0  # a constant column: any finite scale serves as a start
        return self._axis_params(np.repeat(mean[None], n_components, axis=0), variance)

    @abstractmethod
    def fill(self, X: Any, resp: Array, params: Params, out: Array) -> None:
        """Write the posterior mean of each missing cell under resp (K, n) to out (n, d)."""

    def draw_missing(self, X: Any, resp: Array, params: Params, rng: np.random.RandomState, out: Array) -> None:
        """Write a draw of the missing cells of each row, of a component from resp (K, n), to out (n, d).

        With W a draw from the component about its mean, W_m - B W_o has the conditional covariance of the missing
        cells, and B (x_o - W_o) + W_m so has their conditional mean too: no other factor is needed.
        """
        if not isinstance(X, CanonicalRows):
            return
        drawn = draw_components(resp, rng)
        noise = np.empty(X.shape)
        for k in range(len(resp)):
            of_k = drawn == k
            noise[of_k] = self.sample(params, k, int(of_k.sum()), rng) - params.means[k]
        cells = X.parts()[0]
        self.fill(self._incomplete(canonical(cells - noise)), certain(drawn, len(resp)), params, out)
        np.add(out, noise, out=out, where=np.isnan(cells))

    @abstractmethod
    def sample(self, params: Params, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, shape (n, d)."""

    def _weights(self, stats: Any) -> Array:
        """Return the weight behind each mean, shape (K, d), or (K, 1) where it is the same for all features."""
        return cast(Array, stats.counts[:, None])

    def mstep(self, stats: Any, params: Params) -> Params:
        """Return the weighted means and covariances under the structure; what is held, and dead components, stay."""
        means, covariances = self.held.get("means"), self.held.get("covariances")
        if means is not None:  # the moments are about the held means already
            stats = stats._replace(first=np.where(means[:, None], 0.0, stats.first))
        if self.prior is not None:
            stats = self.prior.added(stats, params, self._weights(stats), self.structure, means)
        if covariances is None:
            return self._maximise(stats, params)
        weights = self._weights(stats)
        shift = np.divide(stats.first, weights, out=np.zeros_like(stats.first), where=alive_cells(weights))
        if covariances.all():
            return cast(Params, params._replace(means=params.means + shift))
        # Moments that are not singular stand in for those of the held covariances, which return afterwards.
        axes = (-1, *(1,) * (stats.second.ndim - 1))
        behind = weights if stats.second.ndim == 2 else weights[:, None]
        regular = behind * self._second_moments(params, shift)
        new = self._maximise(stats._replace(second=np.where(covariances.reshape(axes), regular, stats.second)), params)
        names = ("covariances", params._fields[2])
        held = dict.fromkeys(names, covariances)
        kept = {name: keep_held(held, name, getattr(new, name), getattr(params, name)) for name in names}
        return cast(Params, new._replace(**kept))

    def floored(self, X: Any, weight: Array, share: float) -> GaussianFamily[Params]:
        """Return a family with variances of at least that share of the data's: a floor, or reg_covar."""
        from lvm.families.gaussian_floored import FLOORED  # whose families are based on this one

        rows = self.canonical(X)
        if type(self) not in FLOORED:
            return with_floor(self, rows, weight, share)
        floored: GaussianFamily[Params] = FLOORED[type(self)](self, share * spreads_of_columns(rows, weight))
        return floored

    def log_prior(self, params: Params) -> float:
        """Return the log density of the prior, up to a constant; 0 where there is none."""
        return 0.0 if self.prior is None else self.prior.log_density(params, self.structure, self.reg_covar)

    def log_penalty(self, params: Params) -> Array:
        """Return -reg_covar / 2 * tr(inverse covariance) of each component, shape (K,)."""
        penalty = np.zeros(len(params.means))
        if self.reg_covar > 0:
            sums_of_squares(self._whitening(params), penalty)
            penalty *= -0.5 * self.reg_covar
        return penalty


def moments_of_columns(X: Any, weight: Array, mean: Array, variance: Array) -> None:
    """Write the mean and variance of what is observed in each column of canonical rows to mean, variance (d,)."""
    if not isinstance(X, CanonicalRows):
        column_moments(X, weight, mean, variance)
        return
    total = np.empty_like(mean)
    observed_column_moments(X.parts()[0], weight, total, mean, variance)
    if not total.all():
        raise ValueError(f"column {total.argmin()} of X has no observed value; remove it, it tells nothing.")


def spreads_of_columns(X: Any, weight: Array) -> Array:
    """Return the squared spread (d,), > 0, of what is observed in each column of canonical rows.

    It is the variance, or that of a normal distribution with the same quartiles where that is less: a few rows far away
    are no measure of the others. Of a constant column it is the least of the others', or 1.
    """
    mean, spread = np.empty(X.shape[1]), np.empty(X.shape[1])
    moments_of_columns(X, canonical(weight), mean, spread)
    for j, column in enumerate(row_parts(X)[0].T):
        seen = (weight > 0) & ~np.isnan(column)
        order = np.argsort(column[seen])
        below = np.cumsum(weight[seen][order])
        low, high = column[seen][order][np.searchsorted(below, below[-1] * np.array([0.25, 0.75]))]
        between = ((float(high) - float(low)) / QUARTILES) ** 2
        spread[j] = between if 0 < between < spread[j] else spread[j]
    least = float(np.min(spread[spread > 0], initial=np.inf))
    return np.where(spread > 0, spread, least if least < np.inf else 1.0)


def with_floor(family: Regularised, X: Any, weight: Array, share: float) -> Regularised:
    """Return a family with a reg_covar of at least that share of the least squared spread of a column of X (n, d)."""
    copied = copy.copy(family)
    copied.reg_covar = max(copied.reg_covar, share * float(spreads_of_columns(X, weight).min()))
    return copied


def alive_cells(weights: Array) -> NDArray[np.bool_]:
    """Return where means are alive, given the weights behind them, (K, d) or (K, 1)."""
    return np.asarray(weights > DEAD_SHARE * weights.sum(axis=0))


def count_free_parts(held: Mapping[str, NDArray[np.bool_]], structure: str, n_components: int, n_features: int) -> int:
    """Return the number of free entries of covariances, of a structure that its three letters name, 0 if held.

    They say whether volume, shape and orientation are equal in all components, variable, or those of the identity.
    """
    if "covariances" in held and held["covariances"].all():
        return 0
    owners, d = {"E": 1, "V": n_components, "I": 0}, n_features
    return sum(owners[letter] * size for letter, size in zip(structure, (1, d - 1, d * (d - 1) // 2), strict=True))


def refuse_partly_held(structure: str, held: Mapping[str, NDArray[np.bool_]]) -> None:
    """Raise `ValueError` where the covariances of some components are held, and the others depend on them."""
    masks = held.get("covariances")
    if masks is not None and masks.any() and not masks.all():
        raise ValueError(
            f"fixed covariances of some components need covariance_type 'VVV', 'VVI' or 'VII', got {structure!r}, "
            "whose components share parts of their covariances; fix all of them or none."
        )


def refuse_singular(component: int, shared: bool = False) -> None:
    """Raise `DegenerateError` for a component >= 0 whose covariance is singular."""
    if component >= 0:
        which = "the shared covariance" if shared else f"the covariance of component {component}"
        raise DegenerateError(
            f"{which} is singular to rounding: its points coincide or lie in a subspace; lower n_components, "
            "set or increase reg_covar, remove constant or collinear columns, or scale the data.",
            None if shared else component,
        )
