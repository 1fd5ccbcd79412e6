"""Running lazy results in one pass, here or on a cluster, and what can be said of it before."""

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

    The pass runs where Dask's own would: on the scheduler of ``dask.config``, on the current
    ``distributed.Client`` if there is one, or in threads. Ctrl-C cancels a pass on a cluster.

    Parameters
    ----------
    *arrays : dask arrays, or nested tuples of them such as `Gradients`
        Whatever is not lazy is passed through.
    progress : bool
        Show Dask's progress bar, or that of distributed. Where the output goes to a log, lines:
        one for each tenth of the tasks, at most one a second.

    Returns
    -------
    tuple
        One computed result for each argument.

    Raises
    ------
    ImportError
        If Dask or threadpoolctl is not installed.
    Exception
        What a block raises, as it is: ValueError where sizes that were not known turn out to
        differ, OSError where a file can't be read.

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
    """Order collections so that those that Dask optimises alike, arrays for one, follow each other.

    Dask gives the results in this order whatever was asked for (since dask #11904, seen in 2026.8.0):
    a Delayed between two arrays, such as `dask.array.store` returns, would get an array's result.
    """
    kinds = [getattr(collection, "__dask_optimize__", None) for collection in collections]
    return sorted(range(len(kinds)), key=lambda k: kinds.index(kinds[k]))


@contextmanager
def using(scheduler: str | None, threads: int | None) -> Iterator[None]:
    """Compute on the cluster at an address, or in so many threads of this machine."""
    dask_array()
    import dask

    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}: give at least one")
    with dask.config.set(num_workers=threads) if scheduler is None else cluster.connected(scheduler):
        yield
