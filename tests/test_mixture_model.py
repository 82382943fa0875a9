"""The mixture of any family, given as an object or by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import poisson
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from zero_inflated_poisson import ZeroInflatedPoisson, ZIPParams

import lvm
from lvm import families
from lvm.families.registry import NAMED
from lvm.testing import model_checks

ROOT = Path(__file__).parents[1]
SOURCE = (ROOT / "tests" / "zero_inflated_poisson.py").read_text(encoding="utf-8")
FAMILY = ZeroInflatedPoisson()
TRUE = lvm.MixtureParams(
    np.array([0.6, 0.4]), FAMILY.params(shares=[[0.5, 0.1], [0.2, 0.6]], rates=[[2.0, 9.0], [7.0, 3.0]])
)
X, KIND = lvm.Mixture(FAMILY).sample(TRUE, 1000, np.random.RandomState(0))


def model(**arguments: Any) -> Any:
    return lvm.MixtureModel(FAMILY, **{"n_components": 2, "random_state": 0, **arguments})


class Bare:
    """A family without anything that it need not have: one rate for all columns."""

    class Params(NamedTuple):
        rates: Any

    class Stats(NamedTuple):
        sums: Any  # of the weights, and of the counts

    def log_density(self, X: Any, params: Any, out: Any) -> None:
        out += poisson.logpmf(X[None], params.rates[:, None, None]).sum(axis=2)

    def zero_stats(self, params: Any) -> Any:
        return self.Stats(np.zeros((len(params.rates), 2)))

    def accumulate(self, X: Any, resp: Any, params: Any, stats: Any) -> None:
        stats.sums[:] += np.column_stack([X.shape[1] * resp.sum(axis=1), (resp @ X).sum(axis=1)])

    def mstep(self, stats: Any, params: Any) -> Any:
        return self.Params(stats.sums[:, 1] / stats.sums[:, 0])

    def sample(self, params: Any, k: int, n: int, rng: Any) -> Any:
        return rng.poisson(params.rates[k], (n, 2))

    def n_parameters(self, params: Any) -> int:
        return len(params.rates)


BARE_START = Bare.Params(np.array([1.0, 6.0]))

# ----- a family of one's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", model_checks(FAMILY, TRUE.components, X[:400]), ids=str)
def test_conformance(check: Any) -> None:
    check()


def test_a_bare_family_keeps_the_contract() -> None:
    rows = np.random.RandomState(0).poisson(np.repeat([[1.0], [7.0]], [150, 100], axis=0), (250, 2))
    assert lvm.testing.check_model(Bare(), BARE_START, rows) == []


def test_readme_and_notebook_show_this_family() -> None:
    for path in (ROOT / "README.md", ROOT / "notebooks" / "your_own_family.ipynb"):
        if not path.exists():
            pytest.skip(f"{path.name} is not part of this copy of the sources")
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        assert SOURCE.strip() in text, path.name
    assert len(SOURCE.splitlines()) <= 72


def test_recovers_what_was_simulated() -> None:
    many, _ = lvm.Mixture(FAMILY).sample(TRUE, 20_000, np.random.RandomState(1))
    mixture = model().fit(many)
    order = np.argsort(mixture.rates_[:, 0])
    assert_allclose(mixture.weights_[order], TRUE.weights, atol=0.02)  # about three standard errors
    assert_allclose(mixture.shares_[order], TRUE.components.shares, atol=0.03)
    assert_allclose(mixture.rates_[order], TRUE.components.rates, rtol=0.05)
    assert isinstance(mixture.components_, ZIPParams)
    assert_array_equal(mixture.components_.rates, mixture.rates_)
    assert np.all(np.diff(mixture.objective_trace_) > -1e-6)


def test_a_start_leaves_no_share_at_zero() -> None:
    # k-means gives one component no zeros in column 1: with a share of 0 there, it would keep it.
    assert model(max_iter=0).fit(X).shares_.min() > 0


@pytest.mark.parametrize("name", ["poisson", "gaussian_full"])
def test_is_the_estimator_of_the_family(name: str, iris: Any) -> None:
    rows = X if name == "poisson" else iris
    special = {"poisson": lvm.PoissonMixture, "gaussian_full": lvm.GaussianMixture}[name]
    assignment = np.arange(len(rows)) % 2
    one, other = (
        estimator.set_params(n_components=2, init_params=assignment, max_iter=20, tol=0).fit(rows)
        for estimator in (special(), lvm.MixtureModel(name))
    )
    # The generic start gives each component one per cent of all rows: the same maximum, not the same path.
    for fitted in (one, other):
        fitted.set_params(warm_start=True, tol=1e-12, max_iter=20_000).fit(rows)
    assert_allclose(other.loglik_, one.loglik_, rtol=1e-8)
    assert other.n_parameters() == one.n_parameters()
    assert_allclose(other.bic(rows), one.bic(rows), rtol=1e-8)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_name_is_fitted_and_saved(name: str, tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    rows = np.concatenate([rng.gamma(2.0, 1.0, (60, 2)), rng.gamma(20.0, 1.0, (60, 2))])
    if name == "von_mises_fisher":
        rows = rng.standard_normal((120, 2)) + 2.0
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    elif name == "bernoulli":
        rows = (rows > 5) * 1.0
    elif name in ("poisson", "negative_binomial", "multinomial"):
        rows = np.round(rows)
    mixture = lvm.MixtureModel(name, 2, random_state=0, max_iter=5, tol=0).fit(rows)
    lvm.save(mixture, tmp_path / "model.lvm")
    loaded = lvm.load(tmp_path / "model.lvm")
    assert_array_equal(loaded.predict_proba(rows), mixture.predict_proba(rows))
    assert loaded.family == name


def test_weights_are_repetitions() -> None:
    times = np.random.RandomState(0).randint(0, 3, len(X))
    arguments = {"components_init": TRUE.components, "tol": 0, "max_iter": 10}
    one = model(**arguments).fit(X, sample_weight=times)
    other = model(**arguments).fit(np.repeat(X, times, axis=0))
    assert_allclose(one.rates_, other.rates_, rtol=1e-9)  # sums in another order
    assert_allclose(one.loglik_, other.loglik_, rtol=1e-12)
    assert_allclose(one.score(X, sample_weight=times), other.score(np.repeat(X, times, axis=0)), rtol=1e-12)


@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_the_family_checks_its_data(value: float) -> None:
    rows = X.astype(np.float64)
    rows[3, 1] = value
    with pytest.raises(ValueError, match=rf"counts must be whole numbers >= 0, got {value:g}\."):
        model().fit(rows)


def test_labels_hold() -> None:
    labels = np.where(np.arange(len(X)) % 4 == 0, 1 - KIND, -1)
    mixture = model().fit(X, labels=labels)
    assert mixture.rates_[0, 0] > mixture.rates_[1, 0]  # as labelled, the other way round
    assert np.mean(mixture.predict(X) == 1 - KIND) > 0.85


def test_works_with_sklearn_and_pickle() -> None:
    mixture = model(tol=1e-4).fit(X)
    twin = clone(mixture)
    assert twin.family is not mixture.family
    assert not hasattr(twin, "weights_")
    assert_array_equal(twin.fit(X).predict_proba(X), mixture.predict_proba(X))
    assert_array_equal(pickle.loads(pickle.dumps(mixture)).predict_proba(X), mixture.predict_proba(X))
    search = GridSearchCV(model(tol=1e-4), {"n_components": [1, 2]}, cv=3).fit(X)
    assert search.best_params_ == {"n_components": 2}
    assert lvm.select(model(tol=1e-4), X, n_components=[1, 2, 3]).best.n_components == 2
    found = lvm.select(lvm.MixtureModel("poisson", random_state=0), X, n_components=2, family=["poisson", FAMILY])
    assert isinstance(found.best.family, ZeroInflatedPoisson)


def test_repr_names_the_family() -> None:
    assert repr(lvm.MixtureModel("poisson", 3)) == "MixtureModel(family='poisson', n_components=3)"
    assert "Poisson(rates_prior=(1, 0))" in repr(lvm.MixtureModel(families.Poisson(), 3))
    assert "ZeroInflatedPoisson" in repr(model())


def test_warm_start_goes_on_from_the_last_fit() -> None:
    start = TRUE.components._replace(rates=TRUE.components.rates + 1)
    mixture = model(components_init=start, warm_start=True, max_iter=3, tol=0).fit(X)
    first = mixture.objective_trace_
    mixture.fit(X)
    assert_allclose(mixture.objective_trace_[0], first[-1], rtol=1e-12)


def test_fixed_parameters() -> None:
    fixed = {"rates": [[1.0, 1.0], [np.nan, np.nan]], "weights": [0.3, np.nan]}
    mixture = lvm.MixtureModel(families.Poisson(), 2, random_state=0, fixed=fixed).fit(X)
    assert_array_equal(mixture.rates_[0], [1.0, 1.0])
    assert_allclose(mixture.weights_, [0.3, 0.7], rtol=1e-12)
    assert mixture.n_parameters() == 2
    assert mixture.family.held == {}  # the user's object stays as it is
    with pytest.raises(ValueError, match=r"ZeroInflatedPoisson has no attribute `held`.*leave them out of fixed"):
        model(fixed={"rates": [[1.0, 1.0], [np.nan, np.nan]]}).fit(X)
    assert_allclose(model(fixed={"weights": [0.5, 0.5]}).fit(X).weights_, 0.5)
    with pytest.raises(ValueError, match=r"fixed may hold 'weights', 'shares', 'rates', got 'means'"):
        model(fixed={"means": [1.0]}).fit(X)


def test_missing_cells_and_priors() -> None:
    rows = X.astype(np.float64)
    rows[::7, 0] = np.nan
    mixture = lvm.MixtureModel("poisson", 2, random_state=0).fit(rows)
    filled = mixture.impute(rows)
    assert np.isfinite(filled).all()
    assert_array_equal(filled[1], rows[1])
    with pytest.raises(ValueError, match=r"NaN"):
        model().fit(rows)
    prior = lvm.MixtureModel(families.Poisson(rates_prior=(50.0, 10.0)), 2, random_state=0).fit(X)
    free = lvm.MixtureModel("poisson", 2, random_state=0).fit(X)
    assert prior.objective_trace_[-1] != prior.loglik_
    assert np.abs(prior.rates_ - 4.9).sum() < np.abs(free.rates_ - 4.9).sum()
    penalised = lvm.MixtureModel(families.FullGaussian(reg_covar=0.1), 2, random_state=0).fit(X)
    assert penalised.objective_trace_[-1] < penalised.loglik_


def test_acceleration_needs_coordinates() -> None:
    fast = lvm.MixtureModel("poisson", 2, random_state=0, acceleration="anderson", tol=1e-10).fit(X)
    assert fast.loglik_ >= lvm.MixtureModel("poisson", 2, random_state=0, tol=1e-10).fit(X).loglik_ - 1e-5
    with pytest.raises(TypeError, match=r"must implement .*to_vector"):
        model(acceleration="anderson").fit(X)


# ----- families that lack something -----------------------------------------------------------------------------


def test_a_bare_family_needs_a_start() -> None:
    mixture = lvm.MixtureModel(Bare(), 2, components_init=BARE_START).fit(X)
    assert_array_equal(np.sort(mixture.components_.rates), mixture.components_.rates)
    assert mixture.n_parameters() == 3
    assert not hasattr(mixture, "rates_")
    assert_array_equal(pickle.loads(pickle.dumps(mixture)).predict(X), mixture.predict(X))
    drawn, kind = mixture.sample(50)
    assert drawn.shape == (50, 2)
    assert set(kind) == {0, 1}
    held = lvm.MixtureModel(Bare(), 2, components_init=BARE_START, weights_init=[0.9, 0.1], max_iter=0).fit(X)
    assert_allclose(held.weights_, [0.9, 0.1])
    with pytest.raises(TypeError, match=r"Bare must implement start\(X, weight, n_components\), or be given comp"):
        lvm.MixtureModel(Bare(), 2).fit(X)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Bare.Params(np.ones(3)), r"components_init has arrays of length 3, expected n_components = 2"),
        ([1.0, 2.0], r"components_init must be the family's parameters, a NamedTuple .*got \[1\.0, 2\.0\]"),
    ],
)
def test_components_init_is_checked(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lvm.MixtureModel(Bare(), 2, components_init=value).fit(X)


class WithoutParams(Bare):
    parameters = {"rates": "K"}  # noqa: RUF012


class WithTakenName(Bare):
    parameters = {"weights": "K"}  # noqa: RUF012
    params = None

    def __init__(self) -> None:
        self.params = Bare.Params


class WithList(Bare):
    parameters = ("rates",)


class Unfinished:
    def log_density(self, X: Any, params: Any, out: Any) -> None: ...


@pytest.mark.parametrize(
    ("family", "kind", "message"),
    [
        (
            Unfinished(),
            TypeError,
            r"Unfinished must implement .*; missing zero_stats, accumulate, mstep, sample, n_p",
        ),
        (3, TypeError, r"int must implement log_density"),
        (families.Poisson, TypeError, r"expects a family object, got the class Poisson; call it: Poisson\(\)\."),
        (families.Poisson, ValueError, r"expects a family object, got the class Poisson"),
        (WithoutParams(), TypeError, r"WithoutParams .* must implement params\(rates\); missing params"),
        (WithTakenName(), ValueError, r"has a parameter 'weights', but weights_ means another thing; rename it"),
        (WithList(), TypeError, r"WithList\.parameters must map names to axes.*got \('rates',\)"),
        ("zip", ValueError, r"family 'zip' is not installed: it is none of bernoulli, .*'lvm\.families'"),
    ],
)
def test_what_is_no_family(family: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        lvm.MixtureModel(family, 2, components_init=BARE_START).fit(X)


def test_categories_have_components_only() -> None:
    mixture = lvm.MixtureModel(families.Categorical([3, 2]), 2, random_state=0).fit(np.minimum(X, [2, 1]))
    assert mixture.components_.probabilities.shape == (2, 5)
    assert not hasattr(mixture, "probabilities_")


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot save the family object ZeroInflatedPoisson.*announce.*lvm\.families"):
        lvm.save(model(max_iter=1, tol=0).fit(X), tmp_path / "model.lvm")
    assert list(tmp_path.iterdir()) == []
