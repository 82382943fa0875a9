"""Newton steps that never lower a log-likelihood, without looking at it again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lvm._jit import Array
from lvm.kernels.triangular import run_inverse_cholesky
from lvm.protocol import DegenerateError

EPS = float(np.finfo(np.float64).eps)
SINGULAR = 1e-12  # share of a pivot from which a Cholesky factor still solves to several digits
NEWTON_PASSES = 25  # from a neutral start to the maximum of a convex problem


def ascent_steps(gradient: Array, hessian: Array, reach: Callable[[Array], Array]) -> Array:
    """Return steps (K, p) that raise K concave functions Q_k, or leave them where they are at their maxima.

    They are damped Newton steps. Along the direction delta let f(t) = Q(beta + t delta), and let c bound how fast its
    second derivative grows, -f''(t) <= exp(t c) h with h = -f''(0). Twice integrated, with g = f'(0),

    f(t) - f(0) >= t g - h (exp(t c) - 1 - t c) / c**2.

    The Newton direction has g = h, and the right side its maximum, h ((1 + c) log(1 + c) - c) / c**2 >= 0, at
    t = log(1 + c) / c. That is 1, Newton's own step, as c tends to 0 near the maximum.

    For linear predictors that change by u_i = x_i'delta, the log-likelihood of Poisson counts has
    -f''(t) = sum_i r_i exp(eta_i + t u_i) u_i**2, so that c = max(0, max_i u_i). For softmax probabilities -f''(t) is
    a sum of variances of the u_ic over classes c, whose derivatives are third central moments, in size at most
    the range of the u_ic times the variance: c is the largest range; for binomial counts that is max_i |u_i|.
    A quadratic prior adds a constant to h, which satisfies the bound too. Any larger c will do.

    Parameters
    ----------
    gradient : ndarray of shape (K, p)
        Gradients.
    hessian : ndarray of shape (K, p, p)
        Negative matrices of second derivatives. Directions in which one is 0 to rounding are left alone.
    reach : callable
        Returns bounds c (K,) for directions (K, p).

    Returns
    -------
    ndarray of shape (K, p)
        Changes of the coefficients.

    Raises
    ------
    DegenerateError
        If the derivatives overflow.

    References
    ----------
    Bach (2010), "Self-concordant analysis for logistic regression", EJS 4, proposition 1. Sun & Tran-Dinh (2019),
    "Generalized self-concordant functions: a recipe for Newton-type methods", theorem 2, for nu = 2.
    """
    if not (np.all(np.isfinite(gradient)) and np.all(np.isfinite(hessian))):
        raise DegenerateError("the derivatives overflow: some linear predictor is too large; scale the data.")
    directions = solve_symmetric(hessian, gradient)
    c = reach(directions)
    lengths = np.divide(np.log1p(c), c, out=np.ones_like(c), where=c > 0)
    return np.asarray(lengths[:, None] * directions)


def solve_symmetric(matrices: Array, vectors: Array) -> Array:
    """Return the solutions x (K, p) of A x = b of least length, for matrices A (K, p, p) >= 0 and vectors b (K, p)."""
    out = np.empty_like(vectors)
    factor = np.empty(matrices.shape[1:])
    for k, (matrix, vector) in enumerate(zip(np.ascontiguousarray(matrices), vectors, strict=True)):
        if run_inverse_cholesky(matrix, factor) > SINGULAR:
            out[k] = factor.T @ (factor @ vector)
            continue
        values, basis = np.linalg.eigh(matrix)
        kept = values > EPS * len(values) * values[-1]
        coordinates = np.divide(basis.T @ vector, values, out=np.zeros_like(values), where=kept)
        out[k] = basis @ coordinates
    return out


def symmetric(lower: Array) -> Array:
    """Return matrices (..., p, p) of which only the lower halves are given."""
    half = np.tril(lower)
    return np.asarray(half + np.swapaxes(np.tril(half, -1), -1, -2))


def column_bounds(design: Array) -> Array:
    """Return the smallest and the largest value of each column of a design (n, p), shape (2, p)."""
    return np.stack([design.min(axis=0), design.max(axis=0)])


def largest_change(directions: Array, bounds: Array) -> Array:
    """Return a bound on max_i x_i'd, >= 0, for each direction d of (..., p) and rows x_i within bounds (2, p)."""
    return np.asarray(np.maximum(0.0, np.maximum(directions * bounds[0], directions * bounds[1]).sum(axis=-1)))


def contrasts(n_classes: int) -> Array:
    """Return an orthonormal basis (C, C - 1) of the vectors that sum to 0 (Helmert)."""
    basis = np.zeros((n_classes, n_classes - 1))
    for c in range(n_classes - 1):
        basis[: c + 1, c] = 1.0
        basis[c + 1, c] = -(c + 1.0)
        basis[:, c] /= np.sqrt((c + 1.0) * (c + 2.0))
    return basis


def softmax_steps(gradient: Array, hessian: Array, coefficients: Array, alpha: float, bounds: Array) -> Array:
    """Return steps (K, C, p) of K softmax regressions that never lower their log-likelihoods, with their priors.

    The steps sum to 0 over the classes, as the coefficients do: a common change would do nothing.

    Parameters
    ----------
    gradient : ndarray of shape (K, C - 1, p)
        For all classes but the last; over all of them it sums to 0.
    hessian : ndarray of shape (K, C - 1, C - 1, p, p)
        Negative second derivatives, likewise; blocks [c, b] with b <= c, and of each the lower half.
    coefficients : ndarray of shape (K, C, p)
        Where the derivatives were taken.
    alpha : float
        Precision of the normal prior on all coefficients but the first of each class.
    bounds : ndarray of shape (2, p)
        Smallest and largest value of each covariate.

    Returns
    -------
    ndarray of shape (K, C, p)
        Changes of the coefficients.
    """
    K, n_classes, p = coefficients.shape
    basis = contrasts(n_classes)
    # The last class's derivatives are minus the sums of the others': D = (1, -1')' completes them.
    reduced = basis[:-1] - basis[-1]
    blocks = symmetric(hessian)
    for c in range(n_classes - 1):
        blocks[:, :c, c] = blocks[:, c, :c]
    penalty = alpha * np.eye(p)
    penalty[0, 0] = 0.0
    free = np.einsum("kcp,ca->kap", gradient, reduced)
    free -= np.einsum("kcp,ca->kap", coefficients, basis) @ penalty
    second = np.einsum("kcbpq,ca,bd->kapdq", blocks, reduced, reduced)
    second += np.einsum("ad,pq->apdq", np.eye(n_classes - 1), penalty)

    def reach(directions: Array) -> Array:
        per_class = np.einsum("kap,ca->kcp", directions.reshape(K, n_classes - 1, p), basis)
        differences = per_class[:, :, None] - per_class[:, None]
        return np.asarray(largest_change(differences, bounds).max(axis=(1, 2)))

    steps = ascent_steps(free.reshape(K, -1), second.reshape(K, (n_classes - 1) * p, (n_classes - 1) * p), reach)
    return np.asarray(np.einsum("kap,ca->kcp", steps.reshape(K, n_classes - 1, p), basis))
