"""Coordinates of a model about its estimates, with steps for numerical derivatives: what standard errors rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array
from lvm.protocol import ZeroDensityError, map_fields, n_rows, slice_rows, take_rows

WIDEST = 0.3  # a coordinate moves that far at most, of order 1, while it is seen whether it can
NARROWEST = 1e-7  # what cannot move that far both ways is at the end of its range
SMOOTH = 1e-3  # a step, as a share of how far a coordinate can move both ways
STEP = 3e-4  # a step, in standard errors of one row: differences err by its square, and by rounding over its square
STILL = 1e-12  # relative movement that is rounding
SAMPLE = 1000  # rows from which steps are found
CELLS = 1 << 21  # numbers of a block of rows that are held at a time: 16 MB
# A row of a longer log-likelihood, such as a sequence, is the sum of many and takes wider steps: its rounding grows
# with its length, the curvature of its logarithm falls.
USUAL_SIZE, MAX_GROWTH = 10.0, 30.0
METHODS = ("loglik", "n_parameters", "to_vector", "from_vector")


class Values:
    """The user's parameters as one vector, array after array.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Parameters by name.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.shapes = {name: np.shape(array) for name, array in arrays.items()}
        self.vector = flat(arrays)
        largest = [np.full(np.size(array), np.abs(array).max(initial=0.0)) for array in arrays.values()]
        self.scale = np.maximum(np.concatenate(largest), np.finfo(np.float64).tiny)

    def split(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the parts of a vector in the shapes of the parameters."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])
        parts = np.split(vector, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def flat(arrays: Mapping[str, Array]) -> Array:
    """Return arrays as one vector."""
    return np.concatenate([np.ravel(array) for array in arrays.values()])


def fields_by_name(params: Any, prefix: str = "") -> dict[str, Array]:
    """Return the arrays of nested NamedTuples by name, "outer__inner" of those inside another."""
    found: dict[str, Array] = {}
    for name, value in params._asdict().items():
        if hasattr(value, "_asdict"):
            found |= fields_by_name(value, f"{prefix}{name}__")
        elif value is not None:
            found[prefix + name] = np.asarray(value, np.float64)
    return found


class Reach(NamedTuple):
    """Where coordinates can move.

    Attributes
    ----------
    active : ndarray of shape (p,)
        Positions of the coordinates that can move both ways, and move something.
    widths : ndarray of shape (p,)
        How far.
    moved : list
        Parameters after such a move of each.
    ends : ndarray of shape (T,)
        How fast each of the user's parameters moves with coordinates at the end of their range, relative to its scale.
    has_still : bool
        Whether a coordinate was left out that moves nothing.
    """

    active: NDArray[np.int64]
    widths: Array
    moved: list[Any]
    ends: Array
    has_still: bool


def find_reach(at: Callable[[Array], Any], vector: Array, read: Callable[[Any], Array], scale: Array) -> Reach:
    """Return how far each coordinate can move both ways.

    Parameters
    ----------
    at : callable
        Returns the parameters that have given coordinates.
    vector : ndarray of shape (P,)
        Coordinates of the estimates.
    read : callable
        Returns the user's values (T,) of parameters.
    scale : ndarray of shape (T,)
        Scales of these.
    """
    active, widths, moved, ends, has_still = [], [], [], np.zeros(len(scale)), False
    start = read(at(vector))

    def movement(params: Any) -> Array:
        return np.abs((read(params) - start) / scale)

    for j, value in enumerate(vector):
        width, smooth = WIDEST, False
        largest = 0.0
        while np.isfinite(value) and not smooth and width > NARROWEST:
            pair = [at(vector + sign * width * (np.arange(len(vector)) == j)) for sign in (1, -1)]
            both = np.array([movement(each) for each in pair])
            ahead, behind = both.max(axis=1, initial=0.0)
            largest = max(ahead, behind)
            smooth = bool(min(ahead, behind) >= 0.5 * largest or largest <= STILL)
            if not smooth:
                width /= 4
        if not smooth and np.isfinite(value):
            np.maximum(ends, both.max(axis=0) / width, out=ends)
        elif largest <= STILL:  # the logarithm of a probability of 0, or nearly, moves nothing but from afar
            with np.errstate(all="ignore"):
                jump = movement(at(np.where(np.arange(len(vector)) == j, 0.0, vector)))
            jump[~(jump > STILL)] = 0.0
            np.maximum(ends, np.minimum(jump, 1.0), out=ends)
            has_still |= not jump.any()
        else:
            active.append(j)
            widths.append(width)
            moved.append(pair[0])
    return Reach(np.array(active, np.int64), np.array(widths), moved, ends, has_still)


class Moments(NamedTuple):
    """Sums over the rows, in coordinates.

    Attributes
    ----------
    score : ndarray of shape (P,)
        Sum of the rows' scores, times their weights.
    outer : ndarray of shape (P, P)
        Sum of s_i s_i', times the weights: the empirical information.
    hessian : ndarray of shape (P, P), optional
        Second derivatives of the log-likelihood.
    """

    score: Array
    outer: Array
    hessian: Array | None


class Coordinates:
    """Coordinates v of a model, 0 at its estimates, in which its log-likelihood is differentiated by differences.

    Parameters
    ----------
    model : LatentModel
        The model, with `to_vector`, `from_vector` and `n_parameters`.
    rows : NamedTuple
        Canonical rows; those of weight 0 may be impossible.
    params : NamedTuple
        The estimates.
    values : callable
        Returns the user's parameters by name from parameters of the model.
    held : mapping of str to ndarray of bool, optional
        Masks, in their shapes, of those that are held.
    gradient : callable, optional
        Returns the derivatives of the log-likelihood of all rows in the coordinates of `to_vector`, from parameters.

    Attributes
    ----------
    steps : ndarray of shape (P,)
        How far to move each coordinate for differences. Those at the end of their range, and those that move nothing,
        are left out.
    values : Values
        The user's parameters.
    jacobian : ndarray of shape (T, P)
        Their derivatives.
    held : ndarray of shape (T,)
        Which of them are held.

    Raises
    ------
    TypeError
        If the model lacks a method.
    ZeroDensityError
        If a row of positive weight is impossible.
    """

    def __init__(
        self,
        model: Any,
        rows: Any,
        params: Any,
        values: Callable[[Any], Mapping[str, Array]],
        held: Mapping[str, NDArray[np.bool_]] | None = None,
        gradient: Callable[[Any], Array] | None = None,
    ) -> None:
        missing = [name for name in METHODS if not callable(getattr(model, name, None))]
        if missing:
            raise TypeError(
                f"{type(model).__name__} must implement {', '.join(missing)} for its parameters to have standard "
                "errors."
            )
        self.model, self.rows, self._origin, self._values_of = model, rows, params, values
        self._gradient = gradient
        self._vector = np.asarray(model.to_vector(params, params), np.float64)
        self.params = self._at(self._vector)
        self.values = Values(values(self.params))
        self._reach = find_reach(self._at, self._vector, self._flat_values, self.values.scale)
        self._set_steps()
        self._differentiate_values()
        self.held = self._held_values(held or {})

    def _at(self, vector: Array) -> Any:
        return self.model.from_vector(vector, self._origin)

    def _flat_values(self, params: Any) -> Array:
        return flat(self._values_of(params))

    def _read(self, move: Array) -> Array:
        """Return the user's parameters after a move (P,), as one vector."""
        return self._flat_values(self.moved(move))

    def moved(self, move: Array) -> Any:
        """Return the parameters after a move (P,)."""
        vector = self._vector.copy()
        vector[self._reach.active] += move
        return self._at(vector)

    def _differentiate_values(self) -> None:
        if not len(self.steps):
            self.jacobian = np.zeros((len(self.values.vector), 0))
            return
        plus, minus = (np.array([self._read(sign * move) for move in np.diag(self.steps)]) for sign in (1, -1))
        self.jacobian = ((plus - minus) / (2 * self.steps[:, None])).T

    def _held_values(self, masks: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        held = self.values.split(np.zeros(len(self.values.vector), bool))
        for name, mask in masks.items():
            held[name][mask] = True
        return np.asarray(flat(held), bool)

    # ----- what standard errors ask ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What the coordinates are said to be of."""
        return type(self.model).__name__

    @property
    def n_expected(self) -> int:
        """Number of free parameters that the model counts."""
        return int(self.model.n_parameters(self.params))

    @property
    def is_partial(self) -> bool:
        """Whether coordinates were left out or held, so that there may be fewer free directions than parameters."""
        return bool(self._reach.ends.any() or self._reach.has_still or self.held.any())

    def at_the_end(self, movement: Array) -> NDArray[np.bool_]:
        """Return which of the user's parameters (T,) only coordinates at the end of their range would move.

        `movement` (T,) is how far the others do.
        """
        ends = self._reach.ends * self.values.scale
        return np.asarray((ends > 0) & (np.abs(self.jacobian).max(axis=1, initial=0.0) <= 1e-4 * ends))

    def check(self, kind: str, n_free: int) -> None:
        """Refuse sums of squared scores of fewer rows than free parameters: they have no inverse."""
        weight = self._weight()
        n = n_rows(self.rows) if weight is None else int(np.count_nonzero(weight))
        if kind != "observed" and n < n_free:
            raise ValueError(
                f"kind={kind!r} needs the scores of at least as many independent rows (groups, sequences) as there are "
                f"parameters, but there are {n} for {n_free}; use kind='observed', or give more."
            )

    def log_prior(self, move: Array) -> float:
        """Return the log prior after a move (P,); 0 without one."""
        prior = getattr(self.model, "log_prior", None)
        return 0.0 if prior is None else float(prior(self.moved(move)))

    # ----- log-likelihoods ------------------------------------------------------------------------------------

    def _weight(self) -> Array | None:
        return getattr(self.rows, "weight", None)

    def _set_steps(self) -> None:
        """Set steps: first narrow ones, then by the information of some rows."""
        weight = self._weight()
        counted = np.arange(n_rows(self.rows)) if weight is None else np.flatnonzero(weight > 0)
        index = counted[np.unique(np.linspace(0, len(counted) - 1, min(len(counted), SAMPLE)).astype(np.int64))]
        some = map_fields(lambda field: take_rows(field, index), self.rows)
        size = np.abs(self.model.loglik(some, self.params)).mean()
        growth = float(np.clip((size / USUAL_SIZE) ** 0.25, 1.0, MAX_GROWTH)) if np.isfinite(size) else 1.0
        self.steps = np.minimum(SMOOTH * self._reach.widths, 1e-6)
        information = np.array([np.mean(np.square(self._differences(j, some))) for j in range(len(self.steps))])
        with np.errstate(divide="ignore", invalid="ignore"):
            widest = SMOOTH * growth * self._reach.widths
            self.steps = np.fmin(widest, STEP * growth**2 / np.sqrt(information))

    def _differences(self, j: int, rows: Any) -> Array:
        """Return the derivatives (m,) of the rows' log-likelihoods by a coordinate."""
        move = np.zeros(len(self.steps))
        move[j] = self.steps[j]
        with np.errstate(invalid="ignore"):  # impossible rows
            rise = self.model.loglik(rows, self.moved(move)) - self.model.loglik(rows, self.moved(-move))
        return np.asarray(rise / (2 * self.steps[j]))

    def _blocks(self) -> Iterator[tuple[Any, Array]]:
        """Yield blocks of rows, and their weights."""
        n, most = n_rows(self.rows), max(64, CELLS // max(1, len(self.steps)))
        for start in range(0, n, most):
            block = slice_rows(self.rows, slice(start, min(start + most, n)))
            weight = getattr(block, "weight", None)
            yield block, np.ones(n_rows(block)) if weight is None else np.array(weight)

    def moments(self, hessian: bool = True) -> Moments:
        """Return the sums of scores, of their outer products and, if asked for, of second derivatives.

        Parameters
        ----------
        hessian : bool
            Whether to sum second derivatives: as many passes over the rows as pairs of coordinates, twice; or, with a
            gradient, as many as twice the coordinates.
        """
        p, start = len(self.steps), 0
        score, outer = np.zeros(p), np.zeros((p, p))
        for block, weight in self._blocks():
            scores = np.zeros((p, len(weight)))
            for j in range(p):
                scores[j] = self._differences(j, block)
            scores[:, weight == 0] = 0.0
            bad = ~np.isfinite(scores).all(axis=0)
            if bad.any():
                raise ZeroDensityError(start + int(bad.argmax()))
            score += scores @ weight
            outer += (scores * weight) @ scores.T
            start += len(weight)
        return Moments(score, outer, self._hessian() if hessian else None)

    def _hessian(self) -> Array:
        """Return the second derivatives of the log-likelihood.

        By differences f of it: with steps a and b, f_ab a b is half of f(a + b) - f(a) - f(b) - f(-a) - f(-b) +
        f(-a - b). Each row is taken off its own value first, so that no digit is lost to the number of rows.
        """
        if self._gradient is not None:
            rises = [
                self._gradient(self.moved(move)) - self._gradient(self.moved(-move)) for move in np.diag(self.steps)
            ]
            out = np.array(rises).reshape(-1, len(self._vector))[:, self._reach.active] / (2 * self.steps[:, None])
            return np.asarray((out + out.T) / 2)
        weight = self._weight()
        start = self.model.loglik(self.rows, self.params)
        counted = np.ones(len(start), bool) if weight is None else np.asarray(weight) > 0

        def rise(move: Array) -> float:
            change = (self.model.loglik(self.rows, self.moved(move)) - start)[counted]
            return float(change.sum() if weight is None else change @ weight[counted])

        return second_differences(rise, self.steps)


def second_differences(rise: Callable[[Array], float], steps: Array) -> Array:
    """Return the second derivatives (P, P) at 0 of a function that is 0 there, by differences of given steps (P,)."""
    out, unit = np.zeros((len(steps), len(steps))), np.diag(steps)
    once = [rise(move) + rise(-move) for move in unit]
    for a, move in enumerate(unit):
        out[a, a] = once[a]
        for b in range(a):
            both = rise(move + unit[b]) + rise(-move - unit[b])
            out[a, b] = out[b, a] = (both - once[a] - once[b]) / 2
    return np.asarray(out / np.outer(steps, steps))
