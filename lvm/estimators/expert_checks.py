"""What is wrong with the arguments, or the data, of a mixture of regressions."""

from __future__ import annotations

from collections.abc import Iterator
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
from lvm.models.gates import SoftmaxGate
from lvm.models.gaussian_experts import GaussianExperts
from lvm.models.newton import largest_change
from lvm.result import warn

# Where a gate has a maximum, some unit lies on the wrong side of it: sum_i p_ik (1 - p_ik) is half a unit or more.
SEPARATED = 0.1
LARGEST = 1e150  # the squares of residuals of that size are float64 still
GROWING = 0.2  # change of log odds: a damped step of 1, shared by classes, is more, one near a maximum 1e-3 or less


def check_parameters(estimator: Any) -> None:
    """Refuse constructor arguments that are out of their range, or do not go together."""
    _checks.integer("n_components", estimator.n_components, 1)
    _checks.choice("expert", estimator.expert, EXPERTS)
    _checks.choice("gating", estimator.gating, GATINGS)
    for name, least in (("alpha", 0.0), ("gating_alpha", 0.0), ("weights_prior", 1.0), ("tol", 0.0)):
        _checks.real(name, getattr(estimator, name), least)
    _checks.integer("max_iter", estimator.max_iter, 0)
    _checks.integer("n_init", estimator.n_init, 1)
    verbose = estimator.verbose
    _checks.integer("verbose", int(verbose) if isinstance(verbose, bool) else verbose, 0)
    _checks.integer("verbose_interval", estimator.verbose_interval, 1)
    for name in ("warm_start", "equal_scales"):
        if not isinstance(getattr(estimator, name), (bool, np.bool_)):
            raise _checks.ParameterError(f"{name} must be True or False, got {getattr(estimator, name)!r}.")
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
    if estimator.expert == "gaussian":
        with np.errstate(over="ignore"):
            spread = float(np.ptp(y))
        if estimator.scales_prior is None and not spread > 0:
            raise ValueError(f"y is constant ({y[0]}): every line fits it exactly. Check y, or set scales_prior.")
        if spread > 0 and not 1 / LARGEST < spread < LARGEST:
            raise ValueError(f"y spreads over {spread:.3g}, expected 1e-150 to 1e150; scale it.")


def mean_probabilities(model: GatedExperts, rows: ExpertsRows, params: ExpertsParams) -> Array:
    """Return the means (K,) of a softmax gate's probabilities over the units."""
    sums, total = np.zeros(len(params.gate.coefficients)), 0.0
    for p, weight in _gate_blocks(model, rows, params):
        sums += weight @ p
        total += weight.sum()
    return np.asarray(sums / total)


def _gate_blocks(model: GatedExperts, rows: ExpertsRows, params: ExpertsParams) -> Iterator[tuple[Array, Array]]:
    """Yield the gate's probabilities (m, K) of one block of units after the other, and their weights (m,)."""
    z = np.asarray(rows.data.gate)
    for start in range(0, len(z), _checks.BLOCK_ROWS):
        part = slice(start, start + _checks.BLOCK_ROWS)
        p = model.gate.probabilities(z[part], params.gate)
        yield p, np.ones(len(p)) if rows.weight is None else np.asarray(rows.weight[part])


def warn_of_divergence(model: GatedExperts, rows: ExpertsRows, params: ExpertsParams, converged: bool) -> None:
    """Warn where EM has stopped on the way to infinite coefficients, of the experts or of the gate.

    Along a direction that separates the data, the log-likelihood nears its bound as -exp(-t) does: a Newton step has
    the length 1, wherever it begins, while near a maximum it tends to 0.
    """
    after = model.mstep(model.estep_stats(rows, params), params) if converged else params
    growing = _growing(model.experts, params.experts, after.experts)
    if growing is not None and model.experts.alpha == 0:
        warn(
            f"coefficients of component {growing} grow without bound as the iterations go on: in some or all of its "
            "rows the response is at the end of its range (0, every trial, or always one label), and predicted to be "
            "so for certain; set alpha > 0, which bounds all but the intercept, or lower n_components.",
            ConvergenceWarning,
        )
    if not isinstance(model.gate, SoftmaxGate) or model.gate.alpha > 0 or len(params.gate.coefficients) == 1:
        return
    information = sum((weight > 0) @ (p * (1 - p)) for p, weight in _gate_blocks(model, rows, params))
    certain = np.flatnonzero(information < SEPARATED)
    separated = int(certain[0]) if len(certain) else _growing(model.gate, params.gate, after.gate)
    if separated is not None:
        warn(
            f"the gate separates component {separated} from the others: its probability is 0 or 1 in "
            f"{'every row' if len(certain) else 'some rows'}, and the coefficients grow without bound as the "
            "iterations go on; set gating_alpha > 0.",
            ConvergenceWarning,
        )


def _growing(part: Any, before: Any, after: Any) -> int | None:
    """Return the component whose linear predictors an M-step at EM's end still changes, if one does."""
    if not hasattr(part, "bounds"):
        return None  # normal residuals: the M-step is exact
    step = after.coefficients - before.coefficients
    reach = np.maximum(largest_change(step, part.bounds), largest_change(-step, part.bounds))
    reach = reach.reshape(len(step), -1).max(axis=1)
    return int(reach.argmax()) if reach.max() > GROWING else None
