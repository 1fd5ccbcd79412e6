"""The header of a ``.npy`` file or member, checked against the bytes that are there."""

from __future__ import annotations

from typing import Any

import numpy as np


def read_npy_header(file: Any, where: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and dtype of a ``.npy`` stream of `size` bytes, checked against that size."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except ValueError as error:
        raise ValueError(f"{where}: has no .npy header ({error})") from None
    if any(size < 0 for size in shape):
        raise ValueError(f"{where}: its header asks for the shape {shape}")
    if dtype.hasobject:
        raise ValueError(f"{where}: holds Python objects, which are never unpickled here")
    expected = file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size < expected:
        raise ValueError(f"{where}: has {size} bytes, its header asks for {expected}: the file was cut short")
    return shape, fortran, dtype
