"""The most memory that a call takes: `traced` for NumPy in memory, `of_process` for passes over files."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any


def traced(function: Callable[[], Any]) -> float:
    """Return the bytes that Python and NumPy hold at most while the function runs, the result included."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def of_process(function: Callable[[], Any]) -> float | None:
    """Return by how many bytes the anonymous memory of this process grows at most: files in the cache don't count."""
    if not sys.platform.startswith("linux"):
        return None
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _anonymous())

    _give_back()
    before = _anonymous()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        function()
    finally:
        done.set()
        thread.join()
    return max(0, peak - before)


def _give_back() -> None:
    """Give what is free to the system, or else the call would take it again unseen."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


def _anonymous() -> int:
    with open("/proc/self/status") as status:
        return int(status.read().split("RssAnon:")[1].split()[0]) * 1024
