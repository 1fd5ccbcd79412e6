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

# How long tasks seem to take, to see which run at the same time: FLOP and bytes in a second, and seconds for Dask. One
# like this machine's, one where all tasks take the same time, and one where only memory takes time: which blocks meet
# in memory differs by a third, and the most of them is planned. Long graphs are followed once, since that takes time.
TIMINGS = ((2e10, 3e9, 2e-4), (1e30, 1e30, 1e-3), (1e30, 3e9, 0.0))
LONG_GRAPH = 5000

# What each thread and Dask take beside blocks.
TASK_BYTES = 2**19
# What Dask holds of the graph, for each task before and after it is optimized, and for each block that is written.
# Measured over 200 to 8,000 blocks of dW and dB, of a softmax, norms, and a file.
RAW_BYTES, GRAPH_BYTES, WRITE_BYTES = 1200, 2900, 10_000


@dataclass
class Costs:
    """The costs of a pass."""

    tasks: int
    blocks: int
    flops: int
    work: int  # those in float32 that take as long
    elements: int  # bytes that element by element steps go through
    bytes_read: int
    bytes_written: int
    to_files: int  # part of them
    blocks_written: int
    peak: int
    graph: int  # part of the peak that Dask's tasks take: it grows with the number of blocks
    fixed: int  # part of it that does not depend on the rows of a block
    results: int  # part of it that results take, which stay in memory
    long: bool  # whether one of those is as long as the batch
    rows: int  # of the largest block
    widest: int  # bytes of the largest matrix of a product
    sources: list[Any]  # the arrays that are read, with the largest of their blocks
    cut: bool  # whether any task takes some rows of a block that was computed
    unknown: tuple[str, ...]  # functions of which no size is known


NOTHING = Costs(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, False, 0, 0, [], False, ())


def costs(
    collections: Sequence[Any], written: Sequence[bool], threads: int, in_cluster: int = 0, limit: float = 0
) -> Costs:
    """Return the costs of computing collections in one pass.

    Parameters
    ----------
    collections : sequence
        Dask arrays, and other collections of Dask.
    written : sequence of bool
        Whether each goes to a file, block by block, or stays in memory.
    threads : int
        Threads of a worker.
    in_cluster : int
        Threads of all workers of a cluster, in whose memory the graph is not; 0 on this machine.
    limit : float
        Bytes to which the peak is compared: one that is far below is not looked at more closely.
    """
    from dask.core import flatten
    from dask.order import order

    graph, raw, asked = optimized(collections, in_cluster)
    kept: set[Any] = set()
    for collection, to_file in zip(asked, written, strict=True):
        kept |= set() if to_file else set(flatten(collection.__dask_keys__()))
    memory = Memory()
    priority = order(graph)
    peak, by_rows, held = _simulate(graph, priority, kept, threads, memory, TIMINGS[0])
    closely = len(graph) <= LONG_GRAPH and 2 * peak > limit
    for timing in TIMINGS[1:] if closely else ():
        peak, by_rows, held = max((peak, by_rows, held), _simulate(graph, priority, kept, threads, Memory(), timing))
    sizes = [_bytes(x) for x in collections]
    in_blocks = [
        (x, size)
        for x, size, to_file in zip(asked, sizes, written, strict=True)
        if not to_file and is_lazy(x) and math.prod(x.numblocks) > 1
    ]
    results = held + sum(size for _, size in in_blocks)  # Dask joins the blocks at the end
    blocks = sum(math.prod(x.numblocks) for x, to_file in zip(asked, written, strict=True) if to_file)
    beside = 0 if in_cluster else RAW_BYTES * raw + GRAPH_BYTES * len(graph) + WRITE_BYTES * blocks
    peak = max(peak, results) + memory.kept_by_own_threads + TASK_BYTES * (min(threads, len(graph)) + 1)
    sources = sorted(memory.sources.values(), key=lambda read: -read.nbytes * read.blocks)
    rows = max((read.rows for read in sources), default=0)
    return Costs(
        tasks=sum(hasattr(task, "func") for task in graph.values()),
        blocks=max((read.blocks for read in sources), default=0),
        flops=memory.flops,
        work=memory.work,
        elements=memory.elements,
        bytes_read=memory.read,
        bytes_written=sum(sizes),
        to_files=sum(size for size, to_file in zip(sizes, written, strict=True) if to_file),
        blocks_written=blocks,
        peak=peak + beside,
        graph=beside,
        fixed=peak - min(peak, by_rows + memory.kept_by_own_threads),
        results=results,
        long=any(x.numblocks[0] > 1 for x, _ in in_blocks),
        rows=rows,
        widest=memory.widest,
        sources=sources,
        cut=memory.cut,
        unknown=tuple(memory.unknown),
    )


def _bytes(array: Any) -> int:
    """Return the bytes of a Dask array; 0 of another collection, and of unknown size."""
    if not is_lazy(array) or any(size != size for size in array.shape):
        return 0
    return int(math.prod(array.shape) * array.dtype.itemsize)


def optimized(collections: Sequence[Any], in_cluster: int) -> tuple[dict[Any, Any], int, Sequence[Any]]:
    """Return the tasks as `compute` would run them, how many were there before, and the collections of their keys."""
    import dask
    from dask._task_spec import convert_legacy_graph
    from dask.core import flatten
    from dask.highlevelgraph import HighLevelGraph

    graphs = [collection.__dask_graph__() for collection in collections]
    graph: Any
    if all(isinstance(each, HighLevelGraph) for each in graphs):
        # dask.optimize would optimize each by itself, and count twice what they share.
        keys = [key for collection in collections for key in flatten(collection.__dask_keys__())]
        merged = HighLevelGraph.merge(*graphs)
        raw = len(merged)
        graph = one_task.optimize(merged, keys, in_cluster)
    else:
        raw = 0
        collections = dask.optimize(*collections)
        graph = {key: task for collection in collections for key, task in collection.__dask_graph__().items()}
    graph = convert_legacy_graph(dict(graph))
    return {key: one_task.with_order(task) for key, task in graph.items()}, raw, collections


def _simulate(
    graph: Mapping[Any, Any],
    priority: Mapping[Any, int],
    kept: set[Any],
    threads: int,
    memory: Memory,
    timing: tuple[float, float, float],
) -> tuple[int, int, int]:
    """Run the tasks; return the most bytes at a time, how many of them grow with a block, and what stays."""
    flop_rate, byte_rate, fixed = timing
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
    now, beside, peak, at_peak, number, go_on, in_heaps = 0.0, 0, 0, 0, 0, 0, 0

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
            going_on = _owned(result) if left[key] and key not in kept else 0
            go_on += going_on >= 2**20
            full = going_on >= 2**24 or memory.most - before >= 2 * memory.largest > 2**25
            in_heaps = max(in_heaps, memory.largest)
            stays = _kept_by_allocator(memory.largest, 48 if full else go_on)
            if memory.mapped:  # beside such blocks, heaps keep twice what an earlier task took and freed, and pieces
                stays = in_heaps * 5 // 2
            extra = memory.most - memory.now + stays
            memory.mapped = False
            memory.largest = 0
            seconds = fixed + (memory.flops - flops) / flop_rate + (memory.elements + memory.read - passed) / byte_rate
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


def _owned(result: Any) -> int:
    """Return the bytes of a result, or of the parts of one."""
    parts = result if isinstance(result, tuple) else (result,)
    return sum(part.owned for part in parts if isinstance(part, Block))


def _kept_by_allocator(largest: int, go_on: int) -> int:
    """Return what stays of freed blocks in a thread's heaps of 64 MiB, from the largest block in them.

    Where many blocks go on to other tasks, or a few that fill a heap, what is free comes to lie between what is not.
    """
    if largest > 2**24:
        return int(min(1.0, max(1 / 7, go_on / 48)) * largest * 9 / 4)
    return int(min(1.0, go_on / 48) * largest * 3 / 2)


def _of_rows(results: Mapping[Any, Any], memory: Memory) -> int:
    """Return the bytes of results that have as many rows as a block that is read: others are parts of sums."""
    rows = {read.rows for read in memory.sources.values()}
    blocks = [result for result in results.values() if isinstance(result, Block) and result.shape]
    return sum(block.held for block in blocks if block.shape[0] in rows)
