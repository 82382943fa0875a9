"""Reports of a running fit on the standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from lvm.result import EMResult, Iteration


class Progress:
    """Estimators whose fits say how far they are, as their `verbose` and `verbose_interval` ask for."""

    verbose: int
    verbose_interval: int

    def _report(self, message: str) -> None:
        """Write a line to the standard output where `verbose` asks for it."""
        if self.verbose:
            sys.stdout.write(message + "\n")

    def _reported(self, run: Callable[[Callable[[Iteration], None] | None], EMResult], max_iter: int) -> EMResult:
        """Return what `run(callback)` does, an EM run of at most max_iter iterations, and report on it."""
        self._report(f"Run of at most {max_iter} iterations")
        began = time.perf_counter()

        def report(iteration: Iteration) -> None:
            if iteration.n_iter and iteration.n_iter % self.verbose_interval == 0:
                elapsed = f"\t time lapse {time.perf_counter() - began:.5f}s" if self.verbose > 1 else ""
                gain = f"\t ll change {iteration.gain:.5f}" if self.verbose > 1 else ""
                self._report(f"  Iteration {iteration.n_iter}{elapsed}{gain}")

        result = run(report if self.verbose else None)
        self._report(f"Run ended after {result.n_iter} iterations: {result.status}.")
        return result
