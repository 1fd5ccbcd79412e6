"""Eight threads that call everything at once on shared layers get what one thread gets."""

from __future__ import annotations

import ast
import importlib
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers.batches import B, W, X, dY

import fc_arrayapi as fc
from fc_arrayapi._arrays import namespace

THREADS = 8
ROUNDS = 6


def everything(layer, x, dy):
    """Call each public function that computes once, and return NumPy arrays."""
    grads = layer.backward(x, dy)
    results = [
        layer(x),
        fc.forward(x, layer.W, layer.B),
        *grads,
        *(grads + grads)[1:],
        fc.grad_input(dy, layer.W),
        fc.grad_weight(x, dy),
        fc.grad_bias(dy),
        fc.einsum("nc,cs->ns", x, layer.W),
        fc.tensordot(x, layer.W, axes=1),
    ]
    if namespace.is_chunked(namespace.of(x)):
        results = fc.compute(*results)
    return [namespace.to_numpy(result) for result in results]


@pytest.fixture
def fast_switches():
    """Let threads take turns a thousand times as often as usual, so that they meet in odd places."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.needs("threads")
def test_shared_layers_in_eight_threads(backend, fast_switches, tmp_path):
    # Of several dtypes and sizes, so that what is kept from one call is not what the next one needs.
    calls = []
    for dtype in ("float32", "float64"):
        for rows in (1, 7, 100):
            layer = fc.FullyConnected(*(backend.asarray(part.astype(dtype)) for part in (W, B)))
            calls.append((layer, *(backend.asarray(part[:rows].astype(dtype)) for part in (X, dY))))
    expected = [everything(*call) for call in calls]

    def work(thread):
        for turn in range(ROUNDS):
            number = (thread + turn) % len(calls)
            for result, alone in zip(everything(*calls[number]), expected[number], strict=True):
                assert result.dtype == alone.dtype
                np.testing.assert_allclose(result, alone, rtol=1e-6, atol=1e-6)
            path = tmp_path / f"{thread}.npz"
            calls[number][0].save(path)
            W_read = namespace.to_numpy(fc.FullyConnected.load(path).W)
            np.testing.assert_array_equal(W_read, namespace.to_numpy(calls[number][0].W))

    def strict_work(thread):
        with backend.strictness():  # array-api-strict keeps its flags in each thread
            work(thread)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(strict_work, range(THREADS)))


@pytest.mark.only("dask.array")
@pytest.mark.needs("threads")
def test_eight_threads_store_at_once(backend, fast_switches, tmp_path):
    x, dy = backend.asarray(X, chunks=(10, 6)), backend.asarray(dY, chunks=(10, 5))
    Y, grads = fc.forward(x, W, B), fc.backward(x, W, dy)

    def work(thread):
        folder = tmp_path / str(thread)
        folder.mkdir()
        fc.store({folder / "y.npy": Y, folder / "dx.zarr": grads.dX, folder / "dw.npy": grads.dW})
        return np.load(folder / "y.npy"), np.load(folder / "dw.npy")

    with ThreadPoolExecutor(THREADS) as threads:
        for y, dw in threads.map(work, range(THREADS)):
            np.testing.assert_allclose(y, X @ W + B, rtol=1e-12)
            np.testing.assert_allclose(dw, X.T @ dY, rtol=1e-12)


@pytest.fixture
def parser_of_python_3_11(monkeypatch):
    """Let Python's parser fail at every second call, as it may where two threads parse at once (cpython #106905)."""
    importlib.import_module("numpy.ma")  # NumPy imports it when it is asked for, and parses signatures then
    whole, calls = ast.literal_eval, itertools.count()

    def fails_in_turn(text):
        if next(calls) % 2 == 0:
            raise SystemError("AST constructor recursion depth mismatch (before=45, after=39)")
        return whole(text)

    monkeypatch.setattr(ast, "literal_eval", fails_in_turn)


def test_a_parser_that_threads_confuse_is_asked_again(parser_of_python_3_11, tmp_path):
    fc.FullyConnected(W, B).save(tmp_path / "layer.npz")
    layer = fc.FullyConnected.load(tmp_path / "layer.npz")
    np.testing.assert_array_equal(layer.W, W)
    np.testing.assert_array_equal(layer.B, B)


@pytest.mark.only("dask.array")
def test_a_block_of_a_file_is_read_without_its_header(backend, monkeypatch, tmp_path):
    np.save(tmp_path / "x.npy", X)
    lazy = fc.open_array(tmp_path / "x.npy", rows=10)

    def fails(text):
        raise SystemError("a header is parsed in a task")

    monkeypatch.setattr(ast, "literal_eval", fails)
    np.testing.assert_array_equal(lazy.compute(), X)
