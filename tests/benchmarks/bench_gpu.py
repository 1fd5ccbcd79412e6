"""The layer on a GPU, with CuPy and with torch, against the library's own matmul and against a loop by hand.

Where no GPU is found, the rows of the table say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from files import ROWS

import fc_arrayapi as fc

SIZE = 8192
AT_MOST = 1.03  # 0.97 of the speed of the library's own matmul


@dataclass(frozen=True)
class Gpu:
    """A library on its GPU: `put` takes NumPy's arrays there, `wait` returns when the GPU is done."""

    put: Callable[..., Any]
    wait: Callable[[], None]

    def done(self, function: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            function()
            self.wait()

        return run


def cupy_gpu(cupy):
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        return None
    return Gpu(lambda array, dtype="float32": cupy.asarray(array, dtype=dtype), cupy.cuda.Device().synchronize)


def torch_gpu(torch):
    if not torch.cuda.is_available():
        return None

    def put(array, dtype="float32"):
        return torch.from_numpy(np.ascontiguousarray(array)).to("cuda", getattr(torch, dtype))

    return Gpu(put, torch.cuda.synchronize)


FIND = {"cupy": cupy_gpu, "torch": torch_gpu}


def gpu_of(library, against, case, rivals_name):
    found = FIND[library](against.needs(case, rivals_name, library))
    return found or against.cannot(case, rivals_name, "no GPU found")


@pytest.mark.parametrize(
    ("library", "dtype"), [("cupy", "float32"), ("torch", "float32"), ("torch", "bfloat16")]
)  # CuPy has no bfloat16
@pytest.mark.parametrize(("what", "rivals_name"), [("forward", "matmul"), ("backward", "two matmuls")])
def test_layer(against, library, dtype, what, rivals_name):
    case = f"{library} on a GPU, {what}, {SIZE} cubed, {dtype}"
    gpu = gpu_of(library, against, case, rivals_name)
    rng = np.random.default_rng(0)
    X, W, dY = (gpu.put(rng.random((SIZE, SIZE), "float32"), dtype) for _ in range(3))
    B = gpu.put(rng.random(SIZE, "float32"), dtype)
    ours, rival = {
        "forward": (lambda: fc.forward(X, W, B), lambda: X @ W),
        "backward": (lambda: fc.backward(X, W, dY), lambda: (dY @ W.T, X.T @ dY)),
    }[what]
    against(case, gpu.done(ours), rivals_name, gpu.done(rival), at_most=AT_MOST, seconds=10.0, peaks="none")


def test_blocks_streamed_from_disk(against, files):
    """Dask reads the blocks, CuPy gets one after the other, dW and dB come back."""
    case, rivals_name = f"Y, dW, dB of {files.size} in .npy, by Dask through a GPU", "a CuPy loop over the memmap"
    gpu = gpu_of("cupy", against, case, rivals_name)
    W, B = gpu.put(files.W), gpu.put(files.B)

    def ours():
        X = files.open("x.npy").map_blocks(gpu.put, dtype="float32", meta=W[:0])
        return fc.compute(fc.backward(X, W, fc.forward(X, W, B), needs=("dW", "dB")))

    def rival():
        X, dW, dB = files.mapped("x.npy"), 0, 0
        for start in range(0, len(X), ROWS):
            x = gpu.put(X[start : start + ROWS])
            Y = x @ W + B
            dW, dB = dW + x.T @ Y, dB + Y.sum(0)
        return dW, dB

    against(case, gpu.done(ours), rivals_name, gpu.done(rival), seconds=20.0)
