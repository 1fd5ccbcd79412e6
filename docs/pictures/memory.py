"""Draw the peak memory of one pass, the batch loaded or streamed: `python docs/pictures/memory.py`.

The files are sparse: they have the size but no data, so that they take no space on the disk. Only
memory is compared here; seconds would say nothing about a real disk.
Memory is RssAnon of /proc (Linux), what the process holds beside files in the system's cache.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from drawing import BLUE, ORANGE, save

import fc_arrayapi as fc

C, S = 256, 10


def anonymous():
    """Return the anonymous memory of this process in bytes."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024


def watched(function):
    """Return the seconds and the memory while a function runs, on top of what was held before."""
    points, stop, start, before = [], threading.Event(), time.perf_counter(), anonymous()

    def watch():
        while not stop.is_set():
            points.append((time.perf_counter() - start, anonymous() - before))
            stop.wait(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    function()
    points.append((time.perf_counter() - start, anonymous() - before))
    stop.set()
    thread.join()
    return points


def in_blocks(path, layer):
    """Do a pass over blocks: each is read, used and dropped."""
    X = fc.open_array(path)
    Y = layer(X)
    fc.compute((Y**2).sum() / 2, layer.backward(X, Y, needs=("dW", "dB")))


def in_memory(path, layer):
    """Load the batch, then call the same functions."""
    X = np.load(path)
    Y = layer(X)
    float((Y**2).sum() / 2), layer.backward(X, Y, needs=("dW", "dB"))


def measure(way, path):
    """Measure in a process of its own, so that nothing is left from another one."""
    command = [sys.executable, __file__, "--measure", way, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=4, help="size of the batch in 10^9 bytes (default 4)")
    parser.add_argument("--larger-gb", type=float, default=16, help="size of one that is streamed only (default 16)")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, path = arguments.measure
        layer = fc.FullyConnected.init(C, S, dtype="float32")
        fc.compute(layer(fc.open_array(path, rows=100)[:200]).sum())  # imports are not part of a pass
        print(json.dumps(watched(lambda: {"blocks": in_blocks, "memory": in_memory}[way](path, layer))))
        return
    runs = [("memory", arguments.gb, ORANGE), ("blocks", arguments.gb, BLUE), ("blocks", arguments.larger_gb, BLUE)]
    texts = {"memory": "loaded with np.load", "blocks": "streamed"}
    figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
    with tempfile.TemporaryDirectory() as folder:
        for place, (way, gb, colour) in enumerate(runs):
            path = Path(folder) / f"{gb}.npy"
            if not path.exists():
                np.lib.format.open_memmap(path, "w+", "float32", (int(gb * 1e9) // (4 * C), C))
            seconds, held = np.asarray(measure(way, path)).T
            print(f"{way}, {gb} GB: peak {held.max() / 1e6:,.0f} MB in {seconds[-1]:.1f} s")
            axes.barh(place, held.max() / 1e6, color=colour, height=0.62)
            inside = held.max() > 3e8
            axes.text(held.max() / 1e6, place, f" {size(held.max())} ", va="center", ha="right" if inside else "left",
                      color="white" if inside else "black", fontsize=13, weight="bold")  # fmt: skip
    axes.set_yticks(range(len(runs)), [f"{gb:g} GB {texts[way]}" for way, gb, _ in runs], fontsize=12)
    axes.set(xscale="log", xlim=(1, 1e4), xticks=[1, 10, 100, 1000, 10000])
    axes.set_xticklabels(["1 MB", "10 MB", "100 MB", "1 GB", "10 GB"])
    figure.suptitle("Peak memory of one pass: loss, dW and dB", fontsize=12, x=0.02, ha="left")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    save(figure, "memory.svg")


def size(nbytes):
    """Write a number of bytes as people read it."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
