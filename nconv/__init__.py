"""nconv: convolution for NumPy, with SciPy's and PyTorch's names and meaning.

Names are imported at their first use, so that `import nconv` costs next to nothing: Numba loads with the first call.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules={"dask", "grad", "ndimage", "nn", "plot"},
    submod_attrs={
        "errors": ["DeviceError"],
        "functional": ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"],
        "interop.onnx": ["onnx_evaluator"],
        "interop.scipy_patch": ["patch_scipy"],
        "limits": ["allow_tf32", "set_error_limit", "set_workspace_limit"],
        "memory": ["export_wisdom", "forget_wisdom", "import_wisdom"],
        "normalized": ["normalized_convolve"],
        "planner": ["Plan", "algorithms", "plan", "tune"],
        "problem": ["ArraySpec"],
        "signal": ["choose_conv_method", "convolve", "convolve2d", "correlate", "correlate2d", "fftconvolve",
                   "oaconvolve"],
        "stream": ["Stream"],
        "threads": ["get_num_threads", "set_num_threads"],
    },
)
