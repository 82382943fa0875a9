"""scikit-learn's own checks of every estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm
from lvm.families.counts import ExposedRows

# scikit-learn's checks of a positive-only estimator give it zeros.
FEEDING_ZEROS = (
    "check_all_zero_sample_weights_error",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_readonly_memmap_input",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_not_overwritten",
    "check_sample_weights_pandas_series",
    "check_sample_weights_shape",
)


def _rounded(X: Any) -> Any:
    if isinstance(X, ExposedRows):
        return ExposedRows(_rounded(X.X), X.exposure)
    if isinstance(X, pd.DataFrame):
        return X.round()
    if sparse.issparse(X) or np.asarray(X).dtype.kind == "c":
        return X
    try:
        return np.round(np.array(X, np.float64))
    except (TypeError, ValueError):
        return X


class _Rounding:
    """What scikit-learn's checks feed are fractions; these are made counts."""

    def _validate(self, X: Any, reset: bool) -> Any:
        return super()._validate(_rounded(X), reset)  # type: ignore[misc]  # of an estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]  # of an estimator
        tags._skip_test = False
        return tags


class RoundingPoisson(_Rounding, lvm.PoissonMixture):  # type: ignore[misc]  # final
    pass


class RoundingNegativeBinomial(_Rounding, lvm.NegativeBinomialMixture):  # type: ignore[misc]  # final
    pass


def _expected_failures(estimator: Any) -> dict[str, str]:
    of_points = (lvm.GaussianMixture, lvm.MixtureModel, lvm.StudentTMixture)
    if isinstance(estimator, lvm.GaussianMixture) and estimator.covariance_type == "full":
        return {}  # the best of several starts is the same there
    if isinstance(estimator, of_points) and estimator.n_components > 1:
        # scikit-learn expects the same of its KMeans, whose seeds the start takes over draw for draw.
        return {"check_sample_weight_equivalence_on_dense_data": "k-means draws its seeds from the rows as they come"}
    if isinstance(estimator, lvm.CategoricalMixture):
        return {"check_sample_weight_equivalence_on_dense_data": "of real numbers, each is a new category"}
    if isinstance(estimator, lvm.ExponentialMixture):
        return {"check_sample_weight_equivalence_on_dense_data": "k-means draws its seeds from the rows as they come"}
    if isinstance(estimator, lvm.GammaMixture):
        return dict.fromkeys(FEEDING_ZEROS, "feeds zeros, or columns of equal values; see test_positive_mixtures.py")
    if isinstance(estimator, lvm.VonMisesFisherMixture):
        return {
            "check_sample_weight_equivalence_on_dense_data": "k-means draws its seeds from the rows as they come",
            "check_estimators_dtypes": "feeds rows of zeros, which have no direction",
        }
    return {}


@pytest.mark.filterwarnings("ignore:.*did not converge:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [
        lvm.GaussianMixture(),
        *(lvm.GaussianMixture(2, covariance_type=kind) for kind in ("full", "tied", "diag", "spherical")),
        lvm.BernoulliMixture(binarize=0.0),
        lvm.ExponentialMixture(rates_prior=(1.0, 0.1)),  # the data are few, and have zeros
        lvm.GammaMixture(),
        lvm.VonMisesFisherMixture(normalize=True, max_concentration=1e6),
        lvm.MultinomialMixture(),
        RoundingPoisson(),
        RoundingNegativeBinomial(max_iter=50),
        *(lvm.StudentTMixture(k, covariance_type=kind) for k, kind in ((1, "full"), (2, "full"), (2, "diag"))),
        lvm.CategoricalMixture(handle_unknown="ignore"),
        lvm.MixtureModel("gaussian_full"),
    ],
    expected_failed_checks=_expected_failures,
)
def test_sklearn_check(estimator: Any, check: Any) -> None:
    check(estimator)
