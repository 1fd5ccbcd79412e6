"""The plan of a pass: its costs, what to change, and whether it fits a limit of memory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays.numpy_kernels import HALVES
from .._arrays.text import size_text
from . import inspect
from .pass_costs import NOTHING, Costs, costs

# With many blocks below this size, the half millisecond that Dask spends on a block dominates.
SMALL_BLOCK, MANY_BLOCKS = 2**22, 100
LARGE_BLOCK = 2**30
# A block of a file is at most this large by default.
FEW_BLOCK = 2**26


class Planned(NamedTuple):
    """Costs, and what follows from them."""

    costs: Costs
    threads: int
    seconds: float | None
    warnings: tuple[str, ...]


def plan_of(results: Sequence[Any], measure: bool = False) -> Planned:
    """Plan a pass for what `compute` or `store` take."""
    try:
        collections, written = _collections(results)
    except ImportError:  # no Dask, so nothing here is lazy
        collections = written = []
    if not collections:
        return Planned(NOTHING, 1, None, ())
    threads, limit, in_cluster = inspect.workers(*collections)
    found = costs(collections, written, threads, in_cluster)
    advice = [*_source_advice(found, threads), *_other_blocks_advice(found), *_unknown_advice(found)]
    if limit is not None and found.peak > limit:
        has = f"a worker has {size_text(limit)}"
        advice.append(f"{_too_large(found, threads, has)}: {rows_that_fit(found, limit)}")
    return Planned(found, threads, _seconds(found, threads) if measure else None, tuple(advice))


def check_memory(collections: Sequence[Any], written: bool, limit: Any) -> None:
    """Raise if a pass would take more memory than a limit, or than the workers of its cluster have.

    Raises
    ------
    ValueError
        With the limit, the plan and the rows that fit.
    """
    threads, workers, in_cluster = inspect.workers(*collections)
    most = limit_of(limit) if limit is not None else workers if in_cluster else None
    if most is None:
        return
    found = costs(collections, [written] * len(collections), threads, in_cluster, most)
    if found.peak > most:
        has = f"a worker has {size_text(most)}" if limit is None else f"memory_limit is {limit!r}"
        raise ValueError(f"{_too_large(found, threads, has)}: {rows_that_fit(found, most)}")


def limit_of(limit: Any) -> int:
    """Return a limit in bytes, from a number or a text such as ``"2 GB"``."""
    import dask.utils

    try:
        most = int(dask.utils.parse_bytes(limit)) if not isinstance(limit, bool) else -1
    except (ValueError, TypeError, AttributeError):
        most = -1
    if most <= 0:
        raise ValueError(f"memory_limit is {limit!r}: pass bytes, or a text such as '2 GB'")
    return most


def rows_that_fit(found: Costs, limit: int) -> str:
    """Say which rows of a block would fit.

    Fewer rows make blocks smaller and Dask's graph longer: of the peak, one part grows with the rows and another one
    with their inverse.
    """
    if found.results + found.fixed > limit and found.long:
        return f"its results stay in memory and take {size_text(found.results)}: write them with fc.store instead"
    if not found.rows:
        return "make the blocks of the arrays smaller"
    if differ := _other_blocks_advice(found):
        return differ[0]
    by_rows = max(1, found.peak - found.graph - found.fixed) / found.rows
    graph = found.graph * found.rows
    room = 0.9 * limit - found.fixed
    if room <= 0 or room**2 < 4 * by_rows * graph:
        least = (found.fixed + 2 * math.sqrt(by_rows * graph)) / 0.9
        return (
            f"with any rows of a block it takes {size_text(least)} or more: give it that, or take the output features "
            f"in parts, such as W[:, : S // 2]"
        )
    return _with_rows(found.sources[0], max(1, int((room + math.sqrt(room**2 - 4 * by_rows * graph)) / 2 / by_rows)))


def _with_rows(read: Any, rows: int) -> str:
    """Write how to get blocks of this many rows."""
    source = read.array
    path = getattr(source, "path", None)
    at_once = min(getattr(source, "rows_at_once", 1), source.shape[0]) if path is not None and source.shape else 1
    if at_once > rows:
        return (
            f"each chunk of {_name(read)} spans {at_once:,} rows, and can only be read whole: write the file anew in "
            f"chunks of {rows:,} rows, for example with fc.store({{'x.zarr': X.rechunk({{0: {rows}}})}})"
        )
    opened = "" if path is None else f"open {_name(read)} with rows={rows}, or "
    return f"{opened}call X.rechunk({{0: {rows}}})"


def _too_large(found: Costs, threads: int, has: str) -> str:
    return (
        f"the pass takes up to {size_text(found.peak)} with {threads} thread{'s' * (threads > 1)} and blocks of "
        f"{found.rows:,} rows, and {has}"
    )


def _source_advice(found: Costs, threads: int) -> list[str]:
    """Warn of unsuitable blocks of what is read."""
    if not found.sources:
        return []
    read = found.sources[0]
    block = max(read.nbytes, found.widest)
    rows = max(1, int(read.rows * FEW_BLOCK // max(1, block)))
    has = f"{_name(read)} has {read.blocks:,} block{'s' * (read.blocks > 1)}"
    if block < SMALL_BLOCK and read.blocks > MANY_BLOCKS:
        return [
            f"blocks too small: {has} of {size_text(read.nbytes)}, and Dask's overhead for each takes longer than its "
            f"product: {_with_rows(read, rows)}"
        ]
    if read.nbytes > LARGE_BLOCK:
        return [f"blocks too large: {has} of {size_text(read.nbytes)}, {threads} at once: {_with_rows(read, rows)}"]
    if read.blocks < threads and block > FEW_BLOCK:
        return [
            f"blocks too large: {has}, fewer than the {threads} threads of a worker: "
            f"{_with_rows(read, max(1, -(-read.rows * read.blocks // threads)))}"
        ]
    return []


def _other_blocks_advice(found: Costs) -> list[str]:
    """Warn of what is as long as the largest source and lies in blocks of other rows, if that cuts computed blocks."""
    if not (found.cut and found.sources):
        return []
    first, *others = found.sources
    length = first.array.shape[:1] if hasattr(first.array, "shape") else ()
    return [
        f"blocks differ: {_name(other)} has blocks of {other.rows:,} rows and {_name(first)} of {first.rows:,}, so "
        f"each is cut at the borders of the other: "
        + ("call T.rechunk({0: X.chunks[0]})" if first.uneven else f"open {_name(other)} with rows={first.rows}")
        for other in others
        if getattr(other.array, "path", None) and other.array.shape[:1] == length and other.rows != first.rows
    ]


def _unknown_advice(found: Costs) -> list[str]:
    return [
        f"{name}: what it returns and holds is not known: its result is counted as large as its argument, with one copy"
        for name in found.unknown
    ]


def _name(read: Any) -> str:
    path = getattr(read.array, "path", None)
    return "X" if path is None else str(getattr(path, "name", path))


def _collections(results: Sequence[Any]) -> tuple[list[Any], list[bool]]:
    """Return the lazy values, and whether each is written to a file."""
    import dask

    collections: list[Any] = []
    written: list[bool] = []
    for result in results:
        targets = isinstance(result, Mapping) or (
            isinstance(result, list) and bool(result) and all(type(pair) is tuple and len(pair) == 2 for pair in result)
        )
        if targets:
            result = list(result.values() if isinstance(result, Mapping) else [array for _, array in result])
        found, _ = dask.base.unpack_collections(result)
        collections += found
        written += [targets] * len(found)
    return collections, written


def _seconds(found: Costs, threads: int) -> float:
    """Estimate the time of a pass from what is measured now: a block read, a product, a step, memory and a file."""
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    from dask.system import CPU_COUNT

    from .blas_threads import ONE_BLAS_THREAD

    at_once = max(1, min(threads, CPU_COUNT, found.blocks))
    reading: float = 0.0
    for read in found.sources:
        reading += _time_of_block(read) / max(1, read.nbytes) * found.bytes_read * _share(found, read)
    a, b = np.ones((1024, 512), np.float32), np.ones((512, 256), np.float32)
    elements = np.ones(2**20, np.float32)
    with ONE_BLAS_THREAD, ThreadPoolExecutor(at_once) as pool:
        # In all threads at once: cores share caches, memory, and their clock.
        work = max(pool.map(lambda _: _time_of(lambda: a @ b), range(at_once))) / (2 * a.shape[0] * b.size)
        step = max(pool.map(lambda _: _time_of(lambda: np.exp(elements)), range(at_once))) / 2 / elements.nbytes
    writing = 0.0
    if found.bytes_written > found.to_files:  # results in memory: blocks, which are then joined
        fresh = _time_of(lambda: np.ones(2**23, np.float32)) / 2**25
        writing += 2 * fresh * (found.bytes_written - found.to_files)
    if found.to_files:
        with tempfile.TemporaryFile() as file:
            writing += _time_of(lambda: file.write(elements.data), 2) / elements.nbytes * found.to_files
    overhead = 0.015 + 4e-4 * found.tasks + 8e-4 * found.blocks_written
    return float(overhead + (found.work * work + found.elements * step + reading) / at_once + writing)


def _time_of_block(read: Any) -> float:
    """Read a block, or the next one, and cast it if it is of a half precision: to memory that is there."""
    if not hasattr(read.array, "__getitem__"):  # what Dask makes, such as random numbers
        few = np.empty(min(2**20, max(1, read.nbytes // 4)), np.float32)
        random = np.random.default_rng(0).random
        share: float = read.nbytes / few.nbytes
        return share * _time_of(lambda: random(dtype=np.float32, out=few), 2)
    there = np.ones((min(read.rows, read.array.shape[0]), *read.array.shape[1:]), read.array.dtype)
    others = (slice(None),) * (there.ndim - 1)
    seconds = math.inf
    for start in (0, len(there)):  # the first block pays for what a library does once
        rows = slice(start, start + len(there))
        if rows.stop <= read.array.shape[0]:
            seconds = min(seconds, _time_of(lambda rows=rows: np.copyto(there, read.array[rows, *others]), 1))
    if there.dtype in HALVES:
        some = there.reshape(-1)[: 2**20]
        seconds += _time_of(lambda: some.astype(np.float32), 2) * there.size / max(1, some.size)
    return seconds


def _share(found: Costs, read: Any) -> float:
    total = sum(each.nbytes * each.blocks for each in found.sources)
    return float(read.nbytes * read.blocks / max(1, total))


def _time_of(function: Any, times: int = 5) -> float:
    """Return the least time that a function takes, of several."""
    least = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        function()
        least = min(least, time.perf_counter() - start)
    return least
