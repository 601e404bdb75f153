"""
Deblur the Hubble deep field
============================

The Hubble Deep Field (NASA, in scikit-image), blurred as a telescope on the ground would see it, and brought back by
the Richardson-Lucy iteration, which is two convolutions a step.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import nconv

sky = data.hubble_deep_field()[100:612, 200:712].mean(axis=2).astype("float32") / 255

# %%
# What the atmosphere does
# ------------------------
# A point of light becomes a Moffat profile, with wide wings; a few photons for each element add noise.

y, x = np.mgrid[-20:21, -20:21]
psf = ((1 + (x**2 + y**2) / 3.0**2) ** -2.5).astype("float32")
psf /= psf.sum()
rng = np.random.default_rng(0)
seen = rng.poisson(2000 * nconv.ndimage.convolve(sky, psf, mode="reflect")).astype("float32") / 2000

# %%
# Richardson-Lucy
# ---------------
# ``estimate <- estimate * correlate(seen / convolve(estimate, psf), psf)``: both filters are planned once, so the
# window is packed or transformed once for all steps.

blur = nconv.plan(nconv.ndimage.convolve, nconv.ArraySpec(sky.shape, "float32"), psf, mode="reflect")
back = nconv.plan(nconv.ndimage.correlate, nconv.ArraySpec(sky.shape, "float32"), psf, mode="reflect")
print(blur)

estimate = np.full_like(seen, seen.mean())
errors = []
for _ in range(40):
    estimate *= back(seen / np.maximum(blur(estimate), 1e-6))
    errors.append(np.sqrt(((estimate - sky) ** 2).mean()))
before = np.sqrt(((seen - sky) ** 2).mean())
print(f"distance from the true sky: {before:.4f} blurred, {errors[-1]:.4f} after {len(errors)} steps")

# %%
# The pictures
# ------------
# The same quarter of each, brightened by a square root as astronomers do.

fig, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
titles = "as Hubble saw it", "from the ground", f"after {len(errors)} steps"
for ax, title, picture in zip(axes, titles, (sky, seen, estimate), strict=True):
    ax.imshow(np.sqrt(picture[128:384, 128:384]), cmap="inferno", vmin=0.15, vmax=0.9)
    ax.set_title(title)
    ax.set_axis_off()

# %%
# The distance falls fast at first, then slowly: what is left is noise, and detail that the blur has taken.

fig, ax = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
ax.plot(range(1, len(errors) + 1), errors)
ax.axhline(before, color="gray", ls="--", label="blurred")
ax.set(xlabel="step", ylabel="distance", ylim=(0, None))
ax.legend()
