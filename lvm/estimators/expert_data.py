"""From tables to the rows of a mixture of regressions: designs, responses, groups, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr
from scipy.special import gammaln
from sklearn.utils import check_array

from lvm import _checks
from lvm._jit import Array, canonical
from lvm.encoding import is_missing
from lvm.kernels.moments import column_moments
from lvm.models.expert_rows import RegressionRows

# A column is collinear where the others leave less than this share of its length; or no more than a rounding of its
# values does, in units of eps.
COLLINEAR, ROUNDED = 1e-11, 16.0
EPS = float(np.finfo(np.float64).eps)
# For experts of counts: the name of what comes with the response, and what it is.
SIZES = {"poisson": "exposure", "binomial": "trials"}


GATE_DATA = ("gates_apart_", "gating_feature_names_in_")  # what a fit remembers of the gate's covariates


class Design(NamedTuple):
    """A linear map of covariates to columns in which EM works: their means are 0, their scales 1.

    Attributes
    ----------
    centre : ndarray of shape (d,)
        What is taken off the covariates.
    transform : ndarray of shape (d, d)
        What they are multiplied by then.
    """

    centre: Array
    transform: Array

    def columns(self, X: Array) -> Array:
        """Return 1 and the new covariates, (n, d + 1), as kernels see them."""
        out = np.empty((len(X), X.shape[1] + 1))
        out[:, 0] = 1.0
        for start in range(0, len(X), _checks.BLOCK_ROWS):
            rows = slice(start, start + _checks.BLOCK_ROWS)
            out[rows, 1:] = (X[rows] - self.centre) @ self.transform
        return canonical(out)

    def outside(self, coefficients: Array) -> tuple[Array, Array]:
        """Return intercepts (...) and slopes (..., d) on the user's covariates from coefficients (..., d + 1)."""
        slopes = coefficients[..., 1:] @ self.transform.T
        return np.asarray(coefficients[..., 0] - slopes @ self.centre), np.ascontiguousarray(slopes)

    def inside(self, intercepts: Array, slopes: Array) -> Array:
        """Return coefficients (..., d + 1) on the columns from intercepts (...) and slopes (..., d)."""
        solved = np.linalg.lstsq(self.transform, slopes.reshape(-1, slopes.shape[-1]).T, rcond=None)[0].T
        first = (intercepts + slopes @ self.centre)[..., None]
        return np.ascontiguousarray(np.concatenate([first, solved.reshape(slopes.shape)], axis=-1))


def plain_columns(X: Array) -> Array:
    """Return 1 and the covariates as they are, (n, d + 1)."""
    return canonical(np.column_stack([np.ones(len(X)), X]))


def find_design(X: Array, weight: Array | None, ridge: bool, what: str, names: Sequence[str] | None) -> Design:
    """Return the columns in which EM works: orthonormal ones, or with a ridge penalty, scaled ones.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Covariates.
    weight : ndarray of shape (n,), optional
        Row weights.
    ridge : bool
        Whether a penalty makes up for collinear columns.
    what : str
        Name of X, for messages.
    names : sequence of str, optional
        Names of its columns.

    Raises
    ------
    ValueError
        If columns are constant or collinear and there is no penalty.
    """
    if weight is not None:
        X, weight = X[weight > 0], weight[weight > 0]
    per_row = canonical(np.ones(len(X)) if weight is None else weight / weight.mean())
    centre, variances = np.empty(X.shape[1]), np.empty(X.shape[1])
    column_moments(canonical(X), per_row, centre, variances)
    _checks.representable(X, variances)
    scales = np.sqrt(variances)
    noise = ROUNDED * EPS * np.maximum(np.abs(X.min(axis=0)), np.abs(X.max(axis=0)))
    constant = ~(scales > noise)
    inverse = np.divide(1.0, scales, out=np.zeros_like(scales), where=~constant)
    if ridge:
        return Design(centre, np.diag(inverse))
    named = [repr(str(names[j])) if names is not None else str(j) for j in range(X.shape[1])]
    if constant.any():
        raise ValueError(
            f"column {named[np.flatnonzero(constant)[0]]} of {what} is constant, like the intercept that is always "
            "there; remove it, or set alpha > 0 (gating_alpha for the gate)."
        )
    if X.shape[1] >= len(X):
        raise ValueError(
            f"{what} has {X.shape[1]} columns and n_samples = {len(X)} rows, fewer than an expert's coefficients; "
            "add data, remove columns, or set alpha > 0 (gating_alpha for the gate)."
        )
    triangle = np.empty((0, X.shape[1]))
    for start in range(0, len(X), _checks.BLOCK_ROWS):
        part = slice(start, start + _checks.BLOCK_ROWS)
        block = (X[part] - centre) * inverse * np.sqrt(per_row[part])[:, None]
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, block]), mode="r"))
    _, triangle, order = qr(triangle, pivoting=True)
    left = np.abs(np.diag(triangle)) / np.sqrt(len(X))
    rank = int(np.sum(left > np.maximum(COLLINEAR, (noise * inverse)[order])))
    if rank < X.shape[1]:
        j = order[rank]
        shares = np.linalg.solve(triangle[:rank, :rank], triangle[:rank, rank])
        behind = ", ".join(named[order[i]] for i in np.flatnonzero(np.abs(shares) > 1e-6))
        raise ValueError(
            f"column {named[j]} of {what} is a linear combination of the columns {behind}: their coefficients are "
            "undefined. Remove one of them, or set alpha > 0 (gating_alpha for the gate)."
        )
    transform = np.zeros_like(triangle)
    transform[order] = np.linalg.inv(triangle) * np.sqrt(len(X))
    return Design(centre, inverse[:, None] * transform)


class Response(NamedTuple):
    """A checked response, and what comes with it; see `RegressionRows`."""

    y: Array
    size: Array | None
    constants: Array | None


def check_response(expert: str, y: Array, exposure: ArrayLike | None, trials: ArrayLike | None) -> Response:
    """Return the response of real or count experts, or refuse it, naming the first value that is wrong."""
    sizes = {"exposure": exposure, "trials": trials}
    for name, given in sizes.items():
        if given is not None and SIZES.get(expert) != name:
            raise ValueError(
                f"{name} is for expert={'poisson' if name == 'exposure' else 'binomial'!r}, not {expert!r}."
            )
    if expert not in SIZES:
        return Response(y, None, None)
    size = check_size(expert, sizes[SIZES[expert]], len(y))
    bad = np.flatnonzero((y < 0) | (y != np.floor(y)))
    if len(bad):
        raise ValueError(f"y must be whole counts >= 0 for expert={expert!r}; got {y[bad[0]]} at row {bad[0]}.")
    if expert == "poisson":
        return Response(y, size, canonical(y * np.log(size) - gammaln(y + 1)))
    bad = np.flatnonzero(y > size)
    if len(bad):
        raise ValueError(
            f"y must be at most the number of trials, 1 where trials is None; got {y[bad[0]]} of {size[bad[0]]} at "
            f"row {bad[0]}."
        )
    return Response(y, size, canonical(gammaln(size + 1) - gammaln(y + 1) - gammaln(size - y + 1)))


def check_size(expert: str, given: ArrayLike | None, n: int) -> Array:
    """Return exposures or numbers of trials (n,), 1 where not given."""
    if given is None:
        return canonical(np.ones(n))
    name = SIZES[expert]
    size = np.asarray(given, np.float64)
    if size.ndim == 0:
        size = np.full(n, float(size))
    if size.shape != (n,):
        raise ValueError(f"{name} has shape {size.shape}, expected ({n},): one value per row of X.")
    wrong = ~(np.isfinite(size) & (size > 0))
    if expert == "binomial":
        wrong |= size != np.floor(size)
    bad = np.flatnonzero(wrong)
    if len(bad):
        kind = "finite and > 0" if expert == "poisson" else "whole numbers >= 1"
        raise ValueError(f"{name} must be {kind}; got {size[bad[0]]} at row {bad[0]}.")
    return canonical(size)


class Groups(NamedTuple):
    """Rows sorted by group: their positions, the group of each row before, and where each group starts."""

    order: NDArray[np.int64]
    inverse: NDArray[np.int64]
    indptr: NDArray[np.int64]


def find_groups(groups: ArrayLike, n: int) -> Groups:
    """Return the groups of n rows from their labels."""
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups has shape {labels.shape}, expected ({n},): one label per row of X.")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"groups holds NaN at row {np.flatnonzero(np.isnan(labels))[0]}; give each row a label.")
    if labels.dtype == object:
        for row, label in enumerate(labels):
            if is_missing(label):
                raise ValueError(f"groups holds {label} at row {row}; give each row a label.")
        labels = labels.astype(str)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    return Groups(order, inverse, canonical(np.concatenate([[0], np.cumsum(counts)]), np.int64))


def of_groups(values: Array, groups: Groups, what: str) -> Array:
    """Return the value, or row of values, of each group; refuse those that differ within one."""
    values = values[groups.order]
    first = values[groups.indptr[:-1]]
    differs = values != np.repeat(first, np.diff(groups.indptr), axis=0)
    if differs.any():
        row = groups.order[np.argwhere(differs)[0][0]]
        raise ValueError(
            f"{what} must be the same in all rows of a group, which belong to one component; it differs at row {row}."
        )
    return canonical(first)


def regression_rows(design: Array, response: Response, gate: Array | None, groups: Groups | None) -> RegressionRows:
    """Return canonical rows of a design (n, p), a response, a gate's design (n, q), and groups."""
    y, size, constants = response
    if groups is None:
        return RegressionRows(design, canonical(y), size, constants, gate)

    def pick(array: Array | None) -> Any:
        return None if array is None else canonical(array[groups.order])

    per_group = None if gate is None else of_groups(gate, groups, "gating_X")
    return RegressionRows(pick(design), pick(y), pick(size), pick(constants), per_group, groups.indptr)


def gating_columns(
    gating_X: Any, n: int, fitted: tuple[int, NDArray[Any] | None] | None
) -> tuple[Array, NDArray[Any] | None]:
    """Return the gate's covariates as an array (n, q), and their names where they have some.

    Refuses other columns than those that the gate was fitted to: so many, of these names.
    """
    names = list(gating_X.columns) if hasattr(gating_X, "columns") else []
    z = np.asarray(check_array(gating_X, dtype=np.float64, input_name="gating_X"))
    if len(z) != n:
        raise ValueError(f"gating_X has {len(z)} rows, but X has {n}.")
    named = np.array(names, object) if names and all(isinstance(name, str) for name in names) else None
    if fitted is not None:
        n_columns, old = fitted
        if z.shape[1] != n_columns:
            raise ValueError(f"gating_X has {z.shape[1]} columns, but the gate was fitted to {n_columns}.")
        if named is not None and old is not None and names != list(old):
            raise ValueError(
                f"gating_X has the columns {', '.join(names)}, but the gate was fitted to {', '.join(old)}, in this "
                "order."
            )
    return z, named
