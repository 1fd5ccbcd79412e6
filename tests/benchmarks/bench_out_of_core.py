"""Passes over files: one pass with Dask against loops by hand over the same blocks."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import torch

import fc_arrayapi as fc

N, C, S, ROWS = 262_144, 1024, 256, 8192


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for name, columns in (("x", C), ("t", S)):
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", "float32", (N, columns))
        for start in range(0, N, ROWS):
            array[start : start + ROWS] = rng.random((ROWS, columns), "float32")
    W, B = rng.random((C, S), "float32") / C, rng.random(S, "float32")
    return folder, W, B


def one_pass(folder, W, B):
    X, T = (fc.open_array(folder / name, rows=ROWS) for name in ("x.npy", "t.npy"))
    dY = fc.forward(X, W, B) - T
    (grads,) = fc.compute(fc.backward(X, W, dY, needs=("dW", "dB")))
    return grads.dW, grads.dB


def numpy_loop(folder, W, B):
    X, T = (np.load(folder / name, mmap_mode="r") for name in ("x.npy", "t.npy"))
    dW, dB = np.zeros_like(W), np.zeros_like(B)
    for start in range(0, len(X), ROWS):
        x = X[start : start + ROWS]
        dY = x @ W + B - T[start : start + ROWS]
        dW += x.T @ dY
        dB += dY.sum(0)
    return dW, dB


def torch_loop(folder, W, B):
    X, T = (torch.from_numpy(np.load(folder / name, mmap_mode="c")) for name in ("x.npy", "t.npy"))
    w, b = torch.from_numpy(W.T.copy()).requires_grad_(), torch.from_numpy(B).requires_grad_()
    for start in range(0, len(X), ROWS):
        Y = torch.nn.functional.linear(X[start : start + ROWS], w, b)
        (((Y - T[start : start + ROWS]) ** 2).sum() / 2).backward()
    return w.grad.T, b.grad


@pytest.mark.parametrize(
    ("rival", "rivals_name", "at_most"),
    [(numpy_loop, "a NumPy loop over the memmaps", 1.05), (torch_loop, "a torch loop with autograd", 0.9)],
)
def test_one_pass(against, files, rival, rivals_name, at_most):
    for ours, theirs in zip(one_pass(*files), rival(*files), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    against(
        "Y, dY = Y - T, dW, dB of 1.3 GB in .npy",
        lambda: one_pass(*files),
        rivals_name,
        lambda: rival(*files),
        at_most=at_most,
        seconds=40.0,
        anonymous=True,
    )


def test_weight_gradient(against, files):
    X, T = (fc.open_array(files[0] / name, rows=ROWS) for name in ("x.npy", "t.npy"))
    against(
        "dW of 1.3 GB in .npy",
        lambda: fc.compute(fc.grad_weight(X, T)),
        "da.einsum",
        lambda: da.einsum("nc,ns->cs", X, T).compute(),
        at_most=0.25,
        seconds=40.0,
        anonymous=True,
    )


def test_a_batch_ten_times_as_long(against, tmp_path):
    """Rows per second stay the same: ten passes over the short batch take as long as one over the long one."""
    rng = np.random.default_rng(0)
    for name, rows in (("short", 10**6), ("long", 10**7)):
        array = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", "float32", (rows, 64))
        for start in range(0, rows, 10**5):
            array[start : start + 10**5] = rng.random((10**5, 64), "float32")
    W, B = rng.random((64, 16), "float32"), rng.random(16, "float32")

    def run(name):
        X = fc.open_array(tmp_path / f"{name}.npy", rows=50_000)
        Y = fc.forward(X, W, B)
        return fc.compute(fc.backward(X, W, Y, needs=("dW", "dB")))

    against(
        "Y, dW, dB of 10,000,000 rows",
        lambda: run("long"),
        "ten times 1,000,000 rows",
        lambda: [run("short") for _ in range(10)],
        at_most=1.05,
        seconds=40.0,
        anonymous=True,
    )


def test_forward_from_file_to_file(against, files, tmp_path):
    folder, W, B = files

    def ours():
        X = fc.open_array(folder / "x.npy", rows=ROWS)
        fc.store({tmp_path / "y.zarr": fc.forward(X, W, B)}, overwrite=True)

    def rival():
        X = np.load(folder / "x.npy", mmap_mode="r")
        Y = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", "float32", (N, S))
        for start in range(0, N, ROWS):
            Y[start : start + ROWS] = X[start : start + ROWS] @ W + B
        Y.flush()

    against(
        "forward, .npy to .zarr without compression, 1.3 GB",
        ours,
        "NumPy from memmap to memmap",
        rival,
        at_most=1.3,
        seconds=40.0,
        anonymous=True,
    )
