"""A result on its way to a place in an object store, or in another store of zarr.

Nothing can be renamed there, so chunks are written to their final place, and the array's own metadata, ``zarr.json``,
last: until then nothing can open it. Beside ``y.zarr`` lies ``y.zarr.fc_arrayapi.part/`` until the end, with

- ``fingerprint.json``: which array that is, and a random name of the pass that writes it;
- ``finished/0-500_0-16``: an object for each block that is written, with the rows and columns of the block.

There are no locks. A pass that finds another one's name in the fingerprint stops.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .disk import UNFINISHED
from .icechunk_writer import IcechunkResult, padded
from .object_requests import delete_below, delete_objects, keys_below, read_object, write_objects
from .object_store import Place, place_in
from .result import PYTHON, Options, Result
from .unfinished_folder import FINGERPRINT, FINISHED
from .writer import Bounds
from .zarr import chunk_file, chunks_reached
from .zarr_store import METADATA, zarr_module
from .zarr_writer import CHUNK, IN_ARRAY, ZarrWriter, pieces, zarr_metadata

# A local store of zarr writes files as .partial first.
_RECORD = re.compile(rf"({re.escape(FINGERPRINT)}|{FINISHED}/\d*-?\d*(_\d+-\d+)*)(\.[0-9a-f]+\.partial)?")
# What an empty group consists of.
_GROUP = {"zarr.json", ".zgroup", ".zattrs"}


@dataclass(frozen=True)
class ObjectWriter:
    """A Zarr array of format 3, not compressed, whose chunks never lie in two blocks: as ZarrWriter writes on disk.

    Parameters
    ----------
    place : Place
    part : str
        The key below which the unfinished result is recorded.
    work : str
        The random name of the pass.
    """

    place: Place
    part: str
    work: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]

    def metadata(self) -> bytes:
        """Return the content of zarr.json."""
        return zarr_metadata(self.shape, self.dtype, self.chunks)

    @property
    def chunk_bytes(self) -> int:
        """The size of each chunk."""
        return math.prod(self.chunks) * np.dtype(self.dtype).itemsize

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block as whole chunks, several at a time."""
        self.check_pass()
        write_objects(self.place, self._objects(block, start))

    def _objects(self, block: NumPyArray, start: tuple[int, ...]) -> Iterator[tuple[str, NumPyArray]]:
        for number, part in pieces(block, start, self.chunks):
            yield self.place.inner(chunk_file(number)), padded(part, self.chunks)

    def check_pass(self) -> None:
        """Raise if another pass has begun to write here: it may be of another array."""
        content = read_object(self.place, f"{self.part}/{FINGERPRINT}")
        if content is None:
            raise FileNotFoundError(
                f"{self.place.address_of(self.part)}: was removed while a pass wrote there, by hand or by another "
                f"pass: compute {self.place.address.name} anew"
            )
        if json.loads(content).get("pass") != self.work:
            raise FileExistsError(
                f"{self.place.address}: another pass writes this target: wait until it ends, or stop it"
            )

    def record(self, place: Bounds) -> None:
        """Write down that a block is finished."""
        write_objects(self.place, [(f"{self.part}/{_record(place)}", json.dumps(place).encode())])


def _record(place: Bounds) -> str:
    """Return the name of the object for a block."""
    return f"{FINISHED}/{'_'.join(f'{start}-{stop}' for start, stop in place) or 0}"


class UnfinishedObjects(Result):
    """A lazy array on its way to a place in an object store.

    Parameters
    ----------
    place : Place
        Where the array will lie.
    array : dask array
        With blocks of known sizes.
    options : Options
        How messages write the options.
    in_group : bool
        The place may be an empty group, which the array replaces.
    """

    def __init__(self, place: Place, array: Array, options: Options = PYTHON, in_group: bool = False) -> None:
        super().__init__(place.address, array, options)
        if place.root.startswith("http"):
            raise ValueError(f"{place.address}: a server of files over https is only read: pass s3:// or gs://")
        if place.store.read_only:
            raise ValueError(f"{place.address}: is open to be read only: open the store to be written")
        zarr_module()
        self.place, self.in_group = place, in_group
        self.part = place.path + UNFINISHED
        self.array = ZarrWriter.fit(array)
        like = ZarrWriter.of("", self.array)
        work = os.urandom(8).hex()
        self.writer: ObjectWriter = ObjectWriter(place, self.part, work, like.shape, like.dtype, like.chunks)
        self.record = self.writer.record
        self.found: set[str] = set()  # the unfinished result that is continued
        self.there: set[str] = set()

    @property
    def _unfinished(self) -> str:
        return self.place.address_of(self.part)

    def _read_keys(self) -> dict[str, int | None]:
        """Read the keys of the array, without those of the unfinished result, which lies in it at the root."""
        found = keys_below(self.place, self.place.path)
        return {key: size for key, size in found.items() if not key.startswith(f"{UNFINISHED}/")}

    def inspect(self, resume: bool, overwrite: bool) -> None:
        """Look at what is there, and raise where it must not be touched."""
        self.check_repeats(resume)
        kept = set(keys_below(self.place, self.part))
        sizes = self._read_keys()
        self.there = set(sizes)
        if kept:
            if not (resume or overwrite):
                raise self.is_kept(self._unfinished, self.place.address.name)
            for key in sorted(kept):
                if not _RECORD.fullmatch(key):
                    raise self._foreign(f"{self._unfinished}/{key}")
            if resume:
                self._take_up(kept, sizes)
        for key in sorted(self.there):
            first, *others = key.split("/")
            known = IN_ARRAY.fullmatch(first) or (self.in_group and first == ".zgroup")
            if not (known and all(map(CHUNK.fullmatch, others))):
                raise self._foreign(self.place.address_of(self.place.inner(key)))
        exists = self.there & {*METADATA} or (self.there and not self.found)
        if self.in_group and self.there <= _GROUP:
            exists = False
        if exists and not (overwrite or self.committed):
            raise self.exists(nothing_to_resume=resume and not kept)

    def _foreign(self, address: str) -> FileExistsError:
        return FileExistsError(f"{address}: is no part of a Zarr array and would be lost: move it away")

    def replaces(self, place: Any) -> bool:
        """Say whether what lies at a place would be lost."""
        return bool(place == self.place)

    def _take_up(self, kept: set[str], sizes: dict[str, int | None]) -> None:
        """Read the unfinished result that is there, and compare it with the array."""
        content = read_object(self.place, f"{self.part}/{FINGERPRINT}")
        if content is None:  # a pass was killed at its very end, while it removed the rest, or at its beginning
            return
        try:
            recorded = json.loads(content)
            before = [recorded[key] for key in self.fingerprint]
        except (ValueError, KeyError, TypeError, RecursionError):
            self.damaged(self._unfinished)
        self.compare(before, self._unfinished)
        finished = {place for place in self.places() if _record(place) in kept}
        self.finished = self._still_there(finished, sizes)
        metadata = read_object(self.place, self.place.inner("zarr.json")) if "zarr.json" in sizes else None
        self.committed = metadata == self.writer.metadata() and not self.missing
        self.found = kept

    def _still_there(self, places: set[Bounds], sizes: dict[str, int | None]) -> set[Bounds]:
        """Return the blocks whose chunks are all there in full size."""
        full = self.writer.chunk_bytes
        return {place for place in places if all(sizes.get(key, 0) in (full, None) for key in self._chunks(place))}

    def _chunks(self, place: Bounds) -> Iterator[str]:
        """Yield the keys of the chunks of a block; an empty block has none."""
        if all(start < stop for start, stop in place):
            yield from map(chunk_file, chunks_reached(place, self.writer.chunks))

    def prepare(self) -> None:
        """Write the fingerprint, with the name of this pass."""
        if self.committed:
            return
        if not self.found:
            delete_objects(self.place, self._below_part(keys_below(self.place, self.part)))
        content = json.dumps({**self.fingerprint, "pass": self.writer.work}).encode()
        write_objects(self.place, [(f"{self.part}/{FINGERPRINT}", content)])

    def _below_part(self, keys: Any) -> list[str]:
        """Return keys of the unfinished result, its fingerprint first: without it the rest is no result."""
        return [f"{self.part}/{key}" for key in sorted(keys, key=lambda key: key != FINGERPRINT)]

    def rollback(self) -> None:
        """Remove what `prepare` made, as long as no block was computed; what was found is kept."""
        if not self.found:
            delete_objects(self.place, [f"{self.part}/{FINGERPRINT}"])

    def begin(self) -> None:
        """Remove the array that is replaced, its metadata first, and chunks that are not recorded as finished."""
        if self.committed:
            return
        kept = set(itertools.chain.from_iterable(map(self._chunks, self.finished)))
        metadata = {key for key in self.there if not CHUNK.fullmatch(key.partition("/")[0])}
        for keys in (metadata, self.there - metadata - kept):
            delete_objects(self.place, map(self.place.inner, sorted(keys)))

    def commit(self, overwrite: bool) -> None:
        """Write the metadata: from now on the array can be opened."""
        if self.committed:
            return
        self.writer.check_pass()
        sizes = self._read_keys()
        if set(sizes) & {*METADATA} and not overwrite:
            raise self.appeared()
        places = set(self.places())
        lost = places - self._still_there(places, sizes)
        if lost:
            raise FileNotFoundError(
                f"{self.where}: {len(lost)} of {len(places)} blocks were written and are not there: they were removed "
                f"during the pass, or other processes wrote to a store in their own memory"
            )
        write_objects(self.place, [(self.place.inner("zarr.json"), self.writer.metadata())])

    def remove(self) -> None:
        """Remove the record of a committed result."""
        delete_objects(self.place, [f"{self.part}/{FINGERPRINT}"])
        delete_below(self.place, self.part)


def target_place(target: Any) -> Place:
    """Return where the array of a target goes: the root of a store or a session, the path of a group or a StorePath."""
    target = getattr(target, "store_path", target)  # of a group
    if isinstance(target, zarr_module().storage.StorePath):
        return place_in(target.store, target.path)
    return place_in(target if hasattr(target, "list_prefix") else target.store)


def result_in(target: Any, place: Place, array: Array, options: Options) -> Result:
    """Return the result of an open target of zarr."""
    in_group = hasattr(target, "store_path")
    if hasattr(place.store, "session"):
        return IcechunkResult(place, array, options, in_group)
    return UnfinishedObjects(place, array, options, in_group)
