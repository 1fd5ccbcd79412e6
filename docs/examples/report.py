"""What the demo shows while it runs and at the end: progress, memory, results, a picture."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np


def show(line: str, passing: bool = False) -> None:
    """Print a line; on a terminal a passing one is overwritten by the next, in a log it is left out."""
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="" if passing else "\n", flush=True)
    elif not passing:
        print(line, flush=True)


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process: what it holds beside files that the system keeps cached."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024
    except (FileNotFoundError, IndexError):  # not Linux: the whole resident memory, which is more
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


class Memory:
    """Watch the anonymous memory of this process from a thread: its peak, and a point ten times a second."""

    def __enter__(self) -> Memory:
        self.peak, self._stop = anonymous_bytes(), threading.Event()
        self.started, self.points = time.perf_counter(), [(0.0, self.peak)]
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        highest = 0
        while not self._stop.wait(0.01):
            highest = max(highest, anonymous_bytes())
            self.peak = max(self.peak, highest)
            now = time.perf_counter() - self.started
            if now - self.points[-1][0] >= 0.1:
                self.points.append((now, highest))
                highest = 0

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Passes:
    """Show each pass over the data: one line that is rewritten on a terminal, passes 1, 2, 5, 10, 20, ... in a log."""

    def __init__(self, rows: int, row_bytes: int) -> None:
        self.rows, self.row_bytes, self.count = rows, row_bytes, 0
        self._last = time.perf_counter()

    def done(self, loss: float) -> None:
        """Count a pass that ends now."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self.count += 1
        first = int(str(self.count)[0]) in (1, 2, 5) and set(str(self.count)[1:]) <= {"0"}
        show(
            f"pass {self.count:3d}: loss {loss:.4f}, {seconds:.2f} s, "
            f"{self.rows * self.row_bytes / seconds / 1e9:.1f} GB/s, {anonymous_bytes() / 1e6:,.0f} MB of memory",
            passing=sys.stdout.isatty() or not first,
        )


def box(rows: dict[str, str]) -> None:
    """Print the results."""
    name = max(map(len, rows))
    lines = [f"{key:<{name}}  {value}" for key, value in rows.items()]
    width = max(map(len, lines))
    edge = f"+{'-' * (width + 2)}+"
    show("\n".join([edge, *(f"| {line:<{width}} |" for line in lines), edge]))


def picture(path: Path, points, batch_bytes: int, cap: int | None, images, truth, predicted) -> None:
    """Draw memory over the run beside the size of the batch, and the digits that were misread."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=[1.25, 1])
    seconds, held = zip(*points, strict=True)
    left.plot(seconds, np.asarray(held) / 1e6, color="C0")
    lines = [(batch_bytes, "C3", "the batch"), *([] if cap is None else [(cap, "C1", "the cap")])]
    for nbytes, color, name in lines:
        left.axhline(nbytes / 1e6, color=color, linestyle="--")
        left.text(0, nbytes / 1e6 * 1.06, f" {name}: {nbytes / 1e6:,.0f} MB", color=color)
    left.text(0, max(held) / 1e6 * 1.06, f" this run: {max(held) / 1e6:,.0f} MB at most", color="C0")
    left.set(xlabel="seconds", ylabel="memory in MB", yscale="log", title="Memory over the run")
    left.set_ylim(min(held) / 2e6, 2.5 * max(batch_bytes, *held) / 1e6)
    wrong = np.flatnonzero(truth != predicted)
    right.set_title(f"{len(wrong)} of {len(truth)} test images misread")
    right.axis("off")
    for place, k in enumerate(wrong[:12]):
        corner = [(place % 4) / 4 + 0.03, 0.7 - (place // 4) / 3, 0.19, 0.22]
        cell = right.inset_axes(corner)
        cell.imshow(images[k], cmap="gray_r")
        cell.set(xticks=[], yticks=[], xlabel=f"{truth[k]}, read as {predicted[k]}")
    figure.savefig(path, dpi=120)
    plt.close(figure)
