"""Mixtures of von Mises-Fisher directions: what they recover, accept and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import fails, ran
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import vonmises_fisher
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

import lvm

NAMES = ["east", "north", "up"]


def draw(n: int, d: int, concentrations: Any, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return rows, as many of each component, their components, and orthogonal directions."""
    rng = np.random.RandomState(seed)
    K = len(concentrations)
    directions = np.linalg.qr(rng.normal(size=(d, K)))[0].T
    X = [vonmises_fisher.rvs(m, c, n // K, rng) for m, c in zip(directions, concentrations, strict=True)]
    return normalize(np.concatenate(X)), np.repeat(np.arange(K), n // K), np.ascontiguousarray(directions)


def make(n_components: int = 2, **arguments: Any) -> lvm.VonMisesFisherMixture:
    return lvm.VonMisesFisherMixture(n_components, **{"random_state": 0, "tol": 1e-10, **arguments})


def densities(mixture: Any, X: Any) -> Any:
    """Return log(weight density) of each row (K, n), by scipy."""
    parts = zip(mixture.weights_, mixture.directions_, mixture.concentrations_, strict=True)
    return np.array([np.log(w) + vonmises_fisher.logpdf(X, m, c) for w, m, c in parts])


# ----- what is fitted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("acceleration", [None, "anderson"])
@pytest.mark.parametrize(
    ("n", "d", "concentrations"),
    [(6000, 3, [5.0, 50.0]), (6000, 3, [1e6, 1e3]), (300, 1000, [500.0, 2000.0]), (300, 1000, [1e6, 1e6, 1e3])],
)
def test_parameters_are_recovered(n: int, d: int, concentrations: Any, acceleration: Any) -> None:
    X, label, directions = draw(n, d, concentrations)
    mixture = make(len(concentrations), acceleration=acceleration).fit(X)
    assert mixture.converged_
    assert np.diff(mixture.objective_trace_).min() > -1e-6
    assert_allclose(np.linalg.norm(mixture.directions_, axis=1), 1.0, atol=1e-14)
    found = np.argmax(directions @ mixture.directions_.T, axis=1)
    assert adjusted_rand_score(label, mixture.predict(X)) > 0.9
    # Five standard errors: a direction lies off by some sqrt((d - 1) / (n_k c)), which costs half its square in the
    # cosine, and c by sqrt(2 / ((d - 1) n_k)) of it.
    rows = n / len(concentrations)
    off = 1 - np.sum(directions * mixture.directions_[found], axis=1)
    assert np.all(off < 6 * d / (rows * np.array(concentrations)) + 1e-14)
    assert_allclose(mixture.concentrations_[found], concentrations, rtol=5 * np.sqrt(2 / ((d - 1) * rows)) + 0.02)
    assert_allclose(mixture.weights_, 1 / len(concentrations), atol=0.02)
    new, new_label, _ = draw(n, d, concentrations)
    assert adjusted_rand_score(new_label, mixture.predict(new)) > 0.9


@pytest.mark.parametrize(("d", "concentration"), [(2, 3.0), (3, 40.0), (50, 200.0)])
def test_one_component_is_the_fit_of_scipy(d: int, concentration: float) -> None:
    X, _, _ = draw(500, d, [concentration])
    mixture = make(1).fit(X)
    direction, found = vonmises_fisher.fit(X)
    assert_allclose(mixture.directions_[0], direction, atol=1e-12)
    assert mixture.concentrations_[0] == pytest.approx(found, rel=1e-6)  # as far as scipy solves for it


@pytest.mark.parametrize("d", [3, 50])
def test_probabilities_are_those_of_scipy(d: int) -> None:
    X, _, _ = draw(600, d, [0.2 * d, 2.0 * d])
    mixture = make().fit(X)
    joint = densities(mixture, X)
    loglik = np.logaddexp(*joint)
    assert_allclose(mixture.score_samples(X), loglik, rtol=1e-11, atol=1e-10)
    assert_allclose(mixture.predict_proba(X), np.exp(joint - loglik).T, atol=1e-10)
    assert mixture.loglik_ == pytest.approx(loglik.sum(), rel=1e-11)
    count = 1 + 2 * d
    assert mixture.n_parameters() == count
    assert mixture.bic(X) == pytest.approx(-2 * loglik.sum() + count * np.log(600), rel=1e-11)
    assert mixture.aic(X) == pytest.approx(-2 * loglik.sum() + 2 * count, rel=1e-11)
    entropy = -2 * np.log(mixture.predict_proba(X).max(axis=1)).sum()
    assert mixture.icl(X) == pytest.approx(mixture.bic(X) + entropy, rel=1e-11)


def test_texts() -> None:
    """With one large concentration for all components, the clusters are those of spherical k-means."""
    rng = np.random.RandomState(0)
    subjects = [["star", "orbit", "moon", "comet"], ["bread", "oven", "flour", "salt"], ["goal", "team", "ball", "cup"]]
    label = np.repeat(np.arange(3), 40)
    common = ["the", "and", "of", "very"]
    texts = [" ".join(rng.choice(subjects[k] * 2 + common, 12)) for k in label]
    X = TfidfVectorizer().fit_transform(texts).toarray()
    assert_allclose(np.linalg.norm(X, axis=1), 1.0)
    mixture = make(3, n_init=5).fit(X)
    assert adjusted_rand_score(label, mixture.predict(X)) > 0.9
    alike = make(3, fixed={"concentrations": [1e4] * 3}, equal_weights=True, n_init=5).fit(X)
    assigned = alike.predict(X)
    sums = np.array([X[assigned == k].sum(axis=0) for k in range(3)])
    assert_allclose(alike.directions_, normalize(sums), atol=1e-8)  # the centres of spherical k-means
    assert_array_equal(assigned, np.argmax(X @ alike.directions_.T, axis=1))
    assert adjusted_rand_score(assigned, KMeans(3, n_init=10, random_state=0).fit_predict(X)) > 0.9


def test_weights_are_repetitions() -> None:
    X, _, _ = draw(300, 4, [3.0, 20.0])
    times = np.random.RandomState(0).randint(0, 4, len(X))
    start = np.arange(len(X)) % 2
    weighted = make(init_params=start).fit(X, sample_weight=times)
    repeated = make(init_params=np.repeat(start, times)).fit(np.repeat(X, times, axis=0))
    assert_allclose(weighted.directions_, repeated.directions_, atol=1e-7)
    assert weighted.loglik_ == pytest.approx(repeated.loglik_, rel=1e-12)


def test_labels_are_kept() -> None:
    X, label, directions = draw(600, 3, [10.0, 10.0])
    some = np.where(np.arange(len(X)) % 3 == 0, 1 - label, -1)
    mixture = make().fit(X, labels=some)
    assert_array_equal(np.argmax(directions @ mixture.directions_.T, axis=1), [1, 0])


def test_starts_fixed_values_and_warm_starts() -> None:
    X, _, _ = draw(600, 3, [5.0, 20.0])
    mixture = make().fit(X)
    given = {f"{name}_init": getattr(mixture, f"{name}_") for name in ("weights", "directions", "concentrations")}
    assert make(**given).fit(X).n_iter_ <= 2
    assert make(directions_init=mixture.directions_, max_iter=500).fit(X).loglik_ == pytest.approx(mixture.loglik_)
    assert mixture.set_params(warm_start=True).fit(X).n_iter_ <= 2
    fixed = {"directions": [[0.0, 0.0, 1.0], [np.nan] * 3], "concentrations": [np.nan, 7.0]}
    held = make(fixed=fixed).fit(X)
    assert_array_equal(held.directions_[0], [0.0, 0.0, 1.0])
    assert held.concentrations_[1] == 7.0
    assert held.n_parameters() == mixture.n_parameters() - 3
    assert held.loglik_ < mixture.loglik_
    assert np.diff(held.objective_trace_).min() > -1e-8


def test_bounded_concentrations() -> None:
    X, _, _ = draw(300, 3, [5.0, 50.0])
    X[:60] = X[0]
    mixture = make(3, max_concentration=1e3).fit(X)
    assert mixture.concentrations_.max() == 1e3
    assert np.diff(mixture.objective_trace_).min() > -1e-8
    with pytest.raises(ValueError, match=r"has no maximum.* its points coincide to rounding; .* set max_concentration"):
        make(3).fit(X)


# ----- rows ---------------------------------------------------------------------------------------------------


def test_rows_are_scaled_to_unit_length() -> None:
    X, _, _ = draw(300, 3, [5.0, 50.0])
    factor = np.exp(np.random.RandomState(0).uniform(-300, 300, (len(X), 1)))
    scaled, plain = make(normalize=True).fit(X * factor), make().fit(X)
    assert_allclose(scaled.directions_, plain.directions_, atol=1e-9)
    assert_allclose(scaled.score_samples(X * factor), plain.score_samples(X), rtol=1e-9, atol=1e-9)
    assert make(normalize=True).fit(np.round(100 * X).astype(int)).loglik_ == pytest.approx(plain.loglik_, rel=0.05)


def test_forms_of_data() -> None:
    X = draw(300, 3, [5.0, 50.0])[0].astype(np.float32)
    expected = make().fit(X.astype(np.float64))
    for form in (X, X.tolist(), np.asfortranarray(X), pd.DataFrame(X, columns=NAMES)):
        assert_array_equal(make().fit(form).directions_, expected.directions_)


def test_saved_and_loaded(tmp_path: Path) -> None:
    X, _, _ = draw(300, 100, [50.0, 80.0])
    mixture = make(max_concentration=1e6).fit(X)
    lvm.save(mixture, tmp_path / "m.lvm")
    assert_array_equal(lvm.load(tmp_path / "m.lvm").score_samples(X), mixture.score_samples(X))


@pytest.mark.parametrize("d", [3, 200])
def test_samples_come_from_the_components(d: int) -> None:
    mixture = make().fit(draw(600, d, [d, 10.0 * d])[0])
    X, label = mixture.sample(6000)
    assert_allclose(np.linalg.norm(X, axis=1), 1.0, atol=1e-14)
    for k in range(2):
        one = make(1).fit(X[label == k])
        assert one.concentrations_[0] == pytest.approx(mixture.concentrations_[k], rel=0.1)
        # The cosine of the angle falls short by some (d - 1) / (2 n c): with c of the size of d, 1 / 6000 or less.
        assert one.directions_[0] @ mixture.directions_[k] > 1 - 1e-3


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    X, _, _ = draw(200, 3, [5.0, 50.0])
    pd.DataFrame(X, columns=NAMES).to_csv("data.csv", index=False)
    shown = ran("fit", "data.csv", "--family", "von_mises_fisher", "-k", "2", "--out", "out")
    assert "per column: direction, concentration" in shown
    assert f"{lvm.load('out/model.lvm').concentrations_[0]:.4g}" in shown
    assert ran("predict", "out/model.lvm", "data.csv").count("\n") == 201
    assert ran("sample", "out/model.lvm", "-n", "5").startswith("east,north,up,component")
    pd.DataFrame(3 * X, columns=NAMES).to_csv("data.csv", index=False)
    assert "got length 3 in row 0; divide each row" in fails("predict", "out/model.lvm", "data.csv")


# ----- what is refused ----------------------------------------------------------------------------------------


def test_wrong_rows_are_named() -> None:
    X, _, _ = draw(100, 3, [5.0, 50.0])
    mixture = make().fit(X)
    X[7] *= 1.5
    message = r"rows of X must have length 1, got length 1\.5 in row 7; .*sklearn\.preprocessing\.normalize"
    for method in (make().fit, mixture.predict):
        with pytest.raises(ValueError, match=message):
            method(X)
    X[7] = 0.0
    with pytest.raises(ValueError, match="row 7 of X has length 0, hence no direction"):
        make(normalize=True).fit(X)
    frame = pd.DataFrame(X, columns=NAMES)
    frame.loc[4, "up"] = np.nan
    with pytest.raises(ValueError, match=r"NaN at row 4, column 2 \('up'\)"):
        make(normalize=True).fit(frame)
    with pytest.raises(ValueError, match=r"X has 1 feature\(s\), but directions need a minimum of 2"):
        make().fit(np.ones((5, 1)))


UNIT = np.eye(2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalize": 1}, "normalize must be True or False, got 1"),
        ({"max_concentration": -2.0}, "max_concentration must be a finite number >= 0, got -2"),
        ({"directions_init": 2 * UNIT}, "directions must have length 1, got length 2 in component 0"),
        ({"concentrations_init": [1.0, -1.0]}, "concentrations must be finite and >= 0, got -1 in component 1"),
        (
            {"concentrations_init": [1.0, 30.0], "max_concentration": 20.0},
            "concentrations must not exceed max_concentration=20, got 30 in component 1",
        ),
        ({"fixed": {"directions": [[np.nan] * 3, [1.0, 1.0, 0.0]]}}, r"got length 1\.41421 in component 1"),
        ({"fixed": {"concentrations": [[1.0], [2.0]]}}, r"should have the shape of \(2,\), but got \(2, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments).fit(draw(100, 3, [5.0, 50.0])[0])
