"""The progress of a pass: the bars of Dask and distributed on a terminal and in a notebook, lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

# Between two lines, and before the first: a short pass prints none.
SECONDS_BETWEEN_LINES = 1.0


def is_log() -> bool:
    """Say whether output goes to a file, a pipe or nowhere, where a bar that redraws itself cannot be read."""
    on_terminal = getattr(sys.stdout, "isatty", bool)()
    in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
    return not (on_terminal or in_notebook)


class Lines:
    """A line for each tenth of a pass, at most one a second; after the first line, the end is always printed."""

    def __init__(self) -> None:
        self.started = self.last = time.perf_counter()
        self.tenths = 0

    def show(self, done: int, tasks: int) -> None:
        """Print a line if another tenth of the tasks is done."""
        now, tenths = time.perf_counter(), 10 * done // max(1, tasks)
        at_the_end = done == tasks and self.tenths > 0
        if tenths > self.tenths and (at_the_end or now - self.last >= SECONDS_BETWEEN_LINES):
            self.last, self.tenths = now, tenths
            with contextlib.suppress(OSError, ValueError):  # a full or closed log does not stop a pass
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
