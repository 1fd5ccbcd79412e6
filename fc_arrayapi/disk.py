"""Paths, and what brings a file to the disk before anybody is told that it is there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

AnyPath = str | bytes | os.PathLike[Any]

# What ends the name of a folder in which `store` keeps an unfinished result.
UNFINISHED = ".fc_arrayapi.part"


def flush(file: int | Path) -> None:
    """Have the disk hold what was written to an open file, or to a file or folder at a path."""
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
        # A network drive may not flush folders, and a folder that takes files need not be readable.
        if not folder or error.errno not in (errno.EINVAL, errno.EACCES):
            raise
