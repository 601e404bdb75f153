"""Filters that are run by name: what they reach, and a block with its halo as an array of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import dask.array as da
import numpy as np

from ... import ndimage
from ...lowering import lower
from ...ndimage.correlation import normalize_axes, one_an_axis
from ...problem import ArraySpec
from .. import overlap


def check_output(output: Any) -> None:
    """Refuse an array where only a dtype makes sense."""
    if isinstance(output, (np.ndarray, da.Array)):
        raise TypeError("output must be a dtype: a dask array takes no results; store() writes them to an array")


def _block(block: Any, weight: None, bias: None, pads: overlap.Pads, block_id: tuple[int, ...], *, name: str,
           axes: tuple[overlap.Axis, ...], own: overlap.Pads, arguments: dict[str, Any]) -> Any:
    """One block, filtered with its halo as an array of its own, and cut to what it owes."""
    return overlap.cut(getattr(ndimage, name)(block, **arguments), axes, own, pads)


def check(name: str, input: Any, **arguments: Any) -> da.Array:
    """The input, if the filter takes it with these arguments: it is asked with as many axes and no element."""
    input = overlap.check_input(input, "input")
    check_output(arguments["output"])
    getattr(ndimage, name)(np.empty((0,) * input.ndim, input.dtype), **arguments)
    return input


def run(name: str, input: da.Array, taps: Mapping[int, int], words: Mapping[int, str],
        origins: Mapping[int, int] | None = None, **arguments: Any) -> da.Array:
    """One filter with all its arguments, which along each axis reaches as far as a window of so many `taps`."""
    numbers = range(input.ndim)
    call = lower(ndimage.correlate, overlap.spec(input, "input"),
                 ArraySpec(tuple(taps.get(a, 1) for a in numbers), np.dtype("f8")), arguments["output"],
                 [words.get(a, "reflect") for a in numbers], 0.0, [(origins or {}).get(a, 0) for a in numbers])
    axes = overlap.axes_of(call, tuple(numbers))
    own = tuple(axis.padding for axis in axes)
    return overlap.run(input, None, None, call, axes, partial(_block, name=name, axes=axes, own=own,
                                                              arguments=arguments))


def each(input: da.Array, axes: Any, **values: Any) -> tuple[dict[int, Any], ...]:
    """For each argument its value by axis."""
    numbers = normalize_axes(axes, input.ndim)
    return tuple(dict(zip(numbers, one_an_axis(value, name, len(numbers)), strict=True))
                 for name, value in values.items())
