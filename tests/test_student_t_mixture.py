"""StudentTMixture: recorded optima, outliers in starts and fits, and what users call."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import fails, ran
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

import lvm
from lvm.marginals import marginal_densities

Array = NDArray[np.float64]
CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
KINDS = ("full", "diag")
TIGHT: dict[str, Any] = {"tol": 1e-15, "max_iter": 20_000}


def clusters(n: int = 200, seed: int = 0) -> Array:
    rng = np.random.RandomState(seed)
    return np.concatenate([centre + rng.standard_normal((n, 2)) for centre in CENTRES])


def with_outliers(clean: Array, seed: int = 0) -> Array:
    """Return the rows, and one in 20 more, uniform in a box ten times as wide as theirs."""
    low, high = clean.min(axis=0), clean.max(axis=0)
    middle, half = (low + high) / 2, 5 * (high - low)
    n = len(clean) // 19
    return np.concatenate([clean, np.random.RandomState(1000 + seed).uniform(middle - half, middle + half, (n, 2))])


def furthest(mixture: Any) -> float:
    """Return the greatest distance of a true centre to the nearest mean."""
    return float(np.linalg.norm(mixture.means_[:, None] - CENTRES, axis=2).min(axis=0).max())


def two_t(n: int = 300, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    rng = np.random.RandomState(seed)
    y = rng.choice(2, n, p=[0.4, 0.6])
    X = rng.standard_normal((n, 2)) @ [[1.0, 0.5], [0.0, 0.8]] * np.sqrt(5 / rng.chisquare(5, (n, 1)))
    return X + np.array([[0.0, 0.0], [6.0, 3.0]])[y], y


# ----- recorded optima --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [("separate", "own_ecme_free_nu"), ("common", "own_ecme_common_nu"), (4.0, "own_em_nu_fixed_4")],
)
@pytest.mark.parametrize("start", ["parameters", "labels", "own"])
def test_faithful(given: Any, name: str, start: str, reference_folder: Path) -> None:
    folder = reference_folder / "student_t_faithful"
    X = np.loadtxt(folder / "data.csv", delimiter=",", skiprows=1)
    record = json.loads((folder / "result.json").read_text())
    starts: dict[str, Any] = {"random_state": 0}
    if start == "labels":
        starts = {"init_params": record["start_labels_0based"]}
    elif start == "parameters":
        starts = {"weights_init": record["start_weights"], "means_init": record["start_means"]}
        starts |= {"scatters_init": record["start_scale_matrices"]}
        starts |= {} if given == 4.0 else {"degrees_of_freedom_init": [20.0, 20.0]}
    mixture = lvm.StudentTMixture(2, degrees_of_freedom=given, reg_covar=0, **TIGHT, **starts).fit(X)
    order = np.argsort(mixture.means_[:, 0])
    assert_allclose(mixture.loglik_, record[name]["loglik"], rtol=1e-8 / 1129)
    assert mixture.n_parameters() == record[name]["n_parameters"]
    assert_allclose(mixture.means_[order], record[name]["means"], rtol=1e-4)  # the optimum is flat
    assert_allclose(mixture.scatters_[order], record[name]["scale_matrices"], rtol=1e-3)
    assert_allclose(mixture.degrees_of_freedom_[order], record[name]["nu"], rtol=1e-3)


# ----- outliers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_init", [1, 5])
def test_the_start_is_not_fooled_by_outliers(n_init: int, kind: str) -> None:
    """k-means on all rows sends a component after the outliers, in each of 20 such samples."""
    for seed in range(4):
        X = with_outliers(clusters(seed=seed), seed)
        arguments: dict[str, Any] = {"covariance_type": kind, "n_init": n_init, "random_state": seed, "tol": 1e-6}
        assert furthest(lvm.StudentTMixture(3, **arguments).fit(X)) < 0.5  # standard errors are 0.07
        assert furthest(lvm.GaussianMixture(3, **arguments).fit(X)) > 2


def test_small_and_unequal_clusters_are_no_outliers() -> None:
    rng = np.random.RandomState(0)
    X = np.concatenate(
        [rng.standard_normal((450, 2)), rng.standard_normal((30, 2)) + 20, rng.standard_normal((20, 2)) + 40]
    )
    mixture = lvm.StudentTMixture(3, random_state=0).fit(X)
    assert_allclose(np.sort(mixture.weights_), [0.04, 0.06, 0.9], atol=1e-3)


def test_labelled_rows_stay_in_the_start() -> None:
    """Component 1 has one row alone, far from all others, and it is labelled."""
    X = np.concatenate([clusters()[:200], [[50.0, 50.0]]])
    labels = np.append(np.full(200, -1), 1)
    mixture = lvm.StudentTMixture(2, reg_covar=0.1, max_iter=0, random_state=0)
    for known in (labels, np.column_stack([labels != 1, np.ones(201)])):
        mixture.fit(X, labels=known)
        if known.ndim == 1:
            assert_allclose(mixture.means_[1], [50, 50], atol=1.0)
        assert mixture.predict(X)[-1] == 1


def test_robustness_weights() -> None:
    X = with_outliers(clusters())
    for kind in KINDS:
        mixture = lvm.StudentTMixture(3, covariance_type=kind, degrees_of_freedom="common", random_state=0).fit(X)
        u, resp = mixture.robustness_weights(X), mixture.predict_proba(X)
        expected = np.zeros(len(X))
        for k, nu in enumerate(mixture.degrees_of_freedom_):
            scatter = mixture.scatters_[k] if kind == "full" else np.diag(mixture.scatters_[k])
            centred = X - mixture.means_[k]
            delta = np.einsum("ij,jk,ik->i", centred, np.linalg.inv(scatter), centred)
            expected += resp[:, k] * (nu + 2) / (nu + delta)
        assert_allclose(u, expected, rtol=1e-10)
        outlying = np.arange(len(X)) >= 600
        assert stats.rankdata(u)[outlying].mean() < 0.05 * len(X)
        # At a fixed point the sums of r u and of r agree, component by component (Kent, Tyler & Vardi, 1994).
        assert_allclose(u.mean(), 1, atol=1e-3)
        assert mixture.robustness_weights([[1e150, 0.0]])[0] < 1e-290


# ----- what users call --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_scipys(kind: str) -> None:
    X, _ = two_t()
    weight = np.random.RandomState(1).uniform(0.5, 2.0, len(X))
    mixture = lvm.StudentTMixture(2, covariance_type=kind, random_state=0).fit(X, sample_weight=weight)
    scatters = mixture.scatters_ if kind == "full" else [np.diag(row) for row in mixture.scatters_]
    triples = zip(mixture.means_, scatters, mixture.degrees_of_freedom_, strict=True)
    joint = np.column_stack([stats.multivariate_t.logpdf(X, m, s, df=nu) for m, s, nu in triples])
    joint += np.log(mixture.weights_)
    each = logsumexp(joint, axis=1)
    resp, total = np.exp(joint - each[:, None]), float(weight @ each)
    assert_allclose(mixture.score_samples(X), each, rtol=1e-10)
    assert_allclose(mixture.predict_proba(X), resp, rtol=1e-8, atol=1e-14)
    assert_array_equal(mixture.predict(X), resp.argmax(axis=1))
    assert_allclose(mixture.loglik_, total, rtol=1e-12)
    p = mixture.n_parameters()
    assert p == (1 + 4 + 6 + 2 if kind == "full" else 1 + 4 + 4 + 2)
    assert_allclose(mixture.aic(X, weight), -2 * total + 2 * p, rtol=1e-12)
    bic = -2 * total + p * np.log(weight.sum())
    assert_allclose(mixture.bic(X, weight), bic, rtol=1e-12)
    assert_allclose(mixture.icl(X, weight), bic - 2 * weight @ np.log(resp.max(axis=1)), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_recovered(kind: str) -> None:
    X, y = two_t(20_000)
    mixture = lvm.StudentTMixture(2, covariance_type=kind, random_state=0).fit(X)
    order = np.argsort(mixture.means_[:, 0])
    assert_allclose(mixture.means_[order], [[0, 0], [6, 3]], atol=0.06)  # standard errors are about 0.015
    assert_allclose(mixture.weights_[order], [0.4, 0.6], atol=0.02)
    assert np.mean(order[y] == mixture.predict(X)) > 0.98
    if kind == "full":
        assert_allclose(mixture.degrees_of_freedom_, 5, rtol=0.2)
        scatter = np.array([[1.0, 0.5], [0.5, 0.89]])
        assert_allclose(mixture.scatters_, [scatter, scatter], rtol=0.1)
        assert_allclose(mixture.covariances_[order[0]], scatter * 5 / 3, rtol=0.15)


def test_sampling() -> None:
    X, _ = two_t(2000)
    mixture = lvm.StudentTMixture(2, degrees_of_freedom=5, random_state=0).fit(X)
    drawn, y = mixture.sample(40_000)
    for k in range(2):
        z = (drawn[y == k] - mixture.means_[k])[:, 0] / np.sqrt(mixture.scatters_[k, 0, 0])
        assert stats.kstest(z, stats.t(5).cdf).pvalue > 1e-3


def test_covariances_exist_above_two_degrees_of_freedom() -> None:
    X, _ = two_t()
    for kind in KINDS:
        fixed = {"degrees_of_freedom": [2.0, 4.0]}
        mixture = lvm.StudentTMixture(2, covariance_type=kind, fixed=fixed, random_state=0).fit(X)
        assert mixture.covariances_.shape == mixture.scatters_.shape
        assert np.isnan(mixture.covariances_[0]).all()
        assert_allclose(mixture.covariances_[1], 2 * mixture.scatters_[1], rtol=1e-15)
    assert not hasattr(lvm.StudentTMixture(), "covariances_")


@pytest.mark.parametrize("kind", KINDS)
def test_row_weights_are_repeated_rows(kind: str) -> None:
    X, _ = two_t(150)
    weight = np.random.RandomState(2).randint(0, 4, 150)
    start = {"means_init": [[0.0, 0.0], [6.0, 3.0]], "init_params": np.repeat([0, 1], 75)}
    shape = [[[1.0, 0], [0, 1]]] * 2 if kind == "full" else np.ones((2, 2))
    start |= {"scatters_init": shape, "weights_init": [0.5, 0.5], "degrees_of_freedom_init": [5.0, 9.0]}
    mixture = lvm.StudentTMixture(2, covariance_type=kind, max_iter=30, tol=0, **start)
    ends = [mixture.fit(X, sample_weight=weight).get_params() and vars(mixture).copy()]
    mixture.fit(np.repeat(X, weight, axis=0))
    for name in ("loglik_", "weights_", "means_", "scatters_", "degrees_of_freedom_"):
        assert_allclose(ends[0][name], getattr(mixture, name), rtol=1e-9, err_msg=name)


def test_labels_mask_and_warm_start() -> None:
    X, y = two_t()
    known = np.where(np.arange(len(X)) % 5 == 0, 1 - y, -1)
    mixture = lvm.StudentTMixture(2, random_state=0).fit(X, labels=known)
    assert mixture.means_[0, 0] > mixture.means_[1, 0]
    mask = np.where(known[:, None] < 0, True, known[:, None] == np.arange(2))
    other = lvm.StudentTMixture(2, random_state=0).fit(X, labels=mask)
    assert_allclose(other.loglik_, mixture.loglik_, rtol=1e-6)
    again = mixture.set_params(warm_start=True).fit(X, labels=known)
    assert again.n_iter_ <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_given_values(kind: str) -> None:
    X, _ = two_t()
    held = np.array([[0.5, 0.5], [np.nan, np.nan]])
    mixture = lvm.StudentTMixture(2, covariance_type=kind, fixed={"means": held}, random_state=0).fit(X)
    assert_array_equal(mixture.means_[0], held[0])
    assert mixture.n_parameters() == (13 if kind == "full" else 11) - 2
    scatters = np.stack([np.eye(2)] * 2) if kind == "full" else np.ones((2, 2))
    mixture = lvm.StudentTMixture(2, covariance_type=kind, fixed={"scatters": scatters}, random_state=0).fit(X)
    assert_array_equal(mixture.scatters_, scatters)
    means = [[0.0, 0.0], [6.0, 3.0]]
    start = lvm.StudentTMixture(2, covariance_type=kind, means_init=means, max_iter=0).fit(X)
    assert_array_equal(start.means_, means)
    one = lvm.StudentTMixture(2, covariance_type=kind, degrees_of_freedom="common", random_state=0).fit(X)
    assert one.degrees_of_freedom_[0] == one.degrees_of_freedom_[1]
    fixed = lvm.StudentTMixture(2, covariance_type=kind, degrees_of_freedom=3, random_state=0).fit(X)
    assert_array_equal(fixed.degrees_of_freedom_, [3, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    X, _ = two_t()
    mixture = lvm.StudentTMixture(2, covariance_type=kind, degrees_of_freedom=1.5, random_state=0)
    mixture.fit(pd.DataFrame(X, columns=["a", "b"]))
    lvm.save(mixture, tmp_path / "t.lvm")
    loaded = lvm.load(tmp_path / "t.lvm")
    frame = pd.DataFrame(X, columns=["a", "b"])
    for method in ("predict_proba", "score_samples", "robustness_weights"):
        assert_array_equal(getattr(loaded, method)(frame), getattr(mixture, method)(frame))
    assert loaded.degrees_of_freedom == 1.5
    assert np.isnan(loaded.covariances_).all()


def test_every_form_of_rows() -> None:
    X = two_t()[0].astype(np.float32)
    mixture = lvm.StudentTMixture(2, random_state=0).fit(X)
    for form in (X.tolist(), X.astype(np.float64), pd.DataFrame(X), np.asfortranarray(X)):
        other = lvm.StudentTMixture(2, random_state=0).fit(form)
        assert other.loglik_ == mixture.loglik_


def test_more_rows_than_a_start_looks_at() -> None:
    X = np.concatenate([with_outliers(clusters(17_500))])
    weight = np.ones(len(X))
    weight[:100] = 0
    mixture = lvm.StudentTMixture(3, random_state=0, max_iter=20, tol=0).fit(X, sample_weight=weight)
    assert furthest(mixture) < 0.5


def test_mistakes() -> None:
    X, _ = two_t(50)
    holes = pd.DataFrame(X, columns=["a", "b"])
    holes.iloc[7, 1] = np.nan
    for arguments, data, message in (
        ({"covariance_type": "tied"}, X, "covariance_type must be .*'tied'"),
        ({"degrees_of_freedom": "all"}, X, "degrees_of_freedom must be 'separate', 'common' or .*'all'"),
        ({"degrees_of_freedom": 0}, X, "finite number > 0, got 0"),
        ({"reg_covar": -1.0}, X, "reg_covar"),
        ({"scatters_init": -np.ones((2, 2)), "covariance_type": "diag"}, X, "scatters must be finite and > 0, got -1"),
        ({"scatters_init": np.ones((2, 2))}, X, "scatters"),
        ({"degrees_of_freedom": 4, "degrees_of_freedom_init": [3, 4]}, X, "fixed at 4"),
        ({}, holes, "'b'"),
        ({"reg_covar": 0.0}, np.repeat(X[:1], 9, axis=0), "distinct"),
    ):
        with pytest.raises(ValueError, match=message):
            lvm.StudentTMixture(2, **arguments).fit(data)
    with pytest.warns(RuntimeWarning, match="hides its structure"):
        lvm.StudentTMixture(2, reg_covar=1e3, max_iter=0).fit(X)
    mixture = lvm.StudentTMixture(2, max_iter=0).fit(X).set_params(covariance_type="diag")
    with pytest.raises(ValueError, match="fit again after a change of covariance_type"):
        mixture.predict(X)


# ----- pictures and the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_pictures(kind: str) -> None:
    """Ellipses show scatters, which there are for any degrees of freedom."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse

    X = with_outliers(clusters())
    mixture = lvm.StudentTMixture(3, covariance_type=kind, degrees_of_freedom=1.0, random_state=0).fit(X)
    (ax,) = lvm.plotting.plot_mixture(mixture, X, figure=Figure()).axes
    ellipses = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    scatters = mixture.scatters_ if kind == "full" else np.stack([np.diag(row) for row in mixture.scatters_])
    axes = [sorted(np.square([e.width / 2, e.height / 2])) for e in ellipses[::2]]
    assert_allclose(axes, np.linalg.eigvalsh(scatters), rtol=1e-10)
    x = np.linspace(-3.0, 9.0, 7)
    scale = np.sqrt(scatters[:, 1, 1])
    expected = stats.cauchy.pdf(x, mixture.means_[:, [1]], scale[:, None])
    assert_allclose(marginal_densities(mixture, 1, x), expected, rtol=1e-12)
    figure = lvm.plotting.plot_mixture(mixture, X, columns=[0], figure=Figure())
    assert figure.axes[0].get_xlabel() == "column 0"


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    X = pd.DataFrame(with_outliers(clusters()), columns=["x", "y"])
    X.to_csv("data.csv", index=False)
    family = ("--family", "student_t", "-k", "3")
    shown = ran("fit", "data.csv", *family, "--covariance", "all", "--degrees-of-freedom", "common", "--out", "out")
    assert "StudentTMixture, K = 3" in shown
    assert "mean (scale)" in shown
    assert "degrees of freedom: " in shown
    assert {"full", "diag"} == set(pd.read_csv("out/selection.csv")["covariance_type"])
    model = lvm.load("out/model.lvm")
    assert furthest(model) < 0.5
    predicted = pd.read_csv(io.StringIO(ran("predict", "out/model.lvm", "data.csv")))
    assert_array_equal(predicted["component"], model.predict(X))
    assert len(pd.read_csv(io.StringIO(ran("sample", "out/model.lvm", "-n", "7")))) == 7
    ran("fit", "data.csv", *family, "--degrees-of-freedom", "4", "--reg-covar", "0.1", "--out", "four")
    four = lvm.load("four/model.lvm")
    assert (four.degrees_of_freedom, four.reg_covar) == (4.0, 0.1)
    assert "--covariance must be of full, diag, or all, got 'tied'" in fails(
        "fit", "data.csv", *family, "--covariance", "tied"
    )
    assert "must be 'separate', 'common' or a finite number > 0" in fails(
        "fit", "data.csv", *family, "--degrees-of-freedom", "many"
    )
    assert "is for --family student_t" in fails("fit", "data.csv", "--degrees-of-freedom", "4")
