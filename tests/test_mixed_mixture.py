"""Mixtures for columns of several kinds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import fails, run
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import norm, poisson
from sklearn.compose import make_column_selector

import lvm
from lvm.families import Bernoulli, Categorical, DiagGaussian, FullGaussian, Poisson, Product
from lvm.protocol import Rows
from lvm.testing import model_checks

NAN = np.nan
BLOCKS = [
    ("size", "gaussian", ["height", "weight"]),
    ("colour", "categorical", ["colour"]),
    ("visits", "poisson", ["visits"]),
]


def table(n: int = 400, seed: int = 0, missing: float = 0.0) -> pd.DataFrame:
    """Return two kinds of rows, which differ in every column; `kind` is the truth, in no block."""
    rng = np.random.RandomState(seed)
    kind = (rng.rand(n) < 0.4).astype(int)
    frame = pd.DataFrame(
        {
            "height": rng.normal(np.where(kind, 180.0, 165.0), 6.0),
            "kind": kind,
            "colour": np.where(
                rng.rand(n) < np.where(kind, 0.8, 0.2), "red", np.where(rng.rand(n) < 0.5, "blue", "green")
            ),
            "visits": rng.poisson(np.where(kind, 7.0, 2.0)).astype(float),
            "weight": rng.normal(np.where(kind, 85.0, 70.0), 8.0),
        }
    )
    if missing:
        for name in ("height", "colour", "visits", "weight"):
            frame.loc[rng.rand(n) < missing, name] = None
    return frame


def fitted(frame: pd.DataFrame, **arguments: Any) -> Any:
    return lvm.MixedMixture(BLOCKS, 2, **{"random_state": 0, **arguments}).fit(frame)


def order(mixture: Any) -> Any:
    return np.argsort(mixture.parameters_["size"]["means"][:, 0])


# ----- the family -----------------------------------------------------------------------------------------------


def _family_case(missing: bool) -> tuple[Any, Any, Any]:
    rng = np.random.RandomState(0)
    z = rng.rand(300) < 0.4
    X = np.column_stack(
        [
            rng.randn(300) + 3 * z,
            rng.poisson(np.where(z, 6, 2)),
            rng.randn(300) * 2 - z,
            rng.rand(300) < np.where(z, 0.8, 0.3),
            rng.randint(0, 3, 300) * z,
        ]
    ).astype(np.float64)
    if missing:
        X[rng.rand(*X.shape) < 0.2] = NAN
    gaussian = DiagGaussian(reg_covar=0.05)
    family = Product(
        [
            ("a", gaussian, [0, 2]),
            ("b", Poisson(rates_prior=(1.5, 0.1)), [1]),
            ("c", Bernoulli(alpha=1.5), [3]),
            ("d", Categorical([3]), [4]),
        ]
    )
    params = family.params(
        {
            "a": gaussian.params(np.array([[0.0, 0.0], [3.0, -1.0]]), np.array([[1.0, 4.0], [1.0, 4.0]])),
            "b": Poisson().params(np.array([[2.0], [6.0]])),
            "c": Bernoulli().params(np.array([[0.3], [0.8]])),
            "d": Categorical([3]).params(np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3]])),
        }
    )
    return lvm.Mixture(family), lvm.MixtureParams(np.array([0.5, 0.5]), params), Rows(X)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{'holes' if missing else 'whole'}-{check}")
        for missing in (False, True)
        for check in model_checks(*_family_case(missing))
    ],
)
def test_conformance(check: Any) -> None:
    check()


def test_a_product_of_one_block_is_its_family(iris: Any) -> None:
    family = FullGaussian()
    model = lvm.Mixture(Product([("all", family, [0, 1, 2, 3])]))
    start = lvm.MixtureParams(np.ones(2) / 2, family.params(iris[[0, 100]], np.stack([np.eye(4)] * 2)))
    joint = start._replace(components=model.family.params({"all": start.components}))
    one, other = (lvm.fit_em(m, iris, p) for m, p in ((model, joint), (lvm.Mixture(family), start)))
    # Responsibilities below 1e-20 are kept here and left out there.
    assert_allclose(one.loglik, other.loglik, rtol=1e-12)
    assert one.n_iter == other.n_iter
    fast = lvm.fit_anderson(model, iris, joint, tol=1e-10)
    assert fast.loglik >= one.loglik - 1e-6


# ----- the estimator --------------------------------------------------------------------------------------------


def test_recovers_what_was_simulated() -> None:
    frame = table(4000)
    mixture = fitted(frame)
    small, tall = order(mixture)
    assert_allclose(mixture.weights_[[small, tall]], [0.6, 0.4], atol=0.03)
    assert_allclose(mixture.parameters_["size"]["means"][[small, tall]], [[165, 70], [180, 85]], atol=1.0)
    assert_allclose(mixture.parameters_["visits"]["rates"][[small, tall], 0], [2.0, 7.0], atol=0.3)
    (probabilities,) = mixture.parameters_["colour"]["probabilities"]
    assert mixture.categories_["colour"][0].tolist() == ["blue", "green", "red"]
    assert_allclose(probabilities[[small, tall], 2], [0.2, 0.8], atol=0.05)
    assert np.mean((mixture.predict(frame) == tall) == (frame["kind"] == 1)) > 0.95
    assert mixture.columns_["size"].tolist() == [0, 4]


def brute_force(mixture: Any, frame: pd.DataFrame) -> Any:
    """Return each row's log-likelihood by scipy, factors of missing cells left out."""
    size, colours = mixture.parameters_["size"], mixture.parameters_["colour"]["probabilities"][0]
    known = mixture.categories_["colour"][0].tolist()
    out = np.empty(len(frame))
    for i, row in enumerate(frame.itertuples()):
        joint = np.log(mixture.weights_)
        for k in range(2):
            for value, mean, variance in zip(
                (row.height, row.weight), size["means"][k], size["covariances"][k], strict=True
            ):
                joint[k] += 0.0 if pd.isna(value) else norm.logpdf(value, mean, np.sqrt(variance))
            joint[k] += (
                0.0 if pd.isna(row.visits) else poisson.logpmf(row.visits, mixture.parameters_["visits"]["rates"][k, 0])
            )
            joint[k] += 0.0 if pd.isna(row.colour) else np.log(colours[k, known.index(row.colour)])
        out[i] = logsumexp(joint)
    return out


@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_likelihood_is_that_of_the_observed_cells(missing: float) -> None:
    frame = table(300, missing=missing)
    mixture = fitted(frame)
    expected = brute_force(mixture, frame)
    assert_allclose(mixture.score_samples(frame), expected, rtol=1e-11, atol=1e-15)
    assert mixture.loglik_ == pytest.approx(expected.sum(), rel=1e-12)
    assert np.diff(mixture.objective_trace_).min() > -1e-9
    assert mixture.n_parameters() == 1 + 2 * (2 + 2 + 2 + 1)
    assert mixture.aic(frame) == pytest.approx(-2 * expected.sum() + 2 * 15, rel=1e-12)


def test_an_empty_row_tells_nothing() -> None:
    frame = table(200)
    empty = pd.DataFrame({name: pd.Series([None], dtype=object) for name in frame.columns})
    mixture = fitted(frame)
    assert mixture.score_samples(empty)[0] == pytest.approx(0.0, abs=1e-15)
    assert_allclose(mixture.predict_proba(empty)[0], mixture.weights_, rtol=1e-14)


def test_impute() -> None:
    frame = table(400, missing=0.2)
    mixture = fitted(frame)
    filled, resp = mixture.impute(frame), mixture.predict_proba(frame)
    for column, name in enumerate(frame.columns):
        observed = frame[name].notna().to_numpy()
        assert (filled[observed, column] == frame[name][observed].to_numpy()).all()
    gone = frame["height"].isna().to_numpy()
    assert_allclose(filled[gone, 0].astype(float), resp[gone] @ mixture.parameters_["size"]["means"][:, 0], rtol=1e-12)
    gone = frame["colour"].isna().to_numpy()
    best = (resp[gone] @ mixture.parameters_["colour"]["probabilities"][0]).argmax(axis=1)
    assert filled[gone, 2].tolist() == mixture.categories_["colour"][0][best].tolist()


@pytest.mark.parametrize("form", ["names", "positions", "slice", "mask", "selector", "array"])
def test_columns_are_chosen_as_in_a_column_transformer(form: str) -> None:
    frame = table(200)[["height", "weight", "visits", "colour"]]
    chosen: dict[str, tuple[Any, Any, Any]] = {
        "names": (["height", "weight"], "colour", ["visits"]),
        "positions": ([0, 1], -1, 2),
        "slice": (slice(0, 2), [3], [2]),
        "mask": ([True, True, False, False], [False, False, False, True], 2),
        "selector": (make_column_selector("eight$"), make_column_selector(dtype_include=[object, "string"]), 2),
        "array": ([0, 1], [3], [2]),
    }
    size, colour, visits = chosen[form]
    blocks = [("size", "gaussian_diag", size), ("colour", "categorical", colour), ("visits", Poisson(), visits)]
    X = frame.to_numpy() if form == "array" else frame
    mixture = lvm.MixedMixture(blocks, 2, random_state=0).fit(X)
    expected = lvm.MixedMixture(
        [
            ("size", "gaussian", ["height", "weight"]),
            ("colour", "categorical", ["colour"]),
            ("visits", "poisson", ["visits"]),
        ],
        2,
        random_state=0,
    ).fit(frame)
    assert mixture.loglik_ == expected.loglik_


def test_full_covariance_inside_a_block() -> None:
    frame = table(500)
    frame["weight"] += 0.8 * (frame["height"] - 170)
    blocks = [("size", "gaussian_full", ["height", "weight"]), ("visits", "poisson", ["visits"])]
    mixture = lvm.MixedMixture(blocks, 2, random_state=0).fit(frame)
    assert mixture.parameters_["size"]["covariances"].shape == (2, 2, 2)
    independent = lvm.MixedMixture([("size", "gaussian", ["height", "weight"]), blocks[1]], 2, random_state=0).fit(
        frame
    )
    assert mixture.bic(frame) < independent.bic(frame)
    frame.loc[3, "height"] = None
    again = mixture.fit(frame)
    assert abs(again.impute(frame)[3, 0] - 170) < 60


def test_weights_labels_and_given_values() -> None:
    frame = table(200, missing=0.1)
    twice = np.random.RandomState(0).randint(0, 3, 200)
    start = {
        "weights_init": [0.5, 0.5],
        "parameters_init": {
            "size": {"means": [[165, 70], [180, 85]], "covariances": [[30, 60], [30, 60]]},
            "colour": {"probabilities": [[[0.4, 0.4, 0.2], [0.1, 0.1, 0.8]]]},
            "visits": {"rates": [[2], [7]]},
        },
    }
    weighted = lvm.MixedMixture(BLOCKS, 2, **start).fit(frame, sample_weight=twice)
    repeated = lvm.MixedMixture(BLOCKS, 2, **start).fit(frame.loc[np.repeat(frame.index, twice)].reset_index(drop=True))
    assert_allclose(weighted.loglik_, repeated.loglik_, rtol=1e-11)
    labels = np.where(np.arange(200) < 60, frame["kind"], -1)
    known = fitted(frame, init_params="random").fit(frame, labels=labels)
    assert (order(known) == [0, 1]).all()
    fixed = {"size": {"means": [[160.0, 70.0], [NAN, NAN]]}, "visits": {"rates": [[3.0], [8.0]]}, "weights": [0.5, 0.5]}
    held = fitted(frame, fixed=fixed)
    assert held.parameters_["size"]["means"][0].tolist() == [160.0, 70.0]
    assert held.parameters_["visits"]["rates"].tolist() == [[3.0], [8.0]]
    assert held.weights_.tolist() == [0.5, 0.5]
    assert held.n_parameters() == 15 - 1 - 2 - 2
    assert np.diff(held.objective_trace_).min() > -1e-9


def test_save_and_load(tmp_path: Path) -> None:
    frame = table(300, missing=0.1)
    mixture = fitted(frame)
    lvm.save(mixture, tmp_path / "mixed.lvm")
    twin = lvm.load(tmp_path / "mixed.lvm")
    assert np.array_equal(mixture.predict_proba(frame), twin.predict_proba(frame))
    assert twin.sample(5)[0].tolist() == mixture.sample(5)[0].tolist()
    assert twin.blocks == [list(block) for block in BLOCKS] or twin.blocks == BLOCKS


def test_sample_has_the_distribution_of_the_fit() -> None:
    mixture = fitted(table(1000))
    X, y = mixture.sample(20_000)
    assert X.shape == (20_000, 5)
    assert X[:, 1].tolist() == [None] * 20_000
    for k in range(2):
        mine = X[y == k]
        size = mixture.parameters_["size"]
        # 5 standard errors
        error = 5 * np.sqrt(size["covariances"][k] / len(mine))
        assert np.all(np.abs(mine[:, [0, 4]].astype(float).mean(axis=0) - size["means"][k]) < error)
        rate = mixture.parameters_["visits"]["rates"][k, 0]
        assert abs(mine[:, 3].astype(float).mean() - rate) < 5 * np.sqrt(rate / len(mine))
        for place, name in enumerate(mixture.categories_["colour"][0]):
            p = mixture.parameters_["colour"]["probabilities"][0][k, place]
            assert abs(np.mean(mine[:, 2] == name) - p) < 5 * np.sqrt(p * (1 - p) / len(mine)) + 1e-9


def test_unknown_categories() -> None:
    mixture, new = fitted(table(200)), table(3)
    new.loc[1, "colour"] = "violet"
    with pytest.raises(ValueError, match=r"column 0 \('colour'\) of X holds 'violet' at row 1"):
        mixture.predict(new)
    ignoring = fitted(table(200), handle_unknown="ignore")
    blank = new.copy()
    blank.loc[1, "colour"] = None
    assert np.array_equal(ignoring.predict_proba(new), ignoring.predict_proba(blank))


def test_rare_categories_of_many_rows_are_not_impossible() -> None:
    """A start on a subsample of 50,000 rows lacks the one row of its category."""
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.randn(60_000), rng.randint(0, 3, 60_000)])
    for place in rng.randint(0, 60_000, 4):
        X[place, 1] = 3 + place
    blocks = [("x", "gaussian", [0]), ("c", "categorical", [1])]
    mixture = lvm.MixedMixture(blocks, 2, max_iter=2, tol=0, random_state=0).fit(X)
    assert np.isfinite(mixture.loglik_)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], r"blocks must be a list of \(name, family, columns\), got \[\]"),
        ("gaussian", "blocks must be a list"),
        ([("a", "gaussian")], r"a block must be \(name, family, columns\), got \('a', 'gaussian'\)"),
        ([("weights", "gaussian", [0])], "a block's name must be text without '__', and not 'weights', got 'weights'"),
        ([("a", "gaussian", ["height"]), ("a", "poisson", ["visits"])], "two blocks have the name 'a'"),
        (
            [("a", "laplace", ["height"])],
            "there is no family 'laplace'; expected one of categorical, gaussian, student_t, bernoulli",
        ),
        ([("a", "gaussian", [])], "block 'a' has no columns"),
        ([("a", "gaussian", ["size"])], "block 'a' names the column 'size'; X has 'height', 'kind'"),
        ([("a", "gaussian", [7])], "block 'a' has the column 7; expected names, or positions below 5"),
        ([("a", "gaussian", [0, 0])], "block 'a' has column 0 twice"),
        ([("a", "gaussian", [True])], "the mask of block 'a' has 1 entries, but X has 5 columns"),
        ([("a", "gaussian", [0, 4]), ("b", "poisson", [4])], "column 'weight' is in the blocks 'a' and 'b'"),
        (
            [("a", "gaussian", ["colour"])],
            r"column 2 \('colour'\) of block 'a' holds '(red|blue|green)' at row 0, expected numbers",
        ),
        ([("a", "poisson", ["height"])], r"block 'a': X must be whole .* row 0, column 0 \('height'\)"),
        ([("a", "bernoulli", ["visits"])], r"block 'a': X must be 0 or 1 .* row \d+, column 3 \('visits'\)"),
    ],
)
def test_wrong_blocks_are_refused(blocks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.MixedMixture(blocks, 2).fit(table(50))


def test_mistakes_in_the_data_and_in_given_values() -> None:
    frame = table(50)
    with pytest.raises(ValueError, match="names the column 'height', but X has no column names; give a data frame"):
        lvm.MixedMixture(BLOCKS, 2).fit(frame.to_numpy())
    with pytest.raises(ValueError, match=r"fixed may hold the blocks 'size', 'colour', 'visits', got 'shape'"):
        fitted(frame, fixed={"shape": {"means": 1}})
    with pytest.raises(ValueError, match=r"parameters_init\['size'\] may hold 'means', 'covariances', got 'rates'"):
        fitted(frame, parameters_init={"size": {"rates": 1}})
    gone = frame.assign(height=np.nan)
    with pytest.raises(ValueError, match=r"column 0 \('height'\) of X has no observed value; remove it"):
        fitted(gone)
    gone = frame.assign(colour=None)
    with pytest.raises(ValueError, match=r"column 2 \('colour'\) of X has no observed value"):
        fitted(gone)
    frame.loc[4, "weight"] = np.inf
    with pytest.raises(ValueError, match=r"block 'size'.*infinity at row 4"):
        fitted(frame)


# ----- the command line -----------------------------------------------------------------------------------------


def test_command_line(folder: Path) -> None:
    table(300, missing=0.1).to_csv("people.csv", index=False)
    blocks = ["--block", "size=gaussian:height,weight", "--block", "categorical:colour", "--block", "poisson:visits"]
    done = run("fit", "people.csv", "--family", "mixed", *blocks, "-k", "2", "--out", "out")
    assert "MixedMixture, K = 2" in done.stdout
    assert "red (0." in done.stdout
    mixture = lvm.load(folder / "out" / "model.lvm")
    assert list(mixture.feature_names_in_) == ["height", "weight", "colour", "visits"]
    assert [name for name, _, _ in mixture.blocks] == ["size", "categorical", "poisson"]
    predicted = pd.read_csv(io.StringIO(run("predict", "out/model.lvm", "people.csv").stdout))
    assert (
        predicted["component"].tolist() == mixture.predict(table(300, missing=0.1)[mixture.feature_names_in_]).tolist()
    )
    drawn = pd.read_csv(io.StringIO(run("sample", "out/model.lvm", "-n", "50").stdout))
    assert set(drawn["colour"]) <= {"red", "green", "blue"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--family mixed needs blocks: --block gaussian:height,weight"),
        (
            ["--block", "gaussian"],
            "--block must look like gaussian:height,weight or size=gaussian:height,weight, got 'ga",
        ),
        (["--block", "=gaussian:height"], "--block must look like gaussian:height,weight"),
        (["--block", "laplace:height"], "there is no family 'laplace'; expected one of categorical, gaussian"),
        (["--block", "gaussian:depth"], "people.csv has no column 'depth'"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_mistakes_on_the_command_line(options: list[str], message: str) -> None:
    table(30).to_csv("people.csv", index=False)
    assert message in fails("fit", "people.csv", "--family", "mixed", *options, "-k", "2")
