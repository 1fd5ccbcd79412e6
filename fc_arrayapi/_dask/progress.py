"""The progress of a pass: one line that is redrawn on a terminal and in a notebook, a line for each tenth in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from .._arrays.text import seconds_text, size_text

# Between two lines in a log, and before the first: a short pass prints none.
SECONDS_BETWEEN_LINES = 1.0
SECONDS_BETWEEN_DRAWINGS = 0.1


class Line:
    """What is shown of a pass: how much is read, how fast, and the time left.

    On a terminal and in a notebook it is one line, redrawn and erased at the end. Elsewhere, where a line cannot be
    redrawn, it is a line for each tenth of the tasks, at most one a second; after the first, the end is always printed.

    Parameters
    ----------
    nbytes : int
        What the pass reads; 0 where it is not known, then tasks are shown.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.started = self.last = time.perf_counter()
        self.tenths = 0
        on_terminal = getattr(sys.stdout, "isatty", bool)()
        in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
        self.redrawn = on_terminal or in_notebook
        self.drawn = 0

    def show(self, done: int, tasks: int) -> None:
        """Show how many tasks are done."""
        now = time.perf_counter()
        if self.redrawn:
            if now - self.last >= SECONDS_BETWEEN_DRAWINGS:
                self.last = now
                self._draw(self._text(done, tasks, now - self.started))
            return
        tenths = 10 * done // max(1, tasks)
        at_the_end = done == tasks and self.tenths > 0
        if tenths > self.tenths and (at_the_end or now - self.last >= SECONDS_BETWEEN_LINES):
            self.last, self.tenths = now, tenths
            _print(self._text(done, tasks, now - self.started) + "\n")

    def erase(self) -> None:
        """Leave nothing of the line behind."""
        if self.drawn:
            self._draw("")
            _print("\r")

    def _draw(self, text: str) -> None:
        _print(f"\r{text:<{self.drawn}}")
        self.drawn = len(text)

    def _text(self, done: int, tasks: int, seconds: float) -> str:
        share = max(1, done) / max(1, tasks)
        whole = size_text(self.nbytes) if self.nbytes else f"{tasks:,} tasks"
        speed = f", {size_text(share * self.nbytes / max(1e-9, seconds))}/s" if self.nbytes else ""
        left = f", {seconds_text(max(1, round(seconds / share - seconds)))} left" if done < tasks else ""
        return f"{100 * done // max(1, tasks)}% of {whole} in {seconds:.1f} s{speed}{left}"


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a full or closed log does not stop a pass
        print(text, end="", flush=True)


def of_threads(line: Line) -> Any:
    """Return a context manager that shows the progress of Dask's own schedulers."""
    from dask.callbacks import Callback

    def after_task(key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        done = len(state["finished"])
        line.show(done, done + sum(len(state[what]) for what in ("ready", "waiting", "running")))

    return Callback(posttask=after_task, finish=lambda graph, state, failed: line.erase())


def of_cluster(line: Line, futures: Sequence[Any]) -> None:
    """Show the progress of futures until they are done."""
    from distributed.diagnostics.progressbar import TextProgressBar

    class Drawn(TextProgressBar):  # type: ignore[misc]
        def _draw_bar(self, remaining: int, all: int, **_: object) -> None:
            line.show(all - remaining, all)

        def _draw_stop(self, **_: object) -> None:
            line.erase()

    try:
        Drawn(futures)
    finally:
        line.erase()
