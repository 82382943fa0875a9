"""Rows of regressions: covariates and a response each, one by one or in groups that share their component."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, canonical
from lvm.protocol import CanonicalRows, take_rows


@dataclass(frozen=True)
class RegressionRows(CanonicalRows):
    """Rows of a mixture of regressions; its units, which belong to a component each, are rows or groups of rows.

    Slices and lengths are those of units, so that no group is ever split.

    Attributes
    ----------
    design : ndarray of shape (n, p)
        Covariates of the experts; the first column is 1.
    response : ndarray of shape (n,)
        What they explain; for labels their positions among the classes.
    size : ndarray of shape (n,), optional
        Exposures of Poisson counts, or numbers of trials of binomial ones; not for other experts.
    constants : ndarray of shape (n,), optional
        The part of each log density that no parameter enters; where there is `size`.
    gate : ndarray of shape (n_units, q), optional
        Covariates of the gate; the first column is 1.
    indptr : ndarray of shape (n_units + 1,), int64, optional
        Unit g owns the rows `indptr[g]:indptr[g + 1]`. None where each row is a unit.
    """

    design: Array
    response: Array
    size: Array | None = None
    constants: Array | None = None
    gate: Array | None = None
    indptr: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.design) if self.indptr is None else len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Number of units, and of covariates of one, on average."""
        n, p = self.design.shape
        rows_per_unit = -(-n // max(1, len(self))) if self.indptr is not None else 1
        return len(self), p * rows_per_unit

    def __getitem__(self, rows: slice) -> RegressionRows:
        if self.indptr is None:
            return super().__getitem__(rows)
        start, stop, _ = rows.indices(len(self))
        gate = None if self.gate is None else self.gate[start:stop]
        return replace(self, gate=gate, indptr=self.indptr[start : stop + 1])

    def take(self, index: NDArray[np.int64]) -> RegressionRows:
        """Return the units at `index`, in that order."""
        if self.indptr is None:
            return super().take(index)
        starts = self.indptr[index]
        lengths = self.indptr[index + 1] - starts
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        gate = None if self.gate is None else take_rows(self.gate, index)
        picked = RegressionRows(*self._arrays()).take(rows)
        return replace(picked, gate=gate, indptr=canonical(indptr, np.int64))

    def observations(self) -> RegressionRows:
        """Return the rows of these units, one by one, without the gate's covariates."""
        if self.indptr is None:
            return self
        return RegressionRows(*self._arrays())[slice(int(self.indptr[0]), int(self.indptr[-1]))]

    def _arrays(self) -> tuple[Array, Array, Array | None, Array | None]:
        return self.design, self.response, self.size, self.constants


class ExpertsRows(NamedTuple):
    """Row-aligned data of a mixture of regressions.

    Attributes
    ----------
    data : RegressionRows
        Covariates and responses.
    weight : ndarray of shape (n_units,), optional
        Weights of the units, >= 0: one of weight 2 counts as two. None means all 1.
    """

    data: RegressionRows
    weight: Array | None = None
