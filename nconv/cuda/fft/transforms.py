"""Fourier transforms of a block in shared memory, along any axis, in place: no reordering, no copy.

Forward by decimation in frequency, back by decimation in time with the passes reversed: frequencies stay in the order
in which the first leaves them, which products of spectra do not mind. Radix 4, with one pass of radix 2 where the
length is no power of four.
"""

from __future__ import annotations

import numpy as np

from ..device import block_function, cuda, device_cache, upload


@device_cache(32)
def twiddles(length: int, dtype: np.dtype):
    """cos and sin of -2 pi k / length side by side, (2 length,), on the device."""
    angle = -2 * np.pi * np.arange(length) / length
    return upload(np.stack([np.cos(angle), np.sin(angle)], -1).astype(dtype).ravel())


@block_function
def forward(re, im, points, log_length, log_stride, turns, log_turns, thread, threads):
    """Transform every line of an axis of 2**log_length points whose neighbours lie 2**log_stride apart.

    Powers of two everywhere, so that no index needs a division. `turns` are the `twiddles` of 2**log_turns. All threads
    of the block call it; it ends with a barrier.
    """
    stride = 1 << log_stride
    while log_length >= 2:
        m = 1 << (log_length - 2)
        turn = log_turns - log_length
        for i in range(thread, points // 4, threads):
            rest = i >> log_stride
            j = rest & (m - 1)
            a = ((((rest - j) << 2) + j) << log_stride) + (i & (stride - 1))
            b = a + m * stride
            c = b + m * stride
            d = c + m * stride
            j = j << turn
            sr, si = re[a] + re[c], im[a] + im[c]
            tr, ti = re[a] - re[c], im[a] - im[c]
            ur, ui = re[b] + re[d], im[b] + im[d]
            vr, vi = re[b] - re[d], im[b] - im[d]
            re[a] = sr + ur
            im[a] = si + ui
            wr, wi = turns[2 * j], turns[2 * j + 1]
            pr, pi = tr + vi, ti - vr
            re[b] = pr * wr - pi * wi
            im[b] = pr * wi + pi * wr
            wr, wi = turns[4 * j], turns[4 * j + 1]
            pr, pi = sr - ur, si - ui
            re[c] = pr * wr - pi * wi
            im[c] = pr * wi + pi * wr
            wr, wi = turns[6 * j], turns[6 * j + 1]
            pr, pi = tr - vi, ti + vr
            re[d] = pr * wr - pi * wi
            im[d] = pr * wi + pi * wr
        cuda.syncthreads()
        log_length -= 2
    if log_length == 1:
        for i in range(thread, points // 2, threads):
            a = ((i >> log_stride) << (log_stride + 1)) + (i & (stride - 1))
            b = a + stride
            pr, pi = re[a] - re[b], im[a] - im[b]
            re[a] += re[b]
            im[a] += im[b]
            re[b] = pr
            im[b] = pi
        cuda.syncthreads()


@block_function
def backward(re, im, points, log_length, log_stride, turns, log_turns, thread, threads):
    """Undo `forward`, but for a factor of 2**log_length."""
    stride = 1 << log_stride
    log_m = log_length & 1
    if log_m:
        for i in range(thread, points // 2, threads):
            a = ((i >> log_stride) << (log_stride + 1)) + (i & (stride - 1))
            b = a + stride
            pr, pi = re[a] - re[b], im[a] - im[b]
            re[a] += re[b]
            im[a] += im[b]
            re[b] = pr
            im[b] = pi
        cuda.syncthreads()
    while log_m < log_length:
        m = 1 << log_m
        turn = log_turns - log_m - 2
        for i in range(thread, points // 4, threads):
            rest = i >> log_stride
            j = rest & (m - 1)
            a = ((((rest - j) << 2) + j) << log_stride) + (i & (stride - 1))
            b = a + m * stride
            c = b + m * stride
            d = c + m * stride
            j = j << turn
            wr, wi = turns[2 * j], -turns[2 * j + 1]
            pr = re[b] * wr - im[b] * wi
            pi = re[b] * wi + im[b] * wr
            wr, wi = turns[4 * j], -turns[4 * j + 1]
            qr = re[c] * wr - im[c] * wi
            qi = re[c] * wi + im[c] * wr
            wr, wi = turns[6 * j], -turns[6 * j + 1]
            rr = re[d] * wr - im[d] * wi
            ri = re[d] * wi + im[d] * wr
            sr, si = re[a] + qr, im[a] + qi
            tr, ti = re[a] - qr, im[a] - qi
            ur, ui = pr + rr, pi + ri
            vr, vi = pr - rr, pi - ri
            re[a] = sr + ur
            im[a] = si + ui
            re[c] = sr - ur
            im[c] = si - ui
            re[b] = tr - vi
            im[b] = ti + vr
            re[d] = tr + vi
            im[d] = ti - vr
        cuda.syncthreads()
        log_m += 2
