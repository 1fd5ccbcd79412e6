"""Weights in a .safetensors file: the header is checked first, and the wanted bytes alone are read."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._arrays.libraries import NumPyArray
from .safetensors import read_header, safetensors_module

# The names of the format. NumPy has no bfloat16: its arrays hold the bits, as uint16.
_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
DTYPES = tuple(_DTYPES.values())


def write(file: BinaryIO, arrays: dict[str, NumPyArray]) -> None:
    """Write arrays, those of wide dtypes first, so that all are aligned.

    Not by safetensors.numpy, which knows bfloat16 only as a dtype of ml_dtypes, and copies all numbers twice.
    """
    safetensors_module()  # a layer that is saved can be loaded
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))
    header, end = {}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        dtype = next(own for own, its_name in _DTYPES.items() if stored_dtype(its_name) == array.dtype)
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def stored_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype that holds the bits of a dtype: its own, or uint16 for bfloat16."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def opened(path: Path) -> AbstractContextManager[SafetensorsEntries]:
    """Open a file whose header is valid: tensors lie one after the other and fill the file."""
    return nullcontext(SafetensorsEntries(path))


class SafetensorsEntries:
    """The tensors of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header, self._start, _ = read_header(path)
        self.names = list(self._header)

    def header(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return dtype and shape of a tensor."""
        found = self._header[name]
        return _DTYPES.get(found["dtype"], found["dtype"]), tuple(found["shape"])

    def read(self, name: str) -> NumPyArray:
        """Read a tensor; bfloat16 as its bits."""
        dtype, shape = self.header(name)
        offset = self._start + self._header[name]["data_offsets"][0]
        array = np.fromfile(self._path, stored_dtype(dtype).newbyteorder("<"), math.prod(shape), offset=offset)
        return array.reshape(shape)
