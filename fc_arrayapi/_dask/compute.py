"""compute: several lazy results in one pass, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from .._arrays.namespace import Array
from . import cluster
from .blas_threads import ONE_BLAS_THREAD, threadpoolctl
from .blocks import dask_array
from .progress import of_threads


def compute(*arrays: Array, progress: bool = False) -> tuple[Any, ...]:
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
        Show the progress bar of Dask or distributed. In a log, print a line for each tenth of the
        tasks, at most one a second.

    Returns
    -------
    tuple
        One computed result for each argument.

    Raises
    ------
    ImportError
        If Dask or threadpoolctl is not installed.
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
    dask_array(), threadpoolctl()
    import dask

    collections, repack = dask.base.unpack_collections(*arrays)
    if not collections:
        return arrays
    order = _kinds_together(collections)
    ordered = [collections[k] for k in order]
    client = cluster.client_of(ordered)
    if client is not None:
        results = cluster.compute_on(client, ordered, progress)
    else:
        with ONE_BLAS_THREAD, of_threads() if progress else nullcontext():
            results = dask.compute(*ordered)
    by_place = dict(zip(order, results, strict=True))
    return tuple(repack([by_place[k] for k in range(len(order))]))


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
