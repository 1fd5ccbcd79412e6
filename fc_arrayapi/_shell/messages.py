"""Errors in one line, with the options of the shell in the place of Python's calls."""

from __future__ import annotations

import errno
import re

from .._files.disk import url_of

# Errors of input or environment. Other exceptions are printed with their type.
MENDABLE = (ImportError, OSError, TypeError, ValueError)
# Advice for errors of the system.
ADVICE = {
    errno.ENOSPC: "free space on the disk",
    errno.EDQUOT: "free space: your quota is exhausted",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EROFS: "choose a writable path",
    errno.EPIPE: "the program that reads the output has ended",
}
# What messages advise in Python, and what it is in the shell.
IN_THE_SHELL = (
    (r"(?:convert it first, for example )?d?[XY]\.astype\([\"'](\w+)[\"']\)", r"use --dtype \1"),
    (r"open \S+ with rows=(\d+)(?:, or call X\.rechunk\(\{0: \d+\}\))?", r"use --rows \1"),
    (r"\bcall X\.rechunk\(\{0: (\d+)\}\)", r"use --rows \1"),
    (r"pass for example (?=prefix=|layout=)", "use "),
    (r"prefix='([^']*)',? ", r"--prefix \1 "),
    (r"prefix='([^']*)'", r"--prefix \1"),
    (r"layout='(\w+)'", r"--layout \1"),
    (r"pass prefix= and layout=", "use --prefix and --layout"),
    (r", or pass storage_options=\{'anon': True\} if the bucket is public", ""),
    (r"which prefix= ", "which --prefix "),
    (r"pass W\.T, or use FullyConnected\.from_torch\(linear\)", "save W.T, or use --layout torch for torch's names"),
    (r"\brows=(\d+)", r"--rows \1"),
    (r"\bdtype=[\"'](\w+)[\"']", r"--dtype \1"),
    (r"leave it out of targets, or pass --overwrite", "choose another --out, or use --overwrite"),
    (r"\brows is (-?\d+)", r"--rows is \1"),
    (r"\bthreads is (-?\d+)", r"--threads is \1"),
    (r"\bdtype is '", "--dtype is '"),
    (r"\bmemory_limit is ", "--memory-limit is "),
    (r"\bneeds has", "--needs has"),
    (r"\bscheduler (\S+): \1", r"--scheduler \1"),
)


def in_one_line(error: Exception, command: str) -> str:
    """Write an exception and its notes in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        where = "" if error.filename is None else f"{error.filename}: "
        advice = ADVICE.get(error.errno, "check the path")
        if url_of(where):  # what the server said stays as it is
            text = f"{where}{error.strerror}: check the address and the credentials"
        else:
            text = f"{where}{str(error.strerror).lower()}: {advice}"
    elif isinstance(error, MemoryError):
        text = "out of memory: reduce --rows or --threads"
    elif not isinstance(error, MENDABLE):
        text = f"{type(error).__name__}: {text}; --debug shows where"
    text = " ".join(". ".join([text, *getattr(error, "__notes__", ())]).split())
    return in_shell_terms(re.sub(rf"^{command}:? ", "", text))


def in_shell_terms(text: str) -> str:
    """Write the advice of a message as options of the shell."""
    for python, shell in IN_THE_SHELL:
        text = re.sub(python, shell, text)
    return text
