"""Arrays on disk, opened lazily: a task carries a path and no data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from . import alignment, chunked
from .namespace import Array
from .npy import read_npy_header

_NumPy = np.ndarray[Any, Any]

BLOCK_BYTES = 128 * 2**20

# What ends the name of a folder in which `store` keeps an unfinished result.
UNFINISHED = ".fc_arrayapi.part"


def open_array(path: str | os.PathLike[str], rows: int | None = None) -> Array:
    """Open an array on disk as a lazy Dask array in blocks along the batch.

    Only shape and dtype are read now. Each block is read by the task that needs it, which
    opens the file anew, so that a task can travel to another process.

    Parameters
    ----------
    path : path
        One of

        - a ``.npy`` file, read straight from the operating system's file cache;
        - a Zarr array of format 2 or 3, ``"x.zarr"``, or one in a group, ``"data.zarr/x"``
          (needs the extra ``zarr``);
        - an HDF5 dataset, ``"data.h5::x"`` (needs the extra ``hdf5``);
        - a folder of ``.npy`` files, which follow each other along the batch in the order of
          their names: ``part-02.npy`` comes before ``part-10.npy``, ``part-2.npy`` after it.
    rows : int, optional
        Rows in a block; by default as many as make 128 MiB. Rounded down to whole chunks of
        a Zarr array (whole shards, if it has any) or HDF5 dataset, but at least one, so that
        each chunk is read once.

    Returns
    -------
    dask array, shape (N, ...)
        One block along every axis but the first. Its name changes with the file.

    Raises
    ------
    ValueError
        For another kind of file, a group where an array is meant, Python objects, a file
        shorter than its header says, files in a folder that do not fit together, or an HDF5
        file that has no such dataset.
    FileNotFoundError
        If there is no such file or folder.
    ImportError
        If the library that reads the file is not installed.

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
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 1):
        raise ValueError(f"rows is {rows!r}: a block has a whole number of rows, at least one")
    source = _open(os.fspath(path))
    if rows is None:
        row_bytes = source.dtype.itemsize * int(np.prod(source.shape[1:]))
        rows = BLOCK_BYTES // max(1, row_bytes)
    return chunked.from_source(source, max(1, int(rows) // source.rows_at_once) * source.rows_at_once)


def _open(path: str) -> _Source:
    """Find out what kind of array lies at a path."""
    file, _, dataset = path.partition("::")
    if not os.path.exists(file):
        raise FileNotFoundError(f"{path}: there is no file or folder {file}")
    where = Path(file).resolve()
    if any(part.endswith(UNFINISHED) for part in where.parts):
        raise ValueError(f"{path}: is unfinished: finish it with store(..., resume=True)")
    if dataset or where.suffix in (".h5", ".hdf5"):
        return _Hdf5Dataset(where, dataset)
    if where.is_dir():
        if where.suffix == ".zarr" or _has_zarr_metadata(where):
            return _ZarrArray(where)
        return _NpyFolder(where)
    if where.suffix == ".npy":
        return _NpyFile(where)
    raise ValueError(
        f"{path}: open_array reads .npy files and folders of them, Zarr arrays, and HDF5 datasets such as "
        f"'data.h5::x'; open others with Dask, for example with dask.array.from_array"
    )


class _Source:
    """An array on disk that is opened anew for each slice.

    It has no ``copy`` method on purpose: Dask copies a ``numpy.memmap`` into memory, and hashes
    all of it for its name (dask #11850). Dask asks for slices of step 1 and for numbers, which
    every kind of file understands.
    """

    path: Path
    rows_at_once = 1

    def _describe(self, where: str, shape: tuple[int, ...], dtype: Any) -> None:
        """Keep what Dask asks for, if it is an array of rows of numbers."""
        if not isinstance(dtype, np.dtype) or dtype.hasobject:
            raise ValueError(f"{where}: holds Python objects or strings (dtype {dtype}), which are not read here")
        if not shape:
            raise ValueError(f"{where}: holds a single number, not an array of rows")
        self.shape, self.dtype, self.ndim = tuple(map(int, shape)), dtype, len(shape)


class _NpyFile(_Source):
    """A ``.npy`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            shape, _, dtype = read_npy_header(file, str(path), os.fstat(file.fileno()).st_size)
            self._state = _state(os.fstat(file.fileno()))
        self._describe(str(path), shape, dtype)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), *self._state)

    def __getitem__(self, index: Any) -> _NumPy:
        _check_unchanged(self.path, self._state)
        return np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False)[index])


class _NpyFolder(_Source):
    """A folder of ``.npy`` files that follow each other along the batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        for name in names:
            if name.endswith(UNFINISHED):
                raise ValueError(f"{path / name}: is unfinished: finish it with store(..., resume=True), or remove it")
        self.parts = [_NpyFile(path / name) for name in names if name.endswith(".npy")]
        if not self.parts:
            raise ValueError(f"{path}: this folder is no Zarr array and has no .npy files")
        first = self.parts[0]
        for part in self.parts:
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise ValueError(
                    f"{part.path}: has rows of shape {part.shape[1:]} and dtype {part.dtype}, {first.path.name} before "
                    f"it has {first.shape[1:]} and {first.dtype}: all parts must agree"
                )
        self.places = alignment.bounds([part.shape[0] for part in self.parts])
        self._describe(str(path), (self.places[-1][1], *first.shape[1:]), first.dtype)

    def __dask_tokenize__(self) -> list[Any]:
        return [part.__dask_tokenize__() for part in self.parts]

    def __getitem__(self, index: Any) -> _NumPy:
        rows, *rest = index
        if not isinstance(rows, slice):
            return np.asarray(self[(slice(rows, rows + 1), *rest)][0])
        start, stop, _ = rows.indices(self.shape[0])
        pieces = [
            part[(slice(max(start - first, 0), stop - first), *rest)]
            for part, (first, last) in zip(self.parts, self.places, strict=True)
            if first < stop and start < last
        ]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else self.parts[0][(slice(0, 0), *rest)]


_ZARR_METADATA = ("zarr.json", ".zarray", ".zgroup")


def _has_zarr_metadata(path: Path) -> bool:
    return any((path / name).exists() for name in _ZARR_METADATA)


class _ZarrArray(_Source):
    """A Zarr array of format 2 or 3 in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        zarr = zarr_module()
        try:
            array = zarr.open(path, mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(f"{path}: holds no Zarr array ({error})") from None
        if isinstance(array, zarr.Group):
            # Not `array.array_keys()`, which warns of folders that are no part of the group.
            names = [inner.name for inner in path.iterdir() if _has_zarr_metadata(inner)]
            raise ValueError(f"{path}: is a group of arrays: open {_one_of(names, f'{path}/{{}}')}")
        self._describe(str(path), array.shape, array.dtype)
        self.rows_at_once = int((array.shards or array.chunks)[0])
        (self._metadata,) = (path / name for name in _ZARR_METADATA if (path / name).exists())
        self._state = _state(os.stat(self._metadata))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # Of every file, since a chunk that is written anew leaves the metadata as they are.
        states = [
            _state(os.stat(os.path.join(folder, name))) for folder, _, names in os.walk(self.path) for name in names
        ]
        return (str(self.path), len(states), sum(size for size, _ in states), max(time for _, time in states))

    def __getitem__(self, index: Any) -> _NumPy:
        _check_unchanged(self._metadata, self._state)
        return np.asarray(zarr_module().open_array(self.path, mode="r")[index])


class _Hdf5Dataset(_Source):
    """A dataset in an HDF5 file."""

    def __init__(self, path: Path, dataset: str) -> None:
        self.path, self.dataset = path, dataset
        h5py = _h5py()
        with _open_hdf5(h5py, path) as file:
            names: list[str] = []
            file.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
            wanted = _one_of(names, f"{path}::{{}}")
            if not dataset:
                raise ValueError(f"{path}: name the dataset: open {wanted}")
            if dataset not in file:
                raise ValueError(f"{path}: has no dataset {dataset}: open {wanted}")
            found = file[dataset]
            if not isinstance(found, h5py.Dataset):
                raise ValueError(f"{path}::{dataset}: is a group of datasets: open {wanted}")
            if found.shape is None:
                raise ValueError(f"{path}::{dataset}: is empty, with no shape")
            self._describe(f"{path}::{dataset}", found.shape, found.dtype)
            self.rows_at_once = int(found.chunks[0]) if found.chunks else 1
        self._state = _state(os.stat(path))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), self.dataset, *self._state)

    def __getitem__(self, index: Any) -> _NumPy:
        _check_unchanged(self.path, self._state)
        with _open_hdf5(_h5py(), self.path) as file:
            return np.asarray(file[self.dataset][index])


def _open_hdf5(h5py: Any, path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: is no HDF5 file that can be read ({error})") from None


def _one_of(names: Any, form: str) -> str:
    """Write out the paths that could have been meant."""
    return " or ".join(form.format(name) for name in sorted(names)) or "another: it holds none"


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _check_unchanged(path: Path, state: tuple[int, int]) -> None:
    if _state(os.stat(path)) != state:
        raise ValueError(f"{path}: was changed since it was opened: open it again")


def zarr_module() -> Any:
    """Return zarr, which is imported only when it is used."""
    try:
        import zarr
    except ImportError:
        raise ImportError("a .zarr array needs zarr: pip install 'fc_arrayapi[zarr]'") from None
    return zarr


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError("an HDF5 dataset needs h5py: pip install 'fc_arrayapi[hdf5]'") from None
    return h5py
