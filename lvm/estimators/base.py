"""Fitting, as all mixture estimators do it: validation, starts, restarts."""

from __future__ import annotations

import sys
import time
import warnings
from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags, check_random_state
from sklearn.utils.validation import validate_data

from lvm import _checks, initialize
from lvm._jit import Array
from lvm.accelerate import fit_anderson
from lvm.collapse import Collapsed
from lvm.em import fit_em
from lvm.estimators.fitted import FittedMixture
from lvm.execution import n_threads
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import DegenerateError, Rows, ZeroDensityError
from lvm.restarts import best_of
from lvm.result import EMResult, Iteration, Status

FITS = {None: fit_em, "anderson": fit_anderson}


class MixtureEstimator(FittedMixture):
    """Base of the mixture estimators: validation, starts and restarts.

    A subclass names its family and its parameters; see `GaussianMixture` for the attributes.
    """

    _min_rows = 1
    _accept_sparse = False
    # Whether rows repeat, so that a start is made on the distinct ones, and values that a subsample lacks would be
    # impossible, so that it is smoothed.
    _is_discrete = False

    n_components: int
    tol: float
    max_iter: int
    n_init: int
    init_params: Any
    warm_start: bool
    verbose: int
    verbose_interval: int
    n_jobs: int | None
    acceleration: str | None
    weights_init: Any

    # ----- what a subclass says -------------------------------------------------------------------------------

    @abstractmethod
    def _set_components(self, components: Any) -> None:
        """Set the fitted attributes of the family's parameters."""

    @abstractmethod
    def _check_start(self, n_features: int) -> None:
        """Validate the starting values among the constructor's arguments."""

    @abstractmethod
    def _explicit_components(self, components: Any | None, n_features: int) -> Any | None:
        """Return `components` with the given starting values put in; None while some are still missing."""

    @abstractmethod
    def _features(self, X: Any) -> Any:
        """Return rows of X where Euclidean distances make sense, for k-means."""

    def _start_centres(self) -> Array | None:
        """Return given starting centres in the space of `_features`."""
        return None

    def _check_data(self, rows: Rows) -> None:
        """Check canonical rows for what makes a fit meaningless."""

    def _collapsed(self, rows: Rows) -> Collapsed:
        """Return canonical rows as EM sees them."""
        return Collapsed(rows, None)

    # ----- fitting --------------------------------------------------------------------------------------------

    def fit(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None, labels: ArrayLike | None = None
    ) -> Self:
        """Fit the mixture by expectation-maximisation.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights, >= 0; a row of weight 2 counts as two equal rows.
        labels : array-like of shape (n,), optional
            Known components from 0 to n_components - 1, -1 where unknown.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If an argument is out of its range, or if every start degenerates.
        """
        self._check_parameters()
        data = self._validate(X, reset=True)
        n = data.shape[0]
        _checks.at_most_rows(self.n_components, n)
        weight = _checks.sample_weight(sample_weight, n)
        model = Mixture(self._family(data, weight))
        rows = model.canonical(Rows(data, weight, _checks.labels(labels, n, self.n_components)))
        self._check_start(self.n_features_in_)
        self._check_data(rows)
        result, self.restarts_ = self._best_fit(model, data, rows, self._collapsed(rows))
        self._set_result(result, n if rows.weight is None else float(rows.weight.sum()))
        return self

    def fit_predict(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None, labels: ArrayLike | None = None
    ) -> NDArray[np.int64]:
        """Fit, and return the most probable component of each row, shape (n,), as `predict` would.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        labels : array-like of shape (n,), optional
            Known components, -1 where unknown.
        """
        return self.fit(X, y, sample_weight=sample_weight, labels=labels).predict(X)

    def _check_parameters(self) -> None:
        _checks.integer("n_components", self.n_components, 1)
        _checks.real("tol", self.tol, 0.0)
        _checks.integer("max_iter", self.max_iter, 0)
        _checks.integer("n_init", self.n_init, 1)
        _checks.integer("verbose", int(self.verbose) if isinstance(self.verbose, bool) else self.verbose, 0)
        _checks.integer("verbose_interval", self.verbose_interval, 1)
        if self.acceleration is not None:
            _checks.choice("acceleration", self.acceleration, ["anderson"])
        if isinstance(self.init_params, str) or np.ndim(self.init_params) == 0:
            _checks.choice("init_params", self.init_params, initialize.METHODS)
        if not isinstance(self.warm_start, (bool, np.bool_)):
            raise _checks.ParameterError(f"warm_start must be True or False, got {self.warm_start!r}.")
        try:
            check_random_state(self.random_state)
        except ValueError as error:
            raise _checks.ParameterError(f"random_state must be None, an integer or a RandomState: {error}") from None
        try:
            n_threads(self.n_jobs)
        except (ValueError, TypeError) as error:
            raise _checks.ParameterError(str(error)) from None

    def _validate(self, X: Any, reset: bool) -> Any:
        X = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr" if self._accept_sparse else False,
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_samples=self._min_rows if reset else 1,
        )
        _checks.finite(X, getattr(self, "feature_names_in_", None))
        return X

    def _best_fit(self, model: Mixture[Any], X: Any, rows: Rows, fitted: Collapsed) -> tuple[EMResult, Array]:
        """Return the best fit from all starts, and the log-likelihoods that they reached."""
        if self.warm_start and len(getattr(self, "weights_", ())) == self.n_components:
            starts: list[MixtureParams | None] = [self._get_params()]
        elif explicit := self._explicit_params(None):
            starts = [explicit]
        else:
            starts = []
        failure: DegenerateError | None = None
        rng = check_random_state(self.random_state)
        for index in range(0 if starts else self.n_init):
            self._report(f"Initialization {index}")
            try:
                starts.append(self._start(model, X, rows, rng))
            except DegenerateError as error:
                starts.append(None)
                failure = error
        best, logliks = best_of(
            starts, lambda start, max_iter: self._run(model, fitted, start, max_iter), self.max_iter
        )
        if best is None:
            reason = Status.DEGENERATE.value if failure is None else str(failure)
            raise ValueError(f"{_checks.ILL_DEFINED} ({reason})") from failure
        return best, logliks

    def _run(self, model: Mixture[Any], fitted: Collapsed, start: MixtureParams, max_iter: int) -> EMResult:
        self._report(f"Run of at most {max_iter} iterations")
        began = time.perf_counter()

        def report(iteration: Iteration) -> None:
            if iteration.n_iter and iteration.n_iter % self.verbose_interval == 0:
                elapsed = f"\t time lapse {time.perf_counter() - began:.5f}s" if self.verbose > 1 else ""
                gain = f"\t ll change {iteration.gain:.5f}" if self.verbose > 1 else ""
                self._report(f"  Iteration {iteration.n_iter}{elapsed}{gain}")

        callback = report if self.verbose else None
        rows, first = fitted
        try:
            result = FITS[self.acceleration](
                model, rows, start, tol=self.tol, max_iter=max_iter, callback=callback, n_jobs=self.n_jobs
            )
        except ZeroDensityError as error:
            raise ZeroDensityError(error.row if first is None else int(first[error.row])) from None
        self._report(f"Run ended after {result.n_iter} iterations: {result.status}.")
        return result

    def _report(self, message: str) -> None:
        if self.verbose:
            sys.stdout.write(message + "\n")

    def _start(self, model: Mixture[Any], X: Any, rows: Rows, rng: np.random.RandomState) -> MixtureParams:
        """Return starting parameters by `init_params`, with the explicit ones put in."""
        K = self.n_components
        if isinstance(self.init_params, str):
            index = initialize.subsample(rows, rng)
            part, everything = rows, None
            if index is not None:
                X = X[index]
                weight = None if rows.weight is None else rows.weight[index]
                labels = None if rows.labels is None else rows.labels[index]
                part = model.canonical(Rows(X, weight, labels))
                everything = rows if self._is_discrete else None
            features = self._features(X)
            if self._is_discrete and part.labels is None:
                features, weight, place = initialize.collapse(features, part.weight)
                assignment = initialize.assign(features, K, self.init_params, rng, weight)[place]
            else:
                assignment = initialize.assign(
                    features, K, self.init_params, rng, part.weight, part.labels, self._start_centres()
                )
        else:
            part, everything, assignment = rows, None, _checks.assignment(self.init_params, X.shape[0], K)
        params = initialize.from_assignment(model, part, assignment, K, everything)
        explicit = self._explicit_params(params)
        assert explicit is not None
        return explicit

    def _explicit_params(self, params: MixtureParams | None) -> MixtureParams | None:
        """Return `params` with the given starting values put in; None while some are still missing."""
        weights = None if params is None else params.weights
        if self.weights_init is not None:
            weights = _checks.start_weights(self.weights_init, self.n_components)
        components = self._explicit_components(None if params is None else params.components, self.n_features_in_)
        return None if weights is None or components is None else MixtureParams(weights, components)

    def _set_result(self, result: EMResult, total_weight: float) -> None:
        self.weights_ = result.params.weights
        self._set_components(result.params.components)
        self.loglik_ = result.loglik
        self.objective_trace_ = result.objective_trace
        self.status_ = result.status
        self.converged_ = result.converged
        self.n_iter_ = result.n_iter
        per_weight = result.objective_trace[: result.n_iter + 1] / total_weight
        self.lower_bound_ = float(per_weight[-1])
        self.lower_bounds_ = per_weight[1:].tolist()
        asked_for = self.status_ is Status.MAX_ITER and (self.tol == 0 or self.max_iter == 0)
        if not self.converged_ and not asked_for:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, or increase "
                f"max_iter, tol, or check for degenerate data. (n_iter={self.n_iter_}; {result.status})",
                ConvergenceWarning,
                stacklevel=3,
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._accept_sparse
        # scikit-learn's checks of sparse input read these of everything that has predict_proba.
        tags.classifier_tags = ClassifierTags(multi_class=self.n_components != 2)
        return tags
