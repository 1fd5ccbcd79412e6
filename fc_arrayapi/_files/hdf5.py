"""Blocks of HDF5 datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .disk import check_regular
from .source import Source, check_unchanged, file_state, holding, is_bfloat16, naming_damage, one_of, slice_range


class Hdf5Dataset(Source):
    """A dataset in an HDF5 file; `bfloat16` as in `MappedArray`."""

    def __init__(self, path: Path, dataset: str, bfloat16: bool = False) -> None:
        self.path, self.dataset = path, dataset
        h5py = _h5py()
        with _open_hdf5(h5py, path) as file:
            names: dict[str, str] = {}

            def note(name: str, found: Any) -> None:
                if isinstance(found, h5py.Dataset):
                    names[name] = holding(found.shape or (), found.dtype)

            with naming_damage(str(path), ": its list of datasets is damaged"):
                file.visititems(note)
            wanted = one_of(names, f"{path}::{{}}")
            if not dataset:
                raise ValueError(f"{path}: names no dataset: open {wanted}")
            try:
                found = file[dataset]
            except KeyError:  # or a link to nowhere
                raise ValueError(f"{path}: has no dataset {dataset}: open {wanted}") from None
            if not isinstance(found, h5py.Dataset):
                raise ValueError(f"{path}::{dataset}: is a group of datasets: open {wanted}")
            self._check_inside(file, found)
            if found.shape is None:
                raise ValueError(f"{path}::{dataset}: is an empty dataset without a shape")
            self.bfloat16 = bfloat16 and is_bfloat16(found.dtype)
            self.describe(f"{path}::{dataset}", found.shape, np.dtype("<u2") if self.bfloat16 else found.dtype)
            self.rows_at_once = int(found.chunks[0]) if found.chunks else 1
        self._state = file_state(os.stat(path))

    def _check_inside(self, file: Any, found: Any) -> None:
        """Refuse a dataset whose data lie in other files."""
        if found.file.filename != file.filename:
            others = [found.file.filename]
        elif found.is_virtual:
            others = sorted({source.file_name for source in found.virtual_sources()} - {"."})
        else:
            others = [os.fsdecode(name) for name, _, _ in found.external or ()]
        if others:
            raise ValueError(
                f"{self.path}::{self.dataset}: stores its data in other files, {', '.join(others)}: open them "
                f"by their own "
                f"paths, or copy the dataset into one file"
            )

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), self.dataset, *self._state)

    def __getitem__(self, index: Any) -> NumPyArray:
        check_unchanged(self.path, self._state)
        start, stop = slice_range(index[0], self.shape[0])
        damage = naming_damage(
            f"{self.path}::{self.dataset}: rows {start} to {stop}",
            " cannot be read: a chunk is damaged, or its filter is not installed",
        )
        with _open_hdf5(_h5py(), self.path) as file, damage:
            return np.asarray(file[self.dataset][index]).view(self.dtype)


def _open_hdf5(h5py: Any, path: Path) -> Any:
    check_regular(path)
    try:
        return h5py.File(path, "r")
    except PermissionError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: is not a readable HDF5 file ({error})") from None


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError("an HDF5 dataset needs h5py: pip install h5py") from None
    return h5py
