"""The layer in memory: checked arguments, any number of leading axes. Dask calls these functions on its blocks.

Leading axes are merged into one before a product and restored after it, so each formula is a product of two matrices.
For a Dask batch the answer is NotImplemented.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from .._arrays.namespace import Array, Namespace, cast, is_lazy, own_dtypes
from . import fits
from .checks import (
    check_acc_dtype,
    check_arrays,
    check_backward,
    check_forward,
    check_grad_bias,
    check_grad_input,
    check_grad_weight,
)
from .costs import Cost, Sized, costs, rows_and_features
from .equations import FORWARD, GRAD_INPUT, GRAD_WEIGHT, sum_dtypes
from .lowering import lower
from .products import held_by_product, is_narrow, itemsize_of_sums
from .sample_checks import check_sample_weight
from .summation import (
    held_by_rows,
    held_by_sum,
    held_by_weighted_sum,
    sum_products,
    sum_rows,
    sum_weighted_products,
)

# From this many elements on, B is added to Y in place.
IN_PLACE_ELEMENTS = 2**16

_product, _product_with_transpose, _sum_of_products = lower(FORWARD), lower(GRAD_INPUT), lower(GRAD_WEIGHT)


def _cost_of_product(first: Sized, W: Sized, *others: Sized) -> Cost:
    """State the cost of Y, or of dX, from a block of X or dY."""
    n, k = rows_and_features(first)
    made = math.prod(W.shape) // max(1, k)
    return Cost((2 * k + len(others)) * n * made, held_by_product(n, k, made, (first.dtype, W.dtype)))


def _cost_of_sum(X: Sized, dY: Sized, *weights: Sized, **options: Any) -> Cost:
    """State the cost of dW."""
    (n, c), (_, s) = rows_and_features(X), rows_and_features(dY)
    held = held_by_weighted_sum if weights else held_by_sum
    dtypes = X.dtype, dY.dtype
    return Cost(2 * n * c * s, held(n, c, s, itemsize_of_sums(*dtypes), is_narrow(*dtypes)))


def _cost_of_bias(dY: Sized, *weights: Sized, **options: Any) -> Cost:
    """State the cost of dB."""
    (n, s), itemsize, narrow = rows_and_features(dY), itemsize_of_sums(dY.dtype), is_narrow(dY.dtype)
    if not weights:
        return Cost(n * s, held_by_rows(n, s, itemsize, narrow))
    return Cost(2 * n * s, n * itemsize + held_by_sum(n, 1, s, itemsize, narrow))


@costs(_cost_of_product)
def forward(X: Array, W: Array, B: Array | None = None) -> Array:
    """Return Y = XW + B."""
    xp = fits.forward(X, W, B)
    if xp is None:
        if is_lazy(X):
            return NotImplemented
        xp = check_forward(X, W, B)
        if (in_own_dtypes := own_dtypes(X)) is not None:
            with in_own_dtypes:
                return forward(X, W, B)
    if B is not None and B.dtype != W.dtype:
        W = wide_weight(xp, X, W, B)
    Y = _product(xp, X if X.ndim == 2 else rows(xp, X), W)
    if B is not None:
        Y = _add_bias(xp, Y, B)
    return Y if X.ndim == 2 else unrows(xp, Y, X)


@costs(_cost_of_product)
def grad_input(dY: Array, W: Array) -> Array:
    """Return dX."""
    xp = fits.grad_input(dY, W)
    if xp is None:
        if is_lazy(dY):
            return NotImplemented
        xp = check_grad_input(dY, W)
        if (in_own_dtypes := own_dtypes(dY)) is not None:
            with in_own_dtypes:
                return grad_input(dY, W)
    return unrows(xp, _product_with_transpose(xp, rows(xp, dY), W), dY)


@costs(_cost_of_sum)
def grad_weight(
    X: Array, dY: Array, sample_weight: Array | None = None, *, acc_dtype: Any = None, rounded: bool = True
) -> Array:
    """Return dW; without `rounded` in the dtype of its sums, to be added to other partial sums."""
    xp = fits.grad_weight(X, dY)
    if xp is None:
        if is_lazy(X):
            return NotImplemented
        xp = check_grad_weight(X, dY)
        if (in_own_dtypes := own_dtypes(X)) is not None:
            with in_own_dtypes:
                return grad_weight(X, dY, sample_weight, acc_dtype=acc_dtype, rounded=rounded)
    weights = _weights("grad_weight", xp, sample_weight, "X", X)
    return _grad_weight(xp, rows(xp, X), rows(xp, dY), check_acc_dtype(xp, acc_dtype), weights, rounded)


@costs(_cost_of_bias)
def grad_bias(dY: Array, sample_weight: Array | None = None, *, acc_dtype: Any = None, rounded: bool = True) -> Array:
    """Return dB; `rounded` as in `grad_weight`."""
    xp = fits.grad_bias(dY)
    if xp is None:
        if is_lazy(dY):
            return NotImplemented
        xp = check_grad_bias(dY)
        if (in_own_dtypes := own_dtypes(dY)) is not None:
            with in_own_dtypes:
                return grad_bias(dY, sample_weight, acc_dtype=acc_dtype, rounded=rounded)
    weights = _weights("grad_bias", xp, sample_weight, "dY", dY)
    return _grad_bias(xp, rows(xp, dY), check_acc_dtype(xp, acc_dtype), weights, rounded)


def backward(
    X: Array,
    W: Array,
    dY: Array,
    needs: Sequence[str],
    acc_dtype: Any = None,
    sample_weight: Array | None = None,
) -> Any:
    """Return a tuple of dX, dW and dB, with None for those that are not in `needs`."""
    xp = fits.backward(X, W, dY)
    if xp is None:
        if is_lazy(X):
            return NotImplemented
        xp = check_backward(X, W, dY)
        if (in_own_dtypes := own_dtypes(X)) is not None:
            with in_own_dtypes:
                return backward(X, W, dY, needs, acc_dtype, sample_weight)
    weights = _weights("backward", xp, sample_weight, "X", X)
    acc_dtype = check_acc_dtype(xp, acc_dtype)
    x, dy = rows(xp, X), rows(xp, dY)
    dX = _product_with_transpose(xp, dy, W) if "dX" in needs else None
    if dX is not None and weights is not None:
        dX = _weigh(xp, dX, weights)
    return (
        None if dX is None else unrows(xp, dX, X),
        _grad_weight(xp, x, dy, acc_dtype, weights) if "dW" in needs else None,
        _grad_bias(xp, dy, acc_dtype, weights) if "dB" in needs else None,
    )


def _grad_weight(
    xp: Namespace, X: Array, dY: Array, acc_dtype: Any, weights: Array | None, rounded: bool = True
) -> Array:
    if acc_dtype is None and weights is None:
        return _sum_of_products(xp, X, dY, rounded)
    dtype, acc_dtype = sum_dtypes(xp, (X.dtype, dY.dtype), acc_dtype)
    if weights is None:
        total = sum_products(xp, X, dY, acc_dtype)
    else:
        total = sum_weighted_products(xp, X, dY, weights, acc_dtype)
    return cast(xp, total, dtype) if rounded else total


def _grad_bias(xp: Namespace, dY: Array, acc_dtype: Any, weights: Array | None, rounded: bool = True) -> Array:
    dtype, acc_dtype = sum_dtypes(xp, (dY.dtype,), acc_dtype)
    if weights is None:
        total = sum_rows(xp, dY, acc_dtype)
    else:
        total = xp.reshape(sum_products(xp, cast(xp, weights, acc_dtype), dY, acc_dtype), (dY.shape[1],))
    return cast(xp, total, dtype) if rounded else total


def _weights(where: str, xp: Namespace, sample_weight: Array | None, name: str, array: Array) -> Array | None:
    """Check the weights of samples and return that of each row, shape (N, 1)."""
    if sample_weight is None:
        return None
    check_arrays(where, (name, "sample_weight"), (array, sample_weight))
    check_sample_weight(where, array, sample_weight, name)
    return column_of_weights(xp, sample_weight, array)


def _weigh(xp: Namespace, dX: Array, weights: Array) -> Array:
    """Multiply the rows of a fresh dX by their weights, in place where the library can."""
    return _in_place(operator.imul, operator.mul, dX, cast(xp, weights, dX.dtype))


def wide_weight(xp: Namespace, X: Array, W: Array, B: Array) -> Array:
    """Return W in the dtype of Y: B may be wider than X and W, and the product must not be rounded before."""
    return cast(xp, W, xp.result_type(X.dtype, W.dtype, B.dtype))


def rows(xp: Namespace, array: Array) -> Array:
    """Merge the leading axes into one: (C,) and (A, B, C) become (1, C) and (A*B, C)."""
    if array.ndim == 2:
        return array
    n = 1
    for size in array.shape[:-1]:
        n *= size
    return xp.reshape(array, (n, array.shape[-1]))


def column_of_weights(xp: Namespace, sample_weight: Array, X: Array) -> Array:
    """Return the weight of each row, as `rows` orders them: of shape (N, 1)."""
    missing = X.ndim - 1 - sample_weight.ndim
    if missing:  # a weight of a sample is that of all its rows
        weights = xp.reshape(sample_weight, (*sample_weight.shape, *(1,) * missing))
        sample_weight = xp.broadcast_to(weights, X.shape[:-1])
    n = 1
    for size in sample_weight.shape:
        n *= size
    return xp.reshape(sample_weight, (n, 1))


def unrows(xp: Namespace, matrix: Array, like: Array) -> Array:
    """Give a result the leading axes of `like`."""
    return matrix if like.ndim == 2 else xp.reshape(matrix, (*like.shape[:-1], matrix.shape[-1]))


def _add_bias(xp: Namespace, Y: Array, B: Array) -> Array:
    """Add B to a fresh Y, in place where the library can, so that no second array of Y's size is held.

    A small Y is faster out of place: half of it lies in the cache of another core.
    Immutable arrays (JAX) are rebound by ``+=``. torch.func.vmap over B alone cannot write a
    batch into an unbatched Y and raises before it writes: then the sum is made out of place.
    """
    n, s = Y.shape
    if n is None or n * s < IN_PLACE_ELEMENTS:
        return Y + B
    if Y.dtype == B.dtype or xp.result_type(Y.dtype, B.dtype) == Y.dtype:
        return _in_place(operator.iadd, operator.add, Y, B)
    return Y + B


def _in_place(in_place: Callable[..., Array], anew: Callable[..., Array], array: Array, other: Array) -> Array:
    try:
        return in_place(array, other)
    except RuntimeError:  # of torch.func.vmap
        return anew(array, other)


def _cost_of_both(X: Sized, dY: Sized, *weights: Sized, **options: Any) -> Cost:
    return Cost(*map(sum, zip(_cost_of_sum(X, dY, *weights), _cost_of_bias(dY, *weights), strict=True)))


@costs(_cost_of_both)
def grad_weight_and_bias(X: Array, dY: Array, *weights: Array, acc_dtype: Any) -> tuple[Array, Array]:
    """Return dW and dB of one block of a batch, not rounded."""
    return (
        grad_weight(X, dY, *weights, acc_dtype=acc_dtype, rounded=False),
        grad_bias(dY, *weights, acc_dtype=acc_dtype, rounded=False),
    )
