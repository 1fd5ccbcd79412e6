"""open_array: the format of a path, and its blocks along the batch."""

from __future__ import annotations

import glob
import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.namespace import Array, keep
from .._arrays.text import kind_of
from .._dask import blocks
from .._dask.blocks import DaskArray
from .arrow import ArrowColumn
from .converted import check_dtype, converted
from .disk import AnyPath
from .hdf5 import Hdf5Dataset
from .npy import NpyFile
from .npz import npz_array
from .opened import WHAT_TO_PASS, OpenArray, open_object
from .parquet import ParquetColumn
from .parts import Parts, check_finished, check_order, inside
from .safetensors import SafetensorsTensor
from .source import Source
from .zarr import ZarrArray, has_zarr_metadata

BLOCK_BYTES = 128 * 2**20

# Dask takes 80 bytes and 2 us for each block as soon as the array is created, and metadata may claim any number. These
# are 25 TB by default.
MOST_BLOCKS = 200_000

# The file that an array of this name reads; no data, but a path and a shape.
_SOURCES: dict[str, Source] = {}


def open_array(
    path: AnyPath | Sequence[AnyPath] | np.memmap[Any, Any] | OpenArray, rows: int | None = None, *, dtype: Any = None
) -> DaskArray:
    """Open an array on disk as a lazy Dask array in blocks along the batch.

    Only shape and dtype are read now. Each block is read by the task that needs it; the task
    opens the file itself, so it can run in another process. Nothing is unpickled.

    The path may be a link. Links out of a folder of parts, links in a Zarr array, and HDF5
    datasets whose data lie in other files are refused, since a change of their targets would
    go unnoticed.

    A missing or truncated chunk of a Zarr array of `store` is an error. In other Zarr arrays,
    and in HDF5, a missing chunk stands for the fill value: these formats do not tell a lost
    chunk from one that was never written. A damaged chunk raises an error in its block, if its
    codec detects the damage.

    Parameters
    ----------
    path : path, list of paths, or an array that is open already
        A path is one of

        - a ``.npy`` file, read straight from the operating system's file cache;
        - ``"x.npz::name"``: a view where the archive stores the array as it is and aligned,
          one block where it is compressed;
        - ``"x.safetensors::name"``: a view (needs the extra ``safetensors``);
        - ``"x.parquet::column"``, in blocks of whole row groups, and ``"x.arrow::column"``,
          an Arrow file or stream, a view where a block lies in one record batch that is not
          compressed. A column has numbers, or lists of them that have one length, the second
          axis; a null or a row of another length is an error in its block (needs the extra
          ``arrow``);
        - a Zarr array of format 2 or 3, ``"x.zarr"``, or one in a group, ``"data.zarr/x"``
          (needs the extra ``zarr``);
        - an HDF5 dataset, ``"data.h5::x"`` (needs the extra ``hdf5``);
        - a folder of files of one of these formats, ``"shards"`` or ``"shards::name"``, or a
          pattern, ``"shards/*.safetensors::name"``: they follow each other along the batch in
          the order of their names. Names differ in their numbers alone, with leading zeros, so
          that this is the order of the numbers too; for any other order pass a list.

        The parts of a list follow each other along the batch, in its order. An open array is
        a numpy.memmap or a view of one, or an h5py.Dataset: what is read later is its file.
    rows : int, optional
        Rows in a block; by default blocks of at most 128 MiB and about equal size, with float16
        counted as the float32 in which it is computed. Rounded down to whole chunks of a Zarr
        array (whole shards, if it has any) or HDF5 dataset, and to whole row groups, so that
        each is read once; to one chunk, with a warning, if that has more rows.
    dtype : dtype, optional
        Convert each block when it is read. bfloat16, which NumPy lacks, is read as float32,
        which holds each of its numbers; from ``.npy`` and ``.npz``, which do not say that it
        is bfloat16, if a dtype is given.

    Returns
    -------
    dask array, shape (N, ...)
        One block along every axis but the first. Its name changes with the file.

    Raises
    ------
    ValueError
        For another kind of file, a group instead of an array, Python objects, strings or
        times, a file shorter than its header says, parts with different rows, names of files
        that leave their order open, a link out of a folder, a lost chunk of a result of
        `store`, a name that is not in the file, or too many blocks for Dask.
    TypeError
        For a `dtype` that is none of numbers or would drop imaginary parts, and an array in
        memory.
    FileNotFoundError
        If there is no such file or folder, or none that matches.
    PermissionError
        If it is not readable.
    ImportError
        If the library that reads the file is not installed.

    Warns
    -----
    UserWarning
        If a chunk or row group has more rows than a block should have: how to write the file
        anew in smaller ones.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> import fc_arrayapi as fc
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/x.npy", np.ones((10, 4), dtype="float16"))
    ...     X = fc.open_array(folder + "/x.npy", rows=4, dtype="float32")
    ...     X.chunks, X.dtype.name, float(X.sum())
    (((4, 4, 2), (4,)), 'float32', 40.0)
    """
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 1):
        raise ValueError(f"rows is {rows!r}: pass a positive integer")
    if dtype is not None:
        dtype = check_dtype(dtype)
    source = None if isinstance(path, (str, bytes, os.PathLike)) else open_object(path, dtype is not None)
    if source is not None:
        path = str(source.path)
        source = converted(source, dtype, path)
    elif isinstance(path, (str, bytes, os.PathLike)):
        path = os.fsdecode(path)
        source = _open(path, dtype)
    else:
        source, path = _open_list(path, dtype)
    chunk = min(source.rows_at_once, source.shape[0])
    if (chunk > 1 and chunk * _row_bytes(source) > BLOCK_BYTES) if rows is None else rows < chunk:
        kept = "blocks are large" if rows is None else f"rows={rows} cannot be kept"
        warnings.warn(
            f"{path}: {kept}: each chunk of the file spans {chunk:,} rows, and blocks have as many, so that each chunk "
            f"is read once: {source.in_smaller_chunks}",
            stacklevel=2,
        )
    rows = _default_rows(source) if rows is None else int(rows)
    in_a_block = rows if source.in_groups else max(1, rows // source.rows_at_once) * source.rows_at_once
    if source.shape[0] > MOST_BLOCKS * in_a_block:
        raise ValueError(
            f"{path}: has {source.shape[0]} rows, in blocks of {in_a_block} more than {MOST_BLOCKS} blocks: increase "
            f"rows"
        )
    array = blocks.from_source(source, source.blocks(rows))
    keep(_SOURCES, array.name, source)
    return array


def source_of(array: Array) -> Source | None:
    """Return the file that an array of `open_array` reads; None for any other array."""
    return _SOURCES.get(array.name)


def _row_bytes(source: Source) -> int:
    """Return the bytes of a row as it is computed: float16 goes through float32."""
    itemsize = source.dtype.itemsize
    return (max(4, itemsize) if source.dtype.kind == "f" else itemsize) * math.prod(source.shape[1:])


def _default_rows(source: Source) -> int:
    """Return the rows of blocks of at most 128 MiB and about equal size, so that all threads have equal work."""
    row_bytes, step = _row_bytes(source), source.rows_at_once
    steps = max(1, math.ceil(source.shape[0] / step))
    most = max(1, BLOCK_BYTES // row_bytes // step) if row_bytes else steps
    if source.in_groups:
        return max(1, BLOCK_BYTES // row_bytes) if row_bytes else steps * step
    equal = math.ceil(steps / math.ceil(steps / most))
    if equal < most and _views(source, most * step) and not _views(source, equal * step):
        return most * step  # blocks that end with the files of a folder
    return equal * step


def _views(source: Source, rows: int) -> bool:
    """Say whether blocks of this many rows are views of a file."""
    N = source.shape[0]
    if MOST_BLOCKS * rows < N:
        return False
    return source.copies([min(rows, N - start) for start in range(0, N, rows)] or [0]) == 0


def _open(path: str, dtype: Any = None) -> Source:
    """Open the array at a path with the reader of its format."""
    file, name = _split(path)
    if not os.path.lexists(file):
        files = sorted(glob.glob(file))
        check_order(path, files)
        return Parts(path, [_open_file(Path(found).resolve(), name, dtype, found) for found in files])
    where = Path(file).resolve()
    check_finished(where)
    if where.suffix == ".zarr" or has_zarr_metadata(where):
        if name:
            raise ValueError(f"{path}: is a Zarr array or group: open an array in it as {file}/{name}")
        return converted(ZarrArray(where), dtype, path)
    return _open_folder(where, name, dtype) if where.is_dir() else _open_file(where, name, dtype, path)


def _open_file(where: Path, name: str, dtype: Any, path: str) -> Source:
    check_finished(where)
    reader = _READERS.get(where.suffix) or (_hdf5 if name else None)  # HDF5 files may have any ending
    if reader is None:
        raise ValueError(
            f"{path}: open_array reads {', '.join(_READERS)}, with ::name where a file has several arrays, folders of "
            f"these and Zarr arrays. Open raw numbers, such as .bin and .fbin, by fc.open_array(numpy.memmap({path!r}, "
            f"'float32', 'r', offset, (N, C))), and write .pt as .npy, which takes no memory: numpy.save("
            f"{os.path.splitext(path)[0] + '.npy'!r}, torch.load({path!r}, mmap=True).numpy())"
        )
    return converted(reader(where, name, dtype is not None), dtype, path)


def _open_folder(folder: Path, name: str, dtype: Any) -> Source:
    """Open the files of a folder in the order of their names: those with named arrays if there is a name."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    for found in names:
        check_finished(folder / found)
    endings = {Path(found).suffix for found in names} & _READERS.keys() - ({".npy"} if name else set())
    if not name and ".npy" in endings:
        endings = {".npy"}
    if not endings:
        raise ValueError(
            f"{folder}: the folder is not a Zarr array and contains no {'.npy' if not name else 'named arrays'}"
            f"{' files' if not name else ', in ' + ', '.join(_READERS.keys() - {'.npy'})}"
        )
    if len(endings) > 1:
        ending = min(endings)
        raise ValueError(
            f"{folder}: contains files that end with {' and '.join(sorted(endings))}: pass a pattern, such as "
            f"{folder}/*{ending}{'::' + name if name else ''}"
        )
    names = [found for found in names if Path(found).suffix in endings]
    check_order(str(folder), names)
    parts = [_open_file(inside(folder, found), name, dtype, str(folder / found)) for found in names]
    return Parts(f"{folder}::{name}" if name else str(folder), parts)


def _open_list(paths: Any, dtype: Any) -> tuple[Source, str]:
    """Open a list of paths as one array, and return how errors name it."""
    try:
        names = [os.fsdecode(path) for path in paths] if isinstance(paths, Sequence) else None
    except TypeError:
        names = None
    if names is None:
        raise TypeError(f"path is {kind_of(paths)}: {WHAT_TO_PASS}")
    if not names:
        raise ValueError("path is an empty list: name at least one file")
    where = f"{names[0]} and {len(names) - 1} more"
    return Parts(where, [_open(name, dtype) for name in names]), where


def _split(path: str) -> tuple[str, str]:
    """Split a path into a file and a name, at the last ``::`` after an existing file; both may have one in them.

    The file may be a pattern with ``*``, ``?`` or ``[...]`` that matches files.
    """
    parts = path.split("::")
    for exists in (os.path.exists, glob.glob):
        for count in range(len(parts), 0, -1):
            file = "::".join(parts[:count])
            if exists(file):
                return file, "::".join(parts[count:])
    raise FileNotFoundError(f"{path}: no such file or folder: {parts[0]}")


def _npy(where: Path, name: str, bfloat16: bool) -> Source:
    if name:
        raise ValueError(f"{where}::{name}: a .npy file has one array without a name: open {where}")
    return NpyFile(where, bfloat16)


def _hdf5(where: Path, name: str, bfloat16: bool) -> Source:
    return Hdf5Dataset(where, name, bfloat16)


# By the ending of a file: takes its path, the name of an array in it, and whether bfloat16 may be read.
_READERS: dict[str, Callable[[Path, str, bool], Source]] = {
    ".npy": _npy,
    ".npz": npz_array,
    ".safetensors": lambda where, name, _: SafetensorsTensor(where, name),
    ".parquet": lambda where, name, _: ParquetColumn(where, name),
    ".arrow": lambda where, name, _: ArrowColumn(where, name),
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}
