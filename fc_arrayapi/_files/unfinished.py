"""A result on its way to a file, in a folder of its own until it is complete."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import reprlib
import shutil
from pathlib import Path

from .._arrays import namespace
from .._arrays.namespace import Array
from .._dask import blocks
from .disk import UNFINISHED, atomic_write, flush
from .npy import NpyTarget
from .source import Bounds
from .zarr import ZarrTarget

TARGETS: dict[str, type[NpyTarget] | type[ZarrTarget]] = {".npy": NpyTarget, ".zarr": ZarrTarget}


class Result:
    """An array on its way to a target."""

    def __init__(self, path: Path, array: Array) -> None:
        self.path = path
        self.folder = path.with_name(path.name + UNFINISHED)
        self.old = self.folder / "old"
        self.fingerprint = {
            "shape": list(map(int, array.shape)),
            "dtype": str(array.dtype),
            "chunks": [list(map(int, sizes)) for sizes in array.chunks],
            "name": array.name,
        }
        kind = TARGETS[path.suffix]
        self.array = kind.fit(array)
        self.found: Path | None = None
        self.finished: set[Bounds] = set()
        self.in_place = False
        self.work = self.folder / os.urandom(8).hex()
        self.target = kind.of(str(self.work / "data"), self.array)

    def look(self, resume: bool, overwrite: bool) -> None:
        """See what is there, and refuse what must not be touched."""
        _check_kind(self.folder, is_folder=True)
        if self.folder.exists():
            if not (resume or overwrite):
                raise FileExistsError(
                    f"{self.folder}: is an unfinished result of {self.path.name}: pass resume=True to compute what it "
                    f"lacks, or overwrite=True to begin anew"
                )
            if self.old.exists() and not os.path.lexists(self.path):  # a pass was killed between two renames
                os.rename(self.old, self.path)
            if resume:
                self._take_up()
        _check_kind(self.path, self.target.is_folder)
        if os.path.lexists(self.path) and not (overwrite or self.in_place):
            nothing = ", so nothing of it is left to resume" if resume and not self.folder.exists() else ""
            raise FileExistsError(
                f"{self.path}: is there already, and whole{nothing}: leave it out, or pass overwrite=True to replace it"
            )

    def _take_up(self) -> None:
        """Read what an unfinished result has, and compare it with the array."""
        self.found = next((path.parent for path in self.folder.glob("*/fingerprint.json")), None)
        if self.found is None:
            if os.path.lexists(self.path):  # what a pass that was killed at its very end had still to remove
                shutil.rmtree(self.folder)
            return
        try:
            recorded = json.loads((self.found / "fingerprint.json").read_text())
            before = [recorded[key] for key in self.fingerprint]
            finished = _read_finished(self.found / "finished")
        except (ValueError, KeyError, TypeError, FileNotFoundError, IsADirectoryError):
            raise ValueError(
                f"{self.folder}: is damaged: pass overwrite=True and not resume=True to begin anew"
            ) from None
        for (key, now), then in zip(self.fingerprint.items(), before, strict=True):
            if then == now:
                continue
            what = f"{key} {reprlib.repr(then)} before, {reprlib.repr(now)} now"
            if key == "name":
                what = "its inputs or parameters have changed, or one of them has another name in each run"
            raise ValueError(
                f"{self.folder}: is an unfinished result of another array: {what}: pass overwrite=True and not "
                f"resume=True to begin anew"
            )
        self.finished = finished & set(self._places())
        self.in_place = not self.missing and self._has_its_name(self.found)
        if not self.in_place:
            data = dataclasses.replace(self.target, path=str(self.found / "data"))
            self.finished = data.still_there(self.finished)
            if not self.finished:  # nothing is lost by beginning anew, and nobody knows what else was removed
                self.found = None

    def _has_its_name(self, work: Path) -> bool:
        """Whether what lies at the path is what was written here, and neither older nor another's."""
        try:
            return (work / "state").read_bytes() == dataclasses.replace(self.target, path=str(self.path)).state()
        except OSError:  # one of them is not there
            return False

    def _places(self) -> list[Bounds]:
        return list(itertools.product(*map(blocks.bounds, self.array.chunks)))

    @property
    def missing(self) -> list[int]:
        """The numbers of the blocks that are not finished."""
        return [number for number, place in enumerate(self._places()) if place not in self.finished]

    def begin(self) -> None:
        """Make the unfinished result, or take over the one that was found."""
        if self.found is not None:
            os.rename(self.found, self.work)
            return
        if self.folder.exists():
            for work in self.folder.iterdir():  # under another name no block that is still under way adds to it
                os.rename(work, work.with_name(os.urandom(8).hex()))
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.work.mkdir()
        self.target.create()
        (self.work / "finished").touch()
        with atomic_write(self.work / "fingerprint.json") as file:
            file.write(json.dumps(self.fingerprint).encode())

    def forget(self) -> None:
        """Remove what `begin` made, since nothing was computed; what was found is kept."""
        if self.found is None:
            shutil.rmtree(self.work, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: an older file may lie in it
                self.folder.rmdir()

    def put_in_place(self, overwrite: bool) -> None:
        """Give the whole result its name."""
        if self.in_place:
            return
        if os.path.lexists(self.path) and not overwrite:
            raise FileExistsError(
                f"{self.path}: was made by another while this was computed: call store with resume=True and "
                f"overwrite=True to replace it, or move it away and pass resume=True"
            )
        _check_kind(self.path, self.target.is_folder)
        flush(self.work / "finished")
        self._record_state()
        if self.path.is_dir():  # a folder is not replaced in one step, so it is kept until the new one has its name
            if self.old.exists():
                shutil.rmtree(self.old)
            os.rename(self.path, self.old)
        os.replace(self.target.path, self.path)
        flush(self.path.parent)

    def remove(self) -> None:
        """Remove the folder of a result that has its name; without the fingerprint, what a kill leaves is rubbish."""
        (self.work / "fingerprint.json").unlink()
        shutil.rmtree(self.folder)

    def _record_state(self) -> None:
        """Note by what the result is known, so that it is told from whatever else comes to lie under its name."""
        known_by = self.target.state()
        try:
            with atomic_write(self.work / "state") as file:
                file.write(known_by)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def _check_kind(path: Path, is_folder: bool) -> None:
    """Refuse a file where a folder is written, and a folder where a file is: it is more than an older result."""
    if os.path.lexists(path) and path.is_dir() != is_folder:
        there, written = ("no folder", "one") if is_folder else ("a folder", "a file")
        raise FileExistsError(f"{path}: is {there}, and store writes {written} there: move it away")


def write_block(block: Array, place: Bounds, target: NpyTarget | ZarrTarget, where: str) -> None:
    """Write one block, and only then say that it is finished."""
    shape, dtype = tuple(stop - start for start, stop in place), target.dtype
    data = namespace.to_numpy(block)
    if data.shape != shape or data.dtype != dtype:
        raise ValueError(
            f"{where}: the block at {place} has shape {data.shape} and dtype {data.dtype}, the lazy array says "
            f"{shape} and {dtype}"
        )
    try:
        if data.size:
            target.write(data, tuple(start for start, _ in place))
    except OSError as error:
        raise OSError(error.errno, error.strerror, where) from error
    # A line begins and ends with what no other has, so that one that was cut short is known and harms none after it.
    # Appending so few bytes is one step: two threads or processes don't mix theirs.
    with open(Path(target.path).with_name("finished"), "ab", buffering=0) as file:
        file.write(b"\n" + json.dumps(place).encode())


def _read_finished(path: Path) -> set[Bounds]:
    """Read which blocks are finished; a line that was cut short is of one that is not."""
    finished = set()
    for line in path.read_bytes().splitlines():
        try:
            finished.add(tuple((start, stop) for start, stop in json.loads(line)))
        except (ValueError, TypeError):
            continue
    return finished
