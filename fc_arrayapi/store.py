"""Lazy arrays written to files in one pass, which can be taken up again where it was broken off.

Beside a target ``y.npy`` lies, until it is whole, the folder ``y.npy.fc_arrayapi.part``. It has
one folder under a random name, with

- ``data``: the file or Zarr array that is being written;
- ``fingerprint.json``: which array that is, by Dask's name for it, its shape, dtype and chunks;
- ``finished``: a line for each block that is on the disk, with its place in the array;
- ``state``: by what ``data`` is known when it has its name, written just before it gets it.

Beside that one lies for a moment ``old``: the Zarr array that the new one replaces, until that has
its name. If the pass is killed in that moment, the next call puts it back.

The random name is a new one in each pass. Blocks that are still under way when a pass is broken
off find theirs gone, and touch nothing of the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import reprlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import alignment, blas, chunked, namespace, running
from .disk import UNFINISHED, atomic_write, flush
from .namespace import Array
from .targets import Bounds, NpyTarget, ZarrTarget

TARGETS: dict[str, type[NpyTarget] | type[ZarrTarget]] = {".npy": NpyTarget, ".zarr": ZarrTarget}


def store(
    targets: Mapping[Any, Array],
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write lazy arrays to files, all in one pass over the data, block by block.

    A file appears under its name when it is whole. Until then the finished blocks are kept
    beside it, whatever ends the pass: an exception, Ctrl-C, a full disk, a killed process, a
    power cut. `resume` goes on from there.

    Parameters
    ----------
    targets : mapping of paths to dask arrays
        For example ``{"y.zarr": Y, "dx.npy": grads.dX, "dw.npy": grads.dW}``. A name ends in

        - ``.npy``: blocks are written straight to their places;
        - ``.zarr``: a Zarr array of format 3, one chunk for each block, or several where
          blocks differ in size (needs the extra ``zarr``). It is not compressed: that would
          take longer than writing, and numbers such as these hardly shrink.
    resume : bool
        Take up an unfinished result and compute the blocks that it lacks. Where there is none,
        begin. The arrays must be the same: built from unchanged files and equal weights.
    overwrite : bool
        Replace a file that is there already, at the end, when the new one is whole. Without
        `resume`, begin anew where there is an unfinished result.
    progress : bool
        Show the progress, as `compute` does.

    Raises
    ------
    FileExistsError
        If a target is there already, or an unfinished result of it; with `overwrite` too if a
        file lies where a folder is written, or a folder where a file is.
    FileNotFoundError
        If a target's folder is not there.
    PermissionError
        If a target's folder takes no files.
    ValueError
        For another kind of file, two targets at one path, blocks of unknown size, or, with
        `resume`, an unfinished result that is damaged or of another array.
    TypeError
        For a target that is no path, and an array that is not lazy or not of numbers.
    ImportError
        If the library that writes a target is not installed.

    All of these are raised before anything is computed or written.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> import fc_arrayapi as fc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/x.npy", np.ones((10, 4)))
    ...     X, W = fc.open_array(folder + "/x.npy", rows=4), np.ones((4, 3))
    ...     Y = fc.forward(X, W)
    ...     fc.store({folder + "/y.npy": Y, folder + "/dw.npy": fc.grad_weight(X, Y)})
    ...     np.load(folder + "/y.npy").shape, np.load(folder + "/dw.npy").shape
    ((10, 3), (4, 3))
    """
    results = _check_targets(targets)
    blas.threadpoolctl()
    for result in results:
        result.look(resume, overwrite)
    begun: list[_Result] = []
    try:
        for result in results:
            begun.append(result)
            result.begin()
    except BaseException as error:
        for result in begun:
            result.forget()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(begun[-1].path)) from error
        raise
    unfinished = [result for result in results if result.missing]
    blocks = [
        chunked.each_block(_write_block, result.array, target=result.target, where=str(result.path))
        for result in unfinished
    ]
    try:
        if any(result.finished for result in results):
            running.compute(chunked.only_blocks(blocks, [result.missing for result in unfinished]), progress=progress)
        else:
            running.compute(*blocks, progress=progress)
    except BaseException as error:
        error.add_note("The finished blocks are kept: call store with resume=True to compute the others.")
        raise
    for result in results:
        result.put_in_place(overwrite)
    for result in results:  # only now: each is needed to tell that its target is in place, if this is broken off
        _remove(result)


class _Result:
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
        return list(itertools.product(*map(alignment.bounds, self.array.chunks)))

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

    def _record_state(self) -> None:
        """Note by what the result is known, so that it is told from whatever else comes to lie under its name."""
        known_by = self.target.state()
        try:
            with atomic_write(self.work / "state") as file:
                file.write(known_by)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def _remove(result: _Result) -> None:
    """Remove the folder of a result that has its name; without the fingerprint, what a kill leaves of it is rubbish."""
    (result.work / "fingerprint.json").unlink()
    shutil.rmtree(result.folder)


def _check_kind(path: Path, is_folder: bool) -> None:
    """Refuse a file where a folder is written, and a folder where a file is: it is more than an older result."""
    if os.path.lexists(path) and path.is_dir() != is_folder:
        there, written = ("no folder", "one") if is_folder else ("a folder", "a file")
        raise FileExistsError(f"{path}: is {there}, and store writes {written} there: move it away")


def _check_targets(targets: Mapping[Any, Array]) -> list[_Result]:
    if not isinstance(targets, Mapping):
        raise TypeError(
            f"targets is of type {type(targets).__name__}: it maps paths to lazy arrays, for example {{'y.zarr': Y}}"
        )
    results: dict[Path, _Result] = {}
    for name, array in targets.items():
        if not isinstance(name, (str, bytes, os.PathLike)):
            raise TypeError(
                f"a target is of type {type(name).__name__}, not a path: what another process writes to an array in "
                f"memory is lost"
            )
        name = os.fsdecode(name)
        path = Path(os.path.realpath(name))  # a link stays one
        _check_array(name, array)
        if path.suffix not in TARGETS:
            raise ValueError(f"{name}: store writes {' and '.join(TARGETS)}")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{name}: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(f"{name}: files can not be written to the folder {path.parent}: it is not permitted")
        if path in results:
            raise ValueError(f"{name}: is the target of two arrays")
        results[path] = _Result(path, array)
    return list(results.values())


def _check_array(name: Any, array: Any) -> None:
    if array is None:
        raise TypeError(f"{name}: the array is None: a gradient is there if backward was called with it in needs")
    if not alignment.is_chunked(array):
        raise TypeError(f"{name}: the array is of type {type(array).__name__}, not lazy: write it with numpy.save")
    for axis, sizes in enumerate(array.chunks):
        if any(size != size for size in sizes):
            raise ValueError(
                f"{name}: axis {axis} has blocks of unknown size: call compute_chunk_sizes() on the array first"
            )
    if array.dtype.kind not in "biufc" or array.dtype.char in "gG":
        raise TypeError(
            f"{name}: the array has dtype {array.dtype}; files hold numbers that every machine knows: convert it "
            f"first, for example to float32"
        )


def _write_block(block: Array, place: Bounds, target: NpyTarget | ZarrTarget, where: str) -> None:
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
