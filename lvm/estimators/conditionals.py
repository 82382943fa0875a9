"""Marginals and conditionals of a fitted Gaussian mixture, which are Gaussian mixtures themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solve_triangular
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from lvm._jit import Array
from lvm.estimators.fitted import FittedMixture
from lvm.marginals import column_numbers, feature_names, marginal_covariances, refuse_noise
from lvm.protocol import ZeroDensityError

BLOCK_ROWS = 1 << 13  # rows per block of a regression: temporaries stay small whatever the data
# Structures that marginals and conditionals keep, beside EVI, whose equal volumes do not last; others become "full".
SHARED = ("tied", "EEE")
DIAGONAL = ("diag", "EEI", "VEI", "VVI")
SPHERICAL = ("spherical", "EII", "VII")


class Regressions(NamedTuple):
    """Each component's regression of m target columns on o given ones, from one Cholesky factor [[L, 0], [C, D]].

    With z = inverse(L) (x_given - centres), the targets are normal about means + C z with covariance D D': there is
    no difference of matrices that could lose positive definiteness.

    Attributes
    ----------
    log_scales : ndarray of shape (K,)
        Log weight, less the log determinant of L.
    centres : ndarray of shape (K, o)
        Means of the given columns.
    roots : ndarray of shape (K, o, o)
        L, lower triangular.
    means : ndarray of shape (K, m)
        Means of the targets.
    slopes : ndarray of shape (K, m, o)
        C, the slopes on z.
    covariances : ndarray of shape (K, m, m)
        D D', the covariances of the targets once the others are given.
    """

    log_scales: Array
    centres: Array
    roots: Array
    means: Array
    slopes: Array
    covariances: Array

    def at(self, X: Array) -> tuple[Array, Array]:
        """Return the weights (K, n) and the means (K, n, m) of the components given the values X (n, o).

        The weights of a row are NaN where it is impossible, or overflows, under every component.
        """
        K, m = self.means.shape
        logs, means = np.empty((K, len(X))), np.empty((K, len(X), m))
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(K):
                z = solve_triangular(self.roots[k], (X - self.centres[k]).T, lower=True)
                logs[k] = self.log_scales[k] - 0.5 * np.square(z).sum(axis=0)
                means[k] = self.means[k] + (self.slopes[k] @ z).T
            logs[~(logs > -np.inf)] = -np.inf
            weights = np.exp(logs - logs.max(axis=0))
            weights /= weights.sum(axis=0)
        means[weights == 0] = 0.0  # an overflow times a weight of 0 is no number
        return weights, means


class Conditionals(FittedMixture):
    """What a fitted Gaussian mixture says of some columns, alone or given the others."""

    covariance_type: str
    reg_covar: float
    means_: Array

    def marginal(self, columns: int | str | Sequence[int | str]) -> Self:
        """Return the distribution of some columns: the fitted mixture with the others integrated out.

        Parameters
        ----------
        columns : int, str or sequence of those
            Columns to keep, by number or name, in the order wanted.

        Returns
        -------
        GaussianMixture
            It predicts, scores, samples and can be saved, but was not fitted to data: it has no `loglik_` or other
            record of a fit. Shared, diagonal and spherical covariances stay what they are, others become "full".

        Raises
        ------
        ValueError
            If a column is unknown or named twice, or there is none.

        Examples
        --------
        >>> import lvm
        >>> X = lvm.datasets.load_faithful().data
        >>> mixture = lvm.GaussianMixture(2, random_state=0).fit(X)
        >>> sorted(mixture.marginal(1).means_.round(2).tolist())
        [[54.48], [79.97]]
        """
        check_is_fitted(self)
        refuse_noise(self)
        chosen = column_numbers(self, columns)
        weights = np.array(self.weights_, np.float64)
        return self._of_columns(chosen, weights, self.means_[:, chosen], marginal_covariances(self, chosen))

    def condition(self, given: Mapping[Any, float]) -> Self:
        """Return the distribution of the other columns where some have known values.

        Component k has the weight w_k N(given; mean_k, covariance_k), normalised, and the mean and covariance of the
        regression of the other columns on the given ones under component k.

        Parameters
        ----------
        given : dict
            Values of some columns, by number or name, such as `{"width": 3.5}`.

        Returns
        -------
        GaussianMixture
            The other columns, in their order. It predicts, scores, samples and can be saved, but was not fitted to
            data: it has no `loglik_` or other record of a fit. Shared, diagonal and spherical covariances stay what
            they are, others become "full".

        Raises
        ------
        TypeError
            If `given` is no dictionary.
        ValueError
            If a column is unknown or given twice, none or all are given, or a value is not finite or has density 0
            under every component.

        References
        ----------
        Bishop (2006), "Pattern Recognition and Machine Learning", equations 2.81 and 2.82, for one component.

        Examples
        --------
        >>> import lvm
        >>> X = lvm.datasets.load_faithful().data
        >>> mixture = lvm.GaussianMixture(2, random_state=0).fit(X)
        >>> waiting = mixture.condition({0: 2.0})  # after an eruption of two minutes
        >>> waiting.means_[waiting.weights_.argmax()].round(1).tolist()
        [54.2]
        """
        check_is_fitted(self)
        if not isinstance(given, Mapping):
            raise TypeError(f"condition expects a dictionary such as {{0: 1.5}}, got {given!r}.")
        columns = column_numbers(self, list(given), "given")
        values = np.array([list(given.values())], np.float64)
        names = feature_names(self)
        for column, value in zip(columns, values[0], strict=True):
            if not np.isfinite(value):
                raise ValueError(f"given values must be finite, got {value} for {names[column]}.")
        targets = self._others(columns, "given")
        regressions = self._regressions(columns, targets)
        weights, means = regressions.at(values)
        if np.isnan(weights).any():
            shown = ", ".join(f"{names[column]} = {value:g}" for column, value in zip(columns, values[0], strict=True))
            raise ValueError(f"{shown} has density 0 (or an overflowing one) under every component; give other values.")
        return self._of_columns(targets, weights[:, 0], means[:, 0], regressions.covariances)

    def predict_conditional(
        self,
        X: ArrayLike,
        targets: int | str | Sequence[int | str] | None = None,
        *,
        return_var: bool = False,
        return_cov: bool = False,
    ) -> Any:
        """Return the mean of some columns given the others of each row: Gaussian mixture regression.

        Parameters
        ----------
        X : array-like of shape (n, d) or (n, d - m)
            Rows with all columns, whose targets are not looked at and may be NaN; or with the given columns only, in
            the order of the fit. A DataFrame's columns are found by name where the mixture was fitted to names.
        targets : int, str or sequence of those, optional
            Columns to predict, m of them, by number or name; by default those of an X with all columns that are NaN
            in every row.
        return_var : bool
            Whether to return the variances too.
        return_cov : bool
            Whether to return the covariances too.

        Returns
        -------
        mean : ndarray of shape (n, m)
            Expectations of the targets, averaged over components.
        var : ndarray of shape (n, m), if `return_var`
            Variances within components plus those between them.
        cov : ndarray of shape (n, m, m), if `return_cov`
            Covariances within components plus those between them.

        Raises
        ------
        ValueError
            If a column is unknown, none is given, a given cell is not finite, or a row has density 0 under every
            component; it names the row.

        References
        ----------
        Ghahramani & Jordan (1994), "Supervised learning from incomplete data via an EM approach", NIPS 6.

        Examples
        --------
        >>> import lvm
        >>> X = lvm.datasets.load_faithful().data
        >>> mixture = lvm.GaussianMixture(2, random_state=0).fit(X)
        >>> mean, var = mixture.predict_conditional([[2.0], [4.5]], targets=1, return_var=True)
        >>> mean.round(1).tolist(), var.round(0).tolist()
        ([[54.2], [81.1]], [[31.0], [31.0]])
        """
        check_is_fitted(self)
        if return_var and return_cov:
            raise ValueError("return_var and return_cov are both True; ask for one, variances lie on the diagonal.")
        cells, given, chosen = self._given_cells(X, targets)
        regressions = self._regressions(given, chosen)
        n, m = len(cells), len(chosen)
        mean, spread = np.empty((n, m)), np.empty((n, m, m) if return_cov else (n, m))
        for start in range(0, n, BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            weights, means = regressions.at(cells[rows])
            impossible = np.flatnonzero(np.isnan(weights[0]))
            if len(impossible):
                raise ZeroDensityError(start + int(impossible[0]))
            mean[rows] = np.einsum("kn,knm->nm", weights, means)
            if return_var or return_cov:
                spread[rows] = _total_spread(weights, means - mean[rows], regressions.covariances, return_cov)
        return (mean, spread) if return_var or return_cov else mean

    def _given_cells(self, X: Any, targets: Any) -> tuple[Array, list[int], list[int]]:
        """Return the given cells (n, o) of X, the numbers of their columns, and those of the targets."""
        d, names = self.n_features_in_, getattr(self, "feature_names_in_", None)
        chosen = None if targets is None else column_numbers(self, targets, "targets")
        if names is not None and hasattr(X, "columns"):
            needed = names if chosen is None else names[self._others(chosen, "targets")]
            lacking = [name for name in needed if name not in X.columns]
            if lacking:
                raise ValueError(f"X has no column {lacking[0]!r}; expected {', '.join(map(str, needed))}.")
            X = X[list(needed)]
        cells = check_array(X, dtype=np.float64, ensure_all_finite=False)
        if chosen is None:
            if cells.shape[1] != d:
                raise ValueError(f"X has {cells.shape[1]} columns; expected all {d}, or say which are the targets.")
            chosen = np.flatnonzero(np.isnan(cells).all(axis=0)).tolist()
            if not chosen:
                raise ValueError("no column of X is NaN in every row; say which are the targets.")
        given = self._others(chosen, "targets")
        if cells.shape[1] == d:
            cells = cells[:, given]
        elif cells.shape[1] != len(given):
            raise ValueError(f"X has {cells.shape[1]} columns; expected the {len(given)} given ones or all {d}.")
        bad = np.argwhere(~np.isfinite(cells))
        if len(bad):
            row, place = bad[0]
            name = feature_names(self)[given[place]]
            raise ValueError(
                f"given cells must be finite, got {cells[row, place]} at row {row}, {name}; make a column with missing "
                "cells a target, or leave such rows out."
            )
        return cells, given, chosen

    def _others(self, columns: Sequence[int], which: str) -> list[int]:
        others = [column for column in range(self.n_features_in_) if column not in columns]
        if not others:
            raise ValueError(f"all {self.n_features_in_} columns are {which}; leave at least one out.")
        return others

    def _regressions(self, given: list[int], targets: list[int]) -> Regressions:
        refuse_noise(self)
        o = len(given)
        whole = np.asarray(np.linalg.cholesky(marginal_covariances(self, [*given, *targets])), np.float64)
        L, slopes, rest = whole[:, :o, :o], whole[:, o:, :o], whole[:, o:, o:]
        with np.errstate(divide="ignore"):
            log_scales = np.log(self.weights_) - np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
        return Regressions(
            log_scales, self.means_[:, given], L, self.means_[:, targets], slopes, rest @ rest.swapaxes(1, 2)
        )

    def _of_columns(self, columns: list[int], weights: Array, means: Array, covariances: Array) -> Self:
        """Return a fitted mixture of some columns from weights (K,), means (K, m) and covariances (K, m, m)."""
        kind = "diag" if self.covariance_type == "EVI" else self.covariance_type
        kind = kind if kind in SHARED + DIAGONAL + SPHERICAL else "full"
        estimator: Any = type(self)
        new = estimator(len(weights), covariance_type=kind, reg_covar=self.reg_covar, random_state=self.random_state)
        new.n_features_in_ = len(columns)
        if hasattr(self, "feature_names_in_"):
            new.feature_names_in_ = self.feature_names_in_[columns]
        new.weights_ = weights
        if kind in SHARED:
            covariances = covariances[0]
        elif kind in DIAGONAL:
            covariances = np.diagonal(covariances, axis1=1, axis2=2)
        elif kind in SPHERICAL:
            covariances = covariances[:, 0, 0]
        arrays = {"means": means, "covariances": new._inside("covariances", covariances)}
        new._set_components(new._params_of(arrays))
        fitted: Self = new
        return fitted


def _total_spread(weights: Array, deviations: Array, covariances: Array, full: bool) -> Array:
    """Return the covariances (n, m, m), or variances (n, m), of a mixture by the law of total variance.

    Parameters
    ----------
    weights : ndarray of shape (K, n)
        Weights of the components in each row.
    deviations : ndarray of shape (K, n, m)
        Means of the components less that of the mixture.
    covariances : ndarray of shape (K, m, m)
        Covariances of the components.
    full : bool
        Whether to return covariances.
    """
    if full:
        between = np.einsum("kn,kni,knj->nij", weights, deviations, deviations, optimize=True)
        return np.asarray(np.tensordot(weights.T, covariances, axes=1) + between)
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    return np.asarray(weights.T @ variances + np.einsum("kn,knm->nm", weights, np.square(deviations)))
