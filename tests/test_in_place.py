"""Elementwise steps of a block that write into an argument: never into one that anything else holds."""

from __future__ import annotations

import operator
import tracemalloc

import numpy as np
import pytest

import fc_arrayapi as fc
from fc_arrayapi._dask import one_task

pytestmark = [pytest.mark.only("dask.array"), pytest.mark.needs("joined_tasks")]


def steps(*tasks):
    """Return tasks in one, the last of which gives the result."""
    from dask._task_spec import Task, TaskRef

    keys = {key for key, *_ in tasks}
    made = {
        key: Task(key, function, *(TaskRef(arg) if arg in keys or arg in ("X", "T") else arg for arg in args))
        for key, function, *args in tasks
    }
    return one_task.Steps.of(made, tasks[-1][0], ("X", "T"))


def copied(x):
    """Return new memory, which no one else holds."""
    return x + 0


X, T = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
STEPS = {
    "sub": (operator.sub, "Y", "T"),
    "sub from another": (operator.sub, "T", "Y"),
    "times a number": (operator.mul, "Y", 2),
    "divided": (operator.truediv, "Y", 2.0),
    "negative": (operator.neg, "Y"),
    "exp": (np.exp, "Y"),
    "with itself": (operator.mul, "Y", "Y"),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_writes_into_what_nothing_else_holds(backend, name):
    made = []

    def forward(x):
        Y = copied(x)
        made.append(Y.__array_interface__["data"][0])
        return Y

    result = steps(("Y", forward, "X"), ("dY", *STEPS[name]))(X, T)
    assert result.__array_interface__["data"][0] == made[0]
    function, *args = STEPS[name]
    np.testing.assert_array_equal(result, function(*({"Y": X, "T": T}.get(arg, arg) for arg in args)))


KEPT = []


def kept(x):
    KEPT.append(x + 0)
    return KEPT[-1]


def readonly(x):
    x = x + 0
    x.flags.writeable = False
    return x


OTHERS_HOLD = {
    "an input": (lambda x: x, operator.sub, "T"),
    "a view of an input": (lambda x: x[:], operator.sub, "T"),
    "kept by the function that made it": (kept, operator.sub, "T"),
    "that may not be written": (readonly, operator.sub, "T"),
    "of another dtype": (lambda x: x.astype("float32"), operator.sub, "T"),
    "of integers": (lambda x: x.astype(int), operator.truediv, 2),
    "of a smaller shape": (lambda x: x[:1] + 0, operator.sub, "T"),
    "of fewer axes": (lambda x: x[0] + 0, operator.sub, "T"),
    "compared": (copied, operator.gt, "T"),
    "of another byte order": (lambda x: x.astype(x.dtype.newbyteorder()), operator.mul, 2.0),
    "without axes": (lambda x: np.asarray(x.sum()), operator.neg),
    "of a subclass": (lambda x: np.ma.masked_array(x + 0, x > 2), operator.sub, "T"),
}


@pytest.mark.parametrize("what", OTHERS_HOLD)
def test_what_others_hold_or_does_not_fit_stays(backend, what):
    first, function, *others = OTHERS_HOLD[what]
    x, t = X.copy(), T.copy()
    result = steps(("Y", first, "X"), ("dY", function, "Y", *others))(x, t)
    expected = function(first(X), *(T if other == "T" else other for other in others))
    np.testing.assert_array_equal(result, expected)
    assert (type(result), result.dtype) == (type(expected), expected.dtype)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(t, T)
    for array in KEPT:
        np.testing.assert_array_equal(array, X)
    KEPT.clear()


@pytest.mark.parametrize("order", [("Y", "T"), ("T", "Y")])
def test_an_argument_of_a_subclass_decides_the_result(backend, order):
    """A masked T masks Y - T."""
    masked = np.ma.masked_array(T, X > 2)
    result = steps(("Y", copied, "X"), ("dY", operator.sub, *order))(X, masked)
    assert type(result) is np.ma.MaskedArray
    np.testing.assert_array_equal(result.mask, X > 2)


def test_a_result_that_a_later_step_takes_stays(backend):
    result = steps(("Y", copied, "X"), ("dY", operator.sub, "Y", "T"), ("both", operator.add, "dY", "Y"))(X, T)
    np.testing.assert_array_equal(result, X - T + X)


def test_a_function_without_a_hash_is_run_as_it_is(backend):
    class Function:
        def __call__(self, x):
            return x * 2

        def __hash__(self):
            raise TypeError("no hash")

    np.testing.assert_array_equal(steps(("Y", copied, "X"), ("Z", Function(), "Y"))(X, T), 2 * X)


def test_a_result_under_two_names_stays(backend):
    def same(x):
        return x

    tasks = (("Y", copied, "X"), ("Z", same, "Y"), ("dY", operator.sub, "Z", "T"), ("both", operator.add, "dY", "Y"))
    np.testing.assert_array_equal(steps(*tasks)(X, T), X - T + X)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 1)])
def test_a_smaller_argument_is_stretched(backend, shape):
    result = steps(("Y", copied, "X"), ("dY", operator.sub, "Y", "T"))(X, np.ones(shape))
    np.testing.assert_array_equal(result, X - 1)


def test_blocks_of_a_caller_are_never_written(backend, rng):
    """Arrays in memory, persisted blocks, and results of the same pass stay as they are."""
    import dask.array as da

    x, t, W = rng.normal(size=(40, 3)), rng.normal(size=(40, 2)), rng.normal(size=(3, 2))
    arrays = {"x": x.copy(), "t": t.copy()}
    X, T = da.from_array(x, chunks=(10, 3)), da.from_array(t, chunks=(10, 2))
    kept = fc.forward(X, W).persist()
    Y = fc.forward(X, W)
    results = fc.compute(-(T * 2 - kept), Y - T, Y, fc.grad_weight(X, Y - T), -kept, kept, T / 3)
    np.testing.assert_allclose(results[0], x @ W - 2 * t)
    np.testing.assert_allclose(results[1], x @ W - t)
    np.testing.assert_allclose(results[2], x @ W)
    np.testing.assert_allclose(results[3], x.T @ (x @ W - t))
    np.testing.assert_allclose(results[4], -(x @ W))
    np.testing.assert_allclose(results[5], x @ W)
    np.testing.assert_allclose(kept.compute(), x @ W)
    np.testing.assert_array_equal(x, arrays["x"])
    np.testing.assert_array_equal(t, arrays["t"])


def test_a_pass_holds_one_block_of_Y(backend, tmp_path, rng):
    """And not Y, Y - T and its quotient."""
    import dask

    np.save(tmp_path / "x.npy", rng.normal(size=(4000, 2)))
    X, W = fc.open_array(tmp_path / "x.npy", rows=1000), np.ones((2, 500))
    block = 1000 * 500 * 8
    with dask.config.set(scheduler="sync"):
        dY = (fc.forward(X, W) - 1.0) / 2.0
        fc.compute(fc.grad_weight(X, dY))
        tracemalloc.start()
        fc.compute(fc.grad_weight(X, dY))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1.5 * block
