"""Pictures: what is drawn where, into the caller's axes."""

import builtins

import numpy as np
import pytest

import nconv
from nconv import nn

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
plot = nconv.plot


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def picture(ax):
    return np.ma.filled(ax.images[0].get_array(), np.nan)


def labels(ax):
    return [text.get_text() for text in ax.texts]


def test_kernels_lie_in_rows_on_one_scale_around_zero(ax):
    weight = np.arange(2 * 3.0).reshape(2, 1, 1, 3) - 4
    assert plot.kernels(weight, columns=2, ax=ax) is ax
    np.testing.assert_array_equal(picture(ax), [[-4, -3, -2, np.nan, -1, 0, 1]])
    assert ax.images[0].get_clim() == (-4, 4)
    assert labels(ax) == ["0", "1"]
    assert ax.get_title() == "2 kernels of 1 x 3"


def test_kernels_of_several_channels_stand_in_a_row_for_each_output(ax):
    weight = np.arange(3 * 2 * 4.0).reshape(3, 2, 2, 2)
    plot.kernels(nn.Conv2d(2, 3, 2), ax=ax)
    plot.kernels(weight, ax=ax)
    drawn = np.ma.filled(ax.images[-1].get_array(), np.nan)
    assert drawn.shape == (3 * 2 + 2, 2 * 2 + 1)
    np.testing.assert_array_equal(drawn[3:5, 3:5], weight[1, 1])
    assert np.isnan(drawn[2]).all() and np.isnan(drawn[:, 2]).all()


def test_kernels_of_three_channels_are_colours(ax):
    weight = np.zeros((1, 3, 2, 2))
    weight[0, 0, 0, 0], weight[0, 2, 1, 1] = 2, -2
    plot.kernels(weight, ax=ax)
    np.testing.assert_array_equal(picture(ax)[0, 0], [1, 0.5, 0.5])
    np.testing.assert_array_equal(picture(ax)[1, 1], [0.5, 0.5, 0])


@pytest.mark.parametrize(("shape", "labelled", "size"), [
    ((2, 1, 9), 2, (2 + 1 + 2, 9)), ((2, 3, 5), 6, (1 + 1 + 1, 3 * 5 + 2)), ((2, 1, 3, 4, 5), 6, (4 + 1 + 4, 15 + 2))])
def test_signals_are_strips_and_volumes_slices(ax, shape, labelled, size):
    plot.kernels(np.ones(shape), ax=ax, columns=1 if shape[1:] == (1, 9) else None)
    assert len(labels(ax)) == labelled
    assert picture(ax).shape == size


def test_many_kernels_are_cut(ax):
    plot.kernels(np.ones((100, 1, 2, 2)), limit=10, ax=ax)
    assert labels(ax) == [str(k) for k in range(10)]
    assert ax.get_title() == "100 kernels of 2 x 2: the first 10"


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3), (3, 6, 7), (1, 3, 6, 7)])
def test_feature_maps_take_images_in_any_order(ax, shape):
    channels = 1 if len(shape) == 2 else 3
    layer = nn.Conv2d(channels, 4, 2, rng=0)
    image = np.random.default_rng(0).standard_normal(shape).astype("f4")
    plot.feature_maps(layer, image, columns=4, ax=ax)
    planes = np.moveaxis(image, -1, 0) if shape == (6, 7, 3) else image
    expected = layer(planes.reshape(1, channels, 6, 7))[0]
    np.testing.assert_array_equal(picture(ax)[:, :6], expected[0])
    np.testing.assert_array_equal(picture(ax)[:, 7:13], expected[1])
    assert ax.get_title() == "4 maps of 5 x 6"


def test_response_of_one_dimension(ax):
    plot.response([[1.0, 0, 0, 1.0], np.array([1.0])], rate=8, ax=ax)
    frequency, level = ax.lines[0].get_data()
    kept = frequency != 4 / 3                            # where the gain is zero
    np.testing.assert_allclose(level[kept], np.maximum(20 * np.log10(abs(2 * np.cos(np.pi * frequency[kept] * 3 / 8))),
                                                       20 * np.log10(2) - 100), atol=1e-8)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 0, atol=1e-12)
    assert ax.get_xlabel() == "frequency [Hz]"


def test_response_of_two_dimensions_has_zero_in_the_middle(ax):
    plot.response(np.ones((1, 3)), ax=ax)
    level = picture(ax)
    middle = level.shape[0] // 2
    np.testing.assert_allclose(level[:, middle], 20 * np.log10(3))
    assert level[middle].argmax() == middle


def test_winners_are_the_plans(ax):
    sizes, windows = [64, 100_000], [3, 2001]
    plot.winners(sizes=sizes, windows=windows, ax=ax)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    drawn = np.ma.filled(ax.collections[0].get_array().reshape(2, 2).astype(float), np.nan)
    assert np.isnan(drawn[1, 0])                         # the window is the longer one
    for row, column in (0, 0), (0, 1), (1, 1):
        plan = nconv.plan(nconv.convolve, nconv.ArraySpec(sizes[column]), nconv.ArraySpec(windows[row]))
        assert names[int(drawn[row, column])] == plan.method


def test_winners_of_layers_and_measured(ax):
    plot.winners(nconv.conv2d, channels=2, sizes=[8], windows=[1, 3], padding="same", measure=True, ax=ax)
    assert ax.get_title(loc="left") == "nconv.conv2d, float32: measured"
    x, w = nconv.ArraySpec((1, 2, 8, 8)), nconv.ArraySpec((2, 2, 3, 3))
    candidates = nconv.plan(nconv.conv2d, x, w, padding="same").candidates
    assert any(c.measured for c in candidates)


def test_compare_draws_every_method_and_rival(ax):
    x, h = np.ones(500), np.ones(7)
    plot.compare(nconv.convolve, x, h, "same", rivals={"numpy": lambda: np.convolve(x, h, "same")}, ax=ax)
    names = [text.get_text() for text in ax.get_yticklabels()]
    candidates = [c for c in nconv.plan(nconv.convolve, x, h, "same").candidates if not c.refused]
    assert sorted(names) == sorted(["numpy", *(f"{c.name} (auto)" if c.chosen else c.name for c in candidates)])
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == sorted(widths, reverse=True) and min(widths) > 0


@pytest.mark.parametrize(("words", "draw"), [
    (r"shape=\(3, 3\)", lambda: plot.kernels(np.ones((3, 3)))),
    (r"shape=\(2, 1, 4, 4\)", lambda: plot.feature_maps(lambda x: x, np.ones((2, 1, 4, 4)))),
    (r"must give \(1, K, P, Q\)", lambda: plot.feature_maps(lambda x: x[0], np.ones((4, 4)))),
    ("not be zero", lambda: plot.response(np.zeros(3))),
    ("rank=4", lambda: plot.winners(rank=4)),
])
def test_errors(words, draw):
    with pytest.raises(ValueError, match=words):
        draw()
    plt.close("all")


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'nconv\[plot\]'"):
        plot.response([1.0])
