"""Columns of Arrow files and streams. Record batches are views of the file where they are not compressed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from .columns import Column
from .mapped import mapped_file
from .source import cross

# What comes before the messages in a file; a stream is messages alone.
_MAGIC = b"ARROW1\0\0"


class _Batch(NamedTuple):
    """What the message of a record batch says of it."""

    rows: int
    compressed: bool


class ArrowColumn(Column):
    """A column of an Arrow file or stream.

    A compressed batch can only be read as a whole, and so can a compressed stream, since all of it before a batch is
    decompressed too.
    """

    kind = "Arrow"
    in_smaller_chunks = (
        "write it anew as an Arrow file in smaller record batches, pyarrow.ipc.new_file(...).write_table(table, "
        "max_chunksize=...)"
    )

    def copies(self, rows: Sequence[int], start: int = 0) -> float:
        """Return 0 where a block is part of a record batch, so a view; else what is joined or decompressed."""
        if self.whole_units:
            return 2
        borders = {start for start, _ in self._places}
        return 1 if cross(borders, rows, start) else 0

    def _open(self, pyarrow: Any) -> Any:
        with self._bytes(pyarrow) as file:
            self._is_file = file.read(len(_MAGIC)) == _MAGIC
            if not self._is_file:
                file.seek(0)
            batches = list(_batches(pyarrow, file))
        self.whole_units = any(batch.compressed for batch in batches)
        self.units = [batch.rows for batch in batches]
        if self.whole_units and not self._is_file:
            self.units = [sum(self.units)]
        with self._reader(pyarrow) as reader:
            if self._is_file and reader.num_record_batches != len(batches):
                raise ValueError("its end lists other record batches than it has")
            return reader.schema

    def _bytes(self, pyarrow: Any) -> Any:
        """Return the file to be read, mapped once in a process: a new mapping has no pages."""
        return pyarrow.BufferReader(pyarrow.py_buffer(mapped_file(self.path, self._state)))

    def _reader(self, pyarrow: Any) -> Any:
        file = self._bytes(pyarrow)
        options = None
        if self.whole_units:  # other columns are not decompressed; these are views if nothing is compressed
            plain = pyarrow.ipc.open_file(file) if self._is_file else pyarrow.ipc.open_stream(file)
            if self.column in plain.schema.names:
                field = plain.schema.get_field_index(self.column)
                options = pyarrow.ipc.IpcReadOptions(included_fields=[field])
            file.seek(0)
        return (pyarrow.ipc.open_file if self._is_file else pyarrow.ipc.open_stream)(file, options=options)

    def _first_row(self, pyarrow: Any) -> Any:
        return next(array for array in self._columns(pyarrow, 0, len(self.units)) if len(array))

    def _groups(self, pyarrow: Any, first: int, last: int) -> list[Any]:
        return list(self._columns(pyarrow, first, last))

    def _columns(self, pyarrow: Any, first: int, last: int) -> Iterator[Any]:
        with self._reader(pyarrow) as reader:
            if self._is_file:
                for number in range(first, last):
                    yield reader.get_batch(number).column(self.column)
            else:
                stop = None if self.whole_units else last
                for batch in islice(reader, first, stop):
                    yield batch.column(self.column)


def _batches(pyarrow: Any, file: Any) -> Iterator[_Batch]:
    """Yield what the messages of a mapped stream say of its record batches; none is decompressed for it."""
    for message in pyarrow.ipc.MessageReader.open_stream(file):
        if message.type == "record batch":
            yield _header(message.metadata.to_pybytes())


def _header(metadata: bytes) -> _Batch:
    """Read the number of rows, and whether there is a compression, from the flatbuffer that pyarrow has verified.

    pyarrow itself decompresses a batch to say how many rows it has. The tables are those of Arrow's Message.fbs: the
    third field of a message is the record batch, of which the first is the length and the fourth the compression.
    """

    def field(table: int, number: int) -> int:
        """Return the place of a field in a table, 0 where it has none."""
        names = table - struct.unpack_from("<i", metadata, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", metadata, names)[0]:
            return 0
        offset = struct.unpack_from("<H", metadata, names + 4 + 2 * number)[0]
        return table + offset if offset else 0

    root = struct.unpack_from("<I", metadata)[0]
    header = field(root, 2)
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    length = field(batch, 0)
    rows = struct.unpack_from("<q", metadata, length)[0] if length else 0
    if rows < 0:  # which pyarrow takes, and ends the process when it cuts the batch
        raise ValueError(f"a record batch has {rows} rows")
    return _Batch(rows, bool(field(batch, 3)))
