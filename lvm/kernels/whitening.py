"""Squared norms of whitened points in a strip."""

from __future__ import annotations

from lvm._jit import Array, helper


@helper
def squared_norms(L: Array, offset: Array, depth: int, z: Array, m: int, y: Array, norms: Array) -> None:
    """Write the norm squared of the first rows of L z + offset to norms (m,), for m points z (e, m).

    L is lower triangular; depth, the number of rows, is a multiple of 4.
    """
    for j in range(0, depth, 4):
        o0, o1, o2, o3 = offset[j], offset[j + 1], offset[j + 2], offset[j + 3]
        # Four rows of y = L z at a time, four columns of L each: a store serves four multiply-adds.
        for i in range(0, j, 4):
            a0, a1, a2, a3 = L[j, i], L[j, i + 1], L[j, i + 2], L[j, i + 3]
            b0, b1, b2, b3 = L[j + 1, i], L[j + 1, i + 1], L[j + 1, i + 2], L[j + 1, i + 3]
            c0, c1, c2, c3 = L[j + 2, i], L[j + 2, i + 1], L[j + 2, i + 2], L[j + 2, i + 3]
            d0, d1, d2, d3 = L[j + 3, i], L[j + 3, i + 1], L[j + 3, i + 2], L[j + 3, i + 3]
            if i == 0:  # written, not added to: there is nothing to load
                for p in range(m):
                    t, u, v, w = z[0, p], z[1, p], z[2, p], z[3, p]
                    y[0, p] = o0 + a0 * t + a1 * u + a2 * v + a3 * w
                    y[1, p] = o1 + b0 * t + b1 * u + b2 * v + b3 * w
                    y[2, p] = o2 + c0 * t + c1 * u + c2 * v + c3 * w
                    y[3, p] = o3 + d0 * t + d1 * u + d2 * v + d3 * w
            else:
                for p in range(m):
                    t, u, v, w = z[i, p], z[i + 1, p], z[i + 2, p], z[i + 3, p]
                    y[0, p] += a0 * t + a1 * u + a2 * v + a3 * w
                    y[1, p] += b0 * t + b1 * u + b2 * v + b3 * w
                    y[2, p] += c0 * t + c1 * u + c2 * v + c3 * w
                    y[3, p] += d0 * t + d1 * u + d2 * v + d3 * w
        # The triangle on the diagonal completes the four rows: they are squared without being stored.
        a0 = L[j, j]
        b0, b1 = L[j + 1, j], L[j + 1, j + 1]
        c0, c1, c2 = L[j + 2, j], L[j + 2, j + 1], L[j + 2, j + 2]
        d0, d1, d2, d3 = L[j + 3, j], L[j + 3, j + 1], L[j + 3, j + 2], L[j + 3, j + 3]
        if j == 0:
            for p in range(m):
                t, u, v, w = z[0, p], z[1, p], z[2, p], z[3, p]
                y0 = o0 + a0 * t
                y1 = o1 + b0 * t + b1 * u
                y2 = o2 + c0 * t + c1 * u + c2 * v
                y3 = o3 + d0 * t + d1 * u + d2 * v + d3 * w
                norms[p] = y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
        else:
            for p in range(m):
                t, u, v, w = z[j, p], z[j + 1, p], z[j + 2, p], z[j + 3, p]
                y0 = y[0, p] + a0 * t
                y1 = y[1, p] + b0 * t + b1 * u
                y2 = y[2, p] + c0 * t + c1 * u + c2 * v
                y3 = y[3, p] + d0 * t + d1 * u + d2 * v + d3 * w
                norms[p] += y0 * y0 + y1 * y1 + y2 * y2 + y3 * y3
