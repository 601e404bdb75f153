"""
Heartbeats by a matched filter
==============================

An electrocardiogram, the beats in it, and a lost sample: a matched filter is a correlation with the shape that one
looks for, and a sample that is not a number must not silence the whole recording.
"""

import matplotlib.pyplot as plt
import numpy as np
import pywt

import nconv

ecg = pywt.data.ecg().astype("float64")

# %%
# One beat as the pattern
# -----------------------
# A moving average is the baseline; what is left is compared with one beat, cut out around the highest sample.

baseline = nconv.ndimage.correlate1d(ecg, np.full(151, 1 / 151), mode="nearest")
signal = ecg - baseline
peak = int(signal.argmax())
beat = signal[peak - 20:peak + 30]
match = nconv.correlate(signal, beat, mode="same") / (beat @ beat)
beats = np.flatnonzero((match > 0.6) & (match >= np.roll(match, 1)) & (match > np.roll(match, -1)))
print("beats at samples", beats)

# %%
# A lost sample
# -------------
# One NaN spoils the 50 outputs whose window holds it and no other, also through the FFT, which mixes every input into
# every output.

lost = signal.copy()
lost[400] = np.nan
for method in "direct", "im2col", "fft":
    print(method, int(np.isnan(nconv.correlate(lost, beat, mode="same", method=method)).sum()), "outputs are NaN")
damaged = nconv.correlate(lost, beat, mode="same") / (beat @ beat)

# %%
# The pictures
# ------------

fig, axes = plt.subplots(3, 1, figsize=(9, 6.4), sharex=True, layout="constrained")
axes[0].plot(ecg, lw=0.8, label="electrocardiogram")
axes[0].plot(baseline, label="moving average")
axes[1].plot(match, lw=0.8, label="matched filter")
axes[1].plot(beats, match[beats], "v", label="beats")
axes[2].plot(damaged, lw=0.8, label="the same with one sample lost")
axes[2].axvspan(*np.flatnonzero(np.isnan(damaged))[[0, -1]], color="tab:red", alpha=0.2, label="not a number")
for ax in axes:
    ax.legend(loc="upper left", fontsize="small")
axes[2].set_xlabel("sample")
