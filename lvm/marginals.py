"""What pictures and reports read off a fitted mixture: names, marginal covariances, the columns that matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def feature_names(estimator: Any) -> list[str]:
    """Return the names of the columns that an estimator was fitted on, "column 0" and so on where they have none."""
    names = getattr(estimator, "feature_names_in_", None)
    return [f"column {j}" for j in range(estimator.n_features_in_)] if names is None else [str(name) for name in names]


def marginal_covariances(estimator: Any, columns: Sequence[int]) -> NDArray[np.float64]:
    """Return the covariances of some columns under each component of a Gaussian mixture.

    Parameters
    ----------
    estimator : estimator
        A fitted `GaussianMixture`.
    columns : sequence of int
        Which columns, m of them.

    Returns
    -------
    ndarray of shape (K, m, m)
        Covariances, in squared units of the data.
    """
    covariances = np.asarray(estimator.covariances_)
    K, chosen = len(estimator.weights_), list(columns)
    kind = estimator.covariance_type
    if kind == "full":
        return np.asarray(covariances[:, chosen][:, :, chosen])
    if kind == "tied":
        return np.repeat(covariances[np.ix_(chosen, chosen)][None], K, axis=0)
    variances = covariances[:, chosen] if kind == "diag" else np.repeat(covariances[:, None], len(chosen), axis=1)
    return np.asarray(variances[:, :, None] * np.eye(len(chosen)))


def separating_columns(estimator: Any, most: int) -> list[int]:
    """Return at most `most` columns, in order: those whose means differ most between components, in within-sds."""
    d = estimator.n_features_in_
    if d <= most:
        return list(range(d))
    weights, means = estimator.weights_[:, None], estimator.means_
    within = np.array([weights[:, 0] @ marginal_covariances(estimator, [j])[:, 0, 0] for j in range(d)])
    between = (weights * np.square(means - (weights * means).sum(axis=0))).sum(axis=0)
    return sorted(np.argsort(-between / within, kind="stable")[:most].tolist())
