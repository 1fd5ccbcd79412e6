"""Zarr arrays: reading any, and writing those of `store` block by block."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .._dask.blocks import bounds
from .disk import flush, size_at, state_at
from .source import Source, brief, check_unchanged, file_state, naming_damage, one_of, slice_range
from .writer import Bounds

# If Zarr chunks would be smaller than this fraction of the largest block, the array is rechunked.
SMALLEST_CHUNK = 1 / 4

# The attribute of a Zarr array of `store`, which wrote every chunk: one that is missing was lost.
WHOLE = {"fc_arrayapi": "every chunk is written"}

# Chunks that zarr holds at a time beside a block, as measured; it requests up to ten at once.
CHUNKS_AT_ONCE = 3

METADATA = ("zarr.json", ".zarray", ".zgroup")


def has_zarr_metadata(path: Path) -> bool:
    """Say whether a folder is a Zarr array or group."""
    return any((path / name).exists() for name in METADATA)


class ZarrArray(Source):
    """A Zarr array of format 2 or 3 in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        zarr = zarr_module()
        try:
            array = zarr.open(path, mode="r")
            self._whole = isinstance(array, zarr.Array) and _is_whole(array)
        except PermissionError:
            raise
        except Exception as error:  # zarr raises various exceptions for malformed metadata
            raise ValueError(f"{path}: is not a Zarr array ({brief(error)})") from None
        if isinstance(array, zarr.Group):
            # Not `array.array_keys()`, which warns of folders that are not part of the group.
            names = [inner.name for inner in path.iterdir() if has_zarr_metadata(inner)]
            raise ValueError(f"{path}: is a Zarr group: open {one_of(names, f'{path}/{{}}')}")
        self.describe(str(path), array.shape, array.dtype)
        self.chunks = tuple(map(int, array.chunks))
        if min(self.chunks) < 1:
            raise ValueError(f"{path}: is not a Zarr array (its chunks have the shape {self.chunks})")
        file_shape = tuple(map(int, array.shards or array.chunks))
        self.rows_at_once = file_shape[0]
        start = len(os.path.join(path, ""))
        files = {file.path[start:]: file_state(file.stat()) for file in _files(path)}
        # Of every file: rewriting a chunk does not change the metadata, and a chunk copied with its mtime may be older
        # than the others. Hashed, since each task carries it.
        import hashlib  # here, since OpenSSL takes a tenth of the package's import time

        self._token = (str(path), hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())
        self._files_a_row = math.prod(map(_parts, self.shape[1:], file_shape[1:]))
        # zarr holds the bytes of a chunk as read, and decompressed if it is compressed.
        chunk_bytes = math.prod(file_shape) * self.dtype.itemsize
        self._bytes_of_file = float(chunk_bytes)
        if array.compressors:
            number = max(1, math.prod(map(_parts, self.shape, file_shape)))
            self._bytes_of_file += sum(size for size, _ in files.values()) / number
        self._metadata = next(path / name for name in METADATA if name in files)
        self._state = files[self._metadata.name]
        if self._whole:
            self._check_chunks(lambda name: files.get(name, (0, 0))[0], [slice(None)] * self.ndim)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self._token

    def copies(self, rows: Sequence[int]) -> float:
        """Return 1 for the block, plus the chunks that zarr holds beside it."""
        block = max(rows) * math.prod(self.shape[1:]) * self.dtype.itemsize
        files = min(CHUNKS_AT_ONCE, _parts(max(rows), self.rows_at_once) * self._files_a_row)
        return 1 + files * self._bytes_of_file / max(1, block)

    def __getitem__(self, index: Any) -> NumPyArray:
        check_unchanged(self._metadata, self._state)
        if self._whole:
            self._check_chunks(self._size_of, index)
        array = zarr_module().open_array(self.path, mode="r")
        start, stop = slice_range(index[0], self.shape[0])
        with naming_damage(f"{self.path}: rows {start} to {stop} cannot be read: a chunk is damaged"):
            return np.asarray(array[index])

    def _check_chunks(self, size_of: Callable[[str], int], index: Any) -> None:
        """Raise if a chunk within an index is missing or truncated."""
        full = math.prod(self.chunks) * self.dtype.itemsize
        ranges = [slice_range(at, length) for at, length in zip(index, self.shape, strict=True)]
        for number in chunks_reached(ranges, self.chunks):
            size = size_of(chunk_file(number))
            if size != full:
                raise ValueError(
                    f"{self.path}: the chunk {chunk_file(number)} is missing or truncated: it has {size} bytes, "
                    f"store wrote {full}: "
                    f"store the array again with overwrite=True"
                )

    def _size_of(self, name: str) -> int:
        return size_at(os.path.join(self.path, name))


def _parts(length: int, size: int) -> int:
    return math.ceil(length / size)


def chunks_reached(ranges: Sequence[tuple[int, int]], chunks: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Return the numbers of the chunks that overlap a range along each axis."""
    return itertools.product(
        *(range(start // chunk, -(-stop // chunk)) for (start, stop), chunk in zip(ranges, chunks, strict=True))
    )


def chunk_file(number: tuple[int, ...]) -> str:
    """Return the file name of a chunk; all chunks lie in one folder."""
    return ".".join(map(str, ("c", *number)))


def _is_whole(array: Any) -> bool:
    """Say whether `store` wrote the array in this form; a copy in another form has the attribute too."""
    return (
        array.metadata.zarr_format == 3
        and all(array.attrs.get(key) == value for key, value in WHOLE.items())
        and array.metadata.chunk_key_encoding.name == "default"
        and array.metadata.chunk_key_encoding.separator == "."
        and not array.compressors
        and not array.shards
    )


def _files(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yield every file of a Zarr array, and refuse links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise ValueError(
                    f"{entry.path}: is a link to {os.path.realpath(entry.path)}, inside a Zarr array: replace the link "
                    f"by a copy of its target"
                )
            if entry.is_dir():
                yield from _files(entry.path)
            else:
                yield entry


def zarr_module() -> Any:
    """Return zarr, which is imported only when it is used."""
    try:
        import zarr
    except ImportError:
        raise ImportError("a .zarr array needs zarr: pip install zarr") from None
    return zarr


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
            if _largest_chunk(sizes) < SMALLEST_CHUNK * max(sizes)
        }
        return array.rechunk(anew) if anew else array

    @classmethod
    def of(cls, path: str, array: Array) -> ZarrWriter:
        """Return the writer of an array that fits."""
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
            # All chunk files in one folder: every further folder would need an fsync for each block.
            chunk_key_encoding={"name": "default", "separator": "."},
            zarr_format=3,
            attributes=WHOLE,
            # Other readers read a chunk that is lost later as nan, where the dtype has it.
            fill_value=np.nan if np.dtype(self.dtype).kind in "fc" else 0,
        )
        flush(Path(self.path, "zarr.json"))

    def still_there(self, finished: set[Bounds]) -> set[Bounds]:
        """Return the finished blocks whose chunks are all there in full size."""
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
        """Return the state of the metadata, which are written once, before the first block."""
        return state_at(os.path.join(self.path, "zarr.json"))

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block as whole chunks: files of plain bytes, as the format defines them.

        zarr itself would copy the block twice, which takes as long as writing it, and does not call fsync.
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
            if part.shape != self.chunks:  # at the end of an axis, where the file has the full size too
                full = np.zeros(self.chunks, dtype=part.dtype)
                full[tuple(map(slice, part.shape))] = part
                part = full
            with open(os.path.join(self.path, chunk_file(number)), "wb") as file:
                file.write(np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<")).data)
                file.flush()
                flush(file.fileno())
        flush(Path(self.path))


def _largest_chunk(sizes: tuple[int, ...]) -> int:
    """Return the largest chunk size with which no chunk lies in two blocks of an axis."""
    length = sum(sizes)
    return math.gcd(*(start for start, _ in bounds(sizes) if 0 < start < length)) or max(1, length)
