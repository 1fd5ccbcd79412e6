"""Input that does not fit: what is called, with which arrays, and the error that they get, the whole message."""

from __future__ import annotations

import numpy as np

import fc_arrayapi as fc


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


def in_code(argument):
    """Return the name that an argument has in code that a message advises."""
    return argument.replace("the other dX", "other_dX")


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
            f"{advice.replace('NAME', in_code(argument))}",
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
