from typing import ClassVar, NamedTuple

import numpy as np
from scipy.special import gammaln

TINY = np.finfo(np.float64).tiny  # instead of a rate of 0, whose logarithm is infinite


class ZIPParams(NamedTuple):
    shares: np.ndarray  # (K, d): probability of a zero that is no count
    rates: np.ndarray  # (K, d), > 0: means of the Poisson counts


class ZIPStats(NamedTuple):
    counts: np.ndarray  # (K, 1): weight of the rows
    structural: np.ndarray  # (K, d): expected number of zeros that are no counts
    sums: np.ndarray  # (K, d): sums of the counts


class ZeroInflatedPoisson:
    """Counts that are 0 for two reasons: by chance, or because there was nothing to count."""

    parameters: ClassVar = {"shares": "Kd", "rates": "Kd"}

    def params(self, shares, rates):
        shares, rates = np.array(shares, np.float64), np.array(rates, np.float64)
        if not (np.all((shares >= 0) & (shares < 1)) and np.all((rates > 0) & (rates < np.inf))):
            raise ValueError(f"expected shares in [0, 1) and finite rates > 0, got {shares} and {rates}.")
        return ZIPParams(shares, rates)

    def canonical(self, X):  # once per fit: what the other methods see, float64, C order and read-only
        X = np.require(X, np.float64, "C").view()
        X.flags.writeable = False
        wrong = X[~((X >= 0) & (np.rint(X) == X))]
        if wrong.size:
            raise ValueError(f"counts must be whole numbers >= 0, got {wrong[0]:g}.")
        return X

    def start(self, X, weight, n_components):
        zeros = 0.5 * np.average(X == 0, axis=0, weights=weight)
        rates = np.average(X, axis=0, weights=weight) / (1 - zeros) + TINY
        return ZIPParams(*(np.tile(row, (n_components, 1)) for row in (zeros, rates)))

    def log_density(self, X, params, out):  # out (K, n) += log p(x_i | k)
        shares, rates = params
        at_zero = np.log(shares + (1 - shares) * np.exp(-rates))
        above = np.log1p(-shares) - rates
        out += at_zero @ (X == 0).T + above @ (X > 0).T + np.log(rates) @ X.T - gammaln(X + 1).sum(axis=1)

    def zero_stats(self, params):
        K, d = params.rates.shape
        return ZIPStats(np.zeros((K, 1)), np.zeros((K, d)), np.zeros((K, d)))

    def accumulate(self, X, resp, params, stats):  # resp (K, n); adds to stats
        shares, rates = params
        posterior = shares / (shares + (1 - shares) * np.exp(-rates))  # that a zero is no count
        np.add(stats.counts, resp.sum(axis=1, keepdims=True), out=stats.counts)
        np.add(stats.structural, posterior * (resp @ (X == 0)), out=stats.structural)
        np.add(stats.sums, resp @ X, out=stats.sums)

    def mstep(self, stats, params):
        counts = np.maximum(stats.counts, TINY)
        poisson = np.maximum(counts - stats.structural, TINY)
        return ZIPParams(stats.structural / counts, stats.sums / poisson + TINY)

    def sample(self, params, k, n, rng):
        counted = rng.uniform(size=(n, params.rates.shape[1])) >= params.shares[k]
        return counted * rng.poisson(params.rates[k], counted.shape)

    def n_parameters(self, params):
        return params.shares.size + params.rates.size
