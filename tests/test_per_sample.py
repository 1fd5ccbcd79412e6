"""Gradients of single samples: norms and inner products against the array (N, C, S) that is never formed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers.assertions import assert_array, nothing_computes, refused
from helpers.batches import numbers

import fc_arrayapi as fc
from fc_arrayapi._math import per_sample

LEADS = pytest.mark.parametrize("lead", [(12,), (12, 5), (12, 2, 3), (12, 1), (1, 40), (0,), (0, 5), (12, 0)], ids=str)
NEEDS = pytest.mark.parametrize("needs", [("dW", "dB"), ("dW",), ("dB",)], ids="+".join)


def gradients(X, dY, needs=("dW", "dB"), sample_axes=1):
    """Return the gradient of each sample as a row, from its definition."""
    n = int(np.prod(X.shape[:sample_axes]))
    t = int(np.prod(X.shape[sample_axes:-1]))
    x, d = X.reshape(n, t, X.shape[-1]), dY.reshape(n, t, dY.shape[-1])
    parts = {"dW": np.einsum("ntc,nts->ncs", x, d).reshape(n, X.shape[-1] * dY.shape[-1]), "dB": d.sum(1)}
    return np.concatenate([parts[name] for name in needs], axis=1)


def batch(*lead, C=6, S=4, seed=0):
    return numbers(*lead, C, seed=seed), numbers(*lead, S, seed=seed + 1)


@LEADS
@NEEDS
def test_norms_by_their_definition(backend, lead, needs):
    X, dY = batch(*lead)
    x = backend.asarray(X)
    found = fc.per_sample_norms(x, backend.asarray(dY), needs=needs)
    assert_array(found, np.linalg.norm(gradients(X, dY, needs), axis=1), like=x, rtol=1e-12)


@pytest.mark.parametrize("positions", [2, 3, 4, 30])
@NEEDS
def test_norms_of_both_ways(backend, positions, needs, monkeypatch):
    """From Gram matrices, which are cut too, and from gradients."""
    monkeypatch.setattr(per_sample, "ELEMENTS", 24)
    monkeypatch.setattr(per_sample, "ELEMENTS_OF_COPIES", 24)
    X, dY = batch(7, positions)
    x = backend.asarray(X)
    found = fc.per_sample_norms(x, backend.asarray(dY), needs=needs)
    assert_array(found, np.linalg.norm(gradients(X, dY, needs), axis=1), like=x, rtol=1e-12)


def test_several_axes_of_samples(backend):
    X, dY = batch(3, 4, 5)
    Xq, dYq = batch(2, 2, 3, seed=5)
    x = backend.asarray(X)
    norms = fc.per_sample_norms(x, backend.asarray(dY), sample_axes=2)
    of_samples, of_queries = gradients(X, dY, sample_axes=2), gradients(Xq, dYq, sample_axes=2)
    assert_array(norms, np.linalg.norm(of_samples, axis=1).reshape(3, 4), like=x, rtol=1e-12)
    dots = fc.per_sample_dots(x, *(backend.asarray(a) for a in (dY, Xq, dYq)), sample_axes=2)
    assert_array(dots, (of_samples @ of_queries.T).reshape(3, 4, 2, 2), like=x, rtol=1e-12)
    all_samples = fc.per_sample_norms(x, backend.asarray(dY), sample_axes=3)
    assert all_samples.shape == (3, 4, 5)


QUERIES = [
    ((12,), (5,)), ((12, 5), (5, 5)), ((12, 5), (5, 2)), ((12, 3), (5,)), ((12,), (5, 3)), ((12, 30), (5, 40)),
    ((0,), (5,)), ((12,), (0,)), ((12, 3), (0, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("lead", "queries"), QUERIES, ids=str)
@pytest.mark.parametrize("needs", [("dW", "dB"), ("dW",), ("dB",), "in runs"], ids=str)
def test_dots_by_their_definition(backend, lead, queries, needs, monkeypatch):
    if needs == "in runs":
        monkeypatch.setattr(per_sample, "ELEMENTS", 24)
        monkeypatch.setattr(per_sample, "ELEMENTS_OF_COPIES", 24)
        needs = ("dW", "dB")
    (X, dY), (Xq, dYq) = batch(*lead), batch(*queries, seed=5)
    x = backend.asarray(X)
    found = fc.per_sample_dots(x, *(backend.asarray(a) for a in (dY, Xq, dYq)), needs=needs)
    assert_array(found, gradients(X, dY, needs) @ gradients(Xq, dYq, needs).T, like=x, rtol=1e-12)


def test_positions_that_cancel(backend):
    """In float32 the Gram matrices say 0.9 where the norm is 0.04."""
    X, dY = (numbers(3, 64, 768, seed=seed).astype("float32") for seed in (0, 1))
    X[:2, 32:] = X[:2, :32]
    dY[:2, 32:] = 1e-5 * dY[:2, 32:] - dY[:2, :32]
    exact = np.linalg.norm(gradients(X.astype("float64"), dY.astype("float64"), ("dW",)), axis=1)
    assert exact[0] < 0.1 < 1000 < exact[2]
    x = backend.asarray(X)
    found = fc.per_sample_norms(x, backend.asarray(dY), needs=("dW",))
    assert_array(found / backend.asarray(exact.astype("float32")), np.ones(3), like=x, rtol=2e-3)


@pytest.mark.needs("float16")
@pytest.mark.parametrize("lead", [(12,), (12, 3), (12, 40)], ids=str)
def test_float16_is_added_in_float32(backend, lead):
    X, dY = (10 * a.astype("float16") for a in batch(*lead, C=300, S=5))
    x, dy = backend.asarray(X), backend.asarray(dY)
    exact = gradients(X.astype("float64"), dY.astype("float64"))
    assert_array(fc.per_sample_norms(x, dy), np.linalg.norm(exact, axis=1), like=x, rtol=6e-4)
    small, small_dY = backend.asarray(X[:2] / 100), backend.asarray(dY[:2] / 100)
    of_samples = gradients(X[:2] / 100.0, dY[:2] / 100.0)
    dots = fc.per_sample_dots(small, small_dY, small, small_dY)
    assert_array(dots, of_samples @ of_samples.T, like=x, rtol=3e-3)  # their inputs are rounded


@pytest.mark.only("numpy")
@pytest.mark.parametrize("lead", [(20_000,), (300, 64), (4, 2000)], ids=str)
def test_little_is_held_beside_the_batch(backend, lead):
    X, dY = (a.astype("float32") for a in batch(*lead, C=256, S=128))
    Xq, dYq = X[:2], dY[:2]
    fc.per_sample_norms(X[:2], dY[:2])
    tracemalloc.start()
    try:
        fc.per_sample_norms(X, dY)
        fc.per_sample_dots(X, dY, Xq, dYq)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 14e6  # the array (N, C, S) has 2,600, 39 and 0.5 MB, a Gram matrix of 2000 positions 16


# On Dask


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("lead", [(900,), (90, 10)], ids=str)
def test_blocks_keep_the_samples_and_are_read_once(backend, lead):
    (X, dY), (Xq, dYq) = batch(*lead), batch(3, *lead[1:], seed=5)
    read = []
    x = backend.asarray(X, chunks=(lead[0] // 3, *lead[1:], 3))
    x = x.map_blocks(lambda block: [read.append(block.size), block][1], dtype=X.dtype)
    read.clear()
    dy = backend.asarray(dY, chunks=(lead[0] // 3, *(max(1, n // 2) for n in lead[1:]), 2))
    with nothing_computes(backend):
        norms = fc.per_sample_norms(x, dy)
        dots = fc.per_sample_dots(x, dy, Xq, dYq)
        clipped = fc.backward(x, np.ones((6, 4)), dy, needs=("dW", "dB"), sample_weight=1 / (1 + norms))
    assert norms.chunks == (x.chunks[0],)
    assert dots.chunks == (x.chunks[0], (3,))
    of_samples = gradients(X, dY)
    norms, dots, clipped = fc.compute(norms, dots, clipped)
    assert sum(map(bool, read)) == 6  # three blocks of samples, two of features
    np.testing.assert_allclose(norms, np.linalg.norm(of_samples, axis=1), rtol=1e-12)
    np.testing.assert_allclose(dots, of_samples @ gradients(Xq, dYq).T, rtol=1e-9, atol=1e-11)
    factors = 1 / (1 + np.linalg.norm(of_samples, axis=1))
    np.testing.assert_allclose(clipped.dW.ravel(), (factors @ of_samples)[:24], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(clipped.dB, (factors @ of_samples)[24:], rtol=1e-9, atol=1e-11)


@pytest.mark.only("dask.array")
@pytest.mark.needs("unknown_chunks")
def test_blocks_of_unknown_size(backend):
    X, dY = batch(90)
    keep = np.arange(90) % 3 == 0
    x, dy = (backend.asarray(a, chunks=(10, -1))[backend.asarray(keep, chunks=10)] for a in (X, dY))
    norms = fc.per_sample_norms(x, dy)
    exact = gradients(X[keep], dY[keep])
    np.testing.assert_allclose(norms.compute(), np.linalg.norm(exact, axis=1), rtol=1e-12)
    dW = fc.grad_weight(x, dy, sample_weight=norms)
    np.testing.assert_allclose(dW.compute().ravel(), np.linalg.norm(exact, axis=1) @ exact[:, :24], rtol=1e-9)


# Errors


@pytest.mark.parametrize(
    ("shapes", "options", "facts"),
    [
        (((4, 2), (1, 3)), {}, ["per_sample_norms", "X has shape (4, 2)", "dY has (1, 3)"]),
        (((4, 2), (4, 5, 3)), {}, ["dY has (4, 5, 3)"]),
        (((2,), (3,)), {}, ["X has shape (2,)", "sample_axes=1"]),
        (((4, 2), (4, 3)), {"sample_axes": 2}, ["X has shape (4, 2)", "sample_axes=2"]),
        (((4, 2), (4, 3)), {"sample_axes": 0}, ["sample_axes is 0"]),
        (((4, 2), (4, 3)), {"sample_axes": True}, ["sample_axes is True"]),
        (((4, 2), (4, 3)), {"needs": ("dX",)}, ["needs is ('dX',)", "'dW'", "'dB'"]),
        (((4, 2), (4, 3)), {"needs": ()}, ["needs is ()"]),
        (((4, 2), (4, 3), (5, 2), (4, 3)), {}, ["per_sample_dots", "Xq has shape (5, 2)", "dYq has (4, 3)"]),
        (((4, 2), (4, 3), (5, 3), (5, 3)), {}, ["X has 2 features", "Xq has 3", "(5, 3)"]),
        (((4, 2), (4, 3), (5, 2), (5, 1)), {}, ["dY has 3 features", "dYq has 1", "(5, 1)"]),
        (((4, 2), (4, 3), (2,), (3,)), {}, ["Xq has shape (2,)", "sample_axes=1"]),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(backend, shapes, options, facts):
    arrays = [backend.asarray(np.ones(shape)) for shape in shapes]
    function = fc.per_sample_norms if len(shapes) == 2 else fc.per_sample_dots
    with nothing_computes(backend), refused(ValueError, *facts):
        function(*arrays, **options)


def test_dtypes_and_libraries_that_do_not_fit(backend):
    X = backend.asarray(np.ones((4, 2), "int64"))
    with refused(TypeError, "per_sample_norms", "X has dtype int64"):
        fc.per_sample_norms(X, X)
    with refused(TypeError, "Xq"):
        fc.per_sample_dots(backend.asarray(np.ones((4, 2))), backend.asarray(np.ones((4, 2))), [[1.0]], None)


# Compilers and transformations


@pytest.mark.only("torch")
@pytest.mark.parametrize("lead", [(20,), (20, 5), (20, 40)], ids=str)
def test_against_the_gradients_of_torch(backend, lead):
    import torch

    X, dY = map(torch.from_numpy, batch(*lead))
    W, B = torch.zeros(6, 4, dtype=X.dtype), torch.zeros(4, dtype=X.dtype)

    def loss(W, B, x, d):
        return ((x @ W + B) * d).sum()

    dW, dB = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(None, None, 0, 0))(W, B, X, dY)
    exact = torch.cat([dW.flatten(1), dB], dim=1)
    torch.testing.assert_close(fc.per_sample_norms(X, dY), exact.norm(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(fc.per_sample_dots(X, dY, X[:3], dY[:3]), exact @ exact[:3].T, rtol=1e-10, atol=1e-10)
    twice = torch.func.vmap(fc.per_sample_norms)(torch.stack([X, 2 * X]), torch.stack([dY, dY]))
    torch.testing.assert_close(twice[0], exact.norm(dim=1))
    compiled = torch.compile(fc.per_sample_norms, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X, dY), exact.norm(dim=1))
    torch.testing.assert_close(compiled(X[:7], dY[:7]), exact[:7].norm(dim=1))


@pytest.mark.only("jax.numpy")
@pytest.mark.parametrize("lead", [(20,), (20, 5), (20, 40)], ids=str)
def test_under_jit_and_vmap(backend, lead):
    import jax

    X, dY = batch(*lead)
    exact = gradients(X, dY)
    x = backend.asarray(X)
    assert_array(jax.jit(fc.per_sample_norms)(X, dY), np.linalg.norm(exact, axis=1), like=x, rtol=1e-10)
    dots = jax.jit(fc.per_sample_dots)(X, dY, X[:3], dY[:3])
    assert_array(dots, exact @ exact[:3].T, like=x, rtol=1e-10)
    both = jax.vmap(fc.per_sample_norms)(np.stack([X, 2 * X]), np.stack([dY, dY]))
    assert_array(both[0], np.linalg.norm(exact, axis=1), like=x, rtol=1e-10)
