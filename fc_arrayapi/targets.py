"""Files that are written block by block, each block by a task of its own: ``.npy`` and ``.zarr``.

A target travels to the tasks, so it holds a path and no data. No lock is needed: no two blocks
touch the same bytes of a ``.npy`` file or the same chunk of a Zarr array. `write` returns when
the block is on the disk.
"""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from operator import mul
from pathlib import Path

import numpy as np

from .alignment import bounds
from .disk import flush
from .libraries import NumPyArray
from .namespace import Array
from .zarr_source import WHOLE, chunk_file, chunks_reached, size_at, zarr_module

# Where a block lies: from where to where along each axis.
Bounds = tuple[tuple[int, int], ...]

# A Zarr chunk is at least this part of the widest block, or else the array is cut anew.
SMALLEST_CHUNK = 1 / 4


@dataclass(frozen=True)
class NpyTarget:
    """A ``.npy`` file of its full size, in which each block has its place."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    is_folder = False

    @staticmethod
    def fit(array: Array) -> Array:
        """Return the array as it is: blocks of any sizes have a place in the file."""
        return array

    @classmethod
    def of(cls, path: str, array: Array) -> NpyTarget:
        """Return the target for an array that fits."""
        return cls(path, tuple(map(int, array.shape)), array.dtype.str)

    def still_there(self, finished: set[Bounds]) -> set[Bounds]:
        """Return the finished blocks: all of them, unless somebody cut the file short."""
        return finished if size_at(self.path) == self._size() else set()

    def state(self) -> bytes:
        """Return what tells this file from any other that has its name, before or later."""
        return _state_at(self.path)

    def create(self) -> None:
        """Write the header, and leave room for the blocks."""
        header = self._header()
        with open(self.path, "xb") as file:
            file.write(header)
            file.truncate(self._size())
            flush(file.fileno())

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block to its place. Not through a memory map: on a full disk that is a signal, which kills."""
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(block.ndim)]
        # From this axis on a block lies in one piece.
        piece = max((axis for axis in range(block.ndim) if block.shape[axis] != self.shape[axis]), default=0)
        first, header = sum(map(mul, start, strides)), len(self._header())
        with open(self.path, "r+b") as file:
            for lead in np.ndindex(block.shape[:piece]):
                element = first + sum(map(mul, lead, strides))
                file.seek(header + element * block.itemsize)
                file.write(np.ascontiguousarray(block[lead]).data)
            file.flush()
            flush(file.fileno())

    def _size(self) -> int:
        return len(self._header()) + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def _header(self) -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": self.dtype, "fortran_order": False, "shape": self.shape})
        return file.getvalue()


@dataclass(frozen=True)
class ZarrTarget:
    """A Zarr array of format 3, not compressed, whose chunks never lie in two blocks."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]

    is_folder = True

    @staticmethod
    def fit(array: Array) -> Array:
        """Return the array in blocks that whole Zarr chunks fill: two tasks in one chunk corrupt it (dask #12583)."""
        anew = {
            axis: max(sizes)
            for axis, sizes in enumerate(array.chunks)
            if _largest_chunk(sizes) < SMALLEST_CHUNK * max(sizes)
        }
        return array.rechunk(anew) if anew else array

    @classmethod
    def of(cls, path: str, array: Array) -> ZarrTarget:
        """Return the target for an array that fits."""
        zarr_module()
        return cls(path, tuple(map(int, array.shape)), array.dtype.str, tuple(map(_largest_chunk, array.chunks)))

    def create(self) -> None:
        """Write the metadata."""
        zarr = zarr_module()
        zarr.create_array(
            self.path,
            shape=self.shape,
            dtype=np.dtype(self.dtype).newbyteorder("<"),
            chunks=self.chunks,
            serializer=zarr.codecs.BytesCodec(endian="little"),
            compressors=None,
            filters=None,
            # All chunk files in one folder: each folder on the way would be one more to flush for every block.
            chunk_key_encoding={"name": "default", "separator": "."},
            zarr_format=3,
            attributes=WHOLE,
            # A chunk that is lost later is no number in any reader, where there is such a one.
            fill_value=np.nan if np.dtype(self.dtype).kind in "fc" else 0,
        )
        flush(Path(self.path, "zarr.json"))

    def still_there(self, finished: set[Bounds]) -> set[Bounds]:
        """Return the finished blocks of which somebody removed no chunk and cut none short."""
        if not os.path.exists(os.path.join(self.path, "zarr.json")):
            return set()
        full = math.prod(self.chunks) * np.dtype(self.dtype).itemsize
        return {
            place
            for place in finished
            if all(
                size_at(os.path.join(self.path, chunk_file(number))) == full
                for number in chunks_reached(place, self.chunks)
            )
        }

    def state(self) -> bytes:
        """Return what tells this array from any other: its metadata are written once, before the first block."""
        return _state_at(os.path.join(self.path, "zarr.json"))

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block as whole chunks, each the file of its plain bytes that the format asks for.

        zarr itself would copy the block twice, which takes as long as writing it, and does not say when it
        is on the disk.
        """
        stops = [first + size for first, size in zip(start, block.shape, strict=True)]
        for number in chunks_reached(list(zip(start, stops, strict=True)), self.chunks):
            corner = [count * chunk for count, chunk in zip(number, self.chunks, strict=True)]
            part = block[
                tuple(
                    slice(at - first, at - first + chunk)
                    for at, first, chunk in zip(corner, start, self.chunks, strict=True)
                )
            ]
            if part.shape != self.chunks:  # at the end of an axis, where the file is of full size too
                full = np.zeros(self.chunks, dtype=part.dtype)
                full[tuple(map(slice, part.shape))] = part
                part = full
            with open(os.path.join(self.path, chunk_file(number)), "wb") as file:
                file.write(np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<")).data)
                file.flush()
                flush(file.fileno())
        flush(Path(self.path))


def _state_at(path: str) -> bytes:
    """Return a file's inode, size and time of change, none of which a new name changes."""
    status = os.stat(path)
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()


def _largest_chunk(sizes: tuple[int, ...]) -> int:
    """Return the largest chunk size with which no chunk lies in two blocks of an axis."""
    length = sum(sizes)
    return math.gcd(*(start for start, _ in bounds(sizes) if 0 < start < length)) or max(1, length)
