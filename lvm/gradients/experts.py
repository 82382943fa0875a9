"""The gradient of mixtures of regressions."""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._jit import Array
from lvm.models.experts import ExpertsParams, GatedExperts
from lvm.models.gates import ConstantGateStats
from lvm.models.gaussian_experts import GaussianExperts


def gradient_of_experts(model: GatedExperts, rows: Any, params: ExpertsParams, origin: ExpertsParams) -> Array:
    """Return the gradient of a mixture of regressions."""
    stats = model.estep_stats(rows, params)
    if isinstance(stats.gate, ConstantGateStats):
        gate = stats.gate.counts - stats.weight * params.gate.weights
    else:
        gate = _with_last(stats.gate.gradient, 0)
    if not isinstance(model.experts, GaussianExperts):
        gradient = stats.experts.gradient
        experts = gradient if gradient.ndim == 2 else _with_last(gradient, 1)
        return np.concatenate([gate.ravel(), experts.ravel()])
    moments, scales = stats.experts.moments, params.experts.scales
    coefficients = float(origin.experts.scales.mean()) * moments[:, -1, :-1] / scales[:, None] ** 2
    logarithms = moments[:, -1, -1] / scales**2 - moments[:, 0, 0]
    if model.experts.equal_scales:
        logarithms = logarithms.sum(keepdims=True)
    return np.concatenate([gate.ravel(), coefficients.ravel(), logarithms])


def _with_last(gradient: Array, axis: int) -> Array:
    """Return derivatives with those of the last category, which make the sum 0 along an axis."""
    return np.concatenate([gradient, -gradient.sum(axis=axis, keepdims=True)], axis=axis)
