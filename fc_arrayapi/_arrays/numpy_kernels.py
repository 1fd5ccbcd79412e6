"""What is special about products and sums of NumPy arrays, in NumPy's own functions, which are the quickest."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from .libraries import NumPyArray

# Dtypes in which NumPy multiplies and adds without BLAS. Other libraries that have them have kernels for them.
HALVES = frozenset({np.dtype("float16"), np.dtype("float16").newbyteorder()})
# Real dtypes in which BLAS multiplies.
OF_BLAS = frozenset({np.dtype("float32"), np.dtype("float64")})
# Elements that are cast to a wider dtype at a time: 4 MiB in float32.
CAST_ELEMENTS = 2**20


def for_blas(matrix: NumPyArray) -> NumPyArray:
    """Return a matrix in a layout that BLAS takes; NumPy 2.0 multiplies others in a slow, less accurate loop."""
    if matrix.ndim != 2:
        return matrix
    (n, c), (down, across), one = matrix.shape, matrix.strides, matrix.itemsize
    fits = (across == one and down >= c * one) or (down == one and across >= n * one)
    return matrix if fits else np.ascontiguousarray(matrix)


def sums_in_pairs(array: NumPyArray, axes: tuple[int, ...]) -> bool:
    """Say whether numpy.sum adds along these axes in pairs. Elsewhere it adds row by row, which loses digits.

    It does if they are the axes along which memory is read, and follow each other in one step.
    """
    if array.flags.c_contiguous:  # the quickest question, and the usual case
        return min(axes) == array.ndim - len(axes)
    inner = sorted((abs(array.strides[axis]), array.shape[axis]) for axis in axes if array.shape[axis] > 1)
    if any(stride * size != following for (stride, size), (following, _) in pairwise(inner)):
        return False
    outer = (abs(array.strides[axis]) for axis in range(array.ndim) if axis not in axes and array.shape[axis] > 1)
    return not inner or all(stride > inner[-1][0] for stride in outer)


def product_in_runs(left: NumPyArray, right: NumPyArray, run_rows: int) -> NumPyArray:
    """Return ``left.T @ right``, multiplied in runs of rows, whose few products are added in one chain.

    With NumPy's own functions: those of array-api-compat take longer than such short products.
    """
    left, right = for_blas(left), for_blas(right)
    (rows, c), s = left.shape, right.shape[1]
    runs, rest = divmod(rows, run_rows)
    first, second = (left[:-rest], right[:-rest]) if rest else (left, right)
    products = first.reshape(runs, run_rows, c).mT @ second.reshape(runs, run_rows, s)
    total: NumPyArray = np.add.reduce(products, axis=0)
    return total + left[-rest:].T @ right[-rest:] if rest else total


def dot_in_runs(a: NumPyArray, b: NumPyArray, run: int) -> NumPyArray:
    """Return the dot products of vectors (..., K), as pairwise sums of the products of short runs."""
    *several, k = a.shape
    runs, rest = divmod(k, run)
    whole = runs * run
    first, second = (a[..., :whole], b[..., :whole]) if rest else (a, b)
    products = first.reshape(*several, runs, 1, run) @ second.reshape(*several, runs, run, 1)
    total: NumPyArray = np.add.reduce(products[..., 0, 0], axis=-1)
    return total + (a[..., None, whole:] @ b[..., whole:, None])[..., 0, 0] if rest else total


def cast_in_runs(a: NumPyArray, b: NumPyArray, acc_dtype: Any, dtype: Any) -> NumPyArray:
    """Multiply NumPy arrays in a wider dtype: the smaller one is cast as a whole, the other a few rows at a time."""
    made = a.size // max(1, a.shape[-1]) * (b.shape[-1] if b.ndim > 1 else 1)
    if a.size + b.size + made <= CAST_ELEMENTS or a.ndim == b.ndim == 1:
        small: NumPyArray = a.astype(acc_dtype, copy=False) @ b.astype(acc_dtype, copy=False)
        return small.astype(dtype, copy=False)
    if a.ndim == 1 or b.ndim == 1 or a.ndim == 2:
        if a.ndim == 1 or (b.ndim == 2 and b.shape[1] > a.shape[0]):
            return cast_in_runs(b.T, a.T, acc_dtype, dtype).T
        out = np.empty((a.shape[0], *b.shape[1:]), dtype)
        b = b.astype(acc_dtype, copy=False)
        held = a.shape[1] + math.prod(b.shape[1:])
    else:
        out = np.empty((*a.shape[:-1], b.shape[-1]), dtype)
        held = (a.size + b.size + out.size) // max(1, a.shape[0])
        if held > CAST_ELEMENTS:
            for k in range(a.shape[0]):
                out[k] = cast_in_runs(a[k], b[k], acc_dtype, dtype)
            return out
    run = max(1, CAST_ELEMENTS // max(1, held))
    cast_a = RowCast(a, run, acc_dtype)
    cast_b = RowCast(b, run, acc_dtype) if a.ndim > 2 else None
    product = None if dtype == acc_dtype else np.empty((run, *out.shape[1:]), acc_dtype)
    for row in range(0, a.shape[0], run):
        rows = slice(row, row + run)
        second = b if cast_b is None else cast_b(b[rows])
        if product is None:
            np.matmul(cast_a(a[rows]), second, out=out[rows])
        else:
            part = out[rows]
            part[...] = np.matmul(cast_a(a[rows]), second, out=product[: len(part)])
    return out


class RowCast:
    """Casts rows of an array, a few at a time, into one buffer: fresh memory for each run would be mapped anew.

    Parameters
    ----------
    array : array
        What the rows are of; they are returned as they are, if they have the dtype.
    rows : int
        The most rows at a time.
    dtype : dtype
        Of the buffer.
    axis : int
        The axis of the rows.
    copy : bool
        Copy rows of the dtype too, so that they can be written to.
    """

    def __init__(self, array: NumPyArray, rows: int, dtype: Any, axis: int = 0, copy: bool = False) -> None:
        self._axis, self._buffer = axis % array.ndim, None
        if copy or array.dtype != dtype:
            shape = list(array.shape)
            shape[axis] = min(rows, shape[axis])
            self._buffer = np.empty(shape, dtype)

    def __call__(self, rows: NumPyArray) -> NumPyArray:
        """Return the rows, valid until the next call."""
        if self._buffer is None:
            return rows
        cast = self._buffer[(slice(None),) * self._axis + (slice(rows.shape[self._axis]),)]
        np.copyto(cast, rows)
        return cast

    def times(self, rows: NumPyArray, weights: NumPyArray) -> NumPyArray:
        """Return rows times a column of weights of the dtype of the buffer, valid until the next call."""
        buffer: NumPyArray = self._buffer  # type: ignore[assignment]  # made with copy=True
        if rows.dtype != buffer.dtype:
            rows = self(rows)
        return np.multiply(rows, weights, out=buffer[: len(rows)])
