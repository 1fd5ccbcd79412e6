"""What Dask needs of an array on disk: a task carries a path and no data, and reads its slice itself."""

from __future__ import annotations

import collections
import contextlib
import math
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .._dask.blocks import bounds

# The most that NumPy supports.
MOST_AXES = 64

# Names that a message lists.
MOST_NAMES = 20


class Source:
    """An array on disk that is opened for each slice.

    It has no ``copy`` method on purpose: Dask copies a ``numpy.memmap`` into memory and hashes
    all of it for its name (dask #11850). Dask takes slices with step 1 and single rows, which
    every format supports.

    Attributes
    ----------
    path : Path or Address
        The file or the folder, or the place in an object store.
    rows_at_once : int
        Rows that can only be read together: those of a chunk, or of the largest one.
    in_groups : bool
        Its rows lie in groups of any sizes, such as row groups, and blocks end where groups do.
    in_smaller_chunks : str
        How a user writes the file anew, in chunks of fewer rows.
    bfloat16 : bool
        Its elements are the bits of bfloat16 numbers, as integers.
    repeats : bool
        Whether Dask's name changes whenever the data do: resuming relies on it.
    block_bytes : int, optional
        The most bytes of a block by default; None for those of open_array.
    own_threads : bool
        It is read by threads of its own, which keep memory beside that of a pass's threads.
    """

    path: Any
    rows_at_once = 1
    in_groups = False
    in_smaller_chunks = "write the file anew in smaller chunks"
    bfloat16 = False
    repeats = True
    block_bytes: int | None = None
    own_threads = False

    def __dask_tokenize__(self) -> Any:
        """Return what identifies this version of the file, for Dask's name."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> NumPyArray:
        """Read a slice."""
        raise NotImplementedError

    def copies(self, rows: Sequence[int], start: int = 0) -> float:
        """Return how many times the size of a block reading it allocates; 0 for a view.

        The blocks have these rows, and the first one begins at `start`.
        """
        return 1

    def places(self) -> list[Any]:
        """Return the files, folders and places in object stores that are read."""
        return [self.path]

    def blocks(self, rows: int) -> tuple[int, ...]:
        """Return the rows of each block, for blocks of at most `rows`, but of whole chunks."""
        N, rows = self.shape[0], max(1, rows // self.rows_at_once) * self.rows_at_once
        return (rows,) * (N // rows) + ((N % rows,) if N % rows or not N else ())

    def describe(self, where: str, shape: tuple[int, ...], dtype: Any) -> None:
        """Set shape, dtype and ndim, if this is an array of rows of numbers."""
        if not isinstance(dtype, np.dtype) or dtype.hasobject or dtype.kind in "SUMm":
            raise ValueError(
                f"{where}: contains Python objects, strings or times (dtype {brief(dtype)}), which open_array "
                f"does not read"
            )
        if dtype.subdtype is not None or dtype.itemsize == 0:  # the shape would be wrong
            raise ValueError(
                f"{where}: its elements are arrays or have no size, which open_array does not read (dtype "
                f"{brief(dtype)})"
            )
        if dtype.kind == "V" and dtype.names is None:
            how = {
                1: ": read it as x = array.view(ml_dtypes.float8_e4m3fn) and save x.astype('float32') instead",
                2: ": if it is bfloat16, pass dtype='float32', which holds each of its numbers",
            }.get(dtype.itemsize, "")
            raise ValueError(
                f"{where}: contains bytes without a dtype ({brief(dtype)}), as NumPy saves bfloat16 and other dtypes "
                f"that are not its own{how}"
            )
        if not shape:
            raise ValueError(f"{where}: contains a single number, not an array of rows")
        if too_large(shape, dtype):
            raise ValueError(f"{where}: has shape {reprlib.repr(tuple(shape))}, which exceeds the limits of NumPy")
        self.shape, self.dtype, self.ndim = tuple(map(int, shape)), dtype, len(shape)


def cross(borders: Iterable[int], rows: Sequence[int], start: int) -> bool:
    """Say whether any block of these rows, the first one at `start`, goes on behind a border."""
    places = [(start + first, start + last) for first, last in bounds(rows)]
    return any(first < border < last for border in borders for first, last in places)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Say whether elements may be bfloat16: two bytes without a dtype of NumPy's."""
    return dtype.kind == "V" and dtype.names is None and dtype.subdtype is None and dtype.itemsize == 2


def grouped(units: Sequence[int], rows: int) -> tuple[int, ...]:
    """Join neighbours, such as row groups, to blocks of at most `rows`; a larger one is a block by itself."""
    blocks: list[int] = []
    for unit in filter(None, units):
        if blocks and blocks[-1] + unit <= rows:
            blocks[-1] += unit
        else:
            blocks.append(unit)
    return tuple(blocks) or (0,)


def slice_range(at: Any, length: int) -> tuple[int, int]:
    """Return the start and stop of a slice or a single row."""
    return at.indices(length)[:2] if isinstance(at, slice) else (at, at + 1)


@contextlib.contextmanager
def naming_damage(where: str, damage: str) -> Iterator[None]:
    """Convert any exception that a library raises for damaged data into a ValueError that names the file.

    Memory that runs out is no damage, and stays a MemoryError.
    """
    try:
        yield
    except MemoryError as error:
        error.add_note(f"{where}: memory ran out while this was read: open it with fewer rows in a block")
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the system, such as too many open files
            raise
        raise ValueError(f"{where}{damage} ({brief(error)}): write the file again") from None


def one_of(names: Iterable[str], form: str) -> str:
    """Write out the paths that could have been meant, at most 20. A mapping has what each of them holds."""
    holds = names if isinstance(names, Mapping) else {}
    known = sorted(names)
    shown = [form.format(brief(name)) + (f" ({holds[name]})" if name in holds else "") for name in known[:MOST_NAMES]]
    more = f", or one of {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return " or ".join(shown) + more or "another file: this one has none"


def check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse a file that has two arrays of one name."""
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ValueError(
                f"{path}: has the entry {reprlib.repr(name)} {count} times, and readers differ in which one they use: "
                f"write each once"
            )


def holding(shape: Sequence[int], dtype: Any) -> str:
    """Write what an array holds: its shape and its dtype."""
    return f"{reprlib.repr(tuple(shape))}, {brief(dtype)}"


def file_state(status: os.stat_result) -> tuple[int, int]:
    """Return size and mtime, which identify this version of the file."""
    return status.st_size, status.st_mtime_ns


def check_unchanged(path: Path, state: tuple[int, int]) -> None:
    """Raise if a file has changed since it was opened."""
    if file_state(os.stat(path)) != state:
        raise ValueError(f"{path}: has changed since it was opened: open it again")


def too_large(shape: tuple[int, ...], dtype: Any) -> bool:
    """Say whether the shape exceeds the limits of NumPy, which also count the other axes of an empty array."""
    size = math.prod(max(1, int(length)) for length in shape) * np.dtype(dtype).itemsize
    return len(shape) > MOST_AXES or size > sys.maxsize


def brief(said: object) -> str:
    """Return the text of an error or dtype, at most 200 characters; the type of an error without text."""
    text = str(said) or type(said).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
