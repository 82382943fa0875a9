"""Selection over the number of components and other arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, cross_val_score

import lvm
from lvm.selection import Candidate

X = lvm.datasets.load_faithful().data


def test_criteria_follow_their_definitions() -> None:
    mixture = lvm.GaussianMixture(3, random_state=0).fit(X)
    loglik, count = mixture.score(X) * len(X), mixture.n_parameters()
    assert count == 2 + 6 + 9
    assert mixture.aic(X) == pytest.approx(-2 * loglik + 2 * count)
    assert mixture.bic(X) == pytest.approx(-2 * loglik + count * np.log(272))
    certainty = np.log(mixture.predict_proba(X).max(axis=1)).sum()
    assert mixture.icl(X) == pytest.approx(mixture.bic(X) - 2 * certainty)


def test_weighted_criteria_are_those_of_repeated_rows() -> None:
    times = np.arange(len(X)) % 3
    repeated = np.repeat(X, times, axis=0)
    mixture = lvm.GaussianMixture(2, random_state=0).fit(X, sample_weight=times)
    for method in ("aic", "bic", "icl", "score"):
        weighted = getattr(mixture, method)(X, sample_weight=times)
        assert weighted == pytest.approx(getattr(mixture, method)(repeated), rel=1e-12)


def test_table_holds_every_fit_and_the_best_is_its_minimum() -> None:
    found = lvm.select(
        lvm.GaussianMixture(random_state=0), X, n_components=range(1, 5), covariance_type=["full", "tied"]
    )
    assert len(found.table) == 8
    assert [c.arguments for c in found.table[:2]] == [
        {"n_components": 1, "covariance_type": "full"},
        {"n_components": 1, "covariance_type": "tied"},
    ]
    best = min(found.table, key=lambda c: c.bic)
    assert found.best is best.estimator
    # The published answer for these data: three components of equal covariance, log-likelihood -1126.316.
    assert best.arguments == {"n_components": 3, "covariance_type": "tied"}
    assert best.loglik == pytest.approx(-1126.316, abs=1e-2)
    for c in found.table:
        assert c.bic == pytest.approx(c.estimator.bic(X))
        assert c.n_parameters == c.estimator.n_parameters()
    frame = found.to_frame()
    assert list(frame["n_components"]) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert str(found).count("\n") == 8
    assert "<- best bic" in str(found)


@pytest.mark.parametrize("criterion", ["aic", "icl"])
def test_other_criteria(criterion: str) -> None:
    found = lvm.select(lvm.GaussianMixture(random_state=0), X, n_components=[1, 2, 3], criterion=criterion)
    assert found.best is min(found.table, key=lambda c: getattr(c, criterion)).estimator


def test_heldout_is_cross_validated_loglik() -> None:
    found = lvm.select(lvm.GaussianMixture(random_state=0), X, n_components=[1, 2], criterion="heldout", cv=4)
    folds = KFold(4, shuffle=True, random_state=0)
    for c in found.table:
        estimator = lvm.GaussianMixture(c.arguments["n_components"], random_state=0)
        scores = cross_val_score(estimator, X, cv=folds)
        assert c.heldout == pytest.approx(scores.mean(), rel=1e-10)  # 272 rows: four folds of equal size
        assert 0 < c.heldout_error < 0.1
    assert found.best.n_components == 2


def test_failed_fits_stay_in_the_table_with_their_reason() -> None:
    rows = np.repeat([[0.0, 0.0], [1.0, 1.0], [3.0, 0.5], [1.5, 4.0]], 5, axis=0)
    found = lvm.select(lvm.GaussianMixture(reg_covar=0, random_state=0), rows, n_components=[1, 2, 9])
    failed = found.table[-1]
    assert failed.estimator is None
    assert np.isnan(failed.bic)
    assert failed.status.startswith("failed: n_components=9 exceeds the 4 distinct rows")
    with pytest.raises(ValueError, match=r"every one of the 2 fits failed: n_components=8"):
        lvm.select(lvm.GaussianMixture(reg_covar=0), rows, n_components=[8, 9])


def test_estimator_is_not_changed_and_callback_sees_each_fit() -> None:
    seen: list[tuple[int, int]] = []

    def callback(done: int, total: int, candidate: Candidate) -> None:
        assert candidate.estimator is not None
        seen.append((done, total))

    estimator = lvm.GaussianMixture(5, random_state=0)
    lvm.select(estimator, pd.DataFrame(X), n_components=2, callback=callback, covariance_type="diag")
    assert seen == [(1, 1)]
    assert estimator.n_components == 5
    assert not hasattr(estimator, "means_")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "best"}, r"criterion must be one of 'bic', 'aic', 'icl', 'heldout', got 'best'"),
        ({"n_components": []}, r"nothing to select from"),
        ({"n_components": [0]}, r"n_components must be an integer >= 1, got 0"),
        ({"criterion": "heldout", "cv": 1}, r"cv must be an integer >= 2, got 1"),
        ({"criterion": "heldout", "cv": 999}, r"cv=999 folds need at least as many rows, got 272"),
        ({"colour": ["red"]}, r"Invalid parameter 'colour'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.select(lvm.GaussianMixture(), X, **arguments)


def test_arrays_are_single_values_and_starts_follow_the_folds() -> None:
    labels = (X[:, 0] > 3).astype(int)
    found = lvm.select(
        lvm.GaussianMixture(init_params=labels), X, n_components=np.array([2]), criterion="heldout", cv=3
    )
    assert np.isfinite(found.table[0].heldout)
    means = np.array([[2.0, 54.0], [4.3, 80.0]])
    found = lvm.select(lvm.GaussianMixture(), X, n_components=2, means_init=means, covariance_type=("full", "diag"))
    assert len(found.table) == 2
