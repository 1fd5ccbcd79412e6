"""Passes on a dask.distributed cluster: futures, progress, Ctrl-C, and one BLAS thread for each worker thread."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .._arrays.namespace import Array
from . import progress

_SUBMITTING = threading.Lock()


def client_of(collections: Sequence[Array]) -> Any:
    """Return the client on which Dask would compute, or None."""
    from dask.base import get_scheduler

    owner = getattr(get_scheduler(collections=collections), "__self__", None)
    distributed = sys.modules.get("distributed")  # a client is no reason to import it
    return owner if distributed is not None and isinstance(owner, distributed.Client) else None


def compute_on(client: Any, collections: Sequence[Array], show_progress: bool) -> Sequence[Any]:
    """Compute in one pass on a cluster."""
    from distributed import as_completed

    with _leaving_the_worker_its_thread(), _one_blas_thread_on(client):
        futures = _submit(client, collections)
        try:
            if show_progress:
                progress.of_cluster(futures)
            for future in as_completed(futures):  # gather alone logs an error where Ctrl-C meets it
                if future.status != "finished":
                    break
            return list(client.gather(futures))
        except KeyboardInterrupt:
            client.cancel(futures)
            raise
        finally:
            for future in futures:  # a traceback would keep them, and so their results on the workers
                future.release()


def _submit(client: Any, collections: Sequence[Array]) -> Sequence[Any]:
    """Send the graph, without the warning about its size where arrays in memory, which it holds once, are the reason.

    distributed warns of 10 MB and more, since data in a graph is often there once for each task.
    W is there once: it goes to the scheduler, from there to one worker, and on from worker to worker.
    """
    import dask
    from dask.utils import parse_bytes

    threshold = "distributed.admin.large-graph-warning-threshold"
    with _SUBMITTING:  # Dask's configuration is one for all threads
        limit = parse_bytes(dask.config.get(threshold)) + _bytes_of_single_blocks(collections)
        with dask.config.set({threshold: limit}):
            return list(client.compute(collections))


def _bytes_of_single_blocks(collections: Sequence[Any]) -> int:
    """Return the bytes of the in-memory arrays of one block, such as W, that the graphs hold.

    Arrays made with query planning have no layers in their graph: of theirs all blocks count.
    """
    from dask.highlevelgraph import MaterializedLayer

    found = {}
    for collection in collections:
        graph = collection.__dask_graph__()
        if not hasattr(graph, "layers"):
            found.update(graph)
            continue
        for layer in graph.layers.values():
            if isinstance(layer, MaterializedLayer) and len(layer) == 1:
                found.update(layer)
    return sum(getattr(value, "nbytes", 0) for value in found.values())


@contextmanager
def _one_blas_thread_on(client: Any) -> Iterator[None]:
    """Limit BLAS on every worker while a pass runs, also on those that join meanwhile.

    A plugin with a name of its own: passes of several clients overlap as they do here. That a
    worker dies while it is told is no reason to fail: the others are told all the same.
    """
    from distributed.diagnostics.plugin import WorkerPlugin

    class OneBlasThread(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            from fc_arrayapi._dask import blas_threads, blocks  # the worker's own

            blocks.dask_array()  # it loads SciPy, whose BLAS is another, if a task has not done so yet
            blas_threads.ONE_BLAS_THREAD.__enter__()

        def teardown(self, worker: Any) -> None:
            from fc_arrayapi._dask import blas_threads

            blas_threads.ONE_BLAS_THREAD.__exit__()

    name = f"fc_arrayapi-one-blas-thread-{os.urandom(16).hex()}"
    try:
        with suppress(OSError):
            client.register_plugin(OneBlasThread(), name=name)
        yield
    finally:
        with suppress(OSError, KeyError, ValueError):  # the last two where Ctrl-C or a worker came in between
            client.unregister_worker_plugin(name)


@contextmanager
def _leaving_the_worker_its_thread() -> Iterator[None]:
    """Let the worker run other tasks while a task waits for a pass of its own, which would else never start."""
    from distributed import get_worker, worker_client

    try:
        get_worker()
    except ValueError:  # not in a task
        yield
        return
    with worker_client():
        yield


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Compute on the cluster whose scheduler has this address."""
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("a cluster needs dask.distributed: pip install distributed") from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"scheduler {address}: {error}: give the address of one that runs, for example tcp://10.0.0.1:8786"
        ) from None
    with client:
        yield
