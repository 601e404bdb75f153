"""From the third call of its kind on, a call goes straight to the kernel, and nothing but its time tells."""

import gc
import weakref

import numpy as np
import pytest
import scipy.signal

import nconv
from nconv import choice, engine, functional, shortcuts, signal
from nconv.cpu import arrays, direct, separable
from nconv.lowering import lower as lower_call
from nconv.ndimage import correlation

RNG = np.random.default_rng(0)
X, H = RNG.standard_normal(50), RNG.standard_normal(7)
IMAGE, WINDOW = RNG.standard_normal((9, 11)), RNG.standard_normal((3, 4))
WHOLE = np.arange(50) % 7 - 3
LAYER, WEIGHT, BIAS = (RNG.standard_normal(s).astype("f4") for s in ((2, 4, 7, 8), (6, 2, 3, 3), (6,)))
LAST = np.moveaxis(LAYER, 1, -1).copy()
CALLS = {
    "signal": (signal, "_lower_convolve", lambda x=X, **o: nconv.convolve(x, H, "same", **o), X),
    "integers": (signal, "_lower_correlate", lambda x=WHOLE, **o: nconv.correlate(x, np.arange(4), **o), WHOLE),
    "batch": (signal, "_lower_convolve", lambda x=IMAGE, **o: nconv.convolve(x, WINDOW[:1], axes=1, **o), IMAGE),
    "image": (correlation, "_lower_convolve",
              lambda x=IMAGE, out=None: nconv.ndimage.convolve(x, WINDOW, out, ["mirror", "wrap"]), IMAGE),
    "layer": (functional, "_lower_conv", lambda x=LAYER, **o: nconv.conv2d(
        x, WEIGHT, BIAS, (2, 1), [(1, 0), (2, 1)], groups=2, **o), LAYER),
    "signal by direct": (signal, "_lower_convolve", lambda x=X, **o: nconv.convolve(x, H, method="direct", **o), X),
    "short signal by fft": (signal, "_lower_correlate", lambda x=H, **o: nconv.correlate(x, X, "same", "fft", **o), H),
    "layer by im2col": (functional, "_lower_conv", lambda x=LAYER, **o: nconv.conv2d(
        x, WEIGHT, BIAS, padding=1, groups=2, method="im2col", **o), LAYER),
    "channels last": (functional, "_lower_conv", lambda x=LAST, **o: nconv.conv2d(
        x, WEIGHT, groups=2, layout="channels_last", **o), LAST),
}


@pytest.fixture(autouse=True)
def nothing_known():
    shortcuts.forget()
    yield
    shortcuts.forget()


@pytest.mark.parametrize("function", ["convolve", "correlate"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
def test_a_weight_that_is_given_first(function, mode, dtype):
    in1, in2 = (np.arange(n.size, dtype=dtype).reshape(n.shape) % 11 for n in (WINDOW, IMAGE))
    expected = getattr(nconv, function)(in1, in2, mode)
    np.testing.assert_array_equal(expected, getattr(scipy.signal, function)(in1, in2, mode, "direct"))
    for _ in range(3):
        np.testing.assert_array_equal(getattr(nconv, function)(in1, in2, mode), expected)
    assert left()


def left():
    """The shortcuts that calls have left."""
    return [known for known in shortcuts._known.values() if known not in (None, shortcuts._seen)]


def test_only_a_second_call_leaves_one():
    for n in range(5):
        nconv.convolve(X[n:], H)
    assert not left()
    nconv.convolve(X, H)
    assert len(left()) == 1


def no_lowering(monkeypatch, module, name):
    monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("the call was lowered again"))


@pytest.mark.parametrize("name", CALLS)
def test_a_third_call_is_not_lowered(name, monkeypatch):
    module, lower, call, x = CALLS[name]
    doubled = call(x * 2)
    shortcuts.forget()
    expected = call()
    np.testing.assert_array_equal(call(), expected)
    no_lowering(monkeypatch, module, lower)
    np.testing.assert_array_equal(call(), expected)
    aside = np.stack([x, x], axis=-1)[..., 0]             # not contiguous
    backwards = np.flip(x).copy()
    frozen = x.copy()
    frozen.flags.writeable = False
    for other in (aside, np.flip(backwards), np.asfortranarray(x), frozen):
        np.testing.assert_array_equal(call(other), expected)
    np.testing.assert_array_equal(call(x * 2), doubled)


@pytest.mark.parametrize("name", ["signal", "image", "layer", "signal by direct", "layer by im2col"])
def test_out(name, monkeypatch):
    module, lower, call, _ = CALLS[name]
    expected = call()
    out = np.full_like(expected, np.nan)
    call(out=out)
    call(out=out)
    no_lowering(monkeypatch, module, lower)
    assert call(out=out) is out or name == "image"
    np.testing.assert_array_equal(out, expected)
    backwards = np.empty_like(out)[::-1]
    call(out=backwards)
    np.testing.assert_array_equal(backwards, expected)
    monkeypatch.undo()
    for wrong in (np.empty(3, out.dtype), out[:0]):
        with pytest.raises(ValueError, match="shape"):
            call(out=wrong)
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        call(out=frozen)


def test_out_may_be_the_input():
    x = X.copy()
    for _ in range(3):
        before = x.copy()
        nconv.convolve(x, H, "same", out=x)
        np.testing.assert_allclose(x, np.convolve(before, H, "same"), atol=1e-12)


def test_an_image_may_be_cast_after_a_call_that_was_not():
    for _ in range(2):
        expected = nconv.ndimage.convolve(IMAGE, WINDOW)
    assert nconv.ndimage.convolve(IMAGE, WINDOW, np.float32).dtype == "f4"
    out = np.empty(IMAGE.shape, "f4")
    nconv.ndimage.convolve(IMAGE, WINDOW, out)
    np.testing.assert_array_equal(out, expected.astype("f4"))


@pytest.mark.parametrize("wrong", [True, 1.0, np.array([1]), "1"])
def test_what_equals_an_option_is_still_refused(wrong):
    x, w = LAYER[:, :, 0], WEIGHT[:, :, 0]
    for stride in (1, (1,), [1], np.int64(1)) * 2:
        nconv.conv1d(x, w, None, stride, groups=2)
    if isinstance(wrong, np.ndarray):
        nconv.conv1d(x, w, None, wrong, groups=2)
        wrong = np.array([[1]])                           # the same bytes in memory
    with pytest.raises(ValueError, match="stride"):
        nconv.conv1d(x, w, None, wrong, groups=2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["auto", "direct", "fft"])
def test_infinite_weights_go_the_long_way(value, method):
    h = H.copy()
    h[2] = value
    with np.errstate(invalid="ignore"):
        expected = nconv.convolve(X, h, method=method)
        nconv.convolve(X, H, method=method)
        np.testing.assert_array_equal(nconv.convolve(X, h, method=method), expected)     # and leave no way for others
        assert not left()
        nconv.convolve(X, H, method=method)
        assert left()
        np.testing.assert_array_equal(nconv.convolve(X, h, method=method), expected)
    assert np.isfinite(expected[:2]).all() and not np.isfinite(expected[2:-4]).any()


def test_limits_come_before_shortcuts():
    nconv.convolve(X, H)
    nconv.convolve(X, H)
    assert left()
    try:
        nconv.set_workspace_limit(0)
        with pytest.raises(MemoryError):
            nconv.convolve(X, H)
    finally:
        nconv.set_workspace_limit(None)


def test_an_outer_product_is_seen_among_windows_that_are_none(monkeypatch, cheap_passes):
    image, window, taps = RNG.standard_normal((400, 500)), RNG.standard_normal((13, 13)), np.hanning(15)[1:-1]
    nconv.convolve(image, window, "same")
    nconv.convolve(image, window, "same")
    assert left()
    run, ran = separable.run, []
    monkeypatch.setattr(separable, "run", lambda *arguments: ran.append(run(*arguments)))
    nconv.convolve(image, window, "same")
    assert not ran
    nconv.convolve(image, np.outer(taps, taps), "same")
    assert ran


@pytest.mark.parametrize("method", ["auto", "direct"])
def test_no_array_is_kept(method):
    x, h = X.copy(), H.copy()
    nconv.convolve(x, h, method=method)
    nconv.convolve(x, h, method=method)
    assert left()
    gone = [weakref.ref(array) for array in (x, h)]
    del x, h
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_plan_keeps_the_weight_that_it_was_given():
    h = H.copy()
    plan = nconv.plan(nconv.convolve, X, h)
    assert plan.method == "small"
    h[:] = 0
    np.testing.assert_allclose(plan(X), np.convolve(X, H))


@pytest.mark.parametrize("size", [1, shortcuts._SHOWN // 8 + 1])
def test_large_arrays_are_not_made_to_be_shown(size, monkeypatch):
    made = []
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda shape, *rest, **more: made.append(shape) or empty(shape, *rest, **more))
    call = signal._lower_convolve(nconv.ArraySpec((size,), "f8"), nconv.ArraySpec((3,), "f8"), method="direct")
    assert shortcuts.shortcut(call, call.route.problem, direct, arrays.allocate, None) is None or size == 1
    assert bool(made) == (size == 1)


@pytest.mark.parametrize("function", ["convolve", "correlate"])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_small_call_of_a_new_shape_is_not_lowered(function, mode, dtype, monkeypatch):
    for shape1, shape2 in [((50,), (7,)), ((7,), (50,)), ((1,), (1,)), ((40,), (40,)), ((2, 30), (1, 6)),
                           ((9, 11), (3, 4)), ((3, 4), (9, 11)), ((4, 5, 6), (2, 3, 3))]:
        in1, in2 = (RNG.standard_normal(shape).astype(dtype) for shape in (shape1, shape2))
        lower = getattr(signal, f"_lower_{function}")
        expected = engine.execute(lower(in1, in2, mode, may_swap=True))
        with monkeypatch.context() as patch:
            patch.setattr(signal, f"_lower_{function}", lambda *_, **__: pytest.fail("it was lowered"))
            result = getattr(nconv, function)(in1, in2, mode)
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_allclose(result, getattr(scipy.signal, function)(in1, in2, mode), atol=1e-4)


def lowered(monkeypatch, *arrays, **options):
    """Whether a convolution was lowered, with a look at its result."""
    calls, lower = [], signal._lower_convolve
    with monkeypatch.context() as patch:
        patch.setattr(signal, "_lower_convolve", lambda *a, **o: calls.append(a) or lower(*a, **o))
        result = nconv.convolve(*arrays, **options)
    np.testing.assert_allclose(result, np.convolve(*arrays), rtol=1e-6)
    return bool(calls)


def test_what_is_not_surely_small_is_lowered(monkeypatch):
    assert not lowered(monkeypatch, X, H)
    shortcuts.forget()
    assert lowered(monkeypatch, X[::2], H)
    assert lowered(monkeypatch, X.astype(">f8"), H.astype(">f8"))
    assert lowered(monkeypatch, X.astype("f4"), H)
    assert lowered(monkeypatch, X + 1j, H + 1j)
    assert lowered(monkeypatch, X.tolist(), H)
    assert lowered(monkeypatch, X, H, out=np.empty(56))
    assert lowered(monkeypatch, X, H, axes=0)
    assert lowered(monkeypatch, X, H, method="direct")
    assert lowered(monkeypatch, np.tile(X, 2000), np.tile(H, 100))
    assert lowered(monkeypatch, X, np.append(H, np.nan))
    nconv.set_workspace_limit(1 << 20)
    try:
        assert lowered(monkeypatch, X, H)
    finally:
        nconv.set_workspace_limit(None)


def test_what_was_measured_is_chosen_for_a_new_shape_too(monkeypatch):
    problem = lower_call(nconv.convolve, X, H).route.problem
    monkeypatch.setattr("nconv.wisdom.recall", lambda asked, _: {"direct": 1e-9} if asked == problem else {})
    assert choice.surely_best(problem) is None
    assert choice.surely_best(problem.derived(size=(51,), kernel=(7,))).NAME == "small"
