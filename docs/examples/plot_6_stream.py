"""
A heart monitor
===============

A monitor cannot wait for the end of the recording: samples come in packets, each is filtered as it comes. Together they
give what one convolution of the whole would; a packet lost on the way spoils its windows only; and the monitor can be
saved and go on elsewhere.
"""

import pickle

import matplotlib.pyplot as plt
import numpy as np
import pywt
from scipy.signal import firwin

import nconv

RATE = 360
ecg = pywt.data.ecg().astype(float)
rng = np.random.default_rng(0)
hum = 60 * np.sin(2 * np.pi * 60 * np.arange(ecg.size) / RATE)           # the mains, 60 Hz
recording = ecg + hum + rng.standard_normal(ecg.size) * 8

# %%
# Packets of any size
# -------------------
# A band from 0.5 to 40 Hz, without drift and without the mains, and no latency beyond the filter's own.

band = firwin(301, [0.5, 40], pass_zero=False, fs=RATE)
monitor = nconv.Stream(band)
received, at = [], 0
while at < recording.size:
    packet = recording[at:at + rng.integers(1, 60)]
    received.append(monitor.feed(packet))
    at += packet.size
    if len(received) == 20:
        monitor = pickle.loads(pickle.dumps(monitor))                     # moves to another process
received.append(monitor.flush())
filtered = np.concatenate(received)
print(len(received), "packets; equal to one convolution:", np.allclose(filtered, nconv.convolve(recording, band)))

# %%
# A lost packet
# -------------

damaged = recording.copy()
damaged[500:520] = np.nan
monitor = nconv.Stream(band)
pieces = [monitor.feed(piece) for piece in np.array_split(damaged, 40)]
holed = np.concatenate([*pieces, monitor.flush()])
print("20 samples lost,", int(np.isnan(holed).sum()), "outputs not known, which is 20 + 301 - 1")

# %%
# The pictures
# ------------

fig, axes = plt.subplots(3, 1, figsize=(9, 6.6), sharex=True, layout="constrained")
delay = band.size // 2
for ax, y, label in zip(axes, (recording, filtered[delay:-delay], holed[delay:-delay]),
                        ("as received", "filtered as it came", "the same with a packet lost"), strict=True):
    ax.plot(np.arange(y.size) / RATE, y, lw=0.8, label=label)
    ax.legend(loc="upper left", fontsize="small")
for edge in np.cumsum([r.size for r in received])[:-1:4]:
    axes[0].axvline(min(edge, recording.size) / RATE, color="tab:gray", lw=0.3)
axes[2].set_xlabel("seconds")
