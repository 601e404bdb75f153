"""One signal under one window, with nothing prepared: for compiled callers, to whom a layout would cost more than sums.

No zero stands beyond the signal's ends: a tap is added only where it meets a sample, so infinite taps and samples give
what the definition gives.
"""

from __future__ import annotations

from ..jit import inner_kernel
from .simd import lanes_of, splat, vload, vstore

_VECTORS = 6                   # sums of `_tile_sums` held in registers


@inner_kernel
def line_kernel(x, weight, first, out):
    """Add to ``out[i]`` the sum over t of ``weight[t] * x[first + i + t]``, as far as x reaches.

    Shapes: x [n], weight [taps], out [positions], all contiguous; `first` may be negative.
    """
    taps, positions = weight.size, out.size
    begin = min(max(-first, 0), positions)                 # from here on every tap meets a sample
    end = min(max(x.size - taps + 1 - first, begin), positions)
    tile = _VECTORS * lanes_of(x)
    whole = begin + (end - begin) // tile * tile
    if whole == begin and taps > positions:                # few positions of a long window
        whole = end
        for i in range(begin, end):
            out[i] += _dot(x[first + i:first + i + taps], weight)
    else:
        for i in range(begin, whole, tile):
            _tile_sums(x, weight, first + i, out, i)
    for edge in range(2):
        _tap_sums(x, weight, first, out, whole if edge else 0, positions if edge else begin)


@inner_kernel
def _tile_sums(x, weight, at, out, i):
    """Six vectors of positions, whose sums stay in registers over all taps."""
    n = lanes_of(x)
    a, b, c = vload(out, i), vload(out, i + n), vload(out, i + 2 * n)
    d, e, f = vload(out, i + 3 * n), vload(out, i + 4 * n), vload(out, i + 5 * n)
    for t in range(weight.size):
        w = splat(weight[t])
        p = at + t
        a = a + w * vload(x, p)
        b = b + w * vload(x, p + n)
        c = c + w * vload(x, p + 2 * n)
        d = d + w * vload(x, p + 3 * n)
        e = e + w * vload(x, p + 4 * n)
        f = f + w * vload(x, p + 5 * n)
    vstore(out, i, a)
    vstore(out, i + n, b)
    vstore(out, i + 2 * n, c)
    vstore(out, i + 3 * n, d)
    vstore(out, i + 4 * n, e)
    vstore(out, i + 5 * n, f)


@inner_kernel
def _tap_sums(x, weight, first, out, begin, end):
    """The positions begin <= i < end tap by tap, each tap where it meets samples."""
    n = lanes_of(x)
    for t in range(weight.size):
        i = max(begin, -first - t)
        last = min(end, x.size - first - t)
        w = splat(weight[t])
        while i + n <= last:
            vstore(out, i, vload(out, i) + w * vload(x, first + i + t))
            i += n
        while i < last:
            out[i] += weight[t] * x[first + i + t]
            i += 1


@inner_kernel
def _dot(a, b):
    """Sum of products; a plain loop over slices is vectorised."""
    total = a.dtype.type(0)
    for i in range(b.size):
        total += a[i] * b[i]
    return total
