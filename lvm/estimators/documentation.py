"""The parts that the docstrings of all mixture estimators share, written once."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

Estimator = TypeVar("Estimator", bound=type[Any])

FITTING_PARAMETERS = """
tol : float
    EM has converged when an iteration gains less than this, in nats per row. The default stops near the
    optimum. 0 runs exactly `max_iter` iterations.
max_iter : int
    Largest number of iterations.
n_init : int or "auto"
    Number of starts. All run a few iterations, the best third goes on, until the best is left; starts that end in a
    spurious optimum rank last. "auto" is 3 n_components, at most 24, and 1 where the start is given or all are the
    same. Of more than 10,000 rows, or twice the parameters of full covariances if that is more, starts for
    continuous data see so many, drawn at random; the best goes on on all.
init_params : {"kmeans", "k-means++", "random", "random_from_data", "hierarchical", "mixed"} or array-like
    How the start assigns rows to components; or labels (n,), -1 for unknown; or responsibilities
    (n, n_components). "hierarchical" is Ward's clustering of at most 2,000 rows, columns scaled to equal variance.
    "mixed" takes in turn "kmeans", k-means in the coordinates of the principal components, all of variance 1,
    "k-means++" and "random_from_data".
weights_init : array-like of shape (n_components,), optional
    Starting weights.
weights_prior : float
    Parameter of a symmetric Dirichlet prior on the weights, >= 1: 1 is maximum likelihood, and more adds
    weights_prior - 1 rows to each component (maximum a posteriori).
equal_weights : bool
    Whether all weights are 1 / n_components.
fixed : dict of str to array-like, optional
    Parameters that the fit holds at given values, by name, such as `{"weights": [0.5, 0.5]}`; a component
    whose entries are all NaN is free.
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
on_degenerate : {"restart", "raise", "drop", "floor"}
    What becomes of a start where the likelihood of a component has no maximum, as that of a Gaussian on equal rows.
    With all but "raise", which raises `ValueError` at the first, it is out of the race. Where all starts are,
    "restart" tries up to 10 fresh ones; "drop" goes on from the last without the component that collapsed, so that
    fewer than n_components are fitted; "floor" fits anew with the smallest floor that helps, of 1e-6 times the squared
    spread of each column (its variance, or what its quartiles tell where that is less), or 1e-4, and so on. Covariances
    that are "full", "diag" or "spherical" are lifted where they lie below it, and else left alone; others have the
    least of the columns' floors added to all variances, as reg_covar is; of concentrations it bounds the inverse;
    families without such a bound fail. Where components that are left collapse on the rows of one that was dropped, as
    on a row far from all others, "drop" goes back to that one and on with a floor. It also drops components to which no
    row belongs. "drop" and "floor" warn; where nothing helps, the fit raises `ValueError`.
"""

DEDUPLICATE = """
deduplicate : bool or "auto"
    Whether EM runs on the distinct rows, weighted by how often each occurs, to the same result. "auto" does so
    where a sample of the rows says that it pays.
"""

FITTED_ATTRIBUTES = """
loglik_ : float
    Log-likelihood of the data at the fitted parameters, in nats.
objective_trace_ : ndarray of shape (n_iter_ + 1,)
    What EM climbs, from the start on: the log-likelihood, plus penalties and log priors where there are any.
status_ : Status
    How EM ended; its value is the message.
converged_ : bool
    Whether EM ended because the gain fell below `tol`.
n_iter_ : int
    Number of iterations of the best start.
restarts_ : ndarray of shape (n_init,)
    Log-likelihood that each start reached, the best at its end, others where they were left; -inf where one
    degenerated. Longer where all did, and fresh starts followed. What others reached in a race on a part of the rows is
    scaled to all of them.
dropped_ : int
    Number of components dropped; those that are left are numbered anew. The trace and n_iter_ then begin after
    the last was dropped.
degeneracy_ : str
    What `on_degenerate` did to reach this fit, component by component, and why; empty where nothing was to be done.
lower_bound_ : float
    What EM climbs, at the fitted parameters, per unit of row weight.
lower_bounds_ : list of float
    The same after each iteration.
n_features_in_ : int
    Number of features.
feature_names_in_ : ndarray of str
    Names of the columns, where X had any.
"""

SHARED = {
    "fitting parameters": FITTING_PARAMETERS,
    "deduplicate": DEDUPLICATE,
    "fitted attributes": FITTED_ATTRIBUTES,
}


def documented(estimator: Estimator) -> Estimator:
    """Put the shared parts into a class's docstring, in place of lines such as `<fitting parameters>`.

    Parameters
    ----------
    estimator : type
        The class; returned as it is, but for its docstring.
    """
    docstring = inspect.cleandoc(estimator.__doc__ or "")
    for name, text in SHARED.items():
        docstring = docstring.replace(f"<{name}>", text.strip())
    estimator.__doc__ = docstring
    return estimator
