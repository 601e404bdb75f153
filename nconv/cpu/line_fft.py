"""One signal under one window by overlap-save, with nothing prepared: for compiled callers, as `line`.

The transforms of `fft` read tables that Python makes once for a plan; a compiled caller has no plan, so here is a small
one that makes its own table by a multiplication an entry. A block of R C points is a matrix: a transform over its rows
with vectors along the columns, twiddles, a transposition, a transform over the columns. Forward passes decimate in
frequency and inverse ones in time, so no order is mended; two real blocks are the real and imaginary part of one.

A block that holds NaN, infinity, or parts so loud that their rounding would drown the others is left to direct sums.
"""

from __future__ import annotations

import numpy as np

from ..geometry import ceil_div
from ..jit import compiled, inner_kernel, owning_kernel
from .line import line_kernel
from .simd import lanes_of, splat, transpose_square, vload, vstore

ceil_div_ = compiled(ceil_div)


@inner_kernel
def block_points(taps, positions, lanes):
    """(points of the block that costs least, operations of the whole convolution)."""
    best, chosen = 0.0, 0
    points = lanes * lanes
    while True:
        if points >= taps:
            one = 5.0 * points * np.log2(points)
            pairs = ceil_div_(ceil_div_(positions, points - taps + 1), 2)
            operations = pairs * (2 * one + 30.0 * points) + one + 40.0 * points
            if chosen == 0 or operations < best:
                best, chosen = operations, points
            if points >= positions + taps - 1:
                return chosen, best
        points *= 2


@owning_kernel
def _roots(points, like):
    """cos and sin of -2 pi k / points, k < points: products of a coarse and a fine root, each from the library."""
    cos, sin = np.empty(points, like.dtype), np.empty(points, like.dtype)
    fine = 1
    while fine * fine < points:
        fine *= 2
    angle = -2 * np.pi / points
    fine_cos, fine_sin = np.empty(fine), np.empty(fine)
    for j in range(fine):
        fine_cos[j], fine_sin[j] = np.cos(angle * j), np.sin(angle * j)
    for i in range(points // fine):
        c, s = np.cos(angle * i * fine), np.sin(angle * i * fine)
        cos_row, sin_row = cos[i * fine:(i + 1) * fine], sin[i * fine:(i + 1) * fine]
        for j in range(fine):
            cos_row[j] = c * fine_cos[j] - s * fine_sin[j]
            sin_row[j] = c * fine_sin[j] + s * fine_cos[j]
    return cos, sin


@inner_kernel
def _turn(re, im, c, s):
    return re * c - im * s, re * s + im * c


@inner_kernel
def _two(re, im, at, q, inner, c, s, inverse):
    """Radix 2 on q-spaced rows of one twiddle."""
    c, s = splat(c), splat(s)
    for v in range(at, at + inner, lanes_of(re)):
        ar, ai, br, bi = vload(re, v), vload(im, v), vload(re, v + q), vload(im, v + q)
        if inverse:
            br, bi = _turn(br, bi, c, s)
        dr, di = ar - br, ai - bi
        vstore(re, v, ar + br)
        vstore(im, v, ai + bi)
        if not inverse:
            dr, di = _turn(dr, di, c, s)
        vstore(re, v + q, dr)
        vstore(im, v + q, di)


@inner_kernel
def _four(re, im, at, q, inner, cos, sin, k, inverse):
    """Radix 4, as `_two`; the twiddles are the roots of number k, 2 k and 3 k."""
    c1, s1, c2, s2 = splat(cos[k]), splat(sin[k]), splat(cos[2 * k]), splat(sin[2 * k])
    c3, s3 = splat(cos[3 * k]), splat(sin[3 * k])
    for v in range(at, at + inner, lanes_of(re)):
        ar, ai, br, bi = vload(re, v), vload(im, v), vload(re, v + q), vload(im, v + q)
        cr, ci, dr, di = vload(re, v + 2 * q), vload(im, v + 2 * q), vload(re, v + 3 * q), vload(im, v + 3 * q)
        if inverse:
            br, bi = _turn(br, bi, c1, s1)
            cr, ci = _turn(cr, ci, c2, s2)
            dr, di = _turn(dr, di, c3, s3)
        pr, pi, mr, mi = ar + cr, ai + ci, ar - cr, ai - ci
        sr, si, tr, ti = br + dr, bi + di, br - dr, bi - di
        br, bi, cr, ci, dr, di = mr + ti, mi - tr, pr - sr, pi - si, mr - ti, mi + tr
        if not inverse:
            br, bi = _turn(br, bi, c1, s1)
            cr, ci = _turn(cr, ci, c2, s2)
            dr, di = _turn(dr, di, c3, s3)
        vstore(re, v, pr + sr)
        vstore(im, v, pi + si)
        vstore(re, v + q, br)
        vstore(im, v + q, bi)
        vstore(re, v + 2 * q, cr)
        vstore(im, v + 2 * q, ci)
        vstore(re, v + 3 * q, dr)
        vstore(im, v + 3 * q, di)


@inner_kernel
def _transform(re, im, n, inner, cos, sin, inverse):
    """Transform [n, inner] over n in place: forward, or back from the order that forward leaves, but for a factor n.

    Back is forward with re and im exchanged and the passes in turn undone; a radix of 2 is the last one forward.
    """
    root = cos.size // n
    passes = 0
    while 4 << (2 * passes) <= n:
        passes += 1
    odd = 1 if 1 << (2 * passes) < n else 0
    for step in range(passes + odd):
        d = passes + odd - 1 - step if inverse else step
        m = n >> (2 * d)                                # rows of a sub-transform before its pass forward
        if d == passes:
            for base in range(0, n, 2):
                _two(re, im, base * inner, inner, inner, cos[0], sin[0], inverse)
        else:
            q = m // 4
            for j in range(q):
                for base in range(j, n, m):
                    _four(re, im, base * inner, q * inner, inner, cos, sin, j * (n // m) * root, inverse)


@inner_kernel
def _frequency(place, n):
    """Which frequency stands at a row after `_transform` forward."""
    frequency, weight, m = 0, 1, n
    while m > 1:
        radix = 4 if m >= 4 else 2
        m //= radix
        frequency += place // m * weight
        place %= m
        weight *= radix
    return frequency


@inner_kernel
def _transpose(source, target, rows, columns):
    n = lanes_of(source)
    for i in range(0, rows, n):
        for j in range(0, columns, n):
            transpose_square(target, j * rows + i, rows, source, i * columns + j, columns)


@inner_kernel
def _rotate(re, im, cos, sin):
    for v in range(0, re.size, lanes_of(re)):
        a, b = _turn(vload(re, v), vload(im, v), vload(cos, v), vload(sin, v))
        vstore(re, v, a)
        vstore(im, v, b)


@inner_kernel
def _forward(re, im, to_re, to_im, rows, columns, cos, sin, turn_cos, turn_sin):
    """The spectrum of a block [rows, columns] in `to`, as [columns, rows]."""
    _transform(re, im, rows, columns, cos, sin, False)
    _rotate(re, im, turn_cos, turn_sin)
    _transpose(re, to_re, rows, columns)
    _transpose(im, to_im, rows, columns)
    _transform(to_re, to_im, columns, rows, cos, sin, False)


@inner_kernel
def _backward(re, im, to_re, to_im, rows, columns, cos, sin, turn_cos, turn_sin):
    """Undo `_forward` but for a factor rows columns."""
    _transform(im, re, columns, rows, cos, sin, True)
    _transpose(re, to_re, columns, rows)
    _transpose(im, to_im, columns, rows)
    _rotate(to_im, to_re, turn_cos, turn_sin)
    _transform(to_im, to_re, rows, columns, cos, sin, True)


@inner_kernel
def _gather(x, first, block, count, cell):
    """block[i] = x[first + i] for i < count, else 0; its power of two, or 0 where it is not for a transform.

    Loudness is the sum of magnitudes in a cell: the loudest may exceed the quietest, but for silence, by as much as
    rounding to half of the digits allows.
    """
    begin, end = min(max(-first, 0), count), max(min(count, x.size - first), 0)
    block[:begin] = 0
    block[max(begin, end):] = 0
    loudest, quietest = 0.0, np.inf
    for start in range(begin, end, cell):
        stop = min(start + cell, end)
        source, target = x[first + start:first + stop], block[start:stop]
        loud = x.dtype.type(0)
        for i in range(source.size):
            target[i] = source[i]
            loud += abs(source[i])
        if not loud < np.inf:                           # NaN too; `isfinite` may be folded where sums are reordered
            return 0.0
        loudest = max(loudest, loud)
        if loud > 0:
            quietest = min(quietest, loud)
    if loudest * np.sqrt(np.finfo(x.dtype).eps) > quietest:
        return 0.0
    return np.exp2(np.ceil(np.log2(loudest))) if loudest > 0 else 1.0


@owning_kernel
def line_fft_kernel(x, weight, first, out, points):
    """Add to `out` what `line_kernel` adds, by blocks of so many points, of which one window less one are no output."""
    lanes = lanes_of(x)
    rows = lanes
    while rows * rows * 4 <= points:
        rows *= 2
    columns = points // rows
    cos, sin = _roots(points, x)
    turn_cos, turn_sin = np.empty(points, x.dtype), np.empty(points, x.dtype)
    for i in range(rows):
        f = _frequency(i, rows)
        for j in range(columns):
            turn_cos[i * columns + j], turn_sin[i * columns + j] = cos[f * j], sin[f * j]
    re, im, a, b = (np.zeros(points, x.dtype), np.zeros(points, x.dtype), np.empty(points, x.dtype),
                    np.empty(points, x.dtype))
    w_re, w_im = np.empty(points, x.dtype), np.empty(points, x.dtype)
    re[:weight.size] = weight
    _forward(re, im, w_re, w_im, rows, columns, cos, sin, turn_cos, turn_sin)
    valid = points - weight.size + 1
    cell = max(weight.size // 2, 8)
    for start in range(0, out.size, 2 * valid):
        middle, end = min(start + valid, out.size), min(start + 2 * valid, out.size)
        up = _gather(x, first + start, re, middle - start + weight.size - 1, cell)
        up_im = _gather(x, first + middle, im, end - middle + weight.size - 1 if end > middle else 0, cell)
        for rider in range(2):
            if (up_im if rider else up) == 0:
                p, q = (middle, end) if rider else (start, middle)
                line_kernel(x, weight, first + p, out[p:q])
        _scale(re, up)
        _scale(im, up_im)
        _forward(re, im, a, b, rows, columns, cos, sin, turn_cos, turn_sin)
        for v in range(0, points, lanes):               # times the conjugate: a correlation with the window
            c, s, p, q = vload(w_re, v), vload(w_im, v), vload(a, v), vload(b, v)
            vstore(a, v, p * c + q * s)
            vstore(b, v, q * c - p * s)
        _backward(a, b, re, im, rows, columns, cos, sin, turn_cos, turn_sin)
        _add(out[start:middle], re, up / points)
        _add(out[middle:end], im, up_im / points)


@inner_kernel
def _scale(block, up):
    """Bring a block to the loudness 1, or to silence."""
    factor = block.dtype.type(1 / up) if up > 0 else block.dtype.type(0)
    if up == 0:
        block[:] = 0
    for i in range(block.size):
        block[i] *= factor


@inner_kernel
def _add(out, block, factor):
    factor = block.dtype.type(factor)
    for i in range(out.size):
        out[i] += block[i] * factor
