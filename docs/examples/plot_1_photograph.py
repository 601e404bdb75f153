"""
Blur, edges and a lens on a photograph
======================================

Three windows of very different size on one picture, with `nconv.ndimage`: the dispatcher takes a direct sum for the
small ones and a Fourier transform for the large one, and keeps the boundary mode for both.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import nconv

photograph = data.chelsea().mean(axis=2).astype("float32") / 255

# %%
# Three windows
# -------------
# A Gaussian blur is separable: two one-dimensional passes. Sobel's window finds horizontal edges. A disc is what a lens
# out of focus makes of a point of light.

t = np.arange(-9, 10)
gauss = np.exp(-t**2 / (2 * 3.0**2)).astype("float32")
gauss /= gauss.sum()
sobel = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]], "float32")
y, x = np.mgrid[-30:31, -30:31]
disc = (x**2 + y**2 <= 30**2).astype("float32")
disc /= disc.sum()

blurred = nconv.ndimage.correlate1d(nconv.ndimage.correlate1d(photograph, gauss, axis=0), gauss, axis=1)
edges = nconv.ndimage.convolve(photograph, sobel, mode="nearest")
plan = nconv.plan(nconv.ndimage.convolve, photograph, disc, mode="mirror")
unfocused = plan(photograph)

# %%
# Why that algorithm
# ------------------
# The plan shows what was considered for the disc of 61 by 61.

print(plan)

# %%
# The pictures
# ------------

fig, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
pictures = {"photograph": photograph, "Gaussian blur, 19 taps twice": blurred, "horizontal edges, 3 x 3": abs(edges),
            f"disc, 61 x 61 ({plan.method})": unfocused}
for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
    ax.imshow(picture, cmap="gray")
    ax.set_title(title)
    ax.set_axis_off()
