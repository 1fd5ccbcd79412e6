"""The folder of an unfinished result: locked for one pass, and nothing in it is touched that store did not write."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from .disk import FILE, FOLDER, UNFINISHED, kind_at
from .writer import Writer

# What lies in the folder: the array that is replaced, and a folder with a random name for each pass,
OLD, _PASS = "old", re.compile("[0-9a-f]+")
# which holds the file that is written, and what is known about it.
DATA, FINGERPRINT, FINISHED, STATE = "data", "fingerprint.json", "finished", "state"
_RECORD = re.compile(rf"{re.escape(FINGERPRINT)}|{FINISHED}|{STATE}|\.fc_arrayapi-[0-9a-f]+\.part")


class UnfinishedFolder:
    """The folder ``y.npy.fc_arrayapi.part`` beside ``y.npy``.

    Once it is open, its entries are renamed and removed relative to it, so that a link that is put in its place is not
    followed, and it is locked, so that no two passes write one target. The lock ends with the process. Windows and some
    network drives have no such locks; there a pass may find its folder gone.

    Parameters
    ----------
    target : Path
        The file that is written.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + UNFINISHED)
        self._opened: int | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        """Make the folder if there is none, and open it."""
        if self._opened is None:
            self.path.mkdir(exist_ok=True)
            if not self.open():
                raise self.taken()

    def open(self) -> bool:
        """Open and lock the folder, and return whether there is one.

        Raises
        ------
        FileExistsError
            If it is no folder, or if another pass has locked it.
        """
        kind = kind_at(self.path)
        if kind is None:
            return False
        if kind != FOLDER:
            raise FileExistsError(f"{self}: is {kind}, and store writes {FOLDER} there: move it away")
        if os.open not in os.supports_dir_fd:  # pragma: no cover - Windows
            return True
        import fcntl

        try:
            self._opened = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # the pass that wrote there has just ended
            return False
        try:
            fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise self.taken() from None
        except OSError:  # a network drive without locks
            pass
        if not self.is_here():
            self.close()
            return False
        return True

    def is_here(self) -> bool:
        """Say whether the folder that was opened is still the one at the path."""
        try:
            return self._opened is None or os.path.samestat(os.fstat(self._opened), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Unlock the folder."""
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    def lost(self) -> FileNotFoundError:
        """Return the error of a pass whose folder is gone."""
        return FileNotFoundError(
            f"{self}: was removed while a pass wrote there, by hand or by another pass: compute {self.target.name} anew"
        )

    def taken(self) -> FileExistsError:
        """Return the error of a pass that meets another one."""
        return FileExistsError(f"{self.target}: another pass writes this target: wait until it ends, or stop it")

    def check(self, writer: Writer) -> None:
        """Refuse a folder in which anything lies that store did not write: it would be renamed or removed."""
        for name in self._names():
            kind = kind_at(self.path / name)
            if (name != OLD and not _PASS.fullmatch(name)) or kind != FOLDER:
                raise self._foreign(self.path / name, kind)
            if name != OLD:
                self._check_pass(self.path / name, writer)
            elif not writer.is_folder:  # a file is replaced in one step
                raise self._foreign(self.path / name, kind)
            elif foreign := writer.foreign(self.path / name):
                raise self._foreign(foreign, kind_at(foreign))

    def _check_pass(self, folder: Path, writer: Writer) -> None:
        for name in os.listdir(folder):
            path = folder / name
            kind, wanted = kind_at(path), FOLDER if name == DATA and writer.is_folder else FILE
            if kind != wanted or not (name == DATA or _RECORD.fullmatch(name)):
                raise self._foreign(path, kind)
            if kind == FOLDER and (foreign := writer.foreign(path)):
                raise self._foreign(foreign, kind_at(foreign))

    @staticmethod
    def _foreign(path: Path | str, kind: str | None) -> FileExistsError:
        return FileExistsError(f"{path}: is {kind} that store did not write: move it away")

    def _names(self) -> list[str]:
        return os.listdir(self.path if self._opened is None else self._opened)

    def passes(self) -> list[Path]:
        """Return the folders of passes."""
        return [self.path / name for name in self._names() if name != OLD]

    def rename(self, old: str, new: str) -> None:
        """Give an entry another name."""
        if self._opened is None:  # pragma: no cover - Windows
            os.rename(self.path / old, self.path / new)
        else:
            os.rename(old, new, src_dir_fd=self._opened, dst_dir_fd=self._opened)

    def empty(self) -> None:
        """Remove everything in the folder, under other names, so that no block still under way adds to it."""
        names = self._names()
        aside = [name if name == OLD else os.urandom(8).hex() for name in names]
        for name, other in zip(names, aside, strict=True):
            self.rename(name, other)
        for name in aside:
            self._remove_tree(name)

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        self.empty()
        self._remove_if_empty()

    def remove_pass(self, name: str) -> None:
        """Remove the folder of one pass, and this folder if nothing else lies in it; errors are ignored."""
        if self._opened is None and os.open in os.supports_dir_fd:  # it is another pass's
            return
        self._remove_tree(name, ignore_errors=True)
        self._remove_if_empty()

    def _remove_tree(self, name: str, **options: Any) -> None:
        if self._opened is None:  # pragma: no cover - Windows
            shutil.rmtree(self.path / name, **options)
        else:
            shutil.rmtree(name, dir_fd=self._opened, **options)

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):
            self.path.rmdir()
            self.close()  # `create` makes another one
