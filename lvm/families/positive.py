"""What families of positive amounts share: rows of numbers that are bounded below, with holes or without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.kernels.incomplete import observed_column_moments
from lvm.kernels.moments import column_moments
from lvm.protocol import IncompleteRows

BLOCK_ROWS = 1 << 14
SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)  # below it, numbers lose digits and their inverses overflow


def refuse_below(X: Any, least: float, rule: str, names: Sequence[str] | None = None) -> None:
    """Refuse values of X (n, d) below `least`, naming the first cell and the `rule` that it breaks; NaN breaks none."""
    for start in range(0, len(X), BLOCK_ROWS):
        bad = np.argwhere(X[start : start + BLOCK_ROWS] < least)
        if len(bad):
            row, column = start + int(bad[0][0]), int(bad[0][1])
            value = X[row, column]
            kind = "Negative values in data: " if value < 0 else ""  # what scikit-learn's checks look for
            where = f"{column}" if names is None else f"{column} ({names[column]!r})"
            raise ValueError(f"{kind}X {rule}; got {value} at row {row}, column {where}.")


def canonical_amounts(X: Any, least: float, rule: str) -> Array | IncompleteRows:
    """Return X as read-only float64 (n, d), or as IncompleteRows where NaN marks missing cells."""
    if isinstance(X, IncompleteRows):
        return X
    array: Array = canonical(X)
    _checks.matrix(array)
    _checks.finite(array, allow_missing=True)
    refuse_below(array, least, rule)
    # NaN propagates through sums, and sums of finite amounts have no other way to become NaN.
    with np.errstate(over="ignore"):
        return IncompleteRows(array) if np.isnan(np.sum(array)) else array


def require_positive(name: str, values: Array) -> None:
    """Refuse parameters (K, d) that are not positive numbers with finite inverses."""
    bad = np.argwhere(~((values >= SMALLEST_NORMAL) & (values < np.inf)))
    if len(bad):
        k, j = bad[0]
        raise ValueError(f"{name} must be finite and > 0, got {values[k, j]:g} in component {k}, feature {j}.")


def column_means(X: Any, weight: Array) -> Array:
    """Return the weighted means of the observed cells of each column (d,), 0 where there are none."""
    total, mean, variance = np.empty((3, X.shape[1]))
    if isinstance(X, IncompleteRows):
        observed_column_moments(X.X, canonical(weight), total, mean, variance)
    else:
        column_moments(X, canonical(weight), mean, variance)
    return np.asarray(mean)


def fill_means(resp: Array, means: Array, out: Array) -> None:
    """Write resp (K, n).T @ means (K, d) to the cells of out (n, d) that are NaN."""
    np.copyto(out, resp.T @ means, where=np.isnan(out))
