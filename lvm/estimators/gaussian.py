"""Gaussian mixtures: a drop-in for scikit-learn's `GaussianMixture`."""

from __future__ import annotations

import warnings
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.estimators.base import MixtureEstimator
from lvm.families.gaussian import GaussianFamily
from lvm.families.gaussian_diag import DiagGaussian, SphericalGaussian
from lvm.families.gaussian_full import FullGaussian
from lvm.families.gaussian_tied import TiedGaussian
from lvm.kernels.moments import column_moments
from lvm.protocol import Rows

# Where reg_covar is a million times every variance, responsibilities agree with the weights to six digits.
INVISIBLE = 1e-6
# A column that spreads over more than this, or less than its inverse, has squares beyond float32 or close to its ends;
# times row weights beyond it, sums of squares have.
SINGLE = 1e12


class _Structure:
    """How one covariance structure looks from outside: its family, and the shapes that scikit-learn uses."""

    def __init__(self, family: type[GaussianFamily[Any]], shape: str, squeezed: bool = False) -> None:
        self.family = family
        self._shape = shape
        self._squeezed = squeezed  # the family keeps a leading axis of length 1 that the user does not see

    @property
    def is_matrix(self) -> bool:
        """Whether a covariance is a matrix."""
        return self._shape.endswith("dd")

    def shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return the shape of `covariances_`."""
        return tuple({"K": n_components, "d": n_features}[axis] for axis in self._shape)

    def inside(self, array: Array) -> Array:
        """Return an array of the user's shape in the family's."""
        return array[None] if self._squeezed else array

    def outside(self, array: Array) -> Array:
        """Return an array of the family's shape in the user's."""
        return array[0] if self._squeezed else array


STRUCTURES = {
    "full": _Structure(FullGaussian, "Kdd"),
    "tied": _Structure(TiedGaussian, "dd", squeezed=True),
    "diag": _Structure(DiagGaussian, "Kd"),
    "spherical": _Structure(SphericalGaussian, "K"),
}


def _arithmetic(X: Any, weight: Array | None) -> type[np.floating[Any]]:
    """Return float32 for rows (n, d) of that dtype whose weighted squares it holds, else float64."""
    if X is None or X.dtype != np.float32 or len(X) == 0:
        return np.float64
    spread = np.subtract(X.max(axis=0), X.min(axis=0), dtype=np.float64)
    sizes = np.append(spread[spread > 0], 1.0 if weight is None else weight.max())
    return np.float32 if np.all((sizes > 1 / SINGLE) & (sizes < SINGLE)) else np.float64


@final
class GaussianMixture(MixtureEstimator):
    """Mixture of Gaussian components, fitted by expectation-maximisation.

    Takes the arguments, and has the attributes and methods, of `sklearn.mixture.GaussianMixture`.

    Parameters
    ----------
    n_components : int
        Number of components.
    covariance_type : {"full", "tied", "diag", "spherical"}
        A covariance matrix per component; one for all; variances per component and feature; one variance
        per component.
    tol : float
        EM has converged when an iteration gains less than this, in nats per row. The default stops near the
        optimum; scikit-learn's 1e-3 often stops far from it. 0 runs exactly `max_iter` iterations.
    reg_covar : float
        Added to every variance, in squared units of the data; keeps components from collapsing. 0 is
        maximum likelihood.
    max_iter : int
        Largest number of iterations.
    n_init : int
        Number of starts. All run a few iterations, the better half goes on, until the best is left.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"} or array-like
        How the start assigns rows to components; or labels (n,), -1 for unknown; or responsibilities
        (n, n_components).
    weights_init : array-like of shape (n_components,), optional
        Starting weights.
    means_init : array-like of shape (n_components, d), optional
        Starting means; rows are assigned to the nearest for the parameters not given.
    precisions_init : array-like, optional
        Starting inverses of the covariances, in the shape of `precisions_`.
    random_state : int, RandomState instance or None
        Seed of the starts and of `sample`.
    warm_start : bool
        Whether `fit` starts from the parameters of the last fit.
    verbose : int
        0 is silent, 1 reports iterations, 2 also their gain and time.
    verbose_interval : int
        Iterations between reports.
    covariances_init : array-like, optional
        Starting covariances, in the shape of `covariances_`; instead of `precisions_init`.
    n_jobs : int, optional
        Number of threads; None means every core. The result does not depend on it.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations, which saves most of them where EM is slow; None is plain EM.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    means_ : ndarray of shape (n_components, d)
        Means.
    covariances_, precisions_, precisions_cholesky_ : ndarray
        Covariances, their inverses, and factors U of those (precision = U U'). Shape (n_components, d, d) for "full",
        (d, d) for "tied", (n_components, d) for "diag", (n_components,) for "spherical".
    loglik_ : float
        Log-likelihood of the data at the fitted parameters, in nats.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        What EM climbs, from the start on: the log-likelihood, penalised where reg_covar > 0.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations of the best start.
    restarts_ : ndarray of shape (n_init,)
        Log-likelihood that each start reached, the best at its end, others where they were left; -inf where
        one degenerated.
    lower_bound_ : float
        What EM climbs, at the fitted parameters, per unit of row weight.
    lower_bounds_ : list of float
        The same after each iteration.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any.

    References
    ----------
    McLachlan & Peel (2000), "Finite Mixture Models", chapter 3.

    Examples
    --------
    >>> import lvm
    >>> X = lvm.datasets.load_faithful().data
    >>> mixture = lvm.GaussianMixture(2, random_state=0).fit(X)
    >>> sorted(mixture.means_.round(2).tolist())
    [[2.04, 54.48], [4.29, 79.97]]
    >>> round(mixture.loglik_, 3)
    -1130.264
    """

    _min_rows = 2

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-7,
        reg_covar: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: str | ArrayLike = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        covariances_init: ArrayLike | None = None,
        n_jobs: int | None = None,
        acceleration: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.covariances_init = covariances_init
        self.n_jobs = n_jobs
        self.acceleration = acceleration

    @property
    def _structure(self) -> _Structure:
        return STRUCTURES[_checks.choice("covariance_type", self.covariance_type, list(STRUCTURES))]

    def _family(self, X: Any = None, weight: Array | None = None) -> GaussianFamily[Any]:
        return self._structure.family(_checks.real("reg_covar", self.reg_covar, 0.0), _arithmetic(X, weight))

    def _features(self, X: Any) -> Any:
        return X

    def _start_centres(self) -> Array | None:
        return None if self.means_init is None else np.asarray(self.means_init, np.float64)

    def _check_data(self, rows: Rows) -> None:
        X = rows.X
        if self.reg_covar == 0:
            _checks.distinct_rows(X, self.n_components)
        mean, variance = np.empty(X.shape[1]), np.empty(X.shape[1])
        column_moments(X, canonical(np.ones(len(X))) if rows.weight is None else rows.weight, mean, variance)
        _checks.representable(X, variance)
        hidden = np.flatnonzero((variance > 0) & (variance < self.reg_covar))
        if len(hidden) == 0:
            return
        message = (
            f"reg_covar={self.reg_covar:g} exceeds the variance {variance[hidden[0]]:.3g} of column {hidden[0]} and "
            "hides its structure; scale the data or lower reg_covar."
        )
        if variance.max() < INVISIBLE * self.reg_covar:
            raise ValueError(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)

    def _check_start(self, n_features: int) -> None:
        if self.precisions_init is not None and self.covariances_init is not None:
            raise ValueError("give precisions_init or covariances_init, not both.")
        if self.weights_init is not None:
            _checks.start_weights(self.weights_init, self.n_components)
        if self.means_init is not None:
            _checks.start_array("means", self.means_init, (self.n_components, n_features))
        self._given_covariances(n_features)

    def _given_covariances(self, n_features: int) -> Array | None:
        """Return the given starting covariances in the family's shape."""
        value = self.covariances_init if self.precisions_init is None else self.precisions_init
        if value is None:
            return None
        structure, kind = self._structure, self.covariance_type
        name = "covariances" if self.precisions_init is None else "precisions"
        array = _checks.start_array(name, value, structure.shape(self.n_components, n_features))
        if not structure.is_matrix:
            if np.any(array <= 0):
                raise ValueError(f"'{kind} {name[:-1]}' should be positive, but got {array.min()}.")
            return array if self.precisions_init is None else 1 / array
        matrices = structure.inside(array)
        for matrix in matrices:
            if not (np.allclose(matrix, matrix.T) and np.all(np.linalg.eigvalsh(matrix) > 0.0)):
                raise ValueError(f"'{kind} {name[:-1]}' should be symmetric, positive-definite.")
        return matrices if self.precisions_init is None else np.asarray(np.linalg.inv(matrices), np.float64)

    def _explicit_components(self, components: Any | None, n_features: int) -> Any | None:
        means = None if components is None else components.means
        covariances = None if components is None else components.covariances
        if self.means_init is not None:
            means = _checks.start_array("means", self.means_init, (self.n_components, n_features))
        given = self._given_covariances(n_features)
        if given is not None:
            covariances = given
        return None if means is None or covariances is None else self._family().params(means, covariances)

    def _set_components(self, components: Any) -> None:
        structure = self._structure
        self.means_ = components.means
        self.covariances_ = structure.outside(components.covariances)
        if structure.is_matrix:
            factors = structure.outside(components.inverse_cholesky)
            self.precisions_cholesky_ = np.ascontiguousarray(np.swapaxes(factors, -1, -2))
            self.precisions_ = self.precisions_cholesky_ @ factors
        else:
            self.precisions_ = 1 / self.covariances_
            self.precisions_cholesky_ = np.sqrt(self.precisions_)

    def _get_components(self) -> Any:
        structure, family = self._structure, self._family()
        means = np.array(self.means_, np.float64)
        expected, got = structure.shape(*means.shape), np.shape(self.precisions_cholesky_)
        if got != expected:
            raise ValueError(
                f"precisions_cholesky_ has shape {got}, but covariance_type={self.covariance_type!r} needs {expected}; "
                "fit again after a change of covariance_type."
            )
        if not structure.is_matrix:
            return family.params(means, 1 / np.square(self.precisions_cholesky_))
        # The factors are what densities need; scikit-learn's users set them where they build a mixture by hand.
        factors = structure.inside(np.swapaxes(np.asarray(self.precisions_cholesky_, np.float64), -1, -2))
        if hasattr(self, "covariances_"):
            covariances = structure.inside(np.array(self.covariances_, np.float64))
        else:
            roots = np.linalg.inv(factors)
            covariances = np.asarray(roots @ np.swapaxes(roots, -1, -2), np.float64)
        return family.params(means, covariances)._replace(inverse_cholesky=np.ascontiguousarray(factors))
