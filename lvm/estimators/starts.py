"""Where EM starts: given parameters, or those of an assignment of the rows to components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm import _checks, degeneracy, initialize
from lvm._jit import Array
from lvm.estimators.given import GivenValues
from lvm.estimators.progress import Progress
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import CanonicalRows, DegenerateError, Rows


def part_of(model: Mixture[Any], X: Any, rows: Rows, index: NDArray[np.int64]) -> tuple[Any, Rows]:
    """Return the rows at `index`, of X and as the model sees them."""
    X = X.take(index) if isinstance(X, CanonicalRows) else X[index]
    weight, labels = (None if part is None else part[index] for part in (rows.weight, rows.labels))
    return X, model.canonical(Rows(X, weight, labels))


class Starting(Progress, GivenValues):
    """Base of estimators whose fits start from given parameters, or as `init_params` says."""

    n_init: int | str
    init_params: Any
    warm_start: bool
    on_degenerate: str

    _n_started = 0  # starts made before the one being made, in a fit

    # ----- what a subclass may say ----------------------------------------------------------------------------

    def _features(self, X: Any) -> Any:
        """Return rows of X, finite, where Euclidean distances make sense, for k-means."""
        return X

    def _start_centres(self) -> Array | None:
        """Return given starting centres in the space of `_features`."""
        return None

    def _is_spurious(self, X: Any, weight: Array | None) -> Callable[[MixtureParams], bool] | None:
        """Return what tells parameters whose likelihood on rows X is high for a few rows' sake; None: nothing does."""
        return None

    def _check_data(self, rows: Rows) -> None:
        """Check canonical rows for what makes a fit meaningless."""

    def _prepare(self, X: Any, weight: Array | None) -> None:
        """Set the fitted attributes that the rows decide before any start."""

    def _assigned(self, features: Any, part: Rows, rng: np.random.RandomState) -> NDArray[Any]:
        """Return the components, or responsibilities, of the rows of a start by `init_params`."""
        return initialize.assign(
            features,
            self.n_components,
            self.init_params,
            rng,
            part.weight,
            part.labels,
            self._start_centres(),
            self._n_started,
        )

    def _given_assignment(self, X: Any, rows: Rows) -> NDArray[Any]:
        """Return the components, or responsibilities, that `init_params` gives to rows X, canonical as `rows`."""
        return _checks.assignment(self.init_params, X.shape[0], self._n_weights)

    # ----- starts ---------------------------------------------------------------------------------------------

    def _explicit_start(self, given: dict[str, Array]) -> MixtureParams | None:
        """Return the starting parameters that need no data: those of the last fit, or given ones."""
        if self.warm_start and len(getattr(self, "weights_", ())) == self._n_weights:
            return self._merged(self._given(with_starts=False), self._get_params())
        return self._merged(given, None)

    def _count_starts(self, explicit: MixtureParams | None) -> int:
        """Return how many starts there are: one where all would be the same, or where a part of it is given."""
        if explicit is not None:
            return 1
        if self.n_init != "auto":
            return int(self.n_init)
        is_given = not isinstance(self.init_params, str) or any(
            self._started(name) is not None for name in ("weights", *self._parameters())
        )
        return 1 if is_given or self._start_centres() is not None else initialize.n_starts(self.n_components)

    def _race_part(
        self, model: Mixture[Any], X: Any, rows: Rows, rng: np.random.RandomState
    ) -> tuple[Any, Rows] | None:
        """Return the rows on which several starts race, of X and as the model sees them; None means all."""
        if not isinstance(self.init_params, str) or self._smooths_start or self._smooths_every_start:
            return None
        index = initialize.race_sample(rows, self.n_components, rng)
        return None if index is None else part_of(model, X, rows, index)

    def _starts(
        self,
        model: Mixture[Any],
        X: Any,
        rows: Rows,
        rng: np.random.RandomState,
        given: dict[str, Array],
        first: int,
        n_starts: int,
    ) -> Iterator[MixtureParams | DegenerateError]:
        """Yield starting parameters, or why there are none."""
        for index in range(first, first + n_starts):
            self._report(f"Initialization {index}")
            self._n_started = index
            try:
                yield self._start(model, X, rows, rng, given)
            except DegenerateError as error:
                yield error
            finally:
                del self._n_started

    def _start(
        self, model: Mixture[Any], X: Any, rows: Rows, rng: np.random.RandomState, given: dict[str, Array]
    ) -> MixtureParams:
        """Return starting parameters by `init_params`, with the explicit ones put in."""
        K = self._n_weights
        if isinstance(self.init_params, str):
            index = initialize.subsample(rows, rng)
            part, everything = rows, rows if self._smooths_every_start else None
            if index is not None:
                X, part = part_of(model, X, rows, index)
                everything = rows if self._smooths_start else None
            features = self._features(initialize.filled(X))
            if self._is_discrete and part.labels is None:
                features, weight, place = initialize.collapse(features, part.weight)
                assignment = initialize.assign(features, K, self.init_params, rng, weight, index=self._n_started)[place]
            else:
                assignment = self._assigned(features, part, rng)
        else:
            part, everything, assignment = rows, None, self._given_assignment(X, rows)
        if not hasattr(model.family, "start"):
            raise TypeError(
                f"{type(model.family).__name__} must implement start(X, weight, n_components) to be started by "
                "init_params; or give starting weights and parameters."
            )
        try:
            params = initialize.from_assignment(model, part, assignment, K, everything)
        except DegenerateError:
            if self.on_degenerate != "drop":
                raise
            params = self._start_that_collapses(model, part, assignment, rows)
        merged = self._merged(given, params)
        assert merged is not None
        return merged

    def _start_that_collapses(
        self, model: Mixture[Any], part: Rows, assignment: NDArray[Any], rows: Rows
    ) -> MixtureParams:
        """Return starting parameters near those that do not exist: EM tells which components collapse."""
        for floored in degeneracy.floored(model, rows):
            with suppress(DegenerateError):
                return initialize.from_assignment(floored, part, assignment, self._n_weights)
        return initialize.from_assignment(model, part, assignment, self._n_weights, rows)  # a share of all in each
