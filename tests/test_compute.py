"""One pass over lazy arrays, with one BLAS thread for each of Dask's."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers.assertions import refused
from helpers.batches import B, W, X, assert_all, dY

import fc_arrayapi as fc
from fc_arrayapi._dask import progress
from fc_arrayapi._dask.inspect import bytes_to_read

pytestmark = pytest.mark.only("dask.array")


class CountingSource:
    """An array-like that counts how often each of its rows is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.reads = np.zeros(len(array), int)
        self.lock = threading.Lock()

    def __dask_tokenize__(self):
        return ("CountingSource", self.array.tobytes())

    def __getitem__(self, index):
        with self.lock:
            self.reads[index[0]] += 1
        return self.array[index]


def test_one_pass_reads_every_block_once(backend):
    sources = [CountingSource(X), CountingSource(dY)]
    x, dy = (backend.xp.from_array(source, chunks=(10, -1)) for source in sources)
    Y = fc.forward(x, W, B)
    results = fc.compute(Y, *fc.backward(x, W, dy), ((Y - dy) ** 2).sum())
    assert_all(results[:4], like=np.ones(1))
    for source in sources:
        np.testing.assert_array_equal(source.reads, 1)


def test_compute_returns_gradients_and_values_that_are_not_lazy(backend):
    x, dy = backend.asarray(X, chunks=(10, 6)), backend.asarray(dY, chunks=(10, 5))
    grads, five = fc.compute(fc.backward(x, W, dy, needs=("dW",)), 5)
    assert isinstance(grads, fc.Gradients)
    assert grads.dX is None
    assert five == 5
    np.testing.assert_allclose(grads.dW, X.T @ dY, rtol=1e-12)


TERMINAL = {"isatty": lambda self: True}
NOTEBOOK = {"__module__": "ipykernel.iostream"}


@pytest.mark.parametrize("kind", [TERMINAL, NOTEBOOK], ids=["terminal", "notebook"])
def test_progress_is_one_line_that_is_redrawn_and_erased(backend, monkeypatch, kind):
    monkeypatch.setattr(sys, "stdout", type("Stream", (io.StringIO,), kind)())
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_DRAWINGS", 0)
    fc.compute(fc.grad_bias(backend.asarray(dY, chunks=(10, 5))), progress=True)
    first, *drawn, last, rest = sys.stdout.getvalue().split("\r")
    assert (first, rest, last.strip()) == ("", "", "")
    assert "\n" not in sys.stdout.getvalue()
    assert re.match(r"\d+% of 3.91 KiB in \d+\.\d s, .*/s, \d+ s left", drawn[0])
    assert drawn[-1].startswith("100% of 3.91 KiB")
    assert len(last) >= len(drawn[-1].rstrip())


def test_progress_in_a_log_is_a_line_for_each_tenth(backend, capsys, monkeypatch):
    def in_lines():
        dB = fc.grad_bias(backend.asarray(dY, chunks=(1, 5)))
        fc.compute(dB, progress=True)
        return capsys.readouterr().out

    assert not in_lines()  # it is over too soon
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    lines = in_lines()
    assert re.fullmatch(r"(\d+% of 3.91 KiB in \d+\.\d s, [\d.]+ \w+/s(, \d+ s left)?\n){10}", lines)
    assert [int(line.partition("%")[0]) for line in lines.splitlines()] == list(range(10, 101, 10))


def test_lines_come_a_second_apart_and_the_last_says_that_all_is_done(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    line = progress.Line(0)
    for now[0], done in ((0.9, 3), (1.1, 4), (2.0, 5), (2.2, 5), (2.3, 6), (3.3, 6), (3.4, 9), (3.5, 10)):
        line.show(done, 10)
    shown = [line.split("% of 10 tasks in ") for line in capsys.readouterr().out.splitlines()]
    assert shown == [["40", "1.1 s, 2 s left"], ["50", "2.2 s, 2 s left"], ["60", "3.3 s, 2 s left"], ["100", "3.5 s"]]
    now[0], short = 0.0, progress.Line(0)
    for now[0], done in ((0.3, 5), (0.9, 10)):
        short.show(done, 10)
    assert capsys.readouterr().out == ""


@pytest.mark.needs("own chunks")
def test_progress_counts_the_bytes_of_the_blocks_that_are_read(backend, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((100, 6)))
    opened = fc.open_array(tmp_path / "x.npy", rows=10)
    W = np.ones((6, 5))
    Y = fc.forward(opened, W)
    assert bytes_to_read([Y, Y.sum()]) == 100 * 6 * 8 + W.nbytes
    assert bytes_to_read([fc.forward(opened[:30], W)]) == 30 * 6 * 8 + W.nbytes
    assert bytes_to_read([fc.forward(backend.asarray(X, chunks=(10, 6)), W)]) == X.nbytes + W.nbytes
    assert bytes_to_read([backend.xp.ones((100, 6), chunks=(10, 6)).sum()]) == 0


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("closed file"), None])
def test_a_log_that_is_not_writable_does_not_stop_a_pass(backend, monkeypatch, error):
    class Log:
        def write(self, text):
            raise error

        def flush(self):
            pass

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(sys, "stdout", Log() if error else None)  # None: no standard output at all
    (dB,) = fc.compute(fc.grad_bias(backend.asarray(dY, chunks=(10, 5))), progress=True)
    np.testing.assert_allclose(dB, dY.sum(axis=0), rtol=1e-12)


@pytest.mark.needs("delayed")
def test_results_of_every_kind_come_back_in_their_places(backend):
    """Dask's own compute gives the arrays first, whatever the order asked for."""
    import dask

    x, delayed = backend.asarray(X, chunks=(30, 6)), dask.delayed(str)("delayed")
    results = fc.compute(x.max(), delayed, 5, {"min": x.min(), "both": (delayed, x.max())}, x.min())
    assert results == (X.max(), "delayed", 5, {"min": X.min(), "both": ("delayed", X.max())}, X.min())
    assert fc.compute(5, "six") == (5, "six")


def test_a_missing_threadpoolctl_is_named_before_anything_is_read(backend, monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    source = CountingSource(X)
    assert fc.compute(5) == (5,)
    with refused(ImportError, "chunked arrays", "pip install threadpoolctl"):
        fc.compute(fc.forward(backend.xp.from_array(source, chunks=(10, -1)), W))
    assert not source.reads.any()


def test_what_is_in_memory_comes_back_where_there_is_no_dask(backend):
    code = """
import sys
sys.modules["dask"] = None
import numpy as np, fc_arrayapi as fc
Y, grads = np.ones(2), fc.backward(np.ones((4, 3)), np.ones((3, 2)), np.ones((4, 2)))
results = fc.compute(Y, grads, 5)
assert results[0] is Y and results[1] is grads and results[2] == 5
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("threads", ["", "dask.config.set(num_workers=2)"])
def test_a_forked_process_has_threads_of_its_own(backend, tmp_path, threads):
    """Dask's pool has no threads in a child, which would wait for ever."""
    code = f"""
import os, signal, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, dask, dask.array as da, fc_arrayapi as fc
{threads}
np.save("x.npy", np.ones((1000, 6)))
X = fc.open_array("x.npy", rows=100)

def passes(name):
    assert fc.compute(fc.grad_bias(X))[0][0] == 1000
    fc.store({{name + ".npy": X, name + ".zarr": X}})

passes("parent")
child = os.fork()
if child == 0:
    signal.alarm(30)  # kills a child that waits
    passes("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
passes("again")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, **backend.environment})


def test_no_thread_is_left_if_blas_cannot_be_limited(backend, monkeypatch):
    def broken(*_, **__):
        raise OSError("no such BLAS")

    monkeypatch.setattr("threadpoolctl.ThreadpoolController.limit", broken)
    with pytest.raises(OSError, match="no such BLAS"):
        fc.compute(backend.asarray(X))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("fc_arrayapi-blas")] == []


def test_libraries_are_looked_for_anew_only_after_an_import(backend, monkeypatch):
    import threadpoolctl

    class Counting(threadpoolctl.ThreadpoolController):
        made = 0

        def __init__(self):
            Counting.made += 1
            super().__init__()

    fc.compute(backend.asarray(X))
    fc.compute(backend.asarray(X))  # the first pass of a process imports what the second has
    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", Counting)
    fc.compute(backend.asarray(X))
    assert Counting.made == 0
    monkeypatch.setitem(sys.modules, "another_blas", sys)
    fc.compute(backend.asarray(X))
    fc.compute(backend.asarray(X))
    assert Counting.made == 1


BLAS_THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor
import dask, dask.array as da, numpy as np, threadpoolctl
import fc_arrayapi as fc

def blas_threads():
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

class Pass(threading.Thread):
    # Four blocks that look, wait until the pass may end, and look again.
    def __init__(self, fail=False):
        super().__init__(target=self.compute)
        self.fail, self.begun, self.may_end = fail, threading.Event(), threading.Event()

    def __dask_tokenize__(self):
        return self.name

    def look(self, block):
        seen.append(blas_threads())
        self.begun.set()
        assert self.may_end.wait(60)
        seen.append(blas_threads())
        return 1 / 0 if self.fail else block

    def compute(self):
        fc.compute(da.ones((2, 2), chunks=1).map_blocks(self.look, dtype=float, meta=np.empty((0, 0))))

seen = []
before = blas_threads()
alone = Pass()
alone.may_end.set()
alone.compute()
assert blas_threads() == before, "after a pass"
failing = Pass(fail=True)
failing.may_end.set()
with ThreadPoolExecutor(2) as pool, dask.config.set(pool=pool):
    try:
        failing.compute()
    except ZeroDivisionError:
        assert blas_threads() == before, "after an exception"
seen.clear()  # and no block is under way still
for first_ends_first in (True, False):
    passes = [Pass(), Pass()]
    for one in passes:
        one.start()
        assert one.begun.wait(60)
    for one in passes if first_ends_first else passes[::-1]:
        one.may_end.set()
        one.join()
    assert blas_threads() == before, "after passes at once"
assert len(seen) == 32 and all(threads == {1} for threads in seen), seen
print("before", before)
"""


def test_compute_limits_blas_threads_and_puts_them_back(backend):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    run = subprocess.run([sys.executable, "-c", BLAS_THREADS], capture_output=True, text=True, env=environment)
    assert run.stdout == "before {2}\n", run.stderr
