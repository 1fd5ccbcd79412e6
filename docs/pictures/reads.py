"""Count what is read when loss, dW and dB are computed together, and one by one: `python docs/pictures/reads.py`.

The reads of a memory-mapped file are counted where the blocks are asked for, so that neither the
system's cache nor the disk changes the count.
"""

import argparse
import tempfile
import threading
from pathlib import Path

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
from drawing import BLUE, GREY, ORANGE, save

import fc_arrayapi as fc

C, S, BLOCKS = 256, 10, 16


class Counted:
    """An array in a file that counts how often each block is read."""

    def __init__(self, path):
        self.array = np.load(path, mmap_mode="r")
        self.shape, self.dtype, self.ndim = self.array.shape, self.array.dtype, self.array.ndim
        self.reads, self.lock = {}, threading.Lock()

    def __getitem__(self, index):
        with self.lock:
            block = index[0].start * BLOCKS // self.shape[0]
            self.reads[block] = self.reads.get(block, 0) + 1
        return self.array[index]


def counts(path, layer, together):
    """Return how often each block was read."""
    source = Counted(path)
    X = da.from_array(source, chunks=(len(source.array) // BLOCKS, C), meta=np.empty((0, 0), source.dtype))
    source.reads.clear()  # what Dask looked at
    Y = layer(X)
    grads = layer.backward(X, Y, needs=("dW", "dB"))
    parts = ((Y**2).sum() / 2, grads.dW, grads.dB)
    if together:
        fc.compute(*parts)
    else:
        for part in parts:
            part.compute()
    return [source.reads.get(block, 0) for block in range(BLOCKS)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gb", type=float, default=0.1, help="size of the batch in 10^9 bytes (default 0.1)")
    arguments = parser.parse_args()
    layer = fc.FullyConnected.init(C, S, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        rows = int(arguments.gb * 1e9) // (4 * C * BLOCKS) * BLOCKS
        np.lib.format.open_memmap(path, "w+", "float32", (rows, C))
        once, one_by_one = counts(path, layer, True), counts(path, layer, False)
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.bar(np.arange(BLOCKS) - 0.2, one_by_one, 0.4, color=ORANGE, label="loss.compute(), dW.compute(), dB.compute()")
    axes.bar(np.arange(BLOCKS) + 0.2, once, 0.4, color=BLUE, label="fc.compute(loss, grads)")
    axes.set(xlabel="block of X", ylabel="times read", xticks=range(BLOCKS), yticks=range(4), ylim=(0, 4.4))
    axes.tick_params(colors=GREY)
    axes.legend(frameon=False, ncols=2, loc="upper left")
    save(figure, "reads.svg")
    size = rows * C * 4 / 1e9
    print(f"{size:.2f} GB in {BLOCKS} blocks: together {sum(once)} reads, one by one {sum(one_by_one)}")


if __name__ == "__main__":
    main()
