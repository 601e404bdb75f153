"""Every kernel of the GPU's wing against the oracle, in the simulator."""

import numpy as np
import pytest
import reference
from cases import CASES, operands
from scipy import signal
from tolerance import bound

import nconv
from nconv import choice, engine, registry
from nconv.cuda import direct, division, fft
from nconv.cuda.direct import axes, rows, shapes
from nconv.machine import Gpu, machine
from nconv.problem import ConvProblem

ALGORITHMS = {a.NAME: a for a in registry.algorithms("cuda")}
NAMES = ["signal", "image", "layer"]
# Every variant of three bases; of the others, where a thread is one of Python's, those that differ in kind.
SHORT = [case for case in CASES if case.split("-")[0] in NAMES] + [
    "long_signal-plain", "wide_window-plain", "volume-plain", "volume-reflect", "four_axes-plain", "four_axes-stride",
    "many_channels-plain", "pointwise-batch", "one_element-plain", "thin-asymmetric"]
DTYPES = ["float16", "float64", "complex64", "complex128", "int8", "int32", "int64", "bool"]
REFUSED = {"im2col": lambda p: p.rank > 3, "fft": lambda p: p.rank > 3 or p.engine.kind == "i"}    # and nothing else


def check(name, problem, views=lambda x: x):
    """Run on memory full of NaN (`poisoned`), then compare with the oracle."""
    algorithm = ALGORITHMS[name]
    reason = algorithm.why_not(problem)
    assert bool(reason) == bool(name in REFUSED and REFUSED[name](problem)), reason
    if reason:
        return
    x, weight, bias = operands(problem)
    if problem.dtype.char == "e":
        x, weight, bias = (a.astype("f2") for a in (x, weight, bias))
    x = views(x)
    out = engine.run_algorithm(algorithm, problem, x, weight, bias)
    values = x.astype(problem.engine)                   # in which the fill value is as it is
    expected, magnitude = (f(problem, values, weight, bias) for f in (reference.convolution, reference.magnitude))
    if problem.engine.kind == "i":
        whole = expected != 0 if problem.dtype.kind == "b" else expected.astype(problem.dtype)
        np.testing.assert_array_equal(out, whole)
        return
    allowed = bound(name, problem, magnitude)
    if problem.dtype.char == "e":                       # stored with eleven bits
        allowed = allowed + 2.0 ** -11 * np.abs(expected)
    assert out.dtype == problem.dtype
    assert (np.abs(out - expected) <= allowed).all(), np.abs(out - expected).max()


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """New memory holds NaN, or a number that no sum gives, so that an element nobody wrote shows."""
    plain = np.empty

    def empty(shape, dtype=float, **options):
        array = plain(shape, dtype, **options)
        array[...] = np.nan if array.dtype.kind in "fc" else 0 if array.dtype.kind == "b" else 77
        return array

    monkeypatch.setattr(np, "empty", empty)


@pytest.mark.parametrize("case", SHORT)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_float32(name, case):
    check(name, CASES[case].replace(device="cuda"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_other_types(name, dtype):
    for case in ("signal-filled", "image-grouped", "layer-asymmetric"):
        check(name, CASES[case].replace(dtype=np.dtype(dtype), device="cuda"))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_odd_memory(name):
    problem = CASES["layer-asymmetric"].replace(device="cuda")
    for view in (np.asfortranarray, lambda x: x[..., ::-1].copy()[..., ::-1],
                 lambda x: np.repeat(x, 2, axis=-1)[..., ::2]):
        check(name, problem, view)


@pytest.mark.parametrize("setting", [[(direct, "_ROWS_WINDOW", 0), (direct, "_ROWS_PLANE", 0)],
                                     [(direct, "_ROWS_WINDOW", 1 << 30)], [(axes, "NARROW", 0)]],
                         ids=["tiles", "rows", "64 bits"])
@pytest.mark.parametrize("case", [f"{base}-{kind}" for base in ("image", "volume", "wide_window", "long_signal")
                                  for kind in ("plain", "depthwise", "filled", "batch")] + ["image-stride"])
def test_direct_kernels_agree(case, setting, monkeypatch):
    """Each serves every window, whichever is thought the faster one; addresses beyond 32 bits have their own."""
    for name in setting:
        monkeypatch.setattr(*name)
    caches = (direct._way, rows.rows_layout, shapes.tile_layout)
    for cached in caches:
        cached.cache_clear()
    # A fill value of its own: no map of another test is found on the device.
    check("direct", CASES[case].replace(device="cuda", fill=CASES[case].fill + 0.25))
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("case, dtype", [
    *(("signal-filled", dtype) for dtype in ("float16", "float32", "float64", "complex64", "complex128")),
    ("image-depthwise", "float64"), ("outer_image-stride", "complex64")])
def test_whole_axes_in_every_type(case, dtype, whole_axes):
    problem = CASES[case].replace(dtype=np.dtype(dtype), device="cuda")
    assert fft._plane(problem)
    check("fft", problem)


@pytest.mark.parametrize("case", [
    "long_signal-plain", "wide_window-plain", "one_element-plain",
    *(f"signal-{kind}" for kind in ("plain", "stride", "dilation", "grouped", "upsampled", "wrap")),
    *(f"image-{kind}" for kind in ("stride", "dilation", "asymmetric", "grouped", "upsampled", "filled", "reflect"))])
def test_whole_axes(case, whole_axes):
    problem = CASES[case].replace(device="cuda")
    assert fft._plane(problem)
    check("fft", problem)


@pytest.mark.parametrize("case, dtype", [("pointwise-plain", "float32"), ("pointwise-plain", "int32"),
                                         ("layer-plain", "float64")])
def test_several_steps_at_one_place_of_the_window(case, dtype):
    """As layers of many channels have them: from one to the next only the channel changes."""
    check("im2col", CASES[case].replace(C=24, dtype=np.dtype(dtype), device="cuda"))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 56, 4095, 4096, 4097, (1 << 30) + 1, (1 << 31) - 1])
def test_division_by_multiplication_is_exact(n):
    factor, shift = division.divisor(n)
    assert factor < 1 << 32
    last = (1 << 31) - 1
    for a in {0, 1, n - 1, min(n, last), last, last // n * n, max(last // n * n - 1, 0)}:
        assert (a * factor) >> shift == a // n


def test_the_choice_on_a_gpu_is_near_the_best(real_blocks):
    """Problems on which one algorithm was measured to be the fastest by far."""
    best = {"direct": [dict(groups=384, size=(56, 56), kernel=(7, 7), N=16),
                       dict(groups=64, size=(32, 32, 32), kernel=(3, 3, 3), N=2),
                       dict(size=(2048, 2048), kernel=(3, 3))],
            "fft": [dict(size=(1 << 20,), kernel=(8192,)), dict(size=(2048, 2048), kernel=(51, 51)),
                    dict(groups=384, size=(56, 56), kernel=(31, 31), N=16)]}
    for name, problems in best.items():
        for given in problems:
            rank = len(given["size"])
            problem = ConvProblem(**{"N": 1, "groups": 1, **given}, C=1, K=1, stride=(1,) * rank, dilation=(1,) * rank,
                                  padding=tuple((k // 2, k // 2) for k in given["kernel"]), dtype=np.dtype("f4"),
                                  device="cuda")
            allowed = [a for a in ALGORITHMS.values() if not a.why_not(problem)]
            assert min(allowed, key=lambda a: a.cost(problem, Gpu())).NAME == name


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_transposed_convolution_may_have_one_output(name):
    weight = np.arange(9.0).reshape(1, 1, 3, 3)
    y = nconv.conv_transpose2d(np.full((1, 1, 1, 1), 2.0), weight, np.ones(1), 2, 1, method=name, device="cuda")
    assert y.item() == pytest.approx(9.0)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("name, changes", [*((name, {}) for name in ALGORITHMS), ("im2col", {"tf32": True}),
                                           ("im2col", {"dtype": np.dtype("f2")})])
def test_infinite_values_stay_where_they_are(name, changes, value):
    for case in ("signal-grouped", "layer-dilation"):
        problem = CASES[case].replace(device="cuda", **changes)
        x, weight, bias = (a.astype(problem.dtype) for a in operands(problem))
        x[(0, 0, *(n // 2 for n in problem.size))] = value
        with np.errstate(invalid="ignore"):
            expected = reference.convolution(problem, x, weight, bias)
            out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight, bias)
        for same in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(same(out), same(expected))
        finite = np.isfinite(expected)
        assert 0 < finite.sum() < finite.size
        np.testing.assert_allclose(out[finite], expected[finite], rtol=1e-3, atol=1e-2 if changes else 1e-4)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_infinite_taps_stay_where_they_are(name):
    problem = CASES["layer-plain"].replace(device="cuda")
    x, weight, bias = operands(problem)
    weight[1, 0, 1, 1] = np.inf
    with np.errstate(invalid="ignore"):
        out = engine.run_algorithm(ALGORITHMS[name], problem, x, weight, bias)
    assert not np.isfinite(out[:, 1]).any()
    expected = reference.convolution(problem, x, np.where(np.isfinite(weight), weight, 0), bias)
    np.testing.assert_allclose(np.delete(out, 1, 1), np.delete(expected, 1, 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size, kernel, channels", [((700,), (300,), 1), ((400,), (150,), 2), ((24, 25), (17, 19), 1)])
def test_windows_longer_than_a_block_are_cut_into_parts(size, kernel, channels):
    problem = CASES["signal-plain"].replace(size=size, kernel=kernel, C=channels, device="cuda", **{
        name: (value,) * len(size) for name, value in (
            ("stride", 1), ("dilation", 1), ("padding", (5, 7)), ("boundary", "constant"), ("upsample", 1))})
    x, weight, bias = operands(problem)
    out = engine.run_algorithm(ALGORITHMS["fft"], problem, x, weight, bias)
    padded = np.pad(x.astype(float), ((0, 0), (0, 0), *problem.padding))[0]
    pairs = zip(padded, weight[0].astype(float), strict=True)
    expected = sum(signal.correlate(row, taps, "valid") for row, taps in pairs)
    np.testing.assert_allclose(out[0, 0], expected + bias[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [False, True])
def test_tensor_cores_round_to_tf32_and_no_further(groups, monkeypatch):
    monkeypatch.setattr(ALGORITHMS["im2col"], "machine", lambda device: Gpu(warp_groups=groups))
    problem = CASES["layer-grouped"].replace(device="cuda", tf32=True)
    x, weight, bias = operands(problem)
    out = engine.run_algorithm(ALGORITHMS["im2col"], problem, x, weight, bias)
    expected, magnitude = (f(problem, x, weight, bias) for f in (reference.convolution, reference.magnitude))
    assert (np.abs(out - expected) <= 2.0 ** -10 * magnitude).all()
    assert (np.abs(out - expected) > bound("im2col", problem, magnitude)).any()     # it was the tensor cores' kernel
    x, weight = (np.round(a * 8) / 8 for a in (x, weight))                             # which eleven bits hold
    out = engine.run_algorithm(ALGORITHMS["im2col"], problem, x, weight, bias)
    np.testing.assert_allclose(out, reference.convolution(problem, x, weight, bias), rtol=1e-5, atol=1e-5)


@pytest.fixture
def launched(monkeypatch):
    """The kernels that im2col launches."""
    im2col = ALGORITHMS["im2col"]
    kernels = []
    for name in ("launch", "launch_over"):
        plain = getattr(im2col, name)

        def noted(kernel, *args, plain=plain):
            kernels.append(kernel)
            plain(kernel, *args)

        monkeypatch.setattr(im2col, name, noted)
    return kernels


@pytest.mark.parametrize("fill, whole, kind", [
    (0.0, False, "tensor"), (-2.5, True, "tensor"), (0.1, False, "tile")])
def test_float16_runs_on_tensor_cores_where_it_holds_all_values(fill, whole, kind, launched):
    problem = CASES["layer-asymmetric"].replace(device="cuda", dtype=np.dtype("f2"), fill=fill)
    check("im2col", problem, lambda x: np.rint(x).astype("i1") if whole else x)
    packed = {"tensor": "fragment", "tile": "pack"}[kind]
    assert [k.fn.__name__ for k in launched] == [f"im2col_{packed}_kernel", f"im2col_{kind}_kernel"]


def test_gpus_without_such_tensor_cores_take_the_ordinary_units(launched, monkeypatch):
    im2col = ALGORITHMS["im2col"]
    monkeypatch.setattr(im2col, "machine", lambda device: Gpu(tensor_cores=False))
    check("im2col", CASES["layer-plain"].replace(device="cuda", dtype=np.dtype("f2")))
    check("im2col", CASES["layer-plain"].replace(device="cuda", tf32=True))
    assert {k.fn.__name__ for k in launched} == {"im2col_pack_kernel", "im2col_tile_kernel"}


def test_tf32_is_asked_for():
    problem = CASES["layer-plain"].replace(device="cuda")
    assert not choice.decide(problem).problem.tf32
    with nconv.allow_tf32():
        assert choice.decide(problem).problem.tf32
        assert not choice.decide(problem.replace(device="cpu")).problem.tf32
    assert not choice.decide(problem).problem.tf32
    with pytest.raises(TypeError, match="allowed=1"):
        nconv.allow_tf32(1)


@pytest.mark.parametrize("case, changes", [("layer-stride", {}), ("image-grouped", {"dtype": np.dtype("c8")}),
                                           ("layer-batch", {"tf32": True}),
                                           ("layer-plain", {"C": 12, "dtype": np.dtype("f2")})])
def test_taps_are_split_among_blocks(case, changes, launched, monkeypatch):
    im2col = ALGORITHMS["im2col"]
    monkeypatch.setattr(im2col, "LEAST_STEPS", 1)
    slow = machine("cuda").scaled("clock", 1e-6)         # sums that take longer than another launch
    monkeypatch.setattr(im2col, "machine", lambda device: slow)
    problem = CASES[case].replace(device="cuda", **changes)
    if not problem.tf32:
        check("im2col", problem)
    else:
        x, weight, bias = (np.round(a * 8) / 8 for a in operands(problem))
        out = engine.run_algorithm(im2col, problem, x, weight, bias)
        np.testing.assert_allclose(out, reference.convolution(problem, x, weight, bias), rtol=1e-5, atol=1e-5)
    assert {im2col.im2col_sum_kernel, im2col.im2col_sum_quads_kernel} & set(launched)
