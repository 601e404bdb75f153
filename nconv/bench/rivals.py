"""What nconv is compared with, as far as it is installed: one dictionary for the tables and for asv.

A rival takes (case, x, weight) and returns a function without arguments, or None where it cannot do the case or would
take minutes. Layers go to PyTorch in both memory formats: its users pick one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import threads
from ..geometry import product
from .cases import Case

Run = Callable[[], Any]
_PATIENCE = 4e9                  # multiplications that a rival without FFT is asked for


def _macs(x, weight):
    return product(x.shape) * product(weight.shape)


def _same(case):
    """A signal-family case without batch axes."""
    return case.function == "convolve" and "axes" not in case.options


def scipy_convolve(case: Case, x, weight) -> Run | None:
    """scipy.signal.convolve by its own 'auto'."""
    import scipy.signal

    return (lambda: scipy.signal.convolve(x, weight, case.options["mode"])) if _same(case) else None


def _scipy_transforms(name, case, x, weight):
    """A function of scipy.signal that works by FFT, on as many threads as nconv."""
    import scipy.fft
    import scipy.signal

    if case.function != "convolve":
        return None

    def run():
        with scipy.fft.set_workers(threads.get_num_threads()):
            return getattr(scipy.signal, name)(x, weight, **case.options)

    return run


def scipy_ndimage(case: Case, x, weight) -> Run | None:
    """scipy.ndimage's filter."""
    import scipy.ndimage

    if _macs(x, weight) > _PATIENCE:
        return None
    if case.function == "ndimage.correlate":
        return lambda: scipy.ndimage.correlate(x, weight, **case.options)
    return (lambda: scipy.ndimage.convolve(x, weight, mode="constant")) if _same(case) and _odd(weight) else None


def _odd(weight):
    return all(n % 2 for n in weight.shape)


def numpy_convolve(case: Case, x, weight) -> Run | None:
    """numpy.convolve, which is direct."""
    usable = _same(case) and x.ndim == 1 and x.size >= weight.size and _macs(x, weight) <= _PATIENCE
    return (lambda: np.convolve(x, weight, case.options["mode"])) if usable else None


def opencv(case: Case, x, weight) -> Run | None:
    """cv2.filter2D."""
    import cv2

    if x.ndim != 2 or x.dtype not in ("f4", "f8") or case.options.get("mode") not in ("mirror", "same"):
        return None
    if not (case.function == "ndimage.correlate" or (_same(case) and _odd(weight))):
        return None
    cv2.setNumThreads(threads.get_num_threads())
    if case.function == "convolve":
        flipped = weight[::-1, ::-1].copy()
        return lambda: cv2.filter2D(x, -1, flipped, borderType=cv2.BORDER_CONSTANT)
    return lambda: cv2.filter2D(x, -1, weight, borderType=cv2.BORDER_REFLECT_101)


def _torch(channels_last, case, x, weight):
    """PyTorch on tensors as NumPy has them, or brought into its fast memory format beforehand."""
    import torch

    if case.function == "convolve" or not case.function.startswith(("conv", "grad.")):
        return None
    torch.set_num_threads(threads.get_num_threads())
    spatial = x.ndim - 2
    x, weight = torch.from_numpy(x), torch.from_numpy(weight)
    if channels_last:
        if spatial == 1:
            return None
        form = torch.channels_last if spatial == 2 else torch.channels_last_3d
        x, weight = x.to(memory_format=form), weight.to(memory_format=form)
    functional = torch.nn.functional
    function, options = case.function, dict(case.options)
    if function.startswith("grad."):
        if channels_last:
            return None
        name = function.removeprefix("grad.")
        gradient = getattr(torch.nn.grad, name)
        if name.endswith("_input"):
            size = options.pop("input_size")
            return lambda: gradient(size, weight, x, **options)
        size = options.pop("weight_size")
        return lambda: gradient(x, size, weight, **options)

    def run():
        with torch.inference_mode():
            return getattr(functional, function)(x, weight, **options)

    return run


RIVALS: dict[str, Callable[[Case, np.ndarray, np.ndarray], Run | None]] = {
    "scipy.convolve": scipy_convolve,
    "scipy.fftconvolve": partial(_scipy_transforms, "fftconvolve"),
    "scipy.oaconvolve": partial(_scipy_transforms, "oaconvolve"),
    "scipy.ndimage": scipy_ndimage,
    "numpy": numpy_convolve,
    "opencv": opencv,
    "torch": partial(_torch, False),
    "torch, channels last": partial(_torch, True),
}


def prepare(name: str, case: Case, x: np.ndarray, weight: np.ndarray) -> Run | None:
    """A rival's function for a case, or None where the rival is not installed or does not do it."""
    try:
        return RIVALS[name](case, x, weight)
    except ImportError:
        return None
