"""Blocks of Zarr arrays in object stores, and in any other store that zarr opens."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .disk import UNFINISHED
from .object_requests import Stored, failure, listing, state_of
from .object_store import Place, place_in
from .source import Source, brief, one_of, slice_range
from .zarr import ZarrArray, ZarrSource, is_whole
from .zarr_chunks import Chunks
from .zarr_store import METADATA, METADATA_BYTES, zarr_module

# By default a block is so small that its memory is used again: the pages of fresh blocks of 128 MiB took two threads
# longer than the requests. It grows where there would be more blocks than this.
BLOCK_BYTES, MOST_BLOCKS = 16 * 2**20, 100_000


def zarr_array(given: Any) -> Source:
    """Return the source of a zarr.Array that is open already.

    Raises
    ------
    TypeError
        If it is no zarr.Array.
    """
    zarr = zarr_module()
    if isinstance(given, zarr.Group):
        raise ValueError(f"{place_in(given.store, given.path).address}: is a Zarr group: pass one of its arrays")
    if isinstance(given.store, zarr.storage.LocalStore):  # with all that is checked of files
        return ZarrArray(Path(given.store.root, given.path).resolve())
    return StoredZarr(place_in(given.store, given.path))


class StoredZarr(ZarrSource):
    """A Zarr array of format 2 or 3 in a store.

    Its name is made of the address and of the version of each object, by one listing. A store that cannot list, as a
    server of files over https, is asked for the metadata alone; icechunk for its snapshot. What none of them tells is
    named anew whenever it is opened, and `store` does not resume it.
    """

    def __init__(self, place: Place) -> None:
        from .guarded_objects import CHUNK, GuardedObjects

        self.place, self.path = place, place.address
        if any(part.endswith(UNFINISHED) for part in place.path.split("/")):
            raise ValueError(f"{self.path}: is an unfinished result: complete it with store(..., resume=True)")
        try:
            objects = listing(place)
        except PermissionError:  # to list may be forbidden where to read is not
            objects = None
        if objects is not None:
            self._check_there(objects)
        guard = GuardedObjects(place)
        self._array = array = self._opened(guard)
        self.describe_zarr(self.path, array, sum(each.size for each in (objects or {}).values()))
        self.block_bytes = max(BLOCK_BYTES, self.dtype.itemsize * math.prod(self.shape) // MOST_BLOCKS)
        guard.chunks = Chunks.of(array)
        if objects is not None:
            guard.complete = sum(CHUNK.fullmatch(key) is not None for key in objects) >= self.files
            times = [each.modified for each in objects.values() if each.modified is not None]
            guard.unmodified = max(times, default=None)
        self._token, self.repeats = _version(place, objects, array)
        if objects is not None and is_whole(array):
            self.check_chunks(lambda name: objects[name].size if name in objects else 0, [slice(None)] * self.ndim)

    def _check_there(self, objects: dict[str, Stored]) -> None:
        """Raise if there is nothing, or no array."""
        metadata = next((name for name in METADATA if name in objects), None)
        if metadata is None and listing(self.place, self.place.path + UNFINISHED):
            raise ValueError(f"{self.path}: is unfinished: complete it with store(..., resume=True)")
        if not objects:
            raise FileNotFoundError(f"{self.path}: no such array: there is no object below this address")
        if metadata is None:
            inner = {key.partition("/")[0] for key in objects if key.rpartition("/")[2] in METADATA}
            raise ValueError(f"{self.path}: is not a Zarr array: open {one_of(inner, f'{self.path}/{{}}')}")
        if objects[metadata].size > METADATA_BYTES:
            raise ValueError(
                f"{self.path}: is not a Zarr array ({metadata} has {objects[metadata].size} bytes; metadata have at "
                f"most {METADATA_BYTES})"
            )

    def _opened(self, store: Any) -> Any:
        zarr = zarr_module()
        try:
            array = zarr.open(store, path=self.place.path, mode="r")
        except FileNotFoundError as error:
            if error.filename is not None:  # of a request
                raise
            raise FileNotFoundError(f"{self.path}: no such array") from None
        except OSError as error:
            raise failure(error, self.place, self.place.path) from None
        except Exception as error:  # zarr raises various exceptions for malformed metadata
            raise ValueError(f"{self.path}: is not a Zarr array ({brief(error)})") from None
        if isinstance(array, zarr.Group):
            objects = listing(self.place) or {}
            inner = {key.partition("/")[0] for key in objects if key.count("/") and key.rpartition("/")[2] in METADATA}
            raise ValueError(f"{self.path}: is a Zarr group: open {one_of(inner, f'{self.path}/{{}}')}")
        return array

    def places(self) -> list[Any]:
        """Return the place in the store."""
        return [self.place]

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self._token

    def __getitem__(self, index: Any) -> NumPyArray:
        try:
            return np.asarray(self._array[index])
        except MemoryError:
            raise
        except Exception as error:
            if str(self.place.root) in str(error):  # it names its object
                raise
            start, stop = slice_range(index[0], self.shape[0])
            raise ValueError(
                f"{self.path}: rows {start} to {stop} cannot be read: a chunk is damaged ({brief(error)}): write the "
                f"array again"
            ) from None


def _version(place: Place, objects: dict[str, Stored] | None, array: Any) -> tuple[tuple[Any, ...], bool]:
    """Return what identifies the content for Dask's name, and whether the name changes with the content alone."""
    import hashlib  # here, since OpenSSL takes a tenth of the package's import time

    where = str(place.address)
    if objects is not None:  # whose versions are hashes of their content: the same array behind another endpoint
        said = sorted((key, each.size, each.version) for key, each in objects.items())
        return (where, hashlib.sha256(repr(said).encode()).hexdigest()), True
    session = getattr(place.store, "session", None)
    if session is not None and not session.has_uncommitted_changes:
        return (place.path, session.snapshot_id), True
    metadata = state_of(place, "zarr.json" if array.metadata.zarr_format == 3 else ".zarray")
    if metadata is not None:
        content = json.dumps(array.metadata.to_dict(), sort_keys=True, default=repr)
        return (where, place.server, metadata.version, hashlib.sha256(content.encode()).hexdigest()), True
    return (where, os.urandom(16).hex()), False
