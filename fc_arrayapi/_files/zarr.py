"""Blocks of Zarr arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .disk import size_at
from .source import MOST_AXES, Source, brief, check_unchanged, file_state, naming_damage, one_of, slice_range
from .zarr_store import METADATA, check_is_file, open_zarr, zarr_module

# The attribute of a Zarr array of `store`, which wrote every chunk: one that is missing was lost.
WHOLE = {"fc_arrayapi": "every chunk is written"}

# Chunks that zarr holds at a time beside a block, as measured; it requests up to ten at once.
CHUNKS_AT_ONCE = 10


def has_zarr_metadata(path: Path) -> bool:
    """Say whether a folder is a Zarr array or group."""
    return any((path / name).exists() for name in METADATA)


class ZarrSource(Source):
    """What Zarr arrays on disk and in object stores have in common: chunks, and the memory that zarr takes for them."""

    own_threads = True
    chunks: tuple[int, ...]
    # The chunks, or the shards of an array that has any: one file or object each.
    files: int

    def describe_zarr(self, where: Any, array: Any, stored_bytes: int) -> None:
        """Set shape, dtype and chunks of an array whose files have `stored_bytes` bytes together."""
        self.describe(str(where), array.shape, array.dtype)
        self.chunks = tuple(map(int, array.chunks))
        if min(self.chunks) < 1:
            raise ValueError(f"{where}: is not a Zarr array (its chunks have the shape {self.chunks})")
        file_shape = tuple(map(int, array.shards or array.chunks))
        self.rows_at_once = file_shape[0]
        self.files = math.prod(map(_parts, self.shape, file_shape))
        self._files_a_row = math.prod(map(_parts, self.shape[1:], file_shape[1:]))
        # zarr holds the bytes of a chunk as read, and decompressed if it is compressed.
        self._bytes_of_file = float(math.prod(file_shape) * self.dtype.itemsize)
        if array.compressors:
            self._bytes_of_file += stored_bytes / max(1, self.files)

    def copies(self, rows: Sequence[int], start: int = 0) -> float:
        """Return 1 for the block, plus the chunks that zarr holds beside it."""
        block = max(rows) * math.prod(self.shape[1:]) * self.dtype.itemsize
        files = min(CHUNKS_AT_ONCE, _parts(max(rows), self.rows_at_once) * self._files_a_row)
        return 1 + files * self._bytes_of_file / max(1, block)

    def check_chunks(self, size_of: Callable[[str], int], index: Any) -> None:
        """Raise if a chunk of `store` within an index is missing or truncated."""
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


class ZarrArray(ZarrSource):
    """A Zarr array of format 2 or 3 in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        zarr = zarr_module()
        try:
            array = open_zarr(path)
            self._whole = isinstance(array, zarr.Array) and is_whole(array)
        except PermissionError:
            raise
        except Exception as error:  # zarr raises various exceptions for malformed metadata
            raise ValueError(f"{path}: is not a Zarr array ({brief(error)})") from None
        if isinstance(array, zarr.Group):
            # Not `array.array_keys()`, which warns of folders that are not part of the group.
            names = [inner.name for inner in path.iterdir() if has_zarr_metadata(inner)]
            raise ValueError(f"{path}: is a Zarr group: open {one_of(names, f'{path}/{{}}')}")
        start = len(os.path.join(path, ""))
        files = {file.path[start:]: file_state(file.stat()) for file in _files(path)}
        # Of every file: rewriting a chunk does not change the metadata, and a chunk copied with its mtime may be older
        # than the others. Hashed, since each task carries it.
        import hashlib  # here, since OpenSSL takes a tenth of the package's import time

        self._token = (str(path), hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())
        self.describe_zarr(path, array, sum(size for size, _ in files.values()))
        self._metadata = next(path / name for name in METADATA if name in files)
        self._state = files[self._metadata.name]
        if self._whole:
            self.check_chunks(lambda name: files.get(name, (0, 0))[0], [slice(None)] * self.ndim)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self._token

    def __getitem__(self, index: Any) -> NumPyArray:
        check_unchanged(self._metadata, self._state)
        if self._whole:
            self.check_chunks(self._size_of, index)
        start, stop = slice_range(index[0], self.shape[0])
        with naming_damage(f"{self.path}: rows {start} to {stop}", " cannot be read: a chunk is damaged"):
            return np.asarray(open_zarr(self.path)[index])

    def _size_of(self, name: str) -> int:
        return size_at(os.path.join(self.path, name))


def _parts(length: int, size: int) -> int:
    return math.ceil(length / size)


def chunks_reached(ranges: Sequence[tuple[int, int]], chunks: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of the chunks that overlap a range along each axis, one by one: metadata may claim 10**9."""
    if not ranges:
        yield ()
        return
    start, stop = ranges[0]
    for first in range(start // chunks[0], -(-stop // chunks[0])):
        for others in chunks_reached(ranges[1:], chunks[1:]):
            yield first, *others


def chunk_file(number: tuple[int, ...]) -> str:
    """Return the file name of a chunk; all chunks lie in one folder."""
    return ".".join(map(str, ("c", *number)))


def is_whole(array: Any) -> bool:
    """Say whether `store` wrote the array in this form; a copy in another form has the attribute too."""
    return (
        array.metadata.zarr_format == 3
        and all(array.attrs.get(key) == value for key, value in WHOLE.items())
        and array.metadata.chunk_key_encoding.name == "default"
        and array.metadata.chunk_key_encoding.separator == "."
        and not array.compressors
        and not array.shards
    )


def _files(folder: str | Path, depth: int = 0) -> Iterator[os.DirEntry[str]]:
    """Yield every file of a Zarr array; refuse links, what is no regular file, and folders deeper than chunks lie."""
    if depth > MOST_AXES + 1:
        raise ValueError(f"{brief(folder)}: is a folder too deep in a Zarr array for a chunk: move it away")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, depth + 1)
            else:
                check_is_file(entry.path)
                yield entry
