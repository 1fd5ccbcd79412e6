"""One BLAS thread for each worker thread: two of each on two cores take 1.4 times as long."""

from __future__ import annotations

import sys
import threading
from typing import Any


def threadpoolctl() -> Any:
    """Return the module that limits BLAS; called before anything is written, since every pass needs it."""
    try:
        import threadpoolctl
    except ImportError:
        raise ImportError("a pass over chunked arrays needs threadpoolctl: pip install threadpoolctl") from None
    return threadpoolctl


class _OneBlasThread:
    """Limit BLAS to one thread while any pass runs: the first pass sets the limit, the last one lifts it.

    A separate thread does both: in threadpoolctl 3.8 only the thread that set a limit on
    OpenBLAS can lift it, and passes may end in another order than they began. A limit of the
    caller stays.

    The search for BLAS libraries takes a millisecond, so it is repeated only if a module was
    imported since, which may have loaded another BLAS.
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
                modules = len(sys.modules)  # before the search, so that an import meanwhile is noticed
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
                with self.thread:  # ends it, even if the limit cannot be lifted
                    self.thread.submit(self.limits.__exit__, None, None, None).result()


ONE_BLAS_THREAD = _OneBlasThread()
