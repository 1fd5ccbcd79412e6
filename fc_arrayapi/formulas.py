"""The formulas of the layer on checked arrays in memory.

N is the batch size, C the number of input features, S the number of output features.
``n`` in an equation stands for any number of leading axes, which are merged into one.

The gradient of an einsum with respect to one operand is the einsum of the output's
gradient with the other operands: that operand's indices and the output's are exchanged.
Both gradient equations follow from the forward one in this way.
"""

from __future__ import annotations

from typing import Any

from .accumulation import sum_products, sum_rows
from .equations import FORWARD, GRAD_INPUT, sum_dtypes
from .lowering import lower
from .namespace import Array, Namespace, cast

# A Y with as many elements as this gets its bias in place.
IN_PLACE_ELEMENTS = 2**16

_product, _product_with_transpose = lower(FORWARD), lower(GRAD_INPUT)


def forward(xp: Namespace, X: Array, W: Array, B: Array | None) -> Array:
    """Return Y = XW + B for a matrix X."""
    if B is None:
        return _product(xp, X, W)
    return _add_bias(xp, _product(xp, X, W if B.dtype == W.dtype else wide_weight(xp, X, W, B)), B)


def wide_weight(xp: Namespace, X: Array, W: Array, B: Array) -> Array:
    """Return W in the dtype of Y, so that a B that is wider than X and W is not added to what is rounded already."""
    return cast(xp, W, xp.result_type(X.dtype, W.dtype, B.dtype))


def grad_input(xp: Namespace, dY: Array, W: Array) -> Array:
    """Return dX for a matrix dY."""
    return _product_with_transpose(xp, dY, W)


def grad_weight(xp: Namespace, X: Array, dY: Array, acc_dtype: Any) -> Array:
    """Return dW for matrices X and dY."""
    dtype, acc_dtype = sum_dtypes(xp, (X.dtype, dY.dtype), acc_dtype)
    return cast(xp, sum_products(xp, X, dY, acc_dtype), dtype)


def grad_bias(xp: Namespace, dY: Array, acc_dtype: Any) -> Array:
    """Return dB for a matrix dY."""
    dtype, acc_dtype = sum_dtypes(xp, (dY.dtype,), acc_dtype)
    return cast(xp, sum_rows(xp, dY, acc_dtype), dtype)


def rows(xp: Namespace, array: Array) -> Array:
    """Merge the leading axes into one: (C,) and (A, B, C) become (1, C) and (A*B, C)."""
    if array.ndim == 2:
        return array
    n = 1
    for size in array.shape[:-1]:
        n *= size
    return xp.reshape(array, (n, array.shape[-1]))


def unrows(xp: Namespace, matrix: Array, like: Array) -> Array:
    """Give a result the leading axes of `like`."""
    return matrix if like.ndim == 2 else xp.reshape(matrix, (*like.shape[:-1], matrix.shape[-1]))


def _add_bias(xp: Namespace, Y: Array, B: Array) -> Array:
    """Add B to a fresh Y: in place where the library can, so that no second array of Y's size is held.

    A small Y is added to sooner out of place: half of it lies in the cache of another core.
    Immutable arrays (JAX) are rebound by ``+=``. torch.func.vmap over B alone can't write a
    batch into an unbatched Y and says so before it writes: then out of place.
    """
    n, s = Y.shape
    if n is None or n * s < IN_PLACE_ELEMENTS:
        return Y + B
    if Y.dtype == B.dtype or xp.result_type(Y.dtype, B.dtype) == Y.dtype:
        try:
            Y += B
        except RuntimeError:
            return Y + B
        return Y
    return Y + B
