"""One test body over everything that is registered: a new algorithm is tested by being registered."""

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import reference
from cases import CASES, operands, problems
from hypothesis import HealthCheck, given, settings
from tolerance import bound

from nconv import engine, registry
from nconv.cpu import col2im, depthwise, direct, simd, small
from nconv.cpu.direct import filters
from nconv.machine import vector_bytes
from nconv.problem import ConvProblem

ALGORITHMS = {a.NAME: a for a in registry.algorithms("cpu")}
LONGEST_WINDOW = {"winograd": 5, "winograd_large": 7}
REFUSED_KINDS = {"fft": "i", "small": "c"}
DTYPES = ["float32", "float64", "complex64", "complex128", "int32", "int64"]
# Every variant in float32, the other types on those that differ in how numbers are handled.
SHORT = [name for name in CASES if name.split("-")[0] in ("signal", "layer", "image", "outer_image", "own_windows")]
# Two that differ in their size alone from others, int64 and complex64: without what compiles kernels anew.
SHORTER = [name for name in SHORT if name.split("-")[1] not in ("stride", "halved", "dilation", "spread")]


@lru_cache(maxsize=1024)               # more than there are cases
def solved(problem, seed=0):
    """(the oracle's result, the sums over magnitudes) for the case's operands; one answer serves every algorithm."""
    arrays = operands(problem, seed)
    return reference.convolution(problem, *arrays), reference.magnitude(problem, *arrays)


def check(algorithm, problem, x, weight, bias, seed=0):
    """Run into an output full of NaN (or a number that no sum gives), then compare with the oracle.

    The arrays hold the values of ``operands(problem, seed)``, in whatever memory.
    """
    out = np.full(problem.out_shape, np.nan if problem.engine.kind in "fc" else -12345, problem.engine)
    algorithm.run(problem, algorithm.prepare(problem, weight), x, bias, out)
    expected, magnitude = solved(problem.replace(threads=1), seed)
    if problem.engine.kind == "i":
        np.testing.assert_array_equal(out, expected)
        return out
    allowed = bound(algorithm.NAME, problem, magnitude)
    assert (np.abs(out - expected) <= allowed).all(), np.abs(out - expected).max()
    return out


def refused(name, problem):
    """What an algorithm refuses, pinned: one that refuses more fails."""
    if name == "separable":
        return not problem.separable or max(problem.stride) > 1 or problem.C > 1
    if name == "depthwise":
        own = problem.C == problem.K == 1 and problem.groups >= simd.lanes(problem.real)
        return problem.engine.kind == "c" or not own
    if name == "col2im":
        spread = set(problem.upsample) != {1} and set(problem.stride) == {1}
        return (not spread or problem.engine.kind == "c" or problem.channels_last or problem.fill != 0
                or set(problem.boundary) != {"constant"})
    if name == "fft_tiles":
        return problem.engine.kind == "i" or max(problem.stride) > 1 or max(problem.kernel) == 1
    if name in LONGEST_WINDOW:
        spread = any(d > 1 < k for d, k in zip(problem.dilation, problem.kernel, strict=True))
        return (problem.engine.kind == "i" or spread or max(problem.stride) > 1
                or not 1 < max(problem.kernel) <= LONGEST_WINDOW[name])
    return problem.engine.kind in REFUSED_KINDS.get(name, "")


def supported(algorithm, problem):
    reason = algorithm.why_not(problem)
    assert bool(reason) == refused(algorithm.NAME, problem), reason
    return not reason


# The oracle takes as long as the kernels' compilation: all algorithms are tried on one case after the other.
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("case", CASES)
def test_float32(name, case):
    problem = CASES[case]
    if supported(ALGORITHMS[name], problem):
        check(ALGORITHMS[name], problem, *operands(problem))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_other_types(name, dtype):
    for case in SHORTER if dtype in ("int32", "complex128") else SHORT:
        problem = CASES[case].replace(dtype=np.dtype(dtype))
        if supported(ALGORITHMS[name], problem):
            check(ALGORITHMS[name], problem, *operands(problem))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size, K, groups", [((7, 7), 70, 1), ((5, 9), 33, 2)])
def test_sums_of_several_chunks_on_small_maps(size, K, groups, threads, dtype):
    problem = ConvProblem(N=1, groups=groups, C=61, K=K, size=size, kernel=(3, 3), stride=(1, 1), dilation=(1, 1),
                          padding=((1, 1), (1, 1)), dtype=np.dtype(dtype), threads=threads, has_bias=True)
    for asked in (problem, problem.replace(reused=True)):     # packed where it is used, and before
        check(ALGORITHMS["im2col"], asked, *operands(problem))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_windows_of_more_taps_than_one_chunk(name):
    for size in ((31, 33), (32, 30)):                    # an odd and an even number of output rows
        for case in ("image-plain", "outer_image-plain"):
            problem = CASES[case].replace(size=size, kernel=(24, 23))
            if supported(ALGORITHMS[name], problem):
                check(ALGORITHMS[name], problem, *operands(problem))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", [name for name in CASES if not depthwise.why_not(CASES[name])])
def test_tiles_of_channels_with_own_windows(case, threads, monkeypatch):
    """Several tiles a map, the last of which are smaller."""
    monkeypatch.setattr(depthwise, "_TILE_BYTES", 94 * vector_bytes())     # positions of a vector of channels
    problem = CASES[case]
    problem = problem.replace(size=tuple(n + 11 for n in problem.size), threads=threads, has_bias=True)
    caches = depthwise._choose, depthwise._channels, depthwise.bind
    try:
        for cache in caches:
            cache.cache_clear()
        choice = depthwise._choose(depthwise.plane(problem))
        assert choice.items >= 2 * choice.blocks * problem.N
        check(depthwise, problem, *operands(problem))
    finally:
        for cache in caches:
            cache.cache_clear()


_PIECES = [((1, 4), 1, 1), ((2, 3), 1, 2), ((5, 1), 2, 1), ((6, 3), 1, 1), ((7, 5), 2, 1), ((8, 2), 3, 2),
           ((11, 3), 2, 3)]


@pytest.mark.parametrize("boundary", ["constant", "reflect"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("kernel, stride, dilation", _PIECES)
@pytest.mark.parametrize("name", ["direct", "depthwise"])
def test_windows_in_pieces(name, kernel, stride, dilation, dtype, boundary):
    """Every height of a piece; lines that end around a vector's end, and lie beside the input for several vectors."""
    groups = 1 if name == "direct" else 17
    for width, padding in ((15, 1), (33, 3), (48, 5), (61, 29), (5, 4)):
        size = (kernel[0] * dilation + 3, width)
        problem = ConvProblem(N=2, C=1, K=1, groups=groups, size=size, kernel=kernel, stride=(stride,) * 2,
                              dilation=(dilation,) * 2, padding=((2, 1), (padding, min(padding + 2, width - 1))),
                              dtype=np.dtype(dtype), boundary=("reflect", boundary), has_bias=True,
                              fill=3.0 if boundary == "constant" else 0.0)
        x, weight, bias = operands(problem)
        for layout in (x, np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)):
            check(ALGORITHMS[name], problem, layout, weight, bias)


@pytest.mark.parametrize("unit", [16, 64])
@pytest.mark.parametrize("kernel, stride, dilation", [((3, 3), 1, 1), ((3, 3), 2, 1), ((4, 5), 1, 2), ((4, 5), 2, 2),
                                                      ((3, 2, 3), 2, 1)])
def test_maps_of_every_width(kernel, stride, dilation, unit, monkeypatch):
    """Windows that are known when a kernel is compiled; vectors of half a register where units are no wider."""
    rank = len(kernel)
    monkeypatch.setattr(filters, "arithmetic_bytes", lambda: 2 * unit)
    caches = filters._choose, filters._lay_out, filters.bind, direct.bind
    try:
        for cache in caches:
            cache.cache_clear()
        lanes = set()
        for width in (1, 2, 5, 7, 8, 15, 16, 17, 24, 33, 53):
            problem = ConvProblem(N=2, C=1, K=1, groups=3, size=(6,) * (rank - 1) + (width,), kernel=kernel,
                                  stride=(stride,) * rank, dilation=(dilation,) * rank, padding=((4, 5),) * rank,
                                  dtype=np.dtype("float32"), has_bias=True)
            lanes.add(filters._choose(problem).lanes)
            check(direct, problem, *operands(problem))
        assert len(lanes) == (2 if unit < vector_bytes() else 1)
    finally:
        for cache in caches:
            cache.cache_clear()


# Window, zeros between elements, dilation and padding of each axis: one tap a residue, several, none; unequal numbers.
_SPREAD = [((2,), (2,), (1,), (0,)), ((16,), (8,), (1,), (4,)), ((5,), (6,), (1,), (3,)), ((3,), (10,), (2,), (1,)),
           ((4, 4), (2, 2), (1, 1), (2, 2)), ((3, 5), (2, 3), (1, 2), (1, 4)), ((7, 2), (1, 5), (1, 1), (6, 1)),
           ((3, 1, 3), (2, 2, 1), (1, 1, 2), (2, 0, 2)), ((2, 3, 4), (3, 2, 4), (2, 1, 3), (1, 2, 5))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("spread", _SPREAD)
def test_product_sums_of_several_tiles(spread, dtype, threads, monkeypatch):
    """Tiles and chunks of channels that are cut on every axis; weights packed before and where they are used."""
    kernel, upsample, dilation, padding = spread
    rank = len(kernel)
    size = ((83,), (9, 14), (4, 5, 6))[rank - 1]
    problem = ConvProblem(N=3, groups=2, C=11, K=7, size=size, kernel=kernel, stride=(1,) * rank, dilation=dilation,
                          upsample=upsample, padding=tuple((n, n + 1) for n in padding), dtype=np.dtype(dtype),
                          threads=threads, has_bias=True)
    whole = col2im._choose(problem)
    assert whole.tile == (3, *problem.out)
    for asked in (problem, problem.replace(groups=1)):
        assert col2im._choose(asked).packs == (asked.groups == 1)
        check(col2im, asked, *operands(asked))
    caches = col2im._choose, col2im.bind
    for name, most in (("_SUMS_BYTES", 3000), ("_POSITIONS", 8), ("_BUFFER_BYTES", 200), ("_CHUNK", 4)):
        monkeypatch.setattr(col2im, name, most)
    try:
        for cache in caches:
            cache.cache_clear()
        choice = col2im._choose(problem)
        assert choice.chunk < problem.C and not choice.packs and choice.items > whole.items
        check(col2im, problem, *operands(problem))
    finally:
        for cache in caches:
            cache.cache_clear()


_NARROW = """
import sys
import nconv.machine
sys.path.insert(0, {tests!r})
nconv.machine.vector_bytes, nconv.machine.vector_registers = lambda: {size}, lambda: 16
from test_algorithms import ALGORITHMS, CASES, check, operands
for case in {cases!r}:
    check(ALGORITHMS[{name!r}], CASES[case], *operands(CASES[case]))
"""


@pytest.mark.parametrize("size", [size for size in (16, 32) if size < vector_bytes()])
@pytest.mark.parametrize("name", ["direct", "depthwise", "col2im"])
def test_machines_with_narrower_vectors(name, size, tmp_path):
    cases = [f"own_windows{shape}-{variant}" for shape in ("", "_short", "_line", "_volume")
             for variant in ("plain", "stride", "batch", "wrap")]
    if name == "col2im":
        cases = [case for case in CASES if case.endswith("upsampled")]
    program = _NARROW.format(tests=str(Path(__file__).parent), size=size, cases=cases, name=name)
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("name", ["direct", "small"])
def test_lines_of_taps(name, dtype):
    """Around every number of taps that are summed together, and of positions that fill a tile."""
    shapes = [(1, (taps + more,), (taps,)) for taps in (8, 9, 16, 17, 31, 33, 64, 97)
              for more in (0, 79, 161)]
    shapes += [(3, (4, 50), (2, 33)), (2, (3, 50), (3, 16)), (2, (3, 4, 40), (2, 2, 34))]
    for channels, size, kernel in shapes:
        rank = len(size)
        problem = ConvProblem(N=1, C=channels, K=1, groups=2, size=size, kernel=kernel, stride=(1,) * rank,
                              dilation=(1,) * rank, padding=((3, 5),) * rank, dtype=np.dtype(dtype), has_bias=True)
        check(ALGORITHMS[name], problem, *operands(problem))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mirrored_lines_of_taps(dtype):
    """Summed in pairs or four at a time, as the weight says: tiles of both must fit the sums."""
    rng = np.random.default_rng(0)
    for taps in (15, 17, 33, 65):
        for size in (taps, taps + 37, taps + 80, 997):
            problem = CASES["signal-plain"].replace(size=(size,), kernel=(taps,), padding=((3, 4),),
                                                    dtype=np.dtype(dtype), has_bias=False)
            length = small._length(problem)
            lanes = simd.lanes(problem.engine)
            assert length % (small._WIDE * lanes) == length % (small._shape(problem)[1] * lanes) == 0
            half = rng.standard_normal(taps // 2)
            x = rng.standard_normal(size).astype(dtype)
            for weight in (np.r_[half, 1, half[::-1]], np.r_[half, 0, -half[::-1]], rng.standard_normal(taps)):
                weight = weight.astype(dtype)
                out = engine.run_algorithm(small, problem, x[None, None], weight[None, None])
                expected = np.correlate(np.pad(x.astype(float), (3, 4)), weight.astype(float), "valid")
                np.testing.assert_allclose(out[0, 0], expected, rtol=0, atol=1e2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_threads_change_nothing(name):
    for case in ("long_signal-plain", "layer-stride", "image-grouped", "outer_volume-plain", "layer-upsampled"):
        problem = CASES[case]
        if not supported(ALGORITHMS[name], problem):
            continue
        x, weight, bias = operands(problem)
        results = [check(ALGORITHMS[name], problem.replace(threads=n), x, weight, bias) for n in (1, 2, 3)]
        for other in results[1:]:
            np.testing.assert_allclose(other, results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_odd_memory(name):
    problem = CASES[{"separable": "outer_image-grouped", "depthwise": "own_windows-asymmetric",
                     "col2im": "layer-upsampled"}.get(name, "layer-asymmetric")]
    x, weight, bias = operands(problem)
    for view in (np.asfortranarray(x), x[..., ::-1].copy()[..., ::-1], np.repeat(x, 2, axis=-1)[..., ::2],
                 np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)):
        check(ALGORITHMS[name], problem, view, weight, bias)
    x.flags.writeable = weight.flags.writeable = False
    check(ALGORITHMS[name], problem, x, weight, bias)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_infinite_values_stay_where_they_are(name, value):
    for case in ("long_signal-plain", "image-symmetric", "layer-stride", "layer-dilation", "layer-tail",
                 "layer-upsampled", "outer_image-symmetric", "own_windows-stride", "own_windows-symmetric"):
        problem = CASES[case]
        if not supported(ALGORITHMS[name], problem):
            continue
        x, weight, bias = operands(problem)
        x = np.array(x)
        x[(0, 0, *(n // 2 for n in problem.size))] = value
        with np.errstate(invalid="ignore"):
            expected = reference.convolution(problem, x, weight, bias)
        out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight, bias)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
        np.testing.assert_array_equal(np.isposinf(out), np.isposinf(expected))
        finite = np.isfinite(expected)
        assert 0 < finite.sum() < finite.size
        np.testing.assert_allclose(out[finite], expected[finite], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_large_samples_do_not_drown_small_outputs(name):
    own = {"separable": "outer_image-plain", "depthwise": "own_windows_line-plain", "col2im": "long_signal-upsampled"}
    case = "signal-plain" if name in LONGEST_WINDOW else own.get(name, "long_signal-plain")
    problem = CASES[case].replace(dtype=np.dtype("f8"))
    x, weight, bias = operands(problem)
    x[..., x.shape[-1] // 2:x.shape[-1] // 2 + 3] = 1e13
    out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight, bias * 0)
    expected = reference.convolution(problem, x, weight)
    np.testing.assert_allclose(out, expected, rtol=1e-9)


def test_problems_that_do_not_fit_registers_or_tiles():
    """Sizes around every tile edge, where a wrong tail would show."""
    for size in (*range(1, 40), 127, 128, 129, 383, 384, 385, 1025):
        problem = CASES["signal-plain"].replace(size=(size,), padding=((2, 2),))
        x, weight, bias = operands(problem)
        padded = np.pad(x[0, 0], 2)
        expected = np.correlate(padded.astype(float), weight[0, 0].astype(float), "valid") + bias
        for algorithm in (a for a in ALGORITHMS.values() if supported(a, problem)):
            out = engine.run_algorithm(algorithm, problem, x, weight, bias)
            np.testing.assert_allclose(out[0, 0], expected, rtol=1e-4, atol=1e-5)


def fuzz(problem):
    for algorithm in ALGORITHMS.values():
        if not algorithm.why_not(problem):
            check(algorithm, problem, *operands(problem, seed=1), seed=1)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(problems(largest=30, work=20_000))
def test_drawn_problems(problem):
    fuzz(problem)


@pytest.mark.slow
@pytest.mark.timeout(7200)                              # the oracle takes seconds for some of them
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(problems())
def test_many_drawn_problems(problem):
    fuzz(problem)
