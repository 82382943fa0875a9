"""scikit-learn's own checks of every estimator."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm


def _expected_failures(estimator: Any) -> dict[str, str]:
    if isinstance(estimator, lvm.GaussianMixture) and estimator.n_components > 1:
        # scikit-learn expects the same of its KMeans, whose seeds the start takes over draw for draw.
        return {"check_sample_weight_equivalence_on_dense_data": "k-means draws its seeds from the rows as they come"}
    return {}


@pytest.mark.filterwarnings("ignore:.*did not converge:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [
        lvm.GaussianMixture(),
        *(lvm.GaussianMixture(2, covariance_type=kind) for kind in ("full", "tied", "diag", "spherical")),
        lvm.BernoulliMixture(binarize=0.0),
        lvm.MultinomialMixture(),
    ],
    expected_failed_checks=_expected_failures,
)
def test_sklearn_check(estimator: Any, check: Any) -> None:
    check(estimator)
