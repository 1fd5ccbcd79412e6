"""Input that does not fit: what is called, with which arrays, the error that they get, and the facts of its message."""

from __future__ import annotations

import numpy as np

import fc_arrayapi as fc


def zeros(*shape, dtype="float64"):
    return np.zeros(shape, dtype)


# What a message advises, where a call alone does not tell it. Calls are written as in the standard; Backend.spelled
# writes them as the library's users do.
TURNED = ("(S, C)", "W.T", "FullyConnected.from_torch(linear)")
TWO_AXES = "xp.reshape(W, (C, S))"
EACH_COLUMN = "column of W"


def called(X, W, B):
    return fc.FullyConnected(W, B)(X)


def called_backward(X, W, dY):
    return fc.FullyConnected(W).backward(X, dY)


def einsum_gradients(X, W, dY):
    return fc.einsum_backward("nc,cs->ns", X, W, dY=dY)


def low_rank_gradients(X, U, V, dY):
    return fc.einsum_backward("nc,cr,rs->ns", X, U, V, dY=dY)


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
    "einsum_backward 'nc,cs->ns'": (einsum_gradients, {"operand 0": (7, 4), "operand 1": (4, 3), "dY": (7, 3)}),
    "FullyConnected": (fc.FullyConnected, {"W": (4, 3), "B": (3,)}),
    "Gradients + Gradients": (added, {"dX": (7, 4), "the other dX": (7, 4)}),
}
EACH_ARGUMENT = [(name, argument) for name, (_, shapes) in CALLS.items() for argument in shapes]


def in_code(argument):
    """Return the name that an argument has in code that a message advises."""
    return argument.removeprefix("the ").replace(" ", "_")


def with_one(where, argument, value):
    """Give the arguments that fit, and one instead that does not."""
    return [value(shape) if name == argument else zeros(*shape) for name, shape in CALLS[where][1].items()]


CASES = {
    # name: (function, arguments, exception, facts of the message)
    "X without features": (
        fc.forward,
        (zeros(), zeros(4, 3)),
        ValueError,
        ("forward nc,cs->ns: X", "(..., C)", "()", "xp.reshape(X, (1,))"),
    ),
    "W of rank 1": (
        fc.forward,
        (zeros(7, 4), zeros(4)),
        ValueError,
        (
            "forward nc,cs->ns: W",
            "(C, S)",
            "(4,)",
            "xp.reshape(W, (1, 4)) if C is 1",
            "xp.reshape(W, (4, 1)) if S is 1",
        ),
    ),
    "W of rank 3": (
        fc.forward,
        (zeros(7, 4), zeros(1, 4, 3)),
        ValueError,
        ("forward nc,cs->ns: W", "(C, S)", "(1, 4, 3)", TWO_AXES),
    ),
    "features differ": (
        fc.forward,
        (zeros(7, 4), zeros(5, 3)),
        ValueError,
        (
            "forward nc,cs->ns",
            "axis c",
            "X has 4",
            "W has 5",
            "X has shape (7, 4)",
            "(5, 3)",
            "X 5 features",
            "W 4 rows",
        ),
    ),
    "one feature does not broadcast": (
        fc.forward,
        (zeros(4, 1), zeros(3, 2)),
        ValueError,
        (
            "forward nc,cs->ns",
            "axis c",
            "X has 1",
            "W has 3",
            "X has shape (4, 1)",
            "(3, 2)",
            "X 3 features",
            "W 1 row",
        ),
    ),
    "W of one row does not broadcast": (
        fc.forward,
        (zeros(4, 3), zeros(1, 2)),
        ValueError,
        (
            "forward nc,cs->ns",
            "axis c",
            "X has 3",
            "W has 1",
            "X has shape (4, 3)",
            "(1, 2)",
            "X 1 feature",
            "W 3 rows",
        ),
    ),
    "W turned": (
        fc.forward,
        (zeros(7, 4), zeros(3, 4)),
        ValueError,
        ("forward nc,cs->ns", "axis c", "X has 4", "W has 3", "X has shape (7, 4)", "(3, 4)", *TURNED),
    ),
    "B as a row": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(1, 3)),
        ValueError,
        ("forward nc,cs->ns: B", "(S,) = (3,)", "(1, 3)", "xp.reshape(B, (3,))"),
    ),
    "B as a number": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros()),
        ValueError,
        ("forward nc,cs->ns: B", "(S,) = (3,)", "()", "xp.broadcast_to(B, (3,))"),
    ),
    "B of Y's shape": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(7, 3)),
        ValueError,
        ("forward nc,cs->ns: B", "(S,) = (3,)", "(7, 3)", EACH_COLUMN),
    ),
    "B of size 1 does not broadcast": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(1)),
        ValueError,
        ("forward nc,cs->ns", "axis s", "B has 1", "W has 3", "B has shape (1,)", "(4, 3)", "xp.broadcast_to(B, (3,))"),
    ),
    "integers": (
        fc.forward,
        (zeros(7, 4, dtype="int64"), zeros(4, 3)),
        TypeError,
        ("forward: X", "int64", "xp.astype(X, xp.float32)"),
    ),
    "a bias of integers": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(3, dtype="int64")),
        TypeError,
        ("forward: B", "int64", "xp.astype(B, xp.float32)"),
    ),
    "a weight of integers": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3, dtype="int64"), zeros(7, 3)),
        TypeError,
        ("backward: W", "int64", "xp.astype(W, xp.float32)"),
    ),
    "small integers": (
        fc.grad_weight,
        (zeros(7, 4), zeros(7, 3, dtype="int8")),
        TypeError,
        ("grad_weight: dY", "int8", "xp.astype(dY, xp.float32)"),
    ),
    "booleans": (
        fc.grad_bias,
        (zeros(7, 3, dtype="bool"),),
        TypeError,
        ("grad_bias: dY", "bool", "xp.astype(dY, xp.float32)"),
    ),
    "complex numbers": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3, dtype="complex128"), zeros(7, 3)),
        TypeError,
        ("backward: W", "complex128", "xp.real(W)", "xp.imag(W)"),
    ),
    "dY of other features": (
        fc.grad_input,
        (zeros(7, 5), zeros(4, 3)),
        ValueError,
        (
            "grad_input ns,cs->nc",
            "axis s",
            "dY has 5",
            "W has 3",
            "dY has shape (7, 5)",
            "(4, 3)",
            "dY 3 features",
            "W 5 columns",
        ),
    ),
    "dY and W turned": (
        fc.grad_input,
        (zeros(7, 3), zeros(3, 4)),
        ValueError,
        ("grad_input ns,cs->nc", "axis s", "dY has 3", "W has 4", "dY has shape (7, 3)", "(3, 4)", *TURNED),
    ),
    "dY of rank 0": (
        fc.grad_bias,
        (zeros(),),
        ValueError,
        ("grad_bias ns->s: dY", "(..., S)", "()", "xp.reshape(dY, (1,))"),
    ),
    "batches differ": (
        fc.grad_weight,
        (zeros(7, 4), zeros(6, 3)),
        ValueError,
        ("grad_weight nc,ns->cs", "axis n", "axis 0", "X has 7", "dY has 6", "X has shape (7, 4)", "(6, 3)", "(7, S)"),
    ),
    "a batch of one does not broadcast": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(1, 3)),
        ValueError,
        ("backward", "axis n", "axis 0", "X has 7", "dY has 1", "X has shape (7, 4)", "(1, 3)", "(7, S)"),
    ),
    "dY of rank 1 against one output": (
        fc.backward,
        (zeros(7, 4), zeros(4, 1), zeros(7)),
        ValueError,
        ("backward", "axis s", "dY has 7", "W has 1", "dY has shape (7,)", "(4, 1)", "xp.reshape(dY, (7, 1))"),
    ),
    "dY without the batch": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(3)),
        ValueError,
        ("backward", "X has shape (7, 4)", "(3,)", "leading axes", "(7, S)"),
    ),
    "inner batch axes differ": (
        fc.backward,
        (zeros(2, 5, 4), zeros(4, 3), zeros(2, 1, 3)),
        ValueError,
        ("backward", "axis n", "axis 1", "X has 5", "dY has 1", "X has shape (2, 5, 4)", "(2, 1, 3)", "(2, 5, S)"),
    ),
    "a layer's W of rank 1": (
        fc.FullyConnected,
        (zeros(4),),
        ValueError,
        ("FullyConnected: W", "(C, S)", "(4,)", "xp.reshape(W, (1, 4)) if C is 1", "xp.reshape(W, (4, 1)) if S is 1"),
    ),
    "a layer's B of another size": (
        fc.FullyConnected,
        (zeros(4, 3), zeros(4)),
        ValueError,
        ("FullyConnected", "axis s", "B has 4", "W has 3", "B has shape (4,)", "(4, 3)", EACH_COLUMN),
    ),
    "a layer of integers": (
        fc.FullyConnected,
        (zeros(4, 3, dtype="int32"),),
        TypeError,
        ("FullyConnected: W", "int32", "xp.astype(W, xp.float32)"),
    ),
    "W of rank 0": (
        fc.forward,
        (zeros(7, 4), zeros()),
        ValueError,
        ("forward nc,cs->ns: W", "(C, S)", "()", TWO_AXES),
    ),
    "a sample of other features": (
        fc.forward,
        (zeros(5), zeros(4, 3)),
        ValueError,
        ("forward nc,cs->ns", "axis c", "X has 5", "W has 4", "X has shape (5,)", "(4, 3)", "X 4 features", "W 5 rows"),
    ),
    "no features": (
        fc.forward,
        (zeros(7, 0), zeros(4, 3)),
        ValueError,
        (
            "forward nc,cs->ns",
            "axis c",
            "X has 0",
            "W has 4",
            "X has shape (7, 0)",
            "(4, 3)",
            "X 4 features",
            "W 0 rows",
        ),
    ),
    "B as a column": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(3, 1)),
        ValueError,
        ("forward nc,cs->ns: B", "(S,) = (3,)", "(3, 1)", "xp.reshape(B, (3,))"),
    ),
    "B as a number beside one output": (
        fc.forward,
        (zeros(7, 4), zeros(4, 1), zeros()),
        ValueError,
        ("forward nc,cs->ns: B", "(S,) = (1,)", "()", "xp.reshape(B, (1,))"),
    ),
    "B as a matrix of one number": (
        fc.forward,
        (zeros(7, 4), zeros(4, 3), zeros(1, 1)),
        ValueError,
        ("forward nc,cs->ns: B", "(S,) = (3,)", "(1, 1)", EACH_COLUMN),
    ),
    "B for each sample": (
        fc.forward,
        (zeros(7, 4), zeros(4, 1), zeros(7)),
        ValueError,
        ("forward nc,cs->ns", "axis s", "B has 7", "W has 1", "B has shape (7,)", "(4, 1)", EACH_COLUMN),
    ),
    "grad_input of rank 0": (
        fc.grad_input,
        (zeros(), zeros(4, 3)),
        ValueError,
        ("grad_input ns,cs->nc: dY", "(..., S)", "()", "xp.reshape(dY, (1,))"),
    ),
    "grad_input with W of rank 1": (
        fc.grad_input,
        (zeros(7, 3), zeros(3)),
        ValueError,
        (
            "grad_input ns,cs->nc: W",
            "(C, S)",
            "(3,)",
            "xp.reshape(W, (1, 3)) if C is 1",
            "xp.reshape(W, (3, 1)) if S is 1",
        ),
    ),
    "grad_input of rank 1 against one output": (
        fc.grad_input,
        (zeros(7), zeros(4, 1)),
        ValueError,
        (
            "grad_input ns,cs->nc",
            "axis s",
            "dY has 7",
            "W has 1",
            "dY has shape (7,)",
            "(4, 1)",
            "xp.reshape(dY, (7, 1))",
        ),
    ),
    "as many dY of rank 1 as input features": (
        fc.grad_input,
        (zeros(4), zeros(4, 1)),
        ValueError,
        (
            "grad_input ns,cs->nc",
            "axis s",
            "dY has 4",
            "W has 1",
            "dY has shape (4,)",
            "(4, 1)",
            "xp.reshape(dY, (4, 1))",
        ),
    ),
    "one output feature does not broadcast": (
        fc.grad_input,
        (zeros(7, 1), zeros(4, 3)),
        ValueError,
        (
            "grad_input ns,cs->nc",
            "axis s",
            "dY has 1",
            "W has 3",
            "dY has shape (7, 1)",
            "(4, 3)",
            "dY 3 features",
            "W 1 column",
        ),
    ),
    "W of one column does not broadcast": (
        fc.grad_input,
        (zeros(7, 3), zeros(4, 1)),
        ValueError,
        (
            "grad_input ns,cs->nc",
            "axis s",
            "dY has 3",
            "W has 1",
            "dY has shape (7, 3)",
            "(4, 1)",
            "dY 1 feature",
            "W 3 columns",
        ),
    ),
    "grad_weight with X of rank 0": (
        fc.grad_weight,
        (zeros(), zeros(7, 3)),
        ValueError,
        ("grad_weight nc,ns->cs: X", "(..., C)", "()", "xp.reshape(X, (1,))"),
    ),
    "grad_weight with dY of rank 0": (
        fc.grad_weight,
        (zeros(7, 4), zeros()),
        ValueError,
        ("grad_weight nc,ns->cs: dY", "(..., S)", "()", "xp.reshape(dY, (1,))"),
    ),
    "grad_weight with dY of rank 1": (
        fc.grad_weight,
        (zeros(7, 4), zeros(7)),
        ValueError,
        (
            "grad_weight nc,ns->cs",
            "X has shape (7, 4)",
            "(7,)",
            "leading axes",
            "(7, S)",
            "xp.reshape(dY, (7, 1)) if S is 1",
        ),
    ),
    "grad_weight with a sample and a batch": (
        fc.grad_weight,
        (zeros(4), zeros(1, 3)),
        ValueError,
        ("grad_weight nc,ns->cs", "X has shape (4,)", "(1, 3)", "leading axes", "(S,)"),
    ),
    "grad_weight with merged batch axes": (
        fc.grad_weight,
        (zeros(2, 5, 4), zeros(10, 3)),
        ValueError,
        ("grad_weight nc,ns->cs", "X has shape (2, 5, 4)", "(10, 3)", "leading axes", "(2, 5, S)"),
    ),
    "grad_weight with a batch of one": (
        fc.grad_weight,
        (zeros(1, 4), zeros(7, 3)),
        ValueError,
        ("grad_weight nc,ns->cs", "axis n", "axis 0", "X has 1", "dY has 7", "X has shape (1, 4)", "(7, 3)", "(1, S)"),
    ),
    "grad_weight with an empty batch": (
        fc.grad_weight,
        (zeros(7, 4), zeros(0, 3)),
        ValueError,
        ("grad_weight nc,ns->cs", "axis n", "axis 0", "X has 7", "dY has 0", "X has shape (7, 4)", "(0, 3)", "(7, S)"),
    ),
    "backward with X of rank 0": (
        fc.backward,
        (zeros(), zeros(4, 3), zeros(7, 3)),
        ValueError,
        ("backward: X", "(..., C)", "()", "xp.reshape(X, (1,))"),
    ),
    "backward with W of rank 1": (
        fc.backward,
        (zeros(7, 4), zeros(4), zeros(7)),
        ValueError,
        ("backward: W", "(C, S)", "(4,)", "xp.reshape(W, (1, 4)) if C is 1", "xp.reshape(W, (4, 1)) if S is 1"),
    ),
    "backward with dY of rank 0": (
        fc.backward,
        (zeros(4), zeros(4, 1), zeros()),
        ValueError,
        ("backward: dY", "(..., S)", "()", "xp.reshape(dY, (1,))"),
    ),
    "backward with other input features": (
        fc.backward,
        (zeros(7, 1), zeros(4, 3), zeros(7, 3)),
        ValueError,
        ("backward", "axis c", "X has 1", "W has 4", "X has shape (7, 1)", "(4, 3)", "X 4 features", "W 1 row"),
    ),
    "backward with W turned": (
        fc.backward,
        (zeros(7, 4), zeros(3, 4), zeros(7, 3)),
        ValueError,
        ("backward", "axis c", "X has 4", "W has 3", "X has shape (7, 4)", "(3, 4)", *TURNED, "X and dY are exchanged"),
    ),
    "backward with X and dY exchanged": (
        fc.backward,
        (zeros(7, 3), zeros(4, 3), zeros(7, 4)),
        ValueError,
        ("backward", "axis c", "X has 3", "W has 4", "X has shape (7, 3)", "(4, 3)", *TURNED, "X and dY are exchanged"),
    ),
    "a layer's X and dY exchanged": (
        called_backward,
        (zeros(2, 7, 3), zeros(4, 3), zeros(2, 7, 4)),
        ValueError,
        ("backward", "axis c", "X has 3", "W has 4", "X has shape (2, 7, 3)", "(4, 3)", *TURNED, "exchanged"),
    ),
    "backward with dY for X": (
        fc.backward,
        (zeros(7, 3), zeros(4, 3), zeros(7, 3)),
        ValueError,
        ("backward", "axis c", "X has 3", "W has 4", "X has shape (7, 3)", "(4, 3)", "X 4 features", "W 3 rows"),
    ),
    "backward with X for dY": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(7, 4)),
        ValueError,
        ("backward", "axis s", "dY has 4", "W has 3", "dY has shape (7, 4)", "(4, 3)", "dY 3 features", "W 4 columns"),
    ),
    "backward with one output feature": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(7, 1)),
        ValueError,
        ("backward", "axis s", "dY has 1", "W has 3", "dY has shape (7, 1)", "(4, 3)", "dY 3 features", "W 1 column"),
    ),
    "dY of rank 1 against several outputs": (
        fc.backward,
        (zeros(7, 4), zeros(4, 3), zeros(7)),
        ValueError,
        ("backward", "axis s", "dY has 7", "W has 3", "dY has shape (7,)", "(4, 3)", "dY 3 features", "W 7 columns"),
    ),
    "dY of rank 1 against as many outputs": (
        fc.backward,
        (zeros(7, 4), zeros(4, 7), zeros(7)),
        ValueError,
        ("backward", "X has shape (7, 4)", "(7,)", "leading axes", "(7, S)", "xp.reshape(dY, (7, 1)) if S is 1"),
    ),
    "dY of rank 1 for one sample": (
        fc.backward,
        (zeros(1, 4), zeros(4, 1), zeros(1)),
        ValueError,
        ("backward", "X has shape (1, 4)", "(1,)", "leading axes", "(1, S)", "xp.reshape(dY, (1, 1)) if S is 1"),
    ),
    "as many samples as input features": (
        fc.backward,
        (zeros(4, 4), zeros(4, 1), zeros(4)),
        ValueError,
        ("backward", "axis s", "dY has 4", "W has 1", "dY has shape (4,)", "(4, 1)", "xp.reshape(dY, (4, 1))"),
    ),
    "dY of the batch axes alone": (
        fc.backward,
        (zeros(2, 5, 4), zeros(4, 1), zeros(2, 5)),
        ValueError,
        ("backward", "axis s", "dY has 5", "W has 1", "dY has shape (2, 5)", "(4, 1)", "xp.reshape(dY, (2, 5, 1))"),
    ),
    "X of one row does not broadcast": (
        fc.backward,
        (zeros(1, 4), zeros(4, 3), zeros(7, 3)),
        ValueError,
        ("backward", "axis n", "axis 0", "X has 1", "dY has 7", "X has shape (1, 4)", "(7, 3)", "(1, S)"),
    ),
    "a layer's W of rank 0": (
        fc.FullyConnected,
        (zeros(),),
        ValueError,
        ("FullyConnected: W", "(C, S)", "()", TWO_AXES),
    ),
    "a layer's W of rank 3": (
        fc.FullyConnected,
        (zeros(4, 3, 1),),
        ValueError,
        ("FullyConnected: W", "(C, S)", "(4, 3, 1)", TWO_AXES),
    ),
    "a layer's B as a row": (
        fc.FullyConnected,
        (zeros(4, 3), zeros(1, 3)),
        ValueError,
        ("FullyConnected: B", "(S,) = (3,)", "(1, 3)", "xp.reshape(B, (3,))"),
    ),
    "a layer's B as a number": (
        fc.FullyConnected,
        (zeros(4, 3), zeros()),
        ValueError,
        ("FullyConnected: B", "(S,) = (3,)", "()", "xp.broadcast_to(B, (3,))"),
    ),
    "a layer's B of size 1": (
        fc.FullyConnected,
        (zeros(4, 3), zeros(1)),
        ValueError,
        ("FullyConnected", "axis s", "B has 1", "W has 3", "B has shape (1,)", "(4, 3)", "xp.broadcast_to(B, (3,))"),
    ),
    "a layer called with other features": (
        called,
        (zeros(7, 5), zeros(4, 3), zeros(3)),
        ValueError,
        (
            "forward nc,cs->ns",
            "axis c",
            "X has 5",
            "W has 4",
            "X has shape (7, 5)",
            "(4, 3)",
            "X 4 features",
            "W 5 rows",
        ),
    ),
    "a layer called with a number": (
        called,
        (zeros(), zeros(4, 3), zeros(3)),
        ValueError,
        ("forward nc,cs->ns: X", "(..., C)", "()", "xp.reshape(X, (1,))"),
    ),
    "a layer called with integers": (
        called,
        (zeros(7, 4, dtype="int16"), zeros(4, 3), zeros(3)),
        TypeError,
        ("forward: X", "int16", "xp.astype(X, xp.float32)"),
    ),
    "a layer's dY of rank 1": (
        called_backward,
        (zeros(7, 4), zeros(4, 1), zeros(7)),
        ValueError,
        ("backward", "axis s", "dY has 7", "W has 1", "dY has shape (7,)", "(4, 1)", "xp.reshape(dY, (7, 1))"),
    ),
    "a layer's dY of another batch": (
        called_backward,
        (zeros(7, 4), zeros(4, 3), zeros(6, 3)),
        ValueError,
        ("backward", "axis n", "axis 0", "X has 7", "dY has 6", "X has shape (7, 4)", "(6, 3)", "(7, S)"),
    ),
    "einsum_backward with a dY of size 1": (
        einsum_gradients,
        (zeros(7, 4), zeros(4, 3), zeros(7, 1)),
        ValueError,
        ("einsum_backward 'nc,cs->ns'", "axis 1", "index s", "dY has 1", "operand 1 has 3", "(7, 1)", "(7, 3)"),
    ),
    "einsum_backward with a dY of another batch": (
        low_rank_gradients,
        (zeros(7, 4), zeros(4, 2), zeros(2, 3), zeros(6, 3)),
        ValueError,
        ("einsum_backward 'nc,cr,rs->ns'", "axis 0", "index n", "dY has 6", "operand 0 has 7", "(6, 3)", "(7, 3)"),
    ),
    "einsum_backward with a dY of another rank": (
        einsum_gradients,
        (zeros(7, 4), zeros(4, 1), zeros(7)),
        ValueError,
        ("einsum_backward 'nc,cs->ns'", "dY has 1 axis", "2", "(7,)", "(7, 1)", "xp.reshape(dY, (7, 1))"),
    ),
    "einsum_backward with operands that differ": (
        einsum_gradients,
        (zeros(7, 4), zeros(5, 3), zeros(7, 3)),
        ValueError,
        ("einsum 'nc,cs->ns'", "index c", "operand 0 has 4 (axis 1)", "operand 1 has 5 (axis 0)"),
    ),
    "dX of other features": (
        added,
        (zeros(7, 4), zeros(7, 1)),
        ValueError,
        ("axis 1 of dX", "one has 4", "other has 1", "dX has shape (7, 4)", "(7, 1)"),
    ),
    "dX of another rank": (
        added,
        (zeros(7, 4), zeros(1, 7, 4)),
        ValueError,
        ("dX has shape (7, 4)", "(1, 7, 4)"),
    ),
    "dX of one sample": (
        added,
        (zeros(4), zeros(4)),
        ValueError,
        ("dX has shape (4,)", "batch axis", "(1, C)"),
    ),
    "dW of one row": (
        added_weights,
        (zeros(4, 3), zeros(1, 3)),
        ValueError,
        ("axis 0 of dW", "one has 4", "other has 1", "dW has shape (4, 3)", "(1, 3)"),
    ),
    "dB of size 1": (
        added_biases,
        (zeros(3), zeros(1)),
        ValueError,
        ("axis 0 of dB", "one has 3", "other has 1", "dB has shape (3,)", "(1,)"),
    ),
}


# The rows whose message says that an axis of size 1 does not broadcast.
BROADCASTS = {
    "one feature does not broadcast",
    "W of one row does not broadcast",
    "B as a number",
    "B of size 1 does not broadcast",
    "one output feature does not broadcast",
    "W of one column does not broadcast",
    "backward with other input features",
    "backward with one output feature",
    "a layer's B as a number",
    "a layer's B of size 1",
    "einsum_backward with a dY of size 1",
}


def dtype_cases(dtype, shown, *calls):
    """Make a row for every argument of every function, which alone has another dtype."""
    return {
        f"{where}, {argument}: {shown}": (
            CALLS[where][0],
            with_one(where, argument, lambda shape: np.zeros(shape, dtype)),
            TypeError,
            (f"{where}: {argument}", shown, *(call.replace("NAME", in_code(argument)) for call in calls)),
        )
        for where, argument in EACH_ARGUMENT
    }


CONVERT = "xp.astype(NAME, xp.float32)"
CASES |= {
    name: row
    for dtype, *calls in (
        ("int64", CONVERT),
        ("uint8", CONVERT),
        ("bool", CONVERT),
        ("complex64", "xp.real(NAME)", "xp.imag(NAME)"),
    )
    for name, row in dtype_cases(dtype, dtype, *calls).items()
}
# Dtypes that NumPy alone has.
NUMPY_CASES = {
    name: row
    for dtype, shown, call in (
        ("object", "object", CONVERT),
        ("U1", "str32", CONVERT),
        ("datetime64[s]", "datetime64[s]", CONVERT),
        ([("a", "f8"), ("b", "i4")], "void96", "NAME['a']"),
    )
    for name, row in dtype_cases(dtype, shown, call).items()
}
