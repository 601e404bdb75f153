"""nconv on dask arrays: data larger than memory, and machines beside this one.

The functions have the names, the arguments and the meaning of those in `nconv`, take a dask array in place of the
input, and return a dask array. Nothing is computed before ``compute`` or ``store``.
"""

try:
    from . import ndimage
    from .functional import conv1d, conv2d, conv3d
    from .signal import convolve, correlate
except ImportError as error:
    if (error.name or "").partition(".")[0] != "dask":
        raise
    raise ImportError("nconv.dask needs dask: pip install 'nconv[dask]'", name=error.name) from error

__all__ = ["conv1d", "conv2d", "conv3d", "convolve", "correlate", "ndimage"]
