"""
The pictures of nconv.plot
==========================

Every function of `nconv.plot` draws into one matplotlib axes and returns it.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import signal
from skimage import data

import nconv
import nconv.plot
from nconv import nn

# %%
# Kernels and feature maps
# ------------------------
# A weight in colour has three input channels: here Gabor filters in eight directions for red minus green.

y, x = np.mgrid[-5:6, -5:6].astype("float32")
waves = [np.exp(-(x**2 + y**2) / 12) * np.sin(x * np.cos(angle) + y * np.sin(angle))
         for angle in np.arange(8) * np.pi / 8]
layer = nn.Conv2d(3, 8, 11, padding="same", padding_mode="reflect", bias=False)
layer.weight.data = np.stack([[wave, -wave, 0 * wave] for wave in waves])

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
nconv.plot.kernels(layer, ax=axes[0], columns=4)
nconv.plot.feature_maps(layer, data.chelsea().astype("float32") / 255, ax=axes[1], columns=2)

# %%
# What a filter lets through
# --------------------------
# In one dimension a curve for each kernel, in two a picture.

fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
nconv.plot.response([signal.firwin(31, 4000, fs=48_000), signal.firwin(201, 4000, fs=48_000)], rate=48_000, ax=axes[0])
nconv.plot.response(waves[1], floor=-40, ax=axes[1])

# %%
# Which method wins where
# -----------------------
# Over the length of a signal and of a window, as the dispatcher estimates it on this machine; ``measure=True`` asks the
# clock.

fig, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
nconv.plot.winners(nconv.convolve, ax=axes[0])
nconv.plot.winners(nconv.conv2d, channels=16, windows=[1, 3, 5, 7, 9, 11, 15, 21, 31], padding="same", ax=axes[1])

# %%
# How fast each is
# ----------------
# Every method of one call, measured, and SciPy beside them.

recording = np.random.default_rng(0).standard_normal(100_000).astype("float32")
window = signal.firwin(501, 0.2).astype("float32")
nconv.plot.compare(nconv.convolve, recording, window, "same", rivals={
    "scipy.signal.convolve": lambda: signal.convolve(recording, window, "same"),
    "scipy.signal.oaconvolve": lambda: signal.oaconvolve(recording, window, "same")})
