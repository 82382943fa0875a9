"""Restarts on a small problem."""

from __future__ import annotations

import warnings

from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import lvm


class Restarts:
    """Ten starts from random rows, as a user would ask for them; lvm continues only the best of ten short runs."""

    params = ("lvm", "sklearn")
    param_names = ("library",)
    warmup_time = 0.0

    def setup(self, library: str) -> None:
        """Compile, and keep to one thread: so few rows are not worth a second."""
        threadpool_limits(1)
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        make = {"lvm": lvm.GaussianMixture, "sklearn": GaussianMixture}[library]
        self.X = lvm.datasets.load_faithful().data
        self.mixture = make(3, n_init=10, init_params="random_from_data", tol=1e-6, max_iter=1000, random_state=0)
        if library == "lvm":
            self.mixture.set_params(n_jobs=1).fit(self.X)

    def time_restarts(self, _library: str) -> None:
        """Time a fit."""
        self.mixture.fit(self.X)

    def track_loglik(self, _library: str) -> float:
        """Record the log-likelihood of the best start."""
        return float(self.mixture.fit(self.X).score(self.X)) * len(self.X)

    track_loglik.unit = "nats"  # type: ignore[attr-defined]
