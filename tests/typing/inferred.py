"""The types that come out: X's array type, and None for each gradient that was not asked for."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fc_arrayapi as fc
from fc_arrayapi.testing import GradientReport, check_gradients, reference_forward

Float32 = NDArray[np.float32]


def layer_functions(X: Float32, W: NDArray[np.float64], B: Float32, dY: Float32) -> None:
    assert_type(fc.forward(X, W), Float32)
    assert_type(fc.forward(X=X, W=W, B=B), Float32)
    assert_type(fc.grad_input(dY, W), Float32)
    assert_type(fc.grad_weight(X, dY, acc_dtype="float64"), Float32)
    assert_type(fc.grad_bias(dY), Float32)
    assert_type(fc.backward(X, W, dY), fc.Gradients[Float32, Float32, Float32])
    assert_type(fc.backward(X, W, dY, needs=("dX",)), fc.Gradients[Float32, None, None])
    assert_type(fc.backward(X, W, dY, needs=("dB", "dW")), fc.Gradients[None, Float32, Float32])
    assert_type(fc.backward(X, W, dY, needs=["dW"]).dW, Float32 | None)
    assert_type(fc.backward(X, W, dY) + fc.backward(X, W, dY), fc.Gradients[Float32, Float32, Float32])
    _, dW, _ = fc.backward(X, W, dY)
    assert_type(dW, Float32)


def layers(X: Float32, W: Float32, B: Float32, maybe: Float32 | None, dY: Float32) -> None:
    assert_type(fc.FullyConnected(W), fc.FullyConnected[Float32, None])
    assert_type(fc.FullyConnected(W, B).B, Float32)
    assert_type(fc.FullyConnected(W, maybe).B, Float32 | None)
    assert_type(fc.FullyConnected.init(3, 2, bias=False).B, None)
    assert_type(fc.FullyConnected(W, B)(X), Float32)
    assert_type(fc.FullyConnected(W, B).backward(X, dY).dB, Float32)
    assert_type(fc.FullyConnected(W).backward(X, dY).dB, Float32 | None)
    assert_type(fc.FullyConnected(W, B).astype("float64").C, int)
    assert_type(fc.FullyConnected.load("m.npz", prefix="head", layout="torch").W, np.ndarray[Any, Any])
    plain: fc.FullyConnected = fc.FullyConnected(W, B)
    grads: fc.Gradients = plain.backward(X, dY)
    assert_type(fc.plan(X, W).peak_memory, int)
    print(grads)


def einsums(X: Float32, W: Float32) -> None:
    assert_type(fc.einsum("nc,cs->ns", X, W), Float32)
    assert_type(fc.einsum(X, [0, 1], W, [1, 2], [0, 2]), Float32)
    assert_type(fc.einsum("nc,cs->ns", X, W, memory_limit="max_input", out=X), Float32)
    assert_type(fc.einsum_backward("nc,cs->ns", X, W, dY=X), tuple[Float32, Float32])
    assert_type(fc.einsum_backward("nc,cs->ns", X, W, dY=X, needs=(1,)), tuple[Float32 | None, ...])
    assert_type(fc.tensordot(X, W, axes=1), Float32)
    assert_type(fc.transpose(X), Float32)


def checks(X: Float32, W: Float32, dY: Float32) -> None:
    assert_type(check_gradients(X, W, None, dY), GradientReport)
    assert_type(fc.testing.check_gradients(X, W, None, dY).ok, bool)
    print(reference_forward(X, W).sum())
