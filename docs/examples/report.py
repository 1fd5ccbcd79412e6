"""What the demo shows while it runs and at the end: progress, memory, a picture."""

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
    """Watch the anonymous memory of this process from a thread, and keep its peak."""

    def __enter__(self) -> Memory:
        self.peak, self._stop = anonymous_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Passes:
    """Print one line for each pass over the data."""

    def __init__(self, rows: int, row_bytes: int) -> None:
        self.rows, self.row_bytes, self.losses, self.seconds = rows, row_bytes, [], []
        self._last = time.perf_counter()

    def done(self, loss: float) -> None:
        """Count a pass that ends now."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self.losses.append(loss)
        self.seconds.append(seconds)
        rate = self.rows / seconds
        show(
            f"pass {len(self.losses):3d}: loss {loss:.4f}, {rate / 1e3:,.0f} thousand rows/s, "
            f"{rate * self.row_bytes / 1e9:.2f} GB/s, {anonymous_bytes() / 1e6:,.0f} MB of memory"
        )


def picture(path: Path, losses, truth, predicted) -> None:
    """Draw the loss curve and the confusion matrix."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (truth, predicted), 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, marker=".")
    left.set(xlabel="pass over the data", ylabel="cross-entropy + L2 penalty", yscale="log", title="Training loss")
    left.grid(alpha=0.3, which="both")
    right.imshow(np.log1p(confusion), cmap="Blues")
    for (i, j), count in np.ndenumerate(confusion):
        if count:
            right.text(j, i, count, ha="center", va="center", color="white" if i == j else "black", fontsize=9)
    accuracy = np.trace(confusion) / confusion.sum()
    right.set(
        xlabel="predicted digit", ylabel="true digit", xticks=range(10), yticks=range(10),
        title=f"{confusion.sum()} test images, {accuracy:.1%} right",
    )  # fmt: skip
    figure.savefig(path, dpi=120)
    plt.close(figure)
