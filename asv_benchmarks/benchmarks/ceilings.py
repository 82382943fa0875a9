"""What the machine can do at most: the rates of dgemm and of reading memory, and lvm's share of the first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from .cases import CASES, IS_QUICK, RATES, Case
from .peers import Fit, prepare
from .timing import seconds_per_iteration

ORDER = 256 if IS_QUICK else 1536  # of the matrices that dgemm multiplies
DGEMM_FLOP = 2 * ORDER**3
READ_BYTES = 1 << (22 if IS_QUICK else 28)  # far more than any cache holds


def dgemm(n_jobs: int) -> Fit:
    """Return a "fit" of which an iteration is a product of two matrices."""
    A, B = np.random.default_rng(0).standard_normal((2, ORDER, ORDER))
    out = np.empty_like(A)

    def multiply(n_iter: int) -> Callable[[], float]:
        with threadpool_limits(n_jobs):
            for _ in range(n_iter):
                np.matmul(A, B, out=out)
        return lambda: float(out[0, 0])

    return multiply


def read(n_jobs: int) -> Fit:
    """Return a "fit" of which an iteration reads a long array once, a share in each thread."""
    shares = np.array_split(np.ones(READ_BYTES // 8), n_jobs)

    def add_up(n_iter: int) -> Callable[[], float]:
        total = 0.0
        with ThreadPoolExecutor(n_jobs) as pool:
            for _ in range(n_iter):
                total = float(sum(pool.map(np.max, shares)))
        return lambda: total

    return add_up


def flop_rates(case: Case, n_jobs: int, pairs: int = 5) -> tuple[float, float]:
    """Return useful operations per second in iterations of lvm, and those of dgemm, measured in turn."""
    fits = [prepare("lvm", case, n_jobs), dgemm(n_jobs)]
    own, ceiling = seconds_per_iteration(fits, 1, 1 + case.n_iter, pairs)
    return case.flop / own, DGEMM_FLOP / ceiling


class Rate:
    """Useful operations per second, full covariances, many features."""

    params = (RATES, (1, 2))
    param_names = ("case", "n_jobs")
    timeout = 300

    def track_share_of_dgemm(self, case: str, n_jobs: int) -> float:
        """Measure lvm and dgemm in turn."""
        own, ceiling = flop_rates(CASES[case], n_jobs)
        return own / ceiling

    track_share_of_dgemm.unit = "of dgemm's rate"  # type: ignore[attr-defined]
