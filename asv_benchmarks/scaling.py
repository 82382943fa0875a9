"""Draw the cost of an iteration against n, d, K and threads, with the machine's ceilings: `python scaling.py --help`.

The lines that no fit can be below are measured in the same run: useful operations at the rate of dgemm (full
covariances), and one reading of the data at the bandwidth of memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
if "--quick" in sys.argv:
    os.environ["LVM_BENCHMARKS_QUICK"] = "1"  # before the ceilings are set up

from benchmarks.cases import IS_QUICK, Case
from benchmarks.ceilings import DGEMM_FLOP, READ_BYTES, dgemm, read
from benchmarks.machine import describe, n_cores
from benchmarks.peers import Fit, prepare
from benchmarks.timing import seconds_per_iteration
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

PAIRS = 1 if IS_QUICK else 5
FAMILIES = ("full", "diag")
COLOURS = dict(zip(FAMILIES, ("C0", "C1"), strict=True))
BASE = {"n": 2_000, "d": 4, "K": 3} if IS_QUICK else {"n": 100_000, "d": 16, "K": 10}
SWEEPS = {
    "n": (1_000, 2_000) if IS_QUICK else (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
    "d": (2, 4) if IS_QUICK else (2, 4, 8, 16, 32, 64),
    "K": (2, 3) if IS_QUICK else (2, 5, 10, 20, 50, 100),
}
NAMES = {"n": "rows n", "d": "features d", "K": "components K", "threads": "threads"}


class Point(NamedTuple):
    """Seconds per iteration of a family at one shape, and the two ceilings for the same work."""

    at: int
    fit: float
    multiply: float
    read: float


def measure(family: str, shape: dict[str, int], n_jobs: int, at: int, rates: tuple[float, float]) -> Point:
    """Measure one shape."""
    # Small fits run longer, until some 30 million numbers have been read.
    cells = shape["n"] * shape["d"] * shape["K"]
    n_iter = 2 if IS_QUICK else min(200, max(3, 30_000_000 // cells))
    case = Case(family, shape["n"], shape["d"], shape["K"], n_iter)
    (seconds,) = seconds_per_iteration([prepare("lvm", case, n_jobs)], 1, 1 + case.n_iter, PAIRS)
    print(f"{case.name}, {n_jobs} threads: {1e3 * seconds:.3g} ms", file=sys.stderr, flush=True)
    return Point(at, seconds, case.flop / rates[0], 8 * case.n * case.d / rates[1])


def measure_rates(n_jobs: int) -> tuple[float, float]:
    """Return operations per second of dgemm and bytes per second read from memory, at their best: they are ceilings."""

    def best(fit: Fit) -> float:
        return min(timeit.repeat(lambda: fit(3), number=1, repeat=2 * PAIRS)) / 3

    return DGEMM_FLOP / best(dgemm(n_jobs)), READ_BYTES / best(read(n_jobs))


def measure_all(n_jobs: int, most_threads: int) -> dict[str, dict[str, list[Point]]]:
    """Return the points of each panel and family; the ceilings are measured anew for each number of threads."""
    rates = {threads: measure_rates(threads) for threads in {n_jobs, *range(1, most_threads + 1)}}
    panels: dict[str, dict[str, list[Point]]] = {}
    for what, values in SWEEPS.items():
        panels[what] = {
            family: [measure(family, BASE | {what: value}, n_jobs, value, rates[n_jobs]) for value in values]
            for family in FAMILIES
        }
    panels["threads"] = {
        family: [measure(family, BASE, threads, threads, rates[threads]) for threads in range(1, most_threads + 1)]
        for family in FAMILIES
    }
    return panels


def draw_panel(axes: Any, what: str, lines: dict[str, list[Point]], title: str) -> None:
    """Draw a panel: milliseconds over what varies."""
    at = [point.at for point in lines["full"]]

    def line(points: list[Point], value: Callable[[Point], float], **style: Any) -> None:
        axes.plot(at, [1e3 * value(point) for point in points], **style)

    for family, points in lines.items():
        line(points, lambda point: point.fit, color=COLOURS[family], marker="o", label=f"lvm, {family}")
    line(lines["full"], lambda p: p.multiply, color="C0", linestyle="--", label="full: useful FLOP at dgemm's rate")
    line(lines["full"], lambda p: p.read, color="0.4", linestyle=":", label="reading X once, memory bandwidth")
    axes.set(xscale="log", yscale="log", xlabel=NAMES[what], title=title)
    if what != "n":
        axes.xaxis.set_major_locator(FixedLocator(at))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(which="major", alpha=0.3)


def draw(panels: dict[str, dict[str, list[Point]]], n_jobs: int, path: Path) -> None:
    """Save the picture."""
    plt.switch_backend("agg")
    figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained")
    for ax, (what, lines) in zip(axes.flat, panels.items(), strict=True):
        fixed = [f"{name} = {value:,}" for name, value in BASE.items() if name != what]
        fixed += [f"{n_jobs} threads"] * (what != "threads")
        draw_panel(ax, what, lines, ", ".join(fixed))
    for ax in axes[:, 0]:
        ax.set_ylabel("milliseconds per iteration")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"Cost of an EM iteration; measured {describe()}", fontsize=11)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="the picture's file")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="where threads do not vary (default: 2)")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, once: tries the script, measures nothing")
    given = parser.parse_args()
    draw(measure_all(given.threads, max(2, n_cores())), given.threads, given.out)


if __name__ == "__main__":
    main()
