"""The plans of a layer: its weight is packed once for each kind of input, and anew when it has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import limits, planner
from ..errors import DeviceError
from ..lowering import on_gpu
from ..problem import ArraySpec
from .module import Parameter

_KEPT = 8                                               # plans of one layer; each holds a packed weight


class Plans:
    """The plans of one layer, by shape, type and device of the input; made anew when the parameters have changed.

    `ones` axes of one element are put behind the weight's: a linear layer is a convolution with such a window.
    """

    def __init__(self, function: Callable, ones: int = 0, **geometry: Any):
        self._function = function
        self._ones = ones
        self._geometry = geometry
        self._version: Any = None
        self._plans: dict[Any, planner.Plan] = {}

    def __call__(self, x: Any, weight: Parameter, bias: Parameter | None) -> Any:
        device = "cuda" if on_gpu(x) else "cpu"
        if device != weight.device:
            there = {"cpu": "on the host", "cuda": "on the GPU"}
            raise DeviceError(f"x {there[device]}, the layer's parameters {there[weight.device]}: "
                              f"layer.to({device!r}) brings them to x")
        version = (weight.version, bias and bias.version)
        if version != self._version:
            self._plans.clear()
            self._version = version
        key = x.shape, x.dtype, device, limits.tf32_allowed(), limits.conditions()
        plan = self._plans.get(key)
        if plan is None:
            taps = weight.array.reshape(*weight.shape, *(1,) * self._ones)
            plan = planner.plan(self._function, ArraySpec(x.shape, x.dtype, device), taps, bias and bias.array,
                                **self._geometry)
            while len(self._plans) >= _KEPT:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan
        return plan(x)

    def __getstate__(self) -> dict[str, Any]:
        """A copied or pickled layer plans anew."""
        return {**vars(self), "_version": None, "_plans": {}}
