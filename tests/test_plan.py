"""What a pass will take: the numbers, the warnings, and that a run takes what was planned."""

from __future__ import annotations

import re

import h5py
import numpy as np
import pytest
import zarr
from helpers.assertions import lacks, nothing_computes

import fc_arrayapi as fc

dask_only = pytest.mark.only("dask.array")


def lazy(backend, shape, chunks, dtype="float32"):
    return backend.xp.ones(shape, chunks=chunks, dtype=dtype)


@pytest.fixture
def worker(monkeypatch):
    """Set the threads and the memory of a worker; by default two threads and memory enough."""

    def set_worker(threads=2, memory=2**50):
        monkeypatch.setattr("fc_arrayapi._dask.inspect.workers", lambda *_: (threads, memory))

    set_worker()
    return set_worker


@dask_only
def test_the_plan_of_forward(backend, worker):
    with nothing_computes(backend):
        plan = fc.plan(lazy(backend, (1000, 8), (300, 8)), np.ones((8, 3), "float32"))
    assert plan == fc.Plan(
        results=("Y",),
        flops=2 * 1000 * 8 * 3,
        bytes_read=4 * (1000 * 8 + 8 * 3),
        bytes_written=4 * 1000 * 3,
        blocks=4,
        block_bytes=4 * 300 * 8,
        tasks=4 + 4 + 1,  # the blocks of X, those of Y, and W
        threads=2,
        peak_memory=4 * (2 * 300 * (1.5 * 8 + 3) + 8 * 3),  # the allocator keeps a small block
        warnings=(),
    )


@dask_only
def test_the_plan_of_backward(backend, worker):
    X, dY = lazy(backend, (1000, 8), (250, 8)), lazy(backend, (1000, 3), (250, 3))
    W = np.ones((8, 3), "float32")
    with nothing_computes(backend):
        plan = fc.plan(X, W, dY)
    assert plan.results == ("dX", "dW", "dB")
    assert plan.flops == 4 * 1000 * 8 * 3 + 1000 * 3
    assert plan.bytes_read == 4 * (1000 * 8 + 1000 * 3 + 8 * 3)
    assert plan.bytes_written == 4 * (1000 * 8 + 8 * 3 + 3)
    assert (plan.blocks, plan.block_bytes) == (4, 4 * 250 * 8)
    graphs = [array.__dask_graph__() for array in fc.backward(X, W, dY)]
    assert plan.tasks == len({key for graph in graphs for key in graph})
    assert plan.peak_memory == 4 * (2 * 250 * 1.5 * (8 + 3) + 6 * 8 * 3)  # W, four parts of dW and a sum of two
    assert plan.warnings == ()


@dask_only
def test_each_further_thread_holds_two_more_parts_of_dW(backend, worker):
    X, dY, W = lazy(backend, (1024, 8), (4, 8)), lazy(backend, (1024, 8), (4, 8)), np.ones((8, 8), "float32")
    for threads, parts in ((1, 10), (2, 12), (4, 16)):
        worker(threads)
        assert fc.plan(X, W, dY).peak_memory == 4 * (threads * 4 * 1.5 * (8 + 8) + (1 + parts) * 8 * 8)


@dask_only
@pytest.mark.parametrize(("C", "S", "block"), [(64, 4, 8), (64, 64, 8)])
def test_features_that_stay_in_blocks_are_counted_so(backend, worker, C, S, block):
    import dask

    worker(threads=1)
    X, W = lazy(backend, (40, C), (10, block)), np.ones((C, S), "float32")
    with dask.config.set({"array.chunk-size": "1KiB"}):
        plan = fc.plan(X, W)
    assert plan.block_bytes == 4 * 10 * block
    products = 3 + 2  # log2(8) + 2 of the sum over the blocks of C
    assert plan.peak_memory == 4 * (1.5 * 10 * block + products * 10 * S + C * S)


@dask_only
def test_dX_is_counted_in_the_blocks_that_it_has(backend, worker):
    """All features at once, since W is one block, where X stays in several."""
    import dask

    worker(threads=1)
    X, dY = lazy(backend, (40, 64), (10, 8)), lazy(backend, (40, 4), (10, 4))
    with dask.config.set({"array.chunk-size": "1KiB"}):
        plan = fc.plan(X, np.ones((64, 4), "float32"), dY)
    sums = 4  # log2(4) + 2
    assert plan.peak_memory == 4 * (1.5 * 10 * 4 + 10 * 64 + (1 + sums) * 64 * 4)


@dask_only
def test_leading_axes_are_one_batch(backend, worker):
    plan = fc.plan(lazy(backend, (10, 20, 8), (5, 4, 8)), np.ones((8, 3), "float32"))
    assert (plan.flops, plan.blocks, plan.block_bytes) == (2 * 200 * 8 * 3, 10, 4 * 20 * 8)


@dask_only
def test_it_prints_as_a_table(backend, worker):
    worker(threads=1)
    X, dY = lazy(backend, (2**20, 256), (2**17, 256)), lazy(backend, (2**20, 10), (2**16, 10))
    plan = fc.plan(X, np.ones((256, 10), "float32"), dY)
    [warning] = plan.warnings
    assert lacks(warning, "axis n", "axis 0", "X has 8 blocks", "dY has 16", "dY.rechunk({0: X.chunks[0]})") == []
    assert re.sub(r"tasks .*", "tasks ...", repr(plan)) == (
        "pass for     dX, dW, dB\n"
        "flops        1.07e+10\n"
        "read         1.04 GiB\n"
        "written      1 GiB\n"
        "blocks of X  8 of 128 MiB\n"
        "tasks ...\n"
        "peak memory  137 MiB with 1 thread\n"
        f"warning: {warning}"
    )


@pytest.mark.only("numpy", "array_api_strict", "torch", "jax.numpy", "cupy")
def test_in_memory_there_is_one_block_and_no_warning(backend, batch):
    X, W, dY = (backend.asarray(batch[name].astype("float32")) for name in ("X", "W", "dY"))
    plan = fc.plan(X, W, dY)
    assert (plan.blocks, plan.tasks, plan.block_bytes, plan.warnings) == (1, 1, 4 * 7 * 4, ())
    assert plan.peak_memory == plan.bytes_written == 4 * (7 * 4 + 4 * 3 + 3)
    assert fc.plan(X, W).peak_memory == 4 * 7 * 3


def test_plan_refuses_wrong_shapes_like_the_layer(backend, batch):
    X, W, dY = (backend.asarray(batch[name]) for name in ("X", "W", "dY"))
    for wrong in ((X, dY), (X, W, X), (X, W, dY[1:, :]), ("X", W)):
        with pytest.raises((TypeError, ValueError)) as expected:
            (fc.forward if len(wrong) == 2 else fc.backward)(*wrong)
        with pytest.raises(expected.type) as raised:
            fc.plan(*wrong)
        assert str(raised.value) == str(expected.value)


# X, dY, threads and memory of a worker, and the facts of the one warning. W is (8, 4) in float32.
WARNINGS = {
    "small blocks": (
        ((10_000, 8), (10, 8)), None, 2, 2**50,
        ("too small", "X has 1,000 blocks of 320 bytes", "rows=4194304", "X.rechunk"),
    ),
    "large blocks": (
        ((2**28, 8), (2**27, 8)), None, 2, 2**50,
        ("too large", "X has blocks of 4 GiB", "2 at once", "rows=4194304", "X.rechunk"),
    ),
    "fewer blocks than threads": (
        ((2**24, 8), (2**23, 8)), None, 4, 2**50,
        ("too large", "X has 2", "4 threads", "rows=4194304", "X.rechunk"),
    ),
    "chunked C": (((100, 8), (50, 2)), None, 2, 2**50, ("X has 4 blocks", "axis c", "X.rechunk({1: -1})")),
    "chunked S": (
        ((100, 8), (50, 8)), ((100, 4), (50, 2)), 2, 2**50,
        ("dY has 2 blocks", "axis s", "dY.rechunk({1: -1})"),
    ),
    "misaligned": (
        ((100, 8), (50, 8)), ((100, 4), (25, 4)), 2, 2**50,
        ("axis n", "axis 0", "X has 2 blocks", "dY has 4", "dY.rechunk({0: X.chunks[0]})"),
    ),
    "a large W": (
        ((100, 8), (50, 8)), ((100, 4), (50, 4)), 2, 500,
        ("W too large", "W, 128 bytes", "384 bytes for the sums of dW", "has 500 bytes", "W[:, :2]", "W[:, 2:]"),
    ),
    "a large task": (
        ((100, 8), (50, 8)), None, 2, 2000,
        ("a task needs 2.47 KiB", "has 1.95 KiB", "rows=9", "X.rechunk({0: 9})"),
    ),
    "many large tasks": (
        ((100, 8), (50, 8)), None, 2, 4000,
        ("2 threads", "need 6.38 KiB", "has 3.91 KiB", "fewer threads"),
    ),
}  # fmt: skip


@dask_only
@pytest.mark.parametrize("case", WARNINGS)
def test_warnings_give_advice(backend, worker, case):
    X, dY, threads, memory, facts = WARNINGS[case]
    worker(threads, memory)
    with nothing_computes(backend):
        plan = fc.plan(lazy(backend, *X), np.ones((8, 4), "float32"), None if dY is None else lazy(backend, *dY))
    [warning] = plan.warnings
    assert lacks(warning, *facts) == []
    assert repr(plan).endswith(f"\nwarning: {warning}")


@dask_only
def test_the_rows_advised_for_a_large_task_fit(backend, worker):
    worker(2, 2000)
    assert fc.plan(lazy(backend, (100, 8), (9, 8)), np.ones((8, 4), "float32")).warnings == ()


@dask_only
@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_columns_as_chunks_are_no_matter_of_rows(backend, worker, tmp_path, kind):
    """Only another file has smaller blocks."""
    path = tmp_path / f"x.{kind}"
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("x", (2_000_000, 64), "f4", chunks=(2_000_000, 1))
    else:
        zarr.create_array(path, shape=(2_000_000, 64), dtype="f4", chunks=(2_000_000, 1))
    with pytest.warns(UserWarning, match=f"{path.name}.*2,000,000 rows"):
        X = fc.open_array(f"{path}::x" if kind == "h5" else path)
    for memory in (2**34, 2**28):
        worker(threads=2, memory=memory)
        advice = " ".join(fc.plan(X, np.ones((64, 2), "float32")).warnings)
        assert lacks(advice, path.name, "2,000,000 rows", "anew", "fc.store({'x.zarr': X.rechunk({0:") == []
        assert "rows=" not in advice


@dask_only
def test_features_that_stay_in_blocks_are_said_once(backend, worker, recwarn):
    worker(threads=1)
    X = lazy(backend, (2**20, 256), (2**20, 128))  # 1 GiB in one block
    plan = fc.plan(X, np.ones((256, 4), "float32"))
    assert len(recwarn) == 0
    [warning] = plan.warnings
    assert lacks(warning, "forward: X has 2 blocks", "axis c", "X.rechunk(") == []


@dask_only
@pytest.mark.needs("unknown_chunks")
def test_unknown_sizes_leave_the_numbers_open(backend, worker):
    X = lazy(backend, (100, 8), (50, 8))
    X = X[X[:, 0] > 0]
    with nothing_computes(backend):
        plan = fc.plan(X, np.ones((8, 4), "float32"))
    assert (plan.flops, plan.bytes_read, plan.bytes_written, plan.block_bytes, plan.peak_memory) == (None,) * 5
    assert plan.blocks == 2
    some = fc.plan(backend.xp.concatenate([lazy(backend, (1, 8), (1, 8)), X]), np.ones((8, 4), "float32"))
    assert (some.block_bytes, some.peak_memory) == (None, None)
    [warning] = plan.warnings
    assert lacks(warning, "X has blocks of unknown size", "X.compute_chunk_sizes()") == []
    assert "peak memory  unknown size with 2 threads" in repr(plan)


@dask_only
def test_threads_are_those_of_dask(backend):
    import dask

    X, W = lazy(backend, (100, 8), (50, 8)), np.ones((8, 4), "float32")
    with dask.config.set(num_workers=3):
        assert fc.plan(X, W).threads == 3
    with dask.config.set(scheduler="sync"):
        assert fc.plan(X, W).threads == 1
    assert fc.plan(X, W).threads == dask.system.CPU_COUNT


@pytest.mark.only("distributed")
def test_a_worker_of_the_current_client_sets_the_limit(backend):
    import dask.array as da
    from distributed import Client

    X, W = da.ones((2**20, 8), chunks=(2**18, 8)), np.ones((8, 4))
    with Client(n_workers=1, threads_per_worker=3, memory_limit="20MiB", processes=False, dashboard_address=None):
        plan = fc.plan(X, W)
    assert plan.threads == 3
    [warning] = plan.warnings
    assert lacks(warning, "a task needs 24 MiB", "has 20 MiB", "rows=36408", "X.rechunk({0: 36408})") == []


@dask_only
def test_blocks_that_are_views_take_no_memory(backend, worker, tmp_path):
    rows, W = np.ones((100, 8), "float32"), np.ones((8, 4), "float32")
    np.save(tmp_path / "x.npy", rows)
    (tmp_path / "parts").mkdir()
    for part in (1, 2):
        np.save(tmp_path / "parts" / f"{part}.npy", rows[:50])

    def held(X):
        return fc.plan(X, W).peak_memory - 2 * 4 * X.chunks[0][0] * 4 - 4 * 8 * 4  # beside Y and W

    assert held(fc.open_array(tmp_path / "x.npy", rows=50)) == 0
    assert held(fc.open_array(tmp_path / "parts", rows=50)) == 0
    # Blocks of two files are copies; of small ones the allocator keeps some more.
    assert held(fc.open_array(tmp_path / "parts", rows=40)) == 1.5 * 2 * 4 * 40 * 8
    assert held(backend.xp.from_array(rows, chunks=(50, 8))) == 1.5 * 2 * 4 * 50 * 8
    assert held(-fc.open_array(tmp_path / "x.npy", rows=50)) == 1.5 * 2 * 4 * 50 * 8
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = rows
    assert held(fc.open_array(f"{tmp_path}/x.h5::x", rows=50)) == 1.5 * 2 * 4 * 50 * 8
    fc.store({tmp_path / "x.zarr": backend.asarray(rows)})
    X = fc.open_array(tmp_path / "x.zarr", rows=50)  # in whole chunks of 34 rows, three of 3 columns for the 8
    assert held(X) == 1.5 * 2 * 4 * 34 * (8 + 9)


@dask_only
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("chunks", "shards", "files"),
    [
        ((20, 4), None, 3),  # of 6 in a block of 60 rows
        ((10, 4), (20, 8), 3),  # of 3
        ((60, 8), None, 1),
        ((60, 5), None, 2),  # the second one holds 2 columns more than there are
    ],
)
def test_chunks_that_zarr_reads_at_a_time_are_counted(
    backend, worker, tmp_path, rng, compressed, chunks, shards, files
):
    path, one = tmp_path / "x.zarr", "auto" if compressed else None
    array = zarr.create_array(path, shape=(120, 8), chunks=chunks, shards=shards, dtype="float32", compressors=one)
    array[:] = rng.random((120, 8))
    held = 4 * np.prod(shards or chunks)  # of one file
    if compressed:
        sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        held += sum(sizes) / (len(sizes) - 1)  # one has the metadata
    plan = fc.plan(fc.open_array(path, rows=60), np.ones((8, 4), "float32"))
    assert plan.peak_memory == round(2 * (1.5 * (4 * 60 * 8 + files * held) + 4 * 60 * 4) + 4 * 8 * 4)


@dask_only
@pytest.mark.parametrize("shape", [(0, 8), (10, 0)])
def test_an_empty_zarr_array_has_a_plan(backend, worker, tmp_path, shape):
    zarr.create_array(tmp_path / "x.zarr", shape=shape, chunks=(4, 4), dtype="float32")
    plan = fc.plan(fc.open_array(tmp_path / "x.zarr"), np.ones((shape[1], 4), "float32"))
    assert plan.flops == 0
