"""Facts about a pass before it runs: its sources, the bytes it reads, the threads and memory of workers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array
from . import cluster

# Functions of these modules give the same blocks in each run, except those of NumPy that read files.
_REPEATABLE = re.compile(r"(dask\.(array|core|utils|layers|blockwise|_task_spec)|numpy|cupy|fc_arrayapi)(\.|$)")
_READERS = {"load", "fromfile", "memmap", "loadtxt", "genfromtxt", "open_memmap"}
# The names that Dask gives to NumPy arrays, by a hash of their content.
_HASHED = re.compile(r"(original-)?(from)?array-[0-9a-f]{32}")


def changeable_source(array: Array) -> str | None:
    """Return a source of which Dask's name may stay the same when its data change; None if there is none.

    Names of NumPy arrays are made from their content, and so are those of anything with a ``__dask_tokenize__`` of its
    own, such as the files of open_array. `da.ones` and the like, and `da.random` with a seed, repeat themselves.
    Dask names other arrays, such as those of h5py and zarr, by their path.
    """
    from dask.core import get_dependencies

    graph = dict(array.__dask_graph__())
    wholes: dict[str, Any] = {}
    for key, task in graph.items():
        inner = bool(get_dependencies(graph, key))
        name = str(key[0] if isinstance(key, tuple) else key)
        parts = list(_parts(task))
        for part in parts:
            if inner and callable(part):  # what a function does to its arguments is in the name
                continue
            if isinstance(part, np.ndarray) and not inner and len(parts) == 1:
                # One NumPy array is cut into views; blocks that were computed before are arrays of their own.
                known = _HASHED.fullmatch(name) and wholes.setdefault(name, _whole(part)) is _whole(part)
            else:  # arrays among the arguments of a function are small, and the name is made of all arguments
                known = isinstance(part, np.ndarray)
            if not (known or _repeats(part)):
                what = getattr(part, "__qualname__", "") or f"{type(part).__module__}.{type(part).__qualname__}"
                return f"{what} ({name})"
    return None


def _whole(block: NumPyArray) -> Any:
    """Return the array of which a block is a view, or the block itself."""
    while isinstance(block.base, np.ndarray):
        block = block.base
    return block


def _repeats(part: Any) -> bool:
    """Say whether a function or a value is the same in each run in which the array has the same name."""
    if hasattr(type(part), "__dask_tokenize__"):
        return bool(getattr(part, "repeats", True))  # False: a file of which no version is known
    if callable(part):
        module = getattr(part, "__module__", None) or type(part).__module__
        known = _REPEATABLE.match(module) or (isinstance(part, type) and module == "builtins")
        return bool(known) and getattr(part, "__name__", "") not in _READERS
    if type(part).__name__ == "Future":  # of a cluster: what it was computed from is unknown
        return False
    return isinstance(part, np.generic) or not (hasattr(part, "shape") and hasattr(part, "dtype"))


def _parts(task: Any) -> Iterator[Any]:
    """Yield the functions and values of a task, in Dask's form of today or as a tuple."""
    if isinstance(task, dict):
        task = list(task.values())
    if isinstance(task, (tuple, list, set)):
        for part in task:
            yield from _parts(part)
    elif hasattr(task, "func") and hasattr(task, "args"):  # a task, or a functools.partial
        yield from _parts(task.func)
        yield from _parts(task.args)
        yield from _parts(getattr(task, "kwargs", None) or getattr(task, "keywords", None) or ())
    else:
        yield task.value if type(task).__name__ == "DataNode" else task


def leaves(array: Array) -> Iterator[Any]:
    """Yield the functions and values in the tasks of an array."""
    for task in dict(array.__dask_graph__()).values():
        yield from _parts(task)


def bytes_to_read(collections: Sequence[Any]) -> int:
    """Return the bytes of the blocks that a pass takes from files and from arrays in memory."""
    from dask.core import flatten, get_dependencies
    from dask.optimization import cull

    graph: dict[Any, Any] = {}
    for collection in collections:
        graph |= cull(dict(collection.__dask_graph__()), list(flatten(collection.__dask_keys__())))[0]
    found = {key: [part for part in _parts(task) if _is_array(part)] for key, task in graph.items()}
    whole = {key: arrays[0] for key, arrays in found.items() if arrays and not get_dependencies(graph, key)}
    total: int = 0
    in_blocks = set()
    for key, task in graph.items():
        index = [part for part in _parts(task) if isinstance(part, (slice, tuple))]
        cut = [part for part in flatten(index, container=tuple) if isinstance(part, slice)]
        for other in get_dependencies(graph, key) & whole.keys() if cut else ():
            shape = whole[other].shape
            sizes = [len(range(*part.indices(n))) for part, n in zip(cut, shape, strict=False)]
            total += math.prod([*sizes, *shape[len(sizes) :]]) * whole[other].dtype.itemsize
            in_blocks.add(other)
    alone = [array for key, array in whole.items() if key not in in_blocks]
    total += sum(math.prod(array.shape) * array.dtype.itemsize for array in alone)
    return total


def _is_array(part: Any) -> bool:
    return hasattr(part, "shape") and hasattr(part, "dtype") and not callable(part)


class Workers(NamedTuple):
    """Where a pass runs."""

    threads: int  # of the worker that has most
    memory: int | None  # bytes of the one that has least; None if unknown
    in_cluster: int = 0  # threads of all workers of a cluster


def workers(*arrays: Array) -> Workers:
    """Return what is known of the workers, or of this machine, on which arrays would be computed."""
    import dask

    client = cluster.client_of(arrays)
    if client is not None:  # the scheduler reports some of its workers, which are usually alike
        scheduler = client.scheduler_info()
        found = scheduler["workers"].values()
        limits = [worker["memory_limit"] for worker in found if worker["memory_limit"]]
        threads = max((worker["nthreads"] for worker in found), default=1)
        return Workers(threads, min(limits, default=None), threads * max(1, scheduler.get("n_workers", len(found))))
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        memory = None
    if dask.config.get("scheduler", None) in ("sync", "synchronous", "single-threaded"):
        return Workers(1, memory)
    return Workers(dask.config.get("num_workers", None) or dask.system.CPU_COUNT, memory)
