"""Gaussian log densities and moments of rows with holes, under full covariance, by patterns of missing features.

With x_o the observed features of a row and x_m the missing ones, their conditional mean and covariance are

E[x_m | x_o] = mean_m + B (x_o - mean_o),    B = S_mo S_oo^-1,    C = S_mm - B S_om

(Little & Rubin, 2002, "Statistical Analysis with Missing Data", section 7.4 on the sweep operator, 11.2 on EM). A row
completed by its conditional mean has the Mahalanobis distance of its observed part, since that mean is where the
distance is smallest. So strips of completed rows, of any patterns, serve the kernels of complete rows; a pattern adds
its own norm to the densities and C to the second moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvm._jit import Array, canonical, helper, kernel
from lvm._vectors import load_eight, store, zero_eight
from lvm.kernels.moments import add_products
from lvm.kernels.strips import DENSE, LOG_2PI, STRIP, WIDTH, count_active, gather_strip, zero_strip
from lvm.kernels.whitening import squared_norms
from lvm.protocol import CanonicalRows

LARGE = 1e150  # products of numbers up to 1e16 below it do not overflow


@dataclass(frozen=True)
class PatternedRows(CanonicalRows):
    """Rows of numbers with holes, by the pattern of their missing features.

    Attributes
    ----------
    X : ndarray of shape (n, d)
        Observations, NaN where missing.
    pattern : ndarray of shape (n,), int32
        Position of each row's pattern in the following tables, which slices share.
    n_missing : ndarray of shape (P,), int32
        Number of features that are missing.
    features : ndarray of shape (P, d), int32
        These features, then the observed ones, each ascending.
    """

    X: Array
    pattern: NDArray[np.int32]
    n_missing: NDArray[np.int32]
    features: NDArray[np.int32]

    def __getitem__(self, rows: slice) -> PatternedRows:
        return PatternedRows(self.X[rows], self.pattern[rows], self.n_missing, self.features)

    def take(self, index: NDArray[np.int64]) -> PatternedRows:
        """Return the rows at `index`, in that order."""
        X, pattern = canonical(self.X[index]), canonical(self.pattern[index], np.int32)
        return PatternedRows(X, pattern, self.n_missing, self.features)

    def parts(self) -> list[Any]:
        """Return the observations: the patterns follow from them."""
        return [self.X]

    @property
    def holes(self) -> Holes:
        """The fields, for kernels."""
        return Holes(self.X, self.pattern, self.n_missing, self.features)


def patterned_rows(X: Array) -> PatternedRows:
    """Return float64 rows (n, d), NaN where missing, with their patterns."""
    missing = np.isnan(X)
    pattern = np.zeros(len(X), np.int64)
    for first in range(0, X.shape[1], 16):  # sixteen features make a digit; no product overflows
        digit = missing[:, first : first + 16] @ (1 << np.arange(missing[:, first : first + 16].shape[1]))
        pattern = np.unique(pattern << 16 | digit, return_inverse=True)[1].reshape(len(X))
    patterns = missing[np.unique(pattern, return_index=True)[1]]
    features = np.argsort(~patterns, axis=1, kind="stable")
    return PatternedRows(
        canonical(X),
        canonical(pattern, np.int32),
        canonical(patterns.sum(axis=1), np.int32),
        canonical(features, np.int32),
    )


class Holes(NamedTuple):
    """The fields of `PatternedRows`, for kernels."""

    X: Array
    pattern: NDArray[np.int32]
    n_missing: NDArray[np.int32]
    features: NDArray[np.int32]


class _Components(NamedTuple):
    """What strips need of C covariances; rows are padded with zeros, to e, a multiple of 4, or w, one of 8.

    Attributes
    ----------
    matrices : ndarray of shape (2, C, d, w)
        Covariances, and their inverses.
    log_diagonals : ndarray of shape (2, C, d)
        Logarithms of their diagonals.
    factors : ndarray of shape (C, e, e)
        Inverse Cholesky factors, lower.
    log_norms : ndarray of shape (C,)
        Log densities of whole rows at the means.
    """

    matrices: Array
    log_diagonals: Array
    factors: Array
    log_norms: Array


@helper
def _components(covariances: Array, factors: Array) -> _Components:
    """Return what strips need of covariances (C, d, d) and their inverse Cholesky factors."""
    n_covariances, d, _ = covariances.shape
    e = (d + 3) // 4 * 4
    both = np.zeros((2, n_covariances, d, (d + 7) // 8 * 8))
    padded = np.zeros((n_covariances, e, e))
    log_diagonals, log_norms = np.empty((2, n_covariances, d)), np.full(n_covariances, -0.5 * d * LOG_2PI)
    for c in range(n_covariances):
        for i in range(d):
            log_norms[c] += np.log(factors[c, i, i])
            for j in range(i + 1):
                padded[c, i, j] = factors[c, i, j]
                both[0, c, i, j] = covariances[c, i, j]
                for h in range(j + 1):
                    both[1, c, j, h] += factors[c, i, j] * factors[c, i, h]
        for of_c in both[:, c]:
            for i in range(d):
                for j in range(i):
                    of_c[j, i] = of_c[i, j]
        for kind in range(2):
            for i in range(d):
                log_diagonals[kind, c, i] = np.log(both[kind, c, i, i])
    return _Components(both, log_diagonals, padded, log_norms)


@helper
def _condition(holes: Holes, q: int, components: _Components, c: int, swept: Array) -> tuple[float, float]:
    """Write what the missing features of pattern q have to do with the observed ones to swept (d, w).

    The covariance swept on the observed features, or the precision on the missing ones, whichever is less work, holds
    B and C in the rows of the missing features, times the sign returned; behind it, the log density of what is observed
    at its mean.
    """
    features, n_missing = holes.features[q], holes.n_missing[q]
    d, w = swept.shape
    n_observed = d - n_missing
    if n_missing == 0:
        return 1.0, components.log_norms[c]
    kind, first, last, n_rows, sign = 0, n_missing, d, d, 1.0
    log_norm = -0.5 * n_observed * LOG_2PI
    if n_missing * n_missing <= n_observed * d:
        kind, first, last, n_rows, sign = 1, 0, n_missing, n_missing, -1.0
        log_norm = components.log_norms[c] + 0.5 * n_missing * LOG_2PI
    source, other, logs = components.matrices[kind, c], components.matrices[1 - kind, c], components.log_diagonals
    width, step = np.uint64(w), np.uint64(8)
    for a in range(n_rows):
        row = np.uint64(features[a]) * width
        for j in range(row, row + width, step):
            store(load_eight(source, j), swept, j)
    ratio = 1.0
    for b in range(first, last):
        at = features[b]
        pivots = np.uint64(at) * width
        # A pivot is at least the inverse of the diagonal of the inverse, but for rounding.
        share = max(swept[at, at] * other[at, at], 1.0)
        inverse = other[at, at] / share
        ratio *= share
        log_norm += 0.5 * logs[1 - kind, c, at]
        if ratio > LARGE:
            log_norm -= 0.5 * np.log(ratio)
            ratio = 1.0
        for a in range(n_rows):
            if a != b:
                factor = swept[features[a], at] * inverse
                shift = np.uint64(features[a]) * width
                for j in range(np.uint64(0), width, step):
                    rest = load_eight(swept, shift + j) - load_eight(swept, pivots + j) * factor
                    store(rest, swept, shift + j)
                swept[features[a], at] = factor
        for j in range(pivots, pivots + width, step):
            store(load_eight(swept, j) * inverse, swept, j)
        swept[at, at] = -inverse
    return sign, log_norm - 0.5 * np.log(ratio)


@helper
def _complete(holes: Holes, q: int, start: int, stop: int, sign: float, swept: Array, z: Array) -> None:
    """Write conditional means to points of pattern q in a centred strip z (e + 1, WIDTH), after `_condition`."""
    features, n_missing = holes.features[q], holes.n_missing[q]
    length, last = np.uint64(WIDTH), z.shape[0] - 1
    for a in range(n_missing):
        i = features[a]
        coefficients = swept[i]
        for p in range(start, stop, 8):
            mean = zero_eight()
            for b in range(n_missing, len(features)):
                j = features[b]
                mean += load_eight(z, np.uint64(j) * length + np.uint64(p)) * coefficients[j]
            mean = mean * sign
            if p + 8 <= stop:
                store(mean, z, np.uint64(i) * length + np.uint64(p))
            else:  # behind it are points of other patterns
                store(mean, z, np.uint64(last) * length)
                for rest in range(stop - p):
                    z[i, p + rest] = z[last, rest]


@helper
def _by_pattern(holes: Holes) -> NDArray[np.int64]:
    """Return the positions of the rows in the order of their patterns."""
    ends = np.zeros(len(holes.n_missing) + 1, np.int64)
    for q in holes.pattern:
        ends[q + 1] += 1
    for q in range(1, len(ends)):
        ends[q] += ends[q - 1]
    order = np.empty(len(holes.pattern), np.int64)
    for i in range(len(holes.pattern)):
        q = holes.pattern[i]
        order[ends[q]] = i
        ends[q] += 1
    return order


@helper
def _load(holes: Holes, rows: NDArray[np.int64], strip: Array, runs: NDArray[np.int64]) -> int:
    """Copy rows (m,) to strip (e, WIDTH), 0 where missing; write where runs of equal patterns start, and m, to runs.

    Returns the number of runs.
    """
    m = len(rows)
    gather_strip(holes.X, rows, strip)
    for j in range(holes.X.shape[1]):
        values = strip[j]
        for p in range(m):
            values[p] = values[p] if values[p] == values[p] else 0.0
    n_runs = 0
    for p in range(m):
        if p == 0 or holes.pattern[rows[p]] != holes.pattern[rows[p - 1]]:
            runs[n_runs] = p
            n_runs += 1
    runs[n_runs] = m
    return n_runs


@helper
def _centre(strip: Array, m: int, mean: Array, z: Array) -> None:
    """Write m points of strip less mean (d,) to z (e, WIDTH)."""
    for i in range(len(mean)):
        at = mean[i]
        for p in range(m):
            z[i, p] = strip[i, p] - at


@kernel
def add_patterned_densities(holes: Holes, means: Array, covariances: Array, factors: Array, out: Array) -> None:
    """Add the log densities of what is observed of n rows to out (K, n).

    Means are (K, d), covariances and their inverse Cholesky factors (C, d, d); C is K or 1.
    """
    n, d = holes.X.shape
    components, swept = _components(covariances, factors), np.zeros((d, (d + 7) // 8 * 8))
    e, last = components.factors.shape[1], covariances.shape[0] - 1
    strip, z = zero_strip(e, holes.X), zero_strip(e + 1, holes.X)
    room = zero_strip(np.int64(6), holes.X)  # not a literal: another type, and another signature
    y, both = room[:4], room[4:]
    norms, heights = both[0], both[1]
    offset, runs, order = np.zeros(e), np.empty(STRIP + 1, np.int64), _by_pattern(holes)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        rows = order[start : start + m]
        n_runs = _load(holes, rows, strip, runs)
        for k in range(means.shape[0]):
            _centre(strip, m, means[k], z)
            for run in range(n_runs):
                a, b = runs[run], runs[run + 1]
                q = holes.pattern[rows[a]]
                sign, log_norm = _condition(holes, q, components, min(k, last), swept)
                _complete(holes, q, a, b, sign, swept, z)
                for p in range(a, b):
                    heights[p] = log_norm
            squared_norms(components.factors[min(k, last)], offset, e, z, m, y, norms)
            densities = out[k]
            for p in range(m):
                densities[rows[p]] += heights[p] - 0.5 * norms[p]


@kernel
def add_patterned_moments(
    holes: Holes,
    resp: Array,
    means: Array,
    covariances: Array,
    factors: Array,
    counts: Array,
    first: Array,
    second: Array,
) -> None:
    """Add the expected moments of n rows about means (K, d) under resp (K, n), lower half of second (C, d, d).

    Where most responsibilities of a component are 0, its rows are gathered first.
    """
    n, d = holes.X.shape
    components, swept = _components(covariances, factors), np.zeros((d, (d + 7) // 8 * 8))
    e, last = components.factors.shape[1], covariances.shape[0] - 1
    strip, z, rz = zero_strip(e + 1, holes.X), zero_strip(e + 1, holes.X), zero_strip(d, holes.X)
    runs, order, active = np.empty(STRIP + 1, np.int64), _by_pattern(holes), np.empty(n, np.int64)
    n_active = np.empty(means.shape[0], np.int64)
    n_dense = 0
    for k in range(means.shape[0]):
        n_active[k] = count_active(resp[k], counts[k : k + 1])
        n_dense += 1 if n_active[k] > DENSE * n else 0
    for k in range(-1, means.shape[0]):  # at first all components that are dense, on the same strips
        if k >= 0 and (n_active[k] > DENSE * n or n_active[k] == 0):
            continue
        points, n_points, k_first, k_last = order, n if n_dense else 0, 0, means.shape[0]
        if k >= 0:
            points, n_points, k_first, k_last = active, n_active[k], k, k + 1
            found = 0
            for p in range(n):
                active[found] = order[p]
                found += 1 if resp[k, order[p]] != 0.0 else 0
        for start in range(0, n_points, STRIP):
            m = min(STRIP, n_points - start)
            rows = points[start : start + m]
            n_runs = _load(holes, rows, strip, runs)
            for h in range(k_first, k_last):
                if k < 0 and n_active[h] <= DENSE * n:
                    continue
                r, weights, of_h = strip[e], resp[h], second[min(h, last)]
                for p in range(m):
                    r[p] = weights[rows[p]]
                _centre(strip, m, means[h], z)
                for run in range(n_runs):
                    a, b = runs[run], runs[run + 1]
                    q = holes.pattern[rows[a]]
                    sign, _ = _condition(holes, q, components, min(h, last), swept)
                    _complete(holes, q, a, b, sign, swept, z)
                    count = 0.0
                    for p in range(a, b):
                        count += sign * r[p]
                    for u in range(holes.n_missing[q]):
                        i = holes.features[q, u]
                        for v in range(u + 1):
                            j = holes.features[q, v]
                            of_h[i, j] += count * swept[i, j]
                for i in range(d):
                    total = 0.0
                    for p in range(m):
                        rz[i, p] = r[p] * z[i, p]
                        total += rz[i, p]
                    first[h, i] += total
                add_products(rz, z, m, of_h)


@kernel
def add_conditional_means(
    holes: Holes, resp: Array, means: Array, covariances: Array, factors: Array, out: Array
) -> None:
    """Add the means of missing cells given those observed, under resp (K, n), to out (n, d)."""
    n, d = holes.X.shape
    components, swept = _components(covariances, factors), np.zeros((d, (d + 7) // 8 * 8))
    e, last = components.factors.shape[1], covariances.shape[0] - 1
    strip, z = zero_strip(e, holes.X), zero_strip(e + 1, holes.X)
    runs, order = np.empty(STRIP + 1, np.int64), _by_pattern(holes)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        rows = order[start : start + m]
        n_runs = _load(holes, rows, strip, runs)
        for k in range(means.shape[0]):
            _centre(strip, m, means[k], z)
            for run in range(n_runs):
                a, b = runs[run], runs[run + 1]
                q = holes.pattern[rows[a]]
                sign, _ = _condition(holes, q, components, min(k, last), swept)
                _complete(holes, q, a, b, sign, swept, z)
                for u in range(holes.n_missing[q]):
                    i = holes.features[q, u]
                    for p in range(a, b):
                        out[rows[p], i] += resp[k, rows[p]] * (means[k, i] + z[i, p])
