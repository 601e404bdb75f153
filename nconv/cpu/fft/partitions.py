"""Partitioned convolution of endless signals: the kernel in equal parts, a spectrum for each, one new block at a time.

A level cuts its taps into parts of n. When n samples have come, their spectrum joins those of the blocks before; the
sum over parts of (spectrum of the part) times (spectrum of the block that it meets) is the spectrum of n outputs. Only
the newest block's product must wait for it: all others are summed ahead, a few in each call, so no call has much to do.

Real signals need half the points: with ``t^n = i``, n complex numbers ``past + i now`` are the 2 n samples of a signal
modulo ``t^2n + 1``, and turning sample k by ``exp(i pi k / 2n)`` makes the product cyclic. What wraps around, with the
wrong sign, is in the half that overlap-save throws away.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...geometry import ceil_div, round_up
from ...jit import kernel, parallel_kernel, prange
from .. import simd
from ..arrays import ceil_div_, share_start_
from ..simd import copy
from .blocks import multiply_spectra
from .transforms import Transform, forward, inverse, transform


class Parts(NamedTuple):
    """One length of parts as the kernels see it: what is fixed, and the state."""

    n: int                     # samples of a part
    unit: int                  # samples that come at once; divides n
    parts: int
    cos: np.ndarray            # of pi k / 2n, k < n
    sin: np.ndarray
    taps_re: np.ndarray        # [kernels, parts, n]
    taps_im: np.ndarray
    kernel_of: np.ndarray      # int64, the kernel of each channel
    late: int                  # 1: outputs are those of the next n samples (every level but the first)
    clock: np.ndarray          # int64: [units of the current block, slot of the current block]
    past: np.ndarray           # [channels, n], the block before
    now: np.ndarray            # [channels, n], the block that is coming
    ahead: np.ndarray          # [channels, n], outputs that are ready
    seen_re: np.ndarray        # [channels, parts, n], spectra of the last blocks, a ring
    seen_im: np.ndarray
    sum_re: np.ndarray         # [channels, n], products summed for the current block so far
    sum_im: np.ndarray


class Level(NamedTuple):
    """One length of parts and its transform (Numba takes no tuple within a tuple into threads)."""

    parts: Parts
    plan: Transform


def level(taps: np.ndarray, n: int, unit: int, kernel_of: np.ndarray, late: bool) -> Level:
    """A level at rest for `taps` [kernels, count], float32 or float64; `n` is a multiple of the lanes."""
    kernels, count = taps.shape
    channels = kernel_of.size
    parts = ceil_div(count, n)
    dtype = taps.dtype
    padded = np.zeros((kernels * parts, n), dtype)
    padded.reshape(kernels, -1)[:, :count] = taps
    angle = np.pi / (2 * n) * np.arange(n)
    state = [np.zeros((channels, n), dtype) for _ in range(3)]
    plan = transform(n, dtype)
    made = Parts(n, unit, parts, np.cos(angle).astype(dtype), np.sin(angle).astype(dtype),
                 np.empty_like(padded), np.empty_like(padded), kernel_of, int(late), np.zeros(2, np.int64), *state,
                 np.zeros((channels * parts, n), dtype), np.zeros((channels * parts, n), dtype),
                 np.zeros((channels, n), dtype), np.zeros((channels, n), dtype))
    partition_spectra_kernel(made, plan, padded, simd.lanes(dtype), 1)
    return Level(made, plan)


def work(channels: int, n: int, parts: int, lanes: int) -> float:
    """Operations for each sample of all channels: two transforms of whole vectors of channels, and the products."""
    return 10 * float(np.log2(n)) * round_up(channels, lanes) + 8 * channels * parts


# ------------------------------------------------------------------------------------------------ The kernels


@kernel
def _turned(level, past, now, row, columns, lanes, re, im):
    """re, im [n, lanes] = (past + i now) of `columns` rows from `row`, each sample turned; the other lanes are zero."""
    re[:] = 0
    im[:] = 0
    for column in range(columns):
        for k in range(level.n):
            a, b = past[row + column, k], now[row + column, k]
            re[k * lanes + column] = a * level.cos[k] - b * level.sin[k]
            im[k * lanes + column] = a * level.sin[k] + b * level.cos[k]


@kernel
def partition_spectra_share_kernel(level, plan, taps, lanes, threads, thread):
    """One thread's share of the parts, `lanes` at once."""
    items = ceil_div_(taps.shape[0], lanes)
    re, im = np.empty(level.n * lanes, taps.dtype), np.empty(level.n * lanes, taps.dtype)
    nothing = np.zeros_like(taps[:lanes])
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        row = item * lanes
        columns = min(lanes, taps.shape[0] - row)
        _turned(level, taps[row:row + columns], nothing, 0, columns, lanes, re, im)
        forward(re, im, 1, lanes, plan)
        for column in range(columns):
            for k in range(level.n):
                level.taps_re[row + column, k] = re[k * lanes + column]
                level.taps_im[row + column, k] = im[k * lanes + column]


@parallel_kernel
def partition_spectra_kernel(level, plan, taps, lanes, threads):
    """Spectra of all parts of all kernels, taps [kernels parts, n].

    Parallel over the parts; race-free because each writes its own spectrum.
    """
    for thread in prange(threads):
        partition_spectra_share_kernel(level, plan, taps, lanes, threads, thread)


@kernel
def _add_parts(level, channel, slot, first, last):
    """Add the products of parts first <= p < last to the sum of the block that goes to `slot`."""
    n, parts = level.n, level.parts
    kernel = level.kernel_of[channel] * parts
    for p in range(first, last):
        seen = channel * parts + (slot - p) % parts
        multiply_spectra(level.seen_re[seen], level.seen_im[seen], 0, level.taps_re[kernel + p],
                         level.taps_im[kernel + p], 0, level.sum_re[channel], level.sum_im[channel], n, True)


@kernel
def _finish_block(level, plan, row, columns, lanes, slot, re, im):
    """The current block of `columns` channels is whole: its spectrum, its outputs, a new sum."""
    n = level.n
    _turned(level, level.past, level.now, row, columns, lanes, re, im)
    forward(re, im, 1, lanes, plan)
    for column in range(columns):
        seen = (row + column) * level.parts + slot
        for k in range(n):
            level.seen_re[seen, k] = re[k * lanes + column]
            level.seen_im[seen, k] = im[k * lanes + column]
        _add_parts(level, row + column, slot, 0, 1)
        for k in range(n):
            re[k * lanes + column] = level.sum_re[row + column, k]
            im[k * lanes + column] = level.sum_im[row + column, k]
            level.sum_re[row + column, k] = 0
            level.sum_im[row + column, k] = 0
        copy(level.past[row + column], 0, level.now[row + column], 0, n)
    inverse(re, im, 1, lanes, plan)
    share = level.cos.dtype.type(1) / level.cos.dtype.type(n)
    for column in range(columns):
        for k in range(n):
            a, b = re[k * lanes + column] * share, im[k * lanes + column] * share
            level.ahead[row + column, k] = b * level.cos[k] - a * level.sin[k]


@kernel
def _add_row(target, source):
    for k in range(target.size):
        target[k] += source[k]


@kernel
def partition_share_kernel(level, plan, x, y, lanes, threads, thread):
    """One thread's share of the channels, `lanes` at once."""
    channels = x.shape[0]
    unit = level.unit
    rounds = level.n // unit
    older = level.parts - 1
    items = ceil_div_(channels, lanes)
    re, im = np.empty(level.n * lanes, x.dtype), np.empty(level.n * lanes, x.dtype)
    for item in range(share_start_(items, threads, thread), share_start_(items, threads, thread + 1)):
        row = item * lanes
        columns = min(lanes, channels - row)
        turn, slot = level.clock[0], level.clock[1]
        for begin in range(0, x.shape[1], unit):
            end = begin + unit
            at = turn * unit
            for channel in range(row, row + columns):
                copy(level.now[channel], at, x[channel], begin, unit)
                if level.late:
                    _add_row(y[channel, begin:end], level.ahead[channel, at:at + unit])
                _add_parts(level, channel, slot, 1 + turn * older // rounds, 1 + (turn + 1) * older // rounds)
            turn += 1
            if turn == rounds:
                _finish_block(level, plan, row, columns, lanes, slot, re, im)
                turn = 0
                slot = (slot + 1) % level.parts
                if not level.late:
                    for channel in range(row, row + columns):
                        _add_row(y[channel, begin:end], level.ahead[channel])


@parallel_kernel
def partition_stream_kernel(level, plan, x, y, lanes, threads):
    """y += the level's part of the convolution of the next samples; moves the state of all its channels on.

    Shapes: x and y [channels, units * unit]. Parallel over groups of `lanes` channels; race-free because a channel's
    state and outputs belong to one thread, and the clock is read by all but moved by none.
    """
    for thread in prange(threads):
        partition_share_kernel(level, plan, x, y, lanes, threads, thread)


def advance(levels: tuple[Level, ...], x: np.ndarray, threads: int) -> np.ndarray:
    """The next outputs of all levels for samples `x` [channels, count], count a multiple of the first level's n."""
    y = np.zeros_like(x)
    lanes = simd.lanes(x.dtype)
    for level, plan in levels:
        partition_stream_kernel(level, plan, x, y, lanes, min(threads, ceil_div(x.shape[0], lanes)))
        turns = int(level.clock[0]) + x.shape[1] // level.unit
        rounds = level.n // level.unit
        level.clock[:] = turns % rounds, (int(level.clock[1]) + turns // rounds) % level.parts
    return y
