"""Contractions of chunked Dask arrays, block by block. Only running.py knows Dask besides.

A function of in-memory arrays is mapped over the blocks. It checks each block again inside
the task, which is where unknown chunk sizes are compared. Only ``blockwise`` and ``reduction``
are used: both work with ``array.query-planning`` on and off, and building computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import namespace
from .namespace import Array


def contract(
    func: Callable[..., Array],
    names: Sequence[str],
    operands: Sequence[Array],
    indices: Sequence[Sequence[str]],
    output: Sequence[str],
    *,
    dtype: Any = None,
) -> Array:
    """Contract chunked arrays block by block with a function of in-memory arrays.

    Parameters
    ----------
    func : callable
        Contracts one block of each operand to a block of the output. Importable, so that a
        task can travel to another process.
    names : sequence of str
        The operands' names, for errors.
    operands : sequence of dask arrays
        Those after the first take its chunks along the indices that they share.
    indices : sequence of sequence of str
        The index of each axis of each operand.
    output : sequence of str
        The index of each axis of the result.
    dtype : dtype, optional
        The dtype of the result, where `func` gives a wider one for sums.

    Returns
    -------
    dask array
        Indices that the output has keep their chunks. The blocks of an index that it has not
        are summed as a tree of pairs: one thread holds at most log2(blocks) + 2 terms.

    Raises
    ------
    ValueError
        If chunk sizes are unknown and the operands have different numbers of blocks.
    """
    da = dask_array()
    operands, indices = _one_index_an_axis(operands, indices)
    operands = align(names, operands, indices)
    blocks = {
        label: count
        for array, index in zip(operands, indices, strict=True)
        for label, count in zip(index, array.numblocks, strict=True)
    }
    # A summed index of one block is left to `func`, which gets that block in a list.
    summed = tuple(label for label, count in blocks.items() if count > 1 and label not in output)
    meta = func(*(array._meta for array in operands))
    xp = namespace.of(meta)
    dtype = meta.dtype if dtype is None else dtype
    index = (*output, *summed)
    terms = da.blockwise(
        _contract_blocks,
        index,
        *(part for pair in zip(operands, indices, strict=True) for part in pair),
        apply=func,
        summed=len(summed),
        adjust_chunks=dict.fromkeys(summed, 1),
        align_arrays=False,
        meta=xp.zeros((0,) * len(index), dtype=meta.dtype),
    )
    # One index at a time: over several at once Dask's tree holds 2 to the power of their number.
    for axis in range(len(output), len(index)):
        terms = da.reduction(
            terms,
            chunk=_keep,
            aggregate=_add,
            axis=axis,
            keepdims=True,
            concatenate=False,
            split_every=2,
            dtype=meta.dtype,
            meta=xp.zeros((0,) * len(index), dtype=meta.dtype),
        )
    if not summed and dtype == meta.dtype:
        return terms
    return da.blockwise(
        _finish,
        tuple(output),
        terms,
        index,
        kept=len(output),
        dtype_of_sum=dtype,
        align_arrays=False,
        meta=xp.zeros((0,) * len(output), dtype=dtype),
    )


def align(names: Sequence[str], arrays: Sequence[Array], indices: Sequence[Sequence[str]]) -> tuple[Array, ...]:
    """Give every array the chunks that the first one with an index has along that index.

    Raises
    ------
    ValueError
        If chunk sizes are unknown and the numbers of blocks differ.
    """
    first: dict[str, tuple[str, tuple[Any, ...]]] = {}
    aligned = []
    for name, array, index in zip(names, arrays, indices, strict=True):
        for axis, (label, chunks) in enumerate(zip(index, array.chunks, strict=True)):
            other, wanted = first.setdefault(label, (name, chunks))
            if sum(wanted) == sum(chunks):  # never so where one of them is nan
                array = array.rechunk({axis: wanted})
            elif len(wanted) != len(chunks):
                raise ValueError(
                    f"axis {label}: {other} has {len(wanted)} blocks, {name} has {len(chunks)}, and their sizes are "
                    f"not all known: call compute_chunk_sizes() on the array whose shape has nan"
                )
        aligned.append(array)
    return tuple(aligned)


def has_unknown_blocks(*arrays: Array) -> bool:
    """Say whether the size of any block is unknown."""
    return any(size != size for array in arrays for chunks in array.chunks for size in chunks)


def one_block(array: Array, axis: int) -> Array:
    """Return the array with one block along an axis."""
    axis %= array.ndim
    return array if array.numblocks[axis] == 1 else array.rechunk({axis: -1})


def lift(array: Array, like: Array) -> Array:
    """Return a Dask array of one block; a NumPy array gets a name made from its content."""
    if namespace.is_chunked(namespace.of(array)):
        if has_unknown_blocks(array):
            raise ValueError("W or B has blocks of unknown size: call compute_chunk_sizes() on it first")
        return array if max(array.numblocks, default=1) == 1 else array.rechunk(-1)
    # The library of the blocks decides, so that a NumPy weight meets CuPy blocks as CuPy.
    return dask_array().from_array(namespace.of(like._meta, "a block of X").asarray(array), chunks=-1)


def from_source(source: Any, rows: int) -> Array:
    """Make a Dask array of whatever has a shape, a dtype and slices, with `rows` rows in a block."""
    return dask_array().from_array(source, chunks=(rows, *source.shape[1:]))


def dask_array() -> Any:
    """Return Dask's array module."""
    try:
        import dask.array
    except ImportError:
        raise ImportError("chunked arrays need Dask: pip install 'fc_arrayapi[dask]'") from None
    return dask.array


def _one_index_an_axis(
    arrays: Sequence[Array], indices: Sequence[Sequence[str]]
) -> tuple[list[Array], list[tuple[str, ...]]]:
    """Give the second axis of a diagonal an index of its own; a diagonal lies in one block of every operand."""
    doubled = {label for index in indices for label in index if index.count(label) > 1}
    single, unique = [], []
    for position, (array, index) in enumerate(zip(arrays, indices, strict=True)):
        own = list(index)
        for axis, label in enumerate(index):
            if label in doubled:
                array = one_block(array, axis)
            if axis != index.index(label):
                own[axis] = f"{label} of axis {axis} of operand {position}"
        single.append(array)
        unique.append(tuple(own))
    return single, unique


def _contract_blocks(*blocks: Any, apply: Callable[..., Array], summed: int) -> Array:
    """Contract one block of each operand, with an axis of size 1 for each index that is summed over blocks."""
    term = apply(*map(_only, blocks))
    return namespace.of(term).reshape(term, (*term.shape, *[1] * summed)) if summed else term


def _only(block: Any) -> Array:
    """Take the one block out of the nested lists in which Dask hands over an index that the output has not."""
    while isinstance(block, list):
        (block,) = block
    return block


def _keep(term: Array, axis: Any = None, keepdims: Any = None) -> Array:
    return term


def _add(terms: Any, axis: Any = None, keepdims: Any = None) -> Array:
    """Add terms that come in a list, nested once for each axis."""
    if not isinstance(terms, list):
        return terms
    total = _add(terms[0])
    for other in terms[1:]:
        total = total + _add(other)
    return total


def _finish(total: Any, kept: int, dtype_of_sum: Any) -> Array:
    """Drop the axes of size 1 that were summed, and round to the dtype of the result."""
    total = _only(total)
    xp = namespace.of(total)
    return xp.astype(xp.reshape(total, total.shape[:kept]), dtype_of_sum, copy=False)
