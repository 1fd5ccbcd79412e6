"""What a pass over 100 GB to 250 TB takes, measured or computed: the tables of docs/scale.md.

`python tests/benchmarks/scale.py` prints them. Measured: the tasks of a block, the time and memory to build and to
optimize the graph, and the time that the pass takes for a block that holds next to nothing, on a LocalCluster.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import fc_arrayapi as fc
from fc_arrayapi._dask import blocks, pass_costs
from fc_arrayapi._files.mapped import MappedArray

BLOCK = 2**27
C, S = 1024, 10
THREADS = 10  # of the cluster for which the graph is optimized
SIZES = {"100 GB": 10**11, "1 TB": 10**12, "10 TB": 10**13, "250 TB": 25 * 10**13}
WORKERS = (1, 10, 100, 1000)
# Of one worker with four threads; the slower of reading and computing decides.
READ, FLOPS = 1e9, 1e11


def gradients(N: int, rows: int, columns: int = C) -> Any:
    """Return dW and dB of a batch in a file that is not there, X -> Y - T -> dW, dB."""
    X, T = (
        blocks.from_source(MappedArray(Path(name), (0, 0), name, (N, k), np.dtype("float32"), 128), rows)
        for name, k in (("x.npy", columns), ("t.npy", S))
    )
    W = np.zeros((columns, S), "float32")
    return fc.backward(X, W, fc.forward(X, W) - T, needs=("dW", "dB"))[1:]


def build(total: int) -> None:
    """Build and optimize the graph of a pass, and print seconds and the memory of this process."""
    rows = BLOCK // (4 * C)
    N = total // (4 * C)
    start = time.perf_counter()
    lazy = gradients(N, rows)
    built = time.perf_counter()
    optimized, before, _ = pass_costs.optimized(lazy, THREADS)
    done = time.perf_counter()
    after = len(optimized)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(-(-N // rows), before, after, built - start, done - built, peak)


def measured_build(total: int) -> list[float]:
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; import scale; scale.build({total})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [float(number) for number in run.stdout.split()]


class Nothing:
    """Rows of zeros, next to none of them read."""

    ndim, dtype = 2, np.dtype("float32")

    def __init__(self, N: int, columns: int) -> None:
        self.shape = (N, columns)

    def __dask_tokenize__(self) -> Any:
        return "Nothing", self.shape

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.zeros([len(range(*part.indices(size))) for part, size in zip(index, self.shape, strict=True)], "f4")


def scheduler(workers: int, count: int) -> float:
    """Return the seconds for a block in a pass over blocks of one row each, in client, scheduler and workers."""
    import distributed

    X, T = (blocks.from_source(Nothing(count, k), 1) for k in (4, S))
    W = np.zeros((4, S), "float32")
    lazy = fc.backward(X, W, fc.forward(X, W) - T, needs=("dW", "dB"))[1:]
    with (
        distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        fc.compute(lazy[1][:1])
        start = time.perf_counter()
        fc.compute(lazy)
        return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="*", default=[2, 8], help="processes of the LocalCluster")
    parser.add_argument("--blocks", type=int, default=2000, help="blocks of the pass over nothing")
    given = parser.parse_args()
    print("| batch | blocks of 128 MiB | tasks before and after joining | graph built | optimized | client's memory |")
    print("|---|---|---|---|---|---|")
    for name in ("100 GB", "1 TB", "10 TB"):
        count, before, after, built, optimized, peak = measured_build(SIZES[name])
        print(
            f"| {name} | {count:,.0f} | {before:,.0f}, {after:,.0f} | {built:.2f} s | {optimized:.1f} s | "
            f"{peak / 1e9:.2f} GB |"
        )
    per_task = {workers: scheduler(workers, given.blocks) for workers in given.workers}
    print()
    for workers, each in per_task.items():
        print(f"{workers} workers: {1e3 * each:.2f} ms for each block")
    each = max(per_task.values())
    print("\n| batch | " + " | ".join(f"{workers:,} workers" for workers in WORKERS) + " |")
    print("|---|" + "---|" * len(WORKERS))
    for name, total in SIZES.items():
        cells = []
        for workers in WORKERS:
            work = total / workers * max(1 / READ, 4 * S / 4 / FLOPS)
            scheduling = total / BLOCK * each
            limit = "scheduler" if scheduling > work else "disks"
            cells.append(f"{_time(max(work, scheduling))}, {limit}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )


if __name__ == "__main__":
    main()
