"""
Find a letter on a page
=======================

Template matching: a correlation with a small piece of the picture says where the picture looks like that piece. Divided
by the local contrast it is 1 where they are equal. The page was scanned for scikit-image.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from skimage import data

import nconv

page = data.page().astype("float32") / 255

# %%
# The piece
# ---------
# One letter, cut out of the page.

top, left, height, width = 53, 98, 10, 9
letter = page[top:top + height, left:left + width]
template = letter - letter.mean()

# %%
# Three correlations
# ------------------
# The sum over each window of the page times the template, and two sums with a window of ones for the contrast:
#
# ``match = sum (page - mean) (template) / sqrt(sum (page - mean)**2 sum template**2)``
#
# The template has mean zero, so the page's own mean drops out of the first sum.

ones = np.ones_like(template)
product = nconv.correlate(page, template, mode="valid")
mean = nconv.correlate(page, ones, mode="valid") / ones.size
energy = nconv.correlate(page**2, ones, mode="valid") - ones.size * mean**2
match = product / np.sqrt(np.maximum(energy, 1e-3) * (template**2).sum())
print(f"at the letter itself {match[top, left]:.4f}, elsewhere {np.sort(match.ravel())[-10:].round(2)}")

# %%
# The places
# ----------
# A place counts if the match is high and the largest within the letter's own size.

found = []
rest = match.copy()
while rest.max() > 0.75:
    y, x = np.unravel_index(rest.argmax(), rest.shape)
    found.append((y, x))
    rest[max(y - height // 2, 0):y + height // 2 + 1, max(x - width // 2, 0):x + width // 2 + 1] = 0
print(f"{len(found)} places")

fig, axes = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
axes[0].imshow(page, cmap="gray")
for y, x in found:
    axes[0].add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, color="tab:red"))
axes[0].set_title(f"{len(found)} letters like the one cut out")
shown = axes[1].imshow(match, cmap="magma", vmin=0, vmax=1)
axes[1].set_title("match")
fig.colorbar(shown, ax=axes[1], shrink=0.8)
for ax in axes:
    ax.set_axis_off()
