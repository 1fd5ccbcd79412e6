"""open_array: the format of a path, and its blocks along the batch."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.namespace import Array, keep
from .._arrays.text import kind_of
from .._dask import blocks
from .._dask.blocks import DaskArray
from .disk import UNFINISHED, AnyPath
from .hdf5 import Hdf5Dataset
from .npy import NpyFile
from .object_store import is_url, place_of
from .parts import Parts, npy_folder
from .source import Source
from .zarr import ZarrArray, has_zarr_metadata
from .zarr_objects import StoredZarr, zarr_array

BLOCK_BYTES = 128 * 2**20

# Dask takes 80 bytes and 2 us for each block as soon as the array is created, and metadata may claim any number. These
# are 25 TB by default.
MOST_BLOCKS = 200_000

# The file that an array of this name reads; no data, but a path and a shape.
_SOURCES: dict[str, Source] = {}


def open_array(
    path: AnyPath | Sequence[AnyPath] | Any,
    rows: int | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> DaskArray:
    """Open an array on disk or in an object store as a lazy Dask array in blocks along the batch.

    Only shape and dtype are read now. Each block is read by the task that needs it; the task
    opens the file itself, so it can run in another process. Nothing is unpickled.

    The path may be a link. Links out of a folder of parts, links in a Zarr array, and HDF5
    datasets whose data lie in other files are refused, since a change of their targets would
    go unnoticed.

    A missing or truncated chunk of a Zarr array of `store` is an error. In other Zarr arrays,
    and in HDF5, a missing chunk stands for the fill value: these formats do not tell a lost
    chunk from one that was never written. A damaged chunk raises an error in its block, if its
    codec detects the damage.

    In an object store one listing gives the version of each object. A chunk that vanishes later
    is an error if all chunks were there; one that is written anew is refused by its server, where
    obstore makes the requests. A server of files over https lists nothing: the name is made of
    the metadata and their version, so chunks that change under equal metadata go unnoticed.
    Requests that fail are repeated by obstore or fsspec; one that fails for good is an OSError
    that names the object. Credentials are in no name, no repr and no message.

    Parameters
    ----------
    path : path, address, zarr.Array, or list of paths and addresses
        A list opens as one array: its parts follow each other along the batch, in its order.
        A path is one of

        - a ``.npy`` file, read straight from the operating system's file cache;
        - a Zarr array of format 2 or 3, ``"x.zarr"``, or one in a group, ``"data.zarr/x"``
          (needs the extra ``zarr``);
        - the address of a Zarr array in an object store, ``"s3://bucket/x.zarr"``, ``gs://`` or
          ``https://`` (needs the extra ``cloud``, or s3fs, gcsfs or aiohttp);
        - a ``zarr.Array`` that is open already, in any store of zarr;
        - an HDF5 dataset, ``"data.h5::x"`` (needs the extra ``hdf5``);
        - a folder of ``.npy`` files, which follow each other along the batch in the order of
          their names. Names differ in their numbers alone, with leading zeros, so that this is
          the order of the numbers too; for any other order pass a list.
    rows : int, optional
        Rows in a block; by default blocks of at most 128 MiB, 16 MiB of an array in an object
        store, and about equal size.
        Rounded down to whole chunks of a Zarr array (whole shards, if it has any) or HDF5
        dataset, so that each chunk is read once; to one chunk, with a warning, if that has
        more rows.
    storage_options : dict, optional
        How to reach an address, in fsspec's names: for S3 ``endpoint_url``, ``key``, ``secret``,
        ``token``, ``anon``, and ``client_kwargs={"region_name": ...}``. obstore makes the
        requests, if it is installed and has all these options; otherwise s3fs or gcsfs, a third
        as fast. By default keys come from the environment or from a profile of AWS's tools.

    Returns
    -------
    dask array, shape (N, ...)
        One block along every axis but the first. Its name changes with the file.

    Raises
    ------
    ValueError
        For another kind of file, a group instead of an array, Python objects, strings or
        times, a file shorter than its header says, parts with different rows, names in a
        folder that leave their order open, a link out of it, a lost chunk of a result of
        `store`, a dataset that is not in the HDF5 file, or too many blocks for Dask.
    FileNotFoundError
        If there is no such file or folder, or no object below an address.
    PermissionError
        If it is not readable, or an object store denies access.
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
        raise ValueError(f"rows is {rows!r}: pass a positive integer")
    if isinstance(path, (str, bytes, os.PathLike)):
        path = os.fsdecode(path)
        source = _open(path, storage_options)
    elif hasattr(path, "store_path"):  # of zarr
        source = zarr_array(path)
        path = str(source.path)
    else:
        source, path = _open_list(path, storage_options)
    chunk = min(source.rows_at_once, source.shape[0])
    if rows is not None and rows < chunk:
        warnings.warn(
            f"{path}: rows={rows} cannot be kept: each chunk of the file spans {chunk:,} rows, and blocks have as "
            f"many, so that each chunk is read once: write the file anew in smaller chunks",
            stacklevel=2,
        )
    rows = _default_rows(source) if rows is None else int(rows)
    rows = max(1, rows // source.rows_at_once) * source.rows_at_once
    if source.shape[0] > MOST_BLOCKS * rows:
        raise ValueError(
            f"{path}: has {source.shape[0]} rows, in blocks of {rows} more than {MOST_BLOCKS} blocks: increase rows"
        )
    array = blocks.from_source(source, min(rows, max(1, source.shape[0])))
    keep(_SOURCES, array.name, source)
    return array


def source_of(array: Array) -> Source | None:
    """Return the file that an array of `open_array` reads; None for any other array."""
    return _SOURCES.get(array.name)


def _default_rows(source: Source) -> int:
    """Return the rows of blocks of at most 128 MiB and about equal size, so that all threads have equal work."""
    row_bytes, step = source.dtype.itemsize * math.prod(source.shape[1:]), source.rows_at_once
    steps = max(1, math.ceil(source.shape[0] / step))
    most = max(1, (source.block_bytes or BLOCK_BYTES) // row_bytes // step) if row_bytes else steps
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


def _open(path: str, storage_options: Mapping[str, Any] | None = None) -> Source:
    """Open the array at a path with the reader of its format."""
    if is_url(path) and not os.path.exists(path):
        return StoredZarr(place_of(path, storage_options))
    file, dataset = _split(path)
    where = Path(file).resolve()
    if any(part.endswith(UNFINISHED) for part in where.parts):
        raise ValueError(f"{path}: is an unfinished result: complete it with store(..., resume=True)")
    if dataset or where.suffix in (".h5", ".hdf5"):
        return Hdf5Dataset(where, dataset)
    if where.is_dir():
        if where.suffix == ".zarr" or has_zarr_metadata(where):
            return ZarrArray(where)
        return npy_folder(where)
    if where.suffix == ".npy":
        return NpyFile(where)
    raise ValueError(
        f"{path}: open_array reads .npy files and folders of them, Zarr arrays, and HDF5 datasets such as "
        f"'data.h5::x'; read other formats with dask.array.from_array"
    )


def _open_list(paths: Sequence[AnyPath], storage_options: Mapping[str, Any] | None) -> tuple[Source, str]:
    """Open a list of paths as one array, and return how errors name it."""
    try:
        names = [os.fsdecode(path) for path in paths]
    except TypeError:
        raise TypeError(f"path is {kind_of(paths)}: pass a path, or a list of paths") from None
    if not names:
        raise ValueError("path is an empty list: name at least one file")
    where = f"{names[0]} and {len(names) - 1} more"
    return Parts(where, [_open(name, storage_options) for name in names]), where


def _split(path: str) -> tuple[str, str]:
    """Split a path into a file and a dataset, at the last ``::`` after an existing file; names of both may have one."""
    parts = path.split("::")
    for count in range(len(parts), 0, -1):
        file = "::".join(parts[:count])
        if os.path.exists(file):
            return file, "::".join(parts[count:])
    raise FileNotFoundError(f"{path}: no such file or folder: {parts[0]}")
