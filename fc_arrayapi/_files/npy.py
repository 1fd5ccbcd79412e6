""".npy files: the header, checked against the size; reading them; writing them block by block."""

from __future__ import annotations

import contextlib
import io
import math
import os
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .disk import flush, open_file, size_at, state_at, unfollowed
from .mapped import MappedArray
from .source import brief, file_state, too_large
from .writer import Bounds

Result = TypeVar("Result")

# A header of plain numbers takes 128 bytes; NumPy parses up to 10,000.
HEADER_BYTES = 12 + 10_000


def _read_header_3_0(file: BinaryIO) -> Any:
    """Read a header in UTF-8, which NumPy writes for field names that are not latin1, and has no public reader for."""
    length = int.from_bytes(file.read(4), "little")
    text = file.read(length)
    if len(text) < length:
        raise ValueError(f"EOF: the header has {len(text)} bytes, it should have {length}")
    literal = text.decode().encode("latin1", "backslashreplace")  # equal for Python, and a header of version 2.0
    return np.lib.format.read_array_header_2_0(io.BytesIO(len(literal).to_bytes(4, "little") + literal))


READERS: dict[tuple[int, int], Callable[[Any], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): _read_header_3_0,
}


class Header(NamedTuple):
    """The fields of a header, and its own length in bytes."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int


def read_npy_header(file: Any, where: str, size: int, *, exactly: bool = False) -> Header:
    """Return the header of a ``.npy`` stream of `size` bytes, checked against that size.

    At most HEADER_BYTES are read, whatever length the header claims. With `exactly`, bytes after
    the data are refused too.
    """
    head = io.BytesIO(file.read(HEADER_BYTES))
    try:
        shape, fortran_order, dtype = parsed(lambda: _parse(head))
    except Exception as error:  # NumPy passes on any exception of Python's parser
        raise ValueError(f"{where}: has no .npy header ({brief(error)})") from None
    if any(isinstance(length, bool) or length < 0 for length in shape) or too_large(shape, dtype):
        raise ValueError(f"{where}: has an invalid shape in its header: {reprlib.repr(shape)}")
    if dtype.hasobject:
        raise ValueError(f"{where}: contains Python objects, which are never unpickled")
    expected = head.tell() + math.prod(map(int, shape)) * dtype.itemsize
    if size < expected:
        raise ValueError(f"{where}: has {size} bytes, its header requires {expected}: the file is truncated")
    if exactly and size > expected:
        raise ValueError(
            f"{where}: has {size} bytes, its header requires {expected}: there are extra bytes after the data"
        )
    return Header(tuple(map(int, shape)), fortran_order, dtype, head.tell())


def _parse(head: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    head.seek(0)
    version = np.lib.format.read_magic(head)
    if version not in READERS:
        raise ValueError(f"its version is {'.'.join(map(str, version))}: save the array in version 1.0 or 2.0")
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = READERS[version](head)
    return header


def parsed(read: Callable[[], Result]) -> Result:
    """Call `read`, which parses a header, and repeat it up to ten times after a SystemError of Python.

    Python 3.11.7 counts the depth of its parser for all threads together: two threads that parse at the same time may
    get "recursion depth mismatch" (cpython #106905). The next try succeeds.
    """
    for _ in range(9):
        with contextlib.suppress(SystemError):
            return read()
    return read()


class NpyFile(MappedArray):
    """A ``.npy`` file.

    Parameters
    ----------
    path : Path
    bfloat16 : bool
        As in `MappedArray`.
    """

    def __init__(self, path: Path, bfloat16: bool = False) -> None:
        with open_file(path) as file:
            header = read_npy_header(file, str(path), os.fstat(file.fileno()).st_size)
            state = file_state(os.fstat(file.fileno()))
        order: Literal["C", "F"] = "F" if header.fortran_order else "C"
        super().__init__(
            path, state, str(path), header.shape, header.dtype, header.offset, order=order, bfloat16=bfloat16
        )


@dataclass(frozen=True)
class NpyWriter:
    """A ``.npy`` file of its full size, in which each block has its place."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    is_folder: ClassVar[bool] = False

    @staticmethod
    def fit(array: Array) -> Array:
        """Return the array unchanged: blocks of any size have a place in the file."""
        return array

    @classmethod
    def of(cls, path: str, array: Array) -> NpyWriter:
        """Return the writer of an array that fits."""
        return cls(path, tuple(map(int, array.shape)), array.dtype.str)

    def still_there(self, finished: set[Bounds]) -> set[Bounds]:
        """Return all finished blocks, or none if the file was truncated."""
        if size_at(self.path) != self._size():
            return set()
        with open(self.path, "rb", opener=unfollowed) as file:
            if file.read(len(self._header())) != self._header():
                raise ValueError("the header of the data has changed")
        return finished

    def foreign(self, folder: Path) -> str | None:
        """Return None: there is no folder."""
        return None

    def state(self) -> bytes:
        """Return inode, size and modification time."""
        return state_at(self.path)

    def create(self) -> None:
        """Write the header and reserve room for the blocks."""
        header = self._header()
        with open(self.path, "xb", opener=unfollowed) as file:
            file.write(header)
            file.truncate(self._size())
            flush(file.fileno())

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block to its place; not through a memory map, where a full disk is a signal that kills."""
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(block.ndim)]
        # From this axis on, a block is contiguous in the file.
        piece = max((axis for axis in range(block.ndim) if block.shape[axis] != self.shape[axis]), default=0)
        first, header = sum(map(mul, start, strides)), len(self._header())
        with open(self.path, "r+b", opener=unfollowed) as file:
            for lead in np.ndindex(block.shape[:piece]):
                element = first + sum(map(mul, lead, strides))
                file.seek(header + element * block.itemsize)
                file.write(np.ascontiguousarray(block[lead]).data)
            file.flush()
            flush(file.fileno())

    def _size(self) -> int:
        return len(self._header()) + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def _header(self) -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": self.dtype, "fortran_order": False, "shape": self.shape})
        return file.getvalue()
