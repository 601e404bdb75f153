"""Layers against PyTorch and finite differences: forward, backward, training, states, plans."""

import copy
import itertools
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import nconv
from nconv import nn, planner

SIZE = (9, 8, 7)
KERNEL = (3, 2, 3)


def draw(*shape, seed=0, dtype="f8"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def conv_options():
    """Every constructor argument at two values, with PyTorch's restrictions."""
    for stride, padding, dilation, groups, bias in itertools.product((1, 2), (0, 1), (1, 2), (1, 2), (True, False)):
        yield dict(stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias)
    for mode in "reflect", "replicate", "circular":
        yield dict(padding=1, padding_mode=mode, stride=2)
    yield dict(padding="same", dilation=2)
    yield dict(padding="valid")


def transpose_options():
    for stride, padding, dilation, groups in itertools.product((1, 2), (0, 1), (1, 2), (1, 2)):
        for output_padding in range(max(stride, dilation)):
            yield dict(stride=stride, padding=padding, dilation=dilation, groups=groups, output_padding=output_padding)
    yield dict(bias=False)


CASES = [(name, rank, options) for rank in (1, 2, 3) for name, choices in
         (("Conv", conv_options), ("ConvTranspose", transpose_options)) for options in choices()]


def make(module, name, rank, options):
    return getattr(module, f"{name}{rank}d")(4, 6, KERNEL[:rank] if rank > 1 else KERNEL[0], **options)


# -------------------------------------------------------------------------------------------- Without PyTorch


def numeric(function, array, step=1e-6):
    """Central differences of a number by every element of an array."""
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        sides = []
        for sign in 1, -1:
            moved = array.copy()
            moved[index] += sign * step
            sides.append(function(moved))
        result[index] = (sides[0] - sides[1]) / (2 * step)
    return result


@pytest.mark.parametrize("layer", [
    nn.Conv1d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2, dtype="f8"),
    nn.Conv2d(2, 1, (2, 3), padding=((0, 2), (1, 0)), dtype="f8"),
    nn.Conv2d(1, 2, 3, padding=2, padding_mode="reflect", stride=2, dtype="f8"),
    nn.Conv2d(1, 1, 3, padding=((3, 1), (0, 2)), padding_mode="circular", dtype="f8"),
    nn.Conv2d(1, 1, (2, 4), padding="same", stride=2, padding_mode="replicate", dtype="f8"),
    nn.Conv3d(1, 2, (1, 2, 2), stride=(1, 2, 1), dtype="f8"),
    nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2, dtype="f8"),
    nn.ConvTranspose2d(2, 1, (2, 3), stride=2, padding=((0, 1), (2, 0)), dilation=3, output_padding=2, dtype="f8"),
    nn.ConvTranspose3d(2, 1, (1, 2, 2), stride=(1, 2, 1), dtype="f8"),
    nn.MaxPool1d(3, stride=2, padding=1, dilation=2),
    nn.MaxPool2d(2),
    nn.MaxPool2d((3, 2), stride=1),
    nn.MaxPool3d(2, stride=1),
    nn.AvgPool1d(3, stride=2, padding=1, count_include_pad=False),
    nn.AvgPool2d((2, 3), stride=(1, 2), padding=(1, 0)),
    nn.AvgPool3d(2),
    nn.ReLU(),
    nn.Linear(5, 3, dtype="f8"),
    nn.Sequential(nn.Conv2d(2, 3, 3, dtype="f8"), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2, dtype="f8")),
], ids=lambda layer: type(layer).__name__)
def test_gradients_by_finite_differences(layer):
    rank = next((int(c) for c in type(layer).__name__ if c.isdigit()), 2)
    x = draw(2, getattr(layer, "in_channels", 2), *(5, 5, 4)[:rank], seed=1)
    g = draw(*layer(x).shape, seed=2)
    layer.zero_grad()
    result = layer.backward(g)

    def loss(x):
        return float((layer(x) * g).sum())

    np.testing.assert_allclose(result, numeric(loss, x), atol=1e-7)
    for _, parameter in layer.named_parameters():
        gradient, before = parameter.grad, parameter.data.copy()

        def loss_by(values, parameter=parameter):
            parameter.data = values
            return loss(x)

        np.testing.assert_allclose(gradient, numeric(loss_by, before), atol=1e-7)
        parameter.data = before


def test_loss_gradient_by_finite_differences():
    logits, target = draw(4, 3), np.array([0, 2, 2, 1])
    loss = nn.CrossEntropyLoss()
    expected = numeric(lambda values: loss(values, target), logits)
    loss(logits, target)
    np.testing.assert_allclose(loss.backward(), expected, atol=1e-8)
    assert loss(np.array([[1e4, 0.0]]), [1]) == 1e4               # exp(1e4) overflows


def test_gradients_accumulate_until_zero_grad():
    layer = nn.Conv2d(2, 3, 3, dtype="f8")
    x = draw(1, 2, 5, 5)
    g = draw(*layer(x).shape)
    layer.backward(g)
    once = layer.weight.grad.copy(), layer.bias.grad.copy()
    layer.backward(2 * g)
    np.testing.assert_allclose(layer.weight.grad, 3 * once[0])
    np.testing.assert_allclose(layer.bias.grad, 3 * once[1])
    layer.zero_grad()
    assert layer.weight.grad is None


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_a_batch_is_its_items(name, rank):
    layer = getattr(nn, f"{name}{rank}d")(3, 2, 2, dtype="f8")
    x = draw(2, 3, *SIZE[:rank])
    y = layer(x)
    g = draw(*y.shape)
    to_x = layer.backward(g)
    to_w = layer.weight.grad
    layer.zero_grad()
    for n in range(2):
        np.testing.assert_allclose(layer(x[n]), y[n])
        np.testing.assert_allclose(layer.backward(g[n]), to_x[n])
    np.testing.assert_allclose(layer.weight.grad, to_w)


def test_the_input_gradient_can_be_left_out(monkeypatch):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    g = draw(*net(draw(1, 1, 8, 8, dtype="f4")).shape, dtype="f4")
    expected = net.backward(g) is not None and [p.grad for p in net.parameters()]
    net.zero_grad()
    asked = []
    real = nconv.grad.conv2d_input
    monkeypatch.setattr(nconv.grad, "conv2d_input", lambda *a: asked.append(a[0]) or real(*a))
    assert net.backward(g, input_gradient=False) is None
    assert asked == [(1, 2, 6, 6)]
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        np.testing.assert_array_equal(parameter.grad, gradient)


# ------------------------------------------------------------------------------------------------------ Plans


def test_a_plan_is_kept_for_each_input_shape(monkeypatch):
    made = []
    real = planner.plan
    monkeypatch.setattr(planner, "plan", lambda *a, **k: made.append(a[1].shape) or real(*a, **k))
    layer = nn.Conv2d(1, 2, 3)
    small, large = draw(1, 1, 5, 5, dtype="f4"), draw(1, 1, 6, 6, dtype="f4")
    for x in small, large, small, large:
        layer(x)
    assert made == [small.shape, large.shape]
    with nconv.set_error_limit(1):
        layer(small)
    assert made[2:] == [small.shape]


def test_no_stale_plan_after_the_parameters_changed():
    layer = nn.Conv1d(1, 1, 2)
    x = np.array([[1.0, 2.0, 3.0]])
    layer.load_state_dict({"weight": [[[1.0, 10.0]]], "bias": [0.0]})
    assert layer(x).tolist() == [[21, 32]]
    layer.weight.data = np.array([[[10.0, 1.0]]])
    assert layer(x).tolist() == [[12, 23]]
    layer.bias.add([100])
    assert layer(x).tolist() == [[112, 123]]
    layer.bias.accumulate([1.0])
    nn.SGD(layer.parameters(), lr=100).step()
    assert layer(x).tolist() == [[12, 23]]
    with pytest.raises(ValueError, match="read-only"):
        layer.weight.data[...] = 0                     # would leave the packed weight behind


def test_copies_do_not_share_plans_or_parameters():
    layer = nn.Conv2d(1, 2, 3, dtype="f8")
    x = draw(1, 1, 5, 5)
    y = layer(x)
    for other in copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)):
        np.testing.assert_array_equal(other(x), y)
        other.bias.add(np.ones(2))
        np.testing.assert_allclose(other(x), y + 1)
        np.testing.assert_array_equal(layer(x), y)


def test_evaluation_remembers_nothing():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)).eval()
    y = net(draw(1, 1, 6, 6, dtype="f4"))
    with pytest.raises(RuntimeError, match="MaxPool2d.backward needs a forward pass in training mode"):
        net.backward(y)
    net.train()(draw(1, 1, 6, 6, dtype="f4"))
    assert net.backward(y).shape == (1, 1, 6, 6)


# ----------------------------------------------------------------------------------------------------- States


def test_state_dicts_are_copies_and_fit_or_change_nothing():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3, bias=False))
    before = net.state_dict()
    assert list(before) == ["0.weight", "0.bias", "2.weight"]
    before["0.bias"][:] = 7
    assert not (net[0].bias.data == 7).any()
    other = {**net.state_dict(), "0.weight": np.ones((2, 1, 3, 3))}
    for error, words, state in (
            (KeyError, r"missing \['2.weight'\]", {k: v for k, v in other.items() if k != "2.weight"}),
            (KeyError, r"unknown \['3.bias'\]", {**other, "3.bias": np.ones(3)}),
            (ValueError, "2.weight has the wrong shape", {**other, "2.weight": np.ones((3, 9))})):
        with pytest.raises(error, match=words):
            net.load_state_dict(state)
        assert not (net[0].weight.data == 1).any()
    net.load_state_dict({"0.weight": np.ones((2, 1, 3, 3)), "more": 0}, strict=False)
    assert (net[0].weight.data == 1).all()


def test_safetensors_round_trip(tmp_path):
    path = tmp_path / "net.safetensors"
    net, other = (nn.Sequential(nn.Conv1d(1, 2, 3, rng=seed), nn.Flatten(), nn.Linear(8, 3, rng=seed))
                  for seed in (0, 1))
    nn.save_safetensors(path, net.state_dict())
    other.load_state_dict(path)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    arrays = {code: draw(3, 2).astype(code)[::2] for code in ("f2", "f4", "f8", "c8", "i1", "i8", "u2", "?", ">f4")}
    arrays |= {"scalar": np.float32(3), "empty": np.empty((0, 2))}
    nn.save_safetensors(path, arrays)
    loaded = nn.load_safetensors(path)
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == np.asarray(array).dtype.newbyteorder("=")


def test_safetensors_as_their_own_library_writes_them(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    state = {"weight": draw(2, 3, dtype="f4"), "bias": np.arange(3)}
    numpy.save_file(state, tmp_path / "theirs", metadata={"format": "np"})
    nn.save_safetensors(tmp_path / "ours", state)
    for loaded in nn.load_safetensors(tmp_path / "theirs"), numpy.load_file(tmp_path / "ours"):
        assert loaded.keys() == state.keys()
        for name, array in state.items():
            np.testing.assert_array_equal(loaded[name], array)


def test_bfloat16_becomes_float32(tmp_path):
    path = tmp_path / "a"
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes.fromhex("803f 20c1"))
    assert nn.load_safetensors(path)["a"].tolist() == [1.0, -10.0]


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is not a safetensors file"),
    (b"PK\x03\x04 a zip file of PyTorch's", "is not a safetensors file"),
    (b'\x02\0\0\0\0\0\0\0[]', "is not a safetensors file"),
    (b'\x36\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} 1234', "does not lie at bytes 0 to 8"),
    (b'\x36\0\0\0\0\0\0\0{"a":{"dtype":"F8X","shape":[4],"data_offsets":[0,4]}} 1234', "unknown type 'F8X'"),
])
def test_broken_safetensors(tmp_path, content, words):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        nn.load_safetensors(tmp_path / "broken")


def test_what_safetensors_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="dtype <U1 is not"):
        nn.save_safetensors(tmp_path / "a", {"words": np.array(["a"])})
    assert not (tmp_path / "a").exists()


# ----------------------------------------------------------------------------------------------------- Errors


@pytest.mark.parametrize(("words", "make"), [
    ("in_channels=0", lambda: nn.Conv2d(0, 1, 3)),
    ("groups=2, out_channels=3", lambda: nn.Conv2d(2, 3, 3, groups=2)),
    (r"kernel_size=\(3, 3\)", lambda: nn.Conv1d(1, 1, (3, 3))),
    ("stride=0", lambda: nn.Conv2d(1, 1, 3, stride=0)),
    ("padding=-1", lambda: nn.Conv2d(1, 1, 3, padding=-1)),
    ("'sane'", lambda: nn.Conv2d(1, 1, 3, padding="sane")),
    ("'mirrored'", lambda: nn.Conv2d(1, 1, 3, padding_mode="mirrored")),
    ("must be numbers", lambda: nn.ConvTranspose2d(1, 1, 3, padding="same")),
    ("'reflect'", lambda: nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect")),
    ("at most half", lambda: nn.MaxPool2d(2, padding=2)),
    ("larger than the padded input", lambda: nn.MaxPool2d(3)(np.ones((1, 2, 5)))),
    ("4 dimensions", lambda: nn.AvgPool2d(2)(np.ones((4, 4)))),
    ("in_features=3", lambda: nn.Linear(3, 2)(np.ones((1, 4)))),
    ("input has 2", lambda: nn.Conv2d(1, 1, 3)(np.ones((1, 2, 5, 5)))),
    ("target must be from 0 to 2: it holds 0 to 3", lambda: nn.CrossEntropyLoss()(np.ones((2, 3)), [0, 3])),
    ("target.dtype=float64", lambda: nn.CrossEntropyLoss()(np.ones((2, 3)), [0.0, 1.0])),
    ("parameters is empty", lambda: nn.SGD([])),
    ("momentum=-1", lambda: nn.SGD(nn.ReLU().parameters() or [nn.Parameter(1.0)], momentum=-1)),
    ("lr=-1", lambda: nn.Adam([nn.Parameter(1.0)], lr=-1)),
    (r"betas=\(1, 0\)", lambda: nn.Adam([nn.Parameter(1.0)], betas=(1, 0))),
    ("keeps its shape", lambda: setattr(nn.Parameter([1.0]), "data", [1.0, 2.0])),
])
def test_errors(words, make):
    with pytest.raises(ValueError, match=words):
        make()


def test_max_keeps_nan_and_gives_ties_to_the_first():
    pool = nn.MaxPool1d(2)
    assert np.isnan(pool(np.array([[np.nan, 1.0, 2.0, 2.0]]))).tolist() == [[True, False]]
    assert pool.backward(np.array([[5.0, 7.0]])).tolist() == [[5, 0, 7, 0]]


# ---------------------------------------------------------------------------------------------- Against PyTorch


@pytest.mark.parametrize(("name", "rank", "options"), CASES,
                         ids=[f"{n}{r}d-{'-'.join(f'{k}={v}' for k, v in o.items())}" for n, r, o in CASES])
def test_convolutions_are_pytorchs(name, rank, options):
    torch = pytest.importorskip("torch")
    theirs = make(torch.nn, name, rank, options).double()
    ours = make(nn, name, rank, {**options, "dtype": "f8"})
    ours.load_state_dict(theirs.state_dict())
    x = draw(2, 4, *SIZE[:rank])
    tensor = torch.from_numpy(x).requires_grad_()
    expected = theirs(tensor)
    np.testing.assert_allclose(ours(x), expected.detach().numpy(), atol=1e-12)
    g = draw(*expected.shape, seed=3)
    expected.backward(torch.from_numpy(g))
    np.testing.assert_allclose(ours.backward(g), tensor.grad.numpy(), atol=1e-12)
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad, other.grad.numpy(), atol=1e-11)


@pytest.mark.parametrize("x", [[-np.inf, 1.0, 2.0], [False, False, True]])
def test_padding_gets_no_gradient_where_an_element_is_as_low(x):
    pool = nn.MaxPool1d(2, padding=1)
    pool(np.array([[x]]))
    np.testing.assert_array_equal(pool.backward(np.array([[[3.0, 5.0]]])), [[[3.0, 0.0, 5.0]]])



@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("name", "options"), [
    ("MaxPool", dict(kernel_size=2)), ("MaxPool", dict(kernel_size=3, stride=2, padding=1)),
    ("MaxPool", dict(kernel_size=3, stride=1, dilation=2)), ("AvgPool", dict(kernel_size=2)),
    ("AvgPool", dict(kernel_size=3, stride=2, padding=1)),
    ("AvgPool", dict(kernel_size=3, stride=1, padding=1, count_include_pad=False))])
def test_pools_are_pytorchs(name, options, rank):
    torch = pytest.importorskip("torch")
    x = draw(2, 3, *SIZE[:rank]).round(1)                # rounded, so that there are ties
    tensor = torch.from_numpy(x).requires_grad_()
    expected = getattr(torch.nn, f"{name}{rank}d")(**options)(tensor)
    ours = getattr(nn, f"{name}{rank}d")(**options)
    np.testing.assert_allclose(ours(x), expected.detach().numpy(), atol=1e-14)
    g = draw(*expected.shape, seed=1)
    expected.backward(torch.from_numpy(g))
    np.testing.assert_allclose(ours.backward(g), tensor.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize(("name", "options"), [
    ("SGD", dict(lr=0.1)), ("SGD", dict(lr=0.1, momentum=0.9, weight_decay=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)), ("Adam", dict(lr=0.01)),
    ("Adam", dict(lr=0.01, betas=(0.5, 0.9), weight_decay=0.1, eps=1e-3))])
def test_training_steps_are_pytorchs(name, options):
    torch = pytest.importorskip("torch")
    layers = OrderedDict(a=("Conv2d", (1, 4, 3)), b=("ReLU", ()), c=("MaxPool2d", (2,)), d=("Conv2d", (4, 6, 3)),
                         e=("AvgPool2d", (2,)), f=("Flatten", ()), g=("Linear", (6 * 4, 3)))
    theirs = torch.nn.Sequential(*(getattr(torch.nn, kind)(*arguments) for kind, arguments in layers.values())).double()
    ours = nn.Sequential(*(getattr(nn, kind)(*arguments, **({"dtype": "f8"} if kind in ("Conv2d", "Linear") else {}))
                           for kind, arguments in layers.values()))
    ours.load_state_dict(theirs.state_dict())
    their_loss, our_loss = torch.nn.CrossEntropyLoss(), nn.CrossEntropyLoss()
    their_optimiser = getattr(torch.optim, name)(theirs.parameters(), **options)
    our_optimiser = getattr(nn, name)(ours.parameters(), **options)
    for step in range(4):
        x, target = draw(5, 1, 14, 14, seed=step), np.random.default_rng(step).integers(0, 3, 5)
        expected = their_loss(theirs(torch.from_numpy(x)), torch.from_numpy(target))
        their_optimiser.zero_grad()
        expected.backward()
        their_optimiser.step()
        loss = our_loss(ours(x), target)
        our_optimiser.zero_grad()
        ours.backward(our_loss.backward(), input_gradient=False)
        our_optimiser.step()
        np.testing.assert_allclose(loss, expected.item())
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(parameter.data, other.detach().numpy(), atol=1e-12)


def test_first_values_have_pytorchs_distribution():
    for ours, fan_in in ((nn.Conv2d(64, 128, 3, groups=2), 32 * 9), (nn.ConvTranspose2d(128, 64, 3, groups=2), 32 * 9),
                         (nn.Linear(300, 200), 300)):
        bound = fan_in ** -0.5
        for parameter in ours.parameters():
            values = parameter.data
            assert values.dtype == np.float32
            assert 0.9 * bound < abs(values).max() <= bound * (1 + 1e-6)
        np.testing.assert_allclose(ours.weight.data.std(), bound / 3**0.5, rtol=0.02)
        np.testing.assert_allclose(ours.weight.data.mean(), 0, atol=0.02 * bound)
    first, again = (nn.Conv2d(1, 2, 3, rng=7).weight.data for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_the_training_benchmark_runs_the_same_on_both_sides():
    pytest.importorskip("torch")
    from nconv.bench import training

    network = training.Network("tiny", (2, 1, 6, 6), (("Conv2d", 1, 2, 3), ("ReLU",), ("Flatten",), ("Linear", 32, 10)))
    for functions in training.steps(network).values():
        for _ in range(3):
            losses = [function() for function in functions.values()]
            np.testing.assert_allclose(*losses, rtol=1e-5)
