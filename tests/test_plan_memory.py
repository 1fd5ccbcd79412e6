"""The memory that was planned against what passes take, each in a process of its own, under a limit of just that."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.planned_passes import PASSES

RUN = """
import ctypes, json, resource, sys, threading, warnings
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
import dask, dask.array as da, numpy as np, threadpoolctl
import fc_arrayapi as fc
from helpers.planned_passes import PASSES

warnings.simplefilter("ignore")
folder, name = Path(sys.argv[1]), sys.argv[2]
make, threads = PASSES[name]
dask.config.set(scheduler="threads", num_workers=threads)

def memory(field):
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0]) * 1024

def run(results, **options):
    fc.store(results, overwrite=True, **options) if isinstance(results, dict) else fc.compute(results, **options)

seen, done = [], threading.Event()

def watch():
    while not done.wait(0.002):
        seen.append((memory("RssAnon"), memory("VmData")))

thread = threading.Thread(target=watch, daemon=True)
thread.start()

# What a first pass takes once: imports, threads, and a buffer of BLAS for each of them.
barrier, wide = threading.Barrier(threads), np.ones((128, 8192), "float32")
with threadpoolctl.threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
    list(pool.map(lambda _: (barrier.wait(), [(wide @ wide.T)[0, 0] for _ in range(20)]), range(threads)))
for dtype in ("float32", "float64"):
    small = da.ones((1024 * threads, 1024), chunks=(256, 1024), dtype=dtype)
    run(fc.grad_weight(small, fc.forward(small, np.ones((1024, 256), dtype))))
if isinstance(results := make(folder), dict):
    run({path.with_stem("first"): fc.forward(small, np.ones((1024, 2))) for path in results})
ctypes.CDLL(None).malloc_trim(0)  # what these passes freed would be used again
before, limit = memory("RssAnon"), max(data for _, data in seen)
plan = fc.plan(results)
limit += plan.peak_memory
seen.clear()
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    run(results, memory_limit=plan.peak_memory)
    survived = True
except MemoryError:
    survived = False
done.set()
thread.join()
print(json.dumps([plan.peak_memory, max(anonymous for anonymous, _ in seen) - before, survived]))
"""


@pytest.mark.only("dask.array")
@pytest.mark.needs("the_disk")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory apart")
@pytest.mark.parametrize("name", PASSES)
def test_a_pass_takes_the_memory_that_was_planned(backend, tmp_path, name):
    folders = map(tmp_path.joinpath, "12345")

    def measured() -> float:
        folder = next(folders)  # where a pass makes its files anew
        folder.mkdir()
        ran = subprocess.run(
            [sys.executable, "-c", RUN, str(folder), name], capture_output=True, text=True, cwd=Path(__file__).parent
        )
        assert ran.returncode == 0, ran.stderr
        shutil.rmtree(folder)  # up to half a gigabyte
        planned, peak, survived = json.loads(ran.stdout)
        assert survived
        print(f"planned {planned / 1e6:.0f} MB, measured {peak / 1e6:.0f} MB, ratio {peak / planned:.2f}")
        near = abs(peak - planned) < 15e6
        return 1 if near else peak / planned

    # Threads that wait for others hold less in one pass and a block more in another.
    ratios = [measured()]
    if not 0.6 <= ratios[0] <= 1:
        ratios += [measured(), measured()]
    assert statistics.median(ratios) <= 1
    while max(ratios) < 0.6 and len(ratios) < 5:  # the plan is of the most that a pass may take
        ratios.append(measured())
    assert max(ratios) >= 0.6
