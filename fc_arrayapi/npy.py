"""The header of a ``.npy`` file or member, checked against its size."""

from __future__ import annotations

import contextlib
import io
import math
import reprlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

Result = TypeVar("Result")

# A header of plain numbers takes 128 bytes; numpy parses none that is longer than 10,000.
HEADER_BYTES = 12 + 10_000

# NumPy has no array of more.
MOST_AXES = 64

READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """What a header says of its array, and the number of bytes that it takes itself."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int


def read_npy_header(file: Any, where: str, size: int, *, exactly: bool = False) -> Header:
    """Return the header of a ``.npy`` stream of `size` bytes, checked against that size.

    No more than the longest header is read, whatever length the file gives for its own. With
    `exactly`, bytes after the data are refused too.
    """
    head = io.BytesIO(file.read(HEADER_BYTES))
    try:
        shape, fortran_order, dtype = parsed(lambda: _parse(head))
    except Exception as error:  # numpy lets out whatever Python's own parsers raise
        raise ValueError(f"{where}: has no .npy header ({brief(error)})") from None
    if any(isinstance(length, bool) or length < 0 for length in shape) or too_large(shape, dtype):
        raise ValueError(f"{where}: its header asks for the shape {reprlib.repr(shape)}")
    if dtype.hasobject:
        raise ValueError(f"{where}: holds Python objects, which are never unpickled here")
    expected = head.tell() + math.prod(map(int, shape)) * dtype.itemsize
    if size < expected:
        raise ValueError(f"{where}: has {size} bytes, its header asks for {expected}: the file was cut short")
    if exactly and size > expected:
        raise ValueError(f"{where}: has {size} bytes, its header asks for {expected}: what follows belongs to no array")
    return Header(tuple(map(int, shape)), fortran_order, dtype, head.tell())


def _parse(head: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    head.seek(0)
    version = np.lib.format.read_magic(head)
    if version not in READERS:  # NumPy writes 3.0 for names of fields alone, which 2.0 would misspell
        raise ValueError(f"its version is {'.'.join(map(str, version))}: save the array in version 1.0 or 2.0")
    return READERS[version](head)


def parsed(read: Callable[[], Result]) -> Result:
    """Return what `read` returns, which parses a header; up to ten times where Python fails at that.

    Python 3.11.7 counts the depth of what it parses for all threads together: two that read headers at once may be
    told of a "recursion depth mismatch" (cpython #106905). Read again, the header is good.
    """
    for _ in range(9):
        with contextlib.suppress(SystemError):
            return read()
    return read()


def too_large(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether NumPy has no array of this shape; it looks at the other axes of an empty array too."""
    size = math.prod(max(1, int(length)) for length in shape) * np.dtype(dtype).itemsize
    return len(shape) > MOST_AXES or size > sys.maxsize


def brief(said: object) -> str:
    """Return what an error or dtype says, cut where it repeats a long header, or the name of an error that is mute."""
    text = str(said) or type(said).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
