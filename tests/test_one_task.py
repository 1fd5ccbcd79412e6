"""The tasks of a block: joined into one, in an order that is known before they run."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import fc_arrayapi as fc
from fc_arrayapi._dask import one_task
from fc_arrayapi._dask.one_task import Steps, optimize

pytestmark = [pytest.mark.only("dask.array"), pytest.mark.needs("joined_tasks")]
BLOCKS = 6


@pytest.fixture
def files(tmp_path, rng):
    np.save(tmp_path / "x.npy", rng.normal(size=(60, 4)))
    np.save(tmp_path / "t.npy", rng.normal(size=(60, 3)))
    np.save(tmp_path / "w.npy", rng.normal(size=(4, 3)))
    return tmp_path


def gradients(files, dtype=None, target_rows=10):
    X = fc.open_array(files / "x.npy", rows=10, dtype=dtype)
    T = fc.open_array(files / "t.npy", rows=target_rows).rechunk({0: 10})
    W = np.load(files / "w.npy")
    return fc.backward(X, W, fc.forward(X, W) - T, needs=("dW", "dB"))[1:]


def tasks_by_kind(graph):
    return Counter(str(key[0] if isinstance(key, tuple) else key).rsplit("-", 1)[0] for key in graph)


def optimized(*arrays):
    import dask

    return dict(dask.optimize(*one_task.joined(arrays))[0].__dask_graph__())


@pytest.mark.parametrize("target_rows", [10, 30])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_a_block_is_read_and_computed_in_one_task(backend, files, dtype, target_rows):
    kinds = tasks_by_kind(optimized(*gradients(files, dtype, target_rows)))
    read = kinds.pop("array", 0)  # W, and the two blocks of T that three tasks each take a part of
    assert read <= 1 + (60 // target_rows if target_rows > 10 else 1)
    sums = sum(count for kind, count in kinds.items() if "add" in kind)
    assert sums <= BLOCKS + 1
    assert kinds["keep"] + kinds["keep-_add-partial"] == BLOCKS


def test_results_are_those_of_dasks_own_graph(backend, files):
    import dask

    lazy = gradients(files, "float32", 30)
    for ours, dasks in zip(fc.compute(*lazy), dask.compute(*lazy), strict=True):
        np.testing.assert_array_equal(ours, dasks)


def test_a_block_that_several_results_take_is_read_once(backend, files, monkeypatch):
    from fc_arrayapi._files.mapped import MappedArray

    reads, read = [], MappedArray.__getitem__
    monkeypatch.setattr(MappedArray, "__getitem__", lambda self, index: reads.append(index) or read(self, index))
    X = fc.open_array(files / "x.npy", rows=10)
    fc.compute(fc.forward(X, np.load(files / "w.npy")), fc.grad_weight(X, X), X)
    assert len(reads) == BLOCKS


def on_a_cluster(threads, *arrays):
    """Return how many tasks of a pass on a cluster with these threads take no other's result."""
    from dask.core import flatten
    from dask.highlevelgraph import HighLevelGraph

    keys = [key for array in arrays for key in flatten(array.__dask_keys__())]
    graph = optimize(HighLevelGraph.merge(*(array.dask for array in arrays)), keys, threads)
    tasks = {key: task for key, task in graph.items() if hasattr(task, "func")}
    return sum(not any(other in tasks for other in task.dependencies) for task in tasks.values())


@pytest.mark.parametrize(
    ("rows", "threads", "largest"),
    [
        (64, 2, 8),  # 4 rounds of 8 blocks
        (32, 2, 8),
        (33, 2, 2),  # 17 blocks for a thread: in eights they would be 24
        (48, 8, 2),  # 6 blocks for a thread: in fours they would be 8
        (40, 8, 1),  # 5 blocks for a thread: in pairs they would be 6
        (6, 8, 1),
    ],
)
def test_on_a_cluster_a_task_computes_blocks_if_no_thread_waits_for_another(backend, rng, rows, threads, largest):
    import dask.array as da

    X = da.ones((rows, 4), chunks=(1, 4)) * 2
    W = rng.normal(size=(4, 10_000))  # so that sums are added in pairs
    assert on_a_cluster(threads, fc.grad_weight(X, fc.forward(X, W))) == -(-rows // largest)


def test_on_a_cluster_what_several_take_stays_a_task_of_its_own(backend, rng):
    """Y of a block is asked for, or goes into two sums, which another worker may compute."""
    import dask.array as da

    X = da.ones((64, 4), chunks=(1, 4)) * 2
    Y = fc.forward(X, rng.normal(size=(4, 3)))
    dW = fc.grad_weight(X, Y)
    assert on_a_cluster(2, Y, dW) == 64
    assert on_a_cluster(2, (Y**2).sum(), dW) == 64
    assert on_a_cluster(2, dW) == 8


def test_on_a_cluster_blocks_are_added_in_the_same_order(backend, files, rng):
    import dask

    X = fc.open_array(files / "x.npy", rows=2)
    lazy = fc.grad_weight(X, X * rng.normal(size=4))
    (joined,) = one_task.joined([lazy], 2)
    np.testing.assert_array_equal(dask.compute(joined)[0], fc.compute(lazy)[0])


def test_sums_of_two_blocks_stay_tasks_of_their_own(backend, files):
    """Two threads can compute the two terms."""
    import dask.array as da

    x = da.ones((2, 3), chunks=(1, 3)) + 1
    graph = optimized(x[:1] + x[1:])
    assert len(graph) >= 3


@pytest.mark.parametrize(
    "setting", [{"optimization.fuse.active": False}, {"array_optimize": lambda graph, keys: graph}]
)
def test_a_callers_own_optimization_stays(backend, setting):
    import dask
    import dask.array as da

    x = da.ones(4, chunks=2)
    with dask.config.set(setting):
        assert [each.__dask_optimize__ for each in one_task.joined([x])] == [x.__dask_optimize__]


def test_a_pass_leaves_the_configuration_to_other_threads(backend, monkeypatch):
    """What is set for one pass would hold in all threads, and be unset in the middle of another pass."""
    import dask
    import dask.array as da

    def refused(*args, **kwargs):
        raise AssertionError(f"dask.config.set{args or kwargs}")

    monkeypatch.setattr(dask.config, "set", refused)
    assert fc.compute(da.ones(6, chunks=2).sum(), dask.delayed(2), da.ones(6, chunks=2) + 1)[:2] == (6, 2)


def test_steps_drop_each_result_after_its_last_use(backend):
    """So that Y is not held while dW is computed from dY."""
    held = {}

    def task(key, *dependencies):
        class Task:
            def __call__(self, results):
                held[key] = set(results)
                return key

        made = Task()
        made.key, made.dependencies = key, frozenset(dependencies)
        return made

    tasks = {each.key: each for each in (task("dW", "dY", "X"), task("dY", "Y", "T"), task("Y", "X"), task("T"))}
    assert Steps.of(tasks, "dW", ("X",))("x") == "dW"
    assert held["dY"] == {"X", "Y", "T"}
    assert held["dW"] == {"X", "dY"}


def test_all_blocks_share_the_steps_that_dask_joined(backend, files):
    """They are the same for each, and to order them takes a third of the time of optimizing."""

    def steps_of(task):
        inner = [step for step, *_ in task.func.order] if isinstance(getattr(task, "func", None), Steps) else []
        return [task.func for _ in inner[:1]] + [found for step in inner for found in steps_of(step)]

    tasks = [task for key, task in optimized(*gradients(files)).items() if "keep" in str(key)]
    inner = [found for task in tasks for found in steps_of(task)[1:]]
    assert len(inner) == BLOCKS
    assert len(set(map(id, inner))) == 1


def test_a_graph_without_arrays_of_the_layer(backend):
    import dask.array as da

    x = da.arange(12, chunks=3)
    graph = optimize(x.dask, x.__dask_keys__())
    assert len(graph) == 4
    assert fc.compute((x + 1).sum(), {"a": [x[::-1].max()]}) == (78, {"a": [11]})
