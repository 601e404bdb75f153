"""The public functions on arrays of every library that a GPU's machine has, against the same calls on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..cuda.device import SIMULATED, cuda
from .gpu_rivals import cupy_here, torch_here


@cache
def libraries() -> dict[str, tuple[Callable, Callable, type, Callable]]:
    """(host to device, device to host, type of the arrays, another stream as a context) of each library by name."""
    there = cuda.to_device(np.zeros(1))
    found: dict[str, tuple[Callable, Callable, type, Callable]] = {
        "numba": (cuda.to_device, lambda a: a.copy_to_host(), type(there), contextlib.nullcontext)}
    if cupy := cupy_here():
        found["cupy"] = cupy.asarray, cupy.asnumpy, cupy.ndarray, cupy.cuda.Stream
    if torch := torch_here():
        found["torch"] = (lambda a: torch.from_numpy(np.ascontiguousarray(a)).cuda(), lambda a: a.cpu().numpy(),
                          torch.Tensor, lambda: torch.cuda.stream(torch.cuda.Stream()))
    return found


def calls(stream: Callable) -> dict[str, Callable[[Callable], Any]]:
    """Public calls by name: each takes the function that brings a host array to where it is computed."""
    import nconv

    rng = np.random.default_rng(0)
    n, k = (9000, 200) if not SIMULATED else (90, 7)
    half = n // 2 - n // 50                                 # before the loud samples

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype("f4")

    x, w, bias = draw(2, 4, 6, 5), draw(6, 4, 3, 3), draw(6)
    image, window, signal, taps, loud, lost = draw(8, 7), draw(5, 3), draw(n), draw(k), draw(n), draw(n)
    infinite = taps.copy()
    infinite[3], loud[n // 2:n // 2 + 3], lost[n // 3] = np.inf, 1e6, np.nan

    def planned(to: Callable) -> Any:
        plan = nconv.plan(nconv.convolve, to(signal), to(taps))
        with stream():
            return plan(to(signal))

    gaps = image.copy()
    gaps[2:4, 3] = np.nan

    def streamed(to: Callable) -> Any:
        stream = nconv.Stream(to(taps), method="direct")       # which holds nothing back on either side
        stream.feed(to(signal[:half]))
        return stream.feed(to(signal[half:].copy()))

    def trained(to: Callable) -> Any:
        layer = nconv.nn.Conv2d(4, 6, 3, rng=0).to("cpu" if to is np.asarray else "cuda")
        net = nconv.nn.Sequential(layer, nconv.nn.ReLU(), nconv.nn.MaxPool2d(2), nconv.nn.Flatten(),
                                  nconv.nn.Linear(12, 3, rng=0).to(layer.weight.device))
        loss = nconv.nn.CrossEntropyLoss()
        loss(net(to(x)), to(np.array([0, 2])))
        return net.backward(loss.backward())

    return {
        "Stream": streamed,
        "nn, the gradient of a small network": trained,
        "normalized_convolve": lambda to: nconv.normalized_convolve(to(gaps), to(abs(window))),
        "conv2d": lambda to: nconv.conv2d(to(x), to(w), to(bias), padding=1, stride=2),
        "conv2d float16": lambda to: nconv.conv2d(to(x.astype("f2")), to(w.astype("f2")), padding=1, method="im2col"),
        "conv_transpose2d": lambda to: nconv.conv_transpose2d(to(x), to(w.swapaxes(0, 1).copy()), stride=2),
        "grad.conv2d_weight": lambda to: nconv.grad.conv2d_weight(to(x), (4, 4, 3, 3), to(x[:, :, 2:, 2:].copy())),
        "convolve": lambda to: nconv.convolve(to(signal), to(taps)),
        "convolve, infinite tap": lambda to: nconv.convolve(to(signal), to(infinite)),
        "fftconvolve, loud": lambda to: nconv.fftconvolve(to(loud), to(taps))[:half],
        "fftconvolve, NaN": lambda to: nconv.fftconvolve(to(lost), to(taps)),
        "ndimage.correlate": lambda to: nconv.ndimage.correlate(to(image), to(window), mode="wrap"),
        "ndimage.gaussian_filter": lambda to: nconv.ndimage.gaussian_filter(to(image), 0.5),
        "ndimage.gaussian_gradient_magnitude": lambda to: nconv.ndimage.gaussian_gradient_magnitude(to(image), 0.5),
        "plan on another stream": planned,
    }


@cache
def _on_the_host(name: str) -> np.ndarray:
    return calls(contextlib.nullcontext)[name](np.asarray)


def verify_call(library: str, name: str) -> dict[str, Any]:
    """One call on one library's arrays."""
    to, back, kind, stream = libraries()[library]
    expected, result = _on_the_host(name), calls(stream)[name](to)
    cuda.synchronize()                                  # it may have been computed on another stream
    host = np.asarray(back(result)).astype(expected.dtype)
    largest = np.abs(expected[np.isfinite(expected)]).max()
    if host.shape != expected.shape:
        return {"ok": False, "fault": f"shape {host.shape}, on the host {expected.shape}"}
    close = np.allclose(host, expected, rtol=2e-3, atol=2e-3 * largest, equal_nan=True)
    return {"ok": bool(close and isinstance(result, kind)), "kind": type(result).__name__,
            "largest_difference": float(np.abs((host - expected)[np.isfinite(host) & np.isfinite(expected)]).max(
                initial=0))}
