"""Numbers that lie in a file as they are in memory: blocks are views of the file, mapped by the operating system.

In a .npz archive they may begin at any byte. BLAS takes only aligned numbers; NumPy copies others for each product, and
slowly: dW of a block took six times as long. So a block that is not aligned is copied once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from .._arrays.libraries import NumPyArray
from .disk import open_file
from .source import Source, check_unchanged, is_bfloat16

# By path and state. A mapping lives as long as a block of it, so mostly for a pass: each new one costs its page tables
# again, and the end of one stops the other threads for a moment.
_MAPPINGS: WeakValueDictionary[tuple[Path, tuple[int, int]], NumPyArray] = WeakValueDictionary()


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
        order: str = "C",
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

    def copies(self, rows: Sequence[int]) -> float:
        """Return 0 where blocks are views of the file, 1 where they are not aligned."""
        return 0 if self._aligned else 1

    def __getitem__(self, index: Any) -> NumPyArray:
        check_unchanged(self.path, self._state)
        mapped = _MAPPINGS.get((self.path, self._state))
        if mapped is None:
            with open_file(self.path) as file:
                mapped = _MAPPINGS[self.path, self._state] = np.memmap(file, np.uint8, "r")
        order: Any = self._order
        array: NumPyArray = np.ndarray(self.shape, self.dtype, mapped, self._offset, self._strides, order)
        block = np.asarray(array[index])
        return block if self._aligned else np.array(block)
