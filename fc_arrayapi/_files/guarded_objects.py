"""The store through which arrays in object stores are read: unchanged objects, and chunks that stay in their size.

It is a class of zarr's, so zarr_objects.py imports this file when an array is opened, and not before.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from datetime import datetime
from typing import Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import WrapperStore

from .object_requests import failure, get_by_obstore, obstore_of, request_pool, requests_at_once
from .object_store import Place
from .zarr_chunks import Chunks
from .zarr_store import METADATA_BYTES

CHUNK = re.compile(r"(c[./])?\d+([./]\d+)*")


# For each event loop, the number of requests at a time and as many slots.
_SLOTS: weakref.WeakKeyDictionary[Any, tuple[int, asyncio.Semaphore]] = weakref.WeakKeyDictionary()


def _slots(loop: Any) -> asyncio.Semaphore:
    """Return slots for requests, which are free again when the loop goes on with the chunk.

    Threads alone would read on while chunks wait to be copied into the block: all 32 of it were held at once.
    """
    limit = requests_at_once()
    found = _SLOTS.get(loop)
    if found is None or found[0] != limit:
        found = _SLOTS[loop] = limit, asyncio.Semaphore(limit)
    return found[1]


def _content_or_error(inner: Any, key: str, options: dict[str, Any]) -> Any:
    """Read an object; return the error, which asyncio would print where zarr waits for the request no more."""
    try:
        return get_by_obstore(inner, key, options)
    except Exception as error:
        return error


class GuardedObjects(WrapperStore):  # type: ignore[misc]
    """A store that is read, each request of which names the address where it fails.

    Attributes
    ----------
    unmodified : datetime, optional
        When the youngest object was written. The server refuses those that were written later: the condition travels
        with the request, and costs nothing. Only obstore sends conditions.
    complete : bool
        Every chunk was there when the array was opened, so that one that is missing is an error, and no fill value.
    chunks : Chunks, optional
        What compressed chunks may expand to.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place.store if place.store.read_only else place.store.with_read_only(True))
        self.place = place
        # Set when the array is open and its objects are known.
        self.unmodified: datetime | None = None
        self.complete = False
        self.chunks: Chunks | None = None

    def _with_store(self, store: Any) -> GuardedObjects:  # which zarr calls for a store that is read only
        return self

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Read an object, or a range of it."""
        try:
            value = await self._request(key, prototype, byte_range)
        except Exception as error:
            if type(error).__name__ == "PreconditionError":
                raise ValueError(
                    f"{self.place.address_of(key)}: has changed since it was opened: open it again"
                ) from None
            raise failure(error, self.place, key) from None
        inner = key[len(self.place.path) :].lstrip("/")
        if value is None:
            if self.complete and CHUNK.fullmatch(inner):
                raise ValueError(
                    f"{self.place.address_of(key)}: is missing: it was there when the array was opened: open it again"
                )
        elif inner.startswith((".z", "zarr.")):
            if len(value) > METADATA_BYTES:
                raise ValueError(f"{key} has {len(value)} bytes; metadata have at most {METADATA_BYTES}")
        elif self.chunks is not None and self.chunks.compressor:
            self.chunks.check(key, memoryview(value.as_numpy_array()), byte_range)
        return value

    async def _request(self, key: str, prototype: Any, byte_range: Any) -> Any:
        """Read through zarr's store, or by obstore with the condition, which zarr cannot send."""
        inner = obstore_of(self._store)
        if inner is None:
            return await self._store.get(key, prototype, byte_range)
        options: dict[str, Any] = {} if self.unmodified is None else {"if_unmodified_since": self.unmodified}
        if isinstance(byte_range, RangeByteRequest):
            options["range"] = (byte_range.start, byte_range.end)
        elif isinstance(byte_range, OffsetByteRequest):
            options["range"] = {"offset": byte_range.offset}
        elif isinstance(byte_range, SuffixByteRequest):
            options["range"] = {"suffix": byte_range.suffix}
        try:
            loop = asyncio.get_running_loop()
            async with _slots(loop):
                content = await loop.run_in_executor(request_pool(), _content_or_error, inner, key, options)
            if isinstance(content, Exception):
                raise content
            return prototype.buffer.from_bytes(content)
        except FileNotFoundError:
            return None
        except Exception as error:
            if type(error).__name__ != "NotSupportedError":
                raise
            return await self._store.get(key, prototype, byte_range)  # Azure has no suffixes; zarr asks for the size

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
        """Read ranges of objects, each through `get`."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]
