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
    heldout_error : float
        Standard error of `heldout` over rows; NaN unless it is the criterion.
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
    heldout_error: float
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
        figures = ["loglik", "bic", "aic", "icl", *(["heldout"] if self.criterion == "heldout" else [])]
        widths = [max(len(name), 10) for name in names]
        header = [f"{name:>{width}}" for name, width in zip(names, widths, strict=True)]
        lines = ["  ".join([*header, "parameters", *(f"{name:>10}" for name in figures), "iterations"])]
        for c in self.table:
            cells = [f"{c.arguments[name]!s:>{width}}" for name, width in zip(names, widths, strict=True)]
            cells += [f"{c.n_parameters:10d}", *(f"{getattr(c, name):10.3f}" for name in figures), f"{c.n_iter:10d}"]
            lines.append("  ".join(cells) + (f"  <- best {self.criterion}" if c.estimator is self.best else ""))
        return "\n".join(lines)


def select(
    estimator: Any,
    X: ArrayLike,
    *,
    n_components: Iterable[int] | int = range(1, 7),
    criterion: str = "bic",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    exposure: ArrayLike | None = None,
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
    exposure : float or array-like of shape (n,), optional
        Exposures, for a `PoissonMixture`.
    cv : int
        Number of folds for "heldout"; rows are dealt to folds at random, by the estimator's `random_state`
        where that is an integer.
    callback : callable, optional
        Called as `callback(done, total, candidate)` after each fit.
    **arguments : any
        Further constructor arguments with the values to try as a list, tuple or range, such as
        `covariance_type=["full", "tied"]`; anything else is a single value. `covariance_type="all"` tries the
        fourteen structures of a `GaussianMixture`.

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
    if not hasattr(X, "shape"):
        array = np.asarray(X)
        X = np.asarray(X, dtype=object) if array.dtype.kind in "US" else array  # numbers beside text stay numbers
    weight = _checks.sample_weight(sample_weight, X.shape[0])
    known = None if labels is None else np.asarray(labels)
    exposures = {} if exposure is None else {"exposure": np.broadcast_to(exposure, X.shape[0])}
    numbers = list(n_components) if isinstance(n_components, Iterable) else n_components
    grid = {"n_components": numbers, **arguments}
    tried = (_values(estimator, *argument) for argument in grid.items())
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*tried)]
    if not combinations:
        raise ValueError("there is nothing to select from: an argument was given no values.")
    folds = _folds(X.shape[0], cv, estimator.random_state) if criterion == "heldout" else []
    table = []
    for chosen in combinations:
        candidate = _fit(clone(estimator).set_params(**chosen), chosen, X, weight, known, exposures, folds)
        table.append(candidate)
        if callback is not None:
            callback(len(table), len(combinations), candidate)
    best = min(table, key=lambda candidate: candidate.cost(criterion))
    if best.estimator is None or not np.isfinite(best.cost(criterion)):
        reasons = dict.fromkeys(candidate.status.removeprefix("failed: ") for candidate in table)
        raise ValueError(f"every one of the {len(table)} fits failed: {'; '.join(reasons)}")
    return Selection(best.estimator, criterion, table)


def _values(estimator: Any, name: str, values: Any) -> list[Any]:
    """Return the values of a list or range to try, or all that there are; anything else, an array too, is one value."""
    if isinstance(values, str) and values == "all":
        values = getattr(estimator, "_choices", {}).get(name, values)
    return list(values) if isinstance(values, (list, tuple, range)) else [values]


def _folds(n: int, cv: int, random_state: Any) -> list[tuple[Any, Any]]:
    _checks.integer("cv", cv, 2)
    if cv > n:
        raise ValueError(f"cv={cv} folds need at least as many rows, got {n}; lower cv.")
    seed = random_state if isinstance(random_state, int) else check_random_state(random_state).randint(2**31)
    return list(KFold(cv, shuffle=True, random_state=seed).split(np.empty(n)))


def _fit(
    estimator: Any,
    chosen: dict[str, Any],
    X: Any,
    weight: Any,
    labels: Any,
    exposures: dict[str, Any],
    folds: list[tuple[Any, Any]],
) -> Candidate:
    nan = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the table's status says so
        try:
            estimator.fit(X, sample_weight=weight, labels=labels, **exposures)
            heldout, error = _heldout(estimator, X, weight, labels, exposures, folds) if folds else (nan, nan)
        except _checks.ParameterError:
            raise
        except ValueError as reason:
            return Candidate(chosen, None, 0, nan, nan, nan, nan, nan, nan, 0, f"failed: {reason}")
    return Candidate(
        chosen,
        estimator,
        estimator.n_parameters(),
        estimator.loglik_,
        estimator.bic(X, weight, labels, **exposures),
        estimator.aic(X, weight, labels, **exposures),
        estimator.icl(X, weight, labels, **exposures),
        heldout,
        error,
        estimator.n_iter_,
        str(estimator.status_),
    )


def _take(X: Any, rows: Any) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def _heldout(
    estimator: Any, X: Any, weight: Any, labels: Any, exposures: dict[str, Any], folds: list[tuple[Any, Any]]
) -> tuple[float, float]:
    """Return the log-likelihood per unit of weight of rows held out of the fit, and its standard error."""
    each = np.empty(X.shape[0])
    for train, test in folds:
        fitted = clone(estimator)
        if np.ndim(fitted.init_params) > 0:
            fitted.set_params(init_params=np.asarray(fitted.init_params)[train])
        fitted.fit(
            _take(X, train),
            sample_weight=None if weight is None else weight[train],
            labels=None if labels is None else labels[train],
            **{name: values[train] for name, values in exposures.items()},
        )
        exposed = {name: values[test] for name, values in exposures.items()}
        each[test] = fitted.score_samples(_take(X, test), **exposed)
    share = np.ones(len(each)) if weight is None else weight
    each, share = each[share > 0], share[share > 0]
    mean = float(np.average(each, weights=share))
    if not np.isfinite(mean) or share.sum() <= 1:
        return mean, float("nan")
    return mean, float(np.sqrt(np.average((each - mean) ** 2, weights=share) / (share.sum() - 1)))
