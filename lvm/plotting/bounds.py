"""A picture of how EM climbs: the log-likelihood along a line of parameters, and the bound that touches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from lvm import _checks
from lvm.bounds import decompose
from lvm.em import ROUNDING
from lvm.plotting.canvas import COLOURS, INK, Array, sized, tidy
from lvm.protocol import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_POINTS = 161
REACH = (-0.6, 1.8)  # of the line, where 0 is the old and 1 the new parameters
ROOM = 0.12  # above the highest curve, as a share of what is shown
DEPTH = 1.6  # how far below the old parameters the axis reaches, in units of the rise above them


def plot_bound(
    model: Any,
    rows: Any,
    params: Any,
    params_new: Any = None,
    *,
    parameter: str | None = None,
    index: Any = (),
    values: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the log-likelihood along a line of parameters, and the lower bounds by which EM climbs it.

    The E-step at the old parameters gives a bound that touches the log-likelihood there; at the new ones the
    log-likelihood has risen by more than the bound, by the divergence between old and new posterior. The next E-step
    lifts the bound up to it.

    Parameters
    ----------
    model : LatentModel
        Offers `joint_log_density`, see `lvm.decompose`, as `lvm.Mixture` does.
    rows : NamedTuple of row-aligned arrays, or array of shape (n, d)
        The data.
    params : NamedTuple
        The old parameters, where the bound touches.
    params_new : NamedTuple, optional
        The new parameters; by default those of an M-step. The line goes through both, in the coordinates of
        `model.to_vector`, and its axis is 0 at the old and 1 at the new ones.
    parameter : str, optional
        Name of one parameter of a mixture's family, such as "means", or "weights": along the axis only the entry at
        `index` changes. The new parameters are then those of the highest bound.
    index : int or tuple of int
        Entry of that parameter, such as (0, 1) for the mean of component 0 in column 1.
    values : array-like of shape (m,), optional
        Values of that entry, or positions on the line; by default so that old and new are well inside.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib Axes
        The axes drawn in.

    Raises
    ------
    TypeError
        If the model lacks `joint_log_density`, or for a line `to_vector` and `from_vector`.
    ValueError
        If there is no such parameter or entry.

    References
    ----------
    Bishop (2006), "Pattern Recognition and Machine Learning", figure 9.14.
    """
    if not callable(getattr(model, "joint_log_density", None)):
        raise TypeError(
            f"{type(model).__name__} must implement joint_log_density(rows, params), of shape (n, K), for its bound to "
            "be drawn."
        )
    if not (isinstance(rows, tuple) and hasattr(rows, "_fields")):
        rows = Rows(rows if hasattr(rows, "shape") else np.asarray(rows))
    step = model.mstep(model.estep_stats(rows, params), params) if params_new is None else params_new
    if parameter is None:
        along, old, new = _line(model, params, step), 0.0, 1.0
        label = "position on the line: 0 = old, 1 = new parameters"
    else:
        along, old, after = _entry(model, params, step, parameter, index)
        place = ", ".join(map(str, np.atleast_1d(np.asarray(index, int))))
        label = f"{parameter}[{place}]"
        reach = 3.0 * abs(after - old) or 0.1 * max(1.0, abs(old))
    q = softmax(model.joint_log_density(rows, params), axis=1)
    if parameter is not None:
        new = _highest(lambda value: _curves(model, rows, along, q, np.array([value]))[0, 1], old, reach)
    if values is None:
        far = new if new != old else old + reach
        positions = old + (far - old) * np.linspace(*REACH, N_POINTS)
    else:
        positions = np.asarray(values, np.float64).ravel()
    positions = np.sort(positions)
    curves = _curves(model, rows, along, q, positions)
    q_new = softmax(model.joint_log_density(rows, along(new)), axis=1)
    curves = np.column_stack([curves, _curves(model, rows, along, q_new, positions)[:, 1]])
    return _draw(positions, curves, old, new, _curves(model, rows, along, q, np.array([old, new])), label, ax)


def _line(model: Any, params: Any, new: Any) -> Callable[[float], Any]:
    missing = [name for name in ("to_vector", "from_vector") if not callable(getattr(model, name, None))]
    if missing:
        raise TypeError(f"{type(model).__name__} must implement {' and '.join(missing)} for a line; name a parameter.")
    start, end = model.to_vector(params, params), model.to_vector(new, params)
    with np.errstate(invalid="ignore"):
        direction = np.where(np.isfinite(end - start), end - start, 0.0)
    return lambda position: model.from_vector(start + position * direction, params)


def _entry(
    model: Any, params: Any, new: Any, parameter: str, index: Any
) -> tuple[Callable[[float], Any], float, float]:
    """Return the parameters as a function of one entry, and its value in the old and new ones."""
    names = tuple(model.family.parameters)
    _checks.choice("parameter", parameter, ("weights", *names))
    place = tuple(np.atleast_1d(np.asarray(index, int)))
    arrays = {name: np.array(getattr(params.components, name)) for name in names} | {
        "weights": np.array(params.weights)
    }
    shape = arrays[parameter].shape
    if len(place) != len(shape) or any(not -length <= i < length for i, length in zip(place, shape, strict=True)):
        raise ValueError(f"{parameter} has shape {shape}; index must name one of its entries, got {index!r}.")

    def along(value: float) -> Any:
        changed = {name: array.copy() for name, array in arrays.items()}
        changed[parameter][place] = value
        weights = changed.pop("weights")
        if parameter == "weights":  # the others share the rest
            if not 0 <= value <= 1:
                raise ValueError("a weight outside of [0, 1]")
            others = np.arange(len(weights)) != place[0] % len(weights)
            weights[others] *= (1 - value) / max(weights[others].sum(), np.finfo(np.float64).tiny)
        return type(params)(weights, model.family.params(**changed))

    after = new.weights if parameter == "weights" else getattr(new.components, parameter)
    return along, float(arrays[parameter][place]), float(np.asarray(after)[place])


def _highest(bound: Callable[[float], Any], old: float, reach: float) -> float:
    """Return where a bound is highest, within reach of the old value.

    The old value where it is lower there or undefined, or higher by no more than rounding.
    """

    def depth(value: float) -> float:
        height = float(bound(float(value)))
        return -height if np.isfinite(height) else np.inf

    with np.errstate(invalid="ignore"):
        found = minimize_scalar(depth, bounds=(old - reach, old + reach), method="bounded")
    before = depth(old)
    return float(found.x) if found.fun < before - ROUNDING * abs(before) else old


def _curves(model: Any, rows: Any, along: Callable[[float], Any], q: Array, positions: Array) -> Array:
    """Return log-likelihood and bound (m, 2); NaN where there are no such parameters or the likelihood is 0."""
    out = np.full((len(positions), 2), np.nan)
    for i, position in enumerate(positions):
        try:
            with np.errstate(all="ignore"):
                found = decompose(model, rows, along(float(position)), q)
        except (ValueError, np.linalg.LinAlgError):
            continue
        out[i] = found.loglik, found.elbo
    out[~np.isfinite(out)] = np.nan
    return out


def _draw(positions: Array, curves: Array, old: float, new: float, ends: Array, label: str, ax: Axes | None) -> Axes:
    if ax is None:
        ax = sized(None, 6.8, 4.6).subplots()
    for column, colour, name in (
        (0, COLOURS[1], r"log-likelihood $\ln p(X\mid\theta)$"),
        (1, COLOURS[0], r"bound $\mathcal{L}(q,\theta)$ after the E-step at $\theta^{old}$"),
        (2, COLOURS[2], r"bound after the next E-step, at $\theta^{new}$"),
    ):
        ax.plot(positions, curves[:, column], color=colour, linewidth=1.8, label=name, zorder=3 - column)
    (start, _), (loglik, bound) = ends
    ax.plot([old], [start], "o", color=INK, markersize=6, zorder=5)
    ax.plot([new, new], [bound, loglik], "o-", color=INK, markersize=5, linewidth=1.4, zorder=5)
    top = np.nanmax(curves)
    rise = max(top - start, np.finfo(np.float64).eps * abs(top))
    lowest = max(start - DEPTH * rise, np.nanmin(curves))
    middle = (loglik + max(bound, lowest)) / 2
    ax.annotate(f"KL = {loglik - bound:.4g}", (new, middle), xytext=(7, 0), textcoords="offset points", va="center")
    ax.set_ylim(lowest, top + ROOM * (top - lowest))
    for position, name in ((old, r"$\theta^{old}$"), (new, r"$\theta^{new}$")):
        ax.axvline(position, color=INK, linewidth=0.8, linestyle=":", zorder=1)
        ax.annotate(name, (position, 0.98), (4, 0), ("data", "axes fraction"), "offset points", va="top", color=INK)
    ax.set_xlim(positions[0], positions[-1])
    ax.ticklabel_format(useOffset=False)
    ax.set_xlabel(label)
    ax.set_ylabel("nats")
    ax.legend(loc="best", fontsize="small")
    tidy(ax)
    return ax
