"""A real photograph and a real recording through every family, with every method's time and SciPy's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import nconv
from nconv.bench.measure import median_seconds


class Job(NamedTuple):
    """One line of the table."""

    name: str
    function: Callable
    arguments: tuple
    keywords: dict
    scipy: Callable[[], NDArray]


def _jobs(photograph: NDArray, recording: NDArray) -> list[Job]:
    import scipy.ndimage
    import scipy.signal

    axis = np.arange(-7, 8)
    blur = np.exp(-np.add.outer(axis ** 2, axis ** 2) / 18).astype("f4")
    blur /= blur.sum()
    sobel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], "f4")
    wide = np.hypot(*np.meshgrid(np.arange(-50, 51), np.arange(-50, 51)))
    disc = ((wide < 50) & (wide > 20)).astype("f4")
    disc /= disc.sum()
    beat = recording[300:500][::-1].copy()
    beat -= beat.mean()
    rng = np.random.default_rng(0)
    room = (rng.standard_normal(recording.size) * np.exp(-np.arange(recording.size) / 300)).astype("f4")
    layer = photograph[90:218, 170:298]
    maps = np.stack([np.roll(layer, k, 1) for k in range(32)]).astype("f4")
    weight = rng.standard_normal((32, 32, 3, 3)).astype("f4") / 17

    def scipy_layer():
        return np.stack([sum(scipy.signal.correlate(m, w, "same") for m, w in zip(maps, k, strict=True))
                         for k in weight])

    def scipy_gradient():
        return np.array([[scipy.signal.correlate(np.pad(m, 1), o, "valid") for m in maps[:4]] for o in maps[:4]])

    def scipy_transposed():
        spread = np.zeros((4, 255, 255), "f4")
        spread[:, ::2, ::2] = maps[:4]
        return np.stack([sum(scipy.signal.convolve(s, w, "full") for s, w in zip(spread, weight[:4, k], strict=True))
                         for k in range(4)])

    return [
        Job("blur, 15x15", nconv.convolve, (photograph, blur, "same"), {},
            lambda: scipy.signal.convolve(photograph, blur, "same")),
        Job("edges, 3x3", nconv.ndimage.correlate, (photograph, sobel), {"mode": "reflect"},
            lambda: scipy.ndimage.correlate(photograph, sobel, mode="reflect")),
        Job("point spread, 101x101", nconv.convolve, (photograph, disc, "same"), {},
            lambda: scipy.signal.convolve(photograph, disc, "same")),
        Job("matched filter, 200 taps", nconv.correlate, (recording, beat[::-1].copy(), "same"), {},
            lambda: scipy.signal.correlate(recording, beat[::-1].copy(), "same")),
        Job("reverb, as long as the signal", nconv.convolve, (recording, room), {},
            lambda: scipy.signal.convolve(recording, room)),
        Job("layer, 32 -> 32 channels", nconv.conv2d, (maps, weight), {"padding": "same"}, scipy_layer),
        Job("transposed layer, stride 2", nconv.conv_transpose2d, (maps[:4], weight[:4, :4]), {"stride": 2},
            scipy_transposed),
        Job("gradient of a layer's weight", nconv.grad.conv2d_weight, (maps[:4], (4, 4, 3, 3), maps[:4]),
            {"padding": 1}, scipy_gradient),
    ]


def run(output: str) -> None:
    """Run the demo, print its table, write its picture."""
    import rich
    import rich.table
    from rich.progress import track

    try:
        import pywt
        import skimage.data
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"the demo needs {error.name}: pip install 'nconv[demo]'") from None
    photograph = skimage.data.camera().astype("f4") / 255
    recording = pywt.data.ecg().astype("f4")
    rich.print("Photograph: 'camera' of scikit-image (CC0, by Lav Varshney). Recording: an electrocardiogram from "
               "PyWavelets (MIT licence; MIT-BIH arrhythmia database).")
    table = rich.table.Table("job", "method", "why", "times [ms]", "SciPy [ms]", "largest difference")
    pictures = {}
    for job in track(_jobs(photograph, recording), "convolving"):
        result = pictures[job.name] = job.function(*job.arguments, **job.keywords)
        plan = nconv.plan(job.function, *job.arguments, **job.keywords)
        allowed = [c.name for c in plan.candidates if not c.refused]
        has_method = job.function not in (nconv.ndimage.correlate, nconv.grad.conv2d_weight)
        methods = allowed if has_method else []

        def call(job: Job = job, **method: str) -> NDArray:
            return job.function(*job.arguments, **job.keywords, **method)

        runs: list[Callable[[], Any]] = [call, job.scipy, *(partial(call, method=name) for name in methods)]
        ours, theirs, *each = median_seconds(*runs, rounds=3)
        estimates = ", ".join(f"{c.name} {c.seconds * 1e3:.2g}" for c in plan.candidates if not c.refused)
        times = ", ".join([f"auto {ours * 1e3:.3g}", *(f"{name} {t * 1e3:.3g}" for name, t in zip(
            methods, each, strict=True))])
        difference = np.abs(result - job.scipy()).max()
        table.add_row(job.name, plan.method, f"least of {estimates} ms", times, f"{theirs * 1e3:.3g}",
                      f"{difference:.1e}")
    rich.print(table)

    figure = Figure(figsize=(12, 9), layout="constrained")
    panels = figure.subplots(3, 3).ravel()
    for axes, (name, picture) in zip(panels, [("photograph", photograph), ("recording", recording), *pictures.items()],
                                     strict=False):
        axes.set_title(name)
        if picture.ndim == 1:
            axes.plot(picture, lw=0.7)
        else:
            while picture.ndim > 2:
                picture = picture[0]
            darkest, brightest = np.percentile(picture, (1, 99))       # a padded edge may outshine all else
            axes.imshow(picture, cmap="gray", vmin=darkest, vmax=brightest)
            axes.set_axis_off()
    path = Path(output).resolve()
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")
