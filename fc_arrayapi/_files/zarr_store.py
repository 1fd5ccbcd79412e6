"""The store through which Zarr arrays are read: files that are no links, and chunks that stay within their size."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disk import FOLDER, LINK, check_regular, kind_at, size_at

METADATA = ("zarr.json", ".zarray", ".zgroup")

# Metadata of an array take a few hundred bytes, and longer where it has attributes. JSON takes up to 25 times its
# length in memory.
METADATA_BYTES = 2**22

# A chunk is refused if its header announces more than EXPANSION times the size that the metadata give it, and more than
# LEAST_REFUSED. Where a header says nothing, only an upper bound is known, from which the truth may be far.
LEAST_REFUSED, EXPANSION, EXPANSION_OF_BOUND = 2**20, 2, 64

_ZSTD_MAGIC, _ZSTD_BLOCK = b"\x28\xb5\x2f\xfd", 2**17


def zarr_module() -> Any:
    """Return zarr, which is imported only when it is used."""
    try:
        import zarr
    except ImportError:
        raise ImportError("a .zarr array needs zarr: pip install zarr") from None
    return zarr


def check_is_file(path: Path | str) -> None:
    """Refuse a link, of whose target a change would go unnoticed, and what has no end, such as a FIFO."""
    kind = kind_at(path)
    if kind == LINK:
        raise ValueError(
            f"{path}: is a link to {os.path.realpath(path)}, inside a Zarr array: replace the link by a "
            f"copy of its target"
        )
    if kind not in (None, FOLDER):
        check_regular(path)


def open_zarr(path: Path) -> Any:
    """Open a Zarr array or group to be read.

    Raises
    ------
    ValueError
        If its metadata are no regular file, are too long, or name more than one compressor.
    Exception
        What zarr raises for malformed metadata.
    """
    zarr = zarr_module()
    store = _store_class()(path, read_only=True)
    array = zarr.open(store, mode="r")
    if isinstance(array, zarr.Array):
        if len(array.compressors) > 1:  # each may expand what the one before gave it
            raise ValueError("its chunks are compressed twice")
        store.chunks = Chunks.of(array)
    return array


@dataclass(frozen=True)
class Chunks:
    """What the metadata say of the chunks, with which what comes from the files is compared.

    Parameters
    ----------
    compressor : str
        The name of its class, in lower case.
    size : int
        Bytes of a chunk that is not compressed.
    in_shard : int
        Chunks in a shard, 0 without shards.
    index_first : bool
        Whether a shard begins with its index; else it ends with it.
    """

    compressor: str
    size: int
    in_shard: int
    index_first: bool

    @classmethod
    def of(cls, array: Any) -> Chunks:
        """Read the metadata of an array."""
        size = math.prod(array.chunks) * array.dtype.itemsize
        compressor = "".join(type(found).__name__.lower() for found in array.compressors)
        if not array.shards:
            return cls(compressor, size, 0, False)
        location = getattr(array.metadata.codecs[0], "index_location", None)
        return cls(
            compressor,
            size,
            math.prod(shard // chunk for shard, chunk in zip(array.shards, array.chunks, strict=True)),
            getattr(location, "value", "end") == "start",
        )

    def check(self, key: str, value: memoryview, byte_range: Any) -> None:
        """Refuse a chunk that would expand to far more than its size, before it is decompressed.

        The value is a chunk, or a shard; with a `byte_range` a chunk of a shard, or the index of one.
        """
        if hasattr(byte_range, "suffix") or (self.index_first and getattr(byte_range, "start", None) == 0):
            return
        for chunk in self._of_shard(value) if self.in_shard and byte_range is None else [value]:
            size, exact = expanded_size(self.compressor, chunk)
            if size > max(LEAST_REFUSED, (EXPANSION if exact else EXPANSION_OF_BOUND) * self.size):
                raise ValueError(f"{key} expands to {size} bytes, its chunk has {self.size}")

    def _of_shard(self, shard: memoryview) -> Iterator[memoryview]:
        """Yield the chunks of a shard, by its index: the place and the size of each, in 8 bytes each."""
        length = 16 * self.in_shard
        index = shard[:length] if self.index_first else shard[-length - 4 : -4]  # 4: its checksum
        numbers = index[: len(index) // 8 * 8].cast("Q") if len(index) >= 16 else []
        for place, size in zip(numbers[::2], numbers[1::2], strict=False):
            yield shard[place : place + size]


def expanded_size(compressor: str, chunk: memoryview) -> tuple[int, bool]:
    """Return the size that a compressed chunk announces, or a bound of it, and which of both it is.

    gzip and zlib announce nothing; they expand at most 1032 times.
    """
    head = bytes(chunk[:32])
    if compressor.startswith("blosc") and len(head) >= 16:
        return int.from_bytes(head[4:8], "little"), True
    if compressor.startswith("lz4") and len(head) >= 4:
        return int.from_bytes(head[:4], "little"), True
    if compressor.startswith("zstd") and head.startswith(_ZSTD_MAGIC):
        return _zstd_size(chunk)
    return 0, False


def _zstd_size(frame: memoryview) -> tuple[int, bool]:
    """Read the header of a zstd frame (RFC 8878, 3.1.1), and those of its blocks if the size is not there."""
    descriptor = frame[4] if len(frame) > 4 else 0
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    place = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    width = (single, 2, 4, 8)[flag]
    if width:
        return int.from_bytes(frame[place : place + width], "little") + (256 if width == 2 else 0), True
    bound, last = 0, False
    while not last and place + 3 <= len(frame):
        header = int.from_bytes(frame[place : place + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        bound += _ZSTD_BLOCK if kind == 2 else size
        place += 3 + (1 if kind == 1 else size)
    return bound, False


@functools.cache
def _store_class() -> Any:
    """Return the class of the store; zarr is imported only when it is used."""

    class GuardedStore(zarr_module().storage.LocalStore):  # type: ignore[misc]
        chunks: Chunks | None = None

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            self._check_file(key)
            return self._checked(key, await super().get(key, prototype, byte_range), byte_range)

        def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
            self._check_file(key)
            value = super().get_sync(key, prototype=prototype, byte_range=byte_range)
            return self._checked(key, value, byte_range)

        def _check_file(self, key: str) -> None:
            path = self.root / key
            check_is_file(path)
            size = size_at(path)
            if path.name.startswith((".z", "zarr.")) and size > METADATA_BYTES:
                raise ValueError(f"{key} has {size} bytes; metadata have at most {METADATA_BYTES}")

        def _checked(self, key: str, value: Any, byte_range: Any) -> Any:
            if value is not None and self.chunks is not None and self.chunks.compressor:
                self.chunks.check(key, memoryview(value.as_numpy_array()), byte_range)
            return value

    return GuardedStore
