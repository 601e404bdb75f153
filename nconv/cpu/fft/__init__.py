"""Convolution by Fourier transforms of blocks (overlap-save), in any number of dimensions.

The padded input is cut into blocks that overlap by the window's span less one; the spectrum of each is multiplied by
the kernel's, summed over the input channels, and transformed back; the part of the block that did not wrap around is
output. Two real blocks ride as the real and imaginary part of one complex one. A one-dimensional block is transformed
as a matrix with twiddles between rows and columns, so that one signal fills the SIMD lanes too.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as every
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, span
from ...problem import ConvProblem
from .. import direct, simd
from ..arrays import bias_vector, flat_maps, operand, parts, real_dtype
from . import blocks
from .transforms import frequencies, is_smooth, transform

# ------------------------------------------------------------------------------------------------- The choice

NAME = "fft"
SUPPORTS = "floating and complex types; every window, stride and boundary"
REFERENCE = ("Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7 (overlap-save); Bailey 1990, FFTs in "
             "External or Hierarchical Memory (the matrix form of one long transform)")
_LARGEST = 1 << 24             # points of one block


def why_not(problem: ConvProblem) -> str:
    """Integers are refused, and windows beyond the longest transform."""
    if problem.engine.kind == "i":
        return "a transform would round integers, only direct sums keep them exact"
    if 0 in problem.out or 0 in problem.size:
        return "nothing to transform"
    if _choose(problem) is None:
        return f"the window spans more than a transform of {_LARGEST} points holds"
    return ""


def cost(problem: ConvProblem, machine) -> float:
    """Transforms, products of spectra, and the movement of blocks that leave the cache."""
    choice = _choose(problem)
    threads = min(problem.threads, choice.items)
    flops, moved = choice.flops, choice.moved
    rate = machine.flops(problem.engine) * machine.efficiency["fft"]
    if choice.block_bytes > machine.l2:
        rate *= machine.efficiency["fft_out_of_cache"]
    stored = (product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize
    weights = problem.groups * problem.K * problem.C * choice.flops_of_one / rate
    spectra = problem.K * problem.C * 2 * choice.layout.points * real_dtype(problem).itemsize
    if spectra > machine.l2:                            # every block reads all spectra of its group anew
        moved += choice.items * spectra
    return weights + (flops / rate + moved / machine.gather_rate + stored / machine.bandwidth) / threads + (
        3 * machine.call + (machine.parallel_start if threads > 1 else 0))


def workspace(problem: ConvProblem, machine) -> int:
    """The kernel's spectra and each thread's blocks."""
    layout = _choose(problem).layout
    weights = problem.groups * problem.K * problem.C
    block = 2 * layout.points * real_dtype(problem).itemsize
    return block * (weights + problem.threads * (problem.C + 2))


def error(problem: ConvProblem) -> float:
    """Roundings grow with the logarithm of the block, over those of one window's sum."""
    layout = _choose(problem).layout
    return max(1.0, 0.25 * float(np.log2(layout.points)))


class _Choice(NamedTuple):
    """A block's shape with what only the host needs."""

    layout: blocks.BlockLayout
    items: int
    flops: float                 # of all transforms and products
    flops_of_one: float          # of one transform
    moved: float                 # bytes gathered, transposed and stored
    block_bytes: int


def _axis_lengths(rank: int, axis: int, least: int, most: int, lanes: int) -> list[int]:
    """Good lengths of an axis from `least` to the first that holds `most`, sparse where there is much to choose."""
    if rank == 1:
        unit = lanes * lanes             # rows and columns of the matrix are both whole vectors
    else:
        unit = lanes if axis == rank - 1 or rank == 2 else 4
    lengths = []
    n = ceil_div(least, unit)
    while n * unit <= _LARGEST:
        if is_smooth(n):
            lengths.append(n * unit)
            if n * unit >= most:
                break
            n = max(n + 1, int(n * (1.1 if rank < 3 else 1.3)))
        else:
            n += 1
    return lengths


@lru_cache(maxsize=256)
def _choose(problem: ConvProblem) -> _Choice | None:
    p = problem
    rank = p.rank
    dtype = real_dtype(p)
    lanes = simd.lanes(dtype)
    spans = [span(k, d) for k, d in zip(p.kernel, p.dilation, strict=True)]
    dense = [(o - 1) * s + 1 for o, s in zip(p.out, p.stride, strict=True)]
    riders = 1 if parts(p) == 2 else 2
    best = None
    lists = [_axis_lengths(rank, a, spans[a], dense[a] + spans[a] - 1, lanes) for a in range(rank)]
    for lengths in every(*lists):
        points = product(lengths)
        if points > _LARGEST:
            continue
        valid = [n - w + 1 for n, w in zip(lengths, spans, strict=True)]
        tiles = p.N * product(map(ceil_div, dense, valid))
        items = p.groups * ceil_div(tiles, riders)
        one = 5 * points * np.log2(points)
        flops = items * ((p.C + p.K) * one + 8 * p.C * p.K * points)
        moved = items * (p.C + p.K) * points * 2 * dtype.itemsize * 3
        size = points * 2 * dtype.itemsize
        weight = ((flops + p.groups * p.K * p.C * one) * (1 if size < 1 << 19 else 1.4 if size < 1 << 23 else 2.0)
                  + 2 * moved) * max(1.0, p.threads / items)
        if best is None or weight < best[0]:
            best = weight, lengths, valid, tiles, items, flops, one, moved, size
    if best is None:
        return None
    _, lengths, valid, tiles, items, flops, one, moved, size = best
    shape = _matrix(lengths[0], lanes) if rank == 1 else lengths
    vec = lambda values: np.array(values, np.int64)                                    # noqa: E731
    layout = blocks.BlockLayout(
        groups=p.groups, channels=p.C, out_channels=p.K, parts=parts(p), tiles=tiles, riders=riders,
        points=product(lengths), rows=product(shape[:-1]), columns=shape[-1], shape=vec(lengths), valid=vec(valid),
        grid=vec(list(map(ceil_div, dense, valid))), dense=vec(dense), stride=vec(p.stride), kernel=vec(p.kernel),
        dilation=vec(p.dilation), cell=vec([min(n, max(w // 2, 8)) for n, w in zip(lengths, spans, strict=True)]))
    return _Choice(layout, items, float(flops), float(one), float(moved), int(size))


def _matrix(n: int, lanes: int) -> list[int]:
    """[rows, columns] of a one-dimensional block, both multiples of the lanes and as even as can be."""
    units = n // (lanes * lanes)
    rows = max(r for r in range(1, int(units ** 0.5) + 1) if units % r == 0)
    return [rows * lanes, units // rows * lanes]


class Prepared(NamedTuple):
    """Spectra of the kernels and what every block needs."""

    spectra: blocks.Spectra
    plans: blocks.Plans
    weight: np.ndarray           # raw, (groups K, C, window, parts), for single products
    finite: bool
    direct: object               # the direct method's weight, where this one has NaN or infinity


def prepare(problem: ConvProblem, weight: np.ndarray) -> Prepared:
    """Transform the kernels."""
    layout = _choose(problem).layout
    plans = _plans(problem)
    weight = np.ascontiguousarray(weight)
    raw = weight.reshape(-1).view(real_dtype(problem))
    finite = bool(np.isfinite(raw).all())
    count = problem.groups * problem.K * problem.C
    spectra = blocks.Spectra(np.empty(count * layout.points, raw.dtype), np.empty(count * layout.points, raw.dtype),
                             np.zeros(1, np.int64))
    if finite:
        largest = float(np.abs(raw).max(initial=0))
        spectra.exponent[0] = np.frexp(largest)[1] if largest else 0
        blocks.kernel_spectra_kernel(layout, plans, raw, spectra, min(problem.threads, count))
        return Prepared(spectra, plans, raw, True, None)
    return Prepared(spectra, plans, raw, False, direct.prepare(problem, weight))


@lru_cache(maxsize=64)
def _plans(problem: ConvProblem) -> blocks.Plans:
    """Passes of the block's axes; of a matrix also the twiddles between rows and columns."""
    layout = _choose(problem).layout
    dtype = real_dtype(problem)
    if problem.rank > 1:
        cos = sin = np.ones(1, dtype)
        rows = [int(n) for n in layout.shape[:-1]]
    else:
        angle = -2 * np.pi / layout.points * np.outer(frequencies(layout.rows), np.arange(layout.columns)).ravel()
        cos, sin = np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)
        rows = [layout.rows]
    return blocks.plans([transform(n, dtype) for n in rows], transform(layout.columns, dtype), cos, sin)


def run(problem: ConvProblem, prepared: Prepared, x: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    if not prepared.finite:                             # spectra of infinite taps are nothing but NaN
        direct.run(problem, prepared.direct, x, bias, out)
        return
    choice = _choose(problem)
    blocks.fft_block_kernel(choice.layout, prepared.plans, operand(x), flat_maps(problem), prepared.spectra,
                            prepared.weight, bias_vector(problem, bias), operand(out),
                            min(problem.threads, choice.items))
