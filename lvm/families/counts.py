"""What families of independent counts share: rows with exposures or holes, and the terms linear in the counts.

A count x adds x * slope - exposure * cost + x * log exposure - log x! to the log density of a component: for Poisson
counts all there is, with the logarithm of the rate as slope and the rate as cost. A missing cell is a count of 0 under
an exposure of 0, which adds nothing; thus holes need no kernels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array, canonical, kernel
from lvm.kernels.gamma_functions import LARGEST, LOG_FACTORIAL, log_factorial
from lvm.kernels.products import add_products, add_weighted_rows
from lvm.protocol import DEAD_SHARE, CanonicalRows, IncompleteRows

BEYOND = 1e-10  # a share of a column's mean close to 0, from which EM still finds back to another
BLOCK_ROWS = 1 << 14  # rows per block of passes over all rows: temporaries stay small whatever the data


@dataclass(frozen=True)
class ExposedRows(CanonicalRows):
    """Rows of counts, each observed over its own time, area or population.

    Attributes
    ----------
    X : ndarray of shape (n, d) or IncompleteRows
        Counts.
    exposure : ndarray of shape (n,), optional
        Factor > 0 on the mean of all counts of a row. None means 1 for every row.
    """

    X: Any
    exposure: Array | None = None


def canonical_counts(X: Any) -> Array | IncompleteRows:
    """Return whole counts >= 0 as read-only float64 (n, d), as IncompleteRows where there is NaN."""
    X = np.asarray(X.X if isinstance(X, IncompleteRows) else X)
    _checks.matrix(X)
    _checks.counts(X)
    rows = canonical(X)
    _checks.whole(rows)
    return IncompleteRows(rows) if any(np.isnan(rows[part]).any() for part in _parts(len(rows))) else rows


def canonical_exposed(X: Any) -> Array | IncompleteRows | ExposedRows:
    """Return counts as `canonical_counts`, with their exposures where they have some."""
    if not isinstance(X, ExposedRows):
        return canonical_counts(X)
    counts = canonical_counts(X.X)
    if X.exposure is None:
        return counts
    return ExposedRows(counts, canonical_exposure(X.exposure, len(counts)))


def canonical_exposure(exposure: Any, n: int) -> Array:
    """Return exposures (n,) as read-only float64, finite and > 0; a single number stands for all."""
    try:
        array = np.asarray(exposure, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"exposure must hold a number for each row: {error}.") from None
    if array.ndim == 0:
        array = np.full(n, float(array))
    if array.shape != (n,):
        raise ValueError(f"exposure has shape {array.shape}, expected ({n},): one for each row.")
    bad = np.flatnonzero(~((array > 0) & (array < np.inf)))
    if len(bad):
        raise ValueError(f"exposure must be finite and > 0; got {array[bad[0]]} at row {bad[0]}.")
    return canonical(array)


def zeros_as_missing(X: Any) -> tuple[Array, Array | None, Array | None]:
    """Return counts (n, d) with 0 in missing cells, exposures (n,), and exposures of cells (n, d) or of rows (n, 1).

    The exposures are None where all are 1; those of missing cells are 0.
    """
    X, exposure = (X.X, X.exposure) if isinstance(X, ExposedRows) else (X, None)
    if not isinstance(X, IncompleteRows):
        return X, exposure, None if exposure is None else exposure.reshape(-1, 1)
    observed = ~np.isnan(X.X)
    cells = np.multiply(observed, 1.0 if exposure is None else exposure[:, None], dtype=np.float64)
    return canonical(np.where(observed, X.X, 0.0)), exposure, canonical(cells)


@kernel
def _subtract_log_factorials(X: Array, out: Array) -> None:
    """Subtract the sums of log x! over the rows of X (n, d) from out (n,)."""
    for i in range(len(out)):
        row, total, in_table = X[i], 0.0, True
        for j in range(len(row)):  # no branch: next to no cost where every count is in the table
            whole = np.uint64(min(row[j], LARGEST))
            total += LOG_FACTORIAL[whole]
            in_table &= row[j] == whole
        if not in_table:
            total = 0.0
            for j in range(len(row)):
                total += log_factorial(row[j])
        out[i] -= total


def add_linear_densities(X: Any, slopes: Array, costs: Array, out: Array) -> None:
    """Add the sums over columns of x slope - exposure cost + x log exposure - log x! to out (K, n).

    Slopes (K, d) may be -inf, for counts that must be 0; costs (K, d) are finite.
    """
    counts, exposure, exposures = zeros_as_missing(X)
    K, d = slopes.shape
    constants = np.zeros(len(counts)) if exposure is None else np.log(exposure) * counts.sum(axis=1)
    _subtract_log_factorials(counts, constants)
    none = np.zeros(K)
    totals = costs.sum(axis=1)
    add_products(counts, slopes, -totals if exposures is None else none, canonical(constants), out)
    if exposures is not None:
        table = -costs if exposures.shape[1] == d else -totals[:, None]
        add_products(exposures, table, none, canonical(np.zeros(len(counts))), out)


def add_linear_sums(X: Any, resp: Array, counts: Array, observed: Array, sums: Array) -> None:
    """Add the sums that belong to `add_linear_densities` under resp (K, n).

    Counts of cells go to sums (K, d); of rows complete and without exposures, the weight goes to counts (K,), and of
    others, weight times exposure goes to observed (K, d), cell by cell.
    """
    rows, _, exposures = zeros_as_missing(X)
    if exposures is None:
        add_weighted_rows(rows, resp, counts, sums)
        return
    unused = np.zeros(len(resp))
    add_weighted_rows(rows, resp, unused, sums)
    exposed = np.zeros((len(resp), exposures.shape[1]))
    add_weighted_rows(exposures, resp, unused, exposed)
    observed += exposed


def alive_weights(counts: Array, observed: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return the weight behind each parameter (K, d), 1 where it has died, and which are alive."""
    weight = counts[:, None] + observed
    alive = weight > DEAD_SHARE * weight.sum(axis=0)
    return np.where(alive, weight, 1.0), alive


def _parts(n: int) -> Iterator[slice]:
    for start in range(0, n, BLOCK_ROWS):
        yield slice(start, min(n, start + BLOCK_ROWS))


def column_means(X: Any, weight: Array) -> Array:
    """Return the weighted mean of each column per unit of exposure, shape (d,); 1 where nothing is observed."""
    d = X.shape[1]
    counts, observed, sums = np.zeros(1), np.zeros((1, d)), np.zeros((1, d))
    for part in _parts(len(X)):
        add_linear_sums(X[part], np.array(weight[None, part]), counts, observed, sums)
    weights, alive = alive_weights(counts, observed)
    return np.asarray(np.where(alive, sums / weights, 1.0)[0])


def column_variances(X: Any, weight: Array, means: Array) -> Array:
    """Return the weighted mean square about means (d,) of each column, shape (d,); 0 where nothing is observed."""
    total, squares = np.zeros(len(means)), np.zeros(len(means))
    for part in _parts(len(X)):
        block = X[part].X if isinstance(X, IncompleteRows) else X[part]
        observed = ~np.isnan(block)
        total += weight[part] @ observed
        squares += weight[part] @ np.where(observed, np.square(block - means), 0.0)
    return np.divide(squares, total, out=np.zeros_like(squares), where=total > 0)


def fill_means(X: Any, resp: Array, means: Array, out: Array) -> None:
    """Write exposure * sum_k resp[k, i] means[k, j] to the cells of out (n, d) that are NaN."""
    missing = np.isnan(out)
    out[missing] = exposed_means(X, resp.T @ means)[missing]


def exposed_means(X: Any, means: Array) -> Array:
    """Return the means (n, d) of rows of exposure 1 times the exposures of X, where it has some."""
    exposure = X.exposure if isinstance(X, ExposedRows) else None
    return means if exposure is None else exposure[:, None] * means


def parameter(name: str, values: Any, least: float, most: float, rule: str) -> Array:
    """Return a parameter (K, d) as float64 of its own, every entry of which lies between two bounds."""
    array = np.array(values, np.float64, order="C")
    if array.ndim != 2:
        raise ValueError(f"{name} must have the shape (n_components, n_features), got {array.shape}.")
    bad = np.argwhere(~((array >= least) & (array <= most) & (array < np.inf)))
    if len(bad):
        k, j = bad[0]
        raise ValueError(f"{name} must be {rule}, got {array[k, j]:g} in component {k}, feature {j}.")
    return array


def units(means: Array) -> Array:
    """Return the mean over components of each column's means (K, d), 1 where it is 0: the unit of coordinates, (d,)."""
    unit = means.mean(axis=0)
    return np.where(unit > 0, unit, 1.0)


def without_units(means: Array, origin: Array) -> Array:
    """Return means (K, d) relative to those of an origin, flat: where one tends to 0, its logarithm would run away."""
    return np.asarray((means / units(origin)).ravel())


def with_units(vector: Array, origin: Array) -> Array:
    """Return the means (K, d) of such a vector; one below 0 is put close to it."""
    return np.where(vector < 0, BEYOND, vector).reshape(origin.shape) * units(origin)
