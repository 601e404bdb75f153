"""Convolution by Fourier transforms of blocks (overlap-save), in any number of dimensions.

The padded input is cut into blocks that overlap by the window's span less one; the spectrum of each is multiplied by
the kernel's, summed over the input channels, and transformed back; the part of the block that did not wrap around is
output. A block of 2 n real samples is n complex points (`transforms`), and one kernel serves every rank.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from itertools import product as every
from threading import Lock
from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, product, round_up, span
from ...problem import ConvProblem
from .. import direct
from ..arrays import bias_vector, flat_maps, operand, parts, real_dtype
from . import blocks
from .transforms import Transform, is_smooth, transform
from .vectors import lanes

# ------------------------------------------------------------------------------------------------- The choice

NAME = "fft"
SUPPORTS = "floating and complex types; every window, stride and boundary"
REFERENCE = ("Oppenheim, Schafer: Discrete-Time Signal Processing, section 8.7 (overlap-save); Bernstein 2001, "
             "Multidigit multiplication for mathematicians (transforms that split rings, real numbers in t^n = i)")
_LARGEST = 1 << 24             # points of one block
_KEPT_BYTES = 16 << 20         # of spectra that are kept for calls with the same kernel
# What else costs as much as operations of a pass:
_LEAF_LEVELS = 3               # the transpositions of a leaf, in levels of passes
_BYTE = 4                      # gathering or storing a byte
_ROW = 8000                    # beginning a row, which lies in another page


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
    """Transforms, products of spectra and the movement of blocks, as operations; input and output once as bytes."""
    choice = _choose(problem)
    threads = min(problem.threads, choice.items)
    rate = machine.flops(problem.engine) * machine.efficiency["fft"]
    stored = (product(problem.x_shape) + product(problem.out_shape)) * problem.engine.itemsize
    spectra = problem.K * problem.C * choice.layout.stored * real_dtype(problem).itemsize
    if spectra > machine.l2:                            # every block reads all spectra of its group anew
        stored += choice.items * spectra
    weights = 0 if problem.reused else choice.weight_work / rate
    return (weights + (choice.work / rate + stored / machine.bandwidth) / threads
            + 3 * machine.call + (machine.parallel_start if threads > 1 else 0))


def workspace(problem: ConvProblem, machine) -> int:
    """The kernel's spectra and each thread's blocks."""
    layout = _choose(problem).layout
    blocks_of_thread = problem.C + (problem.C * problem.K > 1)
    return layout.stored * real_dtype(problem).itemsize * (
        problem.groups * problem.K * problem.C + problem.threads * blocks_of_thread)


def error(problem: ConvProblem) -> float:
    """Roundings grow with the logarithm of the block, over those of one window's sum."""
    layout = _choose(problem).layout
    return max(1.0, 0.25 * float(np.log2(layout.points)))


class _Choice(NamedTuple):
    """A block's shape with what only the host needs."""

    layout: blocks.BlockLayout
    items: int
    work: float                  # operations that all blocks are worth
    weight_work: float           # and the transforms of the kernels


def _axis_lengths(rank: int, axis: int, least: int, most: int, lanes: int, halves: int) -> list[int]:
    """Good lengths in points of an axis, from one that holds `least` samples to the first that holds `most`.

    The last axis comes in whole vectors, a lone one in whole squares of them; the first holds `halves` samples a point.
    """
    unit = lanes * lanes if rank == 1 else lanes if axis == rank - 1 else 1
    lengths = []
    n = max(ceil_div(ceil_div(least, halves), unit), 1)          # an empty window spans nothing
    while n * unit <= _LARGEST:
        if is_smooth(n):
            lengths.append(n * unit)
            if n * unit * halves >= most:
                break
            n = max(n + 1, int(n * (1.05, 1.1, 1.2)[min(rank, 3) - 1]))
        else:
            n += 1
    return lengths


@lru_cache(maxsize=256)
def _choose(problem: ConvProblem) -> _Choice | None:
    p = problem
    rank = p.rank
    dtype = real_dtype(p)
    L = lanes(dtype)
    spans = [span(k, d) for k, d in zip(p.kernel, p.dilation, strict=True)]
    dense = [(o - 1) * s + 1 for o, s in zip(p.out, p.stride, strict=True)]
    halves = [2 if parts(p) == 1 and a == 0 else 1 for a in range(rank)]
    lists = [_axis_lengths(rank, a, spans[a], dense[a] + spans[a] - 1, L, halves[a]) for a in range(rank)]
    best = None
    for shape in every(*lists):
        points = product(shape)
        if points > _LARGEST:
            continue
        valid = [n * h - w + 1 for n, h, w in zip(shape, halves, spans, strict=True)]
        tiles = p.N * product(map(ceil_div, dense, valid))
        items = p.groups * tiles
        size = points * 2 * dtype.itemsize
        slow = 1.0 if size < 1 << 19 else 1.2 if size < 1 << 22 else 1.6      # out of the second and the third cache
        one = 5 * points * (np.log2(points) + _LEAF_LEVELS) * slow
        rows = product(shape[:-1]) * product(halves[:-1])
        moved = (p.C + p.K) * (size * _BYTE + rows * _ROW)
        work = items * ((p.C + p.K) * one + 8 * p.C * p.K * points + moved)
        weight_work = p.groups * p.K * p.C * one
        rounds = ceil_div(items, p.threads) * p.threads / items     # the last round of blocks leaves threads idle
        if best is None or work * rounds + weight_work < best[0]:
            best = work * rounds + weight_work, shape, valid, tiles, items, work, weight_work
    if best is None:
        return None
    _, shape, valid, tiles, items, work, weight_work = best
    vec = lambda values: np.array(list(values), np.int64)                              # noqa: E731
    layout = blocks.BlockLayout(
        groups=p.groups, channels=p.C, out_channels=p.K, parts=parts(p), tiles=tiles, points=product(shape),
        stored=2 * round_up(product(shape), L * L), cell=min(max(spans[-1] // 2 // L, 4) * L, blocks.PIECE),
        band=max(spans[-2] // 2, 8) if rank > 1 else 1, shape=vec(shape),
        samples=vec(n * h for n, h in zip(shape, halves, strict=True)), valid=vec(valid),
        grid=vec(map(ceil_div, dense, valid)), dense=vec(dense), stride=vec(p.stride), kernel=vec(p.kernel),
        dilation=vec(p.dilation))
    return _Choice(layout, items, float(work), float(weight_work))


class Prepared(NamedTuple):
    """Spectra of the kernels and what every block needs."""

    spectra: blocks.Spectra
    plan: Transform
    weight: np.ndarray           # raw, (groups K, C, window, parts), for single products
    finite: bool
    direct: object               # the direct method's weight, where this one has NaN or infinity


class _Kept:
    """The spectra of the latest calls, found again by problem and content; at most `limit` bytes of them."""

    def __init__(self, limit: int):
        self.limit = limit
        self._entries: OrderedDict[ConvProblem, tuple[bytes, Prepared]] = OrderedDict()
        self._lock = Lock()

    def find(self, problem: ConvProblem, content: bytes) -> Prepared | None:
        """What was kept for a kernel of just these bytes."""
        with self._lock:
            entry = self._entries.get(problem)
            if entry is None or entry[0] != content:
                return None
            self._entries.move_to_end(problem)
            return entry[1]

    def keep(self, problem: ConvProblem, content: bytes, prepared: Prepared) -> None:
        """Keep the latest; the oldest go where there is no room."""
        with self._lock:
            self._entries.pop(problem, None)
            self._entries[problem] = content, prepared
            while sum(len(c) + p.weight.nbytes + p.spectra.data.nbytes for c, p in self._entries.values()) > self.limit:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()


kept = _Kept(_KEPT_BYTES)


def prepare(problem: ConvProblem, weight: np.ndarray) -> Prepared:
    """Transform the kernels, or take what an earlier call has kept of them."""
    content = weight.tobytes() if weight.nbytes <= _KEPT_BYTES else b""
    found = kept.find(problem, content) if content else None
    if found is None:
        found = _transform_kernels(problem, weight.copy())       # the caller may write into his own
        if content:
            kept.keep(problem, content, found)
    return found


def _transform_kernels(problem: ConvProblem, weight: np.ndarray) -> Prepared:
    layout = _choose(problem).layout
    angle = 0.0 if parts(problem) == 2 else -np.pi / 2            # t^n = 1, or t^n = i for real samples
    plan = transform(tuple(map(int, layout.shape)), angle, real_dtype(problem))
    weight = np.ascontiguousarray(weight)
    raw = weight.reshape(-1).view(real_dtype(problem))
    count = problem.groups * problem.K * problem.C
    largest = float(np.abs(raw).max(initial=0))
    finite = bool(np.isfinite(largest))
    spectra = blocks.Spectra(np.empty(count * layout.stored if finite else 0, raw.dtype),
                             np.array([np.frexp(largest)[1] if largest and finite else 0], np.int64))
    if finite:
        blocks.kernel_spectra_kernel(layout, plan, raw, spectra, min(problem.threads, count))
        return Prepared(spectra, plan, raw, True, None)
    return Prepared(spectra, plan, raw, False, direct.prepare(problem, weight))


def run(problem: ConvProblem, prepared: Prepared, x: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    if not prepared.finite:                             # spectra of infinite taps are nothing but NaN
        direct.run(problem, prepared.direct, x, bias, out)
        return
    choice = _choose(problem)
    blocks.fft_block_kernel(choice.layout, prepared.plan, operand(x), flat_maps(problem), prepared.spectra,
                            prepared.weight, bias_vector(problem, bias), operand(out),
                            min(problem.threads, choice.items))
