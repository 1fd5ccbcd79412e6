"""The losses of the pages and of the demo, run as they stand there: in float32 at least, whatever the dtype of X is."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from array_api_compat import array_namespace

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


def of_the_demo():
    """Return the function of docs/examples/linear_probe.py, without what that file imports."""
    source = (DOCS / "examples" / "linear_probe.py").read_text("utf-8")
    (function,) = [node for node in ast.parse(source).body if getattr(node, "name", "") == "cross_entropy"]
    names = {"array_namespace": array_namespace, "np": np}
    exec(ast.unparse(function), names)
    return names["cross_entropy"]


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("loss", [of_the_page, of_the_demo])
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
