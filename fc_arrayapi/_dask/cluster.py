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
    distributed = sys.modules.get("distributed")  # if it is not imported, there is no client
    return owner if distributed is not None and isinstance(owner, distributed.Client) else None


def compute_on(client: Any, collections: Sequence[Array], line: progress.Line | None) -> Sequence[Any]:
    """Compute in one pass on a cluster."""
    from concurrent.futures import CancelledError

    from distributed import as_completed

    with _leaving_the_worker_its_thread(), _one_blas_thread_on(client):
        futures = _submit(client, collections)
        try:
            if line is not None:
                progress.of_cluster(line, futures)
            for future in as_completed(futures):  # gather alone logs an error on Ctrl-C
                if future.status != "finished":
                    break
            return list(client.gather(futures))
        except KeyboardInterrupt:
            client.cancel(futures)
            raise
        except CancelledError as error:
            if client.status == "running":
                raise
            raise ConnectionError(
                "the client was closed during the pass, or lost its scheduler: connect again, and compute again"
            ) from error
        finally:
            for future in futures:  # a traceback would keep them, and their results on the workers
                future.release()


def _submit(client: Any, collections: Sequence[Array]) -> Sequence[Any]:
    """Send the graph, without a warning of its size if arrays that it holds once, such as W, are the reason.

    distributed warns from 10 MB on and advises to scatter, since data in a graph are often there once for each task.
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

    The plugin has a unique name, since passes of several clients may overlap. A worker that dies
    while the plugin is registered does not stop the pass: the other workers have it.
    """
    from distributed.diagnostics.plugin import WorkerPlugin

    class OneBlasThread(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            from fc_arrayapi._dask import blas_threads, blocks  # on the worker

            blocks.dask_array()  # loads SciPy with its own BLAS, if no task has done so yet
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
        # After Ctrl-C, a lost worker or a closed client it fails in many ways, and must not hide the error of the pass.
        with suppress(Exception):
            client.unregister_worker_plugin(name)


@contextmanager
def _leaving_the_worker_its_thread() -> Iterator[None]:
    """Let the worker run other tasks while a task on it waits for a pass, which could not start otherwise."""
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
            f"scheduler {address}: {error}: pass the address of a running scheduler, for example tcp://10.0.0.1:8786"
        ) from None
    with client:
        yield
