"""ONNX models with their convolutions on nconv: every attribute against the onnx package, a published network
against ONNX Runtime."""

import builtins
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

import nconv
from nconv import planner

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def one_node(operator, x, weight, bias=None, **attributes):
    """A model of one Conv or ConvTranspose node with constant weight."""
    helper = onnx.helper
    names = {"w": weight} if bias is None else {"w": weight, "b": bias}
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (None,) * x.ndim) for name in "xy"]
    node = helper.make_node(operator, ["x", *names], ["y"], **attributes)
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in names.items()]
    return helper.make_model(helper.make_graph([node], "one node", values[:1], values[1:], constants))


def conv_attributes():
    yield {}
    for rank, strides, dilations in itertools.product((1, 2, 3), (1, 2), (1, 2)):
        yield dict(strides=[strides] * rank, dilations=[dilations] * rank, pads=[0, 1, 2][:rank] + [2, 1, 0][:rank])
        if dilations == 1:
            for auto_pad in "SAME_UPPER", "SAME_LOWER", "VALID":
                yield dict(strides=[strides] * rank, dilations=[1] * rank, auto_pad=auto_pad)


@pytest.mark.parametrize("attributes", list(conv_attributes()), ids=str)
def test_conv(attributes):
    rank = len(attributes.get("strides", (1, 1)))
    x, weight, bias = draw(2, 4, *(9, 8, 7)[:rank]), draw(6, 2, *(2, 3, 2)[:rank], seed=1), draw(6, seed=2)
    for more in (), (bias,):
        model = one_node("Conv", x, weight, *more, group=2, kernel_shape=weight.shape[2:], **attributes)
        expected = reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
        np.testing.assert_allclose(nconv.onnx_evaluator(model).run(None, {"x": x})[0], expected, atol=1e-5)


@pytest.mark.parametrize("attributes", [
    {}, dict(strides=[2, 3], pads=[0, 1, 2, 0]), dict(strides=[2, 2], output_padding=[1, 0], pads=[1, 1, 1, 1]),
    dict(strides=[2, 2], dilations=[1, 2], pads=[0, 0, 1, 1]), dict(strides=[3, 2], output_shape=[15, 11]),
    dict(strides=[2, 2], auto_pad="SAME_UPPER"), dict(strides=[2, 2], auto_pad="SAME_LOWER"),
], ids=str)
def test_conv_transpose_is_onnxruntimes(attributes):
    runtime = pytest.importorskip("onnxruntime")
    x, weight = draw(2, 4, 5, 4), draw(4, 3, 3, 5, seed=1)
    model = one_node("ConvTranspose", x, weight, **attributes)
    model.ir_version, model.opset_import[0].version = 8, 13
    expected = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    result = nconv.onnx_evaluator(model).run(None, {"x": x})[0]
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_a_plan_is_kept_for_each_input_shape(monkeypatch):
    x, weight = draw(1, 1, 6, 6), draw(1, 1, 3, 3)
    evaluator = nconv.onnx_evaluator(one_node("Conv", x, weight))
    made = []
    real = planner.plan
    monkeypatch.setattr(planner, "plan", lambda *a, **k: made.append(a[1].shape) or real(*a, **k))
    for size in 6, 6, 5:
        evaluator.run(None, {"x": x[..., :size]})
    assert made == [(1, 1, 6, 6), (1, 1, 6, 5)]


def test_a_file_can_be_named(tmp_path):
    x, weight = draw(1, 1, 6, 6), draw(1, 1, 3, 3)
    onnx.save(one_node("Conv", x, weight), tmp_path / "model.onnx")
    result = nconv.onnx_evaluator(tmp_path / "model.onnx").run(None, {"x": x})[0]
    np.testing.assert_allclose(result, nconv.conv2d(x, weight), atol=1e-6)


def test_without_the_package_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("onnx"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'nconv\[onnx\]'"):
        nconv.onnx_evaluator("model.onnx")


def test_a_published_network_node_by_node(monkeypatch):
    """PP-OCR's text detector, whose weights ship in a package: all 85 convolutions equal ONNX Runtime's."""
    runtime = pytest.importorskip("onnxruntime")
    package = importlib.util.find_spec("rapidocr")
    if package is None:
        pytest.skip("rapidocr is not installed")
    model = onnx.load(Path(package.origin).parent / "models" / "PP-OCRv6_det_small.onnx")
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(nodes) == 85
    for node in nodes:                                   # every convolution's result becomes an output
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    planned = []
    real = planner.plan
    monkeypatch.setattr(planner, "plan", lambda f, *a, **k: planned.append(f.__name__) or real(f, *a, **k))
    page = pytest.importorskip("skimage.data").page()[48:112, :192]
    x = np.repeat(page[None, None].astype("f4"), 3, axis=1) / 127.5 - 1
    expected = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    results = nconv.onnx_evaluator(model).run(None, {"x": x})
    assert sorted(set(planned)) == ["conv2d", "conv_transpose2d"]
    assert len(planned) == 85
    assert expected[0].max() > 0.9                       # the probability of text: it finds some
    np.testing.assert_allclose(results[0], expected[0], atol=1e-4)
    for result, other in zip(results[1:], expected[1:], strict=True):
        np.testing.assert_allclose(result, other, atol=1e-4 * abs(other).max())
