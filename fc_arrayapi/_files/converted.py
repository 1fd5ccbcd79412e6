"""An array of a file in another dtype: each block is converted as it is read, bfloat16 without a rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import widened
from .source import Source


class Converted(Source):
    """The blocks of another source in a dtype of their own.

    Parameters
    ----------
    source : Source
        What is read.
    dtype : dtype
        Of the blocks.
    """

    def __init__(self, source: Source, dtype: np.dtype[Any]) -> None:
        self.source, self.path = source, source.path
        self.rows_at_once, self.in_groups = source.rows_at_once, source.in_groups
        self.in_smaller_chunks, self.block_bytes = source.in_smaller_chunks, source.block_bytes
        self.repeats, self.own_threads = source.repeats, source.own_threads
        self.shape, self.dtype, self.ndim = source.shape, dtype, source.ndim

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.source.__dask_tokenize__(), self.source.bfloat16, self.dtype.str

    def places(self) -> list[Any]:
        """Return those of the source."""
        return self.source.places()

    def blocks(self, rows: int) -> tuple[int, ...]:
        """Return the blocks of the source."""
        return self.source.blocks(rows)

    def copies(self, rows: Sequence[int], start: int = 0) -> float:
        """Return 1 for the block, plus what reading it holds."""
        return 1 + self.source.copies(rows, start) * self.source.dtype.itemsize / self.dtype.itemsize

    def __getitem__(self, index: Any) -> NumPyArray:
        block = self.source[index]
        if self.source.bfloat16:
            block = widened(block)
        # A NaN stays one, also one that signals; that an integer can't hold it is said.
        with np.errstate(invalid="ignore" if self.dtype.kind == "f" else None):
            return block.astype(self.dtype, copy=False)


def converted(source: Source, dtype: Any, where: str) -> Source:
    """Return a source whose blocks have a dtype; bfloat16 is float32 where none is given.

    Raises
    ------
    TypeError
        If it is no dtype of numbers, or the numbers are complex and the dtype is not.
    """
    if dtype is None:
        return Converted(source, np.dtype("float32")) if source.bfloat16 else source
    wanted = check_dtype(dtype)
    if source.dtype.kind not in "biufc":
        raise TypeError(f"{where}: has dtype {source.dtype}, which cannot become {wanted}: leave dtype out")
    if source.dtype.kind == "c" and wanted.kind != "c":
        raise TypeError(f"{where}: has complex numbers, of which dtype={str(wanted)!r} would drop the imaginary part")
    return source if source.dtype == wanted and not source.bfloat16 else Converted(source, wanted)


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the NumPy dtype that is meant."""
    wanted: np.dtype[Any] | None = None
    with contextlib.suppress(TypeError):
        wanted = np.dtype(dtype)
    if wanted is None or wanted.kind not in "biufc":
        raise TypeError(
            f"dtype is {dtype!r}: pass a dtype of numbers that NumPy has, such as 'float32'; bfloat16 is read as "
            f"float32, which holds each of its numbers"
        )
    return wanted
