"""An array on disk as Dask takes it: a task carries a path and no data, and reads its slice itself."""

from __future__ import annotations

import contextlib
import math
import os
import reprlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# NumPy has no array of more.
MOST_AXES = 64


class Source:
    """An array on disk that is opened anew for each slice.

    It has no ``copy`` method on purpose: Dask copies a ``numpy.memmap`` into memory, and hashes
    all of it for its name (dask #11850). Dask asks for slices of step 1 and for numbers, which
    every kind of file understands.
    """

    path: Path
    rows_at_once = 1

    def copies(self, rows: Sequence[int]) -> float:
        """Say how often a block is held as it is read, in blocks of so many rows: not at all as a view of a file."""
        return 1

    def describe(self, where: str, shape: tuple[int, ...], dtype: Any) -> None:
        """Keep what Dask asks for, if it is an array of rows of numbers."""
        if not isinstance(dtype, np.dtype) or dtype.hasobject or dtype.kind in "SUMm":
            raise ValueError(
                f"{where}: holds Python objects, strings or times (dtype {brief(dtype)}), which are not read here"
            )
        if dtype.subdtype is not None or dtype.itemsize == 0:  # more axes, or fewer bytes, than the shape asks for
            raise ValueError(
                f"{where}: its elements are arrays themselves or take no bytes, which are not read here (dtype "
                f"{brief(dtype)})"
            )
        if not shape:
            raise ValueError(f"{where}: holds a single number, not an array of rows")
        if too_large(shape, dtype):
            raise ValueError(f"{where}: has shape {reprlib.repr(tuple(shape))}, of which no machine holds an array")
        self.shape, self.dtype, self.ndim = tuple(map(int, shape)), dtype, len(shape)


def slice_range(at: Any, length: int) -> tuple[int, int]:
    """Return where a slice, or the slice of a number, starts and stops."""
    return at.indices(length)[:2] if isinstance(at, slice) else (at, at + 1)


@contextlib.contextmanager
def naming_damage(what: str) -> Iterator[None]:
    """Turn what a library raises over damage, which may be anything and names no file, into a ValueError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system refused, as with too many open files
            raise
        raise ValueError(f"{what} ({brief(error)}): write it anew") from None


def one_of(names: Any, form: str) -> str:
    """Write out the paths that could have been meant."""
    return " or ".join(form.format(name) for name in sorted(names)) or "another: it holds none"


def file_state(status: os.stat_result) -> tuple[int, int]:
    """Return by what a file is told from what it is after a change."""
    return status.st_size, status.st_mtime_ns


def check_unchanged(path: Path, state: tuple[int, int]) -> None:
    """Raise if a file is not in the state in which it was opened."""
    if file_state(os.stat(path)) != state:
        raise ValueError(f"{path}: was changed since it was opened: open it again")


def too_large(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether NumPy has no array of this shape; it looks at the other axes of an empty array too."""
    size = math.prod(max(1, int(length)) for length in shape) * np.dtype(dtype).itemsize
    return len(shape) > MOST_AXES or size > sys.maxsize


def brief(said: object) -> str:
    """Return what an error or dtype says, cut where it repeats a long header, or the name of an error that is mute."""
    text = str(said) or type(said).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
