"""Fourier transforms for convolution: mixed radix 2, 3, 4, 5, across SIMD lanes, without an ordered spectrum.

Data are split into real and imaginary parts and lie as [outer, n, inner]; the transform runs over n, and every
butterfly is plain vector arithmetic along `inner`, a multiple of the vector length. Forward passes decimate in
frequency (butterfly, then twiddle), inverse ones in time (twiddle, then butterfly) and undo them in turn: the spectrum
in between is in the order of reversed digits, which a product of spectra does not mind. An inverse transform is a
forward one with real and imaginary part exchanged.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...jit import kernel
from ..simd import lanes_of, splat, transpose_square, vload, vstore


class Transform(NamedTuple):
    """One length's passes and twiddles, for kernels."""

    n: int
    radices: np.ndarray       # int64, of the forward passes in turn
    cos: np.ndarray           # of -2 pi k / n, k < n
    sin: np.ndarray
    constants: np.ndarray     # of the butterflies: sqrt(3)/2, cos and sin of 72 and 144 degrees, 1/2


def is_smooth(n: int) -> bool:
    """Whether n has no prime factor above 5."""
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def factors(n: int) -> list[int]:
    """Radices whose product is n: fours first, they cost the least."""
    radices = []
    for radix in (4, 2, 3, 5):
        while n % radix == 0:
            radices.append(radix)
            n //= radix
    if n != 1:
        raise ValueError(f"length must have no prime factor above 5; {n} remains")
    return radices


@lru_cache(maxsize=256)
def transform(n: int, dtype: np.dtype) -> Transform:
    """The passes of length n."""
    angle = -2 * np.pi * np.arange(n) / n
    fifth = 2 * np.pi / 5
    constants = [np.sqrt(3) / 2, np.cos(fifth), np.cos(2 * fifth), np.sin(fifth), np.sin(2 * fifth), 0.5]
    return Transform(n, np.array(factors(n), np.int64), np.cos(angle).astype(dtype), np.sin(angle).astype(dtype),
                     np.array(constants, dtype))


@lru_cache(maxsize=256)
def frequencies(n: int) -> np.ndarray:
    """The frequency that stands at each place of the spectrum that the forward passes leave."""
    order = np.arange(n).reshape(1, n)
    for radix in factors(n):               # a pass makes sub-spectra of frequencies congruent modulo the radix
        order = order.reshape(order.shape[0], -1, radix).transpose(0, 2, 1).reshape(order.shape[0] * radix, -1)
    return order.ravel()


@kernel
def _twiddle(re, im, c, s):
    return re * c - im * s, re * s + im * c


@kernel
def _butterfly_3(ar, ai, br, bi, cr, ci, half, root):
    tr, ti = br + cr, bi + ci
    mr, mi = ar - half * tr, ai - half * ti
    sr, si = root * (br - cr), root * (bi - ci)
    return ar + tr, ai + ti, mr + si, mi - sr, mr - si, mi + sr


@kernel
def _butterfly_4(ar, ai, br, bi, cr, ci, dr, di):
    pr, pi, qr, qi = ar + cr, ai + ci, ar - cr, ai - ci
    sr, si, tr, ti = br + dr, bi + di, br - dr, bi - di
    return pr + sr, pi + si, qr + ti, qi - tr, pr - sr, pi - si, qr - ti, qi + tr


@kernel
def _butterfly_5(ar, ai, br, bi, cr, ci, dr, di, er, ei, c1, c2, s1, s2):
    pr, pi, qr, qi = br + er, bi + ei, cr + dr, ci + di
    ur, ui, vr, vi = br - er, bi - ei, cr - dr, ci - di
    mr, mi = ar + c1 * pr + c2 * qr, ai + c1 * pi + c2 * qi
    nr, ni = ar + c2 * pr + c1 * qr, ai + c2 * pi + c1 * qi
    fr, fi = s1 * ur + s2 * vr, s1 * ui + s2 * vi
    gr, gi = s2 * ur - s1 * vr, s2 * ui - s1 * vi
    return (ar + pr + qr, ai + pi + qi, mr + fi, mi - fr, nr + gi, ni - gr, nr - gi, ni + gr, mr - fi, mi + fr)


@kernel
def _pass_2(re, im, at, q, inner, plan, j, step, before):
    """Radix 2 on q-spaced elements of one twiddle, all lanes; `before`: decimation in time."""
    c, s = splat(plan.cos[j * step]), splat(plan.sin[j * step])
    for v in range(at, at + inner, lanes_of(re)):
        ar, ai, br, bi = vload(re, v), vload(im, v), vload(re, v + q), vload(im, v + q)
        if before:
            br, bi = _twiddle(br, bi, c, s)
        yr, yi = ar - br, ai - bi
        vstore(re, v, ar + br)
        vstore(im, v, ai + bi)
        if not before:
            yr, yi = _twiddle(yr, yi, c, s)
        vstore(re, v + q, yr)
        vstore(im, v + q, yi)


@kernel
def _pass_3(re, im, at, q, inner, plan, j, step, before):
    """Radix 3, as `_pass_2`."""
    half, root = splat(plan.constants[5]), splat(plan.constants[0])
    c1, s1 = splat(plan.cos[j * step]), splat(plan.sin[j * step])
    c2, s2 = splat(plan.cos[2 * j * step]), splat(plan.sin[2 * j * step])
    for v in range(at, at + inner, lanes_of(re)):
        ar, ai, br, bi = vload(re, v), vload(im, v), vload(re, v + q), vload(im, v + q)
        cr, ci = vload(re, v + 2 * q), vload(im, v + 2 * q)
        if before:
            br, bi = _twiddle(br, bi, c1, s1)
            cr, ci = _twiddle(cr, ci, c2, s2)
        ar, ai, br, bi, cr, ci = _butterfly_3(ar, ai, br, bi, cr, ci, half, root)
        if not before:
            br, bi = _twiddle(br, bi, c1, s1)
            cr, ci = _twiddle(cr, ci, c2, s2)
        vstore(re, v, ar)
        vstore(im, v, ai)
        vstore(re, v + q, br)
        vstore(im, v + q, bi)
        vstore(re, v + 2 * q, cr)
        vstore(im, v + 2 * q, ci)


@kernel
def _pass_4(re, im, at, q, inner, plan, j, step, before):
    """Radix 4, as `_pass_2`."""
    c1, s1 = splat(plan.cos[j * step]), splat(plan.sin[j * step])
    c2, s2 = splat(plan.cos[2 * j * step]), splat(plan.sin[2 * j * step])
    c3, s3 = splat(plan.cos[3 * j * step]), splat(plan.sin[3 * j * step])
    for v in range(at, at + inner, lanes_of(re)):
        ar, ai, br, bi = vload(re, v), vload(im, v), vload(re, v + q), vload(im, v + q)
        cr, ci, dr, di = vload(re, v + 2 * q), vload(im, v + 2 * q), vload(re, v + 3 * q), vload(im, v + 3 * q)
        if before:
            br, bi = _twiddle(br, bi, c1, s1)
            cr, ci = _twiddle(cr, ci, c2, s2)
            dr, di = _twiddle(dr, di, c3, s3)
        ar, ai, br, bi, cr, ci, dr, di = _butterfly_4(ar, ai, br, bi, cr, ci, dr, di)
        if not before:
            br, bi = _twiddle(br, bi, c1, s1)
            cr, ci = _twiddle(cr, ci, c2, s2)
            dr, di = _twiddle(dr, di, c3, s3)
        vstore(re, v, ar)
        vstore(im, v, ai)
        vstore(re, v + q, br)
        vstore(im, v + q, bi)
        vstore(re, v + 2 * q, cr)
        vstore(im, v + 2 * q, ci)
        vstore(re, v + 3 * q, dr)
        vstore(im, v + 3 * q, di)


@kernel
def _pass_5(re, im, at, q, inner, plan, j, step, before):
    """Radix 5, as `_pass_2`."""
    k1, k2, k3, k4 = (splat(plan.constants[1]), splat(plan.constants[2]), splat(plan.constants[3]),
                      splat(plan.constants[4]))
    c1, s1 = splat(plan.cos[j * step]), splat(plan.sin[j * step])
    c2, s2 = splat(plan.cos[2 * j * step]), splat(plan.sin[2 * j * step])
    c3, s3 = splat(plan.cos[3 * j * step]), splat(plan.sin[3 * j * step])
    c4, s4 = splat(plan.cos[4 * j * step]), splat(plan.sin[4 * j * step])
    for v in range(at, at + inner, lanes_of(re)):
        ar, ai, br, bi = vload(re, v), vload(im, v), vload(re, v + q), vload(im, v + q)
        cr, ci, dr, di = vload(re, v + 2 * q), vload(im, v + 2 * q), vload(re, v + 3 * q), vload(im, v + 3 * q)
        er, ei = vload(re, v + 4 * q), vload(im, v + 4 * q)
        if before:
            br, bi = _twiddle(br, bi, c1, s1)
            cr, ci = _twiddle(cr, ci, c2, s2)
            dr, di = _twiddle(dr, di, c3, s3)
            er, ei = _twiddle(er, ei, c4, s4)
        ar, ai, br, bi, cr, ci, dr, di, er, ei = _butterfly_5(ar, ai, br, bi, cr, ci, dr, di, er, ei, k1, k2, k3, k4)
        if not before:
            br, bi = _twiddle(br, bi, c1, s1)
            cr, ci = _twiddle(cr, ci, c2, s2)
            dr, di = _twiddle(dr, di, c3, s3)
            er, ei = _twiddle(er, ei, c4, s4)
        vstore(re, v, ar)
        vstore(im, v, ai)
        vstore(re, v + q, br)
        vstore(im, v + q, bi)
        vstore(re, v + 2 * q, cr)
        vstore(im, v + 2 * q, ci)
        vstore(re, v + 3 * q, dr)
        vstore(im, v + 3 * q, di)
        vstore(re, v + 4 * q, er)
        vstore(im, v + 4 * q, ei)


@kernel
def _pass(re, im, outer, inner, plan, radix, m, before):
    """One pass over sub-transforms of length m."""
    n = plan.n
    q = m // radix
    step = n // m
    for o in range(outer):
        for j in range(q):
            for base in range(j, n, m):
                at = (o * n + base) * inner
                if radix == 4:
                    _pass_4(re, im, at, q * inner, inner, plan, j, step, before)
                elif radix == 2:
                    _pass_2(re, im, at, q * inner, inner, plan, j, step, before)
                elif radix == 3:
                    _pass_3(re, im, at, q * inner, inner, plan, j, step, before)
                else:
                    _pass_5(re, im, at, q * inner, inner, plan, j, step, before)


@kernel
def forward(re, im, outer, inner, plan):
    """Transform [outer, n, inner] over n, in place; the spectrum is left in the order of `frequencies`."""
    m = plan.n
    for i in range(plan.radices.size):
        _pass(re, im, outer, inner, plan, plan.radices[i], m, False)
        m //= plan.radices[i]


@kernel
def inverse(re, im, outer, inner, plan):
    """Undo `forward` but for a factor n."""
    m = 1
    for i in range(plan.radices.size - 1, -1, -1):
        m *= plan.radices[i]
        _pass(im, re, outer, inner, plan, plan.radices[i], m, True)


@kernel
def transpose(source, target, rows, columns):
    """target [columns, rows] = source [rows, columns], both multiples of the lanes."""
    step = lanes_of(source)
    for i in range(0, rows, step):
        for j in range(0, columns, step):
            transpose_square(target, j * rows + i, rows, source, i * columns + j, columns)
