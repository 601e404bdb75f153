"""The implicit matrix product on the tensor cores.

A word of 32 bits is a float32 that the product reads in TF32, or two neighbouring taps in float16, whose products are
exact and summed in float32. A step is 32 words of each position, 128 bytes: the row of shared memory of which the
tensor cores of a Hopper GPU read, swizzled. Weights never pass through shared memory: they are packed in the order in
which the lanes of a warp hold them.
"""

from __future__ import annotations

from functools import cache

import numba
from numba import int32

from ..device import SIMULATED, block_function, cuda, kernel
from ..mma import EIGHTS, WORDS, Product, nearest_tf32, product_of, round_tf32, share, swizzled
from ..ptx import load, load_where, pair, store, vload4, vstore
from .tiles import BEYOND, look, place, spot

CHUNK = 4                      # words that are stored at once: neighbouring channels of one place of the window


@block_function
def _first(value, unused):
    return value


def together(kind: str) -> int:
    """Taps of a word."""
    return 2 if kind == "half" else 1


@cache
def im2col_fragment_kernel(kind: str):
    """The kernel that packs a weight for the tensor cores."""
    TOGETHER, ROUNDED = together(kind), kind == "tf32"

    @kernel
    def im2col_fragment_kernel(weight, packed, out_channels, channels, window, row_blocks, eights, rows, width):
        """packed [groups, row blocks, eights, rows / 16, lanes, 4 words] = weight [groups K, C, window].

        The taps come in the order [channels / width, window, width], beyond rows and channels stands 0. A lane's words
        are those of 16 rows and eight words that it holds for the tensor cores. Parallel over the elements.
        Race-free because each is written by one thread.
        """
        for i in range(cuda.grid(1), packed.size, cuda.gridsize(1)):
            word = i // TOGETHER
            slot, lane = word % 4, word // 4 % 32
            tile, eight, block = word // 128 % (rows // 16), word // (8 * rows) % eights, word // (8 * rows) // eights
            row = block % row_blocks * rows + 16 * tile + lane // 4 + slot % 2 * 8
            tap = (8 * eight + lane % 4 + slot // 2 * 4) * TOGETHER + i % TOGETHER
            c, at = tap // width // window * width + tap % width, tap // width % window
            packed[i] = 0
            if row < out_channels and c < channels:
                k = block // row_blocks * out_channels + row
                value = weight[(k * channels + c) * window + at]
                packed[i] = round_tf32(value) if ROUNDED else value

    return im2col_fragment_kernel


@cache
def im2col_tensor_kernel(kind: str, steady: bool, group: bool, WM: int, WN: int, warps_m: int, warps_n: int,
                         resident: int):
    """The kernel on the tensor cores for 'tf32' or 'half': a warp's tile is WM x WN, a block has warps_m x warps_n.

    `steady`: the taps of a step lie at one place of the window, in neighbouring channels. `group`: four warps multiply
    together, as compute capability 9.0 has it. `resident`: blocks that a multiprocessor's registers suffice for.
    """
    TOGETHER = together(kind)
    joined = _first if kind == "tf32" else pair
    ROUNDED = kind == "tf32"
    BM, BN = WM * warps_m, WN * warps_n
    threads = 32 * warps_m * warps_n
    if threads % BN or BN & (BN - 1):
        raise ValueError(f"a step's columns are gathered by whole rows of threads: {threads} threads, {BN} columns")
    FM, FN = WM // 16, WN // 8                         # fragments of a warp
    CHUNKS = WORDS // CHUNK * BN // threads            # of a thread
    LOADS = CHUNK * CHUNKS
    TILES = BM // 16                                   # of 16 rows
    STEP = WORDS * BM                                  # words of a step's weight
    SHARED, MAPS = 2 * WORDS * BN, 3 * BN
    product = Product(kind, group, FM, FN, warps_m, TILES)
    begin, release, finish = product_of(product)
    HALF = EIGHTS * TILES * 128                        # words of the weight from one half of a step to the next
    HELD = product.held

    @block_function
    def fetch_rows(weight, at, rows):
        """The lane's words of a step's weight."""
        for q in range(HELD // (4 * FM)):
            for i in range(FM):
                four = vload4(weight, at + (q * TILES + i * warps_m) * 128)
                for l in range(4):
                    rows[(q * FM + i) * 4 + l] = four[l]

    @block_function
    def pick(layout, x, at, inside, fill, l, count):
        """The l-th of the `count` channels of a chunk; beyond them 0, for there an infinite input must add nothing."""
        return load_where(x, at + l * layout.x_channel, inside and l < count, fill, int32(l >= count))

    @block_function
    def fetch_steady(layout, x, start, channel, seen, values):
        """Send for this thread's words of a step; false: the fill value stands for all of them."""
        at = seen[0] + seen[1] + seen[2]
        inside = at > BEYOND
        at = at if inside else 0                       # outside, the first element of the channel is read
        at += start + channel * layout.x_channel
        for l in range(LOADS):
            values[l] = joined(load(x, at), load(x, at + (TOGETHER - 1) * layout.x_channel))
            at += TOGETHER * layout.x_channel
        return inside

    @block_function
    def fetch(layout, x, maps, taps, fill, entry, start, map_at, column, values):
        """The same for chunks that lie anywhere in the window."""
        for c in range(CHUNKS):
            counted, at = spot(maps, taps, entry + c, map_at, column, BN)
            inside = at > BEYOND
            at += start + (counted >> 4) * layout.x_channel
            count = int32(counted & 15)
            for l in range(CHUNK):
                first = l * TOGETHER
                values[CHUNK * c + l] = joined(pick(layout, x, at, inside, fill, first, count),
                                               pick(layout, x, at, inside, fill, first + TOGETHER - 1, count))

    @block_function
    def keep(columns_shared, at, values, inside, outside):
        """Store this thread's words of a step, each chunk at the place where the tensor cores look for it."""
        for l in range(LOADS):
            value = values[l] if inside else outside
            values[l] = nearest_tf32(value) if ROUNDED else value
        for c in range(CHUNKS):                        # swizzled: `at` is the first chunk's place
            vstore(columns_shared, at ^ (c * CHUNK), (values[CHUNK * c], values[CHUNK * c + 1], values[CHUNK * c + 2],
                                                      values[CHUNK * c + 3]))
        if group:
            share()

    @block_function
    def deliver(layout, out, sums, j, row, left, row_place, row_bias, column_place):
        """Write the lane's sums of four of the warp's eights of columns, from the j-th on; no place is below 0."""
        for k in range(j, min(j + 4, FN)):
            to = load(column_place, left + 8 * k)
            for i in range(2 * FM):
                at = row + 16 * warps_m * (i // 2) + 8 * (i % 2)
                to_row, add = load(row_place, at), load(row_bias, at)
                value, other = sums[i // 2, k, 2 * (i % 2)] + add, sums[i // 2, k, 2 * (i % 2) + 1] + add
                if layout.quads:
                    if (to | to_row) >= 0:
                        vstore(out, to + to_row, (value, other))
                else:
                    if (to | to_row) >= 0:
                        store(out, to + to_row, value)
                    to_next = load(column_place, left + 8 * k + 1)
                    if (to_next | to_row) >= 0:
                        store(out, to_next + to_row, other)

    # Float16 in chunks that lie anywhere needs more registers.
    @kernel(bounds=(threads, resident if steady or kind == "tf32" else max(1, resident - 1)))
    def im2col_tensor_kernel(layout, x, maps, taps, weight, bias, fill, out):
        """[rows x taps] [taps x columns] with float32 sums, one tile a block.

        Shapes: x and out as for `im2col_tile_kernel`; taps [steps or chunks and some more, 4]; weight as packed by
        `im2col_fragment_kernel`; the float16 of x and fill come as the 16 bits that they are. Step s multiplies while
        the words of s + 1 are stored and those of s + 2 are on their way. Parallel over (groups, row blocks, column
        blocks), a warp takes a part of the tile. Race-free as `im2col_tile_kernel`.
        """
        if SIMULATED:
            columns_shared = cuda.shared.array(SHARED, numba.uint32)
        else:
            columns_shared = cuda.shared.array(SHARED, numba.uint32, 1024)
        row_place = cuda.shared.array(BM, numba.int64)
        row_bias = cuda.shared.array(BM, numba.float32)
        column_place = cuda.shared.array(BN, numba.int64)
        column_base = cuda.shared.array(BN, numba.int64)
        map_at = cuda.shared.array(MAPS, numba.int32)
        sums = cuda.local.array((FM, FN, 4), numba.float32)
        columns = cuda.local.array(LOADS, numba.uint32)
        rows = cuda.local.array(HELD, numba.uint32)
        more_rows = cuda.local.array(HELD, numba.uint32)
        thread = int32(cuda.threadIdx.x)
        lane, warp = int32(thread & 31), int32(thread >> 5)
        column, chunk = int32(thread & (BN - 1)), int32(thread // BN * CHUNKS)
        row_block = int32(cuda.blockIdx.x % layout.row_blocks)
        rest = cuda.blockIdx.x // layout.row_blocks
        column_block = int32(rest % layout.column_blocks)
        g = int32(rest // layout.column_blocks % layout.groups)
        split = int32(rest // layout.column_blocks // layout.groups)
        first = int32(split * layout.split_steps)
        last = int32(min(layout.split_steps, layout.steps - first) - 1)

        entry = vload4(taps, 4 * first)
        next_entry = vload4(taps, 4 * (first + 1))
        panel = ((g * layout.row_blocks + row_block) * layout.steps + first) * STEP + warp % warps_m * 128 + lane * 4
        fetch_rows(weight, panel, rows)
        fetch_rows(weight, panel + HALF, more_rows)
        place(layout, row_place, row_bias, column_place, column_base, map_at, bias, g, split, row_block * BM,
              column_block * BN, thread, threads)
        for i in range(FM):
            for j in range(FN):
                for l in range(4):
                    sums[i, j, l] = 0
        cuda.syncthreads()
        start = load(column_base, column)
        store_at = int32(column * WORDS + swizzled(chunk, column) * CHUNK)
        read_at = int32(warp // warps_m * (WN * WORDS))
        outside = joined(fill[0], fill[0])
        following, inside = first, True                # the entry of the taps that is looked up next
        if not steady:
            following = int32(first * (WORDS // CHUNK) + chunk)
        seen = look(maps, entry, map_at, column, BN)
        next_seen = look(maps, next_entry, map_at, column, BN)
        channel = next_entry[0]
        if steady:
            start += chunk * CHUNK * TOGETHER * layout.x_channel
            inside = fetch_steady(layout, x, start, entry[0], seen, columns)
        else:
            fetch(layout, x, maps, taps, fill, following, start, map_at, column, columns)
        keep(columns_shared, store_at, columns, inside, outside)
        if steady:
            inside = fetch_steady(layout, x, start, channel, next_seen, columns)
            entry = vload4(taps, 4 * (first + 2))
            next_entry = vload4(taps, 4 * (first + 3))
            following = int32(first + 4)
            channel = entry[0]
            seen = look(maps, entry, map_at, column, BN)
        else:
            fetch(layout, x, maps, taps, fill, following + WORDS // CHUNK, start, map_at, column, columns)
            following += int32(2 * WORDS // CHUNK)
        cuda.syncthreads()
        # Nobody waits for what it has just sent for: of a step's words the place of the window is loaded four steps
        # before they are multiplied, what the maps hold there three, and the words two. Half of the next step's weights
        # replace those of the first half as soon as it has been multiplied.
        for step in range(last + 1):
            odd = int32(step & 1)
            at = read_at + odd * int32(BN * WORDS)
            begin(0, rows, weight, panel, columns_shared, at, lane, sums)
            begin(1, more_rows, weight, panel + HALF, columns_shared, at, lane, sums)
            if step < last:
                panel += STEP
                keep(columns_shared, store_at + (1 - odd) * (BN * WORDS), columns, inside, outside)
                if step < last - 1:
                    if steady:
                        inside = fetch_steady(layout, x, start, channel, seen, columns)
                        channel = next_entry[0]
                        seen = look(maps, next_entry, map_at, column, BN)
                        next_entry = vload4(taps, 4 * following)
                        following += int32(1)
                    else:
                        fetch(layout, x, maps, taps, fill, following, start, map_at, column, columns)
                        following += int32(WORDS // CHUNK)
            release(rows)
            fetch_rows(weight, panel, rows)
            finish(more_rows, sums)
            fetch_rows(weight, panel + HALF, more_rows)
            cuda.syncthreads()

        row = warp % warps_m * 16 + lane // 4
        left = warp // warps_m * WN + lane % 4 * 2
        # One by one, for LLVM unrolls no loop of this size.
        deliver(layout, out, sums, 0, row, left, row_place, row_bias, column_place)
        if FN > 4:
            deliver(layout, out, sums, 4, row, left, row_place, row_bias, column_place)
        if FN > 8:
            deliver(layout, out, sums, 8, row, left, row_place, row_bias, column_place)
            deliver(layout, out, sums, 12, row, left, row_place, row_bias, column_place)

    return im2col_tensor_kernel
