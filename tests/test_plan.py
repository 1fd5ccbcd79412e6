"""What a pass takes, before it runs: flops, bytes, blocks, tasks, memory, time, warnings."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from helpers.assertions import lacks, nothing_computes
from helpers.planned_passes import PASSES

import fc_arrayapi as fc
from fc_arrayapi._dask.block_sizes import KEPT_ONCE, KEPT_WITH_OWN_THREADS
from fc_arrayapi._dask.inspect import Workers

dask_only = pytest.mark.only("dask.array")
MIB = 2**20


def lazy(backend, shape, chunks, dtype="float32"):
    return backend.xp.ones(shape, chunks=chunks, dtype=dtype)


@pytest.fixture
def worker(monkeypatch):
    """Set the threads and the memory of a worker, by default one thread and memory enough; no graph is counted."""
    for name in ("RAW_BYTES", "GRAPH_BYTES", "WRITE_BYTES"):
        monkeypatch.setattr(f"fc_arrayapi._dask.pass_costs.{name}", 0)

    def set_worker(threads=1, memory=2**50):
        monkeypatch.setattr("fc_arrayapi._dask.inspect.workers", lambda *_: Workers(threads, memory))

    set_worker()
    return set_worker


def beside_tasks(plan):
    """Return the planned memory without what each thread and Dask take beside blocks."""
    return plan.peak_memory - MIB // 2 * (min(plan.threads, plan.tasks) + 1)


@dask_only
@pytest.mark.needs("joined_tasks")
def test_the_plan_of_forward(backend, worker, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((1000, 8), "float32"))
    with nothing_computes(backend):
        Y = fc.forward(fc.open_array(tmp_path / "x.npy", rows=300), np.ones((8, 3), "float32"))
        plan = fc.plan({tmp_path / "y.npy": Y})
    assert (plan.flops, plan.bytes_read, plan.bytes_written) == (2 * 1000 * 8 * 3, 4 * 1000 * 8, 4 * 1000 * 3)
    assert (plan.blocks, plan.tasks, plan.threads, plan.warnings) == (4, 4, 1, ())
    assert beside_tasks(plan) == 4 * 300 * 3  # a block of Y; those of X are views
    assert beside_tasks(fc.plan(Y)) == 2 * 4 * 1000 * 3  # all of them, and Y


@dask_only
@pytest.mark.needs("joined_tasks")
@pytest.mark.parametrize(("threads", "blocks"), [(1, 1), (2, 2), (4, 4)])
def test_each_thread_holds_blocks_of_its_own(backend, worker, tmp_path, threads, blocks):
    worker(threads)
    X, dY = (lazy(backend, (1000, k), (100, k)) + 1 for k in (8, 4))
    plan = fc.plan({"dx.npy": fc.grad_input(dY, np.ones((8, 4), "float32"))})
    assert beside_tasks(plan) == blocks * 4 * 100 * (4 + 8)
    plan = fc.plan(fc.grad_weight(X, dY))
    assert blocks * 4 * 100 * (8 + 4) < beside_tasks(plan) < blocks * 4 * 100 * (8 + 4) + 4 * 8 * 4 * 12 * blocks


@dask_only
def test_flops_of_every_contraction(backend, worker):
    X, dY, W = lazy(backend, (1000, 8), (250, 8)), lazy(backend, (1000, 4), (250, 4)), np.ones((8, 4), "float32")
    product, sum_of_rows = 2 * 1000 * 8 * 4, 1000 * 4
    assert fc.plan(fc.backward(X, W, dY)).flops == 2 * product + sum_of_rows
    assert fc.plan(fc.forward(X, W, np.ones(4, "float32"))).flops == product + 1000 * 4
    assert fc.plan(fc.einsum("nc,cs->ns", X, W)).flops == product
    assert fc.plan(fc.einsum_backward("nc,cs->ns", X, W, dY=dY, needs=(1,))).flops == product
    assert fc.plan(fc.moments(X, dY)).flops == 2 * 1000 * 8 * (8 + 4)
    assert fc.plan(fc.per_sample_norms(X, dY)).flops == 2 * 1000 * (8 + 4)
    assert fc.plan(fc.per_sample_dots(X, dY, X[:3].compute(), dY[:3].compute())).flops == 2 * 1000 * 3 * (8 + 4)


@dask_only
def test_what_results_share_counts_once(backend, worker):
    X, W = lazy(backend, (1000, 8), (250, 8)) + 1, np.ones((8, 4), "float32")
    Y = fc.forward(X, W)
    one, both = fc.plan(Y), fc.plan(Y, fc.backward(X, W, Y, needs=("dW",)), 3, "no array")
    assert both.flops == 2 * one.flops
    assert both.bytes_read == one.bytes_read == 4 * 1000 * 8


@dask_only
@pytest.mark.needs("joined_tasks")
def test_a_loss_of_the_user(backend, worker, tmp_path):
    """Its steps count, those that end before others begin do not add up, and no function of it runs on a block."""
    da = backend.xp
    for name, array in (("x", np.ones((4000, 8), "float32")), ("y", np.zeros(4000, "int64"))):
        np.save(tmp_path / f"{name}.npy", array)
    X, y = (fc.open_array(tmp_path / f"{name}.npy", rows=1000) for name in "xy")
    layer = fc.FullyConnected(np.ones((8, 100), "float32"), np.ones(100, "float32"))
    with nothing_computes(backend):
        Z = layer(X)
        Z = Z - Z.max(axis=1, keepdims=True)
        log_p = Z - da.log(da.exp(Z).sum(axis=1, keepdims=True))
        targets = (y[:, None] == da.arange(100)[None, :]).astype("float32")
        loss = -(targets * log_p).sum() / 4000
        plan = fc.plan(loss, layer.backward(X, (da.exp(log_p) - targets) / 4000, needs=("dW", "dB")))
    block = 4 * 1000 * 100
    assert 3 * block < beside_tasks(plan) < 10 * block  # Dask's order differs from run to run
    assert plan.warnings == ()


@dask_only
@pytest.mark.needs("other_sources")
def test_functions_of_the_user_are_not_called(backend, worker):
    called = []
    X = lazy(backend, (100, 8), (50, 8)).map_blocks(lambda block: called.append(1) or block * 2, dtype="float32")
    called.clear()
    plan = fc.plan(fc.forward(X, np.ones((8, 3), "float32")))
    assert called == []
    [warning] = plan.warnings
    assert lacks(warning, "<lambda>", "not known", "one copy") == []
    assert plan.flops == 2 * 100 * 8 * 3


@dask_only
@pytest.mark.needs("other_sources")
def test_blocks_that_nobody_knows(backend, worker):
    import dask

    called = []
    load = dask.delayed(lambda: called.append(1) or np.ones((50, 8)))
    X = backend.xp.concatenate([backend.xp.from_delayed(load(), (50, 8), float) for _ in range(2)])
    plan = fc.plan(fc.grad_weight(X, fc.forward(X, np.ones((8, 3)))), load())
    assert called == []
    assert plan.peak_memory > 0
    assert lacks(" ".join(plan.warnings), "<lambda>", "not known") == []


@dask_only
def test_nothing_lazy_takes_nothing(backend):
    plan = fc.plan(np.ones(3), None)
    assert (plan.flops, plan.bytes_read, plan.tasks, plan.peak_memory) == (0, 0, 0, 0)


@dask_only
@pytest.mark.needs("joined_tasks")
def test_it_prints_as_a_table(backend, worker, tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (2**20, 256))
    X, W = fc.open_array(tmp_path / "x.npy"), np.ones((256, 64), "float32")
    plan = fc.plan(fc.grad_weight(X, fc.forward(X, W)))
    lines = repr(plan).splitlines()
    assert lines[:3] == ["flops        68.7 GFLOP", "read         1 GiB in 128 blocks", "written      64 KiB"]
    assert lines[3].startswith("tasks        ")
    assert lines[4].startswith("peak memory  ")
    assert lines[4].endswith("MiB with 1 thread")
    assert lacks(lines[-1], "the system's cache") == []
    html = plan._repr_html_()
    assert lacks(html, "<table>", "<th>flops</th><td>68.7 GFLOP</td>") == []


TIMED = ["training-512-64-float16-2", "from_zarr-compressed-1", "from_random_blocks-1024-2", "forward_to_file-512-64-2",
         "moments-256-2"]  # fmt: skip


@dask_only
@pytest.mark.needs("the_disk")
@pytest.mark.parametrize("name", TIMED)
def test_the_time_is_measured_of_each_kind_of_pass(backend, tmp_path, name):
    make, _ = PASSES[name]
    results = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert 0.015 < fc.plan(results, measure=True).seconds < 60
    assert sorted(tmp_path.iterdir()) == before  # what is written for it goes elsewhere


@dask_only
def test_the_time_is_measured_when_asked(backend, worker, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((1000, 8), "float32"))
    Y = fc.forward(fc.open_array(tmp_path / "x.npy", rows=300), np.ones((8, 3), "float32"))
    assert fc.plan(Y).seconds is None
    plan = fc.plan(Y, measure=True)
    assert 0 < plan.seconds < 60
    assert "time " in repr(plan)


# What is read, the threads and memory of a worker, and the facts of the one warning. W is (8, 4) in float32.
WARNINGS = {
    "small blocks": (((10_000, 8), (10, 8)), 2, 2**50, ("too small", "1,000 blocks of 320 bytes", "X.rechunk")),
    "large blocks": (((2**28, 8), (2**27, 8)), 2, 2**50, ("too large", "blocks of 4 GiB", "2 at once", "X.rechunk")),
    "fewer blocks than threads": (((2**23, 8), (2**22, 8)), 4, 2**50, ("too large", "2 blocks", "4 threads", "{0: ")),
    "too much memory": (((10**7, 8), (10**6, 8)), 2, 2**24, ("takes up to", "1,000,000 rows", "has 16 MiB")),
}  # fmt: skip


@dask_only
@pytest.mark.parametrize("case", WARNINGS)
def test_warnings_give_advice(backend, worker, case):
    (shape, chunks), threads, memory, facts = WARNINGS[case]
    worker(threads, memory)
    with nothing_computes(backend):
        X = lazy(backend, shape, chunks)
        plan = fc.plan({"dx.npy": fc.forward(X, np.ones((8, 4), "float32"))})
    [warning] = plan.warnings
    assert lacks(warning, *facts) == []
    assert f"\nwarning      {warning}" in repr(plan)


@dask_only
def test_blocks_of_many_outputs_are_not_small(backend, worker):
    """max(C, S) counts: 10,000 columns of Y take longer than Dask."""
    X = lazy(backend, (20_000, 8), (100, 8))
    assert "too small" in fc.plan({"y.npy": fc.forward(X, np.ones((8, 4), "float32"))}).warnings[0]
    assert fc.plan({"y.npy": fc.forward(X, np.ones((8, 20_000), "float32"))}).warnings == ()


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
    worker(threads=2, memory=2**28)
    advice = " ".join(fc.plan(fc.forward(X, np.ones((64, 2), "float32"))).warnings)
    assert lacks(advice, path.name, "2,000,000 rows", "anew", "fc.store({'x.zarr': X.rechunk({0:") == []
    assert "rows=" not in advice


@dask_only
@pytest.mark.needs("unknown_chunks")
def test_blocks_of_unknown_size_count_as_large_as_they_can_be(backend, worker):
    X = lazy(backend, (100, 8), (50, 8))
    with nothing_computes(backend):
        plan = fc.plan(fc.grad_weight(X[X[:, 0] > 0], X[X[:, 0] > 0]))
    assert plan.flops == 2 * 100 * 8 * 8
    [warning] = plan.warnings
    assert lacks(warning, "getitem", "not known") == []


@dask_only
def test_threads_are_those_of_dask(backend):
    import dask

    Y = fc.forward(lazy(backend, (100, 8), (50, 8)), np.ones((8, 4), "float32"))
    with dask.config.set(num_workers=3):
        assert fc.plan(Y).threads == 3
    with dask.config.set(scheduler="sync"):
        assert fc.plan(Y).threads == 1
    assert fc.plan(Y).threads == dask.system.CPU_COUNT


@pytest.mark.only("distributed")
def test_the_workers_of_the_current_client_set_the_limit(backend):
    import dask.array as da
    from distributed import Client

    X, W = da.ones((2**20, 8), chunks=(2**18, 8)) + 1, np.ones((8, 4))
    Y = fc.forward(X, W)
    with Client(n_workers=1, threads_per_worker=3, memory_limit="20MiB", processes=False, dashboard_address=None):
        for lazy, advice in ((fc.grad_weight(X, Y), "X.rechunk"), (Y, "fc.store")):
            plan = fc.plan(lazy)
            assert plan.threads == 3
            [warning] = plan.warnings
            assert lacks(warning, "3 threads", "a worker has 20 MiB", advice) == []
            with pytest.raises(ValueError, match=rf"a worker has 20 MiB: .*{advice}"):
                fc.compute(lazy)


@dask_only
def test_blocks_that_are_views_take_no_memory(backend, worker, tmp_path):
    rows, W = np.ones((100, 8), "float32"), np.ones((8, 4), "float32")
    np.save(tmp_path / "x.npy", rows)
    (tmp_path / "parts").mkdir()
    for part in (1, 2):
        np.save(tmp_path / "parts" / f"{part}.npy", rows[:50])

    def held(X):
        return beside_tasks(fc.plan({"y.npy": fc.forward(X, W)})) - 4 * X.chunks[0][0] * 4  # beside Y

    assert held(fc.open_array(tmp_path / "x.npy", rows=50)) == 0
    assert held(fc.open_array(tmp_path / "parts", rows=50)) == 0
    assert held(fc.open_array(tmp_path / "parts", rows=40)) == 4 * 40 * 8  # blocks of two files are copies
    assert held(-fc.open_array(tmp_path / "x.npy", rows=50)) == 4 * 50 * 8
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = rows
    assert held(fc.open_array(f"{tmp_path}/x.h5::x", rows=50)) == 4 * 50 * 8


@dask_only
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("chunks", "shards", "files"),
    [
        ((20, 4), None, 6),  # in a block of 60 rows
        ((5, 4), None, 10),  # of 24: zarr reads ten at once
        ((10, 4), (20, 8), 3),
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
    plan = fc.plan({"y.npy": fc.forward(fc.open_array(path, rows=60), np.ones((8, 4), "float32"))})
    block, beside = 4 * 60 * 8, files * held
    kept = KEPT_WITH_OWN_THREADS * beside + KEPT_ONCE * min(beside, block)
    assert abs(beside_tasks(plan) - (block + kept)) <= 4 * 60 * 4


@dask_only
@pytest.mark.parametrize("shape", [(0, 8), (10, 0)])
def test_an_empty_zarr_array_has_a_plan(backend, worker, tmp_path, shape):
    zarr.create_array(tmp_path / "x.zarr", shape=shape, chunks=(4, 4), dtype="float32")
    assert fc.plan(fc.forward(fc.open_array(tmp_path / "x.zarr"), np.ones((shape[1], 4), "float32"))).flops == 0


@dask_only
def test_a_pass_over_the_limit_does_not_start(backend, worker, tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (2**16, 256))
    X, W = fc.open_array(tmp_path / "x.npy", rows=2**15), np.ones((256, 256), "float32")
    Y = fc.forward(X, W)
    dW = fc.grad_weight(X, Y)
    with nothing_computes(backend):
        for limit in ("16 MB", 16_000_000):
            with pytest.raises(ValueError, match="memory_limit") as refused:
                fc.compute(dW, memory_limit=limit)
            assert lacks(str(refused.value), repr(limit), "32,768 rows", "open x.npy with rows=") == []
        with pytest.raises(ValueError, match=r"memory_limit is '16 MB': open x.npy with rows="):
            fc.store({tmp_path / "y.npy": Y}, memory_limit="16 MB")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    rows = int(str(refused.value).split("rows=")[1].split(",")[0])
    X = fc.open_array(tmp_path / "x.npy", rows=rows)
    fc.compute(fc.grad_weight(X, fc.forward(X, W)), memory_limit="16 MB")
    fc.store({tmp_path / "y.npy": fc.forward(X, W)}, memory_limit=16_000_000)


@dask_only
def test_sums_that_no_rows_make_smaller(backend, worker):
    X = lazy(backend, (100, 1000), (10, 1000))
    with pytest.raises(ValueError, match=r"with any rows of a block it takes .* MiB or more: .* features in parts"):
        fc.compute(fc.grad_weight(X, X), memory_limit="8 MB")


@dask_only
def test_results_that_stay_in_memory_are_to_be_written(backend, worker):
    X = lazy(backend, (10_000, 8), (100, 8))
    with pytest.raises(ValueError, match=r"results stay in memory and take 7.63 MiB: write them with fc.store"):
        fc.compute(fc.forward(X, np.ones((8, 100), "float32")), memory_limit="4 MB")


@dask_only
@pytest.mark.needs("joined_tasks")
def test_the_graph_is_counted_and_fewer_blocks_are_advised(backend, tmp_path):
    """With 10,000 blocks the graph takes more than the blocks do; with very few rows it would take more still."""
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "float32", (1_000_000, 8))
    W = np.ones((8, 3), "float32")

    def dW(rows):
        X = fc.open_array(tmp_path / "x.npy", rows=rows)
        return fc.grad_weight(X, fc.forward(X, W) + 1)

    assert fc.plan(dW(100)).peak_memory > 10_000 * 5000 > fc.plan(dW(10_000)).peak_memory * 10
    with pytest.raises(ValueError, match=r"memory_limit is '8 MB': open x.npy with rows=") as refused:
        fc.compute(dW(100), memory_limit="8 MB")
    rows = int(str(refused.value).split("rows=")[1].split(",")[0])
    assert rows > 1000
    fc.compute(dW(rows), memory_limit="8 MB")
    with pytest.raises(ValueError, match=r"with any rows of a block it takes .* or more: give it that"):
        fc.compute(dW(100), memory_limit="1 MB")


@dask_only
@pytest.mark.parametrize("limit", ["much", 0, -1, True, "2 XB", [1]])
def test_a_limit_is_bytes(backend, limit):
    Y = fc.forward(lazy(backend, (100, 8), (50, 8)), np.ones((8, 4), "float32"))
    with nothing_computes(backend), pytest.raises(ValueError, match=r"memory_limit is .*: pass bytes, or a text such"):
        fc.compute(Y, memory_limit=limit)


def test_the_plan_is_data(backend):
    import dataclasses

    fields = [field.name for field in dataclasses.fields(fc.Plan)]
    assert fields == [
        "flops", "bytes_read", "bytes_written", "blocks", "tasks", "threads", "peak_memory", "seconds", "warnings",
    ]  # fmt: skip
    assert json.loads(json.dumps(dataclasses.asdict(fc.plan())))["warnings"] == []


@dask_only
@pytest.mark.needs("joined_tasks")
def test_blocks_that_differ_are_warned_of(backend, worker, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((1000, 8), "float32"))
    np.save(tmp_path / "t.npy", np.ones((1000, 3), "float32"))
    X, T = fc.open_array(tmp_path / "x.npy", rows=500), fc.open_array(tmp_path / "t.npy", rows=30)
    W = np.ones((8, 3), "float32")
    warning, *_ = fc.plan(fc.grad_weight(X, fc.forward(X, W) - T)).warnings
    assert lacks(warning, "t.npy", "30 rows", "x.npy", "500", "rows=500") == []
    for aligned in (fc.open_array(tmp_path / "t.npy", rows=500), T.rechunk({0: 500})):
        assert fc.plan(fc.grad_weight(X, fc.forward(X, W) - aligned)).warnings == ()


@dask_only
@pytest.mark.needs("joined_tasks")
def test_row_groups_that_differ(backend, worker, tmp_path):
    """Blocks of other arrays follow theirs, and the sizes of those that are joined are known."""
    rows = np.ones((1000, 8), "float32")
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 8)
    with pq.ParquetWriter(tmp_path / "x.parquet", pa.schema({"v": column.type})) as file:
        for first, last in ((0, 300), (300, 400), (400, 1000)):
            file.write_table(pa.table({"v": column[first:last]}))
    np.save(tmp_path / "t.npy", rows[:, :3])
    X, T = fc.open_array(f"{tmp_path}/x.parquet::v", rows=600), fc.open_array(tmp_path / "t.npy", rows=300)
    assert X.chunks[0] == (400, 600)
    W = np.ones((8, 3), "float32")
    [warning] = fc.plan(fc.grad_weight(X, fc.forward(X, W) - T)).warnings
    assert lacks(warning, "t.npy", "300 rows", "x.parquet", "600", "T.rechunk({0: X.chunks[0]})") == []
    for chunks in (X.chunks[0], 200):
        x, t = X.rechunk({0: chunks}), T.rechunk({0: chunks})
        plan = fc.plan(fc.grad_weight(x, fc.forward(x, W) - t))
        assert plan.warnings == ()
        assert beside_tasks(plan) < 4 * 8 * 4 * 1000


@dask_only
@pytest.mark.needs("other_sources")
def test_only_the_first_unknown_function_is_named(backend, worker):
    """What takes its result has sizes that are not known either, and is not the reason."""
    X = lazy(backend, (100, 8), (50, 8)).map_blocks(lambda block: block[:, :2], chunks=((50, 50), (2,)), dtype="f4")
    [warning] = fc.plan(fc.grad_weight(X, fc.forward(X, np.ones((2, 3), "float32")))).warnings
    assert "<lambda>" in warning
