"""nconv behind SciPy's names: what is rebound and restored, what goes back to SciPy, and what is counted."""

import inspect
import pickle
import subprocess
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from scipy.ndimage import convolve1d as imported_before
from scipy.signal import fftconvolve as kept

import nconv

SIGNAL = ("convolve", "correlate", "fftconvolve", "oaconvolve", "convolve2d", "correlate2d", "choose_conv_method")
NDIMAGE = ("convolve", "correlate", "convolve1d", "correlate1d")
PLACES = [(scipy.signal, name) for name in SIGNAL] + [(scipy.ndimage, name) for name in NDIMAGE]
X = np.arange(12.0).reshape(3, 4)
W = np.array([[0.0, 1.0, 10.0]])


def snapshot():
    """Every attribute of every module that is one of SciPy's functions, with its identity."""
    names = set(SIGNAL + NDIMAGE)
    return {(module_name, name): id(value) for module_name, module in list(sys.modules.items())
            if issubclass(type(module), types.ModuleType) for name, value in list(vars(module).items())
            if name in names and callable(value)}


@pytest.fixture(autouse=True)
def clean():
    before = snapshot()
    yield
    after = snapshot()
    assert {key: after[key] for key in before} == before, "a test left the patch in force"


@pytest.mark.parametrize(("module", "name"), PLACES, ids=lambda value: getattr(value, "__name__", value))
def test_every_function_runs_in_nconv_and_agrees(module, name):
    line = name.endswith("1d")
    args = (X, W[0]) if line else (X, W)
    expected = getattr(module, name)(*args)
    with nconv.patch_scipy() as patch:
        result = getattr(module, name)(*args)
    if isinstance(expected, str):
        assert result in ("direct", "fft")
    else:
        np.testing.assert_allclose(result, expected, atol=1e-12)
    assert patch.ran == {f"{module.__name__}.{name}": 1}
    assert patch.handed_back == {}


def test_names_imported_earlier_are_served():
    with nconv.patch_scipy() as patch:
        imported_before(X, [1, 2])
    assert patch.ran == {"scipy.ndimage.convolve1d": 1}
    assert f"{__name__}.imported_before" in patch.places["scipy.ndimage.convolve1d"]
    imported_before(X, [1, 2])
    assert patch.ran == {"scipy.ndimage.convolve1d": 1}


def test_scipy_itself_is_served():
    expected = scipy.ndimage.gaussian_filter(X, 1), scipy.signal.savgol_filter(X, 3, 1)
    with nconv.patch_scipy() as patch:
        result = scipy.ndimage.gaussian_filter(X, 1), scipy.signal.savgol_filter(X, 3, 1)
    np.testing.assert_allclose(result[0], expected[0])
    np.testing.assert_allclose(result[1], expected[1])
    assert patch.ran == {"scipy.ndimage.correlate1d": 2, "scipy.ndimage.convolve1d": 1}


def test_modules_imported_meanwhile_are_restored(monkeypatch):
    module = types.ModuleType("imported_meanwhile")
    with nconv.patch_scipy() as patch:
        exec("from scipy.signal import convolve as c\ndef f(): return c([1, 2], [1, 10])", module.__dict__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        module.f()
    assert patch.ran == {"scipy.signal.convolve": 1}
    assert module.c is scipy.signal.convolve
    assert module.f().tolist() == [1, 12, 20]
    assert patch.ran == {"scipy.signal.convolve": 1}


def test_a_wrapper_that_somebody_kept_runs_scipy_afterwards():
    with nconv.patch_scipy() as patch:
        keeper = {"f": scipy.signal.convolve}
    assert keeper["f"] is not scipy.signal.convolve
    assert keeper["f"]([1, 2], [1, 10]).tolist() == [1, 12, 20]
    assert patch.ran == {}
    with nconv.patch_scipy() as patch:
        keeper["f"]([1, 2], [1, 10])
    assert patch.ran == {"scipy.signal.convolve": 1}


def test_lazy_modules_stay_asleep(monkeypatch):
    class Lazy(types.ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(f"somebody asked a lazy module for {name}")

    monkeypatch.setitem(sys.modules, "some_lazy_module", Lazy("some_lazy_module"))
    monkeypatch.setitem(sys.modules, "no_module_at_all", None)
    nconv.patch_scipy().unpatch()
    monkeypatch.undo()


def test_what_only_says_that_it_is_a_module_is_left_alone(monkeypatch):
    class Library:                                      # as _cffi_backend.Lib, which `import` finds under its name too
        __slots__ = ()
        __class__ = types.ModuleType

    monkeypatch.setitem(sys.modules, "some_library", Library())
    with nconv.patch_scipy() as patch:
        scipy.signal.convolve(X, W)
    assert patch.ran == {"scipy.signal.convolve": 1}


def test_an_exception_restores_everything():
    with pytest.raises(ZeroDivisionError), nconv.patch_scipy() as patch:
        raise ZeroDivisionError
    assert not patch.active


def test_unpatch_may_be_called_again():
    patch = nconv.patch_scipy()
    assert patch.active
    patch.unpatch()
    patch.unpatch()
    assert not patch.active


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_patches_nest_in_any_order(order):
    original = scipy.signal.convolve
    patches = nconv.patch_scipy(), nconv.patch_scipy()
    wrapper = scipy.signal.convolve
    assert patches[0].places.keys() == patches[1].places.keys()
    scipy.signal.convolve([1], [1])
    patches[order[0]].unpatch()
    assert scipy.signal.convolve is wrapper
    scipy.signal.convolve([1], [1])
    patches[order[1]].unpatch()
    assert scipy.signal.convolve is original
    assert patches[order[0]].ran == {"scipy.signal.convolve": 1}
    assert patches[order[1]].ran == {"scipy.signal.convolve": 2}


# ------------------------------------------------------------------------------------------- Handed back to SciPy

FOREIGN = {
    "objects": (np.array([1, 2, 3], object), np.array([0, 1, 10], object)),
    "longdouble": (np.array([1, 2, 3], np.longdouble), np.array([0, 1, 10], np.longdouble)),
    "masked": (np.ma.array([1, 2, 3], mask=[0, 1, 0]), np.array([0, 1, 10])),
    "matrix": (np.array([[1, 2, 3]]).view(np.matrix), np.array([[0, 1, 10]])),
}


class Foreign:
    """An array of a library that speaks the array API."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array_namespace__(self, api_version=None):
        return np

    def __array__(self, dtype=None, copy=None):
        return self.values


@pytest.mark.parametrize("inputs", [*FOREIGN.values(), (Foreign([1, 2, 3]), [0, 1, 10])], ids=[*FOREIGN, "array API"])
@pytest.mark.parametrize("name", ["convolve", "correlate", "fftconvolve"])
def test_what_nconv_does_not_take_goes_back(name, inputs):
    def outcome():
        try:
            return getattr(scipy.signal, name)(*inputs)
        except Exception as error:
            return error

    expected = outcome()
    with nconv.patch_scipy() as patch:
        result = outcome()
    assert type(result) is type(expected)
    if isinstance(expected, Exception):
        assert str(result) == str(expected)
    else:
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result.astype(float), expected.astype(float), atol=1e-12)
    assert patch.ran == {}
    assert sum(patch.handed_back.values()) == 1              # and SciPy's calls of itself were not nconv's either


WRONG = [
    (scipy.signal, "convolve", ([1, 2], [[1]]), {}),
    (scipy.signal, "convolve", ([1, 2], [1], "maximal"), {}),
    (scipy.signal, "convolve", ([1, 2], [1], "FULL"), {}),
    (scipy.signal, "convolve", ([1, 2], [1]), {"method": "im2col"}),
    (scipy.signal, "convolve", ([1, 2], [1]), {"axes": 0}),
    (scipy.signal, "convolve", ([1, 2], [1], "full", "auto", None), {}),
    (scipy.signal, "convolve", ([1, 2], [1]), {"in2": [1]}),
    (scipy.signal, "convolve", ([1, 2],), {}),
    (scipy.signal, "fftconvolve", ([1, 2], [1, 2]), {"axes": [5]}),
    (scipy.signal, "correlate", ([[1, 2]], [[1], [2]], "valid"), {}),
    (scipy.signal, "convolve2d", ([1, 2], [1]), {}),
    (scipy.signal, "convolve2d", ([[1, 2]], [[1]]), {"boundary": "mirror"}),
    (scipy.ndimage, "convolve", ([1, 2], [[1]]), {}),
    (scipy.ndimage, "convolve", ([1, 2], [1, 1]), {"mode": "fill"}),
    (scipy.ndimage, "convolve", ([[1, 2]], [[1, 1]]), {"mode": ["wrap", "nearest"]}),
    (scipy.ndimage, "convolve", ([1, 2], [1, 1]), {"origin": 7}),
    (scipy.ndimage, "correlate1d", ([1, 2], [1, 1]), {"axis": 3}),
    (scipy.ndimage, "correlate1d", (np.ones(3, np.float16), [1, 1]), {}),
    (scipy.ndimage, "correlate1d", ([1, 2], [1, 1]), {"output": "float16"}),
    (scipy.ndimage, "correlate1d", ([1, 2], [1, 1]), {"output": np.zeros(3)}),
]


@pytest.mark.parametrize(("module", "name", "args", "kwargs"), WRONG)
def test_errors_are_scipys(module, name, args, kwargs):
    def error():
        with pytest.raises(Exception) as caught:
            getattr(module, name)(*args, **kwargs)
        return caught.value

    expected = error()
    with nconv.patch_scipy() as patch:
        result = error()
    assert type(result) is type(expected)
    assert str(result) == str(expected)
    assert result.__context__ is None or type(result.__context__) is type(expected.__context__)
    assert patch.ran == {}
    assert sum(patch.handed_back.values()) == 1


def test_a_nan_through_a_forced_fft_warns_and_stays_local():
    x = np.ones(100)
    x[50] = np.nan
    with nconv.patch_scipy(), pytest.warns(RuntimeWarning, match="Use of fft convolution") as caught:
        result = scipy.signal.convolve(x, np.ones(5), mode="same", method="fft")
    assert np.isnan(result).sum() == 5
    assert caught[0].filename == __file__
    with nconv.patch_scipy(), warnings.catch_warnings():
        warnings.simplefilter("error")
        scipy.signal.convolve(x, np.ones(5), mode="same")


def test_memory_maps_are_arrays(tmp_path):
    x = np.memmap(tmp_path / "x", np.float64, "w+", shape=(5,))
    x[:] = [1, 2, 3, 4, 5]
    with nconv.patch_scipy() as patch:
        result = scipy.signal.convolve(x, [1, 10])
    assert type(result) is np.ndarray
    assert result.tolist() == [1, 12, 23, 34, 45, 50]
    assert patch.ran == {"scipy.signal.convolve": 1}


def test_output_arrays_are_filled():
    output = np.zeros(3, ">f4")
    with nconv.patch_scipy() as patch:
        result = scipy.ndimage.correlate1d([1, 2, 3], [0, 1, 10], output=output)
    assert result is output
    assert output.tolist() == [21, 32, 33]
    assert patch.ran == {"scipy.ndimage.correlate1d": 1}


# --------------------------------------------------------------------------------------------------- The report


@pytest.mark.parametrize(("module", "name"), PLACES, ids=lambda value: getattr(value, "__name__", value))
def test_wrappers_look_like_scipys_functions(module, name):
    original = getattr(module, name)
    with nconv.patch_scipy():
        wrapper = getattr(module, name)
        assert wrapper is not original
        assert wrapper.__wrapped__ is original
        assert inspect.signature(wrapper) == inspect.signature(original)
        assert (wrapper.__name__, wrapper.__module__, wrapper.__doc__) == (name, original.__module__, original.__doc__)
        assert pickle.loads(pickle.dumps(wrapper)) is wrapper


def test_the_report_tells_names_places_counts_and_reasons():
    with nconv.patch_scipy() as patch:
        kept([1, 2, 3], [1, 2, 3])
        scipy.signal.convolve(np.array([1, 2], object), [1, 2])
        assert "in force" in repr(patch)
        assert "11 functions" in repr(patch)
    assert "undone" in repr(patch)
    assert "1 run by nconv, 1 handed back" in repr(patch)
    report = patch.report()
    assert "scipy.signal.fftconvolve: 1 calls run by nconv" in report
    assert f"{__name__}.kept" in report
    assert "scipy.signal._signaltools.convolve" in report
    assert "1 handed back: TypeError: in1: dtype object is not supported" in report


def test_reasons_are_bounded():
    with nconv.patch_scipy() as patch:
        for n in range(200):
            with pytest.raises(ValueError):
                scipy.signal.convolve([1], np.ones((1, n + 1)))
    assert len(patch.handed_back) <= 65
    assert sum(patch.handed_back.values()) == 200


def test_counts_of_many_threads_add_up():
    barrier = threading.Barrier(8)

    def work(n):
        barrier.wait()
        for _ in range(50):
            scipy.signal.convolve([1, 2], [1, 10])
            scipy.signal.convolve(np.array([1, 2], object), [1, 10])

    with nconv.patch_scipy() as patch, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert patch.ran == {"scipy.signal.convolve": 400}
    assert sum(patch.handed_back.values()) == 400


def test_importing_nconv_imports_no_scipy_signal():
    code = ("import sys, nconv; assert 'scipy.signal' not in sys.modules; nconv.patch_scipy(); import scipy.signal; "
            "print(scipy.signal.convolve([1, 2], [1, 10]).tolist(), scipy.signal.convolve.__wrapped__.__name__)")
    root = nconv.__path__[0] + "/.."
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.split() == ["[1,", "12,", "20]", "convolve"], done.stderr
