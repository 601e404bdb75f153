"""The kernel of signals, images and volumes: tiles with halos in shared memory, a sliding window in registers.

A block has a tile of outputs of one plane. It takes the input's channels, the window's planes and, where the halo of
all taps is too large, parts of the window in stages: while the sums of one are formed, the next one is on its way to
shared memory.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numba
from numba import int32, int64, uint32

from ..device import block_function, cuda, kernel
from ..division import over
from ..ptx import behind, close_copies, copy_async, load, store, wait_copies, window_store, window_sums

FETCH = 8                      # loads of a thread under way at once where they pass through registers
TURNS = 4                      # copies of a thread between two questions for the end


class TileLayout(NamedTuple):
    """What a thread of `direct_tile_kernel` knows. Axes 1 and 2 are tiled, axis 0 is walked plane by plane.

    `over`: see `divisor`.
    """

    channels: int
    out_channels: int          # of all groups
    over_channels: int
    shift_channels: int
    over_group: int            # output channels of one group
    shift_group: int
    out0: int
    over_out0: int
    shift_out0: int
    out1: int
    out2: int
    kernel0: int
    kernel1: int
    kernel2: int
    stride0: int
    stride1: int
    stride2: int
    dilation0: int
    dilation1: int
    dilation2: int
    map1: int                  # where an axis' map begins, and the last one ends
    map2: int
    map_end: int
    begin1: int                # the longest even run of a map: where it lies, its first place, from one to the next
    end1: int
    first1: int
    step1: int
    begin2: int
    end2: int
    first2: int
    step2: int
    x_start: int
    x_batch: int
    x_channel: int
    out_start: int
    out_batch: int
    out_channel: int
    out_stride0: int
    out_stride1: int
    out_stride2: int
    bias_step: int
    tile1: int                 # outputs of a block
    tile2: int
    grid1: int                 # blocks
    over_grid1: int
    shift_grid1: int
    grid2: int
    over_grid2: int
    shift_grid2: int
    across: int                # threads along axis 2 that sum, that fill the tile, that write the outputs
    over_across: int
    shift_across: int
    fill_across: int
    over_fill: int
    shift_fill: int
    fill_rows: int             # rows that are filled at once
    store_across: int
    over_store: int
    shift_store: int
    store_rows: int
    pitch: int                 # from one row of shared memory to the next, of inputs and of outputs
    out_pitch: int
    slab1: int                 # taps whose input is in shared memory at once
    slab2: int
    slots: int                 # stages in shared memory, their size, where the weights of one lie behind its inputs
    slot: int
    weights_at: int


@cache
def _steps(dtype_name: str, index_name: str, J: int, Q: int, R: int, S: int, UNIT: bool, ASYNC: bool):
    """What a block does: (fill a stage with inputs, with weights, add its products to the sums, write them)."""
    dtype, whole = getattr(numba, dtype_name), getattr(numba, index_name)
    place = getattr(numba, "u" + index_name)
    place_sums = window_store(J, Q)
    LINE = J == 1

    @block_function
    def fill_tile(layout, tile, at_slot, x, base, plane, maps, fill, top, left, taps1, taps2):
        """Bring a tile with its halo to shared memory; wait for it later."""
        thread, threads, pitch = int32(cuda.threadIdx.x), int32(cuda.blockDim.x), int32(layout.pitch)
        values = behind(x, base + max(plane, whole(0)))
        map1, map2 = int32(layout.map1), int32(layout.map2)
        height = int32((int32(layout.tile1) - 1) * int32(layout.stride1) + (taps1 - 1) * int32(layout.dilation1) + 1)
        width = int32((int32(layout.tile2) - 1) * int32(layout.stride2) + (taps2 - 1) * int32(layout.dilation2) + 1)
        # A thread fills columns of a tile from the top down, or of a line every so many-th element.
        if LINE:
            outer, outer_step, outer_pitch, outer_count = int32(0), int32(1), pitch, height
            outer_map, outer_last = int32(map1 + top), int32(map2 - 1)
            first, inner_step, inner_pitch, count = thread, threads, int32(1), width
            inner_map, inner_last = int32(map2 + left), int32(layout.map_end - 1)
            begin, end = int32(layout.begin2 - left), int32(layout.end2 - left)
            at_run, run_step = whole(layout.first2), whole(layout.step2)
        else:
            first = over(thread, layout.over_fill, layout.shift_fill)
            outer, outer_step = int32(thread - first * int32(layout.fill_across)), int32(layout.fill_across)
            outer_pitch, outer_count = int32(1), width
            outer_map, outer_last = int32(map2 + left), int32(layout.map_end - 1)
            inner_step, inner_pitch, count = int32(layout.fill_rows), pitch, height
            inner_map, inner_last = int32(map1 + top), int32(map2 - 1)
            begin, end = int32(layout.begin1 - top), int32(layout.end1 - top)
            at_run, run_step = whole(layout.first1), whole(layout.step1)
            if first >= inner_step:
                outer = outer_count
        to_step, most_inner = int32(inner_step * inner_pitch), int32((TURNS - 1) * inner_step)
        # From `low` to `high` the places lie evenly: they need no map, and copies no registers.
        low = int32(min(max(begin, int32(0)), count))
        high = int32(max(min(end, count), low)) if plane >= 0 else low
        at_run = whole(at_run + whole(int32(low + first) - begin) * run_step)
        run_step = whole(inner_step * run_step)
        fetched = cuda.local.array(FETCH, dtype)
        places = cuda.local.array(FETCH, whole)
        while outer < outer_count:
            # Places beyond the last output are read and not used.
            beside = load(maps, uint32(min(int32(outer_map + outer), outer_last)))
            if plane < 0:
                beside = plane
            column_at = int32(at_slot + outer * outer_pitch + first * inner_pitch)
            if ASYNC:
                inner, to = int32(low + first), int32(column_at + low * inner_pitch)
                if beside >= 0:
                    at = whole(beside + at_run)
                    while int32(inner + most_inner) < high:
                        for _ in range(TURNS):
                            copy_async(tile, to, values, place(at))
                            at = whole(at + run_step)
                            to = int32(to + to_step)
                        inner = int32(inner + TURNS * inner_step)
                    while inner < high:
                        copy_async(tile, to, values, place(at))
                        at = whole(at + run_step)
                        to = int32(to + to_step)
                        inner = int32(inner + inner_step)
                else:
                    while inner < high:
                        store(tile, to, fill)
                        to = int32(to + to_step)
                        inner = int32(inner + inner_step)
                inner, until = first, low
                for _ in range(2):
                    to = int32(column_at + (inner - first) * inner_pitch)
                    while inner < until:
                        at = whole(beside + load(maps, uint32(min(int32(inner_map + inner), inner_last))))
                        if at >= 0:
                            copy_async(tile, to, values, place(at))
                        else:
                            store(tile, to, fill)
                        inner = int32(inner + inner_step)
                        to = int32(to + to_step)
                    inner, until = int32(high + first), count
            else:
                inner, to = first, column_at
                while inner < count:
                    at_map = int32(inner_map + inner)
                    for i in range(FETCH):
                        places[i] = whole(beside + load(maps, uint32(min(at_map, inner_last))))
                        at_map = int32(at_map + inner_step)
                    for i in range(FETCH):
                        fetched[i] = fill
                        if places[i] >= 0:
                            fetched[i] = dtype(load(values, place(places[i])))
                    for i in range(FETCH):
                        if inner < count:
                            store(tile, to, fetched[i])
                        inner = int32(inner + inner_step)
                        to = int32(to + to_step)
            outer = int32(outer + outer_step)

    @block_function
    def fill_weights(layout, tile, at_slot, factors, first, taps1, taps2):
        """Bring a part of a plane of the window to shared memory."""
        thread, threads, kernel2 = int32(cuda.threadIdx.x), int32(cuda.blockDim.x), int32(layout.kernel2)
        rows_of_taps, length = taps1, taps2
        if taps2 == kernel2:
            rows_of_taps, length = int32(1), int32(taps1 * kernel2)
        for r in range(rows_of_taps):
            i = thread
            at = int32(first + r * kernel2 + i)
            to = int32(at_slot + int32(layout.weights_at) + r * int32(layout.slab2) + i)
            while i < length:
                if ASYNC:
                    copy_async(tile, to, factors, at)
                else:
                    store(tile, to, load(factors, at))
                at = int32(at + threads)
                to = int32(to + threads)
                i = int32(i + threads)

    def along(several, single):
        """The products of rows of taps: S columns at once as long as there are so many, then one by one."""
        @block_function
        def along(sums, tile, at, row_step, step, at_w, w_row, taps2, dilation2):
            s = int32(0)
            while s + S <= taps2:
                several(sums, tile, at, row_step, step, at_w, w_row)
                at = int32(at + S * dilation2)
                at_w = int32(at_w + S)
                s = int32(s + S)
            if S > 1:
                while s < taps2:
                    single(sums, tile, at, row_step, step, at_w, w_row)
                    at = int32(at + dilation2)
                    at_w = int32(at_w + 1)
                    s = int32(s + 1)

        return along

    rows, one_row = (along(window_sums(J, Q, r, S), window_sums(J, Q, r, 1)) for r in (R, 1))

    @block_function
    def add_window(layout, sums, tile, at_row, at_w_row, taps1, taps2):
        """Add the products of a plane of the window to the sums of a thread whose first input is at `at_row`."""
        row_step, tap_row = int32(layout.stride1 * layout.pitch), int32(layout.dilation1 * layout.pitch)
        step, dilation2 = int32(1) if UNIT else int32(layout.stride2), int32(layout.dilation2)
        w_row = int32(layout.slab2)
        r = int32(0)
        while r + R <= taps1:
            rows(sums, tile, at_row, row_step, step, at_w_row, w_row, taps2, dilation2)
            at_row = int32(at_row + R * tap_row)
            at_w_row = int32(at_w_row + R * w_row)
            r = int32(r + R)
        if R > 1:
            while r < taps1:
                one_row(sums, tile, at_row, row_step, step, at_w_row, w_row, taps2, dilation2)
                at_row = int32(at_row + tap_row)
                at_w_row = int32(at_w_row + w_row)
                r = int32(r + 1)

    @block_function
    def put_sums(layout, sums, offset, tile, busy, row, column, out, to_plane, origin1, origin2):
        """Write a plane of outputs, through shared memory, so that neighbours are stored together."""
        thread, threads = int32(cuda.threadIdx.x), int32(cuda.blockDim.x)
        out_pitch = int32(layout.out_pitch)
        if busy:
            place_sums(sums, offset, tile, int32(row * out_pitch + column), out_pitch)
        cuda.syncthreads()
        if LINE:
            u, first, across, rows_at_once = int32(0), thread, threads, int32(1)
        else:
            across, rows_at_once = int32(layout.store_across), int32(layout.store_rows)
            u = over(thread, layout.over_store, layout.shift_store)
            first = int32(thread - u * across)
        height = int32(min(int32(layout.tile1), int32(int32(layout.out1) - origin1)))
        width = int32(min(int32(layout.tile2), int32(int32(layout.out2) - origin2)))
        if u >= rows_at_once:
            u = height
        to_row = to_plane + (origin1 + u) * layout.out_stride1 + (origin2 + first) * layout.out_stride2
        across_step = across * layout.out_stride2
        while u < height:
            to, at, v = to_row, int32(u * out_pitch + first), first
            while v < width:
                store(out, to, load(tile, at))
                to += across_step
                at = int32(at + across)
                v = int32(v + across)
            to_row += rows_at_once * layout.out_stride1
            u = int32(u + rows_at_once)

    return fill_tile, fill_weights, add_window, put_sums


@cache
def direct_tile_kernel(dtype_name: str, index_name: str, J: int, Q: int, R: int, S: int, UNIT: bool, ASYNC: bool,
                       ONCE: bool):
    """The kernel for one type in which a thread sums J x Q outputs, R x S taps at once.

    R, S: above 1 only where stride and dilation are the same, so that an input serves several outputs of the thread.
    UNIT: the columns' stride is 1. ASYNC: x has the type of the sums, and the GPU copies to shared memory by itself.
    ONCE: there is one stage: what a loop of one turn would keep in registers makes room for other blocks.
    """
    dtype, whole = getattr(numba, dtype_name), getattr(numba, index_name)
    fill_tile, fill_weights, add_window, put_sums = _steps(dtype_name, index_name, J, Q, R, S, UNIT, ASYNC)
    OUTPUTS = J * Q

    @kernel
    def direct_tile_kernel(layout, x, maps, weight, bias, out, fill):
        """out[n, k, p] = bias + sum over the window, from tiles with halos in shared memory.

        Shapes: x (N, groups C, D, H, W) and out (N, groups K, *out) by strides; weight [groups K, C, depth, rows,
        columns]. Parallel over (N, groups K, out planes, tiles). Race-free because each output is one thread's and a
        stage's inputs change between two barriers.
        """
        tile = cuda.shared.array(0, dtype)
        thread, item = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        above = over(item, layout.over_grid2, layout.shift_grid2)
        origin2 = int32(int32(item - above * int32(layout.grid2)) * int32(layout.tile2))
        rest = over(above, layout.over_grid1, layout.shift_grid1)
        origin1 = int32(int32(above - rest * int32(layout.grid1)) * int32(layout.tile1))
        above = over(rest, layout.over_out0, layout.shift_out0)
        q0 = int32(rest - above * int32(layout.out0))
        n = over(above, layout.over_channels, layout.shift_channels)
        k = int32(above - n * int32(layout.out_channels))
        g = over(k, layout.over_group, layout.shift_group)

        down = over(thread, layout.over_across, layout.shift_across)
        row, column = int32(down * J), int32((thread - down * int32(layout.across)) * Q)
        busy = row < int32(layout.tile1) and int32(origin1 + row) < int32(layout.out1) and int32(
            origin2 + column) < int32(layout.out2)
        here = int32(row * int32(layout.stride1) * int32(layout.pitch) + column * int32(layout.stride2))
        top, left = int32(origin1 * int32(layout.stride1)), int32(origin2 * int32(layout.stride2))
        sums = cuda.local.array(OUTPUTS, dtype)
        for i in range(OUTPUTS):
            sums[i] = 0
        offset, at_bias = dtype(0), uint32(k * int32(layout.bias_step))
        base = layout.x_start + n * layout.x_batch + g * layout.channels * layout.x_channel
        kernel1, kernel2, weights_at = int32(layout.kernel1), int32(layout.kernel2), int32(layout.weights_at)
        depth, area = int32(layout.kernel0), int32(kernel1 * kernel2)
        planes = int32(1) if ONCE else int32(int32(layout.channels) * depth)
        factors = behind(weight, int64(k) * int64(planes) * int64(area))
        slab1, slab2 = int32(0), int32(0)
        while slab1 < kernel1:
            taps1 = int32(min(int32(layout.slab1), int32(kernel1 - slab1)))
            taps2 = int32(min(int32(layout.slab2), int32(kernel2 - slab2)))
            upper = int32(top + slab1 * int32(layout.dilation1))
            outer_left = int32(left + slab2 * int32(layout.dilation2))
            first = int32(slab1 * kernel2 + slab2)
            if ONCE:
                fill_weights(layout, tile, int32(0), factors, first, taps1, taps2)
                fill_tile(layout, tile, int32(0), x, base, whole(0), maps, fill, upper, outer_left, taps1, taps2)
                close_copies()
                offset = load(bias, at_bias)           # not sooner: a number of the whole block is waited for at once
                wait_copies(False)
                cuda.syncthreads()
                if busy:
                    add_window(layout, sums, tile, here, weights_at, taps1, taps2)
                cuda.syncthreads()
                slab1 = kernel1
            else:
                z, turn, c_base = int32(q0 * int32(layout.stride0)), int32(0), base
                at_fill, at_sum = int32(0), int32(0)
                slot, slots_end = int32(layout.slot), int32(int32(layout.slot) * int32(layout.slots))
                for stage in range(int32(planes + 1)):
                    if stage < planes:
                        fill_weights(layout, tile, at_fill, factors, int32(first + stage * area), taps1, taps2)
                        fill_tile(layout, tile, at_fill, x, c_base, load(maps, uint32(z)), maps, fill, upper,
                                  outer_left, taps1, taps2)
                        close_copies()
                        offset = load(bias, at_bias)
                        z = int32(z + int32(layout.dilation0))
                        turn = int32(turn + 1)
                        if turn == depth:
                            z, turn = int32(q0 * int32(layout.stride0)), int32(0)
                            c_base += layout.x_channel
                        at_fill = int32(at_fill + slot) if at_fill + slot < slots_end else int32(0)
                    if stage > 0:
                        wait_copies(stage < planes)
                        cuda.syncthreads()
                        if busy:
                            add_window(layout, sums, tile, int32(at_sum + here), int32(at_sum + weights_at), taps1,
                                       taps2)
                        at_sum = int32(at_sum + slot) if at_sum + slot < slots_end else int32(0)
                        cuda.syncthreads()
                slab2 = int32(slab2 + int32(layout.slab2))
                if slab2 >= kernel2:
                    slab2 = int32(0)
                    slab1 = int32(slab1 + int32(layout.slab1))
        to_plane = layout.out_start + n * layout.out_batch + k * layout.out_channel + q0 * layout.out_stride0
        put_sums(layout, sums, offset, tile, busy, row, column, out, to_plane, origin1, origin2)

    return direct_tile_kernel
