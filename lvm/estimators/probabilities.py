"""Mixtures whose components are probabilities of features: Bernoulli and multinomial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.preprocessing import binarize, normalize

from lvm import _checks
from lvm._jit import Array
from lvm.estimators.discrete import DiscreteMixture
from lvm.estimators.documentation import documented
from lvm.families.bernoulli import Bernoulli
from lvm.families.multinomial import Multinomial
from lvm.models.mixture import Mixture
from lvm.protocol import Rows, SparseRows


def _missing(X: Any) -> NDArray[np.bool_] | None:
    """Return which cells of a dense X (n, d) are NaN, None where none is."""
    if sparse.issparse(X) or X.dtype.kind != "f":
        return None
    missing = np.isnan(X)
    return missing if missing.any() else None


@dataclass(eq=False, repr=False, kw_only=True)
class _ProbabilityMixture(DiscreteMixture):
    """Base of the estimators whose only component parameter is `probabilities_`."""

    _accept_sparse = True
    _sum_to_one = False

    alpha: float = 1.0
    probabilities_init: ArrayLike | None = None

    def _check_value(self, name: str, array: Array) -> None:
        _checks.probabilities(array, self._sum_to_one)

    def _family(self, X: Any = None, weight: Any = None) -> Any:
        return self._family_type(self.alpha, held=self._held())


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
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
    probabilities_init : array-like of shape (n_components, d), optional
        Starting probabilities.
    <deduplicate>
    binarize : float, optional
        Values above this threshold count as 1, others as 0. None refuses all values but 0 and 1.
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    probabilities_ : ndarray of shape (n_components, d)
        Probability of a 1.
    <fitted attributes>

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

    _family_type = Bernoulli

    binarize: float | None = None

    def _validate(self, X: Any, reset: bool) -> Any:
        X = super()._validate(X, reset)
        if self.binarize is not None:
            threshold, missing = _checks.real("binarize", self.binarize, 0.0), _missing(X)
            ones = binarize(X if missing is None else np.where(missing, 0.0, X), threshold=threshold)
            return ones if missing is None else np.where(missing, np.nan, ones)
        _checks.binary(X, getattr(self, "feature_names_in_", None))
        return X

    def _described(self, columns: Sequence[int]) -> tuple[str, list[list[str]]]:
        return "probability of a 1", super()._described(columns)[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # scikit-learn's checks feed arbitrary numbers, which is refused by default; with binarize=0 all of them run.
        tags._skip_test = self.binarize is None
        return tags

    def _features(self, X: Any) -> Any:
        return X.astype(np.float64)


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
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
    probabilities_init : array-like of shape (n_components, d), optional
        Starting probabilities.
    <deduplicate>
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    probabilities_ : ndarray of shape (n_components, d)
        Probability of each cell; rows sum to 1.
    n_trials_ : int
        Median total of the rows: the default total of those that `sample` draws.
    <fitted attributes>

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

    _family_type = Multinomial
    _sum_to_one = True

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
        return self._sample(
            Mixture(Multinomial(self.alpha, self.n_trials_ if n_trials is None else n_trials)), n_samples
        )
