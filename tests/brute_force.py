"""Standard errors the slow way: differences of a log-likelihood written afresh, in coordinates that are all free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def errors_of(
    kind: str,
    each: Callable[[Vector], Vector],
    start: Any,
    attributes: Callable[[Vector], dict[str, Any]],
    weight: Any = None,
    log_prior: Callable[[Vector], float] = lambda vector: 0.0,
    share: float = 0.01,
) -> dict[str, Any]:
    """Return standard errors of attributes by the delta method.

    `each` is the log-likelihood of each row, or unit. Steps are a `share` of a rough standard error, at which central
    differences err by about its square; rounding is far below.
    """
    start = np.asarray(start, np.float64)
    p = len(start)
    w = np.ones(len(each(start))) if weight is None else np.asarray(weight, np.float64)

    def total(vector: Vector) -> float:
        return float(w @ each(vector)) + log_prior(vector)

    rough = np.full(p, 1e-3)
    for _ in range(3):  # to some 10 % is near enough
        bend = [total(start + e) - 2 * total(start) + total(start - e) for e in np.diag(rough)]
        rough = 0.05 * rough / np.sqrt(np.maximum(-np.array(bend), 1e-12))
    steps = share / 0.05 * rough
    unit = np.diag(steps)
    scores = np.array([(each(start + e) - each(start - e)) for e in unit]) / (2 * steps[:, None])

    def hessian(function: Callable[[Vector], float]) -> Vector:
        found = np.empty((p, p))
        for a in range(p):
            for b in range(a + 1):
                signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
                corners = [s * t * function(start + s * unit[a] + t * unit[b]) for s, t in signs]
                found[a, b] = found[b, a] = sum(corners) / (4 * steps[a] * steps[b])
        return found

    J = (scores * w) @ scores.T
    if kind == "empirical":
        covariance = np.linalg.inv(J - hessian(log_prior))
    else:
        inverse = np.linalg.inv(-hessian(total))
        covariance = inverse if kind == "observed" else inverse @ J @ inverse
    found = {}
    for name, value in attributes(start).items():
        slopes = np.array(
            [
                (np.asarray(attributes(start + e)[name]) - attributes(start - e)[name]) / (2 * s)
                for e, s in zip(unit, steps, strict=True)
            ]
        )
        flat = slopes.reshape(p, -1)
        found[name] = np.sqrt(np.einsum("pt,pq,qt->t", flat, covariance, flat)).reshape(np.shape(value))
    return found


def assert_errors(found: Any, expected: Any, rtol: float = 1e-3) -> None:
    """Compare the attributes that `expected` names; NaN where it is."""
    for name, errors in expected.items():
        np.testing.assert_allclose(found[name], errors, rtol=rtol, atol=1e-12, err_msg=name)
