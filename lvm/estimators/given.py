"""Values that a user gives: starting values `<name>_init`, and those that `fixed` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.fitted import FittedMixture
from lvm.models.mixture import Mixture, MixtureParams

ROUNDING = 1e-6  # of weights that should sum to 1


class GivenValues(FittedMixture):
    """Base of estimators whose parameters can be given as starts, or held."""

    n_components: int
    weights_prior: float
    equal_weights: bool
    fixed: Any

    def _check_value(self, name: str, array: Array) -> None:
        """Refuse given values, in the shape of the fitted attribute and NaN where not given, that are out of range."""

    def _model(self, X: Any = None, weight: Array | None = None) -> Mixture[Any]:
        fixed = self._fixed("weights")
        held = None if fixed is None else ~np.isnan(fixed)
        return Mixture(self._family(X, weight), self.weights_prior, self.equal_weights, held)

    @property
    def _n_weights(self) -> int:
        """Number of mixing weights."""
        return self.n_components

    def _shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a fitted attribute."""
        shapes = {"weights_": (self._n_weights,), **self._attribute_shapes(self._n_weights)}
        return tuple(shapes[f"{name}_"])

    def _fixed_values(self) -> Mapping[str, Any]:
        """Return what `fixed` holds, by name."""
        if self.fixed is not None and not isinstance(self.fixed, Mapping):
            raise _checks.ParameterError(
                f"fixed must be a dictionary such as {{'weights': [0.5, 0.5]}}, got {self.fixed!r}."
            )
        return self.fixed or {}

    def _start_value(self, name: str) -> Any:
        """Return the starting value of a parameter as the user gives it, or None."""
        return getattr(self, f"{name}_init", None)

    def _fixed(self, name: str) -> Array | None:
        """Return what `fixed` holds of a parameter, in the shape of the fitted attribute, NaN where it is free."""
        values = self._fixed_values()
        if name not in values:
            return None
        array = np.array(values[name], np.float64, order="C")
        if array.shape != self._shape(name):
            raise ValueError(f"fixed[{name!r}] should have the shape of {self._shape(name)}, but got {array.shape}.")
        if np.isinf(array).any():
            raise ValueError(f"fixed[{name!r}] contains infinity; expected finite values, or NaN where free.")
        return array

    def _held(self) -> dict[str, NDArray[np.bool_]]:
        """Return the components that `fixed` holds, for each parameter of the family in it."""
        held: dict[str, NDArray[np.bool_]] = {}
        for name in self._parameters():
            array = self._fixed(name)
            if array is None:
                continue
            inside = self._inside(name, array)
            free = np.isnan(inside.reshape(len(inside), -1))
            partly = np.flatnonzero(free.any(axis=1) & ~free.all(axis=1))
            if len(partly):
                raise ValueError(
                    f"fixed[{name!r}] holds NaN in a part of component {partly[0]}; give all its entries, or NaN for "
                    "all of them."
                )
            held[name] = np.asarray(~free.all(axis=1))
        return held

    def _given(self, with_starts: bool = True) -> dict[str, Array]:
        """Return each parameter as it is given, in the family's shape, NaN where it is not.

        Raises
        ------
        ValueError
            If a value has the wrong shape or is out of range, or if two contradict each other.
        """
        names = ("weights", *self._parameters())
        for name in self._fixed_values():
            if name not in names:
                raise ValueError(f"fixed may hold {', '.join(map(repr, names))}, got {name!r}.")
        given = {}
        for name in names:
            array, fixed = self._started(name) if with_starts else None, self._fixed(name)
            if fixed is not None:
                array = fixed if array is None else np.where(np.isnan(fixed), array, fixed)
            if array is None:
                array = np.full(self._shape(name), np.nan)
            elif name != "weights":
                self._check_value(name, array)
            given[name] = array if name == "weights" else self._inside(name, array)
        self._check_weights(given)
        return given

    def _started(self, name: str) -> Array | None:
        """Return the starting value of a parameter, in the shape of the fitted attribute."""
        value = self._start_value(name)
        if value is None:
            return None
        if name == "weights":
            return _checks.start_weights(value, self._n_weights)
        return _checks.start_array(name, value, self._shape(name))

    def _check_weights(self, given: dict[str, Array]) -> None:
        fixed = self._fixed("weights")
        if self.equal_weights:
            if fixed is not None or self._started("weights") is not None:
                raise ValueError(
                    "equal_weights=True leaves no weights to give; leave out weights_init and the fixed weights."
                )
            given["weights"] = np.full(self.n_components, 1 / self.n_components)
        elif fixed is not None:
            total = float(np.nansum(fixed))
            if np.nanmin(fixed, initial=np.inf) < 0 or np.nanmax(fixed, initial=-np.inf) > 1:
                raise ValueError(f"fixed['weights'] must lie within [0, 1], got {fixed}.")
            if total > 1 + ROUNDING or (not np.isnan(fixed).any() and total < 1 - ROUNDING):
                raise ValueError(f"fixed['weights'] sum to {total:g}; expected 1, or less where some are NaN (free).")

    def _merged(self, given: dict[str, Array], params: MixtureParams | None) -> MixtureParams | None:
        """Return `params` with the given values put in; without params, None unless everything is given."""
        if params is not None and all(np.isnan(value).all() for value in given.values()):
            return params
        arrays = {}
        for name, value in given.items():
            free = np.isnan(value)
            if free.any():
                if params is None:
                    return None
                old = params.weights if name == "weights" else self._value_of(params.components, name)
                value = np.where(free, old, value)
                if name == "weights" and (fixed := self._fixed("weights")) is not None:
                    held = ~np.isnan(fixed)
                    value[~held] *= (1 - value[held].sum()) / max(value[~held].sum(), np.finfo(np.float64).tiny)
            arrays[name] = value
        weights = arrays.pop("weights")
        rest = {name: value for name, value in given.items() if name != "weights"}
        if params is not None and all(np.isnan(value).all() for value in rest.values()):
            return MixtureParams(weights, params.components)
        return MixtureParams(weights, self._params_of(arrays))
