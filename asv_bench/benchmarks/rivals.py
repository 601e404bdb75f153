"""What nconv is compared with, as far as it is installed: name -> function."""

import scipy.ndimage
import scipy.signal

SIGNALS = {"scipy.convolve": lambda x, w: scipy.signal.convolve(x, w, "same"),
           "scipy.oaconvolve": lambda x, w: scipy.signal.oaconvolve(x, w, "same"),
           "scipy.ndimage": lambda x, w: scipy.ndimage.convolve(x, w, mode="constant")}
LAYERS = {}
try:
    import torch
except ImportError:
    pass
else:
    LAYERS["torch"] = lambda x, w, **options: torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(w), **options)
