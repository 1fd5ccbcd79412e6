"""Arrays that follow each other along the batch: the files of a folder or of a pattern, or a list of paths."""

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
from .source import Source, brief, cross, grouped

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
        # A column of lists that has no rows does not say how long they are.
        parts = [part for part in parts if part.shape[0] or not part.in_groups] or parts[:1]
        self.path, self.parts = Path(where), parts
        first = parts[0]
        for part in parts:
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise ValueError(
                    f"{part.path}: has rows of shape {part.shape[1:]} and dtype {brief(part.dtype)}, "
                    f"{first.path.name} before it has {first.shape[1:]} and {brief(first.dtype)}: all parts "
                    f"must have the same row shape and dtype"
                )
        largest = max(parts, key=lambda part: part.rows_at_once)
        self.rows_at_once, self.in_smaller_chunks = largest.rows_at_once, largest.in_smaller_chunks
        self.in_groups = any(part.in_groups for part in parts)
        self.repeats = all(part.repeats for part in parts)
        self.own_threads = any(part.own_threads for part in parts)
        self.block_bytes = parts[0].block_bytes
        self.borders = blocks.bounds([part.shape[0] for part in parts])
        self.describe(where, (self.borders[-1][1], *first.shape[1:]), first.dtype)

    def __dask_tokenize__(self) -> list[Any]:
        return [part.__dask_tokenize__() for part in self.parts]

    def places(self) -> list[Any]:
        """Return those of all parts."""
        return [place for part in self.parts for place in part.places()]

    def blocks(self, rows: int) -> tuple[int, ...]:
        """Return blocks that go on in the next part, or end with the groups of each part."""
        if not self.in_groups:
            return super().blocks(rows)
        return grouped([block for part in self.parts for block in part.blocks(rows)], rows)

    def copies(self, rows: Sequence[int], start: int = 0) -> float:
        """Return what the parts hold, and 1 more if a block goes on in the next part."""
        joined = 1 if cross([first for first, _ in self.borders], rows, start) else 0
        return joined + max(part.copies(rows) for part in self.parts)

    def __getitem__(self, index: Any) -> NumPyArray:
        rows, *rest = index
        if not isinstance(rows, slice):
            return np.asarray(self[(slice(rows, rows + 1), *rest)][0])
        start, stop, _ = rows.indices(self.shape[0])
        pieces = [
            part[(slice(max(start - first, 0), stop - first), *rest)]
            for part, (first, last) in zip(self.parts, self.borders, strict=True)
            if first < stop and start < last
        ]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else self.parts[0][(slice(0, 0), *rest)]


def check_finished(path: Path) -> None:
    """Refuse an unfinished result, and what lies in one."""
    if any(part.endswith(UNFINISHED) for part in path.parts):
        raise ValueError(f"{path}: is an unfinished result: complete it with store(..., resume=True), or remove it")


def check_order(where: str, names: Sequence[str]) -> None:
    """Refuse sorted names of which the order is not plain.

    Raises
    ------
    ValueError
        If by name it is another than by number, or the names differ in more than their numbers.
    """
    advice = "or pass a list of paths in the order you want"
    for name in names:
        if _NUMBER.sub("", name) != _NUMBER.sub("", names[0]):
            raise ValueError(
                f"{where}: {names[0]} and {name} differ in more than a number, so they may not belong together: put "
                f"other arrays into another folder, {advice}"
            )
    by_number = sorted(names, key=lambda name: [int(digits) for digits in _NUMBER.findall(name)])
    for by_name, other in zip(names, by_number, strict=True):
        if by_name != other:
            raise ValueError(
                f"{where}: by name {by_name} comes before {other}, by number after it: rename the files with leading "
                f"zeros, such as part-02{Path(names[0]).suffix}, {advice}"
            )


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, unless it is a link to a place outside."""
    path = folder / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(folder):
        raise ValueError(
            f"{path}: is a link to {real}, outside the folder: copy the file into the folder, or open it directly"
        )
    return path
