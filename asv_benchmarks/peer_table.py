"""Print lvm beside its peers as Markdown, and what is measured against each bar: `python peer_table.py --help`.

The libraries alternate within one process, see `benchmarks.timing`: ratios that a noisy machine disturbs least. Exits
with 1 if a peer reaches another log-likelihood.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
if "--quick" in sys.argv:
    os.environ["LVM_BENCHMARKS_QUICK"] = "1"  # before the cases are made, and for new processes as well

from benchmarks import acceleration, ceilings, startup
from benchmarks.cases import CASES, IS_QUICK, RATES, SUBSET, Case
from benchmarks.machine import describe, versions
from benchmarks.memory import peak_above_data
from benchmarks.peers import PEERS, prepare
from benchmarks.timing import seconds_per_iteration

MARKS = ("<!-- peer table: begin -->", "<!-- peer table: end -->")
PAIRS = 1 if IS_QUICK else 5
N_NEW_PROCESSES = 1 if IS_QUICK else 5
TITLES = {
    "lvm": "lvm",
    "lvm-float32": "lvm, float32",
    "sklearn": "scikit-learn",
    "onedal": "oneDAL",
    "stepmix": "StepMix",
    "numpy": "numpy, scipy",
}
# Relative differences of log-likelihoods: orders of summation differ, and float32 rounds the rows.
TOLERANCES = {library: 1e-5 if "float32" in library else 1e-8 for library in PEERS}
MB = 1e6


class Row(NamedTuple):
    """A case as measured: seconds per iteration and log-likelihood reached, by library."""

    case: Case
    seconds: dict[str, float]
    logliks: dict[str, float]

    def ratio(self, peer: str) -> float:
        """Return how many times as long as lvm's an iteration of a peer takes."""
        return self.seconds[peer] / self.seconds["lvm"]

    def difference(self, peer: str) -> float:
        """Return the relative difference of a peer's log-likelihood to lvm's."""
        return abs(self.logliks[peer] / self.logliks["lvm"] - 1)


class Bar(NamedTuple):
    """What lvm has to reach against a peer over some cases: geometric mean, and every shape."""

    what: str
    peer: str
    belongs: Callable[[Case], bool]
    mean: float
    least: float


BARS = (
    Bar("full against scikit-learn", "sklearn", lambda case: case.group == "full", 15, 5),
    Bar(
        "diag, spherical, tied against scikit-learn",
        "sklearn",
        lambda case: case.group in ("diag", "spherical", "tied"),
        8,
        3,
    ),
    Bar(
        "full and diag against oneDAL, overlapping components",
        "onedal",
        lambda case: case.group in ("full", "diag", "many"),
        1.5,
        1.1,
    ),
    Bar("full and diag against oneDAL, well separated", "onedal", lambda case: case.group == "separated", 3, 3),
    Bar(
        "Bernoulli and categorical against StepMix",
        "stepmix",
        lambda case: case.family in ("bernoulli", "categorical"),
        5,
        5,
    ),
    Bar(
        "multinomial on CSR against numpy and scipy",
        "numpy",
        lambda case: (case.family, case.kind) == ("multinomial", "csr"),
        4,
        4,
    ),
    Bar("272 x 2, K = 2 against scikit-learn", "sklearn", lambda case: case.group == "small", 1 / 0.15, 1 / 0.15),
)


def measure(case: Case, n_jobs: int) -> Row:
    """Measure a case with every library that has it."""
    fits = {}
    for library in PEERS:
        try:
            fits[library] = prepare(library, case, n_jobs)
        except NotImplementedError:
            continue
    logliks = {library: fit(case.n_iter)() for library, fit in fits.items()}
    seconds = seconds_per_iteration(list(fits.values()), 1, 1 + case.n_iter, PAIRS)
    return Row(case, dict(zip(fits, seconds, strict=True)), logliks)


def number(value: float) -> str:
    """Return three digits, or all that there are before the point."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def markdown(title: Iterable[str], cells: Iterable[Iterable[str]]) -> list[str]:
    """Return a table as lines, or nothing where there are no cells."""
    lines = [f"| {' | '.join(line)} |" for line in cells]
    title = list(title)
    return [f"| {' | '.join(title)} |", "|---" * len(title) + "|", *lines, ""] if lines else []


def comparison(rows: list[Row]) -> list[str]:
    """Return a table of milliseconds per iteration, times what lvm takes, and agreement."""
    libraries = [library for library in PEERS if any(library in row.seconds for row in rows)]

    def cells(row: Row) -> Iterator[str]:
        yield f"{row.case.family} {row.case.kind}".strip()
        yield from (f"{row.case.n:,}", str(row.case.d), str(row.case.K))
        for library in libraries:
            known = row.seconds.get(library)
            factor = "" if library == "lvm" else f" ({number(row.ratio(library))}x)" if known else ""
            yield f"{number(1e3 * known)}{factor}" if known else "n/a"
        exact = [row.difference(library) for library in row.seconds if library not in ("lvm", "lvm-float32")]
        yield f"{max(exact):.1g}" if exact else "n/a"

    title = ["model", "n", "d", "K", *map(TITLES.__getitem__, libraries), "log-likelihoods differ by"]
    return markdown(title, map(cells, rows))


def mean_and_least(ratios: list[float]) -> str:
    """Return the geometric mean, and the least where there are several."""
    if not ratios:
        return "n/a"
    least = f", least {number(min(ratios))}x" if len(ratios) > 1 else ""
    return f"{number(statistics.geometric_mean(ratios))}x{least}"


def ratio_bars(rows: list[Row]) -> Iterator[tuple[str, str, str]]:
    """Yield what was asked for and what was measured, over the cases of each bar."""
    for what, peer, belongs, mean, least in BARS:
        wanted = [row for row in rows if belongs(row.case)]
        asked = f"≥ {mean:.3g}x" + (f", each ≥ {least:.3g}x" if least != mean else " each")
        if wanted:
            yield what, asked, mean_and_least([row.ratio(peer) for row in wanted if peer in row.seconds])
    gains = [1 / row.ratio("lvm-float32") for row in rows if "lvm-float32" in row.seconds]
    if gains:
        yield "float32 against float64, d ≥ 16", "", mean_and_least(gains)


def thread_bars(_n_jobs: int) -> Iterator[tuple[str, str, str]]:
    """Yield the gain from a second core."""
    for name in SUBSET:
        case = CASES[name]
        fits = [prepare("lvm", case, n_jobs) for n_jobs in (1, 2)]
        one, two = seconds_per_iteration(fits, 1, 1 + case.n_iter, PAIRS)
        yield f"two threads against one, {name}", "≥ 1.8x", f"{one / two:.3g}x"


def rate_bars(n_jobs: int) -> Iterator[tuple[str, str, str]]:
    """Yield the share of dgemm's rate that useful operations reach."""
    for name, threads in product(RATES, sorted({1, n_jobs})):
        own, ceiling = ceilings.flop_rates(CASES[name], threads, PAIRS)
        measured = f"{100 * own / ceiling:.0f} % of {ceiling / 1e9:.0f} GFLOP/s"
        yield f"useful FLOP rate against dgemm, {name}, n_jobs={threads}", "≥ 55 %", measured


def memory_bars(n_jobs: int) -> Iterator[tuple[str, str, str]]:
    """Yield the memory of fits, each measured in a process of its own."""
    for name in SUBSET:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            try:
                peak = process.submit(peak_above_data, "lvm", name, n_jobs).result()
            except NotImplementedError:
                return
        allowed = 32 * MB + 4 * CASES[name].stats_bytes * n_jobs
        yield f"peak memory above the data, {name}", f"≤ {allowed / MB:.0f} MB", f"{peak / MB:.1f} MB"


def startup_bars(_n_jobs: int) -> Iterator[tuple[str, str, str]]:
    """Yield what a new process pays."""

    def median(*code: str) -> str:
        return f"{statistics.median(startup.seconds_in_new_process(*code) for _ in range(N_NEW_PROCESSES)):.2g} s"

    yield "`import lvm`", "≤ 0.1 s", median("import lvm")
    median(startup.FIT, startup.HEAVY_IMPORTS)  # fills the cache
    yield "first fit, warm cache", "≤ 0.5 s", median(startup.FIT, startup.HEAVY_IMPORTS)
    cold = startup.seconds_in_new_process(startup.FIT, startup.COLD + startup.HEAVY_IMPORTS)
    yield "first fit, cold cache", "≤ 12 s", f"{cold:.2g} s"


def acceleration_bars(_n_jobs: int) -> Iterator[tuple[str, str, str]]:
    """Yield the share of iterations left on slow problems."""
    for name in acceleration.PROBLEMS:
        plain, fast = acceleration.iterations(name)
        yield f"iterations with acceleration, {name}", "≤ 1/5", f"1/{plain / max(fast, 1):.0f}: {fast} of {plain:,}"


SECTIONS: dict[str, Callable[[int], Iterator[tuple[str, str, str]]]] = {
    "threads": thread_bars,
    "rate": rate_bars,
    "memory": memory_bars,
    "startup": startup_bars,
    "acceleration": acceleration_bars,
}
GROUPS = (*dict.fromkeys(case.group for case in CASES.values()), *SECTIONS)


def report(names: list[str], sections: Iterable[str], n_jobs: int) -> tuple[list[str], list[str]]:
    """Return the lines of the report, and what disagrees."""

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    rows = []
    for name in names:
        log(name)
        rows.append(measure(CASES[name], 1 if CASES[name].group == "small" else n_jobs))
    bars = list(ratio_bars(rows))
    for section in sections:
        log(section)
        bars.extend(SECTIONS[section](n_jobs))
    lines = [f"Measured {describe()}, {n_jobs} threads ({versions()}).", ""]
    lines += ["Milliseconds per iteration, and how many times as long as lvm's in the same run:", ""]
    lines += comparison([row for row in rows if row.case.group != "discrete"])
    lines += comparison([row for row in rows if row.case.group == "discrete"])
    lines += ["Geometric means of these ratios, and the rest, beside what is asked for:", ""]
    lines += markdown(("what", "asked for", "measured"), bars)
    wrong = [
        f"{row.case.name}: {library} reaches {loglik!r}, lvm {row.logliks['lvm']!r}"
        for row in rows
        for library, loglik in row.logliks.items()
        if not row.difference(library) <= TOLERANCES[library]
    ]
    return lines, wrong


def insert(path: Path, lines: list[str]) -> None:
    """Replace what stands between the two marks in a file."""
    before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, found, after = rest.partition(MARKS[1])
    if not found:
        raise SystemExit(f"{path} lacks the lines {MARKS[0]} and {MARKS[1]}")
    path.write_text("\n".join((before + MARKS[0], *lines, MARKS[1] + after)), encoding="utf-8")


def arguments() -> Any:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--cases", default="", metavar="PATTERN", help="only cases whose names match")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of each library (default: 2)")
    parser.add_argument("--into", type=Path, metavar="FILE", help=f"replace what stands between {' and '.join(MARKS)}")
    parser.add_argument("--quick", action="store_true", help="tiny cases, once: tries the script, measures nothing")
    return parser.parse_args()


def main() -> int:
    """Measure, print, and say whether all agree."""
    given = arguments()
    names = [name for name, case in CASES.items() if case.group in given.groups and re.search(given.cases, name)]
    lines, wrong = report(names, [section for section in SECTIONS if section in given.groups], given.threads)
    print("\n".join(lines))
    if given.into:
        insert(given.into, lines)
    for line in wrong:
        print(line, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
