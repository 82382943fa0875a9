"""Factorise small symmetric matrices, without LAPACK and without exceptions."""

from __future__ import annotations

import numpy as np

from lvm._jit import Array, helper, kernel


@helper
def inverse_cholesky(matrix: Array, inverse: Array) -> float:
    """Write L^-1 for matrix = L L' (d, d) to inverse (d, d), zeros above the diagonal.

    Only the lower half of matrix is read. Returns the smallest ratio of a squared pivot to its
    diagonal element: the share of a variable's variance that those before it leave unexplained;
    0 where the matrix is not positive definite (inverse is then unfinished).
    """
    d = matrix.shape[0]
    lower = np.empty((d, d))
    smallest = 1.0
    for i in range(d):
        for j in range(i + 1):
            rest = 0.0
            for c in range(j):
                rest += lower[i, c] * lower[j, c]
            rest = matrix[i, j] - rest
            if i > j:
                lower[i, j] = rest / lower[j, j]
            else:
                if not (rest > 0.0 and matrix[i, i] < np.inf):
                    return 0.0
                smallest = min(smallest, rest / matrix[i, i])
                lower[i, i] = np.sqrt(rest)
    for i in range(d):
        for j in range(d):
            inverse[i, j] = 0.0
        for c in range(i):
            for j in range(c + 1):
                inverse[i, j] += lower[i, c] * inverse[c, j]
        for j in range(i):
            inverse[i, j] /= -lower[i, i]
        inverse[i, i] = 1.0 / lower[i, i]
    return smallest


@kernel
def run_inverse_cholesky(matrix: Array, inverse: Array) -> float:
    """Do `inverse_cholesky`, for callers in Python."""
    return inverse_cholesky(matrix, inverse)


@helper
def copy_matrix(matrix: Array, into: Array) -> None:
    """Copy a matrix (d, d) into the corner of another, without what numba compiles for array assignments."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            into[i, j] = matrix[i, j]
