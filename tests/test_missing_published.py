"""Recorded estimates from data with missing cells, by full covariances: what other programs find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.testing import assert_allclose

import lvm
from lvm.families import FullGaussian
from lvm.models.mixture import MixtureParams


def _table(folder: Path) -> tuple[Any, Any]:
    record = json.loads((folder / "result.json").read_text())
    return np.genfromtxt(folder / "data.csv", delimiter=",", skip_header=1), record


def test_one_component_is_the_classical_estimate(reference_folder: Path) -> None:
    """Mean and covariance with missing values, as three programs find them (some stop at a gain of 1e-7)."""
    X, record = _table(reference_folder / "gaussian_missing_apple")
    assert X.shape == (18, 2)
    assert np.isnan(X).sum() == record["n_missing"]
    model = lvm.Mixture(FullGaussian())
    start = MixtureParams(np.ones(1), FullGaussian().start(X, np.ones(18), 1))
    end = lvm.fit_em(model, lvm.Rows(X), start, tol=1e-15, max_iter=5000)
    assert_allclose(end.loglik, record["loglik"], rtol=1e-8)
    assert model.n_parameters(end.params) == record["n_parameters"]
    for fit in record["fits"].values():
        assert_allclose(end.params.components.means[0], fit["mean"], rtol=1e-6)
        assert_allclose(end.params.components.covariances[0], fit["cov"], rtol=1e-6)


def test_published_mixture(reference_folder: Path) -> None:
    """What MixtureMissing finds, and on the way there."""
    X, record = _table(reference_folder / "gaussian_missing_faithful")
    model = lvm.Mixture(FullGaussian())
    components = FullGaussian().params(record["start_means"], record["start_covariances"])
    start = MixtureParams(np.array(record["start_weights"]), components)
    end = lvm.fit_em(model, lvm.Rows(X), start, tol=1e-13, max_iter=5000)
    assert_allclose(end.objective_trace[[1, 2, 5, 10]], record["loglik_after_iterations_1_2_5_10"], rtol=1e-10)
    assert_allclose(end.loglik, record["loglik"], rtol=1e-8)
    assert_allclose(end.params.components.means, record["means"], rtol=1e-4)  # it stops early
    assert model.n_parameters(end.params) == record["n_parameters"]
