"""Standard errors of mixtures of regressions, and of any model: formulas, brute force, and what is refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from brute_force import assert_errors, errors_of
from expert_cases import KINDS as EXPERTS
from expert_cases import case
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, log_softmax
from sklearn.exceptions import NotFittedError

import lvm
from lvm import coordinates, uncertainty
from lvm.gradients.experts import gradient_of_experts
from lvm.protocol import Rows

RNG = np.random.default_rng(4)
N = 240
EXACT: dict[str, Any] = {"tol": 1e-13, "max_iter": 20_000, "random_state": 0}
X = RNG.normal(size=(N, 2)) * [1.0, 5.0] + [3.0, 100.0]
D = np.column_stack([np.ones(N), X])
STANDARD = (X - [3.0, 100.0]) / [1.0, 5.0]
ETA = STANDARD @ [0.7, -0.4]
EXPOSURE, TRIALS = RNG.uniform(0.5, 3.0, N), RNG.integers(5, 12, N)
GROUPS = np.repeat(np.arange(N // 3), 3)
SECOND = (RNG.random(N // 3) < expit(np.repeat(STANDARD[::3, 0], 1))).repeat(3)
BOTH = np.where(SECOND, 2.5 - ETA, ETA)


# ----- one component: linear regression and generalised linear models -----------------------------------------


def test_linear_regression() -> None:
    """Those of least squares with the variance sum e**2 / n, and White's: to 1e-6, which differences lose."""
    y = 1e4 + 2 * ETA + RNG.normal(size=N) * (1 + expit(ETA))
    model = lvm.MixtureOfExperts(1).fit(X, y)
    inverse = np.linalg.inv(D.T @ D)
    e = y - D @ (inverse @ D.T @ y)
    found = model.standard_errors(X, y, kind="observed")
    expected = np.sqrt(np.diag(inverse) * np.mean(e**2))
    np.testing.assert_allclose([found["intercepts"][0], *found["coefficients"][0]], expected, rtol=1e-6)
    np.testing.assert_allclose(found["scales"], np.sqrt(np.mean(e**2) / (2 * N)), rtol=1e-6)
    np.testing.assert_array_equal(found["weights"], [0.0])
    found = model.standard_errors(X, y)
    expected = np.sqrt(np.diag(inverse @ (D.T * e**2) @ D @ inverse))
    np.testing.assert_allclose([found["intercepts"][0], *found["coefficients"][0]], expected, rtol=1e-6)


@pytest.mark.parametrize("expert", ["poisson", "binomial"])
def test_generalised_linear_models(expert: str) -> None:
    """(D' W D)^-1 with the variances W of the counts."""
    if expert == "poisson":
        more: dict[str, Any] = {"exposure": EXPOSURE}
        y = RNG.poisson(EXPOSURE * np.exp(ETA))
    else:
        more = {"trials": TRIALS}
        y = RNG.binomial(TRIALS, expit(ETA))
    model = lvm.MixtureOfExperts(1, expert=expert, **EXACT).fit(X, y, **more)
    mean = model.predict(X, **more)
    W = mean if expert == "poisson" else mean * (1 - mean / TRIALS)
    found = model.standard_errors(X, y, kind="observed", **more)
    expected = np.sqrt(np.diag(np.linalg.inv((D.T * W) @ D)))
    np.testing.assert_allclose([found["intercepts"][0], *found["coefficients"][0]], expected, rtol=1e-6)


def test_multinomial_logistic_regression() -> None:
    """The pseudo-inverse of sum (diag p - p p') x x': the covariance of coefficients that sum to 0."""
    y = np.array(["a", "b", "c"])[(RNG.logistic(size=(N, 3)) + np.multiply.outer(ETA, [0.0, 1.0, -1.0])).argmax(axis=1)]
    model = lvm.MixtureOfExperts(1, expert="multinomial", **EXACT).fit(X, y)
    p = model.predict_proba(X)
    Z = np.column_stack([np.ones(N), STANDARD])  # the intercept's error is not that of X's
    spread = np.einsum("ic,cd->icd", p, np.eye(3)) - np.einsum("ic,id->icd", p, p)
    information = np.einsum("icd,ij,ik->cjdk", spread, Z, Z).reshape(9, 9)
    expected = np.sqrt(np.diag(np.linalg.pinv(information))).reshape(3, 3)[:, 1:] / [1.0, 5.0]
    np.testing.assert_allclose(model.standard_errors(X, y, kind="observed")["coefficients"][0], expected, rtol=1e-5)


# ----- two components: brute force ----------------------------------------------------------------------------


class Data(NamedTuple):
    """A response of two crossing regressions, and what comes with it."""

    y: NDArray[Any]
    more: dict[str, Any]


def response(expert: str) -> Data:
    rng = np.random.default_rng(2)
    if expert == "gaussian":
        return Data(3 * BOTH + 0.6 * rng.normal(size=N), {})
    if expert == "poisson":
        return Data(rng.poisson(2 * EXPOSURE * np.exp(BOTH)), {"exposure": EXPOSURE})
    if expert == "binomial":
        return Data(rng.binomial(TRIALS, expit(2 * BOTH - 1)), {"trials": TRIALS})
    return Data((rng.logistic(size=(N, 3)) + np.multiply.outer(2 * BOTH, [0.0, 1.0, -0.5])).argmax(axis=1), {})


def log_density(expert: str, data: Data, b: Any, scale: float) -> Any:
    """Return log p(y | x) of one component, term by term; b (3,) or (C, 3)."""
    y = data.y
    if expert == "multinomial":
        return log_softmax(D @ b.T, axis=1)[np.arange(N), y]
    eta = D @ b
    if expert == "gaussian":
        return stats.norm.logpdf(y, eta, scale)
    if expert == "poisson":
        return stats.poisson.logpmf(y, EXPOSURE * np.exp(eta))
    return stats.binom.logpmf(y, TRIALS, expit(eta))


def brute_force(model: Any, data: Data, kind: str, groups: Any, weight: Any) -> Any:
    """Return errors from free coordinates: experts (of labels all but the first), log scales, log odds of the gate."""
    expert, softmax = model.expert, model.gating == "softmax"
    b = np.concatenate([model.intercepts_[..., None], model.coefficients_], axis=-1)
    labelled = b.ndim == 3
    free = (b[:, 1:] - b[:, :1]) if labelled else b
    tied = model.equal_scales
    tail = np.log(model.scales_[: 1 if tied else 2]) if expert == "gaussian" else np.empty(0)
    if softmax:
        c = np.concatenate([model.gating_intercepts_[:, None], model.gating_coefficients_], axis=1)
        gate = c[1] - c[0]
    else:
        gate = np.log(model.weights_[1:] / model.weights_[:1])
    unit = np.arange(N) if groups is None else groups

    def split(v: Any) -> Any:
        parts = np.split(v, [free.size, free.size + len(tail)])
        coefficients = parts[0].reshape(free.shape)
        if labelled:
            coefficients = np.concatenate([np.zeros((2, 1, 3)), coefficients], axis=1)
        return coefficients, np.resize(np.exp(parts[1]), 2) if len(tail) else np.ones(2), parts[2]

    def each(v: Any) -> Any:
        coefficients, scales, odds = split(v)
        rows = [log_density(expert, data, coefficients[k], scales[k]) for k in range(2)]
        per_unit = np.array([np.bincount(unit, row) for row in rows])
        first = np.unique(unit, return_index=True)[1]
        eta = D[first] @ odds if softmax else np.full(len(first), odds[0])
        return np.logaddexp(per_unit[0] - np.logaddexp(0, eta), per_unit[1] - np.logaddexp(0, -eta))

    def attributes(v: Any) -> Any:
        coefficients, scales, odds = split(v)
        if labelled:
            coefficients = coefficients - coefficients.mean(axis=1, keepdims=True)
        found = {"intercepts": coefficients[..., 0], "coefficients": coefficients[..., 1:]}
        if len(tail):
            found["scales"] = scales
        if softmax:
            halves = np.outer([-0.5, 0.5], odds)
            return {**found, "gating_intercepts": halves[:, 0], "gating_coefficients": halves[:, 1:]}
        return {**found, "weights": np.array([expit(-odds[0]), expit(odds[0])])}

    start = np.concatenate([free.ravel(), tail, gate])
    return errors_of(kind, each, start, attributes, weight)


# One label a row does not tell two regressions apart.
CASES = [(expert, grouped) for expert in EXPERTS for grouped in (False, True) if grouped or expert != "multinomial"]


@pytest.mark.parametrize("kind", uncertainty.KINDS)
@pytest.mark.parametrize("gating", ["constant", "softmax"])
@pytest.mark.parametrize(("expert", "grouped"), CASES)
def test_against_a_likelihood_written_afresh(expert: str, gating: str, grouped: bool, kind: str) -> None:
    """To 1e-3, the precision of differences at a hundredth of an error; K = 2 and weights 1 or 2."""
    data, groups = response(expert), GROUPS if grouped else None
    unit_weight = np.random.default_rng(3).integers(1, 3, N // 3 if grouped else N).astype(np.float64)
    weight = unit_weight.repeat(3) if grouped else unit_weight
    gate_x = X[::3].repeat(3, axis=0) if grouped else X
    more = data.more if groups is None else {**data.more, "groups": groups}
    if gating == "softmax" and grouped:
        more["gating_X"] = gate_x
    model = lvm.MixtureOfExperts(
        2, expert=expert, gating=gating, acceleration="anderson", init_params=SECOND.astype(int), **EXACT
    )
    model.fit(X, data.y, sample_weight=weight, **more)
    found = model.standard_errors(X, data.y, sample_weight=weight, kind=kind, **more)
    assert_errors(found, brute_force(model, data, kind, groups, unit_weight))
    assert all(errors.shape == np.shape(getattr(model, f"{name}_")) for name, errors in found.items())


def test_equal_scales() -> None:
    data = response("gaussian")
    model = lvm.MixtureOfExperts(2, equal_scales=True, **EXACT).fit(X, data.y)
    found = model.standard_errors(X, data.y, kind="observed")
    assert found["scales"][0] == found["scales"][1]
    assert_errors(found, brute_force(model, data, "observed", None, None))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("expert", EXPERTS)
def test_gradients(expert: str, gated: bool, grouped: bool) -> None:
    """Off the maximum, Fisher's identity against differences of the log-likelihood."""
    model, params, rows = case(expert, gated, grouped)
    vector = model.to_vector(params, params)
    found = gradient_of_experts(model, rows, params, params)
    for j, unit in enumerate(1e-5 * np.eye(len(vector))):
        sides = (model.loglik(rows, model.from_vector(vector + sign * unit, params)).sum() for sign in (1, -1))
        assert found[j] == pytest.approx((next(sides) - next(sides)) / 2e-5, rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("gating", ["constant", "softmax"])
def test_spread_of_estimates(gating: str) -> None:
    """Of 200 samples of 400 rows, the spread is the mean error within 3 errors of a spread, 15 %."""
    rng = np.random.default_rng(5)
    estimates: dict[str, list[Any]] = {}
    errors: dict[str, list[Any]] = {}
    for _ in range(200):
        x = rng.normal(size=(400, 1))
        second = rng.random(400) < (expit(0.5 + x[:, 0]) if gating == "softmax" else 0.6)
        y = np.where(second, 3 - x[:, 0], 2 * x[:, 0]) + np.where(second, 0.5, 1.0) * rng.normal(size=400)
        start = {"coefficients_init": [[2.0], [-1.0]], "intercepts_init": [0.0, 3.0], "scales_init": [1.0, 0.5]}
        model = lvm.MixtureOfExperts(2, gating=gating, tol=1e-10, **start).fit(x, y)
        for name, found in model.standard_errors(x, y).items():
            estimates.setdefault(name, []).append(getattr(model, f"{name}_"))
            errors.setdefault(name, []).append(found)
    for name in estimates:
        ratio = np.std(estimates[name], axis=0) / np.mean(errors[name], axis=0)
        assert np.all(np.abs(ratio - 1) < 3 / np.sqrt(2 * 200)), (name, ratio)


# ----- invariances --------------------------------------------------------------------------------------------


def test_weights_are_repeated_rows() -> None:
    data = response("gaussian")
    weight = np.random.default_rng(8).integers(1, 4, N)
    model = lvm.MixtureOfExperts(2, gating="softmax", **EXACT).fit(X, data.y, sample_weight=weight)
    weighted = model.standard_errors(X, data.y, sample_weight=weight)
    repeated = model.standard_errors(np.repeat(X, weight, axis=0), np.repeat(data.y, weight))
    assert_errors(weighted, repeated, rtol=1e-5)


def test_rows_of_no_weight_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = response("poisson")
    weight = np.ones(N)
    weight[:40] = 0.0
    model = lvm.MixtureOfExperts(2, expert="poisson", **EXACT).fit(X, data.y, sample_weight=weight)
    whole = model.standard_errors(X, data.y, sample_weight=weight)
    assert_errors(model.standard_errors(X[40:], data.y[40:]), whole, rtol=1e-5)
    monkeypatch.setattr(coordinates, "CELLS", 1)  # blocks of 64 rows
    assert_errors(model.standard_errors(X, data.y, sample_weight=weight), whole, rtol=1e-9)


def test_ridge_and_collinear_columns() -> None:
    """The prior counts: with a constant column and one that is there twice, errors are those of the posterior."""
    y = ETA + RNG.normal(size=N)
    wide = np.column_stack([STANDARD, STANDARD[:, 0], np.ones(N)])
    model = lvm.MixtureOfExperts(1, alpha=2.0, **EXACT).fit(wide, y)
    found = model.standard_errors(wide, y, kind="observed")["coefficients"][0]
    Z = (wide[:, :3] - wide[:, :3].mean(axis=0)) / wide[:, :3].std(axis=0)
    covariance = (
        np.linalg.inv(Z.T @ Z + 2 * np.eye(3)) * model.scales_[0] ** 2 / np.outer(*[wide[:, :3].std(axis=0)] * 2)
    )
    np.testing.assert_allclose(found[:3], np.sqrt(np.diag(covariance)), rtol=0.02)  # but for the scale's own error
    assert found[3] == 0


# ----- any model ----------------------------------------------------------------------------------------------


class ShiftParams(NamedTuple):
    """Mean, shape (1,), and rates (2,), of which the second is not determined."""

    mean: NDArray[np.float64]
    rates: NDArray[np.float64]


class Shift:
    """A normal effect of variance 1 and noise of variance rates[0], with the methods that errors need alone."""

    def loglik(self, rows: Any, params: ShiftParams) -> Any:
        return stats.norm.logpdf(rows.X[:, 0], params.mean[0], np.sqrt(1 + params.rates[0]))

    def n_parameters(self, params: ShiftParams) -> int:
        return 3

    def to_vector(self, params: ShiftParams, origin: ShiftParams) -> Any:
        return np.concatenate([params.mean, np.log(params.rates)])

    def from_vector(self, vector: Any, origin: ShiftParams) -> ShiftParams:
        return ShiftParams(vector[:1], np.exp(vector[1:]))


def test_any_model_gets_errors() -> None:
    x = RNG.normal(size=(500, 1)) * 2
    variance = float(x.var())
    params = ShiftParams(x.mean(axis=0), np.array([variance - 1, 7.0]))
    with pytest.warns(RuntimeWarning, match=r"not determined by the data: rates\[1\]\."):
        found = uncertainty.standard_errors(Shift(), Rows(x), params, "observed")
    np.testing.assert_allclose(found["mean"], np.sqrt(variance / 500), rtol=1e-6)
    np.testing.assert_allclose(found["rates"], [variance * np.sqrt(2 / 500), np.nan], rtol=1e-6)
    fixed = uncertainty.standard_errors(
        Shift(), Rows(x), params, "observed", held={"rates": np.ones(2, bool), "mean": np.zeros(1, bool)}
    )
    np.testing.assert_array_equal(fixed["rates"], [0.0, 0.0])


def test_models_without_coordinates_are_refused() -> None:
    class Bare:
        loglik = Shift.loglik

    with pytest.raises(TypeError, match="Bare must implement n_parameters, to_vector, from_vector"):
        uncertainty.standard_errors(Bare(), Rows(X), ShiftParams(np.zeros(1), np.ones(2)))


def test_impossible_rows_are_named() -> None:
    model = lvm.MixtureOfExperts(1, expert="poisson", **EXACT).fit(STANDARD, RNG.poisson(np.exp(ETA)))
    far = STANDARD.copy()
    far[7] = 1e6
    with pytest.raises(ValueError, match="row 7 has density 0"):
        model.standard_errors(far, np.zeros(N))


# ----- refusals and the table ---------------------------------------------------------------------------------


def test_refusals() -> None:
    data = response("gaussian")
    model = lvm.MixtureOfExperts(2, **EXACT)
    with pytest.raises(NotFittedError):
        model.standard_errors(X, data.y)
    model.fit(X, data.y)
    with pytest.raises(ValueError, match=r"kind.*'robust'"):
        model.standard_errors(X, data.y, kind="robust")
    with pytest.raises(ValueError, match=r"level must lie within \(0, 1\), got 95"):
        model.summary(X, data.y, level=95)
    with pytest.raises(ValueError, match=rf"y has shape \({N - 1},\), expected \({N},\)"):
        model.standard_errors(X, data.y[1:])
    with pytest.raises(ValueError, match="sample_weight"):
        model.standard_errors(X, data.y, sample_weight=np.ones(N + 1))
    with pytest.raises(ValueError, match=r"there are 6 for 9; use kind='observed'"):
        model.standard_errors(X, data.y, groups=np.arange(N) % 6)
    with pytest.warns(RuntimeWarning, match="not at a maximum"):
        model.standard_errors(X, data.y + 0.1)


def test_summary() -> None:
    data = response("gaussian")
    model = lvm.MixtureOfExperts(2, **EXACT).fit(X, data.y)
    summary = model.summary(X, data.y, kind="observed")
    text = str(summary)
    assert text.startswith("MixtureOfExperts, gaussian experts, constant gating\nlog-likelihood ")
    assert f"9 parameters, {N} rows" in text
    assert f"AIC {model.aic(X, data.y):.4f}, BIC {model.bic(X, data.y):.4f}; standard errors: observed" in text
    table = summary.to_frame()
    assert len(table) == 10
    errors = model.standard_errors(X, data.y, kind="observed")
    line = table[(table.component == 1) & (table.feature == "column 1")].iloc[0]
    assert (line.estimate, line.std_error) == (model.coefficients_[1, 1], errors["coefficients"][1, 1])
    assert line.high == pytest.approx(line.estimate + 1.959963984540054 * line.std_error, rel=1e-12)
    line = table[(table.component == 0) & (table.parameter == "scales")].iloc[0]
    assert line.high == pytest.approx(
        line.estimate * np.exp(1.959963984540054 * line.std_error / line.estimate), rel=1e-12
    )
    labels = response("multinomial")
    gated = lvm.MixtureOfExperts(2, expert="multinomial", gating="softmax", init_params=SECOND.astype(int), **EXACT)
    more = {"gating_X": X[::3, :1].repeat(3, axis=0), "groups": GROUPS}
    text = str(gated.fit(X, labels.y, **more).summary(X, labels.y, **more))
    assert "2 x column 1" in text
    assert "gate column 0" in text
    assert "weights" not in text
