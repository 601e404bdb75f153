"""Direct sums for problems that take less time than others need to prepare them.

Everything that depends on the shapes is worked out once, in NumPy, as tables of addresses: where each run of elements
of the padded input comes from, where each tap lies in it, where each row of sums goes. One light kernel follows them.
It packs the weight as it goes, has no threads, and takes nothing but flat memory, so that a call costs little more than
its sums; `shortcut` makes it a function that runs a call whose like was seen before.

A window over one axis whose taps mirror each other is summed in pairs, as scipy.ndimage does: the same number of
instructions, a mirrored signal gives the mirrored result to the last bit, and a difference of equal samples is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, reduce
from math import lcm
from typing import NamedTuple

import numpy as np

from ..boundary import FILL, index_map
from ..geometry import ceil_div, product, round_up
from ..jit import compiled, inner_kernel, kernel
from ..machine import WORTH_THE_LONG_WAY
from ..problem import ConvProblem
from . import simd
from .arrays import bias_vector, operand
from .launch import address
from .micro.filters import filter_line
from .micro.products import multiply_tile
from .simd import copy, lanes_of, splat, vload, vstore
from .tiles import line_run, line_tile, remainders

# ------------------------------------------------------------------------------------------------- The choice

NAME = "small"
SUPPORTS = "real numbers, as long as one image's padded input and weights stay in a near cache; integers exactly"
REFERENCE = "Zhang, Franchetti, Low 2018, High Performance Zero-Memory Overhead Direct Convolutions (arXiv 1809.10170)"
SERIAL = True
CALLS = 0.45                   # by the shortcut
_LARGEST = 1 << 16             # elements of the padded input, the weight and the output of one image
_NOWHERE = -1 << 62            # the address of a fill value
_ROWS = 4                      # output channels summed at once, where there are so many
_WIDE, _NARROW = 4, 2          # vectors of positions summed at once, for one and for more output channels
_LINE = line_tile()            # as many, where one output channel has a long line of taps


def why_not(problem: ConvProblem) -> str:
    """Complex numbers are refused, and what is not small."""
    if problem.engine.kind == "c":
        return "complex numbers need more than one table"
    # What the output alone shows to be too large, as most problems are, needs no other count.
    if max(_weights(problem), problem.C * problem.positions) > _LARGEST or _extents(problem).elements > _LARGEST:
        return f"it holds up to {_LARGEST} elements of padded input, weights or output, this problem has more"
    return ""


def least(problem: ConvProblem, machine) -> tuple[float, float]:
    """The cost, which is soon counted; the direct method's error."""
    return cost(problem, machine), 1.0


def cost(problem: ConvProblem, machine) -> float:
    """What `counts` says, at the machine's rates."""
    return machine.seconds(counts(problem, machine))


def counts(problem: ConvProblem, machine) -> dict[str, float]:
    """One call without preparation, the elements moved run by run, and the sums with those that are thrown away."""
    extents = _extents(problem)
    rows, vectors = _shape(problem)
    tile = vectors * simd.lanes(problem.engine)
    images = problem.N * problem.groups
    tiles = images * ceil_div(problem.K, rows) * ceil_div(extents.length, tile)
    kind = "many" if rows > 1 else "line" if _run(problem) else "one"
    call = CALLS if problem.macs <= WORTH_THE_LONG_WAY else 1
    moved = "small.elements_apart" if problem.channels_last or problem.stride[-1] > 1 else "small.elements"
    return {"call": call, moved: images * extents.elements,
            "small.runs": images * extents.elements / extents.positions[-1],
            "small.weights": problem.groups * _weights(problem),
            "small.rows": images * problem.K * problem.positions / problem.out[-1],
            f"small.products_{kind}": 2 * tiles * rows * tile * extents.taps / machine.flops(problem.engine),
            f"small.tiles_{kind}": tiles,
            "byte": machine.traffic(problem)}


def workspace(problem: ConvProblem, machine) -> int:
    """The padded input of one image, the packed weight and the sums of one group."""
    extents, length = _extents(problem), _length(problem)
    elements = extents.elements + length - extents.length + _weights(problem) + _shape(problem)[0] * length
    return elements * problem.engine.itemsize


def error(problem: ConvProblem) -> float:
    """As many roundings as the direct method's sums have, or fewer."""
    return 1.0


def _shape(problem: ConvProblem) -> tuple[int, int]:
    """(output channels, vectors of positions) that are summed at once."""
    if problem.K > 1:
        return _ROWS, _NARROW
    return 1, len(_LINE) if _run(problem) else _WIDE


def _run(problem: ConvProblem) -> int:
    """Taps of one output channel that follow each other, or 0 where they are few."""
    return line_run(problem, simd.lanes(problem.engine)) if problem.K == 1 else 0


def _mirrored(problem: ConvProblem) -> bool:
    """Whether the window may be its own mirror image, and its taps summed in pairs."""
    p = problem
    return p.engine.kind == "f" and p.C == p.K == 1 and p.taps % 2 == 1 and sum(k > 1 for k in p.kernel) == 1


def _length(problem: ConvProblem) -> int:
    """Positions that are summed: whole tiles of those sums, single or in pairs, that the weight may ask for."""
    vectors = _shape(problem)[1]
    if _mirrored(problem):
        vectors = lcm(vectors, _WIDE)
    return round_up(_extents(problem).length, vectors * simd.lanes(problem.engine))


def _weights(problem: ConvProblem) -> int:
    """Elements of the packed weight of one group."""
    return round_up(problem.K, _shape(problem)[0]) * problem.taps


class _Extents(NamedTuple):
    """The padded input of one image and group, [channels, phases of each axis, positions of each axis].

    Positions with the same remainder modulo the stride lie together, so that a tap is one offset whatever the stride.
    """

    positions: tuple[int, ...]     # of a phase, per axis
    taps: int
    length: int                # positions from the first output to the last, those between the rows included
    elements: int


@lru_cache(maxsize=1024)
def _extents(problem: ConvProblem) -> _Extents:
    p = problem
    positions = tuple(map(ceil_div, p.reach, p.stride))
    length = volume = 1
    for n, between in zip(reversed(p.out), reversed(positions), strict=True):
        length += (n - 1) * volume
        volume *= between
    phases = product(map(remainders, p.kernel, p.stride, p.dilation))
    return _Extents(positions, p.taps, length, p.C * phases * volume)


class Tables(NamedTuple):
    """All that the kernel knows of a problem."""

    counts: np.ndarray         # see `small_sums_kernel`
    fill: np.ndarray           # the fill value
    runs: np.ndarray           # (3, runs) of the padded input: beginning, address of its first element beside that of
                               # the image's and group's first, or _NOWHERE for the fill value, length
    offsets: np.ndarray        # where each tap lies in the padded input
    taps: np.ndarray           # address of each tap beside its output channel's
    rows: np.ndarray           # (2, rows): where an output row begins among the sums and in the output


@lru_cache(maxsize=64)
def tables(problem: ConvProblem, x: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...]) -> Tables:
    """The tables for arrays that lie so: each tuple holds the address of the first element and then the strides of

    (N, channels, *axes) of `x` and `out`, (output channels, C, *axes) of `weight`, all in elements.
    """
    p = problem
    extents = _extents(p)
    length = _length(p)
    runs, offsets = _padded_input(p, x[2:])
    taps = _places((p.C, *p.kernel), weight[2:])
    between = [product(extents.positions[a + 1:]) for a in range(p.rank)]
    rows = np.array([_places((*p.out[:-1], 1), steps) for steps in (between, out[3:])])
    counts = [p.N, p.groups, p.K, _shape(p)[0], length, p.out[-1], out[-1], x[1], x[2] * p.C, weight[0], weight[1],
              out[0], out[1], out[2], _mirrored(p), extents.elements, x[-1] * p.stride[-1], x[0], _run(p),
              length - extents.length, p.rank == p.C == 1]
    return Tables(np.array(counts, np.int64), np.full(1, p.fill, p.engine), runs, offsets, taps, rows)


@lru_cache(maxsize=64)
def _padded_input(problem: ConvProblem, strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The runs and offsets of `Tables` for an input with these strides of its channels and axes."""
    p = problem
    positions = _extents(p).positions
    used = [sorted({r * d % s for r in range(min(k, s))})
            for k, d, s in zip(p.kernel, p.dilation, p.stride, strict=True)]
    if p.rank == p.C == p.stride[0] == 1:               # a line, in a third of the time
        (runs,) = _last_runs(p, used[0])
        runs[1] = np.where(runs[1] == FILL, _NOWHERE, runs[1] * strides[-1])
        return runs, np.arange(p.taps) * p.dilation[0]
    shape = p.C, *map(len, used), *positions
    places = [product(shape[a + 1:]) for a in range(len(shape))]
    by_phase, by_position = places[1:1 + p.rank], places[1 + p.rank:]

    # Lines along the last axis, wherever they lie, are the same runs for each of its phases.
    channels = np.arange(p.C)
    line_places, addresses, outside = [channels * places[0]], [channels * strides[0]], [channels * 0]
    for axis, step, phase, position in zip(range(p.rank - 1), strides[1:], by_phase, by_position, strict=False):
        index = _indices(p, axis, used[axis])
        line_places.append(_sums(np.arange(n) * apart for n, apart in zip(index.shape, (phase, position), strict=True)))
        addresses.append(index.ravel() * step)
        outside.append((index == FILL).ravel() * 1)
    lines, address, fills = (_sums(vectors)[:, None] for vectors in (line_places, addresses, outside))
    pieces = []
    for phase, (begins, firsts, lengths) in enumerate(_last_runs(p, used[-1])):
        at = np.where((fills == 0) & (firsts != FILL), address + firsts * strides[-1], _NOWHERE)
        to = lines + phase * by_phase[-1] + begins
        piece = np.empty((3, to.shape[0], begins.size), np.int64)
        piece[0], piece[1], piece[2] = to, at, lengths
        pieces.append(piece.reshape(3, -1))

    taps = []
    for phases, k, d, s, phase, position in zip(used, p.kernel, p.dilation, p.stride, by_phase, by_position,
                                                strict=True):
        r = np.arange(k) * d
        taps.append(r * position if s == 1 else np.searchsorted(phases, r % s) * phase + r // s * position)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, 1), _sums([channels * places[0], *taps])


def _sums(vectors: Iterable[np.ndarray]) -> np.ndarray:
    """The sum of one element of each vector, for all combinations, flat; the last one's changes soonest."""
    return reduce(np.add.outer, vectors).ravel()


def _places(shape: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Where the elements of an array lie whose axes have these steps, flat."""
    return _sums([np.arange(n) * step for n, step in zip(shape, steps, strict=True) if n > 1] or [np.zeros(1, int)])


def _indices(problem: ConvProblem, axis: int, phases: list[int]) -> np.ndarray:
    """The input's index under each position of an axis' phases, (phases, positions)."""
    p, n, step = problem, _extents(problem).positions[axis], problem.stride[axis]
    index = index_map(p.boundary[axis], p.size[axis], p.padding[axis][0], p.reach[axis], p.upsample[axis])
    if step > 1:
        index = np.append(index, FILL)[np.minimum(np.add.outer(phases, np.arange(n) * step), index.size)]
    return index.reshape(-1, n)


def _last_runs(problem: ConvProblem, phases: list[int]) -> list[np.ndarray]:
    """`_runs` of each phase of the last axis."""
    p = problem
    if p.boundary[-1] != "constant" or p.upsample[-1] > 1 or p.stride[-1] > 1:
        return [_runs(index, p.stride[-1]) for index in _indices(p, -1, phases)]
    low, count = p.padding[-1][0], p.reach[-1]          # known without a look at every index
    begin = min(max(low, 0), count)
    end = min(max(low + p.size[-1], begin), count)
    runs = [(0, FILL, begin), (begin, begin - low, end - begin), (end, FILL, count - end)]
    return [np.array([run for run in runs if run[2] > 0], np.int64).reshape(-1, 3).T.copy()]


def _runs(indices: np.ndarray, apart: int) -> np.ndarray:
    """Indices as runs that lie `apart`, or are all FILL: beginnings, first indices, lengths."""
    before, after = indices[:-1], indices[1:]
    outside = after == FILL
    follows = (after - before == apart) & (before != FILL) & ~outside | (before == FILL) & outside
    bounds = [0, *(np.flatnonzero(~follows) + 1).tolist(), indices.size]
    begins, ends = np.array(bounds[:-1]), np.array(bounds[1:])
    return np.array([begins, indices[begins], ends - begins])


def shortcut(problem: ConvProblem, x: tuple[np.ndarray, np.ndarray], weight: tuple[np.ndarray, np.ndarray],
             out: tuple[np.ndarray, np.ndarray], prepared: np.ndarray | None = None,
             is_right: Callable | None = None) -> Callable | None:
    """See `shortcuts`; looking at the weight is part of the sums."""
    if prepared is not None:
        weight = prepared, prepared
    addresses = [address(*pair) for pair in (x, weight, out)]
    if None in addresses or problem.macs > WORTH_THE_LONG_WAY:
        return None
    known, unbiased = tables(problem, *addresses), np.zeros(1, problem.engine)

    def fill(x, weight, bias, out):
        weight = weight if prepared is None else prepared
        return small_sums_kernel(x, weight.ravel(), unbiased if bias is None else bias, out, *known)

    return fill


def prepare(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """The weight as it is: packing it is part of the sums."""
    return weight.copy() if problem.reused else weight


def run(problem: ConvProblem, prepared: np.ndarray, x: np.ndarray, bias: np.ndarray | None, out: np.ndarray) -> None:
    """Fill `out`; see `registry` for the shapes."""
    arrays = [operand(array) for array in (x, prepared, out)]
    addresses = [(0, *strides[:2], *strides[3:]) for strides in (array.strides.tolist() for array in arrays)]
    known = tables(problem, *addresses)
    small_sums_kernel(arrays[0].flat, arrays[1].flat, bias_vector(problem, bias), arrays[2].flat, *known)


# ------------------------------------------------------------------------------------------------- The kernels

ceil_div_ = compiled(ceil_div)


@inner_kernel
def _parity(weight):
    """1 for a window that is its own mirror image, -1 for one that is its negative, else 0."""
    even, odd = True, True
    for t in range(weight.size // 2 + 1):
        even = even and weight[t] == weight[weight.size - 1 - t]
        odd = odd and weight[t] == -weight[weight.size - 1 - t]
    return 1 if even else -1 if odd else 0


@inner_kernel
def _paired_sums(sums, length, start, buffer, offsets, weight, parity):
    """sums[p] = start + the middle tap, then the others in pairs from the ends: w (x[p - r] + parity x[p + r])."""
    lanes = lanes_of(buffer)
    middle = weight.size // 2
    sign = splat(sums.dtype.type(parity))
    for p in range(0, length, _WIDE * lanes):
        a, b, c, d = splat(start), splat(start), splat(start), splat(start)
        q, w = p + offsets[middle], splat(weight[middle])
        a = a + w * vload(buffer, q)
        b = b + w * vload(buffer, q + lanes)
        c = c + w * vload(buffer, q + 2 * lanes)
        d = d + w * vload(buffer, q + 3 * lanes)
        for t in range(middle):
            q, r, w = p + offsets[t], p + offsets[weight.size - 1 - t], splat(weight[t])
            a = a + w * (vload(buffer, q) + sign * vload(buffer, r))
            b = b + w * (vload(buffer, q + lanes) + sign * vload(buffer, r + lanes))
            c = c + w * (vload(buffer, q + 2 * lanes) + sign * vload(buffer, r + 2 * lanes))
            d = d + w * (vload(buffer, q + 3 * lanes) + sign * vload(buffer, r + 3 * lanes))
        vstore(sums, p, a)
        vstore(sums, p + lanes, b)
        vstore(sums, p + 2 * lanes, c)
        vstore(sums, p + 3 * lanes, d)


@inner_kernel
def _fetch(buffer, to, count, x, base, at, apart, fill):
    """buffer[to + i] = x[base + at + i apart], i < count; the fill value where `at` is _NOWHERE."""
    if at != _NOWHERE and apart == 1 and count >= lanes_of(buffer):
        copy(buffer, to, x, base + at, count)
        return
    here, there = np.uint64(to), np.uint64(base + at)       # Numba tests signed ones for negative places
    for _ in range(count):
        buffer[here] = x[there] if at != _NOWHERE else fill[0]
        here += np.uint64(1)
        there += np.uint64(apart)


@kernel
def small_sums_kernel(x, weight, bias, out, counts, fill, runs, offsets, taps, rows):
    """All images: gather the padded input, sum the taps, store the rows; returns whether the weight is finite.

    Shapes: all flat but runs (3, runs) and rows (2, rows); `Tables` says what they hold; one zero for `bias` is none.
    """
    N, G, K, M, length, width, step = counts[0], counts[1], counts[2], counts[3], counts[4], counts[5], counts[6]
    x_n, x_g = counts[7], counts[8]
    weight_0, weight_k = counts[9], counts[10]
    out_0, out_n, out_k = counts[11], counts[12], counts[13]
    mirrored = counts[14] > 0              # the window may be its own mirror image, up to the sign
    elements, apart, x_0, run, spare = counts[15], counts[16], counts[17], counts[18], counts[19]
    straight = counts[20] > 0 and apart == 1               # an image's input is one line of one channel
    T = taps.size
    lanes = lanes_of(x)
    blocks = ceil_div_(K, M)
    whole = M == 1 and rows.shape[1] == 1 and step == 1    # one line of output: sums may go to their place at once
    tile, reach = (len(_LINE) if run > 0 else _WIDE) * lanes, offsets[T - 1]
    longest = -1                                           # the run of it that is not copied but near its ends
    if straight:
        for r in range(runs.shape[1]):
            if runs[1, r] != _NOWHERE and (longest < 0 or runs[2, r] > runs[2, longest]):
                longest = r
    buffer = np.empty(elements + spare, x.dtype)           # the last tile reads some positions too many
    panel = np.empty(blocks * T * M, x.dtype)
    sums = np.empty(M * length, x.dtype)
    for i in range(elements, buffer.size):
        buffer[i] = 0
    finite = True
    for g in range(G):
        for k in range(blocks * M):
            at = k // M * T * M + k % M
            row = weight_0 + (g * K + min(k, K - 1)) * weight_k
            for t in range(T):
                w = weight[row + taps[t]]
                finite = finite and np.isfinite(w)
                panel[at + t * M] = w
        parity = _parity(panel) if mirrored and finite else 0
        at_once = whole and parity == 0
        for n in range(N):
            base = x_0 + n * x_n + g * x_g
            near, far, inner = 0, 0, 0                  # tiles from `near` to `far` read x itself from `inner` on
            for r in range(runs.shape[1]):
                begin, at, count = runs[0, r], runs[1, r], runs[2, r]
                if r == longest and at_once:
                    near = ceil_div_(begin, tile) * tile
                    far = (begin + count - reach) // tile * tile
                    if near < far:
                        inner = base + at - begin
                        _fetch(buffer, begin, near + reach - begin, x, base, at, apart, fill)
                        begin, at, count = far, at + far - begin, begin + count - far
                _fetch(buffer, begin, count, x, base, at, apart, fill)
            for block in range(blocks):
                first = g * K + block * M
                to = out_0 + n * out_n + first * out_k
                there, place, line = (out, to, width) if at_once else (sums, 0, length)
                if parity != 0:
                    _paired_sums(sums, length, bias[first % bias.size], buffer, offsets, panel, parity)
                elif run > 0:
                    for p in range(0, line, tile):
                        here, q = (x, inner + p) if near <= p < far else (buffer, p)
                        filter_line(there, place + p, line - p, bias[first % bias.size], here, q, offsets, run, panel,
                                    0, _LINE)
                elif M == 1:
                    for p in range(0, line, tile):
                        here, q = (x, inner + p) if near <= p < far else (buffer, p)
                        multiply_tile(there, place + p, line, M, line - p, False, bias, first, here, q, offsets, panel,
                                      block * T, 0, T, (0,), (0, 0, 0, 0))
                else:
                    for p in range(0, length, _NARROW * lanes):
                        multiply_tile(sums, p, length, M, length, False, bias, first, buffer, p, offsets, panel,
                                      block * T * M, 0, T, (0, 0, 0, 0), (0, 0))
                if at_once:
                    continue
                for i in range(min(M, K - block * M)):
                    for row in range(rows.shape[1]):
                        begin, end = i * length + rows[0, row], to + i * out_k + rows[1, row]
                        if step == 1:
                            copy(out, end, sums, begin, width)
                        else:
                            for q in range(width):
                                out[end + q * step] = sums[begin + q]
    return finite
