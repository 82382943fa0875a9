"""Item response theory: binary items that measure one latent trait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.collapse import collapse
from lvm.estimators.numbers import numeric_table
from lvm.estimators.outcome import keep_outcome
from lvm.estimators.progress import FITS
from lvm.estimators.trait_inference import TraitInference
from lvm.models.latent_trait import DISCRIMINATIONS, MAX_SLOPE, LatentTraitModel, TraitParams
from lvm.protocol import Rows
from lvm.result import warn

# Sums over nodes a distance h apart integrate a normal density of standard deviation s with a relative error of about
# 2 exp(-2 (pi s / h)**2): 2e-3 at this share of h. Between the middle ones h is near pi / sqrt(n_nodes).
NARROW = 0.6


@final
@dataclass(eq=False, repr=False, kw_only=True)
class LatentTrait(TraitInference, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # no stubs
    """Logistic item response model of binary items, fitted by expectation-maximisation.

    The log odds that a person of trait theta answers item j with 1 are discrimination_j (theta - difficulty_j), and
    theta is standard normal: the two-parameter logistic model, or with a common discrimination the Rasch model. The
    integral over theta is a sum over quadrature nodes (marginal maximum likelihood). X holds zeros and ones, one row
    per person, NaN where an answer is missing; missing answers are left out. Equal rows are fitted as one.

    Parameters
    ----------
    discrimination : {"free", "common"}
        Whether each item has a discrimination of its own, or all have the same.
    discrimination_prior : tuple of float, optional
        Mean and standard deviation of a normal prior on log discriminations, such as (0, 0.5), which keeps those of few
        data within bounds and > 0. None is maximum likelihood, where an item that mirrors the others can be of opposite
        sign, and the size is at most 20.
    n_nodes : int
        Number of quadrature nodes, at most 250. Many items tell more of a trait than few nodes can resolve: the fit
        warns where nodes are sparse.
    discrimination_init : array-like of shape (d,), optional
        Starting discriminations; 1 by default.
    difficulty_init : array-like of shape (d,), optional
        Starting difficulties; by default from the shares of ones.
    deduplicate : bool or "auto"
        Whether EM runs on the distinct rows, weighted by how often each occurs, to the same result. "auto" does so
        where a sample of the rows says that it pays.
    tol : float
        EM has converged when an iteration gains less than this, in nats per row. 0 runs exactly `max_iter` iterations.
    max_iter : int
        Largest number of iterations.
    random_state : int, RandomState instance or None
        Seed of `sample`.
    n_jobs : int, optional
        Number of threads; None means every core. The result does not depend on it.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations; None is plain EM.

    Attributes
    ----------
    discrimination_ : ndarray of shape (d,)
        Slopes of the log odds in the trait.
    difficulty_ : ndarray of shape (d,)
        Trait at which a 1 is as probable as a 0: -intercept / discrimination.
    intercept_ : ndarray of shape (d,)
        Log odds of a 1 at the trait 0.
    loglik_ : float
        Log-likelihood of the data at the fitted parameters, in nats.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        What EM climbs, from the start on: the log-likelihood, plus the log prior where there is one.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations.
    n_features_in_ : int
        Number of items.
    feature_names_in_ : ndarray of str
        Names of the items, where X had any.

    References
    ----------
    Birnbaum (1968), in Lord & Novick, "Statistical theories of mental test scores", chapter 17. Bock & Aitkin (1981),
    "Marginal maximum likelihood estimation of item parameters: application of an EM algorithm".

    Examples
    --------
    >>> import lvm, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> trait = rng.normal(size=(500, 1))
    >>> X = rng.random((500, 4)) < 1 / (1 + np.exp(-1.5 * (trait - [-1.0, 0.0, 0.5, 1.0])))
    >>> model = lvm.LatentTrait(discrimination="common").fit(X)
    >>> model.difficulty_.argsort()
    array([0, 1, 2, 3])
    >>> model.predict([[0, 0, 0, 0], [1, 1, 1, 1]]).round(0)
    array([-1.,  1.])
    """

    _mixes = False  # for saving: there are no mixing weights
    _n_features_out = 1

    discrimination: str = "free"
    discrimination_prior: tuple[float, float] | None = None
    n_nodes: int = 41
    discrimination_init: ArrayLike | None = None
    difficulty_init: ArrayLike | None = None
    deduplicate: bool | str = "auto"
    tol: float = 1e-7
    max_iter: int = 1000
    random_state: Any = None
    n_jobs: int | None = None
    acceleration: str | None = None

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit discriminations and difficulties by expectation-maximisation.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Answers, 0 or 1, NaN where missing.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights, >= 0; a row of weight 2 counts as two equal rows.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If an argument is out of its range, or all answers to an item are equal.
        """
        model = self._model()
        self._check_parameters()
        data = self._validate(X, reset=True)
        weight = _checks.sample_weight(sample_weight, data.shape[0])
        rows, _ = collapse(model.canonical(Rows(data, weight)), self.deduplicate)
        self._check_items(*model.answers(rows))
        result = FITS[self.acceleration](
            model, rows, self._start(model, rows), tol=self.tol, max_iter=self.max_iter, n_jobs=self.n_jobs
        )
        self.discrimination_, self.intercept_ = (np.array(array) for array in result.params)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.difficulty_ = -self.intercept_ / self.discrimination_
        if keep_outcome(self, result):
            warn(
                f"EM did not converge (n_iter={self.n_iter_}): {result.status}. acceleration='anderson' needs fewer.",
                ConvergenceWarning,
            )
        self._warn(model, rows, result.params)
        return self

    def predict(self, X: ArrayLike, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Return the score of each row, shape (n,): the posterior mean of its trait, with standard deviations if asked.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Answers, NaN where missing.
        return_std : bool
            Whether to return also the posterior standard deviations (n,).
        """
        model, rows, params = self._fitted(X)
        mean, deviation = model.scores(rows, params)
        return (mean, deviation) if return_std else mean

    def transform(self, X: ArrayLike) -> Array:
        """Return the scores of `predict` as a column, shape (n, 1).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Answers, NaN where missing.
        """
        model, rows, params = self._fitted(X)
        return model.scores(rows, params)[0][:, None]

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row in nats, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Answers, NaN where missing.
        """
        model, rows, params = self._fitted(X)
        return model.loglik(rows, params)

    def n_parameters(self) -> int:
        """Return the number of free parameters of the fitted model."""
        check_is_fitted(self)
        return self._model().n_parameters(self._params())

    def sample(self, n_samples: int = 1) -> NDArray[np.uint8]:
        """Draw rows of answers from the fitted model, shape (n_samples, d).

        Parameters
        ----------
        n_samples : int
            Number of rows.
        """
        check_is_fitted(self)
        _checks.integer("n_samples", n_samples, 1)
        return self._model().sample(self._params(), n_samples, check_random_state(self.random_state))[0]

    # ----- what these share -----------------------------------------------------------------------------------

    def _model(self) -> LatentTraitModel:
        prior = self.discrimination_prior
        if prior is not None:
            if np.shape(prior) != (2,):
                raise _checks.ParameterError(
                    "discrimination_prior must be a mean and a standard deviation of the log discrimination, such as "
                    f"(0, 0.5), got {prior!r}."
                )
            _checks.real("the mean of discrimination_prior", prior[0], -np.inf)
            if not _checks.real("the standard deviation of discrimination_prior", prior[1], 0.0) > 0:
                raise _checks.ParameterError("the standard deviation of discrimination_prior must be > 0, got 0.")
        _checks.choice("discrimination", self.discrimination, DISCRIMINATIONS)
        return LatentTraitModel(self.discrimination, prior, self.n_nodes)

    def _check_parameters(self) -> None:
        _checks.real("tol", self.tol, 0.0)
        _checks.integer("max_iter", self.max_iter, 0)
        if self.acceleration is not None:
            _checks.choice("acceleration", self.acceleration, ["anderson"])
        if not isinstance(self.deduplicate, (bool, np.bool_)) and self.deduplicate != "auto":
            raise _checks.ParameterError(f"deduplicate must be True, False or 'auto', got {self.deduplicate!r}.")

    def _validate(self, X: Any, reset: bool) -> Any:
        X = numeric_table(self, X, reset, accepts_missing=True, accept_sparse=True)
        _checks.binary(X, getattr(self, "feature_names_in_", None))
        return X

    def _check_items(self, answers: Array, ones: Array) -> None:
        """Refuse items that all answer alike: their difficulty is infinite."""
        for item in np.flatnonzero((ones <= 0) | (ones >= answers)):
            what = "no answer has weight" if answers[item] <= 0 else f"every answer is {int(ones[item] > 0)}"
            raise ValueError(f"item {self._name(int(item))}: {what}; remove it, it tells nothing of the trait.")

    def _name(self, item: int) -> str:
        return _checks.column_name(item, getattr(self, "feature_names_in_", None))

    def _start(self, model: LatentTraitModel, rows: Rows) -> TraitParams:
        slopes, intercepts = model.start(rows)
        if self.discrimination_init is not None:
            slopes = _checks.start_array("discrimination", self.discrimination_init, slopes.shape)
            if np.any(np.abs(slopes) > MAX_SLOPE) or (self.discrimination_prior is not None and np.any(slopes <= 0)):
                least = -MAX_SLOPE if self.discrimination_prior is None else 0
                raise ValueError(f"discrimination_init must lie within {least:g} and {MAX_SLOPE:g}, got {slopes}.")
            if self.discrimination == "common" and np.ptp(slopes) > 0:
                raise ValueError(f"discrimination='common' needs equal values in discrimination_init, got {slopes}.")
        if self.difficulty_init is not None:
            intercepts = -slopes * _checks.start_array("difficulty", self.difficulty_init, slopes.shape)
        return TraitParams(slopes, intercepts)

    def _warn(self, model: LatentTraitModel, rows: Rows, params: TraitParams) -> None:
        """Say where items do not determine the trait, discriminations are at their bound, or nodes are too sparse."""
        if self.discrimination == "free" and self.discrimination_prior is None and len(params.slopes) < 3:
            warn(
                f"{len(params.slopes)} item(s) do not determine a discrimination each: many fit equally well. It takes "
                "three; add items, or give a discrimination_prior."
            )
        extreme = np.flatnonzero(np.abs(params.slopes) >= MAX_SLOPE)
        if len(extreme):
            warn(
                f"the discrimination of item {self._name(int(extreme[0]))} is at its bound of {MAX_SLOPE:g}: the data "
                "would have it infinite; set discrimination_prior, such as (0, 0.5), or remove the item.",
            )
        narrowest = NARROW * np.pi / np.sqrt(self.n_nodes)
        weight = np.ones(len(rows.X)) if rows.weight is None else rows.weight
        typical = float(weight @ model.scores(rows, params)[1] / weight.sum())
        if typical < narrowest and not len(extreme):
            warn(
                f"answers fix the trait to a standard deviation of {typical:.3g}, finer than n_nodes={self.n_nodes} "
                f"can integrate; set n_nodes to {int((NARROW * np.pi / typical) ** 2) + 1} or more.",
            )

    def _params(self) -> TraitParams:
        return TraitParams(np.array(self.discrimination_, np.float64), np.array(self.intercept_, np.float64))

    def _fitted(self, X: Any) -> tuple[LatentTraitModel, Rows, TraitParams]:
        check_is_fitted(self)
        model = self._model()
        return model, model.canonical(Rows(self._validate(X, reset=False))), self._params()

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        """Return the shapes of the fitted arrays that predictions use."""
        d = self.n_features_in_
        return {"discrimination_": (d,), "intercept_": (d,)}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        tags._skip_test = True  # scikit-learn's checks feed arbitrary numbers; for X made binary, all of them run
        return tags
