"""Seconds per iteration, free of set-up. No benchmarks here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from .peers import Fit

SHORTEST = 1e-7  # seconds


def seconds_per_iteration(
    fits: Sequence[Fit], few: int, many: int, pairs: int = 5, seconds: float = 2.0
) -> list[float]:
    """Return the cost of one iteration of each fit: the difference of two counts, over their difference.

    Parameters
    ----------
    fits : sequence of Fit
        What to measure. They alternate, so that a disturbance of the machine hits all of them.
    few, many : int
        The two counts of iterations.
    pairs : int
        How often both counts are measured, at least; the median counts.
    seconds : float
        Fits that took less than this altogether are measured up to four times as often.
    """
    costs: list[list[float]] = [[] for _ in fits]
    spent = [0.0] * len(fits)
    for pair in range(4 * pairs):
        for i, fit in enumerate(fits):
            if pair < pairs or spent[i] < seconds:
                edges = [time.perf_counter()]
                for n_iter in (few, many):
                    fit(n_iter)
                    edges.append(time.perf_counter())
                costs[i].append((edges[2] - 2 * edges[1] + edges[0]) / (many - few))
                spent[i] += edges[2] - edges[0]
    # Where an iteration is shorter than what disturbs it, the difference may be negative.
    return [max(statistics.median(cost), SHORTEST) for cost in costs]
