"""Each method and each rival on each problem."""

import numpy as np

import nconv

from . import cases, rivals


class Signals:
    """scipy.signal's family."""

    params = (list(cases.SIGNALS), ["float32", "float64"], ["auto", "direct", "im2col", "fft", *rivals.SIGNALS])
    param_names = ("problem", "dtype", "method")

    def setup(self, problem, dtype, method):
        x, w = cases.SIGNALS[problem]
        if np.prod(w) * np.prod(x) > 1e9 and method in ("direct", "im2col", "scipy.ndimage"):
            raise NotImplementedError("takes seconds")
        rng = np.random.default_rng(0)
        x, w = rng.standard_normal(x).astype(dtype), rng.standard_normal(w).astype(dtype)
        rival = rivals.SIGNALS.get(method)
        self.run = (lambda: rival(x, w)) if rival else (lambda: nconv.convolve(x, w, "same", method=method))
        self.run()

    def time_convolve(self, problem, dtype, method):
        self.run()


class Layers:
    """PyTorch's family."""

    params = (list(cases.LAYERS), ["float32", "float64"], ["auto", "direct", "im2col", "fft", *rivals.LAYERS])
    param_names = ("problem", "dtype", "method")

    def setup(self, problem, dtype, method):
        x, w, options = cases.LAYERS[problem]
        rng = np.random.default_rng(0)
        x, w = rng.standard_normal(x).astype(dtype), rng.standard_normal(w).astype(dtype)
        rival = rivals.LAYERS.get(method)
        self.run = (lambda: rival(x, w, **options)) if rival else (
            lambda: nconv.conv2d(x, w, **options, method=method))
        self.run()

    def time_conv2d(self, problem, dtype, method):
        self.run()
