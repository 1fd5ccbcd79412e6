"""Paths, fsync, and files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

AnyPath = str | bytes | os.PathLike[Any]

# The ending of the folder in which `store` keeps an unfinished result.
UNFINISHED = ".fc_arrayapi.part"


def flush(file: int | Path) -> None:
    """Call fsync for an open file, or for the file or folder at a path: its data reach the disk."""
    if isinstance(file, int):
        os.fsync(file)
        return
    folder = file.is_dir()
    if folder and os.name == "nt":  # pragma: no cover - Windows opens no folders
        return
    try:
        descriptor = os.open(file, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # A network drive may not support fsync of folders, and a writable folder need not be readable.
        if not folder or error.errno not in (errno.EINVAL, errno.EACCES):
            raise


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when it is complete and on the disk.

    The data go to a temporary file in the same folder, which is flushed with fsync and renamed. If anything
    fails, the temporary file is removed, and a file that had the name before stays as it was.

    Parameters
    ----------
    path : Path
        The file, not a link. The mode of a file that it replaces is kept.

    Yields
    ------
    binary file

    Raises
    ------
    OSError
        With `path` as its file name, whichever file failed.
    """
    temporary = path.with_name(f".fc_arrayapi-{os.urandom(8).hex()}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            flush(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error says more
            temporary.unlink()
        if isinstance(error, OSError):  # which names the temporary file, or none
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    flush(path.parent)


def size_at(path: str) -> int:
    """Return the size of a file, 0 if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def state_at(path: str) -> bytes:
    """Return a file's inode, size and modification time, which a new name does not change."""
    status = os.stat(path)
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
