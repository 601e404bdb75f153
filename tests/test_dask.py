"""Functions on dask arrays: equal to the same function in memory, whatever the chunks, wherever the blocks run."""

import functools
import os
import subprocess
import sys
import textwrap
import threading
import types

import dask
import dask.array as da
import numpy as np
import pytest
from dask.array.core import slices_from_chunks

import nconv
import nconv.dask
from nconv import threads
from nconv.dask import overlap

RNG = np.random.default_rng(7)
IMAGE = RNG.standard_normal((17, 21))
MODES = ("reflect", "grid-mirror", "constant", "grid-constant", "nearest", "mirror", "wrap", "grid-wrap")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
CHUNKINGS = {"even": (8, 8), "one": (-1, -1), "ragged": ((5, 3, 1, 8), (1, 1, 13, 6)), "single": (1, 1)}


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def check(result, expected, exact=False):
    """Shape, dtype and chunks are promised before anything is computed, and kept."""
    assert isinstance(result, da.Array)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    blocks = dask.compute(*result.to_delayed().ravel())
    for place, block in zip(slices_from_chunks(result.chunks), blocks, strict=True):
        assert (block.shape, block.dtype) == (expected[place].shape, expected.dtype)
        np.testing.assert_allclose(block, expected[place], rtol=0, atol=0 if exact else 1e-11 * abs(expected).max())


@pytest.mark.parametrize("chunks", CHUNKINGS.values(), ids=CHUNKINGS)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_signals(name, mode, chunks):
    x = da.from_array(IMAGE, chunks)
    for shape in ((4, 7), (1, 2), (17, 2)):
        kernel = RNG.standard_normal(shape)
        check(getattr(nconv.dask, name)(x, kernel, mode), getattr(nconv, name)(IMAGE, kernel, mode))


def test_signals_of_integers_are_exact():
    x, h = RNG.integers(-99, 99, (40, 3)), RNG.integers(-99, 99, (6, 2))
    check(nconv.dask.convolve(da.from_array(x, 9), h), nconv.convolve(x, h), exact=True)


def test_complex_signals_are_conjugated():
    x = IMAGE + 1j * IMAGE[::-1]
    h = x[:3, :4]
    check(nconv.dask.correlate(da.from_array(x, 9), h, "same"), nconv.correlate(x, h, "same"))


@pytest.mark.parametrize(("shape", "kernels"), [
    ((6, 40), (1, 5)), ((6, 40), (6, 5)), ((1, 40), (6, 5)), ((1, 40), (1, 5))], ids=str)
def test_batches(shape, kernels):
    x, h = RNG.standard_normal(shape), RNG.standard_normal(kernels)
    for mode in ("full", "same", "valid"):
        expected = nconv.convolve(x, h, mode, axes=-1)
        check(nconv.dask.convolve(da.from_array(x, (4, 13)), h, mode, axes=-1), expected)
        check(nconv.dask.convolve(da.from_array(x, (4, 13)), da.from_array(h, 2), mode, axes=-1), expected)


def test_a_signal_ends_where_it_ends_also_for_infinite_taps():
    x, h = np.ones(20), np.array([1.0, np.inf, 2.0])
    np.testing.assert_array_equal(nconv.dask.convolve(da.from_array(x, 6), h).compute(), nconv.convolve(x, h))


def test_a_nan_stays_in_its_window():
    x = IMAGE.copy()
    x[11, 12] = np.nan
    result = nconv.dask.convolve(da.from_array(x, 6), np.ones((3, 4)), "same").compute()
    np.testing.assert_array_equal(np.isnan(result), np.isnan(nconv.convolve(x, np.ones((3, 4)), "same")))


def test_signals_that_are_empty_or_have_no_axes():
    empty = np.zeros((0, 3))
    result = nconv.dask.convolve(da.from_array(empty), np.ones((2, 2)), "same", "direct").compute()
    assert result.shape == nconv.convolve(empty, np.ones((2, 2)), "same", "direct").shape
    assert nconv.dask.convolve(da.from_array(np.array(3.0)), 2.0).compute() == 6.0


@pytest.mark.parametrize("chunks", CHUNKINGS.values(), ids=CHUNKINGS)
@pytest.mark.parametrize("mode", MODES)
def test_images(mode, chunks):
    x = da.from_array(IMAGE, chunks)
    for shape, origin in (((4, 3), (1, -1)), ((1, 8), (0, 3))):
        weights = RNG.standard_normal(shape)
        for name in ("convolve", "correlate"):
            options = dict(mode=mode, cval=2.5, origin=origin)
            check(getattr(nconv.dask.ndimage, name)(x, weights, **options),
                  getattr(nconv.ndimage, name)(IMAGE, weights, **options))


@pytest.mark.parametrize("name", ["convolve1d", "correlate1d"])
def test_lines(name):
    for mode in MODES:
        for axis in (0, -1):
            options = dict(axis=axis, mode=mode, origin=1)
            check(getattr(nconv.dask.ndimage, name)(da.from_array(IMAGE, 7), [1.0, 2.0, 4.0, 8.0], **options),
                  getattr(nconv.ndimage, name)(IMAGE, [1.0, 2.0, 4.0, 8.0], **options))


def test_images_with_a_mode_for_each_axis_and_a_dtype():
    volume = RNG.integers(0, 200, (9, 10, 11)).astype("u1")
    weights = [[0.25, -1.0, 0.5], [2.0, 0.0, 0.125]]
    options = dict(output="i2", mode=["wrap", "mirror"], axes=(2, 0))
    check(nconv.dask.ndimage.correlate(da.from_array(volume, 4), weights, **options),
          nconv.ndimage.correlate(volume, weights, **options), exact=True)


@pytest.mark.parametrize("mode", ["mirror", "wrap"])
def test_blocks_of_another_library_reach_nconv_as_they_are(mode, monkeypatch):
    class Device(np.ndarray):                # stands in for CuPy's arrays: NumPy's functions give the like
        def __array_function__(self, function, types, args, kwargs):
            result = super().__array_function__(function, types, args, kwargs)
            return result.view(Device) if isinstance(result, np.ndarray) else result

    def recording(function):
        @functools.wraps(function)
        def run(input, *args, **kwargs):
            seen.add(type(input))
            return function(np.asarray(input), *args, **kwargs).view(Device)
        return run

    seen = set()
    x = da.from_array(IMAGE, 8).map_blocks(lambda block: block.view(Device), meta=np.empty((0, 0)).view(Device))
    calls = {"correlate": np.ones((3, 4)), "gaussian_filter": 1.5}
    results = {name: getattr(nconv.dask.ndimage, name)(x, argument, mode=mode) for name, argument in calls.items()}
    for name, result in results.items():
        expected = getattr(nconv.ndimage, name)(IMAGE, calls[name], mode=mode)
        with monkeypatch.context() as patch:
            patch.setattr(nconv.ndimage, name, recording(getattr(nconv.ndimage, name)))
            computed = result.compute()
        assert type(result._meta) is type(computed) is Device
        np.testing.assert_allclose(np.asarray(computed), expected, atol=1e-12)
    assert seen == {Device}


FILTERS = [
    ("gaussian_filter1d", dict(sigma=1.3, axis=0, order=1)), ("gaussian_filter1d", dict(sigma=2, radius=3)),
    ("gaussian_filter", dict(sigma=(0.8, 1.7), order=(0, 1))), ("gaussian_filter", dict(sigma=(1.1, 0))),
    ("gaussian_filter", dict(sigma=1.1, axes=1, radius=2)), ("uniform_filter1d", dict(size=4, axis=0, origin=-1)),
    ("uniform_filter", dict(size=(4, 5), origin=(1, -2))), ("uniform_filter", dict(size=(1, 3))),
    ("sobel", dict(axis=0)), ("prewitt", {}), ("laplace", {}), ("laplace", dict(axes=(1,))),
    ("gaussian_laplace", dict(sigma=1.2)), ("gaussian_laplace", dict(sigma=0.9, axes=(0,), truncate=3.0)),
    ("gaussian_gradient_magnitude", dict(sigma=(0.7, 1.2))), ("gaussian_gradient_magnitude", dict(sigma=1, axes=0)),
]


@pytest.mark.parametrize(("name", "options"), FILTERS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FILTERS)])
def test_filters(name, options):
    for mode in MODES:
        for chunks in CHUNKINGS["even"], CHUNKINGS["ragged"]:
            check(getattr(nconv.dask.ndimage, name)(da.from_array(IMAGE, chunks), mode=mode, cval=2.5, **options),
                  getattr(nconv.ndimage, name)(IMAGE, mode=mode, cval=2.5, **options))


def test_filters_of_integers_with_a_mode_for_each_axis():
    volume = RNG.integers(0, 200, (9, 10, 11)).astype("u1")
    for name, options in (("gaussian_filter", dict(sigma=1)), ("uniform_filter", dict(size=3)), ("sobel", {})):
        options |= dict(output="i2", mode=["wrap", "mirror", "nearest"])
        check(getattr(nconv.dask.ndimage, name)(da.from_array(volume, 4), **options),
              getattr(nconv.ndimage, name)(volume, **options), exact=True)


def test_chunks_of_an_image_stay():
    x = da.from_array(IMAGE, (6, 8))
    for mode in ("reflect", "wrap"):
        assert nconv.dask.ndimage.convolve(x, np.ones((4, 3)), mode=mode).chunks == x.chunks
    assert nconv.dask.convolve(x, np.ones((4, 3)), "same").chunks == x.chunks


LAYERS = {
    "plain": {},
    "stride": dict(stride=(2, 3), padding=(1, 2)),
    "dilation": dict(dilation=(2, 1), padding=[(3, 0), (0, 2)]),
    "more padding than window": dict(padding=[(7, 1), (2, 6)], stride=2),
    "same": dict(stride=2, padding="same"),
    "groups": dict(groups=2, padding=1),
}


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_layers(options, padding_mode):
    x = RNG.standard_normal((3, 4, 17, 19))
    weight, bias = RNG.standard_normal((6, 4 // options.get("groups", 1), 3, 2)), RNG.standard_normal(6)
    expected = nconv.conv2d(x, weight, bias, padding_mode=padding_mode, **options)
    for chunks in ((2, 3, 5, 8), (1, 4, (9, 1, 7), 1)):
        check(nconv.dask.conv2d(da.from_array(x, chunks), weight, bias, padding_mode=padding_mode, **options), expected)


def test_layers_of_other_ranks_and_layouts():
    x, weight = RNG.standard_normal((2, 30, 3)), RNG.standard_normal((4, 3, 5))
    check(nconv.dask.conv1d(da.from_array(x, (1, 7, 2)), weight, padding=2, layout="channels_last"),
          nconv.conv1d(x, weight, padding=2, layout="channels_last"))
    x, weight = RNG.standard_normal((2, 9, 8, 7)), RNG.standard_normal((3, 2, 2, 3, 1))
    check(nconv.dask.conv3d(da.from_array(x, 4), da.from_array(weight, 1), stride=2), nconv.conv3d(x, weight, stride=2))
    pointwise = RNG.standard_normal((5, 3, 1, 1))
    x = RNG.standard_normal((2, 3, 6, 7))
    check(nconv.dask.conv2d(da.from_array(x, 3), pointwise), nconv.conv2d(x, pointwise))
    assert nconv.dask.conv2d(da.zeros((0, 3, 6, 7)), pointwise).compute().shape == (0, 5, 6, 7)


# ---------------------------------------------------------------------------------------------------------- Errors


def test_errors_come_before_anything_is_computed():
    x = da.from_array(IMAGE, 8)
    with pytest.raises(TypeError, match="in1 must be a dask array, not ndarray"):
        nconv.dask.convolve(IMAGE, IMAGE)
    with pytest.raises(TypeError, match="weight must be an array, not list"):
        nconv.dask.conv2d(x[None], [[[[1.0]]]])
    with pytest.raises(TypeError, match="output must be a dtype"):
        nconv.dask.ndimage.convolve(x, [[1.0]], output=IMAGE)
    with pytest.raises(ValueError, match="unknown mode"):
        nconv.dask.ndimage.convolve(x, [[1.0]], mode="edge")
    with pytest.raises(ValueError, match="sigma must be above 0"):
        nconv.dask.ndimage.gaussian_filter1d(x, 0)
    with pytest.raises(ValueError, match="mode must be one word for all axes"):
        nconv.dask.ndimage.gaussian_laplace(x, 1, mode=["wrap", "mirror"])
    with pytest.raises(TypeError, match="output must be a dtype"):
        nconv.dask.ndimage.sobel(x, output=IMAGE)
    with pytest.raises(ValueError, match="disagree on channels"):
        nconv.dask.conv2d(x[None], np.ones((1, 2, 3, 3)))
    with pytest.raises(ValueError, match=r"compute_chunk_sizes\(\)"):
        nconv.dask.convolve(x[x[:, 0] > 0], IMAGE)


def test_without_dask_the_error_names_the_extra():
    code = "import sys; sys.modules['dask'] = None; import nconv; nconv.dask"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'nconv[dask]'" in done.stderr.splitlines()[-1]


# --------------------------------------------------------------------------------------------------------- Threads


def test_a_limit_holds_for_one_thread_and_ends():
    before = nconv.get_num_threads()
    with threads.limited(1):
        assert nconv.get_num_threads() == 1
        with threads.limited(max(before, 2)):
            assert nconv.get_num_threads() == before
        assert nconv.get_num_threads() == 1
        others = []
        thread = threading.Thread(target=lambda: others.append(nconv.get_num_threads()))
        thread.start(), thread.join()
        assert others == [before]
    assert nconv.get_num_threads() == before


def test_the_schedulers_share_the_threads(monkeypatch):
    monkeypatch.setattr(threads, "get_num_threads", lambda: 8)

    def seen(blocks):
        return da.ones(1).map_blocks(lambda _: np.array([overlap._threads(blocks)]), dtype=int, meta=np.ones(1, int))

    assert seen(100).compute(scheduler="synchronous")[0] == 8
    for workers, blocks, share in ((4, 100, 2), (4, 2, 4), (16, 100, 1), (4, 1, 8)):
        with dask.config.set(scheduler="threads", num_workers=workers):
            assert seen(blocks).compute()[0] == share


SURVIVE = """
    import multiprocessing, os, numpy as np, dask, dask.array as da, nconv, nconv.dask
    x, h = np.random.default_rng(0).standard_normal(200_000), np.arange(33.0)
    y = nconv.dask.convolve(da.from_array(x, 10_000), h, method="direct")
    expected = np.convolve(x, h)
    def right(scheduler):
        return bool(np.allclose(y.compute(scheduler=scheduler, num_workers=4), expected))
    if __name__ == "__main__":
        assert np.allclose(nconv.convolve(x, h, method="direct"), expected)
        assert right("threads")
        if hasattr(os, "fork"):
            with multiprocessing.get_context("fork").Pool(1) as pool:
                assert pool.map(right, ["synchronous"] * 2) == [True, True]   # dask forks no pool
        print("survived")
"""


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_dask_threads_survive_every_layer(layer, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(SURVIVE))
    env = {**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-W", "ignore", program], env=env, capture_output=True, text=True,
                          timeout=240)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


# ------------------------------------------------------------------------------------------- Files and processes


def test_from_and_to_memory_mapped_files(tmp_path):
    np.save(tmp_path / "in.npy", IMAGE)
    x = da.from_array(np.load(tmp_path / "in.npy", mmap_mode="r"), (8, 8))
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", IMAGE.dtype, IMAGE.shape)
    da.store(nconv.dask.ndimage.convolve(x, np.ones((3, 3))), out, scheduler="threads")
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), nconv.ndimage.convolve(IMAGE, np.ones((3, 3))))


def test_workers_in_several_processes_from_and_to_zarr(tmp_path):
    distributed = pytest.importorskip("distributed")
    zarr = pytest.importorskip("zarr")
    volume, weights = RNG.standard_normal((20, 30, 24)), RNG.standard_normal((3, 4, 5))
    expected = nconv.ndimage.correlate(volume, weights, mode="wrap")       # compiles, for the workers too
    source = zarr.create_array(tmp_path / "in.zarr", shape=volume.shape, chunks=(10, 30, 24), dtype=volume.dtype)
    source[:] = volume
    with (
        dask.config.set(scheduler=None),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
                                 dashboard_address=None, worker_dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        x = da.from_zarr(tmp_path / "in.zarr")
        filtered = nconv.dask.ndimage.correlate(x, weights, mode="wrap")
        filtered.to_zarr(tmp_path / "out.zarr")
        pids = client.run(os.getpid)
        shares = [client.submit(overlap._threads, 100, workers=worker).result() for worker in pids]
    assert len(set(pids.values())) == 2 and os.getpid() not in pids.values()
    assert shares == [1, 1]
    np.testing.assert_allclose(zarr.open_array(tmp_path / "out.zarr")[:], expected, atol=1e-12)


def test_a_volume_streams_from_disk_to_disk(tmp_path):
    from nconv.bench.stream import stream  # compares planes at edges and seams with those in memory

    assert set(stream(tmp_path, 24, (12, 10), 8, RNG.standard_normal((3, 3, 3)))) == {"write", "filter"}


def test_a_numba_that_another_thread_is_importing_is_no_obstacle(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba.core.config", types.ModuleType("numba.core.config"))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    assert threads.max_threads() == 3
