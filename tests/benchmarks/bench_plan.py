"""The time of a pass against the one that was planned, where one block is read and one product made."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import dask
import pytest

import fc_arrayapi as fc

sys.path.append(str(Path(__file__).parent.parent))  # for the passes of the tests
from helpers.planned_passes import PASSES

NAMES = (
    "training-512-64-2", "training-256-1000-2", "training-512-64-float16-2", "training-512-64-float64-2",
    "softmax-1000-2", "forward_in_memory-16-1024-2", "forward_to_file-256-1000-1", "norms-2", "moments-1024-2",
    "from_zarr-compressed-2", "from_parquet-2", "from_random_blocks-1024-2",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_time_that_was_planned(against, folder, name):
    make, threads = PASSES[name]
    results = make(folder)

    def run() -> None:
        fc.store(results, overwrite=True) if isinstance(results, dict) else fc.compute(results)

    with dask.config.set(scheduler="threads", num_workers=threads):
        run()  # the file is in the system's cache, as in every round that follows
        planned = fc.plan(results, measure=True).seconds
        against(name, run, "fc.plan(measure=True)", lambda: time.sleep(planned), at_most=2.0, peaks="none")
