"""Streams: pieces of any size give one full convolution; copies, pickles, gaps, errors."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nconv

RNG = np.random.default_rng(0)


def draw(shape, dtype):
    dtype = np.dtype(dtype)
    values = RNG.integers(-5, 6, shape) if dtype.kind in "biu" else RNG.standard_normal(shape)
    return (values + 1j * RNG.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)


def fed(stream, x, sizes, between=lambda stream: stream):
    """All that a stream gives for x in pieces of the sizes, which are repeated."""
    parts, at, turn = [], 0, 0
    while at < x.shape[-1]:
        n = sizes[turn % len(sizes)]
        parts.append(stream.feed(x[..., at:at + n]))
        stream = between(stream)
        at, turn = at + n, turn + 1
    parts.append(stream.flush())
    return np.concatenate(parts, axis=-1)


def whole(x, h):
    lead = np.broadcast_shapes(x.shape[:-1], h.shape[:-1])
    return nconv.convolve(np.broadcast_to(x, (*lead, x.shape[-1])), np.broadcast_to(h, (*lead, h.shape[-1])), axes=-1,
                          method="direct")


def agree(mine, expected, eps_times=200):
    assert mine.dtype == expected.dtype
    assert mine.shape == expected.shape
    if mine.dtype.kind in "iu":
        np.testing.assert_array_equal(mine, expected)
    else:
        np.testing.assert_allclose(mine, expected, rtol=0,
                                   atol=eps_times * np.finfo(mine.dtype).eps * np.abs(expected).max())


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize(("x", "h"), [((500,), (130,)), ((3, 500), (130,)), ((2, 3, 400), (3, 130)), ((400,), (2, 700)),
                                      ((19, 200), (1,)), ((2, 1), (1, 70))])
def test_channels_and_kernels(x, h, method):
    x, h = draw(x, "f8"), draw(h, "f8")
    stream = nconv.Stream(h, method=method) if method == "direct" else nconv.Stream(h, 64, method)
    agree(fed(stream, x, [1, 37, 0, 90, 16]), whole(x, h))


@pytest.mark.parametrize(("x", "h", "method"), [
    ("f4", "f4", "fft"), ("f4", "f8", "fft"), ("c16", "f8", "fft"), ("f8", "c16", "fft"), ("c16", "c16", "fft"),
    ("f2", "f2", "fft"), ("i2", "i4", "auto"), ("u1", "u1", "auto"), ("i8", "f8", "auto"), ("c16", "c16", "direct")])
def test_dtypes(x, h, method):
    x, h = draw((2, 300), x), draw((2, 90), h)
    agree(fed(nconv.Stream(h, method=method), x, [50, 7]), whole(x, h))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 5000), st.lists(st.integers(0, 700), min_size=1, max_size=6).filter(any),
       st.sampled_from([64, 128, 192, 320]))
def test_pieces_of_any_size_through_one_level_or_two(taps, sizes, block):
    x, h = draw((2, 1500), "f8"), draw((taps,), "f8")
    agree(fed(nconv.Stream(h, block, "fft"), x, sizes), whole(x, h[np.newaxis]))


def test_long_kernels_have_parts_of_two_lengths():
    stream = nconv.Stream(draw((20_000,), "f8"), block=64, method="fft")
    stream.feed(draw((64,), "f8"))
    lengths = [level.parts.n for level in stream._levels]
    assert lengths[0] == stream.latency == 64
    assert len(lengths) == 2
    x = draw((9000,), "f8")
    stream = nconv.Stream(stream._h, block=64, method="fft")
    agree(fed(stream, x, [64]), whole(x, stream._h))


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("method", ["direct", "fft"])
def test_copies_go_on_independently(method, clone):
    x, h = draw((2, 600), "f8"), draw((200,), "f8")
    agree(fed(nconv.Stream(h, method=method), x, [33], between=clone), whole(x, h[np.newaxis]))
    stream = nconv.Stream(h, method=method)
    first = stream.feed(x[:, :300])
    twin = clone(stream)
    twin.feed(9 * x)
    agree(np.concatenate([first, stream.feed(x[:, 300:]), stream.flush()], axis=-1), whole(x, h[np.newaxis]))


def test_latency_says_what_is_held_back():
    direct, fft = nconv.Stream(np.ones(5)), nconv.Stream(np.ones(500), 64, "fft")
    assert direct.latency is fft.latency is None
    assert [direct.feed(np.ones(n)).size for n in (3, 0, 40)] == [3, 0, 40]
    assert [fft.feed(np.ones(n)).size for n in (63, 1, 70, 0, 58)] == [0, 64, 64, 0, 64]
    assert (direct.latency, fft.latency) == (0, 64)
    assert "blocks of 64, 192 samples fed" in repr(fft)


@pytest.mark.parametrize("method", ["direct", "fft"])
def test_after_the_flush_another_signal_begins(method):
    stream = nconv.Stream(draw((40,), "f8"), method=method)
    for shape, dtype in (((2, 100), "f8"), ((77,), "f4"), ((1, 5), "f8")):
        x = draw(shape, dtype)
        agree(fed(stream, x, [30]), whole(x, stream._h.reshape((1,) * (x.ndim - 1) + (-1,))))
    assert stream.flush().shape == (0,)
    stream.feed(np.ones((3, 0)))
    assert stream.flush().shape == (3, 0)


@pytest.mark.parametrize("method", ["direct", "fft"])
def test_nan_and_infinity_spoil_their_window_only(method):
    x, h = draw((2, 400), "f8"), draw((70,), "f8")
    x[0, 100:103] = np.nan
    x[1, 200], x[1, 230] = np.inf, -np.inf
    expected = whole(x, h[np.newaxis])
    mine = fed(nconv.Stream(h, method=method), x, [45])
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(mine), np.isposinf(expected))
    finite = np.isfinite(expected)
    assert 0 < finite.sum() < finite.size
    np.testing.assert_allclose(mine[finite], expected[finite], atol=1e-12)


def test_memory_is_bounded():
    stream = nconv.Stream(np.ones(300), 64, "fft")
    x = np.ones(192)
    x[7] = np.inf
    sizes = []
    for _ in range(12):
        stream.feed(x)
        sizes.append(len(pickle.dumps(stream)))
    assert len(set(sizes[3:])) == 1


def test_auto_sums_few_taps_and_transforms_many():
    for taps, begins in ((3, "direct"), (20_000, "fft")):
        stream = nconv.Stream(np.ones(taps))
        stream.feed(np.ones(1))
        assert begins in repr(stream)


@pytest.mark.parametrize(("h", "kwargs", "words"), [
    (np.ones((2, 0)), {}, "h must have at least one tap"), (1.0, {}, "h must have at least one tap"),
    ([1, np.nan], {}, "h must be finite"), ([1], {"block": 0}, "block must be a multiple of 64"),
    ([1], {"block": 7 * 64}, "block must be a multiple of 64 without prime factors above 5: block=448"),
    ([1], {"block": 1.5}, "block must be an integer: block=1.5"), ([1], {"method": "fast"}, "unknown method"),
    ([1], {"method": "direct", "block": 64}, "the direct method has no blocks"),
])
def test_errors_of_the_kernel(h, kwargs, words):
    with pytest.raises(ValueError, match=words):
        nconv.Stream(h, **kwargs)


def test_errors_of_the_samples():
    stream = nconv.Stream(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"channels of x and h do not fit: x.shape=\(2, 9\), h.shape=\(3, 4\)"):
        stream.feed(np.ones((2, 9)))
    stream.feed(np.ones((3, 9)))
    with pytest.raises(ValueError, match="the channels must stay as they were"):
        stream.feed(np.ones(9))
    with pytest.raises(TypeError, match="the dtype must stay as it was: x.dtype=complex128"):
        stream.feed(np.ones((3, 9), complex))
    with pytest.raises(ValueError, match="x must be an array with an axis of samples"):
        stream.feed(1.0)
    with pytest.raises(TypeError, match="x: dtype object is not supported"):
        stream.feed(np.ones((3, 1), object))
    with pytest.raises(TypeError, match="h must be an array, not an ArraySpec"):
        nconv.Stream(nconv.ArraySpec((3,)))
    with pytest.raises(ValueError, match="method='fft' would round integers"):
        nconv.Stream([1, 2], method="fft").feed([1])
    agree(np.concatenate([stream.feed(np.ones((3, 1))), stream.flush()], -1)[0], np.array([4.0, 3, 2, 1]))
