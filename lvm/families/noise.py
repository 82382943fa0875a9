"""Uniform noise beside the components of any family of points: outliers need no component of their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lvm._jit import Array
from lvm.protocol import CanonicalRows

ROUNDING = 1e-12  # relative, of coordinates along principal axes: some thousand times that of float64


@final
class UniformBox:
    """A uniform density over a box.

    Of a part of a row it is that over the smallest box along the features that holds this one, 1 over the product of
    its edges: the marginal density where this box lies along the features, as it does where cells were missing.

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
        self._lowest = self.corner + np.minimum(self.edges, 0.0).sum(axis=0)
        self._ranges = np.abs(self.edges).sum(axis=0)

    @property
    def centre(self) -> Array:
        """The middle of the box, (d,): the mean of any part of a row."""
        return np.asarray(self.corner + self.edges.sum(axis=0) / 2)

    def log_density(self, observed: NDArray[np.bool_]) -> Array:
        """Return the log densities (n,) of what is observed, (n, d), of rows."""
        partly = -(observed @ np.log(self._ranges))
        return np.where(observed.all(axis=1), -self.log_volume, partly)

    def draw_missing(self, missing: NDArray[np.bool_], rng: np.random.RandomState) -> Array:
        """Draw the missing cells (n, d) of rows, one after the other."""
        which = np.nonzero(missing)[1]
        return np.asarray(self._lowest[which] + rng.random_sample(len(which)) * self._ranges[which])

    def sample(self, n: int, rng: np.random.RandomState) -> Array:
        """Draw n rows, shape (n, d)."""
        return np.asarray(self.corner + rng.random_sample((n, len(self.corner))) @ self.edges)


def smallest_box(X: Array) -> Array:
    """Return the smaller of two boxes (d + 1, d) that hold all rows of X (n, d): along the features, or their axes.

    The axes are the principal components, as in mclust's `hypvol`. Where cells are missing it is the box along the
    features, about what is observed of each: a uniform density over it has uniform marginals, of which that of a row
    is one.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Rows, finite or NaN where missing.

    Raises
    ------
    ValueError
        If the rows lie in a subspace, or a column has no observed value, so that the box has no volume.

    References
    ----------
    Banfield & Raftery (1993), "Model-based Gaussian and non-Gaussian clustering", Biometrics 49; Fraley & Raftery
    (2002), "Model-based clustering, discriminant analysis, and density estimation", JASA 97, section 3.4.
    """
    rows = np.asarray(X, np.float64)
    missing = np.isnan(rows)
    if missing.all(axis=0).any():
        raise ValueError(f"column {missing.all(axis=0).argmax()} of X has no observed value; remove the column.")
    lowest = np.where(missing, np.inf, rows).min(axis=0)
    ranges = np.where(missing, -np.inf, rows).max(axis=0) - lowest
    if not ranges.all():
        raise ValueError(
            f"column {ranges.argmin()} is constant, so that noise has no volume to spread over; remove the column."
        )
    along_features = np.concatenate([lowest[None], np.diag(ranges)])
    if missing.any():
        return along_features
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

    Its density is 1 / volume everywhere, also outside the box, so that no row is impossible; of a row with missing
    cells it is that of the observed ones, see `UniformBox`. Rows are drawn in the box. Parameters and statistics are
    those of the family; the noise has no parameter but its mixing weight.

    Parameters
    ----------
    family : Family
        Density of the other components, of rows that are arrays, or `CanonicalRows` with NaN where cells are missing.
    box : array-like of shape (d + 1, d)
        One corner, and the edges from it.

    References
    ----------
    Banfield & Raftery (1993), "Model-based Gaussian and non-Gaussian clustering", Biometrics 49.
    """

    def __init__(self, family: Any, box: ArrayLike) -> None:
        self.family = family
        self.box = UniformBox(box)
        self.dtype: DTypeLike = getattr(family, "dtype", np.float64)
        self.accepts_missing = bool(getattr(family, "accepts_missing", False))
        self.ignores_negligible = bool(getattr(family, "ignores_negligible", False))
        self.parameters: Mapping[str, str] = family.parameters
        self.held: Mapping[str, NDArray[np.bool_]] = family.held

    def __repr__(self) -> str:
        return f"WithNoise({self.family!r}, log_volume={self.box.log_volume:g})"

    def canonical(self, X: Any) -> Any:
        """Return X as the family sees it."""
        return self.family.canonical(X)

    def params(self, **arrays: Array) -> Any:
        """Return the family's parameters."""
        return self.family.params(**arrays)

    def start(self, X: Any, weight: Array, n_components: int) -> Any:
        """Return neutral parameters of all components but the last."""
        return self.family.start(X, weight, n_components - 1)

    def log_density(self, X: Any, params: Any, out: Array) -> None:
        """Add the family's log densities to all rows of out (K + 1, n) but the last, and the noise's to that."""
        self.family.log_density(X, params, out[:-1])
        out[-1] += self.box.log_density(~_missing(X)) if isinstance(X, CanonicalRows) else -self.box.log_volume

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

    def floored(self, X: Any, weight: Array, share: float) -> WithNoise | None:
        """Return such a family with the bounds of its components, None where they have none."""
        floored = copy.copy(self)
        floored.family = self.family.floored(X, weight, share) if hasattr(self.family, "floored") else None
        return None if floored.family is None else floored

    def confined(self, params: Any) -> Any:
        """Return the parameters that keep the bounds of the family's components, and are nearest to those given."""
        return self.family.confined(params) if hasattr(self.family, "confined") else params

    def fill(self, X: Any, resp: Array, params: Any, out: Array) -> None:
        """Write the posterior mean of each missing cell under resp (K + 1, n) to out (n, d); noise's is the centre."""
        if not isinstance(X, CanonicalRows):
            return
        self.family.fill(X, resp[:-1], params, out)
        np.add(out, np.multiply.outer(resp[-1], self.box.centre), out=out, where=_missing(X))

    def draw_missing(self, X: Any, resp: Array, params: Any, rng: np.random.RandomState, out: Array) -> None:
        """Write a draw of the missing cells of each row, of a component or noise from resp (K + 1, n), to out."""
        if not isinstance(X, CanonicalRows):
            return
        noisy = rng.random_sample(len(X)) * resp.sum(axis=0) < resp[-1]
        missing = _missing(X) & noisy[:, None]
        out[missing] = self.box.draw_missing(missing, rng)
        others = np.flatnonzero(~noisy)
        if len(others):
            part = out[others]
            self.family.draw_missing(X.take(others), np.ascontiguousarray(resp[:-1, others]), params, rng, part)
            out[others] = part

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


def _missing(X: CanonicalRows) -> NDArray[np.bool_]:
    """Return which cells (n, d) of rows with holes are missing."""
    return np.asarray(np.isnan(X.parts()[0]))
