"""Draw the time of forward and backward against N: `python docs/pictures/time_against_n.py --rows 1000000`.

Each time is the least of several runs: other work on the machine only ever adds to it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from drawing import BLUE, GREEN, GREY, ORANGE, save

import fc_arrayapi as fc

C, S = 256, 10


def least_seconds(functions, runs):
    """Return the least of several times of each; they take turns, so that other work disturbs all alike."""
    times = [[] for _ in functions]
    for _ in range(runs):
        for own, function in zip(times, functions, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return [min(own) for own in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000, help="the largest N (default 100,000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each (default 5)")
    arguments = parser.parse_args()
    sizes = [10**k for k in range(2, 12) if 10**k <= arguments.rows]
    layer = fc.FullyConnected.init(C, S, dtype="float32")
    W, B = layer.W, layer.B
    rng = np.random.default_rng(0)
    took = {"by hand: X @ W + B, X.T @ Y, Y.sum(axis=0)": [], "fc, in memory": [], "fc, from a .npy file": []}
    with tempfile.TemporaryDirectory() as folder:
        for N in sizes:
            X = rng.random((N, C), dtype=np.float32)
            path = Path(folder) / f"{N}.npy"
            np.save(path, X)

            def by_hand(X=X):
                Y = X @ W + B
                return X.T @ Y, Y.sum(axis=0)

            def in_memory(X=X):
                return layer.backward(X, layer(X), needs=("dW", "dB"))

            def from_file(path=path):
                X = fc.open_array(path, rows=32_768)
                return fc.compute(layer.backward(X, layer(X), needs=("dW", "dB")))

            least = least_seconds((by_hand, in_memory, from_file), arguments.runs)
            for times, own in zip(took.values(), least, strict=True):
                times.append(own)
            print(f"N = {N:>10,}: " + ", ".join(f"{times[-1] * 1e3:.3g} ms" for times in took.values()))
            path.unlink()
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for (name, times), colour, mark in zip(took.items(), (GREY, ORANGE, BLUE), "sov", strict=True):
        axes.loglog(sizes, times, marker=mark, color=colour, label=name, alpha=0.85)
    axes.loglog(sizes, np.asarray(sizes) * took["fc, in memory"][-1] / sizes[-1], ":", color=GREEN, label="∝ N")
    axes.set(xlabel=f"N, rows of {C} float32 features", ylabel="seconds for Y, dW and dB")
    axes.legend(frameon=False)
    save(figure, "time.svg")


if __name__ == "__main__":
    main()
