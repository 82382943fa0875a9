"""What a fitted mixture can do: predict, score, sample, and weigh itself against others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.numbers import numeric_table
from lvm.estimators.outcome import total_loglik
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows


class FittedMixture(DensityMixin, BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no stubs
    """The methods of a mixture estimator that need no more than its fitted attributes."""

    _min_rows = 1
    _accept_sparse = False
    _is_discrete = False  # whether rows repeat, so that a start is made on the distinct ones
    _smooths_start = False  # whether values that a subsample lacks would be impossible under a start on it
    _smooths_every_start = False  # whether a parameter at the end of its range would stay there
    _family_type: Any

    random_state: Any
    weights_: Array
    n_features_in_: int

    # ----- what a subclass says -------------------------------------------------------------------------------

    @abstractmethod
    def _family(self, X: Any = None, weight: Array | None = None) -> Any:
        """Return the family that the constructor's arguments describe, for the rows X and weights where they matter."""

    def _parameters(self) -> Mapping[str, str]:
        """Return the names of the family's parameters and their axes."""
        names: Mapping[str, str] = self._family_type.parameters
        return names

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        """Return the shapes of the fitted attributes of the family's parameters."""
        lengths = {"K": n_components, "d": self.n_features_in_, "1": 1}
        return {f"{name}_": tuple(lengths[axis] for axis in axes) for name, axes in self._parameters().items()}

    def _inside(self, name: str, value: Any) -> Array:
        """Return a parameter in the family's shape from its fitted attribute."""
        return np.asarray(value)

    def _outside(self, name: str, array: Array) -> Any:
        """Return a parameter as its fitted attribute from the family's shape."""
        return np.ascontiguousarray(array)

    def _value_of(self, components: Any, name: str) -> Array:
        """Return a parameter from the family's parameters."""
        value: Array = getattr(components, name)
        return value

    def _params_of(self, arrays: Mapping[str, Array]) -> Any:
        """Return the family's parameters from each by name."""
        return self._family().params(**arrays)

    def _set_components(self, components: Any) -> None:
        """Set the fitted attributes of the family's parameters."""
        for name in self._parameters():
            setattr(self, f"{name}_", self._outside(name, self._value_of(components, name)))

    def _get_components(self) -> Any:
        """Return the family's parameters from the fitted attributes."""
        arrays = {name: self._inside(name, getattr(self, f"{name}_")) for name in self._parameters()}
        return self._params_of(arrays)

    def _validate(self, X: Any, reset: bool) -> Any:
        """Return X as a numeric array or matrix, of the fitted width unless it resets that, finite or missing."""
        return numeric_table(self, X, reset, self._accepts_missing, self._min_rows, self._accept_sparse)

    @property
    def _accepts_missing(self) -> bool:
        return bool(getattr(self._family_type, "accepts_missing", False))

    def _model(self, X: Any = None, weight: Array | None = None) -> Mixture[Any]:
        """Return the mixture of the family, for the rows X and weights where they matter."""
        return Mixture(self._family(X, weight))

    def _described(self, columns: Sequence[int]) -> tuple[str, list[list[str]]]:
        """Return what a table of the components shows in some columns, and its cells, a row for each component."""
        K, d = len(self.weights_), self.n_features_in_
        names = [name for name, axes in self._parameters().items() if len(axes) <= 2]  # others do not fit a cell
        arrays = [np.asarray(getattr(self, f"{name}_")) for name in names]
        full = [np.broadcast_to(array.reshape(len(array), -1), (K, d)) for array in arrays]
        cells = [[", ".join(f"{array[k, j]:.4g}" for array in full) for j in columns] for k in range(K)]
        one = [name.replace("_", " ").removesuffix("s").replace("probabilitie", "probability") for name in names]
        return ", ".join(one), cells

    # ----- what users call ------------------------------------------------------------------------------------

    def _get_params(self) -> MixtureParams:
        return MixtureParams(np.array(self.weights_, np.float64), self._get_components())

    def _fitted(self, X: Any) -> tuple[Mixture[Any], Rows, MixtureParams]:
        check_is_fitted(self)
        data = self._validate(X, reset=False)
        model = self._model(data)
        return model, model.canonical(Rows(data)), self._get_params()

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the posterior probability of each component for each row, shape (n, K).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.

        Returns
        -------
        ndarray of shape (n, K)
            Responsibilities; each row sums to 1.

        Raises
        ------
        ValueError
            If a row has density 0 under every component; it names the row.
        """
        model, rows, params = self._fitted(X)
        return model.responsibilities(rows, params)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the most probable component of each row, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        """
        model, rows, params = self._fitted(X)
        return model.most_probable(rows, params)

    def uncertainty(self, X: ArrayLike, **arguments: Any) -> Array:
        """Return the probability that each row belongs to another component than `predict` says, shape (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        **arguments : any
            What else `predict_proba` takes, such as exposures.

        Returns
        -------
        ndarray of shape (n,)
            1 - max_k r_ik, from 0 to 1 - 1 / K.
        """
        proba = self.predict_proba(X, **arguments)
        proba[np.arange(len(proba)), proba.argmax(axis=1)] = 0.0
        return np.asarray(proba.sum(axis=1))  # not 1 - max, which loses what is below 1e-16

    def score_samples(self, X: ArrayLike) -> Array:
        """Return the log-likelihood of each row in nats, shape (n,); -inf where the row is impossible.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        """
        model, rows, params = self._fitted(X)
        return model.loglik(rows, params)

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per row (per unit of weight), in nats.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        y : ignored
            For scikit-learn's API.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        """
        loglik, n = _total(*self._weighted(X, sample_weight, None))
        return loglik / n

    def impute(self, X: ArrayLike) -> Array:
        """Return the rows with missing cells filled in, shape (n, d).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.

        Returns
        -------
        ndarray of shape (n, d)
            Float64: what was observed, and the posterior mean of each missing cell, or the mode of a category.

        Raises
        ------
        TypeError
            If these components take no missing cells.
        """
        return self._imputed(X, X)

    def _imputed(self, X: Any, cells: ArrayLike) -> Array:
        """Return the cells (n, d) of the rows X with those missing filled in."""
        model, rows, params = self._fitted(X)
        out = np.array(self._validate(cells, reset=False), np.float64, order="C")
        model.impute(rows, params, out)
        return out

    def sample_missing(self, X: ArrayLike, random_state: Any = None) -> Array:
        """Return the rows with a draw in place of each missing cell, shape (n, d).

        Draws, unlike the means of `impute`, have the spread of the data: several tables so completed tell how far
        the missing cells make a later analysis uncertain (multiple imputation, at the fitted parameters).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations, NaN where missing.
        random_state : int, RandomState or None
            Source of randomness; None takes the estimator's own.

        Returns
        -------
        ndarray of shape (n, d)
            Float64: what was observed, and a draw of the missing cells of each row given it, from one component
            drawn by its posterior probability.

        Raises
        ------
        TypeError
            If these components cannot.

        References
        ----------
        Little & Rubin (2002), "Statistical Analysis with Missing Data", chapter 5.
        """
        return self._drawn(X, X, random_state)

    def _drawn(self, X: Any, cells: ArrayLike, random_state: Any) -> Array:
        """Return the cells (n, d) of the rows X with a draw in place of those missing."""
        model, rows, params = self._fitted(X)
        out = np.array(self._validate(cells, reset=False), np.float64, order="C")
        rng = check_random_state(self.random_state if random_state is None else random_state)
        model.sample_missing(rows, params, rng, out)
        return out

    def sample(self, n_samples: int = 1) -> tuple[Any, NDArray[np.int64]]:
        """Draw rows from the fitted mixture.

        Parameters
        ----------
        n_samples : int
            Number of rows.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
            Rows, in the order of their components.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        return self._sample(self._model(), n_samples)

    def _sample(self, model: Mixture[Any], n_samples: int) -> tuple[Any, NDArray[np.int64]]:
        rng = self._generator(n_samples)
        return model.sample(self._get_params(), n_samples, rng)

    def _generator(self, n_samples: int) -> np.random.RandomState:
        """Return the source of randomness to draw rows with."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one sample.")
        rng: np.random.RandomState = check_random_state(self.random_state)
        return rng

    def n_parameters(self) -> int:
        """Return the number of free parameters of the fitted mixture."""
        check_is_fitted(self)
        return self._model().n_parameters(self._get_params())

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None, labels: ArrayLike | None = None) -> float:
        """Return Akaike's information criterion, -2 loglik + 2 n_parameters: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        labels : array-like of shape (n,) or (n, K), optional
            Known components, -1 where unknown, or a mask of the possible ones: the likelihood is then the one in
            which they are known.
        """
        return -2 * _total(*self._weighted(X, sample_weight, labels))[0] + 2 * self.n_parameters()

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None, labels: ArrayLike | None = None) -> float:
        """Return the Bayesian information criterion, -2 loglik + n_parameters log n: the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights; n is then their sum.
        labels : array-like of shape (n,) or (n, K), optional
            Known components, -1 where unknown, or a mask of the possible ones: the likelihood is then the one in
            which they are known.

        References
        ----------
        Schwarz (1978), "Estimating the dimension of a model". mclust's BIC is the negative of this one.
        """
        return _bic(*self._weighted(X, sample_weight, labels))

    def icl(self, X: ArrayLike, sample_weight: ArrayLike | None = None, labels: ArrayLike | None = None) -> float:
        """Return the integrated completed likelihood criterion: BIC - 2 sum log max_k r_ik; the lower the better.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        labels : array-like of shape (n,) or (n, K), optional
            Known components, -1 where unknown, or a mask of the possible ones: the likelihood is then the one in
            which they are known.

        References
        ----------
        Biernacki, Celeux & Govaert (2000), "Assessing a mixture model for clustering with the integrated
        completed likelihood". mclust's ICL is the negative of this one.
        """
        model, rows, params = self._weighted(X, sample_weight, labels)
        return _bic(model, rows, params) - 2 * model.classification_loglik(rows, params)

    def _weighted(
        self, X: ArrayLike, sample_weight: ArrayLike | None, labels: ArrayLike | None
    ) -> tuple[Mixture[Any], Rows, MixtureParams]:
        model, rows, params = self._fitted(X)
        n = len(rows.X)
        weight, known = _checks.sample_weight(sample_weight, n), _checks.labels(labels, n, len(params.weights))
        return model, rows._replace(weight=weight, labels=known), params


def _bic(model: Mixture[Any], rows: Rows, params: MixtureParams) -> float:
    loglik, n = _total(model, rows, params)
    return -2 * loglik + model.n_parameters(params) * float(np.log(n))


def _total(model: Mixture[Any], rows: Rows, params: MixtureParams) -> tuple[float, float]:
    """Return the log-likelihood of all rows and their total weight."""
    return total_loglik(model.loglik(rows, params), rows.weight)
