"""Gaussian mixtures: a drop-in for scikit-learn's `GaussianMixture`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import ArrayLike

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.estimators.base import MixtureEstimator
from lvm.estimators.conditionals import Conditionals
from lvm.estimators.documentation import documented
from lvm.estimators.noise import NoiseOption
from lvm.estimators.restraints import Restrained
from lvm.estimators.shrinkage import Shrinking
from lvm.families.gaussian import GaussianFamily, moments_of_columns
from lvm.families.gaussian_diag import DiagGaussian, SphericalGaussian
from lvm.families.gaussian_full import FullGaussian
from lvm.families.gaussian_orientations import (
    EEVGaussian,
    EVEGaussian,
    EVVGaussian,
    VEEGaussian,
    VEVGaussian,
    VVEGaussian,
)
from lvm.families.gaussian_structures import EEIGaussian, EIIGaussian, EVIGaussian, VEIGaussian
from lvm.families.gaussian_tied import TiedGaussian
from lvm.marginals import means_and_deviations
from lvm.protocol import Rows, row_parts
from lvm.result import warn

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


# By the names of Celeux & Govaert's structures in mclust, from the fewest parameters to the most.
FOURTEEN = {
    "EII": _Structure(EIIGaussian, "K"),
    "VII": _Structure(SphericalGaussian, "K"),
    "EEI": _Structure(EEIGaussian, "Kd"),
    "VEI": _Structure(VEIGaussian, "Kd"),
    "EVI": _Structure(EVIGaussian, "Kd"),
    "VVI": _Structure(DiagGaussian, "Kd"),
    "EEE": _Structure(TiedGaussian, "dd", squeezed=True),
    "VEE": _Structure(VEEGaussian, "Kdd"),
    "EVE": _Structure(EVEGaussian, "Kdd"),
    "VVE": _Structure(VVEGaussian, "Kdd"),
    "EEV": _Structure(EEVGaussian, "Kdd"),
    "VEV": _Structure(VEVGaussian, "Kdd"),
    "EVV": _Structure(EVVGaussian, "Kdd"),
    "VVV": _Structure(FullGaussian, "Kdd"),
}
SAME = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII"}  # scikit-learn's names
STRUCTURES = {**{name: FOURTEEN[same] for name, same in SAME.items()}, **FOURTEEN}
MEMBERSHIP = 1e-6  # how far starting covariances may be from their structure, relative: they are often rounded


def _arithmetic(X: Any, weight: Array | None) -> type[np.floating[Any]]:
    """Return float32 for whole rows (n, d) of that dtype whose weighted squares it holds, else float64."""
    if X is None or X.dtype != np.float32 or len(X) == 0:
        return np.float64
    spread = np.subtract(X.max(axis=0), X.min(axis=0), dtype=np.float64)
    if np.isnan(spread).any():
        return np.float64
    sizes = np.append(spread[spread > 0], 1.0 if weight is None else weight.max())
    return np.float32 if np.all((sizes > 1 / SINGLE) & (sizes < SINGLE)) else np.float64


def check_spread(rows: Rows, n_components: int, reg_covar: float) -> None:
    """Refuse rows that spread too far for float64, or too little for reg_covar; warn where a column alone does.

    Parameters
    ----------
    rows : Rows
        Canonical rows.
    n_components : int
        How many distinct rows there must be where reg_covar is 0.
    reg_covar : float
        What is added to every variance.

    Raises
    ------
    ValueError
        If no column spreads as far as that, or a column overflows.
    """
    X = row_parts(rows.X)[0]
    if reg_covar == 0:
        _checks.distinct_rows(X, n_components)
    mean, variance = np.empty(X.shape[1]), np.empty(X.shape[1])
    weight = canonical(np.ones(len(X))) if rows.weight is None else rows.weight
    moments_of_columns(rows.X, weight, mean, variance)
    _checks.representable(X, variance)
    hidden = np.flatnonzero((variance > 0) & (variance < reg_covar))
    if len(hidden) == 0:
        return
    message = (
        f"reg_covar={reg_covar:g} exceeds the variance {variance[hidden[0]]:.3g} of column {hidden[0]} and "
        "hides its structure; scale the data or lower reg_covar."
    )
    if variance.max() < INVISIBLE * reg_covar:
        raise ValueError(message)
    warn(message, RuntimeWarning)


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class GaussianMixture(Conditionals, Shrinking, Restrained, NoiseOption, MixtureEstimator):
    """Mixture of Gaussian components, fitted by expectation-maximisation.

    Takes the arguments, and has the attributes and methods, of `sklearn.mixture.GaussianMixture`. Cells that are NaN
    are missing: the likelihood is that of what is observed, which is right where they are missing at random.

    Parameters
    ----------
    n_components : int
        Number of components.
    covariance_type : str
        "full", a covariance matrix per component; "tied", one for all; "diag", variances per component and feature;
        "spherical", one variance per component; or one of the fourteen structures that mclust names by three letters.
        These say whether volume, shape and orientation of the covariances are equal (E) in all components, variable
        (V), or those of the identity (I): EII, VII, EEI, VEI, EVI, VVI, EEE, VEE, EVE, VVE, EEV, VEV, EVV, VVV.
        VVV is "full", EEE "tied", VVI "diag" and VII "spherical".
    reg_covar : float
        Added to every variance, in squared units of the data; keeps components from collapsing. 0 is
        maximum likelihood.
    means_init : array-like of shape (n_components, d), optional
        Starting means; rows are assigned to the nearest for the parameters not given.
    precisions_init : array-like, optional
        Starting inverses of the covariances, in the shape of `precisions_`.
    covariances_init : array-like, optional
        Starting covariances, in the shape of `covariances_`; instead of `precisions_init`.
    prior : {"default"} or dict, optional
        Conjugate prior of means and covariances (maximum a posteriori), which keeps components from collapsing, as
        mclust's `priorControl()`: "shrinkage", how many rows the prior "mean" of a component weighs, and "dof" and
        "scale" of an inverse Wishart or inverse gamma distribution. "default", and what a dictionary leaves out, is
        0.01, the mean of the data, d + 2, and the covariance of the data over n_components^(2 / d), of variances its
        mean over features. Means and covariances are then no maximum likelihood estimates; `loglik_`, `bic` and the
        like are of the likelihood alone, `objective_trace_` includes the prior. Every structure takes one, and EM
        climbs the posterior. VII, VVI, EEE and VVV agree with mclust. For EII, EEI, VEI, EVI, EEV and VEV mclust's
        M-steps maximise no posterior under this prior (EII leaves the scale out, EEI the pull of the means), so that
        its optima differ, on iris by up to a thousandth of the log-likelihood; for the others mclust has none.
    max_eigenvalue_ratio : float, optional
        Bound, >= 1, on the largest eigenvalue of any covariance over the smallest of any: without one, components of
        a few close points have a likelihood as high as one likes. For "full", "diag" and "spherical"; 1 is EII. It
        depends on the units of the columns: scale the data first.
    noise : bool
        Whether a further component of constant density takes in outliers; its weight is the last of `weights_`. The
        density is 1 over the volume of the smaller of two boxes about the data, along the features or along the
        principal components. Rows whose fifth neighbour is furthest start as noise where `init_params` names none: of
        a twentieth, a quarter and half of them, what is best after twenty iterations. In `labels` and `init_params`,
        n_components stands for noise; masks, responsibilities and `predict_proba` have a last column for it. Where
        cells are missing, the box lies along the features, and noise has the density of its marginals.
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,) or (n_components + 1,)
        Mixing weights; with `noise`, the last is that of the noise.
    means_ : ndarray of shape (n_components, d)
        Means.
    covariances_, precisions_, precisions_cholesky_ : ndarray
        Covariances, their inverses, and factors U of those (precision = U U'). Shape (d, d) for "tied" and EEE,
        (n_components,) for "spherical", VII and EII, (n_components, d) for "diag" and the others that end in I, and
        (n_components, d, d) for "full" and all others.
    prior_ : dict
        Parameters of the prior, where there is one.
    noise_box_ : ndarray of shape (d + 1, d)
        With `noise`: a corner of the box, and its edges from there. `sample` draws the noise in it; its density,
        `noise_density_`, holds outside too.
    noise_weight_, noise_density_ : float
        With `noise`: its mixing weight, and its density.
    <fitted attributes>

    References
    ----------
    McLachlan & Peel (2000), "Finite Mixture Models", chapter 3. Celeux & Govaert (1995), "Gaussian parsimonious
    clustering models", Pattern Recognition 28. Fraley & Raftery (2007), "Bayesian regularization for normal mixture
    estimation and model-based clustering", Journal of Classification 24. Hathaway (1985), "A constrained formulation
    of maximum-likelihood estimation for normal mixture distributions", Annals of Statistics 13. Banfield & Raftery
    (1993), "Model-based Gaussian and non-Gaussian clustering", Biometrics 49.

    Examples
    --------
    >>> import lvm
    >>> X = lvm.datasets.load_faithful().data
    >>> mixture = lvm.GaussianMixture(2, random_state=0).fit(X)
    >>> sorted(mixture.means_.round(2).tolist())
    [[2.04, 54.48], [4.29, 79.97]]
    >>> round(mixture.loglik_, 3)
    -1130.264

    Outliers: noise takes in what lies far from all components, here three rows.

    >>> import numpy as np
    >>> far = np.vstack([X, [[0.5, 100.0], [7.0, 45.0], [8.0, 100.0]]])
    >>> lvm.GaussianMixture(2, noise=True, random_state=0).fit(far).predict(far)[-3:].tolist()
    [-1, -1, -1]
    """

    _min_rows = 2
    _choices: ClassVar[Mapping[str, Sequence[str]]] = {"covariance_type": tuple(FOURTEEN)}  # what "all" selects from

    n_components: int = field(default=1, kw_only=False)
    n_init: int | str = "auto"
    init_params: Any = "mixed"
    covariance_type: str = "full"
    reg_covar: float = 1e-6
    means_init: ArrayLike | None = None
    precisions_init: ArrayLike | None = None
    covariances_init: ArrayLike | None = None
    prior: Any = None
    max_eigenvalue_ratio: float | None = None
    noise: bool = False

    @property
    def _structure(self) -> _Structure:
        if isinstance(self.covariance_type, str) and self.covariance_type == "factor":
            raise _checks.ParameterError(
                "covariance_type='factor' is the estimator MixtureOfFactorAnalyzers(n_components, n_factors=...)."
            )
        return STRUCTURES[_checks.choice("covariance_type", self.covariance_type, list(STRUCTURES))]

    @property
    def _family_type(self) -> type[GaussianFamily[Any]]:
        return self._structure.family

    def _family(self, X: Any = None, weight: Array | None = None) -> Any:
        return self._with_noise(self._gaussian(X, weight))

    def _gaussian(self, X: Any = None, weight: Array | None = None) -> GaussianFamily[Any]:
        """Return the family of the Gaussian components."""
        reg_covar = _checks.real("reg_covar", self.reg_covar, 0.0)
        arguments = (reg_covar, _arithmetic(X, weight), self._held(), self._conjugate())
        return self._bounded(*arguments) or self._family_type(*arguments)

    @property
    def _letters(self) -> str:
        _ = self._structure  # there is one
        return SAME.get(self.covariance_type, self.covariance_type)

    def _start_centres(self) -> Array | None:
        means = self._given()["means"]
        return None if np.isnan(means).any() else means

    def _described(self, columns: Sequence[int]) -> tuple[str, list[list[str]]]:
        return "mean (standard deviation)", means_and_deviations(self, columns)

    def _check_data(self, rows: Rows) -> None:
        # A prior keeps even components of one point apart from singular covariances.
        check_spread(rows, 1 if self.prior is not None else self.n_components, self.reg_covar)

    def _inside(self, name: str, value: Any) -> Array:
        array = np.asarray(value, np.float64)
        return self._structure.inside(array) if name == "covariances" else array

    def _outside(self, name: str, array: Array) -> Any:
        return self._structure.outside(array) if name == "covariances" else array

    def _started(self, name: str) -> Array | None:
        if name != "covariances" or self.precisions_init is None:
            return super()._started(name)
        if self.covariances_init is not None:
            raise ValueError("give precisions_init or covariances_init, not both.")
        precisions = _checks.start_array("precisions", self.precisions_init, self._shape(name))
        self._check_positive("precisions", precisions)
        return np.asarray(np.linalg.inv(precisions) if self._structure.is_matrix else 1 / precisions, np.float64)

    def _check_value(self, name: str, array: Array) -> None:
        if name != "covariances":
            return
        self._check_positive(name, array)
        inside = self._structure.inside(array)
        nearest = self._gaussian().nearest(inside)
        scale = np.abs(inside).max(axis=tuple(range(1, inside.ndim)), keepdims=True) if inside.ndim > 2 else inside
        if np.any(np.abs(nearest - inside) > MEMBERSHIP * scale):
            self._refuse_beyond_bound()
            raise ValueError(
                f"the given covariances do not share what covariance_type={self.covariance_type!r} says that they do; "
                "give such that share it, or another covariance_type."
            )

    def _check_positive(self, name: str, array: Array) -> None:
        """Refuse variances <= 0 and matrices that are not positive definite; NaN stands for those not given."""
        which = f"'{self.covariance_type} {name[:-1]}'"
        if not self._structure.is_matrix:
            if np.any(array <= 0):
                raise ValueError(f"{which} should be positive, but got {np.nanmin(array)}.")
            return
        for matrix in self._structure.inside(array):
            if np.isnan(matrix).any():
                continue
            if not (np.allclose(matrix, matrix.T) and np.all(np.linalg.eigvalsh(matrix) > 0.0)):
                raise ValueError(f"{which} should be symmetric, positive-definite.")

    def _set_components(self, components: Any) -> None:
        super()._set_components(components)
        structure = self._structure
        if structure.is_matrix:
            factors = structure.outside(components.inverse_cholesky)
            self.precisions_cholesky_ = np.ascontiguousarray(np.swapaxes(factors, -1, -2))
            self.precisions_ = self.precisions_cholesky_ @ factors
        else:
            self.precisions_ = 1 / self.covariances_
            self.precisions_cholesky_ = np.sqrt(self.precisions_)

    def _attribute_shapes(self, n_components: int) -> dict[str, tuple[int, ...]]:
        K, d = n_components - int(self.noise), self.n_features_in_
        covariances = self._structure.shape(K, d)
        matrices = dict.fromkeys(("covariances_", "precisions_", "precisions_cholesky_"), covariances)
        return {**super()._attribute_shapes(n_components), "means_": (K, d), **matrices}

    def _get_components(self) -> Any:
        structure, family = self._structure, self._gaussian()
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
