"""Sums over the batch that stay accurate however many rows there are.

A plain float32 sum of positive rows stops growing at 2**24, and a matrix product over a
long batch drifts in the same way; how far depends on the library's kernels. Here the rows
are summed in short runs, the runs' sums in runs again, and the products of a long batch
are added in pairs (pairwise summation: Higham, *Accuracy and Stability of Numerical
Algorithms*, 2nd ed., section 4.2). That costs a few per cent and needs no wider dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .lowering import keep, lower
from .namespace import (
    Array,
    Namespace,
    cast,
    dtype_name,
    for_blas,
    is_numpy,
    library,
    promotes_alike,
    slices_copy,
    sum_in_own_dtype,
    sums_pairwise,
)

GRAD_WEIGHT = "nc,ns->cs"

_product = lower(GRAD_WEIGHT)

# A batch up to this long is one call of matmul: accurate enough on every library measured.
PLAIN_ROWS = 4096
# Rows that one product of a longer batch sums by itself. Kernels for narrow matrices (MKL) add every row to one number.
PRODUCT_ROWS = 512
# The same in NumPy: OpenBLAS makes short products in one thread, and cuts the sums of long ones at a few hundred rows.
# But in products of no more than NARROW_PRODUCT multiplications (AVX-512) it adds every row to one number too, and so
# it does with some columns of a product with a vector, which has one thread up to NARROW_VECTOR features in any case.
NUMPY_PRODUCT_ROWS, NUMPY_NARROW_ROWS, NUMPY_VECTOR_ROWS = 4096, 256, 2048
NARROW_PRODUCT, NARROW_VECTOR = 10**6, 256
# Terms that one addition chain of `sum_rows` has, and twice as many at its end.
SUM_ROWS = 64
# Rows of one leaf of the pairwise sum. Its partial products hold at most PARTIAL_ELEMENTS
# elements (4 MiB in float32), but a leaf never has fewer than LEAST_LEAF_ROWS rows, so
# that adding a large dW stays cheap beside the product.
LEAF_ROWS = 65536
# Rows of few features make longer leaves, so that adding leaves stays cheap beside their products.
LEAF_ELEMENTS = 2**22
# The same where slices copy, and a batch up to this long is one product there.
COPIED_ROWS = 131072
LEAST_LEAF_ROWS = 8192
PARTIAL_ELEMENTS = 2**20

_SUM_DTYPES: dict[tuple[str, tuple[Any, ...]], tuple[Any, Any]] = {}
_ONES: dict[Any, Array] = {}


def sum_dtypes(xp: Namespace, dtypes: tuple[Any, ...], acc_dtype: Any = None) -> tuple[Any, Any]:
    """Return the dtype of a sum over the batch, and the dtype in which its terms are added.

    Parameters
    ----------
    xp : namespace
        The namespace of the arrays.
    dtypes : tuple of dtype
        The dtypes of the arrays, which are promoted.
    acc_dtype : dtype, optional
        The second result, if given; otherwise it is the first one, and at least float32.
    """
    key = library(xp), dtypes
    found = _SUM_DTYPES.get(key)
    if found is None:
        dtype = xp.result_type(*dtypes)
        narrow = dtype_name(dtype) in ("float16", "bfloat16")
        found = dtype, xp.zeros(0, dtype=xp.float32).dtype if narrow else dtype
        if promotes_alike(xp):
            keep(_SUM_DTYPES, key, found)
    return found if acc_dtype is None else (found[0], acc_dtype)


def sum_rows(xp: Namespace, rows: Array, acc_dtype: Any) -> Array:
    """Sum the rows of a matrix.

    Parameters
    ----------
    xp : namespace
        The namespace of `rows`.
    rows : array, shape (N, S)
        The terms.
    acc_dtype : dtype
        The dtype of every sum.

    Returns
    -------
    array, shape (S,), of `acc_dtype`
    """
    if sums_pairwise(xp) or not isinstance(rows.shape[0], int):
        return xp.sum(rows, axis=0, dtype=acc_dtype)
    if rows.dtype == acc_dtype:
        return _sum_in_runs(xp, rows)
    # A cast copies: leaf by leaf, so that no copy of the whole batch is held.
    return _pairwise(lambda leaf: _sum_in_runs(xp, cast(xp, leaf, acc_dtype)), (rows,), LEAF_ROWS)


def _sum_in_runs(xp: Namespace, rows: Array) -> Array:
    """Sum runs of rows, the runs' sums in runs again, and so on. Splitting an axis never copies."""
    while rows.shape[0] > 2 * SUM_ROWS:
        n, s = rows.shape
        whole = n - n % SUM_ROWS
        sums = _sum_run(xp, xp.reshape(rows[:whole, :], (whole // SUM_ROWS, SUM_ROWS, s)))
        rows = sums if whole == n else xp.concat([sums, rows[whole:, :]], axis=0)
    return _sum_run(xp, rows)


def _sum_run(xp: Namespace, rows: Array) -> Array:
    """Sum the last axis but one, of at most 2 * SUM_ROWS rows.

    In NumPy a vector of ones times the rows takes a twentieth of the time that its sum takes
    along a long first axis, if the ones are not made anew each time.
    """
    if not is_numpy(xp):
        return sum_in_own_dtype(xp, rows, rows.ndim - 2)
    ones = _ONES.get(rows.dtype)
    if ones is None:
        ones = _ONES[rows.dtype] = xp.ones(2 * SUM_ROWS, dtype=rows.dtype)
    return ones[: rows.shape[-2]] @ rows


def sum_products(xp: Namespace, left: Array, right: Array, acc_dtype: Any) -> Array:
    """Contract two matrices over their first axis, the batch: the einsum ``"nc,ns->cs"``.

    Parameters
    ----------
    xp : namespace
        The namespace of both arrays.
    left, right : array, shapes (N, C) and (N, S)
    acc_dtype : dtype
        The dtype of every product and sum.

    Returns
    -------
    array, shape (C, S), of `acc_dtype`
    """
    rows, c, s = left.shape[0], left.shape[1], right.shape[1]
    if _narrower(xp, s, c):
        return sum_products(xp, right, left, acc_dtype).T
    # A batch whose length a tracer leaves open is not cut in runs.
    if not isinstance(rows, int) or rows <= PLAIN_ROWS or (slices_copy(xp) and rows <= COPIED_ROWS):
        if not left.dtype == right.dtype == acc_dtype:
            left, right = cast(xp, left, acc_dtype), cast(xp, right, acc_dtype)
        if isinstance(rows, int) and rows > PRODUCT_ROWS:
            left, right = for_blas(xp, left), for_blas(xp, right)
        return _product(xp, left, right)
    leaf_rows, run_rows = leaf_of(xp, c, s)

    def leaf(left: Array, right: Array) -> Array:
        left, right = (for_blas(xp, cast(xp, matrix, acc_dtype)) for matrix in (left, right))
        n, runs = left.shape[0], left.shape[0] // run_rows
        if runs < 2:
            return _product(xp, left, right)
        whole = runs * run_rows
        products = xp.matmul(
            xp.matrix_transpose(xp.reshape(left[:whole, :], (runs, run_rows, c))),
            xp.reshape(right[:whole, :], (runs, run_rows, s)),
        )
        total = xp.reshape(sum_rows(xp, xp.reshape(products, (runs, c * s)), acc_dtype), (c, s))
        return total if whole == n else total + _product(xp, left[whole:, :], right[whole:, :])

    return _pairwise(leaf, (left, right), leaf_rows)


def _narrower(xp: Namespace, s: Any, c: Any) -> bool:
    """Whether the right matrix belongs on the left, being the narrower one.

    MKL and XLA take four to twelve times as long the other way round, for 1024 features and 10 outputs. OpenBLAS does
    not. XLA's product of a vector and a matrix, which one column on the left would be, is off by 1e-3 after 131,072
    rows: there it goes to the right. A tracer may leave sizes open.
    """
    if is_numpy(xp) or not (isinstance(s, int) and isinstance(c, int)):
        return False
    if slices_copy(xp) and 1 in (c, s):
        return c == 1 < s
    return s < c


def leaf_of(xp: Namespace, c: int, s: int) -> tuple[int, int]:
    """Return the rows of one leaf of dW's pairwise sum, and the rows of each of its products."""
    if slices_copy(xp):
        return COPIED_ROWS, COPIED_ROWS
    run_rows = _numpy_run_rows(c, s) if is_numpy(xp) else PRODUCT_ROWS
    runs_at_once = max(1, PARTIAL_ELEMENTS // max(1, c * s))
    most_rows = max(LEAF_ROWS, LEAF_ELEMENTS // max(1, c + s))
    leaf_rows = min(most_rows, max(LEAST_LEAF_ROWS, runs_at_once * run_rows))
    return leaf_rows, max(run_rows, -(-leaf_rows // runs_at_once))


def _numpy_run_rows(c: int, s: int) -> int:
    if 1 in (c, s):
        return PRODUCT_ROWS if c * s <= NARROW_VECTOR else NUMPY_VECTOR_ROWS
    return NUMPY_NARROW_ROWS if c * s * NUMPY_PRODUCT_ROWS <= NARROW_PRODUCT else NUMPY_PRODUCT_ROWS


def _pairwise(leaf: Callable[..., Array], arrays: tuple[Array, ...], leaf_rows: int) -> Array:
    """Add ``leaf(*arrays)`` over runs of at most `leaf_rows` rows, in pairs."""
    rows = arrays[0].shape[0]
    if rows <= leaf_rows:
        return leaf(*arrays)
    # Both halves but the last run are whole leaves.
    half = -(-rows // leaf_rows) // 2 * leaf_rows
    first = _pairwise(leaf, tuple(a[:half, :] for a in arrays), leaf_rows)
    return first + _pairwise(leaf, tuple(a[half:, :] for a in arrays), leaf_rows)
