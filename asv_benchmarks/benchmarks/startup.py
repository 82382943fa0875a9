"""What a new process pays: the import, and the first fit."""

from __future__ import annotations

import lvm

FIT = "lvm.GaussianMixture(2, random_state=0).fit(X)"


class Import:
    """Import in a new process."""

    params = ("import lvm", "from lvm import GaussianMixture", "from sklearn.mixture import GaussianMixture")
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
        cold = """
            import os, tempfile
            folder = tempfile.TemporaryDirectory()
            os.environ["NUMBA_CACHE_DIR"] = folder.name
        """
        imports = """
            import numba, sklearn.cluster, sklearn.mixture
            import lvm
            X = lvm.datasets.load_faithful().data
        """
        return FIT, (cold if numba_cache == "cold" else "") + imports
