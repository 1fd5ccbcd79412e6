"""Columns of Arrow and Parquet files as rows of numbers: lists of one length, nested or not, and plain numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays.libraries import NumPyArray
from .._dask.blocks import bounds
from .disk import check_regular
from .source import Source, brief, check_unchanged, file_state, grouped, naming_damage, one_of, slice_range


class Column(Source):
    """A column of a file that is written in groups of rows: row groups of Parquet, record batches of Arrow.

    A format says what the columns are, how many rows each group has, and reads the column of one group.

    Attributes
    ----------
    units : sequence of int
        The rows of each group.
    whole_units : bool
        Whether a group can only be read as a whole.
    """

    in_groups = True
    units: Sequence[int]
    whole_units = True

    def __init__(self, path: Path, column: str) -> None:
        check_regular(path)
        self.path, self.column = path, column
        self.name = f"{path}::{column}"
        self._state = file_state(os.stat(path))
        pyarrow = pyarrow_module()
        with naming_damage(str(path), f": is not a readable {self.kind} file"):
            schema = self._open(pyarrow)
        what = one_of({field.name: brief(field.type) for field in schema}, f"{path}::{{}}")
        if schema.names.count(column) != 1:
            found = "has two columns" if schema.names.count(column) else "has no column"
            raise ValueError(f"{path}: {f'{found} {column}' if column else 'names no column'}: open {what}")
        kind = schema.field(column).type
        like = pyarrow.array([], kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind)
        if any(self.units):  # a list says its length in a row alone
            with naming_damage(f"{self.name}: the first row", " cannot be read"):
                like = self._first_row(pyarrow)
                like.validate()
                like = like.slice(0, 1)
        rows = rows_of(like, self.name, 0)
        self.describe(self.name, (sum(self.units), *rows.shape[1:]), rows.dtype)
        self._places = bounds(self.units)
        if self.whole_units:
            self.rows_at_once = max(1, *self.units, 1)

    @property
    def kind(self) -> str:
        """The format, for errors."""
        raise NotImplementedError

    def _open(self, pyarrow: Any) -> Any:
        """Set `units` and what else the file says of its groups, and return its Arrow schema."""
        raise NotImplementedError

    def _first_row(self, pyarrow: Any) -> Any:
        """Return an Arrow array that begins with the first row."""
        raise NotImplementedError

    def _groups(self, pyarrow: Any, first: int, last: int) -> list[Any]:
        """Return the Arrow arrays of the column in the groups from `first` to before `last`."""
        raise NotImplementedError

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (str(self.path), self.column, *self._state)

    def blocks(self, rows: int) -> tuple[int, ...]:
        """Return blocks of whole groups; of parts of a group that is larger, where it can be read in parts."""
        parts: list[int] = []
        for unit in self.units:
            count = 1 if self.whole_units else max(1, -(-unit // rows))
            parts += [unit * (k + 1) // count - unit * k // count for k in range(count)]
        return grouped(parts, rows)

    def __getitem__(self, index: Any) -> NumPyArray:
        check_unchanged(self.path, self._state)
        rows, *rest = index
        start, stop = slice_range(rows, self.shape[0])
        reached = [k for k, (first, last) in enumerate(self._places) if first < stop and start < last]
        block = np.empty((0, *self.shape[1:]), self.dtype)
        if reached:
            first_row = self._places[reached[0]][0]
            with naming_damage(f"{self.name}: rows {start} to {stop}", " cannot be read"):
                arrays = self._groups(pyarrow_module(), reached[0], reached[-1] + 1)
                for array in arrays:
                    array.validate()  # lengths and offsets against each other and the bytes that are there
            pieces = []
            for array in arrays:
                begin, end = max(start - first_row, 0), min(stop - first_row, len(array))
                if begin < end:
                    part = array.slice(begin, end - begin)
                    pieces.append(rows_of(part, self.name, first_row + begin, self.shape[1:]))
                first_row += len(array)
            block = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if len(block) != stop - start:
            raise ValueError(f"{self.name}: has {len(block)} rows from {start} to {stop}: write the file again")
        return block[(slice(None) if isinstance(rows, slice) else 0, *rest)]


def pyarrow_module() -> Any:
    """Return pyarrow, which is imported only when it is used."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError("a .parquet or .arrow file needs pyarrow: pip install pyarrow") from None
    return pyarrow


def rows_of(array: Any, where: str, start: int, row_shape: tuple[int, ...] | None = None) -> NumPyArray:
    """Return an Arrow array as a NumPy array, a view where its bytes allow.

    Parameters
    ----------
    array : pyarrow array
        Rows of the column.
    where : str
        How errors name the column.
    start : int
        The number of the first row.
    row_shape : tuple of int, optional
        The shape that each row must have; by default that of the first row.
    """
    return _rows(array, where, start, 1, row_shape)


def _rows(array: Any, where: str, start: int, in_a_row: int, row_shape: tuple[int, ...] | None) -> NumPyArray:
    """Convert an array of which `in_a_row` elements make a row, or less."""
    pyarrow = pyarrow_module()
    types = pyarrow.types
    if isinstance(array, pyarrow.ExtensionArray):
        shape = tuple(getattr(array.type, "shape", ()))  # of a tensor
        if getattr(array.type, "permutation", None) not in (None, list(range(len(shape)))):
            raise ValueError(f"{where}: has tensors whose axes are permuted: save them in their order")
        flat = _rows(array.storage, where, start, in_a_row, (math.prod(shape),) if shape else row_shape)
        return flat.reshape(len(flat), *shape) if shape else flat
    if array.null_count:
        place = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(f"{where}: row {start + place // in_a_row} is null or has a null: fill it, or leave it out")
    kind = array.type
    if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
        lengths = np.diff(array.offsets.to_numpy()) if not types.is_fixed_size_list(kind) else np.empty(0)
        length = kind.list_size if types.is_fixed_size_list(kind) else int(lengths[0]) if len(lengths) else 0
        length = row_shape[0] if row_shape else length
        other = np.flatnonzero(lengths != length)
        if len(other):
            raise ValueError(
                f"{where}: row {start + int(other[0]) // in_a_row} has {lengths[other[0]]} numbers, rows before it "
                f"have {length}: an array needs rows of one length"
            )
        inner = _rows(array.flatten(), where, start, in_a_row * max(1, length), row_shape[1:] if row_shape else None)
        return inner.reshape(len(array), length, *inner.shape[1:])
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ValueError(f"{where}: contains {brief(kind)}, and open_array reads numbers and lists of them")
    numbers: NumPyArray = array.to_numpy(zero_copy_only=not types.is_boolean(kind))
    return numbers
