"""Fitting, as all mixture estimators do it: validation, starts, restarts."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags, check_random_state

from lvm import _checks, degeneracy, initialize
from lvm._jit import Array
from lvm.accelerate import fit_anderson
from lvm.collapse import Collapsed
from lvm.em import fit_em
from lvm.estimators.given import GivenValues
from lvm.estimators.inference import Inference
from lvm.estimators.outcome import keep_outcome
from lvm.execution import n_threads
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import CanonicalRows, DegenerateError, Rows, ZeroDensityError
from lvm.restarts import best_of
from lvm.result import EMResult, Iteration, Status

FITS = {None: fit_em, "anderson": fit_anderson}
# For families to which scikit-learn's sentence about covariances does not apply.
NO_MAXIMUM = "Fitting the mixture model failed: from every start, some component's likelihood has no maximum."


@dataclass(eq=False, repr=False, kw_only=True)
class FittingEstimator(Inference, GivenValues):
    """Base of all mixture estimators: validation, starts and restarts.

    A subclass is a dataclass too: its fields are the constructor's arguments. It names its family, whose `parameters`
    become the fitted attributes `<name>_`, the starting values `<name>_init` where there is such a field, and what
    `fixed` may hold.
    """

    tol: float = 1e-7
    max_iter: int = 1000
    n_init: int = 1
    init_params: Any = "kmeans"
    weights_init: Any = None
    weights_prior: float = 1.0
    equal_weights: bool = False
    fixed: Any = None
    random_state: Any = None
    warm_start: bool = False
    verbose: int = 0
    verbose_interval: int = 10
    n_jobs: int | None = None
    acceleration: str | None = None
    on_degenerate: str = "restart"

    _failed: ClassVar[str] = _checks.ILL_DEFINED  # what a fit says where every start degenerates, before the reason

    _n_started = 0  # starts made before the one being made, in a fit

    # ----- what a subclass may say ----------------------------------------------------------------------------

    def _features(self, X: Any) -> Any:
        """Return rows of X, finite, where Euclidean distances make sense, for k-means."""
        return X

    def _start_centres(self) -> Array | None:
        """Return given starting centres in the space of `_features`."""
        return None

    def _check_data(self, rows: Rows) -> None:
        """Check canonical rows for what makes a fit meaningless."""

    def _prepare(self, X: Any, weight: Array | None) -> None:
        """Set the fitted attributes that the rows decide before any start."""

    def _assigned(self, features: Any, part: Rows, rng: np.random.RandomState) -> NDArray[Any]:
        """Return the components, or responsibilities, of the rows of a start by `init_params`."""
        return initialize.assign(
            features,
            self.n_components,
            self.init_params,
            rng,
            part.weight,
            part.labels,
            self._start_centres(),
            self._n_started,
        )

    def _given_assignment(self, X: Any, rows: Rows) -> NDArray[Any]:
        """Return the components, or responsibilities, that `init_params` gives to rows X, canonical as `rows`."""
        return _checks.assignment(self.init_params, X.shape[0], self._n_weights)

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
        labels : array-like of shape (n,) or (n, n_components), optional
            Known components from 0 to n_components - 1, -1 where unknown; or a mask of the components that each
            row may belong to.

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
        self._prepare(data, weight)
        given = self._given()
        model = self._model(data, weight)
        rows = model.canonical(Rows(data, weight, _checks.labels(labels, n, self._n_weights)))
        self._check_data(rows)
        if self.on_degenerate == "drop" and (rows.labels is not None or self.fixed is not None):
            raise ValueError(
                "on_degenerate='drop' numbers the components anew, but labels and fixed values belong to their old "
                "numbers; leave these out, or choose another policy."
            )
        result, self.restarts_ = self._best_fit(model, data, rows, given)
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
        labels : array-like of shape (n,) or (n, n_components), optional
            Known components, -1 where unknown; or a mask of those that each row may belong to.
        """
        return self.fit(X, y, sample_weight=sample_weight, labels=labels).predict(X)

    def _check_parameters(self) -> None:
        _checks.integer("n_components", self.n_components, 1)
        _checks.real("tol", self.tol, 0.0)
        _checks.integer("max_iter", self.max_iter, 0)
        _checks.integer("n_init", self.n_init, 1)
        _checks.integer("verbose", int(self.verbose) if isinstance(self.verbose, bool) else self.verbose, 0)
        _checks.integer("verbose_interval", self.verbose_interval, 1)
        _checks.real("weights_prior", self.weights_prior, 1.0)
        if self.acceleration is not None:
            _checks.choice("acceleration", self.acceleration, ["anderson"])
        if isinstance(self.init_params, str) or np.ndim(self.init_params) == 0:
            _checks.choice("init_params", self.init_params, initialize.METHODS)
        _checks.choice("on_degenerate", self.on_degenerate, degeneracy.POLICIES)
        for name in ("warm_start", "equal_weights"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise _checks.ParameterError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        try:
            check_random_state(self.random_state)
        except ValueError as error:
            raise _checks.ParameterError(f"random_state must be None, an integer or a RandomState: {error}") from None
        try:
            n_threads(self.n_jobs)
        except (ValueError, TypeError) as error:
            raise _checks.ParameterError(str(error)) from None

    def _best_fit(self, model: Mixture[Any], X: Any, rows: Rows, given: dict[str, Array]) -> tuple[EMResult, Array]:
        """Return the best fit from all starts, and the log-likelihoods that they reached."""
        fitted, rng = self._collapsed(rows), check_random_state(self.random_state)
        explicit = self._explicit_start(given)
        is_random = explicit is None and isinstance(self.init_params, str)

        def race(model: Mixture[Any], first: int, n_starts: int) -> _Race:
            starts = iter([explicit]) if explicit else self._starts(model, X, rows, rng, given, first, n_starts)
            return self._race(model, fitted, starts)

        tried = race(model, 0, self.n_init)
        best, logliks, notes = tried.best, tried.logliks, []
        if self.on_degenerate == "restart" and is_random:
            for attempt in range(degeneracy.MAX_RESTARTS if best is None else 0):
                tried = race(model, self.n_init + attempt, 1)
                best, logliks = tried.best, np.append(logliks, tried.logliks)
                if best is not None:
                    break
        elif self.on_degenerate == "floor" and best is None:
            for floored in degeneracy.floored(model, fitted.rows):
                again = race(floored, 0, self.n_init)
                if again.best is not None:
                    best, logliks = again.best, again.logliks
                    notes = [f"the fit was done anew with {floored.family!r}: {tried.failure}"]
                    break
        elif self.on_degenerate == "drop" and (end := best or tried.last) is not None:
            with suppress(DegenerateError):  # that of the last component, or of what they share, is the race's too
                best, notes = degeneracy.dropped(
                    model, fitted.rows, end, lambda params: self._run(model, fitted, params, self.max_iter)
                )
        if best is None:
            raise ValueError(f"{self._failed} ({tried.failure})") from tried.failure
        self.dropped_ = self._n_weights - len(best.params.weights)
        self.degeneracy_ = "; ".join(notes)
        if notes:
            warnings.warn(f"on_degenerate={self.on_degenerate!r}: {self.degeneracy_}", ConvergenceWarning, stacklevel=3)
        return best, logliks

    def _explicit_start(self, given: dict[str, Array]) -> MixtureParams | None:
        """Return the starting parameters that need no data: those of the last fit, or given ones."""
        if self.warm_start and len(getattr(self, "weights_", ())) == self._n_weights:
            return self._merged(self._given(with_starts=False), self._get_params())
        return self._merged(given, None)

    def _starts(
        self,
        model: Mixture[Any],
        X: Any,
        rows: Rows,
        rng: np.random.RandomState,
        given: dict[str, Array],
        first: int,
        n_starts: int,
    ) -> Iterator[MixtureParams | DegenerateError]:
        """Yield starting parameters, or why there are none."""
        for index in range(first, first + n_starts):
            self._report(f"Initialization {index}")
            self._n_started = index
            try:
                yield self._start(model, X, rows, rng, given)
            except DegenerateError as error:
                yield error
            finally:
                del self._n_started

    def _race(self, model: Mixture[Any], fitted: Collapsed, starts: Iterable[MixtureParams | DegenerateError]) -> _Race:
        """Return what comes of several starts."""
        begun = list(starts)
        errors = [start for start in begun if isinstance(start, DegenerateError)]
        ends: list[EMResult] = []

        def refuse(error: DegenerateError) -> None:
            if self.on_degenerate == "raise":
                raise ValueError(f"{self._failed} ({error})") from error

        def run(start: MixtureParams, max_iter: int) -> EMResult:
            result = self._run(model, fitted, start, max_iter)
            if result.status is Status.DEGENERATE:
                ends[:] = [result]
                if self.on_degenerate == "raise":
                    refuse(degeneracy.reason(model, fitted.rows, result.params))
            return result

        for error in errors:
            refuse(error)
        best, logliks = best_of(
            [None if isinstance(start, DegenerateError) else start for start in begun], run, self.max_iter
        )
        last = ends[0] if ends else None
        failure = errors[-1] if errors else None
        if best is None and last is not None:
            failure = degeneracy.reason(model, fitted.rows, last.params)
        return _Race(best, logliks, last, failure)

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

    def _start(
        self, model: Mixture[Any], X: Any, rows: Rows, rng: np.random.RandomState, given: dict[str, Array]
    ) -> MixtureParams:
        """Return starting parameters by `init_params`, with the explicit ones put in."""
        K = self._n_weights
        if isinstance(self.init_params, str):
            index = initialize.subsample(rows, rng)
            part, everything = rows, rows if self._smooths_every_start else None
            if index is not None:
                X = X.take(index) if isinstance(X, CanonicalRows) else X[index]
                weight = None if rows.weight is None else rows.weight[index]
                labels = None if rows.labels is None else rows.labels[index]
                part = model.canonical(Rows(X, weight, labels))
                everything = rows if self._smooths_start else None
            features = self._features(initialize.filled(X))
            if self._is_discrete and part.labels is None:
                features, weight, place = initialize.collapse(features, part.weight)
                assignment = initialize.assign(features, K, self.init_params, rng, weight, index=self._n_started)[place]
            else:
                assignment = self._assigned(features, part, rng)
        else:
            part, everything, assignment = rows, None, self._given_assignment(X, rows)
        if not hasattr(model.family, "start"):
            raise TypeError(
                f"{type(model.family).__name__} must implement start(X, weight, n_components) to be started by "
                "init_params; or give starting weights and parameters."
            )
        try:
            params = initialize.from_assignment(model, part, assignment, K, everything)
        except DegenerateError:
            if self.on_degenerate != "drop":
                raise
            # A small share of all rows in each component: EM tells which of them collapse.
            params = initialize.from_assignment(model, part, assignment, K, rows)
        merged = self._merged(given, params)
        assert merged is not None
        return merged

    def _set_result(self, result: EMResult, total_weight: float) -> None:
        self.weights_ = result.params.weights
        self._set_components(result.params.components)
        is_unfinished = keep_outcome(self, result)
        per_weight = result.objective_trace[: result.n_iter + 1] / total_weight
        self.lower_bound_ = float(per_weight[-1])
        self.lower_bounds_ = per_weight[1:].tolist()
        if is_unfinished:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, or increase "
                f"max_iter, tol, or check for degenerate data. (n_iter={self.n_iter_}; {result.status})",
                ConvergenceWarning,
                stacklevel=3,
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._accept_sparse
        tags.input_tags.allow_nan = self._accepts_missing
        # scikit-learn's checks of sparse input read these of everything that has predict_proba.
        tags.classifier_tags = ClassifierTags(multi_class=self.n_components != 2)
        return tags


class _Race(NamedTuple):
    """The best of several starts, None where all degenerated; all log-likelihoods; the last to degenerate, and why."""

    best: EMResult | None
    logliks: Array
    last: EMResult | None
    failure: DegenerateError | None


@dataclass(eq=False, repr=False, kw_only=True)
class MixtureEstimator(FittingEstimator):
    """Base of the estimators of one family, whose first argument is the number of components."""

    n_components: int = field(default=2, kw_only=False)
