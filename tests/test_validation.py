"""Wrong input: one table of input -> exception and the whole message, on every backend.

Nothing is computed before an error: Dask runs under a scheduler that raises.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from assertions import nothing_computes

import fc_arrayapi as fc


def zeros(*shape, dtype="float64"):
    return np.zeros(shape, dtype)


TURNED = (
    "it seems to be in (S, C) order, as torch.nn.Linear keeps its weight: pass W.T, or use "
    "FullyConnected.from_torch(linear)"
)
CASES = {
    # name: (function, arguments, exception, message)
    "X without features": (
        fc.forward,
        (zeros(), zeros(4, 3)),
        ValueError,
        "forward nc,cs->ns: X must have shape (..., C), has (): give it at least its axis of features, "
        "for example xp.reshape(X, (1,))",
    ),
    "W of rank 1": (
        fc.forward,
        (zeros(7, 4), zeros(4)),
        ValueError,
        "forward nc,cs->ns: W must have shape (C, S), has (4,)",
    ),
    "W of rank 3": (
        fc.forward,
        (zeros(7, 4), zeros(1, 4, 3)),
        ValueError,
        "forward nc,cs->ns: W must have shape (C, S), has (1, 4, 3)",
    ),
    "features differ": (
        fc.forward,
        (zeros(7, 4), zeros(5, 3)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 4, W has 5; X has shape (7, 4), W must be (C, S), "
        "has (5, 3)",
    ),
    "one feature does not broadcast": (
        fc.forward,
        (zeros(4, 1), zeros(3, 2)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 1, W has 3; X has shape (4, 1), W must be (C, S), "
        "has (3, 2)",
    ),
    "W of one row does not broadcast": (
        fc.forward,
        (zeros(4, 3), zeros(1, 2)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 3, W has 1; X has shape (4, 3), W must be (C, S), "
        "has (1, 2)",
    ),
    "W turned": (
        fc.forward,
        (zeros(7, 4), zeros(3, 4)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 4, W has 3; X has shape (7, 4), W must be (C, S), "
        f"has (3, 4): {TURNED}",
    ),
    "B as a row": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(1, 3)),
        ValueError,
        "forward nc,cs->ns: B must have shape (S,) = (3,), has (1, 3): pass xp.reshape(B, (3,))",
    ),
    "B as a number": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros()),
        ValueError,
        "forward nc,cs->ns: B must have shape (S,) = (3,), has ()",
    ),
    "B of Y's shape": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(7, 3)),
        ValueError,
        "forward nc,cs->ns: B must have shape (S,) = (3,), has (7, 3)",
    ),
    "B of size 1 does not broadcast": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(1)),
        ValueError,
        "forward nc,cs->ns: axis s (output features): B has 1, W has 3; B holds one number for each column of W",
    ),
    "integers": (
        fc.forward,
        (zeros(7, 4, dtype="int64"), zeros(4, 3)),
        TypeError,
        "forward: X has dtype int64; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(X, xp.float32)",
    ),
    "a bias of integers": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(3, dtype="int64")),
        TypeError,
        "forward: B has dtype int64; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(B, xp.float32)",
    ),
    "a weight of integers": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3, dtype="int64"), zeros(7, 3)),
        TypeError,
        "backward: W has dtype int64; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(W, xp.float32)",
    ),
    "small integers": (
        fc.grad_weight,
        (zeros(7, 4), zeros(7, 3, dtype="int8")),
        TypeError,
        "grad_weight: dY has dtype int8; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(dY, xp.float32)",
    ),
    "booleans": (
        fc.grad_bias,
        (zeros(7, 3, dtype="bool"),),
        TypeError,
        "grad_bias: dY has dtype bool; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(dY, xp.float32)",
    ),
    "complex numbers": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3, dtype="complex128"), zeros(7, 3)),
        TypeError,
        "backward: W has dtype complex128; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(W, xp.float32)",
    ),
    "dY of other features": (
        fc.grad_input,
        (zeros(7, 5), zeros(4, 3)),
        ValueError,
        "grad_input ns,cs->nc: axis s (output features): dY has 5, W has 3; dY has shape (7, 5), W must be (C, S), "
        "has (4, 3)",
    ),
    "dY and W turned": (
        fc.grad_input,
        (zeros(7, 3), zeros(3, 4)),
        ValueError,
        "grad_input ns,cs->nc: axis s (output features): dY has 3, W has 4; dY has shape (7, 3), W must be (C, S), "
        f"has (3, 4): {TURNED}",
    ),
    "dY of rank 0": (
        fc.grad_bias,
        (zeros(),),
        ValueError,
        "grad_bias ns->s: dY must have shape (..., S), has (): give it at least its axis of features, for example "
        "xp.reshape(dY, (1,))",
    ),
    "batches differ": (
        fc.grad_weight,
        (zeros(7, 4), zeros(6, 3)),
        ValueError,
        "grad_weight nc,ns->cs: axis n (batch, axis 0): X has 7, dY has 6; dY must have the shape of Y, (7, S)",
    ),
    "a batch of one does not broadcast": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(1, 3)),
        ValueError,
        "backward: axis n (batch, axis 0): X has 7, dY has 1; dY must have the shape of Y, (7, S)",
    ),
    "dY of rank 1 against one output": (
        fc.backward,
        (zeros(7, 4), zeros(4, 1), zeros(7)),
        ValueError,
        "backward: axis s (output features): dY has 7, W has 1; dY has shape (7,), W must be (C, S), has (4, 1)",
    ),
    "dY without the batch": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(3)),
        ValueError,
        "backward: X has shape (7, 4) and dY has (3,): they must have the same leading axes; dY has the shape of Y, "
        "(7, S)",
    ),
    "inner batch axes differ": (
        fc.backward,
        (zeros(2, 5, 4), zeros(4, 3), zeros(2, 1, 3)),
        ValueError,
        "backward: axis n (batch, axis 1): X has 5, dY has 1; dY must have the shape of Y, (2, 5, S)",
    ),
    "a layer's W of rank 1": (
        fc.FullyConnected,
        (zeros(4),),
        ValueError,
        "FullyConnected: W must have shape (C, S), has (4,)",
    ),
    "a layer's B of another size": (
        fc.FullyConnected,
        (zeros(4, 3), zeros(4)),
        ValueError,
        "FullyConnected: axis s (output features): B has 4, W has 3; B holds one number for each column of W",
    ),
    "a layer of integers": (
        fc.FullyConnected,
        (zeros(4, 3, dtype="int32"),),
        TypeError,
        "FullyConnected: W has dtype int32; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(W, xp.float32)",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_is_refused_before_anything_is_computed(backend, case):
    function, arguments, exception, message = CASES[case]
    arrays = [backend.asarray(argument) for argument in arguments]
    with nothing_computes(backend), pytest.raises(exception, match=f"^{re.escape(message)}$"):
        function(*arrays)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_is_refused_in_blocks_of_one_too(backend, case):
    """Where chunks have length 1, Dask's own products broadcast silently."""
    function, arguments, exception, message = CASES[case]
    arrays = [backend.asarray(argument, chunks=(1,) * argument.ndim) for argument in arguments]
    with nothing_computes(backend), pytest.raises(exception, match=f"^{re.escape(message)}$"):
        function(*arrays)


@pytest.mark.only("array_api_strict")
def test_arrays_on_several_devices_are_refused(backend, batch):
    xp = backend.xp
    X = xp.asarray(batch["X"], device=xp.Device("device1"))
    W, B = xp.asarray(batch["W"], device=xp.Device("device1")), xp.asarray(batch["B"])
    message = (
        "forward: X is on array_api_strict.Device('device1'), W is on array_api_strict.Device('device1'), "
        "B is on array_api_strict.Device('CPU_DEVICE'): move all arrays to the device of X"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fc.forward(X, W, B)
    on_device = xp.Device("device1")
    Y = fc.forward(X, W, xp.asarray(batch["B"], device=on_device))
    assert Y.device == on_device
    grads = fc.backward(X, W, Y)
    assert {part.device for part in grads} == {on_device}
    long = xp.ones((20000, 2), device=on_device)
    assert fc.grad_weight(long, long).device == on_device
    assert fc.grad_bias(long).device == on_device


@pytest.mark.only("torch")
def test_arrays_on_several_torch_devices_are_refused(backend, batch):
    X = backend.asarray(batch["X"])
    W = backend.xp.empty((4, 3), device="meta", dtype=X.dtype)
    with pytest.raises(ValueError, match=r"^forward: X is on \S+, W is on meta: move all arrays to the device of X$"):
        fc.forward(X, W)
