"""Mixtures of positive amounts: exponential and gamma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import ArrayLike

from lvm._jit import Array
from lvm.estimators.base import NO_MAXIMUM, MixtureEstimator
from lvm.estimators.documentation import documented
from lvm.families import exponential, gamma
from lvm.families.positive import refuse_below, require_positive


@dataclass(eq=False, repr=False, kw_only=True)
class _PositiveMixture(MixtureEstimator):
    """Base of the estimators of amounts, whose parameters are positive too."""

    _failed = NO_MAXIMUM
    _amounts: ClassVar[tuple[float, str]]  # the least value of X, and how to say so

    def _validate(self, X: Any, reset: bool) -> Any:
        X = super()._validate(X, reset)
        refuse_below(X, *self._amounts, getattr(self, "feature_names_in_", None))
        return X

    def _check_value(self, name: str, array: Array) -> None:
        require_positive(name, np.where(np.isnan(array), 1.0, array))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = tags.input_tags.allow_nan = True
        return tags


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class ExponentialMixture(_PositiveMixture):
    """Mixture of independent exponential features, fitted by expectation-maximisation: for waiting times, lifetimes.

    X holds amounts >= 0. NaN marks missing cells; their factors are left out, which is maximum likelihood where cells
    are missing at random.

    Parameters
    ----------
    n_components : int
        Number of components.
    rates_prior : tuple of float, optional
        Shape a >= 1 and rate b >= 0, in the unit of X, of a Gamma prior on each rate 1 / scale: as a - 1 more cells
        whose sum is b (maximum a posteriori). None is maximum likelihood.
    scales_init : array-like of shape (n_components, d), optional
        Starting means.
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    scales_ : ndarray of shape (n_components, d)
        Mean of each feature, in its unit; the inverse of its rate.
    <fitted attributes>

    References
    ----------
    McLachlan & Peel (2000), "Finite Mixture Models", section 10.2.

    Examples
    --------
    >>> import lvm
    >>> minutes = [[0.5, 1.2], [1.1, 0.4], [0.2, 0.9], [31.0, 9.5], [12.5, 47.0], [24.0, 18.0]]
    >>> mixture = lvm.ExponentialMixture(2, random_state=0).fit(minutes)
    >>> sorted(mixture.scales_.round(1).tolist())
    [[0.6, 0.8], [22.4, 24.7]]
    """

    _family_type = exponential.Exponential
    _amounts = exponential.AMOUNTS

    rates_prior: tuple[float, float] | None = None
    scales_init: ArrayLike | None = None

    def _family(self, X: Any = None, weight: Any = None) -> exponential.Exponential:
        return exponential.Exponential(self.rates_prior, self._held())

    def _features(self, X: Any) -> Any:
        # The cube root of an exponential variable is nearly normal (Wilson & Hilferty 1931), and 0 has one.
        roots = np.cbrt(X)
        means = roots.mean(axis=0)
        return roots / np.where(means > 0, means, 1.0)


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class GammaMixture(_PositiveMixture):
    """Mixture of independent gamma features, fitted by expectation-maximisation: for sizes, costs, intensities.

    X holds amounts > 0. NaN marks missing cells; their factors are left out, which is maximum likelihood where cells
    are missing at random. The likelihood has no maximum where a component's values of a feature are all the same.

    Parameters
    ----------
    n_components : int
        Number of components.
    shapes_init : array-like of shape (n_components, d), optional
        Starting shapes.
    scales_init : array-like of shape (n_components, d), optional
        Starting scales.
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    shapes_ : ndarray of shape (n_components, d)
        Shape of each feature, without unit: the inverse of its squared coefficient of variation.
    scales_ : ndarray of shape (n_components, d)
        Scale of each feature, in its unit; the mean is shape * scale.
    <fitted attributes>

    References
    ----------
    Minka (2002), "Estimating a Gamma distribution".

    Examples
    --------
    >>> import lvm
    >>> waiting = lvm.datasets.load_faithful().data[:, 1:]
    >>> mixture = lvm.GammaMixture(2, random_state=0).fit(waiting)
    >>> sorted((mixture.shapes_ * mixture.scales_).round(1).tolist())
    [[55.0], [80.3]]
    """

    _min_rows = 2
    _family_type = gamma.Gamma
    _amounts = gamma.AMOUNTS

    shapes_init: ArrayLike | None = None
    scales_init: ArrayLike | None = None

    def _family(self, X: Any = None, weight: Any = None) -> gamma.Gamma:
        return gamma.Gamma(self._held())

    def _features(self, X: Any) -> Any:
        return np.log(X)  # distances are those of ratios, whatever the units
