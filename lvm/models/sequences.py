"""Sequences of observations as rows: what models of dependent observations are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvm._jit import Array, canonical
from lvm.protocol import CanonicalRows, take_rows


@dataclass(frozen=True)
class Sequences(CanonicalRows):
    """Sequences of observations: each is one row. Slicing shares the observations, it copies nothing.

    Attributes
    ----------
    indptr : ndarray of shape (n_sequences + 1,), int64
        Sequence i owns the observations `indptr[i]:indptr[i + 1]`, at least one.
    observations : ndarray of shape (n, d) or CanonicalRows
        Observations of all sequences, one after the other, as the family sees them.
    states : ndarray of shape (n,), int64, optional
        Known state of each observation, -1 where unknown.
    """

    indptr: NDArray[np.int64]
    observations: Any
    states: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def dtype(self) -> Any:
        """Precision of the observations, None where they are more than one array."""
        return getattr(self.observations, "dtype", None)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of sequences and of columns."""
        return len(self), int(self.observations.shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of observations of each sequence."""
        return np.asarray(np.diff(self.indptr))

    def __getitem__(self, rows: slice) -> Sequences:
        start, stop, _ = rows.indices(len(self))
        return Sequences(self.indptr[start : stop + 1], self.observations, self.states)

    def take(self, index: NDArray[np.int64]) -> Sequences:
        """Return the sequences at `index`, in that order, with observations of their own."""
        starts, lengths = self.indptr[index], self.lengths[index]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        states = None if self.states is None else canonical(self.states[places], np.int64)
        return Sequences(canonical(indptr, np.int64), take_rows(self.observations, places), states)

    def parts(self) -> list[Any]:
        """Return the arrays of the observations."""
        rows = self.observations
        return rows.parts() if isinstance(rows, CanonicalRows) else [rows]


@dataclass(frozen=True)
class SequencesByObservation(CanonicalRows):
    """The same sequences with observations as rows: a slice holds the sequences that begin in it, whole.

    What cuts rows into parts of equal length then makes parts of about equal work, and an observation is named by its
    own number.

    Attributes
    ----------
    sequences : Sequences
        Those that begin within start and stop.
    weight : ndarray of shape (n_sequences,), optional
        Their weights.
    start, stop : int
        The slice, as numbers of observations.
    """

    sequences: Sequences
    weight: Array | None
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def dtype(self) -> Any:
        """Precision of the observations, None where they are more than one array."""
        return self.sequences.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Number of observations and of columns."""
        return len(self), self.sequences.shape[1]

    def __getitem__(self, rows: slice) -> SequencesByObservation:
        start, stop = (self.start + place for place in rows.indices(len(self))[:2])
        first, end = (int(place) for place in np.searchsorted(self.sequences.indptr[:-1], [start, stop]))
        weight = None if self.weight is None else self.weight[first:end]
        return SequencesByObservation(self.sequences[first:end], weight, start, stop)


class SequenceRows(NamedTuple):
    """Rows of a hidden Markov model.

    Attributes
    ----------
    X : Sequences, SequencesByObservation, or array of shape (n, d)
        The sequences, with weights of their own where counted by observation; an array is a single one.
    weight : ndarray of shape (n_sequences,), optional
        Weights, >= 0: a sequence of weight 2 counts as two equal ones. None means all 1.
    """

    X: Any
    weight: Array | None = None


def by_observation(rows: SequenceRows) -> SequenceRows:
    """Return rows of `Sequences`, from their first observation on, as rows of `SequencesByObservation`."""
    start, stop = int(rows.X.indptr[0]), int(rows.X.indptr[-1])
    return SequenceRows(SequencesByObservation(rows.X, rows.weight, start, stop))


def indptr_of(lengths: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Return where the sequences of n observations begin, and n, from their lengths; None is a single sequence."""
    if lengths is None:
        return canonical(np.array([0, n]), np.int64)
    array = np.atleast_1d(np.asarray(lengths))
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iuf" or np.any(array != np.floor(array)):
        raise ValueError(f"lengths must be a list of integers >= 1, one for each sequence, got {lengths!r}.")
    if array.min() < 1:
        place = int(array.argmin())
        raise ValueError(f"lengths must be >= 1, got {array[place]:g} for sequence {place}; leave out empty sequences.")
    if array.sum() != n:
        raise ValueError(
            f"lengths sum to {array.sum():g}, but X has {n} observations; every one belongs to a sequence."
        )
    return canonical(np.concatenate([[0], np.cumsum(array)]), np.int64)


def checked_indptr(indptr: ArrayLike, n: int, whole: bool) -> NDArray[np.int64]:
    """Return indptr as kernels see it; refuse one that cuts no sequences of 1 or more from n observations.

    Sequences that are the whole, and not a slice, have every observation.
    """
    array = np.asarray(indptr)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iuf" or np.any(array != np.floor(array)):
        raise ValueError(
            f"indptr must be a list of integers, where sequences begin and the last one ends; got {indptr!r}."
        )
    if np.any(np.diff(array) < 1):
        place = int(np.argmax(np.diff(array) < 1))
        raise ValueError(
            f"indptr must ascend, got {array[place + 1]:g} after {array[place]:g} for sequence {place}; leave out "
            "empty sequences, and make indptr from lengths by indptr_of."
        )
    if array[0] < 0 or array[-1] > n or (whole and (array[0] != 0 or array[-1] != n)):
        raise ValueError(
            f"indptr goes from {array[0]:g} to {array[-1]:g}, but there are {n} observations: it must begin with 0 and "
            "end with their number; indptr_of makes it from lengths."
        )
    return canonical(array, np.int64)
