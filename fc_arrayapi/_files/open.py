"""open_array: the format of a path, and its blocks along the batch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays.types import AnyPath
from .._dask import blocks
from .._dask.blocks import DaskArray
from .converted import check_dtype, converted
from .default_rows import MOST_BLOCKS, default_rows, is_too_large

if TYPE_CHECKING:
    from .opened import OpenArray


def open_array(
    path: AnyPath | Sequence[AnyPath] | np.memmap[Any, Any] | OpenArray,
    rows: int | None = None,
    *,
    dtype: Any = None,
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
    path : path, address, list of these, or an array that is open already
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
        - the address of a Zarr array in an object store, ``"s3://bucket/x.zarr"``, ``gs://`` or
          ``https://`` (needs the extra ``cloud``, or s3fs, gcsfs or aiohttp);
        - an HDF5 dataset, ``"data.h5::x"`` (needs the extra ``hdf5``);
        - a folder of files of one of these formats, ``"shards"`` or ``"shards::name"``, or a
          pattern, ``"shards/*.safetensors::name"``: they follow each other along the batch in
          the order of their names. Names differ in their numbers alone, with leading zeros, so
          that this is the order of the numbers too; for any other order pass a list.

        The parts of a list follow each other along the batch, in its order. An open array is
        a numpy.memmap or a view of one, an h5py.Dataset, or a zarr.Array in any store: what is
        read later is its file or its objects.
    rows : int, optional
        Rows in a block; by default at most 8,192, of up to 64 MiB where blocks are views and of
        32 MiB elsewhere, up to 32,768 of rows below 1 KiB, more where there would be over 10,000
        blocks, and 16 MiB of an array in an object store; of about equal size, with float16
        counted as the float32 in which it is computed.
        Rounded down to whole chunks of a Zarr array (whole shards, if it has any) or HDF5
        dataset, and to whole row groups, so that each is read once; to one chunk, with a
        warning, if that has more rows.
    dtype : dtype, optional
        Convert each block when it is read. bfloat16, which NumPy lacks, is read as float32,
        which holds each of its numbers; from ``.npy`` and ``.npz``, which do not say that it
        is bfloat16, if a dtype is given.
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
        times, a file shorter than its header says, parts with different rows, names of files
        that leave their order open, a link out of a folder, a lost chunk of a result of
        `store`, a name that is not in the file, or too many blocks for Dask.
    TypeError
        For a `dtype` that is none of numbers or would drop imaginary parts, and an array in
        memory.
    FileNotFoundError
        If there is no such file or folder, none that matches, or no object below an address.
    PermissionError
        If it is not readable, or an object store denies access.
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
    from .formats import open_list, open_path  # here, since the formats take a third of the package's import time
    from .opened import open_object

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
        source = open_path(path, dtype, storage_options)
    else:
        source, path = open_list(path, dtype, storage_options)
    chunk = min(source.rows_at_once, source.shape[0])
    if (chunk > 1 and is_too_large(source, chunk)) if rows is None else rows < chunk:
        kept = "blocks are large" if rows is None else f"rows={rows} cannot be kept"
        warnings.warn(
            f"{path}: {kept}: each chunk of the file spans {chunk:,} rows, and blocks have as many, so that each chunk "
            f"is read once: {source.in_smaller_chunks}",
            stacklevel=2,
        )
    rows = default_rows(source) if rows is None else int(rows)
    in_a_block = rows if source.in_groups else max(1, rows // source.rows_at_once) * source.rows_at_once
    if source.shape[0] > MOST_BLOCKS * in_a_block:
        raise ValueError(
            f"{path}: has {source.shape[0]} rows, in blocks of {in_a_block} more than {MOST_BLOCKS} blocks: increase "
            f"rows"
        )
    return blocks.from_source(source, source.blocks(rows))
