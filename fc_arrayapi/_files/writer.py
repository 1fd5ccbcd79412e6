"""What store asks of a file format: a writer that fills a file block by block."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array

# Where a block lies: start and stop along each axis.
Bounds = tuple[tuple[int, int], ...]


class Writer(Protocol):
    """A file or folder that tasks fill block by block.

    A writer travels to the tasks, so it holds a path and no data. No lock is needed: no two blocks touch the
    same bytes of a file.
    """

    # Whether a folder is written, and not a file.
    is_folder: ClassVar[bool]

    @property
    def path(self) -> str:
        """The file or folder that is written."""
        ...

    @property
    def dtype(self) -> str:
        """The dtype of the blocks, as NumPy writes it."""
        ...

    @staticmethod
    def fit(array: Array) -> Array:
        """Return the array in blocks that the format can take one by one."""
        ...

    @classmethod
    def of(cls, path: str, array: Array) -> Writer:
        """Return the writer of an array that fits."""
        ...

    def create(self) -> None:
        """Write everything but the blocks: the header or the metadata."""
        ...

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block to its place; when this returns, the block is on the disk."""
        ...

    def still_there(self, finished: set[Bounds]) -> set[Bounds]:
        """Return those of the finished blocks that are still there.

        Raises
        ------
        ValueError
            If what `create` wrote has changed.
        """
        ...

    def foreign(self, folder: Path) -> str | None:
        """Return the path of something in a folder that the format does not have, None if there is nothing."""
        ...

    def state(self) -> bytes:
        """Return bytes that distinguish this file from any other with its name."""
        ...
