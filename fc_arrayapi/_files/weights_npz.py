"""Weights in a .npz archive: its directory and the headers of members are checked before a member is read."""

from __future__ import annotations

import contextlib
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._arrays.libraries import NumPyArray
from .npz import member_header, open_archive, read_member

DTYPES = ("float16", "float32", "float64")


def write(file: BinaryIO, arrays: dict[str, NumPyArray]) -> None:
    """Write arrays as numpy.savez does."""
    import zipfile  # here, since it takes a tenth of the package's import time

    # Not np.savez: in NumPy 2.0 it leaves the archive open after a failed write, which raises a second error later.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[NpzEntries]:
    """Open an archive, and refuse a broken one, whether its directory or a member is broken."""
    with open_archive(path) as (archive, file):
        yield NpzEntries(path, archive, os.fstat(file.fileno()).st_size)


class NpzEntries:
    """The arrays of an archive. Their names may lead anywhere: nothing is extracted to files."""

    def __init__(self, path: Path, archive: Any, size: int) -> None:
        self._path, self._archive, self._size = path, archive, size
        self.names = []
        for member in archive.infolist():
            name = member.orig_filename
            if not name.endswith(".npy"):
                raise ValueError(f"{path}: has the entry {reprlib.repr(name)}: entries of weights are .npy files")
            self.names.append(name.removesuffix(".npy"))

    def header(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return dtype and shape of an array, compared with the size of its member and of the archive."""
        member = self._member(name)
        header = member_header(self._archive, member, f"{self._path}: {member.filename}", self._size)
        return header.dtype.name, header.shape

    def read(self, name: str) -> NumPyArray:
        """Read an array."""
        return read_member(self._archive, self._member(name))

    def _member(self, name: str) -> Any:
        return self._archive.infolist()[self.names.index(name)]
