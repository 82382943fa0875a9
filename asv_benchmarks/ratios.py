"""Print how much faster than its peers lvm is, per iteration: `python asv_benchmarks/ratios.py [PATTERN] [THREADS]`.

The sides alternate within one process, see `benchmarks.timing`: ratios that a noisy machine disturbs least. Exits
with 1 if a peer reaches another log-likelihood.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks.cases import CASES
from benchmarks.peers import PEERS, prepare
from benchmarks.timing import seconds_per_iteration

TOLERANCE = 1e-8  # relative; different orders of summation over a few iterations stay far below


def main(pattern: str = "", n_jobs: int = 2) -> int:
    """Measure the cases whose names match the pattern."""
    disagreements = 0
    print(f"{'case':<44}{'peer':>8}{'lvm':>12}{'peer':>12}{'ratio':>8}{'loglik':>10}  ({n_jobs} threads, ms/iteration)")
    for name in filter(re.compile(pattern).search, CASES):
        fits = {}
        for library in PEERS:
            try:
                fits[library] = prepare(library, name, n_jobs)
            except NotImplementedError:
                continue
        n_iter = CASES[name].n_iter
        logliks = {library: fit(n_iter)() for library, fit in fits.items()}
        seconds = dict(zip(fits, seconds_per_iteration(list(fits.values()), 1, 1 + n_iter), strict=True))
        own = seconds["lvm"]
        for library in list(fits)[1:]:
            difference = abs(logliks[library] / logliks["lvm"] - 1)
            disagreements += difference > TOLERANCE
            print(
                f"{name:<44}{library:>8}{1e3 * own:>12.3f}{1e3 * seconds[library]:>12.3f}"
                f"{seconds[library] / own:>8.1f}{difference:>10.0e}",
                flush=True,
            )
    return int(disagreements > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2], *map(int, sys.argv[2:3])))
