"""The conformance suite catches planted faults, each by the check that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import lvm
from lvm.families import Bernoulli, DiagGaussian
from lvm.models.mixture import MixtureParams
from lvm.protocol import DegenerateError
from lvm.testing import ConformanceError, check_model

HONEST = DiagGaussian()


class Planted:
    """A correct family with one method replaced, and no E-step of its own that goes round it."""

    def __init__(self, family: Any, **replaced: Any) -> None:
        self.family = family
        self.replaced = {"estep": None, **replaced}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("family", "replaced"):
            raise AttributeError(name)
        return self.replaced.get(name, getattr(self.family, name))


def _gaussian_rows() -> tuple[MixtureParams, Any]:
    """Return parameters and rows of two clusters in three dimensions."""
    rng = np.random.RandomState(1)
    X = np.concatenate([rng.randn(60, 3) * [1.0, 2.0, 0.5], rng.randn(50, 3) + np.array([2.0, 0.0, 1.0])])
    params = HONEST.start(X, np.ones(len(X)), 2)
    means = params.means + np.array([[-1.0, 0.0, 0.2], [1.0, 0.5, 0.0]])
    return MixtureParams(np.array([0.4, 0.6]), HONEST.params(means, params.covariances)), lvm.Rows(X)


def _binary_rows(d: int) -> tuple[MixtureParams, Any]:
    """Return parameters and rows of two classes of d items."""
    rng = np.random.RandomState(2)
    p = rng.uniform(0.2, 0.8, (2, d))
    X = rng.random_sample((250, d)) < p[(rng.random_sample(250) < 0.4).astype(int)]
    return MixtureParams(np.array([0.5, 0.5]), Bernoulli().params(0.8 * p + 0.1)), lvm.Rows(X)


def refused(model: Any, params: Any, rows: Any) -> str:
    """Return the message of the refusal."""
    with pytest.raises(ConformanceError) as info:
        check_model(model, params, rows)
    return str(info.value)


# ----- faults of a family: the M-step --------------------------------------------------------------------------


def _wider(stats: Any, params: Any) -> Any:
    """Variances 5 % too large, as those divided by n - 1 are a little."""
    new = HONEST.mstep(stats, params)
    return HONEST.params(new.means, new.covariances * 1.05)


def _downhill(stats: Any, params: Any) -> Any:
    new = HONEST.mstep(stats, params)
    return HONEST.params(new.means + 0.5, new.covariances)


def _shifted_means(stats: Any, params: Any) -> Any:
    new = HONEST.mstep(stats, params)
    return HONEST.params(new.means + 1e-3, new.covariances)


def _idle(_stats: Any, params: Any) -> Any:
    return params


def _collapsing(_stats: Any, _params: Any) -> Any:
    raise DegenerateError("a component has no variance")


def _last_component_idle(stats: Any, params: Any) -> Any:
    new = HONEST.mstep(stats, params)
    means, covariances = new.means.copy(), new.covariances.copy()
    means[-1], covariances[-1] = params.means[-1], params.covariances[-1]
    return HONEST.params(means, covariances)


def _means_only(stats: Any, params: Any) -> Any:
    return HONEST.params(HONEST.mstep(stats, params).means, params.covariances)


# ----- statistics -------------------------------------------------------------------------------------------------


def _averages(X: Any, resp: Any, params: Any, stats: Any) -> None:
    """Means instead of sums: correct only where all rows come at once."""
    fresh = HONEST.zero_stats(params)
    HONEST.accumulate(X, resp, params, fresh)
    for into, more in zip(stats, fresh, strict=True):
        into += more / resp.shape[1]


def _overwritten_stats(X: Any, resp: Any, params: Any, stats: Any) -> None:
    """Correct for a single block of rows."""
    for into in stats:
        into[...] = 0.0
    HONEST.accumulate(X, resp, params, stats)


# ----- the density ------------------------------------------------------------------------------------------------


def _assigned(X: Any, params: Any, out: Any) -> None:
    """Correct where `out` starts at zero."""
    out[...] = 0.0
    HONEST.log_density(X, params, out)


def _scaled(factors: Any) -> Callable[[Any, Any, Any], None]:
    def log_density(X: Any, params: Any, out: Any) -> None:
        HONEST.log_density(X, params, out)
        out += np.log(factors)

    return log_density


def _changed_params(X: Any, params: Any, out: Any) -> None:
    params.means[0, 0] += 1e-9
    HONEST.log_density(X, params, out)


def _changed_rows(X: Any, params: Any, out: Any) -> None:
    HONEST.log_density(X, params, out)
    X *= 1 + 1e-9  # refused by numpy: a mixture hands out read-only rows


# ----- the sampler and the count -------------------------------------------------------------------------------------


def _shifted_sample(params: Any, k: int, n: int, rng: Any) -> Any:
    return HONEST.sample(params, k, n, rng) + 0.2


def _wider_sample(params: Any, k: int, n: int, rng: Any) -> Any:
    return params.means[k] + 1.05 * (HONEST.sample(params, k, n, rng) - params.means[k])


def _unseeded_sample(params: Any, k: int, n: int, _rng: Any) -> Any:
    return HONEST.sample(params, k, n, np.random.RandomState(7))


def _global_sample(params: Any, k: int, n: int, _rng: Any) -> Any:
    return HONEST.sample(params, k, n, np.random.mtrand._rand)


def _one_more(params: Any) -> int:
    return HONEST.n_parameters(params) + 1


def _one_less(params: Any) -> int:
    return HONEST.n_parameters(params) - 1


def _fractional(_params: Any) -> float:
    return 2.5


def _with_half_the_counts(X: Any, params: Any, posterior: Any, stats: Any) -> Any:
    done = HONEST.estep(X, params, posterior, stats)
    stats.counts[...] *= 0.5
    return done


def _with_a_higher_likelihood(X: Any, params: Any, posterior: Any, stats: Any) -> Any:
    loglik, penalty, row = HONEST.estep(X, params, posterior, stats)
    return loglik + 1e-3 * len(X), penalty, row


FAMILY_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "mstep with wider variances": ({"mstep": _wider}, "fixed_point_is_a_maximum"),
    "mstep goes downhill": ({"mstep": _downhill}, "objective_never_falls"),
    "mstep shifts means by 1e-3": ({"mstep": _shifted_means}, "fixed_point_is_a_maximum"),
    "mstep collapses": ({"mstep": _collapsing}, "fixed_point_is_a_maximum"),
    "mstep returns its input": ({"mstep": _idle}, "parameters_are_counted"),
    "mstep skips the last component": ({"mstep": _last_component_idle}, "parameters_are_counted"),
    "mstep updates means only": ({"mstep": _means_only}, "parameters_are_counted"),
    "accumulate averages": ({"accumulate": _averages}, "statistics_add_up"),
    "accumulate overwrites": ({"accumulate": _overwritten_stats}, "accumulate_adds"),
    "estep halves counts": ({"estep": _with_half_the_counts}, "estep_is_its_steps"),
    "estep adds to the likelihood": ({"estep": _with_a_higher_likelihood}, "loglik_belongs_to_statistics"),
    "log_density assigns": ({"log_density": _assigned}, "log_density_adds"),
    "density times 1.1": ({"log_density": _scaled(1.1)}, "density_integrates_to_one"),
    "density times 1.05": ({"log_density": _scaled(1.05)}, "density_integrates_to_one"),
    "density times k + 1": ({"log_density": _scaled([[1.0], [2.0]])}, "density_integrates_to_one"),
    "density times 0.9 or 1.1": ({"log_density": _scaled([[0.9], [1.1]])}, "density_integrates_to_one"),
    "log_density changes params": ({"log_density": _changed_params}, "inputs_are_unchanged"),
    "log_density changes rows": ({"log_density": _changed_rows}, "inputs_are_unchanged"),
    "shifted sampler": ({"sample": _shifted_sample}, "sampler_fits_density"),
    "sampler 5 % too wide": ({"sample": _wider_sample}, "sampler_fits_density"),
    "sampler with its own seed": ({"sample": _unseeded_sample}, "sampler_follows_its_seed"),
    "sampler of the global state": ({"sample": _global_sample}, "sampler_follows_its_seed"),
    "fractional count": ({"n_parameters": _fractional}, "parameters_are_counted"),
    "count too high by one": ({"n_parameters": _one_more}, "parameters_are_counted"),
    "count too low by one": ({"n_parameters": _one_less}, "parameters_are_counted"),
}


@pytest.mark.parametrize("name", FAMILY_FAULTS)
def test_fault_of_a_family_is_caught(name: str) -> None:
    replaced, caught_by = FAMILY_FAULTS[name]
    assert f"- {caught_by}: " in refused(Planted(HONEST, **replaced), *_gaussian_rows())


def test_the_status_of_a_fit_that_does_not_converge_is_told() -> None:
    assert "it ended thus: a component collapsed" in refused(Planted(HONEST, mstep=_collapsing), *_gaussian_rows())


def test_without_a_fault_the_same_family_passes() -> None:
    for family in (HONEST, Planted(HONEST)):
        undecided = check_model(family, *_gaussian_rows())
        assert [line.partition(":")[0] for line in undecided] == ["frequent_rows_have_their_density"]


# ----- discrete rows ------------------------------------------------------------------------------------------------


def _scaled_bernoulli(X: Any, params: Any, out: Any) -> None:
    Bernoulli().log_density(X, params, out)
    out += np.log(1.05)


def _raised_bernoulli(params: Any, k: int, n: int, rng: Any) -> Any:
    return Bernoulli().sample(Bernoulli().params(params.probabilities + 0.02), k, n, rng)


@pytest.mark.parametrize(
    ("d", "replaced", "caught_by"),
    [
        (4, {"log_density": _scaled_bernoulli}, "frequent_rows_have_their_density"),
        (4, {"log_density": _scaled_bernoulli}, "density_integrates_to_one"),
        (60, {"log_density": _scaled_bernoulli}, "density_integrates_to_one"),
        (4, {"sample": _raised_bernoulli}, "sampler_fits_density"),
        (60, {"sample": _raised_bernoulli}, "sampler_fits_density"),
    ],
)
def test_fault_of_a_discrete_family_is_caught(d: int, replaced: dict[str, Any], caught_by: str) -> None:
    assert f"- {caught_by}: " in refused(Planted(Bernoulli(), **replaced), *_binary_rows(d))


# ----- faults of a model -----------------------------------------------------------------------------------------


class LabelBlind(lvm.Mixture[Any]):
    """Its E-step ignores labels."""

    def estep_stats(self, rows: Any, params: Any) -> Any:
        return super().estep_stats(rows._replace(labels=None), params)


class LabelBlindPosterior(lvm.Mixture[Any]):
    """Its E-step ignores labels, but for the log-likelihood."""

    def estep_stats(self, rows: Any, params: Any) -> Any:
        honest = super().estep_stats(rows, params)
        return super().estep_stats(rows._replace(labels=None), params)._replace(loglik=honest.loglik)


@pytest.mark.parametrize(
    ("model", "caught_by"),
    [(LabelBlind, "loglik_belongs_to_statistics"), (LabelBlindPosterior, "known_labels_count")],
)
def test_labels_ignored_by_the_estep_are_caught(model: Any, caught_by: str) -> None:
    assert f"- {caught_by}: " in refused(model(HONEST), *_gaussian_rows())


class WaitingParams(NamedTuple):
    """Weights and rates of exponential waiting times, (K,) each."""

    weights: Any
    rates: Any


class WaitingStats(NamedTuple):
    """Log-likelihood, total weight, and of each component: weight and weighted sum."""

    loglik: float
    weight: float
    counts: Any
    sums: Any


class WaitingRows(NamedTuple):
    """Waiting times (n, 1)."""

    X: Any


class Waiting:
    """A mixture of exponential distributions written as a model of its own: three methods, and two for the suite."""

    def _joint(self, rows: Any, params: Any) -> Any:
        return np.log(params.weights * params.rates) - rows.X * params.rates

    def estep_stats(self, rows: Any, params: Any) -> WaitingStats:
        loglik = self.loglik(rows, params)
        resp = np.exp(self._joint(rows, params) - loglik[:, None])
        return WaitingStats(float(loglik.sum()), float(len(loglik)), resp.sum(axis=0), resp.T @ rows.X[:, 0])

    def mstep(self, stats: Any, params: Any) -> WaitingParams:
        return WaitingParams(stats.counts / stats.weight, stats.counts / stats.sums)

    def loglik(self, rows: Any, params: Any) -> Any:
        return np.logaddexp.reduce(self._joint(rows, params), axis=1)

    def sample(self, params: Any, n: int, rng: np.random.RandomState) -> Any:
        component = rng.choice(len(params.weights), n, p=params.weights)
        return rng.exponential(1 / params.rates[component])[:, None]

    def n_parameters(self, params: Any) -> int:
        return 2 * len(params.weights) - 1


class FixedNumber(Waiting):
    """Divides by the number of rows that it once had."""

    def mstep(self, stats: Any, params: Any) -> WaitingParams:
        return WaitingParams(stats.counts / 200.0, stats.counts / stats.sums)


class ChangesRows(Waiting):
    """Works in place."""

    def loglik(self, rows: Any, params: Any) -> Any:
        np.multiply(rows.X, 1 + 1e-9, out=rows.X)
        return super().loglik(rows, params)


def _waiting_rows() -> tuple[WaitingParams, WaitingRows]:
    rng = np.random.RandomState(0)
    X = np.concatenate([rng.exponential(1.0, (120, 1)), rng.exponential(12.0, (80, 1))])
    return WaitingParams(np.array([0.5, 0.5]), np.array([0.8, 0.2])), WaitingRows(X)


@pytest.mark.parametrize(
    ("model", "caught_by"),
    [(FixedNumber(), "mstep_needs_no_number_of_rows"), (ChangesRows(), "inputs_are_unchanged")],
)
def test_fault_of_a_model_is_caught(model: Any, caught_by: str) -> None:
    assert f"- {caught_by}: " in refused(model, *_waiting_rows())


def test_the_model_without_a_fault_passes() -> None:
    check_model(Waiting(), *_waiting_rows())
