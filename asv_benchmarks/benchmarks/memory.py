"""Peak memory of a fit."""

from __future__ import annotations

import tracemalloc

from .cases import CASES, SUBSET
from .peers import prepare


class Memory:
    """Peak of the whole process, and of what the fit allocates itself."""

    params = (("lvm", "sklearn", "numpy"), SUBSET, (2,))
    param_names = ("library", "case", "n_jobs")
    timeout = 300

    def setup_cache(self) -> None:
        """Compile in a process of its own: the compiler's memory is not the fit's."""
        for name in SUBSET:
            prepare("lvm", name, 2)

    def setup(self, library: str, case: str, n_jobs: int) -> None:
        """Make the data."""
        self.fit = prepare(library, case, n_jobs)

    def peakmem_fit(self, _library: str, case: str, _n_jobs: int) -> None:
        """Measure the process: Python, the libraries, the data, and the fit."""
        self.fit(CASES[case].n_iter)

    def track_peak_above_data(self, _library: str, case: str, _n_jobs: int) -> int:
        """Measure the arrays that a fit allocates, at their peak; a kernel's few KB of scratch are not seen."""
        tracemalloc.start()
        try:
            self.fit(CASES[case].n_iter)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    track_peak_above_data.unit = "bytes"  # type: ignore[attr-defined]
