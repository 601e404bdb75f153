"""Images with gaps on a GPU: what is missing is found, and means over windows are finished, without a look by the host.

Sums and sums of weights come from the engine, which may take a transform. Where little weight is left a transform's
rounding shows beside it: there the last kernel sums the window anew, directly.
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np

from ..geometry import product
from ..problem import ConvProblem
from .arrays import OUTSIDE, address_maps, beside
from .device import cuda, kernel, launch_over, table
from .views import DeviceArray, convert, empty, follow

BEYOND = OUTSIDE // 2


def split(image: DeviceArray, mask: DeviceArray | None) -> tuple[DeviceArray, DeviceArray]:
    """(the samples with 0 for those that are missing, 1 for those that are there and 0 for the others), both dense."""
    dense = convert(image, image.dtype)
    lost = None if mask is None else convert(mask, np.dtype("?"))
    there = empty(dense.shape, np.zeros(0, dense.dtype).real.dtype, dense)
    follow(dense.stream, lost)
    launch_over(gaps_split_kernel, dense.size, dense.stream, dense.memory(),
                table((False,), "?") if lost is None else lost.memory(), int(lost is not None), there.memory())
    return dense, there


def means(problem: ConvProblem, weight: np.ndarray, arrays: tuple[DeviceArray, ...], little: float, scale: complex,
          outside: float, fill: float, image: DeviceArray | None) -> DeviceArray:
    """Sums over weights, times `scale`; NaN where no sample is in the window.

    `problem` and `weight` are those of the sums; `arrays` are (sums, weights, samples, there). Beyond the edges lies
    `fill`, which counts as `outside`. NaN of `image` stay, if it is given.
    """
    sums, weights, x, there = arrays
    result = empty(sums.shape, sums.dtype, sums)
    follow(result.stream, *arrays, image)
    taps = beside(np.ascontiguousarray(weight), sums)
    maps = address_maps(problem, tuple(step // x.dtype.itemsize for step in x.strides))
    layout = table((*problem.out, *problem.kernel, *maps.start))
    real = np.zeros(0, result.dtype).real.dtype
    launch_over(gaps_mean_kernel(result.dtype.name), result.size, result.stream, layout, maps.index, sums.memory(),
                weights.memory(), x.memory(), there.memory(), taps.memory(), (x if image is None else image).memory(),
                int(image is not None), product(problem.kernel), real.type(little), result.dtype.type(scale),
                real.type(outside), result.dtype.type(fill), result.memory())
    return result


# ------------------------------------------------------------------------------------------------ The kernels


@kernel
def gaps_split_kernel(x, lost, masked, there):
    """there = whether x is neither NaN nor, if `masked`, lost; x = 0 elsewhere. Parallel over the elements.

    Race-free because each is one thread's.
    """
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        value = x[i]
        if value != value or (masked != 0 and lost[i]):
            x[i] = 0
            there[i] = 0
        else:
            there[i] = 1


@cache
def gaps_mean_kernel(dtype_name: str):
    """The kernel for one type of the sums."""
    dtype = getattr(numba, dtype_name)

    @kernel
    def gaps_mean_kernel(layout, maps, sums, weights, x, there, taps, image, preserve, window, little, scale, outside,
                         fill, out):
        """out = scale sums / weights; both anew over the window where the weights are below `little`.

        Shapes: all arrays of the image's size, dense; taps [window]; layout holds outputs, taps and the maps' starts of
        each axis. Parallel over the outputs. Race-free because each is one thread's.
        """
        rank = layout.size // 3
        for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            total = sums[i]
            weight = weights[i]
            if abs(weight) < little:
                total = dtype(0)
                weight = dtype(0)
                for tap in range(window):
                    o = i
                    r = tap
                    at = numba.int64(0)
                    for b in range(rank):
                        a = rank - 1 - b
                        at += maps[layout[2 * rank + a] + o % layout[a] + r % layout[rank + a]]
                        o //= layout[a]
                        r //= layout[rank + a]
                    if at > BEYOND:
                        total += taps[tap] * x[at]
                        weight += taps[tap] * there[at]
                    else:
                        total += taps[tap] * fill
                        weight += taps[tap] * outside
            lost = weight == 0
            if preserve != 0:
                value = image[i]
                lost = lost or value != value
            out[i] = dtype(np.nan) if lost else scale * (total / weight)

    return gaps_mean_kernel
