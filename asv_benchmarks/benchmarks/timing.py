"""Seconds per iteration, free of set-up. No benchmarks here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from .peers import Fit


def seconds_per_iteration(fits: Sequence[Fit], few: int, many: int, repeats: int = 5) -> list[float]:
    """Return the cost of one iteration of each fit: the difference of two counts, over their difference.

    The fits alternate, so that a disturbance of the machine hits all of them; the median of the repeats counts.
    """
    costs: list[list[float]] = [[] for _ in fits]
    for _ in range(repeats):
        for fit, cost in zip(fits, costs, strict=True):
            edges = [time.perf_counter()]
            for n_iter in (few, many):
                fit(n_iter)
                edges.append(time.perf_counter())
            cost.append((edges[2] - 2 * edges[1] + edges[0]) / (many - few))
    return [statistics.median(cost) for cost in costs]
