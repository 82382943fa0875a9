"""The scikit-learn face shared by all mixture estimators."""

from __future__ import annotations

import sys
import time
import warnings
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from lvm import _checks, initialize
from lvm._jit import Array
from lvm.em import fit_em
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import DegenerateError, Rows
from lvm.result import EMResult, Iteration, Status

# Restarts are compared after short runs (Biernacki, Celeux & Govaert 2003), of at most this many iterations.
SHORT_RUN = 20


class MixtureEstimator(DensityMixin, BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no stubs
    """Base of the mixture estimators: validation, starts, restarts, and everything after the fit.

    A subclass names its family and its parameters; see `GaussianMixture` for the attributes.
    """

    _min_rows = 1
    _accept_sparse = False
    _collapse_start = False  # whether a start is made on the distinct rows

    n_components: int
    tol: float
    max_iter: int
    n_init: int
    init_params: Any
    random_state: Any
    warm_start: bool
    verbose: int
    verbose_interval: int
    n_jobs: int | None
    weights_init: Any

    # ----- what a subclass says -------------------------------------------------------------------------------

    @abstractmethod
    def _family(self) -> Any:
        """Return the family that the constructor's arguments describe."""

    @abstractmethod
    def _set_components(self, components: Any) -> None:
        """Set the fitted attributes of the family's parameters."""

    @abstractmethod
    def _get_components(self) -> Any:
        """Return the family's parameters from the fitted attributes."""

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
        model = Mixture(self._family())
        rows = model.canonical(
            Rows(data, _checks.sample_weight(sample_weight, n), _checks.labels(labels, n, self.n_components))
        )
        self._check_start(self.n_features_in_)
        self._check_data(rows)
        result, self.restarts_ = self._best_fit(model, data, rows)
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
        if isinstance(self.init_params, str):
            _checks.choice("init_params", self.init_params, initialize.METHODS)

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

    def _best_fit(self, model: Mixture[Any], X: Any, rows: Rows) -> tuple[EMResult, Array]:
        """Run short fits from each start and continue the best; return it and all their log-likelihoods."""
        if self.warm_start and hasattr(self, "weights_"):
            starts = [self._get_params()]
        elif explicit := self._explicit_params(None):
            starts = [explicit]
        else:
            starts = []
        rng = check_random_state(self.random_state)
        n_starts = len(starts) or self.n_init
        short = n_starts > 1 and self.max_iter > SHORT_RUN
        shorts: list[EMResult | None] = []
        failure: DegenerateError | None = None
        for index in range(n_starts):
            self._report(f"Initialization {index}")
            try:
                start = starts[index] if starts else self._start(model, X, rows, rng)
            except DegenerateError as error:
                failure = error
                shorts.append(None)
                continue
            shorts.append(self._run(model, rows, start, min(self.max_iter, SHORT_RUN) if short else self.max_iter))
        logliks = np.array([-np.inf if run is None else run.loglik for run in shorts])
        best: EMResult | None = None
        for index in np.argsort(-logliks, kind="stable"):
            run = shorts[index]
            if run is None:
                continue
            if short and run.status is Status.MAX_ITER:
                run = _continued(run, self._run(model, rows, run.params, self.max_iter - run.n_iter))
                logliks[index] = run.loglik
            if run.status is not Status.DEGENERATE:
                return run, logliks
            best = best or run
        reason = str(failure) if best is None else Status.DEGENERATE.value
        # scikit-learn's own words first, for those who look for them.
        raise ValueError(
            "Fitting the mixture model failed because some components have ill-defined empirical covariance (for "
            "instance caused by singleton or collapsed samples). Try to decrease the number of components, increase "
            f"reg_covar, or scale the input data. ({reason})"
        ) from failure

    def _run(self, model: Mixture[Any], rows: Rows, start: MixtureParams, max_iter: int) -> EMResult:
        began = time.perf_counter()

        def report(iteration: Iteration) -> None:
            if iteration.n_iter and iteration.n_iter % self.verbose_interval == 0:
                elapsed = f"\t time lapse {time.perf_counter() - began:.5f}s" if self.verbose > 1 else ""
                gain = f"\t ll change {iteration.gain:.5f}" if self.verbose > 1 else ""
                self._report(f"  Iteration {iteration.n_iter}{elapsed}{gain}")

        callback = report if self.verbose else None
        result = fit_em(model, rows, start, tol=self.tol, max_iter=max_iter, callback=callback, n_jobs=self.n_jobs)
        self._report(f"Initialization ended after {result.n_iter} iterations: {result.status}.")
        return result

    def _report(self, message: str) -> None:
        if self.verbose:
            sys.stdout.write(message + "\n")

    def _start(self, model: Mixture[Any], X: Any, rows: Rows, rng: np.random.RandomState) -> MixtureParams:
        """Return starting parameters by `init_params`, with the explicit ones put in."""
        K = self.n_components
        if isinstance(self.init_params, str):
            index = initialize.subsample(rows, rng)
            part = rows
            if index is not None:
                X = X[index]
                weight = None if rows.weight is None else rows.weight[index]
                labels = None if rows.labels is None else rows.labels[index]
                part = model.canonical(Rows(X, weight, labels))
            features = self._features(X)
            if self._collapse_start and part.labels is None:
                features, weight, place = initialize.collapse(features, part.weight)
                assignment = initialize.assign(features, K, self.init_params, rng, weight)[place]
            else:
                assignment = initialize.assign(
                    features, K, self.init_params, rng, part.weight, part.labels, self._start_centres()
                )
        else:
            part, assignment = rows, _checks.assignment(self.init_params, X.shape[0], K)
        params = initialize.from_assignment(model, part, assignment, K)
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
        self.lower_bound_ = result.loglik / total_weight
        self.lower_bounds_ = (result.objective_trace[1:] / total_weight).tolist()
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, or increase "
                f"max_iter, tol, or check for degenerate data. (n_iter={self.n_iter_}; {result.status})",
                ConvergenceWarning,
                stacklevel=3,
            )

    # ----- after the fit --------------------------------------------------------------------------------------

    def _get_params(self) -> MixtureParams:
        return MixtureParams(np.array(self.weights_, np.float64), self._get_components())

    def _fitted(self, X: Any) -> tuple[Mixture[Any], Rows, MixtureParams]:
        check_is_fitted(self)
        model = Mixture(self._family())
        return model, model.canonical(Rows(self._validate(X, reset=False))), self._get_params()

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the posterior probability of each component for each row, shape (n, K).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.

        Returns
        -------
        ndarray of shape (n, K)
            Responsibilities; each row sums to 1.

        Raises
        ------
        ValueError
            If a row has density 0 under every component; it names the row.
        """
        model, rows, params = self._fitted(X)
        return model.responsibilities(rows, params)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable component of each row, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        """
        model, rows, params = self._fitted(X)
        return model.most_probable(rows, params)

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row in nats, shape (n,); -inf where the row is impossible.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        """
        model, rows, params = self._fitted(X)
        return model.loglik(rows, params)

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per row (per unit of weight), in nats.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        """
        each = self.score_samples(X)
        weight = _checks.sample_weight(sample_weight, len(each))
        return float(np.mean(each)) if weight is None else float(np.average(each, weights=weight))

    def sample(self, n_samples: int = 1) -> tuple[Any, NDArray[np.int64]]:
        """Draw rows from the fitted mixture.

        Parameters
        ----------
        n_samples : int
            Number of rows.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
            Rows, in the order of their components.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        return self._sample(self._family(), n_samples)

    def _sample(self, family: Any, n_samples: int) -> tuple[Any, NDArray[np.int64]]:
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one sample.")
        return Mixture(family).sample(self._get_params(), n_samples, check_random_state(self.random_state))

    def n_parameters(self) -> int:
        """Return the number of free parameters of the fitted mixture."""
        check_is_fitted(self)
        return Mixture(self._family()).n_parameters(self._get_params())

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return Akaike's information criterion, -2 loglik + 2 n_parameters: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        """
        return -2 * self._total(X, sample_weight)[0] + 2 * self.n_parameters()

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the Bayesian information criterion, -2 loglik + n_parameters log n: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights; n is then their sum.

        References
        ----------
        Schwarz (1978), "Estimating the dimension of a model". mclust's BIC is the negative of this one.
        """
        loglik, n = self._total(X, sample_weight)
        return -2 * loglik + self.n_parameters() * float(np.log(n))

    def icl(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the integrated completed likelihood criterion: BIC - 2 sum log max_k r_ik; the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights.

        References
        ----------
        Biernacki, Celeux & Govaert (2000), "Assessing a mixture model for clustering with the integrated
        completed likelihood". mclust's ICL is the negative of this one.
        """
        model, rows, params = self._fitted(X)
        weight = _checks.sample_weight(sample_weight, len(rows.X))
        return self.bic(X, sample_weight) - 2 * model.classification_loglik(rows._replace(weight=weight), params)

    def _total(self, X: ArrayLike, sample_weight: ArrayLike | None) -> tuple[float, float]:
        """Return the log-likelihood of all rows and their total weight."""
        each = self.score_samples(X)
        weight = _checks.sample_weight(sample_weight, len(each))
        return (float(each.sum()), float(len(each))) if weight is None else (float(each @ weight), float(weight.sum()))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._accept_sparse
        # scikit-learn's checks of sparse input read these of everything that has predict_proba.
        tags.classifier_tags = ClassifierTags(multi_class=self.n_components != 2)
        return tags


def _continued(first: EMResult, second: EMResult) -> EMResult:
    """Return the two legs of one run as one result."""
    trace = np.concatenate([first.objective_trace, second.objective_trace[1:]])
    return second._replace(objective_trace=trace, n_iter=first.n_iter + second.n_iter)
