"""One-dimensional Winograd transforms of many lines of vectors, by the points of `points.POINTS`.

A line is n vectors `step` apart. Even and odd parts are shared by the two points of a pair; the constants are those of
the polynomials that vanish at the other points.
"""

from __future__ import annotations

from typing import NamedTuple

from ....jit import inner_kernel
from ...simd import splat, vload, vstore
from .points import POINTS

_A4, = POINTS[4]
_A6, _B6 = POINTS[6]
_A8, _B8, _C8 = POINTS[8]


class Lines(NamedTuple):
    """Where lines lie: line (o, i) begins at ``at + o outer + i inner``, its elements are `step` apart."""

    at: int
    step: int
    outer: int
    inner: int


@inner_kernel
def forward_pass(n, target, to, source, by, outer, inner):
    """target = B^T times each of the lines (o < outer, i < inner) of n vectors of source; `to` and `by` are `Lines`."""
    real = source.dtype.type
    for line in range(outer * inner):
        o, i = line // inner, line % inner
        t = to.at + o * to.outer + i * to.inner
        s = by.at + o * by.outer + i * by.inner
        d0 = vload(source, s)
        if n == 1:
            vstore(target, t, d0)
            continue
        d1, d2, d3 = vload(source, s + by.step), vload(source, s + 2 * by.step), vload(source, s + 3 * by.step)
        if n == 4:
            odd = splat(real(_A4)) * d1
            vstore(target, t, d2 - splat(real(_A4 ** 2)) * d0)
            vstore(target, t + to.step, d2 + odd)
            vstore(target, t + 2 * to.step, d2 - odd)
            vstore(target, t + 3 * to.step, d3 - splat(real(_A4 ** 2)) * d1)
            continue
        d4, d5 = vload(source, s + 4 * by.step), vload(source, s + 5 * by.step)
        if n == 6:
            aa, bb = splat(real(_A6 ** 2)), splat(real(_B6 ** 2))
            total, both = splat(real(_A6 ** 2 + _B6 ** 2)), splat(real(_A6 ** 2 * _B6 ** 2))
            even_a, odd_a = d4 - bb * d2, splat(real(_A6)) * (d3 - bb * d1)
            even_b, odd_b = d4 - aa * d2, splat(real(_B6)) * (d3 - aa * d1)
            vstore(target, t, d4 - total * d2 + both * d0)
            vstore(target, t + to.step, even_a + odd_a)
            vstore(target, t + 2 * to.step, even_a - odd_a)
            vstore(target, t + 3 * to.step, even_b + odd_b)
            vstore(target, t + 4 * to.step, even_b - odd_b)
            vstore(target, t + 5 * to.step, d5 - total * d3 + both * d1)
            continue
        d6, d7 = vload(source, s + 6 * by.step), vload(source, s + 7 * by.step)
        aa, bb, cc = _A8 ** 2, _B8 ** 2, _C8 ** 2
        one, two, three = splat(real(aa + bb + cc)), splat(real(aa * bb + aa * cc + bb * cc)), splat(real(aa * bb * cc))
        vstore(target, t, d6 - one * d4 + two * d2 - three * d0)
        total, both = splat(real(bb + cc)), splat(real(bb * cc))
        even, odd = d6 - total * d4 + both * d2, splat(real(_A8)) * (d5 - total * d3 + both * d1)
        vstore(target, t + to.step, even + odd)
        vstore(target, t + 2 * to.step, even - odd)
        total, both = splat(real(aa + cc)), splat(real(aa * cc))
        even, odd = d6 - total * d4 + both * d2, splat(real(_B8)) * (d5 - total * d3 + both * d1)
        vstore(target, t + 3 * to.step, even + odd)
        vstore(target, t + 4 * to.step, even - odd)
        total, both = splat(real(aa + bb)), splat(real(aa * bb))
        even, odd = d6 - total * d4 + both * d2, splat(real(_C8)) * (d5 - total * d3 + both * d1)
        vstore(target, t + 5 * to.step, even + odd)
        vstore(target, t + 6 * to.step, even - odd)
        vstore(target, t + 7 * to.step, d7 - one * d5 + two * d3 - three * d1)


@inner_kernel
def inverse_pass(n, m, target, to, source, by, outer, inner, start):
    """target = start + A^T times each of the lines (o < outer, i < inner): m vectors of n."""
    real = source.dtype.type
    for line in range(outer * inner):
        o, i = line // inner, line % inner
        t = to.at + o * to.outer + i * to.inner
        s = by.at + o * by.outer + i * by.inner
        first = start + vload(source, s)
        if n == 1:
            vstore(target, t, first)
            continue
        leading = vload(source, s + (n - 1) * by.step)
        plus, minus = vload(source, s + by.step), vload(source, s + 2 * by.step)
        even, odd = plus + minus, plus - minus
        if n == 4:
            vstore(target, t, first + even)
            last = start + splat(real(_A4)) * odd
            if m > 2:
                vstore(target, t + to.step, last)
                last = start + splat(real(_A4 ** 2)) * even
            vstore(target, t + (m - 1) * to.step, last + leading)
            continue
        plus, minus = vload(source, s + 3 * by.step), vload(source, s + 4 * by.step)
        even_b, odd_b = plus + minus, plus - minus
        if n == 6:
            vstore(target, t, first + even + even_b)
            last = start + splat(real(_A6)) * odd + splat(real(_B6)) * odd_b
            if m > 2:
                vstore(target, t + to.step, last)
                last = start + splat(real(_A6 ** 2)) * even + splat(real(_B6 ** 2)) * even_b
            if m > 3:
                vstore(target, t + 2 * to.step, last)
                last = start + splat(real(_A6 ** 3)) * odd + splat(real(_B6 ** 3)) * odd_b
            if m > 4:
                vstore(target, t + 3 * to.step, last)
                last = start + splat(real(_A6 ** 4)) * even + splat(real(_B6 ** 4)) * even_b
            vstore(target, t + (m - 1) * to.step, last + leading)
            continue
        plus, minus = vload(source, s + 5 * by.step), vload(source, s + 6 * by.step)
        even_c, odd_c = plus + minus, splat(real(_C8)) * (plus - minus)
        odd, odd_b = splat(real(_A8)) * odd, splat(real(_B8)) * odd_b
        vstore(target, t, first + even + even_b + even_c)
        last = start + odd + odd_b + odd_c
        aa, bb, cc = splat(real(_A8 ** 2)), splat(real(_B8 ** 2)), splat(real(_C8 ** 2))
        for k in range(2, m):
            vstore(target, t + (k - 1) * to.step, last)
            if k % 2:
                odd, odd_b, odd_c = aa * odd, bb * odd_b, cc * odd_c
                last = start + odd + odd_b + odd_c
            else:
                even, even_b, even_c = aa * even, bb * even_b, cc * even_c
                last = start + even + even_b + even_c
        vstore(target, t + (m - 1) * to.step, last + leading)
