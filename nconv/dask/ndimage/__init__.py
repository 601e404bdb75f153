"""`nconv.ndimage`'s filters on dask arrays."""

from .correlation import convolve, convolve1d, correlate, correlate1d
from .derivatives import gaussian_gradient_magnitude, gaussian_laplace, laplace, prewitt, sobel
from .smoothing import gaussian_filter, gaussian_filter1d, uniform_filter, uniform_filter1d

__all__ = [
    "convolve", "convolve1d", "correlate", "correlate1d", "gaussian_filter", "gaussian_filter1d",
    "gaussian_gradient_magnitude", "gaussian_laplace", "laplace", "prewitt", "sobel", "uniform_filter",
    "uniform_filter1d",
]
