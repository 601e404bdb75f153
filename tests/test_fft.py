"""The transforms of the FFT engine, block sizes that the small cases do not reach, accuracy, and what it keeps."""

import numpy as np
import pytest

import nconv
from nconv.cpu.fft.transforms import factors, is_smooth, transform, transform_block
from nconv.cpu.fft.vectors import lanes, leaf_rows
from nconv.geometry import product, round_up
from nconv.jit import kernel

TYPES = ["f4", "f8"]
# Points in units of vectors on the last axis: every radix first and last, whole leaves and not, both cache levels.
SHAPES = [(1,), (2,), (8,), (24,), (40,), (72,), (480,), (2048,), (1920,), (6, 3), (5, 8), (64, 32), (3, 4, 5), (1, 1)]


@kernel
def transform_memory(memory, spectra, plan, forward, inverse):
    """`transform_block` of a whole block, which only kernels call."""
    transform_block(memory, 0, memory, 0, 0, spectra, 0, 0, 1, plan, forward, inverse)



def packed(values, dtype):
    """Complex points in the order of memory: a vector of real parts, then one of imaginary ones."""
    L = lanes(dtype)
    memory = np.zeros(2 * round_up(values.size, L * leaf_rows(L)), dtype)
    pairs = memory[:2 * values.size].reshape(-1, 2, L)
    pairs[:, 0], pairs[:, 1] = values.real.reshape(-1, L), values.imag.reshape(-1, L)
    return memory


def run(memory, spectra, plan, forward, inverse):
    transform_memory(memory, spectra, plan, forward, inverse)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_block_is_convolved_in_its_ring(shape, dtype):
    dtype = np.dtype(dtype)
    shape = (*shape[:-1], shape[-1] * lanes(dtype))
    rng = np.random.default_rng(0)
    x, h = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for _ in range(2))
    for angle in 0.0, -np.pi / 2:
        plan = transform(shape, angle, dtype)
        spectrum, block = packed(h, dtype), packed(x, dtype)
        run(spectrum, spectrum, plan, True, False)
        run(block, spectrum, plan, True, True)
        # t^n = exp(-i angle) on the first axis: twisted, a cyclic convolution
        twist = np.exp(-1j * angle * np.arange(shape[0]) / shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
        expected = np.fft.ifftn(np.fft.fftn(x * twist) * np.fft.fftn(h * twist)) / twist
        pairs = block[:2 * x.size].reshape(-1, 2, lanes(dtype))
        result = (pairs[:, 0] + 1j * pairs[:, 1]).reshape(shape) / product(shape)
        assert np.abs(result - expected).max() < 16 * np.finfo(dtype).eps * np.abs(expected).max()


def test_radices_multiply_to_the_length():
    for n in filter(is_smooth, range(1, 2000)):
        assert product(factors(n)) == n
        assert set(factors(n)) <= {2, 3, 4, 5, 8}
    with pytest.raises(ValueError, match="above 5; 7 remains"):
        factors(56)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize(("samples", "taps"), [(30_000, 700), (20_000, 20_000), (300_000, 60_000)])
def test_long_signals(samples, taps, dtype):
    rng = np.random.default_rng(1)
    x, h = ((rng.standard_normal(n) + 1j * rng.standard_normal(n)).astype(dtype if dtype[0] == "c" else "c16")
            for n in (samples, taps))
    if dtype[0] == "f":
        x, h = x.real.astype(dtype), h.real.astype(dtype)
    n = samples + taps - 1
    expected = np.fft.ifft(np.fft.fft(x.astype("c16"), n) * np.fft.fft(h.astype("c16"), n))
    result = nconv.convolve(x, h, method="fft")
    assert np.abs(result - expected).max() < 10 * np.finfo(dtype).eps * np.abs(expected).max()


@pytest.mark.parametrize("offset", [0, 10])
def test_error_is_at_most_four_times_that_of_plain_sums(offset):
    rng = np.random.default_rng(2)
    x, h = (rng.standard_normal(20_000) + offset).astype("f4"), rng.standard_normal(1500).astype("f4")
    exact = np.correlate(x.astype("f8"), h.astype("f8"), "valid")
    plain = np.zeros(exact.size, "f4")
    for t, tap in enumerate(h):                         # one float32 sum of products, tap after tap
        plain += tap * x[t:t + plain.size]
    ours = nconv.correlate(x, h, "valid", method="fft")
    assert np.abs(ours - exact).max() <= 4 * np.abs(plain - exact).max()
