"""Sums over the batch that stay accurate for any number of rows.

A plain float32 sum of ones stops growing at 2**24, and a matrix product over a long batch
loses digits in the same way; how many depends on the library's kernels. Here rows are summed
in short runs, the sums of runs in runs again, and the products of a long batch are added in
pairs (pairwise summation: Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed.,
section 4.2). That takes a few per cent more time and no wider dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .._arrays.libraries import Library, library
from .._arrays.namespace import Array, Namespace, cast, keep, sum_in_own_dtype
from .._arrays.numpy_kernels import (
    CAST_ELEMENTS,
    HALVES,
    OF_BLAS,
    RowCast,
    dot_in_runs,
    for_blas,
    product_in_runs,
    sums_in_pairs,
)
from .equations import sum_dtypes

# A batch of up to this many rows is one call of matmul: accurate enough on every library measured.
PLAIN_ROWS = 4096
# Rows summed by one product of a longer batch. Kernels for narrow matrices (MKL) add all rows to one accumulator.
PRODUCT_ROWS = 512
# The same for OpenBLAS, which computes short products in one thread and splits the sums of long ones every 300 to 450
# rows. But in products of up to NARROW_PRODUCT multiplications (AVX-512), and in those with a vector, it adds all rows
# to one accumulator too. A sum of k equal terms is off by at most k / 8 epsilons then. Runs of NARROW_ROWS stay below
# 64 with all sums of runs. Up to PLAIN_ROWS there are few to add, and longer runs do too, which take less time.
NUMPY_PRODUCT_ROWS, NARROW_ROWS, LONGER_NARROW_ROWS = 4096, 256, 456
NARROW_PRODUCT = 10**6
# A dot product adds to 16 numbers at least, in every kernel tried.
DOT_ROWS = 2048
# Terms of one chain of additions in `sum_rows`; the last chain has up to twice as many.
SUM_ROWS = 64
# Rows of one leaf of the pairwise sum. Its partial products hold at most PARTIAL_ELEMENTS
# elements (4 MiB in float32), but a leaf has at least LEAST_LEAF_ROWS rows, so that adding
# a large dW takes little time beside the product.
LEAF_ROWS = 65536
# Leaves of few features have more rows, so that adding leaves takes little time beside their products.
LEAF_ELEMENTS = 2**22
# The same for libraries whose slices are copies; a batch of up to this many rows is one product.
COPIED_ROWS = 131072
LEAST_LEAF_ROWS = 8192
PARTIAL_ELEMENTS = 2**20
# Rows that are cast to a wider dtype at a time, at least.
LEAST_CAST_ROWS = 128

# Terms that are added as a dot product with ones, which BLAS adds to 16 numbers at least.
MOST_ONES = 512

_ONES: dict[Any, Array] = {}


class Schedule(NamedTuple):
    """How a product over a long batch is split.

    Parameters
    ----------
    turned : bool
        The right matrix is taken as the left one, and the result is transposed.
    leaf_rows : int
        Rows of one leaf of the pairwise sum; 0 if the whole batch is one product.
    run_rows : int
        Rows summed by one product.
    """

    turned: bool
    leaf_rows: int = 0
    run_rows: int = 0


# Those of NumPy by rows, c, s and batch: a short narrow product takes as long as to find out how it is split.
_KEPT: dict[tuple[int, int, int, int], Schedule] = {}
_ONE_PRODUCT = {turned: Schedule(turned) for turned in (False, True)}


def schedule(own: Library, rows: Any, c: Any, s: Any, batch: Any = 1) -> Schedule:
    """Decide from sizes alone how `sum_products` splits a batch.

    Parameters
    ----------
    own : Library
        The library of the matrices.
    rows, c, s : int
        The rows of both matrices and the columns of each; a tracer may leave them unknown.
    batch : int
        The number of such products.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> import numpy as np
    >>> schedule(library(np), 1_000_000, 64, 16)
    Schedule(turned=False, leaf_rows=65536, run_rows=4096)
    >>> schedule(library(np), 3000, 16, 4)
    Schedule(turned=False, leaf_rows=3000, run_rows=375)
    """
    if own.openblas and isinstance(rows, int):
        key = (rows, c, s, batch)
        return _KEPT.get(key) or keep(_KEPT, key, _numpy_schedule(*key))
    turned = _narrower(own, s, c)
    # A batch whose length is unknown while JAX or torch trace is not split.
    if not isinstance(rows, int) or rows <= (COPIED_ROWS if own.slices_copy else PLAIN_ROWS):
        return _ONE_PRODUCT[turned]
    if own.slices_copy:
        return Schedule(turned, COPIED_ROWS, COPIED_ROWS)
    return _in_leaves(turned, c * batch, s, PRODUCT_ROWS, LEAST_LEAF_ROWS)


def _numpy_schedule(rows: int, c: int, s: int, batch: int) -> Schedule:
    narrow = 1 in (c, s) or min(rows, PLAIN_ROWS) * c * s <= NARROW_PRODUCT
    if rows <= (LONGER_NARROW_ROWS if narrow and batch == 1 else PLAIN_ROWS):
        return _ONE_PRODUCT[False]
    if not narrow:
        return _in_leaves(False, c * batch, s, NUMPY_PRODUCT_ROWS, LEAST_LEAF_ROWS)
    if rows > PLAIN_ROWS:
        return _in_leaves(False, c * batch, s, NARROW_ROWS, NARROW_ROWS)
    # Runs of one length, without a rest if that can be: a small product more takes long here.
    least = -(-rows // LONGER_NARROW_ROWS)
    runs = next((runs for runs in range(least, 2 * least + 1) if rows % runs == 0), least)
    return Schedule(False, rows, rows // runs)


def _in_leaves(turned: bool, c: int, s: int, run_rows: int, least_leaf_rows: int) -> Schedule:
    runs_at_once = max(1, PARTIAL_ELEMENTS // max(1, c * s))
    most_rows = max(LEAF_ROWS, LEAF_ELEMENTS // max(1, c + s))
    leaf_rows = min(most_rows, max(least_leaf_rows, runs_at_once * run_rows))
    return Schedule(turned, leaf_rows, max(run_rows, -(-leaf_rows // runs_at_once)))


def held_by_sum(rows: int, c: int, s: int, itemsize: int, narrow: bool = False) -> int:
    """Return the most bytes that `sum_products` of NumPy matrices holds beside its result.

    Parameters
    ----------
    rows, c, s : int
        The rows of both matrices and the columns of each.
    itemsize : int
        Bytes of a number of the dtype of the sums.
    narrow : bool
        Whether a matrix has another dtype, so that rows are cast.
    """
    product = c * s * itemsize
    if narrow:
        leaf_rows = rows_cast_at_once(c + s)
        cast = min(rows, leaf_rows) * (c + s) * itemsize
        if rows <= leaf_rows or c * s <= PARTIAL_ELEMENTS // 8:
            held = held_by_sum(min(rows, leaf_rows), c, s, itemsize)
            return cast + held + sums_at_once(rows, leaf_rows) * product
        columns = min(c, max(1, PARTIAL_ELEMENTS // s))
        # Heaps keep as much again of the product before.
        return cast + 2 * columns * s * itemsize + held_by_sum(leaf_rows, columns, s, itemsize)
    cut = _numpy_schedule(rows, c, s, 1)
    if not cut.leaf_rows:
        return 0
    runs = min(rows, cut.leaf_rows) // max(1, cut.run_rows)
    products = 0 if runs < 2 else runs + -(-runs // SUM_ROWS) + 1  # those of runs, their sums, and that of the rest
    return (products + sums_at_once(rows, cut.leaf_rows)) * product


def held_by_weighted_sum(rows: int, c: int, s: int, itemsize: int, narrow: bool = False) -> int:
    """Return the most bytes that `sum_weighted_products` of NumPy matrices holds, as `held_by_sum` does."""
    run = min(rows, _rows_weighted_at_once(min(c, s)))
    weighted = run * (min(c, s) + 1) * itemsize  # and their weights, which are cast
    return weighted + held_by_sum(run, c, s, itemsize, narrow) + sums_at_once(rows, run) * c * s * itemsize


def held_by_rows(rows: int, s: int, itemsize: int, narrow: bool = False) -> int:
    """Return the most bytes that `sum_rows` of a NumPy matrix holds, as `held_by_sum` does."""
    if narrow:
        leaf_rows = min(rows, max(SUM_ROWS, CAST_ELEMENTS // max(1, s)))
        sums = (sums_at_once(rows, leaf_rows) + 2) * s * itemsize
        return leaf_rows * s * itemsize + held_by_rows(leaf_rows, s, itemsize) + sums
    # Sums of runs, and these joined with the rows that are left.
    return (2 * (rows // SUM_ROWS) + rows % SUM_ROWS) * s * itemsize if rows > 2 * SUM_ROWS else 0


def sums_at_once(rows: int, leaf_rows: int) -> int:
    """Return the most sums that `pairwise` holds beside its result."""
    return max(0, -(-rows // max(1, leaf_rows)) - 1).bit_length()


def sum_axes(xp: Namespace, x: Array, axes: tuple[int, ...], rounded: bool = True) -> Array:
    """Sum an array over axes.

    Parameters
    ----------
    xp : namespace
        The namespace of `x`.
    x : array
        Of any numeric dtype.
    axes : tuple of int
        The axes that go.
    rounded : bool
        Whether a sum of float16 or bfloat16 comes back in that dtype, or in float32.

    Returns
    -------
    array
    """
    own, shape = library(xp), x.shape
    terms = shape[axes[0]] if len(axes) == 1 else _product_of([shape[axis] for axis in axes])
    short = not isinstance(terms, int) or terms <= 2 * SUM_ROWS
    if own.openblas and x.dtype not in HALVES:
        if axes == (x.ndim - 2,) and x.dtype in OF_BLAS:
            return _sum_in_runs(xp, x)  # with few rows too it takes less time than numpy.sum
        if axes == (1,) and x.ndim == 2 and terms <= MOST_ONES and x.dtype in OF_BLAS and x.flags.c_contiguous:
            return x @ _ones(xp, x.dtype)[:terms]  # a dot product of each row, a third of the time of numpy.sum
        if short or sums_in_pairs(x, axes):
            return sum_in_own_dtype(xp, x, axes)
    dtype, acc_dtype = sum_dtypes(xp, (x.dtype,))
    if dtype == acc_dtype and (short or own.accurate_sum):
        return sum_in_own_dtype(xp, x, axes)
    if short or own.accurate_sum:
        total = xp.sum(x, axis=axes, dtype=acc_dtype)
    else:
        total = _sum_axis_by_axis(xp, x, axes, acc_dtype)
    return cast(xp, total, dtype) if rounded else total


def _product_of(sizes: list[Any]) -> Any:
    """Multiply sizes; what is no number stays as it is."""
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else None


def _sum_axis_by_axis(xp: Namespace, x: Array, axes: tuple[int, ...], acc_dtype: Any) -> Array:
    """Sum one axis after the other, the longest one first, so that little is left for the others."""
    left = list(range(x.ndim))
    for axis in sorted(axes, key=lambda axis: (-x.shape[axis], axis)):
        place = left.index(axis)
        left.remove(axis)
        if x.ndim == 1:
            x = xp.reshape(sum_rows(xp, xp.reshape(x, (x.shape[0], 1)), acc_dtype), ())
            continue
        order = [other for other in range(x.ndim) if other != place]
        # The last axis stays where it is, unless it is the one that is summed: memory is read along it.
        order.insert(len(order) - 1, place)
        if order != list(range(x.ndim)):
            x = xp.permute_dims(x, tuple(order))
        x = sum_rows(xp, x, acc_dtype)
    return x


def sum_rows(xp: Namespace, rows: Array, acc_dtype: Any) -> Array:
    """Sum the rows of matrices.

    Parameters
    ----------
    xp : namespace
        The namespace of `rows`.
    rows : array, shape (..., N, S)
        The terms.
    acc_dtype : dtype
        The dtype of every sum.

    Returns
    -------
    array, shape (..., S), of `acc_dtype`
    """
    if library(xp).accurate_sum or not isinstance(rows.shape[-2], int):
        return xp.sum(rows, axis=-2, dtype=acc_dtype)
    if rows.dtype == acc_dtype:
        return _sum_in_runs(xp, rows)
    # A cast copies. It is made leaf by leaf, so that the whole batch is never copied.
    leaf_rows = max(SUM_ROWS, CAST_ELEMENTS * rows.shape[-2] // max(1, math.prod(rows.shape)))
    return pairwise(lambda leaf: _sum_in_runs(xp, cast(xp, leaf, acc_dtype)), (rows,), leaf_rows)


def _sum_in_runs(xp: Namespace, rows: Array) -> Array:
    """Sum runs of rows, then runs of these sums, and so on. Splitting an axis does not copy."""
    while rows.shape[-2] > 2 * SUM_ROWS:
        *batch, n, s = rows.shape
        whole = n - n % SUM_ROWS
        first = rows if whole == n else rows[..., :whole, :]
        sums = _sum_run(xp, xp.reshape(first, (*batch, whole // SUM_ROWS, SUM_ROWS, s)))
        rows = sums if whole == n else xp.concat([sums, rows[..., whole:, :]], axis=-2)
    return _sum_run(xp, rows)


def _sum_run(xp: Namespace, rows: Array) -> Array:
    """Sum the last axis but one, of at most 2 * SUM_ROWS rows.

    In NumPy a vector of ones times the rows takes a twentieth of the time of a sum along a
    long first axis, if the ones are kept.
    """
    if not library(xp).openblas:
        return sum_in_own_dtype(xp, rows, rows.ndim - 2)
    return _ones(xp, rows.dtype)[: rows.shape[-2]] @ rows


def _ones(xp: Namespace, dtype: Any) -> Array:
    """Return MOST_ONES ones, which are kept."""
    ones = _ONES.get(dtype)
    if ones is None:
        ones = _ONES[dtype] = xp.ones(MOST_ONES, dtype=dtype)
    return ones


def sum_products(xp: Namespace, left: Array, right: Array, acc_dtype: Any) -> Array:
    """Contract matrices over their first axis, the batch: the einsum ``"nc,ns->cs"``.

    Parameters
    ----------
    xp : namespace
        The namespace of both arrays.
    left, right : array, shapes (..., N, C) and (..., N, S)
        The axes before the last two are the same in both.
    acc_dtype : dtype
        The dtype of every product and sum.

    Returns
    -------
    array, shape (..., C, S), of `acc_dtype`
    """
    own = library(xp)
    *several, rows, c = left.shape
    s = right.shape[-1]
    narrow = not left.dtype == right.dtype == acc_dtype
    if own.openblas and c == s == 1 and not narrow:
        return dot_in_runs(left[..., 0], right[..., 0], DOT_ROWS)[..., None, None]
    turned, leaf_rows, run_rows = schedule(own, rows, c, s, math.prod(several) if several else 1)
    if turned:
        left, right = right, left
    if narrow and own.openblas:
        total = _sum_cast_products(xp, left, right, acc_dtype)
    elif leaf_rows and rows <= PLAIN_ROWS:  # a narrow product in NumPy
        total = product_in_runs(left, right, run_rows)
    elif leaf_rows:
        total = pairwise(partial(_leaf, xp, acc_dtype, run_rows), (left, right), leaf_rows)
    else:
        if narrow:
            left, right = cast(xp, left, acc_dtype), cast(xp, right, acc_dtype)
        if own.openblas and rows > PRODUCT_ROWS:
            left, right = for_blas(left), for_blas(right)
        total = transposed(xp, left) @ right
    return transposed(xp, total) if turned else total


def sum_weighted_products(xp: Namespace, left: Array, right: Array, weights: Array, acc_dtype: Any) -> Array:
    """Contract matrices and the weights of their rows, shape (N, 1): the einsum ``"n,nc,ns->cs"``.

    The narrower matrix is weighted, a run of rows at a time.
    """
    (n, c), s = left.shape, right.shape[1]
    own = library(xp)
    run = COPIED_ROWS if own.slices_copy else _rows_weighted_at_once(min(c, s))
    writable = RowCast(right if s <= c else left, run, acc_dtype, copy=True) if own.openblas else None

    def weighted(rows: Array, weights: Array) -> Array:
        weights = cast(xp, weights, acc_dtype)
        if writable is None:
            return weights * cast(xp, rows, acc_dtype)
        return writable.times(rows, weights)

    def leaf(left: Array, right: Array, weights: Array) -> Array:
        if s <= c:
            return sum_products(xp, left, weighted(right, weights), acc_dtype)
        return sum_products(xp, weighted(left, weights), right, acc_dtype)

    if not isinstance(n, int):
        return leaf(left, right, weights)
    total: Array = pairwise(leaf, (left, right, weights), run)
    return total


def _rows_weighted_at_once(narrower: int) -> int:
    """Return twice the rows that are cast at a time: of 768 features, fewer lose a tenth of the speed of a product."""
    return max(2 * rows_cast_at_once(narrower), narrower // 4)


def rows_cast_at_once(elements: int) -> int:
    """Return the number of rows that are cast at a time; each has this many elements."""
    return max(LEAST_CAST_ROWS, CAST_ELEMENTS // max(1, elements))


def _sum_cast_products(xp: Namespace, left: Array, right: Array, acc_dtype: Any) -> Array:
    """Contract NumPy matrices of a narrower dtype: rows are cast a few at a time, and a large result has one copy.

    The product of a leaf is added to a large result block by block, so that it needs no second copy either.
    """
    *several, rows, c = left.shape
    s = right.shape[-1]
    batch = math.prod(several) if several else 1
    leaf_rows = rows_cast_at_once(batch * (c + s))
    cast_left, cast_right = (RowCast(x, leaf_rows, acc_dtype, axis=-2) for x in (left, right))
    if rows <= leaf_rows or batch * c * s <= PARTIAL_ELEMENTS // 8:
        return pairwise(
            lambda first, second: sum_products(xp, cast_left(first), cast_right(second), acc_dtype),
            (left, right),
            leaf_rows,
        )
    total = xp.zeros((*several, c, s), dtype=acc_dtype)
    columns = max(1, PARTIAL_ELEMENTS // max(1, batch * s))
    for row in range(0, rows, leaf_rows):
        some = slice(row, row + leaf_rows)
        first, second = cast_left(left[..., some, :]), cast_right(right[..., some, :])
        for column in range(0, c, columns):
            # Without a name for the product, which would keep it beside the next one.
            total[..., column : column + columns, :] += sum_products(
                xp, first[..., column : column + columns], second, acc_dtype
            )
    return total


def _leaf(xp: Namespace, acc_dtype: Any, run_rows: int, left: Array, right: Array) -> Array:
    """Contract one leaf: the products of its runs, then their sum."""
    left, right = cast(xp, left, acc_dtype), cast(xp, right, acc_dtype)
    if library(xp).openblas:
        left, right = for_blas(left), for_blas(right)
    *several, n, c = left.shape
    s = right.shape[-1]
    runs = n // run_rows
    if runs < 2:
        return transposed(xp, left) @ right
    whole = runs * run_rows
    first, second = (left, right) if whole == n else (left[..., :whole, :], right[..., :whole, :])
    products = xp.matmul(
        xp.matrix_transpose(xp.reshape(first, (*several, runs, run_rows, c))),
        xp.reshape(second, (*several, runs, run_rows, s)),
    )
    total = sum_rows(xp, xp.reshape(products, (*several, runs, c * s)), acc_dtype)
    total = xp.reshape(total, (*several, c, s))
    return total if whole == n else total + transposed(xp, left[..., whole:, :]) @ right[..., whole:, :]


def transposed(xp: Namespace, matrix: Array) -> Array:
    """Exchange the last two axes; ``.T`` is the quickest way for a matrix."""
    return matrix.T if matrix.ndim == 2 else xp.matrix_transpose(matrix)


def _narrower(own: Library, s: Any, c: Any) -> bool:
    """Say whether the right matrix is the narrower one, which should be on the left. NumPy does not ask.

    MKL and XLA take four to twelve times as long otherwise, for 1024 features and 10 outputs; OpenBLAS does not. XLA's
    product of a vector and a matrix has an error of 1e-3 after 131,072 rows, so one column is put on the right. Sizes
    may be unknown while JAX or torch trace.
    """
    if not (isinstance(s, int) and isinstance(c, int)):
        return False
    if own.slices_copy and 1 in (c, s):
        return c == 1 < s
    return s < c


def pairwise(leaf: Callable[..., Any], arrays: tuple[Array, ...], leaf_rows: int) -> Any:
    """Add ``leaf(*arrays)``, arrays or what else adds up, over runs of at most `leaf_rows` rows, in pairs."""
    rows = arrays[0].shape[-2]
    if rows <= leaf_rows:
        return leaf(*arrays)
    # All leaves are whole but the last.
    half = -(-rows // leaf_rows) // 2 * leaf_rows
    first = pairwise(leaf, tuple(a[..., :half, :] for a in arrays), leaf_rows)
    return first + pairwise(leaf, tuple(a[..., half:, :] for a in arrays), leaf_rows)
