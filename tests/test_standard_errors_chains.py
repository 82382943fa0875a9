"""Standard errors of hidden Markov models, against differences of a slow forward algorithm; and intervals in range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from brute_force import assert_errors, errors_of
from scipy import stats
from scipy.special import expit
from sklearn.exceptions import NotFittedError
from uncertainty_cases import CASES, fitted

import lvm
from lvm.estimators.summary import SCALES, Estimate

RNG = np.random.default_rng(12)
EXACT: dict[str, Any] = {"tol": 1e-13, "max_iter": 20_000, "random_state": 0}
CHAIN = np.array([[0.85, 0.15], [0.3, 0.7]])
LENGTHS = RNG.integers(6, 12, 30)
N = int(LENGTHS.sum())


def walk(n: int) -> Any:
    states = [int(RNG.random() < 0.4)]
    for _ in range(n - 1):
        states.append(int(RNG.random() < CHAIN[states[-1], 1]))
    return np.array(states)


STATES = np.concatenate([walk(n) for n in LENGTHS])
NORMAL = (np.where(STATES, 2.5, 0.0) + np.where(STATES, 1.5, 1.0) * RNG.normal(size=N))[:, None]
COUNTS = RNG.poisson(np.where(STATES, 6.0, 1.5))[:, None]


def log_densities(family: str, x: Any, first: Any, second: Any) -> Any:
    """Return log p(x | state), shape (n, 2)."""
    if family == "poisson":
        return stats.poisson.logpmf(x[:, :1], first)
    return stats.norm.logpdf(x[:, :1], first, np.sqrt(second))


def brute_force(model: Any, x: Any, lengths: Any, kind: str, weight: Any = None, known: Any = None) -> Any:
    """Return errors from free coordinates: log odds of the chain, means or log rates, and log variances.

    The start of a single sequence is as fitted.
    """
    family, normal, single = model.family, model.family != "poisson", len(lengths) == 1
    ends = np.cumsum(lengths)

    def split(v: Any) -> Any:
        start, rest = (model.startprob_, v) if single else (np.array([expit(-v[0]), expit(v[0])]), v[1:])
        A = np.array([[expit(-rest[0]), expit(rest[0])], [expit(-rest[1]), expit(rest[1])]])
        return start, A, rest[2:4] if normal else np.exp(rest[2:4]), np.exp(rest[4:6])

    def each(v: Any) -> Any:
        start, A, first, second = split(v)
        densities = np.exp(log_densities(family, x, first, second))
        if known is not None:
            densities[known == 0, 1] = densities[known == 1, 0] = 0.0
        found = []
        for end, length in zip(ends, lengths, strict=True):
            alpha, total = start, 0.0
            for t in range(end - length, end):
                alpha = (alpha if t == end - length else alpha @ A) * densities[t]
                total += np.log(alpha.sum())
                alpha = alpha / alpha.sum()
            found.append(total)
        return np.array(found)

    def attributes(v: Any) -> Any:
        start, A, first, second = split(v)
        found = {"transmat": A, "means" if normal else "rates": first[:, None]}
        if normal:
            found["covariances"] = second[:, None]
        return found if single else {"startprob": start, **found}

    logit = np.log(model.transmat_[:, 1] / model.transmat_[:, 0])
    tail = [model.means_, np.log(model.covariances_)] if normal else [np.log(model.rates_)]
    odds = [] if single else [np.log(model.startprob_[1] / model.startprob_[0])]
    return errors_of(kind, each, np.concatenate([odds, logit, *map(np.ravel, tail)]), attributes, weight, share=0.02)


@pytest.mark.parametrize("kind", ["observed", "sandwich", "empirical"])
@pytest.mark.parametrize("family", ["gaussian_diag", "poisson"])
def test_sequences(family: str, kind: str) -> None:
    """Weighted sequences, some states known: to 2e-3, as differences allow."""
    x = COUNTS if family == "poisson" else NORMAL
    weight = RNG.integers(1, 3, len(LENGTHS))
    known = np.where(RNG.random(N) < 0.1, STATES, -1)
    model = lvm.HiddenMarkov(family, 2, **EXACT).fit(x, lengths=LENGTHS, sequence_weight=weight, labels=known)
    found = model.standard_errors(x, LENGTHS, weight, known, kind)
    expected = brute_force(model, x, LENGTHS, kind, weight, known)
    assert set(found) == set(expected)
    assert_errors(found, expected, rtol=2e-3)
    assert all(errors.shape == getattr(model, f"{name}_").shape for name, errors in found.items())


@pytest.mark.parametrize("family", ["gaussian_diag", "poisson"])
def test_one_sequence(family: str) -> None:
    """The observed information, with the start as it is, which has no error."""
    x = COUNTS if family == "poisson" else NORMAL
    model = lvm.HiddenMarkov(family, 2, **EXACT).fit(x)
    found = model.standard_errors(x)
    assert_errors(found, brute_force(model, x, [N], "observed"), rtol=2e-3)
    assert np.isnan(found["startprob"]).all()
    line = str(model.summary(x)).splitlines()[6]
    assert line.split()[-3:] == ["nan", "nan", "nan"]


def test_penalty_and_shared_covariances() -> None:
    """A penalty is a part of the density, as in EM: for one state, errors are those of the mixture of one component."""
    for name in ("gaussian_full", "gaussian_tied"):
        family = {"gaussian_full": lvm.families.FullGaussian, "gaussian_tied": lvm.families.TiedGaussian}[name](0.3)
        x = np.column_stack([NORMAL, NORMAL[::-1] + 0.5 * NORMAL])
        chain = lvm.HiddenMarkov(family, 1, **EXACT).fit(x)
        kind = name.removeprefix("gaussian_")
        mixture = lvm.GaussianMixture(1, covariance_type=kind, reg_covar=0.3, **EXACT).fit(x)
        found, expected = chain.standard_errors(x), mixture.standard_errors(x, kind="observed")
        np.testing.assert_allclose(found["means"], expected["means"], rtol=1e-5)
        np.testing.assert_allclose(np.squeeze(found["covariances"]), np.squeeze(expected["covariances"]), rtol=1e-5)


def test_what_is_fixed_or_never_possible_has_no_error() -> None:
    left_right = [[0.8, 0.2, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 1.0]]
    x = np.concatenate([np.repeat([0.0, 4.0, 9.0], 20) + RNG.normal(size=60) for _ in range(5)])[:, None]
    lengths = [60] * 5
    model = lvm.HiddenMarkov(
        "gaussian_diag",
        3,
        startprob_init=[1.0, 0, 0],
        transmat_init=left_right,
        init_params=np.tile(np.repeat([0, 1, 2], 20), 5),
        **EXACT,
    ).fit(x, lengths=lengths)
    found = model.standard_errors(x, lengths)
    np.testing.assert_array_equal(found["startprob"], 0.0)
    np.testing.assert_array_equal(found["transmat"] > 0, [[True, True, False], [False, True, True], [False] * 3])
    p = model.transmat_[0, 0]
    assert found["transmat"][0, 0] == pytest.approx(np.sqrt(p * (1 - p) / 100), rel=1e-2)  # 100 known transitions
    fixed = lvm.HiddenMarkov("poisson", 2, fixed={"transmat": CHAIN, "rates": [[1.5], [np.nan]]}, **EXACT)
    found = fixed.fit(COUNTS, lengths=LENGTHS).standard_errors(COUNTS, LENGTHS)
    np.testing.assert_array_equal(found["transmat"], 0.0)
    assert found["rates"][0] == 0
    assert found["rates"][1] > 0


def test_probabilities_that_vanish_are_at_the_end() -> None:
    """Each state is followed by itself alone; that probabilities are 0 is found, not given."""
    x = np.concatenate([np.zeros(200), np.full(200, 9.0)])[:, None] + RNG.normal(size=(400, 1))
    model = lvm.HiddenMarkov("gaussian_diag", 2, **EXACT).fit(x, lengths=[100] * 4)
    with pytest.warns(RuntimeWarning, match=r"at the end of their range: transmat\[0, 0\], transmat\[0, 1\]"):
        found = model.standard_errors(x, [100] * 4)
    assert np.isnan(found["transmat"]).all()
    assert np.all(found["means"] > 0)


def test_refusals() -> None:
    model = lvm.HiddenMarkov("poisson", 2, **EXACT)
    with pytest.raises(NotFittedError):
        model.standard_errors(COUNTS)
    model.fit(COUNTS, lengths=LENGTHS)
    with pytest.raises(ValueError, match=r"sequences\) as there are parameters, but there are 1 for 4; use kind='obs"):
        model.standard_errors(COUNTS, kind="sandwich")
    with pytest.raises(ValueError, match=r"kind.*'robust'"):
        model.standard_errors(COUNTS, LENGTHS, kind="robust")
    with pytest.raises(ValueError, match=rf"lengths sum to {N}, but X has {N - 1}"):
        model.standard_errors(COUNTS[1:], LENGTHS)
    with pytest.raises(ValueError, match="sequence_weight"):
        model.standard_errors(COUNTS, LENGTHS, np.ones(3))
    with pytest.raises(ValueError, match=r"level must lie within \(0, 1\), got 95"):
        model.summary(COUNTS, LENGTHS, level=95)


def test_families_without_coordinates_are_refused() -> None:
    class Bare:
        """A Poisson family that does not tell its coordinates."""

        parameters = lvm.families.Poisson.parameters

        def __init__(self) -> None:
            inner = lvm.families.Poisson()
            for name in ("params", "start", "canonical", "log_density", "zero_stats", "accumulate", "mstep", "sample"):
                setattr(self, name, getattr(inner, name))
            self.n_parameters = inner.n_parameters

    model = lvm.HiddenMarkov(Bare(), 2, max_iter=2, tol=0, random_state=0).fit(COUNTS)
    with pytest.raises(TypeError, match="Bare must implement to_vector, from_vector for its parameters"):
        model.standard_errors(COUNTS)


def test_summary() -> None:
    model = lvm.HiddenMarkov("gaussian_diag", 2, **EXACT).fit(NORMAL, lengths=LENGTHS)
    summary = model.summary(NORMAL, LENGTHS)
    text = str(summary)
    assert text.startswith("HiddenMarkov, DiagGaussian, 2 states\n")
    assert f"AIC {model.aic(NORMAL, LENGTHS):.4f}, BIC {model.bic(NORMAL, LENGTHS):.4f}" in text
    assert f"7 parameters, {N} rows" in text
    assert "\nstate  parameter" in text
    table = summary.to_frame()
    assert len(table) == 2 + 4 + 2 + 2
    line = table[(table.component == 1) & (table.feature == "to 0")].iloc[0]
    assert line.estimate == model.transmat_[1, 0]
    assert line.std_error == pytest.approx(model.standard_errors(NORMAL, LENGTHS)["transmat"][1, 0], rel=1e-12)
    coins = lvm.HiddenMarkov("categorical", 2, **EXACT).fit(np.column_stack([NORMAL[:, 0] > 1, COUNTS[:, 0] > 2]))
    assert "column 1 = 1" in str(coins.summary(np.column_stack([NORMAL[:, 0] > 1, COUNTS[:, 0] > 2])))


# ----- intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "value"), [("identity", -3.0), ("log", 0.02), ("logit", 0.97), ("atanh", -0.95)])
def test_intervals_are_symmetric_on_their_scale_and_in_range(scale: str, value: float) -> None:
    onto, back, slope = SCALES[scale]
    assert back(onto(value)) == pytest.approx(value, rel=1e-12)
    assert slope(value) == pytest.approx((onto(value + 1e-6) - onto(value - 1e-6)) / 2e-6, rel=1e-5)
    for error in (1e-3, 10.0):
        low, high = Estimate(0, "a", "", value, error, scale).interval(1.96)
        assert low < value < high
        if error < 1:
            middle = float(onto(value))
            assert [onto(low) - middle, onto(high) - middle] == pytest.approx(
                [-1.96 * error * slope(value), 1.96 * error * slope(value)]
            )
    least, most = {"identity": (-99, 99), "log": (0, np.inf), "logit": (0, 1), "atanh": (-1, 1)}[scale]
    assert least <= low
    assert high <= most
    small = Estimate(0, "a", "", value, 1e-6, scale).interval(1.96)
    assert small == pytest.approx((value - 1.96e-6, value + 1.96e-6), abs=1e-9)  # for many rows all scales agree


def test_intervals_of_what_is_held_or_has_no_error() -> None:
    for value in (0.0, 1.0, 0.5):
        assert Estimate(0, "a", "", value, 0.0, "logit").interval(1.96) == (value, value)
        assert np.isnan(Estimate(0, "a", "", value, float("nan"), "logit").interval(1.96)).all()


@pytest.mark.parametrize("name", CASES)
def test_intervals_of_mixtures_are_in_range(name: str) -> None:
    """At a level of 1 - 1e-9, six errors either way."""
    estimator, X = fitted(name)
    table = estimator.summary(X, level=1 - 1e-9).to_frame()
    is_covariance = table.parameter.str.contains("covariances|scatters")
    variances = table[is_covariance & ~table.feature.str.contains(" x ")]
    assert np.all(variances.low > 0)
    positive = table.parameter.str.fullmatch(r"(.*\.)?(rates|sizes|shapes|scales|concentrations|degrees_of_freedom)")
    assert np.all(table[positive].low > 0)
    chances = table[table.parameter.str.fullmatch(r"(.*\.)?(weights|probabilities)")]
    assert np.all((chances.low > 0) & (chances.high < 1))
    directions = table[table.parameter == "directions"]
    assert np.all((directions.low > -1) & (directions.high < 1))
    if name == "negative binomial":
        assert np.all(table[table.parameter == "means"].low > 0)
    if name.startswith("gaussian"):
        means = table[table.parameter == "means"]
        np.testing.assert_allclose(means.high + means.low, 2 * means.estimate, rtol=1e-9, atol=1e-9)
