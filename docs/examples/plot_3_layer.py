"""
A layer of oriented filters
===========================

`nconv.conv2d` on a photograph: 3 colours in, 16 oriented filters out, with a stride, as the first layer of a network
for images has it.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import nconv

image = np.moveaxis(data.chelsea(), -1, 0)[None].astype("float32") / 255       # (N, C, H, W)

# %%
# The weight
# ----------
# Gabor filters in eight directions, even and odd, the same for each colour: shape (K, C, R, S).

y, x = np.mgrid[-5:6, -5:6].astype("float32")
filters = []
for angle in np.arange(8) * np.pi / 8:
    wave = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / 6
    window = np.exp(-(x**2 + y**2) / 12)
    even = window * (np.cos(wave) - (window * np.cos(wave)).sum() / window.sum())
    filters += [even, window * np.sin(wave)]
weight = np.repeat(np.array(filters, "float32")[:, None], 3, axis=1) / 3

# %%
# The layer
# ---------
# 'same' with a stride of 2 gives ceil(size / 2). The plan packs the weight once and can be called image after image.

layer = nconv.plan(nconv.conv2d, image, weight, stride=2, padding="same", padding_mode="reflect")
response = layer(image)
print(image.shape, "->", response.shape)
print(layer)

# %%
# The pictures
# ------------
# The energy of an even and an odd filter together says how strong the structure in that direction is.

energy = np.hypot(response[0, 0::2], response[0, 1::2])
fig, axes = plt.subplots(2, 4, figsize=(9, 3.8), layout="constrained")
for i, ax in enumerate(axes.flat):
    ax.imshow(energy[i], cmap="magma")
    ax.set_title(f"{i * 22.5:g} degrees", fontsize="small")
    ax.set_axis_off()
