"""Weights in a .safetensors file: the package safetensors checks the header, NumPy reads the wanted bytes alone."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._arrays.libraries import NumPyArray
from .source import brief, naming_damage

# The names of the format. NumPy has no bfloat16: its arrays hold the bits, as uint16.
_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
DTYPES = tuple(_DTYPES.values())

# A tensor takes about 100 bytes of the header, a whole model up to some hundred thousand. Longer ones are refused
# unread: the parsed lists of a hostile header take up to 32 times its bytes.
HEADER_BYTES = 2**21


def write(file: BinaryIO, arrays: dict[str, NumPyArray]) -> None:
    """Write arrays, those of wide dtypes first, so that all are aligned.

    Not by safetensors.numpy, which knows bfloat16 only as a dtype of ml_dtypes, and copies all numbers twice.
    """
    _safetensors()  # a layer that is saved can be loaded
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


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SafetensorsEntries]:
    """Open a file whose header is valid: tensors lie one after the other and fill the file."""
    safetensors = _safetensors()
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if HEADER_BYTES < length <= os.fstat(file.fileno()).st_size:
            raise ValueError(f"{path}: its header takes {length} bytes; at most {HEADER_BYTES} are read")
        header = file.read(min(length, HEADER_BYTES))
        try:
            with safetensors.safe_open(path, framework="numpy") as checked:
                yield SafetensorsEntries(path, file, header, checked)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path}: is not a valid .safetensors file ({brief(error)})") from None


class SafetensorsEntries:
    """The tensors of a file."""

    def __init__(self, path: Path, file: BinaryIO, header: bytes, checked: Any) -> None:
        self._path, self._file, self._checked, self._data = path, file, checked, 8 + len(header)
        # safetensors ignores a second entry of one name and unknown fields, which may be nested as deep as they like.
        with naming_damage(self._damaged):
            entries = json.loads(header.decode(), object_pairs_hook=lambda pairs: pairs)
        self._fields = {name: fields for name, fields in entries if name != "__metadata__"}
        self.names = [name for name, _ in entries if name != "__metadata__"]

    @property
    def _damaged(self) -> str:
        return f"{self._path}: is not a valid .safetensors file"

    def header(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return dtype and shape of a tensor."""
        found = self._checked.get_slice(name)
        dtype = found.get_dtype()
        return _DTYPES.get(dtype, dtype), tuple(found.get_shape())

    def read(self, name: str) -> NumPyArray:
        """Read a tensor; bfloat16 as its bits."""
        dtype, shape = self.header(name)
        with naming_damage(self._damaged):
            start, _ = dict(self._fields[name])["data_offsets"]
            self._file.seek(self._data + start)
            return np.fromfile(self._file, stored_dtype(dtype).newbyteorder("<"), math.prod(shape)).reshape(shape)


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError:
        raise ImportError("a .safetensors file needs the safetensors package: pip install safetensors") from None
    return safetensors
