"""From weighted moments to means and covariances: what the M-steps of Gaussian structures share."""

from __future__ import annotations

from lvm._jit import Array, helper, part_of_kernel
from lvm.kernels.triangular import inverse_cholesky
from lvm.protocol import DEAD_SHARE

EPS = 2.220446049250313e-16
# Rounding of x - mean leaves a variance of about (eps * |mean|)**2 where there is none.
NOISE = 8.0 * EPS
# In units of the arithmetic's eps. A pivot below COLLINEAR * d of its variable's variance is rounding: the variables
# are collinear. Second moments about a centre that is further off than their spread lose digits: where more than FAR
# of them is the shift of the mean, a covariance that comes out singular may be mere cancellation. It is then replaced
# by ROUNDED times those moments, more than their rounding; the next iteration has the right centre.
COLLINEAR = 8.0
FAR = 0.5
ROUNDED = 4096.0


@helper
def _factorise(covariance: Array, mean: Array, eps: float, factor: Array) -> bool:
    """Write the inverse Cholesky factor of covariance (d, d) to factor; False where it is singular to rounding."""
    for i in range(covariance.shape[0]):
        if not covariance[i, i] > (NOISE * mean[i]) ** 2:
            return False
    return bool(inverse_cholesky(covariance, factor) > COLLINEAR * eps * covariance.shape[0])


@helper
def mstep_means(counts: Array, first: Array, old: Array, means: Array) -> float:
    """Write the new means (K, d), a dead component keeps its old one; return the sum of counts."""
    total = 0.0
    for count in counts:
        total += count
    for k in range(len(counts)):
        alive = counts[k] > DEAD_SHARE * total
        for i in range(old.shape[1]):
            means[k, i] = old[k, i] + (first[k, i] / counts[k] if alive else 0.0)
    return total


@part_of_kernel
def factorised_covariance(
    scatter: Array, moments: Array, mean: Array, reg: float, eps: float, covariance: Array, factor: Array
) -> bool:
    """Write scatter (d, d), lower, plus reg to covariance, and its factor; False where it is singular.

    moments (d,) are the second moments before the shift of the mean was taken off, summed with rounding eps.
    """
    d, shifted = scatter.shape[0], False
    for i in range(d):
        for j in range(i + 1):
            covariance[i, j] = scatter[i, j]
            covariance[j, i] = scatter[i, j]
        covariance[i, i] += reg
        shifted = shifted or moments[i] - scatter[i, i] > FAR * moments[i]
    # The factorisation is written once, in a loop: it is most of what the compiler has to do here.
    for attempt in range(2):
        if attempt > 0:
            for i in range(d):
                for j in range(d):
                    covariance[i, j] = 0.0
                covariance[i, i] = max(scatter[i, i], ROUNDED * eps * moments[i]) + reg
        if _factorise(covariance, mean, eps, factor):
            return True
        if not shifted:
            break
    return False
