"""A result on its way to a file, in a folder of its own until it is complete.

Until ``y.npy`` is complete, the folder ``y.npy.fc_arrayapi.part`` lies beside it. It has one folder with a random
name, which holds

- ``data``: the file or Zarr array that is being written;
- ``fingerprint.json``: which array that is: Dask's name for it, its shape, dtype and chunks;
- ``finished``: a line with the place of each block that is on the disk;
- ``state``: inode, size and time of ``data``, written just before it gets its name.

For a moment ``old`` lies beside that folder: the Zarr array that is replaced, until the new one has its name. If the
process is killed in that moment, the next call puts it back.

Each pass takes a new random name. Blocks that are still being written when a pass fails find their folder gone, and
cannot write into the next pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import reprlib
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from .._arrays import namespace
from .._arrays.namespace import Array
from .._dask import blocks
from .disk import UNFINISHED, atomic_write, flush
from .npy import NpyWriter
from .writer import Bounds, Writer
from .zarr import ZarrWriter

WRITERS: dict[str, type[Writer]] = {".npy": NpyWriter, ".zarr": ZarrWriter}


class Options(NamedTuple):
    """How messages write the options of store; the shell has other spellings."""

    resume: str = "resume=True"
    overwrite: str = "overwrite=True"


PYTHON = Options()


class UnfinishedResult:
    """A lazy array on its way to its file.

    `inspect` looks and refuses; `prepare` makes or takes over the folder, and `rollback` undoes that; the blocks
    are written; `commit` gives the complete file its name; `remove` deletes the folder.

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
        self.path, self.options = path, options
        self.folder = path.with_name(path.name + UNFINISHED)
        self.old = self.folder / "old"
        self.fingerprint: dict[str, Any] = {
            "shape": list(map(int, array.shape)),
            "dtype": str(array.dtype),
            "chunks": [list(map(int, sizes)) for sizes in array.chunks],
            "name": array.name,
        }
        kind = WRITERS[path.suffix]
        self.array = kind.fit(array)
        self.found: Path | None = None
        self.finished: set[Bounds] = set()
        self.committed = False
        self.work = self.folder / os.urandom(8).hex()
        self.writer = kind.of(str(self.work / "data"), self.array)

    def inspect(self, resume: bool, overwrite: bool) -> None:
        """Look at what is there, and raise where it must not be touched."""
        _check_kind(self.folder, is_folder=True)
        if self.folder.exists():
            if not (resume or overwrite):
                raise FileExistsError(
                    f"{self.folder}: is an unfinished result of {self.path.name}: pass {self.options.resume} to "
                    f"compute the missing blocks, or {self.options.overwrite} to start over"
                )
            if self.old.exists() and not os.path.lexists(self.path):  # a pass was killed between two renames
                os.rename(self.old, self.path)
            if resume:
                self._take_up()
        _check_kind(self.path, self.writer.is_folder)
        if os.path.lexists(self.path) and not (overwrite or self.committed):
            nothing = ", so there is nothing to resume" if resume and not self.folder.exists() else ""
            raise FileExistsError(
                f"{self.path}: already exists and is complete{nothing}: leave it out of targets, or pass "
                f"{self.options.overwrite} to "
                f"replace it"
            )

    def _take_up(self) -> None:
        """Read the unfinished result that is there, and compare it with the array."""
        self.found = next((path.parent for path in self.folder.glob("*/fingerprint.json")), None)
        if self.found is None:
            if os.path.lexists(self.path):  # a pass was killed at its very end, while it removed the folder
                shutil.rmtree(self.folder)
            return
        anew = f"pass {self.options.overwrite} and not {self.options.resume} to start over"
        try:
            recorded = json.loads((self.found / "fingerprint.json").read_text())
            before = [recorded[key] for key in self.fingerprint]
            finished = _read_finished(self.found / "finished")
        except (ValueError, KeyError, TypeError, FileNotFoundError, IsADirectoryError):
            raise ValueError(f"{self.folder}: is damaged: {anew}") from None
        for (key, now), then in zip(self.fingerprint.items(), before, strict=True):
            if then == now:
                continue
            what = f"{key} {reprlib.repr(then)} before, {reprlib.repr(now)} now"
            if key == "name":
                what = "its inputs or parameters have changed, or one of them gets a new Dask name in each run"
            raise ValueError(f"{self.folder}: is an unfinished result of another array: {what}: {anew}")
        self.finished = finished & set(self._places())
        self.committed = not self.missing and self._has_its_name(self.found)
        if not self.committed:
            data = _at(self.writer, self.found / "data")
            self.finished = data.still_there(self.finished)
            if not self.finished:  # nothing is lost by starting over, and other files may be missing too
                self.found = None

    def _has_its_name(self, work: Path) -> bool:
        """Say whether the file at the path is the one that was written here, and no older or other one."""
        try:
            return (work / "state").read_bytes() == _at(self.writer, self.path).state()
        except OSError:  # one of them is not there
            return False

    def _places(self) -> list[Bounds]:
        return list(itertools.product(*map(blocks.bounds, self.array.chunks)))

    @property
    def missing(self) -> list[int]:
        """The numbers of the blocks that are not finished."""
        return [number for number, place in enumerate(self._places()) if place not in self.finished]

    def prepare(self) -> None:
        """Make the folder and the empty file in it, or take over the ones that were found."""
        if self.found is not None:
            os.rename(self.found, self.work)
            return
        if self.folder.exists():
            for work in self.folder.iterdir():  # under another name no block that is still being written adds to it
                os.rename(work, work.with_name(os.urandom(8).hex()))
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.work.mkdir()
        self.writer.create()
        (self.work / "finished").touch()
        with atomic_write(self.work / "fingerprint.json") as file:
            file.write(json.dumps(self.fingerprint).encode())

    def rollback(self) -> None:
        """Remove what `prepare` made, as long as no block was computed; what was found is kept."""
        if self.found is None:
            shutil.rmtree(self.work, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: an older file may lie in it
                self.folder.rmdir()

    def commit(self, overwrite: bool) -> None:
        """Give the complete file its name."""
        if self.committed:
            return
        if os.path.lexists(self.path) and not overwrite:
            raise FileExistsError(
                f"{self.path}: was created by another process during the pass: pass {self.options.resume} and "
                f"{self.options.overwrite} to replace it, or move it away and pass {self.options.resume}"
            )
        _check_kind(self.path, self.writer.is_folder)
        flush(self.work / "finished")
        self._record_state()
        if self.path.is_dir():  # a folder is not replaced in one step, so it is kept until the new one has its name
            if self.old.exists():
                shutil.rmtree(self.old)
            os.rename(self.path, self.old)
        os.replace(self.writer.path, self.path)
        flush(self.path.parent)

    def _record_state(self) -> None:
        """Write down the state of the file, so that it is told from any other that gets its name."""
        state = self.writer.state()
        try:
            with atomic_write(self.work / "state") as file:
                file.write(state)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def remove(self) -> None:
        """Remove the folder of a committed result; without a fingerprint, the rest is not taken for a result."""
        (self.work / "fingerprint.json").unlink()
        shutil.rmtree(self.folder)


def write_block(block: Array, place: Bounds, writer: Writer, where: str) -> None:
    """Write one block, and record it as finished only after that."""
    shape, dtype = tuple(stop - start for start, stop in place), writer.dtype
    data = namespace.to_numpy(block)
    if data.shape != shape or data.dtype != dtype:
        raise ValueError(
            f"{where}: the block at {place} has shape {data.shape} and dtype {data.dtype}, the lazy array says "
            f"{shape} and {dtype}"
        )
    try:
        if data.size:
            writer.write(data, tuple(start for start, _ in place))
    except OSError as error:
        raise OSError(error.errno, error.strerror, where) from error
    # A line begins and ends with characters that no other has, so that one that was cut short is noticed and does not
    # spoil the next. Appending so few bytes is one step: lines of two threads or processes do not mix.
    with open(Path(writer.path).with_name("finished"), "ab", buffering=0) as file:
        file.write(b"\n" + json.dumps(place).encode())


def _at(writer: Writer, path: Path) -> Writer:
    """Return the writer for another place."""
    return dataclasses.replace(writer, path=str(path))  # type: ignore[type-var]  # each writer is a dataclass


def _check_kind(path: Path, is_folder: bool) -> None:
    """Refuse a file where a folder is written, and a folder where a file is: it is more than an older result."""
    if os.path.lexists(path) and path.is_dir() != is_folder:
        there, written = ("no folder", "one") if is_folder else ("a folder", "a file")
        raise FileExistsError(f"{path}: is {there}, and store writes {written} there: move it away")


def _read_finished(path: Path) -> set[Bounds]:
    """Read which blocks are finished; the block of a line that was cut short is not."""
    finished = set()
    for line in path.read_bytes().splitlines():
        try:
            finished.add(tuple((start, stop) for start, stop in json.loads(line)))
        except (ValueError, TypeError):
            continue
    return finished
