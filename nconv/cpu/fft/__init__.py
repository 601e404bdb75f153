"""Convolution by Fourier transforms of blocks (overlap-save), in any number of dimensions.

The padded input is cut into blocks that overlap by the window's span less one; the spectrum of each is multiplied by
the kernel's, summed over the input channels, and transformed back; the part of the block that did not wrap around is
output. A block of 2 n real samples is n complex points (`transforms`), and one kernel serves every rank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import frexp, inf, isfinite, log2
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up, span
from ...jit import settled
from ...problem import ConvProblem
from .. import direct
from ..arrays import bias_vector, parts, real_dtype
from ..gather import flat_maps
from ..kept import compared, kept, share_of_new
from ..launch import entries
from . import blocks
from .transforms import Transform, cheapest, levels, smooth, transform
from .vectors import lanes, leaf_rows

# ------------------------------------------------------------------------------------------------- The choice

NAME = "fft"
SUPPORTS = "floating and complex types; every window, stride and boundary"
REFERENCE = ("Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7 (overlap-save); Bernstein 2001, "
             "Multidigit multiplication for mathematicians (transforms that split rings, real numbers in t^n = i)")
_LARGEST = 1 << 24             # points of one block
CALLS = 1.4                    # that a call is worth, with the look for what was kept
# For the choice of blocks, what else costs as much as operations of a pass:
_LEAF_LEVELS = 3               # the transpositions of a leaf, in levels of passes
_AXIS_LEVELS = 7               # passes of another axis, as they are usual
_BYTE = 4                      # gathering or storing a byte
_ROW = 8000                    # beginning a row, which lies in another page
# Lengths of blocks that are tried: each longer by such a factor, up to so many windows or, of short ones, samples.
_STEP, _WIDEST, _SHORT = 1.25, 64, 1024


def why_not(problem: ConvProblem) -> str:
    """Integers are refused, and windows beyond the longest transform."""
    if problem.engine.kind == "i":
        return "a transform would round integers, only direct sums keep them exact"
    if 0 in problem.out or 0 in problem.size:
        return "nothing to transform"
    if product(_least_shape(problem)) > _LARGEST:
        return f"the window spans more than a transform of {_LARGEST} points holds"
    return ""


def least(problem: ConvProblem, machine) -> tuple[float, float]:
    """One transform of every sample, in blocks as short as they can be, their products with spectra that are read once.

    Without threads; and the error of such blocks.
    """
    p = problem
    points = product(_least_shape(p))
    # However the blocks are cut, together they hold the outputs and what the window reaches beyond them.
    extents = [n + max(w, 1) - 1 for n, w in zip(_dense(p), map(span, p.kernel, p.dilation), strict=True)]
    samples = p.N * p.groups * product(extents) / _halves(p)
    new = share_of_new(p, _spectra(p))
    windows = new * p.groups * p.K * p.C * points
    peak = machine.flops(p.engine)
    per_point = 5 * log2(points) / peak
    spectra = machine.streamed(2 * p.K * p.C * points * real_dtype(p).itemsize)        # once for each image and group
    counted = {"call": p.calls(CALLS), "fft.points": samples * (p.C + p.K) * per_point,
               "fft.products": samples * 8 * p.C * p.K / peak, "fft.kernels": windows * per_point,
               "fft.weights": new * product(p.weight_shape), "byte": machine.traffic(p) + p.N * p.groups * spectra}
    return machine.seconds(counted), _error(points)


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """Transforms of blocks and kernels by their operations, rows of blocks, products of spectra."""
    p, choice = problem, _choose(problem)
    threads = min(p.threads, choice.items)
    points, channels = product(choice.shape), p.C + p.K
    peak = machine.flops(p.engine)
    one = 5 * points * log2(points) / peak
    blocks_rows = 0 if p.rank == 1 else points // choice.shape[-1] * _halves(p)
    new = share_of_new(p, _spectra(p))
    windows = new * p.groups * p.K * p.C
    spectra = p.K * p.C * choice.stored * real_dtype(p).itemsize       # of a group: each block reads them all
    streamed = machine.traffic(p) + choice.items * machine.streamed(spectra)
    moved = choice.items * channels / threads                          # blocks of one channel in or out
    return {"call": p.calls(CALLS), "start": threads > 1,
            "fft.points": moved * one, "fft.blocks": moved, "fft.rows": moved * blocks_rows,
            "fft.products": choice.items * p.C * p.K * 8 * points / peak / threads,
            "fft.kernels": windows * one / min(p.threads, p.groups * p.K * p.C),
            "fft.weights": new * product(p.weight_shape),
            "byte": streamed / threads + compared(p, _spectra(p), machine)}


def _spectra(problem: ConvProblem) -> int:
    """Bytes of the kernels' spectra, at least."""
    p = problem
    return p.groups * p.K * p.C * product(_least_shape(p)) * p.engine.itemsize


def workspace(problem: ConvProblem, machine) -> int:
    """The kernel's spectra and each thread's blocks."""
    blocks_of_thread = problem.C + (problem.C * problem.K > 1)
    return _choose(problem).stored * real_dtype(problem).itemsize * (
        problem.groups * problem.K * problem.C + problem.threads * blocks_of_thread)


def error(problem: ConvProblem) -> float:
    """Roundings grow with the logarithm of the block, over those of one window's sum."""
    return _error(product(_choose(problem).shape))


def _error(points: int) -> float:
    return max(1.0, 0.25 * log2(points))


def _halves(problem: ConvProblem) -> int:
    """Samples in a point of the first axis: a complex number holds two real ones."""
    return 2 if parts(problem) == 1 else 1


def _dense(problem: ConvProblem) -> list[int]:
    """Output extents at stride 1."""
    return [(o - 1) * s + 1 for o, s in zip(problem.out, problem.stride, strict=True)]


def _units(problem: ConvProblem) -> list[int]:
    """What divides the points of each axis: the last comes in whole vectors, a lone one in whole leaves."""
    L = lanes(real_dtype(problem))
    return [L * leaf_rows(L)] if problem.rank == 1 else [1] * (problem.rank - 1) + [L]


@lru_cache(maxsize=1024)
def _least_shape(problem: ConvProblem) -> list[int]:
    """Points per axis of the shortest block that holds the window."""
    spans = list(map(span, problem.kernel, problem.dilation))
    spans[0] = ceil_div(spans[0], _halves(problem))
    return [smooth(max(ceil_div(w, unit), 1)) * unit for w, unit in zip(spans, _units(problem), strict=True)]


class _Choice(NamedTuple):
    """The shape of blocks, as numbers: all that the cost depends on."""

    shape: tuple[int, ...]       # points of a block, per axis
    valid: tuple[int, ...]       # its outputs at stride 1
    grid: tuple[int, ...]        # blocks per axis
    stored: int                  # numbers that a block takes in memory, whole leaves
    items: int


class _Length(NamedTuple):
    """A good length of a block along one axis."""

    points: int
    valid: int
    count: int                   # of blocks
    levels: float                # of its passes; see `transforms.levels`


@lru_cache(maxsize=4096)
def _lengths(window: int, dense: int, unit: int, halves: int, rank: int) -> list[_Length]:
    """Lengths from about the window's to that of the whole axis, each the cheapest that needs so few blocks."""
    lengths: list[_Length] = []
    step, more = unit * halves, log2(unit) + _LEAF_LEVELS + (rank - 1) * _AXIS_LEVELS
    samples = ceil_div(window, step) * step
    most = min(dense + window - 1, max(_WIDEST * window, _SHORT))
    while True:
        count = ceil_div(dense, max(samples - window + 1, 1))
        n = cheapest(max(ceil_div(ceil_div(dense, count) + window - 1, step), 1), more) * unit
        valid = n * halves - window + 1
        lengths.append(_Length(n, valid, ceil_div(dense, valid), levels(n // unit) + log2(unit)))
        if samples >= most:
            return lengths
        samples = min(max(int(samples * _STEP), samples + 1, n * halves + 1), most)


@lru_cache(maxsize=1024)
def _choose(problem: ConvProblem) -> _Choice:
    """Blocks that are worth the fewest operations: from the best of each axis alone, as long as a step betters them."""
    p = problem
    itemsize, halves, channels = real_dtype(p).itemsize, _halves(p), p.C + p.K
    first = [halves] + [1] * (p.rank - 1)
    axes = list(map(_lengths, map(span, p.kernel, p.dilation), _dense(p), _units(p), first, [p.rank] * p.rank))
    images, threads, kernels = p.N * p.groups, p.threads, 0 if p.reused else p.groups * p.K * p.C
    products = 8 * p.C * p.K
    lone = p.rank == 1

    def worth(at):
        points, items, depth = 1, images, _LEAF_LEVELS
        for axis, i in zip(axes, at, strict=True):
            n, _, count, more = axis[i]
            points *= n
            items *= count
            depth += more
        if points > _LARGEST:
            return inf
        size = points * 2 * itemsize
        slow = 1.0 if size < 1 << 19 else 1.2 if size < 1 << 22 else 1.6      # out of the second and the third cache
        one = 5 * points * depth * slow
        rows = 1 if lone else points // n * halves
        work = items * (channels * (one + size * _BYTE + rows * _ROW) + products * points)
        rounds = -(-items // threads) * threads / items         # the last round of blocks leaves threads idle
        return work * rounds + kernels * one

    byte, rows = 2 * itemsize * _BYTE, [0] * (p.rank - 1) + [_ROW if lone else _ROW * halves]
    alone = [[count * (n * (5 * (depth + 2 * _LEAF_LEVELS) + byte) + row) for n, _, count, depth in axis]
             for axis, row in zip(axes, rows, strict=True)]
    at = [prices.index(min(prices)) for prices in alone]
    best = worth(at)
    if best == inf:                                  # the shortest is known to be short enough
        at = [0] * p.rank
        best = worth(at)
    moved = True
    while moved:
        moved = False
        for a, axis in enumerate(axes):
            for step in (-1, 1):
                while 0 <= at[a] + step < len(axis):
                    other = worth([*at[:a], at[a] + step, *at[a + 1:]])
                    if other >= best:
                        break
                    at[a] += step
                    best, moved = other, not lone
    lengths = [axis[i] for axis, i in zip(axes, at, strict=True)]
    shape, valid, grid = (tuple(length[i] for length in lengths) for i in range(3))
    L = lanes(real_dtype(p))
    return _Choice(shape, valid, grid, 2 * round_up(product(shape), L * leaf_rows(L)), images * product(grid))


@lru_cache(maxsize=256)
def _lay_out(problem: ConvProblem) -> blocks.BlockLayout:
    p = problem
    choice = _choose(p)
    L = lanes(real_dtype(p))
    spans = list(map(span, p.kernel, p.dilation))
    vec = lambda values: np.array(list(values), np.int64)                              # noqa: E731
    samples = choice.shape[0] * _halves(p), *choice.shape[1:]
    return blocks.BlockLayout(
        groups=p.groups, channels=p.C, out_channels=p.K, parts=parts(p), tiles=p.N * product(choice.grid),
        points=product(choice.shape), stored=choice.stored, cell=min(max(spans[-1] // 2 // L, 4) * L, blocks.PIECE),
        band=max(spans[-2] // 2, 8) if p.rank > 1 else 1, shape=vec(choice.shape), samples=vec(samples),
        valid=vec(choice.valid), grid=vec(choice.grid), dense=vec(_dense(p)), stride=vec(p.stride),
        kernel=vec(p.kernel), dilation=vec(p.dilation))


class Prepared(NamedTuple):
    """Spectra of the kernels and what every block needs."""

    spectra: blocks.Spectra
    plan: Transform
    weight: np.ndarray           # raw, (groups K, C, window, parts), for single products
    finite: bool
    direct: object               # the direct method's weight, where this one has NaN or infinity


@kept
def prepare(problem: ConvProblem, weight: np.ndarray) -> Prepared:
    """Transform the kernels."""
    layout, plan, count, kernel = _bind_kernels(problem)
    weight = weight.copy() if problem.reused else np.ascontiguousarray(weight)
    raw = weight.reshape(-1).view(real_dtype(problem))
    largest = max(float(raw.max(initial=0)), -float(raw.min(initial=0)))
    finite = isfinite(largest)
    spectra = blocks.Spectra(np.empty(count * layout.stored if finite else 0, raw.dtype),
                             np.array([frexp(largest)[1] if finite else 0], np.int64))
    if finite:
        kernel(layout, plan, raw, spectra, min(problem.threads, count))
        return Prepared(spectra, plan, raw, True, None)
    return Prepared(spectra, plan, raw, False, direct.prepare(problem, weight))


@lru_cache(maxsize=256)
def _bind_kernels(problem: ConvProblem) -> tuple[blocks.BlockLayout, Transform, int, Callable]:
    """(layout, transform, number of kernels, what transforms them)."""
    layout = _lay_out(problem)
    angle = 0.0 if parts(problem) == 2 else -np.pi / 2            # t^n = 1, or t^n = i for real samples
    plan = transform(tuple(map(int, layout.shape)), angle, real_dtype(problem))
    return layout, plan, problem.groups * problem.K * problem.C, settled(blocks.kernel_spectra_kernel)


@lru_cache(maxsize=256)
def bind(problem: ConvProblem) -> Callable:
    """All tables of a problem; see `launch`."""
    layout, maps, unbiased = _lay_out(problem), flat_maps(problem), bias_vector(problem, None)
    kernel, threads = settled(blocks.fft_block_kernel), min(problem.threads, _choose(problem).items)

    def start(x, prepared, bias, out):
        if not prepared.finite:                         # spectra of infinite taps are nothing but NaN
            direct.bind(problem)(x, prepared.direct, bias, out)
            return
        biases = unbiased if bias is None else bias_vector(problem, bias)
        kernel(layout, prepared.plan, x, maps, prepared.spectra, prepared.weight, biases, out, threads)

    return start


run, shortcut = entries(prepare, bind)
