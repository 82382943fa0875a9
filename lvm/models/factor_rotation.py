"""Rotations of factors: the density stays, the loadings become easier to read."""

from __future__ import annotations

import numpy as np

from lvm._jit import Array

ROTATIONS = ("varimax", "promax")
POWER = 4  # of promax
# Sweeps of rotations of all pairs of factors; they converge in ten or so, quadratically at the end.
MAX_SWEEPS = 1000
SMALLEST_ANGLE = 1e-12


def varimax(loadings: Array) -> Array:
    """Return the rotation (q, q) that maximises the variance of squared loadings (d, q), each row taken to length 1.

    With u = x^2 - y^2 and v = 2 x y, the best angle of a pair of columns x, y has a closed form (Kaiser, 1958, "The
    varimax criterion for analytic rotation in factor analysis", Psychometrika 23).
    """
    d, q = loadings.shape
    length = np.sqrt(np.square(loadings).sum(axis=1, keepdims=True))
    turned, rotation = loadings / np.where(length > 0, length, 1.0), np.eye(q)
    for _ in range(MAX_SWEEPS):
        largest = 0.0
        for a in range(q):
            for b in range(a + 1, q):
                x, y = turned[:, a], turned[:, b]
                u, v = x**2 - y**2, 2 * x * y
                sine = 2 * (u @ v - u.sum() * v.sum() / d)
                cosine = np.sum(u**2 - v**2) - (u.sum() ** 2 - v.sum() ** 2) / d
                if np.hypot(sine, cosine) <= SMALLEST_ANGLE * np.sum(u**2 + v**2):
                    continue  # every angle is as good
                angle = np.arctan2(sine, cosine) / 4
                largest = max(largest, abs(angle))
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                turned[:, [a, b]] = turned[:, [a, b]] @ turn
                rotation[:, [a, b]] = rotation[:, [a, b]] @ turn
        if largest < SMALLEST_ANGLE:
            break
    return rotation


def promax(loadings: Array) -> Array:
    """Return the matrix U (q, q) of an oblique rotation, loadings U, of factors with the covariance (U'U)^-1, 1 each.

    It leads the varimax loadings (d, q) to their own fourth powers by least squares (Hendrickson & White, 1964,
    "Promax: a quick method for rotation to oblique simple structure").
    """
    first = varimax(loadings)
    turned = loadings @ first
    onto = np.linalg.lstsq(turned, turned * np.abs(turned) ** (POWER - 1), rcond=None)[0]
    onto *= np.sqrt(np.diag(np.linalg.inv(onto.T @ onto)))
    return np.asarray(first @ onto)


def rotated(loadings: Array, noise: Array, scale: Array, rotation: str | None) -> tuple[Array, Array]:
    """Return loadings (d, q) and the covariance of their factors (q, q), in a form that is unique.

    Parameters
    ----------
    loadings, noise : ndarray of shape (d, q) and (d,)
        Those of uncorrelated factors, in any rotation, and the noise variances.
    scale : ndarray of shape (d,)
        Units in which rotations see the loadings: standard deviations, so that they do not depend on those of the data.
    rotation : {"varimax", "promax"} or None
        None makes L' Psi^-1 L diagonal. Factors come in the order of the variance that they explain, and the largest of
        each one's loadings is > 0.
    """
    _, _, axes = np.linalg.svd(loadings / np.sqrt(noise)[:, None], full_matrices=False)
    standard = loadings @ axes.T / scale[:, None]
    turn = np.eye(standard.shape[1])
    if rotation is not None and len(turn) > 1:
        turn = varimax(standard) if rotation == "varimax" else promax(standard)
    standard = standard @ turn
    order = np.argsort(-np.square(standard).sum(axis=0), kind="stable")
    standard, turn = standard[:, order], turn[:, order]
    largest = standard[np.abs(standard).argmax(axis=0), range(len(turn))]
    sign = np.where(largest < 0, -1.0, 1.0)
    turn = turn * sign
    correlations = np.eye(len(turn)) if rotation != "promax" else np.linalg.inv(turn.T @ turn)
    return np.ascontiguousarray(standard * sign * scale[:, None]), (correlations + correlations.T) / 2
