"""Mixtures of multivariate Student t components: clusters with outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from lvm import _checks, initialize
from lvm._jit import Array
from lvm.estimators.base import MixtureEstimator
from lvm.estimators.documentation import documented
from lvm.estimators.gaussian import check_spread
from lvm.families.student_t import StudentT
from lvm.families.student_t_diag import DiagStudentT
from lvm.families.student_t_full import FullStudentT
from lvm.marginals import means_and_deviations
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows

STRUCTURES: dict[str, type[StudentT]] = {"full": FullStudentT, "diag": DiagStudentT}
# A start leaves out rows whose neighbours are FURTHER times as far off as those of the median row and more, at most
# MOST_LEFT_OUT of all; in few dimensions, where small clusters have far neighbours too, those SPARSER times as lonely.
FURTHER = 3.0
SPARSER = 100.0
MOST_LEFT_OUT = 0.1
# Distances are those to the tenth neighbour among so many rows, or to a nearer one among fewer: no cluster with a
# fiftieth of the rows is without neighbours.
MOST_NEIGHBOURS = 10
MOST_COMPARED = 1000


def _crowded(X: Array, rng: np.random.RandomState) -> NDArray[np.bool_]:
    """Return which rows of X (n, d) have others near, as a mask (n,): k-means would follow the outliers."""
    n, d = X.shape
    scale = np.subtract(*np.percentile(X, [75, 25], axis=0))
    scaled = X / np.where(scale > 0, scale, 1.0)
    compared = scaled if n <= MOST_COMPARED else scaled[rng.choice(n, MOST_COMPARED, replace=False)]
    number = min(MOST_NEIGHBOURS, 1 + len(compared) // 50, len(compared) - 1)
    distance = NearestNeighbors(n_neighbors=number + 1, algorithm="brute").fit(compared).kneighbors(scaled)[0][:, -1]
    far = max(FURTHER, SPARSER ** (1 / d)) * np.median(distance)
    return np.asarray(distance <= max(far, np.quantile(distance, 1 - MOST_LEFT_OUT)))


@final
@documented
@dataclass(eq=False, repr=False, kw_only=True)
class StudentTMixture(MixtureEstimator):
    """Mixture of multivariate Student t components, whose heavy tails take up outliers.

    Starts by `init_params` leave the loneliest rows out, at most a tenth of them, and EM runs on all.

    Parameters
    ----------
    n_components : int
        Number of components.
    covariance_type : {"full", "diag"}
        A scatter matrix per component; or a scatter per component and feature.
    degrees_of_freedom : {"separate", "common"} or float
        One for each component, or one for all of them, estimated between 0.1 and 1,000; or a number that stays. The
        lower, the heavier the tails.
    reg_covar : float
        Added to the diagonal of every scatter, in squared units of the data; keeps components from collapsing. 0 is
        maximum likelihood.
    means_init : array-like of shape (n_components, d), optional
        Starting means; rows are assigned to the nearest for the parameters not given.
    scatters_init : array-like, optional
        Starting scatters, in the shape of `scatters_`.
    degrees_of_freedom_init : array-like of shape (n_components,), optional
        Starting degrees of freedom.
    <fitting parameters>

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Mixing weights.
    means_ : ndarray of shape (n_components, d)
        Locations: means, where there are more than 1 degrees of freedom.
    scatters_ : ndarray of shape (n_components, d, d) or (n_components, d)
        Scatter matrices for "full", their diagonals for "diag".
    degrees_of_freedom_ : ndarray of shape (n_components,)
        Degrees of freedom nu; at 1,000 a component is as good as Gaussian.
    covariances_ : ndarray, in the shape of `scatters_`
        Covariances, scatter * nu / (nu - 2); NaN in components with nu <= 2, which have none.
    <fitted attributes>

    References
    ----------
    Peel & McLachlan (2000), "Robust mixture modelling using the t distribution", Statistics and Computing 10.

    Examples
    --------
    >>> import lvm, numpy as np
    >>> X = lvm.datasets.load_faithful().data
    >>> X = np.concatenate([X, [[30.0, 500.0], [-20.0, -300.0], [40.0, 100.0]]])  # three gross errors
    >>> mixture = lvm.StudentTMixture(2, random_state=0).fit(X)
    >>> sorted(mixture.means_.round(1).tolist())
    [[2.0, 53.9], [4.3, 80.1]]
    >>> bool((mixture.robustness_weights(X)[-3:] < 0.01).all())
    True
    """

    _min_rows = 2

    covariance_type: str = "full"
    degrees_of_freedom: str | float = "separate"
    reg_covar: float = 1e-6
    means_init: ArrayLike | None = None
    scatters_init: ArrayLike | None = None
    degrees_of_freedom_init: ArrayLike | None = None

    @property
    def _family_type(self) -> type[StudentT]:
        return STRUCTURES[_checks.choice("covariance_type", self.covariance_type, list(STRUCTURES))]

    def _described(self, columns: Sequence[int]) -> tuple[str, list[list[str]]]:
        return "mean (scale)", means_and_deviations(self, columns)

    def _family(self, X: Any = None, weight: Array | None = None) -> StudentT:
        return self._family_type(self.degrees_of_freedom, self.reg_covar, self._held())

    def _start_centres(self) -> Array | None:
        means = self._given()["means"]
        return None if np.isnan(means).any() else means

    def _check_data(self, rows: Rows) -> None:
        check_spread(rows, self.n_components, self.reg_covar)

    def _start(
        self, model: Mixture[Any], X: Any, rows: Rows, rng: np.random.RandomState, given: dict[str, Array]
    ) -> MixtureParams:
        if isinstance(self.init_params, str):
            index = initialize.subsample(rows, rng)
            chosen = np.arange(len(rows.X)) if index is None else index
            if rows.weight is not None:
                chosen = chosen[rows.weight[chosen] > 0]
            kept = _crowded(rows.X[chosen], rng)
            if rows.labels is not None:
                kept |= rows.labels[chosen] >= 0 if rows.labels.ndim == 1 else ~rows.labels[chosen].all(axis=1)
            if np.count_nonzero(kept) >= self.n_components:
                chosen = chosen[kept]
            weight, labels = (None if part is None else part[chosen] for part in rows[1:3])
            X, rows = X[chosen], model.canonical(Rows(rows.X[chosen], weight, labels))
        return super()._start(model, X, rows, rng, given)

    def _inside(self, name: str, value: Any) -> Array:
        array = np.asarray(value, np.float64)
        if name == "scatters" and array.ndim != len(self._parameters()[name]):
            raise ValueError(
                f"scatters_ has shape {array.shape}, which is not that of covariance_type={self.covariance_type!r}; "
                "fit again after a change of covariance_type."
            )
        return array

    @property
    def covariances_(self) -> Array:
        """Covariances, in the shape of `scatters_`; NaN in components with 2 degrees of freedom or fewer."""
        nu = self.degrees_of_freedom_
        factor = np.divide(nu, nu - 2, out=np.full(len(nu), np.nan), where=nu > 2)
        return np.asarray(self.scatters_ * factor.reshape(-1, *(1,) * (self.scatters_.ndim - 1)))

    def robustness_weights(self, X: ArrayLike) -> Array:
        """Return how much each row counts: near 1 or above amid a component, near 0 for an outlier.

        A row of component k is normal with the precision u / scatter_k, where u has a gamma distribution. This is the
        posterior mean of u, sum_k r_ik (nu_k + d) / (nu_k + delta_ik), delta_ik the squared distance of row i from
        mean k in units of the scatter: the weight of the row in the means and scatters, beside r_ik.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Observations.

        Returns
        -------
        ndarray of shape (n,)
            Posterior means, > 0, at most max_k (nu_k + d) / nu_k.

        References
        ----------
        Peel & McLachlan (2000), "Robust mixture modelling using the t distribution", section 4.
        """
        model, rows, params = self._fitted(X)
        resp = model.responsibilities(rows, params)
        weights = np.zeros(len(rows.X))
        for r, mean, _, nu, factor in zip(resp.T, *params.components, strict=True):
            centred = rows.X - mean
            units = centred @ factor.T if factor.ndim == 2 else centred * factor
            weights += r * ((nu + len(mean)) / (nu + np.square(units).sum(axis=1)))
        return weights
