"""Mixtures of independent counts: Poisson, with exposures, and negative binomial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvm import initialize
from lvm._jit import Array
from lvm.estimators.discrete import CountMixture
from lvm.estimators.documentation import documented
from lvm.families.counts import ExposedRows, canonical_exposure
from lvm.families.negative_binomial import NegativeBinomial
from lvm.families.poisson import Poisson


def _exposed(X: Any, exposure: Any) -> Any:
    """Return what a user gives as one object, for `_validate` to look at."""
    return ExposedRows(X, exposure)


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class PoissonMixture(CountMixture):
    """Mixture of independent Poisson counts, fitted by expectation-maximisation: for events in a time or an area.

    X holds whole counts >= 0. NaN marks missing cells; their factors are left out, which is maximum likelihood where
    cells are missing at random. Where rows are observed over times, areas or populations of their own, give these to
    each method as `exposure`: the mean counts of a row are its exposure times the rates of its component.

    Parameters
    ----------
    n_components : int
        Number of components.
    rates_prior : tuple of two floats, optional
        Shape a >= 1 and rate b >= 0 of a Gamma prior on each rate: adds a - 1 events and an exposure of b per feature
        and component (maximum a posteriori). (1, 0), as None, is maximum likelihood.
    rates_init : array-like of shape (n_components, d), optional
        Starting rates.
    <deduplicate>
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    rates_ : ndarray of shape (n_components, d)
        Mean counts per unit of exposure.
    <fitted attributes>

    References
    ----------
    Hasselblad (1969), "Estimation of finite mixtures of distributions from the exponential family", Journal of the
    American Statistical Association 64: the example.

    Examples
    --------
    Deaths of women over 80 that The Times reported on the 1,096 days of 1910 to 1912, and the number of such days:

    >>> import lvm
    >>> deaths = [[0], [1], [2], [3], [4], [5], [6], [7], [8], [9]]
    >>> days = [162, 267, 271, 185, 111, 61, 27, 8, 3, 1]
    >>> mixture = lvm.PoissonMixture(2, tol=1e-12, acceleration="anderson", random_state=0)
    >>> sorted(mixture.fit(deaths, sample_weight=days).rates_.round(2).tolist())
    [[1.26], [2.66]]
    >>> round(mixture.loglik_, 3)
    -1989.946
    """

    _family_type = Poisson

    rates_prior: tuple[float, float] | None = None
    rates_init: ArrayLike | None = None

    def _family(self, X: Any = None, weight: Array | None = None) -> Poisson:
        return Poisson(self.rates_prior, held=self._held())

    def _validate(self, X: Any, reset: bool) -> Any:
        if not isinstance(X, ExposedRows):
            return super()._validate(X, reset)
        counts = super()._validate(X.X, reset)
        if X.exposure is None:
            return counts
        exposure = canonical_exposure(X.exposure, len(counts))
        return counts if np.all(exposure == 1) else ExposedRows(counts, exposure)

    def _features(self, X: Any) -> Any:
        """Return the square roots of the rates: they vary alike whatever their means, as Poisson counts do not."""
        if isinstance(X, ExposedRows) and X.exposure is not None:
            X = initialize.filled(X.X / X.exposure[:, None])
        return np.sqrt(X, dtype=np.float64)

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
    ) -> Self:
        """Fit the mixture by expectation-maximisation.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights, >= 0; a row of weight 2 counts as two equal rows.
        labels : array-like of shape (n,) or (n, n_components), optional
            Known components from 0 to n_components - 1, -1 where unknown; or a mask of the components that each
            row may belong to.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.

        Returns
        -------
        self
            The fitted estimator.
        """
        return super().fit(_exposed(X, exposure), y, sample_weight, labels)

    def fit_predict(
        self,
        X: ArrayLike,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """Fit, and return the most probable component of each row, shape (n,), as `predict` would.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        labels : array-like of shape (n,) or (n, n_components), optional
            Known components, -1 where unknown; or a mask of those that each row may belong to.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return self.fit(X, y, sample_weight, labels, exposure).predict(X, exposure)

    def predict_proba(self, X: ArrayLike, exposure: ArrayLike | None = None) -> Array:
        """Return the posterior probability of each component for each row, shape (n, K).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return super().predict_proba(_exposed(X, exposure))

    def predict(self, X: ArrayLike, exposure: ArrayLike | None = None) -> NDArray[np.int64]:
        """Return the most probable component of each row, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return super().predict(_exposed(X, exposure))

    def score_samples(self, X: ArrayLike, exposure: ArrayLike | None = None) -> Array:
        """Return the log-likelihood of each row in nats, shape (n,); -inf where the row is impossible.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return super().score_samples(_exposed(X, exposure))

    def score(
        self,
        X: ArrayLike,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
    ) -> float:
        """Return the mean log-likelihood per row (per unit of weight), in nats.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return super().score(_exposed(X, exposure), y, sample_weight)

    def impute(self, X: ArrayLike, exposure: ArrayLike | None = None) -> Array:
        """Return the counts as float64 (n, d), with the posterior mean of each missing cell filled in.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts, NaN where missing.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return self._imputed(_exposed(X, exposure), X)

    def sample_missing(self, X: ArrayLike, random_state: Any = None, exposure: ArrayLike | None = None) -> Array:
        """Return the counts as float64 (n, d), with a draw in place of each missing cell.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts, NaN where missing.
        random_state : int, RandomState or None
            Source of randomness; None takes the estimator's own.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.

        Returns
        -------
        ndarray of shape (n, d)
            What was observed, and a draw of the missing counts of each row given the others, from one component drawn
            by its posterior probability.
        """
        return self._drawn(_exposed(X, exposure), X, random_state)

    def sample(
        self, n_samples: int = 1, exposure: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw rows of counts from the fitted mixture.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        exposure : float or array-like of shape (n_samples,), optional
            Factor > 0 on the mean counts of each row; 1 by default.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
            Counts, in the order of their components.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        rng = self._generator(n_samples)
        factors = canonical_exposure(1.0 if exposure is None else exposure, n_samples)
        y = np.repeat(np.arange(len(self.weights_)), rng.multinomial(n_samples, self.weights_))
        return np.asarray(rng.poisson(factors[:, None] * self.rates_[y]), np.int64), y

    def aic(
        self,
        X: ArrayLike,
        sample_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
    ) -> float:
        """Return Akaike's information criterion, -2 loglik + 2 n_parameters: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        labels : array-like of shape (n,) or (n, K), optional
            Known components, -1 where unknown, or a mask of the possible ones.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return super().aic(_exposed(X, exposure), sample_weight, labels)

    def bic(
        self,
        X: ArrayLike,
        sample_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
    ) -> float:
        """Return the Bayesian information criterion, -2 loglik + n_parameters log n: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        sample_weight : array-like of shape (n,), optional
            Row weights; n is then their sum.
        labels : array-like of shape (n,) or (n, K), optional
            Known components, -1 where unknown, or a mask of the possible ones.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return super().bic(_exposed(X, exposure), sample_weight, labels)

    def icl(
        self,
        X: ArrayLike,
        sample_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
    ) -> float:
        """Return the integrated completed likelihood criterion: BIC - 2 sum log max_k r_ik; the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Counts.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        labels : array-like of shape (n,) or (n, K), optional
            Known components, -1 where unknown, or a mask of the possible ones.
        exposure : float or array-like of shape (n,), optional
            Factor > 0 on the mean counts of each row; 1 by default.
        """
        return super().icl(_exposed(X, exposure), sample_weight, labels)


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class NegativeBinomialMixture(CountMixture):
    """Mixture of independent negative binomial counts, fitted by expectation-maximisation: more varied than Poisson's.

    X holds whole counts >= 0. NaN marks missing cells; their factors are left out, which is maximum likelihood where
    cells are missing at random. Within a component the variance of a count is mean + mean**2 / size. Large sizes
    take EM many iterations, see `lvm.families.NegativeBinomial`: `acceleration="anderson"` saves most of them, and
    counts that vary no more than Poisson's are for `PoissonMixture`.

    Parameters
    ----------
    n_components : int
        Number of components.
    means_init : array-like of shape (n_components, d), optional
        Starting means.
    sizes_init : array-like of shape (n_components, d), optional
        Starting sizes, between 1e-6 and 1e8.
    <deduplicate>
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    means_ : ndarray of shape (n_components, d)
        Mean counts.
    sizes_ : ndarray of shape (n_components, d)
        Sizes: the smaller, the more a count varies.
    <fitted attributes>

    References
    ----------
    Bliss & Fisher (1953), "Fitting the negative binomial distribution to biological data", Biometrics 9: the example.

    Examples
    --------
    European red mites on the leaves of apple trees, and the number of such leaves:

    >>> import lvm
    >>> mites = [[0], [1], [2], [3], [4], [5], [6], [7]]
    >>> leaves = [70, 38, 17, 10, 9, 3, 2, 1]
    >>> mixture = lvm.NegativeBinomialMixture(1, tol=1e-12).fit(mites, sample_weight=leaves)
    >>> mixture.means_.round(4).tolist(), mixture.sizes_.round(4).tolist()
    ([[1.1467]], [[1.0246]])
    """

    _family_type = NegativeBinomial

    means_init: ArrayLike | None = None
    sizes_init: ArrayLike | None = None

    def _family(self, X: Any = None, weight: Array | None = None) -> NegativeBinomial:
        return NegativeBinomial(held=self._held())

    def _features(self, X: Any) -> Any:
        """Return log(1 + x), after Anscombe (1948): the logarithms of counts vary alike whatever their means."""
        return np.log1p(X, dtype=np.float64)
