"""Files and folders: opened without following links, flushed with fsync, named only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .._arrays.types import AnyPath

# The ending of the folder in which `store` keeps an unfinished result.
UNFINISHED = ".fc_arrayapi.part"

URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)

# What a path leads to, by the type in its mode.
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
FILE, FOLDER, LINK = _KINDS[stat.S_IFREG], _KINDS[stat.S_IFDIR], _KINDS[stat.S_IFLNK]

# Flags that Windows lacks.
_NOFOLLOW, _NONBLOCK = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)
_OPENS_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", 0)
_BINARY = getattr(os, "O_BINARY", 0)


def is_url(path: str) -> bool:
    """Say whether this is an address in an object store, and no path on this machine."""
    return URL.match(path) is not None


def url_of(path: AnyPath) -> str:
    """Return a path that is an address in an object store, "" for one on this machine."""
    text = os.fsdecode(path)
    return text if is_url(text) and not os.path.exists(text) else ""


def meant(path: AnyPath) -> str:
    """Write which path may have been meant by one that leads nowhere: what an error ends with."""
    path = os.fsdecode(path)
    if path.startswith("~"):
        return f": a shell writes out ~, Python does not: pass {os.path.expanduser(path)!r}"
    import difflib  # here, for errors alone

    folder, name = os.path.split(path)
    try:
        close = difflib.get_close_matches(name, os.listdir(folder or "."), 1, 0.75)
    except OSError:
        close = []
    return f": did you mean {os.path.join(folder, close[0])}?" if close else ""


def no_folder(name: AnyPath, folder: Path) -> FileNotFoundError:
    """Return the error of a target whose folder does not exist."""
    advice = meant(name) if os.fsdecode(name).startswith("~") else f"{meant(folder)}: create it first"
    return FileNotFoundError(f"{os.fsdecode(name)}: the folder {folder} does not exist{advice}")


def kind_at(path: AnyPath, folder: int | None = None) -> str | None:
    """Return what lies at a path, without following a link: FILE, FOLDER, LINK or another kind; None for nothing."""
    try:
        mode = os.lstat(path, dir_fd=folder).st_mode
    except FileNotFoundError:
        return None
    return _KINDS.get(stat.S_IFMT(mode), "no file")


@contextlib.contextmanager
def open_file(path: AnyPath) -> Iterator[BinaryIO]:
    """Open a file to be read. A FIFO, which might never end, a device and a socket are refused at once.

    Raises
    ------
    ValueError
        If this is no regular file.
    """
    check_regular(path)  # before, since opening a device may have effects
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK)) as file:
        check_regular(path, file.fileno())  # it may have been replaced
        yield file


def check_regular(path: AnyPath, opened: int | None = None) -> None:
    """Raise if a path, or what was opened there, is a folder, or a FIFO, a device or a socket, which may never end."""
    kind = _KINDS.get(stat.S_IFMT(os.stat(path if opened is None else opened).st_mode), "no file")
    if kind != FILE:
        raise ValueError(f"{os.fsdecode(path)}: is {kind}, not a file: pass the path of a file that holds the data")


def unfollowed(path: str, flags: int) -> int:
    """Open a file of an unfinished result for `open`, as its `opener`, and follow no link on the way.

    The folder in which the result lies is the user's choice and may be reached through links. From the folder
    that ends with UNFINISHED on, each step is opened relative to the one before. A file with two names is not
    written to.
    """
    if os.open not in os.supports_dir_fd:  # pragma: no cover - Windows
        return os.open(path, flags | _BINARY, 0o666)
    parts = Path(path).parts
    first = next((place for place, part in enumerate(parts) if part.endswith(UNFINISHED)), len(parts) - 1)
    folder = os.open(Path(*parts[:first]), os.O_RDONLY | _OPENS_FOLDER)
    try:
        for part in parts[first:-1]:
            inner = os.open(part, os.O_RDONLY | _OPENS_FOLDER | _NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        opened = os.open(parts[-1], flags & ~os.O_TRUNC | _NOFOLLOW | _NONBLOCK, 0o666, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        if flags & (os.O_WRONLY | os.O_RDWR):
            if os.fstat(opened).st_nlink > 1:
                raise OSError(errno.EMLINK, f"is a hard link to a file with another name: move it away: {path}")
            if flags & os.O_TRUNC:
                os.ftruncate(opened, 0)
    except BaseException:
        os.close(opened)
        raise
    return opened


def target_path(path: AnyPath) -> Path:
    """Return the absolute path of a file that is to be written; links to its folder are followed, it is none itself.

    Raises
    ------
    FileExistsError
        If the path is a link: what it leads to would be replaced under another name.
    """
    given = Path(os.fsdecode(path))
    absolute = Path(os.path.realpath(given.parent), given.name)
    if kind_at(absolute) == LINK:
        raise FileExistsError(f"{given}: is a link to {os.path.realpath(absolute)}: pass that path, or remove the link")
    return absolute


def flush(file: int | Path) -> None:
    """Call fsync for an open file, or for the file or folder at a path: its data reach the disk."""
    if isinstance(file, int):
        os.fsync(file)
        return
    folder = file.is_dir()
    if folder and os.name == "nt":  # pragma: no cover - Windows opens no folders
        return
    try:
        descriptor = os.open(file, (os.O_RDONLY if folder else os.O_RDWR) | _NOFOLLOW)
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
        The file, as `target_path` gives it. The mode of a file that it replaces is kept.

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
        with open(temporary, "xb", opener=unfollowed) as file:
            yield file
            file.flush()
            flush(file.fileno())
            if kind_at(path) == FILE and os.chmod in os.supports_fd:
                os.chmod(file.fileno(), os.lstat(path).st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error says more
            temporary.unlink()
        if isinstance(error, OSError):  # which names the temporary file, or none
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    flush(path.parent)


def size_at(path: str) -> int:
    """Return the size of a file, 0 if there is none, or something else, such as a link."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def state_at(path: str) -> bytes:
    """Return a file's inode, size and modification time, which a new name does not change."""
    status = os.lstat(path)
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
