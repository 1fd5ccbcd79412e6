"""Which reader a path needs: a file, an array in a file, a folder, a pattern, a list, an address."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._arrays.text import kind_of
from .arrow import ArrowColumn
from .converted import converted
from .disk import meant, url_of
from .hdf5 import Hdf5Dataset
from .npy import NpyFile
from .npz import npz_array
from .opened import WHAT_TO_PASS
from .parquet import ParquetColumn
from .parts import Parts, check_finished, check_order, inside
from .safetensors import SafetensorsTensor
from .source import Source
from .zarr import ZarrArray, has_zarr_metadata


def open_path(path: str, dtype: Any = None, storage_options: Mapping[str, Any] | None = None) -> Source:
    """Open the array at a path or an address with the reader of its format."""
    if url_of(path):
        from .object_store import place_of  # here, since it takes a tenth of the package's import time
        from .zarr_objects import StoredZarr

        return converted(StoredZarr(place_of(path, storage_options)), dtype, path)
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


# Endings of files of text, whose bytes are no numbers.
TEXT = (".csv", ".tsv", ".txt", ".json", ".jsonl")


def _open_file(where: Path, name: str, dtype: Any, path: str) -> Source:
    check_finished(where)
    reader = _READERS.get(where.suffix) or (_hdf5 if name else None)  # HDF5 files may have any ending
    if reader is None and where.suffix.lower() in TEXT:
        raise ValueError(
            f"{path}: open_array reads no text: convert it once, for example numpy.save("
            f"{os.path.splitext(path)[0] + '.npy'!r}, numpy.loadtxt({path!r}, delimiter=',', dtype='float32'))"
        )
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


def open_list(paths: Any, dtype: Any, storage_options: Mapping[str, Any] | None) -> tuple[Source, str]:
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
    return Parts(where, [open_path(name, dtype, storage_options) for name in names]), where


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
    what = f": {parts[0]}" if len(parts) > 1 else ""
    raise FileNotFoundError(f"{path}: no such file or folder{what}{meant(parts[0])}")


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
