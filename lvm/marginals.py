"""What pictures and reports read off a fitted mixture: names, marginal covariances, the columns that matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray


def feature_names(estimator: Any) -> list[str]:
    """Return the names of the columns that an estimator was fitted on, "column 0" and so on where they have none."""
    names = getattr(estimator, "feature_names_in_", None)
    return [f"column {j}" for j in range(estimator.n_features_in_)] if names is None else [str(name) for name in names]


def column_numbers(estimator: Any, columns: int | str | Sequence[int | str], which: str = "columns") -> list[int]:
    """Return the numbers of columns given by number or name, in the order given.

    Raises
    ------
    ValueError
        If a column is unknown or named twice, or there is none.
    """
    names = feature_names(estimator)
    numbers = []
    chosen: Sequence[Any] = [columns] if isinstance(columns, (str, int, Integral)) else columns
    for column in chosen:
        if isinstance(column, str):
            if column not in names:
                raise ValueError(f"there is no column {column!r}; the estimator was fitted on {', '.join(names)}.")
            column = names.index(column)
        if not isinstance(column, Integral) or not 0 <= int(column) < len(names):
            raise ValueError(f"there is no column {column}; the estimator was fitted on {len(names)} columns.")
        if column in numbers:
            raise ValueError(f"{names[column]} is twice in {which}; name each column once.")
        numbers.append(int(column))
    if not numbers:
        raise ValueError(f"{which} is empty; name at least one column.")
    return numbers


def is_elliptical(estimator: Any) -> bool:
    """Return whether the components are Gaussian or Student t, whose marginals this module knows."""
    return hasattr(estimator, "covariance_type") and hasattr(estimator, "means_")


def marginal_covariances(estimator: Any, columns: Sequence[int]) -> NDArray[np.float64]:
    """Return the covariances of some columns under each component of a Gaussian mixture, or scatters of a Student t's.

    Parameters
    ----------
    estimator : estimator
        A fitted `GaussianMixture` or `StudentTMixture`.
    columns : sequence of int
        Which columns, m of them.

    Returns
    -------
    ndarray of shape (K, m, m)
        Covariances, in squared units of the data.
    """
    # A component with 2 degrees of freedom has a scatter, and no covariances.
    covariances = np.asarray(estimator.scatters_ if hasattr(estimator, "scatters_") else estimator.covariances_)
    K, chosen = len(estimator.means_), list(columns)
    if covariances.ndim == 3:
        return np.asarray(covariances[:, chosen][:, :, chosen])
    if estimator.covariance_type in ("tied", "EEE"):
        return np.repeat(covariances[np.ix_(chosen, chosen)][None], K, axis=0)
    variances = covariances[:, chosen] if covariances.ndim == 2 else np.repeat(covariances[:, None], len(chosen), 1)
    return np.asarray(variances[:, :, None] * np.eye(len(chosen)))


def refuse_noise(estimator: Any) -> None:
    """Raise `ValueError` where a mixture has noise, whose marginals are none that this module knows."""
    if getattr(estimator, "noise", False):
        raise ValueError(
            "noise=True has no marginal or conditional densities: those of its box are not uniform; fit without noise, "
            "or build a mixture from the other components."
        )


def marginal_densities(estimator: Any, column: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the densities of a column at x (m,) under each component, shape (K, m)."""
    refuse_noise(estimator)
    deviations = np.sqrt(marginal_covariances(estimator, [column])[:, 0])
    z = (x - estimator.means_[:, [column]]) / deviations
    if not hasattr(estimator, "scatters_"):
        return np.asarray(np.exp(-0.5 * z**2) / (deviations * np.sqrt(2 * np.pi)))
    from scipy.stats import t

    return np.asarray(t.pdf(z, estimator.degrees_of_freedom_[:, None]) / deviations)


def joint_densities(estimator: Any, columns: Sequence[int], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the densities of some columns at points (n, m) under each component, shape (K, n)."""
    refuse_noise(estimator)
    covariances, means = marginal_covariances(estimator, columns), estimator.means_[:, list(columns)]
    m = len(columns)
    log_densities = np.empty((len(means), len(points)))
    for k, (mean, root) in enumerate(zip(means, np.linalg.cholesky(covariances), strict=True)):
        distances = np.square(np.linalg.solve(root, (points - mean).T)).sum(axis=0)
        if hasattr(estimator, "scatters_"):
            nu = float(estimator.degrees_of_freedom_[k])
            constant = math.lgamma((nu + m) / 2) - math.lgamma(nu / 2) - m / 2 * np.log(nu * np.pi)
            log_densities[k] = constant - (nu + m) / 2 * np.log1p(distances / nu)
        else:
            log_densities[k] = -0.5 * (distances + m * np.log(2 * np.pi))
        log_densities[k] -= np.log(np.diagonal(root)).sum()
    return np.exp(log_densities)


def separating_columns(estimator: Any, most: int) -> list[int]:
    """Return at most `most` columns, in order: those whose means differ most between components, in within-sds."""
    d = estimator.n_features_in_
    if d <= most:
        return list(range(d))
    means = estimator.means_
    weights = estimator.weights_[: len(means), None]  # those of noise are left out
    within = np.array([weights[:, 0] @ marginal_covariances(estimator, [j])[:, 0, 0] for j in range(d)])
    between = (weights * np.square(means - (weights * means).sum(axis=0))).sum(axis=0)
    return sorted(np.argsort(-between / within, kind="stable")[:most].tolist())


def means_and_deviations(estimator: Any, columns: Sequence[int]) -> list[list[str]]:
    """Return "mean (standard deviation)" of some columns, a row for each component of a Gaussian or t mixture."""
    deviations = np.sqrt(np.diagonal(marginal_covariances(estimator, columns), axis1=1, axis2=2))
    pairs = zip(estimator.means_[:, list(columns)], deviations, strict=True)
    return [[f"{mean:.4g} ({deviation:.3g})" for mean, deviation in zip(*pair, strict=True)] for pair in pairs]
