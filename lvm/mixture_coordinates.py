"""Coordinates of a mixture about its estimates, and the derivatives of its log-likelihood in them.

With l_ik = log(pi_k p(x_i | k)), u_ik its gradient and r_ik the responsibilities, the score of a row is
s_i = sum_k r_ik u_ik (Fisher's identity), and the Hessian of the log-likelihood is sum_ik r_ik (l_ik'' + u_ik u_ik') -
sum_i s_i s_i' (Louis). A component's density depends on its own coordinates, so those of all components are moved at
once: K times fewer passes than for a model of which no more is known.

References
----------
Louis (1982), "Finding the observed information matrix when using the EM algorithm", JRSS B 44, equation 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lvm import coordinates
from lvm._jit import Array
from lvm.coordinates import SAMPLE, SMOOTH, STEP, Coordinates, Moments, Values, find_reach, flat
from lvm.models.mixture import Mixture, MixtureParams, MixtureStats
from lvm.models.row_blocks import expanded
from lvm.protocol import Rows, leaves, take_rows


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


def on_structure(family: Any, components: Any) -> Any:
    """Return parameters with covariances of the family's structure: not every `from_vector` sees to that."""
    family = getattr(family, "family", family)
    if hasattr(family, "families"):
        pairs = zip(family.families, components.blocks, strict=True)
        return components._replace(blocks=tuple(on_structure(part, block) for part, block in pairs))
    if hasattr(family, "nearest") and hasattr(components, "covariances"):
        return family.params(components.means, family.nearest(components.covariances))
    return components


class _Block(NamedTuple):
    """Some rows, their log densities and responsibilities (K, m), and weights (m,)."""

    X: Any
    density: Array
    resp: Array
    weight: Array


class MixtureCoordinates(Coordinates):
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
        Returns the user's arrays by name from parameters of the family.

    Attributes
    ----------
    slots : list of ndarray of shape (P,)
        Moves that differences are taken along: the steps of coordinates of different components, at once.
    owner : ndarray of shape (slots, K)
        The coordinate that moves component k in a slot, -1 where none does.
    steps, values, jacobian, held
        As for any model.

    Raises
    ------
    TypeError
        If the family lacks `parameters`, `to_vector` or `from_vector`.
    """

    def __init__(
        self, model: Mixture[Any], rows: Rows, params: MixtureParams, values: Callable[[Any], Mapping[str, Array]]
    ) -> None:
        self.model, self.rows, self._origin, self._values_of = model, rows, params, values
        whole = getattr(model.family, "family", model.family)
        for family in getattr(whole, "families", [whole]):
            missing = [name for name in ("parameters", "to_vector", "from_vector") if not hasattr(family, name)]
            if missing:
                raise TypeError(
                    f"{type(family).__name__} must implement {', '.join(missing)} for its parameters to have standard "
                    "errors."
                )
        self._vector = np.asarray(model.family.to_vector(params.components, params.components), np.float64)
        self.components = self._at(self._vector)
        self.params = MixtureParams(params.weights, self.components)
        self.n_components = len(params.weights)
        self._name_weights()
        self.values = Values({"weights": params.weights, **values(self.components)})
        scale = self.values.scale[self.n_components :]
        reach = find_reach(self._at, self._vector, self._flat_values, scale)
        base = list(leaves(self.components))
        support = [_changed(base, list(leaves(moved)), self.n_components) for moved in reach.moved]
        self._support = np.array(support, bool).reshape(-1, self.n_components)
        self._reach = reach._replace(ends=np.concatenate([np.zeros(self.n_components), reach.ends]))
        self._set_steps()
        self._differentiate_values()
        masks = {"weights": np.full(self.n_components, model.equal_weights)}
        if model.held_weights is not None:
            masks["weights"] = model.held_weights
        self.held = self._held_values(masks | held_masks(model.family))

    # ----- from coordinates to parameters ---------------------------------------------------------------------

    def _at(self, vector: Array) -> Any:
        family = self.model.family
        return on_structure(family, family.from_vector(vector, self._origin.components))

    def moved(self, move: Array) -> Any:
        """Return the family's parameters after a move (P,)."""
        return super().moved(move[self.n_weights :])

    def _read(self, move: Array) -> Array:
        return flat({"weights": self.weights(move), **self._values_of(self.moved(move))})

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

    # ----- what standard errors ask ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the family."""
        return type(self.model.family).__name__

    @property
    def n_expected(self) -> int:
        """Number of free parameters that the mixture counts, less the volume of noise, which has no coordinate."""
        return super().n_expected - hasattr(self.model.family, "box")

    @property
    def is_partial(self) -> bool:
        """Whether a coordinate, or a weight, is at the end of its range."""
        return bool(self._reach.ends.any() or (self.params.weights == 0).any())

    def at_the_end(self, movement: Array) -> NDArray[np.bool_]:
        """Return which of the user's parameters (T,) are at the end of their range; weights of 0 are as well."""
        found = super().at_the_end(movement)
        found[: self.n_components] |= (self.params.weights == 0) & (movement[: self.n_components] == 0)
        return found

    def check(self, kind: str, n_free: int) -> None:
        """Refuse nothing: where rows are few, what they do not determine has no error."""

    def log_prior(self, move: Array) -> float:
        """Return all log priors after a move (P,)."""
        nothing = MixtureStats(0.0, 0.0, 0.0, np.zeros(self.n_components), None)
        return float(self.model.objective(nothing, MixtureParams(self.weights(move), self.moved(move))))

    def _set_steps(self) -> None:
        """Set steps and slots: first narrow ones, then by the information of some rows."""
        steps = np.minimum(SMOOTH * self._reach.widths, 1e-6)
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
            self._set_slots(np.minimum(SMOOTH * self._reach.widths, STEP / np.sqrt(information)))

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
            joint[expanded(labels, len(joint)) == 0] = -np.inf
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

    # ----- sums over the rows ---------------------------------------------------------------------------------

    def moments(self, hessian: bool = True) -> Moments:
        """Return the sums of scores, of their outer products and, if asked for, of second derivatives.

        Parameters
        ----------
        hessian : bool
            Whether to sum second derivatives: as many evaluations as pairs of a component's coordinates.
        """
        p, n_slots, K = len(self.steps), len(self.slots), self.n_components
        score, outer, complete = np.zeros(p), np.zeros((p, p)), np.zeros((p, p))
        for block in self._resolved((n_slots + 1) * K + p):
            gradients = (
                np.stack([self.differences(slot, block.X) for slot in self.slots]) if n_slots else np.empty((0, K, 0))
            )
            scores = np.zeros((p, len(block.weight)))
            for k in range(K):
                own = np.flatnonzero(self.owner[:, k] >= 0)
                rows = np.concatenate([np.arange(self.n_weights), self.owner[own, k]])
                r = block.resp[k]
                u = np.concatenate([np.repeat(self.weight_gradients[:, k, None], len(r), axis=1), gradients[own, k]])
                u[:, r == 0] = 0.0  # where the row is impossible, its density has no gradient
                scores[rows] += u * r
                if hessian:
                    complete[np.ix_(rows, rows)] += (u * (r * block.weight)) @ u.T
            score += scores @ block.weight
            outer += (scores * block.weight) @ scores.T
        return Moments(score, outer, complete + self._curvature() - outer if hessian else None)

    def _resolved(self, width: int) -> Iterator[_Block]:
        """Yield blocks of rows of positive weight, of which a number of numbers each is held."""
        n, most = len(self.rows.X), max(64, coordinates.CELLS // width)
        for start in range(0, n, most):
            part = slice(start, min(start + most, n))
            weight = np.ones(part.stop - start) if self.rows.weight is None else np.array(self.rows.weight[part])
            density = self.density(self.rows.X[part], self.components)
            resp = self.responsibilities(density, part)
            resp[:, weight == 0] = 0.0  # such rows may be impossible
            yield _Block(self.rows.X[part], density, resp, weight)

    def _curvature(self) -> Array:
        """Return sum_ik w_i r_ik l_ik'', the second derivatives of the expected complete log-likelihood.

        By differences as those of `lvm.coordinates`, component by component.
        """
        p, K, n_slots = len(self.steps), self.n_components, len(self.slots)
        out = np.zeros((p, p))
        total = 0.0
        for block in self._resolved(3 * K):
            weighted = block.resp * block.weight
            total += float(weighted[self.free_weights].sum())
            possible = block.resp > 0

            def rise(move: Array, block: _Block = block, weighted: Array = weighted, possible: Any = possible) -> Array:
                """Return what a move adds to each component's part, shape (K,)."""
                density = self.density(block.X, self.moved(move))
                change = np.subtract(density, block.density, out=np.zeros_like(density), where=possible)
                return np.asarray(np.einsum("ki,ki->k", weighted, change))

            once = [rise(slot) + rise(-slot) for slot in self.slots]
            for a in range(n_slots):
                self._put(out, a, a, once[a])
                for b in range(a):
                    both = rise(self.slots[a] + self.slots[b]) + rise(-self.slots[a] - self.slots[b])
                    self._put(out, a, b, (both - once[a] - once[b]) / 2)
        q = self.free_shares
        w = slice(0, self.n_weights)
        out[w, w] = -total * (np.diag(q) - np.outer(q, q))
        return out

    def _put(self, out: Array, a: int, b: int, differences: Array) -> None:
        """Add second differences (K,) of two slots to the pairs of coordinates that move each component."""
        for k, difference in enumerate(differences):
            i, j = self.owner[a, k], self.owner[b, k]
            if i >= 0 and j >= 0:
                value = difference / (self.steps[i] * self.steps[j])
                out[i, j] += value
                if a != b:
                    out[j, i] += value


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
