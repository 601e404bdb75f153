"""`nconv.Stream` and `nconv.normalized_convolve` on arrays of a GPU, in the simulator, against the same on the host."""

import copy

import numpy as np
import pytest
from numba import cuda

import nconv
from nconv import engine

rng = np.random.default_rng(0)
KIND = type(cuda.to_device(np.zeros(1)))
H = rng.standard_normal(9).astype("f4")
X = rng.standard_normal((2, 70)).astype("f4")


def pieces(stream, x, to, sizes):
    begin, results = 0, []
    for size in sizes:
        results.append(stream.feed(to(np.ascontiguousarray(x[..., begin:begin + size]))))
        begin += size
    return [*results, stream.flush()]


@pytest.mark.parametrize("h, x, options", [
    (H, X, {}), (H, X[0], {"method": "fft"}), (H, X[0] + 1j * X[1], {"method": "direct"}),
    (rng.standard_normal((2, 9)), X, {}), ((H * 9).astype("i4"), (X * 9).astype("i2"), {}), (H[:1], X, {}),
    (H, X, {"block": 64, "method": "fft"})],
    ids=["plain", "fft", "complex", "two kernels", "integers", "one tap", "block"])
def test_a_stream_gives_the_whole_convolution(h, x, options):
    stream = nconv.Stream(cuda.to_device(h), **options)
    parts = pieces(stream, x, cuda.to_device, (20, 0, 1, 40, 9))
    assert all(isinstance(part, KIND) for part in parts)
    result = np.concatenate([part.copy_to_host() for part in parts], axis=-1)
    expected = nconv.convolve(x, h if h.ndim == x.ndim else h[None] if x.ndim > 1 else h, axes=-1)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_a_stream_with_blocks_holds_samples_back():
    stream = nconv.Stream(cuda.to_device(H), block=64)
    assert stream.latency is None and stream.feed(cuda.to_device(X[:, :60].copy())).shape == (2, 0)
    assert stream.latency == 64 and stream.feed(cuda.to_device(X[:, :10].copy())).shape == (2, 64)
    other = copy.deepcopy(stream)
    rest = stream.flush()
    assert rest.shape == (2, 14)
    np.testing.assert_array_equal(other.flush().copy_to_host(), rest.copy_to_host())
    assert nconv.Stream(cuda.to_device(H)).flush().shape == (0,)


IMAGE = rng.standard_normal((7, 8)).astype("f4")
GAPS = IMAGE.copy()
GAPS[2, 3:6] = GAPS[5, 0] = GAPS[:3, 7] = np.nan
KERNEL = np.abs(rng.standard_normal((3, 5))).astype("f4")
MASK = rng.integers(0, 4, IMAGE.shape) == 0


@pytest.mark.parametrize("image, kernel, options", [
    (GAPS, KERNEL, {}), (IMAGE, KERNEL, {}), (GAPS, KERNEL, {"mask": MASK, "boundary": "extend"}),
    (GAPS, KERNEL, {"boundary": None, "normalize_kernel": False}), (GAPS, KERNEL, {"preserve_nan": True}),
    (GAPS, KERNEL, {"fill_value": np.nan}), (GAPS, KERNEL, {"fill_value": 2.0, "boundary": "constant"}),
    (GAPS + 1j * IMAGE, KERNEL, {"boundary": "wrap"}), (GAPS.astype("f8"), KERNEL, {"boundary": "reflect"}),
    ((IMAGE * 9).astype("i4"), KERNEL, {"mask": MASK.astype("u1")}), (GAPS.astype("f2"), KERNEL.astype("f2"), {}),
    (GAPS[0], KERNEL[0], {}), (IMAGE, KERNEL - KERNEL.mean(), {"normalize_kernel": False}),
    (np.full((5, 5), np.nan, "f4"), KERNEL, {"boundary": "wrap"}),
])
def test_images_with_gaps(image, kernel, options):
    there = {name: cuda.to_device(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}
    result = nconv.normalized_convolve(cuda.to_device(image), cuda.to_device(kernel), **there)
    expected = nconv.normalized_convolve(image, kernel, **options)
    assert isinstance(result, KIND) and result.dtype == expected.dtype
    tolerance = 2e-3 if expected.dtype.char == "e" else 1e-4
    np.testing.assert_allclose(result.copy_to_host(), expected, rtol=tolerance, atol=tolerance)


def test_kernels_without_a_sum_give_nan_beside_gaps():
    kernel = np.array([[1.0, -2.0, 1.0]], "f4")
    result = nconv.normalized_convolve(cuda.to_device(GAPS), cuda.to_device(kernel), normalize_kernel=False)
    expected = nconv.ndimage.convolve(GAPS, kernel, mode="constant")
    np.testing.assert_allclose(result.copy_to_host(), expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(expected).any()


def test_windows_with_little_weight_are_summed_anew(monkeypatch):
    """As if a transform had rounded: what it gives is moved, and only windows with much weight may show that."""
    image, kernel = np.full(40, np.nan), np.full(7, 1e-14)
    kernel[3] = 1.0
    image[:7], image[30] = 5.0, 3.0                     # the window of 28 sees only the smallest weight
    expected = nconv.normalized_convolve(image, kernel)
    assert expected[28] == pytest.approx(3.0)
    run = engine.execute

    def rounded(call):
        result = run(call)
        return cuda.to_device(result.copy_to_host() + 1e-13) if isinstance(result, KIND) else result

    monkeypatch.setattr(engine, "execute", rounded)
    result = nconv.normalized_convolve(cuda.to_device(image), cuda.to_device(kernel)).copy_to_host()
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("call, error, words", [
    (lambda d: nconv.normalized_convolve(d(IMAGE), KERNEL), nconv.DeviceError, "h on the host"),
    (lambda d: nconv.normalized_convolve(IMAGE, KERNEL, mask=d(MASK)), nconv.DeviceError, "mask on the GPU"),
    (lambda d: nconv.normalized_convolve(d(IMAGE), d(np.array([[1.0, 0.0, -1.0]]))), ValueError, "sum is near zero"),
    (lambda d: nconv.normalized_convolve(d(IMAGE), d(np.array([[np.inf]]))), ValueError, "must be finite"),
    (lambda d: nconv.normalized_convolve(d(IMAGE), d(KERNEL), mask=d(MASK[0])), ValueError, "mask.shape"),
    (lambda d: nconv.Stream(d(H)).feed(X), nconv.DeviceError, "x on the host"),
    (lambda d: nconv.Stream(H).feed(d(X)), nconv.DeviceError, "h on the host"),
    (lambda d: nconv.Stream(d((H * 9).astype("i4")), method="fft").feed(d(np.ones(3, "i4"))), ValueError, "round"),
])
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call(cuda.to_device)
