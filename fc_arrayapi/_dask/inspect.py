"""Facts about a pass before it runs: the number of tasks, the threads and memory of workers."""

from __future__ import annotations

import os

from .._arrays.namespace import Array
from . import cluster


def count_tasks(*arrays: Array) -> int:
    """Count the tasks of lazy arrays, shared ones once, before Dask fuses any."""
    return len(set().union(*(array.__dask_graph__() for array in arrays)))


def workers(*arrays: Array) -> tuple[int, int | None]:
    """Return the largest number of threads of a worker, and the smallest memory in bytes, None if unknown."""
    import dask

    client = cluster.client_of(arrays)
    if client is not None:  # the scheduler reports some of its workers, which are usually alike
        found = client.scheduler_info()["workers"].values()
        limits = [worker["memory_limit"] for worker in found if worker["memory_limit"]]
        return max((worker["nthreads"] for worker in found), default=1), min(limits, default=None)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        memory = None
    if dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
        return 1, memory
    return dask.config.get("num_workers", None) or dask.system.CPU_COUNT, memory
