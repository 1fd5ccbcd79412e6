"""Second moments of a batch in memory: each run of rows is cast once, and all sums are taken of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from .._arrays import namespace
from .._arrays.libraries import library
from .._arrays.namespace import Array, Namespace, cast, is_lazy, own_dtypes
from .._arrays.numpy_kernels import RowCast
from . import checks, sample_checks
from .linear import column_of_weights, rows
from .summation import (
    PARTIAL_ELEMENTS,
    held_by_rows,
    held_by_sum,
    pairwise,
    rows_cast_at_once,
    sum_products,
    sum_rows,
    sums_at_once,
)

_WHERE = "moments"

# Returns rows in the dtype of the sums.
Cast: TypeAlias = Callable[[Array], Array]


class Sums(NamedTuple):
    """The sums over rows, with None for those of T where there is none. Those of two parts of a batch add up."""

    n: Any
    sum_X: Any
    sum_T: Any
    XX: Any
    XT: Any
    sum_T2: Any

    def __add__(self, other: Any) -> Sums:
        """Add the sums of other rows."""
        return Sums(*[None if a is None else a + b for a, b in zip(self, other, strict=True)])

    def __iadd__(self, other: Any) -> Sums:
        """Add the sums of other rows, without another copy of a large array."""
        sums = list(self)
        for k, part in enumerate(other):
            if part is not None:
                sums[k] += part
        return Sums(*sums)


def moments(X: Array, T: Array | None, sample_weight: Array | None, dtype: Any) -> Any:
    """Return the sums over all rows; NotImplemented for a Dask batch."""
    if is_lazy(X):
        return NotImplemented
    xp, dtype = check_moments(X, T, sample_weight, dtype)
    if (in_own_dtypes := own_dtypes(X)) is not None:
        with in_own_dtypes:
            return moments(X, T, sample_weight, dtype)
    arrays = [rows(xp, X)]
    if T is not None:
        arrays.append(rows(xp, T))
    if sample_weight is not None:
        arrays.append(column_of_weights(xp, sample_weight, X))
    return _sums(xp, tuple(arrays), T is not None, dtype)


def check_moments(X: Array, T: Array | None, sample_weight: Array | None, dtype: Any) -> tuple[Namespace, Any]:
    """Check the arguments of `moments`; return the namespace, and `dtype` as the library's own."""
    given = {"X": X, "T": T, "sample_weight": sample_weight}
    arrays = {name: array for name, array in given.items() if array is not None or name == "X"}
    xp = checks.check_arrays(_WHERE, tuple(arrays), tuple(arrays.values()), lifted=("sample_weight",))
    sample_checks.check_same_rows(_WHERE, arrays)
    if sample_weight is not None:
        sample_checks.check_sample_weight(_WHERE, X, sample_weight)
    return xp, namespace.float_dtype(xp, dtype)


def _sums(xp: Namespace, arrays: tuple[Array, ...], has_T: bool, dtype: Any) -> Sums:
    n, C = arrays[0].shape
    S = arrays[1].shape[1] if has_T else 0
    leaf_rows = rows_of_run(C + S, C)
    if library(xp).openblas:
        casts: list[Cast] = [RowCast(array, leaf_rows, dtype) for array in arrays]
    else:
        casts = [partial(_cast, xp, dtype)] * len(arrays)
    leaf = partial(_of_run, xp, has_T, dtype, casts)
    if not isinstance(n, int) or n == 0:
        return leaf(*arrays)
    if C * (C + S) <= PARTIAL_ELEMENTS // 8:
        total: Sums = pairwise(leaf, arrays, leaf_rows)
        return total
    total = leaf(*(array[: min(leaf_rows, n), :] for array in arrays))
    for row in range(leaf_rows, n, leaf_rows):
        total += leaf(*(array[row : min(row + leaf_rows, n), :] for array in arrays))
    return total


def held_by_moments(n: int, C: int, S: int, itemsize: int, cast: bool, weighted: bool) -> int:
    """Return the most bytes that `moments` of NumPy arrays holds beside its result.

    Parameters
    ----------
    n, C, S : int
        The rows and the features of X and T.
    itemsize : int
        Bytes of a number of the dtype of the sums.
    cast, weighted : bool
        Whether an array has another dtype, and whether there are weights.
    """
    leaf_rows = rows_of_run(C + S, C)
    run, sums = min(n, leaf_rows), C * (C + S)
    columns = (C + S + 1) * cast + (C if weighted else 1) + 2 * S
    # Beside a large total there is that of a run, and heaps keep as much again of the one before it.
    kept = sums_at_once(n, leaf_rows) if sums <= PARTIAL_ELEMENTS // 8 else 2 * (n > leaf_rows)
    product = max(held_by_sum(run, C, C, itemsize), held_by_sum(run, C, S, itemsize) if S else 0)
    return (run * columns + kept * sums) * itemsize + max(product, held_by_rows(run, max(C, S, 1), itemsize))


def rows_of_run(elements: int, C: int) -> int:
    """Return the rows of a run: 8 MiB in float64, and at least C, so that adding (C, C) takes little time."""
    return max(rows_cast_at_once(elements), C)


def _cast(xp: Namespace, dtype: Any, array: Array) -> Array:
    return cast(xp, array, dtype)


def _of_run(xp: Namespace, has_T: bool, dtype: Any, casts: Sequence[Cast], *arrays: Array) -> Sums:
    """Return the sums over a run of rows."""
    x, *cast_others = (in_dtype(array) for in_dtype, array in zip(casts, arrays, strict=True))
    t = cast_others[0] if has_T else None
    w = cast_others[-1] if len(cast_others) > has_T else None
    # One array times itself: NumPy sees that, and its BLAS computes half of the symmetric result.
    weighted = x if w is None else w * x
    ones = xp.ones((x.shape[0], 1), dtype=dtype, device=namespace.device(x)) if w is None else w
    return Sums(
        n=xp.reshape(sum_rows(xp, ones, dtype), ()),
        sum_X=sum_rows(xp, weighted, dtype),
        sum_T=None if t is None else sum_rows(xp, t if w is None else w * t, dtype),
        XX=sum_products(xp, weighted, x, dtype),
        XT=None if t is None else sum_products(xp, weighted, t, dtype),
        sum_T2=None if t is None else sum_rows(xp, t * t if w is None else w * t * t, dtype),
    )
