"""Mixtures of regressions and mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.documentation import documented
from lvm.estimators.expert_checks import check_amount, check_parameters, mean_probabilities, warn_of_divergence
from lvm.estimators.expert_data import (
    GATE_DATA,
    Design,
    Response,
    check_response,
    find_design,
    find_groups,
    of_groups,
    regression_rows,
)
from lvm.estimators.expert_inference import ExpertInference
from lvm.estimators.expert_starts import given_start, random_labels, random_lines
from lvm.estimators.outcome import keep_outcome
from lvm.estimators.progress import Progress
from lvm.models.count_experts import BinomialExperts, PoissonExperts
from lvm.models.expert_rows import ExpertsRows
from lvm.models.experts import ExpertsParams, GatedExperts
from lvm.models.gates import ConstantGate, SoftmaxGate
from lvm.models.gaussian_experts import GaussianExperts
from lvm.models.multinomial_experts import MultinomialExperts
from lvm.models.newton import column_bounds
from lvm.protocol import DegenerateError
from lvm.restarts import best_of
from lvm.result import EMResult, warn

FAILED = "Fitting the mixture of regressions failed: from every start, some component's likelihood has no maximum."


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class MixtureOfExperts(ExpertInference, Progress, RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no stubs
    """Mixture of regressions, or of experts, fitted by expectation-maximisation.

    Each row, or group of rows, belongs to one of K components; each component, an expert, explains y by a regression
    on X of its own. With `gating="constant"` the components have the same probabilities for all rows, which is the
    mixture of regressions (clusterwise, switching, latent class regression); with `gating="softmax"` these follow a
    multinomial logistic regression on `gating_X`, which is the mixture of experts.

    Intercepts are always there. Inside, covariates are made orthonormal, so that their scales do not matter.

    Parameters
    ----------
    n_components : int
        Number of components K.
    expert : {"gaussian", "poisson", "binomial", "multinomial"}
        Regression of each component: linear with normal residuals; log-linear for counts, with `exposure`; logistic
        for 0 and 1, or for numbers of successes among `trials`; multinomial logistic for labels, which makes
        this a classifier.
    gating : {"constant", "softmax"}
        Whether the components' probabilities depend on covariates.
    alpha : float
        Ridge penalty >= 0 on the experts' coefficients, the intercepts excepted, of covariates with variance 1: they
        have a normal prior of variance 1 / alpha (with normal residuals scales_**2 / alpha). It allows collinear
        columns.
    gating_alpha : float
        The same for the gate's coefficients. A gate that separates the data perfectly has no maximum without it, and
        a warning says so.
    scales_prior : tuple of float, optional
        For normal residuals: as many more of them, and of that root mean square, in each component. It keeps
        components from collapsing onto a few rows that they fit exactly. None is maximum likelihood.
    equal_scales : bool
        Whether all components have the same residual standard deviation.
    weights_prior : float
        Parameter of a symmetric Dirichlet prior on constant weights, >= 1: 1 is maximum likelihood.
    tol : float
        EM has converged when an iteration gains less than this, in nats per row. 0 runs exactly `max_iter` iterations.
    max_iter : int
        Largest number of iterations.
    n_init : int
        Number of starts. All run a few iterations, the best third goes on, until the best is left.
    init_params : {"lines", "random"} or array-like
        How a start assigns rows to components: by lines through a few random rows; at random; or labels (n,), -1 for
        unknown; or responsibilities (n, n_components).
    coefficients_init : array-like, optional
        Starting coefficients, in the shape of `coefficients_`; they take the place of `init_params`, and need
        `intercepts_init`, and with normal residuals `scales_init`.
    intercepts_init : array-like, optional
        Starting intercepts.
    scales_init : array-like of shape (n_components,), optional
        Starting residual standard deviations.
    weights_init : array-like of shape (n_components,), optional
        Starting weights beside starting coefficients, equal ones by default.
    gating_coefficients_init : array-like of shape (n_components, q), optional
        Starting coefficients of a softmax gate; 0 by default.
    gating_intercepts_init : array-like of shape (n_components,), optional
        Starting intercepts of a softmax gate.
    random_state : int, RandomState instance or None
        Seed of the starts and of `sample`.
    warm_start : bool
        Whether `fit` starts from the parameters of the last fit, where they have the same shapes.
    verbose : int
        0 is silent, 1 reports iterations, 2 also their gain and time.
    verbose_interval : int
        Iterations between reports.
    n_jobs : int, optional
        Number of threads; None means every core. The result does not depend on it.
    acceleration : {"anderson"}, optional
        "anderson" extrapolates from the last iterations; None is plain EM.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights; for a softmax gate the mean probabilities over the rows of the fit.
    coefficients_ : ndarray of shape (n_components, d) or (n_components, n_classes, d)
        Of the linear predictors. Those of labels sum to 0 over the classes.
    intercepts_ : ndarray of shape (n_components,) or (n_components, n_classes)
        Of the linear predictors.
    scales_ : ndarray of shape (n_components,)
        Residual standard deviations, of normal residuals only.
    gating_coefficients_ : ndarray of shape (n_components, q)
        Of a softmax gate; they sum to 0 over the components, and only their differences matter.
    gating_intercepts_ : ndarray of shape (n_components,)
        Of a softmax gate.
    classes_ : ndarray of shape (n_classes,)
        Labels, of multinomial experts only.
    gates_apart_ : bool
        Whether the gate was fitted to covariates of its own, not to X; of a softmax gate only.
    gating_feature_names_in_ : ndarray of shape (q,)
        Names of these covariates, where they are columns of a data frame.
    loglik_ : float
        Log-likelihood of the data at the fitted parameters, in nats.
    objective_trace_ : ndarray of shape (n_iter_ + 1,)
        What EM climbs, from the start on: the log-likelihood, plus log priors where there are any.
    status_ : Status
        How EM ended; its value is the message.
    converged_ : bool
        Whether EM ended because the gain fell below `tol`.
    n_iter_ : int
        Number of iterations of the best start.
    restarts_ : ndarray of shape (n_init,)
        Log-likelihood that each start reached, the best at its end, others where they were left; -inf where one
        degenerated.
    n_features_in_ : int
        Number of covariates d.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any.

    References
    ----------
    DeSarbo & Cron (1988), "A maximum likelihood methodology for clusterwise linear regression". Jacobs, Jordan,
    Nowlan & Hinton (1991), "Adaptive mixtures of local experts". Jordan & Jacobs (1994), "Hierarchical mixtures of
    experts and the EM algorithm". Gruen & Leisch (2008), "FlexMix version 2".

    Examples
    --------
    >>> import numpy as np, lvm
    >>> x = np.linspace(0, 1, 40)
    >>> y = np.where(np.arange(40) % 2, 1 + 2 * x, 4 - 3 * x) + 0.1 * np.sin(50 * x)
    >>> mixture = lvm.MixtureOfExperts(2, random_state=0).fit(x[:, None], y)
    >>> sorted(mixture.coefficients_.round().ravel().tolist())
    [-3.0, 2.0]
    """

    n_components: int = field(default=2, kw_only=False)
    expert: str = "gaussian"
    gating: str = "constant"
    alpha: float = 0.0
    gating_alpha: float = 0.0
    scales_prior: tuple[float, float] | None = None
    equal_scales: bool = False
    weights_prior: float = 1.0
    tol: float = 1e-7
    max_iter: int = 1000
    n_init: int = 10
    init_params: Any = "lines"
    coefficients_init: Any = None
    intercepts_init: Any = None
    scales_init: Any = None
    weights_init: Any = None
    gating_coefficients_init: Any = None
    gating_intercepts_init: Any = None
    random_state: Any = None
    warm_start: bool = False
    verbose: int = 0
    verbose_interval: int = 10
    n_jobs: int | None = None
    acceleration: str | None = None

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        gating_X: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        exposure: ArrayLike | None = None,
        trials: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the mixture by expectation-maximisation.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Covariates of the experts, without a column for the intercept.
        y : array-like of shape (n,)
            Response: numbers, counts, successes, or labels.
        gating_X : array-like of shape (n, q), optional
            Covariates of a softmax gate; X by default.
        groups : array-like of shape (n,), optional
            Labels of groups whose rows belong to the same component, such as the subject of each measurement.
        exposure : array-like of shape (n,), optional
            For Poisson counts: what their means are proportional to, such as a duration; 1 by default.
        trials : array-like of shape (n,), optional
            For binomial counts: their numbers of trials; 1 by default.
        sample_weight : array-like of shape (n,), optional
            Row weights, >= 0; a row, or group, of weight 2 counts as two. Equal within groups.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If an argument is out of its range, columns are collinear, or every start degenerates.
        """
        check_parameters(self)
        before = dict(vars(self)) if self.warm_start else {}
        for name in ("scales_", "classes_", "gating_coefficients_", "gating_intercepts_", *GATE_DATA):
            if hasattr(self, name):  # of an earlier fit, maybe with other experts
                delattr(self, name)
        x, response = self._data(X, y, exposure, trials)
        n = len(x)
        weight = _checks.sample_weight(sample_weight, n)
        check_amount(self, x.shape[1], response.y if weight is None else response.y[weight > 0])
        columns = getattr(self, "feature_names_in_", None)
        shift = 0.0
        if self.expert == "gaussian":  # an offset would cost the residuals digits
            shift = float(np.average(response.y, weights=weight))
            response = response._replace(y=response.y - shift)
        design = find_design(x, weight, self.alpha > 0, "X", columns)
        inside = design.columns(x)
        gate_design, gate_columns, bounds = None, None, None
        if self.gating == "softmax":
            z = self._gating(gating_X, x, reset=True)
            gate_design, gate_columns = design, inside
            if gating_X is not None or (self.alpha > 0) != (self.gating_alpha > 0):
                names = columns if gating_X is None else None
                gate_design = find_design(z, weight, self.gating_alpha > 0, "gating_X", names)
                gate_columns = gate_design.columns(z)
            bounds = column_bounds(gate_columns)
        elif gating_X is not None:
            raise ValueError("gating_X is for gating='softmax'; leave it out with gating='constant'.")
        found = None if groups is None else find_groups(groups, n)
        data = regression_rows(inside, response, gate_columns, found)
        if found is not None and weight is not None:
            weight = of_groups(weight, found, "sample_weight")
        _checks.at_most_rows(self.n_components, len(data))
        model = GatedExperts(self._experts(column_bounds(data.design)), self._gate(bounds))
        rows = ExpertsRows(data, weight)
        order = None if found is None else found.order[found.indptr[:-1]]
        explicit = given_start(self, model, design, gate_design, shift, before)
        result, self.restarts_ = self._best_fit(model, rows, explicit, order, n)
        self._set_result(model, rows, result, design, gate_design)
        self.intercepts_ += shift
        return self

    def _data(
        self, X: ArrayLike, y: ArrayLike, exposure: ArrayLike | None, trials: ArrayLike | None
    ) -> tuple[Array, Response]:
        """Return covariates and the checked response; sets `classes_` where it consists of labels."""
        labelled = self.expert == "multinomial"
        x, values = validate_data(self, X, y, dtype=np.float64, y_numeric=not labelled, ensure_all_finite=False)
        _checks.finite(x, getattr(self, "feature_names_in_", None))
        if not labelled:
            return x, check_response(self.expert, np.asarray(values, np.float64), exposure, trials)
        check_response(self.expert, values, exposure, trials)
        check_classification_targets(values)
        self.classes_, codes = np.unique(values, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class, {self.classes_.tolist()[0]!r}; multinomial experts need two.")
        return x, Response(codes.astype(np.float64), None, None)

    def _experts(self, bounds: Array) -> Any:
        if self.expert == "gaussian":
            return GaussianExperts(self.alpha, self.scales_prior, self.equal_scales)
        if self.expert == "multinomial":
            return MultinomialExperts(bounds, len(self.classes_), self.alpha)
        return (PoissonExperts if self.expert == "poisson" else BinomialExperts)(bounds, self.alpha)

    def _gate(self, bounds: Array | None) -> Any:
        return ConstantGate(self.weights_prior) if bounds is None else SoftmaxGate(bounds, self.gating_alpha)

    def _best_fit(
        self,
        model: GatedExperts,
        rows: ExpertsRows,
        explicit: ExpertsParams | None,
        order: NDArray[np.int64] | None,
        n: int,
    ) -> tuple[EMResult, Array]:
        """Return the best fit from all starts, and the log-likelihoods that they reached.

        Given assignments are of n rows, of which `order` holds the first of each unit.
        """
        starts: list[ExpertsParams | None] = [] if explicit is None else [explicit]
        rng = check_random_state(self.random_state)
        failure: DegenerateError | None = None
        n_starts = self.n_init if isinstance(self.init_params, str) else 1
        for index in range(0 if starts else n_starts):
            self._report(f"Initialization {index}")
            try:
                labels = self._assignment(model, rows, rng, order, n)
                starts.append(model.from_assignment(rows, labels, self.n_components))
            except DegenerateError as error:
                starts.append(None)
                failure = error

        def run(start: ExpertsParams, max_iter: int) -> EMResult:
            return self._run_em(model, rows, start, max_iter, order)

        best, logliks = best_of(starts, run, self.max_iter)
        if best is None:
            reason = f" ({failure})" if failure else " Lower n_components, add data, or set scales_prior."
            raise ValueError(FAILED + reason) from failure
        return best, logliks

    def _assignment(
        self,
        model: GatedExperts,
        rows: ExpertsRows,
        rng: np.random.RandomState,
        order: NDArray[np.int64] | None,
        n: int,
    ) -> NDArray[Any]:
        """Return components, or responsibilities, of the units to start from."""
        if not isinstance(self.init_params, str):
            given = _checks.assignment(self.init_params, n, self.n_components)
            return given if order is None else given[order]
        if self.init_params == "lines":
            return random_lines(rows, model.experts, self.n_components, rng)
        return random_labels(rows, self.n_components, rng)

    def _set_result(
        self, model: GatedExperts, rows: ExpertsRows, result: EMResult, design: Design, gate_design: Design | None
    ) -> None:
        params = result.params
        self.intercepts_, self.coefficients_ = design.outside(params.experts.coefficients)
        if self.expert == "gaussian":
            self.scales_ = params.experts.scales
        if gate_design is None:
            self.weights_ = params.gate.weights
        else:
            self.gating_intercepts_, self.gating_coefficients_ = gate_design.outside(params.gate.coefficients)
            self.weights_ = mean_probabilities(model, rows, params)
        if keep_outcome(self, result):
            warn(
                f"EM did not converge; raise max_iter or tol, or look at the data. (n_iter={self.n_iter_}; "
                f"{result.status})",
                ConvergenceWarning,
            )
        warn_of_divergence(model, rows, params, self.converged_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.regressor_tags.poor_score = False
        # scikit-learn's checks read these of everything that has predict_proba.
        tags.classifier_tags = ClassifierTags(multi_class=True)
        if self.expert == "multinomial":
            tags.estimator_type, tags.regressor_tags = "classifier", None
        tags.target_tags.positive_only = self.expert in ("poisson", "binomial")
        return tags
