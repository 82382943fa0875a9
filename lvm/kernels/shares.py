"""From the log densities of a strip of rows to responsibilities, and who has a share in a component.

Where most responsibilities are not 0, exponentials are taken panel by panel. Where few are, the rows that have one are
listed first, component by component, without a branch, and exponentials are taken of what is listed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lvm._jit import Array, part_of_kernel
from lvm._masks import any_above, append_above, count_above
from lvm._vectors import ONE, TWO, ZERO, gather, larger, load, spread, store, sum_entries, where_above
from lvm.kernels.elementary import exp_above, logarithm
from lvm.kernels.workspace import Strip, place_in_queue

DENSE = 0.5  # share of a strip's rows from which on a component takes all of them as they lie


@part_of_kernel
def list_all(strip: Strip) -> None:
    """Let all values matter."""
    K = np.uint64(len(strip.lengths))
    for q in range(len(strip.n_near)):
        strip.n_near[q] = K
        for k in range(K):
            strip.near[np.uint64(q) * K + np.uint64(k)] = k


@part_of_kernel
def find_tops(strip: Strip, n_panels: Any) -> None:
    """Write the largest value of each row, inf for rows of weight 0: no value comes near it."""
    K, width, values = np.uint64(len(strip.lengths)), strip.panels.width, strip.values
    half = width // TWO
    for q in range(n_panels):
        first, listed, row = q * K * width, q * K, q * width
        at = first + strip.near[listed] * width
        top, top2 = load(values, at), load(values, at + half)
        for a in range(listed + ONE, listed + strip.n_near[q]):
            at = first + strip.near[a] * width
            top, top2 = larger(top, load(values, at)), larger(top2, load(values, at + half))
        store(where_above(load(strip.weight, row), 0.0, top, np.inf), strip.top, row)
        store(where_above(load(strip.weight, row + half), 0.0, top2, np.inf), strip.top, row + half)


@part_of_kernel
def exponentiate(strip: Strip, n_panels: Any, smallest: float, reliefs: Array) -> None:
    """Turn values into exp(value - top), 0 below exp(smallest), and find tops, sums and active panels."""
    K, width, m = np.uint64(len(strip.lengths)), strip.panels.width, np.uint64(len(strip.r))
    half, values = width // TWO, strip.values
    for q in range(n_panels):
        first, row = q * K * width, q * width
        top, top2 = load(values, first), load(values, first + half)
        for k in range(ONE, K):
            at = first + k * width
            top, top2 = larger(top, load(values, at)), larger(top2, load(values, at + half))
        store(top, strip.top, row)
        store(top2, strip.top, row + half)
        nothing = sums = sums2 = relief = relief2 = spread(0.0, values)
        for k in range(K):
            at = first + k * width
            x, x2 = load(values, at) - top, load(values, at + half) - top2
            # Some components are negligible for all rows of a panel.
            y = y2 = nothing
            if any_above(larger(x, x2), smallest):
                y, y2 = exp_above(x, smallest), exp_above(x2, smallest)
                sums, sums2 = sums + y, sums2 + y2
                relief, relief2 = relief + y * reliefs[k], relief2 + y2 * reliefs[k]
                strip.active[k * m + strip.n_active[k]] = q
                strip.n_active[k] += ONE
            store(y, values, at)
            store(y2, values, at + half)
        store(sums, strip.totals, row)
        store(sums2, strip.totals, row + half)
        store(relief, strip.reliefs, row)
        store(relief2, strip.reliefs, row + half)


@part_of_kernel
def list_rows(strip: Strip, n_panels: Any, smallest: float) -> None:
    """Append the rows with a value above top + smallest to the queue of each component.

    Whether a panel has one is not asked: the answer would be mispredicted more often than it saves time.
    """
    K, width, values = np.uint64(len(strip.lengths)), strip.panels.width, strip.values
    half = width // TWO
    for k in range(K):
        strip.ends[k] = place_in_queue(strip, k)
    for q in range(n_panels):
        row = q * width
        top, top2 = load(strip.top, row), load(strip.top, row + half)
        for a in range(q * K, q * K + strip.n_near[q]):
            k = strip.near[a]
            to, at = strip.ends[k], (q * K + k) * width
            to += append_above(load(values, at) - top, smallest, row, strip.queue, to)
            strip.ends[k] = to + append_above(load(values, at + half) - top2, smallest, row + half, strip.queue, to)


@part_of_kernel
def exponentiate_listed(strip: Strip, n_panels: Any, smallest: float, reliefs: Array, log_relief: float) -> None:
    """Write exp(value - top) of the rows listed to their queues, and find the sums."""
    K, width, values = np.uint64(len(strip.lengths)), strip.panels.width, strip.values
    half, zero = width // TWO, spread(0.0, strip.values)
    for p in range(ZERO, n_panels * width, half):
        store(zero, strip.totals, p)
        store(zero, strip.reliefs, p)
    for k in range(K):
        first = place_in_queue(strip, k)
        n = strip.n_active[k] = strip.ends[k] - first
        for a in range(first + n, first + n + half):
            strip.queue[a] = ZERO  # a place that there is, for the last vector
        for a in range(first, first + n, half):
            x = gather(values, strip.queue, a, width, K, k * width) - gather(
                strip.top, strip.queue, a, width, ONE, ZERO
            )
            store(exp_above(x, smallest), strip.queue_r, a)
        for a in range(first, first + n):
            strip.totals[strip.queue[a]] += strip.queue_r[a]
        for a in range(first, first + n if log_relief > 0.0 else first):
            strip.reliefs[strip.queue[a]] += strip.queue_r[a] * reliefs[k]


@part_of_kernel
def finish_rows(strip: Strip, n_panels: Any, base: float, log_relief: float) -> tuple[float, float, bool]:
    """Write weight over total to scale; return log-likelihood, penalty, and whether a row that counts is impossible."""
    loglik, penalty, impossible = 0.0, 0.0, False
    for p in range(ZERO, n_panels * strip.panels.width, strip.panels.width // TWO):
        weight, sums = load(strip.weight, p), load(strip.totals, p)
        impossible |= any_above(where_above(sums, 0.0, 0.0, weight), 0.0)
        weight = where_above(sums, 0.0, weight, 0.0)
        relieved = load(strip.reliefs, p) if log_relief > 0.0 else sums
        lift = logarithm(where_above(sums, 0.0, relieved, 1.0)) + log_relief
        if log_relief > 0.0:
            rest = logarithm(where_above(sums, 0.0, sums, 1.0)) - lift
            penalty += sum_entries(weight * rest)
        loglik += sum_entries(where_above(weight, 0.0, weight * (load(strip.top, p) + lift), 0.0)) + base * sum_entries(
            weight
        )
        store(where_above(weight, 0.0, weight / sums, 0.0), strip.scale, p)
    return loglik, penalty, impossible


@part_of_kernel
def first_impossible(strip: Strip, m: Any, n: Any) -> Any:
    """Return the first of m rows that has weight and no finite density, n where there is none."""
    first = n
    for p in range(m):
        first = first if strip.totals[p] > 0.0 or not strip.weight[p] > 0.0 else min(first, strip.rows[p])
    return first


@part_of_kernel
def share_listed(strip: Strip, k: Any, n: Any, n_rows: Any) -> tuple[float, bool]:
    """Turn the n exponentials that are listed for component k into responsibilities; as `share`."""
    first, count = place_in_queue(strip, k), 0.0
    is_queued = n <= DENSE * n_rows
    if not is_queued:
        strip.r[:] = 0.0
    for a in range(first, first + n):
        p = strip.queue[a]
        r = strip.queue_r[a] * strip.scale[p]
        count += r
        if is_queued:
            strip.queue[a], strip.queue_r[a] = strip.rows[p], r
        else:
            strip.r[p] = r
    return count, is_queued


@part_of_kernel
def share(strip: Strip, k: Any, n_rows: Any, n_panels: Any) -> tuple[float, Any, bool]:
    """Write the responsibilities of component k to its queue where they are few, else to strip.r.

    Returns their sum, how many are not 0, and whether they are few.
    """
    K, m, width = np.uint64(len(strip.lengths)), np.uint64(len(strip.r)), strip.panels.width
    half, zero, n = width // TWO, spread(0.0, strip.r), ZERO
    for p in range(ZERO, n_panels * width, half):
        store(zero, strip.r, p)
    count = zero
    for a in range(k * m, k * m + strip.n_active[k]):
        p, at = strip.active[a] * width, (strip.active[a] * K + k) * width
        for _ in range(2):
            r = load(strip.values, at) * load(strip.scale, p)
            store(r, strip.r, p)
            count, n = count + r, n + count_above(r, 0.0)
            p, at = p + half, at + half
    is_queued = n <= DENSE * n_rows
    if is_queued:
        first = place_in_queue(strip, k)
        to = first
        for a in range(k * m, k * m + strip.n_active[k]):
            for p in (strip.active[a] * width, strip.active[a] * width + half):
                to += append_above(load(strip.r, p), 0.0, p, strip.queue, to)
        for a in range(first, to):
            p = strip.queue[a]
            strip.queue[a], strip.queue_r[a] = strip.rows[p], strip.r[p]
    return sum_entries(count), n, is_queued
