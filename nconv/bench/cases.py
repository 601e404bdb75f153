"""Realistic problems of every family, for `nconv bench`, the result tables and asv."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

import nconv

from ..geometry import product
from ..lowering import lower


class Case(NamedTuple):
    """One problem: a public function of nconv, the shapes of its two arrays, its keywords."""

    family: str
    name: str
    function: str                # dotted below nconv
    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any]
    names: tuple[str, ...] = ()  # of the two arrays among the function's arguments; empty: the first two

    def arrays(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """Random input and weight."""
        rng = np.random.default_rng(0)

        def draw(shape):
            values = rng.standard_normal(shape)
            if np.dtype(dtype).kind == "c":
                values = values + 1j * rng.standard_normal(shape)
            return values.astype(dtype)

        return draw(self.x), draw(self.weight)

    def ours(self, x: np.ndarray, weight: np.ndarray, **method: str) -> np.ndarray:
        """The call under test."""
        if self.names:
            return self.target(**dict(zip(self.names, (x, weight), strict=True)), **self.options, **method)
        return self.target(x, weight, **self.options, **method)

    @property
    def target(self) -> Any:
        """The function of nconv."""
        return attrgetter(self.function)(nconv)

    def macs(self, x: np.ndarray, weight: np.ndarray) -> int:
        """Multiplications of the definition; a gradient has as many as its layer."""
        if "grad_output" in self.names:
            window = self.options.get("weight_size", weight.shape)
            return dict(zip(self.names, (x, weight), strict=True))["grad_output"].size * product(window[1:])
        return lower(self.target, x, weight, **self.options).route.problem.macs


def _signal(name, n, taps, **options):
    return Case("signal", name, "convolve", (n,), (taps,), {"mode": "same", **options})


def _image(name, size, window):
    return Case("image", name, "ndimage.correlate", size, window, {"mode": "mirror"})


def _layer(family, name, x, weight, **options):
    return Case(family, name, f"conv{len(x) - 2}d", x, weight, options)


CASES = (
    _signal("200 x 9", 200, 9),
    _signal("10,000 x 3", 10_000, 3),
    _signal("10,007 x 31", 10_007, 31),
    _signal("1,000,000 x 31", 1_000_000, 31),
    _signal("5,000 x 500", 5_000, 500),
    _signal("100,000 x 257", 100_000, 257),
    _signal("1,000,000 x 1,001", 1_000_000, 1001),
    _signal("1,000,000 x 100,000", 1_000_000, 100_000),
    _image("60 x 50, 5 x 5", (60, 50), (5, 5)),
    _image("512 x 512, 3 x 3", (512, 512), (3, 3)),
    _image("1024 x 1024, 3 x 3", (1024, 1024), (3, 3)),
    _image("1024 x 1024, 7 x 7", (1024, 1024), (7, 7)),
    _image("1023 x 777, 15 x 15", (1023, 777), (15, 15)),
    _image("1024 x 1024, 31 x 31", (1024, 1024), (31, 31)),
    _image("1024 x 1024, 101 x 101", (1024, 1024), (101, 101)),
    Case("volume", "64 cubed, 3 cubed", "convolve", (64, 64, 64), (3, 3, 3), {"mode": "same"}),
    Case("volume", "100 cubed, 11 cubed", "convolve", (100, 100, 100), (11, 11, 11), {"mode": "same"}),
    Case("batch", "64 signals, one window", "convolve", (64, 20_000), (1, 501), {"mode": "same", "axes": -1}),
    Case("batch", "64 signals, 64 windows", "convolve", (64, 20_000), (64, 501), {"mode": "same", "axes": -1}),
    Case("batch", "500 images 84 x 84, 13 x 13", "convolve", (500, 84, 84), (1, 13, 13),
         {"mode": "same", "axes": (1, 2)}),
    _layer("layer", "ResNet 56, 64-64, 3x3", (1, 64, 56, 56), (64, 64, 3, 3), padding=1),
    _layer("layer", "ResNet 28, 128-128, 3x3", (1, 128, 28, 28), (128, 128, 3, 3), padding=1),
    _layer("layer", "ResNet 14, 256-256, 3x3", (1, 256, 14, 14), (256, 256, 3, 3), padding=1),
    _layer("layer", "ResNet 7, 512-512, 3x3", (1, 512, 7, 7), (512, 512, 3, 3), padding=1),
    _layer("layer", "ResNet 56, 256-64, 1x1", (1, 256, 56, 56), (64, 256, 1, 1)),
    _layer("layer", "ResNet 14, 256-1024, 1x1", (1, 256, 14, 14), (1024, 256, 1, 1)),
    _layer("layer", "ResNet 56, 256-512, 1x1/2", (1, 256, 56, 56), (512, 256, 1, 1), stride=2),
    _layer("layer", "ResNet stem, 3-64, 7x7/2", (1, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3),
    _layer("layer", "VGG 224, 64-64, 3x3", (1, 64, 224, 224), (64, 64, 3, 3), padding=1),
    _layer("layer", "AlexNet 27, 96-256, 5x5", (1, 96, 27, 27), (256, 96, 5, 5), padding=2),
    _layer("layer", "56, 64-64, 9x9", (1, 64, 56, 56), (64, 64, 9, 9), padding=4),
    _layer("layer", "batch 16, ResNet 14, 256-256, 3x3", (16, 256, 14, 14), (256, 256, 3, 3), padding=1),
    _layer("layer", "tiny, 8 x 8, 3-8, 3x3", (1, 3, 8, 8), (8, 3, 3, 3), padding=1),
    _layer("depthwise", "56, 128, 3x3", (1, 128, 56, 56), (128, 1, 3, 3), padding=1, groups=128),
    _layer("depthwise", "56, 128, 3x3/2", (1, 128, 56, 56), (128, 1, 3, 3), padding=1, groups=128, stride=2),
    _layer("depthwise", "56, 96, 7x7", (1, 96, 56, 56), (96, 1, 7, 7), padding=3, groups=96),
    _layer("depthwise", "32, 128, 31x31", (1, 128, 32, 32), (128, 1, 31, 31), padding=15, groups=128),
    _layer("depthwise", "grouped 28, 128-128 by 32, 3x3", (1, 128, 28, 28), (128, 4, 3, 3), padding=1, groups=32),
    _layer("conv1d", "WaveNet, 64-64, 2 by 64", (1, 64, 16_000), (64, 64, 2), dilation=64),
    _layer("conv1d", "wav2vec, 1-512, 10/5", (1, 1, 16_000), (512, 1, 10), stride=5),
    _layer("conv1d", "64-64, 31", (2, 64, 4000), (64, 64, 31), padding=15),
    _layer("conv1d", "Conformer, depthwise 31", (4, 256, 1000), (256, 1, 31), padding=15, groups=256),
    _layer("conv1d", "Hyena, depthwise 2,049", (1, 32, 32_768), (32, 1, 2049), padding=1024, groups=32),
    _layer("conv3d", "16-32, 3 cubed", (1, 16, 16, 56, 56), (32, 16, 3, 3, 3), padding=1),
    _layer("conv3d", "depthwise 32, 3 cubed", (1, 32, 16, 56, 56), (32, 1, 3, 3, 3), padding=1, groups=32),
    Case("transposed", "28, 64-32, 4x4/2", "conv_transpose2d", (1, 64, 28, 28), (64, 32, 4, 4),
         {"stride": 2, "padding": 1}),
    Case("transposed", "DCGAN 8, 256-128, 4x4/2", "conv_transpose2d", (1, 256, 8, 8), (256, 128, 4, 4),
         {"stride": 2, "padding": 1}),
    Case("transposed", "U-Net 28, 256-128, 2x2/2", "conv_transpose2d", (1, 256, 28, 28), (256, 128, 2, 2),
         {"stride": 2}),
    Case("transposed", "15, 41-42, 3x3/2", "conv_transpose2d", (1, 41, 15, 15), (41, 42, 3, 3),
         {"stride": 2, "padding": 1}),
    Case("transposed", "HiFi-GAN 400, 256-128, 16/8", "conv_transpose1d", (1, 256, 400), (256, 128, 16),
         {"stride": 8, "padding": 4}),
    Case("gradient", "input of 28, 64-64, 3x3", "grad.conv2d_input", (1, 64, 28, 28), (64, 64, 3, 3),
         {"input_size": (1, 64, 28, 28), "padding": 1}, ("grad_output", "weight")),
    Case("gradient", "input of 56, 128-64, 3x3/2", "grad.conv2d_input", (1, 64, 28, 28), (64, 128, 3, 3),
         {"input_size": (1, 128, 56, 56), "stride": 2, "padding": 1}, ("grad_output", "weight")),
    Case("gradient", "weight of 28, 64-64, 3x3", "grad.conv2d_weight", (4, 64, 28, 28), (4, 64, 28, 28),
         {"weight_size": (64, 64, 3, 3), "padding": 1}, ("input", "grad_output")),
)
"""What is measured; no kernel is tuned to these sizes alone."""

FAMILIES = tuple(dict.fromkeys(case.family for case in CASES))


def _square(family, n, w, rank):
    return Case(family, f"{n:,}, {w}", "convolve", (n,) * rank, (w,) * rank, {"mode": "same"})


SWEEPS = {
    "signals": tuple(_signal(f"{n:,} x {taps:,}", n, taps) for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
                     for taps in (100, 1_000, 10_000, 200_000) if taps <= n),
    "images": tuple(_square("image", n, w, 2) for n in (256, 512, 1024, 2048, 4096) for w in (15, 31, 63, 127, 255)
                    if w <= n // 2),
    "volumes": tuple(_square("volume", n, w, 3) for n in (32, 64, 100, 200) for w in (5, 11, 21, 41) if w <= n // 2),
    "batches": tuple(Case("batch", f"{count:,} x {n:,} by {'each ' if own else ''}{taps:,}", "convolve", (count, n),
                          (count if own else 1, taps), {"mode": "same", "axes": -1})
                     for own in (False, True) for count, n, taps in (
                         (1_000, 1_000, 101), (64, 20_000, 501), (256, 20_000, 2_001), (16, 200_000, 5_001))),
    "long layers": tuple(_layer("conv1d", f"{n:,} x {taps:,}", (1, 32, n), (32, 1, taps), padding=taps // 2, groups=32)
                         for n, taps in ((4_096, 129), (8_192, 513), (32_768, 2_049))),
    "wide layers": tuple(_layer(f"conv{len(size)}d", f"{N} x {C}-{K}, {' x '.join(map(str, size))}, {w}",
                                (N, C, *size), (K, C, *[w] * len(size)), padding=w // 2)
                         for N, C, K, size, w in (
                             (1, 64, 192, (27, 27), 5), (1, 64, 64, (56, 56), 5), (4, 128, 128, (28, 28), 5),
                             (1, 32, 32, (112, 112), 7), (1, 192, 192, (17, 17), 7), (1, 64, 64, (56, 56), 9),
                             (1, 32, 32, (100, 100), 11), (1, 64, 64, (56, 56), 15), (1, 16, 16, (128, 128), 15),
                             (1, 32, 32, (64, 64), 31), (8, 64, 128, (1000,), 9), (4, 128, 128, (2000,), 15),
                             (2, 64, 64, (4000,), 31), (1, 32, 64, (16_000,), 65), (1, 32, 32, (32, 32, 32), 3),
                             (1, 16, 16, (32, 32, 32), 5), (1, 64, 64, (14, 14, 14), 3))),
}
"""Each over the lengths and windows for which transforms are meant, for `nconv bench --sweep`."""
