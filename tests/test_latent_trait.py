"""The two-parameter logistic model: against integrals by scipy, the published fits of LSAT6, and brute force."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.integrate import quad
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

import lvm
from lvm.models.latent_trait import MAX_SLOPE, LatentTraitModel, TraitParams
from lvm.protocol import Rows
from lvm.testing import Check, model_checks

RNG = np.random.default_rng(6)
TABLE = np.loadtxt(Path(__file__).parent / "data" / "lsat6.csv", delimiter=",", skiprows=1)
ANSWERS, TIMES = TABLE[:, :5], TABLE[:, 5]
TRUE = TraitParams(np.array([1.5, 0.8, 2.5, 1.0]), np.array([0.5, -1.0, 0.0, 2.0]))
X = LatentTraitModel().sample(TRUE, 400, np.random.RandomState(1))[0]
HOLES = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
START = TraitParams(np.array([1.0, 1.2, 1.0, 0.5]), np.array([0.2, -0.5, 0.1, 1.0]))
COMMON = START._replace(slopes=np.full(4, 1.1))
CHECKS = [
    *model_checks(LatentTraitModel(), START, X),
    *model_checks(LatentTraitModel("common"), COMMON, Rows(HOLES, RNG.uniform(0.5, 2.0, 400))),
    *model_checks(LatentTraitModel(prior=(0.0, 0.5)), START, HOLES),
    *model_checks(LatentTraitModel("common", prior=(0.0, 0.5)), COMMON, X),
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conformance(check: Check) -> None:
    check()


def likelihood(row: Any, params: TraitParams, power: int = 0) -> float:
    """Return the integral of theta**power p(row | theta) over the standard normal, by scipy."""
    observed = ~np.isnan(row)

    def integrand(theta: float) -> float:
        p = expit(params.slopes * theta + params.intercepts)[observed]
        return float(theta**power * norm.pdf(theta) * np.prod(np.where(row[observed] == 1, p, 1 - p)))

    return quad(integrand, -12, 12, epsabs=1e-14, epsrel=1e-12, limit=400)[0]


def test_likelihood_and_scores_are_integrals() -> None:
    """Of dense, sparse and incomplete rows; with 81 nodes to 1e-9, the slope of 2.5 converges slowest."""
    model = LatentTraitModel(n_nodes=81)
    for data in (X[:12], HOLES[:12], np.full((1, 4), np.nan)):
        rows = model.canonical(Rows(data))
        integrals = [[likelihood(np.asarray(row, float), TRUE, power) for power in (0, 1, 2)] for row in data]
        total, first, second = np.array(integrals).T
        np.testing.assert_allclose(model.loglik(rows, TRUE), np.log(total), atol=1e-9)
        mean, deviation = model.scores(rows, TRUE)
        np.testing.assert_allclose(mean, first / total, atol=1e-8)
        np.testing.assert_allclose(deviation, np.sqrt(second / total - (first / total) ** 2), atol=1e-8)
    dense, csr = (model.loglik(model.canonical(Rows(data)), TRUE) for data in (X, sparse.csr_matrix(X)))
    np.testing.assert_allclose(dense, csr, rtol=1e-12)


def test_statistics_are_expected_counts() -> None:
    model = LatentTraitModel(n_nodes=7)
    weight = RNG.uniform(0.0, 2.0, len(HOLES))
    stats = model.estep_stats(model.canonical(Rows(HOLES, weight)), START)
    n, ones, loglik = np.zeros((7, 4)), np.zeros((7, 4)), 0.0
    for row, w in zip(HOLES, weight, strict=True):
        p = expit(np.outer(model.nodes, START.slopes) + START.intercepts)
        joint = model.weights * np.nanprod(np.where(np.isnan(row), np.nan, np.where(row == 1, p, 1 - p)), axis=1)
        n += w * np.outer(joint / joint.sum(), ~np.isnan(row))
        ones += w * np.outer(joint / joint.sum(), row == 1)
        loglik += w * np.log(joint.sum())
    np.testing.assert_allclose(stats.components.counts[:, None] + stats.components.observed, n, rtol=1e-10)
    np.testing.assert_allclose(stats.components.ones, ones, rtol=1e-10, atol=1e-14)
    assert stats.loglik == pytest.approx(loglik, rel=1e-12)


@pytest.mark.parametrize("discrimination", ["free", "common"])
@pytest.mark.parametrize("prior", [None, (0.3, 0.4)])
def test_mstep_is_a_maximiser(discrimination: str, prior: Any) -> None:
    """The expected log-likelihood has no slope there, from a far start as from a near one."""
    model = LatentTraitModel(discrimination, prior)
    start = START if discrimination == "free" else COMMON
    stats = model.estep_stats(model.canonical(Rows(HOLES)), start)
    n, ones = stats.components.counts[:, None] + stats.components.observed, stats.components.ones
    d = 4

    def expected(vector: Any) -> float:
        slopes = np.repeat(vector[:-d], d // len(vector[:-d]))
        odds = np.outer(model.nodes, slopes) + vector[-d:]
        params = TraitParams(slopes, vector[-d:])
        return float(np.sum(ones * odds - n * np.logaddexp(0, odds))) + model.log_prior(params)

    found = model.mstep(stats, start)
    vector = np.concatenate([found.slopes[: d if discrimination == "free" else 1], found.intercepts])
    # central differences of a value near 1e3: rounding of 1e-13 / 1e-5
    slope = [approx_fprime(vector, lambda v, s=s: s * expected(v), 1e-5) * s for s in (1, -1)]
    np.testing.assert_allclose(slope[0], 0.0, atol=3e-3)  # of one side: half the curvature, about 100, times 1e-5
    for _ in range(20):
        assert expected(vector + 1e-3 * RNG.normal(size=len(vector))) < expected(vector)
    far = TraitParams(np.full(d, 8.0), np.array([-20.0, 20.0, 9.0, 0.0]))
    again = model.mstep(stats, far)
    np.testing.assert_allclose(again.slopes, found.slopes, rtol=1e-7)
    np.testing.assert_allclose(again.intercepts, found.intercepts, rtol=1e-7, atol=1e-7)


def test_lsat6_has_the_published_fit() -> None:
    """Two-parameter: loglik -2466.653; ltm's discriminations and difficulties, which its optimiser leaves at 1e-3.

    Rizopoulos (2006), "ltm: an R package for latent variable modelling and item response theory analyses".
    """
    published = np.array([[0.825, 0.723, 0.890, 0.689, 0.657], [-3.359, -1.370, -0.280, -1.866, -3.123]])
    for arguments in ({}, {"acceleration": "anderson"}, {"n_nodes": 81}):
        found = lvm.LatentTrait(tol=1e-13, max_iter=5000, **arguments).fit(ANSWERS, sample_weight=TIMES)
        assert round(found.loglik_, 3) == -2466.653
        np.testing.assert_allclose(found.discrimination_, published[0], atol=1.6e-3)
        np.testing.assert_allclose(found.difficulty_, published[1], atol=3.6e-3)
    given = TraitParams(published[0], -published[0] * published[1])
    model = LatentTraitModel()
    at_published = float(TIMES @ model.loglik(model.canonical(Rows(ANSWERS)), given))
    assert at_published < found.loglik_ < at_published + 1e-3  # equal but for the rounding of what was printed


def test_lsat7_has_the_published_fit() -> None:
    """Two-parameter: loglik -2658.805, and the slopes and intercepts of mirt's documentation, to its tolerance.

    Data: Bock & Lieberman (1970), "Fitting a response model for n dichotomously scored items", from 00000 to 11111.
    Fit: Chalmers (2012), "mirt: a multidimensional item response theory package for the R environment", example 1.
    """
    with_0 = [12, 19, 1, 7, 3, 19, 3, 17, 10, 5, 3, 7, 7, 23, 8, 28]
    with_1 = [7, 39, 11, 34, 14, 51, 15, 90, 6, 25, 7, 35, 18, 136, 32, 308]
    times = np.array([*with_0, *with_1])
    answers = (np.arange(32)[:, None] >> np.arange(4, -1, -1)) & 1
    found = lvm.LatentTrait(tol=1e-13, max_iter=5000).fit(answers, sample_weight=times)
    assert round(found.loglik_, 3) == -2658.805
    np.testing.assert_allclose(found.discrimination_, [0.988, 1.081, 1.706, 0.765, 0.736], atol=1.5e-3)
    np.testing.assert_allclose(found.intercept_, [1.856, 0.808, 1.804, 0.486, 1.855], atol=1.5e-3)


def test_lsat6_with_a_common_discrimination_has_the_published_fit() -> None:
    """-2466.938 and 0.755."""
    found = lvm.LatentTrait(discrimination="common", tol=1e-12).fit(ANSWERS, sample_weight=TIMES)
    assert round(found.loglik_, 3) == -2466.938
    np.testing.assert_array_equal(found.discrimination_.round(3), 0.755)
    assert found.n_parameters() == 6
    assert found.aic(ANSWERS, TIMES) == pytest.approx(2 * 2466.938 + 12, abs=2e-3)
    assert found.bic(ANSWERS, TIMES) == pytest.approx(2 * 2466.938 + 6 * np.log(1000), abs=2e-3)


def test_optimum_is_that_of_direct_maximisation() -> None:
    """A quasi-Newton method on the likelihood by an even grid of 201 nodes ends at the same parameters."""
    theta = np.linspace(-8, 8, 201)
    weight = norm.pdf(theta) / norm.pdf(theta).sum()

    def cost(vector: Any) -> float:
        odds = np.outer(theta, vector[:5]) + vector[5:]
        log_p = ANSWERS @ odds.T - np.logaddexp(0, odds).sum(axis=1)
        return -float(TIMES @ np.log(np.exp(log_p) @ weight))

    best = minimize(
        cost, np.concatenate([np.ones(5), [2.7, 1.0, 0.2, 1.3, 2.1]]), method="BFGS", options={"gtol": 1e-4}
    )
    found = lvm.LatentTrait(tol=1e-14, acceleration="anderson").fit(ANSWERS, sample_weight=TIMES)
    assert found.loglik_ == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(np.concatenate([found.discrimination_, found.intercept_]), best.x, atol=2e-3)


def test_equal_rows_weights_and_missing_cells() -> None:
    """Collapsed, weighted and repeated rows give one fit; a row of holes alone adds nothing."""
    repeated = np.repeat(ANSWERS, TIMES.astype(int), axis=0)
    weighted = lvm.LatentTrait().fit(ANSWERS, sample_weight=TIMES)
    for data, arguments in ((repeated, {}), (repeated, {"deduplicate": False}), (repeated.astype(bool), {})):
        found = lvm.LatentTrait(**arguments).fit(data)
        np.testing.assert_allclose(found.discrimination_, weighted.discrimination_, rtol=1e-9)
        assert found.loglik_ == pytest.approx(weighted.loglik_, rel=1e-12)
    more = np.vstack([ANSWERS, np.full(5, np.nan)])
    found = lvm.LatentTrait(tol=0, max_iter=20).fit(more, sample_weight=[*TIMES, 50.0])
    plain = lvm.LatentTrait(tol=0, max_iter=20).fit(ANSWERS, sample_weight=TIMES)
    np.testing.assert_allclose(found.discrimination_, plain.discrimination_, rtol=1e-9)
    mean, deviation = found.predict([[np.nan] * 5], return_std=True)
    assert mean[0] == pytest.approx(0.0, abs=1e-12)
    assert deviation[0] == pytest.approx(1.0, rel=1e-12)


def test_parameters_are_recovered() -> None:
    """From 20,000 persons, within five of the standard errors, about 0.05, that the first slopes have."""
    answers = LatentTraitModel().sample(TRUE, 20_000, np.random.RandomState(3))[0]
    holes = np.where(RNG.random(answers.shape) < 0.1, np.nan, answers)
    for data in (answers, holes):
        found = lvm.LatentTrait(n_nodes=61).fit(data)
        np.testing.assert_allclose(found.discrimination_, TRUE.slopes, rtol=0.25)
        np.testing.assert_allclose(found.intercept_, TRUE.intercepts, atol=0.3)


def test_scores_rank_persons() -> None:
    persons = pd.DataFrame(ANSWERS, columns=list("abcde"))
    found = lvm.LatentTrait().fit(persons, sample_weight=TIMES)
    scores, deviations = found.predict(persons, return_std=True)
    np.testing.assert_array_equal(found.transform(persons), scores[:, None])
    assert scores[0] == scores.min()  # of no right answer
    assert scores[-1] == scores.max()
    assert np.all((deviations > 0.5) & (deviations < 1))
    assert TIMES @ scores == pytest.approx(0.0, abs=1.0)  # at the optimum posterior means average near the prior's
    assert found.get_feature_names_out().tolist() == ["latenttrait0"]
    assert found.score_samples(persons) @ TIMES == pytest.approx(found.loglik_, rel=1e-12)
    assert found.score(persons, sample_weight=TIMES) == pytest.approx(found.loglik_ / 1000, rel=1e-12)
    assert found.sample(7).shape == (7, 5)


def test_steep_items_reach_the_bound_or_the_prior() -> None:
    """Two equal items would be told apart from the others by an infinite slope (a Heywood case)."""
    data = np.column_stack([X[:, 0], X[:, 0], X[:, 1:]])[:100]
    with pytest.warns(UserWarning, match=r"discrimination of item \d is at its bound of 20"):
        found = lvm.LatentTrait(max_iter=5000, acceleration="anderson").fit(data)
    assert np.abs(found.discrimination_).max() == MAX_SLOPE
    assert np.all(np.diff(found.objective_trace_) >= -1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        found = lvm.LatentTrait(discrimination_prior=(0.0, 0.5), acceleration="anderson").fit(data)
    assert np.all((found.discrimination_ > 0) & (found.discrimination_ < 10))


def test_reversed_items_have_negative_discriminations() -> None:
    data = X.copy()
    data[:, 1] = 1 - data[:, 1]
    plain, found = (lvm.LatentTrait(tol=1e-10, acceleration="anderson").fit(each) for each in (X, data))
    sign = np.array([1, -1, 1, 1])
    np.testing.assert_allclose(found.discrimination_ * sign, plain.discrimination_, rtol=1e-3)
    assert found.loglik_ == pytest.approx(plain.loglik_, abs=1e-5)


def test_sparse_nodes_are_noticed() -> None:
    params = TraitParams(np.full(40, 2.0), np.linspace(-2, 2, 40))
    data = LatentTraitModel().sample(params, 300, np.random.RandomState(0))[0]
    with pytest.warns(UserWarning, match=r"n_nodes=21 can integrate; set n_nodes to \d+ or more"):
        lvm.LatentTrait(n_nodes=21).fit(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lvm.LatentTrait(n_nodes=121).fit(data)


@pytest.mark.parametrize("n_nodes", [2, 41, 250])
def test_nodes_integrate_moments(n_nodes: int) -> None:
    model = LatentTraitModel(n_nodes=n_nodes)
    assert np.all(model.weights >= 0)
    assert model.weights @ model.nodes**2 == pytest.approx(1.0, rel=1e-10)


def test_save_and_load(tmp_path: Any) -> None:
    found = lvm.LatentTrait(discrimination_prior=(0.0, 1.0)).fit(ANSWERS, sample_weight=TIMES)
    lvm.save(found, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    np.testing.assert_array_equal(loaded.predict(ANSWERS), found.predict(ANSWERS))
    assert loaded.n_parameters() == 10
    found.intercept_ = np.ones(3)
    with pytest.raises(ValueError, match=r"intercept_ should be floats of shape \(5,\), got shape \(3,\)"):
        lvm.save(found, tmp_path / "model.lvm")


def fit(data: Any = ANSWERS, weight: Any = None, **arguments: Any) -> Any:
    return lvm.LatentTrait(**arguments).fit(data, sample_weight=weight)


def test_mistakes() -> None:
    perfect = ANSWERS.copy()
    perfect[:, 2] = 1
    partly = ANSWERS.copy()
    partly[0, 4] = 2
    empty = ANSWERS.copy()
    empty[:, 1] = np.nan
    for arguments, message in (
        ({"discrimination": "none"}, "discrimination must be one of 'free', 'common', got 'none'"),
        ({"discrimination_prior": 0.5}, r"must be a mean and a standard deviation .* such as \(0, 0.5\), got 0.5"),
        ({"discrimination_prior": (0, 0)}, "standard deviation of discrimination_prior must be > 0, got 0"),
        ({"discrimination_prior": (0, -1.0)}, "standard deviation of discrimination_prior must be a finite"),
        ({"n_nodes": 1}, "n_nodes must be an integer >= 2, got 1"),
        ({"n_nodes": 251}, "n_nodes must be at most 250, got 251"),
        ({"deduplicate": "no"}, "deduplicate must be True, False or 'auto', got 'no'"),
        ({"acceleration": "fast"}, "acceleration must be one of 'anderson'"),
        ({"discrimination_init": [1.0, 2.0]}, "'discrimination' should have the shape of"),
        ({"discrimination_init": [30.0] * 5}, "discrimination_init must lie within -20 and 20"),
        ({"discrimination_init": [-1.0] * 5, "discrimination_prior": (0, 1)}, "must lie within 0 and 20"),
        ({"discrimination_init": [1.0, 2, 1, 1, 1], "discrimination": "common"}, "needs equal values"),
        ({"data": pd.DataFrame(perfect, columns=list("abcde"))}, r"item 2 \('c'\): every answer is 1; remove it"),
        ({"weight": ANSWERS[:, 3] == 0}, "item 3: every answer is 0; remove it"),
        ({"data": partly}, "X must be 0 or 1 .* got 2.0 at row 0, column 4"),
        ({"data": empty}, "column 1 of X has no observed value"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(**arguments)
    holes = ANSWERS.copy()
    holes[1:, 1] = np.nan
    with pytest.raises(ValueError, match="item 1: every answer is 0"):
        fit(holes)
    with pytest.warns(ConvergenceWarning, match=r"EM did not converge \(n_iter=2\)"):
        fit(max_iter=2, weight=TIMES)


class Digits(lvm.LatentTrait):  # type: ignore[misc]  # final
    """What scikit-learn's checks feed are fractions: an item is whether a decimal of theirs is odd."""

    def _validate(self, X: Any, reset: bool) -> Any:
        from sklearn.utils.validation import validate_data

        X = validate_data(self, X, reset=reset, accept_sparse="csr", dtype="numeric")
        return np.floor(np.abs(X.toarray() if sparse.issparse(X) else np.asarray(X, float)) * 100) % 2

    def _check_items(self, answers: Any, ones: Any) -> None:
        """Some checks feed constants."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags._skip_test = False
        tags.input_tags.allow_nan = False
        return tags


@pytest.mark.filterwarnings("ignore:EM did not converge:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:answers fix:UserWarning")
@parametrize_with_checks([Digits(discrimination_prior=(0.0, 0.5), max_iter=100)])
def test_sklearn_check(estimator: Any, check: Any) -> None:
    check(estimator)


def test_two_items_do_not_determine_their_discriminations() -> None:
    answers = [[0, 0], [0, 1], [1, 0], [1, 1], [1, 1], [0, 0]]
    with pytest.warns(UserWarning, match=r"2 item\(s\) do not determine a discrimination each"):
        lvm.LatentTrait(max_iter=50, tol=0).fit(answers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lvm.LatentTrait(discrimination="common").fit(answers)
