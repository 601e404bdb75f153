"""The safetensors file format: a length, a JSON header with the types, shapes and places of arrays, the bytes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "C64": "<c8", "I64": "<i8", "I32": "<i4",
           "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items() if name != "BF16"}


def load_safetensors(path: str | os.PathLike) -> dict[str, NDArray]:
    """Read every array of a safetensors file.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    dict of str to ndarray
        bfloat16, which NumPy does not know, becomes float32 of the same value.

    Raises
    ------
    ValueError
        If the file is not in the format, or holds a type that is not known here.

    References
    ----------
    .. [1] https://huggingface.co/docs/safetensors, section Format.

    Examples
    --------
    >>> import tempfile, pathlib, numpy as np
    >>> from nconv import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "net.safetensors")
    ...     nn.save_safetensors(path, {"bias": np.array([1.0, 20.0])})
    ...     nn.load_safetensors(path)
    {'bias': array([ 1., 20.])}
    """
    with open(path, "rb") as file:
        content = file.read()
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8:8 + length])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _read(memoryview(content)[8 + length:], **entry) for name, entry in entries.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is not a safetensors file: {error}") from None
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r}: {error}") from None


def _read(content: memoryview, *, dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray:
    if dtype not in _DTYPES:
        raise ValueError(f"unknown type {dtype!r}, expected one of {', '.join(_DTYPES)}")
    start, end = data_offsets
    code = np.dtype(_DTYPES[dtype])
    if not 0 <= start <= end <= len(content) or end - start != math.prod(shape) * code.itemsize:
        raise ValueError(f"an array of shape {shape} and type {dtype} does not lie at bytes {start} to {end} of "
                         f"{len(content)}")
    array = np.frombuffer(content[start:end], code).reshape(shape)
    if dtype == "BF16":                                  # the upper half of a float32
        return (array.astype("u4") << 16).view("f4")
    return array.astype(code.newbyteorder("="))


def save_safetensors(path: str | os.PathLike, state: Mapping[str, ArrayLike]) -> None:
    """Write arrays as a safetensors file.

    Parameters
    ----------
    path : str or path
    state : mapping of str to array_like
        For example a layer's `state_dict`.

    Raises
    ------
    TypeError
        If an array's type is not in the format; nothing is written then.

    Examples
    --------
    See `load_safetensors`.
    """
    arrays = {name: np.asarray(value) for name, value in state.items()}
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        code = array.dtype.newbyteorder("<")
        if code not in _NAMES:
            raise TypeError(f"{name}: dtype {array.dtype} is not in the safetensors format")
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[code], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)                      # so that the arrays are aligned
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
