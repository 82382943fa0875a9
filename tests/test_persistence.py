"""Saving and loading: equal to the bit, no code run, and a clear word about every file that is not a model."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import lvm
from lvm import persistence
from lvm.result import Status

RNG = np.random.default_rng(3)
REALS = np.concatenate([RNG.normal(size=(60, 3)), RNG.normal(4.0, 2.0, size=(60, 3))])
BITS = (RNG.random((120, 4)) < np.where(np.arange(120)[:, None] < 60, 0.2, 0.8)).astype(int)
COUNTS = RNG.poisson(np.where(np.arange(120)[:, None] < 60, [1, 5, 9, 2], [8, 2, 1, 4]))

FITS: dict[str, tuple[Any, Any]] = {
    **{
        kind: (lvm.GaussianMixture(2, covariance_type=kind, random_state=0), REALS)
        for kind in ("full", "tied", "diag", "spherical")
    },
    "bernoulli": (lvm.BernoulliMixture(2, alpha=1.5, random_state=0), BITS),
    "multinomial": (lvm.MultinomialMixture(2, random_state=0), COUNTS),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.lvm"
    lvm.save(lvm.GaussianMixture(2, random_state=0).fit(REALS), path)
    return path


def rewrite(path: Path, edit: Any) -> None:
    """Change the manifest and the members of a model file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    edit(manifest, members)
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", FITS)
def test_equal_to_the_bit(name: str, tmp_path: Path) -> None:
    estimator, X = FITS[name]
    estimator.fit(X)
    first, second = tmp_path / "first.lvm", tmp_path / "second.lvm"
    lvm.save(estimator, first)
    loaded = lvm.load(first)
    lvm.save(loaded, second)
    assert first.read_bytes() == second.read_bytes()
    assert type(loaded) is type(estimator)
    assert loaded.get_params() == estimator.get_params()
    assert set(vars(loaded)) == set(vars(estimator))
    for method in ("predict", "predict_proba", "score_samples"):
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(estimator, method)(X))
    assert loaded.bic(X) == estimator.bic(X)
    assert loaded.n_parameters() == estimator.n_parameters()
    for drawn, expected in zip(loaded.sample(20), estimator.sample(20), strict=True):
        np.testing.assert_array_equal(drawn, expected)
    assert loaded.status_ is Status.CONVERGED
    assert loaded.loglik_.hex() == estimator.loglik_.hex()
    np.testing.assert_array_equal(loaded.objective_trace_, estimator.objective_trace_)
    assert loaded.lower_bounds_ == estimator.lower_bounds_


def test_a_loaded_model_can_be_fitted_again(model: Path) -> None:
    loaded = lvm.load(model)
    np.testing.assert_array_equal(loaded.fit(REALS).means_, lvm.load(model).means_)


def test_column_names(tmp_path: Path) -> None:
    frame = pd.DataFrame(REALS, columns=["höhe", "b", "c [cm]"])
    lvm.save(lvm.GaussianMixture(2, random_state=0).fit(frame), tmp_path / "m.lvm")
    loaded = lvm.load(tmp_path / "m.lvm")
    assert loaded.feature_names_in_.tolist() == ["höhe", "b", "c [cm]"]
    loaded.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[["b", "höhe", "c [cm]"]])


def test_parameters_that_are_arrays_or_not_finite(tmp_path: Path) -> None:
    estimator = lvm.GaussianMixture(
        2,
        means_init=REALS[[0, 100]],
        weights_init=[0.1, 0.9],
        init_params=np.arange(120) % 2,
        tol=np.float64(0.1),
        max_iter=np.int64(7),
        warm_start=np.bool_(True),
    ).fit(REALS)
    # -inf stands here where a start degenerated; nan and inf must come back too.
    estimator.restarts_ = np.array([-np.inf, np.nan, 1.0])
    estimator.lower_bounds_ = [float("inf"), float("nan"), -0.0, 0.1, 5e-324]
    lvm.save(estimator, tmp_path / "m.lvm")
    loaded = lvm.load(tmp_path / "m.lvm")
    np.testing.assert_array_equal(loaded.means_init, REALS[[0, 100]])
    np.testing.assert_array_equal(loaded.init_params, np.arange(120) % 2)
    assert loaded.weights_init == [0.1, 0.9]
    assert (loaded.tol, loaded.max_iter, loaded.warm_start) == (0.1, 7, True)
    np.testing.assert_array_equal(loaded.restarts_, [-np.inf, np.nan, 1.0])
    assert list(map(repr, loaded.lower_bounds_)) == ["inf", "nan", "-0.0", "0.1", "5e-324"]


@pytest.mark.parametrize(("given", "kept"), [(5, 5), (np.int64(5), 5), (None, None), (np.random.RandomState(0), None)])
def test_random_state(given: Any, kept: Any, tmp_path: Path) -> None:
    lvm.save(lvm.GaussianMixture(1, random_state=given).fit(REALS), tmp_path / "m.lvm")
    assert lvm.load(tmp_path / "m.lvm").random_state == kept


def test_another_status(tmp_path: Path) -> None:
    with pytest.warns(ConvergenceWarning):
        estimator = lvm.GaussianMixture(2, max_iter=1, random_state=0).fit(REALS)
    lvm.save(estimator, tmp_path / "m.lvm")
    assert lvm.load(tmp_path / "m.lvm").status_ is Status.MAX_ITER


# ----- what save refuses ------------------------------------------------------------------------------------------


def test_save_refuses(tmp_path: Path) -> None:
    fitted = lvm.GaussianMixture(2, random_state=0).fit(REALS)
    with pytest.raises(NotFittedError, match="not fitted"):
        lvm.save(lvm.GaussianMixture(2), tmp_path / "m.lvm")
    with pytest.raises(
        TypeError, match=r"save expects a fitted BayesianLinearRegression, .* or VonMisesFisherMixture, got dict"
    ):
        lvm.save({}, tmp_path / "m.lvm")
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent to write m\.lvm into; create it"):
        lvm.save(fitted, tmp_path / "absent" / "m.lvm")
    with pytest.raises(ValueError, match="is a folder; expected the name of a file"):
        lvm.save(fitted, tmp_path)
    with pytest.raises(TypeError, match="cannot save parameters init_params of type set"):
        lvm.save(fitted.set_params(init_params={1}), tmp_path / "m.lvm")
    fitted.set_params(init_params="kmeans", covariance_type="diag")
    with pytest.raises(ValueError, match=r"cannot save .*: covariances_ should be floats of shape \(2, 3\), got shape"):
        lvm.save(fitted, tmp_path / "m.lvm")
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_the_same_name_is_refused(tmp_path: Path) -> None:
    impostor = type("GaussianMixture", (), {})()
    with pytest.raises(TypeError, match="save expects"):
        lvm.save(impostor, tmp_path / "m.lvm")


def test_a_failed_save_leaves_the_old_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(persistence.np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        lvm.save(lvm.GaussianMixture(1).fit(REALS), model)
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


# ----- what load refuses ------------------------------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model file .*absent\.lvm; check the path"):
        lvm.load(tmp_path / "absent.lvm")
    with pytest.raises(ValueError, match="is a folder; expected a model file"):
        lvm.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", pickle.dumps({"a": 1})])
def test_foreign_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other is not a model written by lvm\.save"):
        lvm.load(path)


def test_a_foreign_zip(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match=r"is a zip file but not a model .* no manifest\.json"):
        lvm.load(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated(model: Path, share: float) -> None:
    content = model.read_bytes()
    model.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="cut short"):
        lvm.load(model)


def test_every_flipped_byte_is_found_or_harmless(model: Path) -> None:
    content = bytearray(model.read_bytes())
    expected = lvm.load(model).predict_proba(REALS)
    for position in range(0, len(content), 97):
        content[position] ^= 0xFF
        model.write_bytes(bytes(content))
        try:
            loaded = lvm.load(model)
        except ValueError:
            pass
        else:  # a date, say
            np.testing.assert_array_equal(loaded.predict_proba(REALS), expected)
        content[position] ^= 0xFF


def pickled(_: Any, members: Any) -> None:
    """Put an array of objects, which only pickle could read, in the place of the means."""
    with zipfile.ZipFile("objects.npz", "w") as archive, archive.open("m.npy", "w") as file:
        np.lib.format.write_array(file, np.array([Unsafe()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile("objects.npz") as archive:
        members["fitted/means_.npy"] = archive.read("m.npy")


class Unsafe:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code was run')",)


EDITS: dict[str, tuple[Any, str]] = {
    "format": (lambda m, _: m.update(format="other"), r"has the format 'other', expected 'lvm-model'"),
    "newer": (
        lambda m, _: m.update(format_version=2, lvm_version="9.1"),
        r"format version 2, expected at most 1: it was written by lvm 9\.1, and this is lvm .*; upgrade lvm",
    ),
    "version": (lambda m, _: m.update(format_version="1"), "its format version is '1'"),
    "class": (
        lambda m, _: m.update({"class": "os.system"}),
        r"holds a 'os\.system', expected BayesianLinearRegression",
    ),
    "class list": (lambda m, _: m.update({"class": ["GaussianMixture"]}), "expected BayesianLinearRegression"),
    "parameter": (lambda m, _: m["parameters"].update(trick=1), "has a parameter 'trick' that GaussianMixture lacks"),
    "method": (lambda m, _: m["fitted"].update(predict=1), "'predict' is not a fitted attribute"),
    "private": (lambda m, _: m["fitted"].update(__class__=1), "'__class__' is not a fitted attribute"),
    "no weights": (lambda m, _: m["fitted"].pop("weights_"), "weights_ is missing"),
    "no means": (lambda m, _: m["fitted"].pop("means_"), r"means_ should be floats of shape \(2, 3\), got None"),
    "features": (lambda m, _: m["fitted"].update(n_features_in_=4), r"means_ should be floats of shape \(2, 4\)"),
    "no features": (lambda m, _: m["fitted"].update(n_features_in_=0), "n_features_in_ is 0"),
    "covariance": (
        lambda m, _: m["parameters"].update(covariance_type="x"),
        "covariance_type must be one of .* got 'x'",
    ),
    "names": (lambda m, _: m["fitted"].update(feature_names_in_={"strings": ["a"]}), "should have 3 names"),
    "status": (lambda m, _: m["fitted"].update(status_={"status": "FINE"}), "KeyError: 'FINE'"),
    "kind": (lambda m, _: m["fitted"].update(loglik_={"python": "1+1"}), "unknown kind 'python'"),
    "no array": (lambda _, members: members.pop("fitted/means_.npy"), "no item named 'fitted/means_.npy'"),
    "short array": (
        lambda _, members: members.update({"fitted/means_.npy": members["fitted/means_.npy"][:-8]}),
        "damaged or edited",
    ),
    "pickle": (pickled, "Object arrays cannot be loaded when allow_pickle=False"),
    "no section": (lambda m, _: m.pop("fitted"), "damaged or edited"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edited(name: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    edit, message = EDITS[name]
    rewrite(model, edit)
    with pytest.raises(ValueError, match=message):
        lvm.load(model)


def test_an_untouched_rewrite_loads(model: Path) -> None:
    rewrite(model, lambda *_: None)
    assert lvm.load(model).n_components == 2


def test_every_public_estimator_can_be_saved() -> None:
    public = {name for name in lvm.__all__ if hasattr(getattr(lvm, name), "get_params")}
    assert public == set(persistence.ESTIMATORS)
