"""The axes that several symmetric matrices have in common, as nearly as they have any."""

from __future__ import annotations

import numpy as np

from lvm._jit import Array, kernel

# Sweeps end when one gains less than this, in nats per unit of weight: rounding of a log density. At the cap EM goes on
# from where they are, and climbs no less.
SETTLED = 1e-16
MAX_SWEEPS = 200


@kernel
def rotate(matrices: Array, counts: Array, power: float, axes: Array) -> int:
    """Turn axes (d, d), in columns, such that they suit matrices (K, d, d) better, and the matrices with them.

    The matrices are of trace 1, or not far from it: the squares of their elements must be numbers.

    Lowers sum_k counts_k |diag(T_k)|^power / power, for power 0 its limit sum_k counts_k log |diag(T_k)|, by one
    rotation in the plane of two axes after the other (Flury & Gautschi, 1986, SIAM J. Sci. Stat. Comput. 7). In such a
    plane, with m, a and t the mean and half the difference of two diagonal elements and the element beside them,

    t_ii t_jj = m^2 - (a^2 + t^2) / 2 - ((a^2 - t^2) cos 4 theta + 2 a t sin 4 theta) / 2,

    of which the objective is a concave function: its tangent lies above it, and is least at an angle in closed form.
    Returns the number of sweeps.
    """
    K, d = matrices.shape[0], matrices.shape[1]
    total = np.sum(counts)
    logs, shares = np.zeros(K), np.empty(K)  # log |diag T_k|, and the weight of its change
    a, t, m = np.empty(K), np.empty(K), np.empty(K)
    for k in range(K):
        for i in range(d):
            logs[k] += np.log(matrices[k, i, i])
    for sweep in range(MAX_SWEEPS):
        gained = 0.0
        for i in range(d):
            for j in range(i):
                largest, scale = -np.inf, 0.0
                for k in range(K):
                    largest = max(largest, power * logs[k])
                for k in range(K):
                    shares[k] = counts[k] / total * np.exp(power * logs[k] - largest)
                    scale += shares[k]
                    m[k] = 0.5 * (matrices[k, i, i] + matrices[k, j, j])
                    a[k] = 0.5 * (matrices[k, i, i] - matrices[k, j, j]) / m[k]
                    t[k] = matrices[k, i, j] / m[k]
                along, across = 0.0, 0.0
                for k in range(K):
                    weight = shares[k] / scale * (m[k] / matrices[k, i, i]) * (m[k] / matrices[k, j, j])
                    along += weight * (a[k] * a[k] - t[k] * t[k])
                    across += weight * 2.0 * a[k] * t[k]
                size = np.hypot(along, across)
                gain = 0.25 * (across * across / (size + along) if along > 0.0 else size - along)
                if not gain > 0.01 * SETTLED:
                    continue
                gained += gain
                angle = 0.25 * np.arctan2(across, along)
                c, s = np.cos(angle), np.sin(angle)
                for k in range(K):
                    turned = matrices[k]
                    logs[k] -= np.log(turned[i, i]) + np.log(turned[j, j])
                    for r in range(d):
                        p, q = turned[r, i], turned[r, j]
                        turned[r, i], turned[r, j] = c * p + s * q, c * q - s * p
                    for r in range(d):
                        p, q = turned[i, r], turned[j, r]
                        turned[i, r], turned[j, r] = c * p + s * q, c * q - s * p
                    logs[k] += np.log(turned[i, i]) + np.log(turned[j, j])
                for r in range(d):
                    p, q = axes[r, i], axes[r, j]
                    axes[r, i], axes[r, j] = c * p + s * q, c * q - s * p
        if not gained > SETTLED:
            return sweep + 1
    return MAX_SWEEPS
