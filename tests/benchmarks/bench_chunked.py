"""Passes over files: Dask's own operators and cubed, on the same blocks."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from files import ROWS

import fc_arrayapi as fc


def test_forward(against, files):
    X, W, B = files.open("x.npy"), files.W, files.B
    against(
        f"Y of {files.size} in .npy",
        lambda: fc.compute(fc.forward(X, W, B)),
        "Dask, X @ W + B",
        lambda: (X @ W + B).compute(),
        seconds=20.0,
    )


@pytest.mark.parametrize(
    ("rivals_name", "rival", "at_most"),
    [
        ("da.einsum", lambda X, T: da.einsum("nc,ns->cs", X, T), 0.25),
        ("Dask, X.T @ dY", lambda X, T: X.T @ T, None),
    ],
    ids=["einsum", "matmul"],
)
def test_weight_gradient(against, files, rivals_name, rival, at_most):
    X, T = files.open("x.npy"), files.open("t.npy")
    against(
        f"dW of {files.size} in .npy",
        lambda: fc.compute(fc.grad_weight(X, T)),
        rivals_name,
        lambda: rival(X, T).compute(),
        at_most=at_most,
        seconds=20.0,
    )


def test_cubed(against, files, folder):
    """From Zarr to Zarr, which is what cubed is made for."""
    case, rivals_name = f"forward, .zarr to .zarr, {files.size}", "cubed, X @ W + B"
    cubed = against.needs(case, rivals_name, "cubed")
    W, B = files.W, files.B
    fc.store({folder / "x.zarr": files.open("x.npy")})

    def ours():
        X = fc.open_array(folder / "x.zarr", rows=ROWS)
        fc.store({folder / "y.zarr": fc.forward(X, W, B)}, overwrite=True)

    def rival():
        spec = cubed.Spec(work_dir=str(folder), allowed_mem="1GB")
        X = cubed.from_zarr(str(folder / "x.zarr"), spec=spec)
        w, b = (cubed.from_array(array, chunks=array.shape, spec=spec) for array in (W, B))
        cubed.to_zarr(X @ w + b, str(folder / "cubed.zarr"))

    ours(), rival()
    own, other = (fc.open_array(folder / name, rows=ROWS)[-ROWS:].compute() for name in ("y.zarr", "cubed.zarr"))
    np.testing.assert_allclose(own, other, rtol=1e-5)
    against(case, ours, rivals_name, rival, seconds=20.0)
