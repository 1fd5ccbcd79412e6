"""Products of matrices whose sums are accurate however long they are, with float16 in NumPy through float32."""

from __future__ import annotations

from typing import Any

from .._arrays import numpy_kernels
from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace, cast
from .._arrays.numpy_kernels import HALVES
from .equations import sum_dtypes
from .summation import LONGER_NARROW_ROWS, PLAIN_ROWS, held_by_sum, sum_products, transposed


def product(xp: Namespace, a: Array, b: Array, rounded: bool = True) -> Array:
    """Multiply matrices.

    Parameters
    ----------
    xp : namespace
        The namespace of both arrays.
    a, b : array, shapes (..., M, K) and (..., K, N), or (K,)
        The axes before the last two are the same in both.
    rounded : bool
        Whether a product of float16 or bfloat16 comes back in that dtype, or in float32.

    Returns
    -------
    array, shape (..., M, N)
        In the dtype to which both are promoted.
    """
    dtype = a.dtype
    if dtype != b.dtype or dtype in HALVES or not rounded:
        return _through_wider(xp, a, b, rounded)
    k = a.shape[-1]
    if not isinstance(k, int) or k <= PLAIN_ROWS:
        return a @ b
    result_dtype, acc_dtype = sum_dtypes(xp, (dtype,))
    return _long(xp, a, b, acc_dtype, result_dtype)


def held_by_product(m: int, k: int, n: int, dtypes: tuple[Any, Any], batch: int = 1) -> int:
    """Return the most bytes that `product` of NumPy matrices (M, K) and (K, N) holds beside its result.

    Parameters
    ----------
    m, k, n : int
        The sizes.
    dtypes : tuple of numpy dtypes
        Those of both matrices.
    batch : int
        The number of such products.
    """
    itemsize, narrow = itemsize_of_sums(*dtypes), is_narrow(*dtypes)
    if k > PLAIN_ROWS:
        cast = min(numpy_kernels.CAST_ELEMENTS, batch * (m + n) * k) * itemsize if narrow and batch > 1 else 0
        return cast + held_by_sum(k, batch * m, n, itemsize, narrow and batch == 1)
    if not narrow:
        return 0
    # The smaller matrix is cast as a whole.
    small, dtype = (k * n, dtypes[1]) if m >= n else (k * m, dtypes[0])
    whole = 0 if dtype.itemsize == itemsize else small
    return (min(numpy_kernels.CAST_ELEMENTS, batch * (m * k + k * n + m * n)) + whole) * itemsize


def is_narrow(*dtypes: Any) -> bool:
    """Say whether any array of these NumPy dtypes is cast, since its products are added in a wider one."""
    return len(set(dtypes)) > 1 or dtypes[0] in HALVES


def itemsize_of_sums(*dtypes: Any) -> int:
    """Return the bytes of a number of the dtype in which products of these NumPy dtypes are added."""
    return max(4, *(int(dtype.itemsize) for dtype in dtypes))


def summed_over_rows(xp: Namespace, left: Array, right: Array, rounded: bool = True) -> Array:
    """Multiply the transposed of a matrix with another one, the einsum ``"nc,ns->cs"``: dW of the layer."""
    dtype = left.dtype
    if dtype == right.dtype and dtype not in HALVES and library(xp).openblas and left.shape[0] <= LONGER_NARROW_ROWS:
        return left.T @ right  # what sum_products does with few rows, without a look at how they are cut
    dtype, acc_dtype = sum_dtypes(xp, (dtype, right.dtype))
    total = sum_products(xp, left, right, acc_dtype)
    return cast(xp, total, dtype) if rounded else total


def _long(xp: Namespace, a: Array, b: Array, acc_dtype: Any, dtype: Any) -> Array:
    """Multiply matrices with a long sum; a vector becomes a matrix of one row or column."""
    first = xp.reshape(a, (1, a.shape[0])) if a.ndim == 1 else a
    second = xp.reshape(b, (b.shape[0], 1)) if b.ndim == 1 else b
    total = cast(xp, sum_products(xp, transposed(xp, first), second, acc_dtype), dtype)
    if a.ndim > 1 and b.ndim > 1:
        return total
    return xp.reshape(total, (*a.shape[:-1], *b.shape[1:]))


def _through_wider(xp: Namespace, a: Array, b: Array, rounded: bool) -> Array:
    """Multiply matrices of two dtypes, or of one that is added in a wider one."""
    dtype, acc_dtype = sum_dtypes(xp, (a.dtype, b.dtype))
    result_dtype = dtype if rounded else acc_dtype
    k = a.shape[-1]
    if isinstance(k, int) and k > PLAIN_ROWS:
        return _long(xp, a, b, acc_dtype, result_dtype)
    own = library(xp)
    if own.openblas and not a.dtype == b.dtype == acc_dtype:
        return numpy_kernels.cast_in_runs(a, b, acc_dtype, result_dtype)
    if a.dtype == b.dtype == result_dtype:  # the library's own product of float16
        return a @ b
    return cast(xp, cast(xp, a, acc_dtype) @ cast(xp, b, acc_dtype), result_dtype)
