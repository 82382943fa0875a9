"""Runs of EM from a start, and reports on them on the standard output."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvm.accelerate import fit_anderson
from lvm.em import fit_em
from lvm.protocol import ZeroDensityError
from lvm.result import EMResult, Iteration

FITS = {None: fit_em, "anderson": fit_anderson}


class Progress:
    """Estimators whose fits say how far they are, as their `verbose` and `verbose_interval` ask for."""

    verbose: int
    verbose_interval: int
    acceleration: str | None
    tol: float
    n_jobs: int | None

    def _report(self, message: str) -> None:
        """Write a line to the standard output where `verbose` asks for it."""
        if self.verbose:
            sys.stdout.write(message + "\n")

    def _run_em(
        self, model: Any, rows: Any, start: Any, max_iter: int, places: NDArray[np.int64] | None = None
    ) -> EMResult:
        """Run EM from a start, and report on it; an impossible row is named by its place among the user's, if given."""
        self._report(f"Run of at most {max_iter} iterations")
        began = time.perf_counter()

        def report(iteration: Iteration) -> None:
            if iteration.n_iter and iteration.n_iter % self.verbose_interval == 0:
                elapsed = f"\t time lapse {time.perf_counter() - began:.5f}s" if self.verbose > 1 else ""
                gain = f"\t ll change {iteration.gain:.5f}" if self.verbose > 1 else ""
                self._report(f"  Iteration {iteration.n_iter}{elapsed}{gain}")

        callback = report if self.verbose else None
        try:
            result = FITS[self.acceleration](
                model, rows, start, tol=self.tol, max_iter=max_iter, callback=callback, n_jobs=self.n_jobs
            )
        except ZeroDensityError as error:
            raise ZeroDensityError(error.row if places is None else int(places[error.row])) from None
        self._report(f"Run ended after {result.n_iter} iterations: {result.status}.")
        return result
