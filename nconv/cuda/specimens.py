"""Every kernel with the types it is launched with: what `proof` compiles."""

from __future__ import annotations

from collections.abc import Iterator

from numba import from_dtype, int64, types

from . import copies, elements, ends, gaps, im2col, learning
from .device import SHARED_LIMIT
from .direct import each, rows, shapes, tiles
from .fft import blocks
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
            for R in (1, 3, 8):
                yield Specimen(f"direct_rows_kernel {dtype} {index} {R}",
                               rows.direct_rows_kernel(dtype, index, rows.MOST_ROWS, R),
                               (_layout(rows.RowsLayout), *narrow), fma=rows.MOST_ROWS * R * (dtype[0] in "fc"))
    for dtype in ("float32", "float64"):
        yield Specimen(f"ends_mark_kernel {dtype}", ends.ends_mark_kernel, (_array(dtype), _array("int32"), int64))
    for dtype in ("float32", "float64", "complex64", "complex128"):
        array = _array(dtype)
        yield Specimen(f"ends_sum_kernel {dtype}", ends.ends_sum_kernel(dtype),
                       (table, _array("int32"), array, array, array, array))
    for dtype in REAL:
        array = _array(dtype)
        yield Specimen(f"im2col_pack_kernel {dtype}", im2col.im2col_pack_kernel, (array, array, *(int64,) * 8))
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
                   rows.direct_rows_kernel("float32", "int32", rows.MOST_ROWS, 3),
                   (_layout(rows.RowsLayout), *narrow), fma=rows.MOST_ROWS * 3)
    yield Specimen("im2col_tile_kernel float16 in, float16 out",
                   im2col.im2col_tile_kernel("float32", True, 128, 128, 8),
                   (_layout(im2col.PatchLayout), half, table, table, single, single, single, half),
                   fma=64, wide_loads=5)
    yield Specimen("im2col_pack_kernel float16", im2col.im2col_pack_kernel, (single, half, *(int64,) * 8))
    bits, words = _array("uint16"), _array("uint32")
    for height, width in im2col.TENSOR_TILES:
        for steady in (True, False):
            label = " steady" if steady else ""
            warp = im2col.TENSOR_WARPS[steady]
            warps = height // warp[0], width // warp[1]
            threads = 32 * warps[0] * warps[1]
            yield Specimen(f"im2col_tensor_kernel tf32{label}",
                           im2col.im2col_tensor_kernel("tf32", steady, *warp, *warps),
                           (_layout(im2col.PatchLayout), single, table, table, single, single, single, single),
                           threads=threads, tensor=8, wide_loads=2)
            for name, out in (("", half), (", split", single)):
                yield Specimen(f"im2col_tensor_kernel half{label}{name}",
                               im2col.im2col_tensor_kernel("half", steady, *warp, *warps),
                               (_layout(im2col.PatchLayout), bits, table, table, words, single, bits, out),
                               threads=threads, tensor=8, wide_loads=2)
    for dtype, points in (("float32", 1024), ("float32", 4096), ("float64", 1024), ("float64", 2048)):
        array, whole = _array(dtype), _array("int32")
        kernels = blocks.fft_kernels(dtype, points, 256)
        layout = _layout(blocks.BlockLayout)
        read = (layout, array, array, table, array)
        write = (array, array, whole, array, array)
        for kernel, kinds in zip(kernels, ((layout, array, array, array, whole), (*read, array, whole),
                                           (*read, array, whole, *write), (*read, *write)), strict=True):
            yield Specimen(f"{kernel.py_func.__name__} {dtype} {points}", kernel, kinds)
    multiply, block = blocks.fft_kernels("float32", 4096, 256)[2:]
    read = (_layout(blocks.BlockLayout), single, single, table, single)
    write = (single, single, _array("int32"), single, half)
    yield Specimen("fft_product_kernel float16 out", multiply, (*read, single, _array("int32"), *write))
    yield Specimen("fft_block_kernel float16 out", block, (*read, *write))
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
