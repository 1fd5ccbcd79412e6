"""Weights of samples: gradients of a weighted sum of losses, without a weighted copy of the batch."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_array, nothing_computes, refused
from helpers.batches import numbers

import fc_arrayapi as fc

LEADS = pytest.mark.parametrize(
    ("lead", "axes"), [((700,), 1), ((0,), 1), ((7, 100), 1), ((7, 100), 2), ((5, 4, 3), 2)], ids=str
)


def weighted(X, W, dY, w):
    """Return dX, dW and dB from their definition."""
    w = w.reshape((*w.shape, *(1,) * (X.ndim - w.ndim)))
    x, d = X.reshape(-1, X.shape[-1]), (w * dY).reshape(-1, dY.shape[-1])
    return (w * dY) @ W.T, x.T @ d, d.sum(0)


@LEADS
@pytest.mark.parametrize("needs", [("dX", "dW", "dB"), ("dW", "dB"), ("dX",), ("dB",)], ids="+".join)
def test_the_gradients_by_their_definition(backend, lead, axes, needs):
    X, dY, W, w = numbers(*lead, 6), numbers(*lead, 5, seed=1), numbers(6, 5, seed=2), numbers(*lead[:axes], seed=3)
    x = backend.asarray(X)
    grads = fc.backward(x, backend.asarray(W), backend.asarray(dY), needs=needs, sample_weight=backend.asarray(w))
    for name, part, expected in zip(("dX", "dW", "dB"), grads, weighted(X, W, dY, w), strict=True):
        assert (part is None) == (name not in needs)
        if part is not None:
            assert_array(part, expected, like=x, rtol=1e-12)


@LEADS
@pytest.mark.parametrize("S", [5, 9], ids=["dY is weighted", "X is weighted"])
def test_single_gradients(backend, lead, axes, S):
    X, dY, w = numbers(*lead, 6), numbers(*lead, S, seed=1), numbers(*lead[:axes], seed=3)
    x, dy, weights = (backend.asarray(a) for a in (X, dY, w))
    _, dW, dB = weighted(X, np.ones((6, S)), dY, w)
    assert_array(fc.grad_weight(x, dy, sample_weight=weights), dW, like=x, rtol=1e-12)
    assert_array(fc.grad_bias(dy, sample_weight=weights), dB, like=x, rtol=1e-12)


def test_a_layer_takes_weights(backend):
    X, dY, W, w = numbers(20, 6), numbers(20, 5, seed=1), numbers(6, 5, seed=2), numbers(20, seed=3)
    x = backend.asarray(X)
    layer = fc.FullyConnected(backend.asarray(W), backend.asarray(np.zeros(5)))
    grads = layer.backward(x, backend.asarray(dY), sample_weight=backend.asarray(w))
    for part, expected in zip(grads, weighted(X, W, dY, w), strict=True):
        assert_array(part, expected, like=x, rtol=1e-12)


def test_weights_have_no_part_in_the_dtype(backend):
    X, dY, w = numbers(20, 6).astype("float32"), numbers(20, 5, seed=1).astype("float32"), numbers(20, seed=3)
    x = backend.asarray(X)
    grads = fc.backward(
        x, backend.asarray(np.ones((6, 5), "float32")), backend.asarray(dY), sample_weight=backend.asarray(w)
    )
    for part, expected in zip(grads, weighted(X, np.ones((6, 5)), dY, w), strict=True):
        assert_array(part, expected, like=x, dtype="float32", rtol=1e-5)


def test_integer_sums_are_exact_over_many_rows(backend, rng):
    X, dY, w = (rng.integers(-3, 4, (300_000, *shape)).astype("float32") for shape in ((3,), (2,), ()))
    x = backend.asarray(X)
    dW = fc.grad_weight(x, backend.asarray(dY), sample_weight=backend.asarray(w))
    assert_array(dW, (w[:, None] * X).astype("int64").T @ dY.astype("int64"), like=x, rtol=0)
    dB = fc.grad_bias(backend.asarray(dY), sample_weight=backend.asarray(w))
    assert_array(dB, w.astype("int64") @ dY.astype("int64"), like=x, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_long_sum_is_right_to_one_in_a_million(backend, rng, sign):
    X, dY, w = rng.random((2**20, 2), "float32"), rng.random((2**20, 1), "float32"), rng.random(2**20, "float32")
    x = backend.asarray(X)
    exact = X.astype("float64").T @ (sign * w[:, None].astype("float64") * dY)
    dW = fc.grad_weight(x, backend.asarray(dY), sample_weight=backend.asarray(sign * w))
    assert_array(dW, exact, like=x, rtol=1e-6)
    assert_array(fc.grad_weight(x, backend.asarray(dY), sample_weight=sign * backend.asarray(w), acc_dtype="float64"),
                 exact, like=x, rtol=1e-6)  # fmt: skip


@pytest.mark.only("numpy")
def test_no_weighted_copy_of_the_batch_is_made(backend, rng):
    X, dY, w = rng.random((60_000, 256), "float32"), rng.random((60_000, 128), "float32"), rng.random(60_000, "float32")
    fc.grad_weight(X[:9], dY[:9], sample_weight=w[:9])
    tracemalloc.start()
    try:
        fc.backward(X, np.ones((256, 128), "float32"), dY, needs=("dW", "dB"), sample_weight=w)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6  # dY has 31


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("weights", ["NumPy", "Dask", "other blocks"])
@pytest.mark.parametrize("features", [6, 3])
def test_blocks(backend, weights, features):
    X, dY, W, w = numbers(90, 6), numbers(90, 5, seed=1), numbers(6, 5, seed=2), numbers(90, seed=3)
    x, dy = backend.asarray(X, chunks=(20, features)), backend.asarray(dY, chunks=(20, 5))
    given = {"NumPy": w, "Dask": backend.asarray(w, chunks=20), "other blocks": backend.asarray(w, chunks=35)}[weights]
    with nothing_computes(backend):
        grads = fc.backward(x, W, dy, sample_weight=given)
    assert grads.dX.chunks[0] == x.chunks[0]
    for part, expected in zip(grads, weighted(X, W, dY, w), strict=True):
        assert_array(part, expected, like=x, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "facts"),
    [
        ((3,), ["sample_weight has shape (3,)", "(4, 2)", "(4,)"]),
        ((1,), ["sample_weight has shape (1,)"]),
        ((4, 2), ["sample_weight has shape (4, 2)"]),
        ((4, 1), ["sample_weight has shape (4, 1)"]),
        ((), ["sample_weight has shape ()"]),
    ],
    ids=str,
)
def test_weights_that_do_not_fit(backend, shape, facts):
    X, W, dY, w = (backend.asarray(np.ones(s)) for s in ((4, 2), (2, 3), (4, 3), shape))
    for call in (
        lambda: fc.backward(X, W, dY, sample_weight=w),
        lambda: fc.grad_weight(X, dY, sample_weight=w),
    ):
        with nothing_computes(backend), refused(ValueError, *facts):
            call()
    with nothing_computes(backend), refused(ValueError, f"sample_weight has shape {shape}", "dY has (4, 3)"):
        fc.grad_bias(dY, sample_weight=w)


def test_weights_of_another_dtype_or_library(backend):
    X, dY = backend.asarray(np.ones((4, 2))), backend.asarray(np.ones((4, 3)))
    with refused(TypeError, "sample_weight has dtype int64", "grad_weight"):
        fc.grad_weight(X, dY, sample_weight=backend.asarray(np.ones(4, "int64")))
    with pytest.raises(TypeError, match="sample_weight"):
        fc.grad_weight(X, dY, sample_weight=[1.0] * 4)


@pytest.mark.only("jax.numpy")
def test_under_jit_and_grad(backend):
    import jax

    X, dY, w = numbers(20, 6), numbers(20, 5, seed=1), numbers(20, seed=3)
    dW = jax.jit(lambda x, d, w: fc.grad_weight(x, d, sample_weight=w))(X, dY, w)
    assert_array(dW, weighted(X, np.ones((6, 5)), dY, w)[1], like=backend.asarray(X), rtol=1e-10)


@pytest.mark.only("torch")
def test_compiled_and_mapped_by_torch(backend):
    import torch

    X, dY, w = map(torch.from_numpy, (numbers(20, 6), numbers(20, 5, seed=1), numbers(20, seed=3)))
    W = torch.ones(6, 5, dtype=X.dtype)
    exact = [torch.from_numpy(part) for part in weighted(X.numpy(), W.numpy(), dY.numpy(), w.numpy())]
    compiled = torch.compile(lambda *a: tuple(fc.backward(*a[:3], sample_weight=a[3])), fullgraph=True, backend="eager")
    for part, expected in zip(compiled(X, W, dY, w), exact, strict=True):
        torch.testing.assert_close(part, expected)
    over_weights = torch.func.vmap(lambda w: tuple(fc.backward(X, W, dY, sample_weight=w)))(torch.stack([w, 2 * w]))
    for part, expected in zip(over_weights, exact, strict=True):
        torch.testing.assert_close(part[0], expected)
