"""Every model keeps the contract, and the suite catches planted faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

import lvm
from lvm.families import Bernoulli, DiagGaussian, FullGaussian, Multinomial, SphericalGaussian, TiedGaussian
from lvm.models.mixture import MixtureParams
from lvm.testing import ConformanceError, check_model, model_checks


def _gaussian_case(family: Any, weighted: bool) -> tuple[Any, Any, Any]:
    rng = np.random.RandomState(1)
    X = np.concatenate([rng.randn(60, 3) @ np.diag([1.0, 2.0, 0.5]), rng.randn(50, 3) + np.array([2.0, 0.0, 1.0])])
    params = family.start(X, np.ones(len(X)), 2)
    params = params._replace(means=params.means + np.array([[-1.0, 0.0, 0.2], [1.0, 0.5, 0.0]]))
    weight = rng.uniform(0.2, 2.0, len(X)) if weighted else None
    labels = np.where(np.arange(len(X)) % 7 == 0, np.arange(len(X)) // 60, -1) if weighted else None
    return lvm.Mixture(family), MixtureParams(np.array([0.4, 0.6]), params), lvm.Rows(X, weight, labels)


def _discrete_case(family: Any, X: Any) -> tuple[Any, Any, Any]:
    p = np.array([[0.3, 0.3, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4]])
    return lvm.Mixture(family), MixtureParams(np.array([0.5, 0.5]), family.params(p)), lvm.Rows(X)


def _binary(seed: int = 2) -> Any:
    rng = np.random.RandomState(seed)
    p = np.where(rng.rand(200, 1) < 0.4, [0.9, 0.7, 0.2, 0.3], [0.2, 0.1, 0.6, 0.8])
    return (rng.rand(200, 4) < p).astype(np.uint8)


def _counts(seed: int = 3) -> Any:
    rng = np.random.RandomState(seed)
    return np.array([rng.multinomial(6, p) for p in rng.dirichlet([0.6, 0.5, 0.4, 0.3], size=150)])


MODELS = {
    "full": _gaussian_case(FullGaussian(), weighted=False),
    "full regularised, weights and labels": _gaussian_case(FullGaussian(reg_covar=0.1), weighted=True),
    "tied": _gaussian_case(TiedGaussian(), weighted=True),
    "tied regularised": _gaussian_case(TiedGaussian(reg_covar=0.1), weighted=False),
    "diag": _gaussian_case(DiagGaussian(), weighted=True),
    "diag regularised": _gaussian_case(DiagGaussian(reg_covar=0.1), weighted=False),
    "spherical": _gaussian_case(SphericalGaussian(), weighted=False),
    "spherical regularised": _gaussian_case(SphericalGaussian(reg_covar=0.1), weighted=True),
    "bernoulli": _discrete_case(Bernoulli(), _binary()),
    "bernoulli sparse with prior": _discrete_case(Bernoulli(alpha=1.5), sparse.csr_matrix(_binary())),
    "multinomial": _discrete_case(Multinomial(n_trials=3), _counts()),
    "multinomial sparse with prior": _discrete_case(Multinomial(alpha=1.5, n_trials=3), sparse.csr_matrix(_counts())),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}-{check}")
        for name, (model, params, rows) in MODELS.items()
        for check in model_checks(model, params, rows)
    ],
)
def test_conformance(check: Any) -> None:
    check()


def test_check_model_accepts_a_bare_family_and_array() -> None:
    X = np.random.RandomState(0).randn(80, 2)
    family = DiagGaussian()
    params = family.params(np.array([[0.0, 0.5], [0.5, -0.5]]), np.ones((2, 2)))
    check_model(family, params, X)


class Planted:
    """A correct family with one method replaced."""

    def __init__(self, **replaced: Any) -> None:
        self.family = DiagGaussian()
        self.replaced = replaced

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("family", "replaced"):
            raise AttributeError(name)
        return self.replaced.get(name, getattr(self.family, name))


HONEST = DiagGaussian()


def _wrong_mstep(stats: Any, params: Any) -> Any:
    """Divide by n - 1, as for an unbiased variance: not the maximum likelihood estimate."""
    new = HONEST.mstep(stats, params)
    return HONEST.params(new.means, new.covariances * 1.05)


def _downhill_mstep(stats: Any, params: Any) -> Any:
    new = HONEST.mstep(stats, params)
    return HONEST.params(new.means + 0.5, new.covariances)


def _averaged_accumulate(X: Any, resp: Any, params: Any, stats: Any) -> None:
    """Means instead of sums: correct only where all rows come at once."""
    fresh = HONEST.zero_stats(params)
    HONEST.accumulate(X, resp, params, fresh)
    for into, more in zip(stats, fresh, strict=True):
        into += more / resp.shape[1]


def _scaled_density(X: Any, params: Any, out: Any) -> None:
    HONEST.log_density(X, params, out)
    out += np.log(1.1)


def _mutating_density(X: Any, params: Any, out: Any) -> None:
    params.means[0, 0] += 1e-9
    HONEST.log_density(X, params, out)


def _shifted_sample(params: Any, k: int, n: int, rng: Any) -> Any:
    return HONEST.sample(params, k, n, rng) + 0.2


def _fractional_count(_: Any) -> float:
    return 2.5


@pytest.mark.parametrize(
    ("replaced", "caught_by"),
    [
        ({"mstep": _wrong_mstep}, "fixed_point_is_a_maximum"),
        ({"mstep": _downhill_mstep}, "objective_never_falls"),
        ({"accumulate": _averaged_accumulate}, "statistics_add_up"),
        ({"log_density": _scaled_density}, "density_fits_sampler"),
        ({"log_density": _mutating_density}, "inputs_are_unchanged"),
        ({"sample": _shifted_sample}, "density_fits_sampler"),
        ({"n_parameters": _fractional_count}, "parameters_are_counted"),
    ],
    ids=["biased mstep", "downhill mstep", "averages", "scaled density", "mutation", "shifted sampler", "count"],
)
def test_planted_fault_is_caught(replaced: dict[str, Any], caught_by: str) -> None:
    _, params, rows = _gaussian_case(DiagGaussian(), weighted=False)
    with pytest.raises(ConformanceError, match=caught_by):
        check_model(Planted(**replaced), params, rows)


def test_faultless_twin_passes() -> None:
    _, params, rows = _gaussian_case(DiagGaussian(), weighted=False)
    check_model(Planted(), params, rows)


def test_missing_methods_are_named() -> None:
    class Empty:
        def log_density(self) -> None: ...

    with pytest.raises(TypeError, match=r"Empty must implement .*; missing zero_stats, accumulate, mstep, sample"):
        check_model(Empty(), (np.ones(2),), np.ones((3, 1)))
    with pytest.raises(TypeError, match=r"Empty must implement estep_stats, mstep and loglik; missing"):
        lvm.fit_em(Empty(), np.ones((3, 1)), None)
