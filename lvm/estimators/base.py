"""Fitting, as all mixture estimators do it: validation, starts, restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags, check_random_state

from lvm import _checks, degeneracy, initialize
from lvm._jit import Array
from lvm.collapse import Collapsed
from lvm.estimators.inference import Inference
from lvm.estimators.outcome import keep_outcome
from lvm.estimators.starts import Starting
from lvm.execution import n_threads
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import DegenerateError, Rows
from lvm.restarts import best_of
from lvm.result import EMResult, Status, warn

SAME = 1e-5  # nats per row by which starts that end at one optimum differ, since EM stops before it
# For families to which scikit-learn's sentence about covariances does not apply.
NO_MAXIMUM = "Fitting the mixture model failed: from every start, some component's likelihood has no maximum."


def total_weight(rows: Rows) -> float:
    """Return the total weight of rows."""
    return float(len(rows.X) if rows.weight is None else rows.weight.sum())


@dataclass(eq=False, repr=False, kw_only=True)
class FittingEstimator(Inference, Starting):
    """Base of all mixture estimators: validation, starts and restarts.

    A subclass is a dataclass too: its fields are the constructor's arguments. It names its family, whose `parameters`
    become the fitted attributes `<name>_`, the starting values `<name>_init` where there is such a field, and what
    `fixed` may hold.
    """

    tol: float = 1e-7
    max_iter: int = 1000
    n_init: int | str = 1
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
        self._set_result(result, total_weight(rows))
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
        if not (isinstance(self.n_init, str) and self.n_init == "auto"):
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
        n_starts = self._count_starts(explicit)

        def race(model: Mixture[Any], first: int, n_starts: int) -> _Race:
            if explicit is not None:
                return self._race(model, fitted, [degeneracy.confined(model, explicit)])
            part = self._race_part(model, X, rows, rng) if n_starts > 1 else None
            if part is not None:
                begun = self._starts(model, *part, rng, given, first, n_starts)
                tried = self._race(model, Collapsed(part[1], None), begun, self._is_spurious(part[0], part[1].weight))
                if tried.best is not None:
                    return self._race(model, fitted, [tried.best.params]).after(tried, rows, part[1])
            begun = self._starts(model, X, rows, rng, given, first, n_starts)
            return self._race(model, fitted, begun, self._is_spurious(X, rows.weight) if n_starts > 1 else None)

        tried = race(model, 0, n_starts)
        best, logliks, notes = tried.best, tried.logliks, []
        if self.on_degenerate == "restart" and is_random:
            for attempt in range(degeneracy.MAX_RESTARTS if best is None else 0):
                tried = race(model, n_starts + attempt, 1)
                best, logliks = tried.best, np.append(logliks, tried.logliks)
                if best is not None:
                    break
        elif self.on_degenerate == "floor" and best is None:
            for floored in degeneracy.floored(model, fitted.rows):
                again = race(floored, 0, n_starts)
                if again.best is not None:
                    best, logliks = again.best, again.logliks
                    notes = [f"the fit was done anew with {floored.family!r}: {tried.failure}"]
                    break
        elif self.on_degenerate == "drop" and (end := best or tried.last) is not None:
            with suppress(DegenerateError):  # that of the last component, or of what they share, is the race's too
                best, notes = degeneracy.dropped(
                    model, fitted.rows, end, lambda model, params: self._run(model, fitted, params, self.max_iter)
                )
        if best is None:
            raise ValueError(f"{self._failed} ({tried.failure})") from tried.failure
        self.dropped_ = self._n_weights - len(best.params.weights)
        self.degeneracy_ = "; ".join(notes)
        if notes:
            warn(f"on_degenerate={self.on_degenerate!r}: {self.degeneracy_}", ConvergenceWarning)
        return best, logliks

    def _race(
        self,
        model: Mixture[Any],
        fitted: Collapsed,
        starts: Iterable[MixtureParams | DegenerateError],
        is_spurious: Callable[[MixtureParams], bool] | None = None,
    ) -> _Race:
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
            [None if isinstance(start, DegenerateError) else start for start in begun],
            run,
            self.max_iter,
            is_spurious,
            SAME * total_weight(fitted.rows),
        )
        last = ends[0] if ends else None
        failure = errors[-1] if errors else None
        if best is None and last is not None:
            failure = degeneracy.reason(model, fitted.rows, last.params)
        return _Race(best, logliks, last, failure)

    def _run(self, model: Mixture[Any], fitted: Collapsed, start: MixtureParams, max_iter: int) -> EMResult:
        return self._run_em(model, fitted[0], start, max_iter, fitted[1])

    def _set_result(self, result: EMResult, total_weight: float) -> None:
        self.weights_ = result.params.weights
        self._set_components(result.params.components)
        is_unfinished = keep_outcome(self, result)
        per_weight = result.objective_trace[: result.n_iter + 1] / total_weight
        self.lower_bound_ = float(per_weight[-1])
        self.lower_bounds_ = per_weight[1:].tolist()
        if is_unfinished:
            warn(
                "Best performing initialization did not converge. Try different init parameters, or increase "
                f"max_iter, tol, or check for degenerate data. (n_iter={self.n_iter_}; {result.status})",
                ConvergenceWarning,
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

    def after(self, sampled: _Race, rows: Rows, sample: Rows) -> _Race:
        """Return this race of the winner on all rows, with the log-likelihoods of one on a sample, scaled to all."""
        assert sampled.best is not None
        is_best = sampled.logliks == sampled.best.loglik
        scaled = sampled.logliks * (total_weight(rows) / total_weight(sample))
        return self._replace(logliks=np.where(is_best, self.logliks[0], scaled))


@dataclass(eq=False, repr=False, kw_only=True)
class MixtureEstimator(FittingEstimator):
    """Base of the estimators of one family, whose first argument is the number of components."""

    n_components: int = field(default=2, kw_only=False)
