"""The two-parameter logistic model of item response theory: a continuous latent variable, by numerical integration."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit

from lvm import _checks
from lvm._jit import Array
from lvm.families.bernoulli import Bernoulli, BernoulliParams, BernoulliStats
from lvm.models.mixture import Mixture, MixtureParams, MixtureStats
from lvm.protocol import Rows

DISCRIMINATIONS = ("free", "common")
# A curve steeper than this is a step between two nodes: integration cannot tell it from steeper ones.
MAX_SLOPE = 20.0
MAX_NODES = 250  # weights of the outermost underflow with more
MAX_NEWTON, MAX_HALVINGS = 100, 40
# In units of weight: a Newton step that would gain less moves parameters by about the root of it.
NEWTON_GAIN = 1e-22
SAFE_GAIN = 1e-13  # below, steps are in Newton's domain of quadratic convergence, and gains are lost in rounding
BLOCK_ROWS = 1 << 13
COINS = Bernoulli()


class TraitParams(NamedTuple):
    """Slopes (d,), or discriminations, and intercepts (d,): the log odds of a 1 are slope * theta + intercept."""

    slopes: Array
    intercepts: Array


class _ItemCurves:
    """Answers of persons at known nodes of the latent trait: a family whose components are the nodes.

    Its parameters are those of `Bernoulli` with exact log odds, and its statistics those of `Bernoulli`: expected
    numbers of persons at the nodes, and of ones.
    """

    dtype = np.uint8

    def canonical(self, X: Any) -> Any:
        """Return X as `Bernoulli` does."""
        return COINS.canonical(X)

    def zero_stats(self, params: BernoulliParams) -> BernoulliStats:
        """Return the statistics of no rows."""
        return COINS.zero_stats(params)

    def accumulate(self, X: Any, resp: Array, params: BernoulliParams, stats: BernoulliStats) -> None:
        """Add the expected numbers of persons and of ones at the nodes."""
        COINS.accumulate(X, resp, params, stats)

    def mstep(self, stats: BernoulliStats, params: BernoulliParams) -> BernoulliParams:
        """Return the same curves: new ones are `LatentTraitModel`'s to find."""
        return params

    def sample(self, params: BernoulliParams, k: int, n: int, rng: np.random.RandomState) -> NDArray[np.uint8]:
        """Draw n rows of persons at node k."""
        return COINS.sample(params, k, n, rng)

    def n_parameters(self, params: BernoulliParams) -> int:
        """Return 0: the curves' parameters are `LatentTraitModel`'s."""
        return 0

    def log_density(self, X: Any, params: BernoulliParams, out: Array) -> None:
        """Add log p(x_i | node k) to out (K, n)."""
        COINS.log_density(X, params, out)


@final
class LatentTraitModel:
    """Binary items whose log odds are linear in one standard normal latent trait: P(x_j = 1) = expit(a_j theta + c_j).

    The integral over the latent trait is a sum over nodes theta_q with the weights of Gauss-Hermite quadrature. So a
    continuous latent variable keeps the contract of `lvm.protocol` as well: the E-step is that of a mixture whose
    components are the nodes, with known weights; the expected numbers of answers and of ones at each node add up over
    rows; and the M-step is a logistic regression on the nodes for each item. What EM climbs is the likelihood of
    the sum, monotonically; it is that of the integral where nodes are dense compared to what a row tells of theta.

    Parameters
    ----------
    discrimination : {"free", "common"}
        Whether each item has a slope of its own (two-parameter logistic model), or all have the same (Rasch model).
    prior : tuple of float, optional
        Mean and standard deviation of a normal prior on log slopes, which are then > 0; None is maximum likelihood.
    n_nodes : int
        Number of nodes.

    References
    ----------
    Birnbaum (1968), in Lord & Novick, "Statistical theories of mental test scores", chapter 17. Bock & Aitkin (1981),
    "Marginal maximum likelihood estimation of item parameters: application of an EM algorithm", Psychometrika 46.
    Mislevy (1986), "Bayes modal estimation in item response models", Psychometrika 51.
    """

    def __init__(
        self, discrimination: str = "free", prior: tuple[float, float] | None = None, n_nodes: int = 41
    ) -> None:
        self.discrimination = _checks.choice("discrimination", discrimination, DISCRIMINATIONS)
        self.prior = None if prior is None else (float(prior[0]), float(prior[1]))
        self.n_nodes = _checks.integer("n_nodes", n_nodes, 2)
        if n_nodes > MAX_NODES:
            raise _checks.ParameterError(f"n_nodes must be at most {MAX_NODES}, got {n_nodes}.")
        self.nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
        self.weights: Array = weights / weights.sum()
        self._mixture = Mixture(_ItemCurves(), held_weights=np.ones(n_nodes, np.bool_))

    def __repr__(self) -> str:
        return f"LatentTraitModel({self.discrimination!r}, prior={self.prior}, n_nodes={self.n_nodes})"

    def canonical(self, rows: Rows) -> Rows:
        """Return the rows validated, in the dtypes and layouts of the kernels."""
        return self._mixture.canonical(rows)

    def answers(self, rows: Rows) -> tuple[Array, Array]:
        """Return the weighted numbers of answers and of ones of each item, each (d,)."""
        coin = COINS.start(rows.X, np.ones(0), 1)
        stats = COINS.zero_stats(coin)
        for X, weight in _blocks(rows):
            COINS.accumulate(X, np.array(weight)[None], coin, stats)
        return stats.counts[0] + stats.observed[0], stats.ones[0]

    def start(self, rows: Rows) -> TraitParams:
        """Return slopes of 1, and intercepts that give about the items' shares of ones.

        The factor is that of a normal trait behind a logistic curve: 1.7 of its units are one of a probit.
        """
        answers, ones = self.answers(rows)
        share = (ones + 0.5) / (answers + 1)
        return TraitParams(np.ones(len(share)), logit(share) * np.sqrt(1 + 1 / 1.7**2))

    def _curves(self, params: TraitParams) -> BernoulliParams:
        """Return the probabilities of ones at the nodes."""
        log_odds = np.multiply.outer(self.nodes, params.slopes) + params.intercepts
        log_zero = log_expit(-log_odds)
        none = log_zero.sum(axis=1)
        return BernoulliParams(expit(log_odds), log_zero, log_expit(log_odds), log_odds, none, np.zeros(self.n_nodes))

    def _at_nodes(self, params: TraitParams) -> MixtureParams:
        return MixtureParams(self.weights, self._curves(params))

    def estep_stats(self, rows: Rows, params: TraitParams) -> MixtureStats:
        """Return the expected numbers of persons and of ones at the nodes."""
        return self._mixture.estep_stats(rows, self._at_nodes(params))

    def mstep(self, stats: MixtureStats, params: TraitParams) -> TraitParams:
        """Return the curves that maximise the expected log-likelihood, plus the log prior."""
        at_nodes: BernoulliStats = stats.components
        answers = at_nodes.counts[:, None] + at_nodes.observed
        return self._fit_curves(answers, np.minimum(at_nodes.ones, answers), params)

    def loglik(self, rows: Rows, params: TraitParams) -> Array:
        """Return the log-likelihood of each row, shape (n,), unweighted."""
        return self._mixture.loglik(rows, self._at_nodes(params))

    def log_prior(self, params: TraitParams) -> float:
        """Return the log density of the prior on slopes, up to a constant."""
        slopes = params.slopes[:1] if self.discrimination == "common" else params.slopes
        return float(self._log_prior(slopes).sum())

    def _log_prior(self, slopes: Array) -> Array:
        if self.prior is None:
            return np.zeros_like(slopes)
        mean, deviation = self.prior
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(slopes)
            return np.where(slopes > 0, -0.5 * ((logs - mean) / deviation) ** 2 - logs, -np.inf)

    def scores(self, rows: Rows, params: TraitParams) -> tuple[Array, Array]:
        """Return posterior means and standard deviations of the latent trait of each row, each (n,)."""
        mean, deviation = np.empty(len(rows.X)), np.empty(len(rows.X))
        at_nodes, start = self._at_nodes(params), 0
        for part, _ in _blocks(rows):
            resp = self._mixture.responsibilities(Rows(part), at_nodes)
            block = slice(start, start + len(part))
            mean[block] = resp @ self.nodes
            spread = np.square(np.subtract.outer(mean[block], self.nodes))
            deviation[block] = np.sqrt(np.sum(resp * spread, axis=1))
            start = block.stop
        return mean, deviation

    def sample(self, params: TraitParams, n: int, rng: np.random.RandomState) -> tuple[NDArray[np.uint8], None]:
        """Draw n rows (n, d), as uint8."""
        log_odds = np.multiply.outer(rng.standard_normal(n), params.slopes) + params.intercepts
        return np.asarray(rng.random_sample(log_odds.shape) < expit(log_odds), np.uint8), None

    def n_parameters(self, params: TraitParams) -> int:
        """Return the number of intercepts and of slopes."""
        d = len(params.intercepts)
        return d + 1 if self.discrimination == "common" else 2 * d

    def to_vector(self, params: TraitParams, origin: TraitParams) -> Array:
        """Return slopes, or their logarithms where they are > 0 by the prior, and intercepts."""
        slopes = params.slopes[:1] if self.discrimination == "common" else params.slopes
        return np.concatenate([slopes if self.prior is None else np.log(slopes), params.intercepts])

    def from_vector(self, vector: Array, origin: TraitParams) -> TraitParams:
        """Return the parameters that have these coordinates; slopes out of bounds are put on the bound."""
        d = len(origin.intercepts)
        slopes = vector[:-d] if self.prior is None else np.exp(vector[:-d])
        return TraitParams(np.repeat(np.clip(slopes, -MAX_SLOPE, MAX_SLOPE), d // len(slopes)), vector[-d:])

    def _fit_curves(self, answers: Array, ones: Array, params: TraitParams) -> TraitParams:
        """Return the curves that make ones (Q, d) among answers (Q, d) most likely, by Newton steps that raise it.

        With one curve per item, slopes a and intercepts c separate; with a common slope, eliminating the intercepts
        leaves a sum over items. The log-likelihood is concave, and of the prior only what is concave bends a step.
        """
        slopes, intercepts = params
        weight = np.maximum(self._together(answers.sum(axis=0)), np.finfo(np.float64).tiny)
        value = self._value(answers, ones, slopes, intercepts)
        for _ in range(MAX_NEWTON):
            step_a, step_c, gain = self._newton_step(answers, ones, slopes, intercepts)
            moving = gain > NEWTON_GAIN * weight
            if not np.any(moving):
                break
            length = np.where(moving, 1.0, 0.0)
            for _ in range(MAX_HALVINGS):
                tried = slopes + length * step_a, intercepts + length * step_c
                reached = self._value(answers, ones, *tried)
                worse = moving & ~(reached >= value) & ((gain > SAFE_GAIN * weight) | ~np.isfinite(reached))
                if not np.any(worse):
                    break
                length = np.where(worse, length / 2, length)
            else:
                length = np.where(worse, 0.0, length)
                tried = slopes + length * step_a, intercepts + length * step_c
                reached = self._value(answers, ones, *tried)
            (slopes, intercepts), value = tried, reached
            if not np.any(length):
                break
        return TraitParams(slopes, intercepts)

    def _together(self, each: Array) -> Array:
        """Return the sum over items (d,), for each of them, where they share a slope; else as they are."""
        return np.full(len(each), each.sum()) if self.discrimination == "common" else each

    def _value(self, answers: Array, ones: Array, slopes: Array, intercepts: Array) -> Array:
        """Return what the M-step maximises, for each item (d,), or the sum where they share a slope."""
        log_odds = np.multiply.outer(self.nodes, slopes) + intercepts
        value = self._together((ones * log_odds - answers * np.logaddexp(0.0, log_odds)).sum(axis=0))
        return np.asarray(value + self._log_prior(slopes))

    def _newton_step(self, answers: Array, ones: Array, slopes: Array, intercepts: Array) -> tuple[Array, Array, Array]:
        """Return steps of slopes and intercepts (d,), within bounds, and twice the gain that they promise."""
        p = expit(np.multiply.outer(self.nodes, slopes) + intercepts)
        error, spread = ones - answers * p, answers * p * (1 - p)
        g_a, g_c = self.nodes @ error, error.sum(axis=0)
        h_aa, h_ac, h_cc = self.nodes**2 @ spread, self.nodes @ spread, spread.sum(axis=0)
        per_c = 1 / np.maximum(h_cc, np.finfo(np.float64).tiny)
        slope, bend = self._together(g_a - h_ac * g_c * per_c), self._together(h_aa - h_ac**2 * per_c)
        if self.prior is not None:
            mean, deviation = self.prior
            excess = (np.log(slopes) - mean) / deviation**2
            slope = slope - (excess + 1) / slopes
            bend = bend + np.maximum(deviation**-2 - excess - 1, 0.0) / slopes**2
        step_a = slope / np.maximum(bend, 1e-12 * self._together(h_aa) + np.finfo(np.float64).tiny)
        step_a = np.clip(slopes + step_a, -MAX_SLOPE, MAX_SLOPE) - slopes
        step_c = (g_c - h_ac * step_a) * per_c
        return step_a, step_c, slope * step_a + self._together(g_c**2 * per_c)


def _blocks(rows: Rows) -> Any:
    """Yield blocks of the rows and their weights."""
    for start in range(0, len(rows.X), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        X = rows.X[part]
        yield X, np.ones(len(X)) if rows.weight is None else rows.weight[part]
