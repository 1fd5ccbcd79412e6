"""Running lazy results: in one pass, with one BLAS thread for each of Dask's."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

from .chunked import dask_array
from .namespace import Array


def compute(*arrays: Array, progress: bool = False) -> tuple[Any, ...]:
    """Compute several lazy results in one pass over the data they share.

    Each block of X and dY is read once for all results, and while the pass runs BLAS uses
    one thread for each of Dask's: two of each on two cores take 1.4 times as long.

    Parameters
    ----------
    *arrays : dask arrays, or nested tuples of them such as `Gradients`
        Whatever is not lazy is passed through.
    progress : bool
        Show Dask's progress bar.

    Returns
    -------
    tuple
        One computed result for each argument.

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
    dask_array()
    import dask
    from dask.diagnostics import ProgressBar

    with _ONE_BLAS_THREAD, ProgressBar() if progress else nullcontext():
        return tuple(dask.compute(*arrays))


class _OneBlasThread:
    """Limit BLAS to one thread while any pass runs: the first to enter limits, the last to leave puts back.

    Both are done by one thread of its own: in threadpoolctl 3.8 only the thread that set a
    limit on OpenBLAS can lift it, and passes may end in another order than they began. A limit
    that the caller holds stands.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        from threadpoolctl import threadpool_limits

        with self.lock:
            if self.inside == 0:
                self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fc_arrayapi-blas")
                self.limits = self.thread.submit(threadpool_limits, limits=1, user_api="blas").result()
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.thread.submit(self.limits.__exit__, None, None, None).result()
                self.thread.shutdown()


_ONE_BLAS_THREAD = _OneBlasThread()
