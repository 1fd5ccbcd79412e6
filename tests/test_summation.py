"""Sums over the batch: as accurate at ten million rows as at ten."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.assertions import assert_array

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace
from fc_arrayapi._math import summation

# Of dW in NumPy, relative: 64 epsilons.
WORST = 64 * float(np.finfo("float32").eps)
# What the sums of 2 and 3 features are cut at, on one library or another.
LEAF_ROWS = summation.LEAF_ELEMENTS // (2 + 3)
EDGES = sorted(
    {
        edge + step
        for edge in (
            2 * summation.SUM_ROWS,
            summation.PLAIN_ROWS,
            summation.PLAIN_ROWS + summation.PRODUCT_ROWS,
            summation.PLAIN_ROWS + summation.NARROW_ROWS,
            summation.LONGER_NARROW_ROWS,
            2 * summation.LONGER_NARROW_ROWS,
            summation.LEAF_ROWS,
            summation.COPIED_ROWS,
            2 * summation.COPIED_ROWS,
            LEAF_ROWS,
            2 * LEAF_ROWS,
        )
        for step in (-1, 0, 1)
    }
)


@pytest.mark.parametrize("rows", EDGES)
def test_integers_sum_exactly_at_every_edge(backend, rng, rows):
    X = rng.integers(0, 4, (rows, 2)).astype("float32")
    dY = rng.integers(0, 4, (rows, 3)).astype("float32")
    like = backend.asarray(X)
    dX, dW, dB = fc.backward(like, backend.asarray(np.ones((2, 3), "float32")), backend.asarray(dY))
    assert dX.shape == (rows, 2)
    assert_array(dW, X.astype("int64").T @ dY.astype("int64"), like=like, rtol=0)
    assert_array(dB, dY.astype("int64").sum(axis=0), like=like, rtol=0)


def test_a_large_weight_is_summed_exactly_too(backend, rng, monkeypatch):
    monkeypatch.setattr(summation, "PARTIAL_ELEMENTS", 16)
    X = rng.integers(0, 4, (20000, 5)).astype("float32")
    dY = rng.integers(0, 4, (20000, 3)).astype("float32")
    like = backend.asarray(X)
    assert_array(fc.grad_weight(like, backend.asarray(dY)), X.astype("int64").T @ dY.astype("int64"), like=like, rtol=0)


def test_the_bias_gradient_of_ones_is_their_number(backend):
    dY = backend.asarray(np.ones((2**25, 2), "float32"), chunks=(2**22, 2))
    assert_array(fc.grad_bias(dY), [2.0**25, 2.0**25], like=dY, rtol=0)


@pytest.mark.parametrize("value", ["random", "constant"])
def test_ten_million_positive_rows(backend, rng, value):
    rows = 10_000_000
    draws = rng.random((rows, 2), "float32") if value == "random" else np.full((rows, 2), 0.1, "float32")
    exact_sum = draws.sum(axis=0, dtype="float64")
    exact_product = sum(run.astype("float64").T @ run.astype("float64") for run in np.array_split(draws, 100))
    dY = backend.asarray(draws, chunks=(2**20, 2))
    # A constant is the worst case: all roundings go the same way. XLA's products of narrow
    # matrices are off by 1e-5 after 1024 rows already, and cutting them finer is slow in JAX.
    bound = 1e-6 if value == "random" else 6e-6
    bound_of_product = 1e-4 if value == "constant" and backend.module == "jax.numpy" else bound
    dB, dW = fc.grad_bias(dY), fc.grad_weight(dY, dY)
    assert np.max(np.abs(namespace.to_numpy(dB) / exact_sum - 1)) < bound
    assert np.max(np.abs(namespace.to_numpy(dW) / exact_product - 1)) < bound_of_product


@pytest.mark.parametrize("layout", ["contiguous", "strided"])
@pytest.mark.parametrize(("C", "S"), [(2, 2), (3, 1), (1, 3), (16, 4), (64, 16), (300, 1), (1, 300)])
def test_constant_rows_of_any_width(backend, C, S, layout):
    rows = 100_000  # of X and dY in memory of their own: NumPy sums the products of an array with itself otherwise
    X, dY = (np.full((rows, n), 0.1, "float32") for n in (C, S))
    if layout == "strided":
        X, dY = (np.repeat(array, 2, axis=1)[:, ::2] for array in (X, dY))
    dW = fc.grad_weight(*(backend.asarray(array, chunks=(60_000, array.shape[1])) for array in (X, dY)))
    others = 6e-6 if max(C, S) < 300 else 3e-5
    bound = {"jax.numpy": 1e-4, "numpy": WORST, "dask.array": WORST}.get(backend.module, others)
    assert np.max(np.abs(namespace.to_numpy(dW) / (rows * float(X[0, 0]) ** 2) - 1)) < bound


OF_CONSTANT_ROWS = """
import numpy as np
import fc_arrayapi as fc

rng, worst = np.random.default_rng(5), 0
for C, S in [
    (1, 1), (2, 1), (1, 3), (4, 4), (16, 4), (64, 1), (1, 300), (1024, 1), (64, 8), (300, 2), (2000, 2), (64, 64)
]:
    for rows in (300, 456, 457, 512, 777, 1000, 2048, 3000, 4096, 4097, 5000, 20_000):
        x, dy = rng.uniform(0.05, 10, 2).astype("float32")
        exact = rows * float(x) * float(dy)
        for chunks in (1, 8, 64):
            sizes = [len(part) for part in np.array_split(np.arange(rows), chunks)]
            parts = [fc.grad_weight(np.full((n, C), x), np.full((n, S), dy)) for n in sizes]
            while len(parts) > 1:  # in pairs, as Dask adds blocks
                parts = [sum(parts[k + 1 : k + 2], parts[k]) for k in range(0, len(parts), 2)]
            worst = max(worst, np.max(np.abs(parts[0].astype("float64") / exact - 1)))
print(worst * 2**23)
"""


@pytest.mark.only("numpy")
@pytest.mark.parametrize("kernel", ["", "Haswell", "Prescott"])  # that of the machine, and two of others
def test_constant_rows_of_any_shape_in_every_kernel_of_openblas(backend, kernel):
    """At most 64 epsilons; a kernel that adds 4096 rows to one accumulator is off by up to 512."""
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernel}
    command = [sys.executable, "-c", OF_CONSTANT_ROWS]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(run.stdout) <= 64


@pytest.mark.only("numpy")
def test_windows_of_a_long_signal_are_summed_as_accurately(backend):
    signal = np.full(100_000, 0.1, "float32")
    X = np.lib.stride_tricks.sliding_window_view(signal, 64)  # rows that overlap in memory, which BLAS does not take
    dW = fc.grad_weight(X, np.full((len(X), 16), 0.1, "float32"))
    assert np.max(np.abs(dW / (len(X) * float(signal[0]) ** 2) - 1)) < 6e-6


@pytest.mark.needs("float16")
def test_float16_is_summed_in_float32_and_rounded_once(backend, rng):
    draws = rng.random((20_000, 16)).astype("float16")
    X = backend.asarray(draws, chunks=(3000, 16))
    wide = draws.astype("float64")
    half_a_unit = 2.0**-11 * (1 + 1e-3)
    for result, exact in ((fc.grad_bias(X), wide.sum(axis=0)), (fc.grad_weight(X, X), wide.T @ wide)):
        assert_array(result, exact, like=X, rtol=1e-2)
        assert np.max(np.abs(namespace.to_numpy(result) / exact - 1)) <= half_a_unit


@pytest.mark.needs("bfloat16")
def test_bfloat16_is_summed_in_float32(backend):
    X = backend.xp.ones((10_000, 1), dtype=backend.xp.bfloat16, device=backend.device)
    assert_array(fc.grad_bias(X), [10_000.0], like=X, rtol=4e-3)
    assert_array(fc.grad_weight(X, X), [[10_000.0]], like=X, rtol=4e-3)


def test_acc_dtype_is_the_dtype_of_every_sum(backend):
    # In float32 the 1 is lost beside 2**24; the result is rounded to float32 only once.
    dY = backend.asarray(np.asarray([[2.0**24], [1.0], [-(2.0**24)]], "float32"))
    X = backend.asarray(np.ones((3, 1), "float32"))
    wide = backend.dtype("float64")
    assert_array(fc.grad_bias(dY, acc_dtype=wide), [1.0], like=dY, rtol=0)
    assert_array(fc.grad_weight(X, dY, acc_dtype=wide), [[1.0]], like=dY, rtol=0)
    grads = fc.backward(X, backend.asarray(np.ones((1, 1), "float32")), dY, acc_dtype=wide)
    assert_array(grads.dB, [1.0], like=dY, rtol=0)
    assert_array(grads.dW, [[1.0]], like=dY, rtol=0)
