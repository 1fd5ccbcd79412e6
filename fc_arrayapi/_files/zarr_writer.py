"""Zarr arrays of `store`, written block by block."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .._dask.blocks import bounds
from .disk import flush, size_at, state_at, unfollowed
from .writer import Bounds
from .zarr import WHOLE, chunk_file, chunks_reached
from .zarr_store import METADATA_BYTES, zarr_module

# If Zarr chunks would be smaller than this fraction of the largest block, the array is rechunked.
SMALLEST_CHUNK = 1 / 4

# The names in the folder of a Zarr array, and in the folders of its chunks; zarr writes files as .partial first.
CHUNK = re.compile(r"c?(\.?\d+)*(\..*partial)?")
IN_ARRAY = re.compile(rf"{CHUNK.pattern}|(zarr\.json|\.zarray|\.zattrs|\.zmetadata)(\..*partial)?")


def zarr_metadata(shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...]) -> bytes:
    """Return the content of the zarr.json of an array that `store` writes."""
    zarr = zarr_module()
    files: dict[str, Any] = {}
    zarr.create_array(
        zarr.storage.MemoryStore(files),
        shape=shape,
        dtype=np.dtype(dtype).newbyteorder("<"),
        chunks=chunks,
        serializer=zarr.codecs.BytesCodec(endian="little"),
        compressors=None,
        filters=None,
        # All chunk files in one folder: every further folder would need an fsync for each block.
        chunk_key_encoding={"name": "default", "separator": "."},
        zarr_format=3,
        attributes=WHOLE,
        # Other readers read a chunk that is lost later as nan, where the dtype has it.
        fill_value=np.nan if np.dtype(dtype).kind in "fc" else 0,
    )
    content: bytes = files["zarr.json"].to_bytes()
    return content


def pieces(
    block: NumPyArray, start: tuple[int, ...], chunks: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], NumPyArray]]:
    """Yield the chunks of a block, little-endian and contiguous; the last rows of an array may be missing in them."""
    stops = [first + size for first, size in zip(start, block.shape, strict=True)]
    for number in chunks_reached(list(zip(start, stops, strict=True)), chunks):
        corner = [count * chunk for count, chunk in zip(number, chunks, strict=True)]
        part = block[
            tuple(slice(at - first, at - first + chunk) for at, first, chunk in zip(corner, start, chunks, strict=True))
        ]
        if part.shape[1:] != chunks[1:]:  # at the end of an axis, where the file has the full size too
            full = np.zeros((len(part), *chunks[1:]), dtype=part.dtype)
            full[tuple(map(slice, part.shape))] = part
            part = full
        yield number, np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))


@dataclass(frozen=True)
class ZarrWriter:
    """A Zarr array of format 3, not compressed, whose chunks never lie in two blocks."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]

    is_folder: ClassVar[bool] = True

    @staticmethod
    def fit(array: Array) -> Array:
        """Rechunk so that each block is whole Zarr chunks: two tasks in one chunk corrupt it (dask #12583)."""
        anew = {
            axis: max(sizes)
            for axis, sizes in enumerate(array.chunks)
            if largest_chunk(sizes) < SMALLEST_CHUNK * max(sizes)
        }
        return array.rechunk(anew) if anew else array

    @classmethod
    def of(cls, path: str, array: Array) -> ZarrWriter:
        """Return the writer of an array that fits."""
        zarr_module()
        return cls(path, tuple(map(int, array.shape)), array.dtype.str, tuple(map(largest_chunk, array.chunks)))

    def create(self) -> None:
        """Write the metadata."""
        os.mkdir(self.path)
        with open(self._metadata_file(), "xb", opener=unfollowed) as file:
            file.write(self._metadata())
            file.flush()
            flush(file.fileno())
        flush(Path(self.path))

    def _metadata_file(self) -> str:
        return os.path.join(self.path, "zarr.json")

    def _metadata(self) -> bytes:
        return zarr_metadata(self.shape, self.dtype, self.chunks)

    def still_there(self, finished: set[Bounds]) -> set[Bounds]:
        """Return the finished blocks whose chunks are all there in full size."""
        try:
            with open(self._metadata_file(), "rb", opener=unfollowed) as file:
                found = file.read(METADATA_BYTES)
        except FileNotFoundError:
            return set()
        try:
            unchanged = json.loads(found) == json.loads(self._metadata())
        except (ValueError, RecursionError):
            unchanged = False
        if not unchanged:
            raise ValueError("the zarr.json of the data has changed")
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
        """Return the state of the metadata, which are written once, before the first block."""
        return state_at(self._metadata_file())

    def foreign(self, folder: Path) -> str | None:
        """Return the path of something in a folder that no Zarr array has, None if there is nothing."""
        return _foreign(str(folder), IN_ARRAY)

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block as whole chunks: files of plain bytes, as the format defines them.

        zarr itself would copy the block twice, which takes as long as writing it, and does not call fsync.
        """
        for number, part in pieces(block, start, self.chunks):
            with open(os.path.join(self.path, chunk_file(number)), "wb", opener=unfollowed) as file:
                file.write(part.data)
                file.truncate(math.prod(self.chunks) * part.itemsize)  # the rows that are missing in the last chunk
                file.flush()
                flush(file.fileno())
        flush(Path(self.path))


def largest_chunk(sizes: tuple[int, ...]) -> int:
    """Return the largest chunk size with which no chunk lies in two blocks of an axis."""
    length = sum(sizes)
    return math.gcd(*(start for start, _ in bounds(sizes) if 0 < start < length)) or max(1, length)


def _foreign(folder: str, names: re.Pattern[str]) -> str | None:
    """Return the path of the first link, file or folder that does not belong to an array."""
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if not names.fullmatch(entry.name) or not (is_folder or entry.is_file(follow_symlinks=False)):
                return entry.path
            if is_folder and (found := _foreign(entry.path, CHUNK)):
                return found
    return None
