"""Wrong input: one table of input -> exception and the whole message, on every backend.

Nothing is computed before an error: Dask runs under a scheduler that raises.
"""

from __future__ import annotations

import numpy as np
import pytest
from assertions import nothing_computes

import fc_arrayapi as fc
from fc_arrayapi import namespace


def zeros(*shape, dtype="float64"):
    return np.zeros(shape, dtype)


TURNED = (
    "it seems to be in (S, C) order, as torch.nn.Linear keeps its weight: pass W.T, or use "
    "FullyConnected.from_torch(linear)"
)
TWO_AXES = "give it one axis of input features and one of output features, with xp.reshape"
EACH_COLUMN = "pass one number for each column of W"


def called(X, W, B):
    return fc.FullyConnected(W, B)(X)


def called_backward(X, W, dY):
    return fc.FullyConnected(W).backward(X, dY)


def added(one, other):
    return fc.Gradients(one, None, None) + fc.Gradients(other, None, None)


def added_weights(one, other):
    return fc.Gradients(None, one, None) + fc.Gradients(None, other, None)


def added_biases(one, other):
    return fc.Gradients(None, None, one) + fc.Gradients(None, None, other)


# Every public function with arguments that fit; what is put in their place, one at a time, is refused.
CALLS = {
    # name in messages: (function, {argument: shape})
    "forward": (fc.forward, {"X": (7, 4), "W": (4, 3), "B": (3,)}),
    "grad_input": (fc.grad_input, {"dY": (7, 3), "W": (4, 3)}),
    "grad_weight": (fc.grad_weight, {"X": (7, 4), "dY": (7, 3)}),
    "grad_bias": (fc.grad_bias, {"dY": (7, 3)}),
    "backward": (fc.backward, {"X": (7, 4), "W": (4, 3), "dY": (7, 3)}),
    "FullyConnected": (fc.FullyConnected, {"W": (4, 3), "B": (3,)}),
    "Gradients + Gradients": (added, {"dX": (7, 4), "the other dX": (7, 4)}),
}
EACH_ARGUMENT = [(name, argument) for name, (_, shapes) in CALLS.items() for argument in shapes]


def with_one(where, argument, value):
    """Give the arguments that fit, and one instead that does not."""
    return [value(shape) if name == argument else zeros(*shape) for name, shape in CALLS[where][1].items()]


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
        "forward nc,cs->ns: W must have shape (C, S), has (4,): pass xp.reshape(W, (1, 4)) if C is 1, or "
        "xp.reshape(W, (4, 1)) if S is 1",
    ),
    "W of rank 3": (
        fc.forward,
        (zeros(7, 4), zeros(1, 4, 3)),
        ValueError,
        f"forward nc,cs->ns: W must have shape (C, S), has (1, 4, 3): {TWO_AXES}",
    ),
    "features differ": (
        fc.forward,
        (zeros(7, 4), zeros(5, 3)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 4, W has 5; X has shape (7, 4), W must be (C, S), "
        "has (5, 3): give X 5 features, or W 4 rows",
    ),
    "one feature does not broadcast": (
        fc.forward,
        (zeros(4, 1), zeros(3, 2)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 1, W has 3; X has shape (4, 1), W must be (C, S), "
        "has (3, 2): nothing broadcasts: give X 3 features, or W 1 row",
    ),
    "W of one row does not broadcast": (
        fc.forward,
        (zeros(4, 3), zeros(1, 2)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 3, W has 1; X has shape (4, 3), W must be (C, S), "
        "has (1, 2): nothing broadcasts: give X 1 feature, or W 3 rows",
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
        "forward nc,cs->ns: B must have shape (S,) = (3,), has (): nothing broadcasts: pass xp.broadcast_to(B, (3,))",
    ),
    "B of Y's shape": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(7, 3)),
        ValueError,
        f"forward nc,cs->ns: B must have shape (S,) = (3,), has (7, 3): {EACH_COLUMN}",
    ),
    "B of size 1 does not broadcast": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(1)),
        ValueError,
        "forward nc,cs->ns: axis s (output features): B has 1, W has 3; B has shape (1,), W must be (C, S), has (4, 3)"
        ": nothing broadcasts: pass xp.broadcast_to(B, (3,))",
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
        "backward: W has dtype complex128; the layer takes real floating dtypes: pass its parts one after the other, "
        "xp.real(W) and xp.imag(W)",
    ),
    "dY of other features": (
        fc.grad_input,
        (zeros(7, 5), zeros(4, 3)),
        ValueError,
        "grad_input ns,cs->nc: axis s (output features): dY has 5, W has 3; dY has shape (7, 5), W must be (C, S), "
        "has (4, 3): give dY 3 features, or W 5 columns",
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
        "grad_bias ns->s: dY must have shape (..., S), has (): give it at least its axis of features, for "
        "example xp.reshape(dY, (1,))",
    ),
    "batches differ": (
        fc.grad_weight,
        (zeros(7, 4), zeros(6, 3)),
        ValueError,
        "grad_weight nc,ns->cs: axis n (batch, axis 0): X has 7, dY has 6; X has shape (7, 4), "
        "dY has (6, 3): pass a dY of the shape of Y, (7, S)",
    ),
    "a batch of one does not broadcast": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(1, 3)),
        ValueError,
        "backward: axis n (batch, axis 0): X has 7, dY has 1; X has shape (7, 4), "
        "dY has (1, 3): pass a dY of the shape of Y, (7, S)",
    ),
    "dY of rank 1 against one output": (
        fc.backward,
        (zeros(7, 4), zeros(4, 1), zeros(7)),
        ValueError,
        "backward: axis s (output features): dY has 7, W has 1; dY has shape (7,), W must be (C, S), has (4, 1): pass "
        "xp.reshape(dY, (7, 1))",
    ),
    "dY without the batch": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(3)),
        ValueError,
        "backward: X has shape (7, 4) and dY has (3,): they must have the same leading axes; pass a dY of the "
        "shape of Y, (7, S)",
    ),
    "inner batch axes differ": (
        fc.backward,
        (zeros(2, 5, 4), zeros(4, 3), zeros(2, 1, 3)),
        ValueError,
        "backward: axis n (batch, axis 1): X has 5, dY has 1; X has shape (2, 5, 4), "
        "dY has (2, 1, 3): pass a dY of the shape of Y, (2, 5, S)",
    ),
    "a layer's W of rank 1": (
        fc.FullyConnected,
        (zeros(4),),
        ValueError,
        "FullyConnected: W must have shape (C, S), has (4,): pass xp.reshape(W, (1, 4)) if C is 1, or "
        "xp.reshape(W, (4, 1)) if S is 1",
    ),
    "a layer's B of another size": (
        fc.FullyConnected,
        (zeros(4, 3), zeros(4)),
        ValueError,
        "FullyConnected: axis s (output features): B has 4, W has 3; B has shape (4,), W must be (C, S), has (4, 3): "
        f"{EACH_COLUMN}",
    ),
    "a layer of integers": (
        fc.FullyConnected,
        (zeros(4, 3, dtype="int32"),),
        TypeError,
        "FullyConnected: W has dtype int32; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(W, xp.float32)",
    ),
    "W of rank 0": (
        fc.forward,
        (zeros(7, 4), zeros()),
        ValueError,
        f"forward nc,cs->ns: W must have shape (C, S), has (): {TWO_AXES}",
    ),
    "a sample of other features": (
        fc.forward,
        (zeros(5), zeros(4, 3)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 5, W has 4; X has shape (5,), W must be (C, S), "
        "has (4, 3): give X 4 features, or W 5 rows",
    ),
    "no features": (
        fc.forward,
        (zeros(7, 0), zeros(4, 3)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 0, W has 4; X has shape (7, 0), W must be (C, S), "
        "has (4, 3): give X 4 features, or W 0 rows",
    ),
    "B as a column": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(3, 1)),
        ValueError,
        "forward nc,cs->ns: B must have shape (S,) = (3,), has (3, 1): pass xp.reshape(B, (3,))",
    ),
    "B as a number beside one output": (
        fc.forward,
        (zeros(7, 4), zeros(4, 1), zeros()),
        ValueError,
        "forward nc,cs->ns: B must have shape (S,) = (1,), has (): pass xp.reshape(B, (1,))",
    ),
    "B as a matrix of one number": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(1, 1)),
        ValueError,
        f"forward nc,cs->ns: B must have shape (S,) = (3,), has (1, 1): {EACH_COLUMN}",
    ),
    "B for each sample": (
        fc.forward,
        (zeros(7, 4), zeros(4, 1), zeros(7)),
        ValueError,
        "forward nc,cs->ns: axis s (output features): B has 7, W has 1; B has shape (7,), W must be (C, S), has (4, 1)"
        f": {EACH_COLUMN}",
    ),
    "grad_input of rank 0": (
        fc.grad_input,
        (zeros(), zeros(4, 3)),
        ValueError,
        "grad_input ns,cs->nc: dY must have shape (..., S), has (): give it at least its axis of features, for "
        "example xp.reshape(dY, (1,))",
    ),
    "grad_input with W of rank 1": (
        fc.grad_input,
        (zeros(7, 3), zeros(3)),
        ValueError,
        "grad_input ns,cs->nc: W must have shape (C, S), has (3,): pass xp.reshape(W, (1, 3)) if C is 1, or "
        "xp.reshape(W, (3, 1)) if S is 1",
    ),
    "grad_input of rank 1 against one output": (
        fc.grad_input,
        (zeros(7), zeros(4, 1)),
        ValueError,
        "grad_input ns,cs->nc: axis s (output features): dY has 7, W has 1; dY has shape (7,), W must be (C, S), "
        "has (4, 1): pass xp.reshape(dY, (7, 1))",
    ),
    "as many dY of rank 1 as input features": (
        fc.grad_input,
        (zeros(4), zeros(4, 1)),
        ValueError,
        "grad_input ns,cs->nc: axis s (output features): dY has 4, W has 1; dY has shape (4,), W must be (C, S), "
        "has (4, 1): pass xp.reshape(dY, (4, 1))",
    ),
    "one output feature does not broadcast": (
        fc.grad_input,
        (zeros(7, 1), zeros(4, 3)),
        ValueError,
        "grad_input ns,cs->nc: axis s (output features): dY has 1, W has 3; dY has shape (7, 1), W must be (C, S), "
        "has (4, 3): nothing broadcasts: give dY 3 features, or W 1 column",
    ),
    "W of one column does not broadcast": (
        fc.grad_input,
        (zeros(7, 3), zeros(4, 1)),
        ValueError,
        "grad_input ns,cs->nc: axis s (output features): dY has 3, W has 1; dY has shape (7, 3), W must be (C, S), "
        "has (4, 1): nothing broadcasts: give dY 1 feature, or W 3 columns",
    ),
    "grad_weight with X of rank 0": (
        fc.grad_weight,
        (zeros(), zeros(7, 3)),
        ValueError,
        "grad_weight nc,ns->cs: X must have shape (..., C), has (): give it at least its axis of features, for example "
        "xp.reshape(X, (1,))",
    ),
    "grad_weight with dY of rank 0": (
        fc.grad_weight,
        (zeros(7, 4), zeros()),
        ValueError,
        "grad_weight nc,ns->cs: dY must have shape (..., S), has (): give it at least its axis of features, for "
        "example xp.reshape(dY, (1,))",
    ),
    "grad_weight with dY of rank 1": (
        fc.grad_weight,
        (zeros(7, 4), zeros(7)),
        ValueError,
        "grad_weight nc,ns->cs: X has shape (7, 4) and dY has (7,): they must have the same leading axes; pass a dY of "
        "the shape of Y, (7, S), or xp.reshape(dY, (7, 1)) if S is 1",
    ),
    "grad_weight with a sample and a batch": (
        fc.grad_weight,
        (zeros(4), zeros(1, 3)),
        ValueError,
        "grad_weight nc,ns->cs: X has shape (4,) and dY has (1, 3): they must have the same leading axes; pass a dY of "
        "the shape of Y, (S,)",
    ),
    "grad_weight with merged batch axes": (
        fc.grad_weight,
        (zeros(2, 5, 4), zeros(10, 3)),
        ValueError,
        "grad_weight nc,ns->cs: X has shape (2, 5, 4) and dY has (10, 3): they must have the same leading axes; pass a "
        "dY of the shape of Y, (2, 5, S)",
    ),
    "grad_weight with a batch of one": (
        fc.grad_weight,
        (zeros(1, 4), zeros(7, 3)),
        ValueError,
        "grad_weight nc,ns->cs: axis n (batch, axis 0): X has 1, dY has 7; X has shape (1, 4), "
        "dY has (7, 3): pass a dY of the shape of Y, (1, S)",
    ),
    "grad_weight with an empty batch": (
        fc.grad_weight,
        (zeros(7, 4), zeros(0, 3)),
        ValueError,
        "grad_weight nc,ns->cs: axis n (batch, axis 0): X has 7, dY has 0; X has shape (7, 4), "
        "dY has (0, 3): pass a dY of the shape of Y, (7, S)",
    ),
    "backward with X of rank 0": (
        fc.backward,
        (zeros(), zeros(4, 3), zeros(7, 3)),
        ValueError,
        "backward: X must have shape (..., C), has (): give it at least its axis of features, for example "
        "xp.reshape(X, (1,))",
    ),
    "backward with W of rank 1": (
        fc.backward,
        (zeros(7, 4), zeros(4), zeros(7)),
        ValueError,
        "backward: W must have shape (C, S), has (4,): pass xp.reshape(W, (1, 4)) if C is 1, or xp.reshape(W, (4, 1)) "
        "if S is 1",
    ),
    "backward with dY of rank 0": (
        fc.backward,
        (zeros(4), zeros(4, 1), zeros()),
        ValueError,
        "backward: dY must have shape (..., S), that of Y, has (): give it at least its axis of features, for "
        "example xp.reshape(dY, (1,))",
    ),
    "backward with other input features": (
        fc.backward,
        (zeros(7, 1), zeros(4, 3), zeros(7, 3)),
        ValueError,
        "backward: axis c (input features): X has 1, W has 4; X has shape (7, 1), W must be (C, S), has (4, 3): "
        "nothing broadcasts: give X 4 features, or W 1 row",
    ),
    "backward with W turned": (
        fc.backward,
        (zeros(7, 4), zeros(3, 4), zeros(7, 3)),
        ValueError,
        "backward: axis c (input features): X has 4, W has 3; X has shape (7, 4), W must be (C, S), has (3, 4): "
        f"{TURNED}",
    ),
    "backward with X for dY": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(7, 4)),
        ValueError,
        "backward: axis s (output features): dY has 4, W has 3; dY has shape (7, 4), W must be (C, S), has (4, 3): "
        "give dY 3 features, or W 4 columns",
    ),
    "backward with one output feature": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(7, 1)),
        ValueError,
        "backward: axis s (output features): dY has 1, W has 3; dY has shape (7, 1), W must be (C, S), has (4, 3): "
        "nothing broadcasts: give dY 3 features, or W 1 column",
    ),
    "dY of rank 1 against several outputs": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(7)),
        ValueError,
        "backward: axis s (output features): dY has 7, W has 3; dY has shape (7,), W must be (C, S), has (4, 3): "
        "give dY 3 features, or W 7 columns",
    ),
    "dY of rank 1 against as many outputs": (
        fc.backward,
        (zeros(7, 4), zeros(4, 7), zeros(7)),
        ValueError,
        "backward: X has shape (7, 4) and dY has (7,): they must have the same leading axes; pass a dY of the shape of "
        "Y, (7, S), or xp.reshape(dY, (7, 1)) if S is 1",
    ),
    "dY of rank 1 for one sample": (
        fc.backward,
        (zeros(1, 4), zeros(4, 1), zeros(1)),
        ValueError,
        "backward: X has shape (1, 4) and dY has (1,): they must have the same leading axes; pass a dY of the shape of "
        "Y, (1, S), or xp.reshape(dY, (1, 1)) if S is 1",
    ),
    "as many samples as input features": (
        fc.backward,
        (zeros(4, 4), zeros(4, 1), zeros(4)),
        ValueError,
        "backward: axis s (output features): dY has 4, W has 1; dY has shape (4,), W must be (C, S), has (4, 1): pass "
        "xp.reshape(dY, (4, 1))",
    ),
    "dY of the batch axes alone": (
        fc.backward,
        (zeros(2, 5, 4), zeros(4, 1), zeros(2, 5)),
        ValueError,
        "backward: axis s (output features): dY has 5, W has 1; dY has shape (2, 5), W must be (C, S), has (4, 1): "
        "pass xp.reshape(dY, (2, 5, 1))",
    ),
    "X of one row does not broadcast": (
        fc.backward,
        (zeros(1, 4), zeros(4, 3), zeros(7, 3)),
        ValueError,
        "backward: axis n (batch, axis 0): X has 1, dY has 7; X has shape (1, 4), "
        "dY has (7, 3): pass a dY of the shape of Y, (1, S)",
    ),
    "a layer's W of rank 0": (
        fc.FullyConnected,
        (zeros(),),
        ValueError,
        f"FullyConnected: W must have shape (C, S), has (): {TWO_AXES}",
    ),
    "a layer's W of rank 3": (
        fc.FullyConnected,
        (zeros(4, 3, 1),),
        ValueError,
        f"FullyConnected: W must have shape (C, S), has (4, 3, 1): {TWO_AXES}",
    ),
    "a layer's B as a row": (
        fc.FullyConnected,
        (zeros(4, 3), zeros(1, 3)),
        ValueError,
        "FullyConnected: B must have shape (S,) = (3,), has (1, 3): pass xp.reshape(B, (3,))",
    ),
    "a layer's B as a number": (
        fc.FullyConnected,
        (zeros(4, 3), zeros()),
        ValueError,
        "FullyConnected: B must have shape (S,) = (3,), has (): nothing broadcasts: pass xp.broadcast_to(B, (3,))",
    ),
    "a layer's B of size 1": (
        fc.FullyConnected,
        (zeros(4, 3), zeros(1)),
        ValueError,
        "FullyConnected: axis s (output features): B has 1, W has 3; B has shape (1,), W must be (C, S), has (4, 3)"
        ": nothing broadcasts: pass xp.broadcast_to(B, (3,))",
    ),
    "a layer called with other features": (
        called,
        (zeros(7, 5), zeros(4, 3), zeros(3)),
        ValueError,
        "forward nc,cs->ns: axis c (input features): X has 5, W has 4; X has shape (7, 5), W must be (C, S), "
        "has (4, 3): give X 4 features, or W 5 rows",
    ),
    "a layer called with a number": (
        called,
        (zeros(), zeros(4, 3), zeros(3)),
        ValueError,
        "forward nc,cs->ns: X must have shape (..., C), has (): give it at least its axis of features, for example "
        "xp.reshape(X, (1,))",
    ),
    "a layer called with integers": (
        called,
        (zeros(7, 4, dtype="int16"), zeros(4, 3), zeros(3)),
        TypeError,
        "forward: X has dtype int16; the layer takes real floating dtypes: convert it first, for example "
        "xp.astype(X, xp.float32)",
    ),
    "a layer's dY of rank 1": (
        called_backward,
        (zeros(7, 4), zeros(4, 1), zeros(7)),
        ValueError,
        "backward: axis s (output features): dY has 7, W has 1; dY has shape (7,), W must be (C, S), has (4, 1): pass "
        "xp.reshape(dY, (7, 1))",
    ),
    "a layer's dY of another batch": (
        called_backward,
        (zeros(7, 4), zeros(4, 3), zeros(6, 3)),
        ValueError,
        "backward: axis n (batch, axis 0): X has 7, dY has 6; X has shape (7, 4), "
        "dY has (6, 3): pass a dY of the shape of Y, (7, S)",
    ),
    "dX of other features": (
        added,
        (zeros(7, 4), zeros(7, 1)),
        ValueError,
        "axis 1 of dX: one has 4, the other has 1; dX has shape (7, 4) in one and (7, 1) in the other: "
        "add gradients of one layer and of batches with the same axes",
    ),
    "dX of another rank": (
        added,
        (zeros(7, 4), zeros(1, 7, 4)),
        ValueError,
        "dX has shape (7, 4) in one and (1, 7, 4) in the other: "
        "add gradients of one layer and of batches with the same axes",
    ),
    "dX of one sample": (
        added,
        (zeros(4), zeros(4)),
        ValueError,
        "dX has shape (4,), no batch axis to join along: give X one, (1, C)",
    ),
    "dW of one row": (
        added_weights,
        (zeros(4, 3), zeros(1, 3)),
        ValueError,
        "axis 0 of dW: one has 4, the other has 1; dW has shape (4, 3) in one and (1, 3) in the other: "
        "add gradients of one layer and of batches with the same axes",
    ),
    "dB of size 1": (
        added_biases,
        (zeros(3), zeros(1)),
        ValueError,
        "axis 0 of dB: one has 3, the other has 1; dB has shape (3,) in one and (1,) in the other: "
        "add gradients of one layer and of batches with the same axes",
    ),
}


def dtype_cases(dtype, shown, advice):
    """Make a row for every argument of every function, which alone has another dtype."""
    return {
        f"{where}, {argument}: {shown}": (
            CALLS[where][0],
            with_one(where, argument, lambda shape: np.zeros(shape, dtype)),
            TypeError,
            f"{where}: {argument} has dtype {shown}; the layer takes real floating dtypes: "
            f"{advice.replace('NAME', argument)}",
        )
        for where, argument in EACH_ARGUMENT
    }


CONVERT = "convert it first, for example xp.astype(NAME, xp.float32)"
PARTS = "pass its parts one after the other, xp.real(NAME) and xp.imag(NAME)"
CASES |= {
    name: row
    for dtype, advice in (("int64", CONVERT), ("uint8", CONVERT), ("bool", CONVERT), ("complex64", PARTS))
    for name, row in dtype_cases(dtype, dtype, advice).items()
}
# Dtypes that NumPy alone has.
NUMPY_CASES = {
    name: row
    for dtype, shown, advice in (
        ("object", "object", CONVERT),
        ("U1", "str32", CONVERT),
        ("datetime64[s]", "datetime64[s]", CONVERT),
        ([("a", "f8"), ("b", "i4")], "void96", "pass one field, for example NAME['a']"),
    )
    for name, row in dtype_cases(dtype, shown, advice).items()
}


def assert_refused(backend, row, arrays):
    function, _, exception, message = row
    with nothing_computes(backend), pytest.raises(exception) as refused:
        function(*arrays)
    assert str(refused.value) == message


@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_is_refused_before_anything_is_computed(backend, case):
    assert_refused(backend, CASES[case], [backend.asarray(argument) for argument in CASES[case][1]])


@pytest.mark.only("numpy", "dask.array")
@pytest.mark.parametrize("case", list(NUMPY_CASES))
def test_what_holds_no_numbers_is_refused(backend, case):
    assert_refused(backend, NUMPY_CASES[case], [backend.asarray(argument) for argument in NUMPY_CASES[case][1]])


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_is_refused_in_blocks_of_one_too(backend, case):
    """Where chunks have length 1, Dask's own products broadcast silently."""
    arguments = CASES[case][1]
    arrays = [backend.asarray(argument, chunks=(1,) * argument.ndim) for argument in arguments]
    assert_refused(backend, CASES[case], arrays)


@pytest.mark.only("dask.array")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_that_is_built_lazily_is_refused(backend, case):
    """There is no array in memory behind it, and no block that could be looked at."""
    arrays = [backend.xp.zeros(argument.shape, dtype=argument.dtype, chunks=2) for argument in CASES[case][1]]
    assert_refused(backend, CASES[case], arrays)


@pytest.mark.only("jax.numpy")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_is_refused_while_it_is_traced(backend, case):
    import jax

    function, arguments, exception, message = CASES[case]
    traced = [backend.asarray(argument) for argument in arguments]
    assert_refused(backend, (lambda *arrays: jax.eval_shape(function, *arrays), arguments, exception, message), traced)


@pytest.mark.only("torch")
@pytest.mark.parametrize("case", list(CASES))
def test_wrong_input_without_data_is_refused(backend, case):
    assert_refused(backend, CASES[case], [backend.asarray(argument).to("meta") for argument in CASES[case][1]])


class Frame:
    """Like a table of pandas: it turns into an array, and is none."""

    shape, ndim, dtype = (7, 4), 2, np.dtype("float64")

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it was converted silently")


class Sparse:
    """Like a matrix of scipy.sparse: `numpy.asarray` makes one object of it."""

    shape, ndim, dtype = (7, 4), 2, np.dtype("float64")

    def toarray(self):
        raise AssertionError("it was converted silently")


AS_NUMPY = "make one first, for example numpy.asarray(NAME)"
NO_ARRAYS = {
    "a list": ([[1.0]], AS_NUMPY),
    "a tuple": (((1.0,),), AS_NUMPY),
    "a float": (1.0, AS_NUMPY),
    "an int": (1, AS_NUMPY),
    "a bool": (True, AS_NUMPY),
    "a str": ("X", AS_NUMPY),
    "a memoryview": (memoryview(b"1"), AS_NUMPY),
    "a test_validation.Frame": (Frame(), AS_NUMPY),
    "a test_validation.Sparse": (Sparse(), "make one first, NAME.toarray()"),
    "the class numpy.ndarray": (np.ndarray, "pass one"),
    "None": (None, "pass one"),
}


@pytest.mark.parametrize("what", list(NO_ARRAYS))
@pytest.mark.parametrize(("where", "argument"), EACH_ARGUMENT)
def test_what_is_no_array_is_refused(backend, where, argument, what):
    value, advice = NO_ARRAYS[what]
    function, shapes = CALLS[where]
    arrays = [value if name == argument else backend.asarray(zeros(*shape)) for name, shape in shapes.items()]
    message = f"{argument} is {what}, which is no array of a library of the array API standard: "
    row = (function, arrays, TypeError, message + advice.replace("NAME", argument))
    if value is None and argument == "B":
        function(*arrays)  # a layer without bias
        return
    if value is None and where == "Gradients + Gradients":
        row = (*row[:2], ValueError, "dX is None in one of the two: ask backward for the same needs both times")
    assert_refused(backend, row, arrays)


# NumPy arrays whose meaning a product would drop.
MISREAD = {
    "masked": (
        np.ma.zeros,
        "NAME is a numpy.ma.MaskedArray, whose mask a matrix product ignores: fill it first, NAME.filled(0)",
    ),
    "matrix": (lambda shape: np.zeros(shape).view(np.matrix), "NAME is a numpy.matrix: pass numpy.asarray(NAME)"),
    "record": (
        lambda shape: np.rec.array(np.zeros(shape, [("a", "f8")])),
        "WHERE: NAME has dtype record64; the layer takes real floating dtypes: pass one field, for example NAME['a']",
    ),
}


@pytest.mark.only("numpy")
@pytest.mark.parametrize("kind", list(MISREAD))
@pytest.mark.parametrize(("where", "argument"), EACH_ARGUMENT)
def test_numpy_arrays_that_a_product_would_misread_are_refused(backend, where, argument, kind):
    make, message = MISREAD[kind]
    message = message.replace("NAME", argument).replace("WHERE", where)
    arrays = with_one(where, argument, make)
    assert_refused(backend, (CALLS[where][0], arrays, TypeError, message), arrays)


# What a message advises where one argument is a NumPy array: in memory, and beside Dask arrays, where None is allowed.
MIXTURES = {
    ("forward", "X"): ("convert W to the library of X", "make X a Dask array too, dask.array.from_array(X)"),
    ("forward", "W"): ("convert W to the library of X", None),
    ("forward", "B"): ("convert B to the library of X", None),
    ("grad_input", "dY"): ("convert W to the library of dY", "make dY a Dask array too, dask.array.from_array(dY)"),
    ("grad_input", "W"): ("convert W to the library of dY", None),
    ("grad_weight", "X"): ("convert dY to the library of X", "make X a Dask array too, dask.array.from_array(X)"),
    ("grad_weight", "dY"): ("convert dY to the library of X", "convert dY to the library of X"),
    ("backward", "X"): ("convert W to the library of X", "make X a Dask array too, dask.array.from_array(X)"),
    ("backward", "W"): ("convert W to the library of X", None),
    ("backward", "dY"): (
        "convert dY to the library of X",
        "with a Dask X only W may be NumPy: pass dask.array.asarray(dY)",
    ),
    ("FullyConnected", "W"): (
        "convert B to the library of W",
        "make W a Dask array too, dask.array.from_array(W)",
    ),
    ("FullyConnected", "B"): ("convert B to the library of W", "convert B to the library of W"),
    ("Gradients + Gradients", "dX"): (
        "convert the other dX to the library of dX",
        "make dX a Dask array too, dask.array.from_array(dX)",
    ),
    ("Gradients + Gradients", "the other dX"): (
        "convert the other dX to the library of dX",
        "convert the other dX to the library of dX",
    ),
}


def test_the_mixtures_are_those_of_every_argument():
    assert list(MIXTURES) == [pair for pair in EACH_ARGUMENT if len(CALLS[pair[0]][1]) > 1]


@pytest.mark.only("array_api_strict", "dask.array", "torch", "jax.numpy", "cupy")
@pytest.mark.parametrize(("where", "argument"), list(MIXTURES))
def test_libraries_do_not_mix(backend, where, argument):
    function, shapes = CALLS[where]
    arrays = [zeros(*shape) if name == argument else backend.asarray(zeros(*shape)) for name, shape in shapes.items()]
    advice = MIXTURES[where, argument][backend.chunked]
    if advice is None:
        with nothing_computes(backend):
            function(*arrays)
        return
    own = f"an {backend.module}" if backend.module[0] == "a" else f"a {backend.module}"
    kinds = ", ".join(f"{name} is {'a numpy' if name == argument else own} array" for name in shapes)
    message = f"{kinds}: all arrays must come from one library; {advice}"
    assert_refused(backend, (function, arrays, TypeError, message), arrays)


@pytest.mark.only("array_api_strict", "torch")
@pytest.mark.parametrize(("where", "argument"), list(MIXTURES))
def test_devices_do_not_mix(backend, where, argument):
    function, shapes = CALLS[where]
    elsewhere = "meta" if backend.module == "torch" else backend.xp.Device("device1")
    arrays = {name: backend.asarray(zeros(*shape)) for name, shape in shapes.items()}
    function(*arrays.values())
    arrays[argument] = backend.xp.zeros(shapes[argument], dtype=backend.dtype("float64"), device=elsewhere)
    on = ", ".join(f"{name} is on {array.device}" for name, array in arrays.items())
    assert len({str(array.device) for array in arrays.values()}) == 2
    first = next(iter(shapes))
    message = f"{where}: {on}: move all arrays to the device of {first}"
    assert_refused(backend, (function, arrays, ValueError, message), arrays.values())


NAMED = "'dX', 'dW', 'dB'"
NEEDS = {
    # needs: (exception, message)
    ("dw",): (ValueError, f"needs has 'dw': the gradients are {NAMED}"),
    ("dX", "Y"): (ValueError, f"needs has 'Y': the gradients are {NAMED}"),
    (None,): (ValueError, f"needs has None: the gradients are {NAMED}"),
    "dW": (TypeError, "needs is 'dW': write a tuple of names, for example needs=('dW', 'dB')"),
    b"dW": (TypeError, "needs is b'dW': write a tuple of names, for example needs=('dW', 'dB')"),
    None: (TypeError, "needs is None: write a tuple of names, for example needs=('dW', 'dB')"),
    True: (TypeError, "needs is True: write a tuple of names, for example needs=('dW', 'dB')"),
}


@pytest.mark.parametrize("needs", list(NEEDS), ids=repr)
def test_other_needs_are_refused(backend, needs):
    arrays = [backend.asarray(zeros(*shape)) for shape in ((7, 4), (4, 3), (7, 3))]
    layer = fc.FullyConnected(arrays[1])
    for function in (
        lambda X, W, dY: fc.backward(X, W, dY, needs=needs),
        lambda X, W, dY: layer.backward(X, dY, needs=needs),
    ):
        assert_refused(backend, (function, arrays, *NEEDS[needs]), arrays)


@pytest.mark.parametrize("acc_dtype", ["float33", "int32", "bool", "complex64", "zeros", 3, ("float32",)], ids=repr)
def test_another_acc_dtype_is_refused(backend, acc_dtype):
    arrays = [backend.asarray(zeros(*shape)) for shape in ((7, 4), (4, 3), (7, 3))]
    layer = fc.FullyConnected(arrays[1])
    message = f"acc_dtype is {acc_dtype!r}: give a real floating dtype of {backend.module}, for example 'float32'"
    for function in (
        lambda X, W, dY: fc.backward(X, W, dY, acc_dtype=acc_dtype),
        lambda X, W, dY: layer.backward(X, dY, acc_dtype=acc_dtype),
        lambda X, W, dY: fc.grad_weight(X, dY, acc_dtype=acc_dtype),
        lambda X, W, dY: fc.grad_bias(dY, acc_dtype=acc_dtype),
    ):
        assert_refused(backend, (function, arrays, TypeError, message), arrays)


@pytest.mark.parametrize("wide", ["X", "W", "B", "dY"])
def test_mixed_float_dtypes_are_promoted_as_the_standard_does(backend, batch, wide):
    """Not refused: rule 4 of the design."""
    X, W, B, dY = (
        backend.asarray(batch[name].astype("float64" if name == wide else "float32")) for name in ("X", "W", "B", "dY")
    )
    layer = fc.FullyConnected(W, B)
    with nothing_computes(backend):
        results = {"Y": (fc.forward(X, W, B), layer(X)), "XW": (fc.forward(X, W),)}
        alone = fc.Gradients(fc.grad_input(dY, W), fc.grad_weight(X, dY), fc.grad_bias(dY))
        for gradients in (fc.backward(X, W, dY), layer.backward(X, dY), alone):
            for name, part in gradients._asdict().items():
                results[name] = (*results.get(name, ()), part)
    made_of = {"Y": "X W B", "XW": "X W", "dX": "dY W", "dW": "X dY", "dB": "dY"}
    for name, arrays in results.items():
        expected = "float64" if wide in made_of[name].split() else "float32"
        assert [namespace.dtype_name(array.dtype) for array in arrays] == [expected] * len(arrays)
        assert {namespace.to_numpy(array).dtype.name for array in arrays} == {expected}


UNKNOWN = "has an unknown number of features"
UNKNOWN_CASES = {
    # name: (what is called with arrays of unknown axes, message)
    "forward, features of X": (
        lambda a: fc.forward(a["X of unknown features"], a["W"]),
        f"forward nc,cs->ns: axis 1 of (8, ?): X {UNKNOWN}: call X.compute_chunk_sizes() first",
    ),
    "backward, features of X": (
        lambda a: fc.backward(a["X of unknown features"], a["W"], a["dY"]),
        f"backward: axis 1 of (8, ?): X {UNKNOWN}: call X.compute_chunk_sizes() first",
    ),
    "backward, features of dY": (
        lambda a: fc.backward(a["X"], a["W"], a["dY of unknown features"]),
        f"backward: axis 1 of (8, ?): dY {UNKNOWN}: call dY.compute_chunk_sizes() first",
    ),
    "grad_input, features of dY": (
        lambda a: fc.grad_input(a["dY of unknown features"], a["W"]),
        f"grad_input ns,cs->nc: axis 1 of (8, ?): dY {UNKNOWN}: call dY.compute_chunk_sizes() first",
    ),
    "grad_weight, features of dY": (
        lambda a: fc.grad_weight(a["X"], a["dY of unknown features"]),
        f"grad_weight nc,ns->cs: axis 1 of (8, ?): dY {UNKNOWN}: call dY.compute_chunk_sizes() first",
    ),
    "grad_bias, features of dY": (
        lambda a: fc.grad_bias(a["dY of unknown features"]),
        f"grad_bias ns->s: axis 1 of (8, ?): dY {UNKNOWN}: call dY.compute_chunk_sizes() first",
    ),
    "grad_bias, dY of rank 1": (
        lambda a: fc.grad_bias(a["dY of unknown rows"][:, 0]),
        f"grad_bias ns->s: axis 0 of (?,): dY {UNKNOWN}: call dY.compute_chunk_sizes() first",
    ),
    "forward, columns of W": (
        lambda a: fc.forward(a["X"], a["W of unknown columns"]),
        "W or B has blocks of unknown size: call compute_chunk_sizes() on it first; its shape is (4, nan)",
    ),
    "forward, columns of W beside B": (
        lambda a: fc.forward(a["X"], a["W of unknown columns"], a["B"]),
        "forward nc,cs->ns: axis s (output features): B has 3, W has an unknown number; B has shape (3,), W must be "
        "(C, S), has (4, ?): call W.compute_chunk_sizes() first",
    ),
    "forward, rows of W": (
        lambda a: fc.forward(a["X"], a["W of unknown rows"]),
        "forward nc,cs->ns: axis c (input features): X has 4, W has an unknown number; X has shape (8, 4), W has "
        "(?, 3); the features must be known: call W.compute_chunk_sizes() first",
    ),
    "backward, columns of W": (
        lambda a: fc.backward(a["X"], a["W of unknown columns"], a["dY"]),
        "backward: axis s (output features): dY has 3, W has an unknown number; dY has shape (8, 3), W has (4, ?); "
        "the features must be known: call W.compute_chunk_sizes() first",
    ),
    "forward, B": (
        lambda a: fc.forward(a["X"], a["W"], a["unknown B"]),
        "forward nc,cs->ns: axis s (output features): B has an unknown number, W has 3; B has shape (?,), W must be "
        "(C, S), has (4, 3): call B.compute_chunk_sizes() first",
    ),
    "a layer's B": (
        lambda a: fc.FullyConnected(a["W"], a["unknown B"]),
        "FullyConnected: axis s (output features): B has an unknown number, W has 3; B has shape (?,), W must be "
        "(C, S), has (4, 3): call B.compute_chunk_sizes() first",
    ),
    "a layer's W of rank 1": (
        lambda a: fc.FullyConnected(a["unknown B"]),
        f"FullyConnected: W must have shape (C, S), has (?,): {TWO_AXES}",
    ),
    "grad_weight, blocks of the batch": (
        lambda a: fc.grad_weight(a["X of unknown rows"], a["dY of unknown rows"]),
        "axis n0: X has 4 blocks, dY has 2, and their sizes are not all known: call compute_chunk_sizes() on the array "
        "whose shape has nan",
    ),
    "backward, blocks of the batch": (
        lambda a: fc.backward(a["X of unknown rows"], a["W"], a["dY"]),
        "axis n0: X has 4 blocks, dY has 2, and their sizes are not all known: call compute_chunk_sizes() on the array "
        "whose shape has nan",
    ),
    "Gradients, features of dX": (
        lambda a: added(a["X"], a["X of unknown features"]),
        "axis 1 of dX: one has 4, the other has an unknown number; dX has shape (8, 4) in one and (8, ?) in the other: "
        "add gradients of one layer and of batches with the same axes",
    ),
}


@pytest.mark.only("dask.array")
@pytest.mark.needs("unknown_chunks")
@pytest.mark.parametrize("case", list(UNKNOWN_CASES))
def test_what_can_not_be_compared_before_it_is_computed_is_refused(backend, case):
    arrays = {
        "X": backend.asarray(zeros(8, 4), chunks=(2, 4)),
        "W": backend.asarray(zeros(4, 3), chunks=(4, 3)),
        "B": backend.asarray(zeros(3), chunks=3),
        "dY": backend.asarray(zeros(8, 3), chunks=(4, 3)),
    }

    def unknown(array, axis):
        kept = backend.asarray(np.ones(array.shape[axis], bool), chunks=(array.chunks[axis],))
        return array[(slice(None),) * axis + (kept,)]

    arrays |= {f"{name} of unknown rows": unknown(arrays[name], 0) for name in ("X", "W", "dY")}
    arrays |= {f"{name} of unknown features": unknown(arrays[name], 1) for name in ("X", "dY")}
    arrays |= {"W of unknown columns": unknown(arrays["W"], 1), "unknown B": unknown(arrays["B"], 0)}
    call, message = UNKNOWN_CASES[case]
    assert_refused(backend, (call, (), ValueError, message), [arrays])


@pytest.mark.only("array_api_strict")
def test_results_stay_on_the_device_of_the_inputs(backend, batch):
    on_device = backend.xp.Device("device1")
    X, W, B = (backend.xp.asarray(batch[name], device=on_device) for name in ("X", "W", "B"))
    Y = fc.forward(X, W, B)
    assert Y.device == on_device
    grads = fc.backward(X, W, Y)
    assert {part.device for part in grads} == {on_device}
    long = backend.xp.ones((20000, 2), device=on_device)
    assert fc.grad_weight(long, long).device == on_device
    assert fc.grad_bias(long).device == on_device
