"""Chunks of Zarr arrays that stay within their size: what they expand to is known before they are decompressed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# A chunk is refused if it expands to more than EXPANSION times the size that the metadata give it, and to more than
# LEAST_REFUSED. Where only a bound of its size is known, the truth may be far from it.
LEAST_REFUSED, EXPANSION, EXPANSION_OF_BOUND = 2**20, 2, 64
# How far deflate expands. It announces nothing, and to count what comes out doubles the time, so the only bound is that
# a compressed chunk is about as long as the chunk, or shorter.
DEFLATE = 1032

# Codecs that may expand a chunk to many times its size, by the beginning of the name of their class in lower case.
_COMPRESSORS = ("zstd", "blosc", "lz4", "gzip", "zlib", "bz2", "lzma")
# Codecs that only append to a compressed chunk, so that it still begins with its header.
_APPENDING = ("crc32ccodec", "fletcher32")

_ZSTD_MAGIC, _ZSTD_BLOCK, _SKIPPABLE = 0xFD2FB528, 2**17, 0x184D2A5  # the last has 16 successors

# Bytes that are given to a decompressor, and taken from it, at a time, to see how much comes out.
_IN, _OUT = 2**16, 2**20


@dataclass(frozen=True)
class Chunks:
    """What the metadata say of the chunks, with which what comes from the files is compared.

    Parameters
    ----------
    compressor : str
        One of `_COMPRESSORS`, or "".
    size : int
        Bytes of a chunk that is not compressed.
    options : mapping, optional
        The configuration of the compressor.
    appended : int
        Bytes that follow a compressed chunk.
    in_shard : int
        Chunks in a shard, 0 without shards.
    index_first : bool
        Whether a shard begins with its index; else it ends with it.
    index_dtype : str
        Of the numbers in the index.
    checksum : int
        Bytes that follow the numbers in the index.
    """

    compressor: str
    size: int
    options: Any = None
    appended: int = 0
    in_shard: int = 0
    index_first: bool = False
    index_dtype: str = "<u8"
    checksum: int = 0

    @classmethod
    def of(cls, array: Any) -> Chunks:
        """Read the metadata of an array.

        Raises
        ------
        ValueError
            If the chunks are encoded in a way in which their size cannot be told.
        """
        metadata = array.metadata
        codecs = [*(metadata.filters or ()), metadata.compressor] if metadata.zarr_format == 2 else metadata.codecs
        elements = math.prod(array.shards or array.chunks)
        shard = next(filter(_is_shard, codecs), None)
        if shard is None or not any(map(_name, _inner(shard.codecs))):
            return cls(*_compressor(codecs, elements * array.dtype.itemsize))
        if codecs[-1] is not shard or any(map(_is_shard, shard.codecs)):
            raise ValueError(
                "its shards are encoded once more, or lie in each other, and their chunks are compressed: write it "
                "with plain shards"
            )
        in_chunk = math.prod(shard.chunk_shape)
        return cls(
            *_compressor(shard.codecs, in_chunk * array.dtype.itemsize),
            in_shard=elements // max(1, in_chunk),
            index_first=getattr(shard.index_location, "value", shard.index_location) == "start",
            index_dtype=">u8" if "big" in str(getattr(shard.index_codecs[0], "endian", "")) else "<u8",
            checksum=4 * sum(type(codec).__name__.lower() in _APPENDING for codec in shard.index_codecs),
        )

    def check(self, key: str, value: memoryview, byte_range: Any) -> None:
        """Refuse a chunk that would expand to far more than its size, before it is decompressed.

        The value is a chunk, or a shard; with a `byte_range` a chunk of a shard, or the index of one.
        """
        index = 16 * self.in_shard + self.checksum
        if getattr(byte_range, "suffix", None) == index or (
            self.index_first and (getattr(byte_range, "start", 1), getattr(byte_range, "end", 0)) == (0, index)
        ):
            return
        for chunk in self._of_shard(value) if self.in_shard and byte_range is None else [value]:
            for size, expansion in self._sizes(chunk[: len(chunk) - self.appended]):
                if size > max(LEAST_REFUSED, expansion * self.size):
                    raise ValueError(f"{key} may expand to {size} bytes, its chunk has {self.size}")

    def _of_shard(self, shard: memoryview) -> Iterator[memoryview]:
        """Yield the chunks of a shard, by its index: the place and the size of each, in 8 bytes each."""
        length = 16 * self.in_shard
        first = 0 if self.index_first else len(shard) - length - self.checksum
        if first < 0 or length > len(shard):
            return  # zarr refuses it
        numbers = np.frombuffer(shard[first : first + length], self.index_dtype).tolist()
        for place, size in zip(numbers[::2], numbers[1::2], strict=True):
            yield shard[place : place + size]

    def _sizes(self, chunk: memoryview) -> Iterator[tuple[int, int]]:
        """Yield sizes to which a chunk may expand, each with how often it may be as large as the chunk should be."""
        if self.compressor == "blosc":
            yield int.from_bytes(chunk[4:8], "little"), EXPANSION
        elif self.compressor == "lz4":
            yield int.from_bytes(chunk[:4], "little"), EXPANSION
        elif self.compressor == "zstd":
            size, exact = _zstd_size(chunk)
            yield size, EXPANSION if exact else EXPANSION_OF_BOUND
        elif self.compressor in _COUNTERS:
            most = max(LEAST_REFUSED, EXPANSION * self.size)
            yield _counted(_COUNTERS[self.compressor], self.options, chunk, most), EXPANSION
        else:
            bound = DEFLATE * len(chunk)
            yield bound, DEFLATE * EXPANSION
            last = int.from_bytes(chunk[-4:], "little")  # in gzip the size of the last member, usually the only one
            if self.compressor == "gzip" and last <= bound:  # else it is damaged
                yield last, EXPANSION


def _name(codec: Any) -> str:
    """Return which compressor a codec is, "" for none."""
    name = type(codec).__name__.lower()
    return next((known for known in _COMPRESSORS if name.startswith(known)), "")


def _is_shard(codec: Any) -> bool:
    return hasattr(codec, "index_codecs")


def _inner(codecs: Iterable[Any]) -> Iterator[Any]:
    """Yield codecs, and those of shards among them."""
    for codec in codecs:
        yield codec
        yield from _inner(getattr(codec, "codecs", ()))


def _compressor(codecs: Sequence[Any], size: int) -> tuple[str, int, Any, int]:
    """Return what `Chunks` needs of codecs: the only compressor, the size, its options, and the bytes after it."""
    found = [place for place, codec in enumerate(codecs) if _name(codec)]
    if not found:
        return "", size, None, 0
    if len(found) > 1:  # each may expand what the one before gave it
        raise ValueError("its chunks are compressed twice: write them with one compressor")
    for codec in codecs[found[0] + 1 :]:
        name = type(codec).__name__.lower()
        if codec is not None and not name.startswith(_APPENDING):
            raise ValueError(
                f"its chunks are encoded by {name} after they were compressed: write it without that codec"
            )
    codec = codecs[found[0]]
    options = codec.codec_config if hasattr(codec, "codec_config") else getattr(codec, "get_config", dict)()
    return _name(codec), size, options, 4 * sum(after is not None for after in codecs[found[0] + 1 :])


def _zstd_size(frames: memoryview) -> tuple[int, bool]:
    """Add up the sizes of all frames (RFC 8878, 3.1.1), by the headers of their blocks where a frame says none."""
    total, exact, place = 0, True, 0
    while place + 8 < len(frames):
        magic = int.from_bytes(frames[place : place + 4], "little")
        if magic >> 4 == _SKIPPABLE:
            place += 8 + int.from_bytes(frames[place + 4 : place + 8], "little")
            continue
        if magic != _ZSTD_MAGIC:
            break
        descriptor = frames[place + 4]
        flag, single, checksum = descriptor >> 6, descriptor >> 5 & 1, descriptor >> 2 & 1
        place += 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
        width = (single, 2, 4, 8)[flag]
        size = int.from_bytes(frames[place : place + width], "little") + (256 if width == 2 else 0)
        bound, place = _zstd_blocks(frames, place + width)
        total += size if width else bound
        exact = exact and width > 0
        place += 4 * checksum
    return total, exact


def _zstd_blocks(frame: memoryview, place: int) -> tuple[int, int]:
    """Return the most that the blocks of a frame expand to, and where they end."""
    bound, last = 0, False
    while not last and place + 3 <= len(frame):
        header = int.from_bytes(frame[place : place + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        bound += _ZSTD_BLOCK if kind == 2 else size
        place += 3 + (1 if kind == 1 else size)
    return bound, place


def _bz2(options: Any) -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _lzma(options: Any) -> Any:
    import lzma

    return lzma.LZMADecompressor(format=options.get("format", lzma.FORMAT_XZ), filters=options.get("filters"))


# Decompressors whose formats say nothing of the size, and which make a gigabyte of 1 or 150 KB. They are so slow that
# they run twice.
_COUNTERS = {"bz2": _bz2, "lzma": _lzma}


def _counted(decompressor: Any, options: Any, chunk: memoryview, most: int) -> int:
    """Decompress a chunk piece by piece, keep nothing, and return how much came out, or a number beyond `most`."""
    total, stream = 0, decompressor(options)
    for start in range(0, len(chunk), _IN):
        piece = bytes(chunk[start : start + _IN])
        while total <= most:
            total += len(stream.decompress(piece, _OUT))
            piece = stream.unused_data if stream.eof else b""
            if piece:  # another stream follows
                stream = decompressor(options)
            elif stream.eof or stream.needs_input:
                break
        if stream.eof:
            stream = decompressor(options)
    return total
