"""Columns of Parquet files. A row group can only be read as a whole, so blocks are whole row groups."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .columns import Column, pyarrow_module


class ParquetColumn(Column):
    """A column of a Parquet file."""

    kind = "Parquet"
    in_smaller_chunks = "write the file anew in smaller row groups: pyarrow.parquet.write_table(..., row_group_size=N)"

    def copies(self, rows: Sequence[int], start: int = 0) -> float:
        """Return 3: the pages as they are stored, the column of Arrow, and the block."""
        return 3

    def _open(self, pyarrow: Any) -> Any:
        metadata = _metadata(self.path, self._state)
        self.units = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        return metadata.schema.to_arrow_schema()

    def _file(self) -> Any:
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(self.path, memory_map=True, metadata=_metadata(self.path, self._state))

    def _first_row(self, pyarrow: Any) -> Any:
        first = next(number for number, rows in enumerate(self.units) if rows)
        with self._file() as file:
            batch = next(file.iter_batches(1, row_groups=[first], columns=[self.column], use_threads=False))
        return batch.column(0)

    def _groups(self, pyarrow: Any, first: int, last: int) -> list[Any]:
        with self._file() as file:
            table = file.read_row_groups(range(first, last), columns=[self.column], use_threads=False)
        return list(table.column(0).chunks)


@functools.lru_cache(maxsize=64)
def _metadata(path: Path, state: tuple[int, int]) -> Any:
    """Read what the end of a file says of it, once in a process for each state of the file."""
    pyarrow_module()
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
        return file.metadata
