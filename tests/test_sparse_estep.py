"""The sparse E-step: the same numbers as the dense one, from the few pairs that matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from reference import slow

import lvm
from lvm.families import DiagGaussian, FullGaussian, SphericalGaussian
from lvm.kernels.candidates import Candidates, Pruning, empty_candidates, normalise_candidates
from lvm.kernels.responsibilities import NEGLIGIBLE
from lvm.models import mixture
from lvm.models.mixture import Mixture, MixtureParams
from lvm.protocol import Rows, ZeroDensityError, leaves

Array = NDArray[np.float64]

FAMILIES = [FullGaussian, DiagGaussian, SphericalGaussian]
each_family = pytest.mark.parametrize("family", FAMILIES)


def problem(family: Any, n: int, d: int, K: int, separation: float, seed: int = 0) -> tuple[Any, Array]:
    """Return parameters near the truth, and rows (n, d) of K components so many standard deviations apart."""
    rng = np.random.default_rng(seed)
    means = separation * rng.standard_normal((K, d))
    X = means[rng.integers(K, size=n)] + rng.standard_normal((n, d)) @ (np.eye(d) + 0.2 * rng.standard_normal((d, d)))
    start = family.start(X, np.ones(n), K)._replace(means=means + 0.1 * rng.standard_normal((K, d)))
    shape = start.covariances.shape
    scale = rng.uniform(0.5, 2.0, shape[:1] + (1,) * (len(shape) - 1))
    return family.params(start.means, scale * np.broadcast_to(np.eye(d) if len(shape) == 3 else 1.0, shape)), X


def both(
    model: Mixture[Any], rows: Rows, params: MixtureParams, depth: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Any, int]:
    """Return the dense and the sparse statistics, and how many blocks were sparse."""
    rows = model.canonical(rows)
    monkeypatch.setattr(mixture, "MIN_SPARSE_CELLS", np.inf)
    dense = model.estep_stats(rows, params)
    blocks = []
    accumulate = model.family.accumulate_candidates
    monkeypatch.setattr(mixture, "MIN_SPARSE_CELLS", 0)
    monkeypatch.setattr(model.family, "pruning_depth", lambda *_: depth)
    monkeypatch.setattr(
        model.family, "accumulate_candidates", lambda X, *rest: (blocks.append(len(X)), accumulate(X, *rest))
    )
    return dense, model.estep_stats(rows, params), len(blocks)


def equal(dense: Any, sparse: Any, tolerance: float = 1e-12) -> None:
    assert_allclose(sparse.loglik, dense.loglik, rtol=tolerance)
    for ours, theirs in zip(leaves(sparse), leaves(dense), strict=True):
        lower = np.tril(theirs) if np.ndim(theirs) == 3 else theirs
        assert_allclose(np.tril(ours) if np.ndim(ours) == 3 else ours, lower, atol=tolerance * np.abs(lower).max())


@each_family
@pytest.mark.parametrize("d", [1, 3, 4, 9, 16])
@pytest.mark.parametrize("depth", [4, 8, 16])
@pytest.mark.parametrize("separation", [3.0, 30.0])
def test_statistics(family: Any, d: int, depth: int, separation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = (d + 3) // 4 * 4
    components, X = problem(family(), 1500, d, 12, separation)
    params = MixtureParams(np.random.default_rng(1).dirichlet(np.ones(12)), components)
    weight = np.random.default_rng(2).integers(0, 4, 1500).astype(float)
    dense, sparse, n_blocks = both(Mixture(family()), Rows(X, weight), params, min(depth, padded), monkeypatch)
    assert n_blocks > 0 or separation < 30
    equal(dense, sparse)


@each_family
def test_penalties(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    components, X = problem(family(0.3), 1000, 5, 12, 20.0)
    params = MixtureParams(np.full(12, 1 / 12), components)
    dense, sparse, n_blocks = both(Mixture(family(0.3)), Rows(X), params, 8, monkeypatch)
    assert n_blocks > 0
    assert dense.penalty < 0
    equal(dense, sparse)


@each_family
def test_float32(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    single = family(dtype=np.float32)
    components, X = problem(single, 1000, 9, 12, 20.0)
    params = MixtureParams(np.full(12, 1 / 12), components)
    dense, sparse, n_blocks = both(Mixture(single), Rows(X), params, 8, monkeypatch)
    assert n_blocks > 0
    equal(dense, sparse, 1e-5)


@each_family
def test_components_of_weight_zero(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    components, X = problem(family(), 1000, 6, 12, 20.0)
    weights = np.r_[0.0, np.full(11, 1 / 11)]
    dense, sparse, n_blocks = both(Mixture(family()), Rows(X), MixtureParams(weights, components), 4, monkeypatch)
    assert n_blocks > 0
    assert sparse.counts[0] == 0
    equal(dense, sparse)


@each_family
def test_candidates_are_those_that_matter(family: Any) -> None:
    components, X = problem(family(), 600, 7, 10, 4.0)
    density = np.zeros((10, 600))
    X = family().canonical(X)
    family().log_density(X, components, density)
    offsets = np.log(np.random.default_rng(0).dirichlet(np.ones(10)))
    joint = density + offsets[:, None]
    matters = joint > joint.max(axis=0) + NEGLIGIBLE
    found = Candidates(np.empty(11, np.int64), np.empty(6000, np.int64), np.empty(6000))
    for depth in (4, 8):
        assert family().find_candidates(X, components, Pruning(offsets, NEGLIGIBLE, depth), np.empty((10, 600)), found)
        listed = np.zeros_like(matters)
        for k in range(10):
            part = slice(found.starts[k], found.starts[k + 1])
            assert not listed[k, found.rows[part]].any()
            listed[k, found.rows[part]] = True
            assert len(np.unique(found.rows[part])) == len(found.rows[part])
            assert_allclose(found.values[part], joint[k, found.rows[part]], rtol=1e-12)
        assert np.all(listed >= matters)
        assert listed.sum() < 1.1 * matters.sum()  # the best bound is rarely of another component than the best


@pytest.mark.parametrize("log_penalty", [np.zeros(4), np.array([-0.1, -3.0, 0.0, -1.0])])
def test_normalise(log_penalty: Array) -> None:
    """Equals the posterior of all pairs, where those left out are impossible."""
    rng = np.random.default_rng(0)
    density = 5 * rng.standard_normal((4, 50))
    density[rng.random((4, 50)) < 0.6] = -np.inf
    density[0] = np.where(np.isinf(density).all(axis=0), 0.0, density[0])
    weights, sample_weight = rng.dirichlet(np.ones(4)), rng.integers(0, 3, 50).astype(float)
    joint = density + (np.log(weights) + log_penalty)[:, None]
    pairs = [np.flatnonzero(row > -np.inf) for row in joint]
    values = np.concatenate([row[rows] for row, rows in zip(joint, pairs, strict=True)])
    found = Candidates(np.cumsum([0, *map(len, pairs)]), np.concatenate(pairs), values)
    counts = np.zeros(4)
    loglik, penalty = normalise_candidates(found, log_penalty, sample_weight, counts)
    expected = slow.posterior(density, weights, sample_weight, log_penalty=log_penalty)
    assert_allclose(loglik, expected.loglik, rtol=1e-13)
    assert_allclose(penalty, expected.penalty, rtol=1e-12)
    assert_allclose(counts, expected.resp.sum(axis=1), rtol=1e-13)
    for k, rows in enumerate(pairs):
        assert_allclose(found.values[found.starts[k] : found.starts[k + 1]], expected.resp[k, rows], rtol=1e-13)


@each_family
def test_is_tried_only_where_it_pays(family: Any) -> None:
    for separation, pays in ((0.5, False), (50.0, True)):
        components, X = problem(family(), 4000, 16, 32, separation)
        depth = family().pruning_depth(family().canonical(X), components, np.full(32, -np.log(32)), NEGLIGIBLE)
        assert depth % 4 == 0
        assert (depth > 0) == pays


@each_family
def test_too_many_candidates_are_given_up(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    components, X = problem(family(), 1000, 4, 12, 0.2)
    params = MixtureParams(np.full(12, 1 / 12), components)
    dense, sparse, n_blocks = both(Mixture(family()), Rows(X), params, 4, monkeypatch)
    assert n_blocks == 0
    assert sparse.loglik == dense.loglik


def test_room_is_bounded() -> None:
    assert len(empty_candidates(20, 100).rows) == 1000
    assert len(empty_candidates(1, 100).rows) == 100


@each_family
def test_overflowing_row_is_named(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    components, X = problem(family(), 1000, 4, 12, 20.0)
    X[77] = 1e200
    monkeypatch.setattr(mixture, "MIN_SPARSE_CELLS", 0)
    with pytest.raises(ZeroDensityError, match="row 77 "):
        Mixture(family()).estep_stats(Rows(X), MixtureParams(np.full(12, 1 / 12), components))


@each_family
def test_labels_take_the_dense_way(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label may name a component that no bound would keep."""
    components, X = problem(family(), 500, 4, 12, 20.0)
    params = MixtureParams(np.full(12, 1 / 12), components)
    labels = np.full(500, 3)
    dense, sparse, n_blocks = both(Mixture(family()), Rows(X, None, labels), params, 4, monkeypatch)
    assert n_blocks == 0
    assert sparse.loglik == dense.loglik
    assert_allclose(sparse.counts, np.eye(12)[3] * 500)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_fits_do_not_depend_on_threads(covariance_type: str) -> None:
    _, X = problem(FullGaussian(), 40_000, 8, 20, 15.0)
    fits = [
        lvm.GaussianMixture(20, covariance_type=covariance_type, random_state=0, max_iter=4, tol=0, n_jobs=jobs).fit(X)
        for jobs in (1, 3)
    ]
    assert fits[0].loglik_ == fits[1].loglik_
    assert np.array_equal(fits[0].means_, fits[1].means_)
    assert_allclose(fits[0].loglik_, fits[0].score_samples(X).sum(), rtol=1e-12)
