"""The layer on chunked arrays: what is contracted over which blocks, and what is done with one block.

The functions of a block are given to Dask, travel to other processes, and check each block
again: only there can the lengths of unknown blocks be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from . import alignment, chunked, formulas, namespace, validation
from .accumulation import sum_dtypes, sum_products, sum_rows
from .namespace import Array, Namespace


def forward(X: Array, W: Array, B: Array | None) -> Array:
    """Return Y, with the batch chunks of X."""
    n = _batch_index(X)
    names, indices = ("X", "W", "B"), [(*n, "c"), ("c", "s"), ("s",)]
    operands = alignment.whole_features("forward", names, [X, alignment.lift("W", W, X)], indices)
    if B is None:
        return _product(forward_of_block, names[:2], operands, indices[:2], (*n, "s"))
    B = alignment.lift("B", B, X)
    if operands[0].numblocks[-1] == 1:
        return chunked.contract(forward_of_block, names, [*operands, B], indices, (*n, "s"))
    operands[1] = formulas.wide_weight(namespace.of(X), operands[0], operands[1], B)
    Y = _product(forward_of_block, names[:2], operands, indices[:2], (*n, "s"))
    return chunked.contract(_add_bias_of_block, ("Y", "B"), [Y, B], [(*n, "s"), ("s",)], (*n, "s"))


def backward(xp: Namespace, X: Array, W: Array, dY: Array, wanted: Sequence[str], acc_dtype: Any) -> list[Array | None]:
    """Return dX, dW and dB. Where both dW and dB are wanted, the same tasks make them."""
    n = _batch_index(X)
    names, indices = ("X", "dY"), [(*n, "c"), (*n, "s")]
    X, dY = alignment.align(names, (X, dY), indices)
    compared = dY
    if alignment.has_unknown_blocks(X, dY):  # dX and dB alone would not look at X
        compared = chunked.contract(_dY_of_block, names, [X[..., :1], dY], indices, indices[1])
    where = "backward"  # so that what is said of dY's features is said in the same words, which are printed once
    dX = grad_input(compared, W, where) if "dX" in wanted else None
    if "dW" not in wanted:
        return [dX, None, grad_bias(xp, compared, acc_dtype, where) if "dB" in wanted else None]
    operands = alignment.whole_features(where, names, [X, dY], indices)
    if "dB" not in wanted:
        return [dX, _weight_sum(xp, operands, indices, acc_dtype), None]
    if operands[0].numblocks[-1] > 1:  # dY would be summed once for each block along c
        return [dX, _weight_sum(xp, operands, indices, acc_dtype), grad_bias(xp, compared, acc_dtype, where)]
    dtypes = [sum_dtypes(xp, dtypes)[0] for dtypes in ((X.dtype, dY.dtype), (dY.dtype,))]
    term = partial(_sums_of_block, acc_dtype=sum_dtypes(xp, (X.dtype, dY.dtype), acc_dtype)[1])
    return [dX, *chunked.contract_together(term, names, operands, indices, [("c", "s"), ("s",)], dtypes)]


def grad_input(dY: Array, W: Array, where: str = "grad_input") -> Array:
    """Return dX, with the batch chunks of dY."""
    n = _batch_index(dY)
    names, indices = ("dY", "W"), [(*n, "s"), ("c", "s")]
    operands = alignment.whole_features(where, names, [dY, alignment.lift("W", W, dY)], indices)
    return _product(_grad_input_of_block, names, operands, indices, (*n, "c"))


def grad_weight(xp: Namespace, X: Array, dY: Array, acc_dtype: Any) -> Array:
    """Return dW, summed over the blocks of the batch."""
    n = _batch_index(X)
    indices = [(*n, "c"), (*n, "s")]
    operands = alignment.whole_features("grad_weight", ("X", "dY"), [X, dY], indices)
    return _weight_sum(xp, operands, indices, acc_dtype)


def grad_bias(xp: Namespace, dY: Array, acc_dtype: Any, where: str = "grad_bias") -> Array:
    """Return dB, summed over the blocks of the batch."""
    indices = [(*_batch_index(dY), "s")]
    dtype, acc_dtype = sum_dtypes(xp, (dY.dtype,), acc_dtype)
    operands = alignment.whole_features(where, ("dY",), [dY], indices)
    return chunked.contract(
        partial(_bias_of_block, acc_dtype=acc_dtype), ("dY",), operands, indices, ("s",), dtype=dtype
    )


def forward_of_block(X: Array, W: Array, B: Array | None = None) -> Array:
    """Return one block of Y, or of the product of one block of C."""
    xp = validation.check_forward(X, W, B)
    return formulas.unrows(xp, formulas.forward(xp, formulas.rows(xp, X), W, B), X)


def _product(
    func: Callable[..., Array], names: Sequence[str], operands: list[Array], indices: Any, output: tuple[str, ...]
) -> Array:
    """Multiply blocks; where the summed features are in several blocks, their products are added as any sum is."""
    dtype, acc_dtype = sum_dtypes(namespace.of(operands[0]), (operands[0].dtype, operands[1].dtype))
    if dtype != acc_dtype and operands[0].numblocks[-1] > 1:
        func = partial(_product_of_block, func, acc_dtype)
    return chunked.contract(func, names, operands, indices, output, dtype=dtype)


def _weight_sum(xp: Namespace, operands: list[Array], indices: Any, acc_dtype: Any) -> Array:
    dtype, acc_dtype = sum_dtypes(xp, tuple(array.dtype for array in operands), acc_dtype)
    term = partial(_weight_of_block, acc_dtype=acc_dtype)
    return chunked.contract(term, ("X", "dY"), operands, indices, ("c", "s"), dtype=dtype)


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


def _batch_index(array: Array) -> tuple[str, ...]:
    """Name the leading axes of a chunked array."""
    return tuple(f"n{axis}" for axis in range(array.ndim - 1))
