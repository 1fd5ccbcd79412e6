"""One BLAS thread for each of Dask's threads: two of each on two cores take 1.4 times as long."""

from __future__ import annotations

import threading


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


ONE_BLAS_THREAD = _OneBlasThread()
