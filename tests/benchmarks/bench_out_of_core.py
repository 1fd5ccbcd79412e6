"""Passes over files: one pass with Dask against loops by hand over the same blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from files import ROWS, write

import fc_arrayapi as fc


def one_pass(files):
    X = files.open("x.npy")
    dY = fc.forward(X, files.W, files.B) - files.open("t.npy")
    (grads,) = fc.compute(fc.backward(X, files.W, dY, needs=("dW", "dB")))
    return grads.dW, grads.dB


def numpy_loop(files):
    X, T = files.mapped("x.npy"), files.mapped("t.npy")
    dW, dB = np.zeros_like(files.W), np.zeros_like(files.B)
    for start in range(0, len(X), ROWS):
        x = X[start : start + ROWS]
        dY = x @ files.W + files.B - T[start : start + ROWS]
        dW += x.T @ dY
        dB += dY.sum(0)
    return dW, dB


def torch_loop(files):
    X, T = (torch.from_numpy(files.mapped(name, "c")) for name in ("x.npy", "t.npy"))
    w, b = torch.from_numpy(files.W.T.copy()).requires_grad_(), torch.from_numpy(files.B).requires_grad_()
    for start in range(0, len(X), ROWS):
        Y = torch.nn.functional.linear(X[start : start + ROWS], w, b)
        (((Y - T[start : start + ROWS]) ** 2).sum() / 2).backward()
    return w.grad.T, b.grad


@pytest.mark.parametrize(
    ("rival", "rivals_name", "at_most", "peaks"),
    [
        (numpy_loop, "a NumPy loop over the memmaps", 1.05, "both"),
        (torch_loop, "a torch loop with autograd", 0.9, "ours"),
    ],
    ids=["numpy", "torch"],
)
def test_one_pass(against, files, rival, rivals_name, at_most, peaks):
    for ours, theirs in zip(one_pass(files), rival(files), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max())
    against(
        f"Y, dY = Y - T, dW, dB of {files.size} in .npy",
        lambda: one_pass(files),
        rivals_name,
        lambda: rival(files),
        at_most=at_most,
        seconds=40.0,
        peaks=peaks,
    )


def test_a_batch_ten_times_as_long(against, folder, quick):
    """Rows per second stay the same: ten passes over the short batch take as long as one over the long one."""
    long = 10**6 if quick else 10**7
    rng = np.random.default_rng(0)
    for name, rows in (("short", long // 10), ("long", long)):
        write(folder / f"{name}.npy", rows, 64, rng)
    W, B = rng.random((64, 16), "float32"), rng.random(16, "float32")
    rows = 50_000 if quick else None  # None is what a user gets, but would make of a quick run's files one block

    def run(name):
        X = fc.open_array(folder / f"{name}.npy", rows=rows)
        Y = fc.forward(X, W, B)
        return fc.compute(fc.backward(X, W, Y, needs=("dW", "dB")))

    against(
        f"Y, dW, dB of {long:,} rows",
        lambda: run("long"),
        f"ten times {long // 10:,} rows",
        lambda: [run("short") for _ in range(10)],
        at_most=1.05,
        seconds=40.0,
    )


def test_forward_from_file_to_file(against, files, folder):
    def ours():
        fc.store({folder / "y.zarr": fc.forward(files.open("x.npy"), files.W, files.B)}, overwrite=True)

    def rival():
        X = files.mapped("x.npy")
        Y = np.lib.format.open_memmap(folder / "y.npy", "w+", "float32", (len(X), len(files.B)))
        for start in range(0, len(X), ROWS):
            Y[start : start + ROWS] = X[start : start + ROWS] @ files.W + files.B
        Y.flush()

    against(
        f"forward, .npy to .zarr without compression, {files.size}",
        ours,
        "NumPy from memmap to memmap",
        rival,
        at_most=1.3,
        seconds=40.0,
    )
