"""Files in object stores, written in one request and read as a whole: those of weights."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .object_requests import read_object, state_of, write_objects
from .object_store import Place, place_of


def write_file(url: str, storage_options: Mapping[str, Any] | None, write: Callable[[BinaryIO], None]) -> None:
    """Write an object, which is there completely or not at all."""
    place, name = _split(url, storage_options)
    content = io.BytesIO()
    write(content)
    write_objects(place, [(place.inner(name), content.getvalue())])


@contextlib.contextmanager
def local_copy(url: str, storage_options: Mapping[str, Any] | None, limit: int) -> Iterator[Path]:
    """Read an object into a temporary file; errors about that file name the address.

    Raises
    ------
    ValueError
        If it has more than `limit` bytes.
    FileNotFoundError
        If there is no such object.
    """
    place, name = _split(url, storage_options)
    state = state_of(place, name)
    if state is not None and state.size > limit:
        raise ValueError(
            f"{url}: has {state.size} bytes, the limit is {limit}: pass max_bytes={state.size} if you trust the file"
        )
    content = read_object(place, place.inner(name))
    if content is None:
        raise FileNotFoundError(f"{url}: no such object")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name)
        copy.write_bytes(content)
        try:
            yield copy
        except (ValueError, TypeError) as error:
            raise type(error)(str(error).replace(str(copy), url)) from None


def _split(url: str, storage_options: Mapping[str, Any] | None) -> tuple[Place, str]:
    folder, _, name = url.rpartition("/")
    return place_of(folder, storage_options), name
