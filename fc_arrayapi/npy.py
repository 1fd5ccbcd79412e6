"""The header of a ``.npy`` file or member, checked against its size."""

from __future__ import annotations

import io
import math
import sys
from typing import Any

import numpy as np

# A header of plain numbers takes 128 bytes; numpy parses none that is longer than 10,000.
HEADER_BYTES = 12 + 10_000


def read_npy_header(
    file: Any, where: str, size: int, *, exactly: bool = False
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and dtype of a ``.npy`` stream of `size` bytes, checked against that size.

    No more than the longest header is read, whatever length the file gives for its own. With
    `exactly`, bytes after the data are refused too.
    """
    head = io.BytesIO(file.read(HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(head)
    except Exception as error:  # numpy lets out whatever Python's own parsers raise
        raise ValueError(f"{where}: has no .npy header ({error or type(error).__name__})") from None
    if min(shape, default=0) < 0 or too_large(shape, dtype):
        raise ValueError(f"{where}: its header asks for the shape {shape}")
    if dtype.hasobject:
        raise ValueError(f"{where}: holds Python objects, which are never unpickled here")
    expected = head.tell() + math.prod(map(int, shape)) * dtype.itemsize
    if size < expected:
        raise ValueError(f"{where}: has {size} bytes, its header asks for {expected}: the file was cut short")
    if exactly and size > expected:
        raise ValueError(f"{where}: has {size} bytes, its header asks for {expected}: what follows belongs to no array")
    return tuple(map(int, shape)), fortran, dtype


def too_large(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether NumPy has no array of this shape; it looks at the other axes of an empty array too."""
    return bool(math.prod(max(1, int(length)) for length in shape) * np.dtype(dtype).itemsize > sys.maxsize)
