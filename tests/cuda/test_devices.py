"""Arrays of a GPU through the public functions, in the simulator: kinds, streams, mixtures, views."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest

import nconv
from nconv import registry
from nconv.cuda import device
from nconv.cuda.views import DeviceArray, reshaped_strides

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 4, 9, 8)).astype("f4")
W = rng.standard_normal((6, 4, 3, 3)).astype("f4")
B = rng.standard_normal(6).astype("f4")


class Foreign:
    """An array of a library that nconv does not know, or of the CuPy that `pretended_cupy` makes."""

    def __init__(self, array, stream=None):
        self.array, self.stream = array, stream
        self.shape, self.dtype = array.shape, array.dtype

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.array.shape, "strides": self.array.strides, "typestr": self.array.dtype.str,
                "data": (self.array.ctypes.data, False), "version": 3, "stream": self.stream}


@pytest.fixture
def pretended_cupy(monkeypatch):
    """A module of CuPy's name with what nconv calls of it."""
    class Pointer:
        def __init__(self, base, offset=0):
            self.base, self.offset, self.ptr = base, offset, base.ctypes.data + offset

        def __add__(self, offset):
            return Pointer(self.base, self.offset + offset)

    class ndarray(Foreign):
        device = types.SimpleNamespace(id=0)

        def __init__(self, array, dtype=None, memptr=None, strides=None):
            if memptr is not None:
                flat = memptr.base.reshape(-1).view("u1")[memptr.offset:]
                array = np.ndarray(array, dtype, flat, strides=strides)
            super().__init__(array)
            self.data = Pointer(array if memptr is None else memptr.base, 0 if memptr is None else memptr.offset)

    ndarray.__module__ = "cupy"
    module = types.ModuleType("cupy")
    module.ndarray = ndarray
    module.empty = lambda shape, dtype: ndarray(np.empty(shape, dtype))
    module.cuda = types.SimpleNamespace(get_current_stream=lambda: types.SimpleNamespace(ptr=77))
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def host(array):
    """The values of any of these."""
    if isinstance(array, DeviceArray):
        flat = array.memory()
        return np.lib.stride_tricks.as_strided(flat[array.extent()[0]:], array.shape, array.strides)
    return array.array if isinstance(array, Foreign) else np.asarray(array.copy_to_host())


def calls(wrap):
    """(the result of a public call on wrapped arrays, of the same call on the host) for every family."""
    image, window = X[0, 0], W[0, 0]
    yield nconv.conv2d(wrap(X), wrap(W), wrap(B), padding=1, stride=2), nconv.conv2d(X, W, B, padding=1, stride=2)
    yield nconv.conv2d(wrap(X), wrap(W[:, :2]), groups=2), nconv.conv2d(X, W[:, :2], groups=2)
    last = np.ascontiguousarray(np.moveaxis(X, 1, -1))
    yield nconv.conv2d(wrap(last), wrap(W), layout="channels_last"), nconv.conv2d(last, W, layout="channels_last")
    yield (nconv.conv_transpose2d(wrap(X), wrap(W.swapaxes(0, 1).copy()), wrap(B), stride=2),
           nconv.conv_transpose2d(X, W.swapaxes(0, 1).copy(), B, stride=2))
    g = rng.standard_normal((2, 6, 7, 6)).astype("f4")
    yield nconv.grad.conv2d_input(X.shape, wrap(W), wrap(g)), nconv.grad.conv2d_input(X.shape, W, g)
    yield nconv.grad.conv2d_weight(wrap(X), W.shape, wrap(g)), nconv.grad.conv2d_weight(X, W.shape, g)
    yield nconv.convolve(wrap(image), wrap(window)), nconv.convolve(image, window)
    yield nconv.correlate(wrap(image + 1j), wrap(window * 1j), "same"), nconv.correlate(image + 1j, window * 1j, "same")
    yield nconv.convolve2d(wrap(image), wrap(window), "same", "symm"), nconv.convolve2d(image, window, "same", "symm")
    whole = (image * 9).astype("i2")
    yield nconv.ndimage.convolve(wrap(whole), wrap(window)), nconv.ndimage.convolve(whole, window)
    yield nconv.ndimage.correlate1d(wrap(image), wrap(window[0]), 0), nconv.ndimage.correlate1d(image, window[0], 0)


def test_numba_arrays_come_back_as_numba_arrays():
    from numba import cuda

    for result, expected in calls(lambda array: cuda.to_device(np.ascontiguousarray(array))):
        assert type(result) is type(cuda.to_device(X))
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(host(result), expected, rtol=1e-4, atol=1e-4)


def test_cupy_arrays_come_back_as_cupy_arrays(pretended_cupy, monkeypatch):
    seen = set()
    monkeypatch.setattr("nconv.cuda.device.cuda.external_stream", seen.add)
    from nconv.cuda.device import stream_of

    stream_of.cache_clear()
    for result, expected in calls(pretended_cupy.ndarray):
        assert type(result) is pretended_cupy.ndarray
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(host(result), expected, rtol=1e-4, atol=1e-4)
    stream_of.cache_clear()
    assert seen == {77}


@pytest.fixture
def orders(monkeypatch):
    """What is said to streams about each other; waiting on the host is an error."""
    said = []

    class Event:
        def record(self, stream):
            said.append(f"record {stream}")

        def wait(self, stream):
            said.append(f"{stream} waits")

    def never(*_):
        raise AssertionError("the host waits")

    for name, stand_in in (("event", Event), ("external_stream", int), ("synchronize", never)):
        monkeypatch.setattr(device.cuda, name, stand_in)
    device.stream_of.cache_clear()
    yield said
    device.stream_of.cache_clear()


@pytest.mark.parametrize("method", ["direct", "im2col", "fft"])
def test_streams_wait_for_each_other_and_the_host_for_none(method, orders):
    expected = nconv.conv2d(X, W, B)
    nconv.conv2d(Foreign(X, 5), Foreign(W, 5), Foreign(B, 5), method=method)
    assert not orders
    result = nconv.conv2d(Foreign(X, 5), Foreign(W, 6), Foreign(B, 7), method=method)
    np.testing.assert_allclose(host(result), expected, rtol=1e-4, atol=1e-4)
    assert orders[:2] == ["record 6", "5 waits"] and set(orders) == {"record 6", "record 7", "5 waits"}
    orders.clear()
    out = Foreign(np.empty((2, 6, 7, 6), "f4"), 8)
    assert nconv.conv2d(Foreign(X, 5), Foreign(W, 5), Foreign(B, 5), method=method, out=out) is out
    assert orders == ["record 5", "8 waits"]
    np.testing.assert_allclose(out.array, expected, rtol=1e-4, atol=1e-4)


def test_a_plan_runs_on_any_stream_without_the_one_on_which_it_was_made(orders):
    plan = nconv.plan(nconv.conv2d, nconv.ArraySpec(X.shape, "f4", "cuda"), Foreign(W, 6))
    assert set(orders) == {"record 6"}
    for stream in (6, 7, 2):
        orders.clear()
        plan(Foreign(X, stream))
        assert orders and set(orders) == {f"{stream} waits"}


def test_an_array_of_another_gpu_is_refused(pretended_cupy):
    there = pretended_cupy.ndarray(X)
    there.device = types.SimpleNamespace(id=3)
    with pytest.raises(nconv.DeviceError, match=r"input lies on GPU 3, kernels run on GPU 0.*cupy.cuda.Device\(3\)"):
        nconv.conv2d(there, pretended_cupy.ndarray(W))


def test_numpy_arrays_come_back_from_the_device(monkeypatch):
    used = []
    direct = registry.algorithms("cuda")[0]
    plain = direct.run
    monkeypatch.setattr(direct, "run", lambda *args: (used.append(1), plain(*args)))
    result = nconv.conv2d(X, W, B, method="direct", device="cuda")
    assert isinstance(result, np.ndarray) and used
    np.testing.assert_allclose(result, nconv.conv2d(X, W, B), rtol=1e-4, atol=1e-4)


def test_out_and_plan():
    out = np.empty((2, 6, 7, 6), "f4")
    assert nconv.conv2d(X, W, device="cuda", out=out) is out
    np.testing.assert_allclose(out, nconv.conv2d(X, W), rtol=1e-4, atol=1e-4)
    target = Foreign(np.empty((2, 6, 7, 6), "f4"))
    plan = nconv.plan(nconv.conv2d, nconv.ArraySpec(X.shape, "f4", "cuda"), Foreign(W))
    assert plan(Foreign(X), out=target) is target
    np.testing.assert_allclose(target.array, out, rtol=1e-4, atol=1e-4)
    assert plan.problem.device == "cuda"
    with pytest.raises(nconv.DeviceError, match="x on the host"):
        plan(X)


@pytest.mark.parametrize("arguments, words", [
    ((X, Foreign(W)), "weight on the GPU, input on the host"),
    ((Foreign(X), W), "input on the GPU, weight on the host"),
    ((Foreign(X), Foreign(W), B), "input and weight on the GPU, bias on the host"),
])
def test_mixtures_are_refused(arguments, words):
    with pytest.raises(nconv.DeviceError, match=words):
        nconv.conv2d(*arguments)


def test_refusals():
    with pytest.raises(nconv.DeviceError, match="device='cpu'"):
        nconv.conv2d(Foreign(X), Foreign(W), device="cpu")
    with pytest.raises(nconv.DeviceError, match="out on the host"):
        nconv.conv2d(Foreign(X), Foreign(W), out=np.empty((2, 6, 7, 6), "f4"))
    with pytest.raises(ValueError, match=r"out.shape=\(3,\)"):
        nconv.conv2d(Foreign(X), Foreign(W), out=Foreign(np.empty(3, "f4")))
    with pytest.raises(TypeError, match="byte order"):
        nconv.conv2d(Foreign(X.astype(">f4")), Foreign(W))
    with pytest.raises(TypeError, match="silently"):
        np.asarray(registry.arrays("cuda").view(Foreign(X), "x"))
    with pytest.raises(ValueError, match="weight is larger"):
        nconv.conv2d(Foreign(X[..., :2]), Foreign(W))


@pytest.mark.parametrize("shape, new", [
    ((2, 3, 4), (6, 4)), ((2, 3, 4), (2, 12)), ((2, 3, 4), (24,)), ((6, 4), (2, 3, 1, 4)), ((1, 6), (6, 1)),
    ((4,), (2, 2)), ((3, 4), (4, 3)), ((2, 1, 3), (1, 6))])
def test_views_have_numpys_strides(shape, new):
    for order in ("C", "F"):
        for array in (np.zeros(shape, "f4", order), np.zeros((*shape, 2), "f4")[..., 0], np.zeros(shape, "f4")[::-1]):
            strides = reshaped_strides(array.shape, array.strides, new)
            try:
                expected = array.reshape(new)
                same = np.shares_memory(expected, array)
            except ValueError:
                same = False
            assert (strides is not None) == same
            if same:
                assert [s for s, n in zip(strides, new, strict=True) if n > 1] == [
                    s for s, n in zip(expected.strides, new, strict=True) if n > 1]


def test_results_reach_the_host_by_a_method_that_numbas_arrays_have():
    """The simulator's arrays are NumPy's, so that this line of the real device runs nowhere else without a GPU."""
    program = """
from types import SimpleNamespace
from unittest.mock import create_autospec
import numpy as np
from numba.cuda.cudadrv.devicearray import DeviceNDArray
from nconv.cuda import arrays, device
assert not device.SIMULATED
flat = SimpleNamespace(array=create_autospec(DeviceNDArray, instance=True))
flat.array.copy_to_host.return_value = np.arange(6.0)
result = SimpleNamespace(contiguous=True, shape=(2, 3), dtype=np.dtype("f8"), memory=lambda: flat)
np.testing.assert_array_equal(arrays.to_host(result), [[0, 1, 2], [3, 4, 5]])
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "0"})
