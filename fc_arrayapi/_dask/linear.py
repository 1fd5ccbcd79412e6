"""The layer on Dask: which blocks are contracted with which. Each block goes through the layer in memory.

The layer in memory checks every block again: lengths of unknown blocks can be compared only there. Arrays of two
dtypes are cast before, so that `forward` and `backward` in one pass share the cast blocks of X.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from .._arrays import namespace
from .._arrays.namespace import Array, Namespace, is_lazy
from .._math import checks
from .._math import linear as in_memory
from .._math.equations import AXES, result_dtype, sum_dtypes
from .._math.sample_checks import check_sample_weight
from . import blockwise
from .blocks import has_unknown_blocks, lift
from .blockwise import Output
from .unify_chunks import Operand, align, warn_of_wide_blocks, whole_features


def axes(name: str, batch_axes: int) -> tuple[str, ...]:
    """Return the index of each axis of an array of the layer: ``("n0", "n1", "c")`` for a stack of batches X."""
    n = tuple(f"n{axis}" for axis in range(batch_axes))
    return tuple(label for axis in AXES[name] for label in (n if axis == "n" else axis))


def operand(name: str, array: Array, batch_axes: int) -> Operand:
    """Return an array of the layer with the index of each of its axes."""
    return Operand(name, array, axes(name, batch_axes))


def promoted(xp: Namespace, operands: Sequence[Operand]) -> list[Operand]:
    """Cast operands to the dtype of their product: by Dask, which names equal casts alike and makes them once."""
    dtype, _ = sum_dtypes(xp, tuple(x.array.dtype for x in operands))
    return [replace(x, array=namespace.cast(xp, x.array, dtype)) for x in operands]


def forward(X: Array, W: Array, B: Array | None) -> Array:
    """Return Y, with the batch chunks of X."""
    xp = checks.check_forward(X, W, B)
    n = X.ndim - 1
    Y = _forward(xp, X, W, B, n)
    warn_of_wide_blocks("forward", operand("Y", Y, n), operand("X", X, n))
    return Y


def _forward(xp: Namespace, X: Array, W: Array, B: Array | None, n: int) -> Array:
    x, w = whole_features("forward", [operand("X", X, n), operand("W", lift("W", W, X), n)])
    if B is None:
        return _product(in_memory.forward, promoted(xp, [x, w]), axes("Y", n))
    x, w, bias = promoted(xp, [x, w, operand("B", lift("B", B, X), n)])
    if x.array.numblocks[-1] == 1:
        (Y,) = blockwise.contract(in_memory.forward, [x, w, bias], Output(axes("Y", n)))
        return Y
    product = operand("Y", _product(in_memory.forward, [x, w], axes("Y", n)), n)
    (Y,) = blockwise.contract(operator.add, [product, bias], Output(axes("Y", n)))
    return Y


def grad_input(dY: Array, W: Array) -> Array:
    """Return dX, with the batch chunks of dY."""
    checks.check_grad_input(dY, W)
    dX, n = _grad_input("grad_input", dY, W), dY.ndim - 1
    warn_of_wide_blocks("grad_input", operand("dX", dX, n), operand("dY", dY, n))
    return dX


def grad_weight(X: Array, dY: Array, sample_weight: Array | None, *, acc_dtype: Any) -> Array:
    """Return dW, summed over the blocks of the batch."""
    xp, n = checks.check_grad_weight(X, dY), X.ndim - 1
    weights = _weights("grad_weight", sample_weight, "X", X)
    operands = whole_features("grad_weight", [operand("X", X, n), operand("dY", dY, n)])
    return _grad_weight(xp, operands, checks.check_acc_dtype(xp, acc_dtype), weights)


def grad_bias(dY: Array, sample_weight: Array | None, *, acc_dtype: Any) -> Array:
    """Return dB, summed over the blocks of the batch."""
    xp = checks.check_grad_bias(dY)
    weights = _weights("grad_bias", sample_weight, "dY", dY)
    return _grad_bias("grad_bias", xp, dY, checks.check_acc_dtype(xp, acc_dtype), weights)


def backward(
    X: Array, W: Array, dY: Array, needs: Sequence[str], acc_dtype: Any, sample_weight: Array | None = None
) -> list[Array | None]:
    """Return dX, dW and dB. Where both dW and dB are needed, the same tasks make them."""
    xp, n = checks.check_backward(X, W, dY), X.ndim - 1
    acc_dtype = checks.check_acc_dtype(xp, acc_dtype)
    weights = _weights("backward", sample_weight, "X", X)
    operands = align([operand("X", X, n), operand("dY", dY, n)])
    X, dY = (x.array for x in operands)
    compared = dY
    if has_unknown_blocks(X, dY):  # dX and dB alone do not depend on X
        first_feature = replace(operands[0], array=X[..., :1])
        (compared,) = blockwise.contract(_checked_dY, [first_feature, operands[1]], Output(axes("dY", n)))
    where = "backward"  # the same in each warning about dY's features, so that it is printed once
    dX = _grad_input(where, compared, W) if "dX" in needs else None
    if dX is not None and weights:
        (dX,) = blockwise.contract(_weigh, [operand("dX", dX, n), *weights], Output(axes("dX", n)))
    if "dW" not in needs:
        return [dX, None, _grad_bias(where, xp, compared, acc_dtype, weights) if "dB" in needs else None]
    operands = whole_features(where, operands)
    if "dB" not in needs:
        return [dX, _grad_weight(xp, operands, acc_dtype, weights), None]
    if operands[0].array.numblocks[-1] > 1:  # dY would be summed again for each block along c
        dB = _grad_bias(where, xp, compared, acc_dtype, weights)
        return [dX, _grad_weight(xp, operands, acc_dtype, weights), dB]
    arrays = {"X": X, "dY": dY}
    term = partial(in_memory.grad_weight_and_bias, acc_dtype=sum_dtypes(xp, (X.dtype, dY.dtype), acc_dtype)[1])
    outputs = [Output(axes(result, n), result_dtype(xp, result, arrays)) for result in ("dW", "dB")]
    return [dX, *blockwise.contract(term, [*promoted(xp, operands), *weights], *outputs)]


def _grad_input(where: str, dY: Array, W: Array) -> Array:
    n = dY.ndim - 1
    operands = whole_features(where, [operand("dY", dY, n), operand("W", lift("W", W, dY), n)])
    return _product(in_memory.grad_input, promoted(namespace.of(dY), operands), axes("dX", n))


def _weights(where: str, sample_weight: Array | None, name: str, array: Array) -> list[Operand]:
    """Return the operand of the weights, if there are any; NumPy's become one block."""
    if sample_weight is None:
        return []
    checks.check_arrays(where, (name, "sample_weight"), (array, sample_weight), lifted=("sample_weight",))
    check_sample_weight(where, array, sample_weight, name)
    return [weights_of(sample_weight, operand(name, array, array.ndim - 1))]


def weights_of(sample_weight: Array, samples: Operand) -> Operand:
    """Return the operand of the weights of samples, which share their leading indices."""
    if not is_lazy(sample_weight):
        sample_weight = lift("sample_weight", sample_weight, samples.array)
    return Operand("sample_weight", sample_weight, samples.index[: sample_weight.ndim])


def _weigh(dX: Array, sample_weight: Array) -> Array:
    """Multiply the rows of a block of dX by their weights; the block may have other uses, so it is not written to."""
    xp = namespace.of(dX)
    weights = in_memory.column_of_weights(xp, sample_weight, dX)
    return xp.reshape(namespace.cast(xp, weights, dX.dtype) * in_memory.rows(xp, dX), dX.shape)


def _grad_weight(xp: Namespace, operands: Sequence[Operand], acc_dtype: Any, weights: Sequence[Operand]) -> Array:
    dtype, acc_dtype = sum_dtypes(xp, tuple(x.array.dtype for x in operands), acc_dtype)
    term = partial(in_memory.grad_weight, acc_dtype=acc_dtype, rounded=False)
    (dW,) = blockwise.contract(term, [*promoted(xp, operands), *weights], Output(axes("dW", 0), dtype))
    return dW


def _grad_bias(where: str, xp: Namespace, dY: Array, acc_dtype: Any, weights: Sequence[Operand]) -> Array:
    dtype, acc_dtype = sum_dtypes(xp, (dY.dtype,), acc_dtype)
    term = partial(in_memory.grad_bias, acc_dtype=acc_dtype, rounded=False)
    operands = whole_features(where, [operand("dY", dY, dY.ndim - 1)])
    (dB,) = blockwise.contract(term, [*operands, *weights], Output(axes("dB", 0), dtype))
    return dB


def _product(func: Callable[..., Array], operands: list[Operand], output: tuple[str, ...]) -> Array:
    """Multiply blocks. If the summed features have several blocks, their products are added like any other sum."""
    first, second = (x.array for x in operands)
    dtype, acc_dtype = sum_dtypes(namespace.of(first), (first.dtype, second.dtype))
    if dtype != acc_dtype and first.numblocks[-1] > 1:
        func = partial(blockwise.in_dtype, func, acc_dtype)
    (product,) = blockwise.contract(func, operands, Output(output, dtype))
    return product


def _checked_dY(X: Array, dY: Array) -> Array:
    """Return one block of dY after checking that the block of X has as many rows."""
    checks.check_batch("backward", X, dY)
    return dY
