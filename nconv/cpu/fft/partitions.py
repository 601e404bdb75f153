"""Partitioned convolution of endless signals: the kernel in equal parts, a spectrum for each, one new block at a time.

A level cuts its taps into parts of n. When n samples have come, their spectrum joins those of the blocks before; the
sum over parts of (spectrum of the part) times (spectrum of the block that it meets) is the spectrum of n outputs. Only
the newest block's product must wait for it: all others are summed ahead, a few in each call, so no call has much to do.

A block is the polynomial ``past + i now`` of n complex points modulo ``t^n = i``: the 2 n last samples modulo
``t^2n = -1``. What wraps around, with the wrong sign, is in the half that overlap-save throws away.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div
from ...jit import inner_kernel, owning_kernel, parallel_kernel, prange
from ..arrays import share_start_
from ..borrowed import borrow
from ..simd import copy, vstore
from .transforms import Transform, transform, transform_block
from .vectors import lanes, lanes_of, load


class Parts(NamedTuple):
    """One length of parts as the kernels see it: what is fixed, and the state."""

    n: int                     # samples of a part
    unit: int                  # samples that come at once; divides n
    parts: int
    taps: np.ndarray           # [kernels, parts, 2 n], spectra of the parts
    first: np.ndarray          # [kernels, 2, 2 n], that of the first part, and ones
    kernel_of: np.ndarray      # int64, the kernel of each channel
    late: int                  # 1: outputs are those of the next n samples (every level but the first)
    clock: np.ndarray          # int64: [units of the current block, slot of the current block]
    past: np.ndarray           # [channels, n], the block before
    now: np.ndarray            # [channels, n], the block that is coming
    ahead: np.ndarray          # [channels, n], outputs that are ready
    seen: np.ndarray           # [channels, parts, 2 n], spectra of the last blocks, a ring
    fresh: np.ndarray          # [channels, 2, 2 n], that of the current block, and the products summed for it so far


class Level(NamedTuple):
    """One length of parts and its transform (Numba takes no tuple within a tuple into threads)."""

    parts: Parts
    plan: Transform


def level(taps: np.ndarray, n: int, unit: int, kernel_of: np.ndarray, late: bool) -> Level:
    """A level at rest for `taps` [kernels, count], float32 or float64; `n` is a multiple of the squared lanes."""
    kernels, count = taps.shape
    channels = kernel_of.size
    parts = ceil_div(count, n)
    dtype = taps.dtype
    plan = transform((n,), -np.pi / 2, dtype)
    spectra = np.zeros((kernels, parts, n // lanes(dtype), 2, lanes(dtype)), dtype)
    padded = np.zeros((kernels, parts * n), dtype)
    padded[:, :count] = taps
    spectra[:, :, :, 0] = padded.reshape(kernels, parts, -1, lanes(dtype))
    first = np.zeros((kernels, 2, n // lanes(dtype), 2, lanes(dtype)), dtype)
    first[:, 1, :, 0] = 1
    state = [np.zeros((channels, n), dtype) for _ in range(3)]
    made = Parts(n, unit, parts, spectra.reshape(-1), first.reshape(-1), kernel_of, int(late), np.zeros(2, np.int64),
                 *state, np.zeros(channels * parts * 2 * n, dtype), np.zeros(channels * 2 * 2 * n, dtype))
    partition_spectra_kernel(made, plan, kernels, 1)
    return Level(made, plan)


def work(channels: int, n: int, parts: int) -> float:
    """Operations for each sample of all channels: two transforms, and the products."""
    return channels * (10 * float(np.log2(n)) + 8 * parts)


# ------------------------------------------------------------------------------------------------ The kernels


@inner_kernel
def partition_spectra_share_kernel(level, plan, kernels, threads, thread):
    """One thread's share of the kernels: the parts' spectra, in place."""
    stored = 2 * level.n
    for row in range(share_start_(kernels, threads, thread), share_start_(kernels, threads, thread + 1)):
        for part in range(row * level.parts, (row + 1) * level.parts):
            transform_block(level.taps, part * stored, level.taps, 0, 0, level.taps, 0, 0, 1, plan, True, False)
        begin = row * level.parts * stored
        copy(level.first, row * 2 * stored, level.taps, begin, stored)


@parallel_kernel
def partition_spectra_kernel(level, plan, kernels, threads):
    """Spectra of all parts. Parallel over the kernels; race-free because each writes its own spectra."""
    level, plan = borrow(level), borrow(plan)
    for thread in prange(threads):
        partition_spectra_share_kernel(level, plan, kernels, threads, np.int64(thread))


@inner_kernel
def _add_product(sums, at, seen, x, taps, w, stored):
    """sums[at:] += seen[x:] * taps[w:], point by point."""
    step = lanes_of(sums)
    for i in range(0, stored, 2 * step):
        a, b, c, d = load(seen, x + i), load(seen, x + i + step), load(taps, w + i), load(taps, w + i + step)
        vstore(sums, at + i, load(sums, at + i) + (a * c - b * d))
        vstore(sums, at + i + step, load(sums, at + i + step) + (a * d + b * c))


@inner_kernel
def _finish_block(level, plan, channel, slot, result):
    """The current block of a channel is whole: its spectrum, its outputs, a new sum."""
    n, step = level.n, lanes_of(result)
    stored = 2 * n
    fresh = channel * 2 * stored
    past, now, ahead = level.past[channel], level.now[channel], level.ahead[channel]
    for k in range(0, n, step):
        vstore(level.fresh, fresh + 2 * k, load(past, k))
        vstore(level.fresh, fresh + 2 * k + step, load(now, k))
        vstore(past, k, load(now, k))
    transform_block(level.fresh, fresh, level.fresh, 0, 0, level.fresh, 0, 0, 1, plan, True, False)
    seen = (channel * level.parts + slot) * stored
    copy(level.seen, seen, level.fresh, fresh, stored)
    first = level.kernel_of[channel] * 2 * stored
    transform_block(result, 0, level.fresh, fresh, stored, level.first, first, stored, 2, plan, False, True)
    level.fresh[fresh + stored:fresh + 2 * stored] = 0
    share = result.dtype.type(1) / result.dtype.type(n)
    for k in range(n):
        ahead[k] = result[2 * k - k % step + step] * share


@owning_kernel
def partition_share_kernel(level, plan, x, y, threads, thread):
    """One thread's share of the channels."""
    channels = x.shape[0]
    unit, parts, stored = level.unit, level.parts, 2 * level.n
    rounds = level.n // unit
    result = np.empty(stored, x.dtype)
    for channel in range(share_start_(channels, threads, thread), share_start_(channels, threads, thread + 1)):
        turn, slot = level.clock[0], level.clock[1]
        now, ahead = level.now[channel], level.ahead[channel]
        for begin in range(0, x.shape[1], unit):
            at = turn * unit
            for k in range(unit):
                now[at + k] = x[channel, begin + k]
                if level.late:
                    y[channel, begin + k] += ahead[at + k]
            for p in range(1 + turn * (parts - 1) // rounds, 1 + (turn + 1) * (parts - 1) // rounds):
                _add_product(level.fresh, (channel * 2 + 1) * stored, level.seen,
                             (channel * parts + (slot - p) % parts) * stored, level.taps,
                             (level.kernel_of[channel] * parts + p) * stored, stored)
            turn += 1
            if turn == rounds:
                _finish_block(level, plan, channel, slot, result)
                turn = 0
                slot = (slot + 1) % parts
                if not level.late:
                    for k in range(unit):
                        y[channel, begin + k] += ahead[k]


@parallel_kernel
def partition_stream_kernel(level, plan, x, y, threads):
    """y += the level's part of the convolution of the next samples; moves the state of all its channels on.

    Shapes: x and y [channels, units * unit]. Parallel over channels; race-free because a channel's state and outputs
    belong to one thread, and the clock is read by all but moved by none.
    """
    level, plan = borrow(level), borrow(plan)
    for thread in prange(threads):
        partition_share_kernel(level, plan, x, y, threads, np.int64(thread))


def advance(levels: tuple[Level, ...], x: np.ndarray, threads: int) -> np.ndarray:
    """The next outputs of all levels for samples `x` [channels, count], count a multiple of the first level's n."""
    y = np.zeros_like(x)
    for level, plan in levels:
        partition_stream_kernel(level, plan, x, y, min(threads, x.shape[0]))
        turns = int(level.clock[0]) + x.shape[1] // level.unit
        rounds = level.n // level.unit
        level.clock[:] = turns % rounds, (int(level.clock[1]) + turns // rounds) % level.parts
    return y
