"""What a type checker sees of the names that `__init__.py` imports lazily."""

from . import dask as dask
from . import grad as grad
from . import ndimage as ndimage
from . import nn as nn
from . import plot as plot
from .errors import DeviceError as DeviceError
from .functional import conv1d as conv1d
from .functional import conv2d as conv2d
from .functional import conv3d as conv3d
from .functional import conv_transpose1d as conv_transpose1d
from .functional import conv_transpose2d as conv_transpose2d
from .functional import conv_transpose3d as conv_transpose3d
from .interop.onnx import onnx_evaluator as onnx_evaluator
from .interop.scipy_patch import patch_scipy as patch_scipy
from .limits import allow_tf32 as allow_tf32
from .limits import set_error_limit as set_error_limit
from .limits import set_workspace_limit as set_workspace_limit
from .memory import export_wisdom as export_wisdom
from .memory import forget_wisdom as forget_wisdom
from .memory import import_wisdom as import_wisdom
from .normalized import normalized_convolve as normalized_convolve
from .planner import Plan as Plan
from .planner import algorithms as algorithms
from .planner import plan as plan
from .planner import tune as tune
from .problem import ArraySpec as ArraySpec
from .signal import choose_conv_method as choose_conv_method
from .signal import convolve as convolve
from .signal import convolve2d as convolve2d
from .signal import correlate as correlate
from .signal import correlate2d as correlate2d
from .signal import fftconvolve as fftconvolve
from .signal import oaconvolve as oaconvolve
from .stream import Stream as Stream
from .threads import get_num_threads as get_num_threads
from .threads import set_num_threads as set_num_threads

__version__: str
