"""Peak memory of a fit."""

from __future__ import annotations

import re
from pathlib import Path

from .cases import CASES, SUBSET
from .peers import connect, prepare

PROCESS = Path("/proc/self")  # Linux


def _resident(what: str) -> int:
    """Return a line of the process's status in bytes: VmRSS, resident now, or VmHWM, at its peak."""
    (kilobytes,) = re.findall(rf"{what}:\s+(\d+) kB", (PROCESS / "status").read_text())
    return 1024 * int(kilobytes)


def peak_above_data(library: str, name: str, n_jobs: int) -> int:
    """Return by how many bytes a fit raises the process's peak; call it in a new process.

    Code is loaded by a fit of few rows, whose memory stays with the process but is little.

    Raises
    ------
    NotImplementedError
        Where the library lacks the model, or the system does not tell.
    """
    case = CASES[name]
    if not (PROCESS / "clear_refs").exists():
        raise NotImplementedError("needs Linux's account of a process's memory")
    prepare(library, case.shrunk(), n_jobs)
    fit = connect(library, case, n_jobs)
    (PROCESS / "clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = _resident("VmRSS")
    fit(case.n_iter)
    return _resident("VmHWM") - before


class Memory:
    """Peak of the whole process, and what a fit adds to it."""

    params = (("lvm", "sklearn", "numpy"), SUBSET, (2,))
    param_names = ("library", "case", "n_jobs")
    timeout = 300

    def setup_cache(self) -> None:
        """Compile in a process of its own: the compiler's memory is not the fit's."""
        for name in SUBSET:
            prepare("lvm", CASES[name].shrunk(), 2)

    def setup(self, library: str, case: str, n_jobs: int) -> None:
        """Make the data."""
        self.fit = connect(library, CASES[case], n_jobs)

    def peakmem_fit(self, _library: str, case: str, _n_jobs: int) -> None:
        """Measure the process: Python, the libraries, the data, and the fit."""
        self.fit(CASES[case].n_iter)

    def track_peak_above_data(self, library: str, case: str, n_jobs: int) -> int:
        """Measure by how much the fit raises the peak."""
        return peak_above_data(library, case, n_jobs)

    track_peak_above_data.unit = "bytes"  # type: ignore[attr-defined]
