"""One BLAS thread for each of Dask's threads: two of each on two cores take 1.4 times as long."""

from __future__ import annotations

import sys
import threading
from typing import Any


def threadpoolctl() -> Any:
    """Return the module that limits BLAS; asked for before anything is written, since a pass can't do without it."""
    try:
        import threadpoolctl
    except ImportError:
        raise ImportError("a pass over chunked arrays needs threadpoolctl: pip install threadpoolctl") from None
    return threadpoolctl


class _OneBlasThread:
    """Limit BLAS to one thread while any pass runs: the first to enter limits, the last to leave puts back.

    Both are done by one thread of its own: in threadpoolctl 3.8 only the thread that set a
    limit on OpenBLAS can lift it, and passes may end in another order than they began. A limit
    that the caller holds stands.

    Looking for the libraries takes a millisecond, so it is done anew only if a module was
    imported since, which is how another BLAS is loaded.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.libraries: Any = None
        self.modules = 0

    def __enter__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        find_libraries = threadpoolctl().ThreadpoolController
        with self.lock:
            if self.inside == 0:
                modules = len(sys.modules)  # before the search, so that one that is imported meanwhile is not missed
                if modules != self.modules:
                    self.libraries, self.modules = find_libraries(), modules
                self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fc_arrayapi-blas")
                try:
                    self.limits = self.thread.submit(self.libraries.limit, limits=1, user_api="blas").result()
                except BaseException:
                    self.thread.shutdown()
                    raise
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                with self.thread:  # which ends it, also where the limit can't be put back
                    self.thread.submit(self.limits.__exit__, None, None, None).result()


ONE_BLAS_THREAD = _OneBlasThread()
