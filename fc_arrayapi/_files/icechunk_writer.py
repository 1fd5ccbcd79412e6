"""A result in a session of icechunk: one commit when all blocks are written, and nothing to be seen before it.

icechunk takes chunks of arrays that it knows, and no other object, so finished blocks are not recorded: what is
broken off begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .._dask import cluster
from .object_requests import keys_below, read_object, write_objects
from .object_store import Place
from .result import Options, Result
from .writer import Bounds
from .zarr_store import zarr_module
from .zarr_writer import ZarrWriter, pieces


@dataclass(frozen=True)
class IcechunkWriter:
    """A Zarr array of format 3, not compressed, whose chunks never lie in two blocks."""

    place: Place
    dtype: str
    chunks: tuple[int, ...]

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (self.place, id(self.place.store))

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block as whole chunks, several at a time."""
        write_objects(self.place, self._objects(block, start))

    def _objects(self, block: NumPyArray, start: tuple[int, ...]) -> Iterator[tuple[str, NumPyArray]]:
        for number, part in pieces(block, start, self.chunks):
            yield self.place.inner("/".join(map(str, ("c", *number)))), padded(part, self.chunks)

    def record(self, place: Bounds) -> None:
        """Do nothing: the session is committed as a whole, or not at all."""


def padded(part: NumPyArray, chunks: tuple[int, ...]) -> NumPyArray:
    """Return a chunk with the rows that the last one of an array lacks."""
    if not chunks or len(part) == chunks[0]:
        return part
    return np.concatenate([part, np.zeros((chunks[0] - len(part), *part.shape[1:]), part.dtype)])


class IcechunkResult(Result):
    """A lazy array on its way to a session of icechunk.

    Parameters
    ----------
    place : Place
        In the store of the session.
    array : dask array
        With blocks of known sizes.
    options : Options
        How messages write the options.
    in_group : bool
        The place may be an empty group, which the array replaces.
    """

    def __init__(self, place: Place, array: Array, options: Options, in_group: bool) -> None:
        super().__init__(place.address, array, options)
        self.place, self.in_group, self.session = place, in_group, place.store.session
        if self.session.read_only:
            raise ValueError(f"{self.where}: the session is committed or read only: pass a new writable session")
        self.array = ZarrWriter.fit(array)
        like = ZarrWriter.of("", self.array)
        self.shape = like.shape
        self.writer: IcechunkWriter = IcechunkWriter(place, like.dtype, like.chunks)
        self.record = self.writer.record
        self.there: set[str] = set()

    def inspect(self, resume: bool, overwrite: bool) -> None:
        """Look at what is there, and raise where it must not be touched."""
        if cluster.client_of([self.array]) is not None:
            raise ValueError(
                f"{self.where}: a session of icechunk is written by one process, and a cluster has several: store to "
                f"an address, or without the cluster"
            )
        if read_object(self.place, self.place.inner("zarr.json")) is not None:  # icechunk lists what it knows
            self.there = set(keys_below(self.place, self.place.path))
        inner = sorted(key for key in self.there if key.endswith("/zarr.json"))
        if inner:
            raise FileExistsError(
                f"{self.where}: is a group with other arrays, such as {inner[0].removesuffix('/zarr.json')}, which "
                f"would be lost: pass zarr.storage.StorePath(session.store, 'y')"
            )
        if self.there and not (overwrite or (self.in_group and self.there == {"zarr.json"})):
            raise self.exists(nothing_to_resume=resume)

    def prepare(self) -> None:
        """Do nothing: what is written belongs to the session."""

    def rollback(self) -> None:
        """Do nothing."""

    def begin(self) -> None:
        """Replace what is there by an empty array, in the session alone."""
        zarr_module().create_array(
            zarr_module().storage.StorePath(self.place.store, self.place.path),
            shape=self.shape,
            dtype=np.dtype(self.writer.dtype).newbyteorder("<"),
            chunks=self.writer.chunks,
            serializer=zarr_module().codecs.BytesCodec(endian="little"),
            compressors=None,
            filters=None,
            zarr_format=3,
            overwrite=bool(self.there),
        )

    @property
    def advice(self) -> str:
        """What to do when the pass fails."""
        return "Nothing was committed: discard the changes of the session, and store again."

    def commit(self, overwrite: bool) -> None:
        """Commit the session, with all results in it."""
        if self.session.has_uncommitted_changes:
            self.session.commit(f"fc_arrayapi.store: {self.place.path or 'the root'}")

    def remove(self) -> None:
        """Do nothing: there is no record."""
