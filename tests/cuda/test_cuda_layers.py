"""The layers of `nconv.nn` on arrays of a GPU, in the simulator, against the same layers on the host."""

import copy
import pickle

import numpy as np
import pytest
from numba import cuda

import nconv
from nconv import nn

rng = np.random.default_rng(0)
KIND = type(cuda.to_device(np.zeros(1)))
X = rng.standard_normal((2, 4, 6, 7)).astype("f4")
LAYERS = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, rng=1), X[:, :, 0]),
    "Conv2d": (lambda: nn.Conv2d(4, 3, (2, 3), padding="same", dilation=2, rng=1), X),
    "reflect": (lambda: nn.Conv2d(4, 3, 3, padding=((0, 2), (1, 1)), padding_mode="reflect", rng=1), X),
    "replicate": (lambda: nn.Conv1d(4, 3, 5, padding=2, padding_mode="replicate", bias=False, rng=1), X[:, :, 0]),
    "circular": (lambda: nn.Conv1d(4, 3, 4, padding=((1, 2),), padding_mode="circular", stride=2, rng=1), X[0, :, 0]),
    "Conv3d": (lambda: nn.Conv3d(2, 3, (1, 2, 2), rng=1), X[:, :, None, :3, :3].reshape(2, 2, 2, 3, 3)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1, rng=1), X),
    "MaxPool2d": (lambda: nn.MaxPool2d((3, 2), stride=(1, 2), padding=1), X),
    "MaxPool1d": (lambda: nn.MaxPool1d(3, stride=1, padding=1, dilation=2), np.round(X[:, :, 0])),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, stride=2, padding=1), X),
    "AvgPool1d": (lambda: nn.AvgPool1d(3, padding=1, count_include_pad=False), X[:, 0]),
    "ReLU": (nn.ReLU, X),
    "Flatten": (nn.Flatten, X),
    "Linear": (lambda: nn.Linear(7, 5, rng=1), X),
}


def close(result, expected):
    assert isinstance(result, KIND) and result.dtype == expected.dtype
    np.testing.assert_allclose(result.copy_to_host(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_their_gradients_are_those_of_the_host(name):
    make, x = LAYERS[name]
    here, there = make(), make().to("cuda")
    y = here(x)
    g = rng.standard_normal(y.shape).astype("f4")
    x_gradient = here.backward(g)
    close(there(cuda.to_device(np.ascontiguousarray(x))), y)
    close(there.backward(cuda.to_device(g)), x_gradient)
    for mine, other in zip(here.parameters(), there.parameters(), strict=True):
        close(other.grad, mine.grad)
        np.testing.assert_array_equal(mine.data, other.data.copy_to_host())


def test_max_pooling_has_numpys_nan_and_integers():
    x = X.copy()
    x[0, 0, 2, 2] = x[0, 0, 2, 3] = np.nan
    for values in (x, (X * 5).astype("i2"), X > 0):
        here, there = nn.MaxPool2d(3, stride=2, padding=1), nn.MaxPool2d(3, stride=2, padding=1)
        y = here(values)
        result = there(cuda.to_device(values))
        assert result.dtype == y.dtype
        np.testing.assert_array_equal(result.copy_to_host(), y)
        g = np.ones(y.shape, "f4")
        if values.dtype.kind != "b":                    # whose padding is no lower than False
            np.testing.assert_array_equal(there.backward(cuda.to_device(g)).copy_to_host(), here.backward(g))


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, rng=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(18, 3, rng=2))


@pytest.mark.parametrize("optimiser", [
    lambda p: nn.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01), lambda p: nn.Adam(p, lr=0.01)])
def test_a_network_is_trained_where_its_parameters_are(optimiser, monkeypatch):
    x, target = X[:, :1, :, :6].copy(), np.array([2, 0])
    nets = network(), network().to("cuda")
    inputs = (x, target), (cuda.to_device(x), cuda.to_device(target))
    losses = []
    for net, (image, classes) in zip(nets, inputs, strict=True):
        loss, step = nn.CrossEntropyLoss(), optimiser(net.parameters())
        for _ in range(2):
            net.zero_grad()
            losses.append(loss(net(image), classes))
            net.backward(loss.backward(), input_gradient=False)
            step.step()
    np.testing.assert_allclose([float(a.copy_to_host()) for a in losses[2:]], losses[:2], rtol=1e-4)
    for mine, other in zip(nets[0].parameters(), nets[1].to("cpu").parameters(), strict=True):
        np.testing.assert_allclose(other.data, mine.data, rtol=1e-3, atol=1e-5)
        assert isinstance(other.grad, np.ndarray)


def test_a_weight_is_packed_once_and_anew_when_it_has_changed():
    layer, x = nn.Conv1d(4, 2, 3, rng=1).to("cuda"), cuda.to_device(X[:, :, 0].copy())
    made = []
    plan = nn.plans.planner.plan
    try:
        nn.plans.planner.plan = lambda *args, **kwargs: (made.append(1), plan(*args, **kwargs))[1]
        layer(x), layer(x)
        assert len(made) == 1
        layer.weight.add(cuda.to_device(np.ones(layer.weight.shape, "f4")))
        y = layer(x)
        assert len(made) == 2
        with nconv.allow_tf32():
            layer(x)
        assert len(made) == 3
    finally:
        nn.plans.planner.plan = plan
    close(y, layer.to("cpu")(X[:, :, 0]))


def test_parameters_move_copy_and_load():
    layer = nn.Linear(2, 2, rng=1).to("cuda")
    layer.load_state_dict({"weight": [[1.0, 2.0], [3.0, 4.0]], "bias": cuda.to_device(np.array([10.0, 20.0]))})
    assert layer.weight.device == "cuda" and "cuda" in repr(layer.weight)
    assert layer.state_dict()["weight"].tolist() == [[1, 2], [3, 4]]
    x = cuda.to_device(np.ones((1, 2), "f4"))
    expected = [[13, 27]]
    layer.bias.accumulate(cuda.to_device(np.ones(2)))
    for other in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other(x).copy_to_host().tolist() == expected and other.bias.grad.copy_to_host().tolist() == [1, 1]
    layer.bias.data = cuda.to_device(np.zeros(2))
    assert layer.bias.data.copy_to_host().tolist() == [0, 0]
    assert layer.to("cpu").bias.grad.tolist() == [1, 1] and layer(np.ones((1, 2), "f4")).tolist() == [[3, 7]]


@pytest.mark.parametrize("call, error, words", [
    (lambda x: nn.Conv2d(4, 2, 3)(x), nconv.DeviceError, r"x on the GPU.*on the host: layer.to\('cuda'\)"),
    (lambda x: nn.Linear(7, 2)(x), nconv.DeviceError, r"x on the GPU.*on the host: layer.to\('cuda'\)"),
    (lambda x: nn.Linear(7, 2).to("cuda")(X), nconv.DeviceError, r"x on the host.*on the GPU: layer.to\('cpu'\)"),
    (lambda x: nn.Parameter([1.0]).to("cuda").add(np.ones(1)), nconv.DeviceError, "change on the host"),
    (lambda x: nn.Parameter([1.0]).accumulate(cuda.to_device(np.ones(1))), nconv.DeviceError, "gradient on the GPU"),
    (lambda x: np.asarray(nn.Parameter([1.0]).to("cuda")), TypeError, "silently"),
    (lambda x: nn.Linear(7, 2).to("gpu"), ValueError, "unknown device"),
    (lambda x: nn.CrossEntropyLoss()(cuda.to_device(np.ones((2, 3))), np.zeros(2, "i8")), nconv.DeviceError,
     "target on the host"),
])
def test_both_sides_are_not_mixed(call, error, words):
    with pytest.raises(error, match=words):
        call(cuda.to_device(X))


def test_a_target_that_is_no_class_makes_the_loss_nan():
    loss = nn.CrossEntropyLoss()(cuda.to_device(np.ones((2, 3))), cuda.to_device(np.array([0, 3])))
    assert np.isnan(loss.copy_to_host())
