"""The libraries compared, each doing the same EM from the same start. No benchmarks here.

Every fit runs n_iter M-steps and n_iter + 1 E-steps (oneDAL: n_iter) with tol = 0 and no regularisation.
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import gammaln
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import lvm

from .cases import COVARIANCES, Array, Case, Problem, problem

# fit(n_iter) does the work to be timed; calling what it returns gives the log-likelihood of the fitted parameters.
Fit = Callable[[int], Callable[[], float]]

PROBABILITY_FLOOR = 1e-300  # 0 * log(0) is NaN in numpy
FLOAT32_FROM = 16  # features


def _lvm(case: Case, given: Problem, n_jobs: int) -> Fit:
    options: dict[str, Any] = {"weights_init": given.weights, **given.components, "tol": 0, "n_jobs": n_jobs}
    if case.family in COVARIANCES:
        name = "GaussianMixture"
        options |= {"covariance_type": case.family, "reg_covar": 0}
    else:
        name = f"{case.family.title().replace('_', '')}Mixture"
    if case.family.startswith("student_t"):
        name, kind = "StudentTMixture", case.family.removeprefix("student_t_")
        options |= {"covariance_type": kind if kind == "diag" else "full", "reg_covar": 0}
    if case.family == "categorical":
        options["deduplicate"] = False
    make: Any = getattr(lvm, name, None)
    if make is None:
        raise NotImplementedError(f"this commit has no {name}")

    def fit(n_iter: int) -> Callable[[], float]:
        fitted = make(case.K, max_iter=n_iter, **options).fit(given.X)
        return lambda: float(fitted.loglik_)

    return fit


def _lvm_float32(case: Case, given: Problem, n_jobs: int) -> Fit:
    """lvm itself, on rows of half the size."""
    if case.family not in COVARIANCES or case.d < FLOAT32_FROM:
        raise NotImplementedError("nothing to gain from float32")
    return _lvm(case, given._replace(X=given.X.astype(np.float32)), n_jobs)


def _sklearn(case: Case, given: Problem, n_jobs: int) -> Fit:
    if case.family not in COVARIANCES:
        raise NotImplementedError("scikit-learn has no such mixture")
    options = {"covariance_type": case.family, "reg_covar": 0, "weights_init": given.weights, **given.components}
    threadpool_limits(n_jobs)

    def fit(n_iter: int) -> Callable[[], float]:
        fitted = GaussianMixture(case.K, max_iter=n_iter, tol=0, **options).fit(given.X)
        return lambda: float(fitted.score(given.X)) * case.n  # lower_bound_ belongs to the parameters before

    return fit


def _onedal(case: Case, given: Problem, n_jobs: int) -> Fit:
    if case.family not in ("full", "diag"):
        raise NotImplementedError("oneDAL has no such mixture")
    # daal4py imports its patches of scikit-learn, which break with releases of scikit-learn that are newer.
    sys.modules.setdefault("daal4py.sklearn", types.ModuleType("daal4py.sklearn"))
    try:
        import daal4py
    except ImportError as error:
        raise NotImplementedError("daal4py is not installed") from error
    daal4py.daalinit(n_jobs)
    storage = {"full": "full", "diag": "diagonal"}[case.family]
    precisions = given.components["precisions_init"]
    start = list((np.linalg.inv(precisions) if case.family == "full" else 1 / precisions[:, None]).copy())
    options = {"accuracyThreshold": 0.0, "regularizationFactor": 0.0, "covarianceStorage": storage}

    def fit(n_iter: int) -> Callable[[], float]:
        algorithm = daal4py.em_gmm(case.K, maxIterations=n_iter, **options)
        result = algorithm.compute(given.X, given.weights[None], given.components["means_init"], start)
        if result.nIterations.item() < n_iter:  # where rounding keeps the log-likelihood from growing
            raise NotImplementedError("oneDAL stops early, and refuses a tolerance below 0")
        return lambda: loglik(result)

    def loglik(result: Any) -> float:
        scorer = GaussianMixture(case.K, covariance_type=case.family)
        covariances = np.array(result.covariances).reshape(precisions.shape)
        precisions_out = np.linalg.inv(covariances) if case.family == "full" else 1 / covariances
        scorer.weights_, scorer.means_ = result.weights.ravel(), result.means
        scorer.precisions_cholesky_ = (
            np.linalg.cholesky(precisions_out) if case.family == "full" else np.sqrt(precisions_out)
        )
        return float(scorer.score(given.X)) * case.n

    return fit


def _stepmix(case: Case, given: Problem, n_jobs: int) -> Fit:
    if case.family not in ("bernoulli", "categorical") or case.is_sparse:
        raise NotImplementedError("StepMix has no such mixture")
    try:
        from stepmix.stepmix import StepMix
    except ImportError as error:
        raise NotImplementedError("stepmix is not installed") from error
    threadpool_limits(n_jobs)
    X = given.X.astype(np.float64)  # before the clock starts
    measurement: Any = "binary"
    probabilities = given.components["probabilities_init"]
    if case.family == "categorical":
        # Indicators instead of codes, from which StepMix would make them in each iteration.
        sizes = {"max_n_outcomes": case.n_words, "total_outcomes": case.d * case.n_words}
        columns = {"n_columns": case.d * case.n_words, "integer_codes": False, **sizes}
        measurement = {"answers": {"model": "categorical", **columns}}
        X, probabilities = _indicators(case, given)

    class Started(StepMix):  # type: ignore[misc]  # untyped
        """StepMix from explicit parameters: its own starts are random."""

        def _initialize_parameters(self, X: Array, random_state: Any) -> None:
            start: Any = {"pis": probabilities}  # a dictionary of its own: StepMix updates it
            if case.family == "categorical":
                start = {"answers": start | sizes}
            self.set_parameters({"weights": given.weights, "measurement": start, "measurement_in": X.shape[1]})

    def fit(n_iter: int) -> Callable[[], float]:
        options = {"abs_tol": 0, "rel_tol": 0, "max_iter": n_iter, "progress_bar": 0}
        fitted = Started(case.K, measurement=measurement, **options).fit(X)
        return lambda: float(fitted.score(X)) * case.n

    return fit


def _indicators(case: Case, given: Problem) -> tuple[Array, Array]:
    """Return categories as indicators (n, d c), and starting probabilities (K, d c)."""
    codes = np.asarray(given.X, np.int64)
    indicators = np.zeros((case.n, case.d * case.n_words))
    np.put_along_axis(indicators, codes + case.n_words * np.arange(case.d), 1.0, axis=1)
    start = given.components["probabilities_init"].swapaxes(0, 1)
    return indicators, start.reshape(case.K, case.d * case.n_words)


def _numpy(case: Case, given: Problem, n_jobs: int) -> Fit:
    """EM as one would write it by hand: the densities are linear in X, so that all is two matrix products."""
    if "probabilities_init" not in given.components:
        raise NotImplementedError("the hand-written EM is for probabilities")
    threadpool_limits(n_jobs)
    X = given.X.astype(np.float64)  # before the clock starts: the dtype that BLAS and scipy.sparse like best
    is_bernoulli, is_multinomial = case.family == "bernoulli", case.family == "multinomial"
    start = given.components["probabilities_init"]
    if case.family == "categorical":
        X, start = _indicators(case, given)
    coefficient: Array | float = 0.0
    if is_multinomial:
        parts = X.copy()
        if case.is_sparse:
            parts.data = gammaln(parts.data + 1)
        else:
            parts = gammaln(parts + 1)
        coefficient = gammaln(np.asarray(X.sum(axis=1)).ravel() + 1) - np.asarray(parts.sum(axis=1)).ravel()

    def estep(weights: Array, probabilities: Array) -> tuple[Array, float]:
        log_p = np.log(np.maximum(probabilities, PROBABILITY_FLOOR))
        constant = np.log(weights)
        if is_bernoulli:
            log_q = np.log(np.maximum(1 - probabilities, PROBABILITY_FLOOR))
            constant = constant + log_q.sum(axis=1)
            log_p -= log_q
        joint = np.asarray(X @ np.ascontiguousarray(log_p.T))
        joint += constant
        top = joint.max(axis=1, keepdims=True)
        joint -= top
        np.exp(joint, out=joint)
        total = joint.sum(axis=1, keepdims=True)
        joint /= total
        return joint, float((top + np.log(total)).sum() + np.sum(coefficient))

    def fit(n_iter: int) -> Callable[[], float]:
        weights, probabilities = given.weights, start
        resp, loglik = estep(weights, probabilities)
        for _ in range(n_iter):
            counts = resp.sum(axis=0)
            weights = counts / case.n
            sums = np.asarray((X.T @ resp).T)
            probabilities = sums / (sums.sum(axis=1, keepdims=True) if is_multinomial else counts[:, None])
            resp, loglik = estep(weights, probabilities)
        return lambda: loglik

    return fit


PEERS: dict[str, Callable[[Case, Problem, int], Fit]] = {
    "lvm": _lvm,
    "lvm-float32": _lvm_float32,
    "sklearn": _sklearn,
    "onedal": _onedal,
    "stepmix": _stepmix,
    "numpy": _numpy,
}


def connect(library: str, case: Case, n_jobs: int) -> Fit:
    """Return the fit of a case by a library on n_jobs threads.

    Raises
    ------
    NotImplementedError
        Where the library does not offer the model or is not installed: asv then skips the cell.
    """
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    return PEERS[library](case, problem(case), n_jobs)


@lru_cache(maxsize=8)
def prepare(library: str, case: Case, n_jobs: int) -> Fit:
    """Return the fit of a case by a library on n_jobs threads, compiled and warm; else as `connect`."""
    fit = connect(library, case, n_jobs)
    fit(1 + case.n_iter if library == "onedal" else 1)  # all of them: it may stop early
    return fit
