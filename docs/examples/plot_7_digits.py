"""
A network that reads digits
===========================

A small convolutional network, trained with `nconv.nn` on the 1,797 digits that ship with scikit-learn, tested on a
quarter of them that it never saw.
"""

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import Progress
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay, classification_report, confusion_matrix
from sklearn.model_selection import train_test_split

import nconv.plot
from nconv import nn

digits = load_digits()
images = digits.images[:, None].astype("float32") / 16                        # (N, C, H, W)
x, x_test, y, y_test = train_test_split(images, digits.target, test_size=0.25, stratify=digits.target, random_state=0)
print(f"{len(x)} digits to learn from, {len(x_test)} held out")

# %%
# The network
# -----------
# Two convolutions, one pooling, one linear layer: PyTorch's names and arguments on NumPy arrays.

seed = 0
rng = np.random.default_rng(seed)
net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, rng=rng), nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(32 * 4 * 4, 10, rng=rng))
print(f"{sum(parameter.data.size for parameter in net.parameters()):,} parameters")

# %%
# Training
# --------
# Forty times through the digits in batches of 32, each time moved by a pixel at most, for a digit is the same one pixel
# further on; the steps grow smaller on the way. The first layer's input gradient is not needed.


def moved(digits):
    """Each digit up or down, left or right by a pixel, or not at all."""
    padded = np.pad(digits, ((0, 0), (0, 0), (1, 1), (1, 1)))
    places = np.lib.stride_tricks.sliding_window_view(padded, digits.shape[2:], axis=(2, 3))
    down, right = rng.integers(0, 3, (2, len(digits)))
    return places[np.arange(len(digits)), :, down, right]


epochs, batch, rate = 40, 32, 2e-3
loss, optimiser = nn.CrossEntropyLoss(), nn.Adam(net.parameters(), lr=rate)
curve = []
with Progress() as progress:
    task = progress.add_task("training", total=epochs)
    for epoch in range(epochs):
        optimiser.lr = rate * (1 + np.cos(np.pi * epoch / epochs)) / 2
        order = rng.permutation(len(x))
        total = 0.0
        for start in range(0, len(x), batch):
            chosen = order[start:start + batch]
            total += loss(net(moved(x[chosen])), y[chosen]) * len(chosen)
            optimiser.zero_grad()
            net.backward(loss.backward(), input_gradient=False)
            optimiser.step()
        curve.append(total / len(x))
        progress.update(task, advance=1, description=f"training, loss {curve[-1]:.4f}")

# %%
# How well it reads
# -----------------
# On the digits held out: precision is the share of the answers that are right, recall the share of the digits that are
# found. With the seeds 0 to 4 the accuracy was 99.1 % to 99.8 %.

answers = net.eval()(x_test).argmax(axis=1)
accuracy = float((answers == y_test).mean())
print(f"accuracy {accuracy:.2%}")
print(classification_report(y_test, answers, digits=3))
confusion = confusion_matrix(y_test, answers)

fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
axes[0].semilogy(range(1, epochs + 1), curve)
axes[0].set(xlabel="epoch", ylabel="mean loss")
ConfusionMatrixDisplay(confusion).plot(ax=axes[1], cmap="Blues", colorbar=False)
axes[1].set_title("confusion of the digits held out", fontsize="medium")

# %%
# What it has learnt
# ------------------
# The first layer's kernels, and what they make of a digit.

fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
nconv.plot.kernels(net[0], ax=axes[0])
nconv.plot.feature_maps(net[0], x_test[0], ax=axes[1])

# %%
# The digits that it got wrong.

wrong = np.flatnonzero(answers != y_test)
fig, axes = plt.subplots(1, max(len(wrong), 1), figsize=(1.4 * max(len(wrong), 2), 1.7), layout="constrained",
                         squeeze=False)
for ax, i in zip(axes.flat, wrong, strict=False):
    ax.imshow(x_test[i, 0], cmap="gray_r")
    ax.set_title(f"{y_test[i]} read as {answers[i]}", fontsize="small")
for ax in axes.flat:
    ax.set_axis_off()
