"""Factor analysis and probabilistic principal component analysis: few latent traits behind many measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from scipy.stats import chi2
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.factors import FactorEstimator


class ChiSquareTest(NamedTuple):
    """Statistic, degrees of freedom and p-value of the hypothesis that so many factors suffice."""

    statistic: float
    dof: int
    p_value: float


@final
@dataclass(eq=False, repr=False, kw_only=True)
class FactorAnalysis(FactorEstimator):
    """Maximum likelihood factor analysis by expectation-maximisation, on the moments of the data.

    x = mean + loadings z + noise, with q standard normal factors z and independent normal noise, whose variance each
    feature has for itself. Complete data are read once, whatever the number of iterations. Cells that are NaN are
    missing: the likelihood is that of what is observed, which is right where they are missing at random; the data are
    then read in each iteration. Beside the EM step, the M-step has two of ECME, which save most iterations.

    Parameters
    ----------
    n_factors : int
        Number q of factors: at least 1, and as few as leave (d - q)^2 >= d + q.
    rotation : {"varimax", "promax"}, optional
        Rotation of the loadings in units of standard deviations, orthogonal or oblique, with Kaiser's normalisation
        and promax's power 4, as in R's factanal. None makes loadings' Psi^-1 loadings diagonal.
    min_noise_variance : float
        What a noise variance cannot fall below, as a share of its feature's variance. The likelihood of a feature
        without noise (Heywood case) can be the largest, but is no estimate; the fit warns.
    allow_unidentified : bool
        Whether more factors than the degrees of freedom allow are fitted, too: density and covariance are then as
        good, but other loadings and noise variances have the same likelihood.
    tol : float
        EM has converged when an iteration gains less than this, in nats per row. 0 runs exactly `max_iter` iterations.
    max_iter : int
        Largest number of iterations.
    random_state : int, RandomState instance or None
        Seed of `sample`.
    n_jobs : int, optional
        Number of threads where cells are missing; None means every core. The result does not depend on it.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations: EM for factors is slow. None is plain EM.

    Attributes
    ----------
    noise_variance_ : ndarray of shape (d,)
        Noise variances.
    mean_ : ndarray of shape (d,)
        Means.
    loadings_ : ndarray of shape (d, q)
        Covariances of features and factors, in the data's units, where factors are uncorrelated; the pattern matrix
        where they are not. Factors come in the order of the variance that they explain, and the largest of each
        one's loadings is > 0, both in units of standard deviations for `FactorAnalysis`.
    components_ : ndarray of shape (q, d)
        The transpose of the loadings.
    factor_correlations_ : ndarray of shape (q, q)
        Correlations of the factors: the identity but for "promax".
    communalities_, uniquenesses_ : ndarray of shape (d,)
        Shares of each feature's variance that the factors explain, and that is noise.
    loglik_ : float
        Log-likelihood of the data at the fitted parameters, in nats.
    saturated_loglik_ : float
        Log-likelihood with any covariance; NaN where cells are missing, inf where it is singular.
    total_weight_ : float
        Number of rows, or the sum of their weights.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        Log-likelihood from the start on.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any.

    See Also
    --------
    sklearn.decomposition.FactorAnalysis : The same model by another algorithm, without missing cells and weights.

    References
    ----------
    Rubin & Thayer (1982), "EM algorithms for ML factor analysis", Psychometrika 47. Jöreskog (1967), "Some
    contributions to maximum likelihood factor analysis", Psychometrika 32.

    Examples
    --------
    >>> import lvm, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> trait = rng.normal(size=(500, 1))
    >>> X = trait @ [[1.0, 2.0, -1.0, 0.5]] + rng.normal(size=(500, 4))
    >>> model = lvm.FactorAnalysis(1).fit(X)
    >>> model.loadings_[:, 0].round(1)
    array([ 1. ,  1.9, -0.9,  0.5])
    >>> bool(np.corrcoef(model.transform(X)[:, 0], trait[:, 0])[0, 1] > 0.9)
    True
    """

    _isotropic = False

    allow_unidentified: bool = False

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.allow_unidentified, (bool, np.bool_)):
            raise _checks.ParameterError(f"allow_unidentified must be True or False, got {self.allow_unidentified!r}.")

    def _check_n_factors(self) -> None:
        super()._check_n_factors()
        d, q = self.n_features_in_, self.n_factors
        if _degrees_of_freedom(d, q) < 0 and not self.allow_unidentified:
            raise ValueError(
                f"n_factors={q} are too many for {d} columns: {d} noise variances and the loadings would be more than "
                f"the {d * (d + 1) // 2} variances and covariances determine; lower n_factors, add columns, or set "
                "allow_unidentified=True where only the density matters."
            )

    def _set_noise(self, noise: Array) -> None:
        self.noise_variance_ = noise

    def chi_square_test(self) -> ChiSquareTest:
        """Test whether so many factors suffice, against any covariance, by the likelihood ratio with Bartlett's factor.

        Returns
        -------
        ChiSquareTest
            Statistic, degrees of freedom ((d - q)^2 - d - q) / 2, and p-value: small where more factors are needed.

        Raises
        ------
        ValueError
            If cells of the data were missing, no degree of freedom is left, or the covariance of the data is singular.

        References
        ----------
        Bartlett (1950), "Tests of significance in factor analysis", British Journal of Psychology 3.
        """
        check_is_fitted(self)
        d, q, n = self.n_features_in_, self.n_factors, self.total_weight_
        dof = _degrees_of_freedom(d, q)
        if dof <= 0:
            raise ValueError(
                f"n_factors={q} leave {dof} degrees of freedom of {d} columns: nothing is left to test; use fewer."
            )
        if np.isnan(self.saturated_loglik_):
            raise ValueError("cells of the data were missing: the test is that of complete data; drop incomplete rows.")
        if np.isinf(self.saturated_loglik_):
            raise ValueError(
                "the covariance of the data is singular, so any model is infinitely worse; add rows or remove columns."
            )
        per_row = 2 * max(self.saturated_loglik_ - self.loglik_, 0.0) / n
        statistic = float((n - 1 - (2 * d + 5) / 6 - 2 * q / 3) * per_row)
        return ChiSquareTest(statistic, dof, float(chi2.sf(statistic, dof)))


def _degrees_of_freedom(n_features: int, n_factors: int) -> int:
    return ((n_features - n_factors) ** 2 - n_features - n_factors) // 2


@final
@dataclass(eq=False, repr=False, kw_only=True)
class ProbabilisticPCA(FactorEstimator):
    """Probabilistic principal component analysis: factors and noise of the same variance in all features.

    The loadings span the principal subspace. For complete data the maximum has a closed form, which EM only confirms;
    where cells are missing (NaN), EM maximises the likelihood of what is observed.

    Parameters
    ----------
    n_factors : int
        Number q of factors, from 1 to d - 1.
    rotation : {"varimax", "promax"}, optional
        Rotation of the loadings, orthogonal or oblique. None leaves the principal axes, times the roots of their
        variances less the noise.
    min_noise_variance : float
        What the noise variance cannot fall below, as a share of the features' mean variance; the fit warns at it.
    tol : float
        EM has converged when an iteration gains less than this, in nats per row. 0 runs exactly `max_iter` iterations.
    max_iter : int
        Largest number of iterations.
    random_state : int, RandomState instance or None
        Seed of `sample`.
    n_jobs : int, optional
        Number of threads where cells are missing; None means every core. The result does not depend on it.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations: EM for factors is slow. None is plain EM.

    Attributes
    ----------
    noise_variance_ : float
        Noise variance: the mean of the variances of the principal axes left out.
    mean_ : ndarray of shape (d,)
        Means.
    loadings_ : ndarray of shape (d, q)
        Covariances of features and factors, in the data's units, where factors are uncorrelated; the pattern matrix
        where they are not. Factors come in the order of the variance that they explain, and the largest of each
        one's loadings is > 0, both in units of standard deviations for `FactorAnalysis`.
    components_ : ndarray of shape (q, d)
        The transpose of the loadings.
    factor_correlations_ : ndarray of shape (q, q)
        Correlations of the factors: the identity but for "promax".
    communalities_, uniquenesses_ : ndarray of shape (d,)
        Shares of each feature's variance that the factors explain, and that is noise.
    loglik_ : float
        Log-likelihood of the data at the fitted parameters, in nats.
    saturated_loglik_ : float
        Log-likelihood with any covariance; NaN where cells are missing, inf where it is singular.
    total_weight_ : float
        Number of rows, or the sum of their weights.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        Log-likelihood from the start on.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any.

    References
    ----------
    Tipping & Bishop (1999), "Probabilistic principal component analysis", JRSS B 61.

    Examples
    --------
    >>> import lvm, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2)) @ [[2.0, 0, 1, 0], [0, 1, 0, 1]] + 0.5 * rng.normal(size=(500, 4))
    >>> X[::7, 1] = np.nan
    >>> model = lvm.ProbabilisticPCA(2).fit(X)
    >>> round(model.noise_variance_, 2)
    0.26
    """

    _isotropic = True

    min_noise_variance: float = 1e-6

    def _set_noise(self, noise: Array) -> None:
        self.noise_variance_ = float(noise[0])
