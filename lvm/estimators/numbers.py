"""Tables of numbers as users give them: checked by scikit-learn's rules, and by ours for missing cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from lvm import _checks


def numeric_table(
    estimator: Any, X: Any, reset: bool, accepts_missing: bool, min_rows: int = 1, accept_sparse: bool = False
) -> Any:
    """Return X (n, d) as a numeric array, or CSR matrix where these are accepted, finite or NaN where missing.

    Parameters
    ----------
    estimator : BaseEstimator
        Has, or gets, the attributes `n_features_in_` and `feature_names_in_`.
    X : array-like of shape (n, d)
        None counts as a missing cell.
    reset : bool
        Whether X sets the width and the names of the columns, as in `fit`, or must have those that are set.
    accepts_missing : bool
        Whether cells may be missing; but no whole column when X resets.
    min_rows : int
        Least number of rows when X resets.
    accept_sparse : bool
        Whether X may be a sparse matrix.

    Raises
    ------
    ValueError
        Naming the cell that is no number, not finite, or missing where none may be.
    """
    if isinstance(X, (list, tuple)):
        X = np.asarray(X)  # in lists, scikit-learn would leave None as it is
    try:
        X = validate_data(
            estimator,
            X,
            reset=reset,
            accept_sparse="csr" if accept_sparse else False,
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_samples=min_rows if reset else 1,
        )
    except ValueError:
        _checks.text(X)
        raise
    names = getattr(estimator, "feature_names_in_", None)
    _checks.finite(X, names, accepts_missing)
    if reset and accepts_missing:
        _checks.no_empty_column(X, names)
    return X
