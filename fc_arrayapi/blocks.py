"""The layer on chunked arrays: what is contracted over which blocks, and what is done with one block.

The functions of a block are given to Dask, travel to other processes, and check each block
again: only there can the lengths of unknown blocks be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from . import chunked, formulas, namespace, validation
from .accumulation import sum_products, sum_rows
from .alignment import Operand, align, has_unknown_blocks, lift, whole_features
from .chunked import Output
from .equations import AXES, result_dtype, sum_dtypes
from .namespace import Array, Namespace


def axes(name: str, batch_axes: int) -> tuple[str, ...]:
    """Return the index of each axis of an array of the layer: ``("n0", "n1", "c")`` for a stack of batches X."""
    n = tuple(f"n{axis}" for axis in range(batch_axes))
    return tuple(label for axis in AXES[name] for label in (n if axis == "n" else axis))


def operand(name: str, array: Array, batch_axes: int) -> Operand:
    """Return an array of the layer with the index of each of its axes."""
    return Operand(name, array, axes(name, batch_axes))


def forward(X: Array, W: Array, B: Array | None) -> Array:
    """Return Y, with the batch chunks of X."""
    n = X.ndim - 1
    operands = whole_features("forward", [operand("X", X, n), operand("W", lift("W", W, X), n)])
    if B is None:
        return _product(forward_of_block, operands, axes("Y", n))
    bias = operand("B", lift("B", B, X), n)
    x, w = operands
    if x.array.numblocks[-1] == 1:
        (Y,) = chunked.contract(forward_of_block, [x, w, bias], Output(axes("Y", n)))
        return Y
    w = replace(w, array=formulas.wide_weight(namespace.of(X), x.array, w.array, bias.array))
    product = operand("Y", _product(forward_of_block, [x, w], axes("Y", n)), n)
    (Y,) = chunked.contract(_add_bias_of_block, [product, bias], Output(axes("Y", n)))
    return Y


def backward(xp: Namespace, X: Array, W: Array, dY: Array, wanted: Sequence[str], acc_dtype: Any) -> list[Array | None]:
    """Return dX, dW and dB. Where both dW and dB are wanted, the same tasks make them."""
    n = X.ndim - 1
    operands = align([operand("X", X, n), operand("dY", dY, n)])
    X, dY = (x.array for x in operands)
    compared = dY
    if has_unknown_blocks(X, dY):  # dX and dB alone would not look at X
        first_feature = replace(operands[0], array=X[..., :1])
        (compared,) = chunked.contract(_dY_of_block, [first_feature, operands[1]], Output(axes("dY", n)))
    where = "backward"  # so that what is said of dY's features is said in the same words, which are printed once
    dX = grad_input(compared, W, where) if "dX" in wanted else None
    if "dW" not in wanted:
        return [dX, None, grad_bias(xp, compared, acc_dtype, where) if "dB" in wanted else None]
    operands = whole_features(where, operands)
    if "dB" not in wanted:
        return [dX, _weight_sum(xp, operands, acc_dtype), None]
    if operands[0].array.numblocks[-1] > 1:  # dY would be summed once for each block along c
        return [dX, _weight_sum(xp, operands, acc_dtype), grad_bias(xp, compared, acc_dtype, where)]
    arrays = {"X": X, "dY": dY}
    term = partial(_sums_of_block, acc_dtype=sum_dtypes(xp, (X.dtype, dY.dtype), acc_dtype)[1])
    outputs = [Output(axes(result, n), result_dtype(xp, result, arrays)) for result in ("dW", "dB")]
    return [dX, *chunked.contract(term, operands, *outputs)]


def grad_input(dY: Array, W: Array, where: str = "grad_input") -> Array:
    """Return dX, with the batch chunks of dY."""
    n = dY.ndim - 1
    operands = whole_features(where, [operand("dY", dY, n), operand("W", lift("W", W, dY), n)])
    return _product(_grad_input_of_block, operands, axes("dX", n))


def grad_weight(xp: Namespace, X: Array, dY: Array, acc_dtype: Any) -> Array:
    """Return dW, summed over the blocks of the batch."""
    n = X.ndim - 1
    return _weight_sum(xp, whole_features("grad_weight", [operand("X", X, n), operand("dY", dY, n)]), acc_dtype)


def grad_bias(xp: Namespace, dY: Array, acc_dtype: Any, where: str = "grad_bias") -> Array:
    """Return dB, summed over the blocks of the batch."""
    n = dY.ndim - 1
    dtype, acc_dtype = sum_dtypes(xp, (dY.dtype,), acc_dtype)
    term = partial(_bias_of_block, acc_dtype=acc_dtype)
    (dB,) = chunked.contract(term, whole_features(where, [operand("dY", dY, n)]), Output(axes("dB", n), dtype))
    return dB


def forward_of_block(X: Array, W: Array, B: Array | None = None) -> Array:
    """Return one block of Y, or of the product of one block of C."""
    xp = validation.check_forward(X, W, B)
    return formulas.unrows(xp, formulas.forward(xp, formulas.rows(xp, X), W, B), X)


def _product(func: Callable[..., Array], operands: list[Operand], output: tuple[str, ...]) -> Array:
    """Multiply blocks; where the summed features are in several blocks, their products are added as any sum is."""
    first, second = (x.array for x in operands)
    dtype, acc_dtype = sum_dtypes(namespace.of(first), (first.dtype, second.dtype))
    if dtype != acc_dtype and first.numblocks[-1] > 1:
        func = partial(_product_of_block, func, acc_dtype)
    (product,) = chunked.contract(func, operands, Output(output, dtype))
    return product


def _weight_sum(xp: Namespace, operands: Sequence[Operand], acc_dtype: Any) -> Array:
    dtype, acc_dtype = sum_dtypes(xp, tuple(x.array.dtype for x in operands), acc_dtype)
    (dW,) = chunked.contract(partial(_weight_of_block, acc_dtype=acc_dtype), operands, Output(axes("dW", 0), dtype))
    return dW


def _product_of_block(func: Callable[..., Array], dtype: Any, *blocks: Array) -> Array:
    """Return a product in the dtype in which several are added."""
    product = func(*blocks)
    return namespace.cast(namespace.of(product), product, dtype)


def _add_bias_of_block(Y: Array, B: Array) -> Array:
    return Y + B


def _grad_input_of_block(dY: Array, W: Array) -> Array:
    xp = validation.check_grad_input(dY, W)
    return formulas.unrows(xp, formulas.grad_input(xp, formulas.rows(xp, dY), W), dY)


def _dY_of_block(X: Array, dY: Array) -> Array:
    """Return one block of dY once it is known to have the rows of X's block."""
    validation.check_batch("backward", X, dY)
    return dY


def _weight_of_block(X: Array, dY: Array, acc_dtype: Any) -> Array:
    """Return one block's part of dW, still in `acc_dtype`."""
    xp = validation.check_grad_weight(X, dY)
    return sum_products(xp, formulas.rows(xp, X), formulas.rows(xp, dY), acc_dtype)


def _bias_of_block(dY: Array, acc_dtype: Any) -> Array:
    """Return one block's part of dB, still in `acc_dtype`."""
    xp = validation.check_grad_bias(dY)
    return sum_rows(xp, formulas.rows(xp, dY), acc_dtype)


def _sums_of_block(X: Array, dY: Array, acc_dtype: Any) -> tuple[Array, Array]:
    """Return one block's parts of dW and dB."""
    return _weight_of_block(X, dY, acc_dtype), _bias_of_block(dY, acc_dtype)
