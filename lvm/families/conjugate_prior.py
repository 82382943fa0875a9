"""Conjugate priors of Gaussian means and covariances, for maximum a posteriori M-steps of every structure."""

from __future__ import annotations

from typing import Any, TypeVar, cast, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvm import _checks
from lvm._jit import Array
from lvm.protocol import DEAD_SHARE

Stats = TypeVar("Stats", bound=Any)

ONE_FOR_ALL = ("EII", "EEI", "EEE")  # structures with one covariance for all components


@final
class NormalInverseWishart:
    """A normal prior of each mean given its covariance, and an inverse Wishart one of each distinct covariance.

    mean_k ~ N(mean, covariance_k / shrinkage), and the density of a covariance matrix C is proportional to
    |C|^(-(dof + d + 1) / 2) exp(-tr(scale C^-1) / 2). Variances v have inverse gamma densities in its place,
    proportional to v^(-(dof + 2) / 2) exp(-scale / (2 v)): one for each feature, or one for all of them where they
    share their variance. Where covariances share parts, the density is the same, of those that have the structure.

    In the M-step, with n_k the weight of component k, x_k its mean and W_k its scatter, and the constant c that
    stands behind log |C_k| in the prior, 1 more for that of the mean,

    mean_k = (n_k x_k + shrinkage mean) / (n_k + shrinkage),
    scatter_k = W_k + shrinkage n_k / (shrinkage + n_k) (x_k - mean)(x_k - mean)' + scale,    n_k* = n_k + c,

    and the covariances are those that the structure finds from scatters and weights n_k*. A component without data
    goes to the prior's mode.

    Parameters
    ----------
    mean : array-like of shape (d,)
        Prior mean.
    scale : float or array-like of shape (d,) or (d, d)
        In squared units of the data: a matrix for covariance matrices; a number per feature for variances, or one
        number where the features share their variance. One number stands for all features alike.
    shrinkage : float
        Number of rows at `mean` that the prior of a mean weighs; 0 leaves means free.
    dof : float, optional
        Degrees of freedom, > d - 1 for matrices and > 0 for variances; None means d + 2.

    References
    ----------
    Fraley & Raftery (2007), "Bayesian regularization for normal mixture estimation and model-based clustering",
    Journal of Classification 24, section 3 and its tables of M-steps for EII, VII, EEI, VVI, EEE and VVV. Of these
    mclust's EII leaves the scale out, and its EEI leaves the means as they are; its constants for VEI, EVI, EEV and VEV
    are others, and of no one density.
    """

    def __init__(self, mean: ArrayLike, scale: ArrayLike, shrinkage: float = 0.01, dof: float | None = None) -> None:
        self.mean = np.array(mean, np.float64, order="C")
        if self.mean.ndim != 1 or not np.isfinite(self.mean).all():
            raise ValueError(f"the prior's mean must be finite numbers, one for each feature, got {mean!r}.")
        d = len(self.mean)
        self.scale = np.array(scale, np.float64, order="C")
        if self.scale.shape not in ((), (d,), (d, d)) or not np.isfinite(self.scale).all():
            raise ValueError(
                f"the prior's scale must be a finite number, {d} numbers or a {d} x {d} matrix, got {scale!r}."
            )
        self.shrinkage = _checks.real("shrinkage", shrinkage, 0.0)
        self.dof = d + 2.0 if dof is None else _checks.real("dof", dof, 0.0)

    def __repr__(self) -> str:
        return f"NormalInverseWishart(shrinkage={self.shrinkage:g}, dof={self.dof:g})"

    def check(self, structure: str) -> None:
        """Raise `ValueError` where the scale has another shape than the structure needs, or dof is too small."""
        d = len(self.mean)
        shapes: list[tuple[int, ...]] = [(), (d, d)] if structure[2] != "I" else [(), (d,)]
        shapes = shapes[:1] if structure[1] == "I" else shapes
        if self.scale.shape not in shapes:
            raise ValueError(
                f"the prior's scale should have the shape {' or '.join(map(str, shapes))} for covariances {structure}, "
                f"got {self.scale.shape}."
            )
        least = d - 1 if structure[2] != "I" else 0
        if not self.dof > least:
            raise ValueError(f"the prior's dof must be > {least} for covariances {structure}, got {self.dof:g}.")

    def _share(self, structure: str, n_components: int) -> tuple[Array, float]:
        """Return the scale, (d,) or (d, d), and the constant that each component adds to scatter and weight."""
        d = len(self.mean)
        share = 1 / n_components if structure in ONE_FOR_ALL else 1.0
        from_mean = 1.0 if self.shrinkage > 0 else 0.0
        if structure[1] == "I":  # one variance stands for d of them
            return np.full(d, share * self.scale / d), share * (self.dof + 2) / d + from_mean
        if structure[2] == "I":
            return share * np.broadcast_to(self.scale, d), share * (self.dof + 2) + from_mean
        scale = self.scale * np.eye(d) if self.scale.ndim == 0 else self.scale
        return np.asarray(share * scale), share * (self.dof + d + 1) + from_mean

    def added(self, stats: Stats, params: Any, weights: Array, structure: str, held: NDArray[np.bool_] | None) -> Stats:
        """Return the statistics whose M-step without a prior is the one of `stats` with it.

        Parameters
        ----------
        stats : NamedTuple
            Moments about the means of `params`: counts (K,), first (K, d), and second (K, d) or (C, d, d), C is K or 1.
        params : NamedTuple
            Parameters with means (K, d).
        weights : ndarray of shape (K, d) or (K, 1)
            Weight behind each mean.
        structure : str
            Three letters that name the structure.
        held : ndarray of shape (K,), optional
            True for components that keep their means.
        """
        scale, constant = self._share(structure, len(params.means))
        offset = self.mean - params.means
        has_mean = (weights > DEAD_SHARE * weights.sum(axis=0)) | (self.shrinkage > 0)
        shift = np.zeros_like(stats.first)
        np.divide(stats.first + self.shrinkage * offset, weights + self.shrinkage, out=shift, where=has_mean)
        if held is not None:
            shift[held] = 0.0
        rest = constant - self.shrinkage  # moments about the old means grow with the weight that is no row's
        if stats.second.ndim == 2:
            more = scale + self.shrinkage * offset**2 + rest * shift**2
        else:
            more = scale + self.shrinkage * _outer(offset) + rest * _outer(shift)
            more = more if len(stats.second) == len(more) else more.sum(axis=0, keepdims=True)
        counts, first = stats.counts + constant, (weights + constant) * shift
        return cast(Stats, stats._replace(counts=counts, first=first, second=stats.second + more))

    def log_density(self, params: Any, structure: str, reg_covar: float) -> float:
        """Return the log density of the parameters, up to a constant.

        `reg_covar` is that of the family, which adds it to each covariance: the part of it that is for the weight of
        the prior belongs here.
        """
        K, d = params.means.shape
        scale, constant = self._share(structure, K)
        offset, factors = params.means - self.mean, params[2]  # inverse standard deviations, or Cholesky factors
        if factors.ndim == 2:
            logs, whitened = np.log(factors).sum(), factors * offset
            trace = ((scale + reg_covar * constant) * factors**2).sum()
        else:
            factors = np.broadcast_to(factors, (K, d, d))
            logs, whitened = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(), factors @ offset[:, :, None]
            trace = ((factors @ (scale + reg_covar * constant * np.eye(d))) * factors).sum()
        return float(constant * logs - 0.5 * (trace + self.shrinkage * (whitened**2).sum()))


def _outer(vectors: Array) -> Array:
    """Return v v' (K, d, d) of vectors (K, d)."""
    return np.asarray(vectors[:, :, None] * vectors[:, None, :])


def default_prior(X: Array, weight: Array | None, n_components: int, structure: str) -> dict[str, Any]:
    """Return mclust's default of the prior's parameters for rows X (n, d), NaN where missing.

    The mean of the data, and their covariance over K^(2 / d), as if K components of equal volume divided it up. Of
    variances, its mean over features; of matrices, its diagonal where cells are missing or rows no more than features.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows.
    weight : ndarray of shape (n,), optional
        Row weights.
    n_components : int
        Number of components K.
    structure : str
        Three letters that name the structure.
    """
    d = X.shape[1]
    rows = np.asarray(X, np.float64)
    weight = np.ones(len(rows)) if weight is None else weight
    observed = ~np.isnan(rows)
    weights = weight[:, None] * observed
    totals = weights.sum(axis=0)
    centre = rows[weight.argmax()]
    centre = np.where(np.isnan(centre), 0.0, centre)
    mean = centre + np.where(observed, weights * (rows - centre), 0.0).sum(axis=0) / totals
    deviations = np.where(observed, rows - mean, 0.0)
    divisors = np.maximum(totals - 1, totals / 2)  # weights count rows, unless they are shares
    factor = n_components ** (-2 / d)
    variances = (weights * deviations**2).sum(axis=0) / divisors
    scale: Any = factor * variances.mean()
    if structure[2] != "I":
        whole = observed.all() and np.count_nonzero(weight) > d
        scatter = (deviations * weight[:, None]).T @ deviations / divisors[0] if whole else np.diag(variances)
        scale = factor * scatter
    return {"shrinkage": 0.01, "mean": mean, "dof": d + 2.0, "scale": scale}
