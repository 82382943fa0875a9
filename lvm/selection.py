"""Choose the number of components, and any other argument, by a criterion over a table of fits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state, indexable

from lvm import _checks

CRITERIA = ("bic", "aic", "icl", "heldout")


class Candidate(NamedTuple):
    """One fit of a selection.

    Attributes
    ----------
    arguments : dict
        The constructor's arguments that were varied.
    estimator : estimator or None
        The fitted estimator; None where the fit failed.
    n_parameters : int
        Number of free parameters; 0 where the fit failed.
    loglik : float
        Log-likelihood of the data, in nats.
    bic, aic, icl : float
        Information criteria, the lower the better; NaN where the fit failed.
    heldout : float
        Cross-validated log-likelihood per row, the higher the better; NaN unless it is the criterion.
    n_iter : int
        Number of EM iterations.
    status : str
        How EM ended, or why the fit failed.
    """

    arguments: dict[str, Any]
    estimator: Any
    n_parameters: int
    loglik: float
    bic: float
    aic: float
    icl: float
    heldout: float
    n_iter: int
    status: str

    def cost(self, criterion: str) -> float:
        """Return the criterion with the sign for which lower is better; inf where it is unknown."""
        value = -self.heldout if criterion == "heldout" else getattr(self, criterion)
        return float("inf") if np.isnan(value) else float(value)


class Selection(NamedTuple):
    """Outcome of `select`.

    Attributes
    ----------
    best : estimator
        The fitted estimator of the best candidate.
    criterion : str
        What "best" means.
    table : list of Candidate
        Every fit, in the order tried.
    """

    best: Any
    criterion: str
    table: list[Candidate]

    def to_frame(self) -> Any:
        """Return the table as a pandas DataFrame, one row per fit (needs pandas)."""
        import pandas as pd

        rows = []
        for candidate in self.table:
            fields = candidate._asdict()
            del fields["estimator"]
            rows.append({**fields.pop("arguments"), **fields})
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        names = list(self.table[0].arguments)
        columns = (*names, "parameters", "loglik", "bic", "aic", "icl", "heldout", "iterations")
        lines = ["  ".join(f"{name:>12}" for name in columns)]
        for c in self.table:
            numbers = "  ".join(f"{value:12.3f}" for value in (c.loglik, c.bic, c.aic, c.icl, c.heldout))
            varied = "  ".join(f"{c.arguments[name]!s:>12}" for name in names)
            mark = f"  <- best {self.criterion}" if c.estimator is self.best else ""
            lines.append(f"{varied}  {c.n_parameters:12d}  {numbers}  {c.n_iter:12d}{mark}")
        return "\n".join(lines)


def select(
    estimator: Any,
    X: ArrayLike,
    *,
    n_components: Iterable[int] | int = range(1, 7),
    criterion: str = "bic",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    cv: int = 5,
    callback: Callable[[int, int, Candidate], None] | None = None,
    **arguments: Any,
) -> Selection:
    """Fit a mixture for every combination of arguments and choose the best.

    Parameters
    ----------
    estimator : estimator
        A mixture; it is cloned, not changed.
    X : array-like of shape (n, d)
        Observations.
    n_components : int or iterable of int
        Numbers of components to try.
    criterion : {"bic", "aic", "icl", "heldout"}
        An information criterion, or the log-likelihood of rows held out by cross-validation.
    sample_weight : array-like of shape (n,), optional
        Row weights.
    labels : array-like of shape (n,), optional
        Known components, -1 where unknown. The information criteria are then of the likelihood that includes them;
        "heldout" scores rows as if they were unlabelled.
    cv : int
        Number of folds for "heldout"; rows are dealt to folds at random, by the estimator's `random_state`
        where that is an integer.
    callback : callable, optional
        Called as `callback(done, total, candidate)` after each fit.
    **arguments : any or iterable
        Further constructor arguments with the values to try, such as `covariance_type=["full", "tied"]`;
        a string or number is a single value.

    Returns
    -------
    Selection
        The best estimator and the table of all fits. A fit that fails, because a component collapses, say,
        stays in the table with its reason.

    Raises
    ------
    ValueError
        If the criterion is unknown or every fit fails.

    Examples
    --------
    >>> import lvm
    >>> X = lvm.datasets.load_faithful().data
    >>> found = lvm.select(lvm.GaussianMixture(random_state=0), X, covariance_type=["full", "tied"])
    >>> found.best.n_components, found.best.covariance_type
    (3, 'tied')
    """
    _checks.choice("criterion", criterion, CRITERIA)
    (X,) = indexable(X)
    X = X if hasattr(X, "shape") else np.asarray(X)
    weight = _checks.sample_weight(sample_weight, X.shape[0])
    known = None if labels is None else np.asarray(labels)
    grid = {"n_components": n_components, **arguments}
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*map(_values, grid.values()))]
    if not combinations:
        raise ValueError("there is nothing to select from: an argument was given no values.")
    folds = _folds(X.shape[0], cv, estimator.random_state) if criterion == "heldout" else []
    table = []
    for chosen in combinations:
        candidate = _fit(clone(estimator).set_params(**chosen), chosen, X, weight, known, folds)
        table.append(candidate)
        if callback is not None:
            callback(len(table), len(combinations), candidate)
    best = min(table, key=lambda candidate: candidate.cost(criterion))
    if best.estimator is None or not np.isfinite(best.cost(criterion)):
        raise ValueError(f"every one of the {len(table)} fits failed; the first: {table[0].status}")
    return Selection(best.estimator, criterion, table)


def _values(values: Any) -> list[Any]:
    return [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)


def _folds(n: int, cv: int, random_state: Any) -> list[tuple[Any, Any]]:
    _checks.integer("cv", cv, 2)
    if cv > n:
        raise ValueError(f"cv={cv} folds need at least as many rows, got {n}; lower cv.")
    seed = random_state if isinstance(random_state, int) else check_random_state(random_state).randint(2**31)
    return list(KFold(cv, shuffle=True, random_state=seed).split(np.empty(n)))


def _fit(
    estimator: Any, chosen: dict[str, Any], X: Any, weight: Any, labels: Any, folds: list[tuple[Any, Any]]
) -> Candidate:
    nan = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the table's status says so
        try:
            estimator.fit(X, sample_weight=weight, labels=labels)
            heldout = _heldout(estimator, X, weight, labels, folds) if folds else nan
        except _checks.ParameterError:
            raise
        except ValueError as error:
            return Candidate(chosen, None, 0, nan, nan, nan, nan, nan, 0, f"failed: {error}")
    return Candidate(
        chosen,
        estimator,
        estimator.n_parameters(),
        estimator.loglik_,
        *_criteria(estimator, X, weight, labels),
        heldout,
        estimator.n_iter_,
        str(estimator.status_),
    )


def _criteria(estimator: Any, X: Any, weight: Any, labels: Any) -> tuple[float, float, float]:
    """Return BIC, AIC and ICL; with labels, of the likelihood in which they are known."""
    if labels is None:
        return estimator.bic(X, weight), estimator.aic(X, weight), estimator.icl(X, weight)
    deviance, n_parameters = -2 * estimator.loglik_, estimator.n_parameters()
    bic = deviance + n_parameters * float(np.log(X.shape[0] if weight is None else weight.sum()))
    # A labelled row is assigned for certain: it adds nothing to the entropy term of ICL.
    unknown = np.flatnonzero(labels < 0)
    log_share = np.zeros(0)
    if len(unknown):
        log_share = np.log(estimator.predict_proba(_take(X, unknown)).max(axis=1))
    uncertainty = log_share.sum() if weight is None else log_share @ weight[unknown]
    return bic, deviance + 2 * n_parameters, bic - 2 * float(uncertainty)


def _take(X: Any, rows: Any) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def _heldout(estimator: Any, X: Any, weight: Any, labels: Any, folds: list[tuple[Any, Any]]) -> float:
    """Return the log-likelihood per unit of weight of rows held out of the fit."""
    total = mass = 0.0
    for train, test in folds:
        fitted = clone(estimator).fit(
            _take(X, train),
            sample_weight=None if weight is None else weight[train],
            labels=None if labels is None else labels[train],
        )
        each = fitted.score_samples(_take(X, test))
        share = np.ones(len(test)) if weight is None else weight[test]
        total += float(each[share > 0] @ share[share > 0])
        mass += float(share.sum())
    return total / mass
