"""Arrays that are open already: a numpy.memmap, an h5py.Dataset, a zarr.Array. Each task opens the file itself."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .disk import check_regular
from .hdf5 import Hdf5Dataset
from .mapped import MappedArray
from .source import Source, file_state


class OpenArray(Protocol):
    """An open array in chunks: an h5py.Dataset or a zarr.Array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of its axes."""
        ...

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """The lengths of a chunk."""
        ...


def open_object(array: Any, bfloat16: bool) -> Source | None:
    """Return the source of an open array, None if it is none of these; `bfloat16` as in `MappedArray`."""
    if isinstance(array, np.memmap):
        return mapped_array(array, bfloat16)
    h5py = sys.modules.get("h5py")  # without which it is no dataset
    if h5py is not None and isinstance(array, h5py.Dataset):
        return _dataset(array, bfloat16)
    if hasattr(array, "store_path"):  # of zarr
        from .zarr_objects import zarr_array  # here, since it takes a tenth of the package's import time

        return zarr_array(array)
    return None


def mapped_array(array: np.memmap[Any, Any], bfloat16: bool) -> MappedArray:
    """Return the source of a memmap, or of a view of one: its offset and strides as they are in the file.

    The attribute `offset` of a view is that of the array it was cut from, so the place is taken from the address.
    """
    mapping: Any = getattr(array, "_mmap", None)
    if mapping is None or array.filename is None:
        raise TypeError(
            "the numpy.memmap has no file of a known name: it is a copy in memory, or was made from an open file "
            "object: make it from a path"
        )
    if getattr(array, "mode", "") == "c":
        raise ValueError(
            f"{array.filename}: the numpy.memmap has mode 'c', whose changes are in memory alone: open it in mode 'r'"
        )
    path = Path(os.fsdecode(array.filename)).resolve()
    check_regular(path)
    if getattr(array, "mode", "") in ("r+", "w+"):
        array.flush()  # so that the time of the file is that of its content
    begin = np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
    # The mapping begins at a multiple of the page size, before the offset of the memmap that it was made for.
    first = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    offset = array.__array_interface__["data"][0] - begin + first
    return MappedArray(
        path, file_state(os.stat(path)), str(path), array.shape, array.dtype, offset, strides=array.strides,
        bfloat16=bfloat16,
    )  # fmt: skip


def _dataset(array: Any, bfloat16: bool) -> Hdf5Dataset:
    """Return the source of a dataset in a file on disk."""
    if not array:
        raise ValueError("the h5py.Dataset is closed: open its file again, or pass its path, such as 'x.h5::X'")
    path = os.fsdecode(array.file.filename)
    if not os.path.isfile(path):
        raise ValueError(f"the h5py.Dataset {array.name} lies in {path}, which is no file on this machine's disk")
    if array.file.mode != "r":
        array.file.flush()
    return Hdf5Dataset(Path(path).resolve(), array.name.lstrip("/"), bfloat16)


# What to do with an object that is no file.
WHAT_TO_PASS = (
    "pass a path, a list of paths, a numpy.memmap, an h5py.Dataset or a zarr.Array; make arrays in memory lazy with "
    "dask.array.from_array"
)
