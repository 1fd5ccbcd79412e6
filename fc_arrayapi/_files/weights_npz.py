"""Weights in a .npz archive: its directory and the headers of members are checked before a member is read."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import reprlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .._arrays.libraries import NumPyArray
from .npy import parsed, read_npy_header
from .source import brief

DTYPES = ("float16", "float32", "float64")

# Trained weights compress little. An array of more than MOST_INFLATED bytes and more than INFLATION times its
# compressed size counts as a zip bomb; deflate reaches a factor of about 1030.
MOST_INFLATED, INFLATION = 16 * 2**20, 100

# The directory of an archive takes about 100 bytes for each member. Longer ones are refused unread: an entry of a
# list takes ten times its bytes in memory.
DIRECTORY_BYTES = 2**21


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
    import zipfile  # here for the reason in write
    import zlib

    broken = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, OverflowError)
    try:
        with _Guarded(os.fspath(path)) as file, zipfile.ZipFile(file) as archive:
            file.most = sys.maxsize
            yield NpzEntries(path, archive, os.fstat(file.fileno()).st_size)
    except (*broken, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an impossible offset in the file
            raise
        raise ValueError(f"{path}: is not a valid .npz file ({brief(error)})") from None


class _Guarded(io.FileIO):
    """A file that refuses long reads while the directory of an archive is read, which may claim any length."""

    most = DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes | Any:
        if size is not None and size > self.most:
            raise ValueError(f"{self.name}: its list of entries takes {size} bytes; at most {self.most} are read")
        return super().read(size)


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
        where = f"{self._path}: {member.filename}"
        _check_member(where, member, self._size)
        with self._archive.open(member) as stream:
            header = read_npy_header(stream, where, member.file_size, exactly=True)
        return header.dtype.name, header.shape

    def read(self, name: str) -> NumPyArray:
        """Read an array."""
        return parsed(functools.partial(self._read, self._member(name)))

    def _member(self, name: str) -> Any:
        return self._archive.infolist()[self.names.index(name)]

    def _read(self, member: Any) -> NumPyArray:
        with self._archive.open(member) as stream:
            array: NumPyArray = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def _check_member(where: str, member: Any, archive_size: int) -> None:
    """Compare the sizes of a member with each other and with the size of the archive."""
    import zipfile

    packed, size = member.compress_size, member.file_size
    if member.flag_bits & 1:
        raise ValueError(f"{where}: is encrypted: write it with numpy.savez")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"{where}: is compressed by method {member.compress_type}; numpy.savez and numpy.savez_compressed write "
            f"{zipfile.ZIP_STORED} and {zipfile.ZIP_DEFLATED}"
        )
    if member.header_offset + packed > archive_size:
        raise ValueError(f"{where}: takes {packed} bytes of an archive of {archive_size}: the file is truncated")
    if member.compress_type == zipfile.ZIP_STORED and packed != size:
        raise ValueError(f"{where}: is not compressed but has two sizes, {packed} and {size} bytes")
    if size > max(MOST_INFLATED, INFLATION * packed):
        raise ValueError(
            f"{where}: {packed} bytes expand to {size}, more than {INFLATION} times as many, like a zip bomb: "
            f"if the file is "
            f"yours, write it with numpy.savez"
        )
