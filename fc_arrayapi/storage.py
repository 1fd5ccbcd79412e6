"""Arrays on disk, opened lazily: a task carries a path and no data."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import reprlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import alignment, chunked
from .disk import AnyPath
from .namespace import Array, NumPyArray
from .npy import brief, read_npy_header, too_large

BLOCK_BYTES = 128 * 2**20

# What ends the name of a folder in which `store` keeps an unfinished result.
UNFINISHED = ".fc_arrayapi.part"

# The attribute of a Zarr array all of whose chunks `store` has written, so that one that is not there was lost.
WHOLE = {"fc_arrayapi": "every chunk is written"}

# Dask keeps some bytes for each block from the moment that the array is made.
MOST_BLOCKS = 10**7


def open_array(path: AnyPath, rows: int | None = None) -> Array:
    """Open an array on disk as a lazy Dask array in blocks along the batch.

    Only shape and dtype are read now. Each block is read by the task that needs it, which
    opens the file anew, so that a task can travel to another process. Nothing is unpickled.

    What is read lies under the path that is given. The path itself may be a link; links out of
    a folder of parts, links in a Zarr array, and HDF5 datasets whose data lie in other files are
    refused, since a change of what they lead to would go unnoticed.

    A Zarr array that `store` wrote has all its chunks, and one that is missing or cut short is
    an error. In other Zarr arrays, and in HDF5, a missing chunk stands for the fill value, as
    these formats say: a chunk that was lost can not be told from one that was never written.
    A damaged chunk is an error of the block that it lies in, where its codec notices the damage.

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
        Rows in a block; by default at most as many as make 128 MiB, in blocks of equal size.
        Rounded down to whole chunks of a Zarr array (whole shards, if it has any) or HDF5
        dataset, but at least one, so that each chunk is read once.

    Returns
    -------
    dask array, shape (N, ...)
        One block along every axis but the first. Its name changes with the file.

    Raises
    ------
    ValueError
        For another kind of file, a group where an array is meant, Python objects, strings or
        times, a file shorter than its header says, files in a folder that do not fit together,
        a link out of it, a chunk of a result of `store` that was lost, an HDF5 file that has no
        such dataset, or blocks so small that Dask could not hold their number.
    FileNotFoundError
        If there is no such file or folder.
    PermissionError
        If it may not be read.
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
    path = os.fsdecode(path)
    source = _open(path)
    rows = _default_rows(source) if rows is None else int(rows)
    rows = max(1, rows // source.rows_at_once) * source.rows_at_once
    if source.shape[0] > MOST_BLOCKS * rows:
        raise ValueError(
            f"{path}: has {source.shape[0]} rows, in blocks of {rows} more than {MOST_BLOCKS} blocks: pass more rows"
        )
    return chunked.from_source(source, rows)


def _default_rows(source: Source) -> int:
    """Return the rows of a block of at most 128 MiB, all blocks alike: then no thread has more to do than another."""
    row_bytes, step = source.dtype.itemsize * math.prod(source.shape[1:]), source.rows_at_once
    steps = max(1, math.ceil(source.shape[0] / step))
    most = max(1, BLOCK_BYTES // row_bytes // step) if row_bytes else steps
    return math.ceil(steps / math.ceil(steps / most)) * step


def _open(path: str) -> Source:
    """Find out what kind of array lies at a path."""
    file, dataset = _split(path)
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


def _split(path: str) -> tuple[str, str]:
    """Split a path into a file and a dataset, at the last ``::`` that ends a file: names of both kinds may have one."""
    parts = path.split("::")
    for count in range(len(parts), 0, -1):
        file = "::".join(parts[:count])
        if os.path.exists(file):
            return file, "::".join(parts[count:])
    raise FileNotFoundError(f"{path}: there is no file or folder {parts[0]}")


class Source:
    """An array on disk that is opened anew for each slice.

    It has no ``copy`` method on purpose: Dask copies a ``numpy.memmap`` into memory, and hashes
    all of it for its name (dask #11850). Dask asks for slices of step 1 and for numbers, which
    every kind of file understands.
    """

    path: Path
    rows_at_once = 1

    def copies(self, rows: Sequence[int]) -> int:
        """Say how often a block is held as it is read, in blocks of so many rows: not at all as a view of a file."""
        return 1

    def _describe(self, where: str, shape: tuple[int, ...], dtype: Any) -> None:
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


class _NpyFile(Source):
    """A ``.npy`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{path}: is no file")
        with open(path, "rb") as file:
            self._header = read_npy_header(file, str(path), os.fstat(file.fileno()).st_size)
            self._state = _state(os.fstat(file.fileno()))
        self._describe(str(path), self._header.shape, self._header.dtype)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), *self._state)

    def copies(self, rows: Sequence[int]) -> int:
        return 0

    def __getitem__(self, index: Any) -> NumPyArray:
        _check_unchanged(self.path, self._state)
        # Not numpy.load, which parses the header anew: Python 3.11.7 may fail at that in threads (see npy.py).
        order: Literal["F", "C"] = "F" if self._header.fortran_order else "C"
        array = np.memmap(self.path, self.dtype, "r", offset=self._header.offset, shape=self.shape, order=order)
        return np.asarray(array[index])


class _NpyFolder(Source):
    """A folder of ``.npy`` files that follow each other along the batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        for name in names:
            if name.endswith(UNFINISHED):
                raise ValueError(f"{path / name}: is unfinished: finish it with store(..., resume=True), or remove it")
        self.parts = [_NpyFile(_inside(path, name)) for name in names if name.endswith(".npy")]
        if not self.parts:
            raise ValueError(f"{path}: this folder is no Zarr array and has no .npy files")
        first = self.parts[0]
        for part in self.parts:
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise ValueError(
                    f"{part.path}: has rows of shape {part.shape[1:]} and dtype {brief(part.dtype)}, "
                    f"{first.path.name} before it has {first.shape[1:]} and {brief(first.dtype)}: all parts must agree"
                )
        self.places = alignment.bounds([part.shape[0] for part in self.parts])
        self._describe(str(path), (self.places[-1][1], *first.shape[1:]), first.dtype)

    def __dask_tokenize__(self) -> list[Any]:
        return [part.__dask_tokenize__() for part in self.parts]

    def copies(self, rows: Sequence[int]) -> int:
        # A block that goes on in the next file is a copy.
        starts = {start for start, _ in alignment.bounds(rows)}
        return 0 if starts >= {start for start, _ in self.places} else 1

    def __getitem__(self, index: Any) -> NumPyArray:
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


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, if it is no link to a place outside."""
    path = folder / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(folder):
        raise ValueError(
            f"{path}: is a link to {real}, outside the folder: copy the file into the folder, or open it by that path"
        )
    return path


_ZARR_METADATA = ("zarr.json", ".zarray", ".zgroup")


def _has_zarr_metadata(path: Path) -> bool:
    return any((path / name).exists() for name in _ZARR_METADATA)


class _ZarrArray(Source):
    """A Zarr array of format 2 or 3 in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        zarr = zarr_module()
        try:
            array = zarr.open(path, mode="r")
            self._whole = isinstance(array, zarr.Array) and _is_whole(array)
        except PermissionError:
            raise
        except Exception as error:  # metadata of another form raise whatever zarr meets first
            raise ValueError(f"{path}: holds no Zarr array ({brief(error)})") from None
        if isinstance(array, zarr.Group):
            # Not `array.array_keys()`, which warns of folders that are no part of the group.
            names = [inner.name for inner in path.iterdir() if _has_zarr_metadata(inner)]
            raise ValueError(f"{path}: is a group of arrays: open {_one_of(names, f'{path}/{{}}')}")
        self._describe(str(path), array.shape, array.dtype)
        self.chunks = tuple(map(int, array.chunks))
        if min(self.chunks) < 1:
            raise ValueError(f"{path}: holds no Zarr array (its chunks have the shape {self.chunks})")
        self.rows_at_once = int((array.shards or array.chunks)[0])
        start = len(os.path.join(path, ""))
        files = {file.path[start:]: _state(file.stat()) for file in _files(path)}
        # Of every file by itself: a chunk that is written anew leaves the metadata as they are, and one that is copied
        # there with its time may be older than the others. Hashed, since each task carries it.
        import hashlib  # here and not above: OpenSSL is a tenth of the package's import time

        self._token = (str(path), hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest())
        self._metadata = next(path / name for name in _ZARR_METADATA if name in files)
        self._state = files[self._metadata.name]
        if self._whole:
            self._check_chunks(lambda name: files.get(name, (0, 0))[0], [slice(None)] * self.ndim)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self._token

    def copies(self, rows: Sequence[int]) -> int:
        return 2  # zarr reads a chunk as bytes, and makes an array of them then

    def __getitem__(self, index: Any) -> NumPyArray:
        _check_unchanged(self._metadata, self._state)
        if self._whole:
            self._check_chunks(self._size_of, index)
        array = zarr_module().open_array(self.path, mode="r")
        start, stop = _range(index[0], self.shape[0])
        with _damage(f"{self.path}: rows {start} to {stop} can not be read: a chunk is damaged"):
            return np.asarray(array[index])

    def _check_chunks(self, size_of: Callable[[str], int], index: Any) -> None:
        """Raise if a chunk that an index reaches has no file of its full size."""
        full = math.prod(self.chunks) * self.dtype.itemsize
        ranges = [_range(at, length) for at, length in zip(index, self.shape, strict=True)]
        for number in chunks_reached(ranges, self.chunks):
            size = size_of(chunk_file(number))
            if size != full:
                raise ValueError(
                    f"{self.path}: the chunk {chunk_file(number)} was lost: it has {size} bytes, store wrote {full}: "
                    f"store the array again with overwrite=True"
                )

    def _size_of(self, name: str) -> int:
        return size_at(os.path.join(self.path, name))


def _range(at: Any, length: int) -> tuple[int, int]:
    """Return where a slice, or the slice of a number, starts and stops."""
    return at.indices(length)[:2] if isinstance(at, slice) else (at, at + 1)


@contextlib.contextmanager
def _damage(what: str) -> Iterator[None]:
    """Turn what a library raises over damage, which may be anything and names no file, into a ValueError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system refused, as with too many open files
            raise
        raise ValueError(f"{what} ({brief(error)}): write it anew") from None


def chunks_reached(ranges: Sequence[tuple[int, int]], chunks: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Count up the chunks that lie, even with one number, in a range along each axis."""
    return itertools.product(
        *(range(start // chunk, -(-stop // chunk)) for (start, stop), chunk in zip(ranges, chunks, strict=True))
    )


def chunk_file(number: tuple[int, ...]) -> str:
    """Name the file of a chunk, all of which lie in one folder."""
    return ".".join(map(str, ("c", *number)))


def size_at(path: str) -> int:
    """Return the size of a file, 0 if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _is_whole(array: Any) -> bool:
    """Whether `store` wrote the array, in the form in which it writes: a copy keeps the attribute in any form."""
    return (
        array.metadata.zarr_format == 3
        and all(array.attrs.get(key) == value for key, value in WHOLE.items())
        and array.metadata.chunk_key_encoding.name == "default"
        and array.metadata.chunk_key_encoding.separator == "."
        and not array.compressors
        and not array.shards
    )


def _files(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Find every file of a Zarr array, and refuse links."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise ValueError(
                    f"{entry.path}: is a link to {os.path.realpath(entry.path)}, in a Zarr array: copy what it leads "
                    f"to in its place"
                )
            if entry.is_dir():
                yield from _files(entry.path)
            else:
                yield entry


class _Hdf5Dataset(Source):
    """A dataset in an HDF5 file."""

    def __init__(self, path: Path, dataset: str) -> None:
        self.path, self.dataset = path, dataset
        h5py = _h5py()
        with _open_hdf5(h5py, path) as file:
            names: list[str] = []
            with _damage(f"{path}: its list of datasets is damaged"):
                file.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
            wanted = _one_of(names, f"{path}::{{}}")
            if not dataset:
                raise ValueError(f"{path}: name the dataset: open {wanted}")
            try:
                found = file[dataset]
            except KeyError:  # or a link to nowhere
                raise ValueError(f"{path}: has no dataset {dataset}: open {wanted}") from None
            if not isinstance(found, h5py.Dataset):
                raise ValueError(f"{path}::{dataset}: is a group of datasets: open {wanted}")
            self._check_inside(file, found)
            if found.shape is None:
                raise ValueError(f"{path}::{dataset}: is empty, with no shape")
            self._describe(f"{path}::{dataset}", found.shape, found.dtype)
            self.rows_at_once = int(found.chunks[0]) if found.chunks else 1
        self._state = _state(os.stat(path))

    def _check_inside(self, file: Any, found: Any) -> None:
        """Refuse a dataset whose numbers lie in another file."""
        if found.file.filename != file.filename:
            others = [found.file.filename]
        elif found.is_virtual:
            others = sorted({source.file_name for source in found.virtual_sources()} - {"."})
        else:
            others = [os.fsdecode(name) for name, _, _ in found.external or ()]
        if others:
            raise ValueError(
                f"{self.path}::{self.dataset}: lies in other files, {', '.join(others)}: open them by their own "
                f"paths, or copy the dataset into one file"
            )

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), self.dataset, *self._state)

    def __getitem__(self, index: Any) -> NumPyArray:
        _check_unchanged(self.path, self._state)
        start, stop = _range(index[0], self.shape[0])
        damage = _damage(
            f"{self.path}::{self.dataset}: rows {start} to {stop} can not be read: a chunk is damaged, or its filter "
            f"is not installed"
        )
        with _open_hdf5(_h5py(), self.path) as file, damage:
            return np.asarray(file[self.dataset][index])


def _open_hdf5(h5py: Any, path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except PermissionError:
        raise
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
        raise ImportError("a .zarr array needs zarr: pip install zarr") from None
    return zarr


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError("an HDF5 dataset needs h5py: pip install h5py") from None
    return h5py
