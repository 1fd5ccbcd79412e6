"""What Dask needs of an array on disk: a task carries a path and no data, and reads its slice itself."""

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

from .._arrays.libraries import NumPyArray

# The most that NumPy supports.
MOST_AXES = 64


class Source:
    """An array on disk that is opened for each slice.

    It has no ``copy`` method on purpose: Dask copies a ``numpy.memmap`` into memory and hashes
    all of it for its name (dask #11850). Dask takes slices with step 1 and single rows, which
    every format supports.
    """

    path: Any  # a Path, or the Address of an object store
    rows_at_once = 1
    # Whether Dask's name changes whenever the data do: resuming relies on it.
    repeats = True
    # The most bytes of a block by default; None for those of open_array.
    block_bytes: int | None = None

    def __dask_tokenize__(self) -> Any:
        """Return what identifies this version of the file, for Dask's name."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> NumPyArray:
        """Read a slice."""
        raise NotImplementedError

    def copies(self, rows: Sequence[int]) -> float:
        """Return how many times the size of a block reading it allocates, for blocks of these rows; 0 for a view."""
        return 1

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
            name = {1: "float8_e4m3fn", 2: "bfloat16"}.get(dtype.itemsize)
            how = f": read it as x = array.view(ml_dtypes.{name}) and save x.astype('float32') instead" if name else ""
            raise ValueError(
                f"{where}: contains bytes without a dtype ({brief(dtype)}), as NumPy saves bfloat16 and other dtypes "
                f"that are not its own{how}"
            )
        if not shape:
            raise ValueError(f"{where}: contains a single number, not an array of rows")
        if too_large(shape, dtype):
            raise ValueError(f"{where}: has shape {reprlib.repr(tuple(shape))}, which exceeds the limits of NumPy")
        self.shape, self.dtype, self.ndim = tuple(map(int, shape)), dtype, len(shape)


def slice_range(at: Any, length: int) -> tuple[int, int]:
    """Return the start and stop of a slice or a single row."""
    return at.indices(length)[:2] if isinstance(at, slice) else (at, at + 1)


@contextlib.contextmanager
def naming_damage(what: str) -> Iterator[None]:
    """Convert any exception that a library raises for damaged data into a ValueError that names the file."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the system, such as too many open files
            raise
        raise ValueError(f"{what} ({brief(error)}): write the file again") from None


def one_of(names: Any, form: str) -> str:
    """Write out the paths that could have been meant."""
    return " or ".join(form.format(name) for name in sorted(names)) or "another file: this one has none"


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
