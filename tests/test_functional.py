"""Layers and their gradients against PyTorch, the adjoint identity and hand-worked sizes."""

import itertools

import numpy as np
import pytest

import nconv

GEOMETRY = list(itertools.product((1, 2), (1, 2), (0, 1), (1, 2)))      # groups, stride, padding, dilation


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def layers(rank, groups):
    x = draw(2, 4, *(9, 8, 7)[:rank])
    return x, draw(6, 4 // groups, *(3, 2, 3)[:rank], seed=1), draw(6, seed=2)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_against_torch(rank):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy
    for groups, stride, padding, dilation in GEOMETRY:
        x, w, b = layers(rank, groups)
        geometry = (stride, padding, dilation, groups)
        theirs = getattr(torch.nn.functional, f"conv{rank}d")(tensor(x), tensor(w), tensor(b), *geometry).numpy()
        conv = getattr(nconv, f"conv{rank}d")
        np.testing.assert_allclose(conv(x, w, b, *geometry), theirs, atol=1e-12)
        np.testing.assert_allclose(conv(x[0], w, b, *geometry), theirs[0], atol=1e-12)
        last = conv(np.moveaxis(x, 1, -1), w, b, *geometry, layout="channels_last")
        np.testing.assert_allclose(np.moveaxis(last, -1, 1), theirs, atol=1e-12)
        g = draw(*theirs.shape, seed=3)
        for name, ours, reference in (
                ("input", (x.shape, w, g), (x.shape, tensor(w), tensor(g))),
                ("weight", (x, w.shape, g), (tensor(x), w.shape, tensor(g)))):
            expected = getattr(torch.nn.grad, f"conv{rank}d_{name}")(*reference, *geometry).numpy()
            result = getattr(nconv.grad, f"conv{rank}d_{name}")(*ours, *geometry)
            np.testing.assert_allclose(result, expected, atol=1e-11)
        w = draw(4, 6 // groups, *(3, 2, 3)[:rank], seed=4)
        arguments = (stride, padding, stride - 1, groups, dilation)
        expected = getattr(torch.nn.functional, f"conv_transpose{rank}d")(
            tensor(x), tensor(w), tensor(b), *arguments).numpy()
        np.testing.assert_allclose(getattr(nconv, f"conv_transpose{rank}d")(x, w, b, *arguments), expected, atol=1e-12)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode):
    x, w, _ = layers(2, 1)
    name = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (2, 1)), mode=name)
    np.testing.assert_allclose(nconv.conv2d(x, w, padding=((1, 2), (2, 1)), padding_mode=mode), nconv.conv2d(padded, w),
                               atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_is_tensorflows(stride):
    for size, taps, dilation in itertools.product((5, 6, 7), (1, 2, 3, 4), (1, 2)):
        x, w = draw(1, size), draw(1, 1, taps, seed=1)
        out = -(-size // stride)
        total = max((out - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        padded = np.pad(x, ((0, 0), (total // 2, total - total // 2)))
        result = nconv.conv1d(x, w, stride=stride, dilation=dilation, padding="SAME")
        assert result.shape == (1, out)
        np.testing.assert_allclose(result, nconv.conv1d(padded, w, stride=stride, dilation=dilation), atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradients_are_adjoint(rank):
    """<conv(x), g> = <x, input gradient> = <w, weight gradient>."""
    for groups, stride, padding, dilation in GEOMETRY:
        x, w, _ = layers(rank, groups)
        geometry = (stride, padding, dilation, groups)
        y = getattr(nconv, f"conv{rank}d")(x, w, None, *geometry)
        g = draw(*y.shape, seed=5)
        inner = (y * g).sum()
        to_x = getattr(nconv.grad, f"conv{rank}d_input")(x.shape, w, g, *geometry)
        to_w = getattr(nconv.grad, f"conv{rank}d_weight")(x, w.shape, g, *geometry)
        np.testing.assert_allclose([(to_x * x).sum(), (to_w * w).sum()], inner)


def test_types_and_out():
    x, w = np.ones((1, 2, 5), "f2"), np.ones((3, 2, 2), "f2")
    assert nconv.conv1d(x, w).dtype == np.float16
    assert nconv.conv1d(x.astype("i1"), w.astype("i1")).tolist() == [[[4] * 4] * 3]
    out = np.empty((1, 3, 4), "f2")
    assert nconv.conv1d(x, w, out=out) is out
    assert (out == 4).all()


@pytest.mark.parametrize(("error", "words", "arguments", "keywords"), [
    (ValueError, "input must have 4 dimensions", ((4, 4), (1, 1, 2, 2)), {}),
    (ValueError, "input has 3", ((1, 3, 4, 4), (2, 2, 2, 2)), {}),
    (ValueError, "groups=2, input channels=3", ((1, 3, 4, 4), (2, 2, 2, 2)), {"groups": 2}),
    (ValueError, "weight is larger", ((1, 1, 4, 4), (1, 1, 5, 5)), {}),
    (ValueError, "stride=0", ((1, 1, 4, 4), (1, 1, 2, 2)), {"stride": 0}),
    (ValueError, "dilation", ((1, 1, 4, 4), (1, 1, 2, 2)), {"dilation": (1, 2, 3)}),
    (ValueError, "padding=-1", ((1, 1, 4, 4), (1, 1, 2, 2)), {"padding": -1}),
    (ValueError, "'sane'", ((1, 1, 4, 4), (1, 1, 2, 2)), {"padding": "sane"}),
    (ValueError, "'mirrored'", ((1, 1, 4, 4), (1, 1, 2, 2)), {"padding_mode": "mirrored"}),
    (ValueError, "'NHWC'", ((1, 1, 4, 4), (1, 1, 2, 2)), {"layout": "NHWC"}),
    (ValueError, "'fastest'", ((1, 1, 4, 4), (1, 1, 2, 2)), {"method": "fastest"}),
    (ValueError, "out.shape", ((1, 1, 4, 4), (1, 1, 2, 2)), {"out": np.empty((1, 1, 2, 3))}),
    (TypeError, "out.dtype", ((1, 1, 4, 4), (1, 1, 2, 2)), {"out": np.empty((1, 1, 3, 3), "f4")}),
    (nconv.DeviceError, "GPU", ((1, 1, 4, 4), (1, 1, 2, 2)), {"device": "cuda"}),
])
def test_errors(error, words, arguments, keywords):
    before = {name: value.copy() for name, value in keywords.items() if isinstance(value, np.ndarray)}
    with pytest.raises(error, match=words):
        nconv.conv2d(*map(np.ones, arguments), **keywords)
    for name, value in before.items():
        np.testing.assert_array_equal(keywords[name], value)


def test_what_is_not_an_array():
    with pytest.raises(TypeError, match="input must be an array, not list"):
        nconv.conv1d([[1.0, 2.0]], np.ones((1, 1, 2)))
    with pytest.raises(TypeError, match="object"):
        nconv.conv1d(np.array([[None, 1]]), np.ones((1, 1, 1)))


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "dilation", "output_padding"), [
    ((31,), (4,), 2, 1, 1, 0), ((40,), (6,), 3, 0, 1, 2), ((9, 14), (4, 4), 2, 1, 1, 0), ((20, 7), (2, 2), 2, 0, 1, 0),
    ((8, 40), (3, 6), (1, 3), 1, 1, 0), ((12, 9), (8, 4), 4, 2, 1, 0), ((11, 10), (4, 4), 2, 3, 3, 1),
    ((5, 6, 21), (2, 4, 2), 2, (0, 1, 0), 1, 0), ((1, 1), (4, 4), 2, 1, 1, 0), ((10, 10), (3, 3), 2, 1, 1, 0)])
def test_phases_of_a_transposed_convolution_meet(size, kernel, stride, padding, dilation, output_padding, layout,
                                                 dtype):
    rng = np.random.default_rng(3)
    rank = len(size)
    transposed, plain = getattr(nconv, f"conv_transpose{rank}d"), getattr(nconv, f"conv{rank}d")
    x, w = rng.standard_normal((2, 6, *size)).astype(dtype), rng.standard_normal((6, 2, *kernel)).astype(dtype)
    b = rng.standard_normal(6).astype(dtype)
    if layout == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = transposed(x, w, b, stride, padding, output_padding, 3, dilation, layout=layout)
    out = np.full_like(y, np.nan)
    assert transposed(x, w, b, stride, padding, output_padding, 3, dilation, layout=layout, out=out) is out
    np.testing.assert_array_equal(out, y)
    if layout == "channels_last":
        x, y = np.moveaxis(x, -1, 1), np.moveaxis(y, -1, 1)
    probe = rng.standard_normal(y.shape).astype(dtype)             # <y - b, p> = <x, conv(p)>: what it is defined by
    bias = b.reshape(-1, *(1,) * rank)
    back = plain(probe, w, None, stride, padding, dilation, 3, method="direct")[(..., *map(slice, size))]
    np.testing.assert_allclose(((y - bias) * probe).sum(), (x * back).sum(), rtol=2e-4 if dtype == "f4" else 1e-10)


@pytest.mark.parametrize("view", [
    lambda w: w[::-1], lambda w: w[:, ::-1, :, ::-1], lambda w: w[::2, :, ::-1], lambda w: w.swapaxes(0, 1),
    lambda w: w.transpose(3, 2, 1, 0), lambda w: np.broadcast_to(w[:1, :, :, :1], (20, 20, 4, 4)),
    lambda w: _read_only(w[1:19, 2:]), lambda w: np.frombuffer(b"." + w.tobytes(), w.dtype, offset=1).reshape(w.shape),
    lambda w: w.astype(w.dtype.newbyteorder()),
    lambda w: np.rec.fromarrays([w, np.zeros(w.shape, "i1")], names="taps, other")["taps"]],
    ids=["rows back", "taps back", "every second", "swapped", "reversed", "one row", "read-only", "misaligned",
         "other bytes", "field"])
@pytest.mark.parametrize("dtype", ["f4", "c16"])
def test_weights_of_transposed_convolutions_may_lie_anyhow(view, dtype):
    """Their taps are brought together from wherever they lie, in tiles that do not divide the channels."""
    rng = np.random.default_rng(4)
    real, imaginary = rng.integers(-9, 9, (2, 20, 20, 4, 4))
    w = view((real + 1j * imaginary if dtype == "c16" else real).astype(dtype))
    if w.shape[-1] > 4:                                # reversed: the channels became taps
        w = w[:, :, :8, :8]
    x = rng.integers(-9, 9, (1, len(w), 6, 5)).astype(dtype)
    np.testing.assert_array_equal(nconv.conv_transpose2d(x, w, stride=2, padding=1),
                                  nconv.conv_transpose2d(x, w.astype(dtype, "C"), stride=2, padding=1))
    full = sum(np.multiply.outer(x[0, c], w[c]).transpose(2, 0, 3, 1, 4) for c in range(len(w)))
    expected = np.zeros((w.shape[1], 10 + w.shape[2], 8 + w.shape[3]), dtype)
    for i in range(6):
        for j in range(5):
            expected[:, 2 * i:2 * i + w.shape[2], 2 * j:2 * j + w.shape[3]] += full[:, i, :, j]
    got = nconv.conv_transpose2d(x, w, stride=2, padding=1, method="im2col")
    np.testing.assert_array_equal(got[0], expected[:, 1:-1, 1:-1])


def _read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("method", ["auto", "direct", "im2col", "fft"])
def test_a_transposed_convolution_may_have_one_output(method):
    """All outputs then lie in one phase, which has not all of the window's taps."""
    weight = np.arange(9.0).reshape(1, 1, 3, 3)
    y = nconv.conv_transpose2d(np.full((1, 1, 1, 1), 2.0), weight, np.ones(1), 2, 1, method=method)
    assert y.item() == pytest.approx(9.0)
    y = nconv.conv_transpose1d(np.array([[3.0]]), np.array([[[1.0, 10.0, 100.0]]]), stride=4, padding=1, method=method)
    assert y.item() == pytest.approx(30.0)
    plan = nconv.plan(nconv.conv_transpose2d, nconv.ArraySpec((1, 1, 1, 1), "f8"), weight, None, 2, 1, method=method)
    assert plan(np.ones((1, 1, 1, 1))).item() == pytest.approx(4.0)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("output_padding", [0, 1])
def test_rows_of_a_transposed_convolution_may_have_any_length(output_padding, dtype):
    weight = np.array([[[1.0, 10.0, 100.0, 1000.0]]], dtype)
    for n in range(1, 80):
        x = np.arange(1, n + 1, dtype=dtype)
        full = np.zeros(2 * n + 2, dtype)
        for tap, value in enumerate(weight[0, 0]):
            full[tap:tap + 2 * n:2] += value * x
        y = nconv.conv_transpose1d(x[None, None], weight, stride=2, padding=1, output_padding=output_padding)
        np.testing.assert_array_equal(y[0, 0], full[1:2 * n + 1 + output_padding])
