"""The latent class estimator: recorded optima, recovery, missing cells, what a fit tells, mistakes."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from answers import CATEGORIES, NAMES, PROBABILITIES, answers, started
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

import lvm
from lvm import CategoricalMixture

# ----- fits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["latent_class_carcinoma", "latent_class_verbalaggression", "bernoulli_missing_ability"]
)
def test_recorded_optima(name: str, reference_folder: Path) -> None:
    """From poLCA's starts, its path and its optimum, where a quarter of the items' answers may be missing."""
    record = json.loads((reference_folder / name / "result.json").read_text())
    X = pd.read_csv(reference_folder / name / "data.csv")
    assert len(record["fits_polca"]) >= 4
    for peer in record["fits_polca"]:
        mixture = CategoricalMixture(
            peer["G"],
            weights_init=peer["start_weights"],
            probabilities_init=peer["start_probs"],
            tol=1e-14,
            max_iter=5000,
        ).fit(X)
        assert mixture.loglik_ == pytest.approx(peer["loglik"], rel=1e-8)
        assert mixture.n_parameters() == peer["n_parameters"]
        assert mixture.bic(X) == pytest.approx(peer["bic"], rel=1e-8)
        assert mixture.aic(X) == pytest.approx(peer["aic"], rel=1e-8)
        assert_allclose(mixture.objective_trace_[[1, 2, 5, 10]], peer["loglik_after_iterations_1_2_5_10"], rtol=1e-8)
        # Probabilities near the optimum: the log-likelihood is flat there, and poLCA stops earlier.
        for column, probabilities in zip(record["items"], mixture.probabilities_, strict=True):
            assert_allclose(probabilities, peer["probs"][column], atol=2e-4)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_agrees_with_stepmix(missing: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        stepmix = pytest.importorskip("stepmix.stepmix")
    rng = np.random.RandomState(1)
    n, d, c = 400, 5, 3
    p = rng.dirichlet(np.ones(c), (2, d))
    X = (rng.uniform(size=(n, d, 1)) > np.cumsum(p, axis=2)[rng.randint(2, size=n)][:, :, :-1]).sum(axis=2)
    X = np.where(rng.uniform(size=(n, d)) < missing, np.nan, X.astype(float))
    weights, start = np.array([0.4, 0.6]), 0.5 * p + 0.5 * p.mean(axis=0)

    class Started(stepmix.StepMix):  # type: ignore[misc, name-defined]  # untyped
        def _initialize_parameters(self, X: Any, random_state: Any) -> None:
            sizes = {"max_n_outcomes": c, "total_outcomes": d * c}
            measurement = {"pis": start.reshape(2, d * c), **sizes}
            self.set_parameters({"weights": weights, "measurement": measurement, "measurement_in": d})

    options = {"abs_tol": 0, "rel_tol": 0, "max_iter": 25, "progress_bar": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = Started(2, measurement="categorical_nan" if missing else "categorical", **options).fit(X)
        desired = float(peer.score(X)) * n
    mixture = CategoricalMixture(
        2, weights_init=weights, probabilities_init=start.swapaxes(0, 1), tol=0, max_iter=25
    ).fit(X)
    assert mixture.loglik_ == pytest.approx(desired, rel=1e-9)
    found = peer.get_parameters()["measurement"]["pis"]
    assert_allclose(np.concatenate(mixture.probabilities_, axis=1), found, atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.15])
@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_recovers_the_classes(missing: float, init_params: str) -> None:
    X, z = answers(6000, missing)
    mixture = CategoricalMixture(2, init_params=init_params, n_init=10, random_state=0).fit(X)
    order = np.argsort(mixture.weights_)
    # Five times the standard error of a share, about 0.01 with classes that overlap.
    assert_allclose(mixture.weights_[order], [0.4, 0.6], atol=0.07)
    for found, p, known, categories in zip(
        mixture.probabilities_, PROBABILITIES, mixture.categories_, CATEGORIES, strict=True
    ):
        assert known.tolist() == categories
        assert_allclose(found[order], p, atol=0.07)
        assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    assert np.mean(order[z] == mixture.predict(X)) > 0.8
    assert mixture.n_parameters() == 1 + 2 * (2 + 3 + 1)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_weights_are_repeated_rows(missing: float) -> None:
    X, _ = answers(200, missing)
    weight = np.random.RandomState(3).randint(0, 4, len(X))
    weight[:20] = 1  # every category occurs
    weighted = CategoricalMixture(2, random_state=0, tol=1e-9).fit(X, sample_weight=weight)
    repeated = CategoricalMixture(2, random_state=0, tol=1e-9).fit(X.loc[np.repeat(np.arange(200), weight)])
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, rel=1e-12)
    for a, b in zip(weighted.probabilities_, repeated.probabilities_, strict=True):
        assert_allclose(a, b, atol=1e-9)
    rows = X.loc[np.repeat(np.arange(200), weight)]
    assert weighted.bic(X, sample_weight=weight) == pytest.approx(repeated.bic(rows), rel=1e-12)
    fit, same = weighted.goodness_of_fit(X, weight), repeated.goodness_of_fit(rows)
    assert_allclose(fit, same, rtol=1e-6)
    assert weighted.entropy_r2(X, weight) == pytest.approx(repeated.entropy_r2(rows), rel=1e-8)
    assert_allclose(weighted.average_posteriors(X, weight), repeated.average_posteriors(rows), rtol=1e-8)


@pytest.mark.parametrize("deduplicate", [True, False])
def test_collapsing_changes_nothing(deduplicate: bool) -> None:
    X, _ = answers(500, 0.1)
    both = [started(deduplicate=value, tol=0, max_iter=20).fit(X) for value in ("auto", deduplicate)]
    assert both[0].loglik_ == pytest.approx(both[1].loglik_, rel=1e-13)


def test_labels() -> None:
    X, z = answers(600, 0.1)
    known = np.where(np.arange(600) % 3 == 0, 1 - z, -1)  # the classes the other way round
    mixture = CategoricalMixture(2, random_state=0).fit(X, labels=known)
    assert mixture.weights_[0] == pytest.approx(0.6, abs=0.1)
    mask = np.where(known[:, None] < 0, 1, np.equal.outer(known, np.arange(2)))
    assert_allclose(CategoricalMixture(2, random_state=0).fit(X, labels=mask).weights_, mixture.weights_, atol=1e-6)


def test_fixed_priors_and_warm_start() -> None:
    X, _ = answers(500)
    held = [np.where([[True], [False]], p, np.nan) for p in PROBABILITIES]
    mixture = CategoricalMixture(2, fixed={"probabilities": held}, random_state=0).fit(X)
    for found, p in zip(mixture.probabilities_, PROBABILITIES, strict=True):
        assert_array_equal(found[0], p[0])
        assert np.abs(found[1] - p[1]).max() > 1e-4
    assert mixture.n_parameters() == 1 + 6
    smooth = CategoricalMixture(1, alpha=3.0).fit(X)
    counts = X["size"].value_counts()[CATEGORIES[1]].to_numpy()
    assert_allclose(smooth.probabilities_[1][0], (counts + 2) / (counts + 2).sum(), rtol=1e-12)
    warm = started(warm_start=True, max_iter=3, tol=0).fit(X).fit(X)
    assert_array_equal(warm.objective_trace_, started(max_iter=6, tol=0).fit(X).objective_trace_[3:])
    part = warm.fit(X[X["size"] != 9])  # categories of the last fit stay
    assert part.categories_[1].tolist() == CATEGORIES[1]
    assert part.probabilities_[1].shape == (2, 4)


def test_acceleration_reaches_the_same_optimum() -> None:
    X, _ = answers(400, 0.1)
    plain, fast = (started(tol=1e-12, max_iter=20_000, acceleration=a).fit(X) for a in (None, "anderson"))
    assert fast.loglik_ == pytest.approx(plain.loglik_, rel=1e-9)
    assert fast.n_iter_ < plain.n_iter_


def test_a_category_that_a_subsample_lacks_is_possible() -> None:
    X = np.random.RandomState(5).randint(0, 2, (60_000, 3)).astype(object)
    X[31, 1] = 7
    mixture = CategoricalMixture(2, max_iter=2, random_state=0, tol=0).fit(X)
    assert np.isfinite(mixture.score_samples(X[30:32])).all()


# ----- tables ------------------------------------------------------------------------------------------------------


def test_every_kind_of_table_gives_the_same_fit() -> None:
    X, _ = answers(300, 0.1)
    expected = started(tol=0, max_iter=5).fit(X)
    nullable = X.astype({"colour": "category", "size": "Int64", "sold": "boolean"})
    text = X.astype({"colour": "string"})
    for form in (X.to_numpy(), X.to_numpy().tolist(), nullable, text):
        fitted = started(tol=0, max_iter=5).fit(form)
        assert fitted.loglik_ == expected.loglik_
        assert_array_equal(fitted.predict_proba(form), expected.predict_proba(X))
    codes = np.random.RandomState(0).randint(0, 3, (200, 4))
    fits = [
        CategoricalMixture(2, random_state=0).fit(np.asarray(codes, dtype))
        for dtype in (np.int64, np.uint8, np.float32, np.float64, np.str_)
    ]
    assert len({fit.loglik_ for fit in fits}) == 1
    assert_array_equal(fits[0].predict(codes.astype(float)), fits[0].predict(codes))


def test_selection_takes_lists_of_text_and_numbers() -> None:
    X = [["a", 1], ["b", 2], ["a", 1], [None, 2]] * 10
    for criterion in ("bic", "heldout"):
        best = lvm.select(CategoricalMixture(random_state=0), X, n_components=1, criterion=criterion).best
        assert [column.tolist() for column in best.categories_] == [["a", "b"], [1, 2]]
    assert best.predict(X).shape == (40,)


def test_category_order_and_unobserved_categories() -> None:
    X = pd.DataFrame({"size": pd.Categorical(["s", "l", "s", "l"], ["s", "m", "l"]), "other": [1, 2, 1, 2]})
    mixture = CategoricalMixture(1).fit(X)
    assert mixture.categories_[0].tolist() == ["s", "l"]
    given = CategoricalMixture(1, alpha=2.0, categories=[["l", "m", "s"], [1, 2]]).fit(X)
    assert given.categories_[0].tolist() == ["l", "m", "s"]
    assert_allclose(given.probabilities_[0], [[3 / 7, 1 / 7, 3 / 7]], rtol=1e-12)
    assert given.n_parameters() == 2 + 1
    assert np.isfinite(given.score_samples(pd.DataFrame({"size": ["m"], "other": [1]}))).all()


def test_unknown_categories() -> None:
    X, _ = answers(200)
    new = X.head(3).copy()
    new.loc[2, "colour"] = "mauve"
    with pytest.raises(ValueError, match=r"column 0 \('colour'\) of X holds 'mauve' at row 2, which is not among the"):
        started().fit(X).predict(new)
    lenient = started(handle_unknown="ignore").fit(X)
    gap = new.copy()
    gap.loc[2, "colour"] = None
    assert_array_equal(lenient.predict_proba(new), lenient.predict_proba(gap))
    assert lenient.impute(new)[2, 0] in CATEGORIES[0]


def test_missing_cells() -> None:
    X, _ = answers(400, 0.2)
    mixture = started().fit(X)
    row = pd.DataFrame({"colour": ["red"], "size": [None], "sold": [True]})
    whole = [row.assign(size=[value]) for value in CATEGORIES[1]]
    desired = np.logaddexp.reduce([mixture.score_samples(table)[0] for table in whole])
    assert mixture.score_samples(row)[0] == pytest.approx(desired, rel=1e-12)
    posterior = mixture.predict_proba(row)[0] @ mixture.probabilities_[1]
    filled = mixture.impute(row)
    assert filled.tolist() == [["red", CATEGORIES[1][posterior.argmax()], True]]
    everything = mixture.impute(X)
    seen = X.notna().to_numpy()
    assert (everything[seen] == X.to_numpy()[seen]).all()
    assert pd.DataFrame(everything).notna().all(axis=None)
    assert_allclose(mixture.score_samples(pd.DataFrame([[None] * 3], columns=NAMES)), 0.0, atol=1e-12)


def test_samples_are_categories() -> None:
    X, _ = answers(300)
    mixture = started(random_state=0).fit(X)
    drawn, classes = mixture.sample(20_000)
    assert drawn.shape == (20_000, 3)
    assert drawn.dtype == object
    assert type(drawn[0, 1]) is int
    for k in range(2):
        for j, categories in enumerate(CATEGORIES):
            shares = [np.mean(drawn[classes == k, j] == category) for category in categories]
            # Five standard errors of a share of 1/2 among at least 5,000 rows.
            assert_allclose(shares, mixture.probabilities_[j][k], atol=5 * 0.5 / np.sqrt(5000))
    numbers = CategoricalMixture(1, random_state=0).fit(np.array([[1, 5], [2, 5]])).sample(4)[0]
    assert numbers.dtype == np.int64


# ----- what a fit tells --------------------------------------------------------------------------------------------


def test_goodness_of_fit_of_the_saturated_table() -> None:
    X = np.array([["a", "x"]] * 3 + [["a", "y"]] * 2 + [["b", "x"]] * 1 + [["b", None]])
    mixture = CategoricalMixture(1).fit(X)
    g2, x2, df, n_patterns = fit = mixture.goodness_of_fit(X)
    observed = np.array([3.0, 2.0, 1.0, 0.0])
    a, x = 5 / 7, 4 / 6
    expected = 6 * np.array([a * x, a * (1 - x), (1 - a) * x, (1 - a) * (1 - x)])
    assert g2 == pytest.approx(2 * sum(o * np.log(o / e) for o, e in zip(observed, expected, strict=True) if o))
    assert x2 == pytest.approx(((observed - expected) ** 2 / expected).sum())
    assert (df, n_patterns) == (1.0, 3)
    from scipy.stats import chi2

    assert fit.g_squared_p_value == pytest.approx(chi2.sf(g2, 1))
    assert fit.chi_squared_p_value == pytest.approx(chi2.sf(x2, 1))
    assert np.isnan(CategoricalMixture(2, random_state=0).fit(X).goodness_of_fit(X).g_squared_p_value)


def test_separation() -> None:
    X, _ = answers(400, 0.1)
    mixture = started().fit(X)
    resp = mixture.predict_proba(X)
    entropy = -(resp * np.log(resp)).sum()
    assert mixture.entropy_r2(X) == pytest.approx(1 - entropy / (400 * np.log(2)))
    means = [resp[resp.argmax(axis=1) == k].mean(axis=0) for k in range(2)]
    assert_allclose(mixture.average_posteriors(X), means, rtol=1e-12)


def test_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = answers(300)
    mixture = started().fit(X)
    table = mixture.profile()
    assert table.columns.tolist() == ["component_0", "component_1"]
    assert table.index.tolist()[:3] == [("class size", ""), ("colour", "blue"), ("colour", "green")]
    assert len(table) == 1 + 9
    assert_array_equal(table.loc["class size"].to_numpy()[0], mixture.weights_)
    assert_array_equal(table.loc[("size", 5)], mixture.probabilities_[1][:, 2])
    features, categories = zip(*table.index, strict=True)
    values = table["component_1"].to_numpy()
    unnamed = CategoricalMixture(1).fit([["a"], ["b"]])
    monkeypatch.setitem(sys.modules, "pandas", None)
    plain = mixture.profile()
    assert plain.dtype.names == ("feature", "category", "component_0", "component_1")
    assert plain.feature.tolist() == list(features)
    assert plain.category.tolist() == list(categories)
    assert_array_equal(plain.component_1, values)
    assert unnamed.profile().feature.tolist() == ["class size", "column 0", "column 0"]


# ----- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"handle_unknown": "skip"}, r"handle_unknown must be one of 'error', 'ignore', got 'skip'\."),
        ({"alpha": 0.5}, r"alpha must be a finite number >= 1, got 0.5\."),
        ({"categories": [["red"]]}, r"categories must be 'auto' or a list .* each of the 3 columns, got 1 lists"),
        ({"categories": [["blue", "red"], *CATEGORIES[1:]]}, r"column 0 \('colour'\) of X holds 'green' at row \d"),
        ({"probabilities_init": PROBABILITIES[:2]}, r"probabilities_init should be a list of 3 arrays, .* got 2\."),
        ({"probabilities_init": 0.5}, r"probabilities_init should be a list of 3 arrays, .* got 0.5\."),
        (
            {"probabilities_init": [PROBABILITIES[0][:, :2], *PROBABILITIES[1:]]},
            r"probabilities_init\[0\] should have the shape of \(2, 3\), as 'colour' has 3 categories, but got",
        ),
        (
            {"probabilities_init": [*PROBABILITIES[:2], [[0.5, 0.5], [1.2, -0.2]]]},
            r"within \[0, 1\], got 1.2 in component 1, category False of 'sold'\.",
        ),
        (
            {"probabilities_init": [*PROBABILITIES[:2], [[0.5, 0.25], [0.5, 0.5]]]},
            r"probabilities of component 0 in 'sold' sum to 0.75, not 1\.",
        ),
        ({"probabilities_init": [*PROBABILITIES[:2], [[np.nan] * 2] * 2]}, r"contains NaN or infinity"),
        (
            {"fixed": {"probabilities": [*PROBABILITIES[:2], [[0.5, np.nan], [0.5, 0.5]]]}},
            r"fixed\['probabilities'\] holds NaN in a part of component 0",
        ),
        ({"fixed": {"probabilities": PROBABILITIES[:1]}}, r"fixed\['probabilities'\] should be a list of 3 arrays"),
        ({"fixed": {"means": [1]}}, r"fixed may hold 'weights', 'probabilities', got 'means'"),
        ({"deduplicate": "no"}, r"deduplicate must be True, False or 'auto', got 'no'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CategoricalMixture(2, **arguments).fit(answers(50)[0])


def test_wrong_tables_are_refused() -> None:
    X, _ = answers(50)
    with pytest.raises(ValueError, match=r"column 1 \('size'\) of X has no observed value; remove it"):
        started().fit(X.assign(size=None))
    with pytest.raises(ValueError, match=r"column 0 of X has no observed value"):
        CategoricalMixture(1).fit([[np.nan, 1.0], [np.nan, 2.0]])
    with pytest.raises(ValueError, match=r"column 1 \('size'\) of X mixes text and numbers, such as 'large' and 1"):
        started().fit(X.assign(size=[1, "large"] * 25))
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        started().fit(X).predict(X[["size", "colour", "sold"]])
    with pytest.raises(ValueError, match=r"X has 2 features, but CategoricalMixture is expecting 3 features"):
        started().fit(X.to_numpy()).predict(X.to_numpy()[:, :2])
    with pytest.raises(ValueError, match=r"n_components = 3, n_samples = 2"):
        CategoricalMixture(3).fit([["a"], ["b"]])


def test_a_fit_that_does_not_converge_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        started(max_iter=1).fit(answers(100)[0])
