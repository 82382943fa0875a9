"""Fits of every family, beside the peers: a fixed number of iterations from the same explicit start."""

from __future__ import annotations

from .cases import CASES, DISCRETE, GAUSSIAN, SMALL, SUBSET
from .peers import prepare
from .timing import seconds_per_iteration

N_JOBS = 2


class _Fits:
    """What is measured of a fit; subclasses say which."""

    param_names = ("library", "case", "n_jobs")
    timeout = 300
    # Two rounds, so that a cell is visited twice, minutes apart: a disturbance then shows as spread.
    rounds = 2
    repeat = (2, 5, 4.0)
    warmup_time = 0.0

    def setup(self, library: str, case: str, n_jobs: int) -> None:
        """Make the data and compile; after the first call in a process, this is a look-up."""
        self.fit = prepare(library, CASES[case], n_jobs)

    def time_fit(self, _library: str, case: str, _n_jobs: int) -> None:
        """Time a fit."""
        self.fit(CASES[case].n_iter)

    def track_loglik(self, _library: str, case: str, _n_jobs: int) -> float:
        """Record the log-likelihood reached: a fast wrong answer shows."""
        return self.fit(CASES[case].n_iter)()

    track_loglik.unit = "nats"  # type: ignore[attr-defined]

    def track_seconds_per_iteration(self, _library: str, case: str, _n_jobs: int) -> float:
        """Measure an iteration, without validation and what else a fit does once."""
        return seconds_per_iteration([self.fit], 1, 1 + CASES[case].n_iter)[0]

    track_seconds_per_iteration.unit = "seconds"  # type: ignore[attr-defined]


class Gaussian(_Fits):
    """Gaussian mixtures; oneDAL has full and diag, and is skipped where it is not installed."""

    params = (("lvm", "lvm-float32", "sklearn", "onedal"), GAUSSIAN, (N_JOBS,))


class Discrete(_Fits):
    """Bernoulli and multinomial mixtures, dense and sparse, beside StepMix and EM written by hand."""

    params = (("lvm", "stepmix", "numpy"), DISCRETE, (N_JOBS,))


class Small(_Fits):
    """A few hundred rows, where overheads rule."""

    params = (("lvm", "sklearn"), SMALL, (1,))


class Threads(_Fits):
    """One thread against two; the log-likelihoods must be the same to the last bit."""

    params = (("lvm",), SUBSET, (1, 2))
