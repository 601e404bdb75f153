"""Every kernel with the types it is launched with: what `proof` compiles."""

from __future__ import annotations

from collections.abc import Iterator

from numba import from_dtype, int64, types

from ..geometry import product
from . import copies, elements, ends, gaps, im2col, learning, proof
from .device import SHARED_LIMIT
from .direct import each, rows, shapes, tiles
from .fft import blocks, boxes, passes, planes, points, whole
from .proof import Specimen

REAL = ("float32", "float64", "int32", "int64")
ALL = (*REAL, "complex64", "complex128")


def _array(name: str):
    return from_dtype_name(name)[::1]


def from_dtype_name(name: str):
    """Numba's type of a NumPy name."""
    import numpy as np

    return from_dtype(np.dtype(name))


def _layout(kind: type):
    return types.NamedUniTuple(int64, len(kind._fields), kind)


def specimens() -> Iterator[Specimen]:
    """All of them."""
    table = _array("int64")
    half = _array("float16")
    for name, kernel, pairs in (
            ("copy", copies.copy_kernel, ("float16 float32", "float32 float16", "float64 float16", "int32 float16")),
            ("truncate", copies.truncate_kernel, ("float64 uint8", "float16 int32")),
            ("unsigned", copies.unsigned_kernel, ("float32 uint64", "float64 uint64")),
            ("bool", copies.bool_kernel, ("int32 bool", "float16 bool")),
            ("conjugate", copies.conjugate_kernel, ("complex64 complex64",)),
            ("square", copies.square_kernel, ("float32 float16", "uint8 uint8", *(f"{d} {d}" for d in ALL))),
            ("root", copies.root_kernel, ("float32 float16", "float32 float32", "float64 float64", "int8 float16",
                                          "int64 float64")),
            ("complex_root", copies.complex_root_kernel, ("complex64 complex64", "complex128 complex128")),
            ("add", copies.add_kernel, [f"{d} {d}" for d in ("uint8", *ALL)])):
        for kinds in pairs:
            source, target = kinds.split()
            yield Specimen(f"{name}_kernel {kinds}", kernel,
                           (_array(source), int64, _array(target), int64, table, *(int64,) * 3))
    for dtype in ALL:
        number, array = from_dtype_name(dtype), _array(dtype)
        arrays = (array, table, array, array, array, number)
        yield Specimen(f"direct_pack_kernel {dtype}", each.direct_pack_kernel, (array, array, *(int64,) * 4))
        yield Specimen(f"direct_each_kernel {dtype}", each.direct_each_kernel(dtype, each.EACH_CHANNELS),
                       (_layout(each.EachLayout), table, *arrays), fma=4 * (dtype[0] in "fc"))
        for index in ("int32", "int64"):
            narrow = (array, _array(index), array, array, array, number)
            size = number.bitwidth // 8
            plane, smallest, line = shapes.PLANES[size][0], shapes.PLANES[size][-1], shapes.LINES[size][0]
            forms = [(*plane, 7, 7, True, True, True), (1, line, 1, 8, True, True, True)]
            if index == "int32":
                forms += [(*smallest, 7, 7, True, True, False), (*smallest, 1, 5, False, False, False),
                          (1, line, 1, 1, False, True, False)]
            for form in forms:
                yield Specimen(f"direct_tile_kernel {dtype} {index} {'.'.join(map(str, map(int, form)))}",
                               tiles.direct_tile_kernel(dtype, index, *form),
                               (_layout(tiles.TileLayout), *narrow), shared=SHARED_LIMIT,
                               threads=128 if size > 4 else 256)
            for R, Q in ((1, rows.MOST_COLUMNS if size == 4 else 1), (3, 1), (8, 1)):
                yield Specimen(f"direct_rows_kernel {dtype} {index} {R}x{Q}",
                               rows.direct_rows_kernel(dtype, index, rows.MOST_ROWS, R, Q),
                               (_layout(rows.RowsLayout), *narrow), fma=rows.MOST_ROWS * R * Q * (dtype[0] in "fc"))
    for dtype in ("float32", "float64"):
        yield Specimen(f"ends_mark_kernel {dtype}", ends.ends_mark_kernel, (_array(dtype), _array("int32"), int64))
    for dtype in ("float32", "float64", "complex64", "complex128"):
        array = _array(dtype)
        yield Specimen(f"ends_sum_kernel {dtype}", ends.ends_sum_kernel(dtype),
                       (table, _array("int32"), array, array, array, array))
    for dtype in REAL:
        array = _array(dtype)
        yield Specimen(f"im2col_pack_kernel {dtype}", im2col.im2col_pack_kernel, (array, array, *(int64,) * 7))
        yield Specimen(f"im2col_sum_quads_kernel {dtype}", im2col.im2col_sum_quads_kernel, (array, array, int64, int64),
                       wide_loads=2)
        for height, threads, resident in ((128, 256, 2), (64, 128, 3))[:1 if dtype == "int64" else 2]:
            for steady in (True, False):
                yield Specimen(f"im2col_tile_kernel {dtype} {height}{' steady' if steady else ''}",
                               im2col.im2col_tile_kernel(dtype, steady, height, 128, 8),
                               (_layout(im2col.PatchLayout), array, table, table, array, array, array, array),
                               threads=threads, blocks=resident if steady and dtype == "float32" else 1,
                               fma=64 * (dtype[0] == "f"), wide_loads=5)
    for dtype in ALL:
        yield Specimen(f"im2col_sum_kernel {dtype}", im2col.im2col_sum_kernel,
                       (_array(dtype), _array(dtype), int64, table, int64, int64))
    single = _array("float32")
    yield Specimen("ends_sum_kernel float16 in, float16 out", ends.ends_sum_kernel("float32"),
                   (table, _array("int32"), half, single, single, half))
    narrow = (half, _array("int32"), single, single, half, from_dtype_name("float32"))
    yield Specimen("direct_each_kernel float16 in, float16 out", each.direct_each_kernel("float32", each.EACH_CHANNELS),
                   (_layout(each.EachLayout), table, half, table, single, single, half, from_dtype_name("float32")),
                   fma=each.EACH_CHANNELS)
    yield Specimen("direct_tile_kernel float16 in, float16 out",
                   tiles.direct_tile_kernel("float32", "int32", *shapes.PLANES[4][0], 7, 7, True, False, True),
                   (_layout(tiles.TileLayout), *narrow), shared=SHARED_LIMIT, fma=49 * 49)
    yield Specimen("direct_rows_kernel float16 in, float16 out",
                   rows.direct_rows_kernel("float32", "int32", rows.MOST_ROWS, 3, 1),
                   (_layout(rows.RowsLayout), *narrow), fma=rows.MOST_ROWS * 3)
    yield Specimen("im2col_tile_kernel float16 in, float16 out",
                   im2col.im2col_tile_kernel("float32", True, 128, 128, 8),
                   (_layout(im2col.PatchLayout), half, table, table, single, single, single, half),
                   fma=64, wide_loads=5)
    bits, words, entries = _array("uint16"), _array("uint32"), _array("int32")
    layout = _layout(im2col.PatchLayout)
    yield Specimen("im2col_sum_quads_kernel float32, float16 out", im2col.im2col_sum_quads_kernel,
                   (single, half, int64, int64), wide_loads=2)
    for kind, stored in (("tf32", single), ("half", half)):
        yield Specimen(f"im2col_fragment_kernel {kind}", im2col.im2col_fragment_kernel(kind),
                       (single, stored, *(int64,) * 7))
    for group, cut in im2col.TENSOR_TILES.items():
        for (height, width), warps in cut.items():
            threads = 32 * warps.down * warps.across
            for steady in (True, False):
                label = f"{height}x{width}{' groups' if group else ''}{' steady' if steady else ''}"
                for kind, x, outs in (("tf32", words, (single,)), ("half", bits, (half, single))):
                    for out in outs:
                        split = ", split" if kind == "half" and out is single else ""
                        yield Specimen(
                            f"im2col_tensor_kernel {kind} {label}{split}",
                            im2col.im2col_tensor_kernel(kind, steady, group, *warps),
                            (layout, x, table, entries, words, single, x, out), threads=threads,
                            blocks=warps.resident if steady else 1, tensor=4 * warps.height // 16, wide_loads=4,
                            capabilities=proof.CAPABILITIES[1:] if group else proof.CAPABILITIES)
    yield from _of_blocks()
    yield from _of_planes()
    yield from _of_layers()
    for dtype in ("float32", "float64", "complex64", "complex128"):
        number, array = from_dtype_name(dtype), _array(dtype)
        real = "float32" if dtype in ("float32", "complex64") else "float64"
        size = from_dtype_name(real)
        yield Specimen(f"gaps_split_kernel {dtype}", gaps.gaps_split_kernel,
                       (array, _array("bool"), int64, _array(real)))
        yield Specimen(f"gaps_mean_kernel {dtype}", gaps.gaps_mean_kernel(dtype),
                       (table, table, array, array, array, _array(real), array, array, int64, int64, size, number, size,
                        number, array))


def _of_blocks() -> Iterator[Specimen]:
    """Those of transforms in blocks: every number of passes, both numbers of points a thread."""
    table, narrow, half = _array("int64"), _array("int32"), _array("float16")
    for dtype, lengths in (("float32", (1, 1, 4096)), ("float32", (1, 64, 64)), ("float32", (32, 16, 32)),
                           ("float32", (1, 128, 128)), ("float32", (1, 1, 16384)), ("float64", (1, 1, 4096)),
                           ("float64", (16, 16, 16))):
        array, itemsize = _array(dtype), from_dtype_name(dtype).bitwidth // 8
        # A few words spill where all registers of a multiprocessor are in use.
        shape = {"threads": points.threads_of(lengths, itemsize), "shared": boxes.bytes_of(lengths, itemsize),
                 "spills": 24}
        label = f"{dtype} {'x'.join(map(str, lengths))}"
        yield Specimen(f"fft_weight_kernel {label}", blocks.weight_kernel(dtype, lengths),
                       (table, array, array, array, narrow), **shape)
        for index in ("int32", "int64") if product(lengths) <= 4096 else ("int32",):
            first, read = (table, narrow, array), (array, _array(index), array)
            yield Specimen(f"fft_forward_kernel {label} {index}", blocks.forward_kernel(dtype, index, lengths),
                           (*first, *read, array, narrow), **shape, blocks=points.resident(lengths, itemsize, index))
            for strided in (False, True) if product(lengths) <= 4096 else (False,):
                form, note = (dtype, index, lengths, strided), f"{index}{' strided' if strided else ''}"
                number = {"blocks": points.resident(lengths, itemsize, index, strided)}
                for out in (array, half) if lengths == (1, 64, 64) else (array,):
                    to = ", float16 out" if out is half else ""
                    yield Specimen(f"fft_product_kernel {label} {note}{to}", blocks.product_kernel(*form),
                                   (*first, array, array, array, narrow, narrow, out), **shape, **number)
                    yield Specimen(f"fft_block_kernel {label} {note}{to}", blocks.block_kernel(*form),
                                   (*first, *read, array, array, narrow, out), **shape, **number)
    for dtype, out in (("float32", "float32"), ("float32", "float16"), ("float64", "float64")):
        array = _array(dtype)
        for index in ("int32", "int64"):
            yield Specimen(f"fft_sum_kernel {dtype} {index}, {out} out", blocks.sum_kernel(dtype, index),
                           (table, narrow, array, _array(index), array, array, narrow, narrow, array, _array(out),
                            int64))


def _of_planes() -> Iterator[Specimen]:
    """Those of transforms of whole axes: a length with butterflies of 16 points, and one of 12, 10 and 9."""
    table, narrow = _array("int64"), _array("int32")
    for dtype, length in (("float32", 1152), ("float32", 1080), ("float64", 1152)):
        array, item = _array(dtype), 4 if dtype == "float32" else 8
        tile = 32 // item
        threads = planes.threads_of(length, tile)
        shared = passes.line_of(length, tile, True, threads).size * 2 * item
        for signal in (False, True):
            label = f"{dtype} {length}{' signal' if signal else ''}"
            yield Specimen(f"whole_columns_kernel {label}",
                           whole.columns_kernel(dtype, length, signal, tile, threads),
                           (table, *(array,) * 4, narrow, array, array), threads=threads,
                           blocks=whole.resident(dtype, threads), shared=shared)
            for out in ("float16", "float32") if dtype == "float32" and length == 1152 else (dtype,):
                yield Specimen(f"whole_back_kernel {label}{', float16 out' if out == 'float16' else ''}",
                               whole.back_kernel(dtype, length, signal, tile, threads),
                               (table, *(array,) * 5, *(narrow,) * 3, _array(out)), threads=threads,
                           blocks=whole.resident(dtype, threads), shared=shared)
        threads = planes.threads_of(length, 1)
        shared = passes.line_of(length, 1, False, threads).size * 2 * item
        for multiplied in (True, False):
            yield Specimen(f"whole_rows_kernel {dtype} {length}{'' if multiplied else ' window'}",
                           whole.rows_kernel(dtype, length, 1, threads, multiplied),
                           (table, *(array,) * 4, narrow, array), threads=threads,
                           blocks=whole.resident(dtype, threads), shared=shared)


def _of_layers() -> Iterator[Specimen]:
    """Those of layers and optimisers."""
    table, whole, half, single, flags = (_array(name) for name in ("int64", "int32", "float16", "float32", "bool"))
    for dtype in ("float32", "float64", "complex128", "int64"):
        number, array = from_dtype_name(dtype), _array(dtype)
        for name in ("add", "subtract", "multiply", "maximum", "greater", "true_divide"):
            if (dtype[0] == "c" and name in ("maximum", "greater")) or (dtype[0] == "i" and name == "true_divide"):
                continue
            to = flags if name == "greater" else array
            yield Specimen(f"combine_kernel {name} {dtype}", elements.combine_kernel(name, dtype),
                           (array, int64, array, int64, to, table, int64))
            yield Specimen(f"number_kernel {name} {dtype}", elements.number_kernel(name, dtype, False),
                           (array, int64, to, table, int64, number))
        yield Specimen(f"sum_kernel {dtype}", elements.sum_kernel(dtype),
                       (array, int64, array, table, table, int64, int64))
    yield Specimen("combine_kernel multiply float32 bool", elements.combine_kernel("multiply", "float32"),
                   (single, int64, flags, int64, single, table, int64))
    yield Specimen("combine_kernel add float16", elements.combine_kernel("add", "float32"),
                   (half, int64, half, int64, half, table, int64))
    yield Specimen("number_kernel multiply float16, number first", elements.number_kernel("multiply", "float32", True),
                   (half, int64, half, table, int64, from_dtype_name("float32")))
    yield Specimen("sum_kernel float16", elements.sum_kernel("float32"),
                   (half, int64, half, table, table, *(int64,) * 2))
    layout = _layout(learning.PoolLayout)
    for kind, compute in (("float16", "float32"), ("float32", "float32"), ("float64", "float64"), ("uint8", "uint8")):
        array = _array(kind)
        yield Specimen(f"max_pool_kernel {kind}", learning.max_pool_kernel(compute),
                       (layout, array, from_dtype_name(compute), array, whole))
        if kind != "uint8":
            yield Specimen(f"max_pool_backward_kernel {kind}", learning.max_pool_backward_kernel(compute),
                           (layout, whole, array, array))
            yield Specimen(f"cross_entropy_kernel {kind}", learning.cross_entropy_kernel(compute),
                           (array, table, array, array, int64, int64))
            yield Specimen(f"cross_entropy_backward_kernel {kind}", learning.cross_entropy_backward_kernel(compute),
                           (array, table, array, int64, int64))
