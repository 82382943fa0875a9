"""Noise beside the components of a mixture: starts, predictions and what is fitted."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from lvm import _checks, initialize
from lvm._jit import Array
from lvm.em import fit_em
from lvm.estimators.base import FittingEstimator
from lvm.families.noise import UniformBox, WithNoise, smallest_box
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import DegenerateError, Rows

NEIGHBOURS = 5  # rows are remote by the distance to their fifth neighbour, so that a few of them are no cluster
SHARES = (0.05, 0.25, 0.5)  # of the rows that may start as noise
SHORT_RUN = 20  # iterations after which the start is chosen


def remote_rows(features: Array, n_components: int) -> list[NDArray[np.bool_]]:
    """Return which rows (n,) of features (n, d) may start as noise, for each of `SHARES`: those far from others.

    Byers & Raftery (1998), "Nearest-neighbor clutter removal for estimating features in spatial point processes", JASA
    93, take the same distances. At least one row is remote, and as many are not as there are components.
    """
    n = len(features)
    distances = NearestNeighbors(n_neighbors=min(NEIGHBOURS, n - 1)).fit(features).kneighbors()[0][:, -1]
    ranks = np.argsort(np.argsort(-distances, kind="stable"))
    counts = (max(0, min(max(1, round(share * n)), n - n_components)) for share in SHARES)
    return [ranks < count for count in counts]


class NoiseOption(FittingEstimator):
    """Base of estimators with an argument `noise`; where it is true, the last of their weights is that of the noise."""

    noise: bool
    n_features_in_: int
    noise_box_: Array

    @property
    def _n_weights(self) -> int:
        return self.n_components + int(self.noise)

    @property
    def noise_weight_(self) -> float:
        """Share of the noise among the rows, where `noise` is true: the last of `weights_`."""
        self._only_with_noise("noise_weight_")
        return float(self.weights_[-1])

    @property
    def noise_density_(self) -> float:
        """Density of the noise, where `noise` is true: 1 over the volume of `noise_box_`."""
        self._only_with_noise("noise_density_")
        return float(np.exp(-UniformBox(self.noise_box_).log_volume))

    def _only_with_noise(self, name: str) -> None:
        if not self.noise:
            raise AttributeError(f"{type(self).__name__} has {name} with noise=True only.")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.noise, (bool, np.bool_)):
            raise _checks.ParameterError(f"noise must be True or False, got {self.noise!r}.")
        if self.noise and self.equal_weights:
            raise _checks.ParameterError(
                "equal_weights=True would make the noise as frequent as each component; leave it out, or noise=True."
            )
        if self.noise and self.on_degenerate == "drop":
            raise _checks.ParameterError("on_degenerate='drop' does not go with noise=True; choose another policy.")

    def _prepare(self, X: Any, weight: Array | None) -> None:
        super()._prepare(X, weight)
        if self.noise:
            self.noise_box_ = smallest_box(X if weight is None else X[weight > 0])
        elif hasattr(self, "noise_box_"):
            del self.noise_box_

    def _with_noise(self, family: Any) -> Any:
        """Return the family, with noise beside it where `noise` is true and the box is known."""
        return WithNoise(family, self.noise_box_) if self.noise and hasattr(self, "noise_box_") else family

    def _get_params(self) -> MixtureParams:
        params = super()._get_params()
        if len(params.weights) != len(self._first_parameter()) + int(self.noise):
            raise ValueError("weights_ were fitted with another value of noise; fit again after a change of it.")
        return params

    def _first_parameter(self) -> Any:
        return getattr(self, f"{next(iter(self._parameters()))}_")

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        shapes = super()._attribute_shapes(n_components - int(self.noise))
        d = self.n_features_in_
        return {**shapes, "noise_box_": (d + 1, d)} if self.noise else shapes

    def _assigned(self, features: Any, part: Rows, rng: np.random.RandomState) -> NDArray[Any]:
        if not self.noise:
            return super()._assigned(features, part, rng)
        remote = remote_rows(features, self.n_components)
        return self._best([self._beside(noisy, features, part, rng) for noisy in remote], features, part)

    def _given_assignment(self, X: Any, rows: Rows) -> NDArray[Any]:
        assignment = super()._given_assignment(X, rows)
        if not self.noise or assignment.ndim == 2 or (assignment == self.n_components).any():
            return assignment
        remote = remote_rows(initialize.filled(X), self.n_components)
        return self._best([np.where(noisy, self.n_components, assignment) for noisy in remote], X, rows)

    def _best(self, assignments: list[NDArray[Any]], X: Any, rows: Rows) -> NDArray[Any]:
        """Return the assignment from which a few iterations of EM reach the highest objective."""
        model = self._model(X, rows.weight)
        reached = np.full(len(assignments), -np.inf)
        for index, assignment in enumerate(assignments):
            with suppress(DegenerateError):
                start = initialize.from_assignment(model, rows, assignment, self._n_weights)
                result = fit_em(model, rows, start, tol=0.0, max_iter=SHORT_RUN, n_jobs=self.n_jobs)
                reached[index] = result.objective_trace[result.n_iter]
        return assignments[int(reached.argmax())]

    def _beside(self, noisy: NDArray[np.bool_], features: Any, part: Rows, rng: np.random.RandomState) -> NDArray[Any]:
        """Return an assignment of the rows by `init_params`, of the noisy ones (n,) to noise where labels allow it."""
        K, labels = self.n_components, part.labels
        if labels is not None and labels.ndim == 1:
            noisy = np.where(labels < 0, noisy, labels == K)
        elif labels is not None:
            noisy = (labels[:, K] > 0) & (noisy | ~labels[:, :K].any(axis=1))
        quiet = np.flatnonzero(~noisy)
        known = None if labels is None else labels[quiet] if labels.ndim == 1 else labels[quiet, :K]
        weight = None if part.weight is None else part.weight[quiet]
        own = initialize.assign(
            features[quiet], K, self.init_params, rng, weight, known, self._start_centres(), self._n_started
        )
        if own.ndim == 1:
            assignment: NDArray[Any] = np.full(len(noisy), K)
            assignment[quiet] = own
            return assignment
        assignment = np.zeros((len(noisy), K + 1))
        assignment[quiet, :K] = own
        assignment[noisy, K] = 1.0
        return assignment

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable component of each row, shape (n,); -1 for noise.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        """
        return self._numbered(super().predict(X))

    def _sample(self, model: Mixture[Any], n_samples: int) -> tuple[Any, NDArray[np.int64]]:
        X, components = super()._sample(model, n_samples)
        return X, self._numbered(components)

    def _numbered(self, components: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(components == self.n_components, -1, components) if self.noise else components
