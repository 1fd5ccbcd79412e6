"""compute: several lazy results in one pass, on this machine or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from .._arrays.namespace import Array
from . import cluster, inspect
from .blas_threads import ONE_BLAS_THREAD, threadpoolctl
from .blocks import dask_array
from .progress import Line, of_threads


def compute(*arrays: Array, progress: bool = False, memory_limit: float | str | None = None) -> tuple[Any, ...]:
    """Compute several lazy results in one pass over the data they share.

    Each block of X and dY is read once for all results, and while the pass runs BLAS uses
    one thread for each of Dask's: two of each on two cores take 1.4 times as long.

    The pass runs where Dask would run it: on the scheduler of ``dask.config``, on the current
    ``distributed.Client``, or in threads. Ctrl-C cancels a pass on a cluster.

    Parameters
    ----------
    *arrays : dask arrays, or nested tuples of them such as `Gradients`
        Other values are returned unchanged.
    progress : bool
        Show how much is read, how fast, and the time left: one line, redrawn and erased at the end.
        In a log, print a line for each tenth of the tasks, at most one a second.
    memory_limit : int or str, optional
        Bytes, or a text such as ``"2 GB"``, that the pass may take beside what is there. A pass
        that would take more by its `plan` does not start. On a cluster the default is what its
        workers have; elsewhere there is none.

    Returns
    -------
    tuple
        One computed result for each argument.

    Raises
    ------
    ImportError
        If threadpoolctl is not installed, and something is lazy.
    ValueError
        If the pass would pass `memory_limit`: with the `rows` of a block that fit.
    Exception
        Any exception of a block: ValueError where unknown sizes turn out to differ, OSError
        where a file cannot be read.

    Examples
    --------
    >>> import numpy as np, dask.array as da
    >>> import fc_arrayapi as fc
    >>> X, W = da.ones((6, 2), chunks=(2, 2)), np.ones((2, 3))
    >>> Y = fc.forward(X, W)
    >>> loss, grads = fc.compute((Y**2).sum() / 2, fc.backward(X, W, Y, needs=("dW",)))
    >>> float(loss), grads.dW.shape
    (36.0, (2, 3))
    """
    try:
        import dask
    except ImportError:  # so nothing here is lazy
        return arrays
    collections, repack = dask.base.unpack_collections(*arrays)
    if not collections:
        return arrays
    from . import planned

    planned.check_memory(collections, False, memory_limit)
    return tuple(repack(run(collections, progress)))


def run(collections: Sequence[Any], progress: bool = False) -> Sequence[Any]:
    """Compute lazy values in one pass, and return their results in the same order."""
    import dask

    from . import one_task

    threadpoolctl()
    client = cluster.client_of(collections)
    line = Line(inspect.bytes_to_read(collections)) if progress else None
    joined = one_task.joined(collections, inspect.workers(*collections).in_cluster if client is not None else 0)
    order = _kinds_together(joined)
    ordered = [joined[k] for k in order]
    if client is not None:
        results = cluster.compute_on(client, ordered, line)
    else:
        with ONE_BLAS_THREAD, _living_pool(ordered) as options, nullcontext() if line is None else of_threads(line):
            results = dask.compute(*ordered, **options)
    by_place = dict(zip(order, results, strict=True))
    return [by_place[k] for k in range(len(order))]


# The process in which this was imported; in a child that was forked from it, the threads of Dask's pool do not run.
_PROCESS = os.getpid()


@contextmanager
def _living_pool(collections: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Give new threads for Dask in a forked process, where it would wait for those of the parent for ever."""
    from concurrent.futures import ThreadPoolExecutor  # here, since it takes 3 ms

    import dask

    threads = dask.base.get_scheduler(collections=collections) is dask.threaded.get
    if os.getpid() == _PROCESS or not threads or dask.config.get("pool", None) is not None:
        yield {}
        return
    count = dask.config.get("num_workers", None) or dask.system.CPU_COUNT
    with ThreadPoolExecutor(count) as pool:
        yield {"pool": pool}


def _kinds_together(collections: Sequence[Any]) -> list[int]:
    """Order collections by kind, so that arrays follow each other.

    Dask returns results in this order, and not in the order of the arguments (since dask #11904, seen in
    2026.8.0): a Delayed between two arrays would get the result of an array.
    """
    kinds = [getattr(collection, "__dask_optimize__", None) for collection in collections]
    return sorted(range(len(kinds)), key=lambda k: kinds.index(kinds[k]))


@contextmanager
def using(scheduler: str | None, threads: int | None) -> Iterator[None]:
    """Compute on the cluster at an address, or with this number of threads on this machine."""
    dask_array()
    import dask

    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}: pass a positive integer")
    with dask.config.set(num_workers=threads) if scheduler is None else cluster.connected(scheduler):
        yield
