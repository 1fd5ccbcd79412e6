"""Arrays on disk, opened lazily: a task carries a path and no data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from . import chunked
from .namespace import Array
from .npy import read_npy_header

_NumPy = np.ndarray[Any, Any]

BLOCK_BYTES = 128 * 2**20


def open_array(path: str | os.PathLike[str], rows: int | None = None) -> Array:
    """Open an array on disk as a lazy Dask array in blocks along the batch.

    Parameters
    ----------
    path : path
        A ``.npy`` file. Only its header is read now; each block is read by the task that
        needs it, straight from the operating system's file cache.
    rows : int, optional
        Rows in a block; by default as many as make 128 MiB.

    Returns
    -------
    dask array, shape (N, ...)

    Raises
    ------
    ValueError
        For another kind of file, Python objects in it, or a file shorter than its header says.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> import fc_arrayapi as fc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/x.npy", np.ones((10, 4), dtype="float32"))
    ...     X = fc.open_array(folder + "/x.npy", rows=4)
    ...     X.chunks, float(X.sum())
    (((4, 4, 2), (4,)), 40.0)
    """
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(
            f"{path}: open_array reads .npy files; open others with Dask, for example dask.array.from_zarr"
        )
    source = _NpyFile(path)
    if rows is None:
        row_bytes = source.dtype.itemsize * int(np.prod(source.shape[1:]))
        rows = max(1, BLOCK_BYTES // max(1, row_bytes))
    elif isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 1:
        raise ValueError(f"rows is {rows!r}: a block has a whole number of rows, at least one")
    return chunked.from_source(source, rows)


class _NpyFile:
    """A ``.npy`` file that opens anew for each slice, so that a task carries a path and no data.

    It has no ``copy`` method on purpose: Dask copies a ``numpy.memmap`` into memory, and hashes
    all of it for its name (dask #11850).
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        with open(path, "rb") as file:
            self.shape, _, self.dtype = read_npy_header(file, str(path), os.fstat(file.fileno()).st_size)
            self._state = _state(os.fstat(file.fileno()))
        if not self.shape:
            raise ValueError(f"{path}: holds a single number, not an array of rows")
        self.ndim = len(self.shape)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), *self._state)

    def __getitem__(self, index: Any) -> _NumPy:
        if _state(os.stat(self.path)) != self._state:
            raise ValueError(f"{self.path}: was changed since it was opened: open it again")
        return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False)[index])


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
