"""
A published network
===================

PP-OCR's text detector, 85 convolutions whose weights ship in the package rapidocr (Apache 2.0): an ONNX model of other
people, run with every convolution on nconv and compared with ONNX Runtime.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import rapidocr
from skimage import data

import nconv

page = data.page()
height, width = (n // 32 * 32 for n in page.shape)                # the network halves the size five times
x = page[:height, :width].astype("float32") / 127.5 - 1
x = np.repeat(x[None, None], 3, axis=1)                           # (N, C, H, W), grey as three equal colours

# %%
# The same model twice
# --------------------
# `nconv.onnx_evaluator` gives the reference evaluator of the onnx package, in which the nodes Conv and ConvTranspose
# (dense, depthwise, 1 x 1 to 7 x 7, with strides, with padding on one side) are nconv's.

model = Path(rapidocr.__file__).parent / "models" / "PP-OCRv6_det_small.onnx"
text = nconv.onnx_evaluator(model).run(None, {"x": x})[0]
expected = onnxruntime.InferenceSession(model).run(None, {"x": x})[0]
print(f"{x.shape} -> {text.shape}, largest difference from ONNX Runtime {abs(text - expected).max():.1e}")

# %%
# What it sees
# ------------
# The probability of text at every element of the scanned page.

fig, axes = plt.subplots(1, 2, figsize=(11, 2.8), layout="constrained")
axes[0].imshow(page[:height, :width], cmap="gray")
axes[0].set_title("page")
shown = axes[1].imshow(text[0, 0], cmap="magma", vmin=0, vmax=1)
axes[1].set_title("probability of text")
fig.colorbar(shown, ax=axes[1], shrink=0.8)
for ax in axes:
    ax.set_axis_off()
