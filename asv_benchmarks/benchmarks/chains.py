"""Hidden Markov models against hmmlearn: the same EM from the same start, one thread each."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import lvm

N, D, K, N_ITER = 100_000, 4, 10, 5


class HiddenMarkov:
    """A chain that stays in its state seven times in ten, among Gaussian states that overlap."""

    params = (("lvm", "hmmlearn-log", "hmmlearn-scaling"), ("diag", "full"), (1, 100))
    param_names = ("library", "covariances", "sequences")
    warmup_time = 0.0
    number = 1
    repeat = 3
    timeout = 300

    def setup(self, library: str, covariances: str, sequences: int) -> None:
        """Draw the rows, and compile."""
        threadpool_limits(1)
        rng = np.random.RandomState(0)
        self.lengths = [N // sequences] * sequences
        transmat = 0.3 * rng.dirichlet(np.ones(K), K) + 0.7 * np.eye(K)
        states = np.zeros(N, np.int64)
        limits, uniform = np.cumsum(transmat, axis=1), rng.random_sample(N)
        for t in range(1, N):
            states[t] = min(int(np.searchsorted(limits[states[t - 1]], uniform[t])), K - 1)
        means = 2 * rng.standard_normal((K, D))
        self.X = means[states] + rng.standard_normal((N, D))
        self.start = {
            "startprob": np.full(K, 1 / K),
            "transmat": 0.5 * transmat + 0.5 / K,
            "means": means + 0.3 * rng.standard_normal((K, D)),
            "covariances": np.full((K, D), 1.5) if covariances == "diag" else np.stack([1.5 * np.eye(D)] * K),
        }
        self._fit(library, covariances, 1)

    def _fit(self, library: str, covariances: str, n_iter: int) -> Any:
        """Fit by so many M-steps."""
        start = {name: array.copy() for name, array in self.start.items()}
        if library == "lvm":
            if not hasattr(lvm, "HiddenMarkov"):
                raise NotImplementedError("this commit has no HiddenMarkov")
            options: dict[str, Any] = {f"{name}_init": start.pop(name) for name in ("startprob", "transmat")}
            family = {"diag": lvm.families.DiagGaussian, "full": lvm.families.FullGaussian}[covariances]()
            model = lvm.HiddenMarkov(family, K, components_init=start, **options, tol=0, max_iter=n_iter, n_jobs=1)
            return model.fit(self.X, lengths=self.lengths)
        try:
            from hmmlearn.hmm import GaussianHMM
        except ImportError as error:
            raise NotImplementedError("hmmlearn is not installed") from error
        logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)
        priors = {"covars_prior": 0, "covars_weight": int(covariances == "diag"), "means_weight": 0, "min_covar": 0}
        options = {"n_iter": n_iter, "tol": -np.inf, "init_params": "", "implementation": library.split("-")[1]}
        peer = GaussianHMM(K, covariances, **options, **priors)
        peer.startprob_, peer.transmat_ = start["startprob"], start["transmat"]
        peer.means_, peer.covars_ = start["means"], start["covariances"]
        return peer.fit(self.X, self.lengths)

    def time_fit(self, library: str, covariances: str, _sequences: int) -> None:
        """Time a fit."""
        self._fit(library, covariances, N_ITER)

    def track_loglik(self, library: str, covariances: str, _sequences: int) -> float:
        """Record the log-likelihood of the fitted parameters."""
        fitted = self._fit(library, covariances, N_ITER)
        return float(fitted.loglik_ if library == "lvm" else fitted.score(self.X, self.lengths))

    track_loglik.unit = "nats"  # type: ignore[attr-defined]
