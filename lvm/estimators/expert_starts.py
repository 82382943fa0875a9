"""Starts of mixtures of regressions: lines through a few random rows, or parameters that are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.expert_data import Design
from lvm.models.count_experts import CountExpertsParams
from lvm.models.expert_rows import ExpertsRows, RegressionRows
from lvm.models.experts import ExpertsParams, GatedExperts
from lvm.models.gates import SoftmaxGateParams
from lvm.models.gaussian_experts import GaussianExpertsParams
from lvm.models.multinomial_experts import MultinomialExpertsParams

# One set of lines often misses a component; the best of so many, judged by so many rows, seldom does.
LINE_SETS, MAX_JUDGES = 20, 2000
PARAMETERS = ("coefficients", "intercepts", "scales", "weights", "gating_coefficients", "gating_intercepts")


def random_labels(rows: ExpertsRows, n_components: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Return a random component for each unit."""
    return rng.randint(0, n_components, len(rows.data))


def random_lines(rows: ExpertsRows, experts: Any, n_components: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Return for each unit the component whose line is nearest, of lines through as few random rows as fix one.

    Rows are drawn in whole units, and responses are taken on the scale of the linear predictors. Of several sets of
    lines, the one to which units are nearest counts, on a sample of them.

    Parameters
    ----------
    rows : ExpertsRows
        Canonical rows.
    experts : object
        Offers `targets`.
    n_components : int
        Number of lines.
    rng : RandomState
        Source of randomness.

    References
    ----------
    Fischler & Bolles (1981), "Random sample consensus", for lines from minimal sets.
    """
    data = rows.data
    p = data.design.shape[1]
    units = np.arange(len(data)) if rows.weight is None else np.flatnonzero(rows.weight > 0)
    per_line = max(1, min(p, len(units) // n_components))
    n_judges = max(10 * n_components, MAX_JUDGES * p // data.shape[1])
    sample, importance = data, rows.weight
    if len(data) > n_judges:
        judges = rng.choice(units, min(n_judges, len(units)), replace=False)
        sample, importance = data.take(judges), None if rows.weight is None else rows.weight[judges]
    is_yes_or_no = len(np.unique(experts.targets(sample.observations()))) <= 2  # distances say little of these
    best, least = np.empty(0), np.inf
    for _ in range(1 if is_yes_or_no else LINE_SETS):
        drawn = rng.choice(units, per_line * n_components, replace=False)
        lines = []
        for k in range(n_components):
            chosen = data.take(drawn[k * per_line : (k + 1) * per_line]).observations()[slice(0, p)]
            lines.append(np.linalg.lstsq(chosen.design, experts.targets(chosen), rcond=None)[0])
        distance = float(np.average(_nearest(sample, experts, np.stack(lines))[1], weights=importance))
        if distance < least or len(best) == 0:
            best, least = np.stack(lines), distance
    return _nearest(data, experts, best)[0]


def _nearest(data: RegressionRows, experts: Any, lines: Array) -> tuple[NDArray[np.int64], Array]:
    """Return the line of (K, p, c) nearest to each unit, and its distance, by the squares summed over the rows."""
    labels, distances = np.empty(len(data), np.int64), np.empty(len(data))
    step = max(1, _checks.BLOCK_ROWS * lines.shape[1] // data.shape[1])
    for start in range(0, len(data), step):
        block = data[start : start + step]
        observed = block.observations()
        squares = ((experts.targets(observed) - observed.design @ lines) ** 2).sum(axis=2)
        if block.indptr is not None:
            squares = np.add.reduceat(squares, block.indptr[:-1] - block.indptr[0], axis=1)
        labels[start : start + step] = squares.argmin(axis=0)
        distances[start : start + step] = np.sqrt(squares.min(axis=0))
    return labels, distances


def given_start(
    estimator: Any,
    model: GatedExperts,
    design: Design,
    gate_design: Design | None,
    shift: float,
    before: Mapping[str, Any],
) -> ExpertsParams | None:
    """Return the parameters of an earlier fit, or those that the arguments `<name>_init` give, None without any.

    Parameters
    ----------
    estimator : MixtureOfExperts
        Whose data are known: the shapes depend on them.
    model : GatedExperts
        Its model.
    design, gate_design : Design
        Maps to the covariates of the model.
    shift : float
        What was taken off the response.
    before : dict
        Attributes of the fit to start from, disregarded where their shapes are others; empty for none.

    Raises
    ------
    ValueError
        If some are missing, or have the wrong shape or values.
    """
    K = estimator.n_components
    shapes = {**estimator._attribute_shapes(K), "weights_": (K,)}
    if gate_design is not None:
        shapes["gating_coefficients_"] = (K, len(gate_design.centre))
    given: dict[str, Any] = {}
    for name in PARAMETERS:
        value = getattr(estimator, f"{name}_init")
        if value is not None:
            if f"{name}_" not in shapes:
                raise ValueError(
                    f"{name}_init is not for expert={estimator.expert!r} with gating={estimator.gating!r}."
                )
            given[name] = _checks.start_array(name, value, shapes[f"{name}_"])
    earlier: dict[str, Any] = {name: before.get(f"{name}_") for name in PARAMETERS if f"{name}_" in shapes}
    same_classes = np.array_equal(before.get("classes_", ()), getattr(estimator, "classes_", ()))
    if same_classes and all(np.shape(value) == shapes[f"{name}_"] for name, value in earlier.items()):
        given = earlier
    if not given:
        return None
    needed = ["coefficients", "intercepts"] + (["scales"] if estimator.expert == "gaussian" else [])
    if "gating_coefficients" in given or "gating_intercepts" in given:
        needed += ["gating_coefficients", "gating_intercepts"]
    missing = [name for name in needed if name not in given]
    if missing:
        raise ValueError(f"{next(iter(given))}_init needs {missing[0]}_init beside it: give all of a start, or none.")
    weights = _checks.start_weights(given["weights"], K) if "weights" in given else np.full(K, 1 / K)
    gate = model.gate.start(weights)
    if "gating_coefficients" in given and gate_design is not None:
        gate = SoftmaxGateParams(_centred(gate_design, given["gating_intercepts"], given["gating_coefficients"], 0))
    if estimator.expert == "multinomial":
        coefficients = _centred(design, given["intercepts"], given["coefficients"], 1)
        return ExpertsParams(gate, MultinomialExpertsParams(coefficients))
    coefficients = design.inside(given["intercepts"] - shift, given["coefficients"])
    if estimator.expert != "gaussian":
        return ExpertsParams(gate, CountExpertsParams(coefficients))
    if not np.all(given["scales"] > 0):
        raise ValueError(f"scales_init must be > 0, got {given['scales'].min()}.")
    return ExpertsParams(gate, GaussianExpertsParams(coefficients, given["scales"]))


def _centred(design: Design, intercepts: Array, slopes: Array, axis: int) -> Array:
    """Return coefficients that sum to 0 over an axis: a common change makes no difference."""
    coefficients = design.inside(intercepts, slopes)
    return np.asarray(coefficients - coefficients.mean(axis=axis, keepdims=True))
