"""Passes on a cluster of worker processes: the same numbers as in memory, whatever happens to a worker."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from helpers.backends import BACKENDS
from helpers.batches import B, W, X, dY, numbers

import fc_arrayapi as fc
from fc_arrayapi._dask import progress

if BACKENDS["distributed"].installed:
    import dask
    import dask.array as da
    import distributed
    import threadpoolctl
    from distributed import Client, KilledWorker, LocalCluster

pytestmark = [
    pytest.mark.only("distributed"),
    pytest.mark.usefixtures("backend"),
    pytest.mark.xdist_group("cluster"),  # one cluster at a time
]


EXPECTED = fc.testing.reference_backward(X, W, dY)


def start(workers, threads=1):
    return LocalCluster(
        n_workers=workers, threads_per_worker=threads, processes=True, memory_limit="1GiB", dashboard_address=":0"
    )


@pytest.fixture(scope="module")
def shared_cluster():
    """Two workers, for the tests that leave them as they were."""
    with start(workers=2) as cluster:
        yield cluster


@pytest.fixture
def client(shared_cluster):
    with Client(shared_cluster) as client:
        yield client


@pytest.fixture
def marks(tmp_path):
    """A folder in which tasks leave marks, since they run in other processes."""
    return tmp_path


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Source:
    """Rows that are read; each read is marked in a folder, and may do something at the block that begins at a row."""

    def __init__(self, array, marks, at_row=None, do=None):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.marks, self.at_row, self.do = marks, at_row, do

    def __dask_tokenize__(self):
        return ("Source", str(self.marks), self.array.tobytes())

    def __getitem__(self, index):
        first, end, _ = index[0].indices(len(self.array))
        if first == end:  # Dask looks at an empty slice for the type
            return self.array[index]
        reads = len(list(self.marks.glob(f"{first}-*")))
        (self.marks / f"{first}-{reads}").touch(exist_ok=False)
        if self.do is not None and self.at_row in (None, first):
            self.do(reads)
        return self.array[index]

    def lazy(self, rows=10):
        return da.from_array(self, chunks=(rows, -1))

    def reads(self):
        return sorted(mark.name for mark in self.marks.iterdir())


def in_folder(marks, name):
    (marks / name).mkdir()
    return marks / name


# The same numbers


def test_the_same_results_as_in_memory(client):
    x, dy = da.from_array(X, chunks=(30, 4)), da.from_array(dY, chunks=(17, 5))
    lazy = fc.forward(x, W, B), fc.backward(x, W, dy), fc.einsum("nc,nd->cd", x, x), fc.einsum("nc,cs->n", x, W)
    Y, grads, gram, row_sums = fc.compute(*lazy)
    np.testing.assert_allclose(Y, X @ W + B, rtol=1e-12)
    assert isinstance(grads, fc.Gradients)
    for part, reference in zip(grads, EXPECTED, strict=True):
        np.testing.assert_allclose(part, reference, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gram, X.T @ X, rtol=1e-12)
    np.testing.assert_allclose(row_sums, (X @ W).sum(axis=1), rtol=1e-12, atol=1e-12)


def test_results_of_every_kind_come_back_in_their_places(client):
    x, delayed = da.from_array(X, chunks=(30, 6)), dask.delayed(str)("delayed")
    results = fc.compute(x.max(), delayed, 5, {"min": x.min(), "both": (delayed, x.max())}, x.min())
    assert results == (X.max(), "delayed", 5, {"min": X.min(), "both": ("delayed", X.max())}, X.min())
    assert fc.compute(5, "six") == (5, "six")


def test_one_pass_reads_every_block_once(client, marks):
    x, dy = Source(X, in_folder(marks, "x")), Source(dY, in_folder(marks, "dy"))
    Y = fc.forward(x.lazy(), W, B)
    loss, _, grads = fc.compute(((Y - dy.lazy()) ** 2).sum(), Y, fc.backward(x.lazy(), W, dy.lazy()))
    np.testing.assert_allclose(loss, ((X @ W + B - dY) ** 2).sum(), rtol=1e-12)
    np.testing.assert_allclose(grads.dW, X.T @ dY, rtol=1e-12, atol=1e-12)
    assert x.reads() == dy.reads() == sorted(f"{10 * block}-0" for block in range(10))


def test_a_pass_inside_a_task_leaves_the_worker_its_thread(client):
    def dB(seed):
        return fc.compute(fc.grad_bias(da.from_array(numbers(20, 3, seed=seed), chunks=(5, 3))))[0]

    for seed, future in enumerate(client.map(dB, range(4))):
        np.testing.assert_allclose(future.result(timeout=60), numbers(20, 3, seed=seed).sum(axis=0), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler")  # Dask 2025.1 warns of it
def test_the_scheduler_of_the_configuration_comes_first(client):
    here = da.ones(4, chunks=2).map_blocks(lambda block: block * os.getpid(), dtype=float)
    assert set(fc.compute(here)[0]) & {os.getpid()} == set()
    with dask.config.set(scheduler="synchronous"):
        assert set(fc.compute(here)[0]) == {os.getpid()}


# A worker that dies


def die_once(reads):
    if reads == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def die(reads):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("row", [40, 90])
def test_a_worker_killed_in_the_middle_of_dW_does_not_change_it(marks, row):
    x = Source(X, in_folder(marks, "x"), at_row=row, do=die_once)
    with start(workers=2) as cluster, Client(cluster):
        Y, grads = fc.compute(fc.forward(x.lazy(), W), fc.backward(x.lazy(), W, da.from_array(dY, chunks=(10, 5))))
    assert {f"{row}-0", f"{row}-1"} <= set(x.reads())  # so it was killed there, and the block was read again
    np.testing.assert_allclose(Y, X @ W, rtol=1e-12)
    for part, reference in zip(grads, EXPECTED, strict=True):
        np.testing.assert_allclose(part, reference, rtol=1e-12, atol=1e-12)


def test_workers_that_are_killed_again_and_again_raise(marks):
    x = Source(X, in_folder(marks, "x"), at_row=40, do=die)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        start(workers=2) as cluster,
        Client(cluster),
        pytest.raises(KilledWorker, match="Attempted to run task"),
    ):
        fc.compute(fc.grad_weight(x.lazy(), da.from_array(dY, chunks=(10, 5))))


# What travels


@pytest.fixture
def no_scatter(monkeypatch):
    """Fail where data is scattered: what a worker then holds is lost with it."""

    def refuse(*_, **__):
        raise AssertionError("scatter was called")

    monkeypatch.setattr(distributed.Client, "_scatter", refuse)


def test_the_fixture_refuses_scatter(no_scatter, client):
    with pytest.raises(AssertionError, match="scatter was called"):
        client.scatter(1)


@pytest.fixture
def messages(monkeypatch):
    """The sizes of the large messages that this process sends, as client and as scheduler."""
    from distributed.comm.tcp import TCP

    sent, write = [], TCP.write

    async def count(self, msg, **kwargs):
        size = await write(self, msg, **kwargs)
        if size > 2**20:
            sent.append(size)
        return size

    monkeypatch.setattr(TCP, "write", count)
    return sent


def bytes_to_other_workers(dask_worker):
    return sum(transfer["total"] for transfer in dask_worker.transfer_outgoing_log)


def test_a_large_weight_travels_once_to_each_worker_and_without_a_warning(no_scatter, messages):
    """Once in the graph, though Y and dX both use it: to the scheduler, to a worker, and on to the other two."""
    weight = numbers(2048, 2048)  # 32 MiB; the warning, which is an error here, comes from 10 MB on
    rows = da.random.default_rng(0).normal(size=(24, 2048), chunks=(1, 2048))
    with start(workers=3) as cluster, Client(cluster) as client:
        Y = fc.forward(rows, weight)
        dX = fc.grad_input(Y, weight)
        loss, dX_sum = fc.compute((Y**2).sum(), dX.sum())
        peers = sum(client.run(bytes_to_other_workers).values())
        limit = dask.config.get("distributed.admin.large-graph-warning-threshold")
    assert len(messages) == 2
    assert max(messages) < weight.nbytes + 2**17
    assert weight.nbytes <= peers < 2 * weight.nbytes + 2**20
    assert limit == "10MB"
    x = rows.compute(scheduler="synchronous")
    np.testing.assert_allclose(loss, ((x @ weight) ** 2).sum(), rtol=1e-10)
    np.testing.assert_allclose(dX_sum, (x @ weight @ weight.T).sum(), rtol=1e-8)


def test_a_batch_in_the_graph_is_warned_of_still(client):
    batch = da.from_array(np.ones((1600, 1024)), chunks=(100, 1024))
    with pytest.warns(UserWarning, match="Sending large graph of size 12"):
        fc.compute(fc.grad_bias(batch))


def test_a_task_computes_several_blocks(client, marks):
    """Each task costs the scheduler 2 ms, and often a worker the way of a sum of another one."""
    rows = da.from_array(Source(numbers(64, 8), marks), chunks=(1, 8))
    with distributed.get_task_stream(client) as tasks:
        (dW,) = fc.compute(fc.grad_weight(rows, rows + 1))
    adds = [task for task in tasks.data if "_add" in str(task["key"])]
    assert len(adds) == 8  # of 8 blocks each; what takes their sum makes it
    x = numbers(64, 8)
    np.testing.assert_allclose(dW, x.T @ (x + 1), rtol=1e-12)


def test_arrays_that_workers_hold_stay_where_they_are(client):
    rows = da.from_array(X, chunks=(5, 6)).persist()
    Y = fc.forward(rows, W)
    loss, grads = fc.compute((Y**2).sum(), fc.backward(rows, W, Y, needs=("dW", "dB")))
    (dW,) = fc.compute(fc.grad_weight(rows, Y))
    np.testing.assert_allclose(loss, ((X @ W) ** 2).sum())
    np.testing.assert_allclose(grads.dW, X.T @ (X @ W))
    np.testing.assert_allclose(dW, grads.dW)


def test_two_computes_with_one_weight_at_once_do_not_clash(client, caplog):
    weight, results = W.copy(), {}

    def compute(rows):
        x = da.from_array(X[:rows], chunks=(10, 6))
        results[rows] = fc.compute(fc.forward(x, weight), fc.grad_input(da.from_array(dY, chunks=(10, 5)), weight))

    with caplog.at_level(logging.WARNING):
        passes = [threading.Thread(target=compute, args=(rows,)) for rows in (10, 50, 100)]
        [one.start() for one in passes]
        [one.join() for one in passes]
    for rows in (10, 50, 100):
        np.testing.assert_allclose(results[rows][0], X[:rows] @ W, rtol=1e-12)
        np.testing.assert_allclose(results[rows][1], EXPECTED.dX, rtol=1e-12, atol=1e-12)
    assert "run_spec" not in caplog.text
    weight *= 2.0
    compute(100)
    np.testing.assert_allclose(results[100][0], 2.0 * X @ W, rtol=1e-12)


# While it runs


def blas_threads():
    return max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")


@pytest.fixture
def cluster_of_two_blas_threads(monkeypatch):
    """One worker that begins with two BLAS threads; distributed's nanny sets one where the environment says nothing."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with start(workers=1) as cluster:
        yield cluster


def test_every_worker_has_one_blas_thread_while_a_pass_runs(cluster_of_two_blas_threads, marks):
    """Also a worker that joins while it runs: the blocks wait until there is one."""

    def arrived(wait_for):
        return list(marks.glob(f"{wait_for}-*"))

    def look(block, wait_for):
        (marks / f"{wait_for}-{os.getpid()}").touch()
        wait_until(lambda: len(arrived(wait_for)) >= wait_for, seconds=60)
        return np.full_like(block, blas_threads())

    def lazy(workers):
        return da.ones(40, chunks=1).map_blocks(look, wait_for=workers, dtype=float, meta=np.empty(0))

    def fail(block):
        raise ZeroDivisionError

    with Client(cluster_of_two_blas_threads) as client:
        assert set(client.run(blas_threads).values()) == {2}
        (seen,) = fc.compute(lazy(workers=1))
        assert set(seen) == {1}
        assert set(client.run(blas_threads).values()) == {2}
        with pytest.raises(ZeroDivisionError):
            fc.compute(da.ones(4, chunks=1).map_blocks(fail, dtype=float, meta=np.empty(0)))
        assert set(client.run(blas_threads).values()) == {2}

        def add_a_worker():
            wait_until(lambda: arrived(wait_for=2))
            cluster_of_two_blas_threads.scale(2)

        more = threading.Thread(target=add_a_worker)
        more.start()
        (seen,) = fc.compute(lazy(workers=2))
        more.join()
        assert set(seen) == {1}
        assert list(client.run(blas_threads).values()) == [2, 2]


def test_progress_in_a_log_is_lines(client, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    dB, five = fc.compute(fc.grad_bias(da.from_array(X, chunks=(10, 6))), 5, progress=True)
    np.testing.assert_allclose(dB, X.sum(axis=0), rtol=1e-12, atol=1e-12)
    assert five == 5
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("100% of ")
    assert all("% of " in line and "/s" in line for line in lines)


def test_progress_on_a_terminal_is_a_line_that_is_erased(client, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_DRAWINGS", 0)
    fc.compute(fc.grad_bias(da.from_array(X, chunks=(10, 6))), progress=True)
    printed = capsys.readouterr().out
    assert "% of " in printed
    assert "\n" not in printed
    assert printed.split("\r")[-2:] == [" " * len(printed.split("\r")[-2]), ""]


@pytest.fixture
def listens_to_ctrl_c():
    """A shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("closed", ["client", "scheduler"])
def test_a_client_that_is_closed_in_the_middle_of_a_pass_says_so(marks, closed):
    with start(workers=2) as cluster, Client(cluster) as client:

        def close():
            wait_until(lambda: list(marks.glob("reads/50-*")))
            (client if closed == "client" else cluster).close()

        closing = threading.Thread(target=close)
        closing.start()
        x = da.from_array(Source(X, in_folder(marks, "reads"), 50, lambda reads: time.sleep(3)), chunks=(10, -1))
        with pytest.raises(ConnectionError, match="closed during the pass") as raised:
            fc.store({marks / "y.npy": x})
        closing.join()
    (note,) = raised.value.__notes__
    assert "resume=True" in note
    fc.store({marks / "y.npy": x}, resume=True)
    np.testing.assert_array_equal(np.load(marks / "y.npy"), X)


@pytest.mark.parametrize("progress", [False, True])
def test_ctrl_c_cancels_the_pass(shared_cluster, client, marks, progress, listens_to_ctrl_c):
    go_on = marks / "go on"
    x = Source(X, in_folder(marks, "x"), do=lambda reads: wait_until(go_on.exists))

    def press():
        wait_until(x.reads)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        fc.compute(fc.grad_weight(x.lazy(), da.from_array(dY, chunks=(10, 5))), progress=progress)
    thread.join()
    go_on.touch()
    wait_until(lambda: not shared_cluster.scheduler.tasks)
    assert len(x.reads()) < 10
    assert [name for name in shared_cluster.scheduler.worker_plugins if "fc_arrayapi" in name] == []
    np.testing.assert_allclose(fc.compute(da.from_array(X, chunks=(50, 6)).sum())[0], X.sum(), rtol=1e-9)
