"""Coordinates of a mixture about its estimates, with steps for numerical derivatives: what standard errors rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lvm._jit import Array
from lvm.models.mixture import Mixture, MixtureParams, _expand
from lvm.protocol import Rows, leaves, take_rows

WIDEST = 0.3  # a coordinate moves that far at most, of order 1, while it is seen whether it can
NARROWEST = 1e-7  # what cannot move that far both ways is at the end of its range
SMOOTH = 1e-3  # a step, as a share of how far a coordinate can move both ways
STEP = 3e-4  # a step, in standard errors of one row: differences err by its square, and by rounding over its square
STILL = 1e-12  # relative movement that is rounding
SAMPLE = 1000  # rows from which steps are found


class Values:
    """The user's parameters as one vector: weights, then each array.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Weights and parameters.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.shapes = {name: np.shape(array) for name, array in arrays.items()}
        self.vector = _flat(arrays)
        largest = [np.full(np.size(array), np.abs(array).max(initial=0.0)) for array in arrays.values()]
        self.scale = np.maximum(np.concatenate(largest), np.finfo(np.float64).tiny)

    def split(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the parts of a vector in the shapes of the parameters."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])
        parts = np.split(vector, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def _flat(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([np.ravel(array) for array in arrays.values()])


def named_values(model: Mixture[Any], components: Any) -> dict[str, Array]:
    """Return the arrays of a family's parameters by name; "block__name" of a product's."""
    family = getattr(model.family, "family", model.family)  # of a mixture with noise
    if hasattr(family, "families"):
        blocks = zip(family.names, family.families, components.blocks, strict=True)
        return {
            f"{block}__{name}": np.asarray(getattr(of_block, name))
            for block, part, of_block in blocks
            for name in getattr(part, "parameters", ())
        }
    return {name: np.asarray(getattr(components, name)) for name in getattr(family, "parameters", ())}


def held_masks(family: Any) -> dict[str, NDArray[np.bool_]]:
    """Return the components that a family holds, by parameter; "block__name" of a product's."""
    if hasattr(family, "families"):
        pairs = zip(family.names, family.families, strict=True)
        return {f"{block}__{name}": mask for block, part in pairs for name, mask in held_masks(part).items()}
    return dict(getattr(family, "held", {}))


def _on_structure(family: Any, components: Any) -> Any:
    """Return parameters with covariances of the family's structure: not every `from_vector` sees to that."""
    family = getattr(family, "family", family)
    if hasattr(family, "families"):
        pairs = zip(family.families, components.blocks, strict=True)
        return components._replace(blocks=tuple(_on_structure(part, block) for part, block in pairs))
    if hasattr(family, "nearest") and hasattr(components, "covariances"):
        return family.params(components.means, family.nearest(components.covariances))
    return components


class Coordinates:
    """Coordinates v of a mixture, 0 at its estimates: logarithms of the free weights, then those of its family.

    Parameters
    ----------
    model : Mixture
        The mixture.
    rows : Rows
        Canonical rows.
    params : MixtureParams
        The estimates.
    values : callable
        Returns the user's arrays of the family's parameters by name.

    Attributes
    ----------
    steps : ndarray of shape (P,)
        How far to move each coordinate for differences. Those at the end of their range, and those that move nothing,
        are left out.
    slots : list of ndarray of shape (P,)
        Moves that differences are taken along: the steps of coordinates of different components, at once.
    owner : ndarray of shape (slots, K)
        The coordinate that moves component k in a slot, -1 where none does.
    jacobian : ndarray of shape (T, P)
        Derivatives of the user's parameters.
    held : ndarray of shape (T,)
        Which of the user's parameters are held.
    has_ends : bool
        Whether a coordinate is at the end of its range.

    Raises
    ------
    TypeError
        If the family lacks `parameters`, `to_vector` or `from_vector`.
    """

    def __init__(
        self, model: Mixture[Any], rows: Rows, params: MixtureParams, values: Callable[[Any], Mapping[str, Array]]
    ) -> None:
        self.model, self.rows, self.params = model, rows, params
        whole = getattr(model.family, "family", model.family)
        for family in getattr(whole, "families", [whole]):
            missing = [name for name in ("parameters", "to_vector", "from_vector") if not hasattr(family, name)]
            if missing:
                raise TypeError(
                    f"{type(family).__name__} must implement {', '.join(missing)} for its parameters to have standard "
                    "errors."
                )
        self._values_of = values
        self._vector = np.asarray(model.family.to_vector(params.components, params.components), np.float64)
        self.components = self._at(self._vector)
        self.n_components = len(params.weights)
        self._name_weights()
        self.values = Values({"weights": params.weights, **values(self.components)})
        self._find_ends()
        self._find_steps()
        plus, minus = (np.array([self._read(sign * move) for move in np.diag(self.steps)]) for sign in (1, -1))
        self.jacobian = (
            ((plus - minus) / (2 * self.steps[:, None])).T
            if len(self.steps)
            else np.zeros((len(self.values.vector), 0))
        )
        self.held = self._held()

    # ----- from coordinates to parameters ---------------------------------------------------------------------

    def _at(self, vector: Array) -> Any:
        family = self.model.family
        return _on_structure(family, family.from_vector(vector, self.params.components))

    def _name_weights(self) -> None:
        weights, held = self.params.weights, self.model.held_weights
        free = (weights > 0) & (np.ones(len(weights), bool) if held is None else ~held)
        if self.model.equal_weights or free.sum() < 2:
            free[:] = False
        self.free_weights = free
        self.n_weights = int(free.sum())
        shares = weights[free] / weights[free].sum() if self.n_weights else np.empty(0)
        self.free_shares = shares
        self.weight_gradients = np.zeros((self.n_weights, len(weights)))  # d log weight_k / d v_j
        self.weight_gradients[:, free] = np.eye(self.n_weights) - shares[:, None]

    def weights(self, move: Array) -> Array:
        """Return the weights after a move (P,)."""
        weights: Array = self.params.weights.copy()
        free = self.free_weights
        if self.n_weights:
            weights[free] = weights[free].sum() * softmax(np.log(weights[free]) + move[: self.n_weights])
        return weights

    def moved(self, move: Array) -> Any:
        """Return the family's parameters after a move (P,)."""
        vector = self._vector.copy()
        vector[self._active] += move[self.n_weights :]
        return self._at(vector)

    def _read(self, move: Array) -> Array:
        """Return the user's parameters after a move (P,), as one vector."""
        return _flat({"weights": self.weights(move), **self._values_of(self.moved(move))})

    # ----- where coordinates can move -------------------------------------------------------------------------

    def _find_ends(self) -> None:
        """Find how far each of the family's coordinates can move both ways, and which components it moves."""
        reach, support, ends = [], [], np.zeros(len(self.values.vector))
        active = []
        base = list(leaves(self.components))
        start = _flat(self._values_of(self.components))
        scale = self.values.scale[self.n_components :]
        for j in range(len(self._vector)):
            if not np.isfinite(self._vector[j]):
                continue
            width, smooth = WIDEST, False
            while not smooth and width > NARROWEST:
                pair = [self._at(self._vector + sign * width * (np.arange(len(self._vector)) == j)) for sign in (1, -1)]
                movement = np.array([(_flat(self._values_of(each)) - start) / scale for each in pair])
                ahead, behind = np.abs(movement).max(axis=1, initial=0.0)
                smooth = bool(min(ahead, behind) >= 0.5 * max(ahead, behind) or max(ahead, behind) <= STILL)
                if not smooth:
                    width /= 4
            if not smooth:
                np.maximum(
                    ends[self.n_components :], np.abs(movement).max(axis=0) / width, out=ends[self.n_components :]
                )
                continue
            if max(ahead, behind) <= STILL:
                continue
            active.append(j)
            reach.append(width)
            support.append(_changed(base, list(leaves(pair[0])), self.n_components))
        self._ends = ends * self.values.scale
        self._active = np.array(active, np.int64)
        self._reach = np.array(reach)
        self._support = np.array(support, bool).reshape(-1, self.n_components)

    def at_the_end(self, movement: Array) -> NDArray[np.bool_]:
        """Return which of the user's parameters (T,) only coordinates at the end of their range would move.

        `movement` (T,) is how far the others do; those of weight 0 are at the end as well.
        """
        scale = self._ends > 0
        found = scale & (np.abs(self.jacobian).max(axis=1, initial=0.0) <= 1e-4 * self._ends)
        found[: self.n_components] |= (self.params.weights == 0) & (movement[: self.n_components] == 0)
        return np.asarray(found)

    @property
    def has_ends(self) -> bool:
        """Whether a coordinate, or a weight, is at the end of its range."""
        return bool(self._ends.any() or (self.params.weights == 0).any())

    def _find_steps(self) -> None:
        """Set steps and slots: first narrow ones, then by the information of some rows."""
        steps = np.minimum(SMOOTH * self._reach, 1e-6)
        self._set_slots(steps)
        n = len(self.rows.X)
        index = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
        labels = None if self.rows.labels is None else self.rows.labels[index]
        X = take_rows(self.rows.X, index)
        resp = self._responsibilities(self.density(X, self.components), labels)
        information = np.zeros(len(steps))
        for s, slot in enumerate(self.slots):
            with np.errstate(invalid="ignore"):
                squares = np.where(resp > 0, np.square(self.differences(slot, X)), 0.0)
            for k, j in enumerate(self.owner[s]):
                if j >= 0 and resp[k].any():
                    each = float(resp[k] @ squares[k] / resp[k].sum())
                    information[j - self.n_weights] = max(information[j - self.n_weights], each)
        with np.errstate(divide="ignore"):
            self._set_slots(np.minimum(SMOOTH * self._reach, STEP / np.sqrt(information)))

    def _set_slots(self, steps: Array) -> None:
        self.steps = np.concatenate([np.full(self.n_weights, STEP), steps])
        owner: list[NDArray[np.int64]] = []
        for j, moves in enumerate(self._support, self.n_weights):
            row = next((row for row in owner if (row[moves] < 0).all()), None)
            if row is None:
                row = np.full(self.n_components, -1)
                owner.append(row)
            row[moves] = j
        self.owner = np.array(owner, np.int64).reshape(-1, self.n_components)
        self.slots = []
        for row in self.owner:
            slot = np.zeros(len(self.steps))
            slot[row[row >= 0]] = self.steps[row[row >= 0]]
            self.slots.append(slot)

    def _held(self) -> NDArray[np.bool_]:
        masks = {"weights": np.full(self.n_components, self.model.equal_weights)}
        if self.model.held_weights is not None:
            masks["weights"] = self.model.held_weights
        masks |= held_masks(self.model.family)
        held = self.values.split(np.zeros(len(self.values.vector), bool))
        for name, mask in masks.items():
            held[name][mask] = True
        return np.asarray(_flat(held), bool)

    # ----- densities ------------------------------------------------------------------------------------------

    def density(self, X: Any, components: Any) -> Array:
        """Return the log densities (K, m) of canonical rows, with the family's penalty."""
        out = np.zeros((self.n_components, len(X)))
        self.model.family.log_density(X, components, out)
        penalty = getattr(self.model.family, "log_penalty", None)
        return out if penalty is None else out + np.asarray(penalty(components))[:, None]

    def responsibilities(self, density: Array, part: slice) -> Array:
        """Return the responsibilities (K, m) of some rows from their log densities."""
        return self._responsibilities(density, None if self.rows.labels is None else self.rows.labels[part])

    def _responsibilities(self, density: Array, labels: NDArray[Any] | None) -> Array:
        with np.errstate(divide="ignore"):
            joint = density + np.log(self.params.weights)[:, None]
        if labels is not None:
            joint[_expand(labels, len(joint)) == 0] = -np.inf
        largest = joint.max(axis=0)
        resp = np.exp(joint - np.where(np.isfinite(largest), largest, 0.0))
        total = resp.sum(axis=0)
        return np.asarray(resp / np.where(total > 0, total, 1.0))

    def differences(self, slot: Array, X: Any) -> Array:
        """Return the derivatives (K, m) of the log densities by the coordinates that a slot moves; 0 for the others."""
        s = next(i for i, other in enumerate(self.slots) if other is slot)
        owner = self.owner[s]
        with np.errstate(invalid="ignore"):
            rise = self.density(X, self.moved(slot)) - self.density(X, self.moved(-slot))
        return np.asarray(rise / (2 * np.where(owner >= 0, self.steps[owner], 1.0))[:, None])


def _changed(base: list[Array], moved: list[Array], n_components: int) -> NDArray[np.bool_]:
    """Return which components two lists of parameters differ in; all, where they share what differs."""
    changed = np.zeros(n_components, bool)
    for one, other in zip(base, moved, strict=True):
        differs = np.atleast_1d(np.any(np.reshape(one != other, (len(one), -1)), axis=1))
        if len(differs) == 1:
            changed |= differs[0]
        else:
            changed[: len(differs)] |= differs
    return changed
