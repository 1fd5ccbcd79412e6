"""Second moments on Dask: the sums of each block, added as a tree of pairs, all from the same tasks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .._arrays.namespace import Array
from .._math import moments as in_memory
from .._math.costs import Cost, Sized, costs, rows_and_features
from . import blocks, blockwise
from .blockwise import Output
from .linear import operand, weights_of
from .unify_chunks import Operand


def moments(X: Array, T: Array | None, sample_weight: Array | None, dtype: Any) -> in_memory.Sums:
    """Return the sums over all rows, lazily; each block of X and T has all features."""
    _, dtype = in_memory.check_moments(X, T, sample_weight, dtype)
    n = X.ndim - 1
    operands = [operand("X", blocks.one_block(X, -1), n)]
    lengths = {"c": X.shape[-1], "d": X.shape[-1]}
    if T is not None:
        operands.append(Operand("T", blocks.one_block(T, -1), (*operands[0].index[:n], "s")))
        lengths["s"] = T.shape[-1]
    if sample_weight is not None:
        operands.append(weights_of(sample_weight, operands[0]))
    wanted = {"n": "", "sum_X": "c", "sum_T": "s", "XX": "cd", "XT": "cs", "sum_T2": "s"}
    if T is None:
        wanted = {name: index for name, index in wanted.items() if "s" not in index}
    outputs = [Output(tuple(index), lengths={label: lengths[label] for label in index}) for index in wanted.values()]
    term = partial(_of_block, T is not None, dtype)
    found = dict(zip(wanted, blockwise.contract(term, operands, *outputs), strict=True))
    return in_memory.Sums(*[found.get(name) for name in in_memory.Sums._fields])


def _cost(has_T: bool, dtype: Any, X: Sized, *others: Sized) -> Cost:
    """State the cost of the sums of a block."""
    (n, c), s = rows_and_features(X), others[0].shape[-1] if has_T else 0
    dtype = np.dtype(dtype)
    cast = any(array.dtype != dtype for array in (X, *others))
    held = in_memory.held_by_moments(n, c, s, dtype.itemsize, cast, len(others) > has_T)
    return Cost(2 * n * c * (c + s), held)


@costs(_cost)
def _of_block(has_T: bool, dtype: Any, X: Array, *others: Array) -> tuple[Array, ...]:
    """Return the sums of one block, with the sizes of its arrays compared."""
    T = others[0] if has_T else None
    sample_weight = others[-1] if len(others) > has_T else None
    sums = in_memory.moments(X, T, sample_weight, dtype)
    return tuple(part for part in sums if part is not None)
