"""Where and with what something was measured. No benchmarks here."""

from __future__ import annotations

import datetime
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info

PACKAGES = ("lvm", "numpy", "scipy", "scikit-learn", "numba", "daal4py", "stepmix")
CPUINFO = Path("/proc/cpuinfo")  # Linux


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> str:
    """Return the date, the processor and the cores, for a sentence."""
    found = re.search(r"model name\s*:\s*(.+)", CPUINFO.read_text()) if CPUINFO.exists() else None
    processor = found[1] if found else platform.processor() or platform.machine()
    return f"on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {processor}, {n_cores()} cores"


def versions() -> str:
    """Return the versions of Python and of all libraries compared that are installed, and the kernels of BLAS."""
    known = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            known.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    kernels = {
        f"{pool['internal_api']} for {pool['architecture']}" for pool in threadpool_info() if "architecture" in pool
    }
    return ", ".join((*known, *sorted(kernels)))
