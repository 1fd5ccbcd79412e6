"""Gradients of single samples in memory: their norms and inner products, without the array (N, C, S) of all of them.

The gradient of W for sample n is the einsum ``"tc,ts->cs"`` of its rows of X and dY, one for each position t. Its
squared norm, and its inner product with another one, need no (C, S) either: they are ``"tu,tu->"`` of two Gram
matrices of positions, ``"tc,uc->tu"`` of X and ``"ts,us->tu"`` of dY (Goodfellow, arXiv 1510.01799; Li et al., arXiv
2110.05679). That of B is the same with a feature that is 1 in every row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace, cast, is_lazy, own_dtypes
from .._arrays.numpy_kernels import CAST_ELEMENTS
from . import sample_checks
from .costs import Cost, Sized, costs, rows_and_features
from .equations import sum_dtypes
from .lowering import lower
from .products import is_narrow, itemsize_of_sums, product
from .summation import sum_axes, transposed

# Numbers that are held at a time beside the arrays and the result: 4 MiB in float32. Where slices are copies, and a
# compiler writes out every run, there are fewer of more numbers.
ELEMENTS, ELEMENTS_OF_COPIES = 2**20, 2**24

# Where the squared norm is a smaller part of the sum of all absolute terms, its digits have cancelled.
CANCELLED = 1e-3

_of_each_sample, _squares, _bias = lower("ntc,nts->ncs"), lower("nc,nc->n"), lower("nts->ns")


def _cost_of_norms(X: Sized, dY: Sized, *, sample_axes: int, **options: Any) -> Cost:
    """State the cost: Gram matrices or one gradient after the other, in runs of samples."""
    (n, c), (_, s) = rows_and_features(X), rows_and_features(dY)
    t = math.prod(X.shape[sample_axes:-1])
    if t == 1:
        return Cost(2 * n * (c + s), _held((X, dY), 3 * n))
    one = 4 * t * t if 2 * t * t < c * s else c * s
    samples = n // max(1, t)
    return Cost(2 * n * min(c * s, t * (c + s)), _held((X, dY), 4 * samples + _in_run(samples, one)))


def _cost_of_dots(X: Sized, dY: Sized, Xq: Sized, dYq: Sized, *, sample_axes: int, **options: Any) -> Cost:
    (n, c), (_, s) = rows_and_features(X), rows_and_features(dY)
    q, t, u = math.prod(Xq.shape[:sample_axes]), *(math.prod(x.shape[sample_axes:-1]) for x in (X, Xq))
    arrays, samples = (X, dY, Xq, dYq), n // max(1, t)
    if t == u == 1:
        return Cost(2 * n * q * (c + s), _held(arrays, _in_run(n, 4 * q)))
    if c * s * (t + q) < t * u * q * (c + s):
        return Cost(2 * n * c * s * (1 + q), _held(arrays, _in_run(samples, c * s) + q * c * s))
    return Cost(2 * n * u * q * (c + s), _held(arrays, _in_run(samples, t * (c + s) + 3 * t * u * q)))


def _in_run(samples: int, elements: int) -> int:
    """Return the numbers that `_in_runs` holds for this many numbers of each sample."""
    return min(samples * elements, max(ELEMENTS, elements))


def _held(arrays: Sequence[Sized], elements: int) -> int:
    """Return the bytes of `elements` numbers in the dtype of the sums, plus a run of rows if rows are cast."""
    dtypes = [array.dtype for array in arrays]
    return (elements + (CAST_ELEMENTS if is_narrow(*dtypes) else 0)) * itemsize_of_sums(*dtypes)


@costs(_cost_of_norms)
def norms(X: Array, dY: Array, needs: Sequence[str], sample_axes: int) -> Any:
    """Return the norm of each sample's gradient; NotImplemented for a Dask batch."""
    if is_lazy(X):
        return NotImplemented
    xp = sample_checks.check_per_sample("per_sample_norms", X, dY, sample_axes)
    if (in_own_dtypes := own_dtypes(X)) is not None:
        with in_own_dtypes:
            return norms(X, dY, needs, sample_axes)
    dtype, _ = sum_dtypes(xp, (X.dtype, dY.dtype))
    x, d = (_samples(xp, array, sample_axes) for array in (X, dY))
    found = _norms(xp, x, d, "dW" in needs, "dB" in needs)
    return xp.reshape(cast(xp, found, dtype), X.shape[:sample_axes])


@costs(_cost_of_dots)
def dots(X: Array, dY: Array, Xq: Array, dYq: Array, needs: Sequence[str], sample_axes: int) -> Any:
    """Return the inner product of each sample's gradient with that of each query; NotImplemented for a Dask batch."""
    if is_lazy(X):
        return NotImplemented
    xp = sample_checks.check_per_sample("per_sample_dots", X, dY, sample_axes, Xq, dYq)
    if (in_own_dtypes := own_dtypes(X)) is not None:
        with in_own_dtypes:
            return dots(X, dY, Xq, dYq, needs, sample_axes)
    dtype, _ = sum_dtypes(xp, (X.dtype, dY.dtype, Xq.dtype, dYq.dtype))
    x, d, xq, dq = (_samples(xp, array, sample_axes) for array in (X, dY, Xq, dYq))
    found = _dots(xp, x, d, xq, dq, "dW" in needs, "dB" in needs, dtype)
    return xp.reshape(found, (*X.shape[:sample_axes], *Xq.shape[:sample_axes]))


def _samples(xp: Namespace, array: Array, sample_axes: int) -> Array:
    """Return an array as (samples, positions, features)."""
    shape = array.shape
    if len(shape) == 3 and sample_axes == 1:
        return array
    samples = positions = 1
    for axis, size in enumerate(shape[:-1]):
        if axis < sample_axes:
            samples *= size
        else:
            positions *= size
    return xp.reshape(array, (samples, positions, shape[-1]))


def _norms(xp: Namespace, x: Array, d: Array, dW: bool, dB: bool) -> Array:
    if not dW:
        d = _bias(xp, d, False)
        return xp.sqrt(_squares(xp, d, d, False))
    (n, t, c), s = x.shape, d.shape[2]
    if t == 1:  # the product of two norms, which does not overflow before it does
        x, d = xp.reshape(x, (n, c)), xp.reshape(d, (n, s))
        features = _squares(xp, x, x, False)
        return xp.sqrt(features + 1 if dB else features) * xp.sqrt(_squares(xp, d, d, False))
    if 2 * t * t < c * s:
        _, acc_dtype = sum_dtypes(xp, (x.dtype, d.dtype))
        is_cast = not x.dtype == d.dtype == acc_dtype
        held = 3 * t * min(t, _rows(xp, t)) + (t * (c + s) if is_cast else 0)
        squares = _in_runs(xp, lambda x, d: _of_grams(xp, x, d, dB), (x, d), held)
    else:
        squares = _in_runs(xp, lambda x, d: _direct(xp, x, d, dB), (x, d), c * s)
    return xp.sqrt(xp.where(squares > 0, squares, 0 * squares))


def _rows(xp: Namespace, t: int) -> int:
    """Return how many rows of a Gram matrix of `t` positions are held at a time."""
    return max(1, _elements(xp) // max(1, 3 * t))


def _elements(xp: Namespace) -> int:
    return ELEMENTS_OF_COPIES if library(xp).slices_copy else ELEMENTS


def _of_grams(xp: Namespace, x: Array, d: Array, dB: bool) -> Array:
    """Return the squared norms of a few samples, from the Gram matrices of their positions."""
    t, rows = x.shape[1], _rows(xp, x.shape[1])
    turned_x, turned_d = transposed(xp, x), transposed(xp, d)
    total: Any = None
    squares: Any = None
    for row in range(0, max(1, t), rows):
        some = slice(row, min(row + rows, t))
        gram = product(xp, x[:, some, :], turned_x, False)
        parts = (gram + 1 if dB else gram) * product(xp, d[:, some, :], turned_d, False)
        flat = xp.reshape(parts, (parts.shape[0], parts.shape[1] * t))
        sums = sum_axes(xp, flat, (1,)), sum_axes(xp, flat * flat, (1,))
        total, squares = sums if total is None else (total + sums[0], squares + sums[1])
    values_known = library(xp).values_known
    if values_known is None or values_known(total):
        # T times the root of the sum of squares of T x T terms is at least the sum of their absolute values.
        cancelled = total < CANCELLED * t * xp.sqrt(squares)
        if bool(xp.any(cancelled)):
            found = _in_runs(xp, lambda x, d: _direct(xp, x, d, dB), (x, d), x.shape[2] * d.shape[2])
            return xp.where(cancelled, found, total)
    return total


def _direct(xp: Namespace, x: Array, d: Array, dB: bool) -> Array:
    """Return the squared norms of a few samples, from their gradients of W."""
    gradients = _of_each_sample(xp, x, d, False)
    flat = xp.reshape(gradients, (gradients.shape[0], gradients.shape[1] * gradients.shape[2]))
    squares = _squares(xp, flat, flat, False)
    if dB:
        bias = _bias(xp, d, False)
        squares = squares + _squares(xp, bias, bias, False)
    return squares


def _dots(xp: Namespace, x: Array, d: Array, xq: Array, dq: Array, dW: bool, dB: bool, dtype: Any) -> Array:
    (_, t, c), s, (q, u, _) = x.shape, d.shape[2], xq.shape
    if not dW:
        bias = transposed(xp, _bias(xp, dq, False))
        return cast(xp, product(xp, _bias(xp, d, False), bias, False), dtype)
    if t == u == 1:
        features, outputs = (transposed(xp, xp.reshape(a, (q, a.shape[2]))) for a in (xq, dq))

        def of_rows(x: Array, d: Array) -> Array:
            x, d = (xp.reshape(a, (a.shape[0], a.shape[2])) for a in (x, d))
            gram = product(xp, x, features, False)
            return cast(xp, (gram + 1 if dB else gram) * product(xp, d, outputs, False), dtype)

        return _in_runs(xp, of_rows, (x, d), 3 * q)
    if c * s * (t + q) < t * u * q * (c + s):
        queries = _of_each_sample(xp, xq, dq, False)
        flat_queries = transposed(xp, xp.reshape(queries, (q, c * s)))
        bias = transposed(xp, _bias(xp, dq, False))

        def of_gradients(x: Array, d: Array) -> Array:
            gradients = _of_each_sample(xp, x, d, False)
            found = product(xp, xp.reshape(gradients, (gradients.shape[0], c * s)), flat_queries, False)
            return cast(xp, found + product(xp, _bias(xp, d, False), bias, False) if dB else found, dtype)

        return _in_runs(xp, of_gradients, (x, d), c * s)
    at_once = max(1, _elements(xp) // max(1, 3 * t * u))  # queries

    def of_positions(x: Array, d: Array) -> Array:
        m = x.shape[0]
        x, d = (xp.reshape(a, (m * t, a.shape[2])) for a in (x, d))
        found = []
        for first in range(0, max(1, q), at_once):
            some = slice(first, min(first + at_once, q))
            features, outputs = (
                transposed(xp, xp.reshape(a[some, :, :], ((some.stop - first) * u, a.shape[2]))) for a in (xq, dq)
            )
            gram = product(xp, x, features, False)
            parts = (gram + 1 if dB else gram) * product(xp, d, outputs, False)
            found.append(sum_axes(xp, xp.reshape(parts, (m, t, some.stop - first, u)), (1, 3)))
        return cast(xp, found[0] if len(found) == 1 else xp.concat(found, axis=1), dtype)

    return _in_runs(xp, of_positions, (x, d), t * (c + s) + 3 * t * u * min(q, at_once))


def _in_runs(xp: Namespace, function: Callable[..., Array], arrays: tuple[Array, ...], elements: int) -> Array:
    """Apply a function to a few samples at a time and join the results; for one sample it holds `elements` numbers."""
    n, run = arrays[0].shape[0], max(1, _elements(xp) // max(1, elements))
    if not isinstance(n, int) or n <= run:
        return function(*arrays)
    out: Any = None
    parts = []
    for first in range(0, n, run):
        part = function(*(array[first : min(first + run, n), ...] for array in arrays))
        if library(xp).openblas:  # NumPy's arrays can be written to, so that results are not held twice
            out = xp.empty((n, *part.shape[1:]), dtype=part.dtype) if out is None else out
            out[first : first + run] = part
            del part  # else it is held beside the next one
        else:
            parts.append(part)
    return xp.concat(parts, axis=0) if out is None else out
