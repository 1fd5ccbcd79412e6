"""Sums over the batch that stay accurate for any number of rows.

A plain float32 sum of ones stops growing at 2**24, and a matrix product over a long batch
loses digits in the same way; how many depends on the library's kernels. Here rows are summed
in short runs, the sums of runs in runs again, and the products of a long batch are added in
pairs (pairwise summation: Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed.,
section 4.2). That takes a few per cent more time and no wider dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .._arrays.libraries import Library, library
from .._arrays.namespace import (
    Array,
    Namespace,
    cast,
    for_blas,
    keep,
    numpy_product_in_runs,
    sum_in_own_dtype,
)
from .equations import GRAD_WEIGHT
from .lowering import lower

_product = lower(GRAD_WEIGHT)

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


# Those of NumPy by rows, c and s: a short narrow product takes as long as to find out how it is split.
_KEPT: dict[tuple[int, int, int], Schedule] = {}
_ONE_PRODUCT = {turned: Schedule(turned) for turned in (False, True)}


def schedule(own: Library, rows: Any, c: Any, s: Any) -> Schedule:
    """Decide from sizes alone how `sum_products` splits a batch.

    Parameters
    ----------
    own : Library
        The library of the matrices.
    rows, c, s : int
        The rows of both matrices and the columns of each; a tracer may leave them unknown.

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
        return _KEPT.get((rows, c, s)) or keep(_KEPT, (rows, c, s), _numpy_schedule(rows, c, s))
    turned = _narrower(own, s, c)
    # A batch whose length is unknown while JAX or torch trace is not split.
    if not isinstance(rows, int) or rows <= (COPIED_ROWS if own.slices_copy else PLAIN_ROWS):
        return _ONE_PRODUCT[turned]
    if own.slices_copy:
        return Schedule(turned, COPIED_ROWS, COPIED_ROWS)
    return _in_leaves(turned, c, s, PRODUCT_ROWS, LEAST_LEAF_ROWS)


def _numpy_schedule(rows: int, c: int, s: int) -> Schedule:
    narrow = 1 in (c, s) or min(rows, PLAIN_ROWS) * c * s <= NARROW_PRODUCT
    if rows <= (LONGER_NARROW_ROWS if narrow else PLAIN_ROWS):
        return _ONE_PRODUCT[False]
    if not narrow:
        return _in_leaves(False, c, s, NUMPY_PRODUCT_ROWS, LEAST_LEAF_ROWS)
    if rows > PLAIN_ROWS:
        return _in_leaves(False, c, s, NARROW_ROWS, NARROW_ROWS)
    # Runs of one length, without a rest if that can be: a small product more takes long here.
    least = -(-rows // LONGER_NARROW_ROWS)
    runs = next((runs for runs in range(least, 2 * least + 1) if rows % runs == 0), least)
    return Schedule(False, rows, rows // runs)


def _in_leaves(turned: bool, c: int, s: int, run_rows: int, least_leaf_rows: int) -> Schedule:
    runs_at_once = max(1, PARTIAL_ELEMENTS // max(1, c * s))
    most_rows = max(LEAF_ROWS, LEAF_ELEMENTS // max(1, c + s))
    leaf_rows = min(most_rows, max(least_leaf_rows, runs_at_once * run_rows))
    return Schedule(turned, leaf_rows, max(run_rows, -(-leaf_rows // runs_at_once)))


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
    if library(xp).accurate_sum or not isinstance(rows.shape[0], int):
        return xp.sum(rows, axis=0, dtype=acc_dtype)
    if rows.dtype == acc_dtype:
        return _sum_in_runs(xp, rows)
    # A cast copies. It is made leaf by leaf, so that the whole batch is never copied.
    return _pairwise(lambda leaf: _sum_in_runs(xp, cast(xp, leaf, acc_dtype)), (rows,), LEAF_ROWS)


def _sum_in_runs(xp: Namespace, rows: Array) -> Array:
    """Sum runs of rows, then runs of these sums, and so on. Splitting an axis does not copy."""
    while rows.shape[0] > 2 * SUM_ROWS:
        n, s = rows.shape
        whole = n - n % SUM_ROWS
        sums = _sum_run(xp, xp.reshape(rows[:whole, :], (whole // SUM_ROWS, SUM_ROWS, s)))
        rows = sums if whole == n else xp.concat([sums, rows[whole:, :]], axis=0)
    return _sum_run(xp, rows)


def _sum_run(xp: Namespace, rows: Array) -> Array:
    """Sum the last axis but one, of at most 2 * SUM_ROWS rows.

    In NumPy a vector of ones times the rows takes a twentieth of the time of a sum along a
    long first axis, if the ones are kept.
    """
    if not library(xp).openblas:
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
    turned, leaf_rows, run_rows = schedule(library(xp), left.shape[0], left.shape[1], right.shape[1])
    if turned:
        left, right = right, left
    if leaf_rows and left.shape[0] <= PLAIN_ROWS:  # a narrow product in NumPy
        total = numpy_product_in_runs(cast(xp, left, acc_dtype), cast(xp, right, acc_dtype), run_rows)
    elif leaf_rows:
        leaf = partial(_leaf, xp, acc_dtype, run_rows)
        total = _pairwise(leaf, (left, right), leaf_rows)
    else:
        if not left.dtype == right.dtype == acc_dtype:
            left, right = cast(xp, left, acc_dtype), cast(xp, right, acc_dtype)
        rows = left.shape[0]
        if isinstance(rows, int) and rows > PRODUCT_ROWS:
            left, right = for_blas(xp, left), for_blas(xp, right)
        total = _product(xp, left, right)
    return total.T if turned else total


def _leaf(xp: Namespace, acc_dtype: Any, run_rows: int, left: Array, right: Array) -> Array:
    """Contract one leaf: the products of its runs, then their sum."""
    left, right = (for_blas(xp, cast(xp, matrix, acc_dtype)) for matrix in (left, right))
    (n, c), s = left.shape, right.shape[1]
    runs = n // run_rows
    if runs < 2:
        return _product(xp, left, right)
    whole = runs * run_rows
    first, second = (left, right) if whole == n else (left[:whole, :], right[:whole, :])
    products = xp.matmul(
        xp.matrix_transpose(xp.reshape(first, (runs, run_rows, c))), xp.reshape(second, (runs, run_rows, s))
    )
    total = xp.reshape(sum_rows(xp, xp.reshape(products, (runs, c * s)), acc_dtype), (c, s))
    return total if whole == n else total + _product(xp, left[whole:, :], right[whole:, :])


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


def _pairwise(leaf: Callable[..., Array], arrays: tuple[Array, ...], leaf_rows: int) -> Array:
    """Add ``leaf(*arrays)`` over runs of at most `leaf_rows` rows, in pairs."""
    rows = arrays[0].shape[0]
    if rows <= leaf_rows:
        return leaf(*arrays)
    # All leaves are whole but the last.
    half = -(-rows // leaf_rows) // 2 * leaf_rows
    first = _pairwise(leaf, tuple(a[:half, :] for a in arrays), leaf_rows)
    return first + _pairwise(leaf, tuple(a[half:, :] for a in arrays), leaf_rows)
