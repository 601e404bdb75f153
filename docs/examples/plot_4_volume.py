"""
Smoothing a volume
==================

A scan of a head by magnetic resonance: three dimensions, voxels that are not cubes, slices that were lost. Smoothing by
a Gaussian is a convolution with a window that is an outer product; nconv sees that and makes one pass for each axis.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import nibabel
import numpy as np

import nconv

scan = nibabel.load(Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz")
volume = scan.get_fdata(dtype=np.float32)[..., 0]
voxel = np.array(scan.header.get_zooms()[:3])
print("voxels", volume.shape, "of", voxel.round(1), "mm")

# %%
# The same width in millimetres along every axis
# ----------------------------------------------
# 6 mm at half height, as neuroimaging does it: another sigma, in voxels, for each axis.

sigma = 6 / (2 * np.sqrt(2 * np.log(2))) / voxel
smooth = nconv.ndimage.gaussian_filter(volume, sigma)

# %%
# A window of one's own
# ---------------------
# Handed over as one array of three dimensions, the Gaussian is recognised as an outer product; a plan says so.

def gaussian(s):
    line = np.exp(-(np.arange(-int(4 * s + 0.5), int(4 * s + 0.5) + 1) / s) ** 2 / 2)
    return line / line.sum()


x, y, z = map(gaussian, sigma)
window = np.einsum("i,j,k->ijk", x, y, z).astype(np.float32)
plan = nconv.plan(nconv.ndimage.convolve, volume, window)
print(plan)
print("largest difference", abs(plan(volume) - smooth).max() / smooth.max())

# %%
# Lost slices
# -----------
# Where samples are missing, the mean over those that are there: no zeros leak into the neighbours.

damaged = volume.copy()
damaged[:, :, 11:13] = np.nan
damaged[40:55, 30:45] = np.nan
mended = nconv.normalized_convolve(damaged, window, boundary="extend")

# %%
# The pictures
# ------------

fig, axes = plt.subplots(2, 2, figsize=(9, 3.1), layout="constrained")
for ax, (title, picture) in zip(axes.flat, {
        "as measured": volume, "smoothed": smooth, "slices and a block lost": damaged, "smoothed over the gaps": mended,
}.items(), strict=True):
    ax.imshow(picture[:, 36].T, origin="lower", cmap="gray", vmax=volume.max(), aspect=voxel[2] / voxel[0])
    ax.set_title(title, fontsize="medium")
    ax.set_facecolor("tab:red")
    ax.set_xticks([])
    ax.set_yticks([])
