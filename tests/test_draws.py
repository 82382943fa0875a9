"""Draws of missing cells have the distribution that the fitted mixture gives them, whatever the estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from missing_cells import NAN
from numpy.testing import assert_array_equal
from scipy import stats
from zero_inflated_poisson import ZeroInflatedPoisson

import lvm

N_DRAWS = 20_000
UNLIKELY = 1e-6  # a p-value below which draws are refused: seeds are fixed, so that it is never met by chance
BINS = 20


def groups(n: int = 400) -> Any:
    """Return two groups of rows of two columns, real numbers that overlap."""
    rng = np.random.RandomState(0)
    return np.concatenate([rng.normal(2.0, 1.0, (n // 2, 2)), rng.normal(4.0, 1.0, (n // 2, 2))])


def distribution(name: str, mixture: Any, k: int) -> Any:
    """Return component k's distribution of the second column."""
    if name == "bernoulli":
        return stats.bernoulli(mixture.probabilities_[k, 1])
    if name == "categorical":
        p = mixture.probabilities_[1][k]
        return stats.rv_discrete(values=(np.arange(len(p)), p))
    if name == "poisson":
        return stats.poisson(mixture.rates_[k, 1])
    if name == "negative binomial":
        size, mean = mixture.sizes_[k, 1], mixture.means_[k, 1]
        return stats.nbinom(size, size / (size + mean))
    if name == "exponential":
        return stats.expon(scale=mixture.scales_[k, 1])
    if name == "gamma":
        return stats.gamma(mixture.shapes_[k, 1], scale=mixture.scales_[k, 1])
    return stats.norm(mixture.means_[k, 1], np.sqrt(mixture.covariances_[k, 1]))


# Estimator, the data from two groups of numbers, and a value of the first column that leaves both components possible.
CASES: dict[str, tuple[Any, Callable[[Any], Any], float]] = {
    "bernoulli": (lvm.BernoulliMixture, lambda X: (X > 3) * 1.0, 1.0),
    "categorical": (lvm.CategoricalMixture, lambda X: np.clip(np.floor(X), 0, 5), 3.0),
    "poisson": (lvm.PoissonMixture, lambda X: np.maximum(np.round(2 * X), 0), 6.0),
    "negative binomial": (lvm.NegativeBinomialMixture, lambda X: np.floor(np.exp(X)), 20.0),
    "exponential": (lvm.ExponentialMixture, lambda X: np.exp(2 * X), 600.0),
    "gamma": (lvm.GammaMixture, lambda X: np.exp(X), 20.0),
    "gaussian diag": (lambda *a, **b: lvm.GaussianMixture(*a, covariance_type="diag", **b), lambda X: X, 3.0),
}


def fitted(name: str) -> tuple[Any, Any]:
    make, prepare, _ = CASES[name]
    X = prepare(groups())
    start = np.repeat([0, 1], 200)  # the groups that the columns have in common
    return make(2, init_params=start, random_state=0, max_iter=200, tol=1e-6).fit(X), X


def p_value(draws: Any, laws: Any, weights: Any) -> float:
    """Return the p-value of draws by a chi-square test of their bins, under the mixture of laws by weights."""
    grid = np.unique(np.concatenate([law.ppf(np.linspace(0, 1, BINS + 1)[1:-1]) for law in laws]))
    edges = np.concatenate([[-np.inf], grid, [np.inf]])
    with np.errstate(invalid="ignore"):
        cumulated = sum(w * law.cdf(edges) for w, law in zip(weights, laws, strict=True))
    expected = np.diff(np.where(edges == -np.inf, 0.0, np.where(edges == np.inf, 1.0, cumulated))) * len(draws)
    # (a, b]: as distribution functions have it.
    found = np.bincount(np.searchsorted(edges, draws, side="left") - 1, minlength=len(expected))
    enough = expected >= 5
    assert found[expected < 1e-9].sum() == 0
    return float(stats.chisquare(found[enough], expected[enough] * found[enough].sum() / expected[enough].sum()).pvalue)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_conditional_distribution(name: str) -> None:
    """Given the other cell, the missing one follows its components' laws, mixed by their posterior probabilities."""
    mixture, _ = fitted(name)
    X = np.tile([CASES[name][2], NAN], (N_DRAWS, 1))
    out = mixture.sample_missing(X, random_state=1)
    assert_array_equal(out[:, 0], X[:, 0])
    posterior = mixture.predict_proba(X[:1])[0]
    assert 0.02 < posterior[0] < 0.98
    laws = [distribution(name, mixture, k) for k in range(2)]
    assert p_value(out[:, 1], laws, posterior) > UNLIKELY
    assert p_value(out[:, 1], laws, posterior[::-1]) < UNLIKELY  # the draws could tell
    if name != "categorical":  # of which means are modes
        error = out[:, 1].std() / np.sqrt(N_DRAWS)
        mean = sum(w * law.mean() for w, law in zip(posterior, laws, strict=True))
        assert abs(out[:, 1].mean() - mean) < 5 * error


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CASES)
def test_what_was_observed_stays(name: str) -> None:
    mixture, X = fitted(name)
    holes = np.where(np.random.RandomState(3).rand(*X.shape) < 0.3, NAN, X)
    holes[5] = NAN
    found = mixture.sample_missing(holes, random_state=0)
    assert not np.isnan(found).any()
    assert_array_equal(found[~np.isnan(holes)], holes[~np.isnan(holes)])
    assert_array_equal(mixture.sample_missing(holes, random_state=0), found)
    assert np.any(mixture.sample_missing(holes, random_state=1) != found)
    assert_array_equal(mixture.sample_missing(X), X)


def test_exposures_scale_the_draws() -> None:
    mixture = lvm.PoissonMixture(1).fit([[2, 3], [4, 5], [3, 1]])
    X = np.full((N_DRAWS, 2), NAN)
    exposure = np.repeat([1.0, 10.0], N_DRAWS // 2)
    out = mixture.sample_missing(X, random_state=0, exposure=exposure)
    for rows, factor in ((slice(0, N_DRAWS // 2), 1.0), (slice(N_DRAWS // 2, None), 10.0)):
        for j in range(2):
            assert p_value(out[rows, j], [stats.poisson(factor * mixture.rates_[0, j])], [1.0]) > UNLIKELY


# ----- categories and columns of several kinds --------------------------------------------------------------------


def test_categories_are_the_users_own() -> None:
    frame = pd.DataFrame(
        {
            "colour": pd.Categorical(["red", "blue", None, "red"] * 10, categories=["red", "blue"]),
            "size": ["S", None, "L", "M"] * 10,
        }
    )
    mixture = lvm.CategoricalMixture(2, alpha=1.1, random_state=0).fit(frame)
    found = mixture.sample_missing(frame, random_state=0)
    assert set(found[2::4, 0]) <= {"red", "blue"}
    assert set(found[1::4, 1]) <= {"S", "M", "L"}
    assert_array_equal(found[::4], frame.to_numpy(object)[::4])
    numbers = lvm.CategoricalMixture(2, alpha=1.1, random_state=0).fit([[10, 5], [20, 5], [10, 6], [20, 6]])
    out = numbers.sample_missing(np.full((50, 2), NAN), random_state=0)
    assert out.dtype.kind == "i"
    assert set(out[:, 0]) == {10, 20}


BLOCKS = [
    ("size", "gaussian_full", [0, 1]),
    ("colour", "categorical", [2]),
    ("visits", "poisson", [3]),
    ("flag", "bernoulli", [4]),
]


def mixed(n: int = 300) -> Any:
    rng = np.random.RandomState(0)
    z = rng.rand(n) < 0.5
    size = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], n) + 4.0 * z[:, None]
    colour = np.where(rng.rand(n) < np.where(z, 0.9, 0.1), "red", "blue")
    visits, flag = rng.poisson(np.where(z, 9.0, 2.0)), rng.rand(n) < np.where(z, 0.8, 0.2)
    return np.array([[*size[i], colour[i], visits[i], int(flag[i])] for i in range(n)], dtype=object)


def test_blocks_share_their_component() -> None:
    """Two missing cells of one row depend on each other as their mixture says, not as independent cells would."""
    mixture = lvm.MixedMixture(BLOCKS, 2, random_state=0).fit(mixed())
    X = np.array([[None, None, None, None, None]] * N_DRAWS, dtype=object)
    out = mixture.sample_missing(X, random_state=0)
    red = mixture.parameters_["colour"]["probabilities"][0][:, mixture.categories_["colour"][0].tolist().index("red")]
    one = mixture.parameters_["flag"]["probabilities"][:, 0]
    cells = [np.multiply.outer([1 - a, a], [1 - b, b]) for a, b in zip(red, one, strict=True)]
    joint = np.tensordot(mixture.weights_, cells, axes=1)
    found = np.bincount(2 * (out[:, 2] == "red") + out[:, 4].astype(int), minlength=4)
    assert stats.chisquare(found, N_DRAWS * joint.ravel()).pvalue > UNLIKELY
    apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    assert stats.chisquare(found, N_DRAWS * apart.ravel()).pvalue < UNLIKELY


def test_draws_within_a_block_of_dependent_columns() -> None:
    """A full Gaussian block is drawn given its observed cell; another block's cells decide the component."""
    mixture = lvm.MixedMixture(BLOCKS, 2, random_state=0).fit(mixed())
    X = np.array([[1.0, None, "red", 3, None]] * N_DRAWS, dtype=object)
    posterior = mixture.predict_proba(X[:1])[0]
    size = mixture.parameters_["size"]
    means, covariances = size["means"], size["covariances"]
    slopes = covariances[:, 1, 0] / covariances[:, 0, 0]
    centres = means[:, 1] + slopes * (1.0 - means[:, 0])
    variances = covariances[:, 1, 1] - slopes * covariances[:, 0, 1]
    laws = [stats.norm(c, np.sqrt(v)) for c, v in zip(centres, variances, strict=True)]
    out = mixture.sample_missing(X, random_state=0)
    assert p_value(out[:, 1].astype(float), laws, posterior) > UNLIKELY
    assert p_value(out[:, 1].astype(float), [stats.norm(m, 1.0) for m in means[:, 1]], posterior) < UNLIKELY
    assert set(out[:, 0]) == {1.0}
    assert set(out[:, 2]) == {"red"}
    assert {type(value) for value in out[:, 3]} == {int}


def test_unknown_categories_that_count_as_missing_are_filled() -> None:
    X = mixed()
    mixture = lvm.MixedMixture(BLOCKS, 2, random_state=0, handle_unknown="ignore").fit(X)
    X = X.copy()
    X[0, 2] = "mauve"
    assert mixture.impute(X)[0, 2] in ("red", "blue")
    assert mixture.sample_missing(X)[0, 2] in ("red", "blue")


class WithHoles(ZeroInflatedPoisson):
    """A family that takes missing cells, and fills them, but draws none: here without a density, for the message."""

    accepts_missing = True

    def canonical(self, X: Any) -> Any:
        return X

    def log_density(self, X: Any, params: Any, out: Any) -> None:
        pass

    def accumulate(self, X: Any, resp: Any, params: Any, stats: Any) -> None:
        pass

    def start(self, X: Any, weight: Any, n_components: int) -> Any:
        return self.params(np.full((n_components, X.shape[1]), 0.5), np.ones((n_components, X.shape[1])))

    def mstep(self, stats: Any, params: Any) -> Any:
        return params


def test_a_family_that_draws_nothing_is_named() -> None:
    X = groups()
    blocks = [("a", "gaussian", [0]), ("b", WithHoles(), [1])]
    mixture = lvm.MixedMixture(blocks, 2, random_state=0).fit(X)
    holes = X.copy()
    holes[3, 0] = NAN
    assert not np.isnan(mixture.sample_missing(holes)).any()  # block b has nothing to draw
    holes[3, 1] = NAN
    with pytest.raises(TypeError, match="WithHoles of block 'b' must implement draw_missing to sample missing cells"):
        mixture.sample_missing(holes)


def test_every_mixture_that_takes_missing_cells_draws_them() -> None:
    """Nothing is forgotten: whatever imputes, draws."""
    X = np.maximum(np.round(groups()), 1.0)
    tried = set()
    for name in lvm.__all__:
        kind = getattr(lvm, name)
        if not hasattr(kind, "fit") or not hasattr(kind, "sample_missing"):
            continue
        if name == "MixedMixture":
            mixture = kind([("a", "gaussian", [0]), ("b", "categorical", [1])], 2)
        else:
            mixture = kind(lvm.families.Gamma(), 2) if name == "MixtureModel" else kind(2)
        if not mixture.__sklearn_tags__().input_tags.allow_nan:
            continue
        rows = (X > 3) * 1.0 if name == "BernoulliMixture" else np.column_stack([X, X[::-1]])
        mixture.set_params(random_state=0, max_iter=2, tol=0).fit(rows)
        rows[::3, 1] = NAN
        drawn = np.asarray(mixture.sample_missing(rows), np.float64)
        assert not np.isnan(drawn[:, :2]).any(), name
        tried.add(name)
    assert len(tried) >= 9
