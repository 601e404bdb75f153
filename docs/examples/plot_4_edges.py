"""
Edges of coins
==============

The first three steps of Canny's edge detector are convolutions and comparisons: smooth, differentiate, keep the ridges.
The photograph shows Greek coins from Pompeii (Brooklyn Museum, in scikit-image).
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import hsv_to_rgb
from skimage import data

import nconv

photograph = data.coins().astype("float32") / 255

# %%
# Smooth and differentiate in one pass
# ------------------------------------
# A Gaussian and its derivative are the two factors of a separable window, so each axis is filtered once.

sigma = 2.0
t = np.arange(-8, 9)
gauss = np.exp(-t**2 / (2 * sigma**2)).astype("float32")
gauss /= gauss.sum()
slope = (t / sigma**2).astype("float32") * gauss


def derivative(axis):
    along = nconv.ndimage.correlate1d(photograph, slope, axis=axis, mode="nearest")
    return nconv.ndimage.correlate1d(along, gauss, axis=1 - axis, mode="nearest")


down, right = derivative(0), derivative(1)
strength = np.hypot(down, right)
angle = np.arctan2(down, right)

# %%
# Keep the ridges
# ---------------
# An edge is where the gradient is larger than on both sides along its own direction. A window with a single one in it
# moves the picture by one element; four directions are enough.

sector = np.round(angle / (np.pi / 4)).astype(int) % 4
ridge = np.zeros(strength.shape, bool)
for direction, (dy, dx) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
    sides = []
    for sign in 1, -1:
        window = np.zeros((3, 3), "float32")
        window[1 + sign * dy, 1 + sign * dx] = 1
        sides.append(nconv.ndimage.correlate(strength, window, mode="nearest"))
    ridge |= (sector == direction) & (strength > sides[0]) & (strength >= sides[1])
edges = ridge & (strength > 0.02)
print(f"{edges.mean():.1%} of the elements lie on an edge")

# %%
# The pictures
# ------------
# The colour says in which direction it becomes lighter.

colours = hsv_to_rgb(np.stack([angle / (2 * np.pi) + 0.5, np.ones_like(angle),
                               np.minimum(strength / strength.max() * 1.5, 1)], axis=-1))
fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for ax, title, picture in zip(axes, ("photograph", "gradient", "edges"), (photograph, colours, ~edges), strict=True):
    ax.imshow(picture, cmap="gray")
    ax.set_title(title)
    ax.set_axis_off()
