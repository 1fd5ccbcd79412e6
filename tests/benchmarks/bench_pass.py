"""One pass with nothing tuned, X -> Y - T -> dW, dB from .npy, against the best of loops written by hand."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import threadpoolctl
from files import write

import fc_arrayapi as fc
from fc_arrayapi._files import mapped

SHAPES = {
    "(131072, 1024, 256)": ((131_072, 1024, 256), "float32", 1.05),
    "(262144, 256, 1000)": ((262_144, 256, 1000), "float32", 1.05),
    "(1000000, 128, 10)": ((1_000_000, 128, 10), "float32", 1.05),
    "(65536, 2048, 1), bound by memory": ((65_536, 2048, 1), "float32", 1.1),
    "(100000, 768, 100), X in float16": ((100_000, 768, 100), "float16", 1.05),
    "(20000, 4096, 512)": ((20_000, 4096, 512), "float32", 1.05),
}
# Dask's start, which a pass of some tenths of a second feels and a longer one does not.
START = 0.015


class Pass:
    """X and T in files, a layer, and the same pass by this package and by hand."""

    def __init__(self, folder: Path, shape: tuple[int, int, int], dtype: str = "float32") -> None:
        self.folder, (self.N, C, S) = folder, shape
        rng = np.random.default_rng(0)
        for name, columns in (("x", C), ("t", S)):
            write(folder / f"{name}.npy", self.N, columns, rng)
        if dtype != "float32":
            np.save(folder / "x.npy", np.load(folder / "x.npy").astype(dtype))
        self.W, self.B = (rng.random((C, S)) / C).astype("float32"), np.zeros(S, "float32")
        self.X, self.T = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xt")

    def ours(self) -> Any:
        X = fc.open_array(self.folder / "x.npy")
        T = fc.open_array(self.folder / "t.npy", rows=X.chunksize[0])
        dY = fc.forward(X, self.W, self.B) - T
        return fc.compute(fc.backward(X, self.W, dY, needs=("dW", "dB")))

    def _block(self, rows: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.asarray(self.X[start : start + rows]).astype("float32", copy=False)
        dY = x @ self.W
        dY += self.B
        dY -= self.T[start : start + rows]
        return x.T @ dY, dY.sum(0)

    def _sum(self, parts: Any) -> tuple[np.ndarray, np.ndarray]:
        dW, dB = np.zeros_like(self.W), np.zeros_like(self.B)
        for part_of_dW, part_of_dB in parts:
            dW += part_of_dW
            dB += part_of_dB
        return dW, dB

    def loop(self, rows: int) -> Any:
        return self._sum(map(partial(self._block, rows), range(0, self.N, rows)))

    def in_threads(self, rows: int) -> Any:
        with threadpoolctl.threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
            return self._sum(pool.map(partial(self._block, rows), range(0, self.N, rows)))

    def best(self) -> tuple[str, Callable[[], Any]]:
        """Return the quickest loop: one thread of blocks, or a pool with one BLAS thread each."""
        rows = (1024, 4096, 16_384)
        loops = {f"a loop of {n} rows": partial(self.loop, n) for n in rows}
        loops |= {f"a thread pool, {n} rows": partial(self.in_threads, n) for n in rows}
        name = min(loops, key=lambda name: min(seconds(loops[name]) for _ in range(3)))
        return name, loops[name]


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def after_start(rival: Callable[[], Any]) -> Callable[[], Any]:
    """Return the rival, and Dask's start beside it."""

    def run() -> Any:
        time.sleep(START)
        return rival()

    return run


@pytest.mark.parametrize("name", SHAPES)
def test_a_pass_with_nothing_tuned(against, folder, quick, name):
    (N, C, S), dtype, at_most = SHAPES[name]
    one = Pass(folder, (N // 8 if quick else N, C, S), dtype)
    rivals_name, rival = one.best()
    (grads,) = one.ours()
    np.testing.assert_allclose(grads.dW, rival()[0], rtol=1e-3, atol=1e-4 * abs(grads.dW).max())
    against(
        name, one.ours, f"{rivals_name}, and 15 ms", after_start(rival), at_most=at_most, seconds=12.0, peaks="both"
    )


def test_sixty_passes_over_one_file(against, folder, quick):
    one = Pass(folder, (8192 if quick else 65_536, 1024, 64))
    rivals_name, rival = one.best()
    against(
        "60 passes over (65536, 1024, 64)",
        lambda: [one.ours() for _ in range(60)],
        f"60 times {rivals_name}",
        lambda: [after_start(rival)() for _ in range(60)],
        at_most=1.05,
        peaks="none",
    )


def test_a_softmax_of_1000_classes(against, folder, quick):
    N, C, S = (25_000 if quick else 200_000), 256, 1000
    one = Pass(folder, (N, C, 1))
    W, B = np.zeros((C, S), "float32"), np.zeros(S, "float32")
    labels = np.random.default_rng(0).integers(S, size=N)
    np.save(folder / "y.npy", labels)

    def ours() -> Any:
        X = fc.open_array(folder / "x.npy")
        y = fc.open_array(folder / "y.npy", rows=X.chunksize[0])
        Y = fc.forward(X, W, B)
        Z = Y - Y.max(axis=1, keepdims=True)
        log_p = Z - da.log(da.exp(Z).sum(axis=1, keepdims=True))
        target = (y[:, None] == da.arange(S)[None, :]).astype(Y.dtype)
        loss = -(target * log_p).sum() / N
        return fc.compute(loss, fc.backward(X, W, (da.exp(log_p) - target) / N, needs=("dW", "dB")))

    def loop(rows: int) -> Any:
        dW, loss = np.zeros_like(W), 0.0
        for start in range(0, N, rows):
            x, y = np.asarray(one.X[start : start + rows]), labels[start : start + rows]
            Z = x @ W + B
            Z = Z - Z.max(axis=1, keepdims=True)
            log_p = Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))
            target = (y[:, None] == np.arange(S)[None, :]).astype("float32")
            loss -= float((target * log_p).sum()) / N
            dW += x.T @ ((np.exp(log_p) - target) / N)
        return loss, dW

    best = min((1024, 4096, 16_384), key=lambda rows: seconds(partial(loop, rows)))
    against(
        "softmax with 1000 classes over 200,000 x 256", ours, f"the same in a NumPy loop of {best} rows",
        partial(loop, best), at_most=1.2, seconds=20.0, peaks="both",
    )  # fmt: skip


@contextlib.contextmanager
def cold(path: Path) -> Iterator[int]:
    """Open a file of which nothing is in the system's cache, which keeps the pages of what is mapped."""
    mapped._MAPPED.clear()
    gc.collect()
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        yield file
    finally:
        os.close(file)


def test_a_cold_pass(against, folder, quick):
    one = Pass(folder, (32_768 if quick else 262_144, 1024, 1))
    del one.X, one.T
    path = folder / "x.npy"
    size = path.stat().st_size
    os.sync()

    def ours() -> Any:
        with cold(path):
            return one.ours()

    def read(threads: int, chunk: int) -> None:
        with cold(path) as file, ThreadPoolExecutor(threads) as pool:
            buffers = [bytearray(chunk) for _ in range(threads)]
            list(pool.map(lambda at: os.preadv(file, [buffers[at // chunk % threads]], at), range(0, size, chunk)))

    ways = {(threads, chunk): partial(read, threads, chunk) for threads in (1, 2) for chunk in (2**20, 2**23)}
    (threads, chunk), best = min(ways.items(), key=lambda way: min(seconds(way[1]) for _ in range(2)))
    against(
        f"a cold pass over {size / 1e9:.1f} GB, nothing of it in the cache", ours,
        f"reading it, {threads} thread{'s' * (threads > 1)}, {chunk >> 20} MiB at a time", best,
        at_most=1.05, seconds=20.0, peaks="none",
    )  # fmt: skip


def test_two_processes(against, folder, quick):
    case, rivals_name = "(131072, 1024, 256) on a LocalCluster of 2 processes", "the same in 2 threads"
    distributed = against.needs(case, rivals_name, "distributed")
    one = Pass(folder, (16_384 if quick else 131_072, 1024, 256))
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):

        def on_cluster() -> Any:
            with client.as_current():
                return one.ours()

        against(
            case, on_cluster, rivals_name, one.ours,
            at_most=1.15, seconds=16.0, peaks="none",
        )  # fmt: skip
