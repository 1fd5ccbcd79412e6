"""The adjoint identities of the layer, measured on a batch of any size in one pass.

Y is linear in each of X, W and B, so the gradients are right if and only if inner products agree:
<dY, UW> = <dX, U>, <dY, XU> = <dW, U> and <dY, 1U> = <dB, U> for every U. Here U is a random row
of dX, a random row or column of dW, or an entry of dB, for each row, column and entry in turn: an
error is found with probability one, also in a feature of small scale, and only a block of rows is
held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .._arrays import namespace
from .._arrays.libraries import NumPyArray
from .._arrays.namespace import Array, Namespace, to_numpy
from .._dask import blocks, blockwise, compute, unify_chunks
from .._dask import linear as layer_on_dask
from .._dask.blockwise import Output
from .._dask.unify_chunks import Operand
from .._math import linear as in_memory

# Rows converted to float64 at a time.
SLICE_ROWS = 4096
# In a smaller sum of squares, some may have underflowed to zero.
SMALLEST_SQUARE = 1e-250


def in_one_pass(
    xp: Namespace, arrays: Mapping[str, Array | None], directions: int, seed: int, tiny: Mapping[str, float]
) -> tuple[NumPyArray, dict[str, Any]]:
    """Return what `_measure` gives, and W, B, dW and dB in memory."""
    small = {name: arrays.get(name) for name in ("W", "B", "dW", "dB")}
    by_rows = {name: arrays[name] for name in ("X", "dY", "W", "B", "Y", "dX") if arrays.get(name) is not None}
    measure = partial(_measure, directions=directions, seed=seed, tiny=tiny)
    if not namespace.is_chunked(xp):
        return measure(tuple(by_rows), *by_rows.values()), small
    measured = _measured_by_block(measure, by_rows, directions)
    measured, values = compute.compute(measured, tuple(small.values()))
    return measured.reshape(-1), dict(zip(small, values, strict=True))


def _measured_by_block(measure: Callable[..., NumPyArray], arrays: Mapping[str, Array], directions: int) -> Array:
    """Measure each block of a Dask batch in one task, and merge the numbers of the blocks in pairs."""
    X = arrays["X"]
    n = tuple(f"n{axis}" for axis in range(X.ndim - 1))
    operands = []
    for name, array in arrays.items():
        whole = blocks.lift(name, array, X) if name in ("W", "B") else array
        for axis, label in enumerate(layer_on_dask.axes(name, len(n))):
            whole = whole if label in n else blocks.one_block(whole, axis)
        operands.append(layer_on_dask.operand(name, whole, len(n)))
    # Arrays with the numbers of the blocks come first: the result has one row for each block.
    length = _length(arrays["W"], directions)
    places = [
        *(
            Operand(label, blocks.from_source(np.arange(count), 1), (label,))
            for label, count in zip(n, X.numblocks[:-1], strict=True)
        ),
        Operand("place", blocks.from_source(np.empty(length), length), ("k",)),
    ]
    (measured,) = blockwise.contract(
        partial(_measure_block, measure, tuple(arrays), len(n)),
        [*places, *unify_chunks.align(operands)],
        Output((*n, "k")),
    )
    merge = partial(_merged, directions=directions)
    for axis in range(len(n)):
        measured = blocks.dask_array().reduction(
            measured, merge, merge, axis=axis, keepdims=True, split_every=2, dtype=measured.dtype, meta=measured._meta
        )
    return measured


def _measure_block(
    measure: Callable[..., NumPyArray], names: tuple[str, ...], batch_axes: int, *blocks: Array
) -> NumPyArray:
    """Return the numbers of one block; the first arguments only give its place."""
    return measure(names, *blocks[batch_axes + 1 :]).reshape(*(1,) * batch_axes, -1)


def _measure(
    names: tuple[str, ...], *arrays: Array, directions: int, seed: int, tiny: Mapping[str, float]
) -> NumPyArray:
    """Return the numbers of some rows, in the order of `_parts`."""
    given = dict(zip(names, arrays, strict=True))
    W = float64(given.pop("W"))
    B = float64(given.pop("B")) if "B" in given else np.zeros(W.shape[1])
    total = np.zeros((1, _length(W, directions)))
    merged = {name: in_memory.rows(namespace.of(array), array) for name, array in given.items()}
    rows = int(merged["X"].shape[0])
    for start in range(0, rows, SLICE_ROWS):
        part = {name: float64(array[start : min(start + SLICE_ROWS, rows), :]) for name, array in merged.items()}
        numbers = _measure_slice(part, W, B, *_directions(W, directions, seed), tiny)
        total = _merged(np.stack([total[0], numbers]), directions=directions)
    return np.asarray(total[0])


def _measure_slice(
    part: Mapping[str, NumPyArray],
    W: NumPyArray,
    B: NumPyArray,
    over_C: NumPyArray,
    over_S: NumPyArray,
    tiny: Mapping[str, float],
) -> NumPyArray:
    """Return the numbers of at most SLICE_ROWS rows."""
    X, dY = part["X"], part["dY"]
    off_Y = off_dX = np.zeros(over_C.shape[1])
    if "Y" in part:
        Y = part["Y"]
        terms = np.hypot(_roots(X, _roots(W, over_S)), _roots(B[None, :], over_S))
        scale = np.hypot(terms, _roots(Y, over_S))
        off_Y = distance(Y @ over_S, X @ (W @ over_S) + B @ over_S, scale, tiny["Y"]).max(axis=0)
    if "dX" in part:
        dX = part["dX"]
        scale = np.hypot(_roots(dY, _roots(W.T, over_C)), _roots(dX, over_C))
        off_dX = distance(dY @ (W.T @ over_C), dX @ over_C, scale, tiny["dX"]).max(axis=0)
    sides = np.concatenate([X.T @ (dY @ over_S), dY.T @ (X @ over_C)])
    roots = np.concatenate([_roots(X.T, _roots(dY, over_S)), _roots(dY.T, _roots(X, over_C))])
    of_dB = dY.sum(axis=0), _roots(dY.T, np.ones((len(dY), 1))).ravel()
    return np.concatenate([off_Y, off_dX, sides.ravel(), of_dB[0], [len(X)], roots.ravel(), of_dB[1]])


def number_of_rows(measured: NumPyArray, directions: int) -> int:
    """Return the number of rows that were measured."""
    return int(_parts(measured, directions)[1][-1])


def _length(W: Array, directions: int) -> int:
    """Return the length of the result of `_measure`."""
    C, S = map(int, W.shape)
    return 2 * directions + 1 + 2 * ((C + S) * directions + S)


def _parts(numbers: NumPyArray, directions: int) -> tuple[NumPyArray, NumPyArray, NumPyArray]:
    """Split the numbers of some rows into three parts.

    The largest errors of Y and dX, one for each direction; the left sides for dW (each row, then each column) and dB,
    then the number of rows; and the roots of the sums of squares of the left sides.
    """
    largest = 2 * directions
    offs, sums, roots = np.split(numbers, [largest, (numbers.shape[-1] + largest + 1) // 2], axis=-1)
    return offs, sums, roots


def _merged(numbers: NumPyArray, axis: Any = 0, keepdims: Any = True, *, directions: int) -> NumPyArray:
    """Merge the numbers of several runs of rows along an axis, which is kept, as Dask asks with `keepdims`."""
    merges = np.maximum, np.add, np.hypot  # all three keep nan
    parts = zip(merges, _parts(numbers, directions), strict=True)
    return np.concatenate([merge.reduce(part, axis=axis, keepdims=True) for merge, part in parts], axis=-1)


def compared(
    measured: NumPyArray,
    arrays: Mapping[str, Any],
    small: Mapping[str, Any],
    directions: int,
    seed: int,
    tiny: Mapping[str, float],
) -> dict[str, float]:
    """Return the error of each identity, for results of the right shape."""
    largest, sums, roots = _parts(measured, directions)
    offs = {name: part for name, part in zip(("Y", "dX"), np.split(largest, 2), strict=True) if name in arrays}
    over_C, over_S = _directions(small["W"], directions, seed)
    of_dW = (len(over_C) + len(over_S)) * directions
    if "dW" in arrays:
        dW = float64(small["dW"])
        sides = np.concatenate([dW @ over_S, dW.T @ over_C]).ravel()
        scale = np.hypot(roots[:of_dW], np.concatenate([_roots(dW, over_S), _roots(dW.T, over_C)]).ravel())
        offs["dW"] = distance(sums[:of_dW], sides, scale, tiny["dW"])
    if "dB" in arrays:
        dB = float64(small["dB"])
        offs["dB"] = distance(sums[of_dW:-1], dB, np.hypot(roots[of_dW:], dB), tiny["dB"])
    return {name: float(off.max(initial=0.0)) for name, off in offs.items()}


def distance(left: Any, right: Any, scale: Any, tiny: float = float(np.finfo("float64").tiny)) -> NumPyArray:
    """Return the difference of two sides, relative to the root of the sum of squares of their products.

    Below the smallest normal number relative errors have no meaning.
    """
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(scale), np.abs(left - right) / (scale + tiny), np.nan)


def _roots(left: NumPyArray, right: NumPyArray) -> NumPyArray:
    """Return the root of the sum of the squares of the products of each row and each column."""
    with np.errstate(all="ignore"):
        squares = left**2 @ right**2
        # Where squares overflow or underflow, rows and columns are scaled by their largest number first.
        lost = ~((squares > SMALLEST_SQUARE) & (squares < np.inf)).all(axis=1)
        roots = np.sqrt(squares)
        if lost.any():
            rows = np.abs(left[lost]).max(axis=1, keepdims=True, initial=0.0)
            columns = np.abs(right).max(axis=0, keepdims=True, initial=0.0)
            rows[rows == 0], columns[columns == 0] = 1.0, 1.0
            roots[lost] = rows * (columns * np.sqrt((left[lost] / rows) ** 2 @ (right / columns) ** 2))
    return np.asarray(roots)


def _directions(W: Array, directions: int, seed: int) -> tuple[NumPyArray, NumPyArray]:
    """Return random vectors over C and over S, one in each column."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(W.shape[0], directions)), rng.normal(size=(W.shape[1], directions))


def float64(array: Array) -> NumPyArray:
    """Return an array of any library as NumPy's, in float64."""
    return to_numpy(array).astype("float64", copy=False)
