"""The losses of the pages and of the demo, run as they stand there: in float32 at least, whatever the dtype of X is."""

from __future__ import annotations

import runpy
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fc_arrayapi as fc

DOCS = Path(__file__).parent.parent / "docs"


def of_the_page():
    """Return the function of docs/linear_probe.md."""
    import dask.array as da

    (block,) = [
        block for block in (DOCS / "linear_probe.md").read_text("utf-8").split("```") if "def cross_entropy" in block
    ]
    lines = [line[4:] for line in block.splitlines() if line.startswith((">>> ", "... "))]
    names = {"da": da}
    exec("\n".join(lines), names)
    return names["cross_entropy"]


def of_the_examples():
    """Return docs/examples/losses.py, which the demo imports too."""
    return SimpleNamespace(**runpy.run_path(str(DOCS / "examples" / "losses.py")))


@pytest.mark.only("dask.array")
@pytest.mark.parametrize(
    "loss",
    [of_the_page, lambda: of_the_examples().cross_entropy, lambda: of_the_examples().cross_entropy_blocks],
    ids=["page", "examples", "blocks"],
)
@pytest.mark.parametrize("rows", [20_000, 100_000])
def test_the_softmax_loss_of_a_float16_file_is_right(backend, rng, loss, rows):
    """In float16 the number of rows is inf from 65,505 on, and a row's share of the gradient 0."""
    x = rng.normal(size=(rows, 8)).astype("float16")
    labels = rng.integers(0, 3, rows)
    W, B = rng.normal(size=(8, 3)).astype("float16"), np.zeros(3, "float16")
    X = backend.asarray(x, chunks=(10_000, 8))
    Y = fc.forward(X, W, B)
    value, dY = loss()(Y, backend.asarray(labels, chunks=10_000))
    grads = fc.backward(X, W, dY, needs=("dW", "dB"))
    Y, value, grads = fc.compute(Y, value, grads)

    Z = Y.astype("float64")
    log_p = Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))
    target = labels[:, None] == np.arange(3)
    slope = (np.exp(log_p) - target) / rows
    np.testing.assert_allclose(float(value), -log_p[target].mean(), rtol=1e-5)
    np.testing.assert_allclose(grads.dW, x.T.astype("float64") @ slope, rtol=0, atol=1e-6)
    np.testing.assert_allclose(grads.dB, slope.sum(axis=0), rtol=0, atol=1e-6)
    assert min(grads.dW.dtype.itemsize, grads.dB.dtype.itemsize) >= 4


def slope(loss, Y, *rest, step=1e-5):
    """Return the gradient of a loss by central differences."""
    differences = np.zeros_like(Y)
    for index in np.ndindex(*Y.shape):
        moved = np.zeros_like(Y)
        moved[index] = step
        differences[index] = (loss(Y + moved, *rest)[0] - loss(Y - moved, *rest)[0]) / (2 * step)
    return differences


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["squared", "logistic", "cross_entropy", "cross_entropy_blocks"])
def test_dY_is_the_slope_of_the_loss(backend, rng, name, weighted):
    losses = of_the_examples()
    Y = 3 * rng.normal(size=(20, 4))
    targets = {"squared": rng.normal(size=Y.shape), "logistic": (rng.random(Y.shape) < 0.5).astype(float)}
    target = targets.get(name, rng.integers(0, 4, 20))
    weight = rng.random(20) if weighted else None
    in_memory = getattr(losses, name.removesuffix("_blocks"))
    lazy = [None if a is None else backend.asarray(a, chunks=(6, *a.shape[1:])) for a in (Y, target, weight)]
    value, dY = fc.compute(*getattr(losses, name)(*lazy))
    np.testing.assert_allclose(dY, slope(in_memory, Y, target, weight), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(value, in_memory(Y, target, weight)[0], rtol=1e-14)
    np.testing.assert_allclose(dY, in_memory(Y, target, weight)[1], rtol=1e-13, atol=1e-15)


@pytest.mark.only("numpy")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_losses_of_large_logits_are_exact(backend, dtype):
    losses = of_the_examples()
    Y = np.asarray([[2e4, -2e4]], dtype=dtype)
    value, dY = losses.logistic(Y, np.asarray([[0, 1]]))
    assert (float(value), dY.tolist()) == (2 * float(Y[0, 0]), [[1, -1]])
    value, dY = losses.cross_entropy(Y, np.asarray([1]))
    assert (float(value), dY.tolist()) == (2 * float(Y[0, 0]), [[1, -1]])
    rows = losses.cross_entropy_rows(Y, np.asarray([[1]]), 1)
    assert rows.tolist() == [[1, -1, 2 * float(Y[0, 0])]]


@pytest.mark.only("numpy")
def test_the_loss_of_a_block_holds_one_array_of_its_size(backend, rng):
    Y, labels = rng.random((2000, 500), "float32"), rng.integers(0, 500, (2000, 1))
    losses = of_the_examples()
    losses.cross_entropy_rows(Y[:2], labels[:2], 1.0)
    tracemalloc.start()
    try:
        losses.cross_entropy_rows(Y, labels, 1 / 2000)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * Y.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_target_of_another_shape_is_refused_and_not_broadcast(loss):
    with pytest.raises(ValueError, match=r"T has shape \(6,\), Y has \(6, 1\)"):
        getattr(of_the_examples(), loss)(np.ones((6, 1)), np.ones(6))


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="labels have dtype float64, must be integers from 0 to 2"):
        of_the_examples().cross_entropy(np.ones((6, 3)), np.ones(6))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_noticed(label):
    losses, Y, labels = of_the_examples(), np.ones((4, 3), "float32"), np.asarray([0, 1, 2, label])
    with np.errstate(divide="ignore"):
        assert losses.cross_entropy(Y, labels)[0] == np.inf
    assert np.isfinite(losses.cross_entropy(Y, labels % 3)[0])
    with pytest.raises(ValueError, match=rf"labels go from .*{label}.*, must be from 0 to 2"):
        losses.cross_entropy_rows(Y, labels[:, None], 0.25)
