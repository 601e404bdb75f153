"""Layers with PyTorch's names on NumPy arrays: forward, backward, and enough beside them to train a small network.

There is no automatic differentiation: a layer remembers the input of its last forward pass, and `backward` takes the
gradient of its output, adds the gradients of its parameters to their `grad` and returns the gradient of its input.
Every convolution runs through the functions of `nconv` and `nconv.grad`.
"""

from .convolution import Conv1d as Conv1d
from .convolution import Conv2d as Conv2d
from .convolution import Conv3d as Conv3d
from .convolution import ConvTranspose1d as ConvTranspose1d
from .convolution import ConvTranspose2d as ConvTranspose2d
from .convolution import ConvTranspose3d as ConvTranspose3d
from .layers import Flatten as Flatten
from .layers import Linear as Linear
from .layers import ReLU as ReLU
from .module import Module as Module
from .module import Parameter as Parameter
from .module import Sequential as Sequential
from .pooling import AvgPool1d as AvgPool1d
from .pooling import AvgPool2d as AvgPool2d
from .pooling import AvgPool3d as AvgPool3d
from .pooling import MaxPool1d as MaxPool1d
from .pooling import MaxPool2d as MaxPool2d
from .pooling import MaxPool3d as MaxPool3d
from .safetensors import load_safetensors as load_safetensors
from .safetensors import save_safetensors as save_safetensors
from .training import SGD as SGD
from .training import Adam as Adam
from .training import CrossEntropyLoss as CrossEntropyLoss

__all__ = ["SGD", "Adam", "AvgPool1d", "AvgPool2d", "AvgPool3d", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d",
           "ConvTranspose2d", "ConvTranspose3d", "CrossEntropyLoss", "Flatten", "Linear", "MaxPool1d", "MaxPool2d",
           "MaxPool3d", "Module", "Parameter", "ReLU", "Sequential", "load_safetensors", "save_safetensors"]
