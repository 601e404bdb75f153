"""Windows that are an outer product of vectors, as one pass over each axis.

A tile's input is gathered once; the passes run through it within the cache, axis by axis, in place, each over whole
stretches of memory: along an axis the taps lie a stride apart. What a pass leaves is smaller by that axis' window.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import add
from typing import NamedTuple

import numpy as np

from ..boundary import FILL
from ..factors import outer_factors
from ..geometry import ceil_div, product, round_up, span
from ..jit import inner_kernel, owning_kernel, parallel_kernel, prange, settled
from ..problem import ConvProblem
from . import simd
from .arrays import bias_vector, parts, real_dtype
from .borrowed import borrow
from .gather import flat_maps, gather_row, inner_range
from .launch import entries
from .sharing import LINE, take
from .simd import copy, lanes_of, splat, vload, vstore
from .tiles import even_tile, shrink

# ------------------------------------------------------------------------------------------------- The choice

NAME = "separable"
SUPPORTS = "windows that are an outer product of one vector for each axis, one input channel, stride 1; every dtype"
REFERENCE = "Gonzalez, Woods: Digital Image Processing, section 3.4 (separable kernels)"
CALLS = 5.0                   # with its look for the factors of windows
_BUFFER_BYTES = 512 * 1024     # of one thread's tile, which should stay in the L2 cache


def why_not(problem: ConvProblem) -> str:
    """Only what is known to be an outer product."""
    if not problem.separable:
        return "the weight is not known to be an outer product of one vector for each axis"
    if problem.C > 1:
        return "several input channels are summed"
    if any(s > 1 for s in problem.stride):
        return "a stride above 1"
    if sum(k > 1 for k in problem.kernel) < 2:
        return "the window has fewer than two axes"
    if 0 in problem.out or 0 in problem.size:
        return "nothing to sum"
    return ""


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """The passes' multiplications, the gathering of tiles with what they share, and the store of the output."""
    choice = _choose(problem)
    threads = min(problem.threads, choice.items)
    return {"call": problem.calls(CALLS), "start": threads > 1,
            "separable.products": 2 * choice.macs * parts(problem) ** 2 / machine.flops(problem.engine) / threads,
            "separable.gathered": choice.gathered * problem.engine.itemsize / threads,
            "byte": machine.traffic(problem) / threads}


def workspace(problem: ConvProblem, machine) -> int:
    """A tile for each thread, and the vectors."""
    plane = _choose(problem).plane
    vectors = problem.groups * problem.K * sum(problem.kernel) * parts(problem)
    return (problem.threads * parts(problem) * plane + vectors) * real_dtype(problem).itemsize


def error(problem: ConvProblem) -> float:
    """Measured: 1.2 times the direct method's at most, on small windows; fewer sums leave less on larger ones."""
    return 1.2


class _Choice(NamedTuple):
    """The shape of tiles, as integers: all that the cost depends on."""

    tile: tuple[int, ...]      # output extents of a tile
    extents: tuple[int, ...]   # and what it reads
    plane: int                 # elements of one part of a tile
    items: int
    macs: float                # multiplications of all passes
    gathered: float            # elements of all tiles


@lru_cache(maxsize=1024)
def _choose(problem: ConvProblem) -> _Choice:
    p = problem
    dtype = real_dtype(p)
    lanes = simd.lanes(dtype)
    halo = [span(k, d) - 1 for k, d in zip(p.kernel, p.dilation, strict=True)]

    def extents(tile):
        read = list(map(add, tile, halo))
        return (*read[:-1], round_up(read[-1], parts(p) * lanes))          # vectors end within their row

    def fits(tile):
        return product(extents(tile)) * parts(p) * dtype.itemsize <= _BUFFER_BYTES

    tile = tuple(map(even_tile, p.out, shrink(list(p.out), p.kernel, fits)))
    shape = extents(tile)
    items = p.N * p.groups * p.K * product(map(ceil_div, p.out, tile))
    macs = sum(product(tile[:a + 1]) * product(shape[a + 1:]) * k for a, k in enumerate(p.kernel) if k > 1)
    plane = product(shape) + 2 * max(halo[-1], lanes)   # the last vectors of the last row read beyond its end
    return _Choice(tile, shape, plane, items, float(items * macs), float(items * product(shape)))


class PassLayout(NamedTuple):
    """A tile's shape and where it lies in its buffer."""

    batch: int
    groups: int
    out_channels: int          # of one group
    parts: int                 # 2 for complex numbers
    plane: int                 # elements of one part of a tile
    out: np.ndarray            # output extents
    tile: np.ndarray           # output extents of a tile
    grid: np.ndarray           # tiles per axis
    halo: np.ndarray           # what a window reads beyond a tile, per axis
    strides: np.ndarray        # of the buffer, per axis
    kernel: np.ndarray         # taps, per axis; 0: there is but one, and no pass
    dilation: np.ndarray


def _lay_out(problem: ConvProblem) -> PassLayout:
    p = problem
    choice = _choose(p)
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    return PassLayout(
        p.N, p.groups, p.K, parts(p), choice.plane, vec(p.out), vec(choice.tile),
        vec(list(map(ceil_div, p.out, choice.tile))),
        vec([span(k, d) - 1 for k, d in zip(p.kernel, p.dilation, strict=True)]),
        vec([product(choice.extents[a + 1:]) for a in range(p.rank)]), vec([k if k > 1 else 0 for k in p.kernel]),
        vec(p.dilation))


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The vectors of every kernel as the passes read them, [groups K, axes, taps, part], flat and real.

    The factors of axes with one tap go into the last vector.
    """
    packed = []
    for window in weight[:, 0]:
        vectors = outer_factors(window)
        if vectors is None:
            raise ValueError("the weight is not an outer product of one vector for each axis")
        longer = [vector for vector in vectors if len(vector) > 1]
        for vector in vectors:
            if len(vector) == 1:
                longer[-1] = longer[-1] * vector
        packed += [vector.astype(problem.engine).view(real_dtype(problem)) for vector in longer]
    return np.concatenate(packed)


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    layout, maps, unbiased = _lay_out(problem), flat_maps(problem), bias_vector(problem, None)
    kernel, threads = settled(separable_tile_kernel), min(problem.threads, _choose(problem).items)

    def start(x, prepared, bias, out):
        biases = unbiased if bias is None else bias_vector(problem, bias)
        kernel(layout, x, maps, prepared, biases, out, threads)

    return start


run, shortcut = entries(prepare, bind)


# ------------------------------------------------------------------------------------------------ The kernels


@inner_kernel
def _gather(layout, buffer, source, x_base, part, maps, origin, extent):
    """buffer = the padded input under one tile, row by row."""
    last = extent.size - 1
    count = extent[last] + layout.halo[last]
    inner = inner_range(maps, origin[last], 1, count)
    rows = 1
    for a in range(last):
        rows *= extent[a] + layout.halo[a]
    for row in range(rows):
        rest = row
        base = x_base
        at = part * layout.plane
        for b in range(last):
            a = last - 1 - b
            position = rest % (extent[a] + layout.halo[a])
            rest //= extent[a] + layout.halo[a]
            at += position * layout.strides[a]
            if base != FILL:
                j = maps.index[maps.start[a] + origin[a] + position]
                base = FILL if j == FILL else base + j * source.strides[3 + a]
        gather_row(buffer, at, count, source.flat, base, source.strides[3 + last], maps, part, origin[last], 1, inner)


@inner_kernel
def _real_stretch(buffer, begin, end, taps, step, weight, w, start):
    """buffer[p] = start + sum over t of weight[w + t] buffer[p + t step], in place: nothing before p is read.

    Eight vectors of sums at once, for a fused product takes several cycles; then one at a time up to `end`.
    """
    lanes = lanes_of(buffer)
    first = splat(start)
    p = begin
    while p + 8 * lanes <= end:
        a, b, c, d, e, f, g, h = first, first, first, first, first, first, first, first
        for t in range(taps):
            tap = splat(weight[w + t])
            q = p + t * step
            a = a + tap * vload(buffer, q)
            b = b + tap * vload(buffer, q + lanes)
            c = c + tap * vload(buffer, q + 2 * lanes)
            d = d + tap * vload(buffer, q + 3 * lanes)
            e = e + tap * vload(buffer, q + 4 * lanes)
            f = f + tap * vload(buffer, q + 5 * lanes)
            g = g + tap * vload(buffer, q + 6 * lanes)
            h = h + tap * vload(buffer, q + 7 * lanes)
        vstore(buffer, p, a)
        vstore(buffer, p + lanes, b)
        vstore(buffer, p + 2 * lanes, c)
        vstore(buffer, p + 3 * lanes, d)
        vstore(buffer, p + 4 * lanes, e)
        vstore(buffer, p + 5 * lanes, f)
        vstore(buffer, p + 6 * lanes, g)
        vstore(buffer, p + 7 * lanes, h)
        p += 8 * lanes
    while p < end:
        a = first
        for t in range(taps):
            a = a + splat(weight[w + t]) * vload(buffer, p + t * step)
        vstore(buffer, p, a)
        p += lanes


@inner_kernel
def _complex_stretch(buffer, begin, end, plane, taps, step, weight, w, re, im):
    """`_real_stretch` of complex numbers: real parts, and imaginary ones a `plane` behind; taps (re, im)."""
    lanes = lanes_of(buffer)
    p = begin
    while p < end:
        a, b, c, d = splat(re), splat(im), splat(re), splat(im)
        for t in range(taps):
            tap, turn = splat(weight[w + 2 * t]), splat(weight[w + 2 * t + 1])
            q = p + t * step
            x, y = vload(buffer, q), vload(buffer, q + plane)
            u, v = vload(buffer, q + lanes), vload(buffer, q + lanes + plane)
            a = a + tap * x - turn * y
            b = b + tap * y + turn * x
            c = c + tap * u - turn * v
            d = d + tap * v + turn * u
        vstore(buffer, p, a)
        vstore(buffer, p + plane, b)
        vstore(buffer, p + lanes, c)
        vstore(buffer, p + plane + lanes, d)
        p += 2 * lanes


@inner_kernel
def _pass(layout, buffer, axis, extent, weight, w, starts):
    """One axis: stretches of memory in which all positions of this axis and of those behind it follow each other."""
    step = layout.strides[axis] * layout.dilation[axis]
    stretches = 1
    for a in range(axis):
        stretches *= extent[a]
    for stretch in range(stretches):
        rest = stretch
        begin = 0
        for b in range(axis):
            a = axis - 1 - b
            begin += rest % extent[a] * layout.strides[a]
            rest //= extent[a]
        end = begin + extent[axis] * layout.strides[axis]
        if layout.parts == 1:
            _real_stretch(buffer, begin, end, layout.kernel[axis], step, weight, w, starts[0])
        else:
            _complex_stretch(buffer, begin, end, layout.plane, layout.kernel[axis], step, weight, w, starts[0],
                             starts[1])


@inner_kernel
def _store(layout, sums, at, target, base, extent):
    """Write one part of a tile to its place, row by row."""
    last = extent.size - 1
    step = target.strides[3 + last]
    rows = 1
    for a in range(last):
        rows *= extent[a]
    for row in range(rows):
        rest = row
        source = at
        to = base
        for b in range(last):
            a = last - 1 - b
            source += rest % extent[a] * layout.strides[a]
            to += rest % extent[a] * target.strides[3 + a]
            rest //= extent[a]
        if step == 1:
            copy(target.flat, to, sums, source, extent[last])
        else:
            for i in range(extent[last]):
                target.flat[to + i * step] = sums[source + i]


@owning_kernel
def separable_share_kernel(layout, source, maps, weight, bias, target, shares, thread):
    """One thread's share of the tiles: gather, one pass for each axis, store.

    Shapes: source (N, groups, parts, *size) and target (N, groups K, parts, *out) by their strides; weight [groups K,
    axes, tap, part].
    """
    rank = layout.tile.size
    kernels = layout.groups * layout.out_channels
    items = layout.batch * kernels
    for a in range(rank):
        items *= layout.grid[a]
    buffer = np.zeros(layout.parts * layout.plane, source.flat.dtype)
    nothing = np.zeros(layout.parts, source.flat.dtype)
    starts = np.zeros(layout.parts, source.flat.dtype)
    origin = np.empty(rank, np.int64)
    extent = np.empty(rank, np.int64)
    last = taps = 0
    for a in range(rank):
        taps += layout.kernel[a]
        if layout.kernel[a] > 0:
            last = a
    while True:
        item = take(shares, items, thread)
        if item < 0:
            break
        rest = item
        for b in range(rank):
            a = rank - 1 - b
            origin[a] = rest % layout.grid[a] * layout.tile[a]
            rest //= layout.grid[a]
            extent[a] = min(layout.tile[a], layout.out[a] - origin[a])
        channel = rest % kernels
        n = rest // kernels
        x_base = n * source.strides[0] + channel // layout.out_channels * source.strides[1]
        w = channel * taps * layout.parts
        for part in range(layout.parts):
            _gather(layout, buffer, source, x_base + part * source.strides[2], part, maps, origin, extent)
            starts[part] = bias[(channel * layout.parts + part) % bias.size]
        for a in range(rank):
            if layout.kernel[a] > 0:
                _pass(layout, buffer, a, extent, weight, w, starts if a == last else nothing)
                w += layout.kernel[a] * layout.parts
        base = n * target.strides[0] + channel * target.strides[1]
        for a in range(rank):
            base += origin[a] * target.strides[3 + a]
        for part in range(layout.parts):
            _store(layout, buffer, part * layout.plane, target, base + part * target.strides[2], extent)


@parallel_kernel
def separable_tile_kernel(layout, source, maps, weight, bias, target, threads):
    """All tiles. Parallel over (N, groups K, tiles).

    Race-free because no two tiles share an output element and each thread has its own buffers.
    """
    layout, source, maps, target = borrow(layout), borrow(source), borrow(maps), borrow(target)
    shares = np.zeros(LINE * threads, np.int64)
    for thread in prange(threads):
        separable_share_kernel(layout, source, maps, weight, bias, target, shares, np.int64(thread))
