"""Mixtures whose components are probabilities of features: Bernoulli and multinomial."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.preprocessing import binarize, normalize

from lvm import _checks
from lvm.collapse import Collapsed, collapse
from lvm.estimators.base import MixtureEstimator
from lvm.families.bernoulli import Bernoulli
from lvm.families.multinomial import Multinomial
from lvm.protocol import Rows, SparseRows


class _ProbabilityMixture(MixtureEstimator):
    """Base of the estimators whose only component parameter is `probabilities_`."""

    _accept_sparse = True
    _is_discrete = True
    _sum_to_one = False

    def __init__(
        self,
        n_components: int = 2,
        *,
        alpha: float = 1.0,
        tol: float = 1e-7,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: str | ArrayLike = "kmeans",
        weights_init: ArrayLike | None = None,
        probabilities_init: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        n_jobs: int | None = None,
        acceleration: str | None = None,
        deduplicate: bool | str = "auto",
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.probabilities_init = probabilities_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.n_jobs = n_jobs
        self.acceleration = acceleration
        self.deduplicate = deduplicate

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.deduplicate, (bool, np.bool_)) and self.deduplicate != "auto":
            raise ValueError(f"deduplicate must be True, False or 'auto', got {self.deduplicate!r}.")

    def _collapsed(self, rows: Rows) -> Collapsed:
        return collapse(rows, self.deduplicate)

    def _check_start(self, n_features: int) -> None:
        self._explicit_components(None, n_features)
        if self.weights_init is not None:
            _checks.start_weights(self.weights_init, self.n_components)

    def _explicit_components(self, components: Any | None, n_features: int) -> Any | None:
        if self.probabilities_init is None:
            return components
        shape = (self.n_components, n_features)
        return self._family().params(_checks.start_probabilities(self.probabilities_init, shape, self._sum_to_one))

    def _set_components(self, components: Any) -> None:
        self.probabilities_ = np.ascontiguousarray(components.probabilities)

    def _get_components(self) -> Any:
        return self._family().params(self.probabilities_)


@final
class BernoulliMixture(_ProbabilityMixture):
    """Mixture of independent binary features, fitted by expectation-maximisation: latent class analysis.

    X holds zeros and ones, as bool, integers, floats or a scipy sparse matrix; see `binarize` for other values.

    Parameters
    ----------
    n_components : int
        Number of components.
    alpha : float
        Both parameters of a symmetric Beta prior on each probability, >= 1: 1 is maximum likelihood, 2 adds one
        1 and one 0 per feature and component.
    tol : float
        EM has converged when an iteration gains less than this, in nats per row. 0 runs exactly `max_iter`
        iterations.
    max_iter : int
        Largest number of iterations.
    n_init : int
        Number of starts. All run a few iterations, the better half goes on, until the best is left.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"} or array-like
        How the start assigns rows to components; or labels (n,), -1 for unknown; or responsibilities
        (n, n_components).
    weights_init : array-like of shape (n_components,), optional
        Starting weights.
    probabilities_init : array-like of shape (n_components, d), optional
        Starting probabilities.
    random_state : int, RandomState instance or None
        Seed of the starts and of `sample`.
    warm_start : bool
        Whether `fit` starts from the parameters of the last fit.
    verbose : int
        0 is silent, 1 reports iterations, 2 also their gain and time.
    verbose_interval : int
        Iterations between reports.
    n_jobs : int, optional
        Number of threads; None means every core. The result does not depend on it.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations, which saves most of them where EM is slow; None is plain EM.
    deduplicate : bool or "auto"
        Whether EM runs on the distinct rows, weighted by how often each occurs, to the same result. "auto" does so
        where a sample of the rows says that it pays.
    binarize : float, optional
        Values above this threshold count as 1, others as 0. None refuses all values but 0 and 1.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    probabilities_ : ndarray of shape (n_components, d)
        Probability of a 1.
    loglik_ : float
        Log-likelihood of the data at the fitted parameters, in nats.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        What EM climbs, from the start on: the log-likelihood, plus the log prior where alpha > 1.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations of the best start.
    restarts_ : ndarray of shape (n_init,)
        Log-likelihood that each start reached, the best at its end, others where they were left.
    lower_bound_ : float
        What EM climbs, at the fitted parameters, per unit of row weight.
    lower_bounds_ : list of float
        The same after each iteration.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any.

    References
    ----------
    Bishop (2006), "Pattern Recognition and Machine Learning", section 9.3.3.

    Examples
    --------
    >>> import lvm
    >>> answers = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1]]
    >>> mixture = lvm.BernoulliMixture(2, alpha=1.1, random_state=0).fit(answers)
    >>> mixture.predict(answers)
    array([1, 1, 1, 0, 0, 0])
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        alpha: float = 1.0,
        tol: float = 1e-7,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: str | ArrayLike = "kmeans",
        weights_init: ArrayLike | None = None,
        probabilities_init: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        n_jobs: int | None = None,
        acceleration: str | None = None,
        deduplicate: bool | str = "auto",
        binarize: float | None = None,
    ) -> None:
        super().__init__(
            n_components,
            alpha=alpha,
            tol=tol,
            max_iter=max_iter,
            n_init=n_init,
            init_params=init_params,
            weights_init=weights_init,
            probabilities_init=probabilities_init,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
            verbose_interval=verbose_interval,
            n_jobs=n_jobs,
            acceleration=acceleration,
            deduplicate=deduplicate,
        )
        self.binarize = binarize

    def _validate(self, X: Any, reset: bool) -> Any:
        X = super()._validate(X, reset)
        if self.binarize is not None:
            return binarize(X, threshold=_checks.real("binarize", self.binarize, 0.0))
        _checks.binary(X, getattr(self, "feature_names_in_", None))
        return X

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # scikit-learn's checks feed arbitrary numbers, which is refused by default; with binarize=0 all of them run.
        tags._skip_test = self.binarize is None
        return tags

    def _family(self, X: Any = None, weight: Any = None) -> Bernoulli:
        return Bernoulli(self.alpha)

    def _features(self, X: Any) -> Any:
        return X.astype(np.float64)


@final
class MultinomialMixture(_ProbabilityMixture):
    """Mixture of multinomial counts, fitted by expectation-maximisation: for words of texts, or choices of people.

    X holds counts >= 0, dense or as a scipy sparse matrix, which is never made dense. The total of a row is given,
    not modelled. Fractional counts are taken as they are, as in scikit-learn's `MultinomialNB`.

    Parameters
    ----------
    n_components : int
        Number of components.
    alpha : float
        Parameter of a symmetric Dirichlet prior on the probabilities, >= 1: 1 is maximum likelihood, 2 adds one to
        every count.
    tol : float
        EM has converged when an iteration gains less than this, in nats per row. 0 runs exactly `max_iter`
        iterations.
    max_iter : int
        Largest number of iterations.
    n_init : int
        Number of starts. All run a few iterations, the better half goes on, until the best is left.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"} or array-like
        How the start assigns rows to components; or labels (n,), -1 for unknown; or responsibilities
        (n, n_components).
    weights_init : array-like of shape (n_components,), optional
        Starting weights.
    probabilities_init : array-like of shape (n_components, d), optional
        Starting probabilities.
    random_state : int, RandomState instance or None
        Seed of the starts and of `sample`.
    warm_start : bool
        Whether `fit` starts from the parameters of the last fit.
    verbose : int
        0 is silent, 1 reports iterations, 2 also their gain and time.
    verbose_interval : int
        Iterations between reports.
    n_jobs : int, optional
        Number of threads; None means every core. The result does not depend on it.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations, which saves most of them where EM is slow; None is plain EM.
    deduplicate : bool or "auto"
        Whether EM runs on the distinct rows, weighted by how often each occurs, to the same result. "auto" does so
        where a sample of the rows says that it pays.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    probabilities_ : ndarray of shape (n_components, d)
        Probability of each cell; rows sum to 1.
    loglik_ : float
        Log-likelihood of the data at the fitted parameters, in nats.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        What EM climbs, from the start on: the log-likelihood, plus the log prior where alpha > 1.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations of the best start.
    restarts_ : ndarray of shape (n_init,)
        Log-likelihood that each start reached, the best at its end, others where they were left.
    lower_bound_ : float
        What EM climbs, at the fitted parameters, per unit of row weight.
    lower_bounds_ : list of float
        The same after each iteration.
    n_trials_ : int
        Median total of the rows: the default total of those that `sample` draws.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any.

    References
    ----------
    McLachlan & Peel (2000), "Finite Mixture Models", section 5.5.

    Examples
    --------
    >>> import lvm
    >>> words = [[5, 1, 0], [4, 2, 0], [6, 0, 1], [0, 1, 5], [1, 0, 7], [0, 0, 4]]
    >>> mixture = lvm.MultinomialMixture(2, random_state=0).fit(words)
    >>> mixture.predict(words)
    array([0, 0, 0, 1, 1, 1])
    """

    _sum_to_one = True

    def _family(self, X: Any = None, weight: Any = None) -> Multinomial:
        return Multinomial(self.alpha)

    def _features(self, X: Any) -> Any:
        return normalize(X.astype(np.float64), norm="l1")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags

    def _validate(self, X: Any, reset: bool) -> Any:
        X = super()._validate(X, reset)
        _checks.counts(X, getattr(self, "feature_names_in_", None))
        return X

    def _check_data(self, rows: Rows) -> None:
        X = rows.X
        with np.errstate(over="ignore"):
            totals = X.row_sums() if isinstance(X, SparseRows) else X.sum(axis=1)
        if not np.all(np.isfinite(totals)):
            raise ValueError(f"the counts of row {np.argmin(np.isfinite(totals))} add up to infinity; scale the data.")
        self.n_trials_ = round(float(np.median(totals)))

    def sample(self, n_samples: int = 1, n_trials: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw rows of counts from the fitted mixture.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        n_trials : int, optional
            Total of each row; `n_trials_` by default.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
            Counts, in the order of their components.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        return self._sample(Multinomial(self.alpha, self.n_trials_ if n_trials is None else n_trials), n_samples)
