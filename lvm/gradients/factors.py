"""The gradient of factor analysis."""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._jit import Array
from lvm.models.factor_analysis import FactorModel, FactorParams


def gradient_of_factors(model: FactorModel, rows: Any, params: FactorParams, origin: FactorParams) -> Array:
    """Return the gradient of factor analysis, from observations or their moments."""
    stats = model.estep_stats(rows, params)
    scale = np.sqrt(np.diagonal(origin.covariance))
    precision = np.linalg.inv(params.covariance)
    of_covariance = (precision @ stats.second @ precision - stats.weight * precision) / 2
    loadings = 2 * of_covariance @ params.loadings * scale[:, None]
    logarithms = np.diagonal(of_covariance) * params.noise_variances
    if model.isotropic:
        logarithms = logarithms.sum(keepdims=True)
    return np.concatenate([precision @ stats.first * scale, loadings.ravel(), logarithms])
