"""Draw memory in the course of a pass over blocks and of one call in memory: `python docs/pictures/memory.py --gb 4`.

The file is sparse: it has the size but no data, so that it takes no space on the disk. Only
memory is compared here; seconds would say nothing about a real disk, so that each run is drawn
from its begin to its end.
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
from drawing import BLUE, GREEN, ORANGE, save

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
    parser.add_argument("--gb", type=float, default=0.5, help="size of the batch in 10^9 bytes (default 0.5)")
    parser.add_argument("--larger-gb", type=float, help="size of a second batch, read in blocks only")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, path = arguments.measure
        layer = fc.FullyConnected.init(C, S, dtype="float32")
        fc.compute(layer(fc.open_array(path, rows=100)[:200]).sum())  # imports are not part of a pass
        print(json.dumps(watched(lambda: {"blocks": in_blocks, "memory": in_memory}[way](path, layer))))
        return
    runs = [("memory", arguments.gb, ORANGE), ("blocks", arguments.gb, BLUE)]
    if arguments.larger_gb:
        runs.append(("blocks", arguments.larger_gb, GREEN))
    figure, (all_runs, blocks) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    with tempfile.TemporaryDirectory() as folder:
        for way, gb, colour in runs:
            path = Path(folder) / f"{gb}.npy"
            if not path.exists():
                np.lib.format.open_memmap(path, "w+", "float32", (int(gb * 1e9) // (4 * C), C))
            seconds, held = np.asarray(measure(way, path)).T
            text = {"memory": "loaded, then one call", "blocks": "block by block"}[way]
            done = 100 * seconds / seconds[-1]
            all_runs.plot(done, held / 1e9, color=colour, linewidth=2, label=f"{gb:g} GB, {text}")
            if way == "blocks":
                blocks.plot(done, held / 1e6, color=colour, linewidth=1.5)
            print(f"{way}, {gb} GB: peak {held.max() / 1e6:,.0f} MB in {seconds[-1]:.1f} s")
    all_runs.set(
        xlabel="part of the run, %", ylabel="anonymous memory, GB", title="all three" if arguments.larger_gb else "both"
    )
    blocks.set(xlabel="part of the run, %", ylabel="the same in MB", title="block by block, a closer look")
    all_runs.legend(frameon=False)
    for axes in (all_runs, blocks):
        axes.set_ylim(bottom=0)
    save(figure, "memory.svg")


if __name__ == "__main__":
    main()
