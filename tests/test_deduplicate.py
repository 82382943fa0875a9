"""Collapsing equal rows into weights: exact, chosen only where it pays, and blind to how the rows are held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import lvm
from lvm import collapse as module
from lvm import families
from lvm.collapse import collapse, hash_rows, pays
from lvm.protocol import Rows

FACES: dict[str, Any] = {"bernoulli": lvm.BernoulliMixture, "multinomial": lvm.MultinomialMixture}
FAMILIES: dict[str, Any] = {"bernoulli": families.Bernoulli, "multinomial": families.Multinomial}
each_kind = pytest.mark.parametrize("kind", FACES)
each_form = pytest.mark.parametrize("is_sparse", [False, True])


def table(kind: str, n: int, d: int, n_patterns: int, seed: int = 0) -> Any:
    """Return rows drawn from a few patterns, all-zero ones among them."""
    rng = np.random.RandomState(seed)
    patterns = rng.randint(0, 2 if kind == "bernoulli" else 4, (n_patterns, d))
    patterns[0] = 0
    return patterns[rng.randint(0, n_patterns, n)].astype(float)


def rows_of(kind: str, X: Any, is_sparse: bool, weight: Any = None, labels: Any = None) -> Rows:
    given = Rows(sparse.csr_matrix(X) if is_sparse else X, weight, labels)
    return lvm.Mixture(FAMILIES[kind]()).canonical(given)


def dense(kind: str, X: Any) -> Any:
    """Return canonical rows as an array."""
    if isinstance(X, np.ndarray):
        return X.astype(float)
    data = np.ones(len(X.indices)) if kind == "bernoulli" else X.data
    return sparse.csr_matrix((data, X.indices, X.indptr), shape=X.shape).toarray()


@pytest.mark.parametrize("block", [7, 1 << 16])
@each_form
@each_kind
def test_distinct_rows_and_their_weights(
    kind: str, is_sparse: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a dictionary, with labels that split equal rows, and weights that add up."""
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    rng = np.random.RandomState(1)
    X = table(kind, 300, 6, 20)
    weight, labels = rng.choice([0.5, 1.0, 2.0], 300), rng.randint(-1, 2, 300)
    rows, first = collapse(rows_of(kind, X, is_sparse, weight, labels), True)
    totals: dict[Any, float] = {}
    for x, label, w in zip(X, labels, weight, strict=True):
        key = (*x, label)
        totals[key] = totals.get(key, 0.0) + w
    assert first is not None
    assert rows.weight is not None
    assert rows.labels is not None
    assert np.all(np.diff(first) > 0)
    assert_array_equal(X[first], dense(kind, rows.X))
    found = {(*x, label): w for x, label, w in zip(dense(kind, rows.X), rows.labels, rows.weight, strict=True)}
    assert found == totals  # sums of halves are exact


@each_form
@each_kind
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_the_fit_is_the_same(kind: str, is_sparse: bool, weighted: bool, labelled: bool) -> None:
    """To the rounding of sums in another order."""
    rng = np.random.RandomState(2)
    X = table(kind, 3000, 8, 60)
    given = sparse.csr_matrix(X) if is_sparse else X
    weight = rng.uniform(0, 2, 3000) if weighted else None
    labels = np.where(np.arange(3000) % 7 == 0, rng.randint(0, 3, 3000), -1) if labelled else None
    fits = [
        FACES[kind](3, alpha=1.5, random_state=0, tol=0, max_iter=15, deduplicate=choice).fit(
            given, sample_weight=weight, labels=labels
        )
        for choice in (False, True, "auto")
    ]
    for fit in fits[1:]:
        assert fit.n_iter_ == fits[0].n_iter_
        assert_allclose(fit.objective_trace_, fits[0].objective_trace_, rtol=1e-12)
        assert_allclose(fit.loglik_, fits[0].loglik_, rtol=1e-12)
        assert_allclose(fit.lower_bound_, fits[0].lower_bound_, rtol=1e-12)
        assert_allclose(fit.probabilities_, fits[0].probabilities_, rtol=1e-9)
    assert_array_equal(fits[1].predict(given), fits[0].predict(given))


@each_form
@pytest.mark.parametrize(
    ("n", "n_patterns", "wanted"), [(20, 4, True), (20, 19, False), (5000, 300, True), (20_000, 2000, True)]
)
def test_auto_counts_a_sample(n: int, n_patterns: int, wanted: bool, is_sparse: bool) -> None:
    X = table("multinomial", n, 12, n_patterns)
    if not wanted:
        X[:, 0] = np.arange(n) % n_patterns
    rows = rows_of("multinomial", X, is_sparse)
    assert pays(rows) is wanted
    assert (collapse(rows, "auto").first is not None) is wanted
    assert collapse(rows, False).rows is rows


def test_auto_leaves_distinct_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at a sample: the rows themselves are neither hashed nor copied."""
    seen: list[int] = []
    hashed = module.hash_rows
    monkeypatch.setattr(module, "hash_rows", lambda rows, *a: (seen.append(len(rows.X)), hashed(rows, *a))[1])
    rows = rows_of("bernoulli", np.random.RandomState(0).randint(0, 2, (5000, 40)), False)
    assert collapse(rows, "auto").rows is rows
    assert max(seen) <= module.SAMPLE_ROWS


def test_auto_bounds_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of("bernoulli", table("bernoulli", 5000, 12, 300), False)
    assert collapse(rows, "auto").first is not None
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    assert collapse(rows, "auto").rows is rows
    assert collapse(rows, True).first is not None


def test_different_rows_of_one_hash_are_never_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_sparse in (False, True):
        rows = rows_of("multinomial", table("multinomial", 100, 5, 10), is_sparse)
        with monkeypatch.context() as patch:
            patch.setattr(module, "hash_rows", lambda rows, *a: np.zeros(len(rows.X), np.uint64))
            assert collapse(rows, True).rows is rows
        assert collapse(rows, True).first is not None


@pytest.mark.parametrize("step", [1, 100, 1 << 18])
def test_hashes_do_not_depend_on_the_container(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on how many rows are hashed at a time; and small counts keep all 64 bits busy."""
    X = table("multinomial", 200, 9, 150)
    X[3] = 0
    whole = hash_rows(rows_of("multinomial", X, False))
    assert len(np.unique(whole)) == len(np.unique(X, axis=0))
    monkeypatch.setattr(module, "BLOCK_CELLS", step)
    for is_sparse in (False, True):
        rows = rows_of("multinomial", X, is_sparse)
        assert_array_equal(hash_rows(rows), whole)
        assert_array_equal(hash_rows(rows, slice(50, 120)), whole[50:120])
    low, high = whole & np.uint64(0xFFFFF), whole >> np.uint64(44)
    assert len(np.unique(low)) > 0.95 * len(np.unique(whole))
    assert len(np.unique(high)) > 0.95 * len(np.unique(whole))


def test_an_impossible_row_is_named_by_its_place_in_the_data() -> None:
    X = np.repeat([[1, 0], [0, 1]], [40, 60], axis=0)
    start = {"weights_init": [1.0], "probabilities_init": [[1.0, 0.0]]}
    for choice in (False, True):
        with pytest.raises(ValueError, match="row 40 "):
            lvm.MultinomialMixture(1, deduplicate=choice, **start).fit(X)


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_other_choices_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"True, False or 'auto', got {wrong!r}"):
        lvm.BernoulliMixture(1, deduplicate=wrong).fit([[0, 1], [1, 0]])
