"""Many starts for the price of a few: short runs first, the best third continued, until one is left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lvm._jit import Array
from lvm.result import EMResult, Status

SHORT_RUN = 20  # iterations of the first round; each later round doubles them


def best_of(
    starts: list[Any],
    run: Callable[[Any, int], EMResult],
    max_iter: int,
    is_spurious: Callable[[Any], bool] | None = None,
    near: float | None = None,
) -> tuple[EMResult | None, Array]:
    """Return the fit with the highest objective from several starts, and the log-likelihood that each reached.

    All starts run a few iterations, the best third twice as many more, and so on; the last one runs to its
    end. A start that degenerates is out; where the last one does, the next best takes its place. Spurious ones rank
    behind all others, since their likelihood is that of a few rows on which a component has shrunk, and says little of
    the rest; where the last one is, the next best that is not runs to its end too.

    Parameters
    ----------
    starts : list of NamedTuple or None
        Starting parameters; None for a start that has degenerated already.
    run : callable
        `run(params, max_iter)` runs EM and returns an `EMResult`.
    max_iter : int
        Largest number of iterations of any start.
    is_spurious : callable, optional
        Whether parameters are such a local maximiser.
    near : float, optional
        Objectives that differ by about as much are those of one optimum: the first start wins, on any machine and in
        any units. By default the ninth digit.

    Returns
    -------
    best : EMResult or None
        None where every start degenerates.
    logliks : ndarray of shape (len(starts),)
        -inf for those that degenerate.

    References
    ----------
    Biernacki, Celeux & Govaert (2003), "Choosing starting values for the EM algorithm"; Jamieson & Talwalkar
    (2016), "Non-stochastic best arm identification", algorithm 1 (successive halving). McLachlan & Peel (2000), "Finite
    Mixture Models", section 3.10, on spurious local maximisers.
    """
    fits: dict[int, EMResult] = {}
    logliks = np.full(len(starts), -np.inf)
    objectives = logliks.copy()  # these decide: where there is a prior, it says which of two optima is better
    spurious = np.zeros(len(starts), np.bool_)

    def advance(index: int, iterations: int) -> None:
        before = fits.get(index)
        if before is None:
            fits[index] = run(starts[index], min(iterations, max_iter))
        elif before.status is Status.MAX_ITER and before.n_iter < max_iter:
            more = run(before.params, min(iterations, max_iter - before.n_iter))
            trace = np.concatenate([before.objective_trace, more.objective_trace[1:]])
            fits[index] = more._replace(objective_trace=trace, n_iter=before.n_iter + more.n_iter)
        fit = fits[index]
        is_lost = fit.status is Status.DEGENERATE
        logliks[index], objectives[index] = (-np.inf,) * 2 if is_lost else (fit.loglik, fit.objective_trace[fit.n_iter])
        spurious[index] = is_spurious is not None and not is_lost and is_spurious(fit.params)

    def ranked(indices: Iterable[int]) -> list[int]:
        alive = [index for index in indices if objectives[index] > -np.inf]
        best = max(objectives[alive], default=0.0)
        width = near or max(1e-9 * abs(best), np.finfo(np.float64).tiny)
        return sorted(alive, key=lambda index: (spurious[index], np.rint((best - objectives[index]) / width), index))

    race = [index for index, start in enumerate(starts) if start is not None]
    if len(race) == 1:
        advance(race[0], max_iter)
    iterations = SHORT_RUN
    while len(race) > 1:
        for index in race:
            advance(index, iterations)
        race = ranked(race)
        race = race[: (len(race) + 2) // 3]
        iterations *= 2
    ended: list[int] = []
    for index in ranked(range(len(starts))):
        if ended and (spurious[index] or len(ended) == 2):
            break
        advance(index, max_iter)
        if objectives[index] > -np.inf:
            ended.append(index)
            if not spurious[index]:
                break
    return (fits[ranked(ended)[0]] if ended else None), logliks
