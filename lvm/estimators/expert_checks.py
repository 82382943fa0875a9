"""What is wrong with the arguments, or the data, of a mixture of regressions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.expert_predictions import EXPERTS, GATINGS
from lvm.execution import n_threads
from lvm.models.expert_rows import ExpertsRows
from lvm.models.experts import ExpertsParams, GatedExperts
from lvm.models.gaussian_experts import GaussianExperts

# Where a gate has a maximum, some unit lies on the wrong side of it: sum_i p_ik (1 - p_ik) is half a unit or more.
SEPARATED = 0.1


def check_parameters(estimator: Any) -> None:
    """Refuse constructor arguments that are out of their range, or do not go together."""
    _checks.integer("n_components", estimator.n_components, 1)
    _checks.choice("expert", estimator.expert, EXPERTS)
    _checks.choice("gating", estimator.gating, GATINGS)
    for name, least in (("alpha", 0.0), ("gating_alpha", 0.0), ("weights_prior", 1.0), ("tol", 0.0)):
        _checks.real(name, getattr(estimator, name), least)
    _checks.integer("max_iter", estimator.max_iter, 0)
    _checks.integer("n_init", estimator.n_init, 1)
    if estimator.expert != "gaussian" and (estimator.scales_prior is not None or estimator.equal_scales):
        raise _checks.ParameterError(f"scales_prior and equal_scales are for gaussian experts, not {estimator.expert}.")
    if estimator.gating == "softmax" and estimator.weights_prior != 1:
        raise _checks.ParameterError("weights_prior is for gating='constant'; gating_alpha regularises a softmax gate.")
    GaussianExperts(estimator.alpha, estimator.scales_prior, estimator.equal_scales)
    if estimator.acceleration is not None:
        _checks.choice("acceleration", estimator.acceleration, ["anderson"])
    if isinstance(estimator.init_params, str) or np.ndim(estimator.init_params) == 0:
        _checks.choice("init_params", estimator.init_params, ["lines", "random"])
    try:
        check_random_state(estimator.random_state)
        n_threads(estimator.n_jobs)
    except (ValueError, TypeError) as error:
        raise _checks.ParameterError(str(error)) from None


def check_amount(estimator: Any, d: int, y: Array) -> None:
    """Refuse too few rows that count, and a response that leaves nothing to explain."""
    n = len(y)
    if estimator.alpha == 0 and n < estimator.n_components * (d + 1):
        raise ValueError(
            f"n_samples = {n} is less than the {estimator.n_components} * {d + 1} coefficients of n_components = "
            f"{estimator.n_components} regressions with intercepts; add data, remove columns, lower n_components, or "
            "set alpha > 0."
        )
    if estimator.expert == "gaussian" and estimator.scales_prior is None and not np.ptp(y) > 0:
        raise ValueError(f"y is constant ({y[0]}): every line fits it exactly. Check y, or set scales_prior.")


def mean_probabilities(model: GatedExperts, rows: ExpertsRows, params: ExpertsParams) -> Array:
    """Return the means (K,) of a softmax gate's probabilities over the units.

    Warns where a gate without a prior is certain of every unit: EM has stopped, but there is no maximum.
    """
    sums, information, total = np.zeros((3, len(params.gate.coefficients)))
    z = np.asarray(rows.data.gate)
    for start in range(0, len(z), _checks.BLOCK_ROWS):
        part = slice(start, start + _checks.BLOCK_ROWS)
        p = model.gate.probabilities(z[part], params.gate)
        weight = np.ones(len(p)) if rows.weight is None else np.asarray(rows.weight[part])
        sums += weight @ p
        total += weight.sum()
        information += (weight > 0) @ (p * (1 - p))
    sharp = np.flatnonzero(information < SEPARATED)
    if model.gate.alpha == 0 and len(sums) > 1 and len(sharp):
        warnings.warn(
            f"the gate separates component {sharp[0]} from the others: its probability is 0 or 1 in every row, and "
            "the coefficients grow without bound as the iterations go on; set gating_alpha > 0.",
            ConvergenceWarning,
            stacklevel=4,
        )
    return np.asarray(sums / total)
