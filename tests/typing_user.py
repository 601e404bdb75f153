"""A user's program as a type checker sees it (`make lint`); it is never run.

A name without a type would be Any, and `assert_type` refuses Any; an unused `type: ignore` shows a mistake unseen.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import nconv


def program() -> None:
    x = np.ones(8)
    image = np.ones((4, 5))
    layer_input, weight = np.ones((1, 2, 6, 6)), np.ones((3, 2, 3, 3))

    assert_type(nconv.__version__, str)
    assert_type(nconv.convolve(x, [1.0, 2.0], mode="same", axes=0), NDArray[Any])
    assert_type(nconv.correlate(x, x), NDArray[Any])
    assert_type(nconv.fftconvolve(x, x, axes=(0,)), NDArray[Any])
    assert_type(nconv.oaconvolve(x, x), NDArray[Any])
    assert_type(nconv.convolve2d(image, image, boundary="wrap"), NDArray[Any])
    assert_type(nconv.correlate2d(image, image, fillvalue=1), NDArray[Any])
    assert_type(nconv.ndimage.convolve(image, image, mode=["wrap", "nearest"]), NDArray[Any])
    assert_type(nconv.ndimage.correlate(image, image, axes=(0, 1)), NDArray[Any])
    assert_type(nconv.ndimage.convolve1d(image, x, axis=0), NDArray[Any])
    assert_type(nconv.ndimage.correlate1d(image, x, output="float32"), NDArray[Any])
    assert_type(nconv.conv2d(layer_input, weight, stride=(1, 2), padding="same"), NDArray[Any])
    assert_type(nconv.conv_transpose2d(layer_input, weight), NDArray[Any])
    assert_type(nconv.grad.conv2d_input((1, 2, 6, 6), weight, layer_input), NDArray[Any])
    assert_type(nconv.grad.conv2d_weight(layer_input, weight.shape, layer_input), NDArray[Any])

    layer = nconv.nn.Conv2d(2, 3, 3, padding="same")
    assert_type(layer(layer_input), NDArray[Any])
    assert_type(layer.backward(layer_input), NDArray[Any] | None)
    assert_type(layer.weight, nconv.nn.Parameter)

    plan = nconv.plan(nconv.conv2d, nconv.ArraySpec((1, 2, 6, 6), "float64"), weight, padding=1)
    assert_type(plan, nconv.Plan)
    assert_type(plan(layer_input), NDArray[Any])
    assert_type(plan.method, str)
    assert_type(plan.workspace_bytes, int)
    assert_type(nconv.tune(nconv.convolve, x, x), nconv.Plan)
    assert_type(nconv.get_num_threads(), int)
    assert_type([algorithm.name for algorithm in nconv.algorithms()], list[str])
    nconv.set_num_threads(2)
    nconv.set_workspace_limit(None)
    with nconv.set_error_limit(4):
        pass
    with nconv.patch_scipy():
        pass

    nconv.convolve(x)                              # type: ignore[call-arg]
    nconv.convolve(x, x, method=3)                 # type: ignore[arg-type]
    nconv.conv2d(layer_input, weight, padded=1)    # type: ignore[call-arg]
