"""Blocks of ``.npy`` files, and of folders of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import alignment
from .disk import UNFINISHED
from .libraries import NumPyArray
from .npy import brief, read_npy_header
from .source import Source, check_unchanged, file_state


class NpyFile(Source):
    """A ``.npy`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{path}: is no file")
        with open(path, "rb") as file:
            self._header = read_npy_header(file, str(path), os.fstat(file.fileno()).st_size)
            self._state = file_state(os.fstat(file.fileno()))
        self.describe(str(path), self._header.shape, self._header.dtype)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), *self._state)

    def copies(self, rows: Sequence[int]) -> float:
        """Say how often a block is held: not at all, it is a view."""
        return 0

    def __getitem__(self, index: Any) -> NumPyArray:
        check_unchanged(self.path, self._state)
        # Not numpy.load, which parses the header anew: Python 3.11.7 may fail at that in threads (see npy.py).
        order: Literal["F", "C"] = "F" if self._header.fortran_order else "C"
        array = np.memmap(self.path, self.dtype, "r", offset=self._header.offset, shape=self.shape, order=order)
        return np.asarray(array[index])


class NpyFolder(Source):
    """A folder of ``.npy`` files that follow each other along the batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        for name in names:
            if name.endswith(UNFINISHED):
                raise ValueError(f"{path / name}: is unfinished: finish it with store(..., resume=True), or remove it")
        self.parts = [NpyFile(_inside(path, name)) for name in names if name.endswith(".npy")]
        if not self.parts:
            raise ValueError(f"{path}: this folder is no Zarr array and has no .npy files")
        first = self.parts[0]
        for part in self.parts:
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise ValueError(
                    f"{part.path}: has rows of shape {part.shape[1:]} and dtype {brief(part.dtype)}, "
                    f"{first.path.name} before it has {first.shape[1:]} and {brief(first.dtype)}: all parts must agree"
                )
        self.places = alignment.bounds([part.shape[0] for part in self.parts])
        self.describe(str(path), (self.places[-1][1], *first.shape[1:]), first.dtype)

    def __dask_tokenize__(self) -> list[Any]:
        return [part.__dask_tokenize__() for part in self.parts]

    def copies(self, rows: Sequence[int]) -> float:
        """Say how often a block is held: once if it goes on in the next file, else it is a view."""
        starts = {start for start, _ in alignment.bounds(rows)}
        return 0 if starts >= {start for start, _ in self.places} else 1

    def __getitem__(self, index: Any) -> NumPyArray:
        rows, *rest = index
        if not isinstance(rows, slice):
            return np.asarray(self[(slice(rows, rows + 1), *rest)][0])
        start, stop, _ = rows.indices(self.shape[0])
        pieces = [
            part[(slice(max(start - first, 0), stop - first), *rest)]
            for part, (first, last) in zip(self.parts, self.places, strict=True)
            if first < stop and start < last
        ]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else self.parts[0][(slice(0, 0), *rest)]


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, if it is no link to a place outside."""
    path = folder / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(folder):
        raise ValueError(
            f"{path}: is a link to {real}, outside the folder: copy the file into the folder, or open it by that path"
        )
    return path
