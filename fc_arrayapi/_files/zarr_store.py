"""The store through which Zarr arrays are read: files that are no links, and chunks that stay within their size."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from .disk import FOLDER, LINK, check_regular, kind_at, size_at
from .zarr_chunks import Chunks

METADATA = ("zarr.json", ".zarray", ".zgroup")

# Metadata of an array take a few hundred bytes, and longer where it has attributes. JSON takes up to 25 times its
# length in memory, and zarr half a second for a megabyte.
METADATA_BYTES = 2**20


def zarr_module() -> Any:
    """Return zarr, which is imported only when it is used."""
    try:
        import zarr
    except ImportError:
        raise ImportError("a .zarr array needs zarr: pip install zarr") from None
    return zarr


def check_is_file(path: Path | str) -> None:
    """Refuse a link, of whose target a change would go unnoticed, and what has no end, such as a FIFO."""
    kind = kind_at(path)
    if kind == LINK:
        raise ValueError(
            f"{path}: is a link to {os.path.realpath(path)}, inside a Zarr array: replace the link by a "
            f"copy of its target"
        )
    if kind not in (None, FOLDER):
        check_regular(path)


def open_zarr(path: Path) -> Any:
    """Open a Zarr array or group to be read.

    Raises
    ------
    ValueError
        If its metadata are no regular file, are too long, or hide the size of compressed chunks.
    Exception
        What zarr raises for malformed metadata.
    """
    zarr = zarr_module()
    store = _store_class()(path, read_only=True)
    array = zarr.open(store, mode="r")
    if isinstance(array, zarr.Array):
        store.chunks = Chunks.of(array)
    return array


@functools.cache
def _store_class() -> Any:
    """Return the class of the store; zarr is imported only when it is used."""

    class GuardedStore(zarr_module().storage.LocalStore):  # type: ignore[misc]
        chunks: Chunks | None = None

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            self._check_file(key)
            return self._checked(key, await super().get(key, prototype, byte_range), byte_range)

        def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
            self._check_file(key)
            value = super().get_sync(key, prototype=prototype, byte_range=byte_range)
            return self._checked(key, value, byte_range)

        def _check_file(self, key: str) -> None:
            path = self.root / key
            check_is_file(path)
            size = size_at(path)
            if path.name.startswith((".z", "zarr.")) and size > METADATA_BYTES:
                raise ValueError(f"{key} has {size} bytes; metadata have at most {METADATA_BYTES}")

        def _checked(self, key: str, value: Any, byte_range: Any) -> Any:
            if value is not None and self.chunks is not None and self.chunks.compressor:
                self.chunks.check(key, memoryview(value.as_numpy_array()), byte_range)
            return value

    return GuardedStore
