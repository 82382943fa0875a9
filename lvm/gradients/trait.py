"""The gradient of latent trait models."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from lvm._jit import Array
from lvm.models.latent_trait import LatentTraitModel, TraitParams


def gradient_of_trait(model: LatentTraitModel, rows: Any, params: TraitParams) -> Array:
    """Return the gradient of a latent trait model."""
    at_nodes = model.estep_stats(rows, params).components
    answers = at_nodes.counts[:, None] + at_nodes.observed
    error = at_nodes.ones - answers * expit(np.multiply.outer(model.nodes, params.slopes) + params.intercepts)
    slopes = model.nodes @ error
    if model.prior is not None:
        slopes = slopes * params.slopes
    if model.discrimination == "common":
        slopes = slopes.sum(keepdims=True)
    return np.concatenate([slopes, error.sum(axis=0)])
