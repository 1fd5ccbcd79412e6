"""Arrays in .npz archives: a view where the archive stores them as they are, read whole where it compresses them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .disk import open_file
from .mapped import MappedArray
from .npy import Header, parsed, read_npy_header
from .source import Source, brief, check_names, check_unchanged, file_state, holding, naming_damage, one_of

# An array of more than MOST_INFLATED bytes and more than INFLATION times its compressed size counts as a zip bomb:
# trained weights and embeddings compress little, and deflate reaches a factor of about 1030.
MOST_INFLATED, INFLATION = 16 * 2**20, 100

# The directory of an archive takes about 100 bytes for each member. Longer ones are refused unread: an entry of a
# list takes ten times its bytes in memory.
DIRECTORY_BYTES = 2**21

# The local header of a member: 30 bytes, of which the last four are the lengths of the name and of more.
_LOCAL_HEADER = 30


def npz_array(path: Path, name: str, bfloat16: bool = False) -> Source:
    """Open an array of an archive; `bfloat16` as in `MappedArray`, where it is stored as it is."""
    with open_archive(path) as (archive, file):
        size = os.fstat(file.fileno()).st_size
        check_names(path, [member.filename for member in archive.infolist()])
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if name not in members:
            holds = {}
            for key, member in members.items():
                with contextlib.suppress(ValueError):  # what is no array of numbers
                    found = member_header(archive, member, key, size)
                    holds[key] = holding(found.shape, found.dtype)
            what = one_of(holds, f"{path}::{{}}")
            raise ValueError(f"{path}: {f'has no array {name}' if name else 'names no array'}: open {what}")
        member = members[name]
        header = member_header(archive, member, f"{path}::{name}", size)
        state = file_state(os.fstat(file.fileno()))
        if member.compress_type:
            return CompressedMember(path, state, name, header)
        file.seek(member.header_offset + _LOCAL_HEADER - 4)
        lengths = file.read(4)
        start = member.header_offset + _LOCAL_HEADER + sum(int.from_bytes(lengths[k : k + 2], "little") for k in (0, 2))
    return MappedArray(
        path, state, f"{path}::{name}", header.shape, header.dtype, start + header.offset,
        order="F" if header.fortran_order else "C", bfloat16=bfloat16,
    )  # fmt: skip


class CompressedMember(Source):
    """An array that the archive compresses: a block is all of it, since each row needs all bytes before it."""

    in_smaller_chunks = "write it with numpy.savez, of which blocks are views, or as .npy"

    def __init__(self, path: Path, state: tuple[int, int], name: str, header: Header) -> None:
        self.path, self.name, self._state = path, name, state
        self.describe(f"{path}::{name}", header.shape, header.dtype)
        self.rows_at_once = max(1, self.shape[0])

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), self.name, *self._state)

    def __getitem__(self, index: Any) -> NumPyArray:
        check_unchanged(self.path, self._state)
        with naming_damage(f"{self.path}::{self.name}", ": is damaged"), open_archive(self.path) as (archive, _):
            return np.asarray(read_member(archive, archive.getinfo(f"{self.name}.npy"))[index])


class _Guarded(io.FileIO):
    """A file that refuses long reads while the directory of an archive is read, which may claim any length."""

    most = DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes | Any:
        if size is not None and size > self.most:
            raise ValueError(f"{self.name}: its list of entries takes {size} bytes; at most {self.most} are read")
        return super().read(size)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[tuple[Any, io.FileIO]]:
    """Open an archive, and the file that it lies in; what is wrong with it becomes a ValueError that names it."""
    import zipfile  # here, since it takes a tenth of the package's import time
    import zlib

    broken = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, OverflowError)
    with open_file(path):  # refuses a FIFO, which might never end
        pass
    try:
        with _Guarded(os.fspath(path)) as file, zipfile.ZipFile(file) as archive:
            file.most = sys.maxsize
            yield archive, file
    except (*broken, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an impossible offset in the file
            raise
        raise ValueError(f"{path}: is not a valid .npz file ({brief(error)})") from None


def member_header(archive: Any, member: Any, where: str, archive_size: int) -> Header:
    """Return the header of a member, after its sizes are compared with each other and with that of the archive."""
    check_member(where, member, archive_size)
    with archive.open(member) as stream:
        return read_npy_header(stream, where, member.file_size, exactly=True)


def read_member(archive: Any, member: Any) -> NumPyArray:
    """Read the array of a member. Nothing is unpickled."""

    def read() -> NumPyArray:
        with archive.open(member) as stream:
            array: NumPyArray = np.lib.format.read_array(stream, allow_pickle=False)
        return array

    return parsed(read)


def check_member(where: str, member: Any, archive_size: int) -> None:
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
