"""Interpolation points of Winograd's convolutions, and the matrices that follow from them.

m outputs of r taps see n = m + r - 1 inputs. The product of two polynomials is known from its values at n - 1 points
and its leading coefficient ("the point at infinity"). Transposed, that gives a correlation,

    y = A^T [ (G w) * (B^T d) ],        A^T [m x n],  G [n x r],  B^T [n x n].

The points are 0, infinity and pairs +-a, so that a pair shares its sums: the even part E and the odd part O of a row
give E + O and E - O. Rows of B^T are scaled so that their last entry is one; G takes the inverse factor.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np

from ....geometry import product

POINTS: dict[int, tuple[float, ...]] = {4: (1.0,), 6: (0.75, 1.5), 8: (0.5, 1.0, 2.0)}
"""The pairs of each tile extent n: a for the points a and -a. All squares and products are exact in float32."""


def expand(roots):
    """Coefficients, lowest first, of the product of (x - root)."""
    poly = [Fraction(1)]
    for root in roots:
        poly = [low - root * high for low, high in zip([Fraction(0), *poly], [*poly, Fraction(0)], strict=True)]
    return poly


@cache
def matrices(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A^T [m x n], G [n x r], B^T [n x n]) as float64, r = n - m + 1; points in the order 0, a, -a, b, ..., infinity.

    For n = 1 nothing is transformed.
    """
    if n == 1:
        one = np.ones((1, 1))
        return one, one, one
    points = [Fraction(0), *(Fraction(s * a) for a in POINTS[n] for s in (1, -1))]
    At = np.zeros((m, n))
    G = np.zeros((n, n - m + 1))
    Bt = np.zeros((n, n))
    for i, p in enumerate(points):
        others = [q for q in points if q != p]
        scale = product(p - q for q in others)
        At[:, i] = [float(p ** k) for k in range(m)]
        G[i] = [float(p ** k / scale) for k in range(n - m + 1)]
        Bt[i, :n - 1] = [float(c) for c in expand(others)]
    At[-1, -1] = G[-1, -1] = 1
    Bt[-1] = [float(c) for c in expand(points)]
    return At, G, Bt
