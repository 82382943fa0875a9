"""Multinomial logistic regressions, strip by strip: log probabilities, and derivatives of expected log-likelihoods.

Derivatives are given for all classes but the last: those of all classes sum to 0.
"""

from __future__ import annotations

import numpy as np

from lvm._jit import Array, helper, kernel
from lvm.kernels.elementary import exp, log
from lvm.kernels.moments import add_products
from lvm.kernels.regressions import add_derivatives, padded_coefficients, predict_strip
from lvm.kernels.strips import STRIP, WIDTH, load_strip, zero_strip


@helper
def _predict(strip: Array, m: int, coefficients: Array, eta: Array, top: Array) -> None:
    """Write b_c'x of C classes to eta (C, WIDTH), and the largest of them to top (>= m,).

    x are m points of strip (e, WIDTH), b_c the rows of coefficients (C, e).
    """
    for i in range(m):
        top[i] = -np.inf
    for c in range(coefficients.shape[0]):
        predict_strip(strip, m, coefficients[c], eta[c])
        row = eta[c]
        for i in range(m):
            top[i] = max(top[i], row[i])


@helper
def _write_logits(strip: Array, m: int, coefficients: Array, eta: Array, log_norm: Array) -> None:
    """Write eta as `_predict` does, and log sum_c exp(b_c'x) to log_norm (>= m,)."""
    top, total = np.empty(STRIP), np.zeros(STRIP)
    _predict(strip, m, coefficients, eta, top)
    for c in range(coefficients.shape[0]):
        row = eta[c]
        for i in range(m):
            total[i] += exp(row[i] - top[i])
    for i in range(m):
        log_norm[i] = top[i] + log(total[i])


@helper
def _write_probabilities(strip: Array, m: int, coefficients: Array, p: Array) -> None:
    """Write the probabilities of C classes, exp(b_c'x) over their sum, to p (C, WIDTH); arguments as in `_predict`."""
    top, total = np.empty(STRIP), np.zeros(STRIP)
    _predict(strip, m, coefficients, p, top)
    for c in range(coefficients.shape[0]):
        row = p[c]
        for i in range(m):
            row[i] = exp(row[i] - top[i])
            total[i] += row[i]
    for i in range(m):
        total[i] = 1.0 / total[i]
    for c in range(coefficients.shape[0]):
        row = p[c]
        for i in range(m):
            row[i] *= total[i]


@helper
def _add_softmax_derivatives(
    strip: Array,
    m: int,
    p: Array,
    weight: Array,
    targets: Array,
    scaled: Array,
    gradient: Array,
    hessian: Array,
) -> None:
    """Add derivatives of sum_i sum_c targets_ci log p_ci to gradient (C - 1, q) and hessian (C - 1, C - 1, q, q).

    p and targets are (C, WIDTH), weight (WIDTH,) the sums of targets over c. The hessian is that of the negative; of
    its blocks [c, b] those with b <= c count, and of each its lower half.
    """
    first, second = np.empty(STRIP), np.empty(STRIP)
    for c in range(gradient.shape[0]):
        own, target = p[c], targets[c]
        for b in range(c):
            other = p[b]
            for i in range(m):
                second[i] = -weight[i] * own[i] * other[i]
            _scale_strip(strip, m, second, scaled)
            add_products(scaled, strip, m, hessian[c, b])
        for i in range(m):
            share = weight[i] * own[i]
            first[i] = target[i] - share
            second[i] = share * (1.0 - own[i])
        add_derivatives(strip, m, first, second, scaled, gradient[c], hessian[c, c])


@helper
def _scale_strip(strip: Array, m: int, factors: Array, scaled: Array) -> None:
    """Write m points of strip (>= q, WIDTH) times factors (>= m,) to scaled (q, WIDTH)."""
    for j in range(scaled.shape[0]):
        source, row = strip[j], scaled[j]
        for i in range(m):
            row[i] = factors[i] * source[i]


@kernel
def add_log_softmax(X: Array, coefficients: Array, out: Array) -> None:
    """Add log softmax_k(coefficients_k'z) to out (K, n), for X (n, q) and coefficients (K, q)."""
    n, q = X.shape
    K, e = out.shape[0], (q + 3) // 4 * 4
    strip, padded = zero_strip(e, X), padded_coefficients(coefficients, e)
    eta, log_norm = np.empty((K, WIDTH)), np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        _write_logits(strip, m, padded, eta, log_norm)
        for k in range(K):
            row, logit = out[k, start : start + m], eta[k]
            for i in range(m):
                row[i] += logit[i] - log_norm[i]


@kernel
def add_gate_derivatives(X: Array, resp: Array, coefficients: Array, gradient: Array, hessian: Array) -> None:
    """Add derivatives of sum_ik resp_ki log softmax_k(coefficients_k'z_i), see `_add_softmax_derivatives`.

    X is (n, q), resp (K, n), coefficients (K, q).
    """
    n, q = X.shape
    K, e = resp.shape[0], (q + 3) // 4 * 4
    strip, scaled, padded = zero_strip(e, X), zero_strip(q, X), padded_coefficients(coefficients, e)
    p, targets, weight = np.empty((K, WIDTH)), np.empty((K, WIDTH)), np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        _write_probabilities(strip, m, padded, p)
        for i in range(m):
            weight[i] = 0.0
        for k in range(K):
            r, target = resp[k, start : start + m], targets[k]
            for i in range(m):
                target[i] = r[i]
                weight[i] += r[i]
        _add_softmax_derivatives(strip, m, p, weight, targets, scaled, gradient, hessian)


@kernel
def add_label_densities(X: Array, y: Array, coefficients: Array, out: Array) -> None:
    """Add log softmax_y(coefficients_k x) to out (K, n), for X (n, p), labels y (n,) and coefficients (K, C, p)."""
    n, d = X.shape
    K, n_classes, _ = coefficients.shape
    e = (d + 3) // 4 * 4
    strip = zero_strip(e, X)
    eta, log_norm = np.empty((n_classes, WIDTH)), np.empty(STRIP)
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        label = y[start : start + m]
        for k in range(K):
            _write_logits(strip, m, padded_coefficients(coefficients[k], e), eta, log_norm)
            row = out[k, start : start + m]
            for i in range(m):
                row[i] -= log_norm[i]
            for c in range(n_classes):
                logit = eta[c]
                for i in range(m):
                    row[i] += logit[i] if label[i] == c else 0.0


@kernel
def add_label_derivatives(
    X: Array, y: Array, resp: Array, coefficients: Array, gradient: Array, hessian: Array
) -> None:
    """Add derivatives of sum_i resp_ki log softmax_y(coefficients_k x_i), see `_add_softmax_derivatives`.

    X is (n, p), y (n,), resp (K, n), coefficients (K, C, p), gradient (K, C - 1, p), hessian
    (K, C - 1, C - 1, p, p).
    """
    n, d = X.shape
    K, n_classes, _ = coefficients.shape
    e = (d + 3) // 4 * 4
    strip, scaled = zero_strip(e, X), zero_strip(d, X)
    p, targets = np.empty((n_classes, WIDTH)), np.empty((n_classes, WIDTH))
    for start in range(0, n, STRIP):
        m = min(STRIP, n - start)
        load_strip(X, start, m, strip)
        label = y[start : start + m]
        for k in range(K):
            r = resp[k, start : start + m]
            _write_probabilities(strip, m, padded_coefficients(coefficients[k], e), p)
            for c in range(n_classes):
                target = targets[c]
                for i in range(m):
                    target[i] = r[i] if label[i] == c else 0.0
            _add_softmax_derivatives(strip, m, p, r, targets, scaled, gradient[k], hessian[k])
