"""Uniform noise beside the components of any family of points: outliers need no component of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lvm._jit import Array

ROUNDING = 1e-12  # relative, of coordinates along principal axes: some thousand times that of float64


@final
class UniformBox:
    """A uniform density over a box.

    Parameters
    ----------
    box : array-like of shape (d + 1, d)
        One corner, and the d edges from it, at right angles to each other.
    """

    def __init__(self, box: ArrayLike) -> None:
        array = np.array(box, np.float64, order="C")
        if array.ndim != 2 or array.shape[0] != array.shape[1] + 1 or not np.isfinite(array).all():
            raise ValueError(f"a box should be finite numbers of shape (d + 1, d), got the shape {array.shape}.")
        self.corner, self.edges = array[0], array[1:]
        with np.errstate(divide="ignore"):
            self.log_volume = float(np.log(np.linalg.norm(self.edges, axis=1)).sum())
        if not np.isfinite(self.log_volume):
            raise ValueError("a box needs edges of positive length; remove constant and collinear columns.")

    def sample(self, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows, shape (n, d)."""
        return np.asarray(self.corner + rng.random_sample((n, len(self.corner))) @ self.edges)


def smallest_box(X: Array) -> Array:
    """Return the smaller of two boxes (d + 1, d) that hold all rows of X (n, d): along the features, or their axes.

    The axes are the principal components, as in mclust's `hypvol`.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows, finite.

    Raises
    ------
    ValueError
        If the rows lie in a subspace, so that the box has no volume.

    References
    ----------
    Banfield & Raftery (1993), "Model-based Gaussian and non-Gaussian clustering", Biometrics 49; Fraley & Raftery
    (2002), "Model-based clustering, discriminant analysis, and density estimation", JASA 97, section 3.4.
    """
    rows = np.asarray(X, np.float64)
    lowest = rows.min(axis=0)
    ranges = rows.max(axis=0) - lowest
    if not ranges.all():
        raise ValueError(
            f"column {ranges.argmin()} is constant, so that noise has no volume to spread over; remove the column."
        )
    along_features = np.concatenate([lowest[None], np.diag(ranges)])
    centre = rows.mean(axis=0)
    if not _is_solid(_along_axes((rows - centre) / ranges)[1]):
        raise ValueError(
            "the rows lie in a subspace, so that noise has no volume to spread over; remove collinear columns."
        )
    axes, lengths, lowest = _along_axes(rows - centre)
    if not _is_solid(lengths) or np.log(ranges).sum() <= np.log(lengths).sum():
        return along_features
    return np.concatenate([(centre + axes @ lowest)[None], (axes * lengths).T])


def _along_axes(centred: Array) -> tuple[Array, Array, Array]:
    """Return the principal axes (d, d), in columns, of centred rows, and their ranges and lowest values there."""
    axes = np.asarray(np.linalg.eigh(centred.T @ centred)[1])
    scores = centred @ axes
    return axes, np.ptp(scores, axis=0), scores.min(axis=0)


def _is_solid(lengths: Array) -> bool:
    """Return whether no length is mere rounding of the others."""
    return bool(lengths.min() > ROUNDING * lengths.max())


@final
class WithNoise:
    """The components of a family, and after them one of constant density: noise.

    Its density is 1 / volume everywhere, also outside the box, so that no row is impossible. Rows are drawn in the
    box. Parameters and statistics are those of the family; the noise has no parameter but its mixing weight.

    Parameters
    ----------
    family : Family
        Density of the other components; rows must have no missing cells.
    box : array-like of shape (d + 1, d)
        One corner, and the edges from it.

    References
    ----------
    Banfield & Raftery (1993), "Model-based Gaussian and non-Gaussian clustering", Biometrics 49.
    """

    accepts_missing = False

    def __init__(self, family: Any, box: ArrayLike) -> None:
        self.family = family
        self.box = UniformBox(box)
        self.dtype: DTypeLike = getattr(family, "dtype", np.float64)
        self.ignores_negligible = bool(getattr(family, "ignores_negligible", False))
        self.parameters: Mapping[str, str] = family.parameters
        self.held: Mapping[str, NDArray[np.bool_]] = family.held

    def __repr__(self) -> str:
        return f"WithNoise({self.family!r}, log_volume={self.box.log_volume:g})"

    def canonical(self, X: Any) -> Any:
        """Return X as the family sees it; refuse missing cells."""
        rows = self.family.canonical(X)
        if not isinstance(rows, np.ndarray):
            raise ValueError("X holds missing cells, and noise has no density for a part of a row; fill them first.")
        return rows

    def params(self, **arrays: Array) -> Any:
        """Return the family's parameters."""
        return self.family.params(**arrays)

    def start(self, X: Any, weight: Array, n_components: int) -> Any:
        """Return neutral parameters of all components but the last."""
        return self.family.start(X, weight, n_components - 1)

    def log_density(self, X: Any, params: Any, out: Array) -> None:
        """Add the family's log densities to all rows of out (K + 1, n) but the last, and -log volume to that."""
        self.family.log_density(X, params, out[:-1])
        out[-1] -= self.box.log_volume

    def log_penalty(self, params: Any) -> Array:
        """Return the family's penalties, and 0 for the noise, shape (K + 1,)."""
        return np.append(self.family.log_penalty(params), 0.0)

    def log_prior(self, params: Any) -> float:
        """Return the family's log prior."""
        return float(self.family.log_prior(params))

    def zero_stats(self, params: Any) -> Any:
        """Return the family's statistics of no rows."""
        return self.family.zero_stats(params)

    def accumulate(self, X: Any, resp: Array, params: Any, stats: Any) -> None:
        """Add the family's statistics, from all rows of resp (K + 1, n) but the last."""
        self.family.accumulate(X, resp[:-1], params, stats)

    def mstep(self, stats: Any, params: Any) -> Any:
        """Return the family's M-step."""
        return self.family.mstep(stats, params)

    def sample(self, params: Any, k: int, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows from component k, or from the box for the last, shape (n, d)."""
        if k == len(params[0]):
            return self.box.sample(n, rng)
        return np.asarray(self.family.sample(params, k, n, rng))

    def n_parameters(self, params: Any) -> int:
        """Return the family's number of parameters, and 1 for the volume, which is estimated from the data."""
        return int(self.family.n_parameters(params)) + 1

    def to_vector(self, params: Any, origin: Any) -> Array:
        """Return the family's coordinates."""
        return np.asarray(self.family.to_vector(params, origin))

    def from_vector(self, vector: Array, origin: Any) -> Any:
        """Return the family's parameters that have these coordinates."""
        return self.family.from_vector(vector, origin)
