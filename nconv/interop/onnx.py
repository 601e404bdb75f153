"""ONNX models whose convolutions run on nconv: the reference evaluator of the onnx package with our Conv nodes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import functional, planner
from ..geometry import same_padding, span
from ..problem import ArraySpec

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnx.reference import ReferenceEvaluator


def onnx_evaluator(model: ModelProto | str | os.PathLike) -> ReferenceEvaluator:
    """An evaluator of an ONNX model in which every Conv and ConvTranspose node runs on nconv.

    Parameters
    ----------
    model : onnx.ModelProto or path
        All other operators are those of the onnx package's reference evaluator, in NumPy: right, not fast.

    Returns
    -------
    onnx.reference.ReferenceEvaluator
        ``run(None, {name: array})`` gives the list of outputs. Plans are kept for each node and shape of input.

    Raises
    ------
    ImportError
        Without the onnx package: ``pip install 'nconv[onnx]'``.

    References
    ----------
    .. [1] https://onnx.ai/onnx/operators/onnx__Conv.html and onnx__ConvTranspose.html

    Examples
    --------
    >>> import numpy as np, nconv
    >>> from onnx import TensorProto, helper
    >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, None)) for name in "xy")
    >>> weight = helper.make_tensor("w", TensorProto.FLOAT, (1, 1, 2), [1, 10])
    >>> node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER")
    >>> model = helper.make_model(helper.make_graph([node], "one layer", [x], [y], [weight]))
    >>> nconv.onnx_evaluator(model).run(None, {"x": np.array([[[1, 2, 3]]], "float32")})[0]
    array([[[10., 21., 32.]]], dtype=float32)
    """
    try:
        from onnx.reference import ReferenceEvaluator
    except ImportError:
        raise ImportError("nconv.onnx_evaluator needs the onnx package: pip install 'nconv[onnx]'") from None
    return ReferenceEvaluator(model if hasattr(model, "graph") else os.fspath(model), new_ops=list(_operators()))


@cache
def _operators() -> tuple[type, ...]:
    """The two operators; the evaluator makes an instance for each node."""
    from onnx.reference.op_run import OpRun

    class _Planned(OpRun):
        """A node with its plans: the weight of a node is a constant, which is packed once for each input shape."""

        op_domain = ""
        _weight: Any = None

        def _run_planned(self, name, x, weight, bias, **geometry):
            if weight is not self._weight:
                self._weight, self._plans = weight, {}
            key = x.shape, x.dtype
            if key not in self._plans:
                self._plans[key] = planner.plan(getattr(functional, f"{name}{x.ndim - 2}d"), ArraySpec(*key), weight,
                                                bias, **geometry)
            return (self._plans[key](x),)

    class Conv(_Planned):
        def _run(self, x, weight, bias=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None, pads=None,
                 strides=None):
            rank = x.ndim - 2
            strides, dilations = strides or [1] * rank, dilations or [1] * rank
            padding = _conv_padding(auto_pad, pads, x.shape[2:], weight.shape[2:], strides, dilations)
            return self._run_planned("conv", x, weight, bias, stride=tuple(strides), padding=padding,
                                     dilation=tuple(dilations), groups=group)

    class ConvTranspose(_Planned):
        def _run(self, x, weight, bias=None, auto_pad="NOTSET", dilations=None, group=1, kernel_shape=None,
                 output_padding=None, output_shape=None, pads=None, strides=None):
            rank = x.ndim - 2
            strides, dilations = strides or [1] * rank, dilations or [1] * rank
            extra = output_padding or [0] * rank
            full = [(n - 1) * s + span(k, d) + e for n, s, k, d, e in zip(
                x.shape[2:], strides, weight.shape[2:], dilations, extra, strict=True)]
            if output_shape is None and auto_pad.startswith("SAME"):
                output_shape = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
            padding = _pairs(pads, rank) if output_shape is None else [
                _split(f - o, auto_pad == "SAME_UPPER") for f, o in zip(full, output_shape[-rank:], strict=True)]
            return self._run_planned("conv_transpose", x, weight, bias, stride=tuple(strides), padding=tuple(padding),
                                     output_padding=tuple(extra), dilation=tuple(dilations), groups=group)

    return Conv, ConvTranspose


def _pairs(pads: Sequence[int] | None, rank: int) -> list[tuple[int, int]]:
    """ONNX lists the low ends of all axes, then the high ends."""
    return [(0, 0)] * rank if pads is None else list(zip(pads[:rank], pads[rank:], strict=True))


def _split(total: int, odd_high: bool) -> tuple[int, int]:
    """A padding's two ends; the odd element is where the model wants it."""
    return (total // 2, total - total // 2) if odd_high else (total - total // 2, total // 2)


def _conv_padding(auto_pad, pads, size, kernel, strides, dilations) -> tuple[tuple[int, int], ...]:
    if not auto_pad.startswith("SAME"):
        return tuple(_pairs(pads if auto_pad == "NOTSET" else None, len(size)))
    pairs = map(same_padding, size, kernel, strides, dilations)
    return tuple(_split(low + high, auto_pad == "SAME_UPPER") for low, high in pairs)
