"""A result on its way to a file, in a separate folder until it is complete.

Until ``y.npy`` is complete, the folder ``y.npy.fc_arrayapi.part`` lies beside it. It has one folder with a random
name, which holds

- ``data``: the file or Zarr array that is being written;
- ``fingerprint.json``: which array that is: Dask's name for it, its shape, dtype and chunks;
- ``finished``: a line with the place of each block that is on the disk;
- ``state``: inode, size and time of ``data``, written just before it gets its name.

For a moment ``old`` lies beside that folder: the Zarr array that is replaced, until the new one has its name. If the
process is killed in that moment, the next call puts it back.

Each pass takes a new random name. Blocks that are still being written when a pass fails find their folder gone, and
cannot write into the next pass. unfinished_folder.py keeps that folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

from .._arrays.namespace import Array
from .disk import FILE, FOLDER, atomic_write, flush, kind_at, unfollowed
from .npy import NpyWriter
from .result import PYTHON, Options, Result
from .unfinished_folder import DATA, FINGERPRINT, FINISHED, OLD, STATE, UnfinishedFolder
from .writer import Bounds, Writer
from .zarr_writer import ZarrWriter

WRITERS: dict[str, type[Writer]] = {".npy": NpyWriter, ".zarr": ZarrWriter}


class UnfinishedResult(Result):
    """A lazy array on its way to its file.

    Parameters
    ----------
    path : Path
        The file, with an ending of `WRITERS`.
    array : dask array
        With blocks of known sizes.
    options : Options
        How messages write the options.
    """

    def __init__(self, path: Path, array: Array, options: Options = PYTHON) -> None:
        super().__init__(str(path), array, options)
        self.path = path
        self.folder = UnfinishedFolder(path)
        self.old = self.folder.path / OLD
        kind = WRITERS[path.suffix]
        self.array = kind.fit(array)
        self.found: Path | None = None
        self.work = self.folder.path / os.urandom(8).hex()
        self.writer: Writer = kind.of(str(self.work / DATA), self.array)
        self.record = functools.partial(record_line, str(self.work / FINISHED))

    def inspect(self, resume: bool, overwrite: bool) -> None:
        """Look at what is there, and raise where it must not be touched."""
        self.check_repeats(resume)
        if self.folder.open():
            if not (resume or overwrite):
                raise self.is_kept(self.folder, self.path.name)
            self.folder.check(self.writer)
            if kind_at(self.old) and not kind_at(self.path):  # a pass was killed between two renames
                os.rename(self.old, self.path)
            if resume:
                self._take_up()
        self._check_target()
        if kind_at(self.path) and not (overwrite or self.committed):
            raise self.exists(nothing_to_resume=resume and kind_at(self.folder.path) is None)

    def replaces(self, place: Any) -> bool:
        """Say whether what lies at a place would be lost."""
        path = str(getattr(place, "address", place)).removeprefix("file://")
        return os.path.realpath(path) == os.path.realpath(self.path)

    def _take_up(self) -> None:
        """Read the unfinished result that is there, and compare it with the array."""
        self.found = next((folder for folder in self.folder.passes() if kind_at(folder / FINGERPRINT)), None)
        if self.found is None:
            if kind_at(self.path):  # a pass was killed at its very end, while it removed the folder
                self.folder.remove()
            return
        try:
            recorded = json.loads((self.found / FINGERPRINT).read_text())
            before = [recorded[key] for key in self.fingerprint]
            finished = _read_finished(self.found / FINISHED)
        except (ValueError, KeyError, TypeError, RecursionError, FileNotFoundError):
            self.damaged(self.folder)
        self.compare(before, self.folder)
        self.finished = {place for place in self.places() if place in finished}
        self.committed = not self.missing and self._has_its_name(self.found)
        if not self.committed:
            data = _at(self.writer, self.found / DATA)
            try:
                self.finished = data.still_there(self.finished)
            except ValueError as error:
                self.damaged(self.folder, error)
            if not self.finished:  # nothing is lost by starting over, and other files may be missing too
                self.found = None

    def _has_its_name(self, work: Path) -> bool:
        """Say whether the file at the path is the one that was written here, and no older or other one."""
        try:
            return (work / STATE).read_bytes() == _at(self.writer, self.path).state()
        except OSError:  # one of them is not there
            return False

    def prepare(self) -> None:
        """Make the folder and the empty file in it, or take over the ones that were found."""
        self.folder.create()
        if self.found is not None:
            self.folder.rename(self.found.name, self.work.name)
            return
        self.folder.empty()
        self.work.mkdir()
        self.writer.create()
        with atomic_write(self.work / FINISHED):
            pass
        with atomic_write(self.work / FINGERPRINT) as file:
            file.write(json.dumps(self.fingerprint).encode())

    def rollback(self) -> None:
        """Remove what `prepare` made, as long as no block was computed; what was found is kept."""
        if self.found is None:
            self.folder.remove_pass(self.work.name)

    def commit(self, overwrite: bool) -> None:
        """Give the complete file its name."""
        if self.committed:
            return
        if kind_at(self.work) is None or not self.folder.is_here():
            raise self.folder.lost()
        if kind_at(self.path) and not overwrite:
            raise self.appeared()
        self._check_target()
        self.folder.check(self.writer)  # the data too: a link must not get the name
        flush(self.work / FINISHED)
        self._record_state()
        if kind_at(self.path) == FOLDER:  # not replaced in one step: it is kept until the new one has its name
            if kind_at(self.old):
                shutil.rmtree(self.old)
            os.rename(self.path, self.old)
        os.replace(self.writer.path, self.path)
        if self.writer.is_folder and not self._is_whole():
            self._take_back()
            raise self.folder.lost()
        flush(self.path.parent)

    def _is_whole(self) -> bool:
        """Say whether all is there: who removed the folder at the same moment went on in the data under their name."""
        places = {place for place in self.places() if all(start < stop for start, stop in place)}
        try:
            return _at(self.writer, self.path).still_there(places) == places and kind_at(self.path) is not None
        except (OSError, ValueError):
            return False

    def _take_back(self) -> None:
        """Take the name from what is not whole, and give it to the older result again, if that is there."""
        shutil.rmtree(self.path, ignore_errors=True)
        if kind_at(self.old):
            os.rename(self.old, self.path)

    def _check_target(self) -> None:
        """Refuse what store would not write at the path, since it would be lost."""
        kind, written = kind_at(self.path), FOLDER if self.writer.is_folder else FILE
        if kind not in (None, written):
            raise FileExistsError(f"{self.path}: is {kind}, and store writes {written} there: move it away")
        if kind == FOLDER and (foreign := self.writer.foreign(self.path)):
            raise FileExistsError(f"{foreign}: is no part of a Zarr array and would be lost: move it away")

    def _record_state(self) -> None:
        """Write down the state of the file, so that it is told from any other that gets its name."""
        state = self.writer.state()
        try:
            with atomic_write(self.work / STATE) as file:
                file.write(state)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Unlock the folder."""
        self.folder.close()

    def lost(self) -> Exception | None:
        """Return an error if the folder is gone."""
        return self.folder.lost() if kind_at(self.work) is None else None

    def remove(self) -> None:
        """Remove the folder of a committed result; without a fingerprint, the rest is not taken for a result."""
        with contextlib.suppress(FileNotFoundError):  # someone else was faster
            (self.work / FINGERPRINT).unlink()
            self.folder.remove()


def record_line(path: str, place: Bounds) -> None:
    """Append the place of a block that is on the disk."""
    # A line begins and ends with characters that no other has, so that one that was cut short is noticed and does not
    # spoil the next. Appending so few bytes is one step: lines of two threads or processes do not mix.
    with open(path, "ab", buffering=0, opener=unfollowed) as file:
        file.write(b"\n" + json.dumps(place).encode())


def _at(writer: Writer, path: Path) -> Writer:
    """Return the writer for another place."""
    return dataclasses.replace(writer, path=str(path))  # type: ignore[type-var]  # each writer is a dataclass


def _read_finished(path: Path) -> set[Bounds]:
    """Read which blocks are finished; the block of a line that was cut short is not."""
    finished = set()
    for line in path.read_bytes().splitlines():
        try:
            finished.add(tuple((start, stop) for start, stop in json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            continue
    return finished
