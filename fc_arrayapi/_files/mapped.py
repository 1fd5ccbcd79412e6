"""Numbers that lie in a file as they are in memory: blocks are views of the file, mapped by the operating system.

In a .npz archive they may begin at any byte. BLAS takes only aligned numbers; NumPy copies others for each product, and
slowly: dW of a block took six times as long. So a block that is not aligned is copied once.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._arrays.libraries import NumPyArray
from .disk import open_file
from .source import Source, check_unchanged, file_state, is_bfloat16

# Mapped files by path, with what they were: the most recently used last. A mapping takes address space and no memory,
# and page tables, which later passes find again. It holds the disk space of a file that was removed, so it goes when
# its path leads elsewhere and another file is mapped, or when MOST_MAPPED others were used since.
_MAPPED: OrderedDict[Path, tuple[tuple[int, ...], NumPyArray]] = OrderedDict()
# On Windows a mapped file can't be replaced.
MOST_MAPPED = 0 if os.name == "nt" else 64
_LOCK = threading.Lock()


def mapped_file(path: Path, state: tuple[int, int]) -> NumPyArray:
    """Return the bytes of a file, mapped once in a process.

    Raises
    ------
    ValueError
        If the file is not what it was when its `file_state` was taken.
    """
    check_unchanged(path, state)
    identity = _identity(path)
    with _LOCK:
        found = _MAPPED.get(path)
        if found is not None and found[0] == identity:
            _MAPPED.move_to_end(path)
            return found[1]
    with open_file(path) as file:
        mapped = np.memmap(file, np.uint8, "r")
    with _LOCK:
        _MAPPED[path] = identity, mapped
        _MAPPED.move_to_end(path)
        for other in [other for other, (was, _) in _MAPPED.items() if _identity(other) != was]:
            del _MAPPED[other]
        while len(_MAPPED) > MOST_MAPPED:
            _MAPPED.popitem(last=False)
    return mapped


def _free_in_child() -> None:
    """Take a new lock in a forked process: a thread that it does not have may have held the old one."""
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


def _identity(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino, *file_state(status)


class MappedArray(Source):
    """An array in a file from an offset on, read straight from the operating system's file cache.

    Parameters
    ----------
    path : Path
        The file.
    state : tuple of int
        Its `file_state`.
    where : str
        How errors name the array.
    shape : tuple of int
    dtype : dtype
        As the bytes are read.
    offset : int
        Where its first element lies, in bytes.
    strides : tuple of int, optional
        By default rows follow each other.
    order : {"C", "F"}
        Whether it is the last or the first axis whose numbers follow each other, where no strides are given.
    bfloat16 : bool
        Read elements of two bytes without a dtype, as NumPy saves bfloat16, as the bits of such numbers.
    """

    def __init__(
        self,
        path: Path,
        state: tuple[int, int],
        where: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        offset: int,
        strides: tuple[int, ...] | None = None,
        order: Literal["C", "F"] = "C",
        bfloat16: bool = False,
    ) -> None:
        self.path, self._state = path, state
        self.bfloat16 = bfloat16 and is_bfloat16(dtype)
        dtype = np.dtype("<u2") if self.bfloat16 else dtype
        self._offset, self._strides, self._order = offset, strides, order
        self.describe(where, shape, dtype)
        self._aligned = not any(step % self.dtype.alignment for step in (offset, *(strides or ())))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        layout = (self._offset, self._strides, self._order, self.shape, self.dtype.str)
        return (str(self.path), *self._state, *layout)

    def copies(self, rows: Sequence[int], start: int = 0) -> float:
        """Return 0 where blocks are views of the file, 1 where they are not aligned."""
        return 0 if self._aligned else 1

    def __getitem__(self, index: Any) -> NumPyArray:
        mapped, order = mapped_file(self.path, self._state), self._order
        array: NumPyArray = np.ndarray(self.shape, self.dtype, mapped, self._offset, self._strides, order)
        block = np.asarray(array[index])
        return block if self._aligned else np.array(block)
