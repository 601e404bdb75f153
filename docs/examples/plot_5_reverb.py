"""
A reverb of ten seconds
=======================

The echo of a hall is a convolution with what the hall answers to one clap. At 48,000 samples a second, ten seconds of
it are 480,000 taps; a musician who plays through it must hear the result within milliseconds. `nconv.Stream` takes
blocks of 128 samples, 2.7 ms, and gives each back before the next has come.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import pywt
from scipy.signal import resample_poly

import nconv

RATE, BLOCK = 48_000, 128

# %%
# A sound, and a hall
# -------------------
# The sound is a heart: a tone whose loudness follows an electrocardiogram. The hall is modelled: noise that decays by
# 60 dB in eight seconds, the high tones sooner, and another noise for each ear.

ecg = pywt.data.ecg().astype(float)                    # 360 samples a second
beats = np.clip(resample_poly(ecg - np.median(ecg), RATE, 360), 0, None)
tone = np.sin(2 * np.pi * 330 * np.arange(beats.size) / RATE)
dry = (tone * beats / beats.max()).astype(np.float32)

rng = np.random.default_rng(0)
t = np.arange(10 * RATE) / RATE
low = nconv.ndimage.gaussian_filter1d(rng.standard_normal((2, t.size)), 6)
high = rng.standard_normal((2, t.size))
hall = (4 * low * 10 ** (-3 * t / 8) + high * 10 ** (-3 * t / 2)).astype(np.float32)
hall *= 0.3 / np.linalg.norm(hall[0])
print(f"{dry.size / RATE:.1f} s of sound, {hall.shape[1]:,} taps for each of {hall.shape[0]} ears")

# %%
# Block by block
# --------------
# One channel comes in, two go out: the kernel's axes are broadcast with the signal's.

stream = nconv.Stream(hall, block=BLOCK)
stream.feed(np.zeros(BLOCK, np.float32))               # compiles, and chooses
stream.reset()
wet, taken = [], []
for start in range(0, dry.size, BLOCK):
    begin = time.perf_counter()
    wet.append(stream.feed(dry[start:start + BLOCK]))
    taken.append(time.perf_counter() - begin)
print(stream)
wet.append(stream.flush())
wet = np.concatenate(wet, axis=-1)
taken = 1e3 * np.array(taken)
print(f"share of one core {taken.mean() / (1e3 * BLOCK / RATE):.1%}, median call {np.median(taken):.3f} ms")
whole = nconv.convolve(dry[np.newaxis], hall, axes=-1)
print("largest difference from one convolution of the whole", abs(wet - whole).max() / abs(whole).max())

# %%
# The pictures
# ------------

fig, axes = plt.subplots(3, 1, figsize=(9, 7), layout="constrained")
seconds = np.arange(wet.shape[1]) / RATE
axes[0].plot(seconds[:dry.size], dry, lw=0.4, label="dry")
axes[0].plot(seconds, wet[0] / abs(wet).max(), lw=0.4, alpha=0.7, label="in the hall, left ear")
axes[0].set_xlabel("seconds")
axes[1].specgram(wet[0] + 1e-9 * rng.standard_normal(wet.shape[1]), Fs=RATE, NFFT=2048, noverlap=1024, vmin=-140)
axes[1].set(ylim=(0, 8000), xlabel="seconds", ylabel="Hz")
axes[2].plot(taken, lw=0.6, label="time of each call")
axes[2].axhline(1e3 * BLOCK / RATE, color="tab:red", lw=1, label="time until the next block")
axes[2].set(yscale="log", xlabel="block", ylabel="ms")
for ax in axes[::2]:
    ax.legend(loc="upper right", fontsize="small")
