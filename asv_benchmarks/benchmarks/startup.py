"""What a new process pays: the import, and the first fit."""

from __future__ import annotations

import subprocess
import sys

import lvm

IMPORTS = ("import lvm", "from lvm import GaussianMixture", "from sklearn.mixture import GaussianMixture")
FIT = "lvm.GaussianMixture(2, random_state=0).fit(X)"
HEAVY_IMPORTS = """
import numba, sklearn.cluster, sklearn.mixture
import lvm
X = lvm.datasets.load_faithful().data
"""
COLD = """
import os, tempfile
folder = tempfile.TemporaryDirectory()
os.environ["NUMBA_CACHE_DIR"] = folder.name
"""


def seconds_in_new_process(statement: str, before: str = "") -> float:
    """Return how long a statement takes in a new process, after what comes before it and is not timed."""
    code = (
        f"{before}\nfrom time import perf_counter\nstart = perf_counter()\n{statement}\nprint(perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


class Import:
    """Import in a new process."""

    params = IMPORTS
    param_names = ("statement",)
    number = 1
    repeat = 5
    rounds = 1

    def timeraw_import(self, statement: str) -> str:
        """Time the statement."""
        return statement


class FirstFit:
    """First fit in a new process, beyond importing numba, scikit-learn and the data."""

    params = ("warm", "cold")
    param_names = ("numba_cache",)
    number = 1
    repeat = (1, 5, 5.0)
    rounds = 1
    timeout = 300

    def setup(self, numba_cache: str) -> None:
        """Fill the cache, for the warm case."""
        if numba_cache == "warm":
            X = lvm.datasets.load_faithful().data
            lvm.GaussianMixture(2, random_state=0).fit(X)

    def timeraw_first_fit(self, numba_cache: str) -> tuple[str, str]:
        """Time the fit."""
        return FIT, (COLD if numba_cache == "cold" else "") + HEAVY_IMPORTS
