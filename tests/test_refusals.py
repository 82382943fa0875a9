"""Every mistake of a user gets an error that names the value and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError

import lvm

X = np.random.RandomState(0).randn(20, 2)
BINARY = (X > 0).astype(int)
COUNTS = np.random.RandomState(0).randint(0, 5, (20, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_components": 0}, r"n_components must be an integer >= 1, got 0"),
        ({"n_components": -1}, r"n_components must be an integer >= 1, got -1"),
        ({"n_components": 1.5}, r"n_components must be an integer >= 1, got 1.5"),
        ({"n_components": 21}, r"Expected n_samples >= n_components but got n_components = 21, n_samples = 20"),
        ({"covariance_type": "round"}, r"covariance_type must be one of 'full', .*, got 'round'"),
        ({"tol": -1.0}, r"tol must be a finite number >= 0, got -1.0"),
        ({"reg_covar": -1.0}, r"reg_covar must be a finite number >= 0, got -1.0"),
        ({"reg_covar": np.nan}, r"reg_covar must be a finite number >= 0, got nan"),
        ({"max_iter": -1}, r"max_iter must be an integer >= 0, got -1"),
        ({"n_init": 0}, r"n_init must be an integer >= 1, got 0"),
        ({"init_params": "best"}, r"init_params must be one of 'kmeans', .*, got 'best'"),
        ({"init_params": np.zeros(3, int)}, r"init_params has shape \(3,\), expected \(20,\)"),
        ({"init_params": np.zeros((20, 3))}, r"init_params has shape \(20, 3\); expected labels"),
        ({"init_params": np.full((20, 2), 0.4)}, r"responsibilities must be >= 0 and sum to 1.*in row 0"),
        ({"weights_init": [0.5, 0.6]}, r"'weights' should be normalized, but got sum\(weights\) = 1.1"),
        ({"weights_init": [1.5, -0.5]}, r"'weights' should be in the range \[0, 1\]"),
        ({"weights_init": [1.0]}, r"'weights' should have the shape of \(2,\), but got \(1,\)"),
        ({"means_init": [[0.0, 1.0]]}, r"'means' should have the shape of \(2, 2\), but got \(1, 2\)"),
        ({"means_init": [[0.0, np.nan]] * 2}, r"'means' contains NaN or infinity"),
        ({"precisions_init": -np.ones((2, 2, 2))}, r"'full precision' should be symmetric, positive-definite"),
        ({"covariance_type": "diag", "precisions_init": -np.ones((2, 2))}, r"'diag precision' should be positive"),
        ({"precisions_init": np.eye(2)}, r"'precisions' should have the shape of \(2, 2, 2\)"),
        ({"precisions_init": [np.eye(2)] * 2, "covariances_init": [np.eye(2)] * 2}, r"not both"),
        ({"n_jobs": 0}, r"n_jobs=0 has no meaning"),
    ],
    ids=str,
)
def test_constructor_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(**{"n_components": 2, **arguments}).fit(X)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_components": "2"},
        {"tol": "0"},
        {"n_jobs": "2"},
        {"covariance_type": 3},
        {"init_params": None},
        {"init_params": 3},
        {"warm_start": "yes"},
        {"random_state": "seed"},
    ],
)
def test_wrong_types_are_type_errors(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"must be"):
        lvm.GaussianMixture(**{"n_components": 2, **arguments}).fit(X)


def _with(value: float) -> np.ndarray:
    bad = X.copy()
    bad[3, 1] = value
    return bad


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_with(np.inf), r"Input X contains infinity at row 3, column 1"),
        (_with(-np.inf), r"Input X contains infinity at row 3, column 1"),
        (pd.DataFrame(_with(np.inf), columns=["age", "size"]), r"infinity at row 3, column 1 \('size'\)"),
        (np.empty((0, 2)), r"Found array with 0 sample"),
        (np.empty((5, 0)), r"0 feature\(s\)"),
        (np.ones(5), r"Expected 2D array, got 1D array"),
        (np.ones((2, 2, 2)), r"Found array with dim 3"),
        ([["a", "b"], ["c", "d"]], r"X must hold numbers; got 'a' at row 0, column 0"),
        (np.array([[1.0, "b"], [2.0, "d"]], dtype=object), r"X must hold numbers; got 'b' at row 0, column 1"),
        (np.ones((3, 2)) * 1j, r"Complex data not supported"),
    ],
    ids=["inf", "-inf", "inf by name", "no rows", "no columns", "1-D", "3-D", "text", "text cell", "complex"],
)
def test_data(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(2).fit(data)


def test_sparse_data_are_refused_by_gaussians() -> None:
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        lvm.GaussianMixture(2).fit(sparse.csr_matrix(X))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("value", [2, -1, 0.5])
def test_values_other_than_zero_and_one(value: float, container: Any) -> None:
    bad = BINARY.astype(float)
    bad[4, 1] = value
    with pytest.raises(ValueError, match=rf"X must be 0 or 1 for Bernoulli .*; got {value}.* at row 4, column 1"):
        lvm.BernoulliMixture(2).fit(container(bad))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_negative_counts(container: Any) -> None:
    bad = COUNTS.copy()
    bad[4, 1] = -3
    with pytest.raises(ValueError, match=r"X must be counts >= 0 .*; got -3 at row 4, column 1"):
        lvm.MultinomialMixture(2).fit(container(bad))


@pytest.mark.parametrize("alpha", [0.5, -1, np.inf, "1"])
@pytest.mark.parametrize(("estimator", "data"), [(lvm.BernoulliMixture, BINARY), (lvm.MultinomialMixture, COUNTS)])
def test_alpha(estimator: Any, data: Any, alpha: Any) -> None:
    with pytest.raises(ValueError, match=r"alpha must be a finite number >= 1"):
        estimator(2, alpha=alpha).fit(data)


def test_starting_probabilities() -> None:
    with pytest.raises(ValueError, match=r"probabilities of component 1 sum to 0.9"):
        lvm.MultinomialMixture(2, probabilities_init=[[0.2, 0.3, 0.5], [0.2, 0.2, 0.5]]).fit(COUNTS)
    with pytest.raises(ValueError, match=r"'probabilities' should be in the range \[0, 1\]"):
        lvm.BernoulliMixture(2, probabilities_init=[[0.2, 1.3], [0.2, 0.2]]).fit(BINARY)
    with pytest.raises(ValueError, match=r"'probabilities' should have the shape of \(2, 2\), but got \(1, 2\)"):
        lvm.BernoulliMixture(2, probabilities_init=[[0.2, 0.3]]).fit(BINARY)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-np.ones(20), r"sample_weight must be finite and >= 0; got -1.0 at row 0"),
        (np.where(np.arange(20) == 5, np.nan, 1.0), r"sample_weight must be finite and >= 0; got nan at row 5"),
        (np.zeros(20), r"sample_weight is zero for every row"),
        (np.ones(19), r"sample_weight.shape == \(19,\), expected \(20,\)"),
        (np.ones((20, 1)), r"sample_weight.shape == \(20, 1\), expected \(20,\)"),
    ],
)
def test_sample_weight(weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(2).fit(X, sample_weight=weight)


def test_sample_weight_of_text() -> None:
    with pytest.raises(TypeError, match="sample_weight must be numeric"):
        lvm.GaussianMixture(2).fit(X, sample_weight=["a"] * 20)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(20, 2), r"labels must be integers between -1 \(unknown\) and n_components - 1 = 1; got 2 at row 0"),
        (np.full(20, -2), r"labels must be integers between .* got -2 at row 0"),
        (np.full(20, 0.5), r"labels must be integers"),
        (np.zeros(19, int), r"labels has shape \(19,\), expected \(20,\)"),
        (["a"] * 20, r"labels must be integers"),
    ],
)
def test_labels(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.GaussianMixture(2).fit(X, labels=labels)


def test_predict_with_other_features() -> None:
    mixture = lvm.GaussianMixture(2, random_state=0).fit(X)
    for method in ("predict", "predict_proba", "score_samples", "score", "bic", "aic", "icl"):
        with pytest.raises(ValueError, match=r"X has 3 features, but GaussianMixture is expecting 2 features"):
            getattr(mixture, method)(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"Invalid value for 'n_samples': 0"):
        mixture.sample(0)


def test_unfitted() -> None:
    for method, arguments in (("predict", (X,)), ("score", (X,)), ("sample", ()), ("n_parameters", ())):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(lvm.GaussianMixture(), method)(*arguments)


def test_failed_fit_leaves_no_parameters() -> None:
    mixture = lvm.GaussianMixture(25)
    with pytest.raises(ValueError, match="n_samples >= n_components"):
        mixture.fit(X)
    assert not hasattr(mixture, "means_")
    assert not hasattr(mixture, "restarts_")


def test_structure_changed_after_the_fit() -> None:
    mixture = lvm.GaussianMixture(2, random_state=0).fit(X).set_params(covariance_type="diag")
    with pytest.raises(ValueError, match=r"precisions_cholesky_ has shape \(2, 2, 2\).*needs \(2, 2\); fit again"):
        mixture.predict(X)


@pytest.mark.parametrize("estimator", [lvm.BernoulliMixture, lvm.MultinomialMixture])
def test_read_only_data_and_data_frames_are_checked_too(estimator: Any) -> None:
    bad = BINARY.astype(float)
    bad[4, 1] = -1
    bad.flags.writeable = False
    with pytest.raises(ValueError, match=r"got -1.0 at row 4, column 1\."):
        estimator(2).fit(bad)
    frame = pd.DataFrame(bad, columns=["a", "b"])
    with pytest.raises(ValueError, match=r"got -1.0 at row 4, column 1 \('b'\)"):
        estimator(2).fit(frame)
    fitted = estimator(2, random_state=0).fit(BINARY)
    with pytest.raises(ValueError, match=r"got -1.0 at row 4, column 1\."):
        fitted.predict(bad)
    bytes_ = np.full((5, 2), 7, np.uint8)
    bytes_.flags.writeable = False
    with pytest.raises(ValueError, match="got 7 at row 0, column 0"):
        lvm.BernoulliMixture(2).fit(bytes_)
