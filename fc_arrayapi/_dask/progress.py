"""The progress of a pass: the bars of Dask and distributed where a person looks on, lines where the output is a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

# No two lines come closer, and none sooner after the start: a short pass says nothing.
SECONDS_BETWEEN_LINES = 1.0


def is_log() -> bool:
    """Say whether what is printed goes to a file, a pipe or nowhere, where no bar that draws over itself is read."""
    on_terminal = getattr(sys.stdout, "isatty", bool)()
    in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
    return not (on_terminal or in_notebook)


class Lines:
    """A line for each tenth of a pass, but no two within a second; a pass that had one ends in one."""

    def __init__(self) -> None:
        self.started = self.last = time.perf_counter()
        self.tenths = 0

    def show(self, done: int, tasks: int) -> None:
        """Print a line if so many tasks of all are another tenth."""
        now, tenths = time.perf_counter(), 10 * done // max(1, tasks)
        at_the_end = done == tasks and self.tenths > 0
        if tenths > self.tenths and (at_the_end or now - self.last >= SECONDS_BETWEEN_LINES):
            self.last, self.tenths = now, tenths
            with contextlib.suppress(OSError, ValueError):  # a log that is full or closed does not end a pass
                print(f"{10 * tenths}% of {tasks:,} tasks in {now - self.started:.1f} s", flush=True)


def of_threads() -> Any:
    """Return a context manager that shows the progress of Dask's own schedulers."""
    from dask.callbacks import Callback
    from dask.diagnostics import ProgressBar

    if not is_log():
        return ProgressBar()
    lines = Lines()

    def after_task(key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        done = len(state["finished"])
        lines.show(done, done + sum(len(state[what]) for what in ("ready", "waiting", "running")))

    return Callback(posttask=after_task)


def of_cluster(futures: Sequence[Any]) -> None:
    """Show the progress of futures until they are done."""
    from distributed import progress
    from distributed.diagnostics.progressbar import TextProgressBar

    lines = Lines()

    class InLines(TextProgressBar):  # type: ignore[misc]
        def _draw_bar(self, remaining: int, all: int, **_: object) -> None:
            lines.show(all - remaining, all)

        def _draw_stop(self, **_: object) -> None:
            pass

    if is_log():
        InLines(futures)
    else:
        progress(futures, notebook=False)
