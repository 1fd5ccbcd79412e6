"""What a pass takes: its tasks run in Dask's order, as many at a time as threads, on the sizes of blocks alone."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._arrays.namespace import is_lazy
from . import one_task
from .block_sizes import Block, Memory, run

# How long a task seems to take, to see which run at the same time: a float32 product, a pass over memory, Dask.
FLOPS, BYTES, TASK = 2e10, 3e9, 2e-4

# What each thread and Dask take beside blocks.
TASK_BYTES = 2**19


@dataclass
class Costs:
    """The costs of a pass."""

    tasks: int
    blocks: int
    flops: int
    elements: int  # bytes that element by element steps go through
    bytes_read: int
    bytes_written: int
    peak: int
    fixed: int  # part of the peak that does not depend on the rows of a block
    rows: int  # of the largest block
    widest: int  # bytes of the largest matrix of a product
    sources: list[Any]  # the arrays that are read, with the largest of their blocks
    unknown: tuple[str, ...]  # functions of which no size is known


def costs(collections: Sequence[Any], written: Sequence[bool], threads: int) -> Costs:
    """Return the costs of computing collections in one pass.

    Parameters
    ----------
    collections : sequence
        Dask arrays, and other collections of Dask.
    written : sequence of bool
        Whether each goes to a file, block by block, or stays in memory.
    threads : int
        Threads of a worker.
    """
    from dask.core import flatten
    from dask.order import order

    graph, optimized = _optimized(collections)
    kept: set[Any] = set()
    for collection, to_file in zip(optimized, written, strict=True):
        kept |= set() if to_file else set(flatten(collection.__dask_keys__()))
    memory = Memory()
    peak, by_rows, held = _simulate(graph, order(graph), kept, threads, memory)
    sizes = [_bytes(x) for x in collections]
    joined = sum(
        size
        for x, size, to_file in zip(optimized, sizes, written, strict=True)
        if not to_file and is_lazy(x) and math.prod(x.numblocks) > 1
    )
    peak = max(peak, held + joined) + TASK_BYTES * (min(threads, len(graph)) + 1)
    sources = sorted(memory.sources.values(), key=lambda read: -read.nbytes * read.blocks)
    rows = max((read.rows for read in sources), default=0)
    return Costs(
        tasks=sum(hasattr(task, "func") for task in graph.values()),
        blocks=max((read.blocks for read in sources), default=0),
        flops=memory.flops,
        elements=memory.elements,
        bytes_read=memory.read,
        bytes_written=sum(sizes),
        peak=peak,
        fixed=peak - min(peak, by_rows),
        rows=rows,
        widest=memory.widest,
        sources=sources,
        unknown=tuple(memory.unknown),
    )


def _bytes(array: Any) -> int:
    """Return the bytes of a Dask array; 0 of another collection, and of unknown size."""
    if not is_lazy(array) or any(size != size for size in array.shape):
        return 0
    return int(math.prod(array.shape) * array.dtype.itemsize)


def _optimized(collections: Sequence[Any]) -> tuple[dict[Any, Any], Sequence[Any]]:
    """Return the tasks as `compute` would run them, and the collections that have their keys."""
    import dask
    from dask._task_spec import convert_legacy_graph
    from dask.core import flatten
    from dask.highlevelgraph import HighLevelGraph

    graphs = [collection.__dask_graph__() for collection in collections]
    graph: Any
    if all(isinstance(each, HighLevelGraph) for each in graphs):
        # dask.optimize would optimize each by itself, and count twice what they share.
        keys = [key for collection in collections for key in flatten(collection.__dask_keys__())]
        graph = one_task.optimize(HighLevelGraph.merge(*graphs), keys)
    else:
        collections = dask.optimize(*collections)
        graph = {key: task for collection in collections for key, task in collection.__dask_graph__().items()}
    graph = convert_legacy_graph(dict(graph))
    return {key: one_task.with_order(task) for key, task in graph.items()}, collections


def _simulate(
    graph: Mapping[Any, Any],
    priority: Mapping[Any, int],
    kept: set[Any],
    threads: int,
    memory: Memory,
) -> tuple[int, int, int]:
    """Run the tasks; return the most bytes at a time, how many of them grow with a block, and what stays."""
    waiting = {key: set(task.dependencies) & graph.keys() for key, task in graph.items()}
    uses: dict[Any, list[Any]] = {key: [] for key in graph}
    for key, others in waiting.items():
        for other in others:
            uses[other].append(key)
    left = {key: len(keys) for key, keys in uses.items()}
    ready = [(priority[key], key) for key, others in waiting.items() if not others]
    heapq.heapify(ready)
    results: dict[Any, Any] = {}
    running: list[tuple[float, int, Any, int]] = []
    now, beside, peak, at_peak, number = 0.0, 0, 0, 0, 0

    def finish(key: Any) -> None:
        for other in waiting_on[key]:
            left[other] -= 1
            if not left[other] and other not in kept:
                results.pop(other, None)
        if not left[key] and key not in kept:
            results.pop(key, None)
        for user in uses[key]:
            waiting[user].discard(key)
            if not waiting[user]:
                heapq.heappush(ready, (priority[user], user))

    waiting_on = {key: tuple(others) for key, others in waiting.items()}
    while ready or running:
        while ready and len(running) < threads:
            _, key = heapq.heappop(ready)
            task = graph[key]
            if not hasattr(task, "func"):
                results[key] = task.value if hasattr(task, "value") else results[task.target]
                finish(key)
                continue
            before, flops, passed = memory.now, memory.flops, memory.elements + memory.read
            memory.most, memory.largest = before, 0
            try:
                result = run(task, results, memory)
            except Exception:  # its arguments are not known
                name = str(key[0] if isinstance(key, tuple) else key)
                result, memory.unknown[name.rpartition("-")[0] or name] = None, None
            results[key] = result
            extra = memory.most - memory.now + _kept_by_allocator(memory.largest, memory.most - before)
            memory.largest = 0
            seconds = TASK + (memory.flops - flops) / FLOPS + (memory.elements + memory.read - passed) / BYTES
            number += 1
            heapq.heappush(running, (now + seconds, number, key, extra))
            beside += extra
            if memory.now + beside > peak:
                peak, at_peak = memory.now + beside, _of_rows(results, memory) + beside
            del result
        if running:
            now, _, key, extra = heapq.heappop(running)
            beside -= extra
            finish(key)
    return peak, at_peak, sum(result.held for result in results.values() if isinstance(result, Block))


def _kept_by_allocator(largest: int, most: int) -> int:
    """Return what stays of freed blocks in a thread's heaps of 64 MiB, of glibc: one block of 16 to 32 MiB in each."""
    return largest * 3 // 2 if 2**24 < largest <= 2**25 and most >= 2 * largest else 0


def _of_rows(results: Mapping[Any, Any], memory: Memory) -> int:
    """Return the bytes of results that have as many rows as a block that is read: others are parts of sums."""
    rows = {read.rows for read in memory.sources.values()}
    blocks = [result for result in results.values() if isinstance(result, Block) and result.shape]
    return sum(block.held for block in blocks if block.shape[0] in rows)
