"""Arrays that follow each other along the batch: a folder of .npy files, or a list of paths."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .._dask import blocks
from .disk import UNFINISHED
from .npy import NpyFile
from .source import Source, brief

_NUMBER = re.compile("[0-9]+")


class Parts(Source):
    """Several arrays, one after the other.

    Parameters
    ----------
    where : str
        How errors name them together.
    parts : sequence of Source
        At least one, with rows of one shape and dtype.
    """

    def __init__(self, where: str, parts: Sequence[Source]) -> None:
        self.path, self.parts = Path(where), parts
        first = parts[0]
        for part in parts:
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise ValueError(
                    f"{part.path}: has rows of shape {part.shape[1:]} and dtype {brief(part.dtype)}, "
                    f"{first.path.name} before it has {first.shape[1:]} and {brief(first.dtype)}: all parts "
                    f"must have the same row shape and dtype"
                )
        self.rows_at_once = max(part.rows_at_once for part in parts)
        self.places = blocks.bounds([part.shape[0] for part in parts])
        self.describe(where, (self.places[-1][1], *first.shape[1:]), first.dtype)

    def __dask_tokenize__(self) -> list[Any]:
        return [part.__dask_tokenize__() for part in self.parts]

    def copies(self, rows: Sequence[int]) -> float:
        """Return what the parts hold, and 1 more if a block goes on in the next part."""
        starts = {start for start, _ in blocks.bounds(rows)}
        joined = 0 if starts >= {start for start, _ in self.places} else 1
        return joined + max(part.copies(rows) for part in self.parts)

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


def npy_folder(path: Path) -> Parts:
    """Open a folder of ``.npy`` files in the order of their names.

    Raises
    ------
    ValueError
        If there is no such file, an unfinished result among them, a link out of the folder, or if their order is not
        plain: by name it is another than by number, or the names differ in more than their numbers.
    """
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    for name in names:
        if name.endswith(UNFINISHED):
            raise ValueError(
                f"{path / name}: is an unfinished result: complete it with store(..., resume=True), or remove it"
            )
    names = [name for name in names if name.endswith(".npy")]
    if not names:
        raise ValueError(f"{path}: the folder is not a Zarr array and contains no .npy files")
    _check_order(path, names)
    return Parts(str(path), [NpyFile(_inside(path, name)) for name in names])


def _check_order(path: Path, names: Sequence[str]) -> None:
    """Compare the order by name with that by number, and the names without their numbers."""
    advice = "or pass a list of paths in the order you want"
    for name in names:
        if _NUMBER.sub("", name) != _NUMBER.sub("", names[0]):
            raise ValueError(
                f"{path}: {names[0]} and {name} differ in more than a number, so they may not belong together: put "
                f"other arrays into another folder, {advice}"
            )
    by_number = sorted(names, key=lambda name: [int(digits) for digits in _NUMBER.findall(name)])
    for by_name, other in zip(names, by_number, strict=True):
        if by_name != other:
            raise ValueError(
                f"{path}: by name {by_name} comes before {other}, by number after it: rename the files with leading "
                f"zeros, such as part-02.npy, {advice}"
            )


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, unless it is a link to a place outside."""
    path = folder / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(folder):
        raise ValueError(
            f"{path}: is a link to {real}, outside the folder: copy the file into the folder, or open it directly"
        )
    return path
