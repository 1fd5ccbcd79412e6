"""The layer on chunked Dask arrays, block by block. The one file that knows Dask.

A function of in-memory arrays is mapped over the blocks of the batch; each block is checked
again inside its task, which is where unknown chunk sizes are compared. Only ``blockwise`` and
``reduction`` are used: both work with ``array.query-planning`` on and off, and building
computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from . import namespace
from .namespace import Array


def map_batch(func: Callable[..., Array], X: Array, *whole: Array, features: int) -> Array:
    """Apply ``func(block, *whole)`` to every batch block of X.

    Parameters
    ----------
    func : callable
        Gives (n, features) for a block (n, C). Importable, so that a task can travel to
        another process.
    X : dask array, shape (..., C)
        The batch.
    *whole : dask or NumPy arrays
        Arrays that every block needs in full.
    features : int
        The size of the result's last axis.

    Returns
    -------
    dask array, shape (..., features)
        With the batch chunks of X.
    """
    import dask.array as da

    X = _one_feature_block(X)
    whole = tuple(_lift(array, X) for array in whole)
    # The result's last axis takes the place of X's, which is one block too. No index of X is
    # summed, so Dask hands over its plain blocks and concatenates nothing.
    index = (*_batch_index(X), "features")
    operands: list[Any] = [X, index]
    for i, array in enumerate(whole):
        operands += [array, tuple(f"whole{i}_{axis}" for axis in range(array.ndim))]
    return da.blockwise(
        _apply_to_block,
        index,
        *operands,
        apply=func,
        adjust_chunks={"features": features},
        align_arrays=False,
        meta=func(X._meta, *(array._meta for array in whole)),
    )


def sum_batch(func: Callable[..., Array], *arrays: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Sum ``func(*blocks)`` over the batch blocks of the arrays, as a tree of pairs.

    Parameters
    ----------
    func : callable
        Gives a term of shape `shape` for one block of each array. Importable, as in `map_batch`.
    *arrays : dask arrays, shapes (..., C) and (..., S)
        With the same leading axes.
    shape : tuple of int
        The shape of every term and of the sum.
    dtype : dtype
        The dtype of the sum; the terms may have a wider one.

    Returns
    -------
    dask array, of `shape` and `dtype`, one block
        While it is computed, one thread holds at most log2(blocks) + 2 terms.
    """
    import dask.array as da

    arrays = align_batch(*arrays)
    batch = _batch_index(arrays[0])
    meta = func(*(array._meta for array in arrays))
    xp = namespace.of(meta)
    term = tuple(f"term{axis}" for axis in range(len(shape)))
    operands: list[Any] = []
    for i, array in enumerate(arrays):
        operands += [array, (*batch, f"features{i}")]
    terms = da.blockwise(
        _term_of_block,
        (*batch, *term),
        *operands,
        apply=func,
        new_axes=dict(zip(term, shape, strict=True)),
        adjust_chunks=dict.fromkeys(batch, 1),
        align_arrays=False,
        meta=xp.zeros((0,) * (len(batch) + len(shape)), dtype=meta.dtype),
    )
    return da.reduction(
        terms,
        chunk=_keep,
        combine=_add,
        aggregate=_add_and_finish,
        axis=tuple(range(len(batch))),
        keepdims=False,
        concatenate=False,
        split_every=2,
        dtype=dtype,
        meta=xp.zeros((0,) * len(shape), dtype=dtype),
    )


def align_batch(*arrays: Array) -> tuple[Array, ...]:
    """Give all arrays the batch chunks of the first one, and one block of features each.

    Raises
    ------
    ValueError
        If chunk sizes are unknown and the arrays have different numbers of blocks.
    """
    first = _one_feature_block(arrays[0])
    aligned = [first]
    for array in arrays[1:]:
        array = _one_feature_block(array)
        for axis, (mine, theirs) in enumerate(zip(first.chunks[:-1], array.chunks[:-1], strict=True)):
            if sum(mine) == sum(theirs):  # never so where one of them is nan
                array = array.rechunk({axis: mine})
            elif len(mine) != len(theirs):
                raise ValueError(
                    f"axis n (batch, axis {axis}): X has {len(mine)} blocks, dY has {len(theirs)}, and their sizes "
                    f"are not all known: call compute_chunk_sizes() on the array whose shape has nan"
                )
        aligned.append(array)
    return tuple(aligned)


def from_source(source: Any, rows: int) -> Array:
    """Make a Dask array of whatever has a shape, a dtype and slices, with `rows` rows in a block."""
    import dask.array as da

    return da.from_array(source, chunks=(rows, *source.shape[1:]))


def compute(*arrays: Array, progress: bool = False) -> tuple[Any, ...]:
    """Compute several lazy results in one pass over the data they share.

    Each block of X and dY is read once for all results, and while the pass runs BLAS uses
    one thread for each of Dask's: two of each on two cores take 1.4 times as long.

    Parameters
    ----------
    *arrays : dask arrays, or nested tuples of them such as `Gradients`
        Whatever is not lazy is passed through.
    progress : bool
        Show Dask's progress bar.

    Returns
    -------
    tuple
        One computed result for each argument.

    Examples
    --------
    >>> import numpy as np, dask.array as da
    >>> import fc_arrayapi as fc
    >>> X, W = da.ones((6, 2), chunks=(2, 2)), np.ones((2, 3))
    >>> Y = fc.forward(X, W)
    >>> loss, grads = fc.compute((Y**2).sum() / 2, fc.backward(X, W, Y, needs=("dW",)))
    >>> float(loss), grads.dW.shape
    (36.0, (2, 3))
    """
    import dask
    from dask.diagnostics import ProgressBar
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"), ProgressBar() if progress else nullcontext():
        return tuple(dask.compute(*arrays))


def _batch_index(array: Array) -> tuple[str, ...]:
    return tuple(f"batch{axis}" for axis in range(array.ndim - 1))


def _one_feature_block(array: Array) -> Array:
    return array if array.numblocks[-1] == 1 else array.rechunk({array.ndim - 1: -1})


def _lift(array: Array, like: Array) -> Array:
    """Return a Dask array of one block; a NumPy array gets a name made from its content."""
    import dask.array as da

    if namespace.is_chunked(namespace.of(array)):
        return array if max(array.numblocks) == 1 else array.rechunk(-1)
    # The library of X's blocks decides, so that a NumPy weight meets CuPy blocks as CuPy.
    return da.from_array(namespace.of(like._meta, "a block of X").asarray(array), chunks=-1)


def _apply_to_block(block: Array, *whole: Any, apply: Callable[..., Array]) -> Array:
    return apply(block, *map(_only, whole))


def _term_of_block(*blocks: Any, apply: Callable[..., Array]) -> Array:
    """Compute the term of one block, with an axis of size 1 in the place of each batch axis."""
    arrays = [_only(block) for block in blocks]
    term = apply(*arrays)
    return namespace.of(term).reshape(term, (1,) * (arrays[0].ndim - 1) + term.shape)


def _only(block: Any) -> Array:
    """Take the one block out of the nested lists in which Dask hands over a summed index."""
    while isinstance(block, list):
        (block,) = block
    return block


def _keep(term: Array, axis: Any = None, keepdims: Any = None) -> Array:
    return term


def _add(terms: Any, axis: Any = None, keepdims: Any = None) -> Array:
    """Add terms that come in lists, nested once for each batch axis."""
    if not isinstance(terms, list):
        return terms
    total = _add(terms[0])
    for other in terms[1:]:
        total = total + _add(other)
    return total


def _add_and_finish(terms: Any, axis: tuple[int, ...], keepdims: Any = None, dtype: Any = None) -> Array:
    total = _add(terms)
    xp = namespace.of(total)
    return xp.astype(xp.reshape(total, total.shape[len(axis) :]), dtype, copy=False)
