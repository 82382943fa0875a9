"""Mixtures of independent categorical features: latent class analysis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils.validation import check_is_fitted, validate_data

from lvm import _checks, latent_class
from lvm._jit import Array, canonical
from lvm.encoding import as_table, check_fitted, decode, encode, given_categories, most_probable
from lvm.estimators.discrete import DiscreteMixture
from lvm.estimators.documentation import documented
from lvm.families.categorical import NORMALISED, Categorical
from lvm.kernels.cells import CodedRows
from lvm.latent_class import GoodnessOfFit
from lvm.protocol import Rows


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class CategoricalMixture(DiscreteMixture):
    """Mixture of independent categorical features, fitted by expectation-maximisation: latent class analysis.

    X is a table of categories: text, numbers or booleans, as a data frame, an array or lists. None, NaN and the missing
    values of pandas mark missing cells; their factors are left out, which is maximum likelihood where cells are missing
    at random. The components are the latent classes.

    Parameters
    ----------
    n_components : int
        Number of components, the latent classes.
    alpha : float
        Parameter of a symmetric Dirichlet prior on the probabilities of each column and component, >= 1: 1 is maximum
        likelihood, and more adds alpha - 1 to every category's count (maximum a posteriori).
    probabilities_init : list of array-like of shape (n_components, c_j), optional
        Starting probabilities of the c_j categories of each column, in the order of `categories_`.
    categories : "auto" or list of list
        Categories of each column, in order. "auto" takes those that occur in a column, sorted; or in the order of a
        pandas categorical, of which those that no row has are left out, as scikit-learn's encoders do. An integer
        equals the float of its value.
    handle_unknown : {"error", "ignore"}
        Whether a category that is not in `categories_` is an error, or counts as a missing cell.
    <deduplicate>
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights: the sizes of the classes.
    probabilities_ : list of ndarray of shape (n_components, c_j)
        Probabilities of the categories of each column.
    categories_ : list of ndarray of shape (c_j,)
        Categories of each column: numbers, booleans, or text as objects.
    <fitted attributes>

    References
    ----------
    Goodman (1974), "Exploratory latent structure analysis using both identifiable and unidentifiable models",
    Biometrika 61. Linzer & Lewis (2011), "poLCA: An R package for polytomous variable latent class analysis", Journal
    of Statistical Software 42(10).

    Examples
    --------
    >>> import lvm
    >>> answers = [["yes", "often"], ["yes", "often"], ["yes", None], ["no", "never"], ["no", "rarely"], ["no", None]]
    >>> mixture = lvm.CategoricalMixture(2, alpha=1.1, random_state=0).fit(answers)
    >>> mixture.predict(answers)
    array([0, 0, 0, 1, 1, 1])
    >>> mixture.impute(answers)[2].tolist()
    ['yes', 'often']
    """

    _family_type = Categorical

    alpha: float = 1.0
    probabilities_init: Any = None
    categories: Any = "auto"
    handle_unknown: str = "error"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.string = tags.input_tags.allow_nan = True
        return tags

    # ----- the table and its codes ----------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _checks.choice("handle_unknown", self.handle_unknown, ["error", "ignore"])

    def _validate(self, X: Any, reset: bool) -> NDArray[np.int32]:
        """Return the codes of X (n, d), -1 where missing."""
        table = as_table(X)
        validate_data(self, table, reset=reset, skip_check_array=True)
        names = getattr(self, "feature_names_in_", None)
        known = self._known_categories(reset)
        codes, categories = encode(table, known, names, self.handle_unknown == "ignore")
        if reset:
            empty = np.flatnonzero((codes < 0).all(axis=0))
            if len(empty):
                name = f"{empty[0]} ({names[empty[0]]!r})" if names is not None else f"{empty[0]}"
                raise ValueError(f"column {name} of X has no observed value; remove it, it tells nothing.")
            self.categories_ = categories
        return codes

    def _known_categories(self, reset: bool) -> list[NDArray[Any]] | None:
        """Return the categories of each column, None where X is to tell; a warm start keeps those of the last fit."""
        if not reset:
            return self.categories_
        if not (isinstance(self.categories, str) and self.categories == "auto"):
            return given_categories(self.categories, self.n_features_in_, getattr(self, "feature_names_in_", None))
        is_warm = self.warm_start and len(getattr(self, "weights_", ())) == self.n_components
        return self.categories_ if is_warm and len(self.categories_) == self.n_features_in_ else None

    def _n_categories(self) -> list[int]:
        return [len(column) for column in self.categories_]

    def _column_name(self, j: int) -> str:
        names = getattr(self, "feature_names_in_", None)
        return f"column {j}" if names is None else str(names[j])

    def _features(self, X: NDArray[np.int32]) -> Any:
        """Return indicators of the categories (n, C), sparse; a missing cell is an equal share of each."""
        sizes = self._n_categories()
        first = np.cumsum([0, *sizes[:-1]])
        row, column = np.nonzero(X >= 0)
        at = first[column] + X[row, column]
        indicators = sparse.csr_matrix((np.ones(len(at)), (row, at)), shape=(len(X), sum(sizes)))
        if len(row) == X.size:
            return indicators
        shares = sparse.block_diag([np.full((1, c), 1 / c) for c in sizes], format="csr")
        return sparse.csr_matrix(indicators + sparse.csr_matrix((X < 0).astype(np.float64)) @ shares)

    # ----- parameters: a list in the attribute, side by side in the family ------------------------------------

    def _family(self, X: Any = None, weight: Array | None = None) -> Categorical:
        return Categorical(self._n_categories(), self.alpha, held=self._held())

    def _attribute_shapes(self, n_components: int) -> dict[str, Any]:
        check_fitted(getattr(self, "categories_", None), self.n_features_in_)
        return {"probabilities_": [(n_components, c) for c in self._n_categories()]}

    def _inside(self, name: str, value: Any) -> Array:
        return np.asarray(value if isinstance(value, np.ndarray) else np.concatenate(value, axis=1), np.float64)

    def _outside(self, name: str, array: Array) -> list[Array]:
        return [np.ascontiguousarray(part) for part in np.split(array, np.cumsum(self._n_categories())[:-1], axis=1)]

    def _shape(self, name: str) -> tuple[int, ...]:
        return super()._shape(name) if name == "weights" else (self.n_components, sum(self._n_categories()))

    def _started(self, name: str) -> Array | None:
        if name != "probabilities" or self.probabilities_init is None:
            return super()._started(name)
        array = self._joined(self.probabilities_init, "probabilities_init")
        return _checks.start_array(name, array, array.shape)

    def _fixed(self, name: str) -> Array | None:
        if name != "probabilities" or self.fixed is None or name not in self.fixed:
            return super()._fixed(name)
        return self._joined(self.fixed[name], "fixed['probabilities']")

    def _joined(self, value: Any, name: str) -> Array:
        """Return a list of given probabilities (K, c_j) side by side."""
        d = len(self.categories_)
        if not hasattr(value, "__len__") or len(value) != d:
            got = f"{len(value)}" if hasattr(value, "__len__") else repr(value)
            raise ValueError(
                f"{name} should be a list of {d} arrays, one for each column, of the shape (n_components, number of "
                f"categories); got {got}."
            )
        parts = [np.array(part, np.float64) for part in value]
        for j, (part, c) in enumerate(zip(parts, self._n_categories(), strict=True)):
            if part.shape != (self.n_components, c):
                raise ValueError(
                    f"{name}[{j}] should have the shape of {(self.n_components, c)}, as {self._column_name(j)!r} has "
                    f"{c} categories, but got {part.shape}."
                )
        return np.concatenate(parts, axis=1)

    def _check_value(self, name: str, array: Array) -> None:
        for j, part in enumerate(self._outside(name, array)):
            for k, p in enumerate(part):
                bad = np.flatnonzero((p < 0) | (p > 1))
                if len(bad):
                    raise ValueError(
                        f"probabilities must be within [0, 1], got {p[bad[0]]} in component {k}, category "
                        f"{self.categories_[j].tolist()[bad[0]]!r} of {self._column_name(j)!r}."
                    )
                if abs(p.sum() - 1) > NORMALISED:
                    raise ValueError(
                        f"probabilities of component {k} in {self._column_name(j)!r} sum to {p.sum()}, not 1."
                    )

    def _described(self, columns: Sequence[int]) -> tuple[str, list[list[str]]]:
        cells = [most_probable(self.probabilities_[j], self.categories_[j]) for j in columns]
        return "most probable category (its probability)", [list(row) for row in zip(*cells, strict=True)]

    # ----- what a fitted mixture tells ------------------------------------------------------------------------

    def impute(self, X: ArrayLike) -> NDArray[Any]:
        """Return the table with missing cells filled in, shape (n, d).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Categories, None or NaN where missing.

        Returns
        -------
        ndarray of shape (n, d)
            What was observed, and the most probable category of each missing cell given the row's other cells; of the
            categories' type, objects where columns are of several types.
        """
        return decode(super().impute(X).astype(np.int64), self.categories_)

    def sample_missing(self, X: ArrayLike, random_state: Any = None) -> NDArray[Any]:
        """Return the table with a draw in place of each missing cell, shape (n, d).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Categories, None or NaN where missing.
        random_state : int, RandomState or None
            Source of randomness; None takes the estimator's own.

        Returns
        -------
        ndarray of shape (n, d)
            What was observed, and a draw of the missing categories of each row given the others, from one component
            drawn by its posterior probability; of the categories' type, objects where columns are of several types.
        """
        return decode(super().sample_missing(X, random_state).astype(np.int64), self.categories_)

    def sample(self, n_samples: int = 1) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Draw rows of categories from the fitted mixture.

        Parameters
        ----------
        n_samples : int
            Number of rows.

        Returns
        -------
        X : ndarray of shape (n_samples, d)
            Categories, in the order of their components; objects where columns are of several types.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        codes, y = super().sample(n_samples)
        return decode(codes, self.categories_), y

    def goodness_of_fit(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> GoodnessOfFit:
        """Return how the classes fit the table of response patterns: G squared, Pearson's X squared, their p-values.

        Rows with missing cells enter through the parameters and the limit of the degrees of freedom only.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The categories that the mixture was fitted to.
        sample_weight : array-like of shape (n,), optional
            Row weights.

        Returns
        -------
        GoodnessOfFit
            Both statistics, the residual degrees of freedom, and the number of distinct complete rows.
        """
        model, rows, params = self._weighted(X, sample_weight, None)
        patterns, counts = latent_class.complete_patterns(rows.X.codes, rows.weight)
        logliks = model.loglik(Rows(CodedRows(canonical(patterns, np.int32))), params)
        total = float(len(rows.X) if rows.weight is None else rows.weight.sum())
        n_cells = math.prod(self._n_categories())
        return latent_class.goodness_of_fit(counts, logliks, total, n_cells, self.n_parameters())

    def entropy_r2(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the entropy R squared of the classes: 1 where every row is certain of its class, 0 where none is.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Categories.
        sample_weight : array-like of shape (n,), optional
            Row weights.
        """
        resp = self.predict_proba(X)
        return latent_class.relative_entropy(resp, _checks.sample_weight(sample_weight, len(resp)))

    def average_posteriors(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> Array:
        """Return the mean posterior probabilities of the rows assigned to each class, shape (K, K).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Categories.
        sample_weight : array-like of shape (n,), optional
            Row weights.

        Returns
        -------
        ndarray of shape (K, K)
            Row k is that of the rows whose most probable class is k, NaN where there are none; a diagonal near 1 tells
            that the classes are well separated.
        """
        resp = self.predict_proba(X)
        return latent_class.average_posteriors(resp, _checks.sample_weight(sample_weight, len(resp)))

    def profile(self) -> Any:
        """Return the profiles of the classes: the probability of each category in each class.

        Returns
        -------
        DataFrame
            A row for each feature and category, below a first row of the class sizes, and a column per component.
            Without pandas, a numpy record array of the fields feature, category, and component_0 and so on.
        """
        check_is_fitted(self)
        names = [self._column_name(j) for j in range(self.n_features_in_)]
        features = ["class size", *np.repeat(names, self._n_categories()).tolist()]
        categories = ["", *(category for column in self.categories_ for category in column.tolist())]
        table = np.column_stack([self.weights_, *self.probabilities_]).T
        classes = [f"component_{k}" for k in range(len(self.weights_))]
        try:
            import pandas as pd
        except ImportError:
            fields = [("feature", object), ("category", object), *((name, np.float64) for name in classes)]
            rows = [(*labels, *values) for *labels, values in zip(features, categories, table, strict=True)]
            return np.array(rows, dtype=fields).view(np.recarray)
        index = pd.MultiIndex.from_arrays([features, categories], names=["feature", "category"])
        return pd.DataFrame(table, index=index, columns=classes)
