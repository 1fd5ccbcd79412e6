"""A lazy array on its way to its place: what is the same for files and for object stores."""

from __future__ import annotations

import functools
import itertools
import reprlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn, Protocol

from .._arrays import namespace
from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from .._dask import blocks
from .._dask.inspect import changeable_source, leaves
from .source import Source
from .writer import Bounds


class Options(NamedTuple):
    """How messages write the options of store; the shell has other spellings."""

    resume: str = "resume=True"
    overwrite: str = "overwrite=True"


PYTHON = Options()


class BlockWriter(Protocol):
    """What a task needs of a writer."""

    @property
    def dtype(self) -> str:
        """The dtype of the blocks, as NumPy writes it."""
        ...

    def write(self, block: NumPyArray, start: tuple[int, ...]) -> None:
        """Write a block to its place; when this returns, the block is safe."""
        ...


class Result:
    """A lazy array on its way to its place.

    `inspect` looks and refuses; `prepare` makes or takes over what is unfinished, and `rollback` undoes that; `begin`
    removes what cannot stay until the end; the blocks are written; `commit` gives the complete result its name;
    `remove` deletes what was kept beside it.

    Parameters
    ----------
    where : str
        How messages name the place.
    array : dask array
        With blocks of known sizes.
    options : Options
        How messages write the options.
    """

    writer: BlockWriter
    # Called in a task when a block is written.
    record: Callable[[Bounds], None]

    def __init__(self, where: str, array: Array, options: Options = PYTHON) -> None:
        self.where, self.array, self.options = where, array, options
        self.fingerprint: dict[str, Any] = {
            "shape": list(map(int, array.shape)),
            "dtype": str(array.dtype),
            "chunks": [list(map(int, sizes)) for sizes in array.chunks],
            "name": array.name,
        }
        self.finished: set[Bounds] = set()
        self.committed = False

    def inspect(self, resume: bool, overwrite: bool) -> None:
        """Look at what is there, and raise where it must not be touched."""
        raise NotImplementedError

    def replaces(self, place: Any) -> bool:
        """Say whether what lies at a place would be lost: a path, or a `Place` in a store."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make what keeps the finished blocks, or take over what was found."""
        raise NotImplementedError

    def rollback(self) -> None:
        """Remove what `prepare` made, as long as no block was computed; what was found is kept."""
        raise NotImplementedError

    def begin(self) -> None:
        """Remove what cannot stay until the end, when all results are prepared."""

    def commit(self, overwrite: bool) -> None:
        """Give the complete result its name."""
        raise NotImplementedError

    def remove(self) -> None:
        """Remove what was kept beside a committed result."""
        raise NotImplementedError

    def close(self) -> None:
        """Unlock the place."""

    def lost(self) -> Exception | None:
        """Return an error if what the pass writes to is gone."""
        return None

    @functools.cached_property
    def changeable(self) -> str | None:
        """The source that may have changed without a change of its name, if there is one."""
        return changeable_source(self.array)

    def places(self) -> list[Bounds]:
        """Return where the blocks lie."""
        return list(itertools.product(*map(blocks.bounds, self.array.chunks)))

    @property
    def missing(self) -> list[int]:
        """The numbers of the blocks that are not finished."""
        return [number for number, place in enumerate(self.places()) if place not in self.finished]

    @property
    def advice(self) -> str:
        """What to do when the pass fails."""
        if self.changeable:
            return (
                f"The finished blocks are kept: but {self.changeable} may change without a change of its name, so they "
                f"can only be computed anew."
            )
        return f"The finished blocks are kept: pass {self.options.resume} to compute the others."

    def check_repeats(self, resume: bool) -> None:
        """Refuse to resume where a source may change and keep its name."""
        if resume and self.changeable:
            raise ValueError(
                f"{self.where}: {self.options.resume} could mix old and new rows: {self.changeable} may change and "
                f"keep its Dask name: open the data with fc.open_array, or leave {self.options.resume} out"
            )

    def check_read(self, places: Iterable[Any]) -> None:
        """Refuse to replace what the pass reads, if it lies at one of these places."""
        if any(map(self.replaces, places)):
            raise ValueError(
                f"{self.where}: is read to compute what would replace it, and would be lost: store to another place"
            )

    def is_kept(self, unfinished: object, name: str) -> FileExistsError:
        """Return the error of a pass that finds an unfinished result and is not told what to do with it."""
        return FileExistsError(
            f"{unfinished}: is an unfinished result of {name}: pass {self.options.resume} to "
            f"compute the missing blocks, or {self.options.overwrite} to start over"
        )

    def exists(self, nothing_to_resume: bool) -> FileExistsError:
        """Return the error of a target that is there already."""
        nothing = ", so there is nothing to resume" if nothing_to_resume else ""
        return FileExistsError(
            f"{self.where}: already exists and is complete{nothing}: leave it out of targets, or pass "
            f"{self.options.overwrite} to "
            f"replace it"
        )

    def appeared(self) -> FileExistsError:
        """Return the error of a target that another process made during the pass."""
        return FileExistsError(
            f"{self.where}: was created by another process during the pass: pass {self.options.resume} and "
            f"{self.options.overwrite} to replace it, or move it away and pass {self.options.resume}"
        )

    def damaged(self, unfinished: object, why: object = "") -> NoReturn:
        """Raise the error of an unfinished result that cannot be continued."""
        raise ValueError(f"{unfinished}: is damaged:{f' {why}:' if why else ''} {self._anew()}") from None

    def _anew(self) -> str:
        return f"pass {self.options.overwrite} and not {self.options.resume} to start over"

    def compare(self, before: list[Any], unfinished: object) -> None:
        """Refuse an unfinished result of another array: compare the values of the fingerprint."""
        for (key, now), then in zip(self.fingerprint.items(), before, strict=True):
            if then == now:
                continue
            what = f"{key} {reprlib.repr(then)} before, {reprlib.repr(now)} now"
            if key == "name":
                what = "its inputs or parameters have changed, or one of them gets a new Dask name in each run"
            raise ValueError(f"{unfinished}: is an unfinished result of another array: {what}: {self._anew()}")


def places_read(array: Array) -> Iterator[Any]:
    """Yield the paths, and the places in stores, that are read to compute an array."""
    for leaf in leaves(array):
        if isinstance(leaf, Source):
            yield from leaf.places()
        elif hasattr(leaf, "store_path"):  # a zarr.Array, which Dask took as it is
            from .object_store import place_in

            yield place_in(leaf.store, leaf.path)


def write_block(block: Array, place: Bounds, writer: BlockWriter, record: Callable[[Bounds], None], where: str) -> None:
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
        if error.errno is None:  # not of the system, so it says what to do
            raise
        raise OSError(error.errno, error.strerror or str(error), where) from error
    record(place)
