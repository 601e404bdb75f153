"""Convolution for callers that are compiled code themselves: no Python, no plan, one thread, safe wherever they run.

The arithmetic is `multiply_tile`, as in `direct`; what there is settled beforehand, by the planner and in tables,
is settled here at run time in a few numbers, for three axes at most, so that a caller's function compiles quickly and a
small call costs little. One signal under one window goes to `line` or `line_fft`, with nothing prepared at all.

What a user's function calls is a `kernel` and not a part of that function: it is kept on disk and linked, where a part
would be compiled anew with every caller, ten seconds in place of three.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import intrinsic

from ..geometry import ceil_div, full_range, out_size, same_padding, same_range, span, valid_range
from ..jit import compiled, inner_kernel, kernel, owning_kernel
from .line import line_kernel
from .line_fft import block_points, line_fft_kernel
from .micro.products import multiply_tile
from .simd import copy, lanes_of
from .tiles import register_tile

ceil_div_, span_ = compiled(ceil_div), compiled(span)
out_size_, same_padding_ = compiled(out_size), compiled(same_padding)
RANGES = {"full": compiled(full_range), "same": compiled(same_range), "valid": compiled(valid_range)}
_ONE, _MANY = register_tile(1), register_tile(4)    # of one output channel; of more, four at a time


@intrinsic
def lend(typingctx, array):
    """The same contiguous array as one that may be written, to kernels that only read: they compile once for both."""
    lent = array.copy(readonly=False)

    def codegen(context, builder, sig, args):
        context.nrt.incref(builder, lent, args[0])
        return args[0]

    return lent(array), codegen


# ------------------------------------------------------------------------------------------------- The choice


def rate_ratio(dtype: np.dtype, machine, method: str) -> float | None:
    """By how much the direct sums of a type run faster than its transforms, operation for operation.

    None leaves the transforms out, 0 the direct sums. Counts are made where shapes are known, in compiled code.
    """
    if method == "direct" or dtype.kind == "i":
        return None
    return 0.0 if method == "fft" else machine.efficiency["line"] / machine.efficiency["line_fft"]


@inner_kernel
def fft_pays(direct, taps, positions, lanes, ratio):
    """Points of the block by which an FFT takes less time than so many direct operations, or 0."""
    points, operations = block_points(taps, positions, lanes)
    return points if operations * ratio < direct else 0


@inner_kernel
def add_line(x, weight, first, out, ratio):
    """Add to ``out[i]`` the sum over t of ``weight[t] * x[first + i + t]``, by the cheaper method."""
    if ratio is not None:
        begin = min(max(-first, 0), out.size)
        whole = max(min(x.size - weight.size + 1 - first, out.size) - begin, 0)
        direct = weight.size * (out.size + whole)       # two operations a tap, half of the taps at the edges
        points = fft_pays(direct, weight.size, out.size, lanes_of(x), ratio)
        if points > 0 and _is_finite(weight):
            line_fft_kernel(x, weight, first, out, points)
            return
    line_kernel(x, weight, first, out)


@inner_kernel
def _is_finite(array):
    for value in array:
        if not abs(value) < np.inf:
            return False
    return True


# ------------------------------------------------------------------------------------------------------ Lines


@kernel
def convolve_lines(a, b, start, length, correlate, ratio):
    """Positions start <= p < start + length of the full convolution of two lines, or of their correlation."""
    out = np.zeros(length, a.dtype)
    x, weight, turn = a, b, not correlate               # a correlation's window is b as it came
    if b.size > a.size:
        x, weight, turn = b, a, True
        if correlate:
            x = b[::-1].copy()
    if turn:
        weight = weight[::-1].copy()
    add_line(x, weight, start - weight.size + 1, out, ratio)
    return out


@kernel
def convolve_complex_lines(a, b, start, length, correlate, ratio):
    """As `convolve_lines`, by four real convolutions."""
    ar, ai, br, bi = a.real.copy(), a.imag.copy(), b.real.copy(), b.imag.copy()
    if correlate:
        for i in range(bi.size):
            bi[i] = -bi[i]
    rr = convolve_lines(ar, br, start, length, correlate, ratio)
    ii = convolve_lines(ai, bi, start, length, correlate, ratio)
    ri = convolve_lines(ar, bi, start, length, correlate, ratio)
    ir = convolve_lines(ai, br, start, length, correlate, ratio)
    out = np.empty(length, a.dtype)
    for i in range(length):
        out[i] = complex(rr[i] - ii[i], ri[i] + ir[i])
    return out


# ------------------------------------------------------------------------------------------- Images and layers


class Layer(NamedTuple):
    """A convolution in numbers; three axes, the first ones of extent 1 where there are fewer."""

    batch: int
    groups: int
    C: int                     # input channels of one group
    K: int                     # output channels of one group
    size: tuple[int, int, int]
    window: tuple[int, int, int]
    stride: tuple[int, int, int]
    dilation: tuple[int, int, int]
    low: tuple[int, int, int]  # padded positions before the input; negative crops
    out: tuple[int, int, int]


@inner_kernel
def layer_kernel(layer, x, weight, bias, out):
    """A layer by the direct method, image by image and group by group.

    Shapes: x (batch, groups C, *size, parts), weight (groups K, C, *window, parts), out (batch, groups K, *out, parts),
    all flat and real; bias (groups K, parts), or (parts,) zeros. Complex numbers have two parts.
    """
    parts = out.size // max(layer.batch * layer.groups * layer.K * layer.out[0] * layer.out[1] * layer.out[2], 1)
    if layer.K * parts == 1:
        _layer_sums(layer, parts, x, weight, bias, out, _ONE[0], _ONE[1])
    else:
        _layer_sums(layer, parts, x, weight, bias, out, _MANY[0], _MANY[1])


@inner_kernel
def _extent(layer, a):
    """Positions of one phase of the stride that the outputs read along an axis."""
    return ceil_div_((layer.out[a] - 1) * layer.stride[a] + span_(layer.window[a], layer.dilation[a]), layer.stride[a])


@inner_kernel
def _place(layer, extents, d, h, w):
    """Where a padded position of a channel lies in the buffer: [phases of each axis, positions of each axis]."""
    s, e = layer.stride, extents
    phase = (d % s[0] * s[1] + h % s[1]) * s[2] + w % s[2]
    return ((phase * e[0] + d // s[0]) * e[1] + h // s[1]) * e[2] + w // s[2]


@inner_kernel
def _gather(layer, extents, buffer, at, x, base, parts):
    """Copy one channel (or one part of it) into the zeros of its place in the buffer."""
    (D, H, W), low, s = layer.size, layer.low, layer.stride
    first = max(-low[2], 0)                             # what the padded extent holds of a row
    end = min(W, extents[2] * s[2] - low[2])
    for d in range(max(-low[0], 0), min(D, extents[0] * s[0] - low[0])):
        for h in range(max(-low[1], 0), min(H, extents[1] * s[1] - low[1])):
            source = base + (d * H + h) * W * parts
            if parts == 1 and s[2] == 1 and first < end:
                copy(buffer, at + _place(layer, extents, d + low[0], h + low[1], first + low[2]), x, source + first,
                     end - first)
            else:
                for phase in range(s[2]):
                    begin = first + (phase - first - low[2]) % s[2]
                    if begin < end:
                        to = at + _place(layer, extents, d + low[0], h + low[1], begin + low[2])
                        for i in range((end - begin - 1) // s[2] + 1):
                            buffer[to + i] = x[source + (begin + i * s[2]) * parts]


@owning_kernel
def _pack(weight, groups, K, C, window, parts, M):
    """The weight in panels [groups, blocks of M rows, taps, M]; complex numbers as real 2 x 2 matrices, row by row."""
    rows, taps = K * parts, C * parts * window
    blocks = ceil_div_(rows, M)
    packed = np.zeros(groups * blocks * taps * M, weight.dtype)
    for g in range(groups):
        for row in range(rows):
            to = (g * blocks + row // M) * taps * M + row % M
            source = (g * K + row // parts) * C * window
            for t in range(taps):
                c, part, r = t // (parts * window), t // window % parts, t % window
                at = (source + c * window + r) * parts
                if parts == 1:
                    packed[to + t * M] = weight[at]
                elif part == row % 2:
                    packed[to + t * M] = weight[at]
                else:
                    packed[to + t * M] = weight[at + 1] if part == 0 else -weight[at + 1]
    return packed


@owning_kernel
def _layer_sums(layer, parts, x, weight, bias, out, rows, columns):
    """All outputs, M rows (output channels and their parts) at a time: [M x taps] [taps x positions]."""
    M, vector = len(rows), len(columns) * lanes_of(x)
    extents = (_extent(layer, 0), _extent(layer, 1), _extent(layer, 2))
    s = layer.stride
    volume = extents[0] * extents[1] * extents[2]
    channel = volume * s[0] * s[1] * s[2]
    T, R, S = layer.window
    window = T * R * S
    channels, out_rows = layer.C * parts, layer.K * parts
    blocks = ceil_div_(out_rows, M)
    offsets = np.empty(channels * window, np.int64)
    for t in range(offsets.size):
        offsets[t] = t // window * channel + _place(
            layer, extents, t // (R * S) % T * layer.dilation[0], t // S % R * layer.dilation[1],
            t % S * layer.dilation[2])
    packed = _pack(weight, layer.groups, layer.K, layer.C, window, parts, M)
    buffer = np.zeros(channels * channel + vector, x.dtype)
    sums = np.empty(M * vector, x.dtype)
    image = layer.size[0] * layer.size[1] * layer.size[2] * parts
    P, Q, W = layer.out
    for item in range(layer.batch * layer.groups):
        for c in range(channels):
            _gather(layer, extents, buffer, c * channel, x, (item * layer.C + c // parts) * image + c % parts, parts)
        g = item % layer.groups
        for block in range(blocks):
            row = block * M
            height = min(M, out_rows - row)
            for line in range(P * Q):
                at = (line // Q * extents[1] + line % Q) * extents[2]
                to = ((item * layer.K + row // parts) * P * Q + line) * W * parts
                for p in range(0, W, vector):
                    width = min(vector, W - p)
                    where, place, ldo = out, to + p, P * Q * W
                    if parts > 1:
                        where, place, ldo = sums, 0, vector
                    multiply_tile(where, place, ldo, height, width, False, bias, g * out_rows + row, buffer, at + p,
                                  offsets, packed, (g * blocks + block) * offsets.size * M, 0, offsets.size, rows,
                                  columns)
                    if parts > 1:
                        for i in range(height):
                            target = to + i // parts * P * Q * W * parts + i % parts
                            for j in range(width):
                                out[target + (p + j) * parts] = sums[i * vector + j]


@kernel
def convolve_images(a, b, size1, size2, start, length, correlate, real, ratio):
    """As `convolve_lines` in three axes, for flat arrays; `real` is any array of their real type.

    Complex numbers are convolved directly.
    """
    x, size, weight, window = a, size1, b, size2
    turn = not correlate                                # a correlation's window is b as it came
    if correlate:
        weight = np.conj(b)
    if b.size > a.size:
        x, size, weight, window = weight[::-1].copy() if correlate else b, size2, a, size1
        turn = True
    if turn:
        weight = weight[::-1].copy()
    one = (1, 1, 1)
    layer = Layer(1, 1, 1, 1, size, window, one, one,
                  (window[0] - 1 - start[0], window[1] - 1 - start[1], window[2] - 1 - start[2]), length)
    out = np.zeros(length[0] * length[1] * length[2], a.dtype)
    if not _is_finite(weight):
        _add_products(layer, x, weight, out)
        return out
    if ratio is not None:
        if _add_as_line(layer, x, weight, out, ratio):
            return out
    parts = x.itemsize // real.itemsize
    layer_kernel(layer, x.view(real.dtype), weight.view(real.dtype), np.zeros(parts, real.dtype), out.view(real.dtype))
    return out


@owning_kernel
def _add_as_line(layer, x, weight, out, ratio):
    """An image with zeros between its rows is one line, and so is its window: an FFT of lines does for both.

    False where it does not pay, or where a NaN would meet the zeros in between.
    """
    (D, H, W), (T, R, S), (P, Q, V) = layer.size, layer.window, layer.out
    row = W + S - 1
    plane = row * (H + R - 1)
    taps = (T - 1) * plane + (R - 1) * row + S
    positions = (P - 1) * plane + (Q - 1) * row + V
    points = fft_pays(2.0 * weight.size * out.size, taps, positions, lanes_of(x), ratio)
    if points == 0 or not _is_finite(x):
        return False
    line, window, result = np.zeros(D * plane, x.dtype), np.zeros(taps, x.dtype), np.zeros(positions, x.dtype)
    for i in range(D * H):
        copy(line, i // H * plane + i % H * row, x, i * W, W)
    for i in range(T * R):
        copy(window, i // R * plane + i % R * row, weight, i * S, S)
    line_fft_kernel(line, window, -(layer.low[0] * plane + layer.low[1] * row + layer.low[2]), result, points)
    for i in range(P * Q):
        copy(out, i * V, result, i // Q * plane + i % Q * row, V)
    return True


@inner_kernel
def _add_products(layer, x, weight, out):
    """Tap by tap, each where it meets samples: an infinite tap must not meet the zeros beyond the edges."""
    (D, H, W), (P, Q, R), low = layer.size, layer.out, layer.low
    for t in range(weight.size):
        tap = (t // (layer.window[1] * layer.window[2]), t // layer.window[2] % layer.window[1], t % layer.window[2])
        d0, h0, w0 = tap[0] - low[0], tap[1] - low[1], tap[2] - low[2]
        for p in range(max(0, -d0), min(P, D - d0)):
            for q in range(max(0, -h0), min(Q, H - h0)):
                for r in range(max(0, -w0), min(R, W - w0)):
                    out[(p * Q + q) * R + r] += weight[t] * x[((p + d0) * H + q + h0) * W + r + w0]


# -------------------------------------------------------------------------------------- A layer's numbers


@owning_kernel
def check_layer(layer, channels, weight_channels, out_channels, biases, high):
    """Refuse what the public functions refuse; exceptions of compiled code carry their numbers beside the words."""
    if layer.groups < 1:
        raise ValueError("groups must be a positive integer: groups", layer.groups)
    if channels % layer.groups or out_channels % layer.groups:
        raise ValueError("groups must divide the channels: groups, input channels, output channels", layer.groups,
                         channels, out_channels)
    if channels != weight_channels * layer.groups:
        raise ValueError("input and weight disagree on channels: input's, those that weight and groups expect",
                         channels, weight_channels * layer.groups)
    if biases >= 0 and biases != out_channels:
        raise ValueError("bias must have one entry for each output channel: its size, output channels", biases,
                         out_channels)
    for a in range(3):
        if layer.stride[a] < 1 or layer.dilation[a] < 1:
            raise ValueError("stride and dilation must be at least 1: stride, dilation", layer.stride[a],
                             layer.dilation[a])
        if layer.low[a] < 0 or high[a] < 0:
            raise ValueError("padding must not be negative: low, high", layer.low[a], high[a])
        if layer.window[a] < 1:
            raise ValueError("weight must not be empty: extent", layer.window[a])
        if span_(layer.window[a], layer.dilation[a]) > layer.size[a] + layer.low[a] + high[a]:
            raise ValueError("weight is larger than the padded input: span of the window, extent of the input",
                             span_(layer.window[a], layer.dilation[a]), layer.size[a] + layer.low[a] + high[a])


@inner_kernel
def _pads(same, size, window, stride, dilation, low, high):
    """(low, high) of an axis, as given or of padding='same'."""
    return same_padding_(size, window, stride, dilation) if same else (low, high)


@inner_kernel
def layer_of(batch, groups, channels, out_channels, size, window, stride, dilation, low, high, same):
    """(the layer in numbers, its padding high), the padding as given or 'same'; wrong numbers are for `check_layer`."""
    s = (max(stride[0], 1), max(stride[1], 1), max(stride[2], 1))
    pads = (_pads(same, size[0], window[0], s[0], dilation[0], low[0], high[0]),
            _pads(same, size[1], window[1], s[1], dilation[1], low[1], high[1]),
            _pads(same, size[2], window[2], s[2], dilation[2], low[2], high[2]))
    low, high = (pads[0][0], pads[1][0], pads[2][0]), (pads[0][1], pads[1][1], pads[2][1])
    out = (out_size_(size[0], window[0], s[0], dilation[0], low[0], high[0]),
           out_size_(size[1], window[1], s[1], dilation[1], low[1], high[1]),
           out_size_(size[2], window[2], s[2], dilation[2], low[2], high[2]))
    g = max(groups, 1)
    return (Layer(batch, groups, channels // g, out_channels // g, size, window, stride, dilation, low, out), high)


@kernel
def convolve_layer(layer, x, weight, bias, real):
    """A layer of flat arrays of the engine's type; the result is flat too."""
    out = np.empty(layer.batch * layer.groups * layer.K * layer.out[0] * layer.out[1] * layer.out[2], x.dtype)
    if out.size:
        layer_kernel(layer, x.view(real.dtype), weight.view(real.dtype), bias.view(real.dtype), out.view(real.dtype))
    return out
